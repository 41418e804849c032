//! From the text of a console statement to the command that it asks for. Pure.

use crate::admin::commands::{AdminCommand, Entry, TABLE};

/// Longest statement that the console reads, bytes; EXPLAIN ROUTE may carry a long one.
pub const STATEMENT_LIMIT: usize = 1 << 20;

/// Why a text is no command; each becomes error 1064 for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing but spaces, comments and semicolons.
    #[error("the statement is empty; HELP lists the commands")]
    Empty,
    /// No command begins like this.
    #[error("there is no command {found:?}{}; HELP lists the commands", guess(*nearest))]
    Unknown {
        /// The first words of the text.
        found: String,
        /// The command whose name is most like it, if one is like it at all.
        nearest: Option<&'static str>,
    },
    /// The command exists, its arguments are wrong.
    #[error("{why}; the syntax is: {syntax}")]
    Arguments {
        /// What is wrong with them.
        why: String,
        /// How the command is written.
        syntax: &'static str,
    },
}

/// What follows a command's name, word by word.
#[derive(Debug)]
pub struct Arguments<'a> {
    rest: &'a str,
}

// === impls ===

/// Reads one statement.
///
/// # Errors
/// When it is no command; the text tells what would be.
pub fn parse(text: &str) -> Result<AdminCommand, ParseError> {
    let text = trim(text);
    if text.is_empty() {
        return Err(ParseError::Empty);
    }
    for entry in TABLE {
        if let Some(rest) = strip_name(text, entry.name) {
            let mut arguments = Arguments { rest };
            return (entry.build)(&mut arguments)
                .and_then(|command| arguments.end().map(|()| command))
                .map_err(|why| ParseError::Arguments { why, syntax: entry.syntax });
        }
    }
    let found: Vec<&str> = text.split_whitespace().take(3).collect();
    let found: String = found.join(" ").chars().take(40).collect();
    Err(ParseError::Unknown { nearest: nearest(&found).map(|entry| entry.syntax), found })
}

/// The entry whose name is most like `text`; none when more than a third would have to change.
#[must_use]
pub fn nearest(text: &str) -> Option<&'static Entry> {
    let wanted = text.trim().to_ascii_uppercase();
    let distance_to = |entry: &'static Entry| {
        let words = entry.name.split(' ').count();
        let same_words: Vec<&str> = wanted.split_whitespace().take(words).collect();
        (distance(&same_words.join(" "), entry.name), entry)
    };
    let (changes, entry) = TABLE.iter().map(distance_to).min_by_key(|(changes, _)| *changes)?;
    (changes * 3 <= entry.name.len()).then_some(entry)
}

/// Without surrounding space, comments in front, and semicolons at the end.
#[must_use]
pub fn trim(text: &str) -> &str {
    let mut text = text.trim_end_matches(|c: char| c == ';' || c.is_whitespace() || c == '\0');
    loop {
        text = text.trim_start();
        let after = if let Some(comment) = text.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else if text.starts_with('#') || text.starts_with("-- ") {
            text.split_once('\n').map_or("", |(_, after)| after)
        } else {
            return text;
        };
        text = after;
    }
}

/// What follows `name` in `text`, if the text begins with the words of that name.
fn strip_name<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = text;
    for word in name.split(' ') {
        let (first, after) = split_word(rest);
        if !first.eq_ignore_ascii_case(word) {
            return None;
        }
        rest = after;
    }
    Some(rest)
}

/// The first word and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

impl<'a> Arguments<'a> {
    /// The next word if it is `keyword`, whatever its case.
    pub fn keyword(&mut self, keyword: &str) -> bool {
        let (word, after) = split_word(self.rest);
        let found = word.eq_ignore_ascii_case(keyword);
        if found {
            self.rest = after;
        }
        found
    }

    /// The next word, if there is one; quotes around it are taken off.
    pub fn word(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start();
        let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"' | '`'));
        if let Some(quote) = quote {
            let quoted = text.get(1..)?;
            let (word, after) = quoted.split_once(quote)?;
            self.rest = after;
            return Some(word);
        }
        let (word, after) = split_word(text);
        self.rest = after;
        Some(word).filter(|word| !word.is_empty())
    }

    /// The next word, which must be there.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn required(&mut self, what: &str) -> Result<&'a str, String> {
        self.word().ok_or_else(|| format!("{what} is missing"))
    }

    /// The next word as a number.
    ///
    /// # Errors
    /// A sentence that says what is missing or wrong.
    pub fn number(&mut self, what: &str, most: u32) -> Result<u32, String> {
        let word = self.required(what)?;
        let number = word.parse().ok().filter(|number| *number <= most);
        number.ok_or_else(|| format!("{what} is a number from 0 to {most}, not {word:?}"))
    }

    /// All that is left, as it is written.
    pub fn remainder(&mut self) -> &'a str {
        std::mem::take(&mut self.rest).trim_start()
    }

    fn end(&mut self) -> Result<(), String> {
        match self.rest.trim() {
            "" => Ok(()),
            left => {
                let left: String = left.chars().take(40).collect();
                Err(format!("{left:?} is one word too many"))
            }
        }
    }
}

fn guess(nearest: Option<&str>) -> String {
    nearest.map(|syntax| format!("; did you mean {syntax}?")).unwrap_or_default()
}

