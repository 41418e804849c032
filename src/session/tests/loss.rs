//! Links that break: in every phase, with every class of statement.

use super::fixture::*;
use crate::config::failover::FailoverMode;
use crate::protocol::flags::{Capabilities, Status};
use crate::router::classify;
use crate::session::action::{Event, Retry, Trouble};
use crate::session::retry::{Progress, Verdict, after_link_loss};
use crate::session::state::initial_dialect;
use crate::topology::Condition;

use Verdict::{Again, DoneByItself, OutcomeUnknown, TransactionLost};

/// What becomes of a statement that was sent and not answered: outside and inside a transaction.
const SENT: &[(&str, Verdict, Verdict)] = &[
    ("SELECT a FROM t", Again, TransactionLost),
    ("SELECT a FROM t FOR UPDATE", OutcomeUnknown, TransactionLost),
    ("SELECT f(a) FROM t", OutcomeUnknown, TransactionLost),
    ("SHOW TABLES", Again, TransactionLost),
    ("INSERT INTO t VALUES (1)", OutcomeUnknown, TransactionLost),
    ("UPDATE t SET a = 1", OutcomeUnknown, TransactionLost),
    ("DELETE FROM t", OutcomeUnknown, TransactionLost),
    ("REPLACE INTO t VALUES (1)", OutcomeUnknown, TransactionLost),
    ("SAVEPOINT s", OutcomeUnknown, TransactionLost),
    ("BEGIN", Again, OutcomeUnknown),
    ("START TRANSACTION READ ONLY", Again, OutcomeUnknown),
    ("COMMIT", Again, OutcomeUnknown),
    ("SET TRANSACTION READ WRITE", Again, OutcomeUnknown),
    ("ROLLBACK", Again, DoneByItself),
    ("ROLLBACK TO SAVEPOINT s", OutcomeUnknown, TransactionLost),
    ("SELECT @@hostname, @@port", Again, TransactionLost),
    ("ROLLBACK AND CHAIN", Again, TransactionLost),
    ("USE app", Again, OutcomeUnknown),
    ("SET autocommit=1", OutcomeUnknown, OutcomeUnknown),
    ("SET @a=1", OutcomeUnknown, OutcomeUnknown),
    ("CREATE TABLE u (a INT)", OutcomeUnknown, OutcomeUnknown),
    ("DROP TABLE u", OutcomeUnknown, OutcomeUnknown),
    ("GRANT ALL ON *.* TO u", OutcomeUnknown, OutcomeUnknown),
    ("LOCK TABLES t READ", OutcomeUnknown, OutcomeUnknown),
    ("CALL p()", OutcomeUnknown, OutcomeUnknown),
    ("XA COMMIT 'a'", OutcomeUnknown, OutcomeUnknown),
    ("INSERT INTO t VALUES (1); COMMIT", OutcomeUnknown, OutcomeUnknown),
    ("ROLLBACK; INSERT INTO t VALUES (1)", OutcomeUnknown, OutcomeUnknown),
    ("LOAD DATA INFILE 'x' INTO TABLE t", OutcomeUnknown, OutcomeUnknown),
    ("garbage", OutcomeUnknown, OutcomeUnknown),
];

#[test]
fn a_client_that_is_killed_is_not_told_of_a_lost_server() {
    let mut rig = Rig::new();
    rig.ask(Primary, "LOCK TABLES t WRITE", &ok(1, AUTO));
    rig.client(&query("ALTER TABLE t ADD COLUMN b INT"));
    rig.session.doom();
    rig.event(Event::LinkClosed(Primary));
    assert!(rig.told().is_empty() && rig.closed());
}

#[test]
fn a_client_that_bounds_idle_transactions_is_closed_with_one() {
    for (bound, closes) in [("0", false), ("1", true)] {
        let mut rig = Rig::new();
        let changed = [variable("idle_write_transaction_timeout", bound)];
        rig.ask(Primary, "SET idle_write_transaction_timeout = 1", &ok_with(1, AUTO, &changed));
        rig.ask(Primary, "BEGIN", &ok(1, OPEN));
        rig.event(Event::LinkClosed(Primary));
        assert_eq!(rig.closed(), closes, "{bound}");
        assert!(rig.told().is_empty());
    }
    // Outside of a transaction it is nothing that the client has asked for.
    let mut rig = Rig::new();
    let changed = [variable("idle_transaction_timeout", "1")];
    rig.ask(Primary, "SET idle_transaction_timeout = 1", &ok_with(1, AUTO, &changed));
    rig.event(Event::LinkClosed(Primary));
    assert!(!rig.closed());
}

