//! What a SET statement assigns, so that it can be repeated on another link.
#![deny(clippy::indexing_slicing)]

use crate::router::keyword as kw;
use crate::router::lexer::{Gate, Lexer, Token, TokenKind};
use crate::router::{Dialect, SCAN_LIMIT, names};

/// One assignment of a SET statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// What is assigned to.
    pub target: SetTarget,
    /// What is assigned.
    pub value: SetValue,
}

/// What SET assigns to. Names of variables are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetTarget {
    /// `@name`, without its `@` and quotes.
    UserVar(Vec<u8>),
    /// A system variable of the session.
    Session(String),
    /// A system variable of the server.
    Global(String),
    /// PERSIST or PERSIST_ONLY.
    Persist(String),
    /// SET NAMES.
    Names,
    /// SET CHARACTER SET.
    CharacterSet,
    /// SET TRANSACTION, for the next one only.
    NextTransaction,
    /// SET SESSION TRANSACTION.
    SessionTransaction,
    /// SET GLOBAL TRANSACTION.
    GlobalTransaction,
    /// SET ROLE.
    Role,
    /// SET PASSWORD.
    Password,
    /// SET DEFAULT ROLE.
    DefaultRole,
    /// SET RESOURCE GROUP.
    ResourceGroup,
}

/// What SET assigns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetValue {
    /// A literal that means the same in every `sql_mode` and client character set: numbers,
    /// NULL, TRUE, FALSE, and strings of ASCII without backslashes, in single quotes. A string
    /// still takes its collation from the connection unless it says so itself.
    Literal(Vec<u8>),
    /// Bare words, separated by single spaces: `utf8mb4 COLLATE x`, `ON`, `READ ONLY`.
    Words(Vec<u8>),
    /// DEFAULT.
    Default,
    /// Anything else: its value must be asked for.
    Expression,
}

/// The scope words that stand before a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Session,
    Global,
    Persist,
}

/// Understands a text that is one SET statement; `None` when any part of it is not understood.
#[must_use]
pub fn parse(sql: &[u8], dialect: &Dialect) -> Option<Vec<Assignment>> {
    if sql.len() > SCAN_LIMIT {
        return None;
    }
    let mut lexer = Lexer::new(sql, dialect, Gate::Server);
    let mut tokens = Vec::new();
    while let Some(token) = lexer.token() {
        if token.kind == TokenKind::Bad {
            return None;
        }
        tokens.push(token);
    }
    while tokens.last().is_some_and(|token| token.is_punct(b';')) {
        tokens.pop();
    }
    if tokens.iter().any(|token| token.is_punct(b';')) {
        return None;
    }
    let (set, rest) = tokens.split_first()?;
    if !set.is_word(kw::SET) {
        return None;
    }
    match special(sql, rest) {
        Some(assignment) => Some(vec![assignment]),
        None => list(sql, rest),
    }
}

/// The forms that are not a list of assignments.
fn special(sql: &[u8], tokens: &[Token]) -> Option<Assignment> {
    let word = |n: usize| tokens.get(n).filter(|t| t.kind == TokenKind::Word).map(|t| t.key);
    let (target, from) = match (word(0)?, word(1)) {
        (kw::PASSWORD, _) => {
            return Some(Assignment { target: SetTarget::Password, value: SetValue::Expression });
        }
        (kw::ROLE, _) => (SetTarget::Role, 1),
        (kw::DEFAULT, Some(kw::ROLE)) => (SetTarget::DefaultRole, 2),
        (kw::RESOURCE, Some(kw::GROUP)) => (SetTarget::ResourceGroup, 2),
        (kw::TRANSACTION, _) => (SetTarget::NextTransaction, 1),
        (kw::SESSION | kw::LOCAL, Some(kw::TRANSACTION)) => (SetTarget::SessionTransaction, 2),
        (kw::GLOBAL, Some(kw::TRANSACTION)) => (SetTarget::GlobalTransaction, 2),
        _ => return None,
    };
    let value = SetValue::Words(words(sql, tokens.get(from..)?));
    Some(Assignment { target, value })
}

