//! Commands larger than what is inspected, files, tunnels, and clients that break the protocol.

use super::fixture::*;
use crate::protocol::packet;
use crate::session::action::Event;

fn large_insert() -> Vec<u8> {
    let mut sql = "INSERT INTO t VALUES ('".to_owned();
    sql.push_str(&"x".repeat(3 << 20));
    sql.push_str("')");
    query(&sql)
}

#[test]
fn a_command_beyond_the_limit_is_streamed_to_the_primary() {
    let wire = large_insert();
    let mut rig = Rig::new();
    let mut seen = Vec::new();
    for piece in wire.chunks(100_000) {
        rig.client(piece);
        if rig.wants_dial() {
            rig.dialed(Primary);
        }
        seen.extend_from_slice(&rig.sent_raw(Primary));
    }
    assert!(seen == wire);
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
    assert!(!rig.closed());
    rig.write();
}

#[test]
fn a_large_read_is_a_read_of_the_primary() {
    let mut rig = Rig::new();
    rig.client(&query(&format!("SELECT '{}'", "x".repeat(2 << 20))));
    rig.dialed(Primary);
    assert_eq!(rig.sent(Primary).len(), 1);
}

#[test]
fn the_limit_may_be_small() {
    let mut rig = Rig::new();
    rig.group.inspect_limit = 1 << 10;
    let wire = query(&format!("DELETE FROM t WHERE a = '{}'", "x".repeat(2000)));
    rig.client(&wire);
    rig.dialed(Primary);
    assert_eq!(rig.sent_raw(Primary), wire);
    rig.server(Primary, &ok(1, AUTO));
    assert_eq!(rig.told(), ok(1, AUTO));
}

#[test]
fn only_texts_are_streamed() {
    // Half a command of another kind can be neither rewritten nor understood.
    for byte in [0x02, 0x04, 0x0e, 0x11, 0x1f, 0x12, 0x99] {
        let mut rig = Rig::new();
        let mut payload = vec![byte];
        payload.resize(2 << 20, 0);
        rig.client(&command(&payload));
        assert_eq!(rig.told_error().0, 1153, "{byte:#x}");
        assert!(rig.closed() && !rig.wants_dial(), "{byte:#x}");
    }
}

#[test]
fn a_streamed_command_that_nobody_takes_ends_the_session() {
    let wire = large_insert();
    let mut rig = Rig::new();
    rig.no_primary();
    rig.client(&wire[..200_000]);
    assert!(rig.deadline());
    assert_eq!(rig.told_error().0, 1290);
    // The rest of it must never be read as commands.
    assert!(rig.closed());
    assert!(!rig.session.interest().client);
}

#[test]
fn a_streamed_command_in_a_lost_transaction_ends_the_session() {
    let wire = large_insert();
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.client(&wire[..200_000]);
    rig.event(Event::LinkClosed(Primary));
    assert_eq!(rig.told_error().0, 1213);
    assert!(rig.closed());
}

#[test]
fn a_server_that_answers_before_the_end_of_a_command_ends_the_session() {
    let wire = large_insert();
    let mut rig = Rig::new();
    rig.client(&wire[..200_000]);
    rig.dialed(Primary);
    rig.server(Primary, &err(1, 1153, "Got a packet bigger than 'max_allowed_packet' bytes"));
    assert_eq!(rig.told_error().0, 1153);
    assert!(rig.closed());
}

#[test]
fn a_streamed_command_that_breaks_its_sequence_closes() {
    let mut rig = Rig::new();
    let mut wire = vec![0xff, 0xff, 0xff, 0];
    wire.extend_from_slice(b"\x03INSERT INTO t VALUES ('");
    wire.resize(4 + packet::MAX_PAYLOAD, b'x');
    wire.extend_from_slice(&[1, 0, 0, 9, b'x']);
    rig.client(&wire[..100_000]);
    rig.dialed(Primary);
    rig.client(&wire[100_000..]);
    assert!(rig.closed());
}

