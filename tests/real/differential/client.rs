//! A client that keeps every packet of a reply as it came.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use pointsman::protocol::auth::{self, Credential, Password};
use pointsman::protocol::flags::{Capabilities, MariadbCapabilities};
use pointsman::protocol::handshake::{AuthMoreData, AuthSwitch, Greeting};
use pointsman::protocol::login::{Login, LoginRequest, LoginStep, RsaPolicy};
use pointsman::protocol::packet::{self, HEADER_LEN};
use pointsman::protocol::reply;
use pointsman::protocol::walker::{Expect, Kind, ReplyWalker, Stop};

/// Longest wait for a byte of a reply: longer than a read may wait for a replica, which a busy
/// machine may keep waiting.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of one step: the packets of the reply, or how the connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Reply {
    /// Sequence number and payload of each packet.
    pub(super) packets: Vec<(u8, Vec<u8>)>,
    /// The connection broke before the reply was over.
    pub(super) broken: bool,
}

impl Reply {
    /// The code and message of the error in it, if there is one.
    pub(super) fn error(&self) -> Option<String> {
        let (_, payload) = self.packets.last()?;
        let code = reply::Err::code_of(payload);
        let message = String::from_utf8_lossy(reply::Err::message_of(payload));
        (payload.first() == Some(&0xFF)).then(|| format!("{code} {message}"))
    }
}

/// As what to log in.
#[derive(Debug, Clone)]
pub(super) struct As {
    pub(super) user: String,
    pub(super) password: String,
    pub(super) schema: Option<String>,
    pub(super) capabilities: Capabilities,
    pub(super) mariadb: MariadbCapabilities,
    pub(super) collation: u8,
}

/// A parameter of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parameter {
    Null,
    Integer(i64),
    Text(Vec<u8>),
    /// It was sent ahead.
    Long,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What both sides agreed on.
    pub(super) capabilities: Capabilities,
    pub(super) mariadb: MariadbCapabilities,
    /// The id that the greeting told.
    pub(super) id: u32,
    /// The greeting.
    pub(super) greeting: Greeting,
    /// The payload of the login's last packet.
    pub(super) welcome: Vec<u8>,
    statements: BTreeMap<String, u32>,
    password: String,
    broken: bool,
}

impl Client {
    /// Logs in at `port` of this host; the server's refusal otherwise.
    pub(super) fn connect(port: u16, who: &As) -> Result<Self, Vec<u8>> {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let mut login = Login::new(LoginRequest {
            user: who.user.clone().into_bytes(),
            credential: Credential::Password(Password::new(who.password.clone().into_bytes())),
            database: who.schema.clone().map(String::into_bytes),
            collation: who.collation,
            capabilities: who.capabilities,
            mariadb: who.mariadb,
            max_packet: 1 << 30,
            attributes: Vec::new(),
            rsa: RsaPolicy::AskServer,
            secure: false,
        });
        let mut wire = Wire { stream, buffer: Vec::new() };
        loop {
            let Some((seq, payload)) = wire.packet() else { return Err(b"closed".to_vec()) };
            match login.on_packet(seq, &payload).expect("a login as it should be") {
                LoginStep::Send(bytes) => wire.stream.write_all(&bytes).expect("sent"),
                LoginStep::Wait => {}
                LoginStep::Tls(_) | LoginStep::Ask(_) => unreachable!("it was not asked for"),
                LoginStep::Refused(payload) => return Err(payload),
                LoginStep::Done { greeting, ok_payload, capabilities, mariadb } => {
                    return Ok(Self {
                        stream: wire.stream,
                        buffer: wire.buffer,
                        capabilities,
                        mariadb,
                        id: greeting.connection_id,
                        greeting,
                        welcome: ok_payload,
                        statements: BTreeMap::new(),
                        password: who.password.clone(),
                        broken: false,
                    });
                }
            }
        }
    }

    /// Sends a command; false when the other side has closed.
    pub(super) fn send(&mut self, payload: &[u8]) -> bool {
        let mut bytes = Vec::new();
        packet::write(&mut bytes, 0, payload);
        self.stream.write_all(&bytes).is_ok()
    }

