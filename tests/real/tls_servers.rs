//! TLS towards servers: which of them are believed, and that nothing is said to the others.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mysql_async::prelude::Queryable as _;
use pointsman::protocol::flags::Capabilities;
use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{APP, MONITOR, ROOT};

use crate::authority::{Authority, Names};
use crate::console::console;
use crate::proxy::Proxy;
use crate::tls::{GENERATED, connect};
use crate::{clients, raw, servers, tls, wait};

/// A primary without replicas whose certificate is in `files`.
pub(crate) async fn primary_with(files: &Path, flavour: Flavour, further: &[&str]) -> Cluster {
    let option = |name: &str, file: &str| format!("--{name}={}", files.join(file).display());
    let options =
        [option("ssl-cert", "cert.pem"), option("ssl-key", "key.pem"), option("ssl-ca", "ca.pem")];
    let options: Vec<&str> =
        options.iter().map(String::as_str).chain(further.iter().copied()).collect();
    servers::own_with(flavour, 0, &options).await
}

/// Writes a server's certificate into `files`: where its authority's is, and its own pin.
fn certified(files: &Path, names: Names) -> (PathBuf, String) {
    let authority = Authority::new("right");
    let ca = files.join("ca.pem");
    std::fs::write(&ca, &authority.pem).expect("a file");
    (ca, authority.write(files, names))
}

/// Settings with a certificate towards clients from one folder, towards servers from another.
pub(crate) fn certificates(server: &Path, app: &Path) -> String {
    format!(
        "tls_certificate = \"{0}/cert.pem\"\ntls_key = \"{0}/key.pem\"\n\
         tls_client_ca = \"{0}/ca.pem\"\n\
         server_tls_certificate = \"{1}/cert.pem\"\nserver_tls_key = \"{1}/key.pem\"",
        server.display(),
        app.display()
    )
}

/// A configuration for one fixed server, which monitor and links find at `port`.
fn configuration(port: u16, group: &str) -> String {
    let (user, password) = MONITOR;
    format!(
        "admin = \"{{admin}}\"\nhttp = \"{{http}}\"\nstate_dir = \"{{state}}\"\n\n\
         [monitor]\nuser = \"{user}\"\npassword = \"{password}\"\ninterval = \"100ms\"\n\n\
         [groups.main]\nlisten = \"{{listen}}\"\nhold = \"500ms\"\n{group}\n\
         [[groups.main.servers]]\naddress = \"127.0.0.1:{port}\"\n"
    )
}

/// A proxy that has found its primary.
async fn proxy_of(port: u16, group: &str) -> Proxy {
    let proxy = Proxy::with_config(&configuration(port, group)).await;
    proxy.unwrap_or_else(|why| panic!("{why}"))
}

/// A proxy whose server is not believed, as soon as it shows that with these words.
async fn proxy_without(port: u16, group: &str, why: &str) -> Proxy {
    let proxy = Proxy::without_primary(&configuration(port, group)).await;
    let proxy = proxy.unwrap_or_else(|why| panic!("{why}"));
    wait::until(why, || async {
        let servers = console(&proxy, "SHOW SERVERS").await;
        (servers.contains("down") && servers.contains(why)).then_some(())
    })
    .await;
    proxy
}

/// The cipher of the link that answers, as the server says; `None` when there is no link.
fn cipher(proxy: &Proxy) -> Option<String> {
    let mut stream = connect(proxy.port);
    // No schema: with one the login would open a link of its own.
    raw::login(&mut stream, APP, None).ok()?;
    let sql = "SELECT variable_value FROM performance_schema.session_status \
               WHERE variable_name = 'Ssl_cipher'";
    let maria = "SELECT variable_value FROM information_schema.session_status \
                 WHERE variable_name = 'SSL_CIPHER'";
    let answer = raw::ask(&mut stream, maria).or_else(|_| raw::ask(&mut stream, sql));
    answer.ok().flatten()
}

