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
use crate::router::set::{self, SetTarget, SetValue};
use crate::session::Session;
use crate::session::outcome::TrimQuotes as _;
use crate::session::pin::Pin;
use crate::session::state::one_shot;
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

/// The collation that shares its place with this character set.
fn collation_beside(name: &[u8]) -> Option<&'static str> {
    match name {
        b"character_set_connection" => Some("collation_connection"),
        b"character_set_server" => Some("collation_server"),
        _ => None,
    }
}

impl Session {
    /// Learns what a reply's reports leave out. What a SET says in plain words is taken from
    /// there; after anything else the session stays where it is.
    pub(super) fn learn_merged(&mut self, tracks: &[u8]) {
        let told = |wanted: &[u8]| {
            session_track::changes(tracks)
                .flatten()
                .any(|change| matches!(change, Change::Variable { name, .. } if name == wanted))
        };
        let renamed = are_renamed(&self.state.dialect);
        let (mut options, mut collations) = (false, Vec::new());
        for change in session_track::changes(tracks).flatten() {
            let Change::Variable { name, .. } = change else { continue };
            options |= is_option(name);
            collations.extend(collation_beside(name).filter(|_| renamed));
        }
        if options || !collations.is_empty() {
            self.learn_from_text(|assigned| {
                let shares = options && is_option(assigned)
                    || collations.iter().any(|collation| collation.as_bytes() == assigned);
                shares && !told(assigned)
            });
        }
    }

    /// Learns those of the assigned variables that `is_hidden` chooses.
    fn learn_from_text(&mut self, is_hidden: impl Fn(&[u8]) -> bool) {
        let multi = self.pending.as_ref().is_some_and(|pending| pending.class.multi);
        let text = self.set_text().filter(|_| !multi);
        let assignments = text.and_then(|text| set::parse(&text, &self.state.dialect));
        let Some(assignments) = assignments else {
            self.pins.add(Pin::UnknownSet);
            return;
        };
        for assignment in assignments {
            let SetTarget::Session(name) = assignment.target else { continue };
            if !is_hidden(name.as_bytes()) {
                continue;
            }
            if one_shot(name.as_bytes()) {
                self.pins.add(Pin::ReplicationReplay);
            } else if is_option(name.as_bytes()) {
                match truth(&assignment.value) {
                    Some(on) => self.state.set_option(name.as_bytes(), on),
                    None => self.pins.add(Pin::UnknownSet),
                }
            } else {
                match word(&assignment.value) {
                    Some(collation) => self.state.set_collation(name.as_bytes(), collation),
                    None => self.pins.add(Pin::UnknownSet),
                }
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

/// What a plain word says of a bit.
fn truth(value: &SetValue) -> Option<bool> {
    match word(value)?.to_ascii_lowercase().as_slice() {
        b"1" | b"on" | b"true" => Some(true),
        b"0" | b"off" | b"false" => Some(false),
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
