//! Probing: one warm connection a server, two to MySQL, two questions a probe.
//!
//! The connection is kept, so that a frozen server, which still accepts connections, is found
//! by the missing answer. When it is lost it is made again within the same probe.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::time::{sleep, timeout};

use crate::config::Monitor;
use crate::health::connect::{Connection, open};
use crate::health::facts::Greeted;
use crate::health::observation::{
    Attached, Failure, FailureKind, LogPlace, Seen, Source, latest_start,
};
use crate::health::probe::{Ask, Probe};
use crate::protocol::answer::Row;
use crate::tls::trust::Trust;
use crate::topology::gtid::GtidSet;
use crate::topology::{Flavour, ServerFacts};

/// What both families are asked of themselves as servers, in the order of [`seen`].
macro_rules! of_the_server {
    () => {
        "@@global.max_allowed_packet, @@global.wait_timeout, @@global.interactive_timeout, \
         @@global.sql_mode, USER(), @@hostname, @@port, @@global.max_connections, \
         @@global.require_secure_transport, @@global.init_connect, "
    };
}

/// What a session begins with in both families, for a comparison of servers.
macro_rules! of_sessions {
    () => {
        "@@global.max_allowed_packet, @@global.sql_mode, @@global.time_zone, \
         @@global.character_set_server, @@global.collation_server, @@global.lc_time_names, \
         @@global.group_concat_max_len, @@global.div_precision_increment, \
         @@global.default_week_format, @@global.max_sort_length, @@global.sql_select_limit, \
         @@global.sql_big_selects, @@global.sql_auto_is_null, @@global.default_storage_engine, \
         @@global.max_error_count, @@global.sql_notes, @@global.init_connect"
    };
}

/// How trackers are set when a session begins, in both families.
macro_rules! of_trackers {
    () => {
        "CONCAT_WS('/', @@global.session_track_schema, @@global.session_track_state_change, \
         @@global.session_track_transaction_info, @@global.session_track_system_variables"
    };
}

/// One question for everything but replication, in the order of [`seen`].
const MARIADB_VARIABLES: &str = concat!(
    "SELECT SQL_NO_CACHE @@global.server_id, '', @@global.read_only, @@global.gtid_binlog_pos, \
     @@global.gtid_slave_pos, ",
    of_the_server!(),
    "CONCAT_WS('/', ",
    of_sessions!(),
    ", @@global.tx_isolation, @@global.enforce_storage_engine), \
     @@global.default_storage_engine, @@global.have_query_cache, ",
    of_trackers!(),
    ")",
);
const MYSQL_VARIABLES: &str = concat!(
    "SELECT @@global.server_id, @@global.server_uuid, \
     (@@global.read_only OR @@global.super_read_only), @@global.gtid_executed, '', ",
    of_the_server!(),
    "CONCAT_WS('/', ",
    of_sessions!(),
    ", @@global.transaction_isolation), @@global.default_storage_engine, '', ",
    of_trackers!(),
    ", @@global.session_track_gtids)",
);

/// How long a server that shuts down may take to go through all connections.
const A_MOMENT: Duration = Duration::from_millis(50);

/// How long a server takes at most that has said goodbye: it gives connections 10 s (MySQL 9.7).
const LEAVES_WITHIN: Duration = Duration::from_secs(15);
/// How long a second link may take to be there once the first has answered.
const ANOTHER_WITHIN: Duration = Duration::from_millis(100);

/// Probes one server.
#[derive(Debug)]
pub struct MysqlProbe {
    address: Arc<str>,
    monitor: Monitor,
    trust: Arc<ArcSwap<Trust>>,
    /// Used by turns, each taken out meanwhile: when a look is dropped half-way, its link is gone
    /// with it. A MySQL server that shuts down breaks those on which something runs, says goodbye
    /// to what comes next on others, and takes no new ones: there are two of them.
    links: VecDeque<Link>,
    /// When the server has said goodbye, where it has taken no connection since.
    leaving: Option<Instant>,
}

#[derive(Debug)]
struct Link {
    conn: Connection,
    /// When the server was started at the latest: another life has another link.
    started: Option<Instant>,
    /// By which the server was believed.
    trust: Arc<Trust>,
}

// === impls ===

impl MysqlProbe {
    /// A probe of the server at `address`; connects when it is first asked.
    #[must_use]
    pub fn new(address: Arc<str>, monitor: &Monitor, trust: Arc<ArcSwap<Trust>>) -> Self {
        Self { address, monitor: monitor.clone(), trust, links: VecDeque::new(), leaving: None }
    }

