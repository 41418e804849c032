//! From the client's bytes to a pending request, or to an answer that needs no server.

use crate::protocol::command::{self, Command};
use crate::protocol::errno::SqlError;
use crate::protocol::packet::{self, Body, Frame};
use crate::protocol::walker::Expect;
use crate::router::kill::Kill;
use crate::router::policy::Held;
use crate::router::{Class, Effects, Kind, Reason, Verb, kill, rewrite};
use crate::session::action::{Outbox, Request, Spent, World, index};
use crate::session::failure::Failure;
use crate::session::pending::{Ask, Pending, Trackers};
use crate::session::pin::Pin;
use crate::session::release::ONE;
use crate::session::retry::is_plain_rollback;
use crate::session::step::Step;
use crate::session::{Phase, Session, single, tracking};

/// The part of a streamed command that is looked at, bytes.
const PREFIX: usize = 64 * 1024;

/// Refused changes of user after which a connection may change it no more (MariaDB, against the
/// guessing of passwords; MySQL closes at the first).
const REFUSED_CHANGES_MAX: u8 = 3;

impl Session {
    /// Takes one command off the head of `input`, if a whole one (or enough of a large one) is
    /// there.
    pub(super) fn take_command(
        &mut self,
        world: &mut World<'_>,
        input: &[u8],
        out: &mut Outbox,
    ) -> usize {
        // One packet at most: joined packets are never looked at, only streamed.
        let limit = world.group.inspect_limit.min(packet::MAX_PAYLOAD - 1);
        let limit = match input.get(packet::HEADER_LEN) {
            // What is prepared, and data for later, must be kept whole; an execution may have to be
            // rebuilt.
            Some(0x16..=0x18 | 0xFA) => self.largest_packet(world),
            _ => limit,
        };
        match packet::frame(input, limit) {
            Ok(Frame::Incomplete) => 0,
            Ok(Frame::Whole { wire_len, .. }) => {
                let Some(wire) = input.get(..wire_len) else { return 0 };
                self.commands = self.commands.wrapping_add(1);
                self.take_whole(world, wire, out);
                wire_len
            }
            Ok(Frame::Oversized) => self.take_prefix(world, input, out),
            Err(_) => {
                self.protocol_error(world, SqlError::packets_out_of_order(), out);
                input.len()
            }
        }
    }

    pub(super) fn largest_packet(&self, world: &World<'_>) -> usize {
        let server = world.topology.facts().map_or(64 << 20, |facts| facts.max_allowed_packet);
        usize::try_from(server).unwrap_or(1 << 30)
    }

    pub(super) fn protocol_error(&mut self, world: &World<'_>, error: SqlError, out: &mut Outbox) {
        out.client.extend_from_slice(&error.packet(1, self.client_capabilities()));
        self.close(world.now, out);
    }

    fn take_whole(&mut self, world: &mut World<'_>, wire: &[u8], out: &mut Outbox) {
        let payload = packet::payload(wire, wire.len());
        let Ok(command) = command::parse(&payload, self.client_capabilities()) else {
            return self.protocol_error(world, SqlError::malformed_packet(), out);
        };
        match command {
            Command::Quit => {
                self.leave(out);
                self.take_leave_of_servers(out);
                return self.close(world.now, out);
            }
            Command::StmtClose { id } => return self.close_statement(id, out),
            Command::StmtSendLongData { id, .. } => {
                return self.keep_long_data(world, id, &payload, out);
            }
            _ => {}
        }
        if let Some(failure) = self.lost.take()
            && self.tell_loss(world, &failure, &command, wire, out)
        {
            return;
        }
        self.dispatch(world, command, wire, &payload, out);
    }

