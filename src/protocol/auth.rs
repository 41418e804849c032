//! The arithmetic of passwords: mysql_native_password, caching_sha2_password, and the RSA
//! exchange that hides a password on a connection without TLS.
//!
//! Comparisons take the same time wherever the first difference is, and give a boolean.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::{constant_time, digest, rand};
use zeroize::Zeroizing;

use super::handshake::NONCE_LEN;
use super::old_password::OldHash;

/// The plugin of 4.1, with SHA-1.
pub const NATIVE: &[u8] = b"mysql_native_password";
/// The default plugin of MySQL 8.
pub const CACHING_SHA2: &[u8] = b"caching_sha2_password";
/// Its predecessor: always the full exchange.
pub const SHA256: &[u8] = b"sha256_password";

/// The longest password that the RSA exchange or a clear answer may carry, its NUL included.
pub const PASSWORD_MAX: usize = 256;

/// A password in clear text: wiped from memory when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Takes the bytes as they are.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes. Name the use at the call: they must not reach a log or an error.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes and a NUL, as plugins send them.
    fn with_nul(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.0.len().saturating_add(1)));
        bytes.extend_from_slice(&self.0);
        bytes.push(0);
        bytes
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What is known of a user's password, enough to log in elsewhere as that user.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// The empty password.
    Empty,
    /// SHA1(password), recovered from a native exchange: good for mysql_native_password only.
    Sha1([u8; 20]),
    /// What the server keeps: good for mysql_old_password only.
    Old(OldHash),
    /// The password itself.
    Password(Password),
    /// Nothing: the client answers the server itself, once.
    Relayed {
        /// Whether nobody can listen between the client and us.
        private: bool,
    },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Credential::Empty",
            Self::Sha1(_) => "Credential::Sha1(..)",
            Self::Old(_) => "Credential::Old(..)",
            Self::Password(_) => "Credential::Password(..)",
            Self::Relayed { .. } => "Credential::Relayed",
        })
    }
}

/// What the OK packet of a login tells, so that a client which knows the password can believe a
/// certificate that no authority has signed: whoever has made it knew the account's verifier.
/// `verifier` is what the account's plugin keeps of the password, in binary; `fingerprint` is the
/// certificate's SHA-256 (MariaDB 11.4, "zero-configuration TLS"; measured on 11.8).
#[must_use]
pub fn certificate_proof(
    verifier: &[u8],
    nonce: &[u8; NONCE_LEN],
    fingerprint: &[u8; 32],
) -> Vec<u8> {
    let mut proof = vec![1];
    for byte in sha256(&[verifier, nonce, fingerprint]) {
        proof.extend_from_slice(format!("{byte:02X}").as_bytes());
    }
    proof
}

fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, parts)
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    hash(&digest::SHA256, parts)
}

/// `N` is the output length of `algorithm` at both callers.
fn hash<const N: usize>(algorithm: &'static digest::Algorithm, parts: &[&[u8]]) -> [u8; N] {
    let mut context = digest::Context::new(algorithm);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    out
}

fn xor<const N: usize>(a: [u8; N], b: [u8; N]) -> [u8; N] {
    let mut out = a;
    for (to, from) in out.iter_mut().zip(b) {
        *to ^= from;
    }
    out
}

/// SHA1(password): what a native exchange proves knowledge of.
#[must_use]
pub fn stage1(password: &[u8]) -> [u8; 20] {
    sha1(&[password])
}

/// SHA1(SHA1(password)): what a server stores for mysql_native_password (in hexadecimal behind
/// a `*`).
#[must_use]
pub fn double_sha1(password: &[u8]) -> [u8; 20] {
    sha1(&[&stage1(password)])
}

/// The answer of mysql_native_password to a nonce, from SHA1(password).
#[must_use]
pub fn native_token(stage1: &[u8; 20], nonce: &[u8; NONCE_LEN]) -> [u8; 20] {
    let stored = sha1(&[stage1]);
    xor(*stage1, sha1(&[nonce, &stored]))
}

/// Checks an answer of mysql_native_password against the stored SHA1(SHA1(password)) and
/// recovers SHA1(password) from it, with which a login elsewhere is possible.
#[must_use]
pub fn native_recover(
    token: &[u8],
    nonce: &[u8; NONCE_LEN],
    stored: &[u8; 20],
) -> Option<[u8; 20]> {
    // A token of another length does the same work and fails at the end.
    let sized: Option<[u8; 20]> = token.try_into().ok();
    let stage1 = xor(sized.unwrap_or_default(), sha1(&[nonce, stored]));
    let right = constant_time::verify_slices_are_equal(&sha1(&[&stage1]), stored).is_ok();
    (right && sized.is_some()).then_some(stage1)
}

/// The fast answer of caching_sha2_password to a nonce.
#[must_use]
pub fn caching_sha2_token(password: &[u8], nonce: &[u8; NONCE_LEN]) -> [u8; 32] {
    let stage1 = sha256(&[password]);
    let stage2 = sha256(&[&stage1]);
    xor(stage1, sha256(&[&stage2, nonce]))
}

