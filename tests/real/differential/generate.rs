//! Scripts of statements by chance, the same for the same seed: what a session may do, in the
//! tables' own form, so that a script that failed can become a case.

use pointsman::provider::Flavour;

use super::script::{Case, Place, Step};
use crate::chance::SplitMix;

/// What a statement may do, known because it was made that way: the judge's word, not the
/// classifier's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing: it may run anywhere.
    Read,
    /// It writes data, takes locks or changes the session's state: never on a replica.
    Write,
    /// It depends on what came before, or on the server.
    Either,
}

/// A stream of numbers, and what is made of them.
#[derive(Debug, Clone)]
pub(super) struct Chance(SplitMix);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix::new(seed))
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.next() % bound as u64).expect("small")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A script and what each of its steps may do.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) case: Case,
    pub(super) effects: Vec<Effect>,
}

/// What every schema has from the beginning; no script changes it.
pub(super) const ROUTINES: &[&str] = &[
    "CREATE FUNCTION f (x INT) RETURNS INT DETERMINISTIC RETURN x + 1",
    "CREATE FUNCTION g () RETURNS INT BEGIN INSERT INTO log VALUES (1); RETURN 7; END",
    "CREATE FUNCTION h () RETURNS INT BEGIN SET @h = 5; RETURN @h; END",
    "CREATE PROCEDURE two () BEGIN SELECT 1 AS x; SELECT id FROM t ORDER BY id LIMIT 2; END",
    "CREATE PROCEDURE put (n INT) BEGIN INSERT INTO t (a) VALUES (n); SET @put = n; END",
    "CREATE PROCEDURE bad () BEGIN INSERT INTO log VALUES (2); SIGNAL SQLSTATE '45000'; END",
    "CREATE PROCEDURE temp () CREATE TEMPORARY TABLE IF NOT EXISTS tmp (a INT)",
    "CREATE PROCEDURE open () START TRANSACTION",
    "CREATE PROCEDURE outp (OUT x INT) SET x = 9",
];

/// The tables that every script begins with, made by the session itself so that its replica
/// must have them.
const FIRST: &[&str] = &[
    "DROP TABLE IF EXISTS t, u, log, x, y, z",
    "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, a INT, s VARCHAR(40))",
    "INSERT INTO t (a, s) VALUES (10, 'one'), (20, 'two'), (30, 'three'), (NULL, NULL)",
    "CREATE TABLE u (k INT PRIMARY KEY, v DECIMAL(8,2), d DATETIME(3), b BLOB, UNIQUE KEY (v))",
    "INSERT INTO u VALUES (1, 1.5, '2026-11-23 01:02:03.456', x'00FF'), (2, 2.5, NULL, NULL)",
    "CREATE TABLE log (n INT)",
    "CREATE OR REPLACE VIEW w AS SELECT id, a FROM t WHERE a > 5",
    "CREATE TRIGGER tr AFTER INSERT ON u FOR EACH ROW INSERT INTO log VALUES (NEW.k)",
    "CREATE TABLE z (n INT PRIMARY KEY)",
    "CREATE TRIGGER hide BEFORE INSERT ON z FOR EACH ROW SET @z = NEW.n",
];

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

/// Steps of a script that chance has no part in.
pub(super) fn first_steps(flavour: Flavour) -> usize {
    FIRST.len() + usize::from(flavour == Flavour::Mariadb)
}

