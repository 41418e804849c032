//! What becomes of statements for the primary while this pointsman has no lease: others may have
//! given the writes to another server, and nothing is sent until it is known.
//!
//! Two looks at the lease. Before a session decides, so that it waits as it does without a primary,
//! leaves its link to the former one in good order, and takes its reads to replicas. And right
//! before bytes are written, since the process may have been stopped in between.

use std::io;
use std::sync::Arc;

use crate::net::drive::Drive;
use crate::net::group::GroupHandle;
use crate::net::seat::Ring;
use crate::net::worker::Worker;
use crate::router::policy::Held;
use crate::session::action::{Event, Outbox, index};
use crate::topology::{Condition, Role, Topology};

/// A topology without a primary in place of another.
#[derive(Debug, Default)]
pub(super) struct Barred {
    made: Option<(Arc<Topology>, Arc<Topology>)>,
}

impl Barred {
    /// What sessions see in place of `topology`: no primary, and none of the servers that may have
    /// been one is reached.
    pub(super) fn in_place_of(
        &mut self,
        topology: &Arc<Topology>,
        group: &GroupHandle,
    ) -> &Arc<Topology> {
        let why = group.lost();
        self.of(topology, why)
    }

    fn of(&mut self, topology: &Arc<Topology>, why: &str) -> &Arc<Topology> {
        let is_known = |(of, _): &(Arc<Topology>, _)| Arc::ptr_eq(of, topology);
        let made = self.made.take().filter(is_known);
        let made =
            made.unwrap_or_else(|| (topology.clone(), Arc::new(without_primary(topology, why))));
        &self.made.insert(made).1
    }
}

fn without_primary(topology: &Topology, why: &str) -> Topology {
    let mut barred = topology.clone();
    barred.former = topology.last_primary().cloned().map(Arc::new);
    barred.primary = None;
    barred.no_primary_why = why.to_owned();
    for node in barred.nodes.iter_mut().filter(|node| node.role != Role::Replica) {
        node.condition = Condition::Down;
    }
    barred
}

impl GroupHandle {
    /// Whether nothing may be sent to the primary now, by the clock as it is now.
    pub(super) fn is_barred(&self) -> bool {
        let is_over = self.lease.as_ref().is_some_and(|lease| !lease.holds());
        is_over && self.settings.load().failover.mode.keeps()
    }

    /// Why nothing may be.
    fn lost(&self) -> &'static str {
        self.lease.as_ref().map_or("", |lease| lease.words().lost)
    }
}

/// The error of a write to a primary to which nothing may be sent any more.
pub(super) fn error_if_barred(group: &GroupHandle) -> Option<io::Error> {
    group.is_barred().then(|| io::Error::other(NoLease(group.lost())))
}

/// Whether it is that error.
pub(super) fn is_barring(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|source| source.is::<NoLease>())
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoLease(&'static str);

impl Drive {
    /// Whether the session sees no primary while it takes this. What is on its way to one may still
    /// be answered: that needs no lease, and is not given up for it.
    pub(super) fn is_barred_for(&self, event: &Event) -> bool {
        let session = self.seat.session.borrow();
        let holds = session.as_ref().is_some_and(|session| session.deadline().is_some());
        (holds || !matches!(event, Event::TopologyMoved)) && self.seat.group().is_barred()
    }

    /// Whether bytes for the primary must not be written.
    pub(super) fn must_withhold(&self, out: &Outbox) -> bool {
        !out.links[index(Held::Primary)].is_empty() && self.seat.group().is_barred()
    }

    /// Nothing of this goes to the primary, and the link with it: the session goes on as if it had
    /// broken.
    pub(super) fn withhold(&mut self, out: &mut Outbox) {
        out.links[index(Held::Primary)].clear();
        self.links[index(Held::Primary)] = None;
        self.event(Event::LinkClosed(Held::Primary), out);
    }
}

impl Worker {
    /// Wakes the sessions that wait for a primary once the lease is back.
    pub(super) fn look_after_leases(&self) {
        for served in &self.groups {
            let is_barred = served.group.is_barred();
            if served.was_barred.replace(is_barred) && !is_barred {
                self.ring_waiting(&served.group, Ring::TOPOLOGY);
            }
        }
    }

    /// Rings for every session of a group that waits for a topology.
    pub(super) fn ring_waiting(&self, group: &Arc<GroupHandle>, why: Ring) {
        for seat in self.seats.borrow().values() {
            let waits =
                seat.session.borrow().as_ref().is_some_and(|session| session.interest().topology);
            if Arc::ptr_eq(seat.group(), group) && waits {
                seat.bell.ring(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Node, NodeId, fixture};

    fn group() -> Topology {
        let replica = Node { role: Role::Replica, ..fixture::node(1, "db2") };
        let primary = Node { role: Role::Primary, ..fixture::node(0, "db1") };
        let nodes = vec![primary, replica, fixture::node(2, "db3")];
        Topology { primary: Some(NodeId(0)), nodes, ..Topology::empty("main") }
    }

    #[test]
    fn without_a_lease_sessions_see_no_primary_and_all_replicas() {
        let topology = Arc::new(group());
        let mut barred = Barred::default();
        let seen = barred.of(&topology, "no lease").clone();
        assert_eq!((seen.primary, &*seen.no_primary_why), (None, "no lease"));
        assert_eq!(seen.last_primary().map(|node| node.id), topology.primary);
        for (node, was) in seen.nodes.iter().zip(&topology.nodes) {
            let is_same = node.condition == was.condition;
            assert_eq!(is_same, was.role == Role::Replica, "{}", node.name);
        }
        assert!(Arc::ptr_eq(barred.of(&topology, "no lease"), &seen), "made once");
        let next = Arc::new(group());
        assert!(!Arc::ptr_eq(barred.of(&next, "no lease"), &seen));
    }
}
