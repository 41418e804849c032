//! The file as serde sees it; unknown keys are errors.
//!
//! Values are kept as they are written, whatever their type, so that `resolve` can refuse all
//! wrong ones in one go and say for each what is allowed.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Console address.
    pub admin: Option<Scalar>,
    /// Console user.
    pub admin_user: Option<Scalar>,
    /// Console password.
    pub admin_password: Option<Hidden>,
    /// File that holds the console password.
    pub admin_password_file: Option<Scalar>,
    /// Address of metrics, health and readiness.
    pub http: Option<Scalar>,
    /// Directory for what outlives the process.
    pub state_dir: Option<Scalar>,
    /// Worker threads.
    pub workers: Option<Scalar>,
    /// Time for running work at shutdown.
    pub drain_timeout: Option<Scalar>,
    /// Log format.
    pub log_format: Option<Scalar>,
    /// Log filter.
    pub log_filter: Option<Scalar>,
    /// What is shared with other pointsman.
    pub cluster: Option<Cluster>,
    /// How servers are observed.
    #[serde(default)]
    pub monitor: Monitor,
    /// Groups by name.
    #[serde(default)]
    pub groups: BTreeMap<String, Group>,
    /// Accounts stated here instead of being learnt.
    #[serde(default)]
    pub users: Vec<User>,
}

/// `[monitor]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// Account name.
    pub user: Option<Scalar>,
    /// Its password.
    pub password: Option<Hidden>,
    /// File that holds its password.
    pub password_file: Option<Scalar>,
    /// Time between probes.
    pub interval: Option<Scalar>,
    /// Longest probe.
    pub timeout: Option<Scalar>,
    /// Failures until down.
    pub fall: Option<Scalar>,
    /// Successes until up.
    pub rise: Option<Scalar>,
}

/// `[cluster]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Members of etcd.
    pub etcd: Option<OneOrMany>,
    /// The servers' locks in place of it.
    pub locks: Option<Scalar>,
    /// What keys begin with.
    pub name: Option<Scalar>,
    /// Who this one is.
    pub id: Option<Scalar>,
    /// How long it outlives its last sign of life.
    pub lease: Option<Scalar>,
    /// Account at etcd.
    pub user: Option<Scalar>,
    /// Its password.
    pub password: Option<Hidden>,
    /// File that holds its password.
    pub password_file: Option<Scalar>,
    /// Authorities of etcd's certificates.
    pub tls_ca: Option<Scalar>,
    /// Certificate towards etcd.
    pub tls_certificate: Option<Scalar>,
    /// Its key.
    pub tls_key: Option<Scalar>,
}

/// `[groups.NAME]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// One address or several.
    pub listen: Option<OneOrMany>,
    /// Where discovery starts.
    pub seeds: Option<OneOrMany>,
    /// A fixed list instead.
    #[serde(default)]
    pub servers: Vec<Server>,
    /// Freshness of reads.
    pub consistency: Option<Scalar>,
    /// Wait on a replica.
    pub replica_wait: Option<Scalar>,
    /// Wait for a primary.
    pub hold: Option<Scalar>,
    /// Lag limit.
    pub max_lag: Option<Scalar>,
    /// Share of reads for the primary.
    pub primary_read_percent: Option<Scalar>,
    /// Most clients.
    pub max_clients: Option<Scalar>,
    /// Login deadline.
    pub handshake_timeout: Option<Scalar>,
    /// Idle deadline.
    pub idle_timeout: Option<Scalar>,
    /// Server connection deadline.
    pub connect_timeout: Option<Scalar>,
    /// Whether idle sessions give up their links.
    pub multiplexing: Option<Scalar>,
    /// When an idle session gives up a link that nobody waits for.
    pub idle_release: Option<Scalar>,
    /// Most links to one server.
    pub max_server_links: Option<Scalar>,
    /// Most links to one server by one user.
    pub max_user_links: Option<Scalar>,
    /// Longest wait for a link.
    pub queue_timeout: Option<Scalar>,
    /// When an unused link is closed.
    pub link_idle_timeout: Option<Scalar>,
    /// When a link is handed over no more.
    pub link_max_age: Option<Scalar>,
    /// Unused links that are kept.
    pub keep_links: Option<Scalar>,
    /// Largest inspected command.
    pub inspect_limit: Option<Scalar>,
    /// How much of a transaction is kept.
    pub transaction_replay_limit: Option<Scalar>,
    /// Whether lost commits are told their outcome.
    pub commit_outcome: Option<Scalar>,
    /// Whether clients use TLS.
    pub tls: Option<Scalar>,
    /// Certificate towards clients.
    pub tls_certificate: Option<Scalar>,
    /// Its key.
    pub tls_key: Option<Scalar>,
    /// Authorities of clients' certificates.
    pub tls_client_ca: Option<Scalar>,
    /// Users that must come by TLS.
    pub tls_required_for: Option<OneOrMany>,
    /// Whether servers are spoken to in TLS.
    pub server_tls: Option<Scalar>,
    /// Authorities of servers' certificates.
    pub server_tls_ca: Option<Scalar>,
    /// Keys of servers that are believed.
    pub server_tls_pins: Option<OneOrMany>,
    /// Certificate towards servers.
    pub server_tls_certificate: Option<Scalar>,
    /// Its key.
    pub server_tls_key: Option<Scalar>,
    /// Whether servers are spoken to in compressed packets.
    pub server_compression: Option<Scalar>,
    /// Peers whose PROXY header is believed.
    pub proxy_protocol_from: Option<OneOrMany>,
    /// Whether a PROXY header is sent.
    pub proxy_protocol_to_servers: Option<Scalar>,
    /// When the primary dies.
    #[serde(default)]
    pub failover: Failover,
}

