//! Random sessions: the same script direct against the primary and through the proxy, every
//! packet of every reply compared; and no replica may have run what writes. Half of the scripts
//! give their links to the pool after each statement, and other clients come and take them.
//!
//! `POINTSMAN_STATEMENTS` says how many statements (20,000 unless told), `POINTSMAN_SEED` with
//! which number to begin, or which numbers to run (`1017,1059`). A script that fails is made as
//! short as it goes and printed in the form of the tables, with the seed that makes it again.
//! `POINTSMAN_LENGTH` makes each script longer than 200 statements, and others than those are;
//! after `POINTSMAN_SECONDS` no further ones are begun. With `POINTSMAN_BOTH=direct` both sides
//! are the server itself: what differs then is the judge's own noise.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pointsman::protocol::flags::{Capabilities, Status};
use pointsman::protocol::reply;
use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{APP, ROOT};
use pointsman::provider::server::Server;

use super::client::Reply;
use super::generate::{self, Effect, Script};
use super::run::{self, Outcome, Rivals, Side};
use super::{Manner, manners, root};
use crate::logs::Tail;
use crate::proxy::Proxy;
use crate::servers;

/// Statements of one script unless told, those that make its tables aside.
const LENGTH: u64 = 200;
/// Scripts that run at the same time.
const THREADS: usize = 4;
/// Scripts between two looks into the replicas' logs.
const BATCH: usize = 40;
/// Reruns that may be spent on making a failing script shorter.
const RERUNS: usize = 150;
/// Failing scripts that are made shorter.
const SHORTENED: usize = 6;
/// Failing scripts after which a run ends.
const ENOUGH: usize = 12;

/// What the environment asks for.
struct Wanted {
    /// The scripts: as many as it takes, or those that are named.
    seeds: Vec<u64>,
    length: u64,
    /// When to begin no further ones.
    until: Option<Instant>,
    both_direct: bool,
}

impl Wanted {
    fn read() -> Self {
        let text = |name| std::env::var_os(name).map(|text| text.to_string_lossy().into_owned());
        let number = |text: &str| text.parse::<u64>().expect("a number");
        let numbers = |name, otherwise| text(name).map_or(otherwise, |text| number(&text));
        let length = numbers("POINTSMAN_LENGTH", LENGTH);
        let mut seeds: Vec<u64> = text("POINTSMAN_SEED")
            .map_or_else(|| vec![1], |text| text.split(',').map(number).collect());
        if let [first] = *seeds.as_slice() {
            let scripts = numbers("POINTSMAN_STATEMENTS", 20_000).div_ceil(length);
            seeds = (first..first + scripts).collect();
        }
        let seconds = text("POINTSMAN_SECONDS").map(|text| number(&text));
        Self {
            seeds,
            length,
            until: seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
            both_direct: text("POINTSMAN_BOTH").is_some_and(|both| both == "direct"),
        }
    }

    fn is_enough(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// How a script is run: by its seed, so that all four ways come in turns.
#[derive(Debug, Clone, Copy)]
struct Way {
    manner: Manner,
    /// Whether the session's links go to the pool after each statement, to whoever comes next.
    eager: bool,
}

struct World<'a> {
    flavour: Flavour,
    length: usize,
    direct: u16,
    /// A proxy whose busy sessions keep their links, and one whose sessions keep none.
    proxied: [u16; 2],
    /// Numbers for markers.
    next: AtomicUsize,
    /// Failing scripts that are still made shorter.
    patience: AtomicUsize,
    cluster: &'a Cluster,
}

/// What became of a script.
struct Report {
    script: Script,
    seed: u64,
    /// Steps before which a read-only transaction was open through the proxy.
    read_only: Vec<bool>,
    failure: Option<String>,
}

impl World<'_> {
    fn way(seed: u64) -> Way {
        let eager = seed / 2 % 2 == 1;
        let manner = manners()[usize::try_from(seed % 2).expect("small")];
        Way { manner, eager }
    }

