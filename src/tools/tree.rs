//! `pointsman topology show`: who replicates from whom, as a tree. Pure, but for the looking.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::{Config, Group, Server};
use crate::failover::report::{Report, Told, is_at, told_by};
use crate::failover::standing;
use crate::health::observation::Source;
use crate::tools::plan::VerbError;
use crate::tools::scene::{Look, Scene, one_group};
use crate::topology::{Node, NodeId, Topology};

/// Servers and those that follow them.
#[derive(Debug)]
pub struct Tree {
    group: Arc<str>,
    /// Why there is no primary; empty where there is one.
    no_primary_why: String,
    roots: Vec<Branch>,
}

/// One server and those that follow it.
#[derive(Debug)]
struct Branch {
    name: Arc<str>,
    address: Arc<str>,
    role: &'static str,
    /// It and the one that it follows replicate from each other.
    is_circular: bool,
    condition: &'static str,
    /// What it told; the rest is not known without it.
    told: Option<Facts>,
    weight: u32,
    lag_seconds: Option<f64>,
    trouble: String,
    replicas: Vec<Self>,
}

/// What a server told, in words.
#[derive(Debug)]
struct Facts {
    version: String,
    read_only: bool,
    gtid: String,
    /// What the primary has and it has not; empty where it has all.
    gap: String,
    semi_sync: &'static str,
    /// Whether it receives, and whether it applies; `None` where it follows nobody.
    threads: Option<(bool, bool)>,
}

// === impls ===

/// Finds all servers of a group, listed or not, and who follows whom.
///
/// # Errors
/// When there is no such group.
pub async fn show(config: &Config, group: Option<&str>) -> Result<Tree, VerbError> {
    let listed = one_group(config, group)?.clone();
    let mut config = config.clone();
    for at in &mut config.groups {
        if at.name == listed.name && !at.servers.is_empty() {
            // What the list does not name is found as well.
            let seeds = at.servers.iter().map(|server| server.address.clone()).collect();
            *at = Arc::new(Group { seeds, servers: Vec::new(), ..Group::clone(at) });
        }
    }
    let look = Look { group: Some(&listed.name), ..Look::default() };
    let scene = Scene::look(&config, &look).await?;
    Ok(Tree::of(&scene.topology, &scene.reports, &listed.servers))
}

impl Tree {
    /// The tree of what was found; servers that are listed have the names and weights of the list.
    fn of(topology: &Topology, reports: &[Report], listed: &[Server]) -> Self {
        let growing = Growing { topology, reports, listed };
        let mut roots: Vec<&Node> =
            topology.nodes.iter().filter(|node| growing.source_of(node).is_none()).collect();
        roots.sort_by_key(|node| (Some(node.id) != topology.primary, node.id));
        let mut seen = Vec::new();
        let mut branches: Vec<Branch> =
            roots.into_iter().map(|node| growing.branch(node, &mut seen)).collect();
        // Those that replicate in a circle hang from nobody.
        while let Some(node) = topology.nodes.iter().find(|node| !seen.contains(&node.id)) {
            branches.push(growing.branch(node, &mut seen));
        }
        let no_primary_why = topology.no_primary_why.clone();
        Self { group: topology.group.clone(), no_primary_why, roots: branches }
    }

    /// The tree as people read it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("# Replication Topology Graph of {}\n", self.group);
        if !self.no_primary_why.is_empty() {
            text += &format!("# no primary: {}\n", self.no_primary_why);
        }
        for root in &self.roots {
            text += &format!("{}\n", root.line(""));
            root.draw(1, &mut text);
        }
        text
    }

    /// The same as an object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let roots: Vec<Value> = self.roots.iter().map(Branch::to_json).collect();
        let why = Some(&self.no_primary_why).filter(|why| !why.is_empty());
        json!({"group": &*self.group, "no_primary_why": why, "servers": roots})
    }
}

/// What branches are made of.
struct Growing<'a> {
    topology: &'a Topology,
    reports: &'a [Report],
    listed: &'a [Server],
}

impl Growing<'_> {
    /// The server that this one follows, if it is of the group.
    fn source_of(&self, node: &Node) -> Option<&Node> {
        let source = told_by(self.reports, node.id)?.sources.first()?;
        self.topology.nodes.iter().find(|at| self.is(source, at) && at.id != node.id)
    }

    fn is(&self, source: &Source, node: &Node) -> bool {
        is_at(source, node, told_by(self.reports, node.id))
    }

    fn branch(&self, node: &Node, seen: &mut Vec<NodeId>) -> Branch {
        seen.push(node.id);
        let followers: Vec<&Node> = self
            .topology
            .nodes
            .iter()
            .filter(|at| self.source_of(at).is_some_and(|source| source.id == node.id))
            .collect();
        let source = self.source_of(node);
        let is_circular =
            source.is_some_and(|source| followers.iter().any(|at| at.id == source.id));
        let role = match (Some(node.id) == self.topology.primary, source, followers.is_empty()) {
            (true, ..) => "PRIMARY",
            (false, Some(_), true) => "REPLICA",
            (false, Some(_), false) => "REPLICA + SOURCE",
            (false, None, false) => "SOURCE",
            (false, None, true) => "ALONE",
        };
        let mut replicas = Vec::new();
        for follower in followers {
            if !seen.contains(&follower.id) {
                replicas.push(self.branch(follower, seen));
            }
        }
        let listed = self.listed.iter().find(|server| server.address == node.address);
        Branch {
            name: listed.map_or_else(|| node.name.clone(), |server| server.name.clone()),
            address: node.address.clone(),
            role,
            is_circular,
            condition: node.condition.word(),
            told: told_by(self.reports, node.id).map(|told| self.facts(node, told)),
            weight: listed.map_or(node.weight, |server| server.weight),
            lag_seconds: node.lag.map(|lag| lag.as_secs_f64()),
            trouble: node.trouble.clone(),
            replicas,
        }
    }

    fn facts(&self, node: &Node, told: &Told) -> Facts {
        let head = self.topology.primary.and_then(|id| told_by(self.reports, id));
        let gap = head.map(|head| head.executed.subtract(&told.executed).to_string());
        let acknowledges = ["rpl_semi_sync_slave_enabled", "rpl_semi_sync_replica_enabled"];
        let source = told.sources.first();
        Facts {
            version: node.facts.as_ref().map_or_else(String::new, |at| at.version_text.to_string()),
            read_only: told.is_read_only(),
            gtid: told.executed.to_string(),
            gap: gap.unwrap_or_default(),
            semi_sync: match (standing::asking(told), source) {
                (Some(_), _) => "waits",
                (None, Some(_)) if acknowledges.iter().any(|name| told.is_on(name)) => {
                    "acknowledges"
                }
                (None, _) => "off",
            },
            threads: source.map(|source| (source.receiving, source.applying)),
        }
    }
}

