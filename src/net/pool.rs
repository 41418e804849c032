//! The links of a worker between sessions: taken, waited for, given up, looked after.
//!
//! A session that needs a link gets back its own if that is still there, another one of its
//! kind, a place for a new one, or a place in the queue. While somebody waits, sessions give up
//! their links after each statement; else when they have been idle for a while.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::config::Group;
use crate::metrics::{LinkWait, Taken};
use crate::net::group::GroupHandle;
use crate::net::link::{LinkSocket, OWN_TRANSPORT, ParkedCount};
use crate::net::seat::{Identity, Ring, Seat};
use crate::net::worker::{Message, Served, Worker};
use crate::protocol::auth::Credential;
use crate::protocol::command;
use crate::protocol::errno::SqlError;
use crate::protocol::flags::{Capabilities, MariadbCapabilities};
use crate::protocol::packet::HEADER_LEN;
use crate::router::policy::Held;
use crate::session::failure::Failure;
use crate::session::links::Kept;
use crate::tls::trust::Demand;
use crate::topology::{Node, NodeId, Role, Topology};
use crate::upstream::budget::{Place, UserBound};
use crate::upstream::dial::DialError;
use crate::upstream::pool::{Given, Parked, Pool, Wanted};

/// Places that are left to others where the server's own limit is the bound: one in so many.
const LEFT_FREE: u32 = 10;
/// Links to a server that has not said how many it allows.
const UNKNOWN_LIMIT: u32 = 100;

/// Who a link logged in as, with all that its server took from the login. Two clients of one
/// principal cannot be told apart by their links.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Principal {
    user: Vec<u8>,
    credential: Credential,
    collation: u8,
    wide_collation: Option<u16>,
    capabilities: Capabilities,
    mariadb: MariadbCapabilities,
    max_packet: u32,
    /// What the account demands of its links: one in clear text is nothing to who demands TLS.
    demand: Demand,
    /// The client's address, where servers are told it.
    told: Option<IpAddr>,
}

/// Who may have a link.
#[derive(Debug, Clone)]
pub(super) struct Key {
    slot: Held,
    who: Rc<Principal>,
}

/// A link in the pool.
#[derive(Debug)]
pub(super) struct Pooled {
    key: Key,
    pub(super) socket: LinkSocket,
    pub(super) kept: Box<Kept>,
}

/// The pool of one group on one worker.
#[derive(Debug, Default)]
pub(super) struct Links {
    pool: RefCell<Pool<Key, Pooled>>,
    principals: RefCell<Vec<Rc<Principal>>>,
    /// Sessions give up their links after each statement, whether somebody waits or not.
    eager: Cell<bool>,
    /// Clients that may hold a link, by id.
    holders: RefCell<BTreeSet<u32>>,
}

/// What came of asking for a link.
#[derive(Debug)]
pub(super) enum Acquired {
    /// A link, and whether it is the session's own.
    Link(Pooled, bool),
    /// A place for a new one.
    Place(Place),
    /// None came free in time; so many there may be.
    Full(u32),
    /// The server takes no requests any more.
    Moved,
    /// Others wait for the other link that the session holds.
    Called,
    /// The client is to be closed.
    Killed,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.slot == other.slot && Rc::ptr_eq(&self.who, &other.who)
    }
}

impl Principal {
    /// `told`: the client's address, where servers are told it.
    fn new(identity: &Identity, told: Option<IpAddr>) -> Self {
        let hello = &identity.hello;
        Self {
            user: hello.user.clone(),
            credential: identity.credential.clone(),
            collation: hello.collation,
            wide_collation: hello.wide_collation,
            capabilities: hello
                .capabilities
                .without(OWN_TRANSPORT.with(Capabilities::CONNECT_ATTRS)),
            mariadb: hello.mariadb,
            max_packet: hello.max_packet,
            demand: identity.demand,
            told,
        }
    }
}

impl Served {
    /// Whether a session that has just finished a statement on this server should give up its
    /// link: somebody waits for one, or it is to be so always.
    pub(super) fn is_waited_for(&self, node: NodeId) -> bool {
        self.group.budget.waiting(node) > 0 || self.links.eager.get()
    }
}

