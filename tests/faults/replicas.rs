//! Replicas that die, stop, lag behind, or have something of their own.

use mysql_async::prelude::Queryable as _;
use pointsman::provider::Flavour;
use pointsman::provider::replication::ROOT;
use pointsman::provider::server::Server;

use crate::kept::{epoch, source, standing, wait_safe};
use crate::scene::{Fault, Scene};
use crate::wait;

/// The statement of a family.
fn of(flavour: Flavour, mariadb: &'static str, mysql: &'static str) -> &'static str {
    match flavour {
        Flavour::Mariadb => mariadb,
        Flavour::Mysql => mysql,
    }
}

/// A number that is in `once` on no server yet.
async fn unused(scene: &Scene) -> u64 {
    let highest = scene.head().await.ask("SELECT COALESCE(MAX(id), 0) FROM app.once").await;
    highest.expect("a number").parse::<u64>().expect("a number") + 1
}

/// Root writes to a replica, whatever that says of being read-only.
async fn write_on(server: &Server, flavour: Flavour, statements: &[&str]) {
    let mut all: Vec<&str> = match flavour {
        Flavour::Mariadb => Vec::new(),
        Flavour::Mysql => vec!["SET GLOBAL super_read_only = 0"],
    };
    all.extend(statements);
    if flavour == Flavour::Mysql {
        all.push("SET GLOBAL super_read_only = 1");
    }
    server.run(&all).await.expect("root may write");
}

/// What a replica says of its replication.
async fn told(server: &Server, flavour: Flavour, what: &str) -> Option<String> {
    let mut conn = server.connect(ROOT).await.ok()?;
    let status = of(flavour, "SHOW SLAVE STATUS", "SHOW REPLICA STATUS");
    let row: mysql_async::Row = conn.query_first(status).await.ok()??;
    row.get_opt::<String, _>(what)?.ok()
}

