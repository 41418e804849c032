//! The console, which speaks MySQL, and HTTP: how operators see and steer the proxy.
//!
//! Does not know: the data path. It asks the owners of things through [`crate::control`], reads
//! published topologies and counters, and decides nothing.

pub mod commands;
pub mod conversation;
pub mod explain;
#[cfg(test)]
pub(crate) mod fixture;
pub mod http;
pub mod listen;
pub mod parse;
pub mod password;
pub mod show;
pub mod smalltalk;
pub mod table;