#[test]
fn the_table_of_repeats_is_whole() {
    let dialect = initial_dialect(&facts(), 45, false);
    for &(sql, outside, inside) in SENT {
        let class = classify(sql.as_bytes(), &dialect);
        for repeated in [false, true] {
            for open in [false, true] {
                let verdict = |progress| after_link_loss(&class, progress, open, repeated);
                assert_eq!(verdict(Progress::Answering), Verdict::AnswerCut, "{sql}");
                let unsent = if open { TransactionLost } else { Again };
                assert_eq!(verdict(Progress::NotSent), unsent, "{sql}");
                let want = match (open, outside) {
                    (true, _) => inside,
                    (false, Again) if repeated => OutcomeUnknown,
                    (false, outside) => outside,
                };
                assert_eq!(verdict(Progress::Sent), want, "{sql} {open} {repeated}");
            }
        }
    }
}

#[test]
fn a_session_keeps_to_the_table() {
    for &(sql, outside, inside) in SENT {
        for (open, goodbye) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut rig = Rig::new();
            rig.group.transaction_replay_limit = 0;
            if open {
                rig.ask(Primary, "BEGIN", &ok(1, OPEN));
            }
            rig.client(&query(sql));
            let slot = if !rig.sent(Primary).is_empty() {
                Primary
            } else {
                let read = matches!(sql, "SELECT a FROM t" | "SHOW TABLES");
                let slot = if read || sql.ends_with("READ ONLY") { Replica } else { Primary };
                rig.dialed(slot);
                assert_eq!(rig.sent_sql(slot), sql);
                slot
            };
            match goodbye {
                true => rig.server(slot, &err(1, 1053, "Server shutdown in progress")),
                false => rig.event(Event::LinkClosed(slot)),
            }
            assert!(rig.signalled(Trouble::LinkLost), "{sql}");
            match if open { inside } else { outside } {
                Again => {
                    assert!(rig.told().is_empty(), "{sql}");
                    assert_eq!(rig.count_retries(Retry::LinkLost), 1, "{sql}");
                    assert!(rig.wants_dial(), "{sql}: {rig:?}");
                }
                TransactionLost => {
                    let (code, state, _) = rig.told_error();
                    assert_eq!((code, state.as_str()), (1213, "40001"), "{sql}");
                    assert!(!rig.closed(), "{sql}");
                    rig.ask(Primary, "INSERT INTO t VALUES (1)", &ok(1, AUTO));
                }
                DoneByItself => {
                    assert_eq!(rig.told(), ok(1, AUTO), "{sql}");
                    assert!(!rig.closed() && rig.session.can_leave(), "{sql}");
                }
                OutcomeUnknown => {
                    let (code, state, text) = rig.told_error();
                    assert_eq!((code, state.as_str()), (1105, "08007"), "{sql}");
                    assert!(text.contains("db0"), "{text}");
                    assert!(rig.closed(), "{sql}");
                }
                Verdict::AnswerCut => panic!("nothing was answered"),
            }
        }
    }
}

#[test]
fn a_read_is_repeated_elsewhere_once() {
    let mut rig = Rig::new();
    rig.client(&query("SELECT a FROM t"));
    let first = rig.dialed(Replica);
    rig.sent(Replica);
    rig.event(Event::LinkClosed(Replica));
    assert_eq!((first, rig.dialed(Replica)), (1, 2), "the other replica");
    assert_eq!(rig.sent_sql(Replica), "SELECT a FROM t");
    rig.event(Event::LinkClosed(Replica));
    let (code, state, _) = rig.told_error();
    assert_eq!((code, state.as_str()), (1105, "08007"));
}

