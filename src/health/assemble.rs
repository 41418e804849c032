//! From members, judgements and an operator's wishes to the next topology.
//!
//! Roles come from replication first: a server that replicates within the group is a replica,
//! writable or not. `read_only` comes second: of those that do not replicate, one that is not
//! read-only takes the writes, and never two in one generation. When the facts are
//! contradictory there is no primary, and `no_primary_why` says what an operator must look at.
//! A server that a client of ours has made read-only is no server that is being demoted: it
//! stays the primary, and judges statements itself, while all others replicate from it. So does
//! one that has been told of a source which nobody has ever reached. Where the group is kept
//! ([`Appointment`]), all this says whether the appointed server may take the writes, and no other
//! ever does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::RoleHint;
use crate::health::judge::Judgement;
use crate::health::observation::{Seen, Source};
use crate::health::trail::Trail;
use crate::topology::gtid::GtidSet;
use crate::topology::{Condition, Node, NodeId, Role, Topology};

/// One server of the group, present or past; its index in the list of members is its id.
#[derive(Debug, Clone)]
pub struct Member {
    /// The operator's name, or the address.
    pub name: Arc<str>,
    /// `host:port`, or the path of a unix socket.
    pub address: Arc<str>,
    /// Configured share of reads.
    pub weight: u32,
    /// What the operator says it may be.
    pub hint: RoleHint,
    /// Why it is not a member any more; `None` while it is one.
    pub gone: Option<String>,
    /// The verdict on it.
    pub judgement: Judgement,
}

/// An operator's wishes by server name; they outlive probes and reloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Take nothing new.
    pub drained: BTreeSet<String>,
    /// Are not used at all.
    pub excluded: BTreeSet<String>,
    /// Weights in place of the configured ones.
    pub weights: BTreeMap<String, u32>,
    /// Who may take the writes.
    pub appointment: Appointment,
}

/// Who may take the writes, by the word of the one who keeps the group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Appointment {
    /// Whoever does not replicate and is writable: nobody keeps the group.
    #[default]
    Open,
    /// The server of this name and no other, whatever another says of itself; but only if it was
    /// not started after this time: nobody knows what that has cost it, and which settings it has.
    Server(String, Instant),
    /// Nobody for now, for this reason.
    Nobody(String),
    /// Nobody for now, for this reason: the server of this name, which took them, is given up. It
    /// counts as down even if it answers, as one does that can write nothing any more.
    Replacing(String, String),
}

/// What [`assemble`] works on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Index is id.
    pub members: &'a [Member],
    /// The operator's wishes.
    pub overrides: &'a Overrides,
    /// Where the previous topology's primary was when.
    pub trail: &'a Trail,
    /// Now.
    pub now: Instant,
}

/// Who takes the writes, or why nobody does.
type Choice = Result<usize, String>;

/// Builds the topology that follows `previous`. Its generation is one higher if anything but
/// positions, lag or wording changed.
#[must_use]
pub fn assemble(previous: &Topology, input: &Input<'_>) -> Topology {
    let choice = choose(previous, input);
    let primary = choice.as_ref().ok().copied();
    let nodes: Vec<Node> = input
        .members
        .iter()
        .enumerate()
        .map(|(index, member)| node(previous, input, index, member, primary))
        .collect();
    let mut next = Topology {
        generation: previous.generation,
        group: previous.group.clone(),
        primary: primary.and_then(|index| nodes.get(index)).map(|node| node.id),
        former: match primary {
            Some(_) => None,
            None => previous.last_primary().cloned().map(Arc::new),
        },
        no_primary_why: choice.err().unwrap_or_default(),
        nodes,
    };
    if differs(previous, &next) {
        next.generation = next.generation.saturating_add(1);
    }
    next
}

