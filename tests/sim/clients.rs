//! Clients that write, each write with a number of its own, and what they were told of each. A
//! write goes where the topology has the primary, once: nobody repeats it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pointsman::topology::gtid::GtidSet;
use pointsman::topology::{Flavour, NodeId};

use crate::server::{Life, Txn, Waiter, Waiting};
use crate::world::{Event, World, ms};

/// What a client hears of its write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Done,
    /// It is certain that nothing was done.
    Refused,
    /// Nobody knows.
    Lost,
}

/// A write on its way.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    client: usize,
    pub(crate) server: usize,
    of: u32,
    proxy: u32,
    /// Over a connection that the server has accepted before.
    established: bool,
    /// That connection was ended by the server.
    cut: bool,
    sent: Duration,
    arrived: bool,
    /// What it has become in the binary log.
    gtid: GtidSet,
    /// Its commit waited for a replica.
    waited: bool,
    /// It was noted by then that commits wait for one.
    promised: bool,
}

/// What is known of all writes.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    next: u64,
    pub(crate) flights: BTreeMap<u64, Flight>,
    /// What clients were told of, and must be kept.
    pub(crate) acknowledged: BTreeSet<u64>,
    /// What they were told of while the server did not wait for a replica: nobody has told it to
    /// yet, or a restart has cost it that setting, which is not in its option file. It must be kept
    /// from when the keeper notes that a failover loses nothing.
    pub(crate) unprotected: BTreeSet<u64>,
    pub(crate) told: usize,
    pub(crate) last_acknowledged: Duration,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
}

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(3);

// === impls ===

impl World {
    fn think(&mut self, client: usize) {
        let delay = ms(self.random.between(100, 1000));
        self.after(delay, Event::Write { client });
    }

    pub(crate) fn on_write(&mut self, client: usize) {
        let Some(server) = self.health.takes_writes().filter(|_| !self.is_proxy_down) else {
            return self.after(ms(100), Event::Write { client });
        };
        self.ledger.next += 1;
        let write = self.ledger.next;
        // One that is there was asked when its server was started.
        let started = self.said_start(server);
        let established = !self.random.permille(200)
            && self.reaches(self.proxy_at(), server)
            && !self.health.is_outlived(server, started);
        let flight = Flight {
            client,
            server,
            of: self.servers[server].incarnation,
            proxy: self.proxy,
            established,
            cut: false,
            sent: self.now,
            arrived: false,
            gtid: GtidSet::default(),
            waited: false,
            promised: false,
        };
        self.ledger.flights.insert(write, flight);
        // Some are in the midst of a transaction, and send its COMMIT later.
        let delay = match self.random.permille(100) {
            true => ms(self.random.between(100, 4000)),
            false => self.latency(),
        };
        self.after(delay, Event::Arrive { write });
        let patience = ms(self.random.between(5_000, 40_000));
        self.after(patience, Event::GiveUp { write });
    }

    /// A write reaches its server, or what has become of it.
    pub(crate) fn on_arrive(&mut self, write: u64) {
        let Some(flight) = self.ledger.flights.get(&write).cloned() else { return };
        let server = &self.servers[flight.server];
        let proxy = self.proxy_at();
        if !flight.established && self.now.saturating_sub(flight.sent) > CONNECT {
            return self.answer(write, Reply::Refused);
        }
        if server.life == Life::Dead || server.incarnation != flight.of || flight.cut {
            return self
                .answer(write, if flight.established { Reply::Lost } else { Reply::Refused });
        }
        if server.life == Life::Frozen || !self.passes(proxy, flight.server) {
            return self.after(ms(100), Event::Arrive { write });
        }
        if server.is_read_only() {
            return self.answer(write, Reply::Refused);
        }
        // A session whose connection has come about looks again where it is to write.
        // It asks the server when it was started, too.
        let known = self.health.takes_writes() == Some(flight.server)
            && !self.health.is_outlived(flight.server, self.said_start(flight.server));
        if !flight.established && !known {
            return self.answer(write, Reply::Refused);
        }
        let waited = server.asks_for_acknowledgements();
        if let Some(flight) = self.ledger.flights.get_mut(&write) {
            (flight.arrived, flight.waited) = (true, waited);
            flight.promised = self.journal.lossless;
        }
        let who = Waiter::Client { write, cut: false };
        if let Err(why) = self.commit(flight.server, Some(write), who) {
            self.breaks(why);
        }
    }

    /// Commits at a server: at once, or when it is acknowledged.
    pub(crate) fn commit(
        &mut self,
        index: usize,
        write: Option<u64>,
        who: Waiter,
    ) -> Result<(), String> {
        let server = &mut self.servers[index];
        let txn = Txn { origin: server.id(), seq: server.next_seq(), write };
        let gtid = server.gtid(&txn);
        let at = server.log(txn)?;
        let waits = server.asks_for_acknowledgements();
        server.waiting.push(Waiting { at, who });
        if let Some(flight) = write.and_then(|write| self.ledger.flights.get_mut(&write)) {
            flight.gtid = gtid;
        }
        self.send(index);
        if !waits {
            self.release(index, at);
        }
        Ok(())
    }

