//! The loop of one session: wait for what it asks for, hand it over, perform what it answers.
//!
//! Each answer is performed whole before the next input is read. That is the back-pressure: no
//! byte is read from a server while the client does not take the last ones.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use crate::health::SignalKind;
use crate::metrics::Bytes;
use crate::net::barred;
use crate::net::copy::{read_some, write, write_now};
use crate::net::group::Admission;
use crate::net::hangup::HangUp;
use crate::net::link::LinkSocket;
use crate::net::report;
use crate::net::seat::{Ring, Seat};
use crate::net::worker::{Current, Worker};
use crate::protocol::errno::SqlError;
use crate::protocol::flags::Capabilities;
use crate::router::policy::Held;
use crate::session::Session;
use crate::session::action::{Event, Interest, Outbox, Request, Trouble, World, index};
use crate::session::pin::Pins;
use crate::topology::{Flavour, NodeId};
use crate::upstream::stream::Stream;

/// The sockets of one session.
#[derive(Debug)]
pub(super) struct Drive {
    pub(super) seat: Rc<Seat>,
    pub(super) worker: Rc<Worker>,
    pub(super) client: Stream,
    /// Bytes of the client that the session has not used yet.
    pub(super) client_tail: Vec<u8>,
    pub(super) links: [Option<LinkSocket>; 2],
    /// Whether the client has gone while a server worked for it.
    pub(super) hung_up: HangUp,
}

/// What the wait ended with.
#[derive(Debug)]
enum Input {
    /// Bytes of the client: this many in the worker's buffer, or appended to the tail.
    Client(io::Result<usize>),
    /// Bytes of a link, likewise.
    Link(Held, io::Result<usize>),
    /// The bell.
    Ring(Ring),
}

/// What the quick path leaves to the one that can wait.
#[derive(Debug)]
enum Left {
    /// An input that it does not take.
    Input(Input),
    /// An outbox that is not empty, or bytes that the client has sent ahead.
    Outbox,
}

/// The client is gone, or has been sent away.
#[derive(Debug)]
pub(super) struct Gone;

impl Drive {
    /// Drives the session until its client leaves, and gives up its place.
    pub(super) async fn run(mut self, admission: Admission) {
        let mut draining = false;
        // The login's task has watched it; nobody waits for a first statement that is here already.
        poll_fn(|cx| {
            self.client.watch_reading(cx);
            Poll::Ready(())
        })
        .await;
        loop {
            let (left, mut out) = poll_fn(|cx| self.poll_turns(draining, cx)).await;
            let result = match left {
                Left::Input(input) => self.take(input, &mut out, &mut draining).await,
                Left::Outbox => self.catch_up(&mut out).await,
            };
            self.worker.give_outbox(out);
            if result.is_err() {
                break;
            }
            if draining && self.can_leave() {
                self.say_goodbye(&SqlError::shutdown());
                break;
            }
        }
        self.seat.count_load(None);
        self.leave();
        self.worker.left(self.seat.id, admission.group());
    }

    /// Takes inputs as long as all that comes of them can be performed without waiting, which
    /// is nearly always. What is left is for the slower path, which can wait.
    fn poll_turns(&mut self, draining: bool, cx: &mut Context<'_>) -> Poll<(Left, Box<Outbox>)> {
        let mut out = self.worker.take_outbox();
        let left = loop {
            let Poll::Ready(input) = self.poll_input(cx) else {
                self.worker.give_outbox(out);
                return Poll::Pending;
            };
            match input {
                Input::Client(Ok(read)) if read > 0 && self.client_tail.is_empty() && !draining => {
                    self.client_bytes_first(read, &mut out);
                }
                Input::Link(slot, Ok(read)) if read > 0 && !draining => {
                    self.link_bytes_first(slot, read, &mut out);
                }
                input => break Left::Input(input),
            }
            if !self.perform_now(&mut out) || !self.client_tail.is_empty() {
                break Left::Outbox;
            }
        };
        Poll::Ready((left, out))
    }

