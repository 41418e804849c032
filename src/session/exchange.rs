//! The reply to the client's command: whole spans are passed on, the few packets that matter
//! are read, and rewritten where client and link speak differently.

use crate::protocol::errno::SqlError;
use crate::protocol::flags::{Capabilities, Status};
use crate::protocol::packet::{self, Body};
use crate::protocol::session_track;
use crate::protocol::walker::{Expect, Kind, Notable, Stop};
use crate::protocol::{reply, session_track::Change};
use crate::router::policy::{Held, Target};
use crate::router::{Effects, Reason};
use crate::session::action::{Outbox, Request, Retry, Trouble, World, index};
use crate::session::answer::LASTING;
use crate::session::failure::Failure;
use crate::session::links::Told;
use crate::session::pending::Ask;
use crate::session::phrase::QUERY_CACHE;
use crate::session::pin::Pin;
use crate::session::prepared::NO_OPEN_CURSOR;
use crate::session::state::{Learnt, tells_of_statement};
use crate::session::statements::{OnLink, Statement};
use crate::session::{Exchange, Phase, Session, options, retry};
use crate::topology::Flavour;
use crate::topology::gtid::GtidSet;

/// [`Status::SESSION_STATE_CHANGED`] in the upper byte of the status flags.
const SESSION_STATE_CHANGED_HIGH: u8 = 0x40;

/// [`Status::METADATA_CHANGED`] likewise.
const METADATA_CHANGED_HIGH: u8 = 0x04;

/// What became of a packet that matters.
enum Passed {
    /// It, or what it became, is in the client's outbox.
    On,
    /// It was held back: the request goes another way, and the reply is over here.
    Held,
}

impl Session {
    /// Relays part of the reply to the client's command.
    pub(super) fn relay(&mut self, world: &mut World<'_>, input: &[u8], out: &mut Outbox) -> usize {
        let mut used = 0;
        loop {
            let (Phase::Exchanging(exchange) | Phase::Uploading(exchange, _)) = &mut self.phase
            else {
                return used;
            };
            let slot = exchange.slot;
            let rest = input.get(used..).unwrap_or_default();
            let Ok(advance) = exchange.walker.advance(rest) else {
                return self.reply_malformed(world, slot, input.len(), out);
            };
            if advance.forward > 0 {
                exchange.forwarded = true;
                let span = rest.get(..advance.forward).unwrap_or_default();
                out.client.extend_from_slice(span);
                if exchange.noted
                    && let Some(transcript) = self.transcript.as_mut()
                {
                    transcript.hear(span);
                }
                used += advance.forward;
            }
            let Stop::Notable(notable) = advance.stop else { return used };
            let wire = rest.get(advance.forward..advance.forward + notable.len);
            let Some(wire) = wire else { return used };
            used += notable.len;
            let told = out.client.len();
            let passed = self.notable(world, &notable, wire, out);
            self.keep_answer(told, out);
            match passed {
                Passed::Held => {}
                Passed::On if notable.terminal => self.reply_over(world, out),
                Passed::On => continue,
            }
            if used < input.len() && self.link(slot).is_some() {
                // What stands behind the end of a reply would be taken for the answer to the
                // next command.
                self.give_up_link(world, slot, out);
            }
            return input.len();
        }
    }

    /// The server's bytes make no sense: neither side can be brought into step again.
    fn reply_malformed(
        &mut self,
        world: &World<'_>,
        slot: Held,
        all: usize,
        out: &mut Outbox,
    ) -> usize {
        let node = self.link(slot).map(|link| link.facts.node);
        let server = node.map_or_else(String::new, |node| self.name_of(world, node));
        let forwarded = self.exchange_forwarded();
        if forwarded {
            self.close(world.now, out);
        } else {
            self.fail(world, &Failure::ServerMalformed { server }, 1, out);
        }
        all
    }

    /// The reply that is relayed.
    pub(super) fn exchange(&self) -> Option<&Exchange> {
        match &self.phase {
            Phase::Exchanging(exchange) | Phase::Uploading(exchange, _) => Some(exchange),
            _ => None,
        }
    }

    pub(super) fn exchange_forwarded(&self) -> bool {
        self.exchange().is_some_and(|exchange| exchange.forwarded)
    }

