//! User variables that a statement has set on a replica's link: GET DIAGNOSTICS must run where
//! the warnings are listed, which may be there. Their values are brought to the primary's link
//! before anything else runs on it.

use crate::router::policy::Held;
use crate::router::{Effects, Kind, rewrite};
use crate::session::failure::Failure;
use crate::session::links::Link;
use crate::session::pin::{Pin, Pins};
use crate::session::release::ONE;
use crate::session::step::Step;
use crate::session::{Session, single};

/// Variables that only the replica's link has.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// Their names, and what of the diagnostics each was set to.
    names: Vec<(Vec<u8>, Vec<u8>)>,
    /// The statement that sets them elsewhere, as soon as the replica was asked for it.
    sql: Option<Vec<u8>>,
}

impl Session {
    /// Whether the replica's link has variables that the primary's lacks.
    pub(super) fn has_strays(&self) -> bool {
        self.strays.is_some()
    }

    /// A statement of the client's has succeeded on this link.
    pub(super) fn note_strays(&mut self, slot: Held) {
        let Some(pending) = self.pending.as_ref() else { return };
        let class = &pending.class;
        if slot != Held::Replica
            || class.kind != Kind::Last
            || !class.effects.any(Effects::USER_VAR_WRITE)
        {
            return;
        }
        let text = pending.text();
        let names = rewrite::assigned_variables(text, &self.state.dialect);
        let strays = self.strays.get_or_insert_default();
        for (name, item) in names {
            strays.names.retain(|(known, _)| *known != name);
            strays.names.push((name, item));
        }
    }

    /// What brings the variables to the primary's link.
    pub(super) fn stray_step(&self, slot: Held) -> Option<Step> {
        let strays = self.strays.as_ref().filter(|_| slot == Held::Primary)?;
        Some(match &strays.sql {
            Some(sql) => Step::SetStrays(sql.clone()),
            None => Step::AskStrays,
        })
    }

    /// The question for the text that sets the variables: numbers with the signs that the
    /// servers give them, strings in their own character set and collation.
    pub(super) fn strays_question(&self) -> Vec<u8> {
        let mut sql = b"SELECT CONCAT_WS(', '".to_vec();
        for (name, item) in self.strays.iter().flat_map(|strays| &strays.names) {
            let v = String::from_utf8_lossy(name);
            let value = match item.as_slice() {
                b"NUMBER" | b"MYSQL_ERRNO" => format!("CONCAT('CAST(', @`{v}`, ' AS UNSIGNED)')"),
                b"ROW_COUNT" => format!("@`{v}`"),
                _ => format!(
                    "CONCAT('_', CHARSET(@`{v}`), ' X''', HEX(@`{v}`), ''' COLLATE ', \
                     COLLATION(@`{v}`))"
                ),
            };
            let assignment = format!(", CONCAT('@`{v}`=', IFNULL({value}, 'NULL'))");
            sql.extend_from_slice(assignment.as_bytes());
        }
        sql.extend_from_slice(b") ");
        sql.extend_from_slice(ONE.as_bytes());
        sql
    }

    /// The answer to [`Session::strays_question`].
    pub(super) fn strays_known(&mut self, reply: &[u8]) {
        let text = single::value(reply).flatten().unwrap_or_default();
        match self.strays.as_mut() {
            Some(strays) if !text.is_empty() => strays.sql = Some([b"SET ", &*text].concat()),
            _ => self.strays = None,
        }
    }

    /// The link that had them is gone: the client is told at its next command.
    pub(super) fn strays_lost(&mut self, slot: Held, link: &Link) {
        if slot == Held::Replica && self.strays.take().is_some() {
            let mut pins = Pins::default();
            pins.add(Pin::UserVariable);
            let server = format!("#{}", link.facts.node);
            self.lost = Some(Failure::StateLost { server, pins });
        }
    }
}
