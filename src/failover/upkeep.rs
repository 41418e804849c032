//! What is to be done in a group whose primary is well: bring settings to what a failover without
//! loss requires, and let servers that have come back follow the primary again.
//!
//! A server that has transactions of its own is left as it is but for being closed to writes: what
//! becomes of them is an operator's to say.

use std::fmt;

use crate::failover::ackers::{self, Accounts};
use crate::failover::event::{Event, State};
use crate::failover::order::{Order, Place, What};
use crate::failover::plan::still;
use crate::failover::record::Record;
use crate::failover::report::{Report, Told, is_at, told_by};
use crate::failover::standing;
use crate::health::observation::Source;
use crate::topology::gtid::{GtidSet, MariaDbState};
use crate::topology::{Flavour, Node, NodeId, Topology};

/// What upkeep goes by.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The group as it is published.
    pub topology: &'a Topology,
    /// What all servers have just told.
    pub reports: &'a [Report],
    /// The server that takes the writes.
    pub primary: NodeId,
    /// What is known of the group. No server is touched but its members, and the evicted, which are
    /// only kept from taking writes.
    pub record: &'a Record,
    /// By which accounts servers follow; `None` where there are none.
    pub accounts: Option<&'a Accounts>,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// What servers are to do, in this order.
    pub orders: Vec<Order>,
    /// Servers that cannot follow, and why.
    pub left_out: Vec<(String, String)>,
    /// Servers that follow the primary through another one, and through which.
    pub chained: Vec<(String, String)>,
    /// Servers that are to log in by accounts of their own, and do not yet.
    pub moving: Vec<String>,
}

/// Looks through a group.
#[must_use]
pub fn look(facts: &Facts<'_>) -> Upkeep {
    let mut found = Upkeep::default();
    let head = told_by(facts.reports, facts.primary);
    let (Some(node), Some(head)) = (facts.topology.node(facts.primary), head) else {
        return found;
    };
    for report in facts.reports.iter().filter(|report| report.node != facts.primary) {
        let Some(told) = report.told() else { continue };
        if facts.record.members.contains(&*report.name) {
            replica(facts, (node, head), (report, told), &mut found);
        } else if facts.record.is_evicted(&report.name) && !told.is_read_only() {
            let what = if told.sources.is_empty() { What::Fence } else { What::Close };
            found.orders.push(Order { node: report.node, what });
        }
    }
    let acknowledges = |told: &Told| {
        standing::mends(told, false).is_empty()
            && told.sources.iter().any(|source| source.receiving && is_at(source, node, Some(head)))
    };
    // Waiting for replicas begins when there is one that can be waited for.
    let ready = facts.reports.iter().filter_map(Report::told).any(acknowledges);
    let mut mends = standing::mends(head, true);
    mends.retain(|mend| ready || !mend.name.starts_with("rpl_semi_sync"));
    let settle = |mend: standing::Mend| What::Settle(mend.statement);
    let orders = mends.into_iter().map(|at| Order { node: node.id, what: settle(at) });
    found.orders.extend(orders);
    let rests =
        |event: &&Event| event.state == State::Rests && facts.record.events.contains(&event.name);
    let enable = |event: &Event| Order { node: node.id, what: What::Enable(event.clone()) };
    found.orders.extend(head.events.iter().flatten().filter(rests).map(enable));
    found.moving = moving(facts, (node, head));
    found
}

/// Who logs in by another account than its own, where that is going to change: nobody's does where
/// no other replica would acknowledge meanwhile.
fn moving(facts: &Facts<'_>, (node, head): (&Node, &Told)) -> Vec<String> {
    if !matches!(facts.accounts, Some(Accounts::OwnEach(_))) || head.made.is_none() {
        return Vec::new();
    }
    let members = facts.reports.iter().filter(|at| facts.record.members.contains(&*at.name));
    let follow =
        members.filter_map(|at| Some((at, at.told()?, at.told()?.link_to(node, Some(head))?)));
    let all: Vec<(&Report, &Told, &Source)> = follow.collect();
    if all.len() as u64 <= standing::acknowledgements(head) {
        return Vec::new();
    }
    let moves = |told: &Told, source: &Source| source.user != ackers::own_account(told.server_id());
    let move_yet = all.iter().filter(|(_, told, source)| moves(told, source));
    move_yet.map(|(at, ..)| at.name.to_string()).collect()
}

