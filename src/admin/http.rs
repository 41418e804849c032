//! HTTP: metrics, liveness, readiness, the topology as JSON. No statement texts, no users.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::app::tasks;
use crate::control::{Control, GroupControl};
use crate::metrics::Metrics;
use crate::topology::{Node, Topology};

/// What the pages are made of; cheap to clone.
#[derive(Debug, Clone)]
struct Pages {
    control: Control,
    metrics: Arc<Metrics>,
    primaries: Arc<Vec<PrimaryWatch>>,
}

/// Since when one group has had no primary.
#[derive(Debug)]
struct PrimaryWatch {
    group: GroupControl,
    missing: Mutex<Missing>,
}

/// Whether a primary is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// There was none yet.
    Never,
    /// There is one.
    Present,
    /// There was one until then.
    Since(Instant),
}

const INDEX: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>pointsman</title>\
<h1>pointsman</h1><ul>\
<li><a href=/metrics>/metrics</a>: every counter, for Prometheus\
<li><a href=/healthz>/healthz</a>: whether the process lives\
<li><a href=/readyz>/readyz</a>: whether it should get new clients\
<li><a href=/api/topology>/api/topology</a>: the servers as JSON</ul></html>\n";

/// Serves until `shutdown` completes.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    control: Control,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let watches = control.groups().iter().map(|group| PrimaryWatch::new(group.clone())).collect();
    let primaries: Arc<Vec<PrimaryWatch>> = Arc::new(watches);
    let mut followers = Vec::new();
    for index in 0..primaries.len() {
        followers.push(tasks::spawn("readiness", follow(primaries.clone(), index)));
    }
    let pages = Router::new()
        .route("/", get(|| async { Html(INDEX) }))
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready_page))
        .route("/api/topology", get(topology_page))
        .with_state(Pages { control, metrics, primaries });
    let served = axum::serve(listener, pages).with_graceful_shutdown(shutdown).await;
    for follower in followers {
        follower.abort();
    }
    served
}

/// Notes the comings and goings of a group's primary.
async fn follow(watches: Arc<Vec<PrimaryWatch>>, index: usize) {
    let Some(watch) = watches.get(index) else { return };
    let mut generations = watch.group.health.cell.subscribe();
    loop {
        generations.borrow_and_update();
        watch.note(Instant::now());
        if generations.changed().await.is_err() {
            return;
        }
    }
}

async fn metrics_page(State(pages): State<Pages>) -> Response {
    match pages.metrics.scrape(&pages.control.topologies()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written; see the log\n")
                .into_response()
        }
    }
}

