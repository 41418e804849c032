//! Having servers do what they are ordered to.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{interval, timeout};

use crate::app::tasks;
use crate::config::Monitor;
use crate::failover::order::{Order, What};
use crate::failover::report::{Report, Told, told_by};
use crate::health::connect::{Connection, open};
use crate::health::observation::{Failure, FailureKind};
use crate::protocol::answer::{Answer, Row};
use crate::tls::trust::Trust;
use crate::topology::{Flavour, NodeId, Topology};

/// How long a server may take for one order. Stopping a receiver whose source is frozen takes two
/// seconds (V13).
const PATIENCE: Duration = Duration::from_secs(10);
/// How often clients that were told to go are looked for.
const GLANCE: Duration = Duration::from_millis(20);
/// How often that is done before the server is left to itself.
const GLANCES: u32 = 100;
/// A lock was not had within `lock_wait_timeout`.
const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// Whether orders may be given still. It is asked before each statement: this process may have been
/// stopped since the one before, and another keep the group.
pub type MayAct = Arc<dyn Fn() -> bool + Send + Sync>;

/// An order that was not carried out.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Which.
    pub order: Order,
    /// Who was told what, and what came of it; a sentence.
    pub why: String,
    /// The server let us in and said no.
    pub denied: bool,
}

/// Has all servers do their orders, each its own one after the other, all servers at once. Answers
/// those that were not carried out; what a server was to do after one of them is left, settings and
/// events aside, of which each is of use alone. Nothing more is said to anybody once `may_act` says
/// no.
pub async fn perform(
    orders: Vec<Order>,
    topology: &Topology,
    reports: &[Report],
    monitor: &Monitor,
    trust: &Arc<Trust>,
    may_act: &MayAct,
) -> Vec<Failed> {
    let mut by_server: Vec<(NodeId, Vec<What>)> = Vec::new();
    for order in orders {
        match by_server.iter_mut().find(|(node, _)| *node == order.node) {
            Some((_, all)) => all.push(order.what),
            None => by_server.push((order.node, vec![order.what])),
        }
    }
    let mut working = Vec::new();
    for (id, all) in by_server {
        let (node, told) = (topology.node(id), told_by(reports, id));
        let (Some(node), Some(told)) = (node, told.cloned()) else { continue };
        let (name, address) = (node.name.clone(), node.address.clone());
        let (monitor, trust, may_act) = (monitor.clone(), trust.clone(), may_act.clone());
        let group = topology.group.clone();
        working.push(tasks::spawn("order", async move {
            let (mut failed, mut conn) = (Vec::new(), None);
            for what in all {
                let told_to = what.describe();
                tracing::info!(group = &*group, server = &*name, "told to {told_to}");
                let doing = one(&mut conn, &address, &what, &told, (&monitor, &trust, &may_act));
                let done = timeout(PATIENCE, doing).await.unwrap_or_else(|_| {
                    let text = format!("no answer within {} s", PATIENCE.as_secs());
                    Err(Failure::new(FailureKind::Timeout, text))
                });
                let Err(failure) = done else { continue };
                let why = format!("{name} was told to {told_to}: {failure}");
                let denied = failure.kind == FailureKind::Denied;
                let goes_on = matches!(what, What::Settle(_) | What::Enable(_));
                failed.push(Failed { order: Order { node: id, what }, why, denied });
                if !goes_on {
                    break;
                }
            }
            failed
        }));
    }
    let mut failed = Vec::new();
    for work in working {
        failed.extend(work.await.unwrap_or_default());
    }
    failed
}

