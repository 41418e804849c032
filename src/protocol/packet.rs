//! Framing: the four-byte header, sequence numbers and the 16 MiB continuation rule.
//!
//! A payload of [`MAX_PAYLOAD`] bytes says that the next packet continues it; a logical
//! payload whose length is a multiple of that ends with an empty packet.

use std::borrow::Cow;

use super::Malformed;

/// Bytes of a packet header: payload length (3, little-endian) and sequence number (1).
pub const HEADER_LEN: usize = 4;
/// The longest payload of one packet; exactly this length announces a continuation.
pub const MAX_PAYLOAD: usize = 0xFF_FFFF;

/// Payload length and sequence number of the packet at the head of `buf`; `None` when the
/// header is not whole.
#[must_use]
pub fn header(buf: &[u8]) -> Option<(usize, u8)> {
    let &[a, b, c, seq] = buf.first_chunk::<HEADER_LEN>()?;
    let len = u32::from_le_bytes([a, b, c, 0]);
    Some((usize::try_from(len).unwrap_or(MAX_PAYLOAD), seq))
}

/// What stands at the head of a buffer of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// More bytes are needed to have the command whole.
    Incomplete,
    /// A whole command.
    Whole {
        /// Its length on the wire, all headers included.
        wire_len: usize,
        /// The sequence number of the first packet of its reply.
        next_seq: u8,
    },
    /// Its declared payload exceeds the limit; it is to be streamed ([`Body`]) or refused.
    Oversized,
}

/// Finds one whole command at the head of `buf`. The limit applies to the payload *declared*
/// so far, before its bytes have arrived.
///
/// # Errors
/// [`Malformed`] when the sequence numbers do not start at 0 and count up.
pub fn frame(buf: &[u8], limit: usize) -> Result<Frame, Malformed> {
    let mut at = 0_usize;
    let mut declared = 0_usize;
    let mut expected = 0_u8;
    loop {
        let Some((len, seq)) = header(buf.get(at..).unwrap_or_default()) else {
            return Ok(Frame::Incomplete);
        };
        if seq != expected {
            return Err(Malformed::new("sequence number of a command", at));
        }
        declared = declared.saturating_add(len);
        if declared > limit {
            return Ok(Frame::Oversized);
        }
        expected = expected.wrapping_add(1);
        at = at.saturating_add(HEADER_LEN).saturating_add(len);
        if at > buf.len() {
            return Ok(Frame::Incomplete);
        }
        if len < MAX_PAYLOAD {
            return Ok(Frame::Whole { wire_len: at, next_seq: expected });
        }
    }
}

/// The payload of the framed command `buf[..wire_len]`: borrowed when it is one packet,
/// joined when it is several.
#[must_use]
pub fn payload(buf: &[u8], wire_len: usize) -> Cow<'_, [u8]> {
    let wire = buf.get(..wire_len).unwrap_or(buf);
    let (first, mut rest) = split_packet(wire);
    if rest.is_empty() {
        return Cow::Borrowed(first);
    }
    let mut joined = Vec::with_capacity(wire.len());
    joined.extend_from_slice(first);
    while !rest.is_empty() {
        let (part, after) = split_packet(rest);
        joined.extend_from_slice(part);
        rest = after;
    }
    Cow::Owned(joined)
}

/// The payload of the packet at the head, and what follows it.
fn split_packet(wire: &[u8]) -> (&[u8], &[u8]) {
    let Some((len, _)) = header(wire) else {
        return (&[], &[]);
    };
    let body = wire.get(HEADER_LEN..).unwrap_or_default();
    body.split_at_checked(len).unwrap_or((body, &[]))
}

/// Appends `payload` as one or more packets and returns the sequence number that follows.
pub fn write(out: &mut Vec<u8>, seq: u8, payload: &[u8]) -> u8 {
    let mut rest = payload;
    let mut seq = seq;
    loop {
        let (part, after) = rest.split_at_checked(MAX_PAYLOAD).unwrap_or((rest, &[]));
        let [a, b, c, ..] = part.len().to_le_bytes();
        out.extend_from_slice(&[a, b, c, seq]);
        out.extend_from_slice(part);
        seq = seq.wrapping_add(1);
        if part.len() < MAX_PAYLOAD {
            return seq;
        }
        rest = after;
    }
}

/// Follows one command, or the file of a LOAD DATA LOCAL, that is sent onwards piecemeal, and
/// says which bytes still belong to it.
#[derive(Debug, Clone)]
pub struct Body {
    head: [u8; HEADER_LEN],
    have: usize,
    left: usize,
    expected: u8,
    continues: bool,
    file: bool,
    complete: bool,
}

impl Body {
    /// One command: ends with the first packet shorter than [`MAX_PAYLOAD`].
    #[must_use]
    pub const fn new() -> Self {
        Self {
            head: [0; HEADER_LEN],
            have: 0,
            left: 0,
            expected: 0,
            continues: false,
            file: false,
            complete: false,
        }
    }

    /// File data, which ends with an empty packet (one that does not merely end a
    /// continuation). `first_seq` is the sequence number after the server's request.
    #[must_use]
    pub const fn file(first_seq: u8) -> Self {
        let mut body = Self::new();
        body.expected = first_seq;
        body.file = true;
        body
    }

    /// The sequence number that follows what has been seen.
    #[must_use]
    pub const fn next_seq(&self) -> u8 {
        self.expected
    }

