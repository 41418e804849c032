//! Clients of every sort with a ledger: what they were told is written must be there, once, what
//! they were told is not must not, whatever has happened to the servers meanwhile.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error};
use pointsman::app::tasks;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{APP, ROOT};
use pointsman::provider::server::{Server, opts_at};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::proxy::Proxy;
use crate::wait;

/// How many writers there are unless more are asked for.
pub(crate) const WRITERS: usize = 8;
/// How many sessions with a state of their own do nothing.
const IDLERS: usize = 4;
/// Accounts of the bank, and what is on all of them together.
const ACCOUNTS: u64 = 10;
const TOTAL: &str = "1000";

/// How a writer writes.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// One statement at a time.
    Statement,
    /// Transfers between two accounts and three rows, in one transaction.
    Transaction,
    /// By a prepared statement.
    Prepared,
    /// One statement, whose row is then looked for in a read that a replica may answer.
    ReadBack,
    /// In a new connection each time.
    Newcomer,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Statement, Self::Transaction, Self::Prepared, Self::ReadBack, Self::Newcomer];

    /// How many rows it writes at once.
    fn rows(self) -> usize {
        match self {
            Self::Transaction => 3,
            Self::Statement | Self::Prepared | Self::ReadBack | Self::Newcomer => 1,
        }
    }
}

/// Clients that go on until they are told to stop, and their book.
#[derive(Debug)]
pub(crate) struct Ledger {
    book: Arc<Book>,
    writers: Vec<JoinHandle<()>>,
    idlers: Vec<Conn>,
}

/// What all of them know.
#[derive(Debug, Default)]
pub(crate) struct Book {
    stop: AtomicBool,
    /// Writers wait as long as it is true.
    pause: watch::Sender<bool>,
    /// How many wait, and how many there are.
    paused: AtomicUsize,
    writers: usize,
    next: AtomicU64,
    /// Where clients connect: at the next one when one does not let them in.
    doors: Vec<SocketAddr>,
    told: Mutex<Told>,
    /// The longest time without an acknowledged write, and when the last one was.
    gap: Mutex<(Duration, Option<Instant>)>,
}

/// A row that was not acknowledged, and the words of its error.
pub(crate) type Failed = (u64, String);

/// What clients were told.
#[derive(Debug, Default, Clone)]
pub(crate) struct Told {
    /// It is written.
    written: Vec<u64>,
    /// Nobody knows; each with the words of its error.
    unknown: Vec<Failed>,
    /// It is not written.
    denied: Vec<Failed>,
    /// Logins that were refused.
    refused: Vec<String>,
    /// What should not have been said at all.
    odd: Vec<String>,
}

impl Told {
    /// How much was acknowledged.
    pub(crate) fn count(&self) -> usize {
        self.written.len()
    }

    /// What was unknown and what was denied since an earlier moment.
    pub(crate) fn since(&self, before: &Self) -> [Vec<Failed>; 2] {
        let later = |now: &[Failed], before: &[Failed]| now[before.len()..].to_vec();
        [later(&self.unknown, &before.unknown), later(&self.denied, &before.denied)]
    }
}

/// What was found in the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Acknowledged, and not there.
    lost: Vec<u64>,
    /// There more than once.
    twice: Vec<u64>,
    /// Denied, and there.
    ghosts: Vec<u64>,
    /// What should not have been said, and what does not add up.
    odd: Vec<String>,
}

impl Audit {
    /// Whether all is as it was told, but for what may be lost, and is missed where it is read.
    pub(crate) fn is_sound(&self, is_lossy: bool) -> bool {
        let Self { lost, twice, ghosts, odd } = self;
        let nothing_is_lost = lost.is_empty() && odd.is_empty();
        twice.is_empty() && ghosts.is_empty() && (is_lossy || nothing_is_lost)
    }

    /// How much of each there is.
    pub(crate) fn words(&self) -> String {
        let Self { lost, twice, ghosts, odd } = self;
        format!("{}\t{}\t{}\t{}", lost.len(), twice.len(), ghosts.len(), odd.len())
    }
}

impl Deref for Ledger {
    type Target = Book;

    fn deref(&self) -> &Book {
        &self.book
    }
}

impl Ledger {
    /// Begins with one writer of each kind, and some more, which connect to these proxies.
    pub(crate) async fn open(cluster: &Cluster, proxies: &[&Proxy]) -> Self {
        Self::open_with(cluster, proxies, WRITERS).await
    }

