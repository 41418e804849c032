//! Whether a failover of a group would lose nothing, and what is missing where it might.
//!
//! The preconditions are those of a design in which a commit is acknowledged only after a replica
//! has it: GTIDs everywhere, semi-synchronous replication that never gives up waiting and waits
//! before the commit is visible, replicas that keep what they have received.

use std::fmt;
use std::sync::Arc;

use crate::failover::report::{
    READ_ONLY, RELAY_LOG_RECOVERY, Report, SERVER_ID, SERVER_UUID, SUPER_READ_ONLY, SYNC_RELAY_LOG,
    Told,
};
use crate::topology::{Flavour, NodeId};

/// What may be promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// No acknowledged write would be lost.
    Safe,
    /// A failover could be made, and might lose acknowledged writes or take long.
    Degraded,
    /// Nobody could tell what a failover would lose.
    Unmanaged,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Safe, Self::Degraded, Self::Unmanaged];
}

/// One precondition at one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The server's name; empty for the group as a whole.
    pub server: Arc<str>,
    /// What is required, in words.
    pub required: &'static str,
    /// Whether it is met.
    pub met: bool,
    /// What may be promised as far as this goes.
    pub leaves: Mode,
    /// What was found, and what to do about it.
    pub found: String,
}

/// A setting that a server lacks, and the statement that brings it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mend {
    /// The variable.
    pub name: &'static str,
    /// `SET GLOBAL ...`.
    pub statement: String,
}

/// A variable that must have a value.
struct Wanted {
    required: &'static str,
    /// Under whichever of these names the server has it.
    names: &'static [&'static str],
    value: Value,
    at: At,
    leaves: Mode,
}