#[test]
fn a_server_that_says_goodbye_to_what_comes_before_a_statement_is_left() {
    let mut rig = Rig::new();
    rig.ask(Primary, "SET @a = 1", &ok(1, AUTO));
    rig.client(&query("SELECT @a FROM t"));
    rig.dialed(Replica);
    assert_ne!(rig.sent_sql(Replica), "SELECT @a FROM t");
    rig.server(Replica, &err(1, 1053, "Server shutdown in progress"));
    assert!(rig.told().is_empty());
    assert_eq!(rig.dialed(Replica), 2, "the other replica");
}

#[test]
fn a_commit_that_a_server_does_not_begin_since_it_shuts_down_waits_for_the_next_primary() {
    let refusal = "Error on observer while running replication hook 'before_commit'.";
    for (mode, waits) in [(FailoverMode::Auto, true), (FailoverMode::Follow, false)] {
        let mut rig = Rig::new();
        rig.group.failover.mode = mode;
        rig.client(&query("INSERT INTO t VALUES (1)"));
        rig.dialed(Primary);
        rig.sent(Primary);
        rig.server(Primary, &err(1, 3100, refusal));
        assert_eq!(rig.told().is_empty(), waits, "{mode:?}");
        assert_eq!(rig.signalled(Trouble::ReadOnly), waits, "{mode:?}");
    }
}

#[test]
fn an_answer_cut_off_closes_and_says_so_where_the_stream_allows_it() {
    let reply = row("1", AUTO);
    for cut in 1..reply.len() {
        let mut rig = Rig::new();
        rig.client(&query("SELECT a FROM t"));
        rig.dialed(Replica);
        rig.server(Replica, &reply[..cut]);
        let told = rig.told();
        assert!(reply.starts_with(&told));
        rig.event(Event::LinkClosed(Replica));
        if told.is_empty() {
            assert_eq!(rig.count_retries(Retry::LinkLost), 1, "nobody can tell: {cut}");
            continue;
        }
        assert!(rig.closed(), "{cut}");
        let more = rig.told();
        if !more.is_empty() {
            let packets = payloads(&[told, more].concat());
            let seqs: Vec<u8> = packets.iter().map(|(seq, _)| *seq).collect();
            let want: Vec<u8> = (1..=u8::try_from(seqs.len()).unwrap()).collect();
            assert_eq!(seqs, want, "cut at {cut}");
            let last = crate::protocol::reply::Err::parse(&packets.last().unwrap().1).unwrap();
            assert_eq!((last.code, last.state), (1105, Some(*b"08S01")));
        }
    }
}

#[test]
fn a_link_lost_before_the_request_was_sent_is_nothing() {
    let mut rig = Rig::new();
    rig.ask(Primary, "SET @a = 5", &ok(1, AUTO));
    rig.event(Event::LinkClosed(Primary));
    rig.client(&query("INSERT INTO t VALUES (1)"));
    rig.dialed(Primary);
    assert_eq!(rig.sent_sql(Primary), "SET @`a`=5");
    rig.event(Event::LinkClosed(Primary));
    assert!(rig.told().is_empty());
    if !rig.wants_dial() {
        rig.deadline();
    }
    rig.dialed(Primary);
    assert_eq!(rig.sent_sql(Primary), "SET @`a`=5");
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.sent_sql(Primary), "INSERT INTO t VALUES (1)");
}

#[test]
fn an_idle_link_may_break_unnoticed() {
    let mut rig = Rig::new();
    rig.write();
    rig.event(Event::LinkClosed(Primary));
    assert!(rig.told().is_empty() && !rig.closed());
    rig.write();
}

#[test]
fn a_pinned_idle_link_that_breaks_is_told_by_name_at_the_next_command() {
    for (sql, word) in [
        ("LOCK TABLES t READ", "table_lock"),
        ("CREATE TEMPORARY TABLE t (a INT)", "temporary_table"),
        ("SET @a = (SELECT 1)", "user_variable"),
        ("SELECT GET_LOCK('a', 1)", "user_lock"),
    ] {
        let mut rig = Rig::new();
        rig.ask(Primary, sql, &ok(1, AUTO));
        rig.event(Event::LinkClosed(Primary));
        assert!(rig.told().is_empty() && !rig.closed());
        rig.client(&query("SELECT 1"));
        let (code, state, text) = rig.told_error();
        assert_eq!((code, state.as_str()), (1105, "08S01"));
        assert!(text.contains(word) && text.contains("db0"), "{text}");
        assert!(rig.closed());
    }
}

