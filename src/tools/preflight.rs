//! Whether one server can replicate from another: the checks before and after it does, each with an
//! id that stays. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::failover::report::Told;
use crate::failover::upkeep;
use crate::topology::gtid::GtidSet;
use crate::topology::{Flavour, Node};

/// What a server told for these checks, beside what it tells for a failover.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    /// The version as its greeting has it.
    pub version_text: String,
    /// Global variables by name in lower case.
    pub variables: BTreeMap<String, String>,
    /// Storage engines that can be used.
    pub engines: BTreeSet<String>,
    /// Filters of the binary log and of replication that are set.
    pub filters: Vec<String>,
    /// What came before the oldest binary log that is kept; `None` where that is not told.
    pub before_oldest: Option<GtidSet>,
    /// There is an account by which replicas log in; `None` where that cannot be seen.
    pub replicas_may: Option<bool>,
    /// Schemas with tables, the system's own aside, and how many.
    pub tables: Vec<(String, u64)>,
    /// Replicas that are connected to it.
    pub followers: usize,
    /// The account that asked sees and may change whatever there is.
    pub sees_everything: bool,
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it must be.
    Pass,
    /// It works, and may surprise.
    Warn,
    /// It does not work.
    Fail,
}

/// What one check found at one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check's name, for programs.
    pub id: &'static str,
    /// The server.
    pub server: Arc<str>,
    /// What it came to.
    pub level: Level,
    /// What was found, and what to do about it.
    pub found: String,
}

/// One of two servers.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// Where it is.
    pub node: &'a Node,
    /// What it told for a failover.
    pub told: &'a Told,
    /// What it told besides.
    pub more: &'a Inspection,
}

/// A source and a server that replicates from it, or is to.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// Whom the other follows.
    pub source: Side<'a>,
    /// Who follows.
    pub replica: Side<'a>,
    /// Beyond which a delay is worth a word.
    pub max_lag: Duration,
}

// === impls ===

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        })
    }
}

impl Finding {
    /// As people read it.
    #[must_use]
    pub fn line(&self) -> String {
        format!("[{}] {} ({}): {}", self.level, self.id, self.server, self.found)
    }

    /// As an object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let level = self.level.to_string();
        json!({"id": self.id, "server": &*self.server, "level": level, "found": self.found})
    }
}

/// Whether the server can be followed, and the replica can follow: what holds before it does.
#[must_use]
pub fn before(pair: &Pair<'_>) -> Vec<Finding> {
    let Pair { source, replica, .. } = *pair;
    let mut all = vec![binary_log(source), families(pair), server_ids(pair)];
    all.extend(server_uuids(pair));
    all.push(gtids(source));
    all.push(gtids(replica));
    all.push(relogs(replica));
    all.push(row_format(source));
    all.push(filters(source));
    all.push(filters(replica));
    all.push(engines(pair));
    all.push(same(pair, "lower-case-table-names", "lower_case_table_names"));
    all.push(same(pair, "collation-server", "collation_server"));
    all
}

/// The same, and whether a replica that follows already gets on.
#[must_use]
pub fn after(pair: &Pair<'_>) -> Vec<Finding> {
    let mut all = before(pair);
    all.push(account(pair.source));
    all.push(needed_logs(pair));
    all.push(errant(pair));
    all.push(connected(pair));
    all.push(delay(pair));
    all
}

/// Whether the source still has the binary logs that the replica needs.
#[must_use]
pub fn needed_logs(pair: &Pair<'_>) -> Finding {
    let id = "needed-logs";
    let (source, replica) = (pair.source, pair.replica);
    let Some(gone) = &source.more.before_oldest else {
        let found = "it does not tell which binary logs it has: grant the right to see them";
        return finding(id, source, Level::Warn, found);
    };
    let mut has = replica.told.executed.clone();
    has.union(&replica.told.received);
    match has.contains(gone) {
        true => finding(id, source, Level::Pass, "it has all that the replica needs"),
        false => {
            let lacks = gone.subtract(&has);
            let name = &replica.node.name;
            let found = format!(
                "it has purged the binary logs up to {lacks}, which {name} lacks: its data must \
                 be copied"
            );
            finding(id, source, Level::Fail, found)
        }
    }
}

