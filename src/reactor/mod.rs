//! The reactor of one worker thread: its tasks, and the sockets that they wait for.
//!
//! Does not know: MySQL, clients, servers, time, or other threads but for the wake-ups that come
//! from them. It is small because a worker needs little of a runtime, and needs that twice for
//! each query (docs/decisions/0005-reactor.md). Whatever is rare (timers, name look-ups) is left to
//! the main runtime, whose context the worker's thread has entered.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use mio::{Events, Registry, Token};
use slab::Slab;

use crate::reactor::polled::Readiness;

pub mod polled;
#[cfg(test)]
mod tests;

/// Events taken from the kernel at once; the others come with the next look.
const EVENTS: usize = 512;
/// The token of a wake-up by another thread.
const WOKEN: Token = Token(usize::MAX);
/// The id of the future that [`Reactor::block_on`] was given.
const MAIN: usize = usize::MAX;

/// A thread's tasks and sockets. It stays on the thread that made it.
pub struct Reactor {
    poll: RefCell<mio::Poll>,
    registry: Registry,
    sources: RefCell<Slab<Rc<Readiness>>>,
    /// `None` while the task is being polled.
    tasks: RefCell<Slab<Option<Task>>>,
    /// The task that is being polled, and what its waker points at.
    running: Cell<(usize, *const ())>,
    ready: Arc<Ready>,
}

/// A task that waits, or is about to run.
struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    call: Arc<Call>,
    waker: Waker,
}

/// How a task is called: by whoever holds its waker, on any thread.
struct Call {
    id: usize,
    /// It is in the queue already.
    queued: AtomicBool,
    ready: Arc<Ready>,
}

/// The tasks that have been called by wakers, on whatever thread.
struct Ready {
    ids: Mutex<Vec<usize>>,
    /// [`AWAKE`], [`ASLEEP`] or [`CALLED`].
    state: AtomicU8,
    kernel: mio::Waker,
}

/// The thread looks at its tasks; nobody has called since it last took the calls.
const AWAKE: u8 = 0;
/// The thread sleeps, or is about to: a call must wake it.
const ASLEEP: u8 = 1;
/// Somebody has called.
const CALLED: u8 = 2;

impl Reactor {
    /// A reactor for this thread.
    ///
    /// # Errors
    /// When the system gives no epoll instance or no event descriptor.
    pub fn new() -> io::Result<Rc<Self>> {
        let poll = mio::Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let kernel = mio::Waker::new(&registry, WOKEN)?;
        Ok(Rc::new(Self {
            poll: RefCell::new(poll),
            registry,
            sources: RefCell::default(),
            tasks: RefCell::default(),
            running: Cell::new((MAIN, std::ptr::null())),
            ready: Arc::new(Ready { ids: Mutex::default(), state: AtomicU8::new(AWAKE), kernel }),
        }))
    }

    /// Starts a task on this thread. One that panics ends alone, with a line in the log.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let call = Call::new(entry.key(), &self.ready);
        let waker = Waker::from(call.clone());
        waker.wake_by_ref();
        entry.insert(Some(Task { future: Box::pin(future), call, waker }));
    }

    /// Runs `main`, and all tasks beside it, until `main` is done; the tasks are dropped then.
    ///
    /// # Errors
    /// When the system cannot be asked for events.
    pub fn block_on<T>(&self, main: impl Future<Output = T>) -> io::Result<T> {
        let mut main = pin!(main);
        let call = Call::new(MAIN, &self.ready);
        let waker = Waker::from(call.clone());
        waker.wake_by_ref();
        let mut events = Events::with_capacity(EVENTS);
        let mut called = Vec::new();
        loop {
            // One look at the kernel for each round of tasks: neither can starve the other.
            let by_wakers = self.gather(&mut events, &mut called)?;
            for (at, id) in called.drain(..).enumerate() {
                if id != MAIN {
                    self.run(id, at < by_wakers);
                    continue;
                }
                call.queued.store(false, Ordering::SeqCst);
                self.running.set((MAIN, waker.data()));
                if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
                    drop(tasks);
                    return Ok(output);
                }
            }
        }
    }

    /// Waits for events, unless a task is ready, and notes in `called` whom they concern, behind
    /// those that wakers have called; says how many these are.
    fn gather(&self, events: &mut Events, called: &mut Vec<usize>) -> io::Result<usize> {
        let patience = if self.ready.may_sleep() { None } else { Some(Duration::ZERO) };
        match self.poll.borrow_mut().poll(events, patience) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        self.ready.take(called);
        let by_wakers = called.len();
        let sources = self.sources.borrow();
        for event in events.iter() {
            // The wake-up itself has no source: whom it concerns stands in the queue.
            if let Some(source) = sources.get(event.token().0) {
                source.told(event, called);
            }
        }
        Ok(by_wakers)
    }

    fn run(&self, id: usize, by_waker: bool) {
        // Taken out, since it may start other tasks.
        let task = self.tasks.borrow_mut().get_mut(id).and_then(Option::take);
        let Some(mut task) = task else { return };
        if by_waker {
            task.call.queued.store(false, Ordering::SeqCst);
        }
        self.running.set((id, task.waker.data()));
        let mut context = Context::from_waker(&task.waker);
        let future = &mut task.future;
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
        match polled {
            Ok(Poll::Pending) => {
                if let Some(place) = self.tasks.borrow_mut().get_mut(id) {
                    *place = Some(task);
                }
            }
            Ok(Poll::Ready(())) => self.end(id, task),
            Err(_) => {
                tracing::error!("a task of a worker has panicked; it ends here, alone");
                self.end(id, task);
            }
        }
    }

    /// Ends a task. Its id is given away only after it was dropped.
    fn end(&self, id: usize, task: Task) {
        drop(task);
        self.tasks.borrow_mut().remove(id);
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").finish_non_exhaustive()
    }
}

impl Call {
    fn new(id: usize, ready: &Arc<Ready>) -> Arc<Self> {
        Arc::new(Self { id, queued: AtomicBool::new(false), ready: ready.clone() })
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A waker that outlives its task may call another one that got its id: that one looks
        // around and waits on.
        if !self.queued.swap(true, Ordering::SeqCst) {
            self.ready.call(self.id);
        }
    }
}

impl Ready {
    fn call(&self, id: usize) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        let was_asleep = self.state.swap(CALLED, Ordering::SeqCst) == ASLEEP;
        if was_asleep && let Err(error) = self.kernel.wake() {
            tracing::error!(%error, "a worker cannot be woken");
        }
    }

    /// Whether nobody has called. From then on a call wakes the thread.
    fn may_sleep(&self) -> bool {
        let slept = self.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst);
        slept.is_ok()
    }

    /// Moves those who have been called into `called`, which is empty.
    fn take(&self, called: &mut Vec<usize>) {
        if self.state.swap(AWAKE, Ordering::SeqCst) == CALLED {
            let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut *ids, called);
        }
    }
}
