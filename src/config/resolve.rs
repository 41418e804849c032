//! From the raw file to the typed configuration; each refusal names key, value and what is allowed.
//!
//! All refusals of a file are collected, so that one run of `check-config` shows them all.
//! Nothing is read from the disk here: whoever calls brings a way to read password files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::raw::{self, OneOrMany, Scalar};
use crate::config::units::{self, DURATION_FORM, SIZE_FORM, Secret};
use crate::config::{
    Boot, Config, Consistency, Group, ListenAddress, LogFormat, Network, RoleHint, Server, User,
    address,
};

mod cluster;
mod failover;
mod links;
mod monitor;
mod tls;

/// Reads a password file; the error is a sentence for the operator.
pub type ReadSecret<'a> = &'a dyn Fn(&Path) -> Result<Secret, String>;

/// How fresh a replica must be for a read, by its word.
const CONSISTENCY: [(&str, Consistency); 3] = [
    ("session", Consistency::Session),
    ("eventual", Consistency::Eventual),
    ("global", Consistency::Global),
];

/// The weight of a server for which none is given; so that a share can be halved or doubled
/// without touching its siblings.
pub const DEFAULT_WEIGHT: u32 = 100;

/// Most servers of one group: counters on the data path are arrays of this size.
pub const MAX_SERVERS: usize = 64;

/// One value that cannot stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: {allowed}")]
pub struct Refusal {
    /// Path of the key, e.g. `groups.main.hold`.
    pub key: String,
    /// The value as written; passwords are never shown.
    pub value: String,
    /// What is allowed there.
    pub allowed: String,
}

/// All that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub Vec<Refusal>);

/// Collects refusals while values are being read; a refused value counts as its default, so
/// that reading goes on.
struct Reader<'a> {
    refusals: Vec<Refusal>,
    read_secret: ReadSecret<'a>,
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

// === resolving ===

/// Turns a raw file into a configuration in which every key has a value. `cpus` is the default
/// number of workers.
///
/// # Errors
/// All refusals of the file.
pub fn resolve(
    file: &raw::File,
    cpus: usize,
    read_secret: ReadSecret<'_>,
) -> Result<Config, Refused> {
    let mut reader = Reader { refusals: Vec::new(), read_secret };
    let boot = reader.boot(file, cpus);
    let monitor = reader.monitor(&file.monitor);
    let users = reader.users(&file.users, &file.groups);
    if file.groups.is_empty() {
        reader.refuse("groups", "nothing", "at least one [groups.NAME] with listen and seeds");
    }
    let mut groups = Vec::new();
    for (name, group) in &file.groups {
        let mine = users.iter().filter(|(_, only)| only.is_empty() || only.contains(name));
        let mine: Vec<User> = mine.map(|(user, _)| user.clone()).collect();
        if mine.is_empty() && !users.is_empty() {
            let allowed = "at least one that may log in to each group: with a list, only those \
                           on it may";
            reader.refuse("users", format!("none for groups.{name}"), allowed);
        }
        groups.push(Arc::new(reader.group(name, group, mine)));
    }
    reader.distinct_listeners(&boot, &groups);
    reader.shared_groups(boot.cluster.as_ref(), &groups);
    if reader.refusals.is_empty() {
        Ok(Config { boot, monitor, groups })
    } else {
        Err(Refused(reader.refusals))
    }
}

