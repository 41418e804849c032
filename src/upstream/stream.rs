//! A byte stream to a peer: TCP or a unix socket, polled without allocation.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use mio::net::{TcpStream, UnixStream};

use crate::reactor::Reactor;
use crate::reactor::polled::Polled;

/// A byte stream to a client or a server.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(Polled<TcpStream>),
    /// Over a unix socket.
    Unix(Polled<UnixStream>),
}

impl Stream {
    /// Connects to `host:port`, or to a unix socket when the address is an absolute path.
    ///
    /// # Errors
    /// What the system says about it.
    pub async fn connect(reactor: &Rc<Reactor>, address: &str) -> io::Result<Self> {
        if address.starts_with('/') {
            return Ok(Self::Unix(Polled::connect_path(reactor, Path::new(address))?));
        }
        let mut last = None;
        for address in resolve(address).await? {
            match Polled::connect(reactor, address).await {
                Ok(stream) => {
                    set_options(stream.socket())?;
                    return Ok(Self::Tcp(stream));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("its name stands for no address")))
    }

    /// Whether nobody on a network can listen: a unix socket.
    #[must_use]
    pub fn is_private(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Whether the peer is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(stream) => {
                stream.socket().peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
            }
        }
    }

    /// Reads what is there into `buffer`; `Ready(Ok(0))` is the peer's end.
    ///
    /// A read that does not fill the buffer tells the reactor that the socket is drained, so no
    /// second read that would end in WouldBlock follows.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => stream.poll_read(cx, buffer),
            Self::Unix(stream) => stream.poll_read(cx, buffer),
        }
    }

    /// Writes as much as fits now.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => stream.poll_write(cx, bytes),
            Self::Unix(stream) => stream.poll_write(cx, bytes),
        }
    }

    /// Writes as much as fits now, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits; else what the system says.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
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
