//! Commits whose answer is lost, where a row tells their outcome.

use super::fixture::*;
use crate::config::failover::FailoverMode;
use crate::config::outcome::CommitOutcome;
use crate::protocol::reply;
use crate::protocol::session_track::Change;
use crate::session::action::{Event, Request, Resolved};
use crate::topology::NodeId;

const TABLE: &str = "INSERT INTO pointsman.commit_witness (link, number) VALUES \
                     (x'00000000000000000000000000000000', ";

/// A session of a group that knows outcomes, whose first link has made its row.
fn enrolled() -> Rig {
    let mut rig = Rig::new();
    rig.group.commit_outcome = CommitOutcome::Known;
    rig.group.failover.mode = FailoverMode::Auto;
    rig.client(&query("SET @a = 1"));
    rig.dialed(Primary);
    enrols(&mut rig);
    answers(&mut rig, "SET @a = 1", &ok(1, AUTO));
    rig.told();
    rig
}

fn enrols(rig: &mut Rig) {
    let sql = rig.sent_sql(Primary);
    assert!(sql.ends_with(", 0) ON DUPLICATE KEY UPDATE number = 0"), "{sql}");
    rig.server(Primary, &ok(1, AUTO));
}

fn answers(rig: &mut Rig, sql: &str, answer: &[u8]) {
    assert_eq!(rig.sent_sql(Primary), sql, "{rig:?}");
    rig.server(Primary, answer);
}

/// The row gets this number.
fn writes_row(rig: &mut Rig, number: u64) {
    let sql = format!("{TABLE}{number}) ON DUPLICATE KEY UPDATE number = {number}");
    answers(rig, &sql, &ok(1, OPEN));
}

fn asks_row(rig: &mut Rig, affected: u64, number: u64) {
    let sql = rig.sent_sql(Primary);
    assert!(sql.starts_with("UPDATE pointsman.commit_witness"), "{sql}");
    assert!(sql.ends_with("WHERE link = x'00000000000000000000000000000000'"), "{sql}");
    let mut answer = Vec::new();
    reply::Ok { status: AUTO, affected, insert_id: number, ..reply::Ok::default() }.encode(
        &mut answer,
        1,
        0x00,
        CAPS,
    );
    rig.server(Primary, &answer);
}

fn resolved(rig: &Rig, outcome: Resolved) -> usize {
    let is_it = |request: &&Request| matches!(request, Request::Resolved(o) if *o == outcome);
    rig.requests.iter().filter(is_it).count()
}

fn wrote() -> Vec<u8> {
    ok_with(1, OPEN, &[Change::TransactionState(b"T___W___")])
}

/// A COMMIT is on its way.
fn committing() -> Rig {
    let mut rig = enrolled();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.ask(Primary, "UPDATE t SET a = 2", &wrote());
    rig.client(&query("COMMIT"));
    writes_row(&mut rig, 1);
    assert_eq!(rig.sent_sql(Primary), "COMMIT");
    rig
}

/// The answer to a write was kept, and the end of its transaction is on its way.
fn ending() -> (Rig, Vec<u8>) {
    let mut rig = enrolled();
    rig.client(&query("INSERT INTO t VALUES (1)"));
    answers(&mut rig, "START TRANSACTION", &ok(1, OPEN));
    writes_row(&mut rig, 1);
    let answer = |status| {
        let mut out = Vec::new();
        reply::Ok { status, affected: 3, insert_id: 7, ..reply::Ok::default() }
            .encode(&mut out, 1, 0x00, CAPS);
        out
    };
    answers(&mut rig, "INSERT INTO t VALUES (1)", &answer(OPEN));
    assert!(rig.told().is_empty(), "it is not committed yet");
    assert_eq!(rig.sent_sql(Primary), "COMMIT AND NO CHAIN NO RELEASE");
    (rig, answer(AUTO))
}

/// The link is gone, and the next primary is there.
fn fails_over(rig: &mut Rig) {
    rig.event(Event::LinkClosed(Primary));
    assert!(rig.told().is_empty() && !rig.closed(), "{rig:?}");
    rig.topology(|topology| {
        topology.primary = Some(NodeId(1));
        topology.nodes.iter_mut().for_each(|node| {
            node.role = match node.id {
                NodeId(1) => crate::topology::Role::Primary,
                _ => crate::topology::Role::Replica,
            };
        });
    });
    while rig.wants_dial() {
        if rig.dialed(Primary) == 1 {
            return;
        }
        rig.event(Event::LinkClosed(Primary));
        rig.deadline();
    }
}

#[test]
fn a_commit_that_was_made_is_answered_ok() {
    let mut rig = committing();
    fails_over(&mut rig);
    asks_row(&mut rig, 1, 1);
    assert_eq!(rig.told(), ok(1, AUTO));
    assert_eq!(resolved(&rig, Resolved::Committed), 1);
    assert!(rig.session.can_leave());
}

