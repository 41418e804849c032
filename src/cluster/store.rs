//! What is needed of a store in which several agree. Etcd is one ([`super::etcd`]); tests have
//! another, in memory.

use std::time::Duration;

/// Why a question to the store has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The lease does not exist any more, and nothing that was bound to it.
    #[error("the lease has expired")]
    LeaseGone,
    /// The store did not answer, or not as it should. A change may have been made or not.
    #[error("{0}")]
    NoAnswer(String),
}

/// One key as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key, without the prefix of the cluster.
    pub key: String,
    /// What stands there.
    pub value: String,
    /// The revision that has made the key.
    pub created: i64,
    /// The revision that has changed it last.
    pub changed: i64,
    /// The lease with which it ends; 0 for none.
    pub lease: i64,
}

/// All keys of the cluster as they were at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Counts all changes of the store.
    pub revision: i64,
    /// The keys, in order.
    pub entries: Vec<Entry>,
}

/// A change that is made if every condition holds, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The conditions.
    pub only_if: Vec<Condition>,
    /// The key, without the prefix of the cluster.
    pub key: String,
    /// What is to stand there; `None` deletes the key.
    pub value: Option<String>,
    /// The lease with which it ends; 0 for none.
    pub lease: i64,
}

/// What must hold for a change to be made. A key that is not there has the revision 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The key was made by this revision.
    Created(String, i64),
    /// The key was changed last by this revision.
    Changed(String, i64),
}

/// A store. Every answer is as new as the question.
pub trait Store: Send + 'static {
    /// The time, as [`super::lease::boot_time`].
    fn now(&self) -> Duration;

    /// A new lease that ends so long after its last renewal.
    fn grant(&mut self, ttl: Duration) -> impl Future<Output = Result<i64, StoreError>> + Send;

    /// Renews a lease.
    fn renew(&mut self, lease: i64) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Ends a lease.
    fn revoke(&mut self, lease: i64) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads all keys of the cluster.
    fn read(&mut self) -> impl Future<Output = Result<Snapshot, StoreError>> + Send;

    /// Makes a change, and answers the revision that has made it; `None` where a condition does
    /// not hold.
    fn change(
        &mut self,
        change: Change,
    ) -> impl Future<Output = Result<Option<i64>, StoreError>> + Send;

    /// Waits until a key of the cluster may have changed. It may wait in vain: who must know looks
    /// by itself now and then. Nothing is lost when the wait is given up.
    fn rung(&mut self) -> impl Future<Output = ()> + Send;

    /// This member of the store does not answer: the next one is asked.
    fn move_on(&mut self);
}