    /// Takes the bytes of `buf` that belong to this body: how many, and whether it is complete
    /// with them.
    ///
    /// # Errors
    /// [`Malformed`] when the sequence numbers do not count up.
    pub fn advance(&mut self, buf: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut at = 0_usize;
        while !self.complete {
            let rest = buf.get(at..).unwrap_or_default();
            if self.left > 0 {
                let taken = self.left.min(rest.len());
                self.left = self.left.saturating_sub(taken);
                at = at.saturating_add(taken);
                if self.left > 0 {
                    break;
                }
                self.complete = !self.file && !self.continues;
                continue;
            }
            let Some(&byte) = rest.first() else { break };
            if let Some(slot) = self.head.get_mut(self.have) {
                *slot = byte;
            }
            self.have = self.have.saturating_add(1);
            at = at.saturating_add(1);
            if self.have == HEADER_LEN {
                self.begin(at)?;
            }
        }
        Ok((at, self.complete))
    }

    fn begin(&mut self, at: usize) -> Result<(), Malformed> {
        self.have = 0;
        let (len, seq) = header(&self.head).unwrap_or_default();
        if seq != self.expected {
            return Err(Malformed::new("sequence number of a continued command", at));
        }
        self.expected = self.expected.wrapping_add(1);
        let ends_continuation = self.continues;
        self.continues = len == MAX_PAYLOAD;
        self.left = len;
        if len == 0 {
            self.complete = !self.file || !ends_continuation;
        }
        Ok(())
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BIG: usize = MAX_PAYLOAD;

    fn wire(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, 0, payload);
        out
    }

    #[test]
    fn a_command_is_whole_with_its_last_byte() {
        let wire = wire(b"\x03SELECT 1");
        for cut in 0..wire.len() {
            assert_eq!(frame(&wire[..cut], 100), Ok(Frame::Incomplete), "cut {cut}");
        }
        assert_eq!(frame(&wire, 100), Ok(Frame::Whole { wire_len: 13, next_seq: 1 }));
        assert_eq!(&*payload(&wire, 13), b"\x03SELECT 1");
    }

    #[test]
    fn the_limit_holds_for_what_is_declared() {
        assert_eq!(frame(&[101, 0, 0, 0], 100), Ok(Frame::Oversized));
        assert_eq!(frame(&[100, 0, 0, 0], 100), Ok(Frame::Incomplete));
    }

    #[test]
    fn sequence_numbers_start_at_zero_and_count_up() {
        assert!(frame(&[1, 0, 0, 1, 0], 100).is_err());
        let mut two = wire(&vec![1; BIG + 1]);
        two[HEADER_LEN + BIG + 3] = 5;
        assert!(frame(&two, usize::MAX).is_err());
    }

    #[test]
    fn sixteen_mebibytes_are_joined_and_end_with_an_empty_packet() {
        for (len, packets) in [(BIG - 1, 1), (BIG, 2), (BIG + 1, 2), (2 * BIG, 3)] {
            let sent = vec![b'x'; len];
            let wire = wire(&sent);
            assert_eq!(wire.len(), len + packets * HEADER_LEN);
            let whole = Frame::Whole { wire_len: wire.len(), next_seq: packets as u8 };
            assert_eq!(frame(&wire, usize::MAX), Ok(whole));
            assert!(*payload(&wire, wire.len()) == sent[..], "{len}");
            let mut body = Body::new();
            assert_eq!(body.advance(&wire), Ok((wire.len(), true)));
            assert_eq!(body.next_seq(), packets as u8);
        }
    }

    #[test]
    fn a_streamed_command_ends_where_the_next_begins() {
        let mut two = wire(b"\x03one");
        let first = two.len();
        two.extend(wire(b"\x03two"));
        for cut in 0..first {
            let mut body = Body::new();
            let (taken, done) = body.advance(&two[..cut]).unwrap();
            assert_eq!((taken, done), (cut, false));
            assert_eq!(body.advance(&two[cut..]), Ok((first - cut, true)), "cut {cut}");
        }
    }

    #[test]
    fn file_data_ends_with_its_empty_packet_only() {
        let mut wire = Vec::new();
        write(&mut wire, 2, b"1,2\n");
        write(&mut wire, 3, b"");
        let end = wire.len();
        write(&mut wire, 0, b"\x0e");
        for cut in 0..end {
            let mut body = Body::file(2);
            assert_eq!(body.advance(&wire[..cut]), Ok((cut, false)));
            assert_eq!(body.advance(&wire[cut..]), Ok((end - cut, true)));
            assert_eq!(body.next_seq(), 4);
        }
    }

    #[test]
    fn the_empty_packet_that_ends_a_continuation_does_not_end_the_file() {
        let mut wire = Vec::new();
        let next = write(&mut wire, 2, &vec![b'x'; BIG]);
        let mut body = Body::file(2);
        assert_eq!(body.advance(&wire), Ok((wire.len(), false)));
        let mut end = Vec::new();
        write(&mut end, next, b"");
        assert_eq!(body.advance(&end), Ok((HEADER_LEN, true)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, limit: usize) {
            let _ = frame(&bytes, limit);
            let _ = payload(&bytes, limit);
            if let Ok((taken, _)) = Body::new().advance(&bytes) {
                prop_assert!(taken <= bytes.len());
            }
        }
    }
}
