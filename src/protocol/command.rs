//! Commands: the first byte of a client's payload, and the fields behind it.
//!
//! Unknown bytes are a value and no error: a server answers them with an error of its own.

use super::cursor::Cursor;
use super::flags::Capabilities;
use super::{Malformed, execute};

/// The bytes of the commands that we write ourselves or that others match on.
#[allow(missing_docs, reason = "each is the protocol's own name")]
pub mod byte {
    pub const QUIT: u8 = 0x01;
    pub const INIT_DB: u8 = 0x02;
    pub const QUERY: u8 = 0x03;
    pub const PROCESS_KILL: u8 = 0x0C;
    pub const PING: u8 = 0x0E;
    pub const CHANGE_USER: u8 = 0x11;
    pub const STMT_PREPARE: u8 = 0x16;
    pub const STMT_EXECUTE: u8 = 0x17;
    pub const STMT_SEND_LONG_DATA: u8 = 0x18;
    pub const STMT_CLOSE: u8 = 0x19;
    pub const STMT_RESET: u8 = 0x1A;
    pub const SET_OPTION: u8 = 0x1B;
    pub const STMT_FETCH: u8 = 0x1C;
    pub const RESET_CONNECTION: u8 = 0x1F;
    pub const STMT_BULK_EXECUTE: u8 = 0xFA;
}

/// One command of a client, borrowed from its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// COM_SLEEP: internal to the server, which refuses it.
    Sleep,
    /// COM_QUIT: no answer.
    Quit,
    /// COM_INIT_DB.
    InitDb {
        /// The schema's name.
        schema: &'a [u8],
    },
    /// COM_QUERY.
    Query {
        /// The statement's text, in the client's character set.
        sql: &'a [u8],
        /// The raw parameter block of CLIENT_QUERY_ATTRIBUTES, both counts included; empty
        /// when the client has not that capability.
        attributes: &'a [u8],
    },
    /// COM_FIELD_LIST.
    FieldList {
        /// The table's name.
        table: &'a [u8],
        /// A pattern for the columns.
        wildcard: &'a [u8],
    },
    /// COM_CREATE_DB.
    CreateDb {
        /// The schema's name.
        schema: &'a [u8],
    },
    /// COM_DROP_DB.
    DropDb {
        /// The schema's name.
        schema: &'a [u8],
    },
    /// COM_REFRESH.
    Refresh {
        /// What to flush, a bit field.
        flags: u8,
    },
    /// COM_SHUTDOWN.
    Shutdown,
    /// COM_STATISTICS: answered with plain text.
    Statistics,
    /// COM_PROCESS_INFO.
    ProcessInfo,
    /// COM_CONNECT: internal to the server.
    Connect,
    /// COM_PROCESS_KILL.
    ProcessKill {
        /// The connection id as the client knows it.
        id: u32,
    },
    /// COM_DEBUG.
    Debug,
    /// COM_PING.
    Ping,
    /// COM_TIME: internal to the server.
    Time,
    /// COM_DELAYED_INSERT: internal to the server.
    DelayedInsert,
    /// COM_CHANGE_USER; `handshake::ChangeUser` reads it.
    ChangeUser {
        /// What follows the command byte.
        raw: &'a [u8],
    },
    /// COM_BINLOG_DUMP.
    BinlogDump,
    /// COM_TABLE_DUMP.
    TableDump,
    /// COM_CONNECT_OUT: internal to the server.
    ConnectOut,
    /// COM_REGISTER_SLAVE.
    RegisterSlave,
    /// COM_STMT_PREPARE.
    StmtPrepare {
        /// The statement's text.
        sql: &'a [u8],
    },
    /// COM_STMT_EXECUTE; [`execute`] reads the rest.
    StmtExecute {
        /// The statement's id; 0xFFFFFFFF with MariaDB means the last one prepared.
        id: u32,
        /// Cursor type and, with query attributes, PARAMETER_COUNT_AVAILABLE.
        flags: u8,
        /// Always 1.
        iterations: u32,
        /// Null bitmap, types and values.
        rest: &'a [u8],
    },
    /// COM_STMT_SEND_LONG_DATA: no answer.
    StmtSendLongData {
        /// The statement's id.
        id: u32,
        /// The parameter's number, from 0.
        param: u16,
        /// The bytes to append.
        data: &'a [u8],
    },
    /// COM_STMT_CLOSE: no answer.
    StmtClose {
        /// The statement's id.
        id: u32,
    },
    /// COM_STMT_RESET.
    StmtReset {
        /// The statement's id.
        id: u32,
    },
    /// COM_SET_OPTION: 0 switches multi-statements on, 1 off.
    SetOption(u16),
    /// COM_STMT_FETCH.
    StmtFetch {
        /// The statement's id.
        id: u32,
        /// How many rows at most.
        rows: u32,
    },
    /// COM_DAEMON: internal to the server.
    Daemon,
    /// COM_BINLOG_DUMP_GTID.
    BinlogDumpGtid,
    /// COM_RESET_CONNECTION.
    ResetConnection,
    /// COM_CLONE.
    Clone,
    /// COM_STMT_BULK_EXECUTE (MariaDB).
    StmtBulkExecute {
        /// The statement's id.
        id: u32,
        /// 64 return generated ids, 128 types follow.
        flags: u16,
        /// Types and rows.
        rest: &'a [u8],
    },
    /// A byte that stands for no command that we know.
    Unknown(u8),
}

