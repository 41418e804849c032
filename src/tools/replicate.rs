//! `pointsman replicate` and `pointsman clone`: a server becomes a replica from nothing.

use crate::config::Monitor;
use crate::config::failover::ReplicationAccount;
use crate::failover::order::{Order, Place, What};
use crate::failover::report::{Report, Told};
use crate::failover::upkeep::{self, Own};
use crate::health::observation::{Failure, Source};
use crate::tools::choose::{self, Choice};
pub use crate::tools::choose::{Method, Overwrite, Wanted};
use crate::tools::inspect::inspect;
use crate::tools::plan::{Act, Plan, VerbError};
use crate::tools::preflight::{self, Inspection, Pair, Side};
use crate::tools::salvage::{self, Salvage};
use crate::tools::scene::{Member, Scene};
use crate::tools::seed::Seeding;
use crate::topology::Flavour;

/// From where the data comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Donor {
    /// From the server that will be followed.
    Source,
    /// From the replica with the least to do, where there is one.
    LeastLoaded,
}

/// Plans how `target` becomes a replica of the group's primary, or of the server `from`.
///
/// # Errors
/// When it must not: a check fails, or it has data of its own that nobody said may be given up.
pub async fn plan(
    scene: &Scene,
    verb: &'static str,
    (from, target): (Option<&str>, &str),
    wanted: Wanted,
    donor: Donor,
) -> Result<Plan, VerbError> {
    let source = scene.source(from)?;
    let replica = scene.member(target)?;
    let mut plan = Plan::new(verb, &scene.group.name);
    let (to, name) = (&source.node.name, &replica.node.name);
    if source.node.id == replica.node.id {
        return Err(VerbError::Refused(format!("{name} is the server that others are to follow")));
    }
    let link = link(source, replica).filter(|_| follows(source, replica));
    let own = upkeep::own(replica.told, source.told, link);
    // Who wants the data of a replica that is well copied again says how.
    let again = wanted.overwrite == Overwrite::Allow && wanted.method == Method::Logical;
    if link.is_some() && own.is_none() && !again {
        plan.notes.push(format!("{name} replicates from {to} already"));
        return Ok(plan);
    }
    let account = scene.accounts()?.of(replica.told, source.told);
    if let Some(made) = &source.told.made
        && made.locked.contains(&account.user)
    {
        let user = &account.user;
        return Err(VerbError::Refused(format!(
            "{name} is evicted: its account {user} is locked on {to}, and the keeper of a running \
             pointsman lets it in when it follows again: `pointsman rejoin {target}`"
        )));
    }
    let at_source = looked_into(scene, source, &account.user).await?;
    let at_replica = looked_into(scene, replica, &account.user).await?;
    let pair = Pair {
        source: Side { node: source.node, told: source.told, more: &at_source },
        replica: Side { node: replica.node, told: replica.told, more: &at_replica },
        max_lag: scene.group.max_lag,
    };
    plan.findings = preflight::before(&pair);
    plan.refuse_failed()?;
    leads_nobody(&pair, wanted)?;
    let choice = choose::choose(&pair, wanted, own.as_ref().map(Own::to_string).as_deref())?;
    plan.notes.push(choice.why.clone());
    if choice.copy {
        may_copy(scene, &pair)?;
    }
    let place = Place::of(&source.node.address).ok_or_else(|| {
        VerbError::Refused(format!("{to}: others cannot follow it by a unix socket"))
    })?;
    let known = left_alone(&mut plan, scene, replica).await;
    if let Some(own) = own.filter(|_| choice.copy) {
        keep_own(&mut plan, scene, (source, replica), &own);
    }
    if !is_admitted(scene, &account) {
        let admit = Order { node: source.node.id, what: What::Admit(account.clone()) };
        plan.tell(to, admit, "the replica logs in by it");
    }
    if choice.copy {
        let donor = donor_of(scene, (source, replica), donor);
        copy(&mut plan, scene, (donor, replica, &at_replica), &choice);
    }
    attach(&mut plan, (source, replica), (place, account), &choice);
    if let Some(known) = known {
        let command = format!("INCLUDE {known}");
        let why = "it may be read from, and kept, from now on";
        plan.push(name, command.clone(), why, Act::Console(command));
    }
    Ok(plan)
}

