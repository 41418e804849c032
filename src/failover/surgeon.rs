//! All that a keeper does to the world and learns of it: the time, what servers tell, what they are
//! ordered, what is written down.
//!
//! The only reason for a trait is the simulation (`tests/sim`), which keeps modelled servers in
//! modelled time by the same code.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::app::tasks;
use crate::config::Monitor;
use crate::config::units::Secret;
use crate::failover::execute::{self, Failed, MayAct};
use crate::failover::hook::Hook;
use crate::failover::journal::{Journal, JournalError};
use crate::failover::order::Order;
use crate::failover::record::Record;
use crate::failover::report::Report;
use crate::failover::survey::{self, Answered, Patience};
use crate::secrets::{self, SecretError};
use crate::tls::trust::Trust;
use crate::topology::Topology;

/// Acts for one keeper.
pub trait Surgeon: Send + Sync + 'static {
    /// The time by a clock that nobody sets.
    fn now(&self) -> Instant;

    /// The time by the calendar, seconds since 1970.
    fn seconds(&self) -> u64;

    /// Asks all servers, each as long as `patience` says of it.
    fn survey(
        &self,
        topology: &Topology,
        monitor: &Monitor,
        patience: Patience<'_>,
    ) -> impl Future<Output = Vec<Report>> + Send;

    /// Has servers do their orders as long as `may_act` lets it; answers those that were not
    /// carried out.
    fn perform(
        &self,
        orders: Vec<Order>,
        topology: &Topology,
        reports: &[Report],
        monitor: &Monitor,
        may_act: &MayAct,
    ) -> impl Future<Output = Vec<Failed>> + Send;

    /// What was written down last.
    ///
    /// # Errors
    /// When that cannot be said.
    fn recorded(&self) -> Result<Record, JournalError>;

    /// Writes down what is about to be; it is there for good when this returns.
    fn write_down(&self, record: &Record) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The password in this file, which is made where there is none.
    fn password(&self, file: String) -> impl Future<Output = Result<Secret, SecretError>> + Send;

    /// Asks a program of the operator's; what it says against it.
    fn ask_hook(&self, hook: Hook) -> impl Future<Output = Result<(), String>> + Send;

    /// Has a program of the operator's told, without waiting for it.
    fn tell_hook(&self, hook: Hook);
}

/// Acts on the servers of the topology and in the state directory.
#[derive(Debug)]
pub struct LiveSurgeon {
    trust: Arc<ArcSwap<Trust>>,
    journal: Journal,
    state_dir: PathBuf,
    answered: Arc<Answered>,
}

// === impls ===

impl LiveSurgeon {
    /// One that believes servers as `trust` says at the time, and writes to `journal`; passwords
    /// are kept in `state_dir`.
    #[must_use]
    pub fn new(trust: Arc<ArcSwap<Trust>>, journal: Journal, state_dir: PathBuf) -> Self {
        Self { trust, journal, state_dir, answered: Arc::default() }
    }
}

impl Surgeon for LiveSurgeon {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    async fn survey(
        &self,
        topology: &Topology,
        monitor: &Monitor,
        patience: Patience<'_>,
    ) -> Vec<Report> {
        let trust = self.trust.load_full();
        survey::survey_again(topology, monitor, &trust, &self.answered, patience).await
    }

    async fn perform(
        &self,
        orders: Vec<Order>,
        topology: &Topology,
        reports: &[Report],
        monitor: &Monitor,
        may_act: &MayAct,
    ) -> Vec<Failed> {
        let trust = self.trust.load_full();
        execute::perform(orders, topology, reports, monitor, &trust, may_act).await
    }

    fn recorded(&self) -> Result<Record, JournalError> {
        self.journal.read()
    }

    async fn write_down(&self, record: &Record) -> Result<(), JournalError> {
        self.journal.write(record).await
    }

    async fn password(&self, file: String) -> Result<Secret, SecretError> {
        let state_dir = self.state_dir.clone();
        tasks::blocking(move || secrets::load(&state_dir, &file)).await
    }

    async fn ask_hook(&self, hook: Hook) -> Result<(), String> {
        hook.run().await
    }

    fn tell_hook(&self, hook: Hook) {
        tasks::spawn("hook", async move {
            if let Err(why) = hook.run().await {
                tracing::error!(why, "the post_hook has failed");
            }
        });
    }
}