    /// Runs a script on both sides, in the two schemas of `slot`.
    fn both(&self, script: &mut Script, slot: usize, way: Way) -> [Vec<Outcome>; 2] {
        let capabilities = way.manner.capabilities;
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        script.case.number = self.next.fetch_add(1, Ordering::Relaxed);
        let rivals = if way.eager { Rivals::Passing } else { Rivals::None };
        let mut side = |port, mark, rivals| {
            let side = Side { port, mark, primary: "", rivals, servers: &[] };
            script.case.schema = schema(mark, slot);
            runtime.block_on(run::case(&side, &script.case, capabilities, &mut []))
        };
        let direct = side(self.direct, 'd', Rivals::None);
        let mut proxied = side(self.proxied[usize::from(way.eager)], 'p', rivals);
        // The two schemas' names are of one length.
        let (from, to) = (schema('p', slot), schema('d', slot));
        for (_, payload) in proxied.iter_mut().flat_map(|outcome| &mut outcome.reply.packets) {
            replace(payload, from.as_bytes(), to.as_bytes());
        }
        let mut both = [direct, proxied];
        // What is settled is no error any more.
        forget_found_rows(script, &mut both);
        if self.flavour == Flavour::Mysql {
            settle_locks(&mut both);
        }
        for outcome in both.iter_mut().flatten() {
            settle(&mut outcome.reply, capabilities);
        }
        both
    }

    /// The first step whose replies differ, and how.
    fn first_difference(
        script: &Script,
        [direct, proxied]: &[Vec<Outcome>; 2],
    ) -> Option<(usize, String)> {
        let mut steps = script.case.steps.iter().zip(direct).zip(proxied);
        let at = steps.position(|((_, direct), proxied)| direct.reply != proxied.reply)?;
        let what = run::difference(&direct[at].reply, &proxied[at].reply);
        Some((at, format!("{}\n{what}", line(&script.case.steps[at]))))
    }

    fn one(&self, seed: u64, slot: usize) -> Report {
        let way = Self::way(seed);
        let mut script = generate::script(seed, self.length, self.flavour);
        let both = self.both(&mut script, slot, way);
        let read_only = read_only(&script, &both[1], way.manner.capabilities);
        let failure = Self::first_difference(&script, &both).and_then(|(at, what)| {
            let steps: Vec<usize> = (0..=at).collect();
            if let Some(lost) = self.lost_on_the_way(&mut script.only(&steps), slot, way) {
                println!("seed {seed}: not compared, {lost}");
                return None;
            }
            let shorter = self.shorter(&script, &steps, slot, way);
            // What is left of a script may fail in another way than the whole.
            let before = steps.iter().skip(steps.len().saturating_sub(8));
            let before: Vec<String> = before.map(|at| line(&script.case.steps[*at])).collect();
            let whole = format!("{}\n  at {what}", before.join("\n"));
            let (short, what) = shorter.unwrap_or_else(|| (script.only(&steps), what));
            let lines: Vec<String> = short.case.steps.iter().map(line).collect();
            let (name, shares) = (way.manner.name, if way.eager { ", keeps no link" } else { "" });
            let told = format!(
                "seed {seed} ({name}{shares}):\n{}\n  at {what}\nin the whole script after\n{whole}",
                lines.join("\n")
            );
            println!("{told}\n");
            Some(told)
        });
        Report { script, seed, read_only, failure }
    }

