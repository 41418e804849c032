//! Several pointsman, servers and an etcd, each on a host of its own, some of which do not reach
//! the others any more.

use std::time::Instant;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error};
use pointsman::provider::local::Cluster;
use pointsman::provider::{Flavour, Host};

use crate::cluster::{connected, is_1290, leader, make_marks, marked, several_on, writes};
use crate::etcd::{Etcd, has_etcd};
use crate::kept::{epoch, prepared_on, standing, writable};
use crate::ledger::Ledger;
use crate::network::{Network, is_entered};
use crate::proxy::Proxy;
use crate::{servers, wait};

/// The hosts of the servers are 0 to 2, then comes the store, and those of pointsman.
const STORE: usize = 3;
const PROXIES: [usize; 3] = [4, 5, 6];

/// All of them.
pub(crate) struct Site {
    pub(crate) network: Network,
    pub(crate) etcd: Etcd,
    pub(crate) cluster: Cluster,
    pub(crate) proxies: Vec<Proxy>,
}

/// Builds one with so many pointsman, or nothing where that cannot be; `test` is the whole name of
/// the test.
pub(crate) async fn site(test: &str, count: u8, group: &str) -> Option<Site> {
    if !has_etcd() || !servers::present(Flavour::Mariadb) || !is_entered(test) {
        return None;
    }
    let network = Network::of(4 + count).await;
    let hosts = |numbers: &[usize]| -> Vec<Host> {
        numbers.iter().map(|number| network.host(*number)).collect()
    };
    let cluster = prepared_on(Flavour::Mariadb, hosts(&[0, 1, 2])).await;
    let group = format!("server_tls = \"off\"\n{group}");
    let proxies = hosts(&PROXIES[..usize::from(count)]);
    let (etcd, cluster, proxies) = several_on(network.host(STORE), proxies, cluster, &group).await;
    make_marks(&cluster).await;
    Some(Site { network, etcd, cluster, proxies })
}

impl Site {
    /// Nothing gets from this pointsman to anybody, or from anybody to it.
    pub(crate) fn isolate(&self, proxy: usize) {
        let own = PROXIES[proxy];
        let hosts = 0..PROXIES[self.proxies.len() - 1] + 1;
        self.part(&[own], &hosts.filter(|at| *at != own).collect::<Vec<_>>());
    }

    /// Nothing gets from one side to the other.
    fn part(&self, one: &[usize], other: &[usize]) {
        for (one, other) in one.iter().flat_map(|one| other.iter().map(move |at| (one, at))) {
            self.network.part(*one, *other);
        }
    }
}

/// Writes until that is refused for want of a lease, or what is on its way as the lease ends is of
/// unknown outcome.
async fn is_refused(conn: &mut Conn) {
    let end = Instant::now() + wait::PATIENCE;
    loop {
        match conn.query_drop("INSERT INTO marks VALUES ('minority')").await {
            Ok(()) => assert!(Instant::now() < end, "the lease does not end"),
            Err(refused) => {
                let is_cut_off = matches!(&refused, Error::Server(told) if told.state == "08007");
                let is_refused = is_1290(&refused, "has lost its lease in etcd");
                assert!(is_refused || is_cut_off, "{refused}");
                return;
            }
        }
    }
}

/// The keeper is with the old primary where nobody else is: it sends nothing there any more, and
/// the other side goes on.
#[tokio::test]
async fn fault_30_the_keeper_is_alone_with_the_primary() {
    let test = "minorities::fault_30_the_keeper_is_alone_with_the_primary";
    let Some(site) = site(test, 2, "hold = \"10s\"").await else { return };
    let alone = leader(&site.proxies).await;
    let other = 1 - alone;
    let mut ledger = Ledger::open(&site.cluster, &[&site.proxies[other]]).await;
    ledger.more(50).await;
    let former = site.cluster.primary().expect("a primary").name.clone();
    let before = epoch(&site.proxies[other]);
    let mut conn = connected(&site.proxies[alone]).await;
    ledger.take_gap();
    // The first server is the primary.
    site.part(&[0, PROXIES[alone]], &[1, 2, PROXIES[other], STORE]);
    ledger.more(50).await;
    println!("{:?} without a write after a partition by halves", ledger.take_gap());
    is_refused(&mut conn).await;
    assert!(epoch(&site.proxies[other]) > before);
    writes(&site.proxies[other]).await;
    site.network.mend();
    wait::until("the keeper of before to follow", || async {
        (epoch(&site.proxies[alone]) == epoch(&site.proxies[other])).then_some(())
    })
    .await;
    writes(&site.proxies[alone]).await;
    // A write that was on its way there when it was parted is its own, and nobody has confirmed it.
    wait::until("the former primary to follow, or to stay out", || async {
        let (mode, keeper) = standing(&site.proxies[other]).await;
        let follows = mode == "safe" && keeper.ends_with("takes the writes");
        (follows || keeper.contains("stays out: it has transactions of its own")).then_some(())
    })
    .await;
    ledger.close().await;
    let heads = writable(&site.cluster).await;
    let [head] = heads.as_slice() else { panic!("{heads:?}") };
    assert_ne!(head.name, former);
    // What was refused for want of a lease is nowhere.
    assert_eq!(marked(&site.cluster, "minority").await.len() % 3, 0);
    ledger.check(&[head]).await;
}

/// Neither half knows what the other does: nobody writes, and nobody is promoted.
#[tokio::test]
async fn fault_31_neither_half_is_the_larger() {
    let test = "minorities::fault_31_neither_half_is_the_larger";
    let Some(site) = site(test, 2, "hold = \"10s\"").await else { return };
    for proxy in &site.proxies {
        writes(proxy).await;
    }
    let head = site.cluster.primary().expect("a primary").name.clone();
    let before = epoch(&site.proxies[0]);
    let [one, other] = &site.proxies[..] else { panic!("two") };
    let (mut with, mut without) = (connected(one).await, connected(other).await);
    let mut reader = connected(one).await;
    site.part(&[0, 1, PROXIES[0]], &[2, PROXIES[1]]);
    site.part(&[0, 1, 2, PROXIES[0], PROXIES[1]], &[STORE]);
    is_refused(&mut with).await;
    let lost = without.query_drop("INSERT INTO marks VALUES ('other half')").await;
    println!("without a primary: {:?}", lost.expect_err("nobody takes it"));
    // Of the other replica nobody can say how far behind it is.
    let read: Option<u64> =
        reader.query_first("SELECT COUNT(*) FROM marks").await.expect("a replica answers");
    assert!(read.is_some_and(|rows| rows > 0));
    assert_eq!(writable(&site.cluster).await.len(), 1);
    site.network.mend();
    for proxy in &site.proxies {
        writes(proxy).await;
        assert_eq!(epoch(proxy), before, "nothing has changed meanwhile");
    }
    let heads = writable(&site.cluster).await;
    assert_eq!(heads.iter().map(|at| &at.name).collect::<Vec<_>>(), [&head]);
}