    /// Performs what does not wait: what concerns others, then the rest in the outbox's order.
    /// False when something is left in it.
    fn perform_now(&mut self, out: &mut Outbox) -> bool {
        self.announce(out);
        let metrics = &self.seat.served.metrics;
        if !write_now(&mut self.client, &mut out.client, |n| metrics.passed(Bytes::ToClients, n)) {
            return false;
        }
        if self.must_withhold(out) {
            return false;
        }
        for (bytes, link) in out.links.iter_mut().zip(&mut self.links) {
            match link {
                _ if bytes.is_empty() => {}
                Some(link) => {
                    let count = |n| metrics.passed(Bytes::ToServers, n);
                    if !write_now(&mut link.stream, bytes, count) {
                        return false;
                    }
                }
                None => bytes.clear(),
            }
        }
        if out.requests.is_empty() {
            return true;
        }
        if out.requests.iter().any(Request::waits) {
            return false;
        }
        let mut requests = std::mem::take(&mut out.requests);
        for request in requests.drain(..) {
            self.note(request);
        }
        out.requests = requests;
        true
    }

    /// Performs what [`Drive::poll_turns`] has left, and hands over what the client sent ahead.
    async fn catch_up(&mut self, out: &mut Outbox) -> Result<(), Gone> {
        self.settle(out).await?;
        self.drain_client_tail(out).await
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        if let Some(ring) = self.seat.bell.take() {
            return Poll::Ready(Input::Ring(ring));
        }
        let interest = self.interest();
        for slot in [Held::Primary, Held::Replica] {
            if interest.links[index(slot)]
                && let Some(link) = self.links[index(slot)].as_mut()
                && link.stream.poll_readable(cx).is_ready()
                && let Poll::Ready(read) =
                    read_some(&mut link.stream, &mut link.tail, &self.worker.buffer, cx)
            {
                return Poll::Ready(match self.hung_up {
                    HangUp::Told => Input::Client(Ok(0)),
                    HangUp::No | HangUp::Ahead => Input::Link(slot, read),
                });
            }
        }
        if interest.client
            && self.client.poll_readable(cx).is_ready()
            && let Poll::Ready(read) =
                read_some(&mut self.client, &mut self.client_tail, &self.worker.buffer, cx)
        {
            return Poll::Ready(Input::Client(read));
        }
        if !interest.client && self.client.has_ended() {
            self.notice_hang_up(cx);
        }
        self.seat.bell.watch(cx);
        Poll::Pending
    }

    fn interest(&self) -> Interest {
        let session = self.seat.session.borrow();
        session.as_ref().map_or(Interest::NOTHING, Session::interest)
    }

    fn can_leave(&self) -> bool {
        self.seat.session.borrow().as_ref().is_none_or(Session::can_leave)
    }

    async fn take(
        &mut self,
        input: Input,
        out: &mut Outbox,
        draining: &mut bool,
    ) -> Result<(), Gone> {
        match input {
            Input::Client(Ok(0) | Err(_)) => Err(Gone),
            Input::Client(Ok(read)) => self.client_bytes(read, out).await,
            Input::Link(slot, Ok(0) | Err(_)) => {
                self.links[index(slot)] = None;
                self.event(Event::LinkClosed(slot), out);
                self.settle(out).await
            }
            Input::Link(slot, Ok(read)) => self.link_bytes(slot, read, out).await,
            Input::Ring(ring) => self.rung(ring, out, draining).await,
        }
    }

