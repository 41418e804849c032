//! An open transaction outlives its server: what it has done is noted on the way, done again on the
//! next primary before the client's next command, and given up (1213) where an answer differs.
//!
//! It cannot have committed meanwhile: no COMMIT was sent, and the server that had it rolls it back
//! with its connection.

use crate::protocol::execute;
use crate::protocol::flags::{Capabilities, MariadbCapabilities, Status};
use crate::protocol::packet;
use crate::protocol::walker::{Expect, Kind, Stop};
use crate::protocol::{command, reply};
use crate::router::policy::Held;
use crate::router::{Class, Effects, Reason, Verb};
use crate::session::action::{Outbox, Replay, Request, Retry, Trouble, World, index};
use crate::session::diagnostics::Listed;
use crate::session::failure::Failure;
use crate::session::pending::Ask;
use crate::session::phrase::QUERY_CACHE;
use crate::session::pin::{Pin, Pins};
use crate::session::release::Carried;
use crate::session::retry::{
    MAY_COMMIT, is_goodbye, is_plain_rollback, may_have_rolled_back, stays_inside,
};
use crate::session::step::Step;
use crate::session::transcript::{Command, Next, Transcript};
use crate::session::{Exchange, Own, Phase, Session};
use crate::topology::{Node, NodeId};

/// What a client may ask of its previous statement, before the link is gone on which it ran.
pub(super) struct Asked {
    last: Option<Held>,
    last_lost: bool,
    listed: Listed,
    carried: Carried,
}

/// What a statement may do that cannot be done again, or not be told from the text.
pub(super) const UNREPEATABLE: Effects = MAY_COMMIT
    .with(Effects::UNLOCK)
    .with(Effects::TEMP_TABLE)
    .with(Effects::TEXT_PREPARE)
    .with(Effects::HANDLER_OPEN)
    .with(Effects::USER_LOCK)
    .with(Effects::RELEASE_ALL_LOCKS)
    .with(Effects::REPLICATION_REPLAY)
    .with(Effects::LOCAL_INFILE)
    .with(Effects::KILL)
    .with(Effects::TOPOLOGY)
    .with(Effects::COUNTERS)
    .with(Effects::SET_STATEMENT)
    .with(Effects::ROLE)
    .with(Effects::USER_VAR_WRITE)
    .with(Effects::DIAGNOSTICS);

impl Session {
    // --- while the transaction goes on ---

    /// Notes the pending request, which is `sent` to this link now, as part of the transaction
    /// that is open or may begin with it, or for which it sets characteristics. Whether its answer
    /// is to be heard.
    pub(super) fn note_command(
        &mut self,
        world: &World<'_>,
        slot: Held,
        sent: &[u8],
        watching: bool,
    ) -> bool {
        let Some(pending) = self.pending.as_ref() else { return false };
        let within = self.transaction == Some(slot);
        let autocommit = self.state.status.has(Status::AUTOCOMMIT);
        let begins = pending.class.verb == Verb::Begin;
        let prepares = slot == Held::Primary && only_sets_next_transaction(&pending.class);
        if !within && !begins && !prepares && (autocommit || slot == Held::Replica) {
            return false;
        }
        // It has characteristics that were set for it alone: they stand in its transcript.
        let special = self.pins.has(Pin::NextTransaction);
        if begins || !within {
            // While a session uses MariaDB's query cache it is not told of transactions.
            let untold = self.state.variable(QUERY_CACHE).is_some();
            self.transcript = self.transcript.take().filter(|_| special);
            let unknown = special && self.transcript.is_none();
            let transcript = self.transcript.get_or_insert_default();
            if untold || unknown {
                transcript.seal();
            }
        }
        let limit = world.group.transaction_replay_limit;
        let Some(transcript) = self.transcript.as_deref() else { return false };
        if transcript.is_sealed() || limit == 0 {
            return false;
        }
        match pending.ask {
            // They do nothing to the transaction.
            Ask::Prepare { .. } | Ask::ResetStatement { .. } | Ask::Ping | Ask::SetOption(_) => {
                return false;
            }
            // It ends.
            _ if ends(&pending.class) => return false,
            Ask::Query | Ask::Execute { .. } if self.is_repeatable(&pending.class, transcript) => {}
            _ => {
                self.seal_transcript();
                return false;
            }
        }
        self.note_repeatable(sent, watching, limit)
    }

