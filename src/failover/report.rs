//! What a server says of itself that matters for who is the primary, as plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::failover::event::Event;
use crate::failover::relay::Relay;
use crate::health::observation::{Failure, LogPlace, Source};
use crate::topology::gtid::{GtidSet, MariaDbState};
use crate::topology::{Flavour, Node, NodeId};

/// The variable that tells servers apart.
pub const SERVER_ID: &str = "server_id";
/// The variable that MySQL's transactions are named after.
pub const SERVER_UUID: &str = "server_uuid";
/// The variable that keeps clients from writing.
pub const READ_ONLY: &str = "read_only";
/// The same of MySQL, which keeps everybody from it.
pub const SUPER_READ_ONLY: &str = "super_read_only";

/// The variable by which a replica begins its relay log anew when it is started.
pub const RELAY_LOG_RECOVERY: &str = "relay_log_recovery";

/// The variable that says after how many events a replica has its relay log written to the disk.
pub const SYNC_RELAY_LOG: &str = "sync_relay_log";

/// One server's answer, or why there is none.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which server.
    pub node: NodeId,
    /// The operator's name for it.
    pub name: Arc<str>,
    /// What it told, or what went wrong.
    pub told: Result<Told, Failure>,
}

/// What a server told.
#[derive(Debug, Clone)]
pub struct Told {
    /// Which family.
    pub flavour: Flavour,
    /// As in `/*!NNNNN */`.
    pub version: u32,
    /// Global variables by name in lower case; one that the server does not have is missing.
    pub variables: BTreeMap<String, String>,
    /// Status counters, likewise.
    pub counters: BTreeMap<String, String>,
    /// The second in which it was started, by its own clock, since 1970.
    pub started: Option<u64>,
    /// All that it has executed, its own writes included.
    pub executed: GtidSet,
    /// The same by originating server, on MariaDB; empty on MySQL.
    pub history: MariaDbState,
    /// All that it has received of its source, applied or not; what it has applied where it has
    /// no source.
    pub received: GtidSet,
    /// What it has applied of what it received.
    pub applied: GtidSet,
    /// The servers that it was told to replicate from.
    pub sources: Vec<Source>,
    /// The events of its scheduler; `None` where that was refused, and of a replica.
    pub events: Option<Vec<Event>>,
    /// A commit waits there for room on a disk.
    pub has_no_room: bool,
    /// The accounts that pointsman has made there for replicas; `None` where that was refused, and
    /// of a replica.
    pub made: Option<Made>,
    /// Where its binary log ended, on MySQL and where an account of [`Self::made`] is locked.
    pub written: Option<LogPlace>,
    /// What lies in its relay log, or why that cannot be said: of a replica of MariaDB both of
    /// whose threads are stopped, while a server of the group is down.
    pub relay: Option<Result<Relay, String>>,
}

/// Accounts of our own making on one server, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// Those by which one may log in, or somebody has.
    pub open: BTreeSet<String>,
    /// Those that are locked.
    pub locked: BTreeSet<String>,
}

// === impls ===

/// What this server told, if it did.
#[must_use]
pub fn told_by(reports: &[Report], node: NodeId) -> Option<&Told> {
    reports.iter().find(|report| report.node == node).and_then(Report::told)
}

/// Whether a source is this server: by its address, or by the id that the server has told.
#[must_use]
pub fn is_at(source: &Source, node: &Node, told: Option<&Told>) -> bool {
    let same_id = told.is_some_and(|told| told.server_id() == source.server_id);
    source.address() == *node.address || source.server_id != 0 && same_id
}

impl Report {
    /// What it told, if it did.
    #[must_use]
    pub fn told(&self) -> Option<&Told> {
        self.told.as_ref().ok()
    }
}

impl Told {
    /// Its link to this server, whatever state that is in; `told` is what that server has told.
    #[must_use]
    pub fn link_to(&self, node: &Node, told: Option<&Self>) -> Option<&Source> {
        self.sources.iter().find(|source| is_at(source, node, told))
    }

    /// Whether it is connected to a source.
    #[must_use]
    pub fn receives(&self) -> bool {
        self.sources.iter().any(|source| source.receiving)
    }

