//! Answers to our own commands: the single value of a query (one row, one column, text protocol),
//! and what ends them.

use crate::protocol::cursor::Cursor;
use crate::protocol::packet;

/// The value in `reply`, a whole text result set; the outer `None` when it is not one, the
/// inner for NULL. Works for both ends of column definitions, with and without EOF.
pub(super) fn value(reply: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut packets = Packets { rest: reply };
    let count = packets.next()?;
    if count != [1] {
        return None;
    }
    packets.next()?;
    let mut row = packets.next()?;
    if row.first() == Some(&0xFE) && row.len() == 5 {
        row = packets.next()?;
    }
    if row.first() == Some(&0xFB) {
        return Some(None);
    }
    Cursor::new(row).lenenc_str("value").ok().map(|bytes| Some(bytes.to_vec()))
}

/// The last packet of `reply`, a whole answer.
pub(super) fn last_packet(reply: &[u8]) -> &[u8] {
    Packets { rest: reply }.last().unwrap_or_default()
}

struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, _) = packet::header(self.rest)?;
        let end = packet::HEADER_LEN + len;
        let payload = self.rest.get(packet::HEADER_LEN..end)?;
        self.rest = self.rest.get(end..)?;
        Some(payload)
    }
}
