//! A session with a small cluster around it, driven the way the shell drives it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::outcome::CommitOutcome;
use crate::config::{Group, raw, resolve};
use crate::protocol::flags::{Capabilities, MariadbCapabilities, Status};
use crate::protocol::{packet, reply, session_track, writer};
use crate::router::cache::ClassCache;
use crate::router::policy::Held;
use crate::router::refused::RefusedDigests;
use crate::session::action::{
    Event, Finished, LinkFacts, Login, Outbox, Request, Retry, Spent, Trouble, World, index,
};
use crate::session::links::Kept;
use crate::session::{Session, Witness, state};
use crate::topology::{Flavour, Node, NodeId, Role, ServerFacts, Topology, Transport, fixture};

pub(super) use crate::router::policy::Held::{Primary, Replica};
pub(super) use crate::session::pin::Pin;

/// Flags of an ordinary client of today that keeps the older end of rows.
pub(super) const CAPS: Capabilities = Capabilities(
    Capabilities::PROTOCOL_41.0
        | Capabilities::TRANSACTIONS.0
        | Capabilities::SECURE_CONNECTION.0
        | Capabilities::PLUGIN_AUTH.0
        | Capabilities::MULTI_STATEMENTS.0
        | Capabilities::MULTI_RESULTS.0
        | Capabilities::PS_MULTI_RESULTS.0
        | Capabilities::LOCAL_FILES.0
        | Capabilities::SESSION_TRACK.0,
);

/// autocommit, nothing else.
pub(super) const AUTO: Status = Status::AUTOCOMMIT;
/// In a transaction.
pub(super) const OPEN: Status = Status(Status::AUTOCOMMIT.0 | Status::IN_TRANS.0);

