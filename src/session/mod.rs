//! One client's session: events in, actions out.
//!
//! Does not know: sockets, tasks, timers, how a link is opened, who else is connected, or how
//! the topology was observed. It is handed bytes and events with a [`World`] to look at, and
//! fills an [`Outbox`].
//!
//! A command's way: [`intake`] reads it and makes it the pending request; [`attach`] decides
//! where it runs and brings the link into the session's state; [`exchange`] relays the reply;
//! [`outcome`] learns from it. [`loss`] is what happens when a link breaks on the way.

use std::time::Instant;

use crate::protocol::flags::{Capabilities, Status};
use crate::protocol::packet::Body;
use crate::protocol::walker::ReplyWalker;
use crate::router::Dialect;
use crate::router::policy::Held;
use crate::session::action::{Event, Interest, LinkFacts, Login, Outbox, World};
use crate::session::diagnostics::Listed;
use crate::session::failure::Failure;
use crate::session::links::{Link, Reading};
use crate::session::pending::Pending;
use crate::session::pin::{Pin, Pins};
use crate::session::release::Carried;
use crate::session::state::State;
use crate::session::statements::Statements;
use crate::session::tracking::Tracking;
use crate::session::transcript::Transcript;
use crate::topology::{Flavour, NodeId};

pub mod action;
mod answer;
mod attach;
mod diagnostics;
mod doubt;
mod exchange;
pub mod failure;
mod holdings;
mod intake;
pub mod links;
mod loss;
mod options;
mod outcome;
mod pending;
mod phrase;
pub mod pin;
mod prepared;
mod refused;
mod release;
mod replay;
pub mod retry;
mod role;
mod single;
pub mod state;
pub mod statements;
mod step;
mod stray;
mod sync;
pub mod tracking;
mod transcript;
mod user_variables;
mod witness;

pub use phrase::setup_statement;
pub use witness::Witness;

#[cfg(test)]
mod tests;

/// One client's session.
#[derive(Debug)]
pub struct Session {
    /// The id that the client was greeted with.
    connection_id: u32,
    login: Login,
    /// The dialect that a reset returns to.
    first_dialect: Dialect,
    state: State,
    tracking: Tracking,
    statements: Statements,
    /// Refused changes of user.
    refused_changes: u8,
    /// The client has been killed.
    doomed: bool,
    pins: Pins,
    holdings: Option<Box<holdings::Holdings>>,
    links: [Option<Link>; 2],
    /// Counts the session's links.
    link_serial: u32,
    /// User variables that only the replica's link has.
    strays: Option<Box<stray::Strays>>,
    /// Counts resets and changes of user: a link given up before one knows nothing of now.
    epoch: u32,
    /// The replica whose link was given up.
    reading: Option<Reading>,
    /// What links told before they were given up.
    carried: Carried,
    /// The warnings and errors that the previous statements have left.
    listed: Listed,
    /// No transaction is open that no flag shows.
    settled: bool,
    /// Where the previous statement ran.
    last: Option<Held>,
    /// The link on which it ran is gone, and with it its warnings and row counts.
    last_lost: bool,
    /// Where a transaction is open.
    transaction: Option<Held>,
    /// It has written.
    has_written: bool,
    /// What it has done so far, or what is to be done again before it is open anywhere.
    transcript: Option<Box<Transcript>>,
    /// A statement that ends transactions has failed, before that or after.
    doubtful: bool,
    /// When something was last read whose position the token does not cover.
    floor: Option<Instant>,
    /// It has defined tables or the like since its login or reset.
    has_defined: bool,
    /// Something went down while the client was idle; the next command is told.
    lost: Option<Failure>,
    phase: Phase,
    pending: Option<Box<Pending>>,
    /// COM_PING was answered here since the last statement: servers forget row counts over it.
    pinged: bool,
    /// COM_SET_OPTION's last word, which new links must hear.
    option: Option<u16>,
    commands: u64,
    phase_since: Instant,
    /// When to try the primary again after it took no link.
    redial_at: Option<Instant>,
}

/// Where the session stands.
#[derive(Debug)]
enum Phase {
    /// Waiting for a command.
    Idle,
    /// A link is being opened for the pending request.
    Dialing,
    /// Waiting for a primary.
    Holding,
    /// One of our own commands is under way, on behalf of the pending request.
    Own(Box<Own>),
    /// The pending request is under way.
    Exchanging(Exchange),
    /// The server asked for a file; the client sends it.
    Uploading(Exchange, Body),
    /// The client authenticates anew.
    ChangingUser,
    /// Bytes are copied both ways, unread.
    Tunnel,
    /// Nothing more will be done.
    Closed,
}

