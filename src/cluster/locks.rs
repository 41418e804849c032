//! The task by which several pointsman agree through the servers of one group themselves: it asks
//! them, counts what they say, and hands that to the group's keeper.
//!
//! Nothing is written down anywhere: who acts is whoever holds locks on a majority of the servers,
//! and who takes the writes is what a majority of them says. Two further locks of the one that acts
//! tell the others what they cannot see: of which life of the primary it is known that it has all
//! that it had, and that an operator works on the group.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::app::tasks;
use crate::cluster::desk::{Desk, Leader, Member, Shared, Stance, View};
use crate::cluster::lease::{BY_SERVERS, Lease};
use crate::cluster::tally::{Elector, Heard, Locks, Sight, State, Tally, Wanted};
use crate::cluster::voter::Voter;

/// How often what was heard is looked at, though nothing is.
const GLANCE: Duration = Duration::from_millis(100);
/// Answers that may wait.
const ANSWERS: usize = 64;

/// What one server has answered; nothing where its connection is lost.
#[derive(Debug)]
enum Answer {
    Locks(usize, Option<Heard<Locks>>),
    State(usize, Option<Heard<State>>),
}

/// The task's state.
pub struct Parliament<V> {
    /// What this pointsman is called.
    id: String,
    lease: Duration,
    voters: Vec<Arc<V>>,
    tally: Tally,
    shared: Arc<Shared>,
    wanted: watch::Sender<Wanted>,
    /// A majority has said something in time; so it was said.
    is_valid: bool,
    /// How often it began to.
    term: u64,
    leads: bool,
    /// How often the keeper has told servers whom to follow, as far as it was heard.
    turned: u64,
}

impl<V: Voter> Parliament<V> {
    /// The task for one group, and where its keeper meets it. `id` is what this pointsman is
    /// called; what a server has said counts for `lease`; `chance` differs from one pointsman to
    /// the next.
    #[must_use]
    pub fn new(
        id: String,
        lease: Duration,
        group: Arc<str>,
        voters: Vec<(Elector, V)>,
        chance: u64,
    ) -> (Self, Desk) {
        let (sending, acting) = (Lease::new(&BY_SERVERS), Lease::new(&BY_SERVERS));
        let (sending, acting) = (Arc::new(sending), Arc::new(acting));
        let shared = Arc::new(Shared::new(group, sending, acting, Arc::new(Notify::new())));
        // Nothing is written down here.
        let desk = Desk::new(shared.clone(), mpsc::channel(1).0);
        let (electors, voters): (Vec<Elector>, Vec<V>) = voters.into_iter().unzip();
        let parliament = Self {
            id,
            lease,
            voters: voters.into_iter().map(Arc::new).collect(),
            tally: Tally::new(electors, lease, chance),
            shared,
            wanted: watch::Sender::new(Wanted::default()),
            is_valid: false,
            term: 0,
            leads: false,
            turned: 0,
        };
        (parliament, desk)
    }

    /// Takes part until `shutdown` is true. What it holds is let go of with its connections.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let (tell, mut told) = mpsc::channel(ANSWERS);
        // Often enough that one answer that is missing costs nothing.
        let every = self.lease / 6;
        for (server, voter) in self.voters.iter().enumerate() {
            let pace = Pace { every, patience: self.lease / 4 };
            let asking = ask_for_locks(server, voter.clone(), pace, self.asked(), tell.clone());
            tasks::spawn("locks", asking);
            // To end a receiver whose source is frozen takes two seconds (V13), in which nothing
            // is told of receivers.
            let pace = Pace { every, patience: self.lease };
            let asking = ask_for_state(server, voter.clone(), pace, self.asked(), tell.clone());
            tasks::spawn("state", asking);
        }
        let bell = self.shared.bell.clone();
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => break,
                Some(answer) = told.recv() => self.on_answer(answer),
                () = bell.notified() => self.wanted.send_modify(|wanted| wanted.rung += 1),
                () = sleep(GLANCE) => {}
            }
            while let Ok(answer) = told.try_recv() {
                self.on_answer(answer);
            }
            self.settle();
        }
        self.lose();
        self.shared.acting.set(Duration::ZERO);
    }

    fn asked(&self) -> watch::Receiver<Wanted> {
        self.wanted.subscribe()
    }

    fn on_answer(&mut self, answer: Answer) {
        match answer {
            Answer::Locks(server, heard) => self.tally.on_locks(server, heard),
            Answer::State(server, heard) => self.tally.on_state(server, heard),
        }
    }

    /// Draws from all that was heard what may be done now, and what is wanted of the servers.
    fn settle(&mut self) {
        let Some(now) = self.voters.first().map(|voter| voter.now()) else { return };
        let is_deserted = self.shared.is_deserted();
        let stance = self.shared.stance.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let keeps = stance.keeps && !is_deserted;
        if std::mem::replace(&mut self.turned, stance.turned) != stance.turned {
            self.tally.on_turned(now);
        }
        let campaigns = self.tally.campaigns(now, keeps);
        let acts = self.tally.acts(now).filter(|_| keeps);
        self.shared.acting.set(acts.map_or(Duration::ZERO, |(_, until)| until));
        // What a server says of itself counts at once where it says no.
        let to = stance.to.as_ref().filter(|_| !is_deserted);
        let until = to.and_then(|to| self.tally.may_send_until(to));
        self.shared.lease.set(until.unwrap_or_default());
        self.want(campaigns, acts.is_some(), &stance, now);
        if self.tally.is_blind(now) {
            return self.lose();
        }
        if !std::mem::replace(&mut self.is_valid, true) {
            self.term += 1;
            let group = &*self.shared.group;
            tracing::info!(group, "a majority of the servers answers");
        }
        let view = self.view(acts.map(|(number, _)| number), now);
        self.publish(view);
    }

    /// Has the servers asked for what is wanted of their locks.
    fn want(&self, campaigns: bool, acts: bool, stance: &Stance, now: Duration) {
        let sound = stance.sound.as_ref().filter(|_| acts);
        let given = sound.and_then(|sound| self.tally.word_for(Some(sound), now));
        let gives = given.is_some();
        let word = given.or_else(|| self.tally.word_for(None, now));
        let rests = acts.then_some(stance.rests);
        let wanted = Wanted { acts: campaigns, word, gives, rests, rung: 0 };
        self.wanted.send_if_modified(|last| {
            let wanted = Wanted { rung: last.rung, ..wanted };
            let changed = *last != wanted;
            *last = wanted;
            changed
        });
    }

    fn view(&self, number: Option<i64>, now: Duration) -> View {
        let own = number.map(|number| Leader { id: self.id.clone(), number, is_own: true });
        let leader = own.or_else(|| {
            let from = self.tally.another(now)?;
            let id = match from.is_empty() {
                true => "another pointsman".to_owned(),
                false => format!("the pointsman at {from}"),
            };
            Some(Leader { id, number: 0, is_own: false })
        });
        let member =
            |id: &str, is_own, leads| Member { id: id.to_owned(), is_own, leads, said: None };
        let other = leader.iter().filter(|leader| !leader.is_own);
        let others = other.map(|leader| member(&leader.id, false, true));
        let members = [member(&self.id, true, number.is_some())].into_iter().chain(others);
        View {
            term: self.term,
            members: members.collect(),
            leader,
            sight: Some(Sight { turned: self.turned, ..self.tally.sight(now) }),
            ..View::default()
        }
    }

    fn publish(&mut self, view: View) {
        let leads = view.leader.as_ref().is_some_and(|leader| leader.is_own);
        if std::mem::replace(&mut self.leads, leads) != leads {
            let (group, now) = (&*self.shared.group, if leads { "acts" } else { "does not act" });
            tracing::info!(group, "this pointsman {now} for the group");
        }
        let view = Arc::new(view);
        self.shared.views.send_if_modified(|last| {
            let changed = last.as_ref().is_none_or(|last| !is_alike(last, &view));
            *last = Some(view);
            changed
        });
    }

    /// Nothing is known any more.
    fn lose(&mut self) {
        if std::mem::replace(&mut self.is_valid, false) {
            let group = &*self.shared.group;
            tracing::warn!(
                group,
                "no majority of the servers has answered in time: nothing is sent to a primary"
            );
        }
        self.leads = false;
        self.shared.lease.set(Duration::ZERO);
        self.shared.views.send_if_modified(|view| view.take().is_some());
    }
}

