//! Giving a server the data of another: the client programs write it as statements and execute
//! them, joined by a pipe. It never touches this machine's disk, but for the option files with
//! the passwords.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::app::tasks;
use crate::config::Monitor;
use crate::config::address::host_and_port;
use crate::config::tls::{ServerTls, ServerTlsMode};
use crate::provider::Flavour as Family;
use crate::provider::programs::Clients;
use crate::tools::plan::VerbError;
use crate::topology::{Flavour, NodeId};

/// The end of what programs say that is repeated, bytes.
const SAID_MAX: usize = 2000;

/// From where to where.
#[derive(Debug, Clone)]
pub struct Seeding {
    /// The family of both.
    pub flavour: Flavour,
    /// The server that gets the data.
    pub replica: NodeId,
    /// Address of the server that has the data.
    pub from: String,
    /// Address of the one that gets it.
    pub to: String,
    /// Who may read all of it there, and write all of it here.
    pub account: Monitor,
    /// By which servers are believed.
    pub tls: ServerTls,
}

/// A file with the options of one program; removed when dropped.
#[derive(Debug)]
pub(super) struct OptionFile {
    path: PathBuf,
}

/// What is written: everything, accounts included, as of one moment whose position comes with it.
const EVERYTHING: [&str; 7] = [
    "--all-databases",
    "--single-transaction",
    "--routines",
    "--events",
    "--triggers",
    "--hex-blob",
    "--flush-privileges",
];

// === impls ===

/// Copies all data, accounts included, and leaves the server at the position of the copy.
///
/// # Errors
/// When a program is missing or fails; what was copied so far is there then.
pub(super) async fn seed(seeding: &Seeding, state_dir: &Path) -> Result<String, VerbError> {
    let clients = Clients::find(family(seeding.flavour))
        .map_err(|missing| VerbError::Refused(missing.to_string()))?;
    let (seeding, state_dir) = (seeding.clone(), state_dir.to_path_buf());
    let (from, to) = (seeding.from.clone(), seeding.to.clone());
    let done = tasks::blocking(move || pipe(&seeding, &clients, &state_dir)).await;
    done.map_err(|why| VerbError::Failed(format!("copying from {from} to {to}: {why}")))?;
    Ok("copied".to_owned())
}

/// Whose client programs a server needs.
pub(super) fn family(flavour: Flavour) -> Family {
    match flavour {
        Flavour::MariaDb => Family::Mariadb,
        Flavour::MySql => Family::Mysql,
    }
}

/// Runs both programs to their end.
fn pipe(seeding: &Seeding, clients: &Clients, state_dir: &Path) -> Result<(), String> {
    let said = |error: io::Error| error.to_string();
    let login = |address| options((&seeding.account, &seeding.tls, seeding.flavour), address);
    let reading = OptionFile::write(state_dir, "from", &login(&seeding.from)?);
    let reading = reading.map_err(said)?;
    let writing = OptionFile::write(state_dir, "to", &login(&seeding.to)?);
    let writing = writing.map_err(said)?;
    let (mut complaints, complaint) = io::pipe().map_err(said)?;
    let mut dump = command(&clients.dump, &reading)?;
    dump.args(EVERYTHING).args(position(seeding.flavour));
    dump.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(complaint.try_clone().map_err(said)?);
    let mut dumping = dump.spawn().map_err(said)?;
    let mut client = command(&clients.client, &writing)?;
    // What it gets is its source's, not its own: nothing of it goes into its binary log.
    client.args(["--batch", "--init-command=SET SESSION sql_log_bin = 0"]);
    let statements = dumping.stdout.take().map_or_else(Stdio::null, Stdio::from);
    client.stdin(statements).stdout(Stdio::null()).stderr(complaint);
    let executing = client.spawn();
    // What speaks is open as long as these are.
    drop((dump, client));
    let mut text = Vec::new();
    let executed = match executing {
        Ok(mut executing) => {
            complaints.read_to_end(&mut text).map_err(said)?;
            executing.wait().map_err(said)?.success()
        }
        Err(error) => {
            text.extend(error.to_string().into_bytes());
            false
        }
    };
    let dumped = dumping.wait().map_err(said)?.success();
    if executed && dumped {
        return Ok(());
    }
    Err(the_end_of(&text))
}

/// The end of what a program has said.
pub(super) fn the_end_of(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said).into_owned();
    let mut start = text.len().saturating_sub(SAID_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or_default().trim().to_owned()
}

/// What has the dump say where it was made.
fn position(flavour: Flavour) -> &'static [&'static str] {
    match flavour {
        Flavour::MariaDb => &["--master-data=1", "--gtid"],
        Flavour::MySql => &["--set-gtid-purged=ON", "--source-data=2"],
    }
}

