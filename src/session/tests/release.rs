//! Links given up by idle sessions, and taken over by others.

use super::fixture::*;
use crate::protocol::flags::Status;
use crate::router::policy::Held;
use crate::session::action::{Event, NoLink, Request};
use crate::session::links::Kept;
use crate::topology::Condition;

const COUNTS: &str = "SELECT CONCAT_WS(',', LAST_INSERT_ID(), FOUND_ROWS(), ROW_COUNT()";
const TRACKERS: &str = "SET SESSION session_track_system_variables='*', session_track_schema=1, \
                        session_track_state_change=1, \
                        session_track_transaction_info='CHARACTERISTICS'";

/// The session is told to give up its links; asked on `slot`, its server answers `counts`.
fn give_up(rig: &mut Rig, slot: Held, counts: &str) -> Box<Kept> {
    rig.event(Event::Release);
    let asked = rig.sent_sql(slot);
    assert!(asked.starts_with(COUNTS), "{asked}");
    rig.server(slot, &row(counts, AUTO));
    rig.released(slot)
}

/// What a session with a link that it has just given up.
fn parted(counts: &str) -> (Rig, Box<Kept>) {
    let mut rig = Rig::new();
    rig.write();
    let kept = give_up(&mut rig, Primary, counts);
    assert!(rig.told().is_empty());
    (rig, kept)
}

/// A link of another session is reset and set up; answers what it was told for that.
fn reset(rig: &mut Rig, slot: Held) -> String {
    assert_eq!(rig.sent(slot), [b"\x1f"], "COM_RESET_CONNECTION first");
    rig.server(slot, &ok(1, AUTO));
    let sql = rig.sent_sql(slot);
    rig.server(slot, &ok(1, AUTO));
    sql
}

#[test]
fn an_idle_session_gives_up_its_link_and_gets_it_back_as_it_was() {
    let (mut rig, kept) = parted("0,1,1");
    assert!(!rig.session.can_release());
    assert_eq!(rig.session.nodes(), [None, None]);
    rig.client(&query("INSERT INTO t VALUES (2)"));
    rig.attached(Primary, kept, true);
    assert_eq!(rig.sent_sql(Primary), "INSERT INTO t VALUES (2)");
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
}

#[test]
fn a_server_that_is_down_is_not_asked_before_its_link_goes() {
    let mut rig = Rig::new();
    rig.write();
    rig.topology(|topology| {
        topology.nodes[0].condition = Condition::Down;
        topology.primary = None;
    });
    rig.event(Event::Release);
    assert!(rig.sent(Primary).is_empty() && rig.dropped(Primary));
    assert!(rig.session.interest().client, "the client is heard, and its next write is held");
    rig.client(&query("INSERT INTO t VALUES (2)"));
    assert!(rig.session.interest().topology && rig.told().is_empty());
}

#[test]
fn a_link_of_another_session_is_reset_and_brought_into_the_own_state() {
    let (_, kept) = parted("0,1,1");
    let mut rig = Rig::new();
    rig.ask(Primary, "SET sql_mode='ANSI'", &ok_with(1, AUTO, &[variable("sql_mode", "ANSI")]));
    let _own = give_up(&mut rig, Primary, "7,1,0");
    rig.client(&query("INSERT INTO t VALUES (2)"));
    rig.attached(Primary, kept, false);
    assert_eq!(reset(&mut rig, Primary), format!("{TRACKERS}, last_insert_id=7"));
    assert_eq!(rig.sent_sql(Primary), "SET sql_mode='ANSI'");
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.sent_sql(Primary), "INSERT INTO t VALUES (2)");
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), [ok_with(1, AUTO, &[]), ok(1, AUTO)].concat()[11..]);
}

#[test]
fn warnings_of_our_own_are_gone_before_the_client_is_served() {
    let (_, kept) = parted("0,1,1");
    let mut rig = Rig::new();
    rig.write();
    let _own = give_up(&mut rig, Primary, "0,1,0");
    rig.client(&command(b"\x02app"));
    rig.attached(Primary, kept, false);
    assert_eq!(rig.sent(Primary), [b"\x1f"]);
    rig.server(Primary, &ok(1, AUTO));
    assert!(rig.sent_sql(Primary).starts_with(TRACKERS));
    rig.server(Primary, &[7, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0]);
    let silencing = rig.sent_sql(Primary);
    assert!(silencing.starts_with("SET last_insert_id=(SELECT 0 FROM "), "{silencing}");
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.sent(Primary), [b"\x02app"]);
}