/// The reply to the client's command under way.
#[derive(Debug)]
struct Exchange {
    slot: Held,
    node: NodeId,
    walker: ReplyWalker,
    /// A byte of the reply went to the client.
    forwarded: bool,
    /// The first ERR's code; 0 while there was none.
    error: u16,
    /// The reply carried a GTID of the session's own.
    wrote: bool,
    /// A transaction was open when the request was sent.
    in_transaction: bool,
    /// The link is not the one whose flags the client is to see.
    lent: bool,
    /// The reply carried a result set.
    rows: bool,
    /// How many rows its last OK says were changed; `None` when rows came last.
    changed: Option<u64>,
    /// The transcript of the transaction hears it.
    noted: bool,
    /// The transaction around it is ours: the client knows of none.
    wrapped: bool,
    /// The version of the session's state when the request was sent.
    version: u32,
}

/// One of our own commands under way.
#[derive(Debug)]
struct Own {
    slot: Held,
    step: step::Step,
    walker: ReplyWalker,
    reply: Vec<u8>,
    failed: Option<Vec<u8>>,
}

impl Session {
    /// A session right after its login. `link` is the primary's link when the login opened one.
    #[must_use]
    pub fn new(
        connection_id: u32,
        login: Login,
        dialect: Dialect,
        link: Option<LinkFacts>,
        now: Instant,
    ) -> Self {
        let status = Status(link.as_ref().map_or(login.status, |link| link.status));
        let state = State::new(dialect, login.schema.clone(), status);
        let tracking = Tracking::of(&login.trackers);
        let mut session = Self {
            connection_id,
            login,
            first_dialect: dialect,
            state,
            tracking,
            statements: Statements::default(),
            refused_changes: 0,
            doomed: false,
            pins: Pins::default(),
            holdings: None,
            links: [None, None],
            link_serial: 0,
            strays: None,
            epoch: 0,
            reading: None,
            carried: Carried::at_login(dialect.flavour),
            listed: Listed::default(),
            settled: true,
            last: None,
            last_lost: false,
            transaction: None,
            has_written: false,
            transcript: None,
            doubtful: false,
            has_defined: false,
            floor: None,
            lost: None,
            phase: Phase::Idle,
            pending: None,
            pinged: false,
            option: None,
            commands: 0,
            phase_since: now,
            redial_at: None,
        };
        session.pin_login();
        if let Some(facts) = link {
            session.link_opened(Held::Primary, facts);
        }
        session
    }

    /// Takes bytes from the client and says how many of them it has used. The rest must be
    /// given again, with more behind it, when [`Session::interest`] asks for the client.
    pub fn on_client(&mut self, world: &mut World<'_>, input: &[u8], out: &mut Outbox) -> usize {
        match &mut self.phase {
            Phase::Idle => self.take_command(world, input, out),
            Phase::Exchanging(exchange) => {
                let slot = exchange.slot;
                self.stream_request(slot, input, out)
            }
            Phase::Uploading(..) => self.stream_file(input, out),
            Phase::Tunnel => {
                out.links[0].extend_from_slice(input);
                input.len()
            }
            Phase::Dialing
            | Phase::Holding
            | Phase::Own(_)
            | Phase::ChangingUser
            | Phase::Closed => 0,
        }
    }

    /// Takes bytes from a link and says how many of them it has used.
    pub fn on_server(
        &mut self,
        world: &mut World<'_>,
        slot: Held,
        input: &[u8],
        out: &mut Outbox,
    ) -> usize {
        match &mut self.phase {
            Phase::Exchanging(exchange) | Phase::Uploading(exchange, _)
                if exchange.slot == slot =>
            {
                self.relay(world, input, out)
            }
            Phase::Own(own) if own.slot == slot => self.swallow(world, input, out),
            Phase::Tunnel if slot == Held::Primary => {
                out.client.extend_from_slice(input);
                self.leave_refused_tunnel(world, input, out);
                input.len()
            }
            Phase::Tunnel | Phase::Closed => input.len(),
            Phase::Idle
            | Phase::Dialing
            | Phase::Holding
            | Phase::Own(_)
            | Phase::Exchanging(_)
            | Phase::Uploading(..)
            | Phase::ChangingUser => {
                // Unsolicited: a server that says goodbye (4031, 1927). It must never be taken
                // for the answer to the next command.
                self.give_up_link(world, slot, out);
                input.len()
            }
        }
    }