    /// Tells what went down while the client was idle; true when that answers the command.
    fn tell_loss(
        &mut self,
        world: &mut World<'_>,
        failure: &Failure,
        command: &Command<'_>,
        wire: &[u8],
        out: &mut Outbox,
    ) -> bool {
        let forgets = matches!(command, Command::ResetConnection | Command::ChangeUser { .. });
        if forgets {
            return false;
        }
        self.pend(world, Ask::Other, plain(Reason::Command), Expect::Simple, wire);
        if let (Command::Query { sql, .. }, Failure::TransactionLost { .. }) = (command, failure) {
            let class = world.classes.classify(sql, &self.state.dialect);
            if is_plain_rollback(&class) && !self.chains_transactions() {
                // What it asks for has happened by itself.
                self.ended_here(world, self.ends_with_release(&class), out);
                return true;
            }
        }
        self.fail(world, failure, 1, out);
        true
    }

    fn dispatch(
        &mut self,
        world: &mut World<'_>,
        command: Command<'_>,
        wire: &[u8],
        payload: &[u8],
        out: &mut Outbox,
    ) {
        let (ask, expect) = match command {
            Command::Query { sql, .. } => return self.take_query(world, sql, wire, out),
            Command::StmtPrepare { sql } => return self.take_prepare(world, sql, wire, out),
            Command::StmtExecute { id, .. } => {
                return self.take_execution(world, id, Expect::Execute, wire, out);
            }
            Command::StmtBulkExecute { id, .. } => {
                return self.take_execution(world, id, Expect::Bulk, wire, out);
            }
            Command::StmtFetch { id, .. } => return self.take_fetch(world, id, wire, out),
            Command::StmtReset { id } => return self.take_statement_reset(world, id, wire, out),
            Command::ResetConnection => return self.take_reset(world, wire, out),
            Command::ChangeUser { .. } if self.refused_changes >= REFUSED_CHANGES_MAX => {
                self.pend(world, Ask::Other, plain(Reason::Command), Expect::Simple, wire);
                return self.refuse(world, SqlError::unknown_command(), out);
            }
            Command::ChangeUser { .. } => {
                self.take_leave_of_servers(out);
                self.drop_link(Held::Primary, out);
                self.drop_link(Held::Replica, out);
                self.enter(Phase::ChangingUser, world.now);
                out.requests.push(Request::ChangeUser(payload.to_vec()));
                return;
            }
            // MySQL 9 does not know it any more, and says so itself.
            Command::ProcessKill { .. } if !self.state.dialect.kills_by_command() => {
                (Ask::Other, Expect::Simple)
            }
            Command::ProcessKill { id } => {
                self.pend(world, Ask::Other, plain(Reason::Command), Expect::Simple, wire);
                return self.take_kill(world, u64::from(id), true, out);
            }
            Command::BinlogDump { .. }
            | Command::BinlogDumpGtid { .. }
            | Command::TableDump { .. }
            | Command::Clone { .. } => (Ask::Tunnel, Expect::Simple),
            Command::RegisterSlave { .. } => {
                self.pins.add(Pin::Tunnel);
                (Ask::Other, Expect::Simple)
            }
            Command::InitDb { schema } => (Ask::InitDb(schema.to_vec()), Expect::Simple),
            Command::SetOption(option) => (Ask::SetOption(option), Expect::Simple),
            Command::Ping => (Ask::Ping, Expect::Simple),
            Command::FieldList { .. } => (Ask::Other, Expect::FieldList),
            Command::Statistics => (Ask::Other, Expect::Statistics),
            Command::ProcessInfo => (Ask::Other, Expect::Query),
            _ => (Ask::Other, Expect::Simple),
        };
        self.pend(world, ask, plain(Reason::Command), expect, wire);
        if self.adds_to_the_replica_s_list() {
            self.decide_held(Held::Replica, Reason::PreviousStatement);
        }
        self.proceed(world, out);
    }

    fn take_query(&mut self, world: &mut World<'_>, sql: &[u8], wire: &[u8], out: &mut Outbox) {
        let class = world.classes.classify(sql, &self.state.dialect);
        self.pend(world, Ask::Query, class, Expect::Query, wire);
        if let Some(pending) = self.pending.as_mut() {
            pending.text_at = wire.len().saturating_sub(sql.len());
        }
        self.look_closer(world, class, sql, out);
    }

