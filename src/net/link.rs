//! A link of a session: the socket, what was read of it and not yet used, and how it is opened.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use aws_lc_rs::rand;

use crate::compression::{Codec, Method};
use crate::config::outcome::CommitOutcome;
use crate::config::{Group, ServerCompression};
use crate::metrics::WorkerMetrics;
use crate::net::life;
use crate::net::seat::{Identity, Seat};
use crate::net::worker::Served;
use crate::protocol::auth::Credential;
use crate::protocol::flags::Capabilities;
use crate::protocol::login::{LoginRequest, RsaPolicy, ZSTD_LEVEL};
use crate::protocol::session_track::Change;
use crate::protocol::{command, reply, session_track};
use crate::router::policy::Held;
use crate::session::action::LinkFacts;
use crate::session::{self, Witness};
use crate::topology::{Flavour, NodeId, ServerFacts, Topology};
use crate::upstream::budget::Place;
use crate::upstream::dial::{self, DialError, Dialed, Target};
use crate::upstream::load::NODES;
use crate::upstream::stream::Stream;

/// A link as the shell holds it.
#[derive(Debug)]
pub(super) struct LinkSocket {
    pub(super) stream: Stream,
    /// Bytes that the session has not used yet.
    pub(super) tail: Vec<u8>,
    pub(super) node: NodeId,
    /// When it logged in.
    pub(super) since: Instant,
    /// The count of changes of accounts then.
    pub(super) accounts_at: u32,
    pub(super) opened: Opened,
    /// Counted as parked, while it is.
    pub(super) parked: Option<ParkedCount>,
    _place: Place,
}

/// Counts a link as long as it is in the pool.
#[derive(Debug)]
pub(super) struct ParkedCount {
    metrics: Arc<WorkerMetrics>,
    node: NodeId,
}

/// Counts a link as long as it is open.
#[derive(Debug)]
pub(super) struct Opened {
    metrics: Arc<WorkerMetrics>,
    open: Rc<[Cell<u32>; NODES]>,
    node: NodeId,
}

/// Flags that decide what bytes mean; a link that lacks one of the client's is useless.
const FRAMING: Capabilities = Capabilities(
    Capabilities::DEPRECATE_EOF.0 | Capabilities::QUERY_ATTRIBUTES.0 | Capabilities::PROTOCOL_41.0,
);

/// Flags that are never passed on: each side has its own transport.
pub(super) const OWN_TRANSPORT: Capabilities = Capabilities(
    Capabilities::SSL.0
        | Capabilities::COMPRESS.0
        | Capabilities::ZSTD_COMPRESSION.0
        | Capabilities::CONNECT_WITH_DB.0
        | Capabilities::OPTIONAL_RESULTSET_METADATA.0
        | Capabilities::MULTI_FACTOR_AUTHENTICATION.0,
);

/// Opens a link for a client, logged in as that client, trackers on.
///
/// # Errors
/// As [`dial::dial`]; also when the server lacks what the client was promised.
pub(super) async fn open(
    seat: &Seat,
    identity: &Identity,
    topology: &Arc<Topology>,
    settings: &Group,
    opening: Opening<'_>,
) -> Result<(LinkSocket, LinkFacts, Vec<u8>), DialError> {
    let accounts_at = opening.accounts_at();
    let (target, request) = opening.prepare(seat, identity, topology, settings)?;
    let dialed = dial::dial(&seat.reactor, target, request).await?;
    opening.accept(seat, identity, settings, &dialed).await?;
    let (stream, facts, ok) = split(dialed, (opening.node, opening.schema), settings);
    Ok((opening.done(stream, accounts_at), facts, ok))
}

/// Opens the first link of a client on the primary during its login, which only the primary can
/// judge; a password that has expired will do. The client answers through `ask` where
/// pointsman cannot. Says whether the password has expired.
///
/// # Errors
/// As [`open`], and what `ask` answers instead of an answer.
pub(super) async fn open_first(
    seat: &Seat,
    identity: &Identity,
    topology: &Arc<Topology>,
    settings: &Group,
    opening: Opening<'_>,
    ask: impl AsyncFnMut(Vec<u8>) -> Result<Vec<u8>, DialError>,
) -> Result<(LinkSocket, LinkFacts, bool), DialError> {
    let accounts_at = opening.accounts_at();
    let (mut target, request) = opening.prepare(seat, identity, topology, settings)?;
    target.sandbox_will_do = true;
    if matches!(identity.credential, Credential::Relayed { .. }) {
        // The client has its part in it.
        target.timeout = settings.handshake_timeout;
        if target.address.starts_with('/') {
            return Err(DialError::Malformed("a login is not relayed over a unix socket"));
        }
    }
    let dialed = dial::dial_asking(&seat.reactor, target, request, ask).await?;
    opening.accept(seat, identity, settings, &dialed).await?;
    let sandboxed = dialed.sandboxed;
    let (stream, facts, _) = split(dialed, (opening.node, opening.schema), settings);
    Ok((opening.done(stream, accounts_at), facts, sandboxed))
}

