//! Host patterns of accounts: which of them match a peer, and which of those the server takes.
//!
//! Source: "Specifying Account Names" and "Access Control, Stage 1" of the MySQL manual and the
//! account name page of MariaDB's; the order is that of both servers' sorted account lists.

use std::cmp::Reverse;
use std::net::IpAddr;

/// Who connects, as a server sees it: by address, by resolved name, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The resolved host name, `localhost` for unix sockets; `None` when names are not resolved.
    pub name: Option<String>,
    /// The address; `None` for unix sockets, or where it is not known.
    pub ip: Option<IpAddr>,
}

/// How specific a pattern is; the greater, the earlier the server tries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    class: Class,
    /// Prefix bits of a network, or literal characters before the first wildcard.
    literal: usize,
    /// Of two wildcard patterns with equal beginnings the one with fewer wildcards is tried first.
    wildcards: Reverse<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Empty,
    Anything,
    Wildcards,
    Network,
    Exact,
}

// === impls ===

impl Peer {
    /// A peer as `USER()` names its host: an address, or a name. `localhost` over TCP has the
    /// loopback address too.
    #[must_use]
    pub fn seen_as(host: &str, over_tcp: bool) -> Self {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Self { name: None, ip: Some(ip.to_canonical()) };
        }
        let loopback = over_tcp && host.eq_ignore_ascii_case("localhost");
        let ip = loopback.then_some(IpAddr::from([127, 0, 0, 1]));
        Self { name: (!host.is_empty()).then(|| host.to_owned()), ip }
    }

    /// A peer whose address a PROXY header announces. Servers resolve loopback to `localhost`;
    /// other names are not known here.
    #[must_use]
    pub fn at(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        let name = ip.is_loopback().then(|| "localhost".to_owned());
        Self { name, ip: Some(ip) }
    }
}

/// Whether the host pattern of an account matches `peer`.
#[must_use]
pub fn matches(pattern: &str, peer: &Peer) -> bool {
    if pattern.is_empty() || pattern == "%" {
        return true;
    }
    if let Some((network, mask)) = network(pattern) {
        return peer.ip.is_some_and(|ip| {
            ip.is_ipv4() == network.is_ipv4() && bits(ip) & mask == bits(network)
        });
    }
    let by_name = peer.name.as_ref().is_some_and(|name| like(pattern, name));
    by_name || peer.ip.is_some_and(|ip| like(pattern, &ip.to_string()))
}

/// How specific a host pattern is.
#[must_use]
pub fn specificity(pattern: &str) -> Specificity {
    let of =
        |class, literal, wildcards| Specificity { class, literal, wildcards: Reverse(wildcards) };
    if pattern.is_empty() {
        return of(Class::Empty, 0, 0);
    }
    if pattern == "%" {
        return of(Class::Anything, 0, 1);
    }
    if let Some((_, mask)) = network(pattern) {
        let bits = mask.count_ones();
        return of(Class::Network, usize::try_from(bits).unwrap_or(0), 0);
    }
    let mut literal = None;
    let (mut at, mut wildcards) = (0usize, 0usize);
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '%' | '_' => {
                literal.get_or_insert(at);
                wildcards += 1;
            }
            '\\' => {
                characters.next();
            }
            _ => {}
        }
        at += 1;
    }
    match literal {
        Some(literal) => of(Class::Wildcards, literal, wildcards),
        None => of(Class::Exact, at, 0),
    }
}

