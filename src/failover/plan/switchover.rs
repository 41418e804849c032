//! The next thing to do in a switchover: the primary is well, and hands over to another server.
//!
//! New transactions wait, those that run get a moment to end. Then the primary takes no more
//! writes: what commits after that is refused, which is an outcome that everybody can know (V11).
//! The heir executes all that the primary has, the others follow it, and it is opened. Until then
//! the primary can be opened again, and nothing is lost but time: so each stage has a bound. The
//! old primary follows, too; afterwards, unless nobody else could acknowledge the heir's commits.

use std::time::Duration;

use super::{
    Facts, Next, OPEN_MAX, answers, detached, follows, heir, opened, readied, turned,
    wait_for_appliers,
};
use crate::failover::candidate;
use crate::failover::order::{Order, Place, What};
use crate::failover::record::{Operation, Stage};
use crate::failover::report::{Report, SUPER_READ_ONLY, Told, told_by};
use crate::failover::standing;
use crate::topology::gtid::GtidSet;
use crate::topology::{Condition, Flavour, Node, NodeId, Topology};

/// How long transactions may take to end.
const HOLD_MAX: Duration = Duration::from_secs(2);
/// How long the primary may take to be closed.
const CLOSE_MAX: Duration = Duration::from_secs(15);
/// How long the heir may take to execute what it lacks.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long others may take to follow the heir.
const ESTABLISH_MAX: Duration = Duration::from_secs(10);
/// How far behind a server may be and be made the primary: what it lacks is waited for while nobody
/// can write.
const LAG_MAX: Duration = Duration::from_secs(2);
/// How long a replica is waited for that acknowledges the heir's commits: without one they would
/// wait just the same.
const ACKNOWLEDGING_MAX: Duration = Duration::from_secs(3);

pub(super) fn next(operation: &Operation, stage: Stage, facts: &Facts<'_>) -> Next {
    match stage {
        Stage::Hold => hold(operation, facts),
        Stage::Close => close(operation, facts),
        Stage::Drain => catch_up(operation, facts),
        Stage::Establish => hand_over(operation, facts),
        Stage::Open => open(operation, facts),
        Stage::Revoke => Next::GiveUp("this is no stage of a switchover".to_owned()),
    }
}

/// Who is to be the primary: this server, or whoever would be promoted first.
///
/// # Errors
/// Why that server cannot be, or nobody can.
pub fn choose<'a>(
    topology: &Topology,
    reports: &'a [Report],
    primary: &Node,
    wanted: Option<&str>,
) -> Result<&'a Report, String> {
    let name = match wanted {
        None => None,
        Some(wanted) => Some(named(topology, primary, wanted)?),
    };
    let mut objections = Vec::new();
    for ranked in candidate::rank(reports, topology) {
        if name.is_some_and(|node| node.id != ranked.node) || ranked.node == primary.id {
            continue;
        }
        let may_be =
            ranked.may_lead().and_then(|_| may_hand_over(topology, reports, primary, ranked.node));
        match (may_be, reports.iter().find(|report| report.node == ranked.node)) {
            (Ok(()), Some(report)) => return Ok(report),
            (Ok(()), None) => {}
            (Err(why), _) => objections.push(format!("{}: {why}", ranked.name)),
        }
    }
    match (name, objections.is_empty()) {
        (Some(node), true) => Err(format!("{} is not in use: INCLUDE it first", node.name)),
        (None, true) => Err("there is no other server".to_owned()),
        (_, false) => Err(objections.join("; ")),
    }
}

fn named<'a>(topology: &'a Topology, primary: &Node, wanted: &str) -> Result<&'a Node, String> {
    let found = topology.named(wanted);
    let found = found.or_else(|| topology.nodes.iter().find(|node| *node.address == *wanted));
    match found {
        Some(node) if node.id == primary.id => Err(format!("{wanted} is the primary already")),
        Some(node) => Ok(node),
        None => Err(format!("there is no server {wanted:?}; SHOW SERVERS lists them")),
    }
}

