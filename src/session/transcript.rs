//! What an open transaction has done so far: its commands, and a digest of each answer. Sent again
//! on another server, the commands do the same if the answers are the same.
//!
//! Does not know: links, when it is sent again, what becomes of the client where answers differ.

use xxhash_rust::xxh3::Xxh3;

use crate::protocol::flags::{Capabilities, Status};
use crate::protocol::packet;
use crate::protocol::reply;
use crate::protocol::walker::{Expect, Kind};

/// Most commands that are kept of a transaction.
const COMMANDS_MAX: usize = 256;

/// How often a transaction is begun again on a further server before it is given up.
const ATTEMPTS_MAX: u8 = 3;

/// The commands of an open transaction, and what was answered.
#[derive(Default)]
pub(super) struct Transcript {
    /// The commands' bytes, one behind another; the last may be under way still.
    bytes: Vec<u8>,
    said: Vec<Said>,
    /// The command whose answer comes in.
    open: Option<Said>,
    /// The texts of what was executed by the id of a prepared statement.
    texts: Vec<Text>,
    /// Listens to the answer that comes in.
    digest: Xxh3,
    /// A transaction was open behind one of them. Before that they say how it is to be.
    begun: bool,
    /// It cannot be said again.
    sealed: bool,
    /// How often it was begun again.
    attempts: u8,
    again: Option<Again>,
}

/// One command, and what was answered.
#[derive(Debug, Clone, Copy)]
struct Said {
    /// Where its bytes end.
    end: usize,
    kind: SaidKind,
    /// How its answer is read.
    expect: Expect,
    watching: bool,
    answer: u128,
    /// It had rows.
    rows: bool,
    /// The number that a column with AUTO_INCREMENT got; 0 for none.
    insert_id: u64,
}

#[derive(Debug, Clone, Copy)]
enum SaidKind {
    /// Its bytes are as they were sent.
    Text,
    /// Its bytes are the payload of an execution of this one of the texts.
    Execution(usize),
}

/// A prepared statement that was executed.
#[derive(Debug)]
struct Text {
    /// The client's id of it, which stands for no other in the session.
    id: u32,
    text: Vec<u8>,
    /// The server's id of it, on the link on which it is said again.
    on_link: Option<u32>,
}

/// How far it has been said again.
#[derive(Debug, Clone, Copy, Default)]
struct Again {
    next: usize,
    /// The next one's number was set, or cannot be.
    numbered: bool,
}

/// A command to be noted.
pub(super) enum Command<'a> {
    /// As it was sent.
    Text(&'a [u8]),
    /// An execution.
    Execution {
        /// The client's id of the statement.
        id: u32,
        /// The statement's text.
        text: &'a [u8],
        /// The payload, with the types of its parameters.
        payload: &'a [u8],
    },
}

/// What is to be sent next where a transaction is begun again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The statement with this number is to be prepared.
    Prepare(usize),
    /// The next number of a column with AUTO_INCREMENT is to be set.
    Number(u64),
    /// A command, whose answer is to be heard.
    Say,
    /// Nothing: all was said.
    Done,
}

impl Transcript {
    /// Something happened that cannot be done again; what was kept is given back.
    pub(super) fn seal(&mut self) {
        *self = Self { sealed: true, ..Self::default() };
    }

