//! Every number that pointsman publishes, in the conventions of Prometheus.
//!
//! Does not know: who counts, how it is served, or what the console shows.
//! What changes with every query is counted by each worker in plain arrays ([`WorkerMetrics`]) and
//! summed when somebody looks; what changes rarely stands in a registry of its own. Nothing here
//! is global: one [`Metrics`] is built at the start and passed on.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::topology::{NodeId, Topology};

pub use kept::{Kept, Leading};
pub use worker::{
    BUCKETS_MICROS, Bytes, ClientError, ErrorClass, HoldOutcome, LinkError, LinkWait, LostCommit,
    MAX_NODES, QueryClass, ReplicaWait, Retry, Taken, TransactionReplay, WorkerMetrics,
};

pub mod families;
pub mod kept;
mod process;
mod sheet;
mod worker;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    workers: Mutex<Vec<Registered>>,
    keepers: Mutex<Vec<RegisteredKeeper>>,
    pin_words: &'static [&'static str],
    reloads: IntCounterVec,
    draining: IntGauge,
    console_commands: IntCounterVec,
    console_logins_failed: IntCounter,
}

/// One worker's counters for one group.
#[derive(Debug)]
struct Registered {
    group: Arc<str>,
    counters: Arc<WorkerMetrics>,
}

/// One group's keeper.
#[derive(Debug)]
struct RegisteredKeeper {
    group: Arc<str>,
    kept: Arc<ArcSwap<Kept>>,
}

/// How something ended, where only that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As wanted.
    Ok,
    /// Not.
    Failed,
}

/// What one server has done for its group so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Open connections to it.
    pub links: u64,
    /// Reads that a replica may run.
    pub reads: u64,
    /// Statements that write, or may.
    pub writes: u64,
    /// Everything else.
    pub other: u64,
    /// Errors that it answered.
    pub errors: u64,
}

/// One number with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The family's name.
    pub name: &'static str,
    /// Label names and values.
    pub labels: Vec<(String, String)>,
    /// The number.
    pub value: f64,
}

/// Why the metrics cannot be built: a name stands twice or is not a name. Never at run time.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be set up: {0}")]
pub struct SetupError(#[from] prometheus::Error);

// === impls ===

impl Metrics {
    /// Builds the registry. `pin_words` are the causes for which a session may be pinned, in the
    /// order in which [`WorkerMetrics::pinned`] counts them.
    ///
    /// # Errors
    /// When two metrics have the same name; that is a mistake in this module.
    pub fn new(pin_words: &'static [&'static str]) -> Result<Self, SetupError> {
        let registry = Registry::new();
        let build = Opts::new(families::BUILD_INFO.name, families::BUILD_INFO.help)
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let build = IntGauge::with_opts(build)?;
        build.set(1);
        registry.register(Box::new(build))?;
        let draining = IntGauge::with_opts(families::DRAINING.opts())?;
        registry.register(Box::new(draining.clone()))?;
        let reloads = outcomes(&registry, &families::CONFIG_RELOADS)?;
        let console_commands = outcomes(&registry, &families::CONSOLE_COMMANDS)?;
        let console_logins_failed = IntCounter::with_opts(families::CONSOLE_LOGINS.opts())?;
        registry.register(Box::new(console_logins_failed.clone()))?;
        Ok(Self {
            registry,
            workers: Mutex::default(),
            keepers: Mutex::default(),
            pin_words,
            reloads,
            draining,
            console_commands,
            console_logins_failed,
        })
    }

    /// New counters for one worker and one group. Only that worker may write to them.
    #[must_use]
    pub fn worker(&self, group: &str) -> Arc<WorkerMetrics> {
        let counters = Arc::new(WorkerMetrics::new(self.pin_words.len()));
        let registered = Registered { group: Arc::from(group), counters: counters.clone() };
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(registered);
        counters
    }

    /// Where the keeper of a group puts its numbers.
    #[must_use]
    pub fn keeper(&self, group: &str) -> Arc<ArcSwap<Kept>> {
        let kept: Arc<ArcSwap<Kept>> = Arc::default();
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.push(RegisteredKeeper { group: Arc::from(group), kept: kept.clone() });
        kept
    }

    /// Counts a reload of the configuration.
    pub fn reloaded(&self, outcome: Outcome) {
        self.reloads.with_label_values(&[outcome.word()]).inc();
    }

    /// Says whether the process is on its way out.
    pub fn set_draining(&self, draining: bool) {
        self.draining.set(i64::from(draining));
    }

    /// Counts a command of the console.
    pub fn console_command(&self, outcome: Outcome) {
        self.console_commands.with_label_values(&[outcome.word()]).inc();
    }

    /// Counts a refused login at the console.
    pub fn console_login_failed(&self) {
        self.console_logins_failed.inc();
    }

    /// What one server has done so far.
    #[must_use]
    pub fn traffic(&self, group: &str, node: NodeId) -> Traffic {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = workers.iter().filter(|worker| &*worker.group == group);
        let mut traffic = Traffic::default();
        for worker in mine {
            worker.counters.add_traffic(node, &mut traffic);
        }
        traffic
    }

    /// Every counter and gauge of the groups, without the latency histograms.
    #[must_use]
    pub fn samples(&self, topologies: &[Arc<Topology>]) -> Vec<Sample> {
        self.sheet(topologies).samples()
    }

    /// Everything in the text format of Prometheus. Server names and states come from the
    /// topologies, one for each group, as they are now.
    ///
    /// # Errors
    /// When a family is empty; that is a mistake in this module.
    pub fn scrape(&self, topologies: &[Arc<Topology>]) -> Result<String, SetupError> {
        let sheet = self.sheet(topologies);
        let mut families = self.registry.gather();
        families.extend(sheet.families());
        Ok(TextEncoder::new().encode_to_string(&families)?)
    }

    fn sheet(&self, topologies: &[Arc<Topology>]) -> sheet::Sheet {
        let mut sheet = sheet::Sheet::default();
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for topology in topologies {
            let mine: Vec<&WorkerMetrics> = workers
                .iter()
                .filter(|worker| worker.group == topology.group)
                .map(|worker| &*worker.counters)
                .collect();
            sheet::group(&mut sheet, topology, &mine, self.pin_words);
        }
        drop(workers);
        let keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        let is_shown = |name: &Arc<str>| topologies.iter().any(|topology| topology.group == *name);
        for keeper in keepers.iter().filter(|keeper| is_shown(&keeper.group)) {
            keeper.kept.load().add_to(&mut sheet, &keeper.group);
        }
        drop(keepers);
        process::add(&mut sheet);
        sheet
    }
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
        }
    }
}

/// A counter by outcome, with both outcomes present from the start.
fn outcomes(registry: &Registry, family: &families::Family) -> Result<IntCounterVec, SetupError> {
    let counters = IntCounterVec::new(family.opts(), family.labels)?;
    for outcome in [Outcome::Ok, Outcome::Failed] {
        counters.with_label_values(&[outcome.word()]).reset();
    }
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

#[cfg(test)]
mod tests;
