//! The role that a session's procedures, or one of several statements in a text, may have set: no
//! tracker tells, and a reset leaves it in place (MariaDB 10.11 and MySQL 9.7, measured). So it is
//! asked for before one. What a change of user does to a role that nobody told of is not known.

use crate::router::policy::Held;
use crate::session::Session;
use crate::session::pin::Pin;
use crate::topology::Flavour;

/// Whether a link was asked for its role before its reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum RoleAsked {
    /// It was not.
    #[default]
    No,
    /// It has told.
    Told,
    /// It has not: MySQL 9.7 refuses to look at `information_schema.APPLICABLE_ROLES` where the
    /// session has set `default_collation_for_utf8mb4` (1267).
    InVain,
}

/// The version of MySQL since which there are roles; all of MariaDB that we know have them.
const ROLES_SINCE: u32 = 80_000;

/// What may have set a role untold.
const UNTOLD: [Pin; 3] = [Pin::UnknownSet, Pin::OpaqueState, Pin::NamedStatement];

/// `=` where the role is that of a fresh connection of this account, `!` where it is not; then the
/// role, as SET ROLE takes it. In Oracle mode MariaDB's CONCAT takes NULL for an empty text.
fn expression(flavour: Flavour) -> &'static str {
    const MARIADB: &str = "CONCAT(IF(CURRENT_ROLE() <=> (SELECT ROLE_NAME FROM \
        information_schema.APPLICABLE_ROLES WHERE IS_DEFAULT='YES' LIMIT 1), '=', '!'), \
        IF(CURRENT_ROLE() IS NULL, 'NONE', CONCAT('`', REPLACE(CURRENT_ROLE(), '`', '``'), '`')))";
    const MYSQL: &str = "CONCAT(IF(CURRENT_ROLE()='NONE' AND NOT EXISTS (SELECT 1 FROM \
        information_schema.APPLICABLE_ROLES WHERE IS_DEFAULT='YES'), '=', '!'), CURRENT_ROLE())";
    match flavour {
        Flavour::MariaDb => MARIADB,
        Flavour::MySql => MYSQL,
    }
}

impl Session {
    /// Whether the link that is to be reset may have a role that nobody told of.
    pub(super) fn must_ask_for_role(&self, slot: Held) -> bool {
        let asked = self.pending.as_ref().is_some_and(|pending| pending.way.role != RoleAsked::No);
        let knows_roles = self.state.dialect.version >= ROLES_SINCE;
        let may_have = slot == Held::Primary && knows_roles && !asked;
        may_have && UNTOLD.into_iter().any(|pin| self.pins.has(pin))
    }

    /// What asks for it.
    pub(super) fn role_question(&self, slot: Held) -> Vec<u8> {
        self.question(slot, expression(self.state.dialect.flavour))
    }

    /// The answer; `None` for none.
    pub(super) fn role_told(&mut self, answer: Option<&[u8]>) {
        let told = answer.and_then(|answer| answer.split_first());
        if let Some(pending) = self.pending.as_mut() {
            pending.way.role = if told.is_some() { RoleAsked::Told } else { RoleAsked::InVain };
        }
        let Some((first, role)) = told else { return };
        if *first != b'=' || self.state.has_role() {
            self.state.set_role(role);
            let version = self.state.version;
            self.on_link(Held::Primary, |link| link.role_synced = version);
        }
    }

    /// The link was reset: the session stays with it if nobody knows its role.
    pub(super) fn keep_unknown_role(&mut self, asked: RoleAsked) {
        if asked == RoleAsked::InVain {
            self.pins.add(Pin::UnknownSet);
        }
    }
}