    /// A dump that the server refuses leaves a session like any other.
    fn leave_refused_tunnel(&mut self, world: &World<'_>, input: &[u8], out: &mut Outbox) {
        if self.pending.is_none() {
            return;
        }
        let payload = input.get(crate::protocol::packet::HEADER_LEN..).unwrap_or_default();
        if payload.first() == Some(&0xFF) {
            self.pins.remove(Pin::Tunnel);
            self.finished_here(world, crate::protocol::reply::Err::code_of(payload), out);
        } else {
            self.pending = None;
        }
    }

    /// Takes an event.
    pub fn on_event(&mut self, world: &mut World<'_>, event: Event, out: &mut Outbox) {
        match event {
            Event::Dialed(slot, facts) => {
                self.link_opened(slot, facts);
                self.proceed(world, out);
            }
            Event::Attached { slot, link, own } => {
                self.link_attached(slot, *link, own);
                self.proceed(world, out);
            }
            Event::NoLink { slot, node, why } => self.no_link(world, slot, node, why, out),
            Event::Release => self.release(world, out),
            Event::DialFailed { slot, node, refusal } => {
                self.dial_failed(world, slot, node, refusal, out);
            }
            Event::LinkClosed(slot) => self.link_lost(world, slot, out),
            Event::TopologyMoved => self.topology_moved(world, out),
            Event::Deadline => self.deadline_passed(world, out),
            Event::UserChanged(login) => self.user_changed(world, login, out),
            Event::UserKept if self.login.sole => self.close(world.now, out),
            Event::UserKept => self.user_kept(world, out),
            Event::Killed(outcome) => self.answer_kill(world, outcome, out),
        }
    }

    /// What the session waits for.
    #[must_use]
    pub fn interest(&self) -> Interest {
        let mut interest = Interest::NOTHING;
        match &self.phase {
            Phase::Idle | Phase::Tunnel => {
                interest.client = true;
                interest.links = [true; 2];
            }
            Phase::Dialing | Phase::ChangingUser | Phase::Closed => {}
            Phase::Holding => interest.topology = true,
            Phase::Own(own) => {
                interest.topology = true;
                interest.links[action::index(own.slot)] = true;
            }
            Phase::Exchanging(exchange) => {
                interest.topology = true;
                interest.links[action::index(exchange.slot)] = true;
                interest.client = self.pending.as_ref().is_some_and(|p| p.way.body.is_some());
            }
            Phase::Uploading(exchange, _) => {
                interest.client = true;
                interest.links[action::index(exchange.slot)] = true;
            }
        }
        interest
    }

