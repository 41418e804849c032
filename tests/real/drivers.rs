//! Real clients with no list of users: each logs in, runs text and prepared statements, a
//! transaction, LOAD DATA LOCAL and a value of 17 MiB, and gets its reads from replicas.
//!
//! The clients themselves are in `tests/clients` and assert what they get; here is looked up
//! where it ran. MySQL asks for `caching_sha2_password` without TLS, so that a first login needs
//! the proxy's RSA key: PyMySQL, mysql2, sqlx, `mysql_async` and MariaDB's command line client ask
//! for it by themselves, MySQL's by `--get-server-public-key`. mysql-connector-python refuses to;
//! it gets in by the fast path once another client of the account has, as on a direct connection.

use std::path::{Path, PathBuf};
use std::process::Command;

use mysql_async::OptsBuilder;
use mysql_async::TxOpts;
use mysql_async::prelude::Queryable as _;
use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::APP;
use pointsman::provider::server::opts;

use crate::proxy::Proxy;
use crate::{clients, logs, servers};

/// Reads wait for a replica as long as it takes: where they ran must not hang on the weather.
const PATIENT: &str = "replica_wait = \"20s\"\nmax_lag = \"5m\"";

/// The folder with the drivers, as `scripts/test` has filled it.
fn drivers() -> Option<PathBuf> {
    let folder = std::env::var_os("POINTSMAN_DRIVERS").map(PathBuf::from);
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(folder.is_some() || !ci, "continuous integration tests with all drivers");
    if folder.is_none() {
        eprintln!("SKIPPED: scripts/test installs the drivers and sets POINTSMAN_DRIVERS");
    }
    folder
}

/// One of the sources in `tests/clients`.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// A thousand rows for LOAD DATA LOCAL: `1000,row 1000` to `1999,row 1999`.
fn rows_to_load(proxy: &Proxy) -> String {
    let path = proxy.dir.join("rows.csv");
    let rows: String = (1000..2000).map(|id| format!("{id},row {id}\n")).collect();
    std::fs::write(&path, rows).expect("the file to load");
    path.display().to_string()
}

/// Runs a client; what it prints is the test's own output when it fails.
fn run(command: &mut Command) {
    let output = command.output().expect("the client starts");
    let (said, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.ends_with("done\n"), "{command:?}:\n{said}{error}");
}

/// Every read with this column name ran on a replica; `times` of them.
fn assert_on_replicas(proxy: &Proxy, cluster: &Cluster, marker: &str, times: usize) {
    let primary = &cluster.primary().expect("a primary").name;
    let ran = logs::where_ran(cluster, marker);
    assert_eq!(ran.len(), times, "{marker}: {ran:?}");
    let why = || {
        let (_, metrics) = proxy.get("/metrics").unwrap_or_default();
        let routes = metrics.lines().filter(|line| line.starts_with("pointsman_route"));
        routes.collect::<Vec<_>>().join("\n")
    };
    assert!(!ran.contains(primary), "{marker} on the primary: {ran:?}\n{}", why());
}

#[tokio::test]
async fn pymysql() {
    let Some(drivers) = drivers() else { return };
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let proxy = Proxy::start(cluster, PATIENT).await;
        run(Command::new(drivers.join("python/bin/python"))
            .arg(source("pymysql_client.py"))
            .args([proxy.port.to_string(), rows_to_load(&proxy)]));
        assert_on_replicas(&proxy, cluster, "read_pymysql", 20);
    }
}

#[tokio::test]
async fn mysql_connector_python() {
    let Some(drivers) = drivers() else { return };
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let proxy = Proxy::start(cluster, PATIENT).await;
        // From here on the account's password is in the proxy's cache.
        let mut known = clients::connect(proxy.port, APP).await;
        known.ping().await.expect("a ping");
        for kind in ["pure", "c"] {
            run(Command::new(drivers.join("python/bin/python"))
                .arg(source("connector_client.py"))
                .args([&proxy.port.to_string(), &rows_to_load(&proxy), kind]));
            assert_on_replicas(&proxy, cluster, &format!("read_plain_{kind}"), 20);
            assert_on_replicas(&proxy, cluster, &format!("read_prepared_{kind}"), 5);
        }
        known.disconnect().await.expect("a goodbye");
    }
}

