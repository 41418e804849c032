//! The outcome of a commit whose answer was lost: a row of our own is written in the same
//! transaction, and whoever is the primary afterwards is asked for it.
//!
//! Each link has one row, under a random name that no other link has ever had. It is made when the
//! link is opened, so that a server on which it is missing is known not to have all that was
//! committed; each commit gives it the next number. A write outside of a transaction is given one
//! of ours, and its answer is kept until that is committed.
//!
//! The question writes, too: it waits for whoever still has the row, and where a replica must
//! acknowledge what is committed, its own answer proves that what it has found was acknowledged.

use crate::config::outcome::CommitOutcome;
use crate::protocol::flags::Status;
use crate::protocol::packet;
use crate::protocol::reply;
use crate::protocol::walker::Expect;
use crate::router::Verb;
use crate::router::policy::Held;
use crate::session::action::{Outbox, Request, Resolved, Trouble, World};
use crate::session::failure::Failure;
use crate::session::pending::Ask;
use crate::session::pin::Pin;
use crate::session::replay::UNREPEATABLE;
use crate::session::retry::{is_plain_commit, may_have_rolled_back, primary_gives_up};
use crate::session::step::Step;
use crate::session::{Exchange, Phase, Session};
use crate::topology::{Flavour, NodeId};

const TABLE: &str = CommitOutcome::TABLE;

/// No right to the table, or no table (1044, 1049, 1054, 1142, 1143, 1146): nothing was written.
const NOT_OURS: [u16; 6] = [1044, 1049, 1054, 1142, 1143, 1146];

/// What bears witness to the commits on a link: a row under a random name, which no other link has
/// ever had.
#[derive(Debug, Clone)]
pub struct Witness {
    name: u128,
    state: State,
    /// The number of the last commit that was answered.
    told: u64,
    /// The last number that was given.
    last: u64,
}

/// What there is of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is to be made.
    Wanted,
    /// It is there.
    Made,
    /// The server takes no writes now.
    Later,
    /// The account may not, or there is no table.
    Refused,
}

/// What makes the outcome of the pending request known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Guard {
    /// Nothing so far.
    #[default]
    None,
    /// A transaction of ours is open for it.
    Begun,
    /// The row was written in its transaction.
    Written(Written),
    /// It was answered, and our transaction around it is being ended.
    Ending(Written),
    /// The commit was sent, and its answer will not come.
    Lost(Written),
    /// It goes without.
    Impossible,
}

/// A number in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    node: NodeId,
    name: u128,
    number: u64,
    /// The row has it where the commit was not made.
    before: u64,
    /// The transaction is ours.
    wrapped: bool,
}

/// One of our own commands that see to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WitnessStep {
    /// Make the link's row.
    Enrol,
    /// Begin a transaction around the client's write.
    Begin,
    /// Write the next number into the row.
    Write,
    /// End the transaction around the client's write.
    Commit,
    /// The same, where the write has failed.
    Rollback,
    /// Ask another link's row what was committed there.
    Ask,
}

impl Session {
    fn guard(&self) -> Guard {
        self.pending.as_ref().map_or(Guard::None, |pending| pending.way.guard)
    }

    fn set_guard(&mut self, guard: Guard) {
        if let Some(pending) = self.pending.as_mut() {
            pending.way.guard = guard;
        }
    }

    // --- before a commit ---

    /// Sees to it that the link can ask a witness.
    pub(super) fn make_way_for_question(&mut self, slot: Held) {
        // Nothing of the session's must be in force: it may have switched autocommit off.
        let asks = slot == Held::Primary && self.asks_for_outcome();
        if asks && self.link(slot).is_some_and(|link| link.synced != 0) {
            self.make_foreign(slot);
        }
    }

    /// What is to be done on the link before it has anything of the session's.
    pub(super) fn first_witness_step(&self, slot: Held) -> Option<Step> {
        let link = self.link(slot).filter(|_| slot == Held::Primary)?;
        if self.asks_for_outcome() {
            return Some(Step::Witness(WitnessStep::Ask));
        }
        let tunnel = self.pending.as_ref().is_some_and(|pending| pending.ask == Ask::Tunnel);
        let fresh =
            link.synced == 0 && Status(link.facts.status).has(Status::AUTOCOMMIT) && !tunnel;
        let wanted = link.facts.witness.as_ref().is_some_and(|row| row.state == State::Wanted);
        (wanted && fresh).then_some(Step::Witness(WitnessStep::Enrol))
    }