    fn note_repeatable(&mut self, sent: &[u8], watching: bool, limit: usize) -> bool {
        let (Some(pending), Some(transcript)) = (self.pending.as_ref(), self.transcript.as_mut())
        else {
            return false;
        };
        let expect = pending.expect;
        let Ask::Execute { id } = pending.ask else {
            return transcript.note(&Command::Text(sent), expect, watching, limit);
        };
        let Some(statement) = self.statements.get(id) else { return false };
        let plain = statement.long_data.is_empty() && expect == Expect::Execute;
        let payload = packet::payload(&pending.wire, pending.wire.len());
        let (parameters, caps) = (statement.parameters, self.login.capabilities);
        let payload = match execute::types(&payload, parameters, caps) {
            Ok(Some(_)) => Ok(payload),
            // They may be those of an execution before.
            Ok(None) => execute::rebind(&payload, id, parameters, statement.types.as_deref(), caps)
                .map(|rebound| rebound.payload.into()),
            Err(malformed) => Err(malformed),
        };
        let (true, Ok(payload)) = (plain, payload) else {
            transcript.seal();
            return false;
        };
        let command = Command::Execution { id, text: &statement.text, payload: &payload };
        transcript.note(&command, expect, watching, limit)
    }

    fn is_repeatable(&self, class: &Class, transcript: &Transcript) -> bool {
        // What the link had before the transaction, no other link has.
        let numbers = class.effects.any(Effects::LAST_INSERT_ID) && !transcript.has_numbered();
        let prepares = only_sets_next_transaction(class);
        let known = class.verb == Verb::Begin || prepares || stays_inside(class.verb);
        let streamed = self.pending.as_ref().is_some_and(|pending| pending.way.body.is_some());
        // A function may write where no transaction reaches.
        let function = class.reason == Reason::Function;
        known
            && !numbers
            && !streamed
            && !function
            && !class.multi
            && !class.effects.any(UNREPEATABLE)
    }

    /// The transaction that is open cannot be done again.
    pub(super) fn seal_transcript(&mut self) {
        if let Some(transcript) = self.transcript.as_mut() {
            transcript.seal();
        }
    }

    /// The answer to the pending request is over.
    pub(super) fn note_answer(&mut self, exchange: &Exchange) {
        if self.transcript.is_none() {
            return;
        }
        if self.transaction.is_none() && !self.pins.has(Pin::NextTransaction) {
            self.transcript = None;
            return;
        }
        let Some(pending) = self.pending.as_ref() else { return };
        let chained = ends(&pending.class) && exchange.error == 0;
        let cached = exchange.rows && self.caches_definitions(exchange.slot, &pending.ask);
        let changed = exchange.noted && exchange.version != self.state.version;
        if chained || cached || changed || may_have_rolled_back(exchange.error) {
            return self.seal_transcript();
        }
        if exchange.noted
            && let Some(transcript) = self.transcript.as_mut()
        {
            transcript.keep(exchange.rows);
        }
    }

    /// Whether the answer leaves out definitions that another link would send.
    fn caches_definitions(&self, slot: Held, ask: &Ask) -> bool {
        let prepared = matches!(ask, Ask::Execute { .. });
        prepared
            && self.link(slot).is_some_and(|link| {
                link.facts.mariadb.has(MariadbCapabilities::CACHE_METADATA)
                    || link.facts.capabilities.has(Capabilities::OPTIONAL_RESULTSET_METADATA)
            })
    }

    // --- when its server is gone ---

    /// Whether the transaction that is open on this link, or is still to begin there with the
    /// characteristics that were set for it, can be done again on another one.
    pub(super) fn can_be_repeated(&self, slot: Held) -> bool {
        let mut pins = self.binding_pins();
        let awaited = pins.has(Pin::NextTransaction) && slot == Held::Primary;
        pins.remove(Pin::NextTransaction);
        (self.transaction == Some(slot) || self.transaction.is_none() && awaited)
            && self.transcript.as_ref().is_some_and(|transcript| transcript.is_whole())
            && pins.is_empty()
            && !self.statements.any_cursor()
            && !self.has_strays()
            && !self.doubtful
    }

    /// Leaves the primary's link for another one: the transaction that is open there is done again,
    /// if that is possible.
    pub(super) fn leave_primary(&mut self, out: &mut Outbox) -> bool {
        if !self.can_be_repeated(Held::Primary) {
            return false;
        }
        let asked = self.asked_of_link();
        self.drop_link(Held::Primary, out);
        self.suspend(asked);
        true
    }

    /// What the client may ask of its previous statement: taken before the link is forgotten.
    pub(super) fn asked_of_link(&mut self) -> Asked {
        Asked {
            last: self.last,
            last_lost: self.last_lost,
            listed: std::mem::take(&mut self.listed),
            carried: self.carried,
        }
    }

    /// The link of the open transaction is gone: it is done again before the client's next command.
    /// To the client it is open still.
    pub(super) fn suspend(&mut self, asked: Asked) {
        self.transaction = None;
        self.pins.remove(Pin::NextTransaction);
        let Some(transcript) = self.transcript.as_mut() else { return };
        transcript.say_again();
        // What stands in the transcript will have been run on the primary's link, with everything
        // that it leaves there.
        self.last = asked.last.map(|_| Held::Primary);
        self.last_lost = asked.last_lost;
        self.listed = asked.listed.moved_to(Held::Primary);
        if transcript.has_queried() {
            self.carried = asked.carried.found_moved_to(Held::Primary);
        }
    }

