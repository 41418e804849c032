//! Waiting on a state, with a bound: the only place where a test lets time pass.

use std::time::{Duration, Instant};

/// How long a state may take to come, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Looks at `state` until it answers something; fails with what was waited for.
pub(crate) async fn until<T, F>(what: &str, mut state: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = state().await {
            return answer;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
