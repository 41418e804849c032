//! All that is known of a group for a failover, found out at once.

use std::sync::Arc;

use crate::cluster::tally::majority;
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

/// What is required of a group whose pointsman agree by its servers.
const ELECTORS: &str = "cluster.locks: a majority of all servers is left when one is lost";

impl Assessment {
    /// Adds what is required where so many servers are what several pointsman agree by.
    #[must_use]
    pub fn agreed_by(mut self, servers: usize) -> Self {
        let needed = majority(servers);
        let met = servers > needed;
        let found = match met {
            true => format!("{servers} servers, of which {needed} decide"),
            false => format!(
                "{servers} servers, of which {needed} decide: no failover is possible; put a third \
                 one beside them, or use cluster.etcd"
            ),
        };
        let leaves = if met { Mode::Safe } else { Mode::Degraded };
        let check = Check { server: Arc::from(""), required: ELECTORS, met, leaves, found };
        self.checks.push(check);
        self.mode = standing::mode(&self.checks);
        self
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_are_too_few_to_agree_by() {
        let assessed = |servers| {
            let group = Arc::from("main");
            let (checks, candidates) = (Vec::new(), Vec::new());
            let mode = Mode::Safe;
            Assessment { group, mode, checks, candidates, keeping: None }.agreed_by(servers)
        };
        let two = assessed(2);
        assert_eq!(two.mode, Mode::Degraded);
        assert!(two.checks.iter().any(|check| !check.met && check.found.contains("third")));
        assert_eq!(assessed(3).mode, Mode::Safe);
    }
}
