//! Puts the session's own answers in place of what a server would say about its link:
//! CONNECTION_ID(), `@@pseudo_thread_id` and `@@socket`; FOUND_ROWS() and ROW_COUNT() of a
//! statement whose link has been given up.
//!
//! Drivers on the same host ask `@@socket` and go on there, past the proxy; KILL takes the
//! number that the client was greeted with. The columns keep their names. Where a statement looks
//! for its own row in a list of threads, or compares with who holds a lock, the number stays the
//! server's.
//!
//! MariaDB reports `SET name = ...` and `SET @@session.name = ...` with its trackers, but not
//! `SET @@name = ...` (measured with 10.11): that one is given the scope that it has anyway.
#![deny(clippy::indexing_slicing)]

use std::ops::Range;

use crate::router::keyword as kw;
use crate::router::lexer::{Gate, Lexer, Token, TokenKind};
use crate::router::{Dialect, SCAN_LIMIT, names};
use crate::topology::Flavour;

/// Tables whose rows are threads of the server, in lower case.
const OF_THREADS: [&[u8]; 3] = [b"processlist", b"threads", b"innodb_trx"];

/// Longest alias that a server takes, bytes (it counts characters).
const ALIAS_LIMIT: usize = 256;

/// The text with the session's answers in it; `None` when there is nothing to replace.
/// Strings, comments and bodies of stored programs are left alone.
#[must_use]
pub fn virtualise(sql: &[u8], dialect: &Dialect, connection_id: u32) -> Option<Vec<u8>> {
    rewrite(sql, dialect, Put::Session { connection_id })
}

/// Numbers of a session's previous statements whose link it has given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// In place of FOUND_ROWS().
    pub found: Option<u64>,
    /// In place of ROW_COUNT().
    pub rows: Option<i64>,
}

/// The text with the session's own numbers in place of FOUND_ROWS() and ROW_COUNT(); `None` when
/// there is nothing to replace.
#[must_use]
pub fn counts(sql: &[u8], dialect: &Dialect, counts: Counts) -> Option<Vec<u8>> {
    rewrite(sql, dialect, Put::Counts(counts))
}

/// Whether the word ROW_COUNT stands somewhere in the text outside of strings and comments.
#[must_use]
pub fn names_row_count(sql: &[u8], dialect: &Dialect) -> bool {
    let mut lexer = Lexer::new(sql, dialect, Gate::Server);
    std::iter::from_fn(|| lexer.token()).any(|token| token.is_word(kw::ROW_COUNT))
}

/// Whether the text asks for the status `Last_query_cost`.
#[must_use]
pub fn names_query_cost(sql: &[u8], dialect: &Dialect) -> bool {
    let mut lexer = Lexer::new(sql, dialect, Gate::Server);
    std::iter::from_fn(|| lexer.token()).any(|token| {
        token.kind == TokenKind::String
            && token.inside(sql).eq_ignore_ascii_case(b"last_query_cost")
    })
}

/// What a SHOW shows, in lower case: the first word behind it that is no FULL.
#[must_use]
pub fn shown(sql: &[u8], dialect: &Dialect) -> Option<Vec<u8>> {
    let mut lexer = Lexer::new(sql, dialect, Gate::Server);
    let mut words = std::iter::from_fn(|| lexer.token()).filter(|t| t.kind == TokenKind::Word);
    let what = words.find(|token| !token.is_word(kw::SHOW) && !token.is_word(kw::FULL))?;
    Some(what.bytes(sql).to_ascii_lowercase())
}

/// The names, in lower case, of the user variables before an `=` in the text, and the word behind
/// it. A name that would have to be quoted with care is left out.
#[must_use]
pub fn assigned_variables(sql: &[u8], dialect: &Dialect) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut lexer = Lexer::new(sql, dialect, Gate::Server);
    let mut names = Vec::new();
    let mut variable: Option<Vec<u8>> = None;
    while let Some(token) = lexer.token() {
        if token.is_punct(b'=') {
            let item = lexer.token().map(|item| item.bytes(sql).to_ascii_uppercase());
            names.extend(variable.take().zip(item));
            continue;
        }
        variable = None;
        if token.kind == TokenKind::UserVar {
            let name = token.bytes(sql).strip_prefix(b"@").unwrap_or_default();
            let name = name.strip_prefix(b"`").and_then(|n| n.strip_suffix(b"`")).unwrap_or(name);
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.$".contains(byte);
            variable =
                (!name.is_empty() && name.iter().all(plain)).then(|| name.to_ascii_lowercase());
        }
    }
    names
}

