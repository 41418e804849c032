//! Reads the answer to a question of our own: a whole text result set, packet by packet.
//!
//! For servers that are observed, never for what passes through: rows of clients are not decoded.

use super::Malformed;
use super::cursor::Cursor;
use super::flags::{Capabilities, Status};
use super::reply::{self, Eof};

/// Most columns of an answer: the servers' own limit.
const COLUMNS_MAX: u64 = 4096;
/// NULL in place of a value.
const NULL: u8 = 0xFB;

/// A text result set; one without columns stands for OK.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    columns: Vec<String>,
    rows: Vec<Vec<Option<Vec<u8>>>>,
}

/// One row of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    columns: &'a [String],
    values: &'a [Option<Vec<u8>>],
}

/// What a packet made of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// More packets come.
    More,
    /// This is all of it.
    Whole(Answer),
    /// The server refused; the ERR payload. Nothing more comes.
    Refused(Vec<u8>),
}

/// Reads one answer in the dialect without DEPRECATE_EOF, in which an EOF packet ends the
/// definitions and another the rows.
#[derive(Debug, Clone, Default)]
pub struct AnswerReader {
    stage: Stage,
    answer: Answer,
}

#[derive(Debug, Clone, Copy, Default)]
enum Stage {
    /// The number of columns comes next, or OK, or an error.
    #[default]
    Head,
    /// So many definitions come next, and then an EOF packet.
    Definitions(u64),
    /// A row comes next, or the end.
    Rows,
    /// Nothing comes.
    Over,
}

// === impls ===

impl Answer {
    /// Its rows.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|values| Row { columns: &self.columns, values })
    }

    /// The first row; `None` when there is none.
    #[must_use]
    pub fn first(&self) -> Option<Row<'_>> {
        self.rows().next()
    }
}

impl<'a> Row<'a> {
    /// The value of a column; `None` is NULL, or no such column.
    #[must_use]
    pub fn bytes(&self, at: usize) -> Option<&'a [u8]> {
        self.values.get(at)?.as_deref()
    }

    /// The same as text; what is no UTF-8 is replaced.
    #[must_use]
    pub fn text(&self, at: usize) -> Option<String> {
        self.bytes(at).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The value of the first of these columns that there is, whatever the case of its name.
    #[must_use]
    pub fn named(&self, names: &[&str]) -> Option<String> {
        let is_meant = |column: &String| names.iter().any(|name| column.eq_ignore_ascii_case(name));
        self.text(self.columns.iter().position(is_meant)?)
    }
}

impl AnswerReader {
    /// Takes the next packet's payload.
    ///
    /// # Errors
    /// [`Malformed`] when it is none of an answer (a request for a file, several results): the
    /// connection is of no use any more.
    pub fn on_packet(&mut self, payload: &[u8]) -> Result<Reading, Malformed> {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let is_end = payload.first() == Some(&reply::EOF) && payload.len() < 9;
        match (stage, payload.first()) {
            (Stage::Over, _) => Err(Malformed::new("a packet behind an answer", 0)),
            (Stage::Head | Stage::Rows, Some(&reply::ERR)) => Ok(Reading::Refused(payload.into())),
            (Stage::Head, Some(&reply::OK)) => Ok(Reading::Whole(Answer::default())),
            (Stage::Head, _) => self.begin(payload),
            (Stage::Definitions(0), _) if is_end => self.more(Stage::Rows),
            (Stage::Definitions(0), _) => Err(Malformed::new("the end of the definitions", 0)),
            (Stage::Definitions(left), _) => self.define(payload, left),
            (Stage::Rows, _) if is_end => self.end(payload),
            (Stage::Rows, _) => self.row(payload),
        }
    }

    fn more(&mut self, stage: Stage) -> Result<Reading, Malformed> {
        self.stage = stage;
        Ok(Reading::More)
    }

    fn begin(&mut self, payload: &[u8]) -> Result<Reading, Malformed> {
        let mut cursor = Cursor::new(payload);
        let count = cursor.lenenc_int("number of columns")?;
        if count > COLUMNS_MAX || !cursor.is_empty() {
            return Err(Malformed::new("number of columns", 0));
        }
        self.more(Stage::Definitions(count))
    }

    fn define(&mut self, payload: &[u8], left: u64) -> Result<Reading, Malformed> {
        let mut cursor = Cursor::new(payload);
        for what in ["catalog", "schema", "table", "table's own name"] {
            cursor.lenenc_str(what)?;
        }
        let name = cursor.lenenc_str("name of a column")?;
        self.answer.columns.push(String::from_utf8_lossy(name).into_owned());
        self.more(Stage::Definitions(left.saturating_sub(1)))
    }

