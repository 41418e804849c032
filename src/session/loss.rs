//! A link is gone, or could not be opened: who must be told, and who need not notice.

use crate::protocol::flags::Status;
use crate::protocol::packet;
use crate::protocol::reply;
use crate::router::Kind;
use crate::router::policy::Held;
use crate::session::action::{NoLink, Outbox, Request, Retry, Trouble, World, index};
use crate::session::failure::Failure;
use crate::session::links::Link;
use crate::session::pending::{Ask, Pending};
use crate::session::pin::{Pin, Pins};
use crate::session::retry::{Progress, Verdict, after_link_loss, is_plain_commit};
use crate::session::{Phase, Session};
use crate::topology::NodeId;

/// MariaDB's bounds of the time that a transaction may be idle; it closes the connection then.
const IDLE_TRANSACTIONS: [&[u8]; 3] = [
    b"idle_transaction_timeout",
    b"idle_write_transaction_timeout",
    b"idle_readonly_transaction_timeout",
];

impl Session {
    /// A link broke, or its server said goodbye.
    pub(super) fn link_lost(&mut self, world: &mut World<'_>, slot: Held, out: &mut Outbox) {
        let Some(link) = self.links[index(slot)].take() else { return };
        if self.doomed {
            // By the KILL that the client is about to feel itself.
            return self.close(world.now, out);
        }
        let node = link.facts.node;
        let server = self.name_of(world, node);
        let cursor = self.statements.cursor_on(slot);
        let bounded = self.bounds_idle_transactions();
        let survives = self.can_be_repeated(slot) && !bounded;
        let asked = survives.then(|| self.asked_of_link());
        let witnessed = self.commit_under_way(slot);
        self.link_forgotten(slot, &link);
        if let Some(witnessed) = witnessed {
            self.commit_lost(witnessed);
        }
        if let Some(asked) = asked {
            self.suspend(asked);
        }
        let in_transaction = self.transaction == Some(slot);
        let mut pins = if slot == Held::Primary { self.binding_pins() } else { Default::default() };
        if cursor {
            pins.add(Pin::Cursor);
        }
        match &self.phase {
            Phase::Closed => {}
            Phase::Tunnel => self.close(world.now, out),
            // What the server has done to its session is done to the client.
            Phase::Idle if in_transaction && bounded => {
                self.close(world.now, out);
            }
            Phase::Idle | Phase::Dialing | Phase::Holding | Phase::ChangingUser => {
                self.remember_loss(in_transaction, pins, server);
                if self.pending.is_some()
                    && let Some(failure) = self.lost.take()
                {
                    self.fail(world, &failure, 1, out);
                }
            }
            Phase::Own(own) if own.slot == slot => {
                out.requests.push(Request::Signal(node, Trouble::LinkLost));
                self.own_link_lost(world, &link, in_transaction, pins, out);
            }
            Phase::Exchanging(exchange) | Phase::Uploading(exchange, _)
                if exchange.slot == slot =>
            {
                out.requests.push(Request::Signal(node, Trouble::LinkLost));
                self.request_lost(world, node, in_transaction, pins, out);
            }
            Phase::Own(_) | Phase::Exchanging(_) | Phase::Uploading(..) => {
                self.remember_loss(in_transaction, pins, server);
            }
        }
    }

    /// Nothing that comes on the link can be believed any more, or its server has said goodbye: as
    /// if it had broken.
    pub(super) fn give_up_link(&mut self, world: &mut World<'_>, slot: Held, out: &mut Outbox) {
        out.requests.push(Request::Drop(slot));
        self.link_lost(world, slot, out);
    }

    /// Whether the client wants its connection to be closed when a transaction is idle for long.
    fn bounds_idle_transactions(&self) -> bool {
        let mut bounds = IDLE_TRANSACTIONS.iter().filter_map(|name| self.state.variable(name));
        bounds.any(|bound| bound != b"0")
    }

    /// The client has asked that each transaction begins where another ends.
    pub(super) fn chains_transactions(&self) -> bool {
        self.completes_with(b"1", b"CHAIN")
    }

    /// What the client has said of the ends of its transactions, by number or word.
    pub(super) fn completes_with(&self, number: &[u8], word: &[u8]) -> bool {
        let kind = self.state.variable(b"completion_type");
        kind.is_some_and(|kind| kind == number || kind.eq_ignore_ascii_case(word))
    }

    /// No transaction is open any more, and the client's next OK says so.
    pub(super) fn transaction_gone(&mut self) {
        self.transaction = None;
        self.transcript = None;
        let open = Status::IN_TRANS.with(Status::IN_TRANS_READONLY);
        self.state.status = self.state.status.without(open);
    }

    /// The client is told at its next command; a session that held nothing there, never.
    fn remember_loss(&mut self, in_transaction: bool, pins: Pins, server: String) {
        if in_transaction {
            self.transaction_gone();
        }
        if !pins.is_empty() {
            self.lost = Some(Failure::StateLost { server, pins });
        } else if in_transaction {
            self.lost = Some(Failure::TransactionLost { server });
        }
    }

