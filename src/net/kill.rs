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
        let identity = by.identity.borrow().clone();
        let Some(identity) = identity else { return KillOutcome::Unknown };
        let owner = Some(identity.hello.user.clone());
        match self.kill_anywhere(owner, id, connection).await {
            KillOutcome::NotOwner if may_kill_others(by, &identity).await => {
                self.kill_anywhere(None, id, connection).await
            }
            outcome => outcome,
        }
    }

    async fn kill_anywhere(
        &self,
        owner: Option<Vec<u8>>,
        id: u32,
        connection: bool,
    ) -> KillOutcome {
        if self.seats.borrow().contains_key(&id) {
            return self.kill_here(owner.as_deref(), id, connection).await;
        }
        for sibling in &self.siblings {
            let (reply, answer) = oneshot::channel();
            let by = owner.clone();
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

    /// KILL of a client of this worker; `owner` is the user whose clients alone may be killed.
    pub(super) async fn kill_here(
        &self,
        owner: Option<&[u8]>,
        id: u32,
        connection: bool,
    ) -> KillOutcome {
        let victim = self.seats.borrow().get(&id).cloned();
        let Some(victim) = victim else { return KillOutcome::Unknown };
        let identity = victim.identity.borrow().clone();
        let Some(identity) = identity else { return KillOutcome::Unknown };
        if owner.is_some_and(|owner| identity.hello.user != owner) {
            return KillOutcome::NotOwner;
        }
        let running = victim.session.borrow().as_ref().and_then(Session::running_thread);
        if let Some((node, thread)) = running {
            // It may come late: whoever has the link next must not be hit.
            if let Some(session) = victim.session.borrow_mut().as_mut() {
                session.link_is_shot_at();
                if connection {
                    session.doom();
                }
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
        let topology = victim.group().topology.load();
        let settings = victim.group().settings.load_full();
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

/// Whether the primary says that a client's account may kill other accounts' sessions.
async fn may_kill_others(by: &Seat, identity: &Identity) -> bool {
    // An error is the only thing that such a link tells: the inner query has two rows.
    const ASK: &str = "SET @pointsman = IF(EXISTS(SELECT 1 FROM \
        information_schema.USER_PRIVILEGES WHERE GRANTEE = CONCAT('''', \
        SUBSTRING_INDEX(CURRENT_USER(), '@', 1), '''@''', \
        SUBSTRING_INDEX(CURRENT_USER(), '@', -1), '''') AND PRIVILEGE_TYPE IN \
        ('SUPER', 'CONNECTION ADMIN', 'CONNECTION_ADMIN')), 1, (SELECT 1 UNION SELECT 2))";
    let topology = by.group().topology.load();
    let settings = by.group().settings.load_full();
    let Some(primary) = topology.primary else { return false };
    let sql = ASK.as_bytes().to_vec();
    link::run_once(by, identity, &topology, &settings, primary, sql).await.is_ok()
}