fn words(sql: &[u8], tokens: &[Token]) -> Vec<u8> {
    let texts: Vec<&[u8]> = tokens.iter().map(|token| token.bytes(sql)).collect();
    texts.join(&b' ')
}

/// A list of assignments. A scope word holds for those after it that have none.
fn list(sql: &[u8], tokens: &[Token]) -> Option<Vec<Assignment>> {
    let mut scope = Scope::Session;
    let mut depth = 0u32;
    let mut assignments = Vec::new();
    let items = tokens.split(|token| {
        if token.is_punct(b'(') {
            depth = depth.saturating_add(1);
        } else if token.is_punct(b')') {
            depth = depth.saturating_sub(1);
        }
        depth == 0 && token.is_punct(b',')
    });
    for item in items {
        assignments.push(item_of(sql, item, &mut scope)?);
    }
    Some(assignments)
}

fn item_of(sql: &[u8], item: &[Token], scope: &mut Scope) -> Option<Assignment> {
    let (first, rest) = item.split_first()?;
    match first.kind {
        TokenKind::UserVar => {
            let target = SetTarget::UserVar(user_variable_name(first.bytes(sql))?);
            Some(Assignment { target, value: value(sql, after_operator(rest)?, true) })
        }
        TokenKind::AtAt => {
            let at = explicit_scope(rest, true);
            let Some(scope) = at else {
                return system_variable(sql, rest, Scope::Session).map(for_the_next_transaction);
            };
            system_variable(sql, rest.get(2..)?, scope)
        }
        TokenKind::Word => match (first.key, rest.first()) {
            (kw::NAMES, Some(next)) if !is_operator(next) => {
                Some(named(SetTarget::Names, sql, rest))
            }
            (kw::CHARSET, Some(next)) if !is_operator(next) => {
                Some(named(SetTarget::CharacterSet, sql, rest))
            }
            (kw::CHARACTER | kw::CHAR, Some(next)) if next.is_word(kw::SET) => {
                Some(named(SetTarget::CharacterSet, sql, rest.get(1..)?))
            }
            _ => {
                let rest = match explicit_scope(item, false) {
                    Some(found) => {
                        *scope = found;
                        rest
                    }
                    None => item,
                };
                system_variable(sql, rest, *scope)
            }
        },
        TokenKind::Quoted => system_variable(sql, item, *scope),
        _ => None,
    }
}

/// `SET @@name` of these variables concerns the next transaction only.
fn for_the_next_transaction(assignment: Assignment) -> Assignment {
    match &assignment.target {
        SetTarget::Session(name) if names::is_next_transaction_variable(name.as_bytes()) => {
            Assignment { target: SetTarget::NextTransaction, ..assignment }
        }
        _ => assignment,
    }
}

/// The scope at the start of `tokens`: followed by a point (`@@global.x`) or by a name.
fn explicit_scope(tokens: &[Token], pointed: bool) -> Option<Scope> {
    let word = tokens.first().filter(|t| t.kind == TokenKind::Word)?;
    let next = tokens.get(1)?;
    if pointed != next.is_punct(b'.') || (!pointed && !next.is_identifier()) {
        return None;
    }
    match word.key {
        kw::SESSION | kw::LOCAL => Some(Scope::Session),
        kw::GLOBAL => Some(Scope::Global),
        kw::PERSIST | kw::PERSIST_ONLY => Some(Scope::Persist),
        _ => None,
    }
}

fn named(target: SetTarget, sql: &[u8], rest: &[Token]) -> Assignment {
    let value = match rest {
        [only] if only.is_word(kw::DEFAULT) => SetValue::Default,
        _ => SetValue::Words(words(sql, rest)),
    };
    Assignment { target, value }
}

