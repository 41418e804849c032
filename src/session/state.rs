//! What must follow the client from link to link: schema, variables, role, charset.
//!
//! The server's trackers are the truth; this is where they are written down. Each entry bears
//! the version at which it last changed, so that a link which was synchronised at version *n*
//! needs exactly the entries above *n*.

use crate::protocol::flags::Status;
use crate::protocol::session_track::Change;
use crate::router::policy::Held;
use crate::router::{Charset, Dialect, is_host_local_schema};
use crate::session::options::{are_renamed, charset_beside};
use crate::session::user_variables::UserVariables;
use crate::topology::Flavour;
use crate::topology::gtid::GtidSet;

/// Longest value of a variable that is reproduced, bytes.
const VALUE_MAX: usize = 1024;

/// The session's state as far as it can be reproduced on another link.
#[derive(Debug)]
pub struct State {
    /// Status flags of the last reply that concerned the session's own link.
    pub status: Status,
    /// How statements of this session must be read.
    pub dialect: Dialect,
    /// The session's own writes, and what it has seen as far as that is known.
    pub token: GtidSet,
    /// Grows with every change.
    pub version: u32,
    schema: Option<Vec<u8>>,
    /// What is read there concerns one host: asked for each statement, so it is kept.
    in_host_local_schema: bool,
    schema_at: u32,
    /// The statement that sets the role, and when it was set.
    role: Option<(Vec<u8>, u32)>,
    variables: Vec<Entry>,
    pub(super) user_variables: UserVariables,
    charset_at: u32,
    /// SET NAMES: its words, and when. A client's character sets have collations of their own
    /// then (MariaDB tells them with each column), which no assignment to a variable can
    /// reproduce.
    names: Option<(Vec<u8>, u32)>,
}

/// A named value and the version at which it was last set.
#[derive(Debug)]
struct Entry {
    name: Box<[u8]>,
    value: Box<[u8]>,
    at: u32,
}

/// What learning a change asks of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Learnt {
    /// Written down (or of no concern).
    Noted,
    /// The token grew: the session wrote this.
    Wrote(GtidSet),
    /// It cannot be reproduced by text; the session must stay.
    Irreproducible,
    /// From now on the session watches what only one host keeps.
    HostBound,
}

impl State {
    /// The state right after login.
    #[must_use]
    pub fn new(dialect: Dialect, schema: Option<Vec<u8>>, status: Status) -> Self {
        Self {
            status,
            dialect,
            token: GtidSet::default(),
            version: 1,
            in_host_local_schema: schema.as_deref().is_some_and(is_host_local_schema),
            schema,
            schema_at: 1,
            role: None,
            variables: Vec::new(),
            user_variables: UserVariables::default(),
            charset_at: 0,
            names: None,
        }
    }

    /// Whether the current schema is one of those that differ from server to server.
    #[must_use]
    pub fn is_in_host_local_schema(&self) -> bool {
        self.in_host_local_schema
    }

    /// The current schema.
    #[must_use]
    pub fn schema(&self) -> Option<&[u8]> {
        self.schema.as_deref()
    }

    /// Writes down one tracked change that a reply on `slot` carried.
    pub fn learn(&mut self, change: &Change<'_>, slot: Held) -> Learnt {
        match change {
            Change::Schema(name) => {
                self.set_schema(name);
                Learnt::Noted
            }
            Change::Variable { name, value } => self.learn_variable(name, value, slot),
            Change::Gtids(text) => self.learn_gtid(text),
            Change::StateChange
            | Change::TransactionCharacteristics(_)
            | Change::TransactionState(_)
            | Change::Unknown { .. } => Learnt::Noted,
        }
    }

    fn learn_gtid(&mut self, text: &[u8]) -> Learnt {
        let text = std::str::from_utf8(text).unwrap_or_default();
        match GtidSet::parse(self.dialect.flavour, text) {
            Some(written) if !written.is_empty() => {
                self.token.add(&written);
                Learnt::Wrote(written)
            }
            Some(_) | None => Learnt::Noted,
        }
    }

