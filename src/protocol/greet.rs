//! The server's side of a login, as a machine without I/O.
//!
//! Its owner hands it packets and does what each [`Step`] says: send bytes, look up the
//! account, check a password. The machine ends in [`Step::Done`], after which the owner sends
//! the OK packet itself (it knows status and tracked changes), or in [`Step::Denied`], after
//! which it sends the refusal (it knows the host's name).
//!
//! The account chooses the plugin, never the peer. An unknown user goes through the same
//! dialogue as a known one.

use std::sync::Arc;

use super::auth::{self, CACHING_SHA2, Credential, NATIVE, Password, RsaKey, SHA256};
use super::errno::SqlError;
use super::flags::{Capabilities, MariadbCapabilities, Status};
use super::handshake::{
    AuthMoreData, AuthSwitch, ChangeUser, Greeting, HandshakeResponse, LOGIN_PACKET_MAX, NONCE_LEN,
    SslRequest,
};
use super::old_password::{OLD, OldHash};
use super::{Malformed, packet, reply};

/// AuthMoreData of caching_sha2_password: the fast answer was right.
const FAST_OK: &[u8] = &[3];
/// AuthMoreData of caching_sha2_password: the password itself is needed.
const FULL_NEEDED: &[u8] = &[4];
/// A client without TLS asks for the public key.
const KEY_REQUEST: &[u8] = &[2];
/// The same of sha256_password.
const SHA256_KEY_REQUEST: &[u8] = &[1];

/// What the server side offers.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The version to announce.
    pub version: Vec<u8>,
    /// The id of the connection.
    pub connection_id: u32,
    /// What is offered; with SSL set, a TLS request is answered with [`Step::Tls`].
    pub capabilities: Capabilities,
    /// MariaDB's further capabilities; announced only when LONG_PASSWORD is unset.
    pub mariadb: MariadbCapabilities,
    /// The default collation.
    pub collation: u8,
    /// The status to announce.
    pub status: Status,
    /// The default plugin, which most clients answer with at once.
    pub plugin: Vec<u8>,
    /// The key for passwords on connections that are not secure.
    pub rsa: Arc<RsaKey>,
    /// Whether the transport hides its content (a unix socket): passwords come in clear then.
    pub secure: bool,
    /// SHA-256 of the certificate that TLS is offered with, where clients expect to be told how
    /// it goes with their password.
    pub certificate: Option<[u8; 32]>,
    /// The nonce for a switch of plugins: fresh, so that nobody who saw the greeting knows it.
    pub switch_nonce: [u8; NONCE_LEN],
}

/// What the client said of itself.
#[derive(Clone, Default)]
pub struct Hello {
    /// The user's name.
    pub user: Vec<u8>,
    /// The schema to use.
    pub database: Option<Vec<u8>>,
    /// The client's capabilities as far as they were offered.
    pub capabilities: Capabilities,
    /// MariaDB's further capabilities as far as they were offered.
    pub mariadb: MariadbCapabilities,
    /// The session's collation.
    pub collation: u8,
    /// A collation above 255, which only a change of user can name; a server link needs
    /// SET NAMES for it.
    pub wide_collation: Option<u16>,
    /// The connection attributes as they came.
    pub attributes: Vec<u8>,
    /// The longest packet that the client takes, bytes.
    pub max_packet: u32,
    /// The level of zstd that the client asks for, where it is agreed on.
    pub zstd_level: u8,
    /// The plugin that the client began with.
    pub plugin: Option<Vec<u8>>,
    /// The last nonce that the client was given.
    nonce: [u8; NONCE_LEN],
    /// The last one of its login: the C libraries answer it in every change of user, the one of
    /// a switch of plugins notwithstanding.
    login_nonce: [u8; NONCE_LEN],
}

impl Hello {
    /// Whether the client answers as nearly all do: by mysql_native_password, or by no plugin.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        self.plugin.as_deref().is_none_or(|plugin| plugin == NATIVE)
    }

    /// Whether the session's character set is one that no client may speak, since its characters
    /// hold zero bytes: ucs2, utf16, utf16le and utf32. A server refuses it with 1231, in a
    /// change of user as well.
    #[must_use]
    pub const fn speaks_in_wide_characters(&self) -> bool {
        matches!(self.collation, 35 | 54..=56 | 60..=62 | 90 | 101..=124 | 128..=151 | 159..=183)
    }
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("user", &String::from_utf8_lossy(&self.user))
            .field("database", &self.database.as_deref().map(String::from_utf8_lossy))
            .field("capabilities", &self.capabilities)
            .field("plugin", &self.plugin.as_deref().map(String::from_utf8_lossy))
            .finish_non_exhaustive()
    }
}