/// How many letters must change to make one text the other (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (b, cell) in right.iter().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = *cell;
            *cell = replaced.min(diagonal + 1).min(before + 1);
            before = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admin::commands::Override;

    #[test]
    fn commands_are_read_whatever_their_case_spacing_and_end() {
        let table = [
            ("SHOW SERVERS", AdminCommand::ShowServers),
            ("  show\n servers ;; ", AdminCommand::ShowServers),
            ("/* from a tool */ Show Servers", AdminCommand::ShowServers),
            ("-- hello\nSHOW SERVERS", AdminCommand::ShowServers),
            ("kill 17", AdminCommand::Kill { id: 17 }),
            ("KILL CONNECTION 17;", AdminCommand::Kill { id: 17 }),
            (
                "set weight main.db1 50",
                AdminCommand::SetWeight { server: "main.db1".to_owned(), weight: 50 },
            ),
            (
                "drain '10.0.0.1:3306'",
                AdminCommand::Override {
                    server: "10.0.0.1:3306".to_owned(),
                    what: Override::Drain,
                },
            ),
            (
                "EXPLAIN ROUTE select * from  t where a = ';'",
                AdminCommand::ExplainRoute {
                    group: None,
                    sql: "select * from  t where a = ';'".to_owned(),
                },
            ),
            (
                "explain route in main select 1;",
                AdminCommand::ExplainRoute {
                    group: Some("main".to_owned()),
                    sql: "select 1".to_owned(),
                },
            ),
            ("switchover", AdminCommand::SwitchOver { group: None, to: None }),
            (
                "SWITCHOVER TO db2",
                AdminCommand::SwitchOver { group: None, to: Some("db2".to_owned()) },
            ),
            (
                "switchover main to '10.0.0.2:3306'",
                AdminCommand::SwitchOver {
                    group: Some("main".to_owned()),
                    to: Some("10.0.0.2:3306".to_owned()),
                },
            ),
            (
                "explain switchover main",
                AdminCommand::ExplainSwitchOver { group: Some("main".to_owned()), to: None },
            ),
            ("FAILOVER main", AdminCommand::FailOver { group: Some("main".to_owned()) }),
            (
                "maintenance on main",
                AdminCommand::Maintain { group: Some("main".to_owned()), on: true },
            ),
            ("MAINTENANCE OFF", AdminCommand::Maintain { group: None, on: false }),
            ("help", AdminCommand::Help { topic: None }),
            ("help set weight", AdminCommand::Help { topic: Some("set weight".to_owned()) }),
        ];
        for (text, command) in table {
            assert_eq!(parse(text), Ok(command), "{text}");
        }
    }

    #[test]
    fn empty_statements_are_told_apart_from_unknown_ones() {
        for text in ["", ";", " ; ;\n", "/* x */", "/* open", "-- x", "# x"] {
            assert_eq!(parse(text), Err(ParseError::Empty), "{text}");
        }
    }

    #[test]
    fn unknown_commands_name_the_nearest_one() {
        let table = [
            ("SHOW SERVER", "SHOW SERVERS"),
            ("SHOW SESION", "SHOW SESSIONS"),
            ("SHWO TOPOLOGY", "SHOW TOPOLOGY"),
            ("RELAOD", "RELOAD"),
            ("undrian db1", "UNDRAIN [group.]server"),
        ];
        for (text, expected) in table {
            let Err(ParseError::Unknown { nearest, .. }) = parse(text) else { panic!("{text}") };
            assert_eq!(nearest, Some(expected), "{text}");
        }
        for text in ["bogus", "DELETE FROM users", "x", "é"] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.ends_with("\"; HELP lists the commands"), "{text}: {error}");
        }
    }

    #[test]
    fn wrong_arguments_show_the_syntax() {
        let table = [
            ("SET WEIGHT db1", "the weight is missing"),
            ("SET WEIGHT db1 many", "from 0 to 10000, not \"many\""),
            ("SET WEIGHT db1 -1", "from 0 to 10000"),
            ("DRAIN", "the server is missing"),
            ("DRAIN a b", "\"b\" is one word too many"),
            ("KILL QUERY 5", "KILL QUERY is not for the console"),
            ("KILL 99999999999", "a number"),
            ("EXPLAIN ROUTE", "the statement is missing"),
            ("SWITCHOVER main TO", "the server is missing"),
            ("SWITCHOVER main db2", "\"db2\" is one word too many"),
            ("EXPLAIN ROUTE IN main", "the statement is missing"),
            ("RELOAD now", "one word too many"),
        ];
        for (text, why) in table {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(why) && error.contains("the syntax is: "), "{text}: {error}");
        }
    }

    #[test]
    fn distances_are_counted_in_letters() {
        let table = [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3)];
        for (left, right, expected) in table {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }

        #[test]
        fn nothing_near_a_command_makes_it_panic(
            name in 0..TABLE.len(),
            tail in "[ ;'\"`/*#\\-a-z0-9.äé\n\0]{0,30}",
        ) {
            let _ = parse(&format!("{} {tail}", TABLE[name].name));
            let _ = parse(&format!("{}{tail}", TABLE[name].name));
        }
    }
}
