//! What the leading words of a statement promise: its verb, its effects on the session, and
//! whether it may be a read at all.
//!
//! Every token is taken through the scan, so nothing here can make a read of what the scan
//! objects to.
#![deny(clippy::indexing_slicing)]

use crate::router::keyword as kw;
use crate::router::lexer::{Token, TokenKind};
use crate::router::scan::Scan;
use crate::router::{Class, Effects, Kind, Reason, Verb, names};

/// Tokens of a statement's head that are searched for a word that changes its meaning.
const HEAD_LIMIT: usize = 16;

/// Statements inside statements (`SET STATEMENT ... FOR`, `EXPLAIN`) that are followed.
const NESTING_LIMIT: u8 = 4;

/// What the leading words allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    /// May be a read, if the scan finds nothing.
    Read,
    /// Asks about the previous statement.
    Last,
    /// Not a read.
    Primary(Reason),
}

/// Reads the heads of statements, token by token, through the scan.
pub(crate) struct Reader<'a> {
    pub(crate) scan: Scan<'a>,
}

type Opening = (Verb, Lead);

const fn primary(verb: Verb, reason: Reason) -> Opening {
    (verb, Lead::Primary(reason))
}

const fn write(verb: Verb) -> Opening {
    primary(verb, Reason::Write)
}

const fn command(verb: Verb) -> Opening {
    primary(verb, Reason::Command)
}

impl<'a> Reader<'a> {
    pub(crate) fn new(scan: Scan<'a>) -> Self {
        Self { scan }
    }

    /// The class of the statement that begins with `first`, without effects and digest, which
    /// the scan sums up over all statements of a text.
    pub(crate) fn classify(&mut self, first: &Token) -> Class {
        let opening = self.statement(first, 0);
        self.rest();
        self.verdict(opening)
    }

    /// The first token of the next statement that is not empty.
    pub(crate) fn first_token(&mut self) -> Option<Token> {
        loop {
            self.scan.begin_statement();
            let token = self.scan.advance()?;
            if !token.is_punct(b';') {
                return Some(token);
            }
        }
    }

    /// Scans to the end of the statement.
    fn rest(&mut self) {
        while !self.scan.p1.is_punct(b';') && self.scan.advance().is_some() {}
    }

    /// Scans to the end of the text: a `;` in there belongs to the body.
    fn body(&mut self) {
        while self.scan.advance().is_some() {}
    }

    /// The next token of this statement.
    fn next(&mut self) -> Option<Token> {
        if self.scan.p1.is_punct(b';') { None } else { self.scan.advance() }
    }

    /// The next token's key, if it is a word; 0 otherwise.
    fn next_word(&mut self) -> u64 {
        match self.next() {
            Some(token) if token.kind == TokenKind::Word => token.key,
            _ => 0,
        }
    }

    fn effect(&mut self, effect: Effects) {
        self.scan.effect(effect);
    }

    fn verdict(&mut self, (verb, lead): Opening) -> Class {
        let (kind, reason) = match (lead, self.scan.danger()) {
            // Only a hint can overrule "host-local", so what was found comes first there.
            (Lead::Primary(Reason::HostLocal), Some(found)) => (Kind::Primary, found),
            (Lead::Primary(reason), _) => (Kind::Primary, reason),
            (Lead::Read | Lead::Last, Some(found)) => (Kind::Primary, found),
            (Lead::Last, None) => (Kind::Last, Reason::PreviousStatement),
            (Lead::Read, None) if self.scan.diagnostics => (Kind::Last, Reason::PreviousStatement),
            (Lead::Read, None) => (Kind::Read, Reason::PlainRead),
        };
        Class { kind, verb, effects: Effects::NONE, reason, digest: 0, multi: false }
    }

