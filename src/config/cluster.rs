//! By what several pointsman in front of the same servers agree, as the operator asks for it.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::units::Secret;

/// What is shared with other pointsman, and who this one is among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The members of etcd, each `http://host:port` or `https://host:port`; none where the servers
    /// of a group are what is agreed by.
    pub etcd: Vec<String>,
    /// They agree by locks on the servers of each group, and have no etcd.
    pub locks: bool,
    /// What keys in etcd and names of locks begin with, so that several clusters can share them.
    pub name: String,
    /// What this pointsman is called; `None` means by its host and its first listener.
    pub id: Option<String>,
    /// The account at etcd; `None` where it asks for none.
    pub account: Option<EtcdAccount>,
    /// TLS towards etcd; `None` where it is spoken to in clear text.
    pub tls: Option<EtcdTls>,
    /// How long what this pointsman holds outlives its last sign of life: whole seconds.
    pub lease: Duration,
}

/// An account at etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdAccount {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// TLS towards etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdTls {
    /// File with the authorities of etcd's certificates, PEM.
    pub ca: PathBuf,
    /// Files with the certificate that is shown to etcd and its key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Cluster {
    /// The lease where the file does not say otherwise.
    pub const LEASE: Duration = Duration::from_secs(3);
    /// The name where the file does not say otherwise.
    pub const NAME: &str = "pointsman";
}