    async fn rung(
        &mut self,
        ring: Ring,
        out: &mut Outbox,
        draining: &mut bool,
    ) -> Result<(), Gone> {
        if ring.has(Ring::KILL) {
            return Err(Gone);
        }
        if ring.has(Ring::IDLE) {
            if self.says_why_it_closes() {
                self.say_goodbye(&SqlError::idle_timeout());
            }
            return Err(Gone);
        }
        *draining |= ring.has(Ring::DRAIN);
        if ring.has(Ring::TOPOLOGY) {
            self.event(Event::TopologyMoved, out);
            self.settle(out).await?;
        }
        if ring.has(Ring::DEADLINE) {
            self.event(Event::Deadline, out);
            self.settle(out).await?;
        }
        if ring.has(Ring::RELEASE) && self.client_tail.is_empty() {
            self.event(Event::Release, out);
            self.settle(out).await?;
        }
        self.drain_client_tail(out).await
    }

    /// MariaDB closes an idle connection without a word, MySQL says why (10.11 and 9.7,
    /// measured). A limit of ours is always told.
    fn says_why_it_closes(&self) -> bool {
        let group = self.seat.group();
        let facts = group.topology.load().facts().map(|facts| facts.flavour);
        facts != Some(Flavour::MariaDb) || !group.settings.load().idle_timeout.is_zero()
    }

    /// An error that nobody asked for, as servers send it before they close: best effort.
    fn say_goodbye(&mut self, error: &SqlError) {
        let caps = self
            .seat
            .identity
            .borrow()
            .as_ref()
            .map_or(Capabilities::PROTOCOL_41, |identity| identity.hello.capabilities);
        let _ = self.client.try_write(&error.packet(0, caps));
    }

    async fn client_bytes(&mut self, read: usize, out: &mut Outbox) -> Result<(), Gone> {
        if self.client_tail.is_empty() {
            self.client_bytes_first(read, out);
            self.settle(out).await?;
        } else {
            self.seat.served.metrics.passed(Bytes::FromClients, read as u64);
        }
        self.drain_client_tail(out).await
    }

    /// Hands over what was read into the worker's buffer, and keeps what was not used.
    fn client_bytes_first(&mut self, read: usize, out: &mut Outbox) {
        self.seat.served.metrics.passed(Bytes::FromClients, read as u64);
        let worker = self.worker.clone();
        let buffer = worker.buffer.borrow();
        let input = buffer.get(..read).unwrap_or_default();
        let used = self.with_session(|session, world| session.on_client(world, input, out));
        self.client_tail.extend_from_slice(input.get(used..).unwrap_or_default());
    }

    /// Hands over what the client has sent ahead, as long as the session takes it.
    async fn drain_client_tail(&mut self, out: &mut Outbox) -> Result<(), Gone> {
        while !self.client_tail.is_empty() && self.interest().client {
            let tail = std::mem::take(&mut self.client_tail);
            let used = self.with_session(|session, world| session.on_client(world, &tail, out));
            self.client_tail = tail;
            self.client_tail.drain(..used);
            self.settle(out).await?;
            if used == 0 {
                break;
            }
        }
        if self.client_tail.is_empty() && self.client_tail.capacity() > 0 {
            self.client_tail = Vec::new();
        }
        Ok(())
    }

    async fn link_bytes(&mut self, slot: Held, read: usize, out: &mut Outbox) -> Result<(), Gone> {
        self.link_bytes_first(slot, read, out);
        self.settle(out).await?;
        // The reply may be over, and the client's next command here already.
        self.drain_client_tail(out).await
    }

    /// Hands over what was read of a link, and keeps what was not used.
    fn link_bytes_first(&mut self, slot: Held, read: usize, out: &mut Outbox) {
        self.seat.served.metrics.passed(Bytes::FromServers, read as u64);
        let Some(link) = self.links[index(slot)].as_mut() else { return };
        if link.tail.is_empty() {
            let worker = self.worker.clone();
            let buffer = worker.buffer.borrow();
            let input = buffer.get(..read).unwrap_or_default();
            let used =
                self.with_session(|session, world| session.on_server(world, slot, input, out));
            let rest = input.get(used..).unwrap_or_default();
            if let Some(link) = self.links[index(slot)].as_mut() {
                link.tail.extend_from_slice(rest);
            }
        } else {
            let mut tail = std::mem::take(&mut link.tail);
            let used =
                self.with_session(|session, world| session.on_server(world, slot, &tail, out));
            tail.drain(..used);
            if !tail.is_empty()
                && let Some(link) = self.links[index(slot)].as_mut()
            {
                link.tail = tail;
            }
        }
    }

