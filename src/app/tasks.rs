//! The only place that starts tasks: each has a name, and its log lines bear it.

use tokio::task::JoinHandle;
use tracing::Instrument;

/// Starts `fut` as a task of its own, inside a span with its name. Needs a tokio runtime.
pub fn spawn<F>(name: &'static str, fut: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let span = tracing::info_span!("task", name);
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    tokio::spawn(fut.instrument(span))
}

/// Runs what waits for the system on a thread where waiting is no harm.
///
/// # Panics
/// When `work` does.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Blocking work is cancelled at the end of its runtime only.
        Err(_) => std::future::pending().await,
    }
}

/// Waits for threads to end without keeping the runtime from its work.
pub async fn join(threads: Vec<std::thread::JoinHandle<()>>) {
    let joined = tokio::task::spawn_blocking(move || {
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread has panicked");
            }
        }
    });
    let _ = joined.await;
}
