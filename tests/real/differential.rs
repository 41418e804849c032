//! The same statements direct against a server and through the proxy: every packet of every
//! reply must be the same, and the servers' general logs must show each where it belongs.
//!
//! Cases stand in the tables of `differential/`; each names the rows of the specification's
//! table of hard cases that it covers. Every case runs in a schema of its own, twice: as a
//! modern client (OK packets at the end of rows, session trackers) and as an old one.

use std::collections::BTreeSet;

use pointsman::protocol::flags::Capabilities;
use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::MONITOR;

use crate::console::console;
use crate::logs::Tail;
use crate::proxy::{Proxy, configuration_with};
use crate::{servers, wait};

mod client;
mod generate;
mod random;
mod run;
mod script;

use client::Client;
use run::{Outcome, Rivals, Side};
use script::Case;

/// The tables.
const TABLES: &[(&str, &str)] = &[
    ("reads.txt", include_str!("differential/reads.txt")),
    ("functions.txt", include_str!("differential/functions.txt")),
    ("transactions.txt", include_str!("differential/transactions.txt")),
    ("state.txt", include_str!("differential/state.txt")),
    ("wire.txt", include_str!("differential/wire.txt")),
    ("consistency.txt", include_str!("differential/consistency.txt")),
    ("judges.txt", include_str!("differential/judges.txt")),
];

/// Rows of the table of hard cases without a case here, each with what shows it instead, or why
/// nothing can on one machine with these servers.
const ELSEWHERE: &[(&[u16], &str)] = &[
    (&[85], "a server whose sessions begin without autocommit: session/tests/routing.rs"),
    (
        &[107, 164, 165, 166, 167, 168],
        "servers that die under a session: faults.rs, \
        session/tests/loss.rs",
    ),
    (&[149], "a server's goodbye is not an answer: session/tests/loss.rs"),
    (&[157], "another session's reads, mode `global`: freshness.rs, router/policy/tests.rs"),
    (&[159], "tagged GTIDs and several domains: topology/gtid/tests.rs"),
    (&[163, 179], "replicas that never catch up: freshness.rs"),
    (
        &[169, 172],
        "a primary that became read-only, a server shutting down: faults.rs, \
        session/tests/loss.rs",
    ),
    (&[170], "needs Group Replication, which takes three servers of its plugin"),
    (&[171], "needs Galera"),
    (&[174], "refusals for want of connections: session/tests/routing.rs"),
    (&[175], "a server that dies in mid-result: faults.rs"),
    (
        &[176, 177, 178, 180],
        "who is primary, and fencing: health.rs, faults.rs, health/judge.rs; switchovers, \
        failovers and several pointsman: tests/faults",
    ),
];

/// Fewest cases that a family must have.
const ENOUGH: usize = 120;

/// How many cases may be asked again because no replica was fit at that moment, which the state
/// of the machine decides. What the text of a statement decides comes out the same again.
const AGAIN: usize = 3;

/// Why a read goes to the primary though its text would let it run on a replica.
const UNFIT: [&str; 4] = ["no_replica", "lagging", "not_caught_up", "settings_differ"];

/// Statements that every case begins with.
const FIRST: &[&str] = &[
    "DROP DATABASE IF EXISTS $S",
    "CREATE DATABASE $S",
    "USE $S",
    "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, a INT, s VARCHAR(40))",
    "INSERT INTO t (a, s) VALUES (10, 'one'), (20, 'two'), (30, 'three')",
];

/// How a client speaks.
#[derive(Debug, Clone, Copy)]
struct Manner {
    name: &'static str,
    capabilities: Capabilities,
}

/// How the proxy shares links between the cases' sessions and others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// As it comes.
    Usual,
    /// After each step others take whatever link the session has given up. MySQL's links are
    /// compressed as well.
    Contended,
    /// Not at all; links are compressed.
    Off,
}

impl Sharing {
    fn settings(self) -> &'static str {
        match self {
            Self::Usual => "",
            Self::Contended => "idle_release = \"0\"\nserver_compression = \"zstd\"",
            Self::Off => "multiplexing = false\nserver_compression = \"zlib\"",
        }
    }
}

fn manners() -> [Manner; 2] {
    let old = Capabilities::LONG_FLAG
        .with(Capabilities::TRANSACTIONS)
        .with(Capabilities::MULTI_STATEMENTS)
        .with(Capabilities::MULTI_RESULTS)
        .with(Capabilities::PS_MULTI_RESULTS)
        .with(Capabilities::LOCAL_FILES);
    let modern = old.with(Capabilities::DEPRECATE_EOF).with(Capabilities::SESSION_TRACK);
    [Manner { name: "modern", capabilities: modern }, Manner { name: "old", capabilities: old }]
}

