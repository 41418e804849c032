//! The packets of a login: greeting, TLS request, handshake response, authentication switch
//! and more-data, COM_CHANGE_USER.
//!
//! Sources: protocol pages "HandshakeV10", "HandshakeResponse41", "COM_CHANGE_USER"; for the
//! further capability bits, MariaDB's knowledge base page "Connection".

use super::cursor::Cursor;
use super::flags::{Capabilities, MariadbCapabilities, Status};
use super::{Malformed, command, reply, writer};

/// Length of a nonce (the protocol calls it scramble); a NUL byte follows it on the wire.
pub const NONCE_LEN: usize = 20;
/// A packet before the end of the login may be this long at most.
pub const LOGIN_PACKET_MAX: usize = 64 * 1024;
/// MariaDB allows names of 128 characters of up to four bytes.
const NAME_MAX: usize = 512;
const PLUGIN_MAX: usize = 128;
const VERSION_MAX: usize = 255;
const AUTH_MAX: usize = 4096;
/// Length of the fixed fields that a TLS request consists of and a response begins with.
const FIXED_LEN: usize = 32;
/// First byte of an AuthMoreData packet.
const MORE_DATA: u8 = 0x01;

/// The server's first packet, protocol version 10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The server's version, as text.
    pub version: Vec<u8>,
    /// The id of this connection, as KILL knows it.
    pub connection_id: u32,
    /// The nonce that the first authentication data is made with.
    pub nonce: [u8; NONCE_LEN],
    /// What the server can do.
    pub capabilities: Capabilities,
    /// What a MariaDB server can do besides; sent only when LONG_PASSWORD is unset.
    pub mariadb: MariadbCapabilities,
    /// The server's default collation.
    pub collation: u8,
    /// The server's status.
    pub status: Status,
    /// The plugin that the nonce is meant for.
    pub plugin: Vec<u8>,
}

impl Greeting {
    /// Reads a greeting.
    ///
    /// # Errors
    /// [`Malformed`] when it is short, too long, of another protocol version, or of a server
    /// older than 4.1 (which has no 20-byte nonce).
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(payload);
        if cursor.u8("protocol version")? != 10 {
            return Err(Malformed::new("protocol version other than 10", 0));
        }
        let version = capped(cursor.nul_str("server version")?, VERSION_MAX, "server version")?;
        let connection_id = cursor.u32("connection id")?;
        let head: [u8; 8] = cursor.array("first part of the nonce")?;
        cursor.skip(1, "filler")?;
        let low = cursor.u16("capabilities")?;
        let collation = cursor.u8("collation")?;
        let status = Status(cursor.u16("status flags")?);
        let high = cursor.u16("upper capabilities")?;
        let capabilities = Capabilities(u32::from(low) | (u32::from(high) << 16));
        cursor.skip(1, "length of the nonce")?;
        cursor.skip(6, "filler")?;
        let further = cursor.u32("MariaDB capabilities")?;
        let mariadb = match capabilities.has(Capabilities::LONG_PASSWORD) {
            true => MariadbCapabilities(0),
            false => MariadbCapabilities(further),
        };
        let tail: [u8; 12] = cursor.array("second part of the nonce")?;
        // The nonce's NUL; old servers leave out what follows.
        cursor.nul_str_or_rest();
        let plugin = match capabilities.has(Capabilities::PLUGIN_AUTH) {
            true => capped(cursor.nul_str_or_rest(), PLUGIN_MAX, "plugin name")?,
            false => Vec::new(),
        };
        let mut nonce = [0; NONCE_LEN];
        for (to, from) in nonce.iter_mut().zip(head.into_iter().chain(tail)) {
            *to = from;
        }
        Ok(Self { version, connection_id, nonce, capabilities, mariadb, collation, status, plugin })
    }

    /// Appends the greeting, framed; it is the first packet of its connection. Returns the next
    /// sequence number.
    pub fn encode(&self, out: &mut Vec<u8>) -> u8 {
        let (head, tail) = self.nonce.split_at_checked(8).unwrap_or_default();
        writer::packet(out, 0, |out| {
            out.push(10);
            writer::nul_str(out, &self.version);
            out.extend_from_slice(&self.connection_id.to_le_bytes());
            out.extend_from_slice(head);
            out.push(0);
            let [a, b, c, d] = self.capabilities.0.to_le_bytes();
            out.extend_from_slice(&[a, b, self.collation]);
            out.extend_from_slice(&self.status.0.to_le_bytes());
            // The nonce's length counts its NUL.
            out.extend_from_slice(&[c, d, 21, 0, 0, 0, 0, 0, 0]);
            let further = match self.capabilities.has(Capabilities::LONG_PASSWORD) {
                true => 0,
                false => self.mariadb.0,
            };
            out.extend_from_slice(&further.to_le_bytes());
            out.extend_from_slice(tail);
            out.push(0);
            if self.capabilities.has(Capabilities::PLUGIN_AUTH) {
                writer::nul_str(out, &self.plugin);
            }
        })
    }
}

