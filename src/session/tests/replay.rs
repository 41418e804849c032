//! Open transactions whose server is lost: done again on the next one, or told.

use super::fixture::*;
use crate::protocol::flags::Status;
use crate::protocol::reply;
use crate::protocol::session_track::Change;
use crate::session::action::{Event, Replay, Request};
use crate::topology::NodeId;

fn count(rig: &Rig, outcome: Replay) -> usize {
    let is_it = |request: &&Request| matches!(request, Request::Replayed(o) if *o == outcome);
    rig.requests.iter().filter(is_it).count()
}

/// OK with a number by AUTO_INCREMENT.
fn numbered(insert_id: u64) -> Vec<u8> {
    let mut out = Vec::new();
    reply::Ok { status: OPEN, affected: 1, insert_id, ..reply::Ok::default() }
        .encode(&mut out, 1, 0x00, CAPS);
    out
}

/// A session with BEGIN and a write and a read behind it, whose server is gone.
fn suspended() -> Rig {
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.ask(Primary, "UPDATE t SET a = 2", &ok(1, OPEN));
    rig.ask(Primary, "SELECT a FROM t", &row("2", OPEN));
    rig.event(Event::LinkClosed(Primary));
    assert!(rig.told().is_empty() && !rig.closed());
    assert!(!rig.session.can_leave(), "to the client it is open");
    rig
}

/// The link gets this, and answers.
fn answers(rig: &mut Rig, sql: &str, answer: &[u8]) {
    assert_eq!(rig.sent_sql(Primary), sql, "{rig:?}");
    rig.server(Primary, answer);
}

fn told_of_loss(rig: &mut Rig) {
    let (code, state, _) = rig.told_error();
    assert_eq!((code, state.as_str()), (1213, "40001"));
    assert!(!rig.closed());
    // The session goes on, outside of a transaction.
    rig.ask(Primary, "INSERT INTO t VALUES (1)", &ok(1, AUTO));
    assert!(rig.session.can_leave());
}

