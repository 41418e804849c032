//! What pointsman may do when a primary dies, as the operator asks for it.

use std::time::Duration;

use crate::config::units::Secret;

/// What is done when the group's primary dies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failover {
    /// Whether servers are changed at all.
    pub mode: FailoverMode,
    /// Whether a failover may lose writes that clients were told of.
    pub max_loss: MaxLoss,
    /// After one failover the next one waits for an operator for this long: a cluster that loses
    /// one primary after the other has another trouble.
    pub anti_flap: Duration,
    /// The program, and its arguments, that is asked before the primary changes; empty for none. It
    /// may say no.
    pub pre_hook: Vec<String>,
    /// The one that is told afterwards; empty for none.
    pub post_hook: Vec<String>,
    /// How long either may take.
    pub hook_timeout: Duration,
    /// How long a replica may be away before a failover does not need it any more, where it has an
    /// account of its own; zero for ever.
    pub evict_after: Duration,
    /// The account by which a server is told to replicate; `None` means one that is made for each.
    pub replication: Option<ReplicationAccount>,
}

/// An account by which servers replicate from one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationAccount {
    /// Its name, of any host.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// Whether servers are changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FailoverMode {
    /// Never: somebody else promotes, and traffic follows.
    #[default]
    Follow,
    /// The group is kept in a state in which a failover loses nothing; a dead primary is replaced
    /// when an operator says so.
    Manual,
    /// The same, and a dead primary is replaced at once.
    Auto,
}

/// What a failover may lose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MaxLoss {
    /// Nothing: where that is not certain there is no failover.
    #[default]
    None,
    /// What nobody alive has.
    Some,
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            mode: FailoverMode::default(),
            max_loss: MaxLoss::default(),
            anti_flap: Duration::from_secs(600),
            evict_after: Duration::from_secs(60),
            pre_hook: Vec::new(),
            post_hook: Vec::new(),
            hook_timeout: Duration::from_secs(5),
            replication: None,
        }
    }
}

impl FailoverMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Follow, Self::Manual, Self::Auto];

    /// Whether servers are changed.
    #[must_use]
    pub fn keeps(self) -> bool {
        match self {
            Self::Follow => false,
            Self::Manual | Self::Auto => true,
        }
    }

    /// The word of the configuration file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Follow => "follow",
            Self::Manual => "manual",
            Self::Auto => "auto",
        }
    }
}

impl MaxLoss {
    /// The word of the configuration file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Some => "some",
        }
    }
}
