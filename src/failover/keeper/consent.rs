//! What operators say about changes beforehand: that there be none while they work on the group,
//! and, by a program of theirs, whether this one may be.

use std::time::Duration;

use super::{Keeper, Settings};
use crate::failover::hook::Hook;
use crate::failover::order::{Order, What};
use crate::failover::record::{Kind, Operation, Record};
use crate::failover::report::{Report, Told};
use crate::failover::surgeon::Surgeon;
use crate::topology::{Node, Topology};

/// How long a yes of the operator's program counts: what servers say is asked once more meanwhile.
const YES_FOR: Duration = Duration::from_secs(10);

impl<S: Surgeon> Keeper<S> {
    /// From now on there is no failover but by an operator's word, and nothing is set up; or there
    /// is again. It outlives this process, and holds for whoever keeps the group next.
    pub(super) async fn maintain(&mut self, maintenance: bool) -> Result<String, String> {
        self.refuse_to_follow()?;
        self.refuse_for_others()?;
        let record = Record { maintenance, ..self.record.clone() };
        if record != self.record && !self.write_down(record).await {
            return Err(self.keeping.load().doing.clone());
        }
        // What was found before may be due.
        self.look_at = self.surgeon.now();
        self.tended.clear();
        let group = &self.health.cell.load().group;
        tracing::warn!(group = &**group, maintenance, "an operator has spoken");
        Ok(match maintenance {
            true => {
                format!(
                    "{group}: no failover, and nothing is set up, before MAINTENANCE OFF {group}"
                )
            }
            false => format!("{group} is kept as configured"),
        })
    }

    /// Notes who is kept from receiving, and is to receive again, also where an operator begins to
    /// work on the group meanwhile: before anybody is told so.
    pub(super) async fn note_cut_off(&mut self, orders: &[Order], reports: &[Report]) -> bool {
        let told = |report: &&Report| orders.iter().any(|order| order.node == report.node);
        let names = reports.iter().filter(told).map(|report| report.name.to_string());
        let mut record = self.record.clone();
        record.cut_off.extend(names);
        record == self.record || self.write_down(record).await
    }

    /// The primary is well, and an operator works on the group: nobody is told anything but those
    /// to receive again who were kept from it.
    pub(super) async fn leave_alone(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        (node, head): (&Node, &Told),
        reports: &[Report],
    ) {
        let is_cut_off = |report: &&Report| {
            let stands = |told: &Told| told.sources.iter().any(|source| source.receiver_stopped);
            let follows = report.told().is_some_and(|told| told.follows(head) && stands(told));
            follows && self.record.cut_off.contains(&*report.name)
        };
        let again = |report: &Report| Order { node: report.node, what: What::StartReceiver };
        let orders: Vec<Order> = reports.iter().filter(is_cut_off).map(again).collect();
        if !orders.is_empty() && self.perform(orders, settings, topology, reports).await {
            self.look_at = self.surgeon.now();
        }
        let until = format!("nothing is set up before MAINTENANCE OFF {}", topology.group);
        self.say(format!("{} takes the writes; {until}", node.name));
    }

    /// Why there is no failover by itself, if there is none.
    pub(super) fn refuse_in_maintenance(&self) -> Result<(), String> {
        let group = &self.health.cell.load().group;
        match self.record.maintenance && !self.consent {
            true => Err(format!(
                "MAINTENANCE is ON; FAILOVER {group} replaces it, MAINTENANCE OFF {group} ends that"
            )),
            false => Ok(()),
        }
    }

    /// Asks the operator's program whether a primary that is dead may be replaced. Whether it has
    /// just said yes: much may have happened while it thought, so all is to be looked at again.
    ///
    /// # Errors
    /// What it says against it.
    pub(super) async fn permit_failover(
        &mut self,
        settings: &Settings,
        operation: &Operation,
    ) -> Result<bool, String> {
        if settings.group.failover.pre_hook.is_empty() {
            return Ok(false);
        }
        let now = self.surgeon.now();
        let yes = self.permitted.take().filter(|(_, at)| now - *at < YES_FOR);
        if yes.is_some_and(|(to, _)| to == *operation) {
            return Ok(false);
        }
        // Nobody writes while it thinks.
        self.vouched = None;
        self.appoint().await;
        self.permit(settings, operation).await?;
        self.permitted = Some((operation.clone(), self.surgeon.now()));
        Ok(true)
    }

    /// Asks the operator's program whether the primary may change.
    pub(super) async fn permit(
        &self,
        settings: &Settings,
        operation: &Operation,
    ) -> Result<(), String> {
        let Some(hook) = hook(settings, &settings.group.failover.pre_hook, operation) else {
            return Ok(());
        };
        self.surgeon.ask_hook(hook).await.map_err(|why| format!("the pre_hook says no: {why}"))
    }

    /// Has the operator's program told that the primary has changed.
    pub(super) fn announce(&self, operation: &Operation) {
        let settings = self.settings.load();
        if let Some(hook) = hook(&settings, &settings.group.failover.post_hook, operation) {
            self.surgeon.tell_hook(hook);
        }
    }
}

fn hook(settings: &Settings, argv: &[String], operation: &Operation) -> Option<Hook> {
    let change = match operation.kind {
        Kind::Failover => "failover",
        Kind::Switchover => "switchover",
    };
    let told = vec![
        ("POINTSMAN_GROUP", settings.group.name.to_string()),
        ("POINTSMAN_CHANGE", change.to_owned()),
        ("POINTSMAN_FORMER", operation.former.clone()),
        ("POINTSMAN_HEIR", operation.heir.clone().unwrap_or_default()),
    ];
    let patience = settings.group.failover.hook_timeout;
    (!argv.is_empty()).then(|| Hook { argv: argv.to_vec(), told, patience })
}
