//! What is offered to clients: a certificate, and whose certificates are believed in return.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ServerConfig, SupportedProtocolVersion};

use crate::config::tls::ClientTls;
use crate::tls::identity::{Identity, roots};
use crate::tls::{TlsError, provider};

/// Versions that are spoken on both sides, the better one first.
pub(super) const VERSIONS: &[&SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

/// The server's side of TLS for one group.
#[derive(Debug)]
pub struct Offer {
    /// What handshakes are done with.
    pub config: Arc<ServerConfig>,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
}

/// SHA-256 of a certificate, as it is on the wire (DER).
pub type Fingerprint = [u8; 32];

/// The server's side of TLS for one group, from its settings; everything is read anew, so that a
/// renewed certificate counts.
///
/// # Errors
/// When a file cannot be used: the caller keeps what it had.
pub fn read(settings: &ClientTls, state_dir: &Path) -> Result<Arc<Offer>, TlsError> {
    let identity = match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(key)) => Identity::read(certificate, key)?,
        (None, _) | (_, None) => match Identity::generated(state_dir) {
            Ok(identity) => identity,
            Err(error) => {
                let what = "the generated certificate is not kept: every start has its own";
                tracing::warn!(%error, "{what}");
                Identity::passing()?
            }
        },
    };
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_protocol_versions(VERSIONS)?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(roots(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| TlsError::File {
                    path: path.display().to_string(),
                    why: error.to_string(),
                })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut fingerprint = [0; 32];
    if let Some(certificate) = identity.chain.first() {
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    }
    let mut config = builder.with_single_cert(identity.chain, identity.key)?;
    // Drivers do not resume, and without tickets nothing can stand in for a handshake.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(Offer { config: Arc::new(config), fingerprint }))
}
