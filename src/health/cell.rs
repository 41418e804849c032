//! The one cell that holds the published topology, and who may store into it.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use tokio::sync::watch;

use crate::topology::Topology;

/// The published topology: cheap to load for every decision, with a generation to wait on.
#[derive(Debug)]
pub struct TopologyCell {
    current: Arc<ArcSwap<Topology>>,
    generation: watch::Sender<u64>,
}

/// One thread's way to the newest topology: what a single decision costs.
#[derive(Debug)]
pub struct TopologyReader(Cache<Arc<ArcSwap<Topology>>, Arc<Topology>>);

impl TopologyReader {
    /// The newest topology.
    pub fn newest(&mut self) -> &Arc<Topology> {
        self.0.load()
    }
}

/// The right to publish. It cannot be cloned, and [`cell`] makes one for a new cell only, so a
/// cell has one publisher: the health owner task (or a test).
#[derive(Debug)]
pub struct Publisher {
    cell: Arc<TopologyCell>,
}

/// A new cell with its first content, and its only publisher.
#[must_use]
pub fn cell(first: Topology) -> (Arc<TopologyCell>, Publisher) {
    let (generation, _) = watch::channel(first.generation);
    let cell =
        Arc::new(TopologyCell { current: Arc::new(ArcSwap::from_pointee(first)), generation });
    (cell.clone(), Publisher { cell })
}

impl TopologyCell {
    /// The newest topology. Load once per decision and keep it until the decision is carried out.
    #[must_use]
    pub fn load(&self) -> Arc<Topology> {
        self.current.load_full()
    }

    /// A reader for one thread, which asks for nothing but whether there is a newer one.
    #[must_use]
    pub fn reader(&self) -> TopologyReader {
        TopologyReader(Cache::new(self.current.clone()))
    }

    /// A receiver of the generation, for waiting until roles, conditions or membership change.
    /// It is told after the topology of that generation can be loaded, never before.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

impl Publisher {
    /// Stores a topology; waiters are woken if its generation is a new one.
    pub fn publish(&mut self, topology: Topology) {
        let generation = topology.generation;
        self.cell.current.store(Arc::new(topology));
        self.cell.generation.send_if_modified(|current| {
            let changed = *current != generation;
            *current = generation;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_hear_of_new_generations_only() {
        let (cell, mut publisher) = cell(Topology::empty("main"));
        let mut waiter = cell.subscribe();
        waiter.borrow_and_update();

        let mut same = Topology::empty("main");
        same.no_primary_why = "still probing".to_owned();
        publisher.publish(same);
        assert_eq!(cell.load().no_primary_why, "still probing");
        assert!(!waiter.has_changed().expect("the cell lives"));

        let mut next = Topology::empty("main");
        next.generation = 1;
        publisher.publish(next);
        assert!(waiter.has_changed().expect("the cell lives"));
        assert_eq!(*waiter.borrow_and_update(), cell.load().generation);
    }
}
