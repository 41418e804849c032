//! A worker: one thread, one single-threaded runtime, and the sessions that live and die on it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use mio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::app::tasks;
use crate::compression::Codec;
use crate::config::Group;
use crate::control::WorkerRequest;
use crate::digests::{DigestTable, Execution};
use crate::health::cell::TopologyReader;
use crate::metrics::{
    ClientError, ErrorClass, HoldOutcome, LinkError, Metrics, QueryClass, WorkerMetrics,
};
use crate::net::barred::Barred;
use crate::net::drive::Drive;
use crate::net::entrance;
use crate::net::group::{Admission, GroupHandle};
use crate::net::hangup::HangUp;
use crate::net::pool::Links;
use crate::net::seat::{Bell, Ring, Seat, Waited};
use crate::protocol::login::LoginError;
use crate::reactor::Reactor;
use crate::reactor::polled::Polled;
use crate::router::cache::ClassCache;
use crate::router::refused::RefusedDigests;
use crate::router::{Kind, Reason};
use crate::session::Session;
use crate::session::action::{Finished, KillOutcome, Outbox, Spent};
use crate::topology::NodeId;
use crate::upstream::dial::DialError;
use crate::upstream::load::NODES;
use crate::upstream::stream::Stream;

/// Bytes read at once; shared by all sessions of a worker, since only one runs at a time.
const BUFFER: usize = 64 * 1024;
/// Statements whose class a worker remembers.
const CLASSES: usize = 4096;
/// Digests that a worker keeps statistics of.
const DIGESTS: usize = 2000;
/// Clients and requests that may wait for a worker.
const QUEUE: usize = 1024;
/// Rooms of requests that are kept for the next ones.
const ROOMS: usize = 64;
/// Questions of operators that may wait.
const QUESTIONS: usize = 64;
/// Least time between two warnings that a server of one group is not believed.
const DOUBTS_EVERY: Duration = Duration::from_secs(10);
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// What a worker is sent.
#[derive(Debug)]
pub enum Message {
    /// A client that has been accepted.
    Client(NewClient),
    /// KILL by another worker's client.
    Kill {
        /// The id that the victim was greeted with.
        id: u32,
        /// The connection, or only its running statement.
        connection: bool,
        /// Who asks; nobody when anybody may be killed.
        by: Option<Vec<u8>>,
        /// The answer.
        reply: oneshot::Sender<KillOutcome>,
    },
    /// Another worker's clients wait for links to this server.
    LinksWanted {
        /// The group.
        group: Arc<GroupHandle>,
        /// The server.
        node: NodeId,
    },
    /// The process is leaving: clients are sent away as soon as nothing is lost by it.
    Drain,
    /// The time for leaving is over.
    Close,
}

/// A client that has been accepted, before a byte was exchanged.
#[derive(Debug)]
pub struct NewClient {
    /// Its socket.
    pub socket: Socket,
    /// Its address, as PROXY protocol or the socket says; `None` on a unix socket.
    pub peer: Option<SocketAddr>,
    /// Where it connected to.
    pub local: Option<SocketAddr>,
    /// Its place among `max_clients`.
    pub admission: Admission,
    /// Whether a PROXY protocol header comes first.
    pub proxied: bool,
}

/// A socket on its way to another runtime.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A unix socket.
    Unix(std::os::unix::net::UnixStream),
}

/// The handle to a worker.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    /// Where its messages go.
    pub messages: mpsc::Sender<Message>,
    /// Where operators' questions go.
    pub requests: mpsc::Sender<WorkerRequest>,
    clients: Arc<AtomicUsize>,
}

