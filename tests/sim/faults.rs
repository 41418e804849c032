//! What goes wrong, and how it ends: nothing stays broken for ever.

use std::time::Duration;

use pointsman::failover::record::Record;

use crate::server::{Applier, Life};
use crate::world::{Event, Heal, World, ms};

/// Of how many faults one is drawn, and of how many it was before servers were evicted.
pub(crate) const KINDS: u64 = 122;
pub(crate) const EARLY_KINDS: u64 = 100;

impl World {
    fn next_fault(&mut self) {
        let delay = match self.random.permille(250) {
            // Two things at once, or nearly.
            true => ms(self.random.between(0, 600)),
            false => ms(self.random.between(1_000, self.shape.quiet)),
        };
        self.after(delay, Event::Fault);
    }

    /// How long a fault lasts: a blink, or long enough for a verdict.
    fn duration(&mut self) -> u64 {
        match self.random.between(0, 3) {
            0 => self.random.between(100, 2_000),
            1 => self.random.between(2_000, 8_000),
            _ => self.random.between(8_000, 25_000),
        }
    }

    pub(crate) fn on_fault(&mut self) {
        if !self.are_things_going_wrong() {
            return;
        }
        self.next_fault();
        if self.shape.switches && self.random.permille(200) {
            self.log(|| "a switchover is ordered".to_owned());
            (self.ordered, self.look, self.wake) = (true, true, true);
            return;
        }
        let count = self.servers.len();
        // Most things happen to whoever takes the writes.
        let victim = match self.health.takes_writes() {
            Some(primary) if self.random.permille(550) => primary,
            _ => self.random.index(count),
        };
        // All of it is over soon after the last one.
        let left = (self.shape.faults_until + ms(5_000)).saturating_sub(self.now);
        let lasts = ms(self.duration()).min(left);
        match self.random.between(0, self.shape.kinds) {
            116.. => self.lag_and_evict(left),
            108..116 => self.lag_and_lose(left),
            100.. => {
                let replica = self.random.index(count);
                if self.health.takes_writes() != Some(replica) {
                    let lasts = ms(self.random.between(8_000, 25_000)).min(left);
                    self.strike(replica, lasts);
                }
            }
            0..34 => self.strike(victim, lasts),
            34..47 => self.freeze(victim, lasts),
            47..70 => self.partition(victim, lasts),
            70..76 => {
                let apply = self.random.between(50, 1_500);
                self.log(|| format!("FAULT db{} applies slowly: {apply} ms", victim + 1));
                self.servers[victim].apply = ms(apply);
                self.after(lasts, Event::Heal(Heal::Speed(victim)));
            }
            76..90 => {
                let receive = self.random.between(50, 1_500);
                self.log(|| format!("FAULT db{} receives slowly: {receive} ms", victim + 1));
                self.servers[victim].receive = ms(receive);
                self.after(lasts, Event::Heal(Heal::Width(victim)));
            }
            90..94 => self.stop_replication(victim),
            _ => self.wake_keeper_anew(),
        }
    }

    /// Replicas apply slowly, and then all servers die at once, of which the replicas are back
    /// soon; some of them somebody has stopped before.
    fn lag_and_lose(&mut self, left: Duration) {
        let Some(primary) = self.health.takes_writes() else { return };
        let lasts = ms(self.random.between(9_000, 25_000)).min(left);
        let dies = ms(self.random.between(1_000, 4_000));
        let stops = self.random.permille(300);
        self.log(|| format!("FAULT all replicas lag, and all servers die (stopped: {stops})"));
        for index in 0..self.servers.len() {
            if index == primary {
                self.after(dies, Event::Hit { victim: Some(index), lasts });
                continue;
            }
            self.servers[index].apply = ms(self.random.between(100, 1_500));
            self.after(lasts, Event::Heal(Heal::Speed(index)));
            if stops {
                let early = dies.saturating_sub(ms(self.random.between(1, 300)));
                self.after(early, Event::Heal(Heal::Stop(index)));
            } else {
                let soon = ms(self.random.between(100, 2_500));
                self.after(dies, Event::Hit { victim: Some(index), lasts: soon });
            }
        }
    }

    /// All replicas but one receive slowly, that one dies for long, and then the primary.
    fn lag_and_evict(&mut self, left: Duration) {
        let Some(primary) = self.health.takes_writes() else { return };
        let lasts = ms(25_000).min(left);
        let mut others: Vec<usize> = (0..self.servers.len()).filter(|at| *at != primary).collect();
        let gone = others.remove(self.random.index(others.len()));
        self.log(|| format!("FAULT db{} dies, and others lag behind it", gone + 1));
        for index in others {
            self.servers[index].receive = ms(self.random.between(500, 1_500));
            self.after(lasts, Event::Heal(Heal::Width(index)));
        }
        let dies = ms(self.random.between(2_000, 6_000));
        self.after(dies, Event::Hit { victim: Some(gone), lasts });
        let then = dies + ms(self.random.between(2_000, 9_000));
        self.after(then, Event::Hit { victim: Some(primary), lasts });
    }

