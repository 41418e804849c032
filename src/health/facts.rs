//! What a server says before anyone logs in, byte for byte.
//!
//! mysql_async reads the greeting and keeps it to itself, but clients must be greeted as the
//! real server would greet them.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

use crate::health::observation::{Failure, FailureKind};
use crate::topology::Flavour;

/// Longest greeting that is read, bytes; real ones are below 200.
const GREETING_MAX: usize = 4096;

/// The initial handshake packet (protocol::HandshakeV10), without its salt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The family, by the version text.
    pub flavour: Flavour,
    /// As in `/*!NNNNN */`.
    pub version: u32,
    /// Byte for byte.
    pub version_text: Arc<str>,
    /// MySQL's 32 bits.
    pub capabilities: u32,
    /// MariaDB's upper 32 bits.
    pub mariadb_capabilities: u32,
    /// Default collation id.
    pub collation: u8,
    /// Status flags.
    pub status: u16,
    /// Name of the default authentication plugin.
    pub auth_plugin: Arc<str>,
}

/// Connects and reads the greeting. `address` is `host:port` or the path of a unix socket.
///
/// # Errors
/// When there is no connection, or the server sends an error or garbage in its stead.
pub async fn greeting(address: &str) -> Result<Greeting, Failure> {
    let unreachable =
        |error: std::io::Error| Failure::new(FailureKind::Unreachable, error.to_string());
    let packet = if address.starts_with('/') {
        read(UnixStream::connect(address).await.map_err(unreachable)?).await
    } else {
        read(TcpStream::connect(address).await.map_err(unreachable)?).await
    };
    parse(&packet.map_err(unreachable)?)
}

async fn read(stream: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut stream = BufReader::new(stream);
    let [low, middle, high, _sequence] = stream.read_u32().await?.to_be_bytes();
    let length = u32::from_le_bytes([low, middle, high, 0]);
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(GREETING_MAX);
    let mut packet = vec![0; length];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

fn parse(packet: &[u8]) -> Result<Greeting, Failure> {
    if let [0xff, low, high, text @ ..] = packet {
        let errno = u16::from_le_bytes([*low, *high]);
        let text = String::from_utf8_lossy(text);
        return Err(Failure::new(FailureKind::of_errno(errno), format!("{errno}: {text}")));
    }
    fields(packet).ok_or_else(|| {
        Failure::new(FailureKind::Puzzling, "the greeting is not one of MySQL's protocol 10")
    })
}

fn fields(packet: &[u8]) -> Option<Greeting> {
    let rest = packet.strip_prefix(&[10])?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let (version_text, rest) = (rest.get(..end)?, rest.get(end + 1..)?);
    let version_text = String::from_utf8_lossy(version_text);
    // Connection id 4, salt 8, filler 1.
    let rest = rest.get(13..)?;
    let word = |at: usize| Some(u16::from_le_bytes([*rest.get(at)?, *rest.get(at + 1)?]));
    let capabilities = u32::from(word(0)?) | (u32::from(word(5)?) << 16);
    let collation = *rest.get(2)?;
    let status = word(3)?;
    let salt_length = usize::from(*rest.get(7)?).saturating_sub(8).max(13);
    // Ten reserved bytes; without CLIENT_MYSQL (bit 0) the last four are MariaDB's own flags.
    let mariadb_capabilities =
        if capabilities & 1 == 0 { u32::from(word(14)?) | (u32::from(word(16)?) << 16) } else { 0 };
    let plugin = rest.get(18 + salt_length..).unwrap_or_default();
    let plugin = plugin.split(|byte| *byte == 0).next().unwrap_or_default();
    let (flavour, version) = version(&version_text)?;
    Some(Greeting {
        flavour,
        version,
        version_text: Arc::from(version_text),
        capabilities,
        mariadb_capabilities,
        collation,
        status,
        auth_plugin: Arc::from(String::from_utf8_lossy(plugin)),
    })
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
    use super::*;

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

    #[test]
    fn an_error_instead_of_a_greeting_is_told_apart() {
        let failure = parse(b"\xff\x10\x04Too many connections").expect_err("an error packet");
        assert_eq!(failure.kind, FailureKind::Overloaded);
        assert_eq!(failure.text, "1040: Too many connections");
        for garbage in [&b""[..], b"\x0a", b"HTTP/1.1 400", b"\x0a8.0.1\0abc"] {
            assert_eq!(parse(garbage).expect_err("garbage").kind, FailureKind::Puzzling);
        }
    }

    #[test]
    fn a_mariadb_greeting_is_read_whole() {
        let mut packet = b"\x0a5.5.5-10.11.19-MariaDB\0\x07\0\0\0saltsalt\0".to_vec();
        packet.extend_from_slice(&[0xfe, 0xf7, 45, 2, 0, 0xff, 0x81, 21]);
        packet.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0x1d, 0, 0, 0]);
        packet.extend_from_slice(b"saltsaltsalt\0mysql_native_password\0");
        let greeting = parse(&packet).expect("well-formed");
        assert_eq!(greeting.capabilities, 0x81ff_f7fe);
        assert_eq!(greeting.mariadb_capabilities, 0x1d);
        assert_eq!((greeting.collation, greeting.status), (45, 2));
        assert_eq!(&*greeting.auth_plugin, "mysql_native_password");
        assert_eq!(&*greeting.version_text, "5.5.5-10.11.19-MariaDB");
    }
}
