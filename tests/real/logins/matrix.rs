//! The same decision as the server's: a generated matrix of accounts and attempts, each carried
//! out directly and through the proxy.

use std::sync::atomic::{AtomicUsize, Ordering};

use pointsman::provider::Flavour;
use pointsman::provider::replication::{APP, ROOT};
use pointsman::provider::server::Server;

use super::attempt::{Attempt, Configs, Outcome, Way, attempt_by};
use crate::authority::{Authority, Names};
use crate::proxy::Proxy;
use crate::tls::{presenting, trusting};
use crate::{raw, servers, tls_servers};

/// Passwords of accounts, by a word for their names.
const PASSWORDS: [(&str, &str); 4] = [
    ("usual", "Secret-1"),
    ("empty", ""),
    ("accent", "s\u{e9}cr\u{ea}t 'x\" \\"),
    ("long", "0123456789012345678901234567890123456789012345678901234567890123456789"),
];

/// States of accounts: what follows CREATE USER or ALTER USER.
const STATES: [(&str, &str); 7] = [
    ("open", ""),
    ("locked", "ACCOUNT LOCK"),
    ("expired", "PASSWORD EXPIRE"),
    ("aging", "PASSWORD EXPIRE INTERVAL 90 DAY"),
    ("ssl", "REQUIRE SSL"),
    ("x509", "REQUIRE X509"),
    ("app", "REQUIRE SUBJECT '/CN=app'"),
];

/// What clients begin with.
const FIRST: [Option<&str>; 6] = [
    Some("mysql_native_password"),
    Some("caching_sha2_password"),
    Some("client_ed25519"),
    Some("sha256_password"),
    Some("no_such_plugin"),
    None,
];

const DATABASES: [Option<&str>; 4] = [None, Some("app"), Some("mysql"), Some("no_such_database")];

/// Ways to name a plugin and a password in CREATE USER.
fn plugins(flavour: Flavour) -> &'static [(&'static str, &'static str)] {
    match flavour {
        Flavour::Mariadb => &[
            ("native", "IDENTIFIED VIA mysql_native_password USING PASSWORD('{}')"),
            ("plain", "IDENTIFIED BY '{}'"),
            ("ed", "IDENTIFIED VIA ed25519 USING PASSWORD('{}')"),
            (
                "either",
                "IDENTIFIED VIA ed25519 USING PASSWORD('{}') \
                 OR mysql_native_password USING PASSWORD('other')",
            ),
            (
                "second",
                "IDENTIFIED VIA mysql_native_password USING PASSWORD('other') \
                 OR ed25519 USING PASSWORD('{}')",
            ),
            ("socket", "IDENTIFIED VIA unix_socket OR mysql_native_password USING PASSWORD('{}')"),
            ("sock", "IDENTIFIED VIA unix_socket"),
        ],
        Flavour::Mysql => &[
            ("sha2", "IDENTIFIED WITH caching_sha2_password BY '{}'"),
            ("old", "IDENTIFIED WITH sha256_password BY '{}'"),
        ],
    }
}