    fn statement(&mut self, first: &Token, nesting: u8) -> Opening {
        if first.is_punct(b'(') {
            return self.parenthesised();
        }
        if first.kind != TokenKind::Word {
            return self.unknown();
        }
        match first.key {
            kw::SELECT => (Verb::Select, Lead::Read),
            kw::VALUES => (Verb::Values, Lead::Read),
            kw::TABLE => (Verb::Table, Lead::Read),
            kw::DO => (Verb::Do, Lead::Read),
            kw::HELP => (Verb::Other, Lead::Read),
            kw::WITH => {
                self.scan.open_with_list();
                (Verb::With, Lead::Read)
            }
            kw::INSERT => write(Verb::Insert),
            kw::UPDATE => write(Verb::Update),
            kw::DELETE => write(Verb::Delete),
            kw::REPLACE => write(Verb::Replace),
            kw::SHOW => self.show(),
            kw::DESC | kw::DESCRIBE | kw::EXPLAIN => self.explain(nesting),
            kw::ANALYZE => self.analyze(nesting),
            kw::SET => self.set(nesting),
            key => self.transaction_statement(key),
        }
    }

    fn unknown(&mut self) -> Opening {
        self.effect(Effects::OPAQUE);
        primary(Verb::Other, Reason::Undecided)
    }

    fn parenthesised(&mut self) -> Opening {
        loop {
            let Some(token) = self.next() else { return self.unknown() };
            if token.is_punct(b'(') {
                continue;
            }
            return match (token.kind, token.key) {
                (TokenKind::Word, kw::SELECT) => (Verb::Select, Lead::Read),
                // The scan opened the list itself, as it follows a parenthesis.
                (TokenKind::Word, kw::WITH) => (Verb::With, Lead::Read),
                (TokenKind::Word, kw::VALUES) => (Verb::Values, Lead::Read),
                (TokenKind::Word, kw::TABLE) => (Verb::Table, Lead::Read),
                _ => self.unknown(),
            };
        }
    }

    fn transaction_statement(&mut self, key: u64) -> Opening {
        match key {
            kw::BEGIN => {
                if self.next_word() == kw::NOT {
                    return self.compound();
                }
                self.effect(Effects::BEGIN);
                command(Verb::Begin)
            }
            kw::START => self.start(),
            kw::COMMIT => self.end_of_transaction(Verb::Commit),
            kw::ROLLBACK => self.end_of_transaction(Verb::Rollback),
            kw::SAVEPOINT | kw::RELEASE => command(Verb::Savepoint),
            kw::XA => {
                match self.next_word() {
                    kw::START | kw::BEGIN => {
                        self.effect(Effects::BEGIN.with(Effects::XA));
                    }
                    kw::END | kw::PREPARE => self.effect(Effects::XA),
                    _ => {}
                }
                command(Verb::Xa)
            }
            kw::USE => primary(Verb::Use, Reason::SessionState),
            kw::CALL => {
                self.effect(Effects::OPAQUE);
                write(Verb::Call)
            }
            kw::PREPARE => {
                self.effect(Effects::TEXT_PREPARE);
                primary(Verb::Prepare, Reason::SessionState)
            }
            kw::EXECUTE => {
                self.effect(Effects::OPAQUE);
                primary(Verb::Execute, Reason::SessionState)
            }
            kw::DEALLOCATE => primary(Verb::Deallocate, Reason::SessionState),
            kw::IF | kw::CASE | kw::LOOP | kw::WHILE | kw::REPEAT | kw::FOR | kw::DECLARE => {
                self.compound()
            }
            key => self.data_definition(key),
        }
    }

    /// COMMIT or ROLLBACK; one that goes back to a savepoint ends nothing.
    fn end_of_transaction(&mut self, verb: Verb) -> Opening {
        let (mut word, mut no) = (self.next_word(), false);
        while word != 0 {
            match word {
                kw::TO => return command(Verb::Savepoint),
                kw::CHAIN if !no => self.effect(Effects::CHAIN),
                kw::RELEASE if no => self.effect(Effects::NO_RELEASE),
                kw::RELEASE => self.effect(Effects::RELEASE),
                _ => {}
            }
            no = word == kw::NO;
            word = self.next_word();
        }
        command(verb)
    }

    /// A compound statement: its body may do anything, and its `;` separate nothing here.
    fn compound(&mut self) -> Opening {
        self.body();
        self.effect(Effects::OPAQUE);
        write(Verb::Other)
    }

