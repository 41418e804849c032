//! However the bytes are cut, the same bytes come out; and whatever the bytes are, nothing
//! panics and nothing unframed reaches the client.

use proptest::prelude::*;

use super::fixture::*;
use crate::protocol::session_track::Change;
use crate::session::action::Event;

/// One side's turn in a conversation.
enum Turn {
    Client(Vec<u8>),
    Dialed(Held),
    Server(Held, Vec<u8>),
}

use crate::router::policy::Held;

fn conversation() -> Vec<Turn> {
    use Turn::{Client, Dialed, Server};
    let changes = [variable("sql_mode", "ANSI"), variable("last_gtid", "0-1-5")];
    let schema = [Change::Schema(b"app")];
    vec![
        Client(query("SET sql_mode='ANSI'")),
        Dialed(Primary),
        Server(Primary, ok_with(1, AUTO, &changes)),
        Client(query("SELECT a FROM t")),
        Dialed(Replica),
        Server(Replica, row("0", AUTO)),
        Server(Replica, ok(1, AUTO)),
        Server(Replica, row("a row of some length", AUTO)),
        Client(command(b"\x02app")),
        Server(Primary, ok_with(1, AUTO, &schema)),
        Client(prepare("SELECT a FROM t")),
        Server(Replica, ok(1, AUTO)),
        Server(Replica, prepared(300, 2, 1)),
        Client(command(b"\x17\x01\0\0\0\0\x01\0\0\0\0\x01\x03\0\x07\0\0\0")),
        Server(Replica, row("1", AUTO)),
        Client(query("LOAD DATA LOCAL INFILE 'x' INTO TABLE t")),
        Server(Primary, b"\x02\0\0\x01\xfbx".to_vec()),
        Client([b"\x03\0\0\x02a\nb".as_slice(), b"\0\0\0\x03"].concat()),
        Server(Primary, ok(4, AUTO)),
        Client(query("BEGIN")),
        Server(Primary, ok(1, OPEN)),
        Client(query("SELECT 1; SELECT 2")),
        Server(Primary, err(1, 1064, "no")),
    ]
}

/// What came out: for the client, the primary, the replica.
fn play(turns: &[Turn], cut: Option<(usize, usize)>) -> [Vec<u8>; 3] {
    let mut rig = Rig::new();
    let mut out = [Vec::new(), Vec::new(), Vec::new()];
    for (at, turn) in turns.iter().enumerate() {
        let split = |bytes: &[u8]| {
            let place = cut.filter(|(turn, _)| *turn == at).map_or(0, |(_, place)| place);
            let (head, tail) = bytes.split_at(place.min(bytes.len()));
            [head.to_vec(), tail.to_vec()]
        };
        match turn {
            Turn::Dialed(slot) => {
                rig.dialed(*slot);
            }
            Turn::Client(bytes) => split(bytes).iter().for_each(|part| rig.client(part)),
            Turn::Server(slot, bytes) => {
                let parts = split(bytes);
                let parts = parts.iter().filter(|part| !part.is_empty());
                parts.for_each(|part| rig.server(*slot, part));
            }
        }
        out[0].extend(rig.told());
        out[1].extend(rig.sent_raw(Primary));
        out[2].extend(rig.sent_raw(Replica));
    }
    assert!(!rig.closed(), "{rig:?}");
    assert_eq!(rig.session.phase_word(), "idle in transaction", "{rig:?}");
    out
}

#[test]
fn every_cut_of_every_turn_gives_the_same_bytes() {
    let turns = conversation();
    let whole = play(&turns, None);
    assert!(whole[0].len() > 300, "the conversation took place");
    let mut cuts = 0;
    for (at, turn) in turns.iter().enumerate() {
        let (Turn::Client(bytes) | Turn::Server(_, bytes)) = turn else { continue };
        for place in 1..bytes.len() {
            assert!(play(&turns, Some((at, place))) == whole, "turn {at} cut at {place}");
            cuts += 1;
        }
    }
    assert!(cuts > 500, "{cuts} cuts");
}