    fn learn_variable(&mut self, name: &[u8], value: &[u8], slot: Held) -> Learnt {
        if name == b"last_gtid" {
            return self.learn_gtid(value);
        }
        if tells_of_statement(name)
            || name.starts_with(b"session_track_")
            || belongs_to_link(name, slot)
        {
            return Learnt::Noted;
        }
        if one_shot(name) {
            return Learnt::Irreproducible;
        }
        match name {
            b"sql_mode" => self.dialect = self.dialect.with_sql_mode(value),
            b"character_set_client" => self.dialect.charset = Charset::from_name(value),
            b"character_set_connection" => {
                // Its collation fell back to the charset's default: an explicit one is void.
                self.variables.retain(|entry| *entry.name != *b"collation_connection");
                self.charset_at = self.version.wrapping_add(1);
            }
            b"collation_connection" => self.charset_at = self.version.wrapping_add(1),
            _ => {}
        }
        if let Some(charset) = charset_beside(name).filter(|_| are_renamed(&self.dialect)) {
            // The same place by its other name.
            self.variables.retain(|entry| *entry.name != *charset);
        }
        self.set_variable(name, value);
        if binds_to_host(name, value) {
            Learnt::HostBound
        } else if restorable_text(value) {
            Learnt::Noted
        } else {
            Learnt::Irreproducible
        }
    }

    /// Writes down a system variable.
    fn set_variable(&mut self, name: &[u8], value: &[u8]) {
        self.version = self.version.wrapping_add(1);
        upsert(&mut self.variables, name, value, self.version);
    }

    /// The tracked value of a system variable that the session has set.
    #[must_use]
    pub fn variable(&self, name: &[u8]) -> Option<&[u8]> {
        self.variables.iter().find(|entry| *entry.name == *name).map(|entry| &*entry.value)
    }

    /// Whether plain reads inside a transaction take locks: they belong to the primary then.
    #[must_use]
    pub fn is_serializable(&self) -> bool {
        // MariaDB before 11.1 has the older name.
        let level = self.variable(b"transaction_isolation");
        let level = level.or_else(|| self.variable(b"tx_isolation"));
        level.is_some_and(|level| level.eq_ignore_ascii_case(b"SERIALIZABLE"))
    }

    /// Writes down the schema after a successful USE or COM_INIT_DB.
    pub fn set_schema(&mut self, name: &[u8]) {
        if self.schema.as_deref() != Some(name) {
            self.version = self.version.wrapping_add(1);
            self.in_host_local_schema = is_host_local_schema(name);
            self.schema = Some(name.to_vec());
            self.schema_at = self.version;
        }
    }

    /// Writes down the role that SET ROLE named, as it was written.
    pub fn set_role(&mut self, text: &[u8]) {
        self.version = self.version.wrapping_add(1);
        self.role = Some(([b"SET ROLE ", text].concat(), self.version));
    }