/// MariaDB keeps what is listed over a SET without tables.
#[test]
fn warnings_of_our_own_are_not_forgotten_over_another_step() {
    let (_, kept) = parted("0,1,1");
    let mut rig = Rig::new();
    let names = ["character_set_client", "character_set_connection", "character_set_results"];
    let names = names.map(|name| variable(name, "latin1"));
    rig.ask(Primary, "SET NAMES latin1", &ok_with(1, AUTO, &names));
    rig.ask(Primary, "SET @a='x'", &ok(1, AUTO));
    let _own = give_up(&mut rig, Primary, "0,1,0");
    rig.client(&command(b"\x02app"));
    rig.attached(Primary, kept, false);
    reset(&mut rig, Primary);
    assert_eq!(rig.sent_sql(Primary), "SET NAMES latin1");
    rig.server(Primary, &[7, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0]);
    assert_eq!(rig.sent_sql(Primary), "SET @`a`='x'");
    rig.server(Primary, &ok(1, AUTO));
    let silencing = rig.sent_sql(Primary);
    assert!(silencing.starts_with("SET last_insert_id=(SELECT 0 FROM "), "{silencing}");
}

#[test]
fn the_schema_is_selected_on_a_link_that_may_have_it_already() {
    let named = session_track_schema();
    let mut other = Rig::new();
    other.ask(Primary, "USE app", &ok_with(1, AUTO, &[named]));
    let kept = give_up(&mut other, Primary, "0,1,0");
    assert!(kept.has_schema());
    let mut rig = Rig::new();
    rig.ask(Primary, "USE app", &ok_with(1, AUTO, &[named]));
    let _own = give_up(&mut rig, Primary, "0,1,0");
    rig.client(&query("INSERT INTO t VALUES (2)"));
    rig.attached(Primary, kept, false);
    reset(&mut rig, Primary);
    assert_eq!(rig.sent(Primary), [b"\x02app"]);
}

fn session_track_schema() -> crate::protocol::session_track::Change<'static> {
    crate::protocol::session_track::Change::Schema(b"app")
}

#[test]
fn a_replicas_link_stays_read_only_after_the_reset() {
    let mut other = Rig::new();
    other.ask(Replica, "SELECT a FROM t", &row("1", AUTO));
    let kept = give_up(&mut other, Replica, "0,1,-1");
    let mut rig = Rig::new();
    rig.client(&query("SELECT a FROM t"));
    rig.attached(Replica, kept, false);
    assert_eq!(reset(&mut rig, Replica), format!("{TRACKERS}, tx_read_only=1"));
    assert_eq!(rig.sent_sql(Replica), "SELECT a FROM t");
}

#[test]
fn what_the_client_may_still_ask_for_is_carried() {
    let (mut rig, _) = parted("42,3,2");
    rig.client(&query("SELECT LAST_INSERT_ID()"));
    rig.dialed(Primary);
    assert_eq!(rig.sent_sql(Primary), "SET last_insert_id=42");
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.sent_sql(Primary), "SELECT LAST_INSERT_ID()");
    for (asked, sent) in [
        ("SELECT ROW_COUNT()", "SELECT IF(1,(2),ROW_COUNT()) AS `ROW_COUNT()`"),
        ("SELECT FOUND_ROWS() f", "SELECT IF(1,(3),FOUND_ROWS()) f"),
        ("SHOW WARNINGS", "SHOW WARNINGS"),
    ] {
        let (mut rig, _) = parted("0,3,2");
        rig.client(&query(asked));
        rig.dialed(Primary);
        // Nothing of ours may show in the warnings.
        assert_eq!(rig.sent_sql(Primary), "SET last_insert_id=0", "{asked}");
        rig.server(Primary, &ok(1, AUTO));
        assert_eq!(rig.sent_sql(Primary), sent);
    }
}

#[test]
fn a_ping_leaves_no_row_count_to_carry() {
    let (mut rig, _) = parted("0,3,2");
    rig.client(&command(b"\x0e"));
    rig.client(&query("SELECT ROW_COUNT()"));
    rig.dialed(Primary);
    rig.sent(Primary);
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.sent(Primary), [b"\x0e"]);
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.sent_sql(Primary), "SELECT IF(1,(0),ROW_COUNT()) AS `ROW_COUNT()`");
}

