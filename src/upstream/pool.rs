//! The links of one worker that no session holds, and the sessions that wait for one.
//!
//! A session gets back the link that it gave up, as long as nobody else had it. Else a link
//! without an owner that may come back is taken first, the youngest of them; then the one whose
//! owner has been away for longest.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::topology::NodeId;

/// The parked links of one group. `K` says who may have a link, `T` is the link.
#[derive(Debug)]
pub struct Pool<K, T> {
    shelves: BTreeMap<NodeId, Shelf<K, T>>,
}

#[derive(Debug)]
struct Shelf<K, T> {
    /// In the order in which they were parked.
    parked: VecDeque<Parked<K, T>>,
    /// In the order in which they came.
    queue: VecDeque<Waiter<K, T>>,
}

/// A link that no session holds.
#[derive(Debug)]
pub struct Parked<K, T> {
    /// Who may have it.
    pub key: K,
    /// The session that gave it up, by the id of its client; 0 when that is gone.
    pub owner: u32,
    /// A schema is selected on it.
    pub has_schema: bool,
    /// When it was parked.
    pub since: Instant,
    /// The link.
    pub link: T,
}

/// What a session looks for.
#[derive(Debug, Clone)]
pub struct Wanted<K> {
    /// Who it is.
    pub key: K,
    /// The id of its client.
    pub owner: u32,
    /// It has no schema, so the link must have none either.
    pub without_schema: bool,
}

/// What a waiting session is given.
#[derive(Debug)]
pub enum Given<T> {
    /// A link, and whether it is its own.
    Link(T, bool),
    /// The server takes no requests any more.
    Moved,
}

#[derive(Debug)]
struct Waiter<K, T> {
    /// `None`: only a place for a new link will do.
    wanted: Option<Wanted<K>>,
    give: oneshot::Sender<Given<T>>,
}

impl<K, T> Default for Pool<K, T> {
    fn default() -> Self {
        Self { shelves: BTreeMap::new() }
    }
}

impl<K, T> Default for Shelf<K, T> {
    fn default() -> Self {
        Self { parked: VecDeque::new(), queue: VecDeque::new() }
    }
}

impl<K: PartialEq, T> Pool<K, T> {
    /// Takes a parked link that will do; true when it is the session's own.
    pub fn take(&mut self, node: NodeId, wanted: &Wanted<K>) -> Option<(T, bool)> {
        let shelf = self.shelves.get_mut(&node)?;
        let fit = |parked: &&Parked<K, T>| parked.suits(wanted);
        let own = shelf.parked.iter().position(|parked| parked.is_own(wanted));
        let free = || shelf.parked.iter().rposition(|parked| parked.owner == 0 && fit(&parked));
        let oldest = || shelf.parked.iter().position(|parked| fit(&parked));
        let at = own.or_else(free).or_else(oldest)?;
        shelf.parked.remove(at).map(|parked| (parked.link, own.is_some()))
    }

    /// Gives a link to whoever has waited longest, or parks it. It comes back when the one who
    /// has waited longest cannot use it: closed, it makes room for one that can be used.
    pub fn put(&mut self, node: NodeId, parked: Parked<K, T>) -> Option<T> {
        let shelf = self.shelves.entry(node).or_default();
        let mut parked = parked;
        while let Some(waiter) = shelf.queue.pop_front() {
            if waiter.give.is_closed() {
                continue;
            }
            let Some(wanted) = waiter.wanted.as_ref().filter(|wanted| parked.suits(wanted)) else {
                shelf.queue.push_front(waiter);
                return Some(parked.link);
            };
            let own = parked.is_own(wanted);
            match waiter.give.send(Given::Link(parked.link, own)) {
                Ok(()) => return None,
                Err(Given::Link(link, _)) => parked.link = link,
                Err(Given::Moved) => return None,
            }
        }
        shelf.parked.push_back(parked);
        None
    }

    /// Queues for a link to this server; without a wish, only to be told when it moves away.
    pub fn wait(&mut self, node: NodeId, wanted: Option<Wanted<K>>) -> oneshot::Receiver<Given<T>> {
        let (give, given) = oneshot::channel();
        let queue = &mut self.shelves.entry(node).or_default().queue;
        queue.retain(|waiter| !waiter.give.is_closed());
        queue.push_back(Waiter { wanted, give });
        given
    }

