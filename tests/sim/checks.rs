//! What must hold, whatever happens.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::server::{Applier, Life, Server, Txn};
use crate::world::World;

/// How long before the end a write must have gone through.
const LATELY: Duration = Duration::from_secs(10);

impl World {
    /// Somebody takes the writes from now on: it has all that clients were told of.
    pub(crate) fn check_primary(&mut self) {
        let Some(primary) = self.health.takes_writes() else { return };
        if let Some(lost) = self.missing(primary) {
            let name = self.servers[primary].name();
            self.breaks(format!("{name} takes the writes and has not the acknowledged {lost}"));
        }
    }

    /// The first acknowledged write that a server has not.
    fn missing(&self, index: usize) -> Option<u64> {
        self.ledger.acknowledged.difference(&self.servers[index].writes).next().copied()
    }

    /// How many of the writes that did not wait for a replica are not there any more: a primary
    /// that was started anew has taken them before the keeper looked.
    pub(crate) fn unprotected_lost(&self) -> usize {
        let Some(primary) = self.health.takes_writes() else { return 0 };
        self.ledger.unprotected.difference(&self.servers[primary].writes).count()
    }

    /// After all is healed and the keeper has come to rest. `doing` is its sentence.
    pub(crate) fn check_end(&mut self, doing: &str) {
        let primary = self.health.takes_writes();
        let progress = self.shape.end.saturating_sub(self.ledger.last_acknowledged) < LATELY;
        let Some(primary) = primary else {
            if !is_reason(doing) {
                self.breaks(format!("nobody takes the writes, and the keeper says: {doing}"));
            }
            return;
        };
        if let Some(lost) = self.missing(primary) {
            let name = self.servers[primary].name();
            self.breaks(format!("in the end {name} has not the acknowledged write {lost}"));
        }
        let head: BTreeSet<Txn> = self.servers[primary].binlog.iter().copied().collect();
        let (mut good, mut wrong) = (0, Vec::new());
        for index in (0..self.servers.len()).filter(|index| *index != primary) {
            let server = &self.servers[index];
            let name = server.name();
            let own = server.binlog.iter().find(|txn| !head.contains(txn)).copied();
            let follows = server.is_receiving()
                && server
                    .following
                    .as_ref()
                    .is_some_and(|at| at.source == primary && at.applier == Applier::Running);
            // Who follows one that follows is left as it is, and named: it may be somebody's wish.
            let chained = server.following.as_ref().is_some_and(|at| {
                at.source != primary && self.servers[at.source].following.is_some()
            });
            good += usize::from(own.is_none() && !chained);
            match own {
                Some(own) if is_silently_repaired(server, primary) => {
                    wrong.push(format!("{name} follows the primary, and has {own:?} of its own"));
                }
                Some(own) if !doing.contains("stays out") => {
                    wrong.push(format!("{name} has {own:?} of its own, and the keeper: {doing}"));
                }
                Some(_) => {}
                None if chained && progress && !is_told(doing) => {
                    wrong.push(format!("{name} follows a replica, and the keeper says: {doing}"));
                }
                None if !follows && !chained && !is_reason(doing) && progress => {
                    let why = server
                        .following
                        .as_ref()
                        .map(|at| (at.source + 1, at.receiver, at.applier, at.error.clone()));
                    wrong.push(format!("{name} does not follow: {why:?}; the keeper: {doing}"));
                }
                None => {}
            }
            if !chained && !server.is_read_only() && server.life == Life::Running {
                wrong.push(format!("{name} is writable beside the primary: {doing}"));
            }
        }
        wrong.into_iter().for_each(|what| self.breaks(what));
        if progress && is_refusal(doing) {
            self.breaks(format!("writes go through, and the keeper says: {doing}"));
        }
        if !progress && good > 0 && !is_reason(doing) {
            self.breaks(format!("no write goes through, and the keeper says: {doing}"));
        }
    }
}

/// Whether a sentence says that nobody takes the writes.
fn is_refusal(doing: &str) -> bool {
    ["no failover", "takes no writes yet", "replacing"].iter().any(|at| doing.contains(at))
}

/// Whether a sentence names a server that does not follow the primary itself.
fn is_told(doing: &str) -> bool {
    ["; db", "stays out"].iter().any(|at| doing.contains(at))
}

fn is_silently_repaired(server: &Server, primary: usize) -> bool {
    server.is_receiving() && server.following.as_ref().is_some_and(|at| at.source == primary)
}

/// Whether a sentence names why nothing can be done without an operator.
fn is_reason(doing: &str) -> bool {
    let reasons = [
        "no failover from",
        "takes no writes yet",
        "it has transactions of its own",
        "it has received what the primary has not",
        "does not let us",
    ];
    reasons.iter().any(|at| doing.contains(at))
}
