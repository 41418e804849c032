//! Asking servers what matters for replication between them and is not asked for a failover.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::timeout;

use crate::config::Monitor;
use crate::health::connect::{Connection, open};
use crate::health::observation::{Failure, FailureKind};
use crate::health::probe_mysql::status_statement;
use crate::protocol::answer::Row;
use crate::tls::trust::Trust;
use crate::tools::preflight::Inspection;
use crate::topology::Flavour;
use crate::topology::gtid::GtidSet;

/// How long a server may take for all questions.
const PATIENCE: Duration = Duration::from_secs(10);

/// Schemas that every server has.
const OF_THE_SYSTEM: &str = "'mysql', 'information_schema', 'performance_schema', 'sys'";

/// Names of filters in the replication status, before `_Do_`, `_Ignore_`.
const FILTERS: [&str; 7] = [
    "Replicate_Do_DB",
    "Replicate_Ignore_DB",
    "Replicate_Do_Table",
    "Replicate_Ignore_Table",
    "Replicate_Wild_Do_Table",
    "Replicate_Wild_Ignore_Table",
    "Replicate_Rewrite_DB",
];

/// Asks a server with this account; `replicas_log_in_as` is the account that is looked for.
///
/// # Errors
/// When it does not let us in or does not answer. What it only denies is left out.
pub(super) async fn inspect(
    address: &str,
    account: &Monitor,
    trust: &Trust,
    replicas_log_in_as: &str,
) -> Result<Inspection, Failure> {
    let asking = async {
        let mut server = open(address, account, trust).await?;
        ask(&mut server, replicas_log_in_as).await
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| {
        let text = format!("no answer within {} s", PATIENCE.as_secs());
        Err(Failure::new(FailureKind::Timeout, text))
    })
}

async fn ask(server: &mut Connection, replicas_log_in_as: &str) -> Result<Inspection, Failure> {
    let flavour = server.greeted().flavour;
    let version_text = server.greeted().version_text.to_string();
    let mut found = Inspection { version_text, ..Inspection::default() };
    let variables = server.ask("SHOW GLOBAL VARIABLES").await?;
    let pair = |row: Row<'_>| Some((row.text(0)?.to_ascii_lowercase(), row.text(1)?));
    found.variables = variables.rows().filter_map(pair).collect::<BTreeMap<_, _>>();
    let engines = server.ask("SHOW ENGINES").await?;
    let engine = |row: Row<'_>| {
        let there = matches!(row.named(&["Support"])?.as_str(), "YES" | "DEFAULT");
        there.then(|| row.named(&["Engine"]))?
    };
    found.engines = engines.rows().filter_map(engine).collect::<BTreeSet<_>>();
    let status = status_statement(server.greeted());
    let links = server.ask(status).await?;
    for row in links.rows() {
        found.filters.extend(filters(row, &FILTERS));
    }
    if let Some(log) = allowed(server.ask(log_status(server)).await)? {
        for row in log.rows() {
            found.filters.extend(filters(row, &["Binlog_Do_DB", "Binlog_Ignore_DB"]));
        }
    }
    found.before_oldest = match flavour {
        Flavour::MySql => {
            found.variables.get("gtid_purged").and_then(|text| GtidSet::parse_mysql(text))
        }
        Flavour::MariaDb => before_oldest(server).await?,
    };
    found.replicas_may = replicas_may(server, replicas_log_in_as).await?;
    found.tables = tables(server).await?;
    found.followers = followers(server).await?;
    found.sees_everything = sees_everything(server).await?;
    Ok(found)
}

/// Filters of a row that are set, with their names.
fn filters(row: Row<'_>, names: &[&str]) -> Vec<String> {
    let set = |name: &&str| {
        let value = row.named(&[name]).filter(|value| !value.is_empty())?;
        Some(format!("{} = {value}", name.to_ascii_lowercase()))
    };
    names.iter().filter_map(set).collect()
}

fn log_status(server: &Connection) -> &'static str {
    match server.greeted().flavour {
        Flavour::MySql if server.greeted().version >= 80_400 => "SHOW BINARY LOG STATUS",
        Flavour::MySql | Flavour::MariaDb => "SHOW MASTER STATUS",
    }
}

/// What came before the oldest binary log that is kept, from the list at its beginning; `None`
/// where that is not told.
async fn before_oldest(server: &mut Connection) -> Result<Option<GtidSet>, Failure> {
    let Some(logs) = allowed(server.ask("SHOW BINARY LOGS").await)? else { return Ok(None) };
    let Some(name) = logs.first().and_then(|row| row.text(0)) else { return Ok(None) };
    let question = format!("SHOW BINLOG EVENTS IN '{}' LIMIT 4", name.replace('\'', "''"));
    let Some(events) = allowed(server.ask(&question).await)? else { return Ok(None) };
    let list = events.rows().find(|row| row.named(&["Event_type"]).as_deref() == Some("Gtid_list"));
    let list = list.and_then(|row| row.named(&["Info"])).unwrap_or_default();
    Ok(GtidSet::parse_mariadb(list.trim_matches(['[', ']'])))
}

/// Whether there is an account of this name that may replicate; `None` where that cannot be seen.
async fn replicas_may(server: &mut Connection, user: &str) -> Result<Option<bool>, Failure> {
    let name: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
    let question = format!(
        "SELECT COUNT(*) FROM mysql.user WHERE User = CONVERT(X'{name}' USING utf8mb4) \
         AND Repl_slave_priv = 'Y'"
    );
    let Some(answer) = allowed(server.ask(&question).await)? else { return Ok(None) };
    Ok(answer.first().and_then(|row| row.text(0)).map(|count| count != "0"))
}

/// How many replicas are connected, as far as the account sees them.
async fn followers(server: &mut Connection) -> Result<usize, Failure> {
    let list = server.ask("SHOW PROCESSLIST").await?;
    let commands = list.rows().filter_map(|row| row.named(&["Command"]));
    Ok(commands.filter(|command| command.starts_with("Binlog Dump")).count())
}

/// Schemas with tables of their own, as far as the account sees them.
async fn tables(server: &mut Connection) -> Result<Vec<(String, u64)>, Failure> {
    let question = format!(
        "SELECT table_schema, COUNT(*) FROM information_schema.tables \
         WHERE table_schema NOT IN ({OF_THE_SYSTEM}) GROUP BY table_schema"
    );
    let answer = server.ask(&question).await?;
    let schema = |row: Row<'_>| Some((row.text(0)?, row.text(1)?.parse().ok()?));
    Ok(answer.rows().filter_map(schema).collect())
}

/// Whether the account may see and change whatever there is.
async fn sees_everything(server: &mut Connection) -> Result<bool, Failure> {
    let question = "SELECT COUNT(DISTINCT privilege_type) FROM information_schema.user_privileges \
         WHERE privilege_type IN ('SELECT', 'INSERT', 'CREATE', 'DROP', 'SHOW DATABASES') \
         AND grantee = CONCAT('''', SUBSTRING_INDEX(CURRENT_USER(), '@', 1), '''@''', \
         SUBSTRING_INDEX(CURRENT_USER(), '@', -1), '''')";
    let answer = server.ask(question).await?;
    Ok(answer.first().and_then(|row| row.text(0)).as_deref() == Some("5"))
}

/// An answer, or nothing where it is denied.
fn allowed<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(failure) if failure.kind == FailureKind::Denied => Ok(None),
        Err(failure) => Err(failure),
    }
}
