//! How many links there may be: places by server and by user, shared by all workers.
//!
//! A place that comes free goes to whoever has waited longest, on whichever worker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::topology::NodeId;
use crate::upstream::load::NODES;

/// Users whose places are counted apart; beyond, those that hold none are forgotten.
const USERS_MAX: usize = 10_000;

/// The places of one group.
#[derive(Debug)]
pub struct Budget {
    servers: Box<[Server]>,
    users: Mutex<HashMap<UserAt, Arc<Places>>>,
}

/// A user at a server.
type UserAt = (NodeId, Box<[u8]>);

#[derive(Debug)]
struct Server {
    places: Arc<Places>,
    waiting: AtomicU32,
}

/// A number of places that can grow and shrink.
#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    limit: AtomicU32,
    /// Taken places that are not to come free: the limit was lowered under them.
    debt: AtomicU32,
}

/// A user's own bound on one server.
#[derive(Debug, Clone, Copy)]
pub struct UserBound<'a> {
    /// Its name.
    pub user: &'a [u8],
    /// Most places.
    pub limit: u32,
}

/// A place among the links to one server; free again when dropped.
#[derive(Debug)]
pub struct Place {
    _server: Taken,
    _user: Option<Taken>,
}

#[derive(Debug)]
struct Taken {
    places: Arc<Places>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Somebody waits for a place; not any more when dropped.
#[derive(Debug)]
pub struct Waiting<'a>(&'a AtomicU32);

impl Default for Budget {
    fn default() -> Self {
        let server = |_| Server { places: Arc::new(Places::new(0)), waiting: AtomicU32::new(0) };
        Self { servers: (0..NODES).map(server).collect(), users: Mutex::default() }
    }
}

impl Budget {
    /// Says how many places there are at this server from now on.
    pub fn set_limit(&self, node: NodeId, limit: u32) {
        if let Some(server) = self.server(node) {
            server.places.set_limit(limit);
        }
    }

    /// A place, if one is free.
    #[must_use]
    pub fn try_place(&self, node: NodeId, user: Option<UserBound<'_>>) -> Option<Place> {
        let own = match user {
            Some(bound) => Some(self.user(node, bound).try_take()?),
            None => None,
        };
        let server = self.server(node)?.places.clone().try_take()?;
        Some(Place { _server: server, _user: own })
    }

    /// A place, as soon as one is free and nobody has waited longer; `None` for a server that
    /// is not counted.
    pub async fn place(&self, node: NodeId, user: Option<UserBound<'_>>) -> Option<Place> {
        let own = match user {
            Some(bound) => Some(self.user(node, bound).take().await?),
            None => None,
        };
        let server = self.server(node)?.places.clone().take().await?;
        Some(Place { _server: server, _user: own })
    }

    /// Counts somebody who waits for a link to this server.
    #[must_use]
    pub fn wait(&self, node: NodeId) -> Option<Waiting<'_>> {
        let waiting = &self.server(node)?.waiting;
        waiting.fetch_add(1, Ordering::Relaxed);
        Some(Waiting(waiting))
    }

    /// How many wait for a link to this server, on all workers.
    #[must_use]
    pub fn waiting(&self, node: NodeId) -> u32 {
        self.server(node).map_or(0, |server| server.waiting.load(Ordering::Relaxed))
    }

    fn server(&self, node: NodeId) -> Option<&Server> {
        self.servers.get(usize::from(node.0))
    }

    fn user(&self, node: NodeId, bound: UserBound<'_>) -> Arc<Places> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= USERS_MAX {
            users.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let places = users
            .entry((node, bound.user.into()))
            .or_insert_with(|| Arc::new(Places::new(bound.limit)))
            .clone();
        drop(users);
        places.set_limit(bound.limit);
        places
    }
}

impl Places {
    fn new(limit: u32) -> Self {
        let limit = limit.min(MOST);
        Self {
            free: Arc::new(Semaphore::new(limit as usize)),
            limit: AtomicU32::new(limit),
            debt: AtomicU32::new(0),
        }
    }

    fn set_limit(&self, limit: u32) {
        let limit = limit.min(MOST);
        if self.limit.load(Ordering::Relaxed) == limit {
            return;
        }
        let before = self.limit.swap(limit, Ordering::Relaxed);
        for _ in before..limit {
            if !self.pay() {
                self.free.add_permits(1);
            }
        }
        for _ in limit..before {
            if self.free.forget_permits(1) == 0 {
                self.debt.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes one off the debt, if there is any.
    fn pay(&self) -> bool {
        let less = |debt: u32| debt.checked_sub(1);
        self.debt.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn try_take(self: Arc<Self>) -> Option<Taken> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        Some(Taken { places: self, permit: Some(permit) })
    }

    async fn take(self: Arc<Self>) -> Option<Taken> {
        let permit = self.free.clone().acquire_owned().await.ok()?;
        Some(Taken { places: self, permit: Some(permit) })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && self.places.pay()
        {
            permit.forget();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// More than any server allows; far below what a semaphore holds.
const MOST: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const DB: NodeId = NodeId(0);

    fn taken(budget: &Budget, user: Option<UserBound<'_>>) -> Vec<Place> {
        std::iter::from_fn(|| budget.try_place(DB, user)).take(100).collect()
    }

    #[test]
    fn there_are_as_many_places_as_the_limit_says_after_each_change() {
        let budget = Budget::default();
        assert!(taken(&budget, None).is_empty());
        budget.set_limit(DB, 5);
        let five = taken(&budget, None);
        assert_eq!(five.len(), 5);
        // Lowered under them: three must come free before there is one to take.
        budget.set_limit(DB, 2);
        drop(five.into_iter().take(3).collect::<Vec<_>>());
        let two = taken(&budget, None);
        assert_eq!(two.len(), 2, "five were dropped in all");
        drop(two);
        budget.set_limit(DB, 4);
        assert_eq!(taken(&budget, None).len(), 4);
        assert_eq!(taken(&budget, None).len(), 4);
    }

    #[test]
    fn one_user_leaves_places_to_others() {
        let budget = Budget::default();
        budget.set_limit(DB, 5);
        let bound = |user| Some(UserBound { user, limit: 3 });
        let a = taken(&budget, bound(b"a"));
        assert_eq!(a.len(), 3);
        assert_eq!(taken(&budget, bound(b"b")).len(), 2);
        drop(a);
        assert_eq!(taken(&budget, bound(b"b")).len(), 3);
    }

    #[tokio::test]
    async fn who_waits_longest_comes_first() {
        let budget = Budget::default();
        budget.set_limit(DB, 1);
        let held = budget.try_place(DB, None).expect("a place");
        let first = budget.place(DB, None);
        let second = budget.place(DB, None);
        tokio::pin!(first, second);
        assert!(futures_poll(&mut first).is_none());
        assert!(futures_poll(&mut second).is_none());
        drop(held);
        assert!(budget.try_place(DB, None).is_none(), "it is promised already");
        assert!(futures_poll(&mut second).is_none());
        let got = futures_poll(&mut first).expect("the first gets it");
        drop(got);
        assert!(futures_poll(&mut second).is_some());
    }

    fn futures_poll<F: Future<Output = Option<Place>>>(
        future: &mut std::pin::Pin<&mut F>,
    ) -> Option<Place> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(place) => Some(place.expect("a counted server")),
            std::task::Poll::Pending => None,
        }
    }
}
