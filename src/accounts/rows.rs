//! Account rows as servers store them, and the choice among several of one user. Pure.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD as STANDARD_NO_PAD;
use serde::Deserialize;

use crate::accounts::host::{self, Peer};
use crate::accounts::{AccountFacts, Requirement};

/// Plugins that let in by the operating system's user: never over TCP, and never through us.
const SOCKETS: [&str; 2] = ["unix_socket", "auth_socket"];

/// A hash that no password has, for stored texts that are none (`invalid`): they let nobody in,
/// while a missing hash would read as an empty password.
pub(super) const NO_PASSWORD: [u8; 20] = [0; 20];

/// One account: a user at a host pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRow {
    /// An account with an empty user name, which matches every user.
    pub anonymous: bool,
    /// What logging in takes.
    pub facts: AccountFacts,
}

/// `mysql.global_priv.Priv`; what is not needed is ignored.
#[derive(Debug, Deserialize)]
struct Privileges {
    #[serde(default)]
    is_role: bool,
    #[serde(default)]
    account_locked: bool,
    /// Seconds since 1970; 0 when the password has expired by command.
    password_last_changed: Option<i64>,
    /// Days; -1 for the server's default.
    #[serde(default = "by_default")]
    password_lifetime: i64,
    #[serde(default)]
    max_connections: u64,
    #[serde(default)]
    max_user_connections: i64,
    /// -1 and 0: nothing, 1: TLS, 2: a certificate, 3: what the next three say.
    #[serde(default)]
    ssl_type: i64,
    #[serde(default)]
    ssl_cipher: String,
    #[serde(default)]
    x509_issuer: String,
    #[serde(default)]
    x509_subject: String,
    #[serde(default)]
    auth_or: Vec<Authentication>,
    #[serde(flatten)]
    main: Authentication,
}

#[derive(Debug, Deserialize)]
struct Authentication {
    plugin: Option<String>,
    #[serde(default)]
    authentication_string: String,
}

/// The account that a server takes for this peer: the most specific host pattern first, of two
/// equal ones a named user before the anonymous one.
#[must_use]
pub fn choose<'a>(rows: &'a [AccountRow], peer: &Peer) -> Option<&'a AccountRow> {
    let matching = rows.iter().filter(|row| host::matches(&row.facts.host, peer));
    matching.max_by_key(|row| (host::specificity(&row.facts.host), !row.anonymous))
}

/// Reads one row of MariaDB's `mysql.global_priv`; `None` for roles and for text that is not
/// what that table holds. `lifetime` is the server's `default_password_lifetime`, days.
#[must_use]
pub fn of_mariadb(host: &str, user: &[u8], privileges: &str, lifetime: i64) -> Option<AccountRow> {
    let privileges: Privileges = serde_json::from_str(privileges).ok()?;
    if privileges.is_role {
        return None;
    }
    let judged = privileges.judged(lifetime);
    let requires = privileges.requirement();
    let Privileges { auth_or, main, .. } = privileges;
    // An entry without a plugin stands for the one outside of the list.
    let ways: Vec<_> =
        auth_or.iter().map(|way| if way.plugin.is_some() { way } else { &main }).collect();
    let plugin = |way: &Authentication| way.plugin.clone().unwrap_or_default();
    let by_network = |way: &&&Authentication| !SOCKETS.contains(&plugin(way).as_str());
    let several = ways.iter().filter(by_network).count() > 1;
    let socket = ways.iter().any(|way| SOCKETS.contains(&plugin(way).as_str()));
    let way = ways.iter().find(by_network).or_else(|| ways.first()).copied().unwrap_or(&main);
    let authentication = way.authentication_string.clone().into_bytes();
    let mut row = row(host, user, plugin(way), authentication, judged);
    row.facts.several = several;
    row.facts.socket = socket;
    row.facts.requires = requires;
    Some(row)
}

/// What `ssl_type` and its three companions (cipher, issuer, subject) of `mysql.user` demand. A
/// word that is not known demands what nobody has.
#[must_use]
pub fn requirement(ssl_type: &str, specified: [String; 3]) -> Requirement {
    let [cipher, issuer, subject] = specified;
    match ssl_type {
        "" => Requirement::Nothing,
        "ANY" => Requirement::Tls,
        "X509" => Requirement::Certificate,
        "SPECIFIED" => Requirement::Specified { cipher, issuer, subject },
        // Of a server that knows more than we do: nobody has this cipher.
        _ => Requirement::Specified { cipher: "?".to_owned(), issuer, subject },
    }
}

/// The server's default lifetime of passwords, as accounts name it.
const fn by_default() -> i64 {
    -1
}