#[test]
fn an_open_transaction_is_done_again_before_the_next_command() {
    let mut rig = suspended();
    rig.client(&query("DELETE FROM t"));
    rig.dialed(Primary);
    answers(&mut rig, "BEGIN", &ok(1, OPEN));
    answers(&mut rig, "UPDATE t SET a = 2", &ok(1, OPEN));
    answers(&mut rig, "SELECT a FROM t", &row("2", OPEN));
    assert!(rig.told().is_empty(), "nobody has asked for these");
    answers(&mut rig, "DELETE FROM t", &ok(1, OPEN));
    assert_eq!(rig.told(), ok(1, OPEN));
    assert_eq!(count(&rig, Replay::Alike), 1);
    // What was done since belongs to it, should this server be lost too.
    rig.event(Event::LinkClosed(Primary));
    rig.client(&query("COMMIT"));
    rig.dialed(Primary);
    answers(&mut rig, "BEGIN", &ok(1, OPEN));
    answers(&mut rig, "UPDATE t SET a = 2", &ok(1, OPEN));
    answers(&mut rig, "SELECT a FROM t", &row("2", OPEN));
    answers(&mut rig, "DELETE FROM t", &ok(1, OPEN));
    answers(&mut rig, "COMMIT", &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
    assert!(rig.session.can_leave());
}

#[test]
fn a_transaction_that_is_answered_otherwise_is_told_of_as_rolled_back() {
    for (update, read) in [
        (ok(1, OPEN), row("3", OPEN)),
        (numbered(0), row("2", OPEN)),
        (ok(1, AUTO), row("2", OPEN)),
        (err(1, 1062, "duplicate"), row("2", OPEN)),
        (ok(1, OPEN), err(1, 1146, "no table")),
    ] {
        let mut rig = suspended();
        rig.client(&query("COMMIT"));
        rig.dialed(Primary);
        answers(&mut rig, "BEGIN", &ok(1, OPEN));
        answers(&mut rig, "UPDATE t SET a = 2", &update);
        if !rig.dropped(Primary) {
            answers(&mut rig, "SELECT a FROM t", &read);
        }
        assert!(rig.dropped(Primary), "what it did there ends with the link");
        assert_eq!(count(&rig, Replay::Differed), 1);
        told_of_loss(&mut rig);
    }
}

#[test]
fn an_answer_is_the_same_in_whatever_pieces_it_comes() {
    let answer = row("2", OPEN);
    for cut in 1..answer.len() {
        let mut rig = suspended();
        rig.client(&query("COMMIT"));
        rig.dialed(Primary);
        answers(&mut rig, "BEGIN", &ok(1, OPEN));
        answers(&mut rig, "UPDATE t SET a = 2", &ok(1, OPEN));
        assert_eq!(rig.sent_sql(Primary), "SELECT a FROM t");
        rig.server(Primary, &answer[..cut]);
        rig.server(Primary, &answer[cut..]);
        assert_eq!(rig.sent_sql(Primary), "COMMIT", "{cut}");
    }
}

#[test]
fn a_statement_in_flight_is_sent_again_behind_its_transaction() {
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.client(&query("UPDATE t SET a = 2"));
    rig.sent(Primary);
    rig.event(Event::LinkClosed(Primary));
    assert!(rig.told().is_empty());
    rig.dialed(Primary);
    answers(&mut rig, "BEGIN", &ok(1, OPEN));
    answers(&mut rig, "UPDATE t SET a = 2", &ok(1, OPEN));
    assert_eq!(rig.told(), ok(1, OPEN));
}

#[test]
fn a_commit_in_flight_has_an_unknown_outcome_all_the_same() {
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.ask(Primary, "UPDATE t SET a = 2", &ok(1, OPEN));
    rig.client(&query("COMMIT"));
    rig.event(Event::LinkClosed(Primary));
    let (code, state, _) = rig.told_error();
    assert_eq!((code, state.as_str()), (1105, "08007"));
    assert!(rig.closed());
}

#[test]
fn a_rollback_needs_nothing_to_be_done_again() {
    let mut rig = suspended();
    rig.client(&query("ROLLBACK"));
    assert_eq!(rig.told(), ok(1, AUTO));
    assert!(!rig.wants_dial() && rig.session.can_leave());
}

#[test]
fn a_reset_forgets_what_was_to_be_done_again() {
    let mut rig = suspended();
    rig.client(&command(b"\x1f"));
    assert_eq!(rig.told(), ok(1, AUTO));
    assert!(!rig.wants_dial() && rig.session.can_leave());
    rig.write();
}

#[test]
fn errors_of_statements_are_part_of_the_transaction() {
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.ask(Primary, "INSERT INTO t VALUES (1)", &err(1, 1062, "Duplicate entry"));
    rig.ask(Primary, "SAVEPOINT s", &ok(1, OPEN));
    rig.event(Event::LinkClosed(Primary));
    rig.client(&query("ROLLBACK TO s"));
    rig.dialed(Primary);
    answers(&mut rig, "BEGIN", &ok(1, OPEN));
    answers(&mut rig, "INSERT INTO t VALUES (1)", &err(1, 1062, "Duplicate entry of other words"));
    answers(&mut rig, "SAVEPOINT s", &ok(1, OPEN));
    answers(&mut rig, "ROLLBACK TO s", &ok(1, OPEN));
    assert_eq!(rig.told(), ok(1, OPEN));
}

#[test]
fn what_cannot_be_done_again_ends_with_its_server() {
    for sql in [
        "SET @a = 1",
        "SET SESSION sql_mode = ''",
        "SELECT 1 INTO @a",
        "CALL p()",
        "SELECT f(1)",
        "DO RELEASE_LOCK('a')",
        "UPDATE t SET a = LAST_INSERT_ID()",
        "INSERT INTO t SELECT ROW_COUNT()",
        "INSERT INTO t VALUES (1); SELECT 2",
        "USE app",
        "COMMIT AND CHAIN",
    ] {
        let mut rig = Rig::new();
        rig.ask(Primary, "BEGIN", &ok(1, OPEN));
        rig.ask(Primary, sql, &ok(1, OPEN));
        rig.event(Event::LinkClosed(Primary));
        rig.client(&query("DELETE FROM t"));
        let (code, ..) = rig.told_error();
        assert!(matches!(code, 1213 | 1105), "{sql}: {code}");
    }
    // Where the query cache is used, servers do not tell what a transaction does.
    let mut rig = Rig::new();
    let told = [variable("query_cache_type", "ON")];
    rig.ask(Primary, "SET query_cache_type = 1", &ok_with(1, AUTO, &told));
    rig.client(&query("BEGIN"));
    assert!(rig.sent_sql(Primary).contains("session_track"));
    rig.server(Primary, &ok(1, AUTO));
    answers(&mut rig, "BEGIN", &ok(1, OPEN));
    rig.told();
    rig.event(Event::LinkClosed(Primary));
    rig.client(&query("DELETE FROM t"));
    assert_eq!(rig.told_error().0, 1213);
    // A table without transactions keeps what was written.
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    let wrote = [Change::TransactionState(b"T__w____")];
    rig.ask(Primary, "INSERT INTO log VALUES (1)", &ok_with(1, OPEN, &wrote));
    rig.event(Event::LinkClosed(Primary));
    rig.client(&query("DELETE FROM t"));
    told_of_loss(&mut rig);
}

#[test]
fn an_error_that_may_have_rolled_back_leaves_nothing_to_be_done_again() {
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.ask(Primary, "UPDATE t SET a = 2", &err(1, 1213, "Deadlock found"));
    // What comes next may run by itself, and be kept.
    rig.client(&query("INSERT INTO t VALUES (1)"));
    rig.event(Event::LinkClosed(Primary));
    let (code, state, _) = rig.told_error();
    assert_eq!((code, state.as_str()), (1105, "08007"));
}

#[test]
fn a_transaction_without_begin_is_done_again_too() {
    let manual = Status(OPEN.0 & !AUTO.0);
    let mut rig = Rig::new();
    let changed = [variable("autocommit", "OFF")];
    let closed = Status(0);
    rig.ask(Primary, "SET autocommit = 0", &ok_with(1, closed, &changed));
    rig.ask(Primary, "UPDATE t SET a = 2", &ok(1, manual));
    rig.event(Event::LinkClosed(Primary));
    rig.client(&query("COMMIT"));
    rig.dialed(Primary);
    let setup = rig.sent_sql(Primary);
    assert!(setup.contains("autocommit"), "{setup}");
    rig.server(Primary, &ok(1, closed));
    answers(&mut rig, "UPDATE t SET a = 2", &ok(1, manual));
    answers(&mut rig, "COMMIT", &ok(1, closed));
    assert_eq!(rig.told(), ok(1, closed));
}

#[test]
fn numbers_by_auto_increment_are_the_same_again() {
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.ask(Primary, "INSERT INTO t (b) VALUES (1)", &numbered(41));
    rig.event(Event::LinkClosed(Primary));
    rig.client(&query("COMMIT"));
    rig.dialed(Primary);
    answers(&mut rig, "BEGIN", &ok(1, OPEN));
    answers(&mut rig, "SET insert_id=41", &err(1, 1227, "denied"));
    answers(&mut rig, "INSERT INTO t (b) VALUES (1)", &numbered(41));
    answers(&mut rig, "COMMIT", &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO), "a refusal to set it does no harm");
}

