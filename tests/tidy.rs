//! The rules of the house, as tests. STYLE.md says them in prose; ARCHITECTURE.md says why.
//!
//! Every rule comes with a sample that breaks it, so that a rule which no longer bites shows.

use std::path::{Path, PathBuf};

use crate::source::Source;

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` that ends in `suffix`, as paths from the root; what builds and
/// package installers leave behind is no part of the house.
fn files(folder: &str, suffix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "node_modules" {
                    open.push(path);
                }
            } else if name.ends_with(suffix) {
                let inside = path.strip_prefix(root()).unwrap_or(&path);
                found.push(inside.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}

fn read(path: &str) -> String {
    match std::fs::read_to_string(root().join(path)) {
        Ok(text) => text,
        Err(error) => panic!("{path}: {error}"),
    }
}

fn sources(folder: &str) -> Vec<Source> {
    files(folder, ".rs").iter().map(|path| Source::new(path, &read(path))).collect()
}

/// Fails with all complaints at once.
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_module_imports_only_what_its_layer_allows() {
    none(sources("src").iter().flat_map(imports::check).collect());
}

#[test]
fn every_source_file_keeps_the_rules() {
    let all = sources("src");
    assert!(all.len() > 5, "the sources were not found");
    none(all.iter().flat_map(rules::check).collect());
}

#[test]
fn names_widths_and_waits_are_right_in_tests_and_benches_too() {
    let folders = ["src", "tests", "benches", "examples"];
    let all = folders.iter().flat_map(|folder| sources(folder));
    none(all.flat_map(|source| rules::check_everywhere(&source)).collect());
}

#[test]
fn links_between_documents_resolve() {
    let documents = files("", ".md");
    none(documents.iter().flat_map(|path| documents::links(root(), path, &read(path))).collect());
}

#[test]
fn the_code_map_names_each_top_level_module_once() {
    let mut modules: Vec<String> = files("src", ".rs")
        .iter()
        .filter_map(|path| path.strip_prefix("src/")?.split('/').next().map(str::to_owned))
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .filter(|name| name != "main" && name != "lib")
        .collect();
    modules.dedup();
    none(documents::map(&read("ARCHITECTURE.md"), &modules));
}

/// How many complaints `rule` has about `text` as the file at `path`.
fn complaints(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) -> usize {
    rule(&Source::new(path, text)).len()
}

#[test]
fn a_forbidden_import_is_seen_in_every_form() {
    let bad = [
        ("src/protocol/packet.rs", "use crate::topology::Node;"),
        ("src/router/lexer.rs", "fn f() { crate::protocol::packet::parse(); }"),
        ("src/router/lexer.rs", "use super::super::session::Session;"),
        ("src/router/lexer.rs", "use crate::{\n    config::Config,\n    net::{drive, Stream},\n};"),
        ("src/net/drive.rs", "use crate::app::App;"),
        ("src/accounts/mod.rs", "use crate::health::probe::Probe;"),
        ("src/health/judge.rs", "use crate::protocol::login;"),
        ("src/novelty.rs", "use crate::config::Config;"),
    ];
    for (path, text) in bad {
        assert!(complaints(imports::check, path, text) > 0, "{path}: {text}");
    }
    let good = [
        ("src/router/lexer.rs", "use crate::topology::Flavour;\nuse super::Class;"),
        ("src/net/drive.rs", "use crate::app::tasks::spawn;\nuse crate::session::Session;"),
        ("src/accounts/mod.rs", "use crate::health::cell::TopologyCell;"),
        ("src/health/probe.rs", "use crate::protocol::login;"),
        ("src/app/mod.rs", "use crate::net::listen;"),
        (
            "src/router/lexer.rs",
            "// use crate::net::drive;\n#[cfg(test)]\nmod tests { use crate::net::X; }",
        ),
    ];
    for (path, text) in good {
        assert_eq!(complaints(imports::check, path, text), 0, "{path}: {text}");
    }
}

#[test]
fn impurity_is_seen_in_pure_files_only() {
    let bad = [
        "use tokio::time;",
        "async fn f() {}",
        "let now = Instant::now();",
        "let x = std::fs::read(p);",
        "println!(\"x\");",
        "let s = TcpStream::connect(a);",
    ];
    for text in bad {
        assert!(complaints(rules::purity, "src/session/mod.rs", text) > 0, "{text}");
        assert!(complaints(rules::purity, "src/health/judge.rs", text) > 0, "{text}");
        assert_eq!(complaints(rules::purity, "src/net/drive.rs", text), 0, "{text}");
    }
    let good = "/// No tokio here.\nlet operand = brand; const S: &str = r#\"async \"tokio\"\"#;";
    assert_eq!(complaints(rules::purity, "src/router/mod.rs", good), 0);
}

#[test]
fn globals_are_seen() {
    for text in ["static X: u8 = 1;", "pub static mut Y: u8 = 1;", "use std::sync::OnceLock;"] {
        assert!(complaints(rules::globals, "src/net/mod.rs", text) > 0, "{text}");
    }
    let good = "const A: &'static str = \"static\"; fn f(x: &'static str) { let statics = 1; }";
    assert_eq!(complaints(rules::globals, "src/net/mod.rs", good), 0);
}

#[test]
fn panics_are_seen() {
    let everywhere = ["x.unwrap();", "panic!();", "todo!()", "x.expect(\"it works\");"];
    for text in everywhere {
        assert!(complaints(rules::panics, "src/net/mod.rs", text) > 0, "{text}");
    }
    let protocol =
        ["x.expect(\"invariant: a\");", "buf[0]", "f()[1]", "a[i][j]", "a[..1]", "assert!(x);"];
    for text in protocol {
        assert!(complaints(rules::panics, "src/protocol/packet.rs", text) > 0, "{text}");
    }
    let good =
        "#[derive(Debug)] fn f(a: &[u8], b: [u8; 2]) -> Vec<[u8; 2]> { vec![a[..], b] } // a[0]";
    assert_eq!(complaints(rules::panics, "src/protocol/packet.rs", good), 0);
    let stated = "x.expect(\"invariant: just pushed\"); x.unwrap_or(1); // x.unwrap()";
    assert_eq!(complaints(rules::panics, "src/net/mod.rs", stated), 0);
    let in_tests = "#[cfg(test)]\nmod tests {\n    fn f() { x.unwrap(); }\n}\n";
    assert_eq!(complaints(rules::panics, "src/protocol/packet.rs", in_tests), 0);
}

#[test]
fn tasks_without_an_owner_and_queues_without_a_bound_are_seen() {
    for text in ["tokio::spawn(f);", "tokio::task::spawn_local(f);", "mpsc::unbounded_channel();"] {
        assert!(complaints(rules::tasks_and_queues, "src/net/drive.rs", text) > 0, "{text}");
    }
    let good = "crate::app::tasks::spawn(\"probe\", f); mpsc::channel(16);";
    assert_eq!(complaints(rules::tasks_and_queues, "src/net/drive.rs", good), 0);
    let owner = "tokio::task::spawn(f)";
    assert_eq!(complaints(rules::tasks_and_queues, "src/app/tasks.rs", owner), 0);
}

#[test]
fn long_files_functions_and_lines_are_seen() {
    let file = |lines: usize| "//! x\n".repeat(lines);
    assert_eq!(complaints(rules::file_length, "src/a.rs", &file(600)), 0);
    assert_eq!(complaints(rules::file_length, "src/a.rs", &file(601)), 1);
    let tests = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", file(600), file(300));
    assert_eq!(complaints(rules::file_length, "src/a.rs", &tests), 0);

    let function = |lines: usize| format!("fn f() {{\n{}}}\n", "    g(\"}\");\n".repeat(lines - 2));
    assert_eq!(complaints(rules::function_length, "src/a.rs", &function(70)), 0);
    assert_eq!(complaints(rules::function_length, "src/a.rs", &function(71)), 1);

    assert_eq!(complaints(rules::line_width, "src/a.rs", &"é".repeat(100)), 0);
    assert_eq!(complaints(rules::line_width, "src/a.rs", &"x".repeat(101)), 1);
    assert_eq!(complaints(rules::line_width, "tests/a.rs", &format!("\"{}\"", "x".repeat(200))), 0);
}

#[test]
fn code_after_the_tests_is_seen() {
    let bad = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
    assert_eq!(complaints(rules::tests_come_last, "src/a.rs", bad), 1);
    let good = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
    assert_eq!(complaints(rules::tests_come_last, "src/a.rs", good), 0);
    let beside = "#[cfg(test)]\nmod tests;\nfn c() { x.unwrap(); }\n";
    assert_eq!(complaints(rules::tests_come_last, "src/a.rs", beside), 0);
    assert_eq!(complaints(rules::panics, "src/a.rs", beside), 1);
}

#[test]
fn missing_docs_are_seen() {
    assert_eq!(complaints(rules::docs, "src/a.rs", "use x;"), 1);
    assert_eq!(complaints(rules::docs, "src/a.rs", "//! What it is."), 0);
    assert_eq!(complaints(rules::docs, "src/a/mod.rs", "//! What it is."), 1);
    assert_eq!(complaints(rules::docs, "src/a/mod.rs", "//! It.\n//!\n//! Does not know: b."), 0);
}

#[test]
fn empty_names_are_seen() {
    for text in ["struct PoolManager;", "pub(crate) enum HandlerKind {}", "trait QueryProcessor {}"]
    {
        assert_eq!(complaints(rules::names, "src/a.rs", text), 1, "{text}");
    }
    for path in ["src/util.rs", "src/net/helpers.rs", "tests/common/mod.rs", "src/conn_inner.rs"] {
        assert_eq!(complaints(rules::names, path, ""), 1, "{path}");
    }
    let good = "struct Winner; impl Prehandled {} enum Utility {} // struct Manager";
    assert_eq!(complaints(rules::names, "src/dinner.rs", good), 0);
}

#[test]
fn tests_that_do_not_run_or_that_sleep_are_seen() {
    let ignored = "#[cfg(test)]\nmod tests {\n    #[test]\n    #[ignore]\n    fn f() {}\n}\n";
    assert_eq!(complaints(rules::ignored_tests, "src/a.rs", ignored), 1);
    let sleeping = "fn f() { std::thread::sleep(d); }";
    assert_eq!(complaints(rules::sleeping_tests, "tests/real/cases.rs", sleeping), 1);
    assert_eq!(complaints(rules::sleeping_tests, "tests/real/wait.rs", sleeping), 0);
}

#[test]
fn dead_links_and_missing_rooms_are_seen() {
    let text =
        "[a](Cargo.toml) [b](nowhere.md)\n[c](https://x.org) [d](#here)\n```\n[e](no.md)\n```\n";
    assert_eq!(documents::links(root(), "x.md", text).len(), 1);
    assert_eq!(documents::links(root(), "docs/x.md", "[a](../Cargo.toml)").len(), 0);
    let modules = ["net".to_owned(), "admin".to_owned()];
    assert_eq!(documents::map("| `net` | x |\n| `admin` | y |\n", &modules).len(), 0);
    assert_eq!(documents::map("| `net` | x |\n| `net` | y |\n", &modules).len(), 2);
}
