//! What is to be done in a group whose primary is well: bring settings to what a failover without
//! loss requires, and let servers that have come back follow the primary again.
//!
//! A server that has transactions of its own is left as it is but for being closed to writes: what
//! becomes of them is an operator's to say.

use std::collections::BTreeSet;

use crate::config::failover::ReplicationAccount;
use crate::failover::order::{Order, Place, What};
use crate::failover::report::{Report, Told};
use crate::failover::standing;
use crate::health::observation::Source;
use crate::topology::{Flavour, Node, NodeId, Topology};

/// What upkeep goes by.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The group as it is published.
    pub topology: &'a Topology,
    /// What all servers have just told.
    pub reports: &'a [Report],
    /// The server that takes the writes.
    pub primary: NodeId,
    /// The servers that are known to belong to the group: no other one is touched.
    pub members: &'a BTreeSet<String>,
    /// By which account a server that comes back follows; `None` where there is none.
    pub account: Option<&'a ReplicationAccount>,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// What servers are to do, in this order.
    pub orders: Vec<Order>,
    /// Servers that cannot follow, and why.
    pub left_out: Vec<(String, String)>,
}

/// Looks through a group.
#[must_use]
pub fn look(facts: &Facts<'_>) -> Upkeep {
    let mut found = Upkeep::default();
    let find = |id: NodeId| facts.topology.nodes.iter().find(|node| node.id == id);
    let answered = facts.reports.iter().find(|report| report.node == facts.primary);
    let (Some(node), Some(head)) = (find(facts.primary), answered.and_then(Report::told)) else {
        return found;
    };
    for report in facts.reports.iter().filter(|report| report.node != facts.primary) {
        let Some(told) = report.told() else { continue };
        if facts.members.contains(&*report.name) {
            replica(facts, (node, head), (report, told), &mut found);
        }
    }
    let acknowledges = |told: &Told| {
        standing::mends(told, false).is_empty()
            && told.sources.iter().any(|source| source.receiving && is_at(source, node, head))
    };
    let mends = standing::mends(head, true);
    // Waiting for replicas begins when there is one that can be waited for.
    let ready = facts.reports.iter().filter_map(Report::told).any(acknowledges);
    if ready && !mends.is_empty() {
        let settle = |mend: standing::Mend| What::Settle(mend.statement);
        let orders = mends.into_iter().map(|at| Order { node: node.id, what: settle(at) });
        found.orders.extend(orders);
    }
    found
}

/// One server beside the primary.
fn replica(
    facts: &Facts<'_>,
    (node, head): (&Node, &Told),
    (report, told): (&Report, &Told),
    found: &mut Upkeep,
) {
    let mut order = |what| found.orders.push(Order { node: report.node, what });
    let asks = ASKS.iter().any(|name| told.is_on(name));
    match told.sources.as_slice() {
        [] if !told.is_read_only() || asks => return order(What::Fence),
        [] => {}
        [source] if is_at(source, node, head) => {
            let mends = standing::mends(told, false);
            if mends.is_empty() {
                return;
            }
            let receiver = mends.iter().any(|mend| mend.name.ends_with("_enabled"));
            mends.into_iter().for_each(|mend| order(What::Settle(mend.statement)));
            if receiver && source.applying && !source.receiver_stopped {
                order(What::RestartReceiver);
            }
            return;
        }
        // It follows one that follows: a chain is somebody's wish.
        [source] if is_live_replica(facts, source) => return,
        [_] => {}
        [_, _, ..] => return,
    }
    let Some(place) = Place::of(&node.address) else { return };
    // Turned to another source it would forget what it has received and not applied (V6).
    let drained = told.applied.contains(&told.received);
    if !drained && !head.executed.contains(&told.received) {
        if !told.sources.iter().any(|source| source.applying) {
            let received = told.received.subtract(&head.executed);
            let why = format!("it has received what the primary has not: {received}");
            found.left_out.push((report.name.to_string(), why));
        }
        return;
    }
    match own(told, head) {
        Some(errant) => {
            let why = format!("it has transactions of its own: {errant}");
            found.left_out.push((report.name.to_string(), why));
        }
        None if !told.sources.is_empty() => order(What::Repoint(place)),
        None => match facts.account {
            Some(account) => order(What::Follow(place, account.clone())),
            None => {
                let why = "there is no account to replicate by: set failover.replication_user";
                found.left_out.push((report.name.to_string(), why.to_owned()));
            }
        },
    }
}

/// Whether commits wait for acknowledgements there.
const ASKS: [&str; 2] = ["rpl_semi_sync_source_enabled", "rpl_semi_sync_master_enabled"];

/// Whether a source is this server.
fn is_at(source: &Source, node: &Node, told: &Told) -> bool {
    source.address() == *node.address
        || source.server_id != 0 && source.server_id == told.server_id()
}

fn is_live_replica(facts: &Facts<'_>, source: &Source) -> bool {
    facts.reports.iter().any(|report| {
        let node = facts.topology.nodes.iter().find(|node| node.id == report.node);
        report.told().is_some_and(|told| {
            let it = node.is_some_and(|node| is_at(source, node, told));
            it && !told.sources.is_empty()
        })
    })
}

/// What a server has that the primary has not; `None` for nothing. By originating server: numbers
/// alone would take another server's transactions for its own (V10).
fn own(told: &Told, head: &Told) -> Option<String> {
    let left = match told.flavour {
        Flavour::MariaDb => told.history.beyond(&head.history, &[]).to_string(),
        Flavour::MySql => told.executed.subtract(&head.executed).to_string(),
    };
    (!left.is_empty()).then_some(left)
}