/// The client asks for TLS: the fixed fields of a handshake response and nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SslRequest {
    /// What the client wants; to be compared with what it says inside TLS.
    pub capabilities: Capabilities,
    /// MariaDB's further capabilities.
    pub mariadb: MariadbCapabilities,
    /// The longest packet that the client takes, bytes.
    pub max_packet: u32,
    /// The client's collation.
    pub collation: u8,
}

impl SslRequest {
    /// Whether this first packet of a client is a TLS request.
    #[must_use]
    pub fn is_one(payload: &[u8]) -> bool {
        let ssl = Capabilities::SSL.with(Capabilities::PROTOCOL_41);
        payload.len() == FIXED_LEN
            && payload
                .first_chunk::<4>()
                .is_some_and(|caps| Capabilities(u32::from_le_bytes(*caps)).has(ssl))
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`Malformed`] when it is short.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        fixed_fields(&mut Cursor::new(payload))
    }

    /// Appends it, framed; returns the next sequence number.
    pub fn encode(&self, out: &mut Vec<u8>, seq: u8) -> u8 {
        writer::packet(out, seq, |out| self.append(out))
    }

    fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.capabilities.0.to_le_bytes());
        out.extend_from_slice(&self.max_packet.to_le_bytes());
        out.push(self.collation);
        out.extend_from_slice(&[0; 19]);
        let further = match self.capabilities.has(Capabilities::LONG_PASSWORD) {
            true => 0,
            false => self.mariadb.0,
        };
        out.extend_from_slice(&further.to_le_bytes());
    }
}

fn fixed_fields(cursor: &mut Cursor<'_>) -> Result<SslRequest, Malformed> {
    // The lower half first: a client of the 3.20 protocol sends no more than that.
    let [a, b] = cursor.array("capabilities")?;
    let low = Capabilities(u32::from(u16::from_le_bytes([a, b])));
    if !low.has(Capabilities::PROTOCOL_41) {
        return Err(Malformed::new("handshake response older than 4.1", 0));
    }
    let [c, d] = cursor.array("upper capabilities")?;
    let capabilities = Capabilities(u32::from_le_bytes([a, b, c, d]));
    let max_packet = cursor.u32("max_packet")?;
    let collation = cursor.u8("collation")?;
    cursor.skip(19, "filler")?;
    let further = cursor.u32("MariaDB capabilities")?;
    let mariadb = match capabilities.has(Capabilities::LONG_PASSWORD) {
        true => MariadbCapabilities(0),
        false => MariadbCapabilities(further),
    };
    Ok(SslRequest { capabilities, mariadb, max_packet, collation })
}

/// The client's side of the login.
#[derive(Clone, PartialEq, Eq)]
pub struct HandshakeResponse {
    /// What the client can do and wants.
    pub capabilities: Capabilities,
    /// MariaDB's further capabilities; sent only when LONG_PASSWORD is unset.
    pub mariadb: MariadbCapabilities,
    /// The longest packet that the client takes, bytes.
    pub max_packet: u32,
    /// The session's collation.
    pub collation: u8,
    /// The user's name.
    pub user: Vec<u8>,
    /// The authentication data, made with the greeting's nonce.
    pub auth: Vec<u8>,
    /// The schema to use.
    pub database: Option<Vec<u8>>,
    /// The plugin that made the authentication data.
    pub plugin: Option<Vec<u8>>,
    /// The connection attributes as they came (length-encoded names and values in order),
    /// without the length of the whole.
    pub attributes: Vec<u8>,
    /// The zstd level; sent with ZSTD_COMPRESSION.
    pub zstd_level: u8,
}

