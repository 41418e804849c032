//! From a class, a session's view of itself and the topology to a decision with its reason.

use std::time::Instant;

use crate::config::{Consistency, Group};
use crate::router::balance::{self, Loads};
use crate::router::{Class, Effects, Kind, Reason};
use crate::topology::gtid::GtidSet;
use crate::topology::{Node, NodeId, Role, Topology};

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
    /// The session has defined tables or the like.
    pub has_defined: bool,
    /// The digest was refused by a replica before.
    pub refused_before: bool,
    /// Servers that have failed this very request, as bits by node index.
    pub avoid: u64,
    /// When a client last changed settings of the primary: what was observed before counts no
    /// more.
    pub settings_changed: Option<Instant>,
    /// Some session holds locks of tables on the primary, for which others would wait there.
    pub tables_locked: bool,
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

/// Effects that a statement may have and still be answered by one host as well as by another.
const HARMLESS: u64 = Effects::USER_VAR_READ.0
    | Effects::VIRTUAL.0
    | Effects::FOUND_ROWS.0
    | Effects::HINT_PRIMARY.0
    | Effects::HINT_REPLICA.0
    | Effects::METADATA.0
    | Effects::SET_STATEMENT.0;

/// Whether it asks what one host says of itself, and changes nothing.
#[must_use]
pub fn asks_one_host(class: &Class) -> bool {
    class.kind == Kind::Primary
        && class.reason == Reason::HostLocal
        && class.effects.0 & !HARMLESS == 0
}

/// Decides where one statement runs. `loads` tells the statements in flight on a server; `seed`
/// breaks ties and draws the primary's share. The order of the questions is the rule: what
/// binds the session comes before what the text says, and that before what is preferred.
#[must_use]
pub fn route(
    class: &Class,
    view: &View<'_>,
    topology: &Topology,
    group: &Group,
    loads: Loads<'_>,
    seed: u32,
) -> Decision {
    if let Some(decision) = bound(class, view) {
        return decision;
    }
    match read_reason(class, view) {
        Err(reason) => Decision { target: Target::Primary, reason },
        Ok(reason) => {
            let pool = Pool { view, topology, group, loads, seed };
            let forced = reason == Reason::Hint;
            match pool.place(forced) {
                Ok((node, freshness)) => {
                    Decision { target: Target::Replica { node, freshness }, reason }
                }
                Err(reason) => Decision { target: Target::Primary, reason },
            }
        }
    }
}

/// What holds whatever the statement is: pins, transactions, the statement before.
fn bound(class: &Class, view: &View<'_>) -> Option<Decision> {
    let held = |held, reason| Some(Decision { target: Target::Held(held), reason });
    if let Some(pin) = view.pin {
        return held(pin, Reason::Pinned);
    }
    if view.in_transaction {
        return held(Held::Primary, Reason::Transaction);
    }
    if !view.autocommit {
        return Some(Decision { target: Target::Primary, reason: Reason::Transaction });
    }
    match (class.kind, view.last) {
        (Kind::Last, Some(last)) => held(last, Reason::PreviousStatement),
        (Kind::Last, None) => {
            Some(Decision { target: Target::Primary, reason: Reason::PreviousStatement })
        }
        (Kind::Read | Kind::Primary, _) => None,
    }
}

/// Why the statement may go to a replica, or else why it may not.
fn read_reason(class: &Class, view: &View<'_>) -> Result<Reason, Reason> {
    if class.effects.any(Effects::HINT_PRIMARY) {
        return Err(Reason::Hint);
    }
    let to_replica = class.effects.any(Effects::HINT_REPLICA);
    if view.refused_before {
        return Err(Reason::RefusedBefore);
    }
    let reason = match (class.kind, to_replica) {
        (Kind::Read, true) => Reason::Hint,
        (Kind::Read, false) => class.reason,
        (Kind::Primary, _)
            if class.effects.any(Effects::BEGIN_READ_ONLY)
                && !class.multi
                && !view.serializable =>
        {
            Reason::ReadOnlyTransaction
        }
        // A hint may ask one replica about itself.
        (Kind::Primary, true) if asks_one_host(class) => Reason::Hint,
        (Kind::Primary | Kind::Last, _) => return Err(class.reason),
    };
    if class.effects.any(Effects::USER_VAR_READ) && !view.user_vars_restorable {
        return Err(Reason::SessionState);
    }
    // Who has made a table looks at what became of it there: a replica makes it from the same
    // text, but with settings, statistics and counters of its own.
    if class.effects.any(Effects::METADATA) && view.has_defined && reason != Reason::Hint {
        return Err(Reason::SessionState);
    }
    Ok(reason)
}

/// The replicas as one session's read sees them.
struct Pool<'a> {
    view: &'a View<'a>,
    topology: &'a Topology,
    group: &'a Group,
    loads: Loads<'a>,
    seed: u32,
}

