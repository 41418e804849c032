//! Opening a connection to a server and logging in: the client role of the protocol, driven
//! over a socket.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::compression::frames::Frames;
use crate::compression::numbers::Role;
use crate::compression::{Codec, Method};
use crate::protocol::auth::Credential;
use crate::protocol::cursor::Cursor;
use crate::protocol::flags::{Capabilities, MariadbCapabilities};
use crate::protocol::handshake::LOGIN_PACKET_MAX;
use crate::protocol::login::{Login, LoginError, LoginRequest, LoginStep, RsaPolicy, Server};
use crate::protocol::walker::{Expect, Kind, ReplyWalker, Stop};
use crate::protocol::{command, packet, reply};
use crate::reactor::Reactor;
use crate::tls::trust::{Demand, Towards, Trust};
use crate::upstream::stream::{Stream, TlsStreamError};

/// Asks how long the server has been running, which every account may.
const UPTIME: &[u8] = b"SHOW GLOBAL STATUS LIKE 'Uptime'";
/// ER_MUST_CHANGE_PASSWORD.
const MUST_CHANGE_PASSWORD: u16 = 1820;

/// Where to, and what goes before the login.
#[derive(Debug)]
pub struct Target<'a> {
    /// `host:port` or the path of a unix socket.
    pub address: &'a str,
    /// Time for the connection, the login and the set-up together.
    pub timeout: Duration,
    /// The client's and our own address, for a PROXY v2 header; `None` sends none.
    pub proxied: Option<(SocketAddr, SocketAddr)>,
    /// Whether and how it is spoken to in TLS.
    pub trust: Arc<Trust>,
    /// What the account demands of it.
    pub demand: Demand,
    /// How the connection is compressed, where the server can, and with what.
    pub compression: Option<(Method, Rc<RefCell<Codec>>)>,
    /// Whether to ask when the server was started.
    pub asks_start: bool,
    /// A statement to run before the link is handed over.
    pub setup: Option<Vec<u8>>,
    /// A session whose password has expired, which may only change it, will do.
    pub sandbox_will_do: bool,
}

