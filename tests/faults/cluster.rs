//! Several pointsman in front of the same servers, with a real etcd: one acts, the others follow,
//! and who has lost its lease sends nothing to a primary.

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error};
use pointsman::app::tasks;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{APP, KEEPER, REPL};
use pointsman::provider::server::opts_at;
use pointsman::provider::{Flavour, Host};
use rustix::process::Signal;
use tokio::task::JoinHandle;

use crate::etcd::{Etcd, has_etcd};
use crate::kept::{epoch, prepared, wait_safe, writable};
use crate::ledger::{Ledger, Told};
use crate::proxy::{Proxy, configuration_with};
use crate::{servers, wait};

/// So many pointsman in front of a cluster of MariaDB, of which a failover would lose nothing.
pub(crate) async fn several(count: usize, group: &str) -> (Etcd, Cluster, Vec<Proxy>) {
    let cluster = prepared(Flavour::Mariadb).await;
    several_on(Host::default(), vec![Host::default(); count], cluster, group).await
}

/// The same in front of this cluster, each on a host of its own.
pub(crate) async fn several_on(
    store: Host,
    hosts: Vec<Host>,
    cluster: Cluster,
    group: &str,
) -> (Etcd, Cluster, Vec<Proxy>) {
    let etcd = Etcd::start_on(store);
    let proxies = several_with(&etcd, hosts, &cluster, group).await;
    (etcd, cluster, proxies)
}

/// So many pointsman that agree by this etcd.
pub(crate) async fn several_with(
    etcd: &Etcd,
    hosts: Vec<Host>,
    cluster: &Cluster,
    group: &str,
) -> Vec<Proxy> {
    let seed = cluster.primary().expect("a primary").address();
    let mut proxies = Vec::new();
    for (number, host) in hosts.into_iter().enumerate() {
        let (repl, password) = REPL;
        let settings = format!(
            "{group}\n[groups.main.failover]\nmode = \"auto\"\nanti_flap = \"0\"\n\
             replication_user = \"{repl}\"\nreplication_password = \"{password}\"\n\
             [cluster]\n{}\nid = \"pm{}\"\n",
            etcd.settings(),
            number + 1
        );
        let config = configuration_with(KEEPER, "timeout = \"500ms\"", &[&seed], &settings);
        let proxy = Proxy::with_config_on(host, &config).await;
        proxies.push(proxy.unwrap_or_else(|why| panic!("{why}")));
    }
    let leader = leader(&proxies).await;
    wait_safe(cluster, &proxies[leader]).await;
    proxies
}

/// Which of these acts for the group.
pub(crate) async fn leader(proxies: &[Proxy]) -> usize {
    wait::until("one to act", || async {
        let acts = |proxy: &Proxy| proxy.metric("pointsman_cluster_leader", &[]) == 1.0;
        let leading: Vec<usize> = (0..proxies.len()).filter(|at| acts(&proxies[*at])).collect();
        assert!(leading.len() < 2, "{leading:?} act");
        leading.first().copied()
    })
    .await
}

pub(crate) async fn connected(proxy: &Proxy) -> Conn {
    Conn::new(opts_at(proxy.at(), APP)).await.expect("a login")
}

/// Waits until a write through this one is answered.
pub(crate) async fn writes(proxy: &Proxy) {
    wait::until("writes to go on", || async {
        let mut conn = Conn::new(opts_at(proxy.at(), APP)).await.ok()?;
        conn.query_drop("INSERT INTO marks VALUES ('again')").await.ok()
    })
    .await;
}

/// Stops one with all its threads: until then those that were not told yet go on.
pub(crate) async fn stop(proxy: &Proxy) {
    proxy.signal(Signal::STOP);
    let threads = format!("/proc/{}/task", proxy.pid());
    wait::until("all threads to be stopped", || async {
        let mut threads = std::fs::read_dir(&threads).ok()?;
        let is_stopped = |thread: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
            Some(stat.rsplit_once(") ")?.1.starts_with('T'))
        };
        threads.all(|thread| is_stopped(thread) == Some(true)).then_some(())
    })
    .await;
}

