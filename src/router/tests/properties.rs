//! What must hold for every text, not only for those that somebody thought of.

use proptest::prelude::*;

use super::*;

/// Pieces from which statements, good and bad, are put together.
const PIECES: &[&str] = &[
    "SELECT",
    "a",
    "b",
    ",",
    "(",
    ")",
    "1",
    "'x'",
    "FROM",
    "t",
    "WHERE",
    "FOR",
    "UPDATE",
    "SHARE",
    "LOCK",
    "IN",
    "MODE",
    "INTO",
    "@v",
    ":=",
    "f(",
    "abs(",
    "db.",
    ".",
    "WITH",
    "c",
    "AS",
    "UNION",
    "/*",
    "*/",
    "/*!",
    "/*!50000",
    "/*M!",
    "-- ",
    "\n",
    "#",
    "`",
    "\"",
    "'",
    "\\",
    ";",
    "EXPLAIN",
    "ANALYZE",
    "SHOW",
    "TABLES",
    "SET",
    "STATEMENT",
    "=",
    "DELETE",
    "VALUES",
    "DESC",
    "@@",
    "global",
    "socket",
    "KILL",
    "5",
    "KILL QUERY",
    "CONNECTION_ID()",
    "\u{e9}",
    "{",
    "GET_LOCK(",
    "NEXT",
    "VALUE",
    "0x1",
    "1e5",
    "x'",
    "DO",
    "JSON_TABLE(",
    "COLUMNS",
    "POINT(",
    "BEGIN",
    "END",
    "-",
    "/",
    ".",
    "$",
    "12",
    "PREPARE",
    "NAMES",
];

fn statement() -> impl Strategy<Value = String> {
    let piece = (0..PIECES.len(), any::<bool>());
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| {
        let mut text = String::new();
        for (index, space) in pieces {
            text.push_str(PIECES[index]);
            text.push_str(if space { " " } else { "" });
        }
        text
    })
}

fn look_at_everything(sql: &[u8], dialect: &Dialect) {
    let class = classify(sql, dialect);
    assert_eq!(class.kind == Kind::Read, class.reason == Reason::PlainRead);
    let _ = digest::text(sql, dialect);
    let _ = hint::parse(sql, dialect);
    let _ = set::parse(sql, dialect);
    let _ = rewrite::virtualise(sql, dialect, 7);
    if let Some(kill) = kill::parse(sql, dialect) {
        assert!(sql.get(kill.id_span).is_some());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        sql in proptest::collection::vec(any::<u8>(), 0..200), mode in 0u8..8, charset in 0u8..6
    ) {
        let charset = [Charset::AsciiSafe, Charset::Gbk, Charset::Big5, Charset::Sjis,
            Charset::Gb18030, Charset::Unknown][usize::from(charset)];
        let dialect = Dialect {
            ansi_quotes: mode & 1 != 0,
            no_backslash_escapes: mode & 2 != 0,
            charset,
            ..dialect(if mode & 4 == 0 { Flavour::MySql } else { Flavour::MariaDb })
        };
        look_at_everything(&sql, &dialect);
    }

    #[test]
    fn no_statement_makes_it_panic(sql in statement()) {
        each(BOTH, |dialect| look_at_everything(sql.as_bytes(), &dialect));
    }

    #[test]
    fn a_text_and_its_shape_are_of_one_class(sql in statement(), mode in 0u8..8) {
        each(BOTH, |dialect| {
            let dialect = Dialect {
                ansi_quotes: mode & 1 != 0,
                no_backslash_escapes: mode & 2 != 0,
                oracle: mode & 4 != 0,
                ..dialect
            };
            let mut shape = Vec::new();
            if shape::of(sql.as_bytes(), &dialect, &mut shape) {
                let of_text = classify(sql.as_bytes(), &dialect);
                assert_eq!(of_text, classify(&shape, &dialect), "{sql:?}");
            }
        });
    }

    #[test]
    fn case_and_comments_in_front_never_make_a_read(sql in statement()) {
        // `0X1` is a name and `0x1` a number; `/*m!` is a comment and `/*M!` code.
        let sql = sql.replace("0x", "0").replace("/*M!", "/*!");
        each(BOTH, |dialect| {
            let kind = classify(sql.as_bytes(), &dialect).kind;
            for other in [
                sql.to_ascii_uppercase(),
                sql.to_ascii_lowercase(),
                format!("/* x */{sql}"),
                format!("-- x\n{sql}"),
                format!("/*!50000 */{sql}"),
            ] {
                let found = classify(other.as_bytes(), &dialect).kind;
                assert!(found != Kind::Read || kind == Kind::Read, "{sql:?} {other:?}");
            }
        });
    }

    #[test]
    fn what_follows_a_read_in_an_executable_comment_counts(
        open in prop::sample::select(vec!["/*!", "/*!50000 ", "/*!99999 ", "/*M!", "/*M!100100 "]),
        danger in prop::sample::select(vec!["FOR UPDATE", "LOCK IN SHARE MODE", ", f1()",
            "INTO @x", "+ (@a := 1)", "; DELETE FROM t"]),
        comment in prop::sample::select(vec!["", "/* */", "/*!50000 */ "]),
    ) {
        let sql = format!("SELECT 1 {open}{comment}{danger}*/");
        each(BOTH, |dialect| {
            assert_eq!(classify(sql.as_bytes(), &dialect).kind, Kind::Primary, "{sql}");
        });
    }

    #[test]
    fn comments_between_words_never_make_a_read(
        row in 0..NOT_READS.len(),
        comment in prop::sample::select(vec!["/**/", "/* x */", "/*+ x */", "-- x\n", "#\n"]),
    ) {
        let (_, flavours, sql, _) = NOT_READS[row];
        // Not inside of strings and comments, where it would be text.
        if !sql.contains(['\'', '"', '`']) && !sql.contains("/*") {
            let other = sql.replace(' ', &format!(" {comment} "));
            each(flavours, |dialect| {
                let kind = classify(other.as_bytes(), &dialect).kind;
                assert_eq!(kind, Kind::Primary, "{other}");
            });
        }
    }
}
