//! Replacing a primary: whether it is dead, whether it may be replaced, and one step after another.

use std::time::Duration;

use tokio::time::Instant;

use super::{Keeper, PATIENCE, Settings, THINK_AGAIN, seconds_now};
use crate::config::Group;
use crate::config::failover::MaxLoss;
use crate::failover::order::Order;
use crate::failover::plan::{self, Next};
use crate::failover::record::{Operation, Record, Stage};
use crate::failover::report::Report;
use crate::failover::survey::survey;
use crate::failover::verdict::{self, Verdict};
use crate::topology::{Node, Topology};

/// How long a primary that is down may take to say that it is not.
const LAST_WORD: Duration = Duration::from_secs(1);
/// How long a failover waits for what is only better.
const PATIENT: Duration = Duration::from_secs(1);
/// How long a failover that has changed nothing but receivers may take before it is undone; to
/// apply what was received may take longer.
const REVOKE_MAX: Duration = Duration::from_secs(15);

impl Keeper {
    /// The primary does not answer: is it dead, and may it be replaced?
    pub(super) async fn consider(&mut self, settings: &Settings, topology: &Topology, node: &Node) {
        self.look_at = Instant::now() + THINK_AGAIN;
        let trust = self.trust.load_full();
        let patience = |at: &Node| Some(if at.id == node.id { LAST_WORD } else { PATIENCE });
        let reports = survey(topology, &settings.monitor, &trust, patience).await;
        let name = &node.name;
        let why = match verdict::judge(node.id, &reports) {
            Verdict::Dead(why) => why,
            Verdict::Alive => return self.health.probe_now(),
            Verdict::Saturated(why) => return self.say(format!("{name} is full: {why}")),
            Verdict::Unreachable(hearing) => {
                let hearing = hearing.join(", ");
                return self.say(format!("no failover: {hearing} still hears from {name}"));
            }
            Verdict::Isolated => {
                return self.say("no failover: no server at all answers here".to_owned());
            }
        };
        self.begin(settings, topology, node, &reports, &why).await;
    }

    /// Begins a failover, if there may be one.
    pub(super) async fn begin(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        node: &Node,
        reports: &[Report],
        why: &str,
    ) {
        let name = &node.name;
        if let Err(refusal) = self.may_fail_over(&settings.group) {
            return self.say(format!("no failover from {name}: {refusal}"));
        }
        let operation = Operation::begin(name);
        let others = reports.iter().filter(|at| at.node != node.id).cloned();
        let others: Vec<Report> = others.collect();
        let facts = self.facts(settings, topology, &others, &[]);
        if let Next::GiveUp(refusal) = plan::next(&operation, &facts) {
            return self.say(format!("no failover from {name}: {refusal}"));
        }
        tracing::warn!(group = &*topology.group, server = &**name, why, "the primary is dead");
        let record = Record { operation: Some(operation), ..self.record.clone() };
        self.write_down(record).await;
    }

    /// How long ago the primary was last seen to be well; from the journal where that was before
    /// this process began.
    pub(super) fn since_well(&self) -> Duration {
        let recorded = || Duration::from_secs(seconds_now().saturating_sub(self.record.well_at));
        self.well_at.map_or_else(recorded, |at| at.elapsed())
    }

    fn may_fail_over(&self, group: &Group) -> Result<(), String> {
        let settings = &group.failover;
        if !self.record.lossless && settings.max_loss == MaxLoss::None {
            return Err("its commits did not wait for a replica when it was last looked at, and \
                        failover.max_loss is \"none\""
                .to_owned());
        }
        let since = self.record.failed_over_at.map(|at| seconds_now().saturating_sub(at));
        match since.map(Duration::from_secs) {
            Some(since) if since < settings.anti_flap => Err(format!(
                "the last one was {} s ago, and failover.anti_flap is longer",
                since.as_secs()
            )),
            _ => Ok(()),
        }
    }

    /// The next step of a failover.
    pub(super) async fn go_on(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        operation: Operation,
    ) {
        self.say(format!("replacing {}: {}", operation.failed, operation.stage.word()));
        let heir = operation.heir.clone().unwrap_or_default();
        // The failed one is not asked, unless it is only opened again.
        let patience = |at: &Node| {
            let asked = *at.name != *operation.failed || *at.name == *heir;
            asked.then_some(PATIENCE)
        };
        let trust = self.trust.load_full();
        let reports = survey(topology, &settings.monitor, &trust, patience).await;
        let denied = self.denied();
        let facts = self.facts(settings, topology, &reports, &denied);
        let early = matches!(operation.stage, Stage::Revoke);
        let next = match plan::next(&operation, &facts) {
            Next::Act(_) | Next::Wait(_) if early && self.since.elapsed() > REVOKE_MAX => {
                Next::GiveUp("the replicas do not stop receiving".to_owned())
            }
            next => next,
        };
        match next {
            Next::Act(orders) => {
                self.perform(orders, settings, topology, &reports).await;
            }
            Next::Wait(why) => self.say(format!("replacing {}: {why}", operation.failed)),
            Next::Enter(next) => {
                if let Some(heir) = &next.heir {
                    let (group, stage) = (&*topology.group, next.stage.word());
                    tracing::info!(group, heir, stage, "the failover goes on");
                }
                let record = Record { operation: Some(next), ..self.record.clone() };
                self.write_down(record).await;
            }
            Next::GiveUp(why) => {
                let undo = plan::undo(&reports);
                self.perform(undo, settings, topology, &reports).await;
                let failed = &operation.failed;
                tracing::error!(group = &*topology.group, why, "no failover from {failed}");
                self.say(format!("no failover from {failed}: {why}"));
                let record = Record { operation: None, ..self.record.clone() };
                self.write_down(record).await;
                // It is looked at again, should it answer.
                self.in_doubt = true;
                self.look_at = Instant::now() + THINK_AGAIN;
            }
            Next::Done => self.done(topology, operation).await,
        }
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
            members: &self.record.members,
            lossy: settings.group.failover.max_loss == MaxLoss::Some,
            since_well: self.since_well(),
            patient: self.since.elapsed() < PATIENT,
            denied,
        }
    }

    async fn done(&mut self, topology: &Topology, operation: Operation) {
        let heir = operation.heir.unwrap_or_default();
        let replaced = heir != operation.failed;
        let record = Record {
            epoch: self.record.epoch.saturating_add(1),
            primary: Some(heir.clone()),
            operation: None,
            failed_over_at: if replaced { Some(seconds_now()) } else { self.record.failed_over_at },
            ..self.record.clone()
        };
        let epoch = record.epoch;
        if self.write_down(record).await {
            self.in_doubt = false;
            self.health.probe_now();
            let group = &*topology.group;
            tracing::warn!(group, epoch, from = operation.failed, to = heir, "writes go on");
            (self.look_at, self.well_at) = (Instant::now(), Some(Instant::now()));
        }
    }
}
