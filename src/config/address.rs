//! Addresses, networks and names as they are written in the file.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::config::{ListenAddress, Network};

/// What a listener may look like, for refusals.
pub const LISTEN_FORM: &str =
    "an IP address and a port (\"127.0.0.1:6033\", \"[::]:6033\") or an absolute socket path";

/// What a server's address may look like, for refusals.
pub const SERVER_FORM: &str =
    "host:port (\"10.0.0.1:3306\", \"db1.example:3306\") or an absolute socket path";

/// What a network may look like, for refusals.
pub const NETWORK_FORM: &str = "an IP address or a network (\"10.0.0.7\", \"10.1.0.0/16\")";

/// What a name may look like, for refusals. Names become metric labels and console words.
pub const NAME_FORM: &str =
    "a name of 1 to 64 letters, digits, '-', '_', beginning with a letter or a digit";

/// Reads a listener: an IP address with a port, or the absolute path of a unix socket.
#[must_use]
pub fn parse_listen(text: &str) -> Option<ListenAddress> {
    if text.starts_with('/') && !text.contains('\0') {
        return Some(ListenAddress::Unix(PathBuf::from(text)));
    }
    text.parse::<SocketAddr>().ok().map(ListenAddress::Tcp)
}

/// Host and port of a server, brackets around a v6 address aside; `None` for the path of a socket.
#[must_use]
pub fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':').filter(|_| !text.starts_with('/'))?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
}

/// Whether this is the address of a server: `host:port` with a port above 0, or a socket path.
/// The host ends up in replication statements and connection strings, so only characters of
/// host names and IP addresses are allowed.
#[must_use]
pub fn is_server(text: &str) -> bool {
    if let Some(path) = text.strip_prefix('/') {
        return !path.is_empty() && !text.contains('\0');
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() > 0;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_fits = (1..=253).contains(&host.len())
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        && host.starts_with(|c: char| c.is_ascii_alphanumeric());
    host_fits && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Reads `10.1.0.0/16`, or a single address as a network of its own.
#[must_use]
pub fn parse_network(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => prefix.parse().ok().filter(|bits| *bits <= most)?,
        None => most,
    };
    Some(Network { address, prefix })
}

/// Whether this may name a group or a server.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

// === how they are shown ===

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_host_and_port_or_a_socket_path() {
        for text in ["127.0.0.1:3306", "[::1]:3306", "db-1.example:3306", "/run/mysqld.sock"] {
            assert!(is_server(text), "{text}");
        }
        for text in ["127.0.0.1", "db1", "db1:0", "db1:70000", ":3306", "a b:1", "a';--:1", "/", ""]
        {
            assert!(!is_server(text), "{text}");
        }
    }

    #[test]
    fn a_network_contains_what_its_prefix_says() {
        let network = parse_network("10.1.0.0/16").expect("a network");
        assert_eq!(network.to_string(), "10.1.0.0/16");
        assert!(network.contains("10.1.255.3".parse().expect("an address")));
        assert!(network.contains("::ffff:10.1.2.3".parse().expect("an address")));
        assert!(!network.contains("10.2.0.1".parse().expect("an address")));
        let single = parse_network("::1").expect("an address");
        assert!(single.contains("::1".parse().expect("an address")));
        assert!(!single.contains("::2".parse().expect("an address")));
        for text in ["10.1.0.0/33", "10.1/16", "::1/129", "x", ""] {
            assert_eq!(parse_network(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_words_of_the_console() {
        for text in ["main", "db1", "r-2_b", "0"] {
            assert!(is_name(text), "{text}");
        }
        for text in ["", "a.b", "a b", "-a", "ä", "a'b"] {
            assert!(!is_name(text), "{text}");
        }
    }
}