/// One server beside the primary.
fn replica(
    facts: &Facts<'_>,
    (node, head): (&Node, &Told),
    (report, told): (&Report, &Told),
    found: &mut Upkeep,
) {
    let mut order = |what| found.orders.push(Order { node: report.node, what });
    let asks = standing::asking(told).is_some();
    if let Some(received) = facts.record.rescued.get(&*report.name) {
        return found.orders.extend(rescued(received, (report, told)));
    }
    match told.sources.as_slice() {
        [] if !told.is_read_only() || asks => return order(What::Fence),
        [] => {}
        [source]
            if is_at(source, node, Some(head)) && !source.receiver_stopped && source.applying =>
        {
            // Received from a former primary that came back before it was turned away from it.
            if let Some(errant) = own(told, head, Some(source)).filter(|_| source.receiving) {
                let why = format!("it has transactions of its own: {errant}");
                found.left_out.push((report.name.to_string(), why));
            }
            return well(facts, (node, head), (report, told), found);
        }
        [source] if is_at(source, node, Some(head)) => {
            return match renamed(facts, (node, head), told) {
                Some(what) => order(what),
                None => start(report, told, head, found),
            };
        }
        [source] if !source.receiver_stopped && source.applying => {
            // A chain is somebody's wish, as long as it holds.
            if let Some(through) = chain(facts, (node, head), told) {
                return found.chained.push((report.name.to_string(), through));
            }
        }
        [_] => {}
        [_, _, ..] => return,
    }
    let Some(place) = Place::of(&node.address) else { return };
    // Turned to another source it would forget what it has received and not applied (V6).
    let drained = told.applied.contains(&told.received);
    if !drained && !head.executed.contains(&told.received) {
        if !told.sources.iter().any(|source| source.applying) {
            let received = told.received.subtract(&head.executed);
            let why = format!("it has received what the primary has not: {received}");
            leave_out(report, told, why, found);
        }
        return;
    }
    match own(told, head, None) {
        Some(errant) => {
            let why = format!("it has transactions of its own: {errant}");
            leave_out(report, told, why, found);
        }
        None if !told.sources.is_empty() => {
            found.orders.extend(still(report, told, What::Repoint(place)));
        }
        None => match facts.accounts {
            Some(accounts) => order(What::Follow(place, accounts.of(told, head))),
            None => {
                let why = "there is no account to replicate by: set failover.replication_user";
                found.left_out.push((report.name.to_string(), why.to_owned()));
            }
        },
    }
}

/// What is still to be done by one that does not go by GTID until its relay log is applied.
fn rescued(received: &str, (report, told): (&Report, &Told)) -> Vec<Order> {
    let applies = told.sources.iter().any(|source| source.applying);
    let received = GtidSet::parse(told.flavour, received);
    match received.is_some_and(|all| told.applied.contains(&all)) {
        true => still(report, told, What::ByGtid),
        // Not by GTID it deletes nothing.
        false if !applies => vec![Order { node: report.node, what: What::StartApplier }],
        false => Vec::new(),
    }
}

/// A replica of the primary of which both threads run.
fn well(
    facts: &Facts<'_>,
    (node, head): (&Node, &Told),
    (report, told): (&Report, &Told),
    found: &mut Upkeep,
) {
    let mends = standing::mends(told, false);
    let has_to_rest = mends.is_empty() && is_to_be_renamed(facts, (node, head), told, found);
    let mut order = |what| found.orders.push(Order { node: report.node, what });
    let receiver = mends.iter().any(|mend| mend.name.ends_with("_enabled"));
    mends.into_iter().for_each(|mend| order(What::Settle(mend.statement)));
    if receiver {
        order(What::RestartReceiver);
    }
    if has_to_rest {
        order(What::StopReceiver);
    }
}

/// Whether a replica that follows well is to have an account of its own now: it stops receiving for
/// a moment, and others acknowledge meanwhile.
fn is_to_be_renamed(
    facts: &Facts<'_>,
    (node, head): (&Node, &Told),
    told: &Told,
    found: &Upkeep,
) -> bool {
    let [source] = told.sources.as_slice() else { return false };
    let instead = facts.accounts.and_then(|all| all.instead_of(&source.user, told, head));
    let is_alone = found.orders.iter().all(|order| order.what != What::StopReceiver);
    let keeps_up = source.seconds_behind.is_some_and(|seconds| seconds <= 1);
    let others = others_acknowledge(facts, (node, head), told);
    instead.is_some() && is_alone && keeps_up && source.receiving && others
}

