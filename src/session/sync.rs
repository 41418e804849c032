//! Our own commands on a link before the client's: bring it into the session's state, wait for
//! a replica, ask the primary how far it is. Their replies never reach the client.

use crate::protocol::command;
use crate::protocol::packet;
use crate::protocol::reply;
use crate::protocol::walker::{Expect, Kind, ReplyWalker, Stop};
use crate::router::policy::{Decision, Held, Target};
use crate::router::{Class, Effects, Kind as Where, Reason, Verb, rewrite};
use crate::session::action::{Outbox, Request, WaitOutcome, World, index};
use crate::session::links::{Link, Told};
use crate::session::pending::{Ask, Trackers};
use crate::session::phrase::{
    MARK, MARKS, QUERY_CACHE, TrackerSet, position_expression, wait_expression,
};
use crate::session::statements::OnLink;
use crate::session::step::Step;
use crate::session::{Own, Phase, Session, retry};
use crate::topology::Flavour;
use crate::topology::gtid::GtidSet;

/// Longest reply to one of our own commands, bytes.
const OWN_REPLY_MAX: usize = 1 << 20;

impl Session {
    /// What the link still lacks before the pending request can be sent.
    pub(super) fn next_step(&self, slot: Held) -> Option<Step> {
        let step = self.lacking_step(slot)?;
        let on = step.slot(slot);
        let queries = match step {
            Step::InsertId => self.insert_id_is_a_query(on),
            Step::AskStrays | Step::Whom(_) => true,
            _ => false,
        };
        Some(if queries && self.found_would_be_lost(on) { Step::Found(on) } else { step })
    }

    fn lacking_step(&self, slot: Held) -> Option<Step> {
        let link = self.link(slot)?;
        let pending = self.pending.as_ref()?;
        if link.foreign {
            return Some(Step::Reset);
        }
        if link.bare {
            return Some(Step::SetUp);
        }
        if let Some(step) = self.first_witness_step(slot) {
            return Some(step);
        }
        if self.must_ask_for_mark(slot) {
            return Some(Step::AskMark);
        }
        if slot == Held::Replica
            && self.transaction == Some(Held::Replica)
            && (pending.ask == Ask::Tunnel
                || outgrows_replica(&pending.class)
                || self.lacks_variables(&pending.class))
        {
            return Some(Step::EndReplicaTransaction);
        }
        if pending.ask == Ask::ResetConnection {
            if self.must_ask_for_role(slot) {
                return Some(Step::AskRole);
            }
            // What it leaves as it is must be there: the link of a change of user has no role yet.
            let kept = |step: &Step| matches!(step, Step::Role(_) | Step::Schema(_));
            return self.state_step(slot).filter(kept);
        }
        if let Some(step) = self.trackers_step(link, pending.way.trackers) {
            return Some(step);
        }
        if let Some(option) = self.option
            && link.option != self.option
        {
            return Some(Step::Option(option));
        }
        if let Some(step) = self.state_step(slot).or_else(|| self.stray_step(slot)) {
            return Some(step);
        }
        if pending.way.reopen && slot == Held::Primary {
            return Some(Step::ReopenOnPrimary);
        }
        if let Some(on) = self.found_is_elsewhere(slot) {
            return Some(Step::Found(on));
        }
        if let Some(step) = self.found_step(slot) {
            return Some(step);
        }
        let insert_id = slot == Held::Primary && !link.ran && !self.has_insert_id(slot);
        if slot == Held::Primary && self.is_suspended() {
            return Some(if insert_id { Step::InsertId } else { self.replay_step() });
        }
        let neutral = self.would_tell_our_warnings(link)
            || self.must_be_silenced(slot)
            || self.must_change_no_rows(slot);
        if insert_id || neutral {
            return Some(Step::InsertId);
        }
        if let Some((sql, _)) = &pending.way.whom {
            return Some(Step::Whom(sql.clone()));
        }
        if let Some(step) = self.prepared_step(slot) {
            return Some(step);
        }
        self.listing_step(slot).or_else(|| self.witness_step(slot))
    }

    fn trackers_step(&self, link: &Link, trackers: Trackers) -> Option<Step> {
        let lacks = match link.told {
            Told::All => false,
            Told::NoGtids => self.may_set_gtids(),
            Told::Nothing => true,
        };
        match trackers {
            Trackers::Wanted => Some(Step::ShowTrackers),
            // A SET would be the previous statement.
            Trackers::Ours if lacks && !self.needs_the_last() => Some(Step::Track),
            // Shown on another link, which was lost since.
            Trackers::Shown if link.told != Told::Nothing => Some(Step::ShowTrackers),
            Trackers::Ours | Trackers::Shown => None,
        }
    }

