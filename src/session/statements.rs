//! Prepared statements: the client's id stands for a text; each link has an id of its own for it.

use std::collections::BTreeMap;

use crate::protocol::reply::PrepareOk;
use crate::router::Class;
use crate::router::policy::Held;
use crate::session::action::index;

/// What stands before the data in COM_STMT_SEND_LONG_DATA, bytes.
const LONG_DATA_HEAD: usize = 7;

/// How many parameters of the longest kind are kept for a session.
const LONG_PARAMETERS_MAX: usize = 8;

/// All prepared statements of a session.
#[derive(Debug, Default)]
pub struct Statements {
    last_id: u32,
    // Boxed: a node of the map has room for eleven.
    by_id: BTreeMap<u32, Box<Statement>>,
    long_data_bytes: usize,
    /// How many of them have an open cursor.
    cursors: usize,
}

/// One prepared statement.
#[derive(Debug)]
pub struct Statement {
    /// Its text, as the client prepared it.
    pub text: Vec<u8>,
    /// What the text lets one expect.
    pub class: Class,
    /// Number of parameters.
    pub parameters: u16,
    /// How many columns its result had when the client was told last; 0 for none.
    pub columns: u32,
    /// The types of the last execution that named them: they may be omitted afterwards.
    pub types: Option<Vec<u8>>,
    /// The server's id on each link, and whether that link has seen the types.
    pub on_links: [Option<OnLink>; 2],
    /// Parameters sent ahead by COM_STMT_SEND_LONG_DATA, as whole command payloads.
    pub long_data: Vec<Vec<u8>>,
    /// How many bytes were sent ahead for which parameter.
    pub long_sizes: Vec<(u16, usize)>,
    /// One of them was longer than the server takes: an execution says so, until a reset.
    pub overlong: bool,
    /// The link on which a cursor is open.
    cursor: Option<Held>,
}

impl Statement {
    /// A statement that a server has accepted for the client.
    #[must_use]
    pub fn new(text: Vec<u8>, class: Class, ok: &PrepareOk) -> Self {
        Self {
            text,
            class,
            parameters: ok.params,
            columns: u32::from(ok.columns),
            types: None,
            on_links: [None, None],
            long_data: Vec::new(),
            long_sizes: Vec::new(),
            overlong: false,
            cursor: None,
        }
    }

    /// The link on which a cursor is open.
    #[must_use]
    pub fn cursor(&self) -> Option<Held> {
        self.cursor
    }

    /// As the link in this slot knows it, if that is still the link with this number.
    #[must_use]
    pub fn on(&self, slot: Held, serial: u32) -> Option<OnLink> {
        self.on_links[index(slot)].filter(|known| known.serial == serial)
    }

    /// Forgets what was sent ahead, and says how many bytes that was.
    fn drop_long_data(&mut self) -> usize {
        let freed = self.long_data.iter().map(Vec::len).sum();
        self.long_data = Vec::new();
        self.long_sizes = Vec::new();
        self.overlong = false;
        freed
    }
}

/// A statement as one link knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnLink {
    /// The server's id.
    pub id: u32,
    /// An execution on this link has bound the types.
    pub typed: bool,
    /// It was executed with a cursor. MySQL 9.7 never ends its answer to an execution without
    /// one after that, closed or not (measured).
    pub cursored: bool,
    /// It must be prepared anew before it is executed again: its text was right only once.
    pub spent: bool,
    /// How many columns its result had there when it was prepared, or executed last.
    pub columns: u32,
    /// Which of the session's links it is: an id of another one says nothing.
    pub serial: u32,
    /// The session's command that used it last.
    pub used: u64,
}

impl OnLink {
    /// A statement that was just prepared, by this command.
    #[must_use]
    pub fn new(ok: &PrepareOk, serial: u32, used: u64) -> Self {
        let columns = u32::from(ok.columns);
        Self { id: ok.id, typed: false, cursored: false, spent: false, columns, serial, used }
    }
}

