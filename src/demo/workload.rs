//! Clients as applications are: reads, writes, transactions, and a read of what was just written.
//!
//! Each client owns a counter that it raises, so that a lost write shows, and all move money
//! between the same accounts, so that half a transaction shows.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, TxOpts};
use tokio::task::JoinHandle;

use crate::app::tasks;
use crate::demo::Error;
use crate::provider::local::Cluster;
use crate::provider::replication::APP;
use crate::provider::server::Condition;

/// How many accounts money moves between.
const ACCOUNTS: u64 = 1000;
/// What each holds at first.
const BALANCE: u64 = 100;
/// Pause of a client between two operations.
const THINK: Duration = Duration::from_millis(3);
/// Pause before a client that was thrown out connects again.
const AGAIN: Duration = Duration::from_millis(100);
/// How many error texts are kept.
const TEXTS: usize = 5;

/// The clients and what they have seen.
#[derive(Debug)]
pub struct Workload {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    acknowledged: Vec<Arc<AtomicU64>>,
    clients: Mutex<Vec<JoinHandle<()>>>,
}

/// What the clients have seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Reads that were answered.
    pub reads: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Transactions that were acknowledged.
    pub transactions: u64,
    /// Writes of which the client was told that their outcome is unknown (SQLSTATE 08007): sent,
    /// and not answered when their server died.
    pub unknown: u64,
    /// The longest time without an acknowledged write.
    pub longest_gap: Duration,
    /// When a write was acknowledged last.
    wrote_at: Option<Instant>,
    /// All other errors, lost connections and wrong answers.
    pub errors: u64,
    /// The first few error texts.
    pub texts: Vec<String>,
    /// Latencies since the last look, microseconds.
    pub latency: Histogram<u64>,
    /// All latencies, microseconds.
    pub latency_total: Histogram<u64>,
}

/// What the tables say about the clients' work afterwards.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wrong {
    /// Writes that were acknowledged and are not there.
    pub lost: u64,
    /// How much money appeared or vanished.
    pub imbalance: u64,
}

/// One operation of a client.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Read,
    PreparedRead,
    ReadOnlyTransaction,
    Write,
    Transfer,
}

/// One client.
struct Client {
    number: u64,
    opts: Opts,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    /// Steps of a linear congruence: chance enough for a workload, the same in every run.
    chance: u64,
}

impl Workload {
    /// Starts `clients` clients of `dsn`.
    #[must_use]
    pub fn start(dsn: &str, clients: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let acknowledged: Vec<_> = (0..clients).map(|_| Arc::new(AtomicU64::new(0))).collect();
        let mut tasks = Vec::new();
        if let Ok(opts) = Opts::from_url(dsn) {
            for (number, acknowledged) in (0..).zip(&acknowledged) {
                let client = Client {
                    number,
                    opts: opts.clone(),
                    seen: seen.clone(),
                    stop: stop.clone(),
                    acknowledged: acknowledged.clone(),
                    chance: number,
                };
                tasks.push(tasks::spawn("client", client.run()));
            }
        }
        Self { stop, seen, acknowledged, clients: Mutex::new(tasks) }
    }

    /// Lets every client finish its operation and leave.
    pub async fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut *lock(&self.clients));
        for client in clients {
            let _ = client.await;
        }
    }

    /// What was seen so far; latencies since the last call.
    #[must_use]
    pub fn look(&self) -> Seen {
        let mut seen = lock(&self.seen);
        let copy = seen.clone();
        seen.latency.reset();
        copy
    }

    /// What was seen in all.
    #[must_use]
    pub fn total(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// The last counter value of each client that was acknowledged to it.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<u64> {
        self.acknowledged.iter().map(|counter| counter.load(Ordering::Relaxed)).collect()
    }
}

impl Default for Seen {
    fn default() -> Self {
        // A minute in microseconds, two significant digits; these bounds are always accepted.
        let empty = Histogram::new_with_max(60_000_000, 2);
        let empty = empty.expect("invariant: 60 000 000 is at least 2, and 2 digits are at most 5");
        Self {
            reads: 0,
            writes: 0,
            transactions: 0,
            unknown: 0,
            longest_gap: Duration::ZERO,
            wrote_at: None,
            errors: 0,
            texts: Vec::new(),
            latency: empty.clone(),
            latency_total: empty,
        }
    }
}