/// What speaks against a server that could be promoted if the primary were dead.
fn may_hand_over(
    topology: &Topology,
    reports: &[Report],
    primary: &Node,
    heir: NodeId,
) -> Result<(), String> {
    let (Some(node), Some(told)) = (topology.node(heir), told_by(reports, heir)) else {
        return Err("it does not answer".to_owned());
    };
    match node.condition {
        Condition::Up | Condition::Suspect => {}
        Condition::Down => return Err("it is down".to_owned()),
        Condition::Draining => return Err("it is drained: UNDRAIN it first".to_owned()),
        Condition::Excluded => return Err("it is excluded: INCLUDE it first".to_owned()),
    }
    let head = told_by(reports, primary.id);
    let Some(source) = told.link_to(primary, head) else {
        return Err(format!("it does not replicate from {}", primary.name));
    };
    if !source.receiving {
        return Err(format!("it does not receive: {}", reason(&source.error)));
    }
    if !source.applying {
        return Err(format!("it does not apply: {}", reason(&source.error)));
    }
    match node.lag {
        Some(lag) if lag <= LAG_MAX => Ok(()),
        Some(lag) => Err(format!(
            "it is {:.1} s behind, and at most {} s may be waited for while nobody writes",
            lag.as_secs_f64(),
            LAG_MAX.as_secs()
        )),
        None => Err("it is not known how far behind it is".to_owned()),
    }
}

fn reason(error: &str) -> &str {
    if error.is_empty() { "the thread was stopped" } else { error }
}

/// What the primary tells; an error where it does not answer.
fn former<'a>(operation: &Operation, facts: &Facts<'a>) -> Result<(&'a Report, &'a Told), String> {
    let name = &operation.former;
    let found = facts.reports.iter().find(|report| *report.name == **name);
    match found.map(|report| (report, &report.told)) {
        Some((report, Ok(told))) => Ok((report, told)),
        Some((_, Err(failure))) => Err(format!("{name} does not answer: {failure}")),
        None => Err(format!("{name} is not in use")),
    }
}

/// Whether it takes writes of nobody who has no rights to that.
fn is_closed(told: &Told) -> bool {
    match told.flavour {
        Flavour::MariaDb => told.is_read_only(),
        Flavour::MySql => told.is_on(SUPER_READ_ONLY),
    }
}

fn hold(operation: &Operation, facts: &Facts<'_>) -> Next {
    if let Err(why) = former(operation, facts).and_then(|_| heir(operation, facts)) {
        return Next::GiveUp(why);
    }
    let close = Operation { stage: Stage::Close, ..operation.clone() };
    match facts.unfinished {
        Some(0) => Next::Enter(close),
        Some(_) | None if facts.elapsed >= HOLD_MAX => Next::Enter(close),
        Some(count) => Next::Wait(format!("{count} sessions have a transaction open")),
        None => Next::Wait("it is not known whether transactions are open".to_owned()),
    }
}

fn close(operation: &Operation, facts: &Facts<'_>) -> Next {
    let (report, told) =
        match former(operation, facts).and_then(|at| heir(operation, facts).and(Ok(at))) {
            Ok(found) => found,
            Err(why) => return Next::GiveUp(why),
        };
    if is_closed(told) {
        return Next::Enter(Operation {
            stage: Stage::Drain,
            wanted: told.executed.to_string(),
            ..operation.clone()
        });
    }
    if facts.elapsed >= CLOSE_MAX {
        return Next::GiveUp(format!("{} cannot be made read-only", report.name));
    }
    Next::Act(vec![Order { node: report.node, what: What::Close }])
}

fn catch_up(operation: &Operation, facts: &Facts<'_>) -> Next {
    let (heir, told) = match heir(operation, facts) {
        Ok(found) => found,
        Err(why) => return Next::GiveUp(why),
    };
    let Some(mut wanted) = GtidSet::parse(told.flavour, &operation.wanted) else {
        return Next::GiveUp(format!("{:?} is no position", operation.wanted));
    };
    // Where the primary has died meanwhile, the heir may have all of it none the less.
    if let Ok((report, former)) = former(operation, facts) {
        if !is_closed(former) {
            return Next::GiveUp(format!("somebody has opened {} for writes", report.name));
        }
        wanted.union(&former.executed);
    }
    if !told.applied.contains(&wanted) {
        if facts.elapsed >= DRAIN_MAX {
            let (name, limit) = (&heir.name, DRAIN_MAX.as_secs());
            return Next::GiveUp(format!("{name} has not executed all of it within {limit} s"));
        }
        let what = What::CatchUp(wanted.to_string());
        return Next::Act(vec![Order { node: heir.node, what }]);
    }
    // Turned to another source, a replica fetches anew what it has not applied.
    if let Some(next) = wait_for_appliers(facts) {
        return next;
    }
    Next::Enter(Operation { stage: Stage::Establish, ..operation.clone() })
}