#[test]
fn found_rows_outlives_a_commit_on_another_link() {
    let (mut rig, _) = parted("0,3,-1");
    rig.ask(Primary, "COMMIT", &ok(1, AUTO));
    rig.client(&query("SELECT FOUND_ROWS(), ROW_COUNT()"));
    assert_eq!(
        rig.sent_sql(Primary),
        "SELECT IF(1,(3),FOUND_ROWS()) AS `FOUND_ROWS()`, ROW_COUNT()"
    );
    rig.server(Primary, &row("1", AUTO));
    rig.client(&query("SELECT FOUND_ROWS()"));
    assert_eq!(rig.sent_sql(Primary), "SELECT FOUND_ROWS()");
}

#[test]
fn row_counts_that_cannot_be_written_into_the_text_are_an_error_not_a_wrong_answer() {
    let (mut rig, _) = parted("0,3,2");
    rig.client(&query("GET DIAGNOSTICS @n = ROW_COUNT"));
    assert_eq!(rig.told_error().0, 1105);
}

#[test]
fn the_cost_of_a_query_whose_link_was_given_up_is_an_error_not_a_wrong_answer() {
    let (mut rig, _) = parted("0,3,2");
    rig.client(&query("SHOW STATUS LIKE 'Last_query_cost'"));
    assert_eq!(rig.told_error().0, 1105);
}

#[test]
fn a_prepared_question_gets_the_carried_numbers_for_once() {
    let mut rig = Rig::new();
    rig.client(&prepare("SELECT FOUND_ROWS()"));
    rig.dialed(Primary);
    rig.sent(Primary);
    rig.server(Primary, &prepared(40, 1, 0));
    rig.ask(Primary, "SELECT a FROM t FOR UPDATE", &row("1", AUTO));
    let kept = give_up(&mut rig, Primary, "0,9,-1");
    rig.client(&execute(1, 0));
    rig.attached(Primary, kept, true);
    // Its own link may still have warnings of before.
    assert_eq!(reset(&mut rig, Primary), TRACKERS);
    assert_eq!(rig.sent(Primary), [b"\x16SELECT IF(1,(9),FOUND_ROWS()) AS `FOUND_ROWS()`"]);
    rig.server(Primary, &prepared(41, 1, 0));
    assert_eq!(rig.sent_raw(Primary), execute(41, 0));
    rig.server(Primary, &row("9", AUTO));
    assert_eq!(rig.sent_raw(Primary), about(0x19, 41));
    rig.client(&execute(1, 0));
    assert_eq!(rig.sent(Primary), [b"\x16SELECT FOUND_ROWS()"]);
}

#[test]
fn a_link_on_which_something_hangs_is_kept() {
    let warned = crate::protocol::reply::Ok { status: AUTO, warnings: 1, ..Default::default() };
    let mut with_warning = Vec::new();
    warned.encode(&mut with_warning, 1, 0, CAPS);
    for (what, sql, answer) in [
        ("a transaction", "BEGIN", ok(1, OPEN)),
        ("a temporary table", "CREATE TEMPORARY TABLE x (a INT)", ok(1, AUTO)),
        ("a lock", "SELECT GET_LOCK('a', 1)", row("1", AUTO)),
        ("a computed variable", "SET @a = NOW()", ok(1, AUTO)),
        ("a warning", "INSERT INTO t VALUES (1)", with_warning),
        ("an error", "INSERT INTO t VALUES (1)", err(1, 1062, "Duplicate")),
        ("a statement without autocommit", "SAVEPOINT a", ok(1, Default::default())),
    ] {
        let mut rig = Rig::new();
        rig.client(&query(sql));
        rig.dialed(Primary);
        rig.sent(Primary);
        rig.server(Primary, &answer);
        assert!(!rig.session.can_release(), "{what}");
        rig.event(Event::Release);
        assert!(rig.sent(Primary).is_empty() && !rig.has_released(Primary), "{what}");
    }
}

