//! What one worker counts for one group: arrays by node and by enum, no hashing, no allocation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics::Traffic;
use crate::router::Reason;
use crate::topology::NodeId;

/// Most servers of a group that are counted apart; the configuration allows no more.
pub const MAX_NODES: usize = 64;

/// Upper bounds of the latency histogram, microseconds.
pub const BUCKETS_MICROS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// The counters of one worker for one group. Written by that worker only, read by whoever scrapes.
#[derive(Debug)]
pub struct WorkerMetrics {
    pub(super) nodes: Box<[NodeCounters]>,
    pub(super) reasons: [Counter; Reason::ALL.len()],
    pub(super) clients_opened: Counter,
    pub(super) clients_closed: Counter,
    pub(super) client_errors: [Counter; ClientError::ALL.len()],
    pub(super) logins_failed: Counter,
    pub(super) retries: [Counter; Retry::ALL.len()],
    pub(super) replays: [Counter; TransactionReplay::ALL.len()],
    pub(super) lost_commits: [Counter; LostCommit::ALL.len()],
    pub(super) holds: [Counter; HoldOutcome::ALL.len()],
    pub(super) hold_micros: Counter,
    pub(super) pins: Box<[Level]>,
    pub(super) replica_waits: [Counter; ReplicaWait::ALL.len()],
    pub(super) bytes: [Counter; Bytes::ALL.len()],
}

/// What is counted for one server.
#[derive(Debug, Default)]
pub(super) struct NodeCounters {
    pub(super) latency: [Latency; QueryClass::ALL.len()],
    pub(super) links: Level,
    pub(super) parked: Level,
    pub(super) taken: [Counter; Taken::ALL.len()],
    pub(super) waits: [Counter; LinkWait::ALL.len()],
    pub(super) wait_micros: Counter,
    pub(super) link_errors: [Counter; LinkError::ALL.len()],
    pub(super) errors: [Counter; ErrorClass::ALL.len()],
}

/// One latency histogram; the bucket after the last bound holds what is slower.
#[derive(Debug, Default)]
pub(super) struct Latency {
    pub(super) buckets: [Counter; BUCKETS_MICROS.len() + 1],
    pub(super) sum_micros: Counter,
}

/// A number that only grows. It has one writer, so a load and a store do; an atomic addition
/// would lock the cache line for nothing.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

/// A number that goes up and down, as two that grow.
#[derive(Debug, Default)]
pub(super) struct Level {
    up: Counter,
    down: Counter,
}

/// Declares an enum of label values with the list of them all and their words.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every value, for metrics that show zeros too.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$variant),*];

            /// The label's value.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

labels! {
    /// What a command was to the router.
    QueryClass {
        /// A read that a replica may run.
        Read = "read",
        /// A statement that writes, or may.
        Write = "write",
        /// Everything else: session statements, transactions, commands of the protocol.
        Other = "other",
    }
}

labels! {
    /// Why a client's connection ended, or never began, other than by the client's wish.
    ClientError {
        /// More clients than `max_clients`.
        TooMany = "too_many",
        /// The login was not finished in time.
        HandshakeTimeout = "handshake_timeout",
        /// Its TLS was refused, or it refused ours.
        Tls = "tls",
        /// A PROXY header was missing, wrong, or from a peer that may not send one.
        ProxyHeader = "proxy_header",
        /// Bytes that are not the protocol.
        Protocol = "protocol",
        /// Idle for longer than allowed.
        Idle = "idle",
        /// The client vanished while a command was running.
        Lost = "lost",
        /// State of the session was lost with a server.
        StateLost = "state_lost",
        /// Closed at the end of a drain, or killed by the operator.
        Closed = "closed",
    }
}

labels! {
    /// What went wrong with a connection to a server.
    LinkError {
        /// No connection.
        Connect = "connect",
        /// The server refused the login.
        Login = "login",
        /// Too slow.
        Timeout = "timeout",
        /// An established connection was lost.
        Lost = "lost",
        /// The server sent what is not the protocol.
        Protocol = "protocol",
        /// No TLS with it: it was not believed, most often.
        Tls = "tls",
    }
}

labels! {
    /// Why a command was sent again.
    Retry {
        /// A read whose server vanished before the first byte of the answer.
        ReadElsewhere = "read_elsewhere",
        /// A replica refused it as a write (1792); the primary ran it.
        RefusedByReplica = "refused_by_replica",
        /// The primary had become read-only (1290, 1836) and had done nothing.
        PrimaryReadOnly = "primary_read_only",
        /// A server no longer knew a prepared statement (1243, 1615).
        Reprepare = "reprepare",
        /// The connection turned out to be dead before anything was sent.
        Unsent = "unsent",
    }
}

