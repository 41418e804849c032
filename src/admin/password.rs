//! The console's password: from the configuration, or generated once into the state directory.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::config::Boot;
use crate::config::units::Secret;

/// The file's name in the state directory.
pub const FILE_NAME: &str = "admin-password";

/// Characters of a generated password: 24 of 62 kinds are 142 bits.
const LENGTH: usize = 24;
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file can be read by others.
    #[error("{path} can be read by others (its mode is {mode:04o}): chmod 600 {path}")]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file, or its directory, cannot be read or written.
    #[error("cannot read or create {path}: {source}; set state_dir or admin_password")]
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
    #[error("the system has no random numbers for a new console password")]
    NoRandomness,
}

/// The configured password, or the one in the state directory, which is generated when it is not
/// there yet. The file can be read by its owner only.
///
/// # Errors
/// When the file cannot be read or written, or others may read it.
pub fn load(boot: &Boot) -> Result<Secret, PasswordError> {
    if let Some(password) = &boot.admin_password {
        return Ok(password.clone());
    }
    let path = boot.state_dir.join(FILE_NAME);
    let failed = |source| PasswordError::Io { path: path.clone(), source };
    fs::create_dir_all(&boot.state_dir).map_err(failed)?;
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    match created {
        Ok(mut file) => {
            let password = generate()?;
            writeln!(file, "{}", password.reveal())
                .and_then(|()| file.sync_all())
                .map_err(failed)?;
            tracing::info!(path = %path.display(), "generated a console password");
            Ok(password)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(&path),
        Err(error) => Err(failed(error)),
    }
}

fn read(path: &Path) -> Result<Secret, PasswordError> {
    let at = || path.to_path_buf();
    let failed = |source| PasswordError::Io { path: at(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(PasswordError::NotPrivate { path: at(), mode });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    match text.trim_end() {
        "" => Err(PasswordError::Empty { path: at() }),
        password => Ok(Secret::new(password.to_owned())),
    }
}

fn generate() -> Result<Secret, PasswordError> {
    let random = SystemRandom::new();
    let mut password = String::with_capacity(LENGTH);
    while password.len() < LENGTH {
        let mut bytes = [0u8; 64];
        random.fill(&mut bytes).map_err(|_| PasswordError::NoRandomness)?;
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
    use crate::config::LogFormat;

    fn boot(state_dir: &Path) -> Boot {
        Boot {
            admin: None,
            http: None,
            state_dir: state_dir.to_path_buf(),
            workers: 1,
            log_format: LogFormat::Text,
            log_filter: "info".to_owned(),
            admin_user: "admin".to_owned(),
            admin_password: None,
            drain_timeout: std::time::Duration::ZERO,
        }
    }

    #[test]
    fn it_is_generated_once_and_private() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let state_dir = scratch.path().join("state");
        let first = load(&boot(&state_dir)).expect("generated");
        assert_eq!(first.reveal().len(), LENGTH);
        assert!(first.reveal().bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let path = state_dir.join(FILE_NAME);
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(load(&boot(&state_dir)).expect("read").reveal(), first.reveal());
        let other = generate().expect("generated");
        assert_ne!(other.reveal(), first.reveal());
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_empty_is_refused() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let path = scratch.path().join(FILE_NAME);
        fs::write(&path, "secret\n").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("its mode");
        let error = load(&boot(scratch.path())).expect_err("others may read it").to_string();
        assert!(error.contains("0644") && !error.contains("secret"), "{error}");
        fs::write(&path, "\n").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        assert!(matches!(load(&boot(scratch.path())), Err(PasswordError::Empty { .. })));
    }

    #[test]
    fn a_configured_password_needs_no_file() {
        let mut boot = boot(Path::new("/nowhere"));
        boot.admin_password = Some(Secret::new("given".to_owned()));
        assert_eq!(load(&boot).expect("given").reveal(), "given");
    }
}