async fn ready_page(State(pages): State<Pages>) -> Response {
    let reasons = pages.reasons(Instant::now());
    let status = match reasons.as_slice() {
        [] => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

async fn topology_page(State(pages): State<Pages>) -> Json<Value> {
    let groups: Vec<Value> =
        pages.control.topologies().iter().map(|topology| group_json(topology)).collect();
    Json(json!({ "groups": groups }))
}

impl Pages {
    /// Why this process should get no new clients now; nothing when it should.
    fn reasons(&self, now: Instant) -> Vec<Value> {
        let mut reasons = Vec::new();
        if self.control.draining() {
            reasons.push(json!({ "group": null, "why": "draining: the process is stopping" }));
        }
        let config = self.control.config();
        for watch in self.primaries.iter() {
            let name = &watch.group.name;
            let settings = config.groups.iter().find(|group| group.name == *name);
            let hold = settings.map_or(Duration::ZERO, |group| group.hold);
            if let Some(why) = watch.trouble(hold, now) {
                reasons.push(json!({ "group": &**name, "why": why }));
            }
        }
        reasons
    }
}

impl PrimaryWatch {
    fn new(group: GroupControl) -> Self {
        Self { group, missing: Mutex::new(Missing::Never) }
    }

    /// Compares what was known with what is published now.
    fn note(&self, now: Instant) -> Missing {
        let has_primary = self.group.topology().primary.is_some();
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        *missing = match (*missing, has_primary) {
            (_, true) => Missing::Present,
            (Missing::Present, false) => Missing::Since(now),
            (before @ (Missing::Never | Missing::Since(_)), false) => before,
        };
        *missing
    }

    /// Why the group makes the process unready, if it does: requests are held for `hold`, so a
    /// shorter gap is nobody's business.
    fn trouble(&self, hold: Duration, now: Instant) -> Option<String> {
        match self.note(now) {
            Missing::Present => None,
            Missing::Never => Some("no primary has been found yet".to_owned()),
            Missing::Since(since) => {
                let gone = now.saturating_duration_since(since);
                let why = format!("no primary for {} s, longer than the hold", gone.as_secs());
                (gone >= hold).then_some(why)
            }
        }
    }
}

fn group_json(topology: &Topology) -> Value {
    let servers: Vec<Value> = topology.nodes.iter().map(server_json).collect();
    json!({
        "group": &*topology.group,
        "generation": topology.generation,
        "primary": topology.primary_node().map(|node| &*node.name),
        "no_primary_why": Some(topology.no_primary_why.as_str()).filter(|why| !why.is_empty()),
        "servers": servers,
    })
}

/// A server without its trouble: server errors may name accounts.
fn server_json(node: &Node) -> Value {
    json!({
        "name": &*node.name,
        "address": &*node.address,
        "role": node.role.word(),
        "condition": node.condition.word(),
        "weight": node.weight,
        "lag_seconds": node.lag.map(|lag| lag.as_secs_f64()),
        "applying": node.applying,
        "read_only": node.read_only,
        "version": node.facts.as_ref().map(|facts| &*facts.version_text),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;
    use crate::admin::fixture::{self, Fixture};

    async fn fetch(address: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    #[test]
    fn pages_answer_and_the_server_stops() {
        runtime().block_on(async {
            let fixture = Fixture::new();
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("its address").to_string();
            let (stop, stopped) = oneshot::channel::<()>();
            let shutdown = async { drop(stopped.await) };
            let (control, metrics) = (fixture.control.clone(), fixture.metrics.clone());
            let server = tasks::spawn("http", serve(listener, control, metrics, shutdown));

            assert!(fetch(&address, "/").await.contains("/readyz"));
            assert!(fetch(&address, "/healthz").await.starts_with("HTTP/1.1 200"));
            let metrics = fetch(&address, "/metrics").await;
            assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
            assert!(metrics.contains("pointsman_server_role{group=\"main\""), "{metrics}");
            let topology = fetch(&address, "/api/topology").await;
            assert!(topology.contains("\"primary\":\"db1\""), "{topology}");
            assert!(!topology.contains(fixture::TROUBLE), "{topology}");
            assert!(fetch(&address, "/nowhere").await.starts_with("HTTP/1.1 404"));
            assert!(fetch(&address, "/readyz").await.starts_with("HTTP/1.1 200"));
            fixture.control.begin_drain();
            let ready = fetch(&address, "/readyz").await;
            assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("draining"), "{ready}");

            stop.send(()).expect("it is running");
            server.await.expect("no panic").expect("a clean end");
        });
    }

    #[test]
    fn a_gap_within_the_hold_does_not_make_it_unready() {
        runtime().block_on(async {
            let mut fixture = Fixture::new();
            let watch = PrimaryWatch::new(fixture.control.groups()[0].clone());
            let hold = Duration::from_secs(15);
            let start = Instant::now();
            assert_eq!(watch.trouble(hold, start), None);
            fixture.lose_primary();
            assert_eq!(watch.trouble(hold, start), None, "the gap has just begun");
            let why = watch.trouble(hold, start + hold).expect("the gap is too long");
            assert!(why.contains("15 s"), "{why}");
            fixture.restore_primary();
            assert_eq!(watch.trouble(hold, start + hold), None);
        });
    }

    #[test]
    fn before_the_first_primary_it_is_not_ready() {
        runtime().block_on(async {
            let mut fixture = Fixture::new();
            fixture.lose_primary();
            let watch = PrimaryWatch::new(fixture.control.groups()[0].clone());
            assert!(watch.trouble(Duration::from_secs(15), Instant::now()).is_some());
        });
    }
}
