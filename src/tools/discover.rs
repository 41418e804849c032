//! Finding the servers of a group once.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use crate::config::{Group, Monitor};
use crate::health;
use crate::health::assemble::Appointment;
use crate::tls::trust::Trust;
use crate::topology::Topology;

/// How long the servers of a group may take to be found and to answer, or to be given up.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often that is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// Looks at all servers of a group until each was probed; what is known by then.
pub(super) async fn discover(
    group: &Arc<Group>,
    monitor: &Monitor,
    trust: &Arc<ArcSwap<Trust>>,
) -> Arc<Topology> {
    let (stop, stopped) = watch::channel(false);
    let health =
        health::start(group.clone(), monitor.clone(), trust.clone(), Appointment::Open, stopped);
    let mut glances = interval(GLANCE);
    let settled = async {
        while !health.cell.load().is_settled() {
            glances.tick().await;
        }
    };
    // What is not known by then is told as not known.
    let _ = timeout(PATIENCE, settled).await;
    let topology = health.cell.load();
    stop.send_replace(true);
    topology
}
