//! Events of a server's scheduler. On a replica they rest, whether they run on its source or not
//! (V15): so it is written down which do while the primary is well, and another primary is told to
//! let these run again.

use crate::topology::Flavour;

/// An event, as its server tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its schema and its name, as they stand in statements.
    pub name: String,
    /// Whose rights it has, as it stands in statements.
    pub definer: String,
    /// What becomes of it.
    pub state: State,
}

/// What becomes of an event when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Runs,
    /// It does not: it came from a source.
    Rests,
    /// It does not: somebody has said so here.
    Disabled,
}

// === impls ===

/// How to ask for all of them: the account may look into `mysql.event` on MariaDB, and has the
/// right EVENT on MySQL, which tells of no event otherwise.
#[must_use]
pub fn question(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::MariaDb => "SELECT db, name, definer, status FROM mysql.event",
        Flavour::MySql => {
            "SELECT event_schema, event_name, definer, status FROM information_schema.events"
        }
    }
}

impl Event {
    /// From the columns of an answer to [`question`]; `None` where they are not understood.
    #[must_use]
    pub fn of([schema, name, definer, status]: &[String; 4]) -> Option<Self> {
        let (user, host) = definer.rsplit_once('@')?;
        let state = match status.as_str() {
            "ENABLED" => State::Runs,
            "DISABLED" => State::Disabled,
            // SLAVESIDE_DISABLED, or REPLICA_SIDE_DISABLED.
            _ => State::Rests,
        };
        Some(Self {
            name: format!("{}.{}", quoted(schema), quoted(name)),
            definer: format!("{}@{}", quoted(user), quoted(host)),
            state,
        })
    }

    /// What lets it run, with the rights that it had.
    #[must_use]
    pub fn enable(&self) -> String {
        format!("ALTER DEFINER = {} EVENT {} ENABLE", self.definer, self.name)
    }
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
