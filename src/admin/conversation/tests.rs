//! The console over real sockets, with an independent client, and with the mariadb command line.

use std::net::SocketAddr;
use std::process::Command as Process;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::admin::commands::Console;
use crate::admin::fixture::{Fixture, SESSION};
use crate::admin::listen::Listener;
use crate::app::tasks;
use crate::config::ListenAddress;
use crate::config::units::Secret;
use crate::protocol::auth::RsaKey;

const PASSWORD: &str = "correct horse";

/// A console that runs, and what stops it.
struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    _world: Fixture,
}

impl Running {
    async fn start() -> Self {
        let world = Fixture::new();
        let door = door(&world);
        let any = ListenAddress::Tcp("127.0.0.1:0".parse().expect("an address"));
        let listener = Listener::bind(&any).await.expect("a port");
        let Listener::Tcp(tcp) = &listener else { panic!("it is TCP") };
        let address = tcp.local_addr().expect("its address");
        let (stop, stopped) = watch::channel(false);
        let task = tasks::spawn("console", listener.serve(door, stopped));
        Self { address, stop, task, _world: world }
    }

    fn opts(&self, user: &str, password: &str) -> Opts {
        OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.address.port())
            .user(Some(user))
            .pass(Some(password))
            .into()
    }

    async fn connect(&self) -> Conn {
        Conn::new(self.opts("admin", PASSWORD)).await.expect("a login")
    }

    async fn stop(self) {
        self.stop.send(true).expect("it is running");
        self.task.await.expect("a clean end");
    }
}

