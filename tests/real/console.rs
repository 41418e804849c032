//! A proxy's console.

use std::net::SocketAddr;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::proxy::Proxy;

/// What the console answers, as text.
pub(crate) async fn console(proxy: &Proxy, command: &str) -> String {
    console_says(proxy, command).await.unwrap_or_else(|error| panic!("{command}: {error}"))
}

/// The same, or the error with which it refuses.
pub(crate) async fn console_says(
    proxy: &Proxy,
    command: &str,
) -> Result<String, mysql_async::Error> {
    let password = std::fs::read_to_string(proxy.dir.join("admin-password")).expect("a password");
    let console = proxy.console();
    let opts = mysql_async::OptsBuilder::default()
        .user(Some("admin"))
        .pass(Some(password.trim()))
        .prefer_socket(Some(false));
    let opts = match console.parse::<SocketAddr>() {
        Ok(at) => opts.ip_or_hostname(at.ip().to_string()).tcp_port(at.port()),
        Err(_) => opts.socket(Some(console)),
    };
    let mut conn = Conn::new(opts).await.expect("the console");
    let rows: Vec<mysql_async::Row> = conn.query(command).await?;
    let values = rows.into_iter().flat_map(mysql_async::Row::unwrap);
    let texts = values.map(|value| match value {
        mysql_async::Value::Bytes(text) => String::from_utf8_lossy(&text).into_owned(),
        other => format!("{other:?}"),
    });
    Ok(texts.collect::<Vec<_>>().join("\t"))
}
