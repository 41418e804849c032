//! GTID sets of both families and their algebra.
//!
//! MariaDB names a transaction `domain-server-sequence` and a position is the last one of each
//! domain; MySQL names it `uuid[:tag]:number` and a position is a set of intervals.
//!
//! For routing, MariaDB positions are compared per domain by sequence alone. That is right for
//! servers of one history, which replicas of one primary are. It is wrong for finding errant
//! transactions: an old primary at `0-2-59` looks contained in `0-1-60` although the new primary
//! never saw it. That question is answered by [`MariaDbState`], the highest sequence per domain
//! *and* server, as `@@gtid_binlog_state` tells it.

use std::cmp::Ordering;
use std::fmt;

use crate::topology::Flavour;

mod intervals;

use intervals::{Interval, Intervals};

/// How far a server, or a session, has come. Both families in one type, so that routing
/// need not know which one it serves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GtidSet {
    form: Form,
}

/// The highest sequence per domain and originating server: MariaDB's `@@gtid_binlog_state`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MariaDbState {
    /// Sorted by (domain, server).
    entries: Vec<Position>,
}

/// Most intervals that [`GtidSet::add`] keeps per source; more are merged, smallest gap first.
const ADDED_INTERVALS_MAX: usize = 16;

/// Longest tag of a MySQL GTID, characters (MySQL manual, "GTID Format").
const TAG_LEN_MAX: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Form {
    #[default]
    Empty,
    /// Sorted by domain, one entry a domain.
    MariaDb(Vec<Position>),
    /// Sorted by (uuid, tag), no entry without intervals.
    MySql(Vec<Source>),
    /// GTIDs of both families in one set: contained in nothing, contains nothing. Such a token
    /// can only keep a session on the primary, which is the safe side.
    Mixed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    domain: u32,
    server: u32,
    sequence: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uuid: [u8; 16],
    /// Lower case; empty for the untagged GTIDs of that server.
    tag: Box<str>,
    intervals: Intervals,
}

// === impls ===

impl GtidSet {
    /// Parses a MariaDB position (`0-1-7,2-1-1`); per domain the highest sequence is kept.
    /// `None` when the text is malformed. The empty text is the empty set.
    #[must_use]
    pub fn parse_mariadb(text: &str) -> Option<Self> {
        let mut set = Self::default();
        // What a server reports of one statement.
        if let Some(position) = parse_position(text) {
            set.add_position(position);
            return Some(set);
        }
        for part in parts(text) {
            set.add_position(parse_position(part?)?);
        }
        Some(set)
    }

    /// Parses a MySQL set (`uuid:1-5:7,uuid:tag:3`, `uuid:1-5:tag:7-9`), tags included.
    /// `None` when the text is malformed. The empty text is the empty set.
    #[must_use]
    pub fn parse_mysql(text: &str) -> Option<Self> {
        let mut set = Self::default();
        for part in parts(text) {
            parse_source(part?, |uuid, tag, interval| {
                set.add_interval(uuid, tag, interval);
            })?;
        }
        Some(set)
    }

    /// Parses a position or set as that family writes it.
    #[must_use]
    pub fn parse(flavour: Flavour, text: &str) -> Option<Self> {
        match flavour {
            Flavour::MariaDb => Self::parse_mariadb(text),
            Flavour::MySql => Self::parse_mysql(text),
        }
    }

    /// Adds what a session has written.
    ///
    /// A session calls this after each of its writes, so it must stay small: once a source has
    /// more than sixteen intervals, the smallest gaps are filled. The set then asks for more
    /// than the session wrote, never for less.
    pub fn add(&mut self, written: &Self) {
        self.union(written);
        if let Form::MySql(sources) = &mut self.form {
            for source in sources {
                source.intervals.coarsen(ADDED_INTERVALS_MAX);
            }
        }
    }

    /// Goes on to what was written since: of each domain, or server and tag, the newest is kept.
    pub fn advance(&mut self, written: &Self) {
        self.union(written);
        if let Form::MySql(sources) = &mut self.form {
            sources.iter_mut().for_each(|source| source.intervals.keep_last());
        }
    }

