//! Who may import whom: the layers of the house, as a table.

use crate::source::{Source, is_word};

/// A module (or one file of it) and what it may name of ours, itself aside.
/// The longest matching entry counts.
const ALLOWED: &[(&str, &[&str])] = &[
    // Vocabulary: imports nothing of ours.
    ("protocol", &[]),
    ("topology", &[]),
    ("config", &["topology"]),
    // Decisions: pure.
    ("router", &["topology", "config"]),
    ("session", &["protocol", "router", "topology", "config"]),
    ("health::judge", &["topology", "config"]),
    ("health::assemble", &["topology", "config"]),
    ("failover::event", &["topology"]),
    ("failover::report", &["topology", "health::observation"]),
    ("failover::standing", &["topology"]),
    ("failover::candidate", &["topology", "health::observation"]),
    ("failover::verdict", &["topology", "health::observation"]),
    ("failover::record", &[]),
    ("failover::order", &["topology", "config", "health::observation"]),
    ("failover::ackers", &["topology", "config", "health::observation"]),
    ("failover::relay", &["topology", "health::observation"]),
    ("failover::plan", &["topology", "config", "health::observation"]),
    ("failover::upkeep", &["topology", "config", "health::observation"]),
    ("secrets", &["config"]),
    ("accounts::host", &[]),
    // Counters and names, used by the shell.
    ("metrics", &["topology", "router", "session"]),
    ("digests", &["router", "topology"]),
    // The shell.
    ("health", &["topology", "config", "protocol", "metrics", "tls"]),
    ("control", &["topology", "config", "health", "digests", "failover", "tls"]),
    (
        "accounts",
        &[
            "protocol",
            "topology",
            "config",
            "tls",
            "health::cell",
            "health::connect",
            "health::observation",
        ],
    ),
    ("cluster", &["config"]),
    ("reactor", &[]),
    ("tls", &["config"]),
    ("compression", &[]),
    ("upstream", &["protocol", "topology", "config", "reactor", "tls", "compression"]),
    (
        "net",
        &[
            "accounts",
            "upstream",
            "tls",
            "compression",
            "reactor",
            "session",
            "protocol",
            "router",
            "topology",
            "config",
            "health",
            "metrics",
            "control",
            "digests",
            "cluster::lease",
        ],
    ),
    (
        "admin",
        &[
            "control", "health", "metrics", "router", "protocol", "topology", "config", "digests",
            "failover", "secrets",
        ],
    ),
    (
        "failover",
        &["topology", "config", "health", "protocol", "metrics", "tls", "secrets", "cluster"],
    ),
    ("provider", &["config"]),
    ("demo", &["provider", "config::outcome"]),
    (
        "tools",
        &[
            "topology",
            "failover",
            "health",
            "tls",
            "config",
            "protocol::answer",
            "secrets",
            "provider::programs",
            "provider::Flavour",
            "admin::show",
            "admin::table",
            "admin::password",
        ],
    ),
];

/// Composition: these may name everything, and nobody names them, `app::tasks` aside.
const COMPOSITION: &[&str] = &["app", "cli", "main", "lib"];

/// Complaints about what `source` imports.
pub(crate) fn check(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some(top) = module.first().copied() else { return Vec::new() };
    if COMPOSITION.contains(&top) {
        return Vec::new();
    }
    let own = module.join("::");
    let found = ALLOWED.iter().filter(|(name, _)| within(&own, name)).max_by_key(|(n, _)| n.len());
    let Some((_, allowed)) = found else {
        let what = format!("module `{top}` is not in the table of tests/tidy/imports.rs");
        return vec![source.complaint(0, &what)];
    };
    references(source)
        .into_iter()
        .filter(|(_, path)| {
            let ours = within(path, top) || within(path, "app::tasks");
            !ours && !allowed.iter().any(|name| within(path, name))
        })
        .map(|(at, path)| source.complaint(at, &format!("`{own}` may not import `{path}`")))
        .collect()
}

/// Whether `path` is `name` or lies below it.
fn within(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every path of ours that what ships names, from the crate's root, with where it stands.
fn references(source: &Source) -> Vec<(usize, String)> {
    let code = source.shipped();
    let mut found = Vec::new();
    for at in source.words("crate::") {
        for path in expand(&code[at + "crate::".len()..]) {
            found.push((at, path));
        }
    }
    for at in source.words("super::") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let mut rest = &code[at..];
        let mut module = source.module();
        while let Some(up) = rest.strip_prefix("super::") {
            module.pop();
            rest = up;
        }
        for path in expand(rest) {
            let mut parts = module.clone();
            parts.push(&path);
            found.push((at, parts.join("::")));
        }
    }
    found
}

/// `a::b::C` is itself; `{a::X, b::{Y, Z}}` is `a::X`, `b::Y`, `b::Z`.
fn expand(text: &str) -> Vec<String> {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        return split_group(group).into_iter().flat_map(expand).collect();
    }
    let name: String = text.chars().take_while(|c| is_word(*c)).collect();
    if name.is_empty() {
        return Vec::new();
    }
    match text[name.len()..].strip_prefix("::") {
        Some(rest) => {
            let below = expand(rest);
            if below.is_empty() {
                return vec![name];
            }
            below.into_iter().map(|path| format!("{name}::{path}")).collect()
        }
        None => vec![name],
    }
}

/// The items of a `{...}` group whose opening brace has been taken off.
fn split_group(group: &str) -> Vec<&str> {
    let mut depth = 0usize;
    let mut from = 0;
    let mut items = Vec::new();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&group[from..at]);
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&group[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    items
}
