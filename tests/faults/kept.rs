//! Groups that a proxy keeps, and what is looked at in them.

use mysql_async::prelude::Queryable as _;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{self, APP, KEEPER, ROOT};
use pointsman::provider::server::Server;
use pointsman::provider::{Flavour, Host};

use crate::console::console;
use crate::proxy::{Proxy, configuration_with};
use crate::{clients, servers, wait};

/// What a keeper may not set on MariaDB without SUPER.
pub(crate) const DURABLE: &[&str] = &["--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1"];

/// A primary and two replicas, and a proxy in front of them that keeps them and has seen that a
/// failover would lose nothing. `failover` is further TOML.
pub(crate) async fn kept(flavour: Flavour, failover: &str) -> (Cluster, Proxy) {
    kept_in("auto", flavour, failover).await
}

/// The same in another mode.
pub(crate) async fn kept_in(mode: &str, flavour: Flavour, failover: &str) -> (Cluster, Proxy) {
    let cluster = prepared(flavour).await;
    let group = format!("[groups.main.failover]\nmode = \"{mode}\"\n{failover}");
    let proxy = in_front_of(&cluster, &group).await;
    (cluster, proxy)
}

/// A primary and two replicas with an account for the keeper.
pub(crate) async fn prepared(flavour: Flavour) -> Cluster {
    prepared_on(flavour, Vec::new()).await
}

/// The same, on these hosts.
pub(crate) async fn prepared_on(flavour: Flavour, hosts: Vec<Host>) -> Cluster {
    prepared_with(flavour, hosts, &[]).await
}

/// The same, with further server options.
pub(crate) async fn prepared_with(flavour: Flavour, hosts: Vec<Host>, options: &[&str]) -> Cluster {
    let options: Vec<&str> = DURABLE.iter().chain(options).copied().collect();
    let cluster = servers::own_on(flavour, 2, &options, hosts).await;
    cluster.wait_acknowledging(2).await.expect("two replicas acknowledge");
    let account = replication::keeper_account(flavour);
    cluster.primary().expect("a primary").run(&account).await.expect("the keeper's account");
    cluster.wait_caught_up().await.expect("replicas have it");
    cluster
}

/// A proxy with these settings of the group, which has seen that it is safe.
pub(crate) async fn in_front_of(cluster: &Cluster, group: &str) -> Proxy {
    in_front_on(Host::default(), cluster, "timeout = \"500ms\"", group).await
}

/// The same, on this host, with these settings of what observes the group.
pub(crate) async fn in_front_on(
    host: Host,
    cluster: &Cluster,
    monitor: &str,
    group: &str,
) -> Proxy {
    let seed = cluster.primary().expect("a primary").address();
    let config = configuration_with(KEEPER, monitor, &[&seed], group);
    let proxy = Proxy::with_config_on(host, &config).await.unwrap_or_else(|why| panic!("{why}"));
    wait_safe(cluster, &proxy).await;
    proxy
}

/// What SHOW CLUSTER says: the mode, and what the keeper does.
pub(crate) async fn standing(proxy: &Proxy) -> (String, String) {
    let answer = console(proxy, "SHOW CLUSTER").await;
    let cells: Vec<&str> = answer.split('\t').collect();
    let of = |subject: &str| cells.chunks_exact(5).find(|row| row[2] == subject);
    let mode = of("mode").map_or("", |row| row[3]).to_owned();
    let keeper = of("keeper").map_or("", |row| row[4]).to_owned();
    (mode, keeper)
}

/// Waits until all servers have been up for this many seconds, as they tell it, in whole ones.
pub(crate) async fn wait_old(cluster: &Cluster, seconds: u64) {
    for server in cluster.servers() {
        wait::until("a server to have been up for a while", || async {
            let uptime = servers::status_if_told(server, cluster.flavour(), "UPTIME").await?;
            uptime.parse::<u64>().is_ok_and(|uptime| uptime >= seconds).then_some(())
        })
        .await;
    }
}

/// Waits until a failover would lose nothing, and the keeper has seen it. A server that has just
/// been started may have forgotten what it had received: the keeper must have seen it live.
pub(crate) async fn wait_safe(cluster: &Cluster, proxy: &Proxy) {
    wait_old(cluster, 3).await;
    wait::until("the group to be safe", || async {
        let (mode, keeper) = standing(proxy).await;
        (mode == "safe" && keeper.ends_with("takes the writes")).then_some(())
    })
    .await;
}

/// The server that takes the writes, by its own word.
pub(crate) async fn writable(cluster: &Cluster) -> Vec<&Server> {
    let mut found = Vec::new();
    for server in cluster.servers() {
        if server.ask("SELECT @@global.read_only").await.is_ok_and(|value| value == "0") {
            found.push(server);
        }
    }
    found
}

/// Whether a server receives from the one at this port.
pub(crate) async fn follows(flavour: Flavour, server: &Server, port: u16) -> bool {
    source(flavour, server).await == Some((port, true))
}

/// The port of the server from which one replicates, and whether it receives.
pub(crate) async fn source(flavour: Flavour, server: &Server) -> Option<(u16, bool)> {
    let (status, from, receiving) = match flavour {
        Flavour::Mariadb => ("SHOW SLAVE STATUS", "Master_Port", "Slave_IO_Running"),
        Flavour::Mysql => ("SHOW REPLICA STATUS", "Source_Port", "Replica_IO_Running"),
    };
    let mut conn = mysql_async::Conn::new(server.opts(ROOT)).await.ok()?;
    let row: mysql_async::Row = conn.query_first(status).await.ok()??;
    Some((row.get(from)?, row.get::<String, _>(receiving)? == "Yes"))
}

/// Logs every account in once: a server of MySQL that knows one since its start needs no secret
/// channel for it.
pub(crate) async fn make_known(cluster: &Cluster) {
    for (server, account) in cluster.servers().iter().flat_map(|at| [(at, KEEPER), (at, APP)]) {
        let conn = clients::connect_bare(server.at(), account).await;
        conn.disconnect().await.expect("a goodbye");
    }
}

/// How often the primary was changed.
pub(crate) fn epoch(proxy: &Proxy) -> f64 {
    proxy.metric("pointsman_keeper_epoch", &[])
}
