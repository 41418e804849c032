//! Building a [`Dialect`] from what sessions report about themselves.

use std::hash::{Hash, Hasher};

use crate::router::{Charset, Dialect};
use crate::topology::{Flavour, ServerFacts};

impl Dialect {
    /// A dialect with the settings of an ordinary session: utf8mb4, no special `sql_mode`.
    #[must_use]
    pub fn plain(flavour: Flavour, version: u32) -> Self {
        Self {
            flavour,
            version,
            ansi_quotes: false,
            no_backslash_escapes: false,
            oracle: false,
            ignore_space: false,
            charset: Charset::AsciiSafe,
        }
    }

    /// The dialect in which a server greets a new session: its own `sql_mode`, and utf8mb4
    /// until the session says what it speaks.
    #[must_use]
    pub fn of_server(facts: &ServerFacts) -> Self {
        Self::plain(facts.flavour, facts.version).with_sql_mode(facts.sql_mode.as_bytes())
    }

    /// Whether the servers still know COM_PROCESS_KILL: MySQL 9.7 answers 1047, MariaDB and
    /// MySQL 8 carry it out.
    #[must_use]
    pub fn kills_by_command(&self) -> bool {
        self.flavour == Flavour::MariaDb || self.version < 90_000
    }

    /// The same under another `sql_mode`, given as the server spells it (words and commas).
    #[must_use]
    pub fn with_sql_mode(self, sql_mode: &[u8]) -> Self {
        let mut next = Self {
            ansi_quotes: false,
            no_backslash_escapes: false,
            oracle: false,
            ignore_space: false,
            ..self
        };
        for word in sql_mode.split(|&byte| byte == b',') {
            let word = word.trim_ascii().to_ascii_uppercase();
            match word.as_slice() {
                b"ANSI_QUOTES" => next.ansi_quotes = true,
                // Combinations, as the server expands them when they are set.
                b"ANSI" | b"DB2" | b"MSSQL" | b"POSTGRESQL" | b"MAXDB" => {
                    next.ansi_quotes = true;
                    next.ignore_space = true;
                }
                b"NO_BACKSLASH_ESCAPES" => next.no_backslash_escapes = true,
                b"IGNORE_SPACE" => next.ignore_space = true,
                b"ORACLE" => {
                    next.oracle = true;
                    next.ansi_quotes = true;
                    next.ignore_space = true;
                }
                _ => {}
            }
        }
        next
    }

    /// The same for a client that speaks another character set.
    #[must_use]
    pub fn with_charset(self, charset: Charset) -> Self {
        Self { charset, ..self }
    }
}

/// As one number: a dialect is hashed with each text, field by field it would cost more than
/// the text.
impl Hash for Dialect {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let flags = [self.ansi_quotes, self.no_backslash_escapes, self.oracle, self.ignore_space]
            .into_iter()
            .fold(0, |flags, flag| flags << 1 | u64::from(flag));
        let kinds = (self.flavour as u64) << 8 | (self.charset as u64) << 16;
        state.write_u64(u64::from(self.version) << 32 | kinds | flags);
    }
}

impl Charset {
    /// The lexical family of a `character_set_client`, by name. What a server refuses there
    /// (ucs2, utf16, utf32) and what is not known here is [`Charset::Unknown`].
    #[must_use]
    pub fn from_name(name: &[u8]) -> Self {
        let name = name.trim_ascii().to_ascii_lowercase();
        match name.as_slice() {
            b"utf8mb4" | b"utf8mb3" | b"utf8" | b"ascii" | b"binary" | b"latin1" | b"latin2"
            | b"latin5" | b"latin7" | b"cp1250" | b"cp1251" | b"cp1256" | b"cp1257" | b"cp850"
            | b"cp852" | b"cp866" | b"koi8r" | b"koi8u" | b"greek" | b"hebrew" | b"tis620"
            | b"armscii8" | b"geostd8" | b"ujis" | b"eucjpms" | b"euckr" | b"gb2312" => {
                Self::AsciiSafe
            }
            b"gbk" => Self::Gbk,
            b"big5" => Self::Big5,
            b"sjis" | b"cp932" => Self::Sjis,
            b"gb18030" => Self::Gb18030,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_mode_words_set_and_clear_what_they_name() {
        let dialect = Dialect::plain(Flavour::MariaDb, 101_119)
            .with_sql_mode(b"STRICT_TRANS_TABLES,ANSI_QUOTES,NO_BACKSLASH_ESCAPES");
        assert!(dialect.ansi_quotes && dialect.no_backslash_escapes && !dialect.oracle);
        let dialect = dialect.with_sql_mode(b"oracle");
        assert!(dialect.ansi_quotes && dialect.oracle && !dialect.no_backslash_escapes);
        assert!(!dialect.with_sql_mode(b"").ansi_quotes);
    }

    #[test]
    fn charsets_are_known_or_not_trusted() {
        assert_eq!(Charset::from_name(b"UTF8MB4"), Charset::AsciiSafe);
        assert_eq!(Charset::from_name(b"cp932"), Charset::Sjis);
        assert_eq!(Charset::from_name(b"utf16"), Charset::Unknown);
        assert_eq!(Charset::from_name(b"martian"), Charset::Unknown);
    }
}
