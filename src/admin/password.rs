//! The console's password: from the configuration, or generated once into the state directory.

use crate::config::Boot;
use crate::config::units::Secret;
use crate::secrets::{self, SecretError};

/// The file's name in the state directory.
pub const FILE_NAME: &str = "admin-password";

/// The configured password, or the one in the state directory, which is generated when it is not
/// there yet.
///
/// # Errors
/// When its file cannot be read or written, or others may read it.
pub fn load(boot: &Boot) -> Result<Secret, SecretError> {
    match &boot.admin_password {
        Some(password) => Ok(password.clone()),
        None => secrets::load(&boot.state_dir, FILE_NAME),
    }
}
