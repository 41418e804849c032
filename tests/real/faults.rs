//! Servers that are killed, frozen and switched behind the clients' backs: nobody notices who
//! need not, and who must be told is told the truth.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use pointsman::app::tasks;
use pointsman::protocol::packet;
use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{self, APP, MONITOR};
use tokio::task::JoinHandle;

use crate::console::console;
use crate::proxy::{Proxy, configuration, configuration_with};
use crate::{clients, raw, servers, wait};

const SESSIONS: u64 = 32;

/// Sessions that go on until they are stopped, and what they have done so far.
#[derive(Debug, Default)]
struct Progress {
    stop: AtomicBool,
    rounds: Vec<AtomicU64>,
}

impl Progress {
    fn new() -> Arc<Self> {
        let rounds = (0..SESSIONS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { stop: AtomicBool::new(false), rounds })
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn advance(&self, session: u64) -> u64 {
        self.rounds[usize::try_from(session).expect("few")].fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until every session has done `rounds` more.
    async fn more(&self, rounds: u64) {
        let now: Vec<u64> = self.rounds.iter().map(|done| done.load(Ordering::Relaxed)).collect();
        wait::until("all sessions to go on", || async {
            let mut pairs = self.rounds.iter().zip(&now);
            pairs
                .all(|(done, before)| done.load(Ordering::Relaxed) >= before + rounds)
                .then_some(())
        })
        .await;
    }
}

/// A proxy that notices a frozen server within a second.
async fn watchful(cluster: &Cluster, group: &str) -> Proxy {
    let seed = cluster.primary().expect("a primary").address();
    let config = configuration_with(MONITOR, "timeout = \"300ms\"", &[&seed], group);
    Proxy::with_config(&config).await.unwrap_or_else(|why| panic!("{why}"))
}

/// The operator makes db2 the primary although db1 does not answer, and db3 follows it.
async fn promote_db2(cluster: &Cluster) {
    let flavour = cluster.flavour();
    let (db2, db3) = (cluster.server("db2").expect("db2"), cluster.server("db3").expect("db3"));
    db2.run(replication::become_primary(flavour)).await.expect("db2 takes writes");
    db3.run(replication::before_following(flavour)).await.expect("db3 stops following");
    db3.run(&replication::follow(flavour, db2.at())).await.expect("db3 follows db2");
}

/// Error number and SQLSTATE of a refusal, and its text.
fn refusal(result: Result<(), mysql_async::Error>) -> (u16, String, String) {
    match result {
        Err(mysql_async::Error::Server(error)) => (error.code, error.state, error.message),
        other => panic!("expected a server's error, got {other:?}"),
    }
}

async fn run(conn: &mut Conn, sql: &str) {
    if let Err(error) = conn.query_drop(sql).await {
        panic!("{sql}: {error}");
    }
}

#[tokio::test]
async fn a_killed_replica_costs_its_readers_nothing() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 2).await;
        let primary = cluster.primary().expect("a primary");
        let table =
            ["CREATE TABLE app.r (a INT PRIMARY KEY)", "INSERT INTO app.r VALUES (1), (2), (3)"];
        primary.run(&table).await.expect("a table");
        cluster.wait_caught_up().await.expect("replicas apply");
        let proxy = Proxy::start(&cluster, "").await;
        let progress = Progress::new();
        let mut readers: Vec<JoinHandle<()>> = Vec::new();
        for session in 0..SESSIONS {
            let mut conn = clients::connect(proxy.port, APP).await;
            let progress = progress.clone();
            readers.push(tasks::spawn("session", async move {
                while progress.goes_on() {
                    let round = progress.advance(session);
                    let sum: Option<u64> = if round.is_multiple_of(2) {
                        conn.query_first(format!("SELECT SUM(a) FROM r WHERE a <> {round}9")).await
                    } else {
                        conn.exec_first("SELECT SUM(a) FROM r WHERE a <> ?", (round + 9,)).await
                    }
                    .unwrap_or_else(|why| panic!("{flavour:?}, round {round}: {why}"));
                    assert_eq!(sum, Some(6));
                }
                conn.disconnect().await.expect("a goodbye");
            }));
        }
        progress.more(20).await;
        cluster.kill("db3").await.expect("a kill");
        progress.more(20).await;
        cluster.start("db3").await.expect("it comes back");
        progress.more(20).await;
        progress.stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.await.expect("a reader without an error");
        }
    }
}

