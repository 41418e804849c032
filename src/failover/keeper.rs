//! The task that keeps a group: it looks whether the primary lives, replaces it when it is dead or
//! when an operator wants another one, and brings everything else back to where a failover loses
//! nothing.
//!
//! One thing at a time. What is about to be done is written down first, so that a keeper that was
//! ended in the middle goes on where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use crate::cluster::desk::Desk;
use crate::cluster::lease::Words;
use crate::config::failover::FailoverMode;
use crate::config::{Group, Monitor};
use crate::failover::ackers::Leaving;
use crate::failover::chair::Chair;
use crate::failover::execute::{Failed, MayAct};
use crate::failover::keeper::company::{Company, is_the_same};
use crate::failover::order::Order;
use crate::failover::record::{Kind, Operation, Record, Stage};
use crate::failover::report::Report;
use crate::failover::surgeon::{LiveSurgeon, Surgeon};
use crate::failover::survey::PATIENCE;
use crate::health::assemble::Appointment;
use crate::health::{Health, Reply};
use crate::metrics::Kept;
use crate::topology::acknowledged::Acknowledged;
use crate::topology::gtid::GtidSet;
use crate::topology::{Condition, NodeId, Topology};

mod acknowledged;
mod company;
mod consent;
mod evicting;
mod replacement;
mod settling;
mod sighted;
mod telling;
mod tending;
mod verbs;

/// How often a keeper looks at what health publishes, changes aside.
const TICK: Duration = Duration::from_millis(100);
/// How often it looks while a primary that is well hands over, and everybody waits for that.
const GLANCE: Duration = Duration::from_millis(20);
/// How often the servers of a group whose primary is well are all asked.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How soon a failover that was refused is thought over again.
const THINK_AGAIN: Duration = Duration::from_millis(500);
/// To how many seconds the journal knows when the primary was last seen to be well.
const WELL_TO_THE: u64 = 60;
/// How long a server is not asked again for what it has denied.
const DENIED_FOR: Duration = Duration::from_secs(60);

/// By what a keeper works; replaced by a reload.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The group's configuration.
    pub group: Arc<Group>,
    /// The account that asks and orders.
    pub monitor: Monitor,
}

/// What an operator tells a keeper to do. It answers when that is over.
#[derive(Debug)]
pub enum Command {
    /// Let another server be the primary: this one, or whoever is best.
    SwitchOver(Option<String>, Reply),
    /// Say what that would do.
    ExplainSwitchOver(Option<String>, Reply),
    /// Replace a primary that is dead.
    FailOver(Reply),
    /// Leave the group as it is from now on, but for what operators say; or keep it again.
    Maintain(bool, Reply),
}

/// Asks how many sessions have a transaction open on a server, or a statement running there.
#[derive(Debug)]
pub struct Unfinished {
    /// The server.
    pub node: NodeId,
    /// How many; dropped where that cannot be told.
    pub reply: oneshot::Sender<usize>,
}

/// What a keeper has to do with others.
#[derive(Debug)]
pub struct Ties {
    /// What operators tell it.
    pub commands: mpsc::Receiver<Command>,
    /// Where it asks for what sessions have begun.
    pub unfinished: mpsc::Sender<Unfinished>,
    /// The newest writes that clients of this pointsman were told of.
    pub acknowledged: Arc<Acknowledged>,
    /// Where its numbers go.
    pub kept: Arc<ArcSwap<Kept>>,
    /// Where it meets the keepers of other pointsman; `None` where it is alone.
    pub desk: Option<Desk>,
    /// Where it sits while it looks and acts.
    pub chair: Chair,
}

/// One of several pointsman, as operators see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub id: String,
    /// It is the one that acts.
    pub acts: bool,
    /// What it has said; a sentence.
    pub found: String,
}

/// What a keeper says of its group.
#[derive(Debug, Clone, Default)]
pub struct Keeping {
    /// Rises with every primary; 0 while none is known or the group is not kept.
    pub epoch: u64,
    /// What it does now, or why it does nothing; a sentence.
    pub doing: String,
    /// The pointsman that serve the group; none where this one is alone.
    pub members: Vec<Standing>,
}

