//! Replacing a primary: whether it is dead, whether it may be replaced, and one step after another.

use std::sync::Arc;
use std::time::Duration;

use super::{Keeper, PATIENCE, Settings, THINK_AGAIN};
use crate::config::Group;
use crate::config::failover::{FailoverMode, MaxLoss};
use crate::failover::candidate::{self, Orphans};
use crate::failover::keeper::company::Company;
use crate::failover::order::{Order, What};
use crate::failover::plan::{self, Next};
use crate::failover::record::{Kind, Operation, Record, Stage};
use crate::failover::report::Report;
use crate::failover::surgeon::Surgeon;
use crate::failover::verdict::{self, Verdict};
use crate::health;
use crate::topology::{Node, Topology};

/// How long a primary that is down may take to say that it is not.
const LAST_WORD: Duration = Duration::from_secs(1);
/// How long a failover that has changed nothing but receivers may take before it is undone; to
/// apply what was received may take longer.
const REVOKE_MAX: Duration = Duration::from_secs(15);
/// How long servers may take to be found after a start before what was begun goes on without them.
const FIND_MAX: Duration = Duration::from_secs(5);
/// How long health may take to publish a primary that takes writes.
const PUBLISH_MAX: Duration = Duration::from_secs(2);
/// How long a primary that is to be opened again may say nothing before it is given up.
const REOPEN_MAX: Duration = Duration::from_secs(5);
/// How far apart the calendars of two machines may be.
const CALENDARS_DIFFER: Duration = Duration::from_secs(10);

impl<S: Surgeon> Keeper<S> {
    /// The primary does not answer: is it dead, and may it be replaced?
    pub(super) async fn consider(&mut self, settings: &Settings, topology: &Topology, node: &Node) {
        while self.is_to_be_considered(settings, topology, node).await {}
    }

    /// The same once; whether all of it is to be looked at again.
    async fn is_to_be_considered(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        node: &Node,
    ) -> bool {
        self.look_at = self.surgeon.now() + THINK_AGAIN;
        let patience = |at: &Node| {
            let time = if at.id == node.id { LAST_WORD } else { PATIENCE };
            (!self.record.is_evicted(&at.name)).then_some(time)
        };
        let reports = self.surgeon.survey(topology, &settings.monitor, &patience).await;
        let name = &node.name;
        let heard = verdict::heard(node.id, topology, &reports);
        let why = match verdict::judge(node.id, node.leaving, &heard) {
            Verdict::Dead(why) => {
                let reaching = self.company.as_ref().and_then(Company::reaching);
                // An operator who says so knows that its commits hang, or does not care for them.
                if let Some(other) = reaching.filter(|_| !self.consent) {
                    // It may see the same in a moment.
                    self.look_at = self.surgeon.now();
                    self.say(format!("no failover: {name} still answers {other}"));
                    return false;
                }
                why
            }
            Verdict::Alive => {
                if self.consent {
                    self.say(format!("{name} answers: it is not dead"));
                }
                self.health.probe_now();
                return false;
            }
            Verdict::Saturated(why) => {
                self.say(format!("{name} is full: {why}"));
                return false;
            }
            Verdict::Unreachable(hearing) => {
                let hearing = hearing.join(", ");
                self.say(format!("no failover: {hearing} still hears from {name}"));
                return false;
            }
            Verdict::Isolated => {
                self.say("no failover: no server at all answers here".to_owned());
                return false;
            }
        };
        self.begins(settings, topology, node, &reports, &why).await
    }

    /// Begins a failover, if there may be one. Whether there may be, and everything is to be looked
    /// at once more before.
    pub(super) async fn begins(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        node: &Node,
        reports: &[Report],
        why: &str,
    ) -> bool {
        let name = &node.name;
        let allowed =
            self.refuse_in_maintenance().and_then(|()| self.may_fail_over(&settings.group));
        if let Err(refusal) = allowed {
            self.say(format!("no failover from {name}: {refusal}"));
            return false;
        }
        let operation = Operation::failover(name);
        let is_evicted = |at: &&Report| self.record.is_evicted(&at.name);
        let others = reports.iter().filter(|at| at.node != node.id && !is_evicted(at)).cloned();
        let others: Vec<Report> = others.collect();
        let acknowledged = self.acknowledged(Some(node));
        let facts = self.facts(settings, topology, &others, &[]);
        let facts = plan::Facts { acknowledged: &acknowledged, ..facts };
        if let Next::GiveUp(refusal) = plan::next(&operation, &facts) {
            self.say(format!("no failover from {name}: {refusal}"));
            return false;
        }
        if settings.group.failover.mode == FailoverMode::Manual && !self.consent {
            let ranked = candidate::rank(&others, topology);
            let first = ranked.iter().find(|ranked| ranked.may_lead().is_ok());
            let (group, first) = (&topology.group, first.map_or("nobody", |first| &first.name));
            self.say(format!(
                "{name} is to be replaced ({why}), and failover.mode is \"manual\": waiting for \
                 FAILOVER {group}, which would make {first} the primary"
            ));
            return false;
        }
        match self.permit_failover(settings, &operation).await {
            Ok(false) => {}
            Ok(true) => return true,
            Err(refusal) => {
                self.say(format!("no failover from {name}: {refusal}"));
                return false;
            }
        }
        tracing::warn!(group = &*topology.group, server = &**name, why, "the primary is dead");
        let record = Record { operation: Some(operation), ..self.record.clone() };
        self.write_down(record).await;
        false
    }

