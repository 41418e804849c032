//! Why a session may not move to another link; one set, shown to operators.

/// A cause that keeps a session on the link that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Pin {
    /// A temporary table may exist.
    TemporaryTable,
    /// LOCK TABLES, FLUSH TABLES WITH READ LOCK, a backup lock.
    TableLock,
    /// GET_LOCK or its kin may hold a user lock.
    UserLock,
    /// HANDLER ... OPEN.
    Handler,
    /// A cursor of a prepared statement is open.
    Cursor,
    /// A user variable got its value from a query.
    UserVariable,
    /// A SET that could not be read, or whose effect cannot be reproduced.
    UnknownSet,
    /// PREPARE name FROM: a named statement lives on the link.
    NamedStatement,
    /// One-shot or replication variables (timestamp, insert_id, gtid_next, sql_log_bin).
    ReplicationReplay,
    /// SET TRANSACTION: concerns the next transaction of this link.
    NextTransaction,
    /// The server reported a change of state that the text does not explain.
    OpaqueState,
    /// A distributed transaction (XA).
    Xa,
    /// The connection is a byte tunnel: a binary log dump, clone, replication commands.
    Tunnel,
    /// The login cannot be repeated: only the client can answer the account's plugin, or its
    /// password has expired.
    Login,
    /// It watches what only one host counts or keeps: its status counters, profiles, traces; it
    /// administers one; or new tables get an engine that replication does not tell of.
    HostBound,
}

/// A set of causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pins(u16);

impl Pin {
    /// All causes, in the order of their bits.
    pub const ALL: [Self; 15] = [
        Self::TemporaryTable,
        Self::TableLock,
        Self::UserLock,
        Self::Handler,
        Self::Cursor,
        Self::UserVariable,
        Self::UnknownSet,
        Self::NamedStatement,
        Self::ReplicationReplay,
        Self::NextTransaction,
        Self::OpaqueState,
        Self::Xa,
        Self::Tunnel,
        Self::Login,
        Self::HostBound,
    ];

    /// The word shown to operators and in metric labels.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::TemporaryTable => "temporary_table",
            Self::TableLock => "table_lock",
            Self::UserLock => "user_lock",
            Self::Handler => "handler",
            Self::Cursor => "cursor",
            Self::UserVariable => "user_variable",
            Self::UnknownSet => "unknown_set",
            Self::NamedStatement => "named_statement",
            Self::ReplicationReplay => "replication_replay",
            Self::NextTransaction => "next_transaction",
            Self::OpaqueState => "opaque_state",
            Self::Xa => "xa",
            Self::Tunnel => "tunnel",
            Self::Login => "login",
            Self::HostBound => "host_bound",
        }
    }

    const fn bit(self) -> u16 {
        1 << (self as u8)
    }
}

impl Pins {
    /// Adds a cause.
    pub fn add(&mut self, pin: Pin) {
        self.0 |= pin.bit();
    }

    /// Removes a cause.
    pub fn remove(&mut self, pin: Pin) {
        self.0 &= !pin.bit();
    }

    /// Whether the cause is in the set.
    #[must_use]
    pub fn has(self, pin: Pin) -> bool {
        self.0 & pin.bit() != 0
    }

    /// Whether there is no cause.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The causes in the set.
    pub fn iter(self) -> impl Iterator<Item = Pin> {
        Pin::ALL.into_iter().filter(move |pin| self.has(*pin))
    }

    /// The set with this one cause.
    #[must_use]
    pub fn only(pin: Pin) -> Self {
        Self(pin.bit())
    }

    /// The set as its bits, for a snapshot that another thread reads.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }

    /// The causes as words, comma-separated; empty for none.
    #[must_use]
    pub fn words(self) -> String {
        let words: Vec<_> = self.iter().map(Pin::word).collect();
        words.join(",")
    }
}