/// One group as a worker serves it: the shared part, and its own counts.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) group: Arc<GroupHandle>,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) links: Links,
    /// Links open to each server, of this worker.
    pub(super) open: Rc<[Cell<u32>; NODES]>,
    pub(super) digests: RefCell<DigestTable>,
    /// What compresses for all connections of this worker.
    pub(super) codec: Rc<RefCell<Codec>>,
    pub(super) current: RefCell<Current>,
    /// Nothing was to be sent to the primary when that was last looked at.
    pub(super) was_barred: Cell<bool>,
    /// When it was last said aloud that a server is not believed.
    doubted: Cell<Option<Instant>>,
}

/// What a decision is made with, as one thread sees it: a look at each costs a comparison.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) topology: TopologyReader,
    pub(super) barred: Barred,
    pub(super) settings: Cache<Arc<ArcSwap<Group>>, Arc<Group>>,
}

/// A worker, seen from its own thread.
#[derive(Debug)]
pub(super) struct Worker {
    /// Its place among its siblings.
    index: usize,
    reactor: Rc<Reactor>,
    pub(super) buffer: RefCell<Box<[u8]>>,
    pub(super) classes: RefCell<ClassCache>,
    pub(super) refused: RefCell<RefusedDigests>,
    /// The outbox that the last turn has left, empty.
    outbox: RefCell<Option<Box<Outbox>>>,
    /// Requests that are over, for their room: the last one on top, for it is in the cache.
    pub(super) spent: RefCell<Vec<Spent>>,
    pub(super) seats: RefCell<BTreeMap<u32, Rc<Seat>>>,
    pub(super) groups: Vec<Rc<Served>>,
    seed: Cell<u32>,
    clients: Arc<AtomicUsize>,
    pub(super) siblings: Vec<WorkerHandle>,
    draining: Cell<bool>,
    /// The last client has left while draining.
    empty: tokio::sync::Notify,
}

impl WorkerHandle {
    /// Clients on this worker now.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }
}

/// Starts `count` workers for these groups. Needs the main runtime, which gives them the time.
///
/// # Errors
/// When a thread or its runtime cannot be started.
pub fn start(
    count: usize,
    groups: &[Arc<GroupHandle>],
    metrics: &Metrics,
) -> std::io::Result<(Vec<WorkerHandle>, Vec<std::thread::JoinHandle<()>>)> {
    let mut handles = Vec::new();
    let mut inboxes = Vec::new();
    for _ in 0..count.max(1) {
        let (messages, inbox) = mpsc::channel(QUEUE);
        let (requests, questions) = mpsc::channel(QUESTIONS);
        let clients = Arc::new(AtomicUsize::new(0));
        handles.push(WorkerHandle { messages, requests, clients });
        inboxes.push((inbox, questions));
    }
    let ticks = start_ticking();
    let main = Handle::current();
    let mut threads = Vec::new();
    for (index, (inbox, questions)) in inboxes.into_iter().enumerate() {
        let groups: Vec<_> =
            groups.iter().map(|group| (group.clone(), metrics.worker(&group.name))).collect();
        let siblings = handles.clone();
        let ticks = ticks.clone();
        let main = main.clone();
        let clients = handles.get(index).map(|handle| handle.clients.clone()).unwrap_or_default();
        let thread =
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                // What is rare is the main runtime's: timeouts, names, questions about accounts.
                let _context = main.enter();
                let ended = Reactor::new().and_then(|reactor| {
                    let worker = Worker::new(index, reactor.clone(), groups, clients, siblings);
                    reactor.block_on(work(Rc::new(worker), inbox, questions, ticks))
                });
                if let Err(error) = ended {
                    tracing::error!(%error, "a worker has no events and ends");
                }
            })?;
        threads.push(thread);
    }
    Ok((handles, threads))
}

