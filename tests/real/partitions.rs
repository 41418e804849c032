//! Parts of a group that do not reach one another any more: the proxy that keeps it, its primary
//! and its replicas each live on a host of their own.

use std::sync::Arc;

use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{APP, KEEPER};
use tokio::task::JoinHandle;

use crate::keeper::{in_front_on, prepared_on, standing, wait_closed, writable};
use crate::ledger::{Ledger, WRITERS};
use crate::network::{Network, is_entered};
use crate::proxy::Proxy;
use crate::{clients, servers, wait};

/// The hosts: those of the servers, the first primary first, and the proxy's.
const PRIMARY: usize = 0;
const REPLICAS: [usize; 2] = [1, 2];
const PROXY: usize = 3;

/// A kept group with a host for each of its parts, and writers that have begun.
struct Apart {
    network: Network,
    cluster: Cluster,
    proxy: Proxy,
    ledger: Arc<Ledger>,
    writers: Vec<JoinHandle<()>>,
    /// When they began.
    epoch: f64,
}

async fn apart(flavour: Flavour, hold: &str) -> Apart {
    let network = Network::of(4).await;
    let hosts = [PRIMARY, REPLICAS[0], REPLICAS[1]].map(|number| network.host(number));
    let cluster = prepared_on(flavour, hosts.to_vec()).await;
    let keeps = "[groups.main.failover]\nmode = \"auto\"";
    // A server of MySQL that knows an account since its start needs no secret channel for it.
    for (server, account) in cluster.servers().iter().flat_map(|at| [(at, KEEPER), (at, APP)]) {
        let conn = clients::connect_bare(server.at(), account).await;
        conn.disconnect().await.expect("a goodbye");
    }
    let group = format!("server_tls = \"off\"\nhold = \"{hold}\"\n{keeps}");
    let proxy = in_front_on(network.host(PROXY), &cluster, &group).await;
    let (ledger, writers) = Ledger::open(&cluster, &proxy).await;
    ledger.more(200).await;
    let epoch = epoch(&proxy);
    Apart { network, cluster, proxy, ledger, writers, epoch }
}

impl Apart {
    /// Ends the writers: what they were told of is everywhere, nobody was replaced, and who was
    /// not let in was told so in words that `may_refuse`.
    async fn end_as_it_was(self, may_refuse: impl Fn(&str) -> bool) {
        self.ledger.close(self.writers).await;
        let refused = self.ledger.take_refused();
        assert!(refused.iter().all(|why| may_refuse(why)), "{refused:?}");
        assert_eq!(epoch(&self.proxy), self.epoch);
        assert_eq!(writable(&self.cluster).await.len(), 1);
        self.ledger.check(&self.cluster.servers().iter().collect::<Vec<_>>()).await;
    }
}

fn epoch(proxy: &Proxy) -> f64 {
    proxy.metric("pointsman_keeper_epoch", &[])
}

/// Waits until the keeper says so.
async fn says(proxy: &Proxy, word: &str) {
    wait::until(word, || async { standing(proxy).await.1.contains(word).then_some(()) }).await;
}

#[tokio::test]
async fn a_primary_that_nobody_reaches_is_replaced_and_takes_no_write_when_it_is_back() {
    let test = "partitions::\
                a_primary_that_nobody_reaches_is_replaced_and_takes_no_write_when_it_is_back";
    if !is_entered(test) {
        return;
    }
    for flavour in servers::flavours() {
        let Apart { network, cluster, proxy, ledger, writers, .. } = apart(flavour, "20s").await;
        ledger.take_gap();
        for other in [REPLICAS[0], REPLICAS[1], PROXY] {
            network.part(PRIMARY, other);
        }
        ledger.more(200).await;
        println!("{flavour:?}: {:?} without a write after a partition", ledger.take_gap());
        network.mend();
        let former = cluster.primary().expect("a primary");
        wait_closed(&cluster, &proxy, former).await;
        ledger.more(50).await;
        ledger.close(writers).await;
        let others = cluster.servers().iter().filter(|server| server.name != former.name);
        ledger.check(&others.collect::<Vec<_>>()).await;
    }
}

#[tokio::test]
async fn a_primary_that_its_replicas_hear_from_is_not_replaced() {
    let test = "partitions::a_primary_that_its_replicas_hear_from_is_not_replaced";
    if !is_entered(test) {
        return;
    }
    for flavour in servers::flavours() {
        let group = apart(flavour, "2s").await;
        let Apart { network, proxy, ledger, .. } = &group;
        let ways = [
            vec![(PROXY, PRIMARY), (PRIMARY, PROXY)],
            vec![(PROXY, PRIMARY)],
            vec![(PRIMARY, PROXY)],
        ];
        for lost in ways {
            ledger.more(100).await;
            for (from, to) in lost {
                network.cut(from, to);
            }
            says(proxy, "no failover").await;
            network.mend();
            ledger.more(100).await;
        }
        // Nobody can be let in where no primary is reached.
        group.end_as_it_was(|why| why.contains("no primary to log in to")).await;
    }
}

#[tokio::test]
async fn a_primary_that_no_replica_hears_from_acknowledges_nothing_and_goes_on_when_they_do() {
    let test = "partitions::\
        a_primary_that_no_replica_hears_from_acknowledges_nothing_and_goes_on_when_they_do";
    if !is_entered(test) {
        return;
    }
    for flavour in servers::flavours() {
        let group = apart(flavour, "20s").await;
        let Apart { network, cluster, proxy, ledger, .. } = &group;
        for replica in REPLICAS {
            network.part(PRIMARY, replica);
        }
        wait::until("a failover to be unsafe", || async {
            (standing(proxy).await.0 != "safe").then_some(())
        })
        .await;
        let told = ledger.count();
        // It is asked for more, and nobody is told of what no other server has.
        let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'app' \
                       AND command = 'Query'";
        let primary = cluster.primary().expect("a primary");
        wait::until("writers to wait", || async {
            let waiting = primary.ask(waiting).await.ok()?;
            (waiting.parse::<usize>().ok()? >= WRITERS).then_some(())
        })
        .await;
        assert_eq!(ledger.count(), told, "{flavour:?}");
        network.mend();
        ledger.more(200).await;
        group.end_as_it_was(|_| false).await;
    }
}
