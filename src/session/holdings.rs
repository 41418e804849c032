//! What the session has taken that lives on its link only, by name and number: a pin ends when
//! the text proves that the last of it was given back. What was taken in a way that no text tells
//! of stays until a reset.

use std::collections::BTreeMap;

use crate::router::holding::{self, Holding, Thing};
use crate::router::{Effects, Reason, Verb};
use crate::session::Session;
use crate::session::pending::Ask;
use crate::session::pin::Pin;

/// Most names that are counted; a session that has more at a time keeps its pins.
const NAMES_MAX: usize = 64;

/// All that was taken.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// As often as it may have been taken, never less often than it was.
    counts: BTreeMap<(Thing, Vec<u8>), u32>,
    /// Of these some may be held that are not counted.
    uncounted: Vec<Thing>,
}

/// The effects of taking something, and the pin that each of them is.
const THINGS: [(Thing, Effects, Pin); 4] = [
    (Thing::TableLock, Effects::LOCK, Pin::TableLock),
    (Thing::UserLock, Effects::USER_LOCK, Pin::UserLock),
    (Thing::Handler, Effects::HANDLER_OPEN, Pin::Handler),
    (Thing::TemporaryTable, Effects::TEMP_TABLE, Pin::TemporaryTable),
];

impl Holdings {
    fn take(&mut self, thing: Thing, name: Vec<u8>) {
        if self.counts.len() >= NAMES_MAX {
            return self.lose_count(thing);
        }
        let count = self.counts.entry((thing, name)).or_default();
        *count = count.saturating_add(1);
    }

    fn lose_count(&mut self, thing: Thing) {
        if !self.uncounted.contains(&thing) {
            self.uncounted.push(thing);
        }
    }

    fn give(&mut self, thing: Thing, name: Vec<u8>) {
        // However often tables were locked: the last LOCK TABLES counts, and one UNLOCK ends it.
        let all = thing == Thing::TableLock;
        let key = (thing, name);
        match self.counts.get_mut(&key) {
            Some(count) if *count > 1 && !all => *count -= 1,
            Some(_) => drop(self.counts.remove(&key)),
            // LOCK TABLES of code that is told of by a tracker; nothing of the kind is left.
            None if all => {}
            None => self.lose_count(thing),
        }
    }

    fn give_all(&mut self, thing: Thing) {
        self.counts.retain(|(held, _), _| *held != thing);
        self.uncounted.retain(|held| *held != thing);
    }

    fn has(&self, thing: Thing) -> bool {
        self.uncounted.contains(&thing) || self.counts.keys().any(|(held, _)| *held == thing)
    }
}

impl Session {
    /// What the pending statement, which has succeeded, has taken or given back.
    pub(super) fn learn_holdings(&mut self) {
        let Some(pending) = self.pending.as_ref() else { return };
        let class = pending.class;
        if class.effects == Effects::NONE && self.pins.is_empty() {
            return;
        }
        let takes = |(_, effect, _): &&(Thing, Effects, Pin)| class.effects.any(*effect);
        let gives = class.effects.any(Effects::UNLOCK.with(Effects::RELEASE_ALL_LOCKS))
            || matches!(class.verb, Verb::Handler | Verb::Ddl)
            || class.reason == Reason::Function;
        let pinned = THINGS.iter().any(|(_, _, pin)| self.pins.has(*pin));
        if THINGS.iter().find(takes).is_none() && !(gives && pinned) {
            return;
        }
        // A prepared one may speak of the schema of another time.
        let text = (pending.ask == Ask::Query).then(|| pending.text());
        let schema = self.state.schema().unwrap_or_default();
        let read = |text| holding::parse(text, &self.state.dialect, schema);
        // One that shows no rows may not have called what it names.
        let unlimited = self.state.variable(b"sql_select_limit").is_none();
        let holding = text.filter(|_| !class.multi && unlimited).and_then(read);
        let holdings = self.holdings.get_or_insert_default();
        let thing = match holding {
            Some(Holding::Takes(thing, name)) => return holdings.take(thing, name),
            None => {
                return THINGS.iter().filter(takes).for_each(|(thing, ..)| {
                    holdings.lose_count(*thing);
                });
            }
            Some(Holding::Gives(thing, names)) => {
                names.into_iter().for_each(|name| holdings.give(thing, name));
                thing
            }
            Some(Holding::GivesAll(thing)) => {
                holdings.give_all(thing);
                thing
            }
        };
        let pin = THINGS.iter().find(|(held, ..)| *held == thing).map(|(_, _, pin)| *pin);
        if let Some(pin) = pin.filter(|_| !holdings.has(thing)) {
            self.pins.remove(pin);
        }
    }
}
