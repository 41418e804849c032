//! A table: columns and rows, for the wire, for people, and as JSON. Pure.

use serde_json::{Map, Value};

/// Columns and rows of texts; what is not known is `None` (NULL).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows, each with one cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Not known, or not applicable.
    Null,
    /// A number.
    Number(u64),
    /// Anything else.
    Text(String),
}

// === impls ===

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        let columns = columns.iter().map(|name| (*name).to_owned()).collect();
        Self { columns, rows: Vec::new() }
    }

    /// A table with one column and one row.
    #[must_use]
    pub fn single(column: &str, value: impl Into<Cell>) -> Self {
        let mut table = Self::new(&[column]);
        table.rows.push(vec![value.into()]);
        table
    }

    /// Adds a row; cells that are missing are NULL, cells too many are dropped.
    pub fn push<const N: usize>(&mut self, row: [Cell; N]) {
        let mut row = Vec::from(row);
        row.resize(self.columns.len(), Cell::Null);
        self.rows.push(row);
    }

    /// Whether all values of a column are numbers, so that it is one for clients too.
    #[must_use]
    pub fn is_numeric(&self, column: usize) -> bool {
        let mut numbers = 0;
        for row in &self.rows {
            match row.get(column) {
                Some(Cell::Number(_)) => numbers += 1,
                Some(Cell::Text(_)) => return false,
                Some(Cell::Null) | None => {}
            }
        }
        numbers > 0
    }

    /// The table as people read it: aligned, numbers to the right.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut widths: Vec<usize> = self.columns.iter().map(|name| name.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.show().chars().count());
            }
        }
        let mut text = String::new();
        let headings: Vec<Cell> = self.columns.iter().map(|name| name.clone().into()).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                let shown = cell.show();
                line += &match cell {
                    Cell::Number(_) => format!("{shown:>width$}  "),
                    Cell::Text(_) | Cell::Null => format!("{shown:<width$}  "),
                };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    /// The table as a list of objects.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let object = |row: &Vec<Cell>| {
            let pairs = self.columns.iter().cloned().zip(row.iter().map(Cell::to_json));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        Value::Array(self.rows.iter().map(object).collect())
    }
}

impl Cell {
    /// The cell as people read it.
    #[must_use]
    pub fn show(&self) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }

    /// The cell as the text protocol carries it; `None` is NULL.
    #[must_use]
    pub fn to_wire(&self) -> Option<Vec<u8>> {
        match self {
            Self::Null => None,
            Self::Number(_) | Self::Text(_) => Some(self.show().into_bytes()),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Number(number) => Value::from(*number),
            Self::Text(text) => Value::from(text.as_str()),
        }
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Self::Number(u64::from(number))
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["name", "weight", "lag"]);
        table.push(["db1".into(), 100u64.into(), Cell::Null]);
        table.push(["größer".into(), 5u64.into(), "0.5".into()]);
        table
    }

    #[test]
    fn text_is_aligned_by_characters() {
        let expected = "name    weight  lag\ndb1        100  NULL\ngrößer       5  0.5\n";
        assert_eq!(sample().to_text(), expected);
    }

    #[test]
    fn json_keeps_numbers_and_null() {
        let expected =
            r#"[{"lag":null,"name":"db1","weight":100},{"lag":"0.5","name":"größer","weight":5}]"#;
        assert_eq!(sample().to_json().to_string(), expected);
    }

    #[test]
    fn a_column_is_numeric_when_all_its_values_are() {
        let table = sample();
        assert_eq!([0, 1, 2].map(|column| table.is_numeric(column)), [false, true, false]);
    }

    #[test]
    fn short_rows_are_filled_up() {
        let mut table = Table::new(&["a", "b"]);
        table.push(["x".into()]);
        assert_eq!(table.rows, [vec![Cell::from("x"), Cell::Null]]);
    }
}
