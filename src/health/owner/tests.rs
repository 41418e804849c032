//! The owner task over a world of scripted servers: no sockets.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use crate::config::Server;
use crate::config::units::Secret;
use crate::health::Health;
use crate::health::cell::{TopologyCell, cell};
use crate::health::fixture::{self, source};
use crate::health::judge::SignalKind;
use crate::health::observation::{Attached, Failure, FailureKind, Seen};
use crate::health::probe::Ask;

/// What each address answers; `Err(())` is a probe that panics once and then cannot connect.
type World = Arc<Mutex<BTreeMap<String, Result<Seen, ()>>>>;

struct Scripted {
    address: Arc<str>,
    world: World,
}

impl Probe for Scripted {
    async fn observe(&mut self, _ask: Ask) -> Result<Seen, Failure> {
        let answer = {
            let mut world = self.world.lock().expect("no test thread panics holding it");
            let answer = world.get(&*self.address).cloned();
            if matches!(answer, Some(Err(()))) {
                world.remove(&*self.address);
            }
            answer
        };
        match answer {
            Some(Ok(seen)) => Ok(seen),
            Some(Err(())) => panic!("an odd answer"),
            None => Err(Failure::new(FailureKind::Unreachable, "connection refused")),
        }
    }
}

fn monitor() -> Monitor {
    Monitor {
        user: "monitor".to_owned(),
        password: Secret::new("monitor".to_owned()),
        interval: Duration::from_millis(60),
        timeout: Duration::from_secs(5),
        fall: 2,
        rise: 1,
    }
}

fn group(seeds: &[&str], servers: &[&str]) -> Arc<Group> {
    let servers = servers.iter().map(|name| Server {
        address: Arc::from(format!("{name}:3306")),
        name: Arc::from(*name),
        weight: 100,
        role: RoleHint::Auto,
    });
    Arc::new(Group {
        name: Arc::from("main"),
        seeds: seeds.iter().map(|seed| Arc::from(*seed)).collect(),
        servers: servers.collect(),
        ..Group::default()
    })
}

/// db1 with the replicas db2 and db3.
fn world() -> World {
    let mut primary = fixture::seen(1);
    primary.replicas = Some(
        [2u32, 3]
            .map(|id| Attached { host: format!("db{id}"), port: 3306, server_id: id })
            .to_vec(),
    );
    let replica = |id: u32| {
        let mut seen = fixture::seen(id);
        seen.sources = vec![source(1)];
        seen.read_only = true;
        seen
    };
    let world = [
        ("db1:3306".to_owned(), Ok(primary)),
        ("db2:3306".to_owned(), Ok(replica(2))),
        ("db3:3306".to_owned(), Ok(replica(3))),
    ];
    Arc::new(Mutex::new(BTreeMap::from(world)))
}

fn start(group: Arc<Group>, world: &World) -> (Health, watch::Sender<bool>) {
    let (cell, publisher) = cell(Topology::empty(&group.name));
    let (commands, receiver) = mpsc::channel(16);
    let (stop, shutdown) = watch::channel(false);
    let world = world.clone();
    let probe = move |address: &Arc<str>, _: &Monitor| Scripted {
        address: address.clone(),
        world: world.clone(),
    };
    let owner = Owner::new(group, monitor(), Appointment::Open, publisher, probe);
    crate::app::tasks::spawn("health", owner.run(receiver, shutdown));
    (Health { cell, commands }, stop)
}

