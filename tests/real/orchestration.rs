//! Putting a group together: the README's quick start, word for word, against empty servers; and
//! what the verbs refuse.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mysql_async::prelude::Queryable as _;
use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::ports::free_ports;
use pointsman::provider::replication::APP;
use pointsman::provider::server::Server;

use crate::proxy::program;
use crate::{clients, servers, wait};

const README: &str = include_str!("../../README.md");
const SECTION: &str = "## From empty servers to a group";
const ACCOUNT: [&str; 3] = [
    "SET SESSION sql_log_bin = 0",
    "CREATE USER 'pointsman'@'%' IDENTIFIED BY 'change-me'",
    "GRANT ALL PRIVILEGES ON *.* TO 'pointsman'@'%' WITH GRANT OPTION",
];

/// An operator at the keyboard, with a folder of their own.
struct Operator {
    dir: PathBuf,
    /// What stands in the README, and what stands for it here.
    places: Vec<(String, String)>,
    /// Where applications connect.
    port: u16,
    proxy: Option<Child>,
}

/// What a command said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

impl Operator {
    fn new(cluster: &Cluster) -> Self {
        let dir = servers::scratch("operator");
        std::fs::create_dir_all(&dir).expect("a folder");
        let [port, admin] = free_ports().expect("free ports");
        let mut places = vec![
            ("127.0.0.1:6033".to_owned(), format!("127.0.0.1:{port}")),
            ("127.0.0.1:6032".to_owned(), format!("127.0.0.1:{admin}")),
            ("/var/lib/pointsman".to_owned(), dir.display().to_string()),
        ];
        for (index, server) in cluster.servers().iter().enumerate() {
            places.push((format!("127.0.0.1:330{}", index + 1), server.address()));
        }
        Self { dir, places, port, proxy: None }
    }

    fn here(&self, text: &str) -> String {
        self.places.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    fn config(&self) -> PathBuf {
        self.dir.join("pointsman.toml")
    }

    fn write_config(&self, text: &str) {
        std::fs::write(self.config(), self.here(text)).expect("a configuration");
    }

    /// Runs a command line as it stands in the README.
    fn run(&self, line: &str) -> Said {
        let line = self.here(line);
        let ran = self.command(&line).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: ran.status.code(), out: text(&ran.stdout), error: text(&ran.stderr) }
    }

    fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("pointsman"), "{line}");
        let mut command = Command::new(program());
        command.args(words).current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// The same, which must end well.
    fn must(&self, line: &str) -> String {
        let said = self.run(line);
        assert_eq!(said.code, Some(0), "{line}: {said:?}\n{}", self.log());
        said.out
    }

    fn serve(&mut self, line: &str) {
        let line = self.here(line.trim_end_matches(" &"));
        let log = std::fs::File::create(self.dir.join("log")).expect("a log");
        let mut command = self.command(&line);
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.proxy = Some(command.spawn().expect("it starts"));
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Name, status, mode and weight of each server.
    fn lookup(&self) -> Vec<(String, String, String, u64)> {
        let said = self.must("pointsman group lookup main --format json -c pointsman.toml");
        let rows: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        let row = |row: &serde_json::Value| {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            (text("name"), text("status"), text("mode"), row["weight"].as_u64().expect("a weight"))
        };
        rows.as_array().expect("rows").iter().map(row).collect()
    }

    /// Who has this status.
    fn who_is(&self, status: &str) -> Vec<String> {
        let all = self.lookup().into_iter();
        all.filter(|row| row.1 == status).map(|row| row.0).collect()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if let Some(proxy) = &mut self.proxy {
            let _ = proxy.kill();
            let _ = proxy.wait();
        }
        if std::thread::panicking() {
            eprintln!("the proxy's log:\n{}", self.log());
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The blocks of the README's section that are marked with this word, one after the other.
fn blocks(word: &str) -> Vec<String> {
    let section = README.split(SECTION).nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its end");
    let mark = format!("```{word}\n");
    let found = section.split(mark.as_str()).skip(1);
    found.map(|rest| rest.split("```").next().expect("its end").to_owned()).collect()
}

/// How many rows a server has; nothing while it has no such table.
async fn count(server: &Server) -> Option<String> {
    server.ask("SELECT COUNT(*) FROM app.ledger").await.ok()
}

async fn write(operator: &Operator, row: u32) {
    let mut conn = clients::connect(operator.port, APP).await;
    let insert = format!("INSERT INTO ledger VALUES ({row})");
    conn.query_drop(insert).await.expect("the group takes writes");
    conn.disconnect().await.expect("a goodbye");
}

async fn all_have(cluster: &Cluster, rows: &str) {
    for server in cluster.servers() {
        wait::until("every server to have all rows", || async {
            count(server).await.filter(|count| count == rows).map(drop)
        })
        .await;
    }
}

#[tokio::test]
async fn the_quick_start_makes_a_group_of_empty_servers() {
    for flavour in servers::flavours() {
        quick_start(flavour).await;
    }
}

async fn quick_start(flavour: Flavour) {
    let cluster = servers::strangers(flavour, 3).await;
    let mut operator = Operator::new(&cluster);
    let account: Vec<String> =
        blocks("sql")[0].split(";\n").map(str::to_owned).filter(|text| !text.is_empty()).collect();
    for server in cluster.servers() {
        server.run(&account).await.expect("the account");
    }
    let first = cluster.server("db1").expect("db1");
    let table =
        ["CREATE TABLE app.ledger (id INT PRIMARY KEY)", "INSERT INTO app.ledger VALUES (1)"];
    first.run(&table).await.expect("some data");
    operator.write_config(&blocks("toml")[0]);
    let scripts = blocks("sh");
    let [making, promoting, rejoining] = scripts.as_slice() else { panic!("{scripts:?}") };

    for line in making.lines() {
        if line.ends_with(" &") {
            operator.serve(line);
            continue;
        }
        if line.contains("topology") {
            println!("{flavour:?}: {line}\n{}", operator.must(line));
        } else {
            let dry = operator.must(&format!("{line} --dry-run"));
            let said = operator.must(line);
            println!("{flavour:?}: {line}\n{said}");
            assert!(dry.contains("will:") && said.starts_with(&dry), "{line}: {dry}");
            let again = operator.must(line);
            assert!(again.ends_with("nothing to do\n"), "{line}: {again}");
        }
    }
    all_have(&cluster, "1").await;
    for line in promoting.lines() {
        // The keeper has just begun to set things up.
        let said = wait::until(line, || async {
            let said = operator.run(line);
            (said.code == Some(0)).then_some(said.out)
        })
        .await;
        println!("{flavour:?}: {line}\n{said}");
    }
    assert_eq!(operator.who_is("PRIMARY"), ["db2"]);
    let again = operator.must("pointsman promote db2 -c pointsman.toml");
    assert!(again.ends_with("nothing to do\n"), "{again}");
    let weights: Vec<u64> = operator.lookup().into_iter().map(|row| row.3).collect();
    assert_eq!(weights, [100, 100, 20]);
    write(&operator, 2).await;

    cluster.kill("db2").await.expect("a kill");
    wait::until("another primary", || async {
        let heads = operator.who_is("PRIMARY");
        (heads.len() == 1 && heads[0] != "db2").then_some(())
    })
    .await;
    assert_eq!(operator.who_is("FAULTY"), ["db2"]);
    write(&operator, 3).await;
    cluster.start("db2").await.expect("it comes back");
    for line in rejoining.lines() {
        println!("{flavour:?}: {line}\n{}", operator.must(line));
    }
    let again = operator.must("pointsman rejoin db2 -c pointsman.toml");
    assert!(again.ends_with("nothing to do\n"), "{again}");
    all_have(&cluster, "3").await;
    assert_eq!(operator.who_is("SECONDARY").len(), 2, "{:?}", operator.lookup());
    rebuild(flavour, &cluster, &operator).await;
    cluster.down().await.expect("the end");
}

/// A replica that was written to is given its data anew, while a proxy runs that keeps the group.
async fn rebuild(flavour: Flavour, cluster: &Cluster, operator: &Operator) {
    let diverged = operator.who_is("SECONDARY").pop().expect("a replica");
    let server = cluster.server(&diverged).expect("it is ours");
    let open = match flavour {
        Flavour::Mariadb => "DO 0",
        Flavour::Mysql => "SET GLOBAL super_read_only = 0",
    };
    server.run(&[open, "CREATE DATABASE stray"]).await.expect("a write of its own");
    let rejoin = format!("pointsman rejoin {diverged} -c pointsman.toml");
    let refused = operator.run(&format!("{rejoin} --format json"));
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let said: serde_json::Value = serde_json::from_str(&refused.out).expect("JSON");
    assert_eq!(said["outcome"], "refused");
    assert!(said["why"].as_str().is_some_and(|why| why.contains("has diverged")), "{said}");
    let said = operator.must(&format!("{rejoin} --rebuild"));
    println!("{flavour:?}: {said}");
    assert!(said.contains("EXCLUDE main.") && said.contains("INCLUDE main."), "{said}");
    let saved = saved(&operator.dir);
    assert!(saved.contains("CREATE DATABASE stray") && !saved.contains("ledger"), "{saved}");
    let again = operator.must(&format!("{rejoin} --rebuild"));
    assert!(again.ends_with("nothing to do\n"), "{again}");
    write(operator, 4).await;
    all_have(cluster, "4").await;
    let health = wait::until("all servers to be well", || async {
        let said = operator.run("pointsman group health main -c pointsman.toml");
        (said.code == Some(0)).then_some(said.out)
    })
    .await;
    println!("{flavour:?}: {health}");
}

/// What was kept of a server whose data was given up.
fn saved(state_dir: &Path) -> String {
    let all = std::fs::read_dir(state_dir).expect("the state").flatten();
    let mut errant: Vec<_> = all
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("/errant-main-"))
        .collect();
    let path = errant.pop().expect("a file");
    assert!(errant.is_empty(), "{errant:?}");
    assert_eq!(mode_of(&path), 0o600);
    std::fs::read_to_string(path).expect("statements")
}

/// A group of db1 and db2 by the verbs, without a proxy, and db3, which has something of its own.
async fn two_and_a_stranger(flavour: Flavour) -> (Cluster, Operator) {
    let cluster = servers::strangers(flavour, 3).await;
    let operator = Operator::new(&cluster);
    for server in cluster.servers() {
        server.run(&ACCOUNT).await.expect("the account");
    }
    let ledger = ["CREATE TABLE app.ledger (id INT PRIMARY KEY)"];
    cluster.server("db1").expect("db1").run(&ledger).await.expect("some data");
    let stray = ["CREATE DATABASE stray", "CREATE TABLE stray.t (id INT PRIMARY KEY)"];
    cluster.server("db3").expect("db3").run(&stray).await.expect("data of its own");
    operator.write_config(&blocks("toml")[0]);
    let make = "pointsman group create main db1=127.0.0.1:3301 --listen 127.0.0.1:6033";
    operator.must(&format!("{make} -c pointsman.toml"));
    operator.must("pointsman replicate db2=127.0.0.1:3302 -c pointsman.toml");
    operator.must("pointsman group add main db2=127.0.0.1:3302 -c pointsman.toml");
    (cluster, operator)
}

fn mode_of(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn a_server_with_something_of_its_own_is_not_overwritten_unless_that_is_said() {
    for flavour in servers::flavours() {
        let (cluster, operator) = two_and_a_stranger(flavour).await;
        let stray = cluster.server("db3").expect("db3");
        let line = "pointsman replicate db3=127.0.0.1:3303 -c pointsman.toml";
        let refused = operator.run(line);
        assert_eq!(refused.code, Some(2), "{flavour:?}: {refused:?}");
        let own = match flavour {
            Flavour::Mariadb => stray.ask("SELECT @@global.gtid_binlog_pos").await,
            Flavour::Mysql => stray.ask("SELECT @@global.gtid_executed").await,
        };
        assert!(refused.error.contains(&own.expect("its transactions")), "{refused:?}");
        assert!(count(stray).await.is_none(), "nothing was done");
        println!("{flavour:?}: {}", refused.error);
        println!("{}", operator.must(&format!("{line} --overwrite")));
        assert!(saved(&operator.dir).contains("CREATE TABLE stray.t"));
        let left = stray.ask(
            "SELECT COUNT(*) FROM information_schema.schemata \
             WHERE schema_name = 'stray'",
        );
        assert_eq!(left.await.expect("schemas"), "0");
        let ledger = ["INSERT INTO app.ledger VALUES (7)"];
        cluster.server("db1").expect("db1").run(&ledger).await.expect("a write");
        all_have(&cluster, "1").await;
        let left: Vec<_> = std::fs::read_dir(&operator.dir)
            .expect("the state")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        assert!(!left.iter().any(|name| name.contains("seed-")), "{left:?}");
        assert_eq!(mode_of(&operator.dir.join("replica-password-main")), 0o600);
        let turn = "pointsman replicate db1 --from db2 --overwrite -c pointsman.toml";
        let refused = operator.run(turn);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.error.contains("2 servers replicate from db1"), "{refused:?}");
        cluster.down().await.expect("the end");
    }
}

#[tokio::test]
async fn a_server_that_was_away_rejoins_and_one_that_has_diverged_does_not() {
    for flavour in servers::flavours() {
        let (cluster, operator) = two_and_a_stranger(flavour).await;
        let replica = cluster.server("db2").expect("db2");
        let (stop, open) = match flavour {
            Flavour::Mariadb => (["STOP SLAVE", "RESET SLAVE ALL"], "SET GLOBAL read_only = 0"),
            Flavour::Mysql => (["STOP REPLICA", "RESET REPLICA ALL"], "SET GLOBAL read_only = 0"),
        };
        replica.run(&stop).await.expect("it stops");
        replica.run(&[open]).await.expect("it is open");
        let rejoin = "pointsman rejoin db2 -c pointsman.toml";
        let planned = operator.must(&format!("{rejoin} --dry-run"));
        assert!(planned.contains("replicate from"), "{planned}");
        println!("{flavour:?}: {}", operator.must(rejoin));
        assert!(operator.must(rejoin).ends_with("nothing to do\n"));
        let health = operator.must("pointsman group health main -c pointsman.toml");
        assert!(health.contains("SECONDARY"), "{health}");

        replica.run(&stop).await.expect("it stops");
        replica.run(&[open, "CREATE DATABASE stray"]).await.expect("a write of its own");
        let refused = operator.run(rejoin);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.error.contains("has diverged"), "{refused:?}");
        let health = operator.run("pointsman group health main -c pointsman.toml");
        assert_eq!(health.code, Some(1), "{health:?}");
        println!("{flavour:?}: {}", operator.must(&format!("{rejoin} --rebuild")));
        let drawn = operator.must("pointsman topology show -c pointsman.toml");
        assert!(drawn.contains("   +--- db2 ") && drawn.contains("(REPLICA)"), "{drawn}");

        let refused = operator.run("pointsman group remove main db1 -c pointsman.toml");
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.error.contains("is the primary"), "{refused:?}");
        operator.must("pointsman group remove main db2 -c pointsman.toml");
        let refused = operator.run("pointsman promote db2 -c pointsman.toml");
        assert_eq!(refused.code, Some(2), "no proxy runs: {refused:?}");
        cluster.down().await.expect("the end");
    }
}
