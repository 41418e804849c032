//! Primaries that are replaced because an operator says so.

use crate::console::{console, console_says};
use crate::scene::{Bounds, Fault, Scene};
use crate::wait;

/// Nothing is broken, and nobody notices: the catalogue counts from 1.
#[tokio::test]
async fn fault_0_an_operator_switches_over_under_64_sessions() {
    Fault { told: Bounds::Nothing, writers: 64, ..Fault::deadly(0) }
        .happens(async |scene| {
            println!("{}", switch_over(scene, "SWITCHOVER").await);
        })
        .await;
}

/// Gives this order, once nobody lags too far behind, and who has just come back is seen to be
/// there; what is answered.
pub(crate) async fn switch_over(scene: &Scene, order: &str) -> String {
    let explain = format!("EXPLAIN {order}");
    // On a busy machine a replica never catches up with all of them.
    scene.ledger.hold().await;
    wait::until("a switchover that is not refused for what passes", || async {
        let explained = console_says(&scene.proxy, &explain).await;
        let passes = |error: &mysql_async::Error| {
            let why = error.to_string();
            [" s behind", "it is down"].iter().any(|passing| why.contains(passing))
        };
        assert!(explained.as_ref().err().is_none_or(passes), "{explained:?}");
        explained.ok()
    })
    .await;
    scene.ledger.resume();
    scene.ledger.more(scene.ledger.writers()).await;
    scene.ledger.take_gap();
    let told = console(&scene.proxy, order).await;
    assert!(told.contains(" takes the writes in place of "), "{told}");
    told
}