/// A connection that has logged in.
#[derive(Debug)]
pub struct Dialed {
    /// The socket.
    pub stream: Stream,
    /// Flags in force.
    pub capabilities: Capabilities,
    /// MariaDB's further flags in force.
    pub mariadb: MariadbCapabilities,
    /// The server's thread id.
    pub thread_id: u32,
    /// The payload of the login's OK.
    pub ok: Vec<u8>,
    /// The password has expired: the set-up statement was refused.
    pub sandboxed: bool,
    /// The payload of the set-up statement's OK; empty without one.
    pub set_up: Vec<u8>,
    /// When the server was started, as exact as its whole seconds are; `None` where that was not
    /// asked, or not told to a password that has expired.
    pub started: Option<Instant>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The server said no; its ERR payload.
    #[error("the server refused: {}", String::from_utf8_lossy(reply::Err::message_of(.0)))]
    Refused(Vec<u8>),
    /// No connection, or it broke.
    #[error("cannot reach it: {0}")]
    Unreachable(#[from] io::Error),
    /// It took too long.
    #[error("no login within {0:?}")]
    TimedOut(Duration),
    /// The server cannot be logged in to.
    #[error("cannot log in: {0}")]
    Login(#[from] LoginError),
    /// TLS did not come up; most often the server was not believed.
    #[error("no TLS with it: {0}")]
    Tls(#[from] TlsStreamError),
    /// The server sent what makes no sense here.
    #[error("the server's answer makes no sense: {0}")]
    Malformed(&'static str),
}

/// Opens a connection and logs in.
///
/// # Errors
/// When the server cannot be reached, refuses, or takes longer than the target's timeout.
pub async fn dial(
    reactor: &Rc<Reactor>,
    target: Target<'_>,
    request: LoginRequest,
) -> Result<Dialed, DialError> {
    dial_asking(reactor, target, request, async |_| Err(LoginError::OutOfOrder.into())).await
}

/// The same, with somebody who answers the server's questions in the client's place: for
/// [`Credential::Relayed`].
///
/// # Errors
/// As [`dial`], and what `ask` answers instead of an answer.
pub async fn dial_asking(
    reactor: &Rc<Reactor>,
    target: Target<'_>,
    request: LoginRequest,
    ask: impl AsyncFnMut(Vec<u8>) -> Result<Vec<u8>, DialError>,
) -> Result<Dialed, DialError> {
    let timeout = target.timeout;
    match tokio::time::timeout(timeout, dial_untimed(reactor, target, request, ask)).await {
        Ok(result) => result,
        Err(_) => Err(DialError::TimedOut(timeout)),
    }
}

async fn dial_untimed(
    reactor: &Rc<Reactor>,
    target: Target<'_>,
    mut request: LoginRequest,
    ask: impl AsyncFnMut(Vec<u8>) -> Result<Vec<u8>, DialError>,
) -> Result<Dialed, DialError> {
    let mut stream = Stream::connect(reactor, target.address).await?;
    // A relayed password is as safe on loopback as on a unix socket.
    let relayed = matches!(request.credential, Credential::Relayed { .. });
    request.secure = stream.is_private() || (relayed && stream.is_local());
    if stream.is_local() && request.rsa == RsaPolicy::Never {
        // Nobody can be in between.
        request.rsa = RsaPolicy::AskServer;
    }
    if let Some((client, ours)) = target.proxied {
        stream.write_all(&proxy_header(client, ours)).await?;
    }
    let towards = target.trust.towards(target.address, stream.is_local(), target.demand);
    let towards = towards.map_err(TlsStreamError::Tls)?;
    if towards.is_some() {
        request.capabilities = request.capabilities.with(Capabilities::SSL);
    }
    if let Some((method, _)) = &target.compression {
        request.capabilities = request.capabilities.with(flag_of(*method));
    }
    let mut input = Vec::new();
    let mut dialed = log_in(stream, &mut input, Login::new(request), towards, ask).await?;
    if let Some((method, codec)) = target.compression
        && dialed.capabilities.has(flag_of(method))
    {
        if !input.is_empty() {
            return Err(DialError::Malformed("bytes after the login"));
        }
        dialed.stream.compress(Frames::new(method, Role::Client, codec));
    }
    if target.asks_start {
        match started(&mut dialed, &mut input).await {
            Err(error) if target.sandbox_will_do && is_sandboxed(&error) => {}
            started => dialed.started = started?,
        }
    }
    if let Some(sql) = target.setup {
        match run(&mut dialed, &mut input, &sql).await {
            Err(error) if target.sandbox_will_do && is_sandboxed(&error) => {
                dialed.sandboxed = true;
            }
            done => dialed.set_up = done?,
        }
    }
    if input.is_empty() { Ok(dialed) } else { Err(DialError::Malformed("bytes after the login")) }
}

fn is_sandboxed(error: &DialError) -> bool {
    let DialError::Refused(payload) = error else { return false };
    reply::Err::code_of(payload) == MUST_CHANGE_PASSWORD
}

fn flag_of(method: Method) -> Capabilities {
    match method {
        Method::Zlib => Capabilities::COMPRESS,
        Method::Zstd(_) => Capabilities::ZSTD_COMPRESSION,
    }
}

/// Follows the login to its end.
async fn log_in(
    mut stream: Stream,
    input: &mut Vec<u8>,
    mut login: Login,
    towards: Option<Towards>,
    mut ask: impl AsyncFnMut(Vec<u8>) -> Result<Vec<u8>, DialError>,
) -> Result<Dialed, DialError> {
    loop {
        let (seq, payload) = read_packet(&mut stream, input).await?;
        let mut step = login.on_packet(seq, &payload)?;
        // What a step leads to without a word of the server; each only once in a row.
        if let LoginStep::Ask(question) = step {
            step = login.answered(&ask(question).await?)?;
        } else if let LoginStep::Tls(bytes) = step {
            // What came behind the greeting would be read as if it had come inside TLS.
            let Some(towards) = towards.as_ref().filter(|_| input.is_empty()) else {
                return Err(DialError::Malformed("bytes behind the greeting"));
            };
            stream.write_all(&bytes).await?;
            Box::pin(stream.connect_tls(towards)).await?;
            // On this machine nobody can be in between, whatever the certificate says.
            let known = towards.verified || stream.is_local();
            let server = if known { Server::Verified } else { Server::Anybody };
            step = login.tls_ready(server)?;
        }
        match step {
            LoginStep::Ask(_) => return Err(DialError::Malformed("a question to an answer")),
            LoginStep::Tls(_) => return Err(DialError::Malformed("TLS out of turn")),
            LoginStep::Send(bytes) => stream.write_all(&bytes).await?,
            LoginStep::Wait => {}
            LoginStep::Refused(error) => return Err(DialError::Refused(error)),
            LoginStep::Done { greeting, ok_payload, capabilities, mariadb } => {
                let thread_id = greeting.connection_id;
                let (ok, sandboxed, set_up, started) = (ok_payload, false, Vec::new(), None);
                return Ok(Dialed {
                    stream,
                    capabilities,
                    mariadb,
                    thread_id,
                    ok,
                    sandboxed,
                    set_up,
                    started,
                });
            }
        }
    }
}

/// Runs one statement that answers OK; the payload of that.
async fn run(dialed: &mut Dialed, input: &mut Vec<u8>, sql: &[u8]) -> Result<Vec<u8>, DialError> {
    let reply = ask(dialed, input, sql).await?;
    let payload = reply.get(packet::HEADER_LEN..).unwrap_or_default();
    let is_one = packet::header(&reply).is_some_and(|(len, _)| len == payload.len());
    match payload.first() {
        Some(&reply::OK) if is_one => Ok(payload.to_vec()),
        _ => Err(DialError::Malformed("not an OK after the set-up statement")),
    }
}

/// When the server was started.
async fn started(dialed: &mut Dialed, input: &mut Vec<u8>) -> Result<Option<Instant>, DialError> {
    let asked = Instant::now();
    let reply = ask(dialed, input, UPTIME).await?;
    let mut rest = reply.as_slice();
    while let Some((len, _)) = packet::header(rest) {
        let end = packet::HEADER_LEN + len;
        let payload = rest.get(packet::HEADER_LEN..end).unwrap_or_default();
        rest = rest.get(end..).unwrap_or_default();
        // Definitions begin with the name of the catalogue, a row with this name of its own.
        let mut row = Cursor::new(payload);
        if row.lenenc_str("name").is_ok_and(|name| name.eq_ignore_ascii_case(b"uptime")) {
            let seconds = row
                .lenenc_str("seconds")
                .ok()
                .and_then(|text| std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()));
            return Ok(seconds.and_then(|uptime| asked.checked_sub(Duration::from_secs(uptime))));
        }
    }
    Ok(None)
}

/// Runs one statement; all of its answer.
async fn ask(dialed: &mut Dialed, input: &mut Vec<u8>, sql: &[u8]) -> Result<Vec<u8>, DialError> {
    let payload = command::query_payload(sql, dialed.capabilities);
    let mut bytes = Vec::new();
    packet::write(&mut bytes, 0, &payload);
    dialed.stream.write_all(&bytes).await?;
    let mut walker = ReplyWalker::new(Expect::Query, dialed.capabilities, dialed.mariadb);
    let mut reply = Vec::new();
    loop {
        let advance = walker.advance(input).map_err(|bad| DialError::Malformed(bad.what))?;
        reply.extend(input.drain(..advance.forward));
        if let Stop::Notable(notable) = advance.stop {
            let at = reply.len() + packet::HEADER_LEN;
            reply.extend(input.drain(..notable.len));
            match notable.kind {
                Kind::Err => {
                    return Err(DialError::Refused(reply.split_off(at.min(reply.len()))));
                }
                Kind::Ok { .. } | Kind::Eof if notable.terminal => return Ok(reply),
                Kind::Eof => continue,
                _ => return Err(DialError::Malformed("no answer to a question of our own")),
            }
        }
        read_more(&mut dialed.stream, input).await?;
    }
}

async fn read_packet(stream: &mut Stream, input: &mut Vec<u8>) -> Result<(u8, Vec<u8>), DialError> {
    loop {
        if let Some((len, seq)) = packet::header(input) {
            if len > LOGIN_PACKET_MAX {
                return Err(DialError::Malformed("a login packet of over 64 KiB"));
            }
            let end = packet::HEADER_LEN + len;
            if input.len() >= end {
                let payload = input.get(packet::HEADER_LEN..end).unwrap_or_default().to_vec();
                input.drain(..end);
                return Ok((seq, payload));
            }
        }
        read_more(stream, input).await?;
    }
}

async fn read_more(stream: &mut Stream, input: &mut Vec<u8>) -> Result<(), DialError> {
    let mut buffer = [0; 2048];
    let read = stream.read(&mut buffer).await?;
    if read == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    input.extend_from_slice(buffer.get(..read).unwrap_or_default());
    Ok(())
}

/// A PROXY protocol v2 header for a TCP connection (haproxy's proxy-protocol.txt, section 2.2).
fn proxy_header(client: SocketAddr, ours: SocketAddr) -> Vec<u8> {
    use ppp::v2::{Builder, Command, Protocol, Version};
    Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, (client, ours))
        .build()
        .unwrap_or_default()
}
