//! The task that keeps a group: it looks whether the primary lives, replaces it when it is dead or
//! when an operator wants another one, and brings everything else back to where a failover loses
//! nothing.
//!
//! One thing at a time. What is about to be done is written down first, so that a keeper that was
//! ended in the middle goes on where it was.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use crate::cluster::desk::Desk;
use crate::config::failover::{FailoverMode, ReplicationAccount};
use crate::config::{Group, Monitor};
use crate::failover::chair::Chair;
use crate::failover::execute::Failed;
use crate::failover::keeper::company::{Company, is_the_same};
use crate::failover::order::{Order, What};
use crate::failover::record::{Kind, Operation, Record, Stage};
use crate::failover::report::{Report, Told, told_by};
use crate::failover::standing::{self, Check};
use crate::failover::surgeon::{LiveSurgeon, Surgeon};
use crate::failover::survey::PATIENCE;
use crate::failover::upkeep;
use crate::health::assemble::Appointment;
use crate::health::{Health, Reply};
use crate::metrics::Kept;
use crate::topology::gtid::GtidSet;
use crate::topology::{Condition, Node, NodeId, Topology};

mod company;
mod consent;
mod replacement;
mod settling;
mod telling;
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
    /// The epoch on whose primary the account was made last that is made where the operator states
    /// none.
    admitted: Option<u64>,
    /// When that account is made again that somebody waits for.
    admit_at: Instant,
    /// What the primary had when its commits began to wait for replicas, until one has all of it.
    unguarded: Option<GtidSet>,
    /// What servers were told when all was well, the last time that it was anything.
    tended: Vec<Order>,
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
    /// Replicas were told to receive no more while the primary was judged, and are to again.
    cut_off: bool,
    /// The primary was down when it was last looked at.
    was_down: bool,
    /// Until when it is known what the primary has gone through; `None` while it is in doubt, and
    /// nobody takes the writes. One that is started later is in doubt.
    vouched: Option<Instant>,
    /// When servers were asked last.
    asked_at: Instant,
    /// The mode of the last look; `None` before the first.
    mode: Option<FailoverMode>,
    /// How often it had left the group to another process when it read the record.
    left: u64,
    /// What health was told last.
    appointed: Appointment,
}

/// The name of the account that is made.
pub const OWN_ACCOUNT: &str = "pointsman_replica";

