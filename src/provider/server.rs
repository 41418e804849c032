//! One server of a sandbox: where it is, what it does, and statements to it as root.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::provider::local::{GLANCE, PATIENCE};
use crate::provider::replication::{APP, DATABASE, ROOT};
use crate::provider::state::Entry;
use crate::provider::{Error, Host, process};

/// One server of a sandbox.
#[derive(Debug, Clone)]
pub struct Server {
    /// `db1`, `db2` ...
    pub name: String,
    /// Where it lives.
    pub host: Host,
    /// Its TCP port there.
    pub port: u16,
    /// Unix socket.
    pub socket: PathBuf,
    /// Its `server_id`.
    pub server_id: u32,
    /// Folder with its data, its logs and its pid.
    pub dir: PathBuf,
}

/// What a server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It runs.
    Running,
    /// It was stopped by a signal and answers nobody.
    Frozen,
    /// There is no process.
    Dead,
}

impl Server {
    pub(super) fn new(dir: &Path, entry: &Entry) -> Self {
        Self {
            name: entry.name.clone(),
            host: entry.host.clone(),
            port: entry.port,
            socket: entry.socket.clone(),
            server_id: entry.server_id,
            dir: dir.join(&entry.name),
        }
    }

    /// Where it is found.
    #[must_use]
    pub fn at(&self) -> SocketAddr {
        SocketAddr::new(self.host.address, self.port)
    }

    /// `127.0.0.1:port`, where it lives on loopback.
    #[must_use]
    pub fn address(&self) -> String {
        self.at().to_string()
    }

    /// The application's account on this server, by TCP.
    #[must_use]
    pub fn dsn(&self) -> String {
        dsn(self.at())
    }

    /// How to connect as `account` (name, password), by TCP, to the application's database.
    #[must_use]
    pub fn opts(&self, account: (&str, &str)) -> Opts {
        opts_at(self.at(), account)
    }

    /// A connection as `account` (name, password).
    ///
    /// # Errors
    /// When the server does not let it in within five seconds.
    pub async fn connect(&self, account: (&str, &str)) -> Result<Conn, mysql_async::Error> {
        let bound = Duration::from_secs(5);
        match tokio::time::timeout(bound, Conn::new(self.opts(account))).await {
            Ok(result) => result,
            Err(late) => Err(std::io::Error::from(late).into()),
        }
    }

    /// Runs statements as root, one after the other.
    ///
    /// # Errors
    /// At the first that fails.
    pub async fn run<S: AsRef<str>>(&self, statements: &[S]) -> Result<(), Error> {
        let mut conn = self.connect(ROOT).await.map_err(|e| self.failed("connecting", e))?;
        for statement in statements {
            let statement = statement.as_ref();
            conn.query_drop(statement).await.map_err(|e| self.failed(statement, e))?;
        }
        conn.disconnect().await.map_err(|e| self.failed("disconnecting", e))
    }

    /// Asks as root for one value; NULL and no row at all are the empty text.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn ask(&self, query: &str) -> Result<String, Error> {
        let mut conn = self.connect(ROOT).await.map_err(|e| self.failed("connecting", e))?;
        let value: Option<Option<String>> =
            conn.query_first(query).await.map_err(|e| self.failed(query, e))?;
        conn.disconnect().await.map_err(|e| self.failed("disconnecting", e))?;
        Ok(value.flatten().unwrap_or_default())
    }

    /// What its process is doing.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match self.pid() {
            Some(pid) if process::is_alive(pid, &self.mark()) => {
                if process::is_stopped(pid) {
                    Condition::Frozen
                } else {
                    Condition::Running
                }
            }
            _ => Condition::Dead,
        }
    }

    /// The pid of its latest process, if it was ever started.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.dir.join("pid")).ok()?.trim().parse().ok()
    }

    /// The general log; written while `general_log` is on.
    #[must_use]
    pub fn general_log(&self) -> PathBuf {
        self.dir.join("general.log")
    }

    /// The error log.
    #[must_use]
    pub fn error_log(&self) -> PathBuf {
        self.dir.join("error.log")
    }

    /// The folder of its binary logs.
    #[must_use]
    pub fn binary_logs(&self) -> PathBuf {
        self.dir.join("binlog")
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            process::signal(pid, &self.mark(), signal);
        }
    }

    pub(super) async fn wait_gone(&self) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        while self.condition() != Condition::Dead {
            if Instant::now() > until {
                let what = format!("did not end within {} s", PATIENCE.as_secs());
                return Err(Error::Server { name: self.name.clone(), what, log: self.log_end() });
            }
            sleep(GLANCE).await;
        }
        Ok(())
    }

    /// What distinguishes its command line from all others.
    fn mark(&self) -> String {
        format!("--datadir={}", self.dir.join("data").display())
    }

    /// The last lines of its logs.
    pub(super) fn log_end(&self) -> String {
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let console = read(self.dir.join("console.log"));
        last_lines(&format!("{console}{}", read(self.error_log())))
    }

    /// The statement's error; a password in it is not repeated.
    fn failed(&self, statement: &str, source: mysql_async::Error) -> Error {
        let shown = statement.split("_PASSWORD").next().unwrap_or_default();
        Error::Statement { name: self.name.clone(), statement: shown.to_owned(), source }
    }
}

/// How to reach `port` on loopback as `account`, past no unix socket.
#[must_use]
pub fn opts(port: u16, account: (&str, &str)) -> Opts {
    opts_at((Ipv4Addr::LOCALHOST, port).into(), account)
}

/// How to reach `at` as `account`, past no unix socket.
#[must_use]
pub fn opts_at(at: SocketAddr, account: (&str, &str)) -> Opts {
    // Drivers ask for @@socket on loopback and continue there, which is not what is being tested.
    OptsBuilder::default()
        .ip_or_hostname(at.ip().to_string())
        .tcp_port(at.port())
        .user(Some(account.0))
        .pass(Some(account.1))
        .db_name(Some(DATABASE))
        .prefer_socket(Some(false))
        .into()
}

/// The application's data source name for `at`.
#[must_use]
pub fn dsn(at: SocketAddr) -> String {
    format!("mysql://{}:{}@{at}/{DATABASE}", APP.0, APP.1)
}

/// The end of `text`.
#[must_use]
pub fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}