impl Privileges {
    fn requirement(&self) -> Requirement {
        let word = match self.ssl_type {
            i64::MIN..=0 => "",
            1 => "ANY",
            2 => "X509",
            3 => "SPECIFIED",
            _ => "?",
        };
        let specified = [&self.ssl_cipher, &self.x509_issuer, &self.x509_subject];
        requirement(word, specified.map(String::clone))
    }

    fn judged(&self, lifetime: i64) -> bool {
        let ages = self.password_lifetime > 0 || (self.password_lifetime < 0 && lifetime > 0);
        let limited = self.max_connections != 0 || self.max_user_connections != 0;
        self.account_locked || ages || self.password_last_changed == Some(0) || limited
    }
}

/// Makes a row of the columns of `mysql.user`.
#[must_use]
pub fn row(
    host: &str,
    user: &[u8],
    plugin: String,
    authentication: Vec<u8>,
    judged: bool,
) -> AccountRow {
    let plugin = if plugin.is_empty() { "mysql_native_password".to_owned() } else { plugin };
    let native = plugin == "mysql_native_password";
    // The server has a setting by which it lets such accounts in, or not.
    let judged = judged || plugin == "mysql_old_password";
    let with_password =
        native || ["caching_sha2_password", "sha256_password"].contains(&plugin.as_str());
    let facts = AccountFacts {
        double_sha1: (native && !authentication.is_empty())
            .then(|| double_sha1(&authentication).unwrap_or(NO_PASSWORD)),
        empty: with_password && authentication.is_empty(),
        plugin,
        authentication,
        judged,
        barred: false,
        several: false,
        socket: false,
        requires: Requirement::Nothing,
        host: host.to_owned(),
    };
    AccountRow { anonymous: user.is_empty(), facts }
}

/// `*` and forty hexadecimal digits: SHA1(SHA1(password)).
fn double_sha1(text: &[u8]) -> Option<[u8; 20]> {
    let digits = text.strip_prefix(b"*")?;
    if digits.len() != 40 {
        return None;
    }
    let mut hash = [0u8; 20];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
    }
    Some(hash)
}