fn rewrite(sql: &[u8], dialect: &Dialect, put: Put) -> Option<Vec<u8>> {
    if sql.len() > SCAN_LIMIT {
        return None;
    }
    let mut lexer = Lexer::new(sql, dialect, Gate::Server);
    let mut tokens = Vec::new();
    while let Some(token) = lexer.token() {
        tokens.push(token);
    }
    let untracked = dialect.flavour == Flavour::MariaDb && matches!(put, Put::Session { .. });
    let mut pass = Pass {
        sql,
        put,
        unscoped_untracked: untracked,
        of_threads: false,
        of_locks: false,
        is_compared: false,
        edits: Vec::new(),
    };
    for statement in tokens.split(|token| token.is_punct(b';')) {
        // What follows a semicolon asks about the statement before it.
        if !pass.statement(statement) || matches!(put, Put::Counts(_)) {
            break;
        }
    }
    pass.apply()
}

/// One change: these bytes become those.
struct Edit {
    span: Range<usize>,
    text: Vec<u8>,
}

/// What is put in.
#[derive(Clone, Copy)]
enum Put {
    /// Answers about the session's own connection.
    Session { connection_id: u32 },
    /// Numbers of previous statements.
    Counts(Counts),
}

struct Pass<'a> {
    sql: &'a [u8],
    put: Put,
    /// The family's trackers are silent about `SET @@name`.
    unscoped_untracked: bool,
    /// The statement names a list of threads.
    of_threads: bool,
    /// The statement asks by which thread a lock is used.
    of_locks: bool,
    /// What is looked at now may be compared with that.
    is_compared: bool,
    edits: Vec<Edit>,
}

/// A select-list item that is being read.
#[derive(Default)]
struct Item {
    first: Option<Token>,
    last: Option<Token>,
    before_last: Option<Token>,
    edited: bool,
}