    fn start(&mut self) -> Opening {
        if self.next_word() != kw::TRANSACTION {
            self.effect(Effects::TOPOLOGY);
            return command(Verb::Administration);
        }
        let (mut only, mut snapshot) = (false, false);
        while let Some(token) = self.next() {
            only |= token.is_word(kw::ONLY);
            snapshot |= token.is_word(kw::SNAPSHOT);
        }
        self.effect(Effects::BEGIN);
        if only && !snapshot {
            self.effect(Effects::BEGIN_READ_ONLY);
        }
        command(Verb::Begin)
    }

    fn data_definition(&mut self, key: u64) -> Opening {
        match key {
            kw::CREATE | kw::ALTER => self.create_or_alter(key),
            kw::DROP => match self.next_word() {
                kw::USER | kw::ROLE => self.accounts(),
                kw::PREPARE => primary(Verb::Deallocate, Reason::SessionState),
                kw::TEMPORARY => write(Verb::Ddl),
                _ => self.ddl(),
            },
            kw::RENAME => match self.next_word() {
                kw::USER => self.accounts(),
                _ => self.ddl(),
            },
            kw::TRUNCATE | kw::IMPORT => self.ddl(),
            kw::GRANT | kw::REVOKE => self.accounts(),
            key => self.lock_statement(key),
        }
    }

    fn ddl(&mut self) -> Opening {
        self.effect(Effects::DDL);
        write(Verb::Ddl)
    }

    fn accounts(&mut self) -> Opening {
        self.effect(Effects::ACCOUNTS);
        write(Verb::Account)
    }

    fn create_or_alter(&mut self, verb: u64) -> Opening {
        for _ in 0..HEAD_LIMIT {
            match self.next() {
                None => break,
                Some(token) if token.kind != TokenKind::Word => {}
                Some(token) => match token.key {
                    kw::USER | kw::ROLE => return self.accounts(),
                    kw::TEMPORARY => {
                        self.effect(Effects::TEMP_TABLE);
                        return write(Verb::Ddl);
                    }
                    kw::INSTANCE if verb == kw::ALTER => return command(Verb::Administration),
                    kw::PROCEDURE | kw::FUNCTION | kw::TRIGGER | kw::EVENT | kw::PACKAGE => {
                        // The body has `;` of its own, and does not run now.
                        let before = self.scan.effects;
                        self.body();
                        self.scan.effects = before;
                        return self.ddl();
                    }
                    kw::TABLE
                    | kw::VIEW
                    | kw::INDEX
                    | kw::DATABASE
                    | kw::SCHEMA
                    | kw::SEQUENCE
                    | kw::SERVER
                    | kw::TABLESPACE => break,
                    _ => {}
                },
            }
        }
        self.ddl()
    }

    fn lock_statement(&mut self, key: u64) -> Opening {
        match key {
            kw::LOCK => {
                self.effect(Effects::LOCK);
                command(Verb::LockTables)
            }
            kw::UNLOCK => {
                self.effect(Effects::UNLOCK);
                command(Verb::UnlockTables)
            }
            kw::BACKUP => {
                let unlocks = match self.next_word() {
                    kw::STAGE => self.next_word() == kw::END,
                    word => word == kw::UNLOCK,
                };
                self.effect(if unlocks { Effects::UNLOCK } else { Effects::LOCK });
                command(Verb::Administration)
            }
            kw::FLUSH => self.flush(),
            kw::HANDLER => {
                while let Some(token) = self.next() {
                    if token.is_word(kw::OPEN) {
                        self.effect(Effects::HANDLER_OPEN);
                    }
                }
                primary(Verb::Handler, Reason::SessionState)
            }
            kw::KILL => {
                self.effect(Effects::KILL);
                command(Verb::Kill)
            }
            kw::LOAD => self.load(),
            key => self.administration(key),
        }
    }

    fn flush(&mut self) -> Opening {
        while let Some(token) = self.next() {
            match token.key {
                _ if token.kind != TokenKind::Word => {}
                kw::READ | kw::EXPORT => self.effect(Effects::LOCK),
                kw::PRIVILEGES => self.effect(Effects::ACCOUNTS),
                kw::STATUS => self.effect(Effects::COUNTERS),
                _ => {}
            }
        }
        command(Verb::Administration)
    }

