//! Who takes the writes where no change is under way: the first primary that is found, one that
//! answers again, one that somebody else has put in its place.

use std::ops::ControlFlow;
use std::time::Duration;

use super::acknowledged::HEAR_MAX;
use super::company::is_the_same;
use super::{Keeper, Settings, THINK_AGAIN};
use crate::config::failover::MaxLoss;
use crate::failover::order::{Order, What};
use crate::failover::plan;
use crate::failover::record::Record;
use crate::failover::report::{Report, Told, told_by};
use crate::failover::standing::{self, Check};
use crate::failover::surgeon::Surgeon;
use crate::failover::survey::PATIENCE;
use crate::failover::verdict::Return;
use crate::topology::{Condition, Node, Topology};

/// How long ago the first primary was started at the latest. Its uptime, which is right to the
/// second, says from then on that it was started before it was found; who may have been started
/// since would be asked what that has cost, which nobody knows of the first one.
const STARTED_BEFORE: Duration = Duration::from_secs(2);

impl<S: Surgeon> Keeper<S> {
    /// The primary answers again, or for the first time: has it all that it had?
    pub(super) async fn receive(&mut self, settings: &Settings, topology: &Topology, node: &Node) {
        while self.is_to_be_received(settings, topology, node).await {}
    }

    /// The same once; whether all of it is to be looked at again.
    async fn is_to_be_received(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        node: &Node,
    ) -> bool {
        self.look_at = self.surgeon.now() + THINK_AGAIN;
        self.leaving = None;
        let reports = self.ask_all_of(settings, topology, node).await;
        let Some(head) = told_by(&reports, node.id) else { return false };
        if !head.sources.is_empty() && !self.record.closed {
            self.yield_to(&reports, topology, node).await;
            return false;
        }
        if let Some(why) = self.is_contested(&reports, node) {
            self.say(format!("{} takes no writes yet: {why}", node.name));
            return false;
        }
        let was_started = head.may_have_started_within(self.since_well());
        let compared = self.compare(settings, topology, (node, head), &reports, was_started);
        if let ControlFlow::Break(again) = compared.await {
            return again;
        }
        if !head.sources.is_empty() {
            // It follows the heir of a switchover that has come to nothing.
            self.yield_to(&reports, topology, node).await;
            return false;
        }
        let name = &node.name;
        let checks = standing::check(&reports, Some(node.id));
        if self.makes_wait(settings, topology, (&reports, &checks), (node, head)).await {
            return false;
        }
        // Where they cannot be made what they were, that is written down before it takes
        // a write.
        let lossless = self.loses_nothing(&checks, &reports, head);
        let writes = !head.is_read_only();
        if writes && !self.note_members(&reports, topology, node, lossless).await {
            return false;
        }
        // At the next look it would be in doubt again.
        let since_asked = self.surgeon.now() - self.asked_at;
        if !is_the_same(node, self.asked_at) || head.may_have_started_within(since_asked) {
            self.say(format!("{name} was started just now"));
            return false;
        }
        if writes {
            self.say(format!("{name} takes the writes"));
        }
        self.vouched = Some(self.asked_at);
        self.look_at = self.surgeon.now();
        false
    }

    /// Whether the primary, which was told to take no writes, has all that it had, as far as is
    /// known: it may have been started anew since. If not, another is to take its place.
    pub(super) async fn has_what_it_had(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        name: &str,
        reports: &[Report],
    ) -> bool {
        let Some(node) = topology.named(name) else {
            return true;
        };
        // Whoever does not answer is not opened.
        let Some(head) = told_by(reports, node.id) else { return true };
        let vouched = self.vouched.map_or_else(|| self.since_well(), |at| self.surgeon.now() - at);
        if !head.may_have_started_within(vouched) {
            return true;
        }
        let compared = self.compare(settings, topology, (node, head), reports, true).await;
        if compared.is_continue() {
            self.vouched = Some(self.asked_at);
        }
        compared.is_continue()
    }

    /// Goes on where a primary has all that it had, as far as is known, or where what it may lack
    /// may be lost. If not, another is to take its place; whether there may be another, and all is
    /// to be looked at once more before.
    async fn compare(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        (node, head): (&Node, &Told),
        reports: &[Report],
        was_started: bool,
    ) -> ControlFlow<bool> {
        if was_started && self.stop_receivers(settings, topology, reports, head).await {
            return ControlFlow::Break(false);
        }
        let others: Vec<&Report> = reports.iter().filter(|at| at.node != node.id).collect();
        let name = &node.name;
        let is_all_heard = || self.acknowledged_to_all(Some(node)).1;
        match self.returned((node, head), &others) {
            Return::Unsure(why) if settings.group.failover.max_loss == MaxLoss::None => {
                self.say(format!("{name} was started anew, and takes no writes yet: {why}"));
                ControlFlow::Break(false)
            }
            Return::Unsure(why) => {
                tracing::error!(group = &*topology.group, server = &**name, why, "it is opened");
                self.ties.acknowledged.forget();
                ControlFlow::Continue(())
            }
            // They have noticed it, too, by then.
            Return::Sound
                if was_started && head.may_have_started_within(HEAR_MAX) && !is_all_heard() =>
            {
                self.say(format!(
                    "{name} was started anew: asking the other pointsman what \
                     clients were told of"
                ));
                ControlFlow::Break(false)
            }
            Return::Sound => ControlFlow::Continue(()),
            Return::Behind(servers) => {
                let servers = servers.join(", ");
                let why = format!("it came back without what {servers} has received from it");
                ControlFlow::Break(self.begins(settings, topology, node, reports, &why).await)
            }
        }
    }

