//! One attempt to log in, by a client that knows every plugin and begins with any of them, and
//! what came of it as a client can tell.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use pointsman::protocol::auth::{self, CACHING_SHA2, NATIVE, Password, SHA256};
use pointsman::protocol::ed25519::{self, CLIENT_ED25519};
use pointsman::protocol::flags::{Capabilities, MariadbCapabilities};
use pointsman::protocol::handshake::{
    ChangeUser, Greeting, HandshakeResponse, NONCE_LEN, SslRequest,
};
use pointsman::protocol::old_password::{OLD, OldHash};
use pointsman::protocol::{packet, reply};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::raw;

/// How a client logs in.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) user: String,
    pub(super) password: Vec<u8>,
    /// The plugin that the client begins with; `None` for a client without plugins.
    pub(super) first: Option<&'static str>,
    pub(super) database: Option<&'static str>,
    /// Whether the client copes with an expired password.
    pub(super) copes_with_expiry: bool,
    /// Log in as this account first, then COM_CHANGE_USER.
    pub(super) from: Option<(&'static str, &'static str)>,
    pub(super) way: Way,
}

/// How a client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// In clear text.
    Clear,
    /// In TLS.
    Tls,
    /// In TLS, with a certificate to show.
    Certificate,
}

/// What clients in TLS go by.
#[derive(Debug)]
pub(super) struct Configs {
    pub(super) tls: Arc<ClientConfig>,
    pub(super) certificate: Arc<ClientConfig>,
}

/// A connection, in TLS or not.
trait Duplex: Read + Write {}
impl<S: Read + Write> Duplex for S {}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Logged in: account, schema and roles, or the error of the question for them.
    In(Result<Option<String>, raw::Refusal>),
    /// Refused; and what a session that goes on nevertheless says it is.
    Refused(raw::Refusal, Option<String>),
    /// Closed without a word.
    Closed,
    /// The client does not know what it was asked for.
    Lost(String),
}

impl Outcome {
    /// Whether the client got in and may ask.
    pub(super) fn is_in(&self) -> bool {
        matches!(self, Self::In(Ok(_)))
    }
}

/// What the client has to go by.
struct Talk<'a> {
    stream: Box<dyn Duplex>,
    /// The number of the response to the greeting.
    seq: u8,
    attempt: &'a Attempt,
    plugin: Vec<u8>,
    nonce: Vec<u8>,
}

/// Logs in at `port` of this machine, in clear text.
pub(super) fn attempt(port: u16, attempt: &Attempt) -> Outcome {
    assert_eq!(attempt.way, Way::Clear, "there is nothing to go by");
    attempt_by(port, attempt, None)
}

/// Logs in at `port` of this machine, in TLS if the attempt says so.
pub(super) fn attempt_by(port: u16, attempt: &Attempt, configs: Option<&Configs>) -> Outcome {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a bound");
    let Some((_, payload)) = raw::read_packet(&mut stream) else { return Outcome::Closed };
    if payload.first() == Some(&0xFF) {
        return Outcome::Refused(raw::refusal(&payload), None);
    }
    let greeting = Greeting::parse(&payload).expect("a greeting");
    let capabilities = capabilities(attempt);
    let (stream, seq): (Box<dyn Duplex>, u8) = match attempt.way {
        Way::Clear => (Box::new(stream), 1),
        Way::Tls => (in_tls(stream, capabilities, configs.map(|by| &by.tls)), 2),
        Way::Certificate => (in_tls(stream, capabilities, configs.map(|by| &by.certificate)), 2),
    };
    let nonce = greeting.nonce.to_vec();
    let mut talk = Talk { stream, seq, attempt, plugin: Vec::new(), nonce };
    let Some((user, password)) = attempt.from else {
        let first = attempt.first.unwrap_or("mysql_native_password");
        talk.plugin = first.as_bytes().to_vec();
        let answer = talk.first_answer(&greeting.plugin);
        talk.respond(capabilities, &attempt.user, answer, attempt.database, attempt.first);
        return talk.finish();
    };
    let before = Attempt {
        user: user.to_owned(),
        password: password.as_bytes().to_vec(),
        first: attempt.first.map(|_| "caching_sha2_password"),
        database: None,
        ..attempt.clone()
    };
    talk.attempt = &before;
    talk.plugin = before.first.unwrap_or("mysql_native_password").as_bytes().to_vec();
    let answer = talk.first_answer(&greeting.plugin);
    talk.respond(capabilities, user, answer, None, before.first);
    if let Err(outcome) = talk.dialogue() {
        // A client without plugins, on a server that needs one.
        return outcome;
    }
    talk.attempt = attempt;
    let first = attempt.first.unwrap_or("mysql_native_password");
    talk.plugin = first.as_bytes().to_vec();
    let auth = talk.first_answer(first.as_bytes());
    let mut out = Vec::new();
    ChangeUser {
        user: attempt.user.as_bytes().to_vec(),
        auth,
        database: attempt.database.map(|name| name.as_bytes().to_vec()),
        collation: Some(45),
        plugin: attempt.first.map(|name| name.as_bytes().to_vec()),
        attributes: Vec::new(),
    }
    .encode(&mut out, capabilities);
    talk.send(&out);
    talk.finish()
}