    /// How many wait here for a link to this server.
    #[must_use]
    pub fn waiting(&self, node: NodeId) -> usize {
        let count = |shelf: &Shelf<K, T>| {
            shelf.queue.iter().filter(|waiter| !waiter.give.is_closed()).count()
        };
        self.shelves.get(&node).map_or(0, count)
    }

    /// Takes out the link that has been parked for longest, whoever may have it.
    pub fn evict(&mut self, node: NodeId) -> Option<T> {
        self.shelves.get_mut(&node)?.parked.pop_front().map(|parked| parked.link)
    }

    /// Takes out the one that has been parked for longest of the links that are nobody's, while
    /// there are more of this kind than `keep`.
    pub fn evict_nobodys(&mut self, node: NodeId, key: &K, keep: usize) -> Option<T> {
        let shelf = self.shelves.get_mut(&node)?;
        let is_nobodys = |parked: &Parked<K, T>| parked.owner == 0 && parked.key == *key;
        let count = shelf.parked.iter().filter(|parked| is_nobodys(parked)).count();
        let oldest = shelf.parked.iter().position(is_nobodys).filter(|_| count > keep)?;
        shelf.parked.remove(oldest).map(|parked| parked.link)
    }

    /// Does something with a link that its owner may have back; taken out when that fails.
    pub fn with_own(
        &mut self,
        owner: u32,
        is_it: impl Fn(&Parked<K, T>) -> bool,
        act: impl FnOnce(&mut T) -> bool,
    ) -> Option<T> {
        let found = self.shelves.values_mut().find_map(|shelf| {
            let at = shelf.parked.iter().position(|p| p.owner == owner && is_it(p))?;
            Some((shelf, at))
        });
        let (shelf, at) = found?;
        let done = act(&mut shelf.parked.get_mut(at)?.link);
        if done { None } else { shelf.parked.remove(at).map(|parked| parked.link) }
    }

    /// The owner is gone: its links are anybody's.
    pub fn disown(&mut self, owner: u32) {
        for parked in self.shelves.values_mut().flat_map(|shelf| &mut shelf.parked) {
            if parked.owner == owner {
                parked.owner = 0;
            }
        }
    }

    /// Takes out what does not pass, and sends away who waits for a server that does not.
    pub fn sift(
        &mut self,
        mut keep: impl FnMut(NodeId, &mut Parked<K, T>) -> bool,
        serves: impl Fn(NodeId) -> bool,
    ) -> Vec<T> {
        let mut out = Vec::new();
        for (node, shelf) in &mut self.shelves {
            for mut parked in std::mem::take(&mut shelf.parked) {
                if keep(*node, &mut parked) {
                    shelf.parked.push_back(parked);
                } else {
                    out.push(parked.link);
                }
            }
            if !serves(*node) {
                for waiter in shelf.queue.drain(..) {
                    let _ = waiter.give.send(Given::Moved);
                }
            }
        }
        out
    }

    /// The servers that somebody waits for here, or whose links are parked here.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        let busy = |(_, shelf): &(&NodeId, &Shelf<K, T>)| {
            !shelf.parked.is_empty() || !shelf.queue.is_empty()
        };
        self.shelves.iter().filter(busy).map(|(node, _)| *node)
    }

    /// The parked links to all servers.
    pub fn parked(&self) -> impl Iterator<Item = (NodeId, &Parked<K, T>)> {
        self.shelves
            .iter()
            .flat_map(|(node, shelf)| shelf.parked.iter().map(|parked| (*node, parked)))
    }
}

impl<K: PartialEq, T> Parked<K, T> {
    fn suits(&self, wanted: &Wanted<K>) -> bool {
        self.key == wanted.key && !(wanted.without_schema && self.has_schema)
    }

