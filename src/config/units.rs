//! Durations, sizes and secrets as they are written in the file.

use std::time::Duration;

use zeroize::Zeroizing;

/// A password: wiped when dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// What a duration may look like, for refusals.
pub const DURATION_FORM: &str = "a number with a unit: \"500ms\", \"15s\", \"5m\", \"1h\", or 0";

/// What a size may look like, for refusals.
pub const SIZE_FORM: &str = "a number with a unit: \"512B\", \"64KiB\", \"1MiB\", \"1GiB\"";

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

// === impls ===

impl Secret {
    /// Takes ownership of the text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one place that sends or hashes it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Reads `500ms`, `15s`, `5m`, `1h`; a bare `0` needs no unit. `None` for anything else: a bare
/// number could mean milliseconds to one reader and seconds to another.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (number, unit) = split(text)?;
    let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor).map(Duration::from_millis)
}

/// Reads `512B`, `64KiB`, `1MiB`, `1GiB`. `None` for anything else; decimal units (`kB`) are
/// refused, since half of their users mean the binary ones.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// Writes a duration as the file would, with the largest unit that divides it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0".to_owned();
    }
    for (unit, factor) in DURATION_UNITS.iter().rev() {
        if millis.is_multiple_of(u128::from(*factor)) {
            return format!("{}{unit}", millis / u128::from(*factor));
        }
    }
    format!("{millis}ms")
}

/// Writes a size as the file would, with the largest unit that divides it.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    for (unit, factor) in SIZE_UNITS {
        if bytes > 0 && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
}

/// The leading digits and what follows them; `None` without digits or past 64 bits.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_come_back_as_written() {
        for text in ["500ms", "15s", "5m", "1h", "90s", "0"] {
            let duration = parse_duration(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(show_duration(duration), text);
        }
        assert_eq!(parse_duration("15 s"), Some(Duration::from_secs(15)));
        for text in ["15", "", "s", "-1s", "1.5s", "1d", "99999999999999999999s", "5124095576031h"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_need_a_unit_and_come_back_as_written() {
        for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("1MiB", 1_048_576)] {
            assert_eq!(parse_size(text), Some(bytes));
            assert_eq!(show_size(bytes), text);
        }
        for text in ["512", "64k", "1kB", "1MB", "", "KiB", "99999999999GiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert!(!format!("{:?}", Secret::new("hunter2".to_owned())).contains("hunter2"));
    }
}