labels! {
    /// What came of an open transaction that was done again on another server.
    TransactionReplay {
        /// It goes on.
        Alike = "alike",
        /// It was answered otherwise, and is rolled back.
        Differed = "differed",
    }
}

labels! {
    /// What had become of a commit whose answer was lost.
    LostCommit {
        /// It was made.
        Committed = "committed",
        /// It was not.
        RolledBack = "rolled_back",
        /// Nobody can tell.
        Unknown = "unknown",
    }
}

labels! {
    /// How a wait for a primary ended.
    HoldOutcome {
        /// A primary appeared.
        Primary = "primary",
        /// The hold ran out.
        Expired = "expired",
        /// The client left.
        Abandoned = "abandoned",
    }
}

labels! {
    /// How a session came by a link.
    Taken {
        /// The one that it had given up, untouched.
        Own = "own",
        /// One that another session has used: it is reset first.
        Other = "other",
        /// A new one.
        New = "new",
    }
}

labels! {
    /// How a wait for a link ended.
    LinkWait {
        /// There was one.
        Served = "served",
        /// None came free within `queue_timeout`.
        Full = "full",
        /// The server went out of use, or the client left.
        Abandoned = "abandoned",
    }
}

labels! {
    /// How a wait for a replica to catch up ended.
    ReplicaWait {
        /// It had applied what was asked for.
        CaughtUp = "caught_up",
        /// It had not within `replica_wait`; the primary was asked instead.
        TimedOut = "timed_out",
        /// The wait itself failed.
        Failed = "failed",
    }
}

labels! {
    /// Which way bytes went.
    Bytes {
        /// From clients to pointsman.
        FromClients = "from_clients",
        /// From pointsman to clients.
        ToClients = "to_clients",
        /// From servers to pointsman.
        FromServers = "from_servers",
        /// From pointsman to servers.
        ToServers = "to_servers",
    }
}

labels! {
    /// What an error of a server means, by its code and SQLSTATE.
    ErrorClass {
        /// The statement is wrong, or not allowed to this user.
        Statement = "statement",
        /// A constraint refused the data.
        Constraint = "constraint",
        /// Deadlock, lock wait timeout: the application repeats the transaction.
        Transaction = "transaction",
        /// The server takes no writes.
        ReadOnly = "read_only",
        /// Too many connections, or another limit.
        Overload = "overload",
        /// The connection, or the server, is going away.
        Connection = "connection",
        /// Anything else.
        Other = "other",
    }
}

// === impls ===

impl WorkerMetrics {
    /// `pins` is the number of pin causes.
    #[must_use]
    pub(super) fn new(pins: usize) -> Self {
        Self {
            nodes: (0..MAX_NODES).map(|_| NodeCounters::default()).collect(),
            reasons: Default::default(),
            clients_opened: Counter::default(),
            clients_closed: Counter::default(),
            client_errors: Default::default(),
            logins_failed: Counter::default(),
            retries: Default::default(),
            replays: Default::default(),
            lost_commits: Default::default(),
            holds: Default::default(),
            hold_micros: Counter::default(),
            pins: (0..pins).map(|_| Level::default()).collect(),
            replica_waits: Default::default(),
            bytes: Default::default(),
        }
    }

    /// Counts one finished command: where it ran, why there, and how long it took from its last
    /// byte to the end of the answer.
    pub fn query(&self, node: NodeId, class: QueryClass, reason: Reason, elapsed: Duration) {
        bump(&self.reasons, reason as usize);
        let latency = self.node(node).and_then(|node| node.latency.get(class as usize));
        if let Some(latency) = latency {
            let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
            bump(&latency.buckets, BUCKETS_MICROS.partition_point(|bound| *bound < micros));
            latency.sum_micros.add(micros);
        }
    }

    /// Counts an accepted client.
    pub fn client_opened(&self) {
        self.clients_opened.add(1);
    }

    /// Counts a client that is gone, whatever the cause.
    pub fn client_closed(&self) {
        self.clients_closed.add(1);
    }

    /// Counts a client's connection that ended other than by its wish.
    pub fn client_error(&self, error: ClientError) {
        bump(&self.client_errors, error as usize);
    }

    /// Counts a refused login.
    pub fn login_failed(&self) {
        self.logins_failed.add(1);
    }

    /// Counts a new connection to a server.
    pub fn link_opened(&self, node: NodeId) {
        if let Some(node) = self.node(node) {
            node.links.up.add(1);
        }
    }

    /// Counts a connection to a server that is gone, whatever the cause.
    pub fn link_closed(&self, node: NodeId) {
        if let Some(node) = self.node(node) {
            node.links.down.add(1);
        }
    }

    /// Counts a link that went to the pool.
    pub fn link_parked(&self, node: NodeId) {
        if let Some(node) = self.node(node) {
            node.parked.up.add(1);
        }
    }

