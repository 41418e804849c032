//! The next thing to do in a failover, from how far it is and what the servers say now.
//!
//! Nothing is assumed to have been done because it was ordered: each time all servers are asked
//! anew, and what is still missing is ordered again. So a failover can be taken up by whoever finds
//! it half done. Orders follow what MariaDB does with relay logs (V6 to V8): what was received and
//! not applied lives in files that the server deletes at the next start of a receiver when both
//! threads were stopped. Hence an applier runs before its receiver is stopped, and nothing starts
//! a replica of which both are stopped.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::failover::ReplicationAccount;
use crate::failover::candidate::{self, Ranked};
use crate::failover::order::{Order, Place, What};
use crate::failover::record::{Kind, Operation, Stage};
use crate::failover::report::{Report, Told};
use crate::failover::standing;
use crate::topology::gtid::GtidSet;
use crate::topology::{Flavour, Node, NodeId, Topology};

pub mod switchover;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Let these be done, each at its server, then look again.
    Act(Vec<Order>),
    /// Look again soon; what for.
    Wait(String),
    /// Write this down, then go on with it.
    Enter(Operation),
    /// Undo what can be undone: no failover for this reason.
    GiveUp(String),
    /// The new primary takes writes.
    Done,
}

/// What a plan goes by.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The group as it is published.
    pub topology: &'a Topology,
    /// What all servers have just told, but for the former primary where that one is dead.
    pub reports: &'a [Report],
    /// The servers of the group: all but the failed one may have acknowledged a commit.
    pub members: &'a BTreeSet<String>,
    /// Whether what nobody alive has may be lost.
    pub lossy: bool,
    /// How long ago the failed primary was seen to be well.
    pub since_well: Duration,
    /// How long this stage has taken so far.
    pub elapsed: Duration,
    /// What servers have said no to.
    pub denied: &'a [Order],
    /// By which account a former primary follows; `None` where there is none.
    pub account: Option<&'a ReplicationAccount>,
    /// How many sessions have a transaction open on the former primary, or a statement running;
    /// `None` where that is not known.
    pub unfinished: Option<usize>,
}

/// How long what is only better is waited for.
const PATIENT: Duration = Duration::from_secs(1);

/// Says what to do next.
#[must_use]
pub fn next(operation: &Operation, facts: &Facts<'_>) -> Next {
    match (operation.kind, operation.stage) {
        (Kind::Switchover, stage) => switchover::next(operation, stage, facts),
        (Kind::Failover, Stage::Revoke) => revoke(operation, facts),
        (Kind::Failover, Stage::Drain) => drain(operation, facts),
        (Kind::Failover, Stage::Establish) => establish(operation, facts),
        (Kind::Failover, Stage::Open) => open(operation, facts),
        (Kind::Failover, Stage::Hold | Stage::Close) => {
            Next::GiveUp("this is no stage of a failover".to_owned())
        }
    }
}

fn revoke(operation: &Operation, facts: &Facts<'_>) -> Next {
    for name in facts.members.iter().filter(|name| **name != operation.former) {
        let report = facts.reports.iter().find(|report| *report.name == **name);
        let why = match report.map(|report| &report.told) {
            Some(Ok(told)) if has_forgotten(told, facts.since_well) && !facts.lossy => {
                return Next::GiveUp(format!(
                    "{name} was started anew since {} was last seen, and MariaDB has deleted what \
                     it had received and not applied: it may have been acknowledged",
                    operation.former
                ));
            }
            Some(Ok(_)) => continue,
            Some(Err(failure)) => failure.to_string(),
            None => "it is not in use".to_owned(),
        };
        if !facts.lossy {
            return Next::GiveUp(format!(
                "{name}, which may have acknowledged what no other server has, does not answer: \
                 {why}"
            ));
        }
    }
    let mut orders = Vec::new();
    for (report, told) in answers(facts.reports) {
        let [source] = told.sources.as_slice() else { continue };
        let rests = !source.applying && !source.applier_failed;
        // MySQL's relay log outlives this (V9), MariaDB's does not (V6).
        let may_start = !source.receiver_stopped || told.flavour == Flavour::MySql;
        if rests && may_start {
            orders.push(Order { node: report.node, what: What::StartApplier });
        } else if !source.receiver_stopped {
            orders.push(Order { node: report.node, what: What::StopReceiver });
        }
    }
    if orders.is_empty() { choose(operation, facts) } else { Next::Act(orders) }
}