#[derive(Clone, Copy)]
enum Value {
    On,
    Off,
    Is(&'static str),
    AtLeast(u64),
    AtMost(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    All,
    Primary,
    Replicas,
}

/// For how many acknowledgements MySQL's commits wait.
const ACKNOWLEDGEMENTS: &str = "rpl_semi_sync_source_wait_for_replica_count";

/// Those that no precondition is about.
const NAMED: [&str; 7] = [
    SERVER_ID,
    SERVER_UUID,
    ACKNOWLEDGEMENTS,
    READ_ONLY,
    SUPER_READ_ONLY,
    RELAY_LOG_RECOVERY,
    SYNC_RELAY_LOG,
];

/// How many replicas acknowledge.
const CLIENTS: [&str; 2] = ["rpl_semi_sync_source_clients", "rpl_semi_sync_master_clients"];
/// Whether a replica acknowledges.
const GIVES: [&str; 2] = ["rpl_semi_sync_replica_enabled", "rpl_semi_sync_slave_enabled"];
/// Whether commits wait for acknowledgements.
const ASKS: [&str; 2] = ["rpl_semi_sync_source_enabled", "rpl_semi_sync_master_enabled"];
/// These can be set only when the server starts.
const FIXED: [&str; 4] =
    ["log_bin", "log_slave_updates", "log_replica_updates", "relay_log_recovery"];
/// These go from one value to another on all servers of a group, step by step.
const IN_STEPS: [&str; 2] = ["gtid_mode", "enforce_gtid_consistency"];

/// Whether a commit is on disk when it is acknowledged, in the binary log and in the tables.
const SYNC_BINLOG: &str = "sync_binlog";
const FLUSH_LOG: &str = "innodb_flush_log_at_trx_commit";

/// As good as for ever: the most that MySQL takes, 49 days; in milliseconds.
const FOR_EVER: u64 = 4_294_967_295;
/// What a replica may take to find out that its source is silent, seconds.
const SILENCE_MAX: u64 = 5;

const LOGGED: &str = "a binary log, with what is replicated in it";
const GTID: &str = "strict GTIDs";
const DURABLE: &str = "commits that are on disk when they are acknowledged";
const STORED: &str = "replicas that have on disk what they have applied";
const LOSSLESS: &str = "commits that wait for a replica, and wait for ever";
const ACKNOWLEDGING: &str = "replicas that acknowledge";
const KEPT: &str = "relay logs that outlive a restart";
const CLOSED: &str = "replicas that take no writes of clients";
const PROMPT: &str = "replicas that miss a silent source soon";
const PRIMARY: &str = "one primary, which answers, and servers that can be told apart";
const FOLLOWING: &str = "replicas that follow the primary by GTID";

const MARIADB: &[Wanted] = &[
    wanted(LOGGED, &["log_bin"], Value::On, At::All, Mode::Unmanaged),
    wanted(LOGGED, &["log_slave_updates"], Value::On, At::All, Mode::Unmanaged),
    wanted(GTID, &["gtid_strict_mode"], Value::On, At::All, Mode::Unmanaged),
    wanted(LOSSLESS, &["rpl_semi_sync_master_enabled"], Value::On, At::Primary, Mode::Degraded),
    wanted(
        LOSSLESS,
        &["rpl_semi_sync_master_wait_point"],
        Value::Is("AFTER_SYNC"),
        At::Primary,
        Mode::Degraded,
    ),
    wanted(
        LOSSLESS,
        &["rpl_semi_sync_master_timeout"],
        Value::AtLeast(FOR_EVER),
        At::Primary,
        Mode::Degraded,
    ),
    wanted(
        LOSSLESS,
        &["rpl_semi_sync_master_wait_no_slave"],
        Value::On,
        At::Primary,
        Mode::Degraded,
    ),
    wanted(
        ACKNOWLEDGING,
        &["rpl_semi_sync_slave_enabled"],
        Value::On,
        At::Replicas,
        Mode::Degraded,
    ),
    wanted(CLOSED, &["read_only"], Value::On, At::Replicas, Mode::Degraded),
    wanted(PROMPT, &["slave_net_timeout"], Value::AtMost(SILENCE_MAX), At::Replicas, Mode::Safe),
];

const MYSQL: &[Wanted] = &[
    wanted(LOGGED, &["log_bin"], Value::On, At::All, Mode::Unmanaged),
    wanted(
        LOGGED,
        &["log_replica_updates", "log_slave_updates"],
        Value::On,
        At::All,
        Mode::Unmanaged,
    ),
    wanted(GTID, &["gtid_mode"], Value::On, At::All, Mode::Unmanaged),
    wanted(GTID, &["enforce_gtid_consistency"], Value::On, At::All, Mode::Unmanaged),
    wanted(
        LOSSLESS,
        &["rpl_semi_sync_source_enabled", "rpl_semi_sync_master_enabled"],
        Value::On,
        At::Primary,
        Mode::Degraded,
    ),
    wanted(
        LOSSLESS,
        &["rpl_semi_sync_source_wait_point", "rpl_semi_sync_master_wait_point"],
        Value::Is("AFTER_SYNC"),
        At::Primary,
        Mode::Degraded,
    ),
    wanted(
        LOSSLESS,
        &["rpl_semi_sync_source_timeout", "rpl_semi_sync_master_timeout"],
        Value::AtLeast(FOR_EVER),
        At::Primary,
        Mode::Degraded,
    ),
    wanted(
        LOSSLESS,
        &["rpl_semi_sync_source_wait_no_replica", "rpl_semi_sync_master_wait_no_slave"],
        Value::On,
        At::Primary,
        Mode::Degraded,
    ),
    wanted(
        ACKNOWLEDGING,
        &["rpl_semi_sync_replica_enabled", "rpl_semi_sync_slave_enabled"],
        Value::On,
        At::Replicas,
        Mode::Degraded,
    ),
    wanted(KEPT, &["relay_log_recovery"], Value::Off, At::Replicas, Mode::Degraded),
    wanted(CLOSED, &["super_read_only"], Value::On, At::Replicas, Mode::Degraded),
    wanted(
        PROMPT,
        &["replica_net_timeout", "slave_net_timeout"],
        Value::AtMost(SILENCE_MAX),
        At::Replicas,
        Mode::Safe,
    ),
];

/// What both families must have.
const BOTH: &[Wanted] = &[
    wanted(DURABLE, &[SYNC_BINLOG], Value::Is("1"), At::Primary, Mode::Degraded),
    wanted(DURABLE, &[FLUSH_LOG], Value::Is("1"), At::Primary, Mode::Degraded),
    wanted(STORED, &[SYNC_BINLOG], Value::Is("1"), At::Replicas, Mode::Degraded),
    wanted(STORED, &[FLUSH_LOG], Value::Is("1"), At::Replicas, Mode::Degraded),
];

const fn wanted(
    required: &'static str,
    names: &'static [&'static str],
    value: Value,
    at: At,
    leaves: Mode,
) -> Wanted {
    Wanted { required, names, value, at, leaves }
}

// === impls ===

/// The worst of what was found; a group without a primary, or with one that is silent, is
/// unmanaged.
#[must_use]
pub fn mode(checks: &[Check]) -> Mode {
    checks.iter().map(|check| check.leaves).max().unwrap_or(Mode::Unmanaged)
}

/// The variables that matter, under all names that servers have for them.
pub fn variable_names() -> impl Iterator<Item = &'static str> {
    let listed = MARIADB.iter().chain(MYSQL).chain(BOTH).flat_map(|wanted| wanted.names);
    listed.copied().chain(NAMED)
}

