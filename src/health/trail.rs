//! Where the primary was when: a bounded trail of positions, from which lag is measured.

use std::time::{Duration, Instant};

use crate::topology::NodeId;
use crate::topology::gtid::GtidSet;

/// Steps kept. When full, the older half is thinned, so the trail reaches back further and
/// further at a coarser grain instead of forgetting.
const STEPS_MAX: usize = 128;

/// Positions of one primary, oldest first, each with the earliest moment it was known.
#[derive(Debug, Default)]
pub struct Trail {
    steps: Vec<(Instant, GtidSet)>,
    /// Whose positions they are.
    of: Option<NodeId>,
}

impl Trail {
    /// From now on these are the positions of this server.
    pub fn follow(&mut self, primary: NodeId) {
        if self.of != Some(primary) {
            self.clear();
            self.of = Some(primary);
        }
    }

    /// Notes that the primary was at `position` at `at`. Standing still adds nothing.
    pub fn push(&mut self, at: Instant, position: GtidSet) {
        if self.steps.last().is_some_and(|(_, last)| *last == position) {
            return;
        }
        if self.steps.len() >= STEPS_MAX {
            let mut index = 0usize;
            self.steps.retain(|_| {
                index += 1;
                index > STEPS_MAX / 2 || index % 2 == 1
            });
        }
        self.steps.push((at, position));
    }

    /// Forgets all: another server is the primary, and what the old one had may be lost.
    pub fn clear(&mut self) {
        self.steps.clear();
    }

    /// How long a server that had applied `applied` at `at` had then been without something that
    /// the primary already had; `None` when the trail cannot tell. It never blames a server for
    /// what the primary did after `at`, so it errs towards zero by at most one probe interval.
    #[must_use]
    pub fn lag(&self, applied: &GtidSet, at: Instant) -> Option<Duration> {
        if self.steps.is_empty() {
            return None;
        }
        let reached = self.steps.partition_point(|(_, position)| applied.contains(position));
        let missing_since = self.steps.get(reached).map(|(since, _)| *since);
        Some(missing_since.map_or(Duration::ZERO, |since| at.saturating_duration_since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64) -> GtidSet {
        GtidSet::parse_mariadb(&format!("0-1-{sequence}")).expect("well-formed")
    }

    #[test]
    fn lag_is_the_time_without_something_the_primary_had() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut trail = Trail::default();
        assert_eq!(trail.lag(&at(1), start), None);
        trail.push(start, at(10));
        trail.push(start + second, at(10));
        trail.push(start + second * 2, at(20));
        trail.push(start + second * 4, at(30));
        let table = [
            (30, 5, 0),
            (35, 5, 0),
            // Missing 30, which the primary had at 4 s.
            (20, 5, 1),
            (20, 9, 5),
            // Observed before the primary was seen at 30: not to blame.
            (20, 3, 0),
            // An idle primary does not make it worse than when 20 came.
            (10, 5, 3),
            (9, 5, 5),
        ];
        for (applied, observed, lag) in table {
            let observed_at = start + second * observed;
            assert_eq!(
                trail.lag(&at(applied), observed_at),
                Some(second * lag),
                "at {applied} observed at {observed} s"
            );
        }
        trail.clear();
        assert_eq!(trail.lag(&at(1), start), None);
    }

    #[test]
    fn a_long_trail_is_thinned_not_cut() {
        let start = Instant::now();
        let mut trail = Trail::default();
        for step in 0..10_000u64 {
            trail.push(start + Duration::from_secs(step), at(step + 1));
        }
        assert!(trail.steps.len() <= STEPS_MAX);
        let lag = trail.lag(&GtidSet::default(), start + Duration::from_secs(10_000));
        assert_eq!(lag, Some(Duration::from_secs(10_000)), "the oldest step is still there");
    }
}
