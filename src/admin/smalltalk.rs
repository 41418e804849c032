//! What clients ask by themselves when they connect: variables, versions, their own name. Pure.
//!
//! Only enough to make the mariadb and mysql command lines and common drivers feel at home;
//! everything else is a console command or an error.

use crate::admin::table::{Cell, Table};

/// Who asks.
#[derive(Debug, Clone)]
pub struct Asker {
    /// The console's user.
    pub user: String,
    /// The peer's host, without its port.
    pub host: String,
    /// The connection's id.
    pub id: u32,
    /// The version that the greeting announced.
    pub version: String,
}

/// An answer to small talk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Fine.
    Fine,
    /// A result set.
    Table(Table),
    /// A column that does not exist (1054).
    NoColumn(String),
    /// A variable that does not exist (1193).
    NoVariable(String),
}

/// Variables that clients ask for, as an ordinary server would answer. `socket` is empty: a
/// client that prefers a unix socket would otherwise leave for another server.
const VARIABLES: &[(&str, &str)] = &[
    ("auto_increment_increment", "1"),
    ("autocommit", "1"),
    ("character_set_client", "utf8mb4"),
    ("character_set_connection", "utf8mb4"),
    ("character_set_database", "utf8mb4"),
    ("character_set_results", "utf8mb4"),
    ("character_set_server", "utf8mb4"),
    ("collation_connection", "utf8mb4_general_ci"),
    ("collation_database", "utf8mb4_general_ci"),
    ("collation_server", "utf8mb4_general_ci"),
    ("default_storage_engine", "none"),
    ("init_connect", ""),
    ("interactive_timeout", "28800"),
    ("license", "MIT OR Apache-2.0"),
    ("lower_case_table_names", "0"),
    ("max_allowed_packet", "1048576"),
    ("net_buffer_length", "16384"),
    ("net_read_timeout", "30"),
    ("net_write_timeout", "60"),
    ("performance_schema", "0"),
    ("protocol_version", "10"),
    ("query_cache_size", "0"),
    ("query_cache_type", "OFF"),
    ("read_only", "0"),
    ("socket", ""),
    ("sql_mode", ""),
    ("sql_select_limit", "18446744073709551615"),
    ("system_time_zone", "UTC"),
    ("time_zone", "SYSTEM"),
    ("transaction_isolation", "REPEATABLE-READ"),
    ("transaction_read_only", "0"),
    ("tx_isolation", "REPEATABLE-READ"),
    ("tx_read_only", "0"),
    ("version_comment", "pointsman console; HELP lists the commands"),
    ("version_compile_machine", ""),
    ("version_compile_os", "Linux"),
    ("wait_timeout", "28800"),
];

/// Statements that change nothing here, by their first word.
const FINE: &[&str] = &["SET", "USE", "BEGIN", "START", "COMMIT", "ROLLBACK", "DO"];

// === impls ===

/// Answers small talk; `None` when it is none. `text` comes without comments in front and
/// without a semicolon at the end.
#[must_use]
pub fn answer(text: &str, asker: &Asker) -> Option<Answer> {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let first = first.to_ascii_uppercase();
    match first.as_str() {
        // A client that forgets the semicolon sends the next line with it.
        "USE" if rest.split_whitespace().count() != 1 => None,
        word if FINE.contains(&word) => Some(Answer::Fine),
        "SELECT" => Some(select(rest, asker)),
        "SHOW" => show(rest, asker),
        _ => None,
    }
}

// === SELECT ===

/// A list of variables, functions and literals, each with an optional name of its own.
fn select(list: &str, asker: &Asker) -> Answer {
    let mut table = Table::new(&[]);
    let mut row = Vec::new();
    for item in split_list(without_limit(list)) {
        let (expression, name) = split_alias(item);
        match value(expression, asker) {
            Ok(cell) => {
                table.columns.push(name.to_owned());
                row.push(cell);
            }
            Err(answer) => return answer,
        }
    }
    table.rows.push(row);
    Answer::Table(table)
}

fn value(expression: &str, asker: &Asker) -> Result<Cell, Answer> {
    if let Some(variable) = expression.strip_prefix("@@") {
        return variable_value(variable, asker);
    }
    if let Some(quote @ ('\'' | '"')) = expression.chars().next() {
        let text = expression.trim_matches(quote);
        return Ok(text.into());
    }
    if let Ok(number) = expression.parse::<u64>() {
        return Ok(number.into());
    }
    let call: String = expression.chars().filter(|c| !c.is_whitespace()).collect();
    let who = || format!("{}@{}", asker.user, asker.host);
    match call.to_ascii_uppercase().as_str() {
        "USER()" | "CURRENT_USER()" | "CURRENT_USER" | "SESSION_USER()" | "SYSTEM_USER()" => {
            Ok(who().into())
        }
        "DATABASE()" | "SCHEMA()" | "NULL" => Ok(Cell::Null),
        "VERSION()" => Ok(asker.version.as_str().into()),
        "CONNECTION_ID()" => Ok(asker.id.into()),
        "TRUE" => Ok(1u64.into()),
        "FALSE" => Ok(0u64.into()),
        _ => Err(Answer::NoColumn(expression.chars().take(64).collect())),
    }
}

