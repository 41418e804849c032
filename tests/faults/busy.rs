//! Servers that are well and cannot write, have no room, or have much to do: none of them is
//! replaced for that.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use pointsman::app::tasks;
use pointsman::provider::replication::{APP, ROOT};

use crate::console::console;
use crate::kept::standing;
use crate::scene::{Fault, Scene};
use crate::{clients, wait};

/// Longer than it takes to find a primary dead.
const LONG: Duration = Duration::from_secs(6);

/// A session of root's on the primary.
async fn root(scene: &Scene) -> Conn {
    scene.head().await.connect(ROOT).await.expect("root may log in")
}

#[tokio::test]
async fn fault_57_a_metadata_lock_holds_up_a_table() {
    Fault::harmless(57)
        .happens(async |scene| {
            let mut reader = root(scene).await;
            reader.query_drop("BEGIN").await.expect("a transaction");
            reader.query_drop("SELECT COUNT(*) FROM app.bank").await.expect("a lock");
            let mut changer = root(scene).await;
            let alter = "ALTER TABLE app.bank COMMENT = 'changed'";
            let change = tasks::spawn("alter", async move { changer.query_drop(alter).await });
            wait::pass(LONG).await;
            reader.query_drop("COMMIT").await.expect("the lock is free");
            change.await.expect("a task").expect("a change");
        })
        .await;
}

#[tokio::test]
async fn fault_58_a_global_read_lock_holds_up_all_writes() {
    Fault::harmless(58)
        .happens(async |scene| {
            let mut locks = root(scene).await;
            locks.query_drop("FLUSH TABLES WITH READ LOCK").await.expect("a lock");
            wait::pass(LONG).await;
            locks.query_drop("UNLOCK TABLES").await.expect("the lock is free");
        })
        .await;
}

#[tokio::test]
async fn fault_59_a_huge_transaction_is_replicated() {
    Fault::harmless(59)
        .happens(async |scene| {
            let mut conn = root(scene).await;
            let fill = "INSERT INTO app.huge WITH RECURSIVE n AS \
                        (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
                        SELECT REPEAT('x', 100000) FROM n";
            for sql in ["CREATE TABLE app.huge (t LONGTEXT)", fill] {
                conn.query_drop(sql).await.unwrap_or_else(|why| panic!("{sql}: {why}"));
            }
            conn.query_drop("DROP TABLE app.huge").await.expect("it is dropped");
        })
        .await;
}

/// A primary that was closed, and a replica that was opened, by mistake.
#[tokio::test]
async fn fault_60_read_only_is_where_it_should_not_be() {
    Fault::harmless(60)
        .happens(async |scene| {
            let replica = scene.replicas().await[0].name.clone();
            let replica = scene.cluster.server(&replica).expect("it is there");
            replica.run(&["SET GLOBAL read_only = 0"]).await.expect("it is opened");
            wait::until("it to be closed again", || async {
                replica
                    .ask("SELECT @@global.read_only")
                    .await
                    .is_ok_and(|on| on == "1")
                    .then_some(())
            })
            .await;
            let head = scene.head().await;
            // It waits for statements that wait for locks of transactions that wait for it.
            scene.ledger.hold().await;
            head.run(&["SET GLOBAL read_only = 1"]).await.expect("it is closed");
            scene.ledger.resume();
            // Whoever has done that may have meant it.
            wait::until("the keeper to say so", || async {
                standing(&scene.proxy).await.1.contains("has been made read-only").then_some(())
            })
            .await;
            head.run(&["SET GLOBAL read_only = 0"]).await.expect("it is opened");
        })
        .await;
}

/// A primary that has no room for one more connection lives.
#[tokio::test]
async fn fault_80_a_primary_has_no_room() {
    Fault::harmless(80)
        .happens(async |scene| {
            let mut control = root(scene).await;
            let before: Option<u32> =
                control.query_first("SELECT @@global.max_connections").await.expect("a number");
            let before = before.expect("a number");
            // Root's own connection comes on top.
            let mut guests = Vec::new();
            let head = scene.head().await;
            control.query_drop("SET GLOBAL max_connections = 10").await.expect("a bound");
            while guests.len() < 30 {
                match head.connect(APP).await {
                    Ok(guest) => guests.push(guest),
                    Err(_) => break,
                }
            }
            wait::pass(LONG).await;
            let restore = format!("SET GLOBAL max_connections = {before}");
            control.query_drop(restore).await.expect("a bound");
        })
        .await;
}

/// Everybody comes at once when there is a primary again.
#[tokio::test]
async fn fault_83_a_herd_waits_for_the_new_primary() {
    Fault { group: "hold = \"30s\"", ..Fault::deadly(83) }
        .happens(async |scene| {
            let table = "CREATE TABLE IF NOT EXISTS app.herd (id BIGINT)";
            scene.head().await.run(&[table]).await.expect("a table");
            let mut herd = Vec::new();
            for _ in 0..300 {
                herd.push(clients::connect(scene.proxy.port, APP).await);
            }
            let dead = scene.head().await.name.clone();
            scene.cluster.kill(&dead).await.expect("it is killed");
            wait::until("the primary to be known as down", || async {
                console(&scene.proxy, "SHOW SERVERS").await.contains("down").then_some(())
            })
            .await;
            let herd = herd.into_iter().enumerate().map(|(id, mut conn)| {
                let row = format!("INSERT INTO herd VALUES ({id})");
                tasks::spawn("one of a herd", async move { conn.query_drop(row).await })
            });
            for one in herd.collect::<Vec<_>>() {
                one.await.expect("a task").expect("a write on the new primary");
            }
            scene.cluster.start(&dead).await.expect("it comes back");
        })
        .await;
}

/// A session that holds what no other server has is told so, and closed.
#[tokio::test]
async fn fault_92_locks_end_with_their_server() {
    Fault::deadly(92)
        .happens(async |scene| {
            let holds = [
                ("SELECT GET_LOCK('a_lock', 0)", "lock"),
                ("LOCK TABLES once WRITE", "table_lock"),
                ("CREATE TEMPORARY TABLE own (a INT)", "temporary"),
            ];
            let mut sessions = Vec::new();
            for (sql, word) in holds {
                let mut conn = clients::connect(scene.proxy.port, APP).await;
                conn.query_drop(sql).await.unwrap_or_else(|why| panic!("{sql}: {why}"));
                sessions.push((conn, word));
            }
            let dead = scene.head().await.name.clone();
            scene.cluster.kill(&dead).await.expect("it is killed");
            scene.ledger.more(100).await;
            for (mut conn, word) in sessions {
                let told = conn.query_drop("SELECT 1 FROM once").await.expect_err(word);
                let mysql_async::Error::Server(told) = told else { panic!("{word}: {told}") };
                assert_eq!(told.state, "08S01", "{word}: {told:?}");
                assert!(told.message.contains(word), "{word}: {told:?}");
                assert!(conn.ping().await.is_err(), "{word}: it is closed");
            }
            scene.cluster.start(&dead).await.expect("it comes back");
        })
        .await;
}
