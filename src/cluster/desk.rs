//! Where the keeper of one group meets what the cluster agrees on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::cluster::lease::{BY_SERVERS, Lease};
use crate::cluster::tally::Sight;

/// What is known of one group as long as this pointsman has a lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Which of this pointsman's leases it is, or time in which a majority of the servers has been
    /// heard; from 1.
    pub term: u64,
    /// The revision of the store at which all this held.
    pub revision: i64,
    /// Who acts for the group, if anybody does.
    pub leader: Option<Leader>,
    /// What was written down last.
    pub record: Written,
    /// Every pointsman that lives and serves the group, this one too; of those that agree by the
    /// servers' locks the one that acts and this one.
    pub members: Vec<Member>,
    /// What the servers say, where they are what is agreed by.
    pub sight: Option<Sight>,
}

/// Who acts for a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its name.
    pub id: String,
    /// Which leadership it is: each has another number.
    pub number: i64,
    /// It is this pointsman.
    pub is_own: bool,
}

/// What the one who acts has written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// The text; empty where nothing was written yet.
    pub text: String,
    /// The revision that has written it; 0 for none.
    pub revision: i64,
}

/// One pointsman, and what it says of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub id: String,
    /// It is this pointsman.
    pub is_own: bool,
    /// It is the one that acts for the group.
    pub leads: bool,
    /// What it says of the group; `None` before its keeper has looked by its present lease.
    pub said: Option<Said>,
}

/// What a pointsman says of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The revision of the record by which it sends statements, or none any more.
    pub seen: i64,
    /// The epoch of that record.
    pub epoch: u64,
    /// The step of an operation that was under way in it; empty for none.
    pub step: String,
    /// Whether the primary answers it.
    pub reaches: bool,
    /// How many of the group's servers answer it.
    #[serde(default)]
    pub answering: usize,
    /// How many of its sessions have begun what is not over, where somebody waits for that.
    pub unfinished: Option<usize>,
    /// The newest writes that its clients were told of by a primary that is replaced, as GTIDs.
    #[serde(default)]
    pub acknowledged: Option<String>,
    /// Counts how often it has looked at the primary and found it to be what it had judged it to
    /// be, where it acts.
    #[serde(default)]
    pub looks: u64,
}

/// All that a pointsman says, as its key has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sayings {
    pub(super) groups: BTreeMap<String, Option<Said>>,
}

/// Why nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Somebody else acts for the group, or has written.
    #[error("another pointsman acts for the group")]
    Fenced,
    /// It may have been written or not.
    #[error("{0}")]
    Unknown(String),
}

/// A keeper's wish to write.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) group: Arc<str>,
    /// The leadership by which it is written.
    pub(super) number: i64,
    /// What it follows.
    pub(super) after: i64,
    pub(super) text: String,
    pub(super) reply: oneshot::Sender<Result<i64, WriteError>>,
}

/// What a keeper does, told to the task that counts what the servers say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stance {
    /// The group is kept, so that somebody must act for it.
    pub keeps: bool,
    /// The server that health was told to have the writes sent to.
    pub to: Option<String>,
    /// A server that the keeper that acts has found to have all that it had, and a time at which it
    /// was so.
    pub sound: Option<(String, Instant)>,
    /// An operator works on the group.
    pub rests: bool,
    /// Counts how often servers were told whom to follow: what they said of that before is old.
    pub turned: u64,
}

/// What one group's keeper and the task that speaks to the store share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) group: Arc<str>,
    pub(super) lease: Arc<Lease>,
    /// Until when orders may be given by who acts: the lease in etcd, or the locks.
    pub(super) acting: Arc<Lease>,
    /// What the keeper does, where the servers are what is agreed by.
    pub(super) stance: Mutex<Stance>,
    /// The term in which the keeper works: it has seen to that nobody is sent anything by what
    /// was known before.
    pub(super) obeyed: AtomicU64,
    /// What the keeper says; `None` while the group is not kept.
    pub(super) said: Mutex<Option<Said>>,
    pub(super) views: watch::Sender<Option<Arc<View>>>,
    /// Rung when something was said.
    pub(super) bell: Arc<Notify>,
}

/// Where a keeper meets the others.
#[derive(Debug, Clone)]
pub struct Desk {
    shared: Arc<Shared>,
    views: watch::Receiver<Option<Arc<View>>>,
    wishes: mpsc::Sender<Wish>,
}

// === impls ===

impl Shared {
    pub(super) fn new(
        group: Arc<str>,
        lease: Arc<Lease>,
        acting: Arc<Lease>,
        bell: Arc<Notify>,
    ) -> Self {
        Self {
            group,
            lease,
            acting,
            stance: Mutex::default(),
            obeyed: AtomicU64::new(0),
            said: Mutex::default(),
            views: watch::Sender::new(None),
            bell,
        }
    }