/// Checks a fast answer of caching_sha2_password against a known password.
#[must_use]
pub fn caching_sha2_verify(token: &[u8], nonce: &[u8; NONCE_LEN], password: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(token, &caching_sha2_token(password, nonce)).is_ok()
}

/// XORs with the nonce, repeated: what the RSA exchange wraps a password in, both ways.
fn obfuscate(bytes: &mut [u8], nonce: &[u8; NONCE_LEN]) {
    for (byte, mask) in bytes.iter_mut().zip(nonce.iter().cycle()) {
        *byte ^= mask;
    }
}

/// A fresh nonce: 20 bytes of seven bits, none of them NUL or `$`, which the formats that
/// nonces are stored and sent in use as delimiters.
///
/// # Errors
/// [`CryptoFailed`] when the system gives no randomness.
pub fn nonce() -> Result<[u8; NONCE_LEN], CryptoFailed> {
    let mut nonce = [0_u8; NONCE_LEN];
    let mut pool = [0_u8; 64];
    let mut filled = 0_usize;
    while filled < NONCE_LEN {
        rand::fill(&mut pool).map_err(|_| CryptoFailed("random bytes"))?;
        let fresh = pool.iter().map(|byte| byte & 0x7F).filter(|byte| !matches!(byte, 0 | b'$'));
        for (slot, byte) in nonce.iter_mut().skip(filled).zip(fresh) {
            *slot = byte;
            filled = filled.saturating_add(1);
        }
    }
    Ok(nonce)
}

/// An operation of the cryptographic library failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cryptography failed: {0}")]
pub struct CryptoFailed(pub &'static str);

/// The key pair that clients without TLS encrypt their passwords for.
pub struct RsaKey {
    key: OaepPrivateDecryptingKey,
    public_pem: String,
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaKey(..)")
    }
}

impl RsaKey {
    /// Makes a key of 2048 bits, as servers do at their first start. Takes about a tenth of a
    /// second: once per process.
    ///
    /// # Errors
    /// [`CryptoFailed`] when the library fails.
    pub fn generate() -> Result<Self, CryptoFailed> {
        let failed = |_| CryptoFailed("generating an RSA key");
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(failed)?;
        let der: PublicKeyX509Der<'_> = private.public_key().as_der().map_err(failed)?;
        let public_pem = pem(der.as_ref());
        Ok(Self { key: OaepPrivateDecryptingKey::new(private).map_err(failed)?, public_pem })
    }

    /// The public key as a PEM document, as servers send it.
    #[must_use]
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// How long an encrypted password is, bytes.
    #[must_use]
    pub fn block_len(&self) -> usize {
        self.key.key_size_bytes()
    }

    /// The password in a block that a client encrypted; `None` when it is not for this key or
    /// does not end with the NUL that belongs there.
    #[must_use]
    pub fn decrypt(&self, block: &[u8], nonce: &[u8; NONCE_LEN]) -> Option<Password> {
        let mut clear = Zeroizing::new(vec![0; self.key.min_output_size()]);
        let found = self.key.decrypt(&OAEP_SHA1_MGF1SHA1, block, &mut clear, None).ok()?;
        obfuscate(found, nonce);
        clear_password(found)
    }
}

/// The password in an answer that ends with a NUL.
#[must_use]
pub fn clear_password(answer: &[u8]) -> Option<Password> {
    let password = answer.strip_suffix(&[0])?;
    (password.len() < PASSWORD_MAX).then(|| Password::new(password.to_vec()))
}

/// Encrypts a password for the owner of a public key in PEM form.
///
/// # Errors
/// [`CryptoFailed`] when the document is no RSA public key of 2048 bits or more, or the
/// password is too long for it.
pub fn encrypt_with_pem(
    pem: &[u8],
    password: &Password,
    nonce: &[u8; NONCE_LEN],
) -> Result<Vec<u8>, CryptoFailed> {
    let der = der(pem).ok_or(CryptoFailed("reading a public key (PEM)"))?;
    let key = PublicEncryptingKey::from_der(&der)
        .map_err(|_| CryptoFailed("reading a public key (RSA, 2048 bits or more)"))?;
    let failed = |_| CryptoFailed("encrypting a password");
    let key = OaepPublicEncryptingKey::new(key).map_err(failed)?;
    let mut clear = password.with_nul();
    obfuscate(&mut clear, nonce);
    let mut out = vec![0; key.ciphertext_size()];
    let len = key.encrypt(&OAEP_SHA1_MGF1SHA1, &clear, &mut out, None).map_err(failed)?.len();
    out.truncate(len);
    Ok(out)
}

