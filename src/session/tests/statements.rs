//! Prepared statements: the client's ids are ours, each link has its own.

use super::fixture::*;
use crate::protocol::flags::Status;
use crate::protocol::{packet, reply};
use crate::router::policy::Held;
use crate::session::action::{Event, Retry};
use crate::topology::Flavour;

/// COM_STMT_EXECUTE with one parameter, LONG, with or without its type.
fn execute_long(id: u32, typed: bool, value: u32) -> Vec<u8> {
    let mut payload = [b"\x17", &id.to_le_bytes()[..], &[0, 1, 0, 0, 0, 0]].concat();
    payload.push(u8::from(typed));
    if typed {
        payload.extend_from_slice(&[3, 0]);
    }
    payload.extend_from_slice(&value.to_le_bytes());
    command(&payload)
}

/// Prepares `sql` on the link where it belongs; the server calls it `server_id`.
fn prepared_on(rig: &mut Rig, slot: Held, sql: &str, server_id: u32, params: u16) -> u32 {
    rig.client(&prepare(sql));
    if rig.wants_dial() {
        rig.dialed(slot);
    }
    assert_eq!(rig.sent(slot), [[b"\x16", sql.as_bytes()].concat()]);
    rig.server(slot, &prepared(server_id, 1, params));
    let told = rig.told();
    let (_, payload) = payloads(&told).remove(0);
    let ok = reply::PrepareOk::parse(&payload, CAPS).expect("prepared");
    assert_eq!((ok.columns, ok.params), (1, params));
    ok.id
}

#[test]
fn a_text_of_any_length_can_be_prepared() {
    let mut rig = Rig::new();
    rig.group.inspect_limit = 1 << 10;
    let sql = format!("SELECT a FROM t WHERE a = '{}'", "x".repeat(2 << 20));
    prepared_on(&mut rig, Primary, &sql, 7, 0);
}

#[test]
fn ids_are_our_own_and_translated() {
    let mut rig = Rig::new();
    let read = prepared_on(&mut rig, Replica, "SELECT a FROM t", 40, 0);
    let write = prepared_on(&mut rig, Primary, "DELETE FROM t", 50, 0);
    assert_eq!((read, write), (1, 2));
    rig.client(&execute(read, 0));
    assert_eq!(rig.sent_raw(Replica), execute(40, 0));
    rig.server(Replica, &row("1", AUTO));
    rig.client(&execute(write, 0));
    assert_eq!(rig.sent_raw(Primary), execute(50, 0));
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), [row("1", AUTO), ok(1, AUTO)].concat());
}

#[test]
fn a_statement_is_prepared_where_it_is_needed_and_its_types_are_sent_again() {
    let mut rig = Rig::new();
    let id = prepared_on(&mut rig, Replica, "SELECT a FROM t WHERE a = ?", 40, 1);
    rig.client(&execute_long(id, true, 7));
    assert_eq!(rig.sent_raw(Replica), execute_long(40, true, 7));
    rig.server(Replica, &row("1", AUTO));
    rig.client(&execute_long(id, false, 8));
    assert_eq!(rig.sent_raw(Replica), execute_long(40, false, 8));
    rig.server(Replica, &row("1", AUTO));
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.told();
    rig.client(&execute_long(id, false, 9));
    assert_eq!(rig.sent(Primary), [b"\x16SELECT a FROM t WHERE a = ?"]);
    rig.server(Primary, &prepared(90, 1, 1));
    assert!(rig.told().is_empty());
    // That server has not seen the types.
    assert_eq!(rig.sent_raw(Primary), execute_long(90, true, 9));
    rig.server(Primary, &row("1", OPEN));
    rig.client(&execute_long(id, false, 10));
    assert_eq!(rig.sent_raw(Primary), execute_long(90, false, 10));
}

