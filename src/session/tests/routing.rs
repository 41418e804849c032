//! Where commands run, in which order, and what freshness costs.

use super::fixture::*;
use crate::protocol::session_track::Change;
use crate::session::action::{Request, Retry, Trouble, WaitOutcome};

/// What a link is asked where the client's rows were counted.
const POSITION: &str = "SELECT CONCAT_WS(';', FOUND_ROWS(), @@global.gtid_binlog_pos) LIMIT 1";

#[test]
fn statements_run_where_they_belong() {
    for (sql, slot) in [
        ("SELECT a FROM t", Replica),
        ("SELECT a FROM t FOR UPDATE", Primary),
        ("SELECT f(a) FROM t", Primary),
        ("INSERT INTO t VALUES (1)", Primary),
        ("SHOW PROCESSLIST", Primary),
        ("BEGIN", Primary),
        ("START TRANSACTION READ ONLY", Replica),
        ("SET autocommit=0", Primary),
        ("garbage", Primary),
    ] {
        let mut rig = Rig::new();
        rig.client(&query(sql));
        assert!(rig.sent(Primary).is_empty() && rig.sent(Replica).is_empty(), "{sql}");
        rig.dialed(slot);
        assert_eq!(rig.sent_sql(slot), sql);
        let reply = ok(1, AUTO);
        rig.server(slot, &reply);
        assert_eq!(rig.told(), reply, "{sql}");
        assert_eq!(rig.session.phase_word(), "idle", "{sql}");
    }
}

#[test]
fn a_reply_passes_byte_for_byte_and_the_link_is_used_again() {
    let mut rig = Rig::new();
    let reply = row("1", AUTO);
    assert_eq!(rig.ask(Replica, "SELECT a FROM t", &reply), reply);
    assert_eq!(rig.ask(Replica, "SELECT b FROM t", &reply), reply);
    assert!(!rig.wants_dial());
    assert_eq!(rig.finished().len(), 2);
}

#[test]
fn a_transaction_stays_on_the_primary_until_its_end() {
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.ask(Primary, "SELECT a FROM t", &row("1", OPEN));
    assert_eq!(rig.session.phase_word(), "idle in transaction");
    assert!(!rig.session.can_leave());
    rig.ask(Primary, "COMMIT", &ok(1, AUTO));
    assert!(rig.session.can_leave());
    rig.client(&query("SELECT a FROM t"));
    // What it read in the transaction must not be older on the replica.
    assert_eq!(rig.sent_sql(Primary), POSITION);
}

#[test]
fn without_autocommit_everything_runs_on_the_primary() {
    let mut rig = Rig::new();
    let off = ok_with(1, crate::protocol::flags::Status(0), &[variable("autocommit", "OFF")]);
    rig.ask(Primary, "SET autocommit=0", &off);
    rig.ask(Primary, "SELECT a FROM t", &row("1", crate::protocol::flags::Status(0)));
}

#[test]
fn a_read_only_transaction_stays_on_its_replica_and_moves_when_it_outgrows_it() {
    let mut rig = Rig::new();
    rig.ask(Replica, "START TRANSACTION READ ONLY", &ok(1, OPEN));
    rig.ask(Replica, "SELECT a FROM t", &row("1", OPEN));
    // A write fails there as it would on the primary: the client's own words.
    let refused = err(1, 1792, "Cannot execute statement in a READ ONLY transaction");
    assert_eq!(rig.ask(Replica, "INSERT INTO t VALUES (1)", &refused), refused);
    rig.client(&query("SELECT a FROM t FOR UPDATE"));
    assert_eq!(rig.sent_sql(Replica), "COMMIT AND NO CHAIN NO RELEASE");
    rig.server(Replica, &ok(1, AUTO));
    rig.dialed(Primary);
    assert_eq!(rig.sent_sql(Primary), "START TRANSACTION READ ONLY");
    rig.server(Primary, &ok(1, OPEN));
    assert_eq!(rig.sent_sql(Primary), "SELECT a FROM t FOR UPDATE");
    assert!(rig.told().is_empty(), "our own commands are nobody else's business");
    rig.server(Primary, &row("1", OPEN));
    assert_eq!(rig.told(), row("1", OPEN));
    rig.ask(Primary, "SELECT b FROM t", &row("1", OPEN));
    rig.ask(Primary, "COMMIT", &ok(1, AUTO));
}

