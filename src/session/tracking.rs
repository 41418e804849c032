//! Which of the server's trackers the client asked for: ours are all on, the client sees its own.

use std::sync::Arc;

use crate::protocol::session_track::{self, Change};
use crate::session::options;

/// The client's own tracker settings, as the server would have them.
#[derive(Debug)]
pub struct Tracking {
    schema: bool,
    state_change: bool,
    gtids: bool,
    transaction: Transaction,
    variables: Variables,
    /// With what the session has begun: the server's global settings, in the order of [`NAMES`],
    /// with a `/` between two.
    began: Arc<str>,
    /// What the client has set, as text, in the order of [`NAMES`].
    set: Option<Box<Texts>>,
}

/// A text for each tracker that has one.
type Texts = [Option<Box<[u8]>>; 5];

/// The trackers; MariaDB has no tracker of GTIDs.
const NAMES: [&str; 5] = [
    "session_track_schema",
    "session_track_state_change",
    "session_track_transaction_info",
    "session_track_system_variables",
    "session_track_gtids",
];

#[derive(Debug, PartialEq, Eq)]
enum Transaction {
    Off,
    State,
    Characteristics,
}

#[derive(Debug, PartialEq, Eq)]
enum Variables {
    All,
    /// Those with which the session has begun: nearly always, so they are read where they stand.
    Began,
    These(Vec<Box<[u8]>>),
}

/// Both families' defaults, as [`Tracking::of`] takes them.
const DEFAULTS: &str = "ON/OFF/OFF/autocommit,character_set_client,\
    character_set_connection,character_set_results,time_zone/OFF";

impl Tracking {
    /// The settings of a session that has just begun; an empty text stands for the families'
    /// defaults.
    #[must_use]
    pub fn of(began: &Arc<str>) -> Self {
        let mut tracking = Self {
            schema: false,
            state_change: false,
            gtids: false,
            transaction: Transaction::Off,
            variables: Variables::Began,
            began: began.clone(),
            set: None,
        };
        for (name, value) in NAMES.iter().zip(texts(began)) {
            tracking.show(name, value.as_bytes());
        }
        tracking
    }

