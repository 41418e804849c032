//! A Rust source file made ready for the rules: comments and literals blanked out, tests cut off.

/// One file of the repository. Offsets into `code` are offsets into `raw`.
pub(crate) struct Source {
    /// Path from the repository's root, with forward slashes.
    pub(crate) path: String,
    /// The text as it is.
    pub(crate) raw: String,
    /// The text with the comments, strings and characters turned into blanks.
    pub(crate) code: String,
    /// How many bytes come before the file's tests; the whole length when there are none.
    pub(crate) tests_at: usize,
}

impl Source {
    /// Reads `raw` as the file at `path`.
    pub(crate) fn new(path: &str, raw: &str) -> Self {
        let code = blank(raw);
        let tests_at = if is_test_file(path) { 0 } else { find_tests(&code) };
        Self { path: path.to_owned(), raw: raw.to_owned(), code, tests_at }
    }

    /// What ships: everything before the tests, blanked.
    pub(crate) fn shipped(&self) -> &str {
        &self.code[..self.tests_at]
    }

    /// The line that `offset` is on, counted from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.raw[..offset].matches('\n').count() + 1
    }

    /// `path:line: what`.
    pub(crate) fn complaint(&self, offset: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, self.line(offset))
    }

    /// Every place where `word` stands as a word of its own in what ships.
    pub(crate) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let code = self.shipped();
        code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
            let before = code[..at].chars().next_back();
            let after = code[at + word.len()..].chars().next();
            let starts = word.starts_with(is_word) && before.is_some_and(is_word);
            let ends = word.ends_with(is_word) && after.is_some_and(is_word);
            !starts && !ends
        })
    }

    /// The module path of the file: `src/router/lexer.rs` is `["router", "lexer"]`.
    pub(crate) fn module(&self) -> Vec<&str> {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let path = path.strip_suffix(".rs").unwrap_or(path);
        let mut parts: Vec<&str> = path.split('/').collect();
        if parts.last() == Some(&"mod") {
            parts.pop();
        }
        parts
    }
}

/// Whether `c` can be part of an identifier.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether the whole file is tests.
fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Where `#[cfg(test)] mod tests {` begins, or the end. `mod tests;` is a file of its own.
fn find_tests(code: &str) -> usize {
    code.match_indices("#[cfg(test)]")
        .map(|(at, found)| (at, code[at + found.len()..].trim_start()))
        .find(|(at, rest)| {
            let line_start = *at == 0 || code[..*at].ends_with('\n');
            line_start && rest.starts_with("mod tests {")
        })
        .map_or(code.len(), |(at, _)| at)
}

/// The text with every comment and literal turned into blanks of the same length.
fn blank(raw: &str) -> String {
    let bytes = raw.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (from, to) = opaque(bytes, at);
        for byte in &mut out[from..to] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = to.max(at + 1);
    }
    String::from_utf8(out).expect("invariant: multi-byte characters stand in literals only")
}

/// The part to blank at `at`: `from == to` when code stands there.
fn opaque(bytes: &[u8], at: usize) -> (usize, usize) {
    let rest = &bytes[at..];
    let previous = at.checked_sub(1).map_or(b' ', |i| bytes[i]);
    let in_word = previous.is_ascii_alphanumeric() || previous == b'_';
    match rest[0] {
        b'/' if rest.starts_with(b"//") => {
            let length = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            (at, at + length)
        }
        b'/' if rest.starts_with(b"/*") => (at, at + block_comment(rest)),
        b'r' | b'b' | b'c' if !in_word => match raw_string(rest) {
            Some(length) => (at, at + length),
            None => (at, at),
        },
        b'"' => (at, at + closing(rest, b'"')),
        b'\'' => match character(rest) {
            Some(length) => (at, at + length),
            None => (at, at),
        },
        byte if byte >= 0x80 => (at, at + 1),
        _ => (at, at),
    }
}

/// Length of a block comment; they nest.
fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of `r"..."`, `br#"..."#` and the like.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = rest.iter().take_while(|b| matches!(b, b'r' | b'b' | b'c')).count();
    if !rest[..prefix].ends_with(b"r") || prefix > 2 {
        return None;
    }
    let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let inside = &rest[open + 1..];
    let length = inside.windows(close.len()).position(|w| w == close)?;
    Some(open + 1 + length + close.len())
}

/// Length of a literal up to and including its closing `quote`, escapes respected.
fn closing(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of a character literal; `None` for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    match rest.get(1)? {
        b'\\' => Some(closing(rest, b'\'')),
        byte if *byte >= 0x80 => Some(closing(rest, b'\'')),
        _ if rest.get(2) == Some(&b'\'') => Some(3),
        _ => None,
    }
}
