//! How a server gets the data of another: the choice, and what speaks for it. Pure.

use crate::tools::plan::VerbError;
use crate::tools::preflight::{self, Level, Pair};

/// What the operator says about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    /// Whatever the two servers need.
    #[default]
    Auto,
    /// Written as statements on one side and executed on the other, piped from one to the other.
    Logical,
    /// Not at all: it has what it needs.
    None,
}

/// What is done about the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// Data is copied.
    pub(super) copy: bool,
    /// What the server has is given up for that.
    pub(super) overwrite: bool,
    /// A sentence for the operator.
    pub(super) why: String,
}

/// What the operator wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// How.
    pub method: Method,
    /// Whether data of its own may be given up.
    pub overwrite: Overwrite,
}

/// Whether what a server has may be given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Never.
    #[default]
    Refuse,
    /// The operator says so.
    Allow,
}

/// Chooses what is done about the data of the replica. `own` are the transactions that it has and
/// its source has not.
///
/// # Errors
/// When it has data or transactions of its own that nobody said may be given up.
pub(super) fn choose(
    pair: &Pair<'_>,
    wanted: Wanted,
    own: Option<&str>,
) -> Result<Choice, VerbError> {
    let name = &pair.replica.node.name;
    let (told, more) = (pair.replica.told, pair.replica.more);
    let tables: u64 = more.tables.iter().map(|(_, tables)| tables).sum();
    let is_empty = told.executed.is_empty() && tables == 0;
    let chosen = |copy, overwrite, why: String| Ok(Choice { copy, overwrite, why });
    if let Some(own) = own {
        return match wanted.overwrite {
            Overwrite::Allow => {
                chosen(true, true, format!("{name} gives up its own transactions: {own}"))
            }
            Overwrite::Refuse => Err(VerbError::Refused(format!(
                "{name} has transactions that its source has not: {own}; look at them, then \
                 --overwrite gives them up"
            ))),
        };
    }
    if wanted.method == Method::None {
        return chosen(false, false, format!("{name} is said to have what it needs"));
    }
    if is_empty {
        return chosen(
            true,
            false,
            format!("{name} is empty: it gets its source's data as a dump"),
        );
    }
    let logs = preflight::needed_logs(pair);
    let continues = !told.executed.is_empty() && logs.level != Level::Fail;
    match (continues, wanted) {
        (true, Wanted { method: Method::Auto, overwrite: Overwrite::Refuse }) => {
            let why = format!("{name} has its source's data up to {}: it goes on", told.executed);
            chosen(false, false, why)
        }
        (_, Wanted { overwrite: Overwrite::Allow, .. }) => {
            chosen(true, true, format!("{name} gives up its {tables} tables for its source's data"))
        }
        (true, Wanted { overwrite: Overwrite::Refuse, .. }) => Err(VerbError::Refused(format!(
            "{name} has data already, up to {}; --overwrite gives it up",
            told.executed
        ))),
        (false, Wanted { overwrite: Overwrite::Refuse, .. }) => {
            let why = if told.executed.is_empty() {
                format!("{tables} tables that came by no transaction of the group")
            } else {
                logs.found
            };
            Err(VerbError::Refused(format!(
                "{name} cannot go on from what it has: {why}; --overwrite gives it up"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::fixture;
    use crate::failover::report::Told;
    use crate::tools::preflight::{Inspection, Side};
    use crate::topology::Flavour;
    use crate::topology::fixture::node;
    use crate::topology::gtid::GtidSet;
    use std::time::Duration;

    const OVERWRITE: Wanted = Wanted { method: Method::Auto, overwrite: Overwrite::Allow };

    /// The choice for a replica that has executed this and has so many tables, of a source that has
    /// purged up to `purged`.
    fn chosen(
        executed: &str,
        tables: u64,
        purged: &str,
        wanted: Wanted,
        own: Option<&str>,
    ) -> Result<Choice, String> {
        let set = |text| GtidSet::parse_mariadb(text).expect("a position");
        let told = fixture::told(Flavour::MariaDb);
        let source = Told { executed: set("0-1-9"), ..told.clone() };
        let replica = Told { executed: set(executed), ..told };
        let there = Inspection { before_oldest: Some(set(purged)), ..Inspection::default() };
        let tables = if tables == 0 { Vec::new() } else { vec![("app".to_owned(), tables)] };
        let here = Inspection { tables, ..Inspection::default() };
        let (one, two) = (node(0, "db1"), node(1, "db2"));
        let pair = Pair {
            source: Side { node: &one, told: &source, more: &there },
            replica: Side { node: &two, told: &replica, more: &here },
            max_lag: Duration::from_secs(10),
        };
        choose(&pair, wanted, own).map_err(|error| error.to_string())
    }

    fn does(copy: bool, overwrite: bool) -> impl Fn(Result<Choice, String>) -> bool {
        move |choice| choice.is_ok_and(|at| at.copy == copy && at.overwrite == overwrite)
    }

    #[test]
    fn only_an_empty_server_gets_data_unasked() {
        let usual = Wanted::default();
        assert!(does(true, false)(chosen("", 0, "0-1-5", usual, None)));
        // It has a part of the history, and the logs for the rest are there.
        assert!(does(false, false)(chosen("0-1-7", 3, "0-1-5", usual, None)));
        let purged = chosen("0-1-4", 3, "0-1-5", usual, None).expect_err("purged");
        assert!(purged.contains("up to 0-1-5") && purged.contains("--overwrite"), "{purged}");
        let strange = chosen("", 3, "", usual, None).expect_err("tables from nowhere");
        assert!(strange.contains("3 tables"), "{strange}");
        let logical = Wanted { method: Method::Logical, ..usual };
        assert!(chosen("0-1-7", 3, "", logical, None).is_err());
        let none = Wanted { method: Method::None, ..usual };
        assert!(does(false, false)(chosen("", 0, "", none, None)));
    }

    #[test]
    fn what_a_server_has_of_its_own_is_given_up_only_by_order() {
        let own = Some("0-2-8");
        let refused = chosen("0-2-8", 1, "", Wanted::default(), own).expect_err("its own");
        assert!(refused.contains("0-2-8") && refused.contains("--overwrite"), "{refused}");
        assert!(does(true, true)(chosen("0-2-8", 1, "", OVERWRITE, own)));
        assert!(does(true, true)(chosen("", 3, "", OVERWRITE, None)));
    }
}