/// A session, the world as it sees it, and what it has said so far.
pub(super) struct Rig {
    pub(super) session: Session,
    pub(super) topology: Arc<Topology>,
    pub(super) group: Group,
    pub(super) now: Instant,
    /// When a client has changed a setting of a server.
    pub(super) settings_changed: Option<Instant>,
    pub(super) caps: Capabilities,
    classes: ClassCache,
    refused: RefusedDigests,
    spent: Vec<Spent>,
    client: Vec<u8>,
    links: [Vec<u8>; 2],
    pub(super) requests: Vec<Request>,
    client_tail: Vec<u8>,
    link_tails: [Vec<u8>; 2],
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with_caps(CAPS)
    }

    /// A session whose client has negotiated `caps`.
    pub(super) fn with_caps(caps: Capabilities) -> Self {
        let login = Login {
            capabilities: caps,
            mariadb: MariadbCapabilities::default(),
            collation: 45,
            schema: None,
            status: AUTO.0,
            sole: false,
            same_user: false,
            trackers: "".into(),
        };
        let now = Instant::now();
        let dialect = state::initial_dialect(&facts(), 45, false);
        Self {
            session: Session::new(77, login, dialect, None, now),
            topology: Arc::new(cluster()),
            group: group(),
            now,
            settings_changed: None,
            caps,
            classes: ClassCache::new(64),
            refused: RefusedDigests::default(),
            spent: Vec::new(),
            client: Vec::new(),
            links: [Vec::new(), Vec::new()],
            requests: Vec::new(),
            client_tail: Vec::new(),
            link_tails: [Vec::new(), Vec::new()],
        }
    }

    fn run<T>(&mut self, run: impl FnOnce(&mut Session, &mut World<'_>, &mut Outbox) -> T) -> T {
        let mut out = Outbox::default();
        let mut world = World {
            now: self.now,
            topology: &self.topology,
            group: &self.group,
            loads: &|node| u32::from(node == NodeId(2)),
            seed: 0,
            classes: &mut self.classes,
            refused: &mut self.refused,
            spent: &mut self.spent,
            settings_changed: self.settings_changed,
            tables_locked: false,
        };
        let result = run(&mut self.session, &mut world, &mut out);
        self.client.append(&mut out.client);
        for (kept, new) in self.links.iter_mut().zip(&mut out.links) {
            kept.append(new);
        }
        for request in out.requests {
            if let Request::Drop(slot) = request {
                self.link_tails[index(slot)].clear();
            }
            self.requests.push(request);
        }
        result
    }

    /// Bytes of the client, handed over as the shell does it.
    pub(super) fn client(&mut self, bytes: &[u8]) {
        self.client_tail.extend_from_slice(bytes);
        self.drain_client();
    }

    fn drain_client(&mut self) {
        while !self.client_tail.is_empty() && self.session.interest().client {
            let tail = std::mem::take(&mut self.client_tail);
            let used = self.run(|session, world, out| session.on_client(world, &tail, out));
            assert!(used <= tail.len());
            self.client_tail = tail;
            self.client_tail.drain(..used);
            if used == 0 {
                break;
            }
        }
    }

    /// Bytes of a link, handed over as the shell does it.
    pub(super) fn server(&mut self, slot: Held, bytes: &[u8]) {
        let mut tail = std::mem::take(&mut self.link_tails[index(slot)]);
        tail.extend_from_slice(bytes);
        let used = self.run(|session, world, out| session.on_server(world, slot, &tail, out));
        assert!(used <= tail.len());
        tail.drain(..used);
        self.link_tails[index(slot)] = tail;
        self.drain_client();
    }

    pub(super) fn event(&mut self, event: Event) {
        self.run(|session, world, out| session.on_event(world, event, out));
        self.drain_client();
    }

    /// The link that was asked for is there; answers which server it goes to.
    pub(super) fn dialed(&mut self, slot: Held) -> u16 {
        let node = self.take_dial(slot);
        let capabilities = self.caps.with(Capabilities::SESSION_TRACK);
        self.event(Event::Dialed(
            slot,
            LinkFacts {
                node: NodeId(node),
                capabilities,
                mariadb: MariadbCapabilities::default(),
                thread_id: 1000 + u32::from(node),
                schema: self.session.schema().map(<[u8]>::to_vec),
                status: AUTO.0,
                names: None,
                witness: (self.group.commit_outcome == CommitOutcome::Known)
                    .then(|| Box::new(Witness::named(u128::from(node)))),
            },
        ));
        node
    }

    /// The link that was asked for cannot be had; answers which server it was for.
    pub(super) fn dial_failed(&mut self, slot: Held, refusal: Option<Vec<u8>>) -> u16 {
        let node = self.take_dial(slot);
        self.event(Event::DialFailed { slot, node: NodeId(node), refusal });
        node
    }

    pub(super) fn take_dial(&mut self, slot: Held) -> u16 {
        let at = self.requests.iter().rposition(
            |request| matches!(request, Request::Dial { slot: asked, .. } if *asked == slot),
        );
        let Some(at) = at else { panic!("no dial of {slot:?}: {self:?}") };
        let Request::Dial { node, .. } = self.requests.remove(at) else { unreachable!() };
        node.0
    }

    /// The link that the session has given up.
    pub(super) fn released(&mut self, slot: Held) -> Box<Kept> {
        let is_it = |r: &Request| matches!(r, Request::Release { slot: s, .. } if *s == slot);
        let at = self.requests.iter().position(is_it);
        let Some(at) = at else { panic!("no release of {slot:?}: {self:?}") };
        let Request::Release { link, .. } = self.requests.remove(at) else { unreachable!() };
        link
    }

    pub(super) fn has_released(&self, slot: Held) -> bool {
        let is_it = |r: &Request| matches!(r, Request::Release { slot: s, .. } if *s == slot);
        self.requests.iter().any(is_it)
    }

    /// A link out of the pool in answer to a dial.
    pub(super) fn attached(&mut self, slot: Held, link: Box<Kept>, own: bool) {
        self.take_dial(slot);
        self.event(Event::Attached { slot, link, own });
    }

    pub(super) fn wants_dial_of(&self, slot: Held) -> bool {
        let is_it =
            |request: &Request| matches!(request, Request::Dial { slot: s, .. } if *s == slot);
        self.requests.iter().any(is_it)
    }

    /// Whether it asks for a link that was not there before.
    pub(super) fn wants_fresh_dial(&self) -> bool {
        self.requests.iter().any(|request| matches!(request, Request::Dial { fresh: true, .. }))
    }

    pub(super) fn wants_dial(&self) -> bool {
        self.requests.iter().any(|request| matches!(request, Request::Dial { .. }))
    }

    /// What the client has been sent since the last look.
    pub(super) fn told(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.client)
    }

    /// The one error that the client has been sent since the last look.
    pub(super) fn told_error(&mut self) -> (u16, String, String) {
        let told = self.told();
        let packets = payloads(&told);
        let [(_, payload)] = packets.as_slice() else { panic!("not one packet: {told:?}") };
        let error = reply::Err::parse(payload).unwrap_or_else(|_| panic!("no error: {told:?}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (error.code, text(&error.state.unwrap_or_default()), text(error.message))
    }

    /// The commands that a link has been sent since the last look.
    pub(super) fn sent(&mut self, slot: Held) -> Vec<Vec<u8>> {
        let bytes = std::mem::take(&mut self.links[index(slot)]);
        payloads(&bytes).into_iter().map(|(_, payload)| payload).collect()
    }

    /// The raw bytes that a link has been sent since the last look.
    pub(super) fn sent_raw(&mut self, slot: Held) -> Vec<u8> {
        std::mem::take(&mut self.links[index(slot)])
    }

    /// The text of the one query that a link has been sent since the last look.
    pub(super) fn sent_sql(&mut self, slot: Held) -> String {
        let sent = self.sent(slot);
        let [command] = sent.as_slice() else { panic!("not one command on {slot:?}: {sent:?}") };
        assert_eq!(command.first(), Some(&0x03), "no query: {command:?}");
        String::from_utf8_lossy(&command[1..]).into_owned()
    }

    /// A query of the client's on a link that is there and needs nothing, answered by `answer`.
    pub(super) fn ask(&mut self, slot: Held, sql: &str, answer: &[u8]) -> Vec<u8> {
        self.client(&query(sql));
        if self.wants_dial() {
            self.dialed(slot);
        }
        assert_eq!(self.sent_sql(slot), sql, "{self:?}");
        self.server(slot, answer);
        self.told()
    }

    /// Opens the session's primary link by a write.
    pub(super) fn write(&mut self) {
        let told = self.ask(Primary, "INSERT INTO t VALUES (1)", &ok(1, AUTO));
        assert_eq!(told, ok(1, AUTO));
    }

    pub(super) fn count_retries(&self, retry: Retry) -> usize {
        let is_it = |request: &&Request| matches!(request, Request::Retried(r) if *r == retry);
        self.requests.iter().filter(is_it).count()
    }

    pub(super) fn signalled(&self, trouble: Trouble) -> bool {
        self.requests
            .iter()
            .any(|request| matches!(request, Request::Signal(_, t) if *t == trouble))
    }

    pub(super) fn dropped(&self, slot: Held) -> bool {
        self.requests.iter().any(|request| matches!(request, Request::Drop(s) if *s == slot))
    }

    pub(super) fn closed(&self) -> bool {
        self.requests.iter().any(|request| matches!(request, Request::Close))
    }

    pub(super) fn finished(&self) -> Vec<&Finished> {
        let finished = self.requests.iter().filter_map(|request| match request {
            Request::Finished(finished) => Some(finished),
            _ => None,
        });
        finished.collect()
    }

    /// Publishes a new generation.
    pub(super) fn topology(&mut self, change: impl FnOnce(&mut Topology)) {
        let mut topology = Topology::clone(&self.topology);
        change(&mut topology);
        topology.generation += 1;
        self.topology = Arc::new(topology);
        self.event(Event::TopologyMoved);
    }

    pub(super) fn no_primary(&mut self) {
        self.topology(|topology| {
            topology.primary = None;
            topology.no_primary_why = "db0 is down".to_owned();
        });
    }

    /// Lets time pass up to the session's deadline, if it has one, and tells it.
    pub(super) fn deadline(&mut self) -> bool {
        let Some(deadline) = self.session.deadline() else { return false };
        self.now = self.now.max(deadline);
        self.event(Event::Deadline);
        true
    }
}

impl std::fmt::Debug for Rig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        write!(
            f,
            "phase {}, pins {}, client {}, primary {}, replica {}, requests {:?}",
            self.session.phase_word(),
            self.session.pins().words(),
            text(&self.client),
            text(&self.links[0]),
            text(&self.links[1]),
            self.requests,
        )
    }
}

