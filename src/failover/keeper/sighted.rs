//! A keeper among others with whom it agrees by the servers themselves: it has a record of its own,
//! and sees from what a majority of the servers says what others have done.
//!
//! What another was about to do nobody has told it. So a change of the primary ends with the
//! leadership by which it was begun, and who acts next begins with what the servers say: every
//! configured one counts as one that may have acknowledged, and one that follows nobody may be an
//! heir that was not opened any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::acknowledged::has_lost;
use super::company::{is_the_same, standings};
use super::{Keeper, Keeping, LOOK_EVERY, Settings};
use crate::cluster::desk::{Stance, View};
use crate::cluster::tally::{Sight, majority};
use crate::failover::order::Order;
use crate::failover::plan::rescue;
use crate::failover::record::Record;
use crate::failover::report::{Report, Told, told_by};
use crate::failover::standing;
use crate::failover::surgeon::Surgeon;
use crate::failover::verdict::{self, Return};
use crate::health::assemble::Appointment;
use crate::topology::gtid::GtidSet;
use crate::topology::{Condition, Node, Topology};

/// How long a replica that rests is left so: until the others, who look as often as this keeper and
/// may have to wait for a silent server, have looked twice.
const OTHERS_LOOK: Duration = Duration::from_secs(8);

impl<S: Surgeon> Keeper<S> {
    /// Whether the servers are what it agrees by with others.
    pub(super) fn sees_servers(&self) -> bool {
        self.company.as_ref().is_some_and(|company| company.sees_servers())
    }

    /// Whether this keeper is the one that acts. Where it is not, it goes by what the servers say.
    pub(super) async fn acts_by_sight(
        &mut self,
        settings: &Settings,
        view: &View,
        took_over: bool,
    ) -> bool {
        let sight = view.sight.clone().unwrap_or_default();
        if took_over && !self.inherit(settings, &sight).await {
            // It has not begun, then.
            if let Some(company) = self.company.as_mut() {
                company.number = None;
            }
            return false;
        }
        let Some(company) = &self.company else { return true };
        if company.number.is_some() {
            return true;
        }
        let leader = company.leader();
        self.stand_aside(&format!("{leader} is the keeper now"));
        self.watch(settings, &sight, &leader).await;
        false
    }

    /// It has not heard from a majority, or not kept the group, for a while: what was so before may
    /// not be so any more.
    pub(super) fn lose_sight(&mut self) {
        if self.sees_servers() {
            (self.record.lossless, self.unguarded) = (false, None);
            self.doubt();
            self.look_at = self.surgeon.now();
        }
    }

    /// Begins to act: whatever was under way was another's, or is that of a time when another may
    /// have acted since.
    async fn inherit(&mut self, settings: &Settings, sight: &Sight) -> bool {
        self.start_afresh();
        self.doubt();
        self.stand_aside("another may have acted since: what was under way is looked at anew");
        // The first one is adopted.
        let seen = sight.primary.clone().filter(|_| self.record.primary.is_some());
        let mut record = self.following(settings, seen, sight);
        // Who acted before may have closed it, and not have come to open another one; or an
        // operator has, who works on the group.
        let is_closed = record.primary.is_some() && sight.primary.is_none();
        record.closed = is_closed && (record.closed || !record.maintenance);
        // Whether they receive by GTID again, and have more by now, another has seen to.
        record.rescued.clear();
        // It may have told servers to take no writes, too, that have not come to do so yet.
        if record.primary.is_some() {
            let now = self.surgeon.seconds();
            record.unanswered.extend(configured(settings).map(|name| (name, now)));
        }
        record == self.record || self.write_down(record).await
    }

    /// The record, where this server is the primary now, if one is seen to be.
    fn following(&mut self, settings: &Settings, seen: Option<String>, sight: &Sight) -> Record {
        let mut record = Record { operation: None, ..self.record.clone() };
        if seen.is_some() && seen != record.primary {
            let topology = self.health.cell.load();
            let former = record.primary.as_ref().and_then(|former| topology.named(former));
            // Of one that is well it has taken over by an operator's word.
            if former.is_some_and(|former| former.condition == Condition::Down) {
                record.failed_over_at = Some(self.surgeon.seconds());
            }
            record.epoch = record.epoch.saturating_add(1);
            (record.primary, record.closed) = (seen, false);
            (record.lossless, record.floor) = (false, String::new());
            record.rescued.clear();
            // Nobody has locked those out there, as far as is known.
            record.members.extend(record.locked.keys().cloned());
            self.unguarded = None;
            // It has not been started anew since.
            self.well_at = sight.risen.then(|| self.surgeon.now());
        }
        want_what_was_rescued(&mut record);
        record.members.extend(configured(settings));
        record
    }