#[tokio::test]
async fn node_mysql2() {
    let Some(drivers) = drivers() else { return };
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let proxy = Proxy::start(cluster, PATIENT).await;
        run(Command::new("node")
            .arg(source("mysql2_client.mjs"))
            .args([proxy.port.to_string(), rows_to_load(&proxy)])
            .env("NODE_PATH", drivers.join("node/node_modules")));
        assert_on_replicas(&proxy, cluster, "read_mysql2", 20);
        assert_on_replicas(&proxy, cluster, "read_prepared_mysql2", 5);
    }
}

#[tokio::test]
async fn sqlx() {
    let Some(drivers) = drivers() else { return };
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(source("sqlx/Cargo.toml"))
        .arg("--target-dir")
        .arg(drivers.join("sqlx"))
        .status();
    assert!(built.expect("cargo starts").success(), "the sqlx client was not built");
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let proxy = Proxy::start(cluster, PATIENT).await;
        run(Command::new(drivers.join("sqlx/debug/sqlx-client")).arg(proxy.port.to_string()));
        assert_on_replicas(&proxy, cluster, "read_sqlx", 20);
    }
}

#[tokio::test]
async fn mysql_async() {
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let proxy = Proxy::start(cluster, PATIENT).await;
        let file = rows_to_load(&proxy);
        let loading = OptsBuilder::from_opts(opts(proxy.port, APP))
            .local_infile_handler(Some(mysql_async::WhiteListFsHandler::new([file.as_str()])));
        let mut conn = mysql_async::Conn::new(loading).await.expect("a login");
        conn.query_drop("CREATE TABLE c_async (id INT PRIMARY KEY, t VARCHAR(80), b LONGBLOB)")
            .await
            .expect("a table");
        for id in 1..=5 {
            let row = (id, format!("grün {id}"));
            conn.exec_drop("INSERT INTO c_async (id, t) VALUES (?, ?)", row).await.expect("a row");
        }
        let rows: Vec<(i32, String)> = conn
            .exec("SELECT id, t AS read_prepared_async FROM c_async WHERE id < ?", (3,))
            .await
            .expect("rows");
        assert_eq!(rows, [(1, "grün 1".to_owned()), (2, "grün 2".to_owned())]);

        let mut transaction = conn.start_transaction(TxOpts::default()).await.expect("BEGIN");
        transaction.query_drop("DELETE FROM c_async").await.expect("a write");
        let count: Option<i64> =
            transaction.query_first("SELECT COUNT(*) FROM c_async").await.expect("a read");
        assert_eq!(count, Some(0));
        transaction.rollback().await.expect("ROLLBACK");

        conn.query_drop(format!(
            "LOAD DATA LOCAL INFILE '{file}' INTO TABLE c_async FIELDS TERMINATED BY ',' (id, t)"
        ))
        .await
        .expect("LOAD DATA LOCAL");
        assert_eq!(conn.affected_rows(), 1000);

        let large = vec![0xa5_u8; 17 << 20];
        conn.exec_drop("INSERT INTO c_async (id, b) VALUES (5000, ?)", (&large,))
            .await
            .expect("17 MiB");
        let found: Option<Vec<u8>> =
            conn.query_first("SELECT b FROM c_async WHERE id = 5000").await.expect("17 MiB back");
        assert!(found.as_ref() == Some(&large), "{:?} bytes", found.map(|value| value.len()));
        for number in 0..20 {
            let count: Option<i64> = conn
                .query_first(format!("SELECT COUNT(*) + {number} AS read_async FROM c_async"))
                .await
                .expect("a read");
            assert_eq!(count, Some(1006 + number));
        }
        conn.query_drop("DROP TABLE c_async").await.expect("no table");
        conn.disconnect().await.expect("a goodbye");
        assert_on_replicas(&proxy, cluster, "read_async", 20);
        assert_on_replicas(&proxy, cluster, "read_prepared_async", 1);
    }
}

