// What node's mysql2 says: text and prepared statements, errors, a transaction.
const mysql = require("mysql2/promise");

async function main() {
  const [port, user, password] = process.argv.slice(2);
  const connection = await mysql.createConnection({
    host: "127.0.0.1", port: Number(port), user, password, multipleStatements: true,
  });
  const run = (text) => connection.query(text).catch((error) => console.log(error.message));
  await run("DROP DATABASE IF EXISTS transcripts");
  await run("CREATE DATABASE transcripts");
  await run("USE transcripts");
  await run("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(30), at DATETIME)");
  const insert = "INSERT INTO t (name, at) VALUES (?, ?)";
  await connection.execute(insert, ["a", new Date(0)]);
  await connection.execute(insert, [null, null]);
  await connection.execute("SELECT * FROM t WHERE id > ?", [0]);
  await connection.execute("SELECT * FROM t WHERE id > ?", [1]);
  await connection.execute("DO 1");
  await connection.execute("SELECT nosuch").catch((error) => console.log(error.message));
  connection.unprepare("SELECT * FROM t WHERE id > ?");
  await connection.beginTransaction();
  await run("SELECT 1; SELECT name FROM t");
  await connection.rollback();
  await connection.ping();
  await run("DROP DATABASE transcripts");
  await connection.end();
}

main();
