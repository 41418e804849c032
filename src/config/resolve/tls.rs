//! The keys about TLS of one group.

use std::path::PathBuf;

use super::Reader;
use crate::config::raw::{self, OneOrMany, Scalar};
use crate::config::tls::{ClientTls, Pin, ServerTls, ServerTlsMode, TlsMode};

impl Reader<'_> {
    /// TLS towards clients.
    pub(super) fn client_tls(&mut self, name: &str, raw: &raw::Group) -> ClientTls {
        let at = |key: &str| format!("groups.{name}.{key}");
        let modes = [TlsMode::Optional, TlsMode::Required, TlsMode::Off];
        let modes = modes.map(|mode| (mode.word(), mode));
        let certificate = self.file(&at("tls_certificate"), raw.tls_certificate.as_ref());
        let key = self.file(&at("tls_key"), raw.tls_key.as_ref());
        self.both(&at("tls_certificate"), &at("tls_key"), &certificate, &key);
        let mut required_for = Vec::new();
        for value in raw.tls_required_for.iter().flat_map(OneOrMany::values) {
            match value {
                Scalar::Text(user) if !user.is_empty() => required_for.push(user.clone()),
                other => {
                    self.refuse(at("tls_required_for"), other.to_string(), "names of users");
                }
            }
        }
        let mode = self.word(&at("tls"), raw.tls.as_ref(), &modes);
        if mode == TlsMode::Off && !required_for.is_empty() {
            let allowed = "nobody, while tls = \"off\": they could not log in";
            self.refuse(at("tls_required_for"), required_for.join(", "), allowed);
        }
        let client_ca = self.file(&at("tls_client_ca"), raw.tls_client_ca.as_ref());
        ClientTls { mode, certificate, key, client_ca, required_for }
    }

    /// TLS towards servers.
    pub(super) fn server_tls(&mut self, name: &str, raw: &raw::Group) -> ServerTls {
        let at = |key: &str| format!("groups.{name}.{key}");
        let modes = [
            ServerTlsMode::Auto,
            ServerTlsMode::Required,
            ServerTlsMode::SkipVerify,
            ServerTlsMode::Off,
        ];
        let modes = modes.map(|mode| (mode.word(), mode));
        let mode = self.word(&at("server_tls"), raw.server_tls.as_ref(), &modes);
        let ca = self.file(&at("server_tls_ca"), raw.server_tls_ca.as_ref());
        let mut pins = Vec::new();
        for value in raw.server_tls_pins.iter().flat_map(OneOrMany::values) {
            let found = match value {
                Scalar::Text(text) => Pin::parse(text),
                _ => None,
            };
            match found {
                Some(pin) => pins.push(pin),
                None => {
                    let allowed = "\"sha256:\" and the 64 hexadecimal digits of the public key";
                    self.refuse(at("server_tls_pins"), value.to_string(), allowed);
                }
            }
        }
        if mode == ServerTlsMode::SkipVerify && (ca.is_some() || !pins.is_empty()) {
            let allowed = "\"auto\" or \"required\" with server_tls_ca or server_tls_pins: \
                           skip-verify would not look at them";
            self.refuse(at("server_tls"), "\"skip-verify\"", allowed);
        }
        let certificate =
            self.file(&at("server_tls_certificate"), raw.server_tls_certificate.as_ref());
        let key = self.file(&at("server_tls_key"), raw.server_tls_key.as_ref());
        self.both(&at("server_tls_certificate"), &at("server_tls_key"), &certificate, &key);
        ServerTls { mode, ca, pins, certificate, key }
    }

    /// The path of a file, which must not depend on where the process was started.
    pub(super) fn file(&mut self, key: &str, value: Option<&Scalar>) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(key, Some(value?), "/"));
        if !path.is_absolute() {
            self.refuse(key, format!("{:?}", path.display()), "an absolute path");
        }
        Some(path)
    }

    /// A certificate is of no use without its key, nor the other way round.
    pub(super) fn both(
        &mut self,
        certificate_key: &str,
        key_key: &str,
        certificate: &Option<PathBuf>,
        key: &Option<PathBuf>,
    ) {
        match (certificate, key) {
            (Some(_), None) => self.refuse(key_key, "nothing", "the key of the certificate"),
            (None, Some(_)) => {
                self.refuse(certificate_key, "nothing", "the certificate of the key");
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}
