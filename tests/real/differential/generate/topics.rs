//! What a session does besides reading and writing rows: a method for each topic.

use pointsman::provider::Flavour;

use super::{Effect, Maker};

/// What leaves something behind when it is one of several statements.
const LEAVING: &[&str] = &[
    "SET NAMES latin1",
    "SET ROLE rand_role",
    "SET @w = 'several'",
    "SET autocommit = 0",
    "SET sql_mode = 'ANSI_QUOTES'",
    "SET TRANSACTION READ ONLY",
    "CREATE TEMPORARY TABLE IF NOT EXISTS tmp (a INT)",
    "SELECT GET_LOCK('$S.l', 0)",
    "PREPARE n FROM 'SELECT 5'",
    "LOCK TABLES t READ",
    "CALL temp()",
    "CALL open()",
    "CALL put(3)",
    "SELECT h()",
    "INSERT INTO z VALUES (3)",
    "USE $S",
];

impl Maker {
    pub(super) fn set_variable(&mut self) {
        let values = [
            "sql_mode = ''",
            "sql_mode = DEFAULT",
            "sql_mode = 'ANSI_QUOTES'",
            "sql_mode = CONCAT(@@sql_mode, ',NO_BACKSLASH_ESCAPES')",
            "sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE'",
            "sql_mode = 'PIPES_AS_CONCAT'",
            "sql_select_limit = 3",
            "sql_select_limit = DEFAULT",
            "time_zone = '+03:00'",
            "time_zone = DEFAULT",
            "lc_time_names = 'de_DE'",
            "lc_time_names = DEFAULT",
            "group_concat_max_len = 5",
            "group_concat_max_len = DEFAULT",
            "div_precision_increment = 9",
            "div_precision_increment = DEFAULT",
            "foreign_key_checks = 0",
            "foreign_key_checks = 1",
            "sort_buffer_size = 300000",
            "max_error_count = 2",
            "max_error_count = DEFAULT",
            "NAMES utf8mb4",
            "NAMES latin1",
            "NAMES utf8mb4 COLLATE utf8mb4_bin",
            "CHARACTER SET utf8mb4",
            "NAMES DEFAULT",
            "NAMES 'binary'",
            "character_set_results = NULL",
            "collation_connection = utf8mb4_bin",
            "character_set_results = utf8mb4",
            "big_tables = 0, sql_big_selects = 1",
            "@v = 3, sql_select_limit = 4",
            "SESSION wait_timeout = 600",
            "@@unique_checks = 0",
            "sql_notes = 0",
            "sql_notes = 1",
            "no_such_variable = 1",
            "sql_mode = 'nonsense'",
            "GLOBAL sort_buffer_size = 1",
            "timestamp = 1700000000",
            "timestamp = DEFAULT",
            "insert_id = 77",
            "last_insert_id = 55",
            "sql_select_limit = 'x'",
            "max_join_size = 1000000",
            "max_join_size = DEFAULT",
            "sql_safe_updates = 1",
            "sql_safe_updates = 0",
            "sql_auto_is_null = 1",
            "sql_auto_is_null = 0",
            "default_week_format = 3",
            "@@session.net_read_timeout = 31, @w = 'w'",
            "sql_big_selects = 1",
            "sql_buffer_result = 0",
            "sql_warnings = 1",
            "rand_seed1 = 5, rand_seed2 = 6",
            // Not of changes of state: of those before an error nobody is told (docs/session.md).
            "session_track_schema = 0",
            "session_track_system_variables = 'time_zone,sql_mode'",
            "session_track_system_variables = DEFAULT",
        ];
        let value = *self.chance.pick(&values);
        let again = if self.chance.one_in(6) { ", div_precision_increment = 7" } else { "" };
        self.query(Effect::Write, format!("SET {value}{again}"));
    }

