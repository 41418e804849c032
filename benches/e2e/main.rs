//! pointsman end to end, against direct connections, HAProxy in TCP mode and a bare forwarder:
//! queries per second, latencies, and the proxy's CPU per query, in interleaved rounds.
//!
//!     cargo bench --bench e2e -- [--seconds 0.5] [--rounds 9] [--clients 1,8,64]
//!         [--modes text,prepared] [--fronts direct,haproxy,...] [--before PROGRAM] [--json FILE]
//!         [--load sysbench]
//!
//! The load is one thread with all clients, which costs little and the same everywhere, or, with
//! `--load sysbench`, sysbench's point select with a thread for each client.
//!
//! Mode `tls` is text with clients in TLS; HAProxy and the forwarder pass that on to the server.
//! The front `encrypted` is pointsman with TLS towards the servers, in every mode, so that
//! `--modes text,tls --fronts direct,haproxy,pointsman,encrypted` has TLS on neither side, either
//! and both.
//!
//! Multiplexing: `unshared` is pointsman without it; with it, `eager` gives links to the pool after
//! each statement, and `few` lets all clients take turns on eight links. With it on and off, and
//! with TLS on and off: `--modes text,prepared,tls
//! --fronts direct,haproxy,pointsman,unshared,eager,few,encrypted`.
//!
//! Starts a MariaDB primary with two replicas and all fronts by itself and ends them. `--before`
//! adds another build of pointsman, to see what a change did. Figures are medians over the rounds;
//! ratios are taken within a round, so that a busy machine disturbs both sides alike.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pointsman::provider::local::Cluster;
use pointsman::provider::{Flavour, Lifetime, Spec};

mod forward;
mod fronts;
mod load;
mod sysbench;

use fronts::Front;
use load::{Figures, Mode, ROWS};

/// Rounds of each front with some clients in some mode, in the order of measurement.
type Results = BTreeMap<(&'static str, usize, &'static str), Vec<Figures>>;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--forward") {
        let listen = arguments[at + 1].parse().expect("an address");
        forward::serve(listen, &arguments[at + 2]).expect("forwarding");
        return;
    }
    // `cargo test --benches` runs this too: there is nothing to test.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run it with `cargo bench --bench e2e`");
        return;
    }
    let seconds: f64 = option("--seconds").map_or(0.5, |text| text.parse().expect("seconds"));
    let rounds: usize = option("--rounds").map_or(9, |text| text.parse().expect("rounds"));
    let counts = list("--clients", "1,8,64");
    let counts: Vec<usize> = counts.iter().map(|text| text.parse().expect("clients")).collect();
    let wanted_modes = list("--modes", "text,prepared");
    let is_wanted = |mode: &Mode| wanted_modes.iter().any(|word| word == mode.word());
    let modes: Vec<Mode> = Mode::ALL.into_iter().filter(is_wanted).collect();

    let run = match option("--load").as_deref() {
        None => load::run,
        Some("sysbench") => sysbench::run,
        Some(other) => panic!("unknown load {other}"),
    };

    let dir = std::env::temp_dir().join(format!("pointsman-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a scratch folder");
    let cluster = servers(&dir);
    let fronts = fronts(&cluster, &dir);
    let mut results = Results::new();
    let before = load_average();
    for round in 0..rounds {
        for mode in &modes {
            for clients in &counts {
                // Each round begins elsewhere, so that none is always first.
                for at in 0..fronts.len() {
                    let front = &fronts[(at + round) % fronts.len()];
                    let time = Duration::from_secs_f64(seconds);
                    let figures = run(front.port, *clients, *mode, time, &front.cpu);
                    let key = (mode.word(), *clients, front.name);
                    results.entry(key).or_default().push(figures);
                }
            }
        }
        eprintln!("round {} of {rounds} done, load average {}", round + 1, load_average());
    }
    println!("load average before {before}, after {}", load_average());
    print_table(&results, &fronts);
    if let Some(path) = option("--json") {
        std::fs::write(path, json(&results).to_string()).expect("the JSON file");
    }
    drop(fronts);
    // Ended here and not by its guard, which needs the folder that goes next.
    let down = runtime().block_on(cluster.down());
    down.unwrap_or_else(|error| panic!("{error}"));
    let _ = std::fs::remove_dir_all(&dir);
}

fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args();
    arguments.find(|argument| argument == name)?;
    arguments.next()
}