#[test]
fn a_block_that_cannot_be_read_leaves_the_replica_of_a_read_only_transaction() {
    for sql in
        ["BEGIN NOT ATOMIC COMMIT; INSERT INTO t VALUES (1); END", "BINLOG 'abc'", "CONJURE t"]
    {
        let mut rig = Rig::new();
        rig.ask(Replica, "START TRANSACTION READ ONLY", &ok(1, OPEN));
        rig.client(&query(sql));
        assert_eq!(rig.sent_sql(Replica), "COMMIT AND NO CHAIN NO RELEASE", "{sql}");
        rig.server(Replica, &ok(1, AUTO));
        rig.dialed(Primary);
        assert_eq!(rig.sent_sql(Primary), "START TRANSACTION READ ONLY");
        rig.server(Primary, &ok(1, OPEN));
        assert_eq!(rig.sent_sql(Primary), sql);
    }
}

#[test]
fn a_statement_that_commits_ends_the_replicas_transaction_first() {
    let mut rig = Rig::new();
    rig.ask(Replica, "START TRANSACTION READ ONLY", &ok(1, OPEN));
    rig.client(&query("BEGIN"));
    assert_eq!(rig.sent_sql(Replica), "COMMIT AND NO CHAIN NO RELEASE");
    rig.server(Replica, &ok(1, AUTO));
    rig.dialed(Primary);
    assert_eq!(rig.sent_sql(Primary), "BEGIN");
}

fn wrote(gtid: &str) -> Vec<u8> {
    ok_with(1, AUTO, &[variable("last_gtid", gtid)])
}

#[test]
fn a_read_waits_for_the_sessions_own_write() {
    let mut rig = Rig::new();
    rig.ask(Primary, "INSERT INTO t VALUES (1)", &wrote("0-1-5"));
    // An heir of the primary must have it.
    let acknowledged = |rig: &Rig| {
        let requests = rig.requests.iter();
        let of = |request: &Request| match request {
            Request::Acknowledged(node, written) => Some(format!("{node}: {written}")),
            _ => None,
        };
        requests.filter_map(of).collect::<Vec<_>>()
    };
    let told = acknowledged(&rig);
    assert!(matches!(told.as_slice(), [one] if one.ends_with(": 0-1-5")), "{told:?}");
    rig.client(&query("SELECT a FROM t"));
    rig.dialed(Replica);
    let wait = rig.sent_sql(Replica);
    assert!(wait.starts_with("SELECT MASTER_GTID_WAIT('0-1-5', "), "{wait}");
    rig.server(Replica, &row("0", AUTO));
    assert_eq!(rig.sent_sql(Replica), "SELECT a FROM t");
    rig.server(Replica, &row("7", AUTO));
    assert_eq!(rig.told(), row("7", AUTO));
    assert_eq!(acknowledged(&rig), told);
    assert!(rig.requests.iter().any(|r| matches!(r, Request::Waited(WaitOutcome::CaughtUp))));
    // Known from then on: no second wait, until the next write.
    rig.ask(Replica, "SELECT b FROM t", &row("7", AUTO));
    rig.ask(Primary, "INSERT INTO t VALUES (1)", &wrote("0-1-6"));
    rig.client(&query("SELECT a FROM t"));
    let wait = rig.sent_sql(Replica);
    let asked = "SELECT CONCAT_WS(';', FOUND_ROWS(), MASTER_GTID_WAIT('0-1-6', ";
    assert!(wait.starts_with(asked), "{wait}");
    rig.server(Replica, &row("1;0", AUTO));
    assert_eq!(rig.sent_sql(Replica), "SELECT a FROM t");
}

