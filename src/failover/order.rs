//! What a server is told to do, and the statements for that in its family's words.

use std::collections::BTreeSet;

use crate::config::address;
use crate::config::failover::ReplicationAccount;
use crate::failover::event::Event;
use crate::failover::report::{SUPER_READ_ONLY, Told};
use crate::failover::standing;
use crate::health::observation::LogPlace;
use crate::topology::{Flavour, NodeId};

/// Something that one server is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which server.
    pub node: NodeId,
    /// What it is to do.
    pub what: What,
}

/// What a server can be told to do. Each can be repeated without harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Apply what was received.
    StartApplier,
    /// Receive no more, so that its source gets no more acknowledgements from it.
    StopReceiver,
    /// Receive again.
    StartReceiver,
    /// Receive anew, where the applier runs: settings of the receiver count from then on.
    RestartReceiver,
    /// Forget that it has ever followed another; refused where it receives.
    Detach,
    /// Run this setting's statement.
    Settle(String),
    /// Follow another server from where it is, by the account that it has; refused where it
    /// receives: what it may have acknowledged meanwhile would be forgotten (V6, V9).
    Repoint(Place),
    /// Follow another server from where its own writes ended, by this account.
    Follow(Place, ReplicationAccount),
    /// Follow another server from where the data that it was given ended, by this account.
    Join(Place, ReplicationAccount),
    /// Take no writes: its clients' connections are ended first, since a commit that waits for an
    /// acknowledgement would keep `read_only` waiting (V22), and it asks for no acknowledgements
    /// once they are gone (V21).
    Fence,
    /// Take no writes: a server that is well, so that no commit is cut off whose outcome nobody
    /// would know (V11). Its clients' connections are ended only where they stand in the way.
    Close,
    /// Take writes.
    Open,
    /// Answer when it has executed all of this, or after a second.
    CatchUp(String),
    /// Have an account by which others replicate.
    Admit(ReplicationAccount),
    /// Log in at its source by this account from now on; refused where it receives, and for one
    /// that has applied all that it has received: that is forgotten.
    Rename(ReplicationAccount),
    /// Apply what lies in the relay log from this place on, whatever its numbers: MariaDB would
    /// delete it otherwise (V8).
    Rescue(LogPlace),
    /// Go by GTID again, when that is done: MariaDB deletes what is in the relay log.
    ByGtid,
    /// Let nobody log in by these accounts, and end the connections of those who have.
    LockOut(BTreeSet<String>),
    /// Let others log in by these accounts again.
    LetIn(BTreeSet<String>),
    /// Let an event run that came here from the last primary, and ran there.
    Enable(Event),
}

/// Before a literal with a secret, in which a backslash may stand: it escapes from here on,
/// whatever the server's `sql_mode` says of it.
const PLAIN: &str = "SET SESSION sql_mode = ''";

/// Where a server is, for others that follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

// === impls ===

impl Place {
    /// From `host:port`; `None` for the path of a socket, by which no other machine can follow.
    #[must_use]
    pub fn of(address: &str) -> Option<Self> {
        let (host, port) = address::host_and_port(address)?;
        Some(Self { host: host.to_owned(), port })
    }
}

