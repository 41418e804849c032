//! Wrong passwords let nobody in, and no password is ever shown.

use std::sync::atomic::{AtomicUsize, Ordering};

use mysql_async::prelude::Queryable as _;
use pointsman::provider::Flavour;
use pointsman::provider::replication::APP;

use super::attempt::{Attempt, Outcome, Way, attempt};
use crate::faults::console;
use crate::proxy::{Proxy, configuration};
use crate::{clients, servers};

const PASSWORD: &str = "Hush-4711-quiet";
const WRONG: &str = "Loud-0815-wrong";
const CHANGED: &str = "Anew-2304-still";

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
        _ => bytes = bytes.repeat(2 + at),
    }
    bytes
}

/// `POINTSMAN_WRONG_LOGINS` says how many; 3,000 for each family without it.
#[tokio::test]
async fn wrong_passwords_let_nobody_in() {
    let wanted = std::env::var_os("POINTSMAN_WRONG_LOGINS");
    let wanted = wanted.map_or(3000, |count| {
        count.to_str().and_then(|count| count.parse().ok()).expect("a number")
    });
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let primary = cluster.primary().expect("a primary");
        let account = format!("CREATE USER 'guessed'@'%' IDENTIFIED BY '{PASSWORD}'");
        primary.run(&[account]).await.expect("an account");
        let proxy = Proxy::start(cluster, "").await;
        assert!(attempt(proxy.port, &attempt_of("guessed", PASSWORD)).is_in(), "the right one");
        let plugins = [Some("mysql_native_password"), Some("caching_sha2_password"), None];
        let next = AtomicUsize::new(0);
        let guess = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= wanted {
                    break;
                }
                let user = if number.is_multiple_of(10) { "nobody" } else { "guessed" };
                let from = (number % 500 == 7).then_some(APP);
                let first = plugins[number % plugins.len()];
                let password = wrong(number);
                let case = Attempt { first, from, password, ..attempt_of(user, "") };
                let outcome = attempt(proxy.port, &case);
                let right = matches!(&outcome, Outcome::Refused((1045 | 1251, ..), _))
                    || matches!(&outcome, Outcome::Lost(_));
                assert!(right, "{flavour:?} {case:?}: {outcome:?}");
            }
        };
        std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(guess))));
        eprintln!("{flavour:?}: {wanted} wrong logins, 0 accepted");
        assert!(attempt(proxy.port, &attempt_of("guessed", PASSWORD)).is_in(), "still right");
        primary.run(&["DROP USER 'guessed'@'%'"]).await.expect("no account");
    }
}

#[tokio::test]
async fn no_password_is_shown_anywhere() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 0).await;
        let primary = cluster.primary().expect("a primary");
        let named = match flavour {
            Flavour::Mariadb => "mysql_native_password",
            Flavour::Mysql => "sha256_password",
        };
        let accounts = [
            format!("CREATE USER 'hushed'@'%' IDENTIFIED BY '{PASSWORD}'"),
            format!("CREATE USER 'other'@'%' IDENTIFIED WITH {named} BY '{PASSWORD}'")
                .replace("WITH mysql_native_password BY", "BY"),
        ];
        primary.run(&accounts).await.expect("accounts");
        let seed = primary.address();
        let config = format!("log_filter = \"trace\"\n{}", configuration(&[&seed], ""));
        let proxy = Proxy::with_config(&config).await.unwrap_or_else(|why| panic!("{why}"));
        let mut errors = String::new();
        for user in ["hushed", "other", "nobody"] {
            for from in [None, Some(APP)] {
                for password in [PASSWORD, WRONG] {
                    let case = Attempt { from, ..attempt_of(user, password) };
                    errors += &format!("{:?}\n", attempt(proxy.port, &case));
                }
            }
        }
        assert!(errors.contains("1045") && errors.contains("In(Ok("), "{errors}");
        let mut conn = clients::connect_bare(proxy.port, ("hushed", PASSWORD)).await;
        for sql in [
            format!("ALTER USER USER() IDENTIFIED BY '{CHANGED}'"),
            format!("ALTER USER USER() IDENTIFIED BY '{CHANGED}' no such syntax"),
        ] {
            if let Err(error) = conn.query_drop(sql).await {
                errors += &format!("{error}\n").replace(CHANGED, "what the client itself sent");
            }
        }
        let mut shown = vec![("errors", errors), ("log", proxy.log())];
        for what in
            ["SERVERS", "SESSIONS", "POOLS", "STATS", "DIGESTS", "CONFIG", "TOPOLOGY", "VERSION"]
        {
            let text = console(&proxy, &format!("SHOW {what}")).await;
            assert!(!text.is_empty() || what == "POOLS", "{what}");
            shown.push((what, text));
        }
        for page in ["/metrics", "/readyz"] {
            shown.push((page, proxy.get(page).map(|(_, body)| body).unwrap_or_default()));
        }
        for file in ["cmdline", "environ"] {
            let path = format!("/proc/{}/{file}", proxy.pid());
            let bytes = std::fs::read(path).expect("its process");
            shown.push((file, String::from_utf8_lossy(&bytes).into_owned()));
        }
        for (place, text) in &shown {
            for secret in [PASSWORD, WRONG, CHANGED] {
                assert!(!text.contains(secret), "{flavour:?}: {secret} in {place}:\n{text}");
            }
        }
        assert!(proxy.log().contains("DEBUG"), "the log is as wordy as it can be");
    }
}
