//! A keeper among those of other pointsman: one of them acts, the others see to that statements go
//! where the record of that one says.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::acknowledged::has_lost;
use super::{Keeper, Keeping, Settings, Standing, THINK_AGAIN, appointment};
use crate::cluster::desk::{Desk, Member, Said, View, WriteError};
use crate::cluster::lease::Words;
use crate::config::failover::MaxLoss;
use crate::failover::execute::MayAct;
use crate::failover::record::{Kind, Operation, Record, Stage};
use crate::failover::report::{Report, told_by};
use crate::failover::standing;
use crate::failover::surgeon::Surgeon;
use crate::failover::verdict::{self, Return};
use crate::health::assemble::Appointment;
use crate::metrics::Leading;
use crate::topology::{Condition, Node, Topology};

/// Why nobody takes them by what another version has written.
const UNREADABLE: &str = "this pointsman cannot read what the one that acts has written down";

/// A keeper's place among others.
#[derive(Debug)]
pub(super) struct Company {
    pub(super) desk: Desk,
    /// The lease by which it sees what it goes by; 0 before the first.
    term: u64,
    /// It has that lease still, and can read what was written.
    sees: bool,
    /// The revision of a record that it cannot read, and by which it sends nothing.
    unreadable: Option<i64>,
    /// The leadership by which it acts; `None` while another does.
    pub(super) number: Option<i64>,
    /// The revision of the record that it goes by.
    revision: i64,
    /// The revision by which the change of the primary that is under way was begun, or found, or by
    /// which one was called off when its heir may have been open.
    begun: i64,
    /// How often this keeper has found the primary to be what it had judged it to be.
    looks: u64,
    /// By which leadership, and how often, the one that acts had looked at the primary when this
    /// one saw that it was started anew.
    noticed: Option<(i64, u64)>,
    /// Who takes the writes by that record, of whom it may be known what it has gone through.
    subject: Option<String>,
    /// Counts how often servers were told whom to follow.
    pub(super) turned: u64,
    /// Who rests, and since when that was seen at each look.
    pub(super) resting: BTreeMap<String, Instant>,
    /// When the primary was last looked at and found to be what it had been judged to be.
    pub(super) looked: Option<Instant>,
}

impl Company {
    pub(super) fn new(desk: Desk) -> Self {
        Self {
            turned: 0,
            looked: None,
            resting: BTreeMap::new(),
            desk,
            term: 0,
            sees: false,
            unreadable: None,
            number: None,
            revision: 0,
            begun: 0,
            looks: 0,
            noticed: None,
            subject: None,
        }
    }

