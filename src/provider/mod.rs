//! Where servers come from when nobody has any: real processes of our own, on loopback.
//!
//! The demo, the tests, the benches and `pointsman sandbox` all take their servers from here.
//!
//! Does not know: the data path, the topology, the configuration of a proxy in front of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod cli;
pub mod local;
pub mod ports;
pub mod process;
pub mod programs;
pub mod replication;
pub mod server;
pub mod state;

/// Which family of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// `mariadbd` as the system has it, or from a folder that is named.
    Mariadb,
    /// `mysqld`, from the system or from the folder that `scripts/server-folder` makes.
    Mysql,
}

/// Who ends the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// `pointsman sandbox down`, or an operator.
    Detached,
    /// The end of this process, however it ends: the servers are killed, their folder removed.
    Process,
}

/// What servers are to one another when they are up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// A primary, and replicas that follow it and acknowledge.
    Group,
    /// Nothing: each is empty and writable, and follows nobody, as after an installation.
    Strangers,
}

/// When a commit reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Before it is acknowledged: `sync_binlog=1`, `innodb_flush_log_at_trx_commit=1`.
    Full,
    /// Once a second; a killed server loses nothing, a machine without power may.
    Relaxed,
}

/// Where a server lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Where it listens, and where the others find it.
    pub address: IpAddr,
    /// The command that its process is started by, with its arguments: what enters a network
    /// namespace, say. It must become the process, not have it for a child.
    pub through: Vec<String>,
}

impl Default for Host {
    /// This machine's loopback.
    fn default() -> Self {
        Self { address: Ipv4Addr::LOCALHOST.into(), through: Vec::new() }
    }
}

/// A cluster that is wanted.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Family of the servers.
    pub flavour: Flavour,
    /// How many replicas beside the primary.
    pub replicas: usize,
    /// Folder for data, logs and the state file; made if absent, refused if a cluster lives there.
    pub dir: PathBuf,
    /// Who ends the servers.
    pub lifetime: Lifetime,
    /// When a commit reaches the disk.
    pub durability: Durability,
    /// What they are to one another.
    pub relation: Relation,
    /// Further server options, as on the command line (`--slow-query-log=1`).
    pub options: Vec<String>,
    /// Where they live, the primary first; those for whom there is none, on loopback.
    pub hosts: Vec<Host>,
    /// The folder that `scripts/server-folder` made; `None` is the system's MariaDB, and MySQL at
    /// the usual place.
    pub root: Option<PathBuf>,
}

impl Spec {
    /// A primary and two replicas in `dir`, ended by hand.
    #[must_use]
    pub fn new(flavour: Flavour, dir: impl Into<PathBuf>) -> Self {
        Self {
            flavour,
            replicas: 2,
            dir: dir.into(),
            lifetime: Lifetime::Detached,
            durability: Durability::Relaxed,
            relation: Relation::Group,
            options: Vec::new(),
            hosts: Vec::new(),
            root: None,
        }
    }
}

/// What can go wrong with servers of our own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that is needed is not installed.
    #[error("{program} was not found; {advice}")]
    Missing {
        /// Its name.
        program: String,
        /// How to get it.
        advice: String,
    },
    /// A file or folder could not be read or written.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried, e.g. `cannot write`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name.
        program: String,
        /// The end of what it said.
        output: String,
    },
    /// A server did not come up, or went away while it was waited for.
    #[error("server {name} {what}; the end of its log:\n{log}")]
    Server {
        /// Its name in the sandbox.
        name: String,
        /// What happened.
        what: String,
        /// The last lines of its error log.
        log: String,
    },
    /// A statement failed.
    #[error("server {name}: `{statement}`: {source}")]
    Statement {
        /// The server's name in the sandbox.
        name: String,
        /// The statement, passwords left out.
        statement: String,
        /// What the server or the connection said.
        source: mysql_async::Error,
    },
    /// A state that was waited for did not come.
    #[error("waited {seconds} s in vain for {state}")]
    Timeout {
        /// The bound.
        seconds: u64,
        /// What was waited for.
        state: String,
    },
    /// The request makes no sense for this sandbox.
    #[error("{0}")]
    Refused(String),
}