    /// The same with so many writers.
    pub(crate) async fn open_with(cluster: &Cluster, proxies: &[&Proxy], writers: usize) -> Self {
        let primary = cluster.primary().expect("a primary");
        let accounts: Vec<String> =
            (0..ACCOUNTS).map(|id| format!("({id}, {TOTAL} / {ACCOUNTS})")).collect();
        let statements = [
            "CREATE TABLE app.ledger (id BIGINT, KEY (id))".to_owned(),
            "CREATE TABLE app.bank (id INT PRIMARY KEY, v BIGINT)".to_owned(),
            format!("INSERT INTO app.bank VALUES {}", accounts.join(", ")),
        ];
        primary.run(&statements).await.expect("tables");
        let doors = proxies.iter().map(|proxy| proxy.at()).collect();
        let book = Arc::new(Book { doors, writers, ..Book::default() });
        let mut ledger = Self { book, writers: Vec::new(), idlers: Vec::new() };
        for number in 0..IDLERS {
            let mut idler = ledger.log_in(number).await;
            idler
                .query_drop(format!("SET @own = {number}, time_zone = '+0{number}:30'"))
                .await
                .expect("a state of its own");
            ledger.idlers.push(idler);
        }
        for number in 0..writers {
            let (book, kind) = (ledger.book.clone(), Kind::ALL[number % Kind::ALL.len()]);
            let writer = async move { book.write(number, kind).await };
            ledger.writers.push(tasks::spawn("writer", writer));
        }
        ledger
    }

    /// Those who did nothing have noticed nothing.
    pub(crate) async fn check_idlers(&mut self) {
        for (number, idler) in self.idlers.iter_mut().enumerate() {
            let state = idler.query_first("SELECT @own, @@time_zone").await;
            let state: Option<(usize, String)> = state.expect("a session that was idle");
            assert_eq!(state, Some((number, format!("+0{number}:30"))));
        }
    }

    /// Those who do nothing are sent away in what happens now.
    pub(crate) fn dismiss_idlers(&mut self) {
        self.idlers.clear();
    }

    /// Ends the writers.
    pub(crate) async fn close(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.resume();
        for writer in self.writers.drain(..) {
            writer.await.expect("a writer");
        }
    }
}

impl Book {
    async fn write(&self, number: usize, kind: Kind) {
        let mut conn = self.log_in(number).await;
        let mut pause = self.pause.subscribe();
        while !self.stop.load(Ordering::Relaxed) {
            if *pause.borrow() {
                self.paused.fetch_add(1, Ordering::Relaxed);
                pause.wait_for(|pause| !*pause).await.expect("the ledger is there");
                self.paused.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let ids: Vec<u64> =
                (0..kind.rows()).map(|_| self.next.fetch_add(1, Ordering::Relaxed)).collect();
            match insert(&mut conn, kind, &ids).await {
                Ok(()) => self.note(&ids),
                Err(error) => {
                    self.note_failure(&ids, &error);
                    conn = self.log_in(number).await;
                    continue;
                }
            }
            match kind {
                Kind::ReadBack => self.read_back(&mut conn, ids[0]).await,
                Kind::Newcomer => {
                    conn.disconnect().await.expect("a goodbye");
                    conn = self.log_in(number).await;
                }
                Kind::Statement | Kind::Transaction | Kind::Prepared => {}
            }
        }
        conn.disconnect().await.expect("a goodbye");
    }

    /// What a session was told is written it finds.
    async fn read_back(&self, conn: &mut Conn, id: u64) {
        let read = format!("SELECT COUNT(*) FROM ledger WHERE id = {id}");
        match conn.query_first::<u64, _>(read).await {
            Ok(Some(1)) => {}
            Ok(found) => self.note_odd(format!("{id} read back: {found:?}")),
            // A proxy that has ended takes its connections along.
            Err(Error::Io(_)) => *conn = self.log_in(0).await,
            Err(error) if is_denial(&error) => *conn = self.log_in(0).await,
            Err(error) => {
                match &error {
                    // It is read elsewhere when its server ends, once: it may be what ends them.
                    Error::Server(said) if said.state == "08007" => {
                        self.note_failure(&[id], &error);
                    }
                    _ => self.note_odd(format!("{id} read back: {error}")),
                }
                *conn = self.log_in(0).await;
            }
        }
    }

    /// Logs in, and writes down how often that was refused.
    async fn log_in(&self, number: usize) -> Conn {
        let turn = AtomicUsize::new(number);
        wait::until("a login", || async {
            let door = self.doors[turn.fetch_add(1, Ordering::Relaxed) % self.doors.len()];
            match Conn::new(opts_at(door, APP)).await {
                Ok(conn) => Some(conn),
                Err(error) => {
                    self.told.lock().expect("a list").refused.push(error.to_string());
                    None
                }
            }
        })
        .await
    }

    fn note(&self, ids: &[u64]) {
        self.told.lock().expect("a list").written.extend(ids);
        let mut gap = self.gap.lock().expect("a time");
        let since = gap.1.map_or(Duration::ZERO, |last| last.elapsed());
        *gap = (gap.0.max(since), Some(Instant::now()));
    }

    fn note_failure(&self, ids: &[u64], error: &Error) {
        let mut told = self.told.lock().expect("a list");
        let told = &mut *told;
        let list = match error {
            error if is_denial(error) => &mut told.denied,
            Error::Server(said) if said.state != "08007" => {
                return told.odd.push(format!("{ids:?}: {error}"));
            }
            _ => &mut told.unknown,
        };
        list.extend(ids.iter().map(|id| (*id, error.to_string())));
    }

    fn note_odd(&self, what: String) {
        self.told.lock().expect("a list").odd.push(what);
    }

    /// The longest time without an acknowledged write so far, which begins anew.
    pub(crate) fn take_gap(&self) -> Duration {
        std::mem::take(&mut self.gap.lock().expect("a time").0)
    }

    /// What clients were told so far.
    pub(crate) fn told(&self) -> Told {
        self.told.lock().expect("a list").clone()
    }

    /// How much was acknowledged.
    pub(crate) fn count(&self) -> usize {
        self.told.lock().expect("a list").written.len()
    }

    /// How many write.
    pub(crate) fn writers(&self) -> usize {
        self.writers
    }

    /// Waits until so many more writes were acknowledged.
    pub(crate) async fn more(&self, writes: usize) {
        let before = self.count();
        wait::until("writes to go on", || async {
            (self.count() >= before + writes).then_some(())
        })
        .await;
    }

    /// Waits until nobody writes any more.
    pub(crate) async fn hold(&self) {
        self.pause.send_replace(true);
        wait::until("writers to pause", || async {
            (self.paused.load(Ordering::Relaxed) == self.writers).then_some(())
        })
        .await;
    }

    /// They write again.
    pub(crate) fn resume(&self) {
        self.pause.send_replace(false);
    }

    /// Logins that were refused since this was last asked.
    pub(crate) fn take_refused(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().expect("a list").refused)
    }

