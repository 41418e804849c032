//! From a class, a session's view of itself and the topology to a decision with its reason.

use std::time::Instant;

use crate::config::Group;
use crate::router::{Class, Reason};
use crate::topology::gtid::GtidSet;
use crate::topology::{NodeId, Topology};

/// The few facts of a session that routing may see.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The session must stay on this target whatever the text says.
    pub pin: Option<Held>,
    /// SERVER_STATUS_IN_TRANS of the last reply.
    pub in_transaction: bool,
    /// SERVER_STATUS_AUTOCOMMIT of the last reply.
    pub autocommit: bool,
    /// `transaction_isolation` is SERIALIZABLE in this session.
    pub serializable: bool,
    /// Where the previous statement ran.
    pub last: Option<Held>,
    /// The replica that this session has a link to, if any; kept when it still qualifies.
    pub replica: Option<NodeId>,
    /// What the session has written, and what it has seen as far as that is known.
    pub token: &'a GtidSet,
    /// When the session last read something whose position is not in `token` (a read on the
    /// primary, or on a replica that it has since left); `None` when `token` covers all.
    pub floor: Option<Instant>,
    /// The replica whose own link this session knows to contain `token` already (it waited
    /// there successfully, or reads there only), if any.
    pub caught_up: Option<NodeId>,
    /// Every user variable of the session can be reproduced elsewhere.
    pub user_vars_restorable: bool,
    /// The digest was refused by a replica before.
    pub refused_before: bool,
    /// A hint in the text: `Some(true)` asks for the primary, `Some(false)` for a replica.
    pub hint_primary: Option<bool>,
}

/// One of the two links that a session may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Held {
    /// The link to the primary.
    Primary,
    /// The link to a replica.
    Replica,
}

/// Where to run, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The chosen place.
    pub target: Target,
    /// The reason, for metrics, digests and EXPLAIN ROUTE.
    pub reason: Reason,
}

/// The chosen place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The primary of the topology.
    Primary,
    /// This replica.
    Replica {
        /// Which one.
        node: NodeId,
        /// What must happen before the statement is sent there.
        freshness: Freshness,
    },
    /// The link that the session already has; it may not move.
    Held(Held),
}

/// What must be known of a replica before a read is sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing: it is known to contain the session's token, or the mode is `eventual`.
    Known,
    /// Wait there until it has applied the session's token.
    Wait,
    /// Ask the primary for its position first, add it to the token, then wait for that.
    AskThenWait,
}

/// Decides where one statement runs. `loads` are statements in flight by node index; `seed`
/// breaks ties.
#[must_use]
pub fn route(
    class: &Class,
    view: &View<'_>,
    topology: &Topology,
    group: &Group,
    loads: &[u32],
    seed: u32,
) -> Decision {
    let _ = (class, view, topology, group, loads, seed);
    Decision { target: Target::Primary, reason: Reason::Undecided }
}
