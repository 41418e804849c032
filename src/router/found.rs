//! Whether a statement that answers without rows runs a query all the same: FOUND_ROWS tells of
//! that one then (MariaDB 10.11 and MySQL 9.7, measured).
#![deny(clippy::indexing_slicing)]

use crate::router::keyword as kw;
use crate::router::lexer::{Gate, Lexer, Token, TokenKind};
use crate::router::{Dialect, Verb};
use crate::topology::Flavour;

/// Words behind which MariaDB has to run a subquery: one without them is taken for its value.
const RUN: [u64; 6] = [kw::FROM, kw::WHERE, kw::UNION, kw::HAVING, kw::GROUP, kw::EXCEPT];

/// Words that make more of the rows of a VALUES.
const MORE: [u64; 4] = [kw::UNION, kw::EXCEPT, kw::INTERSECT, kw::ORDER];

/// Whether the text runs a query, seen as a statement with this verb.
#[must_use]
pub fn runs_query(sql: &[u8], verb: Verb, dialect: &Dialect) -> bool {
    match verb {
        Verb::Update | Verb::Delete if changes_several_tables(sql, verb, dialect) => true,
        // They keep it.
        Verb::Prepare => false,
        // MySQL's EXPLAIN ANALYZE executes what it explains.
        Verb::Explain => tokens(sql, dialect).nth(1).is_some_and(|word| word.is_word(kw::ANALYZE)),
        // MariaDB hands the rows of VALUES over and counts none.
        Verb::Values if dialect.flavour == Flavour::MariaDb => {
            is_more_than_rows(sql, dialect) || runs_subquery(sql, dialect)
        }
        Verb::Ddl => runs_subquery(sql, dialect) && makes_table(sql, dialect),
        _ => runs_subquery(sql, dialect),
    }
}

fn tokens<'a>(sql: &'a [u8], dialect: &'a Dialect) -> impl Iterator<Item = Token> {
    let mut lexer = Lexer::new(sql, dialect, Gate::Server);
    std::iter::from_fn(move || lexer.token())
}

/// Whether the rows of a VALUES are sorted, put together with others, or made by another one
/// (MariaDB 10.11, measured).
fn is_more_than_rows(sql: &[u8], dialect: &Dialect) -> bool {
    let mut values = 0;
    tokens(sql, dialect).any(|token| {
        values += usize::from(token.is_word(kw::VALUES));
        values > 1 || MORE.iter().any(|word| token.is_word(*word))
    })
}

fn runs_subquery(sql: &[u8], dialect: &Dialect) -> bool {
    if dialect.flavour == Flavour::MySql && is_filled_otherwise(sql, dialect) {
        return true;
    }
    if !has_word(sql, b"select") {
        return false;
    }
    let (mut seen, mut runs, mut behind_bracket) = (false, false, false);
    for token in tokens(sql, dialect) {
        let select = token.is_word(kw::SELECT);
        seen |= select;
        runs |= select && !behind_bracket || RUN.iter().any(|word| token.is_word(*word));
        behind_bracket = token.is_punct(b'(');
    }
    seen && (runs || dialect.flavour == Flavour::MySql)
}

/// MySQL's queries without SELECT: `TABLE t`, and `VALUES ROW(1)` where a table is made of it.
fn is_filled_otherwise(sql: &[u8], dialect: &Dialect) -> bool {
    if !has_word(sql, b"table") {
        return false;
    }
    let (mut creates, mut table) = (false, false);
    for (number, token) in tokens(sql, dialect).enumerate() {
        creates |= number == 0 && token.is_word(kw::CREATE);
        if token.is_word(kw::TABLE) {
            if table || !creates {
                return true;
            }
            table = true;
        } else if table && token.is_word(kw::VALUES) {
            return true;
        }
    }
    false
}

/// Most texts are done with here.
fn has_word(sql: &[u8], lower: &[u8]) -> bool {
    let Some(first) = lower.first() else { return false };
    memchr::memchr2_iter(*first, first.to_ascii_uppercase(), sql).any(|at| {
        sql.get(at..at + lower.len()).is_some_and(|word| word.eq_ignore_ascii_case(lower))
    })
}

