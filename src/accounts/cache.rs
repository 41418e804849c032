//! What was learnt about accounts, bounded in number and age.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::accounts::rows::AccountRow;
use crate::protocol::auth::Password;

/// Age at which an account is asked for again.
const AGE_MAX: Duration = Duration::from_secs(60);

/// The same for users that do not exist, who may be created at any moment. Also the least time
/// between two questions for one user.
const UNKNOWN_AGE_MAX: Duration = Duration::from_secs(1);

/// Most users that are kept.
const USERS_MAX: usize = 10_000;

/// Most names without an account that are kept: strangers must not push out users.
const STRANGERS_MAX: usize = 1_000;

/// Accounts by user name, and passwords that servers have accepted.
#[derive(Default)]
pub(super) struct Cache {
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    users: HashMap<Vec<u8>, Entry>,
    strangers: HashMap<Vec<u8>, Entry>,
    passwords: HashMap<Vec<u8>, Password>,
}

#[derive(Clone)]
struct Entry {
    rows: Arc<[AccountRow]>,
    learnt: Instant,
}

// === impls ===

impl Cache {
    /// What is known and not too old.
    pub(super) fn fresh(&self, user: &[u8], now: Instant) -> Option<Arc<[AccountRow]>> {
        let inside = self.lock();
        let young = |entry: &&Entry, most| now.saturating_duration_since(entry.learnt) < most;
        let known = inside.users.get(user).filter(|entry| young(entry, AGE_MAX));
        let stranger = inside.strangers.get(user).filter(|entry| young(entry, UNKNOWN_AGE_MAX));
        known.or(stranger).map(|entry| entry.rows.clone())
    }

    /// What is known if it was asked for within the last second.
    pub(super) fn just_asked(&self, user: &[u8], now: Instant) -> Option<Arc<[AccountRow]>> {
        let inside = self.lock();
        let entry = inside.users.get(user).or_else(|| inside.strangers.get(user));
        entry
            .filter(|entry| now.saturating_duration_since(entry.learnt) < UNKNOWN_AGE_MAX)
            .map(|entry| entry.rows.clone())
    }

    /// What was learnt at `since` or later.
    pub(super) fn asked_since(&self, user: &[u8], since: Instant) -> Option<Arc<[AccountRow]>> {
        let inside = self.lock();
        let entry = inside.users.get(user).or_else(|| inside.strangers.get(user));
        entry.filter(|entry| entry.learnt >= since).map(|entry| entry.rows.clone())
    }

    /// What is known, however old.
    pub(super) fn any(&self, user: &[u8]) -> Option<Arc<[AccountRow]>> {
        self.lock().users.get(user).map(|entry| entry.rows.clone())
    }

    /// Keeps what a server said. A changed account loses its remembered password.
    pub(super) fn learn(&self, user: &[u8], rows: Arc<[AccountRow]>, now: Instant) {
        let mut inside = self.lock();
        let before = inside.users.remove(user);
        inside.strangers.remove(user);
        if before.is_none_or(|before| before.rows != rows) {
            inside.passwords.remove(user);
        }
        let entry = Entry { rows, learnt: now };
        let stranger = entry.rows.iter().all(|row| row.anonymous);
        let (map, most, age) = if stranger {
            (&mut inside.strangers, STRANGERS_MAX, UNKNOWN_AGE_MAX)
        } else {
            (&mut inside.users, USERS_MAX, AGE_MAX)
        };
        if map.len() >= most {
            map.retain(|_, entry| now.saturating_duration_since(entry.learnt) < age);
        }
        if map.len() >= most {
            map.clear();
        }
        map.insert(user.to_vec(), entry);
    }

    /// Forgets a user, or all.
    pub(super) fn forget(&self, user: Option<&[u8]>) {
        let mut inside = self.lock();
        match user {
            Some(user) => {
                inside.users.remove(user);
                inside.strangers.remove(user);
                inside.passwords.remove(user);
            }
            None => *inside = Inside::default(),
        }
    }

    pub(super) fn remember_password(&self, user: &[u8], password: Password) {
        let mut inside = self.lock();
        if inside.passwords.len() >= USERS_MAX {
            inside.passwords.clear();
        }
        inside.passwords.insert(user.to_vec(), password);
    }

    pub(super) fn password(&self, user: &[u8]) -> Option<Password> {
        self.lock().passwords.get(user).cloned()
    }

    pub(super) fn forget_password(&self, user: &[u8]) {
        self.lock().passwords.remove(user);
    }

    /// Never held across an await. A panic elsewhere leaves whole entries only, so the content
    /// of a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::rows::row;

    fn rows(hash: &str) -> Arc<[AccountRow]> {
        Arc::from([row("%", b"app", String::new(), hash.as_bytes().to_vec(), false)])
    }

    fn strangers() -> Arc<[AccountRow]> {
        Arc::from([])
    }

    #[test]
    fn users_stay_a_minute_and_strangers_a_second() {
        let cache = Cache::default();
        let start = Instant::now();
        cache.learn(b"app", rows("a"), start);
        cache.learn(b"nobody", strangers(), start);
        let later = |millis| start + Duration::from_millis(millis);
        assert!(cache.fresh(b"app", later(59_999)).is_some());
        assert!(cache.fresh(b"app", later(60_000)).is_none());
        assert!(cache.any(b"app").is_some(), "still there for when nobody can be asked");
        assert!(cache.fresh(b"nobody", later(999)).is_some());
        assert!(cache.fresh(b"nobody", later(1_000)).is_none());
        assert!(cache.just_asked(b"app", later(999)).is_some());
        assert!(cache.just_asked(b"app", later(1_000)).is_none());
    }

    #[test]
    fn strangers_are_bounded_and_push_out_no_user() {
        let cache = Cache::default();
        let now = Instant::now();
        cache.learn(b"app", rows("a"), now);
        for number in 0..5_000u32 {
            cache.learn(&number.to_be_bytes(), strangers(), now);
            assert!(cache.lock().strangers.len() <= STRANGERS_MAX);
        }
        assert!(cache.fresh(b"app", now).is_some());
    }

    #[test]
    fn a_password_goes_with_its_account() {
        let cache = Cache::default();
        let now = Instant::now();
        let password = || Password::new(b"secret".to_vec());
        cache.learn(b"app", rows("a"), now);
        cache.remember_password(b"app", password());
        cache.learn(b"app", rows("a"), now);
        assert!(cache.password(b"app").is_some(), "the same row again");
        cache.learn(b"app", rows("b"), now);
        assert!(cache.password(b"app").is_none(), "another hash");
        for forget in [Some(&b"app"[..]), None] {
            cache.remember_password(b"app", password());
            cache.forget(forget);
            assert!(cache.password(b"app").is_none() && cache.any(b"app").is_none());
        }
        cache.remember_password(b"app", password());
        cache.forget_password(b"app");
        assert!(cache.password(b"app").is_none());
    }
}
