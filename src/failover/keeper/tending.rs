//! What a keeper does while the primary is well: it looks at everything else.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{DENIED_FOR, Keeper, LOOK_EVERY, Settings, THINK_AGAIN, WELL_TO_THE, password_file};
use crate::failover::ackers::{self, Accounts};
use crate::failover::event::{Event, State};
use crate::failover::execute::Failed;
use crate::failover::order::{Order, What};
use crate::failover::record::{Operation, Record};
use crate::failover::report::{Report, Told, told_by};
use crate::failover::standing::{self, Check};
use crate::failover::surgeon::Surgeon;
use crate::failover::upkeep::{self, Upkeep};
use crate::topology::gtid::GtidSet;
use crate::topology::{Condition, Flavour, Node, Topology};

/// How long a primary may have no room for what is committed before it is replaced.
const NO_ROOM_FOR: Duration = Duration::from_secs(5);
/// How long after it was told to take no writes, or to receive no more, and did not answer, a
/// server may still do so, seconds.
const OBEYS_WITHIN: u64 = 600;

impl<S: Surgeon> Keeper<S> {
    /// The primary is well: looks at everything else.
    pub(super) async fn look_after(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        node: &Node,
    ) {
        self.look_at = self.surgeon.now() + LOOK_EVERY;
        let reports = self.ask_all(settings, topology).await;
        let Some(head) = told_by(&reports, node.id) else { return };
        if !head.sources.is_empty() {
            return self.yield_to(&reports, topology, node).await;
        }
        // Between two probes, which would have told it: what it says now is no change of what it
        // said before, but the settings of another life.
        if self.vouched.is_none_or(|at| head.may_have_started_within(self.surgeon.now() - at)) {
            (self.vouched, self.look_at) = (None, self.surgeon.now());
            return self.say(format!("{} may have been started anew", node.name));
        }
        if head.is_read_only() {
            return self.find_closed(node, head).await;
        }
        if self.is_given_up_for_room(settings, topology, (node, head), &reports).await {
            return;
        }
        let checks = standing::check(&reports, Some(node.id));
        let mode = standing::mode(&checks);
        self.kept.standings = standing::Mode::ALL.map(|at| (at.word(), at == mode)).to_vec();
        let lossless = self.loses_nothing(&checks, &reports, head);
        if !self.note_members(&reports, topology, node, lossless).await {
            return;
        }
        self.note_look();
        if self.record.maintenance {
            return self.leave_alone(settings, topology, (node, head), &reports).await;
        }
        if self.keeps_few(settings, topology, (node, head), &reports).await {
            return;
        }
        self.tend(settings, topology, node, &reports).await;
    }

    /// Has everybody do what is to be done.
    async fn tend(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        node: &Node,
        reports: &[Report],
    ) {
        let told_at = self.surgeon.now();
        let accounts = self.account(settings, topology, (node, reports)).await;
        if self.surgeon.now() - told_at > THINK_AGAIN {
            // Servers may have come back and received since.
            self.look_at = self.surgeon.now();
            return;
        }
        let facts = upkeep::Facts {
            topology,
            reports,
            primary: node.id,
            record: &self.record,
            accounts: accounts.as_ref(),
        };
        let mut found = upkeep::look(&facts);
        self.let_others_look(&mut found.orders, reports);
        let more = self.more_of(node, &found);
        found.left_out.iter().for_each(|(name, why)| self.say(format!("{name} stays out: {why}")));
        if !found.orders.is_empty() {
            if !found.moving.is_empty() {
                self.say(format!("{} takes the writes{more}", node.name));
            }
            let again = self.tended == found.orders;
            self.tended.clone_from(&found.orders);
            if !self.note_deletions(&found.orders, reports).await {
                return;
            }
            if self.perform(found.orders, settings, topology, reports).await && !again {
                // What was changed shows what is still missing.
                self.look_at = self.surgeon.now();
            }
        } else if found.left_out.is_empty() {
            self.say(format!("{} takes the writes{more}", node.name));
        }
    }

