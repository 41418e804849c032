//! Bytes in and out of the sockets of a session, as they come and as they fit.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use crate::net::barred;
use crate::net::drive::Gone;
use crate::net::group::GroupHandle;
use crate::net::seat::Seat;
use crate::upstream::stream::Stream;

/// Room added to a tail before a read that continues it.
const TAIL_ROOM: usize = 16 * 1024;

/// Reads into the worker's buffer, or behind the tail when there is one.
pub(super) fn read_some(
    stream: &mut Stream,
    tail: &mut Vec<u8>,
    buffer: &RefCell<Box<[u8]>>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if tail.is_empty() {
        return stream.poll_read(cx, &mut buffer.borrow_mut());
    }
    let before = tail.len();
    // Doubling keeps the copies of a long command linear.
    tail.resize(before + before.clamp(TAIL_ROOM, 4 << 20), 0);
    let polled = stream.poll_read(cx, tail.get_mut(before..).unwrap_or_default());
    let read = match &polled {
        Poll::Ready(Ok(read)) => *read,
        Poll::Ready(Err(_)) | Poll::Pending => 0,
    };
    tail.truncate(before + read);
    polled
}

/// Writes what fits now and takes it out of `bytes`; false when something is left. An error
/// leaves all: whoever can wait tries again, and sees it too.
pub(super) fn write_now(stream: &mut Stream, bytes: &mut Vec<u8>, count: impl FnOnce(u64)) -> bool {
    if bytes.is_empty() {
        return true;
    }
    let written = stream.try_write(bytes).unwrap_or(0);
    count(written as u64);
    if written == bytes.len() {
        bytes.clear();
        return true;
    }
    bytes.drain(..written);
    false
}

/// Writes all of `bytes`, as long as nothing bars those for the primary of a group; the inner error
/// is the peer's, the outer one a kill on the way.
pub(super) async fn write(
    stream: &mut Stream,
    mut bytes: &[u8],
    seat: &Seat,
    primary_of: Option<&GroupHandle>,
) -> Result<io::Result<()>, Gone> {
    while !bytes.is_empty() {
        // A server that takes nothing for a while may be another's by then.
        if let Some(error) = primary_of.and_then(barred::error_if_barred) {
            return Ok(Err(error));
        }
        match stream.try_write(bytes) {
            Ok(0) => return Ok(Err(io::ErrorKind::WriteZero.into())),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let written = poll_fn(|cx| {
                    if seat.bell.killed(cx) {
                        return Poll::Ready(Err(Gone));
                    }
                    if let Some(error) = primary_of.and_then(barred::error_if_barred) {
                        return Poll::Ready(Ok(Err(error)));
                    }
                    stream.poll_write(cx, bytes).map(Ok)
                })
                .await?;
                match written {
                    Ok(0) => return Ok(Err(io::ErrorKind::WriteZero.into())),
                    Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                    Err(error) => return Ok(Err(error)),
                }
            }
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}
