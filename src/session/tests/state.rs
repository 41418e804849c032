//! What follows the client from link to link, what pins it, and what it sees of the trackers.

use super::fixture::*;
use crate::protocol::flags::{Capabilities, Status};
use crate::protocol::reply;
use crate::protocol::session_track::{self, Change};
use crate::session::action::Event;
use crate::topology::Flavour;

/// Answers each of our own commands on the replica with an OK, and gives their payloads up to
/// the client's own, which is answered with a row.
fn brought_up(rig: &mut Rig, sql: &str) -> Vec<String> {
    rig.client(&query(sql));
    if rig.wants_dial() {
        rig.dialed(Replica);
    }
    let mut steps = Vec::new();
    for _ in 0..10 {
        assert!(rig.told().is_empty(), "{rig:?}");
        let sent = rig.sent(Replica);
        let [command] = sent.as_slice() else { panic!("one at a time: {sent:?} {rig:?}") };
        let text = String::from_utf8_lossy(&command[1..]).into_owned();
        if command[0] == 3 && text == sql {
            rig.server(Replica, &row("1", AUTO));
            assert_eq!(rig.told(), row("1", AUTO));
            return steps;
        }
        steps.push(if command[0] == 2 { format!("USE {text}") } else { text });
        rig.server(Replica, &ok(1, AUTO));
    }
    panic!("no end of steps: {steps:?}");
}

#[test]
fn a_link_is_brought_up_in_order_role_schema_variables() {
    let mut rig = Rig::new();
    let mode = [variable("sql_mode", "ANSI_QUOTES"), variable("sort_buffer_size", "65536")];
    rig.ask(
        Primary,
        "SET sql_mode='ANSI_QUOTES', sort_buffer_size=65536",
        &ok_with(1, AUTO, &mode),
    );
    rig.ask(Primary, "SET ROLE reader", &ok(1, AUTO));
    rig.ask(Primary, "SET @a = 5", &ok_with(1, AUTO, &[Change::StateChange]));
    let schema = [Change::Schema(b"app")];
    // The link is opened before the schema is known, so that it has to be told.
    rig.client(&query("SELECT a FROM t"));
    rig.dial_failed(Replica, None);
    rig.dial_failed(Replica, None);
    rig.server(Primary, &row("1", AUTO));
    rig.sent(Primary);
    rig.told();
    rig.ask(Primary, "USE app", &ok_with(1, AUTO, &schema));
    // The read on the primary has left a floor.
    rig.group.consistency = crate::config::Consistency::Eventual;
    let steps = brought_up(&mut rig, "SELECT b FROM t");
    assert_eq!(
        steps,
        ["SET ROLE reader", "SET sql_mode='ANSI_QUOTES', sort_buffer_size=65536, @`a`=5"],
        "the dial has selected the schema"
    );
    // All there: nothing is sent twice.
    assert!(brought_up(&mut rig, "SELECT b FROM t").is_empty());
    // Later changes alone.
    rig.ask(Primary, "SET @b = 'x'", &ok_with(1, AUTO, &[Change::StateChange]));
    rig.ask(Primary, "USE other", &ok_with(1, AUTO, &[Change::Schema(b"other")]));
    assert_eq!(brought_up(&mut rig, "SELECT b FROM t"), ["USE other", "SET @`b`='x'"]);
    rig.ask(Primary, "SET ROLE NONE", &ok(1, AUTO));
    rig.ask(Primary, "USE third", &ok_with(1, AUTO, &[Change::Schema(b"third")]));
    assert_eq!(brought_up(&mut rig, "SELECT b FROM t"), ["SET ROLE NONE", "USE third"]);
    rig.ask(Primary, "SET ROLE reader", &ok(1, AUTO));
    assert_eq!(brought_up(&mut rig, "SELECT b FROM t"), ["SET ROLE reader"]);
}

#[test]
fn com_init_db_is_a_use() {
    let mut rig = Rig::new();
    rig.client(&command(b"\x02app"));
    rig.dialed(Primary);
    assert_eq!(rig.sent(Primary), [b"\x02app"]);
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.session.schema(), Some(&b"app"[..]));
    rig.client(&command(b"\x02nope"));
    rig.server(Primary, &err(1, 1049, "Unknown database"));
    assert_eq!(rig.session.schema(), Some(&b"app"[..]));
}