    /// A server says something to a client.
    fn answer(&mut self, write: u64, reply: Reply) {
        let delay = self.latency();
        self.after(delay, Event::Answer { write, reply });
    }

    pub(crate) fn on_answer(&mut self, write: u64, reply: Reply) {
        let Some(flight) = self.ledger.flights.get(&write).cloned() else { return };
        let proxy = self.proxy_at();
        if !self.passes(flight.server, proxy) {
            return self.after(ms(100), Event::Answer { write, reply });
        }
        self.ledger.flights.remove(&write);
        if flight.proxy != self.proxy {
            return;
        }
        match reply {
            Reply::Done => self.acknowledge(write, &flight),
            Reply::Refused => self.ledger.refused += 1,
            Reply::Lost => self.ledger.unknown += 1,
        }
        self.think(flight.client);
    }

    /// A client is told that its write is done: whoever takes the writes now has to have it.
    fn acknowledge(&mut self, write: u64, flight: &Flight) {
        let (by, waited) = (flight.server, flight.waited);
        self.ledger.told += 1;
        if flight.promised && !waited {
            self.breaks(format!("db{} acknowledged write {write} without a replica", by + 1));
        }
        match waited {
            true => self.ledger.acknowledged.insert(write),
            false => self.ledger.unprotected.insert(write),
        };
        self.ledger.last_acknowledged = self.now;
        let node = u16::try_from(by).expect("few servers");
        self.acknowledged.note(NodeId(node), flight.gtid.clone());
        self.log(|| format!("write {write} is acknowledged by db{}", by + 1));
        if let Some(primary) = self.health.takes_writes()
            && waited
            && !self.servers[primary].writes.contains(&write)
        {
            let primary = primary + 1;
            self.breaks(format!(
                "db{} acknowledged write {write}, which db{primary}, the primary, has not",
                by + 1
            ));
        }
    }

    pub(crate) fn on_give_up(&mut self, write: u64) {
        let Some(flight) = self.ledger.flights.get(&write).cloned() else { return };
        // Had it not arrived, it still may: the connection's end comes after it.
        if flight.arrived || self.servers[flight.server].life == Life::Dead {
            self.cut(write);
            self.ledger.flights.remove(&write);
        } else if let Some(flight) = self.ledger.flights.get_mut(&write) {
            flight.proxy = u32::MAX;
        }
        if flight.proxy == self.proxy {
            self.ledger.unknown += 1;
            self.think(flight.client);
        }
    }

    /// Nobody hears any more what becomes of a write; it goes on all the same.
    fn cut(&mut self, write: u64) {
        let Some(flight) = self.ledger.flights.get(&write) else { return };
        for waiting in &mut self.servers[flight.server].waiting {
            if let Waiter::Client { write: waits, cut } = &mut waiting.who
                && *waits == write
            {
                *cut = true;
            }
        }
    }

    /// A server ends its clients' connections; whether there were any.
    pub(crate) fn end_clients(&mut self, index: usize) -> bool {
        let of = self.servers[index].incarnation;
        let here = |flight: &Flight| {
            flight.server == index
                && flight.of == of
                && !flight.cut
                && (flight.established || flight.arrived)
        };
        let flights = self.ledger.flights.iter().filter(|(_, flight)| here(flight));
        let writes: Vec<u64> = flights.map(|(write, _)| *write).collect();
        for write in &writes {
            self.cut(*write);
            if let Some(flight) = self.ledger.flights.get_mut(write) {
                flight.cut = true;
                if flight.arrived {
                    self.answer(*write, Reply::Lost);
                }
            }
        }
        let server = &mut self.servers[index];
        let mut any = !writes.is_empty();
        if server.flavour == Flavour::MariaDb {
            // A waiter that is ended leaves its commit for all to see; on MySQL it waits on (V4).
            any |= !server.waiting.is_empty();
            server.waiting.clear();
        }
        any
    }

    /// The proxy has died, and with it all connections of clients to it and of it to servers.
    pub(crate) fn lose_clients(&mut self) {
        let clients: Vec<usize> = self.ledger.flights.values().map(|at| at.client).collect();
        let arrived = self.ledger.flights.iter().filter(|(_, flight)| flight.arrived);
        let arrived: Vec<u64> = arrived.map(|(write, _)| *write).collect();
        for write in arrived {
            self.cut(write);
            self.ledger.flights.remove(&write);
        }
        self.ledger.unknown += clients.len() as u64;
        // They come back to the next one.
        clients.into_iter().for_each(|client| self.after(ms(500), Event::Write { client }));
    }
}