#[test]
fn a_file_is_passed_on_for_a_load_only() {
    let load = "LOAD DATA LOCAL INFILE 'x.csv' INTO TABLE t";
    let mut rig = Rig::new();
    rig.client(&query(load));
    rig.dialed(Primary);
    rig.sent(Primary);
    let request = b"\x06\0\0\x01\xfbx.csv";
    rig.server(Primary, request);
    assert_eq!(rig.told(), request);
    let file = [b"\x04\0\0\x021,2\n".as_slice(), b"\0\0\0\x03"].concat();
    rig.client(&[file.clone(), query("DELETE FROM t")].concat());
    assert_eq!(rig.sent_raw(Primary), file);
    rig.server(Primary, &ok(4, AUTO));
    assert_eq!(rig.told(), ok(4, AUTO));
    assert_eq!(rig.sent_sql(Primary), "DELETE FROM t", "sent ahead, run after");
    for sql in ["DELETE FROM t", "SELECT f()", "LOAD DATA INFILE 'x' INTO TABLE t"] {
        let mut rig = Rig::new();
        rig.client(&query(sql));
        rig.dialed(Primary);
        rig.server(Primary, request);
        assert_eq!(rig.told_error().0, 1105, "{sql}");
        assert!(rig.closed() && rig.dropped(Primary), "{sql}");
    }
}

#[test]
fn a_client_without_local_files_is_never_asked_for_one() {
    use crate::protocol::flags::Capabilities;
    let mut rig = Rig::with_caps(CAPS.without(Capabilities::LOCAL_FILES));
    rig.client(&query("LOAD DATA LOCAL INFILE 'x.csv' INTO TABLE t"));
    rig.dialed(Primary);
    rig.server(Primary, b"\x06\0\0\x01\xfbx.csv");
    assert_eq!(rig.told_error().0, 1105);
    assert!(rig.closed());
}

#[test]
fn our_own_commands_never_send_a_file() {
    let mut rig = Rig::new();
    rig.ask(Primary, "SET @a = 5", &ok(1, AUTO));
    rig.client(&query("SELECT a FROM t"));
    rig.dialed(Replica);
    assert_eq!(rig.sent_sql(Replica), "SET @`a`=5");
    rig.server(Replica, b"\x06\0\0\x01\xfbx.csv");
    assert!(rig.told().is_empty());
    assert!(rig.dropped(Replica), "{rig:?}");
}

#[test]
fn a_file_is_never_read_as_commands() {
    let mut rig = Rig::new();
    rig.client(&query("LOAD DATA LOCAL INFILE 'x.csv' INTO TABLE t"));
    rig.dialed(Primary);
    rig.sent(Primary);
    rig.server(Primary, b"\x06\0\0\x01\xfbx.csv");
    rig.client(b"\x04\0\0\x021,2\n");
    rig.sent(Primary);
    rig.told();
    // The server ends it early; the client, half-way through, sends a packet numbered 0.
    rig.server(Primary, &err(4, 1317, "Query execution was interrupted"));
    assert_eq!(rig.told_error().0, 1317);
    rig.client(&query("DROP TABLE t"));
    assert!(rig.sent(Primary).is_empty());
    assert!(rig.closed());
}

#[test]
fn an_upload_whose_link_breaks_ends_the_session() {
    for open in [false, true] {
        let mut rig = Rig::new();
        if open {
            rig.ask(Primary, "BEGIN", &ok(1, OPEN));
        }
        rig.client(&query("LOAD DATA LOCAL INFILE 'x.csv' INTO TABLE t"));
        if rig.wants_dial() {
            rig.dialed(Primary);
        }
        rig.server(Primary, b"\x06\0\0\x01\xfbx.csv");
        rig.client(b"\x04\0\0\x021,2\n");
        rig.event(Event::LinkClosed(Primary));
        assert!(rig.closed());
    }
}

#[test]
fn a_file_that_breaks_its_sequence_closes() {
    let mut rig = Rig::new();
    rig.client(&query("LOAD DATA LOCAL INFILE 'x.csv' INTO TABLE t"));
    rig.dialed(Primary);
    rig.server(Primary, b"\x06\0\0\x01\xfbx.csv");
    rig.client(b"\x04\0\0\x071,2\n");
    assert!(rig.closed());
}

