//! The proxy's eyes: probes of each server, judged and assembled by the real code, and published in
//! a real cell. The owner task of `health` does the same with real servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman::config::RoleHint;
use pointsman::health::assemble::{Appointment, Input, Member, Overrides, assemble, note_position};
use pointsman::health::cell::{Publisher, TopologyCell, cell};
use pointsman::health::judge::{Hysteresis, Judgement};
use pointsman::health::observation::{self, Failure, FailureKind, Observation, Seen};
use pointsman::health::trail::Trail;
use pointsman::health::{Command, Health as Handle};
use pointsman::topology::{Condition, Topology};
use tokio::sync::mpsc;

use crate::server::{Life, Server};
use crate::world::{Event, World, ms};

const LIMITS: Hysteresis = Hysteresis { fall: 3, rise: 2 };
const INTERVAL: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_millis(1000);
/// Between probes while there is no primary, or a read-only one.
const URGENT: Duration = Duration::from_millis(100);

/// What one proxy knows of the servers.
#[derive(Debug)]
pub(crate) struct Health {
    members: Vec<Member>,
    overrides: Overrides,
    trail: Trail,
    topology: Topology,
    publisher: Publisher,
    cell: Arc<TopologyCell>,
    sender: mpsc::Sender<Command>,
    commands: mpsc::Receiver<Command>,
    /// When the last probe of each began, and when the next one does.
    began: Vec<Duration>,
}

// === impls ===

impl Health {
    pub(crate) fn new(servers: &[Server]) -> Self {
        let (cell, publisher) = cell(Topology::empty("main"));
        let (sender, commands) = mpsc::channel(256);
        let member = |server: &Server| Member {
            name: Arc::from(server.name()),
            address: Arc::from(format!("{}:3306", server.name())),
            weight: 100,
            hint: RoleHint::Auto,
            gone: None,
            judgement: Judgement::fresh(),
        };
        Self {
            members: servers.iter().map(member).collect(),
            overrides: Overrides::default(),
            trail: Trail::default(),
            topology: Topology::empty("main"),
            publisher,
            cell,
            sender,
            commands,
            began: vec![Duration::ZERO; servers.len()],
        }
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle { cell: self.cell.clone(), commands: self.sender.clone() }
    }

    pub(crate) fn appoint(&mut self, appointment: Appointment) {
        self.overrides.appointment = appointment;
    }

    /// The server that writes are sent to.
    pub(crate) fn takes_writes(&self) -> Option<usize> {
        let node = self.topology.primary_node()?;
        (node.condition != Condition::Down).then_some(usize::from(node.id.0))
    }

    /// Whether a server that was started then is another life than the one that was seen.
    pub(crate) fn is_outlived(&self, server: usize, started: Instant) -> bool {
        self.topology.nodes.get(server).is_some_and(|node| node.is_outlived_by(started))
    }

    /// Assembles and publishes; whether more than positions changed.
    fn publish(&mut self, now: Instant) -> bool {
        let input =
            Input { members: &self.members, overrides: &self.overrides, trail: &self.trail, now };
        let next = assemble(&self.topology, &input);
        note_position(&mut self.trail, &next, &self.members);
        let changed = next.generation != self.topology.generation;
        self.topology = next;
        self.publisher.publish(self.topology.clone());
        changed
    }
}

impl World {
    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.base + at
    }

    /// When a server seems to have been started, by what it says now.
    pub(crate) fn said_start(&self, server: usize) -> Instant {
        self.instant(self.now) - Duration::from_secs(self.servers[server].uptime(self.now))
    }

    pub(crate) fn on_probe(&mut self, node: usize, proxy: u32) {
        if proxy != self.proxy {
            return;
        }
        let urgent = self.health.topology.primary_node().is_none_or(|primary| primary.read_only);
        let every = if urgent { URGENT } else { INTERVAL };
        // Another one was begun meanwhile, out of turn.
        let since = self.now.saturating_sub(self.health.began[node]);
        if since + ms(1) < every && self.health.began[node] != Duration::ZERO {
            return self.after(every - since, Event::Probe { node, proxy });
        }
        self.begin_probe(node);
        let jitter = Duration::from_micros(self.random.between(0, 2000));
        self.after(every + jitter, Event::Probe { node, proxy });
    }

    fn begin_probe(&mut self, node: usize) {
        self.health.began[node] = self.now;
        let proxy = self.proxy_at();
        let delay = match self.servers[node].life {
            Life::Frozen => TIMEOUT,
            _ if !self.reaches(proxy, node) => TIMEOUT,
            _ => self.latency(),
        };
        self.after(delay, Event::Probed { node, proxy: self.proxy, began: self.now });
    }

    pub(crate) fn on_probed(&mut self, node: usize, proxy: u32, began: Duration) {
        if proxy != self.proxy {
            return;
        }
        let there = self.reaches(self.proxy_at(), node);
        let said = Duration::from_secs(self.servers[node].uptime(self.now));
        let started = observation::latest_start(self.instant(self.now), said);
        let server = &mut self.servers[node];
        let facts = server.facts();
        let result = match server.life {
            Life::Dead if there => Err(Failure::new(FailureKind::Unreachable, "refused")),
            Life::Running if there => Ok(Seen { started, ..server.seen(facts) }),
            Life::Dead | Life::Frozen | Life::Running => {
                Err(Failure::new(FailureKind::Timeout, "no answer within 1000 ms"))
            }
        };
        let (began, ended) = (self.instant(began), self.instant(self.now));
        let observation = Observation { began, ended, result };
        self.health.members[node].judgement.observe(observation, LIMITS);
        self.publish();
    }

    /// Publishes, and looks at the rest where something changed.
    pub(crate) fn publish(&mut self) {
        let before = self.health.takes_writes();
        if !self.health.publish(self.instant(self.now)) {
            return;
        }
        (self.look, self.wake) = (true, true);
        let after = self.health.takes_writes();
        if before != after {
            let why = self.health.topology.no_primary_why.clone();
            let name =
                after.map_or_else(|| format!("nobody ({why})"), |at| format!("db{}", at + 1));
            self.log(|| format!("writes go to {name}"));
            self.check_primary();
        }
        self.nudge();
    }

    fn nudge(&mut self) {
        for node in 0..self.servers.len() {
            if self.now.saturating_sub(self.health.began[node]) >= ms(50) {
                self.begin_probe(node);
            }
        }
    }

    /// Does what the keeper has asked of health; whether that was anything.
    pub(crate) fn obey(&mut self) -> bool {
        let mut any = false;
        while let Ok(command) = self.health.commands.try_recv() {
            any = true;
            match command {
                Command::Appoint(appointment, reply) => {
                    self.log(|| format!("appointed: {appointment:?}"));
                    self.health.appoint(appointment);
                    self.publish();
                    let _ = reply.send(Ok(String::new()));
                }
                Command::ProbeNow => self.nudge(),
                // All servers are listed.
                Command::Find(_) => {}
                other => panic!("a keeper does not say {other:?}"),
            }
        }
        any
    }
}