    /// MySQL: session_track_gtids cannot be set in a transaction.
    fn may_set_gtids(&self) -> bool {
        self.state.dialect.flavour == Flavour::MySql && self.transaction.is_none()
    }

    /// The statement mentions user variables, and what they are is known on the primary's link
    /// only.
    fn lacks_variables(&self, class: &Class) -> bool {
        class.effects.any(Effects::USER_VAR_READ)
            && !self.state.user_variables_restorable()
            && !self.has_strays()
    }

    /// What the link lacks of the prepared statement that the pending request is about.
    fn prepared_step(&self, slot: Held) -> Option<Step> {
        let pending = self.pending.as_ref()?;
        match pending.ask {
            Ask::ResetStatement { id } if self.prepared_on(slot, id).is_none() => {
                Some(Step::Prepare(id))
            }
            Ask::Execute { id } => {
                self.statements.get(id)?;
                if self.asks_carried() && !pending.way.counted {
                    return Some(Step::PrepareCounted(id));
                }
                self.must_be_prepared(slot, id).then_some(Step::Prepare(id))
            }
            _ => None,
        }
    }

    /// What the link lacks of the schema, the role and the variables.
    fn state_step(&self, slot: Held) -> Option<Step> {
        let link = self.link(slot)?;
        if link.synced == self.state.version {
            return None;
        }
        // The role first: the right to the schema may come from it.
        if let Some(role) = self.state.role_to_send(link.synced.max(link.role_synced)) {
            return Some(Step::Role(role));
        }
        let on_link = if link.synced == 0 { link.facts.schema.as_deref() } else { None };
        let since = link.synced.max(link.schema_synced);
        if let Some(schema) = self.state.schema_to_send(since, on_link) {
            return Some(Step::Schema(schema.to_vec()));
        }
        let since = link.synced.max(link.charsets_synced);
        if let Some(sql) = self.state.charsets_to_send(since, link.synced, slot) {
            return Some(Step::Charsets(sql));
        }
        self.state.variables_to_send(since, link.synced, slot).map(Step::Variables)
    }

    fn has_insert_id(&self, slot: Held) -> bool {
        self.link(slot).is_some_and(|link| link.insert_id == self.carried.insert_id)
    }

    /// Starts one of our own commands.
    pub(super) fn start_own(
        &mut self,
        world: &World<'_>,
        slot: Held,
        step: Step,
        out: &mut Outbox,
    ) {
        let Some(link) = self.link(slot) else { return };
        let (caps, mariadb) = (link.facts.capabilities, link.facts.mariadb);
        let mut payload = Vec::new();
        let mut expect = Expect::Simple;
        let mut watching = false;
        match &step {
            Step::Replay => match self.say_again(out) {
                Some(how) => (expect, watching) = how,
                None => return self.replay_differs(world, out),
            },
            Step::ReplayPrepare(number) => {
                expect = Expect::Prepare;
                payload.push(0x16);
                payload.extend_from_slice(self.text_to_replay(*number));
            }
            Step::Schema(name) => {
                payload.push(0x02);
                payload.extend_from_slice(name);
            }
            Step::Option(option) => {
                payload.push(0x1B);
                payload.extend_from_slice(&option.to_le_bytes());
            }
            Step::Reset => payload.push(0x1F),
            Step::Ping => payload.push(0x0E),
            Step::Prepare(id) | Step::PrepareCounted(id) => {
                expect = Expect::Prepare;
                payload.push(0x16);
                self.forget_prepared(slot, *id, out);
                if let Some(statement) = self.statements.get(*id) {
                    let counted = matches!(step, Step::PrepareCounted(_));
                    let text = self.text_to_prepare(&statement.text, statement.class, counted);
                    payload.extend_from_slice(text.as_deref().unwrap_or(&statement.text));
                }
            }
            step => {
                expect = Expect::Query;
                payload = command::query_payload(&self.own_text(world, slot, step), caps);
            }
        }
        if !matches!(step, Step::Replay) {
            packet::write(&mut out.links[index(slot)], 0, &payload);
        }
        let walker = ReplyWalker::new(expect, caps, mariadb).watching(watching);
        let own = Own { slot, step, walker, reply: Vec::new(), failed: None };
        self.enter(Phase::Own(Box::new(own)), world.now);
    }

