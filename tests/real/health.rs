//! Observing real servers: discovery, roles, a switchover by plain SQL, deaths, and accounts.
//! One cluster a family, and the checks one after the other on it: a cluster costs seconds.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pointsman::accounts::{AccountBook, Lookup};
use pointsman::config::tls::ServerTls;
use pointsman::config::units::Secret;
use pointsman::config::{Group, Monitor};
use pointsman::health::assemble::Appointment;
use pointsman::health::{self, Command, Health};
use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{APP, MONITOR};
use pointsman::provider::server::Server;
use pointsman::tls::trust::Trust;
use pointsman::topology::{Condition, Node, Role, Topology};
use tokio::sync::watch;

use crate::servers;

/// Longest wait for anything to be seen.
const PATIENCE: Duration = Duration::from_secs(30);

struct Observed {
    cluster: Cluster,
    health: Health,
    group: Arc<Group>,
    _stop: watch::Sender<bool>,
}

fn monitor() -> Monitor {
    Monitor {
        user: MONITOR.0.to_owned(),
        password: Secret::new(MONITOR.1.to_owned()),
        interval: Duration::from_millis(200),
        timeout: Duration::from_secs(2),
        fall: 3,
        rise: 1,
    }
}

/// What believes servers when nothing is configured.
fn trust() -> Arc<ArcSwap<Trust>> {
    Arc::new(ArcSwap::from_pointee(Trust::new(&ServerTls::default()).expect("nothing to read")))
}

fn group(seed: &str) -> Arc<Group> {
    Arc::new(Group {
        name: Arc::from("main"),
        seeds: vec![Arc::from(seed)],
        max_lag: Duration::from_secs(30),
        ..Group::default()
    })
}

/// A cluster observed from the address of its first replica alone.
async fn observed(flavour: Flavour) -> Observed {
    let cluster = servers::own(flavour, 2).await;
    let seed = cluster.replicas().expect("replicas")[0].address();
    let group = group(&seed);
    let (stop, shutdown) = watch::channel(false);
    let health = health::start(group.clone(), monitor(), trust(), Appointment::Open, shutdown);
    Observed { cluster, health, group, _stop: stop }
}

impl Observed {
    fn server(&self, name: &str) -> Server {
        self.cluster.server(name).expect("a server of the sandbox").clone()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Topology) -> bool) -> Arc<Topology> {
        let waiting = async {
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            loop {
                let topology = self.health.cell.load();
                if holds(&topology) {
                    return topology;
                }
                tick.tick().await;
            }
        };
        let Ok(topology) = tokio::time::timeout(PATIENCE, waiting).await else {
            panic!("never {what}: {:#?}", self.health.cell.load())
        };
        topology
    }
}

/// The node that listens on this server's port, under whatever host name it was found.
fn node<'a>(topology: &'a Topology, server: &Server) -> Option<&'a Node> {
    let port = format!(":{}", server.port);
    let mut nodes = topology.nodes.iter();
    nodes.find(|node| node.address.ends_with(&port) && node.facts.is_some())
}

fn is_primary(topology: &Topology, server: &Server) -> bool {
    let found = node(topology, server);
    found.is_some() && found.map(|node| node.id) == topology.primary
}

/// Keeps every generation that it gets to see, until told to stop.
fn record(health: &Health) -> (tokio::task::JoinHandle<Vec<Arc<Topology>>>, watch::Sender<bool>) {
    let (cell, mut generation) = (health.cell.clone(), health.cell.subscribe());
    let (stop, mut stopped) = watch::channel(false);
    let recording = pointsman::app::tasks::spawn("record", async move {
        let mut seen = vec![cell.load()];
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return seen,
                changed = generation.changed() => {
                    changed.expect("the owner lives");
                    seen.push(cell.load());
                }
            }
        }
    });
    (recording, stop)
}

async fn one_seed_finds_all(observed: &Observed) {
    let settled = observed
        .until("three servers with their roles", |topology| {
            topology.primary.is_some()
                && topology.nodes.iter().filter(|node| node.role == Role::Replica).count() == 2
        })
        .await;
    let primary = observed.cluster.primary().expect("a primary");
    assert!(is_primary(&settled, primary), "{settled:#?}");
    assert_eq!(settled.nodes.len(), 3, "one node a server, whatever it is called");
    for node in &settled.nodes {
        let facts = node.facts.as_ref().expect("probed");
        assert_eq!(node.condition, Condition::Up, "{}", node.trouble);
        assert_eq!(node.read_only, node.role == Role::Replica);
        assert!(node.applying);
        assert!(!facts.auth_plugin.is_empty() && facts.capabilities != 0);
        assert!(facts.max_allowed_packet > 0 && facts.wait_timeout > 0);
        assert!(!facts.sees_us_as.is_empty());
    }
    let said = primary.ask("SELECT VERSION()").await.expect("answers");
    let greeted = settled.facts().expect("facts").version_text.clone();
    assert!(greeted.ends_with(&said), "{greeted} and {said}");
}