    fn keep(&mut self, link: Link) {
        self.links.extend(Some(link).filter(|link| link.conn.is_sound()));
    }

    /// Keeps a link that has answered, and sees to that there are as many as there should be.
    async fn answered(&mut self, link: Link, seen: Result<Seen, Failure>) -> Result<Seen, Failure> {
        let says_goodbye = link.conn.greeted().flavour == Flavour::MySql;
        self.keep(link);
        if seen.is_ok() {
            self.leaving = None;
            // What was seen is not to wait for long for that.
            if says_goodbye
                && self.links.len() < 2
                && let Ok(Ok(other)) = timeout(ANOTHER_WITHIN, self.connect()).await
            {
                self.keep(other);
            }
        }
        seen
    }

    async fn connect(&self) -> Result<Link, Failure> {
        let trust = self.trust.load_full();
        let mut conn = open(&self.address, &self.monitor, &trust).await?;
        let uptime = conn.ask("SHOW GLOBAL STATUS LIKE 'Uptime'").await?;
        let uptime = uptime.first().and_then(|row| row.text(1)?.parse().ok());
        let started =
            uptime.and_then(|uptime| latest_start(Instant::now(), Duration::from_secs(uptime)));
        Ok(Link { conn, started, trust })
    }
}

impl Probe for MysqlProbe {
    async fn observe(&mut self, ask: Ask) -> Result<Seen, Failure> {
        let mut has_broken = false;
        while let Some(mut link) = self.links.pop_front() {
            // One that was believed by other rules is made anew.
            if !Arc::ptr_eq(&link.trust, &self.trust.load()) {
                continue;
            }
            let seen = match has_broken {
                true => link.look_after_a_break(ask).await,
                false => link.look(ask).await,
            };
            match seen {
                Err(failure) if failure.kind == FailureKind::Unreachable => {
                    if failure.is_goodbye() {
                        self.leaving = Some(Instant::now());
                    }
                    has_broken = true;
                }
                answer => return self.answered(link, answer).await,
            }
        }
        let is_leaving = self.leaving.is_some_and(|since| since.elapsed() < LEAVES_WITHIN);
        let mut link = match self.connect().await {
            Err(failure) if is_leaving => return Err(failure.after_goodbye()),
            connected => connected?,
        };
        self.leaving = None;
        let seen = link.look(ask).await;
        self.answered(link, seen).await
    }
}

impl Link {
    /// Looks where another link has just broken: the server may be shutting down. SHOW REPLICA
    /// STATUS does not mind that, and the connection ends behind it without a word (MySQL 9.7,
    /// measured).
    async fn look_after_a_break(&mut self, ask: Ask) -> Result<Seen, Failure> {
        sleep(A_MOMENT).await;
        self.conn.ask("SELECT 1").await?;
        self.look(ask).await
    }

