//! How a session comes by its links, and what becomes of them when its client leaves.

use std::time::Instant;

use crate::net::drive::{Drive, Gone};
use crate::net::hangup::HangUp;
use crate::net::link::{self, Opening};
use crate::net::pool::Acquired;
use crate::net::seat::Identity;
use crate::router::policy::Held;
use crate::session::action::{Event, NoLink, Outbox, index};
use crate::topology::NodeId;
use crate::upstream::budget::Place;
use crate::upstream::dial::DialError;

impl Drive {
    /// The client is gone; what it leaves clean serves others.
    pub(super) fn leave(&mut self) {
        if self.hung_up == HangUp::Told {
            // What its link was told cannot be taken back.
            return;
        }
        let mut out = Outbox::default();
        if let Some(session) = self.seat.session.borrow_mut().as_mut() {
            session.leave(&mut out);
        }
        for slot in [Held::Primary, Held::Replica] {
            let bytes = &out.links[index(slot)];
            let link = self.links[index(slot)].as_mut();
            if link.is_some_and(|link| !link.takes_at_once(bytes)) {
                self.links[index(slot)] = None;
            }
        }
        for request in out.requests {
            self.note(request);
        }
    }

    /// Gets a link: out of the pool, or a new one, as it must be where it is to be `fresh`.
    pub(super) async fn dial(
        &mut self,
        (slot, node, fresh): (Held, NodeId, bool),
        until: Instant,
        out: &mut Outbox,
    ) -> Result<(), Gone> {
        let identity = self.seat.identity.borrow().clone();
        let Some(identity) = identity else { return Ok(()) };
        let schema = {
            let session = self.seat.session.borrow();
            session.as_ref().and_then(|session| session.schema().map(<[u8]>::to_vec))
        };
        let wanted = self.worker.wanted(&self.seat, slot, schema.as_deref()).filter(|_| !fresh);
        let user = &identity.hello.user;
        let event = match self.worker.acquire(&self.seat, user, node, wanted, until).await {
            Acquired::Link(pooled, own) => {
                self.links[index(slot)] = Some(pooled.socket);
                Event::Attached { slot, link: pooled.kept, own }
            }
            Acquired::Place(place) => self.open(slot, node, &identity, schema, place).await,
            Acquired::Full(limit) => Event::NoLink { slot, node, why: NoLink::Full(limit) },
            Acquired::Moved => Event::NoLink { slot, node, why: NoLink::Moved },
            Acquired::Called => Event::NoLink { slot, node, why: NoLink::Called },
            Acquired::Killed => return Err(Gone),
        };
        self.worker.holds(&self.seat);
        self.event(event, out);
        Ok(())
    }

    async fn open(
        &mut self,
        slot: Held,
        node: NodeId,
        identity: &Identity,
        schema: Option<Vec<u8>>,
        place: Place,
    ) -> Event {
        let topology = self.seat.group().topology.load();
        let settings = self.seat.group().settings.load_full();
        let served = &self.seat.served;
        let schema = schema.as_deref();
        let opening = Opening { node, slot, schema, served, place, now: self.worker.now() };
        let opened = link::open(&self.seat, identity, &topology, &settings, opening).await;
        match opened {
            Ok((socket, facts, _)) => {
                self.links[index(slot)] = Some(socket);
                Event::Dialed(slot, facts)
            }
            Err(error) => {
                self.worker.link_error(self.seat.group(), node, &error);
                let refusal = match error {
                    DialError::Refused(payload) => Some(payload),
                    DialError::Unreachable(_)
                    | DialError::TimedOut(_)
                    | DialError::Login(_)
                    | DialError::Tls(_)
                    | DialError::Malformed(_) => None,
                };
                Event::DialFailed { slot, node, refusal }
            }
        }
    }

    /// Lets the client log in again.
    pub(super) async fn change_user(
        &mut self,
        payload: &[u8],
        out: &mut Outbox,
    ) -> Result<(), Gone> {
        let changed = crate::net::entrance::change_user(self, payload).await?;
        let Some(changed) = changed else {
            self.event(Event::UserKept, out);
            return Ok(());
        };
        if let Some((socket, facts)) = changed.link {
            self.links[0] = Some(socket);
            self.event(Event::UserChanged(Some(changed.login)), out);
            self.event(Event::Dialed(Held::Primary, facts), out);
        } else {
            self.event(Event::UserChanged(Some(changed.login)), out);
        }
        Ok(())
    }
}
