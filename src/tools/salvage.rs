//! Keeping what only one server has before its data is given up: the client program that reads
//! binary logs writes its transactions to a file, as statements, and rows as comments.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::app::tasks;
use crate::config::Monitor;
use crate::config::tls::ServerTls;
use crate::failover::report::Told;
use crate::failover::upkeep::Own;
use crate::provider::programs::Clients;
use crate::tools::plan::VerbError;
use crate::tools::seed::{OptionFile, command, family, options, the_end_of};
use crate::topology::Flavour;

/// What is kept of which server, and where.
#[derive(Debug, Clone)]
pub struct Salvage {
    /// Its family.
    pub flavour: Flavour,
    /// Its address.
    pub from: String,
    /// What chooses the transactions; the program runs once for each.
    pub choices: Vec<Vec<String>>,
    /// Who may read its binary logs.
    pub account: Monitor,
    /// By which it is believed.
    pub tls: ServerTls,
    /// The file.
    pub path: PathBuf,
}

// === impls ===

/// A file of the state directory for what this server has.
#[must_use]
pub(super) fn file(state_dir: &Path, group: &str, server: &str) -> PathBuf {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let plain = |at: char| if at.is_ascii_alphanumeric() { at } else { '-' };
    let server: String = server.chars().map(plain).collect();
    state_dir.join(format!("errant-{group}-{server}-{seconds}.sql"))
}

/// What chooses transactions that `source` has not.
#[must_use]
pub(super) fn choices(own: &Own, source: &Told) -> Vec<Vec<String>> {
    match own {
        Own::MySql(own) => vec![vec![format!("--include-gtids={own}")]],
        // By the server that wrote them, from where the source's knowledge of it ends.
        Own::MariaDb(own) => own
            .known_to(&source.history)
            .into_iter()
            .map(|(server, after)| {
                let after = after.map(|gtid| format!("--start-position={gtid}"));
                [format!("--server-id={server}")].into_iter().chain(after).collect()
            })
            .collect(),
    }
}

/// Writes them, and says where they are. `first` is the oldest of its binary logs.
///
/// # Errors
/// When the program is missing or fails.
pub(super) async fn save(
    salvage: &Salvage,
    first: String,
    state_dir: &Path,
) -> Result<String, VerbError> {
    let clients = Clients::find(family(salvage.flavour))
        .map_err(|missing| VerbError::Refused(missing.to_string()))?;
    let (what, state_dir) = (salvage.clone(), state_dir.to_path_buf());
    let done = tasks::blocking(move || write(&what, &clients, &first, &state_dir)).await;
    let (from, path) = (&salvage.from, salvage.path.display());
    done.map_err(|why| VerbError::Failed(format!("saving what only {from} has: {why}")))?;
    Ok(format!("it is in {path}"))
}

fn write(what: &Salvage, clients: &Clients, first: &str, state_dir: &Path) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    let login = options((&what.account, &what.tls, what.flavour), &what.from)?;
    let login = OptionFile::write(state_dir, "save", &login).map_err(said)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&what.path);
    let file = file.map_err(said)?;
    for choice in &what.choices {
        let mut reading = command(&clients.log, &login)?;
        reading.args(["--read-from-remote-server", "--verbose", "--to-last-log"]);
        reading.args(choice).arg(first);
        reading.stdin(Stdio::null()).stdout(file.try_clone().map_err(said)?);
        let done = reading.stderr(Stdio::piped()).output().map_err(said)?;
        if !done.status.success() {
            return Err(the_end_of(&done.stderr));
        }
    }
    file.sync_all().map_err(said)
}