/// What is known of the account that the client names.
#[derive(Debug, Clone)]
pub enum Account {
    /// None; `plugin` is the one that a server would go on with, its default.
    Unknown {
        /// The plugin's name.
        plugin: Vec<u8>,
    },
    /// mysql_native_password.
    Native {
        /// SHA1(SHA1(password)); `None` for the empty password.
        double_sha1: Option<[u8; 20]>,
    },
    /// mysql_old_password.
    Old {
        /// What is stored; `None` for the empty password.
        hash: Option<OldHash>,
    },
    /// caching_sha2_password.
    CachingSha2 {
        /// The password, when an earlier full exchange has shown it to be right.
        cached: Option<Password>,
        /// Whether the account has the empty password.
        empty: bool,
    },
    /// sha256_password: the password itself is always needed.
    Sha256 {
        /// Whether the account has the empty password.
        empty: bool,
    },
    /// A plugin that pointsman can not stand in for: the client answers the server itself.
    Relayed,
}

/// What the owner does next.
#[derive(Debug)]
pub enum Step {
    /// Send these bytes and go on with the client's next packet.
    Send(Vec<u8>),
    /// Begin TLS (nothing may be in the read buffer behind the request), then go on with the
    /// client's next packet.
    Tls,
    /// Look up the account of [`Greet::hello`] and call [`Greet::account`].
    NeedAccount,
    /// Find out whether the password is right and call [`Greet::checked`].
    CheckPassword(Password),
    /// The client is who it says: send these bytes (may be none), then the OK packet.
    Done {
        /// What goes before the OK packet.
        send: Vec<u8>,
        /// With what to log in to servers.
        credential: Credential,
    },
    /// Log in to the primary with the client's own answers: put each of the server's questions
    /// into [`Greet::question`], and hand over each [`Step::Answer`].
    Relay,
    /// The client's answer to the server's question.
    Answer(Vec<u8>),
    /// Refuse with 1045 and close.
    Denied,
}

#[derive(Debug)]
enum State {
    /// The client's first packet comes next.
    Greeted,
    /// The owner looks up the account.
    NeedAccount,
    /// An answer to a switched plugin comes next.
    Switched(Target),
    /// The password comes next, encrypted unless the transport is secure.
    Full { key_sent: bool },
    /// The owner checks the password.
    Checking(Password),
    /// The client's answer to a server comes next.
    Relaying,
    /// Done or denied.
    Over,
}

/// What an answer is compared with.
#[derive(Debug)]
enum Target {
    Native { stored: Option<[u8; 20]> },
    Old { stored: Option<OldHash> },
    CachingSha2 { cached: Option<Password>, empty: bool },
    Sha256 { empty: bool },
}

impl Target {
    const fn plugin(&self) -> &'static [u8] {
        match self {
            Self::Native { .. } => NATIVE,
            Self::Old { .. } => OLD,
            Self::CachingSha2 { .. } => CACHING_SHA2,
            Self::Sha256 { .. } => SHA256,
        }
    }
}

/// One login, or one change of user.
#[derive(Debug)]
pub struct Greet {
    offer: Offer,
    hello: Hello,
    /// The client's first answer, until it is compared.
    answer: Vec<u8>,
    /// The answer that was compared was not blank.
    used_password: bool,
    state: State,
    seq: u8,
    tls: bool,
    /// A change of user on a connection whose client can be challenged anew.
    again: bool,
    unknown: bool,
}

impl Greet {
    /// Begins a login; the bytes are the greeting. `nonce` comes from [`auth::nonce`].
    #[must_use]
    pub fn new(offer: Offer, nonce: [u8; NONCE_LEN]) -> (Self, Vec<u8>) {
        let mut first = Vec::new();
        let seq = Greeting {
            version: offer.version.clone(),
            connection_id: offer.connection_id,
            nonce,
            capabilities: offer.capabilities,
            mariadb: offer.mariadb,
            collation: offer.collation,
            status: offer.status,
            plugin: offer.plugin.clone(),
        }
        .encode(&mut first);
        let hello = Hello { nonce, login_nonce: nonce, ..Hello::default() };
        (Self::begin(offer, hello, seq), first)
    }

