//! A process that takes the place of the running one, which starts it and gives it its listeners:
//! it serves before the other one ends, so that no client is refused meanwhile.
//!
//! The two speak in packets over a socket that is the new one's standard input: `listens ADDRESS`
//! with a listener for each, `all`, then `prepared` by the new one, which from there on can only
//! fail by what the old one still holds; `go ID` when that is released, and `ready`. Whoever hears
//! nothing, or the end, goes on as if there were no other.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair,
};

use crate::app::tasks;

/// The option by which a process knows that it takes another one's place.
pub const OPTION: &str = "--take-over";
/// How long a new process may take to read its configuration and its listeners.
const PREPARED_WITHIN: Duration = Duration::from_secs(30);
/// How long one may take from there until it serves.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// How long one waits for what the old one holds.
const GO_WITHIN: Duration = Duration::from_secs(60);
/// The longest packet: a word and an address.
const PACKET_MAX: usize = 4096;
const LISTENS: &str = "listens ";
const ALL: &str = "all";
const PREPARED: &str = "prepared";
const GO: &str = "go ";
const READY: &str = "ready";

/// The listening sockets of a process, by their addresses.
#[derive(Debug, Default)]
pub struct Listeners(Vec<(String, OwnedFd)>);

/// How this process was started, for another one like it.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// The process whose place this one takes.
#[derive(Debug)]
pub struct Predecessor {
    link: OwnedFd,
}

/// A process that is to take the place of this one; killed when dropped before it serves.
#[derive(Debug)]
pub struct Successor {
    link: Arc<OwnedFd>,
    child: Child,
    serves: bool,
}

// === impls ===

impl Listeners {
    /// Adds one.
    pub fn add(&mut self, address: String, descriptor: OwnedFd) {
        self.0.push((address, descriptor));
    }

    /// The listener of this address, if there is one; nobody gets it again.
    pub fn take(&mut self, address: &impl ToString) -> Option<OwnedFd> {
        let address = address.to_string();
        let at = self.0.iter().position(|(at, _)| *at == address)?;
        Some(self.0.swap_remove(at).1)
    }
}

impl Program {
    /// This process. The file at the path of its program may be another one later.
    ///
    /// # Errors
    /// When the system does not say where it is.
    pub fn own() -> io::Result<Self> {
        let arguments = std::env::args_os().skip(1).filter(|word| word != OPTION).collect();
        Ok(Self { path: std::env::current_exe()?, arguments })
    }
}

impl Predecessor {
    /// The one at this process's standard input.
    ///
    /// # Errors
    /// When that is closed.
    pub fn at_standard_input() -> io::Result<Self> {
        Ok(Self { link: io::stdin().as_fd().try_clone_to_owned()? })
    }

    /// Its listeners.
    ///
    /// # Errors
    /// When it is no such process, or says nothing.
    pub fn listeners(&self) -> io::Result<Listeners> {
        let mut listeners = Listeners::default();
        loop {
            let (text, descriptor) = hear(&self.link, PREPARED_WITHIN)?;
            match (text.strip_prefix(LISTENS), descriptor) {
                (Some(address), Some(descriptor)) => {
                    listeners.add(address.to_owned(), descriptor);
                }
                _ if text == ALL => return Ok(listeners),
                _ => return Err(unexpected(&text)),
            }
        }
    }

    /// Says that nothing but what it holds is in the way, and waits until that is released;
    /// answers the first number for a client's connection that it has not given to one.
    ///
    /// # Errors
    /// When it stays, or ends before.
    pub fn prepared(&self) -> io::Result<u32> {
        say(&self.link, PREPARED, None)?;
        let (text, _) = hear(&self.link, GO_WITHIN)?;
        let id = text.strip_prefix(GO).and_then(|id| id.parse().ok());
        id.ok_or_else(|| unexpected(&text))
    }

    /// Says that this process serves.
    ///
    /// # Errors
    /// When it is gone.
    pub fn ready(&self) -> io::Result<()> {
        say(&self.link, READY, None)
    }
}

