//! The record layer of one connection, without I/O: cipher text in, plain text out, and back.
//!
//! Nothing is kept between calls but the state of the ciphers and the beginning of a record
//! that has not come whole: an idle connection holds no buffer.

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, ServerConfig, SupportedCipherSuite};

use crate::tls::TlsError;

/// Room that a record of at most 16 KiB needs in addition for its header, nonce and tag, twice.
const RECORD_OVERHEAD: usize = 128;
/// Most bytes of a record's content.
const RECORD_MAX: usize = 16 * 1024;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The handshake needs more of the other side.
    Handshaking,
    /// Data may pass.
    Open,
    /// The other side has said that it sends no more.
    Closed,
}

/// One connection's record layer.
pub struct Records {
    role: Role,
    /// Cipher text that has come and was not decrypted yet: less than a record, between calls.
    pub incoming: Vec<u8>,
}

enum Role {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// Where plain text goes: into the reader's buffer first, what does not fit behind it.
#[derive(Debug)]
pub struct Sink<'a> {
    buffer: &'a mut [u8],
    /// Bytes of the buffer that are filled.
    pub filled: usize,
    rest: &'a mut Vec<u8>,
}

/// What one step of the library left to do.
enum Turn {
    /// Call it again.
    Again,
    /// It has said how far the connection is.
    Rest(Progress),
}

// === impls ===

impl<'a> Sink<'a> {
    /// An empty one.
    pub fn new(buffer: &'a mut [u8], rest: &'a mut Vec<u8>) -> Self {
        Self { buffer, filled: 0, rest }
    }

    /// Appends.
    pub fn put(&mut self, bytes: &[u8]) {
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let fits = if self.rest.is_empty() { room.len().min(bytes.len()) } else { 0 };
        let (now, later) = bytes.split_at(fits);
        if let Some(room) = room.get_mut(..fits) {
            room.copy_from_slice(now);
        }
        self.filled += fits;
        self.rest.extend_from_slice(later);
    }
}

impl Records {
    /// The server's side.
    ///
    /// # Errors
    /// When the configuration has no certificate that fits.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self { role: Role::Server(Box::new(connection)), incoming: Vec::new() })
    }

    /// The client's side, towards a server of this name.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        let connection = UnbufferedClientConnection::new(config, name)?;
        Ok(Self { role: Role::Client(Box::new(connection)), incoming: Vec::new() })
    }

    /// The certificates of the other side, its own first; `None` when it has shown none.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match &self.role {
            Role::Server(connection) => connection.peer_certificates(),
            Role::Client(connection) => connection.peer_certificates(),
        }
    }

    /// The cipher suite, once it is agreed on.
    #[must_use]
    pub fn cipher_suite(&self) -> Option<SupportedCipherSuite> {
        match &self.role {
            Role::Server(connection) => connection.negotiated_cipher_suite(),
            Role::Client(connection) => connection.negotiated_cipher_suite(),
        }
    }

    /// Decrypts all whole records of [`Records::incoming`]. What the library itself has to say
    /// (handshake, alerts) is appended to `outgoing`, also when it ends in an error.
    ///
    /// # Errors
    /// When the other side breaks the protocol, or is not trusted.
    pub fn advance(
        &mut self,
        plain: &mut Sink<'_>,
        outgoing: &mut Vec<u8>,
    ) -> Result<Progress, TlsError> {
        let mut used = 0;
        let result = loop {
            let incoming = self.incoming.get_mut(used..).unwrap_or_default();
            let turn = match &mut self.role {
                Role::Server(connection) => {
                    let status = connection.process_tls_records(incoming);
                    turn(status, &mut used, Some(plain), None, outgoing)
                }
                Role::Client(connection) => {
                    let status = connection.process_tls_records(incoming);
                    turn(status, &mut used, Some(plain), None, outgoing)
                }
            };
            match turn {
                Ok(Turn::Again) => {}
                Ok(Turn::Rest(progress)) => break Ok(progress),
                Err(error) => break Err(error),
            }
        };
        if used >= self.incoming.len() {
            self.incoming = Vec::new();
        } else {
            self.incoming.drain(..used);
        }
        if result.is_err() {
            self.say_alert(outgoing);
            self.incoming = Vec::new();
        }
        result
    }

    /// Encrypts `bytes`, appending to `outgoing`. All whole records must have been decrypted.
    ///
    /// # Errors
    /// Before the handshake is over, or when a key has been used for as long as is safe.
    pub fn encrypt(&mut self, bytes: &[u8], outgoing: &mut Vec<u8>) -> Result<(), TlsError> {
        let mut used = 0;
        loop {
            let incoming = &mut self.incoming;
            let write = Some(bytes);
            let turn = match &mut self.role {
                Role::Server(connection) => {
                    turn(connection.process_tls_records(incoming), &mut used, None, write, outgoing)
                }
                Role::Client(connection) => {
                    turn(connection.process_tls_records(incoming), &mut used, None, write, outgoing)
                }
            };
            match turn? {
                Turn::Again => {}
                Turn::Rest(Progress::Open) => return Ok(()),
                Turn::Rest(Progress::Handshaking | Progress::Closed) => {
                    return Err(TlsError::State("nothing can be sent now"));
                }
            }
        }
    }

    /// The alert that tells the other side why this one closes. Asked for once: after it the
    /// library must not see the bytes again.
    fn say_alert(&mut self, outgoing: &mut Vec<u8>) {
        let mut used = 0;
        // The same bytes again: the library remembers how far it was in them.
        let incoming = &mut self.incoming;
        let _ = match &mut self.role {
            Role::Server(connection) => {
                turn(connection.process_tls_records(incoming), &mut used, None, None, outgoing)
            }
            Role::Client(connection) => {
                turn(connection.process_tls_records(incoming), &mut used, None, None, outgoing)
            }
        };
    }
}