    pub(super) fn user_variable(&mut self) {
        let (id, number, text) = (self.id(), self.number(), self.text());
        let (effect, sql) = match self.chance.below(14) {
            0 => (Effect::Write, format!("SET @v = {number}")),
            1 => (Effect::Write, format!("SET @v = {text}, @w = {number}")),
            2 => (Effect::Write, "SET @w = @v".into()),
            3 => (Effect::Write, "SET @v = (SELECT MAX(id) FROM t)".into()),
            4 => (Effect::Write, "SELECT @v := 5".into()),
            5 => (Effect::Write, format!("SELECT a INTO @v FROM t WHERE id = {id}")),
            6 => (Effect::Write, "SET @`odd name` = 1, @v = NULL".into()),
            7 => (Effect::Write, "SET @v = x'414243', @w = _latin1'abc'".into()),
            8 => (Effect::Read, "SELECT @v".into()),
            9 => (Effect::Read, "SELECT @v + 1, CONCAT(@w, '!'), @nothing".into()),
            10 => (Effect::Read, "SELECT id FROM t WHERE id > @n ORDER BY id".into()),
            11 => (Effect::Read, "SELECT COERCIBILITY(@v), CHARSET(@v), COLLATION(@w)".into()),
            12 => (Effect::Write, format!("UPDATE t SET a = @v WHERE id = {id}")),
            _ => (Effect::Write, "SET @n = 0, @v = 1.50, @w = -3".into()),
        };
        self.query(effect, sql);
    }

    pub(super) fn transaction(&mut self) {
        let both = [
            "BEGIN",
            "START TRANSACTION",
            "COMMIT",
            "ROLLBACK",
            "START TRANSACTION READ ONLY",
            "COMMIT",
            "ROLLBACK",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT",
            "SAVEPOINT sp",
            "ROLLBACK TO sp",
            "RELEASE SAVEPOINT sp",
            "COMMIT AND CHAIN",
            "ROLLBACK AND CHAIN",
            "SET autocommit = 0",
            "SET autocommit = 1",
            "SET autocommit = 1",
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "SET TRANSACTION READ ONLY",
            "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "SET SESSION TRANSACTION READ ONLY",
            "SET SESSION TRANSACTION READ WRITE",
            "SET SESSION TRANSACTION READ WRITE",
            "SET completion_type = 1",
            "SET completion_type = 0",
            "SET completion_type = DEFAULT",
            "COMMIT WORK",
            "SET @x = (SELECT 1), autocommit = 0",
            "COMMIT",
            "BEGIN WORK",
            "ROLLBACK",
            "XA START 'x$S'",
            "XA END 'x$S'",
            "XA COMMIT 'x$S' ONE PHASE",
            "XA ROLLBACK 'x$S'",
        ];
        let sql = *self.chance.pick(&both);
        self.query(Effect::Either, sql);
        self.hint = *self.chance.pick(&[1, 23, 23, 53, 53, 53, 0]);
    }

    /// Statements that are refused.
    pub(super) fn failing(&mut self) {
        let wrong = [
            "SELECT no_such FROM t",
            "SELECT * FROM no_such",
            "SELEKT 1",
            "SELECT 1 FROM",
            "INSERT INTO t (id) VALUES (1), (1)",
            "INSERT INTO t (nope) VALUES (1)",
            "SELECT no_such_function(1)",
            "SELECT $S.abs(1)",
            "CALL no_such()",
            "USE no_such_$S",
            "INSERT INTO u VALUES (1)",
            "UPDATE t SET id = 1 WHERE id IN (2, 3)",
            "SELECT (SELECT id FROM t)",
            "SELECT * FROM t WHERE MATCH (s) AGAINST ('x')",
            "SELECT f()",
            "SELECT 1, , 2",
            "DROP TABLE no_such",
            "",
            "-- nothing",
            "/* nothing */",
            "SELECT 'open",
            "SELECT \"a\"",
            "SELECT id FROM t GROUP BY a HAVING nope > 1",
            "EXECUTE no_such",
            "DEALLOCATE PREPARE no_such",
            "ROLLBACK TO no_such",
            "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'mine'",
            "SELECT mysql.nothing(1)",
            "SELECT 9223372036854775807 + 1",
            "KILL 0",
            "SET @@no_such.thing = 1",
            "SELECT * FROM t LIMIT -1",
            "INSERT INTO u (k, v) VALUES (1, 99), (1, 98)",
            // These fail after they have set variables.
            "INSERT INTO z VALUES (2), (2)",
            "SELECT h(), (SELECT 1 UNION SELECT 2)",
            "SELECT @v := 5, (SELECT 1 UNION SELECT 2)",
            "SET @v = 6, lc_time_names = 'nope'",
            "SET @v = 'k', sql_mode = 'nope'",
            "SELECT 1, (SELECT 1 UNION SELECT 2) INTO @v, @w",
        ];
        let sql = *self.chance.pick(&wrong);
        self.query(Effect::Either, sql);
        if self.chance.one_in(3) {
            self.hint = 33;
        }
    }