    /// What is said where it does not know what others do.
    pub(super) fn words(&self) -> &'static Words {
        self.desk.lease().words()
    }

    /// Whether the servers are what is agreed by.
    pub(super) fn sees_servers(&self) -> bool {
        self.desk.is_by_servers()
    }

    /// Whether this may be written down by one of those that agree by the servers: a change of the
    /// primary only by who acts.
    pub(super) fn may_note(&self, record: &Record) -> bool {
        match self.number {
            Some(_) => self.may_act(),
            None => record.operation.is_none(),
        }
    }

    /// Servers were told something: what they say now is looked at.
    pub(super) fn ring(&mut self, is_turned: bool) {
        if self.sees_servers() {
            self.turned += u64::from(is_turned);
            self.desk.ring();
        }
    }

    /// Waits until there is something new; for ever where a keeper is alone.
    pub(super) async fn changed(company: Option<&mut Self>) {
        match company {
            Some(company) => company.desk.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Why this pointsman sends nothing to anybody; `None` while it knows what the others do.
    pub(super) fn is_blind(&self) -> Option<&'static str> {
        match (self.sees, self.term) {
            (true, _) => None,
            (false, _) if self.unreadable.is_some() => Some(UNREADABLE),
            (false, 0) => Some(self.words().not_yet),
            (false, _) => Some(self.words().lost),
        }
    }

    /// Whether orders may be given: it leads, and its lease holds.
    pub(super) fn may_act(&self) -> bool {
        self.number.is_some() && self.desk.acting().holds()
    }

    /// Whether it leads as it does now, and its lease holds, whenever that is asked.
    pub(super) fn permission(&self) -> MayAct {
        let (number, desk) = (self.number, self.desk.clone());
        Arc::new(move || {
            let leads = |view: Arc<View>| {
                view.leader.as_ref().is_some_and(|at| at.is_own && Some(at.number) == number)
            };
            desk.acting().holds() && desk.view().is_some_and(leads)
        })
    }

    /// Whether it leads, and for how long its lease holds, whenever that is asked.
    pub(super) fn leading(&self) -> Leading {
        let (sees, acts, desk) = (self.sees, self.permission(), self.desk.clone());
        Leading(Arc::new(move || (sees && acts(), desk.lease().left())))
    }

    /// Who acts for the group, by what is known.
    pub(super) fn leader(&self) -> String {
        let leader = self.desk.view().and_then(|view| Some(view.leader.as_ref()?.id.clone()));
        leader.unwrap_or_else(|| "nobody".to_owned())
    }

    /// Writes down what is about to be in place of `before`.
    pub(super) async fn write(&mut self, before: &Record, record: &Record) -> Result<(), String> {
        let text = serde_json::to_string(record).map_err(|error| error.to_string())?;
        let Some(number) = self.number else { return Err(WriteError::Fenced.to_string()) };
        match self.desk.write(number, self.revision, text).await {
            Ok(revision) => {
                self.revision = revision;
                let may_be_open = |at: &Operation| at.stage == Stage::Open;
                if before.operation.as_ref().is_none_or(may_be_open) {
                    self.begun = revision;
                }
                Ok(())
            }
            Err(error) => {
                if error == WriteError::Fenced {
                    self.number = None;
                }
                Err(error.to_string())
            }
        }
    }

    /// Those who may still send statements to another server than the one that this opens; `None`
    /// where nobody does.
    pub(super) fn unaware(&self, next: &Operation) -> Option<String> {
        let Some(view) = self.desk.view() else { return Some(self.words().lost.to_owned()) };
        if let Some(sight) = &view.sight {
            if sight.turned != self.turned {
                return Some("asking what the servers say now".to_owned());
            }
            return sight.hinders(next.heir.as_deref().unwrap_or_default(), &next.former);
        }
        if view.revision < self.begun {
            return Some("asking who else is there".to_owned());
        }
        let unaware = view.unaware(self.begun);
        let names = unaware.join(", ");
        (!unaware.is_empty()).then(|| format!("waiting for {names} to have seen it"))
    }

    /// Another pointsman that the primary answers.
    pub(super) fn reaching(&self) -> Option<String> {
        self.desk.view()?.reaching().map(str::to_owned)
    }

    /// What sessions of others have begun and not ended; `None` where that is not known.
    pub(super) fn unfinished(&self) -> Option<usize> {
        // Of those that only see the servers nobody knows; what they have open ends at the commit.
        if self.sees_servers() {
            return Some(0);
        }
        self.desk.view()?.unfinished()
    }

    /// The newest writes that clients of others were told of by a primary that is replaced, as
    /// GTIDs; and whether all have said that.
    pub(super) fn acknowledged(&self) -> (Vec<String>, bool) {
        match self.desk.view() {
            // Of those that only see the servers nobody knows.
            Some(view) if view.sight.is_some() => (Vec::new(), true),
            Some(view) => view.acknowledged(self.begun),
            None => (Vec::new(), false),
        }
    }

    /// Whether the one that acts has judged the primary since this one saw that it was started
    /// anew. A look may have been under way then: the second one from there was not.
    fn is_judged(&mut self) -> bool {
        let Some((number, looks)) = self.desk.view().and_then(|view| view.looks()) else {
            return false;
        };
        match self.noticed {
            Some((at, before)) if at == number => looks >= before.saturating_add(2),
            Some(_) | None => {
                self.noticed = Some((number, looks));
                false
            }
        }
    }

    /// Takes over what was written, where that is newer than what this keeper goes by.
    fn read(&mut self, view: &View) -> Result<Option<Record>, String> {
        // By a new lease whatever stands there counts, also where the store was emptied.
        let is_new = view.record.revision > self.revision || view.term != self.term;
        if !is_new {
            return Ok(None);
        }
        let record = match view.record.revision {
            0 => Record::default(),
            _ => serde_json::from_str(&view.record.text)
                .map_err(|error| format!("the record in etcd cannot be read: {error}"))?,
        };
        (self.revision, self.term) = (view.record.revision, view.term);
        Ok(Some(record))
    }
}