    /// The payload of a COM_QUERY; `attributes` are strings by name.
    pub(super) fn query(&self, sql: &[u8], attributes: &[(&str, &str)]) -> Vec<u8> {
        let mut payload = vec![0x03];
        if self.capabilities.has(Capabilities::QUERY_ATTRIBUTES) {
            payload.push(u8::try_from(attributes.len()).expect("few attributes"));
            payload.push(1);
            if !attributes.is_empty() {
                payload.extend_from_slice(&[0, 1]);
                for (name, _) in attributes {
                    payload.extend_from_slice(&[0xFD, 0]);
                    push_text(&mut payload, name.as_bytes());
                }
                for (_, value) in attributes {
                    push_text(&mut payload, value.as_bytes());
                }
            }
        }
        payload.extend_from_slice(sql);
        payload
    }

    /// Reads one reply; `file` is what the client sends when it is asked for one.
    pub(super) fn receive(&mut self, expect: Expect, file: &[u8]) -> Reply {
        let mut walker = ReplyWalker::new(expect, self.capabilities, self.mariadb);
        let mut reply = Reply::default();
        let mut at = 0;
        loop {
            let rest = self.buffer.get(at..).unwrap_or_default();
            let advance = match walker.advance(rest) {
                Ok(advance) => advance,
                Err(error) => {
                    let what = format!("{error} in {}", show(rest));
                    reply.packets.push((0, what.into_bytes()));
                    reply.broken = true;
                    self.broken = true;
                    return reply;
                }
            };
            at += advance.forward;
            match advance.stop {
                Stop::Notable(notable) => {
                    at += notable.len;
                    if notable.kind == Kind::LocalInfile {
                        self.upload(notable.seq.wrapping_add(1), file);
                    }
                    if notable.terminal {
                        break;
                    }
                }
                Stop::NeedMore => {
                    if !self.fill() {
                        reply.broken = true;
                        self.broken = true;
                        break;
                    }
                }
            }
        }
        let bytes: Vec<u8> = self.buffer.drain(..at).collect();
        let mut rest = bytes.as_slice();
        while let Some((len, seq)) = packet::header(rest) {
            let end = (HEADER_LEN + len).min(rest.len());
            reply.packets.push((seq, rest[HEADER_LEN..end].to_vec()));
            rest = &rest[end..];
        }
        if expect == Expect::Prepare && reply.error().is_none() && reply.broken {
            reply.packets.clear();
        }
        reply
    }

    fn upload(&mut self, seq: u8, file: &[u8]) {
        let mut bytes = Vec::new();
        let mut seq = seq;
        for part in file.chunks(8192) {
            seq = packet::write(&mut bytes, seq, part);
        }
        packet::write(&mut bytes, seq, b"");
        let _ = self.stream.write_all(&bytes);
    }