    /// What the servers themselves have not replicated of the direct session, which no replica can
    /// answer then (docs/session.md, random sessions).
    fn lost_on_the_way(&self, script: &mut Script, slot: usize, way: Way) -> Option<String> {
        self.both(script, slot, way);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            self.cluster.wait_caught_up().await.expect("replicas follow");
            let at = schema('d', slot);
            let sql = format!("CHECKSUM TABLE {at}.t, {at}.u, {at}.log");
            let there = checksums(self.cluster.primary().expect("a primary"), &sql).await;
            for replica in self.cluster.replicas().expect("replicas") {
                if checksums(replica, &sql).await != there {
                    return Some(format!("{} lacks what was done directly", replica.name));
                }
            }
            None
        })
    }

    /// Leaves out what is not needed for the same statement to be answered otherwise, in ever
    /// smaller pieces; the tables stay.
    fn shorter(
        &self,
        script: &Script,
        steps: &[usize],
        slot: usize,
        way: Way,
    ) -> Option<(Script, String)> {
        if self.patience.fetch_sub(1, Ordering::Relaxed) == 0 {
            self.patience.store(0, Ordering::Relaxed);
            return None;
        }
        let first = generate::first_steps(self.flavour);
        let mut keep = steps.to_vec();
        let failing = line(&script.case.steps[*steps.last()?]);
        let mut best = None;
        let mut piece = keep.len() / 2;
        let mut reruns = 0;
        while piece > 0 {
            let mut at = first;
            while at < keep.len() && reruns < RERUNS {
                reruns += 1;
                let mut fewer = keep.clone();
                fewer.drain(at..(at + piece).min(keep.len()));
                let mut candidate = script.only(&fewer);
                let both = self.both(&mut candidate, slot, way);
                match Self::first_difference(&candidate, &both) {
                    // What a server itself does not answer is another failure.
                    Some((last, what))
                        if line(&candidate.case.steps[last]) == failing
                            && !both[0][last].reply.broken =>
                    {
                        fewer.truncate(last + 1);
                        candidate = candidate.only(&(0..=last).collect::<Vec<_>>());
                        keep = fewer;
                        best = Some((candidate, what));
                    }
                    _ => at += piece,
                }
            }
            piece /= 2;
        }
        best
    }

    /// Makes the schemas of every slot, and whom they need.
    async fn set_up(&self) {
        let mut root = root(self.cluster);
        let mut script = generate::script(0, 0, self.flavour);
        for schema in (0..THREADS).flat_map(|slot| [schema('d', slot), schema('p', slot)]) {
            script.case.schema = schema;
            let first = ["DROP DATABASE IF EXISTS $S", "CREATE DATABASE $S", "USE $S"];
            for sql in first.iter().chain(generate::ROUTINES) {
                run::as_root(&mut root, &script.case, sql);
            }
        }
        for sql in ["CREATE ROLE rand_role", "GRANT rand_role TO app"] {
            run::as_root(&mut root, &script.case, sql);
        }
        self.cluster.wait_caught_up().await.expect("replicas follow");
    }
}

fn schema(mark: char, slot: usize) -> String {
    format!("rand_{mark}{slot}")
}

/// A step as the tables write it.
fn line(step: &super::script::Step) -> String {
    let words = step.words.join(" ");
    match step.verb.as_str() {
        "query" => format!("  - > {}", step.body),
        verb => format!("  - {verb} {words}> {}", step.body),
    }
}

fn replace(payload: &mut [u8], from: &[u8], to: &[u8]) {
    let mut at = 0;
    while let Some(found) = payload.get(at..).and_then(|rest| memchr::memmem::find(rest, from)) {
        let start = at + found;
        payload[start..start + to.len()].copy_from_slice(to);
        at = start + to.len();
    }
}

/// Status flags that tell of the plan (no index, no good index), which each server chooses by
/// statistics of its own, and that it took long, by a clock of its own.
const OWN_FLAGS: Status = Status(0x0830);

/// What MySQL says of a table with triggers that is locked to be read only, and written to: by
/// whether it finds the table with its triggers in that part of its cache which the number of
/// the connection's thread leads to, it misses the lock on a trigger's table first, or on the
/// table itself (9.7: 20 sessions of 20 said 1100 after they had written to it, 20 of 20 said
/// 1099 in a session of their own).
const LOCK_MISSED: [&[u8]; 2] =
    [b"was not locked with LOCK TABLES", b"was locked with a READ lock and can't be updated"];

/// What MySQL says instead of the first of them where the statement is wrong in itself: it finds
/// out about the lock first where that part of its cache has the table with its triggers (9.7: 2
/// sessions of 32 said 1100 and 30 said 1136, by the thread's number modulo the cache's 16 parts;
/// 3 of 3 said 1100 in the session that had written to the table, 7 of 7 said 1054 in another).
const WRONG_ANYWAY: [&[u8]; 2] = [b"Column count doesn't match value count", b"Unknown column"];

