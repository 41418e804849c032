//! Waiting on a state, with a bound: the only place where a test lets time pass.

use std::time::{Duration, Instant};

/// How long a state may take to come, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Looks at `state` until it answers something; fails with what was waited for.
pub(crate) async fn until<T, F>(what: &str, state: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let answer = within(PATIENCE, state).await;
    answer.unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// Looks at `state` until it answers something, or so much time has passed.
pub(crate) async fn within<T, F>(time: Duration, mut state: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + time;
    loop {
        if let Some(answer) = state().await {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Lets time pass, which is what is done to a server then.
#[allow(dead_code, reason = "faults last")]
pub(crate) async fn pass(time: Duration) {
    within(time, async || None::<()>).await;
}