impl Worker {
    /// The principal of a client that has logged in.
    pub(super) fn principal(&self, seat: &Seat, identity: &Identity) -> Rc<Principal> {
        let settings = seat.group().settings.load();
        let peer = seat.peer.get().filter(|_| settings.proxy_protocol_to_servers);
        let wanted = Principal::new(identity, peer.map(|peer| peer.ip()));
        let mut known = seat.served.links.principals.borrow_mut();
        if let Some(same) = known.iter().find(|principal| ***principal == wanted) {
            return same.clone();
        }
        // Those that no client and no link has any more are forgotten.
        known.retain(|principal| Rc::strong_count(principal) > 1);
        let principal = Rc::new(wanted);
        known.push(principal.clone());
        principal
    }

    /// A link for a session, or a place for a new one; `None` as `wanted` asks for a place only.
    pub(super) async fn acquire(
        &self,
        seat: &Seat,
        user: &[u8],
        node: NodeId,
        wanted: Option<Wanted<Key>>,
        until: Instant,
    ) -> Acquired {
        let served = &seat.served;
        if let Some(wanted) = &wanted
            && let Some((pooled, own)) = served.take_parked(node, wanted, self.now())
        {
            return served.taken(Acquired::Link(pooled, own), node);
        }
        let settings = seat.group().settings.load_full();
        let limit = limit(&settings, seat.group().topology.load().node(node));
        let budget = &seat.group().budget;
        budget.set_limit(node, limit);
        let most = settings.links.max_per_user;
        let bound = (most > 0).then_some(UserBound { user, limit: most });
        if let Some(place) = budget.try_place(node, bound) {
            return served.taken(Acquired::Place(place), node);
        }
        // One that nobody uses now makes room.
        let evicted = served.links.pool.borrow_mut().evict(node);
        if evicted.is_some() {
            drop(evicted);
            if let Some(place) = budget.try_place(node, bound) {
                return served.taken(Acquired::Place(place), node);
            }
        }
        if self.holds_what_others_wait_for(seat) {
            return Acquired::Called;
        }
        let began = self.now();
        let mut given = served.links.pool.borrow_mut().wait(node, wanted);
        let _waiting = budget.wait(node);
        self.call_in(served, node);
        let outcome = tokio::select! {
            biased;
            given = &mut given => match given {
                Ok(Given::Link(pooled, own)) => Acquired::Link(pooled, own),
                Ok(Given::Moved) | Err(_) => Acquired::Moved,
            },
            place = budget.place(node, bound) => {
                place.map_or(Acquired::Full(0), Acquired::Place)
            }
            () = killed(seat) => Acquired::Killed,
            () = called(seat) => Acquired::Called,
            () = tokio::time::sleep_until(until.into()) => Acquired::Full(limit),
        };
        given.close();
        if let Ok(Given::Link(pooled, _)) = given.try_recv() {
            // It came at the same moment; somebody else can have it.
            self.park(served, 0, pooled);
        }
        let ended = match &outcome {
            Acquired::Link(..) | Acquired::Place(_) => LinkWait::Served,
            Acquired::Full(_) => LinkWait::Full,
            Acquired::Moved | Acquired::Called | Acquired::Killed => LinkWait::Abandoned,
        };
        let waited = self.now().saturating_duration_since(began);
        served.metrics.waited_for_link(node, ended, waited);
        served.taken(outcome, node)
    }

    /// Whether a session that has to wait holds a link that others wait for.
    fn holds_what_others_wait_for(&self, seat: &Seat) -> bool {
        let session = seat.session.borrow();
        let Some(session) = session.as_ref().filter(|session| session.can_release()) else {
            return false;
        };
        session.nodes().into_iter().flatten().any(|node| seat.group().budget.waiting(node) > 0)
    }

    /// A place for the link that a login needs; `None` when the server has moved away, an error
    /// packet's payload when no place came free.
    pub(super) async fn place(
        &self,
        seat: &Seat,
        identity: &Identity,
        node: NodeId,
        settings: &Group,
    ) -> Result<Option<Place>, DialError> {
        let until = self.now() + settings.links.queue_timeout;
        let _waiting = seat.waited.begin();
        match self.acquire(seat, &identity.hello.user, node, None, until).await {
            Acquired::Place(place) => Ok(Some(place)),
            Acquired::Link(..) | Acquired::Moved | Acquired::Called => Ok(None),
            Acquired::Killed => Err(DialError::TimedOut(Duration::ZERO)),
            Acquired::Full(limit) => {
                let topology = seat.group().topology.load();
                let server = topology.node(node).map_or_else(String::new, |n| n.name.to_string());
                // The log has what to do about it; the client gets the words of a server that is
                // full, since drivers look for them at a login.
                let why = Failure::NoLink { server, limit }.to_error();
                tracing::warn!(group = %seat.group().name, "a login was refused: {}", why.message);
                let error = SqlError::too_many_connections();
                let packet = error.packet(0, identity.hello.capabilities);
                Err(DialError::Refused(packet.get(HEADER_LEN..).unwrap_or_default().to_vec()))
            }
        }
    }