    /// The primary has become read-only under the open transaction, whose statement (a COMMIT too)
    /// it has refused: nothing of it is there to stay, and it goes on where writes go on. False
    /// when the client is to be told.
    pub(super) fn leave_closed_primary(
        &mut self,
        world: &mut World<'_>,
        node: NodeId,
        refusal: &[u8],
        out: &mut Outbox,
    ) -> bool {
        // A primary that is known to be read-only is so by a client's wish; one that was not looked
        // at since a client has changed a setting of it may be.
        let primary = world.topology.primary_node().filter(|at| at.id == node);
        let changed = |at: &Node| world.settings_changed.is_some_and(|t| !at.is_observed_since(t));
        let known = primary.is_some_and(|at| at.read_only || changed(at));
        if known || !self.leave_primary(out) {
            return false;
        }
        if let Some(pending) = self.pending.as_mut() {
            pending.way.refusal = Some((refusal.to_vec(), world.topology.generation));
            pending.way.decision = None;
        }
        out.requests.push(Request::Signal(node, Trouble::ReadOnly));
        out.requests.push(Request::Retried(Retry::PrimaryReadOnly));
        self.phase = Phase::Idle;
        self.proceed(world, out);
        true
    }

    /// A transaction is open to the client, or was given characteristics, and on no server.
    pub(super) fn is_suspended(&self) -> bool {
        self.transcript.as_ref().is_some_and(|transcript| transcript.is_to_be_said_again())
    }

    /// The link on which it is being done again is gone, or was left: from the beginning.
    pub(super) fn replay_interrupted(&mut self) {
        if let Some(transcript) = self.transcript.as_mut().filter(|at| at.is_begun_again()) {
            transcript.say_again();
        }
    }

    /// The pending request belongs to a transaction that is open on no server: it runs on the
    /// primary. True when it was answered at once.
    pub(super) fn resume(&mut self, world: &World<'_>, out: &mut Outbox) -> bool {
        let Some(pending) = self.pending.as_ref() else { return true };
        let runs = matches!(pending.ask, Ask::Query | Ask::Execute { .. });
        if runs && is_plain_rollback(&pending.class) && !self.chains_transactions() {
            // What it asks for has happened by itself.
            self.transaction_gone();
            self.ended_here(world, self.releases(), out);
            return true;
        }
        if !self.transcript.as_ref().is_some_and(|transcript| transcript.is_whole()) {
            let server = world.topology.primary.map(|node| self.name_of(world, node));
            let server = server.unwrap_or_default();
            let failure =
                self.transaction_given_up(server, |server| Failure::TransactionLost { server });
            self.fail(world, &failure, 1, out);
            return true;
        }
        self.fall_to_primary(Reason::Transaction);
        false
    }

    // --- doing it again ---

    /// Hears a packet that is read, if the transcript is to.
    pub(super) fn hear_packet(&mut self, kind: Kind, payload: &[u8], wire: &[u8]) {
        let Some(exchange) = self.exchange().filter(|exchange| exchange.noted) else { return };
        let Some(link) = self.link(exchange.slot) else { return };
        let caps = link.facts.capabilities;
        if let Some(transcript) = self.transcript.as_mut() {
            transcript.hear_packet(kind, payload, wire, caps);
        }
    }

    /// Sends the next command once more, and says how its answer is read and watched.
    pub(super) fn say_again(&mut self, out: &mut Outbox) -> Option<(Expect, bool)> {
        self.transcript.as_mut()?.say(&mut out.links[index(Held::Primary)])
    }

    /// The text of a statement that is to be prepared for that.
    pub(super) fn text_to_replay(&self, number: usize) -> &[u8] {
        self.transcript.as_ref().map_or(&[], |transcript| transcript.text(number))
    }

    /// What is to be done next on the primary's link to have the transaction there.
    pub(super) fn replay_step(&self) -> Step {
        match self.transcript.as_ref().map(|transcript| transcript.next()) {
            Some(Next::Prepare(number)) => Step::ReplayPrepare(number),
            Some(Next::Number(number)) => Step::ReplayNumber(number),
            Some(Next::Say | Next::Done) | None => Step::Replay,
        }
    }