/// The cases of one family; with `POINTSMAN_CASES` set, those whose schema or rows it names.
fn cases(flavour: Flavour) -> Vec<Case> {
    let mut all: Vec<Case> = Vec::new();
    for (name, text) in TABLES {
        all.extend(script::read(name, text, all.len() + 1));
    }
    all.retain(|case| case.flavour.is_none_or(|only| only == flavour));
    if let Some(wanted) = std::env::var_os("POINTSMAN_CASES") {
        let wanted = wanted.to_string_lossy();
        let wanted: Vec<&str> = wanted.split(',').collect();
        all.retain(|case| {
            let row = |word: &&str| case.rows.iter().any(|row| row.to_string() == **word);
            wanted.iter().any(|word| row(word) || case.schema() == **word)
        });
    } else {
        assert!(all.len() >= ENOUGH, "{} cases only", all.len());
    }
    all
}

fn root(cluster: &Cluster) -> Client {
    run::root(cluster.primary().expect("a primary").port)
}

/// Brings everything that the cases need, anew.
async fn set_up(cluster: &Cluster, cases: &[Case]) {
    let mut root = root(cluster);
    for case in cases {
        let first = FIRST.iter().map(|sql| (*sql).to_owned());
        for sql in case.clean.iter().cloned().chain(first).chain(case.setup.iter().cloned()) {
            run::as_root(&mut root, case, &sql);
        }
    }
    cluster.wait_caught_up().await.expect("replicas follow");
}

