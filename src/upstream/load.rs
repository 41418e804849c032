//! Statements in flight by server, for balancing. Shared by all workers, read without a lock.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::topology::NodeId;

/// Servers whose load is counted; the topology holds no more.
pub const NODES: usize = 64;

/// Statements in flight by node index.
#[derive(Debug)]
pub struct Loads([AtomicU32; NODES]);

impl Default for Loads {
    fn default() -> Self {
        Self([const { AtomicU32::new(0) }; NODES])
    }
}

impl Loads {
    /// A statement was sent to this server.
    pub fn began(&self, node: NodeId) {
        if let Some(load) = self.0.get(usize::from(node.0)) {
            load.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Its reply is over, or its link is.
    pub fn ended(&self, node: NodeId) {
        if let Some(load) = self.0.get(usize::from(node.0)) {
            load.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The loads of the first `nodes` servers, as plain numbers.
    #[must_use]
    pub fn snapshot(&self, nodes: usize) -> [u32; NODES] {
        let mut loads = [0; NODES];
        for (plain, load) in loads.iter_mut().zip(&self.0).take(nodes) {
            *plain = load.load(Ordering::Relaxed);
        }
        loads
    }
}
