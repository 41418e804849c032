//! A byte stream to a peer: TCP or a unix socket, polled without allocation; inside TLS, on
//! demand, with the same calls.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mio::net::{TcpStream, UnixStream};
use rustls::ServerConfig;

use crate::compression::frames::Frames;
use crate::reactor::Reactor;
use crate::reactor::polled::Polled;

use crate::tls::TlsError;
use crate::tls::record::Records;
use crate::tls::trust::Towards;
use crate::upstream::layers::Layers;

/// A byte stream to a client or a server.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    /// What lies between the bytes of the wire and those of the protocol. Boxed: most streams
    /// have none.
    layers: Option<Box<Layers>>,
}

/// The socket of a stream.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(Polled<TcpStream>),
    /// Over a unix socket.
    Unix(Polled<UnixStream>),
}

impl Socket {
    /// Reads what is there into `buffer`; `Ready(Ok(0))` is the peer's end.
    ///
    /// A read that does not fill the buffer tells the reactor that the socket is drained, so no
    /// second read that would end in WouldBlock follows.
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => stream.poll_read(cx, buffer),
            Self::Unix(stream) => stream.poll_read(cx, buffer),
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => stream.poll_write(cx, bytes),
            Self::Unix(stream) => stream.poll_write(cx, bytes),
        }
    }

    #[inline]
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }
}

impl From<Polled<TcpStream>> for Stream {
    fn from(stream: Polled<TcpStream>) -> Self {
        Self { socket: Socket::Tcp(stream), layers: None }
    }
}

impl From<Polled<UnixStream>> for Stream {
    fn from(stream: Polled<UnixStream>) -> Self {
        Self { socket: Socket::Unix(stream), layers: None }
    }
}

impl Stream {
    /// Connects to `host:port`, or to a unix socket when the address is an absolute path.
    ///
    /// # Errors
    /// What the system says about it.
    pub async fn connect(reactor: &Rc<Reactor>, address: &str) -> io::Result<Self> {
        if address.starts_with('/') {
            return Ok(Polled::connect_path(reactor, Path::new(address))?.into());
        }
        let mut last = None;
        for address in resolve(address).await? {
            match Polled::connect(reactor, address).await {
                Ok(stream) => {
                    set_options(stream.socket())?;
                    return Ok(stream.into());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("its name stands for no address")))
    }

    /// Whether nobody on a network can listen: a unix socket, or TLS.
    #[must_use]
    pub fn is_private(&self) -> bool {
        matches!(self.socket, Socket::Unix(_)) || self.tls().is_some()
    }

    /// The TLS of this stream, if it has any.
    #[must_use]
    pub fn tls(&self) -> Option<&Records> {
        self.layers.as_ref().and_then(|layers| layers.tls())
    }

    /// Whether the peer is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match &self.socket {
            Socket::Unix(_) => true,
            Socket::Tcp(stream) => {
                stream.socket().peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
            }
        }
    }

    /// Whether the peer has neither closed nor sent anything that was not read: asked of the
    /// system, not of the reactor, which may not have heard of it yet.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match &self.socket {
            Socket::Tcp(stream) => socket2::SockRef::from(stream.socket()).peek(&mut byte),
            Socket::Unix(stream) => socket2::SockRef::from(stream.socket()).peek(&mut byte),
        };
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Has this task told from now on when there is something to be read, or the peer's end.
    pub fn watch_reading(&self, cx: &Context<'_>) {
        match &self.socket {
            Socket::Tcp(stream) => stream.watch_reading(cx),
            Socket::Unix(stream) => stream.watch_reading(cx),
        }
    }

    /// Whether the peer has closed its side, as far as the reactor has heard: no system call.
    #[inline]
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match &self.socket {
            Socket::Tcp(stream) => stream.has_ended(),
            Socket::Unix(stream) => stream.has_ended(),
        }
    }

    /// Ends what the peer can read, and goes on reading.
    ///
    /// # Errors
    /// What the system says about it.
    pub fn close_writing(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(stream) => stream.socket().shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.socket().shutdown(Shutdown::Write),
        }
    }

    /// Goes on inside TLS, as the server. `early` is what has been read already behind the
    /// request for TLS: it belongs to the handshake and is never taken as plain text.
    ///
    /// # Errors
    /// When the client's TLS is not acceptable, or the connection breaks.
    pub async fn accept_tls(
        &mut self,
        config: Arc<ServerConfig>,
        early: Vec<u8>,
    ) -> Result<(), TlsStreamError> {
        let mut records = Records::server(config)?;
        records.incoming = early;
        self.start_tls(records).await
    }

    /// Goes on inside TLS, as the client.
    ///
    /// # Errors
    /// When the server is not believed, or the connection breaks.
    pub async fn connect_tls(&mut self, towards: &Towards) -> Result<(), TlsStreamError> {
        let records = Records::client(towards.config.clone(), towards.name.clone())?;
        self.start_tls(records).await
    }

    async fn start_tls(&mut self, records: Records) -> Result<(), TlsStreamError> {
        let layers = self.layers.insert(Box::default());
        layers.handshake(&mut self.socket, records).await
    }

    /// Goes on compressed, both ways: from the first byte behind the login's OK.
    pub fn compress(&mut self, frames: Frames) {
        self.layers.get_or_insert_default().compress(frames);
    }

    /// Whether reading makes sense now, without a system call; who asks is told when it does.
    #[inline]
    pub fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        // A layer may have something to be read where the socket has not.
        if self.layers.is_some() {
            return Poll::Ready(());
        }
        match &self.socket {
            Socket::Tcp(stream) => stream.poll_readable(cx),
            Socket::Unix(stream) => stream.poll_readable(cx),
        }
    }

    /// Reads what is there into `buffer`; `Ready(Ok(0))` is the peer's end.
    #[inline]
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.layers {
            None => self.socket.poll_read(cx, buffer),
            Some(layers) => layers.poll_read(&mut self.socket, cx, buffer),
        }
    }

    /// Writes as much as fits now. What was not taken must be offered again, unchanged, before
    /// anything else: a layer may have part of it in its hands already.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.layers {
            None => self.socket.poll_write(cx, bytes),
            Some(layers) => layers.poll_write(&mut self.socket, cx, bytes),
        }
    }

    /// Writes as much as fits now, without waiting; see [`Stream::poll_write`].
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits; else what the system says.
    #[inline]
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.layers {
            None => self.socket.try_write(bytes),
            Some(layers) => layers.try_write(&mut self.socket, bytes),
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What the system says; part of the bytes may have been written.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = std::future::poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads what is there, waiting for at least a byte; 0 is the peer's end.
    ///
    /// # Errors
    /// What the system says.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_read(cx, buffer)).await
    }
}

/// The addresses that `host:port` stands for, in the order in which they are to be tried.
async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    match address.parse() {
        Ok(address) => Ok(vec![address]),
        Err(_) => Ok(tokio::net::lookup_host(address).await?.collect()),
    }
}

/// Why a stream did not get into TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsStreamError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer's TLS is not acceptable.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Small packets go out at once, and a peer that vanished without a word is noticed.
///
/// # Errors
/// What the system says.
pub fn set_options(stream: &impl AsFd) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)
}
