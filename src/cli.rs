//! The command line, and the one way from a path to a configuration.
//!
//! The only place that reads configuration files and password files.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use crate::config::resolve::{self, Refusal, Refused};
use crate::config::units::Secret;
use crate::config::{Config, LogFormat, raw};
use crate::{demo, provider};

pub mod verbs;

/// The exit code for a wrong command line or configuration (EX_USAGE).
pub const EXIT_USAGE: u8 = 64;

/// Largest configuration or password file that is read, bytes.
const FILE_LIMIT: u64 = 4 << 20;

/// A transparent proxy and keeper for MySQL and MariaDB.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy until SIGTERM
    Serve(ServeArgs),
    /// Read a configuration file and say all that is wrong with it
    CheckConfig(ConfigArgs),
    /// Say what a failover of each group would lose, and what is missing; 0 when nothing is
    Check(CheckArgs),
    /// One of the verbs that put a cluster together and change it.
    #[command(flatten)]
    Verb(verbs::Verb),
    /// Bring up real servers and the proxy, run a workload, and switch the primary under it
    Demo(demo::DemoArgs),
    /// Start, stop, kill and freeze a local primary and its replicas
    Sandbox(provider::cli::SandboxArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell to complete in
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
}

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Log filter in place of the file's log_filter, e.g. "debug" or "info,pointsman::health=debug"
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Take the place of the process at standard input, which starts this one when it gets SIGUSR2
    #[arg(long, hide = true)]
    pub take_over: bool,
}

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The only group to look at
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// How a table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned, for people.
    Text,
    /// A list of objects.
    Json,
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file; config/example.toml explains every key
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
}

/// Why a configuration cannot be used. Passwords are in none of the texts.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The file is not TOML, or has a key that does not exist.
    #[error("{path}, {source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line and trouble.
        source: raw::SyntaxError,
    },
    /// Values are wrong.
    #[error("{path} has values that cannot stand:\n{refused}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// All of them.
        refused: Refused,
    },
}

// === loading ===

/// Reads and resolves a configuration file; used at the start and by every reload.
///
/// # Errors
/// When it cannot be read, is not TOML, or has wrong values; the text says what to change.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let text = read_bounded(path)
        .map_err(|error| LoadError::Read { path: path.to_path_buf(), why: error.to_string() })?;
    load_text(path, &text)
}

/// Resolves what the file at `path` would say with this text.
///
/// # Errors
/// As [`load`].
fn load_text(path: &Path, text: &str) -> Result<Config, LoadError> {
    let at = || path.to_path_buf();
    let file = raw::parse(text).map_err(|source| LoadError::Syntax { path: at(), source })?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    // Relative paths count from the configuration file, so that its directory can be moved.
    let base = path.parent().unwrap_or_else(|| Path::new("."));
    let read = |file: &Path| read_secret(&base.join(file));
    let config = resolve::resolve(&file, cpus, &read)
        .map_err(|refused| LoadError::Refused { path: at(), refused })?;
    if let Err(why) = log_filter(&config.boot.log_filter) {
        let refusal = Refusal {
            key: "log_filter".to_owned(),
            value: format!("{:?}", config.boot.log_filter),
            allowed: why,
        };
        return Err(LoadError::Refused { path: at(), refused: Refused(vec![refusal]) });
    }
    Ok(config)
}

/// Reads a password from a file that only its owner may read; a trailing line end is dropped.
fn read_secret(path: &Path) -> Result<Secret, String> {
    let metadata = fs::metadata(path).map_err(|error| format!("a file that exists ({error})"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "a file that only its owner may read; its mode is {mode:04o}, so others can read the \
             password: chmod 600 {}",
            path.display()
        ));
    }
    let text = read_bounded(path).map_err(|error| format!("a file that can be read ({error})"))?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() || password.contains(['\n', '\0']) {
        return Err("a file with the password as its only line".to_owned());
    }
    Ok(Secret::new(password.to_owned()))
}