    /// Counts a link that left the pool, whatever became of it.
    pub fn link_unparked(&self, node: NodeId) {
        if let Some(node) = self.node(node) {
            node.parked.down.add(1);
        }
    }

    /// Counts a link that a session got.
    pub fn link_taken(&self, node: NodeId, how: Taken) {
        if let Some(node) = self.node(node) {
            bump(&node.taken, how as usize);
        }
    }

    /// Counts a wait in the queue for a link.
    pub fn waited_for_link(&self, node: NodeId, outcome: LinkWait, waited: Duration) {
        if let Some(node) = self.node(node) {
            bump(&node.waits, outcome as usize);
            node.wait_micros.add(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// Counts a connection to a server that failed or was lost.
    pub fn link_error(&self, node: NodeId, error: LinkError) {
        if let Some(node) = self.node(node) {
            bump(&node.link_errors, error as usize);
        }
    }

    /// Counts an error that a server answered.
    pub fn server_error(&self, node: NodeId, class: ErrorClass) {
        if let Some(node) = self.node(node) {
            bump(&node.errors, class as usize);
        }
    }

    /// Counts a command that was sent again.
    pub fn retried(&self, kind: Retry) {
        bump(&self.retries, kind as usize);
    }

    /// Counts an open transaction that was done again.
    pub fn replayed(&self, outcome: TransactionReplay) {
        bump(&self.replays, outcome as usize);
    }

    /// Counts a commit whose answer was lost, and that was asked after.
    pub fn resolved(&self, outcome: LostCommit) {
        bump(&self.lost_commits, outcome as usize);
    }

    /// Counts a finished wait for a primary.
    pub fn held(&self, outcome: HoldOutcome, waited: Duration) {
        bump(&self.holds, outcome as usize);
        self.hold_micros.add(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts a session that became pinned; `cause` is an index into the words given at the start.
    pub fn pinned(&self, cause: usize) {
        if let Some(level) = self.pins.get(cause) {
            level.up.add(1);
        }
    }

    /// Counts a session whose pin is gone, be it released or closed.
    pub fn unpinned(&self, cause: usize) {
        if let Some(level) = self.pins.get(cause) {
            level.down.add(1);
        }
    }

    /// Counts a finished wait for a replica.
    pub fn replica_wait(&self, outcome: ReplicaWait) {
        bump(&self.replica_waits, outcome as usize);
    }

    /// Counts bytes that passed.
    pub fn passed(&self, direction: Bytes, bytes: u64) {
        if let Some(counter) = self.bytes.get(direction as usize) {
            counter.add(bytes);
        }
    }

    /// Adds what was counted for one server.
    pub(super) fn add_traffic(&self, node: NodeId, traffic: &mut Traffic) {
        let Some(node) = self.node(node) else { return };
        let answered = |class: QueryClass| {
            let latency = node.latency.get(class as usize);
            latency.map_or(0, |latency| latency.buckets.iter().map(Counter::read).sum())
        };
        traffic.links += node.links.read();
        traffic.reads += answered(QueryClass::Read);
        traffic.writes += answered(QueryClass::Write);
        traffic.other += answered(QueryClass::Other);
        traffic.errors += node.errors.iter().map(Counter::read).sum::<u64>();
    }

    fn node(&self, node: NodeId) -> Option<&NodeCounters> {
        self.nodes.get(usize::from(node.0))
    }
}

impl ErrorClass {
    /// What an error of a server means.
    #[must_use]
    pub fn of(code: u16, sqlstate: [u8; 5]) -> Self {
        match code {
            1290 | 1792 | 1836 | 1289 => Self::ReadOnly,
            1040 | 1203 | 1226 | 1129 => Self::Overload,
            1205 | 1213 | 1614 | 3101 => Self::Transaction,
            1053 | 1152 | 1158..=1161 | 1184 | 1927 | 3169 | 4031 => Self::Connection,
            _ => match [sqlstate[0], sqlstate[1]] {
                [b'4', b'2' | b'4'] | [b'2', b'1' | b'2' | b'8'] | [b'0', b'A'] => Self::Statement,
                [b'2', b'3'] => Self::Constraint,
                [b'4', b'0'] | [b'X', b'A'] | [b'2', b'5'] => Self::Transaction,
                [b'0', b'8'] => Self::Connection,
                _ => Self::Other,
            },
        }
    }
}

impl Counter {
    fn add(&self, amount: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(amount), Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Level {
    pub(super) fn read(&self) -> u64 {
        // Down is read first: a change in between then makes the level too high, never negative.
        let down = self.down.read();
        self.up.read().saturating_sub(down)
    }
}

fn bump(counters: &[Counter], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.add(1);
    }
}
