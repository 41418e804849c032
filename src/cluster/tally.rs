//! What the servers of one group say, counted: who holds a majority of their locks and may act, to
//! whom statements may be sent, and whom nobody can be sent to any more.
//!
//! Pure: answers and times go in. A majority is always one of all servers that are configured, so
//! that any two have a server in common; on that everything here rests:
//!
//! - Who acts holds the lock of a majority. That of a server counts a whole lease after it was had,
//!   since the one who had it before may go by it for that long; a server that is started anew has
//!   forgotten it.
//! - Statements may be sent to a server as long as a majority, it among them, has said within the
//!   lease that it takes the writes or that it receives from it.
//! - Nobody can be sent to a server any more when so many have said for a whole lease that they do
//!   not receive from it, nor will when they are started anew, that the rest is no majority.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::lease::GUARD;

/// How many of so many servers decide.
#[must_use]
pub fn majority(servers: usize) -> usize {
    servers / 2 + 1
}

/// A server that is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elector {
    /// The operator's name for it.
    pub name: String,
    /// Its address, as others follow it.
    pub address: String,
}

/// Who holds the lock of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Nobody.
    Free,
    /// The connection that was asked.
    Own,
    /// Another connection.
    Another,
}

/// What a server says of its locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locks {
    /// The lock of who acts.
    pub acts: Lock,
    /// The word that was asked for, where who holds that lock has given it.
    pub word: Option<String>,
    /// Whether an operator works on the group, as far as who holds that lock has said.
    pub rests: Option<bool>,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// When the connection was opened over which it has said so: it has lived on since.
    pub connected: Instant,
    /// When it was asked.
    pub asked: Instant,
    /// It takes no writes of clients.
    pub closed: bool,
    /// Its `server_id`.
    pub server_id: u32,
    /// The second, by its own clock, in which it was started: tells its lives apart.
    pub started: i64,
    /// Whom it was told to receive from.
    pub sources: Vec<Followed>,
    /// From where the connection comes that holds its lock; empty where nobody does.
    pub holder: String,
}

/// Whom a server was told to receive from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The address, as it was given to it.
    pub address: String,
    /// The `server_id` of whom it was connected to last; 0 while it never connected.
    pub server_id: u32,
    /// It is connected: the id is that of whom it receives from.
    pub receives: bool,
    /// It does not receive, and will not by itself before it is started anew.
    pub stopped: bool,
}

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard<T> {
    /// When the question was sent, by [`super::lease::boot_time`].
    pub began: Duration,
    /// When the answer was there.
    pub ended: Duration,
    /// The answer.
    pub said: T,
}

/// What a keeper needs to know of all that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// The server that a majority says takes the writes.
    pub primary: Option<String>,
    /// A time at which that one was asked, and was the server that the one who acts has found to
    /// have all that it had.
    pub judged: Option<Instant>,
    /// That one was seen before it took writes, and has not been started anew since.
    pub risen: bool,
    /// The servers that have just said that they take no writes, or replicate.
    pub shut: BTreeSet<String>,
    /// Of each server whether nobody can be sent to it any more.
    pub cleared: BTreeMap<String, Cleared>,
    /// Whether an operator works on the group, where somebody acts and has said.
    pub rests: Option<bool>,
    /// How often the keeper has told servers whom to follow, as far as all this takes into account.
    pub turned: u64,
}

/// How certain it is that nobody can be sent to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cleared {
    /// Somebody may be.
    No,
    /// As long as it stays closed.
    WhileClosed,
    /// Also when it is started anew, by whatever option files.
    ForGood,
}

/// What is to be had of the locks of the servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The lock of who acts; `false` lets go of it.
    pub acts: bool,
    /// The word that is asked for, and given by who acts: of which life of which server it has
    /// found that it has all that it had.
    pub word: Option<String>,
    /// The word is given.
    pub gives: bool,
    /// Whether an operator works on the group, where that is said.
    pub rests: Option<bool>,
    /// Counts how often somebody wants to know at once.
    pub rung: u64,
}

