//! From a text to its class: what the leading words promise, and what the scan found.
//!
//! There is no short way to "read": a statement is one only if its verb is on the list of
//! those that may be, and the scan of all its tokens found nothing that no plain read has.
#![deny(clippy::indexing_slicing)]

use memchr::memchr;

use crate::router::lexer::Gate;
use crate::router::scan::Scan;
use crate::router::statement::Reader;
use crate::router::{Charset, Class, Dialect, Effects, Kind, Reason, Verb};

/// Longest text, in bytes, that is scanned whole; what lies beyond is never proven a read.
pub const SCAN_LIMIT: usize = 64 * 1024;

/// Classifies a text as the server of this dialect would read it. Pure; does not allocate.
#[must_use]
pub fn classify(sql: &[u8], dialect: &Dialect) -> Class {
    let (mut class, executable_seen) = read_with(sql, dialect, Gate::Server);
    if executable_seen {
        // Servers of a group may differ in version: every reading must be harmless.
        for gate in [Gate::All, Gate::Skip] {
            let (other, _) = read_with(sql, dialect, gate);
            class = worse(class, other);
        }
    }
    if class.kind != Kind::Primary
        && (dialect.charset == Charset::Unknown || memchr(0, sql).is_some())
    {
        class.kind = Kind::Primary;
        class.reason = Reason::Undecided;
    }
    class
}

/// The first reading, demoted and extended by what the second may do.
fn worse(first: Class, second: Class) -> Class {
    let demoted = match (first.kind, second.kind) {
        (Kind::Primary, _) => first.reason == Reason::HostLocal && second.kind == Kind::Primary,
        (Kind::Read | Kind::Last, Kind::Primary) => true,
        (Kind::Read, Kind::Last) | (Kind::Last, Kind::Read) => {
            // Two readings that disagree on this prove nothing.
            return Class {
                kind: Kind::Primary,
                reason: Reason::Undecided,
                effects: first.effects.with(second.effects),
                ..first
            };
        }
        (Kind::Read, Kind::Read) | (Kind::Last, Kind::Last) => false,
    };
    let (kind, reason) =
        if demoted { (second.kind, second.reason) } else { (first.kind, first.reason) };
    let effects = first.effects.with(second.effects);
    Class { kind, reason, effects, multi: first.multi || second.multi, ..first }
}

/// One reading of the text, and whether it holds executable comments.
fn read_with(sql: &[u8], dialect: &Dialect, gate: Gate) -> (Class, bool) {
    let mut reader = Reader::new(Scan::new(sql, dialect, gate, SCAN_LIMIT));
    let mut total: Option<Class> = None;
    while let Some(first) = reader.first_token() {
        let part = reader.classify(&first);
        total = Some(match total {
            None => part,
            Some(before) => combine(before, part),
        });
    }
    let mut class = total.unwrap_or(Class {
        kind: Kind::Primary,
        verb: Verb::Empty,
        effects: Effects::NONE,
        reason: Reason::Command,
        digest: 0,
        multi: false,
    });
    class.effects = class.effects.with(reader.scan.effects);
    if reader.scan.too_large {
        beyond_limit(&mut class, sql);
    }
    let executable_seen = reader.scan.executable_seen();
    class.digest = reader.scan.digest();
    (class, executable_seen)
}

/// What can still be said of a text whose end was not looked at.
fn beyond_limit(class: &mut Class, sql: &[u8]) {
    if class.kind != Kind::Primary || class.reason == Reason::HostLocal {
        class.kind = Kind::Primary;
        class.reason = Reason::TooLarge;
    }
    let unseen = sql.get(SCAN_LIMIT..).unwrap_or_default();
    if memchr(b';', unseen).is_some() {
        // Perhaps inside a string; perhaps one more statement, of any kind.
        class.multi = true;
        class.effects = class.effects.with(Effects::OPAQUE);
    }
}

/// The class of two statements in one text: only reads together are a read.
fn combine(before: Class, part: Class) -> Class {
    let (kind, reason) = match (before.kind, part.kind) {
        (Kind::Read, Kind::Read) => (Kind::Read, before.reason),
        (Kind::Last, Kind::Last) => (Kind::Last, before.reason),
        (Kind::Primary, Kind::Primary) if before.reason == Reason::HostLocal => {
            (Kind::Primary, part.reason)
        }
        (Kind::Primary, _) if before.reason == Reason::HostLocal => {
            (Kind::Primary, Reason::Undecided)
        }
        (Kind::Primary, _) => (Kind::Primary, before.reason),
        (_, Kind::Primary) if part.reason == Reason::HostLocal => {
            (Kind::Primary, Reason::Undecided)
        }
        (_, Kind::Primary) => (Kind::Primary, part.reason),
        (Kind::Read, Kind::Last) | (Kind::Last, Kind::Read) => (Kind::Primary, Reason::Undecided),
    };
    Class { kind, reason, multi: true, ..before }
}