    /// What else is to be said of a group whose primary takes the writes.
    fn more_of(&self, node: &Node, found: &Upkeep) -> String {
        let through = found.chained.iter().map(|(name, at)| format!("; {name} follows {at}"));
        let moving = found.moving.iter();
        let moving = moving.map(|name| format!("; {name} is to have an account of its own"));
        through.chain(moving).collect::<String>() + &self.away(node)
    }

    /// The primary takes no writes: it is opened, unless somebody else has closed it.
    async fn find_closed(&mut self, node: &Node, head: &Told) {
        // One that was started anew must not write before it is asked to.
        let is_anew = head.may_have_started_within(self.since_well());
        let may_be_ours = is_anew || self.may_close_yet(&node.name);
        if self.record.closed || (may_be_ours && !self.record.maintenance) {
            return self.reopen(&node.name).await;
        }
        self.say(format!("{} has been made read-only", node.name));
    }

    /// Whether the primary cannot write what is committed: unless there is room soon, it is
    /// replaced. None of that was acknowledged, nor is it afterwards, when no replica receives from
    /// it any more: it is as good as frozen.
    async fn is_given_up_for_room(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        (node, head): (&Node, &Told),
        reports: &[Report],
    ) -> bool {
        if !head.has_no_room {
            self.full_since = None;
            return false;
        }
        let now = self.surgeon.now();
        let since = *self.full_since.get_or_insert(now);
        if now - since < NO_ROOM_FOR {
            self.say(format!("{} has no room on its disk: commits wait there", node.name));
        } else {
            let why = "there is no room on its disk for what is committed";
            if self.begins(settings, topology, node, reports, why).await {
                self.look_at = self.surgeon.now();
            }
        }
        true
    }

    /// The primary, which is read-only, is to take writes again.
    pub(super) async fn reopen(&mut self, name: &str) {
        let operation = Some(Operation::reopening(name));
        self.write_down(Record { operation, ..self.record.clone() }).await;
    }

    /// The accounts by which servers that come back follow: the operator's, or those that are made
    /// on the primary.
    pub(super) async fn account(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        (node, reports): (&Node, &[Report]),
    ) -> Option<Accounts> {
        let accounts = match self.stated_or_own(settings).await {
            Ok(accounts) => accounts,
            Err(why) => {
                self.say(why);
                return None;
            }
        };
        if self.admitted.0 != self.record.epoch {
            self.admitted = (self.record.epoch, BTreeSet::new());
        }
        let is_member = |report: &&Report| self.record.members.contains(&*report.name);
        let servers = reports.iter().filter(is_member).filter_map(Report::told);
        let mut wanted = accounts.made_for(servers);
        wanted.retain(|account| !self.admitted.1.contains(&account.user));
        // A commit there would wait for an acknowledgement by one who needs the account to follow,
        // and on MySQL all logins for that commit (9.7, measured). An earlier primary has made it,
        // then, and all have it from there.
        let waits = told_by(reports, node.id)
            .is_some_and(|told| standing::asking(told).is_some() && !standing::acknowledging(told));
        if wanted.is_empty() || waits || self.surgeon.now() < self.admit_at {
            return Some(accounts);
        }
        let admit = |account| Order { node: node.id, what: What::Admit(account) };
        let orders: Vec<Order> = wanted.iter().cloned().map(admit).collect();
        if self.perform(orders.clone(), settings, topology, reports).await {
            self.admitted.1.extend(wanted.into_iter().map(|account| account.user));
        } else if orders.iter().any(|admit| self.is_denied(admit)) {
            return None;
        } else {
            // Nobody has acknowledged it after all.
            self.admit_at = self.surgeon.now() + DENIED_FOR;
        }
        Some(accounts)
    }

    /// Those accounts, whether they were made yet or not.
    pub(super) async fn stated_or_own(&self, settings: &Settings) -> Result<Accounts, String> {
        if let Some(stated) = &settings.group.failover.replication {
            return Ok(Accounts::Shared(stated.clone()));
        }
        let file = password_file(&settings.group.name);
        let password = self.surgeon.password(file).await;
        let password = password.map_err(|error| error.to_string())?;
        Ok(Accounts::OwnEach(password))
    }

