//! A client that goes while its statement runs. Servers look for that where they wait long, for a
//! lock or in SLEEP, and give up: so they are told, by the end of what we send to them.

use std::io;
use std::task::{Context, Poll};

use crate::net::copy::read_some;
use crate::net::drive::Drive;

/// What a client may have sent ahead before it went, bytes: more is not looked for.
const AHEAD_MAX: usize = 64 * 1024;

/// Whether a client has gone while a server works for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum HangUp {
    /// Not as far as is known.
    #[default]
    No,
    /// It has, with something sent ahead: its statement goes on.
    Ahead,
    /// It has, and the server was told. Whatever comes from there is for nobody, the loss of the
    /// link too: a read that were begun anew elsewhere would run on, and nobody would end it.
    Told,
}

impl Drive {
    /// Looks whether the client has gone while a server works for it. One that has sent something
    /// before that, if only its COM_QUIT, counts as there: servers take unread bytes for a sign of
    /// life (MariaDB's `vio_is_connected`).
    pub(super) fn notice_hang_up(&mut self, cx: &mut Context<'_>) {
        let Some(slot) = self.busy_link().filter(|_| self.hung_up == HangUp::No) else { return };
        while self.client_tail.len() < AHEAD_MAX {
            let first = self.client_tail.is_empty();
            match read_some(&mut self.client, &mut self.client_tail, &self.worker.buffer, cx) {
                Poll::Ready(Ok(read)) if read > 0 => {
                    if first {
                        let buffer = self.worker.buffer.borrow();
                        self.client_tail.extend_from_slice(buffer.get(..read).unwrap_or_default());
                    }
                }
                Poll::Ready(Ok(_) | Err(_)) => {
                    self.hung_up = HangUp::Ahead;
                    if self.client_tail.is_empty()
                        && let Some(Some(link)) = self.links.get(slot)
                    {
                        self.hung_up = HangUp::Told;
                        tracing::debug!(session = self.seat.id, "its client left a statement");
                        let _: io::Result<()> = link.stream.close_writing();
                    }
                    return;
                }
                Poll::Pending => return,
            }
        }
    }

    /// The link whose server has the whole of the client's statement.
    fn busy_link(&self) -> Option<usize> {
        let session = self.seat.session.borrow();
        let session = session.as_ref().filter(|session| session.running_on().is_some())?;
        session.interest().links.iter().position(|waits| *waits)
    }
}