    /// What a session looks for in the pool.
    pub(super) fn wanted(
        &self,
        seat: &Seat,
        slot: Held,
        schema: Option<&[u8]>,
    ) -> Option<Wanted<Key>> {
        let who = seat.who.borrow().clone()?;
        let without_schema = schema.is_none();
        Some(Wanted { key: Key { slot, who }, owner: seat.id, without_schema })
    }

    /// A session holds a link from now on.
    pub(super) fn holds(&self, seat: &Seat) {
        seat.served.links.holders.borrow_mut().insert(seat.id);
    }

    /// A session gives up a link.
    pub(super) fn give_up(&self, seat: &Seat, slot: Held, socket: LinkSocket, kept: Box<Kept>) {
        let served = &seat.served;
        let Some(who) = seat.who.borrow().clone() else { return };
        // The login turned it into a sql_mode, which a reset forgets.
        let ignores_space = who.capabilities.has(Capabilities::IGNORE_SPACE);
        if !ignores_space && served.may_be_parked(slot, &socket, &kept, self.now()) {
            self.park(served, seat.id, Pooled { key: Key { slot, who }, socket, kept });
        }
    }

    /// Closes a statement on a session's own link in the pool.
    pub(super) fn close_parked(&self, seat: &Seat, slot: Held, serial: u32, id: u32) {
        let mut pool = seat.served.links.pool.borrow_mut();
        let is_it = |parked: &Parked<Key, Pooled>| {
            let Pooled { key, kept, .. } = &parked.link;
            key.slot == slot && kept.serial() == serial
        };
        let broken = pool.with_own(seat.id, is_it, |pooled| {
            pooled.socket.takes_at_once(&command::stmt_close(id))
        });
        drop(pool);
        drop(broken);
    }

    /// A login has opened a link of its own: one like it that nobody owns any more is closed, so
    /// that clients which come and go leave no more links than there were clients at once.
    pub(super) fn close_nobodys(&self, seat: &Seat, slot: Held, node: NodeId) {
        let Some(who) = seat.who.borrow().clone() else { return };
        let keep = seat.group().settings.load().links.keep as usize;
        let key = Key { slot, who };
        let closed = seat.served.links.pool.borrow_mut().evict_nobodys(node, &key, keep);
        drop(closed);
    }

    /// A client is gone: its links are anybody's.
    pub(super) fn disown(&self, seat: &Seat) {
        let links = &seat.served.links;
        links.pool.borrow_mut().disown(seat.id);
        links.holders.borrow_mut().remove(&seat.id);
    }

    /// Parks a link, or gives it to whoever waits; closed, it makes room elsewhere.
    fn park(&self, served: &Served, owner: u32, pooled: Pooled) {
        let node = pooled.socket.node;
        let mut pool = served.links.pool.borrow_mut();
        let here = pool.waiting(node);
        let everywhere = served.group.budget.waiting(node) as usize;
        if everywhere > here && (here == 0 || self.has_more_than_its_share(served, &pooled.socket))
        {
            drop(pool);
            drop(pooled);
            return;
        }
        let mut pooled = pooled;
        pooled.socket.parked = Some(ParkedCount::new(served, node));
        let parked = Parked {
            key: pooled.key.clone(),
            owner,
            has_schema: pooled.kept.has_schema(),
            since: self.now(),
            link: pooled,
        };
        let unfit = pool.put(node, parked);
        drop(pool);
        drop(unfit);
    }

    /// Whether this worker has more links to a server than it would have if all had as many.
    fn has_more_than_its_share(&self, served: &Served, socket: &LinkSocket) -> bool {
        let settings = served.group.settings.load();
        let limit = limit(&settings, served.group.topology.load().node(socket.node));
        let workers = u32::try_from(self.siblings.len()).unwrap_or(1).max(1);
        socket.opened.count() > limit / workers
    }

    /// Somebody waits for a link to this server: idle sessions are asked for theirs, here and
    /// on the other workers.
    fn call_in(&self, served: &Served, node: NodeId) {
        self.call_in_here(served, node);
        for sibling in &self.siblings {
            let group = served.group.clone();
            let _ = sibling.messages.try_send(Message::LinksWanted { group, node });
        }
    }