    fn load(&mut self) -> Opening {
        match self.next_word() {
            kw::DATA | kw::XML => {
                for _ in 0..HEAD_LIMIT {
                    match self.next_word() {
                        kw::LOCAL => self.effect(Effects::LOCAL_INFILE),
                        kw::INFILE | 0 => break,
                        _ => {}
                    }
                }
                write(Verb::LoadData)
            }
            _ => command(Verb::Administration),
        }
    }

    fn administration(&mut self, key: u64) -> Opening {
        match key {
            kw::CHANGE | kw::STOP | kw::RESET | kw::SHUTDOWN | kw::RESTART | kw::CLONE => {
                self.effect(Effects::TOPOLOGY);
                command(Verb::Administration)
            }
            kw::OPTIMIZE
            | kw::REPAIR
            | kw::CHECK
            | kw::CHECKSUM
            | kw::CACHE
            | kw::PURGE
            | kw::INSTALL
            | kw::UNINSTALL => command(Verb::Administration),
            kw::BINLOG => {
                self.effect(Effects::REPLICATION_REPLAY);
                write(Verb::Other)
            }
            kw::SIGNAL | kw::RESIGNAL => command(Verb::Other),
            kw::GET => {
                while let Some(token) = self.next() {
                    if token.kind == TokenKind::UserVar {
                        self.effect(Effects::USER_VAR_WRITE);
                    }
                }
                (Verb::Other, Lead::Last)
            }
            _ => self.unknown(),
        }
    }

    fn set(&mut self, nesting: u8) -> Opening {
        self.scan.begin_set();
        match self.next_word() {
            kw::STATEMENT => return self.set_statement(nesting),
            kw::PASSWORD => return self.accounts(),
            kw::ROLE => {
                self.effect(Effects::ROLE);
                return primary(Verb::Set, Reason::SessionState);
            }
            kw::DEFAULT if self.next_word() == kw::ROLE => return self.accounts(),
            kw::TRANSACTION => {
                self.effect(Effects::NEXT_TRANSACTION);
                return primary(Verb::Set, Reason::SessionState);
            }
            _ => {}
        }
        self.effect(Effects::SET);
        primary(Verb::Set, Reason::SessionState)
    }

    /// MariaDB's `SET STATEMENT name = value, ... FOR statement`.
    fn set_statement(&mut self, nesting: u8) -> Opening {
        if nesting >= NESTING_LIMIT {
            return self.unknown();
        }
        let replay = Effects(self.scan.effects.0 & Effects::REPLICATION_REPLAY.0);
        while let Some(token) = self.next() {
            if self.scan.depth == 0 && token.is_word(kw::FOR) {
                // The variables are back to what they were afterwards.
                let kept = self.scan.effects.0 & !Effects::REPLICATION_REPLAY.0;
                self.scan.effects = Effects(kept).with(replay).with(Effects::SET_STATEMENT);
                self.scan.end_set();
                return match self.next() {
                    Some(inner) => self.statement(&inner, nesting + 1),
                    None => self.unknown(),
                };
            }
        }
        self.unknown()
    }

    /// What follows EXPLAIN, DESCRIBE or DESC.
    fn explain(&mut self, nesting: u8) -> Opening {
        let mut executes = false;
        while let Some(token) = self.next() {
            if token.is_punct(b'(') {
                let (_, lead) = self.parenthesised();
                return (Verb::Explain, lead);
            }
            match token.key {
                _ if token.kind != TokenKind::Word => break,
                kw::EXTENDED | kw::PARTITIONS => {}
                kw::ANALYZE => executes = true,
                kw::FORMAT => {
                    if !self.next().is_some_and(|t| t.is_punct(b'=')) {
                        // A table of that name.
                        return self.metadata(Verb::Describe);
                    }
                    let _ = self.next();
                }
                kw::INTO => {
                    let _ = self.next();
                }
                kw::FOR => match self.next_word() {
                    kw::CONNECTION => return primary(Verb::Explain, Reason::HostLocal),
                    kw::SCHEMA | kw::DATABASE => {
                        let _ = self.next();
                    }
                    _ => return self.unknown(),
                },
                kw::SELECT | kw::WITH | kw::VALUES => {
                    let (_, lead) = self.statement(&token, nesting + 1);
                    return (Verb::Explain, lead);
                }
                kw::TABLE if !executes => return (Verb::Explain, Lead::Read),
                kw::INSERT | kw::UPDATE | kw::DELETE | kw::REPLACE | kw::TABLE => {
                    return write(Verb::Explain);
                }
                _ if executes => return self.unknown(),
                _ => return self.metadata(Verb::Describe),
            }
        }
        match self.scan.p1.kind {
            TokenKind::Quoted if !executes => self.metadata(Verb::Describe),
            _ => self.unknown(),
        }
    }