fn capabilities(attempt: &Attempt) -> Capabilities {
    let mut capabilities = Capabilities::PROTOCOL_41
        .with(Capabilities::LONG_PASSWORD)
        .with(Capabilities::SECURE_CONNECTION)
        .with(Capabilities::TRANSACTIONS);
    if attempt.way != Way::Clear {
        capabilities = capabilities.with(Capabilities::SSL);
    }
    if attempt.first.is_some() {
        capabilities = capabilities.with(Capabilities::PLUGIN_AUTH);
    }
    if attempt.database.is_some() {
        capabilities = capabilities.with(Capabilities::CONNECT_WITH_DB);
    }
    if attempt.copes_with_expiry {
        capabilities = capabilities.with(Capabilities::CAN_HANDLE_EXPIRED_PASSWORDS);
    }
    capabilities
}

/// Asks for TLS; the handshake comes with the first byte that is sent.
fn in_tls(
    mut plain: TcpStream,
    capabilities: Capabilities,
    config: Option<&Arc<ClientConfig>>,
) -> Box<dyn Duplex> {
    let config = config.expect("something to go by").clone();
    let mariadb = MariadbCapabilities(0);
    let request = SslRequest { capabilities, mariadb, max_packet: 1 << 24, collation: 45 };
    let mut out = Vec::new();
    request.encode(&mut out, 1);
    plain.write_all(&out).expect("a request");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let connection = ClientConnection::new(config, name).expect("TLS");
    Box::new(StreamOwned::new(connection, plain))
}

