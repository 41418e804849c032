//! The task that speaks to the store: it holds this pointsman's lease, says what its keepers say,
//! runs for what nobody acts for, and hands each keeper what is known of its group.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;

use crate::cluster::desk::{
    Desk, Leader, Member, Said, Sayings, Shared, View, Wish, WriteError, Written,
};
use crate::cluster::lease::{GUARD, IN_ETCD, Lease};
use crate::cluster::store::{Change, Condition, Entry, Snapshot, Store, StoreError};

/// How often the store is read, though nothing rings.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How soon a store that has not answered is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long the lease may take to be given back at the end.
const GOODBYE: Duration = Duration::from_secs(1);
/// Wishes of keepers that may wait.
const WISHES: usize = 16;

/// The task's state.
pub struct Agent<S> {
    store: S,
    /// What this pointsman is called.
    id: String,
    ttl: Duration,
    held: Option<Held>,
    /// Counts leases.
    term: u64,
    groups: Vec<Arc<Shared>>,
    wishes: mpsc::Receiver<Wish>,
    /// A keeper has said something.
    bell: Arc<Notify>,
    /// What was said of the store last, so that it is said once.
    trouble: Option<String>,
    /// The leases hold; so it was said.
    is_valid: bool,
}

/// The lease in the store.
#[derive(Debug, Clone)]
struct Held {
    lease: i64,
    /// When the question was sent whose answer has renewed it last.
    renewed: Duration,
    /// What stands in this pointsman's key; empty before it is made.
    told: String,
}

impl<S: Store> Agent<S> {
    /// The task for these groups, and where the keeper of each meets it. `id` is what this
    /// pointsman is called; its lease ends `ttl` after its last sign of life.
    #[must_use]
    pub fn new(store: S, id: String, ttl: Duration, groups: &[Arc<str>]) -> (Self, Vec<Desk>) {
        let (wish, wishes) = mpsc::channel(WISHES);
        let bell = Arc::new(Notify::new());
        let share = |group: &Arc<str>| {
            let lease = Arc::new(Lease::new(&IN_ETCD));
            Arc::new(Shared::new(group.clone(), lease.clone(), lease, bell.clone()))
        };
        let groups: Vec<Arc<Shared>> = groups.iter().map(share).collect();
        let desks = groups.iter().map(|group| Desk::new(group.clone(), wish.clone())).collect();
        let agent = Self {
            store,
            id,
            ttl,
            held: None,
            term: 0,
            groups,
            wishes,
            bell,
            trouble: None,
            is_valid: false,
        };
        (agent, desks)
    }