#[tokio::test]
async fn a_switchover_by_sql_loses_and_doubles_no_write() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 2).await;
        let primary = cluster.primary().expect("a primary");
        // No unique key: a doubled write must show.
        let table = ["CREATE TABLE app.ledger (id BIGINT, KEY (id))"];
        primary.run(&table).await.expect("a table");
        cluster.wait_caught_up().await.expect("replicas apply");
        let proxy = Proxy::start(&cluster, "").await;
        let progress = Progress::new();
        let mut writers = Vec::new();
        for session in 0..SESSIONS {
            let mut conn = clients::connect(proxy.port, APP).await;
            let progress = progress.clone();
            writers.push(tasks::spawn("session", async move {
                let mut acknowledged = Vec::new();
                while progress.goes_on() {
                    let id = session * 1_000_000 + progress.advance(session);
                    conn.query_drop(format!("INSERT INTO ledger VALUES ({id})"))
                        .await
                        .unwrap_or_else(|why| panic!("{flavour:?}, writing {id}: {why}"));
                    acknowledged.push(id);
                    let found: Option<u64> = conn
                        .exec_first("SELECT COUNT(*) FROM ledger WHERE id = ?", (id,))
                        .await
                        .unwrap_or_else(|why| panic!("{flavour:?}, reading {id}: {why}"));
                    assert_eq!(found, Some(1), "{flavour:?}: {id} read back");
                }
                conn.disconnect().await.expect("a goodbye");
                acknowledged
            }));
        }
        progress.more(20).await;
        cluster.switchover("db2").await.expect("a switchover");
        progress.more(20).await;
        progress.stop.store(true, Ordering::Relaxed);
        let mut acknowledged = Vec::new();
        for writer in writers {
            acknowledged.extend(writer.await.expect("a writer without an error"));
        }
        acknowledged.sort_unstable();
        let db2 = cluster.server("db2").expect("db2");
        let mut conn = clients::connect(db2.port, APP).await;
        let found: Vec<u64> =
            conn.query("SELECT id FROM ledger ORDER BY id").await.expect("the ledger");
        assert_eq!(found.len(), acknowledged.len(), "{flavour:?}");
        assert_eq!(found, acknowledged, "{flavour:?}");
        conn.disconnect().await.expect("a goodbye");
    }
}

/// How the primary is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Kill,
    Freeze,
}

#[tokio::test]
async fn sessions_outlive_a_killed_primary_or_are_told_what_was_lost() {
    for flavour in servers::flavours() {
        sessions_outlive(flavour, Loss::Kill).await;
    }
}

#[tokio::test]
async fn sessions_outlive_a_frozen_primary_or_are_told_what_was_lost() {
    for flavour in servers::flavours() {
        sessions_outlive(flavour, Loss::Freeze).await;
    }
}

/// Sessions in every state that matters.
struct Sessions {
    idle: Conn,
    transaction: Conn,
    committing: Conn,
    numbering: Conn,
    differing: Conn,
    temporary: Conn,
    locked: Conn,
}