/// The keeper of one group.
pub struct Keeper<S = LiveSurgeon> {
    settings: Arc<ArcSwap<Settings>>,
    surgeon: S,
    health: Health,
    keeping: Arc<ArcSwap<Keeping>>,
    record: Record,
    ties: Ties,
    /// Its place among others; `None` where it is alone.
    company: Option<Company>,
    /// Its numbers, as they will be published next.
    kept: Kept,
    /// Who is waiting for the end of what is under way.
    asked_by: Option<Reply>,
    /// An operator says that a dead primary is to be replaced now.
    consent: bool,
    /// Since when nobody takes the writes.
    held_since: Option<Instant>,
    /// How long that was before, all times together.
    held_before: Duration,
    /// The epoch on whose primary accounts were made last, and which: where the operator states
    /// none.
    admitted: (u64, BTreeSet<String>),
    /// When accounts are made again that somebody waits for.
    admit_at: Instant,
    /// Who does not receive from the primary.
    away: BTreeMap<String, Away>,
    /// Who is on its way out.
    leaving: Option<Leaving>,
    /// Until when those are not let in again that answered when they were evicted.
    resting: BTreeMap<String, Instant>,
    /// What the primary had when its commits began to wait for replicas, until one has all of it.
    unguarded: Option<GtidSet>,
    /// What servers were told when all was well, the last time that it was anything.
    tended: Vec<Order>,
    /// Who was told to receive no more and did not answer, and when: it may stop yet.
    stopping: BTreeMap<String, Instant>,
    /// What servers have said no to, and when.
    denied: Vec<(Order, Instant)>,
    /// When this process began to keep the group.
    started: Instant,
    /// The next time to look at everything.
    look_at: Instant,
    /// When the stage of a failover began.
    since: Instant,
    /// When the primary was last seen to take writes; `None` before that.
    well_at: Option<Instant>,
    /// Since when the primary has had no room on its disk for what is committed.
    full_since: Option<Instant>,
    /// The primary was down when it was last looked at.
    was_down: bool,
    /// Until when it is known what the primary has gone through; `None` while it is in doubt, and
    /// nobody takes the writes. One that is started later is in doubt.
    vouched: Option<Instant>,
    /// When servers were asked last.
    asked_at: Instant,
    /// Everybody waits for what was ordered a moment ago, and was done.
    has_ordered: bool,
    /// The mode of the last look; `None` before the first.
    mode: Option<FailoverMode>,
    /// What the operator's program has allowed last, and when.
    permitted: Option<(Operation, Instant)>,
    /// How often it had left the group to another process when it read the record.
    left: u64,
    /// What health was told last.
    appointed: Appointment,
}

/// Since when a member does not receive from the primary.
#[derive(Debug, Clone, Copy)]
struct Away {
    since: Instant,
    answers: bool,
}

/// Why one of several that agree by the servers writes nothing down.
const NOT_ACTING: &str = "this pointsman does not act for the group any more";

/// The file of the state directory with the password of this group's accounts for replicas.
#[must_use]
pub fn password_file(group: &str) -> String {
    format!("replica-password-{group}")
}

// === impls ===

/// Whom a keeper lets take the writes. `vouched` is until when it is known what the primary has
/// gone through; `None` where nobody knows, as after a start of this process.
#[must_use]
pub fn appointment(mode: FailoverMode, record: &Record, vouched: Option<Instant>) -> Appointment {
    let server = |name: &String, at: Instant| Appointment::Server(name.clone(), at.into_std());
    match (&record.operation, &record.primary, vouched) {
        _ if !mode.keeps() => Appointment::Open,
        (None, None, _) => Appointment::Open,
        (Some(operation), _, vouched) => match (operation.stage, &operation.heir, vouched) {
            (Stage::Open, Some(heir), Some(at)) => server(heir, at),
            _ if operation.kind == Kind::Failover && !operation.is_reopening() => {
                Appointment::Replacing(operation.former.clone(), operation.describe())
            }
            _ => Appointment::Nobody(operation.describe()),
        },
        (None, Some(primary), Some(at)) => server(primary, at),
        (None, Some(primary), None) => Appointment::Nobody(format!(
            "it is not known yet whether {primary} has all that it had"
        )),
    }
}

/// Whom it lets take them before it knows what other pointsman do.
#[must_use]
pub fn without_lease(mode: FailoverMode, words: &Words) -> Appointment {
    match mode.keeps() {
        true => Appointment::Nobody(words.not_yet.to_owned()),
        false => Appointment::Open,
    }
}