/// The settings that a server lacks for its place and that can be made while it runs; what switches
/// acknowledgements on comes last, after how they are waited for.
#[must_use]
pub fn mends(told: &Told, is_primary: bool) -> Vec<Mend> {
    let mut mends = Vec::new();
    for wanted in required_of(told, is_primary) {
        let has = wanted.names.iter().find_map(|name| Some((*name, told.variables.get(*name)?)));
        if let Some((name, value)) = has
            && !wanted.value.is_met(value)
            && !FIXED.contains(&name)
            && !IN_STEPS.contains(&name)
        {
            let statement = format!("SET GLOBAL {name} = {}", wanted.value);
            mends.push(Mend { name, statement });
        }
    }
    mends.sort_by_key(|mend| mend.name.ends_with("_enabled"));
    mends
}

/// Whether no commit of the primary is acknowledged to a client before it is on disk and a replica
/// has it, and positions can be compared.
#[must_use]
pub fn is_lossless(checks: &[Check]) -> bool {
    let matters = [PRIMARY, LOGGED, GTID, DURABLE, LOSSLESS];
    !checks.is_empty() && checks.iter().all(|at| at.met || !matters.contains(&at.required))
}

/// Whether as many replicas acknowledge this primary's commits as each waits for.
#[must_use]
pub fn acknowledging(told: &Told) -> bool {
    told.counter(&CLIENTS).is_some_and(|clients| clients >= acknowledgements(told))
}

/// Whether it acknowledges what it receives, by its settings.
#[must_use]
pub fn gives(told: &Told) -> bool {
    GIVES.into_iter().any(|name| told.is_on(name))
}

/// The setting by which commits wait for acknowledgements there; `None` where they do not.
#[must_use]
pub fn asking(told: &Told) -> Option<&'static str> {
    ASKS.into_iter().find(|name| told.is_on(name))
}

