//! The commands of our own that a link may need before the client's.

use crate::router::policy::Held;
use crate::session::witness::WitnessStep;

/// One of our own commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// COM_RESET_CONNECTION: another session has used the link.
    Reset,
    /// Tell the link what one of its kind is told when it is opened.
    SetUp,
    /// Set what LAST_INSERT_ID is to answer; also leaves neither warnings nor rows behind.
    InsertId,
    /// Ask for the numbers that the session must carry when it gives the link up.
    Counts,
    /// Ask this link for FOUND_ROWS: the pending request wants to know it elsewhere, or a question
    /// of ours would put another number in its place.
    Found(Held),
    /// Have the link find as many rows as FOUND_ROWS tells, which were found elsewhere.
    FindAgain(Vec<u8>),
    /// Ask the replica for user variables that only its link has.
    AskStrays,
    /// Set them.
    SetStrays(Vec<u8>),
    /// Switch the trackers on again after a reset.
    Track,
    /// Repeat the client's COM_SET_OPTION.
    Option(u16),
    /// Select the schema.
    Schema(Vec<u8>),
    /// SET ROLE.
    Role(Vec<u8>),
    /// SET those variables that decide what the literals of others mean.
    Charsets(Vec<u8>),
    /// SET variables.
    Variables(Vec<u8>),
    /// Prepare a statement that the link does not know.
    Prepare(u32),
    /// The same with the session's own numbers in its text, for one execution.
    PrepareCounted(u32),
    /// Ask the primary for its position.
    AskPosition,
    /// Wait on the replica until it has applied the session's token.
    Wait,
    /// End the read-only transaction that is open on the replica.
    EndReplicaTransaction,
    /// Open the read-only transaction on the primary instead.
    ReopenOnPrimary,
    /// Set the trackers as the client has them, for a statement that shows them.
    ShowTrackers,
    /// Ask what the expression of a KILL comes to.
    Whom(Box<[u8]>),
    /// Have the server list an error that the client was told without it.
    Tell(Vec<u8>),
    /// Have the server list a mark, which tells whether the request empties lists.
    Mark,
    /// Ask whether it is still there.
    AskMark,
    /// Ask for the role, which a reset leaves.
    AskRole,
    /// Repeat a COM_PING that was answered without a server.
    Ping,
    /// Prepare a statement of the transaction that is to be done again.
    ReplayPrepare(usize),
    /// Set the number that a column with AUTO_INCREMENT got in it.
    ReplayNumber(u64),
    /// Do the next of its commands again.
    Replay,
    /// See to it that the outcome of a commit can be known.
    Witness(WitnessStep),
}

impl Step {
    /// The link that a step concerns when the request is for `slot`.
    pub(super) fn slot(&self, slot: Held) -> Held {
        match self {
            Self::EndReplicaTransaction | Self::Wait | Self::AskStrays => Held::Replica,
            Self::AskPosition
            | Self::ReopenOnPrimary
            | Self::ReplayPrepare(_)
            | Self::ReplayNumber(_)
            | Self::Replay
            | Self::Witness(_) => Held::Primary,
            Self::Found(on) => *on,
            Self::Reset
            | Self::SetUp
            | Self::InsertId
            | Self::Counts
            | Self::FindAgain(_)
            | Self::SetStrays(_)
            | Self::Track
            | Self::Option(_)
            | Self::Schema(_)
            | Self::Role(_)
            | Self::Charsets(_)
            | Self::Variables(_)
            | Self::PrepareCounted(_)
            | Self::ShowTrackers
            | Self::Whom(_)
            | Self::Tell(_)
            | Self::Mark
            | Self::AskMark
            | Self::AskRole
            | Self::Ping
            | Self::Prepare(_) => slot,
        }
    }

    /// Whether it does something of a transaction again.
    pub(super) fn is_replay(&self) -> bool {
        matches!(self, Self::ReplayPrepare(_) | Self::ReplayNumber(_) | Self::Replay)
    }

    /// Whether it brings the link closer to the session's state.
    pub(super) fn is_state(&self) -> bool {
        matches!(self, Self::Schema(_) | Self::Role(_) | Self::Charsets(_) | Self::Variables(_))
    }
}
