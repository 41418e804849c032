//! EXPLAIN ROUTE: where a new session would run a statement now, and why. Nothing is executed.

use crate::admin::table::Table;
use crate::control::{Control, ControlError};
use crate::router::ast::{self, Reading};
use crate::router::policy::{self, Decision, Freshness, Held, Target, View};
use crate::router::{Dialect, Kind, Reason, classify, digest};
use crate::topology::gtid::GtidSet;
use crate::topology::{Flavour, Topology};

/// Decides for `sql` as for a session that has just logged in and has written nothing.
///
/// # Errors
/// When there is no such group, or there are several and none is named.
pub fn route(control: &Control, group: Option<&str>, sql: &str) -> Result<Table, ControlError> {
    let group = control.group(group)?;
    let topology = group.topology();
    let config = control.config();
    let settings = config.groups.iter().find(|settings| settings.name == group.name);
    let settings = settings.ok_or_else(|| ControlError::NoGroup(group.name.to_string()))?;
    // Without any probe yet the family is unknown; the older MariaDB reads most texts as code.
    let dialect = topology.facts().map_or_else(
        || Dialect::plain(Flavour::MariaDb, 100_600),
        |facts| Dialect::of_server(facts),
    );
    let class = classify(sql.as_bytes(), &dialect);
    let nothing = GtidSet::default();
    let decision = policy::route(&class, &new_session(&nothing), &topology, settings, &|_| 0, 0);
    let kind = match class.kind {
        Kind::Read => "a plain read",
        Kind::Primary => "for the primary",
        Kind::Last => "about the previous statement",
    };
    let mut table = Table::new(&["property", "value"]);
    let mut say = |property: &str, value: String| table.push([property.into(), value.into()]);
    say("group", group.name.to_string());
    say("runs_on", place(&decision, &topology));
    say("reason", decision.reason.word().to_owned());
    say("because", because(decision.reason).to_owned());
    say("before_it", before(&decision).to_owned());
    say("the_text_is", kind.to_owned());
    say("verb", format!("{:?}", class.verb).to_ascii_lowercase());
    say("digest", format!("{:016x}", class.digest));
    say("normalised", digest::text(sql.as_bytes(), &dialect));
    match ast::read(sql) {
        Reading::Parsed { tables, functions } => {
            say("tables", tables.join(", "));
            say("functions", functions.join(", "));
        }
        Reading::Refused(why) => say("sqlparser", format!("cannot read it ({why})")),
        Reading::TooLong => say("sqlparser", "not asked: the text is too long".to_owned()),
    }
    Ok(table)
}

/// A session without transaction, pins or history.
fn new_session(nothing: &GtidSet) -> View<'_> {
    View {
        pin: None,
        in_transaction: false,
        autocommit: true,
        serializable: false,
        last: None,
        replica: None,
        token: nothing,
        floor: None,
        caught_up: None,
        user_vars_restorable: true,
        has_defined: false,
        refused_before: false,
        avoid: 0,
        settings_changed: None,
        tables_locked: false,
    }
}

fn place(decision: &Decision, topology: &Topology) -> String {
    match decision.target {
        Target::Primary | Target::Held(Held::Primary) => match topology.primary_node() {
            Some(node) => format!("{} (the primary)", node.name),
            None => format!("the primary, once there is one ({})", topology.no_primary_why),
        },
        Target::Held(Held::Replica) => "the replica that the session has".to_owned(),
        Target::Replica { node, .. } => {
            let name = topology.node(node).map_or("?", |node| &*node.name);
            format!("{name} (a replica; another one may be chosen for the next)")
        }
    }
}

fn before(decision: &Decision) -> &'static str {
    match decision.target {
        Target::Replica { freshness: Freshness::Wait, .. } => {
            "waits there until the session's last write is applied"
        }
        Target::Replica { freshness: Freshness::AskThenWait, .. } => {
            "asks the primary for its position, then waits for that on the replica"
        }
        Target::Replica { freshness: Freshness::Known, .. } | Target::Primary | Target::Held(_) => {
            "nothing"
        }
    }
}

/// A reason as a sentence.
#[must_use]
pub fn because(reason: Reason) -> &'static str {
    match reason {
        Reason::PlainRead => "it is proven to be a plain read, and this replica is fresh enough",
        Reason::ReadOnlyTransaction => "it begins a read-only transaction: one replica runs it all",
        Reason::Write => "it writes, or may",
        Reason::LockingRead => "it takes row locks",
        Reason::Function => "it calls a function that is unknown, qualified, or has effects",
        Reason::SessionState => "it reads or changes state that only the primary's link has",
        Reason::HostLocal => "only the primary can answer for itself",
        Reason::Undecided => "it could not be proven to be a plain read",
        Reason::TooLarge => "it is larger than inspect_limit",
        Reason::Transaction => "a transaction is open, or autocommit is off",
        Reason::Pinned => "the session is pinned; SHOW SESSIONS tells why",
        Reason::PreviousStatement => "it asks about the previous statement and follows it",
        Reason::Hint => "a hint in a comment says so",
        Reason::NoReplica => "no replica is usable: down, drained, excluded, or weight 0",
        Reason::SettingsDiffer => "the replicas have other settings than the primary",
        Reason::Lagging => "all usable replicas are further behind than max_lag",
        Reason::NotCaughtUp => "no replica had the session's last write within replica_wait",
        Reason::PrimaryShare => "primary_read_percent gives this share of reads to the primary",
        Reason::RefusedBefore => "a replica has refused this statement as a write before",
        Reason::Command => "it is a command that only the primary serves",
    }
}
