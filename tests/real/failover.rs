//! What SHOW CLUSTER says of real servers: what a failover would lose, and who would be promoted.

use std::process::Command;

use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::server::Server;

use crate::console::console;
use crate::proxy::{Proxy, program};
use crate::{servers, wait};

/// A row of SHOW CLUSTER, the group aside.
#[derive(Debug, Clone)]
struct Line {
    server: String,
    subject: String,
    state: String,
    found: String,
}

async fn lines(proxy: &Proxy) -> Vec<Line> {
    let answer = console(proxy, "SHOW CLUSTER").await;
    let cells: Vec<String> = answer.split('\t').map(str::to_owned).collect();
    assert_eq!(cells.len() % 5, 0, "{answer}");
    let rows = cells.chunks_exact(5).map(|row| match row {
        [_, server, subject, state, found] => Line {
            server: server.clone(),
            subject: subject.clone(),
            state: state.clone(),
            found: found.clone(),
        },
        _ => unreachable!("chunks of five"),
    });
    rows.collect()
}

/// What `pointsman check` prints about the same group, as JSON, and its exit code.
fn checked(proxy: &Proxy, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let mut command = Command::new(program());
    command.args(["check", "--format", "json", "--config"]).arg(proxy.config()).args(arguments);
    let ran = command.output().expect("it runs");
    (ran.status.code(), serde_json::from_slice(&ran.stdout).unwrap_or_default())
}

fn mode(lines: &[Line]) -> &str {
    assert_eq!(lines[0].subject, "mode");
    &lines[0].state
}

/// The line about a replica's place in the order of promotion.
fn candidate<'a>(lines: &'a [Line], server: &Server) -> &'a Line {
    let address = server.address();
    let is_it = |line: &&Line| line.subject == "candidate" && line.server == address;
    lines.iter().find(is_it).unwrap_or_else(|| panic!("{address}: {lines:?}"))
}

/// Does what the lines say, word by word, until nothing more is missed.
async fn mend(cluster: &Cluster, lines: &[Line]) {
    for line in lines.iter().filter(|line| line.state == "missed") {
        let server = cluster.servers().iter().find(|server| server.address() == line.server);
        let server = server.unwrap_or_else(|| panic!("no server of its own: {line:?}"));
        let statement = line.found.split_once(": ").map(|(_, mend)| mend);
        let statement = statement.unwrap_or_else(|| panic!("no mend: {line:?}"));
        assert!(statement.starts_with("SET GLOBAL"), "{line:?}");
        server.run(&[statement]).await.unwrap_or_else(|error| panic!("{line:?}: {error}"));
    }
}

#[tokio::test]
async fn a_group_becomes_safe_by_doing_what_show_cluster_says() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 2).await;
        cluster.wait_acknowledging(2).await.expect("two replicas acknowledge");
        let proxy = Proxy::start(&cluster, "").await;
        let before = lines(&proxy).await;
        assert_eq!(mode(&before), "degraded", "{flavour:?}: the timeout is finite: {before:?}");
        let finite = |line: &Line| line.state == "missed" && line.found.contains("timeout");
        assert!(before.iter().any(finite), "{before:?}");
        let (code, found) = checked(&proxy, &[]);
        assert_eq!((code, &found[0]["state"]), (Some(1), &"degraded".into()), "{found}");
        mend(&cluster, &before).await;
        let after = lines(&proxy).await;
        assert_eq!(mode(&after), "safe", "{flavour:?}: {after:?}");
        assert!(after.iter().all(|line| line.state != "missed"), "{after:?}");
        let (code, found) = checked(&proxy, &["--group", "main"]);
        assert_eq!((code, &found[0]["state"]), (Some(0), &"safe".into()), "{found}");
        // Where no proxy runs there is no keeper.
        let asked = after.iter().filter(|line| line.subject != "keeper").count();
        let is_preflight = |row: &&serde_json::Value| {
            row["subject"].as_str().is_some_and(|subject| subject.starts_with("preflight"))
        };
        let rows = found.as_array().expect("rows");
        let preflight: Vec<_> = rows.iter().filter(is_preflight).collect();
        assert_eq!(rows.len() - preflight.len(), asked, "{found}");
        assert!(preflight.iter().all(|row| row["state"] == "pass"), "{preflight:?}");
        let checks_logs = |row: &serde_json::Value| row["subject"] == "preflight needed-logs";
        assert!(preflight.iter().any(|row| checks_logs(row)), "{preflight:?}");
        assert_eq!(checked(&proxy, &["--group", "other"]).0, Some(64));
        for replica in cluster.replicas().expect("two replicas") {
            assert!(candidate(&after, replica).found.contains("applied all"), "{after:?}");
        }
        // One of them does not apply any more, and acknowledges all the same.
        let behind = cluster.replicas().expect("two replicas")[0];
        let stop = match flavour {
            Flavour::Mariadb => "STOP SLAVE SQL_THREAD",
            Flavour::Mysql => "STOP REPLICA SQL_THREAD",
        };
        behind.run(&[stop]).await.expect("it stops applying");
        let primary = cluster.primary().expect("a primary");
        primary.run(&["CREATE TABLE app.more (n INT)"]).await.expect("a write");
        wait::until("the replica has more to apply", || async {
            let now = lines(&proxy).await;
            let line = candidate(&now, behind).clone();
            (mode(&now) == "degraded" && line.found == "has more to apply").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_replica_that_was_written_to_has_no_place_in_the_order() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 2).await;
        let proxy = Proxy::start(&cluster, "").await;
        let replicas = cluster.replicas().expect("two replicas");
        let written = replicas[0];
        let (open, close) = match flavour {
            // Root may write whatever read_only says.
            Flavour::Mariadb => ("DO 0", "DO 0"),
            Flavour::Mysql => ("SET GLOBAL super_read_only = 0", "SET GLOBAL super_read_only = 1"),
        };
        written.run(&[open, "CREATE DATABASE stray", close]).await.expect("a stray write");
        let now = lines(&proxy).await;
        let line = candidate(&now, written);
        assert_eq!(line.state, "never", "{flavour:?}: {now:?}");
        assert!(line.found.contains("transactions of its own"), "{line:?}");
        assert_eq!(candidate(&now, replicas[1]).state, "1", "{now:?}");
        // A server that is gone has none either, and is named.
        cluster.kill(&replicas[1].name).await.expect("it is killed");
        let now = lines(&proxy).await;
        let line = candidate(&now, replicas[1]);
        assert!(line.state == "never" && line.found.contains("does not answer"), "{now:?}");
    }
}
