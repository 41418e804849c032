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
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::accounts::AccountBook;
use crate::admin::commands::Console;
use crate::admin::listen::Door;
use crate::admin::{self, http, password};
use crate::app::company::Company;
use crate::app::end::{End, Signals};
use crate::app::succession::{Listeners, Predecessor, Program, Successor};
use crate::cluster::desk::Desk;
use crate::config::failover::FailoverMode;
use crate::config::tls::{ServerTlsMode, TlsMode};
use crate::config::{Config, Group};
use crate::control::{Control, GroupControl, ReloadRequest};
use crate::failover::chair::{Chair, Left};
use crate::failover::journal::Journal;
use crate::failover::keeper::{self, Keeper};
use crate::failover::record::Record;
use crate::failover::surgeon::LiveSurgeon;
use crate::health::assemble::Appointment;
use crate::health::{self, Health};
use crate::metrics::Metrics;
use crate::net::group::{GroupHandle, Moment};
use crate::net::listen::{self, Bound};
use crate::net::worker::{self, WorkerHandle};
use crate::protocol::auth::RsaKey;
use crate::session::pin::Pin;
use crate::tls::trust::Trust;
use crate::tls::{self, TlsError};
use crate::upstream::load::Loads;

mod bind;
mod company;
mod end;
mod reload;
pub mod succession;
pub mod tasks;

/// The words of all pins, in the order of their bits, for the metrics.
const PIN_WORDS: [&str; Pin::ALL.len()] = pin_words();
/// Commands that may wait for a keeper.
const KEEPER_COMMANDS: usize = 4;
/// Reloads that may wait.
const RELOADS: usize = 8;
/// How long a keeper may take to come to the end of what it is doing.
const LEFT_WITHIN: Duration = Duration::from_secs(30);
/// How many connections may be accepted while another process begins.
const IDS_LEFT: u32 = 1 << 16;

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
    /// Where the keeper of each group sits while it looks and acts; not of those that meet others,
    /// of whom one acts in any case.
    chairs: Vec<Chair>,
    /// Those that were left for good.
    left: Vec<Left>,
    workers: Vec<WorkerHandle>,
    threads: Vec<std::thread::JoinHandle<()>>,
    control: Control,
    metrics: Arc<Metrics>,
    rsa: Arc<RsaKey>,
    /// The number of the next client's connection.
    next_id: Arc<AtomicU32>,
    draining: watch::Sender<bool>,
    /// Operators are served by another process.
    closing: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    program: Program,
    /// What a successor is given.
    listeners: Listeners,
    config_path: PathBuf,
    drain_timeout: Duration,
    /// The tasks by which others are agreed with, if there may be others.
    company: Vec<JoinHandle<()>>,
}

/// Runs the proxy until SIGTERM or SIGINT, or until another process serves in its place, then
/// drains. With `takes_over` it begins in the place of the process at standard input.
///
/// # Errors
/// When an address cannot be bound or a part cannot be set up; nothing has been served then.
pub async fn run(config: Config, config_path: PathBuf, takes_over: bool) -> Result<(), StartError> {
    let mut signals = Signals::listen().map_err(|error| part("signals", &error))?;
    let program = Program::own().map_err(|error| part("the way to its program", &error))?;
    let lost = |error: io::Error| part("the place of another process", &error);
    let predecessor = takes_over.then(Predecessor::at_standard_input).transpose().map_err(lost)?;
    let given = predecessor.as_ref().map(Predecessor::listeners).transpose().map_err(lost)?;
    let bound = bind::all(&config, given.unwrap_or_default()).await?;
    let first_id = predecessor.as_ref().map(Predecessor::prepared).transpose().map_err(lost)?;
    let (mut app, reloads) =
        App::build(&config, config_path, (program, bound.kept), first_id.unwrap_or(1))?;
    app.serve_operators(&config, bound.console, bound.http)?;
    app.accept(bound.groups);
    if let Some(predecessor) = predecessor {
        predecessor.ready().map_err(lost)?;
    }
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(groups = app.groups.len(), workers = app.workers.len(), "ready");
    let end = app.follow_signals(&mut signals, reloads).await;
    app.end(end, &mut signals.end).await;
    Ok(())
}