/// The next step by which a replica that has stopped receiving gets an account of its own. Before
/// that it applies what it has received: it may be the only one that has it, and forgets it.
fn renamed(facts: &Facts<'_>, (node, head): (&Node, &Told), told: &Told) -> Option<What> {
    let [source] = told.sources.as_slice() else { return None };
    let is_between = source.receiver_stopped && source.applying && !source.refused;
    let account = facts.accounts?.instead_of(&source.user, told, head).filter(|_| is_between)?;
    if own(told, head, None).is_some() {
        None
    } else if told.applied.contains(&told.received) {
        Some(What::Rename(account))
    } else if others_acknowledge(facts, (node, head), told) {
        Some(What::CatchUp(told.received.to_string()))
    } else {
        None
    }
}

/// Whether as many replicas acknowledge without this one as each commit waits for.
fn others_acknowledge(facts: &Facts<'_>, (node, head): (&Node, &Told), told: &Told) -> bool {
    let others = facts.reports.iter().filter_map(Report::told);
    let others = others.filter(|other| other.server_id() != told.server_id());
    let count = others.filter(|other| ackers::acknowledges(other, (node, head))).count();
    count as u64 >= standing::acknowledgements(head)
}

/// A replica of the primary of which a thread does not run: it was started without them, has tried
/// to connect in vain for too long, or was turned half-way.
fn start(report: &Report, told: &Told, head: &Told, found: &mut Upkeep) {
    let (receives, applies, failed) =
        told.sources.iter().fold((true, true, None), |(receives, applies, failed), source| {
            let failed = failed.or_else(|| source.applier_failed.then_some(&source.error));
            (receives && !source.receiver_stopped, applies && source.applying, failed)
        });
    let refused = told.sources.iter().find(|source| source.refused && source.receiver_stopped);
    let rests = !receives && !applies;
    // MariaDB then deletes what it has received, and gets it anew (V6).
    let forgets = rests && told.flavour == Flavour::MariaDb;
    let replaced = told.applied.contains(&told.received) || head.executed.contains(&told.received);
    let why = if let Some(errant) = own(told, head, None).filter(|_| !receives) {
        format!("it has transactions of its own: {errant}")
    } else if let Some(error) = failed {
        format!("it cannot apply what it receives: {error}")
    } else if let Some(lacking) = refused {
        format!(
            "the primary does not have any more what it lacks, so rebuild it: {}",
            lacking.error
        )
    } else if forgets && !replaced {
        let received = told.received.subtract(&head.executed);
        format!("it has received what the primary has not: {received}")
    } else {
        let orders = [(!applies, What::StartApplier), (!receives, What::StartReceiver)];
        let orders = orders.into_iter().filter(|(missing, _)| *missing);
        found.orders.extend(orders.map(|(_, what)| Order { node: report.node, what }));
        return;
    };
    leave_out(report, told, why, found);
}

/// Names a server that cannot follow. Whatever it lacks, it takes no writes of its own.
fn leave_out(report: &Report, told: &Told, why: String, found: &mut Upkeep) {
    if !told.is_read_only() {
        found.orders.push(Order { node: report.node, what: What::Close });
    }
    found.left_out.push((report.name.to_string(), why));
}

/// Whom a server follows that follows the primary, in however many steps: it is not left behind.
fn chain(facts: &Facts<'_>, (node, head): (&Node, &Told), told: &Told) -> Option<String> {
    let mut at = told;
    let mut first = None;
    for _ in facts.reports {
        let source = at.sources.first()?;
        if is_at(source, node, Some(head)) {
            return first;
        }
        let is_it = |report: &&Report| {
            let at = facts.topology.node(report.node);
            report.told().is_some_and(|told| at.is_some_and(|at| is_at(source, at, Some(told))))
        };
        let next = facts.reports.iter().find(is_it)?;
        first.get_or_insert_with(|| next.name.to_string());
        at = next.told()?;
    }
    None
}

