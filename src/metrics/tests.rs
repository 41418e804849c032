//! What a scrape shows.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::router::Reason;
use crate::topology::{Node, NodeId, Role, fixture};

const PINS: &[&str] = &["transaction", "temporary_table"];

fn node(id: u16, role: Role) -> Node {
    Node {
        role,
        lag: Some(Duration::from_millis(1500)),
        address: Arc::from(format!("10.0.0.{id}:3306")),
        ..fixture::node(id, &format!("db{id}"))
    }
}

fn topology() -> Arc<Topology> {
    Arc::new(Topology {
        generation: 7,
        group: Arc::from("main"),
        nodes: vec![node(0, Role::Primary), node(1, Role::Replica)],
        primary: Some(NodeId(0)),
        no_primary_why: String::new(),
        former: None,
    })
}

fn metrics() -> Metrics {
    Metrics::new(PINS).expect("names are distinct")
}

/// The same with a keeper's numbers.
fn kept_metrics() -> Metrics {
    let metrics = metrics();
    let told = Kept {
        modes: vec![("manual", false), ("auto", true)],
        standings: vec![("safe", true), ("degraded", false)],
        epoch: 3,
        failovers: kept::Changes { done: 2, called_off: 1 },
        failed_over_at: Some(1_700_000_000),
        held: Duration::from_millis(1250),
        leading: Some(Leading(Arc::new(|| (true, Duration::from_millis(2250))))),
        ..Kept::default()
    };
    metrics.keeper("main").store(Arc::new(told));
    metrics
}

fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(start))
        .unwrap_or_else(|| panic!("no line begins with {start} in\n{text}"))
        .trim()
}

#[test]
fn workers_are_summed_by_group_and_server() {
    let metrics = metrics();
    let workers = [metrics.worker("main"), metrics.worker("main"), metrics.worker("other")];
    for worker in &workers {
        let elapsed = Duration::from_micros(100);
        worker.query(NodeId(1), QueryClass::Read, Reason::PlainRead, elapsed);
        worker.query(NodeId(1), QueryClass::Read, Reason::PlainRead, Duration::from_secs(60));
        worker.client_opened();
        worker.pinned(1);
        worker.passed(Bytes::ToClients, 1000);
    }
    workers[0].client_closed();
    workers[0].unpinned(1);
    workers[0].held(HoldOutcome::Primary, Duration::from_millis(250));
    let text = metrics.scrape(&[topology()]).expect("a scrape");
    let labels = "{group=\"main\",server=\"db1\",class=\"read\"}";
    assert_eq!(line(&text, &format!("pointsman_queries_total{labels}")), "4");
    let bucket = "pointsman_query_duration_seconds_bucket{group=\"main\",server=\"db1\",\
                  class=\"read\",le=\"0.0001\"}";
    assert_eq!(line(&text, bucket), "2");
    let all = "pointsman_query_duration_seconds_bucket{group=\"main\",server=\"db1\",\
               class=\"read\",le=\"+Inf\"}";
    assert_eq!(line(&text, all), "4");
    let sum = format!("pointsman_query_duration_seconds_sum{labels}");
    assert_eq!(line(&text, &sum), "120.0002");
    assert_eq!(line(&text, "pointsman_route_total{group=\"main\",reason=\"plain_read\"}"), "4");
    assert_eq!(line(&text, "pointsman_client_connections{group=\"main\"}"), "1");
    assert_eq!(line(&text, "pointsman_pins{group=\"main\",cause=\"temporary_table\"}"), "1");
    assert_eq!(line(&text, "pointsman_hold_seconds_total{group=\"main\"}"), "0.25");
    assert!(!text.contains("group=\"other\""), "its topology was not given");
}

#[test]
fn what_a_keeper_tells_is_shown_with_its_group() {
    let metrics = kept_metrics();
    let text = metrics.scrape(&[topology()]).expect("a scrape");
    let value = |sample: &str, labels: &str| {
        line(&text, &format!("pointsman_{sample}{{group=\"main\"{labels}}}")).to_owned()
    };
    assert_eq!(value("keeper_mode", ",mode=\"auto\""), "1");
    assert_eq!(value("keeper_standing", ",standing=\"degraded\""), "0");
    assert_eq!(value("keeper_epoch", ""), "3");
    assert_eq!(value("failovers_total", ",outcome=\"done\""), "2");
    assert_eq!(value("switchovers_total", ",outcome=\"called_off\""), "0");
    assert_eq!(value("last_failover_time_seconds", ""), "1700000000");
    assert_eq!(value("keeper_held_seconds_total", ""), "1.25");
    assert_eq!(value("cluster_leader", ""), "1");
    assert_eq!(value("cluster_lease_seconds", ""), "2.25");
}

#[test]
fn the_topology_is_shown_as_it_is_now() {
    let text = metrics().scrape(&[topology()]).expect("a scrape");
    let role = "pointsman_server_role{group=\"main\",server=\"db0\",role=\"primary\"}";
    assert_eq!(line(&text, role), "1");
    let other = "pointsman_server_role{group=\"main\",server=\"db1\",role=\"primary\"}";
    assert_eq!(line(&text, other), "0");
    let lag = "pointsman_server_lag_seconds{group=\"main\",server=\"db1\"}";
    assert_eq!(line(&text, lag), "1.5");
    assert_eq!(line(&text, "pointsman_topology_generation{group=\"main\"}"), "7");
    let without = Topology::empty("main");
    let text = metrics().scrape(&[Arc::new(without)]).expect("a scrape");
    assert_eq!(line(&text, "pointsman_topology_has_primary{group=\"main\"}"), "0");
}