    /// Takes part until `shutdown` is true, and gives back what it holds.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        loop {
            let is_well = self.turn().await;
            let pause = if is_well { LOOK_EVERY.min(self.ttl / 6) } else { ASK_AGAIN };
            let bell = self.bell.clone();
            let wish = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => break,
                Some(wish) = self.wishes.recv() => Some(wish),
                () = bell.notified() => None,
                () = self.store.rung(), if is_well => None,
                () = sleep(pause) => None,
            };
            if let Some(wish) = wish {
                self.grant(wish).await;
            }
        }
        self.leave().await;
    }

    /// Looks once at everything; whether the store has answered.
    pub async fn turn(&mut self) -> bool {
        let mut outcome = self.look().await;
        if outcome == Err(StoreError::LeaseGone) {
            self.lose();
            outcome = self.look().await;
        }
        if let Err(error) = &outcome {
            let why = error.to_string();
            if self.trouble.is_none() {
                tracing::warn!(why, "etcd does not answer");
            }
            self.trouble = Some(why);
            self.store.move_on();
        } else if self.trouble.take().is_some() {
            tracing::info!("etcd answers again");
        }
        self.check_validity();
        outcome.is_ok()
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        self.keep_alive().await?;
        self.extend();
        self.tell().await?;
        let mut snapshot = self.store.read().await?;
        if self.campaign(&snapshot).await? {
            snapshot = self.store.read().await?;
        }
        self.publish(&snapshot);
        Ok(())
    }

    /// Sees to that there is a lease and that it stays.
    async fn keep_alive(&mut self) -> Result<(), StoreError> {
        let now = self.store.now();
        let Some(held) = &mut self.held else {
            let lease = self.store.grant(self.ttl).await?;
            self.term += 1;
            self.held = Some(Held { lease, renewed: now, told: String::new() });
            tracing::info!(id = self.id, "a new lease in etcd");
            return Ok(());
        };
        if now.saturating_sub(held.renewed) >= self.ttl / 3 {
            self.store.renew(held.lease).await?;
            held.renewed = now;
        }
        Ok(())
    }

    /// Lets statements be sent to the primaries of those groups whose keepers work by what this
    /// lease has shown them.
    fn extend(&self) {
        let Some(held) = &self.held else { return };
        let until = held.renewed + self.ttl.saturating_sub(GUARD);
        for group in &self.groups {
            if group.is_deserted() {
                group.lease.set(Duration::ZERO);
            } else if group.obeyed.load(Ordering::Acquire) == self.term {
                group.lease.set(until);
            }
        }
    }

    /// Says what the keepers say, where that has changed.
    async fn tell(&mut self) -> Result<(), StoreError> {
        let Some(held) = &mut self.held else { return Ok(()) };
        let said = |group: &Arc<Shared>| {
            if group.is_deserted() {
                return None;
            }
            let obeyed = group.obeyed.load(Ordering::Acquire);
            let said = group.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // Of another term, it goes by what was known before.
            let is_bound = obeyed != self.term || said.is_some();
            let said = said.filter(|_| obeyed == self.term);
            is_bound.then(|| (group.group.to_string(), said))
        };
        let groups: BTreeMap<String, Option<Said>> = self.groups.iter().filter_map(said).collect();
        let value = serde_json::to_string(&Sayings { groups }).unwrap_or_default();
        if held.told == value {
            return Ok(());
        }
        let (key, lease) = (member_key(&self.id, held.lease), held.lease);
        let change = Change { only_if: Vec::new(), key, value: Some(value.clone()), lease };
        self.store.change(change).await?;
        held.told = value;
        Ok(())
    }

    /// Runs for the groups that nobody acts for, and gives up those that are not kept here any
    /// more, or whose servers answer others only; whether anything has changed.
    async fn campaign(&mut self, snapshot: &Snapshot) -> Result<bool, StoreError> {
        let Some(held) = self.held.clone() else { return Ok(false) };
        let mut changed = false;
        for group in &self.groups {
            let is_kept = group.said.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            let is_ready = group.obeyed.load(Ordering::Acquire) == self.term;
            let view = view(snapshot, &group.group, held.lease, self.term);
            let can_act = is_kept && !view.is_cut_off();
            let (created, value) = match view.leader {
                None if can_act && is_ready => (0, Some(self.id.clone())),
                Some(leader) if leader.is_own && !can_act => (leader.number, None),
                Some(_) | None => continue,
            };
            let key = leader_key(&group.group);
            let only_if = vec![Condition::Created(key.clone(), created)];
            let change = Change { only_if, key, value, lease: held.lease };
            changed |= self.store.change(change).await?.is_some();
        }
        Ok(changed)
    }

    /// Hands each keeper what is known of its group.
    fn publish(&self, snapshot: &Snapshot) {
        let Some(held) = &self.held else { return };
        for group in &self.groups {
            let view = Arc::new(view(snapshot, &group.group, held.lease, self.term));
            group.views.send_if_modified(|last| {
                let is_own = |view: &Arc<View>| view.leader.as_ref().is_some_and(|at| at.is_own);
                let (led, leads) = (last.as_ref().is_some_and(is_own), is_own(&view));
                if led != leads {
                    let (group, now) = (&*group.group, if leads { "acts" } else { "does not act" });
                    tracing::info!(group, "this pointsman {now} for the group");
                }
                let changed = last.as_ref().is_none_or(|last| !is_alike(last, &view));
                *last = Some(view);
                changed
            });
        }
    }

    /// Writes for a keeper.
    async fn grant(&mut self, wish: Wish) {
        let Wish { group, number, after, text, reply } = wish;
        let record = record_key(&group);
        let only_if = vec![
            Condition::Created(leader_key(&group), number),
            Condition::Changed(record.clone(), after),
        ];
        let change = Change { only_if, key: record, value: Some(text), lease: 0 };
        let answer = match self.store.change(change).await {
            Ok(Some(revision)) => Ok(revision),
            Ok(None) => Err(WriteError::Fenced),
            Err(error) => {
                self.store.move_on();
                Err(WriteError::Unknown(error.to_string()))
            }
        };
        let _ = reply.send(answer);
    }

    /// The lease is gone, and all that was known by it.
    fn lose(&mut self) {
        if self.held.take().is_some() {
            tracing::warn!("the lease in etcd has expired");
        }
        for group in &self.groups {
            group.lease.set(Duration::ZERO);
            group.views.send_replace(None);
        }
        self.is_valid = false;
    }

    /// Where the lease may be gone, nothing is known any more.
    fn check_validity(&mut self) {
        let valid_for = self.ttl.saturating_sub(GUARD);
        let now = self.store.now();
        let is_valid =
            self.held.as_ref().is_some_and(|at| now.saturating_sub(at.renewed) < valid_for);
        if self.is_valid && !is_valid {
            tracing::warn!(
                "the lease in etcd was not renewed in time: nothing is sent to primaries"
            );
        }
        self.is_valid = is_valid;
        if !is_valid {
            for group in &self.groups {
                group.views.send_if_modified(|view| view.take().is_some());
            }
        }
    }

    /// Nothing is sent any more: others need not wait for the lease to end.
    async fn leave(&mut self) {
        let held = self.held.take();
        self.lose();
        if let Some(held) = held {
            let _ = tokio::time::timeout(GOODBYE, self.store.revoke(held.lease)).await;
        }
    }
}

