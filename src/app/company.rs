//! How this process meets other pointsman: in etcd, or by the servers' locks.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::{StartError, part, tasks};
use crate::cluster::agent::Agent;
use crate::cluster::desk::Desk;
use crate::cluster::etcd::Etcd;
use crate::cluster::locks::Parliament;
use crate::cluster::tally::Elector;
use crate::config::cluster::Cluster;
use crate::config::{Config, Group, Server};
use crate::failover::keeper::Settings;
use crate::failover::voter::{LiveVoter, LockNames};
use crate::tls::trust::Trust;

/// Why servers that are so few are not enough.
const TOO_FEW: &str = "with cluster.locks a majority of all servers decides, which one of two is \
                       not; put a third server beside them, or use etcd";

/// Where the keepers of all groups meet others.
pub(super) struct Company<'a> {
    cluster: Option<&'a Cluster>,
    id: String,
    /// In etcd, one for each group that has none yet.
    desks: std::vec::IntoIter<Desk>,
    stopped: watch::Receiver<bool>,
    /// What has been started for it.
    pub(super) tasks: Vec<JoinHandle<()>>,
}

impl<'a> Company<'a> {
    /// Starts to take part in a cluster, if there is one.
    pub(super) fn join(
        config: &'a Config,
        stopped: &watch::Receiver<bool>,
    ) -> Result<Self, StartError> {
        let cluster = config.boot.cluster.as_ref();
        let id = cluster.and_then(|cluster| cluster.id.clone());
        let mut company = Self {
            cluster,
            id: id.unwrap_or_else(|| own_name(config)),
            desks: Vec::new().into_iter(),
            stopped: stopped.clone(),
            tasks: Vec::new(),
        };
        if let Some(cluster) = cluster.filter(|cluster| !cluster.locks) {
            let store = Etcd::new(cluster).map_err(|error| part("TLS to etcd", &error))?;
            let groups: Vec<Arc<str>> =
                config.groups.iter().map(|group| group.name.clone()).collect();
            let (agent, desks) = Agent::new(store, company.id.clone(), cluster.lease, &groups);
            company.tasks.push(tasks::spawn("cluster", agent.run(stopped.clone())));
            company.desks = desks.into_iter();
        }
        Ok(company)
    }

    /// Where the keeper of the next group meets others; `None` where it is alone.
    pub(super) fn desk(
        &mut self,
        group: &Group,
        settings: &Arc<ArcSwap<Settings>>,
        trust: &Arc<ArcSwap<Trust>>,
    ) -> Option<Desk> {
        let Some(cluster) = self.cluster.filter(|cluster| cluster.locks) else {
            return self.desks.next();
        };
        let names = LockNames::of(&cluster.name, &group.name);
        let voter = |server: &Server| {
            let (name, address) = (server.name.to_string(), server.address.to_string());
            let place = (server.name.clone(), server.address.clone());
            let (settings, trust) = (settings.clone(), trust.clone());
            let voter = LiveVoter::new(place, settings, trust, names.clone(), cluster.lease);
            (Elector { name, address }, voter)
        };
        if group.failover.mode.keeps() && group.servers.len() < 3 {
            let (group, servers) = (&*group.name, group.servers.len());
            tracing::warn!(group, servers, "no failover is possible: {TOO_FEW}");
        }
        let voters = group.servers.iter().map(voter).collect();
        // Another one in each process.
        let chance = RandomState::new().hash_one(std::process::id());
        let (id, name) = (self.id.clone(), group.name.clone());
        let (parliament, desk) = Parliament::new(id, cluster.lease, name, voters, chance);
        self.tasks.push(tasks::spawn("cluster", parliament.run(self.stopped.clone())));
        Some(desk)
    }
}

/// What this pointsman is called where nobody says: its host, and where it listens first.
fn own_name(config: &Config) -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let listens = config.groups.iter().flat_map(|group| &group.listen).next();
    listens.map_or_else(|| host.to_string(), |address| format!("{host}/{address}"))
}
