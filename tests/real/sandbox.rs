//! The sandbox itself: what the demo, all other tests and the benches stand on.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{APP, MONITOR, ROOT};
use pointsman::provider::server::Condition;
use pointsman::provider::{Flavour, process};

use crate::{clients, logs, servers, wait};

/// The values of `t`, straight from the server at `port`.
async fn rows(port: u16) -> Vec<i64> {
    let mut conn = clients::connect(port, APP).await;
    let rows = conn.query("SELECT a FROM t ORDER BY a").await.expect("the table");
    conn.disconnect().await.expect("a goodbye");
    rows
}

async fn write(cluster: &Cluster, statement: &str) {
    let mut conn = clients::connect(cluster.primary().expect("a primary").port, APP).await;
    conn.query_drop(statement).await.expect("the primary takes writes");
    conn.disconnect().await.expect("a goodbye");
}

#[tokio::test]
async fn a_statement_is_found_on_the_one_server_that_ran_it() {
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let replica = cluster.replicas().expect("replicas")[0];
        let said = clients::command_line(
            cluster.programs(),
            replica.port,
            APP,
            &["app"],
            "SELECT 6 * 7 AS answer /* where_am_i */;\n",
        );
        assert!(said.ok, "{}", said.error);
        assert_eq!(said.out, "answer\n42\n");
        // The MySQL client drops comments, MariaDB's keeps them.
        let marker = "6 * 7";
        assert_eq!(
            logs::where_ran(cluster, marker),
            std::slice::from_ref(&replica.name),
            "{flavour:?}"
        );
        let entry = &logs::find(cluster, marker)[0];
        assert_eq!((entry.user.as_str(), entry.command.as_str()), ("app", "Query"));
    }
}

#[tokio::test]
async fn replicas_follow_acknowledge_and_refuse_writes() {
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        write(cluster, "CREATE TABLE follows (a INT PRIMARY KEY)").await;
        cluster.wait_caught_up().await.expect("replicas apply");
        for replica in cluster.replicas().expect("replicas") {
            let mut conn = clients::connect(replica.port, APP).await;
            let refused = conn.query_drop("INSERT INTO follows VALUES (1)").await;
            let refused = refused.expect_err("a replica is read-only to applications");
            assert_eq!(clients::errno(&refused), Some(1290), "{flavour:?}: {refused}");
            // The DDL came by replication, which is no client.
            assert_eq!(logs::where_ran(cluster, "CREATE TABLE follows").len(), 1);
            conn.disconnect().await.expect("a goodbye");
        }
        write(cluster, "DROP TABLE follows").await;
    }
}

#[tokio::test]
async fn the_monitor_account_sees_what_discovery_needs() {
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let query = match flavour {
            Flavour::Mariadb => "SHOW SLAVE HOSTS",
            Flavour::Mysql => "SHOW REPLICAS",
        };
        let primary = cluster.primary().expect("a primary");
        let mut conn = clients::connect_bare(primary.at(), MONITOR).await;
        let replicas: Vec<mysql_async::Row> = conn.query(query).await.expect(query);
        let mut ports: Vec<u16> = replicas.iter().filter_map(|row| row.get("Port")).collect();
        ports.sort_unstable();
        let mut expected: Vec<u16> =
            cluster.replicas().expect("replicas").iter().map(|server| server.port).collect();
        expected.sort_unstable();
        assert_eq!(ports, expected, "{flavour:?}");
        conn.disconnect().await.expect("a goodbye");
    }
}

#[tokio::test]
async fn killed_frozen_and_switched_servers_come_back_and_catch_up() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 2).await;
        write(&cluster, "CREATE TABLE t (a INT PRIMARY KEY)").await;

        cluster.kill("db3").await.expect("a kill");
        assert_eq!(cluster.server("db3").expect("db3").condition(), Condition::Dead);
        write(&cluster, "INSERT INTO t VALUES (1)").await;
        cluster.start("db3").await.expect("a start");
        cluster.wait_acknowledging(2).await.expect("it follows again");

        let frozen = cluster.server("db2").expect("db2");
        cluster.freeze("db2").expect("a freeze");
        wait::until("db2 to be frozen", || async {
            (frozen.condition() == Condition::Frozen).then_some(())
        })
        .await;
        let login = Conn::new(frozen.opts(APP));
        let late = tokio::time::timeout(Duration::from_millis(300), login).await;
        assert!(late.is_err(), "a frozen server lets nobody in");
        cluster.thaw("db2").expect("a thaw");

        cluster.switchover("db2").await.expect("a switchover");
        write(&cluster, "INSERT INTO t VALUES (2)").await;
        cluster.wait_acknowledging(2).await.expect("all follow the new primary");
        cluster.kill("db1").await.expect("a kill");
        cluster.start("db1").await.expect("a start, as a replica");
        cluster.wait_acknowledging(2).await.expect("the old primary follows after its crash");
        cluster.wait_caught_up().await.expect("all catch up");
        for server in cluster.servers() {
            assert_eq!(rows(server.port).await, [1, 2], "{flavour:?} {}", server.name);
        }
        let dir = cluster.dir().to_path_buf();
        cluster.down().await.expect("the end");
        wait::until("the folder to be gone", || async { (!dir.exists()).then_some(()) }).await;
    }
}

#[tokio::test]
async fn a_large_value_crosses_replication() {
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        write(cluster, "CREATE TABLE large (a LONGBLOB)").await;
        let mut conn = clients::connect(cluster.primary().expect("a primary").port, ROOT).await;
        let value = vec![0x5a_u8; 17 << 20];
        conn.exec_drop("INSERT INTO large VALUES (?)", (value,)).await.expect("17 MiB");
        conn.disconnect().await.expect("a goodbye");
        cluster.wait_caught_up().await.expect("replicas apply");
        for server in cluster.servers() {
            let length = server.ask("SELECT LENGTH(a) FROM app.large").await.expect("the row");
            assert_eq!(length, (17 << 20).to_string(), "{flavour:?} {}", server.name);
        }
        write(cluster, "DROP TABLE large").await;
    }
}

#[test]
fn a_pid_that_is_someone_else_s_is_left_alone() {
    let own = std::process::id();
    assert!(!process::is_alive(own, "--datadir=/nobody/has/this"));
    let sent = process::signal(own, "--datadir=/nobody/has/this", rustix::process::Signal::KILL);
    assert!(!sent, "the signal would have ended this test");
}