#[test]
fn a_failed_set_records_nothing() {
    for sql in ["SET ROLE nobody", "SET @a = 5", "SET NAMES utf8mb4 COLLATE nope", "USE nope"] {
        let mut rig = Rig::new();
        rig.ask(Primary, sql, &err(1, 1231, "no"));
        assert!(rig.session.pins().is_empty(), "{sql}: {rig:?}");
        assert!(brought_up(&mut rig, "SELECT b FROM t").is_empty(), "{sql}");
    }
}

#[test]
fn user_variables_follow_by_their_literals_and_pin_by_queries() {
    let mut rig = Rig::new();
    let changed = ok_with(1, AUTO, &[Change::StateChange]);
    rig.ask(Primary, "SET @a = 5, @b = 'x'", &changed);
    assert!(rig.session.pins().is_empty(), "{rig:?}");
    assert_eq!(brought_up(&mut rig, "SELECT @a"), ["SET @`a`=5, @`b`='x'"]);
    rig.ask(Primary, "SET @a = (SELECT 1)", &changed);
    assert!(rig.session.pins().has(Pin::UserVariable));
    rig.ask(Primary, "SELECT a FROM t", &row("1", AUTO));
    let mut rig = Rig::new();
    rig.ask(Primary, "SELECT a INTO @x FROM t", &changed);
    assert!(rig.session.pins().has(Pin::UserVariable));
}

/// MySQL 9.7 makes the variables of a SET that fails, or is prepared: NULL, of a type.
#[test]
fn on_mysql_a_set_that_fails_or_is_prepared_leaves_its_variables() {
    let on_mysql = || {
        let mut rig = Rig::new();
        rig.session.state.dialect.flavour = Flavour::MySql;
        rig
    };
    for (sql, code, pinned) in [
        ("SET @a = 5, sql_mode = 'nope'", 1231, true),
        ("SELECT @a := 5, (SELECT 1 UNION SELECT 2)", 1242, true),
        ("SET sql_mode = 'nope'", 1231, false),
        ("SET @a = = 5", 1064, false),
        ("SET @a = 5, no_such = 1", 1193, false),
    ] {
        let mut rig = on_mysql();
        rig.ask(Primary, sql, &err(1, code, "no"));
        assert_eq!(rig.session.pins().has(Pin::UserVariable), pinned, "{sql}: {rig:?}");
    }
    for (sql, pinned) in
        [("SET @a = ?", true), ("SELECT @a := ?", true), ("SET NAMES latin1", false)]
    {
        let mut rig = on_mysql();
        rig.client(&prepare(sql));
        rig.dialed(Primary);
        rig.sent(Primary);
        rig.server(Primary, &prepared(40, 0, 1));
        assert_eq!(rig.session.pins().has(Pin::UserVariable), pinned, "{sql}: {rig:?}");
    }
}

/// What a trigger or a function has set before its statement failed, MySQL 9.7 tells with the next
/// OK on that connection.
#[test]
fn what_mysql_has_set_before_an_error_is_heard_with_the_next_ok() {
    let changed = ok_with(1, AUTO, &[Change::StateChange]);
    let own = ok_with(1, AUTO, &[]);
    for (next, answer, pinned) in [
        ("DELETE FROM u", &changed, true),
        // It would explain a change of its own.
        ("SET @b = 5", &changed, true),
        ("DELETE FROM u", &own, false),
    ] {
        let mut rig = Rig::new();
        rig.session.state.dialect.flavour = Flavour::MySql;
        rig.ask(Primary, "INSERT INTO t VALUES (1), (1)", &err(1, 1062, "twice"));
        // The end of rows tells nothing to a client of this kind.
        rig.ask(Primary, "SELECT a FROM t FOR UPDATE", &row("1", AUTO));
        assert!(!rig.session.can_release(), "{rig:?}");
        rig.ask(Primary, next, answer);
        assert_eq!(rig.session.pins().has(Pin::OpaqueState), pinned, "{next}: {rig:?}");
        assert_eq!(rig.session.can_release(), !pinned, "{next}: {rig:?}");
    }
    // What has succeeded has told, unless rows came last and no OK ends them.
    let new_caps = CAPS.with(Capabilities::DEPRECATE_EOF);
    for (sql, caps, answer, told) in [
        ("INSERT INTO t VALUES (1)", CAPS, ok(1, AUTO), true),
        ("SELECT f()", CAPS, row("1", AUTO), false),
        ("SELECT f()", new_caps, row_with("1", AUTO, new_caps), true),
    ] {
        let mut rig = Rig::with_caps(caps);
        rig.session.state.dialect.flavour = Flavour::MySql;
        rig.ask(Primary, sql, &answer);
        assert_eq!(rig.session.can_release(), told, "{sql}: {rig:?}");
    }
}