async fn prepare_sessions(port: u16) -> Sessions {
    let mut idle = clients::connect(port, APP).await;
    run(&mut idle, "SET NAMES latin1, time_zone = '+03:00'").await;
    run(&mut idle, "SET @kept = 'this'").await;
    run(&mut idle, "INSERT INTO s VALUES (10)").await;
    let mut transaction = clients::connect(port, APP).await;
    run(&mut transaction, "BEGIN").await;
    run(&mut transaction, "INSERT INTO s VALUES (20)").await;
    let mut committing = clients::connect(port, APP).await;
    run(&mut committing, "BEGIN").await;
    run(&mut committing, "INSERT INTO s VALUES (25)").await;
    let mut numbering = clients::connect(port, APP).await;
    run(&mut numbering, "BEGIN").await;
    numbering.exec_drop("INSERT INTO n (b) VALUES (?)", ("its",)).await.expect("an insert");
    assert_eq!(numbering.last_insert_id(), Some(1));
    // Committed behind it: the new primary would give the next number to whoever comes.
    run(&mut idle, "INSERT INTO n (b) VALUES ('another')").await;
    let mut differing = clients::connect(port, APP).await;
    run(&mut differing, "BEGIN").await;
    run(&mut differing, "INSERT INTO s VALUES (26)").await;
    let _: Option<u64> = differing.query_first("SELECT @@server_id").await.expect("its id");
    let mut temporary = clients::connect(port, APP).await;
    run(&mut temporary, "CREATE TEMPORARY TABLE mine (a INT)").await;
    let mut locked = clients::connect(port, APP).await;
    run(&mut locked, "SELECT GET_LOCK('mine', 0)").await;
    Sessions { idle, transaction, committing, numbering, differing, temporary, locked }
}

async fn sessions_outlive(flavour: Flavour, loss: Loss) {
    let what = format!("{flavour:?} {loss:?}");
    let cluster = servers::own(flavour, 2).await;
    let primary = cluster.primary().expect("a primary");
    let table = [
        "CREATE TABLE app.s (a INT PRIMARY KEY)",
        "INSERT INTO app.s VALUES (1), (2)",
        "CREATE TABLE app.n (id INT PRIMARY KEY AUTO_INCREMENT, b VARCHAR(10))",
    ];
    primary.run(&table).await.expect("a table");
    let proxy = watchful(&cluster, "").await;
    let mut sessions = prepare_sessions(proxy.port).await;

    // A write that a row lock holds on the server: sent, and not answered.
    let mut holder = clients::connect(primary.port, APP).await;
    run(&mut holder, "BEGIN").await;
    run(&mut holder, "SELECT a FROM s WHERE a = 1 FOR UPDATE").await;
    let mut writer = clients::connect(proxy.port, APP).await;
    let waiting = tasks::spawn("session", async move {
        let result = writer.query_drop("UPDATE s SET a = 30 WHERE a = 1 /* in_flight */").await;
        (result, writer)
    });
    wait::until("the write to wait for its row", || async {
        let query = "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
                     WHERE INFO LIKE 'UPDATE s SET a = 30%'";
        (primary.ask(query).await.expect("the process list") == "1").then_some(())
    })
    .await;

    match loss {
        Loss::Kill => cluster.kill("db1").await.expect("a kill"),
        Loss::Freeze => cluster.freeze("db1").expect("a freeze"),
    }
    let (result, mut writer) = waiting.await.expect("the writer");
    let (code, state, text) = refusal(result);
    assert_eq!((code, state.as_str()), (1105, "08007"), "{what}: {text}");
    assert!(text.contains("unknown"), "{what}: {text}");
    assert!(writer.ping().await.is_err(), "{what}: closed after an unknown outcome");

    // A dying server closes its connections one after another: what is sent on one that is still
    // open has an unknown outcome. Once it is known to be down nothing is sent there.
    wait::until("the primary to be known as down", || async {
        console(&proxy, "SHOW SERVERS").await.contains("down").then_some(())
    })
    .await;
    // Not sent yet: it waits for a primary, and so does a client that comes now.
    let mut unsent = sessions.idle;
    let unsent = tasks::spawn("session", async move {
        run(&mut unsent, "INSERT INTO s VALUES (11)").await;
        unsent
    });
    wait::until("the write to be held", || async {
        console(&proxy, "SHOW SESSIONS").await.contains("waiting for a primary").then_some(())
    })
    .await;
    // Never sent to a server that is known to be gone: its transaction is done again, and then it.
    let mut committing = sessions.committing;
    let committing = tasks::spawn("session", async move { run(&mut committing, "COMMIT").await });
    promote_db2(&cluster).await;
    committing.await.expect("a commit on the new primary");
    let mut idle = unsent.await.expect("the write went to the new primary");
    let state: Option<(String, String, String)> = idle
        .query_first("SELECT @kept, @@time_zone, @@character_set_client")
        .await
        .expect("the session goes on");
    let expected = ("this".to_owned(), "+03:00".to_owned(), "latin1".to_owned());
    assert_eq!(state, Some(expected), "{what}");

    let mut transaction = sessions.transaction;
    run(&mut transaction, "INSERT INTO s VALUES (21)").await;
    let seen: Option<u64> =
        transaction.query_first("SELECT SUM(a) FROM s WHERE a >= 20").await.expect("its own");
    assert_eq!(seen, Some(20 + 21 + 25), "{what}: 25 was committed before it was done again");
    run(&mut transaction, "COMMIT").await;
    let mut numbering = sessions.numbering;
    let number: Option<u64> =
        numbering.query_first("SELECT LAST_INSERT_ID()").await.expect("its number");
    assert_eq!(number, Some(1), "{what}: the number that it was told of");
    numbering.exec_drop("UPDATE n SET b = ? WHERE id = 1", ("mine",)).await.expect("an update");
    run(&mut numbering, "COMMIT").await;
    let differing = &mut sessions.differing;
    told(differing, "COMMIT", (1213, "40001"), "rolled back", &what).await;
    assert!(differing.ping().await.is_ok(), "{what}: 1213 leaves the connection open");
    let replays = |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        proxy.metric("pointsman_transaction_replays_total", &[&outcome])
    };
    assert_eq!((replays("alike"), replays("differed")), (3.0, 1.0), "{what}");
    told(&mut sessions.temporary, "SELECT 1", (1105, "08S01"), "temporary", &what).await;
    assert!(sessions.temporary.ping().await.is_err(), "{what}: closed after lost state");
    told(&mut sessions.locked, "SELECT 1", (1105, "08S01"), "lock", &what).await;

    // The transaction can begin anew on the same connection.
    let mut again = sessions.differing;
    run(&mut again, "BEGIN").await;
    run(&mut again, "INSERT INTO s VALUES (26)").await;
    run(&mut again, "COMMIT").await;
    let db2 = cluster.server("db2").expect("db2");
    let values = db2.ask("SELECT GROUP_CONCAT(a ORDER BY a) FROM app.s").await;
    assert_eq!(values.expect("the rows"), "1,2,10,11,20,21,25,26", "{what}");
    let values = db2.ask("SELECT GROUP_CONCAT(id, b ORDER BY id) FROM app.n").await;
    assert_eq!(values.expect("the rows"), "1mine,2another", "{what}");
}

