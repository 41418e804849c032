//! The MySQL client/server protocol as values and pure machines.
//!
//! Packets are read and written here, and the three machines that know an order of packets
//! live here too: [`greet`] (server role of a login), [`login`] (client role) and [`walker`]
//! (the grammar of replies). All of them take bytes and give bytes.
//!
//! What this module does *not* know: sockets, time, nodes, routing, sessions and
//! configuration. It imports nothing of ours.
//!
//! Everything that arrives is hostile until decoded: no indexing, no wrapping arithmetic, no
//! truncating cast, no panic; a packet that does not fit its grammar is a [`Malformed`].
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod answer;
pub mod auth;
pub mod command;
pub mod cursor;
pub mod ed25519;
pub mod errno;
pub mod execute;
pub mod flags;
pub mod greet;
pub mod handshake;
pub mod login;
pub mod old_password;
pub mod packet;
pub mod reply;
pub mod resultset;
pub mod session_track;
pub mod walker;
pub mod writer;

/// Bytes that do not fit the grammar of the packet that was expected.
///
/// Framing is lost then: the only right answer is to close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet: {what} at byte {at}")]
pub struct Malformed {
    /// The field or rule that was violated.
    pub what: &'static str,
    /// Offset in the payload (or in the buffer, where whole packets are framed).
    pub at: usize,
}

impl Malformed {
    /// A violation of `what` at offset `at`.
    #[must_use]
    pub const fn new(what: &'static str, at: usize) -> Self {
        Self { what, at }
    }
}
