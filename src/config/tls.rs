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

/// TLS towards servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// Whether and how servers are spoken to in TLS.
    pub mode: ServerTlsMode,
    /// File with the authorities of servers' certificates, PEM; `None` means the system's.
    pub ca: Option<PathBuf>,
    /// Keys that are believed whoever has signed them and whatever name they bear; when there
    /// are any, only these.
    pub pins: Vec<Pin>,
    /// File with the certificate that is shown to servers, PEM.
    pub certificate: Option<PathBuf>,
    /// File with that certificate's key, PEM.
    pub key: Option<PathBuf>,
}

/// Whether and how servers are spoken to in TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServerTlsMode {
    /// Servers on this machine in clear text, all others in TLS, verified.
    #[default]
    Auto,
    /// All in TLS, verified; unix sockets aside.
    Required,
    /// All in TLS, whoever they are: protects from listeners, not from impostors.
    SkipVerify,
    /// All in clear text.
    Off,
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin(pub [u8; 32]);

impl ServerTlsMode {
    /// The word of the configuration file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Required => "required",
            Self::SkipVerify => "skip-verify",
            Self::Off => "off",
        }
    }
}

impl Pin {
    /// Reads `sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?.as_bytes();
        let mut pin = [0; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in pin.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                let digit = char::from(*digit).to_digit(16)?;
                *byte = *byte << 4 | u8::try_from(digit).ok()?;
            }
        }
        Some(Self(pin))
    }
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_as_they_are_shown() {
        let text = format!("sha256:{}0f", "ab".repeat(31));
        let pin = Pin::parse(&text).expect("a pin");
        assert_eq!((pin.0[0], pin.0[31], pin.to_string()), (0xab, 0x0f, text.clone()));
        for bad in ["", "sha256:", &text[1..], &text[..70], &text.replace('0', "g")] {
            assert_eq!(Pin::parse(bad), None, "{bad}");
        }
    }
}
