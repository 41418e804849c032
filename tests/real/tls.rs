//! TLS towards clients: offered by a proxy that was told nothing, demanded where the
//! configuration or the account says so, renewed without dropping anyone; and nothing that comes
//! outside of it counts.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pointsman::protocol::auth::{Credential, Password};
use pointsman::protocol::flags::{Capabilities, MariadbCapabilities};
use pointsman::protocol::login::{Login, LoginRequest, LoginStep, RsaPolicy, Server};
use pointsman::protocol::packet;
use pointsman::provider::Flavour;
use pointsman::provider::replication::APP;
use rustls::client::{Resumption, WantsClientCert};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, StreamOwned};

use crate::authority::{Authority, Names};
use crate::proxy::{Proxy, configuration};
use crate::{clients, raw, servers, wait};

pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

/// What the proxy generates at its first start.
pub(crate) const GENERATED: &str = "tls-certificate.pem";

/// A configuration that trusts the authorities of this PEM text.
pub(crate) fn trusting(pem: &str) -> Arc<ClientConfig> {
    unresumed(believing(pem).with_no_client_auth())
}

/// The same, with the certificate in `dir` to show.
pub(crate) fn presenting(pem: &str, dir: &Path) -> Arc<ClientConfig> {
    let read = |name| std::fs::read(dir.join(name)).expect("a file");
    let own = CertificateDer::from_pem_slice(&read("cert.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&read("key.pem")).expect("a key");
    let config = believing(pem).with_client_auth_cert(vec![own], key);
    unresumed(config.expect("a pair"))
}

/// Every connection by a handshake of its own: what one server has given is nothing to another.
fn unresumed(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn believing(pem: &str) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    builder.with_root_certificates(roots)
}

fn request(account: (&str, &str)) -> LoginRequest {
    LoginRequest {
        user: account.0.as_bytes().to_vec(),
        credential: Credential::Password(Password::new(account.1.as_bytes().to_vec())),
        database: None,
        collation: 45,
        capabilities: Capabilities::PROTOCOL_41
            .with(Capabilities::SSL)
            .with(Capabilities::PLUGIN_AUTH)
            .with(Capabilities::SECURE_CONNECTION)
            .with(Capabilities::TRANSACTIONS),
        mariadb: MariadbCapabilities(0),
        max_packet: 1 << 24,
        attributes: Vec::new(),
        rsa: RsaPolicy::Never,
        secure: false,
    }
}

pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a bound");
    stream
}

/// Logs in inside TLS.
pub(crate) fn login(
    port: u16,
    config: &Arc<ClientConfig>,
    host: &str,
    account: (&str, &str),
) -> Result<Secure, raw::Refusal> {
    let mut plain = connect(port);
    let closed = |why: &str| (0, String::new(), why.to_owned());
    let mut login = Login::new(request(account));
    let (seq, greeting) = raw::read_packet(&mut plain).ok_or_else(|| closed("no greeting"))?;
    let step = login.on_packet(seq, &greeting).map_err(|why| closed(&why.to_string()))?;
    let LoginStep::Tls(bytes) = step else { panic!("TLS is offered: {step:?}") };
    plain.write_all(&bytes).expect("a request for TLS");
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let connection = ClientConnection::new(config.clone(), name).expect("TLS");
    let mut stream = StreamOwned::new(connection, plain);
    let mut step = login.tls_ready(Server::Verified).expect("TLS was asked for");
    loop {
        match step {
            LoginStep::Send(bytes) => {
                stream.write_all(&bytes).map_err(|why| closed(&why.to_string()))?;
            }
            LoginStep::Wait => {}
            LoginStep::Done { .. } => return Ok(stream),
            LoginStep::Refused(error) => return Err(raw::refusal(&error)),
            LoginStep::Tls(_) | LoginStep::Ask(_) => panic!("TLS again, or a question"),
        }
        let (seq, payload) = raw::read_packet(&mut stream).ok_or_else(|| closed("closed"))?;
        step = login.on_packet(seq, &payload).expect("the server speaks the protocol");
    }
}

#[tokio::test]
async fn a_proxy_that_was_told_nothing_speaks_tls() {
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let proxy = Proxy::start(cluster, "").await;
        let authority = format!("--ssl-ca={}", proxy.dir.join(GENERATED).display());
        let demands: &[&[&str]] = match flavour {
            Flavour::Mariadb => &[&["--ssl"], &["--ssl", &authority, "--ssl-verify-server-cert"]],
            Flavour::Mysql => &[
                &["--commands", "--ssl-mode=REQUIRED"],
                &["--commands", "--ssl-mode=VERIFY_CA", &authority],
                &["--commands", "--ssl-mode=VERIFY_IDENTITY", &authority],
                &["--commands", "--ssl-mode=REQUIRED", "--tls-version=TLSv1.2"],
            ],
        };
        for demand in demands {
            // What the client's own library says about the connection.
            let said = clients::command_line(cluster.programs(), proxy.port, APP, demand, "\\s");
            assert!(said.ok && said.out.contains("Cipher in use is"), "{demand:?}: {said:?}");
        }
        let plain: &[&str] = if flavour == Flavour::Mysql { &["--commands"] } else { &[] };
        let plain = clients::command_line(cluster.programs(), proxy.port, APP, plain, "\\s");
        assert!(plain.ok && plain.out.contains("Not in use"), "{plain:?}");
    }
}