    /// Statements prepared by the protocol.
    pub(super) fn prepared(&mut self) {
        let name = *self.chance.pick(&["p", "q"]);
        let texts: &[(&str, usize)] = &[
            ("SELECT * FROM t WHERE id = ?", 1),
            ("SELECT id, s FROM t WHERE a > ? OR s = ? ORDER BY id", 2),
            ("INSERT INTO t (a, s) VALUES (?, ?)", 2),
            ("UPDATE t SET a = ? WHERE id = ?", 2),
            ("SELECT ?, ? + 1", 2),
            ("SET @v = ?", 1),
            ("CALL put(?)", 1),
            ("SELECT @v, @w", 0),
            ("SELECT * FROM u ORDER BY k", 0),
            ("DELETE FROM t WHERE id = ?", 1),
            ("SELECT g()", 0),
            ("SELECT no_such FROM t", 0),
            ("SELEKT", 0),
            ("COMMIT", 0),
            ("SHOW TABLES", 0),
            ("SELECT LAST_INSERT_ID()", 0),
            ("SET autocommit = 1", 0),
            ("SELECT id FROM t WHERE id = ? FOR UPDATE", 1),
            ("DO ?", 1),
            ("SHOW WARNINGS", 0),
            ("CREATE TEMPORARY TABLE IF NOT EXISTS tmp (a INT)", 0),
            ("SELECT ROW_COUNT()", 0),
            ("SET sql_select_limit = ?", 1),
            ("SELECT * FROM tmp", 0),
            ("CALL two()", 0),
            ("SELECT GET_LOCK('$S.l', ?)", 1),
            ("SELECT COUNT(*) FROM t WHERE s LIKE ?", 1),
            ("SELECT h()", 0),
            ("INSERT INTO z VALUES (?)", 1),
            ("SET @v = ?, sql_notes = 1", 1),
            ("SET NAMES latin1", 0),
            ("SET ROLE rand_role", 0),
            ("SELECT @v := ?", 1),
            ("SELECT a INTO @v FROM t WHERE id = ?", 1),
            ("BEGIN", 0),
            ("SAVEPOINT sp", 0),
            ("SELECT @@sql_mode, DATABASE()", 0),
            ("SELECT SQL_CALC_FOUND_ROWS id FROM t ORDER BY id LIMIT ?", 1),
            ("DO RELEASE_ALL_LOCKS()", 0),
            ("REPLACE INTO t (id, a) VALUES (?, ?)", 2),
            ("SELECT * FROM w WHERE id > ? ORDER BY id", 1),
            ("CALL bad()", 0),
        ];
        let (text, count) = *self.chance.pick(texts);
        self.script.push(Effect::Either, "prepare", &[name], text);
        if ["SELEKT", "no_such", "tmp"].iter().any(|word| text.contains(word)) {
            // There may be none: the id that the name has is that of another.
            return;
        }
        let mut cursors = false;
        // MySQL 9.7 goes on comparing by the types of the execution for which it has prepared the
        // statement anew, as long as the statement stays on its connection (docs/session.md).
        let settled = self.flavour == Flavour::Mysql;
        let first: Vec<bool> = (0..count).map(|_| self.chance.one_in(3)).collect();
        for round in 0..self.chance.below(3) {
            let values: Vec<String> = first
                .iter()
                .map(|first| match (self.chance.below(4), settled) {
                    // Later it has the type of what was bound before, on the same connection.
                    (0, true) if round > 0 => if *first { "'7'" } else { "7" }.to_owned(),
                    (0, _) => "NULL".to_owned(),
                    (1, false) => "'2'".to_owned(),
                    (_, true) if *first => "'2'".to_owned(),
                    _ => self.chance.below(9).to_string(),
                })
                .collect();
            // MySQL 9.7 never ends its answer to an execution without a cursor when the statement
            // has had one before, closed or not: a direct client waits for ever.
            let cursor = self.chance.one_in(8) || cursors;
            cursors = cursor && self.flavour == Flavour::Mysql;
            let words: &[&str] = if cursor { &[name, "cursor"] } else { &[name] };
            self.script.push(Effect::Either, "execute", words, &values.join(", "));
            if cursor {
                self.script.push(Effect::Either, "fetch", &[name], "2");
                self.script.push(Effect::Either, "reset", &[name], "");
            }
            if self.chance.one_in(4) {
                let sql = self.select();
                self.query(Effect::Read, sql);
            }
        }
        match self.chance.below(5) {
            0 => self.script.push(Effect::Either, "reset", &[name], ""),
            1 | 2 => self.script.push(Effect::Either, "close", &[name], ""),
            _ => {}
        }
    }

