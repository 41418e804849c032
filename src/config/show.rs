//! A configuration as lines of key and value, as the console shows it. Secrets are masked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::PathBuf;

use crate::config::cluster::Cluster;
use crate::config::failover::Failover;
use crate::config::units::{show_duration, show_size};
use crate::config::{Boot, Config, Consistency, Group, LogFormat, Monitor, RoleHint};

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path of the key in the file.
    pub key: String,
    /// Value as the file would write it, without quotes.
    pub value: String,
    /// Whether a reload applies it; the others need a restart.
    pub reloadable: bool,
}

const MASKED: &str = "(hidden)";

impl Config {
    /// Every setting in force, in the order of the file; passwords are masked.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = boot(&self.boot);
        entries.extend(self.boot.cluster.iter().flat_map(cluster));
        entries.extend(monitor(&self.monitor));
        for one in &self.groups {
            entries.extend(group(one));
        }
        entries
    }

    /// Keys whose change a reload cannot apply: what is bound or built once at the start, and
    /// groups that are new or gone. Empty when a reload applies all of `next`.
    #[must_use]
    pub fn needs_restart(&self, next: &Self) -> Vec<String> {
        let fixed = |config: &Self| -> BTreeMap<String, String> {
            let entries = config.entries().into_iter().filter(|entry| !entry.reloadable);
            entries.map(|entry| (entry.key, entry.value)).collect()
        };
        let (before, after) = (fixed(self), fixed(next));
        let mut keys: BTreeSet<String> = before
            .keys()
            .chain(after.keys())
            .filter(|key| before.get(*key) != after.get(*key))
            .cloned()
            .collect();
        // Passwords are masked in entries, so a new one looks like the old one there.
        if self.boot.admin_password != next.boot.admin_password {
            keys.insert("admin_password".to_owned());
        }
        let secret = |config: &Self| config.boot.cluster.as_ref()?.account.clone();
        if secret(self).is_some() && secret(next).is_some() && secret(self) != secret(next) {
            keys.insert("cluster.password".to_owned());
        }
        keys.into_iter().collect()
    }
}

fn boot(boot: &Boot) -> Vec<Entry> {
    let off = || "(off)".to_owned();
    let password = if boot.admin_password.is_some() { MASKED } else { "(generated)" };
    let format = match boot.log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    [
        ("admin", boot.admin.as_ref().map_or_else(off, ToString::to_string)),
        ("admin_user", boot.admin_user.clone()),
        ("admin_password", password.to_owned()),
        ("http", boot.http.as_ref().map_or_else(off, ToString::to_string)),
        ("state_dir", boot.state_dir.display().to_string()),
        ("workers", boot.workers.to_string()),
        ("drain_timeout", show_duration(boot.drain_timeout)),
        ("log_format", format.to_owned()),
        ("log_filter", boot.log_filter.clone()),
    ]
    .into_iter()
    .map(|(key, value)| Entry { key: key.to_owned(), value, reloadable: false })
    .collect()
}

fn cluster(cluster: &Cluster) -> Vec<Entry> {
    let none = || "(none)".to_owned();
    let (account, tls) = (cluster.account.as_ref(), cluster.tls.as_ref());
    let identity = tls.and_then(|tls| tls.identity.clone()).unzip();
    [
        ("etcd", joined(&cluster.etcd)),
        ("locks", cluster.locks.to_string()),
        ("name", cluster.name.clone()),
        ("id", cluster.id.clone().unwrap_or_else(|| "(host and listener)".to_owned())),
        ("lease", show_duration(cluster.lease)),
        ("user", account.map_or_else(none, |account| account.user.clone())),
        ("password", account.map_or_else(none, |_| MASKED.to_owned())),
        ("tls_ca", path(&tls.map(|tls| tls.ca.clone()), "(none)")),
        ("tls_certificate", path(&identity.0, "(none)")),
        ("tls_key", path(&identity.1, "(none)")),
    ]
    .into_iter()
    .map(|(key, value)| Entry { key: format!("cluster.{key}"), value, reloadable: false })
    .collect()
}