    /// Another acts, or nobody: statements go where the servers say.
    async fn watch(&mut self, settings: &Settings, sight: &Sight, leader: &str) {
        // The first one is found by who acts: only that one knows that it was not started just now.
        let is_known = self.record.primary.is_some() || sight.judged.is_some();
        let seen = sight.primary.clone().filter(|_| is_known);
        let is_other = seen.is_some() && seen != self.record.primary;
        let maintenance = sight.rests.unwrap_or(self.record.maintenance);
        // What nobody says any more may have been otherwise meanwhile.
        if is_other || self.record.operation.is_some() || sight.primary.is_none() {
            self.doubt();
            self.look_at = self.surgeon.now();
        }
        let record = Record { maintenance, ..self.following(settings, seen, sight) };
        if record != self.record && !self.write_down(record).await {
            return;
        }
        self.appoint().await;
        self.tell_others().await;
        let topology = self.health.cell.load();
        let name = self.record.primary.clone();
        let node = name.as_ref().and_then(|name| topology.named(name));
        let Some(node) = node else {
            return self.say(format!("{leader} is the keeper; no primary has been found yet"));
        };
        if node.condition == Condition::Down
            || self.vouched.is_some_and(|at| !is_the_same(node, at))
        {
            self.doubt();
        }
        // It is the life of it that the one who acts has judged.
        if self.vouched.is_none() && sight.primary == name {
            self.vouched = sight.judged.filter(|at| is_the_same(node, *at));
        }
        self.note_well(node);
        if self.vouched.is_none() {
            let doubt = format!("it has not said yet that {} has all that it had", node.name);
            return self.say(format!("{leader} is the keeper; {doubt}"));
        }
        self.say(format!("{leader} is the keeper"));
        if self.surgeon.now() >= self.look_at {
            self.look_on(settings, &topology, node).await;
        }
    }

    /// Notes what must be known of a primary before it fails, as the one who acts does.
    async fn look_on(&mut self, settings: &Settings, topology: &Topology, node: &Node) {
        self.look_at = self.surgeon.now() + LOOK_EVERY;
        let reports = self.ask_all(settings, topology).await;
        let Some(head) = told_by(&reports, node.id) else { return };
        if !head.sources.is_empty() || head.is_read_only() {
            return;
        }
        if self.vouched.is_none_or(|at| head.may_have_started_within(self.surgeon.now() - at)) {
            return self.doubt();
        }
        let checks = standing::check(&reports, Some(node.id));
        let mode = standing::mode(&checks);
        self.kept.standings = standing::Mode::ALL.map(|at| (at.word(), at == mode)).to_vec();
        let lossless = self.loses_nothing(&checks, &reports, head);
        self.note_members(&reports, topology, node, lossless).await;
    }

    /// Adds to a record what its successor could not know: that any of the servers may have
    /// acknowledged, what the primary began with, and who may have been told by another to apply
    /// what it has.
    pub(super) fn complete(
        &mut self,
        record: &mut Record,
        reports: &[Report],
        head: Option<&Told>,
    ) {
        let now = self.surgeon.now();
        let company = self.company.as_mut().filter(|company| company.sees_servers());
        let Some(company) = company else { return };
        let rest = reports.iter().filter(|at| at.told().is_some_and(Told::rests));
        let since = |at: &Report| *company.resting.get(&*at.name).unwrap_or(&now);
        let resting: BTreeMap<_, _> = rest.map(|at| (at.name.to_string(), since(at))).collect();
        company.resting = resting;
        record.members.extend(configured(&self.settings.load()));
        if let Some(head) = head {
            let mut floor = GtidSet::parse(head.flavour, &record.floor).unwrap_or_default();
            floor.union(&head.received_from_others());
            let may_be = |at: &&Report| at.told().is_some_and(Told::may_be_rescued);
            for report in reports.iter().filter(may_be) {
                let noted = record.rescued.entry(report.name.to_string()).or_default();
                // It goes on from what is in its tables; the primary has the rest.
                if noted.is_empty() {
                    floor.union(&head.executed);
                }
            }
            record.floor = floor.to_string();
        }
    }

    /// Leaves out what has a replica that rests delete what it has received and not applied, until
    /// others have seen that it rests, too: who did not tell it could not know.
    pub(super) fn let_others_look(&self, orders: &mut Vec<Order>, reports: &[Report]) {
        let now = self.surgeon.now();
        let Some(company) = self.company.as_ref() else { return };
        let is_early = |at: &&Report| {
            let since = company.resting.get(&*at.name);
            since.is_some_and(|since| now - *since < OTHERS_LOOK)
        };
        let early: Vec<_> = reports.iter().filter(is_early).map(|at| at.node).collect();
        orders.retain(|order| !order.what.may_delete() || !early.contains(&order.node));
    }