/// The packets in `bytes`, which must be framed to the last byte.
pub(super) fn payloads(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = bytes;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (len, seq) = packet::header(rest).expect("a whole header");
        let payload = rest.get(4..4 + len).unwrap_or_else(|| panic!("cut off: {rest:?}"));
        found.push((seq, payload.to_vec()));
        rest = &rest[4 + len..];
    }
    found
}

// --- bytes of the client ---

pub(super) fn command(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    packet::write(&mut out, 0, payload);
    out
}

pub(super) fn query(sql: &str) -> Vec<u8> {
    command(&[b"\x03", sql.as_bytes()].concat())
}

pub(super) fn prepare(sql: &str) -> Vec<u8> {
    command(&[b"\x16", sql.as_bytes()].concat())
}

/// COM_STMT_EXECUTE of a statement without parameters; `flags` may ask for a cursor.
pub(super) fn execute(id: u32, flags: u8) -> Vec<u8> {
    command(&[b"\x17", &id.to_le_bytes()[..], &[flags, 1, 0, 0, 0]].concat())
}

/// A command of four bytes behind its first: close, reset.
pub(super) fn about(byte: u8, id: u32) -> Vec<u8> {
    command(&[&[byte], &id.to_le_bytes()[..]].concat())
}

// --- bytes of a server ---

pub(super) fn ok(seq: u8, status: Status) -> Vec<u8> {
    ok_with(seq, status, &[])
}