/// What a server has that the primary has not; `None` for nothing. By originating server: numbers
/// alone would take another server's transactions for its own (V10). The primary may have gone on
/// since it was asked: what the server has from its `source` does not count.
#[must_use]
pub fn own(told: &Told, head: &Told, source: Option<&Source>) -> Option<Own> {
    let (ids, uuid) = match source {
        Some(source) => (vec![source.server_id], source.server_uuid.as_str()),
        None => (Vec::new(), ""),
    };
    match told.flavour {
        Flavour::MariaDb => {
            let left = told.history.beyond(&head.history, &ids);
            (!left.is_empty()).then_some(Own::MariaDb(left))
        }
        Flavour::MySql => {
            let left = told.executed.subtract(&head.executed).without_source(uuid);
            (!left.is_empty()).then_some(Own::MySql(left))
        }
    }
}

/// Transactions that only one server has, as its family knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// The last one of each domain and server that wrote any.
    MariaDb(MariaDbState),
    /// All of them.
    MySql(GtidSet),
}

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MariaDb(last) => last.fmt(f),
            Self::MySql(all) => all.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::Secret;
    use crate::failover::fixture::{mariadb_at, report};
    use crate::failover::report::Made;
    use crate::topology::fixture::node;

    fn told(server_id: u32, state: &str, variables: &[(&str, &str)]) -> Told {
        let id = ("server_id".to_owned(), server_id.to_string());
        let given = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Told { variables: given.chain([id]).collect(), ..mariadb_at(state) }
    }

    fn from(server: u32) -> Source {
        Source {
            host: format!("db{server}"),
            port: 3306,
            server_id: server,
            by_gtid: true,
            receiving: true,
            applying: true,
            ..Source::default()
        }
    }

    const CLOSED: &[(&str, &str)] = &[("read_only", "ON"), ("rpl_semi_sync_slave_enabled", "ON")];

    /// What is to be done where db1 is the primary, and db2, db3 ... say this.
    fn found(primary: &Told, others: &[Told]) -> (Vec<String>, Vec<(String, String)>) {
        let all = [primary].into_iter().chain(others);
        let reports: Vec<Report> =
            (0u16..).zip(all).map(|(at, told)| report(at, told.clone())).collect();
        let node = |report: &Report| node(report.node.0, &report.name);
        let topology =
            Topology { nodes: reports.iter().map(node).collect(), ..Topology::empty("main") };
        let password = Secret::new("secret".to_owned());
        let accounts = Accounts::OwnEach(password);
        let record = Record {
            members: reports.iter().map(|report| report.name.to_string()).collect(),
            events: ["`app`.`tick`".to_owned()].into(),
            ..Record::default()
        };
        let found = look(&Facts {
            topology: &topology,
            reports: &reports,
            primary: NodeId(0),
            record: &record,
            accounts: Some(&accounts),
        });
        let say = |at: &Order| format!("db{} {}", at.node.0 + 1, at.what.describe());
        (found.orders.iter().map(say).collect(), found.left_out)
    }

    #[test]
    fn an_old_primary_is_closed_before_anything_else_and_follows_after_that() {
        let primary = told(1, "0-2-8,0-1-9", &[]);
        let open = [("read_only", "OFF"), ("rpl_semi_sync_master_enabled", "ON")];
        let back = found(&primary, &[told(2, "0-2-8", &open)]);
        assert_eq!(back.0, ["db2 end its clients' connections and take no writes"]);
        let asks = [("read_only", "ON"), ("rpl_semi_sync_master_enabled", "ON")];
        assert_eq!(found(&primary, &[told(2, "0-2-8", &asks)]).0, back.0);
        let closed = found(&primary, &[told(2, "0-2-8", CLOSED)]);
        assert_eq!(closed, (vec!["db2 replicate from db1:3306".to_owned()], Vec::new()));
    }

    #[test]
    fn events_that_ran_on_the_last_primary_run_again_and_no_others() {
        let event = |name: &str, status: &str| {
            Event::of(&["app", name, "root@localhost", status].map(str::to_owned)).expect("one")
        };
        let events = vec![
            event("tick", "SLAVESIDE_DISABLED"),
            event("off", "SLAVESIDE_DISABLED"),
            event("runs", "ENABLED"),
        ];
        let primary = Told { events: Some(events), ..told(1, "0-1-9", &[]) };
        assert_eq!(found(&primary, &[]).0, ["db1 let the event `app`.`tick` run"]);
        let disabled = Told { events: Some(vec![event("tick", "DISABLED")]), ..primary };
        assert_eq!(found(&disabled, &[]).0, [] as [&str; 0]);
    }

    #[test]
    fn who_has_transactions_of_its_own_is_left_as_it_is() {
        // By number alone the primary would have all of it.
        let (orders, left_out) = found(&told(1, "0-2-8,0-1-12", &[]), &[told(2, "0-2-9", CLOSED)]);
        assert!(orders.is_empty(), "{orders:?}");
        let why = "it has transactions of its own: 0-2-9";
        assert_eq!(left_out, [("db2".to_owned(), why.to_owned())]);
    }

    #[test]
    fn who_cannot_follow_takes_no_writes_of_its_own() {
        let open = [("read_only", "OFF"), ("rpl_semi_sync_slave_enabled", "ON")];
        let strange = Told { sources: vec![from(3)], ..told(2, "0-2-9", &open) };
        let (orders, left_out) = found(&told(1, "0-1-12", &[]), &[strange]);
        assert_eq!(orders, ["db2 take no writes"]);
        assert!(left_out[0].1.ends_with("of its own: 0-2-9"), "{left_out:?}");
    }

    #[test]
    fn a_replica_of_a_former_primary_is_turned_when_it_has_applied_all() {
        let primary = told(1, "0-3-8,0-1-9", &[]);
        let mut lost = Told { sources: vec![from(3)], ..told(2, "0-3-8", CLOSED) };
        let turned = ["db2 receive no more", "db2 replicate from db1:3306"];
        assert_eq!(found(&primary, &[lost.clone()]).0, turned);
        // What it has received and the primary has not would be forgotten.
        lost.received = GtidSet::parse_mariadb("0-3-11").expect("a position");
        assert_eq!(found(&primary, &[lost.clone()]), (Vec::new(), Vec::new()));
        lost.sources[0].applying = false;
        let (orders, left_out) = found(&primary, &[lost]);
        assert!(orders.is_empty() && left_out[0].1.contains("received what"), "{left_out:?}");
    }

    #[test]
    fn a_replica_that_has_taken_from_a_former_primary_what_nobody_else_has_is_named() {
        // What the primary has written since it was asked is none of that.
        let ahead = Told { sources: vec![from(1)], ..told(2, "0-3-8,0-1-10", CLOSED) };
        assert_eq!(found(&told(1, "0-3-8,0-1-9", &[]), &[ahead]).1, []);
        let strange = Told { sources: vec![from(1)], ..told(2, "0-3-9,0-1-10", CLOSED) };
        let left_out = found(&told(1, "0-3-8,0-1-9", &[]), &[strange]).1;
        assert!(left_out[0].1.ends_with("of its own: 0-3-9"), "{left_out:?}");
    }

    #[test]
    fn a_replica_that_has_stopped_follows_again() {
        let primary = told(1, "0-1-9", &[]);
        let stopped = Source { receiver_stopped: true, applying: false, ..from(1) };
        let mut half = Told { sources: vec![stopped], ..told(2, "0-1-5", CLOSED) };
        half.received = GtidSet::parse_mariadb("0-1-7").expect("a position");
        let [apply, receive] = ["db2 apply what it has received", "db2 receive again"];
        assert_eq!(found(&primary, &[half.clone()]).0, [apply, receive]);
        half.sources[0].applying = true;
        assert_eq!(found(&primary, &[half.clone()]).0, [receive]);
        half.sources[0] = Source { applying: false, ..from(1) };
        assert_eq!(found(&primary, &[half.clone()]).0, [apply]);
        // MariaDB would delete what it has received, and the primary has not.
        half.sources[0].receiver_stopped = true;
        half.received = GtidSet::parse_mariadb("0-1-11").expect("a position");
        let (orders, left_out) = found(&primary, &[half.clone()]);
        assert!(orders.is_empty() && left_out[0].1.ends_with("has not: 0-1-11"), "{left_out:?}");
        // Who cannot apply cannot after a start either.
        half.sources[0] = Source { applying: false, applier_failed: true, ..from(1) };
        "1062: duplicate".clone_into(&mut half.sources[0].error);
        let (orders, left_out) = found(&primary, &[half]);
        assert!(orders.is_empty() && left_out[0].1.ends_with("1062: duplicate"), "{left_out:?}");
        // Nor does who lacks what is nowhere any more get it by asking again.
        let late = Source { receiver_stopped: true, refused: true, ..from(1) };
        let late = Told { sources: vec![late], ..told(2, "0-1-5", CLOSED) };
        let (orders, left_out) = found(&primary, &[late]);
        assert!(orders.is_empty() && left_out[0].1.contains("rebuild it"), "{left_out:?}");
        let strange = Source { receiver_stopped: true, ..from(1) };
        let strange = Told { sources: vec![strange], ..told(2, "0-1-9,0-2-10", CLOSED) };
        let (orders, left_out) = found(&primary, &[strange]);
        assert!(orders.is_empty() && left_out[0].1.ends_with("0-2-10"), "{left_out:?}");
    }

    #[test]
    fn a_replica_gets_an_account_of_its_own_while_others_acknowledge() {
        let made = Made { open: [2, 3].map(ackers::own_account).into(), locked: [].into() };
        let primary = Told { made: Some(made), ..told(1, "0-1-9", &[]) };
        let shared = || Source { user: "repl".to_owned(), seconds_behind: Some(0), ..from(1) };
        let with = |id, source| Told { sources: vec![source], ..told(id, "0-1-9", CLOSED) };
        let (first, second) = (with(2, shared()), with(3, shared()));
        let both = found(&primary, &[first.clone(), second.clone()]).0;
        assert_eq!(both, ["db2 receive no more"], "one after the other");
        assert_eq!(found(&primary, std::slice::from_ref(&first)).0, [] as [&str; 0]);
        // Before it forgets what it has received it applies that.
        let stopped = Source { receiving: false, receiver_stopped: true, ..shared() };
        let mut rests = with(2, stopped);
        rests.received = GtidSet::parse_mariadb("0-1-10").expect("a position");
        let next = |rests: &Told| found(&primary, &[rests.clone(), second.clone()]).0;
        assert_eq!(next(&rests), ["db2 execute all up to 0-1-10"]);
        rests.received = rests.applied.clone();
        assert_eq!(next(&rests), ["db2 replicate by the account pointsman_replica_2"]);
        let own = Source { user: ackers::own_account(2), ..shared() };
        let moved = found(&primary, &[with(2, own), second]).0;
        assert_eq!(moved, ["db3 receive no more"]);
    }

    #[test]
    fn a_chain_is_somebody_s_wish() {
        let middle = Told { sources: vec![from(1)], ..told(2, "0-1-9", CLOSED) };
        let end = Told { sources: vec![from(2)], ..told(3, "0-1-9", CLOSED) };
        let group = |middle: &Told, end: &Told| {
            found(&told(1, "0-1-9", &[]), &[middle.clone(), end.clone()])
        };
        assert_eq!(group(&middle, &end), (Vec::new(), Vec::new()));
        // Not one that does not lead to the primary, or in which nothing moves.
        let round = Told { sources: vec![from(3)], ..middle.clone() };
        let turned = ["receive no more", "replicate from db1:3306"];
        let both = ["db2", "db3"].map(|name| turned.map(|what| format!("{name} {what}"))).concat();
        assert_eq!(group(&round, &end).0, both);
        let still = Source { receiver_stopped: true, ..from(2) };
        let end = Told { sources: vec![still], ..end };
        assert_eq!(group(&middle, &end).0, ["db3 replicate from db1:3306"]);
    }

    #[test]
    fn commits_wait_for_replicas_as_soon_as_there_is_one_to_wait_for() {
        let waits = [("rpl_semi_sync_master_enabled", "OFF")];
        let primary = told(1, "0-1-9", &waits);
        let mute = [("read_only", "ON"), ("rpl_semi_sync_slave_enabled", "OFF")];
        let replica = Told { sources: vec![from(1)], ..told(2, "0-1-9", &mute) };
        let first = found(&primary, &[replica]).0;
        let switch = "db2 SET GLOBAL rpl_semi_sync_slave_enabled = ON";
        assert_eq!(first, [switch, "db2 receive anew"]);
        let replica = Told { sources: vec![from(1)], ..told(2, "0-1-9", CLOSED) };
        let then = found(&primary, &[replica]).0;
        assert_eq!(then, ["db1 SET GLOBAL rpl_semi_sync_master_enabled = ON"]);
    }
}