/// Carries out one order, over the connection of the one before where there is one.
async fn one(
    kept: &mut Option<Connection>,
    address: &str,
    what: &What,
    told: &Told,
    (monitor, trust, may_act): (&Monitor, &Trust, &MayAct),
) -> Result<(), Failure> {
    let conn = match kept.take() {
        Some(conn) => conn,
        None => open(address, monitor, trust).await?,
    };
    let mut server = Obeying { conn, may_act };
    if *what == What::Fence {
        end_clients(&mut server, monitor, told.flavour).await?;
    }
    match say(&mut server, what, told).await {
        // Somebody holds tables locked, or runs a long statement.
        Err(failure) if *what == What::Close && failure.errno == Some(LOCK_WAIT_TIMEOUT) => {
            end_clients(&mut server, monitor, told.flavour).await?;
            say(&mut server, what, told).await?;
        }
        said => said?,
    }
    if let What::LockOut(users) = what {
        let is_theirs = |row: &Row<'_>| row.named(&["User"]).is_some_and(|at| users.contains(&at));
        end_connections(&mut server, told.flavour, is_theirs).await?;
    }
    if *what == What::Fence {
        // Those that came meanwhile have written nothing since.
        end_clients(&mut server, monitor, told.flavour).await?;
    }
    *kept = Some(server.conn);
    Ok(())
}

/// A server that is told nothing once there is nothing to be told.
struct Obeying<'a> {
    conn: Connection,
    may_act: &'a MayAct,
}

impl Obeying<'_> {
    async fn ask(&mut self, statement: &str) -> Result<Answer, Failure> {
        if !(self.may_act)() {
            let text = "this pointsman does not act for the group any more, so nothing is said";
            return Err(Failure::new(FailureKind::Timeout, text));
        }
        self.conn.ask(statement).await
    }
}

async fn say(server: &mut Obeying<'_>, what: &What, told: &Told) -> Result<(), Failure> {
    for statement in what.statements(told) {
        server.ask(&statement).await?;
    }
    Ok(())
}

/// Ends the connections of clients until there are none: by KILL CONNECTION, since KILL QUERY gives
/// a commit that waits for its acknowledgement a false OK (V4). Those of accounts with more rights
/// than ours are left.
async fn end_clients(
    server: &mut Obeying<'_>,
    monitor: &Monitor,
    flavour: Flavour,
) -> Result<(), Failure> {
    let ours = &monitor.user;
    end_connections(server, flavour, |row| is_client(row, ours, flavour)).await
}

/// Ends these connections until there are none.
async fn end_connections(
    server: &mut Obeying<'_>,
    flavour: Flavour,
    which: impl Fn(&Row<'_>) -> bool,
) -> Result<(), Failure> {
    let mut glances = interval(GLANCE);
    for _ in 0..GLANCES {
        glances.tick().await;
        let list = server.ask("SHOW PROCESSLIST").await?;
        let ids = list.rows().filter(|row| which(row)).filter_map(|row| row.named(&["Id"]));
        let clients: Vec<String> = ids.collect();
        let mut told = 0;
        for id in clients {
            let kill = match flavour {
                Flavour::MariaDb => format!("KILL HARD CONNECTION {id}"),
                Flavour::MySql => format!("KILL CONNECTION {id}"),
            };
            match server.ask(&kill).await {
                Ok(_) => told += 1,
                // It has gone by itself, or has more rights than we.
                Err(failure) if matches!(failure.errno, Some(1094 | 1095)) => {}
                Err(failure) => return Err(failure),
            }
        }
        if told == 0 {
            return Ok(());
        }
    }
    Err(Failure::new(FailureKind::Timeout, "connections that were ended are still there"))
}

/// The connection of a client: neither the server's own threads, nor a replica, nor ours. One of
/// ours whose commit waits for an acknowledgement stands in the way as a client's does.
fn is_client(row: &Row<'_>, ours: &str, flavour: Flavour) -> bool {
    let Some(user) = row.named(&["User"]) else { return false };
    let command = row.named(&["Command"]).unwrap_or_default();
    // Who has not logged in yet has written nothing, and finds a server that takes no writes.
    let own = ["system user", "event_scheduler", "unauthenticated user"].contains(&user.as_str());
    let waits = row.named(&["State"]).is_some_and(|state| state.contains("semi-sync"));
    let own = own || user == ours && !waits;
    let replicates = command.starts_with("Binlog Dump") || command == "Daemon";
    // MySQL cuts off the client of a commit that waits, and lets the commit wait on (V4).
    let cut_off = flavour == Flavour::MySql && command == "Killed";
    !own && !replicates && !cut_off
}
