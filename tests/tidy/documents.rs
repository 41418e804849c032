//! The rules on documents: links resolve, and the map names every room.

use std::path::Path;

/// Complaints about links of the markdown file at `path` (from `root`) that lead nowhere.
pub(crate) fn links(root: &Path, path: &str, text: &str) -> Vec<String> {
    let base = Path::new(path).parent().unwrap_or_else(|| Path::new(""));
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        for target in targets(line) {
            let file = target.split('#').next().unwrap_or(target);
            if file.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !root.join(base).join(file).exists() {
                found.push(format!("{path}:{}: link to `{target}` leads nowhere", number + 1));
            }
        }
    }
    found
}

/// What stands in the round brackets of `[text](target)`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// Complaints about top-level modules that the code map of ARCHITECTURE.md does not name in
/// exactly one row (a row begins with the module's name in backquotes).
pub(crate) fn map(architecture: &str, modules: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for module in modules {
        let row = format!("| `{module}` |");
        let times = architecture.lines().filter(|line| line.starts_with(&row)).count();
        if times != 1 {
            found.push(format!("ARCHITECTURE.md: {times} rows of the code map begin with `{row}`"));
        }
    }
    found
}
