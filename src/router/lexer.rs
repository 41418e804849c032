//! Tokens of a statement, as the server's own lexer would cut them; no allocation.
//!
//! Follows `sql_lex.cc` of both families: executable comments are code or not by family and
//! version, `--` needs a following space or control byte, strings obey `sql_mode` and the
//! client's character set. What the server's lexer could read in another way is [`TokenKind::Bad`].
#![deny(clippy::indexing_slicing)]

use std::ops::Range;

use memchr::{memchr, memchr2};

use crate::router::keyword;
use crate::router::{Charset, Dialect};
use crate::topology::Flavour;

/// One token: what it is and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Word and Quoted: the key of the (inner) text; Punct: the byte; else 0.
    pub(crate) key: u64,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// An unquoted identifier or keyword.
    Word,
    /// An identifier in backticks, or in double quotes under ANSI_QUOTES.
    Quoted,
    /// A string literal, without its introducer.
    String,
    /// A number, hexadecimal and bit literals included, or `\N`.
    Number,
    /// A `?` of a prepared statement.
    Param,
    /// `@name`, `@'name'`, or a lone `@`.
    UserVar,
    /// `@@`, in front of a system variable.
    AtAt,
    /// `:=`.
    Assign,
    /// Any other single byte of punctuation.
    Punct,
    /// What the server refuses, or reads in a way that this lexer does not vouch for.
    Bad,
    /// Before the first token of a statement.
    Nothing,
}

/// Which executable comments are read as code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Those that the server of this dialect runs.
    Server,
    /// All of them.
    All,
    /// None of them.
    Skip,
}

/// A token or a comment.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Token(Token),
    /// A comment that is not code, delimiters included.
    Comment(Range<usize>),
}

/// Cuts a text into tokens.
#[derive(Debug, Clone)]
pub(crate) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    dialect: &'a Dialect,
    gate: Gate,
    in_executable: bool,
    executable_seen: bool,
    /// The end of the last identifier, to tell `t.1a` from `.1`.
    identifier_end: usize,
}

const WORD: u8 = 0x80;
const OTHER: u8 = 0;
const SPACE: u8 = 1;
const LETTER: u8 = 2;
const DIGIT: u8 = 3;
const PUNCT: u8 = 4;
const SPECIAL: u8 = 5;

const fn classes() -> [u8; 256] {
    let mut table = [OTHER; 256];
    let mut byte = 0usize;
    while byte < 256 {
        #[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
        #[expect(clippy::cast_possible_truncation, reason = "byte < 256")]
        {
            table[byte] = match byte as u8 {
                b' ' | 0x09..=0x0D => SPACE,
                b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xFF => LETTER | WORD,
                b'$' => SPECIAL | WORD,
                b'0'..=b'9' => DIGIT | WORD,
                b'(' | b')' | b',' | b';' | b'=' | b'<' | b'>' | b'!' | b'+' | b'%' | b'&'
                | b'|' | b'^' | b'~' => PUNCT,
                b'\'' | b'"' | b'`' | b'-' | b'/' | b'*' | b'#' | b'@' | b':' | b'.' | b'\\'
                | b'?' => SPECIAL,
                _ => OTHER,
            };
        }
        byte += 1;
    }
    table
}

const CLASSES: &[u8; 256] = &classes();

#[inline]
fn class(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(OTHER)
}

impl Token {
    pub(crate) const NOTHING: Self = Self { kind: TokenKind::Nothing, start: 0, end: 0, key: 0 };

    #[inline]
    pub(crate) fn is_punct(&self, byte: u8) -> bool {
        self.kind == TokenKind::Punct && self.key == u64::from(byte)
    }

    #[inline]
    pub(crate) fn is_word(&self, key: u64) -> bool {
        self.kind == TokenKind::Word && self.key == key
    }

    /// A word or a quoted identifier.
    #[inline]
    pub(crate) fn is_identifier(&self) -> bool {
        matches!(self.kind, TokenKind::Word | TokenKind::Quoted)
    }

