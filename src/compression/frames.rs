//! Compressed packets: seven bytes of header, then packets of the plain protocol, compressed or,
//! where that gains nothing, as they are.
#![deny(clippy::indexing_slicing)]

use std::cell::RefCell;
use std::rc::Rc;

use crate::compression::numbers::{Numbers, Role};
use crate::compression::{Codec, Malformed, Method};

/// Length of a compressed packet's header: compressed length, number, plain length (0: as is).
const HEADER_LEN: usize = 7;
/// What is shorter is sent as it is, as servers do (MIN_COMPRESS_LENGTH).
const WORTH_IT: usize = 50;
/// Most plain bytes in one packet of ours.
const CHUNK: usize = 64 * 1024;

/// The compressed packets of one connection.
#[derive(Debug)]
pub struct Frames {
    method: Method,
    codec: Rc<RefCell<Codec>>,
    /// The number of our next compressed packet.
    seq: u8,
    numbers: Numbers,
    /// The beginning of a compressed packet that has not come whole.
    incoming: Vec<u8>,
}

impl Frames {
    /// From the next byte on, both ways.
    #[must_use]
    pub fn new(method: Method, role: Role, codec: Rc<RefCell<Codec>>) -> Self {
        Self { method, codec, seq: 0, numbers: Numbers::new(role), incoming: Vec::new() }
    }

    /// Appends the compressed packets of `plain` to `out`.
    pub fn pack(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        match self.numbers.role() {
            Role::Client => self.pack_commands(plain, out),
            Role::Server => {
                for chunk in plain.chunks(CHUNK) {
                    let numbered = self.numbers.answer(chunk, self.seq);
                    self.pack_one(&numbered, out);
                }
            }
        }
    }

    /// A server expects each command to begin in a packet of number 0.
    fn pack_commands(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let commands = self.numbers.send(plain);
        let mut from = 0_usize;
        for to in commands.iter().copied().chain([plain.len()]) {
            let piece = plain.get(from..to).unwrap_or_default();
            for chunk in piece.chunks(CHUNK) {
                self.pack_one(chunk, out);
            }
            from = to;
            if to < plain.len() {
                self.seq = 0;
            }
        }
    }

