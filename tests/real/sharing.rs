//! Many clients on few links: each finds its own state whichever link it gets, and nobody else's.
//!
//! `POINTSMAN_SHARING=clients,hand-overs,links` makes the run larger, e.g. `10000,1000000,33`.

use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pointsman::provider::Flavour;
use pointsman::provider::replication::APP;

use crate::proxy::Proxy;
use crate::{raw, servers, wait};

/// Clients, hand-overs, links by server.
const SMALL: [usize; 3] = [1000, 20_000, 12];
/// Of how many clients one is active at a time.
const IDLE: usize = 50;

/// One client, and what it must find.
struct Canary {
    stream: TcpStream,
    number: usize,
    mode: &'static str,
    schema: bool,
    insert_id: String,
}

impl Canary {
    fn new(port: u16, number: usize) -> Self {
        let schema = !number.is_multiple_of(3);
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        raw::login(&mut stream, APP, schema.then_some("app")).expect("a login");
        let mode = ["ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "PIPES_AS_CONCAT"][number % 3];
        let mut canary = Self { stream, number, mode, schema, insert_id: "0".to_owned() };
        canary.ask(&format!("SET sql_mode='{mode}', time_zone='+0{}:00'", number % 9));
        canary.ask(&format!("SET @me={number}"));
        canary
    }

    fn ask(&mut self, sql: &str) -> String {
        let answer = raw::ask(&mut self.stream, sql);
        answer.unwrap_or_else(|why| panic!("{}: {sql}: {why:?}", self.number)).unwrap_or_default()
    }

    fn find(&mut self, sql: &str, expected: &str) {
        let found = self.ask(sql);
        assert_eq!(found, expected, "client {}: {sql}", self.number);
    }

    /// One of the things that clients do, and what they must see then.
    fn act(&mut self, step: usize) {
        let number = self.number;
        match step % 7 {
            0 | 1 => {
                let schema = if self.schema { "app" } else { "-" };
                let sql = "SELECT CONCAT_WS('|', IFNULL(DATABASE(), '-'), @@sql_mode, \
                           @@time_zone, IFNULL(@other, '-'), @me)";
                let mode = self.mode;
                self.find(sql, &format!("{schema}|{mode}|+0{}:00|-|{number}", number % 9));
            }
            2 => {
                self.ask(&format!("INSERT INTO app.canary (a) VALUES ({number}), ({number})"));
                self.find("SELECT ROW_COUNT()", "2");
                self.insert_id = self.ask("SELECT LAST_INSERT_ID()");
                let sql = format!("SELECT a FROM app.canary WHERE id = {}", self.insert_id);
                self.find(&sql, &number.to_string());
            }
            3 => {
                let expected = self.insert_id.clone();
                self.find("SELECT LAST_INSERT_ID()", &expected);
            }
            4 => {
                self.ask("SELECT 1 FROM (SELECT 1 UNION SELECT 2 UNION SELECT 3) x LIMIT 1");
                self.find("SELECT FOUND_ROWS()", "1");
            }
            5 => {
                self.ask("BEGIN");
                self.ask(&format!("UPDATE app.canary SET a = a WHERE a = {number} LIMIT 1"));
                self.find("SELECT CONNECTION_ID() > 0", "1");
                self.ask("ROLLBACK");
            }
            _ => {
                let missing = format!("SELECT * FROM app.missing_{number}");
                let (code, ..) = raw::ask(&mut self.stream, &missing).expect_err("no table");
                assert_eq!(code, 1146);
                self.find("SHOW COUNT(*) ERRORS", "1");
                self.find("SELECT IFNULL(@other, '-') FROM app.canary LIMIT 1", "-");
            }
        }
    }
}

fn sizes() -> [usize; 3] {
    let Some(wanted) = std::env::var_os("POINTSMAN_SHARING") else { return SMALL };
    let wanted = wanted.to_string_lossy().into_owned();
    let numbers: Vec<usize> = wanted.split(',').filter_map(|n| n.parse().ok()).collect();
    numbers.try_into().expect("three numbers: clients, hand-overs, links")
}

#[tokio::test]
async fn thousands_of_clients_on_a_few_links_find_their_own_state_only() {
    if !servers::present(Flavour::Mariadb) {
        return;
    }
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = rustix::process::Rlimit { current: files.maximum, ..files };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, wanted).expect("more files");
    let [clients, hand_overs, links] = sizes();
    let cluster = servers::own(Flavour::Mariadb, 2).await;
    let primary = cluster.primary().expect("a primary");
    let tables = [
        "CREATE TABLE app.canary (id INT AUTO_INCREMENT PRIMARY KEY, a INT, KEY (a))",
        "INSERT INTO app.canary (a) VALUES (-1)",
    ];
    primary.run(&tables).await.expect("a table");
    cluster.wait_caught_up().await.expect("replicas follow");
    let group = format!("max_server_links = {links}\nmax_clients = 20000");
    let proxy = Proxy::start(&cluster, &group).await;
    let port = proxy.port;
    let handed = || proxy.metric("pointsman_links_taken_total", &["how=\"other\""]);
    let canaries: Vec<Mutex<Canary>> =
        (0..clients).map(|number| Mutex::new(Canary::new(port, number))).collect();
    let (done, acts) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut most = 0.0_f64;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..(clients / IDLE).max(4))
            .map(|worker| {
                let (canaries, done, acts) = (&canaries, &done, &acts);
                scope.spawn(move || {
                    let mut seed = worker * 7919 + 1;
                    while !done.load(Ordering::Relaxed) {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let Some(canary) = canaries.get((seed >> 33) % canaries.len()) else {
                            continue;
                        };
                        if let Ok(mut canary) = canary.try_lock() {
                            canary.act(seed >> 17);
                            acts.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        while handed() < hand_overs as f64 && !workers.iter().any(|worker| worker.is_finished()) {
            most = most.max(proxy.metric("pointsman_server_links", &[]));
            let before = acts.load(Ordering::Relaxed);
            while acts.load(Ordering::Relaxed) < before + 200
                && !workers.iter().any(|worker| worker.is_finished())
            {
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("no canary fails");
        }
    });
    let waits = proxy.metric("pointsman_link_waits_total", &["outcome=\"full\""]);
    eprintln!(
        "{clients} clients, {} hand-overs in {} acts, at most {most} links, {waits} waits in vain",
        handed(),
        acts.load(Ordering::Relaxed)
    );
    assert!(most <= (3 * links) as f64, "{most} links");
    drop(canaries);
    drop(proxy);
    cluster.down().await.expect("taken down");
}

/// Sessions that hold a link to one server and wait for one to another must not wait for each
/// other.
#[tokio::test]
async fn who_reads_and_writes_by_turns_waits_only_for_those_who_work() {
    const CLIENTS: usize = 2;
    const TURNS: usize = 300;
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 1).await;
        let primary = cluster.primary().expect("a primary");
        let table = "CREATE TABLE app.turns (id INT AUTO_INCREMENT PRIMARY KEY, a INT, KEY (a))";
        primary.run(&[table]).await.expect("a table");
        cluster.wait_caught_up().await.expect("replicas follow");
        let proxy = Proxy::start(&cluster, "max_server_links = 1").await;
        let clients: Vec<TcpStream> = (0..CLIENTS)
            .map(|_| {
                let mut stream =
                    TcpStream::connect(("127.0.0.1", proxy.port)).expect("a connection");
                raw::login(&mut stream, APP, Some("app")).expect("a login");
                stream
            })
            .collect();
        std::thread::scope(|scope| {
            for (number, mut client) in clients.into_iter().enumerate() {
                scope.spawn(move || {
                    for turn in 1..=TURNS {
                        let insert = format!("INSERT INTO turns (a) VALUES ({number})");
                        raw::ask(&mut client, &insert).expect("a write");
                        let count = format!("SELECT COUNT(*) FROM turns WHERE a = {number}");
                        let found = raw::ask(&mut client, &count).expect("a read");
                        assert_eq!(found.as_deref(), Some(turn.to_string().as_str()));
                    }
                });
            }
        });
        let full = proxy.metric("pointsman_link_waits_total", &["outcome=\"full\""]);
        assert_eq!(full, 0.0, "{flavour:?}: nobody waits in vain");
        drop(proxy);
        cluster.down().await.expect("taken down");
    }
}

/// A reset leaves schema and role in place (both families, measured): neither may reach the next
/// session, and no link another user.
#[tokio::test]
async fn neither_schema_nor_role_nor_user_survives_a_hand_over() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 0).await;
        let primary = cluster.primary().expect("a primary");
        let statements = [
            "CREATE ROLE lent",
            "GRANT lent TO 'app'@'%'",
            "CREATE USER 'other'@'%' IDENTIFIED BY 'other'",
            "GRANT SELECT ON app.* TO 'other'@'%'",
        ];
        primary.run(&statements).await.expect("accounts");
        let proxy = Proxy::start(&cluster, "max_server_links = 1\nidle_release = \"0\"").await;
        let client = |account, schema| {
            let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).expect("a connection");
            raw::login(&mut stream, account, schema).expect("a login");
            stream
        };
        let who = "SELECT CONCAT_WS('|', SUBSTRING_INDEX(CURRENT_USER(), '@', 1), \
                   IFNULL(DATABASE(), '-'), IF(CURRENT_ROLE() LIKE '%lent%', 'lent', '-'))";
        let mut lender = client(APP, Some("app"));
        let mut next = client(APP, None);
        let mut other = client(("other", "other"), None);
        for _ in 0..3 {
            let find = |client: &mut TcpStream, sql: &str, expected: &str| {
                let found = raw::ask(client, sql).expect("an answer").unwrap_or_default();
                assert_eq!(found, expected, "{flavour:?}: {sql}");
            };
            find(&mut lender, "SET ROLE lent", "");
            find(&mut lender, who, "app|app|lent");
            find(&mut next, who, "app|-|-");
            find(&mut other, who, "other|-|-");
            find(&mut lender, who, "app|app|lent");
            find(&mut lender, "SET ROLE NONE", "");
        }
        drop((lender, next, other, proxy));
        cluster.down().await.expect("taken down");
    }
}

