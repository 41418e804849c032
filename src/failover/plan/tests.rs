//! Failovers step by step, with servers that do what they are told.

use super::*;
use crate::failover::fixture::{mariadb_at, noted, report};
use crate::health::observation::{Failure, FailureKind, Source};
use crate::topology::fixture::node;

/// db1 is dead; db2, db3 ... replicate from it.
struct Group {
    topology: Topology,
    reports: Vec<Report>,
    lossy: bool,
    patient: bool,
    elapsed: Duration,
}

/// What the primary began with.
const FLOOR: &str = "0-1-5";

fn set(text: &str) -> GtidSet {
    GtidSet::parse_mariadb(text).expect("a position")
}

/// A replica of db1 that has received and applied this much, its receiver trying to connect.
fn replica(node: u16, received: &str, applied: &str) -> Report {
    let source = Source {
        host: "db1".to_owned(),
        port: 3306,
        server_id: 1,
        by_gtid: true,
        applying: true,
        ..Source::default()
    };
    let variables =
        [("gtid_strict_mode", "ON"), ("read_only", "ON"), ("rpl_semi_sync_master_enabled", "OFF")];
    let counters = [("rpl_semi_sync_master_clients", "1"), ("uptime", "60")];
    let told = Told {
        variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        counters: counters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        received: set(received),
        sources: vec![source],
        ..mariadb_at(applied)
    };
    report(node - 1, told)
}

impl Group {
    fn of(reports: Vec<Report>) -> Self {
        let node = |id: u16| node(id, &format!("db{}", id + 1));
        let count = u16::try_from(reports.len()).expect("few");
        let nodes = (0..=count).map(node).collect();
        Self {
            topology: Topology { nodes, ..Topology::empty("main") },
            reports,
            lossy: false,
            patient: false,
            elapsed: PATIENT,
        }
    }

    fn told(&mut self, name: &str) -> &mut Told {
        let report = self.reports.iter_mut().find(|report| &*report.name == name);
        report.and_then(|report| report.told.as_mut().ok()).expect("it answers")
    }

    fn next(&self, operation: &Operation) -> Next {
        let record = noted(self.reports.iter().map(|report| &*report.name), FLOOR);
        let facts = Facts {
            topology: &self.topology,
            reports: &self.reports,
            record: &record,
            lossy: self.lossy,
            elapsed: if self.patient { Duration::ZERO } else { self.elapsed },
            denied: &[],
            account: None,
            unfinished: None,
        };
        next(operation, &facts)
    }

    /// Does what is ordered, as MariaDB would.
    fn obey(&mut self, orders: Vec<Order>) {
        for Order { node, what } in orders {
            let report = self.reports.iter_mut().find(|report| report.node == node);
            let told = report.and_then(|report| report.told.as_mut().ok()).expect("it answers");
            match what {
                What::StopReceiver => told.sources[0].receiver_stopped = true,
                What::StartApplier => told.sources[0].applying = true,
                What::Detach => told.sources.clear(),
                What::Repoint(place) => {
                    told.sources[0].host = place.host;
                    told.sources[0].receiver_stopped = false;
                    told.received = told.applied.clone();
                }
                What::Settle(statement) => {
                    let words: Vec<&str> = statement.split(' ').collect();
                    told.variables.insert(words[2].to_owned(), words[4].to_owned());
                }
                What::Open => {
                    told.variables.insert("read_only".to_owned(), "OFF".to_owned());
                }
                other => panic!("{other:?} is no step of a failover"),
            }
        }
    }

    /// Goes on until it is over: the stages, and the end.
    fn fail_over(&mut self) -> (Vec<String>, Next) {
        let mut operation = Operation::failover("db1");
        let mut steps = Vec::new();
        for _ in 0..30 {
            match self.next(&operation) {
                Next::Act(orders) => {
                    for order in &orders {
                        let at = order.node.0 + 1;
                        steps.push(format!("db{at} {}", order.what.describe()));
                    }
                    self.obey(orders);
                }
                Next::Enter(next) => operation = next,
                Next::Wait(_) => {
                    // Appliers do their work meanwhile.
                    for report in &mut self.reports {
                        let Ok(told) = &mut report.told else { continue };
                        if told.sources.iter().any(|source| source.applying) {
                            told.applied = told.received.clone();
                        }
                    }
                }
                end => return (steps, end),
            }
        }
        panic!("it goes round in circles: {steps:?}");
    }
}

