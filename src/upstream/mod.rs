//! The way to the servers: opening a connection, logging in as the client, keeping it for the
//! next one.
//!
//! Does not know: sessions, routing, which server is the primary, or what a link is for.

pub mod budget;
pub mod dial;
mod layers;
pub mod load;
pub mod pool;
pub mod stream;
