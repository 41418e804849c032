//! Several pointsman with the real count, in modelled time, in front of modelled servers that are
//! killed, parted from them, and told what to do by keepers that are killed and frozen themselves.
//!
//! `POINTSMAN_SEEDS` says how many seeds (20 unless told), `POINTSMAN_SEED` with which to begin.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use tokio::time::Instant;

use super::*;
use crate::cluster::tally::{Followed, Lock, majority};

const LEASE: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(100);
const POINTSMAN: usize = 3;

/// A server, as far as agreeing by it goes.
#[derive(Debug, Clone, Default)]
struct Server {
    up: bool,
    started: i64,
    closed: bool,
    /// As its option file says.
    boots_closed: bool,
    /// Whom it follows, and whether it has been kept from receiving.
    source: Option<(usize, bool)>,
    /// Whom it was connected to last since it was started, and to whom it is.
    connected: (Option<usize>, Option<usize>),
    /// By lock, which connection holds it.
    locks: BTreeMap<String, (usize, u64)>,
    /// Of each pointsman its connection, and when something was last said over it.
    connections: BTreeMap<usize, (u64, Duration)>,
}

#[derive(Debug, Default)]
struct World {
    now: Duration,
    random: u64,
    servers: Vec<Server>,
    /// Pointsman and server that do not reach one another.
    parted: BTreeSet<(usize, usize)>,
    connections: u64,
}

/// One pointsman's way to one server.
#[derive(Debug, Clone)]
struct Way {
    world: Arc<Mutex<World>>,
    base: Instant,
    pointsman: usize,
    server: usize,
    name: String,
    /// Its connection, and when it was made.
    own: Arc<Mutex<Option<(u64, Duration)>>>,
}

impl World {
    fn random(&mut self, below: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.random(count) == 0
    }

    /// Servers end connections over which nothing was said.
    fn expire(&mut self) {
        let now = self.now;
        for server in &mut self.servers {
            server.connections.retain(|_, (_, said)| *said + LEASE > now);
            let open: BTreeSet<u64> = server.connections.values().map(|(id, _)| *id).collect();
            server.locks.retain(|_, (_, id)| open.contains(id));
        }
    }

    fn kill(&mut self, at: usize) {
        let server = &mut self.servers[at];
        server.up = false;
        server.locks.clear();
        server.connections.clear();
    }

    fn start(&mut self, at: usize) {
        let server = &mut self.servers[at];
        (server.up, server.closed) = (true, server.boots_closed);
        server.started += 1;
        server.connected = (None, None);
        server.source.iter_mut().for_each(|(_, stopped)| *stopped = false);
    }

    /// Replicas connect to whom they follow, some sooner than others.
    fn connect(&mut self) {
        for at in 0..self.servers.len() {
            let is_slow = !self.one_in(60);
            let Server { source, connected: (last, now), .. } = self.servers[at].clone();
            let follows = source.filter(|(of, stopped)| !stopped && self.servers[*of].up);
            let of = follows.map(|(of, _)| of).filter(|of| now == Some(*of) || !is_slow);
            self.servers[at].connected = (of.or(last), of);
        }
    }

    fn reaches(&self, pointsman: usize, server: usize) -> bool {
        self.servers[server].up && !self.parted.contains(&(pointsman, server))
    }
}

impl Way {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("one thread")
    }

    /// The connection, and when it was made; a new one where there is none.
    fn connection(&self) -> Result<(u64, Duration), String> {
        let mut world = self.world();
        let mut own = self.own.lock().expect("one thread");
        let now = world.now;
        if !world.reaches(self.pointsman, self.server) || world.one_in(50) {
            // The server finds out by itself.
            *own = None;
            return Err("nothing gets through".to_owned());
        }
        let known = world.servers[self.server].connections.get(&self.pointsman).map(|at| at.0);
        if own.is_some_and(|(id, _)| known != Some(id)) {
            *own = None;
            return Err("the connection was ended".to_owned());
        }
        if own.is_none() {
            world.connections += 1;
            *own = Some((world.connections, now));
        }
        let (id, made) = own.expect("just made");
        world.servers[self.server].connections.insert(self.pointsman, (id, now));
        world.expire();
        Ok((id, made))
    }
}

impl Voter for Way {
    fn name(&self) -> &str {
        &self.name
    }

    fn now(&self) -> Duration {
        self.world().now
    }

