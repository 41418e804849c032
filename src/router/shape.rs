//! A text with its literals blanked out, by which its class is remembered.
//!
//! Only what the classification provably never looks at is blanked: the digits of whole numbers and
//! the inside of plain strings, both as tokens that stay the tokens they were. A text in which
//! anything could make that doubtful has no shape and is remembered as it is. (SHOW STATUS looks
//! at its pattern: `cache` does not remember it by its shape.)
#![deny(clippy::indexing_slicing)]

use memchr::memchr3;

use crate::router::{Charset, Dialect};

/// Bytes at which copying stops: digits, quotes, what may begin a comment, escapes and NUL.
const STOPS: [bool; 256] = {
    let mut stops = [false; 256];
    let bytes = b"0123456789'\"`-/#\\\0";
    let mut rest: &[u8] = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        #[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
        {
            stops[byte as usize] = true;
        }
        rest = tail;
    }
    stops
};

/// Writes the shape of `sql` into `shape`, which is emptied first; false when it has none.
pub(crate) fn of(sql: &[u8], dialect: &Dialect, shape: &mut Vec<u8>) -> bool {
    shape.clear();
    // Elsewhere trail bytes may look like quotes.
    if dialect.charset != Charset::AsciiSafe {
        return false;
    }
    let mut at = 0usize;
    loop {
        let rest = sql.get(at..).unwrap_or_default();
        let plain = rest.iter().position(|&byte| stops(byte)).unwrap_or(rest.len());
        shape.extend_from_slice(rest.get(..plain).unwrap_or_default());
        at = at.saturating_add(plain);
        let Some(&byte) = sql.get(at) else { return true };
        let before = at.checked_sub(1).and_then(|before| sql.get(before)).copied().unwrap_or(b' ');
        let rest = sql.get(at..).unwrap_or_default();
        let length = match byte {
            // Comments to the end of a line; escapes.
            b'#' | b'\\' | 0 => None,
            b'\'' if joins(before) || before == b'@' => None,
            b'\'' => string(rest).inspect(|_| shape.extend_from_slice(b"''")),
            b'"' | b'`' => quoted(rest, byte).inspect(|length| copy(shape, rest, *length)),
            b'-' | b'/' => match (byte, rest.get(1)) {
                (b'-', Some(b'-')) | (b'/', Some(b'*')) => None,
                _ => Some(1).inspect(|length| copy(shape, rest, *length)),
            },
            _ => {
                let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let after = rest.get(length).copied().unwrap_or(b' ');
                if joins(before) || joins(after) || [before, after].contains(&b'.') {
                    copy(shape, rest, length);
                } else if before == b'@' {
                    return false;
                } else {
                    shape.push(b'0');
                }
                Some(length)
            }
        };
        let Some(length) = length else { return false };
        at = at.saturating_add(length);
    }
}

fn stops(byte: u8) -> bool {
    STOPS.get(usize::from(byte)).copied().unwrap_or(true)
}

fn copy(shape: &mut Vec<u8>, from: &[u8], length: usize) {
    shape.extend_from_slice(from.get(..length).unwrap_or_default());
}

/// Whether a byte next to a digit makes it part of a word.
const fn joins(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

/// The length of the string that `text` begins with; two quotes in it stand for one.
fn string(text: &[u8]) -> Option<usize> {
    let mut at = quoted(text, b'\'')?;
    while text.get(at) == Some(&b'\'') {
        at = at.saturating_add(quoted(text.get(at..)?, b'\'')?);
    }
    Some(at)
}

/// The length of what `text` begins with, up to the next quote; `None` with an escape in it.
fn quoted(text: &[u8], quote: u8) -> Option<usize> {
    let rest = text.get(1..)?;
    let length = memchr3(quote, b'\\', 0, rest)?;
    (rest.get(length) == Some(&quote)).then(|| length.saturating_add(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::dialect;
    use crate::topology::Flavour;

    fn shape(sql: &str) -> Option<String> {
        let mut shape = Vec::new();
        of(sql.as_bytes(), &dialect(Flavour::MariaDb), &mut shape)
            .then(|| String::from_utf8(shape).expect("text"))
    }

    #[test]
    fn numbers_and_strings_are_blanked() {
        for (sql, expected) in [
            ("SELECT c FROM t1 WHERE id=5046", "SELECT c FROM t1 WHERE id=0"),
            ("SELECT 'it''s', -17 LIMIT 10,20", "SELECT '', -0 LIMIT 0,0"),
            ("SELECT `1`, \"2'\", 3", "SELECT `1`, \"2'\", 0"),
            ("SELECT 1.5, 1e5, 0x10, a.2b", "SELECT 1.5, 1e5, 0x10, a.2b"),
            ("SELECT 5", "SELECT 0"),
            ("SELECT '#', `#`, ''''", "SELECT '', `#`, ''"),
        ] {
            assert_eq!(shape(sql).as_deref(), Some(expected), "{sql}");
        }
    }

    #[test]
    fn what_is_doubtful_has_no_shape() {
        for sql in [
            "SELECT 'a\\'b'",
            "SELECT /*!50000 1*/",
            "SELECT 1 -- x",
            "SELECT 1--1",
            "SELECT 1 # x",
            "SELECT x'41'",
            "SELECT _utf8'a'",
            "SELECT @1",
            "SELECT @'a'",
            "SELECT 'a', 'b\\'c'",
            "SELECT \"a\\\"b\", 'c'",
            "SELECT `a\\`",
            "SELECT \\N",
            "SELECT 'open",
            "SELECT '''",
            "SELECT `open",
            "SELECT '\0'",
        ] {
            assert_eq!(shape(sql), None, "{sql}");
        }
        let mut out = Vec::new();
        let gbk = Dialect { charset: Charset::Gbk, ..dialect(Flavour::MySql) };
        assert!(!of(b"SELECT 1", &gbk, &mut out));
    }
}
