//! A socket that a reactor watches, with the calls of a stream.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mio::event::{Event, Source};
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Token};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::reactor::Reactor;

/// A socket, and what the kernel last said of it. Edge-triggered: the kernel speaks up when
/// something changes, so a call is tried until it would block.
pub struct Polled<S> {
    socket: S,
    readiness: Rc<Readiness>,
    key: usize,
    reactor: Rc<Reactor>,
}

/// What is known of a socket between two looks at the kernel.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    readable: Cell<bool>,
    writable: Cell<bool>,
    /// The peer has closed, or the connection is broken: reading will not block any more.
    ended: Cell<bool>,
    /// The task of the socket's own reactor that is told when there is something to be read, by
    /// its id, without a lock. Kept from one wait to the next. One that got the id later looks
    /// around and waits on.
    task: Cell<Option<usize>>,
    /// Whoever waits for that by a waker of its own instead.
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

impl Readiness {
    /// Takes an event of the kernel, and notes in `called` which task it concerns.
    pub(super) fn told(&self, event: &Event, called: &mut Vec<usize>) {
        let broken = event.is_error();
        if event.is_read_closed() || broken {
            self.ended.set(true);
        }
        if event.is_readable() || event.is_read_closed() || broken {
            self.readable.set(true);
            if let Some(task) = self.task.get() {
                called.push(task);
            } else if let Some(waker) = self.reader.borrow().as_ref() {
                waker.wake_by_ref();
            }
        }
        if event.is_writable() || event.is_write_closed() || broken {
            self.writable.set(true);
            // Taken: every event says that the socket can be written, and few wait for that.
            if let Some(writer) = self.writer.borrow_mut().take() {
                writer.wake();
            }
        }
    }

    #[inline]
    fn await_reading(&self, cx: &Context<'_>, (task, data): (usize, *const ())) {
        if cx.waker().data() == data {
            self.task.set(Some(task));
        } else {
            self.task.set(None);
            *self.reader.borrow_mut() = Some(cx.waker().clone());
        }
    }

    fn await_writing(&self, cx: &Context<'_>) {
        *self.writer.borrow_mut() = Some(cx.waker().clone());
    }
}

impl Polled<TcpStream> {
    /// Connects.
    ///
    /// # Errors
    /// What the system says about it.
    pub async fn connect(reactor: &Rc<Reactor>, address: SocketAddr) -> io::Result<Self> {
        let polled = Self::watch(reactor, TcpStream::connect(address)?, false)?;
        loop {
            poll_fn(|cx| polled.poll_writable(cx)).await;
            if let Some(error) = polled.socket.take_error()? {
                return Err(error);
            }
            match polled.socket.peer_addr() {
                Ok(_) => return Ok(polled),
                // Woken too early.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    polled.readiness.writable.set(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes over a connected socket, which must be non-blocking.
    ///
    /// # Errors
    /// When the system does not watch it.
    pub fn accepted(reactor: &Rc<Reactor>, socket: std::net::TcpStream) -> io::Result<Self> {
        Self::watch(reactor, TcpStream::from_std(socket), true)
    }
}

impl Polled<UnixStream> {
    /// Connects.
    ///
    /// # Errors
    /// What the system says about it.
    pub fn connect_path(reactor: &Rc<Reactor>, path: &Path) -> io::Result<Self> {
        // A unix socket connects at once, or its listener's queue is full.
        Self::watch(reactor, UnixStream::connect(path)?, true)
    }

    /// Takes over a connected socket, which must be non-blocking.
    ///
    /// # Errors
    /// When the system does not watch it.
    pub fn accepted(
        reactor: &Rc<Reactor>,
        socket: std::os::unix::net::UnixStream,
    ) -> io::Result<Self> {
        Self::watch(reactor, UnixStream::from_std(socket), true)
    }
}

impl<S: Source> Polled<S> {
    fn watch(reactor: &Rc<Reactor>, mut socket: S, writable: bool) -> io::Result<Self> {
        let readiness = Rc::new(Readiness::default());
        readiness.writable.set(writable);
        let key = reactor.sources.borrow_mut().insert(readiness.clone());
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = reactor.registry.register(&mut socket, Token(key), interest) {
            reactor.sources.borrow_mut().remove(key);
            return Err(error);
        }
        Ok(Self { socket, readiness, key, reactor: reactor.clone() })
    }
}

impl<S> Polled<S> {
    /// The socket itself, for its options.
    #[must_use]
    pub const fn socket(&self) -> &S {
        &self.socket
    }

    /// Whether the peer has closed its side, or the connection is broken. There may be something
    /// left to be read.
    #[inline]
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.readiness.ended.get()
    }

    /// Has this task told from now on when there is something to be read, or the peer's end, also
    /// while it does not ask for that.
    pub fn watch_reading(&self, cx: &Context<'_>) {
        self.readiness.await_reading(cx, self.reactor.running.get());
    }

    /// Whether reading makes sense now, without a system call.
    #[inline]
    pub fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        if self.readiness.readable.get() {
            return Poll::Ready(());
        }
        self.readiness.await_reading(cx, self.reactor.running.get());
        Poll::Pending
    }

    fn poll_writable(&self, cx: &Context<'_>) -> Poll<()> {
        if self.readiness.writable.get() {
            return Poll::Ready(());
        }
        self.readiness.await_writing(cx);
        Poll::Pending
    }
}

impl<S: AsFd> Polled<S> {
    /// Reads what is there into `buffer`; `Ready(Ok(0))` is the peer's end.
    ///
    /// A read that does not fill the buffer has drained the socket: no second one follows that
    /// would only say so.
    #[inline]
    pub fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.poll_readable(cx).is_pending() {
            return Poll::Pending;
        }
        loop {
            match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((read, _)) => {
                    if read < buffer.len() && !self.readiness.ended.get() {
                        self.readiness.readable.set(false);
                    }
                    return Poll::Ready(Ok(read));
                }
                Err(Errno::WOULDBLOCK) => {
                    self.readiness.readable.set(false);
                    self.readiness.await_reading(cx, self.reactor.running.get());
                    return Poll::Pending;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Writes as much as fits now.
    pub fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.poll_writable(cx).is_pending() {
            return Poll::Pending;
        }
        match self.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readiness.await_writing(cx);
                Poll::Pending
            }
            written => Poll::Ready(written),
        }
    }

    /// Writes as much as fits now, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits; else what the system says.
    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if !self.readiness.writable.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            // Without NOSIGNAL a peer that is gone would end the process.
            match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                Err(error @ Errno::WOULDBLOCK) => {
                    self.readiness.writable.set(false);
                    return Err(error.into());
                }
                written => return written.map_err(io::Error::from),
            }
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Polled<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Polled").field(&self.socket).finish()
    }
}

impl<S> Drop for Polled<S> {
    fn drop(&mut self) {
        // The kernel forgets the socket when it is closed, which is next.
        self.reactor.sources.borrow_mut().remove(self.key);
    }
}
