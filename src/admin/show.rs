//! What the console shows: from values of the owners to tables. Nothing here waits.

use std::time::Duration;

use crate::admin::commands::{Access, TABLE};
use crate::admin::parse;
use crate::admin::table::{Cell, Table};
use crate::config::Config;
use crate::control::{Control, DigestRow, LinkRow, SessionRow};
use crate::failover::assessment::Assessment;
use crate::failover::keeper::{Keeping, Standing};
use crate::metrics::Metrics;
use crate::topology::{Node, Topology};

/// SHOW SERVERS.
#[must_use]
pub fn servers(control: &Control, metrics: &Metrics) -> Table {
    let mut table = Table::new(&[
        "group",
        "server",
        "address",
        "role",
        "condition",
        "weight",
        "lag_seconds",
        "applying",
        "read_only",
        "version",
        "transport",
        "links",
        "reads",
        "writes",
        "other",
        "errors",
        "trouble",
        "applied",
    ]);
    for topology in control.topologies() {
        for node in &topology.nodes {
            let traffic = metrics.traffic(&topology.group, node.id);
            table.push([
                (&*topology.group).into(),
                (&*node.name).into(),
                (&*node.address).into(),
                node.role.word().into(),
                node.condition.word().into(),
                node.weight.into(),
                node.lag.map(seconds).into(),
                yes(node.applying),
                yes(node.read_only),
                node.facts.as_ref().map(|facts| facts.version_text.to_string()).into(),
                node.facts.as_ref().map(|facts| facts.transport.word()).into(),
                traffic.links.into(),
                traffic.reads.into(),
                traffic.writes.into(),
                traffic.other.into(),
                traffic.errors.into(),
                node.trouble.as_str().into(),
                node.applied.to_string().into(),
            ]);
        }
    }
    table
}

/// SHOW SESSIONS.
#[must_use]
pub fn sessions(rows: Vec<SessionRow>) -> Table {
    let mut table = Table::new(&[
        "id",
        "user",
        "client",
        "group",
        "database",
        "state",
        "server",
        "pins",
        "seconds",
        "statements",
    ]);
    for row in rows {
        table.push([
            row.id.into(),
            row.user.into(),
            row.client.into(),
            (&*row.group).into(),
            row.database.into(),
            row.state.into(),
            row.node.as_deref().into(),
            row.pins.join(" ").into(),
            row.since.as_secs().into(),
            row.statements.into(),
        ]);
    }
    table
}

/// SHOW POOLS.
#[must_use]
pub fn pools(rows: Vec<LinkRow>) -> Table {
    let mut table = Table::new(&["group", "server", "user", "idle", "in_use"]);
    for row in rows {
        table.push([
            (&*row.group).into(),
            (&*row.server).into(),
            row.user.into(),
            row.idle.into(),
            row.used.into(),
        ]);
    }
    table
}

/// SHOW STATS.
#[must_use]
pub fn stats(control: &Control, metrics: &Metrics) -> Table {
    let mut table = Table::new(&["statistic", "of", "value"]);
    for sample in metrics.samples(&control.topologies()) {
        if sample.value != 0.0 {
            let of: Vec<String> = sample.labels.into_iter().map(|(_, value)| value).collect();
            table.push([sample.name.into(), of.join(" ").into(), sample.value.to_string().into()]);
        }
    }
    table
}

/// SHOW DIGESTS.
#[must_use]
pub fn digests(rows: Vec<DigestRow>) -> Table {
    let mut table = Table::new(&[
        "group",
        "digest",
        "count",
        "errors",
        "p50_us",
        "p95_us",
        "p99_us",
        "ran_on",
        "because",
        "statement",
    ]);
    for row in rows {
        table.push([
            (&*row.group).into(),
            format!("{:016x}", row.digest).into(),
            row.count.into(),
            row.errors.into(),
            row.p50_us.into(),
            row.p95_us.into(),
            row.p99_us.into(),
            counts(row.places.iter().map(|(name, count)| (name.as_str(), *count))).into(),
            counts(row.reasons.into_iter()).into(),
            row.text.into(),
        ]);
    }
    table
}

/// SHOW CONFIG.
#[must_use]
pub fn config(config: &Config) -> Table {
    let mut table = Table::new(&["key", "value", "applied_by"]);
    for entry in config.entries() {
        let by = if entry.reloadable { "reload" } else { "restart" };
        table.push([entry.key.into(), entry.value.into(), by.into()]);
    }
    table
}

/// SHOW TOPOLOGY.
#[must_use]
pub fn topology(control: &Control) -> Table {
    let mut table = Table::new(&["topology"]);
    for topology in control.topologies() {
        for line in tree(&topology) {
            table.push([line.into()]);
        }
    }
    table
}

