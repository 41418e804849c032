//! What binds a session to its link, and that it ends with the last of its cause and not before.

use mysql_async::prelude::Queryable as _;
use pointsman::provider::Flavour;
use pointsman::provider::replication::ROOT;

use crate::console::console;
use crate::proxy::Proxy;
use crate::{clients, servers, wait};

/// Statements that pin, statements that leave it so, and the one that ends it.
type Case = (&'static str, &'static [&'static str], &'static [&'static str], &'static str);

const BOTH: [Case; 3] = [
    (
        "user_lock",
        &["SELECT GET_LOCK('a', 1)", "SELECT GET_LOCK('b', 1)", "SELECT GET_LOCK('b', 1)"],
        &[
            "SELECT IF(0, RELEASE_ALL_LOCKS(), 0)",
            "SELECT RELEASE_ALL_LOCKS() FROM app.pinned WHERE 0",
            "SELECT RELEASE_LOCK('a')",
            "DO RELEASE_LOCK('b')",
        ],
        "SELECT RELEASE_LOCK('b')",
    ),
    (
        "handler",
        &["HANDLER app.pinned OPEN", "HANDLER app.pinned OPEN AS again"],
        &["HANDLER pinned READ FIRST", "HANDLER pinned CLOSE"],
        "HANDLER again CLOSE",
    ),
    (
        "temporary_table",
        &["CREATE TEMPORARY TABLE app.one (a INT)", "CREATE TEMPORARY TABLE app.two (a INT)"],
        &[
            "ALTER TABLE app.two RENAME app.three",
            "DROP TEMPORARY TABLE app.one",
            "DROP TEMPORARY TABLE IF EXISTS app.two",
        ],
        "",
    ),
];

const MARIADB: Case = (
    "table_lock",
    &["BACKUP LOCK app.pinned", "FLUSH TABLES WITH READ LOCK"],
    &["BACKUP UNLOCK"],
    "UNLOCK TABLES",
);

const MYSQL: Case = (
    "table_lock",
    &["LOCK INSTANCE FOR BACKUP", "LOCK TABLES app.pinned READ"],
    &["UNLOCK INSTANCE"],
    "UNLOCK TABLES",
);

#[tokio::test]
async fn a_pin_ends_with_its_last_cause_and_not_before() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 0).await;
        let primary = cluster.primary().expect("a primary");
        primary.run(&["CREATE TABLE app.pinned (a INT)"]).await.expect("a table");
        let proxy = Proxy::start(&cluster, "idle_release = \"50ms\"").await;
        let own = if flavour == Flavour::Mariadb { MARIADB } else { MYSQL };
        for (pin, takes, keeps, ends) in BOTH.into_iter().chain([own]) {
            let mut conn = clients::connect(proxy.port, ROOT).await;
            for sql in takes.iter().chain(keeps) {
                conn.query_drop(*sql)
                    .await
                    .unwrap_or_else(|why| panic!("{flavour:?} {sql}: {why}"));
                let sessions = console(&proxy, "SHOW SESSIONS").await;
                assert!(sessions.contains(pin), "{flavour:?} {sql}: {sessions}");
            }
            if ends.is_empty() {
                // Its name is another one now: it must still be there, and stay.
                conn.query_drop("SELECT * FROM app.three").await.expect("the table");
                conn.disconnect().await.expect("a farewell");
                continue;
            }
            conn.query_drop(ends).await.unwrap_or_else(|why| panic!("{flavour:?} {ends}: {why}"));
            let sessions = console(&proxy, "SHOW SESSIONS").await;
            assert!(!sessions.contains(pin), "{flavour:?} {ends}: {sessions}");
            // And so the session holds no link any more when it is idle.
            wait::until("its link to be given up", || async {
                let pools = console(&proxy, "SHOW POOLS").await;
                let values: Vec<&str> = pools.split('\t').collect();
                let in_use = values.chunks_exact(5).filter(|row| row.last() != Some(&"0"));
                (in_use.count() == 0).then_some(())
            })
            .await;
            conn.disconnect().await.expect("a farewell");
        }
    }
}
