//! What a client's connection is, and whether that is enough: TLS on request, and what settings
//! and accounts demand.

use crate::accounts::{AccountFacts, Requirement, Shown};
use crate::compression::Method;
use crate::compression::frames::Frames;
use crate::compression::numbers::Role;
use crate::config::tls::TlsMode;
use crate::metrics::ClientError;
use crate::net::drive::{Drive, Gone};
use crate::protocol::flags::Capabilities;
use crate::tls::certificate;
use crate::tls::offer::Fingerprint;
use crate::tls::trust::Demand;
use crate::topology::{Flavour, ServerFacts};

/// On what terms an account lets in.
#[derive(Debug, Default)]
pub(super) struct Terms {
    /// The primary has the last word: a link is opened before the client is told that it is in.
    pub(super) judged: bool,
    /// The server lets nobody in by its plugin now, and says so to whoever answers it.
    pub(super) barred: bool,
    /// It lets in by the operating system's user too.
    pub(super) socket: bool,
    /// What it demands of the connection.
    pub(super) requires: Requirement,
    /// What its plugin keeps of the password, where a client can prove our certificate by it.
    pub(super) verifier: Option<Vec<u8>>,
}

impl Terms {
    pub(super) fn of(account: Option<AccountFacts>) -> Self {
        let Some(facts) = account else { return Self::default() };
        let verifier = facts.verifier();
        let AccountFacts { judged, barred, socket, requires, .. } = facts;
        // What it demands of connections is held against our own by the primary.
        let judged = judged || requires != Requirement::Nothing;
        Self { judged, barred, socket, requires, verifier }
    }

    pub(super) fn demand(&self) -> Demand {
        match self.requires {
            Requirement::Nothing => Demand::Nothing,
            Requirement::Tls | Requirement::Certificate | Requirement::Specified { .. } => {
                Demand::Tls
            }
        }
    }
}

/// Whether the client's connection is what its account demands.
pub(super) fn is_met(drive: &Drive, terms: &Terms) -> bool {
    terms.requires.is_met(&shown(drive))
}

/// What the client's connection has to show.
fn shown(drive: &Drive) -> Shown {
    let Some(tls) = drive.client.tls() else { return Shown::default() };
    let certificate = tls.peer_certificates().and_then(<[_]>::first);
    Shown {
        cipher: tls.cipher_suite().map(certificate::cipher_name),
        certificate: certificate.and_then(|own| certificate::names(own)),
    }
}

/// The client has asked for TLS. What it has sent behind that is its first record or nothing:
/// a command stuffed in there is no record, and ends the connection. The certificate that it was
/// shown is told.
pub(super) async fn begin_tls(drive: &mut Drive) -> Result<Fingerprint, Gone> {
    let Some(offer) = drive.seat.group().tls.load_full() else { return Err(Gone) };
    let early = std::mem::take(&mut drive.client_tail);
    // Boxed: its state is large, and most clients never need it.
    let handshake = Box::pin(drive.client.accept_tls(offer.config.clone(), early));
    match handshake.await {
        Ok(()) => Ok(offer.fingerprint),
        Err(error) => {
            drive.worker.client_error(drive.seat.group(), ClientError::Tls);
            tracing::debug!(session = drive.seat.id, %error, "a client's TLS was refused");
            Err(Gone)
        }
    }
}

/// The login is over: from here on both sides compress, if that was agreed on.
pub(super) fn begin_compression(drive: &mut Drive) -> Result<(), Gone> {
    let method = {
        let identity = drive.seat.identity.borrow();
        let Some(hello) = identity.as_ref().map(|identity| &identity.hello) else { return Ok(()) };
        if hello.capabilities.has(Capabilities::COMPRESS) {
            Method::Zlib
        } else if hello.capabilities.has(Capabilities::ZSTD_COMPRESSION) {
            Method::Zstd(hello.zstd_level)
        } else {
            return Ok(());
        }
    };
    let codec = drive.seat.served.codec.clone();
    let mut frames = Frames::new(method, Role::Server, codec);
    let early = std::mem::take(&mut drive.client_tail);
    frames.unpack(&early, &mut drive.client_tail).map_err(|_| Gone)?;
    drive.client.compress(frames);
    Ok(())
}

/// Whether this user may go on over this connection; checked before a credential is looked at.
pub(super) fn is_transport_enough(drive: &Drive, user: &[u8], facts: &ServerFacts) -> bool {
    // MySQL judges the password first (9.7, measured; MariaDB 10.11 does not).
    let at_once = facts.flavour == Flavour::MariaDb && is_refused_in_clear(drive, facts);
    let required = drive.seat.group().settings.load().tls.is_required_of(user);
    drive.client.is_private() || !(required || at_once)
}

/// Whether the primary would refuse a client that comes like this one, whoever it is. Who offers
/// no TLS means that demand for our links only.
pub(super) fn is_refused_in_clear(drive: &Drive, facts: &ServerFacts) -> bool {
    let offered = drive.seat.group().settings.load().tls.mode != TlsMode::Off;
    facts.require_secure_transport && offered && !drive.client.is_private()
}
