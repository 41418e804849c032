//! All that there is: servers, the network between them, time, and what happens when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman::failover::record::Record;
use pointsman::health::observation::LogPlace;
use pointsman::topology::Flavour;
use pointsman::topology::acknowledged::Acknowledged;

use crate::clients::{Ledger, Reply};
use crate::gtids::Gtids;
use crate::health::Health;
use crate::random::Random;
use crate::server::{Applier, Following, Life, OLD, Receiver, Server, Txn, Waiter, Waiting};
use crate::surgeon::Tasks;

/// What happens at some time.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A replica's receiver tries to connect.
    Connect { replica: usize },
    /// The first transaction on its way over a link arrives.
    Deliver { link: u64 },
    /// The first acknowledgement on its way back over a link arrives.
    Acknowledge { link: u64 },
    /// A source says that it is there, a replica looks whether it has heard that.
    Heartbeat { link: u64 },
    /// A replica applies its next transaction.
    Apply { replica: usize, incarnation: u32 },
    /// A client thinks of something to write.
    Write { client: usize },
    /// A write arrives at its server.
    Arrive { write: u64 },
    /// An answer arrives at the proxy.
    Answer { write: u64, reply: Reply },
    /// A client waits no longer.
    GiveUp { write: u64 },
    /// A probe begins.
    Probe { node: usize, proxy: u32 },
    /// A probe ends.
    Probed { node: usize, proxy: u32, began: Duration },
    /// The keeper looks.
    Tick { proxy: u32 },
    /// A server is asked what it has to tell.
    Ask { task: u64, node: usize },
    /// A server does the next statement of an order.
    Step { order: u64 },
    /// A record is on the disk.
    Written { task: u64 },
    /// Something goes wrong.
    Fault,
    /// A server dies for so long, or the keeper, in the midst of a change of the primary.
    Hit { victim: Option<usize>, lasts: Duration },
    /// Something that went wrong is over.
    Heal(Heal),
}

/// The end of a fault.
#[derive(Debug, Clone)]
pub(crate) enum Heal {
    Start(usize),
    Thaw(usize),
    Open(Vec<(usize, usize)>),
    Speed(usize),
    Width(usize),
    Keeper,
    /// No end, but something that somebody does a while after what it belongs to.
    Stop(usize),
}

/// What a replica's receiver and its source have between them.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) source: usize,
    /// Incarnation of the source.
    pub(crate) of: u32,
    pub(crate) replica: usize,
    /// The account by which the replica has logged in.
    user: String,
    acknowledges: bool,
    /// The next of the source's binary log to send.
    next: usize,
    /// What the replica has already.
    has: Gtids,
    /// On their way, with their places in the source's binary log.
    sent: VecDeque<(usize, Txn)>,
    acknowledged: VecDeque<usize>,
    heard: Duration,
    /// Before this nothing more gets through.
    busy_until: Duration,
    /// Whether either end still has it.
    at_source: bool,
    at_replica: bool,
}

