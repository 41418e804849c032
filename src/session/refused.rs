//! A server has refused one of our own commands: where the pending request goes instead, or what
//! the client is told.

use crate::protocol::packet;
use crate::protocol::reply;
use crate::router::Reason;
use crate::router::policy::Held;
use crate::session::Session;
use crate::session::action::{Outbox, World, index};
use crate::session::retry;
use crate::session::step::Step;

/// The server's `max_prepared_stmt_count` is reached (ER_MAX_PREPARED_STMT_COUNT_REACHED).
const TOO_MANY_STATEMENTS: u16 = 1461;

impl Session {
    /// A server refused one of our own commands: nothing of the client's has been sent.
    pub(super) fn own_refused(
        &mut self,
        world: &mut World<'_>,
        slot: Held,
        step: &Step,
        error: Vec<u8>,
        out: &mut Outbox,
    ) {
        if matches!(step, Step::Counts | Step::Found(_)) {
            self.drop_link(slot, out);
            return self.proceed(world, out);
        }
        if matches!(step, Step::AskRole) {
            self.role_told(None);
            return self.proceed(world, out);
        }
        if matches!(step, Step::Tell(_)) {
            // That is how a SIGNAL succeeds.
            self.was_told(slot);
            return self.proceed(world, out);
        }
        if step.is_replay() {
            return self.replay_refused(world, step, out);
        }
        if let Step::Witness(step) = step {
            return self.witness_step_refused(world, *step, &error, out);
        }
        if matches!(step, Step::Reset | Step::SetUp) {
            // It is not fit to be handed over; another one will do.
            self.drop_link(slot, out);
            return self.proceed(world, out);
        }
        if let Step::Prepare(id) | Step::PrepareCounted(id) = step
            && reply::Err::code_of(&error) == TOO_MANY_STATEMENTS
            && self.make_room(slot, *id, out)
        {
            return self.proceed(world, out);
        }
        // Inside a replica's transaction only that replica shows what it showed.
        let prepares = matches!(step, Step::Prepare(_) | Step::PrepareCounted(_));
        let bound = prepares && self.transaction == Some(Held::Replica);
        if slot == Held::Replica && !bound {
            // It may lag behind a schema or a grant: another place will do.
            if let (Some(link), Some(pending)) =
                (self.links[index(slot)].as_ref(), self.pending.as_mut())
            {
                pending.way.avoid |= link.facts.node.bit();
            }
            if prepares {
                self.leave_replica(world, reply::Err::code_of(&error));
            } else {
                self.drop_link(Held::Replica, out);
                self.fall_to_primary(Reason::NotCaughtUp);
            }
            return self.proceed(world, out);
        }
        self.refused_on_primary(world, slot, step, &error, out);
    }

    /// Sends the pending request to the primary, since a replica has refused to run or to prepare
    /// it, and remembers what was refused as a write. A view that writes is refused when it is
    /// prepared already (MariaDB 10.11, measured).
    pub(super) fn leave_replica(&mut self, world: &mut World<'_>, code: u16) {
        let mut reason = Reason::NotCaughtUp;
        if let Some(pending) = self.pending.as_ref().filter(|_| retry::refused_as_write(code)) {
            world.refused.insert(pending.class.digest);
            reason = Reason::RefusedBefore;
        }
        self.fall_to_primary(reason);
    }

    fn refused_on_primary(
        &mut self,
        world: &mut World<'_>,
        slot: Held,
        step: &Step,
        error: &[u8],
        out: &mut Outbox,
    ) {
        match step {
            Step::Prepare(_) | Step::PrepareCounted(_) | Step::Whom(_) => {
                // As on a direct connection where the table is gone at the execution.
                packet::write(&mut out.client, 1, error);
                self.finished_here(world, reply::Err::code_of(error), out);
            }
            Step::AskPosition => {
                self.fall_to_primary(Reason::NotCaughtUp);
                self.proceed(world, out);
            }
            Step::FindAgain(_) => {
                self.not_found_again(slot);
                self.proceed(world, out);
            }
            Step::ShowTrackers => {
                self.trackers_shown(slot);
                self.proceed(world, out);
            }
            Step::Reset
            | Step::SetUp
            | Step::InsertId
            | Step::Counts
            | Step::Found(_)
            | Step::AskStrays
            | Step::SetStrays(_)
            | Step::Tell(_)
            | Step::Mark
            | Step::AskMark
            | Step::AskRole
            | Step::Ping
            | Step::ReplayPrepare(_)
            | Step::ReplayNumber(_)
            | Step::Replay
            | Step::Witness(_)
            | Step::Track
            | Step::Option(_)
            | Step::Schema(_)
            | Step::Role(_)
            | Step::Charsets(_)
            | Step::Variables(_)
            | Step::Wait
            | Step::EndReplicaTransaction
            | Step::ReopenOnPrimary => {
                // The state cannot be set up here: say so with the server's own words.
                packet::write(&mut out.client, 1, error);
                self.finished_here(world, reply::Err::code_of(error), out);
                self.close(world.now, out);
            }
        }
    }
}
