//! Writers with a ledger: what they were told is written must be there, once, whatever has happened
//! to the servers meanwhile.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use pointsman::app::tasks;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{APP, ROOT};
use pointsman::provider::server::{Server, opts_at};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::proxy::Proxy;
use crate::wait;

/// How many there are.
pub(crate) const WRITERS: usize = 8;

/// Writers that go on until they are told to stop, and what they were told of.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    stop: AtomicBool,
    /// Writers wait as long as it is true.
    pub(crate) pause: watch::Sender<bool>,
    next: AtomicU64,
    acknowledged: Mutex<Vec<u64>>,
    /// Each with the words of its error.
    pub(crate) unknown: Mutex<Vec<(u64, String)>>,
    /// Logins that were refused, with the words of their errors.
    refused: Mutex<Vec<String>>,
    /// The longest time without an acknowledged write, and when the last one was.
    gap: Mutex<(Duration, Option<Instant>)>,
}

impl Ledger {
    pub(crate) async fn open(cluster: &Cluster, proxy: &Proxy) -> (Arc<Self>, Vec<JoinHandle<()>>) {
        Self::open_with(cluster, proxy, 1).await
    }

    /// The same, of which every second one writes so many rows in each transaction.
    pub(crate) async fn open_with(
        cluster: &Cluster,
        proxy: &Proxy,
        rows: usize,
    ) -> (Arc<Self>, Vec<JoinHandle<()>>) {
        let primary = cluster.primary().expect("a primary");
        primary.run(&["CREATE TABLE app.ledger (id BIGINT, KEY (id))"]).await.expect("a table");
        let ledger = Arc::new(Self::default());
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let (ledger, at) = (ledger.clone(), proxy.at());
            let rows = if number % 2 == 0 { 1 } else { rows };
            writers.push(tasks::spawn("writer", async move { ledger.write(at, rows).await }));
        }
        (ledger, writers)
    }

    async fn write(&self, at: SocketAddr, rows: usize) {
        let mut conn = self.log_in(at).await;
        let mut pause = self.pause.subscribe();
        while !self.stop.load(Ordering::Relaxed) {
            pause.wait_for(|pause| !*pause).await.expect("the ledger is there");
            let ids: Vec<u64> =
                (0..rows).map(|_| self.next.fetch_add(1, Ordering::Relaxed)).collect();
            match insert(&mut conn, &ids).await {
                Ok(()) => ids.into_iter().for_each(|id| self.note(id)),
                Err(error) => {
                    let unknown = ids.into_iter().map(|id| (id, error.to_string()));
                    self.unknown.lock().expect("a list").extend(unknown);
                    conn = self.log_in(at).await;
                }
            }
        }
        conn.disconnect().await.expect("a goodbye");
    }

    /// Logs in, and writes down how often that was refused.
    async fn log_in(&self, at: SocketAddr) -> Conn {
        wait::until("a login", || async {
            match Conn::new(opts_at(at, APP)).await {
                Ok(conn) => Some(conn),
                Err(error) => {
                    self.refused.lock().expect("a list").push(error.to_string());
                    None
                }
            }
        })
        .await
    }

    fn note(&self, id: u64) {
        self.acknowledged.lock().expect("a list").push(id);
        let mut gap = self.gap.lock().expect("a time");
        let since = gap.1.map_or(Duration::ZERO, |last| last.elapsed());
        *gap = (gap.0.max(since), Some(Instant::now()));
    }

    /// The longest time without an acknowledged write so far, which begins anew.
    pub(crate) fn take_gap(&self) -> Duration {
        std::mem::take(&mut self.gap.lock().expect("a time").0)
    }

    pub(crate) fn count(&self) -> usize {
        self.acknowledged.lock().expect("a list").len()
    }

    /// Waits until so many more writes were acknowledged.
    pub(crate) async fn more(&self, writes: usize) {
        let before = self.count();
        wait::until("writes to go on", || async {
            (self.count() >= before + writes).then_some(())
        })
        .await;
    }

    pub(crate) async fn close(&self, writers: Vec<JoinHandle<()>>) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.expect("a writer");
        }
    }

    /// Waits until a server has applied what was told of by now: on a machine that is busy what has
    /// come back may be far behind, and a change to it would last as long.
    pub(crate) async fn reaches(&self, server: &Server) {
        let wanted = self.count();
        wait::until("a server to catch up", || async {
            let rows = server.ask("SELECT COUNT(*) FROM app.ledger").await.ok()?;
            (rows.parse::<usize>().ok()? >= wanted).then_some(())
        })
        .await;
    }

    /// Logins that were refused since this was last asked.
    pub(crate) fn take_refused(&self) -> Vec<String> {
        std::mem::take(&mut *self.refused.lock().expect("a list"))
    }

    /// What was told of is there once, on every server, and everybody was let in.
    pub(crate) async fn check(&self, servers: &[&Server]) {
        assert_eq!(self.take_refused(), [""; 0]);
        let mut acknowledged = self.acknowledged.lock().expect("a list").clone();
        acknowledged.sort_unstable();
        let wanted: BTreeSet<u64> = acknowledged.iter().copied().collect();
        for server in servers {
            wait::until("every server to have all of it", || async {
                let mut conn = Conn::new(server.opts(ROOT)).await.ok()?;
                let there: Vec<u64> = conn.query("SELECT id FROM app.ledger").await.ok()?;
                wanted.is_subset(&there.into_iter().collect()).then_some(())
            })
            .await;
            let twice = "SELECT COUNT(*) FROM (SELECT id FROM app.ledger GROUP BY id \
                         HAVING COUNT(*) > 1) AS twice";
            assert_eq!(server.ask(twice).await.expect("a count"), "0", "{}", server.name);
        }
    }
}

/// One statement, or a transaction of as many as there are ids.
async fn insert(conn: &mut Conn, ids: &[u64]) -> mysql_async::Result<()> {
    let statement = |id: &u64| format!("INSERT INTO ledger VALUES ({id})");
    if let [id] = ids {
        return conn.query_drop(statement(id)).await;
    }
    conn.query_drop("BEGIN").await?;
    for id in ids {
        conn.query_drop(statement(id)).await?;
    }
    conn.query_drop("COMMIT").await
}
