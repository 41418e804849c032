//! The composition root: every shared part is built here once and handed to those that need it.
//!
//! Order of start: health, accounts, workers, console and HTTP, listeners, "ready". Order of
//! stop: listeners, clients as they become free, workers, everything else.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::accounts::AccountBook;
use crate::admin::commands::Console;
use crate::admin::listen::Door;
use crate::admin::{self, http, password};
use crate::cli;
use crate::cluster::agent::Agent;
use crate::cluster::desk::Desk;
use crate::cluster::etcd::Etcd;
use crate::config::failover::FailoverMode;
use crate::config::tls::{ServerTlsMode, TlsMode};
use crate::config::{Config, Group};
use crate::control::{Control, GroupControl, ReloadRequest};
use crate::failover::journal::Journal;
use crate::failover::keeper::{self, Keeper};
use crate::failover::record::Record;
use crate::failover::surgeon::LiveSurgeon;
use crate::health::assemble::Appointment;
use crate::health::{self, Health};
use crate::metrics::{Metrics, Outcome};
use crate::net::group::{GroupHandle, Moment};
use crate::net::listen::{self, Bound};
use crate::net::worker::{self, Message, WorkerHandle};
use crate::protocol::auth::RsaKey;
use crate::session::pin::Pin;
use crate::tls::trust::Trust;
use crate::tls::{self, TlsError};
use crate::upstream::load::Loads;

pub mod tasks;

/// The words of all pins, in the order of their bits, for the metrics.
const PIN_WORDS: [&str; Pin::ALL.len()] = pin_words();
/// Commands that may wait for a keeper.
const KEEPER_COMMANDS: usize = 4;
/// How long others may take to be told that this pointsman leaves.
const GOODBYE: Duration = Duration::from_secs(2);
/// Reloads that may wait.
const RELOADS: usize = 8;

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {source}. Is another process there?")]
    Bind {
        /// The address.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// A part cannot be set up.
    #[error("cannot set up {part}: {why}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What it says.
        why: String,
    },
}

/// Everything that runs, while it runs.
struct App {
    groups: Vec<Arc<GroupHandle>>,
    /// By what the keeper of each group works, in their order.
    keepers: Vec<Arc<ArcSwap<keeper::Settings>>>,
    workers: Vec<WorkerHandle>,
    threads: Vec<std::thread::JoinHandle<()>>,
    control: Control,
    metrics: Arc<Metrics>,
    rsa: Arc<RsaKey>,
    draining: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    config_path: PathBuf,
    drain_timeout: Duration,
    /// The task that speaks to other pointsman, if there may be others.
    company: Option<JoinHandle<()>>,
}

/// Runs the proxy until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// When an address cannot be bound or a part cannot be set up; nothing has been served then.
pub async fn run(config: Config, config_path: PathBuf) -> Result<(), StartError> {
    let listeners = bind_all(&config)?;
    let doors = bind_doors(&config).await?;
    let (mut app, reloads) = App::build(&config, config_path)?;
    app.serve_operators(&config, doors)?;
    app.accept(listeners);
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(groups = app.groups.len(), workers = app.workers.len(), "ready");
    app.follow_signals(reloads).await?;
    app.drain().await;
    Ok(())
}

/// Listeners of each group, bound before anything starts: a typing error costs nothing then.
fn bind_all(config: &Config) -> Result<Vec<Vec<Bound>>, StartError> {
    let bind = |address| {
        listen::bind(address)
            .map_err(|source| StartError::Bind { address: format!("{address:?}"), source })
    };
    config.groups.iter().map(|group| group.listen.iter().map(bind).collect()).collect()
}

/// The console and HTTP, bound.
struct Doors {
    console: Option<admin::listen::Listener>,
    http: Option<tokio::net::TcpListener>,
}