/// The count.
#[derive(Debug)]
pub struct Tally {
    lease: Duration,
    seats: Vec<Seat>,
    campaign: Campaign,
    /// For pauses of different length.
    chance: u64,
    leads: bool,
    /// Counts leaderships.
    number: i64,
    /// What was asked before this time says nothing of whom servers will receive from.
    turned: Duration,
}

/// What is known of one server.
#[derive(Debug)]
struct Seat {
    elector: Elector,
    server_id: u32,
    locks: Option<Heard<Locks>>,
    held: Option<Held>,
    state: Option<Heard<State>>,
    /// The connection over which it has told that is lost: it may have been started anew.
    is_lost: bool,
    /// Since when it is known of each server that this one neither receives from it nor will.
    apart: Vec<Option<Duration>>,
    /// Since when it is known to take no writes.
    shut: Option<Duration>,
    /// It was seen to take none over the connection that there is.
    was_shut: bool,
}

/// The lock of a server, held.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// When it was had.
    since: Duration,
    /// When the last question was sent whose answer has shown that it is held.
    proved: Duration,
}

/// Whether this pointsman is after the locks.
#[derive(Debug, Clone, Copy)]
enum Campaign {
    Rests(Duration),
    Runs(Duration),
}

/// How long it is after a majority before it gives way.
const RUNS_FOR: Duration = Duration::from_secs(1);
/// How long it gives way at least, and how much longer by chance.
const RESTS_FOR: [u64; 2] = [300, 1500];

// === impls ===

/// What tells a life of a server from all others.
#[must_use]
fn word(server: &str, started: i64) -> String {
    format!("{server}@{started}")
}

impl Sight {
    /// What speaks against letting this server take writes in place of `former`, if anything does.
    #[must_use]
    pub fn hinders(&self, heir: &str, former: &str) -> Option<String> {
        let may_be_sent_to = |(name, cleared): &(&String, &Cleared)| {
            let needed = if *name == former { Cleared::ForGood } else { Cleared::WhileClosed };
            *name != heir && **cleared < needed
        };
        let (name, _) = self.cleared.iter().find(may_be_sent_to)?;
        Some(format!("waiting until no pointsman can send to {name} any more"))
    }
}

impl Tally {
    /// The count of these servers' answers, of which nothing is known yet. `lease` is how long what
    /// one of them has said counts, `chance` differs from one pointsman to the next.
    #[must_use]
    pub fn new(electors: Vec<Elector>, lease: Duration, chance: u64) -> Self {
        let count = electors.len();
        let seat = |elector| Seat {
            elector,
            server_id: 0,
            locks: None,
            held: None,
            state: None,
            is_lost: false,
            apart: vec![None; count],
            shut: None,
            was_shut: false,
        };
        Self {
            lease,
            seats: electors.into_iter().map(seat).collect(),
            campaign: Campaign::Rests(Duration::ZERO),
            chance,
            leads: false,
            number: 0,
            turned: Duration::ZERO,
        }
    }

    fn majority(&self) -> usize {
        majority(self.seats.len())
    }

    /// Until when something counts that was said to a question of this time.
    fn counts_until(&self, began: Duration) -> Duration {
        (began + self.lease).saturating_sub(GUARD)
    }

    /// The oldest of so many of these times, the newest first; `None` where there are fewer.
    fn nth_newest(mut times: Vec<Duration>, count: usize) -> Option<Duration> {
        times.sort_unstable_by(|one, other| other.cmp(one));
        times.get(count.checked_sub(1)?).copied()
    }

    // --- what is heard ---

    /// A server has said who holds its locks; `None` where the connection is lost, and with it
    /// whatever it held.
    pub fn on_locks(&mut self, server: usize, heard: Option<Heard<Locks>>) {
        let Some(seat) = self.seats.get_mut(server) else { return };
        seat.held = match &heard {
            Some(heard) if heard.said.acts == Lock::Own => {
                let since = seat.held.map_or(heard.ended, |held| held.since);
                Some(Held { since, proved: heard.began })
            }
            Some(_) | None => None,
        };
        seat.locks = heard;
    }