/// Waits until the published topology is as described, ten seconds at most.
async fn until(cell: &TopologyCell, what: &str, holds: impl Fn(&Topology) -> bool) {
    let waiting = async {
        let mut tick = interval(Duration::from_millis(5));
        while !holds(&cell.load()) {
            tick.tick().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    assert!(waited.is_ok(), "never {what}: {:#?}", cell.load());
}

fn condition(topology: &Topology, name: &str) -> Option<Condition> {
    topology.nodes.iter().find(|node| &*node.name == name).map(|node| node.condition)
}

fn primary(topology: &Topology) -> Option<&str> {
    topology.primary_node().map(|node| &*node.name)
}

#[tokio::test]
async fn one_seed_is_enough_to_find_the_group() {
    let world = world();
    let (health, _stop) = start(group(&["db2:3306"], &[]), &world);
    until(&health.cell, "three servers", |topology| {
        primary(topology) == Some("db1:3306")
            && topology.nodes.len() == 3
            && topology.nodes.iter().all(|node| node.condition == Condition::Up)
    })
    .await;
}

#[tokio::test]
async fn a_server_that_replication_does_not_lead_to_is_found_by_its_address() {
    let world = world();
    let mut alone = fixture::seen(4);
    alone.read_only = true;
    world.lock().expect("locked").insert("db4:3306".to_owned(), Ok(alone));
    let (health, _stop) = start(group(&["db1:3306"], &[]), &world);
    until(&health.cell, "three servers", |topology| topology.nodes.len() == 3).await;
    for address in ["db2:3306", "no address", "db4:3306"] {
        health.commands.send(Command::Find(Arc::from(address))).await.expect("it listens");
    }
    until(&health.cell, "four servers", |topology| {
        condition(topology, "db4:3306") == Some(Condition::Up)
    })
    .await;
    assert_eq!(health.cell.load().nodes.len(), 4, "{:?}", health.cell.load().nodes);
}

#[tokio::test]
async fn a_probe_task_that_panics_is_started_again() {
    let world = world();
    let (health, _stop) = start(group(&[], &["db1", "db2", "db3"]), &world);
    until(&health.cell, "up", |topology| primary(topology) == Some("db1")).await;
    let db2 = world.lock().expect("locked").insert("db2:3306".to_owned(), Err(()));
    until(&health.cell, "down", |topology| condition(topology, "db2") == Some(Condition::Down))
        .await;
    let db2 = db2.expect("it was there");
    world.lock().expect("locked").insert("db2:3306".to_owned(), db2);
    until(&health.cell, "up", |topology| condition(topology, "db2") == Some(Condition::Up)).await;
}

#[tokio::test]
async fn operators_are_obeyed_across_probes_and_reloads() {
    let world = world();
    let (health, _stop) = start(group(&[], &["db1", "db2", "db3"]), &world);
    until(&health.cell, "up", |topology| primary(topology) == Some("db1")).await;

    let refusal = health.ask(|reply| Command::Drain("db9".to_owned(), reply)).await;
    assert_eq!(refusal, Err("there is no server db9; known: db1, db2, db3".to_owned()));
    for (answer, said) in [
        (health.ask(|reply| Command::Drain("db2".to_owned(), reply)).await, "takes nothing new"),
        (health.ask(|reply| Command::SetWeight("db3".to_owned(), 7, reply)).await, "weight 7"),
    ] {
        assert!(answer.expect("obeyed").contains(said));
    }
    let drained = health.cell.load();
    assert_eq!(condition(&drained, "db2"), Some(Condition::Draining), "before the answer");

    let smaller = group(&[], &["db1", "db2"]);
    let answer = health.ask(|reply| Command::Reload(smaller, monitor(), reply)).await;
    assert!(answer.is_ok());
    let reloaded = health.cell.load();
    assert_eq!(condition(&reloaded, "db2"), Some(Condition::Draining));
    assert_eq!(condition(&reloaded, "db3"), Some(Condition::Excluded));
    assert_eq!(reloaded.nodes.len(), 3, "ids stay");
    assert!(reloaded.generation > drained.generation);

    let all = group(&[], &["db1", "db2", "db3"]);
    assert!(health.ask(|reply| Command::Reload(all, monitor(), reply)).await.is_ok());
    assert!(health.ask(|reply| Command::Undrain("db2".to_owned(), reply)).await.is_ok());
    until(&health.cell, "all up", |topology| {
        topology.nodes.iter().all(|node| node.condition == Condition::Up)
            && topology.nodes.iter().any(|node| node.weight == 7)
    })
    .await;
}

#[tokio::test]
async fn a_lost_link_raises_suspicion_and_a_probe_settles_it() {
    let world = world();
    let (health, _stop) = start(group(&[], &["db1", "db2"]), &world);
    until(&health.cell, "up", |topology| {
        topology.nodes.iter().all(|node| node.condition == Condition::Up)
            && topology.nodes.len() == 2
    })
    .await;
    let mut generation = health.cell.subscribe();
    generation.borrow_and_update();
    health.signal(NodeId(1), SignalKind::LinkLost);
    health.signal(NodeId(99), SignalKind::LinkLost);
    let waited = tokio::time::timeout(Duration::from_secs(10), generation.changed()).await;
    assert!(waited.is_ok_and(|changed| changed.is_ok()), "waiters hear of the suspicion");
    until(&health.cell, "up again", |topology| condition(topology, "db2") == Some(Condition::Up))
        .await;
}

#[tokio::test]
async fn the_owner_stops_when_told() {
    let world = world();
    let (health, stop) = start(group(&[], &["db1"]), &world);
    until(&health.cell, "up", |topology| primary(topology) == Some("db1")).await;
    stop.send(true).expect("the owner listens");
    let closed = tokio::time::timeout(Duration::from_secs(10), health.commands.closed()).await;
    assert!(closed.is_ok());
    assert!(health.ask(|reply| Command::Drain("db1".to_owned(), reply)).await.is_err());
}
