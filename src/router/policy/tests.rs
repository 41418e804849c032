//! One small cluster, and the questions that decide where a statement runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::router::classify;
use crate::router::tests::dialect;
use crate::topology::{Condition, Flavour, ServerFacts, Transport, fixture};

pub(crate) fn node(id: u16, weight: u32) -> Node {
    Node {
        role: if id == 0 { Role::Primary } else { Role::Replica },
        weight,
        lag: Some(Duration::ZERO),
        read_only: id != 0,
        facts: Some(Arc::new(facts())),
        ..fixture::node(id, &format!("n{id}"))
    }
}

fn facts() -> ServerFacts {
    ServerFacts {
        flavour: Flavour::MariaDb,
        version: 101_119,
        version_text: Arc::from(""),
        capabilities: 0,
        mariadb_capabilities: 0,
        collation: 45,
        status: 2,
        auth_plugin: Arc::from(""),
        server_id: 1,
        server_uuid: Arc::from(""),
        max_allowed_packet: 1 << 24,
        wait_timeout: 28_800,
        interactive_timeout: 28_800,
        storage_engine: "InnoDB".into(),
        query_cache: false,
        session_defaults: "".into(),
        trackers: "".into(),
        sql_mode: Arc::from(""),
        max_connections: 151,
        require_secure_transport: false,
        init_connect: false,
        transport: Transport::Clear,
        sees_us_as: Arc::from(""),
    }
}

fn cluster() -> Topology {
    let mut topology = Topology::empty("main");
    topology.nodes = vec![node(0, 1), node(1, 1), node(2, 1)];
    topology.primary = Some(NodeId(0));
    topology
}

fn group(consistency: Consistency) -> Group {
    Group { name: Arc::from("main"), consistency, ..Group::default() }
}

fn view(token: &GtidSet) -> View<'_> {
    View {
        pin: None,
        in_transaction: false,
        autocommit: true,
        serializable: false,
        last: None,
        replica: None,
        token,
        floor: None,
        caught_up: None,
        user_vars_restorable: true,
        has_defined: false,
        refused_before: false,
        avoid: 0,
        settings_changed: None,
        tables_locked: false,
    }
}

fn class(sql: &str) -> Class {
    classify(sql.as_bytes(), &dialect(Flavour::MariaDb))
}

struct Case<'a> {
    topology: Topology,
    group: Group,
    view: View<'a>,
}

impl<'a> Case<'a> {
    fn new(token: &'a GtidSet) -> Self {
        let group = group(Consistency::Session);
        Self { topology: cluster(), group, view: view(token) }
    }

    fn route(&self, sql: &str) -> Decision {
        let loads = |node| u32::from(node == NodeId(1));
        route(&class(sql), &self.view, &self.topology, &self.group, &loads, 0)
    }
}

fn to(node: u16, freshness: Freshness) -> Target {
    Target::Replica { node: NodeId(node), freshness }
}

const PRIMARY: Target = Target::Primary;

fn decision(target: Target, reason: Reason) -> Decision {
    Decision { target, reason }
}

#[test]
fn reads_go_to_the_least_loaded_replica_and_writes_to_the_primary() {
    let token = GtidSet::default();
    let case = Case::new(&token);
    let read = case.route("SELECT 1");
    assert_eq!(read, decision(to(2, Freshness::Known), Reason::PlainRead));
    assert_eq!(case.route("DELETE FROM t"), decision(PRIMARY, Reason::Write));
    assert_eq!(case.route("SELECT f()"), decision(PRIMARY, Reason::Function));
}

#[test]
fn what_binds_the_session_comes_first() {
    let token = GtidSet::default();
    let mut case = Case::new(&token);
    case.view.pin = Some(Held::Replica);
    let pinned = decision(Target::Held(Held::Replica), Reason::Pinned);
    assert_eq!(case.route("DELETE FROM t"), pinned);
    case.view.pin = None;
    case.view.in_transaction = true;
    let transaction = decision(Target::Held(Held::Primary), Reason::Transaction);
    assert_eq!(case.route("SELECT 1"), transaction);
    case.view.in_transaction = false;
    case.view.autocommit = false;
    assert_eq!(case.route("SELECT 1"), decision(PRIMARY, Reason::Transaction));
}