fn list(name: &str, default: &str) -> Vec<String> {
    let text = option(name).unwrap_or_else(|| default.to_owned());
    text.split(',').map(str::to_owned).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

fn servers(dir: &Path) -> Cluster {
    let spec = Spec {
        lifetime: Lifetime::Process,
        options: certificate(dir),
        ..Spec::new(Flavour::Mariadb, dir.join("db"))
    };
    runtime().block_on(async {
        let cluster = Cluster::up(spec).await.unwrap_or_else(|error| panic!("{error}"));
        let mut statements = vec![
            "CREATE TABLE app.bench (id INT PRIMARY KEY, c CHAR(120) NOT NULL)".to_owned(),
            format!(
                "INSERT INTO app.bench SELECT seq, REPEAT(CHAR(97 + seq % 26), 120) \
                 FROM seq_1_to_{ROWS}"
            ),
        ];
        statements.extend(sysbench::table());
        let primary = cluster.primary().expect("a primary");
        primary.run(&statements).await.unwrap_or_else(|error| panic!("{error}"));
        cluster.wait_caught_up().await.unwrap_or_else(|error| panic!("{error}"));
        cluster
    })
}

/// The servers' options for a certificate that is made for this run.
fn certificate(dir: &Path) -> Vec<String> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| dir.join(name));
    std::fs::write(&certificate, made.cert.pem()).expect("a file");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
    vec![
        format!("--ssl-cert={}", certificate.display()),
        format!("--ssl-key={}", key.display()),
        // Each front keeps links of its own.
        "--max-connections=1000".to_owned(),
    ]
}

fn fronts(cluster: &Cluster, dir: &Path) -> Vec<Front> {
    let program = Path::new(env!("CARGO_BIN_EXE_pointsman"));
    let wanted = list("--fronts", "direct,haproxy,forwarder,before,pointsman,replicas");
    let mut fronts = Vec::new();
    for name in wanted {
        fronts.push(match name.as_str() {
            "direct" => Front::direct(cluster),
            "haproxy" => Front::haproxy(cluster, dir),
            "forwarder" => Front::forwarder(cluster, dir),
            "before" => match option("--before").map(PathBuf::from) {
                Some(before) => Front::pointsman("before", &before, cluster, dir, true),
                None => continue,
            },
            "pointsman" => Front::pointsman("pointsman", program, cluster, dir, true),
            "replicas" => Front::pointsman("replicas", program, cluster, dir, false),
            "encrypted" => Front::pointsman("encrypted", program, cluster, dir, true),
            "unshared" => Front::pointsman("unshared", program, cluster, dir, true),
            "eager" => Front::pointsman("eager", program, cluster, dir, true),
            "few" => Front::pointsman("few", program, cluster, dir, true),
            other => panic!("unknown front {other}"),
        });
    }
    fronts
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of one figure, and of its ratios to another front's in the same round.
fn summary(
    results: &Results,
    key: (&'static str, usize, &'static str),
    base: &'static str,
    figure: fn(&Figures) -> f64,
) -> (f64, f64) {
    let ours = results.get(&key).map(Vec::as_slice).unwrap_or_default();
    let base = results.get(&(key.0, key.1, base)).map(Vec::as_slice).unwrap_or_default();
    let ratios = ours.iter().zip(base).map(|(ours, base)| figure(ours) / figure(base)).collect();
    (median(ours.iter().map(figure).collect()), median(ratios))
}

fn print_table(results: &Results, fronts: &[Front]) {
    println!(
        "| mode | clients | front | queries/s | of direct | p50 us | p99 us | CPU us/query \
         | of HAProxy |"
    );
    println!("| --- | --: | --- | --: | --: | --: | --: | --: | --: |");
    for (mode, clients) in cells(results) {
        for front in fronts {
            let key = (mode, clients, front.name);
            let (qps, of_direct) = summary(results, key, "direct", |figures| figures.qps);
            let (p50, _) = summary(results, key, "direct", |figures| figures.p50_micros);
            let (p99, _) = summary(results, key, "direct", |figures| figures.p99_micros);
            let (cpu, of_haproxy) = summary(results, key, "haproxy", |figures| figures.cpu_micros);
            println!(
                "| {mode} | {clients} | {} | {qps:.0} | {of_direct:.2} | {p50:.0} | {p99:.0} | \
                 {cpu:.1} | {of_haproxy:.2} |",
                front.name
            );
        }
    }
}

/// Modes and numbers of clients that were measured, text first.
fn cells(results: &Results) -> Vec<(&'static str, usize)> {
    let mut cells: Vec<_> = results.keys().map(|(mode, clients, _)| (*mode, *clients)).collect();
    cells.sort_by_key(|(mode, clients)| (*mode != Mode::Text.word(), *clients));
    cells.dedup();
    cells
}

fn json(results: &Results) -> serde_json::Value {
    let row = |((mode, clients, front), rounds): (&(&str, usize, &str), &Vec<Figures>)| {
        let rounds: Vec<_> = rounds
            .iter()
            .map(|figures| {
                serde_json::json!({
                    "qps": figures.qps,
                    "p50_micros": figures.p50_micros,
                    "p99_micros": figures.p99_micros,
                    "cpu_micros": figures.cpu_micros,
                })
            })
            .collect();
        serde_json::json!({"mode": mode, "clients": clients, "front": front, "rounds": rounds})
    };
    let results: Vec<_> = results.iter().map(row).collect();
    serde_json::json!({"load_average": load_average(), "results": results})
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
