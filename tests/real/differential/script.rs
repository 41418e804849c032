//! The tables of cases: text files next to this one, read line by line.
//!
//! ```text
//! case 7,9 mariadb +found_rows -local_files: what it is about
//! setup: CREATE TABLE u (a INT)          run as root before either run
//! clean: DROP USER IF EXISTS d           run as root before the setup, and at the end
//! again: 2 19                            the last 2 steps, 19 times more
//! P> SELECT a INTO @v FROM t             a query, expected on the primary
//! @1 R execute s> 1, 'x', NULL           of session 1, expected on a replica
//! ```
//!
//! A line that begins with a space continues the one before. Places: `P` primary, `R` one
//! replica, `L` where the step before ran, `X` refused by a replica and then run on the primary,
//! `-` not looked at. In texts `$S` is the case's schema, `$M` the step's marker (put in front
//! where it is not named), `$ID0` the id of session 0, `$BIG(n)` n letters, `\xHH` a byte.

use pointsman::provider::Flavour;

/// Where a step must run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Primary,
    Replica,
    SameAsLast,
    RefusedThenPrimary,
    Unseen,
}

/// One thing that a client does.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) session: usize,
    pub(super) place: Place,
    /// `query`, `execute` ...
    pub(super) verb: String,
    /// The statement's name and whatever else stands in front.
    pub(super) words: Vec<String>,
    pub(super) body: String,
    /// The line in the table.
    pub(super) line: usize,
}

/// One case.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// Number over all tables, which makes its schema and its markers.
    pub(super) number: usize,
    /// Rows of the table of hard cases.
    pub(super) rows: Vec<u16>,
    pub(super) title: String,
    pub(super) table: &'static str,
    pub(super) flavour: Option<Flavour>,
    /// Its own schema.
    pub(super) schema: String,
    /// Capabilities to add (true) or take away.
    pub(super) flags: Vec<(bool, String)>,
    pub(super) setup: Vec<String>,
    pub(super) clean: Vec<String>,
    pub(super) steps: Vec<Step>,
}

impl Case {
    pub(super) fn schema(&self) -> String {
        self.schema.clone()
    }

    fn new(head: &str, table: &'static str, number: usize) -> Self {
        let (words, title) = head.split_once(": ").expect("case ROWS [FLAGS]: TITLE");
        let mut words = words.split_whitespace();
        let rows = words.next().expect("rows").split(',');
        let mut case = Self {
            number,
            rows: rows.map(|row| row.parse().expect("a row's number")).collect(),
            title: title.to_owned(),
            table,
            flavour: None,
            schema: format!("d{number:03}"),
            flags: Vec::new(),
            setup: Vec::new(),
            clean: Vec::new(),
            steps: Vec::new(),
        };
        for word in words {
            match word.split_at(1) {
                _ if word == "mariadb" => case.flavour = Some(Flavour::Mariadb),
                _ if word == "mysql" => case.flavour = Some(Flavour::Mysql),
                ("+", flag) => case.flags.push((true, flag.to_owned())),
                ("-", flag) => case.flags.push((false, flag.to_owned())),
                _ => panic!("{table}: what is {word:?} in {head:?}?"),
            }
        }
        case
    }
}

/// Reads one table. Cases are numbered from `first` on.
pub(super) fn read(table: &'static str, text: &str, first: usize) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (line, text) in joined(text) {
        if let Some(head) = text.strip_prefix("case ") {
            cases.push(Case::new(head, table, first + cases.len()));
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("{table}:{line}: before any case"));
        if let Some(sql) = text.strip_prefix("setup: ") {
            case.setup.push(sql.to_owned());
        } else if let Some(sql) = text.strip_prefix("clean: ") {
            case.clean.push(sql.to_owned());
        } else if let Some(again) = text.strip_prefix("again: ") {
            let (steps, times) = again.split_once(' ').expect("how many steps, how often");
            let [steps, times] = [steps, times].map(|n| n.parse::<usize>().expect("a number"));
            let last = case.steps[case.steps.len() - steps..].to_vec();
            case.steps.extend(last.iter().cycle().take(steps * times).cloned());
        } else {
            let step = step(&text, line).unwrap_or_else(|| panic!("{table}:{line}: {text:?}?"));
            case.steps.push(step);
        }
    }
    cases
}

/// Lines with their continuations; comments and empty lines are left out.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some((_, last)) if line.starts_with(' ') => {
                last.push(' ');
                last.push_str(line.trim_start());
            }
            _ => lines.push((number + 1, line.to_owned())),
        }
    }
    lines
}

fn step(text: &str, line: usize) -> Option<Step> {
    let (head, body) = match text.strip_suffix('>') {
        Some(head) => (head, ""),
        None => text.split_once("> ")?,
    };
    let mut words = head.split_whitespace().peekable();
    let session = match words.peek()?.strip_prefix('@') {
        Some(number) => {
            words.next();
            number.parse().ok()?
        }
        None => 0,
    };
    let place = match words.next()? {
        "P" => Place::Primary,
        "R" => Place::Replica,
        "L" => Place::SameAsLast,
        "X" => Place::RefusedThenPrimary,
        "-" => Place::Unseen,
        _ => return None,
    };
    let option = |word: &&str| *word == "nomark" || word.starts_with("find=");
    let verb = words.next_if(|word| !option(word)).unwrap_or("query").to_owned();
    let words = words.map(str::to_owned).collect();
    Some(Step { session, place, verb, words, body: body.to_owned(), line })
}

/// Puts in what stands for something else.
pub(super) fn expand(body: &str, marker: &str, schema: &str, ids: &[Option<u32>]) -> Vec<u8> {
    let mut text = body.replace("$S", schema).replace("$M", marker);
    for (n, id) in ids.iter().enumerate() {
        text = text.replace(&format!("$ID{n}"), &id.unwrap_or(0).to_string());
    }
    while let Some(at) = text.find("$BIG(") {
        let end = at + text[at..].find(')').expect("$BIG(n)");
        let size: usize = text[at + 5..end].parse().expect("a size");
        text.replace_range(at..=end, &"x".repeat(size));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if let Some(hex) = rest.strip_prefix(br"\x").and_then(|hex| hex.get(..2)) {
            let hex = std::str::from_utf8(hex).expect("hex");
            bytes.push(u8::from_str_radix(hex, 16).expect("hex"));
            rest = &rest[4..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}
