//! Answers to our own commands: the single value of a query (one row, one column, text protocol),
//! and what ends them.

use crate::protocol::cursor::Cursor;
use crate::protocol::flags::Capabilities;
use crate::protocol::{packet, reply};

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
    if is_eof(row) {
        row = packets.next()?;
    }
    if row.first() == Some(&0xFB) {
        return Some(None);
    }
    Cursor::new(row).lenenc_str("value").ok().map(|bytes| Some(bytes.to_vec()))
}

/// The OK that ends `reply`, a whole answer that is none to a preparation; `None` where none does.
pub(super) fn last_ok(reply: &[u8], caps: Capabilities) -> Option<reply::Ok<'_>> {
    let last = Packets { rest: reply }.last().filter(|packet| !is_eof(packet))?;
    reply::Ok::parse(last, caps).ok()
}

/// Whether a packet is what ends columns, or rows where no OK does.
fn is_eof(packet: &[u8]) -> bool {
    packet.first() == Some(&0xFE) && packet.len() == 5
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