#[test]
fn a_set_among_several_statements_of_which_one_fails_pins() {
    for sql in ["SET @a = 4; SELECT b", "SET ROLE reader; SELECT b", "SELECT 1; SET NAMES latin1"] {
        let mut rig = Rig::new();
        rig.ask(Primary, sql, &err(1, 1054, "no such column"));
        assert!(rig.session.pins().has(Pin::UnknownSet), "{sql}: {rig:?}");
    }
    let mut rig = Rig::new();
    let called = ok_with(1, AUTO | Status::MORE_RESULTS_EXISTS, &[]);
    rig.ask(Primary, "CALL p(); SELEKT", &[called, err(2, 1064, "SELEKT")].concat());
    assert!(rig.session.pins().has(Pin::OpaqueState), "{rig:?}");
}

/// A reset leaves the role in place, whoever has set it.
#[test]
fn a_role_that_nobody_told_of_is_asked_for_before_a_reset() {
    for (told, after) in [
        ("=NONE", &[][..]),
        ("!`reader`", &["SET ROLE `reader`"][..]),
        ("!NONE", &["SET ROLE NONE"][..]),
    ] {
        let mut rig = Rig::new();
        let text = "SET ROLE reader; DO 0";
        rig.ask(Primary, text, &[ok(1, AUTO | Status::MORE_RESULTS_EXISTS), ok(2, AUTO)].concat());
        assert!(rig.session.pins().has(Pin::UnknownSet), "{rig:?}");
        rig.client(&command(b"\x1f"));
        assert!(rig.sent_sql(Primary).contains("CURRENT_ROLE()"));
        rig.server(Primary, &row(told, AUTO));
        assert_eq!(rig.sent(Primary), [b"\x1f"]);
        rig.server(Primary, &ok(1, AUTO));
        assert_eq!(rig.told(), ok(1, AUTO));
        assert!(rig.session.pins().is_empty(), "{rig:?}");
        // It is known now.
        rig.client(&command(b"\x1f"));
        assert_eq!(rig.sent(Primary), [b"\x1f"]);
        rig.server(Primary, &ok(1, AUTO));
        rig.told();
        assert_eq!(brought_up(&mut rig, "SELECT b FROM t"), after);
    }
    // Where the server does not say, the session stays where its role is.
    let mut rig = Rig::new();
    rig.ask(Primary, "CALL p()", &ok_with(1, AUTO, &[Change::StateChange]));
    rig.client(&command(b"\x1f"));
    assert!(rig.sent_sql(Primary).contains("CURRENT_ROLE()"));
    rig.server(Primary, &err(1, 1267, "Illegal mix of collations"));
    assert_eq!(rig.sent(Primary), [b"\x1f"]);
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
    assert!(rig.session.pins().has(Pin::UnknownSet), "{rig:?}");
}

#[test]
fn set_names_keeps_its_collation() {
    let mut rig = Rig::new();
    let names = [
        variable("character_set_client", "utf8mb4"),
        variable("character_set_connection", "utf8mb4"),
        variable("character_set_results", "utf8mb4"),
    ];
    rig.ask(Primary, "SET NAMES utf8mb4 COLLATE utf8mb4_bin", &ok_with(1, AUTO, &names));
    let steps = brought_up(&mut rig, "SELECT b FROM t");
    assert_eq!(steps, ["SET NAMES utf8mb4 COLLATE utf8mb4_bin"]);
    // A plain SET NAMES voids it.
    rig.ask(Primary, "SET NAMES utf8mb4", &ok_with(1, AUTO, &names));
    let steps = brought_up(&mut rig, "SELECT b FROM t");
    assert_eq!(steps.len(), 1);
    assert!(!steps[0].contains("collation"), "{steps:?}");
}

