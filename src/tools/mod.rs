//! Commands that look at a cluster without a proxy in front of it.
//!
//! Does not know: client sessions, how statements are routed, a running proxy.

pub mod check;
mod discover;
