//! Who may log in: accounts as the servers know them, learnt when they are needed.
//!
//! Does not know: clients' sockets, the login exchange, or where statements run. It answers one
//! question, "what does logging in as this user take", from the configuration, from a cache, or
//! by asking the primary with the monitor account.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD as STANDARD_NO_PAD;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::accounts::cache::Cache;
use crate::accounts::host::Peer;
use crate::accounts::rows::{AccountRow, choose};
use crate::config::{Group, Monitor, User};
use crate::health::cell::TopologyCell;
use crate::protocol::auth::{self, Password};
use crate::tls::trust::Trust;
use crate::topology::{Node, Topology};

mod cache;
pub mod host;
mod query;
pub mod rows;

/// Questions to servers at a time; more logins wait for their turn.
const QUESTIONS_MAX: usize = 4;

/// The accounts of one group. Cheap to clone; all clones share one cache.
#[derive(Clone)]
pub struct AccountBook {
    shared: Arc<Shared>,
}

/// What logging in as one account takes.
#[derive(Clone, PartialEq, Eq)]
pub struct AccountFacts {
    /// Name of its authentication plugin.
    pub plugin: String,
    /// What the plugin keeps of the password, as stored.
    pub authentication: Vec<u8>,
    /// SHA1(SHA1(password)) where the plugin is mysql_native_password and a password is set; all
    /// zeros, which no password has, where what is stored is no hash.
    pub double_sha1: Option<[u8; 20]>,
    /// The password is empty.
    pub empty: bool,
    /// Only the server can tell whether it lets this account in now: it is locked, its password
    /// may have expired, its connections are limited, or failures to log in are counted.
    pub judged: bool,
    /// The server lets nobody in by its plugin now (`secure_auth`), whatever he says.
    pub barred: bool,
    /// Several plugins may let it in; only the server knows which of them does.
    pub several: bool,
    /// One more would let in by the operating system's user, which is never done over TCP.
    pub socket: bool,
    /// What it demands of the connection.
    pub requires: Requirement,
    /// Its host pattern.
    pub host: String,
}

impl AccountFacts {
    /// Whether what is stored for mysql_native_password is no hash, so that only the server can
    /// tell what it goes by. With a way in by the socket it is there to let nobody in.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.double_sha1 == Some(rows::NO_PASSWORD) && !self.socket
    }

    /// What the plugin keeps of the password, in binary, as clients of MariaDB's plugins work it
    /// out for themselves; `None` without a password, and for other plugins.
    #[must_use]
    pub fn verifier(&self) -> Option<Vec<u8>> {
        match self.plugin.as_str() {
            _ if self.several => None,
            "mysql_native_password" | "" => self.double_sha1.map(Vec::from),
            "ed25519" => STANDARD_NO_PAD.decode(&self.authentication).ok(),
            "parsec" => rows::parsec_verifier(&self.authentication),
            _ => None,
        }
    }
}

/// What an account demands of its client's connection: REQUIRE of CREATE USER.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing.
    #[default]
    Nothing,
    /// TLS.
    Tls,
    /// TLS with a certificate of the client that an authority has signed.
    Certificate,
    /// TLS, and what is not empty here must be equal.
    Specified {
        /// The cipher suite, by OpenSSL's name.
        cipher: String,
        /// The certificate's issuer, on one line.
        issuer: String,
        /// The certificate's subject, likewise.
        subject: String,
    },
}

/// What a connection has, to be held against a requirement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// The cipher suite; `None` outside of TLS.
    pub cipher: Option<String>,
    /// Issuer and subject of the client's verified certificate.
    pub certificate: Option<(String, String)>,
}

/// The answer to a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// There is such an account for this peer.
    Found(AccountFacts),
    /// There is none. To a client this looks like a wrong password.
    Unknown,
    /// It could not be found out; the sentence says why and what to do.
    Unavailable(String),
}

struct Shared {
    settings: ArcSwap<Settings>,
    topology: Arc<TopologyCell>,
    trust: Arc<ArcSwap<Trust>>,
    cache: Cache,
    questions: Semaphore,
}