    /// The value of a variable, under whichever of these names the server has it.
    #[must_use]
    pub fn variable(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.variables.get(*name)).map(String::as_str)
    }

    /// The value of a counter, likewise; `None` too when it is no number.
    #[must_use]
    pub fn counter(&self, names: &[&str]) -> Option<u64> {
        names.iter().find_map(|name| self.counters.get(*name)).and_then(|text| text.parse().ok())
    }

    /// Whether it may have been started within this time: its seconds begin with those of the
    /// clock, so that one may be over at once.
    #[must_use]
    pub fn may_have_started_within(&self, time: Duration) -> bool {
        let uptime = self.counter(&["uptime"]).map(Duration::from_secs);
        uptime.is_some_and(|uptime| uptime < time.saturating_add(Duration::from_secs(1)))
    }

    /// Whether both of its threads are stopped, so that the next start of one deletes what it has
    /// received and not applied (V6).
    #[must_use]
    pub fn rests(&self) -> bool {
        let rests = |source: &Source| source.receiver_stopped && !source.applying;
        self.flavour == Flavour::MariaDb && matches!(self.sources.as_slice(), [it] if rests(it))
    }

    /// Whether it asks its sources for transactions by GTID.
    #[must_use]
    pub fn goes_by_gtid(&self) -> bool {
        self.sources.iter().all(|source| source.by_gtid)
    }

    /// Whether it may have been told to apply what a restart has left in its relay log: it does
    /// not go by GTID then, and does not tell what it had received.
    #[must_use]
    pub fn may_be_rescued(&self) -> bool {
        let by_file = |source: &Source| source.receiver_stopped && !source.by_gtid;
        self.flavour == Flavour::MariaDb && matches!(self.sources.as_slice(), [it] if by_file(it))
    }

    /// Whether it has received from this server, which has told `head`, what that had not executed
    /// when it was asked. It is known by its address where its id is not told: MariaDB tells that
    /// once it has connected.
    #[must_use]
    pub fn is_ahead_of(&self, node: &Node, head: &Self) -> bool {
        self.link_to(node, Some(head)).is_some() && self.has_more_than(head)
    }

    /// Whether it has received, from whomever, what that server had not executed when it was asked.
    #[must_use]
    pub fn has_more_than(&self, other: &Self) -> bool {
        !other.executed.contains(&self.received)
    }

    /// Whether it may have deleted what it had acknowledged and not applied, and not fetched it
    /// again: MariaDB does when its threads start after it was started (V6), MySQL when it is
    /// started with `relay_log_recovery` (V9). `noted` is when it had been started, by its own
    /// clock, when it was last noted what it has to fetch.
    #[must_use]
    pub fn may_have_forgotten(&self, noted: Option<&u64>) -> bool {
        let forgets = match self.flavour {
            Flavour::MariaDb => !matches!(&self.relay, Some(Ok(relay)) if relay.outlived),
            Flavour::MySql => self.is_on(RELAY_LOG_RECOVERY),
        };
        forgets && (noted.is_none() || noted != self.started.as_ref())
    }

    /// Whether it deletes what is in its log and not in its tables when it is started after a
    /// crash: MariaDB does where `init_rpl_role` is SLAVE and it acknowledges (V2). Of the first
    /// tells `Rpl_status`, which is AUTH_MASTER otherwise (10.11, measured).
    #[must_use]
    pub fn deletes_at_start(&self) -> bool {
        let role = self.counters.get("rpl_status").map(String::as_str);
        self.flavour == Flavour::MariaDb && role != Some("AUTH_MASTER")
    }

    /// Whether what it has received is on the disk when it is acknowledged.
    #[must_use]
    pub fn keeps_relay_log(&self) -> bool {
        self.variable(&[SYNC_RELAY_LOG]) == Some("1")
    }

    /// Whether this variable is on.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.variable(&[name]).is_some_and(|value| matches!(value, "ON" | "1"))
    }

    /// Whether it takes no writes of clients.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.is_on(READ_ONLY) || self.is_on(SUPER_READ_ONLY)
    }

    /// Whether it replicates, or has replicated, from this server.
    #[must_use]
    pub fn follows(&self, source: &Self) -> bool {
        self.sources.iter().any(|at| at.server_id == source.server_id())
    }

    /// Whether it may follow this server: one that was just started may not have reached its source
    /// yet, and tells of an id only then.
    #[must_use]
    pub fn may_follow(&self, source: &Self) -> bool {
        self.follows(source) || self.sources.iter().any(|at| at.server_id == 0)
    }

    /// Its `server_id`; 0 when it did not say.
    #[must_use]
    pub fn server_id(&self) -> u32 {
        self.variable(&[SERVER_ID]).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// What it has received, without what was written there, of which no primary has told anybody.
    /// (MariaDB does not count that as received.)
    #[must_use]
    pub fn received_from_others(&self) -> GtidSet {
        match self.variable(&[SERVER_UUID]) {
            Some(uuid) => self.received.without_source(uuid),
            None => self.received.clone(),
        }
    }

    /// The transactions that nobody else can have given it: written here, behind the primary's
    /// back. Empty text for none. `others` are the reports of the other servers, `known` is what
    /// those that are silent now had executed when they were last seen. What came from its source
    /// is never among them: the source may be ahead of its own report.
    ///
    /// On MariaDB with strict GTIDs a write of its own stops replication in that domain, so that
    /// what lies before the last replicated transaction is none.
    #[must_use]
    pub fn errant(&self, others: &[&Self], known: &GtidSet) -> String {
        match self.flavour {
            Flavour::MariaDb => {
                let mut history = MariaDbState::default();
                for other in others {
                    history.union(&other.history);
                }
                let sources: Vec<u32> = self.sources.iter().map(|at| at.server_id).collect();
                let left = self.history.beyond(&history, &sources);
                match self.variable(&["gtid_strict_mode"]) {
                    Some("ON" | "1") => left.after(&self.applied).to_string(),
                    _ => left.to_string(),
                }
            }
            Flavour::MySql => {
                let mut left = self.executed.subtract(known);
                for other in others {
                    left = left.subtract(&other.executed);
                }
                for source in &self.sources {
                    left = left.without_source(&source.server_uuid);
                }
                left.to_string()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::fixture;

    #[test]
    fn what_somebody_has_written_on_a_replica_was_not_received() {
        let [source, own] =
            ["3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"];
        let set = |text: &str| GtidSet::parse(Flavour::MySql, text).expect("a set");
        let received = set(&format!("{source}:1-9,{own}:1"));
        let mut told = Told { received: received.clone(), ..fixture::told(Flavour::MySql) };
        assert_eq!(told.received_from_others(), received, "whose it is was not told");
        told.variables.insert(SERVER_UUID.to_owned(), own.to_owned());
        assert_eq!(told.received_from_others(), set(&format!("{source}:1-9")));
    }

    #[test]
    fn a_server_that_says_one_second_may_have_been_started_just_now() {
        let mut told = fixture::told(Flavour::MariaDb);
        told.counters.insert("uptime".to_owned(), "1".to_owned());
        assert!(told.may_have_started_within(Duration::from_millis(10)));
        assert!(!told.may_have_started_within(Duration::ZERO));
    }
}