#[test]
fn a_statement_that_cannot_be_prepared_there_gives_the_servers_words() {
    let mut rig = Rig::new();
    let id = prepared_on(&mut rig, Replica, "SELECT a FROM t", 40, 0);
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.client(&execute(id, 0));
    rig.sent(Primary);
    rig.server(Primary, &err(1, 1146, "Table 't' doesn't exist"));
    assert_eq!(rig.told_error().0, 1146);
    assert!(!rig.closed());
    rig.ask(Primary, "COMMIT", &ok(1, AUTO));
}

#[test]
fn a_view_that_writes_is_remembered_when_a_replica_refuses_to_prepare_it() {
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    let id = prepared_on(&mut rig, Primary, "SELECT * FROM draws_a_number", 90, 0);
    rig.ask(Primary, "COMMIT", &ok(1, AUTO));
    rig.client(&execute(id, 0));
    rig.dialed(Replica);
    assert_eq!(rig.sent(Replica), [b"\x16SELECT * FROM draws_a_number"]);
    rig.server(Replica, &err(1, 1290, "running with the --read-only option"));
    assert_eq!(rig.sent_raw(Primary), execute(90, 0));
    rig.server(Primary, &row("1", AUTO));
    assert_eq!(rig.told(), row("1", AUTO));
    // LASTVAL() may be asked for there, and nowhere else.
    assert!(rig.session.pins().has(Pin::OpaqueState));
}

#[test]
fn long_data_is_kept_and_replayed_on_the_link_that_executes() {
    let mut rig = Rig::new();
    let id = prepared_on(&mut rig, Replica, "SELECT a FROM t WHERE a = ?", 40, 1);
    let data = |id: u32| [b"\x18", &id.to_le_bytes()[..], b"\0\0long"].concat();
    rig.client(&command(&data(id)));
    rig.client(&command(&data(id)));
    assert!(rig.sent(Replica).is_empty() && rig.told().is_empty());
    let run = |id: u32| [b"\x17", &id.to_le_bytes()[..], &[0, 1, 0, 0, 0, 0, 1, 0xfc, 0]].concat();
    rig.client(&command(&run(id)));
    assert_eq!(rig.sent(Replica), [data(40), data(40), run(40)]);
    // A refusal that reroutes takes the data along.
    rig.server(Replica, &err(1, 1792, "read only"));
    rig.dialed(Primary);
    rig.sent(Primary);
    rig.server(Primary, &prepared(90, 1, 1));
    assert_eq!(rig.sent(Primary), [data(90), data(90), run(90)]);
    rig.server(Primary, &row("1", AUTO));
    // Used up.
    rig.client(&command(&run(id)));
    assert_eq!(rig.sent(Primary), [run(90)]);
}

#[test]
fn long_data_beyond_the_servers_limit_is_an_error_of_the_execution() {
    let mut rig = Rig::new();
    let id = prepared_on(&mut rig, Replica, "SELECT a FROM t WHERE a = ?", 40, 1);
    let head = [b"\x18", &id.to_le_bytes()[..]].concat();
    let data = |parameter: u8| [&head, &[parameter, 0][..], &vec![b'x'; 9 << 20]].concat();
    // Each parameter has the limit for itself.
    rig.client(&command(&data(0)));
    rig.client(&command(&data(1)));
    rig.client(&command(&data(1)));
    for _ in 0..2 {
        rig.client(&execute(id, 0));
        assert_eq!(rig.told_error().0, 1105);
    }
    rig.client(&command(&[b"\x1a", &id.to_le_bytes()[..]].concat()));
    rig.told();
    rig.client(&execute(id, 0));
    assert_eq!(rig.sent_raw(Replica), execute(40, 0));
}

#[test]
fn long_data_without_end_ends_the_session() {
    let mut rig = Rig::new();
    let id = prepared_on(&mut rig, Replica, "SELECT a FROM t WHERE a = ?", 40, 1);
    let head = [b"\x18", &id.to_le_bytes()[..]].concat();
    for parameter in 0..8 {
        assert!(!rig.closed(), "{parameter}");
        rig.client(&command(&[&head, &[parameter, 0][..], &vec![b'x'; 15 << 20]].concat()));
    }
    rig.client(&command(&[&head, &[8, 0][..], &vec![b'x'; 15 << 20]].concat()));
    assert_eq!(rig.told_error().0, 1153);
    assert!(rig.closed());
}

