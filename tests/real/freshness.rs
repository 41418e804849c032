//! Read-your-writes: no read of a session is older than the session's own last write, whether
//! replicas apply or not; and while they do, they are the ones that answer.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use pointsman::app::tasks;
use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{APP, ROOT};

use crate::proxy::Proxy;
use crate::{clients, servers, wait};

const SESSIONS: u32 = 8;
const PAIRS: u32 = 10_000;

/// What the pairs of one session showed.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    pairs: u32,
    stale: u32,
}

/// Writes, then reads it back, `pairs` times from `SESSIONS` sessions in all.
async fn write_then_read(port: u16, pairs: u32) -> Seen {
    let mut sessions = Vec::new();
    for id in 0..SESSIONS {
        sessions.push(tasks::spawn("session", async move {
            let mut conn = clients::connect(port, APP).await;
            let mut seen = Seen::default();
            for value in 1..=pairs / SESSIONS {
                let statement = format!("UPDATE pairs SET v = {value} WHERE id = {id}");
                conn.query_drop(statement).await.expect("a write");
                let read = format!("SELECT v AS pair FROM pairs WHERE id = {id}");
                let found: Option<u32> = conn.query_first(read).await.expect("a read");
                seen.pairs += 1;
                seen.stale += u32::from(found != Some(value));
            }
            conn.disconnect().await.expect("a goodbye");
            seen
        }));
    }
    let mut all = Seen::default();
    for session in sessions {
        let seen = session.await.expect("a session");
        all.pairs += seen.pairs;
        all.stale += seen.stale;
    }
    all
}

/// Plain reads of a table that nobody writes, from `SESSIONS` sessions.
async fn read_only(port: u16, each: u32) {
    let mut sessions: Vec<Conn> = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(clients::connect(port, APP).await);
    }
    for number in 0..each {
        for conn in &mut sessions {
            let read = format!("SELECT COUNT(*) + {number} FROM pairs WHERE id < {SESSIONS}");
            let found: Option<u32> = conn.query_first(read).await.expect("a read");
            assert_eq!(found, Some(SESSIONS + number));
        }
    }
    for conn in sessions {
        conn.disconnect().await.expect("a goodbye");
    }
}

/// Reads answered by replicas, and by all servers.
fn reads(proxy: &Proxy, cluster: &Cluster) -> (f64, f64) {
    let class = "class=\"read\"";
    let primary = cluster.primary().expect("a primary").address();
    let all = proxy.metric("pointsman_queries_total", &[class]);
    let on_primary =
        proxy.metric("pointsman_queries_total", &[class, &format!("server=\"{primary}\"")]);
    (all - on_primary, all)
}

async fn with_table(flavour: Flavour) -> Cluster {
    let cluster = servers::own(flavour, 2).await;
    let primary = cluster.primary().expect("a primary");
    let rows: Vec<String> = (0..SESSIONS).map(|id| format!("({id}, 0)")).collect();
    let statements = [
        "CREATE TABLE app.pairs (id INT PRIMARY KEY, v INT)".to_owned(),
        format!("INSERT INTO app.pairs VALUES {}", rows.join(", ")),
    ];
    primary.run(&statements).await.expect("a table");
    cluster.wait_caught_up().await.expect("replicas apply");
    cluster
}

#[tokio::test]
async fn replicas_that_apply_answer_nearly_all_reads_and_none_is_stale() {
    for flavour in servers::flavours() {
        let cluster = with_table(flavour).await;
        // However slow the machine is: no read gives a replica up that is about to apply.
        let proxy = Proxy::start(&cluster, "replica_wait = \"30s\"").await;
        let began = std::time::Instant::now();
        let seen = write_then_read(proxy.port, PAIRS / 5).await;
        let took = began.elapsed();
        assert_eq!((seen.pairs, seen.stale), (PAIRS / 5, 0), "{flavour:?}");
        let (pairs_on_replicas, pairs) = reads(&proxy, &cluster);
        read_only(proxy.port, 250).await;
        let (on_replicas, all) = reads(&proxy, &cluster);
        eprintln!(
            "{flavour:?}: {} pairs in {took:?}, {pairs_on_replicas} of {pairs} reads right \
             after a write on replicas, {on_replicas} of {all} of all",
            seen.pairs
        );
        assert!(
            all >= f64::from(PAIRS / 5 + 250 * SESSIONS),
            "{flavour:?}: {all} reads were counted"
        );
        assert!(on_replicas >= 0.95 * all, "{flavour:?}: {on_replicas} of {all} on replicas");
    }
}

