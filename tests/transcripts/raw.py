#!/usr/bin/env python3
"""A client that speaks raw commands, for replies that drivers rarely ask for.

    raw.py PORT USER old|new|mariadb

The user has the empty password. `old` ends rows with EOF packets, `new` with OK packets and
with tracked changes, `mariadb` adds MariaDB's further capabilities (cached metadata, bulk).
Replies are read until the server falls silent.
"""

import socket
import struct
import sys

PORT, USER, DIALECT = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3]
# 4.1, transactions, secure, several statements and results, plugins, local files
CAPS = 1 | 1 << 7 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19
FURTHER = 0
if DIALECT != "old":
    CAPS |= 1 << 23 | 1 << 24
if DIALECT == "mariadb":
    CAPS &= ~1
    FURTHER = 0x3D

sock = socket.create_connection(("127.0.0.1", PORT))


def quiet(first=10.0, then=0.15):
    data = b""
    sock.settimeout(first)
    try:
        while chunk := sock.recv(65536):
            data += chunk
            sock.settimeout(then)
    except TimeoutError:
        pass
    return data


def send(payload, seq=0):
    sock.sendall(struct.pack("<I", len(payload))[:3] + bytes([seq]) + payload)


def ask(payload, seq=0, first=10.0):
    send(payload, seq)
    return quiet(first)


def query(text):
    return ask(b"\x03" + text.encode())


def prepare(text):
    reply = ask(b"\x16" + text.encode())
    return struct.unpack("<I", reply[5:9])[0] if reply[4] == 0 else None


def execute(ident, rest=b"", flags=0):
    return ask(struct.pack("<BIBI", 0x17, ident, flags, 1) + rest)


quiet()
plugin = b"mysql_native_password" if DIALECT != "new" else b"caching_sha2_password"
login = struct.pack("<IIB19sI", CAPS, 1 << 24, 45, b"", FURTHER) + USER + b"\0\0" + plugin + b"\0"
reply = ask(login, 1)
if reply[4] == 0xFE:
    reply = ask(b"", 3)
assert reply[4] == 0, reply

query("DROP DATABASE IF EXISTS transcripts")
query("CREATE DATABASE transcripts")
ask(b"\x02transcripts")
query("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(30), big LONGTEXT)")
query("INSERT INTO t (name) VALUES ('a'), ('b'), (NULL)")
query("SELECT id, name, big FROM t")
query("SELECT 1; SELECT 2, 3 WHERE 1 = 0; DO 1; SELECT 4")
query("SELECT 1; SELECT nosuch; SELECT 3")
query("SELECT * FROM nosuch")
query("SELECT REPEAT('x', 300), NULL, ''")
query("SET autocommit = 0")
query("BEGIN")
query("COMMIT")
query("SET autocommit = 1")
query(
    "CREATE PROCEDURE p(IN a INT, OUT b INT) BEGIN SELECT id FROM t; SELECT a, name FROM t;"
    " SET b = a + 1; END"
)
query("SET @x = 0")
query("CALL p(7, @x)")
for command in (b"\x0e", b"\x09", b"\x0d", b"\x0a"):
    ask(command)
ask(b"\x04t\0")
ask(b"\x04nosuch\0")
ask(b"\x1b\x01\x00")
ask(b"\x1b\x00\x00")
ask(b"\x1b\x09\x00")

both = prepare("SELECT id, name FROM t WHERE id > ? AND id < ?")
args = b"\x00\x01\x08\x00\x08\x00" + struct.pack("<qq", 0, 99)
execute(both, args)
execute(both, b"\x00\x00" + struct.pack("<qq", 1, 99))
columns = prepare("SELECT * FROM t")
execute(columns)
execute(columns, flags=1)
ask(struct.pack("<BII", 0x1C, columns, 2))
ask(struct.pack("<BII", 0x1C, columns, 5))
ask(struct.pack("<BI", 0x1A, columns))
ask(struct.pack("<BII", 0x1C, columns, 2))
params = prepare("INSERT INTO t (name, big) VALUES (?, ?)")
send(struct.pack("<BIH", 0x18, params, 1) + b"long " * 10)
execute(params, b"\x00\x01\xfd\x00\xfc\x00\x04four")
nothing = prepare("DO 1")
execute(nothing)
prepare("SELECT nosuch FROM t")
send(struct.pack("<BI", 0x19, nothing))
ask(struct.pack("<BI", 0x1A, 9999))
out = prepare("CALL p(?, ?)")
execute(out, b"\x00\x01\x08\x00\x08\x00" + struct.pack("<qq", 5, 0))
if DIALECT == "mariadb":
    execute(both, args)
    row = b"\x00\x03one" + b"\x01" + b"\x00\x05three"
    bulk = prepare("INSERT INTO t (name) VALUES (?)")
    ask(struct.pack("<BIH", 0xFA, bulk, 128) + b"\xfd\x00" + row)
    ask(struct.pack("<BIH", 0xFA, bulk, 64 + 128) + b"\xfd\x00" + row)
    send(b"\x16SELECT 5")
    ask(struct.pack("<BIBI", 0x17, 0xFFFFFFFF, 0, 1))

reply = query("LOAD DATA LOCAL INFILE 'rows.csv' INTO TABLE t FIELDS TERMINATED BY ',' (name, big)")
if reply[4] == 0xFB:
    send(b"x,1\ny,2\n", 2)
    send(b"z,3\n", 3)
    ask(b"", 4)
reply = query("LOAD DATA LOCAL INFILE 'none' INTO TABLE t; SELECT 'after'")
if reply[4] == 0xFB:
    ask(b"", 2)
query("DROP DATABASE transcripts")
ask(b"\x1f")
ask(b"\x77unknown")
send(b"\x01")