/// Whether a server may have deleted what it had acknowledged after that time: MariaDB does when it
/// starts (V6), MySQL does not (V9).
fn has_forgotten(told: &Told, since_well: Duration) -> bool {
    told.flavour == Flavour::MariaDb && told.may_have_started_within(since_well)
}

/// Nobody receives any more: chooses the heir.
fn choose(operation: &Operation, facts: &Facts<'_>) -> Next {
    let ranked = candidate::rank(facts.reports, facts.topology);
    let able = ranked.iter().filter(|ranked| ranked.place.is_ok());
    let mut able = able.filter_map(|ranked| told_of(facts.reports, ranked.node));
    let Some((heir, told)) = able.find(|(_, told)| drains(told)) else {
        return Next::GiveUp(format!("nobody can be promoted: {}", objections(&ranked)));
    };
    for (other, more) in answers(facts.reports) {
        if !facts.lossy && !told.received.contains(&more.received) {
            return Next::GiveUp(format!(
                "{} has received what {}, which could be promoted, has not",
                other.name, heir.name
            ));
        }
    }
    Next::Enter(Operation {
        stage: Stage::Drain,
        heir: Some(heir.name.to_string()),
        wanted: told.received.to_string(),
        ..operation.clone()
    })
}

/// Whether all that it has received is or will be applied.
fn drains(told: &Told) -> bool {
    told.applied.contains(&told.received) || told.sources.iter().all(|source| source.applying)
}

fn objections(ranked: &[Ranked]) -> String {
    let told = ranked.iter().map(|ranked| match &ranked.place {
        Err(why) => format!("{}: {why}", ranked.name),
        Ok(_) => format!("{}: it has received what it cannot apply", ranked.name),
    });
    told.collect::<Vec<_>>().join("; ")
}

fn drain(operation: &Operation, facts: &Facts<'_>) -> Next {
    let (heir, told) = match heir(operation, facts) {
        Ok(found) => found,
        Err(why) => return Next::GiveUp(why),
    };
    let Some(wanted) = GtidSet::parse(told.flavour, &operation.wanted) else {
        return Next::GiveUp(format!("{:?} is no position", operation.wanted));
    };
    if !told.applied.contains(&wanted) {
        if !told.received.contains(&wanted) {
            let why = "has lost what it had received: its relay log was deleted";
            return Next::GiveUp(format!("{} {why}", heir.name));
        }
        if !drains(told) {
            return Next::GiveUp(format!("{} does not apply what it has received", heir.name));
        }
        return Next::Wait(format!("{} applies what it has received", heir.name));
    }
    // Turned to another source, a replica forgets what it has not applied; it is the heir's too,
    // and would be there alone.
    if let Some(next) = wait_for_appliers(facts) {
        return next;
    }
    Next::Enter(Operation { stage: Stage::Establish, ..operation.clone() })
}

/// Waits for a while for replicas that apply what they have received.
fn wait_for_appliers(facts: &Facts<'_>) -> Option<Next> {
    let (report, _) = answers(facts.reports).find(|(_, told)| {
        !told.applied.contains(&told.received) && told.sources.iter().all(|at| at.applying)
    })?;
    let why = || Next::Wait(format!("{} applies what it has received", report.name));
    facts.is_patient().then(why)
}

fn establish(operation: &Operation, facts: &Facts<'_>) -> Next {
    let (heir, told) = match heir(operation, facts) {
        Ok(found) => found,
        Err(why) => return Next::Wait(why),
    };
    if !told.sources.is_empty() {
        return Next::Act(vec![Order { node: heir.node, what: What::Detach }]);
    }
    let mut orders = turned((heir, told), facts);
    let alone = !answers(facts.reports).any(|(other, _)| other.node != heir.node);
    // Where loss is allowed, a primary without replicas does not wait for any.
    if !(alone && facts.lossy) {
        match readied((heir, told), facts) {
            Ok(more) => orders.extend(more),
            Err(why) => return Next::Wait(why),
        }
    }
    if !orders.is_empty() {
        return Next::Act(orders);
    }
    let enough = standing::acknowledging(told);
    if !alone && !enough && facts.is_patient() {
        return Next::Wait(format!("nobody acknowledges {}'s commits yet", heir.name));
    }
    Next::Enter(Operation { stage: Stage::Open, ..operation.clone() })
}