#[test]
fn executions_are_prepared_again_and_closed_behind() {
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.client(&prepare("SELECT a FROM t"));
    rig.sent(Primary);
    rig.server(Primary, &prepared(9, 0, 0));
    rig.client(&execute(1, 0));
    rig.sent(Primary);
    rig.server(Primary, &row("5", OPEN));
    // Drivers close what they have executed once.
    rig.client(&about(0x19, 1));
    rig.sent(Primary);
    rig.told();
    rig.event(Event::LinkClosed(Primary));
    rig.client(&query("COMMIT"));
    rig.dialed(Primary);
    answers(&mut rig, "BEGIN", &ok(1, OPEN));
    assert_eq!(rig.sent(Primary), [b"\x16SELECT a FROM t".to_vec()]);
    rig.server(Primary, &prepared(3, 0, 0));
    let sent = rig.sent(Primary);
    assert_eq!(sent[0].get(..5), Some(&b"\x17\x03\0\0\0"[..]), "{sent:?}");
    rig.server(Primary, &row("5", OPEN));
    let sent = rig.sent(Primary);
    assert_eq!(sent, [b"\x19\x03\0\0\0".to_vec(), b"\x03COMMIT".to_vec()]);
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
}

#[test]
fn a_server_that_is_lost_meanwhile_is_followed_by_another_up_to_a_bound() {
    let mut rig = suspended();
    rig.client(&query("COMMIT"));
    for _ in 0..2 {
        rig.dialed(Primary);
        answers(&mut rig, "BEGIN", &ok(1, OPEN));
        assert_eq!(rig.sent_sql(Primary), "UPDATE t SET a = 2");
        rig.event(Event::LinkClosed(Primary));
        if !rig.wants_dial() {
            rig.deadline();
        }
    }
    told_of_loss(&mut rig);
}

