//! A link as the session sees it, and what is kept of it when it goes to the pool.

use std::time::Instant;

use crate::protocol::{packet, reply};
use crate::router::Kind;
use crate::router::policy::Held;
use crate::session::action::{LinkFacts, Outbox, World, index};
use crate::session::diagnostics::has_text;
use crate::session::phrase::setup_statement;
use crate::session::step::Step;
use crate::session::{Pin, Session};
use crate::topology::{Flavour, NodeId, ServerFacts};

/// What a link tells of what its server changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// All that the session must know.
    All,
    /// All but the position of a write: it was set up while a transaction was open.
    NoGtids,
    /// Its trackers are not as they must be, after a reset or a SET of the client's.
    Nothing,
}

/// A link as the session sees it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) facts: LinkFacts,
    /// Which of the session's links it is, the former ones included: prepared statements bear it.
    pub(super) serial: u32,
    /// The version of the state that it has.
    pub(super) synced: u32,
    /// The versions whose role and schema it has, while it is brought up to `synced`.
    pub(super) role_synced: u32,
    pub(super) schema_synced: u32,
    /// The version whose system variables it has, likewise.
    pub(super) charsets_synced: u32,
    /// The replica is known to contain the session's token.
    pub(super) caught_up: bool,
    /// When the session last read there.
    pub(super) read_at: Option<Instant>,
    /// What it tells of changes.
    pub(super) told: Told,
    /// The server has been told the session's COM_SET_OPTION.
    pub(super) option: Option<u16>,
    /// Another session has used it: COM_RESET_CONNECTION comes first.
    pub(super) foreign: bool,
    /// It was reset and lacks what a link of its kind is told when it is opened.
    pub(super) bare: bool,
    /// The last of our own statements has left warnings on it, which are not the client's.
    pub(super) warned: bool,
    /// Its server lists warnings or an error of some statement of the session.
    pub(super) listed: bool,
    /// A statement of the session has run on it since it was last asked for its counts.
    pub(super) ran: bool,
    /// A statement of the session has run on it at all.
    pub(super) used: bool,
    /// Its LAST_INSERT_ID, as far as no statement of the session has changed it since.
    pub(super) insert_id: u64,
    /// It bears, or may bear, what a reset leaves behind.
    tainted: bool,
    /// A schema has been selected on it: it cannot be without one again.
    has_schema: bool,
    /// The epoch of the session that used it last.
    epoch: u32,
}

/// A link in the pool: as its last session left it, to be seen by no other.
#[derive(Debug)]
pub struct Kept(Link);

/// What a session knows of the replica whose link it gave up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) node: NodeId,
    pub(super) caught_up: bool,
    pub(super) read_at: Option<Instant>,
}

/// Pins that leave marks on a link which a reset is not trusted to remove.
const TAINTING: [Pin; 10] = [
    Pin::TemporaryTable,
    Pin::TableLock,
    Pin::UserLock,
    Pin::Handler,
    Pin::UnknownSet,
    Pin::NamedStatement,
    Pin::ReplicationReplay,
    Pin::OpaqueState,
    Pin::Xa,
    Pin::Tunnel,
];

impl Link {
    pub(super) fn new(facts: LinkFacts, serial: u32) -> Self {
        Self {
            has_schema: facts.schema.is_some(),
            facts,
            serial,
            synced: 0,
            role_synced: 0,
            schema_synced: 0,
            charsets_synced: 0,
            caught_up: false,
            read_at: None,
            told: Told::All,
            option: None,
            foreign: false,
            bare: false,
            warned: false,
            listed: false,
            ran: false,
            used: false,
            insert_id: 0,
            tainted: false,
            epoch: 0,
        }
    }

    /// What another session has left: nothing of it counts any more.
    fn into_foreign(self, serial: u32) -> Self {
        let mut facts = self.facts;
        // The reset leaves it; it is selected again all the same, for the rights of today.
        facts.schema = None;
        if let Some(witness) = facts.witness.as_mut() {
            witness.hope_again();
        }
        let Self { has_schema, option, tainted, .. } = self;
        // No reset undoes what taints, or COM_SET_OPTION.
        Self { foreign: true, has_schema, option, tainted, ..Self::new(facts, serial) }
    }