/// What makes all others that may be its replicas follow the heir.
fn turned((heir, _): (&Report, &Told), facts: &Facts<'_>) -> Vec<Order> {
    let node = facts.topology.node(heir.node);
    let Some(place) = node.and_then(|node| Place::of(&node.address)) else { return Vec::new() };
    let ranked = candidate::rank(facts.reports, facts.topology);
    let fit = |other: NodeId| ranked.iter().any(|at| at.node == other && at.place.is_ok());
    answers(facts.reports)
        .filter(|(other, told)| other.node != heir.node && fit(other.node) && !follows(told, node))
        .map(|(other, _)| Order { node: other.node, what: What::Repoint(place.clone()) })
        .collect()
}

/// What the heir lacks of a primary, or which setting of those that must not be missing it does
/// not let us make.
fn readied((heir, told): (&Report, &Told), facts: &Facts<'_>) -> Result<Vec<Order>, String> {
    let mut orders = Vec::new();
    for mend in standing::mends(told, true) {
        let order = Order { node: heir.node, what: What::Settle(mend.statement) };
        if !facts.denied.contains(&order) {
            orders.push(order);
        } else if mend.name.starts_with("rpl_semi_sync") && !facts.lossy {
            let what = order.what.describe();
            return Err(format!("{} does not let us {what}", heir.name));
        }
    }
    Ok(orders)
}

/// Whether a replica has been told to follow that server.
fn follows(told: &Told, node: Option<&Node>) -> bool {
    let at = node.map(|node| &*node.address);
    told.sources.iter().any(|source| Some(source.address().as_str()) == at)
}

fn open(operation: &Operation, facts: &Facts<'_>) -> Next {
    let (heir, told) = match heir(operation, facts) {
        Ok(found) => found,
        Err(why) => return Next::Wait(why),
    };
    match told.is_read_only() {
        true => Next::Act(vec![Order { node: heir.node, what: What::Open }]),
        false => Next::Done,
    }
}

/// What undoes a failover of which nothing but the receivers was changed: those that apply receive
/// again. One that does not apply would lose what it has received (V6).
#[must_use]
pub fn undo(reports: &[Report]) -> Vec<Order> {
    let stopped = answers(reports).filter(|(_, told)| {
        told.sources.iter().any(|source| source.receiver_stopped && source.applying)
            || told.flavour == Flavour::MySql
                && told.sources.iter().any(|source| source.receiver_stopped)
    });
    stopped.map(|(report, _)| Order { node: report.node, what: What::StartReceiver }).collect()
}

impl Facts<'_> {
    /// Whether what is only better may still be waited for.
    fn is_patient(&self) -> bool {
        self.elapsed < PATIENT
    }
}

fn answers(reports: &[Report]) -> impl Iterator<Item = (&Report, &Told)> {
    reports.iter().filter_map(|report| Some((report, report.told()?)))
}

fn told_of(reports: &[Report], node: NodeId) -> Option<(&Report, &Told)> {
    answers(reports).find(|(report, _)| report.node == node)
}

fn heir<'a>(operation: &Operation, facts: &Facts<'a>) -> Result<(&'a Report, &'a Told), String> {
    let name = operation.heir.as_deref().unwrap_or_default();
    let found = facts.reports.iter().find(|report| *report.name == *name);
    match found.map(|report| (report, &report.told)) {
        Some((report, Ok(told))) => Ok((report, told)),
        Some((_, Err(failure))) => {
            Err(format!("{name}, which is to be promoted, does not answer: {failure}"))
        }
        None => Err(format!("{name}, which is to be promoted, is not in use")),
    }
}

#[cfg(test)]
mod tests;