#[test]
fn a_reset_asks_for_no_state_that_was_lost() {
    let mut rig = Rig::new();
    rig.ask(Primary, "LOCK TABLES t READ", &ok(1, AUTO));
    rig.event(Event::LinkClosed(Primary));
    rig.client(&command(b"\x1f"));
    assert_eq!(rig.told(), ok(1, AUTO));
    assert!(!rig.closed());
    rig.write();
}

#[test]
fn a_transaction_lost_while_idle_is_told_once_and_the_session_goes_on() {
    let mut rig = Rig::new();
    rig.group.transaction_replay_limit = 0;
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.event(Event::LinkClosed(Primary));
    rig.client(&query("INSERT INTO t VALUES (1)"));
    let (code, state, _) = rig.told_error();
    assert_eq!((code, state.as_str()), (1213, "40001"));
    assert!(!rig.closed());
    rig.write();
}

#[test]
fn a_rollback_of_a_lost_transaction_is_done_already() {
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.event(Event::LinkClosed(Primary));
    rig.client(&query("ROLLBACK"));
    assert_eq!(rig.told(), ok(1, AUTO), "no transaction is open any more");
    rig.write();
}

#[test]
fn the_end_of_a_read_only_transaction_is_never_unknown() {
    let reading = Status(OPEN.0 | Status::IN_TRANS_READONLY.0);
    for slot in [Replica, Primary] {
        let mut rig = Rig::new();
        if slot == Primary {
            rig.group.primary_read_percent = 100;
        }
        rig.ask(slot, "START TRANSACTION READ ONLY", &ok(1, reading));
        rig.ask(slot, "SELECT a FROM t", &row("2", reading));
        rig.client(&query("COMMIT"));
        assert_eq!(rig.sent_sql(slot), "COMMIT");
        rig.event(Event::LinkClosed(slot));
        assert_eq!(rig.told(), ok(1, AUTO), "{slot:?}");
        assert!(!rig.closed() && rig.session.can_leave());
    }
}

/// Links that were parked die with their server, too: one of them would look like a second server
/// that the statement has ended.
#[test]
fn what_is_sent_again_goes_over_a_link_that_was_not_there_before() {
    let mut rig = Rig::new();
    rig.client(&query("SELECT a FROM t"));
    assert!(!rig.wants_fresh_dial());
    rig.dialed(Replica);
    rig.sent(Replica);
    rig.event(Event::LinkClosed(Replica));
    assert!(rig.wants_fresh_dial());
}

#[test]
fn completion_type_closes_after_the_end_of_a_transaction_also_where_no_server_tells_it() {
    let releasing = [variable("completion_type", "RELEASE")];
    for (sql, closes) in [
        ("COMMIT", true),
        ("ROLLBACK /* NO RELEASE */", true),
        ("COMMIT NO RELEASE", false),
        ("COMMIT AND NO CHAIN NO RELEASE -- RELEASE", false),
    ] {
        let mut rig = Rig::new();
        rig.ask(Primary, "SET completion_type = 2", &ok_with(1, AUTO, &releasing));
        rig.ask(Primary, "BEGIN", &ok(1, OPEN));
        rig.ask(Primary, sql, &ok(1, AUTO));
        assert_eq!(rig.closed(), closes, "{sql}");
    }
    let mut rig = Rig::new();
    rig.group.transaction_replay_limit = 0;
    rig.ask(Primary, "SET completion_type = 2", &ok_with(1, AUTO, &releasing));
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.client(&query("ROLLBACK"));
    rig.sent(Primary);
    rig.event(Event::LinkClosed(Primary));
    assert_eq!(rig.told(), ok(1, AUTO));
    assert!(rig.closed());
}