#[test]
fn a_replica_that_does_not_catch_up_in_time_is_passed_over() {
    for answer in [row("-1", AUTO), err(1, 1205, "no"), row("", AUTO)] {
        let mut rig = Rig::new();
        rig.ask(Primary, "INSERT INTO t VALUES (1)", &wrote("0-1-5"));
        rig.client(&query("SELECT a FROM t"));
        rig.dialed(Replica);
        assert!(rig.sent_sql(Replica).contains("MASTER_GTID_WAIT"));
        rig.server(Replica, &answer);
        assert_eq!(rig.sent_sql(Primary), "SELECT a FROM t");
        rig.server(Primary, &row("7", AUTO));
        assert_eq!(rig.told(), row("7", AUTO));
    }
}

#[test]
fn a_read_after_a_read_on_the_primary_asks_for_its_position() {
    let mut rig = Rig::new();
    rig.ask(Primary, "SELECT a FROM t FOR UPDATE", &row("1", AUTO));
    rig.client(&query("SELECT a FROM t"));
    assert_eq!(rig.sent_sql(Primary), POSITION);
    rig.server(Primary, &row("1;0-1-9", AUTO));
    rig.dialed(Replica);
    assert!(rig.sent_sql(Replica).starts_with("SELECT MASTER_GTID_WAIT('0-1-9', "));
    rig.server(Replica, &row("0", AUTO));
    assert_eq!(rig.sent_sql(Replica), "SELECT a FROM t");
}

#[test]
fn a_position_that_cannot_be_read_keeps_the_read_on_the_primary() {
    for answer in [row("???", AUTO), err(1, 1193, "Unknown system variable"), ok(1, AUTO)] {
        let mut rig = Rig::new();
        rig.ask(Primary, "SELECT a FROM t FOR UPDATE", &row("1", AUTO));
        rig.client(&query("SELECT a FROM t"));
        assert_eq!(rig.sent_sql(Primary), POSITION);
        rig.server(Primary, &answer);
        assert_eq!(rig.sent_sql(Primary), "SELECT a FROM t", "{rig:?}");
    }
}

#[test]
fn a_question_about_the_last_statement_follows_it() {
    let mut rig = Rig::new();
    rig.ask(Replica, "SELECT a FROM t", &row("1", AUTO));
    rig.ask(Replica, "SHOW WARNINGS", &row("1", AUTO));
    rig.write();
    rig.ask(Primary, "SHOW WARNINGS", &row("1", AUTO));
}

#[test]
fn a_refusal_that_concerns_the_place_sends_the_statement_to_the_primary_once() {
    for code in [1792, 1290, 1836, 1146, 1049, 1054, 1305, 1045, 1044, 1142, 1143, 1370, 1047] {
        let mut rig = Rig::new();
        rig.client(&query("SELECT a FROM t"));
        rig.dialed(Replica);
        assert_eq!(rig.sent_sql(Replica), "SELECT a FROM t");
        rig.server(Replica, &err(1, code, "no"));
        assert!(rig.told().is_empty(), "{code}");
        rig.dialed(Primary);
        assert_eq!(rig.sent_sql(Primary), "SELECT a FROM t");
        rig.server(Primary, &err(1, code, "still no"));
        if code == 1290 || code == 1836 {
            continue;
        }
        assert_eq!(rig.told_error().0, code);
        assert_eq!(rig.count_retries(Retry::ReplicaRefused), 1, "{code}");
        // Only "this writes" is remembered.
        rig.client(&query("SELECT a FROM t"));
        let remembered = rig.sent(Primary).iter().any(|sent| sent.ends_with(b"a FROM t"));
        assert_eq!(remembered, code == 1792, "{code}");
    }
}

