//! Remembers the classes of texts that came before: by their shape, and byte for byte where they
//! have none.
//!
//! Bounded: sets of four slots, the oldest of a set gives way. A text is kept at its second
//! appearance only, so that one that never returns costs neither memory nor copies.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use crate::router::{Class, Dialect, Verb, classify, shape};

/// Longest text that is remembered, bytes.
pub const TEXT_LIMIT: usize = 4096;

const WAYS: usize = 4;

/// A bounded map from exact text and dialect to class; belongs to one worker.
#[derive(Debug)]
pub struct ClassCache {
    hasher: RandomState,
    sets: Vec<Set>,
    /// The shape of the text that is looked up.
    shape: Vec<u8>,
    hits: u64,
    misses: u64,
}

#[derive(Debug, Default)]
struct Set {
    slots: [Option<Slot>; WAYS],
    oldest: usize,
}

#[derive(Debug)]
struct Slot {
    hash: u64,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    key: Box<[u8]>,
    /// The key is a shape, and not a text that looks like one.
    shape: bool,
    dialect: Dialect,
    class: Class,
}

impl ClassCache {
    /// A cache for about `capacity` texts; 0 remembers nothing. The hash is seeded at random,
    /// so that nobody can choose texts that displace each other.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let count = match capacity {
            0 => 0,
            _ => capacity.div_ceil(WAYS).next_power_of_two(),
        };
        let mut sets = Vec::new();
        sets.resize_with(count, Set::default);
        let shape = Vec::new();
        Self { hasher: RandomState::default(), sets, shape, hits: 0, misses: 0 }
    }

    /// The class of a text, from memory or by looking at it.
    pub fn classify(&mut self, sql: &[u8], dialect: &Dialect) -> Class {
        if self.sets.is_empty() || sql.len() > TEXT_LIMIT {
            self.misses = self.misses.saturating_add(1);
            return classify(sql, dialect);
        }
        let has_shape = shape::of(sql, dialect, &mut self.shape);
        let key = if has_shape { self.shape.as_slice() } else { sql };
        let hash = self.hasher.hash_one((key, dialect));
        let mask = self.sets.len() - 1;
        let index = usize::try_from(hash >> 32).unwrap_or(0) & mask;
        let Some(set) = self.sets.get_mut(index) else { return classify(sql, dialect) };
        let found = set.slots.iter_mut().flatten().find(|slot| slot.hash == hash);
        if let Some(slot) = found {
            if let Some(kept) = &slot.kept
                && kept.key.as_ref() == key
                && kept.shape == has_shape
                && kept.dialect == *dialect
            {
                self.hits = self.hits.saturating_add(1);
                return kept.class;
            }
            let class = classify(sql, dialect);
            if key != sql && looks_into_strings(&class) {
                self.misses = self.misses.saturating_add(1);
                return class;
            }
            let key = Box::from(key);
            slot.kept = Some(Kept { key, shape: has_shape, dialect: *dialect, class });
            self.misses = self.misses.saturating_add(1);
            return class;
        }
        if let Some(slot) = set.slots.get_mut(set.oldest) {
            *slot = Some(Slot { hash, kept: None });
        }
        set.oldest = (set.oldest + 1) % WAYS;
        self.misses = self.misses.saturating_add(1);
        classify(sql, dialect)
    }

    /// Lookups that were answered from memory, and those that were not.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }
}

/// Whether the class may depend on the inside of a string: of SHOW STATUS it does, and that may
/// stand anywhere in several statements.
fn looks_into_strings(class: &Class) -> bool {
    class.verb == Verb::Show || class.multi
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Kind;
    use crate::router::tests::dialect;
    use crate::topology::Flavour;

    #[test]
    fn a_text_is_remembered_from_its_second_appearance_on() {
        let mut cache = ClassCache::new(100);
        let dialect = dialect(Flavour::MariaDb);
        for _ in 0..4 {
            assert_eq!(cache.classify(b"SELECT 1", &dialect).kind, Kind::Read);
        }
        assert_eq!(cache.counts(), (2, 2));
    }

    #[test]
    fn the_same_text_under_another_dialect_is_another_text() {
        let mut cache = ClassCache::new(1);
        let plain = dialect(Flavour::MySql);
        let ansi = plain.with_sql_mode(b"ANSI_QUOTES");
        let sql = br#"SELECT "a" FROM "mysql".x"#;
        for _ in 0..3 {
            assert_eq!(cache.classify(sql, &ansi), classify(sql, &ansi));
            assert_eq!(cache.classify(sql, &plain), classify(sql, &plain));
        }
    }

    #[test]
    fn texts_that_differ_in_literals_are_one() {
        let mut cache = ClassCache::new(100);
        let dialect = dialect(Flavour::MariaDb);
        for id in 0..100 {
            let sql = format!("SELECT c FROM t WHERE id = {id} AND name = 'n{id}'");
            assert_eq!(cache.classify(sql.as_bytes(), &dialect).kind, Kind::Read);
        }
        assert_eq!(cache.counts(), (98, 2));
    }

    #[test]
    fn what_show_status_is_asked_for_decides_whatever_was_asked_before() {
        let dialect = dialect(Flavour::MariaDb);
        for form in [
            "SHOW STATUS LIKE '@'",
            "SHOW GLOBAL STATUS LIKE '@'",
            "SET STATEMENT max_statement_time = 1 FOR SHOW STATUS LIKE '@'",
            "SELECT 1; SHOW STATUS LIKE '@'",
        ] {
            let mut cache = ClassCache::new(100);
            for _ in 0..3 {
                for asked in ["Handler_read_rnd", "Last_query_cost", "Uptime", "Qcache_hits"] {
                    let sql = form.replace('@', asked);
                    let sql = sql.as_bytes();
                    assert_eq!(cache.classify(sql, &dialect), classify(sql, &dialect), "{asked}");
                }
            }
        }
    }

    #[test]
    fn it_never_grows_beyond_its_capacity() {
        let mut cache = ClassCache::new(8);
        let dialect = dialect(Flavour::MySql);
        for round in 0..1000 {
            let sql = format!("SELECT a{round}");
            assert_eq!(cache.classify(sql.as_bytes(), &dialect).kind, Kind::Read);
        }
        let slots: usize = cache.sets.iter().map(|set| set.slots.len()).sum();
        assert_eq!(slots, 8);
        assert_eq!(cache.counts().0, 0);
        let mut none = ClassCache::new(0);
        assert_eq!(none.classify(b"SELECT 1", &dialect).kind, Kind::Read);
    }
}
