//! The packets of a reply that carry state: OK, EOF, ERR, prepare-OK and the LOCAL INFILE
//! request.

use super::cursor::Cursor;
use super::flags::{Capabilities, Status};
use super::{Malformed, writer};

/// First byte of an OK packet.
pub const OK: u8 = 0x00;
/// First byte of an EOF packet, and of an OK packet that ends rows (CLIENT_DEPRECATE_EOF).
pub const EOF: u8 = 0xFE;
/// First byte of an ERR packet.
pub const ERR: u8 = 0xFF;
/// First byte of a LOCAL INFILE request.
pub const LOCAL_INFILE: u8 = 0xFB;
/// The error code that makes an ERR packet a MariaDB progress report.
pub const PROGRESS_REPORT: u16 = 0xFFFF;

/// An OK packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ok<'a> {
    /// Affected rows.
    pub affected: u64,
    /// The first generated AUTO_INCREMENT value.
    pub insert_id: u64,
    /// The server's status.
    pub status: Status,
    /// Number of warnings.
    pub warnings: u16,
    /// A text for people, such as `Records: 2  Duplicates: 0  Warnings: 0`.
    pub info: &'a [u8],
    /// The block of tracked changes, see [`super::session_track`].
    pub tracks: &'a [u8],
}

impl<'a> Ok<'a> {
    /// Reads an OK packet, whichever its first byte.
    ///
    /// # Errors
    /// [`Malformed`] when it is none or short.
    pub fn parse(payload: &'a [u8], caps: Capabilities) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(payload);
        match cursor.u8("first byte of an OK packet")? {
            OK | EOF => {}
            _ => return Err(Malformed::new("first byte of an OK packet", 0)),
        }
        let mut ok = Self {
            affected: cursor.lenenc_int("affected rows")?,
            insert_id: cursor.lenenc_int("insert id")?,
            ..Self::default()
        };
        if caps.has(Capabilities::PROTOCOL_41) {
            ok.status = Status(cursor.u16("status flags")?);
            ok.warnings = cursor.u16("warnings")?;
        } else if caps.has(Capabilities::TRANSACTIONS) {
            ok.status = Status(cursor.u16("status flags")?);
        }
        if cursor.is_empty() {
            return Ok(ok);
        }
        if caps.has(Capabilities::SESSION_TRACK) {
            ok.info = cursor.lenenc_str("info")?;
            if ok.status.has(Status::SESSION_STATE_CHANGED) {
                ok.tracks = cursor.lenenc_str("tracked changes")?;
            }
            return Ok(ok);
        }
        // The protocol page says "rest of the packet" here, servers and clients write and read
        // a length-encoded string. Take what fits.
        let mut lenenc = cursor.clone();
        ok.info = match lenenc.lenenc_str("info") {
            Ok(text) if lenenc.is_empty() => text,
            _ => cursor.rest(),
        };
        Ok(ok)
    }

    /// Appends the packet as a client with `caps` expects it: tracked changes only with
    /// CLIENT_SESSION_TRACK, and the status flag that announces them set exactly when they
    /// follow. `header` is [`OK`], or [`EOF`] where it ends rows. Returns the next sequence
    /// number.
    pub fn encode(&self, out: &mut Vec<u8>, seq: u8, header: u8, caps: Capabilities) -> u8 {
        let tracking = caps.has(Capabilities::SESSION_TRACK);
        let tracked = tracking && !self.tracks.is_empty();
        let status = match tracked {
            true => self.status.with(Status::SESSION_STATE_CHANGED),
            false => self.status.without(Status::SESSION_STATE_CHANGED),
        };
        writer::packet(out, seq, |out| {
            out.push(header);
            writer::lenenc_int(out, self.affected);
            writer::lenenc_int(out, self.insert_id);
            if caps.has(Capabilities::PROTOCOL_41) {
                out.extend_from_slice(&status.0.to_le_bytes());
                out.extend_from_slice(&self.warnings.to_le_bytes());
            } else if caps.has(Capabilities::TRANSACTIONS) {
                out.extend_from_slice(&status.0.to_le_bytes());
            }
            if tracked || !self.info.is_empty() {
                writer::lenenc_str(out, self.info);
            }
            if tracked {
                writer::lenenc_str(out, self.tracks);
            }
        })
    }
}

/// An EOF packet of the older dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Eof {
    /// Number of warnings.
    pub warnings: u16,
    /// The server's status.
    pub status: Status,
}