    /// MariaDB's `ANALYZE [FORMAT=JSON] statement`, or an administrative ANALYZE TABLE.
    fn analyze(&mut self, nesting: u8) -> Opening {
        while let Some(token) = self.next() {
            if token.is_punct(b'(') {
                let (_, lead) = self.parenthesised();
                return (Verb::Explain, lead);
            }
            match token.key {
                _ if token.kind != TokenKind::Word => break,
                kw::FORMAT => {
                    let _ = self.next();
                    let _ = self.next();
                }
                kw::SELECT | kw::WITH | kw::VALUES => {
                    let (_, lead) = self.statement(&token, nesting + 1);
                    return (Verb::Explain, lead);
                }
                kw::INSERT | kw::UPDATE | kw::DELETE | kw::REPLACE => {
                    return write(Verb::Explain);
                }
                _ => break,
            }
        }
        command(Verb::Administration)
    }

    fn show(&mut self) -> Opening {
        let host_local = primary(Verb::Show, Reason::HostLocal);
        let mut word = self.next_word();
        if matches!(word, kw::FULL | kw::EXTENDED | kw::STORAGE) {
            word = self.next_word();
            if word == kw::FULL {
                word = self.next_word();
            }
        }
        match word {
            kw::TABLES
            | kw::TABLE
            | kw::COLUMNS
            | kw::FIELDS
            | kw::INDEX
            | kw::INDEXES
            | kw::KEYS
            | kw::DATABASES
            | kw::SCHEMAS
            | kw::TRIGGERS => self.metadata(Verb::Show),
            kw::COLLATION | kw::CHARSET | kw::CHARACTER | kw::ENGINES | kw::PRIVILEGES => {
                (Verb::Show, Lead::Read)
            }
            // Events are enabled on one server only.
            kw::EVENTS => host_local,
            kw::STATUS => self.status(false),
            kw::SESSION | kw::LOCAL if self.next_word() == kw::STATUS => self.status(false),
            kw::GLOBAL if self.next_word() == kw::STATUS => self.status(true),
            kw::PROCEDURE | kw::FUNCTION | kw::PACKAGE => match self.next_word() {
                kw::STATUS => self.metadata(Verb::Show),
                kw::BODY if self.next_word() == kw::STATUS => self.metadata(Verb::Show),
                _ => host_local,
            },
            kw::CREATE => match self.next_word() {
                kw::TABLE
                | kw::VIEW
                | kw::DATABASE
                | kw::SCHEMA
                | kw::PROCEDURE
                | kw::FUNCTION
                | kw::TRIGGER
                | kw::SEQUENCE
                | kw::PACKAGE => self.metadata(Verb::Show),
                _ => host_local,
            },
            kw::WARNINGS | kw::ERRORS | kw::COUNT => (Verb::Show, Lead::Last),
            _ => host_local,
        }
    }

    fn metadata(&mut self, verb: Verb) -> Opening {
        self.effect(Effects::METADATA);
        (verb, Lead::Read)
    }

    /// SHOW STATUS: whoever reads the counters of his session does something, then reads them
    /// again.
    fn status(&mut self, global: bool) -> Opening {
        let mut plain = global;
        while let Some(token) = self.next() {
            if token.kind == TokenKind::String {
                let pattern = self.scan.inside(&token);
                if pattern.eq_ignore_ascii_case(b"last_query_cost") {
                    return (Verb::Show, Lead::Last);
                }
                plain = names::is_plain_status(pattern)
                    || global && !names::is_query_cache_status(pattern);
            }
        }
        if !plain {
            self.effect(Effects::COUNTERS);
        }
        primary(Verb::Show, Reason::HostLocal)
    }
}