    fn notable(
        &mut self,
        world: &mut World<'_>,
        notable: &Notable,
        wire: &[u8],
        out: &mut Outbox,
    ) -> Passed {
        let payload = wire.get(packet::HEADER_LEN..).unwrap_or_default();
        self.hear_packet(notable.kind, payload, wire);
        match notable.kind {
            Kind::Ok { header } => {
                self.relay_ok(header, notable.seq, payload, wire, out);
            }
            Kind::Eof => {
                self.rows_came();
                let slot = self.exchange_slot();
                let at = out.client.len();
                out.client.extend_from_slice(wire);
                if let Ok(eof) = reply::Eof::parse(payload, self.client_capabilities()) {
                    self.note_warnings(slot, eof.warnings);
                    self.learn_status(eof.status);
                    let flags = at + packet::HEADER_LEN + 3..at + packet::HEADER_LEN + 5;
                    if let Some(place) = out.client.get_mut(flags) {
                        place.copy_from_slice(&self.own_flags(eof.status).0.to_le_bytes());
                    }
                }
                // The trackers are ours: a client without them is never told of changes, and
                // an EOF packet carries none.
                if let Some(high) = out.client.get_mut(at + packet::HEADER_LEN + 4) {
                    *high &= !SESSION_STATE_CHANGED_HIGH;
                }
                let warnings = at + packet::HEADER_LEN + 1..at + packet::HEADER_LEN + 3;
                if let (Some(count), Some(place)) =
                    (self.count_to_repeat(slot), out.client.get_mut(warnings))
                {
                    place.copy_from_slice(&count.to_le_bytes());
                }
                if let (Some(changed), Some(high)) =
                    (self.shape_to_tell(), out.client.get_mut(at + packet::HEADER_LEN + 4))
                {
                    *high = *high & !METADATA_CHANGED_HIGH
                        | if changed { METADATA_CHANGED_HIGH } else { 0 };
                }
            }
            Kind::Err => return self.relay_err(world, payload, wire, out),
            Kind::PrepareOk => self.relay_prepared(payload, wire, out),
            Kind::LocalInfile => return self.relay_infile(world, notable, wire, out),
            Kind::Opaque => out.client.extend_from_slice(wire),
        }
        self.mark_forwarded();
        Passed::On
    }

    /// A result set is over; COM_SET_OPTION is answered by an EOF packet too.
    fn rows_came(&mut self) {
        let simple = self.pending.as_ref().is_none_or(|pending| pending.expect == Expect::Simple);
        if !simple && let Phase::Exchanging(exchange) = &mut self.phase {
            exchange.rows = true;
            exchange.changed = None;
        }
    }

    /// Whether the client must be told that the rows of its statement have another number of
    /// columns than it was told last; `None` where the server knows as much. A server tells it
    /// when it finds the statement changed since it was prepared there.
    fn shape_to_tell(&self) -> Option<bool> {
        let walker = self.exchange().map(|exchange| &exchange.walker)?;
        let Ask::Execute { id } = self.pending.as_ref().filter(|_| walker.is_watching())?.ask
        else {
            return None;
        };
        let told = self.statements.get(id)?.columns;
        (told > 0).then_some(walker.columns()? != told)
    }

    /// Whether the client was told of a statement by another link than this one.
    pub(super) fn may_have_another_shape(&self, slot: Held, id: u32) -> bool {
        let (Some(link), Some(statement)) = (self.link(slot), self.statements.get(id)) else {
            return false;
        };
        let told = statement.columns;
        told > 0 && statement.on(slot, link.serial).is_some_and(|known| known.columns != told)
    }

    /// The link whose reply is relayed.
    fn exchange_slot(&self) -> Held {
        self.exchange().map_or(Held::Primary, |exchange| exchange.slot)
    }

    fn mark_forwarded(&mut self) {
        if let Phase::Exchanging(exchange) | Phase::Uploading(exchange, _) = &mut self.phase {
            exchange.forwarded = true;
        }
    }

    /// The flags that the client is to see: those of its session, where the link has others.
    fn own_flags(&self, status: Status) -> Status {
        let status = self.without_wrapping(status);
        if self.exchange().is_some_and(|exchange| exchange.lent) {
            return status.without(LASTING).with(self.state.status.and(LASTING));
        }
        status
    }

    /// Status flags say where a transaction is open.
    fn learn_status(&mut self, status: Status) {
        let Some(slot) = self.exchange().filter(|e| !e.lent).map(|exchange| exchange.slot) else {
            return;
        };
        self.doubtful = false;
        let status = self.without_wrapping(status);
        let open = status.has(Status::IN_TRANS);
        if open {
            self.transaction = Some(slot);
        } else if self.transaction == Some(slot) {
            self.transaction = None;
        }
        if slot == Held::Primary || open {
            self.state.status = status;
        } else {
            // A replica's link keeps autocommit on for itself; its flags say nothing more.
            self.state.status = status.with(self.state.status.and(Status::AUTOCOMMIT));
        }
        if let Some(pending) = self.pending.as_ref()
            && let Ask::Execute { id } | Ask::Fetch { id } = pending.ask
        {
            if status.opens_cursor() {
                self.statements.open_cursor(slot, id);
            }
            if status.has(Status::LAST_ROW_SENT) {
                self.statements.close_cursor(id);
            }
            self.pin_cursors();
        }
    }

