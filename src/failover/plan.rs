//! The next thing to do in a failover, from how far it is and what the servers say now.
//!
//! Nothing is assumed to have been done because it was ordered: each time all servers are asked
//! anew, and what is still missing is ordered again. So a failover can be taken up by whoever finds
//! it half done. Orders follow what MariaDB does with relay logs (V6 to V8): what was received and
//! not applied lives in files that the server deletes at the next start of a receiver when both
//! threads were stopped. Hence an applier runs before its receiver is stopped, and nothing starts
//! a replica of which both are stopped by GTID before its relay log is applied ([`What::Rescue`]).
//!
//! What must not be is that the failed primary, which may live behind a broken network, has a
//! commit acknowledged of which the heir knows nothing. A replica that was stopped receives again
//! when it is started anew, unless its option file has `skip_slave_start`: so each later stage
//! looks for that, and begins anew where somebody has received more than the heir. The heir is
//! opened only when all who may have acknowledged anything have been told of another source, or of
//! none, which is what they then begin with. A server that was started anew between a look and an
//! order is not overlooked either: it refuses to be told of another source while it receives
//! ([`What::Repoint`], [`What::Detach`]), and one connection never reaches two lives of a server.
//! What this does not exclude: somebody who orders a replica to follow the failed primary by hand,
//! and one that is started twice between a look and an order.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::failover::ackers::Accounts;
use crate::failover::candidate::{self, Orphans, Ranked};
use crate::failover::order::{Order, Place, What};
use crate::failover::plan::rescue::Heard;
use crate::failover::record::{Kind, Operation, Record, Stage};
use crate::failover::report::{Report, Told};
use crate::failover::standing;
use crate::failover::verdict;
use crate::health::observation::Source;
use crate::topology::gtid::GtidSet;
use crate::topology::{Flavour, Node, NodeId, Topology};

pub(super) mod rescue;
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
    /// What was known of the group before: who may have acknowledged a commit, and by which
    /// accounts, who is kept from it, and what an heir must have.
    pub record: &'a Record,
    /// Whether what nobody alive has may be lost.
    pub lossy: bool,
    /// How long this stage has taken so far.
    pub elapsed: Duration,
    /// What servers have said no to.
    pub denied: &'a [Order],
    /// By which account a former primary follows; `None` where there is none.
    pub accounts: Option<&'a Accounts>,
    /// Whether servers that follow nobody may be promoted.
    pub orphans: Orphans,
    /// How many sessions have a transaction open on the former primary, or a statement running;
    /// `None` where that is not known.
    pub unfinished: Option<usize>,
    /// The newest writes that clients were told of by the former primary, as GTIDs.
    pub acknowledged: &'a str,
    /// Whether that is what all pointsman have told their clients.
    pub is_all_heard: bool,
}

/// How long what is only better is waited for.
const PATIENT: Duration = Duration::from_secs(1);
/// How long an heir that is to be opened may say nothing.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// How long an heir has been up of which it can be told whether it was started since: uptimes are
/// right to the second.
const OLD_ENOUGH: Duration = Duration::from_secs(2);
/// How long that is waited for: one may be started over and over.
const YOUNG_MAX: Duration = Duration::from_secs(5);

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
    let (mut first, mut soon) = (Vec::new(), None);
    for name in facts.record.members.iter().filter(|name| **name != operation.former) {
        let report = facts.reports.iter().find(|report| *report.name == **name);
        let why = match report.map(|report| (report, &report.told)) {
            Some((report, Ok(told))) => {
                match rescue::hear(&operation.former, report, told, facts) {
                    Heard::Lost(why) if !facts.lossy => return Next::GiveUp(why),
                    Heard::All | Heard::Lost(_) => continue,
                    Heard::After(orders) => {
                        first.extend(orders);
                        continue;
                    }
                    Heard::Soon(why) => {
                        soon = Some(why);
                        continue;
                    }
                }
            }
            Some((_, Err(failure))) => failure.to_string(),
            None => "it is not in use".to_owned(),
        };
        if !facts.lossy {
            return Next::GiveUp(format!(
                "{name}, which may have acknowledged what no other server has, does not answer: \
                 {why}"
            ));
        }
    }
    let rescued: Vec<NodeId> = first.iter().map(|order| order.node).collect();
    let others = stopping(facts.reports, |_| true).into_iter();
    first.extend(others.filter(|order| !rescued.contains(&order.node)));
    match soon {
        _ if !first.is_empty() => Next::Act(first),
        Some(why) => Next::Wait(why),
        None => choose(operation, facts),
    }
}

