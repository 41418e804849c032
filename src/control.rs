//! The handle by which console, HTTP, signals and reload ask the owners of things to do or tell
//! something.
//!
//! Does not know: what the owners do with it. Every queue is bounded and every question has a
//! deadline, so that a stuck worker makes an answer incomplete, never late.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::digests::{Digest, DigestTable};
use crate::failover::assessment::{Assessment, assess};
use crate::failover::keeper::{self, Keeping};
use crate::health::{self, Health};
use crate::tls::trust::Trust;
use crate::topology::{NodeId, Topology};

/// How long an owner may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a reload may take; files are read and every group is told.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a keeper may take for a change of the primary, all its stages together.
const KEEPER_TIMEOUT: Duration = Duration::from_secs(90);

/// The handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Control(Arc<Owners>);

/// Who owns what.
#[derive(Debug)]
struct Owners {
    groups: Vec<GroupControl>,
    workers: Vec<mpsc::Sender<WorkerRequest>>,
    reload: mpsc::Sender<ReloadRequest>,
    config: ArcSwap<Config>,
    draining: AtomicBool,
    started: Instant,
}

/// One group, as far as the outside may reach it.
#[derive(Debug, Clone)]
pub struct GroupControl {
    /// Its name.
    pub name: Arc<str>,
    /// What is published about its servers, and the queue of the task that publishes it.
    pub health: Health,
    /// By which its servers are believed.
    pub trust: Arc<ArcSwap<Trust>>,
    /// What its keeper says.
    pub keeping: Arc<ArcSwap<Keeping>>,
    /// Where its keeper takes commands.
    pub keeper: mpsc::Sender<keeper::Command>,
}

/// A question or an order to a worker; it answers between two commands of its clients.
#[derive(Debug)]
pub enum WorkerRequest {
    /// List the sessions.
    Sessions(oneshot::Sender<Vec<SessionRow>>),
    /// Copy the statement statistics, one table for each group.
    Digests(oneshot::Sender<Vec<GroupDigests>>),
    /// Count the links to servers.
    Links(oneshot::Sender<Vec<LinkRow>>),
    /// Count the sessions of a group that have a transaction open on a server, or a statement
    /// running there.
    Unfinished {
        /// The group.
        group: Arc<str>,
        /// The server.
        node: NodeId,
        /// How many.
        reply: oneshot::Sender<usize>,
    },
    /// Close a session; the answer is whether this worker had it.
    Kill {
        /// The session's id.
        id: u32,
        /// Who asked, for the log.
        by: String,
        /// Whether it was found.
        reply: oneshot::Sender<bool>,
    },
}

/// Asks for a reload; the answer is a sentence for the operator, either way.
pub type ReloadRequest = oneshot::Sender<Result<String, String>>;

/// One session as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Its connection id, as `CONNECTION_ID()` shows it to the client.
    pub id: u32,
    /// Who logged in; empty before that.
    pub user: String,
    /// The client's address.
    pub client: String,
    /// Its group.
    pub group: Arc<str>,
    /// The current schema, if any.
    pub database: Option<String>,
    /// What it is doing.
    pub state: &'static str,
    /// The server that it has a link to; the primary where it has two.
    pub node: Option<Arc<str>>,
    /// Why it may not move.
    pub pins: Vec<&'static str>,
    /// How long it has been in this state.
    pub since: Duration,
    /// Statements so far.
    pub statements: u64,
}

/// Links to one server by one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRow {
    /// The group.
    pub group: Arc<str>,
    /// The server's name.
    pub server: Arc<str>,
    /// Who is logged in there.
    pub user: String,
    /// Links that wait for a session.
    pub idle: u64,
    /// Links that belong to a session now.
    pub used: u64,
}

/// One worker's statement statistics of one group.
#[derive(Debug, Clone)]
pub struct GroupDigests {
    /// The group.
    pub group: Arc<str>,
    /// Its statistics.
    pub table: DigestTable,
}

/// One digest as it is shown: all workers together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestRow {
    /// The group.
    pub group: Arc<str>,
    /// Fingerprint of the normalised text.
    pub digest: u64,
    /// The normalised text.
    pub text: String,
    /// Statements.
    pub count: u64,
    /// ... of these, answered by an error.
    pub errors: u64,
    /// Half of them took less, microseconds.
    pub p50_us: u64,
    /// 95 of 100 took less, microseconds.
    pub p95_us: u64,
    /// 99 of 100 took less, microseconds.
    pub p99_us: u64,
    /// Server names with counts, most first.
    pub places: Vec<(String, u64)>,
    /// Reasons with counts, most first.
    pub reasons: Vec<(&'static str, u64)>,
}