    /// Its bytes in the text that it was cut from.
    pub(crate) fn bytes<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }

    /// What stands between the quotes of a token that has some.
    pub(crate) fn inside<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        let quoted = self.bytes(text);
        quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default()
    }
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a [u8], dialect: &'a Dialect, gate: Gate) -> Self {
        Self {
            text,
            at: 0,
            dialect,
            gate,
            in_executable: false,
            executable_seen: false,
            identifier_end: usize::MAX,
        }
    }

    /// Whether an executable comment of either form was met so far.
    pub(crate) fn executable_seen(&self) -> bool {
        self.executable_seen
    }

    /// How far the text is read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The next token; comments are skipped.
    #[inline]
    pub(crate) fn token(&mut self) -> Option<Token> {
        loop {
            match self.piece()? {
                Piece::Token(token) => return Some(token),
                Piece::Comment(_) => {}
            }
        }
    }

    /// The next token or comment.
    #[inline]
    pub(crate) fn piece(&mut self) -> Option<Piece> {
        loop {
            let Some(byte) = self.peek(0) else {
                if self.in_executable {
                    // The server refuses a text that ends inside an executable comment.
                    self.in_executable = false;
                    return Some(Piece::Token(self.take(TokenKind::Bad, self.at, 0)));
                }
                return None;
            };
            let start = self.at;
            match class(byte) {
                SPACE => {
                    let rest = self.text.get(start..).unwrap_or_default();
                    let length = rest.iter().position(|&byte| class(byte) != SPACE);
                    self.at = start.saturating_add(length.unwrap_or(rest.len()));
                }
                PUNCT => return Some(Piece::Token(self.punct(start, byte))),
                c if c & !WORD == LETTER => return Some(Piece::Token(self.word(start))),
                c if c & !WORD == DIGIT => return Some(Piece::Token(self.number(start))),
                c if c & !WORD == SPECIAL => {
                    if let Some(piece) = self.special(start, byte) {
                        return Some(piece);
                    }
                }
                _ => return Some(Piece::Token(self.bad(start))),
            }
        }
    }

    #[inline]
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at.saturating_add(ahead)).copied()
    }

    /// Ends a token at `end`.
    #[inline]
    fn take(&mut self, kind: TokenKind, end: usize, key: u64) -> Token {
        let start = self.at;
        self.at = end;
        Token { kind, start, end, key }
    }

    fn punct(&mut self, start: usize, byte: u8) -> Token {
        self.take(TokenKind::Punct, start.saturating_add(1), u64::from(byte))
    }

    fn bad(&mut self, start: usize) -> Token {
        self.take(TokenKind::Bad, start.saturating_add(1), 0)
    }

    /// A token or comment that starts with a byte of several meanings; `None` when an
    /// executable comment begins or ends here, which is no piece.
    fn special(&mut self, start: usize, byte: u8) -> Option<Piece> {
        let next = self.peek(1);
        let token = match byte {
            b'\'' => self.string(start, b'\''),
            b'"' if self.dialect.ansi_quotes => self.quoted(start, b'"'),
            b'"' => self.string(start, b'"'),
            b'`' => self.quoted(start, b'`'),
            b'-' if next == Some(b'-') && self.peek(2).is_none_or(|b| b <= b' ' || b == 0x7F) => {
                return Some(self.line_comment(start));
            }
            b'#' => return Some(self.line_comment(start)),
            b'/' if next == Some(b'*') => return self.block_comment(start),
            b'*' if next == Some(b'/') && self.in_executable => {
                self.in_executable = false;
                self.at = start.saturating_add(2);
                return None;
            }
            b'@' if next == Some(b'@') => self.take(TokenKind::AtAt, start.saturating_add(2), 0),
            b'@' => self.user_variable(start),
            b':' if next == Some(b'=') => self.take(TokenKind::Assign, start.saturating_add(2), 0),
            b'.' if next.is_some_and(|b| b.is_ascii_digit()) && self.identifier_end != start => {
                self.fraction(start)
            }
            b'\\' if next == Some(b'N') => self.take(TokenKind::Number, start.saturating_add(2), 0),
            b'?' => self.take(TokenKind::Param, start.saturating_add(1), 0),
            // `$` at the start may open a dollar-quoted string (MySQL 9).
            b'$' | b'\\' | b':' => self.bad(start),
            _ => self.punct(start, byte),
        };
        Some(Piece::Token(token))
    }

    fn word(&mut self, start: usize) -> Token {
        let end = self.word_end(start);
        let bytes = self.text.get(start..end).unwrap_or_default();
        let key = keyword::key(bytes);
        if !bytes.is_ascii() && !self.vouches_for(start, end) {
            return self.take(TokenKind::Bad, end, 0);
        }
        if self.text.get(end) == Some(&b'\'') {
            match key {
                keyword::N => return self.string(end, b'\''),
                keyword::X | keyword::B => return self.digits_in_quotes(end),
                _ => {}
            }
        }
        self.identifier_end = end;
        self.take(TokenKind::Word, end, key)
    }

    /// Whether bytes above 0x7F between the marks are letters to the server whatever its
    /// single-byte table says: some sets have a space among them (0xA0 of latin1), and trail
    /// bytes of others look like ASCII.
    fn vouches_for(&self, start: usize, end: usize) -> bool {
        self.dialect.charset == Charset::AsciiSafe
            && self.text.get(start..end).is_some_and(|w| std::str::from_utf8(w).is_ok())
    }

    /// A token that starts with a digit: a number, or an identifier such as `1a`.
    fn number(&mut self, start: usize) -> Token {
        let run = self.word_end(start);
        let bytes = self.text.get(start..run).unwrap_or_default();
        let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == bytes.len() {
            if self.text.get(run) == Some(&b'.') && self.identifier_end != start.wrapping_sub(1) {
                return self.fraction(run);
            }
            return self.take_from(start, TokenKind::Number, run, 0);
        }
        match (bytes, bytes.get(digits..)) {
            ([b'0', b'x', hex @ ..], _) if hex.iter().all(u8::is_ascii_hexdigit) => {
                self.take_from(start, TokenKind::Number, run, 0)
            }
            ([b'0', b'b', bits @ ..], _) if bits.iter().all(|b| matches!(b, b'0' | b'1')) => {
                self.take_from(start, TokenKind::Number, run, 0)
            }
            (_, Some([b'e' | b'E', exponent @ ..])) => {
                match exponent_end(self.text, start.saturating_add(digits)) {
                    Some(end) if end >= run => self.take_from(start, TokenKind::Number, end, 0),
                    _ if exponent.is_empty() => self.word(start),
                    _ => self.word(start),
                }
            }
            _ => self.word(start),
        }
    }

    fn take_from(&mut self, start: usize, kind: TokenKind, end: usize, key: u64) -> Token {
        self.at = start;
        self.take(kind, end, key)
    }

    /// The rest of a number from its point on; the token began at `self.at`.
    fn fraction(&mut self, point: usize) -> Token {
        let digits = |from: usize| {
            let rest = self.text.get(from..).unwrap_or_default();
            from.saturating_add(rest.iter().take_while(|b| b.is_ascii_digit()).count())
        };
        let end = digits(point.saturating_add(1));
        let end = exponent_end(self.text, end).unwrap_or(end);
        self.take(TokenKind::Number, end, 0)
    }

    fn word_end(&self, start: usize) -> usize {
        let rest = self.text.get(start..).unwrap_or_default();
        let length = rest.iter().position(|&byte| class(byte) & WORD == 0);
        start.saturating_add(length.unwrap_or(rest.len()))
    }

    /// `x'...'` and `b'...'`, from their quote.
    fn digits_in_quotes(&mut self, quote: usize) -> Token {
        let inside = self.text.get(quote.saturating_add(1)..).unwrap_or_default();
        match memchr(b'\'', inside) {
            Some(length) => {
                let content = inside.get(..length).unwrap_or_default();
                let good = content.iter().all(u8::is_ascii_hexdigit);
                let kind = if good { TokenKind::Number } else { TokenKind::Bad };
                self.take(kind, quote.saturating_add(length).saturating_add(2), 0)
            }
            None => self.take(TokenKind::Bad, self.text.len(), 0),
        }
    }

    /// A string literal from its opening quote; the token began at `self.at`.
    fn string(&mut self, open: usize, quote: u8) -> Token {
        let mut at = open.saturating_add(1);
        loop {
            let rest = self.text.get(at..).unwrap_or_default();
            let skip = match self.dialect.charset {
                Charset::AsciiSafe | Charset::Unknown => memchr2(quote, b'\\', rest),
                Charset::Gbk | Charset::Big5 | Charset::Sjis | Charset::Gb18030 => {
                    find_multibyte(rest, quote, self.dialect.charset)
                }
            };
            let Some(skip) = skip else {
                return self.take(TokenKind::Bad, self.text.len(), 0);
            };
            at = at.saturating_add(skip);
            let next = self.text.get(at.saturating_add(1)).copied();
            match self.text.get(at) {
                Some(b'\\') if self.dialect.no_backslash_escapes => at = at.saturating_add(1),
                Some(b'\\') => at = at.saturating_add(2),
                _ if next == Some(quote) => at = at.saturating_add(2),
                _ => return self.take(TokenKind::String, at.saturating_add(1), 0),
            }
        }
    }

    /// A quoted identifier from its opening quote.
    fn quoted(&mut self, start: usize, quote: u8) -> Token {
        let mut at = start.saturating_add(1);
        loop {
            let rest = self.text.get(at..).unwrap_or_default();
            let Some(skip) = memchr(quote, rest) else {
                return self.take(TokenKind::Bad, self.text.len(), 0);
            };
            at = at.saturating_add(skip).saturating_add(1);
            if self.text.get(at) != Some(&quote) {
                break;
            }
            at = at.saturating_add(1);
        }
        let inside = start.saturating_add(1)..at.saturating_sub(1);
        let inside = self.text.get(inside).unwrap_or_default();
        // Trail bytes that look like a quote: not vouched for.
        let vouched = self.dialect.charset == Charset::AsciiSafe || inside.is_ascii();
        let kind = if vouched { TokenKind::Quoted } else { TokenKind::Bad };
        self.identifier_end = at;
        self.take(kind, at, keyword::key(inside))
    }

    fn user_variable(&mut self, start: usize) -> Token {
        let name = start.saturating_add(1);
        match self.text.get(name).copied() {
            Some(quote @ (b'\'' | b'"')) if quote == b'\'' || !self.dialect.ansi_quotes => {
                let token = self.string(name, quote);
                let kind = match token.kind {
                    TokenKind::String => TokenKind::UserVar,
                    _ => TokenKind::Bad,
                };
                Token { kind, start, ..token }
            }
            Some(quote @ (b'`' | b'"')) => {
                let token = self.quoted(name, quote);
                let kind = match token.kind {
                    TokenKind::Quoted => TokenKind::UserVar,
                    _ => TokenKind::Bad,
                };
                Token { kind, start, key: 0, ..token }
            }
            _ => {
                let rest = self.text.get(name..).unwrap_or_default();
                let length =
                    rest.iter().take_while(|&&b| class(b) & WORD != 0 || b == b'.').count();
                let end = name.saturating_add(length);
                let plain = rest.get(..length).unwrap_or_default().is_ascii();
                let kind = if plain || self.vouches_for(name, end) {
                    TokenKind::UserVar
                } else {
                    TokenKind::Bad
                };
                self.take(kind, end, 0)
            }
        }
    }

    fn line_comment(&mut self, start: usize) -> Piece {
        let rest = self.text.get(start..).unwrap_or_default();
        let end = memchr(b'\n', rest).map_or(self.text.len(), |n| start.saturating_add(n));
        self.comment(start, end)
    }

    /// The server ends a line comment at a NUL byte; such a comment is not vouched for.
    fn comment(&mut self, start: usize, end: usize) -> Piece {
        let inside = self.text.get(start..end).unwrap_or_default();
        if memchr(0, inside).is_some() {
            return Piece::Token(self.take(TokenKind::Bad, end, 0));
        }
        self.at = end;
        Piece::Comment(start..end)
    }

    fn block_comment(&mut self, start: usize) -> Option<Piece> {
        let third = self.text.get(start.saturating_add(2)).copied();
        let fourth = self.text.get(start.saturating_add(3)).copied();
        let maria = third == Some(b'M') && fourth == Some(b'!');
        if third == Some(b'!') || maria {
            self.executable_seen = true;
            let head = start.saturating_add(if maria { 4 } else { 3 });
            let (version, length) = version_number(self.text.get(head..).unwrap_or_default());
            if self.runs(maria, version) {
                self.in_executable = true;
                self.at = head.saturating_add(length);
                return None;
            }
        }
        // A skipped executable comment may hold one level of plain ones; a plain one may not.
        let plain_here = maria && self.dialect.flavour == Flavour::MySql;
        let nests = (third == Some(b'!') || maria) && !plain_here;
        let end = comment_end(self.text, start.saturating_add(2), nests);
        let Some(end) = end else {
            return Some(Piece::Token(self.take(TokenKind::Bad, self.text.len(), 0)));
        };
        let inside = self.text.get(start..end).unwrap_or_default();
        // Hints have a lexer of their own, to which a quoted name may contain the end mark.
        let quoted_hint = third == Some(b'+')
            && (memchr2(b'`', b'"', inside).is_some() || memchr(b'\'', inside).is_some());
        if quoted_hint {
            return Some(Piece::Token(self.take(TokenKind::Bad, end, 0)));
        }
        Some(self.comment(start, end))
    }

    fn runs(&self, maria: bool, version: Option<u32>) -> bool {
        match (self.gate, self.dialect.flavour) {
            (Gate::All, _) => true,
            (Gate::Skip, _) => false,
            (Gate::Server, Flavour::MySql) => {
                !maria && version.is_none_or(|v| v <= self.dialect.version)
            }
            (Gate::Server, Flavour::MariaDb) => version.is_none_or(|v| {
                v <= self.dialect.version && (maria || !(50_700..=99_999).contains(&v))
            }),
        }
    }
}

