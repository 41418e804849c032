//! What it costs to understand: replies walked, packets read and written, and whole exchanges
//! through a session, without a socket.
//!
//! `cargo bench --bench walk -- [--iterations N] [--only NAME]`. Prints nanoseconds per call;
//! `scripts/bench-instructions` runs each under callgrind twice and prints instructions per call.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use pointsman::config::{Group, raw, resolve};
use pointsman::protocol::command;
use pointsman::protocol::flags::{Capabilities, MariadbCapabilities};
use pointsman::protocol::packet;
use pointsman::protocol::reply;
use pointsman::protocol::walker::{Expect, ReplyWalker, Stop};
use pointsman::router::Dialect;
use pointsman::router::cache::ClassCache;
use pointsman::router::policy::Held;
use pointsman::router::refused::RefusedDigests;
use pointsman::session::Session;
use pointsman::session::action::{LinkFacts, Login, Outbox, Spent, World, index};
use pointsman::topology::gtid::GtidSet;
use pointsman::topology::{Condition, Flavour, Node, NodeId, Promotion, Role, Topology};

const CAPS: Capabilities = Capabilities(
    Capabilities::PROTOCOL_41.0
        | Capabilities::DEPRECATE_EOF.0
        | Capabilities::SESSION_TRACK.0
        | Capabilities::PLUGIN_AUTH.0,
);
const MARIADB: MariadbCapabilities = MariadbCapabilities(0);

/// Status flags outside of a transaction, and in one.
const AUTOCOMMIT: u8 = 2;
const OPEN: u8 = 3;

/// A result of one column with `rows` rows of 120 bytes, as both protocols send it.
fn result(rows: usize, binary: bool) -> Vec<u8> {
    result_with(rows, binary, AUTOCOMMIT)
}

fn result_with(rows: usize, binary: bool, status: u8) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut seq = packet::write(&mut wire, 1, &[1]);
    let mut definition = b"\x03def\x03app\x05bench\x05bench\x01c\x01c\x0c".to_vec();
    definition.extend_from_slice(&[45, 0, 0xE0, 1, 0, 0, 0xFE, 1, 0, 0, 0, 0]);
    seq = packet::write(&mut wire, seq, &definition);
    let mut row = if binary { vec![0, 0] } else { Vec::new() };
    row.push(120);
    row.extend_from_slice(&[b'x'; 120]);
    for _ in 0..rows {
        seq = packet::write(&mut wire, seq, &row);
    }
    packet::write(&mut wire, seq, &[0xFE, 0, 0, status, 0, 0, 0]);
    wire
}

fn walk(expect: Expect, wire: &[u8]) {
    let mut walker = ReplyWalker::new(expect, CAPS, MARIADB);
    let mut at = 0;
    while !walker.is_done() {
        let advance = walker.advance(&wire[at..]).expect("a sound reply");
        at += advance.forward;
        match advance.stop {
            Stop::Notable(notable) => at += notable.len,
            Stop::NeedMore => break,
        }
    }
    assert_eq!(black_box(at), wire.len());
}

/// The world of a session: a primary alone, and everything that a session may look at.
struct Stage {
    topology: Arc<Topology>,
    group: Arc<Group>,
    classes: ClassCache,
    refused: RefusedDigests,
    spent: Vec<Spent>,
    session: Session,
    out: Outbox,
}

impl Stage {
    fn new() -> Self {
        let file = "[monitor]\nuser = \"m\"\npassword = \"m\"\n[groups.main]\n\
                    listen = \"127.0.0.1:6033\"\nseeds = [\"127.0.0.1:3306\"]\n";
        let file = raw::parse(file).expect("TOML");
        let config = resolve::resolve(&file, 1, &|_| unreachable!("no file is named"));
        let config = config.expect("a configuration");
        let group = config.groups.first().expect("a group").clone();
        let node = Node {
            id: NodeId(0),
            name: Arc::from("db1"),
            address: Arc::from("127.0.0.1:3306"),
            role: Role::Primary,
            condition: Condition::Up,
            weight: 100,
            lag: None,
            promotion: Promotion::Usual,
            applying: true,
            alike: true,
            read_only: false,
            applied: GtidSet::default(),
            observed_at: None,
            started: None,
            probed: true,
            facts: None,
            leaving: false,
            trouble: String::new(),
        };
        let topology =
            Topology { nodes: vec![node], primary: Some(NodeId(0)), ..Topology::empty("main") };
        let login = Login {
            same_user: false,
            capabilities: CAPS,
            mariadb: MARIADB,
            collation: 45,
            schema: None,
            status: 2,
            sole: false,
            trackers: Arc::from(""),
        };
        let link = LinkFacts {
            node: NodeId(0),
            capabilities: CAPS,
            mariadb: MARIADB,
            thread_id: 7,
            schema: None,
            status: 2,
            names: None,
            witness: None,
        };
        let dialect = Dialect::plain(Flavour::MariaDb, 101_119);
        Self {
            topology: Arc::new(topology),
            group,
            classes: ClassCache::new(1024),
            refused: RefusedDigests::default(),
            spent: Vec::new(),
            session: Session::new(7, login, dialect, Some(link), Instant::now()),
            out: Outbox::default(),
        }
    }