    fn is_own(&self, wanted: &Wanted<K>) -> bool {
        self.owner == wanted.owner && self.suits(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DB: NodeId = NodeId(0);

    fn parked(key: char, owner: u32, link: u32) -> Parked<char, u32> {
        Parked { key, owner, has_schema: false, since: Instant::now(), link }
    }

    fn wanted(key: char, owner: u32) -> Wanted<char> {
        Wanted { key, owner, without_schema: false }
    }

    #[test]
    fn a_session_gets_its_own_link_then_nobodys_then_the_one_left_alone_longest() {
        let mut pool = Pool::default();
        for (owner, link) in [(1, 10), (2, 20), (0, 30), (0, 40), (3, 50)] {
            assert_eq!(pool.put(DB, parked('a', owner, link)), None);
        }
        assert_eq!(pool.take(DB, &wanted('a', 2)), Some((20, true)));
        assert_eq!(pool.take(DB, &wanted('a', 2)), Some((40, false)));
        assert_eq!(pool.take(DB, &wanted('a', 2)), Some((30, false)));
        assert_eq!(pool.take(DB, &wanted('a', 2)), Some((10, false)));
        assert_eq!(pool.take(DB, &wanted('b', 3)), None, "another user's");
        assert_eq!(pool.take(NodeId(1), &wanted('a', 3)), None, "another server's");
    }

    #[test]
    fn a_session_without_a_schema_takes_no_link_with_one() {
        let mut pool = Pool::default();
        pool.put(DB, Parked { has_schema: true, ..parked('a', 1, 10) });
        let bare = |owner| Wanted { without_schema: true, ..wanted('a', owner) };
        assert_eq!(pool.take(DB, &bare(2)), None);
        // It was its own before a change of user.
        assert_eq!(pool.take(DB, &bare(1)), None);
        assert_eq!(pool.take(DB, &wanted('a', 1)), Some((10, true)));
    }

    #[test]
    fn links_go_to_who_waits_in_the_order_of_coming() {
        let mut pool = Pool::default();
        let mut gone = pool.wait(DB, Some(wanted('a', 6)));
        gone.close();
        let mut first = pool.wait(DB, Some(wanted('a', 7)));
        let mut second = pool.wait(DB, Some(wanted('b', 8)));
        let mut third = pool.wait(DB, Some(wanted('a', 9)));
        assert_eq!(pool.waiting(DB), 3);
        assert_eq!(pool.put(DB, parked('a', 1, 10)), None);
        assert!(matches!(first.try_recv(), Ok(Given::Link(10, false))));
        // The next in the queue is another user: the link makes room for one of his.
        assert_eq!(pool.put(DB, parked('a', 1, 20)), Some(20));
        assert!(third.try_recv().is_err());
        assert_eq!(pool.put(DB, parked('b', 1, 30)), None);
        assert!(matches!(second.try_recv(), Ok(Given::Link(30, false))));
        drop(pool.sift(|_, _| true, |_| false));
        assert!(matches!(third.try_recv(), Ok(Given::Moved)));
        assert_eq!(pool.waiting(DB), 0);
    }

    #[test]
    fn what_is_done_with_a_parked_link_is_done_with_its_owners_only() {
        let mut pool = Pool::default();
        for (owner, link) in [(1, 10), (1, 11), (2, 20)] {
            pool.put(DB, parked('a', owner, link));
        }
        let mut done = Vec::new();
        let mut act = |owner, which: u32, well| {
            let is_it = |parked: &Parked<char, u32>| parked.link == which;
            pool.with_own(owner, is_it, |link| {
                done.push(*link);
                well
            })
        };
        assert_eq!(act(1, 11, true), None);
        assert_eq!(act(1, 20, true), None);
        assert_eq!(act(1, 11, false), Some(11), "it is taken out when that fails");
        assert_eq!(act(1, 11, true), None);
        assert_eq!(done, [11, 11]);
        assert_eq!(pool.take(DB, &wanted('a', 1)), Some((10, true)));
    }

    #[test]
    fn of_nobodys_links_the_oldest_goes_while_there_are_more_than_are_kept() {
        let mut pool = Pool::default();
        for (key, owner, link) in [('a', 1, 10), ('a', 0, 20), ('b', 0, 30), ('a', 0, 40)] {
            pool.put(DB, parked(key, owner, link));
        }
        assert_eq!(pool.evict_nobodys(DB, &'a', 2), None);
        assert_eq!(pool.evict_nobodys(DB, &'a', 1), Some(20));
        assert_eq!(pool.evict_nobodys(DB, &'a', 1), None);
        assert_eq!(pool.evict_nobodys(DB, &'a', 0), Some(40));
        assert_eq!(pool.evict_nobodys(DB, &'a', 0), None, "the others have owners, or are of b");
    }

    #[test]
    fn a_link_whose_owner_left_is_anybodys() {
        let mut pool = Pool::default();
        pool.put(DB, parked('a', 1, 10));
        pool.put(DB, parked('a', 2, 20));
        pool.disown(2);
        assert_eq!(pool.take(DB, &wanted('a', 2)), Some((20, false)));
        assert_eq!(pool.evict(DB), Some(10));
        assert_eq!(pool.evict(DB), None);
    }
}