impl What {
    /// The statements, in their order. Those of [`What::Fence`] come after its clients are gone.
    #[must_use]
    pub fn statements(&self, told: &Told) -> Vec<String> {
        let words = Words::of(told);
        let replica = words.replica;
        match self {
            Self::StartApplier => vec![format!("START {replica} SQL_THREAD")],
            Self::StopReceiver => vec![format!("STOP {replica} IO_THREAD")],
            Self::StartReceiver => vec![format!("START {replica} IO_THREAD")],
            Self::RestartReceiver => {
                vec![format!("STOP {replica} IO_THREAD"), format!("START {replica} IO_THREAD")]
            }
            Self::Detach => {
                vec![format!("STOP {replica} SQL_THREAD"), format!("RESET {replica} ALL")]
            }
            Self::Settle(statement) => vec![statement.clone()],
            Self::Repoint(place) => vec![
                format!("STOP {replica} SQL_THREAD"),
                words.change(told.flavour, place, None),
                format!("START {replica}"),
            ],
            Self::Follow(place, account) => {
                // It goes on from what it wrote itself.
                let carry = "SET GLOBAL gtid_slave_pos = @@global.gtid_binlog_pos";
                let carry = Some(carry.to_owned()).filter(|_| told.flavour == Flavour::MariaDb);
                let begin = [PLAIN.to_owned(), format!("STOP {replica}")];
                let change = words.change(told.flavour, place, Some(account));
                let all = begin.into_iter().chain(carry);
                all.chain([change, format!("START {replica}")]).collect()
            }
            Self::Join(place, account) => vec![
                PLAIN.to_owned(),
                format!("STOP {replica}"),
                words.change(told.flavour, place, Some(account)),
                format!("START {replica}"),
            ],
            Self::Fence => fencing(told),
            Self::Close => {
                // Who holds tables locked, or has a long statement, is not waited for.
                let bounded = "SET SESSION lock_wait_timeout = 2".to_owned();
                vec![bounded, closing(told.flavour)]
            }
            Self::CatchUp(position) => vec![match told.flavour {
                Flavour::MariaDb => format!("SELECT MASTER_GTID_WAIT({}, 1)", quoted(position)),
                Flavour::MySql => {
                    format!("SELECT WAIT_FOR_EXECUTED_GTID_SET({}, 1)", quoted(position))
                }
            }],
            Self::Open => opening(told.flavour),
            Self::Enable(event) => vec![event.enable()],
            Self::Rename(account) => vec![
                PLAIN.to_owned(),
                format!("STOP {replica} SQL_THREAD"),
                words.rename(told.flavour, account),
                format!("START {replica}"),
            ],
            Self::Rescue(place) => rescuing(place),
            Self::ByGtid => vec![
                "STOP SLAVE SQL_THREAD".to_owned(),
                "CHANGE MASTER TO MASTER_USE_GTID = slave_pos".to_owned(),
            ],
            Self::LockOut(users) => locking(told, users, "LOCK"),
            Self::LetIn(users) => locking(told, users, "UNLOCK"),
            Self::Admit(account) => admitting(account),
        }
    }

    /// Whether it is told whom to follow from now on.
    #[must_use]
    pub fn turns(&self) -> bool {
        matches!(self, Self::Repoint(_) | Self::Follow(..) | Self::Join(..))
    }

    /// Whether a replica of MariaDB that goes on following whom it follows may delete by it what it
    /// has received and not applied: it does where both threads rest, or where it begins to go by
    /// GTID (V6).
    #[must_use]
    pub fn may_delete(&self) -> bool {
        matches!(
            self,
            Self::StartApplier | Self::StartReceiver | Self::RestartReceiver | Self::ByGtid
        )
    }

    /// For the log: what it is, and no secret.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::StartApplier => "apply what it has received".to_owned(),
            Self::StopReceiver => "receive no more".to_owned(),
            Self::StartReceiver => "receive again".to_owned(),
            Self::RestartReceiver => "receive anew".to_owned(),
            Self::Detach => "forget its source".to_owned(),
            Self::Settle(statement) => statement.clone(),
            Self::Repoint(place) | Self::Follow(place, _) | Self::Join(place, _) => {
                format!("replicate from {}:{}", place.host, place.port)
            }
            Self::Fence => "end its clients' connections and take no writes".to_owned(),
            Self::Close => "take no writes".to_owned(),
            Self::CatchUp(position) => format!("execute all up to {position}"),
            Self::Open => "take writes".to_owned(),
            Self::Enable(event) => format!("let the event {} run", event.name),
            Self::Admit(account) => format!("have the account {} for replicas", account.user),
            Self::Rename(account) => format!("replicate by the account {}", account.user),
            Self::Rescue(LogPlace { file, at }) => {
                format!("apply its relay log from {file}:{at} on")
            }
            Self::ByGtid => "go by GTID again".to_owned(),
            Self::LockOut(users) => format!("let nobody log in by {}", listed(users)),
            Self::LetIn(users) => format!("let replicas log in by {}", listed(users)),
        }
    }
}

/// A family's words of a version.
#[derive(Clone, Copy)]
struct Words {
    replica: &'static str,
    source: &'static str,
}

impl Words {
    fn of(told: &Told) -> Self {
        match told.flavour.says_replica(told.version) {
            true => Self { replica: "REPLICA", source: "SOURCE" },
            false => Self { replica: "SLAVE", source: "MASTER" },
        }
    }