    fn with<T>(&mut self, run: impl FnOnce(&mut Session, &mut World<'_>, &mut Outbox) -> T) -> T {
        let mut world = World {
            tables_locked: false,
            now: Instant::now(),
            topology: &self.topology,
            group: &self.group,
            loads: &|_| 0,
            seed: 1,
            classes: &mut self.classes,
            refused: &mut self.refused,
            spent: &mut self.spent,
            settings_changed: None,
        };
        run(&mut self.session, &mut world, &mut self.out)
    }

    /// One command to the primary and its reply back, as it is.
    fn exchange(&mut self, request: &[u8], reply: &[u8]) {
        let told = self.exchange_telling(request, reply);
        assert_eq!(told, reply.len());
    }

    /// One command to the primary and its reply; how many bytes of that the client is told.
    fn exchange_telling(&mut self, request: &[u8], reply: &[u8]) -> usize {
        let used = self.with(|session, world, out| session.on_client(world, request, out));
        assert_eq!(
            (used, self.out.links[index(Held::Primary)].len()),
            (request.len(), request.len())
        );
        self.out.links[index(Held::Primary)].clear();
        let used =
            self.with(|session, world, out| session.on_server(world, Held::Primary, reply, out));
        assert_eq!(used, reply.len());
        let told = self.out.client.len();
        self.out.client.clear();
        self.out.requests.clear();
        told
    }
}

fn packet_of(payload: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    packet::write(&mut wire, 0, payload);
    wire
}

type Case = (&'static str, Box<dyn FnMut()>);

fn walker_cases() -> Vec<Case> {
    let (one, many) = (result(1, false), result(1000, false));
    let binary = result(1, true);
    vec![
        ("walk_row", Box::new(move || walk(Expect::Query, black_box(&one)))),
        ("walk_row_binary", Box::new(move || walk(Expect::Execute, black_box(&binary)))),
        ("walk_1000_rows", Box::new(move || walk(Expect::Query, black_box(&many)))),
    ]
}

fn codec_cases() -> Vec<Case> {
    let query = packet_of(b"\x03SELECT c FROM bench WHERE id=50021");
    let ok = [0, 1, 0, 2, 0, 0, 0];
    let mut out = Vec::new();
    vec![
        (
            "command",
            Box::new(move || {
                let frame = packet::frame(black_box(&query), 1 << 20).expect("a frame");
                let payload = packet::payload(&query, query.len());
                black_box((frame, command::parse(&payload, CAPS).is_ok()));
            }),
        ),
        (
            "ok",
            Box::new(move || {
                out.clear();
                let ok = reply::Ok::parse(black_box(&ok), CAPS).expect("an OK");
                black_box(ok.encode(&mut out, 1, 0, CAPS));
            }),
        ),
    ]
}

fn session_cases() -> Vec<Case> {
    let text = packet_of(b"\x03SELECT c FROM bench WHERE id=50021");
    let (row, binary) = (result(1, false), result(1, true));
    let mut stage = Stage::new();
    let mut cases: Vec<Case> =
        vec![("session_text", Box::new(move || stage.exchange(black_box(&text), &row)))];
    let mut stage = Stage::new();
    let mut prepared = Vec::new();
    let seq = packet::write(&mut prepared, 1, &[0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
    let definition = b"\x03def\0\0\0\x01?\0\x0c\x3f\0\0\0\0\0\xfd\0\0\0\0\0";
    let seq = packet::write(&mut prepared, seq, definition);
    packet::write(&mut prepared, seq, definition);
    let request = packet_of(b"\x16SELECT c FROM bench WHERE id=?");
    stage.exchange(&request, &prepared);
    let execute = packet_of(&[0x17, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 0, 101, 0, 0, 0]);
    let mut transaction = Stage::new();
    let answer = |status| {
        let mut wire = Vec::new();
        packet::write(&mut wire, 1, &[0, 0, 0, status, 0, 0, 0]);
        wire
    };
    let [begin, read, commit] =
        [&b"\x03BEGIN"[..], b"\x03SELECT c FROM bench WHERE id=50021", b"\x03COMMIT"]
            .map(packet_of);
    let (opened, rows, ended) = (answer(OPEN), result_with(1, false, OPEN), answer(AUTOCOMMIT));
    let transaction = move || {
        transaction.exchange(black_box(&begin), &opened);
        for _ in 0..8 {
            transaction.exchange(black_box(&read), &rows);
        }
        transaction.exchange(black_box(&commit), &ended);
    };
    cases.push(("session_ten", Box::new(transaction)));
    let mut writer = Stage::new();
    let (insert, mut written) = (packet_of(b"\x03INSERT INTO bench VALUES (1)"), Vec::new());
    // An OK that tells of `last_gtid`, which the client has not asked for.
    let tracks = b"\x00\x17\x09last_gtid\x0c0-1-50012345";
    let ok = [&[0, 1, 0, 2, 0x40, 0, 0, 0, tracks.len() as u8][..], tracks].concat();
    packet::write(&mut written, 1, &ok);
    let write = move || {
        let told = writer.exchange_telling(black_box(&insert), &written);
        assert!(told < written.len());
    };
    cases.push(("session_write", Box::new(write)));
    cases
        .push(("session_prepared", Box::new(move || stage.exchange(black_box(&execute), &binary))));
    cases
}

fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args();
    arguments.find(|argument| argument == name)?;
    arguments.next()
}

fn main() {
    let iterations: u32 = option("--iterations").and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let only = option("--only");
    let cases = walker_cases().into_iter().chain(codec_cases()).chain(session_cases());
    for (name, mut run) in cases {
        if only.as_deref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        let start = Instant::now();
        for _ in 0..iterations {
            run();
        }
        let nanos = start.elapsed().as_secs_f64() * 1e9 / f64::from(iterations.max(1));
        println!("{name:<18} {nanos:>10.1} ns");
    }
}
