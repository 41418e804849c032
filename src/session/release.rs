//! An idle session gives its links to the pool: when it may, and what it must carry with it.
//!
//! A link holds answers that the client may still ask for: LAST_INSERT_ID, FOUND_ROWS,
//! ROW_COUNT, warnings. The link is asked for the numbers before it goes; they are set, or
//! written into the client's text, wherever it asks next. With warnings or an error behind it,
//! which cannot be set anywhere else, a session keeps the link.

use crate::protocol::command;
use crate::protocol::flags::Status;
use crate::router::policy::Held;
use crate::router::{Class, Effects, Kind, Verb, found, rewrite};
use crate::session::action::{Outbox, Request, World, index};
use crate::session::pending::Ask;
use crate::session::phrase::rows_statement;
use crate::session::pin::Pin;
use crate::session::step::Step;
use crate::session::{Exchange, Phase, Session, single};
use crate::topology::Flavour;

/// What the session's links have told before they went.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Carried {
    /// LAST_INSERT_ID of the primary's link.
    pub(super) insert_id: u64,
    /// FOUND_ROWS, when no link of the session has it.
    found: Option<u64>,
    /// The link that has FOUND_ROWS; `None` before any statement has set it.
    found_on: Option<Held>,
    /// That link is gone.
    found_lost: bool,
    /// Another number takes its place with the next statement that changes rows.
    found_due: Due,
    /// ROW_COUNT of the previous statement, when its link was given up.
    rows: Option<i64>,
    /// ROW_COUNT of the previous statement as its answer told it; `None` where that is the
    /// server's to tell.
    told: Option<i64>,
    /// The previous statement was an EXPLAIN: its cost may be asked for, where it ran.
    explained: bool,
}

/// What a query has found by which MySQL has made a table. FOUND_ROWS tells that only behind the
/// next statement that changes or explains rows or calls a procedure (9.7, measured).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Due {
    #[default]
    Nothing,
    /// This link has it.
    On(Held),
    /// It was on a link that has found something else since.
    Gone,
}

/// ROW_COUNT after an error, or a query.
const UNCOUNTED: i64 = -1;

impl Carried {
    /// What a session begins with: our own statements have set another number on its link.
    /// MariaDB begins with that of some session before (10.11, measured).
    pub(super) fn at_login(flavour: Flavour) -> Self {
        let found = (flavour == Flavour::MySql).then_some(0);
        Self { found, ..Self::default() }
    }

    /// FOUND_ROWS outlives COM_RESET_CONNECTION (MariaDB 10.11 and MySQL 9.7, measured).
    pub(super) fn after_reset(&self) -> Self {
        Self { insert_id: 0, rows: None, told: None, explained: false, ..*self }
    }

    /// The statement that has set FOUND_ROWS is done again on this link.
    pub(super) fn found_moved_to(self, slot: Held) -> Self {
        Self { found_on: self.found_on.map(|_| slot), ..self }
    }

    /// The previous statement's ROW_COUNT is known without its link.
    pub(super) fn has_rows(&self) -> bool {
        self.rows.is_some()
    }

    /// The link that has FOUND_ROWS.
    pub(super) fn found_on(&self) -> Option<Held> {
        self.found_on
    }

    /// A statement on this link has set FOUND_ROWS.
    fn found_is_on(&mut self, slot: Held) {
        let (found_on, found_due) = (Some(slot), Due::Nothing);
        *self = Self { found: None, found_on, found_lost: false, found_due, ..*self };
    }

    /// A query on this link has found what FOUND_ROWS will tell later.
    fn found_is_due_on(&mut self, slot: Held) {
        self.found_due = Due::On(slot);
    }

    /// A statement on this link has made it tell that.
    fn found_was_due_on(&mut self, slot: Held) {
        match self.found_due {
            Due::Nothing => {}
            Due::On(due) if due == slot => self.found_is_on(slot),
            Due::On(_) | Due::Gone => {
                self.found_is(None);
                self.found_due = Due::Nothing;
            }
        }
    }