#[test]
fn what_a_report_leaves_out_is_taken_from_the_text_or_pins() {
    let told = |name: &'static str| ok_with(1, AUTO, &[variable(name, "OFF")]);
    let mut rig = Rig::new();
    rig.ask(Primary, "SET unique_checks = 0, foreign_key_checks = OFF", &told("unique_checks"));
    assert!(rig.session.pins().is_empty(), "{rig:?}");
    let steps = brought_up(&mut rig, "SELECT b FROM t");
    assert_eq!(steps, ["SET unique_checks='OFF', foreign_key_checks='OFF'"]);
    for unclear in [
        "SET unique_checks = 0, foreign_key_checks = @@global.foreign_key_checks",
        "SET unique_checks = 0, foreign_key_checks = DEFAULT",
        "CALL p()",
    ] {
        let mut rig = Rig::new();
        rig.ask(Primary, unclear, &told("unique_checks"));
        assert!(rig.session.pins().has(Pin::UnknownSet), "{unclear}: {rig:?}");
    }
    // What it was set to binds as if it had been told.
    let mut rig = Rig::new();
    rig.ask(Primary, "SET unique_checks = 0, profiling = 1", &told("unique_checks"));
    assert!(rig.session.pins().has(Pin::HostBound), "{rig:?}");
    // What was told by its own name is known whatever the text says.
    let mut rig = Rig::new();
    rig.ask(Primary, "SET unique_checks = @@global.unique_checks", &told("unique_checks"));
    assert!(rig.session.pins().is_empty(), "{rig:?}");
}

#[test]
fn what_cannot_be_reproduced_pins() {
    let changed = ok_with(1, AUTO, &[Change::StateChange]);
    for (sql, answer, pin) in [
        ("CALL p()", changed.clone(), Pin::OpaqueState),
        ("CREATE TEMPORARY TABLE t (a INT)", changed.clone(), Pin::TemporaryTable),
        ("LOCK TABLES t READ", ok(1, AUTO), Pin::TableLock),
        ("SELECT GET_LOCK('a', 1)", row("1", AUTO), Pin::UserLock),
        ("HANDLER t OPEN", ok(1, AUTO), Pin::Handler),
        ("PREPARE s FROM 'SELECT 1'", changed.clone(), Pin::NamedStatement),
        ("XA START 'a'", ok(1, OPEN), Pin::Xa),
        ("SET @@transaction_isolation='SERIALIZABLE'", ok(1, AUTO), Pin::NextTransaction),
        ("SET GLOBAL max_allowed_packet=2048", ok(1, AUTO), Pin::HostBound),
        ("FLUSH STATUS", ok(1, AUTO), Pin::HostBound),
        ("SHOW STATUS", row("1", AUTO), Pin::HostBound),
        ("CHANGE MASTER TO master_host='a'", ok(1, AUTO), Pin::HostBound),
        ("STOP SLAVE", ok(1, AUTO), Pin::HostBound),
        ("SET profiling=1", ok_with(1, AUTO, &[variable("profiling", "ON")]), Pin::HostBound),
        (
            "SET timestamp=1",
            ok_with(1, AUTO, &[variable("timestamp", "1.000000")]),
            Pin::ReplicationReplay,
        ),
        (
            "DELETE FROM t",
            ok_with(
                1,
                AUTO,
                &[Change::TransactionState(b"________".as_slice()), Change::StateChange],
            ),
            Pin::OpaqueState,
        ),
    ] {
        let mut rig = Rig::new();
        rig.ask(Primary, sql, &answer);
        assert!(rig.session.pins().has(pin), "{sql}: {rig:?}");
        rig.ask(Primary, "SELECT a FROM t", &row("1", AUTO));
    }
}

#[test]
fn only_another_engine_than_the_server_s_pins() {
    for (engine, pinned) in [("InnoDB", false), ("MyISAM", true)] {
        let mut rig = Rig::new();
        let told = ok_with(1, AUTO, &[variable("default_storage_engine", engine)]);
        rig.ask(Primary, &format!("SET default_storage_engine={engine}"), &told);
        assert_eq!(rig.session.pins().has(Pin::HostBound), pinned, "{rig:?}");
    }
}

