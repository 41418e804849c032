//! Who may become the primary, and what a group lacks for a failover that loses nothing.
//!
//! Does not know: client sessions, statements, how a topology is published.
//!
//! [`survey`] asks every server of a group what matters for that; [`standing`] says which of the
//! preconditions are met, and [`candidate`] in which order the replicas would be promoted;
//! [`assessment`] is all of that together. Nothing here changes a server.

pub mod assessment;
pub mod candidate;
pub mod report;
pub mod standing;
pub mod survey;
