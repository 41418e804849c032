//! TLS towards servers: which of them are believed, and that nothing is said to the others.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pointsman::protocol::flags::Capabilities;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{APP, MONITOR};

use crate::proxy::Proxy;
use crate::tls::{Authority, Names, connect};
use crate::{raw, servers, wait};

/// A primary without replicas whose certificate is in `files`.
pub(crate) async fn primary_with(files: &Path, flavour: pointsman::provider::Flavour) -> Cluster {
    let option = |name: &str, file: &str| format!("--{name}={}", files.join(file).display());
    let options =
        [option("ssl-cert", "cert.pem"), option("ssl-key", "key.pem"), option("ssl-ca", "ca.pem")];
    servers::own_with(flavour, 0, &options.each_ref().map(String::as_str)).await
}

/// A proxy in front of one fixed server, which monitor and links find at `port`.
async fn proxy_of(port: u16, group: &str) -> Proxy {
    let (user, password) = MONITOR;
    let config = format!(
        "admin = \"{{admin}}\"\nhttp = \"{{http}}\"\nstate_dir = \"{{state}}\"\n\n\
         [monitor]\nuser = \"{user}\"\npassword = \"{password}\"\ninterval = \"100ms\"\n\n\
         [groups.main]\nlisten = \"{{listen}}\"\nhold = \"500ms\"\n{group}\n\
         [[groups.main.servers]]\naddress = \"127.0.0.1:{port}\"\n"
    );
    Proxy::with_config(&config).await.unwrap_or_else(|why| panic!("{why}"))
}

/// The cipher of the link that answers, as the server says; `None` when there is no link.
fn cipher(proxy: &Proxy) -> Option<String> {
    let mut stream = connect(proxy.port);
    raw::login(&mut stream, APP, Some("app")).ok()?;
    let sql = "SELECT variable_value FROM performance_schema.session_status \
               WHERE variable_name = 'Ssl_cipher'";
    let maria = "SELECT variable_value FROM information_schema.session_status \
                 WHERE variable_name = 'SSL_CIPHER'";
    let answer = raw::ask(&mut stream, maria).or_else(|_| raw::ask(&mut stream, sql));
    answer.ok().flatten()
}

#[tokio::test]
async fn only_servers_that_prove_who_they_are_get_a_link() {
    for flavour in servers::flavours() {
        let files = tempfile::tempdir().expect("a folder");
        let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
        let ca = files.path().join("ca.pem");
        let other = files.path().join("other.pem");
        std::fs::write(&ca, &right.pem).expect("a file");
        std::fs::write(&other, &wrong.pem).expect("a file");
        let pin = right.write(files.path(), Names::Host("127.0.0.1"));
        let cluster = primary_with(files.path(), flavour).await;
        let port = cluster.primary().expect("a primary").port;
        let ca = format!("server_tls_ca = \"{}\"", ca.display());
        let other = format!("server_tls_ca = \"{}\"", other.display());
        let wrong_pin = format!("sha256:{}", "00".repeat(32));
        for (group, believed) in [
            (format!("server_tls = \"required\"\n{ca}"), true),
            (format!("server_tls = \"required\"\n{other}"), false),
            ("server_tls = \"required\"".to_owned(), false),
            (format!("server_tls = \"required\"\nserver_tls_pins = [\"{pin}\"]"), true),
            (format!("server_tls = \"required\"\nserver_tls_pins = [\"{wrong_pin}\"]"), false),
            ("server_tls = \"skip-verify\"".to_owned(), true),
        ] {
            let proxy = proxy_of(port, &group).await;
            let cipher = cipher(&proxy);
            let encrypted = cipher.as_ref().is_some_and(|cipher| !cipher.is_empty());
            assert_eq!(encrypted, believed, "{flavour:?} {group}: {cipher:?}");
            assert_eq!(cipher.is_some(), believed, "{flavour:?} {group}: {cipher:?}");
            assert_eq!(proxy.log().contains("no TLS with it"), !believed, "{}", proxy.log());
            let skips = group.contains("skip-verify");
            assert_eq!(proxy.log().contains("servers are not verified"), skips);
        }
        // On this machine "auto" and "off" speak in clear text.
        for group in ["", "server_tls = \"off\""] {
            assert_eq!(cipher(&proxy_of(port, group).await).as_deref(), Some(""), "{group}");
        }
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_or_another_year_is_not_believed() {
    let Some(flavour) = servers::flavours().into_iter().next() else { return };
    for names in [Names::Host("db.example"), Names::Expired("127.0.0.1")] {
        let files = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("right");
        let ca = files.path().join("ca.pem");
        std::fs::write(&ca, &authority.pem).expect("a file");
        let pin = authority.write(files.path(), names);
        let cluster = primary_with(files.path(), flavour).await;
        let port = cluster.primary().expect("a primary").port;
        let group = format!("server_tls = \"required\"\nserver_tls_ca = \"{}\"", ca.display());
        let proxy = proxy_of(port, &group).await;
        assert_eq!(cipher(&proxy), None, "{names:?}");
        assert!(proxy.log().contains("no TLS with it"), "{}", proxy.log());
        // A pinned key needs neither.
        let group = format!("server_tls = \"required\"\nserver_tls_pins = [\"{pin}\"]");
        let proxy = proxy_of(port, &group).await;
        assert!(cipher(&proxy).is_some_and(|cipher| !cipher.is_empty()), "{names:?}");
    }
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
}

/// Stands between the proxy's links and a server; keeps all that a link says. The monitor,
/// which does not come by TLS, is let through.
fn in_the_middle(target: u16, how: Meddling) -> (u16, Arc<Mutex<Middle>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let middle = Arc::new(Mutex::new(Middle { how, heard: Vec::new() }));
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
    if matches!(how, Meddling::Stuff) {
        bytes.extend_from_slice(b"\x07\0\0\x02\0\0\0\x02\0\0\0");
    }
    client.write_all(&bytes).ok()?;
    let mut buffer = [0; 4096];
    let read = client.read(&mut buffer).ok()?;
    let said = &buffer[..read];
    let monitor = said.windows(7).any(|window| window == b"monitor");
    if !monitor {
        lock(middle).heard.extend_from_slice(said);
    }
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
    let authority = Authority::new("right");
    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).expect("a file");
    authority.write(files.path(), Names::Host("127.0.0.1"));
    let cluster = primary_with(files.path(), flavour).await;
    let target = cluster.primary().expect("a primary").port;
    let group = format!("server_tls = \"required\"\nserver_tls_ca = \"{}\"", ca.display());
    let (port, middle) = in_the_middle(target, Meddling::Strip);
    let proxy = proxy_of(port, &group).await;
    assert_eq!(cipher(&proxy), None);
    let why = "does not offer TLS";
    wait::until(why, || async { proxy.log().contains(why).then_some(()) }).await;
    assert!(lock(&middle).heard.is_empty(), "a link said {:?}", lock(&middle).heard);

    lock(&middle).how = Meddling::Pass;
    assert!(cipher(&proxy).is_some_and(|cipher| !cipher.is_empty()), "as soon as it is honest");
    lock(&middle).heard.clear();
    lock(&middle).how = Meddling::Stuff;
    assert_eq!(cipher(&proxy), None);
    let errors = proxy.metric("pointsman_server_link_errors_total", &["kind=\"protocol\""]);
    assert!(errors > 0.0, "{}", proxy.log());
    assert!(lock(&middle).heard.is_empty(), "a link said {:?}", lock(&middle).heard);
}
