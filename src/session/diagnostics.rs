//! What the client may ask about the statement before: its warnings and errors, and on which
//! link they are listed. An error that was told without a server is told to one as soon as it
//! may be asked for.

use crate::protocol::errno::SqlError;
use crate::protocol::flags::Status;
use crate::protocol::walker::Expect;
use crate::router::policy::Held;
use crate::router::{Class, Effects, Kind, Reason, Verb, rewrite};
use crate::session::Session;
use crate::session::action::{Outbox, World};
use crate::session::pending::Ask;
use crate::session::phrase::insert_id_statement;
use crate::session::step::Step;
use crate::topology::Flavour;

/// The list that SHOW WARNINGS shows.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// How many entries it has; an error counts as one, whatever came before it.
    count: u16,
    /// How many of them MySQL repeats where it repeats their number.
    repeated: u16,
    /// The link that has it. With no entries it may be gone.
    on: Option<Held>,
    /// Its only entry, as long as no server knows of it.
    untold: Option<Box<SqlError>>,
    /// The link that lists a mark of ours: where that is gone, so is the list.
    mark: Option<Held>,
    /// A server's error is among them: what it lists before that, nobody was told.
    open_ended: bool,
}

impl Listed {
    /// The same list on the link where its statement is done again.
    pub(super) fn moved_to(self, slot: Held) -> Self {
        Self { on: self.on.map(|_| slot), mark: None, ..self }
    }
}

/// What a statement does to the list of the one before, if it leaves nothing itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Emptied,
    Kept,
    Unknown,
}

impl Session {
    /// The list is on this link, and cannot be made anywhere else.
    pub(super) fn is_listed_on(&self, slot: Held) -> bool {
        self.listed.on == Some(slot) && self.listed.count > 0
    }

    /// The list is on this link, or what tells whether there still is one.
    pub(super) fn keeps_list(&self, slot: Held) -> bool {
        self.is_listed_on(slot) || self.listed.mark == Some(slot)
    }

    /// What the link must be made to list, or to count, before the pending request.
    pub(super) fn listing_step(&self, slot: Held) -> Option<Step> {
        let pending = self.pending.as_ref()?;
        if let Some(sql) = self.untold() {
            return Some(Step::Tell(sql));
        }
        if self.must_be_marked(slot) {
            return Some(Step::Mark);
        }
        let prepares = matches!(pending.ask, Ask::Prepare { .. });
        let asks = pending.class.kind == Kind::Last && !prepares;
        (self.pinged && asks).then_some(Step::Ping)
    }

    /// Whether a mark must be listed on the link before the pending request. MariaDB's CALL leaves
    /// the list of the statement before, unless the procedure uses a table; where that list is on
    /// the other link, only something else that is listed here can tell.
    fn must_be_marked(&self, slot: Held) -> bool {
        let Listed { count, on, mark, .. } = self.listed;
        let elsewhere = count > 0 && mark.is_none() && on.is_some_and(|on| on != slot);
        elsewhere && self.fate() == Fate::Unknown
    }

    /// The link lists a mark of ours and nothing else.
    pub(super) fn was_marked(&mut self, slot: Held) {
        self.listed.mark = Some(slot);
        if let Some(link) = self.link_mut(slot) {
            link.listed = true;
        }
    }

    /// The pending request asks for a list of which this link's mark tells whether it is there.
    pub(super) fn must_ask_for_mark(&self, slot: Held) -> bool {
        self.listed.mark == Some(slot) && self.asks_for_list()
    }

    /// The answer to [`MARKS`](crate::session::phrase::MARKS): the pending request is to run where
    /// the list is.
    pub(super) fn mark_known(&mut self, slot: Held, count: Option<&[u8]>) {
        match count {
            Some(b"0") => self.list_is_on(slot, 0),
            _ => self.listed.mark = None,
        }
        if let Some(pending) = self.pending.as_mut() {
            pending.way.decision = None;
        }
    }