#[tokio::test]
async fn replicas_that_do_not_apply_answer_nothing_stale() {
    for flavour in servers::flavours() {
        let cluster = with_table(flavour).await;
        let proxy = Proxy::start(&cluster, "").await;
        // The first reads come while health still believes in the replicas.
        let stop = match flavour {
            Flavour::Mariadb => "STOP SLAVE SQL_THREAD",
            Flavour::Mysql => "STOP REPLICA SQL_THREAD",
        };
        for replica in cluster.replicas().expect("replicas") {
            replica.run(&[stop]).await.expect(stop);
        }
        let began = std::time::Instant::now();
        let seen = write_then_read(proxy.port, PAIRS).await;
        eprintln!("{flavour:?}: {PAIRS} pairs without appliers in {:?}", began.elapsed());
        assert_eq!((seen.pairs, seen.stale), (PAIRS, 0), "{flavour:?}");
        // Once they apply again they answer again.
        let start = match flavour {
            Flavour::Mariadb => "START SLAVE SQL_THREAD",
            Flavour::Mysql => "START REPLICA SQL_THREAD",
        };
        for replica in cluster.replicas().expect("replicas") {
            replica.run(&[start]).await.expect(start);
        }
        wait::until("replicas to answer again", || async {
            let before = reads(&proxy, &cluster).0;
            read_only(proxy.port, 1).await;
            (reads(&proxy, &cluster).0 >= before + f64::from(SESSIONS)).then_some(())
        })
        .await;
    }
}

/// What a failing statement leaves is told by no server: it has ended the transaction before it
/// failed, or has dropped one of two tables.
#[tokio::test]
async fn what_a_failing_statement_has_changed_is_read_where_it_is() {
    for flavour in servers::flavours() {
        let cluster = with_table(flavour).await;
        let proxy = Proxy::start(&cluster, "").await;
        // Sessions whose last write is known, and known to be on the replicas.
        let mut sessions = Vec::new();
        for id in 0..2 {
            let mut conn = clients::connect(proxy.port, APP).await;
            let write = format!("UPDATE pairs SET v = 1 WHERE id = {id}");
            conn.query_drop(write).await.expect("a write");
            sessions.push(conn);
        }
        cluster.wait_caught_up().await.expect("replicas apply");
        // Appliers that run and get nowhere: health goes on believing in the replicas.
        let mut locked = Vec::new();
        for replica in cluster.replicas().expect("replicas") {
            let mut root = replica.connect(ROOT).await.expect("root");
            root.query_drop("FLUSH TABLES WITH READ LOCK").await.expect("a lock");
            locked.push(root);
        }
        let [mut ends, mut drops] = <[Conn; 2]>::try_from(sessions).expect("two sessions");
        ends.query_drop("BEGIN").await.expect("a transaction");
        ends.query_drop("INSERT INTO pairs VALUES (100, 7)").await.expect("a write");
        ends.query_drop("TRUNCATE no_such").await.expect_err("there is none");
        assert!(ends.reset().await.expect("a reset"), "by COM_RESET_CONNECTION");
        let read = "SELECT v AS pair FROM pairs WHERE id = 100";
        let found: Option<u32> = ends.query_first(read).await.expect("a read");
        assert_eq!(found, Some(7), "{flavour:?}: TRUNCATE has committed");
        drops.query_drop("DROP TABLE pairs, no_such").await.expect_err("there is none");
        let direct = cluster.primary().expect("a primary").ask("SELECT COUNT(*) FROM app.pairs");
        let found = drops.query_first::<u32, _>("SELECT COUNT(*) FROM pairs").await;
        assert_eq!(found.is_ok(), direct.await.is_ok(), "{flavour:?}: {found:?}");
        drop(locked);
    }
}

#[tokio::test]
async fn with_global_consistency_a_read_waits_for_the_locks_of_others() {
    for flavour in servers::flavours() {
        let cluster = with_table(flavour).await;
        let proxy = Proxy::start(&cluster, "consistency = \"global\"").await;
        let mut holder = clients::connect(proxy.port, APP).await;
        let mut other = clients::connect(proxy.port, APP).await;
        other.query_drop("SET lock_wait_timeout = 1").await.expect("patience");
        let read = "SELECT COUNT(*) FROM app.pairs";
        for _ in 0..2 {
            holder.query_drop("LOCK TABLES app.pairs WRITE").await.expect("a lock");
            let refused = other.query_drop(read).await.expect_err("it waits in vain");
            assert_eq!(clients::errno(&refused), Some(1205), "{flavour:?}: {refused}");
            holder.query_drop("UNLOCK TABLES").await.expect("no lock");
            let before = reads(&proxy, &cluster).0;
            let found: Option<u32> = other.query_first(read).await.expect("a read");
            assert_eq!(found, Some(SESSIONS), "{flavour:?}");
            assert!(reads(&proxy, &cluster).0 > before, "{flavour:?}: not on a replica");
        }
        holder.query_drop("LOCK TABLES app.pairs WRITE").await.expect("a lock");
        drop(holder);
        wait::until("reads on replicas again", || async {
            let before = reads(&proxy, &cluster).0;
            let mut conn = clients::connect(proxy.port, APP).await;
            conn.query_drop(read).await.ok()?;
            (reads(&proxy, &cluster).0 > before).then_some(())
        })
        .await;
    }
}
