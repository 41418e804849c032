//! One modelled server: its binary log, its relay log, its threads and its variables. What it does
//! with them was measured: where MariaDB and MySQL differ the model does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pointsman::failover::ackers::{OWN_ACCOUNT, own_account};
use pointsman::failover::relay::Relay;
use pointsman::failover::report::{Made, Told};
use pointsman::health::observation::{LogPlace, Seen, Source};
use pointsman::topology::gtid::{GtidSet, MariaDbState};
use pointsman::topology::{Flavour, ServerFacts, Transport};

use crate::gtids::Gtids;

/// A transaction: who wrote it first, its number there (MariaDB: in the one domain), and the
/// client's write that is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Txn {
    pub(crate) origin: u32,
    pub(crate) seq: u64,
    pub(crate) write: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    Frozen,
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    Stopped,
    Connecting,
    /// By the link of this number.
    Connected(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applier {
    Stopped,
    Running,
    Failed,
}

/// What a server is told to follow, and how far it is.
#[derive(Debug, Clone)]
pub(crate) struct Following {
    /// The index of the source among all servers.
    pub(crate) source: usize,
    /// It has reached that server since it was told of it.
    pub(crate) known: bool,
    /// The account by which it logs in there.
    pub(crate) user: String,
    /// Received and not applied; on disk.
    pub(crate) relay: Vec<Txn>,
    /// The relay log is what a restart has left, of which MariaDB tells nothing else.
    pub(crate) left: bool,
    /// Something of the source stands in the relay log, applied or not.
    pub(crate) has_content: bool,
    pub(crate) by_gtid: bool,
    /// MySQL's `Retrieved_Gtid_Set`.
    pub(crate) retrieved: Gtids,
    /// How often it has tried to connect in vain.
    pub(crate) tries: u32,
    pub(crate) receiver: Receiver,
    pub(crate) applier: Applier,
    pub(crate) error: String,
}

/// A commit in the binary log that waits for an acknowledgement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    /// Its place in the binary log.
    pub(crate) at: usize,
    pub(crate) who: Waiter,
}

/// Who waits for a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A client, by the number of its write; `cut` when its connection was ended.
    Client { write: u64, cut: bool },
    /// A keeper's order of this number.
    Order(u64),
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) index: usize,
    pub(crate) flavour: Flavour,
    pub(crate) life: Life,
    /// How often it was started.
    pub(crate) incarnation: u32,
    /// When it was started, by a clock that shows [`OLD`] in the beginning.
    pub(crate) started: Duration,
    /// When its last life ended.
    pub(crate) died: Duration,
    pub(crate) binlog: Vec<Txn>,
    /// What is in it.
    pub(crate) logged: Gtids,
    /// The writes in it, for those who check.
    pub(crate) writes: BTreeSet<u64>,
    /// MariaDB's `gtid_slave_pos`.
    pub(crate) slave_pos: Option<(u32, u64)>,
    pub(crate) following: Option<Following>,
    pub(crate) waiting: Vec<Waiting>,
    /// As they are.
    pub(crate) variables: BTreeMap<&'static str, String>,
    /// As they are in the option files.
    pub(crate) option_file: BTreeMap<&'static str, String>,
    /// A start leaves replication stopped.
    pub(crate) skip_start: bool,
    /// How long it takes to apply one transaction.
    pub(crate) apply: Duration,
    /// How long the network towards it takes for one transaction.
    pub(crate) receive: Duration,
    /// Accounts by which nobody may log in here.
    pub(crate) locked: BTreeSet<String>,
    /// An event for the next transaction to apply is on its way.
    pub(crate) applying: bool,
    facts: Option<Arc<ServerFacts>>,
}

/// How long all servers have been up when a simulation begins.
pub(crate) const OLD: Duration = Duration::from_mins(1);

/// For ever, as both families take it.
const FOR_EVER: &str = "4294967295";

// === impls ===

impl Server {
    pub(crate) fn new(index: usize, flavour: Flavour) -> Self {
        let own = match flavour {
            Flavour::MariaDb => MARIADB,
            Flavour::MySql => MYSQL,
        };
        let both =
            [("log_bin", "ON"), ("sync_binlog", "1"), ("innodb_flush_log_at_trx_commit", "1")];
        let all = own.iter().chain(&both).map(|(name, value)| (*name, (*value).to_owned()));
        let mut variables: BTreeMap<&'static str, String> = all.collect();
        variables.insert("server_id", (index + 1).to_string());
        Self {
            index,
            flavour,
            life: Life::Running,
            incarnation: 0,
            started: Duration::ZERO,
            died: Duration::ZERO,
            binlog: Vec::new(),
            logged: Gtids::default(),
            writes: BTreeSet::new(),
            slave_pos: None,
            following: None,
            waiting: Vec::new(),
            option_file: variables.clone(),
            variables,
            skip_start: false,
            apply: Duration::from_millis(2),
            receive: Duration::ZERO,
            locked: BTreeSet::new(),
            applying: false,
            facts: None,
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("db{}", self.index + 1)
    }

    pub(crate) fn id(&self) -> u32 {
        u32::try_from(self.index + 1).expect("few")
    }

    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.variables.get(name).is_some_and(|value| value == "ON")
    }