    async fn locks(&self, wanted: Wanted) -> Result<Locks, String> {
        let (id, _) = self.connection()?;
        let own = (self.pointsman, id);
        let mut world = self.world();
        let locks = &mut world.servers[self.server].locks;
        let word = wanted.word.clone().map(|word| format!("sound:{word}"));
        if !wanted.acts || locks.get("acts").is_some_and(|by| *by != own) {
            locks.retain(|_, by| *by != own);
        } else {
            locks.insert("acts".to_owned(), own);
            locks.retain(|name, by| name == "acts" || *by != own);
            if let Some(word) = word.clone().filter(|_| wanted.gives) {
                locks.insert(word, own);
            }
        }
        let holder = locks.get("acts").copied();
        let acts = match holder {
            None => Lock::Free,
            Some(holder) if holder == own => Lock::Own,
            Some(_) => Lock::Another,
        };
        let given =
            word.is_some_and(|word| holder.is_some() && locks.get(&word).copied() == holder);
        Ok(Locks { acts, word: wanted.word.filter(|_| given), rests: None })
    }

    async fn state(&self) -> Result<State, String> {
        let (_, made) = self.connection()?;
        let world = self.world();
        let server = &world.servers[self.server];
        let id = |at: usize| 101 + u32::try_from(at).expect("few");
        let (last, receives) = server.connected;
        let follow = |(of, stopped): (usize, bool)| Followed {
            address: format!("db{of}:3306"),
            server_id: last.map_or(0, id),
            receives: receives == Some(of),
            stopped,
        };
        Ok(State {
            connected: self.base + made,
            asked: self.base + world.now,
            closed: server.closed,
            server_id: id(self.server),
            started: server.started,
            sources: server.source.map(follow).into_iter().collect(),
            holder: String::new(),
        })
    }
}

/// A change of the primary.
#[derive(Debug, Clone, Copy)]
struct Change {
    former: usize,
    heir: usize,
}

/// One pointsman, with the least that a keeper does.
struct Pointsman {
    number: usize,
    parliament: Parliament<Way>,
    desk: Desk,
    ways: Vec<Way>,
    /// It does nothing before this time.
    stopped_until: Duration,
    leads: Option<i64>,
    primary: Option<usize>,
    is_sound: bool,
    change: Option<Change>,
    silent: u32,
    turned: u64,
}

