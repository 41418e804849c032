//! From a pending request to a link that is ready for it: decide, open, synchronise, send.

use std::time::Duration;

use crate::config::Consistency;
use crate::protocol::execute;
use crate::protocol::walker::ReplyWalker;
use crate::protocol::{packet, reply};
use crate::router::policy::{self, Decision, Freshness, Held, Target, View};
use crate::router::{Class, Effects, Kind, Reason, Verb, rewrite};
use crate::session::action::{Outbox, Request, World, index};
use crate::session::failure::Failure;
use crate::session::pending::Ask;
use crate::session::pin::Pin;
use crate::session::statements::OnLink;
use crate::session::step::Step;
use crate::session::{Exchange, Phase, Session};
use crate::topology::{Flavour, NodeId};

/// Most commands of our own for one of the client's: what needs more would need them for ever.
const STEPS_MAX: u16 = 250;

impl Session {
    /// Takes the pending request as far as it can go now.
    pub(super) fn proceed(&mut self, world: &mut World<'_>, out: &mut Outbox) {
        let Some(pending) = self.pending.as_ref() else { return };
        if pending.ask == Ask::ResetConnection && pending.way.decision.is_none() {
            return self.reset(world, out);
        }
        if pending.way.decision.is_none() {
            if self.asks_for_outcome() {
                self.fall_to_primary(Reason::Transaction);
            } else if self.is_suspended() && self.resume(world, out) {
                return;
            }
        }
        let Some(pending) = self.pending.as_ref() else { return };
        let nowhere = self.transaction.is_none() && self.link(Held::Primary).is_none();
        let known = !self.doubtful || nowhere;
        if pending.ask == Ask::Ping && known && world.topology.primary.is_some() {
            // What a ping asks: would a statement find its server now?
            match self.ping_is_answered_on() {
                Some(slot) => self.decide_held(slot, Reason::PreviousStatement),
                None => return self.agree(world, out),
            }
        }
        let Some(pending) = self.pending.as_ref() else { return };
        if (pending.class.kind == Kind::Last && self.last_lost)
            || self.found_is_lost()
            || self.counts_are_out_of_reach()
        {
            return self.fail(world, &Failure::DiagnosticsLost, 1, out);
        }
        let decision = match pending.way.decision {
            Some(decision) => decision,
            None => self.decide(world),
        };
        let held = match decision.target {
            Target::Held(slot) => Some(slot),
            Target::Primary => Some(Held::Primary),
            Target::Replica { .. } => None,
        };
        if let Some(slot) = held.filter(|slot| self.is_down(world, *slot)) {
            return self.leave_down_server(world, slot, out);
        }
        match decision.target {
            Target::Held(Held::Replica) => self.run_on(world, Held::Replica, out),
            Target::Held(Held::Primary) | Target::Primary => {
                if self.primary_ready(world, out) {
                    self.run_on(world, Held::Primary, out);
                }
            }
            Target::Replica { node, freshness } => self.run_on_replica(world, node, freshness, out),
        }
    }

    /// Decides where the pending request runs, and writes it down.
    fn decide(&mut self, world: &mut World<'_>) -> Decision {
        let fallback = Decision { target: Target::Primary, reason: Reason::Command };
        let Some(pending) = self.pending.as_ref() else { return fallback };
        let pin = if self.transaction == Some(Held::Replica) {
            Some(Held::Replica)
        } else if self.binding_pins().is_empty() {
            None
        } else {
            Some(Held::Primary)
        };
        let replica = self.reads_from();
        let current = replica.map(|reading| reading.node);
        let class = in_schema(pending.class, self.state.is_in_host_local_schema());
        let view = View {
            pin,
            in_transaction: self.transaction.is_some(),
            autocommit: self.state.status.has(crate::protocol::flags::Status::AUTOCOMMIT),
            serializable: pending.class.effects.any(Effects::BEGIN_READ_ONLY)
                && self.state.is_serializable(),
            last: self.asked_about(),
            replica: current,
            token: &self.state.token,
            floor: self.floor,
            caught_up: replica.filter(|reading| reading.caught_up).map(|reading| reading.node),
            user_vars_restorable: self.state.user_variables_restorable(),
            has_defined: self.has_defined,
            refused_before: world.refused.contains(pending.class.digest),
            avoid: pending.way.avoid,
            settings_changed: world.settings_changed,
            tables_locked: world.tables_locked,
        };
        if self.asks_the_replica() {
            let decision =
                Decision { target: Target::Held(Held::Replica), reason: Reason::PreviousStatement };
            self.write_down(decision);
            return decision;
        }
        let decision =
            policy::route(&class, &view, world.topology, world.group, world.loads, world.seed);
        let decision = self.amend(world, decision);
        self.write_down(decision);
        decision
    }