    fn fill(&mut self) -> bool {
        if self.broken {
            return false;
        }
        let mut chunk = vec![0; 1 << 16];
        match self.stream.read(&mut chunk) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("waited {PATIENCE:?} in vain for the rest of {}", show(&self.buffer))
            }
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                true
            }
        }
    }

    /// Whether the other side closes now, within the patience.
    pub(super) fn is_closed(&mut self) -> bool {
        self.buffer.is_empty()
            && match self.stream.read(&mut [0; 1]) {
                Ok(read) => read == 0,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            }
    }

    /// Keeps the id that the reply to COM_STMT_PREPARE gave; none when it was refused.
    pub(super) fn keep_statement(&mut self, name: &str, reply: &Reply) {
        self.statements.remove(name);
        if let Some((_, payload)) = reply.packets.first()
            && let Some(id) = payload.get(1..5).filter(|_| payload.first() == Some(&0))
        {
            let id = u32::from_le_bytes(id.try_into().expect("four bytes"));
            self.statements.insert(name.to_owned(), id);
        }
    }

    /// The server's id of a statement; `last` is MariaDB's word for the one prepared last.
    pub(super) fn statement(&self, name: &str) -> u32 {
        match name {
            "last" => u32::MAX,
            "unknown" => 4711,
            _ => *self.statements.get(name).unwrap_or(&4712),
        }
    }

    /// The payload of a COM_STMT_EXECUTE. Without `typed` the types are left out.
    pub(super) fn execution(
        &self,
        name: &str,
        cursor: bool,
        typed: bool,
        parameters: &[Parameter],
    ) -> Vec<u8> {
        let mut payload = vec![0x17];
        payload.extend_from_slice(&self.statement(name).to_le_bytes());
        payload.push(u8::from(cursor));
        payload.extend_from_slice(&1_u32.to_le_bytes());
        if parameters.is_empty() {
            return payload;
        }
        let mut nulls = vec![0_u8; parameters.len().div_ceil(8)];
        for (n, parameter) in parameters.iter().enumerate() {
            if *parameter == Parameter::Null {
                nulls[n / 8] |= 1 << (n % 8);
            }
        }
        payload.extend_from_slice(&nulls);
        payload.push(u8::from(typed));
        if typed {
            for parameter in parameters {
                payload.extend_from_slice(match parameter {
                    Parameter::Integer(_) => &[0x08, 0],
                    Parameter::Text(_) | Parameter::Null => &[0xFD, 0],
                    Parameter::Long => &[0xFC, 0],
                });
            }
        }
        for parameter in parameters {
            match parameter {
                Parameter::Integer(value) => payload.extend_from_slice(&value.to_le_bytes()),
                Parameter::Text(text) => push_text(&mut payload, text),
                Parameter::Null | Parameter::Long => {}
            }
        }
        payload
    }

    /// COM_CHANGE_USER to its end. The reply is the last packet: what comes before has nonces.
    pub(super) fn change_user(&mut self, user: &str, password: &str, schema: &str) -> Reply {
        let mut payload = vec![0x11];
        payload.extend_from_slice(user.as_bytes());
        payload.extend_from_slice(&[0, 0]);
        payload.extend_from_slice(schema.as_bytes());
        payload.extend_from_slice(&[0, 45, 0]);
        payload.extend_from_slice(b"mysql_native_password\0");
        if self.capabilities.has(Capabilities::CONNECT_ATTRS) {
            payload.push(0);
        }
        self.password = password.to_owned();
        let broken = Reply { packets: Vec::new(), broken: true };
        if !self.send(&payload) {
            return broken;
        }
        let mut asked = None;
        loop {
            let Some((seq, payload)) = self.packet() else { return broken };
            let answer = match payload.first() {
                Some(0xFE) => {
                    let switch = AuthSwitch::parse(&payload).expect("a switch");
                    asked = Some((switch.plugin.clone(), switch.nonce().expect("a nonce")));
                    self.token(asked.as_ref().expect("asked"))
                }
                Some(0x01) => {
                    let data = AuthMoreData::parse(&payload).expect("more").data.to_vec();
                    let (_, nonce) = asked.as_ref().expect("a plugin was named");
                    match data.as_slice() {
                        [3] => continue,
                        [4] => vec![2],
                        pem => {
                            let password = Password::new(self.password.clone().into_bytes());
                            auth::encrypt_with_pem(pem, &password, nonce).expect("encrypted")
                        }
                    }
                }
                // The order of plugins that are tried is the account's affair.
                _ => return Reply { packets: vec![(0, payload)], broken: false },
            };
            let mut bytes = Vec::new();
            packet::write(&mut bytes, seq.wrapping_add(1), &answer);
            let _ = self.stream.write_all(&bytes);
        }
    }

    fn token(&self, (plugin, nonce): &(Vec<u8>, [u8; 20])) -> Vec<u8> {
        let password = self.password.as_bytes();
        match plugin.as_slice() {
            _ if password.is_empty() => Vec::new(),
            b"mysql_native_password" => auth::native_token(&auth::stage1(password), nonce).to_vec(),
            b"caching_sha2_password" => auth::caching_sha2_token(password, nonce).to_vec(),
            other => panic!("plugin {}", show(other)),
        }
    }

    fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((len, seq)) = packet::header(&self.buffer)
                && self.buffer.len() >= HEADER_LEN + len
            {
                let bytes: Vec<u8> = self.buffer.drain(..HEADER_LEN + len).collect();
                return Some((seq, bytes[HEADER_LEN..].to_vec()));
            }
            if !self.fill() {
                return None;
            }
        }
    }
}

struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((len, seq)) = packet::header(&self.buffer)
                && self.buffer.len() >= HEADER_LEN + len
            {
                let bytes: Vec<u8> = self.buffer.drain(..HEADER_LEN + len).collect();
                return Some((seq, bytes[HEADER_LEN..].to_vec()));
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
            }
        }
    }
}

fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    match u8::try_from(text.len()) {
        Ok(len) if len < 251 => out.push(len),
        _ => {
            let len = u32::try_from(text.len()).expect("a short text").to_le_bytes();
            out.push(0xFD);
            out.extend_from_slice(&len[..3]);
        }
    }
    out.extend_from_slice(text);
}

/// Bytes for a reader, not too many of them.
pub(super) fn show(bytes: &[u8]) -> String {
    let head = bytes.get(..400).unwrap_or(bytes);
    let more =
        if head.len() < bytes.len() { format!("... {} bytes", bytes.len()) } else { "".into() };
    format!("{}{more}", head.escape_ascii())
}