/// How a group is set up, and what may go wrong in it.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) flavour: Flavour,
    pub(crate) servers: usize,
    /// Until when things go wrong.
    pub(crate) faults_until: Duration,
    /// When all is over.
    pub(crate) end: Duration,
    /// Statements in a thousand that go wrong while things do.
    pub(crate) order_faults: u64,
    /// Servers may say no to settings.
    pub(crate) denies: bool,
    /// A crash costs MariaDB what was not acknowledged (`init_rpl_role = SLAVE`, V2).
    pub(crate) forgets_unacknowledged: bool,
    /// How long it is quiet between two faults at most.
    pub(crate) quiet: u64,
    /// How often MySQL's receivers try to connect before they stop.
    pub(crate) retries: u32,
    /// In how many of a thousand stages of a change of the primary somebody dies.
    pub(crate) sore: u64,
    /// An operator orders switchovers.
    pub(crate) switches: bool,
    /// Of how many faults, each as often as it comes, one is drawn.
    pub(crate) kinds: u64,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) shape: Shape,
    pub(crate) base: Instant,
    pub(crate) now: Duration,
    pub(crate) random: Random,
    queue: BTreeMap<(Duration, u64), Event>,
    next: u64,
    pub(crate) servers: Vec<Server>,
    pub(crate) links: BTreeMap<u64, Link>,
    /// One way each; the proxy is the index after the last server.
    pub(crate) blocked: BTreeSet<(usize, usize)>,
    pub(crate) health: Health,
    pub(crate) ledger: Ledger,
    pub(crate) tasks: Tasks,
    /// How often the proxy was started; the keeper lives and dies with it.
    pub(crate) proxy: u32,
    pub(crate) journal: Record,
    /// How often a server was evicted, and how often what was left in a relay log was applied.
    pub(crate) evicted: usize,
    pub(crate) rescued: usize,
    /// What its clients were told of since.
    pub(crate) acknowledged: Arc<Acknowledged>,
    /// It is down.
    pub(crate) is_proxy_down: bool,
    /// An operator has ordered a switchover, and the keeper has not heard of it yet.
    pub(crate) ordered: bool,
    /// When the keeper looks next, whatever happens.
    pub(crate) tick_at: Duration,
    /// The time has come for the keeper to look, or the topology has changed.
    pub(crate) look: bool,
    /// Whether the keeper has something new to see.
    pub(crate) wake: bool,
    /// What was said and done, step by step; kept only when it is to be shown.
    pub(crate) trace: Option<Vec<String>>,
    /// The first rule that was broken.
    pub(crate) broken: Option<String>,
}

/// How long a replica may be without a word of its source.
const SILENCE: Duration = Duration::from_secs(4);

