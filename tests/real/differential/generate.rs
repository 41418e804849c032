//! Scripts of statements by chance, the same for the same seed: what a session may do, in the
//! tables' own form, so that a script that failed can become a case.

use pointsman::provider::Flavour;

use super::script::{Case, Place, Step};
use crate::chance::SplitMix;

mod topics;

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

    fn one_of(&mut self, effect: Effect, texts: &[&str]) {
        let sql = *self.chance.pick(texts);
        self.query(effect, sql);
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
}
