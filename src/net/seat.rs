//! A client's place in its worker: its session, and the bell that other tasks may ring.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use crate::metrics::WorkerMetrics;
use crate::net::group::GroupHandle;
use crate::net::pool::Principal;
use crate::net::worker::Served;
use crate::protocol::auth::Credential;
use crate::protocol::greet::Hello;
use crate::reactor::Reactor;
use crate::session::Session;
use crate::session::pin::{Pin, Pins};
use crate::tls::trust::Demand;
use crate::topology::NodeId;

/// A client's place in its worker.
#[derive(Debug)]
pub(super) struct Seat {
    /// The id that the client was greeted with.
    pub(super) id: u32,
    /// Its group, as its worker serves it.
    pub(super) served: Rc<Served>,
    /// The index of its worker.
    pub(super) worker: usize,
    /// The client's address; `None` on a unix socket.
    pub(super) peer: Cell<Option<SocketAddr>>,
    /// Where it connected to.
    pub(super) local: Option<SocketAddr>,
    pub(super) since: Instant,
    /// Where its sockets are watched.
    pub(super) reactor: Rc<Reactor>,
    /// Who it is, once it has logged in.
    pub(super) identity: RefCell<Option<Rc<Identity>>>,
    /// Whose links it may have, once it has logged in.
    pub(super) who: RefCell<Option<Rc<Principal>>>,
    /// Its session, once it has logged in.
    pub(super) session: RefCell<Option<Session>>,
    pub(super) bell: Bell,
    /// The server whose load this session is counted in.
    pub(super) running: Cell<Option<NodeId>>,
    /// The pins that the session is counted with.
    pub(super) pinned: Cell<Pins>,
    /// What servers have kept its login waiting for.
    pub(super) waited: Waited,
}

/// Time that a client spent waiting for servers: none of its own.
#[derive(Debug, Default)]
pub(super) struct Waited {
    before: Cell<Duration>,
    since: Cell<Option<Instant>>,
}

impl Waited {
    /// The client waits for a server until this is dropped. One wait at a time.
    pub(super) fn begin(&self) -> Waiting<'_> {
        self.since.set(Some(Instant::now()));
        Waiting(self)
    }

    /// What comes of `login`, or `None` once the client has used up its patience. What servers
    /// keep it waiting for (a place in the queue, a primary) is bounded by itself, and ends in an
    /// answer.
    pub(super) async fn in_time<F: Future>(
        &self,
        patience: Duration,
        mut login: std::pin::Pin<&mut F>,
    ) -> Option<F::Output> {
        let mut left = patience;
        while !left.is_zero() {
            if let Ok(outcome) = tokio::time::timeout(left, login.as_mut()).await {
                return Some(outcome);
            }
            left = self.take();
        }
        None
    }

    /// The time since this was last asked, with that of a wait that goes on.
    fn take(&self) -> Duration {
        let now = Instant::now();
        let running = self.since.replace(self.since.get().map(|_| now));
        let lately = running.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.before.take() + lately
    }
}

/// A wait that goes on.
#[derive(Debug)]
pub(super) struct Waiting<'a>(&'a Waited);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.before.set(self.0.take());
        self.0.since.set(None);
    }
}

/// Who a client proved to be, and how it wants to be served.
#[derive(Debug)]
pub(super) struct Identity {
    /// What it said of itself.
    pub(super) hello: Hello,
    /// With what it logs in to servers.
    pub(super) credential: Credential,
    /// What its account demands of connections to servers.
    pub(super) demand: Demand,
}

/// Wakes a session's task for something other than bytes. Single-threaded, allocation-free.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Cell<u8>,
    waker: RefCell<Option<Waker>>,
}

/// Why the bell was rung; a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ring(u8);

impl Ring {
    /// A new generation of the topology.
    pub(super) const TOPOLOGY: Self = Self(1);
    /// The session's deadline has passed.
    pub(super) const DEADLINE: Self = Self(2);
    /// The client was idle for too long.
    pub(super) const IDLE: Self = Self(4);
    /// The process is leaving: close as soon as nothing is lost by it.
    pub(super) const DRAIN: Self = Self(8);
    /// Close now.
    pub(super) const KILL: Self = Self(16);
    /// Give up links that are not needed.
    pub(super) const RELEASE: Self = Self(32);

    /// Whether `other` is in the set.
    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl Bell {
    /// Rings it; the session's task will look.
    pub(super) fn ring(&self, why: Ring) {
        self.rung.set(self.rung.get() | why.0);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Whether it was rung to close now; leaves everything else to be looked at later, and
    /// remembers whom to wake.
    pub(super) fn killed(&self, cx: &Context<'_>) -> bool {
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Ring(self.rung.get()).has(Ring::KILL)
    }

    /// Whether it was rung for a link to be given up, which is not looked at again then;
    /// remembers whom to wake.
    pub(super) fn called(&self, cx: &Context<'_>) -> bool {
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        let rung = self.rung.get();
        self.rung.set(rung & !Ring::RELEASE.0);
        Ring(rung).has(Ring::RELEASE)
    }

    /// What it was rung for, if it was.
    #[inline]
    pub(super) fn take(&self) -> Option<Ring> {
        match self.rung.replace(0) {
            0 => None,
            rung => Some(Ring(rung)),
        }
    }

    /// Remembers whom to wake.
    #[inline]
    pub(super) fn watch(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match waker.as_ref() {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
    }
}

impl Seat {
    /// The group that the client connected to.
    pub(super) fn group(&self) -> &Arc<GroupHandle> {
        &self.served.group
    }

    /// Counts the session's statement in, or out of, a server's load.
    pub(super) fn count_load(&self, now_on: Option<NodeId>) {
        let before = self.running.replace(now_on);
        if before != now_on {
            if let Some(node) = before {
                self.group().loads.ended(self.worker, node);
            }
            if let Some(node) = now_on {
                self.group().loads.began(self.worker, node);
            }
        }
    }
}

impl Seat {
    /// Counts the causes for which the session may not move.
    pub(super) fn count_pins(&self, now: Pins, metrics: &WorkerMetrics) {
        let before = self.pinned.replace(now);
        if before == now {
            return;
        }
        match (before.has(Pin::TableLock), now.has(Pin::TableLock)) {
            (false, true) => self.group().table_locks.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.group().table_locks.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => 0,
        };
        for (index, pin) in Pin::ALL.into_iter().enumerate() {
            match (before.has(pin), now.has(pin)) {
                (false, true) => metrics.pinned(index),
                (true, false) => metrics.unpinned(index),
                (true, true) | (false, false) => {}
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.count_load(None);
    }
}
