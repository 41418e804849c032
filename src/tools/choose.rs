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
