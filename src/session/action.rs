//! The whole contract between a session and the shell that drives it.
//!
//! The shell feeds bytes and [`Event`]s in; the session fills an [`Outbox`]. The shell performs
//! it in this order, each to its end, before the next input: bytes to the client, bytes to the
//! links, then the requests. That order is the back-pressure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Group;
use crate::protocol::flags::{Capabilities, MariadbCapabilities};
use crate::router::balance::Loads;
use crate::router::cache::ClassCache;
use crate::router::policy::Held;
use crate::router::refused::RefusedDigests;
use crate::router::{Dialect, Kind, Reason};
use crate::session::links::Kept;
use crate::session::pending::Pending;
use crate::session::witness::Witness;
use crate::topology::gtid::GtidSet;
use crate::topology::{NodeId, Topology};

/// The longest command, bytes, whose room is kept for the next one.
const ROOM: usize = 16 * 1024;
/// The most bytes of an outbox whose room is kept for the next input.
const OUTBOX_ROOM: usize = 256 * 1024;

/// What a session may see of the world while it handles one input.
pub struct World<'a> {
    /// The moment of the input.
    pub now: Instant,
    /// The topology, loaded once for this input.
    pub topology: &'a Arc<Topology>,
    /// The settings of the group that the client connected to.
    pub group: &'a Group,
    /// Statements in flight on each server.
    pub loads: Loads<'a>,
    /// When a client of the group last changed settings of the primary.
    pub settings_changed: Option<Instant>,
    /// Some session of the group holds locks of tables.
    pub tables_locked: bool,
    /// Breaks ties between equally good replicas.
    pub seed: u32,
    /// The worker's memory of statements that it has classified.
    pub classes: &'a mut ClassCache,
    /// The worker's memory of statements that replicas have refused as writes.
    pub refused: &'a mut RefusedDigests,
    /// Requests of the worker that are over, the last one on top: their room serves the next ones.
    pub spent: &'a mut Vec<Spent>,
}

/// What the shell must do next, filled by the session.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Wire bytes for the client.
    pub client: Vec<u8>,
    /// Wire bytes for the link to the primary and the link to the replica.
    pub links: [Vec<u8>; 2],
    /// Everything that is not bytes.
    pub requests: Vec<Request>,
}

impl Outbox {
    /// Forgets what is in it and keeps its room for the next input, unless that has grown large.
    pub fn clear(&mut self) {
        self.requests.clear();
        let [primary, replica] = &mut self.links;
        for bytes in [&mut self.client, primary, replica] {
            bytes.clear();
            bytes.shrink_to(OUTBOX_ROOM);
        }
    }
}

/// Something that only the shell can do.
#[derive(Debug)]
pub enum Request {
    /// Get a link; answered by [`Event::Dialed`], [`Event::Attached`], [`Event::NoLink`] or
    /// [`Event::DialFailed`].
    Dial {
        /// Which of the two it will be.
        slot: Held,
        /// Where to.
        node: NodeId,
        /// When to give up waiting for a place among the links to it.
        until: Instant,
        /// None that was there before: one has just broken, and others may have with it.
        fresh: bool,
    },
    /// Close a link. No event follows.
    Drop(Held),
    /// Give a link to the pool. No event follows.
    Release {
        /// Which of the two it was.
        slot: Held,
        /// What is to be known of it.
        link: Box<Kept>,
    },
    /// Close a statement on a link that was given to the pool, if it is there still and nobody
    /// else has had it. No event follows.
    CloseParked {
        /// Which of the two it was.
        slot: Held,
        /// Which of the session's links it was.
        serial: u32,
        /// The server's id of the statement.
        id: u32,
    },
    /// Tell health what a link showed.
    Signal(NodeId, Trouble),
    /// A client's command is over: for metrics and digests.
    Finished(Finished),
    /// Authenticate the client anew (COM_CHANGE_USER); answered by [`Event::UserChanged`].
    ChangeUser(Vec<u8>),
    /// Kill by the id that a client was given; answered by [`Event::Killed`].
    Kill {
        /// The client's id, as the client knows it.
        id: u64,
        /// The connection, or only its running statement.
        connection: bool,
    },
    /// A server has acknowledged a write, of which the client is told next.
    Acknowledged(NodeId, GtidSet),
    /// Learnt accounts may be stale.
    AccountsChanged,
    /// Roles may have changed: probe at once.
    ProbeNow,
    /// The server's settings were changed: what was observed of them is old.
    SettingsChanged,
    /// A read was held back until a replica had caught up; or it was not worth waiting.
    Waited(WaitOutcome),
    /// A request was repeated elsewhere.
    Retried(Retry),
    /// A transaction was done again.
    Replayed(Replay),
    /// Commits on a link have no witness: the server has refused to make its row, by this code.
    Unwitnessed(NodeId, u16),
    /// A commit whose answer was lost has been asked after.
    Resolved(Resolved),
    /// A request waited this long for a primary.
    HeldFor(Duration),
    /// Close the client's connection after all bytes are out.
    Close,
}