#[test]
fn an_ordinary_error_of_a_replica_is_the_answer() {
    let mut rig = Rig::new();
    let error = err(1, 1064, "You have an error in your SQL syntax");
    assert_eq!(rig.ask(Replica, "SELECT a FROM t", &error), error);
    assert_eq!(rig.count_retries(Retry::ReplicaRefused), 0);
}

#[test]
fn an_error_after_the_first_row_is_never_repeated() {
    let mut rig = Rig::new();
    rig.client(&query("SELECT a FROM t"));
    rig.dialed(Replica);
    rig.sent(Replica);
    let mut reply = row("1", AUTO);
    reply.truncate(reply.len() - 9);
    reply.extend_from_slice(&err(5, 1792, "late"));
    rig.server(Replica, &reply);
    assert_eq!(rig.told(), reply);
    assert_eq!(rig.count_retries(Retry::ReplicaRefused), 0);
}

#[test]
fn a_replica_that_takes_no_link_is_passed_over() {
    for refusal in [None, Some(err_payload(1040, "Too many connections"))] {
        let mut rig = Rig::new();
        rig.client(&query("SELECT a FROM t"));
        let first = rig.dial_failed(Replica, refusal.clone());
        assert_ne!(rig.dial_failed(Replica, refusal), first, "the other replica");
        rig.dialed(Primary);
        assert_eq!(rig.sent_sql(Primary), "SELECT a FROM t");
    }
}

#[test]
fn without_replicas_the_primary_reads() {
    let mut rig = Rig::new();
    rig.topology(|topology| topology.nodes.truncate(1));
    rig.ask(Primary, "SELECT a FROM t", &row("1", AUTO));
}

#[test]
fn the_primarys_own_refusal_of_the_account_is_passed_on_and_closes() {
    let mut rig = Rig::new();
    rig.client(&query("DELETE FROM t"));
    rig.dial_failed(Primary, Some(err_payload(1045, "Access denied")));
    assert_eq!(rig.told_error().0, 1045);
    assert!(rig.closed());
}

#[test]
fn pipelined_commands_run_in_order() {
    let mut rig = Rig::new();
    let both = [query("INSERT INTO t VALUES (1)"), query("SELECT a FROM t")].concat();
    rig.client(&[both, query("DELETE FROM t")].concat());
    rig.dialed(Primary);
    assert_eq!(rig.sent_sql(Primary), "INSERT INTO t VALUES (1)");
    assert!(rig.sent(Replica).is_empty());
    rig.server(Primary, &ok(1, AUTO));
    rig.dialed(Replica);
    assert_eq!(rig.sent_sql(Replica), "SELECT a FROM t");
    rig.server(Replica, &row("1", AUTO));
    assert_eq!(rig.sent_sql(Primary), "DELETE FROM t");
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), [ok(1, AUTO), row("1", AUTO), ok(1, AUTO)].concat());
}

/// A session whose write the primary has refused as read-only, and the refusal.
fn refused_write() -> (Rig, Vec<u8>) {
    let mut rig = Rig::new();
    rig.client(&query("DELETE FROM t"));
    rig.dialed(Primary);
    rig.sent(Primary);
    let refused = err(1, 1290, "running with the --read-only option");
    rig.server(Primary, &refused);
    (rig, refused)
}

#[test]
fn a_primary_that_has_become_read_only_is_waited_for() {
    let (mut rig, _) = refused_write();
    assert!(rig.told().is_empty());
    assert_eq!(rig.session.phase_word(), "waiting for a primary");
    assert!(rig.signalled(Trouble::ReadOnly));
    // The same generation brings nothing new.
    rig.event(crate::session::action::Event::TopologyMoved);
    assert!(rig.sent(Primary).is_empty());
    rig.topology(|topology| topology.primary = Some(crate::topology::NodeId(1)));
    assert!(rig.dropped(Primary));
    assert_eq!(rig.dialed(Primary), 1);
    assert_eq!(rig.sent_sql(Primary), "DELETE FROM t");
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
    assert_eq!(rig.count_retries(Retry::PrimaryReadOnly), 1);
}