impl Seen {
    fn success(&mut self, operation: Operation, micros: u64) {
        self.latency.saturating_record(micros);
        self.latency_total.saturating_record(micros);
        match operation {
            Operation::Read | Operation::PreparedRead => self.reads += 1,
            Operation::Write => self.writes += 1,
            Operation::ReadOnlyTransaction | Operation::Transfer => self.transactions += 1,
        }
        if matches!(operation, Operation::Write | Operation::Transfer) {
            let now = Instant::now();
            let gap = self.wrote_at.map_or(Duration::ZERO, |at| now.duration_since(at));
            self.longest_gap = self.longest_gap.max(gap);
            self.wrote_at = Some(now);
        }
    }

    fn failure(&mut self, operation: Operation, error: &mysql_async::Error) {
        if is_unknown(error) {
            self.unknown += 1;
        } else {
            self.error(format!("{operation:?}: {error}"));
        }
    }

    fn error(&mut self, text: String) {
        self.errors += 1;
        if self.texts.len() < TEXTS && !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }
}

impl Wrong {
    /// How many things are wrong.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.lost + u64::from(self.imbalance != 0)
    }
}

impl Client {
    async fn run(mut self) {
        while !self.stopped() {
            match Conn::new(self.opts.clone()).await {
                Ok(conn) => self.work(conn).await,
                Err(error) => {
                    lock(&self.seen).error(format!("connecting: {error}"));
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Works on one connection until it breaks or the demo ends.
    async fn work(&mut self, mut conn: Conn) {
        while !self.stopped() {
            let operation = self.choose();
            let begin = Instant::now();
            let result = self.perform(&mut conn, operation).await;
            let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
            match result {
                Ok(()) => lock(&self.seen).success(operation, micros),
                Err(error) => {
                    lock(&self.seen).failure(operation, &error);
                    if error.is_fatal() || is_unknown(&error) {
                        return;
                    }
                    // The transaction may be open still; an application would do the same.
                    let _ = conn.query_drop("ROLLBACK").await;
                }
            }
            tokio::time::sleep(THINK).await;
        }
        let _ = conn.disconnect().await;
    }

    fn random(&mut self) -> u64 {
        // Knuth's MMIX constants.
        self.chance = self
            .chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.chance >> 33
    }

    fn choose(&mut self) -> Operation {
        match self.random() % 20 {
            0..9 => Operation::Read,
            9..13 => Operation::PreparedRead,
            13 => Operation::ReadOnlyTransaction,
            14..18 => Operation::Write,
            _ => Operation::Transfer,
        }
    }

    async fn perform(
        &mut self,
        conn: &mut Conn,
        operation: Operation,
    ) -> Result<(), mysql_async::Error> {
        let one = self.random() % ACCOUNTS;
        let other = (one + 1 + self.random() % (ACCOUNTS - 1)) % ACCOUNTS;
        match operation {
            Operation::Read => {
                let query = format!("SELECT balance FROM demo_accounts WHERE id = {one}");
                found(conn.query_first::<i64, _>(query).await?)
            }
            Operation::PreparedRead => {
                let query = "SELECT balance FROM demo_accounts WHERE id = ?";
                found(conn.exec_first::<i64, _, _>(query, (one,)).await?)
            }
            Operation::ReadOnlyTransaction => {
                let mut options = TxOpts::default();
                options.with_readonly(Some(true));
                let mut tx = conn.start_transaction(options).await?;
                let query =
                    format!("SELECT balance FROM demo_accounts WHERE id IN ({one}, {other})");
                let _: Vec<i64> = tx.query(query).await?;
                tx.commit().await
            }
            Operation::Write => self.count(conn).await,
            Operation::Transfer => {
                // Always in the same order, so that no two transfers wait for each other.
                let (low, high) = (one.min(other), one.max(other));
                let amount = if low == one { 1 } else { -1 };
                let update = "UPDATE demo_accounts SET balance = balance + ? WHERE id = ?";
                let mut tx = conn.start_transaction(TxOpts::default()).await?;
                tx.exec_drop(update, (amount, low)).await?;
                tx.exec_drop(update, (-amount, high)).await?;
                tx.commit().await
            }
        }
    }

    /// Raises the client's own counter, and reads it back: a smaller value is a stale read.
    async fn count(&mut self, conn: &mut Conn) -> Result<(), mysql_async::Error> {
        let number = self.number;
        let update = format!("UPDATE demo_counters SET n = n + 1 WHERE client = {number}");
        conn.query_drop(update).await?;
        let written = self.acknowledged.fetch_add(1, Ordering::Relaxed) + 1;
        let query = format!("SELECT n FROM demo_counters WHERE client = {number}");
        match conn.query_first::<u64, _>(query).await? {
            Some(read) if read >= written => Ok(()),
            read => Err(wrong(format!("stale read: wrote {written}, read {read:?}"))),
        }
    }
}

/// Makes the tables on the primary, as the application, and waits until the replicas have them.
///
/// # Errors
/// When a statement fails.
pub async fn make_tables(cluster: &Cluster, clients: u16) -> Result<(), Error> {
    let failed = |source| Error::Tables { what: "making the demo's tables", source };
    let mut conn = cluster.primary()?.connect(APP).await.map_err(failed)?;
    let accounts: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, {BALANCE})")).collect();
    let counters: Vec<String> = (0..clients).map(|client| format!("({client}, 0)")).collect();
    for statement in [
        "CREATE TABLE demo_accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL)".to_owned(),
        "CREATE TABLE demo_counters (client INT PRIMARY KEY, n BIGINT NOT NULL)".to_owned(),
        format!("INSERT INTO demo_accounts VALUES {}", accounts.join(", ")),
        format!("INSERT INTO demo_counters VALUES {}", counters.join(", ")),
    ] {
        conn.query_drop(statement).await.map_err(failed)?;
    }
    conn.disconnect().await.map_err(failed)?;
    Ok(cluster.wait_caught_up().await?)
}

/// Compares what was acknowledged with what every server has that runs.
///
/// # Errors
/// When a server does not answer.
pub async fn audit(cluster: &Cluster, acknowledged: &[u64]) -> Result<Wrong, Error> {
    let failed = |source| Error::Tables { what: "checking the demo's tables", source };
    let mut wrong = Wrong::default();
    for server in cluster.servers().iter().filter(|at| at.condition() == Condition::Running) {
        let mut conn = server.connect(APP).await.map_err(failed)?;
        let query = "SELECT n FROM demo_counters ORDER BY client";
        let stored: Vec<u64> = conn.query(query).await.map_err(failed)?;
        let missing = acknowledged.iter().zip(&stored).map(|(a, s)| a.saturating_sub(*s));
        wrong.lost = wrong.lost.max(missing.sum());
        let query = "SELECT CAST(SUM(balance) AS SIGNED) FROM demo_accounts";
        let sum: Option<i64> = conn.query_first(query).await.map_err(failed)?;
        let right = i64::try_from(ACCOUNTS * BALANCE).unwrap_or(i64::MAX);
        wrong.imbalance = wrong.imbalance.max(sum.unwrap_or(0).abs_diff(right));
        conn.disconnect().await.map_err(failed)?;
    }
    Ok(wrong)
}

/// Whether the client is told that it cannot be known what has become of its write.
fn is_unknown(error: &mysql_async::Error) -> bool {
    matches!(error, mysql_async::Error::Server(told) if told.state == "08007")
}

/// A row that exists must be found.
fn found(row: Option<i64>) -> Result<(), mysql_async::Error> {
    row.map(|_| ()).ok_or_else(|| wrong("a row that exists was not found".to_owned()))
}

/// A wrong answer, as an error.
fn wrong(text: String) -> mysql_async::Error {
    mysql_async::Error::Other(text.into())
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
