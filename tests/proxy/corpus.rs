//! Malformed, truncated, oversized and out-of-order packets in every phase, from both sides.
//! Each ends in an error packet or a close, and the neighbour on the same worker goes on.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, PoisonError};

use pointsman::protocol::packet;

use crate::proxy::{Proxy, provoke, response};
use crate::server::{self, Bad, Script, ok, read_packet, rows};

/// A proxy, its scripted server, and the neighbour.
struct Bench {
    script: Arc<Script>,
    proxy: Proxy,
    neighbour: TcpStream,
    cases: usize,
}

impl Bench {
    fn new() -> Self {
        let script = Arc::new(Script::default());
        let proxy = Proxy::start(server::start(script.clone()));
        let neighbour = proxy.client("app");
        let mut bench = Self { script, proxy, neighbour, cases: 0 };
        bench.neighbour_goes_on("the start");
        bench
    }

    fn neighbour_goes_on(&mut self, after: &str) {
        let sent = self.neighbour.write_all(&command(b"\x03SELECT 1"));
        let want = rows(1, Some(&["1"]));
        let mut got = Vec::new();
        while got.len() < want.len() {
            let Some((seq, payload)) = read_packet(&mut self.neighbour) else { break };
            packet::write(&mut got, seq, &payload);
        }
        assert!(sent.is_ok() && got == want, "{after}: the neighbour got {got:?}");
        assert!(self.proxy.is_alive(), "{after}: the proxy is gone");
    }

    /// One case: these bytes on this connection, and what came back.
    fn case(&mut self, stream: TcpStream, bytes: &[u8], what: &str) -> Vec<u8> {
        let answer = provoke(stream, bytes, what);
        self.neighbour_goes_on(what);
        self.cases += 1;
        answer
    }

    fn after_greeting(&mut self, bytes: &[u8], what: &str) -> Vec<u8> {
        let stream = self.proxy.greeted();
        self.case(stream, bytes, what)
    }

    fn after_login(&mut self, bytes: &[u8], what: &str) -> Vec<u8> {
        let stream = self.proxy.client("app");
        self.case(stream, bytes, what)
    }

    fn done(mut self, what: &str) {
        assert!(self.proxy.is_alive());
        let panics = self.proxy.log().matches("panicked").count();
        assert_eq!(panics, 0, "{}", self.proxy.log());
        println!("{what}: {} cases, {panics} panics, neighbours unharmed", self.cases);
    }
}

fn framed(seq: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    packet::write(&mut out, seq, payload);
    out
}

fn command(payload: &[u8]) -> Vec<u8> {
    framed(0, payload)
}

/// Packets in `answer`: the last is an error, or there is none at all.
fn is_refusal(answer: &[u8]) -> bool {
    let mut rest = answer;
    let mut last = None;
    while let Some((len, _)) = packet::header(rest) {
        let Some(payload) = rest.get(4..4 + len) else { return false };
        last = payload.first();
        rest = &rest[4 + len..];
    }
    last.is_none_or(|first| *first == 0xff)
}

#[test]
fn the_login_survives_every_bad_packet() {
    let mut bench = Bench::new();
    let good = response("app", "mysql_native_password");
    let payload = &good[4..];
    for cut in 0..payload.len() {
        let what = format!("response cut to {cut}");
        bench.after_greeting(&framed(1, &payload[..cut]), &what);
        bench.after_greeting(&good[..cut + 4], &format!("{what}, unframed"));
        let mut bad = payload.to_vec();
        bad[cut] ^= 0xff;
        bench.after_greeting(&framed(1, &bad), &format!("response with byte {cut} turned"));
    }
    for seq in [0, 2, 3, 255] {
        let answer = bench.after_greeting(&framed(seq, payload), &format!("response at {seq}"));
        assert!(is_refusal(&answer), "{seq}: {answer:?}");
    }
    for (what, bytes) in [
        ("nothing", vec![]),
        ("an empty packet", framed(1, b"")),
        ("the longest length", b"\xff\xff\xff\x01x".to_vec()),
        ("beyond the login's limit", b"\x01\x00\x01\x01x".to_vec()),
        ("a long response", framed(1, &[payload, &[b'x'; 70_000][..]].concat())),
        ("a request of another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".to_vec()),
        ("a request for TLS", framed(1, &[&[0, 0x0a, 0, 0][..], &[0; 28]].concat())),
        ("a command", command(b"\x03SELECT 1")),
    ] {
        let answer = bench.after_greeting(&bytes, what);
        assert!(is_refusal(&answer), "{what}: {answer:?}");
    }
    for len in [0, 1, 19, 20, 21, 255, 4097, 70_000] {
        for seq in [3, 2, 9] {
            let mut bytes = response("app", "no_such_plugin");
            bytes.extend(framed(seq, &vec![b'x'; len]));
            bench.after_greeting(&bytes, &format!("switch answered by {len} bytes at {seq}"));
        }
    }
    bench.done("login");
}

