//! KILL in all its forms, so that the client's number can be replaced by the server's.
#![deny(clippy::indexing_slicing)]

use std::ops::Range;

use crate::router::Dialect;
use crate::router::keyword as kw;
use crate::router::lexer::{Gate, Lexer, Token, TokenKind};

/// A KILL statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// What is to end.
    pub what: What,
    /// MariaDB's HARD or SOFT, as far as written.
    pub hardness: Option<Hardness>,
    /// Whom it concerns.
    pub target: Victim,
    /// Where the number (or the account) stands in the text.
    pub id_span: Range<usize>,
}

/// What is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The connection.
    Connection,
    /// Its running statement.
    Query,
    /// The statement with this query id (MariaDB).
    QueryId,
}

/// MariaDB's insistence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardness {
    /// Also where it leaves a table in disorder.
    Hard,
    /// Only where that is harmless.
    Soft,
}

/// Whom it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Victim {
    /// A connection's or a query's number.
    Id(u64),
    /// All connections of an account (MariaDB), as written.
    User(Vec<u8>),
}

/// Understands a text that is one KILL statement; `None` for anything else, an expression in
/// place of the number included.
#[must_use]
pub fn parse(sql: &[u8], dialect: &Dialect) -> Option<Kill> {
    let mut lexer = Lexer::new(sql, dialect, Gate::Server);
    let (hardness, what, token) = head(&mut lexer)?;
    let (target, id_span) = if token.is_word(kw::USER) {
        account(&mut lexer, sql)?
    } else {
        let digits = token.bytes(sql);
        let id = std::str::from_utf8(digits).ok()?.parse().ok()?;
        (token.kind == TokenKind::Number).then_some(())?;
        (Victim::Id(id), token.start..token.end)
    };
    ends(&mut lexer).then_some(Kill { what, hardness, target, id_span })
}

/// A KILL with an expression in place of the number: where that stands in the text, and whether
/// the connection is to end. `None` for what [`parse`] understands and for what no server takes.
#[must_use]
pub fn expression(sql: &[u8], dialect: &Dialect) -> Option<(Range<usize>, bool)> {
    let mut lexer = Lexer::new(sql, dialect, Gate::Server);
    let (_, what, mut token) = head(&mut lexer)?;
    if token.is_word(kw::USER) || what == What::QueryId {
        return None;
    }
    let connection = what == What::Connection;
    let start = token.start;
    let mut end = token.end;
    loop {
        // Servers refuse subqueries and sequences here, and with words of their own.
        let refused = [kw::SELECT, kw::LASTVAL, kw::NEXTVAL, kw::NEXT, kw::PREVIOUS];
        if refused.into_iter().any(|word| token.is_word(word)) {
            return None;
        }
        match lexer.token() {
            None => return Some((start..end, connection)),
            Some(next) if next.is_punct(b';') => {
                return ends(&mut lexer).then_some((start..end, connection));
            }
            Some(next) => token = next,
        }
        end = token.end;
    }
}

/// What stands before the victim, and the first token of that.
fn head(lexer: &mut Lexer<'_>) -> Option<(Option<Hardness>, What, Token)> {
    if !lexer.token()?.is_word(kw::KILL) {
        return None;
    }
    let mut token = lexer.token()?;
    let mut hardness = None;
    if token.is_word(kw::HARD) || token.is_word(kw::SOFT) {
        let hard = token.is_word(kw::HARD);
        hardness = Some(if hard { Hardness::Hard } else { Hardness::Soft });
        token = lexer.token()?;
    }
    let mut what = What::Connection;
    if token.is_word(kw::CONNECTION) || token.is_word(kw::QUERY) {
        if token.is_word(kw::QUERY) {
            what = What::Query;
        }
        token = lexer.token()?;
        if what == What::Query && token.is_word(kw::ID) {
            what = What::QueryId;
            token = lexer.token()?;
        }
    }
    Some((hardness, what, token))
}

