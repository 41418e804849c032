//! What is needed of a server as one of those by which several pointsman agree. Those that speak to
//! real ones are the keeper's ([`crate::failover`]); tests have others, in memory.

use std::time::Duration;

use crate::cluster::tally::{Locks, State, Wanted};

/// A server, over two connections of its own: what it holds lies on one that does nothing else, so
/// that no long answer is in the way of the proof that it is held.
///
/// The server itself must end a connection over which nothing was said for a lease, and free what
/// was held on it.
pub trait Voter: Send + Sync + 'static {
    /// The operator's name for it.
    fn name(&self) -> &str;

    /// The time, as [`super::lease::boot_time`].
    fn now(&self) -> Duration;

    /// Sees to that what is wanted is had, where nobody else has it, and what is not wanted is let
    /// go; answers what is held then. Without an answer the connection is ended, and nothing is
    /// held.
    fn locks(&self, wanted: Wanted) -> impl Future<Output = Result<Locks, String>> + Send;

    /// Asks it for its state.
    fn state(&self) -> impl Future<Output = Result<State, String>> + Send;
}
