//! `pointsman check`: what a failover of each group would lose, what is missing, and whether each
//! replica can replicate from its source.

use std::collections::BTreeMap;

use crate::admin::show;
use crate::admin::table::Table;
use crate::config::Config;
use crate::failover::assessment;
use crate::failover::report::{is_at, told_by};
use crate::failover::standing::Mode;
use crate::tools::inspect::inspect;
use crate::tools::plan::VerbError;
use crate::tools::preflight::{self, Finding, Inspection, Level, Pair, Side};
use crate::tools::scene::{Look, Scene, no_group};
use crate::topology::{Node, NodeId};

/// What was found about all groups.
#[derive(Debug)]
pub struct Findings {
    /// As SHOW CLUSTER shows it, and then every check of every replica, whose subject begins with
    /// `preflight`, the worst first.
    pub table: Table,
    /// The worst mode of all groups.
    pub mode: Mode,
    /// The worst check of all replicas.
    pub level: Level,
}

/// Looks at the groups of a configuration, or at the one of this name. No server is changed.
///
/// # Errors
/// When there is no such group, or what its servers are believed by cannot be read.
pub async fn run(config: &Config, only: Option<&str>) -> Result<Findings, VerbError> {
    let mut scenes = Vec::new();
    for group in &config.groups {
        if only.is_none_or(|name| &*group.name == name) {
            let look = Look { group: Some(&group.name), ..Look::default() };
            scenes.push(Scene::look(config, &look).await?);
        }
    }
    if let (Some(name), []) = (only, scenes.as_slice()) {
        return Err(no_group(name));
    }
    let assessed = scenes.iter().map(|at| assessment::judge(&at.topology, &at.reports));
    let assessments: Vec<_> = assessed.collect();
    let mode = assessments.iter().map(|group| group.mode).max().unwrap_or(Mode::Safe);
    let mut table = show::cluster(assessments);
    let mut level = Level::Pass;
    for scene in &scenes {
        let mut findings = replicas(scene).await;
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        for finding in findings {
            level = level.max(finding.level);
            let subject = format!("preflight {}", finding.id);
            let (group, server) = (&*scene.group.name, &*finding.server);
            let state = finding.level.to_string();
            table.push([
                group.into(),
                server.into(),
                subject.into(),
                state.into(),
                finding.found.into(),
            ]);
        }
    }
    Ok(Findings { table, mode, level })
}

/// All checks of all replicas whose source is of the group.
async fn replicas(scene: &Scene) -> Vec<Finding> {
    let mut pairs: Vec<(&Node, &Node, &str)> = Vec::new();
    for replica in &scene.topology.nodes {
        let link = told_by(&scene.reports, replica.id).and_then(|told| told.sources.first());
        let Some(link) = link else { continue };
        let is_source = |node: &&Node| is_at(link, node, told_by(&scene.reports, node.id));
        if let Some(source) = scene.topology.nodes.iter().find(is_source) {
            pairs.push((source, replica, &link.user));
        }
    }
    let mut known: BTreeMap<NodeId, Inspection> = BTreeMap::new();
    let mut findings = Vec::new();
    for (node, _, user) in
        pairs.iter().flat_map(|(from, to, user)| [(from, to, user), (to, to, user)])
    {
        if known.contains_key(&node.id) {
            continue;
        }
        match inspect(&node.address, &scene.account, &scene.trust, user).await {
            Ok(found) => drop(known.insert(node.id, found)),
            Err(why) => findings.push(Finding {
                id: "inspection",
                server: node.name.clone(),
                level: Level::Fail,
                found: format!("it was asked for its settings: {why}"),
            }),
        }
    }
    for (source, replica, _) in pairs {
        let sides = (side(scene, &known, source), side(scene, &known, replica));
        if let (Some(source), Some(replica)) = sides {
            let pair = Pair { source, replica, max_lag: scene.group.max_lag };
            findings.extend(preflight::after(&pair));
        }
    }
    // What was found of a source is found with each of its replicas.
    let mut seen: Vec<Finding> = Vec::new();
    for finding in findings {
        if !seen.contains(&finding) {
            seen.push(finding);
        }
    }
    seen
}

fn side<'a>(
    scene: &'a Scene,
    known: &'a BTreeMap<NodeId, Inspection>,
    node: &'a Node,
) -> Option<Side<'a>> {
    let (told, more) = (told_by(&scene.reports, node.id)?, known.get(&node.id)?);
    Some(Side { node, told, more })
}