struct Settings {
    group: Arc<Group>,
    monitor: Monitor,
}

// === impls ===

impl Requirement {
    /// Whether a connection that has `shown` this is enough, as both servers decide it.
    #[must_use]
    pub fn is_met(&self, shown: &Shown) -> bool {
        let equal = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
        match (self, &shown.cipher, &shown.certificate) {
            (Self::Nothing, _, _) | (Self::Tls, Some(_), _) => true,
            (Self::Certificate, Some(_), certificate) => certificate.is_some(),
            (Self::Specified { cipher, issuer, subject }, Some(is), certificate) => {
                let bare = (String::new(), String::new());
                let (by, of) = certificate.as_ref().unwrap_or(&bare);
                equal(cipher, is) && equal(issuer, by) && equal(subject, of)
            }
            (_, None, _) => false,
        }
    }
}

impl AccountBook {
    /// A book for `group`, whose servers `topology` names and `trust` believes.
    #[must_use]
    pub fn new(
        group: Arc<Group>,
        monitor: Monitor,
        topology: Arc<TopologyCell>,
        trust: Arc<ArcSwap<Trust>>,
    ) -> Self {
        let settings = ArcSwap::from_pointee(Settings { group, monitor });
        let questions = Semaphore::new(QUESTIONS_MAX);
        let cache = Cache::default();
        Self { shared: Arc::new(Shared { settings, topology, trust, cache, questions }) }
    }

    /// Works by another configuration from now on; what was learnt is forgotten.
    pub fn reconfigure(&self, group: Arc<Group>, monitor: Monitor) {
        self.shared.settings.store(Arc::new(Settings { group, monitor }));
        self.invalidate(None);
    }

    /// What logging in as `user` takes. `client` is the client's own address; it counts where
    /// servers are told of it (`proxy_protocol_to_servers`), else they see pointsman's.
    pub async fn lookup(&self, user: &[u8], client: Option<IpAddr>) -> Lookup {
        let known = self.shared.cache.fresh(user, Instant::now());
        self.answer(user, client, known).await
    }

    /// The same, asked anew: for when a login failed with what was known. At most once a second
    /// per user, so that wrong passwords are not passed on as load.
    pub async fn lookup_fresh(&self, user: &[u8], client: Option<IpAddr>) -> Lookup {
        let known = self.shared.cache.just_asked(user, Instant::now());
        self.answer(user, client, known).await
    }

    /// Forgets a user, or all: accounts were changed.
    pub fn invalidate(&self, user: Option<&[u8]>) {
        self.shared.cache.forget(user);
    }

    /// Keeps a password that a server has accepted, for the short way of
    /// caching_sha2_password. It is forgotten when the account's row changes.
    pub fn remember_password(&self, user: &[u8], password: Password) {
        self.shared.cache.remember_password(user, password);
    }

    /// The password of a user: the configured one, or one that a server has accepted.
    #[must_use]
    pub fn password(&self, user: &[u8]) -> Option<Password> {
        let settings = self.shared.settings.load();
        match configured(&settings.group, user) {
            Some(user) => Some(password_of(user)),
            None => self.shared.cache.password(user),
        }
    }

    /// Forgets a password that a server no longer accepts.
    pub fn forget_password(&self, user: &[u8]) {
        self.shared.cache.forget_password(user);
    }

    async fn answer(
        &self,
        user: &[u8],
        client: Option<IpAddr>,
        known: Option<Arc<[AccountRow]>>,
    ) -> Lookup {
        let settings = self.shared.settings.load_full();
        let topology = self.shared.topology.load();
        if let Some(user) = configured(&settings.group, user) {
            return Lookup::Found(stated(user, &topology));
        }
        if !settings.group.users.is_empty() {
            // With a list, only who is on it may log in.
            return Lookup::Unknown;
        }
        let Some(node) = whom_to_ask(&topology) else {
            return match known.or_else(|| self.shared.cache.any(user)) {
                Some(rows) => pick(&rows, &Peer::seen_as("localhost", true)),
                None => Lookup::Unavailable(format!(
                    "no server can be asked about accounts: {}",
                    topology.no_primary_why
                )),
            };
        };
        let peer = peer(&settings.group, node, client);
        if let Some(rows) = known {
            return pick(&rows, &peer);
        }
        match self.ask(user, node, &settings.monitor).await {
            Ok(rows) => pick(&rows, &peer),
            // What was true a minute ago is better than refusing everyone.
            Err(why) => match self.shared.cache.any(user) {
                Some(rows) => pick(&rows, &peer),
                None => Lookup::Unavailable(why),
            },
        }
    }

