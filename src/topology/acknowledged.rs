//! The newest writes that clients of a group have been told of, so that no server is promoted that
//! lacks them.
//!
//! A cross-check of everything else that speaks for an heir: it goes by what servers have answered
//! to clients, whatever they say of how they replicate.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::topology::NodeId;
use crate::topology::gtid::GtidSet;

/// What clients have been told of by the server that takes the writes. All threads may see it.
#[derive(Debug, Default)]
pub struct Acknowledged(Mutex<Option<(NodeId, GtidSet)>>);

/// Most domains, or servers and tags, of which the newest write is kept. There are more only where
/// clients make up GTIDs.
const SOURCES_MAX: usize = 64;

impl Acknowledged {
    /// A client is about to be told of a write. What the server before this one has acknowledged is
    /// over then: who took its place was compared with it.
    pub fn note(&self, node: NodeId, written: GtidSet) {
        match &mut *self.lock() {
            Some((at, newest)) if *at == node && newest.domains_or_sources() <= SOURCES_MAX => {
                newest.advance(&written);
            }
            other => *other = Some((node, written)),
        }
    }

    /// The newest of each domain, or server and tag, that a server has acknowledged since it took
    /// the writes; empty where this process knows of none.
    #[must_use]
    pub fn newest(&self, node: NodeId) -> GtidSet {
        let newest = self.lock();
        newest
            .as_ref()
            .filter(|(at, _)| *at == node)
            .map(|(_, set)| set.clone())
            .unwrap_or_default()
    }

    /// The writes go on from what another server has, or from less than they had come to.
    pub fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<(NodeId, GtidSet)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Flavour;

    fn set(text: &str) -> GtidSet {
        let flavour = if text.contains(':') { Flavour::MySql } else { Flavour::MariaDb };
        GtidSet::parse(flavour, text).expect("GTIDs")
    }

    #[test]
    fn the_newest_of_each_domain_is_kept() {
        let acknowledged = Acknowledged::default();
        for text in ["0-1-7", "3-1-2", "0-1-9", "0-1-8"] {
            acknowledged.note(NodeId(0), set(text));
        }
        assert_eq!(acknowledged.newest(NodeId(0)).to_string(), "0-1-9,3-1-2");
        assert!(acknowledged.newest(NodeId(1)).is_empty());
    }

    /// Those before it may be of others, and may not have been acknowledged.
    #[test]
    fn of_mysql_the_newest_of_each_server_and_tag_is_kept_alone() {
        let (one, two) =
            ("11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222");
        let acknowledged = Acknowledged::default();
        for text in ["5-7", "4", "12", "11"].map(|numbers| format!("{one}:{numbers}")) {
            acknowledged.note(NodeId(0), set(&text));
        }
        acknowledged.note(NodeId(0), set(&format!("{two}:3:tag:8")));
        let newest = acknowledged.newest(NodeId(0)).to_string();
        assert_eq!(newest, format!("{one}:12,{two}:3:tag:8"));
    }

    #[test]
    fn who_took_the_writes_before_counts_no_more() {
        let acknowledged = Acknowledged::default();
        acknowledged.note(NodeId(0), set("0-1-9"));
        acknowledged.note(NodeId(1), set("0-2-5"));
        assert!(acknowledged.newest(NodeId(0)).is_empty());
        assert_eq!(acknowledged.newest(NodeId(1)), set("0-2-5"));
        acknowledged.forget();
        assert!(acknowledged.newest(NodeId(1)).is_empty());
    }
}
