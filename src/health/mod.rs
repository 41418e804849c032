//! What the servers are and whether they may be used: observed, judged, published.
//!
//! Does not know: client sessions, statements, how a topology is used by those who read it.

pub mod cell;
