//! `pointsman check`: what a failover of each group would lose, and what is missing.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::admin::show;
use crate::admin::table::Table;
use crate::config::{Config, Group};
use crate::failover::assessment::assess;
use crate::failover::standing::Mode;
use crate::tls::TlsError;
use crate::tls::trust::Trust;
use crate::tools::discover::discover;

/// What was found about all groups.
#[derive(Debug)]
pub struct Findings {
    /// As SHOW CLUSTER shows it.
    pub table: Table,
    /// The worst mode of all groups.
    pub mode: Mode,
}

/// Looks at the groups of a configuration, or at the one of this name. No server is changed.
///
/// # Errors
/// When there is no such group, or what its servers are believed by cannot be read.
pub async fn run(config: &Config, only: Option<&str>) -> Result<Findings, CheckError> {
    let wanted = |group: &&Arc<Group>| only.is_none_or(|name| &*group.name == name);
    let groups: Vec<&Arc<Group>> = config.groups.iter().filter(wanted).collect();
    if let (Some(name), []) = (only, groups.as_slice()) {
        return Err(CheckError::NoGroup(name.to_owned()));
    }
    let mut assessments = Vec::new();
    for group in groups {
        let trust = Arc::new(ArcSwap::from_pointee(Trust::new(&group.server_tls)?));
        let topology = discover(group, &config.monitor, &trust).await;
        assessments.push(assess(&topology, &config.monitor, &trust.load_full()).await);
    }
    let worst = assessments.iter().map(|group| group.mode).max().unwrap_or(Mode::Safe);
    Ok(Findings { table: show::cluster(assessments), mode: worst })
}

/// Why nothing was looked at.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The configuration has no such group.
    #[error("the configuration has no group {0:?}")]
    NoGroup(String),
    /// Certificates or pins cannot be read.
    #[error("server_tls: {0}")]
    Tls(#[from] TlsError),
}