#[tokio::test]
async fn only_servers_that_prove_who_they_are_are_spoken_to() {
    for flavour in servers::flavours() {
        let files = tempfile::tempdir().expect("a folder");
        let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
        let ca = files.path().join("ca.pem");
        let other = files.path().join("other.pem");
        std::fs::write(&ca, &right.pem).expect("a file");
        std::fs::write(&other, &wrong.pem).expect("a file");
        let pin = right.write(files.path(), Names::Host("127.0.0.1"));
        let cluster = primary_with(files.path(), flavour, &[]).await;
        let primary = cluster.primary().expect("a primary");
        let required = |with: &str| format!("server_tls = \"required\"\n{with}");
        let ca = format!("server_tls_ca = \"{}\"", ca.display());
        let other = format!("server_tls_ca = \"{}\"", other.display());
        let wrong_pin = format!("server_tls_pins = [\"sha256:{}\"]", "00".repeat(32));
        for with in [other.as_str(), "", wrong_pin.as_str()] {
            let proxy = proxy_without(primary.port, &required(with), "invalid peer cert").await;
            assert_eq!(cipher(&proxy), None, "{flavour:?} {with}");
            let log = std::fs::read_to_string(primary.general_log()).expect("its log");
            assert!(!log.contains(MONITOR.0), "{flavour:?} {with}: {log}");
        }
        for (group, transport) in [
            (required(&ca), "verified"),
            (required(&format!("server_tls_pins = [\"{pin}\"]")), "verified"),
            ("server_tls = \"skip-verify\"".to_owned(), "unverified"),
            // On this machine "auto" speaks in clear text.
            (String::new(), "clear"),
            ("server_tls = \"off\"".to_owned(), "clear"),
        ] {
            let proxy = proxy_of(primary.port, &group).await;
            let encrypted = cipher(&proxy).map(|cipher| !cipher.is_empty());
            assert_eq!(encrypted, Some(transport != "clear"), "{flavour:?} {group}");
            assert!(console(&proxy, "SHOW SERVERS").await.contains(transport), "{group}");
            let label = format!("transport=\"{transport}\"");
            assert_eq!(proxy.metric("pointsman_server_transport", &[&label]), 1.0, "{group}");
            let spelt_out = group.contains("skip-verify") || group.contains("off");
            assert_eq!(proxy.log().contains("servers are not verified"), spelt_out, "{group}");
        }
    }
}

#[tokio::test]
async fn a_server_that_insists_on_tls_is_watched_and_asked_in_it() {
    for flavour in servers::flavours() {
        let files = tempfile::tempdir().expect("a folder");
        let (ca, _) = certified(files.path(), Names::Host("127.0.0.1"));
        let cluster = primary_with(files.path(), flavour, &[]).await;
        let primary = cluster.primary().expect("a primary");
        let odd = ["d'or", "\u{fc}n\u{ef}", "%"];
        let mut statements: Vec<String> =
            odd.iter().map(|name| format!("CREATE USER \"{name}\" IDENTIFIED BY 'pw'")).collect();
        statements.push("SET GLOBAL require_secure_transport = ON".to_owned());
        primary.run(&statements).await.expect("runs");
        // In clear text it lets nobody in.
        let why = match flavour {
            Flavour::Mariadb => "1045",
            Flavour::Mysql => "3159",
        };
        proxy_without(primary.port, "", why).await;
        // Where clients are offered none, the server's demand concerns links only.
        let group = format!(
            "server_tls = \"required\"\nserver_tls_ca = \"{}\"\ntls = \"off\"",
            ca.display()
        );
        let proxy = proxy_of(primary.port, &group).await;
        let servers = console(&proxy, "SHOW SERVERS").await;
        assert!(servers.contains("up") && servers.contains("primary"), "{servers}");
        assert!(servers.contains("verified"), "{servers}");
        // Accounts are looked up there, whatever their names are made of.
        let login = |name, password| {
            let login = raw::login(&mut connect(proxy.port), (name, password), None);
            login.map_err(|refused| refused.0)
        };
        for name in odd.iter().chain(&["' OR 1 = 1 -- "]) {
            assert_eq!(login(name, "wrong"), Err(1045), "{flavour:?} {name}");
        }
        for name in odd {
            assert_eq!(login(name, "pw"), Ok(()), "{flavour:?} {name}: {}", proxy.log());
        }
        assert_eq!(login("\u{1f600}", "pw"), Err(1045), "{flavour:?}: nobody's name");
        assert!(cipher(&proxy).is_some_and(|cipher| !cipher.is_empty()), "{flavour:?}");
    }
}