async fn bind_doors(config: &Config) -> Result<Doors, StartError> {
    let refused = |address: String, source| StartError::Bind { address, source };
    let console = match &config.boot.admin {
        None => None,
        Some(address) => {
            let bound = admin::listen::Listener::bind(address).await;
            Some(bound.map_err(|source| refused(format!("{address:?}"), source))?)
        }
    };
    let http = match config.boot.http {
        None => None,
        Some(address) => {
            let bound = tokio::net::TcpListener::bind(address).await;
            Some(bound.map_err(|source| refused(address.to_string(), source))?)
        }
    };
    Ok(Doors { console, http })
}

impl App {
    fn build(
        config: &Config,
        config_path: PathBuf,
    ) -> Result<(Self, mpsc::Receiver<ReloadRequest>), StartError> {
        let metrics = Metrics::new(&PIN_WORDS).map_err(|error| part("metrics", &error))?;
        let metrics = Arc::new(metrics);
        let rsa = RsaKey::generate()
            .map_err(|error| StartError::Part { part: "the RSA key", why: error.to_string() })?;
        let rsa = Arc::new(rsa);
        let (draining, _) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let next_id = Arc::new(AtomicU32::new(1));
        let (mut groups, mut controls, mut keepers) = (Vec::new(), Vec::new(), Vec::new());
        let mut asking = Vec::new();
        let (mut desks, company) = join_others(config, &stopped)?;
        for group in &config.groups {
            let tls = GroupTls::read(group, &config.boot.state_dir);
            let tls = tls.map_err(|error| part("TLS", &error))?;
            let state_dir = &config.boot.state_dir;
            let journal = Journal::of(state_dir, &group.name);
            let desk = desks.next();
            let (record, appointed) = begin_with(group, &journal, desk.is_some())?;
            let beside = (&rsa, &next_id, desk.as_ref());
            let handle = start_group(group, tls, config, beside, appointed, &stopped);
            let surgeon = LiveSurgeon::new(handle.trust.clone(), journal, state_dir.clone());
            let keeps = (surgeon, record, desk);
            let started = start_keeper(group, &handle, config, keeps, &metrics, &stopped);
            controls.push(started.control);
            asking.push((group.name.clone(), started.questions));
            groups.push(handle);
            keepers.push(started.settings);
        }
        let (workers, threads) = worker::start(config.boot.workers, &groups, &metrics)
            .map_err(|error| part("the workers", &error))?;
        let (reload, reloads) = mpsc::channel(RELOADS);
        let requests = workers.iter().map(|worker| worker.requests.clone()).collect();
        let control = Control::new(config.clone(), controls, requests, reload);
        for (group, questions) in asking {
            tasks::spawn("unfinished", tell_unfinished(control.clone(), group, questions));
        }
        let app = Self {
            groups,
            keepers,
            workers,
            threads,
            control,
            metrics,
            rsa,
            draining,
            stop,
            config_path,
            drain_timeout: config.boot.drain_timeout,
            company,
        };
        Ok((app, reloads))
    }

    /// The console and HTTP, each on the address that was bound for it.
    fn serve_operators(&self, config: &Config, doors: Doors) -> Result<(), StartError> {
        if let Some(listener) = doors.console {
            let password = password::load(&config.boot)
                .map_err(|error| part("the console's password", &error))?;
            let console = Console { control: self.control.clone(), metrics: self.metrics.clone() };
            let user = config.boot.admin_user.clone();
            let door = Arc::new(Door::new(user, password, self.rsa.clone(), console));
            tasks::spawn("console", listener.serve(door, self.stop.subscribe()));
        }
        if let Some(listener) = doors.http {
            let (control, metrics) = (self.control.clone(), self.metrics.clone());
            let mut stop = self.stop.subscribe();
            tasks::spawn("http", async move {
                let stopped = async move {
                    let _ = stop.wait_for(|stop| *stop).await;
                };
                if let Err(error) = http::serve(listener, control, metrics, stopped).await {
                    tracing::error!(%error, "HTTP has ended");
                }
            });
        }
        Ok(())
    }