    /// MariaDB's role outlives a COM_CHANGE_USER unless the account has a default role (10.11,
    /// measured). It does for other users too, who then have rights that nobody gave them:
    /// that is not repeated here.
    pub fn inherit_role(&mut self, former: &Self) {
        const HEAD: &[u8] = b"EXECUTE IMMEDIATE IF(CURRENT_ROLE() IS NULL, '";
        let Some((sql, _)) = former.role.as_ref() else { return };
        let quoted: Vec<u8> = sql
            .iter()
            .flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b'\'' { 2 } else { 1 }))
            .collect();
        let sql = match sql.starts_with(HEAD) {
            true => sql.clone(),
            false => [HEAD, &quoted, b"', 'DO 0')"].concat(),
        };
        self.version = self.version.wrapping_add(1);
        self.role = Some((sql, self.version));
    }

    /// Whether a role was set.
    #[must_use]
    pub fn has_role(&self) -> bool {
        self.role.is_some()
    }

    /// Writes down a user variable set by a literal; false when it cannot be kept.
    #[must_use]
    pub fn set_user_variable(&mut self, name: &[u8], literal: &[u8]) -> bool {
        self.version = self.version.wrapping_add(1);
        self.user_variables.set(name, literal, self.version)
    }

    /// Writes down `SET NAMES charset [COLLATE collation]`, whose character sets the trackers
    /// have told as variables before. What they told of the variables `set_later` counts: the
    /// same SET assigns them after the NAMES.
    pub fn set_names(&mut self, words: &[u8], set_later: &[String]) {
        const TOLD: [&[u8]; 4] = [
            b"character_set_client",
            b"character_set_connection",
            b"character_set_results",
            b"collation_connection",
        ];
        let later = |name: &[u8]| set_later.iter().any(|later| later.as_bytes() == name);
        self.variables.retain(|entry| !TOLD.contains(&&*entry.name) || later(&entry.name));
        self.version = self.version.wrapping_add(1);
        self.charset_at = self.version;
        self.names = Some((words.to_vec(), self.version));
    }

    /// Whether every user variable would come out the same elsewhere.
    #[must_use]
    pub fn user_variables_restorable(&self) -> bool {
        self.user_variables.are_restorable(self.charset_at)
    }

    /// Whether the literals of the known user variables would be read as they were.
    #[must_use]
    pub fn user_variables_readable(&self) -> bool {
        self.user_variables.are_readable(self.charset_at)
    }

    /// Forgets what COM_RESET_CONNECTION resets. Schema and role stay: measured on MariaDB
    /// 10.11 and MySQL 9.7, the reset leaves both in place.
    pub fn reset(&mut self, dialect: Dialect) {
        self.version = self.version.wrapping_add(1);
        self.variables.clear();
        self.user_variables = UserVariables::default();
        // MySQL returns to the server's character set, MariaDB to that of the login (measured).
        self.names = match dialect.flavour {
            Flavour::MySql => Some((b"DEFAULT".to_vec(), self.version)),
            Flavour::MariaDb => None,
        };
        self.charset_at = 0;
        self.dialect = dialect;
        let schema_and_role_are_newer = self.version;
        self.schema_at = schema_and_role_are_newer;
        if let Some((_, at)) = &mut self.role {
            *at = schema_and_role_are_newer;
        }
    }

    /// The schema to select on a link that was synchronised at `since` and has `on_link`.
    #[must_use]
    pub fn schema_to_send(&self, since: u32, on_link: Option<&[u8]>) -> Option<&[u8]> {
        let schema = self.schema.as_deref()?;
        (self.schema_at > since && on_link != Some(schema)).then_some(schema)
    }

    /// The statement that sets the role, which a link synchronised at `since` needs.
    #[must_use]
    pub fn role_to_send(&self, since: u32) -> Option<Vec<u8>> {
        let (sql, at) = self.role.as_ref()?;
        (*at > since).then(|| sql.clone())
    }

    /// The SET statement that must be over before user variables can be set by a literal: a
    /// string takes the collation that the connection has when its statement is read. `None`
    /// when nothing of that kind is to be set.
    #[must_use]
    pub fn charsets_to_send(&self, since: u32, synced: u32, slot: Held) -> Option<Vec<u8>> {
        let strings = self.user_variables.has_strings_after(synced);
        let names = self.names.as_ref().is_some_and(|(_, at)| *at > since);
        let sql = (strings && (names || self.charset_at > since))
            .then(|| self.system_variables(since, slot));
        sql.filter(|sql| !sql.is_empty())
    }

    /// The SET statement that a link needs which has the system variables of `since` and the
    /// user variables of `synced`; `None` when it needs none.
    #[must_use]
    pub fn variables_to_send(&self, since: u32, synced: u32, slot: Held) -> Option<Vec<u8>> {
        let mut sql = self.system_variables(since, slot);
        self.user_variables.push_after(synced, &mut sql, begin_assignment);
        (!sql.is_empty()).then_some(sql)
    }

    fn system_variables(&self, since: u32, slot: Held) -> Vec<u8> {
        let mut sql = Vec::new();
        if let Some((words, _)) = self.names.as_ref().filter(|(_, at)| *at > since) {
            sql.extend_from_slice(b"SET NAMES ");
            sql.extend_from_slice(words);
        }
        for entry in self.variables.iter().filter(|entry| entry.at > since) {
            if slot == Held::Replica && primary_only(&entry.name) {
                continue;
            }
            begin_assignment(&mut sql);
            sql.extend_from_slice(&entry.name);
            sql.push(b'=');
            push_value(&mut sql, &entry.name, &entry.value);
        }
        sql
    }
}

fn begin_assignment(sql: &mut Vec<u8>) {
    sql.extend_from_slice(if sql.is_empty() { b"SET " } else { b", " });
}

fn upsert(entries: &mut Vec<Entry>, name: &[u8], value: &[u8], at: u32) {
    if let Some(entry) = entries.iter_mut().find(|entry| *entry.name == *name) {
        entry.value = value.into();
        entry.at = at;
    } else {
        entries.push(Entry { name: name.into(), value: value.into(), at });
    }
}

