//! The session driven in memory: bytes and events in, bytes and requests out.

mod chunks;
mod fixture;
mod loss;
mod release;
mod replay;
mod routing;
mod state;
mod statements;
mod streams;
mod witness;