    fn accept(&self, listeners: Vec<Vec<Bound>>) {
        for (group, bound) in self.groups.iter().zip(listeners) {
            for bound in bound {
                let accept = listen::accept(
                    bound,
                    group.clone(),
                    self.workers.clone(),
                    self.draining.subscribe(),
                );
                tasks::spawn("listener", accept);
            }
        }
    }

    /// SIGHUP and the console reload; SIGTERM and SIGINT end.
    async fn follow_signals(
        &mut self,
        mut reloads: mpsc::Receiver<ReloadRequest>,
    ) -> Result<(), StartError> {
        let listen = |kind| signal(kind).map_err(|error| part("signals", &error));
        let mut hangup = listen(SignalKind::hangup())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    let (reply, _) = oneshot::channel();
                    self.reload(reply).await;
                }
                Some(reply) = reloads.recv() => self.reload(reply).await,
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
        }
    }

    /// Reads the file again and applies it, or refuses it whole.
    async fn reload(&mut self, reply: ReloadRequest) {
        notify(&[sd_notify::NotifyState::Reloading]);
        let result = self.try_reload().await;
        match &result {
            Ok(done) => {
                self.metrics.reloaded(Outcome::Ok);
                tracing::info!("{done}");
            }
            Err(why) => {
                self.metrics.reloaded(Outcome::Failed);
                tracing::error!("the configuration was not reloaded: {why}");
            }
        }
        notify(&[sd_notify::NotifyState::Ready]);
        let _ = reply.send(result);
    }

    async fn try_reload(&mut self) -> Result<String, String> {
        let config = cli::load(&self.config_path).map_err(|error| error.to_string())?;
        let running = self.control.config();
        if config.boot != running.boot {
            return Err("console, HTTP, logs, workers or state_dir changed: these need a \
                        restart; nothing was applied"
                .to_owned());
        }
        let pairs = pair_groups(&self.groups, &running, &config)?;
        // All that can fail comes before anything is applied.
        let mut read = Vec::new();
        for (handle, group) in &pairs {
            let tls = GroupTls::read(group, &config.boot.state_dir);
            read.push(tls.map_err(|why| format!("group {}: {why}", handle.name))?);
        }
        let told = pairs.into_iter().zip(read).zip(&self.keepers);
        for (((handle, group), tls), keeper) in told {
            let monitor = config.monitor.clone();
            keeper.store(Arc::new(keeper::Settings { group: group.clone(), monitor }));
            handle.tls.store(tls.offer);
            handle.trust.store(Arc::new(tls.trust));
            let monitor = config.monitor.clone();
            let told = group.clone();
            let reloaded =
                handle.health.ask(move |reply| health::Command::Reload(told, monitor, reply)).await;
            reloaded.map_err(|why| format!("group {}: {why}", handle.name))?;
            handle.accounts.reconfigure(group.clone(), config.monitor.clone());
            handle.settings.store(group);
            // Links of before, which other rules believed, are handed on no more.
            handle.accounts_at.fetch_add(1, Ordering::Relaxed);
        }
        self.drain_timeout = config.boot.drain_timeout;
        self.control.set_config(config);
        Ok("configuration reloaded".to_owned())
    }

    /// Stops accepting, lets clients finish what they are at, then closes the rest.
    async fn drain(self) {
        notify(&[sd_notify::NotifyState::Stopping]);
        tracing::info!(timeout = ?self.drain_timeout, "draining: no new clients");
        self.control.begin_drain();
        self.metrics.set_draining(true);
        self.draining.send_replace(true);
        for worker in &self.workers {
            let _ = worker.messages.send(Message::Drain).await;
        }
        let joined = tasks::join(self.threads);
        tokio::pin!(joined);
        if tokio::time::timeout(self.drain_timeout, &mut joined).await.is_err() {
            let left: usize = self.workers.iter().map(WorkerHandle::clients).sum();
            tracing::warn!(clients = left, "drain_timeout is over: closing the rest");
            for worker in &self.workers {
                let _ = worker.messages.send(Message::Close).await;
            }
            let _ = tokio::time::timeout(Duration::from_secs(5), &mut joined).await;
        }
        self.stop.send_replace(true);
        if let Some(company) = self.company {
            let _ = tokio::time::timeout(GOODBYE, company).await;
        }
        tracing::info!("bye");
    }
}

