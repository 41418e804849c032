//! Connections of the monitor account: our own login and questions in text, over tokio's streams
//! and with the same trust as links have. What travels here, hashes of passwords above all, is
//! encrypted wherever a link would be.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Waker};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::config::Monitor;
use crate::health::facts::{self, Greeted};
use crate::health::observation::{Failure, FailureKind};
use crate::protocol::answer::{Answer, AnswerReader, Reading};
use crate::protocol::auth::{Credential, Password};
use crate::protocol::flags::{Capabilities, MariadbCapabilities};
use crate::protocol::handshake::{Greeting, LOGIN_PACKET_MAX};
use crate::protocol::login::{Login, LoginError, LoginRequest, LoginStep, RsaPolicy, Server};
use crate::protocol::{Malformed, command, packet, reply};
use crate::tls::trust::{Demand, Towards, Trust};
use crate::topology::Transport;

/// The collation that the monitor logs in with: utf8mb4_general_ci, known to both families.
const COLLATION: u8 = 45;
/// Most bytes of an answer; a list of ten thousand connections is not near it.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// A stream of bytes to a server, whatever it is made of.
trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for S {}

/// A connection that has logged in as the monitor account. Dropping it says good-bye, so that
/// the server counts no aborted client.
pub struct Connection {
    wire: Wire,
    greeted: Greeted,
    transport: Transport,
    sound: bool,
}

/// Packets to and from a server.
struct Wire {
    stream: Box<dyn Socket>,
    input: BytesMut,
}

// === impls ===

/// Connects and logs in to the server at `address`, `host:port` or the path of a unix socket.
///
/// # Errors
/// When there is no connection, the server is not believed, or the login is refused. Over a
/// network a login that would need the password itself is made only to a verified server.
pub async fn open(address: &str, monitor: &Monitor, trust: &Trust) -> Result<Connection, Failure> {
    let (stream, local): (Box<dyn Socket>, bool) = if address.starts_with('/') {
        (Box::new(UnixStream::connect(address).await.map_err(unreachable)?), true)
    } else {
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let peer = stream.peer_addr().map_err(unreachable)?;
        (Box::new(stream), peer.ip().to_canonical().is_loopback())
    };
    let towards = trust.towards(address, local, Demand::Nothing);
    let towards = towards.map_err(|error| untrusted(&error))?;
    let request = request(monitor, local, address.starts_with('/'));
    log_in(Wire { stream, input: BytesMut::new() }, request, towards, local).await
}

fn request(monitor: &Monitor, local: bool, secure: bool) -> LoginRequest {
    // On this machine nobody can be in between.
    let rsa = if local { RsaPolicy::AskServer } else { RsaPolicy::Never };
    let password = Password::new(monitor.password.reveal().as_bytes().to_vec());
    LoginRequest {
        user: monitor.user.as_bytes().to_vec(),
        credential: Credential::Password(password),
        database: None,
        collation: COLLATION,
        capabilities: Capabilities(0),
        mariadb: MariadbCapabilities(0),
        max_packet: 1 << 24,
        attributes: Vec::new(),
        rsa,
        secure,
    }
}

async fn log_in(
    mut wire: Wire,
    mut request: LoginRequest,
    towards: Option<Towards>,
    local: bool,
) -> Result<Connection, Failure> {
    let mut transport = Transport::Clear;
    if towards.is_some() {
        request.capabilities = request.capabilities.with(Capabilities::SSL);
    }
    let mut login = Login::new(request);
    loop {
        let (seq, payload) = wire.packet(LOGIN_PACKET_MAX).await?;
        let mut step = login.on_packet(seq, &payload).map_err(|error| gave_up(&error))?;
        if let (LoginStep::Tls(bytes), Some(towards)) = (&step, &towards) {
            wire = wire.inside_tls(bytes, towards).await?;
            let known = towards.verified || local;
            let server = if known { Server::Verified } else { Server::Anybody };
            transport = Transport::of(towards.verified);
            step = login.tls_ready(server).map_err(|error| gave_up(&error))?;
        }
        match step {
            LoginStep::Send(bytes) => wire.send(&bytes).await?,
            LoginStep::Wait => {}
            LoginStep::Done { greeting, .. } => return logged_in(wire, greeting, transport),
            LoginStep::Refused(payload) => return Err(refused(&payload)),
            LoginStep::Tls(_) => return Err(puzzling("TLS out of turn")),
            LoginStep::Ask(_) => return Err(puzzling("a question for a client")),
        }
    }
}