/// For how many acknowledgements each of its commits waits.
#[must_use]
pub fn acknowledgements(told: &Told) -> u64 {
    told.variable(&[ACKNOWLEDGEMENTS]).and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Goes through all preconditions, those of the group first.
#[must_use]
pub fn check(reports: &[Report], primary: Option<NodeId>) -> Vec<Check> {
    let mut checks = Vec::new();
    let head = primary.and_then(|id| reports.iter().find(|report| report.node == id));
    match head.map(|report| (report, &report.told)) {
        None => checks.push(group(Mode::Unmanaged, "there is no primary".to_owned())),
        Some((_, Err(why))) => {
            let found = format!("the primary does not answer: {why}");
            checks.push(group(Mode::Unmanaged, found));
        }
        Some((report, Ok(told))) => {
            checks.extend(acknowledged(reports, report, told));
            checks.extend(unique_ids(reports));
        }
    }
    for report in reports {
        let is_primary = Some(report.node) == primary;
        match &report.told {
            Err(why) if !is_primary => {
                let found = format!("it does not answer: {why}");
                checks.push(judged(&report.name, FOLLOWING, Mode::Degraded, found));
            }
            Err(_) => {}
            Ok(told) => {
                if !is_primary {
                    checks.push(following(report, told, head));
                }
                checks.extend(variables(report, told, is_primary));
            }
        }
    }
    checks
}

fn group(leaves: Mode, found: String) -> Check {
    judged(&Arc::from(""), PRIMARY, leaves, found)
}

fn judged(server: &Arc<str>, required: &'static str, leaves: Mode, found: String) -> Check {
    Check { server: server.clone(), required, met: leaves == Mode::Safe, leaves, found }
}

/// Whether as many replicas acknowledge as commits wait for, and how many could be lost.
fn acknowledged(reports: &[Report], primary: &Report, told: &Told) -> Option<Check> {
    let clients = told.counter(&CLIENTS)?;
    let wanted = acknowledgements(told);
    let others = reports.len().saturating_sub(1);
    let leaves = if clients < wanted { Mode::Degraded } else { Mode::Safe };
    let found = format!("{clients} of {others} acknowledge; a commit waits for {wanted}");
    Some(judged(&primary.name, ACKNOWLEDGING, leaves, found))
}

fn unique_ids(reports: &[Report]) -> Option<Check> {
    let ids: Vec<(u32, &Arc<str>)> = reports
        .iter()
        .filter_map(|at| at.told.as_ref().ok().map(|told| (told.server_id(), &at.name)))
        .collect();
    let twice = ids.iter().enumerate().find_map(|(at, (id, name))| {
        let first = ids.iter().take(at).find(|(other, _)| other == id)?;
        Some(format!("{} and {name} both have server_id {id}: give each its own", first.1))
    })?;
    Some(group(Mode::Unmanaged, twice))
}

/// Whether a replica replicates from the primary, by GTID, and both of its threads run.
fn following(report: &Report, told: &Told, primary: Option<&Report>) -> Check {
    let (leaves, found) = match told.sources.as_slice() {
        [] => (Mode::Degraded, "it does not replicate".to_owned()),
        [_, _, ..] => (Mode::Unmanaged, "it replicates from several servers".to_owned()),
        [source] => {
            let head = primary.and_then(|at| at.told.as_ref().ok());
            let elsewhere = source.server_id != 0
                && head.is_some_and(|head| head.server_id() != source.server_id);
            let from = source.address();
            if elsewhere {
                (Mode::Degraded, format!("it replicates from {from}, which is not the primary"))
            } else if !source.by_gtid {
                let mend = "switch it to MASTER_USE_GTID=slave_pos or SOURCE_AUTO_POSITION=1";
                (Mode::Unmanaged, format!("it does not ask for transactions by GTID: {mend}"))
            } else if !source.applying {
                (Mode::Degraded, format!("it does not apply: {}", or_stopped(&source.error)))
            } else if !source.receiving && is_locked_out(&source.user, head) {
                let user = &source.user;
                (Mode::Degraded, format!("it is evicted: {user}, its account, is locked there"))
            } else if !source.receiving {
                (Mode::Degraded, format!("it does not receive: {}", or_stopped(&source.error)))
            } else {
                (Mode::Safe, format!("from {from} as {}", source.user))
            }
        }
    };
    judged(&report.name, FOLLOWING, leaves, found)
}

/// Whether nobody may log in by this account at the primary.
fn is_locked_out(user: &str, head: Option<&Told>) -> bool {
    let made = head.and_then(|head| head.made.as_ref());
    made.is_some_and(|made| made.locked.contains(user))
}

fn or_stopped(error: &str) -> &str {
    if error.is_empty() { "the thread was stopped" } else { error }
}

fn variables(report: &Report, told: &Told, is_primary: bool) -> Vec<Check> {
    required_of(told, is_primary).map(|wanted| wanted.check(report, told)).collect()
}

/// What is required of a server of this family in this place.
fn required_of(told: &Told, is_primary: bool) -> impl Iterator<Item = &'static Wanted> {
    let own = match told.flavour {
        Flavour::MariaDb => MARIADB,
        Flavour::MySql => MYSQL,
    };
    let here = if is_primary { At::Primary } else { At::Replicas };
    own.iter().chain(BOTH).filter(move |wanted| wanted.at == At::All || wanted.at == here)
}