impl<S: Surgeon> Keeper<S> {
    /// Whether this keeper is the one that acts. Where it is not, it sees to that statements go
    /// where they are meant to by what the other has written down.
    pub(super) async fn acts(&mut self, settings: &Settings) -> bool {
        let Some(company) = self.company.as_mut() else { return true };
        let Some(view) = company.desk.view() else {
            company.sees = false;
            let why = company.is_blind().unwrap_or_default();
            if company.sees_servers() {
                self.doubt();
            }
            self.stand_aside(why);
            self.say(why.to_owned());
            return false;
        };
        let number = view.leader.as_ref().filter(|at| at.is_own).map(|at| at.number);
        let took_over = number.is_some() && company.number != number;
        if view.sight.is_some() {
            // Of one that has acted all the time nobody has taken over.
            let is_anew = company.term != view.term && (number.is_none() || took_over);
            (company.sees, company.term, company.number) = (true, view.term, number);
            if is_anew {
                self.lose_sight();
            }
            return self.acts_by_sight(settings, &view, took_over).await;
        }
        match company.read(&view) {
            Ok(Some(record)) => {
                company.begun = company.revision;
                self.take_over_record(record);
            }
            Ok(None) => {}
            Err(why) => {
                // Nothing is sent by what cannot be read; the others need not wait for more.
                (company.sees, company.unreadable) = (false, Some(view.record.revision));
                self.appoint().await;
                self.say(why);
                return false;
            }
        }
        let Some(company) = self.company.as_mut() else { return true };
        (company.sees, company.number, company.unreadable) = (true, number, None);
        let leader = company.leader();
        if took_over {
            // What was under way may have been begun by another.
            company.begun = company.revision;
            let is_other = company.subject != subject(&self.record);
            self.start_afresh();
            if is_other {
                self.doubt();
            }
        }
        if number.is_none() {
            self.stand_aside(&format!("{leader} is the keeper now"));
            self.follow(settings, &leader).await;
        }
        number.is_some()
    }

    /// Goes by another record from now on.
    fn take_over_record(&mut self, record: Record) {
        // Of another server this pointsman has not seen when it was well.
        self.well_at = self.well_at.filter(|_| record.primary == self.record.primary);
        if record.primary != self.record.primary {
            self.ties.acknowledged.forget();
        }
        self.record = record;
        self.since = self.surgeon.now();
    }

    /// Acts from now on, as if it had just been started.
    pub(super) fn start_afresh(&mut self) {
        let now = self.surgeon.now();
        (self.started, self.since, self.look_at, self.admit_at) = (now, now, now, now);
        (self.unguarded, self.leaving) = (None, None);
        self.admitted.1.clear();
        self.away.clear();
        self.tended.clear();
        self.denied.clear();
    }

    /// Does not act: who waits for the end of something is told so.
    pub(super) fn stand_aside(&mut self, why: &str) {
        self.answer(Err(why.to_owned()));
    }

    /// Sees to that statements go where the one that acts wants them.
    async fn follow(&mut self, settings: &Settings, leader: &str) {
        let subject = subject(&self.record);
        let is_other = self.company.as_ref().is_some_and(|company| company.subject != subject);
        if is_other {
            self.doubt();
            self.look_at = self.surgeon.now();
        }
        // Others wait for that.
        self.appoint().await;
        self.tell_others().await;
        let topology = self.health.cell.load();
        let name = subject.as_deref();
        let node = name.and_then(|name| topology.named(name)).cloned();
        let doubt = match &node {
            Some(node) => self.attest(settings, &topology, node).await,
            None => None,
        };
        if let Some(node) = &node {
            self.note_well(node);
        }
        match doubt {
            Some(doubt) => self.say(format!("{leader} is the keeper; {doubt}")),
            None if self.vouched.is_some() || subject.is_none() => {
                self.say(format!("{leader} is the keeper"));
            }
            // It was not looked at again: what was said of it stands.
            None => {}
        }
    }

