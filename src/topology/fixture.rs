//! A server as it is published, for tests.

use std::sync::Arc;

use crate::topology::gtid::GtidSet;
use crate::topology::{Condition, Node, NodeId, Promotion, Role};

/// One that is up and of which nothing else is known: `<name>:3306`.
pub(crate) fn node(id: u16, name: &str) -> Node {
    Node {
        id: NodeId(id),
        name: Arc::from(name),
        address: Arc::from(format!("{name}:3306")),
        role: Role::Unknown,
        condition: Condition::Up,
        weight: 100,
        lag: None,
        promotion: Promotion::Usual,
        applying: true,
        alike: true,
        started: None,
        read_only: false,
        applied: GtidSet::default(),
        observed_at: None,
        probed: true,
        facts: None,
        leaving: false,
        trouble: String::new(),
    }
}
