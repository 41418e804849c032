//! The login of a client: the server role of the protocol, driven over its socket; accounts
//! from the account book, a check by the primary where only that can tell.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use crate::accounts::{AccountFacts, Lookup};
use crate::metrics::ClientError;
use crate::net::drive::{Drive, Gone};
use crate::net::first_link::{First, open_on_primary};
use crate::net::link::LinkSocket;
use crate::net::seat::Identity;
use crate::net::transport::{
    Terms, begin_compression, begin_tls, is_met, is_refused_in_clear, is_transport_enough,
};
use crate::net::verdict::{check, hear_refusal, let_in};
use crate::protocol::auth::{self, Credential};
use crate::protocol::errno::SqlError;
use crate::protocol::flags::{Capabilities, MariadbCapabilities, Status};
use crate::protocol::greet::{Account, Greet, Hello, Offer, Step};
use crate::protocol::handshake::LOGIN_PACKET_MAX;
use crate::protocol::old_password::OldHash;
use crate::protocol::{packet, reply, session_track};
use crate::router::policy::Held;
use crate::session::action::{LinkFacts, Login};
use crate::session::{Session, state};
use crate::tls::trust::Demand;
use crate::topology::{Condition, Flavour, ServerFacts, Topology};
use crate::upstream::dial::DialError;

/// What the backends offer and we pass on: everything but each side's own transport, and what
/// the session does not carry yet. zstd is ours wherever the backends know it.
const OFFERED: Capabilities = Capabilities(
    !(Capabilities::SSL.0
        | Capabilities::COMPRESS.0
        | Capabilities::OPTIONAL_RESULTSET_METADATA.0
        | Capabilities::MULTI_FACTOR_AUTHENTICATION.0),
);

/// MariaDB's further capabilities that we pass on.
const OFFERED_MARIADB: MariadbCapabilities = MariadbCapabilities(
    MariadbCapabilities::PROGRESS.0
        | MariadbCapabilities::STMT_BULK_OPERATIONS.0
        | MariadbCapabilities::EXTENDED_METADATA.0
        | MariadbCapabilities::BULK_UNIT_RESULTS.0,
);

/// A login that succeeded.
pub(super) struct Entered {
    pub(super) login: Login,
    pub(super) link: Option<(LinkSocket, LinkFacts)>,
}

/// Why a login did not succeed.
#[derive(Debug)]
pub(super) enum Barred {
    /// The client is gone, or must go.
    Gone,
    /// It was refused, and knows.
    Refused,
}