    async fn look(&mut self, ask: Ask) -> Result<Seen, Failure> {
        let flavour = self.conn.greeted().flavour;
        let sources = self.sources().await?;
        let question = match flavour {
            Flavour::MariaDb => MARIADB_VARIABLES,
            Flavour::MySql => MYSQL_VARIABLES,
        };
        let answer = self.conn.ask(question).await?;
        let row = answer.first().ok_or_else(|| puzzling("the variables"))?;
        let mut seen = Seen { started: self.started, ..seen(&self.conn, &row, sources)? };
        if ask == Ask::StateAndReplicas {
            match self.attached().await {
                Ok(replicas) => seen.replicas = Some(replicas),
                Err(failure) if failure.kind == FailureKind::Denied => {
                    seen.note = format!("its replicas cannot be discovered: {failure}");
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(seen)
    }

    async fn sources(&mut self) -> Result<Vec<Source>, Failure> {
        let answer = self.conn.ask(status_statement(self.conn.greeted())).await?;
        Ok(answer.rows().filter_map(source).collect())
    }

    async fn attached(&mut self) -> Result<Vec<Attached>, Failure> {
        let question =
            if says_replica(self.conn.greeted()) { "SHOW REPLICAS" } else { "SHOW SLAVE HOSTS" };
        let answer = self.conn.ask(question).await?;
        let mut attached: Vec<Attached> = answer
            .rows()
            .filter_map(|row| {
                Some(Attached {
                    host: row.named(&["Host"]).unwrap_or_default(),
                    port: row.named(&["Port"])?.parse().ok()?,
                    server_id: row.named(&["Server_Id"])?.parse().ok()?,
                })
            })
            .collect();
        if attached.iter().any(|replica| replica.host.is_empty()) {
            let hosts = self.dump_hosts().await?;
            name_hosts(&mut attached, &hosts);
        }
        attached.retain(|replica| !replica.host.is_empty() && replica.port != 0);
        Ok(attached)
    }

    /// Where binlog dump connections come from.
    async fn dump_hosts(&mut self) -> Result<Vec<String>, Failure> {
        let answer = self.conn.ask("SHOW PROCESSLIST").await?;
        let dumps = answer.rows().filter(|row| {
            row.named(&["Command"]).is_some_and(|command| command.starts_with("Binlog Dump"))
        });
        let peers = dumps.filter_map(|row| row.named(&["Host"]));
        Ok(peers
            .map(|peer| peer.rsplit_once(':').map(|(host, _)| host.to_owned()).unwrap_or(peer))
            .collect())
    }
}

fn says_replica(greeted: &Greeted) -> bool {
    greeted.flavour.says_replica(greeted.version)
}

/// What shows a server's links to those that it replicates from, a row each.
#[must_use]
pub fn status_statement(greeted: &Greeted) -> &'static str {
    match greeted.flavour {
        Flavour::MariaDb => "SHOW ALL SLAVES STATUS",
        Flavour::MySql if says_replica(greeted) => "SHOW REPLICA STATUS",
        Flavour::MySql => "SHOW SLAVE STATUS",
    }
}

/// Gives replicas that report no host the one where their dump connection comes from, as far as
/// that is certain: all come from one host, or all listen on one port and so may be swapped.
fn name_hosts(attached: &mut [Attached], hosts: &[String]) {
    let Some(first) = hosts.first() else { return };
    let one_host = hosts.iter().all(|host| host == first);
    let one_port = attached.windows(2).all(|pair| match pair {
        [left, right] => left.port == right.port,
        _ => true,
    });
    if one_host {
        for replica in attached.iter_mut().filter(|replica| replica.host.is_empty()) {
            replica.host.clone_from(first);
        }
    } else if one_port && attached.len() == hosts.len() {
        let named: Vec<String> = attached.iter().map(|replica| replica.host.clone()).collect();
        let mut free = hosts.iter().filter(|host| !named.contains(host));
        for replica in attached.iter_mut().filter(|replica| replica.host.is_empty()) {
            if let Some(host) = free.next() {
                replica.host.clone_from(host);
                // Which of the hosts has which id is not known.
                replica.server_id = 0;
            }
        }
    }
}

fn puzzling(what: &str) -> Failure {
    Failure::new(FailureKind::Puzzling, format!("the answer for {what} is not understood"))
}

fn seen(conn: &Connection, row: &Row<'_>, sources: Vec<Source>) -> Result<Seen, Failure> {
    let greeting = conn.greeted();
    let text = |at: usize| row.text(at).unwrap_or_default();
    let number = |at: usize| text(at).parse::<u64>().unwrap_or(0);
    let set = |at: usize| GtidSet::parse(greeting.flavour, &text(at));
    let own = set(3).ok_or_else(|| puzzling("the executed GTIDs"))?;
    let applied = set(4).ok_or_else(|| puzzling("the replicated GTIDs"))?;
    let (executed, replicated) = match greeting.flavour {
        Flavour::MySql => (own.clone(), own),
        Flavour::MariaDb => {
            let mut executed = own;
            executed.union(&applied);
            (executed, applied)
        }
    };
    let server_id = u32::try_from(number(0)).map_err(|_| puzzling("server_id"))?;
    let user = text(9);
    let server_uuid = text(1);
    let identity = if server_uuid.is_empty() {
        format!("{server_id}@{}:{}", text(10), text(11))
    } else {
        server_uuid.clone()
    };
    let facts = ServerFacts {
        flavour: greeting.flavour,
        version: greeting.version,
        version_text: greeting.version_text.clone(),
        capabilities: greeting.greeting.capabilities.0,
        mariadb_capabilities: greeting.greeting.mariadb.0,
        collation: greeting.greeting.collation,
        status: greeting.greeting.status.0,
        auth_plugin: greeting.auth_plugin.clone(),
        server_id,
        server_uuid: Arc::from(server_uuid),
        max_allowed_packet: number(5),
        wait_timeout: number(6),
        interactive_timeout: number(7),
        sql_mode: Arc::from(text(8)),
        max_connections: u32::try_from(number(12)).unwrap_or(u32::MAX),
        require_secure_transport: number(13) == 1,
        init_connect: !text(14).is_empty(),
        transport: conn.transport(),
        session_defaults: Arc::from(text(15)),
        storage_engine: Arc::from(text(16)),
        // Only MariaDB is asked.
        query_cache: text(17).eq_ignore_ascii_case("yes"),
        trackers: Arc::from(text(18)),
        sees_us_as: Arc::from(user.rsplit_once('@').map_or("", |(_, host)| host)),
    };
    Ok(Seen {
        facts: Arc::new(facts),
        identity: Arc::from(identity),
        started: None,
        // Later MariaDB versions have words for degrees of read-only.
        read_only: !matches!(text(2).as_str(), "0" | "OFF"),
        executed,
        replicated,
        sources,
        replicas: None,
        note: String::new(),
    })
}

/// A row of the replication status; `None` for channels without a source (group replication).
#[must_use]
pub fn source(row: Row<'_>) -> Option<Source> {
    let get = |names: &[&str]| row.named(names).unwrap_or_default();
    let host = get(&["Source_Host", "Master_Host"]);
    if host.is_empty() || host == "<NULL>" {
        return None;
    }
    let errors = [get(&["Last_IO_Error"]), get(&["Last_SQL_Error"])];
    let errors: Vec<String> = errors.into_iter().filter(|error| !error.is_empty()).collect();
    let behind = get(&["Seconds_Behind_Source", "Seconds_Behind_Master"]);
    Some(Source {
        host,
        port: get(&["Source_Port", "Master_Port"]).parse().unwrap_or(3306),
        server_id: get(&["Source_Server_Id", "Master_Server_Id"]).parse().unwrap_or(0),
        server_uuid: get(&["Source_UUID", "Master_UUID"]),
        receiving: get(&["Replica_IO_Running", "Slave_IO_Running"]) == "Yes",
        receiver_stopped: get(&["Replica_IO_Running", "Slave_IO_Running"]) == "No",
        refused: matches!(get(&["Last_IO_Errno"]).as_str(), "1236" | "13114"),
        applying: get(&["Replica_SQL_Running", "Slave_SQL_Running"]) == "Yes",
        applier_failed: !matches!(get(&["Last_SQL_Errno"]).as_str(), "" | "0"),
        error: errors.join("; "),
        user: get(&["Source_User", "Master_User"]),
        by_gtid: get(&["Using_Gtid"]).eq_ignore_ascii_case("slave_pos")
            || get(&["Auto_Position"]) == "1",
        seconds_behind: behind.parse().ok(),
        read: place(
            get(&["Source_Log_File", "Master_Log_File"]),
            &get(&["Read_Source_Log_Pos", "Read_Master_Log_Pos"]),
        ),
    })
}

/// A place in a binary log; `None` where no file is named.
#[must_use]
pub fn place(file: String, at: &str) -> Option<LogPlace> {
    let at = at.parse().ok().filter(|_| !file.is_empty())?;
    Some(LogPlace { file, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached(host: &str, port: u16, server_id: u32) -> Attached {
        Attached { host: host.to_owned(), port, server_id }
    }

    #[test]
    fn hosts_are_given_only_where_they_are_certain() {
        let hosts = |list: &[&str]| list.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>();
        let mut same_host = [attached("", 3307, 2), attached("", 3308, 3)];
        name_hosts(&mut same_host, &hosts(&["10.0.0.1", "10.0.0.1"]));
        assert_eq!(same_host, [attached("10.0.0.1", 3307, 2), attached("10.0.0.1", 3308, 3)]);

        let mut same_port = [attached("", 3306, 2), attached("", 3306, 3)];
        name_hosts(&mut same_port, &hosts(&["10.0.0.2", "10.0.0.3"]));
        assert_eq!(same_port, [attached("10.0.0.2", 3306, 0), attached("10.0.0.3", 3306, 0)]);

        let mut unclear = [attached("", 3306, 2), attached("", 3307, 3)];
        name_hosts(&mut unclear, &hosts(&["10.0.0.2", "10.0.0.3"]));
        assert_eq!(unclear, [attached("", 3306, 2), attached("", 3307, 3)]);
    }
}
