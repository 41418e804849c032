"""PyMySQL through the proxy: text statements, a transaction, LOAD DATA LOCAL, 17 MiB, reads.

usage: pymysql_client.py PORT FILE

PyMySQL has no prepared statements of the server; where a server wants caching_sha2_password
without TLS it asks for the server's RSA key by itself (package cryptography).
"""

import sys

import pymysql

port, load_file = int(sys.argv[1]), sys.argv[2]
LARGE = bytes(range(256)) * (17 << 12)


def connect(**options):
    return pymysql.connect(
        host="127.0.0.1", port=port, user="app", password="app", database="app",
        local_infile=True, max_allowed_packet=64 << 20, **options)


def rows(connection, query, arguments=None):
    with connection.cursor() as cursor:
        cursor.execute(query, arguments)
        return list(cursor.fetchall())


def run(connection, statement, arguments=None):
    with connection.cursor() as cursor:
        return cursor.execute(statement, arguments)


def equal(found, expected, what):
    assert found == expected, f"{what}: {found!r} instead of {expected!r}"


plain = connect(autocommit=True)
run(plain, "DROP TABLE IF EXISTS c_pymysql")
run(plain, "CREATE TABLE c_pymysql (id INT AUTO_INCREMENT PRIMARY KEY, t VARCHAR(80), b LONGBLOB)"
           " DEFAULT CHARSET utf8mb4")
equal(run(plain, "INSERT INTO c_pymysql (t) VALUES (%s), (%s)", ("grün 🐬", None)), 2, "inserted")
equal(plain.insert_id(), 1, "insert id")
equal(rows(plain, "SELECT id, t FROM c_pymysql ORDER BY id"), [(1, "grün 🐬"), (2, None)], "text")
try:
    run(plain, "INSERT INTO c_pymysql (id) VALUES (1)")
    raise AssertionError("a doubled key was taken")
except pymysql.err.IntegrityError as error:
    equal(error.args[0], 1062, "doubled key")

manual = connect(autocommit=False)
run(manual, "INSERT INTO c_pymysql (t) VALUES ('gone')")
equal(rows(manual, "SELECT COUNT(*) FROM c_pymysql"), [(3,)], "own write in a transaction")
manual.rollback()
equal(rows(manual, "SELECT COUNT(*) FROM c_pymysql"), [(2,)], "rolled back")
run(manual, "INSERT INTO c_pymysql (t) VALUES ('kept')")
manual.commit()
equal(rows(manual, "SELECT t FROM c_pymysql WHERE id > 2"), [("kept",)], "committed")
manual.close()

equal(run(plain, f"LOAD DATA LOCAL INFILE '{load_file}' INTO TABLE c_pymysql"
                 " FIELDS TERMINATED BY ',' (id, t)"), 1000, "loaded rows")
equal(rows(plain, "SELECT COUNT(*), SUM(id), MAX(t) FROM c_pymysql WHERE id >= 1000"),
      [(1000, sum(range(1000, 2000)), "row 1999")], "loaded")

run(plain, "INSERT INTO c_pymysql (id, b) VALUES (5000, _binary %s)", (LARGE,))
found = rows(plain, "SELECT b FROM c_pymysql WHERE id = 5000")[0][0]
assert found == LARGE, f"17 MiB came back as {len(found)} bytes"

for number in range(20):
    equal(rows(plain, "SELECT COUNT(*) + %s AS read_pymysql FROM c_pymysql", (number,)),
          [(1004 + number,)], "read")

streamed = plain.cursor(pymysql.cursors.SSCursor)
streamed.execute("SELECT id FROM c_pymysql WHERE id BETWEEN 1000 AND 1999 ORDER BY id")
equal([row[0] for row in streamed], list(range(1000, 2000)), "unbuffered")
streamed.close()
plain.ping(reconnect=False)
run(plain, "DROP TABLE c_pymysql")
plain.close()
print("done")
