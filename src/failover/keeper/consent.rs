//! What operators say about changes beforehand: that there be none while they work on the group,
//! and, by a program of theirs, whether this one may be.

use super::{Keeper, Settings};
use crate::failover::hook::Hook;
use crate::failover::record::{Kind, Operation, Record};
use crate::failover::surgeon::Surgeon;

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