    /// Notes that the client set one of the trackers; `name` in lower case, `value` unquoted.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        if let Some(at) = NAMES.iter().position(|known| *known == name)
            && let Some(place) = self.set.get_or_insert_default().get_mut(at)
        {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_,*. ".contains(byte);
            *place = value.iter().all(plain).then(|| value.into());
        }
        let began = self.began.clone();
        let mut defaults = NAMES.iter().zip(texts(&began));
        match defaults.find(|(known, _)| **known == name) {
            Some((_, default)) if value.eq_ignore_ascii_case(b"default") => {
                self.show(name, default.as_bytes());
            }
            _ => self.show(name, value),
        }
    }

    /// Shows the client what the tracker `name` tells when it is set to `value`.
    fn show(&mut self, name: &str, value: &[u8]) {
        let on = value.eq_ignore_ascii_case(b"on")
            || value == b"1"
            || value.eq_ignore_ascii_case(b"true");
        match name {
            "session_track_schema" => self.schema = on,
            "session_track_state_change" => self.state_change = on,
            "session_track_gtids" => self.gtids = !value.eq_ignore_ascii_case(b"off"),
            "session_track_transaction_info" => {
                self.transaction = if value.eq_ignore_ascii_case(b"characteristics") {
                    Transaction::Characteristics
                } else if value.eq_ignore_ascii_case(b"state") {
                    Transaction::State
                } else {
                    Transaction::Off
                };
            }
            "session_track_system_variables" => {
                self.variables = if value == b"*" {
                    Variables::All
                } else if value == self.variables_at_first().as_bytes() {
                    Variables::Began
                } else {
                    let names = value.split(|byte| *byte == b',');
                    Variables::These(
                        names.map(|name| name.trim_ascii().to_ascii_lowercase().into()).collect(),
                    )
                };
            }
            _ => {}
        }
    }

    /// The list of variables with which the session has begun.
    fn variables_at_first(&self) -> &str {
        let mut texts = NAMES.iter().zip(texts(&self.began));
        let found = texts.find(|(name, _)| **name == "session_track_system_variables");
        found.map_or("", |(_, list)| list)
    }

    /// The statement that sets a link's trackers as the client has set its own.
    #[must_use]
    pub fn statement(&self, with_gtids: bool) -> Vec<u8> {
        let mut sql = b"SET SESSION ".to_vec();
        let names = if with_gtids { NAMES.len() } else { NAMES.len() - 1 };
        for (at, name) in NAMES.iter().enumerate().take(names) {
            let value = self.set.as_ref().and_then(|set| set.get(at)).and_then(Option::as_deref);
            if at > 0 {
                sql.extend_from_slice(b", ");
            }
            sql.extend_from_slice(name.as_bytes());
            match value {
                None => sql.extend_from_slice(b"=DEFAULT"),
                Some(value) if value.eq_ignore_ascii_case(b"default") => {
                    sql.extend_from_slice(b"=DEFAULT");
                }
                Some(value) => {
                    let number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                    let quote: &[u8] = if number { b"" } else { b"'" };
                    for part in [b"=", quote, value, quote] {
                        sql.extend_from_slice(part);
                    }
                }
            }
        }
        sql
    }

    /// The block of changes that the client is to see out of `block`. `renamed` is given for
    /// servers that tell of a variable by the name of another one (see [`super::options`]), with
    /// the value of `autocommit`: to the client they would tell of it by the name that it has
    /// asked for.
    #[must_use]
    pub fn filter(&self, block: &[u8], renamed: Option<bool>) -> Vec<u8> {
        let mut shown = Vec::new();
        for change in session_track::changes(block).flatten() {
            let other = renamed.and_then(|autocommit| self.by_another_name(&change, autocommit));
            let change = other.unwrap_or(change);
            if self.shows(&change) {
                session_track::push(&mut shown, &change);
            }
        }
        shown
    }

    /// The name, and the value, under which the client knows of a change.
    fn by_another_name<'a>(&self, change: &Change<'a>, autocommit: bool) -> Option<Change<'a>> {
        let Change::Variable { name, value } = *change else { return None };
        let (name, value): (&[u8], &[u8]) = if name == b"collation_connection" {
            let charset = value.split(|byte| *byte == b'_').next()?;
            (b"character_set_connection", charset)
        } else if options::is_option(name) {
            (b"autocommit", if autocommit { b"ON" } else { b"OFF" })
        } else {
            return None;
        };
        let other = Change::Variable { name, value };
        (self.variables != Variables::All && self.shows(&other)).then_some(other)
    }

    fn shows(&self, change: &Change<'_>) -> bool {
        match change {
            Change::Schema(_) => self.schema,
            Change::StateChange => self.state_change,
            Change::Gtids(_) => self.gtids,
            Change::TransactionState(_) => self.transaction != Transaction::Off,
            Change::TransactionCharacteristics(_) => {
                self.transaction == Transaction::Characteristics
            }
            Change::Variable { name, .. } => match &self.variables {
                Variables::All => true,
                Variables::Began => self
                    .variables_at_first()
                    .split(',')
                    .any(|shown| shown.trim_ascii().as_bytes().eq_ignore_ascii_case(name)),
                Variables::These(names) => names.iter().any(|shown| **shown == **name),
            },
            Change::Unknown { .. } => true,
        }
    }
}

/// What each of [`NAMES`] is at first, by the server's settings; none stand for the defaults.
fn texts(began: &str) -> impl Iterator<Item = &str> {
    if began.is_empty() { DEFAULTS } else { began }.split('/')
}