    /// Whether a failover would lose nothing: no commit is acknowledged without a replica, and what
    /// was acknowledged before that was so has reached one meanwhile.
    pub(super) fn loses_nothing(
        &mut self,
        checks: &[Check],
        reports: &[Report],
        head: &Told,
    ) -> bool {
        if !standing::is_lossless(checks) {
            self.unguarded = None;
            return false;
        }
        if self.record.lossless {
            // Should they not wait for a while, this would be too little.
            self.unguarded = None;
            return true;
        }
        let before = &*self.unguarded.get_or_insert_with(|| head.executed.clone());
        let mut others = reports.iter().filter_map(Report::told);
        others.any(|told| told.follows(head) && told.received.contains(before))
    }

    /// Notes who belongs to the group, and who may acknowledge: before anybody is let to.
    pub(super) async fn note_members(
        &mut self,
        reports: &[Report],
        topology: &Topology,
        node: &Node,
        lossless: bool,
    ) -> bool {
        // Whoever has opened it: it takes writes.
        let mut record = Record { lossless, closed: false, ..self.record.clone() };
        let now = self.surgeon.seconds();
        if now.saturating_sub(record.well_at) > WELL_TO_THE {
            record.well_at = now;
        }
        let listed = |name: &String| {
            let at = topology.named(name);
            at.is_some_and(|node| node.condition != Condition::Excluded)
        };
        record.members.retain(listed);
        record.members.insert(node.name.to_string());
        let follow = reports
            .iter()
            .filter(|at| at.told().is_some_and(|told| !told.sources.is_empty()))
            .map(|at| at.name.to_string())
            .filter(|name| !self.record.is_evicted(name));
        record.members.extend(follow);
        if self.note_forgotten(&mut record, reports, node) {
            self.look_at = self.look_at.min(self.surgeon.now() + THINK_AGAIN);
        }
        let settings = self.settings.load();
        let stated = settings.group.failover.replication.as_ref().map(|stated| &*stated.user);
        note_accounts(&mut record, reports, told_by(reports, node.id), stated);
        // One that says nothing may have to be told still, and so may one that stops late.
        let receives = |told: &Told| !told.sources.iter().any(|source| source.receiver_stopped);
        for report in reports.iter().filter(|at| at.told().is_some_and(receives)) {
            if !self.may_stop_yet(&report.name) {
                record.cut_off.remove(&*report.name);
            }
        }
        // They are about to receive again, by GTID.
        for report in reports.iter().filter(|at| at.told().is_some_and(Told::goes_by_gtid)) {
            record.rescued.remove(&*report.name);
        }
        self.complete(&mut record, reports, told_by(reports, node.id));
        if let Some(events) = told_by(reports, node.id).and_then(|head| head.events.as_ref()) {
            record.events = ran(events, &record.events);
        }
        record == self.record || self.write_down(record).await
    }

    /// Where a replica may have deleted what it had acknowledged, whoever takes the primary's place
    /// must have all that the primary has now: the replica has it again once it has fetched it.
    /// Whether that is to be looked at again soon: the primary may have been asked before the
    /// replica was started.
    fn note_forgotten(&self, record: &mut Record, reports: &[Report], node: &Node) -> bool {
        let Some(head) = told_by(reports, node.id) else { return false };
        let since_asked = self.surgeon.now() - self.asked_at;
        let (mut forgets, mut is_soon) = (false, false);
        for report in reports.iter().filter(|at| at.node != node.id) {
            let Some(told) = report.told() else { continue };
            // Of whom another pointsman starts nobody else hears: it is about to forget.
            let rests = self.sees_servers() && told.rests();
            if !rests && !told.may_have_forgotten(record.lives.get(&*report.name)) {
                continue;
            }
            // One that does not follow the primary has acknowledged nothing of it in a former life:
            // it would follow still.
            if told.may_follow(head) {
                forgets = true;
                if told.may_have_started_within(since_asked) {
                    is_soon = true;
                    continue;
                }
            }
            record.lives.extend(told.started.map(|at| (report.name.to_string(), at)));
        }
        if forgets {
            let mut floor = GtidSet::parse(head.flavour, &record.floor).unwrap_or_default();
            floor.union(&head.executed);
            record.floor = floor.to_string();
        }
        is_soon
    }