/// A change of user on a connection from before; the error where it is refused.
async fn changed(conn: &mut mysql_async::Conn) -> Option<String> {
    let to = mysql_async::ChangeUserOpts::new()
        .with_user(Some(APP.0.to_owned()))
        .with_pass(Some(APP.1.to_owned()));
    conn.change_user(to).await.err().map(|error| error.to_string())
}

#[tokio::test]
async fn clients_of_a_server_that_insists_on_tls_must_come_by_it() {
    for flavour in servers::flavours() {
        let files = tempfile::tempdir().expect("a folder");
        certified(files.path(), Names::Host("127.0.0.1"));
        let cluster = primary_with(files.path(), flavour, &[]).await;
        let primary = cluster.primary().expect("a primary");
        let group = "server_tls = \"skip-verify\"";
        let config = configuration(primary.port, group)
            .replace("listen = \"{listen}\"", "listen = [\"{listen}\", \"{state}/s\"]");
        let proxy = Proxy::with_config(&config).await.unwrap_or_else(|why| panic!("{why}"));
        let ports = [primary.port, proxy.port];
        let mut before = Vec::new();
        for port in ports {
            before.push(clients::connect(port, APP).await);
        }
        let account = |password| (APP.0, password);
        let in_clear = |port, password| {
            let refused = raw::login(&mut connect(port), account(password), None);
            refused.map_err(|(code, state, text)| {
                (code, state, text.replace("'localhost'", "'H'").replace("'127.0.0.1'", "'H'"))
            })
        };
        // In clear text as well, which nobody else will be let in by.
        let mut root = clients::connect(primary.port, ROOT).await;
        root.query_drop("SET GLOBAL require_secure_transport = ON").await.expect("a setting");
        wait::until("clear text to be refused", || async {
            in_clear(proxy.port, APP.1).is_err().then_some(())
        })
        .await;
        for password in [APP.1, "wrong"] {
            let [direct, proxied] = ports.map(|port| in_clear(port, password));
            assert!(direct.is_err(), "{flavour:?} {password}");
            assert_eq!(proxied, direct, "{flavour:?} {password}");
        }
        let socket = UnixStream::connect(proxy.dir.join("s"));
        let mut socket = socket.expect("a connection");
        raw::login(&mut socket, APP, None).expect("a socket is as good as TLS");
        assert_eq!(raw::ask(&mut socket, "SELECT 1"), Ok(Some("1".to_owned())));
        let pem = std::fs::read_to_string(proxy.dir.join(GENERATED)).expect("a certificate");
        let mut inside = tls::login(proxy.port, &tls::trusting(&pem), "localhost", APP)
            .unwrap_or_else(|refused| panic!("{flavour:?}: {refused:?}"));
        assert_eq!(raw::ask(&mut inside, "SELECT 1"), Ok(Some("1".to_owned())));
        // Who is in stays in.
        let mut told = Vec::new();
        for conn in &mut before {
            conn.query_drop("DO 1").await.expect("the session goes on");
            told.push(changed(conn).await);
        }
        assert_eq!(told[1], told[0], "{flavour:?}: a change of user");
        root.query_drop("SET GLOBAL require_secure_transport = OFF").await.expect("a setting");
        wait::until("clear text to be let in", || async { in_clear(proxy.port, APP.1).ok() }).await;
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_or_another_year_is_not_believed() {
    let Some(flavour) = servers::flavours().into_iter().next() else { return };
    for names in [Names::Host("db.example"), Names::Expired("127.0.0.1")] {
        let files = tempfile::tempdir().expect("a folder");
        let (ca, pin) = certified(files.path(), names);
        let cluster = primary_with(files.path(), flavour, &[]).await;
        let port = cluster.primary().expect("a primary").port;
        let group = format!("server_tls = \"required\"\nserver_tls_ca = \"{}\"", ca.display());
        let proxy = proxy_without(port, &group, "invalid peer certificate").await;
        assert_eq!(cipher(&proxy), None, "{names:?}");
        // A pinned key needs neither.
        let group = format!("server_tls = \"required\"\nserver_tls_pins = [\"{pin}\"]");
        let proxy = proxy_of(port, &group).await;
        assert!(cipher(&proxy).is_some_and(|cipher| !cipher.is_empty()), "{names:?}");
    }
}

#[tokio::test]
async fn a_reload_judges_the_servers_anew() {
    let Some(flavour) = servers::flavours().into_iter().next() else { return };
    let files = tempfile::tempdir().expect("a folder");
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let ca = files.path().join("believed.pem");
    std::fs::write(&ca, &right.pem).expect("a file");
    right.write(files.path(), Names::Host("127.0.0.1"));
    std::fs::write(files.path().join("ca.pem"), &right.pem).expect("a file");
    let cluster = primary_with(files.path(), flavour, &[]).await;
    let port = cluster.primary().expect("a primary").port;
    let group = format!("server_tls = \"required\"\nserver_tls_ca = \"{}\"", ca.display());
    let proxy = proxy_of(port, &group).await;
    // A file that holds no authority changes nothing.
    std::fs::write(&ca, "nothing").expect("a file");
    proxy.signal(rustix::process::Signal::HUP);
    let failed = ["outcome=\"failed\""];
    wait::until("the refusal of the reload", || async {
        (proxy.metric("pointsman_config_reloads_total", &failed) > 0.0).then_some(())
    })
    .await;
    assert!(cipher(&proxy).is_some_and(|cipher| !cipher.is_empty()), "{}", proxy.log());
    // Links from before are handed on no more: told to use none, then some again.
    let path = proxy.config();
    let rewrite = |from: &str, to: &str| {
        let config = std::fs::read_to_string(&path).expect("its configuration");
        assert!(config.contains(from), "{config}");
        std::fs::write(&path, config.replace(from, to)).expect("its configuration");
        proxy.signal(rustix::process::Signal::HUP);
    };
    std::fs::write(&ca, &right.pem).expect("a file");
    rewrite("\"required\"", "\"off\"");
    wait::until("links in clear text", || async {
        (cipher(&proxy).as_deref() == Some("")).then_some(())
    })
    .await;
    let idle = ["server=\"127.0.0.1"];
    // Whoever asks for counters, as for the cipher, shares no link; this one leaves it behind.
    let mut stream = connect(proxy.port);
    raw::login(&mut stream, APP, None).expect("a login");
    raw::ask(&mut stream, "DO 1").expect("an answer");
    drop(stream);
    wait::until("a link in the pool", || async {
        (proxy.metric("pointsman_server_links_idle", &idle) > 0.0).then_some(())
    })
    .await;
    rewrite("\"off\"", "\"required\"");
    let done = ["outcome=\"ok\""];
    wait::until("the second reload", || async {
        (proxy.metric("pointsman_config_reloads_total", &done) >= 2.0).then_some(())
    })
    .await;
    assert!(cipher(&proxy).is_some_and(|cipher| !cipher.is_empty()), "{}", proxy.log());
    // Another authority: the monitor's old connection counts no more.
    std::fs::write(&ca, &wrong.pem).expect("a file");
    proxy.signal(rustix::process::Signal::HUP);
    wait::until("the server to be down", || async {
        let servers = console(&proxy, "SHOW SERVERS").await;
        (servers.contains("down") && servers.contains("invalid peer certificate")).then_some(())
    })
    .await;
}

/// What the one in the middle does with the server's greeting.
#[derive(Debug, Clone, Copy)]
enum Meddling {
    /// Nothing.
    Pass,
    /// Takes TLS out of it.
    Strip,
    /// Adds an OK packet behind it.
    Stuff,
    /// Says in its place that the password was wrong.
    Refuse,
}

/// Stands between the proxy and a server; keeps the first that is said on each connection.
fn in_the_middle(target: u16) -> (u16, Arc<Mutex<Middle>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let middle = Arc::new(Mutex::new(Middle { how: Meddling::Pass, heard: Vec::new() }));
    let shared = middle.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let shared = shared.clone();
            std::thread::spawn(move || meddle(client, target, &shared));
        }
    });
    (port, middle)
}

