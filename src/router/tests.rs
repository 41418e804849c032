//! Statements and the class that each must have.

use super::*;

mod properties;

pub(crate) fn dialect(flavour: Flavour) -> Dialect {
    let version = match flavour {
        Flavour::MariaDb => 101_119,
        Flavour::MySql => 90_704,
    };
    Dialect::plain(flavour, version)
}

const MY: &[Flavour] = &[Flavour::MySql];
const MA: &[Flavour] = &[Flavour::MariaDb];
const BOTH: &[Flavour] = &[Flavour::MySql, Flavour::MariaDb];

/// Texts of hard cases that a replica may run. The number is the row of the list of hard cases
/// that the text stands for.
const READS: &[(u16, &[Flavour], &str)] = &[
    (1, BOTH, "SELECT a, b FROM t WHERE id = 5"),
    (5, BOTH, "SELECT 'x FOR UPDATE' FROM t -- FOR UPDATE"),
    (5, BOTH, "SELECT for_update, `for update` FROM t"),
    (9, BOTH, "SELECT @v"),
    (10, BOTH, "TABLE t ORDER BY a LIMIT 3"),
    (10, MY, "VALUES ROW(1), ROW(2)"),
    (10, MA, "VALUES (1),(2)"),
    (11, BOTH, "WITH c AS (SELECT 1) SELECT * FROM c"),
    (
        11,
        BOTH,
        "WITH RECURSIVE f(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM f), g (m) AS (SELECT 2) \
                SELECT * FROM f, g",
    ),
    (11, BOTH, "SELECT * FROM (WITH f(a) AS (SELECT 1) SELECT a FROM f) d"),
    (12, BOTH, "((SELECT 1)) UNION (SELECT 2)"),
    (12, BOTH, "(WITH c (a) AS (SELECT 1) SELECT a FROM c) UNION ALL SELECT 3"),
    (13, MY, "SELECT /*+ SET_VAR(sort_buffer_size=16777216) MAX_EXECUTION_TIME(5) */ a FROM t"),
    (14, BOTH, "SELECT /*!40001 SQL_NO_CACHE */ * FROM t"),
    (16, BOTH, "SELECT 5--1"),
    (16, BOTH, "SELECT 1 -- x"),
    (16, BOTH, "SELECT 1 #x; DELETE FROM t"),
    (16, BOTH, "SELECT /* a /* b */ 1"),
    (19, BOTH, "  /* app */ ; SELECT 1;;  "),
    (21, BOTH, "SELECT 1 FROM DUAL"),
    (21, BOTH, "DO 1"),
    (22, BOTH, "SELECT SLEEP(10), BENCHMARK(3, 1), RAND(), NOW(6), UUID()"),
    (23, BOTH, "SELECT SQL_NO_CACHE HIGH_PRIORITY STRAIGHT_JOIN a FROM t"),
    (24, MA, "SELECT a FROM t PROCEDURE ANALYSE(10, 20)"),
    (25, MA, "SELECT * FROM t FOR SYSTEM_TIME AS OF NOW(6)"),
    (26, MA, "SELECT a FROM t LIMIT 5 ROWS EXAMINED 10"),
    (26, MA, "SELECT a FROM t ORDER BY a FETCH FIRST 3 ROWS WITH TIES"),
    (27, BOTH, "SELECT a, RANK() OVER (PARTITION BY b ORDER BY c) FROM t WINDOW w AS (ORDER BY c)"),
    (27, BOTH, "SELECT 1 INTERSECT (SELECT 2) EXCEPT SELECT 3"),
    (27, MY, "SELECT * FROM t, LATERAL (SELECT 1 FROM s WHERE s.a = t.a) AS d (x)"),
    (27, BOTH, "SELECT * FROM JSON_TABLE('[1]', '$[*]' COLUMNS (a INT PATH '$')) AS j"),
    (27, BOTH, "SELECT j->>'$.a', j -> '$.b' FROM t WHERE 1 MEMBER OF ('[1]')"),
    (27, MY, "SELECT VECTOR_DIM(STRING_TO_VECTOR('[1,2]'))"),
    (27, BOTH, "SELECT a FROM t WHERE b = ANY (SELECT c FROM s) AND MATCH (d) AGAINST ('x')"),
    (27, BOTH, "SELECT d.a FROM (SELECT 1) d (a) JOIN t USE INDEX FOR JOIN (i) USING (a)"),
    (27, BOTH, "SELECT CAST(a AS CHAR(10)), CONVERT(b, DECIMAL(10,2)), CHAR(65 USING utf8mb4)"),
    (27, BOTH, "SELECT CASE WHEN (a) THEN (b) ELSE (c) END, a + INTERVAL (1) DAY FROM t"),
    (
        27,
        BOTH,
        "SELECT a FROM t WHERE a IN (1,2,3) AND b BETWEEN (1) AND (2) GROUP BY (a) \
                WITH ROLLUP HAVING (COUNT(*) > 1)",
    ),
    (27, BOTH, "SELECT GROUP_CONCAT(DISTINCT a ORDER BY b SEPARATOR ','), INSERT('a',1,1,'b')"),
    (
        27,
        BOTH,
        "SELECT ST_Distance(a, POINT(1, ABS(-2))), LINESTRING(POINT(1,2), POINT(3,4)) FROM t",
    ),
    (
        27,
        BOTH,
        "SELECT * FROM t, JSON_TABLE('[1]', '$[*]' COLUMNS (NESTED PATH '$' COLUMNS \
                (a INT PATH '$'))) AS j",
    ),
    (30, BOTH, "EXPLAIN SELECT 1"),
    (30, BOTH, "DESC t"),
    (30, BOTH, "DESCRIBE `t` 'a%'"),
    (30, BOTH, "EXPLAIN (SELECT 1)"),
    (30, BOTH, "EXPLAIN EXTENDED WITH c(a) AS (SELECT 1) SELECT * FROM c"),
    (32, BOTH, "EXPLAIN ANALYZE SELECT a FROM t"),
    (33, MA, "ANALYZE FORMAT=JSON SELECT a FROM t"),
    (38, BOTH, "HELP 'select'"),
    (43, MA, "SET STATEMENT max_statement_time=1, sql_mode='' FOR SELECT a FROM t"),
    (60, BOTH, "SELECT CURRENT_USER(), CURRENT_ROLE(), CURRENT_USER"),
    (63, BOTH, "SELECT @@session.sql_mode, @@sql_mode, @@time_zone, @@autocommit"),
    (65, BOTH, "SHOW FULL TABLES FROM d LIKE 'a%'"),
    (65, BOTH, "SHOW TABLE STATUS WHERE Name = UPPER('t')"),
    (65, BOTH, "SHOW FULL COLUMNS FROM t"),
    (65, BOTH, "SHOW CREATE TABLE d.t"),
    (65, BOTH, "SHOW INDEX FROM t"),
    (65, BOTH, "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()"),
    (65, BOTH, "select * from `information_schema` . `columns`"),
    (70, MY, "SELECT GTID_SUBSET('a', 'b'), GTID_SUBTRACT('a', 'b')"),
    (75, MA, "SELECT seq FROM seq_1_to_9"),
    (125, BOTH, "SELECT a FROM t WHERE id = ? LIMIT ?, ?"),
    (136, BOTH, "SELECT 1; SELECT 2;"),
];