/// The answer to an execution with a cursor: the columns, and that there is one.
fn opened() -> Vec<u8> {
    let mut opened = row("1", AUTO);
    opened.truncate(5 + 4 + payloads(&row("1", AUTO))[1].1.len());
    reply::Eof { warnings: 0, status: AUTO | Status::CURSOR_EXISTS }.encode(&mut opened, 3, CAPS);
    opened
}

/// Its server closes the connection after the execution, not after the preparation.
#[test]
fn a_prepared_commit_that_releases_closes_when_it_is_executed() {
    let mut rig = Rig::new();
    let id = prepared_on(&mut rig, Primary, "COMMIT AND NO CHAIN RELEASE", 40, 0);
    assert!(!rig.closed());
    rig.client(&execute(id, 0));
    assert_eq!(rig.sent_raw(Primary), execute(40, 0));
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
    assert!(rig.closed());
}

#[test]
fn the_pin_of_cursors_ends_with_the_last_of_them() {
    let mut rig = Rig::new();
    let ids = [40, 41].map(|on_link| {
        let id = prepared_on(&mut rig, Replica, "SELECT a FROM t", on_link, 0);
        // A second execution closes the cursor of the first one and opens another.
        for _ in 0..2 {
            rig.client(&execute(id, 1));
            rig.sent(Replica);
            rig.server(Replica, &opened());
        }
        rig.told();
        id
    });
    for (id, pinned) in [(ids[0], true), (ids[1], false), (ids[1], false)] {
        rig.client(&about(0x19, id));
        assert_eq!(rig.session.pins().has(Pin::Cursor), pinned, "{id}");
    }
}

#[test]
fn an_open_cursor_keeps_its_fetches_on_its_link() {
    let mut rig = Rig::new();
    let id = prepared_on(&mut rig, Replica, "SELECT a FROM t", 40, 0);
    rig.client(&execute(id, 1));
    assert_eq!(rig.sent_raw(Replica), execute(40, 1));
    let opened = opened();
    rig.server(Replica, &opened);
    assert_eq!(rig.told(), opened);
    assert!(rig.session.pins().has(Pin::Cursor));
    // Other statements go on elsewhere.
    rig.write();
    let fetch = |id: u32| command(&[b"\x1c", &id.to_le_bytes()[..], &[1, 0, 0, 0]].concat());
    rig.client(&fetch(id));
    assert_eq!(rig.sent_raw(Replica), fetch(40));
    let mut rows = Vec::new();
    let seq = packet::write(&mut rows, 1, b"\0\0\x011");
    let last = AUTO | Status::LAST_ROW_SENT;
    reply::Eof { warnings: 0, status: last }.encode(&mut rows, seq, CAPS);
    rig.server(Replica, &rows);
    assert_eq!(rig.told(), rows);
    assert!(!rig.session.pins().has(Pin::Cursor));
    rig.client(&fetch(id));
    assert_eq!(rig.told_error().0, 1421);
}

#[test]
fn a_cursor_of_a_procedure_s_own_is_none_of_the_client_s() {
    let mut rig = Rig::new();
    let id = prepared_on(&mut rig, Primary, "CALL p()", 40, 0);
    rig.client(&execute(id, 0));
    assert_eq!(rig.sent_raw(Primary), execute(40, 0));
    let open = AUTO | Status::CURSOR_EXISTS | Status::MORE_RESULTS_EXISTS;
    let mut answer = row("1", open);
    let last = payloads(&answer).last().map_or(0, |(seq, _)| *seq);
    answer.extend(ok(last + 1, AUTO));
    rig.server(Primary, &answer);
    assert_eq!(rig.told(), answer);
    assert!(!rig.session.pins().has(Pin::Cursor));
}