fn logged_in(wire: Wire, greeting: Greeting, transport: Transport) -> Result<Connection, Failure> {
    let greeted = facts::greeted(greeting)?;
    Ok(Connection { wire, greeted, transport, sound: true })
}

impl Connection {
    /// What the server said in its greeting.
    #[must_use]
    pub fn greeted(&self) -> &Greeted {
        &self.greeted
    }

    /// What lies between here and there.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether more may be asked: the last answer came whole.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.sound
    }

    /// Asks one question. Nothing that a client has said may stand in it but as a literal of
    /// hexadecimal digits.
    ///
    /// # Errors
    /// When the server refuses, the connection breaks, or the answer makes no sense.
    pub async fn ask(&mut self, question: &str) -> Result<Answer, Failure> {
        // Nothing was asked for at the login but what every login has.
        let payload = command::query_payload(question.as_bytes(), Capabilities(0));
        let mut bytes = Vec::new();
        packet::write(&mut bytes, 0, &payload);
        self.sound = false;
        self.wire.send(&bytes).await?;
        let mut reader = AnswerReader::default();
        let (mut expected, mut left) = (1u8, ANSWER_MAX);
        loop {
            let (seq, payload) = self.wire.packet(left).await?;
            if seq != expected {
                return Err(puzzling("packets out of order"));
            }
            expected = expected.wrapping_add(1);
            left = left.saturating_sub(payload.len() + packet::HEADER_LEN);
            match reader.on_packet(&payload).map_err(malformed)? {
                Reading::More => {}
                Reading::Whole(answer) => {
                    self.sound = self.wire.input.is_empty();
                    return Ok(answer);
                }
                Reading::Refused(payload) => {
                    self.sound = self.wire.input.is_empty();
                    return Err(refused(&payload));
                }
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // As much as fits without waiting; five bytes always do.
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut self.wire.stream).poll_write(&mut cx, &command::QUIT);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("greeted", &self.greeted).finish_non_exhaustive()
    }
}