/// Whether nobody need hear of the newer one: nothing is new in it but times.
fn is_alike(last: &View, view: &View) -> bool {
    let plain = |view: &View| {
        let sight = view.sight.clone().unwrap_or_default();
        let is_judged = sight.judged.is_some();
        let sight = Some(Sight { judged: None, ..sight });
        (View { sight, ..view.clone() }, is_judged)
    };
    plain(last) == plain(view)
}

/// How often a server is asked, and how long it may take to answer.
#[derive(Debug, Clone, Copy)]
struct Pace {
    every: Duration,
    patience: Duration,
}

/// Asks one server for its locks again and again, and at once when something else is wanted.
async fn ask_for_locks<V: Voter>(
    server: usize,
    voter: Arc<V>,
    pace: Pace,
    mut wanted: watch::Receiver<Wanted>,
    tell: mpsc::Sender<Answer>,
) {
    let mut trouble = None;
    loop {
        let now = wanted.borrow_and_update().clone();
        let (began, asked) = (voter.now(), timeout(pace.patience, voter.locks(now)).await);
        let heard = heard(&*voter, began, asked.ok(), &mut trouble);
        if tell.send(Answer::Locks(server, heard)).await.is_err() || !rest(pace, &mut wanted).await
        {
            return;
        }
    }
}

/// Asks one server for its state again and again, and at once when something else is wanted.
async fn ask_for_state<V: Voter>(
    server: usize,
    voter: Arc<V>,
    pace: Pace,
    mut wanted: watch::Receiver<Wanted>,
    tell: mpsc::Sender<Answer>,
) {
    let mut trouble = None;
    loop {
        wanted.mark_unchanged();
        let (began, asked) = (voter.now(), timeout(pace.patience, voter.state()).await);
        let heard = heard(&*voter, began, asked.ok(), &mut trouble);
        if tell.send(Answer::State(server, heard)).await.is_err() || !rest(pace, &mut wanted).await
        {
            return;
        }
    }
}

/// What was heard; an error is logged once.
fn heard<V: Voter, T>(
    voter: &V,
    began: Duration,
    asked: Option<Result<T, String>>,
    trouble: &mut Option<String>,
) -> Option<Heard<T>> {
    let why = match asked {
        Some(Ok(said)) => {
            *trouble = None;
            return Some(Heard { began, ended: voter.now(), said });
        }
        Some(Err(why)) => why,
        None => "no answer in time".to_owned(),
    };
    if trouble.as_ref() != Some(&why) {
        tracing::info!(server = voter.name(), why, "no answer about locks and replication");
    }
    *trouble = Some(why);
    None
}

/// Waits until it is time to ask again; whether there is anybody who wants to know.
async fn rest(pace: Pace, wanted: &mut watch::Receiver<Wanted>) -> bool {
    tokio::select! {
        () = sleep(pace.every) => true,
        changed = wanted.changed() => changed.is_ok(),
    }
}

#[cfg(test)]
mod tests;
