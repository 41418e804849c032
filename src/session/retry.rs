//! May a request be sent again? A table over (what it is, how far it got), never over texts.

use crate::protocol::reply;
use crate::router::policy::asks_one_host;
use crate::router::{Class, Effects, Kind, Verb};

/// How far a request had come when its link broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Progress {
    /// No byte of the request itself was sent.
    NotSent,
    /// Sent, and nothing of an answer passed on to the client.
    Sent,
    /// Part of an answer was passed on.
    Answering,
}

/// What to do about a request whose link broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Send it elsewhere; nobody can tell the difference.
    Again,
    /// The transaction around it is rolled back for certain: 1213/40001.
    TransactionLost,
    /// Answer OK: what it asked for has happened by itself (ROLLBACK).
    DoneByItself,
    /// Say that the outcome is unknown, and close.
    OutcomeUnknown,
    /// Say that the answer was cut off, and close.
    AnswerCut,
}

/// What may commit the open transaction, other than the beginning of another one.
pub(super) const MAY_COMMIT: Effects = Effects::OPAQUE
    .with(Effects::DDL)
    .with(Effects::ACCOUNTS)
    .with(Effects::LOCK)
    .with(Effects::XA)
    .with(Effects::SET);

/// Decides for one request. `in_transaction` is the state before the request; `repeated` says
/// that it has been repeated once already.
#[must_use]
pub fn after_link_loss(
    class: &Class,
    progress: Progress,
    in_transaction: bool,
    repeated: bool,
) -> Verdict {
    match (progress, in_transaction) {
        (Progress::Answering, _) => Verdict::AnswerCut,
        (Progress::NotSent, false) => Verdict::Again,
        (Progress::NotSent, true) => Verdict::TransactionLost,
        (Progress::Sent, true) => sent_in_transaction(class),
        (Progress::Sent, false) if reads(class) && !repeated => Verdict::Again,
        (Progress::Sent, false) if harmless(class) && !repeated => Verdict::Again,
        (Progress::Sent, false) => Verdict::OutcomeUnknown,
    }
}

/// Whether it changes nothing, wherever it runs.
fn reads(class: &Class) -> bool {
    let asks = matches!(class.verb, Verb::Select | Verb::Show) && asks_one_host(class);
    class.kind == Kind::Read || asks && !class.multi
}

/// The transaction died with its connection unless the statement itself may have committed it.
fn sent_in_transaction(class: &Class) -> Verdict {
    let begins = Effects::BEGIN.with(Effects::BEGIN_READ_ONLY);
    let may_commit = class.multi || class.effects.any(MAY_COMMIT.with(begins));
    match class.verb {
        Verb::Rollback if is_plain_rollback(class) => Verdict::DoneByItself,
        Verb::Rollback if !class.multi => Verdict::TransactionLost,
        verb if stays_inside(verb) && !may_commit => Verdict::TransactionLost,
        _ => Verdict::OutcomeUnknown,
    }
}

/// Whether a statement with this verb leaves the transaction around it open, by the verb alone.
pub(super) fn stays_inside(verb: Verb) -> bool {
    matches!(
        verb,
        Verb::Select
            | Verb::Insert
            | Verb::Update
            | Verb::Delete
            | Verb::Replace
            | Verb::With
            | Verb::Values
            | Verb::Table
            | Verb::Show
            | Verb::Describe
            | Verb::Explain
            | Verb::Savepoint
            | Verb::Do
    )
}

/// Whether it only ends the transaction: another one that it begins would be missing.
pub(super) fn is_plain_rollback(class: &Class) -> bool {
    is_plain(class, Verb::Rollback)
}

/// The same of a COMMIT.
pub(super) fn is_plain_commit(class: &Class) -> bool {
    is_plain(class, Verb::Commit)
}

fn is_plain(class: &Class, verb: Verb) -> bool {
    class.verb == verb && !class.multi && !class.effects.any(Effects::CHAIN)
}

/// Statements that change nothing but a session which is gone with its link. A COMMIT is one where
/// no transaction is open.
fn harmless(class: &Class) -> bool {
    let only_session = match class.verb {
        Verb::Begin | Verb::Use | Verb::Empty | Verb::Rollback | Verb::Commit => true,
        // SET TRANSACTION; others may set what outlives the session.
        Verb::Set => {
            class.effects.any(Effects::NEXT_TRANSACTION) && !class.effects.any(Effects::SET)
        }
        _ => false,
    };
    only_session && !class.multi
}

/// Read-only servers (1792, 1290, 1836), what a replica may not have yet (1146, 1049, 1054, 1305,
/// 1045, 1044, 1142, 1143, 1370), a command it does not know (1047), and its own bound of prepared
/// statements (1461).
const REFUSALS: [u16; 14] =
    [1792, 1290, 1836, 1146, 1049, 1054, 1305, 1045, 1044, 1142, 1143, 1370, 1047, 1461];

/// Whether a replica's refusal proves that nothing was executed there, so that the statement
/// may run on the primary without the client noticing (ground rule G4).
#[must_use]
pub fn replica_refused(code: u16) -> bool {
    REFUSALS.contains(&code)
}

/// Whether the refusal says "this writes": its digest is remembered.
#[must_use]
pub fn refused_as_write(code: u16) -> bool {
    matches!(code, 1792 | 1290 | 1836)
}

/// Whether an error of a primary says that it has become read-only and did nothing. 1290 names
/// the option that prevents the statement; other options give the same code.
#[must_use]
pub fn primary_is_read_only(code: u16, message: &[u8]) -> bool {
    let names = |needle: &[u8]| memchr::memmem::find(message, needle).is_some();
    code == 1836 || (code == 1290 && (names(b"read-only") || names(b"read_only")))
}

/// Whether an error of a primary says that it is about to be none any more and did nothing: it has
/// become read-only or, where `kept` and hence soon replaced, has not begun a commit because it
/// shuts down (3100 of MySQL; of a group replication that nobody keeps it may say something else).
#[must_use]
pub fn primary_gives_up(code: u16, message: &[u8], kept: bool) -> bool {
    let before_commit = || memchr::memmem::find(message, b"before_commit").is_some();
    primary_is_read_only(code, message) || (kept && code == 3100 && before_commit())
}

/// Whether the error is a server's goodbye: it shuts down, and ends the connection.
///
/// MySQL says so to whatever comes on a connection that it has not closed yet. What a statement
/// has done that was under way then, nobody can tell by it. A program that signals the number does
/// so by another SQLSTATE.
#[must_use]
pub fn is_goodbye(payload: &[u8]) -> bool {
    let state = Some(*b"08S01");
    reply::Err::parse(payload).is_ok_and(|error| error.code == 1053 && error.state == state)
}

/// Whether the transaction may be gone with this error: of these it is known that only the
/// statement was undone. Others (1205, 1206, 1213) roll everything back, or may.
pub(super) fn may_have_rolled_back(error: u16) -> bool {
    const ONLY_THE_STATEMENT: [u16; 24] = [
        0, 1048, 1054, 1062, 1064, 1109, 1136, 1146, 1149, 1172, 1242, 1264, 1265, 1292, 1305,
        1364, 1365, 1366, 1406, 1451, 1452, 1586, 1644, 1690,
    ];
    !ONLY_THE_STATEMENT.contains(&error)
}