async fn work(
    worker: Rc<Worker>,
    mut inbox: mpsc::Receiver<Message>,
    mut questions: mpsc::Receiver<WorkerRequest>,
    ticks: watch::Receiver<()>,
) {
    for served in &worker.groups {
        worker.spawn(ring_on_change(worker.clone(), served.group.clone()));
    }
    worker.spawn(ring_on_deadline(worker.clone(), ticks));
    loop {
        let message = tokio::select! {
            Some(message) = inbox.recv() => message,
            Some(question) = questions.recv() => {
                worker.answer(question);
                continue;
            }
            () = worker.empty.notified() => Message::Drain,
            else => break,
        };
        match message {
            Message::Client(client) => worker.admit(client),
            Message::Kill { id, connection, by, reply } => {
                let killer = worker.clone();
                worker.spawn(async move {
                    let outcome = killer.kill_here(by.as_deref(), id, connection).await;
                    let _ = reply.send(outcome);
                });
            }
            Message::LinksWanted { group, node } => {
                worker.call_in_here(worker.served(&group), node);
            }
            Message::Drain => {
                if !worker.draining.replace(true) {
                    worker.ring_all(Ring::DRAIN);
                }
            }
            Message::Close => worker.ring_all(Ring::KILL),
        }
        if worker.draining.get() && worker.seats.borrow().is_empty() {
            break;
        }
    }
}

/// A new generation concerns every session that waits for one.
async fn ring_on_change(worker: Rc<Worker>, group: Arc<GroupHandle>) {
    let mut generation = group.topology.subscribe();
    while generation.changed().await.is_ok() {
        worker.links_on_change(&group);
        worker.ring_waiting(&group, Ring::TOPOLOGY);
    }
}

/// Ticks for all workers. A timer of their own would cost each of their waits for events a kernel
/// timer, and a tenth of their instructions (docs/performance.md).
fn start_ticking() -> watch::Receiver<()> {
    let (ticks, ticking) = watch::channel(());
    tasks::spawn("ticks", async move {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while ticks.send(()).is_ok() {
            tick.tick().await;
        }
    });
    ticking
}

/// Deadlines are few and coarse: one tick for all sessions looks at them.
async fn ring_on_deadline(worker: Rc<Worker>, mut ticks: watch::Receiver<()>) {
    while ticks.changed().await.is_ok() {
        let now = worker.now();
        for served in &worker.groups {
            worker.look_after_links(served);
        }
        worker.look_after_leases();
        for seat in worker.seats.borrow().values() {
            let session = seat.session.borrow();
            let Some(session) = session.as_ref() else { continue };
            if session.deadline().is_some_and(|deadline| deadline <= now) {
                seat.bell.ring(Ring::DEADLINE);
            }
            let idle = now.saturating_duration_since(session.phase_since());
            if session.is_idle() && idle >= worker.idle_limit(seat, session) {
                seat.bell.ring(Ring::IDLE);
            } else if idle >= worker.release_after(seat) && session.can_release() {
                seat.bell.ring(Ring::RELEASE);
            }
        }
    }
}