/// Makes the accounts; the names of those that the server knows how to make.
fn accounts(server: &Server, flavour: Flavour) -> Vec<(String, &'static str)> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", server.port)).expect("a server");
    raw::login(&mut stream, ROOT, None).expect("root");
    let mut run = |sql: &str| raw::ask(&mut stream, sql);
    let mut made = Vec::new();
    let escape = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    for (plugin, identified) in plugins(flavour) {
        for (word, password) in PASSWORDS {
            for (state, option) in STATES {
                if state != "open" && word != "usual" {
                    continue;
                }
                let name = format!("{plugin}_{word}_{state}");
                let how = identified.replace("{}", &escape(password));
                let sql = format!("CREATE USER '{name}'@'%' {how} {option}");
                match run(&sql) {
                    Ok(_) => {
                        let grant = format!("GRANT SELECT ON app.* TO '{name}'@'%'");
                        run(&grant).expect("a grant");
                        made.push((name, password));
                    }
                    Err((code, _, text)) => eprintln!("{flavour:?} has no {plugin}: {code} {text}"),
                }
            }
        }
    }
    for sql in [
        "CREATE USER 'elsewhere'@'10.1.2.3' IDENTIFIED BY 'Secret-1'",
        "CREATE USER 'twice'@'10.%' IDENTIFIED BY 'Secret-1'",
        "CREATE USER 'twice'@'%' IDENTIFIED BY 'Secret-2'",
        "CREATE ROLE reader",
        "GRANT SELECT ON app.* TO reader",
        "CREATE USER 'roled'@'%' IDENTIFIED BY 'Secret-1'",
        "GRANT reader TO 'roled'@'%'",
        match flavour {
            Flavour::Mariadb => "SET DEFAULT ROLE reader FOR 'roled'@'%'",
            Flavour::Mysql => "SET DEFAULT ROLE reader TO 'roled'@'%'",
        },
    ] {
        run(sql).unwrap_or_else(|refused| panic!("{sql}: {refused:?}"));
    }
    let others = ["elsewhere", "twice", "roled", "nobody", ""];
    made.extend(others.map(|name| (name.to_owned(), "Secret-1")));
    made.push(("twice".to_owned(), "Secret-2"));
    made
}

fn passwords(right: &str) -> Vec<Vec<u8>> {
    let swapped: String = right
        .chars()
        .map(|letter| match letter.is_lowercase() {
            true => letter.to_ascii_uppercase(),
            false => letter.to_ascii_lowercase(),
        })
        .collect();
    let mut all = vec![
        right.as_bytes().to_vec(),
        b"wrong".to_vec(),
        Vec::new(),
        swapped.into_bytes(),
        vec![b'x'; 220],
        format!("{right} ").into_bytes(),
    ];
    all.dedup();
    all
}

fn is_several(user: &str) -> bool {
    ["either_", "second_", "socket_"].iter().any(|prefix| user.starts_with(prefix))
}

/// Whether the account demands something of the connection.
fn is_demanding(user: &str) -> bool {
    ["_ssl", "_x509", "_app"].iter().any(|end| user.ends_with(end))
}

fn is_stranger(user: &str) -> bool {
    ["nobody", "elsewhere", ""].contains(&user)
}

/// The matrix: every account with every plugin and way, and further dimensions one at a time.
/// Accounts that demand something of the connection come in all three ways.
fn cases(accounts: &[(String, &'static str)]) -> Vec<Attempt> {
    let mut cases = Vec::new();
    for (user, right) in accounts {
        let base = Attempt {
            user: user.clone(),
            password: right.as_bytes().to_vec(),
            first: FIRST[0],
            database: None,
            copes_with_expiry: false,
            from: None,
            way: Way::Clear,
        };
        for from in [None, Some(APP)] {
            for first in FIRST {
                // MariaDB asks strangers for the plugin of an account that it picks at random,
                // and asks a client without plugins for the second one of several all the same.
                if first.is_none() && (is_stranger(user) || is_several(user)) {
                    continue;
                }
                let password = right.as_bytes().to_vec();
                cases.push(Attempt { first, from, password, ..base.clone() });
                if user.ends_with("usual_open") {
                    let password = b"wrong".to_vec();
                    cases.push(Attempt { first, from, password, ..base.clone() });
                }
            }
            // Further dimensions of a change of user would only take time.
            if from.is_some() && is_demanding(user) {
                continue;
            }
            for password in passwords(right).into_iter().skip(1) {
                if password.is_empty() && is_stranger(user) {
                    continue;
                }
                cases.push(Attempt { from, password, ..base.clone() });
            }
            for database in DATABASES.into_iter().skip(1) {
                cases.push(Attempt { from, database, ..base.clone() });
            }
            cases.push(Attempt { from, copes_with_expiry: true, ..base.clone() });
        }
    }
    let in_tls: Vec<Attempt> = cases.iter().flat_map(in_tls).collect();
    cases.extend(in_tls);
    cases
}

/// The same attempt in TLS; a change of user only where TLS counts, since MariaDB takes a second
/// for each that fails.
fn in_tls(case: &Attempt) -> Vec<Attempt> {
    let ways: &[Way] = match is_demanding(&case.user) {
        true if case.user.ends_with("_ssl") => &[Way::Tls],
        true => &[Way::Tls, Way::Certificate],
        false if case.from.is_some() => &[],
        false => &[Way::Tls],
    };
    ways.iter().map(|way| Attempt { way: *way, ..case.clone() }).collect()
}

/// Carries out every case on both ports. Many at a time: MariaDB answers a change of user that
/// fails after a second.
fn compare<'a>(
    cases: &'a [Attempt],
    direct: u16,
    proxied: u16,
    configs: &Configs,
) -> Vec<(&'a Attempt, Outcome, Outcome)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let [direct, proxied] =
                [direct, proxied].map(|port| comparable(attempt_by(port, case, Some(configs))));
            found.push((case, direct, proxied));
        }
        found
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..24).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("its cases")).collect()
    })
}