impl Wire {
    /// Reads one packet, of at most `limit` bytes: its number and its payload.
    async fn packet(&mut self, limit: usize) -> Result<(u8, Bytes), Failure> {
        loop {
            if let Some((len, seq)) = packet::header(&self.input) {
                // What is longer comes in several packets; no answer to us does.
                if len > limit || len == packet::MAX_PAYLOAD {
                    let text = "what answers does not speak MySQL's protocol, or far too much";
                    return Err(Failure::new(FailureKind::Puzzling, text));
                }
                if self.input.len() >= packet::HEADER_LEN + len {
                    self.input.advance(packet::HEADER_LEN);
                    return Ok((seq, self.input.split_to(len).freeze()));
                }
            }
            if self.stream.read_buf(&mut self.input).await.map_err(unreachable)? == 0 {
                return Err(unreachable(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).await.map_err(unreachable)?;
        self.stream.flush().await.map_err(unreachable)
    }

    /// The same, inside TLS from now on, for which `request` asks.
    async fn inside_tls(mut self, request: &[u8], towards: &Towards) -> Result<Self, Failure> {
        // What came behind the greeting would be read as if it had come inside TLS.
        if !self.input.is_empty() {
            return Err(untrusted(&"bytes behind the greeting"));
        }
        self.send(request).await?;
        let Self { stream, input } = self;
        let connector = TlsConnector::from(towards.config.clone());
        match connector.connect(towards.name.clone(), stream).await {
            Ok(stream) => Ok(Self { stream: Box::new(stream), input }),
            // The library's own words come as invalid data.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(untrusted(&error)),
            Err(error) => Err(unreachable(error)),
        }
    }
}

fn unreachable(error: io::Error) -> Failure {
    Failure::new(FailureKind::Unreachable, error.to_string())
}

fn untrusted(why: &dyn fmt::Display) -> Failure {
    let text = format!(
        "no TLS with it: {why}; server_tls_ca and server_tls_pins say who is believed, and \
         server_tls whether TLS is wanted"
    );
    Failure::new(FailureKind::Untrusted, text)
}

fn puzzling(what: &str) -> Failure {
    Failure::new(FailureKind::Puzzling, format!("its answer makes no sense: {what}"))
}

fn malformed(error: Malformed) -> Failure {
    puzzling(&error.to_string())
}

/// Why our side ended a login.
fn gave_up(error: &LoginError) -> Failure {
    match error {
        LoginError::TlsNotOffered => untrusted(error),
        // "Too many connections" is said before all else, so it is heard, and not repeated.
        LoginError::RefusedBeforeTls(errno) => {
            let kind = match FailureKind::of_errno(*errno) {
                FailureKind::Overloaded => FailureKind::Overloaded,
                _ => FailureKind::Untrusted,
            };
            Failure::new(kind, error.to_string())
        }
        other => Failure::new(FailureKind::Puzzling, other.to_string()),
    }
}

fn refused(payload: &[u8]) -> Failure {
    match reply::Err::parse(payload) {
        Ok(reply::Err { code, message, .. }) => Failure::refused(code, message),
        Err(error) => malformed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::Secret;

    fn monitor() -> Monitor {
        let password = Secret::new("monitor".to_owned());
        Monitor { user: "monitor".to_owned(), password, ..Monitor::default() }
    }

    /// The greeting of a MySQL 9.7.
    const GREETING: &[u8] = b"\x0a9.7.4\0\x01\0\0\0abcdefgh\0\xff\xff\x2d\x02\0\xff\xdf\x15\
        \0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0caching_sha2_password\0";

    /// What becomes of a login at a server that sends these bytes and closes.
    async fn after(bytes: &[u8]) -> Failure {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(bytes).await.expect("room for it");
        drop(theirs);
        let wire = Wire { stream: Box::new(ours), input: BytesMut::new() };
        let request = request(&monitor(), false, false);
        log_in(wire, request, None, false).await.expect_err("no server")
    }

    #[tokio::test]
    async fn what_is_no_server_is_told_apart() {
        let full = after(b"\x17\0\0\0\xff\x10\x04Too many connections").await;
        assert_eq!(full.kind, FailureKind::Overloaded);
        assert_eq!(full.text, "1040: Too many connections");
        let gone = after(b"").await;
        assert_eq!(gone.kind, FailureKind::Unreachable);
        let web = after(b"HTTP/1.1 400 Bad Request").await;
        assert!(web.text.contains("does not speak"), "{web}");
        let garbage = after(b"\x04\0\0\0\x0a8.0").await;
        assert_eq!(garbage.kind, FailureKind::Puzzling);
    }

    /// A connection to a server that answers with these bytes and is silent then.
    async fn answering(bytes: &[u8]) -> (Connection, Result<Answer, Failure>) {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(bytes).await.expect("room for it");
        theirs.shutdown().await.expect("it ends");
        let greeting = Greeting::parse(GREETING).expect("a greeting");
        let wire = Wire { stream: Box::new(ours), input: BytesMut::new() };
        let logged_in = logged_in(wire, greeting, Transport::Clear);
        let mut connection = logged_in.expect("a version");
        let answer = connection.ask("SELECT 1").await;
        (connection, answer)
    }

    #[tokio::test]
    async fn a_connection_is_kept_only_after_a_whole_answer() {
        let ok = b"\x07\0\0\x01\0\0\0\x02\0\0\0";
        let refused = b"\x09\0\0\x01\xff\x28\x04#42000";
        for (bytes, sound) in [(&ok[..], true), (refused, true)] {
            assert_eq!(answering(bytes).await.0.is_sound(), sound, "{bytes:?}");
        }
        // Out of order, an answer too many, a file asked for, an end in the middle.
        let late = b"\x07\0\0\x02\0\0\0\x02\0\0\0";
        let twice = [&ok[..], ok].concat();
        let file = b"\x05\0\0\x01\xfb/etc";
        for bytes in [&late[..], &twice, file, b"\x01\0\0\x01\x01", b""] {
            assert!(!answering(bytes).await.0.is_sound(), "{bytes:?}");
        }
    }
}
