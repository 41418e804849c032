//! What clients were told of counts, whatever the servers say of how they wait for replicas.

use mysql_async::prelude::Queryable as _;
use pointsman::provider::local::Cluster;
use pointsman::provider::{Flavour, Host};

use crate::cluster::{connected, leader, make_marks, marked, several_with, writes};
use crate::console::console;
use crate::etcd::{Etcd, has_etcd};
use crate::kept::{in_front_of, prepared_with, standing, wait_safe, writable};
use crate::ledger::{Audit, Ledger};
use crate::proxy::Proxy;
use crate::{servers, wait};

const AUTO: &str = "[groups.main.failover]\nmode = \"auto\"";

/// A primary and two replicas that delete nothing when they are started after a crash.
async fn lasting(flavour: Flavour) -> Cluster {
    let options: &[&str] = match flavour {
        Flavour::Mariadb => &["--init-rpl-role=MASTER"],
        Flavour::Mysql => &[],
    };
    prepared_with(flavour, Vec::new(), options).await
}

/// Somebody takes the primary's replicas away, and tells it to wait for none.
async fn is_left_alone(cluster: &Cluster, acting: &Proxy) {
    let [stop, alone] = match cluster.flavour() {
        Flavour::Mariadb => ["STOP SLAVE IO_THREAD", "rpl_semi_sync_master_enabled"],
        Flavour::Mysql => ["STOP REPLICA IO_THREAD", "rpl_semi_sync_source_enabled"],
    };
    console(acting, "MAINTENANCE ON main").await;
    // It looks again some seconds later.
    wait::until("the keeper to have looked", || async {
        standing(acting).await.1.contains("nothing is set up").then_some(())
    })
    .await;
    for replica in cluster.replicas().expect("replicas") {
        replica.run(&[stop]).await.expect(stop);
    }
    let alone = format!("SET GLOBAL {alone} = OFF");
    cluster.primary().expect("a primary").run(&[&alone]).await.expect("it is set");
}

/// The primary dies when it has acknowledged what it alone has: before the keeper looks again, and
/// sees how that could be.
async fn dies_with_what_it_alone_has(cluster: &Cluster, acting: &Proxy, ledger: &Ledger) {
    ledger.more(20).await;
    is_left_alone(cluster, acting).await;
    ledger.more(20).await;
    cluster.kill(&cluster.primary().expect("a primary").name).await.expect("it is killed");
    console(acting, "MAINTENANCE OFF main").await;
}

/// Waits until the keeper says that nobody is promoted: for what clients were told of, or, where it
/// has looked after all, for how that could be.
async fn nobody_is_promoted(acting: &Proxy) {
    let why = ["of which clients were told", "its commits did not wait for a replica"];
    wait::until("the keeper to say why nobody is promoted", || async {
        let log = acting.log();
        why.iter().any(|why| log.contains(why)).then_some(())
    })
    .await;
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
        let cluster = lasting(flavour).await;
        let proxy = in_front_of(&cluster, AUTO).await;
        let ledger = Ledger::open(&cluster, &[&proxy]).await;
        dies_with_what_it_alone_has(&cluster, &proxy, &ledger).await;
        nobody_is_promoted(&proxy).await;
        comes_back(&cluster, &proxy, ledger).await;
    }
}

/// The one that acts has told its own clients of nothing.
#[tokio::test]
async fn nobody_is_promoted_who_lacks_what_clients_of_another_pointsman_were_told_of() {
    if !has_etcd() || !servers::present(Flavour::Mariadb) {
        return;
    }
    let (cluster, etcd) = (lasting(Flavour::Mariadb).await, Etcd::start_on(Host::default()));
    let proxies = several_with(&etcd, vec![Host::default(); 3], &cluster, "").await;
    let acting = leader(&proxies).await;
    let other = &proxies[(acting + 1) % proxies.len()];
    let ledger = Ledger::open(&cluster, &[other]).await;
    dies_with_what_it_alone_has(&cluster, &proxies[acting], &ledger).await;
    nobody_is_promoted(&proxies[acting]).await;
    comes_back(&cluster, &proxies[acting], ledger).await;
}

/// MariaDB deletes, as `init_rpl_role = SLAVE` has it, what is not in its tables on disk yet.
/// Nobody writes over that before it is accepted.
#[tokio::test]
async fn a_primary_that_has_lost_what_clients_were_told_of_takes_no_writes() {
    if !has_etcd() || !servers::present(Flavour::Mariadb) {
        return;
    }
    // What is committed last is in the log alone until then.
    let options = ["--innodb-flush-log-at-timeout=2700"];
    let cluster = prepared_with(Flavour::Mariadb, Vec::new(), &options).await;
    make_marks(&cluster).await;
    let etcd = Etcd::start_on(Host::default());
    let proxies = several_with(&etcd, vec![Host::default(); 2], &cluster, "").await;
    let acting = leader(&proxies).await;
    let primary = cluster.primary().expect("a primary");
    let mut conn = connected(&proxies[1 - acting]).await;
    is_left_alone(&cluster, &proxies[acting]).await;
    conn.query_drop("INSERT INTO marks VALUES ('told')").await.expect("it is acknowledged");
    cluster.kill(&primary.name).await.expect("it is killed");
    cluster.start(&primary.name).await.expect("it comes back");
    console(&proxies[acting], "MAINTENANCE OFF main").await;
    wait::until("the keeper to say what is lost", || async {
        let says = standing(&proxies[acting]).await.1;
        says.contains("of which clients were told, and nobody else has it").then_some(())
    })
    .await;
    assert!(marked(&cluster, "told").await.is_empty());
    for proxy in &proxies {
        let strict = "mode = \"auto\"";
        proxy.reload(|text| text.replace(strict, &format!("{strict}\nmax_loss = \"some\"")));
    }
    for proxy in &proxies {
        writes(proxy).await;
    }
    assert_eq!(marked(&cluster, "again").await[0], primary.name);
}