/// The next statement of a session is refused with this code, SQLSTATE and word.
async fn told(conn: &mut Conn, sql: &str, expected: (u16, &str), word: &str, what: &str) {
    let (code, state, text) = refusal(conn.query_drop(sql).await);
    assert_eq!((code, state.as_str()), expected, "{what}: {sql}: {text}");
    assert!(text.contains(word), "{what}: {sql}: {text}");
}

#[tokio::test]
async fn a_login_that_found_the_primary_gone_gets_in_when_it_is_back() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 0).await;
        let seed = cluster.primary().expect("a primary").address();
        // No probe of its own accord, and no number of failed ones that changes the topology:
        // only dialling again can tell that the primary is there.
        let config = configuration(&[&seed], "hold = \"60s\"")
            .replace("interval = \"100ms\"", "interval = \"1m\"\nfall = 100");
        assert!(config.contains("fall = 100"), "{config}");
        let proxy = Proxy::with_config(&config).await.unwrap_or_else(|why| panic!("{why}"));
        let known = clients::connect(proxy.port, APP).await;
        known.disconnect().await.expect("a goodbye");
        cluster.kill("db1").await.expect("a kill");
        let port = proxy.port;
        let login = tasks::spawn("login", async move { clients::connect(port, APP).await });
        wait::until("its dial to fail", || async {
            let failed = proxy.metric("pointsman_server_link_errors_total", &["kind=\"connect\""]);
            (failed > 0.0).then_some(())
        })
        .await;
        cluster.start("db1").await.expect("it comes back");
        let in_time = tokio::time::timeout(wait::PATIENCE, login).await;
        let mut client = in_time.expect("a login before the hold ends").expect("a login");
        let one: Option<u8> = client.query_first("SELECT 1").await.expect("a read");
        assert_eq!(one, Some(1), "{flavour:?}");
    }
}