/// Whether the account by which replicas log in is there: the operator has stated it, or a replica
/// uses it.
fn is_admitted(scene: &Scene, account: &ReplicationAccount) -> bool {
    let by_it = |at: &Source| at.receiving && at.user == account.user;
    let mut sources = scene.reports.iter().filter_map(Report::told).flat_map(|told| &told.sources);
    scene.group.failover.replication.is_some() || sources.any(by_it)
}

/// Adds the steps by which a server that has its data follows.
fn attach(
    plan: &mut Plan,
    (source, replica): (Member<'_>, Member<'_>),
    (place, account): (Place, ReplicationAccount),
    choice: &Choice,
) {
    let Member { node, told } = replica;
    let close = Order { node: node.id, what: What::Close };
    plan.tell(&node.name, close, "what is written to a replica is lost to the others");
    let goes_on = !choice.copy && !told.executed.is_empty() && told.sources.is_empty();
    let what = match goes_on {
        // It may have been a primary: its own writes count.
        true => What::Follow(place, account),
        false => What::Join(place, account),
    };
    let follow = Order { node: node.id, what };
    plan.tell(&node.name, follow, "from there it gets everything new, by GTID");
    await_following(plan, source, replica);
}

/// A proxy that runs must neither read from the server nor have it follow meanwhile; its name
/// there, if it knows the server.
async fn left_alone(plan: &mut Plan, scene: &Scene, replica: Member<'_>) -> Option<String> {
    let shown = scene.console.servers(&scene.group.name).await.ok()?;
    let known = shown.into_iter().find(|at| at.address == *replica.node.address)?;
    let name = format!("{}.{}", scene.group.name, known.server);
    let command = format!("EXCLUDE {name}");
    let why = "the running pointsman must not use it or change it meanwhile";
    plan.push(&replica.node.name, command.clone(), why, Act::Console(command));
    Some(name)
}

/// Refuses a server that others follow: they would get what is done to it, or lose their source.
fn leads_nobody(pair: &Pair<'_>, wanted: Wanted) -> Result<(), VerbError> {
    let Side { node, told, more } = pair.replica;
    let gives_up = wanted.overwrite == Overwrite::Allow || told.sources.is_empty();
    match more.followers {
        0 => Ok(()),
        _ if !gives_up => Ok(()),
        followers => Err(VerbError::Refused(format!(
            "{followers} servers replicate from {}: turn them to another source first, or promote \
             one of them",
            node.name
        ))),
    }
}

/// Adds the wait until a server follows.
pub(super) fn await_following(plan: &mut Plan, source: Member<'_>, replica: Member<'_>) {
    let what = format!("is waited for until it has all that {} has now", source.node.name);
    let act = Act::Await { replica: replica.node.id, source: source.node.id };
    plan.push(&replica.node.name, what, "a replica that is behind is of no use", act);
}

/// Whether it replicates from the source, and both threads are at it.
pub(super) fn follows(source: Member<'_>, replica: Member<'_>) -> bool {
    link(source, replica).is_some_and(|link| link.receiving && link.applying)
}

/// Its link to the source, whatever state that is in.
fn link<'a>(source: Member<'_>, replica: Member<'a>) -> Option<&'a Source> {
    replica.told.link_to(source.node, Some(source.told))
}

async fn looked_into(
    scene: &Scene,
    member: Member<'_>,
    user: &str,
) -> Result<Inspection, VerbError> {
    let looking = inspect(&member.node.address, &scene.account, &scene.trust, user);
    looking.await.map_err(|failure: Failure| {
        VerbError::Refused(format!("{} was asked for its settings: {failure}", member.node.name))
    })
}

/// Whether our account may copy everything; one that sees little would take a full server for an
/// empty one.
fn may_copy(scene: &Scene, pair: &Pair<'_>) -> Result<(), VerbError> {
    let blind = [pair.source, pair.replica].into_iter().find(|side| !side.more.sees_everything);
    match blind {
        None => Ok(()),
        Some(side) => {
            let Monitor { user, .. } = &scene.account;
            let name = &side.node.name;
            Err(VerbError::Refused(format!(
                "{user} may not see and change everything on {name}, which copying needs: name an \
                 account that may, by --user and --password-file"
            )))
        }
    }
}