impl Successor {
    /// Starts one and waits until it is prepared.
    ///
    /// # Errors
    /// When it cannot be started, or does not come to that.
    pub async fn prepare(program: &Program, listeners: &Listeners) -> io::Result<Self> {
        let (own, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let child = Command::new(&program.path)
            .args(&program.arguments)
            .arg(OPTION)
            .stdin(Stdio::from(other))
            .spawn()?;
        let successor = Self { link: Arc::new(own), child, serves: false };
        for (address, descriptor) in &listeners.0 {
            say(&successor.link, &format!("{LISTENS}{address}"), Some(descriptor))?;
        }
        say(&successor.link, ALL, None)?;
        successor.hears(PREPARED, PREPARED_WITHIN).await?;
        Ok(successor)
    }

    /// Lets it go on, and waits until it serves; answers its number. From there on it lives
    /// whatever becomes of this process; otherwise it has ended.
    ///
    /// # Errors
    /// When it does not come to that.
    pub async fn go(mut self, id: u32) -> io::Result<u32> {
        say(&self.link, &format!("{GO}{id}"), None)?;
        self.hears(READY, READY_WITHIN).await?;
        self.serves = true;
        Ok(self.child.id())
    }

    async fn hears(&self, word: &'static str, within: Duration) -> io::Result<()> {
        let link = self.link.clone();
        let (text, _) = tasks::blocking(move || hear(&link, within)).await?;
        if text == word { Ok(()) } else { Err(unexpected(&text)) }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if !self.serves {
            // What it was to be given is held again by this process only when it has ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn say(link: &OwnedFd, text: &str, descriptor: Option<&OwnedFd>) -> io::Result<()> {
    let Some(descriptor) = descriptor else {
        send(link, text.as_bytes(), SendFlags::NOSIGNAL)?;
        return Ok(());
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    if !with.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    sendmsg(link, &[IoSlice::new(text.as_bytes())], &mut with, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn hear(link: &OwnedFd, within: Duration) -> io::Result<(String, Option<OwnedFd>)> {
    set_socket_timeout(link, Timeout::Recv, Some(within))?;
    let mut bytes = [0; PACKET_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let buffers = &mut [IoSliceMut::new(&mut bytes)];
    let received = match recvmsg(link, buffers, &mut with, RecvFlags::CMSG_CLOEXEC) {
        Err(rustix::io::Errno::AGAIN) => {
            let text = format!("no word from it within {} s", within.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        received => received?.bytes,
    };
    if received == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended"));
    }
    let descriptor = with.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok((String::from_utf8_lossy(&bytes[..received]).into_owned(), descriptor))
}

fn unexpected(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it said {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("a pair of sockets")
    }

    #[test]
    fn listeners_arrive_with_their_addresses_and_go_on_listening() {
        let (old, new) = pair();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let mut listeners = Listeners::default();
        let descriptor = listener.as_fd().try_clone_to_owned().expect("a descriptor");
        listeners.add(address.to_string(), descriptor);
        drop(listener);
        for (address, descriptor) in &listeners.0 {
            say(&old, &format!("{LISTENS}{address}"), Some(descriptor)).expect("it is heard");
        }
        say(&old, ALL, None).expect("it is heard");
        let waiting = std::net::TcpStream::connect(address).expect("somebody listens");
        drop(listeners);
        let predecessor = Predecessor { link: new };
        let mut listeners = predecessor.listeners().expect("all listeners");
        let descriptor = listeners.take(&address).expect("that listener");
        assert!(listeners.take(&address).is_none());
        let listener = std::net::TcpListener::from(descriptor);
        let (_, peer) = listener.accept().expect("who came before");
        assert_eq!(peer, waiting.local_addr().expect("its address"));
    }

    #[test]
    fn who_hears_the_end_or_something_else_says_so() {
        let (old, new) = pair();
        let predecessor = Predecessor { link: new };
        say(&old, "gone 12", None).expect("it is heard");
        let error = predecessor.prepared().expect_err("no number");
        assert!(error.to_string().contains("gone 12"), "{error}");
        assert_eq!(hear(&old, GO_WITHIN).expect("it is heard").0, PREPARED);
        drop(old);
        let error = predecessor.listeners().expect_err("the end");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