    /// What the policy cannot see: servers that have failed this very request, a cursor that
    /// keeps the replica's link, reads that a move would leave behind.
    fn amend(&mut self, world: &World<'_>, decision: Decision) -> Decision {
        let Target::Replica { node, freshness } = decision.target else { return decision };
        if self.opens_away_from_list() {
            return Decision { target: Target::Primary, reason: Reason::PreviousStatement };
        }
        if freshness == Freshness::AskThenWait && self.is_only_prepared() {
            // The question would be the previous statement, of which the client may still ask.
            return Decision { target: Target::Primary, reason: Reason::NotCaughtUp };
        }
        let session_mode = world.group.consistency == Consistency::Session;
        let Some(reading) = self.reads_from() else { return self.settle(world, decision) };
        if reading.node == node {
            return self.settle(world, decision);
        }
        if self.statements.any_cursor() {
            return Decision { target: Target::Primary, reason: Reason::Pinned };
        }
        if session_mode && reading.read_at.is_some() && freshness != Freshness::AskThenWait {
            // Reads never go back in time: the next server must have what this one showed.
            self.floor = self.floor.max(reading.read_at);
            let target = Target::Replica { node, freshness: Freshness::AskThenWait };
            return Decision { target, reason: decision.reason };
        }
        decision
    }