/// Puts a session into one of its phases.
fn in_phase(phase: u8) -> Rig {
    let mut rig = Rig::new();
    match phase {
        0 => {}
        1 => rig.client(&query("DELETE FROM t")),
        2 => {
            rig.client(&query("DELETE FROM t"));
            rig.dialed(Primary);
        }
        3 => {
            rig.client(&query("SELECT a FROM t"));
            rig.dialed(Replica);
        }
        4 => {
            rig.client(&query("LOAD DATA LOCAL INFILE 'x' INTO TABLE t"));
            rig.dialed(Primary);
            rig.server(Primary, b"\x02\0\0\x01\xfbx");
        }
        5 => {
            rig.ask(Primary, "INSERT INTO t VALUES (1)", &ok(1, AUTO));
            rig.ask(Primary, "SET @a = 5", &ok(1, AUTO));
            rig.client(&query("SELECT a FROM t"));
            rig.dialed(Replica);
        }
        6 => {
            rig.client(&prepare("SELECT a FROM t WHERE a = ?"));
            rig.dialed(Replica);
        }
        7 => {
            rig.client(&prepare("SELECT a FROM t WHERE a = ?"));
            rig.dialed(Replica);
            rig.server(Replica, &prepared(9, 1, 1));
        }
        8 => {
            rig.no_primary();
            rig.client(&query("DELETE FROM t"));
        }
        _ => {
            rig.ask(Primary, "BEGIN", &ok(1, OPEN));
            rig.client(&query("SELECT a FROM t"));
        }
    }
    rig.told();
    rig
}

/// The whole packets in `bytes`, and whether that is all.
fn whole_packets(bytes: &[u8]) -> (Vec<&[u8]>, bool) {
    let mut rest = bytes;
    let mut found = Vec::new();
    while let Some((len, _)) = crate::protocol::packet::header(rest) {
        let Some((packet, after)) = rest.split_at_checked(4 + len) else { break };
        found.push(&packet[4..]);
        rest = after;
    }
    (found, rest.is_empty())
}

/// How often we speak ourselves in `bytes`.
fn our_words(bytes: &[u8]) -> usize {
    bytes.windows(11).filter(|window| *window == b"pointsman: ").count()
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (
            any::<u8>(),
            prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..30)
        )
            .prop_map(|(first, rest)| [vec![first], rest].concat()),
    ];
    let packet = (payload, 0u8..4).prop_map(|(payload, seq)| {
        let mut out = Vec::new();
        crate::protocol::packet::write(&mut out, seq, &payload);
        out
    });
    prop_oneof![
        prop::collection::vec(packet, 1..4).prop_map(|packets| packets.concat()),
        prop::collection::vec(any::<u8>(), 0..60),
    ]
}

proptest! {
    #[test]
    fn no_bytes_make_a_session_panic_or_speak_out_of_frame(
        phase in 0u8..10,
        turns in prop::collection::vec((0u8..6, hostile()), 1..6),
    ) {
        let mut rig = in_phase(phase);
        let mut told = Vec::new();
        for (who, bytes) in turns {
            match who {
                0 | 1 => rig.client(&bytes),
                2 => rig.server(Primary, &bytes),
                3 => rig.server(Replica, &bytes),
                4 => rig.event(Event::LinkClosed(Primary)),
                _ => { rig.deadline(); }
            }
            while rig.session.phase_word() == "connecting" {
                let slot = if rig.wants_dial_of(Primary) { Primary } else { Replica };
                rig.dialed(slot);
            }
            told.extend(rig.told());
            if rig.session.phase_word() == "tunnel" {
                return Ok(());
            }
            let (packets, all) = whole_packets(&told);
            let errors = packets.iter().filter(|packet| packet.first() == Some(&0xff));
            let said: usize = errors.map(|packet| our_words(packet)).sum();
            prop_assert_eq!(said, our_words(&told), "an error of ours inside a packet");
            if rig.closed() {
                prop_assert!(!rig.session.interest().client);
                break;
            }
            prop_assert!(all || rig.session.phase_word() == "running");
        }
    }
}