#[test]
fn a_read_only_primary_that_stays_so_gives_its_own_words_after_the_hold() {
    let (mut rig, refused) = refused_write();
    assert!(rig.deadline());
    assert_eq!(rig.told(), refused);
    assert!(!rig.closed());
    rig.now += std::time::Duration::from_secs(1);
    rig.topology(|_| {});
    rig.ask(Primary, "DELETE FROM t", &ok(1, AUTO));
}

#[test]
fn a_primary_that_a_client_made_read_only_answers_for_itself() {
    let mut rig = Rig::new();
    rig.ask(Primary, "SET GLOBAL read_only = 1", &ok(1, AUTO));
    assert!(rig.signalled(Trouble::SetReadOnly));
    let (mut rig, refused) = refused_write();
    assert_eq!(rig.session.phase_word(), "waiting for a primary");
    rig.topology(|topology| topology.nodes[0].read_only = true);
    assert_eq!(rig.sent_sql(Primary), "DELETE FROM t");
    rig.server(Primary, &refused);
    assert_eq!(rig.told(), refused);
    assert_eq!(rig.ask(Primary, "DELETE FROM u", &refused), refused);
}

/// What it did before is committed already, and would be done twice.
#[test]
fn a_procedure_that_meets_a_read_only_primary_in_its_middle_is_not_called_again() {
    let mut rig = Rig::new();
    rig.client(&query("CALL p()"));
    rig.dialed(Primary);
    rig.sent(Primary);
    let refused = err(1, 1290, "running with the --read-only option");
    rig.server(Primary, &refused);
    assert_eq!(rig.told(), refused);
    rig.topology(|topology| topology.primary = Some(crate::topology::NodeId(1)));
    assert!(rig.sent(Primary).is_empty());
}

#[test]
fn another_1290_is_the_answer() {
    let mut rig = Rig::new();
    rig.client(&query("DELETE FROM t"));
    rig.dialed(Primary);
    let refused = err(1, 1290, "running with the --secure-file-priv option");
    rig.server(Primary, &refused);
    assert_eq!(rig.told(), refused);
}

#[test]
fn without_a_primary_a_write_is_held_and_then_refused_with_the_reason() {
    let mut rig = Rig::new();
    rig.no_primary();
    rig.client(&query("DELETE FROM t"));
    assert_eq!(rig.session.phase_word(), "waiting for a primary");
    assert!(rig.deadline());
    let (code, _, text) = rig.told_error();
    assert_eq!(code, 1290);
    assert!(text.contains("db0 is down") && text.contains("generation 2"), "{text}");
    assert!(!rig.closed());
    // Reads go on meanwhile.
    rig.ask(Replica, "SELECT a FROM t", &row("1", AUTO));
}

#[test]
fn a_hold_ends_with_the_new_primary() {
    let mut rig = Rig::new();
    rig.no_primary();
    rig.client(&query("DELETE FROM t"));
    rig.topology(|topology| topology.primary = Some(crate::topology::NodeId(2)));
    assert_eq!(rig.dialed(Primary), 2);
    assert_eq!(rig.sent_sql(Primary), "DELETE FROM t");
}

#[test]
fn a_primary_that_takes_no_link_is_tried_again_until_the_hold_runs_out() {
    let mut rig = Rig::new();
    rig.client(&query("DELETE FROM t"));
    let mut tries = 0;
    while rig.wants_dial() {
        rig.dial_failed(Primary, None);
        tries += 1;
        assert!(tries < 1000, "{rig:?}");
        rig.deadline();
    }
    assert!(tries > 10, "{tries} tries");
    assert_eq!(rig.told_error().0, 1290);
    assert!(rig.signalled(Trouble::DialFailed));
}