/// Why an owner could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no such group.
    #[error("there is no group {0:?}; SHOW TOPOLOGY lists them")]
    NoGroup(String),
    /// No session has this id.
    #[error("there is no session {0}; SHOW SESSIONS lists them")]
    NoSession(u32),
    /// The owner refused, in its own words.
    #[error("{0}")]
    Refused(String),
    /// The owner did not answer in time, or is gone.
    #[error("{0} did not answer in time; is the process shutting down, or overloaded?")]
    NoAnswer(String),
}

// === impls ===

impl Control {
    /// A handle to these owners.
    #[must_use]
    pub fn new(
        config: Config,
        groups: Vec<GroupControl>,
        workers: Vec<mpsc::Sender<WorkerRequest>>,
        reload: mpsc::Sender<ReloadRequest>,
    ) -> Self {
        Self(Arc::new(Owners {
            groups,
            workers,
            reload,
            config: ArcSwap::from_pointee(config),
            draining: AtomicBool::new(false),
            started: Instant::now(),
        }))
    }

    /// The groups in the order of the configuration.
    #[must_use]
    pub fn groups(&self) -> &[GroupControl] {
        &self.0.groups
    }

    /// The group of this name, or the only one when no name is given.
    ///
    /// # Errors
    /// When there is no such group, or there are several and none is named.
    pub fn group(&self, name: Option<&str>) -> Result<&GroupControl, ControlError> {
        match (name, self.groups()) {
            (None, [only]) => Ok(only),
            (None, groups) => {
                let names: Vec<&str> = groups.iter().map(|group| &*group.name).collect();
                let text = format!("there are several groups, name one: {}", names.join(", "));
                Err(ControlError::Refused(text))
            }
            (Some(name), groups) => groups
                .iter()
                .find(|group| &*group.name == name)
                .ok_or_else(|| ControlError::NoGroup(name.to_owned())),
        }
    }

    /// What is published now, one topology for each group.
    #[must_use]
    pub fn topologies(&self) -> Vec<Arc<Topology>> {
        self.groups().iter().map(GroupControl::topology).collect()
    }

    /// What a failover of each group would lose, by what its servers say now.
    pub async fn assessments(&self) -> Vec<Assessment> {
        let config = self.config();
        let mut all = Vec::new();
        for group in self.groups() {
            let trust = group.trust.load_full();
            let found = assess(&group.topology(), &config.monitor, &trust).await;
            let keeping = Some(Keeping::clone(&group.keeping.load()));
            let found = Assessment { keeping, ..found };
            let by_locks = config.boot.cluster.as_ref().is_some_and(|cluster| cluster.locks);
            let settings = config.groups.iter().find(|at| by_locks && at.name == group.name);
            let kept = settings.filter(|at| at.failover.mode.keeps());
            all.push(match kept {
                Some(kept) => found.agreed_by(kept.servers.len()),
                None => found,
            });
        }
        all
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.0.config.load_full()
    }

    /// Shows another configuration from here on; whoever applies a reload calls it last.
    pub fn set_config(&self, config: Config) {
        self.0.config.store(Arc::new(config));
    }

    /// Whether the process is on its way out.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Says that the process is on its way out.
    pub fn begin_drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// How long the process has been running.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// All sessions, by id.
    ///
    /// # Errors
    /// When a worker does not answer.
    pub async fn sessions(&self) -> Result<Vec<SessionRow>, ControlError> {
        let mut rows: Vec<_> =
            self.ask_all(WorkerRequest::Sessions).await?.into_iter().flatten().collect();
        rows.sort_by_key(|row: &SessionRow| row.id);
        Ok(rows)
    }

    /// Links to servers by group, server and user, summed over the workers.
    ///
    /// # Errors
    /// When a worker does not answer.
    pub async fn links(&self) -> Result<Vec<LinkRow>, ControlError> {
        let mut sums: BTreeMap<_, LinkRow> = BTreeMap::new();
        for row in self.ask_all(WorkerRequest::Links).await?.into_iter().flatten() {
            let key = (row.group.clone(), row.server.clone(), row.user.clone());
            match sums.entry(key) {
                Entry::Vacant(place) => drop(place.insert(row)),
                Entry::Occupied(mut sum) => {
                    sum.get_mut().idle += row.idle;
                    sum.get_mut().used += row.used;
                }
            }
        }
        Ok(sums.into_values().collect())
    }