fn read_bounded(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_LIMIT {
        return Err(io::Error::other("it is larger than 4 MiB"));
    }
    fs::read_to_string(path)
}

// === the process itself ===

/// No core dumps, which would hold passwords, and as many file descriptors as the system allows:
/// a client needs up to three. A refusal is logged and no reason to stop.
pub fn set_limits() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps cannot be switched off");
    }
    let files = getrlimit(Resource::Nofile);
    let all = Rlimit { current: files.maximum, maximum: files.maximum };
    match setrlimit(Resource::Nofile, all) {
        Ok(()) => tracing::debug!(files = ?all.current, "file descriptors"),
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

// === logs and completions ===

/// Reads a log filter.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn log_filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(text).map_err(|error| {
        format!("a level or levels by part, like \"info,pointsman::health=debug\" ({error})")
    })
}

/// Sends logs to standard error from here on. `RUST_LOG` is not read: what is logged stands in
/// the configuration or on the command line, where it can be seen.
///
/// # Errors
/// When the filter cannot be read, or logs were set up before.
pub fn init_logs(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = log_filter(filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => {
            let colours = io::IsTerminal::is_terminal(&io::stderr());
            builder.with_ansi(colours).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| error.to_string())
}

/// Writes the completion script of a shell.
pub fn completions(shell: clap_complete::Shell, out: &mut dyn io::Write) {
    clap_complete::generate(shell, &mut Cli::command(), "pointsman", out);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = include_str!("../config/minimal.toml");

    fn write(directory: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, text).expect("a scratch file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        path
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let cli =
            Cli::try_parse_from(["pointsman", "serve", "--config", "x.toml", "--log", "debug"])
                .expect("a valid line");
        assert!(matches!(cli.command, Command::Serve(_)));
        assert!(Cli::try_parse_from(["pointsman", "serve"]).is_err());
    }

    #[test]
    fn completions_are_written_for_each_shell() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh] {
            let mut out = Vec::new();
            completions(shell, &mut out);
            assert!(String::from_utf8_lossy(&out).contains("check-config"));
        }
    }

    #[test]
    fn a_password_file_must_be_private_and_is_found_beside_the_configuration() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let text = MINIMAL.replacen("password = \"monitor\"", "password_file = \"m.pw\"", 1);
        let config = write(scratch.path(), "c.toml", &text, 0o644);
        write(scratch.path(), "m.pw", "s3cret\n", 0o640);
        let error = load(&config).expect_err("the group may read it").to_string();
        assert!(error.contains("monitor.password_file") && error.contains("0640"), "{error}");
        assert!(error.contains("chmod 600") && !error.contains("s3cret"), "{error}");
        write(scratch.path(), "m.pw", "s3cret\n", 0o600);
        assert_eq!(load(&config).expect("valid").monitor.password.reveal(), "s3cret");
        write(scratch.path(), "m.pw", "two\nlines\n", 0o600);
        let error = load(&config).expect_err("two lines").to_string();
        assert!(error.contains("only line") && !error.contains("two\n"), "{error}");
    }

    #[test]
    fn files_that_are_missing_or_wrong_say_which_and_why() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let error = load(&scratch.path().join("none.toml")).expect_err("missing").to_string();
        assert!(error.contains("none.toml") && error.contains("No such file"), "{error}");
        let path = write(scratch.path(), "a.toml", "admin = \n", 0o644);
        let error = load(&path).expect_err("no value").to_string();
        assert!(error.contains("a.toml, line 1"), "{error}");
        let text = format!("log_filter = \"info,=x=\"\n{MINIMAL}");
        let path = write(scratch.path(), "b.toml", &text, 0o644);
        let error = load(&path).expect_err("a wrong filter").to_string();
        assert!(error.contains("log_filter") && error.contains("info,"), "{error}");
    }
}
