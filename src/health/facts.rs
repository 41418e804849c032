//! What a server says in its greeting, byte for byte.
//!
//! mysql_async reads the greeting and keeps it to itself, but clients must be greeted as the
//! real server would greet them. So the monitor account logs in once with our own machine; a
//! complete login, since a broken one counts as an aborted connection on the server and leads
//! to error 1129 after some.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::config::Monitor;
use crate::health::observation::{Failure, FailureKind};
use crate::protocol::auth::{Credential, Password};
use crate::protocol::flags::{Capabilities, MariadbCapabilities};
use crate::protocol::handshake::{Greeting, LOGIN_PACKET_MAX};
use crate::protocol::login::{Login, LoginRequest, LoginStep, RsaPolicy};
use crate::protocol::{packet, reply};
use crate::topology::Flavour;

/// COM_QUIT as a whole packet.
const QUIT: [u8; 5] = [1, 0, 0, 0, 1];

/// The collation that the monitor logs in with: utf8mb4_general_ci, known to both families.
const COLLATION: u8 = 45;

/// A greeting with what follows from its version text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeted {
    /// The family, by the version text.
    pub flavour: Flavour,
    /// As in `/*!NNNNN */`.
    pub version: u32,
    /// Byte for byte, unless it is no text.
    pub version_text: Arc<str>,
    /// The default authentication plugin.
    pub auth_plugin: Arc<str>,
    /// The rest of it.
    pub greeting: Greeting,
}

/// Connects, logs in as the monitor account, and leaves. `address` is `host:port` or the path
/// of a unix socket.
///
/// # Errors
/// When there is no connection, the login is refused, or what the server sends is garbage.
/// Over a network without TLS a login that would need the password itself is not made.
pub async fn greeting(address: &str, monitor: &Monitor) -> Result<Greeted, Failure> {
    if address.starts_with('/') {
        let stream = UnixStream::connect(address).await.map_err(unreachable)?;
        return log_in(stream, request(monitor, RsaPolicy::AskServer, true)).await;
    }
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    let nobody_between =
        stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
    let rsa = if nobody_between { RsaPolicy::AskServer } else { RsaPolicy::Never };
    log_in(stream, request(monitor, rsa, false)).await
}

fn request(monitor: &Monitor, rsa: RsaPolicy, secure: bool) -> LoginRequest {
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
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: LoginRequest,
) -> Result<Greeted, Failure> {
    let mut login = Login::new(request);
    loop {
        let (seq, payload) = read(&mut stream).await.map_err(unreachable)?;
        let step = login.on_packet(seq, &payload);
        match step.map_err(|error| Failure::new(FailureKind::Puzzling, error.to_string()))? {
            LoginStep::Send(bytes) => stream.write_all(&bytes).await.map_err(unreachable)?,
            LoginStep::Wait => {}
            LoginStep::Done { greeting, .. } => {
                stream.write_all(&QUIT).await.map_err(unreachable)?;
                return greeted(greeting);
            }
            LoginStep::Refused(payload) => return Err(refused(&payload)),
            LoginStep::Tls(_) => {
                return Err(Failure::new(FailureKind::Puzzling, "TLS was not asked for"));
            }
            LoginStep::Ask(_) => {
                return Err(Failure::new(FailureKind::Puzzling, "a question for a client"));
            }
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let mut header = [0; packet::HEADER_LEN];
    stream.read_exact(&mut header).await?;
    let (length, seq) = packet::header(&header).unwrap_or_default();
    if length > LOGIN_PACKET_MAX {
        let kind = std::io::ErrorKind::InvalidData;
        return Err(std::io::Error::new(kind, "what answers does not speak MySQL's protocol"));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    Ok((seq, payload))
}

fn greeted(greeting: Greeting) -> Result<Greeted, Failure> {
    let version_text: Arc<str> = Arc::from(String::from_utf8_lossy(&greeting.version));
    let Some((flavour, version)) = version(&version_text) else {
        let text = format!("the version {version_text:?} is not understood");
        return Err(Failure::new(FailureKind::Puzzling, text));
    };
    let auth_plugin = Arc::from(String::from_utf8_lossy(&greeting.plugin));
    Ok(Greeted { flavour, version, version_text, auth_plugin, greeting })
}

fn refused(payload: &[u8]) -> Failure {
    match reply::Err::parse(payload) {
        Ok(reply::Err { code, message, .. }) => {
            let text = format!("{code}: {}", String::from_utf8_lossy(message));
            Failure::new(FailureKind::of_errno(code), text)
        }
        Err(malformed) => Failure::new(FailureKind::Puzzling, malformed.to_string()),
    }
}

fn unreachable(error: std::io::Error) -> Failure {
    Failure::new(FailureKind::Unreachable, error.to_string())
}

/// Family and number: `5.5.5-10.11.19-MariaDB` is MariaDB 101119, `9.7.4` is MySQL 90704.
#[must_use]
pub fn version(text: &str) -> Option<(Flavour, u32)> {
    let prefixed = text.strip_prefix("5.5.5-").filter(|rest| rest.starts_with(char::is_numeric));
    let mariadb = prefixed.is_some() || text.to_ascii_lowercase().contains("mariadb");
    let flavour = if mariadb { Flavour::MariaDb } else { Flavour::MySql };
    let mut numbers = prefixed.unwrap_or(text).split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    let (major, minor, patch) = (next()?, next()?, next().unwrap_or(0));
    let number = major.checked_mul(10_000)?.checked_add(minor.checked_mul(100)?)?;
    Some((flavour, number.checked_add(patch)?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::units::Secret;

    #[test]
    fn versions_become_numbers() {
        let table = [
            ("5.5.5-10.11.19-MariaDB-0+deb12u1-log", Some((Flavour::MariaDb, 101_119))),
            ("11.8.9-MariaDB-ubu2404", Some((Flavour::MariaDb, 110_809))),
            ("9.7.4", Some((Flavour::MySql, 90_704))),
            ("8.0.36-28", Some((Flavour::MySql, 80_036))),
            ("5.5.5-log", Some((Flavour::MySql, 50_505))),
            ("", None),
            ("x.y", None),
        ];
        for (text, expected) in table {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    fn monitor() -> Monitor {
        Monitor {
            user: "monitor".to_owned(),
            password: Secret::new("monitor".to_owned()),
            interval: Duration::from_millis(500),
            timeout: Duration::from_secs(1),
            fall: 3,
            rise: 1,
        }
    }

    /// What becomes of a login at a server that sends these bytes and closes.
    async fn after(bytes: &[u8]) -> Failure {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(bytes).await.expect("room for it");
        drop(theirs);
        let request = request(&monitor(), RsaPolicy::Never, false);
        log_in(ours, request).await.expect_err("no server")
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
}