/// MySQL 9.7 never ends its answer to an execution without a cursor after one with a cursor.
#[test]
fn mysql_prepares_anew_what_has_had_a_cursor_and_is_to_have_none() {
    for (flavour, next, anew) in
        [(Flavour::MySql, 0, true), (Flavour::MySql, 1, false), (Flavour::MariaDb, 0, false)]
    {
        let mut rig = Rig::new();
        rig.session.state.dialect.flavour = flavour;
        let id = prepared_on(&mut rig, Replica, "SELECT a FROM t", 40, 0);
        rig.client(&execute(id, 1));
        assert_eq!(rig.sent_raw(Replica), execute(40, 1));
        let mut opened = row("1", AUTO);
        opened.truncate(5 + 4 + payloads(&row("1", AUTO))[1].1.len());
        let status = AUTO | Status::CURSOR_EXISTS;
        reply::Eof { warnings: 0, status }.encode(&mut opened, 3, CAPS);
        rig.server(Replica, &opened);
        assert_eq!(rig.told(), opened);
        rig.client(&execute(id, next));
        if anew {
            let sent = [about(0x19, 40), prepare("SELECT a FROM t")].concat();
            assert_eq!(rig.sent_raw(Replica), sent);
            rig.server(Replica, &prepared(41, 1, 0));
            assert_eq!(rig.sent_raw(Replica), execute(41, next));
        } else {
            assert_eq!(rig.sent_raw(Replica), execute(40, next));
        }
    }
}

/// A server tells of changed columns (SERVER_STATUS_METADATA_CHANGED) when it finds a statement
/// changed since it was prepared there; the client must hear it when they are not those that it was
/// told last.
#[test]
fn changed_columns_are_told_as_on_one_connection() {
    let changed = OPEN | Status::METADATA_CHANGED;
    for (first, second, says, told) in [(2, 1, OPEN, changed), (1, 2, changed, OPEN)] {
        let mut rig = Rig::new();
        rig.client(&prepare("SELECT * FROM t"));
        rig.dialed(Replica);
        rig.sent(Replica);
        rig.server(Replica, &prepared(40, first, 0));
        rig.told();
        rig.ask(Primary, "BEGIN", &ok(1, OPEN));
        rig.client(&execute(1, 0));
        rig.sent(Primary);
        rig.server(Primary, &prepared(90, second, 0));
        assert_eq!(rig.sent_raw(Primary), execute(90, 0));
        rig.server(Primary, &row("1", says));
        assert_eq!(rig.told(), row("1", told), "one column after {first}");
        rig.client(&execute(1, 0));
        rig.sent(Primary);
        rig.server(Primary, &row("1", OPEN));
        assert_eq!(rig.told(), row("1", OPEN), "it is told once");
    }
}

#[test]
fn a_cursor_that_went_down_with_its_link_is_told() {
    let mut rig = Rig::new();
    let id = prepared_on(&mut rig, Replica, "SELECT a FROM t", 40, 0);
    rig.client(&execute(id, 1));
    let opened = opened();
    rig.server(Replica, &opened);
    rig.told();
    rig.event(Event::LinkClosed(Replica));
    rig.client(&command(&[b"\x1c", &id.to_le_bytes()[..], &[1, 0, 0, 0]].concat()));
    let (code, state, text) = rig.told_error();
    assert_eq!((code, state.as_str()), (1105, "08S01"));
    assert!(text.contains("cursor"), "{text}");
    assert!(rig.closed());
}

#[test]
fn a_close_reaches_every_link_that_knows_the_statement() {
    let mut rig = Rig::new();
    let id = prepared_on(&mut rig, Replica, "SELECT a FROM t", 40, 0);
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.client(&execute(id, 0));
    rig.sent(Primary);
    rig.server(Primary, &prepared(90, 1, 0));
    rig.sent(Primary);
    rig.server(Primary, &row("1", OPEN));
    rig.told();
    rig.client(&[about(0x19, id), about(0x19, 99)].concat());
    assert_eq!(rig.sent_raw(Primary), about(0x19, 90));
    assert_eq!(rig.sent_raw(Replica), about(0x19, 40));
    assert!(rig.told().is_empty());
    rig.client(&execute(id, 0));
    assert_eq!(rig.told_error().0, 1243);
}

