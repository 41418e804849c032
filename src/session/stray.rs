//! User variables that a statement has set on a replica's link: GET DIAGNOSTICS must run where
//! the warnings are listed, which may be there. Their values are brought to the primary's link
//! before anything else runs on it.

use crate::router::policy::Held;
use crate::router::{Effects, Kind, rewrite};
use crate::session::failure::Failure;
use crate::session::links::Link;
use crate::session::pin::{Pin, Pins};
use crate::session::sync::Step;
use crate::session::{Session, single};

/// Variables that only the replica's link has.
#[derive(Debug, Default)]
pub(super) struct Strays {
    names: Vec<Vec<u8>>,
    /// The statement that sets them elsewhere, as soon as the replica was asked for it.
    sql: Option<Vec<u8>>,
}

impl Session {
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
        let text = pending.wire.get(pending.text_at..).unwrap_or_default();
        let names = rewrite::assigned_variables(text, &self.state.dialect);
        let strays = self.strays.get_or_insert_default();
        for name in names {
            if !strays.names.contains(&name) {
                strays.names.push(name);
            }
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

    /// The question for the text that sets the variables: numbers as they are, strings in their
    /// own character set and collation.
    pub(super) fn strays_question(&self) -> Vec<u8> {
        let mut sql = b"SELECT CONCAT_WS(', '".to_vec();
        for name in self.strays.iter().flat_map(|strays| &strays.names) {
            let v = [b"@`".as_slice(), name, b"`"].concat();
            for part in [
                b", CONCAT('".as_slice(),
                &v,
                b"=', IF(",
                &v,
                b" IS NULL, 'NULL', IF(COERCIBILITY(",
                &v,
                b")=5, ",
                &v,
                b", CONCAT('_', CHARSET(",
                &v,
                b"), ' X''', HEX(",
                &v,
                b"), ''' COLLATE ', COLLATION(",
                &v,
                b")))))",
            ] {
                sql.extend_from_slice(part);
            }
        }
        sql.push(b')');
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