/// The script of a seed: `length` statements by chance.
pub(super) fn script(seed: u64, length: usize, flavour: Flavour) -> Script {
    let case = Case {
        number: 0,
        rows: Vec::new(),
        title: format!("seed {seed}"),
        table: "random",
        flavour: Some(flavour),
        schema: String::new(),
        flags: Vec::new(),
        setup: Vec::new(),
        clean: Vec::new(),
        steps: Vec::new(),
    };
    let mut script = Script { case, effects: Vec::new() };
    for sql in FIRST {
        script.push(Effect::Write, "query", &[], sql);
    }
    if flavour == Flavour::Mariadb {
        script.push(Effect::Write, "query", &[], "CREATE OR REPLACE SEQUENCE sq");
    }
    let mut maker = Maker {
        chance: Chance::new(seed),
        flavour,
        script,
        hint: 0,
        left: 0,
        light: true,
        hides_role: false,
    };
    while maker.script.effects.len() < first_steps(flavour) + length {
        maker.statement();
    }
    maker.script
}

impl Script {
    fn push(&mut self, effect: Effect, verb: &str, words: &[&str], body: &str) {
        self.effects.push(effect);
        self.case.steps.push(Step {
            session: 0,
            place: Place::Unseen,
            verb: verb.to_owned(),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            body: body.to_owned(),
            line: self.case.steps.len(),
        });
    }

    /// The same script without the steps that `keep` leaves out.
    pub(super) fn only(&self, keep: &[usize]) -> Self {
        let mut other = self.clone();
        other.case.steps = keep.iter().map(|at| self.case.steps[*at].clone()).collect();
        other.effects = keep.iter().map(|at| self.effects[*at]).collect();
        other
    }
}

struct Maker {
    chance: Chance,
    flavour: Flavour,
    script: Script,
    /// What is likely to come next: the topic of the statement before.
    hint: usize,
    /// Statements until the session begins anew.
    left: usize,
    /// Nothing that keeps a session on one server, until then.
    light: bool,
    /// A text of several statements may have set a role.
    hides_role: bool,
}

impl Maker {
    fn query(&mut self, effect: Effect, sql: impl AsRef<str>) {
        self.script.push(effect, "query", &[], sql.as_ref());
    }

