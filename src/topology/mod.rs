//! The cluster as one immutable value: which servers there are, what role each has,
//! whether it may be used, and how far it has applied the primary's history.
//!
//! Does not know: sockets, clocks, sessions, how any of it was observed, or who reads it.
//! One task builds a [`Topology`] and publishes it whole; readers never see a mixture of two.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::topology::gtid::GtidSet;

pub mod acknowledged;
pub mod diff;
#[cfg(test)]
pub(crate) mod fixture;
pub mod gtid;

/// How much later than at the latest a server may seem to have been started: what it says of that
/// is right to the second.
const STARTED_TO_THE: Duration = Duration::from_secs(1);

/// The state of one group at one moment. Immutable; replaced as a whole.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Grows by one whenever roles, conditions, weights or membership change. A mere advance
    /// of applied positions or lag is published under the same generation.
    pub generation: u64,
    /// The group's name in the configuration.
    pub group: Arc<str>,
    /// All known servers; a [`NodeId`] is an index into this list and is never reused for
    /// another address while the process lives.
    pub nodes: Vec<Node>,
    /// The one server that may take writes, if there is one.
    pub primary: Option<NodeId>,
    /// Why there is no primary, in an operator's words; empty when there is one.
    pub no_primary_why: String,
    /// The last primary as it was when it was looked at last, as long as there is none.
    pub former: Option<Arc<Node>>,
}

/// A server's index in [`Topology::nodes`]; stable for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

/// One server of the group.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its index.
    pub id: NodeId,
    /// The operator's name for it; `host:port` when none was given.
    pub name: Arc<str>,
    /// Where it listens: `host:port`, or the absolute path of a unix socket.
    pub address: Arc<str>,
    /// What replication says it is.
    pub role: Role,
    /// Whether, and how, it may be used.
    pub condition: Condition,
    /// Share of reads relative to its siblings; 0 takes no new reads.
    pub weight: u32,
    /// How far it is behind the primary; `None` when that is not known.
    pub lag: Option<Duration>,
    /// What is wanted of it when a primary is to be chosen.
    pub promotion: Promotion,
    /// Whether its applier (SQL thread) runs without an error. Always true on the primary.
    pub applying: bool,
    /// Whether a session that begins there finds the settings that it would find on the primary,
    /// as far as they show in results. Always true on the primary.
    pub alike: bool,
    /// When it was started at the latest, and less than two seconds before that at the earliest;
    /// `None` where that is not known.
    pub started: Option<Instant>,
    /// Whether `read_only` (or `super_read_only`) was set at the last observation.
    pub read_only: bool,
    /// What it had executed at [`Node::observed_at`].
    pub applied: GtidSet,
    /// When the probe that read [`Node::applied`] *began*; `None` before the first success.
    pub observed_at: Option<Instant>,
    /// Whether a probe of it has come to an end, with success or without.
    pub probed: bool,
    /// It has said that it shuts down, and has taken no connection since.
    pub leaving: bool,
    /// What its greeting and variables say; `None` before the first successful probe.
    pub facts: Option<Arc<ServerFacts>>,
    /// The last observation error, for operators; empty when the last probe succeeded.
    pub trouble: String,
}

/// What replication says a server is. `read_only` alone never makes a replica a primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Not settled yet, or contradictory.
    Unknown,
    /// Takes writes; the source of the others.
    Primary,
    /// Replicates from another server of the group.
    Replica,
}

/// What the operator wants of a server when a primary is to be chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Promotion {
    /// Nothing.
    #[default]
    Usual,
    /// It is chosen before others that are as good.
    Preferred,
    /// It is never chosen.
    Never,
}

/// Whether a server may be used, in operators' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Healthy.
    Up,
    /// Missed a probe or broke a link, not yet enough to call it down.
    Suspect,
    /// Considered dead; takes nothing new.
    Down,
    /// Takes nothing new by the operator's wish; running work finishes.
    Draining,
    /// Not used at all, by the operator's wish.
    Excluded,
}

/// The two families whose dialects differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// MariaDB.
    MariaDb,
    /// Oracle MySQL and what descends from it.
    MySql,
}

impl Flavour {
    /// Whether a server of this family and version says REPLICA and SOURCE in the names of
    /// statements, columns and variables (MySQL 8.0.22).
    #[must_use]
    pub fn says_replica(self, version: u32) -> bool {
        self == Self::MySql && version >= 80_022
    }
}

/// What lies between pointsman and a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Clear text.
    Clear,
    /// TLS with whoever answers.
    Unverified,
    /// TLS with a server that has proved who it is.
    Verified,
}