async fn a_probe_breaks_no_connection(observed: &Observed) {
    let primary = observed.cluster.primary().expect("a primary");
    let aborted = servers::status(primary, observed.cluster.flavour(), "Aborted_connects").await;
    assert_eq!(aborted, "0", "the monitor's logins are complete");
}

async fn writes_become_positions(observed: &Observed) {
    let primary = observed.cluster.primary().expect("a primary");
    let before = observed.health.cell.load().primary_node().expect("there").applied.clone();
    primary.run(&["CREATE TABLE app.h1 (a INT)", "DROP TABLE app.h1"]).await.expect("runs");
    observed.cluster.wait_caught_up().await.expect("replicas follow");
    observed
        .until("all at the new position", |topology| {
            let Some(primary) = topology.primary_node() else { return false };
            primary.applied.contains(&before)
                && !before.contains(&primary.applied)
                && topology.nodes.iter().all(|node| {
                    node.applied.contains(&primary.applied) && node.lag == Some(Duration::ZERO)
                })
        })
        .await;
}

async fn a_stopped_applier_is_seen(observed: &Observed, server: &Server) {
    let (stop, start) = match observed.cluster.flavour() {
        Flavour::Mariadb => ("STOP SLAVE SQL_THREAD", "START SLAVE SQL_THREAD"),
        Flavour::Mysql => ("STOP REPLICA SQL_THREAD", "START REPLICA SQL_THREAD"),
    };
    server.run(&[stop]).await.expect("stops");
    observed.until("not applying", |at| node(at, server).is_some_and(|node| !node.applying)).await;
    let primary = observed.cluster.primary().expect("a primary");
    primary.run(&["CREATE TABLE app.h2 (a INT)", "DROP TABLE app.h2"]).await.expect("runs");
    observed
        .until("lagging by position", |at| {
            node(at, server).is_some_and(|node| node.lag > Some(Duration::from_millis(300)))
        })
        .await;
    server.run(&[start]).await.expect("starts");
    observed
        .until("applying and level", |at| {
            node(at, server).is_some_and(|node| node.applying && node.lag == Some(Duration::ZERO))
        })
        .await;
}

async fn death_and_return_are_seen(observed: &Observed, server: &Server) {
    let name = node(&observed.health.cell.load(), server).expect("known").name.to_string();
    let answer = observed.health.ask(|reply| Command::Drain(name.clone(), reply)).await;
    answer.expect("obeyed");
    // Killed with a position that is not in its log yet, MariaDB refuses the same DDL again.
    server.run(&["FLUSH LOCAL ENGINE LOGS"]).await.expect("flushed");
    observed.cluster.kill(&server.name).await.expect("killed");
    observed
        .until("in trouble", |at| node(at, server).is_some_and(|node| !node.trouble.is_empty()))
        .await;
    let drained = observed.health.cell.load();
    let shown = node(&drained, server).expect("known").condition;
    assert_eq!(shown, Condition::Draining, "a drain survives probes");
    observed.health.ask(|reply| Command::Undrain(name, reply)).await.expect("obeyed");
    observed
        .until("down", |at| node(at, server).is_some_and(|node| node.condition == Condition::Down))
        .await;
    observed.cluster.start(&server.name).await.expect("starts");
    observed
        .until("up again as a replica", |at| {
            node(at, server).is_some_and(|node| {
                node.condition == Condition::Up && node.role == Role::Replica && node.applying
            })
        })
        .await;
}

async fn a_frozen_server_goes_down(observed: &Observed, server: &Server) {
    observed.cluster.freeze(&server.name).expect("frozen");
    observed
        .until("down", |at| node(at, server).is_some_and(|node| node.condition == Condition::Down))
        .await;
    observed.cluster.thaw(&server.name).expect("thawed");
    observed
        .until("up", |at| node(at, server).is_some_and(|node| node.condition == Condition::Up))
        .await;
}

async fn a_switchover_is_followed(observed: &Observed, to: &Server) {
    let (recording, stop) = record(&observed.health);
    let from = observed.cluster.primary().expect("a primary").clone();
    observed.cluster.switchover(&to.name).await.expect("switched over");
    observed
        .until("the new primary with two replicas", |topology| {
            is_primary(topology, to)
                && topology.nodes.iter().filter(|node| node.role == Role::Replica).count() == 2
        })
        .await;
    stop.send(true).expect("the recorder listens");
    let generations = recording.await.expect("recorded");
    let mut last = 0;
    for topology in &generations {
        assert!(topology.generation >= last, "generations grow");
        last = topology.generation;
        let primaries = topology.nodes.iter().filter(|node| node.role == Role::Primary);
        assert!(primaries.count() <= 1, "two primaries: {topology:#?}");
        if let Some(primary) = topology.primary_node() {
            assert!(!primary.read_only, "writes would go to a read-only server: {topology:#?}");
        }
    }
    // From the old one to the new one, once, with at most a moment of nobody in between: the old
    // one is read-only, or is seen to replicate already when the new one was not looked at again.
    for topology in generations.iter().filter(|topology| topology.primary.is_none()) {
        let why = &topology.no_primary_why;
        let read_only = why.contains(&from.port.to_string()) && why.contains("read_only");
        let all_replicate = why.starts_with("every reachable server is a replica");
        assert!(read_only || all_replicate, "{why}");
    }
    let mut primaries: Vec<&str> =
        generations.iter().filter_map(|at| at.primary_node()).map(|node| &*node.name).collect();
    primaries.dedup();
    assert_eq!(primaries.len(), 2, "{primaries:?}");
}