/// Whether `source` is this member, by address or by what either says of itself.
#[must_use]
pub fn is_source(source: &Source, member: &Member) -> bool {
    if source.address() == *member.address {
        return true;
    }
    member.judgement.seen().is_some_and(|seen| {
        let facts = &seen.facts;
        let same_uuid = !facts.server_uuid.is_empty() && *facts.server_uuid == source.server_uuid;
        same_uuid || (source.server_id != 0 && facts.server_id == source.server_id)
    })
}

impl Appointment {
    /// Whether nobody may take them.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody(_) | Self::Replacing(..))
    }

    fn gives_up(&self, server: &str) -> bool {
        matches!(self, Self::Replacing(former, _) if *former == *server)
    }
}

/// The condition as judged, overridden by the operator's wishes.
fn condition(overrides: &Overrides, member: &Member) -> Condition {
    if member.gone.is_some() || overrides.excluded.contains(&*member.name) {
        Condition::Excluded
    } else if overrides.drained.contains(&*member.name) {
        Condition::Draining
    } else if overrides.appointment.gives_up(&member.name) {
        Condition::Down
    } else {
        member.judgement.condition()
    }
}

fn node(
    previous: &Topology,
    input: &Input<'_>,
    index: usize,
    member: &Member,
    primary: Option<usize>,
) -> Node {
    let id = NodeId(u16::try_from(index).unwrap_or(u16::MAX));
    let seen = member.judgement.seen();
    let condition = condition(input.overrides, member);
    let role = role(previous, input, index, member, primary);
    let applied = seen.map_or_else(GtidSet::default, |seen| match role {
        Role::Replica => seen.replicated.clone(),
        Role::Primary | Role::Unknown => seen.executed.clone(),
    });
    let lag = match role {
        Role::Primary => Some(Duration::ZERO),
        Role::Unknown => None,
        Role::Replica => lag(input.trail, member, &applied),
    };
    let applying = match role {
        Role::Primary => true,
        Role::Unknown => false,
        Role::Replica => seen.is_some_and(|seen| seen.sources.iter().all(|at| at.applying)),
    };
    let facts = seen.map(|seen| seen.facts.clone());
    let of_primary = primary.and_then(|at| input.members.get(at)?.judgement.seen());
    let alike = match (&facts, of_primary) {
        (Some(facts), Some(primary)) => facts.session_defaults == primary.facts.session_defaults,
        (Some(_) | None, _) => true,
    };
    let weight = input.overrides.weights.get(&*member.name).copied().unwrap_or(member.weight);
    Node {
        id,
        name: member.name.clone(),
        address: member.address.clone(),
        role,
        condition,
        weight,
        lag,
        promotion: member.hint.promotion(),
        applying,
        alike,
        started: seen.and_then(|seen| seen.started),
        read_only: seen.is_some_and(|seen| seen.read_only),
        applied,
        observed_at: member.judgement.seen_at(),
        probed: member.judgement.observed(),
        leaving: member.judgement.leaving(),
        facts,
        trouble: trouble(member),
    }
}

fn role(
    previous: &Topology,
    input: &Input<'_>,
    index: usize,
    member: &Member,
    primary: Option<usize>,
) -> Role {
    if primary == Some(index) {
        return Role::Primary;
    }
    if member.gone.is_some() {
        return Role::Unknown;
    }
    let replicates = member.judgement.seen().is_some_and(|seen| replicates(input.members, seen));
    if replicates {
        return Role::Replica;
    }
    // The last primary keeps the word while it is out of use, or about to be, and nobody took its
    // place, so that operators see which server is missed.
    let was_primary = previous.nodes.get(index).is_some_and(|node| node.role == Role::Primary);
    let is_missed = condition(input.overrides, member) != Condition::Up;
    if primary.is_none() && was_primary && is_missed { Role::Primary } else { Role::Unknown }
}

