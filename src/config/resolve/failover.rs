//! What is done when a group's primary dies.

use std::time::Duration;

use super::{DAY, Reader};
use crate::config::failover::{Failover, FailoverMode, MaxLoss, ReplicationAccount};
use crate::config::raw;

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
            replication,
        }
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