impl Request {
    /// Whether carrying it out takes time, answers with an event, or ends the session.
    #[must_use]
    pub const fn waits(&self) -> bool {
        matches!(self, Self::Dial { .. } | Self::ChangeUser(_) | Self::Kill { .. } | Self::Close)
    }

    /// Whether others go by it: the group's other sessions, logins, and who reads the metrics. Not
    /// so what waits, and what becomes of the session's own links.
    #[must_use]
    pub const fn concerns_others(&self) -> bool {
        let of_links =
            matches!(self, Self::Drop(_) | Self::Release { .. } | Self::CloseParked { .. });
        !self.waits() && !of_links
    }
}

/// What a link showed about its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The link broke, or its server stopped answering.
    LinkLost,
    /// No link could be opened.
    DialFailed,
    /// A write was refused because the server is read-only.
    ReadOnly,
    /// The client has set `read_only` there.
    SetReadOnly,
    /// Too many connections.
    Overload,
}

/// How a wait for a replica ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitOutcome {
    /// The replica had applied the token in time.
    CaughtUp,
    /// It had not; the read went to the primary.
    TimedOut,
}

/// Why a request was repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// A read whose link broke before a byte of the answer was forwarded.
    LinkLost,
    /// A replica refused what only the primary may do, or did not know an object yet.
    ReplicaRefused,
    /// The primary had become read-only.
    PrimaryReadOnly,
    /// The server had forgotten, or outgrown, a prepared statement.
    Reprepared,
}

/// What came of an open transaction that was done again on another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Replay {
    /// Everything was answered alike: the client notices nothing.
    Alike,
    /// Something was answered otherwise: it is rolled back.
    Differed,
}

/// What has become of a commit whose answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolved {
    /// It was made: the client has its answer.
    Committed,
    /// It was not, and is done again or told as rolled back.
    RolledBack,
    /// Nobody can tell.
    Unknown,
}

/// A finished command.
#[derive(Debug)]
pub struct Finished {
    /// Where it ran; `None` when the proxy answered by itself.
    pub node: Option<NodeId>,
    /// How its text was read.
    pub dialect: Dialect,
    /// From the last byte of the request to the last byte of the reply.
    pub took: Duration,
    /// The error code that it ended with; 0 for success.
    pub error: u16,
    /// The SQLSTATE of that error.
    pub state: [u8; 5],
    /// The command itself.
    pub spent: Spent,
}

/// A command that is over.
#[derive(Debug)]
pub struct Spent(pub(super) Box<Pending>);

impl Spent {
    /// Why it ran where it did.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.way.decision.map_or(self.0.class.reason, |decision| decision.reason)
    }

    /// Where its text alone would have let it run.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.class.kind
    }

    /// Fingerprint of its text; 0 for commands without text.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.0.class.digest
    }

    /// Its text; empty for commands without text, and for executions: their COM_STMT_PREPARE
    /// has told it.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.0.text()
    }

    /// Whether it is worth keeping for its room: a long command's bytes are given back.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.0.wire.capacity() <= ROOM
    }
}

