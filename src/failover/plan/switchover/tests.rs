//! Switchovers step by step, with servers that do what they are told.

use super::*;
use crate::config::units::Secret;
use crate::failover::ackers::Accounts;
use crate::failover::fixture::{mariadb_at, noted, report};
use crate::failover::record::Kind;
use crate::health::observation::{Failure, FailureKind, Source};
use crate::topology::fixture::node;

/// db1 takes the writes; db2 and db3 replicate from it.
struct Group {
    topology: Topology,
    reports: Vec<Report>,
    elapsed: Duration,
    unfinished: Option<usize>,
}

const PRIMARY: &[(&str, &str)] = &[
    ("gtid_strict_mode", "ON"),
    ("read_only", "OFF"),
    ("rpl_semi_sync_master_enabled", "ON"),
    ("rpl_semi_sync_slave_enabled", "ON"),
];
const REPLICA: &[(&str, &str)] = &[
    ("gtid_strict_mode", "ON"),
    ("read_only", "ON"),
    ("rpl_semi_sync_master_enabled", "OFF"),
    ("rpl_semi_sync_slave_enabled", "ON"),
];

/// What the primary began with.
const FLOOR: &str = "0-1-5";

fn set(text: &str) -> GtidSet {
    GtidSet::parse_mariadb(text).expect("a position")
}

fn told(server: u16, variables: &[(&str, &str)], executed: &str) -> Told {
    let id = [("server_id".to_owned(), server.to_string())];
    let all = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let counters = [("rpl_semi_sync_master_clients".to_owned(), "1".to_owned())].into();
    Told { variables: all.chain(id).collect(), counters, ..mariadb_at(executed) }
}

fn replica(server: u16, executed: &str) -> Report {
    let source = Source {
        host: "db1".to_owned(),
        port: 3306,
        server_id: 1,
        by_gtid: true,
        receiving: true,
        applying: true,
        ..Source::default()
    };
    report(server - 1, Told { sources: vec![source], ..told(server, REPLICA, executed) })
}

impl Group {
    fn new() -> Self {
        let lag = Some(Duration::ZERO);
        let node = |id: u16| Node { lag, ..node(id, &format!("db{}", id + 1)) };
        let primary = Some(NodeId(0));
        let nodes = (0..3).map(node).collect();
        Self {
            topology: Topology { nodes, primary, ..Topology::empty("main") },
            reports: vec![
                report(0, told(1, PRIMARY, "0-1-9")),
                replica(2, "0-1-9"),
                replica(3, "0-1-9"),
            ],
            elapsed: Duration::ZERO,
            unfinished: Some(0),
        }
    }

    fn told(&mut self, name: &str) -> &mut Told {
        let report = self.reports.iter_mut().find(|report| &*report.name == name);
        report.and_then(|report| report.told.as_mut().ok()).expect("it answers")
    }

    fn silence(&mut self, name: &str) {
        let report = self.reports.iter_mut().find(|report| &*report.name == name);
        let silent = Failure::new(FailureKind::Unreachable, "refused");
        report.expect("a server").told = Err(silent);
    }

    fn choose(&self, wanted: Option<&str>) -> Result<String, String> {
        let primary = &self.topology.nodes[0];
        let heir = choose(&self.topology, &self.reports, primary, wanted)?;
        Ok(heir.name.to_string())
    }

    fn next(&self, operation: &Operation) -> Next {
        let password = Secret::new("secret".to_owned());
        let accounts = Accounts::OwnEach(password);
        let record = noted(self.reports.iter().map(|report| &*report.name), FLOOR);
        // Nobody takes the writes meanwhile.
        let topology = Topology { primary: None, ..self.topology.clone() };
        let facts = Facts {
            orphans: candidate::Orphans::Stay,
            topology: &topology,
            reports: &self.reports,
            record: &record,
            lossy: false,
            elapsed: self.elapsed,
            denied: &[],
            accounts: Some(&accounts),
            unfinished: self.unfinished,
            acknowledged: "",
            is_all_heard: true,
        };
        crate::failover::plan::next(operation, &facts)
    }

    /// Does what is ordered, as MariaDB would.
    fn obey(&mut self, orders: &[Order]) {
        for Order { node, what } in orders {
            let report = self.reports.iter_mut().find(|report| report.node == *node);
            let told = report.and_then(|report| report.told.as_mut().ok()).expect("it answers");
            let mut assign = |name: &str, value: &str| {
                told.variables.insert(name.to_owned(), value.to_owned());
            };
            match what {
                What::Close => assign("read_only", "ON"),
                What::Fence => {
                    assign("read_only", "ON");
                    assign("rpl_semi_sync_master_enabled", "OFF");
                }
                What::Open => assign("read_only", "OFF"),
                What::Settle(statement) => {
                    let words: Vec<&str> = statement.split(' ').collect();
                    assign(words[2], words[4]);
                }
                What::StopReceiver => told.sources[0].receiver_stopped = true,
                What::Detach => told.sources.clear(),
                What::CatchUp(position) => {
                    (told.applied, told.received) = (set(position), set(position));
                    told.executed = set(position);
                }
                What::Repoint(place) | What::Follow(place, _) => {
                    let (host, port) = (place.host.clone(), place.port);
                    told.sources = vec![Source {
                        host,
                        port,
                        by_gtid: true,
                        receiving: true,
                        applying: true,
                        ..Source::default()
                    }];
                }
                other => panic!("{other:?} is no step of a switchover"),
            }
        }
    }