    pub(super) fn named_statement(&mut self) {
        self.one_of(
            Effect::Write,
            &[
                "PREPARE n FROM 'SELECT id FROM t WHERE id > ? ORDER BY id'",
                "PREPARE n FROM 'INSERT INTO t (a) VALUES (?)'",
                "PREPARE n FROM 'SELECT @v'",
                "PREPARE n FROM 'SET autocommit = 0'",
                "PREPARE n FROM @v",
                "EXECUTE n USING @v",
                "EXECUTE n USING @v",
                "EXECUTE n",
                "DEALLOCATE PREPARE n",
                "PREPARE n FROM 'SELEKT'",
            ],
        );
        self.hint = *self.chance.pick(&[0, 74, 74]);
    }

    pub(super) fn procedure(&mut self) {
        let sql = *self.chance.pick(&[
            "CALL two()",
            "CALL put(4)",
            "CALL bad()",
            "CALL temp()",
            "CALL open()",
            "CALL outp(@v)",
            "SELECT g()",
            "SELECT h()",
            "SELECT f(a) FROM t ORDER BY id",
            "DO g()",
            "SET @v = g()",
            "INSERT INTO z VALUES (1)",
            "DELETE FROM z",
            "SELECT id FROM t WHERE a = g()",
            "CALL put()",
        ]);
        let effect = if sql.starts_with("SELECT f(") { Effect::Read } else { Effect::Write };
        let quiet = ["CALL outp(@v)", "CALL open()", "CALL temp()"];
        if self.flavour == Flavour::Mysql && quiet.contains(&sql) {
            // It answers with the number of rows that the statement before has changed, and leaves
            // FOUND_ROWS: both cannot be brought to another link (docs/session.md).
            self.query(Effect::Read, "DO 0");
        }
        self.query(effect, sql);
        self.hint = *self.chance.pick(&[0, 1, 33, 47]);
    }

    pub(super) fn temporary(&mut self) {
        let sql = *self.chance.pick(&[
            "CREATE TEMPORARY TABLE tmp (a INT)",
            "CREATE TEMPORARY TABLE tmp SELECT id AS a FROM t",
            "CREATE TEMPORARY TABLE t LIKE u",
            "INSERT INTO tmp VALUES (1), (2)",
            "SELECT * FROM tmp",
            "DROP TEMPORARY TABLE tmp",
            "DROP TEMPORARY TABLE IF EXISTS t",
            "DROP TABLE IF EXISTS tmp",
            "UPDATE tmp SET a = a + 1",
            "TRUNCATE tmp",
        ]);
        let effect = if sql.starts_with("SELECT") { Effect::Either } else { Effect::Write };
        self.query(effect, sql);
        self.hint = *self.chance.pick(&[0, 82, 82, 1]);
    }

    pub(super) fn locking(&mut self) {
        self.one_of(
            Effect::Write,
            &[
                "SELECT GET_LOCK('$S.l', 0)",
                "SELECT RELEASE_LOCK('$S.l')",
                "DO RELEASE_ALL_LOCKS()",
                "SELECT IS_FREE_LOCK('$S.l')",
                "LOCK TABLES t READ",
                "LOCK TABLES t WRITE, u READ",
                "UNLOCK TABLES",
                "UNLOCK TABLES",
                "SELECT * FROM t ORDER BY id FOR UPDATE",
                "SELECT id FROM t WHERE id = 1 LOCK IN SHARE MODE",
                "FLUSH TABLES t",
                "SELECT IS_USED_LOCK('$S.l') IS NULL",
                "LOCK TABLES no_such READ",
            ],
        );
        self.hint = *self.chance.pick(&[0, 85, 1, 23]);
    }

    pub(super) fn handler(&mut self) {
        self.one_of(
            Effect::Write,
            &[
                "HANDLER t OPEN",
                "HANDLER t READ FIRST",
                "HANDLER t READ NEXT",
                "HANDLER t READ `PRIMARY` = (3)",
                "HANDLER t CLOSE",
                "HANDLER t CLOSE",
            ],
        );
        self.hint = *self.chance.pick(&[0, 87, 87]);
    }

