//! Who is the primary: what a failover would lose, who would be promoted, and doing it.
//!
//! Does not know: client sessions, statements, how a topology is published.
//!
//! [`survey`] asks every server of a group what matters for that; [`standing`] says which of the
//! preconditions are met, and [`candidate`] in which order the replicas would be promoted;
//! [`assessment`] is all of that together.
//!
//! Where the operator wants the group kept, a [`keeper`] changes servers. What is right is decided
//! by pure code from what the servers say: [`verdict`] whether a primary is dead, [`plan`] the next
//! step of a failover or a switchover, [`upkeep`] what is to be done while all is well. [`order`]
//! has the statements, [`execute`] sends them, and [`journal`] keeps the [`record`] of what was
//! begun; a [`hook`] is a program of the operator's. [`ackers`] says who may acknowledge commits,
//! and [`relay`] what a replica has left in its relay log. A [`surgeon`] stands between a keeper
//! and all of these. It sits on a [`chair`], which it leaves to a process that takes over. A
//! [`voter`] is a server as one of those by which several keepers agree.

pub mod ackers;
pub mod assessment;
pub mod candidate;
pub mod chair;
pub mod event;
pub mod execute;
#[cfg(test)]
pub(crate) mod fixture;
pub mod hook;
pub mod journal;
pub mod keeper;
pub mod order;
pub mod plan;
pub mod record;
pub mod relay;
pub mod report;
pub mod standing;
pub mod surgeon;
pub mod survey;
pub mod upkeep;
pub mod verdict;
pub mod voter;
