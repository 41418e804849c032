//! The rules on one source file: what may not stand in it, how long it may be, how it is named.

use crate::source::{Source, is_word};

/// Longest file, in lines before its tests.
const FILE_LINES: usize = 600;
/// Longest function, in lines with its signature and its closing brace.
const FUNCTION_LINES: usize = 70;
/// Longest line, in characters.
const LINE_WIDTH: usize = 100;

/// Modules and files that are pure: bytes and values in, values out.
const PURE: &[&str] = &[
    "src/protocol/",
    "src/topology/",
    "src/config/",
    "src/router/",
    "src/session/",
    "src/health/judge",
    "src/health/assemble",
    "src/failover/report",
    "src/failover/standing",
    "src/failover/candidate",
    "src/failover/verdict",
    "src/failover/record",
    "src/failover/order",
    "src/failover/plan",
    "src/failover/upkeep",
    "src/accounts/host",
];

/// What a pure file may not contain: clocks, sockets, files, tasks, chance, the terminal.
const IMPURE: &[&str] = &[
    "tokio",
    "async",
    ".await",
    "arc_swap",
    "mysql_async",
    "Instant::now",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "rand",
    "println!",
    "eprintln!",
];

/// Keys, nonces and padding are made of chance, by the cryptographic library and in one file.
const OF_CHANCE: &str = "src/protocol/auth.rs";

/// State that belongs to nobody.
const GLOBAL: &[&str] =
    &["LazyLock", "OnceLock", "LazyCell", "lazy_static", "once_cell", "thread_local!"];

/// Ways to end the process, or the worker, by a mistake.
const PANICS: &[&str] = &[".unwrap()", "todo!", "unimplemented!", "dbg!"];

/// More of them, refused where a peer's bytes are read.
const PROTOCOL_PANICS: &[&str] = &[".expect(", "panic!", "unreachable!", "assert!", "assert_eq!"];

/// Tasks have a name and an owner: `app::tasks::spawn`.
const SPAWNS: &[&str] = &["tokio::spawn", "task::spawn", "spawn_local", "spawn_blocking"];

/// Words that say nothing about what a thing is.
const EMPTY_WORDS: &[&str] = &[
    "manager",
    "managers",
    "handler",
    "handlers",
    "processor",
    "processors",
    "util",
    "utils",
    "helper",
    "helpers",
    "common",
    "misc",
    "inner",
    "impl",
];

/// Everything that one file of `src` must keep.
pub(crate) fn check(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(purity(source));
    found.extend(globals(source));
    found.extend(panics(source));
    found.extend(tasks_and_queues(source));
    found.extend(file_length(source));
    found.extend(function_length(source));
    found.extend(tests_come_last(source));
    found.extend(docs(source));
    found
}

/// What tests must keep as well.
pub(crate) fn check_everywhere(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(line_width(source));
    found.extend(names(source));
    found.extend(ignored_tests(source));
    found.extend(sleeping_tests(source));
    found
}

/// One complaint per place where one of `words` stands.
fn refuse(source: &Source, words: &[&str], why: &str) -> Vec<String> {
    words
        .iter()
        .flat_map(|word| source.words(word).map(move |at| (at, word)))
        .map(|(at, word)| source.complaint(at, &format!("`{word}` {why}")))
        .collect()
}

/// Pure files contain nothing that reaches out of the process.
pub(crate) fn purity(source: &Source) -> Vec<String> {
    if PURE.iter().any(|prefix| source.path.starts_with(prefix)) {
        let allowed = |word: &&str| *word == "rand" && source.path == OF_CHANCE;
        let words: Vec<&str> = IMPURE.iter().copied().filter(|word| !allowed(word)).collect();
        refuse(source, &words, "in a pure file")
    } else {
        Vec::new()
    }
}

/// No statics: every shared thing is built once in `app` and passed in.
pub(crate) fn globals(source: &Source) -> Vec<String> {
    let mut found = refuse(source, GLOBAL, "is global state; build it in app and pass it in");
    let code = source.shipped();
    for at in source.words("static") {
        if !code[..at].ends_with('\'') {
            found.push(source.complaint(at, "`static` is global state; a `const` is fine"));
        }
    }
    found
}

/// No panics on purpose; in `protocol` none by indexing either.
pub(crate) fn panics(source: &Source) -> Vec<String> {
    let mut found = refuse(source, PANICS, "outside tests");
    if source.path.starts_with("src/protocol/") {
        found.extend(refuse(source, PROTOCOL_PANICS, "in protocol"));
        found.extend(indexing(source));
        return found;
    }
    found.extend(refuse(source, &["panic!"], "outside tests"));
    for at in source.words(".expect(") {
        let text = source.raw[at + ".expect(".len()..].trim_start();
        if !text.starts_with("\"invariant") {
            found.push(source.complaint(at, "`expect` states an invariant: \"invariant: ...\""));
        }
    }
    found
}

/// `a[i]`, `f()[i]`, `a[i][j]`: all of them can panic; the whole, `a[..]`, cannot.
fn indexing(source: &Source) -> Vec<String> {
    let code = source.shipped();
    code.match_indices('[')
        .filter(|(at, _)| {
            let before = code[..*at].chars().next_back();
            let whole = code[*at..].starts_with("[..]");
            !whole && before.is_some_and(|c| is_word(c) || c == ')' || c == ']' || c == '?')
        })
        .map(|(at, _)| source.complaint(at, "indexing can panic; use get()"))
        .collect()
}