    /// Whether every transaction named by `other` is contained in `self`. The empty set is
    /// contained in all; sets of different families never contain each other.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        match (&self.form, &other.form) {
            (_, Form::Empty) => true,
            (Form::MariaDb(have), Form::MariaDb(want)) => {
                want.iter().all(|want| position_of(have, want.domain) >= Some(want.sequence))
            }
            (Form::MySql(have), Form::MySql(want)) => want.iter().all(|want| {
                find(have, &want.uuid, &want.tag)
                    .ok()
                    .and_then(|at| have.get(at))
                    .is_some_and(|have| have.intervals.contains(&want.intervals))
            }),
            (Form::Empty | Form::MariaDb(_) | Form::MySql(_) | Form::Mixed, _) => false,
        }
    }

    /// Whether it names no transaction.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.form == Form::Empty
    }

    /// How many domains (MariaDB) or server and tag pairs (MySQL) it names.
    #[must_use]
    pub fn domains_or_sources(&self) -> usize {
        match &self.form {
            Form::Empty | Form::Mixed => 0,
            Form::MariaDb(positions) => positions.len(),
            Form::MySql(sources) => sources.len(),
        }
    }

    /// Adds all transactions of `other`. GTIDs of two families in one set make it one that is
    /// contained in nothing.
    pub fn union(&mut self, other: &Self) {
        match (&mut self.form, &other.form) {
            (_, Form::Empty) => {}
            (Form::Empty, _) => self.form = other.form.clone(),
            (Form::MariaDb(_), Form::MariaDb(positions)) => {
                for position in positions {
                    self.add_position(*position);
                }
            }
            (Form::MySql(sources), Form::MySql(added)) => {
                for source in added {
                    match find(sources, &source.uuid, &source.tag) {
                        Ok(at) => {
                            if let Some(mine) = sources.get_mut(at) {
                                mine.intervals.union(&source.intervals);
                            }
                        }
                        Err(at) => sources.insert(at, source.clone()),
                    }
                }
            }
            (Form::MariaDb(_) | Form::MySql(_) | Form::Mixed, _) => self.form = Form::Mixed,
        }
    }

    /// What is in `self` and not in `other`. On MariaDB a position is all or nothing per
    /// domain: it stays unless `other` has reached it.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let form = match (&self.form, &other.form) {
            (Form::MariaDb(mine), Form::MariaDb(theirs)) => {
                let mut left = mine.clone();
                left.retain(|at| position_of(theirs, at.domain) < Some(at.sequence));
                if left.is_empty() { Form::Empty } else { Form::MariaDb(left) }
            }
            (Form::MySql(mine), Form::MySql(theirs)) => {
                let mut left = mine.clone();
                for source in &mut left {
                    if let Ok(at) = find(theirs, &source.uuid, &source.tag)
                        && let Some(gone) = theirs.get(at)
                    {
                        source.intervals.subtract(&gone.intervals);
                    }
                }
                left.retain(|source| !source.intervals.is_empty());
                if left.is_empty() { Form::Empty } else { Form::MySql(left) }
            }
            (Form::Empty | Form::MariaDb(_) | Form::MySql(_) | Form::Mixed, _) => self.form.clone(),
        };
        Self { form }
    }

    /// MySQL: without the transactions of the server with this UUID, tagged ones included. All of
    /// it where the text is no UUID, and on MariaDB.
    #[must_use]
    pub fn without_source(&self, uuid: &str) -> Self {
        let (Form::MySql(sources), Some(uuid)) = (&self.form, parse_uuid(uuid)) else {
            return self.clone();
        };
        let left: Vec<Source> = sources.iter().filter(|at| at.uuid != uuid).cloned().collect();
        Self { form: if left.is_empty() { Form::Empty } else { Form::MySql(left) } }
    }

    fn add_position(&mut self, position: Position) {
        match &mut self.form {
            Form::Empty => self.form = Form::MariaDb(vec![position]),
            Form::MariaDb(positions) => {
                match positions.binary_search_by_key(&position.domain, |at| at.domain) {
                    Ok(at) => {
                        if let Some(mine) = positions.get_mut(at)
                            && mine.sequence < position.sequence
                        {
                            *mine = position;
                        }
                    }
                    Err(at) => positions.insert(at, position),
                }
            }
            Form::MySql(_) | Form::Mixed => self.form = Form::Mixed,
        }
    }

    fn add_interval(&mut self, uuid: [u8; 16], tag: &str, interval: Interval) {
        let source = || Source { uuid, tag: Box::from(tag), intervals: Intervals::of(interval) };
        match &mut self.form {
            Form::Empty => self.form = Form::MySql(vec![source()]),
            Form::MySql(sources) => match find(sources, &uuid, tag) {
                Ok(at) => {
                    if let Some(mine) = sources.get_mut(at) {
                        mine.intervals.insert(interval);
                    }
                }
                Err(at) => sources.insert(at, source()),
            },
            Form::MariaDb(_) | Form::Mixed => self.form = Form::Mixed,
        }
    }
}

