//! Asking every server of a group at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::app::tasks;
use crate::config::Monitor;
use crate::failover::event::{self, Event};
use crate::failover::report::{Report, Told};
use crate::failover::standing;
use crate::health::connect::{Connection, open};
use crate::health::observation::{Failure, FailureKind, Source};
use crate::health::probe_mysql::{source, status_statement};
use crate::protocol::answer::{Answer, Row};
use crate::tls::trust::Trust;
use crate::topology::gtid::{GtidSet, MariaDbState};
use crate::topology::{Condition, Flavour, Node, Topology};

/// How long a server may take to tell everything.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// How long each server may take; one without any is not asked.
pub type Patience<'a> = &'a (dyn Fn(&Node) -> Option<Duration> + Sync);

/// The counters that are asked for.
const COUNTERS: &str = "SHOW GLOBAL STATUS WHERE Variable_name LIKE 'rpl\\_semi\\_sync\\_%' \
     OR Variable_name IN ('Uptime', 'Rpl_status')";

/// How soon a server is to be asked again for the connection of the last time to do.
const AGAIN_WITHIN: Duration = Duration::from_millis(500);

/// Connections that have answered a moment ago, by address: a change of the primary asks at each of
/// its steps, while sessions wait, and a login takes longer than the questions.
#[derive(Debug, Default)]
pub struct Answered(Mutex<BTreeMap<Arc<str>, (Instant, Connection)>>);

impl Answered {
    /// The connection of this server, if it has answered a moment ago; old ones are closed.
    fn take(&self, address: &str) -> Option<Connection> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (at, _)| at.elapsed() < AGAIN_WITHIN);
        all.remove(address).map(|(_, connection)| connection)
    }

    fn keep(&self, address: Arc<str>, connection: Connection) {
        if connection.is_sound() {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(address, (Instant::now(), connection));
        }
    }
}

/// Asks all servers of the topology that are not excluded, with the monitor's account; each may
/// take as long as `patience` says of it, and one without any is not asked.
pub async fn survey(
    topology: &Topology,
    monitor: &Monitor,
    trust: &Arc<Trust>,
    patience: Patience<'_>,
) -> Vec<Report> {
    survey_again(topology, monitor, trust, &Arc::default(), patience).await
}

/// The same, over the connections of a moment ago where there are any.
pub async fn survey_again(
    topology: &Topology,
    monitor: &Monitor,
    trust: &Arc<Trust>,
    answered: &Arc<Answered>,
    patience: Patience<'_>,
) -> Vec<Report> {
    let mut asking = Vec::new();
    for node in topology.nodes.iter().filter(|node| node.condition != Condition::Excluded) {
        let Some(patience) = patience(node) else { continue };
        let (id, name, address) = (node.id, node.name.clone(), node.address.clone());
        let (monitor, trust, answered) = (monitor.clone(), trust.clone(), answered.clone());
        asking.push(tasks::spawn("survey", async move {
            let asked = ask(address, &monitor, &trust, &answered);
            let told = timeout(patience, asked).await.unwrap_or_else(|_| {
                let text = format!("no answer within {} ms", patience.as_millis());
                Err(Failure::new(FailureKind::Timeout, text))
            });
            Report { node: id, name, told }
        }));
    }
    let mut reports = Vec::new();
    for answer in asking {
        reports.extend(answer.await);
    }
    reports
}

async fn ask(
    address: Arc<str>,
    monitor: &Monitor,
    trust: &Trust,
    answered: &Answered,
) -> Result<Told, Failure> {
    if let Some(mut server) = answered.take(&address)
        && let Ok(told) = tell(&mut server).await
    {
        answered.keep(address, server);
        return Ok(told);
    }
    // What a connection of before does not answer, it may have ended with its server.
    let mut server = open(&address, monitor, trust).await?;
    let told = tell(&mut server).await?;
    answered.keep(address, server);
    Ok(told)
}

