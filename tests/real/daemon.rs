//! The process among its neighbours: signals, limits, deadlines, listeners, load balancers.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pointsman::provider::Flavour;
use pointsman::provider::replication::{APP, MONITOR};
use rustix::process::Signal;

use crate::proxy::{Proxy, configuration};
use crate::{raw, servers, wait};

/// A connection that a lost answer fails instead of hanging the test.
fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a bound");
    stream
}

fn logged_in(port: u16) -> TcpStream {
    let mut stream = connect(port);
    raw::login(&mut stream, APP, Some("app")).expect("a login");
    stream
}

/// The next packet is a refusal; then the connection is closed.
fn told_to_go(stream: &mut TcpStream) -> raw::Refusal {
    let (_, payload) = raw::read_packet(stream).expect("a word before the close");
    assert!(raw::read_packet(stream).is_none(), "open after {payload:?}");
    raw::refusal(&payload)
}

/// Everything here is about the proxy itself: one family will do.
fn family() -> Option<Flavour> {
    servers::flavours().into_iter().next()
}

async fn reloads(proxy: &Proxy, outcome: &str, count: f64) {
    wait::until("a reload", || async {
        let label = format!("outcome=\"{outcome}\"");
        (proxy.metric("pointsman_config_reloads_total", &[&label]) >= count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reload_applies_a_good_file_and_refuses_a_bad_one_whole() {
    let Some(flavour) = family() else { return };
    let proxy = Proxy::start(servers::shared(flavour), "max_clients = 100").await;
    let mut stays = logged_in(proxy.port);
    proxy.reload(|text| text.replace("max_clients = 100", "max_clients = 1"));
    reloads(&proxy, "ok", 1.0).await;
    let (code, state, text) = told_to_go(&mut connect(proxy.port));
    // Before a login there is no SQLSTATE on the wire.
    assert_eq!((code, text.as_str()), (1040, "Too many connections"), "{state}");

    let bad = "max_clients = 100\nmax_lag = \"soon\"";
    proxy.reload(|text| text.replace("max_clients = 1", bad));
    reloads(&proxy, "failed", 1.0).await;
    assert_eq!(told_to_go(&mut connect(proxy.port)).0, 1040, "nothing of a bad file is applied");
    assert!(proxy.log().contains("max_lag"), "the log names the key:\n{}", proxy.log());

    proxy.reload(|text| text.replace("max_lag = \"soon\"", "max_lag = \"5s\""));
    reloads(&proxy, "ok", 2.0).await;
    logged_in(proxy.port);
    let answer = raw::ask(&mut stays, "SELECT 1").expect("a session outlives reloads");
    assert_eq!(answer.as_deref(), Some("1"));
}

#[tokio::test]
async fn sigterm_lets_a_transaction_finish_and_sends_the_idle_away() {
    let Some(flavour) = family() else { return };
    let mut proxy = Proxy::start(servers::shared(flavour), "").await;
    let mut idle = logged_in(proxy.port);
    let mut busy = logged_in(proxy.port);
    raw::ask(&mut busy, "CREATE TABLE drained (a INT)").expect("a table");
    raw::ask(&mut busy, "BEGIN").expect("BEGIN");
    raw::ask(&mut busy, "INSERT INTO drained VALUES (1)").expect("a write");
    proxy.signal(Signal::TERM);
    let (code, state, _) = told_to_go(&mut idle);
    assert_eq!((code, state.as_str()), (1053, "08S01"));
    wait::until("no one to be let in", || async {
        TcpStream::connect(("127.0.0.1", proxy.port)).is_err().then_some(())
    })
    .await;
    if let Some((status, _)) = proxy.get("/readyz") {
        assert_eq!(status, 503, "not ready while draining");
    }
    raw::ask(&mut busy, "INSERT INTO drained VALUES (2)").expect("it may go on");
    let count = raw::ask(&mut busy, "SELECT COUNT(*) FROM drained").expect("it may go on");
    assert_eq!(count.as_deref(), Some("2"));
    raw::ask(&mut busy, "COMMIT").expect("and end");
    assert_eq!(told_to_go(&mut busy).0, 1053);
    assert_eq!(proxy.ended().await, Some(0));
    let primary = servers::shared(flavour).primary().expect("a primary");
    assert_eq!(primary.ask("SELECT COUNT(*) FROM app.drained").await.expect("a count"), "2");
    primary.run(&["DROP TABLE app.drained"]).await.expect("no table");
}

#[tokio::test]
async fn sigterm_does_not_wait_for_ever() {
    let Some(flavour) = family() else { return };
    let seed = servers::shared(flavour).primary().expect("a primary").address();
    let config = format!("drain_timeout = \"200ms\"\n{}", configuration(&[&seed], ""));
    let mut proxy = Proxy::with_config(&config).await.expect("a proxy");
    let mut busy = logged_in(proxy.port);
    raw::ask(&mut busy, "BEGIN").expect("BEGIN");
    raw::ask(&mut busy, "SELECT COUNT(*) FROM mysql.user").ok();
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().await, Some(0));
    while raw::read_packet(&mut busy).is_some() {}
}

#[tokio::test]
async fn a_second_sigterm_ends_at_once() {
    let Some(flavour) = family() else { return };
    let mut proxy = Proxy::start(servers::shared(flavour), "").await;
    let mut busy = logged_in(proxy.port);
    raw::ask(&mut busy, "BEGIN").expect("BEGIN");
    proxy.signal(Signal::TERM);
    wait::until("it to drain", || async {
        proxy.get("/readyz").filter(|(status, _)| *status == 503)
    })
    .await;
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().await, Some(0));
    assert!(proxy.log().contains("told to end again"), "{}", proxy.log());
}

/// Logs in, asks, and leaves, again and again.
fn come_and_go(port: u16, stop: &AtomicBool) -> Vec<String> {
    let mut ids = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut client = logged_in(port);
        let id = raw::ask(&mut client, "SELECT CONNECTION_ID()").expect("an answer");
        ids.push(id.expect("a number"));
    }
    ids
}

#[tokio::test]
async fn another_process_takes_over_and_nobody_is_refused() {
    let Some(flavour) = family() else { return };
    let seed = servers::shared(flavour).primary().expect("a primary").address();
    let config = configuration(&[&seed], "")
        .replace("listen = \"{listen}\"", "listen = [\"{listen}\", \"{state}/s\"]");
    let mut proxy = Proxy::with_config(&config).await.expect("a proxy");
    let port = proxy.port;
    let mut busy = logged_in(port);
    raw::ask(&mut busy, "BEGIN").expect("BEGIN");
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || come_and_go(port, &stop))
        })
        .collect();

    // One that cannot start leaves everything as it is.
    let good = std::fs::read_to_string(proxy.config()).expect("its configuration");
    std::fs::write(proxy.config(), format!("{good}\nmax_lag = \"soon\"\n")).expect("a bad one");
    proxy.signal(Signal::USR2);
    wait::until("a word that nobody takes over", || async {
        proxy.log().contains("no other process takes over").then_some(())
    })
    .await;
    std::fs::write(proxy.config(), good).expect("a good one");

    let first = proxy.pid();
    for _ in 0..2 {
        proxy.hand_over().await;
        wait::until("the process that serves now to be asked", || async {
            proxy.get("/readyz").filter(|(status, _)| *status == 200)
        })
        .await;
    }
    assert_ne!(proxy.pid(), first);
    // Whoever was in the middle of something ends it where it began.
    raw::ask(&mut busy, "SELECT 1 FOR UPDATE").expect("a transaction goes on");
    raw::ask(&mut busy, "COMMIT").expect("COMMIT");
    drop(busy);
    let mut local = UnixStream::connect(proxy.dir.join("s")).expect("the socket is served");
    raw::login(&mut local, APP, Some("app")).expect("a login");
    assert_eq!(proxy.ended().await, Some(0));

    stop.store(true, Ordering::Relaxed);
    let mut ids: Vec<String> =
        clients.into_iter().flat_map(|client| client.join().expect("nobody is refused")).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "no number is given to two clients");
}

