//! A server as one of those by which several pointsman agree: its user-level locks, and what it
//! says of itself.
//!
//! A lock lives as long as its connection. The server ends one over which nothing was said for
//! `wait_timeout`, which is the lease there: so the locks of a pointsman that was frozen, or whose
//! machine is gone, become free.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use tokio::time::Instant;

use crate::cluster::lease;
use crate::cluster::tally::{Followed, Lock, Locks, State, Wanted};
use crate::cluster::voter::Voter;
use crate::failover::keeper::Settings;
use crate::failover::survey::{puzzling, started};
use crate::health::connect::{Connection, open};
use crate::health::observation::Failure;
use crate::health::probe_mysql::{source, status_statement};
use crate::protocol::answer::Answer;
use crate::tls::trust::Trust;
use crate::topology::Flavour;

/// Longest name of a lock (MySQL 5.7 and later; MariaDB allows more).
const NAME_MAX: usize = 64;

/// The names of a group's locks.
#[derive(Debug, Clone)]
pub struct LockNames {
    prefix: String,
}

/// A server that is asked over connections of the monitor's account.
pub struct LiveVoter {
    name: Arc<str>,
    address: Arc<str>,
    settings: Arc<ArcSwap<Settings>>,
    trust: Arc<ArcSwap<Trust>>,
    names: LockNames,
    lease: Duration,
    /// Taken out while it is asked: an answer that is not waited for ends it.
    seat: Mutex<Option<Seat>>,
    /// The same, for all that may take longer.
    window: Mutex<Option<Window>>,
}

/// The connection that holds the locks.
struct Seat {
    conn: Connection,
    /// The locks that it holds beside the one of who acts.
    given: Option<String>,
    rests: Option<bool>,
}

/// The connection over which the server says what it is.
struct Window {
    conn: Connection,
    connected: Instant,
}

// === impls ===

impl LockNames {
    /// Those of a group, of the cluster with this name.
    #[must_use]
    pub fn of(cluster: &str, group: &str) -> Self {
        Self { prefix: format!("{cluster}:{group}") }
    }

    /// The lock of who acts.
    fn acts(&self) -> String {
        self.lock("acts")
    }

    /// The lock that says whether an operator works on the group.
    fn rests(&self, rests: bool) -> String {
        self.lock(if rests { "rests" } else { "works" })
    }

    /// The lock that gives a word.
    fn word(&self, word: &str) -> String {
        self.lock(&format!("sound:{word}"))
    }

    /// A name that is no longer than names of locks may be, and needs no quoting.
    fn lock(&self, what: &str) -> String {
        let plain = format!("{}:{what}", self.prefix);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.@".contains(&byte);
        // Names that differ by their letters' case only are one.
        let is_lower = !plain.bytes().any(|byte| byte.is_ascii_uppercase());
        if plain.len() <= NAME_MAX && plain.bytes().all(is_plain) && is_lower {
            return plain;
        }
        let hash = digest::digest(&digest::SHA256, plain.as_bytes());
        let hex: String = hash.as_ref().iter().take(24).map(|byte| format!("{byte:02x}")).collect();
        format!("pointsman:{hex}")
    }
}

impl LiveVoter {
    /// The server of this name at `address`, asked as `settings` and `trust` say at the time. It
    /// frees locks of a connection over which nothing was said for `lease`, whole seconds.
    #[must_use]
    pub fn new(
        (name, address): (Arc<str>, Arc<str>),
        settings: Arc<ArcSwap<Settings>>,
        trust: Arc<ArcSwap<Trust>>,
        names: LockNames,
        lease: Duration,
    ) -> Self {
        let (seat, window) = (Mutex::default(), Mutex::default());
        Self { name, address, settings, trust, names, lease, seat, window }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let (settings, trust) = (self.settings.load_full(), self.trust.load_full());
        let mut conn = open(&self.address, &settings.monitor, &trust).await?;
        let ends = format!("SET SESSION wait_timeout = {}", self.lease.as_secs().max(1));
        conn.ask(&ends).await?;
        Ok(conn)
    }

