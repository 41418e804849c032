//! Where a statement may run: the text predicts, the session's state and the topology decide.
//!
//! Does not know: the wire protocol, sockets, prepared-statement ids, or how a link is made.
//! A replica is chosen by proof only; whatever is not understood goes to the primary.

use crate::topology::Flavour;

pub mod ast;
pub mod balance;
pub mod cache;
pub mod catalogue;
mod classify;
mod dialect;
pub mod digest;
pub mod found;
pub mod hint;
pub mod holding;
mod keyword;
pub mod kill;
mod lexer;
mod names;
pub mod policy;
pub mod refused;
pub mod rewrite;
mod scan;
pub mod set;
mod shape;
mod statement;
#[cfg(test)]
mod tests;

pub use classify::{SCAN_LIMIT, classify};
pub use names::is_host_local_schema;

/// How a text must be read: which server family and version, and which session settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Family of the backends; decides which executable comments are code.
    pub flavour: Flavour,
    /// Version as in `/*!NNNNNN */`.
    pub version: u32,
    /// `sql_mode` has ANSI_QUOTES: `"` quotes identifiers.
    pub ansi_quotes: bool,
    /// `sql_mode` has NO_BACKSLASH_ESCAPES.
    pub no_backslash_escapes: bool,
    /// `sql_mode` has ORACLE (MariaDB).
    pub oracle: bool,
    /// `sql_mode` has IGNORE_SPACE, or the client negotiated it: `count (` is a call too.
    pub ignore_space: bool,
    /// How bytes above 0x7F group into characters.
    pub charset: Charset,
}

/// Client character sets by what their trail bytes can be mistaken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Charset {
    /// Every byte below 0x80 is that ASCII character (utf8mb3/4, latin1, ascii, eucjpms ...).
    AsciiSafe,
    /// Lead 0x81-0xFE, trail 0x40-0x7E or 0x80-0xFE.
    Gbk,
    /// Lead 0xA1-0xF9 (server's own table), trail 0x40-0x7E or 0xA1-0xFE.
    Big5,
    /// sjis and cp932: lead 0x81-0x9F, 0xE0-0xFC, trail 0x40-0x7E or 0x80-0xFC.
    Sjis,
    /// Two- and four-byte characters; the second byte may be an ASCII digit.
    Gb18030,
    /// Not known: nothing in such a text is proof of anything.
    Unknown,
}

/// What the text of one command lets one expect. Cheap to copy and to cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Where the text alone would let it run.
    pub kind: Kind,
    /// The leading verb, for statistics and for the session's special cases.
    pub verb: Verb,
    /// What it may do to the session.
    pub effects: Effects,
    /// Why `kind` is what it is.
    pub reason: Reason,
    /// Fingerprint of the normalised text: literals replaced, comments dropped.
    pub digest: u64,
    /// More than one statement in the text (a trailing `;` does not count).
    pub multi: bool,
}

/// Where the text alone would let a statement run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Proven to be a plain read: a replica may run it.
    Read,
    /// Everything else, doubt included.
    Primary,
    /// Asks about the previous statement (warnings, row counts): must run where that one ran.
    Last,
}

/// The leading verb of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the SQL keyword that it names")]
pub enum Verb {
    Select,
    Insert,
    Update,
    Delete,
    Replace,
    With,
    Values,
    Table,
    Show,
    Describe,
    Explain,
    Set,
    Use,
    Begin,
    Commit,
    Rollback,
    Savepoint,
    Call,
    Do,
    Prepare,
    Execute,
    Deallocate,
    LoadData,
    LockTables,
    UnlockTables,
    Handler,
    Kill,
    Xa,
    Ddl,
    Account,
    Administration,
    Empty,
    Other,
}

impl Verb {
    /// Whether such a statement changes rows of tables that it names.
    #[must_use]
    pub const fn changes_rows(self) -> bool {
        matches!(self, Self::Insert | Self::Update | Self::Delete | Self::Replace | Self::LoadData)
    }
}