#[test]
fn who_has_received_most_is_promoted_after_it_has_applied_it() {
    let mut group = Group::of(vec![replica(2, "0-1-8", "0-1-8"), replica(3, "0-1-9", "0-1-5")]);
    let (steps, end) = group.fail_over();
    assert_eq!(end, Next::Done, "{steps:?}");
    assert_eq!(steps[..2], ["db2 receive no more", "db3 receive no more"]);
    assert_eq!(steps[2], "db3 forget its source");
    assert_eq!(steps[3], "db2 replicate from db3:3306");
    assert_eq!(steps.last().expect("a step"), "db3 take writes");
    assert!(group.told("db3").applied.contains(&set("0-1-9")));
    let opened = steps.iter().position(|step| step == "db3 take writes");
    let lossless = "db3 SET GLOBAL rpl_semi_sync_master_enabled = ON";
    // Only what a server has can be set.
    assert!(steps.iter().position(|step| step == lossless) < opened, "{steps:?}");
}

#[test]
fn an_applier_runs_before_its_receiver_is_stopped() {
    let mut group = Group::of(vec![replica(2, "0-1-9", "0-1-5")]);
    group.told("db2").sources[0].applying = false;
    let (steps, end) = group.fail_over();
    assert_eq!(steps[..2], ["db2 apply what it has received", "db2 receive no more"]);
    assert_eq!(end, Next::Done);
}

#[test]
fn a_replica_of_which_both_threads_are_stopped_is_not_started() {
    let mut group = Group::of(vec![replica(2, "0-1-9", "0-1-5"), replica(3, "0-1-8", "0-1-8")]);
    let source = &mut group.told("db2").sources[0];
    (source.applying, source.receiver_stopped) = (false, true);
    let (steps, end) = group.fail_over();
    assert!(steps.iter().all(|step| !step.starts_with("db2")), "{steps:?}");
    let Next::GiveUp(why) = end else { panic!("{end:?}") };
    assert_eq!(why, "db2 has received what db3, which could be promoted, has not");
    group.lossy = true;
    assert_eq!(group.fail_over().1, Next::Done);
}

#[test]
fn nobody_is_promoted_who_has_not_fetched_what_its_source_began_with() {
    let mut group = Group::of(vec![replica(2, "0-1-4", "0-1-4")]);
    let Next::GiveUp(why) = group.fail_over().1 else { panic!("it goes on") };
    assert!(why.contains("became the primary or a replica was started anew: 0-1-5 ("), "{why}");
    group.lossy = true;
    assert_eq!(group.fail_over().1, Next::Done);
}

#[test]
fn without_one_that_may_have_acknowledged_there_is_no_failover() {
    let refused = Failure::new(FailureKind::Unreachable, "refused");
    let silent = Report { told: Err(refused), ..replica(3, "", "") };
    let mut group = Group::of(vec![replica(2, "0-1-8", "0-1-8"), silent]);
    let (steps, end) = group.fail_over();
    assert!(steps.is_empty(), "{steps:?}");
    let Next::GiveUp(why) = end else { panic!("{end:?}") };
    assert!(why.starts_with("db3, which may have acknowledged"), "{why}");
    group.lossy = true;
    assert_eq!(group.fail_over().1, Next::Done);
}

#[test]
fn one_that_was_started_anew_may_have_forgotten_what_it_acknowledged() {
    let mut group = Group::of(vec![replica(2, "0-1-8", "0-1-8"), replica(3, "0-1-8", "0-1-8")]);
    let mut up = |seconds: &str| {
        let told = group.told("db3");
        told.counters.insert("uptime".to_owned(), seconds.to_owned());
        group.next(&Operation::failover("db1"))
    };
    assert!(matches!(up("58"), Next::Act(_)));
    let Next::GiveUp(why) = up("57") else { panic!("it goes on") };
    assert!(why.starts_with("db3 was started anew since db1"), "{why}");
    group.told("db3").flavour = Flavour::MySql;
    assert!(matches!(group.next(&Operation::failover("db1")), Next::Act(_)));
}

#[test]
fn one_that_has_lost_its_relay_log_is_not_promoted() {
    let mut group = Group::of(vec![replica(2, "0-1-9", "0-1-5")]);
    group.told("db2").sources[0].receiver_stopped = true;
    let begun = Operation {
        stage: Stage::Drain,
        heir: Some("db2".to_owned()),
        wanted: "0-1-9".to_owned(),
        ..Operation::failover("db1")
    };
    assert!(matches!(group.next(&begun), Next::Wait(_)));
    group.told("db2").received = set("0-1-5");
    let Next::GiveUp(why) = group.next(&begun) else { panic!("it goes on") };
    assert!(why.contains("lost what it had received"), "{why}");
}

#[test]
fn others_are_given_time_to_apply_what_they_would_forget() {
    let mut group = Group::of(vec![replica(2, "0-1-9", "0-1-5"), replica(3, "0-1-9", "0-1-9")]);
    let begun = Operation {
        stage: Stage::Drain,
        heir: Some("db3".to_owned()),
        wanted: "0-1-9".to_owned(),
        ..Operation::failover("db1")
    };
    for name in ["db2", "db3"] {
        group.told(name).sources[0].receiver_stopped = true;
    }
    group.patient = true;
    assert_eq!(group.next(&begun), Next::Wait("db2 applies what it has received".to_owned()));
    group.patient = false;
    assert!(matches!(group.next(&begun), Next::Enter(at) if at.stage == Stage::Establish));
}