    /// Links to this server are waited for, here or elsewhere.
    pub(super) fn call_in_here(&self, served: &Served, node: NodeId) {
        let waiting = served.group.budget.waiting(node);
        let here = served.links.pool.borrow().waiting(node);
        for _ in here..waiting as usize {
            let evicted = served.links.pool.borrow_mut().evict(node);
            if evicted.is_none() {
                break;
            }
        }
        let mut idle = Vec::new();
        let mut holders = served.links.holders.borrow_mut();
        holders.retain(|id| {
            let seats = self.seats.borrow();
            let Some(seat) = seats.get(id) else { return false };
            let session = seat.session.borrow();
            let Some(session) = session.as_ref() else { return true };
            let nodes = session.nodes();
            if nodes.contains(&Some(node)) && session.can_release() {
                idle.push((session.phase_since(), seat.clone()));
            }
            nodes != [None, None]
        });
        drop(holders);
        idle.sort_by_key(|(since, _)| *since);
        for (_, seat) in idle.iter().take(waiting as usize) {
            seat.bell.ring(Ring::RELEASE);
        }
    }

    /// What time does to the pool: links that are too old, too long idle, closed by their
    /// server, or to a server that is not used any more, are closed.
    pub(super) fn look_after_links(&self, served: &Served) {
        let now = self.now();
        let topology = served.group.topology.load();
        let settings = served.group.settings.load_full();
        let links = &settings.links;
        served.links.eager.set(links.multiplexing && links.idle_release.is_zero());
        let nodes: Vec<NodeId> = served.links.pool.borrow().nodes().collect();
        for node in nodes {
            if served.group.budget.waiting(node) > 0 {
                self.call_in_here(served, node);
            }
        }
        let mut kept: Vec<(NodeId, Key, u32)> = Vec::new();
        let serves = |node: NodeId| topology.node(node).is_some_and(|n| n.condition.usable());
        // The youngest are looked at last, and are those that are kept.
        let dropped = served.links.pool.borrow_mut().sift(
            |node, parked| {
                let slot = parked.key.slot;
                if !fits_role(&topology, node, slot)
                    || !served.is_young(&parked.link.socket, &settings, now)
                    || !parked.link.socket.stream.is_quiet()
                {
                    return false;
                }
                let idle = now.saturating_duration_since(parked.since);
                if idle < longest_idle(&settings, topology.node(node)) {
                    return true;
                }
                let same = |(n, key, _): &&mut (NodeId, Key, u32)| *n == node && *key == parked.key;
                let count = match kept.iter_mut().find(same) {
                    Some((_, _, count)) => count,
                    None => {
                        kept.push((node, parked.key.clone(), 0));
                        let Some((_, _, count)) = kept.last_mut() else { return false };
                        count
                    }
                };
                *count += 1;
                *count <= settings.links.keep && idle < safe_idle(topology.node(node))
            },
            serves,
        );
        drop(dropped);
    }

    /// A new generation: links to servers that are not used any more are closed.
    pub(super) fn links_on_change(&self, group: &Arc<GroupHandle>) {
        let served = self.served(group);
        self.look_after_links(served);
        let topology = group.topology.load();
        let mut leaving = Vec::new();
        for id in served.links.holders.borrow().iter() {
            let seats = self.seats.borrow();
            let Some(seat) = seats.get(id) else { continue };
            let session = seat.session.borrow();
            let nodes = session.as_ref().map_or([None, None], |session| session.nodes());
            let unused = |node: &NodeId| topology.node(*node).is_none_or(|n| !n.condition.usable());
            if nodes.iter().flatten().any(unused) {
                leaving.push(seat.clone());
            }
        }
        for seat in leaving {
            seat.bell.ring(Ring::RELEASE);
        }
    }
}

impl Served {
    /// The parked links: where to, and whose.
    pub(super) fn parked_links(&self) -> Vec<(NodeId, String)> {
        let pool = self.links.pool.borrow();
        let user = |key: &Key| String::from_utf8_lossy(&key.who.user).into_owned();
        pool.parked().map(|(node, parked)| (node, user(&parked.key))).collect()
    }

    /// Counts what a session got; a link is not parked any more.
    fn taken(&self, mut acquired: Acquired, node: NodeId) -> Acquired {
        let how = match &mut acquired {
            Acquired::Link(pooled, own) => {
                pooled.socket.parked = None;
                if *own { Taken::Own } else { Taken::Other }
            }
            Acquired::Place(_) => Taken::New,
            Acquired::Full(_) | Acquired::Moved | Acquired::Called | Acquired::Killed => {
                return acquired;
            }
        };
        self.metrics.link_taken(node, how);
        acquired
    }