/// Clients of MariaDB 11.4 and later verify by default, and where no authority has signed a
/// certificate they want it proved by their password.
#[tokio::test]
async fn a_newer_client_believes_the_generated_certificate_by_its_password() {
    let Some((root, programs)) = servers::newer_mariadb() else { return };
    let libraries = std::fs::read_dir(root.join("usr/lib")).expect("the folder").flatten();
    let plugins = libraries.map(|folder| folder.path().join("libmariadb3/plugin"));
    let plugins = plugins.into_iter().find(|path| path.exists()).expect("the client's plugins");
    let plugins = format!("--plugin-dir={}", plugins.display());
    let newer = servers::own_newer_mariadb(0, &["auth_ed25519", "auth_parsec"]).await;
    let load = ["--plugin-load-add=auth_ed25519"];
    let older = servers::own_with(Flavour::Mariadb, 0, &load).await;
    for cluster in newer.into_iter().chain([older]) {
        let primary = cluster.primary().expect("a primary");
        let made = |plugin: &str| {
            format!("CREATE USER {plugin} IDENTIFIED VIA {plugin} USING PASSWORD('secret')")
        };
        let mut accounts = vec![APP];
        for plugin in ["ed25519", "parsec"] {
            // The older server has no parsec.
            if primary.run(&[made(plugin)]).await.is_ok() {
                accounts.push((plugin, "secret"));
            }
        }
        assert!(accounts.len() >= 2, "{accounts:?}");
        let config = configuration(&[&primary.address()], "").replace("{listen}", "{everywhere}");
        let proxy = Proxy::with_config(&config).await.unwrap_or_else(|why| panic!("{why}"));
        for account in accounts {
            // An address of this host that the client does not take for one.
            let arguments = ["--host=127.0.0.2", "--ssl", "--ssl-verify-server-cert", &plugins];
            let said = clients::command_line(&programs, proxy.port, account, &arguments, "\\s");
            assert!(said.out.contains("cert is OK"), "{account:?}: {}{}", said.out, said.error);
        }
        drop(proxy);
        cluster.down().await.expect("taken down");
    }
}

#[tokio::test]
async fn large_packets_and_files_pass_inside_tls() {
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let proxy = Proxy::start(cluster, "replica_wait = \"20s\"").await;
        let file = proxy.dir.join("rows.csv");
        let rows: String = (0..200_000).map(|id| format!("{id},row {id}\n")).collect();
        std::fs::write(&file, rows).expect("a file to load");
        let size = 17 << 20;
        let sql = format!(
            "DROP TABLE IF EXISTS app.inside; CREATE TABLE app.inside (id INT PRIMARY KEY, t VARCHAR(20)); \
             LOAD DATA LOCAL INFILE '{}' INTO TABLE app.inside FIELDS TERMINATED BY ','; \
             SELECT COUNT(*), SUM(id), BIT_XOR(CRC32(t)) FROM app.inside; \
             SELECT LENGTH('{}') n; SELECT REPEAT('y', {size}) big; DROP TABLE app.inside;",
            file.display(),
            "x".repeat(size)
        );
        let tls = if flavour == Flavour::Mariadb { "--ssl" } else { "--ssl-mode=REQUIRED" };
        let arguments =
            ["--local-infile=1", "--max-allowed-packet=64M", "--skip-column-names", "app"];
        let run = |port, tls: &[&str]| {
            let arguments = [tls, &arguments[..]].concat();
            clients::command_line(cluster.programs(), port, APP, &arguments, &sql)
        };
        let direct = run(cluster.primary().expect("a primary").port, &[]);
        let inside = run(proxy.port, &[tls]);
        assert!(direct.ok && inside.ok, "{} / {}", direct.error, inside.error);
        assert!(inside.out == direct.out, "the same rows: {} bytes", inside.out.len());
        assert!(inside.out.len() > size && inside.out.starts_with("200000\t"));
    }
}