    /// Goes on until it is over or `stage` is reached: what was ordered, and the end.
    fn go_on(&mut self, operation: &mut Operation, stage: Option<Stage>) -> (Vec<String>, Next) {
        let mut steps = Vec::new();
        for _ in 0..30 {
            if Some(operation.stage) == stage {
                return (steps, Next::Enter(operation.clone()));
            }
            match self.next(operation) {
                Next::Act(orders) => {
                    let say = |at: &Order| format!("db{} {}", at.node.0 + 1, at.what.describe());
                    steps.extend(orders.iter().map(say));
                    self.obey(&orders);
                }
                Next::Enter(next) => *operation = next,
                end => return (steps, end),
            }
        }
        panic!("it goes round in circles: {steps:?}");
    }
}

#[test]
fn the_primary_is_closed_and_the_others_follow_its_heir_before_that_one_is_opened() {
    let mut group = Group::new();
    group.told("db1").executed = set("0-1-12");
    let mut operation = Operation::switchover("db1", "db2");
    let (steps, end) = group.go_on(&mut operation, None);
    assert_eq!(end, Next::Done, "{steps:?}");
    assert_eq!(
        steps,
        [
            "db1 take no writes",
            "db2 execute all up to 0-1-12",
            "db2 receive no more",
            "db2 forget its source",
            "db2 SET GLOBAL rpl_semi_sync_master_enabled = ON",
            "db3 receive no more",
            "db3 replicate from db2:3306",
            "db2 take writes",
        ]
    );
}

#[test]
fn where_nobody_else_acknowledges_the_primary_follows_before_its_heir_is_opened() {
    let mut group = Group::new();
    group.silence("db3");
    group.told("db2").counters.clear();
    let mut operation = Operation::switchover("db1", "db2");
    group.go_on(&mut operation, Some(Stage::Establish));
    let steps: Vec<String> = (0..2)
        .flat_map(|_| match group.next(&operation) {
            Next::Act(orders) => {
                group.obey(&orders);
                orders
            }
            other => panic!("{other:?}"),
        })
        .map(|order| format!("db{} {}", order.node.0 + 1, order.what.describe()))
        .collect();
    let demoted =
        ["db1 end its clients' connections and take no writes", "db1 replicate from db2:3306"];
    assert_eq!(steps[3..], demoted);
    assert!(matches!(group.next(&operation), Next::Wait(_)));
    group.elapsed = ACKNOWLEDGING_MAX;
    assert!(matches!(group.next(&operation), Next::Enter(at) if at.stage == Stage::Open));
}

#[test]
fn transactions_get_a_moment_to_end() {
    let mut group = Group::new();
    let begun = Operation::switchover("db1", "db2");
    group.unfinished = Some(3);
    assert_eq!(group.next(&begun), Next::Wait("3 sessions have a transaction open".to_owned()));
    group.unfinished = None;
    assert!(matches!(group.next(&begun), Next::Wait(_)));
    group.elapsed = HOLD_MAX;
    assert!(matches!(group.next(&begun), Next::Enter(at) if at.stage == Stage::Close));
}

#[test]
fn every_stage_goes_on_from_what_servers_say_and_has_an_end() {
    let after = |stage, elapsed, change: fn(&mut Group)| {
        let mut group = Group::new();
        let mut operation = Operation::switchover("db1", "db2");
        group.go_on(&mut operation, Some(stage));
        change(&mut group);
        group.elapsed = elapsed;
        let Next::GiveUp(why) = group.next(&operation) else { panic!("{stage:?} goes on") };
        (why, operation.undoing())
    };
    let silent: fn(&mut Group) = |group| group.silence("db2");
    let again = Some(Operation::reopening("db1"));
    let (why, undoing) = after(Stage::Hold, Duration::ZERO, silent);
    assert!(why.starts_with("db2") && undoing.is_none(), "{why}");
    for stage in [Stage::Close, Stage::Drain] {
        assert_eq!(after(stage, Duration::ZERO, silent).1, again);
    }
    assert_eq!(after(Stage::Close, CLOSE_MAX, |_| ()).0, "db1 cannot be made read-only");
    let behind = after(Stage::Drain, DRAIN_MAX, |group| group.told("db2").applied = set("0-1-8"));
    assert_eq!(behind.0, "db2 has not executed all of it within 5 s");
    let opened: fn(&mut Group) = |group| group.obey(&[Order { node: NodeId(0), what: What::Open }]);
    for stage in [Stage::Drain, Stage::Establish] {
        let (why, undoing) = after(stage, Duration::ZERO, opened);
        assert_eq!((why.as_str(), undoing), ("somebody has opened db1 for writes", again.clone()));
    }
    assert_eq!(after(Stage::Establish, ESTABLISH_MAX, silent).1, again);
    let closed = after(Stage::Open, OPEN_MAX, |_| ());
    assert_eq!((closed.0.as_str(), closed.1), ("db2 cannot be opened for writes", again));
}

