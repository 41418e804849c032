//! The sequence numbers of packets inside compressed ones.
//!
//! Servers do not look at them, and few clients do: both number the compressed packets, and take
//! over that number for the packets inside whenever they flush. Whoever speaks the plain protocol
//! on the other side of the proxy does look. So what comes is numbered again here, as the plain
//! protocol would have it, and what goes to a client as a server would.
#![deny(clippy::indexing_slicing)]

use std::borrow::Cow;

/// Which side of the protocol we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Towards a client.
    Server,
    /// Towards a server.
    Client,
}

/// The packets of one connection, both ways.
#[derive(Debug)]
pub(super) struct Numbers {
    role: Role,
    sent: Place,
    received: Place,
    /// The number that follows the last packet, whoever sent it.
    next: u8,
    /// We have sent something since the last packet came.
    answered: bool,
    /// The client is within an answer of its own to what we have sent: a file, above all.
    answering: bool,
    /// What is added to the numbers of our answers.
    ahead: u8,
}

/// How far one direction is in its packets.
#[derive(Debug, Default)]
struct Place {
    /// The length of the packet, as far as its header has passed.
    length: [u8; 3],
    /// Bytes of the header that have passed.
    header: u8,
    /// Bytes of the payload that are still to pass.
    left: usize,
    /// The packet whose number has passed last continues the one before.
    continues: bool,
    /// It is itself to be continued.
    full: bool,
}

impl Place {
    /// The number of the packet that `bytes` begin with, if one begins there and is whole.
    fn whole_packet(&self, bytes: &[u8]) -> Option<u8> {
        let &[a, b, c, seq] = bytes.first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, 0])).ok()?;
        let begins = self.left == 0 && self.header == 0;
        (begins && length <= bytes.len().saturating_sub(4)).then_some(seq)
    }

    /// Passes over `bytes` from `at` on, up to and over the next sequence number; where that
    /// stands, if there is one.
    fn next_number(&mut self, bytes: &[u8], at: &mut usize) -> Option<usize> {
        while let Some(byte) = bytes.get(*at) {
            if self.left > 0 {
                let passed = self.left.min(bytes.len().saturating_sub(*at));
                self.left = self.left.saturating_sub(passed);
                *at = at.saturating_add(passed);
                continue;
            }
            *at = at.saturating_add(1);
            match self.length.get_mut(usize::from(self.header)) {
                Some(place) => {
                    *place = *byte;
                    self.header = self.header.saturating_add(1);
                }
                None => {
                    let [a, b, c] = self.length;
                    self.continues = self.full;
                    self.full = self.length == [0xFF; 3];
                    self.left = usize::try_from(u32::from_le_bytes([a, b, c, 0])).unwrap_or(0);
                    self.header = 0;
                    return Some(at.saturating_sub(1));
                }
            }
        }
        None
    }
}

