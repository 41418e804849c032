//! Recorded exchanges of real clients and servers (tests/transcripts), replayed.
//!
//! A replay pairs every command of the client with its reply by nothing but the walker, so it
//! ends exactly at the recording's end only if the walker is right about every single reply.

use super::{Seen, drive};
use crate::protocol::command::{self, Command};
use crate::protocol::handshake::{Greeting, HandshakeResponse};
use crate::protocol::packet::{self, Body, Frame};
use crate::protocol::walker::*;

macro_rules! recorded {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../../../tests/transcripts/", $name, ".bin")))
    };
}

const RECORDED: &[(&str, &[u8])] = &[
    recorded!("mariadb-10.11-old"),
    recorded!("mariadb-10.11-new"),
    recorded!("mariadb-10.11-further"),
    recorded!("mysql-9.7-old"),
    recorded!("mysql-9.7-new"),
    recorded!("cli-mariadb"),
    recorded!("cli-mysql"),
    recorded!("cli97-mysql"),
    recorded!("pymysql-mariadb"),
    recorded!("pymysql-mysql"),
    recorded!("mysql2-mariadb"),
    recorded!("mysql2-mysql"),
];

/// One connection: everything that each side said.
#[derive(Default)]
struct Connection {
    client: Vec<u8>,
    server: Vec<u8>,
}

fn connections(mut bytes: &[u8]) -> Vec<Connection> {
    let mut out = Vec::new();
    while let Some((&mark, rest)) = bytes.split_first() {
        let len = u32::from_le_bytes(*rest.first_chunk().unwrap()) as usize;
        let (data, after) = rest[4..].split_at(len);
        match mark {
            b'N' => out.push(Connection::default()),
            b'C' => out.last_mut().unwrap().client.extend_from_slice(data),
            b'S' => out.last_mut().unwrap().server.extend_from_slice(data),
            other => panic!("record of kind {other}"),
        }
        bytes = after;
    }
    out
}

/// What is left of both streams.
struct Left<'a> {
    client: &'a [u8],
    server: &'a [u8],
    caps: Capabilities,
    mariadb: MariadbCapabilities,
}

fn packet_of<'a>(stream: &mut &'a [u8]) -> &'a [u8] {
    let (len, _) = header(stream).expect("a header");
    let (packet, rest) = stream.split_at(len + HEADER_LEN);
    *stream = rest;
    &packet[HEADER_LEN..]
}

/// Passes over the login; what follows are commands.
fn log_in(connection: &Connection) -> Left<'_> {
    let (mut client, mut server) = (&connection.client[..], &connection.server[..]);
    let greeting = Greeting::parse(packet_of(&mut server)).unwrap();
    let response = HandshakeResponse::parse(packet_of(&mut client)).unwrap();
    loop {
        match packet_of(&mut server) {
            [reply::OK, ..] => break,
            // A switch of plugins, or a question that is not "wait for the OK".
            [reply::EOF, ..] | [1, 2 | 4] => {
                packet_of(&mut client);
            }
            [1, 3] => {}
            other => panic!("{other:?} in a login"),
        }
    }
    let caps = response.capabilities.and(greeting.capabilities);
    Left { client, server, caps, mariadb: response.mariadb.and(greeting.mariadb) }
}

fn expected(command: &Command<'_>) -> Option<Expect> {
    match command {
        _ if command.is_silent() => None,
        Command::Query { .. } | Command::ProcessInfo => Some(Expect::Query),
        Command::StmtPrepare { .. } => Some(Expect::Prepare),
        Command::StmtExecute { .. } => Some(Expect::Execute),
        Command::StmtFetch { .. } => Some(Expect::Fetch),
        Command::StmtBulkExecute { .. } => Some(Expect::Bulk),
        Command::FieldList { .. } => Some(Expect::FieldList),
        Command::Statistics => Some(Expect::Statistics),
        _ => Some(Expect::Simple),
    }
}

/// Takes one reply off the server's stream, and a file off the client's where one was asked
/// for.
fn reply_of<'a>(left: &mut Left<'a>, expect: Expect) -> (&'a [u8], bool) {
    let mut walker = ReplyWalker::new(expect, left.caps, left.mariadb);
    let (mut at, mut file) = (0, false);
    loop {
        let Advance { forward, stop } = walker.advance(&left.server[at..]).expect("a reply");
        let Stop::Notable(notable) = stop else { panic!("{expect:?} has no end") };
        at += forward + notable.len;
        if notable.kind == Kind::LocalInfile {
            file = true;
            let (taken, done) =
                Body::file(notable.seq.wrapping_add(1)).advance(left.client).unwrap();
            assert!(done);
            left.client = &left.client[taken..];
        }
        if notable.terminal {
            break;
        }
    }
    let (reply, rest) = left.server.split_at(at);
    left.server = rest;
    (reply, file)
}

/// The reply cut at every byte position gives the same bytes and the same notable packets.
fn cut_everywhere(reply: &[u8], walker: &ReplyWalker) {
    let whole: Seen = drive(walker.clone(), [reply]).unwrap();
    assert_eq!(whole.bytes, reply);
    for cut in 0..reply.len() {
        let (head, tail) = reply.split_at(cut);
        assert_eq!(drive(walker.clone(), [head, tail]).as_ref(), Ok(&whole), "cut {cut}");
    }
    assert_eq!(drive(walker.clone(), reply.chunks(1)).as_ref(), Ok(&whole));
}

/// Replays one connection and gives the number of replies.
fn replay(connection: &Connection) -> usize {
    let mut left = log_in(connection);
    let mut replies = 0;
    while !left.client.is_empty() {
        let Ok(Frame::Whole { wire_len, next_seq }) = packet::frame(left.client, 1 << 26) else {
            panic!("no whole command in {:?}", left.client);
        };
        let payload = packet::payload(left.client, wire_len);
        left.client = &left.client[wire_len..];
        let command = command::parse(&payload, left.caps).unwrap();
        let Some(expect) = expected(&command) else { continue };
        let (reply, file) = reply_of(&mut left, expect);
        assert_eq!(header(reply).map(|(_, seq)| seq), Some(next_seq), "{command:?}");
        replies += 1;
        if !file {
            cut_everywhere(reply, &ReplyWalker::new(expect, left.caps, left.mariadb));
        }
    }
    assert_eq!(left.server, b"", "the server said more than the walker took");
    replies
}

#[test]
fn recorded_exchanges_are_understood_to_their_last_byte() {
    for (name, bytes) in RECORDED {
        let connections = connections(bytes);
        assert!(!connections.is_empty(), "{name} is empty");
        for (number, connection) in connections.iter().enumerate() {
            let replies = replay(connection);
            assert!(replies > 3, "{name}, connection {number}: {replies} replies");
        }
    }
}
