//! Statement statistics by digest, bounded: how often, how fast, how many errors, where, and why.
//!
//! A worker records into a table of its own; whoever wants to see them merges the tables. Texts
//! are normalised (no literals) before they come here. Does not know: sessions, sockets, clocks.

use std::collections::HashMap;
use std::time::Duration;

use crate::router::Reason;
use crate::topology::NodeId;

/// Digests that a table holds unless told otherwise; at most 1.5 KiB each.
pub const DEFAULT_CAPACITY: usize = 2_000;

/// Longest text that is kept of a statement, bytes.
pub const TEXT_LIMIT: usize = 512;

/// Statistics of many digests. When it is full, a digest that was not seen for a while makes room.
#[derive(Debug, Clone)]
pub struct DigestTable {
    capacity: usize,
    index: HashMap<u64, usize, foldhash::fast::RandomState>,
    entries: Vec<Digest>,
    /// Where the search for an entry that can go stands (the clock algorithm).
    hand: usize,
    evicted: u64,
}

/// Statistics of one digest.
#[derive(Debug, Clone)]
pub struct Digest {
    /// Fingerprint of the normalised text.
    pub digest: u64,
    /// The normalised text, cut at [`TEXT_LIMIT`].
    pub text: Box<str>,
    /// Statements that were answered.
    pub count: u64,
    /// ... of these, with an error.
    pub errors: u64,
    /// How long they took.
    pub latency: LatencyBuckets,
    /// Where they ran, with counts.
    pub places: Vec<(NodeId, u64)>,
    /// Why there, with counts.
    pub reasons: Vec<(Reason, u64)>,
    /// Seen since the hand passed it last.
    recent: bool,
}

/// One finished statement.
#[derive(Debug, Clone, Copy)]
pub struct Execution {
    /// Where it ran.
    pub node: NodeId,
    /// Why there.
    pub reason: Reason,
    /// How long it took.
    pub elapsed: Duration,
    /// Whether the answer was an error.
    pub failed: bool,
}

/// Latencies in buckets that grow by a quarter of a power of two; a percentile read from them is
/// at most 12.5 % off. From 1 microsecond to 19 hours; what is slower counts as that.
#[derive(Debug, Clone)]
pub struct LatencyBuckets {
    counts: [u32; BUCKETS],
}

/// Four buckets for each power of two below 2^36 microseconds.
const BUCKETS: usize = 36 * 4;

// === impls ===

impl DigestTable {
    /// A table for at most `capacity` digests (at least one).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            index: HashMap::default(),
            entries: Vec::new(),
            hand: 0,
            evicted: 0,
        }
    }

    /// Counts one statement; `text` is asked for only when the digest is new.
    pub fn record(&mut self, digest: u64, text: impl FnOnce() -> String, execution: Execution) {
        let entry = self.entry(digest, text);
        entry.recent = true;
        entry.count += 1;
        entry.errors += u64::from(execution.failed);
        entry.latency.record(execution.elapsed);
        add(&mut entry.places, execution.node, 1);
        add(&mut entry.reasons, execution.reason, 1);
    }

    /// Adds all that `other` has counted. The result may hold more than its capacity, since it is
    /// made to be shown and thrown away.
    pub fn merge(&mut self, other: &Self) {
        self.capacity = self.capacity.max(self.entries.len() + other.entries.len());
        self.evicted += other.evicted;
        for theirs in &other.entries {
            let ours = self.entry(theirs.digest, || theirs.text.to_string());
            ours.count += theirs.count;
            ours.errors += theirs.errors;
            ours.latency.merge(&theirs.latency);
            for (node, count) in &theirs.places {
                add(&mut ours.places, *node, *count);
            }
            for (reason, count) in &theirs.reasons {
                add(&mut ours.reasons, *reason, *count);
            }
        }
    }

    /// All digests, in no particular order.
    #[must_use]
    pub fn digests(&self) -> &[Digest] {
        &self.entries
    }

    /// How many digests had to make room for others.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn entry(&mut self, digest: u64, text: impl FnOnce() -> String) -> &mut Digest {
        let at = match self.index.get(&digest) {
            Some(at) => *at,
            None => self.insert(Digest::new(digest, &text())),
        };
        &mut self.entries[at]
    }

    fn insert(&mut self, new: Digest) -> usize {
        let digest = new.digest;
        let at = if self.entries.len() < self.capacity {
            self.entries.push(new);
            self.entries.len() - 1
        } else {
            let at = self.make_room();
            self.index.remove(&self.entries[at].digest);
            self.entries[at] = new;
            self.evicted += 1;
            at
        };
        self.index.insert(digest, at);
        at
    }

    /// The position of an entry that was not seen since the hand passed it. It ends: each entry
    /// passed loses its mark, so the second round at the latest finds one.
    fn make_room(&mut self) -> usize {
        loop {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.entries.len();
            if !std::mem::take(&mut self.entries[at].recent) {
                return at;
            }
        }
    }
}

