//! What lies between the bytes of the wire and those of the protocol: TLS, and inside it
//! compression.
//!
//! Buffers are there only while something is in them, so that an idle stream costs the state of
//! its ciphers and no more.

use std::io;
use std::task::{Context, Poll, ready};

use crate::compression::frames::Frames;
use crate::tls::TlsError;
use crate::tls::record::{Progress, Records, Sink};
use crate::upstream::stream::{Socket, TlsStreamError};

/// Plain text that is encoded before it is written.
const WRITE_CHUNK: usize = 64 * 1024;
/// Most bytes of a peer before its handshake is over.
const HANDSHAKE_MAX: usize = 64 * 1024;

/// The layers of one stream.
#[derive(Debug, Default)]
pub(super) struct Layers {
    tls: Option<Records>,
    compression: Option<Frames>,
    /// Bytes for the wire that it has not taken yet, from `sent` on.
    outgoing: Vec<u8>,
    sent: usize,
    /// Bytes of the writer that are in `outgoing` and not reported as written: until the wire
    /// has taken them all, the writer must come back.
    promised: usize,
    /// Decoded bytes that the reader had no room for, from `given` on.
    ready: Vec<u8>,
    given: usize,
    /// The peer sends no more.
    ended: bool,
}

impl Layers {
    pub(super) fn tls(&self) -> Option<&Records> {
        self.tls.as_ref()
    }

    /// Everything is compressed from the next byte on, both ways.
    pub(super) fn compress(&mut self, frames: Frames) {
        self.compression = Some(frames);
    }

    /// Brings TLS up.
    pub(super) async fn handshake(
        &mut self,
        socket: &mut Socket,
        mut records: Records,
    ) -> Result<(), TlsStreamError> {
        let mut scratch = [0; 2048];
        let mut received = records.incoming.len();
        loop {
            let mut plain = Sink::new(&mut [], &mut self.ready);
            let progress = records.advance(&mut plain, &mut self.outgoing);
            // Also when it failed: an alert tells the peer why.
            std::future::poll_fn(|cx| self.poll_flush(socket, cx)).await?;
            match progress? {
                Progress::Open => {
                    self.tls = Some(records);
                    return Ok(());
                }
                Progress::Closed => return Err(io::Error::from(END).into()),
                Progress::Handshaking => {}
            }
            let read = std::future::poll_fn(|cx| socket.poll_read(cx, &mut scratch)).await?;
            records.incoming.extend_from_slice(scratch.get(..read).unwrap_or_default());
            received += read;
            if read == 0 {
                return Err(io::Error::from(END).into());
            }
            if received > HANDSHAKE_MAX {
                return Err(TlsError::TooLong(HANDSHAKE_MAX).into());
            }
        }
    }

    pub(super) fn poll_read(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let given = self.give(buffer);
            if given > 0 || self.ended || buffer.is_empty() {
                return Poll::Ready(Ok(given));
            }
            // The reader's buffer holds the wire's bytes first, and then what came of them.
            let read = ready!(socket.poll_read(cx, buffer))?;
            self.ended = read == 0;
            let filled = match &mut self.tls {
                Some(_) => self.decrypt(socket, buffer, read)?,
                None => read,
            };
            let Some(frames) = &mut self.compression else {
                if filled > 0 {
                    return Poll::Ready(Ok(filled));
                }
                continue;
            };
            // What TLS had no room for stands behind what it had.
            let mut packed = buffer.get(..filled).unwrap_or_default().to_vec();
            packed.append(&mut self.ready);
            frames.unpack(&packed, &mut self.ready)?;
        }
    }

    /// Turns the `read` bytes of cipher text at the head of the buffer into plain text there;
    /// what does not fit is ready for later. The length of what fits.
    fn decrypt(
        &mut self,
        socket: &mut Socket,
        buffer: &mut [u8],
        read: usize,
    ) -> io::Result<usize> {
        // Before the handshake is over nobody else reads.
        let Some(tls) = &mut self.tls else { return Err(END.into()) };
        tls.incoming.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let mut plain = Sink::new(buffer, &mut self.ready);
        let progress = tls.advance(&mut plain, &mut self.outgoing);
        let filled = plain.filled;
        // Alerts and answers to key updates: what does not fit now goes before the next bytes
        // of ours.
        match self.flush(socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.ended |= progress.map_err(io::Error::other)? == Progress::Closed;
        Ok(filled)
    }

    /// Hands out what is decoded already.
    fn give(&mut self, buffer: &mut [u8]) -> usize {
        let waiting = self.ready.get(self.given..).unwrap_or_default();
        let fits = waiting.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..fits), waiting.get(..fits)) {
            to.copy_from_slice(from);
        }
        self.given += fits;
        if self.given == self.ready.len() && self.given > 0 {
            (self.ready, self.given) = (Vec::new(), 0);
        }
        fits
    }

    pub(super) fn poll_write(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(socket, bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            ready!(self.poll_flush(socket, cx))?;
        }
    }

    pub(super) fn try_write(&mut self, socket: &mut Socket, bytes: &[u8]) -> io::Result<usize> {
        self.flush(socket)?;
        let mut done = std::mem::take(&mut self.promised).min(bytes.len());
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let chunk = rest.get(..WRITE_CHUNK).unwrap_or(rest);
            self.encode(chunk)?;
            match self.flush(socket) {
                Ok(()) => done += chunk.len(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.promised = chunk.len();
                    return if done > 0 { Ok(done) } else { Err(error) };
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Makes plain bytes bytes for the wire.
    fn encode(&mut self, plain: &[u8]) -> io::Result<()> {
        match (&mut self.compression, &mut self.tls) {
            (Some(frames), Some(tls)) => {
                let mut packed = Vec::new();
                frames.pack(plain, &mut packed);
                tls.encrypt(&packed, &mut self.outgoing).map_err(io::Error::other)?;
            }
            (Some(frames), None) => frames.pack(plain, &mut self.outgoing),
            (None, Some(tls)) => {
                tls.encrypt(plain, &mut self.outgoing).map_err(io::Error::other)?;
            }
            (None, None) => self.outgoing.extend_from_slice(plain),
        }
        Ok(())
    }

    /// Writes what is encoded; `WouldBlock` when something is left.
    fn flush(&mut self, socket: &mut Socket) -> io::Result<()> {
        while let Some(rest) = self.outgoing.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match socket.try_write(rest)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => self.sent += written,
            }
        }
        self.flushed();
        Ok(())
    }

    fn poll_flush(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.outgoing.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(socket.poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        self.flushed();
        Poll::Ready(Ok(()))
    }

    fn flushed(&mut self) {
        if self.sent > 0 {
            (self.outgoing, self.sent) = (Vec::new(), 0);
        }
    }
}

/// The peer has gone in the middle of something.
const END: io::ErrorKind = io::ErrorKind::UnexpectedEof;
