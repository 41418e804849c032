//! The console's commands: one table of names, syntax and help, and what each of them does.

use std::sync::Arc;

use crate::admin::parse::Arguments;
use crate::admin::table::Table;
use crate::admin::{explain, show};
use crate::control::{Control, ControlError, GroupControl};
use crate::failover::keeper;
use crate::health;
use crate::metrics::Metrics;

/// One command of the console.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The words by which it is known.
    pub name: &'static str,
    /// How it is written.
    pub syntax: &'static str,
    /// What it does, in a sentence.
    pub help: &'static str,
    /// Whether it changes anything.
    pub access: Access,
    /// Reads what follows the name; the error says what is wrong with it.
    pub build: fn(&mut Arguments<'_>) -> Result<AdminCommand, String>,
}

/// What a command may do; shown in HELP and in the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It only shows.
    Read,
    /// It changes how the proxy works.
    Operate,
}

/// A command with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "TABLE says what each of them does")]
pub enum AdminCommand {
    ShowServers,
    ShowSessions,
    ShowPools,
    ShowStats,
    ShowDigests,
    ShowConfig,
    ShowTopology,
    ShowCluster,
    ShowVersion,
    ExplainRoute { group: Option<String>, sql: String },
    Override { server: String, what: Override },
    SetWeight { server: String, weight: u32 },
    SwitchOver { group: Option<String>, to: Option<String> },
    ExplainSwitchOver { group: Option<String>, to: Option<String> },
    FailOver { group: Option<String> },
    Maintain { group: Option<String>, on: bool },
    Kill { id: u32 },
    Reload,
    Help { topic: Option<String> },
}

/// What an operator may say about a server; it stands until the opposite is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Override {
    /// No new work; running work finishes.
    Drain,
    /// The end of a drain.
    Undrain,
    /// No work at all.
    Exclude,
    /// The end of an exclusion.
    Include,
}

/// What the commands work on.
#[derive(Debug, Clone)]
pub struct Console {
    /// The way to the owners of things.
    pub control: Control,
    /// The counters.
    pub metrics: Arc<Metrics>,
}

/// Largest weight that can be given to a server, as in the configuration.
const WEIGHT_MAX: u32 = 10_000;

/// Every command. A longer name stands before its own beginning.
pub const TABLE: &[Entry] = &[
    read(
        "SHOW SERVERS",
        "SHOW SERVERS",
        "Every server: role, condition, weight, lag, traffic.",
        |_| Ok(AdminCommand::ShowServers),
    ),
    read(
        "SHOW SESSIONS",
        "SHOW SESSIONS",
        "Every client session: who, where, what it is doing, and why it may not move (pins).",
        |_| Ok(AdminCommand::ShowSessions),
    ),
    read("SHOW POOLS", "SHOW POOLS", "Connections to servers by user, idle and in use.", |_| {
        Ok(AdminCommand::ShowPools)
    }),
    read("SHOW STATS", "SHOW STATS", "Every counter that is not zero, as in /metrics.", |_| {
        Ok(AdminCommand::ShowStats)
    }),
    read(
        "SHOW DIGESTS",
        "SHOW DIGESTS",
        "Statements without their literals: count, errors, latency, where they ran and why.",
        |_| Ok(AdminCommand::ShowDigests),
    ),
    read("SHOW CONFIG", "SHOW CONFIG", "Every setting in force; passwords are hidden.", |_| {
        Ok(AdminCommand::ShowConfig)
    }),
    read("SHOW TOPOLOGY", "SHOW TOPOLOGY", "Each group as a tree: primary, replicas.", |_| {
        Ok(AdminCommand::ShowTopology)
    }),
    read(
        "SHOW CLUSTER",
        "SHOW CLUSTER",
        "What a failover would lose, what is missing so far, and who would be promoted.",
        |_| Ok(AdminCommand::ShowCluster),
    ),
    read("SHOW VERSION", "SHOW VERSION", "The version, and how long it has been running.", |_| {
        Ok(AdminCommand::ShowVersion)
    }),
    read(
        "EXPLAIN ROUTE",
        "EXPLAIN ROUTE [IN group] statement",
        "Where a new session would run this statement now, and why. Nothing is executed.",
        explain_route,
    ),
    read(
        "EXPLAIN SWITCHOVER",
        "EXPLAIN SWITCHOVER [group] [TO server]",
        "Says which server SWITCHOVER would make the primary, or why it would not.",
        |arguments| {
            let (group, to) = from_group_to(arguments)?;
            Ok(AdminCommand::ExplainSwitchOver { group, to })
        },
    ),
    operate(
        "DRAIN",
        "DRAIN [group.]server",
        "Gives a server no new work; what runs there finishes. Survives probes.",
        |arguments| overriding(arguments, Override::Drain),
    ),
    operate("UNDRAIN", "UNDRAIN [group.]server", "Ends a drain.", |arguments| {
        overriding(arguments, Override::Undrain)
    }),
    operate(
        "EXCLUDE",
        "EXCLUDE [group.]server",
        "Takes a server out of use at once, whatever the probes say.",
        |arguments| overriding(arguments, Override::Exclude),
    ),
    operate("INCLUDE", "INCLUDE [group.]server", "Ends an exclusion.", |arguments| {
        overriding(arguments, Override::Include)
    }),
    operate(
        "SET WEIGHT",
        "SET WEIGHT [group.]server number",
        "Changes a server's share of reads until the next reload; 0 takes none.",
        |arguments| {
            let server = arguments.required("the server")?.to_owned();
            let weight = arguments.number("the weight", WEIGHT_MAX)?;
            Ok(AdminCommand::SetWeight { server, weight })
        },
    ),
    operate(
        "SWITCHOVER",
        "SWITCHOVER [group] [TO server]",
        "Makes another server the primary, while the present one is well. Writes wait meanwhile.",
        |arguments| {
            let (group, to) = from_group_to(arguments)?;
            Ok(AdminCommand::SwitchOver { group, to })
        },
    ),
    operate(
        "FAILOVER",
        "FAILOVER [group]",
        "Replaces a primary that is dead now, whatever failover.mode and anti_flap say.",
        |arguments| Ok(AdminCommand::FailOver { group: arguments.word().map(str::to_owned) }),
    ),
    operate(
        "MAINTENANCE ON",
        "MAINTENANCE ON [group]",
        "No failover by itself, and nothing is set up, until it is OFF. Outlives restarts.",
        |arguments| {
            Ok(AdminCommand::Maintain { group: arguments.word().map(str::to_owned), on: true })
        },
    ),
    operate(
        "MAINTENANCE OFF",
        "MAINTENANCE OFF [group]",
        "The group is kept again.",
        |arguments| {
            Ok(AdminCommand::Maintain { group: arguments.word().map(str::to_owned), on: false })
        },
    ),
    operate("KILL", "KILL [CONNECTION] id", "Closes a client session of SHOW SESSIONS.", kill),
    operate(
        "RELOAD",
        "RELOAD",
        "Reads the configuration again and applies it, or refuses it whole.",
        |_| Ok(AdminCommand::Reload),
    ),
    read(
        "HELP",
        "HELP [command]",
        "This list, or one command of it; HELP CONTENTS where the client answers HELP itself.",
        |arguments| {
            let topic = Some(arguments.remainder().trim()).filter(|topic| !topic.is_empty());
            Ok(AdminCommand::Help { topic: topic.map(str::to_owned) })
        },
    ),
];

