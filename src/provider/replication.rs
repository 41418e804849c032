//! What the two families are told: options, accounts, and the statements of replication.
//!
//! GTID everywhere, the replica applies what it acknowledges, and the acknowledgement comes before
//! the commit is visible (`AFTER_SYNC`, which is not MariaDB's default).

use std::net::SocketAddr;

use crate::provider::{Durability, Flavour};

/// Name and password of the account that owns everything; by TCP too.
pub const ROOT: (&str, &str) = ("root", "root");
/// Name and password of the application's account: no SUPER, no READ_ONLY ADMIN, so that
/// `read_only` stops it.
pub const APP: (&str, &str) = ("app", "app");
/// Name and password of the account that observes.
pub const MONITOR: (&str, &str) = ("monitor", "monitor");
/// Name and password of an account that observes and may change who is the primary.
pub const KEEPER: (&str, &str) = ("keeper", "keeper");
/// Name and password of the account that replicates.
pub const REPL: (&str, &str) = ("repl", "repl");
/// The application's database.
pub const DATABASE: &str = "app";

/// One server's place among the others.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its `server_id`, unique.
    pub server_id: u32,
    /// Where it listens.
    pub at: SocketAddr,
    /// Whether it begins as a replica.
    pub read_only: bool,
    /// When a commit reaches the disk.
    pub durability: Durability,
}

/// Options that a server of either family runs with, its folders aside.
#[must_use]
pub fn options(flavour: Flavour, place: &Place) -> Vec<String> {
    let (sync_binlog, flush) = match place.durability {
        Durability::Full => (1, 1),
        Durability::Relaxed => (0, 2),
    };
    let mut options = vec![
        format!("--port={}", place.at.port()),
        format!("--bind-address={}", place.at.ip()),
        format!("--server-id={}", place.server_id),
        format!("--report-host={}", place.at.ip()),
        format!("--report-port={}", place.at.port()),
        "--skip-name-resolve".to_owned(),
        "--binlog-format=ROW".to_owned(),
        format!("--sync-binlog={sync_binlog}"),
        format!("--innodb-flush-log-at-trx-commit={flush}"),
        "--innodb-buffer-pool-size=32M".to_owned(),
        "--max-connections=1500".to_owned(),
        "--max-allowed-packet=64M".to_owned(),
        "--local-infile=1".to_owned(),
        "--secure-file-priv=".to_owned(),
        "--log-bin-trust-function-creators=1".to_owned(),
        "--general-log=0".to_owned(),
        "--log-output=FILE".to_owned(),
    ];
    let family: &[&str] = match flavour {
        Flavour::Mariadb => &[
            "--log-slave-updates=1",
            "--gtid-strict-mode=1",
            "--performance-schema=0",
            "--innodb-log-file-size=64M",
            "--slave-net-timeout=4",
            "--init-rpl-role=SLAVE",
            "--rpl-semi-sync-slave-enabled=1",
            "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
            "--rpl-semi-sync-slave-kill-conn-timeout=1",
        ],
        Flavour::Mysql => &[
            "--log-replica-updates=1",
            "--gtid-mode=ON",
            "--enforce-gtid-consistency=ON",
            "--mysqlx=OFF",
            "--innodb-redo-log-capacity=256M",
            "--replica-net-timeout=4",
            "--table-open-cache=400",
            "--plugin-load-add=semisync_source.so",
            "--plugin-load-add=semisync_replica.so",
            "--loose-rpl-semi-sync-replica-enabled=1",
            "--loose-rpl-semi-sync-source-wait-point=AFTER_SYNC",
        ],
    };
    options.extend(family.iter().map(|option| (*option).to_owned()));
    // Only the primary asks for acknowledgements: a replica that does (it has no replicas of its
    // own) stops applying at the first event until the timeout, on both families.
    let (replica, primary) = (u8::from(place.read_only), u8::from(!place.read_only));
    options.push(format!("--read-only={replica}"));
    match flavour {
        Flavour::Mariadb => options.push(format!("--rpl-semi-sync-master-enabled={primary}")),
        Flavour::Mysql => {
            options.push(format!("--super-read-only={replica}"));
            options.push(format!("--loose-rpl-semi-sync-source-enabled={primary}"));
        }
    }
    options
}

/// Options, after [`options`], of a server that belongs to no group yet: it takes writes, and waits
/// for nobody.
#[must_use]
pub fn as_installed(flavour: Flavour) -> &'static [&'static str] {
    match flavour {
        Flavour::Mariadb => &["--read-only=0", "--rpl-semi-sync-master-enabled=0"],
        Flavour::Mysql => {
            &["--read-only=0", "--super-read-only=0", "--loose-rpl-semi-sync-source-enabled=0"]
        }
    }
}