    /// Statement statistics of all workers together, the most frequent first.
    ///
    /// # Errors
    /// When a worker does not answer.
    pub async fn digests(&self) -> Result<Vec<DigestRow>, ControlError> {
        let mut merged: BTreeMap<Arc<str>, DigestTable> = BTreeMap::new();
        for part in self.ask_all(WorkerRequest::Digests).await?.into_iter().flatten() {
            merged.entry(part.group).or_default().merge(&part.table);
        }
        let mut rows = Vec::new();
        for (group, table) in merged {
            let topology = self.group(Some(&group)).ok().map(GroupControl::topology);
            rows.extend(table.digests().iter().map(|d| DigestRow::new(&group, d, &topology)));
        }
        rows.sort_by_key(|row: &DigestRow| std::cmp::Reverse(row.count));
        Ok(rows)
    }

    /// Closes a session; `by` says who asked.
    ///
    /// # Errors
    /// When there is no such session, or a worker does not answer.
    pub async fn kill(&self, id: u32, by: &str) -> Result<(), ControlError> {
        let request = |reply| WorkerRequest::Kill { id, by: by.to_owned(), reply };
        match self.ask_all(request).await?.contains(&true) {
            true => Ok(()),
            false => Err(ControlError::NoSession(id)),
        }
    }

    /// How many sessions of a group have a transaction open on a server, or a statement running.
    ///
    /// # Errors
    /// When a worker does not answer.
    pub async fn unfinished(&self, group: &Arc<str>, node: NodeId) -> Result<usize, ControlError> {
        let request = |reply| WorkerRequest::Unfinished { group: group.clone(), node, reply };
        Ok(self.ask_all(request).await?.into_iter().sum())
    }

    /// Reads the configuration again and applies it, or refuses it whole.
    ///
    /// # Errors
    /// What is wrong with the file, in the words of the one who refused it.
    pub async fn reload(&self) -> Result<String, ControlError> {
        let deadline = Instant::now() + RELOAD_TIMEOUT;
        let no_answer = || ControlError::NoAnswer("the reload".to_owned());
        let (reply, answer) = oneshot::channel();
        self.0.reload.try_send(reply).map_err(|_| no_answer())?;
        let answer = timeout_at(deadline, answer).await.map_err(|_| no_answer())?;
        answer.map_err(|_| no_answer())?.map_err(ControlError::Refused)
    }

    /// Asks every worker and waits for all answers.
    async fn ask_all<T>(
        &self,
        request: impl Fn(oneshot::Sender<T>) -> WorkerRequest,
    ) -> Result<Vec<T>, ControlError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut waiting = Vec::new();
        for worker in &self.0.workers {
            let (reply, answer) = oneshot::channel();
            // A full queue counts as no answer: the receiver is dropped with the request.
            let _ = worker.try_send(request(reply));
            waiting.push(answer);
        }
        let mut answers = Vec::new();
        for (index, answer) in waiting.into_iter().enumerate() {
            match timeout_at(deadline, answer).await {
                Ok(Ok(answer)) => answers.push(answer),
                Ok(Err(_)) | Err(_) => {
                    return Err(ControlError::NoAnswer(format!("worker {index}")));
                }
            }
        }
        Ok(answers)
    }
}

impl GroupControl {
    /// One for tests, whose servers are believed as by default.
    #[cfg(test)]
    pub(crate) fn fixture(name: &str, health: Health) -> Self {
        let trust = Trust::new(&crate::config::tls::ServerTls::default());
        let trust = trust.expect("invariant: the default is valid");
        Self {
            name: Arc::from(name),
            health,
            trust: Arc::new(ArcSwap::from_pointee(trust)),
            keeping: Arc::default(),
            keeper: mpsc::channel(1).0,
        }
    }

    /// Gives the owner of this group's topology an order and waits for its answer.
    ///
    /// # Errors
    /// When it refuses or does not answer.
    pub async fn order(
        &self,
        command: impl FnOnce(health::Reply) -> health::Command,
    ) -> Result<String, ControlError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        timeout_at(deadline, self.health.ask(command))
            .await
            .map_err(|_| ControlError::NoAnswer(format!("the observer of {:?}", self.name)))?
            .map_err(ControlError::Refused)
    }

    /// Tells this group's keeper what to do and waits until that is over.
    ///
    /// # Errors
    /// When it refuses, when it could not be done, or when it takes too long.
    pub async fn tell_keeper(
        &self,
        command: impl FnOnce(health::Reply) -> keeper::Command,
    ) -> Result<String, ControlError> {
        let no_answer = || ControlError::NoAnswer(format!("the keeper of {:?}", self.name));
        let deadline = Instant::now() + KEEPER_TIMEOUT;
        let (reply, answer) = oneshot::channel();
        self.keeper.try_send(command(reply)).map_err(|_| no_answer())?;
        let answer = timeout_at(deadline, answer).await.map_err(|_| no_answer())?;
        answer.map_err(|_| no_answer())?.map_err(ControlError::Refused)
    }

    /// What is published about its servers now.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        self.health.cell.load()
    }
}