/// Which link is opened, and what it needs on the worker's side.
pub(super) struct Opening<'a> {
    pub(super) node: NodeId,
    pub(super) slot: Held,
    pub(super) schema: Option<&'a [u8]>,
    pub(super) served: &'a Served,
    pub(super) place: Place,
    pub(super) now: Instant,
}

impl LinkSocket {
    /// Sends what has no answer; a link that cannot take it whole must be closed.
    pub(super) fn takes_at_once(&mut self, bytes: &[u8]) -> bool {
        bytes.is_empty() || self.stream.try_write(bytes).is_ok_and(|sent| sent == bytes.len())
    }
}

impl Opening<'_> {
    /// Where to dial, and as whom.
    fn prepare<'t>(
        &self,
        seat: &Seat,
        identity: &Identity,
        topology: &'t Topology,
        settings: &Group,
    ) -> Result<(Target<'t>, LoginRequest), DialError> {
        let (node, schema) = (self.node, self.schema);
        let setup = |facts: &ServerFacts| self.setup(facts);
        let (mut target, request) =
            prepare(seat, identity, topology, settings, node, schema, setup)?;
        target.compression = self.compression(settings);
        target.asks_start = life::matters(self.slot, settings);
        Ok((target, request))
    }

    /// Whether the server at the other end is what the client was promised, and whom health knows.
    async fn accept(
        &self,
        seat: &Seat,
        identity: &Identity,
        settings: &Group,
        dialed: &Dialed,
    ) -> Result<(), DialError> {
        if identity.hello.capabilities.and(FRAMING).0 & !dialed.capabilities.0 != 0 {
            return Err(DialError::Malformed("it lacks capabilities that the primary offers"));
        }
        life::is_known(seat, self.node, dialed.started, settings.connect_timeout).await
    }

    /// The link, once it has logged in; `accounts_at` is the count from before.
    fn done(self, stream: Stream, accounts_at: u32) -> LinkSocket {
        LinkSocket {
            stream,
            tail: Vec::new(),
            node: self.node,
            since: self.now,
            accounts_at,
            opened: Opened::new(self.served, self.node),
            parked: None,
            _place: self.place,
        }
    }

    fn accounts_at(&self) -> u32 {
        self.served.group.accounts_at.load(Ordering::Relaxed)
    }

    /// How the link is compressed, if it is to be.
    fn compression(&self, settings: &Group) -> Option<(Method, Rc<RefCell<Codec>>)> {
        let method = match settings.server_compression {
            ServerCompression::Off => return None,
            ServerCompression::Zlib => Method::Zlib,
            ServerCompression::Zstd => Method::Zstd(ZSTD_LEVEL),
        };
        Some((method, self.served.codec.clone()))
    }

    /// What a fresh link is told.
    fn setup(&self, facts: &ServerFacts) -> Vec<u8> {
        let mut sql = session::setup_statement(facts, self.slot);
        if facts.flavour == Flavour::MySql {
            // So that the trackers tell it: a reset returns to the server's own (measured).
            sql.extend_from_slice(b", collation_connection=@@collation_connection");
        }
        sql
    }
}

impl Drop for LinkSocket {
    /// A server counts and logs a connection that ends without a word (Aborted_clients). In the
    /// pool a link is at rest; elsewhere it may be in the middle of a command.
    fn drop(&mut self) {
        if self.parked.is_some() {
            let _ = self.stream.try_write(&command::QUIT);
        }
    }
}

impl ParkedCount {
    pub(super) fn new(served: &Served, node: NodeId) -> Self {
        served.metrics.link_parked(node);
        Self { metrics: served.metrics.clone(), node }
    }
}

impl Drop for ParkedCount {
    fn drop(&mut self) {
        self.metrics.link_unparked(self.node);
    }
}

impl Opened {
    fn new(served: &Served, node: NodeId) -> Self {
        let opened = Self { metrics: served.metrics.clone(), open: served.open.clone(), node };
        opened.metrics.link_opened(node);
        opened.change(|count| count + 1);
        opened
    }

    /// How many links to this server the worker has.
    pub(super) fn count(&self) -> u32 {
        self.open.get(usize::from(self.node.0)).map_or(0, Cell::get)
    }

