//! Passwords of our own making: random, and kept in the state directory for its owner's eyes only.
//!
//! Does not know: what a password is for.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::config::units::Secret;

/// Characters of a generated password: 24 of 62 kinds are 142 bits.
const LENGTH: usize = 24;
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file can be read by others.
    #[error("{path} can be read by others (its mode is {mode:04o}): chmod 600 {path}")]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file, or its directory, cannot be read or written.
    #[error("cannot read or create {path}: {source}; set state_dir")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is empty.
    #[error("{path} is empty: delete it to have a new password generated")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The system has no random numbers.
    #[error("the system has no random numbers for a new password")]
    NoRandomness,
}

/// The password in this file of the state directory, which is generated when it is not there yet.
/// The file can be read by its owner only.
///
/// # Errors
/// When the file cannot be read or written, or others may read it.
pub fn load(state_dir: &Path, file_name: &str) -> Result<Secret, SecretError> {
    let path = state_dir.join(file_name);
    let failed = |source| SecretError::Io { path: path.clone(), source };
    fs::create_dir_all(state_dir).map_err(failed)?;
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    match created {
        Ok(mut file) => {
            let password = generate()?;
            writeln!(file, "{}", password.reveal())
                .and_then(|()| file.sync_all())
                .map_err(failed)?;
            tracing::info!(path = %path.display(), "generated a password");
            Ok(password)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(&path),
        Err(error) => Err(failed(error)),
    }
}

/// The password in this file, which must be there.
///
/// # Errors
/// When the file cannot be read, or others may read it.
pub fn read(path: &Path) -> Result<Secret, SecretError> {
    let at = || path.to_path_buf();
    let failed = |source| SecretError::Io { path: at(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::NotPrivate { path: at(), mode });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    match text.trim_end() {
        "" => Err(SecretError::Empty { path: at() }),
        password => Ok(Secret::new(password.to_owned())),
    }
}

fn generate() -> Result<Secret, SecretError> {
    let random = SystemRandom::new();
    let mut password = String::with_capacity(LENGTH);
    while password.len() < LENGTH {
        let mut bytes = [0u8; 64];
        random.fill(&mut bytes).map_err(|_| SecretError::NoRandomness)?;
        // Only the lower 6 bits, and of these only what is in the alphabet: no character is
        // likelier than another.
        let fitting = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 63)));
        password.extend(fitting.take(LENGTH - password.len()).map(|byte| char::from(*byte)));
    }
    Ok(Secret::new(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE_NAME: &str = "some-password";

    #[test]
    fn it_is_generated_once_and_private() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let state_dir = scratch.path().join("state");
        let first = load(&state_dir, FILE_NAME).expect("generated");
        assert_eq!(first.reveal().len(), LENGTH);
        assert!(first.reveal().bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let path = state_dir.join(FILE_NAME);
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(load(&state_dir, FILE_NAME).expect("read").reveal(), first.reveal());
        let other = generate().expect("generated");
        assert_ne!(other.reveal(), first.reveal());
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_empty_is_refused() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let path = scratch.path().join(FILE_NAME);
        fs::write(&path, "secret\n").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("its mode");
        let error = load(scratch.path(), FILE_NAME).expect_err("others may read it").to_string();
        assert!(error.contains("0644") && !error.contains("secret"), "{error}");
        fs::write(&path, "\n").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        assert!(matches!(load(scratch.path(), FILE_NAME), Err(SecretError::Empty { .. })));
    }
}
