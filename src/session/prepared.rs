//! The client's commands on prepared statements: which text an id stands for, and what was sent
//! ahead for it.

use crate::protocol::command;
use crate::protocol::errno::SqlError;
use crate::protocol::execute;
use crate::protocol::packet;
use crate::protocol::walker::Expect;
use crate::router::policy::Held;
use crate::router::{Effects, Kind, Reason, kill, rewrite};
use crate::session::Session;
use crate::session::action::{Outbox, Request, World, index};
use crate::session::intake::plain;
use crate::session::pending::Ask;
use crate::session::pin::Pin;
use crate::session::statements::OnLink;
use crate::topology::Flavour;

/// ER_STMT_HAS_NO_OPEN_CURSOR, of both families.
pub(super) const NO_OPEN_CURSOR: u16 = 1421;

impl Session {
    pub(super) fn take_prepare(
        &mut self,
        world: &mut World<'_>,
        sql: &[u8],
        wire: &[u8],
        out: &mut Outbox,
    ) {
        let class = world.classes.classify(sql, &self.state.dialect);
        let id = self.statements.next_id();
        // Wherever it is prepared, it must speak of this session.
        let own = if class.effects.any(Effects::VIRTUAL) {
            rewrite::virtualise(sql, &self.state.dialect, self.connection_id)
        } else {
            None
        };
        let rewritten = own.as_ref().map(|sql| {
            let mut wire = Vec::new();
            packet::write(&mut wire, 0, &[b"\x16", sql.as_slice()].concat());
            wire
        });
        let (sql, wire) = match (&own, &rewritten) {
            (Some(sql), Some(wire)) => (sql.as_slice(), wire.as_slice()),
            _ => (sql, wire),
        };
        self.pend(world, Ask::Prepare { id }, class, Expect::Prepare, wire);
        if let Some(pending) = self.pending.as_mut() {
            pending.text_at = wire.len().saturating_sub(sql.len());
        }
        self.look_for_trackers(class, sql);
        self.proceed(world, out);
    }

    pub(super) fn take_execution(
        &mut self,
        world: &mut World<'_>,
        id: u32,
        expect: Expect,
        wire: &[u8],
        out: &mut Outbox,
    ) {
        let id = self.statements.meant(id);
        let Some(statement) = self.statements.get(id) else {
            return self.unknown_statement(world, id, "mysqld_stmt_execute", wire, out);
        };
        if statement.overlong {
            self.pend(world, Ask::Other, plain(Reason::Command), expect, wire);
            let error = SqlError::long_data_too_long(match self.state.dialect.flavour {
                Flavour::MariaDb => "max_long_data_size",
                Flavour::MySql => "max_allowed_packet",
            });
            return self.refuse(world, error, out);
        }
        let mut class = statement.class;
        if expect == Expect::Bulk {
            class.kind = Kind::Primary;
        }
        // Few statements need more of their text than its class.
        let text = if class.effects.any(Effects::KILL) {
            let payload = packet::payload(wire, wire.len());
            kill::with_number(&statement.text, execute::only_integer(&payload))
        } else if class.reason == Reason::HostLocal {
            statement.text.clone()
        } else {
            Vec::new()
        };
        self.pend(world, Ask::Execute { id }, class, expect, wire);
        self.look_closer(world, class, &text, out);
    }

    /// The pending text, the prepared one's included; empty where there is none.
    pub(super) fn pending_text(&self) -> &[u8] {
        let Some(pending) = self.pending.as_ref() else { return &[] };
        match pending.ask {
            Ask::Execute { id } => self.statements.get(id).map_or(&[], |at| &at.text),
            _ => pending.text(),
        }
    }

    pub(super) fn take_fetch(
        &mut self,
        world: &mut World<'_>,
        id: u32,
        wire: &[u8],
        out: &mut Outbox,
    ) {
        let id = self.statements.meant(id);
        let Some(statement) = self.statements.get(id) else {
            return self.unknown_statement(world, id, "mysqld_stmt_fetch", wire, out);
        };
        let cursor = statement.cursor();
        self.pend(world, Ask::Fetch { id }, plain(Reason::Pinned), Expect::Fetch, wire);
        let known_where_listed = self.prepared_on(self.list_is_where(), id).is_some();
        let slot = match cursor {
            Some(slot) => slot,
            // MySQL lists the error behind what it lists already (9.7, measured).
            None if self.state.dialect.flavour == Flavour::MySql && known_where_listed => {
                self.list_is_where()
            }
            None => return self.refuse(world, self.no_open_cursor(id), out),
        };
        self.decide_held(slot, Reason::Pinned);
        self.proceed(world, out);
    }

    /// The error that a COM_STMT_FETCH without a cursor gets, by the id that the client knows.
    pub(super) fn no_open_cursor(&self, id: u32) -> SqlError {
        // The families differ by a full stop.
        let end = match self.state.dialect.flavour {
            Flavour::MariaDb => "",
            Flavour::MySql => ".",
        };
        let text = format!("The statement ({id}) has no open cursor{end}");
        SqlError::new(NO_OPEN_CURSOR, b"HY000", text)
    }