impl From<Gone> for Barred {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

/// MariaDB takes the next command only this long after a change of user has failed, so that
/// guessing passwords takes time.
const FAILED_CHANGE_DELAY: Duration = Duration::from_secs(1);

/// Between two looks at the topology of a login that waits.
const GLANCE: Duration = Duration::from_millis(5);

/// Lets a client in: header, greeting, dialogue, OK. `None` when it did not get in; it has been
/// told, and counted.
pub(super) async fn enter(mut drive: Drive, proxied: bool) -> Option<Drive> {
    let settings = drive.seat.group().settings.load_full();
    let seat = drive.seat.clone();
    let entered = {
        let login = pin!(greet(&mut drive, proxied));
        seat.waited.in_time(settings.handshake_timeout, login).await
    };
    let entered = match entered {
        Some(Ok(entered)) => entered,
        Some(Err(Barred::Gone | Barred::Refused)) => return None,
        None => {
            drive.worker.client_error(drive.seat.group(), ClientError::HandshakeTimeout);
            return None;
        }
    };
    let facts = drive.seat.group().topology.load().facts().cloned()?;
    let login = entered.login;
    let ignore_space = login.capabilities.has(Capabilities::IGNORE_SPACE);
    let dialect = state::initial_dialect(&facts, login.collation, ignore_space);
    let link_facts = entered.link.as_ref().map(|(_, facts)| facts.clone());
    if let Some((socket, _)) = entered.link {
        drive.links[0] = Some(socket);
        drive.worker.holds(&drive.seat);
    }
    begin_compression(&mut drive).ok()?;
    let session = Session::new(drive.seat.id, login, dialect, link_facts, drive.worker.now());
    *drive.seat.session.borrow_mut() = Some(session);
    Some(drive)
}

async fn greet(drive: &mut Drive, proxied: bool) -> Result<Entered, Barred> {
    if proxied {
        super::listen::read_proxy_header(drive).await?;
    }
    let Some(facts) = known_facts(drive).await else {
        let error = SqlError::new(
            1105,
            b"HY000",
            "pointsman: no server of this group has answered yet; see its log for why",
        );
        return refuse(drive, &error, 0, Capabilities::default()).await;
    };
    let (Ok(nonce), Some(offer)) = (auth::nonce(), offer(drive, &facts)) else {
        return Err(Barred::Gone);
    };
    let (machine, first) = Greet::new(offer, nonce);
    send(drive, &first).await?;
    dialogue(drive, machine, &facts).await
}

/// COM_CHANGE_USER: the dialogue again, with a new challenge, on the connection that is there.
/// `None` when it failed and the session goes on as it was, as it does on MariaDB.
pub(super) async fn change_user(
    drive: &mut Drive,
    payload: &[u8],
) -> Result<Option<Entered>, Gone> {
    let Some(facts) = drive.seat.group().topology.load().facts().cloned() else { return Err(Gone) };
    let Some(offer) = offer(drive, &facts) else { return Err(Gone) };
    let before = drive.seat.identity.borrow().clone();
    let (Some(before), Ok(nonce)) = (before, auth::nonce()) else { return Err(Gone) };
    let raw = payload.get(1..).unwrap_or_default();
    let machine = match Greet::change_user(offer, &before.hello, raw, nonce) {
        Ok(machine) => machine,
        Err(error) => {
            send(drive, &error.packet(1, before.hello.capabilities)).await?;
            return Err(Gone);
        }
    };
    let step = Step::NeedAccount;
    let settings = drive.seat.group().settings.load_full();
    let seat = drive.seat.clone();
    let dialogue = pin!(steps(drive, machine, step, &facts));
    match seat.waited.in_time(settings.handshake_timeout, dialogue).await {
        Some(Ok(entered)) => Ok(Some(entered)),
        Some(Err(Barred::Refused)) if facts.flavour == Flavour::MariaDb => {
            tokio::time::sleep(FAILED_CHANGE_DELAY).await;
            Ok(None)
        }
        Some(Err(Barred::Gone | Barred::Refused)) | None => Err(Gone),
    }
}

/// The facts to greet with; waits for the first probe when the process has just started, and for
/// the next one when a client has changed the settings that sessions begin with. If that does not
/// come in time, what was known before has to do.
async fn known_facts(drive: &Drive) -> Option<std::sync::Arc<ServerFacts>> {
    let mut generation = drive.seat.group().topology.subscribe();
    let patience = drive.seat.group().settings.load().handshake_timeout / 2;
    let wait = async {
        loop {
            let topology = drive.seat.group().topology.load();
            let told = match topology.facts() {
                Some(facts) if !is_outdated(drive, &topology) => return Some(facts.clone()),
                // A probe that finds all as it was makes no new generation.
                Some(_) => {
                    let told = tokio::time::timeout(GLANCE, generation.changed()).await;
                    told.unwrap_or(Ok(()))
                }
                None => generation.changed().await,
            };
            if told.is_err() {
                return None;
            }
        }
    };
    match tokio::time::timeout(patience.max(Duration::from_millis(10)), wait).await {
        Ok(facts) => facts,
        Err(_) => drive.seat.group().topology.load().facts().cloned(),
    }
}

/// Whether what is known of the primary is from before a client has changed its settings. One that
/// is down will not tell.
fn is_outdated(drive: &Drive, topology: &Topology) -> bool {
    let changed = drive.seat.group().settings_changed.get();
    let primary = topology.primary_node().filter(|node| node.condition != Condition::Down);
    changed.zip(primary).is_some_and(|(changed, node)| !node.is_observed_since(changed))
}

/// What is offered; `None` when no random numbers can be had.
fn offer(drive: &Drive, facts: &ServerFacts) -> Option<Offer> {
    let mut capabilities =
        Capabilities(facts.capabilities).and(OFFERED).with(Capabilities::COMPRESS);
    let tls = drive.seat.group().tls.load_full();
    if tls.is_some() {
        capabilities = capabilities.with(Capabilities::SSL);
    }
    Some(Offer {
        version: facts.version_text.as_bytes().to_vec(),
        connection_id: drive.seat.id,
        capabilities,
        mariadb: MariadbCapabilities(facts.mariadb_capabilities).and(OFFERED_MARIADB),
        collation: facts.collation,
        status: Status(facts.status),
        plugin: facts.auth_plugin.as_bytes().to_vec(),
        rsa: drive.seat.group().rsa.clone(),
        secure: drive.client.is_private(),
        certificate: tls.filter(|_| always_proves(facts)).map(|tls| tls.fingerprint),
        switch_nonce: auth::nonce().ok()?,
    })
}

/// Whether such a server proves its certificate even where it is not used.
fn always_proves(facts: &ServerFacts) -> bool {
    facts.flavour == Flavour::MariaDb && facts.version >= 110_400
}

async fn dialogue(
    drive: &mut Drive,
    machine: Greet,
    facts: &ServerFacts,
) -> Result<Entered, Barred> {
    let mut machine = machine;
    loop {
        let (seq, payload) = read_packet(drive).await?;
        match machine.on_packet(seq, &payload) {
            Ok(Step::Tls) => {
                let shown = begin_tls(drive).await?;
                // Clients of MariaDB 11.4 and later believe no other proof by default, whatever
                // server they meet; older ones take it for a remark.
                if facts.flavour == Flavour::MariaDb {
                    machine.proves(shown);
                }
            }
            Ok(step) => return steps(drive, machine, step, facts).await,
            Err(error) => {
                drive.worker.client_error(drive.seat.group(), ClientError::Protocol);
                let caps = Capabilities::PROTOCOL_41;
                return refuse(drive, &error, machine.next_seq(), caps).await;
            }
        }
    }
}

/// Follows the machine to its end.
async fn steps(
    drive: &mut Drive,
    mut machine: Greet,
    mut step: Step,
    facts: &ServerFacts,
) -> Result<Entered, Barred> {
    let (mut link, mut terms) = (None, Terms::default());
    loop {
        let next = match step {
            Step::Send(bytes) => {
                send(drive, &bytes).await?;
                let (seq, payload) = read_packet(drive).await?;
                machine.on_packet(seq, &payload)
            }
            Step::NeedAccount if !is_transport_enough(drive, &machine.hello().user, facts) => {
                match facts.flavour {
                    Flavour::MySql => Err(SqlError::secure_transport_required()),
                    Flavour::MariaDb => return deny(drive, &machine, false).await,
                }
            }
            Step::NeedAccount => with_account(drive, &mut machine, facts, &mut terms).await?,
            // As a server does it: who may not come this way hears what a wrong password hears.
            Step::CheckPassword(_) | Step::Done { .. } if !is_met(drive, &terms) => {
                return deny(drive, &machine, terms.socket).await;
            }
            // The primary has its dialogue first, but the connection that it sees is ours.
            Step::Relay if !is_met(drive, &terms) => {
                drop(Box::pin(relay(drive, &mut machine, Demand::Nothing)).await?);
                return deny(drive, &machine, terms.socket).await;
            }
            Step::Relay => {
                let first = Box::pin(relay(drive, &mut machine, terms.demand())).await?;
                let credential = Credential::Relayed { private: false };
                return admit(drive, &machine, credential, Some(first), &terms).await;
            }
            Step::CheckPassword(password) => {
                let accepted = check(drive, &machine, password, terms.demand()).await?;
                let found = accepted.is_some();
                link = accepted.flatten();
                Ok(machine.checked(found))
            }
            Step::Done { send: bytes, credential } => {
                send(drive, &bytes).await?;
                return admit(drive, &machine, credential, link, &terms).await;
            }
            Step::Denied if terms.barred && machine.used_password() => {
                hear_refusal(drive, &machine).await?;
                return deny(drive, &machine, terms.socket).await;
            }
            Step::Denied => return deny(drive, &machine, terms.socket).await,
            Step::Answer(_) => Err(SqlError::bad_handshake("an answer out of turn")),
            Step::Tls => Err(SqlError::bad_handshake("TLS was not offered")),
        };
        step = match next {
            Ok(step) => step,
            Err(error) => {
                drive.worker.client_error(drive.seat.group(), ClientError::Protocol);
                let caps = machine.hello().capabilities;
                let refused = refuse(drive, &error, machine.next_seq(), caps).await;
                // A client without plugins has done nothing wrong: other logins may do.
                return if error.code == 1251 { refused } else { Err(Barred::Gone) };
            }
        };
    }
}

/// Goes on with the client's account, once that is known.
async fn with_account(
    drive: &mut Drive,
    machine: &mut Greet,
    facts: &ServerFacts,
    terms: &mut Terms,
) -> Result<Result<Step, SqlError>, Barred> {
    let (account, found) = match account(drive, machine.hello(), facts).await {
        Ok(known) => known,
        Err(error) => return Ok(Err(error)),
    };
    *terms = Terms::of(found);
    // Who names another plugin than the usual one has its dialogue first.
    if terms.barred && machine.hello().is_usual() {
        hear_refusal(drive, machine).await?;
    }
    Ok(machine.account(account))
}

async fn account(
    drive: &Drive,
    hello: &Hello,
    facts: &ServerFacts,
) -> Result<(Account, Option<AccountFacts>), SqlError> {
    let accounts = &drive.seat.group().accounts;
    let peer = drive.seat.peer.get().map(|peer| peer.ip());
    let default = facts.auth_plugin.to_string();
    // Asked afresh, at most once a second for each user, so that a changed password counts at
    // once; what was learnt before serves while no server answers.
    let mut answer = accounts.lookup_fresh(&hello.user, peer).await;
    if matches!(answer, Lookup::Unavailable(_)) {
        answer = accounts.lookup(&hello.user, peer).await;
    }
    let found = match answer {
        Lookup::Found(found) => found,
        Lookup::Unknown => return Ok((Account::Unknown { plugin: default.into_bytes() }, None)),
        Lookup::Unavailable(_) if default == "caching_sha2_password" => {
            // The full exchange gives the password, and the primary is the judge of it.
            let cached = accounts.password(&hello.user);
            return Ok((Account::CachingSha2 { cached, empty: false }, None));
        }
        Lookup::Unavailable(why) => {
            let text = format!("pointsman: cannot look up accounts: {why}");
            return Err(SqlError::new(1105, b"HY000", text));
        }
    };
    let account = match found.plugin.as_str() {
        _ if found.several => Account::Relayed,
        // What is stored is no hash: it may have been written there since the server last read it.
        "mysql_native_password" | "" if found.is_unreadable() => Account::Relayed,
        "mysql_native_password" | "" => Account::Native { double_sha1: found.double_sha1 },
        "mysql_old_password" => match OldHash::parse(&found.authentication) {
            None if !found.authentication.is_empty() => Account::Relayed,
            hash => Account::Old { hash },
        },
        "caching_sha2_password" => {
            Account::CachingSha2 { cached: accounts.password(&hello.user), empty: found.empty }
        }
        "sha256_password" => Account::Sha256 { empty: found.empty },
        _ => Account::Relayed,
    };
    Ok((account, Some(found)))
}

/// Logs in to the primary with the client's own answers to the primary's questions.
async fn relay(drive: &mut Drive, machine: &mut Greet, demand: Demand) -> Result<First, Barred> {
    let private = drive.client.is_private() || drive.client.is_local();
    let identity = identity(machine.hello(), Credential::Relayed { private }, demand);
    let (worker, seat) = (drive.worker.clone(), drive.seat.clone());
    let opened = open_on_primary(&worker, &seat, &identity, async |question| {
        let gone = |_: Gone| DialError::Malformed("the client has gone away");
        let bytes = machine.question(&question);
        send(drive, &bytes).await.map_err(gone)?;
        let (seq, payload) = read_packet(drive).await.map_err(gone)?;
        match machine.on_packet(seq, &payload) {
            Ok(Step::Answer(answer)) => Ok(answer),
            Ok(_) | Err(_) => Err(DialError::Malformed("the client's answer makes no sense")),
        }
    });
    let error = match opened.await {
        Ok(first) => return Ok(first),
        Err(DialError::Refused(payload)) => {
            drive.seat.served.metrics.login_failed();
            pass_on(drive, &payload, machine.next_seq()).await?;
            return Err(Barred::Refused);
        }
        Err(error) => error,
    };
    let text = format!(
        "pointsman: this account's authentication plugin is answered by the client itself, and \
         the login to the primary failed: {error}"
    );
    let error = SqlError::new(1251, b"08004", text);
    refuse(drive, &error, machine.next_seq(), machine.hello().capabilities).await
}

/// The client is who it says.
async fn admit(
    drive: &mut Drive,
    machine: &Greet,
    credential: Credential,
    link: Option<First>,
    terms: &Terms,
) -> Result<Entered, Barred> {
    let facts = drive.seat.group().topology.load().facts().cloned();
    if facts.is_some_and(|facts| is_refused_in_clear(drive, &facts)) {
        let error = SqlError::secure_transport_required();
        return refuse(drive, &error, machine.next_seq(), machine.hello().capabilities).await;
    }
    let hello = machine.hello();
    let identity = identity(hello, credential, terms.demand());
    let mut link = link;
    // A schema or a character set named at login, and an account that may not be let in now, are
    // the primary's to judge; its words are the client's answer.
    let judged = hello.database.is_some() || hello.speaks_in_wide_characters() || terms.judged;
    if link.is_none() && judged {
        link = Some(let_in(drive, machine, &identity).await?);
    }
    let facts = drive.seat.group().topology.load().facts().cloned();
    let greeted = facts.as_ref().map_or(2, |facts| facts.status);
    let status = link.as_ref().map_or(greeted, |(_, facts, _)| facts.status);
    let proof = machine.certificate_proof(terms.verifier.as_deref());
    let mut tracks = Vec::new();
    if let Some(schema) = hello.database.as_deref().filter(|schema| !schema.is_empty()) {
        session_track::push(&mut tracks, &session_track::Change::Schema(schema));
    }
    let ok = reply::Ok {
        affected: 0,
        insert_id: 0,
        status: Status(status).without(Status::SESSION_STATE_CHANGED),
        warnings: 0,
        info: &proof,
        tracks: &tracks,
    };
    let mut bytes = Vec::new();
    ok.encode(&mut bytes, machine.next_seq(), 0x00, hello.capabilities);
    send(drive, &bytes).await?;
    let former = drive.seat.identity.borrow().clone();
    let login = Login {
        same_user: former.is_some_and(|former| former.hello.user == hello.user),
        capabilities: hello.capabilities,
        mariadb: hello.mariadb,
        collation: hello.collation,
        schema: hello.database.clone(),
        status,
        sole: matches!(identity.credential, Credential::Relayed { .. })
            || link.as_ref().is_some_and(|(.., sandboxed)| *sandboxed),
        trackers: facts.map_or_else(|| "".into(), |facts| facts.trackers.clone()),
    };
    let link = link.map(|(socket, facts, _)| (socket, facts));
    *drive.seat.who.borrow_mut() = Some(drive.worker.principal(&drive.seat, &identity));
    *drive.seat.identity.borrow_mut() = Some(Rc::new(identity));
    if let Some((socket, _)) = &link {
        drive.worker.close_nobodys(&drive.seat, Held::Primary, socket.node);
    }
    Ok(Entered { login, link })
}

pub(super) fn identity(hello: &Hello, credential: Credential, demand: Demand) -> Identity {
    Identity { hello: hello.clone(), credential, demand }
}

/// Unknown user and wrong password: one answer.
async fn deny<T>(drive: &mut Drive, machine: &Greet, socket: bool) -> Result<T, Barred> {
    let hello = machine.hello();
    drive.seat.served.metrics.login_failed();
    let user = String::from_utf8_lossy(&hello.user).into_owned();
    // A client on this host is to a server what our own monitor is.
    let topology = drive.seat.group().topology.load();
    let seen_as = topology.facts().map(|facts| facts.sees_us_as.to_string());
    let local = seen_as.filter(|host| !host.is_empty()).unwrap_or_else(|| "localhost".to_owned());
    let peer = drive.seat.peer.get().map(|peer| peer.ip().to_canonical());
    let host = peer.filter(|ip| !ip.is_loopback()).map_or(local, |ip| ip.to_string());
    let error = match socket && !machine.used_password() {
        // An account that may come without a password, through the system's own socket.
        true => SqlError::access_denied_no_password(&user, &host),
        false => SqlError::access_denied(&user, &host, machine.used_password()),
    };
    refuse(drive, &error, machine.next_seq(), hello.capabilities).await
}

pub(super) async fn refuse<T>(
    drive: &mut Drive,
    error: &SqlError,
    seq: u8,
    caps: Capabilities,
) -> Result<T, Barred> {
    send(drive, &error.packet(seq, caps)).await?;
    Err(Barred::Refused)
}

/// The server's own refusal, as it is.
pub(super) async fn pass_on(drive: &mut Drive, payload: &[u8], seq: u8) -> Result<(), Gone> {
    let mut bytes = Vec::new();
    packet::write(&mut bytes, seq, payload);
    send(drive, &bytes).await
}

async fn send(drive: &mut Drive, bytes: &[u8]) -> Result<(), Gone> {
    drive.client.write_all(bytes).await.map_err(|_| Gone)
}

async fn read_packet(drive: &mut Drive) -> Result<(u8, Vec<u8>), Gone> {
    loop {
        if let Some((len, seq)) = packet::header(&drive.client_tail) {
            if len > LOGIN_PACKET_MAX {
                drive.worker.client_error(drive.seat.group(), ClientError::Protocol);
                let error = SqlError::malformed_packet().packet(1, Capabilities::PROTOCOL_41);
                send(drive, &error).await?;
                return Err(Gone);
            }
            let end = packet::HEADER_LEN + len;
            if drive.client_tail.len() >= end {
                let payload = drive.client_tail.get(packet::HEADER_LEN..end);
                let payload = payload.unwrap_or_default().to_vec();
                drive.client_tail.drain(..end);
                return Ok((seq, payload));
            }
        }
        read_more(drive).await?;
    }
}

/// Reads what the client has sent, behind what is there.
pub(super) async fn read_more(drive: &mut Drive) -> Result<(), Gone> {
    let mut buffer = [0; 1024];
    match drive.client.read(&mut buffer).await {
        Ok(0) | Err(_) => Err(Gone),
        Ok(read) => {
            drive.client_tail.extend_from_slice(buffer.get(..read).unwrap_or_default());
            Ok(())
        }
    }
}