    /// A reply on `slot` tells how many warnings its statement has left.
    pub(super) fn note_warnings(&mut self, slot: Held, warnings: u16) {
        let Some(pending) = self.pending.as_ref() else { return };
        if pending.expect == Expect::FieldList && self.lists_behind() {
            // It is deprecated: that is listed behind what is there, not told, and not repeated
            // (MySQL 9.7, measured).
            let here = self.listed.on == Some(slot);
            let before = if here { self.listed.count } else { 0 };
            self.list_is_on(slot, before.saturating_add(1));
            return self.repeat_no_count();
        }
        if warnings == 0 && self.nothing_is_listed() {
            // Nearly always: it does not matter what the text does to an empty list.
            self.listed.on = Some(slot);
            return;
        }
        if warnings == 0 || !has_text(&pending.ask) {
            match self.fate() {
                Fate::Emptied => {}
                Fate::Unknown if self.list_is_asked_for_on() != Some(slot) => {
                    if warnings == 0 && has_text(&pending.ask) {
                        // What stands here is of an earlier statement, if it does still.
                        self.listed = Listed::default();
                        return;
                    }
                }
                Fate::Kept | Fate::Unknown => {
                    if has_text(&pending.ask) && !matches!(pending.ask, Ask::Prepare { .. }) {
                        self.repeat_no_count();
                    }
                    return;
                }
            }
        }
        self.list_is_on(slot, warnings);
    }

    /// The link that has the list, or the one that may have the next.
    pub(super) fn list_is_where(&self) -> Held {
        let here = |slot: &Held| self.link(*slot).is_some();
        self.listed.on.filter(here).unwrap_or(Held::Primary)
    }

    /// The link that tells what is listed: the one that has the list, or the mark.
    fn list_is_asked_for_on(&self) -> Option<Held> {
        self.listed.mark.or(self.listed.on)
    }

    fn nothing_is_listed(&self) -> bool {
        self.listed.count == 0 && !self.links.iter().flatten().any(|link| link.listed)
    }

    /// The client was told of an error that came from the server of `slot`.
    pub(super) fn note_error(&mut self, slot: Held) {
        let Listed { count, repeated, on, .. } = self.listed;
        self.list_is_on(slot, 1);
        if self.lists_behind() {
            // It stands behind what was listed there.
            self.listed.count = if on == Some(slot) { count.saturating_add(1) } else { 1 };
            // Commands that repeat the number count on; the others begin anew (9.7, measured).
            let before = if self.repeats_count() { repeated } else { 0 };
            self.listed.repeated = before.saturating_add(1);
        }
        self.listed.open_ended = self.state.dialect.flavour == Flavour::MySql;
    }

    /// The link whose server has to answer a COM_PING, since the answer tells how many warnings it
    /// lists: old syntax leaves one before the error of the statement (MySQL 9.7, measured).
    pub(super) fn ping_is_answered_on(&self) -> Option<Held> {
        let on = self.listed.on.filter(|_| self.listed.open_ended && self.listed.repeated > 0)?;
        self.link(on).map(|_| on)
    }

    fn list_is_on(&mut self, slot: Held, count: u16) {
        self.listed = Listed { count, repeated: count, on: Some(slot), ..Listed::default() };
        if let Some(link) = self.link_mut(slot) {
            link.listed = count > 0;
        }
    }

    /// A command that ends the statement before, but not what it has left, was answered without a
    /// server.
    pub(super) fn repeat_no_count(&mut self) {
        self.listed.repeated = 0;
    }

    /// A statement that leaves no warnings was answered without a server.
    pub(super) fn forget_list(&mut self) {
        self.listed = Listed::default();
    }

    /// A link is gone, or goes. True when the list goes with it.
    pub(super) fn list_leaves(&mut self, slot: Held) -> bool {
        let lost = self.keeps_list(slot);
        if lost || self.listed.on == Some(slot) {
            self.listed = Listed::default();
        }
        lost
    }

    /// Tells the client an error of our own in place of a server's.
    pub(super) fn refuse(&mut self, world: &World<'_>, error: SqlError, out: &mut Outbox) {
        out.client.extend_from_slice(&error.packet(1, self.client_capabilities()));
        let code = error.code;
        self.list_is_untold(error);
        self.carried.forget_rows();
        self.pinged = false;
        self.last_lost = false;
        self.finished_here(world, code, out);
    }

    /// The client was told of an error that no server lists as it was told.
    pub(super) fn list_is_untold(&mut self, error: SqlError) {
        let untold = Some(Box::new(error));
        self.listed = Listed { count: 1, repeated: 1, untold, ..Listed::default() };
    }

    /// Tells the client OK in place of a server that would have run something: no rows changed.
    pub(super) fn agree(&mut self, world: &World<'_>, out: &mut Outbox) {
        self.pinged = true;
        self.row_count_after_ping();
        self.say_ok(out);
        self.finished_here(world, 0, out);
    }

