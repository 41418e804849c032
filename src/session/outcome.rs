//! The end of a reply: what the session has become by it.

use crate::router::policy::Held;
use crate::router::set::{self, Assignment, SetTarget, SetValue};
use crate::router::{Class, Effects, Kind, Reason, Verb};
use crate::session::action::{Outbox, Request, Trouble, World};
use crate::session::attach::shows_data;
use crate::session::links::Told;
use crate::session::pending::Ask;
use crate::session::pin::Pin;
use crate::session::{Exchange, Phase, Session};
use crate::topology::{Flavour, Topology};

/// The collation that SET NAMES utf8mb4 brings (MySQL).
const DEFAULT_COLLATION: &str = "default_collation_for_utf8mb4";

impl Session {
    /// The reply's last packet has been passed on.
    pub(super) fn reply_over(&mut self, world: &mut World<'_>, out: &mut Outbox) {
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        let uploading = matches!(phase, Phase::Uploading(..));
        let (Phase::Exchanging(exchange) | Phase::Uploading(exchange, _)) = phase else { return };
        let slot = exchange.slot;
        let streaming = self.pending.as_ref().is_some_and(|pending| pending.way.body.is_some());
        self.doubt(world, &exchange);
        self.doubt_transaction(slot, exchange.error);
        let some_ran = self.pending.as_ref().is_some_and(|pending| pending.class.multi);
        if exchange.error == 0 {
            self.learn_text(out);
            self.note_strays(slot);
            self.learn_command(slot, out);
            self.learn_engine(world);
        } else if some_ran {
            self.learn_pins();
            self.learn_holdings();
            self.doubt_sets();
        }
        self.mark_link();
        self.note_reading(world, slot, &exchange);
        if let Some(Ask::Execute { id }) = self.pending.as_ref().map(|pending| &pending.ask) {
            self.statements.executed(slot, *id, exchange.walker.columns());
        }
        let version = self.state.version;
        if let Some(link) = self.link_mut(slot) {
            link.synced = version;
        }
        if let Some(pending) = self.pending.as_ref()
            && pending.ask != Ask::Ping
        {
            let class = pending.class;
            // What is only prepared is no statement yet.
            let prepared = matches!(pending.ask, Ask::Prepare { .. }) && exchange.error == 0;
            if !prepared {
                self.last = Some(slot);
                self.last_lost = false;
                // What sets the link up again after a reset may count rows.
                self.pinged = pending.ask == Ask::ResetConnection && exchange.error == 0;
                self.counts_are_on(&class, &exchange);
            }
            self.ran_on(slot, &class, &exchange);
        }
        self.note_answer(&exchange);
        self.note_commit(&exchange);
        // Servers that tell nothing of transactions do not take it back.
        self.has_written &= self.transaction.is_some();
        if exchange.wrapped {
            return self.end_wrapping(world, &exchange, out);
        }
        self.forget_counted(slot, out);
        let releases = exchange.error == 0 && self.releases();
        self.record(world, Some(exchange.node), exchange.error, out);
        self.enter(Phase::Idle, world.now);
        if streaming || uploading || releases {
            // The server answered before it had the whole command (and will close) or the
            // whole file, whose rest must not be read as commands; or it was asked to close
            // after its answer.
            self.close(world.now, out);
        }
    }

    /// The server closes the connection after its answer to the pending request.
    pub(super) fn releases(&self) -> bool {
        let Some(pending) = self.pending.as_ref() else { return false };
        let ran = matches!(pending.ask, Ask::Query | Ask::Execute { .. });
        ran && self.ends_with_release(&pending.class)
    }

    /// COMMIT RELEASE and its kin, and without that word what `completion_type` says.
    pub(super) fn ends_with_release(&self, class: &Class) -> bool {
        let says_nothing = matches!(class.verb, Verb::Commit | Verb::Rollback)
            && !class.multi
            && !class.effects.any(Effects::NO_RELEASE);
        class.effects.any(Effects::RELEASE) || says_nothing && self.completes_with(b"2", b"RELEASE")
    }

    /// The client's transaction is over, which no server tells.
    pub(super) fn ended_here(&mut self, world: &World<'_>, releases: bool, out: &mut Outbox) {
        self.say_ok(out);
        self.finished_here(world, 0, out);
        if releases {
            self.close(world.now, out);
        }
    }