impl App {
    fn build(
        config: &Config,
        config_path: PathBuf,
        (program, listeners): (Program, Listeners),
        first_id: u32,
    ) -> Result<(Self, mpsc::Receiver<ReloadRequest>), StartError> {
        let metrics = Metrics::new(&PIN_WORDS).map_err(|error| part("metrics", &error))?;
        let metrics = Arc::new(metrics);
        let rsa = RsaKey::generate()
            .map_err(|error| StartError::Part { part: "the RSA key", why: error.to_string() })?;
        let rsa = Arc::new(rsa);
        let (draining, _) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let next_id = Arc::new(AtomicU32::new(first_id));
        let (mut groups, mut controls, mut keepers) = (Vec::new(), Vec::new(), Vec::new());
        let (mut chairs, mut asking) = (Vec::new(), Vec::new());
        let mut company = Company::join(config, &stopped)?;
        for group in &config.groups {
            let state_dir = &config.boot.state_dir;
            let tls = GroupTls::read(group, state_dir).map_err(|error| part("TLS", &error))?;
            let journal = Journal::of(state_dir, &group.name);
            let trust = Arc::new(ArcSwap::from_pointee(tls.trust));
            let settings = by_what_it_works(group, config);
            let desk = company.desk(group, &settings, &trust);
            let is_alone = desk.is_none();
            let (record, appointed) = begin_with(group, &journal, desk.as_ref())?;
            let beside = (&rsa, &next_id, desk.as_ref());
            let secured = (tls.offer, trust);
            let handle = start_group(group, secured, config, beside, appointed, &stopped);
            let surgeon = LiveSurgeon::new(handle.trust.clone(), journal, state_dir.clone());
            let keeps = (surgeon, record, desk);
            let started = start_keeper(settings, &handle, keeps, &metrics, &stopped);
            controls.push(started.control);
            asking.push((group.name.clone(), started.questions));
            groups.push(handle);
            keepers.push(started.settings);
            if is_alone {
                chairs.push(started.chair);
            }
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
            chairs,
            left: Vec::new(),
            workers,
            threads,
            control,
            metrics,
            rsa,
            next_id,
            draining,
            closing: watch::channel(false).0,
            stop,
            program,
            listeners,
            config_path,
            drain_timeout: config.boot.drain_timeout,
            company: company.tasks,
        };
        Ok((app, reloads))
    }