pub(super) fn command(program: &[String], options: &OptionFile) -> Result<Command, String> {
    let (first, rest) = program.split_first().ok_or("an empty command line")?;
    let mut command = Command::new(first);
    command.args(rest).arg(format!("--defaults-file={}", options.path.display()));
    Ok(command)
}

/// The options by which a client program logs in to the server at `address`.
pub(super) fn options(
    (account, tls, flavour): (&Monitor, &ServerTls, Flavour),
    address: &str,
) -> Result<String, String> {
    let mut text = format!(
        "[client]\nuser={}\npassword={}\n",
        quoted(&account.user)?,
        quoted(account.password.reveal())?
    );
    let Some((host, port)) = host_and_port(address) else {
        return Ok(format!("{text}socket={}\n", quoted(address)?));
    };
    text += &format!("protocol=tcp\nhost={}\nport={port}\n", quoted(host)?);
    let is_local = host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let mariadb = flavour == Flavour::MariaDb;
    text += match tls.mode {
        ServerTlsMode::Off if mariadb => "skip-ssl\n",
        ServerTlsMode::Auto if is_local && mariadb => "skip-ssl\n",
        ServerTlsMode::Off => "ssl-mode=DISABLED\nget-server-public-key\n",
        ServerTlsMode::Auto if is_local => "ssl-mode=PREFERRED\nget-server-public-key\n",
        ServerTlsMode::SkipVerify if mariadb => "ssl\nskip-ssl-verify-server-cert\n",
        ServerTlsMode::SkipVerify => "ssl-mode=REQUIRED\n",
        ServerTlsMode::Auto | ServerTlsMode::Required if tls.ca.is_none() => {
            return Err("the client programs believe servers by server_tls_ca only: set it".into());
        }
        ServerTlsMode::Auto | ServerTlsMode::Required if mariadb => "ssl-verify-server-cert\n",
        ServerTlsMode::Auto | ServerTlsMode::Required => "ssl-mode=VERIFY_IDENTITY\n",
    };
    if let Some(ca) = &tls.ca {
        text += &format!("ssl-ca={}\n", quoted(&ca.to_string_lossy())?);
    }
    Ok(text)
}

/// A value of an option file in quotes, in which a backslash escapes.
fn quoted(text: &str) -> Result<String, String> {
    if text.contains(['\n', '\r', '\0']) {
        return Err("an option file cannot hold a value of several lines".to_owned());
    }
    Ok(format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"")))
}

impl OptionFile {
    /// Writes it for its owner's eyes only.
    pub(super) fn write(state_dir: &Path, name: &str, text: &str) -> io::Result<Self> {
        let path = state_dir.join(format!("seed-{name}-{}.cnf", std::process::id()));
        fs::create_dir_all(state_dir)?;
        let _ = fs::remove_file(&path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let written = Self { path };
        file.write_all(text.as_bytes())?;
        Ok(written)
    }
}

impl Drop for OptionFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::Secret;

    fn seeding(mode: ServerTlsMode) -> Seeding {
        let password = Secret::new(r#"a"\b #c"#.to_owned());
        Seeding {
            flavour: Flavour::MySql,
            replica: NodeId(1),
            from: "10.0.0.1:3306".to_owned(),
            to: "127.0.0.1:3307".to_owned(),
            account: Monitor { user: "root".to_owned(), password, ..Monitor::default() },
            tls: ServerTls { mode, ..ServerTls::default() },
        }
    }

    fn written(seeding: &Seeding, address: &str) -> Result<String, String> {
        options((&seeding.account, &seeding.tls, seeding.flavour), address)
    }

    #[test]
    fn passwords_are_in_a_private_file_that_goes_away_and_nowhere_else() {
        use std::os::unix::fs::PermissionsExt as _;
        let text = written(&seeding(ServerTlsMode::Off), "127.0.0.1:3307").expect("options");
        assert!(text.contains("password=\"a\\\"\\\\b #c\"\n"), "{text}");
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let file = OptionFile::write(scratch.path(), "from", &text).expect("a file");
        let mode = fs::metadata(&file.path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let dump = command(&["mysqldump".to_owned()], &file).expect("a command");
        assert!(!format!("{dump:?}").contains("b #c"));
        let path = file.path.clone();
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_password_goes_to_no_server_that_is_not_believed() {
        let refused = written(&seeding(ServerTlsMode::Auto), "10.0.0.1:3306").expect_err("no CA");
        assert!(refused.contains("server_tls_ca"), "{refused}");
        let mut believed = seeding(ServerTlsMode::Auto);
        believed.tls.ca = Some(PathBuf::from("/ca.pem"));
        let text = written(&believed, "10.0.0.1:3306").expect("options");
        assert!(text.contains("VERIFY_IDENTITY") && text.contains("ssl-ca=\"/ca.pem\""), "{text}");
    }
}