impl<S: Surgeon> Keeper<S> {
    /// A keeper that goes on from `record`, which was read from the journal.
    #[must_use]
    pub fn new(
        settings: Arc<ArcSwap<Settings>>,
        surgeon: S,
        health: Health,
        record: Record,
        mut ties: Ties,
    ) -> Self {
        let now = surgeon.now();
        let group = settings.load().group.clone();
        let company = ties.desk.take().map(Company::new);
        let mut record = record;
        // Who agrees with others by the servers has nobody who would have written more down.
        record.lossless &= company.as_ref().is_none_or(|company| !company.sees_servers());
        // What health began with.
        let appointed = match &company {
            Some(company) => without_lease(group.failover.mode, company.words()),
            None => appointment(group.failover.mode, &record, None),
        };
        Self {
            settings,
            surgeon,
            health,
            keeping: Arc::default(),
            record,
            ties,
            company,
            kept: Kept::default(),
            asked_by: None,
            consent: false,
            held_before: Duration::ZERO,
            held_since: appointed.is_nobody().then_some(now),
            admitted: (0, BTreeSet::new()),
            admit_at: now,
            away: BTreeMap::new(),
            leaving: None,
            resting: BTreeMap::new(),
            unguarded: None,
            tended: Vec::new(),
            stopping: BTreeMap::new(),
            denied: Vec::new(),
            started: now,
            look_at: now,
            since: now,
            well_at: None,
            full_since: None,
            was_down: false,
            vouched: None,
            asked_at: now,
            has_ordered: false,
            mode: None,
            permitted: None,
            left: 0,
            appointed,
        }
    }

    /// Where it says what it does.
    #[must_use]
    pub fn keeping(&self) -> Arc<ArcSwap<Keeping>> {
        self.keeping.clone()
    }

