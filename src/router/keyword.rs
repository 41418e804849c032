//! Keywords as 64-bit keys, so that comparing a word costs one machine comparison.
//!
//! A word of up to eight bytes is its own key (case folded); a longer one is hashed with the
//! top bit set, which no shorter ASCII word has. Where a collision could turn something into a
//! read, the bytes are compared too (the catalogue does).

/// Folds ASCII case. `_` folds to a byte that no word contains, which is harmless.
const fn fold(byte: u8) -> u64 {
    (byte | 0x20) as u64
}

/// A key under construction.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KeyBuilder {
    key: u64,
    length: usize,
}

impl KeyBuilder {
    pub(crate) const fn new() -> Self {
        Self { key: 0, length: 0 }
    }

    #[inline]
    pub(crate) const fn push(self, byte: u8) -> Self {
        let key = if self.length < 8 {
            (self.key << 8) | fold(byte)
        } else {
            (self.key.rotate_left(7) ^ fold(byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        };
        Self { key, length: self.length.wrapping_add(1) }
    }

    #[inline]
    pub(crate) const fn finish(self) -> u64 {
        if self.length > 8 { self.key | (1 << 63) } else { self.key }
    }
}

/// The key of a whole word.
pub(crate) const fn key(word: &[u8]) -> u64 {
    let mut builder = KeyBuilder::new();
    let mut rest = word;
    while let Some((&byte, tail)) = rest.split_first() {
        builder = builder.push(byte);
        rest = tail;
    }
    builder.finish()
}

macro_rules! keywords {
    ($($name:ident)*) => {
        $(pub(crate) const $name: u64 = key(stringify!($name).as_bytes());)*
    };
}

keywords! {
    ALTER ANALYSE ANALYZE ANY AS B BACKUP BEGIN BINLOG BODY CACHE CALL CASE CHANGE CHARACTER
    CHARSET CHECK CHECKSUM CLONE COLLATION COLUMNS COMMIT CONNECTION COUNT CREATE CURRVAL DATA
    DATABASE DATABASES DEALLOCATE DECLARE DEFAULT DELETE DESC DESCRIBE DO DROP END ENGINES
    ERRORS ERROR_COUNT EVENT EVENTS EXECUTE EXPLAIN EXPORT EXTENDED FALSE FIELDS FLUSH FOR
    FORMAT FULL FUNCTION GET GLOBAL GRANT HANDLER HELP IDENTITY IF IMPORT IN INDEX INDEXES
    INFILE INFORMATION_SCHEMA INSERT INSTALL INSTANCE INTO KEYS KILL LAST_INSERT_ID LOAD LOCAL
    LOCK LOOP MEMBER MYSQL N NEXT NEXTVAL NOT NULL OF ONLY OPEN OPTIMIZE PACKAGE PARTITIONS
    PASSWORD PERFORMANCE_SCHEMA PERSIST PERSIST_ONLY PREPARE PREVIOUS PRIVILEGES PROCEDURE
    PSEUDO_THREAD_ID PURGE READ RECURSIVE RELEASE RENAME REPAIR REPEAT REPLACE RESET RESIGNAL
    RESTART REVOKE ROLE ROLLBACK SAVEPOINT SCHEMA SCHEMAS SELECT SEQUENCE SERVER SESSION SET
    SHARE SHOW SHUTDOWN SIGNAL SNAPSHOT SOCKET SOME SQL_CALC_FOUND_ROWS STAGE START STATEMENT
    STATUS STOP STORAGE SYS TABLE TABLES TABLESPACE TEMPORARY TRANSACTION TRIGGER TRIGGERS TRUE
    TRUNCATE UNINSTALL UNLOCK UPDATE USE USER VALUE VALUES VIEW WARNINGS WARNING_COUNT WHILE
    WITH X XA XML
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ignore_case_and_tell_words_apart() {
        assert_eq!(key(b"Select"), SELECT);
        assert_eq!(key(b"last_insert_id"), LAST_INSERT_ID);
        assert_ne!(key(b"previousx"), PREVIOUS);
        assert_ne!(key(b"for"), key(b"fo"));
    }
}
