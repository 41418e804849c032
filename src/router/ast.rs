//! sqlparser's reading of a statement, for operators: which tables and functions it names.
//!
//! It explains and never decides (docs/decisions/0002-sqlparser-second-opinion.md): it refuses
//! many valid statements and overlooks executable comments, so its assent proves nothing.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, visit_expressions, visit_relations};
use sqlparser::dialect::MySqlDialect;
use sqlparser::parser::Parser;

/// Longest text that is given to the parser, bytes: it recurses over the text.
const TEXT_MAX: usize = 8 * 1024;

/// What sqlparser makes of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// It could be parsed.
    Parsed {
        /// Tables and views that it names, as written, each once.
        tables: Vec<String>,
        /// Functions that it calls, as written, each once.
        functions: Vec<String>,
    },
    /// It could not; this says why.
    Refused(String),
    /// It is longer than 8 KiB and was not tried.
    TooLong,
}

/// Reads a text.
#[must_use]
pub fn read(sql: &str) -> Reading {
    if sql.len() > TEXT_MAX {
        return Reading::TooLong;
    }
    let statements = match Parser::parse_sql(&MySqlDialect {}, sql) {
        Ok(statements) => statements,
        Err(error) => return Reading::Refused(error.to_string()),
    };
    let (mut tables, mut functions) = (Vec::new(), Vec::new());
    let _ = visit_relations(&statements, |name| {
        add(&mut tables, name.to_string());
        ControlFlow::<()>::Continue(())
    });
    let _ = visit_expressions(&statements, |expression| {
        if let Expr::Function(function) = expression {
            add(&mut functions, function.name.to_string());
        }
        ControlFlow::<()>::Continue(())
    });
    Reading::Parsed { tables, functions }
}

fn add(names: &mut Vec<String>, name: String) {
    if !names.contains(&name) {
        names.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_functions_are_named_once() {
        let reading = read("SELECT count(*), f1(a), f1(b) FROM t JOIN s.u ON t.id = u.id");
        let Reading::Parsed { tables, functions } = reading else { panic!("{reading:?}") };
        assert_eq!(tables, ["t", "s.u"]);
        assert_eq!(functions, ["count", "f1"]);
    }

    #[test]
    fn what_it_does_not_know_it_says() {
        assert!(matches!(read("HANDLER t OPEN"), Reading::Refused(_)));
        assert_eq!(read(&" ".repeat(TEXT_MAX + 1)), Reading::TooLong);
    }
}