// === impls ===

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl World {
    pub(crate) fn new(seed: u64, shape: Shape, show: bool) -> Self {
        let servers: Vec<Server> =
            (0..shape.servers).map(|index| Server::new(index, shape.flavour)).collect();
        let health = Health::new(&servers);
        Self {
            base: Instant::now() + OLD,
            now: Duration::ZERO,
            random: Random::new(seed),
            queue: BTreeMap::new(),
            next: 0,
            links: BTreeMap::new(),
            blocked: BTreeSet::new(),
            health,
            ledger: Ledger::default(),
            tasks: Tasks::default(),
            proxy: 0,
            evicted: 0,
            rescued: 0,
            acknowledged: Arc::default(),
            is_proxy_down: false,
            ordered: false,
            journal: Record::default(),
            tick_at: Duration::ZERO,
            look: false,
            wake: false,
            trace: show.then(Vec::new),
            broken: None,
            servers,
            shape,
        }
    }

    pub(crate) fn log(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} {}", self.now.as_secs_f64(), text()));
        }
    }

    /// A rule does not hold.
    pub(crate) fn breaks(&mut self, what: String) {
        self.log(|| format!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }

    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.next += 1;
        self.queue.insert((self.now + delay, self.next), event);
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        let ((at, _), event) = self.queue.pop_first()?;
        self.now = at;
        Some(event)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn latency(&mut self) -> Duration {
        Duration::from_micros(self.random.between(200, 3000))
    }

    /// The proxy's place in the network.
    pub(crate) fn proxy_at(&self) -> usize {
        self.servers.len()
    }

    pub(crate) fn passes(&self, from: usize, to: usize) -> bool {
        !self.blocked.contains(&(from, to))
    }

    /// Whether a server can be spoken with.
    pub(crate) fn reaches(&self, one: usize, other: usize) -> bool {
        self.passes(one, other) && self.passes(other, one)
    }

    pub(crate) fn are_things_going_wrong(&self) -> bool {
        self.now < self.shape.faults_until
    }

    /// How many replicas acknowledge at a server, as far as it knows.
    pub(crate) fn acknowledging(&self, source: usize) -> usize {
        let of = self.servers[source].incarnation;
        let here = |link: &&Link| link.source == source && link.of == of && link.at_source;
        self.links.values().filter(here).filter(|link| link.acknowledges).count()
    }

    /// The accounts by which somebody has logged in at a server, as far as it knows.
    pub(crate) fn users(&self, source: usize) -> BTreeSet<String> {
        let of = self.servers[source].incarnation;
        let here = |link: &&Link| link.source == source && link.of == of && link.at_source;
        self.links.values().filter(here).map(|link| link.user.clone()).collect()
    }

    /// How far a replica has read its source's binary log.
    pub(crate) fn read(&self, replica: usize) -> Option<LogPlace> {
        let at = self.servers[replica].following.as_ref()?;
        let Receiver::Connected(id) = at.receiver else { return None };
        let link =
            self.links.get(&id).filter(|link| link.of == self.servers[at.source].incarnation)?;
        let next = link.sent.front().map_or(link.next, |(at, _)| *at);
        Some(self.servers[at.source].place(next))
    }

    /// A server ends the connections of these accounts; whether there were any.
    pub(crate) fn end_users(&mut self, index: usize, users: &BTreeSet<String>) -> bool {
        let of = self.servers[index].incarnation;
        let here = |link: &Link| {
            link.source == index && link.of == of && link.at_source && users.contains(&link.user)
        };
        let ids: Vec<u64> =
            self.links.iter().filter(|(_, link)| here(link)).map(|(id, _)| *id).collect();
        ids.iter().for_each(|id| self.lose_source(*id));
        !ids.is_empty()
    }

    // --- replication ---

    /// A receiver begins to look for its source.
    pub(crate) fn seek(&mut self, replica: usize) {
        if let Some(at) = &mut self.servers[replica].following {
            at.receiver = Receiver::Connecting;
            at.tries = 0;
            at.error.clear();
            let delay = self.latency();
            self.after(delay, Event::Connect { replica });
        }
    }

    pub(crate) fn on_connect(&mut self, replica: usize) {
        let server = &self.servers[replica];
        let Some(at) = server.following.as_ref() else { return };
        if at.receiver != Receiver::Connecting || server.life == Life::Dead {
            return;
        }
        let (source, user) = (at.source, at.user.clone());
        if server.life == Life::Frozen
            || self.servers[source].life != Life::Running
            || !self.reaches(replica, source)
        {
            if server.life == Life::Running {
                self.try_in_vain(replica);
            }
            return self.after(ms(1000), Event::Connect { replica });
        }
        if self.servers[source].locked.contains(&user) {
            if let Some(at) = &mut self.servers[replica].following {
                at.error = format!("4151: {user}: this account is locked");
            }
            return self.after(ms(1000), Event::Connect { replica });
        }
        match self.next_to_send(replica, source) {
            Ok((next, has)) => {
                let link = self.number();
                // The source lets go of an earlier connection of the same replica.
                let of_both = |at: &&mut Link| at.source == source && at.replica == replica;
                self.links.values_mut().filter(of_both).for_each(|old| old.at_source = false);
                let acknowledges = self.servers[replica].acknowledges();
                self.links.insert(
                    link,
                    Link {
                        source,
                        of: self.servers[source].incarnation,
                        replica,
                        user,
                        acknowledges,
                        next,
                        has,
                        sent: VecDeque::new(),
                        acknowledged: VecDeque::new(),
                        heard: self.now,
                        busy_until: self.now,
                        at_source: true,
                        at_replica: true,
                    },
                );
                let name = self.servers[replica].name();
                if let Some(at) = &mut self.servers[replica].following {
                    at.receiver = Receiver::Connected(link);
                    at.known = true;
                    at.error.clear();
                }
                self.log(|| format!("{name} receives from db{}", source + 1));
                self.after(ms(1000), Event::Heartbeat { link });
                self.send(source);
            }
            Err(why) => {
                let name = self.servers[replica].name();
                self.log(|| format!("{name} stops receiving: {why}"));
                if let Some(at) = &mut self.servers[replica].following {
                    at.receiver = Receiver::Stopped;
                    at.known = true;
                    at.error = why;
                }
            }
        }
    }

    fn try_in_vain(&mut self, replica: usize) {
        let most = self.shape.retries;
        let server = &mut self.servers[replica];
        let Some(at) = &mut server.following else { return };
        at.tries += 1;
        if server.flavour == Flavour::MySql && at.tries >= most {
            at.receiver = Receiver::Stopped;
            at.error = "2003: error connecting to source".to_owned();
            let name = server.name();
            self.log(|| format!("{name} has tried to connect {most} times, and stops"));
        }
    }

    /// From where in its binary log a source sends to a replica, and what it leaves out.
    fn next_to_send(&self, replica: usize, source: usize) -> Result<(usize, Gtids), String> {
        let (replica, source) = (&self.servers[replica], &self.servers[source]);
        match source.flavour {
            Flavour::MariaDb => {
                let Some(position) = replica.io_pos() else { return Ok((0, Gtids::default())) };
                let found = source.binlog.iter().position(|at| (at.origin, at.seq) == position);
                match found {
                    Some(at) => Ok((at + 1, Gtids::default())),
                    None => Err("1236: the slave has diverged".to_owned()),
                }
            }
            Flavour::MySql => {
                let has = replica.received();
                match has.last_of(source.id()) > source.logged.last_of(source.id()) {
                    true => Err("1236: replica has more GTIDs than the source".to_owned()),
                    false => Ok((0, has)),
                }
            }
        }
    }

    /// A source sends what is new in its binary log.
    pub(crate) fn send(&mut self, source: usize) {
        let server = &self.servers[source];
        if server.life != Life::Running {
            return;
        }
        let of = server.incarnation;
        // What comes back to where it was written first is not queued there; MariaDB's strict
        // semi-synchronous replicas take it.
        let own = server.flavour == Flavour::MySql;
        let open = |link: &Link| link.source == source && link.of == of && link.at_source;
        let links: Vec<u64> =
            self.links.iter().filter(|(_, link)| open(link)).map(|(id, _)| *id).collect();
        for id in links {
            let mut count = 0;
            let Some(link) = self.links.get_mut(&id) else { continue };
            let new = self.servers[source].binlog.iter().enumerate().skip(link.next);
            let replica = u32::try_from(link.replica + 1).expect("few");
            for (at, txn) in new {
                link.next = at + 1;
                let skipped = own && txn.origin == replica;
                if !skipped && !link.has.contains(txn.origin, txn.seq) {
                    link.sent.push_back((at, *txn));
                    count += 1;
                }
            }
            let delay = self.latency();
            (0..count).for_each(|_| self.after(delay, Event::Deliver { link: id }));
        }
    }

    pub(crate) fn on_deliver(&mut self, id: u64) {
        let Some(link) = self.links.get(&id) else { return };
        let (source, replica) = (link.source, link.replica);
        let server = &self.servers[replica];
        let listens =
            server.following.as_ref().map(|at| at.receiver) == Some(Receiver::Connected(id));
        if !listens || !link.at_replica || server.life == Life::Dead {
            return;
        }
        if server.life == Life::Frozen || !self.passes(source, replica) {
            return self.after(ms(100), Event::Deliver { link: id });
        }
        let (now, each) = (self.now, server.receive);
        let Some(link) = self.links.get_mut(&id) else { return };
        if now < link.busy_until {
            let left = link.busy_until - now;
            return self.after(left, Event::Deliver { link: id });
        }
        let Some((at, txn)) = link.sent.pop_front() else { return };
        (link.heard, link.busy_until) = (now, now + each);
        let acknowledges = link.acknowledges;
        if acknowledges {
            link.acknowledged.push_back(at);
        }
        if let Some(following) = &mut self.servers[replica].following {
            following.relay.push(txn);
            following.has_content = true;
            following.retrieved.insert(txn.origin, txn.seq);
        }
        if acknowledges {
            let delay = self.latency();
            self.after(delay, Event::Acknowledge { link: id });
        }
        self.apply_soon(replica);
    }

    pub(crate) fn on_acknowledge(&mut self, id: u64) {
        let Some(link) = self.links.get(&id) else { return };
        let server = &self.servers[link.source];
        if !link.at_source || server.incarnation != link.of || server.life == Life::Dead {
            return;
        }
        if server.life == Life::Frozen || !self.passes(link.replica, link.source) {
            return self.after(ms(100), Event::Acknowledge { link: id });
        }
        let (source, replica) = (link.source, link.replica);
        let names = (self.servers[source].name(), self.servers[replica].name());
        // What it has acknowledged over a connection that it has left since was in the primary's
        // log when it was evicted, and another has that.
        if link.at_replica
            && self.journal.lossless
            && self.journal.primary.as_ref() == Some(&names.0)
            && !self.journal.members.contains(&names.1)
        {
            self.breaks(format!("{} acknowledges, and is no member", names.1));
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        let first = link.acknowledged.pop_front();
        if link.acknowledged.is_empty() && !link.at_replica {
            link.at_source = false;
        }
        if let Some(at) = first {
            self.release(source, at);
        }
    }

    /// Commits up to this place in the binary log wait no longer.
    pub(crate) fn release(&mut self, source: usize, up_to: usize) {
        let waiting = std::mem::take(&mut self.servers[source].waiting);
        let (done, left): (Vec<Waiting>, Vec<Waiting>) =
            waiting.into_iter().partition(|waiting| waiting.at <= up_to);
        self.servers[source].waiting = left;
        for waiting in done {
            match waiting.who {
                Waiter::Client { write, cut: false } => {
                    let delay = self.latency();
                    self.after(delay, Event::Answer { write, reply: Reply::Done });
                }
                Waiter::Client { cut: true, .. } => {}
                Waiter::Order(order) => self.after(ms(1), Event::Step { order }),
            }
        }
    }

    pub(crate) fn on_heartbeat(&mut self, id: u64) {
        let now = self.now;
        let Some(link) = self.links.get(&id) else { return };
        let (source, replica) = (link.source, link.replica);
        let server = &self.servers[replica];
        let listens =
            server.following.as_ref().map(|at| at.receiver) == Some(Receiver::Connected(id));
        if !listens || !link.at_replica {
            return;
        }
        let speaks = self.servers[source].life == Life::Running && link.at_source;
        let heard = speaks && self.passes(source, replica);
        let runs = server.life == Life::Running;
        if let Some(link) = self.links.get_mut(&id)
            && heard
        {
            link.heard = now;
        }
        let silent = now.saturating_sub(self.links[&id].heard) > SILENCE;
        if silent && runs {
            let name = self.servers[replica].name();
            self.log(|| format!("{name} hears nothing from db{}", source + 1));
            self.drop_link(id);
            self.seek(replica);
        } else {
            self.after(ms(1000), Event::Heartbeat { link: id });
        }
    }

    /// The replica lets go of a link; the source hears of it if it can.
    pub(crate) fn drop_link(&mut self, id: u64) {
        let Some(link) = self.links.get(&id) else { return };
        let hears = self.passes(link.replica, link.source);
        let Some(link) = self.links.get_mut(&id) else { return };
        link.at_replica = false;
        // Acknowledgements that are on their way arrive all the same.
        if hears && link.acknowledged.is_empty() {
            link.at_source = false;
        }
    }

    pub(crate) fn apply_soon(&mut self, replica: usize) {
        let server = &mut self.servers[replica];
        let can = server
            .following
            .as_ref()
            .is_some_and(|at| at.applier == Applier::Running && !at.relay.is_empty());
        if can && !server.applying && server.life == Life::Running {
            server.applying = true;
            let (delay, incarnation) = (server.apply, server.incarnation);
            self.after(delay, Event::Apply { replica, incarnation });
        }
    }

    pub(crate) fn on_apply(&mut self, replica: usize, incarnation: u32) {
        let server = &mut self.servers[replica];
        if server.incarnation != incarnation {
            return;
        }
        if server.life == Life::Frozen || server.applier_hangs() {
            return self.after(ms(100), Event::Apply { replica, incarnation });
        }
        server.applying = false;
        let last = server.binlog.last().map_or(0, |txn| txn.seq);
        let Some(at) = &mut server.following else { return };
        if at.applier != Applier::Running || at.relay.is_empty() {
            return;
        }
        let txn = at.relay[0];
        let strict = server.flavour == Flavour::MariaDb;
        if strict && txn.seq <= last {
            at.applier = Applier::Failed;
            at.error = format!("1950: 0-{}-{} is out of order", txn.origin, txn.seq);
            return;
        }
        at.relay.remove(0);
        let is_new = strict || !server.has(txn.origin, txn.seq);
        if is_new && let Err(why) = server.log(txn) {
            return self.breaks(why);
        }
        self.servers[replica].slave_pos = Some((txn.origin, txn.seq));
        self.send(replica);
        self.apply_soon(replica);
    }

    /// Tells a server to follow another from where it is.
    pub(crate) fn follow(&mut self, replica: usize, source: usize) {
        let former = self.servers[replica].following.take();
        let user = former.map_or_else(|| "repl".to_owned(), |former| former.user);
        self.servers[replica].following = Some(Following {
            source,
            user,
            known: false,
            relay: Vec::new(),
            left: false,
            has_content: false,
            by_gtid: true,
            retrieved: Gtids::default(),
            tries: 0,
            receiver: Receiver::Stopped,
            applier: Applier::Stopped,
            error: String::new(),
        });
    }

    // --- life and death ---

    pub(crate) fn kill(&mut self, index: usize) {
        let waiting = std::mem::take(&mut self.servers[index].waiting);
        let first = waiting.first().map(|first| first.at);
        for waiting in waiting {
            if let Waiter::Client { write, cut: false } = waiting.who {
                self.after(ms(1), Event::Answer { write, reply: Reply::Lost });
            }
        }
        let now = self.now;
        let server = &mut self.servers[index];
        server.life = Life::Dead;
        server.died = now;
        server.applying = false;
        if let Some(first) = first
            && self.shape.forgets_unacknowledged
        {
            server.truncate(first);
        }
        if let Some(at) = &mut server.following
            && at.receiver != Receiver::Stopped
        {
            at.receiver = Receiver::Connecting;
        }
        let ids: Vec<u64> = self.links.keys().copied().collect();
        for id in ids {
            let link = &self.links[&id];
            if link.replica == index && link.at_replica {
                self.drop_link(id);
            } else if link.source == index && link.at_source {
                self.lose_source(id);
            }
        }
    }

    /// The source of a link is gone: the replica hears of it at once if it can.
    fn lose_source(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.at_source = false;
        let (source, replica, alive) = (link.source, link.replica, link.at_replica);
        let listens = self.servers[replica].following.as_ref().map(|at| at.receiver)
            == Some(Receiver::Connected(id));
        if alive && listens && self.passes(source, replica) {
            self.links.entry(id).and_modify(|link| link.at_replica = false);
            self.seek(replica);
        }
    }

    pub(crate) fn start(&mut self, index: usize) {
        let now = self.now;
        // It takes connections a while after it has noted when it was started.
        let ready_after = Duration::from_millis(self.random.between(50, 1500));
        let server = &mut self.servers[index];
        server.life = Life::Running;
        server.incarnation += 1;
        server.started = OLD + now.saturating_sub(ready_after).max(server.died);
        server.variables = server.option_file.clone();
        let skip = server.skip_start;
        let flavour = server.flavour;
        let Some(at) = &mut server.following else { return };
        (at.receiver, at.applier) = (Receiver::Stopped, Applier::Stopped);
        if flavour == Flavour::MariaDb {
            // Deleted at the first start of a thread, and not told of before.
            (at.left, at.retrieved) = (true, Gtids::default());
            if !skip && at.by_gtid {
                at.relay.clear();
                (at.left, at.has_content) = (false, false);
            }
            // Measured with 10.11: it tells the id only once it has connected again.
            at.known = false;
        }
        if !skip {
            at.applier = Applier::Running;
            self.seek(index);
            self.apply_soon(index);
        }
    }

    pub(crate) fn thaw(&mut self, index: usize) {
        if self.servers[index].life == Life::Frozen {
            self.servers[index].life = Life::Running;
            self.send(index);
            self.apply_soon(index);
        }
    }
}