#[test]
fn a_node_or_a_pin_beyond_the_arrays_is_ignored() {
    let metrics = metrics();
    let worker = metrics.worker("main");
    worker.query(NodeId(999), QueryClass::Write, Reason::Write, Duration::ZERO);
    worker.link_opened(NodeId(999));
    worker.pinned(17);
    let text = metrics.scrape(&[topology()]).expect("a scrape");
    assert_eq!(line(&text, "pointsman_route_total{group=\"main\",reason=\"write\"}"), "1");
}

#[test]
fn every_family_has_help_type_and_a_sample() {
    let text = kept_metrics().scrape(&[topology()]).expect("a scrape");
    let mut names = BTreeSet::new();
    for family in families::ALL {
        assert!(names.insert(family.name), "{} stands twice", family.name);
        assert!(text.contains(&format!("# HELP {} {}\n", family.name, family.help)), "{family:?}");
        assert!(text.contains(&format!("# TYPE {} ", family.name)), "{family:?}");
        let total = family.name.ends_with("_total");
        assert_eq!(total, family.kind == families::Kind::Counter, "{family:?}");
    }
    let shown = text.lines().filter(|line| line.starts_with("# TYPE")).count();
    assert_eq!(shown, families::ALL.len(), "{text}");
}

#[test]
fn reasons_are_indices_into_their_list() {
    for (index, reason) in Reason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index, "{reason:?}");
    }
}

#[test]
fn errors_are_classed_by_what_the_application_should_do() {
    let table: &[(u16, &[u8; 5], ErrorClass)] = &[
        (1064, b"42000", ErrorClass::Statement),
        (1146, b"42S02", ErrorClass::Statement),
        (1045, b"28000", ErrorClass::Statement),
        (1062, b"23000", ErrorClass::Constraint),
        (1213, b"40001", ErrorClass::Transaction),
        (1205, b"HY000", ErrorClass::Transaction),
        (1792, b"25006", ErrorClass::ReadOnly),
        (1290, b"HY000", ErrorClass::ReadOnly),
        (1040, b"08004", ErrorClass::Overload),
        (1927, b"70100", ErrorClass::Connection),
        (1105, b"HY000", ErrorClass::Other),
    ];
    for (code, sqlstate, class) in table {
        assert_eq!(ErrorClass::of(*code, **sqlstate), *class, "{code}");
    }
}

#[test]
fn rare_events_are_counted_from_zero() {
    let metrics = metrics();
    metrics.reloaded(Outcome::Failed);
    metrics.set_draining(true);
    let text = metrics.scrape(&[]).expect("a scrape");
    assert_eq!(line(&text, "pointsman_config_reloads_total{outcome=\"ok\"}"), "0");
    assert_eq!(line(&text, "pointsman_config_reloads_total{outcome=\"failed\"}"), "1");
    assert_eq!(line(&text, "pointsman_draining"), "1");
}

/// Names of metrics in a text: words that begin with one of our two prefixes.
fn named(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("pointsman_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn dashboard_and_alerts_name_metrics_that_a_scrape_shows() {
    let scrape = kept_metrics().scrape(&[topology()]).expect("a scrape");
    let shown = named(&scrape);
    let files = [
        ("grafana-dashboard.json", include_str!("../../config/grafana-dashboard.json")),
        ("alerts.yml", include_str!("../../config/alerts.yml")),
    ];
    for (file, text) in files {
        let wanted = named(text);
        assert!(wanted.len() > 8, "{file} names {wanted:?}");
        for name in wanted {
            assert!(shown.contains(&name), "{file} names {name}, which no scrape shows");
        }
    }
    let dashboard = include_str!("../../config/grafana-dashboard.json");
    serde_json::from_str::<serde_json::Value>(dashboard).expect("the dashboard is JSON");
}

#[test]
fn dashboard_and_alerts_name_labels_that_exist() {
    let words: BTreeSet<&str> = [
        Reason::ALL.map(Reason::word).as_slice(),
        ErrorClass::ALL.map(ErrorClass::word).as_slice(),
        QueryClass::ALL.map(QueryClass::word).as_slice(),
        HoldOutcome::ALL.map(HoldOutcome::word).as_slice(),
        &["ok", "failed", "primary", "replica", "up", "down", "pointsman"],
    ]
    .concat()
    .into_iter()
    .collect();
    for text in [
        include_str!("../../config/grafana-dashboard.json").replace("\\\"", "\""),
        include_str!("../../config/alerts.yml").to_owned(),
    ] {
        for part in text.split(['{', ',']).filter_map(|part| part.split_once("=")) {
            let (label, value) = part;
            let known = ["reason", "class", "outcome", "role", "condition"];
            if !known.contains(&label.trim_end_matches('!').trim()) {
                continue;
            }
            let value = value.trim_start_matches('~').trim_start_matches('"');
            let value = value.split('"').next().unwrap_or_default();
            for word in value.split('|') {
                assert!(words.contains(word), "{label} has no value {word:?}");
            }
        }
    }
}