/// `name = value`, where the name may have points in it.
fn system_variable(sql: &[u8], tokens: &[Token], scope: Scope) -> Option<Assignment> {
    let at = tokens.iter().position(is_operator)?;
    let (name_tokens, _) = tokens.split_at_checked(at)?;
    let mut name = String::new();
    for (index, token) in name_tokens.iter().enumerate() {
        let wants_point = index % 2 == 1;
        if wants_point != token.is_punct(b'.') || (!wants_point && !token.is_identifier()) {
            return None;
        }
        let part = names::unquoted(token.bytes(sql));
        name.push_str(&std::str::from_utf8(part).ok()?.to_ascii_lowercase());
    }
    if name.is_empty() || name.ends_with('.') {
        return None;
    }
    let target = match scope {
        Scope::Session => SetTarget::Session(name),
        Scope::Global => SetTarget::Global(name),
        Scope::Persist => SetTarget::Persist(name),
    };
    let value_tokens = tokens.get(at.checked_add(1)?..).filter(|rest| !rest.is_empty())?;
    Some(Assignment { target, value: value(sql, value_tokens, false) })
}

fn is_operator(token: &Token) -> bool {
    token.is_punct(b'=') || token.kind == TokenKind::Assign
}

fn after_operator(rest: &[Token]) -> Option<&[Token]> {
    let (operator, value) = rest.split_first()?;
    (is_operator(operator) && !value.is_empty()).then_some(value)
}

/// `@name`, `@'name'` or `` @`name` `` without the ornaments, in lower case since such names
/// are compared without case.
fn user_variable_name(text: &[u8]) -> Option<Vec<u8>> {
    let name = match text.strip_prefix(b"@")? {
        [quote @ (b'\'' | b'"' | b'`'), inside @ .., _] => {
            // Doubled quotes and escapes would need undoing; nobody writes them.
            (!inside.contains(quote) && !inside.contains(&b'\\')).then_some(inside)?
        }
        bare => bare,
    };
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

fn value(sql: &[u8], tokens: &[Token], user_variable: bool) -> SetValue {
    if let Some(text) = literal(sql, tokens) {
        return SetValue::Literal(text);
    }
    match tokens {
        [word] if word.is_word(kw::DEFAULT) && !user_variable => SetValue::Default,
        [word] if word.kind == TokenKind::Word && !user_variable => {
            SetValue::Words(word.bytes(sql).to_vec())
        }
        _ => SetValue::Expression,
    }
}

/// A literal that means the same wherever it is repeated.
fn literal(sql: &[u8], tokens: &[Token]) -> Option<Vec<u8>> {
    match tokens {
        [number] if number.kind == TokenKind::Number => Some(number.bytes(sql).to_vec()),
        [sign, number]
            if number.kind == TokenKind::Number && (sign.is_punct(b'-') || sign.is_punct(b'+')) =>
        {
            Some([sign.bytes(sql), number.bytes(sql)].concat())
        }
        [word] if word.kind == TokenKind::Word => match word.key {
            kw::NULL | kw::TRUE | kw::FALSE => Some(word.bytes(sql).to_vec()),
            _ => None,
        },
        [string] if string.kind == TokenKind::String => portable_string(string.bytes(sql)),
        [introducer, string] if is_introducer(sql, introducer) => {
            let text = match string.kind {
                TokenKind::String => portable_string(string.bytes(sql))?,
                TokenKind::Number => string.bytes(sql).to_vec(),
                _ => return None,
            };
            Some([introducer.bytes(sql), b" ".as_slice(), text.as_slice()].concat())
        }
        [value @ .., collate, name] if collate.is_word(kw::COLLATE) && name.is_identifier() => {
            let mut text = literal(sql, value)?;
            text.extend_from_slice(b" COLLATE ");
            text.extend_from_slice(name.bytes(sql));
            Some(text)
        }
        _ => None,
    }
}

fn is_introducer(sql: &[u8], token: &Token) -> bool {
    token.kind == TokenKind::Word && token.bytes(sql).starts_with(b"_")
}

/// A string in single quotes that no `sql_mode` and no character set reads in another way.
fn portable_string(text: &[u8]) -> Option<Vec<u8>> {
    if !text.is_ascii() || text.contains(&b'\\') || text.contains(&0) {
        return None;
    }
    match text {
        [b'"', inside @ .., b'"'] if !inside.contains(&b'"') && !inside.contains(&b'\'') => {
            Some([b"'".as_slice(), inside, b"'".as_slice()].concat())
        }
        [b'"', ..] => None,
        _ => Some(text.to_vec()),
    }
}

#[cfg(test)]
mod tests;