/// A trigger of the INSERT may have set a variable; MariaDB's trackers do not tell.
#[test]
fn a_link_with_variables_that_nobody_told_of_is_kept() {
    let mut rig = Rig::new();
    rig.ask(Primary, "SET @a = 5", &ok(1, AUTO));
    rig.write();
    rig.event(Event::Release);
    let asked = rig.sent_sql(Primary);
    let known =
        "(SELECT COUNT(*) FROM information_schema.USER_VARIABLES)=1 AND (@`a` <=> 5)) LIMIT 1";
    assert!(asked.ends_with(known), "{asked}");
    rig.server(Primary, &row("0,1,1,0", AUTO));
    assert!(!rig.has_released(Primary));
    assert!(rig.session.pins().has(Pin::UserVariable));
    let mut rig = Rig::new();
    rig.write();
    rig.event(Event::Release);
    rig.sent(Primary);
    rig.server(Primary, &row("0,1,1,1", AUTO));
    rig.released(Primary);
    // Nor does the first of several statements.
    let mut rig = Rig::new();
    let more = AUTO | Status::MORE_RESULTS_EXISTS;
    rig.ask(Primary, "COMMIT; DELETE FROM t", &[ok(1, more), ok(2, AUTO)].concat());
    rig.event(Event::Release);
    let asked = rig.sent_sql(Primary);
    assert!(asked.contains("information_schema.USER_VARIABLES"), "{asked}");
}

/// MariaDB keeps the warnings of a statement until the next one that uses a table.
#[test]
fn warnings_stay_until_they_can_no_longer_be_asked_for() {
    let mut rig = Rig::new();
    rig.write();
    rig.ask(Primary, "UPDATE t SET a = 1", &err(1, 1062, "Duplicate"));
    rig.ask(Primary, "COMMIT", &ok(1, AUTO));
    assert!(!rig.session.can_release());
    rig.ask(Primary, "SHOW WARNINGS", &row("1", AUTO));
    assert!(!rig.session.can_release());
    rig.ask(Primary, "SELECT 1 FROM t FOR UPDATE", &row("1", AUTO));
    assert!(rig.session.can_release());
}

/// A session without autocommit that holds a link.
fn without_autocommit() -> Rig {
    let mut rig = Rig::new();
    rig.write();
    let off = ok_with(1, Default::default(), &[variable("autocommit", "OFF")]);
    rig.ask(Primary, "SET autocommit=0", &off);
    rig
}

#[test]
fn without_autocommit_the_link_is_free_after_the_commit() {
    let mut rig = without_autocommit();
    assert!(rig.session.can_release());
    rig.ask(Primary, "SELECT 1 FROM t", &row("1", Default::default()));
    assert!(!rig.session.can_release());
    rig.ask(Primary, "COMMIT", &ok(1, Default::default()));
    assert!(rig.session.can_release());
}

/// What it has begun would keep its locks in the pool.
#[test]
fn without_autocommit_a_commit_that_is_only_prepared_frees_nothing() {
    let mut rig = without_autocommit();
    rig.ask(Primary, "SELECT 1 FROM t", &row("1", Default::default()));
    rig.client(&prepare("COMMIT"));
    assert_eq!(rig.sent(Primary).len(), 1);
    rig.server(Primary, &prepared(1, 0, 0));
    rig.told();
    assert!(!rig.session.can_release());
    rig.ask(Primary, "COMMIT", &ok(1, Default::default()));
    assert!(rig.session.can_release());
}

#[test]
fn a_link_that_was_marked_goes_to_nobody_else() {
    let mut rig = Rig::new();
    rig.ask(Primary, "SELECT GET_LOCK('a', 1)", &row("1", AUTO));
    rig.ask(Primary, "SELECT RELEASE_ALL_LOCKS()", &row("1", AUTO));
    assert!(!give_up(&mut rig, Primary, "0,1,-1").may_change_hands());
    let mut rig = Rig::new();
    rig.ask(Primary, "SET ROLE r", &ok(1, AUTO));
    assert!(!give_up(&mut rig, Primary, "0,0,0").may_change_hands());
    let mut rig = Rig::new();
    rig.write();
    rig.session.link_is_shot_at();
    assert!(!give_up(&mut rig, Primary, "0,0,1").may_change_hands());
    assert!(parted("0,1,1").1.may_change_hands());
}

#[test]
fn a_link_given_up_before_a_reset_of_the_client_is_as_good_as_anothers() {
    let (mut rig, kept) = parted("5,1,1");
    rig.client(&command(b"\x1f"));
    assert_eq!(rig.told(), ok(1, AUTO));
    rig.client(&query("INSERT INTO t VALUES (2)"));
    rig.attached(Primary, kept, true);
    assert_eq!(reset(&mut rig, Primary), TRACKERS);
}

