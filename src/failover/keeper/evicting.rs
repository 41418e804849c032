//! Keeping those few of whom a failover needs to hear: who is away for long is evicted, and is let
//! in when it is back.

use std::collections::BTreeSet;

use super::{Away, Keeper, Settings, THINK_AGAIN};
use crate::failover::ackers::{self, End, Leaving, Step};
use crate::failover::order::{Order, What};
use crate::failover::record::Record;
use crate::failover::report::{Report, Told};
use crate::failover::surgeon::Surgeon;
use crate::topology::{Node, Topology};

impl<S: Surgeon> Keeper<S> {
    /// The primary is well: does the next step by which somebody is evicted or let in; whether
    /// there was one, after which all is to be looked at again.
    pub(super) async fn keeps_few(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        (node, head): (&Node, &Told),
        reports: &[Report],
    ) -> bool {
        self.note_away(reports, (node, head));
        let late = self.evictable(settings);
        let is_late = |leaving: &Leaving| late.contains(&leaving.server);
        self.leaving = self.leaving.take().filter(is_late);
        if let Some(leaving) = self.leaving.as_mut()
            && leaving.end.is_none()
        {
            // It was asked after the server was kept out.
            leaving.end = End::of(head);
        }
        let resting = self.resting.keys().cloned().collect();
        let facts = ackers::Facts {
            record: &self.record,
            primary: (node, head),
            reports,
            late: &late,
            resting: &resting,
            leaving: self.leaving.as_ref(),
        };
        let order = |what| vec![Order { node: node.id, what }];
        let done = match ackers::next(&facts) {
            None => return false,
            Some(Step::Wait) => {
                self.look_at = self.surgeon.now() + THINK_AGAIN;
                return false;
            }
            Some(Step::Note(record)) => self.changes_to(*record, settings, topology, reports).await,
            Some(Step::LockOut(server, users)) => {
                self.leaving = None;
                let orders = order(What::LockOut(users));
                let done = self.perform(orders, settings, topology, reports).await;
                self.leaving = done.then_some(Leaving { server, end: None });
                done
            }
            Some(Step::LetIn(users)) => {
                let orders = order(What::LetIn(users));
                self.perform(orders, settings, topology, reports).await
            }
        };
        if done {
            self.look_at = self.surgeon.now();
        }
        done
    }

    /// Writes down who may acknowledge from now on, and tells whom that concerns.
    async fn changes_to(
        &mut self,
        record: Record,
        settings: &Settings,
        topology: &Topology,
        reports: &[Report],
    ) -> bool {
        let before = self.record.members.clone();
        if !self.write_down(record).await {
            return false;
        }
        let (group, now) = (&*topology.group, self.surgeon.now());
        for server in before.difference(&self.record.members) {
            self.leaving = None;
            tracing::warn!(group, server, "it was away for long, and is evicted");
            if reports.iter().any(|at| *at.name == **server && at.told.is_ok()) {
                let until = now + settings.group.failover.evict_after;
                self.resting.insert(server.clone(), until);
            }
        }
        for server in self.record.members.difference(&before) {
            tracing::info!(group, server, "it was evicted, and is let in again");
            self.away.remove(server);
        }
        true
    }

    /// Notes who does not receive from the primary. One that answers again is as good as one that
    /// has just stopped.
    fn note_away(&mut self, reports: &[Report], primary: (&Node, &Told)) {
        let now = self.surgeon.now();
        self.resting.retain(|_, until| *until > now);
        for report in reports {
            let (name, answers) = (&*report.name, report.told.is_ok());
            if !answers {
                self.resting.remove(name);
            }
            let may_acknowledge = name != &*primary.0.name && self.record.members.contains(name);
            let is_away = may_acknowledge && ackers::is_away(report, primary);
            match self.away.get(name) {
                _ if !is_away => drop(self.away.remove(name)),
                Some(away) if !answers || away.answers => {}
                Some(_) | None => {
                    self.away.insert(name.to_owned(), Away { since: now, answers });
                }
            }
            if let Some(away) = self.away.get_mut(name) {
                away.answers = answers;
            }
        }
    }

    /// Who has been away for longer than servers may be.
    fn late(&self, settings: &Settings) -> BTreeSet<String> {
        let limit = settings.group.failover.evict_after;
        let now = self.surgeon.now();
        let is_late = |away: &Away| !limit.is_zero() && now - away.since >= limit;
        let late = self.away.iter().filter(|(_, away)| is_late(away));
        late.map(|(name, _)| name.clone()).collect()
    }

    /// Who of these may be evicted: nobody where each keeper has a record of its own, of whom those
    /// that have not kept it out would not know, nor those that have that it was let in.
    pub(super) fn evictable(&self, settings: &Settings) -> BTreeSet<String> {
        if self.sees_servers() { BTreeSet::new() } else { self.late(settings) }
    }

    /// Who is evicted, and who is away and cannot be, for operators.
    pub(super) fn away(&self, primary: &Node) -> String {
        let record = &self.record;
        let mut text: String =
            record.evicted().map(|name| format!("; {name} is evicted")).collect();
        if let Some(Leaving { server, .. }) = &self.leaving {
            text.push_str(&format!(
                "; {server} is away, and kept out: another is to have all of it"
            ));
        }
        let late = self.late(&self.settings.load());
        let is_needed = |name: &&String| **name != *primary.name && record.members.contains(*name);
        for name in late.iter().filter(is_needed) {
            if let Err(why) = ackers::lockable(record, name) {
                text.push_str(&format!("; {name} is away, and cannot be evicted: {why}"));
            }
        }
        text
    }
}