#[test]
fn a_deadline_is_never_in_the_past() {
    let mut rig = Rig::new();
    rig.client(&query("DELETE FROM t"));
    rig.dial_failed(Primary, None);
    rig.no_primary();
    assert!(rig.deadline());
    if rig.session.phase_word() == "waiting for a primary" {
        let deadline = rig.session.deadline().expect("a hold has an end");
        assert!(deadline > rig.now, "the shell would spin");
    }
}

#[test]
fn a_server_that_breaks_every_fresh_link_does_not_make_the_session_spin() {
    let mut rig = Rig::new();
    rig.ask(Primary, "SET sql_mode=''", &ok_with(1, AUTO, &[variable("sql_mode", "")]));
    rig.server(Primary, b"");
    rig.event(crate::session::action::Event::LinkClosed(Primary));
    rig.client(&query("DELETE FROM t"));
    let mut dials = 0;
    for _ in 0..1000 {
        if rig.wants_dial() {
            dials += 1;
            rig.dialed(Primary);
            assert!(rig.sent_sql(Primary).starts_with("SET sql_mode"));
            rig.event(crate::session::action::Event::LinkClosed(Primary));
        } else if !rig.deadline() {
            break;
        }
    }
    assert!(dials < 100, "{dials} links in {:?}", rig.group.hold);
    assert_eq!(rig.told_error().0, 1290);
}

#[test]
fn what_a_server_says_unasked_is_never_given_to_the_client() {
    for slot in [Primary, Replica] {
        let mut rig = Rig::new();
        rig.write();
        rig.client(&query("SELECT a FROM t"));
        rig.dialed(Replica);
        rig.server(Replica, &row("1", AUTO));
        rig.told();
        rig.sent(Replica);
        rig.server(slot, &err(0, 4031, "The client was disconnected by the server"));
        assert!(rig.told().is_empty());
        assert!(rig.dropped(slot));
        assert!(!rig.closed(), "the client need not notice");
    }
}

#[test]
fn bytes_behind_the_end_of_a_reply_are_never_the_answer_to_the_next_command() {
    let mut rig = Rig::new();
    rig.client(&query("DELETE FROM t"));
    rig.dialed(Primary);
    rig.sent(Primary);
    rig.server(Primary, &[ok(1, AUTO), row("stale", AUTO)].concat());
    assert_eq!(rig.told(), ok(1, AUTO));
    rig.client(&query("DELETE FROM u"));
    // Whatever happens to the link, nothing stale comes out.
    if rig.wants_dial() {
        rig.dialed(Primary);
    }
    assert_eq!(rig.sent_sql(Primary), "DELETE FROM u");
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
}

#[test]
fn bytes_behind_the_end_of_our_own_reply_are_never_the_clients_answer() {
    let mut rig = Rig::new();
    rig.ask(Primary, "INSERT INTO t VALUES (1)", &wrote("0-1-5"));
    rig.client(&query("SELECT a FROM t"));
    rig.dialed(Replica);
    rig.sent(Replica);
    rig.server(Replica, &[row("0", AUTO), row("stale", AUTO)].concat());
    assert!(rig.told().is_empty());
    assert!(rig.dropped(Replica), "{rig:?}");
}

#[test]
fn trackers_for_transactions_pin_and_release() {
    let mut rig = Rig::new();
    let set = [Change::TransactionCharacteristics(b"SET TRANSACTION READ ONLY;")];
    rig.ask(Primary, "SET TRANSACTION READ ONLY", &ok_with(1, AUTO, &set));
    assert!(rig.session.pins().has(Pin::NextTransaction));
    let begun = [Change::TransactionCharacteristics(b"START TRANSACTION READ ONLY;")];
    rig.ask(Primary, "BEGIN", &ok_with(1, OPEN, &begun));
    let over = [Change::TransactionCharacteristics(b"")];
    rig.ask(Primary, "COMMIT", &ok_with(1, AUTO, &over));
    assert!(!rig.session.pins().has(Pin::NextTransaction));
}
