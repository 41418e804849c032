"""What PyMySQL says: text statements, several results, a procedure, a file, a ping."""

import sys

import pymysql
from pymysql.constants import CLIENT

connection = pymysql.connect(
    host="127.0.0.1", port=int(sys.argv[1]), user=sys.argv[2], password=sys.argv[3],
    local_infile=True, client_flag=CLIENT.MULTI_STATEMENTS, ssl_disabled=True,
)
cursor = connection.cursor()


def run(text, args=None):
    try:
        cursor.execute(text, args)
        while True:
            cursor.fetchall()
            if not cursor.nextset():
                return
    except pymysql.MySQLError as error:
        print(error)


run("DROP DATABASE IF EXISTS transcripts")
run("CREATE DATABASE transcripts")
connection.select_db("transcripts")
run("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(30))")
cursor.executemany("INSERT INTO t (name) VALUES (%s)", [("a",), ("b",), (None,)])
connection.commit()
run("SELECT * FROM t; SELECT COUNT(*) FROM t; SELECT nosuch")
run("CREATE PROCEDURE p() BEGIN SELECT 1; SELECT name FROM t; END")
cursor.callproc("p")
while cursor.nextset():
    pass
run("LOAD DATA LOCAL INFILE 'rows.csv' INTO TABLE t (name)")
connection.ping(reconnect=False)
connection.autocommit(True)
run("SELECT REPEAT('y', 300), %s", ("quo'te",))
run("DROP DATABASE transcripts")
connection.close()