// === reading arguments ===

type Build = fn(&mut Arguments<'_>) -> Result<AdminCommand, String>;

const fn read(name: &'static str, syntax: &'static str, help: &'static str, build: Build) -> Entry {
    Entry { name, syntax, help, access: Access::Read, build }
}

const fn operate(
    name: &'static str,
    syntax: &'static str,
    help: &'static str,
    build: Build,
) -> Entry {
    Entry { name, syntax, help, access: Access::Operate, build }
}

fn explain_route(arguments: &mut Arguments<'_>) -> Result<AdminCommand, String> {
    let group = match arguments.keyword("IN") {
        true => Some(arguments.required("the group")?.to_owned()),
        false => None,
    };
    match arguments.remainder() {
        "" => Err("the statement is missing".to_owned()),
        sql => Ok(AdminCommand::ExplainRoute { group, sql: sql.to_owned() }),
    }
}

fn overriding(arguments: &mut Arguments<'_>, what: Override) -> Result<AdminCommand, String> {
    let server = arguments.required("the server")?.to_owned();
    Ok(AdminCommand::Override { server, what })
}

/// A group, where one is named, and a server, where one is.
type GroupAndServer = (Option<String>, Option<String>);

fn from_group_to(arguments: &mut Arguments<'_>) -> Result<GroupAndServer, String> {
    let mut leads = arguments.keyword("TO");
    let group = if leads { None } else { arguments.word().map(str::to_owned) };
    leads |= arguments.keyword("TO");
    let to = if leads { Some(arguments.required("the server")?.to_owned()) } else { None };
    Ok((group, to))
}

fn kill(arguments: &mut Arguments<'_>) -> Result<AdminCommand, String> {
    // Clients send KILL QUERY with their own console id when somebody presses Ctrl-C.
    if arguments.keyword("QUERY") {
        return Err("KILL QUERY is not for the console".to_owned());
    }
    let _ = arguments.keyword("CONNECTION");
    Ok(AdminCommand::Kill { id: arguments.number("the id of a session", u32::MAX)? })
}

// === running ===

impl Console {
    /// Carries a command out; `by` says who asked, for logs.
    ///
    /// # Errors
    /// What the owner of the thing says against it.
    pub async fn run(&self, command: AdminCommand, by: &str) -> Result<Table, ControlError> {
        match command {
            AdminCommand::ShowServers => Ok(show::servers(&self.control, &self.metrics)),
            AdminCommand::ShowSessions => Ok(show::sessions(self.control.sessions().await?)),
            AdminCommand::ShowPools => Ok(show::pools(self.control.links().await?)),
            AdminCommand::ShowStats => Ok(show::stats(&self.control, &self.metrics)),
            AdminCommand::ShowDigests => Ok(show::digests(self.control.digests().await?)),
            AdminCommand::ShowConfig => Ok(show::config(&self.control.config())),
            AdminCommand::ShowTopology => Ok(show::topology(&self.control)),
            AdminCommand::ShowCluster => Ok(show::cluster(self.control.assessments().await)),
            AdminCommand::ShowVersion => Ok(show::version(&self.control)),
            AdminCommand::ExplainRoute { group, sql } => {
                explain::route(&self.control, group.as_deref(), &sql)
            }
            AdminCommand::Override { server, what } => {
                self.order(&server, |name, reply| match what {
                    Override::Drain => health::Command::Drain(name, reply),
                    Override::Undrain => health::Command::Undrain(name, reply),
                    Override::Exclude => health::Command::Exclude(name, reply),
                    Override::Include => health::Command::Include(name, reply),
                })
                .await
            }
            AdminCommand::SetWeight { server, weight } => {
                let order = |name, reply| health::Command::SetWeight(name, weight, reply);
                self.order(&server, order).await
            }
            AdminCommand::SwitchOver { group, to } => {
                let order = |reply| keeper::Command::SwitchOver(to, reply);
                self.tell_keeper(group.as_deref(), order).await
            }
            AdminCommand::ExplainSwitchOver { group, to } => {
                let order = |reply| keeper::Command::ExplainSwitchOver(to, reply);
                self.tell_keeper(group.as_deref(), order).await
            }
            AdminCommand::FailOver { group } => {
                self.tell_keeper(group.as_deref(), keeper::Command::FailOver).await
            }
            AdminCommand::Maintain { group, on } => {
                let order = |reply| keeper::Command::Maintain(on, reply);
                self.tell_keeper(group.as_deref(), order).await
            }
            AdminCommand::Kill { id } => {
                self.control.kill(id, by).await?;
                Ok(Table::single("result", format!("session {id} is being closed")))
            }
            AdminCommand::Reload => Ok(Table::single("result", self.control.reload().await?)),
            AdminCommand::Help { topic } => Ok(show::help(topic.as_deref())),
        }
    }

    /// Tells a group's keeper what to do.
    async fn tell_keeper(
        &self,
        group: Option<&str>,
        command: impl FnOnce(health::Reply) -> keeper::Command,
    ) -> Result<Table, ControlError> {
        let answer = self.control.group(group)?.tell_keeper(command).await?;
        Ok(Table::single("result", answer))
    }

    /// Gives an order about one server to the owner of its group's topology.
    async fn order(
        &self,
        server: &str,
        command: impl FnOnce(String, health::Reply) -> health::Command,
    ) -> Result<Table, ControlError> {
        let (group, name) = find_server(&self.control, server)?;
        let answer = group.order(|reply| command(name, reply)).await?;
        Ok(Table::single("result", answer))
    }
}

/// The group and the name of a server written as `server` or `group.server`. Names may contain
/// dots themselves (an address is a name where none was given), so the whole word is tried first.
fn find_server<'a>(
    control: &'a Control,
    word: &str,
) -> Result<(&'a GroupControl, String), ControlError> {
    let has = |group: &&GroupControl, name: &str| group.topology().named(name).is_some();
    let found: Vec<_> = control.groups().iter().filter(|group| has(group, word)).collect();
    match found.as_slice() {
        [group] => return Ok((group, word.to_owned())),
        [] => {}
        [first, ..] => {
            let text =
                format!("several groups have a server {word:?}; write {}.{word}", first.name);
            return Err(ControlError::Refused(text));
        }
    }
    if let Some((group, name)) = word.split_once('.')
        && let Ok(group) = control.group(Some(group))
        && has(&group, name)
    {
        return Ok((group, name.to_owned()));
    }
    let text = format!("there is no server {word:?}; SHOW SERVERS lists them");
    Err(ControlError::Refused(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::parse;

    #[test]
    fn every_command_has_help_and_is_found_by_its_own_name() {
        for entry in TABLE {
            assert!(entry.help.ends_with('.') && entry.help.len() > 10, "{}", entry.name);
            assert!(entry.syntax.starts_with(entry.name), "{}", entry.name);
            let found = parse::nearest(entry.name).map(|found| found.name);
            assert_eq!(found, Some(entry.name));
        }
    }

    #[test]
    fn the_manual_mentions_every_command_and_every_metric() {
        let manual = include_str!("../../docs/operating.md");
        for entry in TABLE {
            let wanted = format!("`{}`", entry.syntax);
            assert!(manual.contains(&wanted), "docs/operating.md does not mention {wanted}");
        }
        for family in crate::metrics::families::ALL {
            let wanted = format!("`{}`", family.name);
            assert!(manual.contains(&wanted), "docs/operating.md does not mention {wanted}");
        }
    }
}