#[tokio::test]
async fn a_login_that_must_come_by_tls_is_refused_outside_of_it() {
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        for (group, others) in
            [("tls = \"required\"", false), ("tls_required_for = [\"app\"]", true)]
        {
            let proxy = Proxy::start(cluster, group).await;
            // A wrong password hears the same: the transport is judged first.
            for account in [APP, (APP.0, "wrong")] {
                let refused = raw::login(&mut connect(proxy.port), account, None);
                let refused = refused.expect_err("not in clear text");
                let expected = match flavour {
                    Flavour::Mysql => (3159, "HY000"),
                    // Which does not say why.
                    Flavour::Mariadb => (1045, "28000"),
                };
                assert_eq!((refused.0, refused.1.as_str()), expected, "{refused:?}");
            }
            let root = raw::login(&mut connect(proxy.port), ("root", "root"), None);
            assert_eq!(root.is_ok(), others, "{group}: {root:?}");
            let pem = std::fs::read_to_string(proxy.dir.join(GENERATED)).expect("a certificate");
            let mut stream = login(proxy.port, &trusting(&pem), "localhost", APP).expect("inside");
            assert_eq!(raw::ask(&mut stream, "SELECT 1"), Ok(Some("1".to_owned())));
        }
        let proxy = Proxy::start(cluster, "tls = \"off\"").await;
        let mut greeting = connect(proxy.port);
        let (_, payload) = raw::read_packet(&mut greeting).expect("a greeting");
        let offered = pointsman::protocol::handshake::Greeting::parse(&payload).expect("one");
        assert!(!offered.capabilities.has(Capabilities::SSL), "{offered:?}");
    }
}

#[tokio::test]
async fn what_is_stuffed_behind_the_request_for_tls_is_no_command() {
    for flavour in servers::flavours().into_iter().take(1) {
        let cluster = servers::shared(flavour);
        let proxy = Proxy::start(cluster, "handshake_timeout = \"2s\"").await;
        let mut login = Login::new(request(APP));
        let (seq, greeting) = raw::read_packet(&mut connect(proxy.port)).expect("a greeting");
        let step = login.on_packet(seq, &greeting).expect("a greeting");
        let LoginStep::Tls(asked) = step else { panic!("TLS is offered") };
        let LoginStep::Send(response) = login.tls_ready(Server::Verified).expect("asked") else {
            panic!("an answer")
        };
        let mut query = Vec::new();
        packet::write(&mut query, 0, b"\x03CREATE DATABASE stuffed");
        let garbage = b"\x16\x03\x01\x00\x05hello".to_vec();
        for stuffed in [
            [response.clone(), query.clone()].concat(),
            query,
            garbage,
            vec![0x16, 0x03, 0x01, 0xff, 0xff],
            vec![0x17; 100_000],
            b"\x16\x03\x01".to_vec(),
        ] {
            let mut stream = connect(proxy.port);
            raw::read_packet(&mut stream).expect("a greeting");
            let bytes = [asked.clone(), stuffed].concat();
            // It may have been closed in the middle of it.
            let _ = stream.write_all(&bytes);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            // An alert or nothing: no packet of the protocol.
            assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
        }
        // A hello of TLS 1.1 that is acceptable otherwise: a suite, signatures, a group, points.
        let signatures = b"\0\x0d\0\x04\0\x02\x04\x03";
        let rest = b"\0\x0a\0\x04\0\x02\0\x1d\0\x0b\0\x02\x01\0";
        let head = [&[3, 2][..], &[7; 32], b"\0\0\x02\xc0\x2b\x01\0\0\x16"].concat();
        let hello = [head.as_slice(), signatures, rest].concat();
        let length = u8::try_from(hello.len()).expect("a short hello");
        let mut old = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
        old.extend_from_slice(&hello);
        let mut stream = connect(proxy.port);
        raw::read_packet(&mut stream).expect("a greeting");
        stream.write_all(&[asked, old].concat()).expect("a hello");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        // Fatal, protocol_version.
        assert!(answer.starts_with(&[0x15]) && answer.ends_with(&[2, 70]), "{answer:?}");
        let primary = cluster.primary().expect("a primary");
        let mut neighbour = connect(proxy.port);
        raw::login(&mut neighbour, APP, None).expect("others get in");
        let mut direct = connect(primary.port);
        raw::login(&mut direct, ("root", "root"), None).expect("a login");
        let made = "SELECT COUNT(*) FROM information_schema.schemata \
                    WHERE schema_name = 'stuffed'";
        assert_eq!(raw::ask(&mut direct, made), Ok(Some("0".to_owned())));
        let refused = proxy.metric("pointsman_client_connection_errors_total", &["kind=\"tls\""]);
        assert!(refused >= 4.0, "{refused} were refused for their TLS");
    }
}

