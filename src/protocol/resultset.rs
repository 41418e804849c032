//! Writes whole text result sets, for the console and for answers that no server is asked for.

use super::flags::{Capabilities, Status};
use super::reply::{self, Eof, Ok};
use super::writer;

/// utf8mb4_general_ci: what our own texts are in.
const UTF8MB4: u16 = 45;
/// The collation of numbers.
const BINARY: u16 = 63;

/// A column of a text result set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
}

/// What a column is declared to hold. Values are sent as text all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// VARCHAR.
    Text,
    /// BIGINT.
    Integer,
    /// BIGINT UNSIGNED.
    Unsigned,
    /// DOUBLE.
    Float,
}

impl Column {
    /// A column of text.
    #[must_use]
    pub fn text(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: ColumnKind::Text }
    }

    /// A column of integers.
    #[must_use]
    pub fn integer(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: ColumnKind::Integer }
    }
}

/// Appends a text result set, framed, as a client with `caps` expects it; `None` is NULL, and a
/// row without enough values is filled with NULL. Returns the next sequence number.
///
/// With MariaDB's CACHE_METADATA or MySQL's OPTIONAL_RESULTSET_METADATA negotiated, use
/// [`text_flagged`].
pub fn text<'a>(
    out: &mut Vec<u8>,
    seq: u8,
    columns: &[Column],
    rows: impl Iterator<Item = &'a [Option<Vec<u8>>]>,
    caps: Capabilities,
    status: Status,
) -> u8 {
    let flagged = caps.has(Capabilities::OPTIONAL_RESULTSET_METADATA);
    text_flagged(out, seq, columns, rows, Dialect { caps, flagged }, status)
}

/// What decides the form of a result set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// The client's capabilities.
    pub caps: Capabilities,
    /// Whether the column count is followed by a flag that says that definitions follow:
    /// MariaDB's CACHE_METADATA, MySQL's OPTIONAL_RESULTSET_METADATA.
    pub flagged: bool,
}

/// As [`text`], for clients that expect a flag behind the column count.
pub fn text_flagged<'a>(
    out: &mut Vec<u8>,
    seq: u8,
    columns: &[Column],
    rows: impl Iterator<Item = &'a [Option<Vec<u8>>]>,
    dialect: Dialect,
    status: Status,
) -> u8 {
    let Dialect { caps, flagged } = dialect;
    let mut seq = writer::packet(out, seq, |out| {
        writer::lenenc_int(out, u64::try_from(columns.len()).unwrap_or(u64::MAX));
        if flagged {
            out.push(1);
        }
    });
    for column in columns {
        seq = writer::packet(out, seq, |out| definition(out, column));
    }
    let deprecated = caps.has(Capabilities::DEPRECATE_EOF);
    if !deprecated {
        seq = Eof { warnings: 0, status }.encode(out, seq, caps);
    }
    for row in rows {
        seq = writer::packet(out, seq, |out| {
            for (at, _) in columns.iter().enumerate() {
                match row.get(at) {
                    Some(Some(value)) => writer::lenenc_str(out, value),
                    Some(None) | None => out.push(0xFB),
                }
            }
        });
    }
    match deprecated {
        true => Ok { status, ..Ok::default() }.encode(out, seq, reply::EOF, caps),
        false => Eof { warnings: 0, status }.encode(out, seq, caps),
    }
}

/// A column definition (protocol page "Column Definition"), without schema and table.
fn definition(out: &mut Vec<u8>, column: &Column) {
    let (kind, charset, length, flags): (u8, u16, u32, u16) = match column.kind {
        ColumnKind::Text => (253, UTF8MB4, 1024, 0),
        ColumnKind::Integer => (8, BINARY, 20, 0x8000 | 0x80),
        ColumnKind::Unsigned => (8, BINARY, 20, 0x8000 | 0x80 | 0x20),
        ColumnKind::Float => (5, BINARY, 23, 0x8000 | 0x80),
    };
    writer::lenenc_str(out, b"def");
    for _ in 0..3 {
        writer::lenenc_str(out, b"");
    }
    writer::lenenc_str(out, column.name.as_bytes());
    writer::lenenc_str(out, b"");
    out.push(12);
    out.extend_from_slice(&charset.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&flags.to_le_bytes());
    let decimals = if column.kind == ColumnKind::Float { 31 } else { 0 };
    out.extend_from_slice(&[decimals, 0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::flags::MariadbCapabilities;
    use crate::protocol::walker::{Advance, Expect, Kind, ReplyWalker, Stop};

    fn sample(caps: Capabilities) -> Vec<u8> {
        let columns = [Column::text("name"), Column::integer("lag")];
        let rows = [
            vec![Some(b"db1".to_vec()), Some(b"0".to_vec())],
            vec![Some("dä2".as_bytes().to_vec()), None],
            vec![Some(b"short".to_vec())],
        ];
        let mut out = Vec::new();
        let status = Status::AUTOCOMMIT;
        text(&mut out, 1, &columns, rows.iter().map(Vec::as_slice), caps, status);
        out
    }

    #[test]
    fn the_walker_agrees_in_both_dialects() {
        let old = Capabilities::PROTOCOL_41;
        let new = old.with(Capabilities::DEPRECATE_EOF);
        let optional = new.with(Capabilities::OPTIONAL_RESULTSET_METADATA);
        for (caps, kind) in [
            (old, Kind::Eof),
            (new, Kind::Ok { header: 0xFE }),
            (optional, Kind::Ok { header: 0xFE }),
        ] {
            let wire = sample(caps);
            let mut walker = ReplyWalker::new(Expect::Query, caps, MariadbCapabilities(0));
            let Ok(Advance { forward, stop: Stop::Notable(end) }) = walker.advance(&wire) else {
                panic!("no end in {wire:?}");
            };
            assert_eq!((end.kind, end.terminal), (kind, true));
            assert_eq!(forward + end.len, wire.len());
        }
    }

    #[test]
    fn null_and_missing_values_are_null() {
        let wire = sample(Capabilities::PROTOCOL_41);
        let rows: &[u8] = b"\x06\0\0\x05\x03db1\x010\x06\0\0\x06\x04d\xc3\xa42\xfb";
        assert!(wire.windows(rows.len()).any(|window| window == rows));
        let short = b"\x05short\xfb";
        assert!(wire.windows(short.len()).any(|window| window == short));
    }
}