/// Whether a member applies what a restart has left in its relay log, which takes its time.
#[must_use]
pub fn rescues(reports: &[Report], record: &Record) -> bool {
    answers(reports)
        .any(|(at, told)| !told.goes_by_gtid() && record.rescued.contains_key(&*at.name))
}

/// What keeps these from receiving, and loses nothing that they have received.
pub(super) fn stopping(reports: &[Report], whom: impl Fn(&Told) -> bool) -> Vec<Order> {
    let mut orders = Vec::new();
    for (report, told) in answers(reports).filter(|(_, told)| whom(told)) {
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
    orders
}

fn former<'a>(operation: &Operation, facts: &Facts<'a>) -> Option<&'a Node> {
    facts.topology.named(&operation.former)
}

/// Whether a server has been told to receive from the failed primary: it does so by itself when it
/// is started. MariaDB tells the id of that one until it has connected to the next (10.11,
/// measured).
fn is_told_of(former: &Node, told: &Told, topology: &Topology) -> bool {
    let id = former.facts.as_ref().map_or(0, |facts| facts.server_id);
    let others = || topology.nodes.iter().filter(|node| node.id != former.id);
    told.sources.iter().any(|source| {
        let address = source.address();
        let is_turned = || !source.receiving && others().any(|node| *node.address == *address);
        address == *former.address || id != 0 && source.server_id == id && !is_turned()
    })
}

/// What is to be done anew: a replica that was started meanwhile receives again, or has received
/// what the heir has not.
fn revoke_again(operation: &Operation, heir: &Told, facts: &Facts<'_>) -> Option<Next> {
    let former = former(operation, facts)?;
    let receives = |told: &Told| told.sources.iter().any(|source| !source.receiver_stopped);
    let orders =
        stopping(facts.reports, |told| is_told_of(former, told, facts.topology) && receives(told));
    if !orders.is_empty() {
        return Some(Next::Act(orders));
    }
    let mut has = heir.received.clone();
    has.union(&heir.executed);
    let knows_more = |told: &Told| {
        is_told_of(former, told, facts.topology) && !has.contains(&told.received_from_others())
    };
    let anew = !facts.lossy && answers(facts.reports).any(|(_, told)| knows_more(told));
    anew.then(|| Next::Enter(Operation::failover(&operation.former)))
}

/// Who may still acknowledge what the failed primary commits, and why.
fn unrevoked(operation: &Operation, facts: &Facts<'_>) -> Option<String> {
    let former = former(operation, facts)?;
    let mut others = facts.record.members.iter().filter(|name| **name != operation.former);
    others.find_map(|name| {
        let report = facts.reports.iter().find(|report| *report.name == **name);
        let why = match report.map(|report| &report.told) {
            Some(Ok(told)) if is_told_of(former, told, facts.topology) => {
                "it cannot be turned away".to_owned()
            }
            Some(Ok(_)) => return None,
            Some(Err(failure)) => format!("it does not answer: {failure}"),
            None => "it is not in use".to_owned(),
        };
        let former = &operation.former;
        Some(format!("{name} would follow {former} again when it is started: {why}"))
    })
}

/// Nobody receives any more: chooses the heir.
fn choose(operation: &Operation, facts: &Facts<'_>) -> Next {
    let ranked = candidate::rank_with(facts.reports, facts.topology, facts.orphans);
    let able = ranked.iter().filter(|ranked| ranked.may_lead().is_ok());
    let mut able = able.filter_map(|ranked| told_of(facts.reports, ranked.node));
    let Some((heir, told)) = able.find(|(_, told)| drains(told)) else {
        return Next::GiveUp(format!("nobody can be promoted: {}", objections(&ranked)));
    };
    for (other, more) in answers(facts.reports) {
        if !facts.lossy && !told.received.contains(&more.received_from_others()) {
            return Next::GiveUp(format!(
                "{} has received what {}, which could be promoted, has not",
                other.name, heir.name
            ));
        }
    }
    let floor = GtidSet::parse(told.flavour, &facts.record.floor).unwrap_or_default();
    if !facts.lossy && !told.received.contains(&floor) {
        return Next::GiveUp(format!(
            "{}, which could be promoted, has not received all that {} had when it became the \
             primary or a replica was started anew: {floor} (failover.max_loss = \"some\" accepts \
             that)",
            heir.name, operation.former
        ));
    }
    if let Some(lacking) = lacking(told, &told.received, facts).filter(|_| !facts.lossy) {
        return Next::GiveUp(format!(
            "{}, which could be promoted, has not received {lacking}, of which clients were told \
             (failover.max_loss = \"some\" accepts that)",
            heir.name
        ));
    }
    Next::Enter(Operation {
        stage: Stage::Drain,
        heir: Some(heir.name.to_string()),
        wanted: told.received.to_string(),
        ..operation.clone()
    })
}