impl std::fmt::Debug for HandshakeResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandshakeResponse")
            .field("capabilities", &self.capabilities)
            .field("user", &String::from_utf8_lossy(&self.user))
            .field("database", &self.database.as_deref().map(String::from_utf8_lossy))
            .field("plugin", &self.plugin.as_deref().map(String::from_utf8_lossy))
            .finish_non_exhaustive()
    }
}

impl HandshakeResponse {
    /// Reads a handshake response. Where servers are lenient (a last string without its NUL, a
    /// schema or plugin that is announced and missing), so is this.
    ///
    /// # Errors
    /// [`Malformed`] when it is short or too long, or of a client older than 4.1 (its first
    /// field then says "older than 4.1").
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        if payload.len() > LOGIN_PACKET_MAX {
            return Err(Malformed::new("length of a handshake response", 0));
        }
        let mut cursor = Cursor::new(payload);
        let SslRequest { capabilities, mariadb, max_packet, collation } =
            fixed_fields(&mut cursor)?;
        let user = capped(cursor.nul_str("user name")?, NAME_MAX, "user name")?;
        let auth = if capabilities.has(Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA) {
            cursor.lenenc_str("authentication data")?
        } else if capabilities.has(Capabilities::SECURE_CONNECTION) {
            let len = cursor.u8("length of the authentication data")?;
            cursor.take(usize::from(len), "authentication data")?
        } else {
            cursor.nul_str_or_rest()
        };
        let auth = capped(auth, AUTH_MAX, "authentication data")?;
        let database = match capabilities.has(Capabilities::CONNECT_WITH_DB) {
            true => Some(capped(cursor.nul_str_or_rest(), NAME_MAX, "schema name")?),
            false => None,
        };
        let plugin = plugin(&mut cursor, capabilities)?;
        let attributes = attributes(&mut cursor, capabilities)?;
        let zstd_level = match capabilities.has(Capabilities::ZSTD_COMPRESSION) {
            true if !cursor.is_empty() => cursor.u8("zstd level")?,
            _ => 0,
        };
        Ok(Self {
            capabilities,
            mariadb,
            max_packet,
            collation,
            user,
            auth,
            database: database.filter(|name| !name.is_empty()),
            plugin,
            attributes,
            zstd_level,
        })
    }

    /// Appends it, framed; returns the next sequence number. The capability flags decide which
    /// fields are written, so they must fit what is there.
    pub fn encode(&self, out: &mut Vec<u8>, seq: u8) -> u8 {
        let Self { capabilities, mariadb, max_packet, collation, .. } = *self;
        writer::packet(out, seq, |out| {
            SslRequest { capabilities, mariadb, max_packet, collation }.append(out);
            writer::nul_str(out, &self.user);
            if capabilities.has(Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA) {
                writer::lenenc_str(out, &self.auth);
            } else if capabilities.has(Capabilities::SECURE_CONNECTION) {
                short_str(out, &self.auth);
            } else {
                writer::nul_str(out, &self.auth);
            }
            if capabilities.has(Capabilities::CONNECT_WITH_DB) {
                writer::nul_str(out, self.database.as_deref().unwrap_or_default());
            }
            if capabilities.has(Capabilities::PLUGIN_AUTH) {
                writer::nul_str(out, self.plugin.as_deref().unwrap_or_default());
            }
            if capabilities.has(Capabilities::CONNECT_ATTRS) {
                writer::lenenc_str(out, &self.attributes);
            }
            if capabilities.has(Capabilities::ZSTD_COMPRESSION) {
                out.push(self.zstd_level);
            }
        })
    }
}

/// A COM_CHANGE_USER, without its command byte.
#[derive(Clone, PartialEq, Eq)]
pub struct ChangeUser {
    /// The new user's name.
    pub user: Vec<u8>,
    /// Authentication data, made with an old nonce.
    pub auth: Vec<u8>,
    /// The schema to use.
    pub database: Option<Vec<u8>>,
    /// The session's collation (two bytes here); `None` when the client left it out.
    pub collation: Option<u16>,
    /// The plugin that made the authentication data.
    pub plugin: Option<Vec<u8>>,
    /// The connection attributes as they came.
    pub attributes: Vec<u8>,
}