/// Whether nobody need hear of the newer one.
fn is_alike(last: &View, view: &View) -> bool {
    View { revision: last.revision, ..view.clone() } == *last
}

/// Two lives of one pointsman are two members: the first may still send what the second does not
/// know of.
fn member_key(id: &str, lease: i64) -> String {
    format!("{MEMBERS}{id}@{lease:x}")
}

fn leader_key(group: &str) -> String {
    format!("groups/{group}/leader")
}

fn record_key(group: &str) -> String {
    format!("groups/{group}/record")
}

const MEMBERS: &str = "members/";

/// What a snapshot says of a group to the pointsman with this lease.
fn view(snapshot: &Snapshot, group: &str, lease: i64, term: u64) -> View {
    let find = |key: String| snapshot.entries.iter().find(move |entry| entry.key == key);
    let leads = find(leader_key(group));
    let leader = leads.map(|entry| Leader {
        id: entry.value.clone(),
        number: entry.created,
        is_own: entry.lease == lease,
    });
    let record = find(record_key(group)).map_or_else(Written::default, |entry| Written {
        text: entry.value.clone(),
        revision: entry.changed,
    });
    let member = |entry: &Entry| {
        let (id, _) = entry.key.strip_prefix(MEMBERS)?.rsplit_once('@')?;
        // What cannot be read was written by another version, and confirms nothing.
        let said = match serde_json::from_str::<Sayings>(&entry.value) {
            Ok(said) => said.groups.get(group)?.clone(),
            Err(_) => None,
        };
        let (id, is_own) = (id.to_owned(), entry.lease == lease);
        let leads = leads.is_some_and(|leads| leads.lease == entry.lease);
        Some(Member { id, is_own, leads, said })
    };
    let members = snapshot.entries.iter().filter_map(member).collect();
    View { term, revision: snapshot.revision, leader, record, members, sight: None }
}

#[cfg(test)]
mod tests;