/// An UPDATE or DELETE that names several tables to be joined.
fn changes_several_tables(sql: &[u8], verb: Verb, dialect: &Dialect) -> bool {
    let mut depth = 0_u32;
    let mut names_first = verb == Verb::Delete;
    for token in tokens(sql, dialect) {
        if token.is_punct(b'(') {
            depth = depth.saturating_add(1);
        } else if token.is_punct(b')') {
            depth = depth.saturating_sub(1);
        }
        if depth > 0 {
            continue;
        }
        let word = token.kind == TokenKind::Word;
        let is = |text: &[u8]| word && token.bytes(sql).eq_ignore_ascii_case(text);
        if token.is_punct(b',') || token.is_word(kw::STRAIGHT_JOIN) || is(b"join") {
            return true;
        }
        if is(b"using") || verb == Verb::Update && token.is_word(kw::SET) {
            return verb == Verb::Delete;
        }
        if token.is_word(kw::WHERE) || token.is_word(kw::ORDER) || token.is_word(kw::LIMIT) {
            return false;
        }
        if token.is_word(kw::FROM) {
            names_first = false;
        } else if names_first && !is_modifier(is) && token.is_identifier() {
            // DELETE t FROM ...
            return true;
        }
    }
    false
}

/// A word between DELETE and its FROM.
fn is_modifier(is: impl Fn(&[u8]) -> bool) -> bool {
    let words: [&[u8]; 5] = [b"delete", b"low_priority", b"quick", b"ignore", b"history"];
    words.into_iter().any(is)
}

/// CREATE TABLE, of which the query runs at once.
fn makes_table(sql: &[u8], dialect: &Dialect) -> bool {
    let before = [kw::CREATE, kw::OR, kw::REPLACE, kw::TEMPORARY];
    tokens(sql, dialect)
        .find(|token| !before.iter().any(|word| token.is_word(*word)))
        .is_some_and(|token| token.is_word(kw::TABLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_by_words_and_not_by_what_stands_in_strings() {
        let mariadb: &[_] = &[
            (Verb::Insert, "INSERT INTO t VALUES ('select one from u')", false),
            (Verb::Insert, "INSERT INTO t SELECT 1", true),
            (Verb::Insert, "INSERT INTO t VALUES ((SELECT 1))", false),
            (Verb::Insert, "INSERT INTO t VALUES ((SELECT MAX(a) FROM u))", true),
            (Verb::Set, "SET @a = (SELECT 1 UNION SELECT 2 LIMIT 1)", true),
            (Verb::Update, "UPDATE t SET a = 1, b = 2 WHERE c IN (1, 2)", false),
            (Verb::Update, "UPDATE t PARTITION (p0, p1) SET a = 1, b = 2", false),
            (Verb::Update, "UPDATE t, u SET a = 1", true),
            (Verb::Update, "UPDATE t STRAIGHT_JOIN u SET a = 1", true),
            (Verb::Update, "UPDATE `t, u` SET a = 1", false),
            (Verb::Delete, "DELETE IGNORE FROM t WHERE a = 1 ORDER BY b, c", false),
            (Verb::Delete, "DELETE t FROM t JOIN u", true),
            (Verb::Delete, "DELETE `t`.* FROM t", true),
            (Verb::Delete, "DELETE FROM t USING t JOIN u", true),
            (Verb::Prepare, "PREPARE s FROM 'SELECT 1 FROM t'", false),
            (Verb::Ddl, "CREATE OR REPLACE TEMPORARY TABLE x SELECT a FROM t", true),
            (Verb::Ddl, "CREATE VIEW v AS SELECT a FROM t", false),
        ];
        let mysql: &[_] = &[
            (Verb::Insert, "INSERT INTO t VALUES (1, 'table')", false),
            (Verb::Insert, "INSERT INTO t TABLE u LIMIT 1", true),
            (Verb::Ddl, "CREATE TABLE t (a INT)", false),
            (Verb::Ddl, "CREATE TABLE t LIKE u", false),
            (Verb::Ddl, "CREATE TEMPORARY TABLE t TABLE u", true),
            (Verb::Ddl, "CREATE TABLE t (a INT) VALUES ROW(1)", true),
            (Verb::Ddl, "ALTER TABLE t ADD b INT", false),
        ];
        for (flavour, cases) in [(Flavour::MariaDb, mariadb), (Flavour::MySql, mysql)] {
            let dialect = crate::router::tests::dialect(flavour);
            for (verb, sql, runs) in cases {
                assert_eq!(runs_query(sql.as_bytes(), *verb, &dialect), *runs, "{sql}");
            }
        }
    }
}