    fn relay_ok(&mut self, header: u8, seq: u8, payload: &[u8], wire: &[u8], out: &mut Outbox) {
        let Some(slot) = self.exchange().map(|exchange| exchange.slot) else { return };
        let Some(caps) = self.link(slot).map(|link| link.facts.capabilities) else { return };
        let Ok(ok) = reply::Ok::parse(payload, caps) else {
            out.client.extend_from_slice(wire);
            return;
        };
        self.note_warnings(slot, ok.warnings);
        if header != 0 {
            self.rows_came();
        }
        if let Phase::Exchanging(exchange) | Phase::Uploading(exchange, _) = &mut self.phase {
            exchange.changed = (header == 0).then_some(ok.affected);
        }
        self.learn_status(ok.status);
        let explained = self.learn_changes(ok.tracks, slot, out);
        if !explained {
            self.pins.add(Pin::OpaqueState);
        }
        let client = self.client_capabilities();
        let wants_tracks = client.has(Capabilities::SESSION_TRACK);
        let warnings = self.count_to_repeat(slot).unwrap_or(ok.warnings);
        let status = self.own_flags(ok.status);
        let status = match self.shape_to_tell() {
            Some(true) => status.with(Status::METADATA_CHANGED),
            Some(false) => status.without(Status::METADATA_CHANGED),
            None => status,
        };
        let as_it_is = ok.tracks.is_empty() && warnings == ok.warnings && status.0 == ok.status.0;
        if as_it_is && wants_tracks == caps.has(Capabilities::SESSION_TRACK) {
            out.client.extend_from_slice(wire);
            return;
        }
        if wants_tracks {
            self.learn_tracking();
        }
        let shown = if wants_tracks {
            let autocommit = ok.status.has(Status::AUTOCOMMIT);
            let renamed = options::are_renamed(&self.state.dialect).then_some(autocommit);
            self.tracking.filter(ok.tracks, renamed)
        } else {
            Vec::new()
        };
        let rewritten = reply::Ok { tracks: &shown, warnings, status, ..ok };
        rewritten.encode(&mut out.client, seq, header, client);
    }

    /// Learns from a reply's trackers; false when the server reports a change of state that
    /// neither they nor the text explain.
    pub(super) fn learn_changes(&mut self, tracks: &[u8], slot: Held, out: &mut Outbox) -> bool {
        let effects = self.pending.as_ref().map_or(Effects::NONE, |pending| pending.class.effects);
        let verb = self.pending.as_ref().map(|pending| pending.class.verb);
        let mut changed = false;
        let mut explained = effects.any(
            Effects::SET
                .with(Effects::ROLE)
                .with(Effects::TEMP_TABLE)
                .with(Effects::TEXT_PREPARE)
                .with(Effects::USER_VAR_WRITE)
                .with(Effects::REPLICATION_REPLAY),
        ) || verb == Some(crate::router::Verb::Deallocate);
        let (mut written, mut hides) = (GtidSet::default(), false);
        for change in session_track::changes(tracks) {
            let Ok(change) = change else { return false };
            match change {
                Change::StateChange => changed = true,
                Change::Schema(_) => explained = true,
                Change::Variable { name, .. } if !tells_of_statement(name) => explained = true,
                _ => {}
            }
            self.learn_transaction(&change);
            if let Change::Variable { name: QUERY_CACHE, .. } = change {
                // Whether transactions are tracked depends on it.
                if let Some(link) = self.link_mut(slot) {
                    link.told = Told::Nothing;
                }
            }
            if effects.any(Effects::SET_STATEMENT)
                && let Change::Variable { name, .. } = change
                && name != b"last_gtid"
            {
                continue;
            }
            match self.learn(&change, slot) {
                Some(first) if written.is_empty() => written = first,
                Some(more) => written.union(&more),
                None => {}
            }
            if let Change::Variable { name, .. } = change {
                hides |= options::may_hide_others(name, &self.state.dialect);
            }
        }
        if hides {
            self.learn_merged(tracks);
        }
        if !written.is_empty() {
            self.wrote(written, slot, out);
        }
        let told_late = self.hears_of_earlier(slot);
        !changed || explained && !told_late && !effects.any(Effects::OPAQUE)
    }

