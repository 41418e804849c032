//! Servers bound how many statements may be prepared: what sessions share and replicas prepare
//! besides costs nobody a statement that a direct connection would have had.

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder, Statement};
use pointsman::provider::Flavour;
use pointsman::provider::replication::APP;
use pointsman::provider::server::{Server, opts};

use crate::proxy::Proxy;
use crate::{servers, wait};

/// The servers' bound.
const MOST: usize = 100;

const OTHER: (&str, &str) = ("other", "other");

/// A client that closes its statements when it is told to, not before.
async fn connect(port: u16, account: (&str, &str)) -> Conn {
    let opts = OptsBuilder::from_opts(opts(port, account)).stmt_cache_size(0);
    Conn::new(opts).await.expect("a connection")
}

/// How many statements a server has prepared for its clients.
async fn count(server: &Server, flavour: Flavour) -> usize {
    servers::status(server, flavour, "Prepared_stmt_count").await.parse().expect("a number")
}

async fn prepared(conn: &mut Conn, number: usize, wherever: &str) -> Statement {
    let sql = format!("SELECT {number} + ?{wherever}");
    conn.prep(sql.as_str()).await.unwrap_or_else(|why| panic!("{sql}: {why}"))
}

async fn execute(conn: &mut Conn, statement: &Statement, number: usize) {
    let sum: Option<usize> = conn.exec_first(statement, (1000,)).await.expect("an execution");
    assert_eq!(sum, Some(number + 1000));
}

#[tokio::test]
async fn statements_end_with_the_sessions_that_prepared_them() {
    for flavour in servers::flavours() {
        let option = format!("--max-prepared-stmt-count={MOST}");
        let cluster = servers::own_with(flavour, 1, &[&option]).await;
        let primary = cluster.primary().expect("a primary");
        let account = [
            "CREATE USER 'other'@'%' IDENTIFIED BY 'other'",
            "GRANT SELECT, UPDATE ON app.* TO 'other'@'%'",
        ];
        primary.run(&account).await.expect("an account");
        cluster.wait_caught_up().await.expect("the replica applies");
        let proxy = Proxy::start(&cluster, "").await;
        // All of them leave links behind, which serve nobody but the same user.
        for account in [APP, OTHER, APP] {
            let mut conns = Vec::new();
            for session in 0..5 {
                let mut conn = connect(proxy.port, account).await;
                for number in 0..8 {
                    for wherever in ["", " FOR UPDATE"] {
                        let number = session * 100 + number;
                        let statement = prepared(&mut conn, number, wherever).await;
                        execute(&mut conn, &statement, number).await;
                    }
                }
                conns.push(conn);
            }
            for server in cluster.servers() {
                assert!(count(server, flavour).await <= 80, "a copy of each at most");
            }
            for conn in conns {
                conn.disconnect().await.expect("a farewell");
            }
            for server in cluster.servers() {
                wait::until("no statement to be left", || async {
                    (count(server, flavour).await == 0).then_some(())
                })
                .await;
            }
        }
        let links = proxy.metric("pointsman_server_links_idle", &[]);
        assert!(links >= 4.0, "{flavour:?}: the links have not ended with the sessions: {links}");
    }
}

#[tokio::test]
async fn what_is_closed_while_its_link_is_in_the_pool_is_closed_there() {
    for flavour in servers::flavours() {
        let option = format!("--max-prepared-stmt-count={MOST}");
        let cluster = servers::own_with(flavour, 1, &[&option]).await;
        let primary = cluster.primary().expect("a primary");
        let proxy = Proxy::start(&cluster, "idle_release = \"100ms\"").await;
        let mut conn = connect(proxy.port, APP).await;
        let mut statements = Vec::new();
        for number in 0..40 {
            statements.push(prepared(&mut conn, number, " FOR UPDATE").await);
        }
        execute(&mut conn, &statements[7], 7).await;
        assert_eq!(count(primary, flavour).await, 40);
        let idle = || async {
            let links = proxy.metric("pointsman_server_links_idle", &[]);
            (links >= 1.0).then_some(())
        };
        wait::until("its link to be in the pool", idle).await;
        let kept = statements.split_off(38);
        for statement in statements {
            conn.close(statement).await.expect("a close");
        }
        wait::until("the server to hear of it", || async {
            (count(primary, flavour).await == 2).then_some(())
        })
        .await;
        execute(&mut conn, &kept[1], 39).await;
        assert_eq!(count(primary, flavour).await, 2, "{flavour:?}: its own link came back");
    }
}

#[tokio::test]
async fn a_server_without_room_for_statements_is_passed_over_or_makes_room() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 1).await;
        let (primary, replicas) = (cluster.primary().expect("one"), cluster.replicas());
        let replica = replicas.expect("replicas")[0];
        let proxy = Proxy::start(&cluster, "").await;
        replica.run(&["SET GLOBAL max_prepared_stmt_count = 5"]).await.expect("a setting");
        let mut conn = connect(proxy.port, APP).await;
        // What the driver has asked the primary must be on the replica first.
        conn.query_drop("SELECT 1").await.expect("a read");
        let mut statements = Vec::new();
        for number in 0..20 {
            statements.push(prepared(&mut conn, number, "").await);
        }
        let counts = [count(replica, flavour).await, count(primary, flavour).await];
        assert_eq!(counts, [5, 15], "{flavour:?}: the rest is on the primary");
        // Inside a transaction all of them must run on the primary, which has no room for them.
        primary.run(&["SET GLOBAL max_prepared_stmt_count = 16"]).await.expect("a setting");
        conn.query_drop("BEGIN").await.expect("a transaction");
        for _ in 0..2 {
            for (number, statement) in statements.iter().enumerate() {
                execute(&mut conn, statement, number).await;
            }
        }
        conn.query_drop("COMMIT").await.expect("its end");
        assert_eq!(count(primary, flavour).await, 16, "{flavour:?}");
        // A new one is refused in the server's own words.
        replica.run(&["SET GLOBAL max_prepared_stmt_count = 0"]).await.expect("a setting");
        let refused = conn.prep("SELECT 4711").await.expect_err("too many");
        assert_eq!(crate::clients::errno(&refused), Some(1461), "{refused}");
        conn.query_drop("DO 1").await.expect("the session goes on");
    }
}