    /// The link broke while we prepared it: nothing of the client's had been sent.
    fn own_link_lost(
        &mut self,
        world: &mut World<'_>,
        link: &Link,
        in_transaction: bool,
        pins: Pins,
        out: &mut Outbox,
    ) {
        self.phase = Phase::Idle;
        let server = self.name_of(world, link.facts.node);
        self.remember_loss(in_transaction, pins, server);
        if let Some(failure) = self.lost.take() {
            return self.fail(world, &failure, 1, out);
        }
        let primary = world.topology.primary == Some(link.facts.node);
        match self.pending.as_mut() {
            Some(pending) if primary && pending.way.relinked => {
                // It takes links and breaks them: not at once again.
                pending.way.decision = None;
                self.wait_to_redial(world, None, out);
            }
            Some(pending) => {
                pending.way.relinked |= primary;
                self.again(world, link.facts.node, out);
            }
            None => {}
        }
    }

    /// Sends the pending request elsewhere.
    fn again(&mut self, world: &mut World<'_>, node: NodeId, out: &mut Outbox) {
        let on_replica = self.on_replica();
        if let Some(pending) = self.pending.as_mut() {
            if on_replica {
                pending.way.avoid |= node.bit();
            }
            pending.way.decision = None;
        }
        self.phase = Phase::Idle;
        self.proceed(world, out);
    }

    /// The link broke with the client's request on it.
    fn request_lost(
        &mut self,
        world: &mut World<'_>,
        node: NodeId,
        in_transaction: bool,
        pins: Pins,
        out: &mut Outbox,
    ) {
        let forwarded = self.exchange_forwarded();
        let resumable = self.seq_for_error();
        let was_in_transaction =
            self.exchange().map_or(in_transaction, |exchange| exchange.in_transaction);
        let server = self.name_of(world, node);
        let Some(pending) = self.pending.as_ref() else { return };
        let streamed = self.is_streamed();
        let progress = if forwarded { Progress::Answering } else { Progress::Sent };
        let verdict = verdict_on(pending, progress, was_in_transaction);
        let verdict = self.amended(verdict, streamed, pins);
        if in_transaction {
            self.transaction_gone();
        }
        match verdict {
            verdict if !streamed && self.can_be_found_out(verdict) => {
                self.again(world, node, out);
            }
            Verdict::Again => {
                if let Some(pending) = self.pending.as_mut() {
                    pending.way.repeated = true;
                }
                out.requests.push(Request::Retried(Retry::LinkLost));
                self.again(world, node, out);
            }
            Verdict::TransactionLost => {
                self.phase = Phase::Idle;
                self.transaction_gone();
                let failure = Failure::TransactionLost { server: server.clone() };
                self.fail(world, &or_state_lost(failure, server, pins), 1, out);
            }
            Verdict::DoneByItself => {
                self.phase = Phase::Idle;
                self.transaction_gone();
                self.ended_here(world, self.releases(), out);
            }
            Verdict::OutcomeUnknown => {
                self.fail(world, &Failure::OutcomeUnknown { server }, 1, out);
            }
            Verdict::AnswerCut if forwarded => match resumable {
                Some(seq) => self.fail(world, &Failure::AnswerCut { server }, seq, out),
                // In the middle of a packet, a close is the only message that cannot be
                // misread.
                None => self.close(world.now, out),
            },
            Verdict::AnswerCut => {
                let failure = Failure::AnswerCut { server: server.clone() };
                self.fail(world, &or_state_lost(failure, server, pins), 1, out);
            }
        }
        if streamed {
            // What is still to come of the command or the file must not be read as commands.
            self.close(world.now, out);
        }
    }

    /// Whether parts of the pending request, or of the client's file, are not kept here.
    pub(super) fn is_streamed(&self) -> bool {
        let has_body = self.pending.as_ref().is_some_and(|pending| pending.way.body.is_some());
        has_body || matches!(self.phase, Phase::Uploading(..))
    }

    /// What the class of a request does not tell of its being lost.
    fn amended(&self, verdict: Verdict, streamed: bool, pins: Pins) -> Verdict {
        let reads = self.pending.as_ref().is_some_and(|pending| pending.class.kind == Kind::Read);
        let repeated = self.pending.as_ref().is_some_and(|pending| pending.way.repeated);
        // A write in a transaction of ours, of which the end was not sent.
        let undone = self.exchange().is_some_and(|exchange| exchange.wrapped);
        match verdict {
            Verdict::OutcomeUnknown if pins.is_empty() && self.commits_nothing() => {
                Verdict::DoneByItself
            }
            Verdict::OutcomeUnknown if undone && repeated => Verdict::TransactionLost,
            Verdict::OutcomeUnknown if undone => Verdict::Again,
            // The transaction may have been rolled back before, and this have run by itself.
            Verdict::TransactionLost if self.doubtful && !reads => Verdict::OutcomeUnknown,
            // Or be open still.
            Verdict::Again if self.doubtful && !reads => Verdict::OutcomeUnknown,
            Verdict::Again if !pins.is_empty() => Verdict::AnswerCut,
            Verdict::Again if streamed => Verdict::OutcomeUnknown,
            Verdict::DoneByItself if self.chains_transactions() => Verdict::TransactionLost,
            verdict => verdict,
        }
    }