fn door(world: &Fixture) -> Arc<Door> {
    let console = Console { control: world.control.clone(), metrics: world.metrics.clone() };
    let rsa = Arc::new(RsaKey::generate().expect("a key"));
    let password = Secret::new(PASSWORD.to_owned());
    Arc::new(Door::new("admin".to_owned(), password, rsa, console))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn rows(conn: &mut Conn, text: &str) -> Vec<Vec<Option<String>>> {
    let rows: Vec<Row> = conn.query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    rows.iter()
        .map(|row| (0..row.len()).map(|at| row.get::<Option<String>, _>(at).flatten()).collect())
        .collect()
}

async fn refusal(conn: &mut Conn, text: &str) -> (u16, String) {
    match conn.query_drop(text).await {
        Err(mysql_async::Error::Server(error)) => (error.code, error.message),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn an_independent_client_uses_every_command() {
    runtime().block_on(async {
        let console = Running::start().await;
        let mut conn = console.connect().await;
        let servers = rows(&mut conn, "SHOW SERVERS").await;
        assert_eq!(servers.len(), 3);
        assert_eq!(servers[0][1].as_deref(), Some("db1"));
        assert_eq!(servers[0][3].as_deref(), Some("primary"));
        assert_eq!(servers[2][6], None, "the lag of db3 is not known");
        let sessions = rows(&mut conn, "SHOW SESSIONS").await;
        assert_eq!(sessions[0][0], Some(SESSION.to_string()));
        assert_eq!(sessions[0][7].as_deref(), Some("temporary_table"));
        let pools = rows(&mut conn, "show pools;").await;
        let cells: Vec<_> = pools[0].iter().map(|cell| cell.as_deref().unwrap_or("")).collect();
        assert_eq!(cells, ["main", "db2", "app", "2", "4"], "workers are summed");
        let digests = rows(&mut conn, "SHOW DIGESTS").await;
        assert_eq!(digests[0][7].as_deref(), Some("db2:1"));
        assert_eq!(digests[0][8].as_deref(), Some("plain_read:1"));
        let config = rows(&mut conn, "SHOW CONFIG").await;
        let password = config.iter().find(|row| row[0].as_deref() == Some("monitor.password"));
        assert_eq!(password.expect("it is shown")[1].as_deref(), Some("(hidden)"));
        let tree = rows(&mut conn, "SHOW TOPOLOGY").await;
        assert_eq!(tree[1][0].as_deref(), Some("`- db1 primary up"));
        let stats = rows(&mut conn, "SHOW STATS").await;
        assert!(stats.iter().any(|row| row[0].as_deref() == Some("pointsman_server_role")));
        let route = rows(&mut conn, "EXPLAIN ROUTE SELECT * FROM t WHERE id = 1").await;
        assert!(route.iter().any(|row| row[0].as_deref() == Some("reason")), "{route:?}");
        let help = rows(&mut conn, "help 'drain'").await;
        assert_eq!(help[0][2].as_deref(), Some("DRAIN [group.]server\n"));
        let all = rows(&mut conn, "HELP").await.len();
        assert_eq!(rows(&mut conn, "help contents").await.len(), all);
        assert_eq!(rows(&mut conn, "SHOW VERSION").await.len(), 1);
        conn.disconnect().await.expect("goodbye");
        console.stop().await;
    });
}

#[test]
fn orders_reach_their_owners_and_refusals_come_back() {
    runtime().block_on(async {
        let console = Running::start().await;
        let mut conn = console.connect().await;
        let done = [
            ("DRAIN db2", "db2 is draining"),
            ("UNDRAIN main.db2", "db2 is used again"),
            ("EXCLUDE db3", "db3 is excluded"),
            ("SET WEIGHT db2 7", "db2 has weight 7"),
            ("KILL 42", "session 42 is being closed"),
        ];
        for (text, result) in done {
            assert_eq!(rows(&mut conn, text).await[0][0].as_deref(), Some(result), "{text}");
        }
        let refused = [
            ("INCLUDE db3", 1105, "not excluded"),
            ("DRAIN db9", 1105, "SHOW SERVERS"),
            ("DRAIN other.db1", 1105, "SHOW SERVERS"),
            ("KILL 43", 1094, "there is no session 43"),
            ("RELOAD", 1105, "groups.main.hold"),
            ("EXPLAIN ROUTE IN other SELECT 1", 1105, "no group"),
            ("", 1064, "empty"),
            (";", 1064, "empty"),
            ("SHOW SERVER", 1064, "did you mean SHOW SERVERS"),
            ("DELETE FROM users", 1064, "HELP"),
            ("SET WEIGHT db2", 1064, "the syntax is"),
            ("SELECT $$", 1054, "Unknown column '$$'"),
            ("SELECT @@nonsense", 1193, "nonsense"),
        ];
        for (text, code, why) in refused {
            let (got, message) = refusal(&mut conn, text).await;
            assert_eq!(got, code, "{text}: {message}");
            assert!(message.contains(why), "{text}: {message}");
        }
        let prepared = conn.prep("SHOW SERVERS").await.expect_err("there are none").to_string();
        assert!(prepared.contains("1295"), "{prepared}");
        conn.ping().await.expect("the connection still works");
        conn.disconnect().await.expect("goodbye");
        console.stop().await;
    });
}

#[test]
fn wrong_users_and_wrong_passwords_look_alike() {
    runtime().block_on(async {
        let console = Running::start().await;
        for (user, password) in [("admin", "wrong"), ("admin", ""), ("root", PASSWORD)] {
            let error = Conn::new(console.opts(user, password)).await.expect_err("no login");
            let mysql_async::Error::Server(error) = error else { panic!("{error}") };
            let wanted = format!("Access denied for user '{user}'@'127.0.0.1'");
            assert_eq!(error.code, 1045);
            assert!(error.message.starts_with(&wanted), "{}", error.message);
        }
        console.connect().await.disconnect().await.expect("goodbye");
        console.stop().await;
    });
}

#[test]
fn bytes_that_are_no_protocol_end_the_connection_and_harm_nobody() {
    runtime().block_on(async {
        let console = Running::start().await;
        let mut neighbour = console.connect().await;
        let noise: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\xff\xff\xff\x01\x00",
            b"\x00\x00\x00\x01",
            b"\x04\x00\x00\x07abcd",
            b"\x20\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        ];
        for bytes in noise {
            let mut stream = TcpStream::connect(console.address).await.expect("it listens");
            stream.write_all(bytes).await.expect("it takes bytes");
            stream.shutdown().await.expect("no more");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("it closes");
        }
        assert_eq!(rows(&mut neighbour, "SHOW SERVERS").await.len(), 3);
        neighbour.disconnect().await.expect("goodbye");
        console.stop().await;
    });
}

/// What a client sends first, cut off, or with one byte changed: the console answers or closes,
/// and its task ends when the client leaves.
#[test]
fn broken_logins_and_commands_end_the_conversation() {
    runtime().block_on(async {
        let door = door(&Fixture::new());
        // A login packet of protocol 4.1 for user admin with caching_sha2_password.
        let mut login = vec![0u8; 4];
        login.extend_from_slice(&CAPABILITIES.0.to_le_bytes());
        login.extend_from_slice(&[0, 0, 0, 1, COLLATION]);
        login.extend_from_slice(&[0; 23]);
        login.extend_from_slice(b"admin\0\x20");
        login.extend_from_slice(&[7; 32]);
        login.extend_from_slice(b"\0caching_sha2_password\0\x00");
        login[0] = u8::try_from(login.len() - 4).expect("a short packet");
        login[3] = 1;
        let mut cases: Vec<Vec<u8>> = (0..login.len()).map(|cut| login[..cut].to_vec()).collect();
        for at in 0..login.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut changed = login.clone();
                changed[at] ^= flip;
                cases.push(changed);
            }
        }
        for bytes in cases {
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            let (_stop, stopped) = watch::channel(false);
            let talk = Conversation::new(door.clone(), 1, "test".to_owned(), false);
            let task = tasks::spawn("console", talk.run(Box::new(server), stopped));
            client.write_all(&bytes).await.expect("it takes bytes");
            client.shutdown().await.expect("no more");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("it closes");
            assert!(answer.len() > 60, "there is a greeting at least");
            task.await.expect("no panic");
            door.failures().forget();
        }
    });
}

#[test]
fn the_mariadb_command_line_works() {
    runtime().block_on(async {
        if Process::new("mariadb").arg("--version").output().is_err() {
            eprintln!("skipped: no mariadb command line on this machine");
            return;
        }
        let console = Running::start().await;
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let defaults = scratch.path().join("my.cnf");
        let text = format!("[client]\npassword=\"{PASSWORD}\"\n");
        std::fs::write(&defaults, text).expect("a file");
        let statements = "SHOW SERVERS; SHOW SESSIONS; status; use main; SHOW VERSION";
        for plugin in ["caching_sha2_password", "mysql_native_password"] {
            let mut client = Process::new("mariadb");
            client
                .arg(format!("--defaults-file={}", defaults.display()))
                .args(["--skip-ssl", "-h", "127.0.0.1", "-u", "admin", "--batch", "-P"])
                .args([&console.address.port().to_string(), "--default-auth", plugin])
                .args(["-e", statements]);
            let output = tasks::blocking(move || client.output()).await.expect("it runs");
            let shown = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(shown.contains("db1") && shown.contains("temporary_table"), "{shown}");
        }
        console.stop().await;
    });
}

#[test]
fn a_unix_socket_is_private_and_a_stale_one_is_replaced() {
    use std::os::unix::fs::PermissionsExt;
    runtime().block_on(async {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let path = scratch.path().join("console.sock");
        let address = ListenAddress::Unix(path.clone());
        let first = Listener::bind(&address).await.expect("a socket");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let busy = Listener::bind(&address).await.expect_err("somebody listens there");
        assert_eq!(busy.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        Listener::bind(&address).await.expect("the stale one is replaced");
        std::fs::remove_file(&path).expect("a socket");
        std::fs::write(&path, "precious").expect("a file");
        Listener::bind(&address).await.expect_err("a file is not ours to remove");
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "precious");
    });
}
