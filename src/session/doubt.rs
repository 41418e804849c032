//! What a session is not sure of after a statement, since neither its text nor the trackers tell:
//! its user variables, whether a transaction is open, what a SET among several statements has done;
//! and how it hears of it. (Of the role: [`super::role`].)

use crate::protocol::flags::{Capabilities, Status};
use crate::protocol::session_track::{self, Change};
use crate::router::policy::Held;
use crate::router::set::{self, Assignment, SetTarget};
use crate::router::{Effects, Kind, Reason};
use crate::session::action::World;
use crate::session::links::Told;
use crate::session::pending::Ask;
use crate::session::pin::Pin;
use crate::session::retry::may_have_rolled_back;
use crate::session::step::Step;
use crate::session::sync::ends_transaction;
use crate::session::{Exchange, Session, single};
use crate::topology::Flavour;

impl Session {
    /// MariaDB's trackers do not tell of all user variables (not of `:=` and INTO), MySQL's not of
    /// a procedure's OUT parameter (measured with 10.11 and 9.7): what a procedure did to them is
    /// unknown, and a trigger or a function may have set variables. A SET that fails has made its
    /// variables. What MySQL has set before an error, or for rows that end without an OK, it
    /// tells with the next OK.
    pub(super) fn doubt(&mut self, world: &World<'_>, exchange: &Exchange) {
        let (slot, error) = (exchange.slot, exchange.error);
        let Some(pending) = self.pending.as_ref() else { return };
        let (class, ask) = (pending.class, &pending.ask);
        if slot == Held::Replica {
            return;
        }
        let prepared = matches!(ask, Ask::Prepare { .. });
        // Servers make the variables of a SET when they prepare it, MySQL those of a SELECT too.
        let names_some = class.effects.any(Effects::SET.with(Effects::USER_VAR_WRITE));
        let sets = names_some && (prepared || error != 0);
        // 1064: it was not even understood. Of several statements those before it were.
        let understood = error != 1064 || class.multi;
        if sets && understood {
            self.doubt_variables(error);
        }
        if prepared {
            return;
        }
        // A view that writes: what else its functions do to the session is unknown. A sequence of
        // MariaDB remembers its last number for LASTVAL(), which another view may hide.
        let hides = class.kind == Kind::Read && world.refused.contains(class.digest);
        let mariadb = self.state.dialect.flavour == Flavour::MariaDb;
        let counts = hides && mariadb;
        if (class.effects.any(Effects::OPAQUE) || counts) && understood {
            self.pins.add(Pin::OpaqueState);
        }
        // Of several statements the class tells the first one's verb and reason.
        let runs_others =
            hides || class.multi || class.verb.changes_rows() || class.reason == Reason::Function;
        if !runs_others {
            return;
        }
        let told = exchange.changed.is_some()
            || self.client_capabilities().has(Capabilities::DEPRECATE_EOF);
        if mariadb || error != 0 || !told {
            self.state.user_variables.doubt();
        }
    }

    /// A statement was prepared or has failed that names variables of the user: they may be there
    /// now. On MySQL they are NULL with a type, which nothing tells (9.7, measured); a system
    /// variable that is not known (1193) is found out about before.
    fn doubt_variables(&mut self, error: u16) {
        if self.state.dialect.flavour == Flavour::MariaDb {
            return self.state.user_variables.doubt();
        }
        if error == 1193 {
            return;
        }
        let assignments = set::parse(self.pending_text(), &self.state.dialect);
        let is_of_user = |set: &Assignment| matches!(set.target, SetTarget::UserVar(_));
        if assignments.is_none_or(|all| all.iter().any(is_of_user)) {
            self.pins.add(Pin::UserVariable);
        }
    }

    /// Of several statements one has failed, and a SET may have been among those before it.
    pub(super) fn doubt_sets(&mut self) {
        let effects = self.pending.as_ref().map_or(Effects::NONE, |pending| pending.class.effects);
        if effects.any(Effects::SET.with(Effects::ROLE)) {
            self.pins.add(Pin::UnknownSet);
        }
    }

    /// An error does not tell whether the statement has ended the transaction before it failed, or
    /// begun one.
    pub(super) fn doubt_transaction(&mut self, slot: Held, error: u16) {
        let class = self.pending.as_ref().map(|pending| pending.class);
        let ends = class.is_some_and(|class| ends_transaction(class.verb, class.effects));
        let doubtful = match self.transaction {
            Some(runs_on) => runs_on == slot && (ends || may_have_rolled_back(error)),
            None => slot == Held::Primary && !self.state.status.has(Status::AUTOCOMMIT),
        };
        self.doubtful |= error != 0 && doubtful;
    }

    /// This answer tells whether what failed before it has changed the session's state on MySQL;
    /// whether something had.
    pub(super) fn hears_of_earlier(&mut self, slot: Held) -> bool {
        if slot != Held::Primary || !self.waits_to_hear_of_variables() {
            return false;
        }
        let hears = self.link(slot).is_some_and(|link| link.told != Told::Nothing);
        if hears {
            self.state.user_variables.trust();
        }
        hears
    }

    /// The same, by the answer to one of our own commands, which nobody is told of.
    pub(super) fn hear_of_earlier_by_own(&mut self, step: &Step, slot: Held, reply: &[u8]) {
        let prepares =
            matches!(step, Step::Prepare(_) | Step::PrepareCounted(_) | Step::ReplayPrepare(_));
        if prepares || !self.waits_to_hear_of_variables() {
            return;
        }
        let Some(caps) = self.link(slot).map(|link| link.facts.capabilities) else { return };
        let Some(ok) = single::last_ok(reply, caps) else { return };
        let mut changes = session_track::changes(ok.tracks).flatten();
        let changed = changes.any(|change| matches!(change, Change::StateChange));
        if self.hears_of_earlier(slot) && changed {
            self.pins.add(Pin::OpaqueState);
            self.mark_link();
        }
    }

    /// What MySQL has set before an error it tells with the next OK.
    pub(super) fn waits_to_hear_of_variables(&self) -> bool {
        self.state.user_variables.are_doubtful() && self.state.dialect.flavour == Flavour::MySql
    }
}
