//! A link of a session: the socket, what was read of it and not yet used, and how it is opened.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Group;
use crate::net::seat::{Identity, Seat};
use crate::protocol::auth::Credential;
use crate::protocol::flags::Capabilities;
use crate::protocol::login::{LoginRequest, RsaPolicy};
use crate::protocol::reply;
use crate::router::policy::Held;
use crate::session;
use crate::session::action::LinkFacts;
use crate::topology::{NodeId, ServerFacts, Topology};
use crate::upstream::dial::{self, DialError, Dialed, Target};
use crate::upstream::stream::Stream;

/// A link as the shell holds it.
#[derive(Debug)]
pub(super) struct LinkSocket {
    pub(super) stream: Stream,
    /// Bytes that the session has not used yet.
    pub(super) tail: Vec<u8>,
    pub(super) node: NodeId,
}

/// Flags that decide what bytes mean; a link that lacks one of the client's is useless.
const FRAMING: Capabilities = Capabilities(
    Capabilities::DEPRECATE_EOF.0 | Capabilities::QUERY_ATTRIBUTES.0 | Capabilities::PROTOCOL_41.0,
);

/// Flags that are never passed on: each side has its own transport.
const OWN_TRANSPORT: Capabilities = Capabilities(
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
    node: NodeId,
    slot: Held,
    schema: Option<&[u8]>,
) -> Result<(LinkSocket, LinkFacts, Vec<u8>), DialError> {
    let (target, request) = prepare(seat, identity, topology, settings, node, schema, |facts| {
        session::setup_statement(facts, slot)
    })?;
    let dialed = dial::dial(&seat.reactor, target, request).await?;
    fits(identity, &dialed)?;
    Ok(split(dialed, node, schema))
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
    node: NodeId,
    ask: impl AsyncFnMut(Vec<u8>) -> Result<Vec<u8>, DialError>,
) -> Result<(LinkSocket, LinkFacts, bool), DialError> {
    let schema = identity.hello.database.as_deref();
    let (mut target, request) =
        prepare(seat, identity, topology, settings, node, schema, |facts| {
            session::setup_statement(facts, Held::Primary)
        })?;
    target.sandbox_will_do = true;
    if matches!(identity.credential, Credential::Relayed { .. }) {
        // The client has its part in it.
        target.timeout = settings.handshake_timeout;
        if target.address.starts_with('/') {
            return Err(DialError::Malformed("a login is not relayed over a unix socket"));
        }
    }
    let dialed = dial::dial_asking(&seat.reactor, target, request, ask).await?;
    fits(identity, &dialed)?;
    let sandboxed = dialed.sandboxed;
    let (socket, facts, _) = split(dialed, node, schema);
    Ok((socket, facts, sandboxed))
}

fn fits(identity: &Identity, dialed: &Dialed) -> Result<(), DialError> {
    if identity.hello.capabilities.and(FRAMING).0 & !dialed.capabilities.0 != 0 {
        return Err(DialError::Malformed("it lacks capabilities that the primary offers"));
    }
    Ok(())
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

fn split(dialed: Dialed, node: NodeId, schema: Option<&[u8]>) -> (LinkSocket, LinkFacts, Vec<u8>) {
    let Dialed { stream, capabilities, mariadb, thread_id, ok, sandboxed: _ } = dialed;
    let status = reply::Ok::parse(&ok, capabilities).map_or(2, |ok| ok.status.0);
    let facts = LinkFacts {
        node,
        capabilities,
        mariadb,
        thread_id,
        schema: schema.map(<[u8]>::to_vec),
        status,
    };
    (LinkSocket { stream, tail: Vec::new(), node }, facts, ok)
}

/// A PROXY header names two addresses of one family.
fn same_family(peer: SocketAddr, local: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    (plain(peer), plain(local))
}