/// An OK with tracked changes, as on a link of ours.
pub(super) fn ok_with(seq: u8, status: Status, changes: &[session_track::Change<'_>]) -> Vec<u8> {
    let mut tracks = Vec::new();
    for change in changes {
        session_track::push(&mut tracks, change);
    }
    let status = if changes.is_empty() { status } else { status | Status::SESSION_STATE_CHANGED };
    let ok = reply::Ok { status, tracks: &tracks, ..reply::Ok::default() };
    let mut out = Vec::new();
    ok.encode(&mut out, seq, 0x00, CAPS);
    out
}

pub(super) fn variable<'a>(name: &'a str, value: &'a str) -> session_track::Change<'a> {
    session_track::Change::Variable { name: name.as_bytes(), value: value.as_bytes() }
}

pub(super) fn err(seq: u8, code: u16, message: &str) -> Vec<u8> {
    let state = if code == 1053 { *b"08S01" } else { *b"HY000" };
    let error = reply::Err { code, state: Some(state), message: message.as_bytes() };
    let mut out = Vec::new();
    error.encode(&mut out, seq, CAPS);
    out
}

pub(super) fn err_payload(code: u16, message: &str) -> Vec<u8> {
    err(1, code, message).split_off(4)
}

/// One column, one text row; ends as a client with `caps` expects it.
pub(super) fn row_with(value: &str, status: Status, caps: Capabilities) -> Vec<u8> {
    let mut out = Vec::new();
    let seq = packet::write(&mut out, 1, &[1]);
    let mut seq =
        packet::write(&mut out, seq, b"\x03def\0\0\0\x01a\0\x0c\x3f\0\x14\0\0\0\x08\0\0\0\0\0");
    if !caps.has(Capabilities::DEPRECATE_EOF) {
        seq = reply::Eof { warnings: 0, status }.encode(&mut out, seq, caps);
    }
    seq = writer::packet(&mut out, seq, |out| writer::lenenc_str(out, value.as_bytes()));
    if caps.has(Capabilities::DEPRECATE_EOF) {
        reply::Ok { status, ..reply::Ok::default() }.encode(&mut out, seq, 0xFE, caps);
    } else {
        reply::Eof { warnings: 0, status }.encode(&mut out, seq, caps);
    }
    out
}

pub(super) fn row(value: &str, status: Status) -> Vec<u8> {
    row_with(value, status, CAPS)
}

/// The answer to COM_STMT_PREPARE with `params` parameters and `columns` columns.
pub(super) fn prepared(id: u32, columns: u16, params: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let mut payload = vec![0];
    payload.extend_from_slice(&id.to_le_bytes());
    payload.extend_from_slice(&columns.to_le_bytes());
    payload.extend_from_slice(&params.to_le_bytes());
    payload.extend_from_slice(&[0, 0, 0]);
    let mut seq = packet::write(&mut out, 1, &payload);
    for count in [params, columns] {
        for _ in 0..count {
            seq = packet::write(
                &mut out,
                seq,
                b"\x03def\0\0\0\x01?\0\x0c\x3f\0\0\0\0\0\xfd\x80\0\0\0\0",
            );
        }
        if count > 0 {
            seq = reply::Eof { warnings: 0, status: AUTO }.encode(&mut out, seq, CAPS);
        }
    }
    out
}

// --- the world ---

pub(super) fn facts() -> ServerFacts {
    ServerFacts {
        flavour: Flavour::MariaDb,
        version: 101_119,
        version_text: Arc::from("10.11.19-MariaDB"),
        capabilities: CAPS.0,
        mariadb_capabilities: 0,
        collation: 45,
        status: 2,
        auth_plugin: Arc::from("mysql_native_password"),
        server_id: 1,
        server_uuid: Arc::from(""),
        max_allowed_packet: 1 << 24,
        wait_timeout: 28_800,
        interactive_timeout: 28_800,
        storage_engine: "InnoDB".into(),
        query_cache: false,
        session_defaults: "".into(),
        trackers: "".into(),
        sql_mode: Arc::from(""),
        max_connections: 151,
        require_secure_transport: false,
        init_connect: false,
        transport: Transport::Clear,
        sees_us_as: Arc::from("localhost"),
    }
}

fn node(id: u16) -> Node {
    Node {
        role: if id == 0 { Role::Primary } else { Role::Replica },
        weight: 1,
        lag: Some(Duration::ZERO),
        read_only: id != 0,
        facts: Some(Arc::new(facts())),
        ..fixture::node(id, &format!("db{id}"))
    }
}

/// A primary and two replicas.
fn cluster() -> Topology {
    let mut topology = Topology::empty("main");
    topology.generation = 1;
    topology.nodes = (0..3).map(node).collect();
    topology.primary = Some(NodeId(0));
    topology
}

/// A group as the minimal configuration file describes it: all defaults.
fn group() -> Group {
    let file = raw::parse(include_str!("../../../config/minimal.toml")).expect("it is TOML");
    let no_files = |path: &std::path::Path| Err(format!("no {}", path.display()));
    let config = resolve::resolve(&file, 2, &no_files);
    let Ok(config) = config else { panic!("the minimal file resolves") };
    Group::clone(config.groups.first().expect("one group"))
}
