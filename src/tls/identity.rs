//! A certificate with its key: read from the operator's files, or made at the first start and
//! kept in the state folder.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls::TlsError;

/// Name of the generated certificate in the state folder.
pub const CERTIFICATE_FILE: &str = "tls-certificate.pem";
/// Name of its key.
pub const KEY_FILE: &str = "tls-key.pem";
/// How long a generated certificate is valid, years: as those that servers generate.
const YEARS: i32 = 10;

/// A certificate with its chain, and its key.
pub struct Identity {
    /// The certificate first, then what signed it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl std::fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a certificate (with its chain) and its key, both PEM.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = certificates(certificate)?;
        let key_file = |why: String| file(key, why);
        let key = match PrivateKeyDer::from_pem_file(key) {
            Ok(key) => key,
            Err(error) => return Err(key_file(describe(&error, "private key"))),
        };
        Ok(Self { chain, key })
    }

    /// The generated certificate of `state_dir`; it is made when there is none.
    ///
    /// # Errors
    /// When the folder cannot be written, or what is there cannot be read.
    pub fn generated(state_dir: &Path) -> Result<Self, TlsError> {
        let certificate = state_dir.join(CERTIFICATE_FILE);
        let key = state_dir.join(KEY_FILE);
        if certificate.exists() && key.exists() {
            return Self::read(&certificate, &key);
        }
        let made = make()?;
        fs::create_dir_all(state_dir).map_err(|error| file(state_dir, error.to_string()))?;
        // The key first: a certificate without one would never be completed.
        write(&key, &made.signing_key.serialize_pem(), 0o600)?;
        write(&certificate, &made.cert.pem(), 0o644)?;
        tracing::info!(certificate = %certificate.display(), "generated a TLS certificate");
        Self::read(&certificate, &key)
    }

    /// A generated certificate that is not kept: the next start makes another.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn passing() -> Result<Self, TlsError> {
        let made = make()?;
        let key =
            PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(TlsError::State)?;
        Ok(Self { chain: vec![made.cert.der().clone()], key })
    }
}

/// All certificates of a PEM file.
///
/// # Errors
/// When it cannot be read, or holds none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if chain.is_empty() => Err(file(path, "it holds no PEM certificate".to_owned())),
        Ok(chain) => Ok(chain),
        Err(error) => Err(file(path, describe(&error, "certificate"))),
    }
}

/// The authorities of a PEM file.
///
/// # Errors
/// When it cannot be read, or one of them is no certificate.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| file(path, error.to_string()))?;
    }
    Ok(roots)
}

/// A self-signed certificate for whatever name clients use: those that verify names are given
/// a real one.
fn make() -> Result<rcgen::CertifiedKey<rcgen::KeyPair>, rcgen::Error> {
    let signing_key = rcgen::KeyPair::generate()?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut parameters = rcgen::CertificateParams::new(names)?;
    let mut name = rcgen::DistinguishedName::new();
    name.push(rcgen::DnType::CommonName, "pointsman, generated at its first start");
    parameters.distinguished_name = name;
    // A day of grace for clients whose clock is behind.
    let today = std::time::SystemTime::now();
    let today = rcgen_date(today);
    parameters.not_before = rcgen::date_time_ymd(today.0, today.1, 1);
    parameters.not_after = rcgen::date_time_ymd(today.0 + YEARS, today.1, 1);
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let cert = parameters.self_signed(&signing_key)?;
    Ok(rcgen::CertifiedKey { cert, signing_key })
}

/// Year and month of a moment, in UTC (the civil calendar; Howard Hinnant's `civil_from_days`).
fn rcgen_date(now: std::time::SystemTime) -> (i32, u8) {
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let days = i64::try_from(since.as_secs() / 86_400).unwrap_or_default() + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (i32::try_from(year).unwrap_or(1970), u8::try_from(month).unwrap_or(1))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let failed = |error: std::io::Error| file(path, error.to_string());
    // A file of an earlier attempt may have another mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut opened = opened.map_err(failed)?;
    opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all()).map_err(failed)
}

fn describe(error: &pem::Error, what: &str) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => format!("it holds no PEM {what}"),
        // The library's text may quote the file.
        _ => format!("it is no PEM file with a {what}"),
    }
}

fn file(path: &Path, why: String) -> TlsError {
    TlsError::File { path: PathBuf::from(path).display().to_string(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_is_right() {
        let at =
            |seconds| rcgen_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
        assert_eq!(at(0), (1970, 1));
        assert_eq!(at(951_782_400), (2000, 2), "29 February 2000");
        assert_eq!(at(951_868_800), (2000, 3));
        assert_eq!(at(1_798_761_599), (2026, 12));
        assert_eq!(at(1_798_761_600), (2027, 1));
    }

    #[test]
    fn a_generated_certificate_stays_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a folder");
        let first = Identity::generated(dir.path()).expect("a certificate");
        let again = Identity::generated(dir.path()).expect("the certificate");
        assert_eq!(first.chain, again.chain);
        let mode = fs::metadata(dir.path().join(KEY_FILE)).expect("the key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_broken_file_is_named_and_not_quoted() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("broken.pem");
        for text in ["", "secret", "-----BEGIN CERTIFICATE-----\nsecret!\n-----END"] {
            fs::write(&path, text).expect("a file");
            let error = Identity::read(&path, &path).expect_err("no certificate").to_string();
            assert!(error.contains("broken.pem") && !error.contains("secret"), "{error}");
        }
        let error = certificates(&dir.path().join("none")).expect_err("no file").to_string();
        assert!(error.contains("none") && error.contains("No such file"), "{error}");
    }
}