    /// Something happened on it that a reset is not trusted to undo.
    pub(super) fn taint(&mut self) {
        self.tainted = true;
    }
}

impl Kept {
    /// Where it goes to, and what is in force on it.
    #[must_use]
    pub fn facts(&self) -> &LinkFacts {
        &self.0.facts
    }

    /// Whether another session may have it.
    #[must_use]
    pub fn may_change_hands(&self) -> bool {
        !self.0.tainted
    }

    /// Which of the links of its last session it was.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.0.serial
    }

    /// Whether a schema has been selected on it.
    #[must_use]
    pub fn has_schema(&self) -> bool {
        self.0.has_schema
    }
}

impl Session {
    /// Whether the answer to the pending request would tell of warnings that are ours: commands
    /// without text answer with the count that they find (COM_INIT_DB and COM_SET_OPTION of
    /// MySQL 9.7, measured), and some statements ask for it.
    pub(super) fn would_tell_our_warnings(&self, link: &Link) -> bool {
        link.warned
            && self
                .pending
                .as_ref()
                .is_some_and(|pending| pending.class.kind == Kind::Last || !has_text(&pending.ask))
    }

    /// Old names of character sets leave warnings on the link, and so does MySQL's FOUND_ROWS.
    pub(super) fn note_own_warnings(&mut self, step: &Step, slot: Held, reply: &[u8]) {
        let says = matches!(
            step,
            Step::SetUp
                | Step::InsertId
                | Step::Track
                | Step::Role(_)
                | Step::Charsets(_)
                | Step::Variables(_)
        );
        let counted = match step {
            Step::Counts | Step::Found(_) => true,
            Step::AskPosition | Step::Wait => self.found_would_be_lost(slot),
            _ => false,
        };
        let mysql = self.state.dialect.flavour == Flavour::MySql;
        let counted = counted && mysql;
        // MariaDB keeps what is listed over a SET without tables.
        let keeps = !mysql && !matches!(step, Step::SetUp | Step::InsertId);
        let Some(link) = self.link_mut(slot).filter(|_| says || counted) else { return };
        let payload = reply.get(packet::HEADER_LEN..).unwrap_or_default();
        let ok = reply::Ok::parse(payload, link.facts.capabilities);
        link.warned = counted || keeps && link.warned || ok.is_ok_and(|ok| ok.warnings > 0);
    }

    pub(super) fn link(&self, slot: Held) -> Option<&Link> {
        self.links[index(slot)].as_ref()
    }

    pub(super) fn link_mut(&mut self, slot: Held) -> Option<&mut Link> {
        self.links[index(slot)].as_mut()
    }

    /// A link that was opened for this session.
    pub(super) fn link_opened(&mut self, slot: Held, facts: LinkFacts) {
        let link = Link::new(facts, self.next_serial());
        self.take_link(slot, link);
    }

    /// A link out of the pool; `own` when nobody else has used it since this session did.
    pub(super) fn link_attached(&mut self, slot: Held, kept: Kept, own: bool) {
        let link = if own && kept.0.epoch == self.epoch {
            kept.0
        } else {
            kept.0.into_foreign(self.next_serial())
        };
        self.take_link(slot, link);
    }

    /// The session begins anew: what it has left on the link ends, the link serves on.
    pub(super) fn begin_anew(&mut self, slot: Held, out: &mut Outbox) {
        self.close_all_prepared(slot, out);
        if let Some(link) = self.links[index(slot)].take() {
            self.link_forgotten(slot, &link);
            self.links[index(slot)] = Some(link);
            self.make_foreign(slot);
        }
    }

    /// The session's own link is to be as good as another one's.
    pub(super) fn make_foreign(&mut self, slot: Held) {
        let serial = self.next_serial();
        if let Some(link) = self.links[index(slot)].take() {
            self.links[index(slot)] = Some(link.into_foreign(serial));
        }
    }