impl Worker {
    fn new(
        index: usize,
        reactor: Rc<Reactor>,
        groups: Vec<(Arc<GroupHandle>, Arc<WorkerMetrics>)>,
        clients: Arc<AtomicUsize>,
        siblings: Vec<WorkerHandle>,
    ) -> Self {
        let serve = |(group, metrics): (Arc<GroupHandle>, _)| Served {
            current: RefCell::new(Current {
                topology: group.topology.reader(),
                barred: Barred::default(),
                settings: Cache::new(group.settings.clone()),
            }),
            group,
            metrics,
            links: Links::default(),
            open: Rc::new([const { Cell::new(0) }; NODES]),
            digests: RefCell::new(DigestTable::new(DIGESTS)),
            codec: Rc::default(),
            was_barred: Cell::default(),
            doubted: Cell::default(),
        };
        let groups = groups.into_iter().map(serve).map(Rc::new).collect();
        Self {
            index,
            reactor,
            buffer: RefCell::new(vec![0; BUFFER].into_boxed_slice()),
            classes: RefCell::new(ClassCache::new(CLASSES)),
            refused: RefCell::default(),
            outbox: RefCell::default(),
            spent: RefCell::default(),
            seats: RefCell::new(BTreeMap::new()),
            groups,
            seed: Cell::new(0x9E37_79B9),
            clients,
            siblings,
            draining: Cell::new(false),
            empty: tokio::sync::Notify::new(),
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.reactor.spawn(task);
    }

    /// The time, for sessions.
    #[expect(clippy::unused_self, reason = "time is the worker's to give")]
    pub(super) fn now(&self) -> Instant {
        Instant::now()
    }

    /// A number that breaks ties; xorshift, since nobody attacks it.
    pub(super) fn next_seed(&self) -> u32 {
        let mut seed = self.seed.get();
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        self.seed.set(seed);
        seed
    }

    /// An empty outbox, with the room that an earlier one has left.
    pub(super) fn take_outbox(&self) -> Box<Outbox> {
        self.outbox.borrow_mut().take().unwrap_or_default()
    }

    /// Keeps the room of an outbox for the next turn.
    pub(super) fn give_outbox(&self, mut out: Box<Outbox>) {
        out.clear();
        *self.outbox.borrow_mut() = Some(out);
    }

    pub(super) fn served(&self, group: &Arc<GroupHandle>) -> &Rc<Served> {
        let known = self.groups.iter().find(|served| Arc::ptr_eq(&served.group, group));
        known.or_else(|| self.groups.first()).expect("invariant: a worker serves its seats' groups")
    }

    pub(super) fn metrics(&self, group: &Arc<GroupHandle>) -> &WorkerMetrics {
        &self.served(group).metrics
    }

    fn ring_all(&self, why: Ring) {
        for seat in self.seats.borrow().values() {
            seat.bell.ring(why);
        }
    }

    /// How long a client may be idle: the group's setting, else what the server would allow.
    fn idle_limit(&self, seat: &Seat, session: &Session) -> Duration {
        let settings = seat.group().settings.load();
        if !settings.idle_timeout.is_zero() {
            return settings.idle_timeout;
        }
        let topology = seat.group().topology.load();
        let facts = topology.facts();
        let seconds = session.wait_timeout().or_else(|| {
            let facts = facts?;
            let interactive = seat.identity.borrow().as_ref().is_some_and(|identity| {
                identity.hello.capabilities.has(crate::protocol::flags::Capabilities::INTERACTIVE)
            });
            Some(if interactive { facts.interactive_timeout } else { facts.wait_timeout })
        });
        Duration::from_secs(seconds.filter(|seconds| *seconds > 0).unwrap_or(28_800))
    }

    /// How long an idle session keeps a link that nobody waits for.
    fn release_after(&self, seat: &Seat) -> Duration {
        let settings = seat.group().settings.load();
        if settings.links.multiplexing { settings.links.idle_release } else { Duration::MAX }
    }

    fn admit(self: &Rc<Self>, new: NewClient) {
        let NewClient { socket, peer, local, admission, proxied } = new;
        let stream = match self.take_over(socket) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a client's socket cannot be taken over");
                return;
            }
        };
        let group = admission.group().clone();
        let id = group.next_id.fetch_add(1, Ordering::Relaxed).max(1);
        let seat = Rc::new(Seat {
            id,
            served: self.served(&group).clone(),
            worker: self.index,
            peer: Cell::new(peer),
            local,
            since: self.now(),
            reactor: self.reactor.clone(),
            identity: RefCell::new(None),
            who: RefCell::new(None),
            session: RefCell::new(None),
            bell: Bell::default(),
            running: Cell::new(None),
            pinned: Cell::default(),
            waited: Waited::default(),
        });
        self.seats.borrow_mut().insert(id, seat.clone());
        self.clients.fetch_add(1, Ordering::Relaxed);
        self.metrics(&group).client_opened();
        let worker = self.clone();
        let drive = Drive {
            seat,
            worker: self.clone(),
            client: stream,
            client_tail: Vec::new(),
            links: [None, None],
            hung_up: HangUp::No,
        };
        self.spawn(async move {
            match entrance::enter(drive, proxied).await {
                // A task of its own: the login's state is large, and gone with its task.
                Some(drive) => worker.spawn(drive.run(admission)),
                None => worker.left(id, admission.group()),
            }
        });
    }

    fn take_over(&self, socket: Socket) -> std::io::Result<Stream> {
        match socket {
            Socket::Tcp(socket) => Ok(Polled::<TcpStream>::accepted(&self.reactor, socket)?.into()),
            Socket::Unix(socket) => {
                Ok(Polled::<UnixStream>::accepted(&self.reactor, socket)?.into())
            }
        }
    }

    /// A client is gone.
    pub(super) fn left(&self, id: u32, group: &Arc<GroupHandle>) {
        self.seats.borrow_mut().remove(&id);
        self.clients.fetch_sub(1, Ordering::Relaxed);
        self.metrics(group).client_closed();
        if self.draining.get() && self.seats.borrow().is_empty() {
            self.empty.notify_one();
        }
    }

    // --- counting ---

    pub(super) fn finished(&self, served: &Served, finished: Finished) {
        let Finished { node, dialect, took, error, state, spent } = finished;
        if let Some(node) = node {
            let reason = spent.reason();
            let class = match reason {
                Reason::Write | Reason::LockingRead => QueryClass::Write,
                _ if spent.kind() == Kind::Read => QueryClass::Read,
                _ => QueryClass::Other,
            };
            served.metrics.query(node, class, reason, took);
            if error != 0 {
                served.metrics.server_error(node, ErrorClass::of(error, state));
            }
            if spent.digest() != 0 {
                let execution = Execution { node, reason, elapsed: took, failed: error != 0 };
                let text = || crate::router::digest::text(spent.text(), &dialect);
                served.digests.borrow_mut().record(spent.digest(), text, execution);
            }
        }
        let mut rooms = self.spent.borrow_mut();
        if spent.is_small() && rooms.len() < ROOMS {
            rooms.push(spent);
        }
    }

    pub(super) fn held(&self, group: &Arc<GroupHandle>, waited: Duration) {
        self.metrics(group).held(HoldOutcome::Primary, waited);
    }

    pub(super) fn link_error(&self, group: &Arc<GroupHandle>, node: NodeId, error: &DialError) {
        let kind = match error {
            DialError::Login(LoginError::TlsNotOffered | LoginError::RefusedBeforeTls(_))
            | DialError::Tls(_) => LinkError::Tls,
            DialError::Refused(_) | DialError::Login(_) => LinkError::Login,
            DialError::Unreachable(_) => LinkError::Connect,
            DialError::TimedOut(_) => LinkError::Timeout,
            DialError::Malformed(_) => LinkError::Protocol,
        };
        self.metrics(group).link_error(node, kind);
        // An impostor, or a setting to be mended: nothing that passes by itself. Waiting clients
        // try again and again, so not each try is told.
        let last = &self.served(group).doubted;
        let is_due = last.get().is_none_or(|at| at.elapsed() >= DOUBTS_EVERY);
        if kind == LinkError::Tls && is_due {
            last.set(Some(self.now()));
            tracing::warn!(group = %group.name, node = %node, %error, "no link");
        } else {
            tracing::debug!(node = %node, %error, "no link");
        }
    }

    pub(super) fn client_error(&self, group: &Arc<GroupHandle>, error: ClientError) {
        self.metrics(group).client_error(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what an `async fn` of two arguments returns.
    fn size_of_future<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_client_takes_little_memory() {
        let task = size_of_future(Drive::run);
        let (session, seat) = (size_of::<Session>(), size_of::<Seat>());
        // The rest of the 6 KB is the reactor's, the allocator's, and what the login told.
        assert!(task <= 2048, "the task of a client: {task} bytes");
        assert!(session <= 1024 && seat <= 1536, "session {session}, seat {seat} bytes");
    }
}