#[tokio::test]
async fn a_renewed_certificate_counts_and_a_broken_one_does_not() {
    let Some(flavour) = servers::flavours().into_iter().next() else { return };
    let cluster = servers::shared(flavour);
    let files = tempfile::tempdir().expect("a folder");
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    first.write(files.path(), Names::Host("db.example"));
    let group = format!(
        "tls_certificate = \"{0}/cert.pem\"\ntls_key = \"{0}/key.pem\"",
        files.path().display()
    );
    let proxy = Proxy::start(cluster, &group).await;
    let (by_first, by_second) = (trusting(&first.pem), trusting(&second.pem));
    let mut old = login(proxy.port, &by_first, "db.example", APP).expect("the first one");
    assert!(login(proxy.port, &by_first, "db2.example", APP).is_err(), "another host");
    assert!(login(proxy.port, &by_second, "db.example", APP).is_err(), "another authority");

    second.write(files.path(), Names::Host("db.example"));
    proxy.signal(rustix::process::Signal::HUP);
    let mut new = wait::until("the second certificate", || async {
        login(proxy.port, &by_second, "db.example", APP).ok()
    })
    .await;
    std::fs::write(files.path().join("cert.pem"), "broken").expect("a file");
    proxy.signal(rustix::process::Signal::HUP);
    wait::until("the refusal of the broken one", || async {
        let failed = proxy.metric("pointsman_config_reloads_total", &["outcome=\"failed\""]);
        (failed > 0.0).then_some(())
    })
    .await;
    assert!(proxy.log().contains("cert.pem"), "{}", proxy.log());
    let mut last = login(proxy.port, &by_second, "db.example", APP).expect("still the second");
    for stream in [&mut old, &mut new, &mut last] {
        assert_eq!(raw::ask(stream, "SELECT 1"), Ok(Some("1".to_owned())), "nobody was dropped");
    }
}

/// The accounts and what each demands.
const DEMANDING: &[(&str, &str)] = &[
    ("nothing", "REQUIRE NONE"),
    ("tls", "REQUIRE SSL"),
    ("x509", "REQUIRE X509"),
    ("subject", "REQUIRE SUBJECT '/CN=app'"),
    ("issuer", "REQUIRE ISSUER '/CN=right'"),
    ("both", "REQUIRE SUBJECT '/CN=app' AND ISSUER '/CN=right'"),
    ("elsewhere", "REQUIRE ISSUER '/CN=elsewhere'"),
    ("cipher", "REQUIRE CIPHER 'TLS_AES_256_GCM_SHA384'"),
    ("weak", "REQUIRE CIPHER 'DES-CBC3-SHA'"),
];

#[tokio::test]
async fn what_an_account_requires_of_the_connection_is_decided_as_by_the_server() {
    for flavour in servers::flavours() {
        let files = tempfile::tempdir().expect("a folder");
        let [server, app, other] = ["server", "app", "other"].map(|name| files.path().join(name));
        let right = Authority::new("right");
        for (dir, name) in [(&server, "127.0.0.1"), (&app, "app"), (&other, "other")] {
            std::fs::create_dir(dir).expect("a folder");
            right.write(dir, Names::Host(name));
        }
        std::fs::write(server.join("ca.pem"), &right.pem).expect("a file");
        let cluster = crate::tls_servers::primary_with(&server, flavour, &[]).await;
        let primary = cluster.primary().expect("a primary");
        let mut accounts = Vec::new();
        for (name, require) in DEMANDING {
            accounts.push(format!("CREATE USER '{name}'@'%' IDENTIFIED BY 'pw' {require}"));
        }
        primary.run(&accounts).await.expect("accounts");
        let group = crate::tls_servers::certificates(&server, &app);
        let proxy = Proxy::start(&cluster, &group).await;
        let inside = [
            ("no certificate", trusting(&right.pem)),
            ("app", presenting(&right.pem, &app)),
            ("other", presenting(&right.pem, &other)),
        ];
        let mut cases = 0;
        for (name, require) in DEMANDING {
            for password in ["pw", "wrong"] {
                let account = (*name, password);
                let plain = [primary.port, proxy.port]
                    .map(|port| raw::login(&mut connect(port), account, None));
                let [direct, proxied] = plain.map(|result| result.map_err(|refused| refused.0));
                assert_eq!(proxied, direct, "{flavour:?} {require} {password} in clear text");
                for (shows, config) in &inside {
                    let [direct, proxied] = [primary.port, proxy.port].map(|port| {
                        let result = login(port, config, "127.0.0.1", account);
                        result.map(drop).map_err(|refused| refused.0)
                    });
                    assert_eq!(proxied, direct, "{flavour:?} {require} {password} with {shows}");
                    cases += 1;
                }
                cases += 1;
            }
        }
        eprintln!("{flavour:?}: {cases} logins decided as by the server");
    }
}
