//! Wrong passwords let nobody in, and no password is ever shown.

use std::sync::atomic::{AtomicUsize, Ordering};

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use pointsman::protocol::auth;
use pointsman::provider::Flavour;
use pointsman::provider::replication::{APP, MONITOR};

use super::attempt::{Attempt, Configs, Outcome, Way, attempt, attempt_by};
use crate::console::{console, console_says};
use crate::proxy::{Proxy, configuration};
use crate::tls::{GENERATED, trusting};
use crate::{clients, servers};

const PASSWORD: &str = "Hush-4711-quiet";
const WRONG: &str = "Loud-0815-wrong";
const CHANGED: &str = "Anew-2304-still";
const WATCHING: &str = "Seen-1618-watch";

fn attempt_of(user: &str, password: &str) -> Attempt {
    Attempt {
        user: user.to_owned(),
        password: password.as_bytes().to_vec(),
        first: Some("mysql_native_password"),
        database: None,
        copes_with_expiry: false,
        from: None,
        way: Way::Clear,
    }
}

/// The `number`-th password that is not the right one, most of them nearly.
fn wrong(number: usize) -> Vec<u8> {
    let mut bytes = PASSWORD.as_bytes().to_vec();
    let at = number % bytes.len();
    match number / bytes.len() % 6 {
        0 => bytes[at] ^= 1 << (number / 97 % 7),
        1 => bytes.truncate(at),
        2 => bytes.insert(at, b'x'),
        3 => bytes.rotate_left(at.max(1)),
        4 => bytes = format!("{number}").into_bytes(),
        // Short enough for the block of an RSA key.
        _ => bytes = bytes.repeat(2 + at % 8),
    }
    bytes
}

/// Accounts to be guessed at, and how they are made.
fn guessed(flavour: Flavour) -> [(&'static str, &'static str); 2] {
    match flavour {
        Flavour::Mariadb => [
            ("native", "IDENTIFIED VIA mysql_native_password USING PASSWORD('{}')"),
            ("curved", "IDENTIFIED VIA ed25519 USING PASSWORD('{}')"),
        ],
        Flavour::Mysql => [
            ("cached", "IDENTIFIED WITH caching_sha2_password BY '{}'"),
            ("plain", "IDENTIFIED WITH sha256_password BY '{}'"),
        ],
    }
}

/// The `number`-th guess: a tenth for somebody who does not exist, a seventh in TLS (where clients
/// send some passwords as they are), a few by a change of user.
fn guess(number: usize, accounts: [(&'static str, &'static str); 2]) -> Attempt {
    let user = match number % 10 {
        0 => "nobody",
        1..=3 => accounts[1].0,
        _ => accounts[0].0,
    };
    let first = match number % 41 {
        0 => None,
        odd if odd % 2 == 1 => Some("mysql_native_password"),
        _ => Some("caching_sha2_password"),
    };
    let from = (number % 500 == 7).then_some(APP);
    let way = if number.is_multiple_of(7) { Way::Tls } else { Way::Clear };
    Attempt { first, from, way, password: wrong(number), ..attempt_of(user, "") }
}

/// Whether nobody was let in, and whether it was for the password: a client without plugins is
/// refused for that, and one that does not exist is asked for any plugin.
fn refused(case: &Attempt, outcome: &Outcome) -> Option<bool> {
    match outcome {
        // After a change of user that failed, MariaDB's session goes on as who it was.
        Outcome::Refused((1045, ..), Some(who)) if who.starts_with(&case.user) => None,
        Outcome::Refused((1045, ..), _) => Some(true),
        Outcome::Refused((1251, ..), None) if case.first.is_none() => Some(false),
        Outcome::Lost(_) if case.user == "nobody" => Some(false),
        Outcome::Refused(..) | Outcome::In(_) | Outcome::Closed | Outcome::Lost(_) => None,
    }
}

