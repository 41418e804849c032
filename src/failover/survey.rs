//! Asking every server of a group at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::app::tasks;
use crate::config::Monitor;
use crate::failover::ackers::OWN_ACCOUNT;
use crate::failover::event::{self, Event};
use crate::failover::relay::{self, Reader, Relay};
use crate::failover::report::{Made, RELAY_LOG_RECOVERY, Report, Told};
use crate::failover::standing;
use crate::health::connect::{Connection, open};
use crate::health::observation::{Failure, FailureKind, LogPlace, Source};
use crate::health::probe_mysql::{place, source, status_statement};
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

/// How long a relay log may be looked through, and how many events of it at once.
const RELAY_MAX: Duration = Duration::from_secs(2);
const PAGE: usize = 500;
/// How long a server may take to say where its binary log ends.
const WRITTEN_MAX: Duration = Duration::from_millis(300);
/// There is no log of this name.
const NO_SUCH_LOG: u16 = 1220;

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
    // Only a failover asks for relay logs, which may be long.
    let reads_relay = topology.nodes.iter().any(|node| node.condition == Condition::Down);
    for node in topology.nodes.iter().filter(|node| node.condition != Condition::Excluded) {
        let Some(patience) = patience(node) else { continue };
        let (id, name, address) = (node.id, node.name.clone(), node.address.clone());
        let (monitor, trust, answered) = (monitor.clone(), trust.clone(), answered.clone());
        asking.push(tasks::spawn("survey", async move {
            let asked = ask(address, &monitor, &trust, &answered, reads_relay);
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
    reads_relay: bool,
) -> Result<Told, Failure> {
    if let Some(mut server) = answered.take(&address)
        && let Ok(told) = tell(&mut server, reads_relay).await
    {
        answered.keep(address, server);
        return Ok(told);
    }
    // What a connection of before does not answer, it may have ended with its server.
    let mut server = open(&address, monitor, trust).await?;
    let told = tell(&mut server, reads_relay).await?;
    answered.keep(address, server);
    Ok(told)
}

/// All that a server tells.
async fn tell(server: &mut Connection, reads_relay: bool) -> Result<Told, Failure> {
    let (flavour, version) = (server.greeted().flavour, server.greeted().version);
    let names: Vec<&str> = standing::variable_names().collect();
    let names = names.join("', '");
    let question = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ('{names}')");
    // A server answers for those that it has.
    let variables = pairs(&server.ask(&question).await?);
    let counters = pairs(&server.ask(COUNTERS).await?);
    let status = server.ask(status_statement(server.greeted())).await?;
    let sources: Vec<Source> = status.rows().filter_map(source).collect();
    let (executed, applied, history, started) = positions(server, flavour).await?;
    let mut received = applied.clone();
    let texts = |row: Row<'_>| row.named(&["Gtid_IO_Pos", "Retrieved_Gtid_Set"]);
    for text in status.rows().filter_map(texts) {
        let more =
            GtidSet::parse(flavour, &text).ok_or_else(|| puzzling("what it has received"))?;
        received.union(&more);
    }
    // Of a replica nobody wants to know: all of them rest there.
    let (mut events, mut made) = (None, None);
    if sources.is_empty() {
        events = server.ask(event::question(flavour)).await.ok();
        made = server.ask(&accounts_made(flavour)).await.ok().map(|answer| made_of(&answer));
    }
    let mut told = Told {
        flavour,
        version,
        variables,
        counters,
        started,
        executed,
        history,
        received,
        applied,
        sources,
        events: events.map(|events| events.rows().filter_map(event).collect()),
        // Where that cannot be told, nothing follows from it.
        made,
        written: None,
        relay: None,
        has_no_room: server.ask(without_room(flavour)).await.is_ok_and(|told| is_told(&told)),
    };
    told.written = written(server, &told).await;
    if reads_relay && has_relay_log_at_rest(&told) {
        let found = timeout(RELAY_MAX, relay(server, &told.applied)).await.unwrap_or_else(|_| {
            let seconds = RELAY_MAX.as_secs();
            Err(format!("its relay log is too long to be looked through in {seconds} s"))
        });
        let found = found.map(|relay| relay.on(&told));
        if let Ok(Relay { outlived: true, received, .. }) = &found {
            told.received.union(received);
        }
        told.relay = Some(found);
    }
    Ok(told)
}

/// Whether what it has received and not applied would be deleted by the next start of a thread, and
/// was not by the start of the server.
fn has_relay_log_at_rest(told: &Told) -> bool {
    told.rests() && !told.is_on(RELAY_LOG_RECOVERY)
}

/// Reads the relay log, from its first file to its last.
async fn relay(server: &mut Connection, applied: &GtidSet) -> Result<Relay, String> {
    let failed = |failure: Failure| format!("its relay log cannot be read: {failure}");
    let first = server.ask("SHOW RELAYLOG EVENTS LIMIT 1").await.map_err(failed)?;
    let first = first.first().and_then(|row| row.text(0));
    let mut file = first.ok_or("its relay log has no first file")?;
    let mut reader = Reader::new(applied);
    loop {
        reader.on_file(&file);
        let mut from = 4;
        loop {
            let page = format!("SHOW RELAYLOG EVENTS IN '{file}' FROM {from} LIMIT {PAGE}");
            let page = server.ask(&page).await.map_err(failed)?;
            let (mut count, mut last) = (0, from);
            for row in page.rows() {
                let (at, kind, info) = (row.text(1), row.text(2), row.text(5));
                let at = at.and_then(|at| at.parse().ok()).ok_or("its relay log has no offsets")?;
                // A page begins with what the last one has ended with.
                if count > 0 || from == 4 {
                    let (kind, info) = (kind.unwrap_or_default(), info.unwrap_or_default());
                    reader.on_event(relay::Event { at, kind: &kind, info: &info });
                }
                (count, last) = (count + 1, at);
            }
            if count < PAGE {
                break;
            }
            from = last;
        }
        file = relay::following(&file).ok_or("its relay logs have no numbers")?;
        match server.ask(&format!("SHOW RELAYLOG EVENTS IN '{file}' LIMIT 1")).await {
            Ok(_) => {}
            Err(failure) if failure.errno == Some(NO_SUCH_LOG) => return reader.finish(),
            Err(failure) => return Err(failed(failure)),
        }
    }
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

/// How to ask for the accounts that pointsman has made, and whether each is locked; and for those
/// by which somebody is logged in, who stays that when his is locked.
fn accounts_made(flavour: Flavour) -> String {
    let (table, locked, connections) = match flavour {
        Flavour::MariaDb => (
            "global_priv",
            "COALESCE(JSON_VALUE(Priv, '$.account_locked'), 'N')",
            "information_schema.processlist",
        ),
        Flavour::MySql => ("user", "account_locked", "performance_schema.processlist"),
    };
    let ours = format!("WHERE LEFT(User, {}) = '{OWN_ACCOUNT}'", OWN_ACCOUNT.len());
    format!(
        "SELECT User, {locked} FROM mysql.{table} {ours} \
         UNION SELECT User, 'N' FROM {connections} {ours}"
    )
}

fn made_of(answer: &Answer) -> Made {
    let mut made = Made::default();
    for (user, locked) in answer.rows().filter_map(|row| Some((row.text(0)?, row.text(1)?))) {
        match matches!(locked.as_str(), "1" | "true" | "Y") {
            true => made.locked.insert(user),
            false => made.open.insert(user),
        };
    }
    made
}

/// Where its binary log ends, where that matters. Commits that wait for an acknowledgement, and
/// keep others waiting, keep this waiting, too: so it is not asked for where none would come, and
/// not for long.
async fn written(server: &mut Connection, told: &Told) -> Option<LogPlace> {
    let is_locked = told.made.as_ref().is_some_and(|made| !made.locked.is_empty());
    if told.flavour == Flavour::MariaDb || !is_locked || !standing::acknowledging(told) {
        return None;
    }
    let question = match told.version >= 80_400 {
        true => "SHOW BINARY LOG STATUS",
        false => "SHOW MASTER STATUS",
    };
    let answer = timeout(WRITTEN_MAX, server.ask(question)).await.ok()?.ok()?;
    let row = answer.first()?;
    place(row.text(0)?, &row.text(1)?)
}

fn event(row: Row<'_>) -> Option<Event> {
    Event::of(&[row.text(0)?, row.text(1)?, row.text(2)?, row.text(3)?])
}

fn is_told(count: &Answer) -> bool {
    count.first().and_then(|row| row.text(0)).is_some_and(|count| count != "0")
}

/// An expression for the second in which a server was started, by its own clock, since 1970: in one
/// statement its clock and its uptime are of one moment, and their difference is the same all its
/// life (10.11, 9.7, measured).
pub(super) fn started(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::MariaDb => {
            "(SELECT UNIX_TIMESTAMP() - CAST(VARIABLE_VALUE AS UNSIGNED) \
             FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'UPTIME')"
        }
        Flavour::MySql => {
            "(SELECT UNIX_TIMESTAMP() - CAST(VARIABLE_VALUE AS UNSIGNED) \
             FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Uptime')"
        }
    }
}

/// What it has executed, what of that is its source's, on MariaDB by whom it was written, and when
/// it was started.
async fn positions(
    server: &mut Connection,
    flavour: Flavour,
) -> Result<(GtidSet, GtidSet, MariaDbState, Option<u64>), Failure> {
    let positions = match flavour {
        Flavour::MariaDb => {
            "@@global.gtid_binlog_pos, @@global.gtid_slave_pos, @@global.gtid_binlog_state"
        }
        Flavour::MySql => "@@global.gtid_executed, @@global.gtid_executed, ''",
    };
    let answer = server.ask(&format!("SELECT {positions}, {}", started(flavour))).await?;
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

pub(super) fn puzzling(what: &str) -> Failure {
    Failure::new(FailureKind::Puzzling, format!("its answer about {what} is not understood"))
}