    async fn take_seat(&self) -> Result<Seat, Failure> {
        let kept = self.seat.lock().unwrap_or_else(PoisonError::into_inner).take();
        match kept {
            Some(seat) => Ok(seat),
            None => Ok(Seat { conn: self.connect().await?, given: None, rests: None }),
        }
    }

    async fn open_window(&self) -> Result<Window, Failure> {
        let kept = self.window.lock().unwrap_or_else(PoisonError::into_inner).take();
        match kept {
            Some(window) => Ok(window),
            None => {
                let conn = self.connect().await?;
                Ok(Window { conn, connected: Instant::now() })
            }
        }
    }

    async fn holds(&self, wanted: &Wanted) -> Result<Locks, Failure> {
        let mut seat = self.take_seat().await?;
        let locks = seat.see_to(&self.names, wanted).await?;
        *self.seat.lock().unwrap_or_else(PoisonError::into_inner) = Some(seat);
        Ok(locks)
    }

    async fn tells(&self) -> Result<State, Failure> {
        let mut window = self.open_window().await?;
        let state = window.look(&self.names.acts()).await?;
        if window.conn.is_sound() {
            *self.window.lock().unwrap_or_else(PoisonError::into_inner) = Some(window);
        }
        Ok(state)
    }
}

impl Voter for LiveVoter {
    fn name(&self) -> &str {
        &self.name
    }

    fn now(&self) -> Duration {
        lease::boot_time()
    }

    async fn locks(&self, wanted: Wanted) -> Result<Locks, String> {
        self.holds(&wanted).await.map_err(|failure| failure.to_string())
    }

    async fn state(&self) -> Result<State, String> {
        self.tells().await.map_err(|failure| failure.to_string())
    }
}

impl Seat {
    /// Has what is wanted, and lets go of the rest.
    async fn see_to(&mut self, names: &LockNames, wanted: &Wanted) -> Result<Locks, Failure> {
        let (acts, rests, works) = (names.acts(), names.rests(true), names.rests(false));
        let word = wanted.word.as_ref().map(|word| names.word(word));
        let asked = word
            .as_ref()
            .map_or_else(|| "NULL".to_owned(), |word| format!("IS_USED_LOCK('{word}')"));
        let question = format!(
            "SELECT CONNECTION_ID(), IS_USED_LOCK('{acts}'), IS_USED_LOCK('{rests}'), \
             IS_USED_LOCK('{works}'), {asked}"
        );
        let answer = self.conn.ask(&question).await?;
        let row = answer.first().ok_or_else(|| puzzling("its locks"))?;
        let own = row.text(0).ok_or_else(|| puzzling("its locks"))?;
        let (holder, given_by) = (row.text(1), row.text(4));
        let said_by = [(row.text(2), true), (row.text(3), false)];
        let held = match holder.as_ref() {
            Some(holder) if *holder == own => Lock::Own,
            Some(_) => Lock::Another,
            None if wanted.acts && self.lock(&acts).await? => Lock::Own,
            None => Lock::Free,
        };
        if held != Lock::Own {
            let by_holder = |by: &Option<String>| by.is_some() && *by == holder;
            let word = wanted.word.clone().filter(|_| by_holder(&given_by));
            let rests = said_by.iter().find(|(by, _)| by_holder(by)).map(|(_, rests)| *rests);
            return Ok(Locks { acts: held, word, rests });
        }
        if !wanted.acts {
            self.let_go(names).await?;
            return Ok(Locks { acts: Lock::Free, word: None, rests: None });
        }
        let given = word.filter(|_| wanted.gives);
        if self.given != given {
            if let Some(before) = self.given.take() {
                self.free(&before).await?;
            }
            if let Some(given) = given
                && self.lock(&given).await?
            {
                self.given = Some(given);
            }
        }
        if self.rests != wanted.rests {
            if let Some(before) = self.rests.take() {
                self.free(&names.rests(before)).await?;
            }
            if let Some(now) = wanted.rests
                && self.lock(&names.rests(now)).await?
            {
                self.rests = Some(now);
            }
        }
        let word = wanted.word.clone().filter(|_| self.given.is_some());
        Ok(Locks { acts: Lock::Own, word, rests: self.rests })
    }