/// Whether a statement about the host's own values may show how the trackers are set.
#[must_use]
pub fn are_shown_by(sql: &[u8]) -> bool {
    let names = |word: &[u8]| sql.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word));
    names(b"session_track") || (names(b"variables") && !shows_others(sql))
}

/// Whether it is SHOW VARIABLES LIKE with a pattern that begins as no tracker does. Drivers begin
/// with such ones.
fn shows_others(sql: &[u8]) -> bool {
    let sql = sql.trim_ascii_end();
    let Some(quoted) = sql.strip_suffix(b";").unwrap_or(sql).trim_ascii_end().strip_suffix(b"'")
    else {
        return false;
    };
    let mut parts = quoted.split(|byte| *byte == b'\'');
    let (Some(head), Some(pattern), None) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    let words: Vec<&[u8]> =
        head.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    let shows = match words.as_slice() {
        [b"show", b"variables", b"like"] => true,
        [b"show", scope, b"variables", b"like"] => {
            [b"session".as_slice(), b"global", b"local"].contains(scope)
        }
        _ => false,
    };
    let mut literal = pattern.iter().take_while(|byte| !b"%_\\".contains(*byte)).zip(b"session");
    shows && !literal.all(|(a, b)| a.eq_ignore_ascii_case(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_begins_with_what_its_server_tells_by_default() {
        let variable = |name: &'static [u8]| Change::Variable { name, value: b"x" };
        let usual = Tracking::of(&Arc::from(""));
        assert!(usual.shows(&variable(b"time_zone")) && usual.shows(&Change::Schema(b"d")));
        assert!(!usual.shows(&variable(b"sql_mode")) && !usual.shows(&Change::StateChange));

        let mut tracking = Tracking::of(&Arc::from("OFF/ON/CHARACTERISTICS/sql_mode"));
        let shows = |tracking: &Tracking| {
            let changes = [variable(b"sql_mode"), variable(b"time_zone"), Change::Schema(b"d")];
            changes.map(|change| tracking.shows(&change))
        };
        assert_eq!(shows(&tracking), [true, false, false]);
        assert!(tracking.shows(&Change::TransactionCharacteristics(b"x")));
        tracking.set("session_track_system_variables", b"time_zone");
        tracking.set("session_track_schema", b"1");
        assert_eq!(shows(&tracking), [false, true, true]);
        tracking.set("session_track_system_variables", b"DEFAULT");
        tracking.set("session_track_schema", b"default");
        assert_eq!(shows(&tracking), [true, false, false]);
    }

    #[test]
    fn a_pattern_that_begins_otherwise_shows_no_tracker() {
        for (sql, shown) in [
            ("SHOW VARIABLES", true),
            ("SHOW VARIABLES LIKE 'profil%'", false),
            ("show  session variables like 'lower_case_%' ; ", false),
            ("SHOW GLOBAL VARIABLES LIKE 'max_allowed_packet'", false),
            ("SHOW VARIABLES LIKE 'sql_mode'", false),
            ("SHOW VARIABLES LIKE 'Sess%'", true),
            ("SHOW VARIABLES LIKE 'session\\_track%'", true),
            ("SHOW VARIABLES LIKE '%track%'", true),
            ("SHOW VARIABLES LIKE '_e%'", true),
            ("SHOW VARIABLES LIKE '\\session_track%'", true),
            ("SHOW VARIABLES LIKE ''", true),
            ("SHOW VARIABLES LIKE 'a' '%'", true),
            ("SHOW VARIABLES WHERE variable_name LIKE 'a'", true),
            ("SHOW VARIABLES LIKE 'a'; SHOW VARIABLES", true),
            ("SELECT * FROM information_schema.session_variables WHERE 1 OR 1 LIKE 'a'", true),
            ("SHOW STATUS LIKE 'a'", false),
            ("SELECT @@session_track_schema", true),
        ] {
            assert_eq!(are_shown_by(sql.as_bytes()), shown, "{sql}");
        }
    }
}