fn comparable(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Refused(refusal, after) => Outcome::Refused(super::without_host(refusal), after),
        other => other,
    }
}

#[tokio::test]
async fn the_proxy_decides_as_mariadb_does() {
    decides_as(Flavour::Mariadb).await;
}

#[tokio::test]
async fn the_proxy_decides_as_mysql_does() {
    decides_as(Flavour::Mysql).await;
}

async fn decides_as(flavour: Flavour) {
    if !servers::present(flavour) {
        return;
    }
    let files = tempfile::tempdir().expect("a folder");
    let [server, app] = ["server", "app"].map(|name| files.path().join(name));
    let authority = Authority::new("right");
    for (dir, name) in [(&server, "127.0.0.1"), (&app, "app")] {
        std::fs::create_dir(dir).expect("a folder");
        authority.write(dir, Names::Host(name));
    }
    std::fs::write(server.join("ca.pem"), &authority.pem).expect("a file");
    let cluster = tls_servers::primary_with(&server, flavour, options(flavour)).await;
    let primary = cluster.primary().expect("a primary");
    let accounts = accounts(primary, flavour);
    let group = tls_servers::certificates(&server, &app);
    let proxy = Proxy::start(&cluster, &group).await;
    let configs =
        Configs { tls: trusting(&authority.pem), certificate: presenting(&authority.pem, &app) };
    let cases = cases(&accounts);
    let found = compare(&cases, primary.port, proxy.port, &configs);
    let admitted = found.iter().filter(|(_, direct, _)| direct.is_in()).count();
    let differ: Vec<_> = found
        .iter()
        .filter(|(_, direct, proxied)| direct != proxied)
        .map(|(case, direct, proxied)| {
            format!("{case:?}\n   direct: {direct:?}\n  proxied: {proxied:?}")
        })
        .collect();
    eprintln!("{flavour:?}: {} cases, {admitted} let in by the server", cases.len());
    assert!(cases.len() >= 400 && admitted >= 100, "{} {admitted}", cases.len());
    assert!(
        differ.is_empty(),
        "{flavour:?}: {} of {} cases differ:\n{}",
        differ.len(),
        cases.len(),
        differ.join("\n")
    );
    // Links in TLS and with a certificate are not the client's: what it lacks it still lacks.
    drop(proxy);
    let proxy = Proxy::start(&cluster, &format!("{group}\nserver_tls = \"skip-verify\"")).await;
    let is_asked = |case: &&Attempt| {
        is_demanding(&case.user) && case.from.is_none() && case.database.is_none()
    };
    let cases: Vec<Attempt> = cases.iter().filter(is_asked).cloned().collect();
    for (case, direct, proxied) in compare(&cases, primary.port, proxy.port, &configs) {
        assert_eq!(proxied.is_in(), direct.is_in(), "{case:?}\n{direct:?}\n{proxied:?}");
    }
}

fn options(flavour: Flavour) -> &'static [&'static str] {
    match flavour {
        Flavour::Mariadb => &["--plugin-load-add=auth_ed25519"],
        Flavour::Mysql => &[],
    }
}