impl Statements {
    /// Takes the next client id. Ids count from 1 for each connection, as a server's do.
    pub fn next_id(&mut self) -> u32 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }

    /// The statement that an id stands for: MariaDB lets 0xFFFFFFFF stand for the one that was
    /// prepared last.
    #[must_use]
    pub fn meant(&self, id: u32) -> u32 {
        if id == u32::MAX { self.last_id } else { id }
    }

    /// Keeps a statement that a server has accepted.
    pub fn insert(&mut self, id: u32, statement: Statement) {
        self.by_id.insert(id, Box::new(statement));
    }

    /// The statement with this client id.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&Statement> {
        self.by_id.get(&id).map(Box::as_ref)
    }

    /// The statement with this client id, to change it.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut Statement> {
        self.by_id.get_mut(&id).map(Box::as_mut)
    }

    /// Whether a link knows a statement by this id.
    #[must_use]
    pub fn is_used_on(&self, slot: Held, id: u32) -> bool {
        let mut known = self.by_id.values().filter_map(|at| at.on_links[index(slot)]);
        known.any(|known| known.id == id)
    }

    /// Forgets a statement and gives it back.
    pub fn remove(&mut self, id: u32) -> Option<Box<Statement>> {
        let mut statement = self.by_id.remove(&id)?;
        self.long_data_bytes = self.long_data_bytes.saturating_sub(statement.drop_long_data());
        self.cursors = self.cursors.saturating_sub(usize::from(statement.cursor.is_some()));
        Some(statement)
    }

    /// Forgets all that links of this slot know, and says what it was.
    pub fn take_prepared(&mut self, slot: Held) -> Vec<OnLink> {
        self.by_id.values_mut().filter_map(|at| at.on_links[index(slot)].take()).collect()
    }

    /// Of what a link knows, the statement that was not used for longest and has no open cursor;
    /// never `but`.
    #[must_use]
    pub fn least_used(&self, slot: Held, serial: u32, but: u32) -> Option<u32> {
        let known = self.by_id.iter().filter_map(|(id, statement)| {
            let on_link = statement.on(slot, serial)?;
            let free = statement.cursor != Some(slot) && *id != but;
            free.then_some((on_link.used, *id))
        });
        known.min().map(|(_, id)| id)
    }

    /// Buffers a parameter sent ahead, of `limit` bytes at most; false when the session sends
    /// more in all than is kept for it.
    #[must_use]
    pub fn push_long_data(&mut self, id: u32, payload: &[u8], limit: usize) -> bool {
        let Some(statement) = self.by_id.get_mut(&id) else {
            // The server ignores data for unknown statements too: the command has no answer.
            return true;
        };
        let parameter = match payload {
            [_, _, _, _, _, low, high, ..] => u16::from_le_bytes([*low, *high]),
            _ => 0,
        };
        let sizes = &mut statement.long_sizes;
        let at = sizes.iter().position(|(at, _)| *at == parameter).unwrap_or_else(|| {
            sizes.push((parameter, 0));
            sizes.len().saturating_sub(1)
        });
        if let Some((_, size)) = sizes.get_mut(at) {
            *size = size.saturating_add(payload.len().saturating_sub(LONG_DATA_HEAD));
            statement.overlong |= *size > limit;
        }
        if statement.overlong {
            return true;
        }
        let total = self.long_data_bytes.saturating_add(payload.len());
        if total > limit.saturating_mul(LONG_PARAMETERS_MAX) {
            return false;
        }
        self.long_data_bytes = total;
        statement.long_data.push(payload.to_vec());
        true
    }

    /// Drops the parameters sent ahead for one statement, as a reset does.
    pub fn clear_long_data(&mut self, id: u32) {
        if let Some(statement) = self.by_id.get_mut(&id) {
            self.long_data_bytes = self.long_data_bytes.saturating_sub(statement.drop_long_data());
        }
    }

    /// A statement was executed on this link: what was sent ahead for it is spent, and the client
    /// has seen rows of so many columns, if any.
    pub fn executed(&mut self, slot: Held, id: u32, columns: Option<u32>) {
        let Some(statement) = self.by_id.get_mut(&id) else { return };
        if !statement.long_sizes.is_empty() {
            self.long_data_bytes = self.long_data_bytes.saturating_sub(statement.drop_long_data());
        }
        if let Some(columns) = columns
            && statement.columns > 0
        {
            statement.columns = columns;
            if let Some(on_link) = statement.on_links[index(slot)].as_mut() {
                on_link.columns = columns;
            }
        }
    }

    /// The server has opened a cursor for a statement.
    pub fn open_cursor(&mut self, slot: Held, id: u32) {
        let Some(statement) = self.by_id.get_mut(&id) else { return };
        if let Some(on_link) = statement.on_links[index(slot)].as_mut() {
            on_link.cursored = true;
        }
        if statement.cursor.replace(slot).is_none() {
            self.cursors = self.cursors.saturating_add(1);
        }
    }

    /// A statement's cursor, if it has one, is open no more.
    pub fn close_cursor(&mut self, id: u32) {
        let cursor = self.by_id.get_mut(&id).and_then(|statement| statement.cursor.take());
        self.cursors = self.cursors.saturating_sub(usize::from(cursor.is_some()));
    }

    /// Forgets the ids of a link that is gone.
    pub fn link_gone(&mut self, slot: Held) {
        for statement in self.by_id.values_mut() {
            statement.on_links[index(slot)] = None;
            if statement.cursor.take_if(|on| *on == slot).is_some() {
                self.cursors = self.cursors.saturating_sub(1);
            }
        }
    }

    /// Whether any cursor is open.
    #[must_use]
    pub fn any_cursor(&self) -> bool {
        self.cursors > 0
    }

    /// Whether a cursor is open on this link.
    #[must_use]
    pub fn cursor_on(&self, slot: Held) -> bool {
        self.cursors > 0 && self.by_id.values().any(|statement| statement.cursor == Some(slot))
    }

    /// Forgets everything, as COM_RESET_CONNECTION does. Ids go on counting, so that a late
    /// reference to an old id can never meet a new statement.
    pub fn clear(&mut self) {
        self.by_id.clear();
        self.long_data_bytes = 0;
        self.cursors = 0;
    }
}