/// The command line client of each family against both families.
#[tokio::test]
async fn command_line_clients() {
    let families = servers::flavours();
    for flavour in &families {
        let cluster = servers::shared(*flavour);
        let proxy = Proxy::start(cluster, PATIENT).await;
        let file = rows_to_load(&proxy);
        for client in &families {
            let name = match client {
                Flavour::Mariadb => "cli_mariadb",
                Flavour::Mysql => "cli_mysql",
            };
            let programs = servers::shared(*client).programs();
            if *client == Flavour::Mysql && *flavour == Flavour::Mariadb {
                // It has no mysql_native_password any more, and MariaDB nothing else that both
                // know: what it says of that is the same on the direct way.
                let primary = cluster.primary().expect("a primary").port;
                let [direct, proxied] = [primary, proxy.port]
                    .map(|port| clients::command_line(programs, port, APP, &[], "SELECT 1").error);
                assert!(direct.contains("mysql_native_password"), "{direct}");
                assert_eq!(proxied, direct);
                continue;
            }
            let tell = |sql: &str| {
                let arguments = ["--local-infile=1", "--max-allowed-packet=64M", "-N", "app"];
                let said = clients::command_line(programs, proxy.port, APP, &arguments, sql);
                assert!(said.ok, "{name} on {flavour:?}: {}", said.error);
                said.out
            };
            let out = tell(&command_line_script(name, &file));
            let expected = "prepared 7\n1\n2\n1002\trow 1999\n17825792\tx\ty\n";
            assert_eq!(out, expected, "{name} on {flavour:?}");
            // Another session: a named statement pins one to the primary. It knows nothing of
            // what the first one wrote, so replicas must have it.
            cluster.wait_caught_up().await.expect("replicas apply");
            let read = format!("SELECT COUNT(*) AS read_{name} FROM c_{name};\n").repeat(3);
            assert_eq!(tell(&read), "1003\n1003\n1003\n", "{name} on {flavour:?}");
            assert_on_replicas(&proxy, cluster, &format!("read_{name}"), 3);
            tell(&format!("DROP TABLE c_{name};\n"));
        }
    }
}

fn command_line_script(name: &str, file: &str) -> String {
    let large = "x".repeat((17 << 20) - 1);
    format!(
        "CREATE TABLE c_{name} (id INT PRIMARY KEY, t VARCHAR(80), b LONGTEXT);\n\
         PREPARE p FROM 'INSERT INTO c_{name} (id, t) VALUES (?, ?)';\n\
         SET @id = 7, @t = 'prepared 7';\nEXECUTE p USING @id, @t;\nDEALLOCATE PREPARE p;\n\
         SELECT t FROM c_{name};\n\
         START TRANSACTION;\nDELETE FROM c_{name};\nROLLBACK;\nSELECT COUNT(*) FROM c_{name};\n\
         START TRANSACTION;\nINSERT INTO c_{name} (id) VALUES (8);\nCOMMIT;\n\
         SELECT COUNT(*) FROM c_{name};\n\
         LOAD DATA LOCAL INFILE '{file}' INTO TABLE c_{name} FIELDS TERMINATED BY ',' (id, t);\n\
         SELECT COUNT(*), MAX(t) FROM c_{name};\n\
         INSERT INTO c_{name} (id, b) VALUES (5000, '{large}y');\n\
         SELECT LENGTH(b), LEFT(b, 1), RIGHT(b, 1) FROM c_{name} WHERE id = 5000;\n"
    )
}