/// Makes one of what the server itself says one way or the other, on one side each.
fn settle_locks([direct, proxied]: &mut [Vec<Outcome>; 2]) {
    let has = |payload: &[u8], text| memchr::memmem::find(payload, text).is_some();
    let is_wrong = |payload: &[u8]| WRONG_ANYWAY.iter().any(|text| has(payload, *text));
    for (direct, proxied) in direct.iter_mut().zip(proxied) {
        let packets = direct.reply.packets.iter_mut().zip(&mut proxied.reply.packets);
        for ((_, direct), (_, proxied)) in packets {
            let either = has(direct, LOCK_MISSED[0]) && is_wrong(proxied)
                || is_wrong(direct) && has(proxied, LOCK_MISSED[0]);
            if either {
                direct.clone_from(proxied);
            }
        }
    }
}

/// Takes out what the server itself answers one way or the other.
fn settle(reply: &mut Reply, capabilities: Capabilities) {
    let last = reply.packets.len().saturating_sub(1);
    for (n, (_, payload)) in reply.packets.iter_mut().enumerate() {
        if LOCK_MISSED.iter().any(|text| memchr::memmem::find(payload, text).is_some()) {
            *payload = b"a lock is missed".to_vec();
        }
        let deprecates = capabilities.has(Capabilities::DEPRECATE_EOF);
        let header = payload.first().copied();
        if let [0xFE, _, _, low, high] = payload.as_mut_slice() {
            let status = Status(u16::from_le_bytes([*low, *high])).without(OWN_FLAGS);
            [*low, *high] = status.0.to_le_bytes();
        } else if header == Some(0xFE) && deprecates && payload.len() >= 7 {
            settle_ok(payload);
        } else if header == Some(0) && (n == 0 || n == last) {
            // Rows may begin with this byte too.
            settle_ok(payload);
        }
    }
}

/// FOUND_ROWS of before a change of user is not compared (docs/session.md, known differences): what
/// is asked for with no rows in between.
fn forget_found_rows(script: &Script, both: &mut [Vec<Outcome>; 2]) {
    let [direct, proxied] = both;
    let mut known = true;
    for (step, (direct, proxied)) in script.case.steps.iter().zip(direct.iter_mut().zip(proxied)) {
        if step.verb == "changeuser" {
            known = false;
        } else if !known && step.body.contains("FOUND_ROWS()") {
            proxied.reply = direct.reply.clone();
        } else if step.body.starts_with("SELECT") && step.verb == "query" {
            known |= direct.reply.error().is_none();
        }
    }
}

fn settle_ok(payload: &mut [u8]) {
    let length = |first: Option<&u8>| match first {
        Some(0xFC) => 3,
        Some(0xFD) => 4,
        Some(0xFE) => 9,
        _ => 1,
    };
    // The header, the rows affected, the insert id, the flags.
    let at = 1 + length(payload.get(1));
    let at = at + length(payload.get(at));
    if let Some([low, high]) = payload.get_mut(at..at + 2) {
        let status = Status(u16::from_le_bytes([*low, *high])).without(OWN_FLAGS);
        [*low, *high] = status.0.to_le_bytes();
    }
}

/// Before which steps the replies' flags spoke of a read-only transaction.
fn read_only(script: &Script, outcomes: &[Outcome], capabilities: Capabilities) -> Vec<bool> {
    let mut open = false;
    let mut before = Vec::new();
    for (step, outcome) in script.case.steps.iter().zip(outcomes) {
        before.push(open);
        // The answer to COM_STMT_PREPARE has no flags.
        if let Some((_, payload)) = outcome.reply.packets.last().filter(|_| step.verb != "prepare")
        {
            let status = match payload.first() {
                Some(0xFE) if payload.len() == 5 => {
                    Some(Status(u16::from_le_bytes([payload[3], payload[4]])))
                }
                Some(0 | 0xFE) => reply::Ok::parse(payload, capabilities).ok().map(|ok| ok.status),
                _ => None,
            };
            open = status.map_or(open, |status| status.has(Status::IN_TRANS_READONLY));
        }
    }
    before
}