    fn row(&mut self, payload: &[u8]) -> Result<Reading, Malformed> {
        let mut cursor = Cursor::new(payload);
        let mut values = Vec::with_capacity(self.answer.columns.len());
        for _ in &self.answer.columns {
            let value = match cursor.peek().first() {
                Some(&NULL) => {
                    cursor.skip(1, "NULL")?;
                    None
                }
                Some(_) | None => Some(cursor.lenenc_str("a value")?.to_vec()),
            };
            values.push(value);
        }
        if !cursor.is_empty() {
            return Err(Malformed::new("a value too many", cursor.at()));
        }
        self.answer.rows.push(values);
        self.more(Stage::Rows)
    }

    fn end(&mut self, payload: &[u8]) -> Result<Reading, Malformed> {
        let eof = Eof::parse(payload, Capabilities::PROTOCOL_41)?;
        match eof.status.has(Status::MORE_RESULTS_EXISTS) {
            true => Err(Malformed::new("more than one answer", 0)),
            false => Ok(Reading::Whole(std::mem::take(&mut self.answer))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::packet;
    use super::super::resultset::{self, Column};
    use super::*;

    /// What becomes of these packets.
    fn read(mut wire: &[u8]) -> Result<Reading, Malformed> {
        let mut reader = AnswerReader::default();
        let mut last = Reading::More;
        while let Some((len, _)) = packet::header(wire) {
            let end = packet::HEADER_LEN + len;
            last = reader.on_packet(&wire[packet::HEADER_LEN..end])?;
            wire = &wire[end..];
        }
        Ok(last)
    }

    fn written(columns: &[&str], rows: &[Vec<Option<Vec<u8>>>], status: Status) -> Vec<u8> {
        let columns: Vec<Column> = columns.iter().map(|name| Column::text(*name)).collect();
        let mut out = Vec::new();
        let rows = rows.iter().map(Vec::as_slice);
        resultset::text(&mut out, 1, &columns, rows, Capabilities::PROTOCOL_41, status);
        out
    }

    #[test]
    fn values_are_found_by_place_and_by_name() {
        // The second row begins as an EOF packet does; it is told by its length.
        let long = vec![b'x'; 70_000];
        let rows = [
            vec![Some(b"1".to_vec()), None, Some(b"\xff".to_vec())],
            vec![Some(long.clone()), Some(Vec::new()), None],
        ];
        let read = read(&written(&["a", "Slave_IO_Running", "c"], &rows, Status(2)));
        let Ok(Reading::Whole(answer)) = read else { panic!("{read:?}") };
        let first = answer.first().expect("a row");
        assert_eq!((first.bytes(0), first.bytes(1), first.bytes(3)), (Some(&b"1"[..]), None, None));
        assert_eq!(first.text(2).as_deref(), Some("\u{fffd}"));
        let second = answer.rows().nth(1).expect("a row");
        let named = second.named(&["Replica_IO_Running", "slave_io_running"]);
        assert_eq!(named.as_deref(), Some(""));
        assert_eq!(second.bytes(0), Some(long.as_slice()));
        assert_eq!(answer.rows().count(), 2);
    }

    #[test]
    fn what_is_no_answer_ends_it() {
        let refused = b"\xff\x28\x04#42000no".to_vec();
        let mut reader = AnswerReader::default();
        assert_eq!(reader.on_packet(&refused), Ok(Reading::Refused(refused.clone())));
        assert!(reader.on_packet(&refused).is_err(), "nothing comes behind it");
        // In the middle of the rows too.
        let mut reader = AnswerReader::default();
        let definition = b"\x03def\0\0\0\x01a\0";
        for packet in [&b"\x01"[..], definition, b"\xfe\0\0\x02\0", b"\x011"] {
            assert_eq!(reader.on_packet(packet), Ok(Reading::More), "{packet:?}");
        }
        assert_eq!(reader.on_packet(&refused), Ok(Reading::Refused(refused)));
        // A request for a file of ours, several results, far too many columns.
        let more = written(&["a"], &[], Status::MORE_RESULTS_EXISTS);
        assert!(read(&more).is_err());
        for head in [&b"\xfb/etc/passwd"[..], b"\xfd\xff\xff\xff", b"\xfc\x01\x10", b"\x01\x01"] {
            assert!(AnswerReader::default().on_packet(head).is_err(), "{head:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            rows in proptest::collection::vec(
                proptest::collection::vec(proptest::option::of(any::<Vec<u8>>()), 3),
                0..5,
            ),
        ) {
            let read = read(&written(&["a", "b", "c"], &rows, Status(0)));
            let Ok(Reading::Whole(answer)) = read else { panic!("{read:?}") };
            prop_assert_eq!(&answer.rows, &rows);
        }

        #[test]
        fn nothing_panics(packets in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let mut reader = AnswerReader::default();
            for packet in packets {
                let _ = reader.on_packet(&packet);
            }
        }
    }
}