#[tokio::test]
async fn strangers_and_idlers_are_closed_in_time() {
    let Some(flavour) = family() else { return };
    let group = "handshake_timeout = \"300ms\"\nidle_timeout = \"300ms\"";
    let proxy = Proxy::start(servers::shared(flavour), group).await;
    let mut stranger = connect(proxy.port);
    let greeting = raw::read_packet(&mut stranger).expect("a greeting");
    assert_eq!(greeting.1.first(), Some(&10));
    while raw::read_packet(&mut stranger).is_some() {}
    let timed_out = "kind=\"handshake_timeout\"";
    let strangers = proxy.metric("pointsman_client_connection_errors_total", &[timed_out]);
    assert!((strangers - 1.0).abs() < f64::EPSILON, "{strangers}");

    let mut idler = logged_in(proxy.port);
    assert_eq!(told_to_go(&mut idler).0, 4031);
    // A transaction is idle too, as for a server; running statements are not.
    let mut slow = logged_in(proxy.port);
    assert_eq!(raw::ask(&mut slow, "SELECT SLEEP(1)").expect("an answer").as_deref(), Some("0"));
}

/// A client that bounds idle transactions is closed with one, as by the server.
#[tokio::test]
async fn a_transaction_that_is_idle_for_too_long_closes_its_client() {
    if !servers::present(Flavour::Mariadb) {
        return;
    }
    let cluster = servers::shared(Flavour::Mariadb);
    let proxy = Proxy::start(cluster, "").await;
    let mut idler = logged_in(proxy.port);
    for sql in ["SET idle_transaction_timeout = 1", "BEGIN"] {
        raw::ask(&mut idler, sql).expect(sql);
    }
    raw::ask(&mut idler, "SELECT 1 FOR UPDATE").expect("the primary answers");
    let said = idler.read(&mut [0]).expect("an end, not the bound of this test");
    assert_eq!(said, 0, "closed without a word");
}

