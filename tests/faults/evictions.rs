//! Replicas that are away for long: a failover does without them, and they are let in again.

use pointsman::provider::replication::REPL;

use crate::kept::{follows, kept, standing, wait_safe, writable};
use crate::ledger::{Audit, Ledger};
use crate::proxy::Proxy;
use crate::wait;

/// Waits until each replica logs in by an account of its own, and the keeper has noted that.
async fn wait_own_accounts(proxy: &Proxy) {
    wait::until("an account for each replica", || async {
        let noted = std::fs::read_to_string(proxy.dir.join("keeper-main.json")).ok()?;
        let is_shared = noted.contains(&format!("{:?}", REPL.0));
        let own = ["_1", "_2", "_3"].map(|id| noted.contains(&format!("pointsman_replica{id}")));
        (own == [true; 3] && !is_shared).then_some(())
    })
    .await;
}

/// How many clients write: what they write is applied before a failover is over, and machines are
/// busy.
const FEW: usize = 2;

async fn wait_said(proxy: &Proxy, what: &str) {
    wait::until(what, || async { standing(proxy).await.1.contains(what).then_some(()) }).await;
}

#[tokio::test]
async fn a_primary_dies_that_had_lost_a_replica_long_before() {
    for flavour in crate::servers::flavours() {
        let (cluster, proxy) = kept(flavour, "evict_after = \"10s\"\nanti_flap = \"0\"").await;
        let mut ledger = Ledger::open_with(&cluster, &[&proxy], FEW).await;
        ledger.more(100).await;
        // They are moved one after the other, and no write waits longer for that than for others.
        wait_own_accounts(&proxy).await;
        let primary = cluster.primary().expect("a primary");
        let [gone, left] = cluster.replicas().expect("replicas")[..] else { panic!("two") };
        wait_safe(&cluster, &proxy).await;
        cluster.kill(&gone.name).await.expect("it is killed");
        wait_said(&proxy, "is evicted").await;
        ledger.more(50).await;
        cluster.kill(&primary.name).await.expect("it is killed");
        wait::until("the replica that is left to be the primary", || async {
            let heads = writable(&cluster).await;
            (heads.len() == 1 && heads[0].name == left.name).then_some(())
        })
        .await;
        // Nobody acknowledges there before one of the others is back.
        cluster.start(&gone.name).await.expect("it comes back");
        ledger.more(200).await;
        assert!(follows(flavour, gone, left.port).await);
        cluster.start(&primary.name).await.expect("it comes back");
        ledger.more(50).await;
        ledger.close().await;
        wait_said(&proxy, "takes the writes").await;
        assert_eq!(ledger.audit(&[left, gone]).await, Audit::default());
        let password = std::fs::read_to_string(proxy.dir.join("replica-password-main"));
        let password = password.expect("it was made");
        assert!(!proxy.log().contains(password.trim()), "{flavour:?}");
    }
}

/// It is let in again, and may be the next primary.
#[tokio::test]
async fn who_was_evicted_comes_back_and_takes_over() {
    for flavour in crate::servers::flavours() {
        let (cluster, proxy) = kept(flavour, "evict_after = \"10s\"\nanti_flap = \"0\"").await;
        let mut ledger = Ledger::open_with(&cluster, &[&proxy], FEW).await;
        wait_own_accounts(&proxy).await;
        let primary = cluster.primary().expect("a primary");
        let [gone, other] = cluster.replicas().expect("replicas")[..] else { panic!("two") };
        cluster.kill(&gone.name).await.expect("it is killed");
        wait_said(&proxy, "is evicted").await;
        ledger.more(100).await;
        cluster.start(&gone.name).await.expect("it comes back");
        wait_safe(&cluster, &proxy).await;
        assert!(follows(flavour, gone, primary.port).await);
        // Now the other one, and then nobody is left but who was evicted first.
        // What has come back catches up meanwhile, which takes its time on a busy machine.
        ledger.hold().await;
        cluster.kill(&other.name).await.expect("it is killed");
        wait_said(&proxy, "is evicted").await;
        ledger.resume();
        ledger.more(20).await;
        cluster.kill(&primary.name).await.expect("it is killed");
        wait::until("who was evicted to be the primary", || async {
            let heads = writable(&cluster).await;
            (heads.len() == 1 && heads[0].name == gone.name).then_some(())
        })
        .await;
        for server in [other, primary] {
            cluster.start(&server.name).await.expect("it comes back");
        }
        ledger.more(100).await;
        ledger.close().await;
        assert_eq!(ledger.audit(&[gone, other]).await, Audit::default());
    }
}