/// A keeper that runs, and what others have of it.
struct StartedKeeper {
    /// By what it works.
    settings: Arc<ArcSwap<keeper::Settings>>,
    /// How operators reach it and its group.
    control: GroupControl,
    /// What it asks of sessions.
    questions: mpsc::Receiver<keeper::Unfinished>,
}

/// Starts to take part in a cluster, if there is one: where the keeper of each group meets others.
fn join_others(
    config: &Config,
    stopped: &watch::Receiver<bool>,
) -> Result<(std::vec::IntoIter<Desk>, Option<JoinHandle<()>>), StartError> {
    let Some(cluster) = &config.boot.cluster else { return Ok((Vec::new().into_iter(), None)) };
    let store = Etcd::new(cluster).map_err(|error| part("TLS to etcd", &error))?;
    let groups: Vec<Arc<str>> = config.groups.iter().map(|group| group.name.clone()).collect();
    let id = cluster.id.clone().unwrap_or_else(|| own_name(config));
    let (agent, desks) = Agent::new(store, id, cluster.lease, &groups);
    let task = tasks::spawn("cluster", agent.run(stopped.clone()));
    Ok((desks.into_iter(), Some(task)))
}

/// What this pointsman is called where nobody says: its host, and where it listens first.
fn own_name(config: &Config) -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let listens = config.groups.iter().flat_map(|group| &group.listen).next();
    listens.map_or_else(|| host.to_string(), |address| format!("{host}/{address}"))
}

/// With what a keeper begins, and whom it lets take the writes: by its journal, or by what it will
/// read where it is one of several.
fn begin_with(
    group: &Group,
    journal: &Journal,
    among_others: bool,
) -> Result<(Record, Appointment), StartError> {
    let mode = group.failover.mode;
    if among_others {
        return Ok((Record::default(), keeper::without_lease(mode)));
    }
    let record = match mode {
        FailoverMode::Follow => Record::default(),
        FailoverMode::Manual | FailoverMode::Auto => {
            journal.read().map_err(|error| part("the keeper's journal", &error))?
        }
    };
    let appointed = keeper::appointment(mode, &record, None);
    Ok((record, appointed))
}

fn start_keeper(
    group: &Arc<Group>,
    handle: &GroupHandle,
    config: &Config,
    (surgeon, record, desk): (LiveSurgeon, Record, Option<Desk>),
    metrics: &Metrics,
    stopped: &watch::Receiver<bool>,
) -> StartedKeeper {
    let settings = keeper::Settings { group: group.clone(), monitor: config.monitor.clone() };
    let settings = Arc::new(ArcSwap::from_pointee(settings));
    let health = handle.health.clone();
    let (commands, orders) = mpsc::channel(KEEPER_COMMANDS);
    let (unfinished, questions) = mpsc::channel(1);
    let kept = metrics.keeper(&group.name);
    let ties = keeper::Ties { commands: orders, unfinished, kept, desk };
    let keeper = Keeper::new(settings.clone(), surgeon, health, record, ties);
    let control = GroupControl {
        name: group.name.clone(),
        health: handle.health.clone(),
        trust: handle.trust.clone(),
        keeping: keeper.keeping(),
        keeper: commands,
    };
    tasks::spawn("keeper", keeper.run(stopped.clone()));
    StartedKeeper { settings, control, questions }
}

/// Tells a keeper what sessions have begun and not ended. Ends with the keeper.
async fn tell_unfinished(
    control: Control,
    group: Arc<str>,
    mut questions: mpsc::Receiver<keeper::Unfinished>,
) {
    while let Some(keeper::Unfinished { node, reply }) = questions.recv().await {
        if let Ok(count) = control.unfinished(&group, node).await {
            let _ = reply.send(count);
        }
    }
}