#[test]
fn statements_survive_on_the_own_link_and_those_closed_meanwhile_are_closed_there() {
    let mut rig = with_two_statements();
    let kept = give_up(&mut rig, Primary, "0,0,0");
    rig.told();
    rig.client(&about(0x19, 2));
    assert_eq!(closed_in_pool(&mut rig), [(Primary, kept.serial(), 41)]);
    rig.client(&execute(1, 0));
    rig.attached(Primary, kept, true);
    assert_eq!(rig.sent_raw(Primary), execute(40, 0));
}

#[test]
fn a_session_that_leaves_leaves_no_statement_behind() {
    let mut rig = with_two_statements();
    rig.client(&command(b"\x01"));
    assert!(rig.has_released(Primary));
    assert_eq!(rig.sent_raw(Primary), [about(0x19, 40), about(0x19, 41)].concat());
    // The link is in the pool already.
    let mut rig = with_two_statements();
    let kept = give_up(&mut rig, Primary, "0,0,0");
    rig.client(&command(b"\x01"));
    let serial = kept.serial();
    assert_eq!(closed_in_pool(&mut rig), [(Primary, serial, 40), (Primary, serial, 41)]);
    // And a reset of the client ends them as well.
    let mut rig = with_two_statements();
    let kept = give_up(&mut rig, Primary, "0,0,0");
    rig.client(&command(b"\x1f"));
    let serial = kept.serial();
    assert_eq!(closed_in_pool(&mut rig), [(Primary, serial, 40), (Primary, serial, 41)]);
    // A reset of the link itself needs no more words.
    let mut rig = with_two_statements();
    rig.client(&command(b"\x1f"));
    assert_eq!(rig.sent_raw(Primary), command(b"\x1f"));
    rig.server(Primary, &ok(1, AUTO));
    assert!(rig.sent_raw(Primary).is_empty() && closed_in_pool(&mut rig).is_empty());
}

/// The client has two statements, 1 and 2, which the primary calls 40 and 41.
fn with_two_statements() -> Rig {
    let mut rig = Rig::new();
    for (id, sql) in [(40, "DELETE FROM t"), (41, "DELETE FROM u")] {
        rig.client(&prepare(sql));
        if rig.wants_dial() {
            rig.dialed(Primary);
        }
        rig.sent(Primary);
        rig.server(Primary, &prepared(id, 0, 0));
    }
    rig
}

/// What is to be closed on links in the pool: slot, serial, the server's id.
fn closed_in_pool(rig: &mut Rig) -> Vec<(Held, u32, u32)> {
    let closes = rig.requests.drain(..).filter_map(|request| match request {
        Request::CloseParked { slot, serial, id } => Some((slot, serial, id)),
        _ => None,
    });
    closes.collect()
}

#[test]
fn no_link_in_time_is_an_error_and_the_session_goes_on() {
    let mut rig = Rig::new();
    rig.client(&query("INSERT INTO t VALUES (1)"));
    let node = rig.take_dial(Primary);
    let why = NoLink::Full(3);
    rig.event(Event::NoLink { slot: Primary, node: crate::topology::NodeId(node), why });
    let (code, state, _) = rig.told_error();
    assert_eq!((code, state.as_str()), (1040, "08004"));
    rig.write();
}

#[test]
fn a_read_for_which_its_replica_has_no_link_runs_elsewhere() {
    let mut rig = Rig::new();
    rig.client(&query("SELECT a FROM t"));
    let node = rig.take_dial(Replica);
    let why = NoLink::Full(3);
    rig.event(Event::NoLink { slot: Replica, node: crate::topology::NodeId(node), why });
    assert_ne!(rig.dialed(Replica), node);
    assert_eq!(rig.sent_sql(Replica), "SELECT a FROM t");
}

#[test]
fn who_waits_for_one_link_gives_up_the_other_when_it_is_called() {
    let mut rig = Rig::new();
    rig.write();
    rig.client(&query("SELECT a FROM t"));
    let node = rig.take_dial(Replica);
    assert!(rig.session.can_release());
    let node = crate::topology::NodeId(node);
    rig.event(Event::NoLink { slot: Replica, node, why: NoLink::Called });
    let asked = rig.sent_sql(Primary);
    assert!(asked.starts_with("SELECT CONCAT_WS(',', LAST_INSERT_ID()"), "{asked}");
    rig.server(Primary, &row("5,0,1", AUTO));
    assert_eq!(rig.session.nodes(), [None, None]);
    rig.dialed(Replica);
    assert_eq!(rig.sent_sql(Replica), "SELECT a FROM t");
}