    fn change(&self, change: impl FnOnce(u32) -> u32) {
        if let Some(count) = self.open.get(usize::from(self.node.0)) {
            count.set(change(count.get()));
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.metrics.link_closed(self.node);
        self.change(|count| count.saturating_sub(1));
    }
}

/// Where to dial, and as whom.
fn prepare<'a>(
    seat: &Seat,
    identity: &Identity,
    topology: &'a Topology,
    settings: &Group,
    node: NodeId,
    schema: Option<&[u8]>,
    setup: impl FnOnce(&ServerFacts) -> Vec<u8>,
) -> Result<(Target<'a>, LoginRequest), DialError> {
    let Some(server) = topology.node(node) else {
        return Err(DialError::Malformed("the server is not known any more"));
    };
    let facts = server.facts.as_ref().or_else(|| topology.facts());
    let Some(facts) = facts else {
        return Err(DialError::Malformed("the server has never answered a probe"));
    };
    let proxied = match (settings.proxy_protocol_to_servers, seat.peer.get(), seat.local) {
        (true, Some(peer), Some(local)) => Some(same_family(peer, local)),
        _ => None,
    };
    let target = Target {
        address: &server.address,
        timeout: settings.connect_timeout,
        proxied,
        trust: seat.group().trust.load_full(),
        demand: identity.demand,
        compression: None,
        asks_start: false,
        setup: Some(setup(facts)),
        sandbox_will_do: false,
    };
    let mut wanted = identity.hello.capabilities.without(OWN_TRANSPORT);
    wanted = wanted
        .with(Capabilities::SESSION_TRACK)
        .with(Capabilities::PROTOCOL_41)
        .with(Capabilities::PLUGIN_AUTH)
        .with(Capabilities::SECURE_CONNECTION);
    if schema.is_some() {
        wanted = wanted.with(Capabilities::CONNECT_WITH_DB);
    }
    let request = LoginRequest {
        user: identity.hello.user.clone(),
        credential: identity.credential.clone(),
        database: schema.map(<[u8]>::to_vec),
        collation: identity.hello.collation,
        capabilities: wanted,
        mariadb: identity.hello.mariadb,
        max_packet: identity.hello.max_packet,
        attributes: identity.hello.attributes.clone(),
        rsa: RsaPolicy::Never,
        secure: false,
    };
    Ok((target, request))
}

/// Runs one statement that answers OK on a connection of its own, as a client.
///
/// # Errors
/// As [`open`]; the server's refusal of the statement counts as its refusal.
pub(super) async fn run_once(
    seat: &Seat,
    identity: &Identity,
    topology: &Arc<Topology>,
    settings: &Group,
    node: NodeId,
    sql: Vec<u8>,
) -> Result<(), DialError> {
    let (target, request) = prepare(seat, identity, topology, settings, node, None, |_| sql)?;
    dial::dial(&seat.reactor, target, request).await.map(|_| ())
}

fn split(
    dialed: Dialed,
    (node, schema): (NodeId, Option<&[u8]>),
    settings: &Group,
) -> (Stream, LinkFacts, Vec<u8>) {
    let Dialed { stream, capabilities, mariadb, thread_id, ok, set_up, .. } = dialed;
    let status = reply::Ok::parse(&ok, capabilities).map_or(2, |ok| ok.status.0);
    let facts = LinkFacts {
        node,
        capabilities,
        mariadb,
        thread_id,
        schema: schema.map(<[u8]>::to_vec),
        status,
        names: names(&set_up, capabilities),
        witness: witness(settings),
    };
    (stream, facts, ok)
}

/// What bears witness to the commits on a link that was just opened, where that is wanted.
fn witness(settings: &Group) -> Option<Box<Witness>> {
    let mut name = [0; 16];
    let known = settings.commit_outcome == CommitOutcome::Known && rand::fill(&mut name).is_ok();
    known.then(|| Box::new(Witness::named(u128::from_be_bytes(name))))
}

/// The character sets of the login, as SET NAMES has them, where the set-up's OK tells its
/// collation.
fn names(set_up: &[u8], capabilities: Capabilities) -> Option<Vec<u8>> {
    let ok = reply::Ok::parse(set_up, capabilities).ok()?;
    let collation =
        session_track::changes(ok.tracks).flatten().find_map(|change| match change {
            Change::Variable { name: b"collation_connection", value } => Some(value.to_vec()),
            _ => None,
        })?;
    // A collation bears the name of its character set.
    let charset = collation.split(|byte| *byte == b'_').next()?;
    Some([charset, b" COLLATE ", &collation].concat())
}

/// A PROXY header names two addresses of one family.
fn same_family(peer: SocketAddr, local: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    (plain(peer), plain(local))
}