    /// Learns one change; what the session has written, if that is told by it.
    pub(super) fn learn(&mut self, change: &Change<'_>, slot: Held) -> Option<GtidSet> {
        match self.state.learn(change, slot) {
            Learnt::Noted => {}
            Learnt::Wrote(written) => return Some(written),
            Learnt::Irreproducible => self.pins.add(Pin::ReplicationReplay),
            Learnt::HostBound => self.pins.add(Pin::HostBound),
        }
        None
    }

    /// The session's own write: its token has grown.
    fn wrote(&mut self, written: GtidSet, slot: Held, out: &mut Outbox) {
        if let Some(link) = self.link(slot).filter(|_| slot == Held::Primary) {
            out.requests.push(Request::Acknowledged(link.facts.node, written));
        }
        self.outdate_replica();
        if let Phase::Exchanging(exchange) | Phase::Uploading(exchange, _) = &mut self.phase {
            exchange.wrote = true;
        }
    }

    /// What the transaction trackers tell: table locks, and characteristics waiting for the
    /// next transaction.
    fn learn_transaction(&mut self, change: &Change<'_>) {
        match change {
            Change::TransactionState(state) => {
                self.has_written = state.contains(&b'W');
                if state.last() == Some(&b'L') {
                    self.pins.add(Pin::TableLock);
                }
                if state.contains(&b'w') {
                    // It has written to a table without transactions: that is not undone.
                    self.seal_transcript();
                }
            }
            Change::TransactionCharacteristics(text) => {
                if text.is_empty() || self.transaction.is_some() {
                    self.pins.remove(Pin::NextTransaction);
                } else {
                    self.pins.add(Pin::NextTransaction);
                }
            }
            _ => {}
        }
    }

    fn relay_prepared(&mut self, payload: &[u8], wire: &[u8], out: &mut Outbox) {
        let Phase::Exchanging(exchange) = &self.phase else { return };
        let slot = exchange.slot;
        let Some(pending) = self.pending.as_ref() else { return };
        let (Ask::Prepare { id }, Ok(ok)) =
            (&pending.ask, reply::PrepareOk::parse(payload, self.client_capabilities()))
        else {
            out.client.extend_from_slice(wire);
            return;
        };
        let id = *id;
        self.note_warnings(slot, ok.warnings);
        let Some(pending) = self.pending.as_ref() else { return };
        let serial = self.link(slot).map_or(0, |link| link.serial);
        let text = pending.text().to_vec();
        let mut statement = Statement::new(text, pending.class, &ok);
        statement.on_links[index(slot)] = Some(OnLink::new(&ok, serial, self.commands));
        self.statements.insert(id, statement);
        let at = out.client.len();
        out.client.extend_from_slice(wire);
        if let Some(packet) = out.client.get_mut(at..) {
            // A reply that was read as one has room for an id.
            let _ = reply::PrepareOk::replace_id(packet, id);
        }
    }

    /// The server asks for a file: passed on only as the answer to the client's own LOAD.
    fn relay_infile(
        &mut self,
        world: &World<'_>,
        notable: &Notable,
        wire: &[u8],
        out: &mut Outbox,
    ) -> Passed {
        let asked = self.pending.as_ref().is_some_and(|pending| {
            pending.class.effects.any(Effects::LOCAL_INFILE.with(Effects::OPAQUE))
        });
        let able = self.client_capabilities().has(Capabilities::LOCAL_FILES);
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        let (Phase::Exchanging(mut exchange), true, true) = (phase, asked, able) else {
            let server = "the server".to_owned();
            self.fail(world, &Failure::ServerMalformed { server }, notable.seq, out);
            return Passed::Held;
        };
        exchange.forwarded = true;
        out.client.extend_from_slice(wire);
        let body = Body::file(notable.seq.wrapping_add(1));
        self.enter(Phase::Uploading(exchange, body), world.now);
        Passed::On
    }

    fn relay_err(
        &mut self,
        world: &mut World<'_>,
        payload: &[u8],
        wire: &[u8],
        out: &mut Outbox,
    ) -> Passed {
        let code = reply::Err::code_of(payload);
        let untouched = !self.exchange_forwarded();
        if untouched && retry::is_goodbye(payload) && !self.is_streamed() {
            self.give_up_link(world, self.exchange_slot(), out);
            return Passed::Held;
        }
        if untouched && self.reroute_refused(world, code, payload, out) {
            return Passed::Held;
        }
        if let Phase::Exchanging(exchange) | Phase::Uploading(exchange, _) = &mut self.phase
            && exchange.error == 0
        {
            exchange.error = code;
            // Behind the definitions of columns: a result set that has broken off.
            exchange.rows |= exchange.walker.columns().is_some();
        }
        self.note_error(self.exchange_slot());
        let seq = wire.get(3).copied().unwrap_or(1);
        let client = self.client_capabilities();
        if let Some(error) = self.as_on_primary(code) {
            out.client.extend_from_slice(&error.packet(seq, client));
            self.list_is_untold(error);
        } else if let (NO_OPEN_CURSOR, Some(Ask::Fetch { id })) =
            (code, self.pending.as_ref().map(|pending| &pending.ask))
        {
            // The server names the statement by its own id.
            out.client.extend_from_slice(&self.no_open_cursor(*id).packet(seq, client));
        } else {
            out.client.extend_from_slice(wire);
        }
        self.mark_forwarded();
        Passed::On
    }