#[test]
fn a_rollback_that_leaves_a_transaction_open_is_told_that_it_was_lost() {
    for sql in ["ROLLBACK TO SAVEPOINT s", "ROLLBACK AND CHAIN"] {
        let mut rig = Rig::new();
        rig.group.transaction_replay_limit = 0;
        rig.ask(Primary, "BEGIN", &ok(1, OPEN));
        rig.event(Event::LinkClosed(Primary));
        rig.client(&query(sql));
        assert_eq!(rig.told_error().0, 1213, "{sql}");
    }
    let mut rig = Rig::new();
    rig.group.transaction_replay_limit = 0;
    let chained = [variable("completion_type", "CHAIN")];
    rig.ask(Primary, "SET completion_type = 1", &ok_with(1, AUTO, &chained));
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.event(Event::LinkClosed(Primary));
    rig.client(&query("ROLLBACK"));
    assert_eq!(rig.told_error().0, 1213);
}

#[test]
fn a_transaction_on_a_former_primary_is_lost() {
    let mut rig = Rig::new();
    rig.group.transaction_replay_limit = 0;
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.topology(|topology| topology.primary = Some(crate::topology::NodeId(1)));
    rig.client(&query("INSERT INTO t VALUES (1)"));
    assert_eq!(rig.told_error().0, 1213);
    assert!(rig.dropped(Primary));
    rig.client(&query("INSERT INTO t VALUES (1)"));
    assert_eq!(rig.dialed(Primary), 1);
}

#[test]
fn a_pin_on_a_former_primary_is_lost_by_name() {
    let mut rig = Rig::new();
    rig.ask(Primary, "LOCK TABLES t READ", &ok(1, AUTO));
    rig.topology(|topology| topology.primary = Some(crate::topology::NodeId(1)));
    rig.client(&query("INSERT INTO t VALUES (1)"));
    let (code, _, text) = rig.told_error();
    assert_eq!(code, 1105);
    assert!(text.contains("table_lock"), "{text}");
    assert!(rig.closed());
}

#[test]
fn a_server_that_is_called_down_will_not_answer() {
    for (sql, slot, node) in [("SELECT a FROM t", Replica, 1), ("DELETE FROM t", Primary, 0)] {
        let mut rig = Rig::new();
        rig.client(&query(sql));
        rig.dialed(slot);
        rig.topology(|topology| topology.nodes[node].condition = Condition::Suspect);
        assert!(!rig.dropped(slot));
        rig.topology(|topology| topology.nodes[node].condition = Condition::Down);
        assert!(rig.dropped(slot));
        if slot == Primary {
            assert_eq!(rig.told_error().0, 1105);
        } else {
            assert!(rig.told().is_empty() && rig.wants_dial());
        }
    }
}

#[test]
fn a_malformed_answer_closes_both_sides() {
    for reply in [
        &b"\x00\x00\x00\x01"[..],
        b"\x01\x00\x00\x01\x00",
        b"\x02\x00\x00\x01\xff\x00",
        b"\x05\x00\x00\x01\xfe\x00\x00\x02\x00",
        b"\x0b\x00\x00\x01\xfd\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a",
        b"\x09\x00\x00\x01\xfe\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x01\x00\x00\x01\x01\x01\x00\x00\x09\x03",
        b"\x01\x00\x00\x01\xfb",
        b"\x02\x00\x00\x01\xfbx",
        b"\xff\xff\xff\x01\x00",
    ] {
        let mut rig = Rig::new();
        rig.client(&query("DELETE FROM t"));
        rig.dialed(Primary);
        rig.server(Primary, reply);
        let told = rig.told();
        let whole = payloads(&told);
        assert!(rig.closed(), "{reply:?}: {rig:?}");
        assert!(rig.dropped(Primary), "{reply:?}");
        if whole.len() == 1 {
            let error = crate::protocol::reply::Err::parse(&whole[0].1);
            assert!(error.is_err() || error.unwrap().code == 1105, "{reply:?}");
        }
    }
}

#[test]
fn errors_have_no_sqlstate_for_clients_that_know_none() {
    let caps = CAPS.without(Capabilities::PROTOCOL_41);
    let mut rig = Rig::with_caps(caps);
    rig.client(&about(0x1a, 9));
    let told = rig.told();
    assert!(!told.contains(&b'#'), "{told:?}");
}
