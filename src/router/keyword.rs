//! Keywords as 64-bit keys, so that comparing a word costs one machine comparison.
//!
//! A word of up to eight bytes is its own key (case folded); a longer one is hashed with the
//! top bit set, which no shorter ASCII word has. Where a collision could turn something into a
//! read, the bytes are compared too (the catalogue does).

/// Folds ASCII case. `_` folds to a byte that no word contains, which is harmless.
const fn fold(byte: u8) -> u64 {
    (byte | 0x20) as u64
}

/// The key of a whole word.
#[inline]
pub(crate) const fn key(word: &[u8]) -> u64 {
    let mut key = 0u64;
    let mut rest = word;
    if word.len() <= 8 {
        while let Some((&byte, tail)) = rest.split_first() {
            key = (key << 8) | fold(byte);
            rest = tail;
        }
        return key;
    }
    while let Some((&byte, tail)) = rest.split_first() {
        key = (key.rotate_left(7) ^ fold(byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        rest = tail;
    }
    key | (1 << 63)
}

macro_rules! keywords {
    ($($name:ident)*) => {
        $(pub(crate) const $name: u64 = key(stringify!($name).as_bytes());)*
    };
}

keywords! {
    ALL ALTER ANALYSE ANALYZE AND ANY AS B BACKUP BEGIN BETWEEN BINARY BINLOG BODY CACHE CALL CASE
    CHAIN CHANGE CHAR CHARACTER CHARSET CHECK CHECKSUM CLONE COLLATE COLLATION COLUMNS COMMIT
    CONNECTION CONNECTION_ID COUNT CREATE CURRVAL DATA DATABASE DATABASES DEALLOCATE DECLARE
    DEFAULT DELETE DESC DESCRIBE DISTINCT DISTINCTROW DIV DO DROP END ENGINES ERRORS ERROR_COUNT
    EVENT EVENTS EXCEPT EXECUTE EXPLAIN EXPORT EXTENDED FALSE FETCH FIELDS FLUSH FOR FORMAT
    FOUND_ROWS FROM FULL FUNCTION GET GLOBAL GRANT GROUP HANDLER HARD HAVING HELP HIGH_PRIORITY ID
    IDENTITY IF IMPORT IN INDEX INDEXES INFILE INFORMATION_SCHEMA INSERT INSTALL INSTANCE INTERSECT
    INTO IS IS_USED_LOCK KEYS KILL LASTVAL LAST_INSERT_ID LIKE LIMIT LOAD LOCAL LOCK LOOP MEMBER
    MOD MYSQL N NAMES NEXT NEXTVAL NO NOT NULL OF OFFSET ONLY OPEN OPTIMIZE OR ORDER PACKAGE
    PARTITIONS PASSWORD PERFORMANCE_SCHEMA PERSIST PERSIST_ONLY PREPARE PREVIOUS PRIVILEGES
    PROCEDURE PSEUDO_THREAD_ID PURGE QUERY READ RECURSIVE REGEXP RELEASE RENAME REPAIR REPEAT
    REPLACE RESET RESIGNAL RESOURCE RESTART REVOKE RLIKE ROLE ROLLBACK ROW_COUNT SAVEPOINT SCHEMA
    SCHEMAS SELECT SEQUENCE SERVER SESSION SET SHARE SHOW SHUTDOWN SIGNAL SNAPSHOT SOCKET SOFT SOME
    SQL_BIG_RESULT SQL_BUFFER_RESULT SQL_CACHE SQL_CALC_FOUND_ROWS SQL_NO_CACHE SQL_SMALL_RESULT
    STAGE START STATEMENT STATUS STOP STORAGE STRAIGHT_JOIN SYS TABLE TABLES TABLESPACE TEMPORARY
    TO TRANSACTION TRIGGER TRIGGERS TRUE TRUNCATE UNINSTALL UNION UNLOCK UPDATE USE USER VALUE
    VALUES VIEW WARNINGS WARNING_COUNT WHERE WHILE WINDOW WITH X XA XML XOR
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