/// A set of things that a statement may do to its session; a prediction, never a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Effects(pub u64);

/// Why a statement runs where it runs; also the label of a metric and a word for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A plain read on a replica that satisfies the consistency mode.
    PlainRead,
    /// A `START TRANSACTION READ ONLY` and what runs inside it.
    ReadOnlyTransaction,
    /// It writes, or may.
    Write,
    /// It takes row locks.
    LockingRead,
    /// It calls a function that is unknown, qualified, or has effects.
    Function,
    /// It reads or changes state of the session that only the primary's link has.
    SessionState,
    /// It asks what only the primary can answer (its own status, metadata of the host).
    HostLocal,
    /// The lexer or the second opinion could not prove it to be a read.
    Undecided,
    /// It is larger than the inspection limit.
    TooLarge,
    /// An open transaction, or `autocommit=0`.
    Transaction,
    /// The session is pinned.
    Pinned,
    /// Asks about the previous statement.
    PreviousStatement,
    /// A hint in a comment said so.
    Hint,
    /// No replica is usable: down, drained, excluded or weight 0.
    NoReplica,
    /// Replicas are usable but all are too far behind.
    Lagging,
    /// Replicas are usable but have, or may have, other settings than the primary.
    SettingsDiffer,
    /// No replica had the session's last write within the wait.
    NotCaughtUp,
    /// The configured share of reads for the primary.
    PrimaryShare,
    /// Its digest was refused by a replica before (1792): remembered.
    RefusedBefore,
    /// An administrative or protocol-level command that only the primary serves.
    Command,
}

impl Effects {
    /// Starts a transaction (BEGIN, START TRANSACTION, XA START).
    pub const BEGIN: Self = Self(1);
    /// ... and it is READ ONLY without CONSISTENT SNAPSHOT: one replica may run all of it.
    pub const BEGIN_READ_ONLY: Self = Self(1 << 1);
    /// Creates, or may create, a temporary table.
    pub const TEMP_TABLE: Self = Self(1 << 2);
    /// LOCK TABLES, FLUSH TABLES WITH READ LOCK / FOR EXPORT, LOCK INSTANCE, BACKUP STAGE/LOCK.
    pub const LOCK: Self = Self(1 << 3);
    /// UNLOCK TABLES / INSTANCE, BACKUP STAGE END / UNLOCK.
    pub const UNLOCK: Self = Self(1 << 4);
    /// GET_LOCK and its kin: may take a user lock.
    pub const USER_LOCK: Self = Self(1 << 5);
    /// RELEASE_ALL_LOCKS() is called.
    pub const RELEASE_ALL_LOCKS: Self = Self(1 << 6);
    /// HANDLER ... OPEN.
    pub const HANDLER_OPEN: Self = Self(1 << 7);
    /// Writes a user variable other than by SET (`:=`, INTO @v).
    pub const USER_VAR_WRITE: Self = Self(1 << 8);
    /// Mentions a user variable as a value.
    pub const USER_VAR_READ: Self = Self(1 << 9);
    /// A SET statement; `set::parse` tells what it assigns.
    pub const SET: Self = Self(1 << 10);
    /// SET TRANSACTION without scope: concerns the next transaction of this link.
    pub const NEXT_TRANSACTION: Self = Self(1 << 11);
    /// May set session state that the text does not show (CALL, EXECUTE, compound statements).
    pub const OPAQUE: Self = Self(1 << 12);
    /// LOAD DATA/XML LOCAL: the server may ask the client for a file.
    pub const LOCAL_INFILE: Self = Self(1 << 13);
    /// KILL; `kill::parse` tells whom.
    pub const KILL: Self = Self(1 << 14);
    /// Changes accounts, roles or grants: learnt credentials may be stale.
    pub const ACCOUNTS: Self = Self(1 << 15);
    /// May change who is primary, or replication: probe at once.
    pub const TOPOLOGY: Self = Self(1 << 16);
    /// Contains what must be virtualised: `@@socket`, CONNECTION_ID().
    pub const VIRTUAL: Self = Self(1 << 17);
    /// Uses or sets LAST_INSERT_ID() / @@last_insert_id / @@identity.
    pub const LAST_INSERT_ID: Self = Self(1 << 18);
    /// BINLOG '...', `SET` of one-shot replication variables: keep this link to the end.
    pub const REPLICATION_REPLAY: Self = Self(1 << 19);
    /// PREPARE name FROM: a named statement lives on the link that ran it.
    pub const TEXT_PREPARE: Self = Self(1 << 20);
    /// SET ROLE.
    pub const ROLE: Self = Self(1 << 21);
    /// SELECT SQL_CALC_FOUND_ROWS, whose count the next statement may ask for.
    pub const FOUND_ROWS: Self = Self(1 << 22);
    /// XA START/BEGIN ... : a distributed transaction is in progress on this link.
    pub const XA: Self = Self(1 << 23);
    /// A DDL statement (implicit commit, other nodes may lag behind it).
    pub const DDL: Self = Self(1 << 24);

