//! Replication and administration through the proxy: dumps, loads, binary logs, and a replica
//! whose primary is the proxy's address.

use std::process::{Command, Stdio};

use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{REPL, ROOT};
use pointsman::provider::server::Server;

use crate::proxy::Proxy;
use crate::{servers, wait};

/// A program that comes with the family's client, by its name in either family.
fn tool(cluster: &Cluster, mariadb: &str, mysql: &str) -> Command {
    let client = &cluster.programs().client;
    let (program, before) = client.split_last().expect("a client");
    let name = if cluster.flavour() == Flavour::Mariadb { mariadb } else { mysql };
    let path = std::path::Path::new(program).with_file_name(name);
    let mut words: Vec<_> = before.iter().map(Into::into).collect();
    words.push(path.into_os_string());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg("--no-defaults");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Its output, logged in as root at `port`, without TLS.
fn output(cluster: &Cluster, mut command: Command, port: u16, arguments: &[&str]) -> String {
    let tls: &[&str] = match cluster.flavour() {
        Flavour::Mariadb => &["--skip-ssl"],
        Flavour::Mysql => &["--ssl-mode=DISABLED", "--get-server-public-key"],
    };
    let ran = command
        .args(["--protocol=tcp", "--host=127.0.0.1"])
        .args([format!("--port={port}"), format!("--user={}", ROOT.0)])
        .args(tls)
        .args(arguments)
        .env("MYSQL_PWD", ROOT.1)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// Without the lines that name the moment or the address.
fn lasting(text: &str) -> String {
    let passing = ["-- Dump completed on", "-- Host:"];
    text.lines()
        .filter(|line| !passing.iter().any(|start| line.starts_with(start)))
        .collect::<Vec<_>>()
        .join("\n")
}

async fn some_data(primary: &Server) {
    let sql = [
        "CREATE TABLE app.dumped (id INT PRIMARY KEY, note VARCHAR(40), raw BLOB)",
        "INSERT INTO app.dumped VALUES (1, 'one', x'00FF27'), (2, NULL, NULL), (3, '\u{e9}''', '')",
        "INSERT INTO app.dumped SELECT id + 3, REPEAT('x', 40), REPEAT('y', 30000) FROM app.dumped",
        "CREATE VIEW app.seen AS SELECT id FROM app.dumped",
        "CREATE TRIGGER app.noted BEFORE INSERT ON app.dumped FOR EACH ROW SET NEW.note = 'new'",
    ];
    primary.run(&sql).await.expect("some data");
}

#[tokio::test]
async fn dumps_and_loads_are_those_of_a_direct_connection() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 1).await;
        let primary = cluster.primary().expect("a primary");
        some_data(primary).await;
        cluster.wait_caught_up().await.expect("the replica applies");
        let proxy = Proxy::start(&cluster, "").await;
        let position = match flavour {
            Flavour::Mariadb => "--master-data=2",
            Flavour::Mysql => "--source-data=2",
        };
        for arguments in [
            &["--single-transaction", "app"][..],
            &["--single-transaction", position, "--databases", "app"],
            &["--lock-tables", "--routines", "--triggers", "app"],
            &["--single-transaction", "--hex-blob", "--all-databases"],
        ] {
            let [direct, proxied] = [primary.port, proxy.port].map(|port| {
                let dump = tool(&cluster, "mariadb-dump", "mysqldump");
                lasting(&output(&cluster, dump, port, arguments))
            });
            assert!(direct.contains("dumped") && direct.len() > 1000, "{direct}");
            assert!(direct == proxied, "{flavour:?} {arguments:?}:\n{direct}\n---\n{proxied}");
        }
        // What a dump of the one table loads, the import of a file loads too.
        let file = proxy.dir.join("loaded.txt");
        std::fs::write(&file, "1\tone\n2\ttwo\n3\t\\N\n").expect("a file");
        primary.run(&["CREATE TABLE app.loaded (id INT, note TEXT)"]).await.expect("a table");
        let import = tool(&cluster, "mariadb-import", "mysqlimport");
        let path = file.display().to_string();
        output(&cluster, import, proxy.port, &["--local", "app", &path]);
        let count = primary.ask("SELECT COUNT(*) FROM app.loaded").await.expect("a count");
        assert_eq!(count, "3", "{flavour:?}");
    }
}

#[tokio::test]
async fn binary_logs_are_read_through_the_proxy() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 0).await;
        let primary = cluster.primary().expect("a primary");
        some_data(primary).await;
        let proxy = Proxy::start(&cluster, "").await;
        let [direct, proxied] = [primary.port, proxy.port].map(|port| {
            let reader = tool(&cluster, "mariadb-binlog", "mysqlbinlog");
            let arguments = ["--read-from-remote-server", "--verbose", "binlog.000001"];
            lasting(&output(&cluster, reader, port, &arguments))
        });
        assert!(direct.contains("dumped") && direct.len() > 5000, "{flavour:?}: {direct}");
        assert!(direct == proxied, "{flavour:?}:\n{direct}\n---\n{proxied}");
    }
}

/// Acknowledgements of semi-synchronous replication come back through the tunnel, too.
#[tokio::test]
async fn a_replica_replicates_from_the_proxy_s_address() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 1).await;
        let primary = cluster.primary().expect("a primary");
        let replica = cluster.replicas().expect("a replica")[0];
        let proxy = Proxy::start(&cluster, "").await;
        let (port, (user, password)) = (proxy.port, REPL);
        let (change, counter) = match flavour {
            Flavour::Mariadb => (
                [
                    "STOP SLAVE".to_owned(),
                    format!(
                        "CHANGE MASTER TO MASTER_PORT = {port}, MASTER_USER = '{user}', \
                         MASTER_PASSWORD = '{password}'"
                    ),
                    "START SLAVE".to_owned(),
                ],
                "Rpl_semi_sync_master_yes_tx",
            ),
            Flavour::Mysql => (
                [
                    "STOP REPLICA".to_owned(),
                    format!("CHANGE REPLICATION SOURCE TO SOURCE_PORT = {port}"),
                    "START REPLICA".to_owned(),
                ],
                "Rpl_semi_sync_source_yes_tx",
            ),
        };
        replica.run(&change).await.expect("another source");
        cluster.wait_acknowledging(1).await.expect("it is connected again");
        let count = async || -> u64 {
            servers::status(primary, flavour, counter).await.parse().expect("a number")
        };
        let before = count().await;
        primary.run(&["CREATE TABLE app.through (id INT PRIMARY KEY)"]).await.expect("a table");
        for id in 0..20 {
            let insert = format!("INSERT INTO app.through VALUES ({id})");
            primary.run(&[insert]).await.expect("a row");
        }
        wait::until("the rows to come through", || async {
            let rows = replica.ask("SELECT COUNT(*) FROM app.through").await.ok()?;
            (rows == "20").then_some(())
        })
        .await;
        let after = count().await;
        assert!(after >= before + 20, "{flavour:?}: acknowledged {before} before, {after} after");
    }
}