impl Pointsman {
    fn new(world: &Arc<Mutex<World>>, base: Instant, number: usize) -> Self {
        let count = world.lock().expect("one thread").servers.len();
        let way = |server: usize| Way {
            world: world.clone(),
            base,
            pointsman: number,
            server,
            name: format!("db{server}"),
            own: Arc::default(),
        };
        let ways: Vec<Way> = (0..count).map(way).collect();
        let elector =
            |way: &Way| Elector { name: way.name.clone(), address: format!("{}:3306", way.name) };
        let voters = ways.iter().map(|way| (elector(way), way.clone())).collect();
        let chance = u64::try_from(number).expect("few");
        let (parliament, desk) =
            Parliament::new(format!("pm{number}"), LEASE, Arc::from("main"), voters, chance);
        Self {
            number,
            parliament,
            desk,
            ways,
            stopped_until: Duration::ZERO,
            leads: None,
            primary: None,
            is_sound: false,
            change: None,
            silent: 0,
            turned: 0,
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.ways[0].world.lock().expect("one thread")
    }

    /// Asks all servers, counts, and does one thing.
    async fn turn(&mut self) {
        for (server, way) in self.ways.iter().enumerate() {
            let wanted = self.parliament.wanted.borrow().clone();
            let (began, locks, state) = (way.now(), way.locks(wanted).await, way.state().await);
            let ended = way.now();
            let locks = locks.ok().map(|said| Heard { began, ended, said });
            let state = state.ok().map(|said| Heard { began, ended, said });
            self.parliament.on_answer(Answer::Locks(server, locks));
            self.parliament.on_answer(Answer::State(server, state));
        }
        self.parliament.settle();
        let stance = self.keep();
        self.desk.take(stance);
        self.parliament.settle();
    }

    fn until(lease: &Lease) -> Duration {
        Duration::from_nanos(lease.until())
    }

    fn may_act(&self) -> bool {
        self.leads.is_some() && Self::until(self.desk.acting()) > self.world().now
    }

    fn keep(&mut self) -> Stance {
        let none = Stance { keeps: true, turned: self.turned, ..Stance::default() };
        let Some(view) = self.desk.view() else { return none };
        let sight = view.sight.clone().unwrap_or_default();
        let index = |name: &String| self.ways.iter().position(|way| way.name == *name);
        let seen = sight.primary.as_ref().and_then(index);
        let number = view.leader.as_ref().filter(|at| at.is_own).map(|at| at.number);
        let took_over = number.is_some() && number != self.leads;
        self.leads = number;
        if took_over || number.is_none() {
            self.change = None;
            if seen.is_some() && seen != self.primary {
                (self.primary, self.is_sound) = (seen, false);
            }
        }
        if number.is_some() {
            self.act(&sight);
        } else if self.primary == seen {
            self.is_sound |= sight.judged.is_some();
        }
        let now = self.world().now;
        let shut = |at: usize| sight.shut.contains(&self.ways[at].name);
        let to = self.primary.filter(|at| self.is_sound && self.change.is_none() && !shut(*at));
        let to = to.map(|at| self.ways[at].name.clone());
        let sound = to.clone().filter(|_| number.is_some()).zip(Some(self.ways[0].base + now));
        Stance { to, sound, turned: self.turned, ..none }
    }

    /// One order of a keeper that acts.
    fn act(&mut self, sight: &Sight) {
        if !self.may_act() {
            return;
        }
        let count = self.ways.len();
        let reached: Vec<usize> =
            (0..count).filter(|at| self.world().reaches(self.number, *at)).collect();
        let Some(primary) = self.primary else {
            let world = self.world();
            let open = |at: &&usize| {
                let server = &world.servers[**at];
                !server.closed && server.source.is_none()
            };
            let found = reached.iter().find(open).copied();
            drop(world);
            self.primary = found;
            return;
        };
        if let Some(change) = self.change {
            return self.go_on(change, &reached, sight);
        }
        self.silent = if reached.contains(&primary) { 0 } else { self.silent + 1 };
        let is_closed = self.world().servers[primary].closed;
        if self.silent > 5 {
            let heirs: Vec<usize> = reached.iter().copied().filter(|at| *at != primary).collect();
            if heirs.len() == count - 1 {
                let pick = usize::try_from(self.world().random(64)).expect("few") % heirs.len();
                self.change = Some(Change { former: primary, heir: heirs[pick] });
            }
        } else if self.silent == 0 && (is_closed || self.world().servers[primary].source.is_some())
        {
            self.change = Some(Change { former: primary, heir: primary });
        } else if self.silent == 0 {
            self.is_sound = true;
            self.look_after(primary, &reached);
            // An operator wants another one.
            if self.world().one_in(150) {
                let heir = (primary + 1) % count;
                self.world().servers[primary].closed = true;
                self.change = Some(Change { former: primary, heir });
            }
        }
    }

    fn look_after(&mut self, primary: usize, reached: &[usize]) {
        let mut world = self.world();
        let mut turned = 0;
        for at in reached.iter().copied().filter(|at| *at != primary) {
            let server = &mut world.servers[at];
            server.closed = true;
            turned += u64::from(server.source != Some((primary, false)));
            server.source = Some((primary, false));
        }
        drop(world);
        self.turned += turned;
    }

    fn go_on(&mut self, change: Change, reached: &[usize], sight: &Sight) {
        let Change { former, heir } = change;
        if !reached.contains(&heir) {
            self.change = None;
            return;
        }
        // One order at a time.
        for at in
            reached.iter().copied().filter(|at| *at != heir && (*at != former || heir == former))
        {
            let source = self.world().servers[at].source;
            let next = match source {
                Some((of, false)) if of != heir => (of, true),
                Some((of, true)) if of != heir => (heir, false),
                None if at != former => (heir, false),
                Some(_) | None => continue,
            };
            self.turned += u64::from(!next.1);
            self.world().servers[at].source = Some(next);
            return;
        }
        if self.world().servers[heir].source.is_some() {
            self.world().servers[heir].source = None;
            return;
        }
        let (heir, former) = (&self.ways[heir].name, &self.ways[former].name);
        if sight.turned == self.turned && sight.hinders(heir, former).is_none() {
            self.world().servers[change.heir].closed = false;
            (self.primary, self.is_sound, self.change) = (Some(change.heir), true, None);
        }
    }
}

/// One of the things that go wrong.
fn trouble(world: &Arc<Mutex<World>>, pointsman: &mut [Pointsman], base: Instant) {
    let mut now = world.lock().expect("one thread");
    let servers = now.servers.len();
    let some = |now: &mut World, of: usize| usize::try_from(now.random(64)).expect("few") % of;
    let (server, victim) = (some(&mut now, servers), some(&mut now, POINTSMAN));
    let lasts = Duration::from_millis(500 + now.random(9000));
    let time = now.now;
    match now.random(8) {
        0 => now.kill(server),
        // A majority forgets its locks while the one that has them is frozen.
        1 => {
            for at in 0..servers.div_ceil(2) {
                let at = (server + at) % servers;
                now.kill(at);
                now.start(at);
            }
            let leader = pointsman.iter().position(|at| at.leads.is_some()).unwrap_or(victim);
            pointsman[leader].stopped_until = time + lasts;
        }
        2..=4 => {
            (0..servers)
                .filter(|at| !now.servers[*at].up)
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|at| now.start(at));
            now.parted.clear();
        }
        5 => drop(now.parted.insert((victim, server))),
        // Frozen: it goes on with what it knew.
        6 => pointsman[victim].stopped_until = time + lasts,
        _ => {
            drop(now);
            pointsman[victim] = Pointsman::new(world, base, victim);
            pointsman[victim].stopped_until = time + lasts / 4;
        }
    }
}