#[test]
fn questions_about_the_previous_statement_follow_it() {
    let token = GtidSet::default();
    let mut case = Case::new(&token);
    assert_eq!(case.route("SHOW WARNINGS"), decision(PRIMARY, Reason::PreviousStatement));
    case.view.last = Some(Held::Replica);
    let there = decision(Target::Held(Held::Replica), Reason::PreviousStatement);
    assert_eq!(case.route("SELECT FOUND_ROWS()"), there);
}

#[test]
fn a_hint_moves_reads_only() {
    let token = GtidSet::default();
    let mut case = Case::new(&token);
    case.group.primary_read_percent = 100;
    let sql = "SELECT 1 /* pointsman: primary */";
    assert_eq!(case.route(sql), decision(PRIMARY, Reason::Hint));
    assert_eq!(case.route("SELECT 1"), decision(PRIMARY, Reason::PrimaryShare));
    for sql in ["SELECT 1 /* route: replica */", "SHOW PROCESSLIST /* route: replica */"] {
        assert_eq!(case.route(sql), decision(to(2, Freshness::Known), Reason::Hint), "{sql}");
    }
    for sql in [
        "/* route: replica */ DELETE FROM t",
        "/* route: replica */ SELECT @@hostname FOR UPDATE",
        "/* route: replica */ SELECT GET_LOCK(@@hostname, 1)",
        "/* route: replica */ SHOW STATUS; DELETE FROM t",
        "/* route: replica */ SHOW STATUS WHERE f() = 1",
    ] {
        assert_eq!(case.route(sql).target, PRIMARY, "{sql}");
    }
}

#[test]
fn a_read_only_transaction_goes_to_one_replica() {
    let token = GtidSet::default();
    let mut case = Case::new(&token);
    let there = decision(to(2, Freshness::Known), Reason::ReadOnlyTransaction);
    assert_eq!(case.route("START TRANSACTION READ ONLY"), there);
    let sql = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
    assert_eq!(case.route(sql).target, PRIMARY);
    assert_eq!(case.route("START TRANSACTION READ ONLY; DELETE FROM t").target, PRIMARY);
    case.view.serializable = true;
    assert_eq!(case.route("START TRANSACTION READ ONLY").target, PRIMARY);
}

#[test]
fn unusable_replicas_leave_the_read_to_the_primary() {
    let token = GtidSet::default();
    let mut case = Case::new(&token);
    case.topology.nodes[2].condition = Condition::Suspect;
    assert_eq!(case.route("SELECT 1").target, to(2, Freshness::Known));
    case.topology.nodes[2].condition = Condition::Down;
    assert_eq!(case.route("SELECT 1").target, to(1, Freshness::Known));
    case.topology.nodes[1].lag = Some(Duration::from_secs(11));
    assert_eq!(case.route("SELECT 1"), decision(PRIMARY, Reason::Lagging));
    case.topology.nodes[1].lag = None;
    assert_eq!(case.route("SELECT 1"), decision(PRIMARY, Reason::Lagging));
    case.topology.nodes[1].applying = false;
    assert_eq!(case.route("SELECT 1"), decision(PRIMARY, Reason::NoReplica));
}

#[test]
fn a_replica_with_other_settings_than_the_primary_serves_no_reads() {
    let token = GtidSet::default();
    let mut case = Case::new(&token);
    case.topology.nodes[2].alike = false;
    assert_eq!(case.route("SELECT 1").target, to(1, Freshness::Known));
    case.topology.nodes[1].alike = false;
    assert_eq!(case.route("SELECT 1"), decision(PRIMARY, Reason::SettingsDiffer));
}

#[test]
fn after_a_change_of_settings_only_later_observations_count() {
    let token = GtidSet::default();
    let mut case = Case::new(&token);
    let begun = Instant::now();
    for node in &mut case.topology.nodes {
        node.observed_at = Some(begun);
    }
    case.view.settings_changed = Some(begun + Duration::from_millis(1));
    assert_eq!(case.route("SELECT 1"), decision(PRIMARY, Reason::SettingsDiffer));
    for node in &mut case.topology.nodes {
        node.observed_at = Some(begun + Duration::from_millis(2));
    }
    assert_eq!(case.route("SELECT 1").target, to(2, Freshness::Known));
    case.topology.nodes[0].observed_at = Some(begun);
    assert_eq!(case.route("SELECT 1"), decision(PRIMARY, Reason::SettingsDiffer));
}