#[test]
fn a_tunnel_is_between_the_client_and_the_primary_alone() {
    let dump = b"\x12\x04\0\0\0\0\0\x01\0\0\0";
    let mut rig = Rig::new();
    rig.ask(Replica, "SELECT a FROM t", &row("1", AUTO));
    rig.client(&command(dump));
    rig.dialed(Primary);
    assert_eq!(rig.sent(Primary), [dump]);
    rig.server(Primary, b"\x01\0\0\x01\x00anything");
    assert_eq!(rig.told(), b"\x01\0\0\x01\x00anything");
    rig.client(b"whatever");
    assert_eq!(rig.sent_raw(Primary), b"whatever");
    rig.server(Replica, &err(0, 4031, "bye"));
    assert!(rig.told().is_empty(), "the replica has no part in it");
    assert!(!rig.closed());
    rig.event(Event::LinkClosed(Primary));
    assert!(rig.closed());
}

#[test]
fn commands_that_break_the_protocol_are_refused_and_close() {
    for (bytes, code) in [
        (&b"\x01\0\0\x01\x0e"[..], 1156),
        (b"\0\0\0\0", 1835),
        (b"\x01\0\0\0\x07", 1835),
        (b"\x03\0\0\0\x17\x01\0", 1835),
        (b"\x02\0\0\0\x19\x01", 1835),
        (b"\x02\0\0\0\x0c\x01", 1835),
    ] {
        let mut rig = Rig::new();
        rig.client(bytes);
        assert_eq!(rig.told_error().0, code, "{bytes:?}");
        assert!(rig.closed() && !rig.wants_dial(), "{bytes:?}");
    }
}

#[test]
fn a_quit_closes_both_sides() {
    let mut rig = Rig::new();
    rig.write();
    rig.client(&command(b"\x01"));
    rig.released(Primary);
    assert!(rig.closed());
    assert!(rig.told().is_empty());
}

#[test]
fn a_quit_in_a_transaction_closes_the_link() {
    let mut rig = Rig::new();
    rig.ask(Primary, "BEGIN", &ok(1, OPEN));
    rig.client(&command(b"\x01"));
    assert!(rig.closed() && rig.dropped(Primary) && !rig.has_released(Primary));
    // The server need not take it for a client that was lost.
    assert_eq!(rig.sent(Primary), [b"\x01"]);
}

#[test]
fn statistics_and_field_lists_pass() {
    let mut rig = Rig::new();
    rig.client(&command(b"\x09"));
    rig.dialed(Primary);
    rig.server(Primary, b"\x0a\0\0\x01Uptime: 12");
    assert_eq!(rig.told(), b"\x0a\0\0\x01Uptime: 12");
    rig.client(&command(b"\x04t\0"));
    let list = [b"\x02\0\0\x01de".as_slice(), b"\x05\0\0\x02\xfe\0\0\x02\0"].concat();
    rig.server(Primary, &list);
    assert_eq!(rig.told(), list);
    assert_eq!(rig.session.phase_word(), "idle");
}

#[test]
fn a_kill_of_a_client_is_asked_of_the_shell() {
    use crate::session::action::{KillOutcome, Request};
    for (outcome, code) in
        [(KillOutcome::Done, 0), (KillOutcome::Unknown, 1094), (KillOutcome::NotOwner, 1095)]
    {
        for wire in [query("KILL 7"), query("KILL QUERY 7"), command(b"\x0c\x07\0\0\0")] {
            let mut rig = Rig::new();
            rig.client(&wire);
            let asked = rig.requests.iter().any(|r| matches!(r, Request::Kill { id: 7, .. }));
            assert!(asked && !rig.wants_dial());
            rig.event(Event::Killed(outcome));
            if code == 0 {
                assert_eq!(rig.told(), ok(1, AUTO));
            } else {
                assert_eq!(rig.told_error().0, code);
            }
        }
    }
}