/// The one in the middle.
struct Middle {
    how: Meddling,
    heard: Vec<u8>,
}

fn lock(middle: &Mutex<Middle>) -> MutexGuard<'_, Middle> {
    middle.lock().unwrap_or_else(PoisonError::into_inner)
}

fn meddle(mut client: TcpStream, target: u16, middle: &Mutex<Middle>) -> Option<()> {
    let how = lock(middle).how;
    let mut server = TcpStream::connect(("127.0.0.1", target)).ok()?;
    let (_, mut greeting) = raw::read_packet(&mut server)?;
    if matches!(how, Meddling::Strip) {
        let version = greeting.iter().position(|byte| *byte == 0)?;
        // Behind the version: id, half a nonce, NUL; then the lower capabilities.
        let at = version + 1 + 4 + 8 + 1;
        let low = u16::from_le_bytes([greeting[at], greeting[at + 1]]);
        let ssl = u16::try_from(Capabilities::SSL.0).ok()?;
        greeting[at..at + 2].copy_from_slice(&(low & !ssl).to_le_bytes());
    }
    let mut bytes = Vec::new();
    pointsman::protocol::packet::write(&mut bytes, 0, &greeting);
    if matches!(how, Meddling::Refuse) {
        bytes.clear();
        let refusal = b"\xff\x15\x04#28000Send your password to evil.example";
        pointsman::protocol::packet::write(&mut bytes, 0, refusal);
    }
    if matches!(how, Meddling::Stuff) {
        bytes.extend_from_slice(b"\x07\0\0\x02\0\0\0\x02\0\0\0");
    }
    client.write_all(&bytes).ok()?;
    let mut buffer = [0; 4096];
    let read = client.read(&mut buffer).ok()?;
    let said = &buffer[..read];
    lock(middle).heard.extend_from_slice(said);
    server.write_all(said).ok()?;
    let (mut back, mut forth) = (server.try_clone().ok()?, client.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut back, &mut forth);
        let _ = forth.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Both);
    Some(())
}