    /// A server has told its state; `None` where the connection is lost.
    pub fn on_state(&mut self, server: usize, heard: Option<Heard<State>>) {
        let count = self.seats.len();
        let Some(seat) = self.seats.get_mut(server) else { return };
        let Some(heard) = heard else {
            // Nobody knows what has become of it since. What it has said of another counts as long
            // as it does.
            seat.is_lost = true;
            (seat.apart, seat.shut) = (vec![None; count], None);
            return;
        };
        if heard.said.server_id != 0 {
            seat.server_id = heard.said.server_id;
        }
        let is_new = heard.began >= self.turned;
        let follows = self.follows(&heard.said.sources).filter(|_| is_new);
        let Some(seat) = self.seats.get_mut(server) else { return };
        for (other, since) in seat.apart.iter_mut().enumerate() {
            let is_apart = match &follows {
                // With a source it does not take itself for the primary either.
                _ if other == server => is_new && !heard.said.sources.is_empty(),
                Some(sources) => !sources.contains(&other),
                None => false,
            };
            *since = is_apart.then(|| since.unwrap_or(heard.ended));
        }
        let is_shut = heard.said.is_shut();
        let before = seat.state.as_ref().map(|before| before.said.connected);
        seat.was_shut = is_shut || seat.was_shut && before == Some(heard.said.connected);
        seat.shut = is_shut.then(|| seat.shut.unwrap_or(heard.ended));
        (seat.state, seat.is_lost) = (Some(heard), false);
    }

    /// Servers were told whom to follow: of each it has to be heard anew.
    pub fn on_turned(&mut self, now: Duration) {
        self.turned = now;
        for seat in &mut self.seats {
            seat.apart.iter_mut().for_each(|since| *since = None);
        }
    }

    /// Which of the servers these sources may be; `None` where one of them is none of ours, as far
    /// as is known.
    fn follows(&self, sources: &[Followed]) -> Option<Vec<usize>> {
        let mut all = Vec::new();
        for source in sources {
            let which = self.which(source);
            if which.is_empty() {
                return None;
            }
            all.extend(which);
        }
        Some(all)
    }

    /// Which of the servers a source may be: by its address, and by its id where that is not of
    /// another one to which it was connected before. Two where they contradict each other.
    fn which(&self, source: &Followed) -> Vec<usize> {
        let at_its_address = |seat: &Seat| source.address == seat.elector.address;
        let by_address = self.seats.iter().position(at_its_address);
        let has_its_id = |seat: &Seat| seat.server_id != 0 && source.server_id == seat.server_id;
        // MariaDB tells the id of the former source until it has connected to the next.
        let counts = source.receives || by_address.is_none();
        let by_id = self.seats.iter().position(has_its_id).filter(|_| counts);
        let mut which: Vec<usize> = by_address.into_iter().chain(by_id).collect();
        which.dedup();
        which
    }

    // --- who acts ---

    /// Until when orders may be given, by locks that count at this time; `None` without a majority.
    fn acts_until(&self, now: Duration) -> Option<Duration> {
        let held = self.seats.iter().filter_map(|seat| seat.held);
        let counts = held.filter(|held| held.since + self.lease <= now);
        let proved = Self::nth_newest(counts.map(|held| held.proved).collect(), self.majority())?;
        let until = self.counts_until(proved);
        (until > now).then_some(until)
    }

    /// Who acts: the number of the leadership and until when, where it is this pointsman.
    pub fn acts(&mut self, now: Duration) -> Option<(i64, Duration)> {
        let until = self.acts_until(now);
        if until.is_some() && !self.leads {
            self.number += 1;
        }
        self.leads = until.is_some();
        until.map(|until| (self.number, until))
    }