    /// What the class alone does not tell of the pending request's text: whom it kills, and
    /// whether it shows how the trackers are set.
    pub(super) fn look_closer(
        &mut self,
        world: &mut World<'_>,
        class: Class,
        sql: &[u8],
        out: &mut Outbox,
    ) {
        self.look_for_trackers(class, sql);
        if class.effects.any(Effects::KILL) {
            match kill::parse(sql, &self.state.dialect) {
                Some(Kill { what, target: kill::Victim::Id(id), .. })
                    if what != kill::What::QueryId =>
                {
                    return self.take_kill(world, id, what == kill::What::Connection, out);
                }
                Some(_) => {}
                None => self.ask_whom(sql),
            }
        }
        self.proceed(world, out);
    }

    pub(super) fn look_for_trackers(&mut self, class: Class, sql: &[u8]) {
        if class.reason == Reason::HostLocal
            && tracking::are_shown_by(sql)
            && let Some(pending) = self.pending.as_mut()
        {
            pending.way.trackers = Trackers::Wanted;
        }
    }

    /// KILL with an expression: the server says what it comes to, so that no number of ours is
    /// taken for one of its own.
    fn ask_whom(&mut self, sql: &[u8]) {
        let Some((span, connection)) = kill::expression(sql, &self.state.dialect) else { return };
        let whom = sql.get(span).unwrap_or_default();
        let text = [b"SELECT ", whom, b" ", ONE.as_bytes()].concat();
        let own = rewrite::virtualise(&text, &self.state.dialect, self.connection_id);
        if let Some(pending) = self.pending.as_mut() {
            pending.way.whom = Some((own.unwrap_or(text).into(), connection));
        }
    }

    /// What the expression of a KILL came to; servers take what is no number for 0.
    pub(super) fn whom_known(&mut self, world: &mut World<'_>, reply: &[u8], out: &mut Outbox) {
        let value = single::value(reply).flatten().unwrap_or_default();
        let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
        let number = |id: u64, byte: &u8| id.checked_mul(10)?.checked_add(u64::from(byte - b'0'));
        let id = digits.into_iter().try_fold(0, number).unwrap_or(u64::MAX);
        let whom = self.pending.as_mut().and_then(|pending| pending.way.whom.take());
        let Some((_, connection)) = whom else { return };
        self.take_kill(world, id, connection, out);
    }

    /// KILL of the client that was given this id.
    pub(super) fn take_kill(
        &mut self,
        world: &World<'_>,
        id: u64,
        connection: bool,
        out: &mut Outbox,
    ) {
        if let Some(pending) = self.pending.as_mut() {
            pending.way.kill = Some((id, connection));
        }
        if id == u64::from(self.connection_id) {
            return self.killed_itself(world, connection, out);
        }
        out.requests.push(Request::Kill { id, connection });
    }

    fn take_reset(&mut self, world: &mut World<'_>, wire: &[u8], out: &mut Outbox) {
        self.pend(world, Ask::ResetConnection, plain(Reason::Command), Expect::Simple, wire);
        match self.found_would_be_lost(Held::Replica) {
            true => self.start_own(world, Held::Replica, Step::Found(Held::Replica), out),
            false => self.reset(world, out),
        }
    }

    /// Performs the pending COM_RESET_CONNECTION.
    pub(super) fn reset(&mut self, world: &mut World<'_>, out: &mut Outbox) {
        self.begin_anew(Held::Replica, out);
        if self.link(Held::Primary).is_some() {
            self.decide_held(Held::Primary, Reason::Command);
            self.proceed(world, out);
        } else {
            self.reset_done(out);
            self.say_ok(out);
            self.finished_here(world, 0, out);
        }
    }

    /// What a successful COM_RESET_CONNECTION means here.
    pub(super) fn reset_done(&mut self, out: &mut Outbox) {
        let autocommit = crate::protocol::flags::Status::AUTOCOMMIT;
        self.state.status = if self.login.status & autocommit.0 != 0 {
            autocommit
        } else {
            crate::protocol::flags::Status(0)
        };
        self.state.reset(self.first_dialect);
        self.forget_everything(out);
        self.carried = self.carried.after_reset();
    }

