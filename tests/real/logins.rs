//! Logins: who may not get in hears what the server itself would have said, and accounts that
//! change behind the proxy's back count as they are now.

use std::net::TcpStream;
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{ChangeUserOpts, Conn};
use pointsman::provider::Flavour;
use pointsman::provider::replication::APP;

use self::attempt::{Attempt, Way};
use crate::proxy::Proxy;
use crate::{clients, raw, servers, wait};

mod attempt;
mod matrix;
mod secrets;

fn login(
    port: u16,
    account: (&str, &str),
    database: Option<&str>,
) -> Result<TcpStream, raw::Refusal> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a bound");
    raw::login(&mut stream, account, database).map(|()| stream)
}

/// The same words whatever the host is called.
fn without_host((code, state, text): raw::Refusal) -> raw::Refusal {
    (code, state, text.replace("'localhost'", "'H'").replace("'127.0.0.1'", "'H'"))
}

#[tokio::test]
async fn refusals_are_the_server_s_own() {
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let primary = cluster.primary().expect("a primary");
        let accounts = [
            "CREATE USER 'locked'@'%' IDENTIFIED BY 'pw' ACCOUNT LOCK",
            "CREATE USER 'blank'@'%'",
            "CREATE USER 'narrow'@'%' IDENTIFIED BY 'pw'",
            "CREATE USER 'far'@'10.1.2.3' IDENTIFIED BY 'pw'",
        ];
        primary.run(&accounts).await.expect("accounts");
        let proxy = Proxy::start(cluster, "").await;
        for (account, database) in [
            ((APP.0, "wrong"), None),
            ((APP.0, ""), None),
            (("nobody", "pw"), None),
            (("nobody", ""), None),
            (("locked", "pw"), None),
            (("locked", "wrong"), None),
            (("blank", "pw"), None),
            (("narrow", "pw"), Some("app")),
            (("far", "pw"), None),
            (APP, Some("no_such_database")),
        ] {
            let [direct, proxied] = [primary.port, proxy.port].map(|port| {
                let refused = login(port, account, database).expect_err("refused");
                without_host(refused)
            });
            assert_eq!(proxied, direct, "{flavour:?} {account:?} {database:?}");
        }
        login(proxy.port, ("blank", ""), None).expect("no password is right where there is none");
        let gone = ["DROP USER 'locked'@'%', 'blank'@'%', 'narrow'@'%', 'far'@'10.1.2.3'"];
        primary.run(&gone).await.expect("no accounts");
    }
}

#[tokio::test]
async fn a_change_of_user_changes_it_everywhere() {
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let primary = cluster.primary().expect("a primary");
        let accounts = [
            "CREATE USER 'second'@'%' IDENTIFIED BY 'second'",
            "GRANT SELECT, CREATE TEMPORARY TABLES ON app.* TO 'second'@'%'",
        ];
        primary.run(&accounts).await.expect("an account");
        cluster.wait_caught_up().await.expect("replicas apply");
        let proxy = Proxy::start(cluster, "").await;
        let mut conn = clients::connect(proxy.port, APP).await;
        conn.query_drop("CREATE TEMPORARY TABLE mine (a INT)").await.expect("a pin");
        conn.query_drop("SET @mine = 1").await.expect("a variable");
        for (user, password) in [("second", "second"), APP] {
            let to = ChangeUserOpts::new()
                .with_user(Some(user.to_owned()))
                .with_pass(Some(password.to_owned()))
                .with_db_name(Some("app".to_owned()));
            conn.change_user(to).await.expect("a change of user");
            for sql in [
                "SELECT SUBSTRING_INDEX(USER(), '@', 1), DATABASE(), @mine",
                "SELECT SUBSTRING_INDEX(USER(), '@', 1), DATABASE(), @mine FOR UPDATE",
            ] {
                let who: Option<(String, String, Option<i64>)> =
                    conn.query_first(sql).await.expect(sql);
                let expected = (user.to_owned(), "app".to_owned(), None);
                assert_eq!(who, Some(expected), "{flavour:?} {sql}");
            }
            let temporary = conn.query_drop("SELECT * FROM mine").await.expect_err("it is gone");
            assert!(matches!(clients::errno(&temporary), Some(1146 | 1142)), "{temporary}");
        }
        let wrong = ChangeUserOpts::new()
            .with_user(Some("second".to_owned()))
            .with_pass(Some("wrong".to_owned()));
        let refused = conn.change_user(wrong).await.expect_err("a wrong password");
        assert_eq!(clients::errno(&refused), Some(1045), "{flavour:?}: {refused}");
        primary.run(&["DROP USER 'second'@'%'"]).await.expect("no account");
    }
}