/// Notes in the trail where the primary of the topology that was assembled is.
pub fn note_position(trail: &mut Trail, topology: &Topology, members: &[Member]) {
    let Some(primary) = topology.primary else { return };
    trail.follow(primary);
    if let Some(member) = members.get(usize::from(primary.0))
        && let Some(seen) = member.judgement.seen()
        && let Some(at) = member.judgement.seen_until()
    {
        trail.push(at, seen.executed.clone());
    }
}

fn lag(trail: &Trail, member: &Member, applied: &GtidSet) -> Option<Duration> {
    let by_position = member.judgement.seen_at().and_then(|at| trail.lag(applied, at));
    by_position.or_else(|| {
        let seen = member.judgement.seen()?;
        let behind = seen.sources.iter().filter_map(|source| source.seconds_behind).max()?;
        Some(Duration::from_secs(behind))
    })
}

fn trouble(member: &Member) -> String {
    if let Some(gone) = &member.gone {
        return gone.clone();
    }
    let judged = member.judgement.trouble();
    if !judged.is_empty() {
        return judged.to_owned();
    }
    let seen = member.judgement.seen();
    let mut sources = seen.into_iter().flat_map(|seen| &seen.sources);
    sources.find(|source| !source.error.is_empty()).map_or(String::new(), |at| at.error.clone())
}

/// Whether a server replicates from within the group. Replication from elsewhere is assumed to
/// be from within until every member is known and none of them is the source.
fn replicates(members: &[Member], seen: &Seen) -> bool {
    let all_known = present(members).all(|member| member.judgement.seen().is_some());
    seen.sources.iter().any(|source| {
        let from_within = present(members).any(|member| is_source(source, member));
        from_within || is_nameless(source) || !all_known
    })
}

/// Those that belong to the group.
fn present(members: &[Member]) -> impl Iterator<Item = &Member> {
    members.iter().filter(|member| member.gone.is_none())
}

/// How many live members replicate from this one.
fn followers(members: &[Member], member: &Member) -> usize {
    let live = present(members).filter_map(|other| other.judgement.alive());
    live.filter(|other| other.sources.iter().any(|source| is_source(source, member))).count()
}

/// Whether a source is known by its address only: nobody has connected to it.
fn is_nameless(source: &Source) -> bool {
    source.server_id == 0 && source.server_uuid.is_empty()
}

/// Whether a server takes writes, and has reached none of the sources that it was told of.
fn is_told(seen: &Seen) -> bool {
    !seen.read_only && seen.sources.iter().all(is_nameless)
}

/// Whether that is all there is: nobody else has ever reached them either.
fn is_only_told(members: &[Member], seen: &Seen) -> bool {
    let unseen =
        |source| present(members).all(|at| !is_source(source, at) || at.judgement.seen().is_none());
    is_told(seen) && seen.sources.iter().all(unseen)
}

/// The present primary where it takes writes and has replicas, and has been told to follow another
/// server, which it has not reached: nobody can say which of the two is meant.
fn is_half_turned(members: &[Member], was: Option<usize>) -> Option<&Member> {
    let member = members.get(was?).filter(|member| member.gone.is_none())?;
    let seen = member.judgement.alive()?;
    let told = is_told(seen) && !seen.sources.is_empty();
    (told && followers(members, member) > 0).then_some(member)
}

