//! What changed between two topologies, one event a change, for logs and metrics.

use std::fmt;
use std::sync::Arc;

use crate::topology::{Condition, NodeId, Role, Topology};

/// One change, in an operator's words when displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A server became known.
    Added {
        /// Its index.
        node: NodeId,
        /// Its name.
        name: Arc<str>,
        /// Its address.
        address: Arc<str>,
    },
    /// Replication says something else about a server than before.
    RoleChanged {
        /// Its index.
        node: NodeId,
        /// Its name.
        name: Arc<str>,
        /// Before.
        from: Role,
        /// After.
        to: Role,
    },
    /// A server may be used in another way than before.
    ConditionChanged {
        /// Its index.
        node: NodeId,
        /// Its name.
        name: Arc<str>,
        /// Before.
        from: Condition,
        /// After.
        to: Condition,
        /// The last observation error, if any.
        trouble: String,
    },
    /// A server's share of reads changed.
    WeightChanged {
        /// Its index.
        node: NodeId,
        /// Its name.
        name: Arc<str>,
        /// Before.
        from: u32,
        /// After.
        to: u32,
    },
    /// A replica's applier started or stopped.
    ApplyingChanged {
        /// Its index.
        node: NodeId,
        /// Its name.
        name: Arc<str>,
        /// Whether it applies now.
        applying: bool,
    },
    /// A server came to have other settings than the primary, or the same again.
    AlikeChanged {
        /// Its index.
        node: NodeId,
        /// Its name.
        name: Arc<str>,
        /// Whether sessions find the primary's settings there.
        alike: bool,
    },
    /// A client has made the primary read-only, or that has ended.
    ClosedChanged {
        /// Its index.
        node: NodeId,
        /// Its name.
        name: Arc<str>,
        /// Whether it is read-only now.
        closed: bool,
    },
    /// Another server takes the writes, or none does.
    PrimaryChanged {
        /// The name of the one before, if there was one.
        from: Option<Arc<str>>,
        /// The name of the one now, if there is one.
        to: Option<Arc<str>>,
        /// Why there is none; empty when there is one.
        why: String,
    },
}

