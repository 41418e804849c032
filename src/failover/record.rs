//! What a keeper must know of a group after a restart: who is the primary, whose acknowledgements
//! its commits may have, and which step of a failover was begun.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What is known of a group whatever its servers say. Servers stand in it by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Rises with every primary.
    pub epoch: u64,
    /// Who takes the writes; `None` before that is known.
    pub primary: Option<String>,
    /// The servers that have been seen to belong to the group. All but the primary may have
    /// acknowledged a commit: of a failover that loses nothing each of them must be asked. Whoever
    /// can acknowledge stands here before it can, and until it cannot any more.
    pub members: BTreeSet<String>,
    /// When the primary was last looked at, no commit could be acknowledged without a replica.
    pub lossless: bool,
    /// When the primary was last seen to be well, seconds since 1970; up to a minute too early.
    pub well_at: u64,
    /// The change of the primary that was begun and is not over.
    pub operation: Option<Operation>,
    /// The primary was made read-only by the keeper itself, which opens it again unless another
    /// server takes its place.
    #[serde(default)]
    pub closed: bool,
    /// What the primary had when it became that, as far as it may have been acknowledged, or when
    /// a replica had been started anew, which has deleted what it had acknowledged: nobody who
    /// lacks any of it takes its place. Those that follow it may still have to fetch it.
    #[serde(default)]
    pub floor: String,
    /// Who was told to take no writes and has not answered, and when, seconds since 1970: it may
    /// do so yet, as when that waits for commits, or the server was frozen.
    #[serde(default)]
    pub unanswered: BTreeMap<String, u64>,
    /// When each replica had been started, by its own clock in seconds since 1970, when it was last
    /// noted what it has to fetch again of what it may have deleted; none of one that may be about
    /// to delete something.
    #[serde(default)]
    pub lives: BTreeMap<String, u64>,
    /// When the last failover was over, seconds since 1970.
    pub failed_over_at: Option<u64>,
    /// An operator works on the group: no failover but by his word, and nothing is set up.
    #[serde(default)]
    pub maintenance: bool,
    /// The events that ran on the primary when it was last looked at, by their names in statements:
    /// another one lets these run, and no others.
    #[serde(default)]
    pub events: BTreeSet<String>,
    /// Who is kept from receiving while a primary that was started anew is looked at, and is to
    /// receive again: the only ones who are told anything while an operator works on the group.
    #[serde(default)]
    pub cut_off: BTreeSet<String>,
    /// By which accounts servers could log in at the primary, as far as was seen.
    #[serde(default)]
    pub accounts: BTreeMap<String, BTreeSet<String>>,
    /// Who is kept from acknowledging, by which accounts, locked on the primary before it is open.
    /// Those that are no members are evicted; the others are on their way out, or back.
    #[serde(default)]
    pub locked: BTreeMap<String, BTreeSet<String>>,
    /// Up to where those had received that apply what a restart has left in their relay logs, and
    /// have nothing there afterwards that would tell. Forgotten before any of them receives again;
    /// empty for one that did not answer when a primary was opened, which may have.
    #[serde(default)]
    pub rescued: BTreeMap<String, String>,
}

/// A change of the primary on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Why the primary changes.
    #[serde(default)]
    pub kind: Kind,
    /// The primary that has failed, or that hands over.
    #[serde(alias = "failed")]
    pub former: String,
    /// How far it is.
    pub stage: Stage,
    /// Who is to be the primary.
    pub heir: Option<String>,
    /// What the heir had received when nobody could receive any more; in a switchover, what the
    /// former primary had executed when it took no more writes.
    pub wanted: String,
}

/// Why the primary changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// It is dead. With the former primary as its own heir: it is only opened again.
    #[default]
    Failover,
    /// It is well, and an operator wants another one.
    Switchover,
}

/// The stages of a change of the primary, each begun only after it was written down. A failover
/// begins with [`Stage::Revoke`], a switchover with [`Stage::Hold`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// New transactions wait, those that run come to their end.
    Hold,
    /// The primary takes no more writes.
    Close,
    /// The replicas are kept from receiving, so that the failed primary can commit nothing more.
    Revoke,
    /// The heir applies all that it has received.
    Drain,
    /// The heir is told what a primary must be, and the others follow it.
    Establish,
    /// The heir is the primary, and begins to take writes.
    Open,
}

impl Record {
    /// Whether this server is evicted: it cannot acknowledge, and nobody needs to ask it.
    #[must_use]
    pub fn is_evicted(&self, server: &str) -> bool {
        self.locked.contains_key(server) && !self.members.contains(server)
    }

    /// Those that are evicted.
    pub fn evicted(&self) -> impl Iterator<Item = &String> {
        self.locked.keys().filter(|server| self.is_evicted(server))
    }

    /// The accounts by which nobody may log in at a primary.
    #[must_use]
    pub fn barred(&self) -> BTreeSet<String> {
        let evicted = self.locked.iter().filter(|(server, _)| !self.members.contains(*server));
        let mut barred: BTreeSet<String> =
            evicted.flat_map(|(_, users)| users.iter().cloned()).collect();
        let members = self.accounts.iter().filter(|(server, _)| self.members.contains(*server));
        members.flat_map(|(_, users)| users).for_each(|user| {
            barred.remove(user);
        });
        barred
    }
}

impl Operation {
    /// A failover from this primary, from its beginning.
    #[must_use]
    pub fn failover(former: &str) -> Self {
        Self {
            kind: Kind::Failover,
            former: former.to_owned(),
            stage: Stage::Revoke,
            heir: None,
            wanted: String::new(),
        }
    }

    /// A switchover from this primary to that server, from its beginning.
    #[must_use]
    pub fn switchover(former: &str, heir: &str) -> Self {
        Self {
            kind: Kind::Switchover,
            stage: Stage::Hold,
            heir: Some(heir.to_owned()),
            ..Self::failover(former)
        }
    }

    /// The primary, which is read-only, takes writes again.
    #[must_use]
    pub fn reopening(primary: &str) -> Self {
        Self { stage: Stage::Establish, heir: Some(primary.to_owned()), ..Self::failover(primary) }
    }

    /// Whether the primary stays who it is.
    #[must_use]
    pub fn is_reopening(&self) -> bool {
        self.heir.as_ref() == Some(&self.former)
    }

    /// What brings the group back to where it was when this is called off; `None` where nothing
    /// was changed that would not mend itself.
    #[must_use]
    pub fn undoing(&self) -> Option<Self> {
        match (self.kind, self.stage) {
            (Kind::Failover, _) | (Kind::Switchover, Stage::Hold) => None,
            (Kind::Switchover, _) => Some(Self::reopening(&self.former)),
        }
    }

    /// How far it is, for operators.
    #[must_use]
    pub fn describe(&self) -> String {
        let (former, stage) = (&self.former, self.stage.word());
        match (self.kind, &self.heir) {
            _ if self.is_reopening() => format!("{former} is opened for writes again"),
            (Kind::Failover, _) | (Kind::Switchover, None) => {
                format!("replacing {former}: {stage}")
            }
            (Kind::Switchover, Some(heir)) => format!("{former} hands over to {heir}: {stage}"),
        }
    }
}

impl Stage {
    /// The word for operators.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Hold => "waiting for transactions to end",
            Self::Close => "closing the old primary for writes",
            Self::Revoke => "keeping the replicas from receiving",
            Self::Drain => "applying what was received",
            Self::Establish => "turning the replicas to the new primary",
            Self::Open => "opening the new primary for writes",
        }
    }
}