    /// What is to be done directly before the pending request.
    pub(super) fn witness_step(&self, slot: Held) -> Option<Step> {
        let link = self.link(slot).filter(|_| slot == Held::Primary)?;
        link.facts.witness.as_ref().filter(|row| row.state == State::Made)?;
        let step = match self.guard() {
            Guard::None if self.is_commit_to_witness() => WitnessStep::Write,
            Guard::None if self.is_write_to_wrap() => WitnessStep::Begin,
            Guard::Begun => WitnessStep::Write,
            Guard::None
            | Guard::Written(_)
            | Guard::Ending(_)
            | Guard::Lost(_)
            | Guard::Impossible => return None,
        };
        Some(Step::Witness(step))
    }

    fn is_commit_to_witness(&self) -> bool {
        let Some(pending) = self.pending.as_ref() else { return false };
        let runs = matches!(pending.ask, Ask::Query | Ask::Execute { .. });
        runs && is_plain_commit(&pending.class)
            && !self.chains_transactions()
            && !self.releases()
            && self.transaction == Some(Held::Primary)
            && self.has_written
            && !self.doubtful
            && self.binding_pins().is_empty()
    }

    /// A write that is a transaction by itself, and answers with nothing but an OK.
    fn is_write_to_wrap(&self) -> bool {
        let Some(pending) = self.pending.as_ref() else { return false };
        let whole = match pending.ask {
            Ask::Query => pending.way.body.is_none(),
            Ask::Execute { id } => {
                let ahead = |at: &crate::session::statements::Statement| !at.long_data.is_empty();
                pending.expect == Expect::Execute && !self.statements.get(id).is_some_and(ahead)
            }
            _ => false,
        };
        let class = &pending.class;
        let writes =
            matches!(class.verb, Verb::Insert | Verb::Update | Verb::Delete | Verb::Replace);
        whole
            && writes
            && !class.multi
            && !class.effects.any(UNREPEATABLE)
            && self.transaction.is_none()
            && self.state.status.has(Status::AUTOCOMMIT)
            && !self.doubtful
            && self.binding_pins().is_empty()
            && memchr::memmem::find(&self.lower_text(), b"returning").is_none()
    }

    /// The text of one of these steps.
    pub(super) fn witness_text(&self, step: WitnessStep) -> Vec<u8> {
        let Some(link) = self.link(Held::Primary) else { return Vec::new() };
        let Some(row) = link.facts.witness.as_deref() else { return Vec::new() };
        let write = |number: u64| {
            let name = row.name;
            format!(
                "INSERT INTO {TABLE} (link, number) VALUES (x'{name:032x}', {number}) \
                 ON DUPLICATE KEY UPDATE number = {number}"
            )
        };
        let text = match step {
            WitnessStep::Enrol => write(0),
            WitnessStep::Write => write(row.last.saturating_add(1)),
            WitnessStep::Begin => "START TRANSACTION".to_owned(),
            // Whatever completion_type says.
            WitnessStep::Commit => "COMMIT AND NO CHAIN NO RELEASE".to_owned(),
            WitnessStep::Rollback => "ROLLBACK AND NO CHAIN NO RELEASE".to_owned(),
            WitnessStep::Ask => match self.guard() {
                Guard::Lost(Written { name, .. }) => format!(
                    "UPDATE {TABLE} SET number = LAST_INSERT_ID(number), asked = asked + 1 \
                     WHERE link = x'{name:032x}'"
                ),
                _ => String::new(),
            },
        };
        text.into_bytes()
    }

    // --- a write in a transaction of ours ---

    /// Whether the pending request runs in a transaction of which the client knows nothing.
    pub(super) fn is_wrapped(&self) -> bool {
        matches!(self.guard(), Guard::Written(Written { wrapped: true, .. }))
    }