/// Sends a write, and leaves it to a task to wait for its answer.
fn insert(mut conn: Conn, mark: &'static str) -> JoinHandle<Result<(), Error>> {
    let sql = format!("INSERT INTO marks VALUES ('{mark}')");
    tasks::spawn("insert", async move { conn.query_drop(sql).await })
}

/// A table for single writes.
pub(crate) async fn make_marks(cluster: &Cluster) {
    let table = "CREATE TABLE app.marks (mark VARCHAR(20), KEY (mark))";
    cluster.primary().expect("a primary").run(&[table]).await.expect("a table");
    cluster.wait_caught_up().await.expect("replicas have it");
}

/// On how many of the servers that answer a mark stands.
pub(crate) async fn marked(cluster: &Cluster, mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for server in cluster.servers() {
        let sql = format!("SELECT COUNT(*) FROM app.marks WHERE mark = '{mark}'");
        if server.ask(&sql).await.is_ok_and(|count| count != "0") {
            found.push(server.name.clone());
        }
    }
    found
}

/// The primary is killed under load: another one takes the writes, all of these know it, and
/// nothing is lost.
pub(crate) async fn loses_its_primary(cluster: &Cluster, proxies: &[Proxy], mut ledger: Ledger) {
    let dead = cluster.primary().expect("a primary");
    let before = epoch(&proxies[leader(proxies).await]);
    ledger.take_gap();
    cluster.kill(&dead.name).await.expect("it is killed");
    ledger.more(100).await;
    println!("{:?} without a write after a kill", ledger.take_gap());
    for proxy in proxies {
        wait::until("all to know", || async { (epoch(proxy) > before).then_some(()) }).await;
    }
    ledger.close().await;
    let heads = writable(cluster).await;
    let [head] = heads.as_slice() else { panic!("{heads:?}") };
    assert_ne!(head.name, dead.name);
    ledger.check(&heads).await;
}

pub(crate) fn is_1290(error: &Error, why: &str) -> bool {
    matches!(error, Error::Server(told) if told.code == 1290 && told.message.contains(why))
}

#[tokio::test]
async fn a_killed_pointsman_is_replaced_and_the_next_one_replaces_a_dead_primary() {
    if !has_etcd() || !servers::present(Flavour::Mariadb) {
        return;
    }
    let (_etcd, cluster, mut proxies) = several(3, "").await;
    let first = leader(&proxies).await;
    let killed = proxies.remove(first);
    let ledger = Ledger::open(&cluster, &proxies.iter().collect::<Vec<_>>()).await;
    ledger.more(50).await;
    killed.signal(Signal::KILL);
    let next = leader(&proxies).await;
    wait_safe(&cluster, &proxies[next]).await;
    // No one else has noticed.
    ledger.more(50).await;
    let [unknown, denied] = ledger.told().since(&Told::default());
    assert!(unknown.is_empty() && denied.is_empty(), "{unknown:?} {denied:?}");
    loses_its_primary(&cluster, &proxies, ledger).await;
}

#[tokio::test]
async fn a_frozen_pointsman_is_replaced_and_does_nothing_when_it_thaws() {
    if !has_etcd() || !servers::present(Flavour::Mariadb) {
        return;
    }
    let (_etcd, cluster, mut proxies) = several(3, "").await;
    make_marks(&cluster).await;
    let first = leader(&proxies).await;
    let frozen = proxies.remove(first);
    let mut ledger = Ledger::open(&cluster, &proxies.iter().collect::<Vec<_>>()).await;
    let mut late = connected(&frozen).await;
    late.query_drop("INSERT INTO marks VALUES ('early')").await.expect("it is answered");
    ledger.more(50).await;
    stop(&frozen).await;
    // It lies in the socket of one that does not run.
    let late = insert(late, "late");
    let dead = cluster.primary().expect("a primary");
    cluster.kill(&dead.name).await.expect("it is killed");
    ledger.more(100).await;
    let next = leader(&proxies).await;
    let at = epoch(&proxies[next]);
    frozen.signal(Signal::CONT);
    late.await.expect("a task").expect("it waits for the new primary and is answered");
    wait::until("it to know what has happened", || async { (epoch(&frozen) == at).then_some(()) })
        .await;
    assert_eq!(frozen.metric("pointsman_cluster_leader", &[]), 0.0);
    assert_eq!(leader(&proxies).await, next);
    assert_eq!(epoch(&proxies[next]), at, "nothing was changed by who woke up");
    ledger.more(20).await;
    ledger.close().await;
    let heads = writable(&cluster).await;
    let [head] = heads.as_slice() else { panic!("{heads:?}") };
    assert_ne!(head.name, dead.name);
    assert!(marked(&cluster, "late").await.contains(&head.name));
    ledger.check(&heads).await;
}