/// Something that happened to the session other than bytes.
#[derive(Debug)]
pub enum Event {
    /// A link is there, logged in, its trackers on.
    Dialed(Held, LinkFacts),
    /// A link out of the pool is there.
    Attached {
        /// Which of the two it is.
        slot: Held,
        /// The link, as its last session left it.
        link: Box<Kept>,
        /// That was this session.
        own: bool,
    },
    /// No link could be had.
    NoLink {
        /// Which of the two it would have been.
        slot: Held,
        /// Where to.
        node: NodeId,
        /// Why not.
        why: NoLink,
    },
    /// The links of an idle session are wanted elsewhere, or have been idle for long enough.
    Release,
    /// No link could be opened.
    DialFailed {
        /// Which of the two it would have been.
        slot: Held,
        /// Where to.
        node: NodeId,
        /// The server's own ERR payload, when it was the server that refused.
        refusal: Option<Vec<u8>>,
    },
    /// The peer of a link closed it.
    LinkClosed(Held),
    /// A new generation of the topology is there.
    TopologyMoved,
    /// The session's deadline has passed.
    Deadline,
    /// The client proved to be somebody (or failed: `None`, already answered).
    UserChanged(Option<Login>),
    /// It failed, and stays who it was, with a session reset (MariaDB).
    UserKept,
    /// The outcome of a kill: what the client is to be told.
    Killed(KillOutcome),
}

/// Why no link could be had, other than by the server's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoLink {
    /// None came free in time; so many there may be.
    Full(u32),
    /// The server takes no requests any more: decide anew.
    Moved,
    /// Others wait for the link that the session holds: to be given up first.
    Called,
}

/// The outcome of a KILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillOutcome {
    /// Done, as the server would say OK.
    Done,
    /// No client has that id: 1094.
    Unknown,
    /// It belongs to another user: 1095.
    NotOwner,
}

/// What the session must know about a fresh link.
#[derive(Debug, Clone)]
pub struct LinkFacts {
    /// The server.
    pub node: NodeId,
    /// Flags in force on this link.
    pub capabilities: Capabilities,
    /// MariaDB's further flags in force on this link.
    pub mariadb: MariadbCapabilities,
    /// The server's thread id.
    pub thread_id: u32,
    /// The schema that the login selected, if any.
    pub schema: Option<Vec<u8>>,
    /// Status flags of the login's OK.
    pub status: u16,
    /// `charset COLLATE collation` of the login, where a reset returns to other ones (MySQL).
    pub names: Option<Vec<u8>>,
    /// What bears witness to commits on it; `None` where outcomes stay unknown.
    pub witness: Option<Box<Witness>>,
}

/// Who the client is and what it negotiated.
#[derive(Debug, Clone)]
pub struct Login {
    /// Flags that the client and we agreed on.
    pub capabilities: Capabilities,
    /// MariaDB's further flags.
    pub mariadb: MariadbCapabilities,
    /// Collation id of the handshake.
    pub collation: u8,
    /// Schema named at login.
    pub schema: Option<Vec<u8>>,
    /// Status flags that the client was greeted with.
    pub status: u16,
    /// It cannot be repeated on another link.
    pub sole: bool,
    /// The user is the one that the session had before (COM_CHANGE_USER).
    pub same_user: bool,
    /// The server's trackers as its sessions begin with them (see
    /// [`ServerFacts`](crate::topology::ServerFacts)).
    pub trackers: Arc<str>,
}

/// What a session waits for; the shell polls for exactly these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// Bytes from the client.
    pub client: bool,
    /// Bytes (or the end) of the links.
    pub links: [bool; 2],
    /// A new generation of the topology.
    pub topology: bool,
}

impl Interest {
    /// Nothing but what its worker tells it by itself.
    pub const NOTHING: Self = Self { client: false, links: [false; 2], topology: false };
}

/// The index of a slot in pairs of things.
#[must_use]
pub const fn index(slot: Held) -> usize {
    match slot {
        Held::Primary => 0,
        Held::Replica => 1,
    }
}
