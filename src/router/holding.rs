//! Statements that take or give back what lives on one connection only (locks, handlers, temporary
//! tables), in the few forms whose effect their text proves.
#![deny(clippy::indexing_slicing)]

use crate::router::Dialect;
use crate::router::keyword as kw;
use crate::router::lexer::{Gate, Lexer, Token, TokenKind};

/// What a connection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// Locks on tables, on the instance, for a backup.
    TableLock,
    /// GET_LOCK.
    UserLock,
    /// HANDLER ... OPEN.
    Handler,
    /// CREATE TEMPORARY TABLE.
    TemporaryTable,
}

/// What a statement does if it succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// It takes one, of this name, or has it already.
    Takes(Thing, Vec<u8>),
    /// It gives back one of each of these names, if there was one.
    Gives(Thing, Vec<Vec<u8>>),
    /// It gives back all.
    GivesAll(Thing),
}

/// Reads a text that is one such statement and nothing else; `None` for all others. `schema` is
/// the selected one, for names without one.
#[must_use]
pub fn parse(sql: &[u8], dialect: &Dialect, schema: &[u8]) -> Option<Holding> {
    let mut lexer = Lexer::new(sql, dialect, Gate::Server);
    let mut reader = Reader { sql, schema, token: lexer.token(), lexer: &mut lexer };
    let first = reader.next()?;
    let holding = match (first.kind, first.key) {
        (TokenKind::Word, kw::SELECT | kw::DO) => reader.user_lock(),
        (TokenKind::Word, kw::HANDLER) => reader.handler(),
        (TokenKind::Word, kw::CREATE) => reader.create(),
        (TokenKind::Word, kw::DROP) => reader.drop(),
        (TokenKind::Word, kw::LOCK | kw::UNLOCK | kw::BACKUP | kw::FLUSH) => {
            reader.table_lock(first.key)
        }
        _ => None,
    }?;
    // What one server executes another takes for a comment.
    (!lexer.executable_seen()).then_some(holding)
}

struct Reader<'a, 'b> {
    sql: &'a [u8],
    schema: &'a [u8],
    /// The next one.
    token: Option<Token>,
    lexer: &'b mut Lexer<'a>,
}

impl Reader<'_, '_> {
    fn next(&mut self) -> Option<Token> {
        std::mem::replace(&mut self.token, self.lexer.token())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let is_it = self.token?.is_word(kw::key(word)) && self.bytes()?.eq_ignore_ascii_case(word);
        self.pass(is_it)
    }

    fn punct(&mut self, byte: u8) -> Option<()> {
        self.pass(self.token?.is_punct(byte))
    }

    fn pass(&mut self, is_it: bool) -> Option<()> {
        is_it.then(|| {
            self.next();
        })
    }

    fn bytes(&self) -> Option<&[u8]> {
        Some(self.token.as_ref()?.bytes(self.sql))
    }

    /// Nothing more, but for one `;`.
    fn end(&mut self) -> Option<()> {
        let _ = self.punct(b';');
        self.token.is_none().then_some(())
    }

    /// A name that is the same whenever it is written the same.
    fn name(&mut self) -> Option<Vec<u8>> {
        let token = self.next()?;
        let name = match token.kind {
            TokenKind::Word => token.bytes(self.sql),
            TokenKind::Quoted | TokenKind::String => token.inside(self.sql),
            _ => return None,
        };
        let plain = |byte: &u8| (b' '..0x7F).contains(byte) && !b"\\'\"`".contains(byte);
        name.iter().all(plain).then(|| name.to_vec())
    }

    /// The name of a table, always with its schema.
    fn table(&mut self) -> Option<Vec<u8>> {
        let first = self.name()?;
        match self.punct(b'.') {
            Some(()) => Some([&first, &b"."[..], &self.name()?].concat()),
            None => Some([self.schema, b".", &first].concat()),
        }
    }

    /// GET_LOCK('a', 1), RELEASE_LOCK('a') or RELEASE_ALL_LOCKS() alone.
    fn user_lock(&mut self) -> Option<Holding> {
        let holding = if self.word(b"GET_LOCK").is_some() {
            self.punct(b'(')?;
            let name = self.literal()?;
            self.punct(b',')?;
            let _ = self.punct(b'-');
            (self.next()?.kind == TokenKind::Number).then_some(())?;
            Holding::Takes(Thing::UserLock, name)
        } else if self.word(b"RELEASE_LOCK").is_some() {
            self.punct(b'(')?;
            Holding::Gives(Thing::UserLock, vec![self.literal()?])
        } else {
            self.word(b"RELEASE_ALL_LOCKS")?;
            self.punct(b'(')?;
            Holding::GivesAll(Thing::UserLock)
        };
        self.punct(b')')?;
        self.end()?;
        Some(holding)
    }

    fn literal(&mut self) -> Option<Vec<u8>> {
        (self.token?.kind == TokenKind::String).then_some(())?;
        self.name()
    }

    /// HANDLER t OPEN [[AS] a], HANDLER a CLOSE.
    fn handler(&mut self) -> Option<Holding> {
        let mut name = self.name()?;
        if self.punct(b'.').is_some() {
            name = self.name()?;
        } else if self.word(b"CLOSE").is_some() {
            self.end()?;
            return Some(Holding::Gives(Thing::Handler, vec![name]));
        }
        self.word(b"OPEN")?;
        let _ = self.word(b"AS");
        if self.token.is_some_and(|token| token.is_identifier()) {
            name = self.name()?;
        }
        self.end()?;
        Some(Holding::Takes(Thing::Handler, name))
    }

    fn create(&mut self) -> Option<Holding> {
        self.word(b"TEMPORARY")?;
        self.word(b"TABLE")?;
        if self.word(b"IF").is_some() {
            self.word(b"NOT")?;
            self.word(b"EXISTS")?;
        }
        let name = self.table()?;
        Some(Holding::Takes(Thing::TemporaryTable, name))
    }

