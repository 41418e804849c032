//! What is done when a group's primary dies.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{DAY, Reader};
use crate::config::failover::{Failover, FailoverMode, MaxLoss, ReplicationAccount};
use crate::config::raw::{self, OneOrMany, Scalar};

/// How long a hook may be allowed to take: nobody writes while it runs.
const HOOK_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(600);
/// How soon a replica that is away may be evicted: an order is waited for as long.
const EVICT_AFTER_MIN: Duration = Duration::from_secs(10);

impl Reader<'_> {
    pub(super) fn failover(&mut self, name: &str, raw: &raw::Failover) -> Failover {
        let at = |key: &str| format!("groups.{name}.failover.{key}");
        let usual = Failover::default();
        let modes = FailoverMode::ALL.map(|mode| (mode.word(), mode));
        let losses = [MaxLoss::None, MaxLoss::Some].map(|loss| (loss.word(), loss));
        let whole = Duration::ZERO..=DAY;
        let replication = self.replication(&at("replication"), raw);
        Failover {
            mode: self.word(&at("mode"), raw.mode.as_ref(), &modes),
            max_loss: self.word(&at("max_loss"), raw.max_loss.as_ref(), &losses),
            anti_flap: self.duration(
                &at("anti_flap"),
                raw.anti_flap.as_ref(),
                whole,
                usual.anti_flap,
            ),
            pre_hook: self.program(&at("pre_hook"), raw.pre_hook.as_ref()),
            post_hook: self.program(&at("post_hook"), raw.post_hook.as_ref()),
            hook_timeout: self.duration(
                &at("hook_timeout"),
                raw.hook_timeout.as_ref(),
                HOOK_TIMEOUTS,
                usual.hook_timeout,
            ),
            evict_after: self.eviction(&at("evict_after"), raw.evict_after.as_ref(), usual),
            replication,
        }
    }

    /// How long a replica may be away; for ever, or long enough that no statement about it is on
    /// its way any more.
    fn eviction(&mut self, key: &str, raw: Option<&Scalar>, usual: Failover) -> Duration {
        let after = self.duration(key, raw, Duration::ZERO..=DAY, usual.evict_after);
        if !after.is_zero() && after < EVICT_AFTER_MIN {
            let shown = raw.map(Scalar::to_string).unwrap_or_default();
            self.refuse(key, shown, "\"0\" for never, or at least 10s");
            return usual.evict_after;
        }
        after
    }

    /// A program and its arguments.
    fn program(&mut self, key: &str, raw: Option<&OneOrMany>) -> Vec<String> {
        let values = raw.map(OneOrMany::values).unwrap_or_default();
        let mut argv = Vec::new();
        for value in values {
            match value {
                Scalar::Text(text) => argv.push(text.clone()),
                other => self.refuse(key, other.to_string(), "a text for each argument"),
            }
        }
        if argv.first().is_some_and(|program| !program.starts_with('/')) {
            let form = "the absolute path of a program, then its arguments";
            self.refuse(key, format!("{argv:?}"), form);
        }
        argv
    }

    /// Both a name and a password, or neither.
    fn replication(&mut self, key: &str, raw: &raw::Failover) -> Option<ReplicationAccount> {
        let (name, word) = (format!("{key}_user"), format!("{key}_password"));
        let password = (raw.replication_password.as_ref(), raw.replication_password_file.as_ref());
        let stated = password.0.is_some() || password.1.is_some();
        let password = self.password(&word, password);
        match (&raw.replication_user, stated) {
            (None, false) => None,
            (None, true) => {
                self.refuse(word, "(hidden)", format!("needs {name} beside it"));
                None
            }
            (Some(user), false) => {
                let needs = format!("needs {word} or {word}_file beside it");
                self.refuse(name, user.to_string(), needs);
                None
            }
            (Some(_), true) => {
                let user = self.text(&name, raw.replication_user.as_ref(), "");
                Some(ReplicationAccount { user, password: password? })
            }
        }
    }
}
