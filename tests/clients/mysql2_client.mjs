// mysql2 through the proxy: query and execute, a transaction, LOAD DATA LOCAL, 17 MiB, reads.
//
// usage: node mysql2_client.mjs PORT FILE (NODE_PATH names the folder with mysql2)
//
// Where a server wants caching_sha2_password without TLS, mysql2 asks for its RSA key by itself.

import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { createRequire } from 'node:module';

const mysql = createRequire(`${process.env.NODE_PATH}/`)('mysql2/promise');
const [port, loadFile] = [Number(process.argv[2]), process.argv[3]];
const large = Buffer.alloc(17 << 20, 0x5a);
large[large.length - 1] = 0xa5;

const connect = () => mysql.createConnection({
  host: '127.0.0.1', port, user: 'app', password: 'app', database: 'app', charset: 'utf8mb4',
});

const c = await connect();
await c.query('DROP TABLE IF EXISTS c_mysql2');
await c.query('CREATE TABLE c_mysql2 (id INT AUTO_INCREMENT PRIMARY KEY, t VARCHAR(80), '
  + 'b LONGBLOB) DEFAULT CHARSET utf8mb4');
const [inserted] = await c.query('INSERT INTO c_mysql2 (t) VALUES (?), (?)', ['grün 🐬', null]);
assert.deepEqual([inserted.affectedRows, inserted.insertId], [2, 1]);
const [text] = await c.query('SELECT id, t FROM c_mysql2 ORDER BY id');
assert.deepEqual(text.map((row) => [row.id, row.t]), [[1, 'grün 🐬'], [2, null]]);
await assert.rejects(c.query('INSERT INTO c_mysql2 (id) VALUES (1)'),
  { errno: 1062, sqlState: '23000' });

for (let id = 10; id < 15; id += 1) {
  const [done] = await c.execute('INSERT INTO c_mysql2 (id, t) VALUES (?, ?)', [id, `p ${id}`]);
  assert.equal(done.affectedRows, 1);
}
for (let id = 10; id < 15; id += 1) {
  const [rows] = await c.execute(
    'SELECT t AS read_prepared_mysql2 FROM c_mysql2 WHERE id = ?', [id]);
  assert.deepEqual(rows.map((row) => row.read_prepared_mysql2), [`p ${id}`]);
}

const count = async () => {
  const [[row]] = await c.query('SELECT COUNT(*) AS n FROM c_mysql2');
  return row.n;
};
await c.beginTransaction();
await c.execute('DELETE FROM c_mysql2 WHERE id >= ?', [10]);
assert.equal(await count(), 2);
await c.rollback();
assert.equal(await count(), 7);
await c.beginTransaction();
await c.query("INSERT INTO c_mysql2 (id, t) VALUES (20, 'kept')");
await c.commit();
assert.equal(await count(), 8);

const [loaded] = await c.query({
  sql: `LOAD DATA LOCAL INFILE '${loadFile}' INTO TABLE c_mysql2 `
    + "FIELDS TERMINATED BY ',' (id, t)",
  infileStreamFactory: () => createReadStream(loadFile),
});
assert.equal(loaded.affectedRows, 1000);
assert.equal(await count(), 1008);

await c.execute('INSERT INTO c_mysql2 (id, b) VALUES (?, ?)', [5000, large]);
const [[found]] = await c.execute('SELECT b FROM c_mysql2 WHERE id = 5000');
assert.ok(large.equals(found.b), `17 MiB came back as ${found.b.length} bytes`);

for (let i = 0; i < 20; i += 1) {
  const [[row]] = await c.query('SELECT COUNT(*) + ? AS read_mysql2 FROM c_mysql2', [i]);
  assert.equal(row.read_mysql2, 1009 + i);
}
// Several commands in one go, as the driver queues them.
const queued = await Promise.all([1, 2, 3].map((n) => c.query('SELECT ? AS n', [n])));
assert.deepEqual(queued.map(([[row]]) => row.n), [1, 2, 3]);
await c.changeUser({ user: 'app', password: 'app', database: 'app' });
assert.equal(await count(), 1009);
await c.ping();
await c.query('DROP TABLE c_mysql2');
await c.end();
console.log('done');