    /// The end of a read-only transaction: there is nothing of which it could be unknown.
    fn commits_nothing(&self) -> bool {
        let Some(class) = self.pending.as_ref().map(|pending| pending.class) else { return false };
        self.state.status.has(Status::IN_TRANS_READONLY)
            && is_plain_commit(&class)
            && !self.chains_transactions()
    }

    /// Whether the next primary tells what becomes of the request: the transaction around it is
    /// done again there, or it is asked whether it was committed.
    fn can_be_found_out(&self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::TransactionLost => self.is_suspended(),
            Verdict::OutcomeUnknown => self.asks_for_outcome(),
            Verdict::Again | Verdict::DoneByItself | Verdict::AnswerCut => false,
        }
    }

    /// The sequence number of an error in the middle of a reply, where one can stand.
    fn seq_for_error(&self) -> Option<u8> {
        let Phase::Exchanging(exchange) = &self.phase else { return None };
        exchange.walker.next_seq().filter(|_| exchange.walker.is_between_packets())
    }

    /// A link could not be opened.
    pub(super) fn dial_failed(
        &mut self,
        world: &mut World<'_>,
        slot: Held,
        node: NodeId,
        refusal: Option<Vec<u8>>,
        out: &mut Outbox,
    ) {
        let code = refusal.as_deref().map(reply::Err::code_of);
        let overload = matches!(code, Some(1040 | 1203 | 1226));
        if code.is_none() {
            out.requests.push(Request::Signal(node, Trouble::DialFailed));
        } else if overload {
            out.requests.push(Request::Signal(node, Trouble::Overload));
        }
        self.phase = Phase::Idle;
        if slot == Held::Replica {
            return self.again(world, node, out);
        }
        match refusal {
            Some(_) if self.asks_for_outcome() && !overload => self.outcome_unknown(world, out),
            Some(error) if !overload => {
                // The server's own verdict on this account: as on a direct connection.
                packet::write(&mut out.client, 1, &error);
                self.finished_here(world, code.unwrap_or(0), out);
                self.close(world.now, out);
            }
            Some(_) | None => self.wait_to_redial(world, refusal, out),
        }
    }

    /// No link could be had, and not by the server's doing.
    pub(super) fn no_link(
        &mut self,
        world: &mut World<'_>,
        slot: Held,
        node: NodeId,
        why: NoLink,
        out: &mut Outbox,
    ) {
        self.phase = Phase::Idle;
        match (why, slot) {
            (NoLink::Full(_), Held::Replica) => self.again(world, node, out),
            (NoLink::Full(limit), Held::Primary) => {
                let server = self.name_of(world, node);
                self.fail(world, &Failure::NoLink { server, limit }, 1, out);
            }
            (NoLink::Called, _) => self.release(world, out),
            (NoLink::Moved, _) => {
                if let Some(pending) = self.pending.as_mut() {
                    pending.way.decision = None;
                }
                self.proceed(world, out);
            }
        }
    }

    /// The primary is there by all accounts but takes no link now: try again shortly, until
    /// the hold runs out.
    fn wait_to_redial(
        &mut self,
        world: &mut World<'_>,
        refusal: Option<Vec<u8>>,
        out: &mut Outbox,
    ) {
        let Some(pending) = self.pending.as_mut() else { return };
        let until = *pending.way.hold_until.get_or_insert(world.now + world.group.hold);
        if world.now >= until {
            if self.asks_for_outcome() {
                return self.outcome_unknown(world, out);
            }
            if let Some(error) = refusal {
                packet::write(&mut out.client, 1, &error);
                return self.finished_here(world, 1040, out);
            }
            let failure = Failure::NoPrimary {
                generation: world.topology.generation,
                why: "the primary takes no connection".to_owned(),
            };
            return self.fail(world, &failure, 1, out);
        }
        self.redial_at = Some((world.now + REDIAL).min(until));
        self.enter(Phase::Holding, world.now);
    }
}

/// What went down with the link is worse than what became of the request.
fn or_state_lost(failure: Failure, server: String, pins: Pins) -> Failure {
    if pins.is_empty() { failure } else { Failure::StateLost { server, pins } }
}

/// What becomes of a request whose link broke. Commands without text that change nothing but
/// the session are sent again once.
fn verdict_on(pending: &Pending, progress: Progress, in_transaction: bool) -> Verdict {
    let preparing = matches!(
        pending.ask,
        Ask::Prepare { .. } | Ask::InitDb(_) | Ask::Ping | Ask::ResetConnection
    );
    if preparing && progress == Progress::Sent && !in_transaction && !pending.way.repeated {
        return Verdict::Again;
    }
    after_link_loss(&pending.class, progress, in_transaction, pending.way.repeated)
}

/// Between two attempts to reach a primary that takes no link.
const REDIAL: std::time::Duration = std::time::Duration::from_millis(200);
