//! `pointsman demo`: real servers, the proxy in front of them, a workload, and the primary's death.
//!
//! The clients of the workload know nothing but the proxy's address. What they notice of that is
//! the result.
//!
//! Does not know: the proxy's insides. It is a child process, seen from outside like by anyone.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::config::outcome::CommitOutcome;
use crate::demo::front::Front;
use crate::demo::view::View;
use crate::demo::workload::Workload;
use crate::provider::local::Cluster;
use crate::provider::replication::keeper_account;
use crate::provider::{Durability, Flavour, Lifetime, Spec};

pub mod front;
pub mod view;
pub mod workload;

/// Real servers, the proxy, a workload, and kill -9 of the primary in the middle
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Family of the servers
    #[arg(long, value_enum, default_value = "mariadb")]
    pub flavour: Flavour,
    /// How long the workload runs, seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(4..=86_400))]
    pub seconds: u64,
    /// How many clients
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub clients: u16,
    /// Leave servers and proxy running afterwards, and print their addresses
    #[arg(long)]
    pub keep: bool,
    /// Leave the proxy out: what a mere switchover does to clients of the old primary
    #[arg(long, conflicts_with = "keep")]
    pub direct: bool,
    /// Folder for the servers [default: one of its own below the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The folder that scripts/server-folder made [default: the system's MariaDB;
    /// /var/tmp/pointsman-mysql]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The servers.
    #[error(transparent)]
    Servers(#[from] crate::provider::Error),
    /// The proxy.
    #[error("the proxy {what}; the end of its log:\n{log}")]
    Proxy {
        /// What it did not do.
        what: String,
        /// Its last words.
        log: String,
    },
    /// A file, the terminal or a signal.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The tables could not be made or checked.
    #[error("{what}: {source}")]
    Tables {
        /// What was tried.
        what: &'static str,
        /// What the server said.
        source: mysql_async::Error,
    },
}

/// Shows the demo; answers how many errors the clients saw, wrong answers and lost writes included.
///
/// # Errors
/// When it could not be shown to its end.
pub async fn run(args: DemoArgs) -> Result<u64, Error> {
    let dir = args.dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("pointsman-demo-{}", std::process::id()))
    });
    let lifetime = if args.keep { Lifetime::Detached } else { Lifetime::Process };
    let root = args.root.clone();
    say(&format!("starting a primary and two replicas ({:?}) in {}", args.flavour, dir.display()))?;
    // What is promised of a failover needs commits that reach the disk.
    let durability = Durability::Full;
    let spec = Spec { lifetime, root, durability, ..Spec::new(args.flavour, dir) };
    let cluster = Arc::new(Cluster::up(spec).await?);
    let result = with_servers(&args, &cluster).await;
    if !args.keep || result.is_err() {
        Front::end(&cluster);
        if let Some(cluster) = Arc::into_inner(cluster) {
            cluster.down().await?;
        }
    }
    result
}

/// The demo, once there are servers.
async fn with_servers(args: &DemoArgs, cluster: &Arc<Cluster>) -> Result<u64, Error> {
    workload::make_tables(cluster, args.clients).await?;
    cluster.primary()?.run(&keeper_account(args.flavour)).await?;
    cluster.primary()?.run(&CommitOutcome::MAKE_TABLE).await?;
    cluster.wait_caught_up().await?;
    let front = if args.direct { None } else { Some(Front::start(cluster).await?) };
    let dsn = match &front {
        Some(front) => front.dsn.clone(),
        None => cluster.primary()?.dsn(),
    };
    say(&format!("{} clients know one address: {dsn}", args.clients))?;
    let workload = Workload::start(&dsn, args.clients);
    let shown = show(args, cluster, front.as_ref(), &workload).await;
    workload.stop().await;
    shown?;
    cluster.wait_caught_up().await?;
    let wrong = workload::audit(cluster, &workload.acknowledged()).await?;
    let total = workload.total();
    say("")?;
    for line in view::summary(&total, &wrong) {
        say(&line)?;
    }
    if let Some(front) = front.filter(|_| args.keep) {
        say("")?;
        for line in front.addresses(cluster) {
            say(&line)?;
        }
    }
    Ok(total.errors + wrong.total())
}

/// The live view, once a second, with what happens to the primary in the middle.
async fn show(
    args: &DemoArgs,
    cluster: &Arc<Cluster>,
    front: Option<&Front>,
    workload: &Workload,
) -> Result<(), Error> {
    let begin = Instant::now();
    let end = begin + Duration::from_secs(args.seconds);
    let middle = begin + Duration::from_secs(args.seconds / 2);
    let mut view = View::new(cluster, front);
    let mut tick = tokio::time::interval_at(begin, Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let change = async {
        tokio::time::sleep_until(middle).await;
        match front {
            Some(_) => kill(cluster).await,
            None => switch_over(cluster).await,
        }
    };
    tokio::pin!(change);
    let mut changed = false;
    say(&view.header())?;
    loop {
        tokio::select! {
            result = &mut change, if !changed => {
                changed = true;
                result?;
            }
            now = tick.tick() => {
                if now > begin {
                    let line = view.line((now - begin).as_secs(), workload).await;
                    say(&line)?;
                }
                if now >= end && changed {
                    return Ok(());
                }
            }
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|source| Error::System { what: "signals", source })?;
                return Ok(());
            }
        }
    }
}

/// Kills the primary, and starts it again as soon as another server takes the writes.
async fn kill(cluster: &Cluster) -> Result<(), Error> {
    let old = cluster.primary()?;
    let name = &old.name;
    say(&format!("--- kill -9 of {name}, which takes the writes"))?;
    let started = Instant::now();
    cluster.kill(name).await?;
    let new = cluster.wait_replaced().await?;
    let took = started.elapsed().as_millis();
    say(&format!("--- {} takes writes after {took} ms; {name} is started again", new.name))?;
    cluster.start(name).await?;
    if cluster.wait_following(old).await? {
        return say(&format!("--- {name} follows {} and has all of it", new.name));
    }
    // It has committed what it had sent to nobody, and told nobody of: an operator's to decide.
    say(&format!("--- {name} has transactions of its own: it is left out, and stopped"))?;
    Ok(cluster.kill(name).await?)
}

/// Makes a replica the primary.
async fn switch_over(cluster: &Cluster) -> Result<(), Error> {
    let old = cluster.primary().map(|server| server.name.clone())?;
    let next = cluster.replicas()?.first().map(|server| server.name.clone()).unwrap_or_default();
    say(&format!("--- an operator makes {next} the primary, by plain SQL on the servers"))?;
    let started = Instant::now();
    cluster.switchover(&next).await?;
    let took = started.elapsed().as_millis();
    say(&format!("--- done in {took} ms: {next} takes writes, {old} follows it"))
}

/// A line on the terminal.
fn say(line: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|source| Error::System { what: "standard output", source })
}
