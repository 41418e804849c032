//! The store that several pointsman share.

use std::sync::Arc;
use std::time::Duration;

use super::{Reader, SECOND};
use crate::config::cluster::{Cluster, EtcdAccount, EtcdTls};
use crate::config::raw::{self, OneOrMany, Scalar};
use crate::config::{Group, address};

/// What a member of etcd may look like, for refusals.
const ENDPOINT_FORM: &str =
    "\"http://host:port\" or \"https://host:port\", one for each member of etcd";

/// What is missing where neither is named.
const NOTHING_FORM: &str = "\"http://host:port\" or \"https://host:port\", one for each member of \
                            etcd; or cluster.locks = true, to agree by locks on the servers";

impl Reader<'_> {
    pub(super) fn cluster(&mut self, raw: &raw::Cluster) -> Cluster {
        let locks = self.flag("cluster.locks", raw.locks.as_ref());
        if locks {
            self.refuse_etcd(raw);
        }
        let etcd = if locks { Vec::new() } else { self.endpoints(raw) };
        let name = self.text("cluster.name", raw.name.as_ref(), Cluster::NAME);
        let id = raw.id.as_ref().map(|id| self.text("cluster.id", Some(id), "pointsman"));
        for (key, value) in [("cluster.name", Some(&name)), ("cluster.id", id.as_ref())] {
            if let Some(value) = value.filter(|value| !address::is_name(value)) {
                self.refuse(key, format!("{value:?}"), address::NAME_FORM);
            }
        }
        Cluster {
            account: if locks { None } else { self.etcd_account(raw) },
            tls: if locks { None } else { self.etcd_tls(raw, &etcd) },
            lease: self.lease(raw.lease.as_ref()),
            etcd,
            locks,
            name,
            id,
        }
    }

    /// What a group lacks that several pointsman keep.
    pub(super) fn shared_groups(&mut self, cluster: Option<&Cluster>, groups: &[Arc<Group>]) {
        let groups = groups.iter().filter(|_| cluster.is_some());
        for group in groups.filter(|group| group.failover.mode.keeps()) {
            if group.failover.replication.is_none() {
                let key = format!("groups.{}.failover.replication_user", group.name);
                let allowed = "the account by which servers replicate, the same for every \
                               pointsman of the [cluster]: none is made there";
                self.refuse(key, "nothing", allowed);
            }
            if cluster.is_some_and(|cluster| cluster.locks) && group.servers.is_empty() {
                let key = format!("groups.{}.servers", group.name);
                let allowed = "all servers of the group, the same list for every pointsman of the \
                               [cluster]: with cluster.locks a majority of them decides";
                self.refuse(key, "nothing", allowed);
            }
        }
    }

    /// What is of use with etcd only, where the servers' locks are what is agreed by.
    fn refuse_etcd(&mut self, raw: &raw::Cluster) {
        let given = [
            ("cluster.etcd", raw.etcd.is_some()),
            ("cluster.user", raw.user.is_some()),
            ("cluster.password", raw.password.is_some()),
            ("cluster.password_file", raw.password_file.is_some()),
            ("cluster.tls_ca", raw.tls_ca.is_some()),
            ("cluster.tls_certificate", raw.tls_certificate.is_some()),
            ("cluster.tls_key", raw.tls_key.is_some()),
        ];
        for (key, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
            let allowed = "either etcd, with what belongs to it, or cluster.locks = true";
            self.refuse(key, "beside cluster.locks = true", allowed);
        }
    }

    fn endpoints(&mut self, raw: &raw::Cluster) -> Vec<String> {
        let mut found = Vec::new();
        for value in raw.etcd.iter().flat_map(OneOrMany::values) {
            match value {
                Scalar::Text(text) if is_endpoint(text) => found.push(text.clone()),
                other => self.refuse("cluster.etcd", other.to_string(), ENDPOINT_FORM),
            }
        }
        if raw.etcd.as_ref().is_none_or(|list| list.values().is_empty()) {
            self.refuse("cluster.etcd", "nothing", NOTHING_FORM);
        }
        found
    }

    /// Etcd counts in seconds, and so do servers.
    fn lease(&mut self, value: Option<&Scalar>) -> Duration {
        let lease = self.duration("cluster.lease", value, 3 * SECOND..=60 * SECOND, Cluster::LEASE);
        if lease.subsec_nanos() > 0 {
            let shown = value.map(Scalar::to_string).unwrap_or_default();
            self.refuse("cluster.lease", shown, "whole seconds, as etcd and the servers count");
        }
        lease
    }

    /// Both a name and a password, or neither.
    fn etcd_account(&mut self, raw: &raw::Cluster) -> Option<EtcdAccount> {
        let given = (raw.password.as_ref(), raw.password_file.as_ref());
        let stated = given.0.is_some() || given.1.is_some();
        let password = self.password("cluster.password", given);
        match (&raw.user, stated) {
            (None, false) => None,
            (None, true) => {
                self.refuse("cluster.password", "(hidden)", "needs cluster.user beside it");
                None
            }
            (Some(user), false) => {
                let needs = "needs cluster.password or cluster.password_file beside it";
                self.refuse("cluster.user", user.to_string(), needs);
                None
            }
            (Some(_), true) => {
                let user = self.text("cluster.user", raw.user.as_ref(), "");
                Some(EtcdAccount { user, password: password? })
            }
        }
    }

    /// What is said in TLS is said to all, and believed by an authority that is named.
    fn etcd_tls(&mut self, raw: &raw::Cluster, etcd: &[String]) -> Option<EtcdTls> {
        let ca = self.file("cluster.tls_ca", raw.tls_ca.as_ref());
        let certificate = self.file("cluster.tls_certificate", raw.tls_certificate.as_ref());
        let key = self.file("cluster.tls_key", raw.tls_key.as_ref());
        self.both("cluster.tls_certificate", "cluster.tls_key", &certificate, &key);
        let in_clear = etcd.iter().find(|at| !at.starts_with("https://"));
        let in_tls = etcd.iter().find(|at| at.starts_with("https://"));
        match (in_clear, in_tls, ca) {
            (Some(at), Some(_), _) => {
                let allowed = "all of them by http or all of them by https";
                self.refuse("cluster.etcd", format!("{at:?} beside https"), allowed);
                None
            }
            (Some(at), None, ca) => {
                if ca.is_some() || certificate.is_some() {
                    let allowed = "https, where cluster.tls_ca or cluster.tls_certificate is given";
                    self.refuse("cluster.etcd", format!("{at:?}"), allowed);
                }
                None
            }
            (None, Some(_), None) => {
                let allowed = "the file with the authority of etcd's certificates, for https";
                self.refuse("cluster.tls_ca", "nothing", allowed);
                None
            }
            (None, Some(_), Some(ca)) => Some(EtcdTls { ca, identity: certificate.zip(key) }),
            (None, None, _) => None,
        }
    }
}

fn is_endpoint(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.starts_with('/') && address::is_server(rest))
}
