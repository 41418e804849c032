//! `pointsman sandbox ...`: the commands over a local primary and its replicas.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::provider::local::Cluster;
use crate::provider::replication::{APP, MONITOR, ROOT};
use crate::provider::server::Condition;
use crate::provider::{Durability, Error, Flavour, Lifetime, Spec};

/// A local primary with replicas: real servers for trying things out
#[derive(Debug, clap::Args)]
pub struct SandboxArgs {
    /// Folder of the sandbox: data, logs, state
    #[arg(long, global = true, value_name = "DIR", default_value = ".sandbox")]
    pub dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: SandboxCommand,
}

/// What to do with a sandbox.
#[derive(Debug, clap::Subcommand)]
pub enum SandboxCommand {
    /// Start a primary and its replicas, with GTID and semi-synchronous replication
    Up {
        /// Family of the servers
        #[arg(long, value_enum, default_value = "mariadb")]
        flavour: Flavour,
        /// How many replicas
        #[arg(long, default_value_t = 2)]
        replicas: usize,
        /// The folder that scripts/server-folder made [default: the system's MariaDB;
        /// /var/tmp/pointsman-mysql]
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
        /// Flush each commit to disk before it is acknowledged
        #[arg(long)]
        durable: bool,
        /// How to print what was started
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Kill all servers and remove the folder
    Down,
    /// End a server as a power failure would (SIGKILL)
    Kill {
        /// Its name, e.g. db1
        name: String,
    },
    /// Stop a server in good order
    Stop {
        /// Its name
        name: String,
    },
    /// Start a server that was stopped or killed
    Start {
        /// Its name
        name: String,
    },
    /// Freeze a server: it accepts connections and never answers (SIGSTOP)
    Freeze {
        /// Its name
        name: String,
    },
    /// Let a frozen server go on (SIGCONT)
    Thaw {
        /// Its name
        name: String,
    },
    /// Make a replica the primary, by plain SQL
    Switchover {
        /// Its name
        name: String,
    },
    /// Show the servers
    Status {
        /// How to print it
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// One server, as `status` shows it.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    role: &'static str,
    condition: Condition,
    address: String,
    port: u16,
    socket: PathBuf,
    pid: Option<u32>,
    dsn: String,
    general_log: PathBuf,
}

/// Everything that `status` shows.
#[derive(Debug, Serialize)]
struct Status {
    dir: PathBuf,
    flavour: Flavour,
    servers: Vec<Line>,
}

/// Runs one of the commands.
///
/// # Errors
/// As the command's own; nothing was printed then.
pub async fn run(args: SandboxArgs) -> Result<(), Error> {
    let dir = args.dir;
    match args.command {
        SandboxCommand::Up { flavour, replicas, root, durable, format } => {
            let durability = if durable { Durability::Full } else { Durability::Relaxed };
            let lifetime = Lifetime::Detached;
            let spec = Spec { replicas, root, durability, lifetime, ..Spec::new(flavour, dir) };
            up(spec, format).await
        }
        SandboxCommand::Down => Cluster::load(&dir)?.down().await,
        SandboxCommand::Kill { name } => Cluster::load(&dir)?.kill(&name).await,
        SandboxCommand::Stop { name } => Cluster::load(&dir)?.stop(&name).await,
        SandboxCommand::Start { name } => Cluster::load(&dir)?.start(&name).await,
        SandboxCommand::Freeze { name } => Cluster::load(&dir)?.freeze(&name),
        SandboxCommand::Thaw { name } => Cluster::load(&dir)?.thaw(&name),
        SandboxCommand::Switchover { name } => Cluster::load(&dir)?.switchover(&name).await,
        SandboxCommand::Status { format } => print(&Cluster::load(&dir)?, format),
    }
}

/// Starts a cluster; what came up is taken down again when the rest did not.
async fn up(spec: Spec, format: Format) -> Result<(), Error> {
    let dir = spec.dir.clone();
    let fresh = !dir.join("state.json").exists();
    match Cluster::up(spec).await {
        Ok(cluster) => print(&cluster, format),
        Err(error) => {
            if fresh && let Ok(partial) = Cluster::load(&dir) {
                let _ = partial.down().await;
            }
            Err(error)
        }
    }
}

fn print(cluster: &Cluster, format: Format) -> Result<(), Error> {
    let text = match format {
        Format::Text => text(cluster)?,
        Format::Json => {
            let status = status(cluster)?;
            let json = serde_json::to_string_pretty(&status).map_err(io::Error::from);
            json.map_err(terminal)? + "\n"
        }
    };
    io::stdout().write_all(text.as_bytes()).map_err(terminal)
}

fn terminal(source: io::Error) -> Error {
    Error::File { what: "cannot write to", path: Path::new("standard output").into(), source }
}

fn status(cluster: &Cluster) -> Result<Status, Error> {
    let primary = &cluster.primary()?.name;
    let servers = cluster.servers().iter().map(|server| Line {
        name: server.name.clone(),
        role: if *primary == server.name { "primary" } else { "replica" },
        condition: server.condition(),
        address: server.address(),
        port: server.port,
        socket: server.socket.clone(),
        pid: server.pid(),
        dsn: server.dsn(),
        general_log: server.general_log(),
    });
    let servers = servers.collect();
    Ok(Status { dir: cluster.dir().into(), flavour: cluster.flavour(), servers })
}

fn text(cluster: &Cluster) -> Result<String, Error> {
    let status = status(cluster)?;
    let mut lines = Vec::new();
    for line in &status.servers {
        let condition = match line.condition {
            Condition::Running => "running",
            Condition::Frozen => "frozen",
            Condition::Dead => "dead",
        };
        let (name, role, dsn) = (&line.name, line.role, &line.dsn);
        lines.push(format!("{name:<6} {role:<8} {condition:<8} {dsn}"));
    }
    let accounts = [APP, MONITOR, ROOT].map(|(user, password)| format!("{user}/{password}"));
    lines.push(format!("accounts {} (all for loopback only)", accounts.join(" ")));
    lines.push(format!("folder   {}", status.dir.display()));
    Ok(lines.join("\n") + "\n")
}
