//! MariaDB's plugin `mysql_old_password`, the proof from before 4.1: what the server keeps of a
//! password is all that a client needs to know, so that whoever may look up accounts can log in.
//!
//! Source: `sql/password.c` of MariaDB 10.11.

use aws_lc_rs::constant_time;

use super::handshake::NONCE_LEN;

/// The plugin's name, on the wire as well.
pub const OLD: &[u8] = b"mysql_old_password";
/// Length of an answer, bytes; clients send a NUL behind it.
pub const TOKEN_LEN: usize = 8;

/// Bits of a hash's halves.
const HALF: u32 = (1 << 31) - 1;
/// Bound of the generator's numbers.
const BOUND: u32 = 0x3FFF_FFFF;

/// What a server keeps of a password.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OldHash([u32; 2]);

impl std::fmt::Debug for OldHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OldHash(..)")
    }
}

impl OldHash {
    /// What OLD_PASSWORD() makes of a password.
    #[must_use]
    pub fn of(password: &[u8]) -> Self {
        let (mut first, mut second, mut add) = (1_345_345_333_u32, 0x1234_5671_u32, 7_u32);
        for byte in password.iter().filter(|byte| !matches!(byte, b' ' | b'\t')) {
            let byte = u32::from(*byte);
            let product = (first & 63).wrapping_add(add).wrapping_mul(byte);
            first ^= product.wrapping_add(first << 8);
            second = second.wrapping_add((second << 8) ^ first);
            add = add.wrapping_add(byte);
        }
        Self([first & HALF, second & HALF])
    }

    /// Reads it as it is stored: sixteen hexadecimal digits.
    #[must_use]
    pub fn parse(stored: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(stored).ok()?;
        if text.len() != 16 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let (first, second) = text.split_at(8);
        let half = |digits| u32::from_str_radix(digits, 16).ok();
        Some(Self([half(first)?, half(second)?]))
    }

    /// The answer to a nonce, of which eight bytes count.
    #[must_use]
    pub fn token(&self, nonce: &[u8; NONCE_LEN]) -> [u8; TOKEN_LEN] {
        let Self([asked_first, asked_second]) =
            Self::of(nonce.get(..TOKEN_LEN).unwrap_or_default());
        let [first, second] = self.0;
        let mut numbers = Numbers {
            first: (first ^ asked_first) % BOUND,
            second: (second ^ asked_second) % BOUND,
        };
        let mut token = [0; TOKEN_LEN];
        for byte in &mut token {
            *byte = numbers.below_31() | 64;
        }
        let extra = numbers.below_31();
        token.map(|byte| byte ^ extra)
    }

    /// Whether an answer to a nonce is right.
    #[must_use]
    pub fn is_met_by(&self, answer: &[u8], nonce: &[u8; NONCE_LEN]) -> bool {
        let answer = answer.strip_suffix(&[0]).unwrap_or(answer);
        constant_time::verify_slices_are_equal(answer, &self.token(nonce)).is_ok()
    }
}

/// The servers' generator of that time.
struct Numbers {
    first: u32,
    second: u32,
}

impl Numbers {
    fn below_31(&mut self) -> u8 {
        // Both are below 2^30: three of the one and the other fit.
        self.first = self.first.wrapping_mul(3).wrapping_add(self.second) % BOUND;
        self.second = self.first.wrapping_add(self.second).wrapping_add(33) % BOUND;
        // In floating point, as servers do it: exact quotients would differ at their borders.
        let drawn = f64::from(self.first) / f64::from(BOUND) * 31.0;
        (0..31).rev().find(|number| f64::from(*number) <= drawn).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_store_is_known() {
        for (password, stored) in [("oldpw", "09301740536db389"), ("test", "378b243e220ca493")] {
            assert_eq!(Some(OldHash::of(password.as_bytes())), OldHash::parse(stored.as_bytes()));
        }
        for bad in ["", "09301740536db38", "09301740536db3899", "+930174053+db389"] {
            assert_eq!(OldHash::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn an_answer_fits_its_hash_and_nonce() {
        let (hash, nonce) = (OldHash::of(b"oldpw"), [b'n'; NONCE_LEN]);
        let token = hash.token(&nonce);
        assert!(token.iter().all(|byte| (64..96).contains(byte)), "{token:?}");
        assert!(hash.is_met_by(&token, &nonce));
        assert!(hash.is_met_by(&[&token[..], b"\0"].concat(), &nonce));
        assert!(!hash.is_met_by(&token[..7], &nonce) && !hash.is_met_by(b"", &nonce));
        assert!(!hash.is_met_by(&token, &[b'm'; NONCE_LEN]));
        assert!(!OldHash::of(b"other").is_met_by(&token, &nonce));
        assert_eq!(format!("{hash:?}"), "OldHash(..)");
    }
}