    fn next_serial(&mut self) -> u32 {
        self.link_serial = self.link_serial.wrapping_add(1);
        self.link_serial
    }

    fn take_link(&mut self, slot: Held, mut link: Link) {
        if slot == Held::Replica
            && let Some(reading) = self.reading.take()
        {
            if reading.node == link.facts.node {
                link.caught_up = reading.caught_up;
                link.read_at = reading.read_at;
            } else {
                self.floor = self.floor.max(reading.read_at);
            }
        }
        self.links[index(slot)] = Some(link);
    }

    /// Takes the link off the session, as the pool is to keep it.
    pub(super) fn part_with(&mut self, slot: Held) -> Option<Kept> {
        let mut link = self.links[index(slot)].take()?;
        self.list_leaves(slot);
        if slot == Held::Replica {
            self.reading = Some(Reading {
                node: link.facts.node,
                caught_up: link.caught_up,
                read_at: link.read_at,
            });
        }
        link.tainted |= self.state.has_role() || link.option.is_some();
        link.has_schema |= self.state.schema().is_some();
        link.epoch = self.epoch;
        Some(Kept(link))
    }

    /// The replica that the session reads from: its link's, or that of the link it gave up.
    pub(super) fn reads_from(&self) -> Option<Reading> {
        let reading = |link: &Link| Reading {
            node: link.facts.node,
            caught_up: link.caught_up,
            read_at: link.read_at,
        };
        self.link(Held::Replica).map(reading).or(self.reading)
    }

    /// What the replica is known to contain is not all any more.
    pub(super) fn outdate_replica(&mut self) {
        if let Some(link) = self.link_mut(Held::Replica) {
            link.caught_up = false;
        }
        if let Some(reading) = self.reading.as_mut() {
            reading.caught_up = false;
        }
    }

    /// Marks the primary's link when the session is pinned to it by what outlasts a reset.
    pub(super) fn mark_link(&mut self) {
        if self.pins.is_empty() || !TAINTING.into_iter().any(|pin| self.pins.has(pin)) {
            return;
        }
        if let Some(link) = self.link_mut(Held::Primary) {
            link.taint();
        }
    }

    /// What is known of the server of a link.
    pub(super) fn server_facts<'a>(
        &self,
        world: &'a World<'_>,
        slot: Held,
    ) -> Option<&'a ServerFacts> {
        let node = world.topology.node(self.link(slot)?.facts.node);
        node.and_then(|node| node.facts.as_deref()).or_else(|| world.topology.facts().map(|f| &**f))
    }

    /// What a link is told after a reset: what a fresh one is told, the character sets of the
    /// login where the reset forgets them, and the session's LAST_INSERT_ID.
    pub(super) fn set_up_again(&self, world: &World<'_>, slot: Held) -> Vec<u8> {
        let Some(link) = self.link(slot) else { return Vec::new() };
        let Some(facts) = self.server_facts(world, slot) else { return Vec::new() };
        let mut sql = setup_statement(facts, slot);
        if let Some(names) = &link.facts.names {
            let rest = sql.split_off(b"SET ".len());
            sql.extend_from_slice(b"NAMES ");
            sql.extend_from_slice(names);
            sql.extend_from_slice(b", ");
            sql.extend_from_slice(&rest);
        }
        if slot == Held::Primary && self.carried.insert_id != 0 {
            let insert_id = format!(", last_insert_id={}", self.carried.insert_id);
            sql.extend_from_slice(insert_id.as_bytes());
        }
        sql
    }

    /// A KILL of the client is on its way: what its link suffers by it is no loss of a server.
    pub fn doom(&mut self) {
        self.doomed = true;
    }

    /// A KILL is on its way to the server's thread behind the running command: whoever has the
    /// link next must not be hit by it.
    pub fn link_is_shot_at(&mut self) {
        for link in self.links.iter_mut().flatten() {
            link.taint();
        }
    }
}