    /// From where the connections come of another that holds a majority; empty where that is not
    /// known.
    #[must_use]
    pub fn another(&self, now: Duration) -> Option<String> {
        let theirs =
            |seat: &&Seat| seat.locks_now(now, self.lease).map(|at| at.acts) == Some(Lock::Another);
        let holders: Vec<&Seat> = self.seats.iter().filter(theirs).collect();
        let state = |seat: &&Seat| Some(seat.state.as_ref()?.said.holder.clone());
        let named = holders.iter().filter_map(state).find(|holder| !holder.is_empty());
        (holders.len() >= self.majority()).then(|| named.unwrap_or_default())
    }

    /// Whether to be after the locks. `keeps` where somebody must act.
    pub fn campaigns(&mut self, now: Duration, keeps: bool) -> bool {
        let own = self.seats.iter().filter(|seat| seat.held.is_some()).count();
        let is_free = |seat: &&Seat| {
            seat.held.is_none()
                && seat.locks_now(now, self.lease).is_some_and(|at| at.acts == Lock::Free)
        };
        let free = self.seats.iter().filter(is_free).count();
        let may_win = own + free >= self.majority();
        self.campaign = match self.campaign {
            _ if !keeps => Campaign::Rests(now),
            _ if own >= self.majority() => Campaign::Runs(now),
            Campaign::Rests(until) if now >= until && may_win => Campaign::Runs(now),
            Campaign::Runs(since) if !may_win || now > since + RUNS_FOR => {
                Campaign::Rests(now + self.pause())
            }
            as_before => as_before,
        };
        matches!(self.campaign, Campaign::Runs(_))
    }

    /// How long to give way, so that two do not stand in each other's way for ever.
    fn pause(&mut self) -> Duration {
        // Knuth's MMIX constants.
        self.chance = self
            .chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let [least, more] = RESTS_FOR;
        Duration::from_millis(least + (self.chance >> 33) % more)
    }

    // --- who takes the writes ---

    /// Whether nothing is known any more: fewer than a majority have said anything in time.
    #[must_use]
    pub fn is_blind(&self, now: Duration) -> bool {
        let heard = self.seats.iter().filter_map(|seat| Some(seat.state.as_ref()?.began));
        let newest = Self::nth_newest(heard.collect(), self.majority());
        newest.is_none_or(|began| self.counts_until(began) <= now)
    }

    /// Until when statements may be sent to a server: a majority, it among them, says so.
    #[must_use]
    pub fn may_send_until(&self, server: &str) -> Option<Duration> {
        let at = self.seats.iter().position(|seat| seat.elector.name == server)?;
        self.said_to_be_primary(at).map(|began| self.counts_until(began))
    }

    fn said_to_be_primary(&self, at: usize) -> Option<Duration> {
        let node = self.seats.get(at)?;
        let own = node.state.as_ref().filter(|own| own.said.takes_writes() && !node.is_lost)?;
        let own = own.began;
        let receives = |seat: &Seat| {
            let state = seat.state.as_ref()?;
            let mut sources = state.said.sources.iter().filter(|source| !source.stopped);
            sources.any(|source| self.which(source) == [at]).then_some(state.began)
        };
        let others = self.seats.iter().enumerate().filter(|(other, _)| *other != at);
        let others: Vec<Duration> = others.filter_map(|(_, seat)| receives(seat)).collect();
        match self.majority() - 1 {
            0 => Some(own),
            needed => Self::nth_newest(others, needed).map(|oldest| oldest.min(own)),
        }
    }

    /// The server that a majority says takes the writes, by what was said last.
    fn primary(&self, now: Duration) -> Option<usize> {
        let said = |at: usize| Some((self.said_to_be_primary(at)?, at));
        let (began, at) = (0..self.seats.len()).filter_map(said).max()?;
        (self.counts_until(began) > now).then_some(at)
    }