    pub(super) fn change_user(&mut self) {
        if std::mem::take(&mut self.hides_role) {
            // MariaDB keeps it, and nobody knows which (docs/session.md).
            self.query(Effect::Write, "SET ROLE NONE");
        }
        self.script.push(Effect::Either, "changeuser", &[], "app app $S");
    }

    /// Commands without a statement.
    pub(super) fn command(&mut self) {
        let (verb, body) = *self.chance.pick(&[
            ("ping", ""),
            ("init", "$S"),
            ("init", "mysql"),
            ("init", "no_such_$S"),
            ("resetconn", ""),
            ("resetconn", ""),
            ("option", "0"),
            ("option", "1"),
            ("option", "0"),
            ("changeuser", ""),
            ("fields", "t"),
            ("fields", "t s%"),
        ]);
        if verb == "changeuser" {
            return self.change_user();
        }
        self.script.push(Effect::Either, verb, &[], body);
        if verb == "init" {
            self.script.push(Effect::Either, "init", &[], "$S");
        }
    }

    /// Rows of the client's own file, and a value in pieces.
    pub(super) fn upload(&mut self) {
        if self.chance.one_in(2) {
            let rows = *self.chance.pick(&["", "11,a\\x0A12,b\\x0A", "13\\x0A", "x,y,z\\x0A"]);
            self.script.push(Effect::Either, "file", &[], rows);
            let into = "INTO TABLE t FIELDS TERMINATED BY ',' (a, s)";
            self.query(Effect::Write, format!("LOAD DATA LOCAL INFILE 'x' {into}"));
            self.hint = 33;
        } else {
            let text = *self.chance.pick(&["SELECT LENGTH(?)", "INSERT INTO t (s) VALUES (?)"]);
            self.script.push(Effect::Either, "prepare", &["l"], text);
            self.script.push(Effect::Either, "long", &["l", "0"], "abc");
            self.script.push(Effect::Either, "long", &["l", "0"], "defg");
            match self.chance.below(3) {
                0 => self.script.push(Effect::Either, "reset", &["l"], ""),
                _ => self.script.push(Effect::Either, "execute", &["l"], "LONG"),
            }
            self.script.push(Effect::Either, "execute", &["l"], "'x'");
        }
    }

    pub(super) fn several(&mut self) {
        let mut parts = Vec::new();
        for _ in 0..2 + self.chance.below(2) {
            let part = match self.chance.below(9) {
                0 => "INSERT INTO t (a) VALUES (8)".to_owned(),
                1 => "SET @v = 4".to_owned(),
                2 => "BEGIN".to_owned(),
                3 => "COMMIT".to_owned(),
                4 if !parts.is_empty() => "SELECT LAST_INSERT_ID(), ROW_COUNT()".to_owned(),
                5 => (*self.chance.pick(LEAVING)).to_owned(),
                _ => self.select(),
            };
            parts.push(part);
        }
        if self.chance.one_in(4) {
            let wrong =
                ["SELECT no_such FROM t", "SELEKT", "SELECT h(), (SELECT 1 UNION SELECT 2)"];
            parts.push((*self.chance.pick(&wrong)).to_owned());
        }
        self.hides_role |= parts.iter().any(|part| part.starts_with("SET ROLE"));
        let writes = ["INSERT", "SET ", "CREATE", "CALL", "PREPARE", "LOCK"];
        let write = parts.iter().any(|part| writes.iter().any(|first| part.starts_with(first)));
        let effect = if write { Effect::Write } else { Effect::Either };
        self.query(effect, parts.join("; "));
    }

    pub(super) fn show(&mut self) {
        self.one_of(
            Effect::Read,
            &[
                "SHOW TABLES",
                "SHOW COLUMNS FROM t",
                "SHOW FULL COLUMNS FROM u",
                "DESCRIBE t",
                "SHOW CREATE TABLE u",
                "SHOW CREATE VIEW w",
                "SHOW INDEX FROM no_such",
                "SHOW VARIABLES LIKE 'sql_mode'",
                "SHOW SESSION VARIABLES LIKE 'character_set_cl%'",
                "SHOW VARIABLES LIKE 'sql_select_limit'",
                "SHOW CREATE PROCEDURE two",
                "SHOW FUNCTION STATUS WHERE Db = 'nothing'",
                "EXPLAIN SELECT 1",
                "SHOW CHARACTER SET LIKE 'latin1'",
                "SHOW VARIABLES LIKE 'tx_read_only'",
                // In a transaction MySQL lets nobody set session_track_gtids, us neither.
                "SHOW VARIABLES LIKE 'session_track_s%'",
                "SHOW VARIABLES LIKE 'autocommit'",
            ],
        );
    }