/// Chooses the primary.
fn choose(previous: &Topology, input: &Input<'_>) -> Choice {
    let members = input.members;
    let was = previous.primary.map(|id| usize::from(id.0));
    let may_be = |member: &Member| match &input.overrides.appointment {
        Appointment::Open => member.hint != RoleHint::Replica,
        Appointment::Server(name, _) => *name == *member.name,
        Appointment::Nobody(_) | Appointment::Replacing(..) => false,
    };
    match &input.overrides.appointment {
        Appointment::Open => {}
        Appointment::Server(name, vouched) => doubts(members, name, *vouched)?,
        Appointment::Nobody(why) | Appointment::Replacing(_, why) => return Err(why.clone()),
    }
    let heads: Vec<Head<'_>> = members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.gone.is_none() && may_be(member))
        .filter_map(|(index, member)| Head::of(input, index, member, was == Some(index)))
        .collect();
    let writable: Vec<&Head<'_>> = heads.iter().filter(|head| head.writable(&heads)).collect();
    let closed = || heads.iter().find(|head| head.closed(members));
    let Some(best) = prefer(&writable, was)?.or_else(closed) else {
        return Err(nobody(previous, input, &heads));
    };
    if was != Some(best.index)
        && let Some(turned) = is_half_turned(members, was)
    {
        return Err(format!(
            "{} takes writes, has replicas, and has been told to replicate from another server, \
             which it has not reached: set read_only on it, or RESET its replication",
            turned.name
        ));
    }
    let waits_for = present(members).find(|at| !at.judgement.observed());
    if let Some(unknown) = waits_for
        && was != Some(best.index)
        && best.attached == 0
    {
        return Err(format!("waiting for the first probe of {}", unknown.name));
    }
    match condition(input.overrides, best.member) {
        Condition::Draining => {
            Err(format!("the primary {} is drained by an operator's command", best.member.name))
        }
        Condition::Excluded => {
            Err(format!("the primary {} is excluded by an operator's command", best.member.name))
        }
        Condition::Up | Condition::Suspect | Condition::Down => Ok(best.index),
    }
}

/// Whether the server of this name may have been started after this time. One that has missed a
/// probe may be about to take writes by settings of which nobody knows.
fn doubts(members: &[Member], name: &str, vouched: Instant) -> Result<(), String> {
    let Some(member) = present(members).find(|member| *member.name == *name) else {
        return Ok(());
    };
    let Some(seen) = member.judgement.alive() else { return Ok(()) };
    if !member.judgement.answered() {
        return Err(format!("{name} has not answered: {}", member.judgement.trouble()));
    }
    if seen.started.is_some_and(|started| started > vouched) {
        return Err(format!("{name} was started anew, and its keeper has not looked at it yet"));
    }
    Ok(())
}

/// The best of the writable servers; an error when two have equal claims.
fn prefer<'a>(
    writable: &[&'a Head<'a>],
    was: Option<usize>,
) -> Result<Option<&'a Head<'a>>, String> {
    let Some(best) = writable.iter().copied().max_by_key(|head| head.rank(was)) else {
        return Ok(None);
    };
    let mut chosen = best;
    for rival in writable.iter().copied().filter(|head| head.index != best.index) {
        let present = was == Some(rival.index);
        // Replicas are attached to one server while another is, or claims to be, further: an old
        // primary has come back, or a new one was made behind a frozen one.
        let claims = match was {
            Some(was) if was == best.index => rival.attached > 0,
            Some(_) | None => true,
        };
        if rival.rank(was) == best.rank(was) {
            return Err(format!(
                "{} and {} are both writable and neither replicates from the other: \
                 set read_only on one of them",
                best.member.name, rival.member.name
            ));
        } else if present && rival.is_ahead_of(best) {
            chosen = rival;
        } else if (claims && rival.is_ahead_of(best)) || (present && !best.is_ahead_of(rival)) {
            return Err(format!(
                "{} has replicas attached, {} has as much or more history, and both are \
                 writable: set read_only on the one that is not the primary",
                best.member.name, rival.member.name
            ));
        }
    }
    Ok(Some(chosen))
}

/// A live server that does not replicate within the group.
#[derive(Debug)]
struct Head<'a> {
    index: usize,
    member: &'a Member,
    seen: &'a Seen,
    /// How many live members replicate from it.
    attached: usize,
}

impl<'a> Head<'a> {
    fn of(input: &Input<'a>, index: usize, member: &'a Member, is_present: bool) -> Option<Self> {
        let seen = member.judgement.alive()?;
        let replicates = replicates(input.members, seen);
        if replicates && !(is_present && is_only_told(input.members, seen)) {
            return None;
        }
        let attached = followers(input.members, member);
        let known = |other: &&Member| other.judgement.seen().is_some();
        let others = present(input.members).filter(known).count().saturating_sub(1);
        (!replicates || attached == others).then_some(Self { index, member, seen, attached })
    }

