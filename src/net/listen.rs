//! Listeners: accept, count, hand over to the least busy worker. Also the PROXY protocol header
//! that a load balancer sends before a client's first byte.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::config::ListenAddress;
use crate::net::drive::{Drive, Gone};
use crate::net::entrance;
use crate::net::group::{Admission, GroupHandle};
use crate::net::worker::{Message, NewClient, Socket, WorkerHandle};
use crate::protocol::errno::SqlError;
use crate::protocol::flags::Capabilities;
use crate::upstream::stream;

/// Longest PROXY protocol header: a v2 header with 2 KiB of further fields.
const HEADER_MAX: usize = 16 + 2048;
/// Pauses after failed accepts: file descriptors may be short.
const BACKOFF: [Duration; 2] = [Duration::from_millis(5), Duration::from_secs(1)];

/// A bound listener of a group.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

/// Binds one address.
///
/// # Errors
/// What the system says, with the address.
pub fn bind(address: &ListenAddress) -> io::Result<Bound> {
    match address {
        ListenAddress::Tcp(address) => {
            let socket = socket2::Socket::new(
                socket2::Domain::for_address(*address),
                socket2::Type::STREAM,
                None,
            )?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&(*address).into())?;
            socket.listen(4096)?;
            Ok(Bound::Tcp(TcpListener::from_std(socket.into())?))
        }
        ListenAddress::Unix(path) => {
            // A socket left by a process that is gone would refuse the bind for ever; one that
            // still answers is somebody's.
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            match std::fs::remove_file(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            Ok(Bound::Unix(UnixListener::bind(path)?))
        }
    }
}

/// A listener of this address that another process has bound.
///
/// # Errors
/// What the system says.
pub fn given(address: &ListenAddress, descriptor: OwnedFd) -> io::Result<Bound> {
    Ok(match address {
        ListenAddress::Tcp(_) => Bound::Tcp(TcpListener::from_std(descriptor.into())?),
        ListenAddress::Unix(_) => Bound::Unix(UnixListener::from_std(descriptor.into())?),
    })
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Accepts clients until the process drains.
pub async fn accept(
    bound: Bound,
    group: Arc<GroupHandle>,
    workers: Vec<WorkerHandle>,
    mut draining: watch::Receiver<bool>,
) {
    let mut pause = BACKOFF[0];
    loop {
        let accepted = tokio::select! {
            accepted = accept_one(&bound) => accepted,
            _ = draining.wait_for(|draining| *draining) => return,
        };
        match accepted {
            Ok((socket, peer, local)) => {
                pause = BACKOFF[0];
                hand_over(socket, peer, local, &group, &workers).await;
            }
            Err(error) => {
                tracing::warn!(%error, group = %group.name, "cannot accept; retrying");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF[1]);
            }
        }
    }
}

type Accepted = (Socket, Option<SocketAddr>, Option<SocketAddr>);

async fn accept_one(bound: &Bound) -> io::Result<Accepted> {
    match bound {
        Bound::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            stream::set_options(&stream)?;
            let local = stream.local_addr().ok();
            Ok((Socket::Tcp(stream.into_std()?), Some(peer), local))
        }
        Bound::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            Ok((Socket::Unix(stream.into_std()?), None, None))
        }
    }
}

async fn hand_over(
    socket: Socket,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
    group: &Arc<GroupHandle>,
    workers: &[WorkerHandle],
) {
    let Some(admission) = Admission::take(group) else {
        tracing::warn!(group = %group.name, "too many clients: max_clients is reached");
        refuse(&socket);
        return;
    };
    let proxied = {
        let settings = group.settings.load();
        peer.is_some_and(|peer| {
            settings.proxy_protocol_from.iter().any(|network| network.contains(peer.ip()))
        })
    };
    let client = NewClient { socket, peer, local, admission, proxied };
    if let Some(worker) = workers.iter().min_by_key(|worker| worker.clients()) {
        let _ = worker.messages.send(Message::Client(client)).await;
    }
}

/// 1040 before a greeting, as a server with too many connections does it.
fn refuse(socket: &Socket) {
    use std::io::Write;
    let error = SqlError::too_many_connections().packet(0, Capabilities::PROTOCOL_41);
    let _ = match socket {
        Socket::Tcp(stream) => (&*stream).write(&error),
        Socket::Unix(stream) => (&*stream).write(&error),
    };
}

/// Reads the header that a listed peer must send, and takes the client's address from it.
pub(super) async fn read_proxy_header(drive: &mut Drive) -> Result<(), Gone> {
    loop {
        match ppp::HeaderResult::parse(&drive.client_tail) {
            result if ppp::PartialResult::is_incomplete(&result) => {
                if drive.client_tail.len() > HEADER_MAX {
                    return Err(Gone);
                }
                entrance::read_more(drive).await?;
            }
            ppp::HeaderResult::V1(Ok(header)) => {
                let len = header.header.len();
                let source = v1_source(&header.addresses);
                return take_header(drive, len, source);
            }
            ppp::HeaderResult::V2(Ok(header)) => {
                let len = header.len();
                let source = v2_source(&header);
                return take_header(drive, len, source);
            }
            ppp::HeaderResult::V1(Err(_)) | ppp::HeaderResult::V2(Err(_)) => {
                tracing::warn!(
                    peer = ?drive.seat.peer,
                    "a listed peer sent no PROXY protocol header: closed"
                );
                return Err(Gone);
            }
        }
    }
}

fn take_header(drive: &mut Drive, len: usize, source: Option<SocketAddr>) -> Result<(), Gone> {
    drive.client_tail.drain(..len.min(drive.client_tail.len()));
    if let Some(source) = source {
        drive.seat.peer.set(Some(source));
    }
    Ok(())
}

fn v1_source(addresses: &ppp::v1::Addresses) -> Option<SocketAddr> {
    match addresses {
        ppp::v1::Addresses::Tcp4(tcp) => {
            Some(SocketAddr::from((tcp.source_address, tcp.source_port)))
        }
        ppp::v1::Addresses::Tcp6(tcp) => {
            Some(SocketAddr::from((tcp.source_address, tcp.source_port)))
        }
        ppp::v1::Addresses::Unknown => None,
    }
}

/// `None` for LOCAL: the balancer speaks for itself (a health check).
fn v2_source(header: &ppp::v2::Header<'_>) -> Option<SocketAddr> {
    if header.command == ppp::v2::Command::Local {
        return None;
    }
    match &header.addresses {
        ppp::v2::Addresses::IPv4(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        ppp::v2::Addresses::IPv6(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        ppp::v2::Addresses::Unix(_) | ppp::v2::Addresses::Unspecified => None,
    }
}
