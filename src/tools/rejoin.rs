//! `pointsman rejoin`: a server that was away follows the primary again, if it has nothing that the
//! primary lacks.

use crate::failover::record::Record;
use crate::failover::report::{READ_ONLY, Report, SUPER_READ_ONLY, Told};
use crate::failover::standing;
use crate::failover::upkeep::{self, Facts};
use crate::tools::plan::{Plan, VerbError};
use crate::tools::replicate::{await_following, follows};
use crate::tools::scene::{Member, Scene};

/// Plans how `target` follows the primary again. Where a running proxy keeps the group its keeper
/// does it, and is waited for.
///
/// # Errors
/// When it has transactions of its own, which are listed, or cannot follow for another reason.
pub async fn plan(scene: &Scene, target: &str) -> Result<Plan, VerbError> {
    let head = scene.source(None)?;
    let server = scene.member(target)?;
    let mut plan = Plan::new("rejoin", &scene.group.name);
    let name = &server.node.name;
    if server.node.id == head.node.id {
        return Err(VerbError::Refused(format!("{name} is the primary")));
    }
    let link = server.told.sources.first().filter(|_| follows(head, server));
    if let Some(own) = upkeep::own(server.told, head.told, link) {
        return Err(VerbError::Refused(format!(
            "{name} has diverged and stays out: it has transactions that {} has not: {own}; look \
             at them, then `pointsman rejoin --rebuild {target}` copies the data anew",
            head.node.name
        )));
    }
    if link.is_some() && server.told.is_read_only() {
        plan.notes.push(format!("{name} follows {} already", head.node.name));
        return Ok(plan);
    }
    if scene.group.failover.mode.keeps() && scene.console.answers().await {
        plan.notes.push(format!("the keeper of the running pointsman lets {name} follow"));
        await_following(&mut plan, head, server);
        return Ok(plan);
    }
    orders(scene, head, server, &mut plan)?;
    await_following(&mut plan, head, server);
    Ok(plan)
}

/// What upkeep would do now, and once the server takes no writes any more.
fn orders(
    scene: &Scene,
    head: Member<'_>,
    server: Member<'_>,
    plan: &mut Plan,
) -> Result<(), VerbError> {
    let accounts = scene.accounts()?;
    let record = Record { members: [server.node.name.to_string()].into(), ..Record::default() };
    let mut look = |reports: &[Report]| {
        let found = upkeep::look(&Facts {
            topology: &scene.topology,
            reports,
            primary: head.node.id,
            record: &record,
            accounts: Some(&accounts),
        });
        if let Some((name, why)) = found.left_out.into_iter().next() {
            return Err(VerbError::Refused(format!("{name} stays out: {why}")));
        }
        let its = found.orders.into_iter().filter(|order| order.node == server.node.id);
        for order in its {
            plan.tell(&server.node.name, order, "a failover must lose nothing");
        }
        Ok(())
    };
    look(&scene.reports)?;
    let told = closed(server.told);
    if told.variables != server.told.variables && server.told.sources.is_empty() {
        let node = server.node.id;
        let mut reports = scene.reports.clone();
        let its = reports.iter_mut().find(|report| report.node == node);
        its.into_iter().for_each(|report| report.told = Ok(told.clone()));
        look(&reports)?;
    }
    Ok(())
}

/// The same server when it takes no writes and asks for no acknowledgements.
fn closed(told: &Told) -> Told {
    let mut closed = told.clone();
    closed.variables.insert(READ_ONLY.to_owned(), "ON".to_owned());
    closed.variables.insert(SUPER_READ_ONLY.to_owned(), "ON".to_owned());
    if let Some(asks) = standing::asking(told) {
        closed.variables.insert(asks.to_owned(), "OFF".to_owned());
    }
    closed
}
