//! Real clients: the command line client of each family, and `mysql_async`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use mysql_async::Conn;
use pointsman::provider::programs::{Install, Programs};
use pointsman::provider::server::{opts, opts_at};

/// What a command line client said.
#[derive(Debug)]
pub(crate) struct Said {
    /// Standard output: rows, tab-separated.
    pub(crate) out: String,
    /// Standard error: `ERROR 1064 (42000) at line 1: ...`.
    pub(crate) error: String,
    /// Whether it ended with 0.
    pub(crate) ok: bool,
}

/// Runs `sql` in the family's own command line client, by TCP, without TLS.
pub(crate) fn command_line(
    programs: &Programs,
    port: u16,
    account: (&str, &str),
    arguments: &[&str],
    sql: &str,
) -> Said {
    let (program, before) = programs.client.split_first().expect("a client");
    let mariadb = !matches!(programs.install, Install::Server);
    let tls: &[&str] =
        if mariadb { &["--skip-ssl"] } else { &["--ssl-mode=DISABLED", "--get-server-public-key"] };
    let mut child = Command::new(program)
        .args(before)
        .args(["--no-defaults", "--batch", "--protocol=tcp", "--host=127.0.0.1"])
        .args(tls)
        .arg(format!("--port={port}"))
        .arg(format!("--user={}", account.0))
        .args(arguments)
        .env("MYSQL_PWD", account.1)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command line client starts");
    let mut input = child.stdin.take().expect("its input");
    let sql = sql.to_owned();
    // It may refuse to read on; what it said then is what counts.
    let writer = std::thread::spawn(move || {
        let _ = input.write_all(sql.as_bytes());
    });
    let output = child.wait_with_output().expect("the command line client ends");
    writer.join().expect("its input was written");
    Said {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
        ok: output.status.success(),
    }
}

/// A connection of `mysql_async` as `account`, to the application's database.
pub(crate) async fn connect(port: u16, account: (&str, &str)) -> Conn {
    match Conn::new(opts(port, account)).await {
        Ok(conn) => conn,
        Err(error) => panic!("{} cannot log in at port {port}: {error}", account.0),
    }
}

/// As [`connect`], anywhere and to no database: the monitor may not see the application's.
pub(crate) async fn connect_bare(at: SocketAddr, account: (&str, &str)) -> Conn {
    let bare = mysql_async::OptsBuilder::from_opts(opts_at(at, account)).db_name(None::<&str>);
    match Conn::new(bare).await {
        Ok(conn) => conn,
        Err(error) => panic!("{} cannot log in at {at}: {error}", account.0),
    }
}

/// The server's error number, if it was the server that refused.
pub(crate) fn errno(error: &mysql_async::Error) -> Option<u16> {
    match error {
        mysql_async::Error::Server(refusal) => Some(refusal.code),
        mysql_async::Error::Driver(_)
        | mysql_async::Error::Io(_)
        | mysql_async::Error::Other(_)
        | mysql_async::Error::Url(_) => None,
    }
}