    /// Without IF EXISTS: that would succeed too where a table of the name has another one now.
    fn drop(&mut self) -> Option<Holding> {
        self.word(b"TEMPORARY")?;
        self.word(b"TABLE").or_else(|| self.word(b"TABLES"))?;
        let mut names = Vec::new();
        loop {
            names.push(self.table()?);
            if self.punct(b',').is_none() {
                break;
            }
        }
        self.end()?;
        Some(Holding::Gives(Thing::TemporaryTable, names))
    }

    /// Each kind of these locks has a statement that ends it, and no other.
    fn table_lock(&mut self, verb: u64) -> Option<Holding> {
        let tables = |this: &mut Self| this.word(b"TABLES").or_else(|| this.word(b"TABLE"));
        let takes = |name: &[u8]| Some(Holding::Takes(Thing::TableLock, name.to_vec()));
        let gives = |name: &[u8]| Some(Holding::Gives(Thing::TableLock, vec![name.to_vec()]));
        let holding = match verb {
            kw::FLUSH => return takes(b"tables"),
            kw::LOCK if tables(self).is_some() => return takes(b"tables"),
            kw::LOCK => return self.word(b"INSTANCE").and_then(|()| takes(b"instance")),
            kw::BACKUP if self.word(b"LOCK").is_some() => return takes(b"backup"),
            kw::BACKUP if self.word(b"UNLOCK").is_some() => gives(b"backup"),
            kw::BACKUP => {
                self.word(b"STAGE")?;
                if self.word(b"END").is_none() {
                    return takes(b"stage");
                }
                gives(b"stage")
            }
            _ if tables(self).is_some() => gives(b"tables"),
            _ => self.word(b"INSTANCE").and_then(|()| gives(b"instance")),
        };
        self.end()?;
        holding
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::dialect;
    use crate::topology::Flavour;

    fn read(sql: &str) -> Option<Holding> {
        parse(sql.as_bytes(), &dialect(Flavour::MariaDb), b"s")
    }

    #[test]
    fn what_is_proven_is_read() {
        let takes = |thing, name: &str| Some(Holding::Takes(thing, name.into()));
        let gives = |thing, names: &[&str]| {
            Some(Holding::Gives(thing, names.iter().map(|name| (*name).into()).collect()))
        };
        for (sql, expected) in [
            ("SELECT GET_LOCK('a', 10)", takes(Thing::UserLock, "a")),
            ("do get_lock('a',-1);", takes(Thing::UserLock, "a")),
            ("SELECT RELEASE_LOCK('a')", gives(Thing::UserLock, &["a"])),
            ("SELECT RELEASE_ALL_LOCKS()", Some(Holding::GivesAll(Thing::UserLock))),
            ("HANDLER t OPEN", takes(Thing::Handler, "t")),
            ("HANDLER d.t OPEN AS x", takes(Thing::Handler, "x")),
            ("HANDLER `t` CLOSE /* x */", gives(Thing::Handler, &["t"])),
            ("CREATE TEMPORARY TABLE t (a INT)", takes(Thing::TemporaryTable, "s.t")),
            (
                "CREATE TEMPORARY TABLE IF NOT EXISTS d.t AS SELECT 1",
                takes(Thing::TemporaryTable, "d.t"),
            ),
            ("DROP TEMPORARY TABLE t, d.`t`", gives(Thing::TemporaryTable, &["s.t", "d.t"])),
            ("LOCK TABLES t READ, u WRITE", takes(Thing::TableLock, "tables")),
            ("FLUSH TABLES WITH READ LOCK", takes(Thing::TableLock, "tables")),
            ("UNLOCK TABLES", gives(Thing::TableLock, &["tables"])),
            ("LOCK INSTANCE FOR BACKUP", takes(Thing::TableLock, "instance")),
            ("UNLOCK INSTANCE", gives(Thing::TableLock, &["instance"])),
            ("BACKUP STAGE START", takes(Thing::TableLock, "stage")),
            ("BACKUP STAGE END", gives(Thing::TableLock, &["stage"])),
            ("BACKUP LOCK t", takes(Thing::TableLock, "backup")),
            ("BACKUP UNLOCK", gives(Thing::TableLock, &["backup"])),
        ] {
            assert_eq!(read(sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_is_not_proven_is_not() {
        for sql in [
            "SELECT IF(0, RELEASE_ALL_LOCKS(), 0)",
            "SELECT RELEASE_ALL_LOCKS() FROM t",
            "SELECT RELEASE_ALL_LOCKS() LIMIT 0",
            "SELECT RELEASE_ALL_LOCKS(), 1",
            "SELECT RELEASE_ALL_LOCKS() /*!50000 LIMIT 0 */",
            "SELECT /*!50000 RELEASE_ALL_LOCKS()*/",
            "SELECT GET_LOCK('a', 1) FROM t",
            "SELECT GET_LOCK(@a, 1)",
            "SELECT GET_LOCK(?, 1)",
            "SELECT RELEASE_LOCK(CONCAT('a'))",
            "SELECT RELEASE_LOCK('a\\\\b')",
            "SELECT RELEASE_LOCK('\u{e4}')",
            "SELECT RELEASE_LOCK('a'); SELECT 1",
            "DROP TEMPORARY TABLE IF EXISTS t",
            "DROP TABLE t",
            "CREATE OR REPLACE TEMPORARY TABLE t (a INT)",
            "CREATE TEMPORARY SEQUENCE s",
            "HANDLER t READ FIRST",
            "UNLOCK",
            "BACKUP",
        ] {
            assert_eq!(read(sql), None, "{sql}");
        }
    }
}
