//! Parts of a group that do not reach one another any more: the proxy that keeps it, its primary
//! and its replicas each live on a host of their own.

use mysql_async::{Conn, OptsBuilder};
use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{APP, KEEPER};

use crate::keeper::{follows, in_front_on, prepared_on, standing, writable};
use crate::ledger::{Ledger, WRITERS};
use crate::network::{Network, is_entered};
use crate::proxy::Proxy;
use crate::{servers, wait};

/// The hosts: those of the servers, the first primary first, and the proxy's.
const PRIMARY: usize = 0;
const REPLICAS: [usize; 2] = [1, 2];
const PROXY: usize = 3;

/// A kept group with a host for each of its parts.
async fn apart(flavour: Flavour, hold: &str) -> (Network, Cluster, Proxy) {
    let network = Network::of(4).await;
    let hosts = [PRIMARY, REPLICAS[0], REPLICAS[1]].map(|number| network.host(number));
    let cluster = prepared_on(flavour, hosts.to_vec()).await;
    let keeps = "[groups.main.failover]\nmode = \"auto\"";
    // A server of MySQL that knows an account since its start needs no secret channel for it.
    for (server, account) in cluster.servers().iter().flat_map(|at| [(at, KEEPER), (at, APP)]) {
        let bare = OptsBuilder::from_opts(server.opts(account)).db_name(None::<&str>);
        let conn = Conn::new(bare).await.expect("it lets us in");
        conn.disconnect().await.expect("a goodbye");
    }
    let group = format!("server_tls = \"off\"\nhold = \"{hold}\"\n{keeps}");
    let proxy = in_front_on(network.host(PROXY), &cluster, &group).await;
    (network, cluster, proxy)
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
        let (network, cluster, proxy) = apart(flavour, "20s").await;
        let (ledger, writers) = Ledger::open(&cluster, &proxy).await;
        ledger.more(200).await;
        ledger.take_gap();
        for other in [REPLICAS[0], REPLICAS[1], PROXY] {
            network.part(PRIMARY, other);
        }
        ledger.more(200).await;
        println!("{flavour:?}: {:?} without a write after a partition", ledger.take_gap());
        network.mend();
        let former = cluster.primary().expect("a primary");
        wait::until("the old primary to be closed", || async {
            let heads = writable(&cluster).await;
            let closed = heads.len() == 1 && heads[0].name != former.name;
            let out = standing(&proxy).await.1.contains("stays out");
            let follows = closed && follows(flavour, former, heads[0].port).await;
            (closed && (out || follows)).then_some(())
        })
        .await;
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
        let (network, cluster, proxy) = apart(flavour, "2s").await;
        let (ledger, writers) = Ledger::open(&cluster, &proxy).await;
        let before = epoch(&proxy);
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
            says(&proxy, "no failover").await;
            network.mend();
            // Nobody can be let in where no primary is reached.
            let refused = ledger.take_refused();
            assert!(refused.iter().all(|why| why.contains("no primary to log in to")));
            ledger.more(100).await;
        }
        ledger.close(writers).await;
        ledger.take_refused();
        assert_eq!(epoch(&proxy), before);
        assert_eq!(writable(&cluster).await.len(), 1);
        ledger.check(&cluster.servers().iter().collect::<Vec<_>>()).await;
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
        let (network, cluster, proxy) = apart(flavour, "20s").await;
        let (ledger, writers) = Ledger::open(&cluster, &proxy).await;
        ledger.more(200).await;
        let before = epoch(&proxy);
        for replica in REPLICAS {
            network.part(PRIMARY, replica);
        }
        wait::until("a failover to be unsafe", || async {
            (standing(&proxy).await.0 != "safe").then_some(())
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
        ledger.close(writers).await;
        assert_eq!(epoch(&proxy), before);
        assert_eq!(writable(&cluster).await.len(), 1);
        ledger.check(&cluster.servers().iter().collect::<Vec<_>>()).await;
    }
}