/// All that a server tells.
async fn tell(server: &mut Connection) -> Result<Told, Failure> {
    let (flavour, version) = (server.greeted().flavour, server.greeted().version);
    let names: Vec<&str> = standing::variable_names().collect();
    let names = names.join("', '");
    let question = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ('{names}')");
    // A server answers for those that it has.
    let variables = pairs(&server.ask(&question).await?);
    let counters = pairs(&server.ask(COUNTERS).await?);
    let status = server.ask(status_statement(server.greeted())).await?;
    let sources: Vec<Source> = status.rows().filter_map(source).collect();
    let (executed, applied, history, clock) = positions(server, flavour).await?;
    let mut received = applied.clone();
    let texts = |row: Row<'_>| row.named(&["Gtid_IO_Pos", "Retrieved_Gtid_Set"]);
    for text in status.rows().filter_map(texts) {
        let more =
            GtidSet::parse(flavour, &text).ok_or_else(|| puzzling("what it has received"))?;
        received.union(&more);
    }
    // Of a replica nobody wants to know: all of them rest there.
    let events = match sources.is_empty() {
        true => server.ask(event::question(flavour)).await.ok(),
        false => None,
    };
    Ok(Told {
        flavour,
        version,
        variables,
        counters,
        clock,
        executed,
        history,
        received,
        applied,
        sources,
        events: events.map(|events| events.rows().filter_map(event).collect()),
        // Where that cannot be told, nothing follows from it.
        has_no_room: server.ask(without_room(flavour)).await.is_ok_and(|told| is_told(&told)),
    })
}

/// How to ask whether a commit waits for room on the disk with the binary log (measured). MariaDB
/// says so of the session. MySQL says so in its error log, once in ten minutes, and that a session
/// commits.
fn without_room(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::MariaDb => {
            "SELECT COUNT(*) FROM information_schema.processlist \
             WHERE state = 'Waiting for someone to free space'"
        }
        Flavour::MySql => {
            "SELECT COUNT(*) FROM performance_schema.processlist \
             WHERE state = 'waiting for handler commit' AND time >= 2 AND EXISTS \
             (SELECT * FROM performance_schema.error_log WHERE error_code = 'MY-000035' \
             AND logged > NOW() - INTERVAL 11 MINUTE)"
        }
    }
}

fn event(row: Row<'_>) -> Option<Event> {
    Event::of(&[row.text(0)?, row.text(1)?, row.text(2)?, row.text(3)?])
}

fn is_told(count: &Answer) -> bool {
    count.first().and_then(|row| row.text(0)).is_some_and(|count| count != "0")
}

/// What it has executed, what of that is its source's, on MariaDB by whom it was written, and its
/// clock.
async fn positions(
    server: &mut Connection,
    flavour: Flavour,
) -> Result<(GtidSet, GtidSet, MariaDbState, Option<u64>), Failure> {
    let question = match flavour {
        Flavour::MariaDb => {
            "SELECT @@global.gtid_binlog_pos, @@global.gtid_slave_pos, @@global.gtid_binlog_state, \
             UNIX_TIMESTAMP()"
        }
        Flavour::MySql => {
            "SELECT @@global.gtid_executed, @@global.gtid_executed, '', UNIX_TIMESTAMP()"
        }
    };
    let answer = server.ask(question).await?;
    let row = answer.first().ok_or_else(|| puzzling("its positions"))?;
    let text = |at| row.text(at).unwrap_or_default();
    let set = |at| GtidSet::parse(flavour, &text(at)).ok_or_else(|| puzzling("its positions"));
    let (mut executed, applied) = (set(0)?, set(1)?);
    executed.union(&applied);
    let history = MariaDbState::parse(&text(2)).ok_or_else(|| puzzling("its history"))?;
    Ok((executed, applied, history, text(3).parse().ok()))
}

/// Names in lower case with their values.
fn pairs(answer: &Answer) -> BTreeMap<String, String> {
    let pair = |row: Row<'_>| Some((row.text(0)?.to_ascii_lowercase(), row.text(1)?));
    answer.rows().filter_map(pair).collect()
}

fn puzzling(what: &str) -> Failure {
    Failure::new(FailureKind::Puzzling, format!("its answer about {what} is not understood"))
}