impl Default for DigestTable {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

impl Digest {
    fn new(digest: u64, text: &str) -> Self {
        Self {
            digest,
            text: Box::from(&text[..text.floor_char_boundary(TEXT_LIMIT)]),
            count: 0,
            errors: 0,
            latency: LatencyBuckets { counts: [0; BUCKETS] },
            places: Vec::new(),
            reasons: Vec::new(),
            recent: false,
        }
    }
}

impl LatencyBuckets {
    fn record(&mut self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let count = &mut self.counts[bucket_of(micros)];
        *count = count.saturating_add(1);
    }

    fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *ours = ours.saturating_add(*theirs);
        }
    }

    /// The latency below which `percent` of the statements stayed, microseconds; 0 without any.
    #[must_use]
    pub fn percentile_micros(&self, percent: u32) -> u64 {
        let total: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let rank = (total * u64::from(percent)).div_ceil(100);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank && seen > 0 {
                return middle_of(at);
            }
        }
        0
    }
}

/// The bucket of a latency: the power of two below it, and which quarter of it.
fn bucket_of(micros: u64) -> usize {
    let micros = micros.max(1);
    let power = micros.ilog2();
    let quarter = ((u128::from(micros) << 2) >> power) & 3;
    let at = power as usize * 4 + usize::try_from(quarter).unwrap_or(3);
    at.min(BUCKETS - 1)
}

/// The middle of a bucket, microseconds.
fn middle_of(bucket: usize) -> u64 {
    let low = 1u64 << (bucket / 4);
    let quarters = 4 + (bucket as u64 % 4);
    (low * (2 * quarters + 1)) / 8
}

fn add<K: PartialEq>(counts: &mut Vec<(K, u64)>, key: K, amount: u64) {
    match counts.iter_mut().find(|(known, _)| *known == key) {
        Some((_, count)) => *count += amount,
        None => counts.push((key, amount)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(micros: u64) -> Execution {
        Execution {
            node: NodeId(1),
            reason: Reason::PlainRead,
            elapsed: Duration::from_micros(micros),
            failed: false,
        }
    }

    #[test]
    fn a_digest_is_counted_with_places_reasons_and_errors() {
        let mut table = DigestTable::default();
        table.record(7, || "select ?".to_owned(), run(100));
        table.record(7, || panic!("the text is known"), run(100));
        let failed =
            Execution { node: NodeId(0), reason: Reason::Lagging, failed: true, ..run(1_000_000) };
        table.record(7, || panic!("the text is known"), failed);
        let [digest] = table.digests() else { panic!("one digest") };
        assert_eq!((digest.count, digest.errors, &*digest.text), (3, 1, "select ?"));
        assert_eq!(digest.places, [(NodeId(1), 2), (NodeId(0), 1)]);
        assert_eq!(digest.reasons, [(Reason::PlainRead, 2), (Reason::Lagging, 1)]);
        let median = digest.latency.percentile_micros(50);
        assert!((88..=113).contains(&median), "{median}");
        let slowest = digest.latency.percentile_micros(99);
        assert!((875_000..=1_125_000).contains(&slowest), "{slowest}");
    }

    #[test]
    fn a_full_table_keeps_what_is_in_use() {
        let mut table = DigestTable::new(10);
        for digest in 0..1_000 {
            table.record(digest, String::new, run(1));
            table.record(u64::MAX, || "often".to_owned(), run(1));
        }
        assert_eq!(table.digests().len(), 10);
        assert_eq!(table.evicted(), 991);
        let often = table.digests().iter().find(|digest| digest.digest == u64::MAX);
        assert_eq!(often.expect("it is in use").count, 1_000);
    }

    #[test]
    fn tables_of_workers_merge() {
        let mut first = DigestTable::new(2);
        let mut second = DigestTable::new(2);
        first.record(1, String::new, run(10));
        first.record(2, String::new, run(10));
        second.record(2, String::new, run(10));
        second.record(3, String::new, run(10));
        first.merge(&second);
        let mut counts: Vec<_> = first.digests().iter().map(|d| (d.digest, d.count)).collect();
        counts.sort_unstable();
        assert_eq!(counts, [(1, 1), (2, 2), (3, 1)]);
        assert_eq!(first.evicted(), 0);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut table = DigestTable::default();
        table.record(1, || "ä".repeat(TEXT_LIMIT), run(1));
        assert_eq!(table.digests()[0].text.len(), TEXT_LIMIT);
        table.record(2, || format!("a{}", "ä".repeat(TEXT_LIMIT)), run(1));
        assert_eq!(table.digests()[1].text.len(), TEXT_LIMIT - 1);
    }

    #[test]
    fn an_entry_stays_small() {
        // With a few places and reasons about 200 bytes come on top.
        let size = size_of::<Digest>() + TEXT_LIMIT;
        assert!(size <= 1280, "{size}");
    }

    proptest! {
        #[test]
        fn a_latency_is_found_within_an_eighth(micros in 4u64..(1 << 35)) {
            let middle = middle_of(bucket_of(micros));
            prop_assert!(middle.abs_diff(micros) <= micros / 8 + 1, "{} for {}", middle, micros);
        }

        #[test]
        fn no_latency_is_out_of_bounds(micros in any::<u64>()) {
            prop_assert!(bucket_of(micros) < BUCKETS);
        }
    }
}
