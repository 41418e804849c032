//! What classifying a statement costs: nanoseconds per call, from the text and from memory.
//!
//! `cargo bench --bench route -- --iterations 1000000`. Prints one line a statement; under
//! callgrind pass `--iterations 1000 --only NAME` and read the instructions instead.

use std::hint::black_box;
use std::time::Instant;

use pointsman::router::cache::ClassCache;
use pointsman::router::{Dialect, classify};
use pointsman::topology::Flavour;

fn statements() -> Vec<(&'static str, String)> {
    let ids: Vec<String> = (0..2000).map(|n| (n * 7919 % 10_000).to_string()).collect();
    let row = |n: i32| format!("({n},'name{n}','2026-11-23',0.5)");
    let rows: Vec<String> = (0..100).map(row).collect();
    let filler = "abcdefghij".repeat(12);
    vec![
        ("point_select", "SELECT c FROM sbtest1 WHERE id=50021".to_owned()),
        (
            "range_select",
            "SELECT c FROM sbtest1 WHERE id BETWEEN 5000 AND 5099 ORDER BY c LIMIT 5".to_owned(),
        ),
        ("update", "UPDATE sbtest1 SET k=k+1 WHERE id=50021".to_owned()),
        ("insert", format!("INSERT INTO sbtest1 (id, k, c, pad) VALUES (1, 2, '{filler}', 'x')")),
        (
            "orm_join",
            "SELECT `u`.`id` AS `u_id`, `u`.`name` AS `u_name`, `u`.`email` AS `u_email`, \
             `o`.`id` AS `o_id`, `o`.`total` AS `o_total`, `o`.`created_at` AS `o_created` \
             FROM `users` `u` LEFT OUTER JOIN `orders` `o` ON `o`.`user_id` = `u`.`id` AND \
             `o`.`deleted_at` IS NULL INNER JOIN `groups` `g` ON `g`.`id` = `u`.`group_id` \
             WHERE `u`.`active` = 1 AND `g`.`name` IN ('admin', 'staff') AND \
             COALESCE(`o`.`total`, 0) > 10.5 ORDER BY `o`.`created_at` DESC LIMIT 50"
                .to_owned(),
        ),
        ("in_list_2000", format!("SELECT a FROM t WHERE id IN ({})", ids.join(","))),
        ("bulk_insert_100", format!("INSERT INTO t VALUES {}", rows.join(","))),
    ]
}

fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args();
    arguments.find(|argument| argument == name)?;
    arguments.next()
}

fn main() {
    let iterations: u32 = option("--iterations").and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let only = option("--only");
    let dialect = Dialect::plain(Flavour::MariaDb, 101_119);
    println!("{:<16} {:>6} {:>14} {:>14}", "statement", "bytes", "classify ns", "cache hit ns");
    for (name, sql) in statements() {
        if only.as_deref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        let text = sql.as_bytes();
        // Long texts get fewer rounds, so that all take about as long.
        let rounds = (iterations / u32::try_from(text.len() / 256 + 1).unwrap_or(1)).max(1);
        let per_call = |start: Instant| start.elapsed().as_secs_f64() * 1e9 / f64::from(rounds);
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(classify(black_box(text), black_box(&dialect)));
        }
        let uncached = per_call(start);
        let mut cache = ClassCache::new(1024);
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(cache.classify(black_box(text), black_box(&dialect)));
        }
        println!("{name:<16} {:>6} {uncached:>14.1} {:>14.1}", text.len(), per_call(start));
    }
}