    fn pack_one(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&[0; HEADER_LEN]);
        let worth_it =
            plain.len() >= WORTH_IT && self.codec.borrow_mut().compress(self.method, plain, out);
        if !worth_it {
            out.extend_from_slice(plain);
        }
        let length = out.len().saturating_sub(at).saturating_sub(HEADER_LEN);
        let [a, b, c, _] = u32::try_from(length).unwrap_or(0).to_le_bytes();
        let declared = if worth_it { plain.len() } else { 0 };
        let [x, y, z, _] = u32::try_from(declared).unwrap_or(0).to_le_bytes();
        if let Some(header) = out.get_mut(at..at.saturating_add(HEADER_LEN)) {
            header.copy_from_slice(&[a, b, c, self.seq, x, y, z]);
        }
        self.seq = self.seq.wrapping_add(1);
    }

    /// Appends the plain bytes of the packets in `bytes` that are whole by now to `plain`.
    ///
    /// # Errors
    /// When a packet is not what its header says.
    pub fn unpack(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Malformed> {
        let before = plain.len();
        let mut incoming = std::mem::take(&mut self.incoming);
        incoming.extend_from_slice(bytes);
        let mut rest = incoming.as_slice();
        while let Some((seq, used)) = self.unpack_one(rest, plain)? {
            self.seq = seq.wrapping_add(1);
            rest = rest.get(used..).unwrap_or_default();
        }
        if !rest.is_empty() {
            let used = incoming.len().saturating_sub(rest.len());
            incoming.drain(..used);
            self.incoming = incoming;
        }
        self.numbers.receive(plain.get_mut(before..).unwrap_or_default());
        Ok(())
    }

    /// The packet at the head of `bytes`, if it is whole: its number and its length.
    fn unpack_one(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<Option<(u8, usize)>, Malformed> {
        let Some(&[a, b, c, seq, x, y, z]) = bytes.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let length = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        let end = length([a, b, c, 0]).saturating_add(HEADER_LEN);
        let Some(payload) = bytes.get(HEADER_LEN..end) else { return Ok(None) };
        match length([x, y, z, 0]) {
            0 => plain.extend_from_slice(payload),
            declared => {
                self.codec.borrow_mut().decompress(self.method, payload, declared, plain)?;
            }
        }
        Ok(Some((seq, end)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(method: Method, role: Role) -> Frames {
        Frames::new(method, role, Rc::default())
    }

    fn packet(seq: u8, payload: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        crate::protocol::packet::write(&mut wire, seq, payload);
        wire
    }

    #[test]
    fn what_is_packed_comes_out_again_however_it_is_cut() {
        for method in [Method::Zlib, Method::Zstd(3)] {
            let (mut client, text) = (frames(method, Role::Client), b"SELECT 1".repeat(30));
            let wire = [packet(0, &text), packet(0, b"\x0e"), packet(0, &text)].concat();
            let mut packed = Vec::new();
            client.pack(&wire, &mut packed);
            assert!(packed.len() < wire.len(), "{method:?}: {}", packed.len());
            for piece in 1..packed.len() {
                let (mut server, mut plain) = (frames(method, Role::Server), Vec::new());
                for chunk in packed.chunks(piece) {
                    server.unpack(chunk, &mut plain).expect("packed above");
                }
                assert_eq!(plain, wire, "{method:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn each_command_begins_in_a_packet_of_number_zero_and_answers_count_on() {
        let mut client = frames(Method::Zlib, Role::Client);
        let mut packed = Vec::new();
        client.pack(&[packet(0, b"\x0e"), packet(0, b"\x0e")].concat(), &mut packed);
        assert_eq!(packed, [[5, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 14].as_slice(); 2].concat());
        let mut server = frames(Method::Zlib, Role::Server);
        server.unpack(&packed, &mut Vec::new()).expect("packed above");
        let mut answer = Vec::new();
        server.pack(&packet(1, b"ok"), &mut answer);
        assert_eq!(answer.get(3), Some(&1));
    }

    #[test]
    fn a_packet_as_large_as_they_come_is_taken() {
        let plain = packet(0, &vec![b'x'; 0xFF_FFFE - 4]);
        let mut codec = Codec::default();
        for method in [Method::Zlib, Method::Zstd(3)] {
            let mut packed = vec![0; HEADER_LEN];
            assert!(codec.compress(method, &plain, &mut packed));
            let [a, b, c, _] =
                u32::try_from(packed.len() - HEADER_LEN).expect("24 bits").to_le_bytes();
            let [x, y, z, _] = u32::try_from(plain.len()).expect("24 bits").to_le_bytes();
            packed.splice(..HEADER_LEN, [a, b, c, 0, x, y, z]);
            let (mut server, mut found) = (frames(method, Role::Server), Vec::new());
            for chunk in packed.chunks(1460) {
                server.unpack(chunk, &mut found).expect("packed above");
            }
            assert_eq!(found.len(), plain.len());
            assert!(found == plain, "{method:?}");
        }
    }

    #[test]
    fn a_packet_that_lies_about_its_length_is_refused() {
        for method in [Method::Zlib, Method::Zstd(3)] {
            let mut packed = Vec::new();
            frames(method, Role::Client).pack(&packet(0, &[b'a'; 200]), &mut packed);
            for wrong in [0, 100, 203, 205] {
                let mut lying = packed.clone();
                lying.splice(4..5, [wrong]);
                let mut plain = Vec::new();
                let result = frames(method, Role::Server).unpack(&lying, &mut plain);
                assert_eq!(result.is_err(), wrong != 0, "{method:?}: {wrong}");
            }
        }
    }

    proptest! {
        #[test]
        fn anything_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for method in [Method::Zlib, Method::Zstd(1)] {
                for role in [Role::Client, Role::Server] {
                    let _ = frames(method, role).unpack(&bytes, &mut Vec::new());
                }
            }
        }
    }
}