#[test]
fn unknown_statements_are_refused_as_a_server_does() {
    let mut rig = Rig::new();
    for bytes in [
        execute(9, 0),
        about(0x1a, 9),
        command(b"\x1c\x09\0\0\0\x01\0\0\0"),
        command(b"\xfa\x09\0\0\0\0\0"),
        execute(u32::MAX, 0),
    ] {
        rig.client(&bytes);
        assert_eq!(rig.told_error().0, 1243, "{bytes:?}");
        assert!(!rig.closed() && !rig.wants_dial());
    }
    // Neither close nor long data has an answer.
    rig.client(&[about(0x19, 9), command(b"\x18\x09\0\0\0\0\0x")].concat());
    assert!(rig.told().is_empty());
}

#[test]
fn the_last_statement_answers_to_all_ones() {
    let mut rig = Rig::new();
    prepared_on(&mut rig, Replica, "SELECT a FROM t", 40, 0);
    rig.client(&execute(u32::MAX, 0));
    assert_eq!(rig.sent_raw(Replica), execute(40, 0));
}

#[test]
fn a_forgotten_statement_is_prepared_again_once() {
    for code in [1243, 1615] {
        let mut rig = Rig::new();
        let id = prepared_on(&mut rig, Replica, "SELECT a FROM t", 40, 0);
        rig.client(&execute(id, 0));
        rig.sent(Replica);
        rig.server(Replica, &err(1, code, "again"));
        assert!(rig.told().is_empty());
        // What the server still has of it must not count twice.
        let sent = [about(0x19, 40), prepare("SELECT a FROM t")].concat();
        assert_eq!(rig.sent_raw(Replica), sent);
        rig.server(Replica, &prepared(41, 1, 0));
        assert_eq!(rig.sent_raw(Replica), execute(41, 0));
        rig.server(Replica, &err(1, code, "again"));
        assert_eq!(rig.told_error().0, code);
        assert_eq!(rig.count_retries(Retry::Reprepared), 1);
    }
}

#[test]
fn a_failed_prepare_leaves_nothing() {
    let mut rig = Rig::new();
    rig.client(&prepare("SELECT a FROM nope"));
    rig.dialed(Replica);
    rig.server(Replica, &err(1, 1064, "syntax"));
    assert_eq!(rig.told_error().0, 1064);
    rig.client(&execute(1, 0));
    assert_eq!(rig.told_error().0, 1243);
}

#[test]
fn a_link_that_breaks_takes_its_ids_along_and_no_more() {
    let mut rig = Rig::new();
    let id = prepared_on(&mut rig, Replica, "SELECT a FROM t", 40, 0);
    rig.event(Event::LinkClosed(Replica));
    rig.client(&execute(id, 0));
    rig.dialed(Replica);
    assert_eq!(rig.sent(Replica), [b"\x16SELECT a FROM t"]);
    rig.server(Replica, &prepared(7, 1, 0));
    assert_eq!(rig.sent_raw(Replica), execute(7, 0));
    rig.server(Replica, &row("1", AUTO));
    assert_eq!(rig.told(), row("1", AUTO));
}

#[test]
fn an_execution_cut_short_is_for_the_server_to_judge() {
    let mut rig = Rig::new();
    let id = prepared_on(&mut rig, Replica, "SELECT a FROM t WHERE a = ?", 40, 1);
    let cut = |id: u32| [b"\x17", &id.to_le_bytes()[..], &[0, 1, 0, 0, 0]].concat();
    rig.client(&command(&cut(id)));
    assert_eq!(rig.sent(Replica), [cut(40)]);
    rig.server(Replica, &err(1, 1210, "Incorrect arguments to mysqld_stmt_execute"));
    assert_eq!(rig.told_error().0, 1210);
    assert!(!rig.closed());
}