/// Writes a tracked value as SQL: numbers bare (a numeric variable refuses a string), the rest
/// quoted. An empty charset of results is NULL.
fn push_value(sql: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let numeric =
        value.first().is_some_and(|b| b.is_ascii_digit() || (*b == b'-' && value.len() > 1))
            && value.iter().skip(1).all(|b| b.is_ascii_digit() || *b == b'.');
    if numeric {
        sql.extend_from_slice(value);
    } else if value.is_empty() && name == b"character_set_results" {
        sql.extend_from_slice(b"NULL");
    } else {
        sql.push(b'\'');
        for byte in value {
            sql.push(*byte);
            if *byte == b'\'' {
                sql.push(b'\'');
            }
        }
        sql.push(b'\'');
    }
}

/// Whether a value can be written in a SET whatever the link's sql_mode and charset are.
fn restorable_text(value: &[u8]) -> bool {
    value.len() <= VALUE_MAX && value.iter().all(|b| b.is_ascii() && *b != b'\\' && *b >= b' ')
}

/// Variables that every statement moves by itself: reported, but nobody has set them. MySQL 9.7
/// reports `statement_id` with each OK.
#[must_use]
pub fn tells_of_statement(name: &[u8]) -> bool {
    matches!(name, b"last_gtid" | b"statement_id")
}

/// Variables that a replica's link sets for its own purposes.
fn belongs_to_link(name: &[u8], slot: Held) -> bool {
    slot == Held::Replica && primary_only(name)
}

/// Variables that concern writing and are never reproduced on a replica's link.
fn primary_only(name: &[u8]) -> bool {
    matches!(name, b"autocommit" | b"tx_read_only" | b"transaction_read_only")
}

/// Whether a session with this setting must see what its own statements left on one host:
/// profiles, optimizer traces, estimates, its last insert's id.
fn binds_to_host(name: &[u8], value: &[u8]) -> bool {
    match name {
        b"profiling" => value.eq_ignore_ascii_case(b"on"),
        b"optimizer_trace" => value.starts_with(b"enabled=on"),
        b"enforce_storage_engine" => !value.is_empty(),
        // How many rows a join would look at is estimated by each server for itself.
        b"max_join_size" => value != b"18446744073709551615",
        b"sql_big_selects" => value.eq_ignore_ascii_case(b"off"),
        // `WHERE id IS NULL` finds the row of the link's last insert.
        b"sql_auto_is_null" => value.eq_ignore_ascii_case(b"on"),
        _ => false,
    }
}

/// Variables that act once or steer replication: their text cannot be replayed elsewhere.
fn one_shot(name: &[u8]) -> bool {
    matches!(
        name,
        b"timestamp"
            | b"insert_id"
            | b"last_insert_id"
            | b"identity"
            | b"rand_seed1"
            | b"rand_seed2"
            | b"gtid_next"
            | b"gtid_domain_id"
            | b"gtid_seq_no"
            | b"server_id"
            | b"sql_log_bin"
    ) || name.starts_with(b"pseudo_")
}

/// The character set family of a collation id of the handshake.
#[must_use]
pub fn charset_of_collation(collation: u8) -> Charset {
    match collation {
        28 | 87 => Charset::Gbk,
        1 | 84 => Charset::Big5,
        13 | 88 | 95 | 96 => Charset::Sjis,
        248..=250 => Charset::Gb18030,
        // ucs2, utf16, utf16le, utf32: servers refuse these as client character sets.
        35 | 54..=56 | 60..=62 | 90 | 101..=183 => Charset::Unknown,
        _ => Charset::AsciiSafe,
    }
}

/// The dialect that a server's facts and the client's handshake imply.
#[must_use]
pub fn initial_dialect(
    facts: &crate::topology::ServerFacts,
    collation: u8,
    ignore_space: bool,
) -> Dialect {
    let mut dialect = Dialect::of_server(facts).with_charset(charset_of_collation(collation));
    dialect.ignore_space |= ignore_space;
    dialect
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Flavour;

    /// Seen on MySQL 9.7: every OK reports `statement_id`; replayed on a replica it was refused
    /// (1238), and no read reached a replica any more.
    #[test]
    fn what_every_statement_moves_is_no_state() {
        let dialect = Dialect::plain(Flavour::MySql, 90_704);
        let mut state = State::new(dialect, None, Status(2));
        let change = Change::Variable { name: b"statement_id", value: b"36" };
        assert_eq!(state.learn(&change, Held::Primary), Learnt::Noted);
        assert_eq!(state.variables_to_send(0, 0, Held::Replica), None);
    }
}
