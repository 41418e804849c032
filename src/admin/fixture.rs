//! A small world for tests: one group of three servers, one worker that answers, an observer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::app::tasks;
use crate::config::{raw, resolve};
use crate::control::{
    Control, GroupControl, GroupDigests, LinkRow, ReloadRequest, SessionRow, WorkerRequest,
};
use crate::digests::{DigestTable, Execution};
use crate::health::cell::{self, Publisher};
use crate::health::{self, Health};
use crate::metrics::Metrics;
use crate::router::Reason;
use crate::topology::{Condition, Node, NodeId, Role, Topology, fixture};

/// What a server answered to the last probe of db3.
pub(crate) const TROUBLE: &str = "Access denied for user 'monitor'@'localhost'";

/// The session that exists.
pub(crate) const SESSION: u32 = 42;

const CONFIG: &str = include_str!("../../config/minimal.toml");

/// The world. Needs a tokio runtime.
pub(crate) struct Fixture {
    pub(crate) control: Control,
    pub(crate) metrics: Arc<Metrics>,
    publisher: Publisher,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let file = raw::parse(CONFIG).expect("invariant: the minimal file is valid");
        let no_files = |_: &std::path::Path| Err("no files here".to_owned());
        let config =
            resolve::resolve(&file, 1, &no_files).expect("invariant: the minimal file is valid");
        let (cell, publisher) = cell::cell(topology());
        let (commands, orders) = mpsc::channel(8);
        tasks::spawn("observer", observe(orders));
        let (worker, requests) = mpsc::channel(8);
        tasks::spawn("worker", work(requests));
        let (reload, reloads) = mpsc::channel(1);
        tasks::spawn("reload", refuse_reloads(reloads));
        let health = Health { cell, commands };
        let groups = vec![GroupControl::fixture("main", health)];
        let control = Control::new(config, groups, vec![worker], reload);
        let metrics =
            Arc::new(Metrics::new(&["temporary_table"]).expect("invariant: names are distinct"));
        Self { control, metrics, publisher }
    }

    pub(crate) fn lose_primary(&mut self) {
        let mut topology = topology();
        topology.generation = 8;
        topology.primary = None;
        topology.no_primary_why = "db1 does not answer".to_owned();
        self.publisher.publish(topology);
    }

    pub(crate) fn restore_primary(&mut self) {
        let mut topology = topology();
        topology.generation = 9;
        self.publisher.publish(topology);
    }
}

fn topology() -> Topology {
    let node = |id: u16, role, condition, trouble: &str| Node {
        address: Arc::from(format!("10.0.0.{}:3306", id + 1)),
        role,
        condition,
        lag: (role == Role::Replica).then_some(Duration::from_millis(20)),
        read_only: role == Role::Replica,
        trouble: trouble.to_owned(),
        ..fixture::node(id, &format!("db{}", id + 1))
    };
    Topology {
        generation: 7,
        group: Arc::from("main"),
        nodes: vec![
            node(0, Role::Primary, Condition::Up, ""),
            node(1, Role::Replica, Condition::Up, ""),
            node(2, Role::Unknown, Condition::Down, TROUBLE),
        ],
        primary: Some(NodeId(0)),
        no_primary_why: String::new(),
        former: None,
    }
}

/// Answers orders as the owner of a topology does.
async fn observe(mut orders: mpsc::Receiver<health::Command>) {
    while let Some(order) = orders.recv().await {
        let (answer, reply) = match order {
            health::Command::Drain(name, reply) => (Ok(format!("{name} is draining")), reply),
            health::Command::Undrain(name, reply) => (Ok(format!("{name} is used again")), reply),
            health::Command::Exclude(name, reply) => (Ok(format!("{name} is excluded")), reply),
            health::Command::Include(name, reply) => {
                (Err(format!("{name} is not excluded")), reply)
            }
            health::Command::SetWeight(name, weight, reply) => {
                (Ok(format!("{name} has weight {weight}")), reply)
            }
            health::Command::Appoint(_, reply) => (Ok("appointed".to_owned()), reply),
            health::Command::Reload(_, _, reply) => (Ok("reloaded".to_owned()), reply),
            health::Command::Find(_) | health::Command::ProbeNow | health::Command::Signal(_) => {
                continue;
            }
        };
        let _ = reply.send(answer);
    }
}

/// Answers questions as a worker with one session does.
async fn work(mut requests: mpsc::Receiver<WorkerRequest>) {
    let mut table = DigestTable::default();
    let execution = Execution {
        node: NodeId(1),
        reason: Reason::PlainRead,
        elapsed: Duration::from_micros(500),
        failed: false,
    };
    table.record(0xABCD, || "SELECT * FROM t WHERE id = ?".to_owned(), execution);
    while let Some(request) = requests.recv().await {
        match request {
            WorkerRequest::Sessions(reply) => drop(reply.send(vec![session()])),
            WorkerRequest::Digests(reply) => {
                let table = table.clone();
                drop(reply.send(vec![GroupDigests { group: Arc::from("main"), table }]));
            }
            WorkerRequest::Links(reply) => {
                let row = LinkRow {
                    group: Arc::from("main"),
                    server: Arc::from("db2"),
                    user: "app".to_owned(),
                    idle: 1,
                    used: 2,
                };
                drop(reply.send(vec![row.clone(), row]));
            }
            WorkerRequest::Unfinished { reply, .. } => drop(reply.send(0)),
            WorkerRequest::Kill { id, reply, .. } => drop(reply.send(id == SESSION)),
        }
    }
}

fn session() -> SessionRow {
    SessionRow {
        id: SESSION,
        user: "app".to_owned(),
        client: "10.9.8.7:50000".to_owned(),
        group: Arc::from("main"),
        database: None,
        state: "idle",
        node: Some(Arc::from("db2")),
        pins: vec!["temporary_table"],
        since: Duration::from_secs(3),
        statements: 17,
    }
}

async fn refuse_reloads(mut reloads: mpsc::Receiver<ReloadRequest>) {
    while let Some(reply) = reloads.recv().await {
        let _ = reply.send(Err("groups.main.hold = 15: a number with a unit".to_owned()));
    }
}