    /// The name of a switch of semi-synchronous replication in this family's words.
    fn semi(&self, at_source: bool) -> &'static str {
        match (self.flavour, at_source) {
            (Flavour::MariaDb, true) => "rpl_semi_sync_master_enabled",
            (Flavour::MariaDb, false) => "rpl_semi_sync_slave_enabled",
            (Flavour::MySql, true) => "rpl_semi_sync_source_enabled",
            (Flavour::MySql, false) => "rpl_semi_sync_replica_enabled",
        }
    }

    pub(crate) fn asks_for_acknowledgements(&self) -> bool {
        self.is_on(self.semi(true))
    }

    pub(crate) fn acknowledges(&self) -> bool {
        self.is_on(self.semi(false))
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.is_on("read_only") || self.is_on("super_read_only")
    }

    /// MariaDB's applier waits for acknowledgements that nobody gives (V21).
    pub(crate) fn applier_hangs(&self) -> bool {
        self.flavour == Flavour::MariaDb && self.asks_for_acknowledgements()
    }

    pub(crate) fn has(&self, origin: u32, seq: u64) -> bool {
        self.logged.contains(origin, seq)
    }

    /// The number of its next own transaction.
    pub(crate) fn next_seq(&self) -> u64 {
        let last = match self.flavour {
            Flavour::MariaDb => self.binlog.last().map_or(0, |txn| txn.seq),
            Flavour::MySql => self.logged.last_of(self.id()),
        };
        last + 1
    }

    /// Writes to the binary log; a write of a client that is there already was made twice.
    pub(crate) fn log(&mut self, txn: Txn) -> Result<usize, String> {
        if let Some(write) = txn.write
            && !self.writes.insert(write)
        {
            return Err(format!("{} has write {write} twice", self.name()));
        }
        self.logged.insert(txn.origin, txn.seq);
        self.binlog.push(txn);
        Ok(self.binlog.len() - 1)
    }

    /// Cuts the end of the binary log off, as a crash may.
    pub(crate) fn truncate(&mut self, to: usize) {
        let gone: Vec<Txn> = self.binlog.drain(to.min(self.binlog.len())..).collect();
        for write in gone.iter().filter_map(|txn| txn.write) {
            self.writes.remove(&write);
        }
        self.logged = Gtids::default();
        for txn in &self.binlog {
            self.logged.insert(txn.origin, txn.seq);
        }
    }

    pub(crate) fn is_receiving(&self) -> bool {
        self.following.as_ref().is_some_and(|at| matches!(at.receiver, Receiver::Connected(_)))
    }

    /// Whether it lets itself be told of another source, or of none: neither thread runs.
    pub(crate) fn may_be_turned(&self) -> bool {
        self.following.is_none() || self.is_stopped()
    }

    /// Both threads of its replication are stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.following
            .as_ref()
            .is_some_and(|at| at.receiver == Receiver::Stopped && at.applier != Applier::Running)
    }

    /// MariaDB deletes what it has received when a thread starts while none runs (V6).
    pub(crate) fn forget_on_start(&mut self) {
        let by_gtid = self.following.as_ref().is_some_and(|at| at.by_gtid);
        if self.flavour == Flavour::MariaDb && self.is_stopped() && by_gtid {
            self.forget();
        }
    }

    pub(crate) fn forget(&mut self) {
        if let Some(at) = &mut self.following {
            at.relay.clear();
            at.retrieved = Gtids::default();
            (at.left, at.has_content) = (false, false);
        }
    }

    /// MariaDB's `Gtid_IO_Pos`.
    pub(crate) fn io_pos(&self) -> Option<(u32, u64)> {
        let told = self.following.as_ref().filter(|at| !at.left);
        let last = told.and_then(|at| at.relay.last());
        last.map(|txn| (txn.origin, txn.seq)).or(self.slave_pos)
    }

    /// All that it has, as its source is told when it connects.
    pub(crate) fn received(&self) -> Gtids {
        let mut all = self.logged.clone();
        if let Some(at) = &self.following {
            all.union(&at.retrieved);
        }
        all
    }

    fn set(&self, text: &str) -> GtidSet {
        GtidSet::parse(self.flavour, text).expect("a position")
    }

    /// One transaction.
    pub(crate) fn gtid(&self, txn: &Txn) -> GtidSet {
        let (origin, seq) = (txn.origin, txn.seq);
        match self.flavour {
            Flavour::MariaDb => self.position(Some((origin, seq))),
            Flavour::MySql => self.set(&format!("{}:{seq}", uuid(origin))),
        }
    }

    fn position(&self, at: Option<(u32, u64)>) -> GtidSet {
        self.set(&at.map_or(String::new(), |(origin, seq)| format!("0-{origin}-{seq}")))
    }

    /// (executed, applied, received).
    fn positions(&self) -> (GtidSet, GtidSet, GtidSet) {
        match self.flavour {
            Flavour::MariaDb => {
                let last = self.binlog.last().map(|txn| (txn.origin, txn.seq));
                let applied = self.position(self.slave_pos);
                let mut executed = self.position(last);
                executed.union(&applied);
                let mut received = applied.clone();
                if self.following.is_some() {
                    received.union(&self.position(self.io_pos()));
                }
                (executed, applied, received)
            }
            Flavour::MySql => {
                // A commit that waits is not among them yet.
                let waits = self.waiting.first().map(|first| self.binlog[first.at].seq);
                let done = waits.map(|seq| self.logged.before(self.id(), seq));
                let executed = self.set(&done.as_ref().unwrap_or(&self.logged).text(uuid));
                let mut received = executed.clone();
                if let Some(at) = &self.following {
                    received.union(&self.set(&at.retrieved.text(uuid)));
                }
                (executed.clone(), executed, received)
            }
        }
    }

    /// What lies in the relay log of a replica of MariaDB that is stopped.
    fn relay(&self) -> Option<Relay> {
        let at = self.following.as_ref()?;
        if self.flavour == Flavour::MySql || !self.is_stopped() {
            return None;
        }
        let file = || LogPlace { file: "relay.1".to_owned(), at: 4 };
        let last = at.relay.last().map(|txn| (txn.origin, txn.seq));
        let last = last.or(self.slave_pos).filter(|_| at.has_content);
        Some(Relay {
            next: (!at.relay.is_empty()).then(file),
            received: self.position(last),
            outlived: at.left && at.has_content,
        })
    }

    fn sources(&self, read: Option<LogPlace>) -> Vec<Source> {
        let Some(at) = &self.following else { return Vec::new() };
        let source = at.source;
        let id = u32::try_from(source + 1).expect("few");
        let mysql = self.flavour == Flavour::MySql;
        vec![Source {
            host: format!("db{id}"),
            port: 3306,
            server_id: if at.known { id } else { 0 },
            server_uuid: if at.known && mysql { uuid(id) } else { String::new() },
            receiving: matches!(at.receiver, Receiver::Connected(_)),
            receiver_stopped: at.receiver == Receiver::Stopped,
            applying: at.applier == Applier::Running,
            refused: false,
            applier_failed: at.applier == Applier::Failed,
            error: at.error.clone(),
            user: at.user.clone(),
            by_gtid: at.by_gtid,
            seconds_behind: at.relay.is_empty().then_some(0),
            read,
        }]
    }

    /// Its uptime: the seconds of its clock, less the second in which it was started.
    pub(crate) fn uptime(&self, now: Duration) -> u64 {
        (OLD + now).as_secs().saturating_sub(self.started.as_secs())
    }

    /// The place in its binary log before this transaction.
    pub(crate) fn place(&self, at: usize) -> LogPlace {
        LogPlace { file: format!("log.{}", self.incarnation), at: at as u64 }
    }

    /// The accounts that there are for replicas; those that are `used` count as open.
    fn made(&self, used: BTreeSet<String>) -> Made {
        let all = (1..=8).map(own_account).chain([OWN_ACCOUNT.to_owned()]);
        let open = all.filter(|user| !self.locked.contains(user)).chain(used).collect();
        Made { open, locked: self.locked.clone() }
    }

    /// What a keeper is told: `acknowledging` is how many replicas do, `used` by which accounts
    /// they have logged in, `read` how far it has read its source's log.
    pub(crate) fn told(
        &self,
        now: Duration,
        acknowledging: usize,
        used: BTreeSet<String>,
        read: Option<LogPlace>,
    ) -> Told {
        let (executed, applied, received) = self.positions();
        let uptime = self.uptime(now);
        let clients = match self.flavour {
            Flavour::MariaDb => "rpl_semi_sync_master_clients",
            Flavour::MySql => "rpl_semi_sync_source_clients",
        };
        let mut history = MariaDbState::default();
        if self.flavour == Flavour::MariaDb {
            let parts = self.logged.last().map(|(id, seq)| format!("0-{id}-{seq}"));
            let parts: Vec<String> = parts.collect();
            history = MariaDbState::parse(&parts.join(",")).expect("a state");
        }
        let variables = self.variables.iter();
        let relay = self.relay();
        let mut received = received;
        if let Some(relay) = relay.as_ref().filter(|relay| relay.outlived) {
            received.union(&relay.received);
        }
        let is_source = self.following.is_none();
        Told {
            events: None,
            has_no_room: false,
            started: Some(self.started.as_secs()),
            made: is_source.then(|| self.made(used)),
            relay: relay.map(Ok),
            written: (is_source && self.flavour == Flavour::MySql)
                .then(|| self.place(self.binlog.len())),
            flavour: self.flavour,
            version: version(self.flavour),
            variables: variables.map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            counters: [
                ("uptime".to_owned(), uptime.to_string()),
                (clients.to_owned(), acknowledging.to_string()),
            ]
            .into(),
            executed,
            history,
            received,
            applied,
            sources: self.sources(read),
        }
    }

    /// What a probe sees.
    pub(crate) fn seen(&self, facts: Arc<ServerFacts>) -> Seen {
        let (executed, applied, _) = self.positions();
        Seen {
            facts,
            identity: Arc::from(self.name()),
            started: None,
            read_only: self.is_read_only(),
            executed,
            replicated: applied,
            sources: self.sources(None),
            replicas: None,
            note: String::new(),
        }
    }

    pub(crate) fn facts(&mut self) -> Arc<ServerFacts> {
        if let Some(facts) = &self.facts {
            return facts.clone();
        }
        let facts = self.tell_facts();
        self.facts = Some(facts.clone());
        facts
    }

    fn tell_facts(&self) -> Arc<ServerFacts> {
        let mysql = self.flavour == Flavour::MySql;
        Arc::new(ServerFacts {
            flavour: self.flavour,
            version: version(self.flavour),
            version_text: Arc::from(""),
            capabilities: 0,
            mariadb_capabilities: 0,
            collation: 45,
            status: 2,
            auth_plugin: Arc::from("mysql_native_password"),
            server_id: self.id(),
            server_uuid: Arc::from(if mysql { uuid(self.id()) } else { String::new() }),
            max_allowed_packet: 1 << 24,
            wait_timeout: 28_800,
            interactive_timeout: 28_800,
            storage_engine: Arc::from("InnoDB"),
            query_cache: false,
            session_defaults: Arc::from(""),
            trackers: Arc::from(""),
            sql_mode: Arc::from(""),
            max_connections: 151,
            require_secure_transport: false,
            init_connect: false,
            transport: Transport::Clear,
            sees_us_as: Arc::from("localhost"),
        })
    }
}