/// One place starts tasks; every queue has a bound.
pub(crate) fn tasks_and_queues(source: &Source) -> Vec<String> {
    let unbounded = ["unbounded_channel", "UnboundedSender", "std::sync::mpsc::channel"];
    let mut found = refuse(source, &unbounded, "has no bound");
    if source.path != "src/app/tasks.rs" {
        found.extend(refuse(source, SPAWNS, "outside app::tasks"));
    }
    found
}

/// Files end before they grow out of one head.
pub(crate) fn file_length(source: &Source) -> Vec<String> {
    let lines = source.shipped().lines().count();
    if lines > FILE_LINES {
        let what = format!("{lines} lines before the tests, at most {FILE_LINES}");
        return vec![source.complaint(0, &what)];
    }
    Vec::new()
}

/// Functions end before the screen does.
pub(crate) fn function_length(source: &Source) -> Vec<String> {
    let code = source.shipped();
    let mut found = Vec::new();
    for at in source.words("fn") {
        let rest = &code[at..];
        if !rest.starts_with("fn ") {
            continue;
        }
        let Some(open) = rest.find(['{', ';']) else { continue };
        if rest.as_bytes()[open] == b';' && !rest[..open].contains('[') {
            continue;
        }
        let lines = rest[..body_end(rest)].lines().count();
        if lines > FUNCTION_LINES {
            let name: String = rest[2..].trim_start().chars().take_while(|c| is_word(*c)).collect();
            let what = format!("function `{name}` has {lines} lines, at most {FUNCTION_LINES}");
            found.push(source.complaint(at, &what));
        }
    }
    found
}

/// Where the first `{...}` of `rest` ends.
fn body_end(rest: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    rest.len()
}

/// Nothing follows the test module.
pub(crate) fn tests_come_last(source: &Source) -> Vec<String> {
    let rest = &source.code[source.tests_at..];
    if source.tests_at == 0 || rest.is_empty() {
        return Vec::new();
    }
    let end = body_end(rest);
    if rest[end..].trim().is_empty() {
        return Vec::new();
    }
    vec![source.complaint(source.tests_at + end, "code after the tests; tests come last")]
}

/// Every file says what it is; every `mod.rs` says what it does not know.
pub(crate) fn docs(source: &Source) -> Vec<String> {
    if source.path.ends_with("/tests.rs") {
        return Vec::new();
    }
    if !source.raw.starts_with("//!") {
        return vec![source.complaint(0, "starts without `//!`: say what the file is")];
    }
    let doc: Vec<&str> = source.raw.lines().take_while(|line| line.starts_with("//!")).collect();
    let doc = doc.join(" ").to_lowercase().replace('*', "");
    if source.path.ends_with("/mod.rs") && !doc.contains("does not know") {
        return vec![source.complaint(0, "a mod.rs says what it does not know: `Does not know: `")];
    }
    Vec::new()
}

/// Lines fit the screen; long literals in tests may not, and links need not.
pub(crate) fn line_width(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0;
    for line in source.raw.split_inclusive('\n') {
        let width = line.trim_end().chars().count();
        let exempt = line.contains("://") || (at >= source.tests_at && line.contains('"'));
        if width > LINE_WIDTH && !exempt {
            let what = format!("{width} characters, at most {LINE_WIDTH}");
            found.push(source.complaint(at, &what));
        }
        at += line.len();
    }
    found
}

/// Files and types are named by what they are.
pub(crate) fn names(source: &Source) -> Vec<String> {
    let mut found: Vec<String> = source
        .path
        .trim_end_matches(".rs")
        .split(['/', '_', '-', '.'])
        .filter(|word| EMPTY_WORDS.contains(word))
        .map(|word| source.complaint(0, &format!("file name contains `{word}`")))
        .collect();
    for keyword in ["struct", "enum", "trait", "type", "union"] {
        let code = source.code.as_str();
        for (at, _) in code.match_indices(keyword) {
            let alone = code[..at].chars().next_back().is_none_or(|c| !is_word(c));
            let Some(rest) = code[at + keyword.len()..].strip_prefix(' ').filter(|_| alone) else {
                continue;
            };
            let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
            for word in camel_words(&name) {
                if EMPTY_WORDS.contains(&word.as_str()) {
                    let what = format!("type name `{name}` contains `{word}`");
                    found.push(source.complaint(at, &what));
                }
            }
        }
    }
    found
}

/// `HandshakeHandler` is `handshake`, `handler`.
fn camel_words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for c in name.chars() {
        match words.last_mut() {
            Some(word) if !c.is_uppercase() => word.push(c),
            _ => words.push(c.to_lowercase().collect()),
        }
    }
    words
}

/// A test that does not run is not a test.
pub(crate) fn ignored_tests(source: &Source) -> Vec<String> {
    source
        .code
        .match_indices("#[ignore")
        .map(|(at, _)| source.complaint(at, "an ignored test is no test; run it or delete it"))
        .collect()
}

/// Tests wait on state, with a bound, in the one place that polls for it.
pub(crate) fn sleeping_tests(source: &Source) -> Vec<String> {
    if source.path == "tests/real/wait.rs" {
        return Vec::new();
    }
    source.code[source.tests_at..]
        .match_indices("thread::sleep")
        .map(|(at, _)| at + source.tests_at)
        .map(|at| source.complaint(at, "a test waits on state, never on time"))
        .collect()
}
