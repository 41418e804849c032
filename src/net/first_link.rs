//! The link that a login begins with: on the primary, which says whether the client gets in.

use std::time::Duration;

use crate::net::link::{self, LinkSocket, Opening};
use crate::net::seat::{Identity, Seat};
use crate::net::worker::Worker;
use crate::protocol::auth::Credential;
use crate::router::policy::Held;
use crate::session::action::LinkFacts;
use crate::upstream::dial::DialError;

/// Between two attempts to log in to a primary that takes no link, whatever is known of it.
const REDIAL: Duration = Duration::from_millis(200);

/// A link that the login has opened, and whether its password has expired.
pub(super) type First = (LinkSocket, LinkFacts, bool);

/// Logs in to the primary as this client; while there is none, or none that takes a connection, it
/// waits for one, until the group's hold ends. `ask` puts the server's questions to the client.
pub(super) async fn open_on_primary(
    worker: &Worker,
    seat: &Seat,
    identity: &Identity,
    mut ask: impl AsyncFnMut(Vec<u8>) -> Result<Vec<u8>, DialError>,
) -> Result<First, DialError> {
    let settings = seat.group().settings.load_full();
    let mut generation = seat.group().topology.subscribe();
    let until = tokio::time::Instant::now() + settings.hold;
    loop {
        let topology = seat.group().topology.load();
        if let Some(primary) = topology.primary {
            let place = worker.place(seat, identity, primary, &settings).await?;
            if let Some(place) = place {
                let opening = Opening {
                    node: primary,
                    slot: Held::Primary,
                    schema: identity.hello.database.as_deref(),
                    served: &seat.served,
                    place,
                    now: worker.now(),
                };
                // A client that answers the server's questions itself takes its own time.
                let relayed = matches!(identity.credential, Credential::Relayed { .. });
                let _waiting = (!relayed).then(|| seat.waited.begin());
                let opened =
                    link::open_first(seat, identity, &topology, &settings, opening, &mut ask).await;
                match opened {
                    Err(error) => {
                        worker.link_error(seat.group(), primary, &error);
                        if !matches!(error, DialError::Unreachable(_) | DialError::TimedOut(_)) {
                            return Err(error);
                        }
                    }
                    Ok(opened) => return Ok(opened),
                }
            }
        }
        let _waiting = seat.waited.begin();
        let again = tokio::time::Instant::now() + REDIAL;
        match tokio::time::timeout_at(again.min(until), generation.changed()).await {
            Ok(Ok(())) => {}
            Err(_) if again < until => {}
            Ok(Err(_)) | Err(_) => return Err(DialError::TimedOut(settings.hold)),
        }
    }
}

/// The `ask` for logins that need no answer of the client's.
pub(super) async fn nobody(_: Vec<u8>) -> Result<Vec<u8>, DialError> {
    Err(DialError::Malformed("a question that nobody answers"))
}
