//! Whether a fresh link leads to the server that health has seen, or to another life of it.
//!
//! The primary of a kept group that was started anew may lack what it had, and may acknowledge
//! commits alone until its keeper has seen to its settings. Health finds out with its next probe; a
//! link may be there earlier.

use std::io;
use std::time::{Duration, Instant};

use crate::config::Group;
use crate::net::seat::Seat;
use crate::router::policy::Held;
use crate::topology::NodeId;
use crate::upstream::dial::DialError;

/// How often a link whose server is in doubt looks whether a probe has settled it.
const GLANCE: Duration = Duration::from_millis(20);

/// Whether a link of this kind has to know when its server was started.
pub(super) fn matters(slot: Held, settings: &Group) -> bool {
    slot == Held::Primary && settings.failover.mode.keeps()
}

/// Waits until it is known that a server which says that it was `started` then is the one that
/// health takes for the primary.
///
/// # Errors
/// When it is not, or no probe has told within `timeout`.
pub(super) async fn is_known(
    seat: &Seat,
    node: NodeId,
    started: Option<Instant>,
    timeout: Duration,
) -> Result<(), DialError> {
    let Some(started) = started else { return Ok(()) };
    let since = Instant::now();
    let mut asked = false;
    loop {
        let topology = seat.group().topology.load();
        let Some(server) = topology.node(node) else {
            return Err(DialError::Malformed("the server is not known any more"));
        };
        let is_it = topology.primary == Some(node);
        // A clock that was set back looks like a start too; a probe that began after this link was
        // there has found the server as it was before.
        if is_it && (!server.is_outlived_by(started) || server.is_observed_since(since)) {
            return Ok(());
        }
        if !is_it || since.elapsed() > timeout {
            let why = format!("{} was started anew, and is to be looked at first", server.name);
            return Err(DialError::Unreachable(io::Error::other(why)));
        }
        if !std::mem::replace(&mut asked, true) {
            seat.group().health.probe_now();
        }
        tokio::time::sleep(GLANCE).await;
    }
}