fn hand_over(operation: &Operation, facts: &Facts<'_>) -> Next {
    let late = facts.elapsed >= ESTABLISH_MAX;
    let (heir, told) = match heir(operation, facts) {
        Ok(found) => found,
        Err(why) if late => return Next::GiveUp(why),
        Err(why) => return Next::Wait(why),
    };
    let old = former(operation, facts).ok();
    if let Some((report, old)) = old
        && !old.is_read_only()
    {
        return Next::GiveUp(format!("somebody has opened {} for writes", report.name));
    }
    if late {
        let name = &heir.name;
        return Next::GiveUp(format!(
            "{name} was not ready in time, or the others do not follow it"
        ));
    }
    let mut orders = Vec::new();
    if !told.sources.is_empty() {
        orders.extend(detached(heir, told));
    }
    match readied((heir, told), facts) {
        Ok(more) => orders.extend(more),
        Err(why) => return Next::GiveUp(why),
    }
    let lacks = standing::asking(told).is_some() && !standing::acknowledging(told);
    // Followed it is only when it follows nobody itself.
    if told.sources.is_empty() {
        orders.extend(turned((heir, told), facts));
        // Where others acknowledge, the old primary follows later: to be made a replica may take
        // a second, which would be one more without writes.
        let waits = has_others(operation, heir, facts) && facts.is_patient();
        if lacks && !waits {
            orders.extend(old.into_iter().flat_map(|old| demoted(old, (heir, told), facts)));
        }
    }
    if !orders.is_empty() {
        return Next::Act(orders);
    }
    if lacks && facts.elapsed < ACKNOWLEDGING_MAX {
        return Next::Wait(format!("nobody acknowledges {}'s commits yet", heir.name));
    }
    Next::Enter(Operation { stage: Stage::Open, ..operation.clone() })
}

/// Whether a replica may acknowledge the heir's commits that is not the old primary.
fn has_others(operation: &Operation, heir: &Report, facts: &Facts<'_>) -> bool {
    answers(facts.reports).any(|(report, told)| {
        report.node != heir.node && *report.name != *operation.former && !told.sources.is_empty()
    })
}

/// What makes a replica of the old primary. Its clients' connections are ended, since transactions
/// that they have open would be in its applier's way, and it asks for no acknowledgements before it
/// follows: the applier would wait for them (V21).
fn demoted(
    (old, told): (&Report, &Told),
    (heir, head): (&Report, &Told),
    facts: &Facts<'_>,
) -> Vec<Order> {
    let node = facts.topology.node(heir.node);
    let place = node.and_then(|node| Place::of(&node.address));
    let (Some(place), Some(accounts)) = (place, facts.accounts) else { return Vec::new() };
    // What it has beyond that was written by somebody whom nothing stops: upkeep says so.
    if follows(told, node) || !head.executed.contains(&told.executed) {
        return Vec::new();
    }
    let settle = |mend: standing::Mend| What::Settle(mend.statement);
    let mends = standing::mends(told, false).into_iter().map(settle);
    let all = [What::Fence].into_iter().chain(mends);
    all.chain([What::Follow(place, accounts.of(told, head))])
        .map(|what| Order { node: old.node, what })
        .filter(|order| !facts.denied.contains(order))
        .collect()
}

fn open(operation: &Operation, facts: &Facts<'_>) -> Next {
    let late = facts.elapsed >= OPEN_MAX;
    let (heir, told) = match heir(operation, facts) {
        Ok(found) => found,
        // Whether it has taken writes nobody knows: it is the primary, and has failed.
        Err(_) if late => return Next::Done,
        Err(why) => return Next::Wait(why),
    };
    if late && told.is_read_only() {
        return Next::GiveUp(format!("{} cannot be opened for writes", heir.name));
    }
    opened((heir, told), facts)
}

#[cfg(test)]
mod tests;