impl Wanted {
    fn check(&self, report: &Report, told: &Told) -> Check {
        let first = self.names.first().copied().unwrap_or_default();
        let has = self.names.iter().find_map(|name| told.variables.get_key_value(*name));
        let (met, found) = match has {
            Some((name, value)) if self.value.is_met(value) => (true, format!("{name} is {value}")),
            Some((name, value)) => (false, format!("{name} is {value}: {}", self.mend(name))),
            None => (false, format!("there is no {first}: load the plugin that has it")),
        };
        let leaves = if met { Mode::Safe } else { self.leaves };
        Check { met, ..judged(&report.name, self.required, leaves, found) }
    }

    fn mend(&self, name: &str) -> String {
        match FIXED.contains(&name) {
            true => format!("start the server with {name}={}", self.value),
            false => format!("SET GLOBAL {name} = {}", self.value),
        }
    }
}

impl Value {
    fn is_met(self, value: &str) -> bool {
        let number = || value.parse::<u64>().ok();
        match self {
            Self::On => matches!(value, "ON" | "1"),
            Self::Off => matches!(value, "OFF" | "0"),
            Self::Is(wanted) => value.eq_ignore_ascii_case(wanted),
            Self::AtLeast(least) => number().is_some_and(|number| number >= least),
            Self::AtMost(most) => number().is_some_and(|number| number <= most),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On => f.write_str("ON"),
            Self::Off => f.write_str("OFF"),
            Self::Is(wanted) => f.write_str(wanted),
            Self::AtLeast(number) | Self::AtMost(number) => number.fmt(f),
        }
    }
}

impl Mode {
    /// The word for operators.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Degraded => "degraded",
            Self::Unmanaged => "unmanaged",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::fixture;
    use crate::health::observation::{Failure, FailureKind, Source};

    /// Variables as they must be, by family and place.
    fn right(flavour: Flavour, is_primary: bool) -> Told {
        let own = match flavour {
            Flavour::MariaDb => MARIADB,
            Flavour::MySql => MYSQL,
        };
        let value = |wanted: &Wanted| wanted.value.to_string();
        let variables = own.iter().chain(BOTH).map(|at| (at.names[0].to_owned(), value(at)));
        let mut variables: std::collections::BTreeMap<_, _> = variables.collect();
        let id = if is_primary { "1" } else { "2" };
        variables.insert("server_id".to_owned(), id.to_owned());
        let from = Source {
            server_id: 1,
            by_gtid: true,
            receiving: true,
            applying: true,
            ..Source::default()
        };
        let counters = [("rpl_semi_sync_master_clients".to_owned(), "1".to_owned())].into();
        Told {
            variables,
            counters,
            sources: if is_primary { Vec::new() } else { vec![from] },
            ..fixture::told(flavour)
        }
    }

    /// A primary and a replica, changed.
    fn found(flavour: Flavour, change: impl Fn(&mut Told, &mut Told)) -> (Mode, String) {
        let (mut one, mut two) = (right(flavour, true), right(flavour, false));
        change(&mut one, &mut two);
        let checks = check(&[fixture::report(0, one), fixture::report(1, two)], Some(NodeId(0)));
        let missed = checks.iter().filter(|check| !check.met);
        let texts: Vec<String> = missed.map(|at| format!("{}: {}", at.server, at.found)).collect();
        (mode(&checks), texts.join("; "))
    }

    #[test]
    fn a_group_that_meets_everything_is_safe_in_both_families() {
        for flavour in [Flavour::MariaDb, Flavour::MySql] {
            assert_eq!(found(flavour, |_, _| ()), (Mode::Safe, String::new()));
        }
    }

    /// Sets a variable to another value.
    fn set(told: &mut Told, name: &str, value: &str) {
        told.variables.insert(name.to_owned(), value.to_owned());
    }

