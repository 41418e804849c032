//! MariaDB's plugin `ed25519` (`client_ed25519` on the wire): the password is the secret key,
//! the server keeps the public key, and the client signs the server's nonce.
//!
//! Source: "Authentication Plugin - ed25519" of MariaDB's documentation and RFC 8032, section
//! 5.1. Unlike there, the secret that is hashed is the password itself, of whatever length.

use aws_lc_rs::digest;
use curve25519_dalek::scalar::clamp_integer;
use curve25519_dalek::{EdwardsPoint, Scalar};
use zeroize::{Zeroize as _, Zeroizing};

/// The plugin's name in `mysql.global_priv`.
pub const ED25519: &[u8] = b"ed25519";
/// Its name on the wire.
pub const CLIENT_ED25519: &[u8] = b"client_ed25519";
/// Length of its nonce, bytes.
pub const ED25519_NONCE_LEN: usize = 32;
/// Length of a signature, bytes.
pub const SIGNATURE_LEN: usize = 64;

/// The key pair that a password stands for; wiped from memory when dropped.
struct Key {
    scalar: Scalar,
    prefix: Zeroizing<[u8; 32]>,
}

impl Key {
    fn of(password: &[u8]) -> Self {
        let hash = Zeroizing::new(sha512(&[password]));
        let mut secret = Zeroizing::new([0; 32]);
        let mut prefix = Zeroizing::new([0; 32]);
        for (to, from) in secret.iter_mut().chain(prefix.iter_mut()).zip(hash.iter()) {
            *to = *from;
        }
        let scalar = Scalar::from_bytes_mod_order(clamp_integer(*secret));
        Self { scalar, prefix }
    }

    fn public(&self) -> [u8; 32] {
        EdwardsPoint::mul_base(&self.scalar).compress().to_bytes()
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.scalar.zeroize();
    }
}

/// The answer to a nonce.
#[must_use]
pub fn sign(password: &[u8], nonce: &[u8]) -> [u8; SIGNATURE_LEN] {
    let key = Key::of(password);
    let mut once = Scalar::from_bytes_mod_order_wide(&sha512(&[&*key.prefix, nonce]));
    let point = EdwardsPoint::mul_base(&once).compress().to_bytes();
    let challenge = sha512(&[&point, &key.public(), nonce]);
    #[allow(clippy::arithmetic_side_effects, reason = "scalars of a field have none")]
    let proof = Scalar::from_bytes_mod_order_wide(&challenge) * key.scalar + once;
    once.zeroize();
    let mut signature = [0; SIGNATURE_LEN];
    for (to, from) in signature.iter_mut().zip(point.into_iter().chain(proof.to_bytes())) {
        *to = from;
    }
    signature
}

fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    let mut context = digest::Context::new(&digest::SHA512);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 64];
    for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ED25519 as STANDARD, UnparsedPublicKey};

    /// `ed25519_password('secret')` of MariaDB is this in base64 without its padding:
    /// ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY.
    const PUBLIC: [u8; 32] = [
        0x64, 0x88, 0x14, 0x44, 0x45, 0x20, 0xe4, 0xf5, 0x60, 0x43, 0xa2, 0xec, 0x92, 0x15, 0xe6,
        0x3b, 0xe7, 0x99, 0x2d, 0x2d, 0x27, 0x0b, 0xc6, 0xde, 0xe8, 0x73, 0xe3, 0x61, 0x64, 0x78,
        0x60, 0x96,
    ];

    #[test]
    fn a_password_has_the_public_key_that_the_server_keeps() {
        assert_eq!(Key::of(b"secret").public(), PUBLIC);
    }

    #[test]
    fn a_signature_is_one_by_another_library_s_judgement() {
        let key = UnparsedPublicKey::new(&STANDARD, &PUBLIC);
        let nonce = [7; ED25519_NONCE_LEN];
        assert!(key.verify(&nonce, &sign(b"secret", &nonce)).is_ok());
        assert!(key.verify(&[8; 32], &sign(b"secret", &nonce)).is_err());
        assert!(key.verify(&nonce, &sign(b"Secret", &nonce)).is_err());
    }
}