/// The accounts and the application's database, one statement a line. They are written into the
/// data directory before it is copied, so that every server has them and no GTID speaks of them.
#[must_use]
pub fn accounts(flavour: Flavour) -> String {
    let grants: &[(&str, &str)] = match flavour {
        Flavour::Mariadb => &[
            (MONITOR.0, "PROCESS, BINLOG MONITOR, SLAVE MONITOR, REPLICATION MASTER ADMIN ON *.*"),
            (MONITOR.0, "SELECT ON mysql.*"),
            (REPL.0, "REPLICATION SLAVE ON *.*"),
            (APP.0, APP_GRANTS),
            (APP.0, "BINLOG MONITOR, SLAVE MONITOR, DELETE HISTORY ON *.*"),
        ],
        Flavour::Mysql => &[
            (MONITOR.0, "PROCESS, REPLICATION CLIENT, REPLICATION SLAVE ON *.*"),
            (MONITOR.0, "SELECT ON mysql.*"),
            (MONITOR.0, "SELECT ON performance_schema.*"),
            (REPL.0, "REPLICATION SLAVE ON *.*"),
            (APP.0, APP_GRANTS),
            (APP.0, "REPLICATION CLIENT ON *.*"),
            (APP.0, "XA_RECOVER_ADMIN ON *.*"),
        ],
    };
    let mut lines = vec!["FLUSH PRIVILEGES;".to_owned()];
    if flavour == Flavour::Mariadb {
        // The installer's accounts without a password: nobody, and root on every local address.
        let strangers = "User = '' OR (User = 'root' AND Host <> 'localhost')";
        lines.push(format!("DELETE FROM mysql.global_priv WHERE {strangers};"));
        lines.push("FLUSH PRIVILEGES;".to_owned());
    }
    lines.push(format!("ALTER USER 'root'@'localhost' IDENTIFIED BY '{}';", ROOT.1));
    for (user, password) in [ROOT, MONITOR, REPL, APP] {
        lines.push(format!("CREATE USER '{user}'@'%' IDENTIFIED BY '{password}';"));
    }
    lines.push(format!("GRANT ALL PRIVILEGES ON *.* TO '{}'@'%' WITH GRANT OPTION;", ROOT.0));
    for (user, grant) in grants {
        lines.push(format!("GRANT {grant} TO '{user}'@'%';"));
    }
    lines.push(format!("CREATE DATABASE {DATABASE};"));
    lines.push(String::new());
    lines.join("\n")
}

/// The statements that make the account [`KEEPER`], with no more rights than it needs;
/// docs/operating.md has the same lists.
#[must_use]
pub fn keeper_account(flavour: Flavour) -> Vec<String> {
    let (user, password) = KEEPER;
    let rights: &[&str] = match flavour {
        Flavour::Mariadb => &[KEEPER_OF_MARIADB, "SELECT ON mysql.*"],
        Flavour::Mysql => &[KEEPER_OF_MYSQL, "SELECT ON mysql.*", "SELECT ON performance_schema.*"],
    };
    let mut all = vec![format!("CREATE USER '{user}'@'%' IDENTIFIED BY '{password}'")];
    all.extend(rights.iter().map(|right| format!("GRANT {right} TO '{user}'@'%'")));
    // It makes the account by which servers that come back replicate.
    all.push(format!("GRANT REPLICATION SLAVE ON *.* TO '{user}'@'%' WITH GRANT OPTION"));
    all
}

/// What a keeper may do.
const KEEPER_OF_MARIADB: &str = "PROCESS, RELOAD, CREATE USER, BINLOG MONITOR, BINLOG ADMIN, \
    SLAVE MONITOR, REPLICATION MASTER ADMIN, REPLICATION SLAVE ADMIN, READ_ONLY ADMIN, \
    CONNECTION ADMIN, EVENT, SET USER ON *.*";
/// The same on MySQL.
const KEEPER_OF_MYSQL: &str = "PROCESS, RELOAD, CREATE USER, REPLICATION CLIENT, \
    REPLICATION_SLAVE_ADMIN, SYSTEM_VARIABLES_ADMIN, CONNECTION_ADMIN, EVENT, \
    SET_ANY_DEFINER ON *.*";

/// What the application may do on everything.
const APP_GRANTS: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS, FILE, \
    REFERENCES, INDEX, ALTER, SHOW DATABASES, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, \
    CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, CREATE USER, EVENT, TRIGGER ON *.*";