/// A network and its mask: `10.0.0.0/255.255.255.0`, `10.0.0.0/24`, `2001:db8::/32`. `None` when
/// the pattern is no network, or its address has bits outside of the mask (such a pattern
/// matches nobody).
fn network(pattern: &str) -> Option<(IpAddr, u128)> {
    let (address, mask) = pattern.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let width: u32 = if address.is_ipv4() { 32 } else { 128 };
    let mask = match mask.parse::<u32>() {
        Ok(count) if count <= width => ones(width) & !ones(width - count),
        Ok(_) => return None,
        Err(_) => {
            let mask: IpAddr = mask.parse().ok()?;
            if mask.is_ipv4() != address.is_ipv4() {
                return None;
            }
            bits(mask)
        }
    };
    (bits(address) & mask == bits(address)).then_some((address, mask))
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The lowest `count` bits.
fn ones(count: u32) -> u128 {
    1u128.checked_shl(count).map_or(u128::MAX, |bit| bit - 1)
}

/// SQL's LIKE on host names: `%` any characters, `_` one, `\` takes the next one literally;
/// ASCII letters compare without case.
fn like(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // The classic two-pointer match: on a mismatch go back to the last `%` and let it take one
    // character more. Linear in practice, never exponential.
    let (mut p, mut t) = (0usize, 0usize);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), text.get(t)) {
            (Some('%'), _) => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            (None, None) => return true,
            (Some('_'), Some(_)) => {
                (p, t) = (p + 1, t + 1);
                continue;
            }
            (Some('\\'), Some(character)) if pattern.get(p + 1).is_some() => {
                if pattern.get(p + 1).is_some_and(|next| next.eq_ignore_ascii_case(character)) {
                    (p, t) = (p + 2, t + 1);
                    continue;
                }
            }
            (Some(wanted), Some(character)) if wanted.eq_ignore_ascii_case(character) => {
                (p, t) = (p + 1, t + 1);
                continue;
            }
            (Some(_), None) => return false,
            (Some(_) | None, Some(_)) => {}
        }
        let Some((after, taken)) = retry else { return false };
        retry = Some((after, taken + 1));
        (p, t) = (after, taken + 1);
        if t > text.len() {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: &str) -> Peer {
        Peer::seen_as(host, true)
    }

    #[test]
    fn patterns_match_as_the_manuals_say() {
        let both = Peer { name: Some("a.example.com".into()), ip: "198.51.100.7".parse().ok() };
        let table = [
            ("", "h1.example.net", true),
            ("%", "h1.example.net", true),
            ("h1.example.net", "h1.example.net", true),
            ("H1.Example.NET", "h1.example.net", true),
            ("h1.example.net", "h2.example.net", false),
            ("%.example.net", "h1.example.net", true),
            ("%.example.net", "example.net", false),
            ("x.%", "x.example.com", true),
            ("x_y.%.com", "xzy.a.b.com", true),
            ("%a%b%", "aab", true),
            ("%a%b%", "aaa", false),
            ("h_.example.net", "h12.example.net", false),
            ("a\\_b", "a_b", true),
            ("a\\_b", "axb", false),
            ("198.51.100.177", "198.51.100.177", true),
            ("198.51.100.%", "198.51.100.177", true),
            ("198.51.100.%", "198.51.101.177", false),
            ("198.51.100.0/255.255.255.0", "198.51.100.177", true),
            ("198.51.100.0/255.255.255.0", "198.51.101.177", false),
            ("198.51.100.0/24", "198.51.100.177", true),
            ("198.51.100.2/255.255.255.0", "198.51.100.2", false),
            ("192.0.0.0/255.0.0.0", "192.3.2.1", true),
            ("0.0.0.0/0", "10.1.2.3", true),
            ("2001:db8::/32", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("10.0.0.0/33", "10.0.0.0", false),
            ("::1", "::1", true),
            ("localhost", "localhost", true),
            ("127.0.0.1", "localhost", true),
            ("localhost", "127.0.0.1", false),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
        ];
        for (pattern, host, expected) in table {
            assert_eq!(matches(pattern, &peer(host)), expected, "{pattern:?} for {host}");
        }
        assert!(matches("198.51.100.%", &both) && matches("%.example.com", &both));
        let unix = Peer::seen_as("localhost", false);
        assert!(matches("localhost", &unix) && !matches("127.0.0.1", &unix));
        let announced = Peer::at("127.0.0.1".parse().expect("an address"));
        assert!(matches("localhost", &announced) && matches("127.0.0.%", &announced));
    }

    #[test]
    fn the_most_specific_pattern_comes_first() {
        let sorted = [
            "198.51.100.177",
            "198.51.100.0/25",
            "198.51.100.0/255.255.255.0",
            "198.0.0.0/8",
            "198.51.100.%",
            "198.51.%",
            "h_.example.net",
            "h%.example.%",
            "%.example.net",
            "%",
            "",
        ];
        let mut shuffled = sorted;
        shuffled.reverse();
        shuffled.sort_by_key(|pattern| Reverse(specificity(pattern)));
        assert_eq!(shuffled, sorted);
    }

    proptest::proptest! {
        #[test]
        fn any_pattern_ends_and_an_exact_one_matches_itself(
            pattern in "[a%_\\\\/.0-9]{0,40}",
            host in "[a-z0-9.]{1,60}",
        ) {
            let _ = (matches(&pattern, &peer(&host)), specificity(&pattern));
            let itself = Peer { name: Some(host.clone()), ip: None };
            proptest::prop_assert!(matches(&host, &itself));
        }
    }
}
