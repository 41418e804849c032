//! Parts of a group that do not reach one another any more: the proxy that keeps it and each of its
//! servers live on hosts of their own.

use std::time::Duration;

use crate::kept::{epoch, standing};
use crate::network::Network;
use crate::scene::{Bounds, Fault, Head, PROXY, Scene};
use crate::wait;

/// The host of the primary, and those of the others.
async fn hosts(scene: &Scene) -> (usize, [usize; 2]) {
    let head = scene.head().await.name.clone();
    let servers = scene.cluster.servers();
    let primary = servers.iter().position(|server| server.name == head).expect("it is one of them");
    (primary, [(primary + 1) % 3, (primary + 2) % 3])
}

fn isolate(network: &Network, one: usize) {
    (0..=PROXY).filter(|other| *other != one).for_each(|other| network.part(one, other));
}

#[tokio::test]
async fn fault_24_nobody_reaches_the_primary() {
    Fault::deadly(24)
        .happens_apart("partitions::fault_24_nobody_reaches_the_primary", async |scene| {
            let (primary, _) = hosts(scene).await;
            isolate(scene.network(), primary);
            scene.ledger.more(100).await;
            scene.network().mend();
        })
        .await;
}

/// Cuts ways between the proxy and the primary, and sees that it is not replaced.
async fn is_not_replaced(scene: &Scene, ways: impl Fn(usize) -> Vec<(usize, usize)>) {
    let (primary, _) = hosts(scene).await;
    for (from, to) in ways(primary) {
        scene.network().cut(from, to);
    }
    wait::until("the keeper to say why it waits", || async {
        standing(&scene.proxy).await.1.contains("no failover").then_some(())
    })
    .await;
    scene.network().mend();
}

/// One that its replicas hear from.
const HEARD: Fault = Fault { head: Head::TheSame, ..Fault::deadly(25) };

#[tokio::test]
async fn fault_25_the_proxy_alone_does_not_reach_the_primary() {
    let test = "partitions::fault_25_the_proxy_alone_does_not_reach_the_primary";
    HEARD
        .happens_apart(test, async |scene| {
            is_not_replaced(scene, |primary| vec![(PROXY, primary), (primary, PROXY)]).await;
        })
        .await;
}

/// Nobody is told of what no other server has.
#[tokio::test]
async fn fault_26_no_replica_reaches_the_primary() {
    let test = "partitions::fault_26_no_replica_reaches_the_primary";
    Fault::harmless(26)
        .happens_apart(test, async |scene| {
            let (primary, replicas) = hosts(scene).await;
            for replica in replicas {
                scene.network().part(primary, replica);
            }
            wait::until("a failover to be unsafe", || async {
                (standing(&scene.proxy).await.0 != "safe").then_some(())
            })
            .await;
            let waiting = "SELECT COUNT(*) FROM information_schema.processlist \
                           WHERE user = 'app' AND command IN ('Query', 'Execute')";
            wait::until("writers to wait", || async {
                let waiting = scene.head().await.ask(waiting).await.ok()?;
                (waiting.parse::<usize>().ok()? >= crate::ledger::WRITERS).then_some(())
            })
            .await;
            let told = scene.ledger.count();
            scene.network().mend();
            assert!(scene.ledger.count() <= told + crate::ledger::WRITERS);
        })
        .await;
}

#[tokio::test]
async fn fault_27_the_primary_s_answers_are_lost() {
    Fault { number: 27, ..HEARD }
        .happens_apart("partitions::fault_27_the_primary_s_answers_are_lost", async |scene| {
            is_not_replaced(scene, |primary| vec![(primary, PROXY)]).await;
        })
        .await;
}

#[tokio::test]
async fn fault_28_what_is_sent_to_the_primary_is_lost() {
    let test = "partitions::fault_28_what_is_sent_to_the_primary_is_lost";
    Fault { number: 28, ..HEARD }
        .happens_apart(test, async |scene| {
            is_not_replaced(scene, |primary| vec![(PROXY, primary)]).await;
        })
        .await;
}

/// One replica gets nothing, or its acknowledgements do not arrive: the other one's count.
#[tokio::test]
async fn fault_29_one_way_between_the_primary_and_a_replica_is_lost() {
    let test = "partitions::fault_29_one_way_between_the_primary_and_a_replica_is_lost";
    Fault::harmless(29)
        .happens_apart(test, async |scene| {
            let (primary, [replica, _]) = hosts(scene).await;
            for (from, to) in [(primary, replica), (replica, primary)] {
                scene.network().cut(from, to);
                scene.ledger.more(200).await;
                scene.network().mend();
                scene.ledger.more(50).await;
            }
        })
        .await;
}

/// Connections to a replica that end nowhere: nobody waits for it.
#[tokio::test]
async fn fault_38_connections_to_a_replica_are_half_open() {
    let test = "partitions::fault_38_connections_to_a_replica_are_half_open";
    Fault::harmless(38)
        .happens_apart(test, async |scene| {
            let (_, [replica, _]) = hosts(scene).await;
            scene.network().part(PROXY, replica);
            scene.ledger.more(300).await;
            scene.network().mend();
        })
        .await;
}

/// At most one failover, however often the way comes and goes.
#[tokio::test]
async fn fault_40_the_way_to_the_primary_comes_and_goes() {
    let test = "partitions::fault_40_the_way_to_the_primary_comes_and_goes";
    Fault {
        head: Head::Either,
        told: Bounds::Unknown,
        failover: "",
        once: true,
        ..Fault::deadly(40)
    }
    .happens_apart(test, async |scene| {
        let (primary, _) = hosts(scene).await;
        let before = epoch(&scene.proxy);
        for _ in 0..5 {
            isolate(scene.network(), primary);
            wait::pass(Duration::from_secs(2)).await;
            scene.network().mend();
            wait::pass(Duration::from_secs(2)).await;
        }
        scene.ledger.more(50).await;
        assert!(epoch(&scene.proxy) <= before + 1.0);
    })
    .await;
}