    pub(super) fn definition(&mut self) {
        self.one_of(
            Effect::Write,
            &[
                "CREATE TABLE IF NOT EXISTS x (a INT)",
                "DROP TABLE IF EXISTS x",
                "ALTER TABLE u ADD COLUMN extra INT DEFAULT 3",
                "ALTER TABLE u DROP COLUMN extra",
                "TRUNCATE log",
                "CREATE OR REPLACE VIEW w AS SELECT id, a FROM t WHERE a > 15",
                "CREATE INDEX i ON t (a)",
                "DROP INDEX i ON t",
                "ANALYZE TABLE u",
                "CHECK TABLE t",
                "CHECKSUM TABLE log",
                "CREATE TABLE IF NOT EXISTS x AS SELECT id AS a FROM t",
                "RENAME TABLE x TO y",
                "DROP TABLE IF EXISTS y",
            ],
        );
    }

    pub(super) fn role_or_schema(&mut self) {
        let sql = *self.chance.pick(&[
            "SET ROLE NONE",
            "SET ROLE rand_role",
            "SET ROLE no_such",
            "SELECT CURRENT_ROLE()",
            "USE information_schema",
            "USE $S",
            "SELECT DATABASE()",
            "SET ROLE rand_role",
        ]);
        self.query(Effect::Either, sql);
        if sql.starts_with("USE info") {
            self.query(Effect::Read, "SELECT DATABASE()");
            self.query(Effect::Either, "USE $S");
        }
    }

    pub(super) fn family(&mut self) {
        let sql = self.of(
            &[
                "INSERT INTO t (a) VALUES (3) RETURNING id, a",
                "SELECT NEXTVAL(sq)",
                "SELECT PREVIOUS VALUE FOR sq",
                "DELETE FROM t WHERE id = 5 RETURNING *",
                "SET STATEMENT sql_select_limit = 1 FOR SELECT id FROM t ORDER BY id",
                "SET STATEMENT max_statement_time = 50 FOR INSERT INTO t (a) VALUES (2)",
                "BEGIN NOT ATOMIC DECLARE x INT DEFAULT 3; SET @v = x; END",
                "BEGIN NOT ATOMIC SELECT 1; SELECT 2; END",
                "SELECT SETVAL(sq, 100)",
                "EXECUTE IMMEDIATE 'INSERT INTO t (a) VALUES (?)' USING 5",
                "CREATE OR REPLACE TEMPORARY TABLE tmp (a INT)",
                "SELECT LASTVAL(sq)",
                "SET max_statement_time = 30",
                "SET max_statement_time = DEFAULT",
                "SET sql_mode = 'ORACLE'",
                "GET DIAGNOSTICS @v = NUMBER",
                "ANALYZE FORMAT=JSON UPDATE no_such SET a = 1",
                "SET tx_isolation = 'SERIALIZABLE'",
                "SET optimizer_switch = 'mrr=on'",
                "SET tx_read_only = 0",
            ],
            &[
                "SET max_execution_time = 30000",
                "SET max_execution_time = DEFAULT",
                "GET DIAGNOSTICS @v = NUMBER",
                "SET transaction_isolation = 'SERIALIZABLE'",
                "SET session_track_gtids = OFF",
                "SET optimizer_switch = 'mrr=on'",
                "EXPLAIN FORMAT=JSON INTO @v SELECT 1",
                "SELECT 1 INTO @w",
                "INSERT INTO t (a) VALUES ROW(5), ROW(6)",
                "SET transaction_read_only = 0",
                "SET default_collation_for_utf8mb4 = utf8mb4_general_ci",
                "SET sql_require_primary_key = 0",
                "SET windowing_use_high_precision = OFF",
                "SELECT * FROM t ORDER BY id FOR SHARE",
                "SET @v = CAST('[1]' AS JSON)",
            ],
        );
        let reads = sql.starts_with("SET STATEMENT sql_select");
        self.query(if reads { Effect::Read } else { Effect::Either }, sql);
    }
}