    /// The console and HTTP, each on the address that was bound for it.
    fn serve_operators(
        &self,
        config: &Config,
        console: Option<admin::listen::Listener>,
        http: Option<tokio::net::TcpListener>,
    ) -> Result<(), StartError> {
        if let Some(listener) = console {
            let password = password::load(&config.boot)
                .map_err(|error| part("the console's password", &error))?;
            let console = Console { control: self.control.clone(), metrics: self.metrics.clone() };
            let user = config.boot.admin_user.clone();
            let door = Arc::new(Door::new(user, password, self.rsa.clone(), console));
            tasks::spawn("console", listener.serve(door, self.closing.subscribe()));
        }
        if let Some(listener) = http {
            let (control, metrics) = (self.control.clone(), self.metrics.clone());
            let mut stop = self.closing.subscribe();
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

    /// SIGHUP and the console reload; SIGUSR2 lets another process take over, SIGTERM and SIGINT
    /// end: answers how.
    async fn follow_signals(
        &mut self,
        signals: &mut Signals,
        mut reloads: mpsc::Receiver<ReloadRequest>,
    ) -> End {
        loop {
            tokio::select! {
                _ = signals.hangup.recv() => {
                    let (reply, _) = oneshot::channel();
                    self.reload(reply).await;
                }
                Some(reply) = reloads.recv() => self.reload(reply).await,
                _ = signals.succession.recv() => if self.is_succeeded().await {
                    return End::Succeeded;
                },
                () = signals.end.come() => return End::Told,
            }
        }
    }

    /// Has another process take over; whether it serves.
    async fn is_succeeded(&mut self) -> bool {
        match self.hand_over().await {
            Ok(pid) => {
                notify(&[sd_notify::NotifyState::MainPid(pid)]);
                tracing::info!(pid, "another process serves from now on");
                true
            }
            Err(error) => {
                tracing::error!("no other process takes over, this one goes on: {error}");
                false
            }
        }
    }

    /// Starts a process of the program and configuration that are there now, and leaves the groups
    /// to it; answers its number when it serves.
    async fn hand_over(&mut self) -> io::Result<u32> {
        tracing::info!(program = ?self.program, "another process is to take over");
        let successor = Successor::prepare(&self.program, &self.listeners).await?;
        let mut left = Vec::new();
        for chair in &self.chairs {
            let leaving = tokio::time::timeout(LEFT_WITHIN, chair.leave()).await;
            left.push(leaving.map_err(|_| io::Error::other("a keeper is in the middle of it"))?);
        }
        // Some that are accepted meanwhile get numbers of this process.
        let id = self.next_id.load(Ordering::Relaxed).wrapping_add(IDS_LEFT);
        let pid = successor.go(id).await?;
        self.left = left;
        // What it makes of the groups the sessions here see from the servers. Where there are
        // several pointsman the keeper here goes on as one of them, and lets nobody take the
        // writes of whom it is not known what it has gone through.
        for group in self.groups.iter().filter(|group| group.lease.is_none()) {
            let open = |reply| health::Command::Appoint(Appointment::Open, reply);
            let _ = group.health.ask(open).await;
        }
        Ok(pid)
    }
}

/// A keeper that runs, and what others have of it.
struct StartedKeeper {
    /// By what it works.
    settings: Arc<ArcSwap<keeper::Settings>>,
    /// Where it sits.
    chair: Chair,
    /// How operators reach it and its group.
    control: GroupControl,
    /// What it asks of sessions.
    questions: mpsc::Receiver<keeper::Unfinished>,
}

/// By what the keeper of a group works until it is reloaded.
fn by_what_it_works(group: &Arc<Group>, config: &Config) -> Arc<ArcSwap<keeper::Settings>> {
    let settings = keeper::Settings { group: group.clone(), monitor: config.monitor.clone() };
    Arc::new(ArcSwap::from_pointee(settings))
}

/// With what a keeper begins, and whom it lets take the writes: by its journal, or by what it will
/// read where it is one of several.
fn begin_with(
    group: &Group,
    journal: &Journal,
    desk: Option<&Desk>,
) -> Result<(Record, Appointment), StartError> {
    let mode = group.failover.mode;
    // In etcd lies another.
    let record = match mode {
        _ if desk.is_some_and(|desk| !desk.is_by_servers()) => Record::default(),
        FailoverMode::Follow => Record::default(),
        FailoverMode::Manual | FailoverMode::Auto => {
            journal.read().map_err(|error| part("the keeper's journal", &error))?
        }
    };
    let appointed = match desk {
        Some(desk) => keeper::without_lease(mode, desk.lease().words()),
        None => keeper::appointment(mode, &record, None),
    };
    Ok((record, appointed))
}

fn start_keeper(
    settings: Arc<ArcSwap<keeper::Settings>>,
    handle: &GroupHandle,
    (surgeon, record, desk): (LiveSurgeon, Record, Option<Desk>),
    metrics: &Metrics,
    stopped: &watch::Receiver<bool>,
) -> StartedKeeper {
    let health = handle.health.clone();
    let (commands, orders) = mpsc::channel(KEEPER_COMMANDS);
    let acknowledged = handle.acknowledged.clone();
    let (unfinished, questions) = mpsc::channel(1);
    let kept = metrics.keeper(&handle.name);
    let chair = Chair::default();
    let ties = keeper::Ties {
        commands: orders,
        unfinished,
        acknowledged,
        kept,
        desk,
        chair: chair.clone(),
    };
    let keeper = Keeper::new(settings.clone(), surgeon, health, record, ties);
    let control = GroupControl {
        name: handle.name.clone(),
        health: handle.health.clone(),
        trust: handle.trust.clone(),
        keeping: keeper.keeping(),
        keeper: commands,
    };
    tasks::spawn("keeper", keeper.run(stopped.clone()));
    StartedKeeper { settings, chair, control, questions }
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
    (offer, trust): (Option<Arc<tls::offer::Offer>>, Arc<ArcSwap<Trust>>),
    config: &Config,
    (rsa, next_id, desk): (&Arc<RsaKey>, &Arc<AtomicU32>, Option<&Desk>),
    appointed: Appointment,
    stopped: &watch::Receiver<bool>,
) -> Arc<GroupHandle> {
    let monitor = || config.monitor.clone();
    let health: Health =
        health::start(group.clone(), monitor(), trust.clone(), appointed, stopped.clone());
    let accounts = AccountBook::new(group.clone(), monitor(), health.cell.clone(), trust.clone());
    Arc::new(GroupHandle {
        name: group.name.clone(),
        settings: Arc::new(ArcSwap::new(group.clone())),
        tls: ArcSwapOption::new(offer),
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
        acknowledged: Arc::default(),
        settings_changed: Moment::never(std::time::Instant::now()),
        table_locks: AtomicUsize::new(0),
    })
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
