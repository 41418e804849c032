//! A server as it is published, for tests.

use std::sync::Arc;

use crate::topology::gtid::GtidSet;
use crate::topology::{Condition, Node, NodeId, Role};

/// One that is up and of which nothing else is known.
pub(super) fn node(name: &str) -> Node {
    Node {
        id: NodeId(0),
        name: Arc::from(name),
        address: Arc::from(name),
        role: Role::Unknown,
        condition: Condition::Up,
        weight: 100,
        lag: None,
        applying: false,
        alike: true,
        read_only: false,
        applied: GtidSet::default(),
        observed_at: None,
        probed: true,
        facts: None,
        trouble: String::new(),
    }
}
