//! Capability and status flags of both families.

macro_rules! flags {
    ($(#[$doc:meta])* $name:ident($int:ty) { $($(#[$fdoc:meta])* $flag:ident = $bit:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
        pub struct $name(pub $int);

        impl $name {
            $($(#[$fdoc])* pub const $flag: Self = Self(1 << $bit);)*

            const NAMES: &'static [(&'static str, Self)] =
                &[$((stringify!($flag), Self::$flag)),*];

            /// Whether all of `other` are set.
            #[must_use]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
            /// These and `other`.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
            /// These except `other`.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
            /// Those that both have.
            #[must_use]
            pub const fn and(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                self.with(other)
            }
        }

        impl std::ops::BitAnd for $name {
            type Output = Self;
            fn bitand(self, other: Self) -> Self {
                self.and(other)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({:#x}", stringify!($name), self.0)?;
                for (name, flag) in Self::NAMES {
                    if self.has(*flag) {
                        write!(f, " {name}")?;
                    }
                }
                f.write_str(")")
            }
        }
    };
}

flags! {
    /// What both sides of a connection can do (protocol page "Capabilities Flags"; the names
    /// are those of `CLIENT_*`).
    Capabilities(u32) {
        /// MySQL: always set. MariaDB calls it CLIENT_MYSQL: *unset* by a MariaDB server or
        /// client, which then has [`MariadbCapabilities`].
        LONG_PASSWORD = 0;
        /// Affected rows counts matched rows, not changed ones.
        FOUND_ROWS = 1;
        /// Longer column flags.
        LONG_FLAG = 2;
        /// The login names a schema.
        CONNECT_WITH_DB = 3;
        /// `db.table.column` is refused.
        NO_SCHEMA = 4;
        /// zlib compression.
        COMPRESS = 5;
        /// ODBC behaviour; no longer has an effect.
        ODBC = 6;
        /// LOAD DATA LOCAL.
        LOCAL_FILES = 7;
        /// Spaces before `(` are ignored.
        IGNORE_SPACE = 8;
        /// The protocol of 4.1, the only one that is spoken today.
        PROTOCOL_41 = 9;
        /// `interactive_timeout` instead of `wait_timeout`.
        INTERACTIVE = 10;
        /// TLS.
        SSL = 11;
        /// A client-side wish; without effect on the wire.
        IGNORE_SIGPIPE = 12;
        /// OK and EOF carry status flags.
        TRANSACTIONS = 13;
        /// Once the 4.1 protocol.
        RESERVED = 14;
        /// 4.1 password scrambles.
        SECURE_CONNECTION = 15;
        /// Several statements in one COM_QUERY.
        MULTI_STATEMENTS = 16;
        /// Several results to one COM_QUERY.
        MULTI_RESULTS = 17;
        /// Several results to one COM_STMT_EXECUTE.
        PS_MULTI_RESULTS = 18;
        /// Authentication plugins by name.
        PLUGIN_AUTH = 19;
        /// Connection attributes.
        CONNECT_ATTRS = 20;
        /// The login's authentication data has a length-encoded length.
        PLUGIN_AUTH_LENENC_CLIENT_DATA = 21;
        /// The client copes with a sandboxed session of an expired password.
        CAN_HANDLE_EXPIRED_PASSWORDS = 22;
        /// OK packets carry session state changes.
        SESSION_TRACK = 23;
        /// OK packets instead of EOF packets.
        DEPRECATE_EOF = 24;
        /// Result sets may come without column definitions (MySQL).
        OPTIONAL_RESULTSET_METADATA = 25;
        /// zstd compression.
        ZSTD_COMPRESSION = 26;
        /// Named parameters with COM_QUERY and COM_STMT_EXECUTE (MySQL).
        QUERY_ATTRIBUTES = 27;
        /// Several authentication factors (MySQL).
        MULTI_FACTOR_AUTHENTICATION = 28;
        /// Reserved for more flags (MySQL); progress reports in old MariaDB.
        CAPABILITY_EXTENSION = 29;
        /// A client-side wish; without effect on the wire.
        SSL_VERIFY_SERVER_CERT = 30;
        /// A client-side wish; without effect on the wire.
        REMEMBER_OPTIONS = 31;
    }
}

flags! {
    /// MariaDB's further 32 capability bits (bits 32 to 63 of its documentation).
    MariadbCapabilities(u32) {
        /// Progress reports.
        PROGRESS = 0;
        /// COM_MULTI, withdrawn.
        COM_MULTI = 1;
        /// COM_STMT_BULK_EXECUTE.
        STMT_BULK_OPERATIONS = 2;
        /// Type and format names in column definitions.
        EXTENDED_METADATA = 3;
        /// Column definitions of a prepared statement are left out when unchanged.
        CACHE_METADATA = 4;
        /// One result per row of a bulk execution.
        BULK_UNIT_RESULTS = 5;
    }
}

flags! {
    /// The server's status flags in OK and EOF packets (`SERVER_STATUS_*`).
    Status(u16) {
        /// A transaction is active.
        IN_TRANS = 0;
        /// Autocommit is on.
        AUTOCOMMIT = 1;
        /// Another result follows.
        MORE_RESULTS_EXISTS = 3;
        /// No good index was used.
        NO_GOOD_INDEX_USED = 4;
        /// No index was used.
        NO_INDEX_USED = 5;
        /// A cursor was opened; rows come by COM_STMT_FETCH.
        CURSOR_EXISTS = 6;
        /// The cursor is exhausted.
        LAST_ROW_SENT = 7;
        /// The current schema was dropped.
        DB_DROPPED = 8;
        /// Backslash is an ordinary character in strings.
        NO_BACKSLASH_ESCAPES = 9;
        /// A re-prepared statement has other columns now.
        METADATA_CHANGED = 10;
        /// Slower than `long_query_time`.
        QUERY_WAS_SLOW = 11;
        /// This result set holds OUT parameters.
        PS_OUT_PARAMS = 12;
        /// The active transaction is read-only.
        IN_TRANS_READONLY = 13;
        /// The OK packet carries session state changes.
        SESSION_STATE_CHANGED = 14;
        /// Double quotes delimit identifiers (MariaDB).
        ANSI_QUOTES = 15;
    }
}

impl Status {
    /// Whether a cursor was opened for the client. One that a procedure has open is flagged in
    /// the procedure's results as well, and behind those another one follows always.
    #[must_use]
    pub const fn opens_cursor(self) -> bool {
        self.has(Self::CURSOR_EXISTS) && !self.has(Self::MORE_RESULTS_EXISTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_their_bits() {
        assert_eq!(Capabilities::PROTOCOL_41.0, 512);
        assert_eq!(Capabilities::DEPRECATE_EOF.0, 0x0100_0000);
        assert_eq!(Capabilities::QUERY_ATTRIBUTES.0, 0x0800_0000);
        assert_eq!(MariadbCapabilities::CACHE_METADATA.0, 16);
        assert_eq!(Status::MORE_RESULTS_EXISTS.0, 8);
        assert_eq!(Status::SESSION_STATE_CHANGED.0, 0x4000);
    }

    #[test]
    fn sets_are_sets() {
        let both = Status::IN_TRANS | Status::AUTOCOMMIT;
        assert!(both.has(Status::IN_TRANS) && !both.has(Status::DB_DROPPED));
        assert!(!Status::IN_TRANS.has(both));
        assert_eq!(both.without(Status::IN_TRANS), Status::AUTOCOMMIT);
        assert_eq!(format!("{both:?}"), "Status(0x3 IN_TRANS AUTOCOMMIT)");
    }
}