/// The clear answer: the password and a NUL. Only for secure transports.
#[must_use]
pub fn clear_answer(password: &Password) -> Zeroizing<Vec<u8>> {
    password.with_nul()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----\n";
const PEM_END: &str = "-----END PUBLIC KEY-----\n";

fn pem(der: &[u8]) -> String {
    let mut text = String::from(PEM_BEGIN);
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bytes = [0, 1, 2].map(|at| group.get(at).copied().unwrap_or_default());
            let [a, b, c] = bytes.map(u32::from);
            let bits = (a << 16) | (b << 8) | c;
            for (place, shift) in [18, 12, 6, 0].into_iter().enumerate() {
                let digit = usize::try_from((bits >> shift) & 63).unwrap_or_default();
                let letter = ALPHABET.get(digit).copied().unwrap_or(b'=');
                text.push(char::from(if place > group.len() { b'=' } else { letter }));
            }
        }
        text.push('\n');
    }
    text.push_str(PEM_END);
    text
}

fn der(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, text) = text.split_once(PEM_BEGIN.trim_end())?;
    let (text, _) = text.split_once(PEM_END.trim_end())?;
    let mut out = Vec::with_capacity(text.len());
    let (mut bits, mut have) = (0_u32, 0_u32);
    for letter in text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=') {
        let digit = ALPHABET.iter().position(|&known| known == letter)?;
        bits = (bits << 6) | u32::try_from(digit).ok()?;
        have = have.saturating_add(6);
        if have >= 8 {
            have = have.saturating_sub(8);
            let [byte, ..] = (bits >> have).to_le_bytes();
            out.push(byte);
            bits &= !(u32::MAX << have);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const NONCE: &[u8; NONCE_LEN] = b"abcdefghijklmnopqrst";

    /// SELECT PASSWORD('secret') on MariaDB.
    #[test]
    fn what_servers_store_is_known() {
        let hex: String = double_sha1(b"secret").iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(hex, "14E65567ABDB5135D0CFD9A70B3032C179A49EE7");
    }

    #[test]
    fn a_right_native_answer_gives_what_a_login_elsewhere_needs() {
        let stored = double_sha1(b"secret");
        let token = native_token(&stage1(b"secret"), NONCE);
        assert_eq!(native_recover(&token, NONCE, &stored), Some(stage1(b"secret")));
        assert_eq!(native_recover(&token, b"tsrqponmlkjihgfedcba", &stored), None);
        assert_eq!(native_recover(&token, NONCE, &double_sha1(b"other")), None);
        assert_eq!(native_recover(&token[..19], NONCE, &stored), None);
        assert_eq!(native_recover(b"", NONCE, &stored), None);
    }

    #[test]
    fn a_fast_answer_fits_its_password_and_nonce() {
        let token = caching_sha2_token(b"secret", NONCE);
        assert!(caching_sha2_verify(&token, NONCE, b"secret"));
        assert!(!caching_sha2_verify(&token, NONCE, b"Secret"));
        assert!(!caching_sha2_verify(&token, b"tsrqponmlkjihgfedcba", b"secret"));
        assert!(!caching_sha2_verify(&token[..31], NONCE, b"secret"));
        assert!(!caching_sha2_verify(b"", NONCE, b""));
    }

    #[test]
    fn passwords_cross_by_rsa() {
        let key = RsaKey::generate().unwrap();
        assert_eq!(key.block_len(), 256);
        let password = Password::new(b"s\xC3\xA9cret".to_vec());
        let block = encrypt_with_pem(key.public_pem().as_bytes(), &password, NONCE).unwrap();
        assert_eq!(block.len(), 256);
        assert_eq!(key.decrypt(&block, NONCE), Some(password.clone()));
        assert_eq!(key.decrypt(&block, b"tsrqponmlkjihgfedcba"), None);
        assert_eq!(key.decrypt(&block[..255], NONCE), None);
        assert_eq!(key.decrypt(&[7; 256], NONCE), None);
        let other = RsaKey::generate().unwrap();
        assert_eq!(other.decrypt(&block, NONCE), None);
        let long = Password::new(vec![b'x'; 300]);
        assert!(encrypt_with_pem(key.public_pem().as_bytes(), &long, NONCE).is_err());
        assert!(encrypt_with_pem(b"no key", &password, NONCE).is_err());
    }

    #[test]
    fn nonces_are_fresh_and_without_delimiters() {
        let mut seen = HashSet::new();
        for _ in 0..2000 {
            let nonce = nonce().unwrap();
            assert!(nonce.iter().all(|byte| !matches!(byte, 0 | b'$' | 0x80..)));
            assert!(seen.insert(nonce));
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let password = Password::new(b"hunter2".to_vec());
        let shown = format!("{password:?} {:?}", Credential::Password(password.clone()));
        assert!(!shown.contains("hunter2"));
        assert_eq!(format!("{:?}", Credential::Sha1([77; 20])), "Credential::Sha1(..)");
    }

    proptest! {
        #[test]
        fn pem_comes_back(bytes: Vec<u8>) {
            prop_assert_eq!(der(pem(&bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = der(&bytes);
            let _ = native_recover(&bytes, NONCE, &[0; 20]);
            let _ = clear_password(&bytes);
        }
    }
}
