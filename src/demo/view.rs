//! The demo on the terminal: one line a second, and a summary.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::demo::front::Front;
use crate::demo::workload::{Seen, Workload, Wrong};
use crate::provider::local::Cluster;

/// What has been shown so far, so that each line can show the difference.
#[derive(Debug)]
pub struct View<'a> {
    cluster: &'a Cluster,
    front: Option<&'a Front>,
    before: Seen,
    routed: Routed,
}

/// Commands by server (its port) and whether they were reads.
type Routed = BTreeMap<(u16, bool), u64>;

impl<'a> View<'a> {
    /// Nothing shown yet.
    #[must_use]
    pub fn new(cluster: &'a Cluster, front: Option<&'a Front>) -> Self {
        Self { cluster, front, before: Seen::default(), routed: Routed::new() }
    }

    /// The names of the columns.
    #[must_use]
    pub fn header(&self) -> String {
        let mut line = format!(
            "{:>4} {:>8} {:>8} {:>6} {:>7} {:>7} {:>6}",
            "s", "reads/s", "writes/s", "tx/s", "p50 ms", "p99 ms", "errors"
        );
        for server in self.cluster.servers() {
            line.push_str(&format!(" | {:<15}", format!("{} read write", server.name)));
        }
        line
    }

    /// One second of it. A star marks the primary.
    pub async fn line(&mut self, second: u64, workload: &Workload) -> String {
        let seen = workload.look();
        let before = &self.before;
        let mut line = format!(
            "{second:>4} {:>8} {:>8} {:>6} {:>7} {:>7} {:>6}",
            seen.reads - before.reads,
            seen.writes - before.writes,
            seen.transactions - before.transactions,
            millis(&seen.latency, 0.50),
            millis(&seen.latency, 0.99),
            seen.errors,
        );
        let routed = match self.front {
            Some(front) => parse(&front.metrics().await),
            None => Routed::new(),
        };
        let primary = self.cluster.primary().map(|server| server.port).unwrap_or_default();
        for server in self.cluster.servers() {
            let count = |read| {
                let now = routed.get(&(server.port, read)).copied().unwrap_or(0);
                now.saturating_sub(self.routed.get(&(server.port, read)).copied().unwrap_or(0))
            };
            let star = if server.port == primary { '*' } else { ' ' };
            line.push_str(&format!(" | {star}{:>7} {:>6}", count(true), count(false)));
        }
        self.before = seen;
        self.routed = routed;
        line
    }
}

/// What the clients saw, in a few lines.
#[must_use]
pub fn summary(total: &Seen, wrong: &Wrong) -> Vec<String> {
    let mut lines = vec![
        format!(
            "{} reads, {} writes, {} transactions; p50 {} ms, p99 {} ms, longest {} ms",
            total.reads,
            total.writes,
            total.transactions,
            millis(&total.latency_total, 0.50),
            millis(&total.latency_total, 0.99),
            millis(&total.latency_total, 1.0),
        ),
        format!("acknowledged writes lost: {}", wrong.lost),
        format!("money that appeared or vanished: {}", wrong.imbalance),
        format!("longest time without an acknowledged write: {} ms", total.longest_gap.as_millis()),
        format!("writes in flight whose outcome nobody can tell (08007): {}", total.unknown),
        format!("other client-visible errors: {}", total.errors),
    ];
    lines.extend(total.texts.iter().map(|text| format!("  e.g. {text}")));
    lines
}

fn millis(latency: &Histogram<u64>, quantile: f64) -> String {
    let micros = latency.value_at_quantile(quantile);
    format!("{}.{:02}", micros / 1000, micros % 1000 / 10)
}

/// Reads `pointsman_queries_total{class="...",group="...",server="host:port"} N` lines.
fn parse(metrics: &str) -> Routed {
    let mut routed = Routed::new();
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix("pointsman_queries_total{") else { continue };
        let Some((labels, count)) = rest.rsplit_once("} ") else { continue };
        let label = |name: &str| {
            let value = labels.split(&format!("{name}=\"")).nth(1)?;
            value.split('"').next()
        };
        let port = label("server").and_then(|server| server.rsplit(':').next()?.parse().ok());
        let (Some(port), Some(class)) = (port, label("class")) else { continue };
        // Prometheus writes numbers as floating point; counts stay far below the exact range.
        let count: u64 = count.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        *routed.entry((port, class == "read")).or_insert(0) += count;
    }
    routed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_by_server_and_kind() {
        let metrics = "# HELP pointsman_queries_total x\n\
            pointsman_queries_total{class=\"read\",group=\"main\",server=\"127.0.0.1:3307\"} 12\n\
            pointsman_queries_total{class=\"write\",group=\"main\",server=\"127.0.0.1:3306\"} 3\n\
            pointsman_queries_total{class=\"other\",group=\"main\",server=\"127.0.0.1:3306\"} 4\n\
            pointsman_queries_totally{class=\"read\",server=\"127.0.0.1:3306\"} 9\n";
        let routed = parse(metrics);
        assert_eq!(routed.get(&(3307, true)), Some(&12));
        assert_eq!(routed.get(&(3306, false)), Some(&7));
        assert_eq!(routed.len(), 2);
    }
}
