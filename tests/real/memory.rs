//! What clients cost: resident memory of the proxy, as the system counts it.

use std::io::Read as _;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use pointsman::provider::Flavour;
use pointsman::provider::replication::APP;

use crate::proxy::Proxy;
use crate::{raw, servers, tls, wait};

const CLIENTS: u64 = 1000;

/// A line of the process's status, bytes.
fn memory(proxy: &Proxy, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid()));
    let status = status.expect("the proxy runs");
    let found = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
    let kilobytes = found.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.expect("a number") * 1024
}

/// Logged-in clients that have run `statements`.
fn clients(proxy: &Proxy, count: u64, statements: &[&str]) -> Vec<TcpStream> {
    let client = |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).expect("a connection");
        raw::login(&mut stream, APP, None).expect("a login");
        for sql in statements {
            raw::ask(&mut stream, sql).expect("an answer");
        }
        stream
    };
    (0..count).map(client).collect()
}

#[tokio::test]
async fn a_thousand_idle_clients_take_six_kilobytes_each() {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = rustix::process::Rlimit { current: files.maximum, ..files };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, wanted).expect("more files");
    for flavour in servers::flavours().into_iter().take(1) {
        let cluster = servers::shared(flavour);
        let read = "SELECT COUNT(*) FROM app.idle";
        let primary = cluster.primary().expect("a primary");
        primary.run(&["CREATE TABLE app.idle (a INT)"]).await.expect("a table");
        cluster.wait_caught_up().await.expect("replicas apply");
        let write = "SELECT 1 FOR UPDATE";
        let off = "multiplexing = false";
        for (what, group, statements, links) in [
            ("logged in", "", [].as_slice(), 0.0),
            ("without a link, after both", "max_server_links = 20", &[read, write], 60.0),
            ("with a link to a replica", off, &[read], 1050.0),
            ("with links to a replica and the primary", off, &[read, write], 2100.0),
        ] {
            let proxy = Proxy::start(cluster, group).await;
            // What the first clients bring with them is not each one's cost.
            let first = clients(&proxy, 50, statements);
            let before = memory(&proxy, "VmRSS");
            let more = clients(&proxy, CLIENTS, statements);
            let after = memory(&proxy, "VmRSS");
            let open = proxy.metric("pointsman_server_links", &[]);
            let kept = (open - links).abs() < 1.0 || (group != off && open <= links);
            assert!(kept, "{what}: {open} links");
            let each = after.saturating_sub(before) / CLIENTS;
            eprintln!("{what}: {each} bytes a client, {after} bytes in all");
            assert!(each <= 6 * 1024, "{what}: {each} bytes of resident memory a client");
            let open = proxy.metric("pointsman_client_connections", &[]);
            assert!(open >= 1050.0, "{what}: {open} clients are connected");
            drop((first, more));
        }
        primary.run(&["DROP TABLE app.idle"]).await.expect("no table");
    }
}

#[tokio::test]
async fn a_thousand_idle_clients_in_tls_take_24_kilobytes_each() {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = rustix::process::Rlimit { current: files.maximum, ..files };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, wanted).expect("more files");
    let Some(flavour) = servers::flavours().into_iter().next() else { return };
    let proxy = Proxy::start(servers::shared(flavour), "").await;
    let pem = std::fs::read_to_string(proxy.dir.join(tls::GENERATED)).expect("a certificate");
    let config = tls::trusting(&pem);
    let clients = |count| -> Vec<tls::Secure> {
        let client = |_| {
            let login = tls::login(proxy.port, &config, "localhost", APP);
            let mut stream = login.expect("a login");
            // A large answer has passed: what it took is given back.
            raw::ask(&mut stream, "SELECT REPEAT('x', 100000)").expect("an answer");
            stream
        };
        (0..count).map(client).collect()
    };
    let first = clients(50);
    let before = memory(&proxy, "VmRSS");
    let more = clients(CLIENTS);
    let after = memory(&proxy, "VmRSS");
    let each = after.saturating_sub(before) / CLIENTS;
    eprintln!("in TLS: {each} bytes a client, {after} bytes in all");
    assert!(each <= 24 * 1024, "{each} bytes of resident memory a client");
    drop((first, more));
}

#[tokio::test]
async fn a_gibibyte_through_a_slow_reader_does_not_pile_up() {
    if !servers::present(Flavour::Mariadb) {
        return;
    }
    let cluster = servers::shared(Flavour::Mariadb);
    let proxy = Proxy::start(cluster, "").await;
    let mut child = Command::new(cluster.programs().client.first().expect("a client"))
        .args(["--no-defaults", "--batch", "--quick", "-N", "--skip-ssl", "--host=127.0.0.1"])
        .args([format!("--port={}", proxy.port), format!("--user={}", APP.0)])
        .args(["-e", "SELECT REPEAT('x', 1048575) FROM seq_1_to_1024", "app"])
        .env("MYSQL_PWD", APP.1)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the client starts");
    let mut output = child.stdout.take().expect("its output");
    let mut buffer = vec![0; 1 << 20];
    output.read_exact(&mut buffer).expect("the first row");
    // Nobody reads now: what is on its way comes to rest, and not in the proxy.
    let passed = || proxy.metric("pointsman_bytes_total", &["direction=\"from_servers\""]);
    let mut last = 0.0;
    let mut same = 0;
    wait::until("the result to come to rest", || {
        let now = passed();
        same = if now > 0.0 && (now - last).abs() < f64::EPSILON { same + 1 } else { 0 };
        last = now;
        async move { (same >= 5).then_some(()) }
    })
    .await;
    assert!(last < f64::from(64 << 20), "{last} bytes were read ahead");
    let mut read = 1_u64 << 20;
    loop {
        match output.read(&mut buffer).expect("more") {
            0 => break,
            more => read += u64::try_from(more).expect("a size"),
        }
    }
    assert!(child.wait().expect("its end").success());
    assert_eq!(read, 1 << 30);
    let peak = memory(&proxy, "VmHWM");
    eprintln!("1 GiB through a slow reader: {peak} bytes at most, {last} read ahead");
    assert!(peak < 64 << 20, "{peak} bytes of memory");
}
