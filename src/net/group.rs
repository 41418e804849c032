//! What all workers share of one group: its settings, its topology, its accounts, its loads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::accounts::AccountBook;
use crate::cluster::lease::Lease;
use crate::config::Group;
use crate::health::Health;
use crate::health::cell::TopologyCell;
use crate::protocol::auth::RsaKey;
use crate::tls::offer::Offer;
use crate::tls::trust::Trust;
use crate::topology::acknowledged::Acknowledged;
use crate::upstream::budget::Budget;
use crate::upstream::load::Loads;

/// One group as the data path sees it.
#[derive(Debug)]
pub struct GroupHandle {
    /// Its name.
    pub name: Arc<str>,
    /// Its settings; replaced whole by a reload.
    pub settings: Arc<ArcSwap<Group>>,
    /// TLS towards clients, as it is offered now; `None` offers none.
    pub tls: ArcSwapOption<Offer>,
    /// TLS towards servers; health and accounts see the same.
    pub trust: Arc<ArcSwap<Trust>>,
    /// Until when statements may be sent to the primary; `None` where this pointsman is alone.
    pub lease: Option<Arc<Lease>>,
    /// The published topology.
    pub topology: Arc<TopologyCell>,
    /// The way to tell health what links show.
    pub health: Health,
    /// Who may log in.
    pub accounts: AccountBook,
    /// Statements in flight by server.
    pub loads: Loads,
    /// How many links to servers there may be.
    pub budget: Budget,
    /// Counts changes of accounts that were seen: an older link has the rights of before.
    pub accounts_at: AtomicU32,
    /// The key with which clients without TLS send their password.
    pub rsa: Arc<RsaKey>,
    /// Clients connected now.
    pub clients: AtomicUsize,
    /// Counts connection ids, so that each client's is its own.
    pub next_id: Arc<AtomicU32>,
    /// The newest writes that clients were told of, which an heir of the primary must have.
    pub acknowledged: Arc<Acknowledged>,
    /// When a client last changed settings of the primary.
    pub settings_changed: Moment,
    /// Sessions that hold locks of tables, or may.
    pub table_locks: AtomicUsize,
}

/// A moment that all threads may read and move, or none yet.
#[derive(Debug)]
pub struct Moment {
    origin: Instant,
    /// Milliseconds since `origin`, rounded up; 0 for none.
    after_ms: AtomicU64,
}

impl Moment {
    /// None yet.
    #[must_use]
    pub fn never(origin: Instant) -> Self {
        Self { origin, after_ms: AtomicU64::new(0) }
    }

    /// It is `now`.
    pub fn set(&self, now: Instant) {
        let after = now.saturating_duration_since(self.origin).as_millis();
        let after = u64::try_from(after).unwrap_or(u64::MAX).saturating_add(1);
        self.after_ms.fetch_max(after, Ordering::Relaxed);
    }

    /// When it was, if ever.
    #[must_use]
    pub fn get(&self) -> Option<Instant> {
        match self.after_ms.load(Ordering::Relaxed) {
            0 => None,
            after => self.origin.checked_add(Duration::from_millis(after)),
        }
    }
}

/// One client's place among `max_clients`; given back when dropped.
#[derive(Debug)]
pub struct Admission(Arc<GroupHandle>);

impl Admission {
    /// Takes a place, if there is one.
    #[must_use]
    pub fn take(group: &Arc<GroupHandle>) -> Option<Self> {
        let most = group.settings.load().max_clients;
        let before = group.clients.fetch_add(1, Ordering::Relaxed);
        let admission = Self(group.clone());
        (before < most).then_some(admission)
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Arc<GroupHandle> {
        &self.0
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