fn variable_value(name: &str, asker: &Asker) -> Result<Cell, Answer> {
    let name = name.to_ascii_lowercase().replace('`', "");
    let bare = ["session.", "global.", "local."]
        .iter()
        .find_map(|scope| name.strip_prefix(scope))
        .unwrap_or(&name)
        .trim();
    let found = variables(asker).find(|(known, _)| *known == bare);
    match found {
        Some((_, value)) => Ok(value.parse::<u64>().map_or_else(|_| value.into(), Cell::Number)),
        None => Err(Answer::NoVariable(bare.chars().take(64).collect())),
    }
}

fn variables(asker: &Asker) -> impl Iterator<Item = (&'static str, &str)> {
    let version = ("version", asker.version.as_str());
    VARIABLES.iter().copied().chain(std::iter::once(version))
}

/// Without FROM DUAL and LIMIT n at the end.
fn without_limit(list: &str) -> &str {
    let mut list = list.trim_end();
    for word in ["LIMIT", "FROM"] {
        let upper = list.to_ascii_uppercase();
        if let Some(at) = upper.rfind(&format!(" {word} ")) {
            let tail = upper.get(at + word.len() + 2..).unwrap_or_default().trim();
            if tail == "DUAL" || tail.parse::<u64>().is_ok() {
                list = list.get(..at).unwrap_or(list).trim_end();
            }
        }
    }
    list
}

/// The items between commas that stand in no quotes and no brackets.
fn split_list(list: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let mut quote = None;
    let mut depth = 0usize;
    let mut start = 0;
    for (at, c) in list.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                items.push(list.get(start..at).unwrap_or_default().trim());
                start = at + 1;
            }
            (None, _) => {}
        }
    }
    items.push(list.get(start..).unwrap_or_default().trim());
    items
}

/// The expression and its name: what stands behind AS, else the expression as it is written.
fn split_alias(item: &str) -> (&str, &str) {
    let upper = item.to_ascii_uppercase();
    let split = upper.rfind(" AS ").and_then(|at| Some((item.get(..at)?, item.get(at + 4..)?)));
    match split {
        Some((expression, name)) => {
            (expression.trim(), name.trim().trim_matches(|c| matches!(c, '`' | '\'' | '"')))
        }
        None => (item, item),
    }
}

// === SHOW ===

fn show(rest: &str, asker: &Asker) -> Option<Answer> {
    let upper = rest.to_ascii_uppercase();
    let mut words = upper.split_whitespace().peekable();
    while words.next_if(|word| matches!(*word, "GLOBAL" | "SESSION" | "LOCAL" | "FULL")).is_some() {
    }
    let what = words.next()?;
    let next = words.next().unwrap_or_default();
    let table = match (what, next) {
        ("VARIABLES", _) => {
            let mut table = Table::new(&["Variable_name", "Value"]);
            let wanted = pattern(rest);
            for (name, value) in variables(asker) {
                if wanted.as_deref().is_none_or(|wanted| like(name, wanted)) {
                    table.push([name.into(), value.into()]);
                }
            }
            table
        }
        ("STATUS", _) => Table::new(&["Variable_name", "Value"]),
        ("WARNINGS" | "ERRORS", _) => Table::new(&["Level", "Code", "Message"]),
        ("COUNT(*)", _) => Table::single("@@session.warning_count", 0u64),
        ("DATABASES" | "SCHEMAS", _) => Table::new(&["Database"]),
        ("TABLES", _) => Table::new(&["Tables"]),
        ("PLUGINS", _) => Table::new(&["Name", "Status", "Type", "Library", "License"]),
        ("ENGINES", _) => Table::new(&["Engine", "Support", "Comment"]),
        ("COLLATION", _) => Table::new(&["Collation", "Charset", "Id", "Default", "Compiled"]),
        ("CHARACTER", "SET") | ("CHARSET", _) => {
            Table::new(&["Charset", "Description", "Default collation", "Maxlen"])
        }
        _ => return None,
    };
    Some(Answer::Table(table))
}

/// The text of `LIKE '...'`, or of `= '...'` in a WHERE, in lower case.
fn pattern(text: &str) -> Option<String> {
    let start = text.find(['\'', '"'])?;
    let quote = text.get(start..)?.chars().next()?;
    let rest = text.get(start + 1..)?;
    Some(rest.split(quote).next()?.to_ascii_lowercase())
}

