//! The primary's word on a login: whether a password is right, and whether who has it may come in.

use crate::net::drive::Drive;
use crate::net::entrance::{Barred, identity, pass_on, refuse};
use crate::net::first_link::{First, nobody, open_on_primary};
use crate::net::seat::Identity;
use crate::protocol::auth::{Credential, Password};
use crate::protocol::errno::SqlError;
use crate::protocol::greet::Greet;
use crate::protocol::login::LoginError;
use crate::protocol::reply;
use crate::tls::trust::Demand;
use crate::upstream::dial::DialError;

/// Asks the primary whether a password is right. `Some(link)` when it is; the link is there
/// when the primary gave one. When no primary can be had, a password that was right before is.
pub(super) async fn check(
    drive: &mut Drive,
    machine: &Greet,
    password: Password,
    demand: Demand,
) -> Result<Option<Option<First>>, Barred> {
    let hello = machine.hello();
    let identity = identity(hello, Credential::Password(password.clone()), demand);
    match open_on_primary(&drive.worker, &drive.seat, &identity, nobody).await {
        Ok(first) => {
            drive.seat.group().accounts.remember_password(&hello.user, password);
            Ok(Some(Some(first)))
        }
        Err(DialError::Refused(payload)) if reply::Err::code_of(&payload) == 1045 => {
            drive.seat.group().accounts.forget_password(&hello.user);
            Ok(None)
        }
        Err(DialError::Refused(payload)) => {
            pass_on(drive, &payload, machine.next_seq()).await?;
            Err(Barred::Refused)
        }
        Err(_) => {
            let known = drive.seat.group().accounts.password(&hello.user);
            Ok(known.is_some_and(|known| known == password).then_some(None))
        }
    }
}

/// Hears from the primary why it lets nobody in by an account's plugin, and passes it on.
pub(super) async fn hear_refusal(drive: &mut Drive, machine: &Greet) -> Result<(), Barred> {
    let identity = identity(machine.hello(), Credential::Empty, Demand::Nothing);
    let opened = Box::pin(open_on_primary(&drive.worker, &drive.seat, &identity, nobody)).await;
    let Err(DialError::Refused(payload)) = opened else { return Ok(()) };
    drive.seat.served.metrics.login_failed();
    pass_on(drive, &payload, machine.next_seq()).await?;
    Err(Barred::Refused)
}

/// The primary's word on a client whose password is right; a refusal has been passed on.
pub(super) async fn let_in(
    drive: &mut Drive,
    machine: &Greet,
    identity: &Identity,
) -> Result<First, Barred> {
    match open_on_primary(&drive.worker, &drive.seat, identity, nobody).await {
        Ok(first) => Ok(first),
        Err(DialError::Refused(payload)) => {
            drive.seat.group().accounts.invalidate(Some(&identity.hello.user));
            pass_on(drive, &payload, machine.next_seq()).await?;
            Err(Barred::Refused)
        }
        Err(error) => {
            // What a full server says needs no trust: nothing follows from it but this.
            let full = matches!(error, DialError::Login(LoginError::RefusedBeforeTls(1040)));
            let text = format!("pointsman: no primary to log in to: {error}");
            let error = SqlError::new(1290, b"HY000", text);
            let error = if full { SqlError::too_many_connections() } else { error };
            refuse(drive, &error, machine.next_seq(), identity.hello.capabilities).await
        }
    }
}
