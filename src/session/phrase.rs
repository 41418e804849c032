//! The texts of our own commands on a link, as each flavour wants them.

use std::time::Duration;

use crate::router::policy::Held;
use crate::topology::gtid::GtidSet;
use crate::topology::{Flavour, ServerFacts};

/// The variable by which a session uses MariaDB's query cache; its trackers depend on it.
pub(super) const QUERY_CACHE: &[u8] = b"query_cache_type";

/// What lists a mark of ours on a link.
pub(super) const MARK: &[u8] =
    b"SIGNAL SQLSTATE '01000' SET MESSAGE_TEXT='this session has warnings elsewhere'";

/// What tells whether it is there; it leaves it.
pub(super) const MARKS: &str = "@@warning_count";

/// The trackers that are switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrackerSet {
    /// All but that of GTIDs.
    Plain,
    /// The same, without that of transactions while the session uses the query cache: MariaDB
    /// serves nothing from the cache where it is on (measured with 10.11).
    Cacheable,
    /// All.
    WithGtids,
}

impl TrackerSet {
    /// Those of a link to such a server.
    pub(super) fn of(facts: &ServerFacts) -> Self {
        match facts.flavour {
            Flavour::MySql => Self::WithGtids,
            Flavour::MariaDb if facts.query_cache => Self::Cacheable,
            Flavour::MariaDb => Self::Plain,
        }
    }

    /// The statement that switches them on.
    pub(super) fn statement(self) -> Vec<u8> {
        let transactions = match self {
            Self::Plain | Self::WithGtids => "'CHARACTERISTICS'",
            Self::Cacheable => "IF(@@query_cache_type='OFF','CHARACTERISTICS','OFF')",
        };
        let gtids = match self {
            Self::Plain | Self::Cacheable => "",
            Self::WithGtids => ", session_track_gtids='OWN_GTID'",
        };
        format!(
            "SET SESSION session_track_system_variables='*', session_track_schema=1, \
             session_track_state_change=1, session_track_transaction_info={transactions}{gtids}"
        )
        .into_bytes()
    }
}

/// What a fresh link is told before it serves: trackers on, and on a replica the safety net
/// under which a misrouted write fails (1792) instead of writing (ground rule G3).
#[must_use]
pub fn setup_statement(facts: &ServerFacts, slot: Held) -> Vec<u8> {
    let mut sql = TrackerSet::of(facts).statement();
    if slot == Held::Replica {
        let old_name = facts.flavour == Flavour::MariaDb && facts.version < 110_100;
        let name = if old_name { "tx_read_only" } else { "transaction_read_only" };
        sql.extend_from_slice(format!(", {name}=1").as_bytes());
    }
    sql
}

/// What sets LAST_INSERT_ID on a link (`None`: leaves it). MySQL forgets the warnings of before
/// over it, MariaDB only over a statement that uses a table.
pub(super) fn insert_id_statement(
    flavour: Flavour,
    insert_id: Option<u64>,
    empties_list: bool,
) -> Vec<u8> {
    let insert_id = insert_id.map_or_else(|| "@@last_insert_id".to_owned(), |id| id.to_string());
    match flavour {
        Flavour::MariaDb if empties_list => format!(
            "SET last_insert_id=(SELECT {insert_id} FROM information_schema.CHARACTER_SETS LIMIT 1)"
        ),
        Flavour::MariaDb | Flavour::MySql => format!("SET last_insert_id={insert_id}"),
    }
    .into_bytes()
}

/// What finds as many rows, and empties the list of warnings or keeps it. A product of a few
/// derived tables is looked through only as far as its limit; constants use no table, over which
/// MariaDB keeps the list (10.11, measured).
pub(super) fn rows_statement(rows: u64, keeps_list: bool) -> Vec<u8> {
    const TEN: &str = "(SELECT 1 UNION ALL SELECT 1 UNION ALL SELECT 1 UNION ALL SELECT 1 \
        UNION ALL SELECT 1 UNION ALL SELECT 1 UNION ALL SELECT 1 UNION ALL SELECT 1 \
        UNION ALL SELECT 1 UNION ALL SELECT 1)";
    if keeps_list {
        let count = usize::try_from(rows.max(1)).unwrap_or(usize::MAX);
        let constants = vec!["SELECT 1"; count].join(" UNION ALL ");
        return format!("{constants} LIMIT {rows}").into_bytes();
    }
    let digits = rows.saturating_sub(1).checked_ilog10().unwrap_or(0) as usize + 1;
    let tens: Vec<String> = (0..digits).map(|n| format!("{TEN} t{n}")).collect();
    format!("SELECT 1 FROM {} LIMIT {rows}", tens.join(", ")).into_bytes()
}

/// What a server is asked for its position.
pub(super) fn position_expression(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::MariaDb => "@@global.gtid_binlog_pos",
        Flavour::MySql => "@@global.gtid_executed",
    }
}

/// What waits on a replica until it has applied `token`; answers 0 when it has.
pub(super) fn wait_expression(flavour: Flavour, token: &GtidSet, wait: Duration) -> String {
    // Never 0: both functions take that for "for ever".
    let seconds = wait.max(Duration::from_millis(1)).as_secs_f64();
    match flavour {
        Flavour::MariaDb => format!("MASTER_GTID_WAIT('{token}', {seconds:.3})"),
        Flavour::MySql => format!("WAIT_FOR_EXECUTED_GTID_SET('{token}', {seconds:.3})"),
    }
}