    /// How long ago the primary was last seen to be well; from the record where that was before
    /// this process began, or by another pointsman, whose calendar may be another.
    pub(super) fn since_well(&self) -> Duration {
        let recorded =
            || Duration::from_secs(self.surgeon.seconds().saturating_sub(self.record.well_at));
        let skew = if self.company.is_some() { CALENDARS_DIFFER } else { Duration::ZERO };
        self.well_at.map_or_else(|| recorded() + skew, |at| self.surgeon.now() - at)
    }

    /// How long the present stage of a change of the primary has taken.
    fn elapsed(&self) -> Duration {
        self.surgeon.now() - self.since
    }

    /// What speaks against a failover before anybody is asked.
    fn may_fail_over(&self, group: &Group) -> Result<(), String> {
        let settings = &group.failover;
        if !self.record.lossless && settings.max_loss == MaxLoss::None {
            return Err(
                "its commits did not wait for a replica, or were not on disk, when it was \
                        last looked at, and failover.max_loss is \"none\""
                    .to_owned(),
            );
        }
        let since = self.record.failed_over_at.map(|at| self.surgeon.seconds().saturating_sub(at));
        match since.map(Duration::from_secs) {
            Some(since) if since < settings.anti_flap && !self.consent => Err(format!(
                "the last one was {} s ago, and failover.anti_flap is longer",
                since.as_secs()
            )),
            _ => Ok(()),
        }
    }

    /// The next step of a change of the primary.
    pub(super) async fn go_on(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        operation: Operation,
    ) {
        if let Some(missing) = self.is_not_found(topology, &operation)
            && self.surgeon.now() - self.started < FIND_MAX
        {
            let under_way = operation.describe();
            return self.say(format!("{under_way}: {missing} has not been found yet"));
        }
        self.asked_at = self.surgeon.now();
        let patience = |at: &Node| self.is_asked(&operation, &at.name).then_some(PATIENCE);
        let reports = self.surgeon.survey(topology, &settings.monitor, &patience).await;
        if operation.is_reopening()
            && !self.has_what_it_had(settings, topology, &operation.former, &reports).await
        {
            return;
        }
        let mut operation = operation;
        loop {
            let next = self.next(settings, topology, &operation, &reports).await;
            if opens(&operation, &next, &reports) {
                self.vouched = Some(self.asked_at);
            }
            match next {
                Next::Act(orders) => {
                    self.say(operation.describe());
                    if !self.note_rescued(&orders, &reports).await {
                        return;
                    }
                    let is_done = self.perform(orders, settings, topology, &reports).await;
                    self.has_ordered = is_done && operation.kind == Kind::Switchover;
                    if operation.stage == Stage::Open {
                        // Everybody waits for it to be seen.
                        self.health.probe_now();
                    }
                }
                Next::Wait(why) => self.say(format!("{}: {why}", operation.describe())),
                // What is waited for is known to come, however long the lease.
                Next::Enter(next) if self.is_unseen(&next) => self.wait_for_others(),
                Next::Enter(next) => {
                    // In a switchover everybody waits: what servers have just said will do.
                    let at_once = next.kind == Kind::Switchover;
                    if self.enter(topology, &reports, next.clone()).await && at_once {
                        operation = next;
                        continue;
                    }
                }
                Next::GiveUp(why) => {
                    if operation.kind == Kind::Failover && !operation.is_reopening() {
                        let undo = plan::undo(&reports);
                        self.perform(undo, settings, topology, &reports).await;
                    }
                    self.give_up(topology, &operation, &why).await;
                }
                Next::Done
                    if operation.kind == Kind::Switchover
                        && !self.is_published(&operation)
                        && self.elapsed() < PUBLISH_MAX =>
                {
                    // Who ordered it may rely on it once there is an answer.
                    self.health.probe_now();
                }
                Next::Done => self.done(topology, operation, &reports).await,
            }
            return;
        }
    }

