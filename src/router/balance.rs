//! Which of several equally good replicas takes the next read.

use crate::topology::{Node, NodeId};

/// Tells how many statements are in flight on a server.
pub type Loads<'a> = &'a dyn Fn(NodeId) -> u32;

/// The replica with the fewest statements in flight for its weight; `seed` decides between
/// equals. `loads` tells the statements in flight on a server.
/// Nodes of weight 0 are never picked.
pub fn pick<'a, I>(candidates: I, loads: Loads<'_>, seed: u32) -> Option<NodeId>
where
    I: Iterator<Item = &'a Node> + Clone,
{
    let best = candidates.clone().filter_map(|node| Load::of(node, loads)).reduce(Load::lighter)?;
    let mut equals = candidates
        .filter(|node| Load::of(node, loads).is_some_and(|load| !best.is_lighter_than(load)));
    let count = equals.clone().count();
    let nth = usize::try_from(seed).unwrap_or(0).checked_rem(count)?;
    equals.nth(nth).map(|node| node.id)
}

/// Work per weight, compared without division.
#[derive(Clone, Copy)]
struct Load {
    in_flight: u64,
    weight: u64,
}

impl Load {
    fn of(node: &Node, loads: Loads<'_>) -> Option<Self> {
        if node.weight == 0 {
            return None;
        }
        let running = loads(node.id);
        Some(Self { in_flight: u64::from(running) + 1, weight: u64::from(node.weight) })
    }

    fn is_lighter_than(self, other: Self) -> bool {
        self.in_flight * other.weight < other.in_flight * self.weight
    }

    fn lighter(self, other: Self) -> Self {
        if other.is_lighter_than(self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::policy::tests::node;

    #[test]
    fn the_least_loaded_for_its_weight_wins() {
        let nodes = [node(1, 100), node(2, 300), node(3, 0)];
        let busy = |count| move |node: NodeId| if node == NodeId(2) { count } else { 0 };
        assert_eq!(pick(nodes.iter(), &busy(1), 7), Some(NodeId(2)));
        assert_eq!(pick(nodes.iter(), &busy(9), 7), Some(NodeId(1)));
        assert_eq!(pick([node(3, 0)].iter(), &|_| 0, 7), None);
        assert_eq!(pick(std::iter::empty(), &|_| 0, 7), None);
    }

    #[test]
    fn the_seed_spreads_reads_over_equals() {
        let nodes = [node(1, 5), node(2, 5)];
        let picked: Vec<_> = (0..4).map(|seed| pick(nodes.iter(), &|_| 0, seed)).collect();
        assert_eq!(picked[0], picked[2]);
        assert_ne!(picked[0], picked[1]);
    }
}
