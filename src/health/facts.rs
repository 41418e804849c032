//! What a server says in its greeting, byte for byte: clients are greeted with it.

use std::sync::Arc;

use crate::health::observation::{Failure, FailureKind};
use crate::protocol::handshake::Greeting;
use crate::topology::Flavour;

/// A greeting with what follows from its version text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeted {
    /// The family, by the version text.
    pub flavour: Flavour,
    /// As in `/*!NNNNN */`.
    pub version: u32,
    /// Byte for byte, unless it is no text.
    pub version_text: Arc<str>,
    /// The default authentication plugin.
    pub auth_plugin: Arc<str>,
    /// The rest of it.
    pub greeting: Greeting,
}

/// What a greeting says.
///
/// # Errors
/// When its version is not understood.
pub fn greeted(greeting: Greeting) -> Result<Greeted, Failure> {
    let version_text: Arc<str> = Arc::from(String::from_utf8_lossy(&greeting.version));
    let Some((flavour, version)) = version(&version_text) else {
        let text = format!("the version {version_text:?} is not understood");
        return Err(Failure::new(FailureKind::Puzzling, text));
    };
    let auth_plugin = Arc::from(String::from_utf8_lossy(&greeting.plugin));
    Ok(Greeted { flavour, version, version_text, auth_plugin, greeting })
}

/// Family and number: `5.5.5-10.11.19-MariaDB` is MariaDB 101119, `9.7.4` is MySQL 90704.
#[must_use]
pub fn version(text: &str) -> Option<(Flavour, u32)> {
    let prefixed = text.strip_prefix("5.5.5-").filter(|rest| rest.starts_with(char::is_numeric));
    let mariadb = prefixed.is_some() || text.to_ascii_lowercase().contains("mariadb");
    let flavour = if mariadb { Flavour::MariaDb } else { Flavour::MySql };
    let mut numbers = prefixed.unwrap_or(text).split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    let (major, minor, patch) = (next()?, next()?, next().unwrap_or(0));
    let number = major.checked_mul(10_000)?.checked_add(minor.checked_mul(100)?)?;
    Some((flavour, number.checked_add(patch)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_become_numbers() {
        let table = [
            ("5.5.5-10.11.19-MariaDB-0+deb12u1-log", Some((Flavour::MariaDb, 101_119))),
            ("11.8.9-MariaDB-ubu2404", Some((Flavour::MariaDb, 110_809))),
            ("9.7.4", Some((Flavour::MySql, 90_704))),
            ("8.0.36-28", Some((Flavour::MySql, 80_036))),
            ("5.5.5-log", Some((Flavour::MySql, 50_505))),
            ("", None),
            ("x.y", None),
        ];
        for (text, expected) in table {
            assert_eq!(version(text), expected, "{text}");
        }
    }
}
