//! What clients were told of by the primary, whatever servers say: this pointsman's own, and
//! those of the others.

use std::time::Duration;

use super::Keeper;
use crate::failover::keeper::company::Company;
use crate::failover::record::{Kind, Operation};
use crate::failover::surgeon::Surgeon;
use crate::topology::gtid::GtidSet;
use crate::topology::{Node, Topology};

/// For how long after its start a primary is not opened before other pointsman have told what their
/// clients were told of.
pub(super) const HEAR_MAX: Duration = Duration::from_secs(3);

/// Why a primary that clients were told of more by is not opened again.
pub(super) fn has_lost(lost: &GtidSet) -> String {
    format!(
        "it has lost {lost}, of which clients were told, and nobody else has it \
         (failover.max_loss = \"some\" accepts that)"
    )
}

impl<S: Surgeon> Keeper<S> {
    /// The newest writes that clients of this pointsman were told of by a server, as GTIDs.
    pub(super) fn acknowledged(&self, server: Option<&Node>) -> String {
        let newest = server.map(|server| self.ties.acknowledged.newest(server.id));
        newest.map(|newest| newest.to_string()).unwrap_or_default()
    }

    /// Those that clients of any pointsman were told of; and whether all have said that.
    pub(super) fn acknowledged_to_all(&self, server: Option<&Node>) -> (String, bool) {
        let others = self.company.as_ref().map(Company::acknowledged);
        let (mut newest, is_all) = others.unwrap_or_else(|| (Vec::new(), true));
        newest.push(self.acknowledged(server));
        newest.retain(|newest| !newest.is_empty());
        (newest.join(","), is_all)
    }

    /// What the one that acts has to hear of this pointsman's clients: of a primary that is
    /// replaced, or may have been started anew.
    pub(super) fn acknowledged_by_doubtful(&self, topology: &Topology) -> Option<String> {
        let server = match &self.record.operation {
            Some(Operation { kind: Kind::Failover, former, .. }) => Some(former),
            None if self.vouched.is_none() => self.record.primary.as_ref(),
            Some(_) | None => return None,
        };
        Some(self.acknowledged(server.and_then(|server| topology.named(server))))
    }
}
