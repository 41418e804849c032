//! The way to the servers: opening a connection and logging in as the client.
//!
//! Does not know: sessions, routing, which server is the primary, or what a link is for.

pub mod dial;
mod layers;
pub mod load;
pub mod stream;