impl Eof {
    /// Reads an EOF packet. Before 4.1 it is a single byte.
    ///
    /// # Errors
    /// [`Malformed`] when it is none or short.
    pub fn parse(payload: &[u8], caps: Capabilities) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(payload);
        if cursor.u8("first byte of an EOF packet")? != EOF || payload.len() >= 9 {
            return Err(Malformed::new("first byte of an EOF packet", 0));
        }
        if !caps.has(Capabilities::PROTOCOL_41) {
            return Ok(Self::default());
        }
        Ok(Self { warnings: cursor.u16("warnings")?, status: Status(cursor.u16("status flags")?) })
    }

    /// Appends the packet; returns the next sequence number.
    pub fn encode(&self, out: &mut Vec<u8>, seq: u8, caps: Capabilities) -> u8 {
        writer::packet(out, seq, |out| {
            out.push(EOF);
            if caps.has(Capabilities::PROTOCOL_41) {
                out.extend_from_slice(&self.warnings.to_le_bytes());
                out.extend_from_slice(&self.status.0.to_le_bytes());
            }
        })
    }
}

/// An ERR packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Err<'a> {
    /// The error number.
    pub code: u16,
    /// The SQLSTATE; `None` where the packet has none (before the handshake is through).
    pub state: Option<[u8; 5]>,
    /// The text.
    pub message: &'a [u8],
}

impl<'a> Err<'a> {
    /// Reads an ERR packet. A server that refuses before it knows the client's capabilities
    /// leaves out the SQLSTATE, so its mark decides and not a capability.
    ///
    /// # Errors
    /// [`Malformed`] when it is none or short.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(payload);
        if cursor.u8("first byte of an ERR packet")? != ERR {
            return Err(Malformed::new("first byte of an ERR packet", 0));
        }
        let code = cursor.u16("error code")?;
        let state = match cursor.peek().first_chunk::<6>() {
            Some([b'#', state @ ..]) => Some(*state),
            _ => None,
        };
        if state.is_some() {
            cursor.skip(6, "SQLSTATE")?;
        }
        Ok(Self { code, state, message: cursor.rest() })
    }

    /// The error number of an ERR payload; 0 when it is none.
    #[must_use]
    pub fn code_of(payload: &'a [u8]) -> u16 {
        Self::parse(payload).map_or(0, |error| error.code)
    }

    /// The text of an ERR payload; empty when it is none.
    #[must_use]
    pub fn message_of(payload: &'a [u8]) -> &'a [u8] {
        Self::parse(payload).map_or(b"", |error| error.message)
    }

    /// Whether it is no error but a MariaDB progress report.
    #[must_use]
    pub const fn is_progress(&self) -> bool {
        self.code == PROGRESS_REPORT
    }

    /// Appends the packet; the SQLSTATE goes only to clients of the 4.1 protocol. Returns the
    /// next sequence number.
    pub fn encode(&self, out: &mut Vec<u8>, seq: u8, caps: Capabilities) -> u8 {
        writer::packet(out, seq, |out| {
            out.push(ERR);
            out.extend_from_slice(&self.code.to_le_bytes());
            if let (Some(state), true) = (self.state, caps.has(Capabilities::PROTOCOL_41)) {
                out.push(b'#');
                out.extend_from_slice(&state);
            }
            out.extend_from_slice(self.message);
        })
    }
}

/// The answer to COM_STMT_PREPARE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrepareOk {
    /// The server's id of the statement.
    pub id: u32,
    /// How many columns its result has; 0 for a statement without a result set.
    pub columns: u16,
    /// How many parameters it has.
    pub params: u16,
    /// Number of warnings.
    pub warnings: u16,
    /// Whether definitions follow (CLIENT_OPTIONAL_RESULTSET_METADATA may leave them out).
    pub metadata: bool,
}

impl PrepareOk {
    /// Where in the payload the four bytes of the id are; a packet's header comes before.
    pub const ID_AT: std::ops::Range<usize> = 1..5;

    /// Reads a prepare-OK packet.
    ///
    /// # Errors
    /// [`Malformed`] when it is none or short.
    pub fn parse(payload: &[u8], caps: Capabilities) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(payload);
        if cursor.u8("first byte of a prepare-OK packet")? != OK {
            return Err(Malformed::new("first byte of a prepare-OK packet", 0));
        }
        let id = cursor.u32("statement id")?;
        let columns = cursor.u16("number of columns")?;
        let params = cursor.u16("number of parameters")?;
        // Servers before 4.1.1 end here.
        let mut warnings = 0;
        if !cursor.is_empty() {
            cursor.skip(1, "filler")?;
            warnings = cursor.u16("warnings")?;
        }
        let optional = caps.has(Capabilities::OPTIONAL_RESULTSET_METADATA);
        let metadata = !optional || cursor.is_empty() || cursor.u8("metadata flag")? != 0;
        Ok(Self { id, columns, params, warnings, metadata })
    }

    /// Puts another id into a whole packet (header included), as it stands in a buffer.
    ///
    /// # Errors
    /// [`Malformed`] when the packet is too short.
    pub fn replace_id(packet: &mut [u8], id: u32) -> Result<(), Malformed> {
        let at = packet.get_mut(5..9).ok_or(Malformed::new("statement id", 5))?;
        at.copy_from_slice(&id.to_le_bytes());
        Ok(())
    }
}

