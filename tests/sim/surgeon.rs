//! What a keeper does and learns, in the model: questions, orders and records take their time, go
//! wrong, and are cut off when the keeper dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use pointsman::config::Monitor;
use pointsman::config::units::Secret;
use pointsman::failover::execute::{Failed, MayAct};
use pointsman::failover::hook::Hook;
use pointsman::failover::journal::JournalError;
use pointsman::failover::order::{Order, What};
use pointsman::failover::record::Record;
use pointsman::failover::report::{Report, Told, told_by};
use pointsman::failover::surgeon::Surgeon;
use pointsman::failover::survey::Patience;
use pointsman::health::observation::{Failure, FailureKind};
use pointsman::secrets::SecretError;
use pointsman::topology::{Condition, NodeId, Topology};
use tokio::time::Instant;

use crate::server::{Applier, Life, Receiver, Waiter};
use crate::world::{Event, World, ms};

/// What is under way for the keeper.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    surveys: BTreeMap<u64, Survey>,
    orders: BTreeMap<u64, Doing>,
    /// By the number of their task.
    performed: BTreeMap<u64, Vec<Failed>>,
    records: BTreeMap<u64, Record>,
}

#[derive(Debug)]
struct Survey {
    topology: Topology,
    /// Each until when it is waited for.
    waiting: BTreeMap<usize, Duration>,
    reports: BTreeMap<usize, Report>,
}

/// What one server is told to do, one after the other.
#[derive(Debug, Clone)]
struct Doing {
    task: u64,
    node: usize,
    told: Told,
    orders: VecDeque<What>,
    steps: VecDeque<Step>,
    /// Of the server when it was connected to.
    of: Option<u32>,
    until: Duration,
    /// It waits for a commit of its own.
    commits: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Connect,
    EndClients,
    EndUsers(BTreeSet<String>),
    Run(String),
}

/// A keeper's surgeon in the model.
#[derive(Debug, Clone)]
pub(crate) struct Modelled(pub(crate) Arc<Mutex<World>>);

/// How long a server may take for one order.
const PATIENCE: Duration = Duration::from_secs(10);

/// The task of orders that nobody waits for.
const ORPHANS: u64 = 0;

/// The calendar's seconds when the model begins.
const EPOCH: u64 = 1_700_000_000;

// === impls ===