impl std::fmt::Debug for ChangeUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangeUser")
            .field("user", &String::from_utf8_lossy(&self.user))
            .field("database", &self.database.as_deref().map(String::from_utf8_lossy))
            .field("plugin", &self.plugin.as_deref().map(String::from_utf8_lossy))
            .finish_non_exhaustive()
    }
}

impl ChangeUser {
    /// Reads what follows the command byte.
    ///
    /// # Errors
    /// [`Malformed`] when it is short or too long.
    pub fn parse(raw: &[u8], caps: Capabilities) -> Result<Self, Malformed> {
        if raw.len() > LOGIN_PACKET_MAX {
            return Err(Malformed::new("length of a change of user", 0));
        }
        let mut cursor = Cursor::new(raw);
        let user = capped(cursor.nul_str("user name")?, NAME_MAX, "user name")?;
        let auth = match caps.has(Capabilities::SECURE_CONNECTION) {
            true => {
                let len = cursor.u8("length of the authentication data")?;
                cursor.take(usize::from(len), "authentication data")?
            }
            false => cursor.nul_str("authentication data")?,
        };
        let auth = auth.to_vec();
        let database = capped(cursor.nul_str_or_rest(), NAME_MAX, "schema name")?;
        let collation = match cursor.left() {
            0 | 1 => None,
            _ => Some(cursor.u16("collation")?),
        };
        let plugin = plugin(&mut cursor, caps)?;
        let attributes = attributes(&mut cursor, caps)?;
        let database = Some(database).filter(|name| !name.is_empty());
        Ok(Self { user, auth, database, collation, plugin, attributes })
    }

    /// Appends the command, command byte included, framed; returns the next sequence number.
    pub fn encode(&self, out: &mut Vec<u8>, caps: Capabilities) -> u8 {
        writer::packet(out, 0, |out| {
            out.push(command::byte::CHANGE_USER);
            writer::nul_str(out, &self.user);
            match caps.has(Capabilities::SECURE_CONNECTION) {
                true => short_str(out, &self.auth),
                false => writer::nul_str(out, &self.auth),
            }
            writer::nul_str(out, self.database.as_deref().unwrap_or_default());
            let Some(collation) = self.collation else { return };
            out.extend_from_slice(&collation.to_le_bytes());
            if caps.has(Capabilities::PLUGIN_AUTH) {
                writer::nul_str(out, self.plugin.as_deref().unwrap_or_default());
            }
            if caps.has(Capabilities::CONNECT_ATTRS) {
                writer::lenenc_str(out, &self.attributes);
            }
        })
    }
}

/// The server asks for another plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthSwitch {
    /// The plugin's name.
    pub plugin: Vec<u8>,
    /// What the plugin starts with; a nonce and a NUL for those that we know.
    pub data: Vec<u8>,
}

impl AuthSwitch {
    /// Reads it. The single byte 0xFE asks for the password scheme before 4.1 and is refused.
    ///
    /// # Errors
    /// [`Malformed`] when it is none, or the old form.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(payload);
        if cursor.u8("first byte of an authentication switch")? != reply::EOF {
            return Err(Malformed::new("first byte of an authentication switch", 0));
        }
        if cursor.is_empty() {
            return Err(Malformed::new("switch to the password scheme before 4.1", 1));
        }
        let plugin = capped(cursor.nul_str("plugin name")?, PLUGIN_MAX, "plugin name")?;
        Ok(Self { plugin, data: capped(cursor.rest(), AUTH_MAX, "plugin data")? })
    }

    /// The nonce in its data, when it has the usual form.
    #[must_use]
    pub fn nonce(&self) -> Option<[u8; NONCE_LEN]> {
        let nonce = self.data.strip_suffix(&[0]).unwrap_or(&self.data);
        nonce.try_into().ok()
    }

    /// Appends it with a nonce, framed; returns the next sequence number.
    pub fn encode(out: &mut Vec<u8>, seq: u8, plugin: &[u8], nonce: &[u8; NONCE_LEN]) -> u8 {
        writer::packet(out, seq, |out| {
            out.push(reply::EOF);
            writer::nul_str(out, plugin);
            out.extend_from_slice(nonce);
            out.push(0);
        })
    }
}

