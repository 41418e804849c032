//! What the client is told when a promise cannot be kept: one place, one table
//! (failover.md 3.11 and the settled questions of the specification's index).

use crate::protocol::errno::SqlError;
use crate::session::pin::Pins;

/// What went wrong, as far as the client is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A write was sent and its answer was lost; it may or may not have been done.
    OutcomeUnknown {
        /// The server's name.
        server: String,
    },
    /// The connection broke after part of an answer had been passed on.
    AnswerCut {
        /// The server's name.
        server: String,
    },
    /// State that cannot be reproduced went down with its link.
    StateLost {
        /// The server's name.
        server: String,
        /// What was lost.
        pins: Pins,
    },
    /// The client asks about its previous statement, whose link is gone.
    DiagnosticsLost,
    /// An open transaction went down with its link: it is rolled back for certain.
    TransactionLost {
        /// The server's name.
        server: String,
    },
    /// A transaction that was done again on another server was answered otherwise there.
    TransactionDiffers {
        /// The other server's name.
        server: String,
    },
    /// Nobody took writes until the hold ran out.
    NoPrimary {
        /// The topology's generation.
        generation: u64,
        /// Its reason.
        why: String,
    },
    /// No link to the server came free in time; nothing was executed.
    NoLink {
        /// The server's name.
        server: String,
        /// How many links to it there may be.
        limit: u32,
    },
    /// A link could not be brought into the session's state: a fault of ours.
    Unready {
        /// The server's number.
        server: String,
    },
    /// A server sent bytes that make no sense.
    ServerMalformed {
        /// The server's name.
        server: String,
    },
}

impl Failure {
    /// Whether the client's connection must be closed after the error.
    #[must_use]
    pub fn closes(&self) -> bool {
        match self {
            Self::TransactionLost { .. }
            | Self::TransactionDiffers { .. }
            | Self::NoPrimary { .. }
            | Self::NoLink { .. }
            | Self::DiagnosticsLost => false,
            Self::OutcomeUnknown { .. }
            | Self::AnswerCut { .. }
            | Self::StateLost { .. }
            | Self::Unready { .. }
            | Self::ServerMalformed { .. } => true,
        }
    }

    /// The error as the client sees it.
    #[must_use]
    pub fn to_error(&self) -> SqlError {
        let (code, state) = match self {
            Self::OutcomeUnknown { .. } => (1105, b"08007"),
            Self::TransactionLost { .. } | Self::TransactionDiffers { .. } => (1213, b"40001"),
            Self::NoPrimary { .. } => (1290, b"HY000"),
            Self::NoLink { .. } => (1040, b"08004"),
            Self::AnswerCut { .. }
            | Self::StateLost { .. }
            | Self::DiagnosticsLost
            | Self::Unready { .. }
            | Self::ServerMalformed { .. } => (1105, b"08S01"),
        };
        SqlError::new(code, state, format!("pointsman: {}", self.text()))
    }

    fn text(&self) -> String {
        match self {
            Self::OutcomeUnknown { server } => format!(
                "server '{server}' vanished before it answered; whether the statement took \
                 effect is unknown. Check before repeating it"
            ),
            Self::AnswerCut { server } => format!(
                "server '{server}' vanished in the middle of its answer. Reconnect and repeat \
                 the query"
            ),
            Self::StateLost { server, pins } => format!(
                "session state lost with server '{server}': {}. Reconnect and set it up again",
                pins.words()
            ),
            Self::DiagnosticsLost => "the previous statement's warnings and row counts were lost \
                                      with its server; the session goes on"
                .to_owned(),
            Self::TransactionLost { server } => format!(
                "the transaction was rolled back because server '{server}' vanished or lost its \
                 role; try restarting transaction"
            ),
            Self::TransactionDiffers { server } => format!(
                "the transaction was rolled back because its server vanished, and server \
                 '{server}' answers some of it otherwise; try restarting transaction"
            ),
            Self::NoPrimary { generation, why } => {
                format!("no writable primary (generation {generation}: {why})")
            }
            Self::NoLink { server, limit } => format!(
                "too many connections: none of {limit} to server '{server}' came free within \
                 queue_timeout; nothing was executed"
            ),
            Self::Unready { server } => format!(
                "no connection to server #{server} could be brought into this session's state; \
                 nothing was executed. Reconnect, and report it as a bug"
            ),
            Self::ServerMalformed { server } => {
                format!("server '{server}' sent a malformed answer; both connections are closed")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1205, 1213, 2006 and 2013 are repeated by drivers and frameworks on their own account.
    #[test]
    fn an_unknown_outcome_is_never_a_code_that_drivers_repeat() {
        let failure = Failure::OutcomeUnknown { server: "db1".to_owned() };
        let error = failure.to_error();
        assert_eq!((error.code, &error.state), (1105, b"08007"));
        assert!(failure.closes());
    }
}