/// Texts of hard cases that must not run on a replica.
const NOT_READS: &[(u16, &[Flavour], &str, Reason)] = &[
    (2, BOTH, "SELECT a FROM t FOR UPDATE NOWAIT", Reason::LockingRead),
    (2, MY, "SELECT a FROM t FOR UPDATE OF t SKIP LOCKED", Reason::LockingRead),
    (2, MA, "SELECT a FROM t FOR/**/UPDATE WAIT 5", Reason::LockingRead),
    (3, BOTH, "SELECT a FROM t LOCK IN SHARE MODE", Reason::LockingRead),
    (3, BOTH, "SELECT a FROM t FOR SHARE", Reason::LockingRead),
    (4, BOTH, "SELECT * FROM (SELECT a FROM t FOR UPDATE) d", Reason::LockingRead),
    (4, BOTH, "WITH c AS (SELECT a FROM t FOR UPDATE) SELECT * FROM c", Reason::LockingRead),
    (6, BOTH, "SELECT a INTO OUTFILE '/f' FROM t", Reason::Write),
    (6, BOTH, "SELECT a FROM t INTO DUMPFILE '/f'", Reason::Write),
    (7, BOTH, "SELECT c INTO @v FROM t", Reason::Write),
    (8, BOTH, "SELECT @n:=@n+1 FROM t", Reason::SessionState),
    (10, BOTH, "TABLE t INTO OUTFILE '/f'", Reason::Write),
    (11, BOTH, "WITH c AS (SELECT 1) UPDATE t SET a = 1", Reason::Write),
    (11, BOTH, "WITH c AS (SELECT 1) DELETE FROM t", Reason::Write),
    (
        11,
        BOTH,
        "WITH c (a) AS (SELECT 1), d AS (SELECT 2) REPLACE t SELECT * FROM c",
        Reason::Write,
    ),
    (12, BOTH, "(SELECT 1) UNION (SELECT 2 FOR UPDATE)", Reason::LockingRead),
    (14, BOTH, "SELECT 1 /*!50000 FOR UPDATE */", Reason::LockingRead),
    (14, BOTH, "SELECT 1 /*!FOR UPDATE */", Reason::LockingRead),
    (15, BOTH, "SELECT 1 /*!80011 FOR UPDATE */", Reason::LockingRead),
    (15, BOTH, "SELECT 1 /*!999999 FOR UPDATE */", Reason::LockingRead),
    (15, BOTH, "SELECT 1 /*M!100500 FOR UPDATE */", Reason::LockingRead),
    (15, BOTH, "SELECT 1 /*M! FOR UPDATE */", Reason::LockingRead),
    (15, BOTH, "SELECT a /*!99999 FROM db. */ abs(1)", Reason::Function),
    (19, BOTH, "\u{feff}SELECT 1", Reason::Undecided),
    (19, BOTH, "{SELECT 1}", Reason::Undecided),
    (19, BOTH, "SELECT 1\0", Reason::Undecided),
    (19, BOTH, "SELECT {fn now()}", Reason::Undecided),
    (28, MA, "INSERT INTO t VALUES (1) RETURNING a", Reason::Write),
    (29, BOTH, "INSERT INTO t SELECT * FROM s", Reason::Write),
    (29, BOTH, "CREATE TABLE t SELECT 1", Reason::Write),
    (29, BOTH, "IMPORT TABLE FROM 'x'", Reason::Write),
    (31, BOTH, "EXPLAIN UPDATE t SET a = 1", Reason::Write),
    (32, BOTH, "EXPLAIN ANALYZE DELETE FROM t", Reason::Write),
    (33, MA, "ANALYZE FORMAT=JSON UPDATE t SET a = 1", Reason::Write),
    (33, MA, "ANALYZE SELECT f()", Reason::Function),
    (34, MY, "EXPLAIN FORMAT=JSON INTO @v SELECT 1", Reason::Write),
    (35, BOTH, "EXPLAIN FOR CONNECTION 5", Reason::HostLocal),
    (35, MA, "SHOW EXPLAIN FOR 5", Reason::HostLocal),
    (36, BOTH, "ANALYZE TABLE t", Reason::Command),
    (36, BOTH, "ANALYZE LOCAL TABLE t", Reason::Command),
    (36, BOTH, "OPTIMIZE TABLE t", Reason::Command),
    (36, BOTH, "CHECK TABLE t", Reason::Command),
    (37, BOTH, "CHECKSUM TABLE t", Reason::Command),
    (42, MA, "EXECUTE IMMEDIATE 'SELECT 1'", Reason::SessionState),
    (43, MA, "SET STATEMENT max_statement_time=1 FOR UPDATE t SET a=1", Reason::Write),
    (43, MA, "SET STATEMENT max_statement_time=1 FOR SELECT f()", Reason::Function),
    (45, BOTH, "SELECT my_func(x) FROM t", Reason::Function),
    (45, BOTH, "SELECT my_func (x) FROM t", Reason::Function),
    (45, BOTH, "SELECT `my_func`(x) FROM t", Reason::Function),
    (45, BOTH, "SELECT json_table(1)", Reason::Function),
    (
        45,
        BOTH,
        "SELECT json_table(1) FROM JSON_TABLE('[]', '$' COLUMNS (NESTED PATH '$' COLUMNS \
                (a INT PATH '$'))) t",
        Reason::Function,
    ),
    (45, BOTH, "SELECT point(), 1", Reason::Function),
    (45, BOTH, "SELECT POINT(1, abs(2), 3)", Reason::Function),
    (45, BOTH, "SELECT polygon()", Reason::Function),
    (46, BOTH, "SELECT db.abs(1)", Reason::Function),
    (46, BOTH, "SELECT db . `abs` /**/ (1)", Reason::Function),
    (46, BOTH, "SELECT db.1e5(1)", Reason::Undecided),
    (50, BOTH, "SELECT a FROM t WHERE IS_FREE_LOCK('a')", Reason::Function),
    (50, BOTH, "DO RELEASE_LOCK('a')", Reason::Function),
    (52, MA, "SELECT NEXTVAL(s)", Reason::Write),
    (52, MA, "SELECT NEXT VALUE FOR s", Reason::Write),
    (52, MA, "SELECT s.nextval", Reason::Write),
    (52, MA, "SELECT SETVAL(s, 5)", Reason::Write),
    (53, MA, "SELECT LASTVAL(s)", Reason::SessionState),
    (53, MA, "SELECT PREVIOUS VALUE FOR s", Reason::SessionState),
    (54, BOTH, "SELECT @@identity", Reason::SessionState),
    (54, BOTH, "SELECT @@session.last_insert_id", Reason::SessionState),
    (59, BOTH, "SELECT CONNECTION_ID()", Reason::HostLocal),
    (60, BOTH, "SELECT USER()", Reason::HostLocal),
    (61, BOTH, "SELECT @@hostname", Reason::HostLocal),
    (61, BOTH, "SELECT @@read_only, 1", Reason::HostLocal),
    (61, BOTH, "SELECT @@session . `transaction_read_only`", Reason::HostLocal),
    (62, MA, "SELECT @@last_gtid, BINLOG_GTID_POS('a', 4)", Reason::HostLocal),
    (62, MY, "SELECT @@global.gtid_executed", Reason::HostLocal),
    (63, BOTH, "SELECT @@GLOBAL.max_connections", Reason::HostLocal),
    (64, BOTH, "SELECT * FROM information_schema.processlist", Reason::HostLocal),
    (64, BOTH, "SELECT * FROM information_schema./**/innodb_trx", Reason::HostLocal),
    (64, BOTH, "SELECT * FROM `performance_schema`.threads", Reason::HostLocal),
    (64, BOTH, "SELECT user FROM mysql.user", Reason::HostLocal),
    (64, BOTH, "SHOW PROCESSLIST", Reason::HostLocal),
    (64, BOTH, "SHOW ENGINE INNODB STATUS", Reason::HostLocal),
    (64, BOTH, "SHOW OPEN TABLES", Reason::HostLocal),
    (64, BOTH, "SHOW GLOBAL STATUS LIKE 'a'", Reason::HostLocal),
    (64, BOTH, "SHOW PROFILE", Reason::HostLocal),
    (66, BOTH, "SHOW MASTER STATUS", Reason::HostLocal),
    (66, BOTH, "SHOW BINARY LOGS", Reason::HostLocal),
    (67, BOTH, "SHOW ALL SLAVES STATUS", Reason::HostLocal),
    (67, BOTH, "SHOW REPLICA STATUS", Reason::HostLocal),
    (68, BOTH, "SELECT LOAD_FILE('/f')", Reason::HostLocal),
    (69, MA, "SELECT MASTER_GTID_WAIT('0-1-1', 1)", Reason::HostLocal),
    (71, MY, "SELECT group_replication_set_as_primary('x')", Reason::Function),
    (72, MY, "SELECT PS_CURRENT_THREAD_ID()", Reason::HostLocal),
    (73, BOTH, "CALL p()", Reason::Write),
    (77, MA, "SELECT pkg.f()", Reason::Function),
    (79, BOTH, "START TRANSACTION WITH CONSISTENT SNAPSHOT", Reason::Command),
    (136, BOTH, "SELECT 1; DELETE FROM t", Reason::Write),
    (136, BOTH, "DELETE FROM t; SELECT 1", Reason::Write),
    (137, BOTH, "INSERT INTO t VALUES (1); SELECT LAST_INSERT_ID()", Reason::Write),
    (136, BOTH, "SELECT ';'; SELECT f()", Reason::Function),
];

