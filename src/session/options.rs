//! Variables that share a place, of which MariaDB's trackers tell by one name.
//!
//! MariaDB knows a tracked variable by where its value is kept, and a word of bits, or a collation
//! with its character set, is one place. In one reply it tells of each place once: after `SET
//! unique_checks = 0, foreign_key_checks = 0` only of `unique_checks` (10.11, measured). From one
//! reply to the next MariaDB 11 remembers the name, too: after `SET sql_safe_updates = 1`, `SET
//! foreign_key_checks = 0` is reported as `sql_safe_updates=ON` (11.8, measured). So a report says
//! that something in its place has changed, and the text says what.

use crate::protocol::session_track::{self, Change};
use crate::router::Dialect;
use crate::router::policy::Held;
use crate::router::set::{SetTarget, SetValue};
use crate::session::Session;
use crate::session::outcome::TrimQuotes as _;
use crate::session::pin::Pin;
use crate::topology::Flavour;

/// Bits of the word of options, and of the words of what the slow log shows; in order. What
/// sql_log_bin says stands in a place of its own.
const OPTIONS: [&[u8]; 23] = [
    b"autocommit",
    b"check_constraint_checks",
    b"explicit_defaults_for_timestamp",
    b"foreign_key_checks",
    b"log_queries_not_using_indexes",
    b"log_slow_admin_statements",
    b"log_slow_disabled_statements",
    b"log_slow_filter",
    b"log_slow_slave_statements",
    b"profiling",
    b"skip_parallel_replication",
    b"skip_replication",
    b"sql_auto_is_null",
    b"sql_big_selects",
    b"sql_buffer_result",
    b"sql_if_exists",
    b"sql_log_off",
    b"sql_notes",
    b"sql_quote_show_create",
    b"sql_safe_updates",
    b"sql_warnings",
    b"system_versioning_insert_history",
    b"unique_checks",
];

/// Whether a report under this name may be about another option.
pub(super) fn is_option(name: &[u8]) -> bool {
    OPTIONS.binary_search(&name).is_ok()
}

/// Whether a place keeps the name under which it was reported first. Measured with 11.8; 10.11
/// does not.
pub(super) fn are_renamed(dialect: &Dialect) -> bool {
    dialect.flavour == Flavour::MariaDb && dialect.version >= 110_000
}

/// Character sets, each with the collation that shares its place.
const PAIRS: [(&[u8], &[u8]); 2] = [
    (b"character_set_connection", b"collation_connection"),
    (b"character_set_server", b"collation_server"),
];

/// The character set that shares its place with this collation.
pub(super) fn charset_beside(collation: &[u8]) -> Option<&'static [u8]> {
    PAIRS.into_iter().find(|(_, known)| *known == collation).map(|(charset, _)| charset)
}

/// Whether a report under this name may leave out what a SET has done to another variable.
pub(super) fn may_hide_others(name: &[u8], dialect: &Dialect) -> bool {
    dialect.flavour == Flavour::MariaDb
        && (is_option(name)
            || are_renamed(dialect) && PAIRS.into_iter().any(|(charset, _)| charset == name))
}

impl Session {
    /// Learns what a reply's reports leave out, of which one may. What a SET says in plain words
    /// is taken from there, as if it had been reported; after anything else the session stays
    /// where it is.
    pub(super) fn learn_merged(&mut self, tracks: &[u8]) {
        let Some(assignments) = self.assignments() else {
            self.pins.add(Pin::UnknownSet);
            return;
        };
        let told = |wanted: &[u8]| {
            session_track::changes(tracks)
                .flatten()
                .any(|change| matches!(change, Change::Variable { name, .. } if name == wanted))
        };
        let options = OPTIONS.into_iter().any(told);
        for assignment in assignments {
            let SetTarget::Session(name) = assignment.target else { continue };
            let name = name.as_bytes();
            let option = is_option(name);
            let shares = option && options || charset_beside(name).is_some_and(told);
            if !shares || told(name) {
                continue;
            }
            let value = if option { truth(&assignment.value) } else { word(&assignment.value) };
            match value {
                Some(value) => {
                    self.learn(&Change::Variable { name, value }, Held::Primary);
                }
                None => self.pins.add(Pin::UnknownSet),
            }
        }
    }
}

/// A plain word, in quotes or not.
fn word(value: &SetValue) -> Option<&[u8]> {
    let (SetValue::Literal(word) | SetValue::Words(word)) = value else { return None };
    let word = word.trim_quotes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    (!word.is_empty() && word.iter().all(plain)).then_some(word)
}

/// What a plain word says of a bit, as a report would.
fn truth(value: &SetValue) -> Option<&'static [u8]> {
    match word(value)?.to_ascii_lowercase().as_slice() {
        b"1" | b"on" | b"true" => Some(b"ON"),
        b"0" | b"off" | b"false" => Some(b"OFF"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_can_be_searched() {
        assert!(OPTIONS.is_sorted());
        assert!(is_option(b"unique_checks") && !is_option(b"sql_mode"));
    }
}
