//! The client's command while it is on its way.

use std::time::Instant;

use crate::protocol::packet::Body;
use crate::protocol::walker::Expect;
use crate::router::Class;
use crate::router::policy::Decision;
use crate::session::role::RoleAsked;
use crate::session::witness::Guard;

/// A command of the client's on its way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ask: Ask,
    pub(super) class: Class,
    pub(super) expect: Expect,
    /// The command as the client sent it, whole, or its first part when it is streamed.
    pub(super) wire: Vec<u8>,
    /// Where the SQL text begins in `wire`; its end when there is none.
    pub(super) text_at: usize,
    pub(super) received: Instant,
    pub(super) way: Way,
}

/// What has become of a command so far: nothing, as a rule.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// The hold ends then; set when it begins.
    pub(super) hold_until: Option<Instant>,
    pub(super) decision: Option<Decision>,
    /// Servers that have failed this request, as bits by node index.
    pub(super) avoid: u64,
    /// The primary was asked for its position on behalf of this request.
    pub(super) asked: bool,
    /// The queue for a link is left then; set when it is first entered.
    pub(super) queue_until: Option<Instant>,
    /// Our own statements have left nothing that the request would be told of.
    pub(super) silenced: bool,
    /// The link was made to find the rows again that FOUND_ROWS tells of, or refused to.
    pub(super) found_again: bool,
    /// The statement was prepared with numbers of ours in its text, for this once.
    pub(super) counted: bool,
    pub(super) repeated: bool,
    pub(super) reprepared: bool,
    /// A link to the primary broke before the request could be sent there.
    pub(super) relinked: bool,
    /// A read-only transaction must be opened on the primary first: the replica's was ended.
    pub(super) reopen: bool,
    /// What is still to come of a command that is streamed.
    pub(super) body: Option<Body>,
    /// Whom a KILL concerns, by the id that a client was given, and whether its connection ends.
    pub(super) kill: Option<(u64, bool)>,
    /// Whom a KILL with an expression concerns: the query that tells, to be asked first.
    pub(super) whom: Option<(Box<[u8]>, bool)>,
    /// It shows the client's own trackers, so that the link must have them meanwhile.
    pub(super) trackers: Trackers,
    /// The refusal to pass on when the hold runs out, and the generation that gave it.
    pub(super) refusal: Option<(Vec<u8>, u64)>,
    /// Whether the link that it resets was asked for its role.
    pub(super) role: RoleAsked,
    /// How many commands of our own it has taken so far.
    pub(super) steps: u16,
    /// What makes its outcome known.
    pub(super) guard: Guard,
    /// The answer to a write, which the client gets when its transaction is committed.
    pub(super) kept: Vec<u8>,
}

/// Whether a statement shows how the trackers are set, which on a link is our way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Trackers {
    /// It does not.
    #[default]
    Ours,
    /// It does: they must be set as the client has them first.
    Wanted,
    /// That has been done.
    Shown,
}

/// What the client's command is, as far as the reply and the state are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Query,
    Prepare { id: u32 },
    Execute { id: u32 },
    Fetch { id: u32 },
    ResetStatement { id: u32 },
    InitDb(Vec<u8>),
    ResetConnection,
    SetOption(u16),
    Ping,
    Tunnel,
    Other,
}

impl Pending {
    /// A command that has just come.
    pub(super) fn new(
        ask: Ask,
        class: Class,
        expect: Expect,
        wire: &[u8],
        received: Instant,
    ) -> Self {
        let way = Way::default();
        Self { ask, class, expect, wire: wire.to_vec(), text_at: usize::MAX, received, way }
    }

    /// The SQL text that came with it; empty where none did.
    pub(super) fn text(&self) -> &[u8] {
        self.wire.get(self.text_at..).unwrap_or_default()
    }

    /// Becomes a command that has just come, with the room for its bytes that it has.
    pub(super) fn become_new(
        &mut self,
        ask: Ask,
        class: Class,
        expect: Expect,
        wire: &[u8],
        received: Instant,
    ) {
        self.ask = ask;
        self.class = class;
        self.expect = expect;
        self.wire.clear();
        self.wire.extend_from_slice(wire);
        self.text_at = usize::MAX;
        self.received = received;
        self.way = Way::default();
    }
}