/// What the replicas' logs say that must not be: steps made to write that ran there.
fn misroutes(tails: &mut [Tail], reports: &BTreeMap<usize, &Report>) -> Vec<String> {
    let mut found = Vec::new();
    for entry in tails.iter_mut().flat_map(Tail::more) {
        let ran = entry.user == APP.0 && ["Query", "Execute"].contains(&entry.command.as_str());
        let Some((script, step)) = marker(&entry.text).filter(|_| ran) else { continue };
        let Some(report) = reports.get(&script) else { continue };
        let wrote = report.script.effects.get(step) == Some(&Effect::Write);
        if wrote && !report.read_only.get(step).copied().unwrap_or(false) {
            found.push(format!(
                "seed {} step {step} on {}: {}",
                report.seed, entry.server, entry.text
            ));
        }
    }
    found
}

/// `/*p0000012.34*/`: script 12, step 34.
fn marker(text: &str) -> Option<(usize, usize)> {
    let (_, rest) = text.split_once("/*p")?;
    let (script, rest) = rest.split_once('.')?;
    let (step, _) = rest.split_once("*/")?;
    Some((script.parse().ok()?, step.parse().ok()?))
}

/// What the application's account has done on a replica that it must not: the server's own
/// counters by account, and the origin of what stands in its binary log.
async fn replica_writes(flavour: Flavour, replica: &Server) -> String {
    match flavour {
        Flavour::Mariadb => {
            // Replication applies rows, so that these are clients' own; what is refused in a
            // read-only transaction is counted too, which leaves the four that write rows to
            // the binary log: in its state must be no GTID with this server's number.
            let counters = "SELECT GROUP_CONCAT(VARIABLE_NAME, ' ', VARIABLE_VALUE) \
                FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_VALUE > 0 AND VARIABLE_NAME \
                IN ('COM_CREATE_TEMPORARY_TABLE', 'COM_DROP_TEMPORARY_TABLE', 'COM_HA_OPEN', \
                'COM_LOCK_TABLES', 'COM_UNLOCK_TABLES', 'COM_CALL_PROCEDURE', 'COM_XA_START', \
                'COM_PREPARE_SQL', 'COM_EXECUTE_SQL', 'COM_LOAD', 'COM_COMPOUND_SQL')";
            let own = "SELECT CONCAT(@@gtid_binlog_state) WHERE @@gtid_binlog_state \
                REGEXP CONCAT('-', @@server_id, '-')";
            [ask(replica, counters).await, ask(replica, own).await].concat()
        }
        Flavour::Mysql => {
            // What clients may run there by name; the rest must not have succeeded once.
            let counters = "SELECT GROUP_CONCAT(EVENT_NAME, ' ', COUNT_STAR - SUM_ERRORS) FROM \
                performance_schema.events_statements_summary_by_user_by_event_name \
                WHERE USER = 'app' AND COUNT_STAR > SUM_ERRORS AND EVENT_NAME REGEXP \
                '/sql/(insert|update|delete|replace|create|drop|alter|truncate|load|call|lock|\
                unlock|ha_|prepare_sql|execute_sql|xa_|rename|analyze|flush)'";
            let own = "SELECT @@gtid_executed WHERE LOCATE(@@server_uuid, @@gtid_executed) > 0";
            [ask(replica, counters).await, ask(replica, own).await].concat()
        }
    }
}

async fn checksums(server: &Server, sql: &str) -> Vec<(String, Option<u64>)> {
    use mysql_async::prelude::Queryable as _;
    let mut conn = server.connect(ROOT).await.expect("root may log in");
    conn.query(sql).await.expect(sql)
}

async fn ask(server: &Server, sql: &str) -> String {
    use mysql_async::prelude::Queryable as _;
    let mut conn = server.connect(ROOT).await.expect("root may log in");
    let row: Option<Option<String>> = conn.query_first(sql).await.expect(sql);
    row.flatten().unwrap_or_default()
}

