//! Chance that comes out the same for the same seed.

use crate::chance::SplitMix;

/// A stream of numbers, and what is made of them.
#[derive(Debug, Clone)]
pub(crate) struct Random(SplitMix);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix::new(seed))
    }

    /// From `from` to below `to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.0.next() % (to - from).max(1)
    }

    /// An index below `count`.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.between(0, count as u64)).expect("an index")
    }

    /// Whether something happens that happens so many times in a thousand.
    pub(crate) fn permille(&mut self, times: u64) -> bool {
        self.between(0, 1000) < times
    }
}