impl Reader<'_> {
    fn boot(&mut self, file: &raw::File, cpus: usize) -> Boot {
        let admin = self.one_listener("admin", file.admin.as_ref());
        if let Some(ListenAddress::Tcp(at)) = &admin
            && !at.ip().is_loopback()
        {
            let allowed = "a loopback address or a unix socket; the console can stop servers and \
                           has no TLS, so reach it from elsewhere through ssh";
            self.refuse("admin", format!("{:?}", at.to_string()), allowed);
        }
        let http = match self.one_listener("http", file.http.as_ref()) {
            Some(ListenAddress::Unix(path)) => {
                self.refuse("http", format!("{:?}", path.display()), "an IP address and a port");
                None
            }
            Some(ListenAddress::Tcp(at)) => Some(at),
            None => None,
        };
        let password = (file.admin_password.as_ref(), file.admin_password_file.as_ref());
        let admin_password = self.password("admin_password", password);
        if admin_password.as_ref().is_some_and(|password| password.reveal().is_empty()) {
            let allowed = "a password, or no such key at all: then one is generated";
            self.refuse("admin_password", "\"\"", allowed);
        }
        let log_format = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        Boot {
            admin,
            http,
            state_dir: self.directory("state_dir", file.state_dir.as_ref()),
            workers: self.count("workers", file.workers.as_ref(), 1..=256, cpus.clamp(1, 256)),
            log_format: self.word("log_format", file.log_format.as_ref(), &log_format),
            log_filter: self.text("log_filter", file.log_filter.as_ref(), "info"),
            admin_user: self.text("admin_user", file.admin_user.as_ref(), "admin"),
            admin_password,
            drain_timeout: self.duration(
                "drain_timeout",
                file.drain_timeout.as_ref(),
                Duration::ZERO..=DAY,
                30 * SECOND,
            ),
            cluster: file.cluster.as_ref().map(|cluster| self.cluster(cluster)),
        }
    }

    fn group(&mut self, name: &str, raw: &raw::Group, users: Vec<User>) -> Group {
        let at = |key: &str| format!("groups.{name}.{key}");
        if !address::is_name(name) {
            self.refuse(at("*"), format!("{name:?}"), address::NAME_FORM);
        }
        let listen = self.listeners(&at("listen"), raw.listen.as_ref());
        let (seeds, servers) = self.members(name, raw);
        let usual = Group::default();
        let mut time = |key: &str, value: &Option<Scalar>, low: Duration, default: Duration| {
            self.duration(&at(key), value.as_ref(), low..=DAY, default)
        };
        let replica_wait =
            time("replica_wait", &raw.replica_wait, Duration::ZERO, usual.replica_wait);
        let hold = time("hold", &raw.hold, Duration::ZERO, usual.hold);
        let max_lag = time("max_lag", &raw.max_lag, Duration::ZERO, usual.max_lag);
        let handshake_timeout =
            time("handshake_timeout", &raw.handshake_timeout, SECOND / 10, usual.handshake_timeout);
        let idle_timeout =
            time("idle_timeout", &raw.idle_timeout, Duration::ZERO, usual.idle_timeout);
        let connect_timeout =
            time("connect_timeout", &raw.connect_timeout, SECOND / 100, usual.connect_timeout);
        let links = self.links(name, raw);
        let percent = raw.primary_read_percent.as_ref();
        let to_servers = raw.proxy_protocol_to_servers.as_ref();
        let mut size = |key: &str, value: &Option<Scalar>, low: u64, default: usize| {
            self.size(&at(key), value.as_ref(), low..=1 << 30, default)
        };
        let inspect_limit = size("inspect_limit", &raw.inspect_limit, 1 << 10, usual.inspect_limit);
        let (replay, usual_replay) =
            (&raw.transaction_replay_limit, usual.transaction_replay_limit);
        let transaction_replay_limit = size("transaction_replay_limit", replay, 0, usual_replay);
        Group {
            name: Arc::from(name),
            listen,
            seeds,
            servers,
            consistency: self.word(&at("consistency"), raw.consistency.as_ref(), &CONSISTENCY),
            replica_wait,
            hold,
            max_lag,
            primary_read_percent: self.count(
                &at("primary_read_percent"),
                percent,
                0..=100,
                usual.primary_read_percent,
            ),
            max_clients: self.count(
                &at("max_clients"),
                raw.max_clients.as_ref(),
                1..=1_000_000,
                usual.max_clients,
            ),
            handshake_timeout,
            idle_timeout,
            connect_timeout,
            links,
            inspect_limit,
            transaction_replay_limit,
            commit_outcome: self.commit_outcome(name, raw),
            tls: self.client_tls(name, raw),
            server_tls: self.server_tls(name, raw),
            server_compression: self.server_compression(name, raw),
            proxy_protocol_from: self.networks(&at("proxy_protocol_from"), raw),
            proxy_protocol_to_servers: self.flag(&at("proxy_protocol_to_servers"), to_servers),
            users,
            failover: self.failover(name, &raw.failover),
        }
    }

    /// The group's seeds or its fixed list; exactly one of them.
    fn members(&mut self, name: &str, raw: &raw::Group) -> (Vec<Arc<str>>, Vec<Server>) {
        let mut seeds = Vec::new();
        for value in raw.seeds.iter().flat_map(OneOrMany::values) {
            seeds.extend(self.server_address(&format!("groups.{name}.seeds"), value));
        }
        let mut servers: Vec<Server> = Vec::new();
        for (index, server) in raw.servers.iter().enumerate() {
            let key = format!("groups.{name}.servers[{index}]");
            let Some(server) = self.server(&key, server) else { continue };
            if servers.iter().any(|other| other.name == server.name) {
                let shown = format!("{:?}", server.name);
                self.refuse(format!("{key}.name"), shown, "a name that no other server has");
            }
            if servers.iter().any(|other| other.address == server.address) {
                let shown = format!("{:?}", server.address);
                let allowed = "an address that no other server has";
                self.refuse(format!("{key}.address"), shown, allowed);
            }
            servers.push(server);
        }
        let key = format!("groups.{name}.seeds");
        match (&raw.seeds, raw.servers.len()) {
            (Some(_), 1..) => {
                let allowed = "either seeds (the rest is discovered) or servers (a fixed list)";
                self.refuse(key, "beside servers", allowed);
            }
            (None, 0) => {
                let allowed = "the address of one server at least, e.g. [\"10.0.0.1:3306\"]";
                self.refuse(key, "nothing", allowed);
            }
            (Some(list), 0) if list.values().is_empty() => {
                let allowed = "the address of one server at least, e.g. [\"10.0.0.1:3306\"]";
                self.refuse(key, "[]", allowed);
            }
            (_, count) if count > MAX_SERVERS || seeds.len() > MAX_SERVERS => {
                self.refuse(key, "too many servers", format!("at most {MAX_SERVERS}"));
            }
            (None, 1..) | (Some(_), 0) => {}
        }
        (seeds, servers)
    }

    fn server(&mut self, key: &str, raw: &raw::Server) -> Option<Server> {
        let Some(value) = raw.address.as_ref() else {
            self.refuse(format!("{key}.address"), "nothing", address::SERVER_FORM);
            return None;
        };
        let address = self.server_address(&format!("{key}.address"), value)?;
        let name = self.text(&format!("{key}.name"), raw.name.as_ref(), &address);
        if raw.name.is_some() && !address::is_name(&name) {
            self.refuse(format!("{key}.name"), format!("{name:?}"), address::NAME_FORM);
        }
        let roles = [
            ("auto", RoleHint::Auto),
            ("replica", RoleHint::Replica),
            ("primary", RoleHint::Primary),
        ];
        Some(Server {
            address,
            name: Arc::from(name),
            weight: self.count(
                &format!("{key}.weight"),
                raw.weight.as_ref(),
                0..=10_000,
                DEFAULT_WEIGHT,
            ),
            role: self.word(&format!("{key}.role"), raw.role.as_ref(), &roles),
        })
    }

    /// The accounts with the groups to which each is limited (none: all groups).
    fn users(
        &mut self,
        raw: &[raw::User],
        groups: &BTreeMap<String, raw::Group>,
    ) -> Vec<(User, Vec<String>)> {
        let mut users = Vec::new();
        for (index, user) in raw.iter().enumerate() {
            let key = format!("users[{index}]");
            if user.name.is_none() {
                self.refuse(format!("{key}.name"), "nothing", "the name of the account");
            }
            let name = self.text(&format!("{key}.name"), user.name.as_ref(), "");
            let password = (user.password.as_ref(), user.password_file.as_ref());
            let password = self.password(&format!("{key}.password"), password);
            if user.password.is_none() && user.password_file.is_none() {
                let allowed = "the account's password (\"\" for none), or password_file";
                self.refuse(format!("{key}.password"), "nothing", allowed);
            }
            let mut only = Vec::new();
            for value in user.groups.iter().flat_map(OneOrMany::values) {
                match value {
                    Scalar::Text(group) if groups.contains_key(group) => only.push(group.clone()),
                    other => {
                        let names: Vec<_> = groups.keys().map(String::as_str).collect();
                        let allowed = format!("one of the groups: {}", names.join(", "));
                        self.refuse(format!("{key}.groups"), other.to_string(), allowed);
                    }
                }
            }
            let password = password.unwrap_or_else(|| Secret::new(String::new()));
            users.push((User { name, password }, only));
        }
        users
    }

    /// Two listeners on one address would leave the second with a failed start.
    fn distinct_listeners(&mut self, boot: &Boot, groups: &[Arc<Group>]) {
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        all.extend(boot.admin.iter().map(|at| ("admin".to_owned(), at.to_string())));
        all.extend(boot.http.iter().map(|at| ("http".to_owned(), at.to_string())));
        for group in groups {
            let key = format!("groups.{}.listen", group.name);
            all.extend(group.listen.iter().map(|at| (key.clone(), at.to_string())));
        }
        for (key, at) in all {
            // Port 0 lets the system choose, so it may stand more than once.
            if !seen.insert(at.clone()) && !at.ends_with(":0") {
                self.refuse(key, format!("{at:?}"), "an address that nothing else listens on");
            }
        }
    }
}

