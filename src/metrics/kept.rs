//! What the keeper of a group tells of it, in numbers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::sheet::Sheet;
use crate::metrics::families as known;

/// The numbers of one group, as its keeper publishes them: all of them at once.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// The words for how it may be kept, and which one holds.
    pub modes: Vec<(&'static str, bool)>,
    /// The words for what a failover would lose, and which one held when it was looked at last.
    pub standings: Vec<(&'static str, bool)>,
    /// Rises with every primary.
    pub epoch: u64,
    /// An operator works on the group.
    pub maintenance: bool,
    /// Failovers by how they ended.
    pub failovers: Changes,
    /// Switchovers by how they ended.
    pub switchovers: Changes,
    /// When the last failover was over, seconds since 1970.
    pub failed_over_at: Option<u64>,
    /// How long nobody could write by the keeper's word, all times together.
    pub held: Duration,
    /// Among several pointsman: how this one stands.
    pub leading: Option<Leading>,
}

/// Whether a pointsman acts for a group, and for how much longer it may send statements to the
/// primary. Asked when a number is wanted: a keeper that waits for a server publishes nothing.
#[derive(Clone)]
pub struct Leading(pub Arc<dyn Fn() -> (bool, Duration) + Send + Sync>);

impl fmt::Debug for Leading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leading").field(&(self.0)()).finish()
    }
}

/// Changes of the primary by how they ended, since the process was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// There is another primary.
    pub done: u64,
    /// There is the one of before, or none.
    pub called_off: u64,
}

impl Kept {
    pub(super) fn add_to(&self, sheet: &mut Sheet, group: &str) {
        for (word, holds) in &self.modes {
            sheet.count(known::KEEPER_MODE, &[group, word], u64::from(*holds));
        }
        for (word, holds) in &self.standings {
            sheet.count(known::KEEPER_STANDING, &[group, word], u64::from(*holds));
        }
        sheet.count(known::KEEPER_EPOCH, &[group], self.epoch);
        sheet.count(known::KEEPER_MAINTENANCE, &[group], u64::from(self.maintenance));
        for (family, changes) in
            [(known::FAILOVERS, self.failovers), (known::SWITCHOVERS, self.switchovers)]
        {
            sheet.count(family, &[group, "done"], changes.done);
            sheet.count(family, &[group, "called_off"], changes.called_off);
        }
        if let Some(at) = self.failed_over_at {
            sheet.count(known::LAST_FAILOVER, &[group], at);
        }
        sheet.add(known::KEEPER_HELD, &[group], self.held.as_secs_f64());
        if let Some((leads, left)) = self.leading.as_ref().map(|leading| (leading.0)()) {
            sheet.count(known::CLUSTER_LEADER, &[group], u64::from(leads));
            sheet.add(known::CLUSTER_LEASE, &[group], left.as_secs_f64());
        }
    }
}
