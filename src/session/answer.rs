//! Answers of our own, and the end of a request: what the client is told, what is counted.

use std::time::{Duration, Instant};

use crate::protocol::errno::SqlError;
use crate::protocol::flags::Status;
use crate::protocol::reply;
use crate::router::policy::Held;
use crate::session::action::{
    Finished, KillOutcome, Login, Outbox, Request, Resolved, Spent, World,
};
use crate::session::failure::Failure;
use crate::session::{Phase, Session};
use crate::topology::{Flavour, NodeId};

/// The flags that describe the session rather than one statement.
pub(super) const LASTING: Status = Status::IN_TRANS
    .with(Status::AUTOCOMMIT)
    .with(Status::NO_BACKSLASH_ESCAPES)
    .with(Status::IN_TRANS_READONLY)
    .with(Status::ANSI_QUOTES);

impl Session {
    /// An OK of our own, as the first packet of a reply.
    pub(super) fn say_ok(&self, out: &mut Outbox) {
        let ok = reply::Ok {
            affected: 0,
            insert_id: 0,
            // What the last reply said of its plan is not said again.
            status: self.state.status.and(LASTING),
            warnings: self.own_count(),
            info: b"",
            tracks: b"",
        };
        ok.encode(&mut out.client, 1, 0x00, self.client_capabilities());
    }

    /// Ends the pending request with a failure, told at sequence `seq`.
    pub(super) fn fail(&mut self, world: &World<'_>, failure: &Failure, seq: u8, out: &mut Outbox) {
        let unknown = self.unknown(world);
        if unknown.is_some() {
            out.requests.push(Request::Resolved(Resolved::Unknown));
        }
        let failure = unknown.as_ref().unwrap_or(failure);
        let error = failure.to_error();
        out.client.extend_from_slice(&error.packet(seq, self.client_capabilities()));
        self.finished_here(world, error.code, out);
        if failure.closes() {
            self.close(world.now, out);
        }
    }

    /// The name of a server, for messages.
    pub(super) fn name_of(&self, world: &World<'_>, node: NodeId) -> String {
        world.topology.node(node).map_or_else(|| format!("#{node}"), |node| node.name.to_string())
    }

    pub(super) fn close(&mut self, now: Instant, out: &mut Outbox) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        self.pending = None;
        self.drop_link(Held::Primary, out);
        self.drop_link(Held::Replica, out);
        self.enter(Phase::Closed, now);
        out.requests.push(Request::Close);
    }

    pub(super) fn answer_kill(
        &mut self,
        world: &World<'_>,
        outcome: KillOutcome,
        out: &mut Outbox,
    ) {
        let id = self.pending.as_ref().and_then(|pending| pending.way.kill).map_or(0, |(id, _)| id);
        let refusal = match outcome {
            KillOutcome::Done => None,
            KillOutcome::Unknown => Some(SqlError::no_such_thread(id)),
            KillOutcome::NotOwner => {
                Some(SqlError::new(1095, b"HY000", format!("You are not owner of thread {id}")))
            }
        };
        match refusal {
            None => {
                self.forget_list();
                self.agree(world, out);
            }
            Some(error) => self.refuse(world, error, out),
        }
    }

    /// A client that kills itself is told so instead of OK, as by a server.
    pub(super) fn killed_itself(&mut self, world: &World<'_>, connection: bool, out: &mut Outbox) {
        let error = match self.state.dialect.flavour {
            Flavour::MariaDb if connection => {
                SqlError::new(1927, b"70100", "Connection was killed".to_owned())
            }
            Flavour::MariaDb | Flavour::MySql => {
                SqlError::new(1317, b"70100", "Query execution was interrupted".to_owned())
            }
        };
        self.refuse(world, error, out);
        if connection {
            self.close(world.now, out);
        }
    }

    /// A refused change of user: the client is who it was, and begins anew all the same.
    pub(super) fn user_kept(&mut self, world: &World<'_>, out: &mut Outbox) {
        self.refused_changes = self.refused_changes.saturating_add(1);
        let schema = self.state.schema().map(<[u8]>::to_vec);
        let login = Login { schema, same_user: true, ..self.login.clone() };
        self.user_changed(world, Some(login), out);
    }

    /// Ends the pending request with an answer of our own.
    pub(super) fn finished_here(&mut self, world: &World<'_>, error: u16, out: &mut Outbox) {
        let streaming = self.pending.as_ref().is_some_and(|pending| pending.way.body.is_some());
        self.record(world, None, error, out);
        self.enter(Phase::Idle, world.now);
        if streaming {
            // What is still to come of the command must not be read as commands.
            self.close(world.now, out);
        }
    }

    /// Hands the pending command, which is finished, over for metrics and digests.
    pub(super) fn record(
        &mut self,
        world: &World<'_>,
        node: Option<NodeId>,
        error: u16,
        out: &mut Outbox,
    ) {
        let Some(pending) = self.pending.take() else { return };
        let took = world.now.saturating_duration_since(pending.received);
        out.requests.push(Request::Finished(Finished {
            node,
            dialect: self.state.dialect,
            took: took.max(Duration::from_nanos(1)),
            error,
            state: *b"HY000",
            spent: Spent(pending),
        }));
    }
}