#[tokio::test]
async fn a_primary_that_a_client_makes_read_only_answers_for_itself() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 2).await;
        let primary = cluster.primary().expect("a primary");
        let table = [
            "CREATE TABLE app.closing (a INT)",
            "CREATE USER 'closer'@'%' IDENTIFIED BY 'closer'",
            "GRANT ALL PRIVILEGES ON *.* TO 'closer'@'%'",
        ];
        primary.run(&table).await.expect("a table");
        cluster.wait_caught_up().await.expect("replicas apply");
        let proxy = watchful(&cluster, "hold = \"60s\"").await;
        let mut writer = clients::connect(proxy.port, APP).await;
        run(&mut writer, "INSERT INTO closing VALUES (1)").await;
        let mut open = clients::connect(proxy.port, APP).await;
        run(&mut open, "BEGIN").await;
        run(&mut open, "INSERT INTO closing VALUES (2)").await;
        let _: Option<u8> = open.query_first("SELECT @@global.read_only").await.expect("it");
        let mut closer = clients::connect(proxy.port, ("closer", "closer")).await;
        run(&mut closer, "SET GLOBAL read_only = 1").await;
        let (code, _, text) = refusal(open.query_drop("COMMIT").await);
        assert_eq!(code, 1290, "{flavour:?}: {text}");
        assert!(text.contains("--read-only"), "{flavour:?}: the server's own words: {text}");
        run(&mut open, "ROLLBACK").await;
        let refused = writer.query_drop("INSERT INTO closing VALUES (2)");
        let refused = tokio::time::timeout(wait::PATIENCE, refused).await.expect("not held");
        let (code, _, text) = refusal(refused);
        assert_eq!(code, 1290, "{flavour:?}: {text}");
        assert!(text.contains("--read-only"), "{flavour:?}: the server's own words: {text}");
        // Logins and those who may write go on, and so do the reads of all.
        let mut other = clients::connect(proxy.port, ("closer", "closer")).await;
        run(&mut other, "INSERT INTO closing VALUES (3)").await;
        // Another session's write: the writer's own reads need not have seen it before.
        cluster.wait_caught_up().await.expect("replicas apply");
        let sum: Option<u64> = writer.query_first("SELECT SUM(a) FROM closing").await.expect("it");
        assert_eq!(sum, Some(4), "{flavour:?}");
        run(&mut closer, "SET GLOBAL read_only = 0").await;
        run(&mut writer, "INSERT INTO closing VALUES (5)").await;

        // Closed by a client and then replaced: nobody writes there any more.
        run(&mut closer, "SET GLOBAL read_only = 1").await;
        promote_db2(&cluster).await;
        wait::until("the new primary to be known", || async {
            let primary = cluster.server("db2").expect("db2").address();
            proxy.log().contains(&format!("the primary is {primary}")).then_some(())
        })
        .await;
        run(&mut writer, "INSERT INTO closing VALUES (6)").await;
        run(&mut other, "INSERT INTO closing VALUES (7)").await;
        let query = "SELECT GROUP_CONCAT(a ORDER BY a) FROM app.closing WHERE a > 5";
        let db2 = cluster.server("db2").expect("db2");
        assert_eq!(db2.ask(query).await.expect("an answer"), "6,7", "{flavour:?}");
    }
}