    /// Notes who may be about to delete what it has received and not applied: the primary may die
    /// before it has sent that again.
    pub(super) async fn note_deletions(&mut self, orders: &[Order], reports: &[Report]) -> bool {
        let mut record = self.record.clone();
        for order in orders.iter().filter(|order| order.what.may_delete()) {
            let report = reports.iter().find(|report| report.node == order.node);
            let deletes = |told: &Told| told.flavour == Flavour::MariaDb;
            if let Some(report) = report.filter(|report| report.told().is_some_and(deletes)) {
                record.lives.remove(&*report.name);
            }
        }
        record == self.record || self.write_down(record).await
    }

    /// Notes who has not answered when it was told to take no writes, or to receive no more.
    pub(super) async fn note_unanswered(&mut self, failed: &[Failed], topology: &Topology) {
        let names = |which: fn(&What) -> bool| -> Vec<String> {
            let silent = failed.iter().filter(|at| !at.denied && which(&at.order.what));
            let nodes = silent.filter_map(|at| topology.node(at.order.node));
            nodes.map(|node| node.name.to_string()).collect()
        };
        let told_at = self.surgeon.now();
        let stops = names(|what| *what == What::StopReceiver);
        self.stopping.extend(stops.into_iter().map(|name| (name, told_at)));
        let names = names(|what| matches!(what, What::Close | What::Fence));
        if names.is_empty() {
            return;
        }
        let now = self.surgeon.seconds();
        let mut record = self.record.clone();
        record.unanswered.retain(|_, at| now.saturating_sub(*at) < OBEYS_WITHIN);
        record.unanswered.extend(names.into_iter().map(|name| (name, now)));
        self.write_down(record).await;
    }

    /// Whether this server may stop receiving yet because it was told so a while ago.
    fn may_stop_yet(&self, name: &str) -> bool {
        let late = Duration::from_secs(OBEYS_WITHIN);
        self.stopping.get(name).is_some_and(|at| self.surgeon.now() - *at < late)
    }

    /// Whether this server may take no writes because it was told so a while ago, when others were
    /// to take them.
    fn may_close_yet(&self, name: &str) -> bool {
        let now = self.surgeon.seconds();
        let told_at = self.record.unanswered.get(name);
        told_at.is_some_and(|at| now.saturating_sub(*at) < OBEYS_WITHIN)
    }
}

/// Notes by which accounts servers may log in at the primary: before any is told to. Whoever may,
/// though it was evicted, is a member again.
fn note_accounts(
    record: &mut Record,
    reports: &[Report],
    head: Option<&Told>,
    stated: Option<&str>,
) {
    let made = head.and_then(|head| head.made.as_ref());
    for report in reports {
        if let Some(told) = report.told().filter(|told| told.server_id() != 0) {
            let users = ackers::accounts_of(told, made, stated);
            record.accounts.insert(report.name.to_string(), users);
        }
    }
    let may = |users: &BTreeSet<String>| made.is_none_or(|made| !users.is_disjoint(&made.open));
    let back = record.locked.iter().filter(|(_, users)| may(users));
    let back: Vec<String> = back.map(|(name, _)| name.clone()).collect();
    record.members.extend(back);
}

/// The events that run on a primary, and those which ran on the one before and still rest here.
fn ran(events: &[Event], before: &BTreeSet<String>) -> BTreeSet<String> {
    let runs = |event: &&Event| match event.state {
        State::Runs => true,
        State::Rests => before.contains(&event.name),
        State::Disabled => false,
    };
    events.iter().filter(runs).map(|event| event.name.clone()).collect()
}
