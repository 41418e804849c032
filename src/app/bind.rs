//! Every listener of the process, bound before anything starts: a typing error costs nothing then.
//! Those that a predecessor has given are not bound again.

use std::io;
use std::os::fd::AsFd;

use tokio::net::TcpListener;

use crate::admin::listen::Listener;
use crate::app::StartError;
use crate::app::succession::Listeners;
use crate::config::Config;
use crate::net::listen::{self, Bound};

/// All of them.
pub(super) struct AllBound {
    /// Those of each group, in their order.
    pub(super) groups: Vec<Vec<Bound>>,
    /// The console's, if there is one.
    pub(super) console: Option<Listener>,
    /// That of HTTP, if there is one.
    pub(super) http: Option<TcpListener>,
    /// The same, for whoever comes next.
    pub(super) kept: Listeners,
}

/// Binds what was not `given`.
pub(super) async fn all(config: &Config, mut given: Listeners) -> Result<AllBound, StartError> {
    let mut kept = Listeners::default();
    let mut groups = Vec::new();
    for group in &config.groups {
        let mut bound = Vec::new();
        for address in &group.listen {
            let listener = match given.take(address) {
                Some(descriptor) => listen::given(address, descriptor),
                None => listen::bind(address),
            };
            bound.push(kept.keep(address, listener)?);
        }
        groups.push(bound);
    }
    let mut console = None;
    if let Some(address) = &config.boot.admin {
        let listener = match given.take(address) {
            Some(descriptor) => Listener::given(address, descriptor),
            None => Listener::bind(address).await,
        };
        console = Some(kept.keep(address, listener)?);
    }
    let mut http = None;
    if let Some(address) = &config.boot.http {
        let listener = match given.take(address) {
            Some(descriptor) => TcpListener::from_std(descriptor.into()),
            None => TcpListener::bind(address).await,
        };
        http = Some(kept.keep(address, listener)?);
    }
    Ok(AllBound { groups, console, http, kept })
}

impl Listeners {
    /// Keeps a listener for whoever comes next.
    fn keep<L: AsFd>(&mut self, address: &impl ToString, bound: io::Result<L>) -> Kept<L> {
        let kept = bound.and_then(|listener| {
            let descriptor = listener.as_fd().try_clone_to_owned()?;
            self.add(address.to_string(), descriptor);
            Ok(listener)
        });
        kept.map_err(|source| StartError::Bind { address: address.to_string(), source })
    }
}

type Kept<L> = Result<L, StartError>;