// === single values ===

impl Reader<'_> {
    fn refuse(
        &mut self,
        key: impl Into<String>,
        value: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        let (key, value, allowed) = (key.into(), value.into(), allowed.into());
        self.refusals.push(Refusal { key, value, allowed });
    }

    fn text(&mut self, key: &str, value: Option<&Scalar>, default: &str) -> String {
        match value {
            None => default.to_owned(),
            Some(Scalar::Text(text)) if !text.is_empty() && !text.contains('\0') => text.clone(),
            Some(other) => {
                self.refuse(key, other.to_string(), "a text that is not empty");
                default.to_owned()
            }
        }
    }

    fn flag(&mut self, key: &str, value: Option<&Scalar>) -> bool {
        match value {
            None => false,
            Some(Scalar::Boolean(flag)) => *flag,
            Some(other) => {
                self.refuse(key, other.to_string(), "true or false");
                false
            }
        }
    }

    /// One of the listed words; the first is the default.
    fn word<T: Copy>(&mut self, key: &str, value: Option<&Scalar>, words: &[(&str, T)]) -> T {
        let default = words.first().map(|(_, typed)| *typed);
        let found = match value {
            None => default,
            Some(Scalar::Text(text)) => {
                words.iter().find(|(word, _)| word == text).map(|(_, typed)| *typed)
            }
            Some(_) => None,
        };
        if found.is_none() {
            let all: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            let shown = value.map(Scalar::to_string).unwrap_or_default();
            self.refuse(key, shown, format!("one of {}", all.join(", ")));
        }
        found.or(default).expect("invariant: every list of words has a first one")
    }

    fn count<T>(
        &mut self,
        key: &str,
        value: Option<&Scalar>,
        range: RangeInclusive<u32>,
        default: T,
    ) -> T
    where
        T: TryFrom<u32>,
    {
        let found = match value {
            None => return default,
            Some(Scalar::Integer(number)) => {
                u32::try_from(*number).ok().filter(|number| range.contains(number))
            }
            Some(_) => None,
        };
        match found.and_then(|number| T::try_from(number).ok()) {
            Some(number) => number,
            None => {
                let shown = value.map(Scalar::to_string).unwrap_or_default();
                let allowed = format!("a whole number from {} to {}", range.start(), range.end());
                self.refuse(key, shown, allowed);
                default
            }
        }
    }

    fn duration(
        &mut self,
        key: &str,
        value: Option<&Scalar>,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let found = match value {
            None => return default,
            Some(Scalar::Text(text)) => units::parse_duration(text),
            Some(Scalar::Integer(0)) => Some(Duration::ZERO),
            Some(_) => None,
        };
        let Some(duration) = found.filter(|found| range.contains(found)) else {
            let shown = value.map(Scalar::to_string).unwrap_or_default();
            let (low, high) =
                (units::show_duration(*range.start()), units::show_duration(*range.end()));
            self.refuse(key, shown, format!("{DURATION_FORM}; from {low} to {high}"));
            return default;
        };
        duration
    }

    fn size(
        &mut self,
        key: &str,
        value: Option<&Scalar>,
        range: RangeInclusive<u64>,
        default: usize,
    ) -> usize {
        let found = match value {
            None => return default,
            Some(Scalar::Text(text)) => units::parse_size(text),
            Some(_) => None,
        };
        let found = found.filter(|size| range.contains(size)).and_then(|n| usize::try_from(n).ok());
        found.unwrap_or_else(|| {
            let shown = value.map(Scalar::to_string).unwrap_or_default();
            let (low, high) = (units::show_size(*range.start()), units::show_size(*range.end()));
            self.refuse(key, shown, format!("{SIZE_FORM}; from {low} to {high}"));
            default
        })
    }

    fn directory(&mut self, key: &str, value: Option<&Scalar>) -> PathBuf {
        let path = PathBuf::from(self.text(key, value, "/var/lib/pointsman"));
        if !path.is_absolute() {
            self.refuse(key, format!("{:?}", path.display()), "an absolute path");
        }
        path
    }

    /// A password, written down or in a file of its own; `None` when neither is given.
    fn password(
        &mut self,
        key: &str,
        given: (Option<&raw::Hidden>, Option<&Scalar>),
    ) -> Option<Secret> {
        match given {
            (None, None) => None,
            (Some(_), Some(_)) => {
                let allowed = format!("either {key} or {key}_file");
                self.refuse(key, "beside its file", allowed);
                None
            }
            (Some(raw::Hidden(Scalar::Text(text))), None) => Some(Secret::new(text.clone())),
            (Some(raw::Hidden(_)), None) => {
                self.refuse(key, "(hidden)", "a text in quotes");
                None
            }
            (None, Some(path)) => {
                let file_key = format!("{key}_file");
                let path = self.text(&file_key, Some(path), "");
                match (self.read_secret)(Path::new(&path)) {
                    Ok(secret) => Some(secret),
                    Err(why) => {
                        self.refuse(file_key, format!("{path:?}"), why);
                        None
                    }
                }
            }
        }
    }

    fn one_listener(&mut self, key: &str, value: Option<&Scalar>) -> Option<ListenAddress> {
        let value = value?;
        let found = match value {
            Scalar::Text(text) => address::parse_listen(text),
            _ => None,
        };
        if found.is_none() {
            self.refuse(key, value.to_string(), address::LISTEN_FORM);
        }
        found
    }

    fn listeners(&mut self, key: &str, value: Option<&OneOrMany>) -> Vec<ListenAddress> {
        let values = value.map(OneOrMany::values).unwrap_or_default();
        if values.is_empty() {
            self.refuse(key, "nothing", address::LISTEN_FORM);
        }
        values.into_iter().filter_map(|value| self.one_listener(key, Some(value))).collect()
    }

    fn server_address(&mut self, key: &str, value: &Scalar) -> Option<Arc<str>> {
        let found = match value {
            Scalar::Text(text) if address::is_server(text) => Some(Arc::from(text.as_str())),
            _ => None,
        };
        if found.is_none() {
            self.refuse(key, value.to_string(), address::SERVER_FORM);
        }
        found
    }

    fn networks(&mut self, key: &str, raw: &raw::Group) -> Vec<Network> {
        let mut networks = Vec::new();
        for value in raw.proxy_protocol_from.iter().flat_map(OneOrMany::values) {
            let found = match value {
                Scalar::Text(text) => address::parse_network(text),
                _ => None,
            };
            match found {
                Some(network) => networks.push(network),
                None => self.refuse(key, value.to_string(), address::NETWORK_FORM),
            }
        }
        networks
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, refusal) in self.0.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{refusal}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests;