    fn of(&mut self, maria: &'static [&'static str], mysql: &'static [&'static str]) -> String {
        let from = if self.flavour == Flavour::Mariadb { maria } else { mysql };
        (*self.chance.pick(from)).to_owned()
    }

    fn number(&mut self) -> String {
        let special = ["0", "-1", "NULL", "2147483647", "1.5", "'x'", "1e3"];
        match self.chance.below(4) {
            0 => (*self.chance.pick(&special)).to_owned(),
            _ => self.chance.below(60).to_string(),
        }
    }

    fn id(&mut self) -> String {
        (self.chance.below(12) + 1).to_string()
    }

    fn text(&mut self) -> String {
        let texts = ["'one'", "'it''s'", "''", "NULL", "'two words'", "'%'", "'\u{e4}\u{20ac}'"];
        (*self.chance.pick(&texts)).to_owned()
    }

    /// One statement, or a few that belong together. A session begins anew every now and then,
    /// since one that has done a bit of everything may never leave its server again.
    fn statement(&mut self) {
        if self.left == 0 {
            self.left = 8 + self.chance.below(24);
            self.light = !self.chance.one_in(3);
            match self.chance.below(8) {
                0 => self.change_user(),
                1 => {
                    self.script.push(Effect::Either, "quit", &[], "");
                    // A server may take its time to end what has left; locks tell when it has.
                    self.query(Effect::Either, "SELECT GET_LOCK('$S.l', 30)");
                    self.query(Effect::Either, "DO RELEASE_ALL_LOCKS()");
                    // A session may read what is older than itself until it writes.
                    self.query(Effect::Write, "INSERT INTO log VALUES (9)");
                }
                _ => self.script.push(Effect::Either, "resetconn", &[], ""),
            }
        }
        self.left -= 1;
        if self.light && self.hint == 0 {
            return match self.chance.below(20) {
                0..9 => self.read(),
                9..12 => self.write(),
                12 => self.diagnostics(),
                13 => self.set_variable(),
                14 => self.query(Effect::Write, "SET @v = 3, @w = 'w'"),
                15 => self.prepared(),
                16 => self.show(),
                17 => self.transaction(),
                18 => self.failing(),
                _ => self.several(),
            };
        }
        // What was begun is gone on with, now and then.
        let topic = match self.chance.below(100) {
            0..20 if self.hint != 0 => self.hint,
            roll => roll,
        };
        self.hint = 0;
        match topic {
            0..22 => self.read(),
            22..32 => self.write(),
            32..38 => self.diagnostics(),
            38..46 => self.set_variable(),
            46..52 => self.user_variable(),
            52..62 => self.transaction(),
            62..66 => self.failing(),
            66..73 => self.prepared(),
            73..77 => self.named_statement(),
            77..81 => self.procedure(),
            81..84 => self.temporary(),
            84..87 => self.locking(),
            87..89 => self.handler(),
            89..92 => self.command(),
            92..94 => self.several(),
            94..96 => self.show(),
            96 => self.definition(),
            97 => self.role_or_schema(),
            98 => self.upload(),
            _ => self.family(),
        }
    }

    fn select(&mut self) -> String {
        let (id, number, text) = (self.id(), self.number(), self.text());
        match self.chance.below(28) {
            0 => "SELECT * FROM t ORDER BY id".into(),
            1 => format!("SELECT id, a, s FROM t WHERE id = {id}"),
            2 => format!("SELECT a FROM t WHERE a > {number} ORDER BY id"),
            3 => "SELECT COUNT(*), SUM(a), MIN(s) FROM t".into(),
            4 => format!("SELECT s, COUNT(*) AS n FROM t WHERE s <> {text} GROUP BY s ORDER BY s"),
            5 => {
                format!(
                    "SELECT t.id, u.v FROM t STRAIGHT_JOIN u ON u.k = t.id WHERE t.id < {id} ORDER BY t.id, u.v"
                )
            }
            6 => "SELECT t.id, u.k FROM t LEFT JOIN u ON u.k = t.id ORDER BY t.id".into(),
            7 => format!("SELECT (SELECT MAX(k) FROM u) + {number}"),
            8 => format!(
                "SELECT COUNT(*) FROM t WHERE id IN (SELECT k FROM u) AND a IS NOT {}",
                self.chance.pick(&["NULL", "TRUE", "FALSE"])
            ),
            9 => format!("SELECT 1 UNION SELECT {number} UNION ALL SELECT 3"),
            10 => format!("WITH c AS (SELECT a FROM t WHERE id <= {id}) SELECT COUNT(*) FROM c"),
            11 => "SELECT id, ROW_NUMBER() OVER (ORDER BY id) FROM t ORDER BY id".into(),
            12 => format!("SELECT CONCAT({text}, 'x'), UPPER({text}), LENGTH({text})"),
            13 => format!("SELECT {number} + 1, {number} / 0, {number} DIV 3"),
            14 => format!("SELECT CAST({text} AS SIGNED), CAST({number} AS CHAR)"),
            15 => "SELECT * FROM w ORDER BY id".into(),
            16 => "SELECT * FROM u ORDER BY k".into(),
            17 => format!("SELECT d, DATE_FORMAT(d, '%W %M'), HEX(b) FROM u WHERE k = {id}"),
            18 => "SELECT DATABASE(), SCHEMA(), CURRENT_USER()".into(),
            19 => format!("SELECT CASE WHEN a > {number} THEN 'hi' ELSE s END FROM t ORDER BY id"),
            20 => format!("SELECT DISTINCT a FROM t ORDER BY a LIMIT {}", self.chance.below(4)),
            21 => "SELECT GROUP_CONCAT(id ORDER BY id) FROM t".into(),
            22 => format!("SELECT JSON_OBJECT('a', {number}), JSON_EXTRACT('[1,2]', '$[1]')"),
            23 => format!("SELECT SQL_CALC_FOUND_ROWS id FROM t ORDER BY id LIMIT {id}"),
            24 => "SELECT UUID() IS NULL, NOW(6) IS NULL, USER() IS NULL".into(),
            25 => format!("SELECT RAND({id}), SLEEP(0), BENCHMARK(1, {id})"),
            26 => format!("(SELECT id FROM t WHERE id < {id}) UNION (SELECT k FROM u) ORDER BY 1"),
            _ => format!("SELECT * FROM (SELECT id, s FROM t) d WHERE s LIKE {text} ORDER BY id"),
        }
    }

    fn read(&mut self) {
        let sql = match self.chance.below(12) {
            0 => {
                let names = [
                    "@@sql_mode",
                    "@@autocommit",
                    "@@session.sql_select_limit",
                    "@@time_zone",
                    "@@character_set_client, @@collation_connection",
                    "@@session.group_concat_max_len",
                    "@@max_allowed_packet",
                    "@@sort_buffer_size, @@foreign_key_checks",
                    "@@lc_time_names",
                    "@@character_set_results",
                    "@@div_precision_increment",
                    "@@version",
                ];
                format!("SELECT {}", self.chance.pick(&names))
            }
            1 => "SELECT @v, @w, @h, @put, @z".into(),
            2 => self.family_select(),
            _ => self.select(),
        };
        self.query(Effect::Read, sql);
        if self.chance.one_in(8) {
            self.hint = 33;
        }
    }

    fn family_select(&mut self) -> String {
        self.of(
            &[
                "SELECT id FROM t ORDER BY id FETCH FIRST 2 ROWS ONLY",
                "VALUES (1, 'x'), (2, 'y')",
                "SELECT 1 FROM DUAL WHERE 1 = 1",
                "SELECT * FROM seq_1_to_3",
                "SELECT id FROM t ORDER BY id LIMIT ROWS EXAMINED 10000",
                "EXECUTE IMMEDIATE 'SELECT 5'",
                "SELECT NVL(NULL, 3)",
            ],
            &[
                "TABLE u ORDER BY k",
                "VALUES ROW(1, 'x'), ROW(2, 'y')",
                "SELECT /*+ SET_VAR(sql_select_limit=1) */ id FROM t ORDER BY id",
                "SELECT /*+ MAX_EXECUTION_TIME(60000) */ 1",
                "SELECT ANY_VALUE(a) FROM t WHERE id=1",
                "SELECT * FROM t, LATERAL (SELECT t.a + 1 AS b) x ORDER BY id",
            ],
        )
    }

    fn write(&mut self) {
        let (id, number, text) = (self.id(), self.number(), self.text());
        let sql = match self.chance.below(16) {
            0 | 1 => format!("INSERT INTO t (a, s) VALUES ({number}, {text})"),
            2 => format!("INSERT INTO t (a, s) VALUES ({number}, {text}), (1, 'm'), ({id}, NULL)"),
            3 => {
                format!("INSERT INTO t (id, a) VALUES ({id}, 1) ON DUPLICATE KEY UPDATE a = a + 1")
            }
            4 => format!("INSERT IGNORE INTO t (id, a) VALUES ({id}, 'abc')"),
            5 => format!("REPLACE INTO u (k, v) VALUES ({id}, {id})"),
            6 | 7 => format!("UPDATE t SET a = a + 1 WHERE id = {id}"),
            8 => format!("UPDATE t SET s = {text}, a = LAST_INSERT_ID({id}) WHERE id < {id}"),
            9 => format!("DELETE FROM t WHERE id = {id}"),
            10 => format!("DELETE FROM u WHERE k > {id}"),
            11 => format!("INSERT INTO u (k, v) SELECT id, id FROM t WHERE id > {id} ORDER BY id"),
            12 => format!("INSERT INTO u (k, v, d) VALUES ({id}, {number}, '2026-01-02')"),
            13 => format!("UPDATE t JOIN u ON u.k = t.id SET t.a = u.k WHERE u.k = {id}"),
            14 => format!("INSERT INTO t SET a = f({id})"),
            _ => "DELETE FROM log".into(),
        };
        self.query(Effect::Write, sql);
        if self.chance.one_in(2) {
            self.hint = 33;
        }
    }

    /// What asks about the statement before.
    fn diagnostics(&mut self) {
        let asks = [
            "SHOW WARNINGS",
            "SHOW ERRORS",
            "SHOW COUNT(*) WARNINGS",
            "SELECT ROW_COUNT()",
            "SELECT LAST_INSERT_ID()",
            "SELECT @@last_insert_id",
            "SELECT @@warning_count, @@error_count",
            "SELECT @@identity",
            "SHOW WARNINGS LIMIT 1",
        ];
        let sql = *self.chance.pick(&asks);
        if self.flavour == Flavour::Mariadb {
            // It keeps the warnings of before over statements without tables.
            match self.chance.below(3) {
                0 => self.query(Effect::Write, "INSERT IGNORE INTO t (id, a) VALUES (1, 'abc')"),
                1 => self.query(Effect::Read, "SELECT CAST(s AS SIGNED) FROM t ORDER BY id"),
                _ => self.query(Effect::Read, "SELECT no_such FROM t"),
            }
        }
        if self.chance.one_in(6) {
            // After anything but rows, servers answer what some statement of their own left.
            let rows = self.select();
            self.query(Effect::Read, rows);
            self.query(Effect::Read, "SELECT FOUND_ROWS()");
        }
        self.query(Effect::Read, sql);
        if self.chance.one_in(4) {
            self.hint = 33;
        }
    }

    fn set_variable(&mut self) {
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

    fn user_variable(&mut self) {
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

    fn transaction(&mut self) {
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
    fn failing(&mut self) {
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
    fn prepared(&mut self) {
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
        for _ in 0..self.chance.below(3) {
            let values: Vec<String> = first
                .iter()
                .map(|first| match (self.chance.below(4), settled) {
                    // It has the type of what was bound before, on the same connection.
                    (0, true) if !text.contains(" t ") => "7".to_owned(),
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

    fn named_statement(&mut self) {
        let sql = *self.chance.pick(&[
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
        ]);
        self.query(Effect::Write, sql);
        self.hint = *self.chance.pick(&[0, 74, 74]);
    }

    fn procedure(&mut self) {
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

    fn temporary(&mut self) {
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

    fn locking(&mut self) {
        let sql = *self.chance.pick(&[
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
        ]);
        self.query(Effect::Write, sql);
        self.hint = *self.chance.pick(&[0, 85, 1, 23]);
    }

    fn handler(&mut self) {
        let sql = *self.chance.pick(&[
            "HANDLER t OPEN",
            "HANDLER t READ FIRST",
            "HANDLER t READ NEXT",
            "HANDLER t READ `PRIMARY` = (3)",
            "HANDLER t CLOSE",
            "HANDLER t CLOSE",
        ]);
        self.query(Effect::Write, sql);
        self.hint = *self.chance.pick(&[0, 87, 87]);
    }

    fn change_user(&mut self) {
        if std::mem::take(&mut self.hides_role) {
            // MariaDB keeps it, and nobody knows which (docs/session.md).
            self.query(Effect::Write, "SET ROLE NONE");
        }
        self.script.push(Effect::Either, "changeuser", &[], "app app $S");
    }

    /// Commands without a statement.
    fn command(&mut self) {
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
    fn upload(&mut self) {
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

    fn several(&mut self) {
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

    fn show(&mut self) {
        let sql = *self.chance.pick(&[
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
        ]);
        self.query(Effect::Read, sql);
    }

    fn definition(&mut self) {
        let sql = *self.chance.pick(&[
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
        ]);
        self.query(Effect::Write, sql);
    }

    fn role_or_schema(&mut self) {
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

    fn family(&mut self) {
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