/// The number of `/*!NNNNN` or `/*!NNNNNN`, and how many bytes it takes.
fn version_number(text: &[u8]) -> (Option<u32>, usize) {
    let digits = text.iter().take(6).take_while(|b| b.is_ascii_digit());
    let (length, number) =
        digits.fold((0usize, 0u32), |(n, v), b| (n + 1, v * 10 + u32::from(*b - b'0')));
    if length >= 5 { (Some(number), length) } else { (None, 0) }
}

/// The end of an exponent (`e5`, `e+5`) that starts at `at`, if there is one.
fn exponent_end(text: &[u8], at: usize) -> Option<usize> {
    if !matches!(text.get(at), Some(b'e' | b'E')) {
        return None;
    }
    let sign = usize::from(matches!(text.get(at.saturating_add(1)), Some(b'+' | b'-')));
    let from = at.saturating_add(1).saturating_add(sign);
    let digits = text.get(from..)?.iter().take_while(|b| b.is_ascii_digit()).count();
    let end = from.saturating_add(digits);
    let word_goes_on = text.get(end).is_some_and(|&b| class(b) & WORD != 0);
    (digits > 0 && (sign > 0 || !word_goes_on)).then_some(end)
}

/// The position after the `*/` that ends a comment whose inside starts at `at`.
fn comment_end(text: &[u8], at: usize, nests: bool) -> Option<usize> {
    let mut at = at;
    loop {
        let found = memchr2(b'*', b'/', text.get(at..)?)?;
        at = at.saturating_add(found);
        match (text.get(at), text.get(at.saturating_add(1))) {
            (Some(b'*'), Some(b'/')) => return Some(at.saturating_add(2)),
            (Some(b'/'), Some(b'*')) if nests => {
                at = comment_end(text, at.saturating_add(2), false)?;
            }
            _ => at = at.saturating_add(1),
        }
    }
}