    /// How certain it is that nobody can be sent to a server any more.
    fn cleared(&self, at: usize, now: Duration) -> Cleared {
        let needed = self.seats.len() - self.majority() + 1;
        let is_over =
            |since: Option<Duration>| since.is_some_and(|since| since + self.lease <= now);
        let answering = |seat: &&Seat| seat.state_now(now, self.lease).is_some();
        let apart = |seat: &&Seat| is_over(seat.apart.get(at).copied().flatten());
        let count = self.seats.iter().filter(answering).filter(apart).count();
        let own = self.seats.get(at);
        // It says so itself, as long as it is not started anew; whom nobody follows nobody names
        // even then.
        let is_shut = own.is_some_and(|own| {
            let mut states = self.seats.iter().filter_map(|seat| seat.state.as_ref());
            let is_it = |source: &Followed| self.which(source).contains(&at);
            let is_followed = states.any(|heard| heard.said.sources.iter().any(is_it));
            answering(&own) && !apart(&own) && is_over(own.shut) && !is_followed
        });
        if count >= needed {
            Cleared::ForGood
        } else if count + usize::from(is_shut) >= needed {
            Cleared::WhileClosed
        } else {
            Cleared::No
        }
    }

    /// All that a keeper needs to know.
    #[must_use]
    pub fn sight(&self, now: Duration) -> Sight {
        let primary = self.primary(now);
        let name = |at: usize| Some(self.seats.get(at)?.elector.name.clone());
        let judged = primary.and_then(|at| {
            let state = self.seats.get(at)?.state.as_ref()?;
            let word = word(&self.seats.get(at)?.elector.name, state.said.started);
            let gave = |locks: &&Locks| locks.word.as_ref() == Some(&word);
            (self.said_by_who_acts(now, gave) >= self.majority()).then_some(state.said.asked)
        });
        let shut = |seat: &&Seat| seat.state_now(now, self.lease).is_some_and(State::is_shut);
        // Who has just taken the locks says neither until it acts.
        let is_said = |said: &bool| {
            self.said_by_who_acts(now, |at| at.rests == Some(*said)) >= self.majority()
        };
        let all = self.seats.iter().enumerate();
        let names = |seat: &Seat| seat.elector.name.clone();
        Sight {
            primary: primary.and_then(name),
            risen: primary.and_then(|at| self.seats.get(at)).is_some_and(|seat| seat.was_shut),
            judged,
            shut: self.seats.iter().filter(shut).map(names).collect(),
            cleared: all.map(|(at, seat)| (names(seat), self.cleared(at, now))).collect(),
            rests: [true, false].into_iter().find(is_said),
            turned: 0,
        }
    }

    /// On how many servers somebody holds the lock of who acts, and has said this.
    fn said_by_who_acts(&self, now: Duration, what: impl Fn(&&Locks) -> bool) -> usize {
        let locks = self.seats.iter().filter_map(|seat| seat.locks_now(now, self.lease));
        locks.filter(|locks| locks.acts != Lock::Free).filter(what).count()
    }

    // --- what is wanted ---

    /// The word for a server in the life in which it was seen after this time, or the one that is
    /// asked for of the primary.
    #[must_use]
    pub fn word_for(&self, sound: Option<&(String, Instant)>, now: Duration) -> Option<String> {
        let at = match sound {
            Some((server, _)) => self.seats.iter().position(|seat| seat.elector.name == *server),
            None => self.primary(now),
        };
        let seat = self.seats.get(at?)?;
        let state = &seat.state.as_ref()?.said;
        // Over this connection it has been the same since.
        let is_known = sound.is_none_or(|(_, seen)| state.connected <= *seen);
        is_known.then(|| word(&seat.elector.name, state.started))
    }
}

impl Seat {
    /// What it has said of its locks, where that is not long ago.
    fn locks_now(&self, now: Duration, lease: Duration) -> Option<&Locks> {
        let heard = self.locks.as_ref()?;
        (heard.began + lease / 2 > now).then_some(&heard.said)
    }

    /// What it has said of itself, where that is not long ago.
    fn state_now(&self, now: Duration, lease: Duration) -> Option<&State> {
        let heard = self.state.as_ref()?;
        (heard.began + lease / 2 > now).then_some(&heard.said)
    }
}

impl State {
    /// Whether it takes writes as a primary does.
    fn takes_writes(&self) -> bool {
        !self.closed && self.sources.is_empty()
    }

    fn is_shut(&self) -> bool {
        !self.takes_writes()
    }
}

#[cfg(test)]
mod tests;