/// Texts whose effects matter: the expected set must be contained in the found one.
const EFFECTS: &[(u16, &[Flavour], &str, Effects, Verb)] = &[
    (7, BOTH, "SELECT c INTO @v FROM t", Effects::USER_VAR_WRITE, Verb::Select),
    (8, BOTH, "SELECT @n:=@n+1", Effects::USER_VAR_WRITE, Verb::Select),
    (9, BOTH, "SELECT @v", Effects::USER_VAR_READ, Verb::Select),
    (20, BOTH, " /* ping */ ;", Effects::NONE, Verb::Empty),
    (39, BOTH, "BINLOG 'abc'", Effects::REPLICATION_REPLAY, Verb::Other),
    (40, MA, "BEGIN NOT ATOMIC SELECT 1; SELECT 2; END", Effects::OPAQUE, Verb::Other),
    (40, MA, "IF 1 THEN SELECT 1; END IF", Effects::OPAQUE, Verb::Other),
    (41, BOTH, "CREATE PROCEDURE p() BEGIN SELECT 1; CALL q(); END", Effects::DDL, Verb::Ddl),
    (42, MA, "EXECUTE IMMEDIATE 'SELECT 1'", Effects::OPAQUE, Verb::Execute),
    (50, BOTH, "INSERT INTO t VALUES (GET_LOCK('a', 1))", Effects::USER_LOCK, Verb::Insert),
    (50, BOTH, "SET @x = get_lock('a', 1)", Effects::USER_LOCK, Verb::Set),
    (50, BOTH, "DO RELEASE_ALL_LOCKS()", Effects::RELEASE_ALL_LOCKS, Verb::Do),
    (51, MY, "SELECT version_tokens_lock_shared('a', 1)", Effects::USER_LOCK, Verb::Select),
    (55, BOTH, "UPDATE t SET a=LAST_INSERT_ID(a+1)", Effects::LAST_INSERT_ID, Verb::Update),
    (57, BOTH, "SELECT SQL_CALC_FOUND_ROWS a FROM t", Effects::FOUND_ROWS, Verb::Select),
    (59, BOTH, "SELECT connection_id ()", Effects::VIRTUAL, Verb::Select),
    (59, BOTH, "SELECT @@GLOBAL.socket", Effects::VIRTUAL, Verb::Select),
    (73, BOTH, "CALL p()", Effects::OPAQUE, Verb::Call),
    (78, BOTH, "BEGIN WORK", Effects::BEGIN, Verb::Begin),
    (78, BOTH, "START TRANSACTION READ WRITE", Effects::BEGIN, Verb::Begin),
    (80, BOTH, "START TRANSACTION READ ONLY", Effects::BEGIN_READ_ONLY, Verb::Begin),
    (81, BOTH, "SET TRANSACTION READ ONLY", Effects::NEXT_TRANSACTION, Verb::Set),
    (82, BOTH, "SET SESSION TRANSACTION READ ONLY", Effects::SET, Verb::Set),
    (84, BOTH, "SET autocommit=0", Effects::SET, Verb::Set),
    (88, BOTH, "PREPARE s FROM 'SET autocommit=0'", Effects::TEXT_PREPARE, Verb::Prepare),
    (88, BOTH, "EXECUTE s", Effects::OPAQUE, Verb::Execute),
    (89, BOTH, "COMMIT AND CHAIN", Effects::CHAIN, Verb::Commit),
    (89, BOTH, "ROLLBACK WORK AND CHAIN", Effects::CHAIN, Verb::Rollback),
    (89, BOTH, "ROLLBACK AND NO CHAIN", Effects::NONE, Verb::Rollback),
    (90, BOTH, "COMMIT RELEASE -- c", Effects::RELEASE, Verb::Commit),
    (90, BOTH, "ROLLBACK WORK AND NO CHAIN RELEASE", Effects::RELEASE, Verb::Rollback),
    (90, BOTH, "SELECT 1; COMMIT RELEASE; ", Effects::RELEASE, Verb::Select),
    (90, BOTH, "COMMIT /* c */ NO RELEASE # c", Effects::NO_RELEASE, Verb::Commit),
    (90, BOTH, "COMMIT AND CHAIN NO RELEASE", Effects::NO_RELEASE, Verb::Commit),
    (91, BOTH, "ROLLBACK TO a", Effects::NONE, Verb::Savepoint),
    (91, BOTH, "ROLLBACK WORK TO SAVEPOINT a", Effects::NONE, Verb::Savepoint),
    (91, BOTH, "RELEASE SAVEPOINT a", Effects::NONE, Verb::Savepoint),
    (92, BOTH, "ALTER TABLE t ADD b INT", Effects::DDL, Verb::Ddl),
    (94, BOTH, "XA START 'x'", Effects::XA.with(Effects::BEGIN), Verb::Xa),
    (101, BOTH, "LOCK TABLE t READ", Effects::LOCK, Verb::LockTables),
    (101, BOTH, "UNLOCK TABLES", Effects::UNLOCK, Verb::UnlockTables),
    (102, BOTH, "FLUSH TABLES WITH READ LOCK", Effects::LOCK, Verb::Administration),
    (102, BOTH, "FLUSH TABLES t FOR EXPORT", Effects::LOCK, Verb::Administration),
    (103, MY, "LOCK INSTANCE FOR BACKUP", Effects::LOCK, Verb::LockTables),
    (103, MA, "BACKUP STAGE START", Effects::LOCK, Verb::Administration),
    (103, MA, "BACKUP STAGE END", Effects::UNLOCK, Verb::Administration),
    (104, BOTH, "HANDLER t OPEN AS h", Effects::HANDLER_OPEN, Verb::Handler),
    (105, BOTH, "CREATE TEMPORARY TABLE t (a INT)", Effects::TEMP_TABLE, Verb::Ddl),
    (106, MA, "CREATE OR REPLACE TEMPORARY TABLE t LIKE s", Effects::TEMP_TABLE, Verb::Ddl),
    (106, BOTH, "SELECT 1; CREATE TEMPORARY TABLE t (a INT)", Effects::TEMP_TABLE, Verb::Select),
    (108, BOTH, "USE d", Effects::NONE, Verb::Use),
    (113, BOTH, "SET timestamp=1", Effects::REPLICATION_REPLAY, Verb::Set),
    (113, BOTH, "SET @@session.insert_id := 1", Effects::REPLICATION_REPLAY, Verb::Set),
    (114, BOTH, "SET a=1, sql_log_bin=0", Effects::REPLICATION_REPLAY, Verb::Set),
    (115, BOTH, "SET @@SESSION.gtid_next='x:1'", Effects::REPLICATION_REPLAY, Verb::Set),
    (116, BOTH, "SET ROLE r", Effects::ROLE, Verb::Set),
    (116, BOTH, "SET DEFAULT ROLE r", Effects::ACCOUNTS, Verb::Account),
    (117, BOTH, "SET PASSWORD = 'a'", Effects::ACCOUNTS, Verb::Account),
    (117, BOTH, "ALTER USER u IDENTIFIED BY 'a'", Effects::ACCOUNTS, Verb::Account),
    (117, MA, "CREATE OR REPLACE USER u", Effects::ACCOUNTS, Verb::Account),
    (117, BOTH, "GRANT ALL ON *.* TO u", Effects::ACCOUNTS, Verb::Account),
    (118, BOTH, "SET GLOBAL read_only=1", Effects::TOPOLOGY, Verb::Set),
    (118, BOTH, "STOP SLAVE", Effects::TOPOLOGY, Verb::Administration),
    (118, BOTH, "START REPLICA", Effects::TOPOLOGY, Verb::Administration),
    (
        118,
        MY,
        "CHANGE REPLICATION SOURCE TO SOURCE_PORT=1",
        Effects::TOPOLOGY,
        Verb::Administration,
    ),
    (121, BOTH, "FLUSH PRIVILEGES", Effects::ACCOUNTS, Verb::Administration),
    (123, MA, "KILL SOFT QUERY ID 5", Effects::KILL, Verb::Kill),
    (140, BOTH, "LOAD DATA LOCAL INFILE 'f' INTO TABLE t", Effects::LOCAL_INFILE, Verb::LoadData),
    (
        140,
        BOTH,
        "SELECT 1; LOAD XML LOW_PRIORITY LOCAL INFILE 'f' INTO TABLE t",
        Effects::LOCAL_INFILE,
        Verb::Select,
    ),
];