impl Pool<'_> {
    /// A replica for a read, and what it must wait for. `forced`: a hint asked for a replica,
    /// so the primary takes no share.
    fn place(&self, forced: bool) -> Result<(NodeId, Freshness), Reason> {
        if !self.topology.nodes.iter().any(|node| self.is_eligible(node)) {
            return Err(self.why_none());
        }
        if !forced && self.topology.primary.is_some() && self.draws_primary() {
            return Err(Reason::PrimaryShare);
        }
        match self.group.consistency {
            Consistency::Eventual => self.any(Freshness::Known),
            // No replica has others' locks either.
            Consistency::Global if self.topology.primary.is_none() || self.view.tables_locked => {
                Err(Reason::NotCaughtUp)
            }
            Consistency::Global => self.any(Freshness::AskThenWait),
            Consistency::Session => self.for_session(),
        }
    }

    fn for_session(&self) -> Result<(NodeId, Freshness), Reason> {
        if let Some(node) = self.best(|node| self.is_known(node)) {
            return Ok((node, Freshness::Known));
        }
        if self.view.floor.is_none() || self.position_is_after_floor() {
            return self.any(Freshness::Wait);
        }
        if self.topology.primary.is_some() {
            return self.any(Freshness::AskThenWait);
        }
        // Nobody to ask. Time cannot go back on the replica that the session reads from.
        match self.current() {
            Some(node) => Ok((node, Freshness::Wait)),
            None => Err(Reason::NotCaughtUp),
        }
    }

    fn any(&self, freshness: Freshness) -> Result<(NodeId, Freshness), Reason> {
        self.best(|_| true).map(|node| (node, freshness)).ok_or(Reason::NoReplica)
    }

    /// The session's present replica if it will do, else the least loaded that will.
    fn best(&self, will_do: impl Fn(&Node) -> bool) -> Option<NodeId> {
        let candidates =
            self.topology.nodes.iter().filter(|node| self.is_eligible(node) && will_do(node));
        let current = self.view.replica;
        if let Some(node) = candidates.clone().find(|node| Some(node.id) == current) {
            return Some(node.id);
        }
        balance::pick(candidates, self.loads, self.seed)
    }

    fn current(&self) -> Option<NodeId> {
        let node = self.topology.node(self.view.replica?)?;
        self.is_eligible(node).then_some(node.id)
    }

    fn is_usable(node: &Node) -> bool {
        node.role == Role::Replica
            && node.condition.usable()
            && node.weight > 0
            && node.applying
            && node.facts.is_some()
    }

    fn is_eligible(&self, node: &Node) -> bool {
        Self::is_usable(node)
            && Some(node.id) != self.topology.primary
            && self.view.avoid & node.id.bit() == 0
            && node.lag.is_some_and(|lag| lag <= self.group.max_lag)
            && self.is_alike(node)
    }

    /// Whether a session finds the primary's settings there.
    fn is_alike(&self, node: &Node) -> bool {
        let Some(changed) = self.view.settings_changed else { return node.alike };
        let since = |node: &Node| node.is_observed_since(changed);
        node.alike && since(node) && self.topology.primary_node().is_none_or(since)
    }

    fn why_none(&self) -> Reason {
        let usable = || self.topology.nodes.iter().filter(|node| Self::is_usable(node));
        if usable().next().is_some() && !usable().any(|node| self.is_alike(node)) {
            Reason::SettingsDiffer
        } else if usable().next().is_some() {
            Reason::Lagging
        } else {
            Reason::NoReplica
        }
    }

    fn draws_primary(&self) -> bool {
        // Other bits than those that break ties.
        let draw = (self.seed.wrapping_mul(0x9E37_79B1) >> 16) % 100;
        draw < u32::from(self.group.primary_read_percent)
    }

    /// Whether a replica is known to hold all that the session wrote and saw.
    fn is_known(&self, node: &Node) -> bool {
        let is_current = self.view.replica == Some(node.id);
        if is_current && self.view.caught_up == Some(node.id) {
            return true;
        }
        node.applied.contains(self.view.token)
            && (self.view.floor.is_none() || self.is_past_floor(node))
    }

    /// Whether the primary's published position, or the last one's, was read after the session last
    /// saw something that its token does not cover: then that position covers it.
    fn position_is_after_floor(&self) -> bool {
        let primary = self.topology.last_primary();
        primary.zip(self.view.floor).is_some_and(|(node, floor)| node.is_observed_since(floor))
    }

    fn is_past_floor(&self, node: &Node) -> bool {
        self.position_is_after_floor()
            && self.topology.last_primary().is_some_and(|p| node.applied.contains(&p.applied))
    }
}

#[cfg(test)]
pub(crate) mod tests;
