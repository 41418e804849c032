//! Statements in flight by server, for balancing. Shared by all workers, read without a lock.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::topology::NodeId;

/// Servers whose load is counted; the topology holds no more.
pub const NODES: usize = 64;

/// Statements in flight by server.
///
/// Each worker counts its own on cache lines of its own: one count for all would travel between
/// the processors twice for each statement.
#[derive(Debug)]
pub struct Loads(Box<[Lane]>);

/// What one worker has in flight, by node index. Only that worker writes it.
#[derive(Debug)]
#[repr(align(128))]
struct Lane([AtomicU32; NODES]);

impl Loads {
    /// Counts for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let lane = || Lane([const { AtomicU32::new(0) }; NODES]);
        Self(std::iter::repeat_with(lane).take(workers.max(1)).collect())
    }

    /// The worker of this index has sent a statement to this server.
    pub fn began(&self, worker: usize, node: NodeId) {
        self.count(worker, node, |running| running.wrapping_add(1));
    }

    /// Its reply is over, or its link is.
    pub fn ended(&self, worker: usize, node: NodeId) {
        self.count(worker, node, |running| running.wrapping_sub(1));
    }

    /// Statements that run on this server now, of all workers.
    #[must_use]
    pub fn running_on(&self, node: NodeId) -> u32 {
        let of = |lane: &Lane| lane.of(node).map_or(0, |count| count.load(Ordering::Relaxed));
        self.0.iter().map(of).fold(0, u32::wrapping_add)
    }

    fn count(&self, worker: usize, node: NodeId, change: impl FnOnce(u32) -> u32) {
        if let Some(count) = self.0.get(worker).and_then(|lane| lane.of(node)) {
            // Nobody else writes here: no locked instruction is needed.
            count.store(change(count.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
    }
}

impl Lane {
    fn of(&self, node: NodeId) -> Option<&AtomicU32> {
        self.0.get(usize::from(node.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_of_a_server_is_that_of_all_workers() {
        let loads = Loads::new(2);
        loads.began(0, NodeId(3));
        loads.began(1, NodeId(3));
        loads.began(1, NodeId(1));
        assert_eq!([0, 1, 3].map(|node| loads.running_on(NodeId(node))), [0, 1, 2]);
        loads.ended(0, NodeId(3));
        loads.ended(1, NodeId(3));
        assert_eq!(loads.running_on(NodeId(3)), 0);
        assert_eq!(loads.running_on(NodeId(200)), 0);
    }
}