/// TLS of one group on both sides, read from its files.
struct GroupTls {
    /// What clients are offered, if anything.
    offer: Option<Arc<tls::offer::Offer>>,
    /// Which servers are believed.
    trust: Trust,
}

impl GroupTls {
    fn read(group: &Group, state_dir: &Path) -> Result<Self, TlsError> {
        let offer = match group.tls.mode {
            TlsMode::Off => None,
            TlsMode::Optional | TlsMode::Required => Some(tls::offer::read(&group.tls, state_dir)?),
        };
        match group.server_tls.mode {
            mode @ (ServerTlsMode::SkipVerify | ServerTlsMode::Off) => {
                let mode = mode.word();
                tracing::warn!(group = %group.name, server_tls = mode, "servers are not verified");
            }
            ServerTlsMode::Auto | ServerTlsMode::Required => {}
        }
        Ok(Self { offer, trust: Trust::new(&group.server_tls)? })
    }
}

fn start_group(
    group: &Arc<Group>,
    tls: GroupTls,
    config: &Config,
    (rsa, next_id, desk): (&Arc<RsaKey>, &Arc<AtomicU32>, Option<&Desk>),
    appointed: Appointment,
    stopped: &watch::Receiver<bool>,
) -> Arc<GroupHandle> {
    let trust = Arc::new(ArcSwap::from_pointee(tls.trust));
    let monitor = || config.monitor.clone();
    let health: Health =
        health::start(group.clone(), monitor(), trust.clone(), appointed, stopped.clone());
    let accounts = AccountBook::new(group.clone(), monitor(), health.cell.clone(), trust.clone());
    Arc::new(GroupHandle {
        name: group.name.clone(),
        settings: Arc::new(ArcSwap::new(group.clone())),
        tls: ArcSwapOption::new(tls.offer),
        trust,
        lease: desk.map(|desk| desk.lease().clone()),
        topology: health.cell.clone(),
        health,
        accounts,
        loads: Loads::new(config.boot.workers),
        budget: Default::default(),
        accounts_at: Default::default(),
        rsa: rsa.clone(),
        clients: AtomicUsize::new(0),
        next_id: next_id.clone(),
        settings_changed: Moment::never(std::time::Instant::now()),
        table_locks: AtomicUsize::new(0),
    })
}

type Paired = Vec<(Arc<GroupHandle>, Arc<Group>)>;

/// The running groups with their new settings; what cannot change while they run is refused.
fn pair_groups(
    handles: &[Arc<GroupHandle>],
    running: &Config,
    next: &Config,
) -> Result<Paired, String> {
    if running.groups.len() != next.groups.len() {
        return Err(
            "groups were added or removed: that needs a restart; nothing was applied".to_owned()
        );
    }
    let mut pairs = Vec::new();
    for (handle, before) in handles.iter().zip(&running.groups) {
        let after = next.groups.iter().find(|group| group.name == before.name);
        let Some(after) = after else {
            return Err(format!(
                "group {} is gone or renamed: that needs a restart; nothing was applied",
                before.name
            ));
        };
        if after.listen != before.listen {
            return Err(format!(
                "groups.{}.listen changed: that needs a restart; nothing was applied",
                before.name
            ));
        }
        pairs.push((handle.clone(), after.clone()));
    }
    Ok(pairs)
}

fn part(part: &'static str, error: &dyn std::fmt::Display) -> StartError {
    StartError::Part { part, why: error.to_string() }
}

/// Tells systemd; without it nobody listens.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

const fn pin_words() -> [&'static str; Pin::ALL.len()] {
    let mut words = [""; Pin::ALL.len()];
    let mut at = 0;
    while at < words.len() {
        words[at] = Pin::ALL[at].word();
        at += 1;
    }
    words
}