fn each(flavours: &[Flavour], check: impl Fn(Dialect)) {
    for &flavour in flavours {
        check(dialect(flavour));
    }
}

#[test]
fn proven_reads_may_go_to_a_replica() {
    for (row, flavours, sql) in READS {
        each(flavours, |dialect| {
            let class = classify(sql.as_bytes(), &dialect);
            let found = (class.kind, class.reason);
            assert_eq!(found, (Kind::Read, Reason::PlainRead), "row {row}: {sql} {dialect:?}");
        });
    }
}

#[test]
fn whatever_is_not_proven_goes_to_the_primary() {
    for (row, flavours, sql, reason) in NOT_READS {
        each(flavours, |dialect| {
            let class = classify(sql.as_bytes(), &dialect);
            let found = (class.kind, class.reason);
            assert_eq!(found, (Kind::Primary, *reason), "row {row}: {sql} {dialect:?}");
        });
    }
}

#[test]
fn effects_on_the_session_are_predicted() {
    for (row, flavours, sql, effects, verb) in EFFECTS {
        each(flavours, |dialect| {
            let class = classify(sql.as_bytes(), &dialect);
            assert_eq!(class.effects.0 & effects.0, effects.0, "row {row}: {sql} {dialect:?}");
            assert_eq!(class.verb, *verb, "row {row}: {sql} {dialect:?}");
        });
    }
}