#[tokio::test]
async fn a_changed_password_counts_at_once_and_harms_no_session() {
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        let primary = cluster.primary().expect("a primary");
        let account = [
            "CREATE USER 'moving'@'%' IDENTIFIED BY 'before'",
            "GRANT SELECT ON app.* TO 'moving'@'%'",
        ];
        primary.run(&account).await.expect("an account");
        cluster.wait_caught_up().await.expect("replicas apply");
        let proxy = Proxy::start(cluster, "").await;
        let mut conn: Conn = clients::connect(proxy.port, ("moving", "before")).await;
        conn.query_drop("SELECT 1").await.expect("a read");
        conn.query_drop("SELECT 1 FOR UPDATE").await.expect("the primary");
        primary.run(&["ALTER USER 'moving'@'%' IDENTIFIED BY 'after'"]).await.expect("a change");
        wait::until("the new password to be right", || async {
            login(proxy.port, ("moving", "after"), Some("app")).ok().map(drop)
        })
        .await;
        let refused = login(proxy.port, ("moving", "before"), Some("app")).expect_err("the old");
        assert_eq!((refused.0, refused.1.as_str()), (1045, "28000"), "{flavour:?}");
        let one: Option<u8> = conn.query_first("SELECT 1").await.expect("the session goes on");
        assert_eq!(one, Some(1));
        conn.query_drop("SELECT 1 FOR UPDATE").await.expect("the session goes on");
        primary.run(&["DROP USER 'moving'@'%'"]).await.expect("no account");
    }
}

#[tokio::test]
async fn accounts_from_before_4_1_log_in_where_their_server_lets_them() {
    for flavour in servers::flavours().into_iter().filter(|at| *at == Flavour::Mariadb) {
        let cluster = servers::shared(flavour);
        let primary = cluster.primary().expect("a primary");
        let users = ["before41", "before41too"];
        for user in users {
            let account = [
                format!("CREATE USER '{user}'@'%' IDENTIFIED BY PASSWORD '09301740536db389'"),
                format!("GRANT SELECT ON app.* TO '{user}'@'%'"),
            ];
            primary.run(&account).await.expect("an account");
        }
        cluster.wait_caught_up().await.expect("replicas apply");
        let proxy = Proxy::start(cluster, "").await;
        let firsts = ["mysql_native_password", "mysql_old_password", "caching_sha2_password"];
        let settings = ["SET GLOBAL secure_auth = 0", "SET GLOBAL secure_auth = DEFAULT"];
        for (setting, user) in settings.into_iter().zip(users) {
            primary.run(&[setting]).await.expect(setting);
            let mut entered = 0;
            for first in firsts.into_iter().map(Some).chain([None]) {
                for password in [b"oldpw".as_slice(), b"wrong", b""] {
                    for from in [None, Some(APP)] {
                        let attempt = Attempt {
                            user: user.to_owned(),
                            password: password.to_vec(),
                            first,
                            database: None,
                            copes_with_expiry: false,
                            from,
                            way: Way::Clear,
                        };
                        let [direct, proxied] =
                            [primary.port, proxy.port].map(|port| attempt::attempt(port, &attempt));
                        assert_eq!(proxied, direct, "{setting}: {attempt:?}");
                        entered += u32::from(proxied.is_in());
                    }
                }
            }
            assert_eq!(entered > 0, setting.ends_with('0'), "{setting}: {entered}");
        }
        primary.run(&["DROP USER 'before41'@'%', 'before41too'@'%'"]).await.expect("no account");
    }
}

#[tokio::test]
async fn an_account_whose_stored_password_is_no_hash_is_judged_by_the_primary() {
    for flavour in servers::flavours().into_iter().filter(|at| *at == Flavour::Mariadb) {
        let cluster = servers::shared(flavour);
        let primary = cluster.primary().expect("a primary");
        let broken = "UPDATE mysql.global_priv SET priv = JSON_SET(priv, \
                      '$.authentication_string', 'broken') WHERE user = 'rewritten'";
        let account = "CREATE USER 'rewritten'@'%' IDENTIFIED BY 'pw'";
        // The server goes by what it has in memory until it reads its tables again.
        primary.run(&[account, broken]).await.expect("an account");
        let proxy = Proxy::start(cluster, "").await;
        login(proxy.port, ("rewritten", "pw"), None).expect("the server has not read that yet");
        let refused = login(proxy.port, ("rewritten", "wrong"), None).expect_err("refused");
        assert_eq!((refused.0, refused.1.as_str()), (1045, "28000"));
        primary.run(&["FLUSH PRIVILEGES"]).await.expect("the server reads its tables");
        let [direct, proxied] = [primary.port, proxy.port]
            .map(|port| without_host(login(port, ("rewritten", "pw"), None).expect_err("refused")));
        assert_eq!(proxied, direct);
        primary.run(&["DROP USER 'rewritten'@'%'"]).await.expect("no account");
    }
}