    /// Begins a change of user (COM_CHANGE_USER) on the connection of `previous`; `raw` is what
    /// follows the command byte. The owner looks up the account next, as after
    /// [`Step::NeedAccount`]. The client is challenged anew unless it has answered the nonce of
    /// its login.
    ///
    /// # Errors
    /// 1043 when the packet does not fit.
    pub fn change_user(
        offer: Offer,
        previous: &Hello,
        raw: &[u8],
        nonce: [u8; NONCE_LEN],
    ) -> Result<Self, SqlError> {
        let request = ChangeUser::parse(raw, previous.capabilities).map_err(refusal)?;
        let plugged = previous.capabilities.has(Capabilities::PLUGIN_AUTH);
        let narrow = request.collation.and_then(|wide| u8::try_from(wide).ok());
        let hello = Hello {
            user: request.user,
            database: request.database,
            collation: narrow.unwrap_or(offer.collation),
            wide_collation: request.collation.filter(|wide| *wide > u16::from(u8::MAX)),
            attributes: request.attributes,
            plugin: request.plugin,
            // A client without plugins can not be challenged anew.
            nonce: if plugged { nonce } else { previous.nonce },
            ..previous.clone()
        };
        // Servers prove their certificate at the login only.
        let offer = Offer { certificate: None, ..offer };
        let mut greet = Self::begin(offer, hello, 1);
        greet.answer = request.auth;
        greet.again = plugged;
        greet.state = State::NeedAccount;
        Ok(greet)
    }

    fn begin(offer: Offer, hello: Hello, seq: u8) -> Self {
        let (tls, again, unknown) = (false, false, false);
        let (answer, used_password) = (Vec::new(), false);
        Self {
            offer,
            hello,
            answer,
            used_password,
            state: State::Greeted,
            seq,
            tls,
            again,
            unknown,
        }
    }

    /// Whether the answer that was judged, or was to be, held a password, as the text of a
    /// refusal tells.
    #[must_use]
    pub fn used_password(&self) -> bool {
        self.used_password || !matches!(self.answer.as_slice(), [] | [0])
    }

    /// What the client said; empty before [`Step::NeedAccount`].
    #[must_use]
    pub const fn hello(&self) -> &Hello {
        &self.hello
    }

    /// What the OK packet is to say of our certificate; empty where nothing is expected, and for
    /// an account without a password. See [`auth::certificate_proof`].
    #[must_use]
    pub fn certificate_proof(&self, verifier: Option<&[u8]>) -> Vec<u8> {
        match (self.offer.certificate, verifier) {
            (Some(fingerprint), Some(verifier)) => {
                auth::certificate_proof(verifier, &self.hello.nonce, &fingerprint)
            }
            (None, _) | (_, None) => Vec::new(),
        }
    }

    /// TLS has begun, with this certificate (its SHA-256), and the client may expect it to be
    /// proved.
    pub fn proves(&mut self, fingerprint: [u8; 32]) {
        self.offer.certificate = Some(fingerprint);
    }

    /// The sequence number of the next packet, for the OK or ERR packet that the owner sends.
    #[must_use]
    pub const fn next_seq(&self) -> u8 {
        self.seq
    }

    /// Takes the client's next packet.
    ///
    /// # Errors
    /// What to send to the client (with [`Greet::next_seq`] and the capabilities of
    /// [`Greet::hello`]) before closing.
    pub fn on_packet(&mut self, seq: u8, payload: &[u8]) -> Result<Step, SqlError> {
        if seq != self.seq {
            return Err(SqlError::packets_out_of_order());
        }
        self.seq = seq.wrapping_add(1);
        if payload.len() > LOGIN_PACKET_MAX {
            return Err(SqlError::packet_too_large());
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::Greeted => self.on_response(payload),
            State::Switched(target) => Ok(self.compare(target, payload)),
            State::Full { key_sent } => Ok(self.on_password(key_sent, payload)),
            State::Relaying => Ok(Step::Answer(payload.to_vec())),
            State::NeedAccount | State::Checking(_) | State::Over => {
                Err(SqlError::bad_handshake("a packet out of turn"))
            }
        }
    }

