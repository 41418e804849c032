//! Proxies that end and freeze.

use std::time::Duration;

use rustix::process::Signal;

use crate::kept::wait_safe;
use crate::scene::{Bounds, Fault, Head};
use crate::wait;

/// Whoever has something under way ends it, and is told nothing that is not so.
#[tokio::test]
async fn fault_11_a_proxy_is_ended() {
    Fault { head: Head::TheSame, told: Bounds::Refusals, ..Fault::deadly(11) }
        .happens(async |scene| {
            scene.ledger.dismiss_idlers();
            scene.proxy.signal(Signal::TERM);
            // Who sends a statement just as it is told goodbye does not know what became of it.
            assert_eq!(scene.proxy.ended().await, Some(0));
            scene.proxy.start_again().await;
            scene.ledger.more(50).await;
            wait_safe(&scene.cluster, &scene.proxy).await;
        })
        .await;
}

/// Another process takes over, as in an upgrade: nobody is refused or sent away.
#[tokio::test]
async fn fault_12_a_proxy_hands_over() {
    // Who stays with the old process for longer than `drain_timeout` would be.
    Fault { once: true, ..Fault::harmless(12) }
        .happens(async |scene| {
            scene.ledger.take_refused();
            scene.proxy.hand_over().await;
            scene.ledger.more(200).await;
            assert_eq!(scene.ledger.take_refused(), [""; 0]);
            wait_safe(&scene.cluster, &scene.proxy).await;
        })
        .await;
}

/// A proxy that is stopped while its primary dies goes on with what it finds.
#[tokio::test]
async fn fault_13_a_proxy_freezes_in_a_failover() {
    Fault::deadly(13)
        .happens(async |scene| {
            let dead = scene.head().await.name.clone();
            scene.cluster.kill(&dead).await.expect("it is killed");
            scene.proxy.signal(Signal::STOP);
            wait::pass(Duration::from_secs(10)).await;
            scene.proxy.signal(Signal::CONT);
            scene.ledger.more(100).await;
            scene.cluster.start(&dead).await.expect("it comes back");
        })
        .await;
}