    pub(super) fn take_statement_reset(
        &mut self,
        world: &mut World<'_>,
        id: u32,
        wire: &[u8],
        out: &mut Outbox,
    ) {
        let Some(statement) = self.statements.get(id) else {
            return self.unknown_statement(world, id, "mysqld_stmt_reset", wire, out);
        };
        let cursor = statement.cursor();
        // Whether it is open still only its server knows.
        let doubted = self.transaction.filter(|_| self.doubtful);
        self.statements.clear_long_data(id);
        self.pend(world, Ask::ResetStatement { id }, plain(Reason::Pinned), Expect::Simple, wire);
        match cursor {
            Some(slot) => {
                self.decide_held(slot, Reason::Pinned);
                self.proceed(world, out);
            }
            // The flags of the answer are not known here; or it is counted, and logged, by the
            // server that the session is bound to.
            None if doubted.is_some() || self.is_bound_where(id) => {
                self.repeat_no_count();
                self.decide_held(doubted.unwrap_or(Held::Primary), Reason::Pinned);
                self.proceed(world, out);
            }
            None => {
                self.repeat_no_count();
                self.agree(world, out);
            }
        }
    }

    /// Whether the session is bound to a server that has prepared the statement: by a pin, or by a
    /// transaction that may have begun there and that no flag has shown.
    fn is_bound_where(&self, id: u32) -> bool {
        let is_bound = !self.settled || !self.binding_pins().is_empty();
        is_bound && self.prepared_on(Held::Primary, id).is_some()
    }

    fn unknown_statement(
        &mut self,
        world: &mut World<'_>,
        id: u32,
        command: &str,
        wire: &[u8],
        out: &mut Outbox,
    ) {
        self.pend(world, Ask::Other, plain(Reason::Command), Expect::Simple, wire);
        if let Some(slot) = self.where_unknown(id) {
            self.decide_held(slot, Reason::Command);
            return self.proceed(world, out);
        }
        let command = match self.state.dialect.flavour {
            Flavour::MariaDb => command,
            // Whatever the command is.
            Flavour::MySql => "mysql_stmt_precheck",
        };
        let error = SqlError::unknown_statement(id, command);
        self.refuse(world, error, out);
    }

    /// The link whose server is to say that it does not know a statement: MySQL's lists the error
    /// behind what it lists already (9.7, measured).
    fn where_unknown(&self, id: u32) -> Option<Held> {
        let slot = self.list_is_where();
        let mysql = self.state.dialect.flavour == Flavour::MySql;
        (mysql && !self.statements.is_used_on(slot, id)).then_some(slot)
    }

    /// COM_STMT_CLOSE has no answer: it is passed to each link that knows the statement.
    pub(super) fn close_statement(&mut self, id: u32, out: &mut Outbox) {
        let id = self.statements.meant(id);
        let Some(statement) = self.statements.remove(id) else { return };
        for slot in [Held::Primary, Held::Replica] {
            let Some(on_link) = statement.on_links[index(slot)] else { continue };
            self.close_prepared(slot, on_link, out);
        }
        self.pin_cursors();
    }

    /// An open cursor is a pin, the last one's end is the pin's.
    pub(super) fn pin_cursors(&mut self) {
        if self.statements.any_cursor() {
            self.pins.add(Pin::Cursor);
        } else {
            self.pins.remove(Pin::Cursor);
        }
    }

    /// Closes what a link knows, be it here or in the pool: servers count what is prepared.
    fn close_prepared(&self, slot: Held, on_link: OnLink, out: &mut Outbox) {
        let OnLink { id, serial, .. } = on_link;
        if self.link(slot).is_some_and(|link| link.serial == serial) {
            out.links[index(slot)].extend_from_slice(&command::stmt_close(id));
        } else {
            out.requests.push(Request::CloseParked { slot, serial, id });
        }
    }

    /// Closes all that links of this slot know.
    pub(super) fn close_all_prepared(&mut self, slot: Held, out: &mut Outbox) {
        for on_link in self.statements.take_prepared(slot) {
            self.close_prepared(slot, on_link, out);
        }
    }

    /// The client's statements end, wherever they are prepared.
    pub(super) fn forget_statements(&mut self, out: &mut Outbox) {
        for slot in [Held::Primary, Held::Replica] {
            // A reset of the link has ended those that are there.
            if self.link(slot).is_none() {
                self.close_all_prepared(slot, out);
            }
        }
        self.statements.clear();
    }

    /// Closes what a statement was on the link in this slot, or on the one before.
    pub(super) fn forget_prepared(&mut self, slot: Held, id: u32, out: &mut Outbox) {
        let Some(statement) = self.statements.get_mut(id) else { return };
        let on_link = statement.on_links[index(slot)].take();
        if statement.cursor() == Some(slot) {
            self.statements.close_cursor(id);
        }
        if let Some(on_link) = on_link {
            self.close_prepared(slot, on_link, out);
        }
        self.pin_cursors();
    }

    /// The server has no room for a statement that is to be prepared on its link once more: the
    /// one that this link has not used for longest makes room. False when there is none.
    pub(super) fn make_room(&mut self, slot: Held, wanted: u32, out: &mut Outbox) -> bool {
        let serial = self.link(slot).map_or(0, |link| link.serial);
        let Some(least) = self.statements.least_used(slot, serial, wanted) else { return false };
        self.forget_prepared(slot, least, out);
        true
    }

    /// COM_STMT_SEND_LONG_DATA has no answer: it is kept until the execution that uses it.
    pub(super) fn keep_long_data(
        &mut self,
        world: &mut World<'_>,
        id: u32,
        payload: &[u8],
        out: &mut Outbox,
    ) {
        let limit = self.largest_packet(world);
        let id = self.statements.meant(id);
        if !self.statements.push_long_data(id, payload, limit) {
            self.protocol_error(world, SqlError::packet_too_large(), out);
        }
    }
}