    /// FOUND_ROWS was asked for; `None` if there was no answer.
    fn found_is(&mut self, found: Option<u64>) {
        *self = Self { found, found_on: None, found_lost: found.is_none(), ..*self };
        if self.found_due != Due::Nothing {
            // The question itself was a query.
            self.found_due = Due::Gone;
        }
    }

    /// FOUND_ROWS is known, but not to this link.
    fn found_is_off(&self, slot: Held) -> bool {
        self.found.is_some() || self.found_on.is_some_and(|on| on != slot)
    }

    /// A link is gone with what nobody has asked it for.
    pub(super) fn link_gone(&mut self, slot: Held) {
        if self.found_on == Some(slot) {
            *self = Self { found_on: None, found_lost: true, ..*self };
        }
        if self.found_due == Due::On(slot) {
            self.found_due = Due::Gone;
        }
    }

    /// The previous statement's ROW_COUNT is what its answer told: its link has another one.
    pub(super) fn rows_are_as_told(&mut self) {
        self.rows = self.told;
    }

    /// The previous statement's ROW_COUNT is a server's to tell.
    pub(super) fn forget_rows(&mut self) {
        self.rows = None;
    }
}

/// What ends a question for one value: the client may have said `sql_select_limit = 0`.
pub(super) const ONE: &str = "LIMIT 1";

/// Most rows that a link is made to find again: it takes a few milliseconds.
const FOUND_AGAIN_MAX: u64 = 10_000;

/// The question that a link is asked before it goes, up to its closing bracket.
const COUNTS: &[u8] = b"SELECT CONCAT_WS(',', LAST_INSERT_ID(), FOUND_ROWS(), ROW_COUNT()";