#[test]
fn what_was_called_off_half_way_is_undone() {
    let mut group = Group::new();
    let mut operation = Operation::switchover("db1", "db2");
    group.go_on(&mut operation, Some(Stage::Open));
    let mut again = operation.undoing().expect("there is something to undo");
    let (steps, end) = group.go_on(&mut again, None);
    assert_eq!(end, Next::Done, "{steps:?}");
    assert_eq!(steps[..2], ["db3 receive no more", "db3 replicate from db1:3306"]);
    assert_eq!(steps.last().map(String::as_str), Some("db1 take writes"));
}

#[test]
fn who_may_have_taken_writes_and_is_silent_is_the_primary() {
    let mut group = Group::new();
    let mut operation = Operation::switchover("db1", "db2");
    group.go_on(&mut operation, Some(Stage::Open));
    group.silence("db2");
    assert!(matches!(group.next(&operation), Next::Wait(_)));
    group.elapsed = OPEN_MAX;
    assert_eq!(group.next(&operation), Next::Done);
}

#[test]
fn a_primary_that_dies_on_the_way_is_left_behind_where_the_heir_has_all_of_it() {
    let mut group = Group::new();
    let mut operation = Operation::switchover("db1", "db2");
    group.go_on(&mut operation, Some(Stage::Drain));
    group.silence("db1");
    let (steps, end) = group.go_on(&mut operation, None);
    assert_eq!((end, operation.kind), (Next::Done, Kind::Switchover), "{steps:?}");
    let mut late = Group::new();
    let mut operation = Operation::switchover("db1", "db2");
    late.told("db1").executed = set("0-1-12");
    late.go_on(&mut operation, Some(Stage::Drain));
    late.silence("db1");
    late.elapsed = DRAIN_MAX;
    assert!(matches!(late.next(&operation), Next::GiveUp(_)));
}

#[test]
fn who_cannot_take_over_is_refused_by_name_and_reason() {
    let group = Group::new();
    assert_eq!(group.choose(None), Ok("db2".to_owned()));
    assert_eq!(group.choose(Some("db3")), Ok("db3".to_owned()));
    assert_eq!(group.choose(Some("db3:3306")), Ok("db3".to_owned()));
    let why = |wanted, change: fn(&mut Group)| {
        let mut group = Group::new();
        change(&mut group);
        group.choose(Some(wanted)).expect_err("it cannot")
    };
    assert_eq!(why("db1", |_| ()), "db1 is the primary already");
    assert!(why("db9", |_| ()).starts_with("there is no server \"db9\""));
    let silent = why("db2", |group| group.silence("db2"));
    assert_eq!(silent, "db2: it does not answer: refused");
    let errant = why("db2", |group| {
        group.told("db2").history =
            crate::topology::gtid::MariaDbState::parse("0-1-9,0-2-10").expect("a state");
    });
    assert_eq!(errant, "db2: it has transactions of its own: 0-2-10");
    let late = why("db2", |group| group.topology.nodes[1].lag = Some(Duration::from_secs(7)));
    assert!(late.starts_with("db2: it is 7.0 s behind"), "{late}");
    let unknown = why("db2", |group| group.topology.nodes[1].lag = None);
    assert_eq!(unknown, "db2: it is not known how far behind it is");
    let stopped = why("db2", |group| group.told("db2").sources[0].receiving = false);
    assert_eq!(stopped, "db2: it does not receive: the thread was stopped");
    let elsewhere = why("db2", |group| {
        let source = &mut group.told("db2").sources[0];
        (source.host, source.server_id) = ("db3".to_owned(), 3);
    });
    assert_eq!(elsewhere, "db2: it does not replicate from db1");
    let drained = why("db2", |group| group.topology.nodes[1].condition = Condition::Draining);
    assert_eq!(drained, "db2: it is drained: UNDRAIN it first");
    // The best is whoever can.
    let mut group = Group::new();
    group.silence("db2");
    assert_eq!(group.choose(None), Ok("db3".to_owned()));
}
