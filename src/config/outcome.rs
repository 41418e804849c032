//! Whether commits whose answer is lost are told their outcome, and what that needs on the servers.

/// What is known of a commit whose answer was lost with its server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Nothing: the client is told so (08007).
    #[default]
    Unknown,
    /// A row that is written with it tells.
    Known,
}

impl CommitOutcome {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Unknown, Self::Known];

    /// The table of those rows.
    pub const TABLE: &str = "pointsman.commit_witness";

    /// The statements that make it. Accounts that write need SELECT, INSERT and UPDATE on it.
    pub const MAKE_TABLE: [&str; 2] = [
        "CREATE DATABASE IF NOT EXISTS pointsman",
        "CREATE TABLE IF NOT EXISTS pointsman.commit_witness (link BINARY(16) PRIMARY KEY, \
         number BIGINT UNSIGNED NOT NULL, asked INT UNSIGNED NOT NULL DEFAULT 0, \
         written TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP) ENGINE=InnoDB",
    ];

    /// The word of the configuration file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Known => "known",
        }
    }
}