#[test]
fn the_proxy_protocol_survives_every_bad_header() {
    let mut bench = Bench::new();
    let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n".as_slice();
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x09\0\x0a";
    let mut bad: Vec<Vec<u8>> = Vec::new();
    for good in [v1, v2.as_slice()] {
        bad.extend((0..good.len()).map(|cut| good[..cut].to_vec()));
        bad.extend((0..good.len()).map(|at| {
            let mut bytes = good.to_vec();
            bytes[at] ^= 0xff;
            bytes
        }));
    }
    bad.push([b"PROXY ".as_slice(), &[b'x'; 5000]].concat());
    bad.push([&v2[..14], b"\xff\xff", &[0; 70_000]].concat());
    for (at, bytes) in bad.iter().enumerate() {
        let stream = bench.proxy.connect(Some(bench.proxy.proxied));
        bench.case(stream, bytes, &format!("PROXY header {at}"));
    }
    bench.done("PROXY header");
}

/// Commands that a server would answer, one of each form.
const COMMANDS: &[&[u8]] = &[
    b"\x02app",
    b"\x03SELECT 1",
    b"\x03DELETE FROM t",
    b"\x03LOAD DATA LOCAL INFILE 'x' INTO TABLE t",
    b"\x04t\0%",
    b"\x07\x01",
    b"\x09",
    b"\x0a",
    b"\x0c\x07\0\0\0",
    b"\x0e",
    b"\x11app\0\0app\0\x2d\0mysql_native_password\0",
    b"\x12\x04\0\0\0\0\0\x01\0\0\0",
    b"\x15\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\x16SELECT ?",
    b"\x17\x01\0\0\0\0\x01\0\0\0\0\x01\x03\0\x07\0\0\0",
    b"\x18\x01\0\0\0\0\0data",
    b"\x19\x01\0\0\0",
    b"\x1a\x01\0\0\0",
    b"\x1b\0\0",
    b"\x1c\x01\0\0\0\x01\0\0\0",
    b"\x1e\0\0\x01\0\0\0\0\0\0\0",
    b"\x1f",
    b"\xfa\x01\0\0\0\x80\0\x03\0\0\x07\0\0\0",
];

#[test]
fn commands_survive_every_cut_length_and_order() {
    let mut bench = Bench::new();
    for good in COMMANDS {
        for cut in 0..=good.len() {
            let name = format!("{}, {cut}", good.escape_ascii());
            // Behind a statement that exists, so that ids are known.
            let bytes = [command(b"\x16SELECT 1"), command(&good[..cut])].concat();
            bench.after_login(&bytes, &name);
            let wire = command(good);
            bench.after_login(&wire[..cut + 4], &format!("{name}, unframed"));
        }
        for seq in [1, 2, 255] {
            let name = format!("{} at {seq}", good.escape_ascii());
            let answer = bench.after_login(&framed(seq, good), &name);
            assert!(!answer.is_empty() && is_refusal(&answer), "{name}: {answer:?}");
        }
        for declared in [0xff_fffe_u32, 0xff_ffff] {
            let mut bytes = declared.to_le_bytes()[..3].to_vec();
            bytes.push(0);
            bytes.extend_from_slice(good);
            bench.after_login(&bytes, &format!("{} of {declared}", good.escape_ascii()));
        }
    }
    for byte in 0..=255 {
        bench.after_login(&command(&[byte]), &format!("command {byte:#x}"));
        bench.after_login(&command(&[byte, 255, 255, 255, 255, 255, 255, 255, 255, 255]), "ones");
    }
    for file in [
        &b"\x04\0\0\x091,2\n"[..],
        b"\x04\0\0\x02ab",
        b"\xff\xff\xff\x02ab",
        b"\x01\0\0\0\x0e",
        b"\0\0\0\x02\0\0\0\x03",
    ] {
        let load = command(b"\x03LOAD DATA LOCAL INFILE 'x' INTO TABLE t");
        bench.after_login(&[load, file.to_vec()].concat(), &format!("file {file:?}"));
    }
    bench.done("commands");
}

