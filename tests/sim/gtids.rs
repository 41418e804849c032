//! Which transactions a server has, as runs of numbers by the server that wrote them first.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gtids(BTreeMap<u32, Vec<(u64, u64)>>);

// === impls ===

impl Gtids {
    pub(crate) fn insert(&mut self, origin: u32, seq: u64) {
        let runs = self.0.entry(origin).or_default();
        if let Some((_, last)) = runs.last_mut()
            && *last + 1 == seq
        {
            *last = seq;
        } else if !runs.iter().any(|(from, to)| (*from..=*to).contains(&seq)) {
            runs.push((seq, seq));
            runs.sort_unstable();
        }
    }

    pub(crate) fn contains(&self, origin: u32, seq: u64) -> bool {
        let runs = self.0.get(&origin);
        runs.is_some_and(|runs| runs.iter().any(|(from, to)| (*from..=*to).contains(&seq)))
    }

    /// The highest number of each origin.
    pub(crate) fn last(&self) -> impl Iterator<Item = (u32, u64)> {
        self.0.iter().filter_map(|(origin, runs)| Some((*origin, runs.last()?.1)))
    }

    pub(crate) fn last_of(&self, origin: u32) -> u64 {
        self.0.get(&origin).and_then(|runs| runs.last()).map_or(0, |(_, last)| *last)
    }

    pub(crate) fn union(&mut self, other: &Self) {
        for (origin, runs) in &other.0 {
            for (from, to) in runs {
                (*from..=*to).for_each(|seq| self.insert(*origin, seq));
            }
        }
    }

    /// Without what this origin wrote from that number on.
    pub(crate) fn before(&self, origin: u32, seq: u64) -> Self {
        let mut left = self.clone();
        if let Some(runs) = left.0.get_mut(&origin) {
            runs.retain(|(from, _)| *from < seq);
            runs.iter_mut().for_each(|(_, to)| *to = (*to).min(seq - 1));
        }
        left.0.retain(|_, runs| !runs.is_empty());
        left
    }

    /// As MySQL writes it, `name` telling the UUID of an origin.
    pub(crate) fn text(&self, name: impl Fn(u32) -> String) -> String {
        let source = |(origin, runs): (&u32, &Vec<(u64, u64)>)| {
            let runs: Vec<String> = runs.iter().map(|(from, to)| format!("{from}-{to}")).collect();
            format!("{}:{}", name(*origin), runs.join(":"))
        };
        self.0.iter().map(source).collect::<Vec<_>>().join(",")
    }
}
