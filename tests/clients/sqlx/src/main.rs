//! sqlx through the proxy: text and prepared statements, a transaction, LOAD DATA is not its
//! trade (it refuses LOCAL INFILE), 17 MiB, reads.
//!
//! usage: sqlx-client PORT
//!
//! Where a server wants caching_sha2_password without TLS, sqlx asks for its RSA key by itself.

use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{ConnectOptions, Connection, Executor, Row};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), sqlx::Error> {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("a port");
    let options = MySqlConnectOptions::new()
        .host("127.0.0.1")
        .port(port)
        .username("app")
        .password("app")
        .database("app")
        .ssl_mode(MySqlSslMode::Disabled);
    let mut c = options.connect().await?;

    c.execute("DROP TABLE IF EXISTS c_sqlx").await?;
    c.execute(
        "CREATE TABLE c_sqlx (id INT AUTO_INCREMENT PRIMARY KEY, t VARCHAR(80), b LONGBLOB) \
         DEFAULT CHARSET utf8mb4",
    )
    .await?;
    let done = sqlx::query("INSERT INTO c_sqlx (t) VALUES (?), (?)")
        .bind("grün 🐬")
        .bind(None::<String>)
        .execute(&mut c)
        .await?;
    assert_eq!((done.rows_affected(), done.last_insert_id()), (2, 1));
    let rows = c.fetch_all("SELECT id, t FROM c_sqlx ORDER BY id").await?;
    let rows: Vec<(i32, Option<String>)> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(rows, [(1, Some("grün 🐬".to_owned())), (2, None)]);
    let twice = sqlx::query("INSERT INTO c_sqlx (id) VALUES (1)").execute(&mut c).await;
    let twice = twice.expect_err("a doubled key");
    assert_eq!(twice.as_database_error().and_then(|e| e.code()).as_deref(), Some("23000"));

    let mut transaction = c.begin().await?;
    sqlx::query("DELETE FROM c_sqlx").execute(&mut *transaction).await?;
    let count: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM c_sqlx").fetch_one(&mut *transaction).await?;
    assert_eq!(count, 0);
    transaction.rollback().await?;
    let mut transaction = c.begin().await?;
    sqlx::query("INSERT INTO c_sqlx (id, t) VALUES (?, 'kept')")
        .bind(20)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;

    let mut large = vec![0x5a_u8; 17 << 20];
    large.push(0xa5);
    sqlx::query("INSERT INTO c_sqlx (id, b) VALUES (5000, ?)").bind(&large).execute(&mut c).await?;
    let found: Vec<u8> =
        sqlx::query_scalar("SELECT b FROM c_sqlx WHERE id = 5000").fetch_one(&mut c).await?;
    assert!(found == large, "17 MiB came back as {} bytes", found.len());

    for number in 0..20_i64 {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) + ? AS read_sqlx FROM c_sqlx")
            .bind(number)
            .fetch_one(&mut c)
            .await?;
        assert_eq!(count, 4 + number);
    }
    c.ping().await?;
    c.execute("DROP TABLE c_sqlx").await?;
    c.close().await?;
    println!("done");
    Ok(())
}