#[test]
fn nobody_to_do_it_on_fails_the_statement_and_keeps_the_transaction() {
    let mut rig = suspended();
    rig.no_primary();
    rig.client(&query("DELETE FROM t"));
    assert!(rig.told().is_empty());
    rig.deadline();
    assert_eq!(rig.told_error().0, 1290);
    rig.topology(|topology| topology.primary = Some(NodeId(1)));
    rig.client(&query("COMMIT"));
    assert_eq!(rig.dialed(Primary), 1);
    answers(&mut rig, "BEGIN", &ok(1, OPEN));
}

#[test]
fn a_transaction_on_a_former_primary_is_done_again_on_the_new_one() {
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.topology(|topology| topology.primary = Some(NodeId(1)));
    rig.client(&query("INSERT INTO t VALUES (1)"));
    assert!(rig.dropped(Primary), "where it is rolled back");
    assert_eq!(rig.dialed(Primary), 1);
    answers(&mut rig, "BEGIN", &ok(1, OPEN));
    answers(&mut rig, "INSERT INTO t VALUES (1)", &ok(1, OPEN));
    assert_eq!(rig.told(), ok(1, OPEN));
}

#[test]
fn a_long_transaction_ends_with_its_server() {
    let mut rig = Rig::new();
    rig.group.transaction_replay_limit = 64;
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    for _ in 0..4 {
        rig.ask(Primary, "INSERT INTO t VALUES (1)", &ok(1, OPEN));
    }
    rig.event(Event::LinkClosed(Primary));
    rig.client(&query("COMMIT"));
    told_of_loss(&mut rig);
}

#[test]
fn a_primary_that_closes_under_a_transaction_is_left_for_the_new_one() {
    let refusal = "The MariaDB server is running with the --read-only option so it cannot execute";
    for sql in ["COMMIT", "UPDATE t SET a = 3"] {
        let mut rig = Rig::new();
        rig.ask(Primary, "BEGIN", &ok(1, OPEN));
        rig.ask(Primary, "UPDATE t SET a = 2", &ok(1, OPEN));
        rig.client(&query(sql));
        answers(&mut rig, sql, &err(1, 1290, refusal));
        assert!(rig.told().is_empty() && rig.dropped(Primary), "{sql}: {rig:?}");
        rig.topology(|topology| topology.primary = Some(NodeId(1)));
        assert_eq!(rig.dialed(Primary), 1);
        answers(&mut rig, "BEGIN", &ok(1, OPEN));
        answers(&mut rig, "UPDATE t SET a = 2", &ok(1, OPEN));
        answers(&mut rig, sql, &ok(1, AUTO));
        assert_eq!(rig.told(), ok(1, AUTO));
    }
    // Nobody takes its place: the client hears what the server has said.
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.client(&query("DELETE FROM t"));
    answers(&mut rig, "DELETE FROM t", &err(1, 1290, refusal));
    rig.deadline();
    assert_eq!(rig.told_error().0, 1290);
}