#[test]
fn an_unrestorable_variable_or_an_earlier_refusal_keeps_a_read_on_the_primary() {
    let token = GtidSet::default();
    let mut case = Case::new(&token);
    assert_eq!(case.route("SELECT @a").target, to(2, Freshness::Known));
    case.view.user_vars_restorable = false;
    assert_eq!(case.route("SELECT @a"), decision(PRIMARY, Reason::SessionState));
    case.view.refused_before = true;
    assert_eq!(case.route("SELECT 1"), decision(PRIMARY, Reason::RefusedBefore));
}

#[test]
fn who_has_defined_tables_sees_them_as_the_primary_has_made_them() {
    let token = GtidSet::default();
    let mut case = Case::new(&token);
    let metadata = [
        "SHOW CREATE TABLE t",
        "SHOW TABLE STATUS",
        "SHOW INDEX FROM t",
        "DESCRIBE t",
        "SELECT cardinality FROM information_schema.STATISTICS",
    ];
    for sql in metadata {
        assert_eq!(case.route(sql).target, to(2, Freshness::Known), "{sql}");
    }
    case.view.has_defined = true;
    for sql in metadata {
        assert_eq!(case.route(sql), decision(PRIMARY, Reason::SessionState), "{sql}");
    }
    for sql in ["SELECT a FROM t", "EXPLAIN SELECT a FROM t", "SHOW COLLATION"] {
        assert_eq!(case.route(sql).target, to(2, Freshness::Known), "{sql}");
    }
    assert_eq!(case.route("SHOW TABLES /* pointsman: replica */").reason, Reason::Hint);
}

#[test]
fn a_session_that_saw_more_than_its_token_asks_the_primary_first() {
    let token = GtidSet::default();
    let mut case = Case::new(&token);
    let now = Instant::now();
    case.view.floor = Some(now);
    assert_eq!(case.route("SELECT 1").target, to(2, Freshness::AskThenWait));
    // It stays where it was proven fresh, whatever the load there.
    case.view.replica = Some(NodeId(1));
    case.view.caught_up = Some(NodeId(1));
    assert_eq!(case.route("SELECT 1").target, to(1, Freshness::Known));
    case.view.caught_up = None;
    case.topology.primary = None;
    assert_eq!(case.route("SELECT 1").target, to(1, Freshness::Wait));
    case.view.replica = None;
    assert_eq!(case.route("SELECT 1"), decision(PRIMARY, Reason::NotCaughtUp));
    // What the last primary had was read after the session last looked, and all have it.
    let former = Node { observed_at: Some(now), ..node(0, 1) };
    case.topology.former = Some(Arc::new(former));
    assert_eq!(case.route("SELECT 1").target, to(2, Freshness::Known));
    case.topology.former = None;
    // The primary's position was read after the session last looked, and all have it.
    case.topology.primary = Some(NodeId(0));
    case.topology.nodes[0].observed_at = Some(now);
    assert_eq!(case.route("SELECT 1").target, to(2, Freshness::Known));
}

#[test]
fn global_consistency_always_asks_and_eventual_never_does() {
    let token = GtidSet::default();
    let mut case = Case::new(&token);
    case.view.tables_locked = true;
    assert_eq!(case.route("SELECT 1").target, to(2, Freshness::Known));
    case.group.consistency = Consistency::Global;
    assert_eq!(case.route("SELECT 1"), decision(PRIMARY, Reason::NotCaughtUp));
    case.view.tables_locked = false;
    assert_eq!(case.route("SELECT 1").target, to(2, Freshness::AskThenWait));
    case.topology.primary = None;
    assert_eq!(case.route("SELECT 1").target, PRIMARY);
    case.group.consistency = Consistency::Eventual;
    case.view.floor = Some(Instant::now());
    assert_eq!(case.route("SELECT 1").target, to(2, Freshness::Known));
}