    /// Keeps the group until `shutdown` is true. A step that was begun is brought to its end.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut generation = self.health.cell.subscribe();
        loop {
            let kind = self.record.operation.as_ref().map(|operation| operation.kind);
            let pause = if kind == Some(Kind::Switchover) { GLANCE } else { TICK };
            let command = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = sleep(pause) => None,
                changed = generation.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => return,
                },
                Some(command) = self.ties.commands.recv() => Some(command),
                () = Company::changed(self.company.as_mut()) => None,
            };
            let seat = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                seat = self.ties.chair.sit() => seat,
            };
            if !self.knows_the_record(*seat) {
                continue;
            }
            if let Some(command) = command {
                self.obey(command).await;
            }
            while !*shutdown.borrow() && self.turn().await {}
        }
    }

    /// Reads the record again where another process may have kept the group, which it was left to
    /// `times` times; whether it is known.
    fn knows_the_record(&mut self, times: u64) -> bool {
        if self.left == times || self.mode == Some(FailoverMode::Follow) {
            return true;
        }
        match self.surgeon.recorded() {
            Ok(record) => {
                (self.record, self.left) = (record, times);
                (self.vouched, self.look_at) = (None, self.surgeon.now());
                self.lose_sight();
                true
            }
            Err(error) => {
                self.say(error.to_string());
                false
            }
        }
    }

    /// Looks once, and does what is to be done; whether there is more to do at once.
    pub async fn turn(&mut self) -> bool {
        let before = self.record.clone();
        self.has_ordered = false;
        self.look().await;
        self.appoint().await;
        self.tell_others().await;
        self.record.operation.is_some() && (self.record != before || self.has_ordered)
    }

    async fn look(&mut self) {
        let settings = self.settings.load_full();
        let mode = settings.group.failover.mode;
        // What was begun is brought to its end.
        let is_free = self.record.operation.is_none() || self.mode.is_none();
        if is_free && self.mode != Some(mode) && !self.change_to(mode) {
            return;
        }
        if self.mode == Some(FailoverMode::Follow) {
            return;
        }
        let acts = self.acts(&settings).await;
        let topology = self.health.cell.load();
        self.find_known(&topology);
        if !acts {
            return;
        }
        if let Some(operation) = self.record.operation.clone() {
            return self.go_on(&settings, &topology, operation).await;
        }
        let Some(primary) = self.record.primary.clone() else {
            return self.adopt(&topology).await;
        };
        let Some(node) = topology.named(&primary).cloned() else {
            return self.say(format!("{primary}, which takes the writes, is not in the group"));
        };
        let is_down = node.condition == Condition::Down;
        if std::mem::replace(&mut self.was_down, is_down) != is_down {
            self.look_at = self.surgeon.now();
        }
        // Started anew, it takes writes only when it is known what it has lost, and that its
        // commits wait as they did.
        self.vouched = self.vouched.filter(|at| is_the_same(&node, *at));
        self.note_well(&node);
        match node.condition {
            Condition::Up | Condition::Draining if self.vouched.is_none() => {
                if self.surgeon.now() >= self.look_at {
                    self.receive(&settings, &topology, &node).await;
                }
            }
            Condition::Up | Condition::Draining if self.surgeon.now() >= self.look_at => {
                self.look_after(&settings, &topology, &node).await;
            }
            Condition::Up | Condition::Draining => {}
            Condition::Suspect => self.health.probe_now(),
            Condition::Down if self.surgeon.now() >= self.look_at => {
                self.consider(&settings, &topology, &node).await;
            }
            Condition::Down => {}
            Condition::Excluded => {
                self.say(format!("{primary}, which takes the writes, was excluded"));
            }
        }
    }

    /// The group is kept from now on, or not any more: then whoever replication says takes the
    /// writes.
    fn change_to(&mut self, mode: FailoverMode) -> bool {
        match mode {
            FailoverMode::Follow => {
                self.say("servers are not changed: failover.mode is \"follow\"".to_owned());
            }
            // At the start it was read before anybody could take writes.
            FailoverMode::Manual | FailoverMode::Auto
                if self.mode != Some(FailoverMode::Follow) => {}
            FailoverMode::Manual | FailoverMode::Auto if self.company.is_some() => {
                self.lose_sight();
            }
            FailoverMode::Manual | FailoverMode::Auto => match self.surgeon.recorded() {
                Ok(record) => {
                    // Somebody else may have been the primary since.
                    self.record =
                        Record { primary: None, operation: None, closed: false, ..record };
                }
                Err(error) => {
                    self.say(error.to_string());
                    return false;
                }
            },
        }
        self.mode = Some(mode);
        true
    }

    /// Asks all servers, and notes when.
    async fn ask_all(&mut self, settings: &Settings, topology: &Topology) -> Vec<Report> {
        self.asked_at = self.surgeon.now();
        self.surgeon.survey(topology, &settings.monitor, &|_| Some(PATIENCE)).await
    }

    /// Has servers do what they were not seen to deny; whether all of it was done.
    async fn perform(
        &mut self,
        orders: Vec<Order>,
        settings: &Settings,
        topology: &Topology,
        reports: &[Report],
    ) -> bool {
        if self.company.as_ref().is_some_and(|company| !company.may_act()) {
            self.say("nothing is ordered: this pointsman does not act any more".to_owned());
            return false;
        }
        let now = self.surgeon.now();
        self.denied.retain(|(_, at)| now - *at < DENIED_FOR);
        let mut orders = orders;
        orders.retain(|order| !self.is_denied(order));
        if orders.is_empty() {
            return false;
        }
        let may_act: MayAct = match &self.company {
            Some(company) => company.permission(),
            None => Arc::new(|| true),
        };
        let monitor = &settings.monitor;
        let is_turned = orders.iter().any(|order| order.what.turns());
        let failed = self.surgeon.perform(orders, topology, reports, monitor, &may_act).await;
        if let Some(company) = &mut self.company {
            company.ring(is_turned);
        }
        for Failed { order, why, denied } in &failed {
            self.say(why.clone());
            if *denied {
                self.denied.push((order.clone(), self.surgeon.now()));
            }
        }
        self.note_unanswered(&failed, topology).await;
        failed.is_empty()
    }

    fn is_denied(&self, order: &Order) -> bool {
        self.denied.iter().any(|(denied, _)| denied == order)
    }

    /// Writes down what is about to be; `false` when that failed and it must not be done.
    async fn write_down(&mut self, record: Record) -> bool {
        let written = match self.company.as_mut() {
            Some(company) if !company.sees_servers() => company.write(&self.record, &record).await,
            Some(company) if !company.may_note(&record) => Err(NOT_ACTING.to_owned()),
            Some(_) | None => {
                self.surgeon.write_down(&record).await.map_err(|error| error.to_string())
            }
        };
        if let Err(error) = written {
            self.say(format!("nothing is done, since it cannot be written down: {error}"));
            return false;
        }
        let stage = |record: &Record| record.operation.as_ref().map(|at| at.stage);
        if stage(&record) != stage(&self.record) {
            self.since = self.surgeon.now();
        }
        self.record = record;
        true
    }
}
