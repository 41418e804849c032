"""mysql-connector-python through the proxy, with both of its implementations.

usage: connector_client.py PORT FILE pure|c

Text and prepared statements (cursor(prepared=True) prepares on the server), buffered and
unbuffered cursors, a transaction, LOAD DATA LOCAL, 17 MiB, reads.
"""

import sys

import mysql.connector

port, load_file, kind = int(sys.argv[1]), sys.argv[2], sys.argv[3]
LARGE = bytes(range(256)) * (17 << 12)
TABLE = f"c_connector_{kind}"


def connect(**options):
    return mysql.connector.connect(
        host="127.0.0.1", port=port, user="app", password="app", database="app",
        allow_local_infile=True, use_pure=kind == "pure", ssl_disabled=True,
        charset="utf8mb4", collation="utf8mb4_general_ci", **options)


def rows(connection, query, arguments=None, **options):
    cursor = connection.cursor(**options)
    cursor.execute(query, arguments or ())
    found = cursor.fetchall()
    cursor.close()
    return [tuple(row) for row in found]


def run(connection, statement, arguments=None, **options):
    cursor = connection.cursor(**options)
    cursor.execute(statement, arguments or ())
    found = cursor.rowcount, cursor.lastrowid
    cursor.close()
    return found


def equal(found, expected, what):
    assert found == expected, f"{kind}: {what}: {found!r} instead of {expected!r}"


plain = connect(autocommit=True)
run(plain, f"DROP TABLE IF EXISTS {TABLE}")
run(plain, f"CREATE TABLE {TABLE} (id INT AUTO_INCREMENT PRIMARY KEY, t VARCHAR(80), b LONGBLOB)"
           " DEFAULT CHARSET utf8mb4")
equal(run(plain, f"INSERT INTO {TABLE} (t) VALUES (%s), (%s)", ("grün 🐬", None)), (2, 1), "insert")
equal(rows(plain, f"SELECT id, t FROM {TABLE} ORDER BY id"), [(1, "grün 🐬"), (2, None)], "text")
try:
    run(plain, f"INSERT INTO {TABLE} (id) VALUES (1)")
    raise AssertionError("a doubled key was taken")
except mysql.connector.IntegrityError as error:
    equal((error.errno, error.sqlstate), (1062, "23000"), "doubled key")

insert = plain.cursor(prepared=True)
for number in range(10, 15):
    insert.execute(f"INSERT INTO {TABLE} (id, t) VALUES (%s, %s)", (number, f"prepared {number}"))
insert.close()
select = plain.cursor(prepared=True)
for number in range(10, 15):
    select.execute(f"SELECT t AS read_prepared_{kind} FROM {TABLE} WHERE id = %s", (number,))
    equal([tuple(row) for row in select.fetchall()], [(f"prepared {number}",)], "prepared")
select.close()

manual = connect(autocommit=False)
manual.start_transaction()
run(manual, f"DELETE FROM {TABLE} WHERE id >= 10")
equal(rows(manual, f"SELECT COUNT(*) FROM {TABLE}"), [(2,)], "own write in a transaction")
manual.rollback()
equal(rows(manual, f"SELECT COUNT(*) FROM {TABLE}"), [(7,)], "rolled back")
run(manual, f"INSERT INTO {TABLE} (id, t) VALUES (20, 'kept')", prepared=True)
manual.commit()
equal(rows(manual, f"SELECT t FROM {TABLE} WHERE id = 20"), [("kept",)], "committed")
manual.close()

loaded = run(plain, f"LOAD DATA LOCAL INFILE '{load_file}' INTO TABLE {TABLE}"
                    " FIELDS TERMINATED BY ',' (id, t)")
equal(loaded[0], 1000, "loaded rows")
equal(rows(plain, f"SELECT COUNT(*), MAX(t) FROM {TABLE} WHERE id >= 1000"), [(1000, "row 1999")],
      "loaded")

run(plain, f"INSERT INTO {TABLE} (id, b) VALUES (%s, %s)", (5000, LARGE), prepared=True)
found = rows(plain, f"SELECT b FROM {TABLE} WHERE id = 5000")[0][0]
assert bytes(found) == LARGE, f"17 MiB came back as {len(found)} bytes"

for number in range(20):
    buffered = number % 2 == 0
    equal(rows(plain, f"SELECT COUNT(*) + %s AS read_plain_{kind} FROM {TABLE}", (number,),
               buffered=buffered), [(1009 + number,)], "read")

rowwise = plain.cursor(prepared=True)
rowwise.execute(f"SELECT id FROM {TABLE} WHERE id BETWEEN %s AND 1999 ORDER BY id", (1000,))
found = []
while True:
    part = rowwise.fetchmany(64)
    if not part:
        break
    found.extend(row[0] for row in part)
equal(found, list(range(1000, 2000)), "row by row")
rowwise.close()

plain.cmd_reset_connection()
equal(rows(plain, f"SELECT COUNT(*) FROM {TABLE}"), [(1009,)], "after a reset")
plain.ping()
run(plain, f"DROP TABLE {TABLE}")
plain.close()
print("done")