impl Branch {
    /// Its replicas, each on a line of its own below it.
    fn draw(&self, depth: usize, text: &mut String) {
        let indent = " ".repeat(4 * depth - 1);
        for replica in &self.replicas {
            *text += &format!("{indent}|\n{indent}+--- {}\n", replica.line(replica.link()));
            replica.draw(depth + 1, text);
        }
    }

    fn link(&self) -> &'static str {
        if self.is_circular { " <-->" } else { " -" }
    }

    fn line(&self, link: &str) -> String {
        let mut line = match self.name == self.address {
            true => format!("{}{link} ({}) {}", self.address, self.role, self.condition),
            false => {
                format!("{} {}{link} ({}) {}", self.name, self.address, self.role, self.condition)
            }
        };
        if let Some(facts) = &self.told {
            let read_only = if facts.read_only { "read-only" } else { "writable" };
            line += &format!(", {}, {read_only}, weight {}", facts.version, self.weight);
            line += &format!(", semi-sync {}, gtid {:?}", facts.semi_sync, facts.gtid);
            if let Some((receives, applies)) = facts.threads {
                let yes = |is| if is { "Yes" } else { "No" };
                line += &format!(", [IO: {}, SQL: {}]", yes(receives), yes(applies));
            }
            if !facts.gap.is_empty() {
                line += &format!(", lacks {}", facts.gap);
            }
        }
        if let Some(lag) = self.lag_seconds.filter(|lag| *lag > 0.0) {
            line += &format!(", {lag:.3} s behind");
        }
        if !self.trouble.is_empty() {
            line += &format!(" ({})", self.trouble);
        }
        line
    }

    fn to_json(&self) -> Value {
        let replicas: Vec<Value> = self.replicas.iter().map(Self::to_json).collect();
        let facts = self.told.as_ref();
        json!({
            "name": &*self.name, "address": &*self.address, "role": self.role,
            "condition": self.condition, "weight": self.weight, "circular": self.is_circular,
            "lag_seconds": self.lag_seconds, "trouble": self.trouble,
            "version": facts.map(|facts| &facts.version),
            "read_only": facts.map(|facts| facts.read_only),
            "gtid": facts.map(|facts| &facts.gtid), "gap": facts.map(|facts| &facts.gap),
            "semi_sync": facts.map(|facts| facts.semi_sync),
            "receiving": facts.and_then(|facts| facts.threads).map(|(receives, _)| receives),
            "applying": facts.and_then(|facts| facts.threads).map(|(_, applies)| applies),
            "replicas": replicas,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::fixture;
    use crate::topology::Flavour;
    use crate::topology::fixture::node;

    /// Servers db1, db2 ..., each with the number of the one that it follows.
    fn tree(follows: &[Option<u16>], primary: Option<u16>) -> String {
        let numbers = || (0u16..).zip(follows);
        let source = |number: &u16| Source {
            host: format!("db{number}"),
            port: 3306,
            receiving: true,
            applying: true,
            ..Source::default()
        };
        let reports: Vec<Report> = numbers()
            .map(|(at, follows)| {
                let sources = follows.iter().map(source).collect();
                fixture::report(at, Told { sources, ..fixture::told(Flavour::MariaDb) })
            })
            .collect();
        let topology = Topology {
            nodes: numbers().map(|(at, _)| node(at, &format!("db{}", at + 1))).collect(),
            primary: primary.map(NodeId),
            ..Topology::empty("main")
        };
        let shorter = |line: &str| match line.find(')') {
            Some(end) => line[..=end].to_owned(),
            None => line.to_owned(),
        };
        let text = Tree::of(&topology, &reports, &[]).to_text();
        text.lines().skip(2).map(shorter).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn replicas_of_replicas_hang_below_them() {
        let drawn = tree(&[None, Some(1), Some(1), Some(3)], Some(0));
        let expected = "db1 db1:3306 (PRIMARY)\n   |\n   +--- db2 db2:3306 - (REPLICA)\n   |\n   \
             +--- db3 db3:3306 - (REPLICA + SOURCE)\n       |\n       \
             +--- db4 db4:3306 - (REPLICA)";
        assert_eq!(drawn, expected);
    }

    #[test]
    fn a_circle_ends_and_nobody_is_left_out() {
        let drawn = tree(&[Some(2), Some(1), None], None);
        let expected = "db3 db3:3306 (ALONE)\ndb1 db1:3306 (REPLICA + SOURCE)\n   |\n   \
             +--- db2 db2:3306 <--> (REPLICA + SOURCE)";
        assert_eq!(drawn, expected);
    }
}
