//! What a keeper must know of a group after a restart: who is the primary, whose acknowledgements
//! its commits may have, and which step of a failover was begun.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What is known of a group whatever its servers say. Servers stand in it by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Rises with every primary.
    pub epoch: u64,
    /// Who takes the writes; `None` before that is known.
    pub primary: Option<String>,
    /// The servers that have been seen to belong to the group. All but the primary may have
    /// acknowledged a commit: of a failover that loses nothing each of them must be asked.
    pub members: BTreeSet<String>,
    /// When the primary was last looked at, no commit could be acknowledged without a replica.
    pub lossless: bool,
    /// When the primary was last seen to be well, seconds since 1970; up to a minute too early.
    pub well_at: u64,
    /// The failover that was begun and is not over.
    pub operation: Option<Operation>,
    /// When the last failover was over, seconds since 1970.
    pub failed_over_at: Option<u64>,
}

/// A failover on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The primary that has failed.
    pub failed: String,
    /// How far it is.
    pub stage: Stage,
    /// Who is to be the primary.
    pub heir: Option<String>,
    /// What the heir had received when nobody could receive any more.
    pub wanted: String,
}

/// The stages of a failover, each begun only after it was written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The replicas are kept from receiving, so that the failed primary can commit nothing more.
    Revoke,
    /// The heir applies all that it has received.
    Drain,
    /// The heir is told what a primary must be, and the others follow it.
    Establish,
    /// The heir is the primary, and begins to take writes.
    Open,
}

impl Operation {
    /// A failover from this primary, from its beginning.
    #[must_use]
    pub fn begin(failed: &str) -> Self {
        Self { failed: failed.to_owned(), stage: Stage::Revoke, heir: None, wanted: String::new() }
    }
}

impl Stage {
    /// The word for operators.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Revoke => "keeping the replicas from receiving",
            Self::Drain => "applying what was received",
            Self::Establish => "turning the replicas to the new primary",
            Self::Open => "opening the new primary for writes",
        }
    }
}