    /// A write inside a read-only transaction that a replica runs: the replica's being
    /// read-only comes first there (1290), the transaction's on the primary (1792).
    fn as_on_primary(&self, code: u16) -> Option<SqlError> {
        let Phase::Exchanging(exchange) = &self.phase else { return None };
        if code != 1290 || exchange.slot != Held::Replica || !exchange.in_transaction {
            return None;
        }
        let text = match self.state.dialect.flavour {
            Flavour::MariaDb => "Cannot execute statement in a READ ONLY transaction",
            Flavour::MySql => "Cannot execute statement in a READ ONLY transaction.",
        };
        Some(SqlError::new(1792, b"25006", text.to_owned()))
    }

    /// A refusal that proves that nothing was executed, and that concerns the place rather than
    /// the statement: the request goes another way. True when it does.
    fn reroute_refused(
        &mut self,
        world: &mut World<'_>,
        code: u16,
        payload: &[u8],
        out: &mut Outbox,
    ) -> bool {
        let Phase::Exchanging(exchange) = &self.phase else { return false };
        let (slot, node, in_transaction) = (exchange.slot, exchange.node, exchange.in_transaction);
        let Some(pending) = self.pending.as_mut() else { return false };
        let message = reply::Err::message_of(payload);
        if pending.way.body.is_some() {
            return false;
        }
        let kept = world.group.failover.mode.keeps();
        let closed = slot == Held::Primary && retry::primary_gives_up(code, message, kept);
        if in_transaction {
            return closed && self.leave_closed_primary(world, node, payload, out);
        }
        match slot {
            Held::Replica if retry::replica_refused(code) => {
                pending.way.avoid |= node.bit();
                out.requests.push(Request::Retried(Retry::ReplicaRefused));
                self.leave_replica(world, code);
            }
            Held::Primary if closed => {
                // A procedure may have committed something before what was refused.
                let may_have_written = pending.class.effects.any(Effects::OPAQUE);
                // A primary that is known to be read-only is so by a client's wish.
                let node_is = world.topology.primary_node().filter(|at| at.id == node);
                if may_have_written || self.bound() || node_is.is_some_and(|at| at.read_only) {
                    return false;
                }
                let Some(pending) = self.pending.as_mut() else { return false };
                pending.way.refusal = Some((payload.to_vec(), world.topology.generation));
                pending.way.decision = None;
                self.fall_to_primary(Reason::Write);
                out.requests.push(Request::Signal(node, Trouble::ReadOnly));
                out.requests.push(Request::Retried(Retry::PrimaryReadOnly));
            }
            _ if matches!(code, 1243 | 1615) => return self.reprepare(world, slot, out),
            _ => return false,
        }
        // The client was not told of this error, but the server lists it.
        if let Some(link) = self.link_mut(slot) {
            link.listed = true;
        }
        self.phase = Phase::Idle;
        self.proceed(world, out);
        true
    }

    fn bound(&self) -> bool {
        self.transaction.is_some() || !self.binding_pins().is_empty()
    }

    /// The server has forgotten a statement, or wants it prepared anew: once.
    fn reprepare(&mut self, world: &mut World<'_>, slot: Held, out: &mut Outbox) -> bool {
        let Some(pending) = self.pending.as_mut() else { return false };
        let Ask::Execute { id } = pending.ask else { return false };
        if pending.way.reprepared {
            return false;
        }
        pending.way.reprepared = true;
        self.forget_prepared(slot, id, out);
        out.requests.push(Request::Retried(Retry::Reprepared));
        self.phase = Phase::Idle;
        self.proceed(world, out);
        true
    }

    /// Whether the pending request runs on a replica by decision.
    pub(super) fn on_replica(&self) -> bool {
        self.pending.as_ref().and_then(|pending| pending.way.decision).is_some_and(|decision| {
            matches!(decision.target, Target::Replica { .. } | Target::Held(Held::Replica))
        })
    }
}