/// Does what one answer of the library says.
fn turn<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    used: &mut usize,
    plain: Option<&mut Sink<'_>>,
    write: Option<&[u8]>,
    outgoing: &mut Vec<u8>,
) -> Result<Turn, TlsError> {
    *used += status.discard;
    match status.state? {
        ConnectionState::ReadTraffic(mut traffic) => {
            let plain = plain.ok_or(TlsError::State("plain text out of turn"))?;
            while let Some(record) = traffic.next_record() {
                let record = record?;
                *used += record.discard;
                plain.put(record.payload);
            }
            Ok(Turn::Again)
        }
        ConnectionState::EncodeTlsData(mut data) => {
            encode(&mut data, outgoing)?;
            Ok(Turn::Again)
        }
        ConnectionState::TransmitTlsData(data) => {
            // It goes out with `outgoing`, before anything else.
            data.done();
            Ok(Turn::Again)
        }
        ConnectionState::BlockedHandshake => Ok(Turn::Rest(Progress::Handshaking)),
        ConnectionState::WriteTraffic(mut traffic) => {
            if let Some(bytes) = write {
                encrypt(&mut traffic, bytes, outgoing)?;
            }
            Ok(Turn::Rest(Progress::Open))
        }
        // Said once; what comes next is said by the next call.
        ConnectionState::PeerClosed if write.is_some() => Ok(Turn::Again),
        ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Turn::Rest(Progress::Closed)),
        ConnectionState::ReadEarlyData(_) => Err(TlsError::State("early data")),
        _ => Err(TlsError::State("one that is not known")),
    }
}

/// Appends what the library has to say.
fn encode<Data>(
    data: &mut EncodeTlsData<'_, Data>,
    outgoing: &mut Vec<u8>,
) -> Result<(), TlsError> {
    let begin = outgoing.len();
    let needed = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
        Ok(_) | Err(EncodeError::AlreadyEncoded) => return Ok(()),
    };
    outgoing.resize(begin + needed, 0);
    match data.encode(outgoing.get_mut(begin..).unwrap_or_default()) {
        Ok(_) => Ok(()),
        Err(_) => Err(TlsError::State("no room for a handshake message")),
    }
}

/// Appends `bytes` as records.
fn encrypt<Data>(
    traffic: &mut WriteTraffic<'_, Data>,
    bytes: &[u8],
    outgoing: &mut Vec<u8>,
) -> Result<(), TlsError> {
    let begin = outgoing.len();
    let records = bytes.len().div_ceil(RECORD_MAX).max(1);
    let mut room = bytes.len() + records * RECORD_OVERHEAD;
    // A key update may have to go out first; the second time has the room that was asked for.
    for _ in 0..2 {
        outgoing.resize(begin + room, 0);
        match traffic.encrypt(bytes, outgoing.get_mut(begin..).unwrap_or_default()) {
            Ok(written) => {
                outgoing.truncate(begin + written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(needed)) => room = needed.required_size,
            Err(EncryptError::EncryptExhausted) => break,
        }
    }
    outgoing.truncate(begin);
    Err(TlsError::State("a key is exhausted"))
}

impl std::fmt::Debug for Records {
    /// Without keys or contents.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let role = match self.role {
            Role::Server(_) => "server",
            Role::Client(_) => "client",
        };
        f.debug_struct("Records").field("role", &role).finish_non_exhaustive()
    }
}