    fn on_response(&mut self, payload: &[u8]) -> Result<Step, SqlError> {
        if SslRequest::is_one(payload) && !self.tls {
            if !self.offer.capabilities.has(Capabilities::SSL) {
                return Err(SqlError::bad_handshake("TLS was not offered"));
            }
            self.tls = true;
            self.offer.secure = true;
            self.state = State::Greeted;
            return Ok(Step::Tls);
        }
        let response = HandshakeResponse::parse(payload).map_err(refusal)?;
        if response.capabilities.has(Capabilities::SSL) && !self.tls {
            return Err(SqlError::bad_handshake("a login that claims TLS without it"));
        }
        self.hello = Hello {
            user: response.user,
            database: response.database,
            capabilities: response.capabilities.and(self.offer.capabilities),
            mariadb: response.mariadb.and(self.offer.mariadb),
            collation: response.collation,
            wide_collation: None,
            attributes: response.attributes,
            max_packet: response.max_packet,
            zstd_level: response.zstd_level,
            plugin: response.plugin,
            nonce: self.hello.nonce,
            login_nonce: self.hello.login_nonce,
        };
        self.answer = response.auth;
        self.state = State::NeedAccount;
        Ok(Step::NeedAccount)
    }

    /// Goes on with the account that the owner has found.
    ///
    /// # Errors
    /// 1251 when the client can not speak the account's plugin, or pointsman can not.
    pub fn account(&mut self, account: Account) -> Result<Step, SqlError> {
        if !matches!(self.state, State::NeedAccount) {
            return Err(SqlError::bad_handshake("an account out of turn"));
        }
        let target = match account {
            Account::Native { double_sha1 } => Target::Native { stored: double_sha1 },
            Account::Old { hash } => return Ok(self.old(hash)),
            Account::CachingSha2 { cached, empty } => Target::CachingSha2 { cached, empty },
            Account::Unknown { plugin } => {
                self.unknown = true;
                match plugin == CACHING_SHA2 {
                    true => Target::CachingSha2 { cached: None, empty: false },
                    // No password hashes to this.
                    false => Target::Native { stored: Some([0; 20]) },
                }
            }
            Account::Sha256 { empty } => Target::Sha256 { empty },
            Account::Relayed => return self.relay(),
        };
        let began_with = self.hello.plugin.as_deref().unwrap_or(NATIVE);
        let answer = std::mem::take(&mut self.answer);
        // MySQL's client library names its own plugin when it lacks the greeting's, and then
        // sends no answer, as the nonce was meant for another: that is no empty password.
        let unanswered =
            self.offer.plugin != target.plugin() && matches!(answer.as_slice(), [] | [0]);
        if began_with == target.plugin() && !self.again && !unanswered {
            return Ok(self.compare(target, &answer));
        }
        if !self.hello.capabilities.has(Capabilities::PLUGIN_AUTH) {
            if target.plugin() == NATIVE {
                return Ok(self.compare(target, &answer));
            }
            return Err(self.too_old());
        }
        if !self.again {
            self.hello.nonce = self.offer.switch_nonce;
            self.hello.login_nonce = self.offer.switch_nonce;
        }
        if self.again && began_with == NATIVE && !matches!(answer.as_slice(), [] | [0]) {
            // Both families judge such an answer by the nonce of the login. One that is wrong,
            // or to another nonce, is asked for anew.
            if let Target::Native { stored: Some(stored) } = &target
                && let Some(stage1) = auth::native_recover(&answer, &self.hello.login_nonce, stored)
            {
                self.used_password = true;
                self.state = State::Over;
                return Ok(self.done(Credential::Sha1(stage1)));
            }
        }
        let mut out = Vec::new();
        self.seq = AuthSwitch::encode(&mut out, self.seq, target.plugin(), &self.hello.nonce);
        self.state = State::Switched(target);
        Ok(Step::Send(out))
    }

    /// Nobody is challenged anew for mysql_old_password: the answer is to the login's nonce, and a
    /// client that knows of no plugin, or the usual one, is asked by a byte (MariaDB, measured).
    fn old(&mut self, stored: Option<OldHash>) -> Step {
        self.hello.nonce = self.hello.login_nonce;
        let answer = std::mem::take(&mut self.answer);
        // As for other plugins: who lacks the greeting's names its own and sends nothing yet.
        let unanswered = stored.is_some() && !self.again && matches!(answer.as_slice(), [] | [0]);
        let target = Target::Old { stored };
        let mut out = Vec::new();
        self.seq = match self.hello.plugin.as_deref().unwrap_or(NATIVE) {
            OLD if !unanswered => return self.compare(target, &answer),
            NATIVE => packet::write(&mut out, self.seq, &[reply::EOF]),
            _ => AuthSwitch::encode(&mut out, self.seq, OLD, &self.hello.nonce),
        };
        self.state = State::Switched(target);
        Step::Send(out)
    }