fn finding(id: &'static str, side: Side<'_>, level: Level, found: impl Into<String>) -> Finding {
    Finding { id, server: side.node.name.clone(), level, found: found.into() }
}

/// Pass where it is so, else the level with what is to be done.
fn unless(id: &'static str, side: Side<'_>, good: bool, otherwise: (Level, String)) -> Finding {
    match good {
        true => finding(id, side, Level::Pass, "as it must be"),
        false => finding(id, side, otherwise.0, otherwise.1),
    }
}

impl Side<'_> {
    fn variable(&self, names: &[&str]) -> &str {
        let found = names.iter().find_map(|name| self.more.variables.get(*name));
        found.map_or("", String::as_str)
    }

    fn is_on(&self, names: &[&str]) -> bool {
        matches!(self.variable(names), "ON" | "1")
    }
}

fn binary_log(source: Side<'_>) -> Finding {
    let what = "it has no binary log: start it with log_bin".to_owned();
    unless("source-binlog", source, source.is_on(&["log_bin"]), (Level::Fail, what))
}

fn families(pair: &Pair<'_>) -> Finding {
    let id = "versions";
    let (source, replica) = (pair.source, pair.replica);
    let (from, to) = (&source.more.version_text, &replica.more.version_text);
    if source.told.flavour != replica.told.flavour {
        let found = format!("{from} and {to} have no GTIDs in common: use servers of one family");
        return finding(id, replica, Level::Fail, found);
    }
    // The last two digits are of one series.
    match (source.told.version / 100).cmp(&(replica.told.version / 100)) {
        std::cmp::Ordering::Greater => {
            let found = format!("{to} is older than its source, {from}: upgrade replicas first");
            finding(id, replica, Level::Fail, found)
        }
        std::cmp::Ordering::Less => {
            let found = format!("{to} is newer than {from}: it must not become its source");
            finding(id, replica, Level::Warn, found)
        }
        std::cmp::Ordering::Equal => finding(id, replica, Level::Pass, format!("{from}, {to}")),
    }
}

fn server_ids(pair: &Pair<'_>) -> Finding {
    let (from, to) = (pair.source.told.server_id(), pair.replica.told.server_id());
    let what = format!("server_id is {from} on the source and {to} here: give each its own");
    unless("server-ids", pair.replica, from != to && from != 0 && to != 0, (Level::Fail, what))
}

fn server_uuids(pair: &Pair<'_>) -> Option<Finding> {
    let (from, to) =
        (pair.source.variable(&["server_uuid"]), pair.replica.variable(&["server_uuid"]));
    if pair.source.told.flavour == Flavour::MariaDb {
        return None;
    }
    let what = format!("both have server_uuid {from}: remove auto.cnf of one that was copied");
    Some(unless("server-uuids", pair.replica, from != to, (Level::Fail, what)))
}

fn gtids(side: Side<'_>) -> Finding {
    let id = "gtid";
    match side.told.flavour {
        Flavour::MariaDb => {
            let strict = side.is_on(&["gtid_strict_mode"]);
            let what = "gtid_strict_mode is off: positions can be mixed up".to_owned();
            unless(id, side, strict, (Level::Warn, what))
        }
        Flavour::MySql => {
            let on = side.variable(&["gtid_mode"]) == "ON"
                && side.variable(&["enforce_gtid_consistency"]) == "ON";
            let what = "gtid_mode and enforce_gtid_consistency must be ON".to_owned();
            unless(id, side, on, (Level::Fail, what))
        }
    }
}

