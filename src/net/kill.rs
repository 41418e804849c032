//! KILL by the id that a client was given: on whichever worker, and never anybody else's thread.

use tokio::sync::oneshot;

use crate::net::link;
use crate::net::seat::{Identity, Ring, Seat};
use crate::net::worker::{Message, Worker};
use crate::protocol::reply;
use crate::session::Session;
use crate::session::action::KillOutcome;
use crate::topology::NodeId;
use crate::upstream::dial::DialError;

impl Worker {
    /// KILL by the id that some client was given, on whichever worker it is.
    pub(super) async fn kill(&self, by: &Seat, id: u64, connection: bool) -> KillOutcome {
        let Ok(id) = u32::try_from(id) else { return KillOutcome::Unknown };
        let user = by.identity.borrow().as_ref().map(|identity| identity.hello.user.clone());
        let user = user.unwrap_or_default();
        if self.seats.borrow().contains_key(&id) {
            return self.kill_here(&user, id, connection).await;
        }
        for sibling in &self.siblings {
            let (reply, answer) = oneshot::channel();
            let by = user.clone();
            if sibling.clients() == 0
                || sibling.messages.try_send(Message::Kill { id, connection, by, reply }).is_err()
            {
                continue;
            }
            match answer.await {
                Ok(KillOutcome::Unknown) | Err(_) => {}
                Ok(outcome) => return outcome,
            }
        }
        KillOutcome::Unknown
    }

    pub(super) async fn kill_here(&self, by: &[u8], id: u32, connection: bool) -> KillOutcome {
        let victim = self.seats.borrow().get(&id).cloned();
        let Some(victim) = victim else { return KillOutcome::Unknown };
        let identity = victim.identity.borrow().clone();
        let Some(identity) = identity else { return KillOutcome::Unknown };
        if identity.hello.user != by {
            return KillOutcome::NotOwner;
        }
        let running = victim.session.borrow().as_ref().and_then(Session::running_thread);
        if let Some((node, thread)) = running {
            // It may come late: whoever has the link next must not be hit.
            if let Some(session) = victim.session.borrow_mut().as_mut() {
                session.link_is_shot_at();
            }
            self.kill_thread(&victim, &identity, node, thread, connection).await;
        }
        if connection {
            victim.bell.ring(Ring::KILL);
        }
        KillOutcome::Done
    }

    /// Ends what a server does for a session, over a link of its own.
    async fn kill_thread(
        &self,
        victim: &Seat,
        identity: &Identity,
        node: NodeId,
        thread: u32,
        connection: bool,
    ) {
        let topology = victim.group.topology.load();
        let settings = victim.group.settings.load_full();
        let word = if connection { "KILL" } else { "KILL QUERY" };
        let sql = format!("{word} {thread}");
        let result =
            link::run_once(victim, identity, &topology, &settings, node, sql.into_bytes()).await;
        if let Err(error) = result {
            // 1094: the statement was over before we came.
            let over = matches!(&error, DialError::Refused(p) if reply::Err::code_of(p) == 1094);
            if !over {
                tracing::warn!(%error, node = %node, "a KILL did not reach the server");
            }
        }
    }
}