    /// The flags as they would be without that transaction.
    pub(super) fn without_wrapping(&self, status: Status) -> Status {
        match self.exchange() {
            Some(exchange) if exchange.wrapped => status.without(Status::IN_TRANS),
            _ => status,
        }
    }

    /// Takes back what was to be told of such a request: it is not committed yet.
    pub(super) fn keep_answer(&mut self, told: usize, out: &mut Outbox) {
        if self.exchange().is_some_and(|exchange| exchange.wrapped)
            && let Some(pending) = self.pending.as_mut()
            && told < out.client.len()
        {
            pending.way.kept = out.client.split_off(told);
        }
    }

    /// A request in a transaction of ours was answered.
    pub(super) fn end_wrapping(
        &mut self,
        world: &World<'_>,
        exchange: &Exchange,
        out: &mut Outbox,
    ) {
        let Guard::Written(written) = self.guard() else { return };
        self.set_guard(Guard::Ending(written));
        self.carried.rows_are_as_told();
        let failed = exchange.error != 0;
        // MySQL empties the list with the end of a transaction, MariaDB does not.
        let listed = failed || self.is_listed_on(Held::Primary);
        self.last_lost |= listed && self.state.dialect.flavour == Flavour::MySql;
        let step = if failed { WitnessStep::Rollback } else { WitnessStep::Commit };
        self.start_own(world, Held::Primary, Step::Witness(step), out);
    }

    /// The client gets the answer that was kept for it.
    fn tell_kept(&mut self, world: &World<'_>, out: &mut Outbox) {
        let Some(pending) = self.pending.as_mut() else { return };
        let kept = std::mem::take(&mut pending.way.kept);
        pending.way.guard = Guard::None;
        let payload = kept.get(packet::HEADER_LEN..).unwrap_or_default();
        let error = if payload.first() == Some(&0xFF) { reply::Err::code_of(payload) } else { 0 };
        out.client.extend_from_slice(&kept);
        let node = self.link(Held::Primary).map(|link| link.facts.node);
        self.record(world, node, error, out);
        self.enter(Phase::Idle, world.now);
    }

    // --- answers to our own commands ---

    /// The server has done one of these steps.
    pub(super) fn witness_step_done(
        &mut self,
        world: &mut World<'_>,
        step: WitnessStep,
        answer: &[u8],
        out: &mut Outbox,
    ) {
        match step {
            WitnessStep::Enrol => {
                if let Some(row) = self.row() {
                    *row = Witness { state: State::Made, ..Witness::named(row.name) };
                }
            }
            WitnessStep::Begin => self.set_guard(Guard::Begun),
            WitnessStep::Write => self.row_written(),
            WitnessStep::Commit => {
                self.wrapping_committed(answer, out);
                return self.tell_kept(world, out);
            }
            WitnessStep::Rollback => return self.tell_kept(world, out),
            WitnessStep::Ask => return self.outcome_told(world, answer, out),
        }
        self.proceed(world, out);
    }

    fn row_written(&mut self) {
        let wrapped = self.guard() == Guard::Begun;
        let Some(link) = self.link_mut(Held::Primary) else { return };
        let node = link.facts.node;
        let Some(row) = link.facts.witness.as_mut() else { return };
        row.last = row.last.saturating_add(1);
        let (name, number, before) = (row.name, row.last, row.told);
        self.set_guard(Guard::Written(Written { node, name, number, before, wrapped }));
    }

    /// The row of the primary's link.
    fn row(&mut self) -> Option<&mut Witness> {
        self.link_mut(Held::Primary)?.facts.witness.as_deref_mut()
    }

    fn wrapping_committed(&mut self, answer: &[u8], out: &mut Outbox) {
        let Guard::Ending(written) = self.guard() else { return };
        self.was_committed(written);
        let caps = self.link(Held::Primary).map(|link| link.facts.capabilities);
        let payload = answer.get(packet::HEADER_LEN..).unwrap_or_default();
        if let Some(Ok(ok)) = caps.map(|caps| reply::Ok::parse(payload, caps)) {
            // Its position.
            if !self.learn_changes(ok.tracks, Held::Primary, out) {
                self.pins.add(Pin::OpaqueState);
            }
        }
    }