/// Replies that no server should give.
fn bad_replies() -> Vec<Bad> {
    let mut bad: Vec<Bad> = Vec::new();
    let tracked = b"\x00\x00\x00\x02\x40\x00\x00\x00\x05\x01\x03\x02ap".as_slice();
    let good = [
        rows(2, Some(&["1", "2"])),
        ok(1),
        framed(1, tracked),
        framed(1, b"\xff\x15\x04#28000no"),
        b"\x0c\0\0\x01\0\x01\0\0\0\x01\0\x01\0\0\0\0".to_vec(),
    ];
    for good in &good {
        for at in 0..good.len() {
            bad.push((good[..at].to_vec(), true));
            let mut turned = good.clone();
            turned[at] ^= 0xff;
            bad.push((turned, true));
        }
        bad.push(([good.as_slice(), &ok(1)].concat(), false));
        bad.push(([good.as_slice(), b"\x01"].concat(), false));
    }
    for payload in [
        &b""[..],
        b"\xfb",
        b"\xfbx",
        b"\xfc\xff\xff",
        b"\xfd\xff\xff\xff",
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xff",
        b"\xff\xff\xff",
        b"\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x00\x02\x00\x00\x00",
        b"\x00\x00\x00\x02\x40\x00\x00\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        for seq in [0, 1, 7] {
            bad.push((framed(seq, payload), true));
        }
    }
    bad.push((b"\xff\xff\xff\x01\x00".to_vec(), true));
    bad.push((b"\xff\xff\xff\x01\x05".to_vec(), true));
    bad
}

#[test]
fn clients_survive_every_bad_reply() {
    let mut bench = Bench::new();
    let replies = bad_replies();
    bench.script.replies.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&replies);
    for (at, (reply, _)) in replies.iter().enumerate() {
        for form in ["\x03DELETE FROM case_", "\x03SELECT a FROM case_", "\x16DELETE FROM case_"] {
            let bytes = command(format!("{form}{at}").as_bytes());
            bench.after_login(&bytes, &format!("{form:?}{at}: {:?}", reply));
        }
    }
    let greetings = [
        &b""[..],
        b"\x00\0\0\0",
        b"\x01\0\0\0\x0a",
        b"\xff\xff\xff\0\x0a",
        b"\x05\0\0\0\x0a5.5\0",
        b"\x03\0\0\0\xff\x10\x04",
        b"SSH-2.0-x\r\n",
    ];
    for greeting in greetings {
        let client = bench.proxy.client("app");
        let place = bench.script.clone();
        *place.greeting.lock().unwrap_or_else(PoisonError::into_inner) = Some(greeting.to_vec());
        bench.case(client, &command(b"\x03DELETE FROM t"), &format!("greeting {greeting:?}"));
    }
    for answer in [
        &b""[..],
        b"\0\0\0\x02",
        b"\x01\0\0\x02\x01",
        b"\x01\0\0\x02\xfe",
        b"\x05\0\0\x02\xfeabc\0",
        b"\x01\0\0\x09\0",
        b"\x03\0\0\x02\xff\x15\x04",
        b"\xff\xff\xff\x02\0",
    ] {
        let client = bench.proxy.client("badlogin");
        let place = bench.script.clone();
        *place.login.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer.to_vec());
        bench.case(client, &command(b"\x03DELETE FROM t"), &format!("login answer {answer:?}"));
    }
    bench.done("replies");
}

#[test]
fn declared_lengths_cost_nothing_before_the_bytes_come() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        bench.after_login(&command(b"\x0e"), "warming up");
    }
    let before = bench.proxy.resident();
    let mut open = Vec::new();
    for first in [0x03, 0x16, 0x17, 0x18, 0xfa] {
        for _ in 0..20 {
            let mut stream = bench.proxy.client("app");
            stream.write_all(&[0xff, 0xff, 0xff, 0, first, 1]).expect("the header");
            open.push(stream);
            let mut stream = bench.proxy.greeted();
            let _ = stream.write_all(&[0xff, 0xff, 0xff, 1, first]);
            open.push(stream);
        }
    }
    bench.neighbour_goes_on("200 lengths of 16 MiB");
    let grown = bench.proxy.resident() - before;
    assert!(grown < 8 * 1024, "{grown} KiB for {} connections", open.len());
    println!("{} connections that declared 16 MiB each: {grown} KiB", open.len());
    bench.done("lengths");
}