#[tokio::test]
async fn nothing_is_said_to_one_in_the_middle() {
    let Some(flavour) = servers::flavours().into_iter().next() else { return };
    let files = tempfile::tempdir().expect("a folder");
    let (ca, _) = certified(files.path(), Names::Host("127.0.0.1"));
    let cluster = primary_with(files.path(), flavour, &[]).await;
    let target = cluster.primary().expect("a primary").port;
    let group = format!("server_tls = \"required\"\nserver_tls_ca = \"{}\"", ca.display());
    let (port, middle) = in_the_middle(target);
    let meddle = |how| *lock(&middle) = Middle { how, heard: Vec::new() };
    let assert_silence = || {
        let heard = &lock(&middle).heard;
        assert!(heard.is_empty(), "{:?}", String::from_utf8_lossy(heard));
    };
    // Neither the monitor says anything,
    for (how, why) in [
        (Meddling::Strip, "does not offer TLS"),
        (Meddling::Stuff, "bytes behind the greeting"),
        (Meddling::Refuse, "error 1045 before TLS"),
    ] {
        meddle(how);
        let proxy = proxy_without(port, &group, why).await;
        assert_eq!(cipher(&proxy), None, "{how:?}");
        assert_silence();
        assert!(!proxy.log().contains("evil.example"), "{how:?}");
    }
    // nor a link, whose monitor had come through before.
    meddle(Meddling::Pass);
    let proxy = proxy_of(port, &group).await;
    assert!(cipher(&proxy).is_some_and(|cipher| !cipher.is_empty()), "as soon as it is honest");
    let heard = String::from_utf8_lossy(&lock(&middle).heard).into_owned();
    assert!(!heard.contains(MONITOR.0) && !heard.contains(APP.0), "{heard:?}");
    for (how, kind) in [
        (Meddling::Strip, "kind=\"tls\""),
        (Meddling::Stuff, "kind=\"protocol\""),
        (Meddling::Refuse, "kind=\"tls\""),
    ] {
        let errors = || proxy.metric("pointsman_server_link_errors_total", &[kind]);
        let before = errors();
        meddle(how);
        let refused = raw::login(&mut connect(proxy.port), APP, Some("app"));
        let (code, _, text) = refused.expect_err("there is no link");
        assert!(code != 1045 && !text.contains("evil.example"), "{how:?}: {code} {text}");
        assert!(errors() > before, "{how:?}: {}", proxy.log());
        assert_silence();
    }
    assert!(proxy.log().contains("does not offer TLS"), "{}", proxy.log());
}