impl Session {
    /// Whether the session holds a link that it may give up now: it is idle, or it waits for its
    /// other link. Sessions that hold one and wait for the other would wait for each other.
    #[must_use]
    pub fn can_release(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Dialing)
            && [Held::Primary, Held::Replica].into_iter().any(|slot| self.releasable(slot))
    }

    /// Gives up what it may, after it has asked for what it must carry.
    pub(super) fn release(&mut self, world: &mut World<'_>, out: &mut Outbox) {
        if !matches!(self.phase, Phase::Idle) {
            return;
        }
        for slot in [Held::Replica, Held::Primary] {
            if !self.releasable(slot) {
                continue;
            }
            // Asked, a frozen server would never answer, and the client would wait with us.
            self.give_up_if_down(world, slot, out);
            if self.link(slot).is_none() {
                continue;
            }
            if self.must_ask(slot) {
                // The client is idle all the while.
                let since = self.phase_since;
                self.start_own(world, slot, Step::Counts, out);
                self.phase_since = since;
                return;
            }
            self.give_up(slot, out);
        }
        if self.pending.is_some() {
            // A request waits for the other link.
            self.proceed(world, out);
        }
    }

    /// The session ends: what is clean goes to the pool, the rest is closed. What it has prepared
    /// ends with it, as on a connection of its own.
    pub fn leave(&mut self, out: &mut Outbox) {
        for slot in [Held::Replica, Held::Primary] {
            let parts = matches!(self.phase, Phase::Idle) && self.is_free(slot);
            if parts || self.link(slot).is_none() {
                self.close_all_prepared(slot, out);
            }
            if parts {
                self.give_up(slot, out);
            }
        }
    }

    /// Says COM_QUIT on the links that are at rest and are about to be closed: servers count and
    /// log those that end without a word.
    pub(super) fn take_leave_of_servers(&self, out: &mut Outbox) {
        for slot in [Held::Replica, Held::Primary] {
            if matches!(self.phase, Phase::Idle) && self.link(slot).is_some() {
                out.links[index(slot)].extend_from_slice(&command::QUIT);
            }
        }
    }

    fn give_up(&mut self, slot: Held, out: &mut Outbox) {
        if let Some(kept) = self.part_with(slot) {
            out.requests.push(Request::Release { slot, link: Box::new(kept) });
        }
    }

    fn releasable(&self, slot: Held) -> bool {
        let asked_for_cost = self.carried.explained && self.last == Some(slot);
        // Nobody can ask for it before it is told.
        let tells_later = self.carried.found_due == Due::On(slot);
        self.is_free(slot)
            && self.lost.is_none()
            && !self.keeps_list(slot)
            && !asked_for_cost
            && !tells_later
    }

    /// Whether nothing that cannot be set up elsewhere hangs on the link.
    fn is_free(&self, slot: Held) -> bool {
        let pinned = slot == Held::Primary && !self.binding_pins().is_empty();
        let unfinished = slot == Held::Primary && !self.settled;
        // Elsewhere they would have another collation.
        let read_before = slot == Held::Primary && !self.state.user_variables_readable();
        let untold = slot == Held::Primary && self.waits_to_hear_of_variables();
        // A login that cannot be made again ends with its link.
        self.link(slot).is_some()
            && (!self.has_strays() || slot == Held::Primary)
            && !self.login.sole
            && !pinned
            && !unfinished
            && !read_before
            && !untold
            && self.transaction != Some(slot)
            && !self.statements.cursor_on(slot)
            // The schema was dropped under it: that state cannot be made by a command.
            && self.state.schema() != Some(b"")
    }

    fn must_ask(&self, slot: Held) -> bool {
        let asked =
            slot == Held::Primary || self.last == Some(slot) || self.carried.found_on == Some(slot);
        asked && self.link(slot).is_some_and(|link| link.ran)
    }

    /// A query of our own would count rows where the client's were counted.
    pub(super) fn found_would_be_lost(&self, slot: Held) -> bool {
        self.carried.found_on == Some(slot) && self.link(slot).is_some_and(|link| link.ran)
    }

    /// A question for one value; FOUND_ROWS is asked for with it where it would be lost.
    pub(super) fn question(&self, slot: Held, expression: &str) -> Vec<u8> {
        let sql = match self.found_would_be_lost(slot) {
            true => format!("SELECT CONCAT_WS(';', FOUND_ROWS(), {expression}) {ONE}"),
            false => format!("SELECT {expression} {ONE}"),
        };
        sql.into_bytes()
    }

    /// The answer to [`Session::question`]; `None` for NULL.
    pub(super) fn answered(&mut self, slot: Held, reply: &[u8]) -> Option<Vec<u8>> {
        let value = single::value(reply).flatten();
        if !self.found_would_be_lost(slot) {
            return value;
        }
        let value = value.unwrap_or_default();
        let (found, value) = match memchr::memchr(b';', &value) {
            Some(at) => (value.get(..at), value.get(at + 1..)),
            None => (Some(&*value), None),
        };
        let found = found.and_then(|found| std::str::from_utf8(found).ok());
        self.carried.found_is(found.and_then(|found| found.parse().ok()));
        value.map(<[u8]>::to_vec)
    }

    /// The question that a link is asked before it goes. MariaDB does not tell of variables that
    /// a trigger or a function has set: where that may have been, it is asked whether the
    /// session's variables are those that are known.
    pub(super) fn counts_question(&self, slot: Held) -> Vec<u8> {
        let mut sql = COUNTS.to_vec();
        let untold = slot == Held::Primary && self.state.dialect.flavour == Flavour::MariaDb;
        if untold && self.state.user_variables.are_doubtful() {
            sql.extend_from_slice(b", ");
            sql.extend_from_slice(&self.state.user_variables.as_known());
        }
        sql.extend_from_slice(b") ");
        sql.extend_from_slice(ONE.as_bytes());
        sql
    }

    /// The answer to [`Session::counts_question`].
    pub(super) fn counts_known(&mut self, slot: Held, reply: &[u8]) {
        let text = single::value(reply).flatten().unwrap_or_default();
        let mut numbers = std::str::from_utf8(&text).unwrap_or_default().split(',');
        let mut next = || numbers.next().and_then(|number| number.parse::<i128>().ok());
        let (insert_id, found, rows) = (next(), next(), next());
        let as_known = next();
        match as_known {
            Some(1) => self.state.user_variables.trust(),
            // They exist on this link only.
            Some(_) => self.pins.add(Pin::UserVariable),
            None => {}
        }
        let (Some(insert_id), Some(found), Some(rows)) = (insert_id, found, rows) else {
            // Not what was asked for: whoever asks the session is told so.
            self.last_lost |= self.last == Some(slot);
            self.last = self.last.filter(|last| *last != slot);
            self.carried.link_gone(slot);
            if let Some(link) = self.link_mut(slot) {
                link.ran = false;
            }
            return;
        };
        if let Some(link) = self.link_mut(slot) {
            link.ran = false;
        }
        if slot == Held::Primary {
            self.carried.insert_id = u64::try_from(insert_id).unwrap_or(0);
            let insert_id = self.carried.insert_id;
            if let Some(link) = self.link_mut(slot) {
                link.insert_id = insert_id;
            }
        }
        let found = u64::try_from(found).ok();
        if self.carried.found_on == Some(slot) {
            self.carried.found_is(found);
        }
        if self.last == Some(slot) {
            self.last = None;
            self.carried.rows = self.carried.rows.or_else(|| i64::try_from(rows).ok());
            if self.carried.found_on.is_none() {
                self.carried.found = self.carried.found.or(found);
            }
        }
    }

    /// A statement of the client's is over on this link: which numbers the link has now.
    pub(super) fn counts_are_on(&mut self, class: &Class, exchange: &Exchange) {
        // GET DIAGNOSTICS leaves ROW_COUNT as it is, and its link has another one.
        let gets = class.kind == Kind::Last && class.verb == Verb::Other;
        if self.leaves_row_count(class, exchange) {
            self.carried.rows = self.carried.rows.or(self.carried.told);
        } else if !gets || exchange.error != 0 {
            self.carried.rows = None;
            self.carried.told = match exchange.changed {
                _ if exchange.error != 0 => Some(UNCOUNTED),
                Some(changed) => i64::try_from(changed).ok(),
                None => exchange.rows.then_some(UNCOUNTED),
            };
        }
        self.carried.explained = class.verb == Verb::Explain;
        if self.has_set_found(class, exchange) {
            let answered = exchange.rows && (class.multi || !self.explains(class));
            if self.carried.found_is_off(exchange.slot) && self.may_keep_found(class) && !answered {
                // It may have left what was found elsewhere: nobody can tell.
                return self.carried.found_is(None);
            }
            self.carried.found_is_on(exchange.slot);
        } else if exchange.error == 0 && self.state.dialect.flavour == Flavour::MySql {
            self.note_found_later(class, exchange.slot);
        }
    }

    /// Whether the statement sets FOUND_ROWS or leaves it, which its text does not tell.
    fn may_keep_found(&self, class: &Class) -> bool {
        class.effects.any(Effects::OPAQUE) || self.explains(class)
    }

    /// MariaDB's EXPLAIN leaves 0 of a query whose plan has no table, of others what was there
    /// (10.11, measured).
    fn explains(&self, class: &Class) -> bool {
        self.state.dialect.flavour == Flavour::MariaDb && class.verb == Verb::Explain
    }

    /// What a statement that has succeeded on MySQL does to a number that is told later.
    fn note_found_later(&mut self, class: &Class, slot: Held) {
        match class.verb {
            Verb::Ddl if self.runs_query(class) => self.carried.found_is_due_on(slot),
            Verb::LoadData => {}
            verb if verb == Verb::Explain || verb.changes_rows() => {
                self.carried.found_was_due_on(slot);
            }
            _ => {}
        }
    }

    /// Whether the statement has left ROW_COUNT as it was: MariaDB finds out before it begins that
    /// the table or schema is not there of which it is to show something (10.11, measured).
    fn leaves_row_count(&self, class: &Class, exchange: &Exchange) -> bool {
        let shows = matches!(class.verb, Verb::Show | Verb::Describe) && !class.multi;
        let missing = matches!(exchange.error, 1049 | 1146);
        shows
            && missing
            && self.state.dialect.flavour == Flavour::MariaDb
            && memchr::memmem::find(&self.lower_text(), b"show create").is_none()
    }

    /// A command of the client's is over on this link.
    pub(super) fn ran_on(&mut self, slot: Held, class: &Class, exchange: &Exchange) {
        if slot == Held::Primary {
            let autocommit = self.state.status.has(Status::AUTOCOMMIT);
            let ask = self.pending.as_ref().map(|pending| &pending.ask);
            let is_done = exchange.error == 0 && !matches!(ask, Some(Ask::Prepare { .. }));
            // Without autocommit anything may have begun a transaction that no flag shows.
            self.settled = autocommit
                || match class.verb {
                    Verb::Commit | Verb::Rollback if is_done => !class.multi,
                    Verb::Commit | Verb::Rollback | Verb::Set | Verb::Use => {
                        self.settled && !class.multi
                    }
                    _ => false,
                };
        }
        let warned = self.link(slot).is_some_and(|link| link.warned) && self.leaves_warnings(slot);
        if let Some(link) = self.link_mut(slot) {
            link.ran = true;
            link.used = true;
            link.warned = warned;
        }
    }

    /// Whether the statement that is over has set FOUND_ROWS: MariaDB's is set by every query,
    /// MySQL's by what its executor runs, by other result sets neither (10.11 and 9.7, measured).
    fn has_set_found(&self, class: &Class, exchange: &Exchange) -> bool {
        let flavour = self.state.dialect.flavour;
        let opaque = class.effects.any(Effects::OPAQUE);
        if exchange.error != 0 {
            return match flavour {
                _ if class.multi || opaque => exchange.rows,
                // It counts when all is over.
                Flavour::MySql => false,
                Flavour::MariaDb => {
                    exchange.rows || was_executed(exchange.error) && self.runs_query(class)
                }
            };
        }
        if opaque {
            return true;
        }
        if class.multi {
            return exchange.rows || self.runs_query(class);
        }
        match (flavour, class.verb) {
            (_, Verb::Select | Verb::Table | Verb::With | Verb::Describe) => true,
            (Flavour::MySql, Verb::Values) => true,
            (Flavour::MariaDb, Verb::Values) => self.runs_query(class),
            (_, Verb::Show) => exchange.rows && !self.shows_without_query(),
            (Flavour::MySql, Verb::Do | Verb::Update) => true,
            (Flavour::MySql, Verb::Explain) => self.runs_query(class),
            (_, verb) if verb.changes_rows() => self.runs_query(class),
            (Flavour::MySql, _) => false,
            (Flavour::MariaDb, Verb::Explain) => true,
            (Flavour::MariaDb, _) => !exchange.rows && self.runs_query(class),
        }
    }

    fn runs_query(&self, class: &Class) -> bool {
        let verb = if class.multi { Verb::Other } else { class.verb };
        found::runs_query(self.pending_text(), verb, &self.state.dialect)
    }

    /// Whether the pending request wants FOUND_ROWS, which the session's other link has.
    pub(super) fn found_is_elsewhere(&self, slot: Held) -> Option<Held> {
        let on = self.carried.found_on.filter(|on| *on != slot)?;
        (self.found_would_be_lost(on) && self.asks_for_found()).then_some(on)
    }

    /// What brings FOUND_ROWS to the link before a procedure, which sets it or leaves it as it is:
    /// afterwards nobody could tell. What the procedure may ask or leave beside it must not change:
    /// the list of warnings, which MySQL's procedure finds empty, and which a query without a table
    /// leaves on MariaDB; and the number of rows changed, which the query makes -1, and which can
    /// be made 0.
    pub(super) fn found_step(&self, slot: Held) -> Option<Step> {
        let pending = self.pending.as_ref()?;
        let runs = matches!(pending.ask, Ask::Query | Ask::Execute { .. });
        let explains = self.explains(&pending.class);
        // EXPLAIN asks for neither, and replaces the number; the list only where it uses a table.
        let rows_kept =
            explains || self.last != Some(slot) || matches!(self.carried.told, Some(UNCOUNTED | 0));
        let mariadb = self.state.dialect.flavour == Flavour::MariaDb;
        let list_kept = mariadb && self.keeps_list(slot) && self.leaves_list();
        let wanted = runs && !pending.way.found_again && self.may_keep_found(&pending.class);
        if !wanted || !rows_kept {
            return None;
        }
        if let Some(on) = self.carried.found_on {
            return (on != slot && self.found_would_be_lost(on)).then_some(Step::Found(on));
        }
        let found = self.carried.found.filter(|found| *found <= FOUND_AGAIN_MAX);
        found.map(|found| Step::FindAgain(rows_statement(found, list_kept)))
    }

    /// The query that has found rows again is to have changed none, as the statement before it.
    pub(super) fn found_again_must_change_none(&self, slot: Held) -> bool {
        let told = self.carried.told.filter(|_| self.last == Some(slot));
        match self.state.dialect.flavour {
            Flavour::MySql => told != Some(UNCOUNTED),
            // Where a client's query ran elsewhere, its number is that of ours.
            Flavour::MariaDb => told == Some(0),
        }
    }

    /// The link has found the rows again.
    pub(super) fn found_again(&mut self, slot: Held) {
        self.carried.found_is_on(slot);
        self.list_was_emptied(slot);
        let listed = self.keeps_list(slot);
        self.on_link(slot, |link| link.warned &= listed);
        if let Some(pending) = self.pending.as_mut() {
            pending.way.found_again = true;
            pending.way.silenced = false;
        }
    }

    /// The link has refused to.
    pub(super) fn not_found_again(&mut self, slot: Held) {
        if let Some(link) = self.link_mut(slot) {
            link.listed = true;
        }
        if let Some(pending) = self.pending.as_mut() {
            pending.way.found_again = true;
        }
    }

    /// Whether the pending request wants FOUND_ROWS, which is gone.
    pub(super) fn found_is_lost(&self) -> bool {
        self.carried.found_lost && self.asks_for_found()
    }

    /// A COM_PING is a statement to servers: it has changed no rows.
    pub(super) fn row_count_after_ping(&mut self) {
        if self.carried.rows.is_some() {
            self.carried.rows = Some(0);
        }
    }

    /// Whether the pending request asks for what only the session itself knows by now.
    pub(super) fn asks_carried(&self) -> bool {
        let Some(pending) = self.pending.as_ref() else { return false };
        pending.class.effects.any(Effects::DIAGNOSTICS)
            && (self.carried.found.is_some() || self.carried.rows.is_some())
    }

    /// The pending text with the session's own numbers in it; `None` when it has no place for
    /// them.
    pub(super) fn with_counts(&self, text: &[u8]) -> Option<Vec<u8>> {
        let counts = rewrite::Counts { found: self.carried.found, rows: self.carried.rows };
        rewrite::counts(text, &self.state.dialect, counts)
    }

    /// Whether the pending request asks for numbers in a form into which they cannot be
    /// written, GET DIAGNOSTICS, or for one that was not carried, the cost of a query.
    pub(super) fn counts_are_out_of_reach(&self) -> bool {
        let Some(pending) = self.pending.as_ref() else { return false };
        let text = pending.text();
        if self.carried.rows.is_none() || pending.class.kind != Kind::Last {
            return false;
        }
        match pending.class.verb {
            Verb::Other => rewrite::names_row_count(text, &self.state.dialect),
            Verb::Show => rewrite::names_query_cost(text, &self.state.dialect),
            _ => false,
        }
    }

    /// A link on which the session has had warnings is reset before a request that asks for
    /// warnings of a statement that ran elsewhere, and left none.
    pub(super) fn silence(&mut self, slot: Held) {
        // Its LAST_INSERT_ID would be lost if it had not been asked for.
        let used = self.link(slot).is_some_and(|link| link.used && !link.ran);
        if used && self.must_be_silenced(slot) && self.is_free(slot) {
            self.make_foreign(slot);
        }
    }
}

/// Whether an error without a row before it comes from executing a query (MariaDB 10.11,
/// measured): a subquery or INTO with too many rows, a value that does not fit, a duplicate key.
fn was_executed(error: u16) -> bool {
    matches!(error, 1062 | 1172 | 1242 | 1264 | 1292 | 1366 | 1690)
}