    /// Finds out whether this server is what the record says of it: it may have been started anew,
    /// and the one that acts not know yet. Answers what speaks against it.
    async fn attest(
        &mut self,
        settings: &Settings,
        topology: &Topology,
        node: &Node,
    ) -> Option<String> {
        if node.condition == Condition::Down
            || self.vouched.is_some_and(|at| !is_the_same(node, at))
        {
            self.doubt();
        }
        let answers = matches!(node.condition, Condition::Up | Condition::Draining);
        if self.vouched.is_some() || !answers || self.surgeon.now() < self.look_at {
            return None;
        }
        self.look_at = self.surgeon.now() + THINK_AGAIN;
        let reports = self.ask_all_of(settings, topology, node).await;
        let head = told_by(&reports, node.id)?;
        let name = &node.name;
        if !head.sources.is_empty() && self.record.operation.is_some() {
            return Some(format!("{name} replicates"));
        }
        // One that is about to be opened was just looked at, and its settings were made; of another
        // life of it nobody knows.
        let since_read = self.surgeon.now() - self.since;
        if self.record.operation.is_some() && head.may_have_started_within(since_read) {
            return Some(format!("{name} was started anew while it was to be opened"));
        }
        if self.record.operation.is_none() {
            if !head.sources.is_empty() {
                return Some(format!("{name} replicates"));
            }
            let others: Vec<&Report> = reports.iter().filter(|at| at.node != node.id).collect();
            let since_well = self.since_well();
            // What it sent in its former life may be on its way still: the one that acts has that
            // cut off before it judges, and knows better since when it was well.
            let is_judged = |company: &mut Company| company.is_judged();
            if head.may_have_started_within(since_well)
                && !self.company.as_mut().is_some_and(is_judged)
            {
                return Some(format!("{name} was started anew, and its keeper has to look first"));
            }
            let returned = verdict::returned((node, head), &others, &self.record, since_well);
            if let Return::Behind(servers) = returned {
                let servers = servers.join(", ");
                return Some(format!("{name} lacks what {servers} has received from it"));
            }
            let is_bound = settings.group.failover.max_loss == MaxLoss::None;
            let lost = verdict::lacks(head, &self.acknowledged(Some(node)));
            if let Some(lost) = lost.filter(|_| head.may_have_started_within(since_well)) {
                if is_bound {
                    return Some(format!("{name}: {}", has_lost(&lost)));
                }
                self.ties.acknowledged.forget();
            }
            let checks = standing::check(&reports, Some(node.id));
            if is_bound && self.record.lossless && !standing::is_lossless(&checks) {
                return Some(format!("{name} was started anew: its commits do not wait yet"));
            }
        }
        if !is_the_same(node, self.asked_at) {
            return Some(format!("{name} was started just now"));
        }
        self.vouched = Some(self.asked_at);
        None
    }

    /// Notes when the primary was seen to be well, where it takes writes here.
    pub(super) fn note_well(&mut self, node: &Node) {
        if let Some(at) = node.observed_at
            && node.condition == Condition::Up
            && !node.read_only
            && self.vouched.is_some()
        {
            self.well_at = Some(Instant::from_std(at));
        }
    }

    /// It is not known what the primary has gone through.
    pub(super) fn doubt(&mut self) {
        self.vouched = None;
        if let Some(company) = self.company.as_mut() {
            company.noticed = None;
        }
    }

    /// The primary was looked at, and is the server that was judged: others may wait for that.
    pub(super) fn note_look(&mut self) {
        let asked_at = self.asked_at;
        if let Some(company) = self.company.as_mut() {
            company.looked = Some(asked_at);
            company.looks = company.looks.saturating_add(1);
        }
    }

    /// Whom this pointsman lets take the writes.
    pub(super) fn wanted(&self) -> Appointment {
        let own = self.mode.unwrap_or_default();
        let Some(company) = &self.company else {
            return appointment(own, &self.record, self.vouched);
        };
        let mode = self.mode.unwrap_or_else(|| self.settings.load().group.failover.mode);
        if !mode.keeps() {
            return Appointment::Open;
        }
        if let Some(why) = company.is_blind() {
            return Appointment::Nobody(why.to_owned());
        }
        if let Some(why) = self.is_shut_out() {
            return Appointment::Nobody(why);
        }
        let is_new = self.record.primary.is_none() && self.record.operation.is_none();
        if is_new && company.number.is_none() {
            let leader = company.leader();
            return Appointment::Nobody(format!("waiting for {leader} to find a primary"));
        }
        appointment(mode, &self.record, self.vouched)
    }

