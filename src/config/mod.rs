//! What the operator asked for, resolved: every key has a value, every value is typed.
//!
//! Does not know: files being watched, sockets, or what any part does with a setting.
//! Syntax first ([`raw`]), meaning second ([`resolve`]); the rest of the program sees only this.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::cluster::Cluster;
use crate::config::failover::Failover;
use crate::config::outcome::CommitOutcome;
use crate::config::tls::{ClientTls, ServerTls};
use crate::config::units::Secret;
use crate::topology::Promotion;

pub mod address;
pub mod cluster;
pub mod failover;
pub mod outcome;
pub mod raw;
pub mod resolve;
pub mod show;
pub mod tls;
pub mod units;

/// The whole configuration of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Console addresses and the HTTP address; a change needs a restart.
    pub boot: Boot,
    /// How servers are observed.
    pub monitor: Monitor,
    /// One entry per group of servers, each with its own listener.
    pub groups: Vec<Arc<Group>>,
}

/// What is bound or built once at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Where the console listens for MySQL clients; `None` switches it off.
    pub admin: Option<ListenAddress>,
    /// Where metrics, health and readiness are served; `None` switches it off.
    pub http: Option<SocketAddr>,
    /// Directory for what must outlive the process: the generated console password.
    pub state_dir: PathBuf,
    /// Worker threads; each owns its sessions. Default: the number of CPUs.
    pub workers: usize,
    /// Log format.
    pub log_format: LogFormat,
    /// Log filter in `tracing` syntax, e.g. `info` or `pointsman=debug`.
    pub log_filter: String,
    /// The console's user name.
    pub admin_user: String,
    /// The console's password; `None` means one is generated into `state_dir`.
    pub admin_password: Option<Secret>,
    /// How long running work may take after SIGTERM before its connection is closed.
    pub drain_timeout: Duration,
    /// The store that is shared with other pointsman; `None` for one that is alone.
    pub cluster: Option<Cluster>,
}

/// A TCP address or a unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// `host:port`.
    Tcp(SocketAddr),
    /// An absolute path.
    Unix(PathBuf),
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The observing side: account and rhythm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// Account used for probing, discovery and reading other accounts' plugins and hashes.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Time between two probes of one server.
    pub interval: Duration,
    /// A probe that takes longer has failed.
    pub timeout: Duration,
    /// Consecutive failures before a server is called down.
    pub fall: u32,
    /// Consecutive successes before a server that was down is used again.
    pub rise: u32,
}

/// The rhythm where the file does not say otherwise; no account.
impl Default for Monitor {
    fn default() -> Self {
        Self {
            user: String::new(),
            password: Secret::new(String::new()),
            interval: Duration::from_millis(500),
            timeout: Duration::from_secs(2),
            fall: 3,
            rise: 2,
        }
    }
}

/// One group of servers: a primary, its replicas, and the listener in front of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name, unique.
    pub name: Arc<str>,
    /// Where applications connect.
    pub listen: Vec<ListenAddress>,
    /// Where discovery starts; the rest is found by walking replication both ways.
    pub seeds: Vec<Arc<str>>,
    /// A fixed list of servers; when not empty nothing is discovered.
    pub servers: Vec<Server>,
    /// How fresh a replica must be for a read.
    pub consistency: Consistency,
    /// How long a read may wait on a replica that lacks the session's last write before it
    /// goes to the primary.
    pub replica_wait: Duration,
    /// How long a request that was not sent yet waits for a primary.
    pub hold: Duration,
    /// Replicas further behind than this take no reads.
    pub max_lag: Duration,
    /// Share of replica-able reads that go to the primary all the same, in percent (0-100).
    pub primary_read_percent: u8,
    /// Most clients at a time; one more gets 1040.
    pub max_clients: usize,
    /// Time for a client to finish its login.
    pub handshake_timeout: Duration,
    /// A client idle for longer is closed; zero leaves that to the server's `wait_timeout`.
    pub idle_timeout: Duration,
    /// Time to connect and log in to a server.
    pub connect_timeout: Duration,
    /// How links to servers are shared between clients, and how many there may be.
    pub links: Links,
    /// Largest command that is inspected (and kept for a retry) whole; larger ones are streamed
    /// to the primary, bytes.
    pub inspect_limit: usize,
    /// How much of an open transaction is kept so that it can be done again on another primary,
    /// bytes; 0 keeps nothing.
    pub transaction_replay_limit: usize,
    /// Whether a write whose answer was lost is told its outcome.
    pub commit_outcome: CommitOutcome,
    /// TLS towards clients.
    pub tls: ClientTls,
    /// TLS towards servers.
    pub server_tls: ServerTls,
    /// Compression towards servers.
    pub server_compression: ServerCompression,
    /// Peers (addresses or networks) whose PROXY protocol header is believed, and required.
    pub proxy_protocol_from: Vec<Network>,
    /// Whether a PROXY v2 header is sent to the servers (MariaDB: `proxy-protocol-networks`).
    pub proxy_protocol_to_servers: bool,
    /// Accounts stated here instead of being learnt from the primary.
    pub users: Vec<User>,
    /// What is done when the primary dies.
    pub failover: Failover,
}