impl Command<'_> {
    /// Whether the server sends nothing in return.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        matches!(self, Self::Quit | Self::StmtClose { .. } | Self::StmtSendLongData { .. })
    }
}

/// Reads the command in `payload`. `caps` are those of the client's connection.
///
/// # Errors
/// [`Malformed`] when the payload is empty or shorter than the command's fixed fields.
pub fn parse(payload: &[u8], caps: Capabilities) -> Result<Command<'_>, Malformed> {
    let mut cursor = Cursor::new(payload);
    let command = match cursor.u8("command byte")? {
        0x00 => Command::Sleep,
        byte::QUIT => Command::Quit,
        byte::INIT_DB => Command::InitDb { schema: cursor.rest() },
        byte::QUERY => query(&mut cursor, caps)?,
        0x04 => field_list(&mut cursor)?,
        0x05 => Command::CreateDb { schema: cursor.rest() },
        0x06 => Command::DropDb { schema: cursor.rest() },
        0x07 => Command::Refresh { flags: cursor.u8("refresh flags")? },
        0x08 => Command::Shutdown,
        0x09 => Command::Statistics,
        0x0A => Command::ProcessInfo,
        0x0B => Command::Connect,
        byte::PROCESS_KILL => Command::ProcessKill { id: cursor.u32("connection id")? },
        0x0D => Command::Debug,
        byte::PING => Command::Ping,
        0x0F => Command::Time,
        0x10 => Command::DelayedInsert,
        byte::CHANGE_USER => Command::ChangeUser { raw: cursor.rest() },
        0x12 => Command::BinlogDump,
        0x13 => Command::TableDump,
        0x14 => Command::ConnectOut,
        0x15 => Command::RegisterSlave,
        byte::STMT_PREPARE => Command::StmtPrepare { sql: cursor.rest() },
        byte::STMT_EXECUTE => Command::StmtExecute {
            id: cursor.u32("statement id")?,
            flags: cursor.u8("cursor flags")?,
            iterations: cursor.u32("iteration count")?,
            rest: cursor.rest(),
        },
        byte::STMT_SEND_LONG_DATA => Command::StmtSendLongData {
            id: cursor.u32("statement id")?,
            param: cursor.u16("parameter number")?,
            data: cursor.rest(),
        },
        byte::STMT_CLOSE => Command::StmtClose { id: cursor.u32("statement id")? },
        byte::STMT_RESET => Command::StmtReset { id: cursor.u32("statement id")? },
        byte::SET_OPTION => Command::SetOption(cursor.u16("option")?),
        byte::STMT_FETCH => Command::StmtFetch {
            id: cursor.u32("statement id")?,
            rows: cursor.u32("number of rows")?,
        },
        0x1D => Command::Daemon,
        0x1E => Command::BinlogDumpGtid,
        byte::RESET_CONNECTION => Command::ResetConnection,
        0x20 => Command::Clone,
        byte::STMT_BULK_EXECUTE => Command::StmtBulkExecute {
            id: cursor.u32("statement id")?,
            flags: cursor.u16("bulk flags")?,
            rest: cursor.rest(),
        },
        unknown => Command::Unknown(unknown),
    };
    Ok(command)
}

/// COM_QUIT as a whole packet.
pub const QUIT: [u8; 5] = [1, 0, 0, 0, byte::QUIT];

/// COM_STMT_CLOSE as a whole packet; it has no answer.
#[must_use]
pub fn stmt_close(id: u32) -> [u8; 9] {
    let [a, b, c, d] = id.to_le_bytes();
    [5, 0, 0, 0, byte::STMT_CLOSE, a, b, c, d]
}

/// The payload of a COM_QUERY of our own, without attributes.
#[must_use]
pub fn query_payload(sql: &[u8], caps: Capabilities) -> Vec<u8> {
    // No attributes, one set of them.
    let attributes: &[u8] = if caps.has(Capabilities::QUERY_ATTRIBUTES) { &[0, 1] } else { &[] };
    [&[byte::QUERY], attributes, sql].concat()
}