impl Talk<'_> {
    fn send(&mut self, bytes: &[u8]) {
        // A peer that has closed is found out by the next read.
        let _ = self.stream.write_all(bytes);
    }

    fn respond(
        &mut self,
        capabilities: Capabilities,
        user: &str,
        auth: Vec<u8>,
        database: Option<&str>,
        plugin: Option<&str>,
    ) {
        let mut out = Vec::new();
        HandshakeResponse {
            capabilities,
            mariadb: MariadbCapabilities(0),
            max_packet: 1 << 24,
            collation: 45,
            user: user.as_bytes().to_vec(),
            auth,
            database: database.map(|name| name.as_bytes().to_vec()),
            plugin: plugin.map(|name| name.as_bytes().to_vec()),
            attributes: Vec::new(),
            zstd_level: 0,
        }
        .encode(&mut out, self.seq);
        self.send(&out);
    }

    /// As client libraries do it: with the nonce of a greeting for another plugin only plugins
    /// with nonces of that length answer at once.
    fn first_answer(&self, greeted: &[u8]) -> Vec<u8> {
        let same = self.plugin == greeted;
        match self.plugin.as_slice() {
            NATIVE | CACHING_SHA2 => self.answer(),
            _ if same => self.answer(),
            _ => Vec::new(),
        }
    }

    /// The answer of the plugin at work to the last nonce.
    fn answer(&self) -> Vec<u8> {
        let password = &self.attempt.password;
        let nonce: Option<[u8; NONCE_LEN]> = self.nonce.as_slice().try_into().ok();
        match (self.plugin.as_slice(), nonce) {
            (CLIENT_ED25519, _) => ed25519::sign(password, &self.nonce).to_vec(),
            (NATIVE | CACHING_SHA2, _) if password.is_empty() => Vec::new(),
            (OLD, _) if password.is_empty() => Vec::new(),
            (OLD, Some(nonce)) => [&OldHash::of(password).token(&nonce)[..], b"\0"].concat(),
            (SHA256, _) if password.is_empty() => vec![0],
            (NATIVE, Some(nonce)) => auth::native_token(&auth::stage1(password), &nonce).to_vec(),
            (CACHING_SHA2, Some(nonce)) => auth::caching_sha2_token(password, &nonce).to_vec(),
            (SHA256, _) if self.attempt.way != Way::Clear => [password, &b"\0"[..]].concat(),
            (SHA256, _) => vec![1],
            (b"mysql_clear_password" | b"dialog", _) => [password, &b"\0"[..]].concat(),
            _ => Vec::new(),
        }
    }

    /// Goes on until the server has decided: `Ok` when the client is in.
    fn dialogue(&mut self) -> Result<(), Outcome> {
        loop {
            let read = raw::read_packet(&mut self.stream);
            let Some((seq, payload)) = read else { return Err(Outcome::Closed) };
            let seq = seq.wrapping_add(1);
            let answer = match (payload.first(), self.plugin.as_slice()) {
                (Some(&reply::OK), _) => return Ok(()),
                (Some(&reply::ERR), _) => {
                    return Err(Outcome::Refused(raw::refusal(&payload), None));
                }
                // To the nonce of the login.
                (Some(&reply::EOF), _) if payload.len() == 1 => {
                    self.plugin = OLD.to_vec();
                    self.answer()
                }
                (Some(&reply::EOF), _) => {
                    let mut parts = payload[1..].splitn(2, |byte| *byte == 0);
                    self.plugin = parts.next().unwrap_or_default().to_vec();
                    let nonce = parts.next().unwrap_or_default();
                    // A NUL follows nonces of 20 bytes; those of 32 are random to their end.
                    self.nonce = nonce[..nonce.len().min(32)].to_vec();
                    if nonce.len() == NONCE_LEN + 1 {
                        self.nonce.truncate(NONCE_LEN);
                    }
                    let known = [NATIVE, OLD, CACHING_SHA2, SHA256, CLIENT_ED25519, b"dialog"];
                    if !known.contains(&self.plugin.as_slice()) {
                        let plugin = String::from_utf8_lossy(&self.plugin).into_owned();
                        return Err(Outcome::Lost(plugin));
                    }
                    self.answer()
                }
                (Some(1), CACHING_SHA2) if payload == [1, 3] => continue,
                (Some(1), CACHING_SHA2) if payload == [1, 4] => match self.attempt.way {
                    Way::Clear => vec![2],
                    Way::Tls | Way::Certificate => [&self.attempt.password, &b"\0"[..]].concat(),
                },
                (Some(1), CACHING_SHA2 | SHA256) if payload.starts_with(b"\x01-----BEGIN") => {
                    let password = Password::new(self.attempt.password.clone());
                    let nonce = self.nonce.as_slice().try_into().expect("a nonce");
                    match auth::encrypt_with_pem(&payload[1..], &password, &nonce) {
                        Ok(block) => block,
                        Err(_) => return Err(Outcome::Lost("too long for the key".to_owned())),
                    }
                }
                // Further questions of `dialog`.
                (Some(_), b"dialog") => [&self.attempt.password, &b"\0"[..]].concat(),
                _ => return Err(Outcome::Lost(format!("{payload:?}"))),
            };
            let mut out = Vec::new();
            packet::write(&mut out, seq, &answer);
            self.send(&out);
        }
    }

    fn finish(mut self) -> Outcome {
        let decided = self.dialogue();
        let question = "SELECT CONCAT_WS('|', CURRENT_USER(), DATABASE(), CURRENT_ROLE())";
        let answer = raw::ask(&mut self.stream, question);
        match decided {
            Ok(()) => Outcome::In(answer),
            Err(Outcome::Refused(refusal, _)) => Outcome::Refused(refusal, answer.ok().flatten()),
            Err(outcome) => outcome,
        }
    }
}