/// What servers keep a login waiting for is not the client's time: it is told how the wait ended.
#[tokio::test]
async fn a_login_that_waits_for_a_link_is_told_that_none_came_free() {
    let Some(flavour) = family() else { return };
    let group = "handshake_timeout = \"300ms\"\nqueue_timeout = \"1s\"\nmax_server_links = 1";
    let proxy = Proxy::start(servers::shared(flavour), group).await;
    let mut busy = logged_in(proxy.port);
    raw::ask(&mut busy, "BEGIN").expect("BEGIN");
    raw::ask(&mut busy, "SELECT 1 FOR UPDATE").expect("the primary answers");
    let refused = raw::login(&mut connect(proxy.port), APP, Some("app")).expect_err("no place");
    assert_eq!((refused.0, refused.2.as_str()), (1040, "Too many connections"));
    raw::ask(&mut busy, "COMMIT").expect("COMMIT");
    logged_in(proxy.port);
}

#[tokio::test]
async fn a_unix_socket_serves_beside_the_port() {
    let Some(flavour) = family() else { return };
    let seed = servers::shared(flavour).primary().expect("a primary").address();
    let config = configuration(&[&seed], "")
        .replace("listen = \"{listen}\"", "listen = [\"{listen}\", \"{state}/s\"]");
    let proxy = Proxy::with_config(&config).await.expect("a proxy");
    let mut stream = UnixStream::connect(proxy.dir.join("s")).expect("the socket");
    raw::login(&mut stream, APP, Some("app")).expect("a login");
    assert_eq!(raw::ask(&mut stream, "SELECT 1").expect("an answer").as_deref(), Some("1"));
    raw::ask(&mut stream, "SELECT 1 FOR UPDATE").expect("the primary answers");
    logged_in(proxy.port);
}

/// A PROXY protocol header that says 10.9.8.7.
fn header(version: u8) -> Vec<u8> {
    if version == 1 {
        return b"PROXY TCP4 10.9.8.7 10.0.0.1 50000 3306\r\n".to_vec();
    }
    let signature = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
    [signature.as_slice(), &[10, 9, 8, 7, 10, 0, 0, 1, 0xC3, 0x50, 0x0C, 0xEA]].concat()
}

