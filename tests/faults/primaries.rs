//! Primaries that die, freeze and come back.

use std::cell::Cell;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use pointsman::provider::server::{Condition, Server};

use crate::kept::{epoch, standing, writable};
use crate::network::run;
use crate::scene::{Bounds, Fault, Head, Scene};
use crate::switchovers::switch_over;
use crate::wait;

#[tokio::test]
async fn fault_1_a_primary_is_killed() {
    Fault::deadly(1)
        .happens(async |scene| {
            scene.lose_head_for_a_while().await;
        })
        .await;
}

#[tokio::test]
async fn fault_2_a_primary_is_shut_down() {
    Fault::deadly(2)
        .happens(async |scene| {
            let dead = scene.head().await.name.clone();
            scene.cluster.stop(&dead).await.expect("it ends");
            scene.ledger.more(100).await;
            scene.cluster.start(&dead).await.expect("it comes back");
        })
        .await;
}

#[tokio::test]
async fn fault_3_a_primary_freezes_for_long() {
    Fault::deadly(3)
        .happens(async |scene| {
            let frozen = scene.head().await.name.clone();
            scene.cluster.freeze(&frozen).expect("it is frozen");
            scene.ledger.more(100).await;
            wait::pass(Duration::from_secs(20)).await;
            scene.cluster.thaw(&frozen).expect("it goes on");
        })
        .await;
}

#[tokio::test]
async fn fault_4_a_primary_freezes_for_a_moment() {
    // With the usual timeout.
    Fault::harmless(4)
        .happens(async |scene| {
            let frozen = scene.head().await.name.clone();
            scene.cluster.freeze(&frozen).expect("it is frozen");
            wait::pass(Duration::from_secs(2)).await;
            scene.cluster.thaw(&frozen).expect("it goes on");
        })
        .await;
}

/// At most one failover, however often the old primary comes and goes.
#[tokio::test]
async fn fault_5_a_primary_crashes_again_and_again() {
    Fault { head: Head::Either, failover: "", once: true, ..Fault::deadly(5) }
        .happens(async |scene| {
            let (flapping, before) = (scene.head().await.name.clone(), epoch(&scene.proxy));
            for _ in 0..4 {
                scene.cluster.kill(&flapping).await.expect("it is killed");
                scene.cluster.start(&flapping).await.expect("it comes back");
            }
            scene.ledger.more(100).await;
            assert!(epoch(&scene.proxy) <= before + 1.0);
        })
        .await;
}

/// Whoever is left may not be the one that has acknowledged last.
#[tokio::test]
async fn fault_6_a_primary_and_a_replica_are_killed() {
    Fault { head: Head::Either, group: "hold = \"30s\"", ..Fault::deadly(6) }
        .happens(async |scene| {
            let primary = scene.head().await.name.clone();
            let replica = scene.replicas().await[0].name.clone();
            scene.cluster.kill(&replica).await.expect("it is killed");
            scene.cluster.kill(&primary).await.expect("it is killed");
            wait::until("the keeper to say why it waits", || async {
                standing(&scene.proxy).await.1.contains("which may have acknowledged").then_some(())
            })
            .await;
            assert!(writable(&scene.cluster).await.is_empty());
            scene.cluster.start(&replica).await.expect("it comes back");
            scene.cluster.start(&primary).await.expect("it comes back");
            accept_loss_if_asked(scene).await;
        })
        .await;
}

/// What was acknowledged last may have been deleted everywhere: MariaDB's replicas delete what they
/// have not applied, and a primary what is not committed in its tables. Where nobody can tell, an
/// operator has to say that it may be lost.
#[tokio::test]
async fn fault_7_all_servers_are_killed() {
    let turn = Cell::new(0);
    Fault { head: Head::Either, told: Bounds::Refusals, ..Fault::deadly(7) }
        .happens(async |scene| {
            let mut names: Vec<String> =
                scene.cluster.servers().iter().map(|server| server.name.clone()).collect();
            for name in &names {
                scene.cluster.kill(name).await.expect("it is killed");
            }
            // Another order each time.
            let count = names.len();
            names.rotate_left(turn.get() % count);
            if turn.get() / count % 2 == 1 {
                names.swap(1, 2);
            }
            turn.set(turn.get() + 1);
            for name in &names {
                scene.cluster.start(name).await.expect("it comes back");
            }
            accept_loss_if_asked(scene).await;
        })
        .await;
}

/// Waits until writes go on; where nobody can tell whether something was lost, an operator says
/// that it may be.
async fn accept_loss_if_asked(scene: &mut Scene) {
    let before = scene.ledger.count();
    let waits = wait::until("writes, or why there are none", || async {
        if scene.ledger.count() > before {
            return Some(false);
        }
        let says = standing(&scene.proxy).await.1;
        says.contains("accepts that").then_some(true)
    });
    if waits.await {
        scene.accept_loss().await;
    }
}

/// What commits waits for room, for ever where nobody makes any.
#[tokio::test]
async fn fault_21_a_primary_s_disk_is_full() {
    let test = "primaries::fault_21_a_primary_s_disk_is_full";
    Fault { head: Head::Either, once: true, ..Fault::deadly(21) }
        .happens_inside(test, async |scene| {
            let small = scene.replicas().await[0].clone();
            give_a_small_disk(scene, &small).await;
            switch_over(scene, &format!("SWITCHOVER main TO '{}'", small.address())).await;
            scene.ledger.more(100).await;
            scene.settle().await;
            scene.ledger.take_gap();
            let filler = small.binary_logs().join("filler");
            fill(&filler);
            // More than may have been on its way when there was still room.
            scene.ledger.more(100).await;
            std::fs::remove_file(filler).expect("there is room again");
            // MySQL ends itself when a session that waits for room is ended.
            let has_ended = wait::until("it to be closed, or to have ended", || async {
                if small.condition() == Condition::Dead {
                    return Some(true);
                }
                let closed = small.ask("SELECT @@global.read_only").await;
                closed.is_ok_and(|closed| closed == "1").then_some(false)
            });
            if has_ended.await {
                scene.cluster.start(&small.name).await.expect("it comes back");
            }
            assert_ne!(scene.head().await.name, small.name);
        })
        .await;
}

/// From now on its binary logs are on a disk with little room.
async fn give_a_small_disk(scene: &Scene, server: &Server) {
    scene.cluster.stop(&server.name).await.expect("it ends");
    let (logs, kept) = (server.binary_logs(), server.dir.join("kept"));
    let [logs, kept] = [&logs, &kept].map(|path| path.to_str().expect("a path in UTF-8"));
    run("mv", &[logs, kept]);
    run("mkdir", &[logs]);
    run("mount", &["-t", "tmpfs", "-o", "size=64m", "none", logs]);
    run("cp", &["-a", &format!("{kept}/."), logs]);
    scene.cluster.start(&server.name).await.expect("it comes back");
    scene.settle().await;
}

/// Takes all the room that there is.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).expect("a file");
    for size in [1024 * 1024, 1024, 1] {
        let bytes = vec![0; size];
        while file.write_all(&bytes).is_ok() {}
    }
}
