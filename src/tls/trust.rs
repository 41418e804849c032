//! Whom to trust among servers: an authority and a name, a pinned key, or, where the operator has
//! spelt it out, anybody.

use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::config::address::host_and_port;
use crate::config::tls::{Pin, ServerTls, ServerTlsMode};
use crate::tls::identity::{Identity, roots};
use crate::tls::offer::VERSIONS;
use crate::tls::{TlsError, provider};

/// TLS towards the servers of one group.
#[derive(Debug)]
pub struct Trust {
    mode: ServerTlsMode,
    config: Option<Arc<ClientConfig>>,
    /// For servers on this machine, when an account demands TLS: nobody can be in between.
    local: Option<Arc<ClientConfig>>,
}

/// Whether the account that logs in demands TLS of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// The settings alone decide.
    Nothing,
    /// TLS also where the settings could do without.
    Tls,
}

/// TLS towards one server.
#[derive(Debug, Clone)]
pub struct Towards {
    /// How it is checked.
    pub config: Arc<ClientConfig>,
    /// The name that its certificate must bear.
    pub name: ServerName<'static>,
    /// Whether it is known to be who it says, once the handshake is over: only then a password
    /// may go there in clear.
    pub verified: bool,
}

/// How certificates are judged where no authority is asked.
#[derive(Debug)]
struct Keys {
    /// Keys that are believed; `None` believes any.
    pins: Option<Vec<Pin>>,
    provider: Arc<CryptoProvider>,
}

// === impls ===

impl Trust {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// When a file cannot be used: the caller keeps what it had.
    pub fn new(settings: &ServerTls) -> Result<Self, TlsError> {
        let mode = settings.mode;
        let config = match mode {
            ServerTlsMode::Off => None,
            ServerTlsMode::Auto | ServerTlsMode::Required | ServerTlsMode::SkipVerify => {
                Some(client_config(settings, mode)?)
            }
        };
        let local = match mode {
            ServerTlsMode::Auto => Some(client_config(settings, ServerTlsMode::SkipVerify)?),
            ServerTlsMode::Off | ServerTlsMode::Required | ServerTlsMode::SkipVerify => None,
        };
        Ok(Self { mode, config, local })
    }

    /// What a connection to `address` needs, whose peer is on this machine or not; `None` when
    /// it needs no TLS. A unix socket never does.
    ///
    /// # Errors
    /// When the address has no name that a certificate could bear.
    pub fn towards(
        &self,
        address: &str,
        local: bool,
        demand: Demand,
    ) -> Result<Option<Towards>, TlsError> {
        let (config, verified) = match (self.mode, local, demand) {
            (ServerTlsMode::Off, _, _) | (ServerTlsMode::Auto, true, Demand::Nothing) => {
                return Ok(None);
            }
            (ServerTlsMode::Auto, true, Demand::Tls) => (self.local.clone(), false),
            (ServerTlsMode::Auto, false, _) | (ServerTlsMode::Required, _, _) => {
                (self.config.clone(), true)
            }
            (ServerTlsMode::SkipVerify, _, _) => (self.config.clone(), false),
        };
        let needed = demand == Demand::Tls || !address.starts_with('/');
        let Some(config) = config.filter(|_| needed) else { return Ok(None) };
        let host = host_and_port(address).map_or("localhost", |(host, _)| host);
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| TlsError::State("a server's address without a host"))?;
        Ok(Some(Towards { config, name, verified }))
    }
}

fn client_config(settings: &ServerTls, mode: ServerTlsMode) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_protocol_versions(VERSIONS)?.dangerous();
    let by_keys = |pins| Arc::new(Keys { pins, provider: provider.clone() });
    let builder = if mode == ServerTlsMode::SkipVerify {
        builder.with_custom_certificate_verifier(by_keys(None))
    } else if !settings.pins.is_empty() {
        builder.with_custom_certificate_verifier(by_keys(Some(settings.pins.clone())))
    } else {
        let roots = match &settings.ca {
            Some(path) => roots(path)?,
            None => system_roots(),
        };
        // Without any authority nobody is trusted; that shows at the first connection.
        match roots.is_empty() {
            true => builder.with_custom_certificate_verifier(by_keys(Some(Vec::new()))),
            false => {
                let roots = Arc::new(roots);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
                let verifier = verifier.build().map_err(|error| TlsError::File {
                    path: "the authorities of servers".to_owned(),
                    why: error.to_string(),
                })?;
                builder.with_custom_certificate_verifier(verifier)
            }
        }
    };
    let mut config = match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(key)) => {
            let own = Identity::read(certificate, key)?;
            builder.with_client_auth_cert(own.chain, own.key)?
        }
        (None, _) | (_, None) => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The authorities that the system trusts.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

impl ServerCertVerifier for Keys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(pins) = &self.pins else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let key = digest::digest(&digest::SHA256, &parsed.subject_public_key_info());
        match pins.iter().any(|pin| pin.0.as_slice() == key.as_ref()) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