#[test]
fn a_commit_that_was_not_made_is_made_on_the_next_primary() {
    let mut rig = committing();
    fails_over(&mut rig);
    asks_row(&mut rig, 1, 0);
    assert_eq!(resolved(&rig, Resolved::RolledBack), 1);
    enrols(&mut rig);
    assert_eq!(rig.sent_sql(Primary).split(' ').next(), Some("SET"));
    rig.server(Primary, &ok(1, AUTO));
    answers(&mut rig, "BEGIN", &ok(1, OPEN));
    answers(&mut rig, "UPDATE t SET a = 2", &wrote());
    let sql = rig.sent_sql(Primary);
    assert!(sql.ends_with("number = 1"), "{sql}");
    rig.server(Primary, &ok(1, OPEN));
    answers(&mut rig, "COMMIT", &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
}

#[test]
fn a_row_that_is_missing_or_has_another_number_proves_nothing() {
    for (affected, number) in [(0, 0), (1, 2), (1, 7)] {
        let mut rig = committing();
        fails_over(&mut rig);
        asks_row(&mut rig, affected, number);
        let (code, state, _) = rig.told_error();
        assert_eq!((code, state.as_str()), (1105, "08007"));
        assert!(rig.closed());
        assert_eq!(resolved(&rig, Resolved::Unknown), 1);
    }
}

#[test]
fn what_another_server_lacks_proves_nothing_where_somebody_else_promotes() {
    let mut rig = committing();
    rig.group.failover.mode = FailoverMode::Follow;
    fails_over(&mut rig);
    asks_row(&mut rig, 1, 0);
    assert_eq!(rig.told_error().1, "08007");
}

#[test]
fn where_nobody_can_be_asked_the_outcome_is_unknown() {
    let mut rig = committing();
    rig.no_primary();
    rig.event(Event::LinkClosed(Primary));
    while rig.deadline() {}
    assert_eq!(rig.told_error().1, "08007");
    // And where the next primary lets nobody in.
    let mut rig = committing();
    rig.event(Event::LinkClosed(Primary));
    rig.dial_failed(Primary, Some(err_payload(1045, "denied")));
    assert_eq!(rig.told_error().1, "08007");
}

#[test]
fn a_question_that_is_lost_is_asked_again() {
    let mut rig = committing();
    fails_over(&mut rig);
    assert!(rig.sent_sql(Primary).starts_with("UPDATE"));
    fails_over(&mut rig);
    asks_row(&mut rig, 1, 1);
    assert_eq!(rig.told(), ok(1, AUTO));
}

#[test]
fn a_transaction_that_has_only_read_bears_no_witness() {
    let mut rig = enrolled();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.ask(Primary, "SELECT a FROM t", &row("2", OPEN));
    assert_eq!(rig.ask(Primary, "COMMIT", &ok(1, AUTO)), ok(1, AUTO));
}

#[test]
fn what_one_transaction_has_written_says_nothing_of_the_next() {
    // A server that tells nothing of transactions (MariaDB's query cache) does not take it back.
    let mut rig = committing();
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.ask(Primary, "SELECT a FROM t", &row("2", OPEN));
    // Were it read-only, a row would be refused.
    rig.ask(Primary, "COMMIT", &ok(1, AUTO));
}

#[test]
fn a_write_alone_is_answered_when_it_is_committed() {
    let (mut rig, answer) = ending();
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), answer);
    assert!(rig.session.can_leave());
    // Its number counts on.
    rig.client(&query("DELETE FROM t"));
    answers(&mut rig, "START TRANSACTION", &ok(1, OPEN));
    writes_row(&mut rig, 2);
}

#[test]
fn a_write_alone_whose_commit_is_lost_keeps_its_answer_or_is_done_again() {
    let (mut rig, answer) = ending();
    fails_over(&mut rig);
    asks_row(&mut rig, 1, 1);
    assert_eq!(rig.told(), answer);

    let (mut rig, _) = ending();
    fails_over(&mut rig);
    asks_row(&mut rig, 1, 0);
    enrols(&mut rig);
    rig.sent_sql(Primary);
    rig.server(Primary, &ok(1, AUTO));
    answers(&mut rig, "START TRANSACTION", &ok(1, OPEN));
    let sql = rig.sent_sql(Primary);
    assert!(sql.ends_with("number = 1"), "{sql}");
    rig.server(Primary, &ok(1, OPEN));
    answers(&mut rig, "INSERT INTO t VALUES (1)", &ok(1, OPEN));
    answers(&mut rig, "COMMIT AND NO CHAIN NO RELEASE", &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
}

#[test]
fn a_write_alone_that_fails_is_rolled_back_and_told() {
    let mut rig = enrolled();
    rig.client(&query("INSERT INTO t VALUES (1)"));
    answers(&mut rig, "START TRANSACTION", &ok(1, OPEN));
    writes_row(&mut rig, 1);
    answers(&mut rig, "INSERT INTO t VALUES (1)", &err(1, 1062, "duplicate"));
    answers(&mut rig, "ROLLBACK AND NO CHAIN NO RELEASE", &ok(1, AUTO));
    assert_eq!(rig.told_error().0, 1062);
    assert!(rig.session.can_leave());
}

#[test]
fn a_write_alone_that_was_not_answered_was_not_made() {
    let mut rig = enrolled();
    rig.client(&query("INSERT INTO t VALUES (1)"));
    answers(&mut rig, "START TRANSACTION", &ok(1, OPEN));
    writes_row(&mut rig, 1);
    assert_eq!(rig.sent_sql(Primary), "INSERT INTO t VALUES (1)");
    fails_over(&mut rig);
    enrols(&mut rig);
    rig.sent_sql(Primary);
    rig.server(Primary, &ok(1, AUTO));
    answers(&mut rig, "START TRANSACTION", &ok(1, OPEN));
}

#[test]
fn without_the_right_to_the_table_writes_go_on_as_ever() {
    let mut rig = Rig::new();
    rig.group.commit_outcome = CommitOutcome::Known;
    rig.client(&query("INSERT INTO t VALUES (1)"));
    rig.dialed(Primary);
    rig.sent_sql(Primary);
    rig.server(Primary, &err(1, 1142, "denied"));
    answers(&mut rig, "INSERT INTO t VALUES (1)", &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
}

#[test]
fn a_primary_that_is_read_only_has_committed_nothing() {
    let (mut rig, _) = ending();
    rig.server(Primary, &err(1, 1290, "running with the --read-only option"));
    assert!(rig.told().is_empty());
    fails_over(&mut rig);
    enrols(&mut rig);
}
