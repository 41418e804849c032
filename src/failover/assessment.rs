//! All that is known of a group for a failover, found out at once.

use std::sync::Arc;

use crate::config::Monitor;
use crate::failover::candidate::{self, Ranked};
use crate::failover::keeper::Keeping;
use crate::failover::report::Report;
use crate::failover::standing::{self, Check, Mode};
use crate::failover::survey::{PATIENCE, survey};
use crate::tls::trust::Trust;
use crate::topology::Topology;

/// What a failover of a group would lose, and who would be promoted.
#[derive(Debug, Clone)]
pub struct Assessment {
    /// The group.
    pub group: Arc<str>,
    /// What may be promised.
    pub mode: Mode,
    /// Every precondition, those of the group first.
    pub checks: Vec<Check>,
    /// The replicas in the order in which they would be promoted.
    pub candidates: Vec<Ranked>,
    /// What its keeper says; `None` where no proxy runs.
    pub keeping: Option<Keeping>,
}

/// Asks all servers of a group, with the monitor's account, and judges what they say. It takes as
/// long as the slowest of them, at most a few seconds.
pub async fn assess(topology: &Topology, monitor: &Monitor, trust: &Arc<Trust>) -> Assessment {
    let reports = survey(topology, monitor, trust, &|_| Some(PATIENCE)).await;
    judge(topology, &reports)
}

/// Judges what all servers of a group have told.
#[must_use]
pub fn judge(topology: &Topology, reports: &[Report]) -> Assessment {
    let checks = standing::check(reports, topology.primary);
    Assessment {
        group: topology.group.clone(),
        mode: standing::mode(&checks),
        candidates: candidate::rank(reports, topology),
        checks,
        keeping: None,
    }
}