    /// Asks all servers of a primary; that one once more where a replica has received what it had
    /// not when it was asked: it may have gone on meanwhile.
    pub(super) async fn ask_all_of(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        node: &Node,
    ) -> Vec<Report> {
        let mut reports = self.ask_all(settings, topology).await;
        if is_behind(&reports, node) {
            let it_alone = |at: &Node| (at.id == node.id).then_some(PATIENCE);
            let again = self.surgeon.survey(topology, &settings.monitor, &it_alone).await;
            reports.retain(|report| report.node != node.id);
            reports.extend(again);
        }
        reports
    }

    /// What the primary sent before it was started anew may still be on its way to a replica, which
    /// would have it only after it was asked: nobody receives over such a connection any more.
    /// Whether somebody was to be told that.
    async fn stop_receivers(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        reports: &[Report],
        head: &Told,
    ) -> bool {
        let mut orders = plan::stopping(reports, |told| told.follows(head) && told.receives());
        orders.retain(|order| !self.is_denied(order));
        if orders.is_empty() {
            return false;
        }
        if !self.note_cut_off(&orders, reports).await {
            return true;
        }
        if self.perform(orders, settings, topology, reports).await {
            self.look_at = self.surgeon.now();
        }
        true
    }

    /// Its settings may be those of its option files, by which commits wait for nobody: where it
    /// was noted that they wait, they do before it takes one. Whether that is still to be made so.
    async fn makes_wait(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        (reports, checks): (&[Report], &[Check]),
        (node, head): (&Node, &Told),
    ) -> bool {
        let is_bound = settings.group.failover.max_loss == MaxLoss::None && self.record.lossless;
        if !is_bound || standing::is_lossless(checks) {
            return false;
        }
        let settle = |at: standing::Mend| Order { node: node.id, what: What::Settle(at.statement) };
        let mut orders: Vec<Order> = standing::mends(head, true).into_iter().map(settle).collect();
        orders.retain(|order| !self.is_denied(order));
        if orders.is_empty() {
            return false;
        }
        self.say(format!("{} was started anew: its commits are made to wait", node.name));
        if self.perform(orders, settings, topology, reports).await {
            self.look_at = self.surgeon.now();
        }
        true
    }

    /// The first primary is the one that is found.
    pub(super) async fn adopt(&mut self, topology: &Topology) {
        let Some(node) = topology.primary_node().filter(|_| topology.is_settled()) else {
            return self.say(format!("waiting for a primary: {}", topology.no_primary_why));
        };
        if node.read_only || node.condition != Condition::Up {
            return;
        }
        if !self.is_named(&node.name) {
            let server = &node.name;
            let why = "a majority of the servers does not follow it";
            return self.say(format!("waiting for a primary: {server} takes writes, and {why}"));
        }
        let (group, server) = (&*topology.group, &*node.name);
        let known = self.surgeon.now().checked_sub(STARTED_BEFORE);
        if !known.is_some_and(|known| is_the_same(node, known)) {
            return self.say(format!("waiting for a primary: {server} was started just now"));
        }
        tracing::info!(group, server, "keeps the group from now on");
        self.settle_on(server).await;
    }

    /// This server is the primary from now on, and nothing is in doubt of it.
    async fn settle_on(&mut self, server: &str) {
        // Nobody has locked those out there.
        let evicted = self.record.locked.keys().cloned();
        let members = self.record.members.iter().cloned().chain(evicted).collect();
        let record = Record {
            epoch: self.record.epoch.saturating_add(1),
            members,
            primary: Some(server.to_owned()),
            closed: false,
            lossless: false,
            floor: String::new(),
            ..self.record.clone()
        };
        if self.write_down(record).await {
            let now = self.surgeon.now();
            (self.vouched, self.look_at, self.unguarded) = (Some(now), now, None);
        }
    }

    /// The primary follows another server: somebody else has switched over.
    pub(super) async fn yield_to(&mut self, reports: &[Report], topology: &Topology, node: &Node) {
        let heads = reports.iter().filter(|at| {
            at.told().is_some_and(|told| told.sources.is_empty() && !told.is_read_only())
        });
        let heads: Vec<&Report> = heads.collect();
        let [head] = heads.as_slice() else {
            let name = &node.name;
            if self.record.closed {
                return self.reopen(name).await;
            }
            return self.say(format!("{name} replicates, and no other server takes its place"));
        };
        let (group, from, to) = (&*topology.group, &*node.name, &*head.name);
        tracing::warn!(group, from, to, "somebody else has switched over");
        self.settle_on(to).await;
    }
}

/// Whether a replica of this server has received what it had not when it was asked.
fn is_behind(reports: &[Report], node: &Node) -> bool {
    let Some(head) = told_by(reports, node.id) else { return false };
    let mut others = reports.iter().filter_map(Report::told);
    others.any(|told| told.is_ahead_of(node, head))
}