    /// What has become of a primary that answers again.
    pub(super) fn returned(&self, (node, head): (&Node, &Told), others: &[&Report]) -> Return {
        if self.sees_servers() {
            let servers = verdict::beyond(head, others, &self.record.members);
            if !servers.is_empty() {
                return Return::Behind(servers);
            }
        }
        let since_well = self.since_well();
        let found = verdict::returned((node, head), others, &self.record, since_well);
        let was_started = head.may_have_started_within(since_well);
        if found != Return::Sound || !was_started {
            return found;
        }
        let (acknowledged, _) = self.acknowledged_to_all(Some(node));
        if let Some(lost) = verdict::lacks(head, &acknowledged) {
            return Return::Unsure(has_lost(&lost));
        }
        match others.iter().find(|at| self.may_have_more(at)) {
            Some(at) => Return::Unsure(rescue::told_by_another(&at.name)),
            None => found,
        }
    }

    /// Whether another may have told this server to apply what is in its relay log, and only that
    /// one knows how much that is.
    fn may_have_more(&self, report: &Report) -> bool {
        let Record { members, rescued, cut_off, .. } = &self.record;
        let name = &*report.name;
        let is_known = rescued.contains_key(name) || cut_off.contains(name);
        let is_unknown = self.sees_servers() && members.contains(name) && !is_known;
        is_unknown && report.told().is_some_and(Told::may_be_rescued)
    }

    /// Whether a majority of the servers says that this one is the primary, where that is what is
    /// agreed by.
    pub(super) fn is_named(&self, server: &str) -> bool {
        let view = self.company.as_ref().and_then(|company| company.desk.view());
        let sight = view.as_ref().and_then(|view| view.sight.as_ref());
        !self.sees_servers() || sight.is_some_and(|it| it.primary.as_deref() == Some(server))
    }

    /// Why a server that was the primary when this keeper last knew may not be any more.
    pub(super) fn is_contested(&self, reports: &[Report], node: &Node) -> Option<String> {
        if self.is_named(&node.name) {
            return None;
        }
        let all: Vec<String> = configured(&self.settings.load()).collect();
        verdict::contested(node, reports, (&all, majority(all.len())))
    }

    /// Why nobody takes the writes here, where the primary has said that it does not and another
    /// acts.
    pub(super) fn is_shut_out(&self) -> Option<String> {
        let company = self.company.as_ref().filter(|company| company.number.is_none())?;
        let view = company.desk.view()?;
        let sight = view.sight.as_ref()?;
        let primary = self.record.primary.as_ref().filter(|at| sight.shut.contains(*at))?;
        let leader = company.leader();
        Some(format!("{primary} takes no writes now, and {leader} is the keeper"))
    }

    /// Others are waited for before a server is opened. That takes as long as a lease, which the
    /// stage is not blamed for.
    pub(super) fn wait_for_others(&mut self) {
        if self.sees_servers() {
            self.since = self.surgeon.now();
        }
    }

    /// Tells who counts what this keeper does. Only what health has been told counts.
    pub(super) fn take_stance(&self, keeps: bool) {
        let Some(company) = &self.company else { return };
        let to = match &self.appointed {
            Appointment::Server(name, _) => Some(name.clone()),
            Appointment::Open | Appointment::Nobody(_) | Appointment::Replacing(..) => None,
        };
        let looked = |at: Instant| company.looked.map_or(at, |looked| at.max(looked));
        let sound = to.clone().zip(self.vouched.map(looked));
        let sound = sound.filter(|_| company.number.is_some());
        let rests = self.record.maintenance;
        let turned = company.turned;
        company.desk.take(Stance { keeps, to, sound, rests, turned });
        let members = company.desk.view().filter(|_| keeps);
        let members = members.map_or_else(Vec::new, |view| standings(&view));
        let shown = self.keeping.load();
        if shown.members != members {
            self.keeping.store(Arc::new(Keeping { members, ..Keeping::clone(&shown) }));
        }
    }
}

/// What those had received that were told to apply what a restart has left is wanted of whoever
/// takes the primary's place. How far they are another may have seen to since.
fn want_what_was_rescued(record: &mut Record) {
    let Some(mut floor) = GtidSet::parse_mariadb(&record.floor) else { return };
    let noted = record.rescued.values_mut().map(std::mem::take);
    let noted: Vec<GtidSet> = noted.filter_map(|text| GtidSet::parse_mariadb(&text)).collect();
    if noted.iter().any(|set| !set.is_empty()) {
        noted.iter().for_each(|set| floor.union(set));
        record.floor = floor.to_string();
    }
}

/// The names of all servers that are configured.
fn configured(settings: &Settings) -> impl Iterator<Item = String> {
    settings.group.servers.iter().map(|server| server.name.to_string())
}

#[cfg(test)]
mod tests;
