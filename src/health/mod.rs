//! What the servers are and whether they may be used: observed, judged, published.
//!
//! Does not know: client sessions, statements, how a topology is used by those who read it.
//!
//! One owner task a group holds all that is known. Each server has a probe task that sends
//! [`observation::Observation`]s to it; [`judge`] turns them into verdicts, [`assemble`] the
//! verdicts and the operator's wishes into the next topology, and the owner publishes that in
//! the [`cell`]. Everyone else sends [`Command`]s and reads the cell.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{Group, Monitor};
use crate::health::assemble::Appointment;
use crate::health::cell::TopologyCell;
pub use crate::health::judge::SignalKind;
use crate::health::probe_mysql::MysqlProbe;
use crate::tls::trust::Trust;
use crate::topology::{NodeId, Topology};

pub mod assemble;
pub mod cell;
pub mod connect;
pub mod discovery;
pub mod facts;
#[cfg(test)]
pub(crate) mod fixture;
pub mod judge;
pub mod observation;
mod owner;
pub mod probe;
pub mod probe_mysql;
pub mod trail;

/// Commands that may wait for the owner; more than that, signals are lost and operators wait.
const COMMANDS_MAX: usize = 256;

/// The handle to a group's health: read the topology, send commands. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    /// Where the topology is published.
    pub cell: Arc<TopologyCell>,
    /// Where commands go.
    pub commands: mpsc::Sender<Command>,
}

/// Where the answer to an operator's command goes: a sentence, good or bad.
pub type Reply = oneshot::Sender<Result<String, String>>;

/// What the owner task is asked to do. Servers are named by name or address.
#[derive(Debug)]
pub enum Command {
    /// Take nothing new on this server.
    Drain(String, Reply),
    /// Undo [`Command::Drain`].
    Undrain(String, Reply),
    /// Do not use this server at all.
    Exclude(String, Reply),
    /// Undo [`Command::Exclude`].
    Include(String, Reply),
    /// Give this server another share of reads until the process ends.
    SetWeight(String, u32, Reply),
    /// Let this server take the writes and no other, or nobody.
    Appoint(Appointment, Reply),
    /// Work by another configuration from now on.
    Reload(Arc<Group>, Monitor, Reply),
    /// Observe the server at this address, too, as if replication had led there, where servers are
    /// discovered.
    Find(Arc<str>),
    /// Probe all servers now.
    ProbeNow,
    /// Something that a session noticed.
    Signal(Signal),
}

/// What a session noticed about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// Which server.
    pub node: NodeId,
    /// What it was.
    pub kind: SignalKind,
}

/// Starts observing a group, whose servers are believed as `trust` says at the time, and of which
/// `appointment` says who may take the writes. The owner task ends when `shutdown` becomes true or
/// is dropped.
#[must_use]
pub fn start(
    group: Arc<Group>,
    monitor: Monitor,
    trust: Arc<ArcSwap<Trust>>,
    appointment: Appointment,
    shutdown: watch::Receiver<bool>,
) -> Health {
    let (cell, publisher) = cell::cell(Topology::empty(&group.name));
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    let probe = move |address: &Arc<str>, monitor: &Monitor| {
        MysqlProbe::new(address.clone(), monitor, trust.clone())
    };
    let owner = owner::Owner::new(group, monitor, appointment, publisher, probe);
    crate::app::tasks::spawn("health", owner.run(receiver, shutdown));
    Health { cell, commands }
}

impl Health {
    /// Reports what a session noticed. Never waits; losing a signal is harmless, since the next
    /// probe tells.
    pub fn signal(&self, node: NodeId, kind: SignalKind) {
        let _ = self.commands.try_send(Command::Signal(Signal { node, kind }));
    }

    /// Asks for a probe of all servers now. Never waits, like [`Health::signal`].
    pub fn probe_now(&self) {
        let _ = self.commands.try_send(Command::ProbeNow);
    }

    /// Sends an operator's command and waits for its answer, a sentence either way:
    /// `health.ask(|reply| Command::Drain(name, reply))`.
    ///
    /// # Errors
    /// When the command cannot be carried out; the text says why.
    pub async fn ask(&self, command: impl FnOnce(Reply) -> Command) -> Result<String, String> {
        let stopped = || "the health task of this group has stopped".to_owned();
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}