    fn was_committed(&mut self, written: Written) {
        if let Some(row) = self.row() {
            row.told = written.number;
        }
    }

    /// The client's own COMMIT was answered.
    pub(super) fn note_commit(&mut self, exchange: &Exchange) {
        if let Guard::Written(written) = self.guard()
            && !written.wrapped
            && exchange.error == 0
        {
            self.was_committed(written);
        }
    }

    /// The server has refused one of these steps.
    pub(super) fn witness_step_refused(
        &mut self,
        world: &mut World<'_>,
        step: WitnessStep,
        error: &[u8],
        out: &mut Outbox,
    ) {
        let code = reply::Err::code_of(error);
        let kept = world.group.failover.mode.keeps();
        let closed = primary_gives_up(code, reply::Err::message_of(error), kept);
        match step {
            WitnessStep::Enrol => {
                if let Some(row) = self.row() {
                    row.state = if closed { State::Later } else { State::Refused };
                }
                if let Some(link) = self.link(Held::Primary).filter(|_| !closed) {
                    out.requests.push(Request::Unwitnessed(link.facts.node, code));
                }
            }
            WitnessStep::Begin => self.set_guard(Guard::Impossible),
            WitnessStep::Write => return self.row_refused(world, error, out),
            WitnessStep::Commit if closed => {
                // Nothing was done: it waits for the next primary, as if it had not been sent.
                if let Some(link) = self.link(Held::Primary) {
                    out.requests.push(Request::Signal(link.facts.node, Trouble::ReadOnly));
                }
                self.begin_again(world, error, out);
            }
            WitnessStep::Commit => {
                self.drop_link(Held::Primary, out);
                if let Some(pending) = self.pending.as_mut() {
                    pending.way.kept.clear();
                    packet::write(&mut pending.way.kept, 1, error);
                }
                return self.tell_kept(world, out);
            }
            WitnessStep::Rollback => {
                self.drop_link(Held::Primary, out);
                return self.tell_kept(world, out);
            }
            WitnessStep::Ask => return self.outcome_unknown(world, out),
        }
        self.proceed(world, out);
    }

    /// The pending request is sent anew, on another link: what was done of it is undone there.
    fn begin_again(&mut self, world: &World<'_>, refusal: &[u8], out: &mut Outbox) {
        self.drop_link(Held::Primary, out);
        if let Some(pending) = self.pending.as_mut() {
            pending.way.refusal = Some((refusal.to_vec(), world.topology.generation));
            pending.way.decision = None;
            pending.way.kept.clear();
        }
    }

    /// The row cannot be written in the transaction.
    fn row_refused(&mut self, world: &mut World<'_>, error: &[u8], out: &mut Outbox) {
        let code = reply::Err::code_of(error);
        let node = self.link(Held::Primary).map(|link| link.facts.node);
        let kept = world.group.failover.mode.keeps();
        let closed = primary_gives_up(code, reply::Err::message_of(error), kept);
        if let Some(node) = node
            && closed
            && self.guard() != Guard::Begun
            && self.leave_closed_primary(world, node, error, out)
        {
            return;
        }
        if closed && self.guard() == Guard::Begun {
            self.begin_again(world, error, out);
            return self.proceed(world, out);
        }
        let not_ours = NOT_OURS.contains(&code);
        if not_ours && let Some(row) = self.row() {
            row.state = State::Refused;
        }
        if self.guard() == Guard::Begun {
            self.drop_link(Held::Primary, out);
        } else if !not_ours && may_have_rolled_back(code) {
            // The transaction may be gone with it: that is how the COMMIT has failed.
            self.doubtful = true;
            packet::write(&mut out.client, 1, error);
            return self.finished_here(world, code, out);
        }
        self.set_guard(Guard::Impossible);
        self.proceed(world, out);
    }

    // --- when the answer is lost ---