/// The next quote or backslash that is a character of its own.
fn find_multibyte(text: &[u8], quote: u8, charset: Charset) -> Option<usize> {
    let mut at = 0usize;
    while let Some(&byte) = text.get(at) {
        if byte < 0x80 {
            if byte == quote || byte == b'\\' {
                return Some(at);
            }
            at = at.saturating_add(1);
        } else {
            let tail = text.get(at..).unwrap_or_default();
            at = at.saturating_add(character_length(tail, charset));
        }
    }
    None
}

/// Bytes of the character at the start of `text`; an incomplete or wrong one counts as one
/// byte, as in the server's `my_ismbchar`.
fn character_length(text: &[u8], charset: Charset) -> usize {
    let (Some(&lead), Some(&trail)) = (text.first(), text.get(1)) else { return 1 };
    let two = match charset {
        Charset::Gbk => matches!(lead, 0x81..=0xFE) && matches!(trail, 0x40..=0x7E | 0x80..=0xFE),
        Charset::Big5 => matches!(lead, 0xA1..=0xF9) && matches!(trail, 0x40..=0x7E | 0xA1..=0xFE),
        Charset::Sjis => {
            matches!(lead, 0x81..=0x9F | 0xE0..=0xFC) && matches!(trail, 0x40..=0x7E | 0x80..=0xFC)
        }
        Charset::Gb18030 => {
            let four = matches!(lead, 0x81..=0xFE)
                && trail.is_ascii_digit()
                && matches!(text.get(2), Some(0x81..=0xFE))
                && matches!(text.get(3), Some(b'0'..=b'9'));
            if four {
                return 4;
            }
            matches!(lead, 0x81..=0xFE) && matches!(trail, 0x40..=0x7E | 0x80..=0xFE)
        }
        Charset::AsciiSafe | Charset::Unknown => false,
    };
    if two { 2 } else { 1 }
}