#[test]
fn a_change_that_a_tracker_names_does_not_pin() {
    let mut rig = Rig::new();
    let named = [variable("sql_mode", "ANSI"), Change::StateChange];
    rig.ask(Primary, "SET sql_mode='ANSI'", &ok_with(1, AUTO, &named));
    assert!(rig.session.pins().is_empty(), "{rig:?}");
}

#[test]
fn a_value_that_no_text_can_carry_pins() {
    let mut rig = Rig::new();
    let odd = ok_with(1, AUTO, &[variable("init_connect", "a\\b\u{e4}")]);
    rig.ask(Primary, "SET init_connect='x'", &odd);
    assert!(!rig.session.pins().is_empty());
}

#[test]
fn malformed_trackers_pin_and_do_no_harm() {
    for tracks in [&[0][..], &[1, 5, 9, 1], &[0, 3, 200, 1, 1], &[9, 250], &[2, 1]] {
        let ok = reply::Ok {
            status: AUTO | Status::SESSION_STATE_CHANGED,
            tracks,
            ..reply::Ok::default()
        };
        let mut wire = Vec::new();
        ok.encode(&mut wire, 1, 0, CAPS);
        let mut rig = Rig::new();
        let told = rig.ask(Primary, "INSERT INTO t VALUES (1)", &wire);
        let packets = payloads(&told);
        let [(1, payload)] = packets.as_slice() else { panic!("one packet at 1: {told:?}") };
        assert!(reply::Ok::parse(payload, CAPS).is_ok());
        assert!(rig.session.pins().has(Pin::OpaqueState), "{tracks:?}");
    }
}

#[test]
fn the_client_sees_the_trackers_that_it_asked_for() {
    let all = [
        Change::Schema(b"app"),
        variable("time_zone", "UTC"),
        variable("last_gtid", "0-1-5"),
        variable("sql_mode", "ANSI"),
        Change::StateChange,
        Change::TransactionCharacteristics(b""),
    ];
    let shown = |told: &[u8]| {
        let (_, payload) = payloads(told).remove(0);
        let ok = reply::Ok::parse(&payload, CAPS).expect("an OK");
        let changes: Vec<_> = session_track::changes(ok.tracks).flatten().collect();
        format!("{changes:?} {}", ok.status.has(Status::SESSION_STATE_CHANGED))
    };
    let mut rig = Rig::new();
    let told = rig.ask(Primary, "USE app", &ok_with(1, AUTO, &all));
    assert_eq!(shown(&told), format!("{:?} true", &all[..2]));
    // Nothing that it may see: no flag either.
    let told = rig.ask(Primary, "DELETE FROM t", &ok_with(1, AUTO, &all[2..]));
    assert_eq!(told, ok(1, AUTO));
    // Its own settings count, ours stay on.
    let set = "SET session_track_system_variables='*', session_track_state_change=1, \
               session_track_schema=0";
    rig.ask(Primary, set, &ok(1, AUTO));
    rig.client(&query("DELETE FROM t"));
    assert!(rig.sent_sql(Primary).starts_with("SET SESSION session_track_system_variables='*'"));
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.sent_sql(Primary), "DELETE FROM t");
    rig.server(Primary, &ok_with(1, AUTO, &all));
    assert_eq!(shown(&rig.told()), format!("{:?} true", &all[1..5]));
}

#[test]
fn trackers_return_to_what_the_session_began_with() {
    let mut rig = Rig::new();
    let zone = ok_with(1, AUTO, &[variable("time_zone", "UTC")]);
    let tracks = "session_track_system_variables";
    for (sql, told) in [
        (format!("SET {tracks} = 'sql_mode'"), ok(1, AUTO)),
        (format!("SET {tracks} = DEFAULT"), zone.clone()),
    ] {
        rig.ask(Primary, &sql, &ok(1, AUTO));
        rig.client(&query("SET time_zone = 'UTC'"));
        assert!(rig.sent_sql(Primary).starts_with("SET SESSION session_track"));
        rig.server(Primary, &ok(1, AUTO));
        rig.sent(Primary);
        rig.server(Primary, &zone);
        assert_eq!(rig.told(), told, "{sql}");
    }
    assert!(rig.session.pins().is_empty(), "{rig:?}");
    // By which list it has told of the other one nobody knows.
    rig.ask(Primary, &format!("SET {tracks} = 'sql_mode', sql_notes = 0"), &ok(1, AUTO));
    assert!(rig.session.pins().has(Pin::UnknownSet), "{rig:?}");
}