    pub(super) fn is_only_prepared(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| matches!(pending.ask, Ask::Prepare { .. }))
    }

    /// Takes over what the policy has concluded from published positions.
    fn settle(&mut self, world: &World<'_>, decision: Decision) -> Decision {
        let Target::Replica { freshness, .. } = decision.target else { return decision };
        if world.group.consistency != Consistency::Session || freshness == Freshness::AskThenWait {
            return decision;
        }
        if let (Some(floor), Some(primary)) = (self.floor, world.topology.last_primary())
            && primary.is_observed_since(floor)
        {
            self.state.token.union(&primary.applied);
            self.floor = None;
        }
        decision
    }

    fn write_down(&mut self, decision: Decision) {
        if let Some(pending) = self.pending.as_mut() {
            pending.way.decision = Some(decision);
        }
    }

    /// Fixes the pending request to a link that the session has.
    pub(super) fn decide_held(&mut self, slot: Held, reason: Reason) {
        self.write_down(Decision { target: Target::Held(slot), reason });
    }

    /// Sends the pending request to the primary after all, for this reason.
    pub(super) fn fall_to_primary(&mut self, reason: Reason) {
        self.write_down(Decision { target: Target::Primary, reason });
    }

    /// Whether the primary's link is there and still the primary's; if not, sees to it.
    fn primary_ready(&mut self, world: &mut World<'_>, out: &mut Outbox) -> bool {
        let bound = self.transaction == Some(Held::Primary) || !self.binding_pins().is_empty();
        let linked = self.link(Held::Primary).map(|link| link.facts.node);
        let Some(primary) = world.topology.primary else {
            if bound && linked.is_some() {
                // The link itself will tell: it is the session's own, and not contradicted.
                return true;
            }
            self.hold(world, out);
            return false;
        };
        let refused_here = self.pending.as_ref().is_some_and(|pending| {
            let stale = |(_, generation): &(Vec<u8>, u64)| *generation == world.topology.generation;
            pending.way.refusal.as_ref().is_some_and(stale)
        });
        match linked {
            Some(node) if node == primary && !refused_here => true,
            Some(node) if node == primary => {
                self.hold(world, out);
                false
            }
            Some(node) if bound => {
                self.bound_to_former_primary(world, node, out);
                false
            }
            Some(_) => {
                self.drop_link(Held::Primary, out);
                self.dial(world, Held::Primary, primary, out);
                false
            }
            None if refused_here => {
                self.hold(world, out);
                false
            }
            None => {
                self.dial(world, Held::Primary, primary, out);
                false
            }
        }
    }

    /// The session holds something on a server that is not the primary any more.
    fn bound_to_former_primary(&mut self, world: &mut World<'_>, node: NodeId, out: &mut Outbox) {
        let server = self.name_of(world, node);
        let pins = self.binding_pins();
        if self.leave_primary(out) {
            return self.proceed(world, out);
        }
        self.drop_link(Held::Primary, out);
        self.transaction_gone();
        let failure = if pins.is_empty() {
            Failure::TransactionLost { server }
        } else {
            Failure::StateLost { server, pins }
        };
        self.fail(world, &failure, 1, out);
    }

    fn run_on_replica(
        &mut self,
        world: &mut World<'_>,
        node: NodeId,
        freshness: Freshness,
        out: &mut Outbox,
    ) {
        let asked = self.pending.as_ref().is_some_and(|pending| pending.way.asked);
        if freshness == Freshness::AskThenWait && !asked {
            if self.primary_ready(world, out) {
                self.start_own(world, Held::Primary, Step::AskPosition, out);
            }
            return;
        }
        if self.link(Held::Replica).is_some_and(|link| link.facts.node != node) {
            self.drop_link(Held::Replica, out);
        }
        if self.link(Held::Replica).is_none() {
            return self.dial(world, Held::Replica, node, out);
        }
        let caught_up = self.link(Held::Replica).is_some_and(|link| link.caught_up);
        match freshness {
            Freshness::Known => {
                if world.group.consistency != Consistency::Eventual
                    && let Some(link) = self.link_mut(Held::Replica)
                {
                    link.caught_up = true;
                }
            }
            Freshness::Wait | Freshness::AskThenWait if !caught_up => {
                return self.start_own(world, Held::Replica, Step::Wait, out);
            }
            Freshness::Wait | Freshness::AskThenWait => {}
        }
        self.run_on(world, Held::Replica, out);
    }

    fn dial(&mut self, world: &World<'_>, slot: Held, node: NodeId, out: &mut Outbox) {
        let until = world.now + world.group.links.queue_timeout;
        let way = self.pending.as_mut().map(|pending| &mut pending.way);
        let fresh = way.as_ref().is_some_and(|way| way.repeated);
        let until = way.map_or(world.now, |way| *way.queue_until.get_or_insert(until));
        out.requests.push(Request::Dial { slot, node, until, fresh });
        self.enter(Phase::Dialing, world.now);
    }

    /// Waits for a primary, up to the group's `hold`.
    fn hold(&mut self, world: &World<'_>, out: &mut Outbox) {
        let Some(pending) = self.pending.as_mut() else { return };
        let until = *pending.way.hold_until.get_or_insert(world.now + world.group.hold);
        if world.now >= until {
            return self.hold_ran_out(world, out);
        }
        // Only a new topology helps now, not another attempt.
        self.redial_at = None;
        if !matches!(self.phase, Phase::Holding) {
            self.enter(Phase::Holding, world.now);
        }
    }

    fn hold_ran_out(&mut self, world: &World<'_>, out: &mut Outbox) {
        out.requests.push(Request::HeldFor(self.held_for(world)));
        if self.asks_for_outcome() {
            return self.outcome_unknown(world, out);
        }
        let refusal = self.pending.as_mut().and_then(|pending| pending.way.refusal.take());
        if let Some((payload, _)) = refusal {
            packet::write(&mut out.client, 1, &payload);
            return self.finished_here(world, reply::Err::code_of(&payload), out);
        }
        let failure = Failure::NoPrimary {
            generation: world.topology.generation,
            why: world.topology.no_primary_why.clone(),
        };
        self.fail(world, &failure, 1, out);
    }

    /// How long the pending request has been held.
    pub(super) fn held_for(&self, world: &World<'_>) -> Duration {
        let until = self.pending.as_ref().and_then(|pending| pending.way.hold_until);
        until.map_or(Duration::ZERO, |until| {
            world.group.hold.saturating_sub(until.saturating_duration_since(world.now))
        })
    }

    /// A generation has changed: the hold may be over, or the server of a request dead.
    pub(super) fn topology_moved(&mut self, world: &mut World<'_>, out: &mut Outbox) {
        match &self.phase {
            Phase::Holding => {
                if world.topology.primary.is_some() {
                    let held = self.held_for(world);
                    out.requests.push(Request::HeldFor(held));
                }
                self.proceed(world, out);
            }
            Phase::Own(own) => {
                let slot = own.slot;
                self.give_up_if_down(world, slot, out);
            }
            Phase::Exchanging(exchange) => {
                let slot = exchange.slot;
                self.give_up_if_down(world, slot, out);
            }
            Phase::Idle
            | Phase::Dialing
            | Phase::Uploading(..)
            | Phase::ChangingUser
            | Phase::Tunnel
            | Phase::Closed => {}
        }
    }

    pub(super) fn give_up_if_down(&mut self, world: &mut World<'_>, slot: Held, out: &mut Outbox) {
        if self.is_down(world, slot) {
            // It will not answer: a frozen server keeps its connections open (V14).
            out.requests.push(Request::Drop(slot));
            self.link_lost(world, slot, out);
        }
    }

    fn is_down(&self, world: &World<'_>, slot: Held) -> bool {
        let node = self.link(slot).and_then(|link| world.topology.node(link.facts.node));
        node.is_some_and(|node| node.condition == crate::topology::Condition::Down)
    }

    /// The pending request is not sent to a server that is down: sent to a frozen one, a COMMIT
    /// would have an unknown outcome; not sent, it has a known one.
    fn leave_down_server(&mut self, world: &mut World<'_>, slot: Held, out: &mut Outbox) {
        self.phase = Phase::Idle;
        self.give_up_if_down(world, slot, out);
        if let Some(pending) = self.pending.as_mut() {
            pending.way.decision = None;
            self.proceed(world, out);
        }
    }

    /// The session's deadline has passed.
    pub(super) fn deadline_passed(&mut self, world: &mut World<'_>, out: &mut Outbox) {
        if matches!(self.phase, Phase::Holding) {
            self.proceed(world, out);
        }
    }

    /// Brings the link into the session's state, one step at a time, then sends the request.
    fn run_on(&mut self, world: &mut World<'_>, slot: Held, out: &mut Outbox) {
        if self.link(slot).is_none() {
            let failure = Failure::TransactionLost { server: "?".to_owned() };
            self.transaction = None;
            return self.fail(world, &failure, 1, out);
        }
        self.silence(slot);
        self.make_way_for_question(slot);
        let Some(step) = self.next_step(slot) else { return self.send(world, slot, out) };
        let Some(pending) = self.pending.as_mut() else { return };
        pending.way.steps += u16::from(!step.is_replay());
        if pending.way.steps > STEPS_MAX {
            let server = self.link(slot).map(|link| link.facts.node.to_string());
            let server = server.unwrap_or_default();
            return self.fail(world, &Failure::Unready { server }, 1, out);
        }
        self.start_own(world, step.slot(slot), step, out);
    }

    fn send(&mut self, world: &mut World<'_>, slot: Held, out: &mut Outbox) {
        let Some(link) = self.link(slot) else { return };
        let (node, caps, mariadb) = (link.facts.node, link.facts.capabilities, link.facts.mariadb);
        let before = out.links[index(slot)].len();
        if !self.put_request(slot, out) {
            let error = crate::protocol::errno::SqlError::malformed_packet();
            out.client.extend_from_slice(&error.packet(1, self.client_capabilities()));
            return self.close(world.now, out);
        }
        let watching = match self.pending.as_ref().map(|pending| &pending.ask) {
            Some(Ask::Execute { id }) => self.may_have_another_shape(slot, *id),
            _ => false,
        };
        let lent = self.is_lent(slot);
        let watching = watching || lent;
        let sent = out.links[index(slot)].get(before..).unwrap_or_default();
        let noted = self.note_command(world, slot, sent, watching);
        let Some(pending) = self.pending.as_mut() else { return };
        if pending.ask == Ask::Tunnel {
            self.pins.add(Pin::Tunnel);
            self.drop_link(Held::Replica, out);
            return self.enter(Phase::Tunnel, world.now);
        }
        let exchange = Exchange {
            slot,
            node,
            walker: ReplyWalker::new(pending.expect, caps, mariadb).watching(watching),
            forwarded: false,
            error: 0,
            wrote: false,
            in_transaction: self.transaction.is_some(),
            lent,
            rows: false,
            changed: None,
            noted,
            wrapped: self.is_wrapped(),
            version: self.state.version,
        };
        self.enter(Phase::Exchanging(exchange), world.now);
    }

    /// Writes the pending request for a link; false when it is malformed.
    fn put_request(&mut self, slot: Held, out: &mut Outbox) -> bool {
        let Some(pending) = self.pending.as_ref() else { return false };
        let to = &mut out.links[index(slot)];
        match pending.ask {
            Ask::Execute { id } => return self.put_execution(slot, id, out),
            Ask::Fetch { id } | Ask::ResetStatement { id } => {
                let Some(on_link) = self.prepared_on(slot, id) else { return false };
                let at = to.len() + packet::HEADER_LEN + 1;
                to.extend_from_slice(&pending.wire);
                return overwrite(to, at, &on_link.id.to_le_bytes());
            }
            Ask::Query
                if pending.class.effects.any(Effects::VIRTUAL.with(Effects::DIAGNOSTICS)) =>
            {
                let text = pending.text();
                if let Some(text) = self.with_own_answers(text) {
                    let head = pending.wire.get(packet::HEADER_LEN..pending.text_at);
                    let payload = [head.unwrap_or_default(), &text].concat();
                    packet::write(to, 0, &payload);
                    return true;
                }
                to.extend_from_slice(&pending.wire);
            }
            Ask::Query
            | Ask::Prepare { .. }
            | Ask::InitDb(_)
            | Ask::ResetConnection
            | Ask::SetOption(_)
            | Ask::Ping
            | Ask::Tunnel
            | Ask::Other => to.extend_from_slice(&pending.wire),
        }
        true
    }

    /// The pending text with what only the session can answer in it; `None` when that is
    /// nothing.
    pub(super) fn with_own_answers(&self, text: &[u8]) -> Option<Vec<u8>> {
        let counted = if self.asks_carried() { self.with_counts(text) } else { None };
        let so_far = counted.as_deref().unwrap_or(text);
        rewrite::virtualise(so_far, &self.state.dialect, self.connection_id).or(counted)
    }

    /// A prepared statement as the link in this slot knows it.
    pub(super) fn prepared_on(&self, slot: Held, id: u32) -> Option<OnLink> {
        self.statements.get(id)?.on(slot, self.link(slot)?.serial)
    }

    /// Whether the link must prepare a statement before the pending execution.
    pub(super) fn must_be_prepared(&self, slot: Held, id: u32) -> bool {
        let (Some(pending), Some(on_link)) = (self.pending.as_ref(), self.prepared_on(slot, id))
        else {
            return true;
        };
        let wants_cursor = || execute::wants_cursor(pending.wire.get(packet::HEADER_LEN..));
        let mysql = self.state.dialect.flavour == Flavour::MySql;
        on_link.spent || (on_link.cursored && mysql && !wants_cursor())
    }

    /// A statement that was prepared with the session's own numbers in it serves once.
    pub(super) fn forget_counted(&mut self, slot: Held, out: &mut Outbox) {
        let Some(Ask::Execute { id }) =
            self.pending.as_ref().filter(|pending| pending.way.counted).map(|p| p.ask.clone())
        else {
            return;
        };
        match self.statements.get_mut(id) {
            Some(statement) if statement.cursor() == Some(slot) => {
                // Its rows are still to be fetched.
                if let Some(on_link) = statement.on_links[index(slot)].as_mut() {
                    on_link.spent = true;
                }
            }
            _ => self.forget_prepared(slot, id, out),
        }
    }

    /// Writes an execution: the parameters sent ahead, then the command with this link's id
    /// and, where the link has not seen them, the parameter types.
    fn put_execution(&mut self, slot: Held, id: u32, out: &mut Outbox) -> bool {
        let (Some(pending), Some(statement)) = (self.pending.as_ref(), self.statements.get_mut(id))
        else {
            return false;
        };
        let Some(on_link) = statement.on_links[index(slot)].as_mut() else { return false };
        on_link.used = self.commands;
        let to = &mut out.links[index(slot)];
        for payload in &statement.long_data {
            let at = to.len() + packet::HEADER_LEN + 1;
            packet::write(to, 0, payload);
            if !overwrite(to, at, &on_link.id.to_le_bytes()) {
                return false;
            }
        }
        let payload = packet::payload(&pending.wire, pending.wire.len());
        if pending.expect == crate::protocol::walker::Expect::Bulk {
            let at = to.len() + packet::HEADER_LEN + 1;
            packet::write(to, 0, &payload);
            return overwrite(to, at, &on_link.id.to_le_bytes());
        }
        let caps = self.login.capabilities;
        let Ok(types) = execute::types(&payload, statement.parameters, caps) else {
            // Too short for its parameters: the server has words of its own for that.
            let at = to.len() + packet::HEADER_LEN + 1;
            packet::write(to, 0, &payload);
            return overwrite(to, at, &on_link.id.to_le_bytes());
        };
        let known = if on_link.typed { None } else { statement.types.as_deref() };
        if types.is_none() && known.is_some() {
            let rebound = execute::rebind(&payload, on_link.id, statement.parameters, known, caps);
            let Ok(rebound) = rebound else { return false };
            packet::write(to, 0, &rebound.payload);
            on_link.typed = true;
            return true;
        }
        // Nearly always: the client's own bytes with this link's id.
        if let Some(types) = types
            && statement.types.as_deref() != Some(types)
        {
            statement.types = Some(types.to_vec());
        }
        on_link.typed = true;
        let at = to.len() + packet::HEADER_LEN + 1;
        to.extend_from_slice(&pending.wire);
        overwrite(to, at, &on_link.id.to_le_bytes())
    }
}

/// A plain read of unqualified names in a host-local schema (performance_schema, sys, mysql)
/// concerns one host: the text alone cannot show it.
fn in_schema(mut class: Class, host_local: bool) -> Class {
    if class.kind == Kind::Read && host_local {
        class.kind = Kind::Primary;
        class.reason = Reason::HostLocal;
    }
    class
}

fn overwrite(buffer: &mut [u8], at: usize, bytes: &[u8]) -> bool {
    match buffer.get_mut(at..at + bytes.len()) {
        Some(place) => {
            place.copy_from_slice(bytes);
            true
        }
        None => false,
    }
}

/// Whether a statement reads without writing, so that what it showed has a position.
pub(super) fn shows_data(verb: Verb) -> bool {
    matches!(verb, Verb::Select | Verb::With | Verb::Values | Verb::Table | Verb::Show | Verb::Call)
}