    /// The commit that is under way on this link.
    pub(super) fn commit_under_way(&self, slot: Held) -> Option<Written> {
        match (&self.phase, self.guard()) {
            (Phase::Exchanging(exchange), Guard::Written(written))
                if exchange.slot == slot && !written.wrapped =>
            {
                Some(written)
            }
            (Phase::Own(own), Guard::Ending(written))
                if own.slot == slot && own.step == Step::Witness(WitnessStep::Commit) =>
            {
                Some(written)
            }
            _ => None,
        }
    }

    /// The link is gone with whatever was open on it.
    pub(super) fn witness_gone(&mut self) {
        if matches!(self.guard(), Guard::Begun | Guard::Written(_) | Guard::Ending(_)) {
            self.set_guard(Guard::None);
        }
    }

    /// The answer to a commit was lost: the next primary is asked.
    pub(super) fn commit_lost(&mut self, written: Written) {
        self.set_guard(Guard::Lost(written));
    }

    /// Whether it must be found out first whether the pending request was committed.
    pub(super) fn asks_for_outcome(&self) -> bool {
        matches!(self.guard(), Guard::Lost(_))
    }

    /// What the client is told while that is not known.
    pub(super) fn unknown(&self, world: &World<'_>) -> Option<Failure> {
        let Guard::Lost(written) = self.guard() else { return None };
        Some(Failure::OutcomeUnknown { server: self.name_of(world, written.node) })
    }

    pub(super) fn outcome_unknown(&mut self, world: &World<'_>, out: &mut Outbox) {
        if let Some(failure) = self.unknown(world) {
            self.fail(world, &failure, 1, out);
        }
    }

    /// The row tells which commit was the last one. On another server than the one that was asked
    /// to commit, what is missing proves something only where whoever has promoted it waits until
    /// it has applied all that it has received.
    fn outcome_told(&mut self, world: &mut World<'_>, answer: &[u8], out: &mut Outbox) {
        let Guard::Lost(written) = self.guard() else { return };
        let Some(link) = self.link_mut(Held::Primary) else { return };
        let (node, caps) = (link.facts.node, link.facts.capabilities);
        let payload = answer.get(packet::HEADER_LEN..).unwrap_or_default();
        let Ok(ok) = reply::Ok::parse(payload, caps) else {
            return self.outcome_unknown(world, out);
        };
        link.insert_id = ok.insert_id;
        let all_is_there = node == written.node || world.group.failover.mode.keeps();
        match (ok.affected, ok.insert_id) {
            (1, number) if number == written.number => self.found_committed(world, written, out),
            (1, number) if number == written.before && all_is_there => {
                self.found_rolled_back(world, written, out);
            }
            _ => self.outcome_unknown(world, out),
        }
    }

    fn found_committed(&mut self, world: &World<'_>, written: Written, out: &mut Outbox) {
        out.requests.push(Request::Resolved(Resolved::Committed));
        // Its position was in the answer.
        self.floor = Some(world.now);
        self.outdate_replica();
        self.set_guard(Guard::None);
        if written.wrapped {
            return self.tell_kept(world, out);
        }
        self.transaction_gone();
        self.ended_here(world, self.releases(), out);
    }

    fn found_rolled_back(&mut self, world: &mut World<'_>, written: Written, out: &mut Outbox) {
        out.requests.push(Request::Resolved(Resolved::RolledBack));
        self.set_guard(Guard::None);
        let again = self.pending.as_mut().is_some_and(|pending| {
            pending.way.decision = None;
            pending.way.kept.clear();
            !std::mem::replace(&mut pending.way.repeated, true)
        });
        if (written.wrapped && again) || self.is_suspended() {
            return self.proceed(world, out);
        }
        self.transaction_gone();
        let server = self.name_of(world, written.node);
        self.fail(world, &Failure::TransactionLost { server }, 1, out);
    }
}

impl Witness {
    /// The row of a link that was just opened; it is still to be made.
    #[must_use]
    pub fn named(name: u128) -> Self {
        Self { name, state: State::Wanted, told: 0, last: 0 }
    }

    /// The link changes hands: what the server did not take then, it may take now.
    pub(super) fn hope_again(&mut self) {
        if self.state == State::Later {
            self.state = State::Wanted;
        }
    }
}