/// SHOW CLUSTER: the mode of each group and what its keeper does, then its replicas in the order in
/// which they would be promoted, then every precondition, those that are not met first.
#[must_use]
pub fn cluster(assessments: Vec<Assessment>) -> Table {
    let mut table = Table::new(&["group", "server", "subject", "state", "found"]);
    for Assessment { group, mode, mut checks, candidates, keeping } in assessments {
        let group = &*group;
        let worst = checks.iter().find(|check| check.leaves == mode && !check.met);
        let why = worst.map(|check| format!("{}: {}", check.required, check.found));
        let server = worst.map(|check| check.server.to_string());
        table.push([group.into(), server.into(), "mode".into(), mode.word().into(), why.into()]);
        if let Some(Keeping { epoch, doing, members }) = keeping {
            let state = format!("epoch {epoch}");
            let found = doing.into();
            table.push([group.into(), None::<&str>.into(), "keeper".into(), state.into(), found]);
            for Standing { id, acts, found } in members {
                let state = if acts { "acts" } else { "follows" };
                let (subject, found) = ("member".into(), format!("{id} {found}").into());
                table.push([group.into(), None::<&str>.into(), subject, state.into(), found]);
            }
        }
        for ranked in candidates {
            let (state, found) = match ranked.may_lead() {
                Ok(place) if ranked.must_drain => (place.to_string(), "has more to apply".into()),
                Ok(place) => (place.to_string(), "has applied all that it has received".into()),
                Err(why) => ("never".to_owned(), why),
            };
            let name = &*ranked.name;
            let subject = "candidate".into();
            table.push([group.into(), name.into(), subject, state.into(), found.into()]);
        }
        checks.sort_by_key(|check| (check.met, std::cmp::Reverse(check.leaves)));
        for check in checks {
            let state = if check.met { "met" } else { "missed" };
            let server = Some(&*check.server).filter(|name| !name.is_empty());
            let subject = check.required.into();
            let found = check.found.into();
            table.push([group.into(), server.into(), subject, state.into(), found]);
        }
    }
    table
}

/// SHOW VERSION.
#[must_use]
pub fn version(control: &Control) -> Table {
    let mut table = Table::new(&["version", "uptime_seconds", "draining"]);
    let version = env!("CARGO_PKG_VERSION");
    table.push([version.into(), control.uptime().as_secs().into(), yes(control.draining())]);
    table
}

/// HELP. Without a topic it is a table for people and drivers. The command lines answer a bare
/// `help` themselves, and lay out `help contents` and `help TOPIC` by the columns that a server's
/// own help has: these two have the same.
#[must_use]
pub fn help(topic: Option<&str>) -> Table {
    let topic = topic.map(|topic| topic.trim_matches(|c| matches!(c, '\'' | '"' | '`')));
    match topic {
        None => {
            let mut table = Table::new(&["command", "changes", "what_it_does"]);
            for entry in TABLE {
                let changes = match entry.access {
                    Access::Read => "no",
                    Access::Operate => "yes",
                };
                table.push([entry.syntax.into(), changes.into(), entry.help.into()]);
            }
            table
        }
        Some(topic) if topic.eq_ignore_ascii_case("contents") => {
            let mut table = Table::new(&["source_category_name", "name", "is_it_category"]);
            for entry in TABLE {
                table.push(["pointsman console".into(), entry.syntax.into(), "N".into()]);
            }
            table
        }
        Some(topic) => {
            let mut table = Table::new(&["name", "description", "example"]);
            if let Some(entry) = parse::nearest(topic) {
                let lines = |text: &str| format!("{text}\n");
                let (help, syntax) = (lines(entry.help), lines(entry.syntax));
                table.push([entry.name.into(), help.into(), syntax.into()]);
            }
            table
        }
    }
}

/// The lines of one group's tree: the primary, below it the replicas, then what is neither.
fn tree(topology: &Topology) -> Vec<String> {
    let head = format!("{} (generation {})", topology.group, topology.generation);
    let mut lines = vec![head];
    let others: Vec<&Node> =
        topology.nodes.iter().filter(|node| Some(node.id) != topology.primary).collect();
    lines.push(match topology.primary_node() {
        Some(primary) => format!("`- {}", leaf(primary)),
        None => format!("`- no primary: {}", topology.no_primary_why),
    });
    for (index, node) in others.iter().enumerate() {
        let branch = if index + 1 == others.len() { "`-" } else { "|-" };
        lines.push(format!("   {branch} {}", leaf(node)));
    }
    lines
}

fn leaf(node: &Node) -> String {
    let mut text = format!("{} {} {}", node.name, node.role.word(), node.condition.word());
    if let Some(lag) = node.lag {
        text += &format!(", {} s behind", seconds(lag));
    }
    if !node.applying {
        text += ", not applying";
    }
    if !node.alike {
        text += ", other settings than the primary";
    }
    if !node.trouble.is_empty() {
        text += &format!(" ({})", node.trouble);
    }
    text
}

fn counts<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    counts.map(|(name, count)| format!("{name}:{count}")).collect::<Vec<_>>().join(" ")
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

fn yes(flag: bool) -> Cell {
    if flag { "yes".into() } else { "no".into() }
}
