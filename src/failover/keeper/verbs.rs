//! What operators tell a keeper to do: to have another primary, or to replace a dead one.

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Command, Keeper, PATIENCE, Settings, Unfinished};
use crate::failover::order::Place;
use crate::failover::plan::switchover;
use crate::failover::record::{Operation, Record};
use crate::failover::report::{Report, told_by};
use crate::failover::surgeon::Surgeon;
use crate::topology::{Condition, Node, Topology};

impl<S: Surgeon> Keeper<S> {
    /// Does what an operator orders, or begins it.
    pub async fn obey(&mut self, command: Command) {
        let settings = self.settings.load_full();
        let topology = self.health.cell.load();
        match command {
            Command::ExplainSwitchOver(to, reply) => {
                let found = self.prepare(&settings, &topology, to.as_deref()).await;
                let _ = reply.send(found.map(|(operation, _)| explain(&operation, &topology)));
            }
            Command::SwitchOver(to, reply) => {
                match self.switch_over(&settings, &topology, to.as_deref()).await {
                    Ok(()) => self.asked_by = Some(reply),
                    Err(why) => drop(reply.send(Err(why))),
                }
            }
            Command::FailOver(reply) => {
                self.consent = true;
                let begun = self.fail_over(&settings, &topology).await;
                self.consent = false;
                match begun {
                    Ok(()) => self.asked_by = Some(reply),
                    Err(why) => drop(reply.send(Err(why))),
                }
            }
            Command::Maintain(on, reply) => drop(reply.send(self.maintain(on).await)),
        }
        self.appoint().await;
    }

    /// Tells who waits for the end of what was under way.
    pub(super) fn answer(&mut self, outcome: Result<String, String>) {
        if let Some(reply) = self.asked_by.take() {
            // Who has gone meanwhile finds it in the log.
            let _ = reply.send(outcome);
        }
    }

    /// Begins a switchover, if there may be one.
    async fn switch_over(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        to: Option<&str>,
    ) -> Result<(), String> {
        let (operation, reports) = self.prepare(settings, topology, to).await?;
        let node = self.primary(topology)?;
        self.permit(settings, &operation).await?;
        if self.account(settings, topology, (node, &reports)).await.is_none() {
            let why = &self.keeping.load().doing;
            let name = &node.name;
            return Err(format!("{name} could not follow: there is no account for it: {why}"));
        }
        let (group, from, to) = (&*topology.group, &*node.name, operation.heir.as_deref());
        tracing::warn!(group, from, to, "a switchover was ordered");
        let record = Record { operation: Some(operation), ..self.record.clone() };
        if !self.write_down(record).await {
            return Err(self.keeping.load().doing.clone());
        }
        Ok(())
    }

    /// The switchover that there may be, and what servers said of it; nothing is changed yet.
    async fn prepare(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        to: Option<&str>,
    ) -> Result<(Operation, Vec<Report>), String> {
        let node = self.primary(topology)?;
        let name = &node.name;
        if self.vouched.is_none() {
            return Err(self.keeping.load().doing.clone());
        }
        match node.condition {
            Condition::Up | Condition::Suspect | Condition::Draining => {}
            Condition::Down => {
                return Err(format!("{name} does not answer; FAILOVER replaces a dead primary"));
            }
            Condition::Excluded => return Err(format!("{name} is excluded: INCLUDE it first")),
        }
        let reports = self.ask_all(settings, topology).await;
        let head = told_by(&reports, node.id).ok_or_else(|| format!("{name} does not answer"))?;
        if !head.sources.is_empty() || head.is_read_only() {
            return Err(format!("{name}, which takes the writes, has been made read-only"));
        }
        let heir = switchover::choose(topology, &reports, node, to)?;
        let address = topology.node(heir.node).map(|node| &*node.address);
        if address.and_then(Place::of).is_none() {
            return Err(format!("{}: others cannot follow it by a unix socket", heir.name));
        }
        Ok((Operation::switchover(name, &heir.name), reports))
    }

    /// Begins a failover, if there may be one.
    async fn fail_over(&mut self, settings: &Settings, topology: &Topology) -> Result<(), String> {
        let node = self.primary(topology)?;
        let name = &node.name;
        match node.condition {
            Condition::Up | Condition::Draining if self.vouched.is_none() => {
                self.receive(settings, topology, node).await;
            }
            Condition::Up | Condition::Draining => {
                return Err(format!(
                    "{name} is not dead; SWITCHOVER changes a primary that is well"
                ));
            }
            Condition::Excluded => return Err(format!("{name} is excluded: INCLUDE it first")),
            Condition::Down | Condition::Suspect => {
                self.vouched = self.vouched.filter(|_| node.condition != Condition::Down);
                self.consider(settings, topology, node).await;
            }
        }
        match self.record.operation {
            Some(_) => Ok(()),
            None => Err(self.keeping.load().doing.clone()),
        }
    }

    /// The primary, if this keeper may change it and is not about to.
    fn primary<'a>(&self, topology: &'a Topology) -> Result<&'a Node, String> {
        self.refuse_to_follow()?;
        self.refuse_for_others()?;
        if let Some(operation) = &self.record.operation {
            return Err(format!("something is under way: {}", operation.describe()));
        }
        let name = self.record.primary.as_ref().ok_or("no primary has been found yet")?;
        let found = topology.named(name);
        found.ok_or_else(|| format!("{name}, which takes the writes, is not in the group"))
    }

    /// Why servers are not changed at all, if they are not.
    pub(super) fn refuse_to_follow(&self) -> Result<(), String> {
        match self.mode {
            Some(mode) if mode.keeps() => Ok(()),
            Some(mode) => Err(format!(
                "servers are not changed: failover.mode is \"{}\"; set \"manual\" or \"auto\"",
                mode.word()
            )),
            None => Err("the keeper has just been started".to_owned()),
        }
    }

    /// How many sessions have something unfinished on a server; `None` where that is not known.
    pub(super) async fn unfinished(&self, topology: &Topology, server: &str) -> Option<usize> {
        let node = topology.named(server)?.id;
        let (reply, answer) = oneshot::channel();
        self.ties.unfinished.try_send(Unfinished { node, reply }).ok()?;
        timeout(PATIENCE, answer).await.ok()?.ok()
    }
}

/// What a switchover would do, for operators.
fn explain(operation: &Operation, topology: &Topology) -> String {
    let (former, heir) = (&operation.former, operation.heir.as_deref().unwrap_or_default());
    let found = topology.named(heir);
    let lag = found.and_then(|node| node.lag).map_or(0.0, |lag| lag.as_secs_f64());
    format!("{former} would hand over to {heir}, which is {lag:.3} s behind, and follow it")
}
