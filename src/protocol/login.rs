//! The client's side of a login, as a machine without I/O.
//!
//! It answers only what its credential allows, and never gives a password to a server in a
//! form that a listener, or a server that is not who it seems, can read: no clear text outside
//! a secure transport, no scheme before 4.1, an RSA key only as [`RsaPolicy`] says.

use super::auth::{self, CACHING_SHA2, Credential, CryptoFailed, NATIVE, Password, SHA256};
use super::ed25519::{self, CLIENT_ED25519, ED25519_NONCE_LEN};
use super::flags::{Capabilities, MariadbCapabilities};
use super::handshake::{
    AuthMoreData, AuthSwitch, Greeting, HandshakeResponse, NONCE_LEN, SslRequest,
};
use super::old_password::{OLD, OldHash};
use super::{Malformed, packet, reply};

/// A server may change its mind about the plugin this often (MariaDB: accounts with several).
const SWITCHES_MAX: u8 = 4;

/// The level of zstd that a login of ours asks for, where zstd is agreed on.
pub const ZSTD_LEVEL: u8 = 3;

/// What a relayed login names as its plugin.
const RELAYED: &[u8] = b"relayed";

/// Plugins of clients that prove the knowledge of a secret without showing it.
const PROOFS: [&[u8]; 5] =
    [NATIVE, CLIENT_ED25519, b"parsec", b"auth_gssapi_client", b"authentication_kerberos_client"];

/// With what to log in, and as whom.
#[derive(Debug, Clone)]
pub struct LoginRequest {
    /// The user's name.
    pub user: Vec<u8>,
    /// What is known of the password.
    pub credential: Credential,
    /// The schema to use.
    pub database: Option<Vec<u8>>,
    /// The session's collation.
    pub collation: u8,
    /// What is wanted. Compression is never negotiated; with SSL, TLS is demanded.
    pub capabilities: Capabilities,
    /// MariaDB's further capabilities that are wanted.
    pub mariadb: MariadbCapabilities,
    /// The longest packet that is taken, bytes.
    pub max_packet: u32,
    /// The connection attributes, as they go on the wire.
    pub attributes: Vec<u8>,
    /// How an RSA key is come by, when the server needs the password itself.
    pub rsa: RsaPolicy,
    /// Whether the transport hides its content (a unix socket).
    pub secure: bool,
}

/// How a server's public key is come by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RsaPolicy {
    /// Not at all: such a login fails.
    Never,
    /// From the server itself: only where nobody can be in between (loopback), or where the
    /// configuration allows it by name.
    AskServer,
    /// From the configuration, as PEM.
    Pinned(Vec<u8>),
}

/// What is known of a server once TLS is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// It is who it says.
    Verified,
    /// It may be anybody.
    Anybody,
}

/// What the owner does next.
#[derive(Debug, Clone)]
pub enum LoginStep {
    /// Send these bytes and go on with the server's next packet.
    Send(Vec<u8>),
    /// Send these bytes, begin TLS, verify the server, and call [`Login::tls_ready`].
    Tls(Vec<u8>),
    /// Nothing to send; go on with the server's next packet.
    Wait,
    /// Only for [`Credential::Relayed`]: have the client answer this payload of the server's
    /// and call [`Login::answered`].
    Ask(Vec<u8>),
    /// Logged in.
    Done {
        /// The server's greeting.
        greeting: Greeting,
        /// The payload of its OK packet.
        ok_payload: Vec<u8>,
        /// What both sides have agreed on.
        capabilities: Capabilities,
        /// MariaDB's further capabilities that both sides have agreed on.
        mariadb: MariadbCapabilities,
    },
    /// The server said no: the payload of its ERR packet.
    Refused(Vec<u8>),
}

