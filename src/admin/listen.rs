//! The console's listener: a loopback port or a unix socket, few connections, slow to guessers.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use crate::admin::commands::Console;
use crate::admin::conversation::Conversation;
use crate::app::tasks;
use crate::config::ListenAddress;
use crate::config::units::Secret;
use crate::protocol::auth::RsaKey;

/// Most connections to the console at a time; operators are few.
const CONNECTIONS_MAX: usize = 32;

/// Wrong passwords in a row that are answered at once; typing errors happen.
const FREE_FAILURES: u32 = 5;

/// The longest that a wrong password waits for its answer.
const DELAY_MAX: Duration = Duration::from_secs(10);

/// Pause after a failed accept (out of descriptors, mostly), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Ids of console connections begin here, far from those of client sessions: a KILL of the one
/// never hits the other.
const FIRST_ID: u32 = 0xF000_0000;

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// A loopback port.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

/// Who may log in, and what the console needs of the process.
#[derive(Debug)]
pub struct Door {
    /// The only user.
    pub user: String,
    /// Their password.
    pub password: Secret,
    /// The process's key for passwords on connections without TLS.
    pub rsa: Arc<RsaKey>,
    /// What commands work on.
    pub console: Console,
    /// Wrong passwords in a row, from anyone.
    failures: Failures,
}

/// Wrong passwords in a row.
#[derive(Debug, Default)]
pub struct Failures(AtomicU32);

// === impls ===

impl Listener {
    /// Binds the address. A socket file that nobody listens on any more is replaced; the new one
    /// can be used by its owner only.
    ///
    /// # Errors
    /// When the address is in use, or may not be used.
    pub async fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            ListenAddress::Unix(path) => {
                remove_stale(path).await?;
                let listener = UnixListener::bind(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
                Ok(Self::Unix(listener))
            }
        }
    }

    /// A listener of this address that another process has bound.
    ///
    /// # Errors
    /// What the system says.
    pub fn given(address: &ListenAddress, descriptor: OwnedFd) -> io::Result<Self> {
        Ok(match address {
            ListenAddress::Tcp(_) => Self::Tcp(TcpListener::from_std(descriptor.into())?),
            ListenAddress::Unix(_) => Self::Unix(UnixListener::from_std(descriptor.into())?),
        })
    }

    /// Serves until `shutdown` becomes true or its sender is gone; running commands may finish
    /// by themselves.
    pub async fn serve(self, door: Arc<Door>, mut shutdown: watch::Receiver<bool>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut id = FIRST_ID;
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                _ = shutdown.wait_for(|stop| *stop) => return,
            };
            let (stream, host) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "the console cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            id = id.checked_add(1).unwrap_or(FIRST_ID);
            let conversation = Conversation::new(door.clone(), id, host, self.is_local());
            match room.clone().try_acquire_owned() {
                Ok(permit) => {
                    let shutdown = shutdown.clone();
                    tasks::spawn("console", async move {
                        conversation.run(stream, shutdown).await;
                        drop(permit);
                    });
                }
                Err(_) => {
                    tasks::spawn("console", conversation.refuse(stream));
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, String)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), peer.ip().to_string()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), "localhost".to_owned()))
            }
        }
    }

    /// Whether nobody but the kernel sees what passes.
    fn is_local(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Unix(_) => true,
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// What a conversation talks over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Door {
    /// A door for this user.
    #[must_use]
    pub fn new(user: String, password: Secret, rsa: Arc<RsaKey>, console: Console) -> Self {
        Self { user, password, rsa, console, failures: Failures::default() }
    }

    /// Wrong passwords in a row.
    #[must_use]
    pub fn failures(&self) -> &Failures {
        &self.failures
    }
}

impl Failures {
    /// Counts a wrong password and says how long its answer has to wait: doubling from 200 ms.
    pub fn add(&self) -> Duration {
        let before = self.0.fetch_add(1, Ordering::Relaxed).min(64);
        match before.checked_sub(FREE_FAILURES) {
            None => Duration::ZERO,
            Some(beyond) => DELAY_MAX.min(Duration::from_millis(200 << beyond.min(16))),
        }
    }

    /// Somebody knew the password.
    pub fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Removes a socket file that nobody listens on. Anything else at that path is left alone, and
/// binding fails then.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Ok(());
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_becomes_slow_and_a_right_password_makes_it_fast_again() {
        let failures = Failures::default();
        let delays: Vec<u128> = (0..13).map(|_| failures.add().as_millis()).collect();
        let expected = [0, 0, 0, 0, 0, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
        assert_eq!(delays, expected);
        for _ in 0..200 {
            assert!(failures.add() <= DELAY_MAX);
        }
        failures.forget();
        assert_eq!(failures.add(), Duration::ZERO);
    }
}