fn query<'a>(cursor: &mut Cursor<'a>, caps: Capabilities) -> Result<Command<'a>, Malformed> {
    if !caps.has(Capabilities::QUERY_ATTRIBUTES) {
        return Ok(Command::Query { sql: cursor.rest(), attributes: &[] });
    }
    let whole = cursor.peek();
    let start = cursor.at();
    execute::skip_attributes(cursor)?;
    let len = cursor.at().saturating_sub(start);
    let attributes = whole.get(..len).unwrap_or_default();
    Ok(Command::Query { sql: cursor.rest(), attributes })
}

fn field_list<'a>(cursor: &mut Cursor<'a>) -> Result<Command<'a>, Malformed> {
    let table = cursor.nul_str("table name")?;
    Ok(Command::FieldList { table, wildcard: cursor.rest() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Capabilities = Capabilities::PROTOCOL_41;
    const ATTRS: Capabilities = Capabilities(512 | 0x0800_0000);

    #[test]
    fn commands_are_told_by_their_first_byte() {
        let table: &[(&[u8], Command<'_>)] = &[
            (b"\x01", Command::Quit),
            (b"\x02app", Command::InitDb { schema: b"app" }),
            (b"\x03DO 1", Command::Query { sql: b"DO 1", attributes: b"" }),
            (b"\x04t\0c%", Command::FieldList { table: b"t", wildcard: b"c%" }),
            (b"\x0c\x07\0\0\0", Command::ProcessKill { id: 7 }),
            (b"\x0e", Command::Ping),
            (b"\x11u\0", Command::ChangeUser { raw: b"u\0" }),
            (b"\x16SELECT ?", Command::StmtPrepare { sql: b"SELECT ?" }),
            (
                b"\x17\x01\0\0\0\x01\x01\0\0\0\0\x01",
                Command::StmtExecute { id: 1, flags: 1, iterations: 1, rest: b"\0\x01" },
            ),
            (b"\x18\x01\0\0\0\x02\0xy", Command::StmtSendLongData { id: 1, param: 2, data: b"xy" }),
            (b"\x19\x01\0\0\0", Command::StmtClose { id: 1 }),
            (b"\x1b\x01\0", Command::SetOption(1)),
            (b"\x1c\x01\0\0\0\x05\0\0\0", Command::StmtFetch { id: 1, rows: 5 }),
            (b"\x1f", Command::ResetConnection),
            (
                b"\xfa\xff\xff\xff\xff\x80\0zz",
                Command::StmtBulkExecute { id: u32::MAX, flags: 128, rest: b"zz" },
            ),
            (b"\x7fabc", Command::Unknown(0x7F)),
        ];
        for (payload, want) in table {
            assert_eq!(parse(payload, PLAIN).as_ref(), Ok(want), "{payload:?}");
        }
    }

    #[test]
    fn short_commands_are_malformed() {
        for payload in [&b""[..], b"\x17\x01\0", b"\x19\x01", b"\x1b", b"\x04t"] {
            assert!(parse(payload, PLAIN).is_err(), "{payload:?}");
        }
    }

    #[test]
    fn the_text_starts_behind_the_query_attributes() {
        let none = b"\x03\x00\x01SELECT 1";
        let want = Command::Query { sql: b"SELECT 1", attributes: b"\x00\x01" };
        assert_eq!(parse(none, ATTRS), Ok(want));

        // Three attributes: a string, a NULL and a BIGINT.
        let mut payload = b"\x03\x03\x01\x02\x01".to_vec();
        payload.extend_from_slice(b"\xfe\0\x05trace\x06\0\x01n\x08\x80\x02id");
        payload.extend_from_slice(b"\x04SEL;");
        payload.extend_from_slice(&7_u64.to_le_bytes());
        let block = payload.len() - 1;
        payload.extend_from_slice(b"SELECT 2");
        match parse(&payload, ATTRS).unwrap() {
            Command::Query { sql, attributes } => {
                assert_eq!(sql, b"SELECT 2");
                assert_eq!(attributes.len(), block);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn query_attributes_that_do_not_add_up_are_malformed() {
        for payload in [
            &b"\x03"[..],
            b"\x03\x01",
            b"\x03\x01\x01",
            b"\x03\x00\x02SELECT 1",
            b"\x03\x01\x01\x00\x00SELECT 1",
            b"\x03\x01\x01\x00\x01\xfe\0\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xffSELECT 1",
            b"\x03\x01\x01\x00\x01\x77\0\x00SELECT 1",
        ] {
            assert!(parse(payload, ATTRS).is_err(), "{payload:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, caps: u32) {
            let _ = parse(&bytes, Capabilities(caps));
        }
    }
}