    /// A change of the primary comes to another stage: the heir, another or the keeper may die.
    pub(crate) fn on_stage(&mut self, next: &Record) {
        let stage = |record: &Record| record.operation.as_ref().map(|at| at.stage);
        let is_sore = self.shape.sore > 0 && self.are_things_going_wrong();
        if !is_sore || stage(next) == stage(&self.journal) || !self.random.permille(self.shape.sore)
        {
            return;
        }
        let heir = next.operation.as_ref().and_then(|at| at.heir.as_ref());
        let heir = self.servers.iter().position(|server| Some(&server.name()) == heir);
        let victim = match self.random.between(0, 4) {
            0 => Some(self.random.index(self.servers.len())),
            1 => None,
            _ => heir,
        };
        let lasts = match self.random.permille(500) {
            true => self.random.between(100, 1_500),
            false => self.duration(),
        };
        let delay = ms(self.random.between(0, 300));
        self.after(delay, Event::Hit { victim, lasts: ms(lasts) });
    }

    pub(crate) fn on_hit(&mut self, victim: Option<usize>, lasts: Duration) {
        let left = (self.shape.faults_until + ms(5_000)).saturating_sub(self.now);
        match victim {
            Some(victim) => self.strike(victim, lasts.min(left)),
            None => self.wake_keeper_anew(),
        }
    }

    /// An operator's STOP REPLICA, or of its applier alone.
    fn stop_replication(&mut self, victim: usize) {
        if self.servers[victim].life != Life::Running || self.servers[victim].following.is_none() {
            return;
        }
        let receives = self.random.permille(500);
        self.log(|| format!("FAULT db{} is told to stop (receives: {receives})", victim + 1));
        if !receives {
            self.stop_receiver(victim);
        }
        if let Some(at) = &mut self.servers[victim].following {
            at.applier = Applier::Stopped;
        }
    }

    fn strike(&mut self, victim: usize, lasts: Duration) {
        if self.servers[victim].life == Life::Dead {
            return;
        }
        self.log(|| format!("FAULT db{} is killed", victim + 1));
        self.kill(victim);
        // A server needs a moment to start.
        self.after(lasts + ms(500), Event::Heal(Heal::Start(victim)));
    }

    fn freeze(&mut self, victim: usize, lasts: Duration) {
        if self.servers[victim].life != Life::Running {
            return;
        }
        self.log(|| format!("FAULT db{} is frozen", victim + 1));
        self.servers[victim].life = Life::Frozen;
        self.after(lasts, Event::Heal(Heal::Thaw(victim)));
    }

    fn partition(&mut self, victim: usize, lasts: Duration) {
        let proxy = self.proxy_at();
        let servers: Vec<usize> = (0..proxy).filter(|at| *at != victim).collect();
        let other = servers[self.random.index(servers.len())];
        let both = |with: &[usize]| -> Vec<(usize, usize)> {
            with.iter().flat_map(|at| [(victim, *at), (*at, victim)]).collect()
        };
        let (word, ways) = match self.random.between(0, 7) {
            0 => ("from all", both(&[servers.as_slice(), &[proxy]].concat())),
            1 => ("from the proxy", both(&[proxy])),
            2 => ("from the other servers", both(&servers)),
            3 => ("towards the proxy", vec![(victim, proxy)]),
            4 => ("from hearing the proxy", vec![(proxy, victim)]),
            5 => ("towards another server", vec![(victim, other)]),
            _ => ("from hearing another server", vec![(other, victim)]),
        };
        self.log(|| format!("FAULT db{} is cut off {word}: {ways:?}", victim + 1));
        self.blocked.extend(&ways);
        self.after(lasts, Event::Heal(Heal::Open(ways)));
    }

    /// The proxy dies, and the keeper with it; it comes back soon.
    fn wake_keeper_anew(&mut self) {
        if self.is_proxy_down {
            return;
        }
        self.log(|| "FAULT the keeper is killed".to_owned());
        self.is_proxy_down = true;
        self.proxy += 1;
        self.abandon_tasks();
        self.lose_clients();
        let delay = ms(self.random.between(50, 6_000));
        self.after(delay, Event::Heal(Heal::Keeper));
    }

    /// One fault is over.
    pub(crate) fn on_heal(&mut self, heal: Heal) {
        self.log(|| format!("healed: {heal:?}"));
        match heal {
            Heal::Start(index) if self.servers[index].life == Life::Dead => self.start(index),
            Heal::Start(_) => {}
            Heal::Thaw(index) => self.thaw(index),
            Heal::Open(ways) => ways.iter().for_each(|way| {
                self.blocked.remove(way);
            }),
            Heal::Speed(index) => self.servers[index].apply = ms(2),
            Heal::Width(index) => self.servers[index].receive = Duration::ZERO,
            Heal::Keeper => self.is_proxy_down = false,
            Heal::Stop(index) => self.stop_replication(index),
        }
    }

    /// Begins the bad times.
    pub(crate) fn begin_faults(&mut self) {
        let quiet = ms(self.random.between(1_500, 10_000));
        self.after(quiet, Event::Fault);
    }
}