/// What a server says about itself in its greeting and in its variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Which dialect it speaks.
    pub flavour: Flavour,
    /// Version as a number: 10.11.19 is 101119 and 9.7.4 is 90704, as in `/*!NNNNN */`.
    pub version: u32,
    /// The version text of the greeting, byte for byte (MariaDB: with the `5.5.5-` prefix if sent).
    pub version_text: Arc<str>,
    /// Capability flags of the greeting, MySQL's 32 bits.
    pub capabilities: u32,
    /// MariaDB's extended capability bits; 0 elsewhere.
    pub mariadb_capabilities: u32,
    /// Default collation id of the greeting.
    pub collation: u8,
    /// Status flags of the greeting (the server's `autocommit` default is in there).
    pub status: u16,
    /// The authentication plugin named by the greeting.
    pub auth_plugin: Arc<str>,
    /// `@@server_id`.
    pub server_id: u32,
    /// `@@server_uuid`; empty on MariaDB.
    pub server_uuid: Arc<str>,
    /// `@@global.max_allowed_packet`, bytes.
    pub max_allowed_packet: u64,
    /// `@@global.wait_timeout`, seconds.
    pub wait_timeout: u64,
    /// `@@global.interactive_timeout`, seconds.
    pub interactive_timeout: u64,
    /// `@@global.sql_mode` contains ANSI_QUOTES / NO_BACKSLASH_ESCAPES / ORACLE.
    pub sql_mode: Arc<str>,
    /// `@@global.max_connections`; 0 when it did not say.
    pub max_connections: u32,
    /// `@@global.require_secure_transport`: it refuses logins in clear text, unix sockets aside.
    pub require_secure_transport: bool,
    /// `@@global.init_connect` is not empty: a login does what a reset does not repeat.
    pub init_connect: bool,
    /// What lies between it and the monitor, as between it and links.
    pub transport: Transport,
    /// The engine of tables that are created without one, and that replicas apply such a
    /// statement with.
    pub storage_engine: Arc<str>,
    /// It has been built with MariaDB's query cache, whether that is switched on or not.
    pub query_cache: bool,
    /// What a session begins with and can see in results (`max_allowed_packet`, `time_zone` ...),
    /// as one text: equal on two servers whose sessions behave alike.
    pub session_defaults: Arc<str>,
    /// How trackers are set when a session begins: `session_track_schema`, `_state_change`,
    /// `_transaction_info`, `_system_variables` and, on MySQL, `_gtids`, with a `/` between two.
    pub trackers: Arc<str>,
    /// The host part under which this server sees the monitor's connection, from `USER()`:
    /// the address that account host patterns are matched against.
    pub sees_us_as: Arc<str>,
}

// === impls ===

impl Transport {
    /// TLS, by whether the server has proved who it is.
    #[must_use]
    pub fn of(verified: bool) -> Self {
        if verified { Self::Verified } else { Self::Unverified }
    }

    /// The word for operators.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Unverified => "unverified",
            Self::Verified => "verified",
        }
    }
}

impl Topology {
    /// A topology without servers, as it is before the first probe.
    #[must_use]
    pub fn empty(group: &str) -> Self {
        Self {
            generation: 0,
            group: Arc::from(group),
            nodes: Vec::new(),
            primary: None,
            no_primary_why: "no server has been probed yet".to_owned(),
            former: None,
        }
    }

    /// The node with this id, if it is (still) known.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(usize::from(id.0))
    }

    /// The node of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| *node.name == *name)
    }

    /// The primary's node, if there is one.
    #[must_use]
    pub fn primary_node(&self) -> Option<&Node> {
        self.primary.and_then(|id| self.node(id))
    }

    /// The primary's node, or what is known of the last one: what it had executed then was what
    /// anybody could have seen.
    #[must_use]
    pub fn last_primary(&self) -> Option<&Node> {
        self.primary_node().or(self.former.as_deref())
    }

    /// Whether each server has been probed, with success or without.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.nodes.is_empty() && self.nodes.iter().all(|node| node.probed)
    }

    /// Facts to greet clients with: the primary's, else any server's.
    #[must_use]
    pub fn facts(&self) -> Option<&Arc<ServerFacts>> {
        self.primary_node()
            .and_then(|node| node.facts.as_ref())
            .or_else(|| self.nodes.iter().find_map(|node| node.facts.as_ref()))
    }
}

impl Condition {
    /// Whether new work may be sent there.
    #[must_use]
    pub fn usable(self) -> bool {
        match self {
            Self::Up | Self::Suspect => true,
            Self::Down | Self::Draining | Self::Excluded => false,
        }
    }
}

impl Role {
    /// The word shown to operators and in metric labels.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

impl Condition {
    /// The word shown to operators and in metric labels.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Excluded => "excluded",
        }
    }
}

impl Node {
    /// Whether the server that was started at this time, as exact as its whole seconds are, is
    /// another life of this one than what is known of it.
    #[must_use]
    pub fn is_outlived_by(&self, started: Instant) -> bool {
        self.started.is_some_and(|known| started > known + STARTED_TO_THE)
    }

    /// Whether what is known of it was asked for at this moment or later.
    #[must_use]
    pub fn is_observed_since(&self, at: Instant) -> bool {
        self.observed_at.is_some_and(|observed| observed >= at)
    }
}

impl NodeId {
    /// Its bit in a set of servers; a topology has at most 64.
    #[must_use]
    pub fn bit(self) -> u64 {
        1u64.checked_shl(u32::from(self.0)).unwrap_or(0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
