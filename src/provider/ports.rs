//! Ports on loopback for servers and pointsman that are started here.

use std::net::{TcpListener, UdpSocket};

use crate::provider::Error;

/// Ports that are tried: below the range that systems give to outgoing connections, so that a
/// stopped server finds its port free when it comes back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that nobody else here takes, also while nobody listens there, until it is dropped: its
/// namesake of UDP is taken, of which nothing else is made.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) port: u16,
    _taken: UdpSocket,
}

/// Different ports on loopback that nobody listens on, and that are not given to outgoing
/// connections.
///
/// # Errors
/// When there are not so many.
pub fn free_ports<const COUNT: usize>() -> Result<[u16; COUNT], Error> {
    let mut ports = [0; COUNT];
    for (port, claim) in ports.iter_mut().zip(claim(COUNT)?) {
        *port = claim.port;
    }
    Ok(ports)
}

/// `count` different free ports.
///
/// # Errors
/// When there are not so many.
pub(super) fn claim(count: usize) -> Result<Vec<Claim>, Error> {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = clock.map_or(0, |since| since.subsec_nanos()) ^ std::process::id();
    let span = u32::from(PORTS.end - PORTS.start);
    let tries = (0..span).map(|step| (seed.wrapping_add(step * 7)) % span);
    let free: Vec<Claim> = tries
        .filter_map(|offset| PORTS.start.checked_add(u16::try_from(offset).ok()?))
        .filter_map(take)
        .take(count)
        .collect();
    if free.len() < count {
        return Err(Error::Refused(format!("no {count} free ports in {PORTS:?}")));
    }
    Ok(free)
}

/// Claims a port where it is free.
fn take(port: u16) -> Option<Claim> {
    let taken = UdpSocket::bind(("127.0.0.1", port)).ok()?;
    let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok();
    is_free.then_some(Claim { port, _taken: taken })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_a_port_that_somebody_has_claimed() {
        let claimed = claim(1).expect("a free port");
        assert!(take(claimed[0].port).is_none());
        let listens = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        assert!(take(listens.local_addr().expect("its own").port()).is_none());
    }

    #[test]
    fn free_ports_are_different() {
        let mut ports = free_ports::<512>().expect("free ports").to_vec();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 512);
    }
}