    /// Takes part of the answer to a command that was sent once more. Rows may be many: nothing of
    /// it is kept.
    pub(super) fn hear_again(
        &mut self,
        world: &mut World<'_>,
        input: &[u8],
        out: &mut Outbox,
    ) -> usize {
        let caps = self.link(Held::Primary).map(|link| link.facts.capabilities);
        let (Phase::Own(own), Some(transcript), Some(caps)) =
            (&mut self.phase, self.transcript.as_mut(), caps)
        else {
            return input.len();
        };
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let Ok(advance) = own.walker.advance(rest) else { break };
            transcript.hear(rest.get(..advance.forward).unwrap_or_default());
            used += advance.forward;
            let Stop::Notable(notable) = advance.stop else { return used };
            let end = advance.forward + notable.len;
            let wire = rest.get(advance.forward..end).unwrap_or_default();
            used += notable.len;
            let payload = wire.get(packet::HEADER_LEN..).unwrap_or_default();
            transcript.hear_packet(notable.kind, payload, wire, caps);
            let leaves = notable.kind == Kind::Err && is_goodbye(payload);
            let surplus = notable.terminal && used < input.len();
            if notable.kind == Kind::LocalInfile || surplus || leaves {
                break;
            }
            if notable.terminal {
                self.phase = Phase::Idle;
                self.replayed(world, out);
                return used;
            }
        }
        // It makes no sense, more stands behind the end of it, or the server says goodbye.
        self.give_up_link(world, Held::Primary, out);
        input.len()
    }

    /// An answer to [`Step::Replay`] is over.
    pub(super) fn replayed(&mut self, world: &mut World<'_>, out: &mut Outbox) {
        let Some(transcript) = self.transcript.as_mut() else { return };
        if !transcript.is_answered_alike() {
            return self.replay_differs(world, out);
        }
        let done = transcript.next() == Next::Done;
        let ids = if done { transcript.was_said_again() } else { Vec::new() };
        for id in ids {
            out.links[index(Held::Primary)].extend_from_slice(&command::stmt_close(id));
        }
        self.on_link(Held::Primary, |link| {
            link.ran = true;
            link.used = true;
            link.listed = true;
            link.warned = false;
        });
        if done {
            match self.has_begun_transcript() {
                true => self.transaction = Some(Held::Primary),
                false => self.pins.add(Pin::NextTransaction),
            }
            out.requests.push(Request::Replayed(Replay::Alike));
        }
        self.proceed(world, out);
    }

    /// The server has done what was to come before a command.
    pub(super) fn replay_made(&mut self, own: &Own) {
        let payload = own.reply.get(packet::HEADER_LEN..).unwrap_or_default();
        let Some(transcript) = self.transcript.as_mut() else { return };
        match own.step {
            Step::ReplayPrepare(number) => {
                if let Ok(ok) = reply::PrepareOk::parse(payload, self.login.capabilities) {
                    transcript.was_prepared(number, ok.id);
                }
            }
            Step::ReplayNumber(_) => transcript.was_numbered(),
            _ => {}
        }
    }

    /// The server has refused what was to come before a command.
    pub(super) fn replay_refused(&mut self, world: &mut World<'_>, step: &Step, out: &mut Outbox) {
        match (step, self.transcript.as_mut()) {
            // The answer to the command itself will tell.
            (Step::ReplayNumber(_), Some(transcript)) => transcript.was_numbered(),
            _ => return self.replay_differs(world, out),
        }
        self.proceed(world, out);
    }

    /// Another server has answered otherwise: what the client was told before is not so there.
    pub(super) fn replay_differs(&mut self, world: &World<'_>, out: &mut Outbox) {
        let node = self.link(Held::Primary).map(|link| link.facts.node);
        let server = node.map_or_else(String::new, |node| self.name_of(world, node));
        let failure =
            self.transaction_given_up(server, |server| Failure::TransactionDiffers { server });
        // It has done something there, which ends with the link.
        self.drop_link(Held::Primary, out);
        out.requests.push(Request::Replayed(Replay::Differed));
        self.fail(world, &failure, 1, out);
    }

    /// The transaction is not done again: why, if it had begun. One that was still to begin would
    /// begin without its characteristics.
    fn transaction_given_up(
        &mut self,
        server: String,
        why: impl FnOnce(String) -> Failure,
    ) -> Failure {
        let begun = self.has_begun_transcript();
        self.transaction_gone();
        match begun {
            true => why(server),
            false => Failure::StateLost { server, pins: Pins::only(Pin::NextTransaction) },
        }
    }

    /// Whether the transcript is of a transaction that has begun.
    fn has_begun_transcript(&self) -> bool {
        self.transcript.as_ref().is_some_and(|transcript| transcript.is_begun())
    }
}

/// Whether the statement does nothing but say how the next transaction is to be.
fn only_sets_next_transaction(class: &Class) -> bool {
    class.verb == Verb::Set && class.effects.any(Effects::NEXT_TRANSACTION) && !class.multi
}

/// Whether the statement ends the transaction that is open.
fn ends(class: &Class) -> bool {
    matches!(class.verb, Verb::Commit | Verb::Rollback) && !class.multi
}