#[test]
fn a_primary_that_a_client_has_closed_under_a_transaction_answers_for_itself() {
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.ask(Primary, "UPDATE t SET a = 2", &ok(1, OPEN));
    // It was not looked at since.
    rig.settings_changed = Some(rig.now);
    rig.client(&query("COMMIT"));
    answers(&mut rig, "COMMIT", &err(1, 1290, "running with the --read-only option"));
    assert_eq!(rig.told_error().0, 1290);
    assert!(!rig.dropped(Primary));
}

/// What a server tells of SET TRANSACTION, and of what follows.
fn tells(status: Status, characteristics: &[u8]) -> Vec<u8> {
    ok_with(1, status, &[Change::TransactionCharacteristics(characteristics)])
}

/// A session whose server is lost when it has said how its next transaction is to be.
fn characterised() -> Rig {
    let mut rig = Rig::new();
    let set = tells(AUTO, b"SET TRANSACTION READ ONLY;");
    rig.ask(Primary, "SET TRANSACTION READ ONLY", &set);
    rig.event(Event::LinkClosed(Primary));
    assert!(rig.told().is_empty() && !rig.closed());
    rig
}

fn sets_again(rig: &mut Rig) {
    answers(rig, "SET TRANSACTION READ ONLY", &tells(AUTO, b"SET TRANSACTION READ ONLY;"));
}

#[test]
fn what_was_set_for_the_next_transaction_alone_is_set_again_before_it_begins() {
    let mut rig = characterised();
    rig.client(&query("BEGIN"));
    rig.dialed(Primary);
    sets_again(&mut rig);
    answers(&mut rig, "BEGIN", &tells(OPEN, b"START TRANSACTION READ ONLY;"));
    rig.told();
    rig.ask(Primary, "SELECT a FROM t", &row("2", OPEN));
    // And once it has begun, with it.
    rig.event(Event::LinkClosed(Primary));
    rig.client(&query("COMMIT"));
    rig.dialed(Primary);
    sets_again(&mut rig);
    answers(&mut rig, "BEGIN", &tells(OPEN, b"START TRANSACTION READ ONLY;"));
    answers(&mut rig, "SELECT a FROM t", &row("2", OPEN));
    answers(&mut rig, "COMMIT", &tells(AUTO, b""));
    assert_eq!(reply::Ok::parse(&payloads(&rig.told())[0].1, CAPS).map(|ok| ok.status), Ok(AUTO));
    assert!(rig.session.can_leave());
    // The next one has none.
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.event(Event::LinkClosed(Primary));
    rig.client(&query("COMMIT"));
    rig.dialed(Primary);
    answers(&mut rig, "BEGIN", &ok(1, OPEN));
    answers(&mut rig, "COMMIT", &ok(1, AUTO));
}

#[test]
fn a_session_is_bound_by_what_it_has_set_again_for_its_next_transaction() {
    let mut rig = characterised();
    rig.client(&query("SELECT 1"));
    rig.dialed(Primary);
    sets_again(&mut rig);
    answers(&mut rig, "SELECT 1", &row("1", AUTO));
    assert!(rig.session.pins().has(Pin::NextTransaction));
    assert!(rig.session.pins().words().contains("next_transaction"));
}

#[test]
fn where_it_cannot_be_set_again_the_client_is_told_what_it_has_lost() {
    let mut rig = characterised();
    rig.client(&query("BEGIN"));
    rig.dialed(Primary);
    answers(&mut rig, "SET TRANSACTION READ ONLY", &err(1, 1227, "no right"));
    let (code, state, text) = rig.told_error();
    assert_eq!((code, state.as_str()), (1105, "08S01"), "{text}");
    assert!(text.contains("next_transaction"), "{text}");
    assert!(rig.closed());
}
