//! The one pass over a statement's tokens: whatever its leading words promise, every token is
//! looked at here, and only a text in which nothing was found can be a read.
#![deny(clippy::indexing_slicing)]

use crate::router::catalogue::{self, Effect};
use crate::router::digest::{Fingerprint, Normaliser};
use crate::router::keyword as kw;
use crate::router::lexer::{Gate, Lexer, Piece, Token, TokenKind};
use crate::router::{Dialect, Effects, Reason, hint, names};
use crate::topology::Flavour;

/// Deepest parenthesis up to which WITH lists are followed.
const WITH_DEPTH: u32 = 63;

/// State of the pass.
pub(crate) struct Scan<'a> {
    text: &'a [u8],
    dialect: &'a Dialect,
    lexer: Lexer<'a>,
    normaliser: Normaliser<Fingerprint>,
    limit: usize,
    /// The last three tokens of this statement, the newest first.
    pub(crate) p1: Token,
    p2: Token,
    p3: Token,
    pub(crate) depth: u32,
    /// Bit n: a WITH list is open at parenthesis depth n.
    with_lists: u64,
    /// What was found that no plain read has.
    danger: Option<Reason>,
    /// Asks about the previous statement.
    pub(crate) diagnostics: bool,
    pub(crate) effects: Effects,
    /// INTO was seen: user variables after it are written.
    into: bool,
    /// In a SET list, in front of an assignment's operator.
    pub(crate) assigning: bool,
    in_set: bool,
    /// JSON_TABLE was called this often without its COLUMNS so far.
    table_functions: u32,
    /// Inside POINT(...): its depth, and the commas of its own so far.
    point: Option<(u32, u32)>,
    /// The text is longer than the limit, and the pass got that far.
    pub(crate) too_large: bool,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(text: &'a [u8], dialect: &'a Dialect, gate: Gate, limit: usize) -> Self {
        Self {
            text,
            dialect,
            lexer: Lexer::new(text, dialect, gate),
            normaliser: Normaliser::new(Fingerprint::START),
            limit,
            p1: Token::NOTHING,
            p2: Token::NOTHING,
            p3: Token::NOTHING,
            depth: 0,
            with_lists: 0,
            danger: None,
            diagnostics: false,
            effects: Effects::NONE,
            into: false,
            assigning: false,
            in_set: false,
            table_functions: 0,
            point: None,
            too_large: false,
        }
    }

    /// The next token, after it was looked at.
    #[inline]
    pub(crate) fn advance(&mut self) -> Option<Token> {
        if self.lexer.position() > self.limit {
            self.too_large = true;
            return None;
        }
        let token = loop {
            match self.lexer.piece()? {
                Piece::Token(token) => break token,
                Piece::Comment(range) => {
                    let comment = self.text.get(range).unwrap_or_default();
                    if let Some(hint) = hint::of_comment(comment) {
                        self.effects = self.effects.with(hint.effect());
                    }
                }
            }
        };
        self.normaliser.feed(&token, self.text);
        self.inspect(&token);
        self.p3 = std::mem::replace(&mut self.p2, std::mem::replace(&mut self.p1, token));
        Some(token)
    }

    /// What stands between the quotes of a token.
    pub(crate) fn inside(&self, token: &Token) -> &'a [u8] {
        token.inside(self.text)
    }

    /// Forgets the statement before; its findings were collected.
    pub(crate) fn begin_statement(&mut self) {
        self.p1 = Token::NOTHING;
        self.p2 = Token::NOTHING;
        self.p3 = Token::NOTHING;
        self.depth = 0;
        self.with_lists = 0;
        self.danger = None;
        self.diagnostics = false;
        self.into = false;
        self.assigning = false;
        self.in_set = false;
        self.table_functions = 0;
        self.point = None;
    }

    /// The reason why this statement is no plain read, if one was found.
    pub(crate) fn danger(&self) -> Option<Reason> {
        match self.danger {
            None if self.with_lists != 0 => Some(Reason::Undecided),
            None if self.table_functions != 0 => Some(Reason::Function),
            found => found,
        }
    }

    /// Notes a reason; whatever came first stays, but "host-local" yields to all others since
    /// it alone may be overruled by a hint.
    pub(crate) fn note(&mut self, reason: Reason) {
        if matches!(self.danger, None | Some(Reason::HostLocal)) {
            self.danger = Some(reason);
        }
    }

    pub(crate) fn effect(&mut self, effect: Effects) {
        self.effects = self.effects.with(effect);
    }

    /// From here on `name =` at depth 0 assigns.
    pub(crate) fn begin_set(&mut self) {
        self.in_set = true;
        self.assigning = true;
    }

    /// The list of `SET STATEMENT` is over: what follows is a statement of its own.
    pub(crate) fn end_set(&mut self) {
        self.in_set = false;
        self.assigning = false;
    }

    /// The list that WITH just opened.
    pub(crate) fn open_with_list(&mut self) {
        if self.depth > WITH_DEPTH {
            self.note(Reason::Undecided);
        } else {
            self.with_lists |= 1 << self.depth;
        }
    }

    pub(crate) fn executable_seen(&self) -> bool {
        self.lexer.executable_seen()
    }

    /// The fingerprint of what was read.
    pub(crate) fn digest(self) -> u64 {
        self.normaliser.finish().value()
    }

    fn in_with_list(&self) -> bool {
        self.depth <= WITH_DEPTH && self.with_lists & (1 << self.depth) != 0
    }

    fn close_with_list(&mut self) {
        if self.depth <= WITH_DEPTH {
            self.with_lists &= !(1 << self.depth);
        }
    }

    #[inline]
    fn inspect(&mut self, token: &Token) {
        match token.kind {
            TokenKind::Word => self.word(token),
            TokenKind::Quoted => self.name(token),
            TokenKind::Punct => self.punct(token),
            TokenKind::UserVar => self.user_variable(),
            TokenKind::Assign => self.assign(),
            TokenKind::Bad => self.note(Reason::Undecided),
            TokenKind::String
            | TokenKind::Number
            | TokenKind::Param
            | TokenKind::AtAt
            | TokenKind::Nothing => {}
        }
    }

    fn user_variable(&mut self) {
        self.effect(if self.into { Effects::USER_VAR_WRITE } else { Effects::USER_VAR_READ });
    }

    fn assign(&mut self) {
        if self.in_set && self.depth == 0 && self.assigning {
            self.assigning = false;
            self.assignment_target();
        } else {
            self.effect(Effects::USER_VAR_WRITE);
            self.note(Reason::SessionState);
        }
    }

    /// The word before `=` in a SET list names what is set.
    fn assignment_target(&mut self) {
        if !self.p1.is_identifier() {
            return;
        }
        let name = names::unquoted(self.p1.bytes(self.text));
        if self.p2.kind == TokenKind::AtAt
            && self.dialect.flavour == Flavour::MariaDb
            && !names::is_next_transaction_variable(name)
        {
            // Its trackers are silent about `@@name`; rewritten, they speak.
            self.effect(Effects::VIRTUAL);
        }
        if names::is_replay_variable(name) {
            self.effect(Effects::REPLICATION_REPLAY);
        }
        if names::is_topology_variable(name) {
            self.effect(Effects::TOPOLOGY);
        }
        if name.eq_ignore_ascii_case(b"last_insert_id") || name.eq_ignore_ascii_case(b"identity") {
            self.effect(Effects::LAST_INSERT_ID);
        }
    }

    fn punct(&mut self, token: &Token) {
        match u8::try_from(token.key).unwrap_or(0) {
            b'(' => {
                self.call();
                self.depth = self.depth.saturating_add(1);
            }
            b')' => {
                if self.in_with_list() {
                    self.note(Reason::Undecided);
                }
                self.close_with_list();
                self.close_call();
                self.depth = self.depth.saturating_sub(1);
            }
            b'.' => self.qualifier(),
            b',' => {
                self.assigning |= self.depth == 0 && self.in_set;
                if let Some((depth, commas)) = &mut self.point
                    && *depth == self.depth
                {
                    *commas = commas.saturating_add(1);
                }
            }
            b'=' if self.depth == 0 && self.assigning => {
                self.assigning = false;
                self.assignment_target();
            }
            _ => {}
        }
        self.dangling_dml(token.is_punct(b'('));
    }

    /// INSERT and REPLACE are functions in front of a parenthesis and writes elsewhere.
    fn dangling_dml(&mut self, parenthesis: bool) {
        let dml = self.p1.is_word(kw::INSERT) || self.p1.is_word(kw::REPLACE);
        if dml && !parenthesis {
            self.note(Reason::Write);
        }
    }

    /// A parenthesis opens: whatever stands before it may be called.
    fn call(&mut self) {
        match self.p1.kind {
            TokenKind::Word | TokenKind::Quoted => {}
            // `db.1e5(...)` calls a stored function, and `1e5` looked like a number.
            TokenKind::Number => return self.note(Reason::Undecided),
            TokenKind::Punct if self.p1.is_punct(b')') => {
                if self.in_with_list() {
                    self.close_with_list();
                }
                return;
            }
            _ => return,
        }
        if self.p2.is_punct(b'.') {
            return self.note(Reason::Function);
        }
        if self.p1.kind == TokenKind::Word {
            let name = self.p1.bytes(self.text);
            if let Some(effect) = catalogue::effect(name, self.p1.key, self.dialect) {
                return self.called(effect);
            }
        }
        if self.p1.is_word(kw::COLUMNS) && self.p2.kind == TokenKind::String {
            // `, '$' COLUMNS (` of JSON_TABLE itself; NESTED PATH has a word there.
            if self.p3.is_punct(b',') {
                self.table_functions = self.table_functions.saturating_sub(1);
            }
            return;
        }
        if !self.is_alias() && !self.is_contextual_keyword() {
            self.note(Reason::Function);
        }
    }

    /// A parenthesis closes. With other arguments than they want, some names are no built-ins.
    fn close_call(&mut self) {
        if let Some((depth, commas)) = self.point
            && depth == self.depth
        {
            self.point = None;
            if commas != 1 {
                self.note(Reason::Function);
            }
        }
        if self.p1.is_punct(b'(') && self.p2.kind == TokenKind::Word {
            let name = self.p2.bytes(self.text);
            let effect = catalogue::effect(name, self.p2.key, self.dialect);
            if effect == Some(Effect::Constructor) {
                self.note(Reason::Function);
            }
        }
    }

    /// Whether the name before the parenthesis is being given to a derived table or a common
    /// table expression, with a list of columns.
    fn is_alias(&self) -> bool {
        let after_with = self.p2.is_word(kw::WITH)
            || (self.p2.is_word(kw::RECURSIVE) && self.p3.is_word(kw::WITH));
        let in_list = self.in_with_list() && (after_with || self.p2.is_punct(b','));
        in_list || self.p2.is_word(kw::AS) || self.p2.is_punct(b')')
    }

    /// Whether the word before the parenthesis is a keyword in this place only.
    fn is_contextual_keyword(&self) -> bool {
        let operator = matches!(
            self.p2.kind,
            TokenKind::Punct if [b'=', b'<', b'>'].iter().any(|&b| self.p2.is_punct(b))
        );
        match self.p1.key {
            _ if self.p1.kind != TokenKind::Word => false,
            // The first word of a statement is a verb.
            _ if self.p2.kind == TokenKind::Nothing => true,
            kw::ANY | kw::SOME => operator,
            kw::OF => self.p2.is_word(kw::MEMBER),
            kw::ANALYSE => self.p2.is_word(kw::PROCEDURE),
            _ => false,
        }
    }

    fn called(&mut self, effect: Effect) {
        match effect {
            Effect::Pure | Effect::Volatile | Effect::Keyword | Effect::Constructor => {}
            Effect::TableFunction => self.table_functions = self.table_functions.saturating_add(1),
            // One inside another is not worth following.
            Effect::Point if self.point.is_some() => self.note(Reason::Function),
            Effect::Point => self.point = Some((self.depth.saturating_add(1), 0)),
            Effect::Diagnostics => {
                self.diagnostics = true;
                self.effect(Effects::DIAGNOSTICS);
            }
            Effect::LastInsertId => {
                self.effect(Effects::LAST_INSERT_ID);
                self.note(Reason::SessionState);
            }
            Effect::HostLocal => self.note(Reason::HostLocal),
            Effect::ConnectionId => {
                self.effect(Effects::VIRTUAL);
                self.note(Reason::HostLocal);
            }
            Effect::TakesLock => {
                self.effect(Effects::USER_LOCK);
                self.note(Reason::Function);
            }
            Effect::UserLock => self.note(Reason::Function),
            Effect::ReleasesAllLocks => {
                self.effect(Effects::RELEASE_ALL_LOCKS);
                self.note(Reason::Function);
            }
            Effect::Writes => self.note(Reason::Write),
            Effect::SessionReading => self.note(Reason::SessionState),
        }
    }

    /// A point: the name before it may be a schema of one host.
    fn qualifier(&mut self) {
        if !self.p1.is_identifier() {
            return;
        }
        match self.p1.key {
            kw::MYSQL | kw::SYS => self.note(Reason::HostLocal),
            // Longer than eight bytes: the key alone is no proof, but doubt suffices.
            kw::PERFORMANCE_SCHEMA => self.note(Reason::HostLocal),
            _ => {}
        }
    }

    /// Any identifier, quoted or not, that may follow a point or `@@`.
    fn name(&mut self, token: &Token) {
        self.dangling_dml(false);
        if self.p1.kind == TokenKind::AtAt {
            return self.system_variable(token, false);
        }
        if !self.p1.is_punct(b'.') {
            return;
        }
        if self.p3.kind == TokenKind::AtAt {
            return self.system_variable(token, true);
        }
        if self.p2.is_identifier() && self.p2.key == kw::INFORMATION_SCHEMA {
            let table = names::unquoted(token.bytes(self.text));
            if table.eq_ignore_ascii_case(b"session_status") {
                self.effect(Effects::COUNTERS);
            }
            match names::is_shared_information_schema_table(table) {
                true => self.effect(Effects::METADATA),
                false => self.note(Reason::HostLocal),
            }
        }
    }

    /// `@@name` or, when `scoped`, `@@scope.name`.
    fn system_variable(&mut self, token: &Token, scoped: bool) {
        let name = names::unquoted(token.bytes(self.text));
        match token.key {
            kw::GLOBAL | kw::PERSIST | kw::PERSIST_ONLY if !scoped => {
                return self.note(Reason::HostLocal);
            }
            kw::SESSION | kw::LOCAL if !scoped => return,
            kw::WARNING_COUNT | kw::ERROR_COUNT => {
                self.diagnostics = true;
                self.effect(Effects::DIAGNOSTICS);
                return;
            }
            kw::LAST_INSERT_ID | kw::IDENTITY => {
                self.effect(Effects::LAST_INSERT_ID);
                return self.note(Reason::SessionState);
            }
            kw::SOCKET | kw::PSEUDO_THREAD_ID => self.effect(Effects::VIRTUAL),
            _ => {}
        }
        if !names::is_session_variable(name, scoped) {
            self.note(Reason::HostLocal);
        }
    }

    fn word(&mut self, token: &Token) {
        self.name(token);
        if self.p1.is_punct(b'.') {
            return self.word_after_point(token);
        }
        if self.p1.kind == TokenKind::AtAt {
            return;
        }
        if self.in_with_list() {
            self.word_in_with_list(token);
        }
        match token.key {
            kw::UPDATE if self.p1.is_word(kw::FOR) => self.note(Reason::LockingRead),
            kw::UPDATE | kw::DELETE => self.note(Reason::Write),
            kw::SHARE if self.p1.is_word(kw::FOR) => self.note(Reason::LockingRead),
            kw::IN if self.p1.is_word(kw::LOCK) => self.note(Reason::LockingRead),
            kw::INTO => {
                self.into = true;
                self.note(Reason::Write);
            }
            kw::FOR if self.p1.is_word(kw::VALUE) => match self.p2.key {
                kw::NEXT => self.note(Reason::Write),
                kw::PREVIOUS => self.note(Reason::SessionState),
                _ => {}
            },
            kw::SQL_CALC_FOUND_ROWS => self.effect(Effects::FOUND_ROWS),
            kw::WITH if self.p1.is_punct(b'(') => self.open_with_list(),
            _ => {}
        }
    }

    /// `sequence.nextval`, of MariaDB's ORACLE mode.
    fn word_after_point(&mut self, token: &Token) {
        match (self.dialect.flavour, token.key) {
            (Flavour::MariaDb, kw::NEXTVAL) => self.note(Reason::Write),
            (Flavour::MariaDb, kw::CURRVAL) => self.note(Reason::SessionState),
            _ => {}
        }
    }

    /// A WITH list ends at the statement that it belongs to.
    fn word_in_with_list(&mut self, token: &Token) {
        match token.key {
            kw::SELECT | kw::VALUES | kw::TABLE => self.close_with_list(),
            kw::UPDATE | kw::DELETE | kw::INSERT | kw::REPLACE => {
                self.close_with_list();
                self.note(Reason::Write);
            }
            _ => {}
        }
    }
}
