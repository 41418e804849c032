//! Until when this pointsman may send statements to the primary of a group.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How much earlier a lease ends here than others may take it for ended: clocks do not run alike.
pub const GUARD: Duration = Duration::from_millis(500);

/// What is said of a permission that does not hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    /// Why nothing is sent to a primary before the first one.
    pub not_yet: &'static str,
    /// Why nothing is sent to a primary once it has ended.
    pub lost: &'static str,
}

/// Of a lease in etcd.
pub const IN_ETCD: Words = Words {
    not_yet: "this pointsman has no lease in etcd yet",
    lost: "this pointsman has lost its lease in etcd",
};

/// Of what a majority of the servers says.
pub const BY_SERVERS: Words = Words {
    not_yet: "this pointsman has not heard from a majority of the servers yet",
    lost: "this pointsman has not heard in time from a majority of the servers that they follow \
           the primary",
};

/// The permission, as the task that speaks to etcd or to the servers extends it and the data path
/// reads it. It ends by itself: a process that was stopped finds it expired when it goes on.
#[derive(Debug)]
pub struct Lease {
    /// Nanoseconds by [`boot_time`]; 0 for never.
    until: AtomicU64,
    words: &'static Words,
}

impl Lease {
    /// One that does not hold yet.
    #[must_use]
    pub fn new(words: &'static Words) -> Self {
        Self { until: AtomicU64::new(0), words }
    }

    /// What is said where it does not hold.
    #[must_use]
    pub fn words(&self) -> &'static Words {
        self.words
    }

    /// Whether statements may be sent now. The clock is read here, so that nothing that was
    /// measured before a pause counts.
    #[must_use]
    pub fn holds(&self) -> bool {
        nanos(boot_time()) < self.until.load(Ordering::Acquire)
    }

    /// How much longer they may be; zero once they may not.
    #[must_use]
    pub fn left(&self) -> Duration {
        let until = Duration::from_nanos(self.until.load(Ordering::Acquire));
        until.saturating_sub(boot_time())
    }

    /// Until when they may be, nanoseconds by [`boot_time`].
    #[cfg(test)]
    pub(super) fn until(&self) -> u64 {
        self.until.load(Ordering::Acquire)
    }

    /// They may be until this time by [`boot_time`].
    pub(super) fn set(&self, until: Duration) {
        self.until.store(nanos(until), Ordering::Release);
    }
}

/// The time since the machine was started, also while it slept; nobody sets this clock.
#[must_use]
pub fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_until_its_time_and_no_longer() {
        let lease = Lease::new(&IN_ETCD);
        assert!(!lease.holds());
        lease.set(boot_time() + Duration::from_secs(60));
        assert!(lease.holds());
        assert!(lease.left() > Duration::from_secs(50));
        lease.set(boot_time());
        assert!(!lease.holds());
        assert_eq!(lease.left(), Duration::ZERO);
    }
}