impl Pass<'_> {
    fn is_of_threads(&self, token: &Token) -> bool {
        let name = names::unquoted(token.bytes(self.sql));
        token.is_identifier() && OF_THREADS.iter().any(|of| name.eq_ignore_ascii_case(of))
    }

    /// Looks at one statement; false when the rest of the text belongs to its body.
    fn statement(&mut self, tokens: &[Token]) -> bool {
        let base = tokens.iter().take_while(|token| token.is_punct(b'(')).count();
        let Some(verb) = tokens.get(base).filter(|token| token.kind == TokenKind::Word) else {
            return true;
        };
        match verb.key {
            kw::SELECT
            | kw::WITH
            | kw::DO
            | kw::SET
            | kw::VALUES
            | kw::INSERT
            | kw::REPLACE
            | kw::UPDATE
            | kw::CALL
            | kw::DELETE => {}
            kw::CREATE
            | kw::ALTER
            | kw::BEGIN
            | kw::IF
            | kw::CASE
            | kw::LOOP
            | kw::WHILE
            | kw::REPEAT
            | kw::FOR
            | kw::DECLARE => return false,
            _ => return true,
        }
        self.note_subject(tokens);
        let in_set = verb.is_word(kw::SET);
        let (mut depth, mut in_list) = (0usize, false);
        let mut item = Item::default();
        let mut at = 0usize;
        while let Some(token) = tokens.get(at) {
            let rest = tokens.get(at..).unwrap_or_default();
            let before = at.checked_sub(1).and_then(|n| tokens.get(n));
            let top = depth == base;
            if top && (token.is_punct(b',') || token.is_punct(b')') || ends_list(token)) {
                self.close(&mut item);
                in_list &= token.is_punct(b',');
            }
            if token.is_punct(b'(') {
                depth = depth.saturating_add(1);
            } else if token.is_punct(b')') {
                depth = depth.saturating_sub(1);
            }
            let alone = top && in_list && item.first.is_none() && ends_call(rest);
            self.is_compared = self.of_locks && !alone;
            let length = match self.replacement(rest, before, in_set, in_list) {
                Some((length, text)) => {
                    let end = rest.get(length.saturating_sub(1)).map_or(token.end, |t| t.end);
                    self.edits.push(Edit { span: token.start..end, text });
                    item.edited = true;
                    length
                }
                None => 1,
            };
            let separator = top && (token.is_punct(b',') || token.is_punct(b')'));
            if in_list && !separator && !(item.first.is_none() && is_modifier(token)) {
                item.extend(rest.get(..length).unwrap_or_default());
            }
            if top && token.is_word(kw::SELECT) {
                in_list = true;
                item = Item::default();
            }
            at = at.saturating_add(length);
        }
        self.close(&mut item);
        true
    }

    /// What the statement speaks of, by which numbers of threads stay the server's.
    fn note_subject(&mut self, tokens: &[Token]) {
        self.of_threads = tokens.iter().any(|token| self.is_of_threads(token));
        self.of_locks = tokens.iter().any(|token| token.is_word(kw::IS_USED_LOCK));
    }

    /// How many tokens at the start of `rest` are replaced, and by what.
    fn replacement(
        &self,
        rest: &[Token],
        before: Option<&Token>,
        in_set: bool,
        in_list: bool,
    ) -> Option<(usize, Vec<u8>)> {
        let connection_id = match self.put {
            Put::Session { connection_id } => connection_id,
            Put::Counts(counts) => {
                let [name, open, close, ..] = rest else { return None };
                let called = open.is_punct(b'(')
                    && close.is_punct(b')')
                    && !before.is_some_and(|token| token.is_punct(b'.'));
                let found = counts.found.filter(|_| name.is_word(kw::FOUND_ROWS));
                let rows = counts.rows.filter(|_| name.is_word(kw::ROW_COUNT));
                let value = found.map(i128::from).or_else(|| rows.map(i128::from));
                let call = self.sql.get(name.start..close.end).unwrap_or_default();
                // The column's type stays that of the function: both families, measured.
                let put = |n: i128| [format!("IF(1,({n}),").as_bytes(), call, b")"].concat();
                return value.filter(|_| called).map(|value| (3, put(value)));
            }
        };
        let number = if in_list || in_set {
            connection_id.to_string()
        } else {
            // Not a literal: ORDER BY and GROUP BY take that for a column's position.
            format!("({connection_id}+0)")
        }
        .into_bytes();
        let number = (in_list || !self.of_threads).then_some(number);
        let number = number.filter(|_| !self.is_compared);
        match rest {
            [name, open, close, ..]
                if name.is_word(kw::CONNECTION_ID)
                    && open.is_punct(b'(')
                    && close.is_punct(b')')
                    && !before.is_some_and(|token| token.is_punct(b'.')) =>
            {
                number.map(|number| (3, number))
            }
            [at, rest @ ..] if at.kind == TokenKind::AtAt => {
                let (scope, name) = match rest {
                    [scope, point, name, ..] if point.is_punct(b'.') => (Some(scope), name),
                    [name, ..] => (None, name),
                    [] => return None,
                };
                let length: usize = if scope.is_some() { 4 } else { 2 };
                let assigned = rest.get(length.saturating_sub(1)).is_some_and(|next| {
                    in_set && (next.is_punct(b'=') || next.kind == TokenKind::Assign)
                });
                let is = |key| name.is_identifier() && name.key == key;
                if assigned {
                    self.scoped(scope, name).map(|scope| (1, scope))
                } else if is(kw::SOCKET) {
                    Some((length, b"''".to_vec()))
                } else if is(kw::PSEUDO_THREAD_ID) {
                    number.map(|number| (length, number))
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    /// The `@@` of an assignment with a scope behind it, where one is needed. Of variables that
    /// concern the next transaction, the scope would change the meaning.
    fn scoped(&self, scope: Option<&Token>, name: &Token) -> Option<Vec<u8>> {
        let plain = names::unquoted(name.bytes(self.sql));
        let needed = self.unscoped_untracked
            && scope.is_none()
            && !names::is_next_transaction_variable(plain)
            && name.key != kw::PSEUDO_THREAD_ID;
        needed.then(|| b"@@session.".to_vec())
    }

    /// Ends an item: one that changed and has no alias gets its old text as such.
    fn close(&mut self, item: &mut Item) {
        let done = std::mem::take(item);
        let (Some(first), Some(last)) = (done.first, done.last) else { return };
        if !done.edited || done.has_alias() {
            return;
        }
        let name = self.sql.get(first.start..last.end).unwrap_or_default();
        if name.len() > ALIAS_LIMIT {
            return;
        }
        let mut text = b" AS `".to_vec();
        for &byte in name {
            if byte == b'`' {
                text.push(byte);
            }
            text.push(byte);
        }
        text.push(b'`');
        self.edits.push(Edit { span: last.end..last.end, text });
    }

    fn apply(self) -> Option<Vec<u8>> {
        if self.edits.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(self.sql.len().saturating_add(64));
        let mut at = 0usize;
        for edit in &self.edits {
            out.extend_from_slice(self.sql.get(at..edit.span.start)?);
            out.extend_from_slice(&edit.text);
            at = edit.span.end;
        }
        out.extend_from_slice(self.sql.get(at..)?);
        Some(out)
    }
}

impl Item {
    fn extend(&mut self, tokens: &[Token]) {
        for token in tokens {
            self.first.get_or_insert(*token);
            self.before_last = self.last.replace(*token);
        }
    }

    /// Whether it ends in a name of its own; in doubt yes, since two are an error.
    fn has_alias(&self) -> bool {
        let (Some(last), Some(before)) = (self.last, self.before_last) else { return false };
        if !last.is_identifier() && last.kind != TokenKind::String {
            return false;
        }
        match before.kind {
            TokenKind::Word => !is_operator_word(before.key),
            TokenKind::Punct => before.is_punct(b')') && !last.is_word(kw::END),
            TokenKind::AtAt | TokenKind::Assign => false,
            _ => !last.is_word(kw::END),
        }
    }
}

/// Keywords that an operand follows.
fn is_operator_word(key: u64) -> bool {
    matches!(
        key,
        kw::AND
            | kw::OR
            | kw::XOR
            | kw::NOT
            | kw::IS
            | kw::LIKE
            | kw::RLIKE
            | kw::REGEXP
            | kw::DIV
            | kw::MOD
            | kw::IN
            | kw::BETWEEN
            | kw::BINARY
            | kw::COLLATE
    )
}

/// Words between SELECT and its list.
fn is_modifier(token: &Token) -> bool {
    token.kind == TokenKind::Word
        && matches!(
            token.key,
            kw::ALL
                | kw::DISTINCT
                | kw::DISTINCTROW
                | kw::HIGH_PRIORITY
                | kw::STRAIGHT_JOIN
                | kw::SQL_NO_CACHE
                | kw::SQL_CACHE
                | kw::SQL_SMALL_RESULT
                | kw::SQL_BIG_RESULT
                | kw::SQL_BUFFER_RESULT
                | kw::SQL_CALC_FOUND_ROWS
        )
}

/// Reserved words that end a select list.
fn ends_list(token: &Token) -> bool {
    token.kind == TokenKind::Word
        && matches!(
            token.key,
            kw::FROM
                | kw::INTO
                | kw::WHERE
                | kw::GROUP
                | kw::HAVING
                | kw::ORDER
                | kw::LIMIT
                | kw::UNION
                | kw::EXCEPT
                | kw::INTERSECT
                | kw::FOR
                | kw::LOCK
                | kw::WINDOW
                | kw::PROCEDURE
                | kw::FETCH
                | kw::OFFSET
        )
}

/// Whether a call without arguments stands at the start of `tokens` and nothing is done with it.
fn ends_call(tokens: &[Token]) -> bool {
    tokens
        .get(3)
        .is_none_or(|next| next.is_punct(b',') || next.is_word(kw::AS) || next.is_word(kw::FROM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::dialect;
    use crate::topology::Flavour;

    fn rewritten(sql: &str) -> Option<String> {
        let out = virtualise(sql.as_bytes(), &dialect(Flavour::MariaDb), 5)?;
        Some(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn answers_are_replaced_and_columns_keep_their_names() {
        for (sql, expected) in [
            ("SELECT CONNECTION_ID()", "SELECT 5 AS `CONNECTION_ID()`"),
            ("select connection_id ( ) , 1", "select 5 AS `connection_id ( )` , 1"),
            (
                "SELECT @@socket, @@max_allowed_packet",
                "SELECT '' AS `@@socket`, @@max_allowed_packet",
            ),
            ("SELECT @@GLOBAL.SOCKET LIMIT 1", "SELECT '' AS `@@GLOBAL.SOCKET` LIMIT 1"),
            ("SELECT @@global . `socket` s", "SELECT '' s"),
            ("SELECT CONNECTION_ID() AS id FROM t", "SELECT 5 AS id FROM t"),
            ("SELECT CONNECTION_ID() 'id'", "SELECT 5 'id'"),
            (
                "SELECT DISTINCT CONNECTION_ID() + a /* x */ FROM t",
                "SELECT DISTINCT 5 + a AS `CONNECTION_ID() + a` /* x */ FROM t",
            ),
            ("SELECT @@socket IS NULL", "SELECT '' IS NULL AS `@@socket IS NULL`"),
            ("SELECT (SELECT CONNECTION_ID())", "SELECT (SELECT 5) AS `(SELECT CONNECTION_ID())`"),
            ("(SELECT CONNECTION_ID())", "(SELECT 5 AS `CONNECTION_ID()`)"),
            (
                "SELECT a FROM t WHERE id = CONNECTION_ID() ORDER BY CONNECTION_ID()",
                "SELECT a FROM t WHERE id = (5+0) ORDER BY (5+0)",
            ),
            (
                "SELECT CONNECTION_ID() FROM x.`Threads` WHERE processlist_id = CONNECTION_ID()",
                "SELECT 5 AS `CONNECTION_ID()` FROM x.`Threads` \
                 WHERE processlist_id = CONNECTION_ID()",
            ),
            ("SET @a = CONNECTION_ID()", "SET @a = 5"),
            ("DO SLEEP(CONNECTION_ID())", "DO SLEEP((5+0))"),
            ("SELECT @@pseudo_thread_id", "SELECT 5 AS `@@pseudo_thread_id`"),
            ("SET @@sql_mode = 'ANSI'", "SET @@session.sql_mode = 'ANSI'"),
            ("SET @a = 1, @@`x` := @@y", "SET @a = 1, @@session.`x` := @@y"),
        ] {
            assert_eq!(rewritten(sql).as_deref(), Some(expected), "{sql}");
        }
    }

    #[test]
    fn numbers_of_previous_statements_are_written_in() {
        let both = Counts { found: Some(3), rows: Some(-1) };
        for (sql, counts, expected) in [
            ("SELECT FOUND_ROWS()", both, Some("SELECT IF(1,(3),FOUND_ROWS()) AS `FOUND_ROWS()`")),
            ("SELECT ROW_COUNT() n", both, Some("SELECT IF(1,(-1),ROW_COUNT()) n")),
            (
                "SELECT 1 - row_count ( )",
                both,
                Some("SELECT 1 - IF(1,(-1),row_count ( )) AS `1 - row_count ( )`"),
            ),
            ("SET @a = ROW_COUNT()", both, Some("SET @a = IF(1,(-1),ROW_COUNT())")),
            ("UPDATE t SET a = 0; SELECT ROW_COUNT()", both, None),
            ("SELECT ROW_COUNT()", Counts { rows: None, ..both }, None),
            ("SELECT 'FOUND_ROWS()', x.FOUND_ROWS()", both, None),
        ] {
            let out = counts_of(sql, counts);
            assert_eq!(out.as_deref(), expected, "{sql}");
        }
    }

    fn counts_of(sql: &str, numbers: Counts) -> Option<String> {
        let out = counts(sql.as_bytes(), &dialect(Flavour::MariaDb), numbers)?;
        Some(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn what_is_not_a_call_of_this_session_stays() {
        for sql in [
            "SELECT 'CONNECTION_ID()', `CONNECTION_ID`, db.CONNECTION_ID()",
            "SELECT a FROM information_schema.processlist WHERE id = @@pseudo_thread_id",
            "SELECT 1 -- @@socket",
            "SELECT socket FROM t",
            "CREATE VIEW v AS SELECT CONNECTION_ID()",
            "CREATE PROCEDURE p() BEGIN SELECT 1; SELECT CONNECTION_ID(); END",
            "SELECT IS_USED_LOCK('a') = CONNECTION_ID()",
            "SELECT IF(CONNECTION_ID() = IS_USED_LOCK('a'), 1, 0) FROM t",
            "DO RELEASE_LOCK(IF(is_used_lock('a') <=> connection_id(), 'a', 'b'))",
            "SET @@pseudo_thread_id = 7",
            "SET @@global.x = 7, @@session.y = 8, z = 9",
            "SET @@tx_isolation = 'SERIALIZABLE'",
            "SELECT 1",
        ] {
            assert_eq!(rewritten(sql), None, "{sql}");
        }
    }
}