impl MariaDbState {
    /// Parses `@@gtid_binlog_state` (`0-2-58,0-1-60`); `None` when the text is malformed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut state = Self::default();
        for part in parts(text) {
            state.add(parse_position(part?)?);
        }
        Some(state)
    }

    /// Adds all that the other history holds.
    pub fn union(&mut self, other: &Self) {
        for entry in &other.entries {
            self.add(*entry);
        }
    }

    /// The last transaction of each domain and server that this history holds and the other does
    /// not, but for those of the servers `except`.
    #[must_use]
    pub fn beyond(&self, other: &Self, except: &[u32]) -> Self {
        let mut entries = self.entries.clone();
        entries.retain(|mine| {
            let key = (mine.domain, mine.server);
            let theirs = other.entries.iter().find(|at| (at.domain, at.server) == key);
            !except.contains(&mine.server) && theirs.is_none_or(|at| at.sequence < mine.sequence)
        });
        Self { entries }
    }

    /// Whether it tells of no transaction at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The servers that this history tells of, and the last transaction of each that the other one
    /// knows in the same domain.
    #[must_use]
    pub fn known_to(&self, other: &Self) -> Vec<(u32, Option<String>)> {
        let known = |mine: &Position| {
            let key = (mine.domain, mine.server);
            other.entries.iter().find(|at| (at.domain, at.server) == key)
        };
        let mine = self.entries.iter();
        mine.map(|mine| (mine.server, known(mine).map(Position::to_string))).collect()
    }

    /// What comes after a position in its domain; all of a domain that the position lacks.
    #[must_use]
    pub fn after(&self, position: &GtidSet) -> Self {
        let reached = match &position.form {
            Form::MariaDb(positions) => positions.as_slice(),
            Form::Empty | Form::MySql(_) | Form::Mixed => &[],
        };
        let mut entries = self.entries.clone();
        entries.retain(|at| position_of(reached, at.domain) < Some(at.sequence));
        Self { entries }
    }

    fn add(&mut self, new: Position) {
        let key = (new.domain, new.server);
        match self.entries.binary_search_by_key(&key, |at| (at.domain, at.server)) {
            Ok(at) => {
                if let Some(mine) = self.entries.get_mut(at) {
                    mine.sequence = mine.sequence.max(new.sequence);
                }
            }
            Err(at) => self.entries.insert(at, new),
        }
    }

    /// Whether the history with this state holds every transaction that `position` names, each
    /// judged by the server that wrote it. What is not contained is errant to that history.
    #[must_use]
    pub fn contains(&self, position: &GtidSet) -> bool {
        match &position.form {
            Form::Empty => true,
            Form::MariaDb(wanted) => wanted.iter().all(|want| {
                self.entries.iter().any(|at| {
                    (at.domain, at.server) == (want.domain, want.server)
                        && at.sequence >= want.sequence
                })
            }),
            Form::MySql(_) | Form::Mixed => false,
        }
    }
}