/// Waits until a replica says this of itself.
async fn wait_told(server: &Server, flavour: Flavour, what: &str, word: &str) {
    wait::until(what, || async {
        (told(server, flavour, what).await.as_deref() == Some(word)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn fault_8_a_replica_is_killed() {
    Fault::harmless(8)
        .happens(async |scene| {
            let dead = scene.replicas().await[0].name.clone();
            scene.cluster.kill(&dead).await.expect("it is killed");
            scene.ledger.more(200).await;
            scene.cluster.start(&dead).await.expect("it comes back");
            scene.ledger.more(100).await;
        })
        .await;
}

#[tokio::test]
async fn fault_44_replicas_lag_behind() {
    Fault::harmless(44)
        .happens(async |scene| {
            let flavour = scene.cluster.flavour();
            for seconds in [30, 0] {
                for replica in scene.replicas().await {
                    let delay = match flavour {
                        Flavour::Mariadb => format!("CHANGE MASTER TO MASTER_DELAY = {seconds}"),
                        Flavour::Mysql => {
                            format!("CHANGE REPLICATION SOURCE TO SOURCE_DELAY = {seconds}")
                        }
                    };
                    let stop = of(flavour, "STOP SLAVE SQL_THREAD", "STOP REPLICA SQL_THREAD");
                    let start = of(flavour, "START SLAVE SQL_THREAD", "START REPLICA SQL_THREAD");
                    // MariaDB changes that only while nothing is received either.
                    let (stop, start) = match flavour {
                        Flavour::Mariadb => ("STOP SLAVE", "START SLAVE"),
                        Flavour::Mysql => (stop, start),
                    };
                    replica.run(&[stop, &delay, start]).await.expect("a delay");
                }
                scene.ledger.more(200).await;
            }
        })
        .await;
}

/// Its applier has stopped at a row that it cannot apply: nothing is read from it, and nothing is
/// skipped.
#[tokio::test]
async fn fault_45_a_replica_cannot_apply() {
    Fault::harmless(45)
        .happens(async |scene| {
            let flavour = scene.cluster.flavour();
            let id = unused(scene).await;
            let row = format!("INSERT INTO app.once VALUES ({id})");
            let broken = scene.replicas().await[0].name.clone();
            let broken = scene.cluster.server(&broken).expect("it is there");
            write_on(broken, flavour, &["SET sql_log_bin = 0", &row]).await;
            scene.head().await.run(&[&row]).await.expect("the row");
            let applies = of(flavour, "Slave_SQL_Running", "Replica_SQL_Running");
            wait_told(broken, flavour, applies, "No").await;
            scene.ledger.more(200).await;
            wait::until("the keeper to say so", || async {
                standing(&scene.proxy)
                    .await
                    .1
                    .contains("cannot apply what it receives")
                    .then_some(())
            })
            .await;
            assert_eq!(told(broken, flavour, applies).await.as_deref(), Some("No"));
            let row = format!("DELETE FROM app.once WHERE id = {id}");
            let start = of(flavour, "START SLAVE SQL_THREAD", "START REPLICA SQL_THREAD");
            write_on(broken, flavour, &["SET sql_log_bin = 0", &row, start]).await;
        })
        .await;
}

/// What was acknowledged last is in relay logs only: it is applied before another server is opened.
#[tokio::test]
async fn fault_46_replicas_have_not_applied_what_they_have_received() {
    Fault::deadly(46)
        .happens(async |scene| {
            let stop =
                of(scene.cluster.flavour(), "STOP SLAVE SQL_THREAD", "STOP REPLICA SQL_THREAD");
            for replica in scene.replicas().await {
                replica.run(&[stop]).await.expect(stop);
            }
            scene.lose_head_for_a_while().await;
        })
        .await;
}

/// Commits wait until somebody receives again: that is no reason to replace the primary.
#[tokio::test]
async fn fault_47_no_replica_receives() {
    Fault::harmless(47)
        .happens(async |scene| {
            let stop =
                of(scene.cluster.flavour(), "STOP SLAVE IO_THREAD", "STOP REPLICA IO_THREAD");
            for replica in scene.replicas().await {
                replica.run(&[stop]).await.expect(stop);
            }
            scene.ledger.more(100).await;
        })
        .await;
}

/// It has all that it needs, in a way that nobody meant: it is left to who has done that.
#[tokio::test]
async fn fault_48_a_replica_follows_another_replica() {
    Fault::harmless(48)
        .happens(async |scene| {
            let [astray, other] = scene.replicas().await[..] else { panic!("two replicas") };
            let head = scene.head().await;
            for (to, what) in [(other, "follows"), (head, "takes the writes")] {
                wait::until("a replica that stays where it was turned", || async {
                    is_left_at(scene, astray, to, what).await.then_some(())
                })
                .await;
            }
        })
        .await;
}

/// Turns a replica to another server, and waits until the keeper has looked at that; whether it has
/// left it there. It does not where it looks between the statements: one that rests is turned to
/// the primary.
async fn is_left_at(scene: &Scene, astray: &Server, to: &Server, what: &str) -> bool {
    let (flavour, port) = (scene.cluster.flavour(), to.port);
    let turn = match flavour {
        Flavour::Mariadb => format!("CHANGE MASTER TO MASTER_PORT = {port}"),
        Flavour::Mysql => format!("CHANGE REPLICATION SOURCE TO SOURCE_PORT = {port}"),
    };
    let stop = of(flavour, "STOP SLAVE", "STOP REPLICA");
    let start = of(flavour, "START SLAVE", "START REPLICA");
    // The keeper may have started it before it is turned, and that is refused then.
    if astray.run(&[stop, &turn, start]).await.is_err() {
        return false;
    }
    scene.ledger.more(200).await;
    let head = scene.head().await.address();
    wait::until("the keeper to say so, or to turn it", || async {
        let says = standing(&scene.proxy).await.1;
        if says.contains(what) && says.contains(&head) {
            return Some(true);
        }
        let at = source(flavour, astray).await.map(|(at, _)| at);
        (at.is_some() && at != Some(port)).then_some(false)
    })
    .await
}

/// Somebody has written to a replica: it is not the one that is promoted.
#[tokio::test]
async fn fault_49_a_replica_has_a_transaction_of_its_own() {
    Fault { once: true, ..Fault::deadly(49) }
        .happens(async |scene| {
            let stray = scene.replicas().await[0].name.clone();
            let stray = scene.cluster.server(&stray).expect("it is there");
            goes_astray(scene, stray).await;
            let (dead, before) = (scene.head().await.name.clone(), epoch(&scene.proxy));
            // What it has in flight would make a stranger of it, and nobody would be left to
            // acknowledge.
            scene.ledger.hold().await;
            scene.cluster.kill(&dead).await.expect("it is killed");
            wait::until("the other replica to be promoted", || async {
                (epoch(&scene.proxy) > before).then_some(())
            })
            .await;
            assert_ne!(scene.head().await.name, stray.name);
            scene.cluster.start(&dead).await.expect("it comes back");
            scene.ledger.resume();
        })
        .await;
}

/// What has come back and then got something of its own stays out, and takes no writes.
#[tokio::test]
async fn fault_50_a_former_primary_has_a_transaction_of_its_own() {
    Fault { once: true, ..Fault::deadly(50) }
        .happens(async |scene| {
            let dead = scene.lose_head_for_a_while().await;
            if !scene.settle().await.is_empty() {
                return;
            }
            let begun = epoch(&scene.proxy);
            goes_astray(scene, scene.cluster.server(&dead).expect("it is there")).await;
            scene.ledger.more(100).await;
            assert_eq!(epoch(&scene.proxy), begun);
        })
        .await;
}

/// A replica gets a row of its own, and the keeper says that it stays out.
async fn goes_astray(scene: &Scene, stray: &Server) {
    let row = format!("INSERT INTO app.once VALUES ({})", unused(scene).await + 1_000_000);
    write_on(stray, scene.cluster.flavour(), &[&row]).await;
    wait::until("the keeper to say so", || async {
        let says = standing(&scene.proxy).await.1;
        (says.contains("stays out") && says.contains(&stray.address())).then_some(())
    })
    .await;
}

/// What it lacks is nowhere any more.
#[tokio::test]
async fn fault_51_a_replica_needs_what_was_purged() {
    Fault { once: true, ..Fault::harmless(51) }
        .happens(async |scene| {
            let late = scene.replicas().await[0].name.clone();
            scene.cluster.kill(&late).await.expect("it is killed");
            scene.ledger.more(100).await;
            let head = scene.head().await;
            let flush = "FLUSH BINARY LOGS";
            head.run(&[flush]).await.expect(flush);
            scene.ledger.more(100).await;
            let status =
                of(scene.cluster.flavour(), "SHOW MASTER STATUS", "SHOW BINARY LOG STATUS");
            let mut conn = head.connect(ROOT).await.expect("root may log in");
            let row: Option<mysql_async::Row> = conn.query_first(status).await.expect(status);
            let newest = row.and_then(|row| row.get::<String, _>(0)).expect("the newest log");
            let purge = format!("PURGE BINARY LOGS TO '{newest}'");
            head.run(&[&purge]).await.expect("they are purged");
            scene.cluster.start(&late).await.expect("it comes back");
            wait::until("the keeper to say so", || async {
                standing(&scene.proxy).await.1.contains("stays out").then_some(())
            })
            .await;
            scene.ledger.more(100).await;
        })
        .await;
}

/// Commits that wait for nobody could be lost: they are made to wait again, and until then nobody
/// calls the group safe.
#[tokio::test]
async fn fault_52_commits_wait_for_nobody() {
    Fault::harmless(52)
        .happens(async |scene| {
            let off = of(
                scene.cluster.flavour(),
                "SET GLOBAL rpl_semi_sync_master_enabled = 0",
                "SET GLOBAL rpl_semi_sync_source_enabled = 0",
            );
            let on = of(
                scene.cluster.flavour(),
                "SELECT @@global.rpl_semi_sync_master_enabled",
                "SELECT @@global.rpl_semi_sync_source_enabled",
            );
            let head = scene.head().await;
            head.run(&[off]).await.expect(off);
            wait::until("them to wait again", || async {
                head.ask(on).await.is_ok_and(|on| on == "1").then_some(())
            })
            .await;
            wait_safe(&scene.cluster, &scene.proxy).await;
        })
        .await;
}