#[test]
fn a_reset_of_a_statement_without_cursor_is_answered_here() {
    let mut rig = Rig::new();
    let id = prepared_on(&mut rig, Replica, "SELECT a FROM t", 40, 0);
    rig.client(&about(0x1a, id));
    assert_eq!(rig.told(), ok(1, AUTO));
}

#[test]
fn a_reset_of_a_statement_goes_to_the_server_that_the_session_is_bound_to() {
    let mut rig = Rig::new();
    rig.ask(Primary, "FLUSH STATUS", &ok(1, AUTO));
    let id = prepared_on(&mut rig, Primary, "SELECT a FROM t", 40, 0);
    rig.client(&about(0x1a, id));
    assert!(rig.told().is_empty());
    assert_eq!(rig.sent(Primary), [[&b"\x1a"[..], &40_u32.to_le_bytes()].concat()]);
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
}

#[test]
fn com_reset_connection_forgets_the_statements() {
    let mut rig = Rig::new();
    let id = prepared_on(&mut rig, Replica, "SELECT a FROM t", 40, 0);
    rig.client(&command(b"\x1f"));
    assert_eq!(rig.told(), ok(1, AUTO));
    rig.client(&execute(id, 0));
    assert_eq!(rig.told_error().0, 1243);
    // The link serves on, without what the session has left there.
    assert_eq!(rig.sent(Replica), [b"\x19\x28\0\0\0"]);
    rig.client(&query("SELECT a FROM t"));
    assert_eq!(rig.sent(Replica), [b"\x1f"]);
    assert!(!rig.wants_dial());
}

#[test]
fn a_replica_without_room_for_statements_leaves_them_to_the_primary() {
    let mut rig = Rig::new();
    rig.client(&prepare("SELECT a FROM t"));
    rig.dialed(Replica);
    rig.sent(Replica);
    rig.server(Replica, &err(1, 1461, "Can't create more than 5 statements"));
    rig.dialed(Primary);
    assert_eq!(rig.sent(Primary), [b"\x16SELECT a FROM t"]);
    rig.server(Primary, &prepared(50, 1, 0));
    let told = rig.told();
    assert_eq!(payloads(&told).remove(0).1.first(), Some(&0), "{told:?}");
}

#[test]
fn the_statement_used_least_makes_room_for_one_that_is_prepared_again() {
    let mut rig = Rig::new();
    let read = prepared_on(&mut rig, Replica, "SELECT a FROM t", 40, 0);
    let [first, second] =
        [51, 52].map(|id| prepared_on(&mut rig, Primary, &format!("DELETE FROM t{id}"), id, 0));
    rig.client(&execute(first, 0));
    rig.sent(Primary);
    rig.server(Primary, &ok(1, AUTO));
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.told();
    rig.client(&execute(read, 0));
    assert_eq!(rig.sent_raw(Primary), prepare("SELECT a FROM t"));
    rig.server(Primary, &err(1, 1461, "Can't create more than 2 statements"));
    assert_eq!(rig.sent_raw(Primary), [about(0x19, 52), prepare("SELECT a FROM t")].concat());
    rig.server(Primary, &prepared(60, 1, 0));
    assert_eq!(rig.sent_raw(Primary), execute(60, 0));
    rig.server(Primary, &row("1", OPEN));
    assert_eq!(rig.told(), row("1", OPEN));
    // The one that was closed comes back when it is needed.
    rig.client(&execute(second, 0));
    assert_eq!(rig.sent_raw(Primary), prepare("DELETE FROM t52"));
    rig.server(Primary, &err(1, 1461, "Can't create more than 2 statements"));
    assert_eq!(rig.sent_raw(Primary), [about(0x19, 51), prepare("DELETE FROM t52")].concat());
    rig.server(Primary, &err(1, 1461, "Can't create more than 2 statements"));
    assert_eq!(rig.sent_raw(Primary), [about(0x19, 60), prepare("DELETE FROM t52")].concat());
    // None is left that could make room.
    rig.server(Primary, &err(1, 1461, "Can't create more than 2 statements"));
    assert_eq!(rig.told_error().0, 1461);
    assert!(!rig.closed());
}