    /// What does not hold on these servers, of which each is given the time to apply all.
    pub(crate) async fn audit(&self, servers: &[&Server]) -> Audit {
        let told = self.told();
        let written: BTreeSet<u64> = told.written.iter().copied().collect();
        let denied: BTreeSet<u64> = told.denied.iter().map(|(id, _)| *id).collect();
        let mut audit = Audit { odd: told.odd, ..Audit::default() };
        for server in servers {
            // One that catches up is waited for; what is missing in the end is told with the rest.
            let mut there = rows(server).await;
            while !written.is_subset(&there.iter().copied().collect())
                && let Some(more) = wait::within(wait::PATIENCE, async || {
                    let now = rows(server).await;
                    (now.len() > there.len()).then_some(now)
                })
                .await
            {
                there = more;
            }
            there.sort_unstable();
            let twice = there.windows(2).filter(|pair| pair[0] == pair[1]);
            audit.twice.extend(twice.map(|pair| pair[0]));
            let there: BTreeSet<u64> = there.into_iter().collect();
            audit.lost.extend(written.difference(&there));
            audit.ghosts.extend(denied.intersection(&there));
            let total = server.ask("SELECT SUM(v) FROM app.bank").await;
            if total.as_deref().ok() != Some(TOTAL) {
                audit.odd.push(format!("{}: {total:?} in the bank", server.name));
            }
        }
        audit
    }

    /// What was told of is there once, on every server, and everybody was let in.
    pub(crate) async fn check(&self, servers: &[&Server]) {
        assert_eq!(self.take_refused(), [""; 0]);
        assert_eq!(self.audit(servers).await, Audit::default());
    }
}

/// What a server has of the ledger; nothing where it does not answer.
async fn rows(server: &Server) -> Vec<u64> {
    let Ok(mut conn) = server.connect(ROOT).await else { return Vec::new() };
    conn.query("SELECT id FROM app.ledger").await.unwrap_or_default()
}

/// Whether an error says that a statement was not executed, or a transaction was rolled back.
fn is_denial(error: &Error) -> bool {
    let Error::Server(said) = error else { return false };
    match said.code {
        // No primary in time, and this server goes away: said to whoever has sent nothing yet.
        1290 | 1053 => true,
        1213 => said.state == "40001",
        _ => false,
    }
}

async fn insert(conn: &mut Conn, kind: Kind, ids: &[u64]) -> mysql_async::Result<()> {
    let statement = |id: &u64| format!("INSERT INTO ledger VALUES ({id})");
    match kind {
        Kind::Prepared => conn.exec_drop("INSERT INTO ledger VALUES (?)", (ids[0],)).await,
        Kind::Statement | Kind::ReadBack | Kind::Newcomer => {
            conn.query_drop(statement(&ids[0])).await
        }
        Kind::Transaction => {
            conn.query_drop("BEGIN").await?;
            let [from, to] = [ids[0] % ACCOUNTS, (ids[0] + 1) % ACCOUNTS];
            for (id, by) in [(from.min(to), -1), (from.max(to), 1)] {
                let transfer = format!("UPDATE bank SET v = v + {by} WHERE id = {id}");
                conn.query_drop(transfer).await?;
            }
            for id in ids {
                conn.query_drop(statement(id)).await?;
            }
            conn.query_drop("COMMIT").await
        }
    }
}
