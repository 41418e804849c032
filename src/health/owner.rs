//! The one task that owns the truth about a group.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::config::address::host_and_port;
use crate::config::{Group, Monitor, RoleHint, resolve};
use crate::health::assemble::{Appointment, Input, Member, Overrides, assemble, note_position};
use crate::health::cell::Publisher;
use crate::health::judge::{Hysteresis, Judgement, SignalKind};
use crate::health::observation::Observation;
use crate::health::probe::{Probe, Rhythm, watch as watch_server};
use crate::health::trail::Trail;
use crate::health::{Command, Signal, discovery};
use crate::topology::diff::{Event, diff};
use crate::topology::{Condition, NodeId, Topology};

/// Observations that may wait for the owner; probes wait when it is behind.
const OBSERVATIONS_MAX: usize = 256;

/// How often the owner looks after its probe tasks. Also the time between probes while there is
/// no primary, since clients are held then, or a read-only one, which may be about to be replaced.
const TICK: Duration = Duration::from_millis(100);

/// All that is known about a group, and the tasks that find it out.
pub(super) struct Owner<P, F>
where
    P: Probe,
    F: Fn(&Arc<str>, &Monitor) -> P + Send + 'static,
{
    group: Arc<Group>,
    monitor: Monitor,
    /// Index is node id; entries are never removed.
    members: Vec<Member>,
    /// One for each member; `None` for those that are gone.
    watchers: Vec<Option<Watcher>>,
    overrides: Overrides,
    trail: Trail,
    topology: Topology,
    publisher: Publisher,
    probe: F,
    observing: mpsc::Sender<(NodeId, Observation)>,
    observations: mpsc::Receiver<(NodeId, Observation)>,
}

/// The probe task of one server.
struct Watcher {
    task: JoinHandle<()>,
    nudge: Arc<Notify>,
}