    /// What names another account at the same source.
    fn rename(self, flavour: Flavour, account: &ReplicationAccount) -> String {
        let login = self.login(flavour, account);
        let by_gtid = match flavour {
            Flavour::MariaDb => "MASTER_USE_GTID = slave_pos".to_owned(),
            Flavour::MySql => format!("{}_AUTO_POSITION = 1", self.source),
        };
        format!("{}{login}{by_gtid}", self.to_change())
    }

    /// The account in a statement that names a source, with a comma behind it.
    fn login(self, flavour: Flavour, account: &ReplicationAccount) -> String {
        let source = self.source;
        let (user, password) = (quoted(&account.user), quoted(account.password.reveal()));
        let key = match (flavour, source) {
            (Flavour::MariaDb, _) => "",
            (Flavour::MySql, "SOURCE") => "GET_SOURCE_PUBLIC_KEY = 1, ",
            (Flavour::MySql, _) => "GET_MASTER_PUBLIC_KEY = 1, ",
        };
        format!("{source}_USER = {user}, {source}_PASSWORD = {password}, {key}")
    }

    fn to_change(self) -> &'static str {
        match self.source {
            "MASTER" => "CHANGE MASTER TO ",
            _ => "CHANGE REPLICATION SOURCE TO ",
        }
    }

    /// What names another server to follow.
    fn change(
        self,
        flavour: Flavour,
        place: &Place,
        account: Option<&ReplicationAccount>,
    ) -> String {
        let source = self.source;
        let mut text = self.to_change().to_owned();
        text.push_str(&format!("{source}_HOST = {}, ", quoted(&place.host)));
        text.push_str(&format!("{source}_PORT = {}, ", place.port));
        if let Some(account) = account {
            text.push_str(&self.login(flavour, account));
        }
        text.push_str(&format!("{source}_CONNECT_RETRY = 1, {source}_HEARTBEAT_PERIOD = 1, "));
        text.push_str(&match flavour {
            Flavour::MariaDb => "MASTER_USE_GTID = slave_pos".to_owned(),
            // Since 8.4 it gives up after ten times, which are over in ten seconds.
            Flavour::MySql => format!("{source}_RETRY_COUNT = 86400, {source}_AUTO_POSITION = 1"),
        });
        text
    }
}

/// What makes an account by which others replicate, whatever was there.
fn admitting(account: &ReplicationAccount) -> Vec<String> {
    let (user, password) = (quoted(&account.user), quoted(account.password.reveal()));
    vec![
        PLAIN.to_owned(),
        format!("CREATE USER IF NOT EXISTS {user}@'%' IDENTIFIED BY {password}"),
        format!("ALTER USER {user}@'%' IDENTIFIED BY {password}"),
        format!("GRANT REPLICATION SLAVE ON *.* TO {user}@'%'"),
    ]
}

/// What applies a relay log of MariaDB from this place on (V8).
fn rescuing(LogPlace { file, at }: &LogPlace) -> Vec<String> {
    let file = quoted(file);
    vec![
        PLAIN.to_owned(),
        format!(
            "CHANGE MASTER TO RELAY_LOG_FILE = {file}, RELAY_LOG_POS = {at}, MASTER_USE_GTID = NO"
        ),
        "START SLAVE SQL_THREAD".to_owned(),
    ]
}

/// What closes a server whose clients are gone, and ends its asking for acknowledgements.
fn fencing(told: &Told) -> Vec<String> {
    let asks = standing::asking(told).map(|name| format!("SET GLOBAL {name} = 0"));
    let closed = [closing(told.flavour)];
    match told.flavour {
        Flavour::MariaDb => closed.into_iter().chain(asks).collect(),
        // Commits whose clients were cut off wait on, and this would wait for them.
        Flavour::MySql => asks.into_iter().chain(closed).collect(),
    }
}

fn closing(flavour: Flavour) -> String {
    match flavour {
        Flavour::MariaDb => "SET GLOBAL read_only = 1".to_owned(),
        Flavour::MySql => "SET GLOBAL super_read_only = 1".to_owned(),
    }
}