    #[test]
    fn what_is_missing_is_named_with_its_mend() {
        let timeout = found(Flavour::MariaDb, |primary, _| {
            set(primary, "rpl_semi_sync_master_timeout", "10000");
        });
        let text = "db1: rpl_semi_sync_master_timeout is 10000: \
                    SET GLOBAL rpl_semi_sync_master_timeout = 4294967295";
        assert_eq!(timeout, (Mode::Degraded, text.to_owned()));
        let log = found(Flavour::MySql, |_, replica| set(replica, "log_replica_updates", "OFF"));
        let text = "db2: log_replica_updates is OFF: start the server with log_replica_updates=ON";
        assert_eq!(log, (Mode::Unmanaged, text.to_owned()));
        let slow = found(Flavour::MySql, |_, replica| set(replica, "replica_net_timeout", "60"));
        assert_eq!(slow.0, Mode::Safe, "{}", slow.1);
        assert!(slow.1.contains("replica_net_timeout = 5"), "{}", slow.1);
        let plugin = found(Flavour::MySql, |_, replica| {
            replica.variables.remove("rpl_semi_sync_replica_enabled");
        });
        assert!(plugin.1.contains("load the plugin"), "{}", plugin.1);
    }

    #[test]
    fn a_primary_whose_commits_are_not_on_disk_is_named_and_not_lossless() {
        for (name, value) in [(SYNC_BINLOG, "0"), (FLUSH_LOG, "2")] {
            let (mut one, mut two) = (right(Flavour::MySql, true), right(Flavour::MySql, false));
            set(&mut two, name, value);
            let checks = |one: &Told, two: &Told| {
                let reports = [fixture::report(0, one.clone()), fixture::report(1, two.clone())];
                check(&reports, Some(NodeId(0)))
            };
            assert!(is_lossless(&checks(&one, &two)), "a replica's {name}");
            set(&mut one, name, value);
            let checks = checks(&one, &two);
            assert!(!is_lossless(&checks) && mode(&checks) == Mode::Degraded, "{name}");
            let missed = checks.iter().find(|at| !at.met && &*at.server == "db1").expect("named");
            assert_eq!(missed.required, DURABLE);
            assert_eq!(mends(&one, true)[0].statement, format!("SET GLOBAL {name} = 1"));
        }
    }

    #[test]
    fn replicas_that_do_not_follow_are_named_with_the_reason() {
        let after = |change: fn(&mut Told)| found(Flavour::MariaDb, |_, replica| change(replica));
        let offset = after(|told| told.sources[0].by_gtid = false);
        assert_eq!(offset.0, Mode::Unmanaged, "{}", offset.1);
        let stopped = after(|told| told.sources[0].applying = false);
        assert_eq!(
            stopped,
            (Mode::Degraded, "db2: it does not apply: the thread was stopped".into())
        );
        let error = after(|told| {
            (told.sources[0].receiving, told.sources[0].error) = (false, "1236: gone".to_owned());
        });
        assert_eq!(error.1, "db2: it does not receive: 1236: gone");
        let elsewhere = after(|told| told.sources[0].server_id = 9);
        assert!(elsewhere.1.contains("not the primary"), "{}", elsewhere.1);
        let twin = after(|told| set(told, "server_id", "1"));
        assert_eq!(twin.0, Mode::Unmanaged, "{}", twin.1);
        let alone = found(Flavour::MariaDb, |primary, _| {
            primary.counters.insert("rpl_semi_sync_master_clients".to_owned(), "0".to_owned());
        });
        assert_eq!(alone.1, "db1: 0 of 1 acknowledge; a commit waits for 1");
    }

    #[test]
    fn without_a_primary_nothing_is_promised() {
        let refused = Failure::new(FailureKind::Unreachable, "refused");
        let silent = Report { node: NodeId(0), name: Arc::from("db1"), told: Err(refused) };
        let checks = check(std::slice::from_ref(&silent), Some(NodeId(0)));
        assert_eq!(mode(&checks), Mode::Unmanaged);
        assert!(checks[0].found.contains("refused"));
        assert_eq!(mode(&check(&[silent], None)), Mode::Unmanaged);
        assert_eq!(mode(&[]), Mode::Unmanaged);
    }
}
