//! Etcd as the store.
//!
//! One member is spoken to at a time, and the next one when it does not answer: each question has a
//! bound of its own then, however many members hang.

use std::io;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, Identity,
    TlsOptions, Txn, TxnOp, WatchOptions, WatchStream,
};
use tokio::time::timeout;

use crate::cluster::lease;
use crate::cluster::store::{Change, Condition, Entry, Snapshot, Store, StoreError};
use crate::config::cluster::Cluster;

/// The members of one etcd.
pub struct Etcd {
    members: Vec<String>,
    /// Whose turn it is.
    at: usize,
    options: ConnectOptions,
    /// With its `/`.
    prefix: String,
    /// How long one question may take.
    patience: Duration,
    client: Option<Client>,
    watch: Option<WatchStream>,
}

impl Etcd {
    /// The store of this cluster; nothing is asked yet.
    ///
    /// # Errors
    /// When a file of the TLS settings cannot be read.
    pub fn new(cluster: &Cluster) -> io::Result<Self> {
        // A member that hangs must not cost the lease: the next one is asked in time.
        let patience = cluster.lease / 4;
        let mut options =
            ConnectOptions::new().with_connect_timeout(patience).with_require_leader(true);
        if let Some(account) = &cluster.account {
            options = options
                .with_user(account.user.clone(), account.password.reveal())
                .with_auto_token_refresh(true);
        }
        if let Some(tls) = &cluster.tls {
            let ca = Certificate::from_pem(std::fs::read(&tls.ca)?);
            let mut trust = TlsOptions::new().ca_certificate(ca);
            if let Some((certificate, key)) = &tls.identity {
                let (certificate, key) = (std::fs::read(certificate)?, std::fs::read(key)?);
                trust = trust.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(trust);
        }
        Ok(Self {
            members: cluster.etcd.clone(),
            at: 0,
            options,
            prefix: format!("{}/", cluster.name),
            patience,
            client: None,
            watch: None,
        })
    }

    /// Asks the member whose turn it is.
    async fn ask<T, F>(
        &mut self,
        question: impl FnOnce(Client) -> F + Send,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        let member = self.members.get(self.at).cloned().unwrap_or_default();
        let told = |error: Error| match error {
            Error::LeaseKeepAliveError(_) => StoreError::LeaseGone,
            error if is_lease_gone(&error) => StoreError::LeaseGone,
            error => StoreError::NoAnswer(format!("etcd at {member}: {error}")),
        };
        let options = self.options.clone();
        let (known, at) = (self.client.clone(), member.as_str());
        let asked = timeout(self.patience, async move {
            let client = match known {
                Some(client) => client,
                None => Client::connect([at], Some(options)).await?,
            };
            Ok::<_, Error>((question(client.clone()).await, client))
        });
        match asked.await {
            Ok(Ok((answer, client))) => {
                self.client = Some(client);
                answer.map_err(told)
            }
            Ok(Err(error)) => Err(told(error)),
            Err(_) => Err(StoreError::NoAnswer(format!("etcd at {member} does not answer"))),
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn entry(&self, found: &etcd_client::KeyValue) -> Option<Entry> {
        Some(Entry {
            key: found.key_str().ok()?.strip_prefix(&self.prefix)?.to_owned(),
            value: found.value_str().ok()?.to_owned(),
            created: found.create_revision(),
            changed: found.mod_revision(),
            lease: found.lease(),
        })
    }
}

impl Store for Etcd {
    fn now(&self) -> Duration {
        lease::boot_time()
    }

    async fn grant(&mut self, ttl: Duration) -> Result<i64, StoreError> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let granted =
            self.ask(|mut client| async move { client.lease_grant(seconds, None).await }).await?;
        if granted.ttl() < seconds {
            let shorter = format!("etcd grants {} s in place of {seconds}", granted.ttl());
            return Err(StoreError::NoAnswer(shorter));
        }
        Ok(granted.id())
    }

    async fn renew(&mut self, lease: i64) -> Result<(), StoreError> {
        // A stream for each: an answer that comes late is never taken for that to a later one.
        self.ask(|mut client| async move { client.lease_keep_alive(lease).await.map(|_| ()) }).await
    }

    async fn revoke(&mut self, lease: i64) -> Result<(), StoreError> {
        self.ask(|mut client| async move { client.lease_revoke(lease).await.map(|_| ()) }).await
    }

    async fn read(&mut self) -> Result<Snapshot, StoreError> {
        let (prefix, watches) = (self.prefix.clone(), self.watch.is_some());
        let (watch, found) = self
            .ask(|mut client| async move {
                let all = Some(WatchOptions::new().with_prefix());
                let watch =
                    if watches { None } else { Some(client.watch(prefix.clone(), all).await?) };
                let all = Some(GetOptions::new().with_prefix());
                Ok((watch, client.get(prefix, all).await?))
            })
            .await?;
        if watch.is_some() {
            self.watch = watch;
        }
        let revision = found.header().map_or(0, |header| header.revision());
        let entries = found.kvs().iter().filter_map(|found| self.entry(found)).collect();
        Ok(Snapshot { revision, entries })
    }

    async fn change(&mut self, change: Change) -> Result<Option<i64>, StoreError> {
        let only_if: Vec<Compare> = change
            .only_if
            .iter()
            .map(|condition| match condition {
                Condition::Created(key, revision) => {
                    Compare::create_revision(self.key(key), CompareOp::Equal, *revision)
                }
                Condition::Changed(key, revision) => {
                    Compare::mod_revision(self.key(key), CompareOp::Equal, *revision)
                }
            })
            .collect();
        let key = self.key(&change.key);
        let done = match change.value {
            Some(value) => {
                let lease = etcd_client::PutOptions::new().with_lease(change.lease);
                TxnOp::put(key, value, Some(lease))
            }
            None => TxnOp::delete(key, None),
        };
        let txn = Txn::new().when(only_if).and_then([done]);
        let answer = self.ask(|mut client| async move { client.txn(txn).await }).await?;
        let revision = answer.header().map(|header| header.revision());
        Ok(revision.filter(|_| answer.succeeded()))
    }

    async fn rung(&mut self) {
        let Some(watch) = self.watch.as_mut() else { return std::future::pending().await };
        if !matches!(watch.message().await, Ok(Some(told)) if !told.canceled()) {
            // Made anew by the next look; until then nobody rings.
            self.watch = None;
            std::future::pending::<()>().await;
        }
    }

    fn move_on(&mut self) {
        (self.client, self.watch) = (None, None);
        self.at = (self.at + 1) % self.members.len().max(1);
    }
}

/// Etcd says so by a status with this text.
fn is_lease_gone(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("lease not found"))
}