/// The server asks the client for a file (LOAD DATA LOCAL INFILE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalInfile<'a> {
    /// The name of the file on the client's side.
    pub filename: &'a [u8],
}

impl<'a> LocalInfile<'a> {
    /// Reads the request.
    ///
    /// # Errors
    /// [`Malformed`] when it is none.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        match payload.split_first() {
            Some((&LOCAL_INFILE, filename)) => Ok(Self { filename }),
            _ => Err(Malformed::new("first byte of a LOCAL INFILE request", 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Capabilities = Capabilities(512 | 8192);
    const TRACK: Capabilities = Capabilities(512 | 8192 | 0x80_0000);

    fn body(fill: impl FnOnce(&mut Vec<u8>) -> u8) -> Vec<u8> {
        let mut out = Vec::new();
        fill(&mut out);
        out.split_off(4)
    }

    #[test]
    fn an_ok_without_info_is_seven_bytes() {
        let ok = Ok { status: Status(2), ..Ok::default() };
        assert_eq!(body(|out| ok.encode(out, 1, OK, TRACK)), [0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(Ok::parse(&[0, 0, 0, 2, 0, 0, 0], PLAIN), Ok(ok));
    }

    #[test]
    fn tracked_changes_reach_only_those_who_asked() {
        let tracks = b"\x01\x04\x03app";
        let status = Status::AUTOCOMMIT.with(Status::SESSION_STATE_CHANGED);
        let ok = Ok { status, info: b"hi", tracks, ..Ok::default() };
        let seen = body(|out| ok.encode(out, 1, OK, TRACK));
        assert_eq!(Ok::parse(&seen, TRACK), Ok(ok));
        let seen = body(|out| ok.encode(out, 1, OK, PLAIN));
        let want = Ok { status: Status::AUTOCOMMIT, info: b"hi", ..Ok::default() };
        assert_eq!(Ok::parse(&seen, PLAIN), Ok(want));
        // All of them filtered out: the flag goes too.
        let none = Ok { tracks: b"", ..ok };
        let seen = body(|out| none.encode(out, 1, OK, TRACK));
        assert!(!Ok::parse(&seen, TRACK).unwrap().status.has(Status::SESSION_STATE_CHANGED));
    }

    #[test]
    fn info_is_read_with_and_without_a_length() {
        let with = b"\x00\x02\x00\x02\x00\x00\x00\x05hello";
        assert_eq!(Ok::parse(with, PLAIN).unwrap().info, b"hello");
        let without = b"\x00\x02\x00\x02\x00\x00\x00hello";
        assert_eq!(Ok::parse(without, PLAIN).unwrap().info, b"hello");
    }

    #[test]
    fn an_err_is_read_with_and_without_its_state() {
        let with = b"\xff\x15\x04#28000Access denied";
        let err = Err { code: 1045, state: Some(*b"28000"), message: b"Access denied" };
        assert_eq!(Err::parse(with), Ok(err));
        assert_eq!(body(|out| err.encode(out, 2, PLAIN)), with);
        let early = b"\xff\x10\x04Too many connections";
        let err = Err { code: 1040, state: None, message: b"Too many connections" };
        assert_eq!(Err::parse(early), Ok(err));
        assert_eq!(body(|out| err.encode(out, 0, PLAIN)), early);
    }

    #[test]
    fn a_prepare_ok_tells_what_follows() {
        let payload = b"\x00\x07\0\0\0\x02\0\x01\0\0\x03\0";
        let ok = PrepareOk { id: 7, columns: 2, params: 1, warnings: 3, metadata: true };
        assert_eq!(PrepareOk::parse(payload, PLAIN), Ok(ok));
        let mut packet = b"\x0c\0\0\x01".to_vec();
        packet.extend_from_slice(payload);
        PrepareOk::replace_id(&mut packet, 0x0102_0304).unwrap();
        assert_eq!(PrepareOk::parse(&packet[4..], PLAIN).unwrap().id, 0x0102_0304);
        assert!(PrepareOk::replace_id(&mut packet[..8], 1).is_err());
    }

    proptest! {
        #[test]
        fn oks_come_back(
            affected: u64, insert_id: u64, status: u16, warnings: u16,
            info: Vec<u8>, tracks in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            let status = Status(status).with(Status::SESSION_STATE_CHANGED);
            let ok = Ok { affected, insert_id, status, warnings, info: &info, tracks: &tracks };
            let seen = body(|out| ok.encode(out, 1, EOF, TRACK));
            prop_assert_eq!(Ok::parse(&seen, TRACK), Ok(ok));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, caps: u32) {
            let caps = Capabilities(caps);
            let _ = Ok::parse(&bytes, caps);
            let _ = Eof::parse(&bytes, caps);
            let _ = Err::parse(&bytes);
            let _ = PrepareOk::parse(&bytes, caps);
            let _ = LocalInfile::parse(&bytes);
        }
    }
}