/// `POINTSMAN_WRONG_LOGINS` says how many; 1,500 for each family without it.
#[tokio::test]
async fn wrong_passwords_let_nobody_in() {
    let wanted = std::env::var_os("POINTSMAN_WRONG_LOGINS");
    let wanted = wanted.map_or(1500, |count| {
        count.to_str().and_then(|count| count.parse().ok()).expect("a number")
    });
    for flavour in servers::flavours() {
        let plugins: &[&str] = match flavour {
            Flavour::Mariadb => &["--plugin-load-add=auth_ed25519"],
            Flavour::Mysql => &[],
        };
        let cluster = servers::own_with(flavour, 0, plugins).await;
        let accounts = guessed(flavour);
        let made = accounts
            .map(|(user, how)| format!("CREATE USER '{user}'@'%' {}", how.replace("{}", PASSWORD)));
        cluster.primary().expect("a primary").run(&made).await.expect("accounts");
        let proxy = Proxy::start(&cluster, "").await;
        let pem = std::fs::read_to_string(proxy.dir.join(GENERATED)).expect("its certificate");
        let configs = Configs { tls: trusting(&pem), certificate: trusting(&pem) };
        let knows_the_right_one = |when: &str| {
            for (user, _) in accounts {
                let outcome = attempt(proxy.port, &attempt_of(user, PASSWORD));
                assert!(outcome.is_in(), "{flavour:?} {user}, {when}: {outcome:?}");
            }
        };
        knows_the_right_one("before");
        let [next, judged] = [(); 2].map(|()| AtomicUsize::new(0));
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= wanted {
                    break;
                }
                let case = guess(number, accounts);
                let outcome = attempt_by(proxy.port, &case, Some(&configs));
                let refused = refused(&case, &outcome);
                assert!(refused.is_some(), "{flavour:?} {case:?}: {outcome:?}");
                judged.fetch_add(usize::from(refused == Some(true)), Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(work))));
        let judged = judged.into_inner();
        eprintln!(
            "{flavour:?}: {wanted} wrong logins, {judged} refused for the password, 0 accepted"
        );
        assert!(judged * 10 >= wanted * 8, "{judged} of {wanted} were about the password");
        knows_the_right_one("afterwards");
    }
}

/// A password in the forms in which it would stand in a log: as text, as a list of bytes, in
/// hexadecimal; and so its SHA-1, which logs in to accounts with mysql_native_password.
fn forms(secret: &str) -> Vec<String> {
    let hashed = auth::stage1(secret.as_bytes());
    let mut forms = vec![secret.to_owned()];
    for bytes in [secret.as_bytes(), &hashed[..]] {
        let list = format!("{bytes:?}");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        forms.extend([list.trim_matches(['[', ']']).to_owned(), hex]);
    }
    forms
}

/// What of `secrets` stands where it should not.
fn leaks(shown: &[(&str, String)], secrets: &[&str]) -> Vec<String> {
    let mut leaks = Vec::new();
    for (place, text) in shown {
        let lower = text.to_ascii_lowercase();
        for form in secrets.iter().flat_map(|secret| forms(secret)) {
            if let Some(at) = lower.find(&form.to_ascii_lowercase()) {
                let begin = text[..at].rfind('\n').map_or(0, |at| at + 1);
                leaks.push(format!("{form} in {place}: {}", &text[begin..at]));
            }
        }
    }
    leaks
}

/// What `/proc` tells of the process, and that it leaves no core behind.
fn process(proxy: &Proxy) -> Vec<(&'static str, String)> {
    let read = |file| {
        let bytes = std::fs::read(format!("/proc/{}/{file}", proxy.pid())).expect("its process");
        (file, String::from_utf8_lossy(&bytes).into_owned())
    };
    let shown: Vec<_> = ["cmdline", "environ", "comm", "status", "limits", "maps"].map(read).into();
    let limits = shown.iter().find(|(file, _)| *file == "limits").map(|(_, text)| text);
    let core = limits.and_then(|text| text.lines().find(|line| line.contains("core file size")));
    let words: Vec<_> = core.into_iter().flat_map(str::split_whitespace).collect();
    assert_eq!(words.get(4..6), Some(&["0", "0"][..]), "no core: {core:?}");
    shown
}

/// Logs in and changes the user with right and wrong passwords; what clients were told.
fn log_in_everywhere(proxy: &Proxy) -> String {
    let pem = std::fs::read_to_string(proxy.dir.join(GENERATED)).expect("its certificate");
    let configs = Configs { tls: trusting(&pem), certificate: trusting(&pem) };
    let mut errors = String::new();
    for user in ["hushed", "other", "nobody"] {
        for from in [None, Some(APP)] {
            for way in [Way::Clear, Way::Tls] {
                for password in [PASSWORD, WRONG] {
                    let case = Attempt { from, way, ..attempt_of(user, password) };
                    errors += &format!("{:?}\n", attempt_by(proxy.port, &case, Some(&configs)));
                }
            }
        }
    }
    errors
}

