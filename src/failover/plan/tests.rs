//! Failovers step by step, with servers that do what they are told.

use std::sync::Arc;

use super::*;
use crate::failover::fixture::{STARTED, mariadb_at, noted, report};
use crate::failover::relay::Relay;
use crate::failover::report::Made;
use crate::health::fixture::seen;
use crate::health::observation::{Failure, FailureKind, LogPlace, Source};
use crate::topology::ServerFacts;
use crate::topology::fixture::node;

/// db1 is dead; db2, db3 ... replicate from it.
struct Group {
    topology: Topology,
    reports: Vec<Report>,
    lossy: bool,
    patient: bool,
    elapsed: Duration,
    record: Record,
    orphans: Orphans,
    acknowledged: String,
    is_all_heard: bool,
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
        let record = noted(reports.iter().map(|report| &*report.name), FLOOR);
        Self {
            topology: Topology { nodes, ..Topology::empty("main") },
            reports,
            lossy: false,
            patient: false,
            elapsed: PATIENT,
            record,
            orphans: Orphans::Stay,
            acknowledged: String::new(),
            is_all_heard: true,
        }
    }

    fn told(&mut self, name: &str) -> &mut Told {
        let report = self.reports.iter_mut().find(|report| &*report.name == name);
        report.and_then(|report| report.told.as_mut().ok()).expect("it answers")
    }

    fn next(&self, operation: &Operation) -> Next {
        self.with_facts(|facts| next(operation, facts))
    }

    fn with_facts<T>(&self, then: impl FnOnce(&Facts<'_>) -> T) -> T {
        then(&Facts {
            orphans: self.orphans,
            topology: &self.topology,
            reports: &self.reports,
            record: &self.record,
            lossy: self.lossy,
            elapsed: if self.patient { Duration::ZERO } else { self.elapsed },
            denied: &[],
            accounts: None,
            unfinished: None,
            acknowledged: &self.acknowledged,
            is_all_heard: self.is_all_heard,
        })
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
                What::Close => {
                    told.variables.insert("read_only".to_owned(), "ON".to_owned());
                }
                What::Open => {
                    told.variables.insert("read_only".to_owned(), "OFF".to_owned());
                }
                What::Rescue(_) => {
                    (told.sources[0].by_gtid, told.sources[0].applying) = (false, true);
                    told.relay = None;
                }
                What::ByGtid => {
                    (told.sources[0].by_gtid, told.sources[0].applying) = (true, false);
                }
                What::LockOut(users) => {
                    let made = told.made.as_mut().expect("it is seen");
                    made.open.retain(|user| !users.contains(user));
                }
                What::LetIn(users) => {
                    let made = told.made.as_mut().expect("it is seen");
                    made.locked.retain(|user| !users.contains(user));
                }
                other => panic!("{other:?} is no step of a failover"),
            }
        }
    }

    /// As the keeper does before it has it done.
    fn note_rescued(&mut self, orders: &[Order]) {
        for order in orders.iter().filter(|order| matches!(order.what, What::Rescue(_))) {
            let report = self.reports.iter().find(|report| report.node == order.node);
            let report = report.expect("it is there");
            let told = report.told().expect("it answers");
            let Some(Ok(relay)) = &told.relay else { panic!("{told:?}") };
            let (name, received) = (report.name.to_string(), relay.received.to_string());
            self.record.rescued.insert(name, received);
        }
    }

    /// Goes on until it is over: the stages, and the end.
    fn fail_over(&mut self) -> (Vec<String>, Next) {
        let mut operation = Operation::failover("db1");
        let mut steps = Vec::new();
        for _ in 0..30 {
            match self.next(&operation) {
                Next::Act(orders) => {
                    self.note_rescued(&orders);
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

/// Two replicas of which the first has 6 to 9 in its relay log only, and was started anew.
fn with_a_relay_log(outlived: bool) -> Group {
    let mut group = Group::of(vec![replica(2, "0-1-9", "0-1-5"), replica(3, "0-1-8", "0-1-8")]);
    let told = group.told("db2");
    (told.sources[0].applying, told.sources[0].receiver_stopped) = (false, true);
    told.started = Some(STARTED + 40);
    told.variables.insert("sync_relay_log".to_owned(), "1".to_owned());
    let next = Some(LogPlace { file: "relay.000004".to_owned(), at: 654 });
    told.relay = Some(Ok(Relay { next, received: set("0-1-9"), outlived }));
    group
}

#[test]
fn what_a_restart_has_left_in_a_relay_log_is_applied_first() {
    let mut group = with_a_relay_log(true);
    let (steps, end) = group.fail_over();
    assert_eq!(end, Next::Done, "{steps:?}");
    assert_eq!(steps[0], "db2 apply its relay log from relay.000004:654 on");
    let by_gtid = steps.iter().position(|step| step == "db2 go by GTID again");
    let opened = steps.iter().position(|step| step == "db2 take writes");
    assert!(by_gtid.is_some() && by_gtid < opened, "{steps:?}");
    assert!(group.told("db2").applied.contains(&set("0-1-9")));
    // One that was only stopped tells of it, and has it there.
    let mut group = with_a_relay_log(false);
    group.told("db2").started = Some(STARTED);
    assert_eq!(group.fail_over().1, Next::Done);
    let mut group = with_a_relay_log(false);
    group.told("db2").started = Some(STARTED);
    let Some(Ok(relay)) = &mut group.told("db2").relay else { panic!("it has one") };
    relay.received = set("0-1-8");
    assert!(matches!(group.fail_over().1, Next::GiveUp(_)), "it lacks one");
}

#[test]
fn an_heir_that_was_started_just_now_is_waited_for_but_not_for_ever() {
    let mut group = Group::of(vec![replica(2, "0-1-8", "0-1-8")]);
    let told = group.told("db2");
    told.counters.insert("uptime".to_owned(), "2".to_owned());
    told.sources.clear();
    for name in ["rpl_semi_sync_master_enabled", "rpl_semi_sync_master_wait_point"] {
        told.variables.remove(name);
    }
    let heir = Some("db2".to_owned());
    let begun = Operation { stage: Stage::Establish, heir, ..Operation::failover("db1") };
    let Next::Wait(why) = group.next(&begun) else { panic!("it goes on") };
    assert_eq!(why, "db2 was started just now");
    group.elapsed = YOUNG_MAX;
    assert!(matches!(group.next(&begun), Next::Enter(_)));
    group.elapsed = PATIENT;
    group.told("db2").counters.insert("uptime".to_owned(), "3".to_owned());
    assert!(matches!(group.next(&begun), Next::Enter(_)));
}

#[test]
fn a_relay_log_that_may_lack_something_or_cannot_be_applied_is_no_reason_to_go_on() {
    let why = |group: &mut Group| match group.fail_over().1 {
        Next::GiveUp(why) => why,
        other => panic!("{other:?}"),
    };
    let mut group = with_a_relay_log(false);
    assert!(why(&mut group).contains("MariaDB has deleted"));
    group.told("db2").variables.remove("sync_relay_log");
    assert!(why(&mut group).contains("sync_relay_log is not 1"));
    group.told("db2").relay = Some(Err("it is too long".to_owned()));
    assert!(why(&mut group).contains("MariaDB may have deleted"));
    // It had been found to be whole, and something happened on the way.
    let mut group = with_a_relay_log(true);
    group.record.rescued.insert("db2".to_owned(), "0-1-9".to_owned());
    group.told("db2").relay = None;
    assert!(why(&mut group).contains("db2 had received 0-1-9, and has lost it"));
    let source = &mut group.told("db2").sources[0];
    (source.by_gtid, source.applier_failed) = (false, true);
    "1062: duplicate".clone_into(&mut source.error);
    assert!(why(&mut group).ends_with("is in its relay log: 1062: duplicate"));
}

#[test]
fn who_was_evicted_cannot_log_in_at_the_heir_and_members_can() {
    let mut group = Group::of(vec![replica(2, "0-1-8", "0-1-8"), replica(3, "0-1-8", "0-1-8")]);
    let account = |name: &str| BTreeSet::from([name.to_owned()]);
    group.record.members = ["db1", "db2", "db3"].map(str::to_owned).into();
    group.record.locked.insert("db4".to_owned(), account("of4"));
    group.record.accounts.insert("db3".to_owned(), account("of3"));
    group.told("db2").made = Some(Made { open: account("of4"), locked: account("of3") });
    let (steps, end) = group.fail_over();
    assert_eq!(end, Next::Done, "{steps:?}");
    let at = |what: &str| steps.iter().position(|step| step == what);
    let opened = at("db2 take writes");
    assert!(at("db2 let nobody log in by of4").is_some_and(|at| Some(at) < opened), "{steps:?}");
    assert!(at("db2 let replicas log in by of3").is_some_and(|at| Some(at) < opened), "{steps:?}");
    // Where that cannot be seen nobody is opened.
    let mut group = Group::of(vec![replica(2, "0-1-8", "0-1-8")]);
    group.record.locked.insert("db4".to_owned(), account("of4"));
    group.told("db2").sources.clear();
    let begun = Operation {
        stage: Stage::Establish,
        heir: Some("db2".to_owned()),
        ..Operation::failover("db1")
    };
    let Next::Wait(why) = group.next(&begun) else { panic!("it goes on") };
    assert!(why.ends_with("cannot be seen"), "{why}");
}

#[test]
fn nobody_is_promoted_who_has_not_fetched_what_its_source_began_with() {
    let mut group = Group::of(vec![replica(2, "0-1-4", "0-1-4")]);
    let Next::GiveUp(why) = group.fail_over().1 else { panic!("it goes on") };
    assert!(why.contains("became the primary or a replica was started anew: 0-1-5 ("), "{why}");
    group.lossy = true;
    assert_eq!(group.fail_over().1, Next::Done);
}

/// Whatever servers and the record say: what clients were told of is there, or nobody is promoted.
#[test]
fn nobody_is_promoted_who_lacks_what_clients_were_told_of() {
    let mut group = Group::of(vec![replica(2, "0-1-9", "0-1-9"), replica(3, "0-1-9", "0-1-9")]);
    group.acknowledged = "0-1-10,0-1-8".to_owned();
    let (steps, end) = group.fail_over();
    assert_eq!(steps, ["db2 receive no more", "db3 receive no more"]);
    let Next::GiveUp(why) = end else { panic!("{end:?}") };
    assert!(why.contains("has not received 0-1-10, of which clients were told"), "{why}");
    // It may be the one that has received it and has not applied it yet.
    *group.told("db3") = replica(3, "0-1-10", "0-1-5").told.expect("it answers");
    let (steps, end) = group.fail_over();
    assert_eq!((steps.last().map(String::as_str), end), (Some("db3 take writes"), Next::Done));
}

#[test]
fn what_clients_were_told_of_may_be_lost_where_that_is_allowed_and_is_named() {
    let mut group = Group::of(vec![replica(2, "0-1-9", "0-1-9")]);
    (group.lossy, group.acknowledged) = (true, "0-1-10".to_owned());
    assert_eq!(group.fail_over().1, Next::Done);
    let (begun, mut group) = half_way(Stage::Drain);
    group.acknowledged = "0-1-10".to_owned();
    let lost = group.with_facts(|facts| lost(&begun, facts));
    assert_eq!(lost, Some(set("0-1-10")));
}

#[test]
fn what_clients_of_other_pointsman_were_told_of_is_asked_for_before_anything_is_turned() {
    let (begun, mut group) = half_way(Stage::Drain);
    (group.is_all_heard, group.patient) = (false, true);
    let Next::Wait(why) = group.next(&begun) else { panic!("it goes on") };
    assert!(why.contains("asking the other pointsman"), "{why}");
    group.patient = false;
    assert!(matches!(group.next(&begun), Next::Enter(at) if at.stage == Stage::Establish));
    (group.is_all_heard, group.acknowledged) = (true, "0-1-10".to_owned());
    let Next::GiveUp(why) = group.next(&begun) else { panic!("it goes on") };
    assert!(why.starts_with("db2 has not 0-1-10, of which clients were told"), "{why}");
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
    let mut started = |second| {
        group.told("db3").started = second;
        group.next(&Operation::failover("db1"))
    };
    assert!(matches!(started(Some(STARTED)), Next::Act(_)));
    assert!(matches!(started(None), Next::GiveUp(_)), "it does not say");
    let Next::GiveUp(why) = started(Some(STARTED + 1)) else { panic!("it goes on") };
    assert!(why.starts_with("db3 was started anew since db1"), "{why}");
    group.told("db3").flavour = Flavour::MySql;
    assert!(matches!(group.next(&Operation::failover("db1")), Next::Act(_)));
    let recovery = ("relay_log_recovery".to_owned(), "ON".to_owned());
    group.told("db3").variables.extend([recovery]);
    let Next::GiveUp(why) = group.next(&Operation::failover("db1")) else { panic!("it goes on") };
    assert!(why.contains("relay_log_recovery has deleted"), "{why}");
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

/// MariaDB tells of it the id of the failed primary until it has connected to the heir.
#[test]
fn a_replica_that_was_just_turned_to_the_heir_is_not_stopped() {
    let (begun, mut group) = half_way(Stage::Establish);
    let facts = ServerFacts { server_id: 1, ..ServerFacts::clone(&seen(1).facts) };
    group.topology.nodes[0].facts = Some(Arc::new(facts));
    for _ in 0..2 {
        let Next::Act(orders) = group.next(&begun) else { break };
        group.obey(orders);
    }
    assert_eq!(group.told("db3").sources[0].server_id, 1, "it has connected nowhere yet");
    assert!(matches!(group.next(&begun), Next::Enter(next) if next.stage == Stage::Open));
    // By another name it is known by its id.
    group.told("db3").sources[0].host = "primary.local".to_owned();
    assert!(!matches!(group.next(&begun), Next::Enter(_)));
}

/// Another pointsman has told it to apply what was left in its relay log, and noted how much.
#[test]
fn nobody_is_promoted_while_one_may_have_more_than_it_tells() {
    for orphans in [Orphans::Stay, Orphans::MayLead] {
        let mut group = Group::of(vec![replica(2, "0-1-9", "0-1-9"), replica(3, "0-1-7", "0-1-7")]);
        group.orphans = orphans;
        group.told("db3").sources[0].by_gtid = false;
        let next = group.next(&Operation::failover("db1"));
        let is_lost = matches!(&next, Next::GiveUp(why) if why.contains("db3 does not go by GTID"));
        assert_eq!(is_lost, orphans == Orphans::MayLead, "{next:?}");
        group.record.rescued.insert("db3".to_owned(), "0-1-8".to_owned());
        let next = group.next(&Operation::failover("db1"));
        assert!(!matches!(next, Next::GiveUp(_)), "{next:?}");
    }
}

/// An heir of another pointsman, which has opened it and not come further: nobody can be sent to
/// it, and nobody to another as long as that may change.
#[test]
fn an_heir_of_another_that_was_opened_and_has_no_replica_is_closed() {
    for orphans in [Orphans::Stay, Orphans::MayLead] {
        let (begun, mut group) = half_way(Stage::Establish);
        group.orphans = orphans;
        group.told("db3").sources.clear();
        group.told("db3").variables.insert("read_only".to_owned(), "OFF".to_owned());
        let mut closed = Vec::new();
        for _ in 0..3 {
            let Next::Act(orders) = group.next(&begun) else { break };
            closed.extend(orders.iter().filter(|at| at.what == What::Close).map(|at| at.node));
            group.obey(orders);
        }
        let expected = if orphans == Orphans::MayLead { vec![NodeId(2)] } else { Vec::new() };
        assert_eq!(closed, expected);
        assert!(matches!(group.next(&begun), Next::Enter(next) if next.stage == Stage::Open));
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
