//! An authority whose certificates servers and clients show.

use std::path::Path;

/// An authority, and certificates that it signs.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(crate) pem: String,
}

/// What a certificate says of its owner.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Names {
    /// A host or an address.
    Host(&'static str),
    /// The same, long ago.
    Expired(&'static str),
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = parameters.self_signed(&key).expect("an authority").pem();
        Self { issuer: rcgen::Issuer::new(parameters, key), pem }
    }

    /// A certificate and its key, as files of `dir`; answers its pin.
    pub(crate) fn write(&self, dir: &Path, names: Names) -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        let (Names::Host(host) | Names::Expired(host)) = names;
        let mut parameters =
            rcgen::CertificateParams::new(vec![host.to_owned()]).expect("parameters");
        parameters.distinguished_name.push(rcgen::DnType::CommonName, host);
        if let Names::Expired(_) = names {
            parameters.not_before = rcgen::date_time_ymd(2001, 1, 1);
            parameters.not_after = rcgen::date_time_ymd(2002, 1, 1);
        }
        let signed = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(dir.join("cert.pem"), signed.pem()).expect("a file");
        std::fs::write(dir.join("key.pem"), key.serialize_pem()).expect("a file");
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &spki);
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }
}