/// Makes a server a replica of the one at this address, and starts it.
#[must_use]
pub fn follow(flavour: Flavour, source: SocketAddr) -> Vec<String> {
    let (user, password) = REPL;
    let (host, port) = (source.ip(), source.port());
    match flavour {
        Flavour::Mariadb => vec![
            format!(
                "CHANGE MASTER TO MASTER_HOST = '{host}', MASTER_PORT = {port}, \
                 MASTER_USER = '{user}', MASTER_PASSWORD = '{password}', \
                 MASTER_CONNECT_RETRY = 1, MASTER_HEARTBEAT_PERIOD = 1, \
                 MASTER_USE_GTID = slave_pos"
            ),
            "START SLAVE".to_owned(),
        ],
        Flavour::Mysql => vec![
            format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{host}', SOURCE_PORT = {port}, \
                 SOURCE_USER = '{user}', SOURCE_PASSWORD = '{password}', \
                 SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 86400, \
                 SOURCE_HEARTBEAT_PERIOD = 1, \
                 SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1"
            ),
            "START REPLICA".to_owned(),
        ],
    }
}

/// Before [`follow`]: stops following whom it follows now, and asks for no acknowledgements. On an
/// old primary that must come after the new one has caught up, as it lets waiting commits through.
#[must_use]
pub fn before_following(flavour: Flavour) -> &'static [&'static str] {
    match flavour {
        Flavour::Mariadb => &["STOP SLAVE", "SET GLOBAL rpl_semi_sync_master_enabled = 0"],
        Flavour::Mysql => &["STOP REPLICA", "SET GLOBAL rpl_semi_sync_source_enabled = 0"],
    }
}

/// Forgets that it ever followed, and takes writes.
#[must_use]
pub fn become_primary(flavour: Flavour) -> &'static [&'static str] {
    match flavour {
        Flavour::Mariadb => &[
            "STOP SLAVE",
            "RESET SLAVE ALL",
            "SET GLOBAL rpl_semi_sync_master_enabled = 1",
            "SET GLOBAL read_only = 0",
        ],
        Flavour::Mysql => &[
            "STOP REPLICA",
            "RESET REPLICA ALL",
            "SET GLOBAL rpl_semi_sync_source_enabled = 1",
            "SET GLOBAL read_only = 0",
        ],
    }
}

/// Takes no more writes, root's included where the family can do that.
#[must_use]
pub fn step_down(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SET GLOBAL read_only = 1",
        Flavour::Mysql => "SET GLOBAL super_read_only = 1",
    }
}

/// Before an old primary of MariaDB follows: it goes on from what it wrote itself.
#[must_use]
pub fn carry_position(flavour: Flavour) -> Option<&'static str> {
    match flavour {
        Flavour::Mariadb => Some("SET GLOBAL gtid_slave_pos = @@global.gtid_binlog_pos"),
        Flavour::Mysql => None,
    }
}

/// The query for what a server has executed, as text that [`wait_for`] takes.
#[must_use]
pub fn position(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SELECT @@global.gtid_binlog_pos",
        Flavour::Mysql => "SELECT @@global.gtid_executed",
    }
}

/// The query that waits until `position` is applied, at most `seconds`; it answers 0 when it is.
#[must_use]
pub fn wait_for(flavour: Flavour, position: &str, seconds: u64) -> String {
    match flavour {
        Flavour::Mariadb => format!("SELECT MASTER_GTID_WAIT('{position}', {seconds})"),
        Flavour::Mysql => format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', {seconds})"),
    }
}

/// The query that answers 1 when a server receives from another one and applies.
#[must_use]
pub fn following(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => {
            "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS \
             WHERE VARIABLE_NAME = 'SLAVES_RUNNING'"
        }
        Flavour::Mysql => {
            "SELECT COUNT(*) FROM performance_schema.replication_connection_status \
             WHERE SERVICE_STATE = 'ON'"
        }
    }
}

/// The query that answers how many replicas acknowledge semi-synchronously and have been sent all
/// there is.
#[must_use]
pub fn acknowledging(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => {
            "SELECT LEAST( \
               (SELECT CAST(VARIABLE_VALUE AS UNSIGNED) FROM information_schema.GLOBAL_STATUS \
                WHERE VARIABLE_NAME = 'RPL_SEMI_SYNC_MASTER_CLIENTS'), \
               (SELECT COUNT(*) FROM information_schema.PROCESSLIST \
                WHERE COMMAND = 'Binlog Dump' AND STATE LIKE 'Master has sent all binlog%'))"
        }
        Flavour::Mysql => {
            "SELECT LEAST( \
               (SELECT CAST(VARIABLE_VALUE AS UNSIGNED) FROM performance_schema.global_status \
                WHERE VARIABLE_NAME = 'Rpl_semi_sync_source_clients'), \
               (SELECT COUNT(*) FROM performance_schema.processlist \
                WHERE COMMAND = 'Binlog Dump GTID' AND STATE LIKE 'Source has sent all binlog%'))"
        }
    }
}