/// Why a login was broken off from our side. Close the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The server's packet does not fit.
    #[error("the server's login packet is wrong: {0}")]
    Malformed(#[from] Malformed),
    /// Its sequence number does not count up.
    #[error("the server's login packets are out of order")]
    OutOfOrder,
    /// A server before 4.1.
    #[error("the server does not speak the 4.1 protocol; upgrade it")]
    TooOld,
    /// TLS is demanded and not offered.
    #[error("the server does not offer TLS, which the configuration demands")]
    TlsNotOffered,
    /// An error came before TLS was up: anybody on the way may have said it, so neither its text
    /// nor its verdict counts.
    #[error("it was refused with error {0} before TLS was up, which anybody can say")]
    RefusedBeforeTls(u16),
    /// A plugin that is never answered.
    #[error("the server asks for the authentication plugin {plugin:?}, which is not answered")]
    Plugin {
        /// The plugin's name.
        plugin: String,
    },
    /// Only SHA1(password) is known, and the plugin needs the password.
    #[error(
        "the server asks for {plugin}, but only a mysql_native_password hash of the user's \
         password is known; the account needs the same plugin on all servers"
    )]
    PasswordUnknown {
        /// The plugin's name.
        plugin: String,
    },
    /// The password itself is asked for on a transport that can be listened to.
    #[error(
        "the server asks for the password itself, and the connection is neither secure nor is a \
         public key of the server known; use TLS or pin the key"
    )]
    Insecure,
    /// Only the client itself can answer, and it was asked already.
    #[error("only the client can answer the server's {plugin}, and not a second time")]
    OnlyTheClient {
        /// The plugin's name.
        plugin: String,
    },
    /// The server switches plugins again and again.
    #[error("the server switches authentication plugins again and again")]
    TooManySwitches,
    /// The cryptographic library failed, or the public key is none.
    #[error(transparent)]
    Crypto(#[from] CryptoFailed),
}

#[derive(Debug, Clone)]
enum Stage {
    /// The greeting comes next.
    Start,
    /// TLS is being set up.
    Tls(Greeting),
    /// The server's verdict on an answer comes next.
    Answered(Exchange),
    /// The server's public key comes next.
    KeyAsked(Exchange),
    /// The client's answer to the server comes next.
    Asked(Exchange),
    /// Over.
    Over,
}

#[derive(Debug, Clone)]
struct Exchange {
    greeting: Greeting,
    plugin: Vec<u8>,
    nonce: [u8; NONCE_LEN],
}

/// One login.
#[derive(Debug, Clone)]
pub struct Login {
    request: LoginRequest,
    stage: Stage,
    seq: u8,
    switches: u8,
}

impl Login {
    /// Waits for the server's greeting.
    #[must_use]
    pub fn new(mut request: LoginRequest) -> Self {
        if matches!(&request.credential, Credential::Password(password) if password.is_empty()) {
            request.credential = Credential::Empty;
        }
        Self { request, stage: Stage::Start, seq: 0, switches: 0 }
    }