impl Numbers {
    pub(super) fn new(role: Role) -> Self {
        let (sent, received) = (Place::default(), Place::default());
        Self { role, sent, received, next: 0, answered: false, answering: false, ahead: 0 }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// Follows what we answer to a client, and numbers what goes into its compressed packet of
    /// this number. A server takes that number over behind each of several results; a client
    /// that looks (`mysql_async`) expects it there, and allows it wherever a compressed packet
    /// begins with a packet that is whole.
    pub(super) fn answer<'a>(&mut self, plain: &'a [u8], compressed: u8) -> Cow<'a, [u8]> {
        if let Some(seq) = self.sent.whole_packet(plain) {
            self.ahead = compressed.wrapping_sub(seq);
        }
        let mut numbered = Cow::Borrowed(plain);
        let mut at = 0;
        while let Some(place) = self.sent.next_number(plain, &mut at) {
            let seq = plain.get(place).copied().unwrap_or(0);
            self.next = seq.wrapping_add(1);
            self.answered = true;
            if self.ahead > 0
                && let Some(number) = numbered.to_mut().get_mut(place)
            {
                *number = seq.wrapping_add(self.ahead);
            }
        }
        numbered
    }

    /// Follows what we send to a server; returns where commands begin in it (0 where a header
    /// began before these bytes).
    pub(super) fn send(&mut self, plain: &[u8]) -> Vec<usize> {
        let mut commands = Vec::new();
        let mut at = 0;
        while let Some(place) = self.sent.next_number(plain, &mut at) {
            let seq = plain.get(place).copied().unwrap_or(0);
            // The packets of a long file come round to 0.
            let counts_on = self.answered && seq == self.next;
            self.next = seq.wrapping_add(1);
            self.answered = true;
            if seq == 0 && !counts_on {
                commands.push(place.saturating_sub(3));
            }
        }
        commands
    }

    /// Numbers what the other side has sent as the plain protocol would.
    pub(super) fn receive(&mut self, plain: &mut [u8]) {
        let mut at = 0;
        while let Some(place) = self.received.next_number(plain, &mut at) {
            let Some(seq) = plain.get_mut(place) else { return };
            match self.role {
                // A server's numbers may jump at each of its flushes.
                Role::Client => *seq = self.next,
                // So may a client's, and it begins anew in the middle of a long command
                // (MariaDB 10.11, measured); those of a long file come round to 0.
                Role::Server => {
                    let goes_on = self.received.continues || (self.answering && !self.answered);
                    if *seq == 0 && !goes_on {
                        (self.answering, self.ahead) = (false, 0);
                    } else {
                        *seq = self.next;
                        // A file ends with an empty packet.
                        self.answering = match self.received.continues {
                            true => self.answering,
                            false => self.received.left > 0,
                        };
                    }
                }
            }
            self.answered = false;
            self.next = seq.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(lengths_and_numbers: &[(u8, u8)]) -> Vec<u8> {
        let mut wire = Vec::new();
        for (length, seq) in lengths_and_numbers {
            wire.extend_from_slice(&[*length, 0, 0, *seq]);
            wire.resize(wire.len() + usize::from(*length), 7);
        }
        wire
    }

    /// Received in pieces of each length, the numbers are the same.
    fn received(numbers: impl Fn() -> Numbers, wire: &[u8], expected: &[u8]) {
        for piece in 1..=wire.len() {
            let (mut numbers, mut wire) = (numbers(), wire.to_vec());
            for chunk in wire.chunks_mut(piece) {
                numbers.receive(chunk);
            }
            let (mut place, mut at) = (Place::default(), 0);
            let numbers = std::iter::from_fn(|| place.next_number(&wire, &mut at));
            let found: Vec<u8> = numbers.flat_map(|at| wire.get(at).copied()).collect();
            assert_eq!(found, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_servers_numbers_count_up_from_the_command() {
        let asked = || {
            let mut numbers = Numbers::new(Role::Client);
            assert_eq!(numbers.send(&packets(&[(5, 0)])), [0]);
            numbers
        };
        received(asked, &packets(&[(1, 3), (2, 4), (0, 1), (3, 2)]), &[1, 2, 3, 4]);
    }

    #[test]
    fn commands_are_found_where_they_begin() {
        let mut numbers = Numbers::new(Role::Client);
        let wire = packets(&[(2, 0), (1, 1), (3, 0)]);
        assert_eq!(numbers.send(&wire), [0, 11]);
        let mut numbers = Numbers::new(Role::Client);
        let (head, tail) = wire.split_at(13);
        assert_eq!((numbers.send(head), numbers.send(tail)), (vec![0], vec![0]));
    }

    #[test]
    fn a_long_file_comes_round_to_zero_and_stays_one_file() {
        let mut numbers = Numbers::new(Role::Client);
        assert_eq!(numbers.send(&packets(&[(5, 0)])), [0]);
        numbers.receive(&mut packets(&[(1, 1)]));
        for number in 2..600 {
            let packet = packets(&[(1, u8::try_from(number % 256).expect("a byte"))]);
            assert!(numbers.send(&packet).is_empty(), "{number}");
        }
        numbers.receive(&mut packets(&[(1, 88)]));
        assert_eq!(numbers.send(&packets(&[(5, 0)])), [0]);
    }

    #[test]
    fn a_long_command_counts_on_whatever_its_client_says() {
        let mut numbers = Numbers::new(Role::Server);
        let mut full = vec![0xFF, 0xFF, 0xFF, 0];
        full.resize(4 + 0xFF_FFFF, b'x');
        numbers.receive(&mut full);
        let mut rest = packets(&[(7, 0), (1, 0)]);
        numbers.receive(&mut rest);
        assert_eq!([rest.get(3), rest.get(14)], [Some(&1), Some(&0)]);
    }

    #[test]
    fn a_clients_file_goes_on_from_our_request_and_its_commands_from_none() {
        let asked = || {
            let mut numbers = Numbers::new(Role::Server);
            numbers.receive(&mut packets(&[(1, 0)]));
            numbers.answer(&packets(&[(4, 1)]), 1);
            numbers
        };
        received(asked, &packets(&[(9, 5), (0, 6), (2, 0), (2, 0)]), &[2, 3, 0, 0]);
        // It takes over a compressed number as well (mysql_async, whose own was ahead of that).
        received(asked, &packets(&[(9, 5), (9, 5), (0, 6), (2, 0)]), &[2, 3, 4, 0]);
        received(asked, &packets(&[(9, 255), (9, 0), (0, 1), (2, 0)]), &[2, 3, 4, 0]);
    }

    #[test]
    fn an_answer_takes_over_the_compressed_number_where_a_whole_packet_begins_it() {
        let mut numbers = Numbers::new(Role::Server);
        numbers.receive(&mut packets(&[(1, 0)]));
        let first = packets(&[(1, 1), (2, 2), (3, 3)]);
        assert_eq!(numbers.answer(&first, 1), first);
        let second = numbers.answer(&packets(&[(1, 4), (2, 5)]), 2).into_owned();
        assert_eq!(second, packets(&[(1, 2), (2, 3)]));
        // A packet that does not come whole counts on, and so does what follows it.
        let long = packets(&[(9, 6), (1, 7)]);
        let (head, tail) = long.split_at(5);
        let wire = [numbers.answer(head, 3).into_owned(), numbers.answer(tail, 4).into_owned()];
        assert_eq!(wire.concat(), packets(&[(9, 4), (1, 5)]));
        // The other side's numbers go on from those that it gave.
        let mut file = packets(&[(5, 6), (0, 7)]);
        numbers.receive(&mut file);
        assert_eq!(file, packets(&[(5, 8), (0, 9)]));
        // A new command begins anew, with an answer that does not come whole as well.
        numbers.receive(&mut packets(&[(1, 0)]));
        let long = packets(&[(9, 1)]);
        let (head, _) = long.split_at(5);
        assert_eq!(numbers.answer(head, 1), head);
    }
}