    /// What was read, and where: a later read elsewhere must not go back behind it.
    fn note_reading(&mut self, world: &World<'_>, slot: Held, exchange: &Exchange) {
        let wrote = exchange.wrote;
        let Some(pending) = self.pending.as_ref() else { return };
        let class = pending.class;
        let (resets, prepared) =
            (pending.ask == Ask::ResetConnection, matches!(pending.ask, Ask::Prepare { .. }));
        let sets_only = class.reason == Reason::SessionState && !class.multi;
        let (verb, may_write) = (class.verb, class.kind == Kind::Primary && !sets_only);
        let untold = self.link(slot).is_some_and(|link| link.told != Told::All);
        // What it has written, or what it has committed, has a position that nobody was told of.
        if slot == Held::Primary && untold && !sets_only && !resets {
            self.floor = Some(world.now);
            return self.outdate_replica();
        }
        if wrote && covers_what_was_read(world.topology) {
            self.floor = None;
        }
        // A statement that has failed may have changed something all the same (it has ended the
        // transaction before, or has dropped one of two tables), and no tracker tells where.
        if exchange.error != 0 && slot == Held::Primary && may_write && !prepared {
            self.floor = Some(world.now);
            return self.outdate_replica();
        }
        // Whatever answers with rows shows data; without CLIENT_DEPRECATE_EOF no tracker follows
        // them, so that a write among it (ANALYZE UPDATE, INSERT ... RETURNING) has no position.
        if !(shows_data(verb) || exchange.rows) || wrote || prepared {
            return;
        }
        match slot {
            Held::Primary => {
                self.floor = Some(world.now);
                self.outdate_replica();
            }
            Held::Replica => {
                if let Some(link) = self.link_mut(Held::Replica) {
                    link.read_at = Some(world.now);
                }
            }
        }
    }

    /// What the text leaves behind that cannot be reproduced. Of several statements one may have
    /// failed after the others had run.
    fn learn_pins(&mut self) {
        let Some(pending) = self.pending.as_ref() else { return };
        let effects = pending.class.effects;
        if effects == Effects::NONE {
            return;
        }
        let pins = [
            (Effects::TEMP_TABLE, Pin::TemporaryTable),
            (Effects::LOCK, Pin::TableLock),
            (Effects::USER_LOCK, Pin::UserLock),
            (Effects::HANDLER_OPEN, Pin::Handler),
            (Effects::USER_VAR_WRITE, Pin::UserVariable),
            (Effects::REPLICATION_REPLAY, Pin::ReplicationReplay),
            (Effects::TEXT_PREPARE, Pin::NamedStatement),
            (Effects::XA, Pin::Xa),
            (Effects::COUNTERS, Pin::HostBound),
            // Who changes a server's replication goes on with that server.
            (Effects::TOPOLOGY, Pin::HostBound),
        ];
        for (effect, pin) in pins {
            if effects.any(effect) {
                self.pins.add(pin);
            }
        }
        self.has_defined |= effects.any(Effects::DDL.with(Effects::TEMP_TABLE));
    }

    /// What the text of a successful statement tells beyond the trackers.
    fn learn_text(&mut self, out: &mut Outbox) {
        let Some(pending) = self.pending.as_ref() else { return };
        let effects = pending.class.effects;
        // Preparing a statement does nothing of what it says.
        let executed = !matches!(pending.ask, Ask::Prepare { .. });
        if !executed {
            return;
        }
        self.learn_pins();
        self.learn_holdings();
        if effects.any(Effects::ACCOUNTS) {
            out.requests.push(Request::AccountsChanged);
        }
        if effects.any(Effects::TOPOLOGY) {
            out.requests.push(Request::ProbeNow);
        }
        if effects.any(Effects::SET.with(Effects::ROLE)) {
            self.learn_set(out);
        }
    }