/// The text of a prepared KILL with its only parameter put in for the `?`; the text itself when
/// there is no number for it.
#[must_use]
pub fn with_number(sql: &[u8], number: Option<u64>) -> Vec<u8> {
    match (number, sql.iter().rposition(|byte| *byte == b'?')) {
        (Some(number), Some(at)) => {
            let (before, rest) = sql.split_at_checked(at).unwrap_or((sql, b""));
            let after = rest.get(1..).unwrap_or_default();
            [before, number.to_string().as_bytes(), after].concat()
        }
        _ => sql.to_vec(),
    }
}

/// Whether nothing but semicolons follows.
fn ends(lexer: &mut Lexer<'_>) -> bool {
    loop {
        match lexer.token() {
            None => return true,
            Some(token) if token.is_punct(b';') => {}
            Some(_) => return false,
        }
    }
}

/// `user`, `user@host` or CURRENT_USER.
fn account(lexer: &mut Lexer<'_>, sql: &[u8]) -> Option<(Victim, Range<usize>)> {
    let name = lexer.token()?;
    let is_name = |token: &Token| token.is_identifier() || token.kind == TokenKind::String;
    if !is_name(&name) {
        return None;
    }
    let mut end = name.end;
    let mut ahead = lexer.clone();
    if let Some(host) = ahead.token()
        && host.kind == TokenKind::UserVar
    {
        end = host.end;
        *lexer = ahead;
    }
    let span = name.start..end;
    Some((Victim::User(sql.get(span.clone())?.to_vec()), span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::dialect;
    use crate::topology::Flavour;

    fn kill(sql: &str) -> Option<Kill> {
        parse(sql.as_bytes(), &dialect(Flavour::MariaDb))
    }

    #[test]
    fn every_form_is_understood_and_its_number_found() {
        let sql = "/* app */ kill soft query id 77 ;";
        let found = kill(sql).expect("understood");
        assert_eq!(found.what, What::QueryId);
        assert_eq!(found.hardness, Some(Hardness::Soft));
        assert_eq!(found.target, Victim::Id(77));
        assert_eq!(&sql[found.id_span], "77");
        assert_eq!(
            kill("KILL 5").map(|k| (k.what, k.target)),
            Some((What::Connection, Victim::Id(5)))
        );
        assert_eq!(kill("KILL QUERY 5").map(|k| k.what), Some(What::Query));
        let user = kill("KILL HARD CONNECTION USER 'u'@'h'").map(|k| k.target);
        assert_eq!(user, Some(Victim::User(b"'u'@'h'".to_vec())));
    }

    #[test]
    fn an_expression_in_place_of_the_number_is_found() {
        for (sql, expected) in [
            ("KILL CONNECTION_ID()", Some(("CONNECTION_ID()", true))),
            ("kill query @a + 1;", Some(("@a + 1", false))),
            ("KILL HARD CONNECTION 'x' -- end", Some(("'x'", true))),
            ("KILL (SELECT 1)", None),
            ("KILL LASTVAL(s)", None),
            ("KILL 1 + NEXT VALUE FOR s", None),
            ("KILL USER u", None),
            ("KILL QUERY ID @a", None),
            ("KILL @a; SELECT 1", None),
            ("KILL", None),
        ] {
            let found = expression(sql.as_bytes(), &dialect(Flavour::MariaDb));
            let found = found.map(|(span, connection)| (&sql[span], connection));
            assert_eq!(found, expected, "{sql}");
        }
    }

    #[test]
    fn what_is_not_one_plain_kill_is_left_to_the_server() {
        for sql in [
            "KILL CONNECTION_ID()",
            "KILL 1+1",
            "KILL @a",
            "KILL 1; DROP TABLE t",
            "KILL",
            "SELECT 1",
            "KILL 99999999999999999999999",
        ] {
            assert_eq!(kill(sql), None, "{sql}");
        }
    }
}