/// Every setting as it is where the file does not say otherwise; no name, no address.
impl Default for Group {
    fn default() -> Self {
        Self {
            name: Arc::from(""),
            listen: Vec::new(),
            seeds: Vec::new(),
            servers: Vec::new(),
            consistency: Consistency::Session,
            replica_wait: Duration::from_millis(100),
            hold: Duration::from_secs(15),
            max_lag: Duration::from_secs(10),
            primary_read_percent: 0,
            max_clients: 10_000,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::ZERO,
            connect_timeout: Duration::from_secs(3),
            links: Links::default(),
            inspect_limit: 1 << 20,
            transaction_replay_limit: 1 << 20,
            commit_outcome: CommitOutcome::default(),
            tls: ClientTls::default(),
            server_tls: ServerTls::default(),
            server_compression: ServerCompression::default(),
            proxy_protocol_from: Vec::new(),
            proxy_protocol_to_servers: false,
            users: Vec::new(),
            failover: Failover::default(),
        }
    }
}

/// Whether and how the connections to servers are compressed, where a server can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServerCompression {
    /// Not at all.
    #[default]
    Off,
    /// By zlib: both families.
    Zlib,
    /// By zstd: MySQL 8.0.18 and later.
    Zstd,
}

impl ServerCompression {
    /// The word of the configuration file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// How links to servers are shared between clients, and how many there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// Whether an idle session gives its links up to others of the same user.
    pub multiplexing: bool,
    /// How long an idle session keeps a link that nobody waits for.
    pub idle_release: Duration,
    /// Most links to one server, of all workers together; 0 leaves a tenth of what the server
    /// allows to others.
    pub max_per_server: u32,
    /// Most links to one server by one user; 0 for no bound of its own.
    pub max_per_user: u32,
    /// How long a request waits for a link when there is none to be had.
    pub queue_timeout: Duration,
    /// A link that nobody has used for this long is closed.
    pub idle_timeout: Duration,
    /// A link older than this is not handed over any more: it logged in with the global
    /// privileges of that time.
    pub max_age: Duration,
    /// Idle links by user and server that are never closed for being idle.
    pub keep: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            multiplexing: true,
            idle_release: Duration::from_secs(1),
            max_per_server: 0,
            max_per_user: 0,
            queue_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            max_age: Duration::from_secs(3600),
            keep: 1,
        }
    }
}

/// One server of a fixed list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `host:port` or the path of a unix socket.
    pub address: Arc<str>,
    /// Name shown to operators; the address when not given.
    pub name: Arc<str>,
    /// Share of reads; 0 takes none.
    pub weight: u32,
    /// Whether it may ever be treated as the primary.
    pub role: RoleHint,
}

/// What the operator says a server may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleHint {
    /// Whatever replication says.
    Auto,
    /// Never the primary.
    Replica,
    /// Preferred as the primary when two look alike (it never overrules replication facts).
    Primary,
}

impl RoleHint {
    /// What that means where a primary is to be chosen.
    #[must_use]
    pub fn promotion(self) -> Promotion {
        match self {
            Self::Auto => Promotion::Usual,
            Self::Primary => Promotion::Preferred,
            Self::Replica => Promotion::Never,
        }
    }
}

/// How fresh a replica must be for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Any replica within the lag limit.
    Eventual,
    /// A replica that has applied the session's own writes; reads never go back in time.
    Session,
    /// A replica that has applied all that was committed before the read began.
    Global,
}

/// An address with a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Network address.
    pub address: std::net::IpAddr,
    /// Leading bits that count.
    pub prefix: u8,
}

/// An account stated in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User name.
    pub name: String,
    /// Its password.
    pub password: Secret,
}

impl Network {
    /// Whether `peer` is in this network; v4-mapped v6 addresses count as v4.
    #[must_use]
    pub fn contains(&self, peer: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        match (self.address, peer.to_canonical()) {
            (V4(net), V4(ip)) => {
                let shift = 32u32.saturating_sub(u32::from(self.prefix));
                net.to_bits().checked_shr(shift) == ip.to_bits().checked_shr(shift)
            }
            (V6(net), V6(ip)) => {
                let shift = 128u32.saturating_sub(u32::from(self.prefix));
                net.to_bits().checked_shr(shift) == ip.to_bits().checked_shr(shift)
            }
            (V4(_), V6(_)) | (V6(_), V4(_)) => false,
        }
    }
}