    fn relay(&mut self) -> Result<Step, SqlError> {
        if !self.hello.capabilities.has(Capabilities::PLUGIN_AUTH) {
            return Err(self.too_old());
        }
        self.used_password = !matches!(self.answer.as_slice(), [] | [0]);
        self.state = State::Relaying;
        Ok(Step::Relay)
    }

    /// A question of the server's as a packet for the client, whose next packet is the answer.
    pub fn question(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.seq = packet::write(&mut out, self.seq, payload);
        self.state = State::Relaying;
        out
    }

    /// The client has no plugins and the account needs one; each family says it in its way.
    fn too_old(&self) -> SqlError {
        let mariadb = self.offer.version.windows(7).any(|part| part == b"MariaDB");
        let family = if mariadb { "MariaDB" } else { "MySQL" };
        SqlError::unsupported_authentication(&format!("consider upgrading {family} client"))
    }

    /// Goes on with the owner's judgement of the password.
    pub fn checked(&mut self, accepted: bool) -> Step {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Checking(password) if accepted && !self.unknown => {
                let credential = match password.is_empty() {
                    true => Credential::Empty,
                    false => Credential::Password(password),
                };
                Step::Done { send: Vec::new(), credential }
            }
            _ => Step::Denied,
        }
    }

    fn compare(&mut self, target: Target, answer: &[u8]) -> Step {
        self.state = State::Over;
        let blank = matches!(answer, [] | [0]);
        self.used_password = !blank;
        match target {
            Target::Native { stored } => {
                let against = stored.unwrap_or([0; 20]);
                let stage1 = auth::native_recover(answer, &self.hello.nonce, &against);
                match (stored, stage1) {
                    (None, _) if blank => self.done(Credential::Empty),
                    (Some(_), Some(stage1)) => self.done(Credential::Sha1(stage1)),
                    (None | Some(_), _) => Step::Denied,
                }
            }
            Target::Old { stored } => match stored {
                None if blank => self.done(Credential::Empty),
                Some(hash) if hash.is_met_by(answer, &self.hello.nonce) => {
                    self.done(Credential::Old(hash))
                }
                None | Some(_) => Step::Denied,
            },
            Target::CachingSha2 { empty, .. } | Target::Sha256 { empty } if blank => match empty {
                true => self.done(Credential::Empty),
                false => Step::Denied,
            },
            // The answer is the password already, or the request for the key.
            Target::Sha256 { .. } => self.on_password(false, answer),
            Target::CachingSha2 { .. } if answer.len() != 32 => Step::Denied,
            Target::CachingSha2 { cached, .. } => {
                let known = cached.filter(|known| {
                    auth::caching_sha2_verify(answer, &self.hello.nonce, known.expose())
                });
                match known {
                    Some(known) => {
                        let send = self.more(FAST_OK);
                        Step::Done { send, credential: Credential::Password(known) }
                    }
                    None => {
                        self.state = State::Full { key_sent: false };
                        Step::Send(self.more(FULL_NEEDED))
                    }
                }
            }
        }
    }

    fn done(&self, credential: Credential) -> Step {
        match self.unknown {
            true => Step::Denied,
            false => Step::Done { send: Vec::new(), credential },
        }
    }

    fn on_password(&mut self, key_sent: bool, payload: &[u8]) -> Step {
        if matches!(payload, KEY_REQUEST | SHA256_KEY_REQUEST) && !key_sent {
            self.state = State::Full { key_sent: true };
            let pem = self.offer.rsa.public_pem().to_owned();
            return Step::Send(self.more(pem.as_bytes()));
        }
        let password = match self.offer.secure && !key_sent {
            true => auth::clear_password(payload),
            false => self.offer.rsa.decrypt(payload, &self.hello.nonce),
        };
        match password {
            Some(password) => {
                self.state = State::Checking(password.clone());
                Step::CheckPassword(password)
            }
            None => Step::Denied,
        }
    }

    fn more(&mut self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.seq = AuthMoreData { data }.encode(&mut out, self.seq);
        out
    }
}

fn refusal(malformed: Malformed) -> SqlError {
    SqlError::bad_handshake(malformed.what)
}

#[cfg(test)]
mod tests;