    /// A hint in a comment asks for the primary.
    pub const HINT_PRIMARY: Self = Self(1 << 25);
    /// A hint in a comment asks for a replica.
    pub const HINT_REPLICA: Self = Self(1 << 26);

    /// SET STATEMENT ... FOR: what its variables are told to be holds for this statement only.
    pub const SET_STATEMENT: Self = Self(1 << 27);

    /// Asks for the row counts or the warnings of the previous statement.
    pub const DIAGNOSTICS: Self = Self(1 << 28);

    /// Asks for or resets the session's status counters: those of one host from now on.
    pub const COUNTERS: Self = Self(1 << 29);

    /// Asks how tables and the like are defined, or for statistics of them.
    pub const METADATA: Self = Self(1 << 30);

    /// COMMIT or ROLLBACK AND CHAIN: the next transaction begins at once.
    pub const CHAIN: Self = Self(1 << 31);

    /// COMMIT or ROLLBACK RELEASE: the server closes the connection after its answer.
    pub const RELEASE: Self = Self(1 << 32);

    /// COMMIT or ROLLBACK NO RELEASE: it does not, whatever `completion_type` says.
    pub const NO_RELEASE: Self = Self(1 << 33);

    /// The set with nothing in it.
    pub const NONE: Self = Self(0);

    /// Whether any of `other` is in the set.
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Reason {
    /// Every reason, for metrics that pre-register their labels.
    pub const ALL: [Self; 20] = [
        Self::PlainRead,
        Self::ReadOnlyTransaction,
        Self::Write,
        Self::LockingRead,
        Self::Function,
        Self::SessionState,
        Self::HostLocal,
        Self::Undecided,
        Self::TooLarge,
        Self::Transaction,
        Self::Pinned,
        Self::PreviousStatement,
        Self::Hint,
        Self::NoReplica,
        Self::Lagging,
        Self::SettingsDiffer,
        Self::NotCaughtUp,
        Self::PrimaryShare,
        Self::RefusedBefore,
        Self::Command,
    ];

    /// The word shown to operators and in metric labels.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::PlainRead => "plain_read",
            Self::ReadOnlyTransaction => "read_only_transaction",
            Self::Write => "write",
            Self::LockingRead => "locking_read",
            Self::Function => "function",
            Self::SessionState => "session_state",
            Self::HostLocal => "host_local",
            Self::Undecided => "undecided",
            Self::TooLarge => "too_large",
            Self::Transaction => "transaction",
            Self::Pinned => "pinned",
            Self::PreviousStatement => "previous_statement",
            Self::Hint => "hint",
            Self::NoReplica => "no_replica",
            Self::Lagging => "lagging",
            Self::SettingsDiffer => "settings_differ",
            Self::NotCaughtUp => "not_caught_up",
            Self::PrimaryShare => "primary_share",
            Self::RefusedBefore => "refused_before",
            Self::Command => "command",
        }
    }
}