/// LIKE with `%` and `_`, both without case. Iterative: no pattern makes it slow.
fn like(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let (mut at, mut wanted) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(wanted) {
            Some(b'%') => {
                retry = Some((at, wanted));
                wanted += 1;
            }
            Some(c) if *c == b'_' || text.get(at) == Some(c) => {
                at += 1;
                wanted += 1;
            }
            Some(_) | None => match retry {
                Some((from, percent)) => {
                    retry = Some((from + 1, percent));
                    at = from + 1;
                    wanted = percent + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(wanted..).unwrap_or_default().iter().all(|c| *c == b'%')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asker() -> Asker {
        Asker {
            user: "admin".to_owned(),
            host: "127.0.0.1".to_owned(),
            id: 7,
            version: "8.0.0-pointsman".to_owned(),
        }
    }

    fn table(text: &str) -> Table {
        match answer(text, &asker()) {
            Some(Answer::Table(table)) => table,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_clients_select_when_they_connect() {
        let comment = "pointsman console; HELP lists the commands";
        let cases: &[(&str, &[&str], &[Cell])] = &[
            ("select @@version_comment limit 1", &["@@version_comment"], &[comment.into()]),
            (
                "SELECT @@max_allowed_packet,@@wait_timeout,@@socket",
                &["@@max_allowed_packet", "@@wait_timeout", "@@socket"],
                &[1_048_576u64.into(), 28_800u64.into(), "".into()],
            ),
            ("SELECT @@session.autocommit AS `ac`", &["ac"], &[1u64.into()]),
            (
                "select DATABASE(), USER() limit 1",
                &["DATABASE()", "USER()"],
                &[Cell::Null, "admin@127.0.0.1".into()],
            ),
            ("SELECT CONNECTION_ID()", &["CONNECTION_ID()"], &[7u64.into()]),
            ("SELECT 1", &["1"], &[1u64.into()]),
            ("SELECT 1 FROM DUAL", &["1"], &[1u64.into()]),
            ("SELECT 'a, b' AS x, 2", &["x", "2"], &["a, b".into(), 2u64.into()]),
            ("SELECT VERSION()", &["VERSION()"], &["8.0.0-pointsman".into()]),
        ];
        for (text, columns, row) in cases {
            let table = table(text);
            assert_eq!(table.columns, *columns, "{text}");
            assert_eq!(table.rows, [row.to_vec()], "{text}");
        }
    }

    #[test]
    fn what_does_not_exist_is_said_to_not_exist() {
        let no_column = Some(Answer::NoColumn("$$".to_owned()));
        assert_eq!(answer("SELECT $$", &asker()), no_column);
        let no_variable = Some(Answer::NoVariable("nonsense".to_owned()));
        assert_eq!(answer("SELECT @@nonsense", &asker()), no_variable);
        assert_eq!(answer("DELETE FROM t", &asker()), None);
        assert_eq!(answer("SHOW SERVER", &asker()), None);
        assert_eq!(answer("use main\nSHOW TOPOLOGY", &asker()), None);
    }

    #[test]
    fn settings_and_transactions_are_fine() {
        for text in
            ["SET NAMES utf8mb4", "set autocommit=0", "COMMIT", "START TRANSACTION", "USE x"]
        {
            assert_eq!(answer(text, &asker()), Some(Answer::Fine), "{text}");
        }
    }

    #[test]
    fn variables_are_shown_by_pattern() {
        let one = table("SHOW VARIABLES LIKE 'lower_case_%'");
        assert_eq!(one.rows, [vec![Cell::from("lower_case_table_names"), "0".into()]]);
        let one = table("SHOW SESSION VARIABLES WHERE Variable_name = 'version'");
        assert_eq!(one.rows, [vec![Cell::from("version"), "8.0.0-pointsman".into()]]);
        assert!(table("SHOW VARIABLES").rows.len() > 30);
        assert_eq!(table("SHOW WARNINGS").rows.len(), 0);
    }

    #[test]
    fn like_matches_as_in_sql() {
        let table = [
            ("abc", "abc", true),
            ("abc", "a%", true),
            ("abc", "%c", true),
            ("abc", "_b_", true),
            ("abc", "%", true),
            ("", "%", true),
            ("abc", "ab", false),
            ("abc", "_", false),
            ("abc", "b%", false),
            ("aab", "%ab", true),
            ("abc", "", false),
        ];
        for (text, pattern, expected) in table {
            assert_eq!(like(text, pattern), expected, "{text} like {pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            let _ = answer(&text, &asker());
        }

        #[test]
        fn nothing_near_small_talk_makes_it_panic(
            text in "(SELECT|SHOW|SET)( |,|@@|@|'|\"|`|\\(|\\)|AS|LIMIT|FROM|LIKE|VARIABLES|%|_|é|1|x){0,20}",
        ) {
            let _ = answer(&text, &asker());
        }
    }
}