async fn sessions(flavour: Flavour) {
    let wanted = Wanted::read();
    let seeds = &wanted.seeds;
    let options: &[&str] = match flavour {
        // What FOUND_ROWS() says at first is what the last session has left that had the same
        // thread, if that was kept (10.11, measured).
        Flavour::Mariadb => &["--innodb-lock-wait-timeout=2", "--thread-cache-size=0"],
        Flavour::Mysql => &["--log-raw=1", "--innodb-lock-wait-timeout=2"],
    };
    let cluster = servers::own_with(flavour, 2, options).await;
    let primary = cluster.primary().expect("a primary");
    let usual = Proxy::start(&cluster, "replica_wait = \"20s\"").await;
    let eager = Proxy::start(&cluster, "replica_wait = \"20s\"\nidle_release = \"0\"").await;
    let replicas = cluster.replicas().expect("replicas");
    let mut tails: Vec<Tail> = replicas.iter().map(|server| Tail::new(server)).collect();
    let world = World {
        flavour,
        direct: primary.port,
        length: usize::try_from(wanted.length).expect("small"),
        proxied: if wanted.both_direct { [primary.port; 2] } else { [usual.port, eager.port] },
        next: AtomicUsize::new(1),
        patience: AtomicUsize::new(SHORTENED),
        cluster: &cluster,
    };
    world.set_up().await;
    let begun = Instant::now();
    let mut failures = Vec::new();
    let mut done = 0;
    for batch in seeds.chunks(BATCH) {
        let reports = batch_of(&world, batch);
        let by_number = reports.iter().map(|report| (report.script.case.number, report));
        let routed = misroutes(&mut tails, &by_number.collect());
        for line in &routed {
            println!("MISROUTED {line}");
        }
        failures.extend(routed);
        failures.extend(reports.iter().filter_map(|report| report.failure.clone()));
        done += batch.len();
        if done % (5 * BATCH) == 0 {
            let seconds = begun.elapsed().as_secs();
            let statements = done as u64 * wanted.length;
            println!("{flavour:?}: {statements} in {seconds} s, {} failures", failures.len());
        }
        if failures.len() >= ENOUGH || wanted.is_enough() {
            break;
        }
    }
    cluster.wait_caught_up().await.expect("replicas follow");
    for replica in &replicas {
        let wrote = replica_writes(flavour, replica).await;
        if !wrote.is_empty() {
            failures.push(format!("{} has writes of its own: {wrote}", replica.name));
        }
    }
    let told = |name, labels: &[&str]| usual.metric(name, labels) + eager.metric(name, labels);
    let reads = told("pointsman_route_total", &["reason=\"plain_read\""]);
    let handed = told("pointsman_links_taken_total", &["how=\"other\""]);
    println!(
        "{flavour:?}: {} statements from seed {} in {} s, {reads} on replicas, {handed} hand-overs, \
         {} failures",
        done as u64 * wanted.length,
        seeds.first().expect("a seed"),
        begun.elapsed().as_secs(),
        failures.len()
    );
    drop((usual, eager));
    cluster.down().await.expect("taken down");
    assert!(failures.is_empty(), "{} of them:\n{}", failures.len(), failures.join("\n\n"));
}

/// Runs scripts side by side.
fn batch_of(world: &World<'_>, seeds: &[u64]) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    let work = &|slot: usize| {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let report = world.one(*seed, slot);
            reports.lock().expect("whole").push(report);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|slot| scope.spawn(move || work(slot))).collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    reports.into_inner().expect("whole")
}

#[tokio::test]
async fn random_sessions_on_mariadb_are_answered_as_directly() {
    if servers::present(Flavour::Mariadb) {
        sessions(Flavour::Mariadb).await;
    }
}

#[tokio::test]
async fn random_sessions_on_mysql_are_answered_as_directly() {
    if servers::present(Flavour::Mysql) {
        sessions(Flavour::Mysql).await;
    }
}