/// What comes to one that was stopped for longer than its lease is not sent to a primary, be that
/// alive and writable, as long as nobody can say who is.
#[tokio::test]
async fn a_pointsman_that_wakes_up_sends_nothing_on_an_expired_lease() {
    if !has_etcd() || !servers::present(Flavour::Mariadb) {
        return;
    }
    let (etcd, cluster, proxies) = several(1, "hold = \"1s\"").await;
    make_marks(&cluster).await;
    let [proxy] = proxies.as_slice() else { panic!("one") };
    let mut early = connected(proxy).await;
    early.query_drop("INSERT INTO marks VALUES ('early')").await.expect("it is answered");
    let mut open = connected(proxy).await;
    open.query_drop("BEGIN").await.expect("a transaction");
    open.query_drop("INSERT INTO marks VALUES ('open')").await.expect("it is answered");
    stop(proxy).await;
    etcd.members[0].signal(Signal::STOP);
    let late = insert(early, "late");
    let commit = tasks::spawn("commit", async move { open.query_drop("COMMIT").await });
    let begun = std::time::Instant::now();
    wait::until("the lease to end", || async {
        (begun.elapsed() > std::time::Duration::from_secs(4)).then_some(())
    })
    .await;
    proxy.signal(Signal::CONT);
    let refused = late.await.expect("a task").expect_err("no lease");
    assert!(is_1290(&refused, "has lost its lease in etcd"), "{refused}");
    let refused = commit.await.expect("a task").expect_err("no lease");
    println!("a COMMIT without a lease: {refused}");
    assert!(marked(&cluster, "late").await.is_empty());
    assert!(marked(&cluster, "open").await.is_empty());
    etcd.members[0].signal(Signal::CONT);
    writes(proxy).await;
    assert!(marked(&cluster, "late").await.is_empty());
}

#[tokio::test]
async fn without_etcd_writes_stop_and_reads_go_on() {
    if !has_etcd() || !servers::present(Flavour::Mariadb) {
        return;
    }
    let (mut etcd, cluster, proxies) = several(2, "hold = \"1s\"").await;
    make_marks(&cluster).await;
    for proxy in &proxies {
        writes(proxy).await;
    }
    let before = epoch(&proxies[0]);
    let mut conns = Vec::new();
    for proxy in &proxies {
        conns.push((connected(proxy).await, connected(proxy).await));
    }
    etcd.members[0].kill();
    for (proxy, (conn, reader)) in proxies.iter().zip(&mut conns) {
        let begun = std::time::Instant::now();
        let refused = loop {
            match conn.query_drop("INSERT INTO marks VALUES ('refused')").await {
                Ok(()) => assert!(begun.elapsed() < wait::PATIENCE, "the lease does not end"),
                Err(refused) => break refused,
            }
        };
        assert!(is_1290(&refused, "has lost its lease in etcd"), "{refused}");
        assert_eq!(proxy.metric("pointsman_cluster_lease_seconds", &[]), 0.0);
        let read: Option<u64> =
            reader.query_first("SELECT COUNT(*) FROM marks").await.expect("a replica answers");
        assert!(read.is_some_and(|rows| rows > 0));
    }
    etcd.members[0].start_again();
    for proxy in &proxies {
        writes(proxy).await;
    }
    let leader = leader(&proxies).await;
    assert_eq!(epoch(&proxies[leader]), before, "nothing has changed meanwhile");
}
