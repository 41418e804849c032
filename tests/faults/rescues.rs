//! What was acknowledged lies in relay logs only, and the servers that have them do not apply them:
//! they were started anew, or stopped. MariaDB deletes such a log when replication is started.

use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{self, KEEPER};

use crate::console::console;
use crate::kept::{DURABLE, in_front_of, wait_safe, writable};
use crate::ledger::{Audit, Ledger};
use crate::proxy::Proxy;
use crate::{servers, wait};

const AUTO: &str = "[groups.main.failover]\nmode = \"auto\"\nanti_flap = \"0\"";

/// How many clients write: all of it is applied before a failover is over.
const FEW: usize = 2;

/// A kept group whose replicas start nothing by themselves, under load; an operator works on it.
async fn at_work(flavour: Flavour) -> (Cluster, Proxy, Ledger) {
    let skip = match flavour {
        Flavour::Mariadb => "--skip-slave-start",
        Flavour::Mysql => "--skip-replica-start",
    };
    let options: Vec<&str> = DURABLE.iter().copied().chain([skip, "--sync-relay-log=1"]).collect();
    let cluster = servers::own_with(flavour, 2, &options).await;
    cluster.wait_acknowledging(2).await.expect("two replicas acknowledge");
    let account = replication::keeper_account(flavour);
    cluster.primary().expect("a primary").run(&account).await.expect(KEEPER.0);
    cluster.wait_caught_up().await.expect("replicas have it");
    let proxy = in_front_of(&cluster, AUTO).await;
    let ledger = Ledger::open_with(&cluster, &[&proxy], FEW).await;
    ledger.more(100).await;
    wait_safe(&cluster, &proxy).await;
    console(&proxy, "MAINTENANCE ON main").await;
    (cluster, proxy, ledger)
}

async fn tell_replicas(cluster: &Cluster, [mariadb, mysql]: [&str; 2]) {
    let what = if cluster.flavour() == Flavour::Mariadb { mariadb } else { mysql };
    for replica in cluster.replicas().expect("replicas") {
        replica.run(&[what]).await.expect(what);
    }
}

/// Waits until one of the replicas takes the writes, and looks at what they have.
async fn goes_on(cluster: &Cluster, proxy: &Proxy, mut ledger: Ledger) {
    console(proxy, "MAINTENANCE OFF main").await;
    ledger.resume();
    let replicas = cluster.replicas().expect("replicas");
    wait::until("another primary", || async {
        let heads = writable(cluster).await;
        (heads.len() == 1 && replicas.iter().any(|at| at.name == heads[0].name)).then_some(())
    })
    .await;
    ledger.more(100).await;
    ledger.close().await;
    assert_eq!(ledger.audit(&replicas).await, Audit::default());
    let is_rescued = proxy.log().contains("apply its relay log from");
    assert_eq!(is_rescued, cluster.flavour() == Flavour::Mariadb);
}

#[tokio::test]
async fn fault_9_replicas_are_started_anew_and_have_not_applied_what_they_acknowledged() {
    for flavour in servers::flavours() {
        let (cluster, proxy, ledger) = at_work(flavour).await;
        tell_replicas(&cluster, ["STOP SLAVE SQL_THREAD", "STOP REPLICA SQL_THREAD"]).await;
        // Some of it lies in files of its own.
        ledger.more(50).await;
        tell_replicas(&cluster, ["FLUSH NO_WRITE_TO_BINLOG RELAY LOGS"; 2]).await;
        ledger.more(50).await;
        for server in cluster.servers() {
            cluster.kill(&server.name).await.expect("it is killed");
        }
        for replica in cluster.replicas().expect("replicas") {
            cluster.start(&replica.name).await.expect("it comes back");
        }
        goes_on(&cluster, &proxy, ledger).await;
    }
}

#[tokio::test]
async fn replicas_that_somebody_has_stopped_apply_what_they_acknowledged() {
    for flavour in servers::flavours() {
        let (cluster, proxy, ledger) = at_work(flavour).await;
        tell_replicas(&cluster, ["STOP SLAVE SQL_THREAD", "STOP REPLICA SQL_THREAD"]).await;
        ledger.more(100).await;
        // MySQL's applier does not let itself be stopped in the midst of a transaction of which
        // the rest was not received.
        if flavour == Flavour::Mysql {
            ledger.hold().await;
        }
        tell_replicas(&cluster, ["STOP SLAVE", "STOP REPLICA"]).await;
        let primary = cluster.primary().expect("a primary");
        cluster.kill(&primary.name).await.expect("it is killed");
        goes_on(&cluster, &proxy, ledger).await;
    }
}