fn relogs(replica: Side<'_>) -> Finding {
    let on =
        replica.is_on(&["log_bin"]) && replica.is_on(&["log_replica_updates", "log_slave_updates"]);
    let what = "log_bin or log_slave_updates is off: it could never become the primary".to_owned();
    unless("replica-binlog", replica, on, (Level::Warn, what))
}

fn row_format(source: Side<'_>) -> Finding {
    let format = source.variable(&["binlog_format"]);
    let what = format!("binlog_format is {format}: ROW replicates what happened");
    unless("row-format", source, format == "ROW" || format.is_empty(), (Level::Warn, what))
}

fn filters(side: Side<'_>) -> Finding {
    let what = format!("not everything is replicated: {}", side.more.filters.join(", "));
    unless("filters", side, side.more.filters.is_empty(), (Level::Warn, what))
}

fn engines(pair: &Pair<'_>) -> Finding {
    let (from, to) = (&pair.source.more.engines, &pair.replica.more.engines);
    let lacking: Vec<&str> = from.difference(to).map(String::as_str).collect();
    let level = if lacking.contains(&"InnoDB") { Level::Fail } else { Level::Warn };
    let what = format!("it lacks storage engines of its source: {}", lacking.join(", "));
    unless("engines", pair.replica, lacking.is_empty(), (level, what))
}

fn same(pair: &Pair<'_>, id: &'static str, variable: &str) -> Finding {
    let (from, to) = (pair.source.variable(&[variable]), pair.replica.variable(&[variable]));
    let what = format!("{variable} is {from} on the source and {to} here");
    unless(id, pair.replica, from == to, (Level::Warn, what))
}

fn account(source: Side<'_>) -> Finding {
    let id = "replication-account";
    match source.more.replicas_may {
        Some(true) => finding(id, source, Level::Pass, "there is an account for replicas"),
        Some(false) => {
            let found = "there is no account with REPLICATION SLAVE by the name that replicas use";
            finding(id, source, Level::Fail, found)
        }
        None => finding(id, source, Level::Warn, "its accounts cannot be seen by ours"),
    }
}

fn errant(pair: &Pair<'_>) -> Finding {
    let (source, replica) = (pair.source, pair.replica);
    let link = replica.told.link_to(source.node, Some(source.told));
    match upkeep::own(replica.told, source.told, link) {
        None => finding("errant", replica, Level::Pass, "it has no transactions of its own"),
        Some(own) => {
            let found = format!("it has transactions of its own: {own}");
            finding("errant", replica, Level::Fail, found)
        }
    }
}

fn connected(pair: &Pair<'_>) -> Finding {
    let id = "connected";
    let (source, replica) = (pair.source, pair.replica);
    let link = replica.told.link_to(source.node, Some(source.told));
    match link {
        Some(link) if link.receiving && link.applying => {
            finding(id, replica, Level::Pass, "it receives and applies")
        }
        Some(link) => {
            let found = format!("it does not receive or does not apply: {}", link.error);
            finding(id, replica, Level::Warn, found)
        }
        None => {
            let found = format!("it does not replicate from {}", source.node.name);
            finding(id, replica, Level::Warn, found)
        }
    }
}