/// `[groups.NAME.failover]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failover {
    /// Whether servers are changed.
    pub mode: Option<Scalar>,
    /// What may be lost.
    pub max_loss: Option<Scalar>,
    /// Time between two failovers.
    pub anti_flap: Option<Scalar>,
    /// Program that may say no to a change of the primary.
    pub pre_hook: Option<OneOrMany>,
    /// Program that is told of it.
    pub post_hook: Option<OneOrMany>,
    /// Longest run of either.
    pub hook_timeout: Option<Scalar>,
    /// Time after which a replica that is away is not needed any more.
    pub evict_after: Option<Scalar>,
    /// Account by which servers replicate.
    pub replication_user: Option<Scalar>,
    /// Its password.
    pub replication_password: Option<Hidden>,
    /// A file with it.
    pub replication_password_file: Option<Scalar>,
}

/// `[[groups.NAME.servers]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// `host:port` or a socket path.
    pub address: Option<Scalar>,
    /// Shown name.
    pub name: Option<Scalar>,
    /// Share of reads.
    pub weight: Option<Scalar>,
    /// What it may be.
    pub role: Option<Scalar>,
}

/// `[[users]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Account name.
    pub name: Option<Scalar>,
    /// Its password.
    pub password: Option<Hidden>,
    /// File that holds its password.
    pub password_file: Option<Scalar>,
    /// Groups it may log in to.
    pub groups: Option<OneOrMany>,
}

/// One value of whatever type was written.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each is the TOML type that it names")]
pub enum Scalar {
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Other(toml::Value),
}

/// A value that is never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub Scalar);

/// `key = "a"` and `key = ["a", "b"]` alike.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the names say it")]
pub enum OneOrMany {
    Many(Vec<Scalar>),
    One(Scalar),
}

/// Why a file is not TOML, or has a key that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct SyntaxError {
    /// Line of the file, from 1.
    pub line: usize,
    /// What is wrong there. It never quotes the line itself, which may hold a password.
    pub message: String,
}

// === impls ===

/// Reads the text of a configuration file.
///
/// # Errors
/// When it is not TOML, or has a key that does not exist.
pub fn parse(text: &str) -> Result<File, SyntaxError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or_default();
        SyntaxError {
            line: before.matches('\n').count() + 1,
            message: error.message().lines().collect::<Vec<_>>().join(", "),
        }
    })
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Other(value) => write!(f, "a TOML {}", value.type_str()),
        }
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(..)")
    }
}

impl OneOrMany {
    /// The values in the order of the file.
    #[must_use]
    pub fn values(&self) -> Vec<&Scalar> {
        match self {
            Self::Many(values) => values.iter().collect(),
            Self::One(value) => vec![value],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_what_exists() {
        let error = parse("admin = \"x\"\n[monitor]\nintervall = \"1s\"\n").unwrap_err();
        assert_eq!(error.line, 3);
        assert!(error.message.contains("intervall"), "{error}");
        assert!(error.message.contains("`interval`"), "{error}");
    }

    #[test]
    fn a_syntax_error_never_quotes_the_line() {
        for text in [
            "[monitor]\npassword = \"hunter2\n",
            "[monitor]\npassword = hunter2\n",
            "[monitor]\npassword = [\"hunter2\"\n",
        ] {
            let error = parse(text).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
            assert!(error.line >= 2, "{error}");
        }
    }

    #[test]
    fn debug_output_hides_passwords() {
        let file = parse("admin_password = \"hunter2\"\n[monitor]\npassword = \"hunter3\"\n");
        assert!(!format!("{file:?}").contains("hunter"));
    }
}
