//! From the workers' counters and the topologies to metric families, when somebody scrapes.

use std::collections::BTreeMap;

use prometheus::proto::{
    Bucket, Counter as CounterValue, Gauge as GaugeValue, Histogram, LabelPair, Metric,
    MetricFamily, MetricType,
};

use crate::metrics::Sample;
use crate::metrics::families::{self as known, Family, Kind};
use crate::metrics::worker::{
    BUCKETS_MICROS, Bytes, ClientError, Counter, ErrorClass, HoldOutcome, Latency, LinkError,
    LinkWait, LostCommit, NodeCounters, QueryClass, ReplicaWait, Retry, Taken, TransactionReplay,
    WorkerMetrics,
};
use crate::router::Reason;
use crate::topology::{Condition, Node, Role, Topology, Transport};

/// Families with their samples, by name.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    families: BTreeMap<&'static str, (Family, Vec<Metric>)>,
}

const MICROS_PER_SECOND: f64 = 1e6;

// === impls ===

impl Sheet {
    /// Adds one sample; `labels` are values in the order of the family's label names.
    pub(super) fn add(&mut self, family: Family, labels: &[&str], value: f64) {
        let mut metric = labelled(family, labels);
        match family.kind {
            Kind::Counter => {
                let mut counter = CounterValue::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                let mut gauge = GaugeValue::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.push(family, metric);
    }

    pub(super) fn count(&mut self, family: Family, labels: &[&str], value: u64) {
        self.add(family, labels, value as f64);
    }

    fn histogram(&mut self, family: Family, labels: &[&str], latencies: &[&Latency]) {
        let mut histogram = Histogram::default();
        let mut cumulative = 0;
        let mut buckets = Vec::with_capacity(BUCKETS_MICROS.len());
        for (index, bound) in BUCKETS_MICROS.iter().enumerate() {
            cumulative += bucket_sum(latencies, index);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / MICROS_PER_SECOND);
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        let micros: u64 = latencies.iter().map(|latency| latency.sum_micros.read()).sum();
        histogram.set_sample_count(cumulative + bucket_sum(latencies, BUCKETS_MICROS.len()));
        histogram.set_sample_sum(micros as f64 / MICROS_PER_SECOND);
        histogram.set_bucket(buckets);
        let mut metric = labelled(family, labels);
        metric.set_histogram(histogram);
        self.push(family, metric);
    }

    fn push(&mut self, family: Family, metric: Metric) {
        self.families.entry(family.name).or_insert_with(|| (family, Vec::new())).1.push(metric);
    }

    /// Every counter and gauge, one by one.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let plain = self.families.values().filter(|(family, _)| family.kind != Kind::Histogram);
        plain
            .flat_map(|(family, metrics)| {
                metrics.iter().map(|metric| Sample {
                    name: family.name,
                    labels: labels_of(metric),
                    value: match family.kind {
                        Kind::Counter => metric.get_counter().get_value(),
                        Kind::Gauge | Kind::Histogram => metric.get_gauge().get_value(),
                    },
                })
            })
            .collect()
    }

    /// The families in the form that the encoder takes.
    pub(super) fn families(self) -> Vec<MetricFamily> {
        self.families
            .into_values()
            .map(|(family, metrics)| {
                let mut encoded = MetricFamily::default();
                encoded.set_name(family.name.to_owned());
                encoded.set_help(family.help.to_owned());
                encoded.set_field_type(match family.kind {
                    Kind::Counter => MetricType::COUNTER,
                    Kind::Gauge => MetricType::GAUGE,
                    Kind::Histogram => MetricType::HISTOGRAM,
                });
                encoded.set_metric(metrics);
                encoded
            })
            .collect()
    }
}

/// Adds everything about one group: what its workers counted, and what its topology says.
pub(super) fn group(
    sheet: &mut Sheet,
    topology: &Topology,
    workers: &[&WorkerMetrics],
    pin_words: &[&str],
) {
    let name = &*topology.group;
    clients(sheet, name, workers, pin_words);
    traffic(sheet, name, workers);
    sheet.count(known::TOPOLOGY_GENERATION, &[name], topology.generation);
    sheet.count(known::TOPOLOGY_HAS_PRIMARY, &[name], u64::from(topology.primary.is_some()));
    for node in &topology.nodes {
        let index = usize::from(node.id.0);
        let counters: Vec<&NodeCounters> =
            workers.iter().filter_map(|worker| worker.nodes.get(index)).collect();
        server_traffic(sheet, name, node, &counters);
        server_state(sheet, name, node);
    }
}

fn clients(sheet: &mut Sheet, group: &str, workers: &[&WorkerMetrics], pin_words: &[&str]) {
    let closed = sum(workers, |worker| worker.clients_closed.read());
    let opened = sum(workers, |worker| worker.clients_opened.read());
    sheet.count(known::CLIENTS, &[group], opened.saturating_sub(closed));
    sheet.count(known::CLIENTS_TOTAL, &[group], opened);
    let failed = sum(workers, |worker| worker.logins_failed.read());
    sheet.count(known::LOGINS_FAILED, &[group], failed);
    for error in ClientError::ALL {
        let total = sum(workers, |worker| at(&worker.client_errors, error as usize));
        sheet.count(known::CLIENT_ERRORS, &[group, error.word()], total);
    }
    for (index, word) in pin_words.iter().enumerate() {
        let total = sum(workers, |worker| worker.pins.get(index).map_or(0, |pin| pin.read()));
        sheet.count(known::PINS, &[group, word], total);
    }
}

fn traffic(sheet: &mut Sheet, group: &str, workers: &[&WorkerMetrics]) {
    for reason in Reason::ALL {
        let total = sum(workers, |worker| at(&worker.reasons, reason as usize));
        sheet.count(known::ROUTES, &[group, reason.word()], total);
    }
    for retry in Retry::ALL {
        let total = sum(workers, |worker| at(&worker.retries, retry as usize));
        sheet.count(known::RETRIES, &[group, retry.word()], total);
    }
    for outcome in TransactionReplay::ALL {
        let total = sum(workers, |worker| at(&worker.replays, outcome as usize));
        sheet.count(known::TRANSACTION_REPLAYS, &[group, outcome.word()], total);
    }
    for outcome in LostCommit::ALL {
        let total = sum(workers, |worker| at(&worker.lost_commits, outcome as usize));
        sheet.count(known::LOST_COMMITS, &[group, outcome.word()], total);
    }
    for outcome in HoldOutcome::ALL {
        let total = sum(workers, |worker| at(&worker.holds, outcome as usize));
        sheet.count(known::HOLDS, &[group, outcome.word()], total);
    }
    let micros = sum(workers, |worker| worker.hold_micros.read());
    sheet.add(known::HOLD_SECONDS, &[group], micros as f64 / MICROS_PER_SECOND);
    for outcome in ReplicaWait::ALL {
        let total = sum(workers, |worker| at(&worker.replica_waits, outcome as usize));
        sheet.count(known::REPLICA_WAITS, &[group, outcome.word()], total);
    }
    for direction in Bytes::ALL {
        let total = sum(workers, |worker| at(&worker.bytes, direction as usize));
        sheet.count(known::BYTES, &[group, direction.word()], total);
    }
}

fn server_traffic(sheet: &mut Sheet, group: &str, node: &Node, counters: &[&NodeCounters]) {
    let server = &*node.name;
    for class in QueryClass::ALL {
        let latencies: Vec<&Latency> =
            counters.iter().filter_map(|node| node.latency.get(class as usize)).collect();
        let total = (0..=BUCKETS_MICROS.len()).map(|index| bucket_sum(&latencies, index)).sum();
        let labels = [group, server, class.word()];
        sheet.count(known::QUERIES, &labels, total);
        sheet.histogram(known::QUERY_DURATION, &labels, &latencies);
    }
    let links = counters.iter().map(|node| node.links.read()).sum();
    sheet.count(known::LINKS, &[group, server], links);
    let parked = counters.iter().map(|node| node.parked.read()).sum();
    sheet.count(known::LINKS_IDLE, &[group, server], parked);
    for how in Taken::ALL {
        let total = counters.iter().map(|node| at(&node.taken, how as usize)).sum();
        sheet.count(known::LINKS_TAKEN, &[group, server, how.word()], total);
    }
    for outcome in LinkWait::ALL {
        let total = counters.iter().map(|node| at(&node.waits, outcome as usize)).sum();
        sheet.count(known::LINK_WAITS, &[group, server, outcome.word()], total);
    }
    let micros: u64 = counters.iter().map(|node| node.wait_micros.read()).sum();
    let seconds = micros as f64 / MICROS_PER_SECOND;
    sheet.add(known::LINK_WAIT_SECONDS, &[group, server], seconds);
    for error in LinkError::ALL {
        let total = counters.iter().map(|node| at(&node.link_errors, error as usize)).sum();
        sheet.count(known::LINK_ERRORS, &[group, server, error.word()], total);
    }
    for class in ErrorClass::ALL {
        let total = counters.iter().map(|node| at(&node.errors, class as usize)).sum();
        sheet.count(known::ERRORS, &[group, server, class.word()], total);
    }
}

fn server_state(sheet: &mut Sheet, group: &str, node: &Node) {
    let server = &*node.name;
    for role in [Role::Unknown, Role::Primary, Role::Replica] {
        let is = u64::from(node.role == role);
        sheet.count(known::SERVER_ROLE, &[group, server, role.word()], is);
    }
    let conditions = [
        Condition::Up,
        Condition::Suspect,
        Condition::Down,
        Condition::Draining,
        Condition::Excluded,
    ];
    for condition in conditions {
        let is = u64::from(node.condition == condition);
        sheet.count(known::SERVER_CONDITION, &[group, server, condition.word()], is);
    }
    for transport in [Transport::Clear, Transport::Unverified, Transport::Verified] {
        let is = node.facts.as_ref().is_some_and(|facts| facts.transport == transport);
        let labels = [group, server, transport.word()];
        sheet.count(known::SERVER_TRANSPORT, &labels, u64::from(is));
    }
    if let Some(lag) = node.lag {
        sheet.add(known::SERVER_LAG, &[group, server], lag.as_secs_f64());
    }
    sheet.count(known::SERVER_WEIGHT, &[group, server], u64::from(node.weight));
    sheet.count(known::SERVER_APPLYING, &[group, server], u64::from(node.applying));
}

fn sum(workers: &[&WorkerMetrics], read: impl Fn(&WorkerMetrics) -> u64) -> u64 {
    workers.iter().map(|worker| read(worker)).sum()
}

fn at(counters: &[Counter], index: usize) -> u64 {
    counters.get(index).map_or(0, Counter::read)
}

fn bucket_sum(latencies: &[&Latency], index: usize) -> u64 {
    latencies.iter().map(|latency| at(&latency.buckets, index)).sum()
}

fn labels_of(metric: &Metric) -> Vec<(String, String)> {
    let pairs = metric.get_label().iter();
    pairs.map(|pair| (pair.name().to_owned(), pair.value().to_owned())).collect()
}

fn labelled(family: Family, labels: &[&str]) -> Metric {
    let pairs = family.labels.iter().zip(labels).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}