    /// Takes the server's next packet.
    ///
    /// # Errors
    /// [`LoginError`]: close the connection, whatever the server would say next.
    pub fn on_packet(&mut self, seq: u8, payload: &[u8]) -> Result<LoginStep, LoginError> {
        if payload.first() == Some(&reply::ERR) {
            let stage = std::mem::replace(&mut self.stage, Stage::Over);
            let before_tls = matches!(stage, Stage::Start | Stage::Tls(_));
            if before_tls && self.request.capabilities.has(Capabilities::SSL) {
                return Err(LoginError::RefusedBeforeTls(reply::Err::code_of(payload)));
            }
            return Ok(LoginStep::Refused(payload.to_vec()));
        }
        if seq != self.seq {
            return Err(LoginError::OutOfOrder);
        }
        self.seq = seq.wrapping_add(1);
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Start => self.on_greeting(payload),
            Stage::Answered(exchange) => self.on_verdict(exchange, payload),
            Stage::KeyAsked(exchange) => self.on_key(exchange, payload),
            Stage::Tls(_) | Stage::Asked(_) | Stage::Over => Err(LoginError::OutOfOrder),
        }
    }

    /// Goes on with the client's answer to [`LoginStep::Ask`].
    ///
    /// # Errors
    /// [`LoginError::OutOfOrder`] when nothing was asked.
    pub fn answered(&mut self, payload: &[u8]) -> Result<LoginStep, LoginError> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Asked(exchange) => Ok(self.answer(exchange, payload)),
            Stage::Start
            | Stage::Tls(_)
            | Stage::Answered(_)
            | Stage::KeyAsked(_)
            | Stage::Over => Err(LoginError::OutOfOrder),
        }
    }

    /// Goes on inside TLS. Only to a server that was verified a password may go in clear; one
    /// that was not gets none, since inside TLS servers know no other form of it.
    ///
    /// # Errors
    /// [`LoginError::OutOfOrder`] when TLS was not asked for.
    pub fn tls_ready(&mut self, server: Server) -> Result<LoginStep, LoginError> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Tls(greeting) => {
                match server {
                    Server::Verified => self.request.secure = true,
                    Server::Anybody => self.request.rsa = RsaPolicy::Never,
                }
                Ok(self.respond(greeting))
            }
            Stage::Start
            | Stage::Answered(_)
            | Stage::KeyAsked(_)
            | Stage::Asked(_)
            | Stage::Over => Err(LoginError::OutOfOrder),
        }
    }

    fn on_greeting(&mut self, payload: &[u8]) -> Result<LoginStep, LoginError> {
        let greeting = Greeting::parse(payload)?;
        let needed = Capabilities::PROTOCOL_41.with(Capabilities::SECURE_CONNECTION);
        if !greeting.capabilities.has(needed) {
            return Err(LoginError::TooOld);
        }
        if !self.request.capabilities.has(Capabilities::SSL) {
            return Ok(self.respond(greeting));
        }
        if !greeting.capabilities.has(Capabilities::SSL) {
            return Err(LoginError::TlsNotOffered);
        }
        let (capabilities, mariadb) = self.agreed(&greeting);
        let LoginRequest { max_packet, collation, .. } = self.request;
        let mut out = Vec::new();
        let request = SslRequest { capabilities, mariadb, max_packet, collation };
        self.seq = request.encode(&mut out, self.seq);
        self.stage = Stage::Tls(greeting);
        Ok(LoginStep::Tls(out))
    }

    /// What both sides can, with what a login of ours always has and never has.
    fn agreed(&self, greeting: &Greeting) -> (Capabilities, MariadbCapabilities) {
        let mut wanted = self
            .request
            .capabilities
            .with(Capabilities::PROTOCOL_41)
            .with(Capabilities::SECURE_CONNECTION)
            .with(Capabilities::TRANSACTIONS)
            .with(Capabilities::PLUGIN_AUTH)
            .with(Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA)
            // Unset by a MariaDB server, and then its further capabilities count.
            .with(Capabilities::LONG_PASSWORD)
            .without(Capabilities::MULTI_FACTOR_AUTHENTICATION);
        wanted = match self.request.database {
            Some(_) => wanted.with(Capabilities::CONNECT_WITH_DB),
            None => wanted.without(Capabilities::CONNECT_WITH_DB),
        };
        wanted = match self.request.attributes.is_empty() {
            true => wanted.without(Capabilities::CONNECT_ATTRS),
            false => wanted.with(Capabilities::CONNECT_ATTRS),
        };
        (wanted.and(greeting.capabilities), self.request.mariadb.and(greeting.mariadb))
    }

    fn respond(&mut self, greeting: Greeting) -> LoginStep {
        let (capabilities, mariadb) = self.agreed(&greeting);
        let nonce = greeting.nonce;
        // A default plugin that this credential can not answer is answered with the one that
        // it can; the server switches to the account's own.
        let (plugin, auth) = match (&self.request.credential, greeting.plugin.as_slice()) {
            // A plugin that no server has: it switches to the account's own, with a nonce that
            // the client answers.
            (Credential::Relayed { .. }, _) => (RELAYED, Vec::new()),
            (Credential::Empty, CACHING_SHA2) => (CACHING_SHA2, Vec::new()),
            // The server asks for the answer by a switch.
            (Credential::Empty | Credential::Old(_), _) => (NATIVE, Vec::new()),
            (Credential::Sha1(stage1), _) => (NATIVE, auth::native_token(stage1, &nonce).to_vec()),
            (Credential::Password(password), CACHING_SHA2) => {
                let token = auth::caching_sha2_token(password.expose(), &nonce);
                (CACHING_SHA2, token.to_vec())
            }
            (Credential::Password(password), _) => {
                let stage1 = auth::stage1(password.expose());
                (NATIVE, auth::native_token(&stage1, &nonce).to_vec())
            }
        };
        let mut out = Vec::new();
        self.seq = HandshakeResponse {
            capabilities,
            mariadb,
            max_packet: self.request.max_packet,
            collation: self.request.collation,
            user: self.request.user.clone(),
            auth,
            database: self.request.database.clone(),
            plugin: Some(plugin.to_vec()),
            attributes: self.request.attributes.clone(),
            zstd_level: ZSTD_LEVEL,
        }
        .encode(&mut out, self.seq);
        self.stage = Stage::Answered(Exchange { greeting, plugin: plugin.to_vec(), nonce });
        LoginStep::Send(out)
    }

    fn on_verdict(&mut self, exchange: Exchange, payload: &[u8]) -> Result<LoginStep, LoginError> {
        match payload.first() {
            Some(&reply::OK) => {
                let (capabilities, mariadb) = self.agreed(&exchange.greeting);
                let ok_payload = payload.to_vec();
                let greeting = exchange.greeting;
                Ok(LoginStep::Done { greeting, ok_payload, capabilities, mariadb })
            }
            first => match (&self.request.credential, first) {
                (Credential::Relayed { private }, _) => {
                    let private = *private && self.request.secure;
                    self.on_question(exchange, payload, private)
                }
                (Credential::Old(hash), Some(&reply::EOF)) => {
                    let hash = *hash;
                    self.on_old(exchange, payload, hash)
                }
                (_, Some(&reply::EOF)) => self.on_switch(exchange.greeting, payload),
                (_, _) => self.on_more(exchange, AuthMoreData::parse(payload)?.data),
            },
        }
    }

    /// A question that the client answers, when it reveals nothing to those who listen.
    fn on_question(
        &mut self,
        mut exchange: Exchange,
        payload: &[u8],
        private: bool,
    ) -> Result<LoginStep, LoginError> {
        if payload.first() == Some(&reply::EOF) {
            self.switched()?;
            exchange.plugin = AuthSwitch::parse(payload)?.plugin;
            let proof = PROOFS.contains(&exchange.plugin.as_slice());
            if !proof && !private {
                return Err(LoginError::Insecure);
            }
        } else if exchange.plugin == RELAYED {
            return Err(Malformed::new("a question before a switch of plugins", 0).into());
        }
        self.stage = Stage::Asked(exchange);
        Ok(LoginStep::Ask(payload.to_vec()))
    }

    fn switched(&mut self) -> Result<(), LoginError> {
        self.switches = self.switches.saturating_add(1);
        match self.switches > SWITCHES_MAX {
            true => Err(LoginError::TooManySwitches),
            false => Ok(()),
        }
    }

    fn on_switch(&mut self, greeting: Greeting, payload: &[u8]) -> Result<LoginStep, LoginError> {
        self.switched()?;
        let switch = AuthSwitch::parse(payload)?;
        if switch.plugin == CLIENT_ED25519 {
            return self.on_ed25519(greeting, switch);
        }
        if ![NATIVE, CACHING_SHA2, SHA256].contains(&switch.plugin.as_slice()) {
            return Err(LoginError::Plugin { plugin: lossy(&switch.plugin) });
        }
        let nonce = switch.nonce().ok_or(Malformed::new("nonce of a switched plugin", 0))?;
        let exchange = Exchange { greeting, plugin: switch.plugin, nonce };
        let answer = match (&self.request.credential, exchange.plugin.as_slice()) {
            (Credential::Empty, _) => Vec::new(),
            (Credential::Sha1(stage1), NATIVE) => auth::native_token(stage1, &nonce).to_vec(),
            (Credential::Sha1(_) | Credential::Old(_), plugin) => {
                return Err(LoginError::PasswordUnknown { plugin: lossy(plugin) });
            }
            (Credential::Password(password), NATIVE) => {
                auth::native_token(&auth::stage1(password.expose()), &nonce).to_vec()
            }
            (Credential::Password(password), CACHING_SHA2) => {
                auth::caching_sha2_token(password.expose(), &nonce).to_vec()
            }
            (Credential::Password(_), _) => return self.full(exchange),
            (Credential::Relayed { .. }, plugin) => {
                return Err(LoginError::OnlyTheClient { plugin: lossy(plugin) });
            }
        };
        Ok(self.answer(exchange, &answer))
    }

    /// The answer of mysql_old_password, to whom has the hash: that is the only credential that
    /// is good for it, as no password is shown in a scheme before 4.1.
    fn on_old(
        &mut self,
        mut exchange: Exchange,
        payload: &[u8],
        hash: OldHash,
    ) -> Result<LoginStep, LoginError> {
        self.switched()?;
        if payload.len() > 1 {
            let switch = AuthSwitch::parse(payload)?;
            if switch.plugin != OLD {
                return Err(LoginError::PasswordUnknown { plugin: lossy(&switch.plugin) });
            }
            let nonce = switch.nonce();
            exchange.nonce = nonce.ok_or(Malformed::new("nonce of a switched plugin", 0))?;
        }
        exchange.plugin = OLD.to_vec();
        let answer = [&hash.token(&exchange.nonce)[..], b"\0"].concat();
        Ok(self.answer(exchange, &answer))
    }

    fn on_ed25519(
        &mut self,
        greeting: Greeting,
        switch: AuthSwitch,
    ) -> Result<LoginStep, LoginError> {
        let nonce = switch.data.first_chunk::<ED25519_NONCE_LEN>();
        let nonce = *nonce.ok_or(Malformed::new("nonce of ed25519", 0))?;
        let exchange = Exchange { greeting, plugin: switch.plugin, nonce: [0; NONCE_LEN] };
        let signature = match &self.request.credential {
            Credential::Empty => ed25519::sign(b"", &nonce),
            Credential::Password(password) => ed25519::sign(password.expose(), &nonce),
            // No signature: the server goes on with another plugin of the account, or refuses.
            Credential::Sha1(_) | Credential::Old(_) | Credential::Relayed { .. } => {
                [0; ed25519::SIGNATURE_LEN]
            }
        };
        Ok(self.answer(exchange, &signature))
    }

    fn on_more(&mut self, exchange: Exchange, data: &[u8]) -> Result<LoginStep, LoginError> {
        match (exchange.plugin.as_slice(), data) {
            (CACHING_SHA2, [3]) => {
                self.stage = Stage::Answered(exchange);
                Ok(LoginStep::Wait)
            }
            (CACHING_SHA2, [4]) => self.full(exchange),
            _ => Err(Malformed::new("further authentication data", 1).into()),
        }
    }

    /// The server needs the password itself.
    fn full(&mut self, exchange: Exchange) -> Result<LoginStep, LoginError> {
        let password = self.password(&exchange)?;
        if self.request.secure {
            return Ok(self.answer(exchange, &auth::clear_answer(&password)));
        }
        match &self.request.rsa {
            RsaPolicy::Never => Err(LoginError::Insecure),
            RsaPolicy::Pinned(pem) => {
                let block = auth::encrypt_with_pem(pem, &password, &exchange.nonce)?;
                Ok(self.answer(exchange, &block))
            }
            RsaPolicy::AskServer => {
                let ask: &[u8] = if exchange.plugin == SHA256 { &[1] } else { &[2] };
                let mut out = Vec::new();
                self.seq = packet::write(&mut out, self.seq, ask);
                self.stage = Stage::KeyAsked(exchange);
                Ok(LoginStep::Send(out))
            }
        }
    }

    fn on_key(&mut self, exchange: Exchange, payload: &[u8]) -> Result<LoginStep, LoginError> {
        let password = self.password(&exchange)?;
        let pem = AuthMoreData::parse(payload)?.data;
        let block = auth::encrypt_with_pem(pem, &password, &exchange.nonce)?;
        Ok(self.answer(exchange, &block))
    }

    fn password(&self, exchange: &Exchange) -> Result<Password, LoginError> {
        match &self.request.credential {
            Credential::Password(password) => Ok(password.clone()),
            Credential::Empty
            | Credential::Sha1(_)
            | Credential::Old(_)
            | Credential::Relayed { .. } => {
                Err(LoginError::PasswordUnknown { plugin: lossy(&exchange.plugin) })
            }
        }
    }

    fn answer(&mut self, exchange: Exchange, payload: &[u8]) -> LoginStep {
        let mut out = Vec::new();
        self.seq = packet::write(&mut out, self.seq, payload);
        self.stage = Stage::Answered(exchange);
        LoginStep::Send(out)
    }
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