    /// Whether other pointsman may still send statements to another server than the one that is
    /// about to take them: to the former primary, or to an heir that was not opened after all.
    fn is_unseen(&self, next: &Operation) -> bool {
        let opens = next.stage == Stage::Open;
        let company = self.company.as_ref().filter(|_| opens);
        let unaware = company.and_then(|company| company.unaware(next));
        if let Some(why) = &unaware {
            self.say(format!("{}: {why}", next.describe()));
        }
        unaware.is_some()
    }

    /// Whether this server has a say in this change of the primary: one that is dead has none, nor
    /// has one that is evicted.
    fn is_asked(&self, operation: &Operation, name: &str) -> bool {
        match name == operation.former {
            true => operation.kind == Kind::Switchover || operation.is_reopening(),
            false => !self.record.is_evicted(name),
        }
    }

    /// Has those looked for of whom only the record knows, as after a start of this process.
    /// Servers that are not named by the configuration have their addresses as names.
    pub(super) fn find_known(&self, topology: &Topology) {
        let Record { members, primary, locked, .. } = &self.record;
        let known = members.iter().chain(primary).chain(locked.keys());
        for name in known.filter(|name| topology.named(name).is_none()) {
            let address = Arc::from(name.as_str());
            let _ = self.health.commands.try_send(health::Command::Find(address));
        }
    }