#[test]
fn questions_about_the_previous_statement_are_marked() {
    for sql in [
        "SELECT ROW_COUNT()",
        "SELECT FOUND_ROWS()",
        "SHOW WARNINGS LIMIT 5",
        "SHOW ERRORS",
        "SHOW COUNT(*) WARNINGS",
        "SELECT @@warning_count",
        "SELECT @@session.error_count",
        "GET DIAGNOSTICS @n = NUMBER",
        "SHOW WARNINGS; SHOW ERRORS",
        "SHOW STATUS LIKE 'Last_query_cost'",
    ] {
        each(BOTH, |dialect| {
            assert_eq!(classify(sql.as_bytes(), &dialect).kind, Kind::Last, "{sql}");
        });
    }
    let mixed = classify(b"SELECT 1; SHOW WARNINGS", &dialect(Flavour::MySql));
    assert_eq!(mixed.kind, Kind::Primary);
}

/// Statements that were written to mislead a classifier.
#[test]
fn no_shortcut_leads_to_a_read() {
    for sql in [
        "DESC ANALYZE UPDATE t SET a = 1",
        "EXPLAIN ANALYZE TABLE t",
        "EXPLAIN SELECT * FROM (SELECT f1()) d",
        "DESC SELECT * FROM (SELECT f1()) d",
        "EXPLAIN EXTENDED SELECT f1()",
        "SHOW TABLES WHERE f1() = 1",
        "SHOW COLUMNS FROM t WHERE f1() = 1",
        "SHOW CREATE TABLE t FOR UPDATE",
        "HELP f1()",
        "DO f1()",
        "VALUES (f1())",
        "DESC t f1()",
        "EXPLAIN t; DELETE FROM t",
        "SELECT a FROM t GROUP BY a WITH ROLLUP HAVING a, f1()",
        "SELECT a FROM t ORDER BY x, f1(a)",
        "WITH c AS (SELECT 1) (SELECT f1())",
        "WITH c AS (SELECT f1()), g(a) AS (SELECT 2) SELECT * FROM g",
        "SELECT * FROM (WITH c AS (SELECT 1) SELECT 1, f1(2)) d",
        "SELECT 1 /*!50000 /*!50000 FOR */ UPDATE */",
        "SELECT 1 -- \n FOR UPDATE",
        "SELECT 1 --\tx\rFOR UPDATE\n FOR UPDATE",
        "SELECT 1 # FOR\nFOR # x\nUPDATE",
        "SELECT '\\\\' FOR UPDATE -- '",
        "SELECT '' '' FOR UPDATE",
        "SELECT `a``b` FROM t FOR UPDATE",
        "SELECT /*+ INDEX(`a*/ 1 FROM t -- `) */ f1()",
        "SELECT $$ a $$ f1()",
        "SELECT 1.f1(2)",
        "SELECT 1 FROM t WHERE INSERT (1) AND replace x",
        "SELECT \"a\\\" FOR UPDATE",
        "f1()",
        "{d '2020-01-01'}",
        "(DELETE FROM t)",
        "((f1()))",
        "PROCEDURE ANALYSE()",
        "SET STATEMENT a = f1() FOR SELECT 1",
        "SET STATEMENT a = 1 FOR DELETE FROM t",
        "SET STATEMENT a=1 FOR SET STATEMENT b=1 FOR SELECT 1 INTO @x",
    ] {
        each(BOTH, |dialect| {
            let class = classify(sql.as_bytes(), &dialect);
            assert_eq!(class.kind, Kind::Primary, "{sql} {dialect:?}");
        });
    }
    // The lone 0xA0 is a space in latin1, which the text cannot tell.
    let class = classify(b"SELECT a FROM t FOR\xA0UPDATE", &dialect(Flavour::MySql));
    assert_eq!(class.kind, Kind::Primary);
}

