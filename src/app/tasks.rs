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