/// Further data of the plugin at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthMoreData<'a> {
    /// The plugin's data.
    pub data: &'a [u8],
}

impl<'a> AuthMoreData<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// [`Malformed`] when it is none.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        match payload.split_first() {
            Some((&MORE_DATA, data)) => Ok(Self { data }),
            _ => Err(Malformed::new("first byte of further authentication data", 0)),
        }
    }

    /// Appends it, framed; returns the next sequence number.
    pub fn encode(&self, out: &mut Vec<u8>, seq: u8) -> u8 {
        writer::packet(out, seq, |out| {
            out.push(MORE_DATA);
            out.extend_from_slice(self.data);
        })
    }
}

fn plugin(cursor: &mut Cursor<'_>, caps: Capabilities) -> Result<Option<Vec<u8>>, Malformed> {
    if !caps.has(Capabilities::PLUGIN_AUTH) || cursor.is_empty() {
        return Ok(None);
    }
    capped(cursor.nul_str_or_rest(), PLUGIN_MAX, "plugin name").map(Some)
}

fn attributes(cursor: &mut Cursor<'_>, caps: Capabilities) -> Result<Vec<u8>, Malformed> {
    if !caps.has(Capabilities::CONNECT_ATTRS) || cursor.is_empty() {
        return Ok(Vec::new());
    }
    cursor.lenenc_str("connection attributes").map(<[u8]>::to_vec)
}

fn capped(text: &[u8], limit: usize, what: &'static str) -> Result<Vec<u8>, Malformed> {
    match text.len() > limit {
        true => Err(Malformed::new(what, text.len())),
        false => Ok(text.to_vec()),
    }
}