#[test]
fn quoting_follows_the_sql_mode() {
    let plain = dialect(Flavour::MySql);
    let kind = |sql: &str, mode: &str| {
        classify(sql.as_bytes(), &plain.with_sql_mode(mode.as_bytes())).kind
    };
    let sql = r#"SELECT "a' FOR UPDATE -- " FROM t"#;
    assert_eq!(kind(sql, ""), Kind::Read);
    assert_eq!(kind(r#"SELECT "f"(1)"#, "ANSI_QUOTES"), Kind::Primary);
    let sql = r"SELECT '\' , '' FOR UPDATE -- '";
    assert_eq!(kind(sql, ""), Kind::Read);
    assert_eq!(kind(sql, "NO_BACKSLASH_ESCAPES"), Kind::Primary);
}

#[test]
fn trail_bytes_of_multibyte_characters_are_no_quotes() {
    let with = |charset| dialect(Flavour::MySql).with_charset(charset);
    // In sjis 0x83 0x5C is one character; elsewhere the backslash escapes the quote.
    let hidden = b"SELECT '\x83\x5C' FOR UPDATE -- '";
    assert_eq!(classify(hidden, &with(Charset::Sjis)).kind, Kind::Primary);
    assert_eq!(classify(hidden, &with(Charset::AsciiSafe)).kind, Kind::Read);
    for (charset, text) in [
        (Charset::Sjis, b"SELECT '\x83\x5C'".as_slice()),
        (Charset::Gbk, b"SELECT '\x81\x5C'".as_slice()),
        (Charset::Big5, b"SELECT '\xA1\x5C'".as_slice()),
        (Charset::Gb18030, b"SELECT '\x81\x30\x81\x30\x81\x5C'".as_slice()),
    ] {
        assert_eq!(classify(text, &with(charset)).kind, Kind::Read, "{charset:?}");
        assert_eq!(classify(text, &with(Charset::Unknown)).kind, Kind::Primary, "{charset:?}");
    }
}

#[test]
fn large_texts_are_never_proven_reads() {
    let dialect = dialect(Flavour::MySql);
    let long = |head: &str| format!("{head}{}", " + 1".repeat(SCAN_LIMIT / 4)).into_bytes();
    let class = classify(&long("SELECT 1"), &dialect);
    assert_eq!((class.kind, class.reason), (Kind::Primary, Reason::TooLarge));
    let class = classify(&long("UPDATE t SET a = 1"), &dialect);
    assert_eq!((class.kind, class.reason), (Kind::Primary, Reason::Write));
}

#[test]
fn digests_forget_literals_case_comments_and_list_lengths() {
    let dialect = dialect(Flavour::MariaDb);
    let of = |sql: &str| digest::fingerprint(sql.as_bytes(), &dialect);
    let text = |sql: &str| digest::text(sql.as_bytes(), &dialect);
    for (one, other) in [
        ("SELECT a FROM t WHERE b = 1", "select /* x */ A from T where B=-2.5e3"),
        ("SELECT a FROM t WHERE b IN (1)", "SELECT a FROM t WHERE b IN ('x', NULL, ?)"),
        ("INSERT INTO t VALUES (1,2)", "INSERT INTO t VALUES (1,'a'), (2, NULL),(3,x'41')"),
        ("SELECT `a` FROM t", "SELECT a FROM t"),
    ] {
        assert_eq!(of(one), of(other), "{one} / {other}");
    }
    assert_ne!(of("SELECT a FROM t"), of("SELECT b FROM t"));
    assert_ne!(of("SELECT a IS NULL"), of("SELECT a IS NOT NULL"));
    assert_eq!(
        text("SELECT a, F(1,2)  FROM db.T WHERE x >= -3 AND y IN (1,2) -- c"),
        "select a, f(?) from db.t where x >= ? and y in(?)"
    );
    assert_eq!(text("INSERT INTO t (a,b) VALUES (1,2),(3,4)"), "insert into t(a, b) values(?)");
    assert!(text(&"SELECT a ".repeat(500)).len() <= digest::TEXT_LIMIT);
}

#[test]
fn what_may_be_a_password_is_in_no_digest() {
    for dialect in [dialect(Flavour::MariaDb), dialect(Flavour::MySql)] {
        for sql in [
            "CREATE USER u IDENTIFIED BY 'hush'",
            "CREATE USER u IDENTIFIED BY 'hush",
            "CREATE USER u IDENTIFIED BY \"hush",
            "CREATE USER u IDENTIFIED BY 'it''s hush\\'",
            "SET PASSWORD = N'hush",
            "SET PASSWORD = _utf8'hush' /* hush",
            "SET PASSWORD = `hush",
        ] {
            let text = digest::text(sql.as_bytes(), &dialect);
            assert!(text.contains("u identified by ?") || text.contains("password ="), "{text}");
            assert!(!text.contains("hush"), "{text}");
        }
    }
}
