//! Asking a server for the accounts of one user.

use crate::accounts::rows::{self, AccountRow};
use crate::config::Monitor;
use crate::health::connect::{self, Connection};
use crate::health::observation::Failure;
use crate::protocol::answer::Row;
use crate::protocol::old_password::OLD;
use crate::tls::trust::Trust;
use crate::topology::{Flavour, Node};

/// MariaDB's table since 10.4; `auth_or` and locks are only there.
const GLOBAL_PRIV: &str = "SELECT SQL_NO_CACHE Host, User, Priv, \
     CAST(@@global.default_password_lifetime AS CHAR) \
     FROM mysql.global_priv WHERE User IN (_utf8mb4 X'{}', '')";
/// Whether MariaDB lets nobody in by the plugin from before 4.1.
const SECURE_AUTH: &str = "SELECT SQL_NO_CACHE @@global.secure_auth";
/// MySQL's table.
const MYSQL_USER: &str = "SELECT Host, User, plugin, authentication_string, \
     IF(account_locked = 'Y' OR password_expired = 'Y' OR max_connections > 0 \
        OR max_user_connections > 0 OR User_attributes IS NOT NULL \
        OR COALESCE(password_lifetime, @@global.default_password_lifetime) > 0, 'Y', 'N'), \
     ssl_type, CAST(ssl_cipher AS CHAR), CAST(x509_issuer AS CHAR), CAST(x509_subject AS CHAR) \
     FROM mysql.user WHERE User IN (_utf8mb4 X'{}', '')";
/// The view (or old table) of MariaDB, for those who may read only that.
const MARIADB_USER: &str = "SELECT SQL_NO_CACHE Host, User, plugin, \
     IF(authentication_string = '', Password, authentication_string), 'Y', \
     ssl_type, ssl_cipher, x509_issuer, x509_subject \
     FROM mysql.user WHERE User IN (_utf8mb4 X'{}', '') AND is_role = 'N'";

/// Errors that say "not with these privileges".
const DENIED: [u16; 4] = [1044, 1142, 1143, 1227];
/// Table does not exist.
const NO_SUCH_TABLE: u16 = 1146;

/// All accounts of `user`, the anonymous ones included.
///
/// # Errors
/// A sentence that says why they cannot be told and what to do about it.
pub(super) async fn accounts(
    node: &Node,
    user: &[u8],
    monitor: &Monitor,
    trust: &Trust,
) -> Result<Vec<AccountRow>, String> {
    // A name that is no text, or that the tables' three-byte UTF-8 cannot hold, is nobody's; it
    // costs the same question as any other.
    let held = |name: &&str| name.chars().all(|c| c <= '\u{ffff}');
    let user = std::str::from_utf8(user).ok().filter(held).unwrap_or("\u{fffd}");
    let flavour = node.facts.as_ref().map_or(Flavour::MariaDb, |facts| facts.flavour);
    let unreachable = |why: &Failure| {
        format!("{} cannot be asked about accounts as {}: {why}", node.name, monitor.user)
    };
    let opened = connect::open(&node.address, monitor, trust).await;
    let mut conn = opened.map_err(|failure| unreachable(&failure))?;
    let is = |failure: &Failure, errors: &[u16]| {
        failure.errno.is_some_and(|errno| errors.contains(&errno))
    };
    let rows = match flavour {
        Flavour::MySql => of_user(&mut conn, MYSQL_USER, user).await,
        Flavour::MariaDb => match of_global_priv(&mut conn, user).await {
            Err(failure) if is(&failure, &DENIED) || is(&failure, &[NO_SUCH_TABLE]) => {
                of_user(&mut conn, MARIADB_USER, user).await
            }
            answer => answer,
        },
    };
    rows.map_err(|failure| match is(&failure, &DENIED) {
        true => denied(node, flavour, monitor),
        false => unreachable(&failure),
    })
}

fn denied(node: &Node, flavour: Flavour, monitor: &Monitor) -> String {
    let table = match flavour {
        Flavour::MariaDb => "mysql.global_priv",
        Flavour::MySql => "mysql.user",
    };
    format!(
        "the monitor account {user} may not read accounts on {name}: \
         GRANT SELECT ON {table} to it, or state the users in [[users]]",
        user = monitor.user,
        name = node.name
    )
}

async fn of_global_priv(conn: &mut Connection, user: &str) -> Result<Vec<AccountRow>, Failure> {
    let found = conn.ask(&about(GLOBAL_PRIV, user)).await?;
    let row = |row: Row<'_>| {
        let privileges = text(&row, 2);
        let lifetime = text(&row, 3).parse().unwrap_or(0);
        rows::of_mariadb(&text(&row, 0), bytes(&row, 1), &privileges, lifetime)
    };
    let mut rows: Vec<AccountRow> = found.rows().filter_map(row).collect();
    if rows.iter().any(|row| row.facts.plugin.as_bytes() == OLD) {
        // Servers are to lose the variable, and with it what it forbids.
        let asked = conn.ask(SECURE_AUTH).await.ok();
        let barred = asked
            .is_some_and(|asked| asked.rows().next().is_some_and(|row| bytes(&row, 0) == b"1"));
        for row in rows.iter_mut().filter(|row| row.facts.plugin.as_bytes() == OLD) {
            row.facts.barred = barred;
        }
    }
    Ok(rows)
}

async fn of_user(
    conn: &mut Connection,
    question: &str,
    user: &str,
) -> Result<Vec<AccountRow>, Failure> {
    let found = conn.ask(&about(question, user)).await?;
    let row = |row: Row<'_>| {
        let judged = bytes(&row, 4) == b"Y";
        let authentication = bytes(&row, 3).to_vec();
        let mut found =
            rows::row(&text(&row, 0), bytes(&row, 1), text(&row, 2), authentication, judged);
        let specified = [6, 7, 8].map(|at| text(&row, at));
        found.facts.requires = rows::requirement(&text(&row, 5), specified);
        found
    };
    Ok(found.rows().map(row).collect())
}

/// A question about one user, whose name is a client's: it stands there in digits, which end no
/// literal.
fn about(question: &str, user: &str) -> String {
    let digits: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
    question.replace("{}", &digits)
}

fn bytes<'a>(row: &Row<'a>, at: usize) -> &'a [u8] {
    row.bytes(at).unwrap_or_default()
}

fn text(row: &Row<'_>, at: usize) -> String {
    row.text(at).unwrap_or_default()
}