    /// The statement that makes a server list the error that the client was told, when the
    /// pending request may ask for it.
    fn untold(&self) -> Option<Vec<u8>> {
        let error = self.listed.untold.as_deref()?;
        let pending = self.pending.as_ref()?;
        // Who asks for numbers asks about the last statement, which left them and not the error.
        let asks = pending.class.kind == Kind::Last
            && !matches!(pending.ask, Ask::Prepare { .. })
            && (self.listed.repeated > 0 || self.asks_for_list());
        // MySQL: an error of its own would be listed behind what is there. MariaDB: it may stay.
        if !asks && !self.lists_behind() && self.fate() != Fate::Unknown {
            return None;
        }
        let state = String::from_utf8_lossy(&error.state).into_owned();
        // Servers take 128 characters.
        let message: String = error.message.chars().take(128).collect();
        let message = message.replace('\'', "''");
        let code = error.code;
        let sql =
            format!("SIGNAL SQLSTATE '{state}' SET MYSQL_ERRNO={code}, MESSAGE_TEXT='{message}'");
        Some(sql.into_bytes())
    }

    /// The server of `slot` lists the error as if it had been its own.
    pub(super) fn was_told(&mut self, slot: Held) {
        let repeated = self.listed.repeated;
        self.list_is_on(slot, 1);
        self.listed.repeated = repeated;
        self.last = Some(slot);
        if let Some(link) = self.link_mut(slot) {
            link.ran = true;
            link.used = true;
        }
    }

    /// Where a request about the statement before must run; it may be about its warnings or
    /// about its numbers.
    pub(super) fn asked_about(&self) -> Option<Held> {
        if self.asks_for_list() {
            self.list_is_asked_for_on()
        } else if self.asks_for_found() {
            self.carried.found_on().or(self.last)
        } else {
            self.last
        }
    }

    /// What is asked for is on the replica's link, while something else binds the session to the
    /// primary's: the list, or the numbers of the statement that has set variables there.
    pub(super) fn asks_the_replica(&self) -> bool {
        if self.link(Held::Replica).is_none() {
            return false;
        }
        let asks = self.pending.as_ref().is_some_and(|p| p.class.kind == Kind::Last);
        if self.asks_for_list() {
            self.list_is_asked_for_on() == Some(Held::Replica)
        } else {
            asks && self.has_strays() && self.last == Some(Held::Replica)
        }
    }

    /// The link's flags are not the client's: it lists the warnings of a statement that ran
    /// there before the client's transaction began on the primary.
    pub(super) fn is_lent(&self, slot: Held) -> bool {
        let here = self.transaction.is_none() && self.state.status.has(Status::AUTOCOMMIT);
        slot == Held::Replica && self.transaction != Some(Held::Replica) && !here
    }

    /// FOUND_ROWS is asked for, and nothing else of the statement before.
    pub(super) fn asks_for_found(&self) -> bool {
        let Some(pending) = self.pending.as_ref() else { return false };
        if !pending.class.effects.any(Effects::DIAGNOSTICS) {
            return false;
        }
        let text = self.lower_text();
        let has = |word: &[u8]| memchr::memmem::find(&text, word).is_some();
        has(b"found_rows") && !has(b"row_count")
    }

    /// The pending request opens a read-only transaction, over which MariaDB keeps the list; on a
    /// replica it would be out of reach.
    pub(super) fn opens_away_from_list(&self) -> bool {
        let pending = self.pending.as_ref();
        self.state.dialect.flavour == Flavour::MariaDb
            && pending.is_some_and(|p| p.class.effects.any(Effects::BEGIN_READ_ONLY))
            && self.is_listed_on(Held::Primary)
    }

    fn asks_for_list(&self) -> bool {
        let last = self.pending.as_ref().is_some_and(|p| p.class.kind == Kind::Last);
        let text = if last { self.lower_text() } else { return false };
        let has = |word: &[u8]| memchr::memmem::find(&text, word).is_some();
        !has(b"row_count") && !has(b"found_rows")
    }

    /// Whether the link may still list something of another statement where the client asks
    /// about its previous one.
    pub(super) fn must_be_silenced(&self, slot: Held) -> bool {
        let Some(pending) = self.pending.as_ref() else { return false };
        if pending.way.silenced || self.listed.untold.is_some() {
            return false;
        }
        let Listed { on, mark, .. } = self.listed;
        let known = on == Some(slot) || mark == Some(slot);
        let stale = !known && self.link(slot).is_some_and(|link| link.listed);
        let asks = pending.class.kind == Kind::Last;
        asks && self.carried.has_rows() && !self.is_listed_on(slot)
            || stale
                && (self.asks_for_list() || self.lists_behind() || self.fate() == Fate::Unknown)
    }

