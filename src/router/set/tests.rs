//! SET statements as clients write them, and what they assign.

use super::*;
use crate::router::tests::dialect;
use crate::topology::Flavour;

fn set(sql: &str) -> Option<Vec<Assignment>> {
    parse(sql.as_bytes(), &dialect(Flavour::MariaDb))
}

fn one(sql: &str) -> (SetTarget, SetValue) {
    let mut list = set(sql).unwrap_or_else(|| panic!("not understood: {sql}"));
    assert_eq!(list.len(), 1, "{sql}");
    let assignment = list.remove(0);
    (assignment.target, assignment.value)
}

fn session(name: &str) -> SetTarget {
    SetTarget::Session(name.to_owned())
}

fn literal_of(text: &str) -> SetValue {
    SetValue::Literal(text.as_bytes().to_vec())
}

fn words_of(text: &str) -> SetValue {
    SetValue::Words(text.as_bytes().to_vec())
}

#[test]
fn every_spelling_of_a_session_variable_is_the_same() {
    for sql in [
        "SET sql_mode=''",
        "set SQL_MODE := ''",
        "SET SESSION sql_mode = ''",
        "SET LOCAL/**/sql_mode=''; ",
        "SET @@sql_mode=''",
        "SET @@session.sql_mode=''",
        "SET @@LOCAL . `sql_mode` = ''",
        "/*!40101 SET `sql_mode` = \"\" */",
    ] {
        assert_eq!(one(sql), (session("sql_mode"), literal_of("''")), "{sql}");
    }
}

#[test]
fn scopes_carry_over_as_words_but_not_as_prefixes() {
    let list = set("SET a=1, GLOBAL b=2, c=3, @@d=4, SESSION e=5, f=6, @@global.g=7, h=8");
    let targets: Vec<_> = list.expect("understood").into_iter().map(|a| a.target).collect();
    let global = |name: &str| SetTarget::Global(name.to_owned());
    assert_eq!(
        targets,
        [
            session("a"),
            global("b"),
            global("c"),
            session("d"),
            session("e"),
            session("f"),
            global("g"),
            session("h"),
        ]
    );
    let (target, _) = one("SET PERSIST validate_password.policy = LOW");
    assert_eq!(target, SetTarget::Persist("validate_password.policy".to_owned()));
}

#[test]
fn user_variables_keep_their_literals() {
    let user = |name: &str| SetTarget::UserVar(name.as_bytes().to_vec());
    for (sql, text) in [
        ("SET @A = -5", "-5"),
        ("SET @a := 'it''s'", "'it''s'"),
        ("SET @`a` = _utf8mb4 x'41'", "_utf8mb4 x'41'"),
        ("SET @'a' = NULL", "NULL"),
        ("SET @a = \"b\"", "'b'"),
        ("SET @a = _latin1'b' COLLATE latin1_bin", "_latin1 'b' COLLATE latin1_bin"),
        ("SET @a = 1.5e3", "1.5e3"),
    ] {
        assert_eq!(one(sql), (user("a"), literal_of(text)), "{sql}");
    }
    for sql in [
        "SET @a = NOW(6)",
        "SET @a = (SELECT 1, 2)",
        "SET @a = @b",
        "SET @a = 'c:\\\\d'",
        "SET @a = 'é'",
        "SET @a = x",
        "SET @a = @b := 3",
    ] {
        assert_eq!(one(sql), (user("a"), SetValue::Expression), "{sql}");
    }
    let mixed = set("SET @x=(SELECT 1), autocommit=0").expect("understood");
    let second = Assignment { target: session("autocommit"), value: literal_of("0") };
    assert_eq!(mixed.get(1), Some(&second));
}

#[test]
fn forms_of_their_own_keep_their_words() {
    for (sql, target, value) in [
        ("SET NAMES utf8mb4", SetTarget::Names, words_of("utf8mb4")),
        (
            "SET NAMES 'utf8mb4' /* x */ COLLATE  utf8mb4_bin",
            SetTarget::Names,
            words_of("'utf8mb4' COLLATE utf8mb4_bin"),
        ),
        ("SET NAMES DEFAULT", SetTarget::Names, SetValue::Default),
        ("SET CHARACTER SET utf8", SetTarget::CharacterSet, words_of("utf8")),
        ("SET CHARSET 'latin1'", SetTarget::CharacterSet, words_of("'latin1'")),
        ("SET TRANSACTION READ ONLY", SetTarget::NextTransaction, words_of("READ ONLY")),
        (
            "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            SetTarget::SessionTransaction,
            words_of("ISOLATION LEVEL SERIALIZABLE"),
        ),
        ("SET ROLE r", SetTarget::Role, words_of("r")),
        ("SET DEFAULT ROLE r FOR u", SetTarget::DefaultRole, words_of("r FOR u")),
        ("SET PASSWORD FOR u = 'x'", SetTarget::Password, SetValue::Expression),
        ("SET autocommit = ON", session("autocommit"), words_of("ON")),
        ("SET sql_mode = DEFAULT", session("sql_mode"), SetValue::Default),
        ("SET sql_mode=CONCAT(@@sql_mode, ',X')", session("sql_mode"), SetValue::Expression),
    ] {
        assert_eq!(one(sql), (target, value), "{sql}");
    }
    let list = set("SET NAMES utf8, autocommit=1").expect("understood");
    assert_eq!(list.len(), 2);
}

#[test]
fn what_is_not_understood_is_not_half_understood() {
    for sql in [
        "SET",
        "SET a",
        "SET a=",
        "SET @ = 1",
        "SET a=1; SET b=2",
        "SET a=1,",
        "SET a=1, b",
        "SELECT 1",
        "SET a='",
        "SET STATEMENT a=1 FOR SELECT 1",
    ] {
        assert_eq!(set(sql), None, "{sql}");
    }
}