#[tokio::test]
async fn a_balancer_s_header_says_who_the_client_is() {
    let Some(flavour) = family() else { return };
    let group = "proxy_protocol_from = [\"127.0.0.1\"]\nhandshake_timeout = \"1s\"";
    let proxy = Proxy::start(servers::shared(flavour), group).await;
    for version in [1, 2] {
        let mut stream = connect(proxy.port);
        stream.write_all(&header(version)).expect("a header");
        let (code, _, text) = raw::login(&mut stream, ("nobody", "x"), None).expect_err("nobody");
        assert_eq!(code, 1045);
        assert!(text.contains("'nobody'@'10.9.8.7'"), "version {version}: {text}");
        let mut stream = connect(proxy.port);
        stream.write_all(&header(version)).expect("a header");
        raw::login(&mut stream, APP, Some("app")).expect("a login");
        raw::ask(&mut stream, "SELECT 1 FOR UPDATE").expect("an answer");
    }
    // A listed peer without a header gets no greeting.
    let mut silent = connect(proxy.port);
    silent.write_all(b"\x01\0\0\x01x and more than any header begins with").expect("bytes");
    assert!(raw::read_packet(&mut silent).is_none());
    // From anyone else a header is no login.
    let plain = Proxy::start(servers::shared(flavour), "").await;
    let mut stream = connect(plain.port);
    stream.write_all(&header(1)).expect("a header");
    assert!(raw::login(&mut stream, APP, Some("app")).is_err());
}

#[tokio::test]
async fn mariadb_sees_the_client_s_address() {
    if !servers::present(Flavour::Mariadb) {
        return;
    }
    let cluster = servers::shared(Flavour::Mariadb);
    for server in cluster.servers() {
        let allow = ["SET GLOBAL proxy_protocol_networks = '127.0.0.1'"];
        server.run(&allow).await.expect("headers are believed");
    }
    let primary = cluster.primary().expect("a primary");
    let account = [
        "CREATE USER 'far'@'10.9.8.7' IDENTIFIED BY 'far'",
        "GRANT SELECT ON app.* TO 'far'@'10.9.8.7'",
    ];
    primary.run(&account).await.expect("an account");
    cluster.wait_caught_up().await.expect("replicas apply");
    let group = "proxy_protocol_from = [\"127.0.0.1\"]\nproxy_protocol_to_servers = true";
    let proxy = Proxy::start(cluster, group).await;
    let mut stream = connect(proxy.port);
    stream.write_all(&header(2)).expect("a header");
    raw::login(&mut stream, ("far", "far"), Some("app")).expect("a login from far away");
    let user = raw::ask(&mut stream, "SELECT USER() /* on a replica */").expect("an answer");
    assert_eq!(user.as_deref(), Some("far@10.9.8.7"));
    raw::ask(&mut stream, "BEGIN").expect("BEGIN");
    let user = raw::ask(&mut stream, "SELECT USER() /* on the primary */").expect("an answer");
    assert_eq!(user.as_deref(), Some("far@10.9.8.7"));
    primary.run(&["DROP USER 'far'@'10.9.8.7'"]).await.expect("no account");
}

#[tokio::test]
async fn listed_users_are_the_only_ones() {
    let Some(flavour) = family() else { return };
    let seed = servers::shared(flavour).primary().expect("a primary").address();
    let users = format!(
        "[[users]]\nname = \"{}\"\npassword = \"{}\"\n\n[[users]]\nname = \"elsewhere\"\n\
         password = \"x\"\n",
        APP.0, APP.1
    );
    let proxy = Proxy::with_config(&configuration(&[&seed], &users)).await.expect("a proxy");
    let mut listed = logged_in(proxy.port);
    assert_eq!(raw::ask(&mut listed, "SELECT 1").expect("an answer").as_deref(), Some("1"));
    let unlisted = raw::login(&mut connect(proxy.port), MONITOR, None).expect_err("not listed");
    assert_eq!((unlisted.0, unlisted.1.as_str()), (1045, "28000"));
    let wrong = raw::login(&mut connect(proxy.port), (APP.0, "wrong"), None).expect_err("wrong");
    assert_eq!((wrong.0, wrong.1.as_str()), (1045, "28000"));
}

#[tokio::test]
async fn a_wrong_configuration_ends_the_proxy_with_the_key_in_its_log() {
    let config = configuration(&["127.0.0.1:3306"], "max_lag = \"soon\"");
    let why = Proxy::with_config(&config).await.expect_err("`soon` is no duration");
    assert!(why.contains("the proxy ended"), "{why}");
    assert!(why.contains("max_lag"), "{why}");
}
