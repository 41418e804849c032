//! What a keeper tells others: health who takes the writes, operators what it does, monitoring its
//! numbers.

use std::sync::Arc;
use std::time::Duration;

use super::{Keeper, Keeping};
use crate::config::failover::FailoverMode;
use crate::failover::keeper::company::Company;
use crate::failover::record::Kind;
use crate::failover::surgeon::Surgeon;
use crate::health;
use crate::metrics::kept::Changes;

impl<S: Surgeon> Keeper<S> {
    /// Tells health who may take the writes, where that has changed.
    pub(super) async fn appoint(&mut self) {
        let wanted = self.wanted();
        if wanted != self.appointed {
            // Only a group that is being given up has no health task.
            let told = wanted.clone();
            let _ = self.health.ask(|reply| health::Command::Appoint(told, reply)).await;
            self.appointed = wanted;
        }
        let is_held = self.appointed.is_nobody() || self.record.operation.is_some();
        self.kept.held = self.held_before + self.held();
        if !is_held {
            self.held_before = self.kept.held;
        }
        self.held_since = is_held.then(|| self.held_since.unwrap_or_else(|| self.surgeon.now()));
        self.publish();
    }

    /// How long nobody has taken the writes, this time.
    pub(super) fn held(&self) -> Duration {
        self.held_since.map_or(Duration::ZERO, |since| self.surgeon.now() - since)
    }

    /// Publishes its numbers.
    fn publish(&mut self) {
        let mode = self.mode.unwrap_or_default();
        self.kept.modes = FailoverMode::ALL.map(|at| (at.word(), at == mode)).to_vec();
        self.kept.epoch = if mode.keeps() { self.record.epoch } else { 0 };
        self.kept.maintenance = mode.keeps() && self.record.maintenance;
        self.kept.failed_over_at = self.record.failed_over_at;
        self.kept.leading = self.company.as_ref().map(Company::leading);
        self.ties.kept.store(Arc::new(self.kept.clone()));
    }

    /// How changes of the primary of this kind have ended.
    pub(super) fn changes(&mut self, kind: Kind) -> &mut Changes {
        match kind {
            Kind::Failover => &mut self.kept.failovers,
            Kind::Switchover => &mut self.kept.switchovers,
        }
    }

    /// Tells operators, once for each sentence.
    pub(super) fn say(&self, doing: String) {
        if self.keeping.load().doing != doing {
            let group = &*self.health.cell.load().group.clone();
            tracing::info!(group, "keeper: {doing}");
            let epoch = self.record.epoch;
            let members = self.keeping.load().members.clone();
            self.keeping.store(Arc::new(Keeping { epoch, doing, members }));
        }
    }
}