/// A string with a length of one byte; what does not fit is cut.
fn short_str(out: &mut Vec<u8>, text: &[u8]) {
    let text = text.get(..255).unwrap_or(text);
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn greeting(capabilities: u32) -> Greeting {
        Greeting {
            version: b"10.11.6-MariaDB".to_vec(),
            connection_id: 0x0102_0304,
            nonce: *b"abcdefghijklmnopqrst",
            capabilities: Capabilities(capabilities),
            mariadb: MariadbCapabilities(0x1d),
            collation: 45,
            status: Status::AUTOCOMMIT,
            plugin: b"mysql_native_password".to_vec(),
        }
    }

    fn body(fill: impl FnOnce(&mut Vec<u8>) -> u8) -> Vec<u8> {
        let mut out = Vec::new();
        fill(&mut out);
        out.split_off(4)
    }

    #[test]
    fn mariadb_has_further_capabilities_where_mysql_has_filler() {
        let sent = greeting(0x81bf_f7fe);
        assert_eq!(Greeting::parse(&body(|out| sent.encode(out))), Ok(sent));
        let sent = greeting(0x81bf_f7ff);
        let want = Greeting { mariadb: MariadbCapabilities(0), ..sent.clone() };
        assert_eq!(Greeting::parse(&body(|out| sent.encode(out))), Ok(want));
    }

    #[test]
    fn greetings_that_are_none_are_refused() {
        let good = body(|out| greeting(0x81bf_f7fe).encode(out));
        for cut in 0..good.len() - 23 {
            assert!(Greeting::parse(&good[..cut]).is_err(), "{cut}");
        }
        let mut old = good.clone();
        old[0] = 9;
        assert!(Greeting::parse(&old).is_err());
        let long = Greeting { version: vec![b'8'; 300], ..greeting(0) };
        assert!(Greeting::parse(&body(|out| long.encode(out))).is_err());
    }

    #[test]
    fn a_client_older_than_4_1_is_named_as_such() {
        let error = HandshakeResponse::parse(b"\x85\x04\x00\x00\x00root\0abcdefgh").unwrap_err();
        assert!(error.what.contains("older than 4.1"));
    }

    #[test]
    fn announced_strings_may_be_missing_at_the_end() {
        let caps = Capabilities(512 | 32768 | 8 | (1 << 19) | (1 << 20));
        let sent = HandshakeResponse {
            capabilities: caps,
            mariadb: MariadbCapabilities(0),
            max_packet: 1 << 24,
            collation: 33,
            user: b"app".to_vec(),
            auth: vec![7; 20],
            database: None,
            plugin: None,
            attributes: Vec::new(),
            zstd_level: 0,
        };
        let whole = body(|out| sent.encode(out, 1));
        // User, NUL, length and twenty bytes stand behind the fixed fields.
        let parsed = HandshakeResponse::parse(&whole[..32 + 4 + 21]).unwrap();
        assert_eq!(parsed, sent);
    }

    #[test]
    fn a_tls_request_is_told_by_its_length() {
        let caps = Capabilities::SSL.with(Capabilities::PROTOCOL_41);
        let mariadb = MariadbCapabilities(5);
        let sent = SslRequest { capabilities: caps, mariadb, max_packet: 9, collation: 8 };
        let payload = body(|out| sent.encode(out, 1));
        assert!(SslRequest::is_one(&payload));
        assert_eq!(SslRequest::parse(&payload), Ok(sent));
        assert!(!SslRequest::is_one(&[payload, vec![0]].concat()));
    }

    #[test]
    fn the_old_switch_is_refused() {
        assert!(AuthSwitch::parse(b"\xfe").is_err());
        let payload = body(|out| AuthSwitch::encode(out, 2, b"p", b"abcdefghijklmnopqrst"));
        let switch = AuthSwitch::parse(&payload).unwrap();
        assert_eq!(switch.nonce(), Some(*b"abcdefghijklmnopqrst"));
        assert_eq!(AuthSwitch { data: vec![1; 8], ..switch }.nonce(), None);
    }

    #[test]
    fn authentication_data_is_not_shown() {
        let caps = Capabilities(512);
        let user = ChangeUser::parse(b"app\0secret\0db\0", caps).unwrap();
        assert_eq!((&user.user[..], &user.auth[..]), (&b"app"[..], &b"secret"[..]));
        assert!(!format!("{user:?}").contains("secret"));
    }

    fn text(limit: usize) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(1_u8.., 1..limit)
    }

    proptest! {
        #[test]
        fn responses_come_back(
            user in text(40), auth in text(200), database in text(40), plugin in text(40),
            attributes: Vec<u8>, flags: u32, max_packet: u32, collation: u8, further: u32,
            zstd_level: u8,
        ) {
            let capabilities = Capabilities(flags).with(Capabilities::PROTOCOL_41);
            let has = |flag| capabilities.has(flag);
            let sent = HandshakeResponse {
                capabilities,
                mariadb: MariadbCapabilities(match has(Capabilities::LONG_PASSWORD) {
                    true => 0,
                    false => further,
                }),
                max_packet,
                collation,
                user,
                auth,
                database: has(Capabilities::CONNECT_WITH_DB).then_some(database),
                plugin: has(Capabilities::PLUGIN_AUTH).then_some(plugin),
                attributes: match has(Capabilities::CONNECT_ATTRS) {
                    true => attributes,
                    false => Vec::new(),
                },
                zstd_level: if has(Capabilities::ZSTD_COMPRESSION) { zstd_level } else { 0 },
            };
            let payload = body(|out| sent.encode(out, 1));
            prop_assert_eq!(HandshakeResponse::parse(&payload), Ok(sent));
        }

        #[test]
        fn changes_of_user_come_back(
            user in text(40), auth in text(200), database in text(40), plugin in text(40),
            attributes: Vec<u8>, collation: u16,
        ) {
            let caps = Capabilities(512 | 32768 | (1 << 19) | (1 << 20));
            let (database, plugin) = (Some(database), Some(plugin));
            let collation = Some(collation);
            let sent = ChangeUser { user, auth, database, collation, plugin, attributes };
            let payload = body(|out| sent.encode(out, caps));
            prop_assert_eq!(ChangeUser::parse(&payload[1..], caps), Ok(sent));
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>, caps: u32) {
            let _ = HandshakeResponse::parse(&bytes);
            let _ = ChangeUser::parse(&bytes, Capabilities(caps));
            let _ = AuthSwitch::parse(&bytes);
            let _ = AuthMoreData::parse(&bytes);
            let _ = SslRequest::parse(&bytes);
            bytes.splice(0..0, [10, b'8', 0]);
            let _ = Greeting::parse(&bytes);
        }
    }
}