    /// A command beyond the inspection limit: its head is looked at, the rest is streamed to
    /// the primary as it comes.
    fn take_prefix(&mut self, world: &mut World<'_>, input: &[u8], out: &mut Outbox) -> usize {
        let whole = packet::header(input).map_or(PREFIX, |(len, _)| len + packet::HEADER_LEN);
        if input.len() < PREFIX.min(whole) {
            return 0;
        }
        let mut body = Body::new();
        let Ok((taken, complete)) = body.advance(input) else {
            self.protocol_error(world, SqlError::packets_out_of_order(), out);
            return input.len();
        };
        let Some(wire) = input.get(..taken) else { return 0 };
        let head = wire.get(packet::HEADER_LEN..).unwrap_or_default();
        let (ask, expect, mut class) = match command::parse(head, self.client_capabilities()) {
            Ok(Command::Query { sql, .. }) => {
                let class = crate::router::classify(sql, &self.state.dialect);
                (Ask::Query, Expect::Query, class)
            }
            Ok(_) => {
                // Half of it can be neither understood nor rewritten, and a change of user
                // that passed unseen would be worse.
                self.protocol_error(world, SqlError::packet_too_large(), out);
                return input.len();
            }
            Err(_) => {
                self.protocol_error(world, SqlError::malformed_packet(), out);
                return input.len();
            }
        };
        if class.kind == Kind::Read {
            class.reason = Reason::TooLarge;
        }
        class.kind = Kind::Primary;
        self.commands = self.commands.wrapping_add(1);
        self.pend(world, ask, class, expect, wire);
        if let Some(pending) = self.pending.as_mut() {
            pending.way.body = (!complete).then_some(body);
            if pending.ask == Ask::Query {
                pending.text_at = packet::HEADER_LEN + 1;
            }
        }
        if let Some(failure) = self.lost.take() {
            self.fail(world, &failure, 1, out);
            self.close(world.now, out);
            return taken;
        }
        self.proceed(world, out);
        taken
    }

    /// Passes on what has come of a command that is streamed.
    pub(super) fn stream_request(&mut self, slot: Held, input: &[u8], out: &mut Outbox) -> usize {
        let Some(pending) = self.pending.as_mut() else { return 0 };
        let Some(body) = pending.way.body.as_mut() else { return 0 };
        match body.advance(input) {
            Ok((taken, complete)) => {
                out.links[index(slot)].extend_from_slice(input.get(..taken).unwrap_or_default());
                if complete {
                    pending.way.body = None;
                }
                taken
            }
            Err(_) => {
                // Half a command is on the server's side: only a close ends it.
                out.requests.push(Request::Close);
                self.phase = Phase::Closed;
                input.len()
            }
        }
    }

    /// Passes on the file that the server asked for.
    pub(super) fn stream_file(&mut self, input: &[u8], out: &mut Outbox) -> usize {
        let Phase::Uploading(exchange, body) = &mut self.phase else { return 0 };
        let slot = exchange.slot;
        match body.advance(input) {
            Ok((taken, complete)) => {
                out.links[index(slot)].extend_from_slice(input.get(..taken).unwrap_or_default());
                if complete {
                    let phase = std::mem::replace(&mut self.phase, Phase::Idle);
                    if let Phase::Uploading(exchange, _) = phase {
                        self.phase = Phase::Exchanging(exchange);
                    }
                }
                taken
            }
            Err(_) => {
                out.requests.push(Request::Close);
                self.phase = Phase::Closed;
                input.len()
            }
        }
    }

    /// Makes a command the pending request.
    pub(super) fn pend(
        &mut self,
        world: &mut World<'_>,
        ask: Ask,
        class: Class,
        expect: Expect,
        wire: &[u8],
    ) {
        self.pending = Some(match world.spent.pop() {
            Some(Spent(mut room)) => {
                room.become_new(ask, class, expect, wire, world.now);
                room
            }
            None => Box::new(Pending::new(ask, class, expect, wire, world.now)),
        });
    }
}

/// The class of a command that has no text.
pub(super) fn plain(reason: Reason) -> Class {
    Class {
        kind: Kind::Primary,
        verb: Verb::Other,
        effects: Effects::NONE,
        reason,
        digest: 0,
        multi: false,
    }
}
