//! Statements without their literals: a fingerprint for counting and remembering, and the
//! same as a text for people.
//!
//! Literals become `?`, lists and repeated rows collapse, comments and case vanish. Both forms
//! come out of one normaliser, so that equal texts have equal fingerprints.
#![deny(clippy::indexing_slicing)]

use crate::router::Dialect;
use crate::router::keyword;
use crate::router::lexer::{Gate, Lexer, Token, TokenKind};

/// The longest normalised text, bytes.
pub const TEXT_LIMIT: usize = 1024;

/// Takes what the normaliser lets through.
pub(crate) trait Sink {
    type Mark: Copy;
    fn word(&mut self, token: &Token, text: &[u8]);
    fn literal(&mut self);
    fn punct(&mut self, byte: u8);
    fn mark(&self) -> Self::Mark;
    fn reset(&mut self, mark: Self::Mark);
}

/// Turns tokens into the normal form.
#[derive(Debug, Clone)]
pub(crate) struct Normaliser<S: Sink> {
    sink: S,
    last: Last,
    /// A comma after a literal, not let through yet.
    comma: bool,
    /// Inside a parenthesis that holds literals only so far.
    in_row: bool,
    /// Where to go back to when the present row repeats the one before.
    repeats: Option<S::Mark>,
    /// Where the comma after a row of literals began.
    after_row: Option<S::Mark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Nothing yet, or an operator, an opening parenthesis, a comma.
    Operator,
    Operand,
    Literal,
    /// A parenthesis that held literals only.
    Row,
}

impl<S: Sink> Normaliser<S> {
    pub(crate) fn new(sink: S) -> Self {
        let last = Last::Operator;
        Self { sink, last, comma: false, in_row: false, repeats: None, after_row: None }
    }

    #[inline]
    pub(crate) fn feed(&mut self, token: &Token, text: &[u8]) {
        match token.kind {
            // A literal that never ends, or in an unknown character set, may hold a password.
            TokenKind::String | TokenKind::Number | TokenKind::Param | TokenKind::Bad => {
                self.literal();
            }
            TokenKind::Word if self.starts_value() && is_constant(token.key) => self.literal(),
            TokenKind::Punct => self.punct(token),
            TokenKind::Assign => {
                self.leave_row();
                self.sink.word(token, text);
                self.last = Last::Operator;
            }
            TokenKind::Word
            | TokenKind::Quoted
            | TokenKind::UserVar
            | TokenKind::AtAt
            | TokenKind::Nothing => {
                self.leave_row();
                self.sink.word(token, text);
                self.last = Last::Operand;
            }
        }
    }

    fn starts_value(&self) -> bool {
        self.comma || self.last == Last::Operator
    }

    fn literal(&mut self) {
        if self.comma {
            self.comma = false;
        } else {
            self.after_row = None;
            self.sink.literal();
        }
        self.last = Last::Literal;
    }

    fn punct(&mut self, token: &Token) {
        match u8::try_from(token.key).unwrap_or(b'?') {
            b',' if self.last == Last::Literal => self.comma = true,
            b',' if self.last == Last::Row => {
                self.after_row = Some(self.sink.mark());
                self.sink.punct(b',');
                self.last = Last::Operator;
            }
            b'(' => {
                let repeats = self.after_row.take();
                self.leave_row();
                self.repeats = repeats;
                self.in_row = true;
                self.sink.punct(b'(');
                self.last = Last::Operator;
            }
            b')' => {
                self.let_comma_through();
                self.sink.punct(b')');
                let row = self.in_row && self.last == Last::Literal;
                self.in_row = false;
                match self.repeats.take() {
                    Some(mark) if row => self.sink.reset(mark),
                    _ => {}
                }
                self.last = if row { Last::Row } else { Last::Operand };
            }
            // A sign belongs to the literal that follows.
            b'-' | b'+' if self.starts_value() => {}
            byte => {
                self.leave_row();
                self.sink.punct(byte);
                self.last = Last::Operator;
            }
        }
    }

    fn let_comma_through(&mut self) {
        if self.comma {
            self.sink.punct(b',');
            self.comma = false;
        }
    }