impl DigestRow {
    fn new(group: &Arc<str>, digest: &Digest, topology: &Option<Arc<Topology>>) -> Self {
        let name = |node: NodeId| {
            let known = topology.as_ref().and_then(|topology| topology.node(node));
            known.map_or_else(|| format!("node {node}"), |node| node.name.to_string())
        };
        let mut places: Vec<_> =
            digest.places.iter().map(|(node, count)| (name(*node), *count)).collect();
        let mut reasons: Vec<_> =
            digest.reasons.iter().map(|(reason, count)| (reason.word(), *count)).collect();
        places.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Self {
            group: group.clone(),
            digest: digest.digest,
            text: digest.text.to_string(),
            count: digest.count,
            errors: digest.errors,
            p50_us: digest.latency.percentile_micros(50),
            p95_us: digest.latency.percentile_micros(95),
            p99_us: digest.latency.percentile_micros(99),
            places,
            reasons,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{raw, resolve};
    use crate::health::cell;

    fn control(workers: Vec<mpsc::Sender<WorkerRequest>>, groups: &[&str]) -> Control {
        let file = raw::parse(include_str!("../config/minimal.toml")).expect("valid");
        let no_files = |_: &std::path::Path| Err(String::new());
        let config = resolve::resolve(&file, 1, &no_files).expect("valid");
        let groups = groups.iter().map(|name| {
            let (cell, _) = cell::cell(Topology::empty(name));
            // The receiver is dropped at once: the owner is gone.
            let (commands, _) = mpsc::channel(1);
            GroupControl::fixture(name, Health { cell, commands })
        });
        let (reload, _) = mpsc::channel(1);
        Control::new(config, groups.collect(), workers, reload)
    }

    fn block_on<F: Future>(test: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test)
    }

    #[test]
    fn owners_that_are_gone_or_stuck_are_named() {
        block_on(async {
            let (gone, _) = mpsc::channel(1);
            let asked = control(vec![gone], &["main"]).sessions().await;
            assert_eq!(asked, Err(ControlError::NoAnswer("worker 0".to_owned())));

            let (stuck, _queue) = mpsc::channel(1);
            let (reply, _) = oneshot::channel();
            stuck.try_send(WorkerRequest::Sessions(reply)).expect("there is room for one");
            let started = Instant::now();
            let asked = control(vec![stuck], &["main"]).kill(1, "test").await;
            assert_eq!(asked, Err(ControlError::NoAnswer("worker 0".to_owned())));
            assert!(started.elapsed() < ANSWER_TIMEOUT, "a full queue is told at once");

            let control = control(Vec::new(), &["main"]);
            assert!(matches!(control.reload().await, Err(ControlError::NoAnswer(_))));
            let group = control.group(None).expect("the only one");
            let order = group.order(|reply| health::Command::Drain("db1".to_owned(), reply));
            assert!(matches!(order.await, Err(ControlError::Refused(_))));
        });
    }

    #[test]
    fn a_group_must_be_named_when_there_are_several() {
        let one = control(Vec::new(), &["main"]);
        assert_eq!(&*one.group(None).expect("the only one").name, "main");
        let two = control(Vec::new(), &["main", "other"]);
        assert_eq!(&*two.group(Some("other")).expect("it exists").name, "other");
        let error = two.group(None).expect_err("which one?").to_string();
        assert!(error.contains("main, other"), "{error}");
        assert!(matches!(two.group(Some("third")), Err(ControlError::NoGroup(_))));
    }

    #[test]
    fn a_session_that_no_worker_has_is_not_killed() {
        block_on(async {
            let (worker, mut requests) = mpsc::channel(1);
            let answering = async {
                while let Some(request) = requests.recv().await {
                    if let WorkerRequest::Kill { id, reply, .. } = request {
                        let _ = reply.send(id == 7);
                    }
                }
            };
            let asking = async {
                let control = control(vec![worker], &["main"]);
                assert_eq!(control.kill(7, "test").await, Ok(()));
                assert_eq!(control.kill(8, "test").await, Err(ControlError::NoSession(8)));
            };
            tokio::join!(answering, asking);
        });
    }
}