fn tidy_up(cluster: &Cluster, cases: &[Case]) {
    let mut root = root(cluster);
    for case in cases {
        for sql in case.clean.iter().map(String::as_str).chain(["DROP DATABASE IF EXISTS $S"]) {
            run::as_root(&mut root, case, sql);
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    differences: usize,
    misroutes: usize,
    refusals: usize,
    lines: Vec<String>,
    failed: BTreeSet<usize>,
}

impl Tally {
    fn compare(&mut self, case: &Case, manner: Manner, direct: &[Outcome], proxied: &[Outcome]) {
        assert_eq!(direct.len(), proxied.len());
        for ((step, direct), proxied) in case.steps.iter().zip(direct).zip(proxied) {
            let at = format!(
                "rows {:?} {}:{} {} {} ({})",
                case.rows,
                case.table,
                step.line,
                case.schema(),
                manner.name,
                case.title
            );
            if direct.reply != proxied.reply {
                let refused = direct.reply.error().is_none() && proxied.reply.error().is_some();
                self.refusals += usize::from(refused);
                self.differences += usize::from(!refused);
                let word = if refused { "REFUSED" } else { "DIFFERENT" };
                let what = run::difference(&direct.reply, &proxied.reply);
                self.lines.push(format!("{word} {at}\n    {}\n{what}", step.body));
                self.failed.insert(case.number);
            }
            if let Some(misroute) = &proxied.misroute {
                self.misroutes += 1;
                self.lines.push(format!("MISROUTED {at}\n    {}\n    {misroute}", step.body));
                self.failed.insert(case.number);
            }
        }
    }
}

/// How many statements have found no replica that was fit for them at that moment, by reason.
fn passed_over(proxy: &Proxy) -> [f64; 4] {
    UNFIT.map(|reason| proxy.metric("pointsman_route_total", &[&format!("reason=\"{reason}\"")]))
}

async fn is_read_from(proxy: &Proxy) -> Option<()> {
    let place = console(proxy, "EXPLAIN ROUTE SELECT 1 FROM t").await;
    (!UNFIT.iter().any(|why| place.contains(why))).then_some(())
}

async fn all(flavour: Flavour, sharing: Sharing) {
    // As the client wrote it, what cannot be parsed and passwords included: MariaDB's way.
    let options: &[&str] = match flavour {
        Flavour::Mariadb => &[],
        Flavour::Mysql => &["--log-raw=1"],
    };
    all_on(servers::own_with(flavour, 2, options).await, sharing).await;
}

async fn all_on(cluster: Cluster, sharing: Sharing) {
    let flavour = cluster.flavour();
    let group = format!(
        "replica_wait = \"20s\"\nconnect_timeout = \"20s\"\nmax_lag = \"5m\"\n{}",
        sharing.settings()
    );
    // On a busy machine a replica may be slow to answer a probe, and is read from all the same.
    let seed = cluster.primary().expect("a primary").address();
    let config = configuration_with(MONITOR, "timeout = \"10s\"", &[&seed], &group);
    let proxy = Proxy::with_config(&config).await.unwrap_or_else(|why| panic!("{why}"));
    let cases = cases(flavour);
    let mut tails: Vec<Tail> = cluster.servers().iter().map(Tail::new).collect();
    let mut tally = Tally::default();
    let writer = cluster.primary().expect("a primary");
    let (primary, port) = (writer.name.as_str(), writer.port);
    let servers: Vec<u16> = cluster.servers().iter().map(|server| server.port).collect();
    let mut again = AGAIN;
    for manner in manners() {
        set_up(&cluster, &cases).await;
        let side = Side { port, mark: 'd', primary, rivals: Rivals::None, servers: &servers };
        let mut direct = Vec::new();
        for case in &cases {
            direct.push(run::case(&side, case, manner.capabilities, &mut tails).await);
        }
        set_up(&cluster, &cases).await;
        let rivals = if sharing == Sharing::Contended { Rivals::Staying } else { Rivals::None };
        let side = Side { port: proxy.port, mark: 'p', primary, rivals, servers: &servers };
        for (case, direct) in cases.iter().zip(&direct) {
            let before = passed_over(&proxy);
            let mut proxied = run::case(&side, case, manner.capabilities, &mut tails).await;
            if proxied.iter().any(|outcome| outcome.misroute.is_some()) {
                let after = passed_over(&proxy);
                if after != before && again > 0 {
                    again -= 1;
                    println!("{} is asked again: {before:?}, then {after:?}", case.schema());
                    wait::until("a replica that is read from", || is_read_from(&proxy)).await;
                    set_up(&cluster, std::slice::from_ref(case)).await;
                    proxied = run::case(&side, case, manner.capabilities, &mut tails).await;
                }
            }
            tally.compare(case, manner, direct, &proxied);
        }
    }
    tidy_up(&cluster, &cases);
    let Tally { differences, misroutes, refusals, lines, failed } = tally;
    let rows: BTreeSet<u16> = cases.iter().flat_map(|case| case.rows.iter().copied()).collect();
    println!(
        "{flavour:?}, {sharing:?}: {} cases of {} rows, {differences} differences, {misroutes} misroutes, \
         {refusals} refusals",
        cases.len(),
        rows.len()
    );
    let failing = failed.len();
    drop(proxy);
    cluster.down().await.expect("taken down");
    assert!(lines.is_empty(), "{failing} cases fail:\n{}", lines.join("\n"));
}

#[tokio::test]
async fn mariadb_answers_the_same_through_the_proxy() {
    if servers::present(Flavour::Mariadb) {
        all(Flavour::Mariadb, Sharing::Usual).await;
    }
}

#[tokio::test]
async fn mariadb_11_answers_the_same_through_the_proxy() {
    if let Some(cluster) = servers::own_newer_mariadb(2, &[]).await {
        all_on(cluster, Sharing::Usual).await;
    }
}

#[tokio::test]
async fn mysql_answers_the_same_through_the_proxy() {
    if servers::present(Flavour::Mysql) {
        all(Flavour::Mysql, Sharing::Usual).await;
    }
}

#[tokio::test]
async fn mariadb_answers_the_same_when_each_statement_finds_another_link() {
    if servers::present(Flavour::Mariadb) {
        all(Flavour::Mariadb, Sharing::Contended).await;
    }
}

#[tokio::test]
async fn mysql_answers_the_same_when_each_statement_finds_another_link() {
    if servers::present(Flavour::Mysql) {
        all(Flavour::Mysql, Sharing::Contended).await;
    }
}

#[tokio::test]
async fn mariadb_answers_the_same_when_links_are_not_shared() {
    if servers::present(Flavour::Mariadb) {
        all(Flavour::Mariadb, Sharing::Off).await;
    }
}

#[test]
fn every_row_has_a_case_or_is_accounted_for() {
    let mut rows: Vec<u16> = ELSEWHERE.iter().flat_map(|(rows, _)| rows.to_vec()).collect();
    for (name, text) in TABLES {
        rows.extend(script::read(name, text, 1).iter().flat_map(|case| case.rows.clone()));
    }
    let missing: Vec<u16> = (1..=180).filter(|row| !rows.contains(row)).collect();
    assert!(missing.is_empty(), "rows without a case: {missing:?}");
}