/// Servers count and log connections that end without a word: neither links that were idle for
/// too long nor those of clients that have left are such.
#[tokio::test]
async fn servers_count_no_link_as_aborted() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 0).await;
        let primary = cluster.primary().expect("a primary");
        let group = "link_idle_timeout = \"1s\"\nkeep_links = 0";
        let proxy = Proxy::start(&cluster, group).await;
        for sql in ["DO 1", "SET @a = 1", "BEGIN"] {
            let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).expect("a connection");
            raw::login(&mut stream, APP, Some("app")).expect("a login");
            raw::ask(&mut stream, sql).expect("an answer");
            std::io::Write::write_all(&mut stream, &[1, 0, 0, 0, 1]).expect("a goodbye");
            // The end of the connection: the links are settled by then.
            assert!(raw::read_packet(&mut stream).is_none(), "{flavour:?}");
        }
        wait::until("the end of all links", || async {
            let open = proxy.metric("pointsman_server_links", &[]);
            (open == 0.0).then_some(())
        })
        .await;
        let aborted = servers::status(primary, flavour, "Aborted_clients").await;
        assert_eq!(aborted, "0", "{flavour:?}");
    }
}

/// A login opens a link of its own. Clients that come and go, as PHP's do, must not leave one each
/// until the server has no room for others.
#[tokio::test]
async fn clients_that_come_and_go_leave_no_more_links_than_there_were_at_once() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 0).await;
        let proxy = Proxy::start(&cluster, "").await;
        for number in 0..40 {
            let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).expect("a connection");
            raw::login(&mut stream, APP, Some("app")).expect("a login");
            let found = raw::ask(&mut stream, "SELECT DATABASE()").expect("an answer");
            assert_eq!(found.as_deref(), Some("app"), "{flavour:?}: client {number}");
        }
        // One in use and one kept, on each worker.
        let workers = std::thread::available_parallelism().expect("a number of processors");
        let few = 2 * workers.get();
        assert!(few < 40, "too many processors for so few clients");
        wait::until("few links", || async {
            let open = proxy.metric("pointsman_server_links", &[]);
            (open <= few as f64).then_some(())
        })
        .await;
        drop(proxy);
        cluster.down().await.expect("taken down");
    }
}
