//! Connections of the monitor account, over mysql_async.

use mysql_async::{Conn, DriverError, Error, Opts, OptsBuilder};

use crate::config::Monitor;
use crate::config::units::Secret;
use crate::health::observation::{Failure, FailureKind};

/// Connects and logs in to the server at `address`, `host:port` or the path of a unix socket.
///
/// # Errors
/// When there is no connection or the login is refused.
pub async fn open(address: &str, monitor: &Monitor) -> Result<Conn, Failure> {
    let opts = options(address, &monitor.user, &monitor.password)?;
    Conn::new(opts).await.map_err(failure)
}

/// Connection options for the monitor account at `address`.
fn options(address: &str, user: &str, password: &Secret) -> Result<Opts, Failure> {
    // Without `prefer_socket(false)` the library asks for @@socket and continues there, which
    // may be another server's. The two sizes are given so that it does not ask for them.
    let builder = OptsBuilder::default()
        .prefer_socket(false)
        .user(Some(user))
        .pass(Some(password.reveal()))
        .max_allowed_packet(Some(16 * 1024 * 1024))
        .wait_timeout(Some(28_800))
        .stmt_cache_size(Some(0));
    if address.starts_with('/') {
        return Ok(builder.socket(Some(address)).into());
    }
    let split = address.rsplit_once(':');
    let split = split.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let Some((host, port)) = split else {
        let text = format!("{address:?} is neither host:port nor an absolute path");
        return Err(Failure::new(FailureKind::Puzzling, text));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(builder.ip_or_hostname(host).tcp_port(port).into())
}

/// What an error of the library says about the server.
#[must_use]
pub fn failure(error: Error) -> Failure {
    let kind = match &error {
        Error::Server(error) => {
            let text = format!("{}: {}", error.code, error.message);
            return Failure::new(FailureKind::of_errno(error.code), text);
        }
        Error::Io(_) | Error::Driver(DriverError::ConnectionClosed) => FailureKind::Unreachable,
        Error::Driver(_) | Error::Other(_) | Error::Url(_) => FailureKind::Puzzling,
    };
    Failure::new(kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_options() {
        let secret = Secret::new("x".to_owned());
        let options = |address: &str| options(address, "monitor", &secret);
        let v6 = options("[::1]:3307").expect("an address");
        assert_eq!((v6.ip_or_hostname(), v6.tcp_port()), ("::1", 3307));
        assert!(!v6.prefer_socket());
        assert_eq!(options("/run/m.sock").expect("a path").socket(), Some("/run/m.sock"));
        assert!(options("db1").is_err() && options("db1:x").is_err());
    }
}