    /// A parked link that its server has not closed meanwhile.
    fn take_parked(
        &self,
        node: NodeId,
        wanted: &Wanted<Key>,
        now: Instant,
    ) -> Option<(Pooled, bool)> {
        let settings = self.group.settings.load();
        loop {
            let (pooled, own) = self.links.pool.borrow_mut().take(node, wanted)?;
            if self.is_young(&pooled.socket, &settings, now) && pooled.socket.stream.is_quiet() {
                return Some((pooled, own));
            }
        }
    }

    /// Whether a link may go to the pool at all.
    fn may_be_parked(&self, slot: Held, socket: &LinkSocket, kept: &Kept, now: Instant) -> bool {
        let settings = self.group.settings.load();
        let topology = self.group.topology.load();
        let node = topology.node(socket.node);
        // What init_connect did at the login, a reset undoes without doing it again.
        let as_fresh = node.and_then(|node| node.facts.as_ref()).is_some_and(|f| !f.init_connect);
        settings.links.multiplexing
            && as_fresh
            && kept.may_change_hands()
            && socket.tail.is_empty()
            && node.is_some_and(|node| node.condition.usable())
            && fits_role(&topology, socket.node, slot)
            && self.is_young(socket, &settings, now)
    }

    /// Whether a link logged in lately enough, and after the last change of accounts.
    fn is_young(&self, socket: &LinkSocket, settings: &Group, now: Instant) -> bool {
        now.saturating_duration_since(socket.since) < settings.links.max_age
            && socket.accounts_at == self.group.accounts_at.load(Ordering::Relaxed)
    }
}

/// Whether a server is still what links of this slot are for.
fn fits_role(topology: &Topology, node: NodeId, slot: Held) -> bool {
    let is_primary = topology.primary == Some(node);
    match slot {
        Held::Primary => is_primary,
        Held::Replica => {
            !is_primary && topology.node(node).is_some_and(|node| node.role == Role::Replica)
        }
    }
}

/// How many links to a server there may be.
fn limit(settings: &Group, node: Option<&Node>) -> u32 {
    if settings.links.max_per_server > 0 {
        return settings.links.max_per_server;
    }
    let allowed =
        node.and_then(|node| node.facts.as_ref()).map_or(0, |facts| facts.max_connections);
    match allowed {
        0 => UNKNOWN_LIMIT,
        allowed => (allowed - allowed / LEFT_FREE).max(1),
    }
}

/// How long a link may be parked before it is closed.
fn longest_idle(settings: &Group, node: Option<&Node>) -> Duration {
    settings.links.idle_timeout.min(safe_idle(node))
}

/// How long a link may be idle before its server closes it, with a margin.
fn safe_idle(node: Option<&Node>) -> Duration {
    let facts = node.and_then(|node| node.facts.as_ref());
    let least = facts.map_or(0, |facts| facts.wait_timeout.min(facts.interactive_timeout));
    if least == 0 { Duration::MAX } else { Duration::from_secs(least) * 3 / 4 }
}

/// Until the session is asked for its other link.
async fn called(seat: &Seat) {
    std::future::poll_fn(|cx| if seat.bell.called(cx) { Poll::Ready(()) } else { Poll::Pending })
        .await;
}

async fn killed(seat: &Seat) {
    std::future::poll_fn(|cx| if seat.bell.killed(cx) { Poll::Ready(()) } else { Poll::Pending })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::greet::Hello;

    #[test]
    fn a_link_is_nobody_elses() {
        let identity = |demand, user: &str| {
            let mut hello = Hello::default();
            hello.user = user.as_bytes().to_vec();
            Identity { hello, credential: Credential::Relayed { private: false }, demand }
        };
        let clear = Principal::new(&identity(Demand::Nothing, "app"), None);
        assert_eq!(clear, Principal::new(&identity(Demand::Nothing, "app"), None));
        // Whose account demands TLS never gets a link in clear text.
        assert_ne!(clear, Principal::new(&identity(Demand::Tls, "app"), None));
        assert_ne!(clear, Principal::new(&identity(Demand::Nothing, "other"), None));
        let told = Some(IpAddr::from([10, 0, 0, 1]));
        assert_ne!(clear, Principal::new(&identity(Demand::Nothing, "app"), told));
    }
}
