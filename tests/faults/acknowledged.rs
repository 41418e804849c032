//! What clients were told of counts, whatever the servers say of how they wait for replicas.

use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;

use crate::cluster::{has_etcd, leader, several};
use crate::console::console;
use crate::kept::{kept, standing, wait_safe, writable};
use crate::ledger::{Audit, Ledger};
use crate::proxy::Proxy;
use crate::{servers, wait};

/// Somebody takes the primary's replicas away and tells it to wait for none, and it dies when it
/// has acknowledged what it alone has: before the keeper looks again, and sees that.
async fn dies_with_what_it_alone_has(cluster: &Cluster, acting: &Proxy, ledger: &Ledger) {
    ledger.more(20).await;
    let [stop, alone] = match cluster.flavour() {
        Flavour::Mariadb => ["STOP SLAVE IO_THREAD", "rpl_semi_sync_master_enabled"],
        Flavour::Mysql => ["STOP REPLICA IO_THREAD", "rpl_semi_sync_source_enabled"],
    };
    let primary = cluster.primary().expect("a primary");
    console(acting, "MAINTENANCE ON main").await;
    for replica in cluster.replicas().expect("replicas") {
        replica.run(&[stop]).await.expect(stop);
    }
    primary.run(&[&format!("SET GLOBAL {alone} = OFF")]).await.expect(alone);
    ledger.more(20).await;
    cluster.kill(&primary.name).await.expect("it is killed");
    console(acting, "MAINTENANCE OFF main").await;
}

/// It comes back with all that it had, and the writes go on there.
async fn comes_back(cluster: &Cluster, acting: &Proxy, mut ledger: Ledger) {
    let primary = cluster.primary().expect("a primary");
    assert!(writable(cluster).await.is_empty(), "nobody is promoted");
    cluster.start(&primary.name).await.expect("it comes back");
    ledger.more(20).await;
    let heads = writable(cluster).await;
    assert_eq!(heads.iter().map(|at| &at.name).collect::<Vec<_>>(), [&primary.name]);
    wait_safe(cluster, acting).await;
    ledger.close().await;
    cluster.wait_caught_up().await.expect("replicas have it");
    let all: Vec<_> = cluster.servers().iter().collect();
    assert_eq!(ledger.audit(&all).await, Audit::default());
}

#[tokio::test]
async fn nobody_is_promoted_who_lacks_what_clients_were_told_of() {
    for flavour in servers::flavours() {
        let (cluster, proxy) = kept(flavour, "").await;
        let ledger = Ledger::open(&cluster, &[&proxy]).await;
        dies_with_what_it_alone_has(&cluster, &proxy, &ledger).await;
        wait::until("the keeper to say why nobody is", || async {
            let says = standing(&proxy).await.1;
            says.contains("of which clients were told").then_some(())
        })
        .await;
        comes_back(&cluster, &proxy, ledger).await;
    }
}

/// The one that acts has told its own clients of nothing.
#[tokio::test]
async fn nobody_is_promoted_who_lacks_what_clients_of_another_pointsman_were_told_of() {
    if !has_etcd() {
        return;
    }
    let (_etcd, cluster, proxies) = several(3, "").await;
    let acting = leader(&proxies).await;
    let other = &proxies[(acting + 1) % proxies.len()];
    let ledger = Ledger::open(&cluster, &[other]).await;
    dies_with_what_it_alone_has(&cluster, &proxies[acting], &ledger).await;
    wait::until("the keeper to say why nobody is", || async {
        proxies[acting].log().contains("of which clients were told").then_some(())
    })
    .await;
    comes_back(&cluster, &proxies[acting], ledger).await;
}