    /// Asks a server for all accounts of a user, within the limit of questions at a time.
    async fn ask(
        &self,
        user: &[u8],
        node: &Node,
        monitor: &Monitor,
    ) -> Result<Arc<[AccountRow]>, String> {
        let wanted_at = Instant::now();
        let asking = async {
            let turn = self.shared.questions.acquire().await;
            let _turn = turn.map_err(|_| "the account book is closed".to_owned())?;
            // Others may have asked for the same user while this one waited.
            if let Some(rows) = self.shared.cache.asked_since(user, wanted_at) {
                return Ok(rows);
            }
            let trust = self.shared.trust.load_full();
            let rows = query::accounts(node, user, monitor, &trust).await?;
            let rows: Arc<[AccountRow]> = rows.into();
            self.shared.cache.learn(user, rows.clone(), Instant::now());
            Ok(rows)
        };
        timeout(monitor.timeout, asking).await.unwrap_or_else(|_| {
            let limit = monitor.timeout.as_millis();
            Err(format!("{} did not tell its accounts within {limit} ms", node.name))
        })
    }
}

impl fmt::Debug for AccountBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountBook(..)")
    }
}

impl fmt::Debug for AccountFacts {
    /// Without what is kept of the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountFacts")
            .field("plugin", &self.plugin)
            .field("empty", &self.empty)
            .field("judged", &self.judged)
            .field("several", &self.several)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

fn configured<'a>(group: &'a Group, user: &[u8]) -> Option<&'a User> {
    group.users.iter().find(|stated| stated.name.as_bytes() == user)
}

fn password_of(user: &User) -> Password {
    Password::new(user.password.reveal().as_bytes().to_vec())
}

/// The facts of a user that the configuration states, in the plugin that the servers prefer.
fn stated(user: &User, topology: &Topology) -> AccountFacts {
    let password = user.password.reveal().as_bytes();
    let sha2 = topology.facts().is_some_and(|facts| &*facts.auth_plugin == "caching_sha2_password");
    let plugin = if sha2 { "caching_sha2_password" } else { "mysql_native_password" };
    let empty = password.is_empty();
    AccountFacts {
        plugin: plugin.to_owned(),
        authentication: Vec::new(),
        double_sha1: (!sha2 && !empty).then(|| auth::double_sha1(password)),
        empty,
        judged: false,
        barred: false,
        several: false,
        socket: false,
        requires: Requirement::Nothing,
        host: "%".to_owned(),
    }
}

/// The primary; without one any server that answers, since accounts are replicated.
fn whom_to_ask(topology: &Topology) -> Option<&Node> {
    let usable = |node: &&Node| node.condition.usable() && node.facts.is_some();
    topology.primary_node().or_else(|| topology.nodes.iter().find(usable))
}

/// Who logs in at `node`, as that server sees it.
fn peer(group: &Group, node: &Node, client: Option<IpAddr>) -> Peer {
    if group.proxy_protocol_to_servers
        && let Some(ip) = client
    {
        return Peer::at(ip);
    }
    let seen_as = node.facts.as_ref().map_or("", |facts| &*facts.sees_us_as);
    Peer::seen_as(seen_as, !node.address.starts_with('/'))
}

fn pick(rows: &[AccountRow], peer: &Peer) -> Lookup {
    choose(rows, peer).map_or(Lookup::Unknown, |row| Lookup::Found(row.facts.clone()))
}

#[cfg(test)]
mod tests;