    /// Who is needed for this and was not found yet, as after a start of this process.
    fn is_not_found<'a>(
        &'a self,
        topology: &Topology,
        operation: &'a Operation,
    ) -> Option<&'a String> {
        let named = [&operation.former].into_iter().chain(&operation.heir);
        let mut needed = named.chain(&self.record.members);
        needed.find(|name| topology.named(name).is_none())
    }

    /// Whether sessions are told that the heir is the primary.
    fn is_published(&self, operation: &Operation) -> bool {
        let topology = self.health.cell.load();
        let primary = topology.primary_node().map(|node| &*node.name);
        primary.is_some() && primary == operation.heir.as_deref()
    }

    /// Begins the next stage; `false` when it cannot be written down.
    async fn enter(&mut self, topology: &Topology, reports: &[Report], next: Operation) -> bool {
        let opens = next.stage == Stage::Open;
        if let Some(heir) = &next.heir {
            let (group, stage) = (&*topology.group, next.stage.word());
            tracing::info!(group, heir, stage, "the change of the primary goes on");
        }
        let closed = self.record.closed || next.stage == Stage::Close;
        let mut record = Record { operation: Some(next), closed, ..self.record.clone() };
        if opens {
            self.ties.acknowledged.forget();
            // What they have received before says nothing of what they acknowledge from now on; who
            // does not go by GTID yet acknowledges nothing.
            record.rescued.retain(|name, received| {
                let report = reports.iter().find(|at| *at.name == **name);
                let Some(told) = report.and_then(Report::told) else {
                    received.clear();
                    return true;
                };
                !told.goes_by_gtid()
            });
        }
        self.write_down(record).await
    }

    /// What the plan says, by what servers and sessions say now.
    async fn next(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        operation: &Operation,
        reports: &[Report],
    ) -> Next {
        let denied = self.denied();
        let is_planned = operation.kind == Kind::Switchover;
        let (mut accounts, mut unfinished) = (None, None);
        if operation.stage == Stage::Hold {
            unfinished = self.unfinished(topology, &operation.former).await;
            if let Some(company) = &self.company {
                unfinished = unfinished.zip(company.unfinished()).map(|(own, more)| own + more);
            }
        }
        if is_planned && operation.stage == Stage::Establish {
            match self.stated_or_own(settings).await {
                Ok(found) => accounts = Some(found),
                Err(why) => self.say(why),
            }
        }
        let (acknowledged, is_all_heard) =
            self.acknowledged_to_all(topology.named(&operation.former));
        let facts = plan::Facts {
            accounts: accounts.as_ref(),
            unfinished,
            acknowledged: &acknowledged,
            is_all_heard,
            ..self.facts(settings, topology, reports, &denied)
        };
        let next = plan::next(operation, &facts);
        if let Next::Enter(Operation { kind: Kind::Failover, stage: Stage::Establish, .. }) = next
            && let Some(lost) = plan::lost(operation, &facts)
        {
            let (group, lost) = (&*topology.group, lost.to_string());
            tracing::error!(group, lost, "clients were told of writes that are lost now");
        }
        match next {
            Next::Act(_) | Next::Wait(_)
                if operation.stage == Stage::Revoke
                    && self.elapsed() > REVOKE_MAX
                    && !plan::rescues(reports, &self.record) =>
            {
                Next::GiveUp("the replicas do not stop receiving".to_owned())
            }
            Next::Wait(why)
                if !is_planned && operation.is_reopening() && self.elapsed() > REOPEN_MAX =>
            {
                Next::GiveUp(why)
            }
            next => next,
        }
    }

    /// Notes up to where those had received that are about to apply what is in their relay logs.
    async fn note_rescued(&mut self, orders: &[Order], reports: &[Report]) -> bool {
        let mut record = self.record.clone();
        let places = orders.iter().filter(|order| matches!(order.what, What::Rescue(_)));
        for report in places.filter_map(|at| reports.iter().find(|report| report.node == at.node)) {
            let relay = report.told().and_then(|told| told.relay.as_ref()?.as_ref().ok());
            let received = relay.map(|relay| relay.received.to_string()).unwrap_or_default();
            record.rescued.entry(report.name.to_string()).or_insert(received);
        }
        record == self.record || self.write_down(record).await
    }

    /// A change of the primary is called off.
    async fn give_up(&mut self, topology: &Topology, operation: &Operation, why: &str) {
        let (group, former) = (&*topology.group, &operation.former);
        let what = match operation.kind {
            _ if operation.is_reopening() => format!("{former} is not opened again"),
            Kind::Failover => format!("no failover from {former}"),
            Kind::Switchover => format!("no switchover from {former}"),
        };
        tracing::error!(group, why, "{what}");
        if !operation.is_reopening() {
            self.changes(operation.kind).called_off += 1;
        }
        self.say(format!("{what}: {why}"));
        self.answer(Err(format!("{what}: {why}")));
        let undoing = operation.undoing();
        let was_kept = operation.kind == Kind::Switchover && undoing.is_none();
        // It is looked at again, should it answer.
        self.vouched = self.vouched.filter(|_| was_kept);
        self.look_at = self.surgeon.now() + THINK_AGAIN;
        let record = Record { operation: undoing, ..self.record.clone() };
        self.write_down(record).await;
    }

    fn denied(&self) -> Vec<Order> {
        self.denied.iter().map(|(order, _)| order.clone()).collect()
    }

    /// What a plan goes by.
    fn facts<'a>(
        &'a self,
        settings: &Settings,
        topology: &'a Topology,
        reports: &'a [Report],
        denied: &'a [Order],
    ) -> plan::Facts<'a> {
        plan::Facts {
            topology,
            reports,
            record: &self.record,
            lossy: settings.group.failover.max_loss == MaxLoss::Some,
            elapsed: self.elapsed(),
            denied,
            accounts: None,
            unfinished: None,
            acknowledged: "",
            is_all_heard: true,
            orphans: if self.sees_servers() { Orphans::MayLead } else { Orphans::Stay },
        }
    }

    async fn done(&mut self, topology: &Topology, operation: Operation, reports: &[Report]) {
        let Operation { kind, former, heir, wanted, .. } = operation.clone();
        let heir = heir.unwrap_or_default();
        let failed_over_at = match kind {
            Kind::Failover if heir != former => Some(self.surgeon.seconds()),
            Kind::Failover | Kind::Switchover => self.record.failed_over_at,
        };
        let mut record = Record {
            epoch: self.record.epoch.saturating_add(1),
            primary: Some(heir.clone()),
            operation: None,
            // One that says nothing may have been opened, or not.
            closed: self.vouched != Some(self.asked_at),
            floor: if wanted.is_empty() { self.record.floor.clone() } else { wanted },
            failed_over_at,
            ..self.record.clone()
        };
        // It was a primary until now, and has acknowledged nothing of another one in a former life.
        let told = reports.iter().find(|at| *at.name == *former).and_then(Report::told);
        record.lives.extend(told.and_then(|told| told.started).map(|at| (former.clone(), at)));
        let (epoch, opened_at) = (record.epoch, self.since);
        if self.write_down(record).await {
            if heir != former {
                self.changes(kind).done += 1;
                self.announce(&operation);
            }
            self.health.probe_now();
            let held = self.held();
            let (group, held_ms) = (&*topology.group, held.as_millis());
            tracing::warn!(group, epoch, from = former, to = heir, held_ms, "writes go on");
            (self.look_at, self.well_at) = (self.surgeon.now(), Some(opened_at));
            self.answer(Ok(format!(
                "{heir} takes the writes in place of {former}; they waited for {:.3} s",
                held.as_secs_f64()
            )));
        }
    }
}

/// Whether an heir that has answered is about to take writes, and is all that a primary must be.
fn opens(operation: &Operation, next: &Next, reports: &[Report]) -> bool {
    let is_open = match next {
        Next::Enter(next) => next.stage == Stage::Open,
        Next::Act(orders) => orders.iter().any(|order| order.what == What::Open),
        Next::Done => true,
        Next::Wait(_) | Next::GiveUp(_) => false,
    };
    let heir = operation.heir.as_deref();
    is_open && reports.iter().any(|at| Some(&*at.name) == heir && at.told.is_ok())
}