fn monitor(monitor: &Monitor) -> Vec<Entry> {
    [
        ("user", monitor.user.clone()),
        ("password", MASKED.to_owned()),
        ("interval", show_duration(monitor.interval)),
        ("timeout", show_duration(monitor.timeout)),
        ("fall", monitor.fall.to_string()),
        ("rise", monitor.rise.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| Entry { key: format!("monitor.{key}"), value, reloadable: true })
    .collect()
}

fn size(bytes: usize) -> String {
    show_size(u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn tls(group: &Group) -> [(&'static str, String); 10] {
    let (clients, servers) = (&group.tls, &group.server_tls);
    [
        ("tls", clients.mode.word().to_owned()),
        ("tls_certificate", path(&clients.certificate, "(generated)")),
        ("tls_key", path(&clients.key, "(generated)")),
        ("tls_client_ca", path(&clients.client_ca, "(none)")),
        ("tls_required_for", joined(&clients.required_for)),
        ("server_tls", servers.mode.word().to_owned()),
        ("server_tls_ca", path(&servers.ca, "(the system's)")),
        ("server_tls_pins", joined(&servers.pins)),
        ("server_tls_certificate", path(&servers.certificate, "(none)")),
        ("server_tls_key", path(&servers.key, "(none)")),
    ]
}

fn group(group: &Group) -> Vec<Entry> {
    let mut entries: Vec<Entry> = [
        ("seeds", joined(&group.seeds)),
        ("consistency", group.consistency.word().to_owned()),
        ("replica_wait", show_duration(group.replica_wait)),
        ("hold", show_duration(group.hold)),
        ("max_lag", show_duration(group.max_lag)),
        ("primary_read_percent", group.primary_read_percent.to_string()),
        ("max_clients", group.max_clients.to_string()),
        ("handshake_timeout", show_duration(group.handshake_timeout)),
        ("idle_timeout", show_duration(group.idle_timeout)),
        ("connect_timeout", show_duration(group.connect_timeout)),
        ("multiplexing", group.links.multiplexing.to_string()),
        ("idle_release", show_duration(group.links.idle_release)),
        ("max_server_links", group.links.max_per_server.to_string()),
        ("max_user_links", group.links.max_per_user.to_string()),
        ("queue_timeout", show_duration(group.links.queue_timeout)),
        ("link_idle_timeout", show_duration(group.links.idle_timeout)),
        ("link_max_age", show_duration(group.links.max_age)),
        ("keep_links", group.links.keep.to_string()),
        ("inspect_limit", size(group.inspect_limit)),
        ("transaction_replay_limit", size(group.transaction_replay_limit)),
        ("commit_outcome", group.commit_outcome.word().to_owned()),
        ("server_compression", group.server_compression.word().to_owned()),
        ("proxy_protocol_from", joined(&group.proxy_protocol_from)),
        ("proxy_protocol_to_servers", group.proxy_protocol_to_servers.to_string()),
    ]
    .into_iter()
    .chain(tls(group))
    .chain(failover(&group.failover))
    .map(|(key, value)| Entry {
        key: format!("groups.{}.{key}", group.name),
        value,
        reloadable: true,
    })
    .collect();
    let listen = Entry {
        key: format!("groups.{}.listen", group.name),
        value: joined(&group.listen),
        reloadable: false,
    };
    entries.insert(0, listen);
    for server in &group.servers {
        let role = match server.role {
            RoleHint::Auto => "auto",
            RoleHint::Replica => "replica",
            RoleHint::Primary => "primary",
        };
        entries.push(Entry {
            key: format!("groups.{}.servers.{}", group.name, server.name),
            value: format!("{}, weight {}, role {role}", server.address, server.weight),
            reloadable: true,
        });
    }
    for user in &group.users {
        entries.push(Entry {
            key: format!("groups.{}.users.{}", group.name, user.name),
            value: MASKED.to_owned(),
            reloadable: true,
        });
    }
    entries
}

fn failover(failover: &Failover) -> [(&'static str, String); 9] {
    let stated = failover.replication.as_ref();
    let user = stated.map_or_else(|| "(made)".to_owned(), |account| account.user.clone());
    [
        ("failover.mode", failover.mode.word().to_owned()),
        ("failover.max_loss", failover.max_loss.word().to_owned()),
        ("failover.anti_flap", show_duration(failover.anti_flap)),
        ("failover.evict_after", show_duration(failover.evict_after)),
        ("failover.pre_hook", failover.pre_hook.join(" ")),
        ("failover.post_hook", failover.post_hook.join(" ")),
        ("failover.hook_timeout", show_duration(failover.hook_timeout)),
        ("failover.replication_user", user),
        ("failover.replication_password", MASKED.to_owned()),
    ]
}

fn path(path: &Option<PathBuf>, without: &str) -> String {
    path.as_ref().map_or_else(|| without.to_owned(), |path| path.display().to_string())
}

fn joined<T: Display>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Consistency {
    /// The word of the configuration file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::Session => "session",
            Self::Global => "global",
        }
    }
}