#[test]
fn a_client_without_trackers_gets_none() {
    let caps = CAPS.without(Capabilities::SESSION_TRACK);
    let mut rig = Rig::with_caps(caps);
    let told = rig.ask(Primary, "USE app", &ok_with(1, AUTO, &[Change::Schema(b"app")]));
    let packets = payloads(&told);
    let [(1, payload)] = packets.as_slice() else { panic!("one packet at 1: {told:?}") };
    assert_eq!(payload, &[0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(rig.session.schema(), Some(&b"app"[..]));
}

#[test]
fn the_ends_of_rows_are_learnt_from_in_both_dialects() {
    for caps in [CAPS, CAPS.with(Capabilities::DEPRECATE_EOF)] {
        let mut rig = Rig::with_caps(caps);
        let reply = row_with("1", OPEN, caps);
        assert_eq!(rig.ask(Primary, "SELECT a FROM t FOR UPDATE", &reply), reply);
        assert_eq!(rig.session.phase_word(), "idle in transaction");
        let reply = row_with("1", AUTO, caps);
        assert_eq!(rig.ask(Primary, "SELECT a FROM t", &reply), reply);
        assert_eq!(rig.session.phase_word(), "idle");
    }
}

#[test]
fn a_reset_forgets_and_tells_the_server() {
    let mut rig = Rig::new();
    rig.ask(Primary, "LOCK TABLES t READ", &ok(1, AUTO));
    rig.ask(Primary, "SET @a = 5", &ok(1, AUTO));
    rig.client(&command(b"\x1f"));
    assert_eq!(rig.sent(Primary), [b"\x1f"]);
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
    assert!(rig.session.pins().is_empty());
    // Our trackers went with it.
    rig.client(&query("DELETE FROM t"));
    assert!(rig.sent_sql(Primary).starts_with("SET SESSION session_track"));
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.sent_sql(Primary), "DELETE FROM t");
    rig.server(Primary, &ok(1, AUTO));
    rig.told();
    assert!(brought_up(&mut rig, "SELECT b FROM t").is_empty());
}

#[test]
fn a_reset_without_a_link_needs_no_server() {
    let mut rig = Rig::new();
    rig.client(&command(b"\x1f"));
    assert!(!rig.wants_dial());
    assert_eq!(rig.told(), ok(1, AUTO));
}

#[test]
fn a_change_of_user_drops_the_links_and_starts_anew() {
    let mut rig = Rig::new();
    rig.ask(Primary, "LOCK TABLES t READ", &ok(1, AUTO));
    rig.client(&[command(b"\x11other\0\0\0"), query("SELECT a FROM t")].concat());
    assert!(rig.dropped(Primary));
    assert_eq!(rig.session.phase_word(), "logging in");
    assert!(!rig.session.interest().client, "its answers belong to the dialogue");
    let login = crate::session::action::Login {
        capabilities: CAPS,
        mariadb: Default::default(),
        collation: 45,
        schema: Some(b"app".to_vec()),
        status: AUTO.0,
        sole: false,
        same_user: false,
        trackers: "".into(),
    };
    rig.event(Event::UserChanged(Some(login)));
    assert!(rig.session.pins().is_empty());
    assert_eq!(rig.session.schema(), Some(&b"app"[..]));
    // What it sent ahead runs then.
    rig.dialed(Replica);
    assert_eq!(rig.sent_sql(Replica), "SELECT a FROM t");
}

#[test]
fn a_failed_change_of_user_ends_the_session() {
    let mut rig = Rig::new();
    rig.client(&command(b"\x11other\0\0\0"));
    rig.event(Event::UserChanged(None));
    rig.client(&query("SELECT a FROM t"));
    assert!(!rig.wants_dial());
}

#[test]
fn com_set_option_follows_to_other_links() {
    let mut rig = Rig::new();
    rig.client(&command(b"\x1b\0\0"));
    rig.dialed(Primary);
    assert_eq!(rig.sent(Primary), [b"\x1b\0\0"]);
    rig.server(Primary, b"\x05\0\0\x01\xfe\0\0\x02\0");
    assert_eq!(rig.told(), b"\x05\0\0\x01\xfe\0\0\x02\0");
    rig.client(&query("SELECT a FROM t"));
    rig.dialed(Replica);
    assert_eq!(rig.sent(Replica), [b"\x1b\0\0"]);
    rig.server(Replica, b"\x05\0\0\x01\xfe\0\0\x02\0");
    assert_eq!(rig.sent_sql(Replica), "SELECT a FROM t");
    assert!(rig.told().is_empty());
}

#[test]
fn a_pin_ends_with_the_last_of_what_it_stands_for() {
    let cases: [(Pin, &[&str], &[&str], &str); 6] = [
        (
            Pin::UserLock,
            &["SELECT GET_LOCK('a', 1)", "DO GET_LOCK('a', 1)", "SELECT GET_LOCK('b', 1)"],
            &[
                "SELECT IF(0, RELEASE_ALL_LOCKS(), 0)",
                "SELECT RELEASE_LOCK('a')",
                "SELECT RELEASE_LOCK('b')",
            ],
            "SELECT RELEASE_LOCK('a')",
        ),
        (
            Pin::UserLock,
            &["SELECT GET_LOCK('a', 1)", "SELECT GET_LOCK(@a, 1)"],
            &["SELECT RELEASE_LOCK('a')"],
            "SELECT RELEASE_ALL_LOCKS()",
        ),
        (
            Pin::Handler,
            &["HANDLER t OPEN", "HANDLER t OPEN AS u"],
            &["HANDLER t READ FIRST", "HANDLER t CLOSE"],
            "HANDLER u CLOSE",
        ),
        (
            Pin::TableLock,
            &["LOCK INSTANCE FOR BACKUP", "LOCK TABLES t READ", "LOCK TABLES t READ, u READ"],
            &["UNLOCK INSTANCE"],
            "UNLOCK TABLES",
        ),
        (
            Pin::TableLock,
            &["FLUSH TABLES WITH READ LOCK", "BACKUP STAGE START"],
            &["UNLOCK TABLES", "BACKUP UNLOCK"],
            "BACKUP STAGE END",
        ),
        (
            Pin::TemporaryTable,
            &["CREATE TEMPORARY TABLE t (a INT)", "CREATE TEMPORARY TABLE d.t SELECT 1"],
            &["DROP TEMPORARY TABLE IF EXISTS t", "DROP TABLE t", "DROP TEMPORARY TABLE t"],
            "DROP TEMPORARY TABLE d.t",
        ),
    ];
    for (pin, takes, not_yet, last) in cases {
        let mut rig = Rig::new();
        for sql in takes.iter().chain(not_yet) {
            rig.ask(Primary, sql, &ok(1, AUTO));
            assert!(rig.session.pins().has(pin), "{sql}: {rig:?}");
        }
        rig.ask(Primary, last, &err(1, 1064, "no"));
        assert!(rig.session.pins().has(pin), "{last} has failed: {rig:?}");
        rig.ask(Primary, last, &ok(1, AUTO));
        assert!(rig.session.pins().is_empty(), "{last}: {rig:?}");
    }
}

#[test]
fn what_no_text_tells_of_is_never_given_back() {
    for (take, gives, pin) in [
        ("SELECT 1; SELECT GET_LOCK('a', 1)", "SELECT RELEASE_LOCK('a')", Pin::UserLock),
        ("CREATE TEMPORARY TABLE t (a INT)", "DROP TEMPORARY TABLE made_by_a_trigger", TEMPORARY),
        ("LOCK TABLES t READ; SELECT 1", "UNLOCK TABLES", Pin::TableLock),
    ] {
        let mut rig = Rig::new();
        for sql in [take, gives, "DROP TEMPORARY TABLE t"] {
            rig.ask(Primary, sql, &ok(1, AUTO));
            assert!(rig.session.pins().has(pin), "{sql}: {rig:?}");
        }
    }
}

const TEMPORARY: Pin = Pin::TemporaryTable;