impl Modelled {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("one thread")
    }

    /// Waits until the time has come, or something changed.
    pub(crate) async fn tick(&self) {
        {
            let mut world = self.world();
            if world.tick_at <= world.now {
                let proxy = world.proxy;
                world.tick_at = world.now + ms(100);
                world.after(ms(100), Event::Tick { proxy });
            }
        }
        poll_fn(|_| match std::mem::take(&mut self.world().look) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

impl Surgeon for Modelled {
    fn now(&self) -> Instant {
        let world = self.world();
        Instant::from_std(world.instant(world.now))
    }

    fn seconds(&self) -> u64 {
        EPOCH + self.world().now.as_secs()
    }

    async fn survey(
        &self,
        topology: &Topology,
        _: &Monitor,
        patience: Patience<'_>,
    ) -> Vec<Report> {
        let task = {
            let mut world = self.world();
            let task = world.number();
            let asked = topology.nodes.iter().filter(|node| node.condition != Condition::Excluded);
            let asked = asked.filter_map(|node| Some((usize::from(node.id.0), patience(node)?)));
            let now = world.now;
            let waiting: BTreeMap<usize, Duration> =
                asked.map(|(at, for_)| (at, now + for_)).collect();
            for node in waiting.keys() {
                let delay = world.latency();
                world.after(delay, Event::Ask { task, node: *node });
            }
            let topology = topology.clone();
            let survey = Survey { topology, waiting, reports: BTreeMap::new() };
            world.tasks.surveys.insert(task, survey);
            task
        };
        poll_fn(|_| {
            let mut world = self.world();
            match world.tasks.surveys.get(&task) {
                Some(survey) if !survey.waiting.is_empty() => Poll::Pending,
                _ => {
                    let survey = world.tasks.surveys.remove(&task);
                    Poll::Ready(
                        survey.map(|at| at.reports.into_values().collect()).unwrap_or_default(),
                    )
                }
            }
        })
        .await
    }

    async fn perform(
        &self,
        orders: Vec<Order>,
        topology: &Topology,
        reports: &[Report],
        _: &Monitor,
        _: &MayAct,
    ) -> Vec<Failed> {
        let mut by_server: BTreeMap<NodeId, VecDeque<What>> = BTreeMap::new();
        for order in orders {
            by_server.entry(order.node).or_default().push_back(order.what);
        }
        let task = {
            let mut world = self.world();
            let task = world.number();
            world.tasks.performed.insert(task, Vec::new());
            for (id, orders) in by_server {
                let told = told_by(reports, id).filter(|_| topology.node(id).is_some());
                let Some(told) = told.cloned() else { continue };
                world.begin_orders(task, usize::from(id.0), told, orders);
            }
            task
        };
        poll_fn(|_| {
            let mut world = self.world();
            if world.tasks.orders.values().any(|doing| doing.task == task) {
                return Poll::Pending;
            }
            Poll::Ready(world.tasks.performed.remove(&task).unwrap_or_default())
        })
        .await
    }

    fn recorded(&self) -> Result<Record, JournalError> {
        Ok(self.world().journal.clone())
    }

    async fn write_down(&self, record: &Record) -> Result<(), JournalError> {
        let task = {
            let mut world = self.world();
            let (task, delay) = (world.number(), world.latency());
            world.tasks.records.insert(task, record.clone());
            world.after(delay, Event::Written { task });
            task
        };
        poll_fn(|_| match self.world().tasks.records.contains_key(&task) {
            true => Poll::Pending,
            false => Poll::Ready(Ok(())),
        })
        .await
    }

    async fn password(&self, _: String) -> Result<Secret, SecretError> {
        Ok(Secret::new("secret".to_owned()))
    }

    async fn ask_hook(&self, _: Hook) -> Result<(), String> {
        Ok(())
    }

    fn tell_hook(&self, _: Hook) {}
}

impl World {
    /// The keeper is dead: what it has begun stands as it is.
    pub(crate) fn abandon_tasks(&mut self) {
        let orders = std::mem::take(&mut self.tasks.orders);
        self.tasks = Tasks::default();
        for (order, doing) in orders {
            self.orphan(order, doing);
        }
    }

    /// A statement that was sent may still be run, though nobody waits for it any more.
    fn orphan(&mut self, order: u64, mut doing: Doing) {
        let runs = matches!(doing.steps.front(), Some(Step::Run(_))) && doing.of.is_some();
        if runs && doing.task != ORPHANS && self.random.permille(500) {
            doing.task = ORPHANS;
            doing.steps.truncate(1);
            doing.orders.truncate(1);
            doing.until = self.now + PATIENCE;
            self.tasks.orders.insert(order, doing);
            self.step_soon(order);
        }
    }

    pub(crate) fn on_written(&mut self, task: u64) {
        if let Some(record) = self.tasks.records.remove(&task) {
            self.log(|| format!("written down: {record:?}"));
            if record.lossless && !self.journal.lossless {
                let before = std::mem::take(&mut self.ledger.unprotected);
                self.ledger.acknowledged.extend(before);
            }
            let before = self.journal.evicted().count();
            self.evicted += record.evicted().count().saturating_sub(before);
            self.on_stage(&record);
            self.journal = record;
            self.wake = true;
        }
    }

    pub(crate) fn on_ask(&mut self, task: u64, node: usize) {
        let Some(survey) = self.tasks.surveys.get(&task) else { return };
        let Some(until) = survey.waiting.get(&node).copied() else { return };
        let published = &survey.topology.nodes[node];
        let (id, name) = (published.id, published.name.clone());
        let there = self.reaches(self.proxy_at(), node);
        let told = match self.servers[node].life {
            Life::Running if there => {
                let (used, read) = (self.users(node), self.read(node));
                Ok(self.servers[node].told(self.now, self.acknowledging(node), used, read))
            }
            Life::Dead if there => Err(Failure::new(FailureKind::Unreachable, "refused")),
            _ if self.now >= until => Err(Failure::new(FailureKind::Timeout, "no answer")),
            _ => {
                let left = until.saturating_sub(self.now).min(ms(200));
                return self.after(left, Event::Ask { task, node });
            }
        };
        if let Some(survey) = self.tasks.surveys.get_mut(&task) {
            survey.waiting.remove(&node);
            survey.reports.insert(node, Report { node: id, name, told });
        }
        self.wake = true;
    }

    fn begin_orders(&mut self, task: u64, node: usize, told: Told, orders: VecDeque<What>) {
        let order = self.number();
        let until = self.now + PATIENCE;
        let mut doing = Doing {
            task,
            node,
            told,
            orders,
            steps: VecDeque::new(),
            of: None,
            until,
            commits: false,
        };
        doing.steps = doing.steps_of_next();
        self.tasks.orders.insert(order, doing);
        self.step_soon(order);
    }

    fn step_soon(&mut self, order: u64) {
        let delay = match self.random.permille(30) && self.are_things_going_wrong() {
            true => ms(self.random.between(100, 2500)),
            false => self.latency(),
        };
        self.after(delay, Event::Step { order });
    }

    pub(crate) fn on_step(&mut self, order: u64) {
        let Some(mut doing) = self.tasks.orders.remove(&order) else { return };
        let name = self.servers[doing.node].name();
        let wrong = self.are_things_going_wrong()
            && !doing.commits
            && self.random.permille(self.shape.order_faults);
        let denied = wrong
            && self.shape.denies
            && matches!(doing.orders[0], What::Settle(_))
            && self.random.permille(300);
        if denied {
            let what = doing.orders[0].describe();
            self.log(|| format!("{name} denies: {what}"));
            return self.failed(order, doing, FailureKind::Denied, "1227: access denied");
        }
        if wrong && self.random.permille(500) {
            self.log(|| format!("{name} is not told: {:?}", doing.steps.front()));
            return self.failed(order, doing, FailureKind::Unreachable, "the connection broke");
        }
        match self.try_step(order, &mut doing) {
            Tried::Later => {
                if self.now < doing.until {
                    self.tasks.orders.insert(order, doing);
                    return self.after(ms(50), Event::Step { order });
                }
                let orphan = self.number();
                self.orphan(orphan, doing.clone());
                return self.failed(order, doing, FailureKind::Timeout, "no answer within 10 s");
            }
            Tried::Failed(kind, why) => return self.failed(order, doing, kind, &why),
            Tried::Waits => {
                // Its commit calls when it is acknowledged; or the time is over.
                doing.commits = true;
                let left = doing.until.saturating_sub(self.now);
                self.tasks.orders.insert(order, doing);
                return self.after(left, Event::Step { order });
            }
            Tried::Done => {}
        }
        if wrong {
            self.log(|| {
                format!("{name} does it, and nobody hears of it: {:?}", doing.steps.front())
            });
            return self.failed(order, doing, FailureKind::Timeout, "no answer within 10 s");
        }
        doing.steps.pop_front();
        doing.commits = false;
        if doing.steps.is_empty() {
            doing.orders.pop_front();
            if doing.orders.is_empty() {
                self.wake = true;
                return;
            }
            doing.steps = doing.steps_of_next();
            doing.until = self.now + PATIENCE;
        }
        self.tasks.orders.insert(order, doing);
        self.step_soon(order);
    }

    /// An order was not carried out as far as its keeper knows; settings go on.
    fn failed(&mut self, order: u64, mut doing: Doing, kind: FailureKind, why: &str) {
        let Some(what) = doing.orders.pop_front() else { return };
        let told_to = what.describe();
        let goes_on = matches!(what, What::Settle(_));
        let name = self.servers[doing.node].name();
        let node = NodeId(u16::try_from(doing.node).expect("few"));
        let failed = Failed {
            order: Order { node, what },
            why: format!("{name} was told to {told_to}: {why}"),
            denied: kind == FailureKind::Denied,
        };
        self.log(|| failed.why.clone());
        self.tasks.performed.entry(doing.task).or_default().push(failed);
        self.wake = true;
        if goes_on && !doing.orders.is_empty() {
            doing.steps = doing.steps_of_next();
            (doing.until, doing.of) = (self.now + PATIENCE, None);
            self.tasks.orders.insert(order, doing);
            self.step_soon(order);
        }
    }

    fn try_step(&mut self, order: u64, doing: &mut Doing) -> Tried {
        let server = &self.servers[doing.node];
        if doing.commits {
            // Acknowledged, or out of time.
            let waits = server.waiting.iter().any(|at| at.who == Waiter::Order(order));
            return if waits { Tried::Later } else { Tried::Done };
        }
        let there = self.reaches(self.proxy_at(), doing.node);
        match server.life {
            Life::Dead if there => {
                return Tried::Failed(FailureKind::Unreachable, "refused".to_owned());
            }
            Life::Running if there => {}
            Life::Dead | Life::Frozen | Life::Running => return Tried::Later,
        }
        match doing.of {
            Some(of) if of != server.incarnation => {
                return Tried::Failed(FailureKind::Unreachable, "the connection broke".to_owned());
            }
            _ => doing.of = Some(server.incarnation),
        }
        match doing.steps.front() {
            None | Some(Step::Connect) => Tried::Done,
            Some(Step::EndClients) => match self.end_clients(doing.node) {
                true => Tried::Later,
                false => Tried::Done,
            },
            Some(Step::EndUsers(users)) => {
                let users = users.clone();
                match self.end_users(doing.node, &users) {
                    true => Tried::Later,
                    false => Tried::Done,
                }
            }
            Some(Step::Run(statement)) => {
                let statement = statement.clone();
                self.run(order, doing.node, &statement)
            }
        }
    }

    /// A server runs a statement of a keeper.
    fn run(&mut self, order: u64, node: usize, statement: &str) -> Tried {
        let name = self.servers[node].name();
        let shown = statement.to_owned();
        let words: Vec<&str> = statement.split(' ').collect();
        let plain = statement.replace("REPLICA", "SLAVE");
        match plain.as_str() {
            "STOP SLAVE IO_THREAD" => return self.stop_receiver(node),
            "STOP SLAVE" | "STOP SLAVE SQL_THREAD" => {
                if self.servers[node].applying && self.servers[node].applier_hangs() {
                    return Tried::Later;
                }
                if plain == "STOP SLAVE" && self.stop_receiver(node) != Tried::Done {
                    return Tried::Later;
                }
                if let Some(at) = &mut self.servers[node].following {
                    at.applier = Applier::Stopped;
                }
            }
            "START SLAVE IO_THREAD" => {
                self.servers[node].forget_on_start();
                if !self.servers[node].is_receiving() {
                    self.seek(node);
                }
            }
            "START SLAVE SQL_THREAD" => self.start_applier(node),
            "START SLAVE" => {
                self.servers[node].forget_on_start();
                self.start_applier(node);
                if !self.servers[node].is_receiving() {
                    self.seek(node);
                }
            }
            _ if (plain.starts_with("CHANGE") || plain == "RESET SLAVE ALL")
                && !self.servers[node].may_be_turned() =>
            {
                return Tried::Failed(FailureKind::Puzzling, "1198: stop it first".to_owned());
            }
            "RESET SLAVE ALL" => self.servers[node].following = None,
            "SET GLOBAL gtid_slave_pos = @@global.gtid_binlog_pos" => {
                let last = self.servers[node].binlog.last();
                self.servers[node].slave_pos = last.map(|txn| (txn.origin, txn.seq));
            }
            _ if plain.contains(" RELAY_LOG_FILE = ") => {
                if let Some(at) = &mut self.servers[node].following {
                    at.by_gtid = false;
                }
                self.rescued += 1;
            }
            _ if plain.starts_with("CHANGE") => {
                let of = |word: &str| plain.split(word).nth(1)?.split('\'').next();
                let host = of("_HOST = 'db").and_then(|id| id.parse::<usize>().ok());
                let before = self.servers[node].following.as_ref().map(|at| at.source);
                let source = host.map(|id| id - 1).or(before).expect("a source");
                let user = of("_USER = '").map(str::to_owned);
                self.follow(node, source);
                if let (Some(user), Some(at)) = (user, &mut self.servers[node].following) {
                    at.user = user;
                }
            }
            _ if plain.starts_with("ALTER USER IF EXISTS") => {
                let user = plain.split('\'').nth(1).expect("a name").to_owned();
                let locked = &mut self.servers[node].locked;
                match plain.ends_with(" LOCK") {
                    true => locked.insert(user),
                    false => locked.remove(&user),
                };
            }
            _ if plain.starts_with("CREATE USER") => {
                self.log(|| format!("{name}: CREATE USER"));
                let who = Waiter::Order(order);
                if let Err(why) = self.commit(node, None, who) {
                    self.breaks(why);
                }
                let waits = self.servers[node].waiting.iter().any(|at| at.who == who);
                return if waits { Tried::Waits } else { Tried::Done };
            }
            _ if plain.starts_with("SET GLOBAL") => return self.set(node, words[2], words[4]),
            _ => {}
        }
        self.log(|| format!("{name}: {shown}"));
        Tried::Done
    }

    pub(crate) fn stop_receiver(&mut self, node: usize) -> Tried {
        let Some(at) = &mut self.servers[node].following else { return Tried::Done };
        let source = at.source;
        let link = match std::mem::replace(&mut at.receiver, Receiver::Stopped) {
            Receiver::Connected(link) => Some(link),
            Receiver::Stopped | Receiver::Connecting => None,
        };
        if let Some(link) = link {
            self.drop_link(link);
        }
        let name = self.servers[node].name();
        self.log(|| format!("{name} receives no more from db{}", source + 1));
        Tried::Done
    }

    fn start_applier(&mut self, node: usize) {
        self.servers[node].forget_on_start();
        if let Some(at) = &mut self.servers[node].following {
            at.applier = Applier::Running;
            at.error.clear();
        }
        self.apply_soon(node);
    }

    fn set(&mut self, node: usize, name: &str, value: &str) -> Tried {
        let value = match value {
            "1" if name.ends_with("only") || name.ends_with("enabled") => "ON",
            "0" => "OFF",
            other => other,
        };
        let server = &mut self.servers[node];
        // A commit that waits keeps whoever closes the server waiting (V22).
        if name.ends_with("read_only") && value == "ON" && !server.waiting.is_empty() {
            return Tried::Later;
        }
        let asked = server.asks_for_acknowledgements();
        let Some((known, _)) = server.variables.get_key_value(name) else {
            return Tried::Failed(FailureKind::Puzzling, format!("1193: no variable {name}"));
        };
        let known = *known;
        server.variables.insert(known, value.to_owned());
        let name = server.name();
        if asked && !server.asks_for_acknowledgements() {
            self.release(node, usize::MAX);
        }
        self.log(|| format!("{name}: SET GLOBAL {known} = {value}"));
        Tried::Done
    }
}

/// What came of a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    Done,
    /// Not yet.
    Later,
    /// Its commit is to be acknowledged first.
    Waits,
    Failed(FailureKind, String),
}

impl Doing {
    fn steps_of_next(&self) -> VecDeque<Step> {
        let mut steps = VecDeque::from([Step::Connect]);
        let Some(what) = self.orders.front() else { return steps };
        let statements = what.statements(&self.told).into_iter().map(Step::Run);
        let fences = *what == What::Fence;
        steps.extend(fences.then_some(Step::EndClients));
        steps.extend(statements);
        steps.extend(fences.then_some(Step::EndClients));
        if let What::LockOut(users) = what {
            steps.push_back(Step::EndUsers(users.clone()));
        }
        steps
    }
}