fn delay(pair: &Pair<'_>) -> Finding {
    let behind = pair.replica.told.sources.iter().filter_map(|link| link.seconds_behind).max();
    let late = behind.is_some_and(|seconds| seconds > pair.max_lag.as_secs());
    let what = format!("it is {} s behind", behind.unwrap_or_default());
    unless("delay", pair.replica, !late, (Level::Warn, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::fixture;
    use crate::health::observation::Source;
    use crate::topology::fixture::node;

    /// What differs between two servers that are as they must be: told and inspected.
    type Change = fn(&mut (Told, Inspection), &mut (Told, Inspection));

    fn server(id: u32) -> (Told, Inspection) {
        let mut told = fixture::told(Flavour::MySql);
        told.version = 90_704;
        told.variables.insert("server_id".to_owned(), id.to_string());
        let on = ["log_bin", "log_replica_updates", "gtid_mode", "enforce_gtid_consistency"];
        let mut more = Inspection {
            engines: ["InnoDB".to_owned()].into(),
            before_oldest: Some(GtidSet::default()),
            replicas_may: Some(true),
            ..Inspection::default()
        };
        more.variables = on.map(|name| (name.to_owned(), "ON".to_owned())).into();
        more.variables.insert("server_uuid".to_owned(), format!("uuid-{id}"));
        (told, more)
    }

    /// Checks that are not passed, after this change, each with its level.
    fn missed(change: Change) -> Vec<String> {
        let (mut one, mut two) = (server(1), server(2));
        two.0.sources = vec![Source {
            host: "db1".to_owned(),
            port: 3306,
            receiving: true,
            applying: true,
            ..Source::default()
        }];
        change(&mut one, &mut two);
        let (first, second) = (node(0, "db1"), node(1, "db2"));
        let found = after(&Pair {
            source: Side { node: &first, told: &one.0, more: &one.1 },
            replica: Side { node: &second, told: &two.0, more: &two.1 },
            max_lag: Duration::from_secs(10),
        });
        let missed = found.iter().filter(|finding| finding.level != Level::Pass);
        missed.map(|at| format!("{} {} {}", at.level, at.id, at.server)).collect()
    }

    fn set(side: &mut (Told, Inspection), name: &str, value: &str) {
        side.1.variables.insert(name.to_owned(), value.to_owned());
    }

    #[test]
    fn each_check_misses_what_it_is_for_and_nothing_else() {
        let table: [(Change, &str); 16] = [
            (|one, _| set(one, "log_bin", "OFF"), "FAIL source-binlog db1"),
            (|one, _| one.0.version = 90_800, "FAIL versions db2"),
            (|_, two| two.0.version = 90_800, "WARN versions db2"),
            (|_, two| two.0.variables.clear(), "FAIL server-ids db2"),
            (|_, two| set(two, "server_uuid", "uuid-1"), "FAIL server-uuids db2"),
            (|_, two| set(two, "gtid_mode", "OFF"), "FAIL gtid db2"),
            (|_, two| set(two, "log_replica_updates", "OFF"), "WARN replica-binlog db2"),
            (|one, _| set(one, "binlog_format", "MIXED"), "WARN row-format db1"),
            (|one, _| one.1.filters.push("binlog_do_db = a".to_owned()), "WARN filters db1"),
            (|_, two| two.1.engines.clear(), "FAIL engines db2"),
            (|_, two| set(two, "lower_case_table_names", "1"), "WARN lower-case-table-names db2"),
            (|one, _| one.1.replicas_may = Some(false), "FAIL replication-account db1"),
            (|one, _| one.1.before_oldest = None, "WARN needed-logs db1"),
            (|_, two| two.0.sources[0].receiving = false, "WARN connected db2"),
            (|_, two| two.0.sources[0].seconds_behind = Some(11), "WARN delay db2"),
            (|_, two| set(two, "collation_server", "x"), "WARN collation-server db2"),
        ];
        assert_eq!(missed(|_, _| {}), Vec::<String>::new());
        for (change, expected) in table {
            assert_eq!(missed(change), [expected]);
        }
    }

    #[test]
    fn transactions_that_are_gone_or_its_own_speak_against_a_replica() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5";
        let parsed = || GtidSet::parse_mysql("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5");
        assert!(parsed().is_some_and(|set| set.to_string() == uuid));
        let purged: Change = |one, _| {
            let gone = GtidSet::parse_mysql("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5");
            one.1.before_oldest = gone;
        };
        assert_eq!(missed(purged), ["FAIL needed-logs db1"]);
        let errant: Change = |_, two| {
            let own = GtidSet::parse_mysql("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5");
            two.0.executed = own.expect("a set");
        };
        assert_eq!(missed(errant), ["FAIL errant db2"]);
    }
}