impl fmt::Display for GtidSet {
    /// The canonical text, as the family's own functions (`MASTER_GTID_WAIT`,
    /// `WAIT_FOR_EXECUTED_GTID_SET`) take it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.form {
            Form::Empty => Ok(()),
            Form::Mixed => f.write_str("(GTIDs of two families)"),
            Form::MariaDb(positions) => write_positions(f, positions),
            Form::MySql(sources) => {
                let mut last: Option<&[u8; 16]> = None;
                for source in sources {
                    if last != Some(&source.uuid) {
                        if last.is_some() {
                            f.write_str(",")?;
                        }
                        write_uuid(f, &source.uuid)?;
                        last = Some(&source.uuid);
                    }
                    if !source.tag.is_empty() {
                        write!(f, ":{}", source.tag)?;
                    }
                    write!(f, "{}", source.intervals)?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl fmt::Display for MariaDbState {
    /// As `@@gtid_binlog_state` is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_positions(f, &self.entries)
    }
}

fn write_positions(f: &mut fmt::Formatter<'_>, positions: &[Position]) -> fmt::Result {
    for (index, at) in positions.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(f, "{comma}{at}")?;
    }
    Ok(())
}

fn position_of(positions: &[Position], domain: u32) -> Option<u64> {
    let at = positions.binary_search_by_key(&domain, |at| at.domain).ok()?;
    positions.get(at).map(|at| at.sequence)
}

fn find(sources: &[Source], uuid: &[u8; 16], tag: &str) -> Result<usize, usize> {
    sources.binary_search_by(|at| match at.uuid.cmp(uuid) {
        Ordering::Equal => (*at.tag).cmp(tag),
        unequal => unequal,
    })
}

/// The comma-separated parts without surrounding space (servers break long sets into lines);
/// an empty part is malformed, unless the whole text is empty.
fn parts(text: &str) -> impl Iterator<Item = Option<&str>> {
    let text = text.trim();
    let parts = text.split(',').map(|part| Some(part.trim()).filter(|part| !part.is_empty()));
    parts.take(if text.is_empty() { 0 } else { usize::MAX })
}

fn parse_position(text: &str) -> Option<Position> {
    let mut fields = text.trim().split('-');
    let domain = u32::try_from(number(fields.next()?)?).ok()?;
    let server = u32::try_from(number(fields.next()?)?).ok()?;
    let sequence = number(fields.next()?)?;
    fields.next().is_none().then_some(Position { domain, server, sequence })
}

/// `uuid:interval[:interval]...[:tag:interval...]`, each interval handed to `each`.
fn parse_source(text: &str, mut each: impl FnMut([u8; 16], &str, Interval)) -> Option<()> {
    let mut fields = text.split(':').map(str::trim);
    let uuid = parse_uuid(fields.next()?)?;
    let mut tag = String::new();
    let mut complete = false;
    for field in fields {
        if field.starts_with(|first: char| first.is_ascii_digit()) {
            each(uuid, &tag, parse_interval(field)?);
            complete = true;
        } else {
            let first_or_after_intervals = tag.is_empty() || complete;
            if !first_or_after_intervals {
                return None;
            }
            tag = parse_tag(field)?;
            complete = false;
        }
    }
    complete.then_some(())
}

fn parse_interval(text: &str) -> Option<Interval> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first.trim())?, number(last.trim())?),
        None => (number(text)?, number(text)?),
    };
    Interval::new(first, last)
}

fn parse_tag(text: &str) -> Option<String> {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    let valid = text.starts_with(letter)
        && text.len() <= TAG_LEN_MAX
        && text.chars().all(|c| letter(c) || c.is_ascii_digit());
    valid.then(|| text.to_ascii_lowercase())
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut uuid = [0u8; 16];
    let mut digits = 0usize;
    for (at, &byte) in bytes.iter().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        let value = u8::try_from(char::from(byte).to_digit(16)?).ok()?;
        let slot = uuid.get_mut(digits / 2)?;
        *slot = (*slot << 4) | value;
        digits += 1;
    }
    Some(uuid)
}

fn write_uuid(f: &mut fmt::Formatter<'_>, uuid: &[u8; 16]) -> fmt::Result {
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

/// Decimal digits only; `str::parse` alone would take a leading plus sign.
fn number(text: &str) -> Option<u64> {
    text.starts_with(|first: char| first.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