    /// Replication does not tell of the session's default engine: a replica makes tables that
    /// name none with its own (measured with MariaDB 10.11).
    fn learn_engine(&mut self, world: &World<'_>) {
        if !self.pending.as_ref().is_some_and(|p| p.class.effects.any(Effects::SET)) {
            return;
        }
        let names: [&[u8]; 2] = [b"default_storage_engine", b"storage_engine"];
        let set = names.iter().filter_map(|name| self.state.variable(name));
        let Some(facts) = world.topology.facts() else { return };
        if set.into_iter().any(|set| !set.eq_ignore_ascii_case(facts.storage_engine.as_bytes())) {
            self.pins.add(Pin::HostBound);
        }
    }

    /// A SET of the client's own trackers counts from its own reply on.
    pub(super) fn learn_tracking(&mut self) {
        let Some(pending) = self.pending.as_ref() else { return };
        if !pending.class.effects.any(Effects::SET) {
            return;
        }
        for assignment in self.assignments().unwrap_or_default() {
            if let SetTarget::Session(name) = assignment.target {
                self.learn_session_variable(&name, &assignment.value);
            }
        }
    }

    /// What the pending SET assigns, the prepared one included; `None` when it is no SET alone, or
    /// is not understood.
    pub(super) fn assignments(&self) -> Option<Vec<Assignment>> {
        let pending = self.pending.as_ref().filter(|pending| !pending.class.multi)?;
        let runs = matches!(pending.ask, Ask::Query | Ask::Execute { .. });
        if runs { set::parse(self.pending_text(), &self.state.dialect) } else { None }
    }

    /// What a successful SET says about values that the trackers do not show.
    fn learn_set(&mut self, out: &mut Outbox) {
        let Some(assignments) = self.assignments() else {
            self.pins.add(Pin::UnknownSet);
            return;
        };
        if changes_what_is_tracked(&assignments) {
            self.pins.add(Pin::UnknownSet);
        }
        let names = assignments.iter().position(|set| set.target == SetTarget::Names);
        let set_later = variables(assignments.get(names.unwrap_or(0)..).unwrap_or_default());
        if names.is_some() && variables(&assignments).iter().any(|name| name == DEFAULT_COLLATION) {
            // The names go by what it was when the statement was read.
            self.pins.add(Pin::UnknownSet);
        }
        for assignment in assignments {
            match (assignment.target, assignment.value) {
                (SetTarget::UserVar(name), SetValue::Literal(literal)) => {
                    if !self.state.set_user_variable(&name, &literal) {
                        self.pins.add(Pin::UserVariable);
                    }
                }
                (SetTarget::UserVar(_), _) => self.pins.add(Pin::UserVariable),
                (SetTarget::Session(name), value) => self.learn_session_variable(&name, &value),
                (SetTarget::Names, SetValue::Words(words)) => self.learn_names(&words, &set_later),
                (SetTarget::Names | SetTarget::CharacterSet, _) => self.pins.add(Pin::UnknownSet),
                (SetTarget::NextTransaction, _) => self.pins.add(Pin::NextTransaction),
                (SetTarget::Role, SetValue::Words(role) | SetValue::Literal(role)) => {
                    self.state.set_role(&role)
                }
                (SetTarget::Role, _) => self.pins.add(Pin::UnknownSet),
                (SetTarget::Global(name) | SetTarget::Persist(name), _) => {
                    let closes = matches!(name.as_str(), "read_only" | "super_read_only");
                    if closes && let Some(link) = self.link(Held::Primary) {
                        out.requests.push(Request::Signal(link.facts.node, Trouble::SetReadOnly));
                    }
                    self.settings_changed(out);
                }
                (SetTarget::GlobalTransaction, _) => self.settings_changed(out),
                (
                    SetTarget::SessionTransaction | SetTarget::Password | SetTarget::DefaultRole,
                    _,
                ) => {}
                (SetTarget::ResourceGroup, _) => self.pins.add(Pin::UnknownSet),
            }
        }
    }

    /// Who changes a server's settings looks at what became of it there.
    fn settings_changed(&mut self, out: &mut Outbox) {
        self.pins.add(Pin::HostBound);
        if !matches!(out.requests.last(), Some(Request::SettingsChanged)) {
            out.requests.push(Request::SettingsChanged);
        }
    }