/// The file of the state directory with that account's password, for this group.
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
pub fn without_lease(mode: FailoverMode) -> Appointment {
    match mode.keeps() {
        true => Appointment::Nobody(company::NO_LEASE.to_owned()),
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
        // What health began with.
        let appointed = match &company {
            Some(_) => without_lease(group.failover.mode),
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
            held_since: matches!(appointed, Appointment::Nobody(_)).then_some(now),
            admitted: None,
            admit_at: now,
            unguarded: None,
            tended: Vec::new(),
            denied: Vec::new(),
            started: now,
            look_at: now,
            since: now,
            well_at: None,
            cut_off: false,
            was_down: false,
            vouched: None,
            asked_at: now,
            mode: None,
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
            while self.turn().await {}
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
        self.look().await;
        self.appoint().await;
        self.tell_others().await;
        self.record.operation.is_some() && self.record != before
    }

    async fn look(&mut self) {
        let settings = self.settings.load_full();
        let mode = settings.group.failover.mode;
        // What was begun is brought to its end.
        let is_free = self.record.operation.is_none() || self.mode.is_none();
        if is_free && self.mode != Some(mode) && !self.change_to(mode) {
            return;
        }
        if self.mode == Some(FailoverMode::Follow) || !self.acts(&settings).await {
            return;
        }
        let topology = self.health.cell.load();
        if let Some(operation) = self.record.operation.clone() {
            return self.go_on(&settings, &topology, operation).await;
        }
        let Some(primary) = self.record.primary.clone() else {
            return self.adopt(&topology).await;
        };
        let Some(node) = topology.nodes.iter().find(|node| *node.name == *primary).cloned() else {
            return self.say(format!("{primary}, which takes the writes, is not in the group"));
        };
        let is_down = node.condition == Condition::Down;
        if std::mem::replace(&mut self.was_down, is_down) != is_down {
            self.look_at = self.surgeon.now();
        }
        // Started anew, it takes writes only when it is known what it has lost, and that its
        // commits wait as they did.
        self.vouched = self.vouched.filter(|at| is_the_same(&node, *at));
        if let Some(at) = node.observed_at
            && node.condition == Condition::Up
            && !node.read_only
            && self.vouched.is_some()
        {
            self.well_at = Some(Instant::from_std(at));
        }
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
                if self.mode != Some(FailoverMode::Follow) || self.company.is_some() => {}
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

    /// The primary is well: looks at everything else.
    async fn look_after(&mut self, settings: &Settings, topology: &Topology, node: &Node) {
        self.look_at = self.surgeon.now() + LOOK_EVERY;
        let reports = self.ask_all(settings, topology).await;
        let Some(head) = told_by(&reports, node.id) else { return };
        if !head.sources.is_empty() {
            return self.yield_to(&reports, topology, node).await;
        }
        if head.is_read_only() {
            // One that was started anew must not write before it is asked to.
            let is_anew = head.may_have_started_within(self.since_well());
            if self.record.closed || (is_anew && !self.record.maintenance) {
                return self.reopen(&node.name).await;
            }
            return self.say(format!("{} has been made read-only", node.name));
        }
        // Between two probes, which would have told it: what it says now is no change of what it
        // said before, but the settings of another life.
        if self.vouched.is_none_or(|at| head.may_have_started_within(self.surgeon.now() - at)) {
            (self.vouched, self.look_at) = (None, self.surgeon.now());
            return self.say(format!("{} may have been started anew", node.name));
        }
        let checks = standing::check(&reports, Some(node.id));
        let mode = standing::mode(&checks);
        self.kept.standings = standing::Mode::ALL.map(|at| (at.word(), at == mode)).to_vec();
        let lossless = self.loses_nothing(&checks, &reports, head);
        if !self.note_members(&reports, topology, node, lossless).await {
            return;
        }
        self.note_look(head);
        if self.record.maintenance && !self.cut_off {
            let group = &topology.group;
            let until = format!("nothing is set up before MAINTENANCE OFF {group}");
            return self.say(format!("{} takes the writes; {until}", node.name));
        }
        let told_at = self.surgeon.now();
        let account = self.account(settings, topology, (node, &reports)).await;
        if self.surgeon.now() - told_at > THINK_AGAIN {
            // Servers may have come back and received since.
            self.look_at = self.surgeon.now();
            return;
        }
        let facts = upkeep::Facts {
            topology,
            reports: &reports,
            primary: node.id,
            members: &self.record.members,
            account: account.as_ref(),
        };
        let found = upkeep::look(&facts);
        for (name, why) in &found.left_out {
            self.say(format!("{name} stays out: {why}"));
        }
        if !found.orders.is_empty() {
            let again = self.tended == found.orders;
            self.tended.clone_from(&found.orders);
            if self.perform(found.orders, settings, topology, &reports).await && !again {
                // What was changed shows what is still missing.
                self.look_at = self.surgeon.now();
            }
            return;
        }
        self.cut_off = false;
        if found.left_out.is_empty() {
            let through = found.chained.iter().map(|(name, at)| format!("; {name} follows {at}"));
            self.say(format!("{} takes the writes{}", node.name, through.collect::<String>()));
        }
    }

    /// The primary, which is read-only, is to take writes again.
    async fn reopen(&mut self, name: &str) {
        let operation = Some(Operation::reopening(name));
        self.write_down(Record { operation, ..self.record.clone() }).await;
    }

    /// The account by which servers that come back follow: the operator's, or one that is made on
    /// the primary.
    async fn account(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        (node, reports): (&Node, &[Report]),
    ) -> Option<ReplicationAccount> {
        let account = match self.stated_or_own(settings).await {
            Ok(account) => account,
            Err(why) => {
                self.say(why);
                return None;
            }
        };
        let is_admitted = self.admitted == Some(self.record.epoch);
        let is_stated = settings.group.failover.replication.is_some();
        // A commit there would wait for an acknowledgement by one who needs the account to follow,
        // and on MariaDB all logins for that commit. An earlier primary has made it, then, and all
        // have it from there.
        let waits = told_by(reports, node.id)
            .is_some_and(|told| standing::asking(told).is_some() && !standing::acknowledging(told));
        if is_admitted || is_stated || waits || self.surgeon.now() < self.admit_at {
            return Some(account);
        }
        let admit = Order { node: node.id, what: What::Admit(account.clone()) };
        if self.perform(vec![admit.clone()], settings, topology, reports).await {
            self.admitted = Some(self.record.epoch);
        } else if self.is_denied(&admit) {
            return None;
        } else {
            // Nobody has acknowledged it after all.
            self.admit_at = self.surgeon.now() + DENIED_FOR;
        }
        Some(account)
    }

    /// That account, whether it was made yet or not.
    async fn stated_or_own(&self, settings: &Settings) -> Result<ReplicationAccount, String> {
        if let Some(stated) = &settings.group.failover.replication {
            return Ok(stated.clone());
        }
        let file = password_file(&settings.group.name);
        let password = self.surgeon.password(file).await;
        let password = password.map_err(|error| error.to_string())?;
        Ok(ReplicationAccount { user: OWN_ACCOUNT.to_owned(), password })
    }

    async fn ask_all(&mut self, settings: &Settings, topology: &Topology) -> Vec<Report> {
        self.asked_at = self.surgeon.now();
        self.surgeon.survey(topology, &settings.monitor, &|_| Some(PATIENCE)).await
    }

    /// Whether a failover would lose nothing: no commit is acknowledged without a replica, and what
    /// was acknowledged before that was so has reached one meanwhile.
    fn loses_nothing(&mut self, checks: &[Check], reports: &[Report], head: &Told) -> bool {
        if !standing::is_lossless(checks) {
            self.unguarded = None;
            return false;
        }
        if self.record.lossless {
            return true;
        }
        let before = &*self.unguarded.get_or_insert_with(|| head.executed.clone());
        let mut others = reports.iter().filter_map(Report::told);
        others.any(|told| told.follows(head) && told.received.contains(before))
    }

    /// Notes who belongs to the group, and who may acknowledge: before anybody is let to.
    async fn note_members(
        &mut self,
        reports: &[Report],
        topology: &Topology,
        node: &Node,
        lossless: bool,
    ) -> bool {
        // Whoever has opened it: it takes writes.
        let mut record = Record { lossless, closed: false, ..self.record.clone() };
        let now = self.surgeon.seconds();
        if now.saturating_sub(record.well_at) > WELL_TO_THE {
            record.well_at = now;
        }
        let listed = |name: &String| {
            let at = topology.nodes.iter().find(|node| *node.name == **name);
            at.is_some_and(|node| node.condition != Condition::Excluded)
        };
        record.members.retain(listed);
        record.members.insert(node.name.to_string());
        let follow = reports
            .iter()
            .filter(|at| at.told().is_some_and(|told| !told.sources.is_empty()))
            .map(|at| at.name.to_string());
        record.members.extend(follow);
        record == self.record || self.write_down(record).await
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
            self.say("nothing is ordered: the lease in etcd does not hold".to_owned());
            return false;
        }
        let now = self.surgeon.now();
        self.denied.retain(|(_, at)| now - *at < DENIED_FOR);
        let mut orders = orders;
        orders.retain(|order| !self.is_denied(order));
        if orders.is_empty() {
            return false;
        }
        let failed = self.surgeon.perform(orders, topology, reports, &settings.monitor).await;
        for Failed { order, why, denied } in &failed {
            self.say(why.clone());
            if *denied {
                self.denied.push((order.clone(), self.surgeon.now()));
            }
        }
        failed.is_empty()
    }

    fn is_denied(&self, order: &Order) -> bool {
        self.denied.iter().any(|(denied, _)| denied == order)
    }

    /// Writes down what is about to be; `false` when that failed and it must not be done.
    async fn write_down(&mut self, record: Record) -> bool {
        let written = match self.company.as_mut() {
            Some(company) => company.write(&self.record, &record).await,
            None => self.surgeon.write_down(&record).await.map_err(|error| error.to_string()),
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