    pub(super) fn event(&self, event: Event, out: &mut Outbox) {
        let is_barred = self.is_barred_for(&event);
        self.with_session_in(is_barred, |session, world| session.on_event(world, event, out));
    }

    /// Runs the session with the world as it is now.
    fn with_session<T: Default>(&self, run: impl FnOnce(&mut Session, &mut World<'_>) -> T) -> T {
        self.with_session_in(self.seat.group().is_barred(), run)
    }

    fn with_session_in<T: Default>(
        &self,
        is_barred: bool,
        run: impl FnOnce(&mut Session, &mut World<'_>) -> T,
    ) -> T {
        let mut session = self.seat.session.borrow_mut();
        let Some(session) = session.as_mut() else { return T::default() };
        let group = self.seat.group();
        let mut current = self.seat.served.current.borrow_mut();
        let Current { topology, barred, settings } = &mut *current;
        let newest = topology.newest();
        let topology = if is_barred { barred.in_place_of(newest, group) } else { newest };
        if is_barred {
            // Who waits from here on is woken when the lease is back, however soon that is.
            self.seat.served.was_barred.set(true);
        }
        let loads = |node| group.loads.running_on(node);
        let mut classes = self.worker.classes.borrow_mut();
        let mut refused = self.worker.refused.borrow_mut();
        let mut spent = self.worker.spent.borrow_mut();
        let mut world = World {
            now: self.worker.now(),
            topology,
            group: settings.load(),
            loads: &loads,
            seed: self.worker.next_seed(),
            classes: &mut classes,
            refused: &mut refused,
            spent: &mut spent,
            settings_changed: group.settings_changed.get(),
            tables_locked: group.table_locks.load(Ordering::Relaxed) > 0,
        };
        let result = run(session, &mut world);
        self.seat.count_load(session.running_on());
        self.seat.count_pins(session.pins(), self.worker.metrics(group));
        result
    }

    /// Performs an outbox, and what comes of it, until nothing is left to do.
    async fn settle(&mut self, out: &mut Outbox) -> Result<(), Gone> {
        loop {
            self.announce(out);
            self.flush(out).await?;
            if out.requests.is_empty() && out.client.is_empty() {
                return Ok(());
            }
            let mut requests = std::mem::take(&mut out.requests);
            for request in requests.drain(..) {
                self.carry_out(request, out).await?;
            }
            if out.requests.is_empty() {
                // Nothing has come of it: the room serves again.
                out.requests = requests;
            }
        }
    }

    /// Tells others what concerns them before the client hears that it is done: it may go on at
    /// once in another session, on another thread, or look for its statement in the metrics.
    fn announce(&mut self, out: &mut Outbox) {
        for request in out.requests.extract_if(.., |request| request.concerns_others()) {
            self.note(request);
        }
    }

    async fn flush(&mut self, out: &mut Outbox) -> Result<(), Gone> {
        if self.must_withhold(out) {
            self.withhold(out);
        }
        if !out.client.is_empty() {
            self.seat.served.metrics.passed(Bytes::ToClients, out.client.len() as u64);
            let bytes = std::mem::take(&mut out.client);
            let done = self.write_client(&bytes).await;
            out.client = bytes;
            out.client.clear();
            done?;
        }
        for slot in [Held::Primary, Held::Replica] {
            if out.links[index(slot)].is_empty() {
                continue;
            }
            let bytes = std::mem::take(&mut out.links[index(slot)]);
            let mut barred = false;
            if let Some(link) = self.links[index(slot)].as_mut() {
                self.seat.served.metrics.passed(Bytes::ToServers, bytes.len() as u64);
                // A broken link shows when it is read: what its server said last comes first.
                let group = (slot == Held::Primary).then(|| &**self.seat.group());
                let written = write(&mut link.stream, &bytes, &self.seat, group).await?;
                barred = written.is_err_and(|error| barred::is_barring(&error));
            }
            out.links[index(slot)] = bytes;
            out.links[index(slot)].clear();
            if barred {
                // The server has a part of it, which is nothing.
                self.withhold(out);
            }
        }
        Ok(())
    }

    async fn write_client(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        match write(&mut self.client, bytes, &self.seat, None).await? {
            Ok(()) => Ok(()),
            Err(_) => Err(Gone),
        }
    }

    async fn carry_out(&mut self, request: Request, out: &mut Outbox) -> Result<(), Gone> {
        match request {
            // What is rare and large is boxed: a session's task is as large as its largest wait.
            Request::Dial { slot, node, until, fresh } => {
                Box::pin(self.dial((slot, node, fresh), until, out)).await?;
            }
            Request::ChangeUser(payload) => Box::pin(self.change_user(&payload, out)).await?,
            Request::Kill { id, connection } => {
                let outcome = Box::pin(self.worker.kill(&self.seat, id, connection)).await;
                self.event(Event::Killed(outcome), out);
            }
            Request::Close => {
                self.flush(out).await?;
                return Err(Gone);
            }
            request => self.note(request),
        }
        Ok(())
    }

    /// Performs a request that neither waits nor answers.
    pub(super) fn note(&mut self, request: Request) {
        let metrics = &self.seat.served.metrics;
        match request {
            Request::Finished(finished) => {
                if finished.node.is_some_and(|node| self.seat.served.is_waited_for(node)) {
                    self.seat.bell.ring(Ring::RELEASE);
                }
                self.worker.finished(&self.seat.served, finished);
            }
            Request::Drop(slot) => drop(self.links[index(slot)].take()),
            Request::Release { slot, link } => {
                if let Some(socket) = self.links[index(slot)].take() {
                    self.worker.give_up(&self.seat, slot, socket, link);
                }
            }
            Request::CloseParked { slot, serial, id } => {
                self.worker.close_parked(&self.seat, slot, serial, id);
            }
            Request::Signal(node, trouble) => self.signal(node, trouble),
            Request::Acknowledged(node, written) => {
                self.seat.group().acknowledged.note(node, written);
            }
            Request::AccountsChanged => {
                self.seat.group().accounts.invalidate(None);
                self.seat.group().accounts_at.fetch_add(1, Ordering::Relaxed);
            }
            Request::ProbeNow => self.seat.group().health.probe_now(),
            Request::SettingsChanged => {
                self.seat.group().settings_changed.set(std::time::Instant::now());
                self.seat.group().health.probe_now();
            }
            Request::Waited(outcome) => metrics.replica_wait(outcome.into()),
            Request::Retried(retry) => metrics.retried(retry.into()),
            Request::Replayed(outcome) => metrics.replayed(outcome.into()),
            Request::Unwitnessed(node, code) => report::unwitnessed(&self.seat, node, code),
            Request::Resolved(outcome) => metrics.resolved(outcome.into()),
            Request::HeldFor(waited) => self.worker.held(self.seat.group(), waited),
            Request::Dial { .. }
            | Request::ChangeUser(_)
            | Request::Kill { .. }
            | Request::Close => {}
        }
    }

    fn signal(&self, node: NodeId, trouble: Trouble) {
        let kind = match trouble {
            Trouble::LinkLost => SignalKind::LinkLost,
            Trouble::DialFailed => SignalKind::DialFailed,
            Trouble::ReadOnly => SignalKind::ReadOnlyRefused,
            Trouble::SetReadOnly => SignalKind::SetReadOnly,
            Trouble::Overload => SignalKind::Overload,
        };
        self.seat.group().health.signal(node, kind);
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        let metrics = &self.seat.served.metrics;
        self.seat.count_pins(Pins::default(), metrics);
        self.worker.disown(&self.seat);
    }
}