    /// Whether it can be said again from its beginning.
    pub(super) fn is_whole(&self) -> bool {
        !self.sealed && !self.said.is_empty() && self.attempts < ATTEMPTS_MAX
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Whether it holds more than what was said of a transaction that is still to begin.
    pub(super) fn is_begun(&self) -> bool {
        self.begun
    }

    /// A statement of it has got a number by AUTO_INCREMENT.
    pub(super) fn has_numbered(&self) -> bool {
        self.said.iter().any(|said| said.insert_id != 0)
    }

    /// A statement of it has found rows.
    pub(super) fn has_queried(&self) -> bool {
        self.said.iter().any(|said| said.rows)
    }

    // --- while it goes on ---

    /// Notes the command that is sent now, in place of one whose answer never came. False when
    /// there is no room for it, and it is sealed.
    pub(super) fn note(
        &mut self,
        command: &Command<'_>,
        expect: Expect,
        watching: bool,
        bytes_max: usize,
    ) -> bool {
        let start = self.said.last().map_or(0, |said| said.end);
        self.bytes.truncate(start);
        let (kind, bytes) = match command {
            Command::Text(wire) => (SaidKind::Text, *wire),
            Command::Execution { id, text, payload } => {
                let known = self.texts.iter().position(|known| known.id == *id);
                let number = known.unwrap_or_else(|| {
                    self.texts.push(Text { id: *id, text: text.to_vec(), on_link: None });
                    self.texts.len() - 1
                });
                (SaidKind::Execution(number), *payload)
            }
        };
        let texts: usize = self.texts.iter().map(|text| text.text.len()).sum();
        let size = texts.saturating_add(start).saturating_add(bytes.len());
        if self.said.len() >= COMMANDS_MAX || size > bytes_max {
            self.seal();
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        self.open = Some(Said {
            end: self.bytes.len(),
            kind,
            expect,
            watching,
            answer: 0,
            rows: false,
            insert_id: 0,
        });
        self.listen();
        true
    }

    fn listen(&mut self) {
        self.digest.reset();
    }

    /// Hears part of an answer, as it was sent.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// Hears a packet that is read. Of what it says of the session only that counts in which two
    /// servers agree: no trackers, no words, no flags but that of an open transaction.
    pub(super) fn hear_packet(
        &mut self,
        kind: Kind,
        payload: &[u8],
        wire: &[u8],
        caps: Capabilities,
    ) {
        match kind {
            Kind::Ok { header } => {
                let Ok(ok) = reply::Ok::parse(payload, caps) else { return self.hear(wire) };
                let open = self.is_open_by(ok.status);
                self.hear(&[header, open]);
                self.hear(&ok.affected.to_le_bytes());
                self.hear(&ok.insert_id.to_le_bytes());
                self.hear(&ok.warnings.to_le_bytes());
                if let Some(said) = self.open.as_mut() {
                    said.insert_id = ok.insert_id;
                }
            }
            Kind::Eof => {
                let Ok(eof) = reply::Eof::parse(payload, caps) else { return self.hear(wire) };
                let open = self.is_open_by(eof.status);
                self.hear(&[reply::EOF, open]);
                self.hear(&eof.warnings.to_le_bytes());
            }
            Kind::Err => self.hear(&reply::Err::code_of(payload).to_le_bytes()),
            Kind::PrepareOk | Kind::LocalInfile | Kind::Opaque => self.hear(wire),
        }
    }

    fn is_open_by(&mut self, status: Status) -> u8 {
        let open = status.has(Status::IN_TRANS);
        self.begun |= open;
        u8::from(open)
    }

    /// The answer to the command that was noted is over: both are kept.
    pub(super) fn keep(&mut self, rows: bool) {
        if let Some(said) = self.open.take() {
            self.said.push(Said { answer: self.digest.digest128(), rows, ..said });
        }
    }

    // --- when it is said again ---

    /// It is to be said again from its beginning, on another link. Whoever asks has looked whether
    /// it [is whole](Self::is_whole).
    pub(super) fn say_again(&mut self) {
        self.open = None;
        self.attempts = self.attempts.saturating_add(1);
        self.again = Some(Again::default());
        for text in &mut self.texts {
            text.on_link = None;
        }
    }

    /// Whether it is to be said again, or is being so.
    pub(super) fn is_to_be_said_again(&self) -> bool {
        self.again.is_some()
    }

    /// Something of it was said again already.
    pub(super) fn is_begun_again(&self) -> bool {
        let begun = |again: Again| again.next > 0 || again.numbered;
        self.again.is_some_and(begun) || self.texts.iter().any(|text| text.on_link.is_some())
    }

    /// What is to be sent next.
    pub(super) fn next(&self) -> Next {
        let Some((again, said)) = self.current() else { return Next::Done };
        if let SaidKind::Execution(number) = said.kind
            && self.texts.get(number).is_some_and(|text| text.on_link.is_none())
        {
            return Next::Prepare(number);
        }
        match said.insert_id {
            number if number != 0 && !again.numbered => Next::Number(number),
            _ => Next::Say,
        }
    }

    fn current(&self) -> Option<(Again, Said)> {
        let again = self.again?;
        self.said.get(again.next).map(|said| (again, *said))
    }

    /// The text of a statement that is to be prepared.
    pub(super) fn text(&self, number: usize) -> &[u8] {
        self.texts.get(number).map_or(&[], |text| &text.text)
    }

    /// The server knows that statement by this id.
    pub(super) fn was_prepared(&mut self, number: usize, id: u32) {
        if let Some(text) = self.texts.get_mut(number) {
            text.on_link = Some(id);
        }
    }

    /// The next number is set, or the server does not let it be set.
    pub(super) fn was_numbered(&mut self) {
        if let Some(again) = self.again.as_mut() {
            again.numbered = true;
        }
    }

    /// Writes the next command, and says how its answer is read and watched.
    pub(super) fn say(&mut self, out: &mut Vec<u8>) -> Option<(Expect, bool)> {
        let (again, said) = self.current()?;
        let before = again.next.checked_sub(1).and_then(|at| self.said.get(at));
        let bytes = self.bytes.get(before.map_or(0, |said| said.end)..said.end)?;
        match said.kind {
            SaidKind::Text => out.extend_from_slice(bytes),
            SaidKind::Execution(number) => {
                let id = self.texts.get(number)?.on_link?;
                let mut payload = bytes.to_vec();
                payload.get_mut(1..5)?.copy_from_slice(&id.to_le_bytes());
                packet::write(out, 0, &payload);
            }
        }
        self.listen();
        Some((said.expect, said.watching))
    }

    /// The answer is over: whether it is the one of before. Then the next one's turn has come.
    pub(super) fn is_answered_alike(&mut self) -> bool {
        let answer = self.digest.digest128();
        let Some((again, said)) = self.current() else { return false };
        self.again = Some(Again { next: again.next.saturating_add(1), numbered: false });
        said.answer == answer
    }

    /// All was said again; answers the server's ids of what was prepared for that.
    pub(super) fn was_said_again(&mut self) -> Vec<u32> {
        self.again = None;
        self.texts.iter_mut().filter_map(|text| text.on_link.take()).collect()
    }
}

impl std::fmt::Debug for Transcript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What clients say is nobody else's business.
        f.debug_struct("Transcript")
            .field("said", &self.said.len())
            .field("sealed", &self.sealed)
            .field("again", &self.again)
            .finish_non_exhaustive()
    }
}