    /// Tells the others what this pointsman does now. Only what health has been told counts.
    pub(super) async fn tell_others(&mut self) {
        let (Some(mode), Some(company)) = (self.mode, &self.company) else { return };
        if company.sees_servers() {
            return self.take_stance(mode.keeps());
        }
        let is_kept = mode.keeps();
        let topology = self.health.cell.load();
        let primary = self.record.primary.as_deref();
        let node = primary.and_then(|primary| topology.named(primary));
        let reaches = node.is_some_and(|node| node.condition == Condition::Up);
        let answering = topology
            .nodes
            .iter()
            .filter(|node| !matches!(node.condition, Condition::Down | Condition::Excluded));
        let answering = answering.count();
        let (mut unfinished, mut acknowledged) = (None, None);
        if self.company.as_ref().is_some_and(|company| company.number.is_none()) {
            if let Some(operation) = &self.record.operation
                && (operation.kind, operation.stage) == (Kind::Switchover, Stage::Hold)
            {
                unfinished = self.unfinished(&topology, &operation.former).await;
            }
            acknowledged = self.acknowledged_by_doubtful(&topology);
        }
        let Some(company) = self.company.as_mut() else { return };
        if let Some((seen, view)) = company.unreadable.zip(company.desk.view()) {
            company.desk.say(view.term, Some(Said { seen, ..Said::default() }));
            return;
        }
        let step = self.record.operation.as_ref().map_or("", |operation| operation.stage.word());
        company.subject = subject(&self.record);
        let said = Said {
            seen: company.revision,
            epoch: self.record.epoch,
            step: step.to_owned(),
            reaches,
            answering,
            unfinished,
            acknowledged,
            looks: company.looks,
        };
        let term = match (is_kept, company.desk.view()) {
            (true, _) if !company.sees => return,
            (true, _) => company.term,
            (false, Some(view)) => view.term,
            (false, None) => return,
        };
        company.desk.say(term, is_kept.then_some(said));
        let members = company.desk.view().filter(|_| is_kept);
        let members = members.map_or_else(Vec::new, |view| standings(&view));
        let shown = self.keeping.load();
        if shown.members != members {
            self.keeping.store(Arc::new(Keeping { members, ..Keeping::clone(&shown) }));
        }
    }

    /// Refuses an operator's command where another pointsman acts.
    pub(super) fn refuse_for_others(&self) -> Result<(), String> {
        match &self.company {
            Some(company) if company.is_blind().is_some() => {
                Err(company.is_blind().unwrap_or_default().to_owned())
            }
            Some(company) if company.number.is_none() => {
                let (leader, group) = (company.leader(), &self.health.cell.load().group);
                Err(format!("{leader} is the keeper of {group}: tell that one"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Everybody who serves the group, for operators.
pub(super) fn standings(view: &View) -> Vec<Standing> {
    let of = |member: &Member| {
        let found = match &member.said {
            None if view.sight.is_some() && member.is_own => {
                "counts what the servers say".to_owned()
            }
            None if view.sight.is_some() => "holds the locks of a majority".to_owned(),
            None => "has not looked yet".to_owned(),
            Some(said) => {
                let primary = if said.reaches { "answers" } else { "does not answer" };
                let step = if said.step.is_empty() { "" } else { ", " };
                let (epoch, stage) = (said.epoch, &said.step);
                format!("has seen epoch {epoch}{step}{stage}; the primary {primary} it")
            }
        };
        Standing { id: member.id.clone(), acts: member.leads, found }
    };
    view.members.iter().map(of).collect()
}

/// Who takes the writes by this record.
fn subject(record: &Record) -> Option<String> {
    match &record.operation {
        Some(operation) if operation.stage == Stage::Open => operation.heir.clone(),
        Some(_) => None,
        None => record.primary.clone(),
    }
}

/// Whether a server is still the one that was known at this time.
pub(super) fn is_the_same(node: &Node, at: Instant) -> bool {
    node.condition != Condition::Down && node.started.is_none_or(|started| started <= at.into_std())
}