// === impls ===

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<P, F> Owner<P, F>
where
    P: Probe,
    F: Fn(&Arc<str>, &Monitor) -> P + Send + 'static,
{
    pub(super) fn new(
        group: Arc<Group>,
        monitor: Monitor,
        appointment: Appointment,
        publisher: Publisher,
        probe: F,
    ) -> Self {
        let (observing, observations) = mpsc::channel(OBSERVATIONS_MAX);
        Self {
            topology: Topology::empty(&group.name),
            group,
            monitor,
            members: Vec::new(),
            watchers: Vec::new(),
            overrides: Overrides { appointment, ..Overrides::default() },
            trail: Trail::default(),
            publisher,
            probe,
            observing,
            observations,
        }
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        self.enlist();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                Some(command) = commands.recv() => self.obey(command),
                Some((node, observation)) = self.observations.recv() => {
                    self.observe(node, observation);
                }
                _ = tick.tick() => self.look_after(),
            }
        }
    }

    fn observe(&mut self, node: NodeId, observation: Observation) {
        let limits = Hysteresis { fall: self.monitor.fall, rise: self.monitor.rise };
        let Some(member) = self.members.get_mut(usize::from(node.0)) else { return };
        if member.gone.is_some() {
            return;
        }
        member.judgement.observe(observation, limits);
        if self.group.servers.is_empty() {
            self.discover();
        }
        self.publish();
    }

    fn discover(&mut self) {
        for (second, first) in discovery::twins(&self.members) {
            let name = self.members.get(first).map(|member| member.name.clone());
            self.dismiss(second, format!("the same server as {}", name.unwrap_or_default()));
        }
        for address in discovery::unknown(&self.members) {
            self.add_found(address);
        }
    }

    fn add_found(&mut self, address: Arc<str>) {
        self.add(Member {
            name: address.clone(),
            address,
            weight: resolve::DEFAULT_WEIGHT,
            hint: RoleHint::Auto,
            gone: None,
            judgement: Judgement::fresh(),
        });
    }

    /// Where servers are discovered: replication does not lead to one that is down, or follows
    /// nobody for now.
    fn find(&mut self, address: Arc<str>) {
        let is_known = self.members.iter().any(|member| member.address == address);
        let may_be = self.group.servers.is_empty() && self.members.len() < discovery::MEMBERS_MAX;
        if may_be && !is_known && host_and_port(&address).is_some() {
            self.add_found(address);
            self.publish();
        }
    }

    /// Assembles, publishes, and logs what changed: what the log says is in force.
    fn publish(&mut self) {
        let input = Input {
            members: &self.members,
            overrides: &self.overrides,
            trail: &self.trail,
            now: Instant::now().into_std(),
        };
        let next = assemble(&self.topology, &input);
        note_position(&mut self.trail, &next, &self.members);
        let changed = next.generation != self.topology.generation;
        let before = std::mem::replace(&mut self.topology, next);
        self.publisher.publish(self.topology.clone());
        if changed {
            self.log(&before);
            // What changed at one server is often half of a change: look at the others now.
            self.nudge_all();
        }
    }

    fn log(&self, before: &Topology) {
        let (group, generation) = (&*self.topology.group, self.topology.generation);
        for event in diff(before, &self.topology) {
            let grave = match &event {
                Event::ConditionChanged { to, .. } => *to == Condition::Down,
                Event::PrimaryChanged { to, .. } => to.is_none(),
                Event::ApplyingChanged { applying, .. } => !applying,
                Event::AlikeChanged { alike, .. } => !alike,
                Event::ClosedChanged { closed, .. } => *closed,
                Event::Added { .. } | Event::RoleChanged { .. } | Event::WeightChanged { .. } => {
                    false
                }
            };
            if grave {
                tracing::warn!(group, generation, "{event}");
            } else {
                tracing::info!(group, generation, "{event}");
            }
        }
    }

    /// Restarts probe tasks that ended: a panic in one must not leave its server unobserved.
    fn look_after(&mut self) {
        for index in 0..self.members.len() {
            let ended = self.watchers.get(index).and_then(Option::as_ref);
            let ended = ended.is_some_and(|watcher| watcher.task.is_finished());
            if ended && let Some(member) = self.members.get(index) {
                tracing::error!(server = &*member.name, "its probe task ended; starting it again");
                self.start_watching(index);
            }
        }
        if self.topology.primary_node().is_none_or(|primary| primary.read_only) {
            self.publish();
            self.nudge_all();
        }
    }

    fn nudge_all(&self) {
        for watcher in self.watchers.iter().flatten() {
            watcher.nudge.notify_one();
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Drain(name, reply) => {
                let _ = reply.send(self.on_named(&name, |overrides, name| {
                    overrides.drained.insert(name.to_owned());
                    format!("{name} takes nothing new; running work finishes")
                }));
            }
            Command::Undrain(name, reply) => {
                let _ = reply.send(self.on_named(&name, |overrides, name| {
                    if overrides.drained.remove(name) {
                        format!("{name} is used again")
                    } else {
                        format!("{name} was not drained")
                    }
                }));
            }
            Command::Exclude(name, reply) => {
                let _ = reply.send(self.on_named(&name, |overrides, name| {
                    overrides.excluded.insert(name.to_owned());
                    format!("{name} is not used any more")
                }));
            }
            Command::Include(name, reply) => {
                let _ = reply.send(self.on_named(&name, |overrides, name| {
                    if overrides.excluded.remove(name) {
                        format!("{name} is used again")
                    } else {
                        format!("{name} was not excluded")
                    }
                }));
            }
            Command::Find(address) => self.find(address),
            Command::SetWeight(name, weight, reply) => {
                let _ = reply.send(self.on_named(&name, |overrides, name| {
                    overrides.weights.insert(name.to_owned(), weight);
                    format!("{name} has weight {weight} until pointsman is restarted")
                }));
            }
            Command::Appoint(appointment, reply) => {
                self.overrides.appointment = appointment;
                self.publish();
                let _ = reply.send(Ok("appointed".to_owned()));
            }
            Command::Reload(group, monitor, reply) => {
                self.reload(group, monitor);
                let _ = reply.send(Ok("the new configuration is in force".to_owned()));
            }
            Command::ProbeNow => self.nudge_all(),
            Command::Signal(signal) => self.on_signal(signal),
        }
    }

    /// Carries out a wish about one server, named by name or address, and publishes.
    fn on_named(
        &mut self,
        wanted: &str,
        wish: impl FnOnce(&mut Overrides, &str) -> String,
    ) -> Result<String, String> {
        let mut present = self.members.iter().filter(|member| member.gone.is_none());
        let found = present
            .clone()
            .find(|member| &*member.name == wanted)
            .or_else(|| present.find(|member| &*member.address == wanted));
        let Some(member) = found else {
            let names = self.members.iter().filter(|member| member.gone.is_none());
            let names: Vec<&str> = names.map(|member| &*member.name).collect();
            return Err(format!("there is no server {wanted}; known: {}", names.join(", ")));
        };
        let answer = wish(&mut self.overrides, &member.name);
        self.publish();
        Ok(answer)
    }

    fn on_signal(&mut self, signal: Signal) {
        let index = usize::from(signal.node.0);
        let Some(member) = self.members.get_mut(index) else { return };
        let before = member.judgement.condition();
        let look_now = member.judgement.signal(signal.kind, Instant::now().into_std());
        let closed = signal.kind == SignalKind::SetReadOnly;
        let changed = closed || member.judgement.condition() != before;
        if look_now && let Some(Some(watcher)) = self.watchers.get(index) {
            watcher.nudge.notify_one();
        }
        if changed {
            self.publish();
        }
    }

    fn reload(&mut self, group: Arc<Group>, monitor: Monitor) {
        let restart =
            monitor != self.monitor || group.servers.is_empty() != self.group.servers.is_empty();
        self.group = group;
        self.monitor = monitor;
        self.enlist();
        if restart {
            for index in 0..self.members.len() {
                if self.watchers.get(index).is_some_and(Option::is_some) {
                    self.start_watching(index);
                }
            }
        }
        self.publish();
    }

    /// Brings the members in line with the configuration. What was discovered stays.
    fn enlist(&mut self) {
        let group = self.group.clone();
        if group.servers.is_empty() {
            for address in &group.seeds {
                self.add(Member {
                    name: address.clone(),
                    address: address.clone(),
                    weight: resolve::DEFAULT_WEIGHT,
                    hint: RoleHint::Auto,
                    gone: None,
                    judgement: Judgement::fresh(),
                });
            }
            return;
        }
        for server in &group.servers {
            self.add(Member {
                name: server.name.clone(),
                address: server.address.clone(),
                weight: server.weight,
                hint: server.role,
                gone: None,
                judgement: Judgement::fresh(),
            });
        }
        for index in 0..self.members.len() {
            let Some(member) = self.members.get(index) else { continue };
            let listed = group.servers.iter().any(|server| server.address == member.address);
            if !listed && member.gone.is_none() {
                self.dismiss(index, "removed from the configuration".to_owned());
            }
        }
    }

    /// Adds a member, or brings the one of the same address up to date.
    fn add(&mut self, new: Member) {
        let known = self.members.iter().position(|member| member.address == new.address);
        let index = match known {
            None if self.members.len() >= usize::from(u16::MAX) => return,
            None => {
                self.members.push(new);
                self.watchers.push(None);
                self.members.len() - 1
            }
            Some(index) => {
                if let Some(member) = self.members.get_mut(index) {
                    if member.gone.take().is_some() {
                        member.judgement = Judgement::fresh();
                    }
                    (member.name, member.weight, member.hint) = (new.name, new.weight, new.hint);
                }
                index
            }
        };
        if self.watchers.get(index).is_some_and(Option::is_none) {
            self.start_watching(index);
        }
    }

    fn dismiss(&mut self, index: usize, why: String) {
        if let Some(member) = self.members.get_mut(index) {
            member.gone = Some(why);
        }
        if let Some(watcher) = self.watchers.get_mut(index) {
            *watcher = None;
        }
    }

    fn start_watching(&mut self, index: usize) {
        let (Some(member), Some(slot), Ok(id)) =
            (self.members.get(index), self.watchers.get_mut(index), u16::try_from(index))
        else {
            return;
        };
        let rhythm = Rhythm {
            interval: self.monitor.interval,
            timeout: self.monitor.timeout,
            discover: self.group.servers.is_empty(),
        };
        let nudge = Arc::new(Notify::new());
        let probe = (self.probe)(&member.address, &self.monitor);
        let out = self.observing.clone();
        let watching = watch_server(NodeId(id), probe, rhythm, nudge.clone(), out);
        let task = crate::app::tasks::spawn("probe", watching);
        *slot = Some(Watcher { task, nudge });
    }
}

#[cfg(test)]
mod tests;