    /// Whether it may take writes: not read-only, and not an empty stranger beside a server
    /// that has a history (one that is being set up, or was initialised by mistake).
    fn writable(&self, heads: &[Self]) -> bool {
        let stranger = self.attached == 0
            && self.seen.executed.is_empty()
            && heads.iter().any(|other| !other.seen.executed.is_empty());
        !self.seen.read_only && !stranger
    }

    /// Whether it is read-only by a client's statement alone: nobody else may be meant to take
    /// its place, since all others are seen to replicate from it.
    fn closed(&self, members: &[Member]) -> bool {
        let others = present(members).count().saturating_sub(1);
        self.seen.read_only && self.member.judgement.closed_by_client() && self.attached == others
    }

    /// Whether its history contains the other's and more.
    fn is_ahead_of(&self, other: &Self) -> bool {
        let (mine, theirs) = (&self.seen.executed, &other.seen.executed);
        mine.contains(theirs) && !theirs.contains(mine)
    }

    /// Order of preference: replicas attached, then staying with the present primary, then the
    /// operator's hint.
    fn rank(&self, was: Option<usize>) -> (bool, bool, bool) {
        (self.attached > 0, was == Some(self.index), self.member.hint == RoleHint::Primary)
    }
}

/// The sentence for operators when no server can take writes.
fn nobody(previous: &Topology, input: &Input<'_>, heads: &[Head<'_>]) -> String {
    let present = || present(input.members);
    let read_only: Vec<&str> =
        heads.iter().filter(|head| head.seen.read_only).map(|head| &*head.member.name).collect();
    if !read_only.is_empty() {
        let verb = if read_only.len() == 1 { "does" } else { "do" };
        return format!(
            "{} {verb} not replicate and {} read_only: waiting for a writable server",
            read_only.join(" and "),
            if read_only.len() == 1 { "is" } else { "are" }
        );
    }
    let missed = previous.nodes.iter().zip(input.members).find_map(|(node, member)| {
        let down = member.gone.is_none() && member.judgement.condition() == Condition::Down;
        (node.role == Role::Primary && down).then_some(member)
    });
    if let Some(member) = missed {
        let since = member.judgement.down_since();
        let seconds = since.map_or(0, |at| input.now.saturating_duration_since(at).as_secs());
        return format!(
            "the primary {} is down since {seconds} s: {}",
            member.name,
            member.judgement.trouble()
        );
    }
    if let Some(unknown) = present().find(|member| !member.judgement.observed()) {
        return format!("waiting for the first probe of {}", unknown.name);
    }
    let Some(alive) = present().find_map(|at| Some((at, at.judgement.alive()?))) else {
        let first = present().next().map_or(String::new(), |member| {
            format!(": {}: {}", member.name, member.judgement.trouble())
        });
        return format!("no server of the group can be reached{first}");
    };
    let (member, seen) = alive;
    match seen.sources.first() {
        Some(source) => format!(
            "every reachable server is a replica; {} replicates from {}",
            member.name,
            source.address()
        ),
        None => format!("{} is not replicating, and its hint says replica", member.name),
    }
}

/// Whether roles, conditions, weights, membership or the primary differ.
fn differs(before: &Topology, after: &Topology) -> bool {
    let key = |node: &Node| {
        (
            (node.role, node.condition, node.weight, node.applying, node.alike),
            node.read_only,
            node.name.clone(),
        )
    };
    before.primary != after.primary
        || before.nodes.len() != after.nodes.len()
        || before.nodes.iter().zip(&after.nodes).any(|(old, new)| {
            key(old) != key(new) || old.facts != new.facts || old.address != new.address
        })
}

#[cfg(test)]
mod tests;