    fn leave_row(&mut self) {
        self.let_comma_through();
        self.in_row = false;
        self.repeats = None;
        self.after_row = None;
    }

    /// The end of the text, or of the part of it that is looked at.
    pub(crate) fn finish(mut self) -> S {
        if let Some(mark) = self.repeats.or(self.after_row) {
            self.sink.reset(mark);
        }
        self.sink
    }
}

fn is_constant(key: u64) -> bool {
    matches!(key, keyword::NULL | keyword::TRUE | keyword::FALSE | keyword::DEFAULT)
}

/// Sums the normal form up in 64 bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) const START: Self = Self(0x243F_6A88_85A3_08D3);

    #[inline]
    fn add(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    pub(crate) fn value(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        mixed ^ (mixed >> 32)
    }
}

impl Sink for Fingerprint {
    type Mark = Self;

    #[inline]
    fn word(&mut self, token: &Token, text: &[u8]) {
        let key = match token.kind {
            TokenKind::Word | TokenKind::Quoted => token.key,
            _ => keyword::key(token.bytes(text)),
        };
        self.add(key);
    }

    #[inline]
    fn literal(&mut self) {
        self.add(u64::MAX);
    }

    #[inline]
    fn punct(&mut self, byte: u8) {
        self.add(u64::from(byte) | 0x0100);
    }

    fn mark(&self) -> Self {
        *self
    }

    fn reset(&mut self, mark: Self) {
        *self = mark;
    }
}

/// Writes the normal form out.
#[derive(Debug, Default)]
struct Text {
    out: String,
    /// The last byte was punctuation that wants no space after it.
    tight: bool,
}

impl Text {
    fn space(&mut self) {
        if !self.out.is_empty() && !self.tight {
            self.out.push(' ');
        }
        self.tight = false;
    }
}

impl Sink for Text {
    type Mark = usize;

    fn word(&mut self, token: &Token, text: &[u8]) {
        self.space();
        let word = String::from_utf8_lossy(token.bytes(text));
        match token.kind {
            TokenKind::Word => self.out.push_str(&word.to_lowercase()),
            TokenKind::AtAt => {
                self.out.push_str("@@");
                self.tight = true;
            }
            _ => self.out.push_str(&word),
        }
    }

    fn literal(&mut self) {
        self.space();
        self.out.push('?');
    }

    fn punct(&mut self, byte: u8) {
        let no_space_before = matches!(byte, b',' | b')' | b'.' | b'(' | b';');
        let after_operator = self.out.ends_with(['=', '<', '>', '!', '|', '&', '-']);
        let joins = after_operator && matches!(byte, b'=' | b'>' | b'|' | b'&');
        if !no_space_before && !joins {
            self.space();
        }
        self.out.push(char::from(byte));
        self.tight = matches!(byte, b'(' | b'.');
    }

    fn mark(&self) -> usize {
        self.out.len()
    }

    fn reset(&mut self, mark: usize) {
        self.out.truncate(mark);
        self.tight = false;
    }
}

/// The normal form of a statement, at most [`TEXT_LIMIT`] bytes.
#[must_use]
pub fn text(sql: &[u8], dialect: &Dialect) -> String {
    let mut lexer = Lexer::new(sql, dialect, Gate::Server);
    let mut normaliser = Normaliser::new(Text::default());
    while let Some(token) = lexer.token() {
        normaliser.feed(&token, sql);
        if normaliser.sink.out.len() > TEXT_LIMIT {
            break;
        }
    }
    let mut out = normaliser.finish().out;
    if out.len() > TEXT_LIMIT {
        let cut = (0..=TEXT_LIMIT - 4).rev().find(|&at| out.is_char_boundary(at));
        out.truncate(cut.unwrap_or(0));
        out.push_str(" ...");
    }
    out
}

/// The fingerprint of a statement's normal form; equal to [`crate::router::Class::digest`].
#[must_use]
pub fn fingerprint(sql: &[u8], dialect: &Dialect) -> u64 {
    crate::router::classify(sql, dialect).digest
}