#[tokio::test]
async fn a_replica_killed_in_mid_result_ends_the_result_with_an_error() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 2).await;
        let primary = cluster.primary().expect("a primary");
        let numbers: Vec<String> = (0..1000).map(|number| format!("({number})")).collect();
        let table = [
            "CREATE TABLE app.n (a INT PRIMARY KEY)".to_owned(),
            format!("INSERT INTO app.n VALUES {}", numbers.join(", ")),
        ];
        primary.run(&table).await.expect("a table");
        cluster.wait_caught_up().await.expect("replicas apply");
        let proxy = Proxy::start(&cluster, "").await;
        let mut conn = clients::connect(proxy.port, APP).await;
        let mut neighbour = clients::connect(proxy.port, APP).await;
        run(&mut neighbour, "SELECT a FROM n WHERE a = 1").await;
        let sql = "SELECT a, REPEAT('x', 200000) AS mid_result FROM n ORDER BY a";
        let mut result = conn.query_iter(sql).await.expect("a result");
        let first = result.next().await.expect("a row").expect("a first row");
        assert_eq!(first.get::<u32, _>(0), Some(0));
        let query = "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
                     WHERE INFO LIKE 'SELECT a, REPEAT%'";
        let mut working = None;
        for replica in cluster.replicas().expect("replicas") {
            if replica.ask(query).await.expect("the process list") == "1" {
                working = Some(replica.name.clone());
            }
        }
        let working = working.expect("a replica works on it");
        cluster.kill(&working).await.expect("a kill");
        let mut rows = 1;
        let end = loop {
            match result.next().await {
                Ok(Some(_)) => rows += 1,
                end => break end,
            }
        };
        assert!(end.is_err() && rows < 1000, "{flavour:?}: {rows} rows, then {end:?}");
        drop(result);
        run(&mut neighbour, "SELECT a FROM n WHERE a = 2").await;
        let mut after = clients::connect(proxy.port, APP).await;
        run(&mut after, "SELECT a FROM n WHERE a = 3").await;
    }
}

/// A client goes while SLEEP runs, without a word: servers look for that from time to time, and
/// give up.
#[tokio::test]
async fn a_statement_ends_with_the_client_that_has_left_it() {
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let proxy = Proxy::start(cluster, "").await;
        let sql = "SELECT SLEEP(987) AS left_alone";
        leave_alone(cluster, &proxy, sql).await;
        wait::until("its end", || runs(cluster, sql, 0)).await;
    }
}

/// What a client has left ends with its link: begun anew elsewhere, it would run on for nobody.
#[tokio::test]
async fn what_a_client_has_left_is_not_begun_anew() {
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let config = configuration(&[&cluster.primary().expect("a primary").address()], "");
        let proxy = Proxy::with_config(&format!("log_filter = \"debug\"\n{config}")).await;
        let proxy = proxy.expect("a proxy");
        let sql = "SELECT SLEEP(986) AS left_alone";
        leave_alone(cluster, &proxy, sql).await;
        let noticed = || async { proxy.log().contains("left a statement").then_some(()) };
        wait::until("the proxy to notice", noticed).await;
        for server in cluster.servers() {
            let ids = format!("SELECT ID FROM information_schema.PROCESSLIST WHERE INFO = '{sql}'");
            let id = server.ask(&ids).await.unwrap_or_default();
            if !id.is_empty() {
                server.run(&[format!("KILL {id}")]).await.expect("the end of the link");
            }
        }
        wait::until("its end", || runs(cluster, sql, 0)).await;
    }
}

/// A client that goes without a word while its statement runs.
async fn leave_alone(cluster: &Cluster, proxy: &Proxy, sql: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).expect("somebody listens");
    raw::login(&mut stream, APP, None).expect("a login");
    let mut bytes = Vec::new();
    packet::write(&mut bytes, 0, &[b"\x03", sql.as_bytes()].concat());
    stream.write_all(&bytes).expect("sent");
    wait::until("the statement to run", || runs(cluster, sql, 1)).await;
}

/// Whether so many connections run a statement, on all servers.
async fn runs(cluster: &Cluster, sql: &str, wanted: usize) -> Option<()> {
    let query = format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO = '{sql}'");
    let mut all = 0;
    for server in cluster.servers() {
        all +=
            server.ask(&query).await.expect("the process list").parse::<usize>().expect("a number");
    }
    (all == wanted).then_some(())
}
