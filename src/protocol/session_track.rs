//! Session state changes in OK packets: read them one by one, and write those back that a
//! client may see.

use super::Malformed;
use super::cursor::Cursor;
use super::writer;

const SYSTEM_VARIABLES: u8 = 0;
const SCHEMA: u8 = 1;
const STATE_CHANGE: u8 = 2;
const GTIDS: u8 = 3;
const TRANSACTION_CHARACTERISTICS: u8 = 4;
const TRANSACTION_STATE: u8 = 5;

/// One tracked change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// The current schema; empty when there is none.
    Schema(&'a [u8]),
    /// A system variable of `session_track_system_variables`.
    Variable {
        /// Its name.
        name: &'a [u8],
        /// Its value as text.
        value: &'a [u8],
    },
    /// Something of the session changed that makes it no longer interchangeable. The entry's
    /// data is the bare character 1, measured with MariaDB 10.11, and not a nested string.
    StateChange,
    /// GTIDs (MySQL), as text: the encoding byte and the length are stripped.
    Gtids(&'a [u8]),
    /// Statements that reproduce the transaction's characteristics; empty when there is none.
    TransactionCharacteristics(&'a [u8]),
    /// The transaction's state, eight characters such as `T___W___`.
    TransactionState(&'a [u8]),
    /// A kind that we do not know.
    Unknown {
        /// The entry's type byte.
        kind: u8,
        /// Its data.
        data: &'a [u8],
    },
}

/// The changes of a tracks block ([`super::reply::Ok::tracks`]). After an error the iterator
/// ends.
#[must_use]
pub const fn changes(block: &[u8]) -> Changes<'_> {
    Changes { entries: Cursor::new(block), pairs: Cursor::new(&[]) }
}

/// Iterator of [`changes`].
#[derive(Debug, Clone)]
pub struct Changes<'a> {
    entries: Cursor<'a>,
    /// What is left of a SYSTEM_VARIABLES entry: MariaDB puts several pairs into one.
    pairs: Cursor<'a>,
}

impl<'a> Changes<'a> {
    fn read(&mut self) -> Result<Change<'a>, Malformed> {
        if self.pairs.is_empty() {
            let kind = self.entries.u8("kind of a tracked change")?;
            let data = self.entries.lenenc_str("tracked change")?;
            let mut cursor = Cursor::new(data);
            return Ok(match kind {
                SYSTEM_VARIABLES => {
                    self.pairs = cursor;
                    return self.pair();
                }
                SCHEMA => Change::Schema(cursor.lenenc_str("tracked schema")?),
                STATE_CHANGE => Change::StateChange,
                GTIDS => {
                    cursor.skip(1, "encoding of tracked GTIDs")?;
                    Change::Gtids(cursor.lenenc_str("tracked GTIDs")?)
                }
                TRANSACTION_CHARACTERISTICS => {
                    let text = cursor.lenenc_str("tracked transaction characteristics")?;
                    Change::TransactionCharacteristics(text)
                }
                TRANSACTION_STATE => {
                    Change::TransactionState(cursor.lenenc_str("tracked transaction state")?)
                }
                _ => Change::Unknown { kind, data },
            });
        }
        self.pair()
    }

    fn pair(&mut self) -> Result<Change<'a>, Malformed> {
        let name = self.pairs.lenenc_str("name of a tracked variable")?;
        let value = self.pairs.lenenc_str("value of a tracked variable")?;
        Ok(Change::Variable { name, value })
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Result<Change<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.entries.is_empty() && self.pairs.is_empty() {
            return None;
        }
        let change = self.read();
        if change.is_err() {
            self.entries.rest();
            self.pairs.rest();
        }
        Some(change)
    }
}

/// Appends one change to a tracks block. Each variable becomes an entry of its own, which
/// every client understands.
pub fn push(out: &mut Vec<u8>, change: &Change<'_>) {
    let mut data = Vec::new();
    let kind = match *change {
        Change::Variable { name, value } => {
            writer::lenenc_str(&mut data, name);
            writer::lenenc_str(&mut data, value);
            SYSTEM_VARIABLES
        }
        Change::Schema(name) => {
            writer::lenenc_str(&mut data, name);
            SCHEMA
        }
        Change::StateChange => {
            data.push(b'1');
            STATE_CHANGE
        }
        Change::Gtids(text) => {
            data.push(0);
            writer::lenenc_str(&mut data, text);
            GTIDS
        }
        Change::TransactionCharacteristics(text) => {
            writer::lenenc_str(&mut data, text);
            TRANSACTION_CHARACTERISTICS
        }
        Change::TransactionState(text) => {
            writer::lenenc_str(&mut data, text);
            TRANSACTION_STATE
        }
        Change::Unknown { kind, data: raw } => {
            data.extend_from_slice(raw);
            kind
        }
    };
    out.push(kind);
    writer::lenenc_str(out, &data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(block: &[u8]) -> Vec<Change<'_>> {
        changes(block).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn what_mariadb_sends_is_read() {
        let block = b"\x00\x0f\x0aautocommit\x03OFF\x01\x04\x03app\x02\x011\x05\x09\x08T___W___";
        assert_eq!(
            all(block),
            [
                Change::Variable { name: b"autocommit", value: b"OFF" },
                Change::Schema(b"app"),
                Change::StateChange,
                Change::TransactionState(b"T___W___"),
            ]
        );
    }

    #[test]
    fn one_entry_may_hold_several_variables() {
        let block = b"\x00\x08\x01a\x011\x01b\x012\x01\x01\x00";
        assert_eq!(
            all(block),
            [
                Change::Variable { name: b"a", value: b"1" },
                Change::Variable { name: b"b", value: b"2" },
                Change::Schema(b""),
            ]
        );
    }

    #[test]
    fn an_unknown_kind_does_not_spoil_the_rest() {
        let block = b"\x63\x02zz\x03\x06\x00\x04u:15\x02\x011";
        assert_eq!(
            all(block),
            [
                Change::Unknown { kind: 0x63, data: b"zz" },
                Change::Gtids(b"u:15"),
                Change::StateChange,
            ]
        );
    }

    #[test]
    fn a_short_block_ends_with_one_error() {
        let mut iter = changes(b"\x01\x04\x03ap");
        assert!(iter.next().unwrap().is_err());
        assert!(iter.next().is_none());
        // An entry for variables without any is an error too, not an endless loop.
        let mut iter = changes(b"\x00\x00");
        assert!(iter.next().unwrap().is_err());
        assert!(iter.next().is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(a: Vec<u8>, b: Vec<u8>, kind in 6_u8..) {
            let sent = [
                Change::Variable { name: &a, value: &b },
                Change::Schema(&b),
                Change::StateChange,
                Change::Gtids(&a),
                Change::TransactionCharacteristics(&b),
                Change::TransactionState(&a),
                Change::Unknown { kind, data: &b },
            ];
            let mut block = Vec::new();
            for change in &sent {
                push(&mut block, change);
            }
            prop_assert_eq!(all(&block), sent);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            prop_assert!(changes(&bytes).count() <= bytes.len());
        }
    }
}