/// The writes that clients were told of and an heir has not, whatever else speaks for it.
fn lacking(told: &Told, has: &GtidSet, facts: &Facts<'_>) -> Option<GtidSet> {
    let lacking = verdict::lacks(told, facts.acknowledged)?.subtract(has);
    (!lacking.is_empty()).then_some(lacking)
}

/// Whether all that it has received is or will be applied.
fn drains(told: &Told) -> bool {
    told.applied.contains(&told.received) || told.sources.iter().all(|source| source.applying)
}

fn objections(ranked: &[Ranked]) -> String {
    let told = ranked.iter().map(|ranked| match ranked.may_lead() {
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
    if let Some(next) = revoke_again(operation, told, facts) {
        return next;
    }
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
    // From here on there is no way back.
    if !facts.is_all_heard && facts.is_patient() {
        return Next::Wait("asking the other pointsman what clients were told of".to_owned());
    }
    match lacking(told, &told.applied, facts) {
        Some(lacking) if !facts.lossy => Next::GiveUp(format!(
            "{} has not {lacking}, of which clients were told (failover.max_loss = \"some\" \
             accepts that)",
            heir.name
        )),
        Some(_) | None => Next::Enter(Operation { stage: Stage::Establish, ..operation.clone() }),
    }
}

/// What clients were told of and is lost when an heir is promoted.
#[must_use]
pub fn lost(operation: &Operation, facts: &Facts<'_>) -> Option<GtidSet> {
    let (_, told) = heir(operation, facts).ok()?;
    lacking(told, &told.applied, facts)
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
    let replaces = !operation.is_reopening();
    if replaces && let Some(next) = revoke_again(operation, told, facts) {
        return next;
    }
    if !told.sources.is_empty() {
        // Started anew, it has received more.
        if replaces && !told.applied.contains(&told.received) {
            let wanted = told.received.to_string();
            return Next::Enter(Operation { stage: Stage::Drain, wanted, ..operation.clone() });
        }
        return Next::Act(detached(heir, told));
    }
    let mut orders = turned((heir, told), facts);
    if replaces {
        orders.extend(released(operation, &orders, facts));
        orders.extend(closed(operation, heir, facts));
    }
    let alone = is_alone(heir, facts);
    match readied((heir, told), facts) {
        Ok(more) => orders.extend(more),
        Err(why) => return Next::Wait(why),
    }
    if !orders.is_empty() {
        return Next::Act(orders);
    }
    if replaces
        && !facts.lossy
        && let Some(why) = unrevoked(operation, facts)
    {
        return Next::Wait(why);
    }
    // It could not be told afterwards whether that was before it took writes.
    if replaces && facts.elapsed < YOUNG_MAX && told.may_have_started_within(OLD_ENOUGH) {
        return Next::Wait(format!("{} was started just now", heir.name));
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
        .flat_map(|(other, told)| still(other, told, What::Repoint(place.clone())))
        .collect()
}

/// What makes those forget the failed primary that are not turned to the heir.
fn released(operation: &Operation, turned: &[Order], facts: &Facts<'_>) -> Vec<Order> {
    let former = former(operation, facts);
    let is_left = |other: &Report, told: &Told| {
        let is_told = former.is_some_and(|former| is_told_of(former, told, facts.topology));
        is_told && told.sources.len() == 1 && !turned.iter().any(|order| order.node == other.node)
    };
    answers(facts.reports)
        .filter(|(other, told)| is_left(other, told))
        .flat_map(|(other, told)| detached(other, told))
        .collect()
}

/// What closes those that take writes and follow nobody, where they may be heirs of another
/// pointsman that has not come further: that waits for all others to be closed.
fn closed(operation: &Operation, heir: &Report, facts: &Facts<'_>) -> Vec<Order> {
    let takes_writes = |told: &Told| told.sources.is_empty() && !told.is_read_only();
    let is_other = |at: &Report| at.node != heir.node && *at.name != *operation.former;
    let open = answers(facts.reports)
        .filter(|(at, told)| {
            facts.orphans == Orphans::MayLead && is_other(at) && takes_writes(told)
        })
        .map(|(at, _)| Order { node: at.node, what: What::Close });
    open.filter(|order| !facts.denied.contains(order)).collect()
}

/// What makes a server forget its source.
fn detached(report: &Report, told: &Told) -> Vec<Order> {
    still(report, told, What::Detach)
}

/// An order to one that must not receive then.
pub(super) fn still(report: &Report, told: &Told, what: What) -> Vec<Order> {
    let receives = told.sources.iter().any(|source| !source.receiver_stopped);
    let all = receives.then_some(What::StopReceiver).into_iter().chain([what]);
    all.map(|what| Order { node: report.node, what }).collect()
}

/// What the heir lacks of a primary, or which setting of those that must not be missing it does
/// not let us make.
fn readied((heir, told): (&Report, &Told), facts: &Facts<'_>) -> Result<Vec<Order>, String> {
    let mut orders = admitted((heir, told), facts)?;
    // Where loss is allowed, a primary without replicas does not wait for any.
    if is_alone(heir, facts) && facts.lossy {
        return Ok(orders);
    }
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

/// What keeps the evicted from logging in at the heir, and lets members: before it takes a write.
fn admitted((heir, told): (&Report, &Told), facts: &Facts<'_>) -> Result<Vec<Order>, String> {
    let barred = facts.record.barred();
    let Some(made) = &told.made else {
        // While it follows another that is not asked.
        return match told.sources.is_empty() && !barred.is_empty() && !facts.lossy {
            true => Err(format!("{}: its accounts for replicas cannot be seen", heir.name)),
            false => Ok(Vec::new()),
        };
    };
    let out: BTreeSet<String> = barred.intersection(&made.open).cloned().collect();
    let known =
        facts.record.accounts.iter().filter(|(name, _)| facts.record.members.contains(*name));
    let known: BTreeSet<String> = known.flat_map(|(_, users)| users.iter().cloned()).collect();
    let back: BTreeSet<String> = known.intersection(&made.locked).cloned().collect();
    let order = |what| Order { node: heir.node, what };
    let out = (!out.is_empty()).then(|| order(What::LockOut(out)));
    let back = (!back.is_empty()).then(|| order(What::LetIn(back)));
    Ok(out.into_iter().chain(back).collect())
}

fn is_alone(heir: &Report, facts: &Facts<'_>) -> bool {
    !answers(facts.reports).any(|(other, _)| other.node != heir.node)
}

/// Whether a replica has been told to follow that server.
fn follows(told: &Told, node: Option<&Node>) -> bool {
    let at = node.map(|node| &*node.address);
    told.sources.iter().any(|source| Some(source.address().as_str()) == at)
}

fn open(operation: &Operation, facts: &Facts<'_>) -> Next {
    let (heir, told) = match heir(operation, facts) {
        Ok(found) => found,
        // Whether it has taken writes nobody knows: it is the primary, and has failed.
        Err(_) if facts.elapsed >= OPEN_MAX && !operation.is_reopening() => return Next::Done,
        Err(why) => return Next::Wait(why),
    };
    opened((heir, told), facts)
}

/// Opens the heir; one that was started since is first made anew what a primary must be.
fn opened((heir, told): (&Report, &Told), facts: &Facts<'_>) -> Next {
    match readied((heir, told), facts) {
        Err(why) => Next::Wait(why),
        Ok(orders) if !orders.is_empty() => Next::Act(orders),
        Ok(_) if told.is_read_only() => {
            Next::Act(vec![Order { node: heir.node, what: What::Open }])
        }
        Ok(_) => Next::Done,
    }
}

/// What undoes a failover of which nothing but the receivers was changed: those that apply receive
/// again. One that does not apply would lose what it has received (V6).
#[must_use]
pub fn undo(reports: &[Report]) -> Vec<Order> {
    let stopped = answers(reports).filter(|(_, told)| {
        let may_receive = |source: &Source| source.receiver_stopped && source.applying;
        told.sources.iter().any(|source| may_receive(source) && source.by_gtid)
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
