//! What a server tells, for tests.

use std::sync::Arc;

use crate::failover::record::Record;
use crate::failover::report::{Report, Told};
use crate::topology::gtid::{GtidSet, MariaDbState};
use crate::topology::{Flavour, NodeId};

/// When servers were started, by their own clocks.
pub(crate) const STARTED: u64 = 1_700_000_000;

/// A server that has nothing and follows nobody.
pub(crate) fn told(flavour: Flavour) -> Told {
    Told {
        flavour,
        version: 0,
        variables: [].into(),
        counters: [("uptime".to_owned(), "60".to_owned())].into(),
        executed: GtidSet::default(),
        history: MariaDbState::default(),
        received: GtidSet::default(),
        applied: GtidSet::default(),
        sources: Vec::new(),
        events: None,
        has_no_room: false,
        started: Some(STARTED),
        made: None,
        written: None,
        relay: None,
    }
}

/// What is known of a group of these servers, none of which was started anew since.
pub(crate) fn noted<'a>(names: impl Iterator<Item = &'a str> + Clone, floor: &str) -> Record {
    Record {
        lives: names.clone().map(|name| (name.to_owned(), STARTED)).collect(),
        members: names.map(str::to_owned).collect(),
        floor: floor.to_owned(),
        ..Record::default()
    }
}

/// A server of MariaDB 10.11 that has all of this executed and applied, and follows nobody.
pub(crate) fn mariadb_at(state: &str) -> Told {
    let set = GtidSet::parse_mariadb(state).expect("invariant: tests give positions");
    Told {
        version: 101_119,
        executed: set.clone(),
        history: MariaDbState::parse(state).expect("invariant: tests give states"),
        received: set.clone(),
        applied: set,
        ..told(Flavour::MariaDb)
    }
}

/// The answer of `db<node + 1>`.
pub(crate) fn report(node: u16, told: Told) -> Report {
    Report { node: NodeId(node), name: Arc::from(format!("db{}", node + 1)), told: Ok(told) }
}
