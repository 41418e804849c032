//! The rhythm of observing one server: when to probe, and how long to wait for an answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use crate::health::observation::{Failure, FailureKind, Observation, Seen};
use crate::topology::NodeId;

/// Least time between the beginnings of two probes of one server, however often one is asked for.
const GAP_MIN: Duration = Duration::from_millis(50);

/// How many probes pass between two questions for attached replicas.
const REPLICAS_EVERY: u32 = 10;

/// Looks at one server once. The only reason for a trait is that tests look at no server.
pub trait Probe: Send + 'static {
    /// Observes the server. Dropped when it takes too long: what it holds by then must not be
    /// used again.
    fn observe(&mut self, ask: Ask) -> impl Future<Output = Result<Seen, Failure>> + Send;
}

/// What a probe is to find out beyond the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Facts, role and position.
    State,
    /// The same, and which servers replicate from it.
    StateAndReplicas,
}

/// When to probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// Time between the beginnings of two probes.
    pub interval: Duration,
    /// A probe that takes longer has failed.
    pub timeout: Duration,
    /// Whether attached replicas are asked for at all.
    pub discover: bool,
}

/// Probes one server until the receiver is gone. `nudge` brings the next probe forward.
pub async fn watch<P: Probe>(
    node: NodeId,
    mut probe: P,
    rhythm: Rhythm,
    nudge: Arc<Notify>,
    out: mpsc::Sender<(NodeId, Observation)>,
) {
    for round in 0u32.. {
        let ask = if rhythm.discover && round.is_multiple_of(REPLICAS_EVERY) {
            Ask::StateAndReplicas
        } else {
            Ask::State
        };
        let began = Instant::now();
        let result = timeout(rhythm.timeout, probe.observe(ask)).await.unwrap_or_else(|_| {
            let text = format!("no answer within {} ms", rhythm.timeout.as_millis());
            Err(Failure::new(FailureKind::Timeout, text))
        });
        let ended = Instant::now();
        let observation = Observation { began: began.into_std(), ended: ended.into_std(), result };
        if out.send((node, observation)).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep_until(began + rhythm.interval) => {}
            () = nudge.notified() => sleep_until(began + GAP_MIN).await,
        }
    }
}