/// The changes from `before` to `after`, nodes in their order, the primary last. Positions and
/// lag are not changes: they move all the time.
#[must_use]
pub fn diff(before: &Topology, after: &Topology) -> Vec<Event> {
    let mut events = Vec::new();
    for node in &after.nodes {
        let (id, name) = (node.id, &node.name);
        let Some(old) = before.node(id) else {
            let (name, address) = (name.clone(), node.address.clone());
            events.push(Event::Added { node: id, name, address });
            continue;
        };
        if old.role != node.role {
            let (from, to) = (old.role, node.role);
            events.push(Event::RoleChanged { node: id, name: name.clone(), from, to });
        }
        if old.condition != node.condition {
            let (from, to, trouble) = (old.condition, node.condition, node.trouble.clone());
            let name = name.clone();
            events.push(Event::ConditionChanged { node: id, name, from, to, trouble });
        }
        if old.weight != node.weight {
            let (from, to) = (old.weight, node.weight);
            events.push(Event::WeightChanged { node: id, name: name.clone(), from, to });
        }
        // With a new role the word says it already.
        if old.applying != node.applying && old.role == node.role {
            let applying = node.applying;
            events.push(Event::ApplyingChanged { node: id, name: name.clone(), applying });
        }
        if old.alike != node.alike {
            let alike = node.alike;
            events.push(Event::AlikeChanged { node: id, name: name.clone(), alike });
        }
        let stays = before.primary == Some(id) && after.primary == Some(id);
        if old.read_only != node.read_only && stays {
            let closed = node.read_only;
            events.push(Event::ClosedChanged { node: id, name: name.clone(), closed });
        }
    }
    if before.primary != after.primary {
        let name = |topology: &Topology| topology.primary_node().map(|node| node.name.clone());
        let (from, to, why) = (name(before), name(after), after.no_primary_why.clone());
        events.push(Event::PrimaryChanged { from, to, why });
    }
    events
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { name, address, .. } if name == address => write!(f, "found {name}"),
            Self::Added { name, address, .. } => write!(f, "found {name} at {address}"),
            Self::RoleChanged { name, from, to, .. } => {
                write!(f, "{name} is {} now, was {}", to.word(), from.word())
            }
            Self::ConditionChanged { name, from, to, trouble, .. } => {
                write!(f, "{name} is {} now, was {}", to.word(), from.word())?;
                if trouble.is_empty() { Ok(()) } else { write!(f, ": {trouble}") }
            }
            Self::WeightChanged { name, from, to, .. } => {
                write!(f, "{name} has weight {to} now, had {from}")
            }
            Self::ApplyingChanged { name, applying: true, .. } => {
                write!(f, "{name} applies the primary's changes again")
            }
            Self::ApplyingChanged { name, applying: false, .. } => {
                write!(f, "{name} does not apply the primary's changes any more")
            }
            Self::AlikeChanged { name, alike: true, .. } => {
                write!(f, "{name} has the primary's settings again")
            }
            Self::AlikeChanged { name, alike: false, .. } => {
                write!(
                    f,
                    "{name} has other settings than the primary (sql_mode, time_zone, \
                     max_allowed_packet and the like) and takes no reads until they agree"
                )
            }
            Self::ClosedChanged { name, closed: true, .. } => {
                write!(f, "{name} was made read-only by a client, and stays the primary")
            }
            Self::ClosedChanged { name, closed: false, .. } => {
                write!(f, "{name} is not read-only any more")
            }
            Self::PrimaryChanged { from: None, to: Some(to), .. } => {
                write!(f, "the primary is {to}")
            }
            Self::PrimaryChanged { from: Some(from), to: Some(to), .. } => {
                write!(f, "the primary is {to}, was {from}")
            }
            Self::PrimaryChanged { from, to: None, why } => {
                let was = from.as_ref().map_or(String::new(), |from| format!(", was {from}"));
                write!(f, "there is no primary{was}: {why}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::gtid::GtidSet;
    use crate::topology::{Node, fixture};

    fn node(id: u16, role: Role, condition: Condition) -> Node {
        let address = Arc::from(format!("10.0.0.{id}:3306"));
        Node { role, condition, address, ..fixture::node(id, &format!("db{id}")) }
    }

    fn topology(nodes: Vec<Node>, primary: Option<u16>) -> Topology {
        let mut topology = Topology::empty("main");
        topology.nodes = nodes;
        topology.primary = primary.map(NodeId);
        topology.no_primary_why =
            if primary.is_some() { String::new() } else { "db0 is read_only".to_owned() };
        topology
    }

    #[test]
    fn each_change_is_one_readable_line() {
        let before = topology(
            vec![node(0, Role::Primary, Condition::Up), node(1, Role::Replica, Condition::Up)],
            Some(0),
        );
        let mut after = before.clone();
        after.nodes.push(node(2, Role::Unknown, Condition::Down));
        after.primary = None;
        after.no_primary_why = "db0 is read_only".to_owned();
        if let [first, second, ..] = after.nodes.as_mut_slice() {
            first.role = Role::Unknown;
            second.condition = Condition::Down;
            second.trouble = "connection refused".to_owned();
            second.weight = 0;
            second.applying = false;
        }
        let lines: Vec<String> = diff(&before, &after).iter().map(Event::to_string).collect();
        assert_eq!(
            lines,
            [
                "db0 is unknown now, was primary",
                "db1 is down now, was up: connection refused",
                "db1 has weight 0 now, had 100",
                "db1 does not apply the primary's changes any more",
                "found db2 at 10.0.0.2:3306",
                "there is no primary, was db0: db0 is read_only",
            ]
        );
    }

    #[test]
    fn positions_and_lag_are_not_changes() {
        let before = topology(vec![node(0, Role::Primary, Condition::Up)], Some(0));
        let mut after = before.clone();
        for node in &mut after.nodes {
            node.applied = GtidSet::parse_mariadb("0-1-7").expect("well-formed");
            node.lag = Some(std::time::Duration::from_secs(3));
        }
        assert_eq!(diff(&before, &after), []);
    }
}