    /// Whether the group's keeper has come to an end: nothing is sent by what it knew, and nobody
    /// waits for it.
    pub(super) fn is_deserted(&self) -> bool {
        self.views.receiver_count() == 0
    }
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>, wishes: mpsc::Sender<Wish>) -> Self {
        let views = shared.views.subscribe();
        Self { shared, views, wishes }
    }

    /// What is known now; `None` without a lease.
    #[must_use]
    pub fn view(&self) -> Option<Arc<View>> {
        self.views.borrow().clone()
    }

    /// Waits until more is known, or nothing any more. Nothing is lost when the wait is given up.
    pub async fn changed(&mut self) {
        if self.views.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Until when statements may be sent to the primary.
    #[must_use]
    pub fn lease(&self) -> &Arc<Lease> {
        &self.shared.lease
    }

    /// Whether the servers are what is agreed by.
    #[must_use]
    pub fn is_by_servers(&self) -> bool {
        *self.shared.lease.words() == BY_SERVERS
    }

    /// Until when orders may be given to servers by the one that acts.
    #[must_use]
    pub fn acting(&self) -> &Arc<Lease> {
        &self.shared.acting
    }

    /// Says what the keeper does now, to who counts what the servers say.
    pub fn take(&self, stance: Stance) {
        let mut place = self.shared.stance.lock().unwrap_or_else(PoisonError::into_inner);
        if *place != stance {
            *place = stance;
            self.shared.bell.notify_one();
        }
    }

    /// Has what the servers say looked at soon: something was changed.
    pub fn ring(&self) {
        self.shared.bell.notify_one();
    }

    /// Says what this pointsman does; `None` when the group is not kept. `term` is that of the
    /// view by which it does so from now on.
    pub fn say(&self, term: u64, said: Option<Said>) {
        let before = self.shared.obeyed.swap(term, Ordering::AcqRel);
        let mut place = self.shared.said.lock().unwrap_or_else(PoisonError::into_inner);
        if *place != said || before != term {
            *place = said;
            self.shared.bell.notify_one();
        }
    }

    /// Writes down what is about to be, by this leadership, in the place of the record of this
    /// revision; answers the new one.
    ///
    /// # Errors
    /// When another pointsman acts for the group, or nobody can tell.
    pub async fn write(&self, number: i64, after: i64, text: String) -> Result<i64, WriteError> {
        let gone = || WriteError::Unknown("the store is not spoken to any more".to_owned());
        let (reply, answer) = oneshot::channel();
        let wish = Wish { group: self.shared.group.clone(), number, after, text, reply };
        self.wishes.send(wish).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl View {
    /// Those others who have not said yet that they have seen the record of this revision, or a
    /// later one. Whoever is not a member any more sends nothing to anybody.
    #[must_use]
    pub fn unaware(&self, revision: i64) -> Vec<&str> {
        let others = self.members.iter().filter(|member| !member.is_own);
        let seen = |member: &Member| member.said.as_ref().is_some_and(|said| said.seen >= revision);
        others.filter(|member| !seen(member)).map(|member| &*member.id).collect()
    }

    /// Another pointsman that the primary answers, if there is one.
    #[must_use]
    pub fn reaching(&self) -> Option<&str> {
        let others = self.members.iter().filter(|member| !member.is_own);
        let mut reaching = others.filter(|at| at.said.as_ref().is_some_and(|said| said.reaches));
        reaching.next().map(|member| &*member.id)
    }

    /// Whether no server answers this pointsman while some answer another: that one can act.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        let answering =
            |member: &Member| member.said.as_ref().is_some_and(|said| said.answering > 0);
        let (own, others): (Vec<&Member>, Vec<&Member>) =
            self.members.iter().partition(|member| member.is_own);
        !own.into_iter().any(answering) && others.into_iter().any(answering)
    }

    /// By which leadership the one that acts has looked at the primary, and how often.
    #[must_use]
    pub fn looks(&self) -> Option<(i64, u64)> {
        let member = self.members.iter().find(|member| member.leads)?;
        Some((self.leader.as_ref()?.number, member.said.as_ref()?.looks))
    }

    /// The newest writes that clients of others were told of, as GTIDs, of those who have seen the
    /// record of this revision; and whether all others have said that.
    #[must_use]
    pub fn acknowledged(&self, revision: i64) -> (Vec<String>, bool) {
        let others = self.members.iter().filter(|member| !member.is_own);
        let said = others.map(|member| {
            let said = member.said.as_ref().filter(|said| said.seen >= revision)?;
            said.acknowledged.clone()
        });
        let said: Vec<Option<String>> = said.collect();
        let is_all = said.iter().all(Option::is_some);
        (said.into_iter().flatten().collect(), is_all)
    }

    /// How many sessions of others have begun what is not over; `None` where one of them does not
    /// tell.
    #[must_use]
    pub fn unfinished(&self) -> Option<usize> {
        let others = self.members.iter().filter(|member| !member.is_own);
        others.map(|member| member.said.as_ref()?.unfinished).sum()
    }
}

/// A desk of which a test is the other side.
#[cfg(test)]
pub(crate) mod fixture {
    use std::time::Duration;

    use super::*;
    use crate::cluster::lease;

    /// What the task that counts does.
    pub(crate) struct Clerk {
        shared: Arc<Shared>,
    }

    /// A desk of a keeper that agrees with others by the servers.
    pub(crate) fn by_servers() -> (Desk, Clerk) {
        let lease = || Arc::new(Lease::new(&BY_SERVERS));
        let bell = Arc::new(Notify::new());
        let shared = Arc::new(Shared::new(Arc::from("main"), lease(), lease(), bell));
        let desk = Desk::new(shared.clone(), mpsc::channel(1).0);
        (desk, Clerk { shared })
    }

    impl Clerk {
        /// What is known from now on; whoever acts by it may for a minute.
        pub(crate) fn shows(&self, view: View) {
            let acts = view.leader.as_ref().is_some_and(|leader| leader.is_own);
            let left = if acts { Duration::from_secs(60) } else { Duration::ZERO };
            self.shared.acting.set(lease::boot_time() + left);
            self.shared.views.send_replace(Some(Arc::new(view)));
        }

        /// Nothing is known from now on.
        pub(crate) fn hides(&self) {
            self.shared.views.send_replace(None);
        }
    }
}
