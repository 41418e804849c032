//! Sets of transaction numbers as sorted, disjoint, never adjacent intervals.

use std::fmt;

/// From `first` to `last`, both included; `1 <= first <= last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    first: u64,
    last: u64,
}

/// A set of numbers from 1 up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Intervals {
    list: Vec<Interval>,
}

impl Interval {
    /// `None` unless `1 <= first <= last`.
    pub(super) fn new(first: u64, last: u64) -> Option<Self> {
        (1 <= first && first <= last).then_some(Self { first, last })
    }
}

impl Intervals {
    pub(super) fn of(interval: Interval) -> Self {
        Self { list: vec![interval] }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn contains(&self, other: &Self) -> bool {
        other.list.iter().all(|want| {
            let at = self.list.partition_point(|have| have.last < want.first);
            self.list.get(at).is_some_and(|have| have.first <= want.first && want.last <= have.last)
        })
    }

    /// Adds one interval; the common case, a number past the end, does not move anything.
    pub(super) fn insert(&mut self, new: Interval) {
        let from = self.list.partition_point(|at| at.last.saturating_add(1) < new.first);
        let to = self.list.partition_point(|at| at.first <= new.last.saturating_add(1));
        let touched = self.list.get(from..to).unwrap_or_default();
        let merged = Interval {
            first: touched.first().map_or(new.first, |at| at.first.min(new.first)),
            last: touched.last().map_or(new.last, |at| at.last.max(new.last)),
        };
        self.list.splice(from..to.max(from), [merged]);
    }

    pub(super) fn union(&mut self, other: &Self) {
        for interval in &other.list {
            self.insert(*interval);
        }
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        let mut gone = other.list.iter().copied().peekable();
        let mut left = Vec::with_capacity(self.list.len());
        for mine in &self.list {
            let mut first = mine.first;
            let mut open = true;
            while let Some(hole) = gone.peek().copied() {
                if hole.first > mine.last {
                    break;
                }
                if hole.last >= first {
                    if hole.first > first {
                        left.push(Interval { first, last: hole.first - 1 });
                    }
                    if hole.last >= mine.last {
                        open = false;
                        break;
                    }
                    first = hole.last + 1;
                }
                gone.next();
            }
            if open {
                left.push(Interval { first, last: mine.last });
            }
        }
        self.list = left;
    }

    /// Forgets all but the highest number.
    pub(super) fn keep_last(&mut self) {
        self.list.drain(..self.list.len().saturating_sub(1));
        self.list.iter_mut().for_each(|at| at.first = at.last);
    }

    /// Fills the smallest gaps until at most `most` intervals (at least one) are left.
    pub(super) fn coarsen(&mut self, most: usize) {
        while self.list.len() > most.max(1) {
            let gap = |pair: &[Interval]| match pair {
                [left, right] => right.first - left.last,
                _ => u64::MAX,
            };
            let pairs = self.list.windows(2).enumerate();
            let Some((at, _)) = pairs.min_by_key(|(_, pair)| gap(pair)) else { return };
            let right = self.list.remove(at + 1);
            if let Some(left) = self.list.get_mut(at) {
                left.last = right.last;
            }
        }
    }
}

impl fmt::Display for Intervals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for at in &self.list {
            if at.first == at.last {
                write!(f, ":{}", at.first)?;
            } else {
                write!(f, ":{}-{}", at.first, at.last)?;
            }
        }
        Ok(())
    }
}