/// A failover from db1 to db2 at this stage, and its group: db3 replicates, too.
fn half_way(stage: Stage) -> (Operation, Group) {
    let mut group = Group::of(vec![replica(2, "0-1-9", "0-1-9"), replica(3, "0-1-9", "0-1-9")]);
    for name in ["db2", "db3"] {
        group.told(name).sources[0].receiver_stopped = true;
    }
    let (heir, wanted) = (Some("db2".to_owned()), "0-1-9".to_owned());
    (Operation { stage, heir, wanted, ..Operation::failover("db1") }, group)
}

#[test]
fn a_replica_that_is_started_anew_on_the_way_is_stopped_again() {
    for stage in [Stage::Drain, Stage::Establish] {
        let (begun, mut group) = half_way(stage);
        group.told("db3").sources[0].receiver_stopped = false;
        let stop = Order { node: NodeId(2), what: What::StopReceiver };
        assert_eq!(group.next(&begun), Next::Act(vec![stop]), "{stage:?}");
        // What it has acknowledged meanwhile is not left behind.
        let told = group.told("db3");
        told.sources[0].receiver_stopped = true;
        told.received = set("0-1-10");
        let anew = Next::Enter(Operation::failover("db1"));
        assert_eq!(group.next(&begun), anew, "{stage:?}");
    }
}

#[test]
fn an_heir_that_has_received_more_applies_it_before_it_forgets_its_source() {
    let (begun, mut group) = half_way(Stage::Establish);
    group.told("db2").received = set("0-1-10");
    let Next::Enter(next) = group.next(&begun) else { panic!("it forgets") };
    assert_eq!((next.stage, &*next.wanted), (Stage::Drain, "0-1-10"));
}

#[test]
fn nobody_is_opened_while_one_may_acknowledge_what_the_failed_primary_commits() {
    let (begun, mut group) = half_way(Stage::Establish);
    for _ in 0..2 {
        let Next::Act(orders) = group.next(&begun) else { break };
        group.obey(orders);
    }
    assert!(matches!(group.next(&begun), Next::Enter(next) if next.stage == Stage::Open));
    let refused = Failure::new(FailureKind::Unreachable, "refused");
    group.reports[1].told = Err(refused);
    let Next::Wait(why) = group.next(&begun) else { panic!("it goes on") };
    assert!(why.starts_with("db3 would follow db1 again"), "{why}");
    group.lossy = true;
    assert!(matches!(group.next(&begun), Next::Enter(next) if next.stage == Stage::Open));
}

#[test]
fn who_cannot_follow_the_heir_forgets_the_failed_primary_all_the_same() {
    let (begun, mut group) = half_way(Stage::Establish);
    group.told("db2").sources.clear();
    group.told("db3").variables.insert("log_bin".to_owned(), "OFF".to_owned());
    let Next::Act(orders) = group.next(&begun) else { panic!("it goes on") };
    assert!(orders.contains(&Order { node: NodeId(2), what: What::Detach }), "{orders:?}");
}

#[test]
fn an_heir_that_was_started_anew_is_made_ready_again_and_one_that_is_dead_is_the_primary() {
    let (begun, mut group) = half_way(Stage::Open);
    group.told("db2").sources.clear();
    let Next::Act(orders) = group.next(&begun) else { panic!("it is opened") };
    let first = &orders[0].what;
    assert_eq!(first.describe(), "SET GLOBAL rpl_semi_sync_master_enabled = ON");
    group.obey(orders);
    let open = Order { node: NodeId(1), what: What::Open };
    assert_eq!(group.next(&begun), Next::Act(vec![open]));
    let refused = Failure::new(FailureKind::Unreachable, "refused");
    group.reports[0].told = Err(refused);
    assert!(matches!(group.next(&begun), Next::Wait(_)));
    group.elapsed = OPEN_MAX;
    assert_eq!(group.next(&begun), Next::Done);
}

#[test]
fn what_is_given_up_is_undone_where_nothing_is_lost_by_it() {
    let mut group = Group::of(vec![replica(2, "0-1-9", "0-1-5"), replica(3, "0-1-8", "0-1-8")]);
    group.told("db2").sources[0].receiver_stopped = true;
    let source = &mut group.told("db3").sources[0];
    (source.applying, source.receiver_stopped) = (false, true);
    assert_eq!(undo(&group.reports), [Order { node: NodeId(1), what: What::StartReceiver }]);
}