    /// Whether the pending request is answered with a number of rows that the statement before
    /// has changed, which the link does not know: MySQL's CALL repeats it where the procedure
    /// has changed none (9.7, measured). Statements that ran elsewhere have changed none.
    pub(super) fn must_change_no_rows(&self, slot: Held) -> bool {
        let Some(pending) = self.pending.as_ref() else { return false };
        let mysql = self.state.dialect.flavour == Flavour::MySql;
        let repeats = mysql
            && pending.class.verb == Verb::Call
            && (self.last != Some(slot) || self.pinged || self.listed.untold.is_some());
        let again = pending.way.found_again && self.found_again_must_change_none(slot);
        (repeats || again) && !pending.way.silenced && !matches!(pending.ask, Ask::Prepare { .. })
    }

    /// What sets LAST_INSERT_ID on the link and leaves nothing listed there.
    pub(super) fn insert_id_statement(&self, slot: Held) -> Vec<u8> {
        let empties = self.must_empty_list(slot);
        // What the link has is right as soon as a statement of the session has run there.
        let ran = slot == Held::Primary && self.link(slot).is_some_and(|link| link.ran);
        let insert_id = (!ran).then_some(self.carried.insert_id);
        insert_id_statement(self.state.dialect.flavour, insert_id, empties)
    }

    /// The link lists what is not the session's previous statement's.
    fn must_empty_list(&self, slot: Held) -> bool {
        !self.keeps_list(slot) && self.link(slot).is_some_and(|link| link.listed || link.warned)
    }

    /// A statement of ours is over that leaves nothing else's list on the link.
    pub(super) fn list_was_emptied(&mut self, slot: Held) {
        let listed = self.keeps_list(slot);
        if let Some(link) = self.link_mut(slot) {
            link.listed = listed;
        }
    }

    /// Whether the statement for that is a query to the link's FOUND_ROWS.
    pub(super) fn insert_id_is_a_query(&self, slot: Held) -> bool {
        self.state.dialect.flavour == Flavour::MariaDb && self.must_empty_list(slot)
    }

    /// The number of warnings to repeat to the client, which must be those of the session's own
    /// previous statement.
    pub(super) fn count_to_repeat(&self, slot: Held) -> Option<u16> {
        let Listed { count, repeated, on, .. } = self.listed;
        (self.repeats_count() && (on != Some(slot) || repeated != count)).then_some(repeated)
    }

    /// How many warnings an answer of our own tells.
    pub(super) fn own_count(&self) -> u16 {
        if self.repeats_count() { self.listed.repeated } else { 0 }
    }

    /// Whether the answer to the pending request repeats how many warnings the statement before
    /// has left: MySQL answers COM_INIT_DB, COM_PING and COM_SET_OPTION so (9.7, measured).
    fn repeats_count(&self) -> bool {
        let repeats = |ask: &Ask| matches!(ask, Ask::InitDb(_) | Ask::SetOption(_) | Ask::Ping);
        self.state.dialect.flavour == Flavour::MySql
            && self.pending.as_ref().is_some_and(|pending| repeats(&pending.ask))
    }

    /// Whether an error of the pending request is listed behind those that are there: MySQL
    /// empties the list with a statement's text only (9.7, measured).
    fn lists_behind(&self) -> bool {
        let pending = self.pending.as_ref();
        self.repeats_count()
            || self.state.dialect.flavour == Flavour::MySql
                && pending.is_some_and(|p| matches!(p.ask, Ask::Fetch { .. } | Ask::Other))
    }

    /// The pending command adds to the list of warnings, which is on the replica's link, and the
    /// session is not bound to the primary. Nothing was written since: a write has a text.
    pub(super) fn adds_to_the_replica_s_list(&self) -> bool {
        self.pending.as_ref().is_some_and(|at| at.expect == Expect::FieldList)
            && self.lists_behind()
            && self.is_listed_on(Held::Replica)
            && self.transaction.is_none()
            && self.binding_pins().is_empty()
    }

    /// The pending request asks about the statement before, adds to what that has listed, or leaves
    /// it what the client asks about next: no statement of our own may come between.
    pub(super) fn needs_the_last(&self) -> bool {
        let last = self.pending.as_ref().is_some_and(|p| p.class.kind == Kind::Last);
        last || self.is_only_prepared() || self.lists_behind() && self.listed.count > 0
    }

