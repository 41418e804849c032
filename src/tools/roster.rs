//! `pointsman group health` and `group lookup`: what each server of a group is, in the words of
//! Fabric.

use crate::admin::table::{Cell, Table};
use crate::failover::report::{Told, is_at, told_by};
use crate::tools::scene::Scene;
use crate::topology::{Condition, Node};

/// What a server is to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// It takes the writes.
    Primary,
    /// It replicates, and takes reads.
    Secondary,
    /// It replicates, and takes no reads: its weight is 0, or it is drained.
    Spare,
    /// It is down, or does not replicate.
    Faulty,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Primary => "PRIMARY",
            Self::Secondary => "SECONDARY",
            Self::Spare => "SPARE",
            Self::Faulty => "FAULTY",
        }
    }

    /// What it is used for.
    fn mode(self) -> &'static str {
        match self {
            Self::Primary => "READ_WRITE",
            Self::Secondary => "READ_ONLY",
            Self::Spare | Self::Faulty => "OFFLINE",
        }
    }
}

/// Which servers there are, what each is, and its share of reads.
#[must_use]
pub fn lookup(scene: &Scene) -> Table {
    let columns = ["server_uuid", "name", "address", "status", "mode", "weight"];
    let mut table = Table::new(&columns);
    for node in present(scene) {
        let status = status(scene, node);
        table.push([
            uuid(node),
            (&*node.name).into(),
            (&*node.address).into(),
            status.word().into(),
            status.mode().into(),
            node.weight.into(),
        ]);
    }
    table
}

/// Whether each server lives and replicates, and what keeps it from that.
#[must_use]
pub fn health(scene: &Scene) -> Table {
    let mut table = Table::new(&[
        "uuid",
        "name",
        "is_alive",
        "status",
        "is_not_running",
        "is_not_configured",
        "io_not_running",
        "sql_not_running",
        "error",
        "weight",
    ]);
    for node in present(scene) {
        let told = told_by(&scene.reports, node.id);
        let status = status(scene, node);
        let link = told.and_then(|told| told.sources.first());
        let replicates = status != Status::Primary && told.is_some();
        let flag = |is: bool| -> Cell { if is { "1".into() } else { "0".into() } };
        let error = link.map_or_else(|| node.trouble.clone(), |link| link.error.clone());
        table.push([
            uuid(node),
            (&*node.name).into(),
            flag(told.is_some()),
            status.word().into(),
            flag(replicates && link.is_some_and(|link| !link.receiving && !link.applying)),
            flag(replicates && link.is_none()),
            flag(replicates && link.is_some_and(|link| !link.receiving)),
            flag(replicates && link.is_some_and(|link| !link.applying)),
            error.into(),
            node.weight.into(),
        ]);
    }
    table
}

/// Whether every server is what it should be.
#[must_use]
pub fn is_whole(scene: &Scene) -> bool {
    let mut all = present(scene).map(|node| status(scene, node));
    scene.topology.primary.is_some() && all.all(|status| status != Status::Faulty)
}

fn present(scene: &Scene) -> impl Iterator<Item = &Node> {
    scene.topology.nodes.iter().filter(|node| node.condition != Condition::Excluded)
}

fn status(scene: &Scene, node: &Node) -> Status {
    let Some(told) = told_by(&scene.reports, node.id) else { return Status::Faulty };
    if scene.topology.primary == Some(node.id) {
        return Status::Primary;
    }
    let head = scene.topology.primary_node();
    let followed = |told: &Told| {
        let link = told.sources.first()?;
        let is_known = head.is_none_or(|head| is_at(link, head, told_by(&scene.reports, head.id)))
            || scene.topology.nodes.iter().any(|node| link.address() == *node.address);
        (is_known && link.receiving && link.applying).then_some(())
    };
    match (followed(told), node.weight) {
        (None, _) => Status::Faulty,
        (Some(()), 0) => Status::Spare,
        (Some(()), _) => Status::Secondary,
    }
}

fn uuid(node: &Node) -> Cell {
    let facts = node.facts.as_ref();
    facts.map(|facts| &*facts.server_uuid).filter(|uuid| !uuid.is_empty()).into()
}