    /// When the session is to be told that the time is over, if it waits for one.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if !matches!(self.phase, Phase::Holding) {
            return None;
        }
        self.redial_at.or_else(|| self.pending.as_ref().and_then(|pending| pending.way.hold_until))
    }

    /// Whether the session is between commands and holds nothing that a close would destroy.
    #[must_use]
    pub fn can_leave(&self) -> bool {
        matches!(self.phase, Phase::Idle) && self.transaction.is_none() && !self.is_suspended()
    }

    /// Whether a command is under way, for idle deadlines.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// When the present phase began.
    #[must_use]
    pub fn phase_since(&self) -> Instant {
        self.phase_since
    }

    /// What the session is doing, in an operator's word.
    #[must_use]
    pub fn phase_word(&self) -> &'static str {
        match &self.phase {
            Phase::Idle if self.transaction.is_some() || self.is_suspended() => {
                "idle in transaction"
            }
            Phase::Idle => "idle",
            Phase::Dialing => "connecting",
            Phase::Holding => "waiting for a primary",
            Phase::Own(_) => "synchronising",
            Phase::Exchanging(_) => "running",
            Phase::Uploading(..) => "uploading",
            Phase::ChangingUser => "logging in",
            Phase::Tunnel => "tunnel",
            Phase::Closed => "closing",
        }
    }

    /// Why the session may not move.
    #[must_use]
    pub fn pins(&self) -> Pins {
        self.pins
    }

    /// The current schema.
    #[must_use]
    pub fn schema(&self) -> Option<&[u8]> {
        self.state.schema()
    }

    /// Commands taken so far.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// The server of each link, if open: primary, replica.
    #[must_use]
    pub fn nodes(&self) -> [Option<NodeId>; 2] {
        let node =
            |slot: usize| self.links.get(slot).and_then(Option::as_ref).map(|link| link.facts.node);
        [node(0), node(1)]
    }

    /// The server that works for the session now, for its load.
    #[must_use]
    pub fn running_on(&self) -> Option<NodeId> {
        self.exchange().map(|exchange| exchange.node)
    }

    /// The server and its thread that work for the session now.
    #[must_use]
    pub fn running_thread(&self) -> Option<(NodeId, u32)> {
        let slot = match &self.phase {
            Phase::Exchanging(exchange) | Phase::Uploading(exchange, _) => exchange.slot,
            Phase::Own(own) => own.slot,
            _ => return None,
        };
        self.link(slot).map(|link| (link.facts.node, link.facts.thread_id))
    }

    /// The session's own `wait_timeout`, in seconds, when the client has set it.
    #[must_use]
    pub fn wait_timeout(&self) -> Option<u64> {
        let text = std::str::from_utf8(self.state.variable(b"wait_timeout")?).ok()?;
        text.parse().ok()
    }

    // --- shared by the parts below ---

    fn drop_link(&mut self, slot: Held, out: &mut Outbox) {
        if let Some(link) = self.links[action::index(slot)].take() {
            out.requests.push(action::Request::Drop(slot));
            self.link_forgotten(slot, &link);
        }
    }

    /// Bookkeeping for a link that is gone, whoever closed it.
    fn link_forgotten(&mut self, slot: Held, link: &Link) {
        self.statements.link_gone(slot);
        if slot == Held::Replica {
            // What was read there may be newer than what another server has.
            self.floor = self.floor.max(link.read_at);
        }
        let list_lost = self.list_leaves(slot);
        self.carried.link_gone(slot);
        self.strays_lost(slot, link);
        if slot == Held::Primary {
            self.replay_interrupted();
            self.witness_gone();
        }
        if self.last == Some(slot) || list_lost {
            self.last = self.last.filter(|last| *last != slot);
            self.last_lost = true;
        }
    }

    /// Pins that bind every statement to the primary's link. An open cursor binds only its own
    /// fetches.
    fn binding_pins(&self) -> Pins {
        let mut pins = self.pins;
        pins.remove(Pin::Cursor);
        pins
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        if !matches!(phase, Phase::Holding) {
            self.redial_at = None;
        }
        self.phase = phase;
        self.phase_since = now;
    }

    fn client_capabilities(&self) -> Capabilities {
        self.login.capabilities
    }

    fn user_changed(&mut self, world: &World<'_>, login: Option<Login>, out: &mut Outbox) {
        let Some(login) = login else {
            self.enter(Phase::Closed, world.now);
            return;
        };
        self.first_dialect.charset = state::charset_of_collation(login.collation);
        // Pools hand a connection on by this command: who gets it must not read what is older
        // than what was read or written before.
        let token = std::mem::take(&mut self.state.token);
        let state = State::new(self.first_dialect, login.schema.clone(), Status(login.status));
        let former = std::mem::replace(&mut self.state, state);
        if login.same_user && self.state.dialect.flavour == Flavour::MariaDb {
            self.state.inherit_role(&former);
        }
        self.state.token = token;
        self.login = login;
        self.forget_everything(out);
        self.carried = Carried::default();
        self.enter(Phase::Idle, world.now);
    }

    fn pin_login(&mut self) {
        if self.login.sole {
            self.pins.add(Pin::Login);
        }
    }

    /// What a reset or a change of user ends: statements, pins, trackers, a lost state. What
    /// COM_SET_OPTION said outlives both (measured with MariaDB 10.11 and MySQL 9.7).
    fn forget_everything(&mut self, out: &mut Outbox) {
        self.forget_statements(out);
        self.pins = Pins::default();
        self.holdings = None;
        self.pin_login();
        self.tracking = Tracking::of(&self.login.trackers);
        self.transaction = None;
        self.transcript = None;
        self.doubtful = false;
        self.has_defined = false;
        self.lost = None;
        self.strays = None;
        self.last = None;
        self.last_lost = false;
        self.epoch = self.epoch.wrapping_add(1);
        self.listed = Listed::default();
        self.settled = true;
        // Their answers tell of no rows, as a ping's does.
        self.pinged = true;
    }
}
