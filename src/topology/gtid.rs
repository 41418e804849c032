//! GTID sets of both families and their algebra.

/// How far a server, or a session, has come. Both families in one type, so that routing
/// need not know which one it serves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GtidSet {}

impl GtidSet {
    /// Whether every transaction named by `other` is contained in `self`.
    #[must_use]
    pub fn contains(&self, _other: &Self) -> bool {
        true
    }
    /// Whether it names no transaction.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        true
    }
    /// Adds all transactions of `other`.
    pub fn union(&mut self, _other: &Self) {}
    /// Parses a MariaDB position (`0-1-7,2-1-1`); per domain the highest sequence is kept.
    pub fn parse_mariadb(_text: &str) -> Option<Self> {
        None
    }
    /// Parses a MySQL set (`uuid:1-5:7,uuid:tag:3`), tags included.
    pub fn parse_mysql(_text: &str) -> Option<Self> {
        None
    }
}

impl std::fmt::Display for GtidSet {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