    /// MySQL empties the list with the next statement that is not about it, MariaDB with the
    /// next one that uses a table (10.11 and 9.7, measured).
    fn fate(&self) -> Fate {
        let Some(pending) = self.pending.as_ref() else { return Fate::Unknown };
        let class = &pending.class;
        if class.kind == Kind::Last || !has_text(&pending.ask) {
            return Fate::Kept;
        }
        match self.state.dialect.flavour {
            Flavour::MySql => Fate::Emptied,
            Flavour::MariaDb => self.fate_by_text(class),
        }
    }

    /// Whether the list of the statement before may still be there after the pending request.
    pub(super) fn leaves_list(&self) -> bool {
        self.fate() != Fate::Emptied
    }

    /// Whether what the link lists of our own statements may still be there after the pending
    /// request, which ran on it.
    pub(super) fn leaves_warnings(&self, slot: Held) -> bool {
        self.leaves_list() && !self.is_listed_on(slot)
    }

    fn fate_by_text(&self, class: &Class) -> Fate {
        if class.multi {
            // Nor is the text of all of them read again for each one's answer.
            return Fate::Unknown;
        }
        let mut text = self.lower_text();
        if class.verb == Verb::Prepare
            && let Some(from) = memchr::memmem::find(&text, b"from")
        {
            // PREPARE name FROM text
            text.drain(..from + 4);
            let Some(inner) = text.trim_ascii_start().strip_prefix(b"'") else {
                return Fate::Unknown;
            };
            let writes: [&[u8]; 4] = [b"insert", b"update", b"delete", b"replace"];
            if writes.iter().any(|word| inner.trim_ascii_start().starts_with(word)) {
                return Fate::Emptied;
            }
        }
        let has = |word: &[u8]| memchr::memmem::find(&text, word).is_some();
        let calls = class.reason == Reason::Function && !has(b"_lock");
        if class.verb == Verb::Execute && has(b"immediate 'select") && !has(b"from") {
            return Fate::Kept;
        }
        if calls || class.effects.any(Effects::OPAQUE) {
            return Fate::Unknown;
        }
        match class.verb {
            Verb::Insert
            | Verb::Update
            | Verb::Delete
            | Verb::Replace
            | Verb::LoadData
            | Verb::LockTables
            | Verb::Handler
            | Verb::Describe
            | Verb::Table => Fate::Emptied,
            Verb::Use
            | Verb::Begin
            | Verb::Commit
            | Verb::Rollback
            | Verb::Savepoint
            | Verb::Xa
            | Verb::UnlockTables
            | Verb::Kill
            | Verb::Empty => Fate::Kept,
            Verb::Set
            | Verb::Select
            | Verb::Values
            | Verb::With
            | Verb::Do
            | Verb::Explain
            | Verb::Prepare => {
                let sequence = has(b"nextval") || has(b"lastval") || has(b"setval");
                match (has(b"from") && !has(b"dual")) || sequence || has(b"value for") {
                    true => Fate::Emptied,
                    false => Fate::Kept,
                }
            }
            Verb::Show
            | Verb::Call
            | Verb::Execute
            | Verb::Deallocate
            | Verb::Ddl
            | Verb::Account
            | Verb::Administration
            | Verb::Other => Fate::Unknown,
        }
    }

    /// Whether the pending SHOW is answered without a query of the server's own.
    pub(super) fn shows_without_query(&self) -> bool {
        const THEM: [&[u8]; 14] = [
            b"binary",
            b"binlog",
            b"create",
            b"engine",
            b"errors",
            b"grants",
            b"master",
            b"privileges",
            b"processlist",
            b"relaylog",
            b"replica",
            b"replicas",
            b"slave",
            b"warnings",
        ];
        let what = rewrite::shown(&self.lower_text(), &self.state.dialect);
        what.is_some_and(|word| THEM.contains(&word.as_slice()))
    }

    /// The pending text, the prepared one's included, in lower case.
    pub(super) fn lower_text(&self) -> Vec<u8> {
        self.pending_text().to_ascii_lowercase()
    }
}

/// Whether a statement stands behind a command.
pub(super) fn has_text(ask: &Ask) -> bool {
    matches!(ask, Ask::Query | Ask::Prepare { .. } | Ask::Execute { .. })
}
