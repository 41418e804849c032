//! Digests of statements that a replica has refused as writes: the text looked like a read, the
//! server knew better. They go to the primary from then on.

use std::collections::HashSet;

/// Digests kept; beyond that all are forgotten, and learnt anew by one refusal each.
const MOST: usize = 10_000;

/// The digests that a replica has refused.
#[derive(Debug, Default)]
pub struct RefusedDigests(HashSet<u64, foldhash::fast::RandomState>);

impl RefusedDigests {
    /// Whether this digest was refused before. Texts without a digest (0) never were.
    #[must_use]
    pub fn contains(&self, digest: u64) -> bool {
        digest != 0 && self.0.contains(&digest)
    }

    /// Remembers a refusal.
    pub fn insert(&mut self, digest: u64) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        if digest != 0 {
            self.0.insert(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_within_its_bound() {
        let mut refused = RefusedDigests::default();
        refused.insert(0);
        assert!(!refused.contains(0));
        for digest in 1..=MOST as u64 {
            refused.insert(digest);
        }
        assert!(refused.contains(1));
        refused.insert(u64::MAX);
        assert!(refused.contains(u64::MAX));
        assert!(!refused.contains(1));
    }
}