/// The server that data is copied from: never the one that gets it, and none that has anything of
/// its own.
fn donor_of<'a>(
    scene: &'a Scene,
    (source, replica): (Member<'a>, Member<'a>),
    donor: Donor,
) -> Member<'a> {
    if donor == Donor::Source {
        return source;
    }
    let others = scene.topology.nodes.iter().filter(|node| node.id != replica.node.id);
    let members = others.filter_map(|node| scene.member(&node.address).ok());
    let fit = members.filter(|at| {
        let is_well = at.node.condition.usable() && follows(source, *at);
        let own = || upkeep::own(at.told, source.told, link(source, *at));
        is_well && knows_its_position(at.told) && own().is_none()
    });
    // Who takes the fewest reads has the least to do.
    fit.min_by_key(|at| (at.node.weight, at.node.lag)).unwrap_or(source)
}

/// Whether a dump of this replica says where in the group's history it was made: on MariaDB that is
/// read from its binary log, which must have all domains.
fn knows_its_position(told: &Told) -> bool {
    match told.flavour {
        Flavour::MySql => true,
        Flavour::MariaDb => told.is_on("log_slave_updates") && told.history.contains(&told.applied),
    }
}

/// Adds the step that keeps what only the server has whose data is given up.
fn keep_own(
    plan: &mut Plan,
    scene: &Scene,
    (source, replica): (Member<'_>, Member<'_>),
    own: &Own,
) {
    let Member { node, told } = replica;
    let path = salvage::file(&scene.state_dir, &scene.group.name, &node.name);
    let what = format!("what only it has ({own}) is saved in {}", path.display());
    let salvage = Salvage {
        flavour: told.flavour,
        from: node.address.to_string(),
        choices: salvage::choices(own, source.told),
        account: scene.account.clone(),
        tls: scene.group.server_tls.clone(),
        path,
    };
    plan.push(&node.name, what, "clients may have been told of it", Act::Save(Box::new(salvage)));
}

/// Adds the steps that bring the donor's data to the replica.
fn copy(
    plan: &mut Plan,
    scene: &Scene,
    (donor, replica, more): (Member<'_>, Member<'_>, &Inspection),
    choice: &Choice,
) {
    let (node, told) = (replica.node, replica.told);
    let settle = |statement: String| Order { node: node.id, what: What::Settle(statement) };
    let why = "the operator gives up what it has";
    if !told.sources.is_empty() {
        for what in [What::StopReceiver, What::Detach] {
            plan.tell(&node.name, Order { node: node.id, what }, why);
        }
    }
    if told.is_read_only() {
        let why = "its data comes by statements";
        plan.tell(&node.name, Order { node: node.id, what: What::Open }, why);
    }
    if choice.overwrite {
        for (schema, _) in &more.tables {
            let schema = schema.replace('`', "``");
            plan.tell(&node.name, settle(format!("DROP DATABASE `{schema}`")), why);
        }
        let forget = match told.flavour {
            Flavour::MySql if told.version >= 80_400 => "RESET BINARY LOGS AND GTIDS",
            Flavour::MySql | Flavour::MariaDb => "RESET MASTER",
        };
        plan.tell(&node.name, settle(forget.to_owned()), why);
        if told.flavour == Flavour::MariaDb {
            plan.tell(&node.name, settle("SET GLOBAL gtid_slave_pos = ''".to_owned()), why);
        }
    }
    let seeding = Seeding {
        flavour: told.flavour,
        replica: node.id,
        from: donor.node.address.to_string(),
        to: node.address.to_string(),
        account: scene.account.clone(),
        tls: scene.group.server_tls.clone(),
    };
    let what = format!("get all data and accounts of {}, as a dump that is piped", donor.node.name);
    plan.push(&node.name, what, "it goes on from there", Act::Seed(Box::new(seeding)));
}