    /// The text of a step that is a statement.
    fn own_text(&self, world: &World<'_>, slot: Held, step: &Step) -> Vec<u8> {
        let flavour = self.state.dialect.flavour;
        // In a transaction the client cannot set it either, so that it is as it should be.
        let with_gtids = self.may_set_gtids();
        match step {
            Step::SetUp => self.set_up_again(world, slot),
            Step::InsertId => self.insert_id_statement(slot),
            Step::Counts | Step::Found(_) => self.counts_question(slot),
            Step::Track => match self.server_facts(world, slot).map(TrackerSet::of) {
                Some(TrackerSet::WithGtids) if !with_gtids => TrackerSet::Plain.statement(),
                Some(set) => set.statement(),
                None => TrackerSet::Plain.statement(),
            },
            Step::ShowTrackers => self.tracking.statement(with_gtids),
            Step::Role(sql)
            | Step::Charsets(sql)
            | Step::Variables(sql)
            | Step::SetStrays(sql)
            | Step::FindAgain(sql)
            | Step::Tell(sql) => sql.clone(),
            Step::AskStrays => self.strays_question(),
            Step::Mark => MARK.to_vec(),
            Step::AskMark => self.question(slot, MARKS),
            Step::AskRole => self.role_question(slot),
            Step::Whom(sql) => sql.to_vec(),
            Step::AskPosition => self.question(slot, position_expression(flavour)),
            Step::Wait => {
                let wait = world.group.replica_wait;
                self.question(slot, &wait_expression(flavour, &self.state.token, wait))
            }
            // Whatever completion_type says.
            Step::EndReplicaTransaction => b"COMMIT AND NO CHAIN NO RELEASE".to_vec(),
            Step::ReopenOnPrimary => b"START TRANSACTION READ ONLY".to_vec(),
            Step::ReplayNumber(number) => format!("SET insert_id={number}").into_bytes(),
            Step::Witness(step) => self.witness_text(*step),
            Step::Reset
            | Step::Option(_)
            | Step::Schema(_)
            | Step::Prepare(_)
            | Step::PrepareCounted(_)
            | Step::ReplayPrepare(_)
            | Step::Replay
            | Step::Ping => Vec::new(),
        }
    }

