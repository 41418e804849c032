//! Routing hints in comments: `/* pointsman: primary */`, `/* route: replica */`, and
//! MaxScale's `-- maxscale route to master`.

use crate::router::lexer::{Gate, Lexer, Piece};
use crate::router::{Dialect, Effects};

/// Where the author of a statement wants it to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// On the primary; always obeyed.
    Primary,
    /// On a replica; obeyed for proven reads only.
    Replica,
}

impl Hint {
    /// The flag that stands for it in a [`crate::router::Class`].
    #[must_use]
    pub fn effect(self) -> Effects {
        match self {
            Self::Primary => Effects::HINT_PRIMARY,
            Self::Replica => Effects::HINT_REPLICA,
        }
    }
}

/// The hint of a text; the primary wins where hints contradict each other. A hint inside a
/// string is none.
#[must_use]
pub fn parse(sql: &[u8], dialect: &Dialect) -> Option<Hint> {
    let mut lexer = Lexer::new(sql, dialect, Gate::Server);
    let mut found = None;
    while let Some(piece) = lexer.piece() {
        if let Piece::Comment(range) = piece {
            match of_comment(sql.get(range).unwrap_or_default()) {
                Some(Hint::Primary) => return Some(Hint::Primary),
                Some(Hint::Replica) => found = Some(Hint::Replica),
                None => {}
            }
        }
    }
    found
}

/// The hint of one comment, delimiters included.
pub(crate) fn of_comment(comment: &[u8]) -> Option<Hint> {
    let inside = match comment {
        [b'/', b'*', inside @ .., b'*', b'/'] => inside,
        [b'-', b'-', inside @ ..] | [b'#', inside @ ..] => inside,
        _ => return None,
    };
    let mut words = inside
        .split(|byte| byte.is_ascii_whitespace() || matches!(byte, b':' | b'='))
        .filter(|word| !word.is_empty());
    let is = |word: Option<&[u8]>, text: &str| {
        word.is_some_and(|word| word.eq_ignore_ascii_case(text.as_bytes()))
    };
    let first = words.next();
    let maxscale = is(first, "maxscale") && is(words.next(), "route") && is(words.next(), "to");
    if !maxscale && !is(first, "pointsman") && !is(first, "route") {
        return None;
    }
    let target = words.next();
    if is(target, "primary") || is(target, "master") {
        Some(Hint::Primary)
    } else if is(target, "replica") || is(target, "slave") {
        Some(Hint::Replica)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::dialect;
    use crate::topology::Flavour;

    fn hint(sql: &str) -> Option<Hint> {
        parse(sql.as_bytes(), &dialect(Flavour::MySql))
    }

    #[test]
    fn the_three_forms_are_understood_anywhere() {
        assert_eq!(hint("/* pointsman: primary */ SELECT 1"), Some(Hint::Primary));
        assert_eq!(hint("SELECT /*route:replica*/ 1"), Some(Hint::Replica));
        assert_eq!(hint("SELECT 1 -- maxscale route to master"), Some(Hint::Primary));
        assert_eq!(hint("SELECT 1 # maxscale route to slave\n"), Some(Hint::Replica));
        assert_eq!(hint("SELECT /*route: replica*/ 1 /* route: primary */"), Some(Hint::Primary));
    }

    #[test]
    fn text_that_only_looks_like_a_hint_is_none() {
        assert_eq!(hint("SELECT '/* pointsman: primary */'"), None);
        assert_eq!(hint("SELECT 1 /* the route to primary */"), None);
        assert_eq!(hint("SELECT 1 /* pointsman: elsewhere */"), None);
    }
}