    async fn lock(&mut self, name: &str) -> Result<bool, Failure> {
        let answer = self.conn.ask(&format!("SELECT GET_LOCK('{name}', 0)")).await?;
        Ok(is_one(&answer))
    }

    async fn free(&mut self, name: &str) -> Result<(), Failure> {
        self.conn.ask(&format!("SELECT RELEASE_LOCK('{name}')")).await.map(drop)
    }

    /// The words first: nobody else may find them with who acts next.
    async fn let_go(&mut self, names: &LockNames) -> Result<(), Failure> {
        if let Some(given) = self.given.take() {
            self.free(&given).await?;
        }
        if let Some(said) = self.rests.take() {
            self.free(&names.rests(said)).await?;
        }
        self.free(&names.acts()).await
    }
}

impl Window {
    async fn look(&mut self, acts: &str) -> Result<State, Failure> {
        let asked = Instant::now();
        let greeted = self.conn.greeted();
        let (flavour, of_receivers) = (greeted.flavour, status_statement(greeted));
        let itself = self.conn.ask(&of_itself(flavour)).await?;
        let status = self.conn.ask(of_receivers).await?;
        let row = itself.first().ok_or_else(|| puzzling("itself"))?;
        let text = |at| row.text(at).unwrap_or_default();
        let followed = |source: crate::health::observation::Source| Followed {
            address: source.address(),
            server_id: source.server_id,
            receives: source.receiving,
            stopped: source.receiver_stopped,
        };
        Ok(State {
            connected: self.connected,
            asked,
            closed: text(0) != "0",
            server_id: text(1).parse().map_err(|_| puzzling("its server_id"))?,
            started: text(2).parse().map_err(|_| puzzling("when it was started"))?,
            sources: status.rows().filter_map(source).map(followed).collect(),
            holder: self.holder(flavour, acts).await,
        })
    }

    /// Where the connection comes from that holds a lock; empty where that cannot be told.
    async fn holder(&mut self, flavour: Flavour, lock: &str) -> String {
        let list = match flavour {
            Flavour::MariaDb => "information_schema.processlist",
            Flavour::MySql => "performance_schema.processlist",
        };
        let question = format!("SELECT host FROM {list} WHERE id = IS_USED_LOCK('{lock}')");
        let answer = self.conn.ask(&question).await.ok();
        let from = answer.and_then(|answer| answer.first()?.text(0)).unwrap_or_default();
        from.rsplit_once(':').map_or_else(|| from.clone(), |(host, _)| host.to_owned())
    }
}

/// Whether it takes writes, its id, and when it was started.
fn of_itself(flavour: Flavour) -> String {
    let closed = match flavour {
        Flavour::MariaDb => "@@global.read_only <> 0",
        Flavour::MySql => "@@global.read_only OR @@global.super_read_only",
    };
    format!("SELECT {closed}, @@global.server_id, {}", started(flavour))
}

fn is_one(answer: &Answer) -> bool {
    answer.first().and_then(|row| row.text(0)).is_some_and(|text| text == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_locks_are_short_and_plain_and_tell_groups_apart() {
        let names = LockNames::of("pointsman", "main");
        assert_eq!(names.acts(), "pointsman:main:acts");
        assert_eq!(names.word("db1@17"), "pointsman:main:sound:db1@17");
        let long = LockNames::of(&"p".repeat(40), &"g".repeat(40));
        let other = LockNames::of(&"p".repeat(40), &"h".repeat(40));
        assert_ne!(long.acts(), other.acts());
        // The case of letters does not tell locks apart.
        let upper = LockNames::of("pointsman", "MAIN");
        assert_ne!(upper.acts().to_ascii_lowercase(), names.acts());
        for name in [long.acts(), upper.acts(), names.word("it's")] {
            assert!(name.len() <= NAME_MAX && !name.contains('\''), "{name}");
        }
    }
}