/// Between a statement that shows the client's trackers and the next one, the link has those.
#[test]
fn a_link_with_the_clients_trackers_is_told_ours_before_anybodys_next_statement() {
    let shown = |rig: &mut Rig, slot: Held| {
        rig.client(&query("SHOW VARIABLES LIKE 'session_track%'"));
        if rig.wants_dial() {
            rig.dialed(slot);
        }
        let told = "SET SESSION session_track_schema=DEFAULT, session_track_state_change=DEFAULT";
        let sql = rig.sent_sql(slot);
        assert!(sql.starts_with(told), "{sql}");
        rig.server(slot, &ok(1, AUTO));
        assert_eq!(rig.sent_sql(slot), "SHOW VARIABLES LIKE 'session_track%'");
        rig.server(slot, &row("1", AUTO));
        give_up(rig, slot, "0,1,-1")
    };
    let mut rig = Rig::new();
    rig.write();
    let kept = shown(&mut rig, Primary);
    rig.client(&query("INSERT INTO t VALUES (2)"));
    rig.attached(Primary, kept, true);
    assert_eq!(rig.sent_sql(Primary), TRACKERS, "its own session");
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.sent_sql(Primary), "INSERT INTO t VALUES (2)");

    let mut other = Rig::new();
    other.write();
    let kept = shown(&mut other, Primary);
    let mut rig = Rig::new();
    rig.client(&query("INSERT INTO t VALUES (2)"));
    rig.attached(Primary, kept, false);
    assert_eq!(reset(&mut rig, Primary), TRACKERS, "another session");
    assert_eq!(rig.sent_sql(Primary), "INSERT INTO t VALUES (2)");
}

/// A client's own SET of a tracker, likewise.
#[test]
fn a_link_whose_trackers_the_client_has_set_is_set_up_for_the_next_session() {
    let mut other = Rig::new();
    other.ask(Primary, "SET session_track_schema=0", &ok(1, AUTO));
    let kept = give_up(&mut other, Primary, "0,0,0");
    let mut rig = Rig::new();
    rig.client(&query("INSERT INTO t VALUES (2)"));
    rig.attached(Primary, kept, false);
    assert_eq!(reset(&mut rig, Primary), TRACKERS);
    assert_eq!(rig.sent_sql(Primary), "INSERT INTO t VALUES (2)");
}

#[test]
fn an_error_told_here_is_told_to_a_server_before_it_is_asked_for() {
    let mut rig = Rig::new();
    rig.write();
    rig.client(&about(0x1A, 99));
    assert_eq!(rig.told_error().0, 1243);
    rig.client(&query("SHOW WARNINGS"));
    let told = rig.sent_sql(Primary);
    assert!(told.starts_with("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO=1243"), "{told}");
    rig.server(Primary, &err(1, 1243, "Unknown prepared statement handler"));
    assert!(rig.told().is_empty(), "it is not the client's answer");
    assert_eq!(rig.sent_sql(Primary), "SHOW WARNINGS");
    rig.server(Primary, &row("Error", AUTO));
    assert!(!rig.session.can_release(), "the list is on this link only");
    rig.ask(Primary, "INSERT INTO t VALUES (3)", &ok(1, AUTO));
    assert!(rig.session.can_release());
}

/// MariaDB keeps its list over what uses no table.
#[test]
fn warnings_are_asked_of_the_link_that_lists_them() {
    for (read, asked) in [("SELECT 1", Primary), ("SELECT a FROM t", Replica)] {
        let mut rig = Rig::new();
        let warned = [7, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0];
        rig.ask(Primary, "INSERT IGNORE INTO t VALUES (1)", &warned);
        rig.client(&query(read));
        rig.dialed(Replica);
        assert_eq!(rig.sent_sql(Replica), read);
        rig.server(Replica, &row("1", AUTO));
        rig.told();
        rig.ask(Primary, "COMMIT", &ok(1, AUTO));
        rig.client(&query("SHOW WARNINGS"));
        assert_eq!(rig.sent_sql(asked), "SHOW WARNINGS", "after {read}");
    }
}