async fn accounts_are_learnt(observed: &Observed) {
    let primary = observed.cluster.primary().expect("a primary");
    let health = &observed.health;
    let book = AccountBook::new(observed.group.clone(), monitor(), health.cell.clone(), trust());
    let Lookup::Found(app) = book.lookup(APP.0.as_bytes(), None).await else {
        panic!("the application's account exists")
    };
    let hash = pointsman::protocol::auth::double_sha1(APP.1.as_bytes());
    match app.plugin.as_str() {
        "mysql_native_password" => assert_eq!(app.double_sha1, Some(hash)),
        plugin => assert_eq!((plugin, app.double_sha1), ("caching_sha2_password", None)),
    }
    assert!(!app.empty && !app.judged && app.host == "%");

    // Unknown now, and known a second after it was created.
    assert_eq!(book.lookup(b"late", None).await, Lookup::Unknown);
    primary
        .run(&[
            "CREATE USER late@'%' IDENTIFIED BY 'x'",
            "CREATE USER late@'10.1.%' IDENTIFIED BY 'y'",
            "CREATE USER late@'10.1.2.0/255.255.255.0' IDENTIFIED BY 'z'",
        ])
        .await
        .expect("created");
    book.invalidate(Some(b"late"));
    let Lookup::Found(late) = book.lookup(b"late", None).await else { panic!("it exists now") };
    assert_eq!(late.host, "%");

    // Where servers are told the client's address, that is what patterns are matched against.
    let mut told = (*observed.group).clone();
    told.proxy_protocol_to_servers = true;
    let told = AccountBook::new(Arc::new(told), monitor(), health.cell.clone(), trust());
    for (client, host) in
        [("10.1.2.3", "10.1.2.0/255.255.255.0"), ("10.1.3.3", "10.1.%"), ("11.1.1.1", "%")]
    {
        let client: IpAddr = client.parse().expect("an address");
        let Lookup::Found(found) = told.lookup(b"late", Some(client)).await else {
            panic!("one of three matches")
        };
        assert_eq!(found.host, host);
    }

    primary.run(&["ALTER USER late@'%' ACCOUNT LOCK"]).await.expect("locked");
    book.invalidate(None);
    let Lookup::Found(late) = book.lookup(b"late", None).await else { panic!("still there") };
    assert!(late.judged);
    assert_eq!(book.lookup(b"\xff\xfe", None).await, Lookup::Unknown, "a name that is no text");

    // A monitor that may not read accounts says which grant is missing.
    primary.run(&["CREATE USER blind@'%' IDENTIFIED BY 'blind'"]).await.expect("created");
    let mut blind = monitor();
    blind.user = "blind".to_owned();
    blind.password = Secret::new("blind".to_owned());
    let book = AccountBook::new(observed.group.clone(), blind, health.cell.clone(), trust());
    let Lookup::Unavailable(why) = book.lookup(APP.0.as_bytes(), None).await else {
        panic!("it may not read accounts")
    };
    assert!(why.contains("GRANT SELECT ON mysql.") && why.contains("[[users]]"), "{why}");
    primary.run(&["DROP USER late@'%', late@'10.1.%', blind@'%'"]).await.expect("dropped");
    primary.run(&["DROP USER late@'10.1.2.0/255.255.255.0'"]).await.expect("dropped");
}

async fn all(flavour: Flavour) {
    let observed = observed(flavour).await;
    let replicas = observed.cluster.replicas().expect("replicas");
    let [first, second] = [replicas[0].clone(), replicas[1].clone()];
    let old = observed.server(&observed.cluster.primary().expect("a primary").name);
    one_seed_finds_all(&observed).await;
    a_probe_breaks_no_connection(&observed).await;
    writes_become_positions(&observed).await;
    a_stopped_applier_is_seen(&observed, &second).await;
    accounts_are_learnt(&observed).await;
    death_and_return_are_seen(&observed, &second).await;
    a_frozen_server_goes_down(&observed, &second).await;
    a_switchover_is_followed(&observed, &first).await;
    // And back again.
    a_switchover_is_followed(&observed, &old).await;
    observed.cluster.down().await.expect("taken down");
}

#[tokio::test]
async fn mariadb_is_observed() {
    if servers::present(Flavour::Mariadb) {
        all(Flavour::Mariadb).await;
    }
}

#[tokio::test]
async fn mysql_is_observed() {
    if servers::present(Flavour::Mysql) {
        all(Flavour::Mysql).await;
    }
}