/// `P0:salt:key`: the kind of key derivation, its rounds as a power of two over 1024, and in base64
/// the salt and the public key; a client keeps the same, one after the other.
pub(super) fn parsec_verifier(text: &[u8]) -> Option<Vec<u8>> {
    let mut parts = text.split(|byte| *byte == b':');
    let (&[kind, rounds], salt, key) = (parts.next()?, parts.next()?, parts.next()?) else {
        return None;
    };
    let rounds = u8::try_from(char::from(rounds).to_digit(10)?).ok()?;
    let (salt, key) = (STANDARD_NO_PAD.decode(salt).ok()?, STANDARD_NO_PAD.decode(key).ok()?);
    Some([&[kind, rounds], salt.as_slice(), key.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::Shown;

    const HASH: &str = "*5BCB3E6AC345B435C7C2E6B7949A04CE6F6563D3";

    fn mariadb(privileges: &str) -> AccountFacts {
        of_mariadb("%", b"app", privileges, 0).expect("an account").facts
    }

    #[test]
    fn global_priv_rows_are_read() {
        let native = mariadb(&format!(
            r#"{{"access":1,"version_id":101119,"plugin":"mysql_native_password",
               "authentication_string":"{HASH}","password_last_changed":1795407875}}"#
        ));
        assert_eq!(native.double_sha1.map(|hash| hash[0]), Some(0x5b));
        assert!(!native.empty && !native.judged && !native.several);

        let bare = mariadb(r#"{"access":18446744073709551615}"#);
        assert!(bare.empty, "an account without plugin and password");
        assert_eq!(bare.plugin, "mysql_native_password");

        let root = mariadb(
            r#"{"access":1,"plugin":"mysql_native_password","authentication_string":"invalid",
               "auth_or":[{},{"plugin":"unix_socket"}]}"#,
        );
        assert_eq!(root.plugin, "mysql_native_password");
        assert_eq!(root.double_sha1, Some(NO_PASSWORD));
        assert!(!root.empty, "`invalid` is no empty password");

        let second = mariadb(&format!(
            r#"{{"plugin":"mysql_native_password","authentication_string":"{HASH}",
               "auth_or":[{{"plugin":"unix_socket","authentication_string":""}},{{}}]}}"#
        ));
        assert_eq!(second.double_sha1, native.double_sha1, "the only way over a network");
        assert!(!second.several);

        let either = mariadb(&format!(
            r#"{{"plugin":"mysql_native_password","authentication_string":"{HASH}",
               "auth_or":[{{"plugin":"ed25519","authentication_string":"x"}},{{}}]}}"#
        ));
        assert!(either.several);

        let key = mariadb(
            r#"{"plugin":"ed25519","authentication_string":"ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY"}"#,
        );
        assert_eq!((key.plugin.as_str(), key.double_sha1), ("ed25519", None));

        assert!(
            mariadb(r#"{"access":0,"plugin":"mysql_native_password","account_locked":true}"#)
                .judged
        );
        for expired in [r#"{"password_last_changed":0}"#, r#"{"password_lifetime":90}"#] {
            assert!(mariadb(expired).judged, "{expired}");
        }
        let never = r#"{"password_last_changed":1,"password_lifetime":0}"#;
        let default = r#"{"password_last_changed":1,"password_lifetime":-1}"#;
        for (privileges, judged) in [(never, false), (default, true), ("{}", true)] {
            let row = of_mariadb("%", b"app", privileges, 90).expect("an account");
            assert_eq!(row.facts.judged, judged, "{privileges}");
        }
        assert_eq!(of_mariadb("", b"PUBLIC", r#"{"access":0,"is_role":true}"#, 0), None);
        assert_eq!(of_mariadb("%", b"app", "not json", 0), None);
    }

    #[test]
    fn hashes_are_read_strictly() {
        assert!(double_sha1(HASH.as_bytes()).is_some());
        assert!(double_sha1(HASH.to_lowercase().as_bytes()).is_some());
        for bad in ["", "*", "invalid", &HASH[1..], &HASH[..40], &HASH.replace('5', "x")] {
            assert_eq!(double_sha1(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_account_is_chosen_as_servers_choose() {
        let account = |user: &str, host: &str| {
            row(host, user.as_bytes(), String::new(), host.as_bytes().to_vec(), false)
        };
        // The manual's own example: jeffrey from h1 is the anonymous user of h1.
        let rows = [account("jeffrey", "%"), account("", "h1.example.net")];
        let h1 = choose(&rows, &Peer::seen_as("h1.example.net", true)).expect("matches");
        assert!(h1.anonymous);
        let h2 = choose(&rows, &Peer::seen_as("h2.example.net", true)).expect("matches");
        assert!(!h2.anonymous);

        let rows = [account("", "%"), account("app", "%"), account("app", "10.%")];
        let ten = choose(&rows, &Peer::seen_as("10.1.1.1", true)).expect("matches");
        assert_eq!(ten.facts.host, "10.%");
        let other = choose(&rows, &Peer::seen_as("11.1.1.1", true)).expect("matches");
        assert!(!other.anonymous && other.facts.host == "%");
        assert_eq!(choose(&[account("app", "10.%")], &Peer::seen_as("11.1.1.1", true)), None);
    }

    #[test]
    fn requirements_are_read_and_held_against_what_is_shown() {
        let none = Shown::default();
        let tls = Shown { cipher: Some("TLS_AES_256_GCM_SHA384".into()), certificate: None };
        let names = ("/CN=ca".to_owned(), "/CN=app".to_owned());
        let full = Shown { certificate: Some(names), ..tls.clone() };
        let met = |json: &str| {
            let requires = mariadb(json).requires;
            [&none, &tls, &full].map(|shown| requires.is_met(shown))
        };
        for (json, expected) in [
            ("{}", [true, true, true]),
            (r#"{"ssl_type":-1}"#, [true, true, true]),
            (r#"{"ssl_type":0}"#, [true, true, true]),
            (r#"{"ssl_type":1}"#, [false, true, true]),
            (r#"{"ssl_type":2}"#, [false, false, true]),
            (r#"{"ssl_type":3,"x509_subject":"/CN=app"}"#, [false, false, true]),
            (r#"{"ssl_type":3,"x509_subject":"/CN=ap"}"#, [false; 3]),
            (
                r#"{"ssl_type":3,"x509_issuer":"/CN=ca","x509_subject":"/CN=app"}"#,
                [false, false, true],
            ),
            (r#"{"ssl_type":3,"x509_issuer":"/CN=app"}"#, [false; 3]),
            (r#"{"ssl_type":3,"ssl_cipher":"TLS_AES_256_GCM_SHA384"}"#, [false, true, true]),
            (r#"{"ssl_type":3,"ssl_cipher":"TLS_AES_128_GCM_SHA256"}"#, [false; 3]),
            (r#"{"ssl_type":4}"#, [false; 3]),
        ] {
            assert_eq!(met(json), expected, "{json}");
        }
    }
}