    /// Takes the reply to one of our own commands.
    pub(super) fn swallow(
        &mut self,
        world: &mut World<'_>,
        input: &[u8],
        out: &mut Outbox,
    ) -> usize {
        let Phase::Own(own) = &mut self.phase else { return 0 };
        let slot = own.slot;
        if matches!(own.step, Step::Replay) {
            return self.hear_again(world, input, out);
        }
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let Ok(advance) = own.walker.advance(rest) else {
                return self.own_reply_malformed(world, slot, input.len(), out);
            };
            let Stop::Notable(notable) = advance.stop else {
                own.reply.extend_from_slice(rest.get(..advance.forward).unwrap_or_default());
                used += advance.forward;
                break;
            };
            let end = advance.forward + notable.len;
            own.reply.extend_from_slice(rest.get(..end).unwrap_or_default());
            if notable.kind == Kind::Err {
                let payload = rest.get(advance.forward + packet::HEADER_LEN..end);
                own.failed = payload.map(<[u8]>::to_vec);
            }
            used += end;
            let surplus = notable.terminal && used < input.len();
            if surplus || notable.kind == Kind::LocalInfile {
                // What stands behind the end of a reply would be taken for the next one's
                // beginning; and nothing of ours asks for a file.
                return self.own_reply_malformed(world, slot, input.len(), out);
            }
            if notable.terminal {
                match own.failed.as_deref().is_some_and(retry::is_goodbye) {
                    true => self.give_up_link(world, slot, out),
                    false => self.own_done(world, out),
                }
                return used;
            }
        }
        if own.reply.len() > OWN_REPLY_MAX {
            return self.own_reply_malformed(world, slot, input.len(), out);
        }
        used
    }

    /// A statement's text with what only the session can answer in it; `None` for nothing.
    fn text_to_prepare(&self, text: &[u8], class: Class, counted: bool) -> Option<Vec<u8>> {
        match (counted, class.effects.any(Effects::VIRTUAL)) {
            (true, _) => self.with_own_answers(text),
            (false, true) => rewrite::virtualise(text, &self.state.dialect, self.connection_id),
            (false, false) => None,
        }
    }

    fn own_reply_malformed(
        &mut self,
        world: &mut World<'_>,
        slot: Held,
        all: usize,
        out: &mut Outbox,
    ) -> usize {
        self.give_up_link(world, slot, out);
        all
    }

    fn own_done(&mut self, world: &mut World<'_>, out: &mut Outbox) {
        let Phase::Own(own) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        if let Some(error) = own.failed {
            return self.own_refused(world, own.slot, &own.step, error, out);
        }
        let was_state = own.step.is_state();
        let version = self.state.version;
        self.note_own_warnings(&own.step, own.slot, &own.reply);
        self.hear_of_earlier_by_own(&own.step, own.slot, &own.reply);
        match own.step {
            Step::Reset => self.on_link(own.slot, |link| {
                link.foreign = false;
                link.bare = true;
            }),
            Step::SetUp | Step::InsertId => {
                self.list_was_emptied(own.slot);
                self.was_set_up(own.slot);
            }
            Step::Tell(_) => self.was_told(own.slot),
            Step::Mark => self.was_marked(own.slot),
            Step::AskMark | Step::AskRole | Step::AskPosition | Step::Wait => {
                self.was_answered(&own, out);
            }
            Step::Counts => {
                self.counts_known(own.slot, &own.reply);
                return self.release(world, out);
            }
            Step::Found(_) => self.counts_known(own.slot, &own.reply),
            Step::FindAgain(_) => self.found_again(own.slot),
            Step::AskStrays => self.strays_known(&own.reply),
            Step::SetStrays(_) => self.strays = None,
            Step::Track => self.was_tracked(own.slot),
            Step::Option(option) => self.on_link(own.slot, |link| link.option = Some(option)),
            Step::Schema(_) => self.on_link(own.slot, |link| link.schema_synced = version),
            Step::Role(_) => self.on_link(own.slot, |link| link.role_synced = version),
            Step::Charsets(_) => self.on_link(own.slot, |link| link.charsets_synced = version),
            Step::Variables(_) => self.variables_sent(own.slot),
            Step::Prepare(id) => self.own_prepared(own.slot, id, &own.reply),
            Step::PrepareCounted(id) => {
                self.own_prepared(own.slot, id, &own.reply);
                if let Some(pending) = self.pending.as_mut() {
                    pending.way.counted = true;
                }
            }
            Step::EndReplicaTransaction => self.replica_transaction_ended(world),
            Step::ShowTrackers => self.trackers_shown(own.slot),
            Step::Ping => self.pinged = false,
            Step::ReplayPrepare(_) | Step::ReplayNumber(_) | Step::Replay => self.replay_made(&own),
            Step::Whom(_) => return self.whom_known(world, &own.reply, out),
            Step::Witness(step) => return self.witness_step_done(world, step, &own.reply, out),
            Step::ReopenOnPrimary => {
                self.transaction = Some(Held::Primary);
                if let Some(pending) = self.pending.as_mut() {
                    pending.way.reopen = false;
                }
            }
        }
        if was_state {
            self.mark_if_synced(own.slot);
        }
        self.proceed(world, out);
    }

    /// A question for one value was answered.
    fn was_answered(&mut self, own: &Own, out: &mut Outbox) {
        let value = self.answered(own.slot, &own.reply);
        let value = value.as_deref();
        match own.step {
            Step::AskMark => self.mark_known(own.slot, value),
            Step::AskRole => self.role_told(value),
            Step::AskPosition => self.position_known(value),
            _ => self.waited(value, out),
        }
    }

    fn was_tracked(&mut self, slot: Held) {
        let all = self.state.dialect.flavour == Flavour::MariaDb || self.may_set_gtids();
        let told = if all { Told::All } else { Told::NoGtids };
        self.on_link(slot, |link| link.told = told);
    }

    fn variables_sent(&mut self, slot: Held) {
        let version = self.state.version;
        let cached = self.state.variable(QUERY_CACHE).is_some();
        self.on_link(slot, |link| {
            link.synced = version;
            if cached {
                link.told = Told::Nothing;
            }
        });
    }

    fn was_set_up(&mut self, slot: Held) {
        let insert_id = self.carried.insert_id;
        self.on_link(slot, |link| {
            link.bare = false;
            if slot == Held::Primary && !link.ran {
                link.insert_id = insert_id;
            }
        });
        if let Some(pending) = self.pending.as_mut() {
            pending.way.silenced = true;
        }
    }

    pub(super) fn on_link(&mut self, slot: Held, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.link_mut(slot) {
            change(link);
        }
    }

    /// Schema, role and variables are sent one after another; the link is up to date when no
    /// such step is left.
    fn mark_if_synced(&mut self, slot: Held) {
        let version = self.state.version;
        if self.state_step(slot).is_none() {
            self.on_link(slot, |link| link.synced = version);
        }
    }

    fn own_prepared(&mut self, slot: Held, id: u32, reply: &[u8]) {
        let payload = reply.get(packet::HEADER_LEN..).unwrap_or_default();
        let (serial, used) = (self.link(slot).map_or(0, |link| link.serial), self.commands);
        if let (Ok(ok), Some(statement)) =
            (reply::PrepareOk::parse(payload, self.login.capabilities), self.statements.get_mut(id))
        {
            statement.on_links[index(slot)] = Some(OnLink::new(&ok, serial, used));
        }
    }

    pub(super) fn trackers_shown(&mut self, slot: Held) {
        self.on_link(slot, |link| link.told = Told::Nothing);
        if let Some(pending) = self.pending.as_mut() {
            pending.way.trackers = Trackers::Shown;
        }
    }

    fn position_known(&mut self, position: Option<&[u8]>) {
        let text = position.and_then(|text| std::str::from_utf8(text).ok());
        let set = text.and_then(|text| match self.state.dialect.flavour {
            Flavour::MariaDb => GtidSet::parse_mariadb(text),
            Flavour::MySql => GtidSet::parse_mysql(text),
        });
        let Some(pending) = self.pending.as_mut() else { return };
        pending.way.asked = true;
        match set {
            Some(set) => {
                self.state.token.union(&set);
                self.floor = None;
                self.outdate_replica();
            }
            None => self.fall_to_primary(Reason::NotCaughtUp),
        }
    }

    fn waited(&mut self, answer: Option<&[u8]>, out: &mut Outbox) {
        // MASTER_GTID_WAIT and WAIT_FOR_EXECUTED_GTID_SET both answer 0 for success.
        if answer == Some(b"0") {
            self.on_link(Held::Replica, |link| link.caught_up = true);
            out.requests.push(Request::Waited(WaitOutcome::CaughtUp));
        } else {
            out.requests.push(Request::Waited(WaitOutcome::TimedOut));
            self.fall_to_primary(Reason::NotCaughtUp);
        }
    }

    /// A statement came that a replica's read-only transaction cannot serve.
    fn replica_transaction_ended(&mut self, world: &World<'_>) {
        self.transaction = None;
        self.transcript = None;
        self.floor = self.floor.max(Some(world.now));
        let Some(pending) = self.pending.as_mut() else { return };
        // Of several statements the first may still belong to it.
        let class = pending.class;
        let implicit_commit = ends_transaction(class.verb, class.effects) && !class.multi;
        pending.way.decision = None;
        // MySQL 9.7: a BEGIN inside a read-only transaction begins a read-only one.
        let inherits = self.state.dialect.flavour == Flavour::MySql
            && pending.class.verb == Verb::Begin
            && !pending.class.effects.any(Effects::BEGIN_READ_ONLY);
        if !implicit_commit || inherits {
            pending.way.decision =
                Some(Decision { target: Target::Primary, reason: Reason::ReadOnlyTransaction });
            pending.way.reopen = true;
        }
    }
}

/// Whether a statement inside a replica's read-only transaction must go to the primary.
fn outgrows_replica(class: &Class) -> bool {
    // A block that cannot be read may end the transaction, and then write.
    let unread = Effects::OPAQUE.with(Effects::REPLICATION_REPLAY);
    if ends_transaction(class.verb, class.effects) || class.effects.any(unread) {
        return true;
    }
    // Of several statements only the first is told; one may end the transaction, the next write.
    let stays = class.kind != Where::Primary
        || !class.multi
            && matches!(
                class.verb,
                Verb::Commit
                    | Verb::Rollback
                    | Verb::Savepoint
                    | Verb::Use
                    | Verb::Insert
                    | Verb::Update
                    | Verb::Delete
                    | Verb::Replace
                    | Verb::Other
            );
    !stays
}

/// Whether a statement ends the open transaction before it does anything else. XA START is refused
/// inside of one instead.
pub(super) fn ends_transaction(verb: Verb, effects: Effects) -> bool {
    let begins = Effects::BEGIN.with(Effects::BEGIN_READ_ONLY);
    let ends = begins.with(Effects::LOCK).with(Effects::DDL).with(Effects::ACCOUNTS);
    verb != Verb::Xa && effects.any(ends)
}