/// How many changes of the primary there were, and in how many looks somebody could write.
async fn run(seed: u64) -> (usize, usize) {
    let mut world = World { now: Duration::from_secs(100), random: seed, ..World::default() };
    let servers = [3, 3, 5, 4, 2][usize::try_from(seed % 5).expect("few")];
    for at in 0..servers {
        let source = (at > 0).then_some((0, false));
        let boots_closed = world.one_in(2);
        let closed = at > 0;
        world.servers.push(Server { up: true, closed, boots_closed, source, ..Server::default() });
    }
    let (world, base) = (Arc::new(Mutex::new(world)), Instant::now());
    let mut all: Vec<Pointsman> =
        (0..POINTSMAN).map(|number| Pointsman::new(&world, base, number)).collect();
    let (mut primaries, mut could_write) = (Vec::new(), 0);
    for step in 0..3000 {
        let time = {
            let mut world = world.lock().expect("one thread");
            world.now += STEP;
            world.expire();
            world.connect();
            world.now
        };
        if step > 100 && world.lock().expect("one thread").one_in(80) {
            trouble(&world, &mut all, base);
        }
        for one in all.iter_mut().filter(|one| one.stopped_until <= time) {
            one.turn().await;
        }
        let acting = all.iter().filter(|at| Pointsman::until(at.desk.acting()) > time).count();
        assert!(acting < 2, "seed {seed}, {time:?}: {acting} may act");
        let sends = |at: &Pointsman| {
            (Pointsman::until(at.desk.lease()) > time)
                .then(|| at.parliament.shared.stance.lock().expect("one thread").to.clone())
                .flatten()
        };
        let to: BTreeSet<String> = all.iter().filter_map(sends).collect();
        assert!(to.len() < 2, "seed {seed}, {time:?}: statements may be sent to {to:?}");
        could_write += to.len();
        primaries
            .extend(to.into_iter().filter(|at| primaries.last() != Some(at)).collect::<Vec<_>>());
    }
    (primaries.len(), could_write)
}

#[tokio::test]
async fn never_may_two_act_nor_statements_be_sent_to_two_servers() {
    let number = |name: &str, or| {
        let given = std::env::var_os(name).and_then(|text| text.to_string_lossy().parse().ok());
        given.unwrap_or(or)
    };
    let (first, count) = (number("POINTSMAN_SEED", 1), number("POINTSMAN_SEEDS", 20));
    let (mut changes, mut looks) = (0, 0);
    for seed in first..first + count {
        let (primaries, could_write) = run(seed).await;
        if count < 20 {
            println!("seed {seed}: {primaries} primaries, writes in {could_write} looks");
        }
        changes += primaries.saturating_sub(1);
        looks += could_write;
    }
    println!("{count} seeds, {changes} changes of the primary, writes in {looks} looks");
    let (count, looks) = (usize::try_from(count).expect("few"), looks);
    assert!(changes >= count / 2 && looks > count * 200, "{changes} changes, {looks} looks");
    assert_eq!(majority(3), 2);
}