/// Statements with passwords in them, which statistics and errors speak of.
async fn change_passwords(conn: &mut Conn) -> String {
    let mut errors = String::new();
    for sql in [
        format!("ALTER USER USER() IDENTIFIED BY '{CHANGED}'"),
        format!("ALTER USER USER() IDENTIFIED BY '{CHANGED}' no such syntax"),
        format!("SET PASSWORD FOR nobody = \"{CHANGED}\""),
        format!("SET PASSWORD /* {CHANGED} */ = N'{CHANGED}' -- {CHANGED}"),
        format!("CREATE USER nobody IDENTIFIED BY '{CHANGED}"),
    ] {
        if let Err(error) = conn.query_drop(sql).await {
            errors += &format!("{error}\n").replace(CHANGED, "what the client itself sent");
        }
    }
    errors
}

#[tokio::test]
async fn no_password_is_shown_anywhere() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 0).await;
        let primary = cluster.primary().expect("a primary");
        let with = match flavour {
            Flavour::Mariadb => "",
            Flavour::Mysql => "WITH sha256_password",
        };
        let watches = format!("ALTER USER 'monitor'@'%' IDENTIFIED BY '{WATCHING}'");
        primary.run(&[watches]).await.expect("another password");
        let plain = configuration(&[&primary.address()], "").replace(
            &format!("password = \"{}\"", MONITOR.1),
            &format!("password = \"{WATCHING}\""),
        );
        let user =
            |(user, password)| format!("[[users]]\nname = \"{user}\"\npassword = \"{password}\"\n");
        let stated = [("hushed", PASSWORD), ("other", PASSWORD), APP].map(user).concat();
        for users in [String::new(), stated] {
            let accounts = [
                "DROP USER IF EXISTS 'hushed'@'%', 'other'@'%'".to_owned(),
                format!("CREATE USER 'hushed'@'%' IDENTIFIED BY '{PASSWORD}'"),
                format!("CREATE USER 'other'@'%' IDENTIFIED {with} BY '{PASSWORD}'"),
            ];
            primary.run(&accounts).await.expect("accounts");
            let config = format!("log_filter = \"trace\"\n{plain}\n{users}");
            let leaks = leaks_of(&config).await;
            assert!(leaks.is_empty(), "{flavour:?}:\n{}", leaks.join("\n"));
        }
    }
}

/// Where a proxy with this configuration shows a password, whatever is done with it.
async fn leaks_of(config: &str) -> Vec<String> {
    let proxy = Proxy::with_config(config).await.unwrap_or_else(|why| panic!("{why}"));
    let mut errors = log_in_everywhere(&proxy);
    assert!(errors.contains("1045") && errors.contains("In(Ok("), "{errors}");
    let mut conn = clients::connect_bare(proxy.at(), ("hushed", PASSWORD)).await;
    errors += &change_passwords(&mut conn).await;
    let mut shown = Vec::new();
    for what in
        ["SERVERS", "SESSIONS", "POOLS", "STATS", "DIGESTS", "CONFIG", "TOPOLOGY", "VERSION"]
    {
        let text = console(&proxy, &format!("SHOW {what}")).await;
        assert!(!text.is_empty() || what == "POOLS", "{what}");
        shown.push((what, text));
    }
    let explained = format!("EXPLAIN ROUTE ALTER USER x IDENTIFIED BY '{CHANGED}'");
    shown.push(("EXPLAIN ROUTE", console(&proxy, &explained).await));
    for page in ["/metrics", "/readyz", "/api/topology"] {
        shown.push((page, proxy.get(page).map(|(_, body)| body).unwrap_or_default()));
    }
    shown.extend(process(&proxy));
    // Files that cannot be understood, by the password and elsewhere.
    for broken in [config.replace("password = \"", "password = \"\\q"), format!("{config}\n]")] {
        std::fs::write(proxy.dir.join("pointsman.toml"), broken).expect("a file");
        let refused = console_says(&proxy, "RELOAD").await.expect_err("a broken file");
        errors += &format!("{refused}\n");
    }
    assert!(proxy.log().contains("DEBUG"), "the log is as wordy as it can be");
    shown.extend([("errors", errors), ("log", proxy.log())]);
    let generated = std::fs::read_to_string(proxy.dir.join("admin-password"));
    let generated = generated.expect("the console's password");
    leaks(&shown, &[PASSWORD, WRONG, CHANGED, WATCHING, generated.trim()])
}
