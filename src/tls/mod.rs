//! TLS for both sides: certificates and keys, whom to trust, and the record layer over buffers
//! that somebody else fills.
//!
//! Does not know: sockets, logins, sessions, or why a side wants TLS. The cryptography is
//! rustls with aws-lc-rs: TLS 1.2 and 1.3, no renegotiation, no resumption (so no ticket ever
//! stands in for a login), no early data.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub mod certificate;
pub mod identity;
pub mod offer;
pub mod record;
pub mod trust;

/// Something about certificates, keys or the other side's TLS cannot stand.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates or a key; the sentence says what to do.
    #[error("{path}: {why}")]
    File {
        /// Which file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The other side, or a certificate of ours that it cannot use.
    #[error(transparent)]
    Protocol(#[from] rustls::Error),
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// More than a handshake needs.
    #[error("a TLS handshake of over {0} bytes")]
    TooLong(usize),
    /// The library asks for what is never used here.
    #[error("an unexpected state of TLS: {0}")]
    State(&'static str),
}

/// The one cryptographic library. Handed around instead of installed for the whole process.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