    /// SET NAMES charset [COLLATE collation]: the trackers tell the charset, only the text which
    /// collation goes with it (MariaDB 11 has a default of its own for NAMES).
    fn learn_names(&mut self, words: &[u8], set_later: &[String]) {
        let mut words = words.split(|byte| *byte == b' ').map(TrimQuotes::trim_quotes);
        match (words.next(), words.next(), words.next()) {
            (Some(charset), None, None) => {
                let mut names = charset.to_ascii_lowercase();
                let own = self.state.variable(DEFAULT_COLLATION.as_bytes());
                match (names.as_slice(), own) {
                    // Links are told the names before the variable.
                    (b"utf8mb4", Some(own)) => names.extend([b" COLLATE ", own].concat()),
                    // By the server's character set, which is not known here.
                    (b"default", Some(_)) => self.pins.add(Pin::UnknownSet),
                    _ => {}
                }
                self.state.set_names(&names, set_later);
            }
            (Some(charset), Some(keyword), Some(collation))
                if keyword.eq_ignore_ascii_case(b"collate") =>
            {
                let collation = collation.to_ascii_lowercase();
                self.state.set_names(&[charset, b" COLLATE ", &collation].concat(), set_later);
            }
            _ => self.pins.add(Pin::UnknownSet),
        }
    }

    fn learn_session_variable(&mut self, name: &str, value: &SetValue) {
        if !name.starts_with("session_track_") {
            return;
        }
        let word = match value {
            SetValue::Literal(literal) | SetValue::Words(literal) => literal.as_slice(),
            SetValue::Default => b"default",
            SetValue::Expression => b"",
        };
        self.tracking.set(name, word.trim_ascii().trim_quotes());
        // Ours must stay on, whatever the client asked for.
        if let Some(link) = self.link_mut(Held::Primary) {
            link.told = Told::Nothing;
        }
    }

    /// What a successful command without text means.
    fn learn_command(&mut self, slot: Held, out: &mut Outbox) {
        let Some(pending) = self.pending.as_ref() else { return };
        match &pending.ask {
            Ask::InitDb(name) => {
                let name = name.clone();
                self.state.set_schema(&name);
            }
            Ask::SetOption(option) => {
                self.option = Some(*option);
                let option = self.option;
                if let Some(link) = self.link_mut(slot) {
                    link.option = option;
                }
            }
            Ask::ResetConnection => {
                let role = pending.way.role;
                self.reset_done(out);
                self.keep_unknown_role(role);
                if let Some(link) = self.link_mut(Held::Primary) {
                    link.told = Told::Nothing;
                }
            }
            Ask::ResetStatement { id } => {
                self.statements.close_cursor(*id);
                self.pin_cursors();
            }
            Ask::Query
            | Ask::Prepare { .. }
            | Ask::Execute { .. }
            | Ask::Fetch { .. }
            | Ask::Ping
            | Ask::Tunnel
            | Ask::Other => {}
        }
    }
}

/// Whether it changes of which variables the server tells, and other variables besides: of those it
/// may have told by either list.
fn changes_what_is_tracked(assignments: &[Assignment]) -> bool {
    let names = variables(assignments);
    names.iter().any(|name| name == "session_track_system_variables")
        && names.iter().any(|name| !name.starts_with("session_track_"))
}

/// The system variables of the session that are assigned.
fn variables(assignments: &[Assignment]) -> Vec<String> {
    let session = |set: &Assignment| match &set.target {
        SetTarget::Session(name) => Some(name.clone()),
        _ => None,
    };
    assignments.iter().filter_map(session).collect()
}

/// Whether the GTID of a write names everything that was on the primary before it: with several
/// MariaDB domains it names one of them only.
fn covers_what_was_read(topology: &Topology) -> bool {
    let several = topology.facts().is_some_and(|facts| facts.flavour == Flavour::MariaDb)
        && topology.primary_node().is_some_and(|node| node.applied.domains_or_sources() > 1);
    !several
}

/// Quotes off a literal.
pub(super) trait TrimQuotes {
    fn trim_quotes(&self) -> &[u8];
}

impl TrimQuotes for [u8] {
    fn trim_quotes(&self) -> &[u8] {
        match self {
            [b'\'', word @ .., b'\''] | [b'"', word @ .., b'"'] => word,
            word => word,
        }
    }
}
