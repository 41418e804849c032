//! TLS as the operator asks for it, on either side.

use std::path::PathBuf;

/// TLS towards clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Whether clients may, must or cannot use it.
    pub mode: TlsMode,
    /// File with the certificate and its chain, PEM; `None` means a generated one.
    pub certificate: Option<PathBuf>,
    /// File with the certificate's key, PEM.
    pub key: Option<PathBuf>,
    /// File with the authorities that sign certificates of clients, PEM; without it none are
    /// asked for.
    pub client_ca: Option<PathBuf>,
    /// Users that must use TLS even where it is optional.
    pub required_for: Vec<String>,
}

/// Whether clients use TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// It is offered; clients decide.
    #[default]
    Optional,
    /// Only logins inside TLS, or on a unix socket, are accepted.
    Required,
    /// It is not offered.
    Off,
}

impl ClientTls {
    /// Whether this user must come by TLS.
    #[must_use]
    pub fn is_required_of(&self, user: &[u8]) -> bool {
        match self.mode {
            TlsMode::Required => true,
            TlsMode::Optional => self.required_for.iter().any(|name| name.as_bytes() == user),
            TlsMode::Off => false,
        }
    }
}

impl TlsMode {
    /// The word of the configuration file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Optional => "optional",
            Self::Required => "required",
            Self::Off => "off",
        }
    }
}
