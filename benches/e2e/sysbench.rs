//! sysbench as the load: its point select, each client a thread that sleeps until its answer is
//! there, as clients of one's own processes do. Logins are counted in, with all.

use std::process::Command;
use std::time::Duration;

use pointsman::provider::replication::{APP, DATABASE};

use crate::fronts::Cpu;
use crate::load::{Figures, Mode, ROWS};

/// Least time of one measurement: the logins before it must not weigh.
const LEAST: Duration = Duration::from_secs(2);

/// What makes the table that sysbench reads.
pub(crate) fn table() -> [String; 2] {
    [
        "CREATE TABLE app.sbtest1 (id INT PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL, \
         pad CHAR(60) NOT NULL)"
            .to_owned(),
        format!(
            "INSERT INTO app.sbtest1 SELECT seq, seq, REPEAT(CHAR(97 + seq % 26), 120), \
             REPEAT('p', 60) FROM seq_1_to_{ROWS}"
        ),
    ]
}

/// Runs `clients` clients against a port of this machine for `time`, or what is the least.
pub(crate) fn run(port: u16, clients: usize, mode: Mode, time: Duration, cpu: &Cpu) -> Figures {
    let seconds = time.max(LEAST).as_secs();
    let statements = match mode {
        Mode::Text => "disable",
        Mode::Prepared => "auto",
        Mode::Tls => panic!("sysbench measures text and prepared"),
    };
    let mut command = Command::new("sysbench");
    command.arg("oltp_point_select").args([
        "--db-driver=mysql".to_owned(),
        "--mysql-host=127.0.0.1".to_owned(),
        format!("--mysql-port={port}"),
        format!("--mysql-user={}", APP.0),
        format!("--mysql-password={}", APP.1),
        format!("--mysql-db={DATABASE}"),
        "--tables=1".to_owned(),
        format!("--table-size={ROWS}"),
        format!("--threads={clients}"),
        format!("--time={seconds}"),
        format!("--db-ps-mode={statements}"),
        "--skip-trx=on".to_owned(),
        "--histogram=on".to_owned(),
    ]);
    let before = cpu.micros();
    let output = command.arg("run").output().expect("sysbench");
    let spent = cpu.micros() - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = read(&text, spent);
    figures.unwrap_or_else(|| {
        panic!("sysbench: {text}{}", String::from_utf8_lossy(&output.stderr));
    })
}

/// Reads sysbench's report.
fn read(text: &str, cpu_micros: f64) -> Option<Figures> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("queries:"))?;
    let mut words = line.split_whitespace();
    let queries: f64 = words.next()?.parse().ok()?;
    let qps: f64 = words.next()?.trim_start_matches('(').parse().ok()?;
    let steps: Vec<(f64, f64)> = text.lines().filter_map(step).collect();
    Some(Figures {
        qps,
        p50_micros: quantile(&steps, 0.5),
        p99_micros: quantile(&steps, 0.99),
        cpu_micros: cpu_micros / queries.max(1.0),
    })
}

/// A line of the histogram, `value |bar| count`: microseconds, and how many took so long.
fn step(line: &str) -> Option<(f64, f64)> {
    let (value, rest) = line.split_once('|')?;
    let count = rest.rsplit([' ', '|']).find(|word| !word.is_empty())?;
    Some((value.trim().parse::<f64>().ok()? * 1e3, count.parse().ok()?))
}

fn quantile(steps: &[(f64, f64)], share: f64) -> f64 {
    let wanted = steps.iter().map(|(_, count)| count).sum::<f64>() * share;
    let mut seen = 0.0;
    let reached = steps.iter().find(|(_, count)| {
        seen += count;
        seen >= wanted
    });
    reached.map_or(f64::NAN, |(micros, _)| *micros)
}