fn opening(flavour: Flavour) -> Vec<String> {
    match flavour {
        Flavour::MariaDb => vec!["SET GLOBAL read_only = 0".to_owned()],
        Flavour::MySql => {
            vec!["SET GLOBAL super_read_only = 0".to_owned(), "SET GLOBAL read_only = 0".to_owned()]
        }
    }
}

/// What locks or unlocks accounts here and nowhere else: one that stood in the binary log would
/// wait for an acknowledgement, and MySQL lets nobody log in meanwhile (9.7, measured). Whoever is
/// to be the primary is closed still; MySQL changes no account of one that is closed to all.
fn locking(told: &Told, users: &BTreeSet<String>, word: &str) -> Vec<String> {
    let closed = told.flavour == Flavour::MySql && told.is_on(SUPER_READ_ONLY);
    let opened = closed.then(|| "SET GLOBAL super_read_only = 0".to_owned());
    let here = "SET SESSION sql_log_bin = 0".to_owned();
    let each = users.iter().map(|user| {
        let user = quoted(user);
        format!("ALTER USER IF EXISTS {user}@'%' ACCOUNT {word}")
    });
    let all = opened.into_iter().chain([PLAIN.to_owned(), here]).chain(each);
    all.chain(["SET SESSION sql_log_bin = 1".to_owned()]).collect()
}

fn listed(users: &BTreeSet<String>) -> String {
    users.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// A text as a literal under [`PLAIN`].
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::Secret;
    use crate::failover::fixture;

    fn told(flavour: Flavour, version: u32) -> Told {
        Told { version, ..fixture::told(flavour) }
    }

    #[test]
    fn a_replica_never_gives_up_its_source() {
        let place = Place::of("db2:3306").expect("a place");
        let told = told(Flavour::MySql, 90_700);
        let said = What::Repoint(place).statements(&told).join("; ");
        assert!(said.contains("SOURCE_RETRY_COUNT = 86400"), "{said}");
    }

    #[test]
    fn every_family_is_told_in_its_own_words() {
        let place = Place::of("db2:3306").expect("a place");
        let repoint = What::Repoint(place);
        let said = |flavour, version| repoint.statements(&told(flavour, version));
        let maria = said(Flavour::MariaDb, 101_119);
        assert_eq!(maria[0], "STOP SLAVE SQL_THREAD");
        assert!(maria[1].starts_with("CHANGE MASTER TO MASTER_HOST = 'db2', MASTER_PORT = 3306"));
        assert!(maria[1].ends_with("MASTER_USE_GTID = slave_pos"));
        let new = said(Flavour::MySql, 90_704);
        assert!(new[1].starts_with("CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'db2'"));
        assert!(new[1].ends_with("SOURCE_AUTO_POSITION = 1"));
        let old = said(Flavour::MySql, 50_744);
        assert!(old[1].starts_with("CHANGE MASTER TO") && old[2] == "START SLAVE");
        assert!(old[1].ends_with("MASTER_AUTO_POSITION = 1"));
    }

    #[test]
    fn no_description_tells_a_password() {
        let password = Secret::new("hunter2".to_owned());
        let account = ReplicationAccount { user: "repl".to_owned(), password };
        let place = Place::of("[::1]:3307").expect("a place");
        assert_eq!((place.host.as_str(), place.port), ("::1", 3307));
        for what in [What::Follow(place, account.clone()), What::Admit(account)] {
            assert!(!what.describe().contains("hunter2"));
            assert!(!format!("{what:?}").contains("hunter2"));
            let all = what.statements(&told(Flavour::MySql, 90_704)).join("; ");
            assert!(all.contains("'hunter2'"), "{all}");
        }
        assert_eq!(Place::of("/run/mysqld/mysqld.sock"), None);
    }

    #[test]
    fn no_password_ends_its_literal() {
        let account = |password: &str| ReplicationAccount {
            user: "repl".to_owned(),
            password: Secret::new(password.to_owned()),
        };
        let told = told(Flavour::MariaDb, 101_119);
        for (password, literal) in
            [(r"x\", r"'x\\'"), ("it's", "'it''s'"), (r"\' OR", r"'\\'' OR'")]
        {
            let all = What::Admit(account(password)).statements(&told);
            assert_eq!(all[0], PLAIN);
            assert!(all[1].ends_with(&format!("IDENTIFIED BY {literal}")), "{all:?}");
        }
    }
}