const MARIADB: &[(&str, &str)] = &[
    ("log_slave_updates", "ON"),
    ("gtid_strict_mode", "ON"),
    ("rpl_semi_sync_master_enabled", "OFF"),
    ("rpl_semi_sync_master_wait_point", "AFTER_SYNC"),
    ("rpl_semi_sync_master_timeout", FOR_EVER),
    ("rpl_semi_sync_master_wait_no_slave", "ON"),
    ("rpl_semi_sync_slave_enabled", "ON"),
    ("read_only", "OFF"),
    ("slave_net_timeout", "4"),
];

const MYSQL: &[(&str, &str)] = &[
    ("log_replica_updates", "ON"),
    ("gtid_mode", "ON"),
    ("enforce_gtid_consistency", "ON"),
    ("rpl_semi_sync_source_enabled", "OFF"),
    ("rpl_semi_sync_source_wait_point", "AFTER_SYNC"),
    ("rpl_semi_sync_source_timeout", FOR_EVER),
    ("rpl_semi_sync_source_wait_no_replica", "ON"),
    ("rpl_semi_sync_source_wait_for_replica_count", "1"),
    ("rpl_semi_sync_replica_enabled", "ON"),
    ("relay_log_recovery", "OFF"),
    ("read_only", "OFF"),
    ("super_read_only", "OFF"),
    ("replica_net_timeout", "4"),
];

fn version(flavour: Flavour) -> u32 {
    match flavour {
        Flavour::MariaDb => 101_119,
        Flavour::MySql => 90_704,
    }
}

fn uuid(id: u32) -> String {
    format!("3e11fa47-71ca-11e1-9e33-{id:012x}")
}
