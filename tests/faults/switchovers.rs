//! Primaries that are replaced because an operator says so.

use crate::console::{console, console_says};
use crate::scene::{Bounds, Fault, Scene};
use crate::wait;

/// Nothing is broken, and nobody notices: the catalogue counts from 1.
#[tokio::test]
async fn fault_0_an_operator_switches_over_under_64_sessions() {
    Fault { told: Bounds::Nothing, writers: 64, ..Fault::deadly(0) }
        .happens(async |scene| {
            wait_for_an_heir(scene).await;
            scene.ledger.more(200).await;
            scene.ledger.take_gap();
            let told = console(&scene.proxy, "SWITCHOVER").await;
            assert!(told.contains(" takes the writes in place of "), "{told}");
            println!("{told}");
        })
        .await;
}

/// On a busy machine a replica may lag behind for longer than a switchover waits.
async fn wait_for_an_heir(scene: &Scene) {
    wait::until("a switchover that is not refused for a lag", || async {
        let explained = console_says(&scene.proxy, "EXPLAIN SWITCHOVER").await;
        let behind = |error: &mysql_async::Error| error.to_string().contains(" s behind");
        assert!(explained.as_ref().err().is_none_or(behind), "{explained:?}");
        explained.ok()
    })
    .await;
}
