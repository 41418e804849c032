//! What a worker tells operators: its sessions, its links, its statistics; and what it counts.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::config::outcome::CommitOutcome;
use crate::control::{GroupDigests, LinkRow, SessionRow, WorkerRequest};
use crate::metrics::{LostCommit, ReplicaWait, Retry, TransactionReplay};
use crate::net::group::GroupHandle;
use crate::net::seat::{Ring, Seat};
use crate::net::worker::{Served, Worker};
use crate::session::action::{Replay, Resolved, WaitOutcome};
use crate::session::pin::Pin;
use crate::session::{self, Session};
use crate::topology::NodeId;

impl Worker {
    pub(super) fn answer(&self, request: WorkerRequest) {
        match request {
            WorkerRequest::Sessions(reply) => drop(reply.send(self.session_rows())),
            WorkerRequest::Digests(reply) => drop(reply.send(self.digests())),
            WorkerRequest::Links(reply) => drop(reply.send(self.link_rows())),
            WorkerRequest::Unfinished { group, node, reply } => {
                let _ = reply.send(self.unfinished(&group, node));
            }
            WorkerRequest::Kill { id, by, reply } => {
                let victim = self.seats.borrow().get(&id).cloned();
                if let Some(victim) = &victim {
                    tracing::info!(session = id, %by, "killed by an operator");
                    victim.bell.ring(Ring::KILL);
                }
                let _ = reply.send(victim.is_some());
            }
        }
    }

    fn digests(&self) -> Vec<GroupDigests> {
        let copy = |served: &Rc<Served>| GroupDigests {
            group: served.group.name.clone(),
            table: served.digests.borrow().clone(),
        };
        self.groups.iter().map(copy).collect()
    }

    fn session_rows(&self) -> Vec<SessionRow> {
        self.seats.borrow().values().map(|seat| session_row(seat, self.now())).collect()
    }

    /// How many sessions of a group would lose something if a server took no more of them now.
    fn unfinished(&self, group: &str, node: NodeId) -> usize {
        let seats = self.seats.borrow();
        let mine = seats.values().filter(|seat| *seat.group().name == *group);
        mine.filter(|seat| {
            let session = seat.session.borrow();
            session.as_ref().is_some_and(|session| is_unfinished(session, node))
        })
        .count()
    }

    /// Links that sessions hold, and those in the pools.
    fn link_rows(&self) -> Vec<LinkRow> {
        let mut rows = Vec::new();
        let row = |group: &Arc<GroupHandle>, node, user, (idle, used)| {
            let topology = group.topology.load();
            let server = topology.node(node)?.name.clone();
            Some(LinkRow { group: group.name.clone(), server, user, idle, used })
        };
        for seat in self.seats.borrow().values() {
            let session = seat.session.borrow();
            let nodes = session.as_ref().map_or([None, None], Session::nodes);
            let held = nodes.into_iter().flatten();
            rows.extend(held.filter_map(|node| row(seat.group(), node, user_of(seat), (0, 1))));
        }
        for served in &self.groups {
            let parked = served.parked_links().into_iter();
            rows.extend(parked.filter_map(|(node, user)| row(&served.group, node, user, (1, 0))));
        }
        rows
    }
}

/// Whether this server works for the session, or has a transaction of it open.
fn is_unfinished(session: &Session, node: NodeId) -> bool {
    let works = session.running_thread().is_some_and(|(on, _)| on == node);
    let in_transaction = session.is_idle() && !session.can_leave();
    works || in_transaction && session.nodes().contains(&Some(node))
}

fn session_row(seat: &Seat, now: Instant) -> SessionRow {
    let session = seat.session.borrow();
    let session = session.as_ref();
    let topology = seat.group().topology.load();
    let node = session
        .and_then(|session| session.nodes().into_iter().flatten().next())
        .and_then(|node| topology.node(node))
        .map(|node| node.name.clone());
    let since = session.map_or(seat.since, Session::phase_since);
    let schema = session.and_then(Session::schema);
    SessionRow {
        id: seat.id,
        user: user_of(seat),
        client: seat.peer.get().map_or_else(|| "localhost".to_owned(), |peer| peer.to_string()),
        group: seat.group().name.clone(),
        database: schema.map(|schema| String::from_utf8_lossy(schema).into_owned()),
        state: session.map_or("logging in", Session::phase_word),
        node,
        pins: session
            .map(|session| session.pins().iter().map(Pin::word).collect())
            .unwrap_or_default(),
        since: now.saturating_duration_since(since),
        statements: session.map_or(0, Session::commands),
    }
}

fn user_of(seat: &Seat) -> String {
    let identity = seat.identity.borrow();
    let user = identity.as_ref().map(|identity| String::from_utf8_lossy(&identity.hello.user));
    user.map(|user| user.into_owned()).unwrap_or_default()
}

impl From<session::action::Retry> for Retry {
    fn from(retry: session::action::Retry) -> Self {
        match retry {
            session::action::Retry::LinkLost => Self::ReadElsewhere,
            session::action::Retry::ReplicaRefused => Self::RefusedByReplica,
            session::action::Retry::PrimaryReadOnly => Self::PrimaryReadOnly,
            session::action::Retry::Reprepared => Self::Reprepare,
        }
    }
}

impl From<Replay> for TransactionReplay {
    fn from(outcome: Replay) -> Self {
        match outcome {
            Replay::Alike => Self::Alike,
            Replay::Differed => Self::Differed,
        }
    }
}

/// Says why commits of a user are not witnessed. Once by link: links are few, and live long.
pub(super) fn unwitnessed(seat: &Seat, node: NodeId, code: u16) {
    let identity = seat.identity.borrow();
    let user = identity.as_ref().map_or(&b""[..], |identity| &identity.hello.user);
    tracing::warn!(
        group = %seat.group().name,
        node = %node,
        user = %user.escape_ascii(),
        code,
        "commit_outcome: the user cannot write to {}; make it (docs/session.md says how), and \
         grant SELECT, INSERT and UPDATE on it",
        CommitOutcome::TABLE,
    );
}

impl From<Resolved> for LostCommit {
    fn from(outcome: Resolved) -> Self {
        match outcome {
            Resolved::Committed => Self::Committed,
            Resolved::RolledBack => Self::RolledBack,
            Resolved::Unknown => Self::Unknown,
        }
    }
}

impl From<WaitOutcome> for ReplicaWait {
    fn from(outcome: WaitOutcome) -> Self {
        match outcome {
            WaitOutcome::CaughtUp => Self::CaughtUp,
            WaitOutcome::TimedOut => Self::TimedOut,
        }
    }
}
