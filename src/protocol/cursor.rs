//! Bounds-checked reader over one payload.
//!
//! Every method names what it reads, so that a [`Malformed`] says which field was short.

use super::Malformed;

/// Reads little-endian integers and the string forms of the protocol.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    buf: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte of `buf`.
    #[must_use]
    pub const fn new(buf: &'a [u8]) -> Self {
        Self { buf, at: 0 }
    }

    /// Offset of the next byte.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.at >= self.buf.len()
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.buf.len().saturating_sub(self.at)
    }

    /// What is left, without taking it.
    #[must_use]
    pub fn peek(&self) -> &'a [u8] {
        self.buf.get(self.at..).unwrap_or_default()
    }

    /// Takes everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = self.peek();
        self.at = self.buf.len();
        rest
    }

    /// Takes exactly `len` bytes.
    ///
    /// # Errors
    /// [`Malformed`] when fewer are left.
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(len).ok_or_else(|| Malformed::new(what, self.at))?;
        let taken = self.buf.get(self.at..end).ok_or_else(|| Malformed::new(what, self.at))?;
        self.at = end;
        Ok(taken)
    }

    /// Passes over `len` bytes.
    ///
    /// # Errors
    /// [`Malformed`] when fewer are left.
    pub fn skip(&mut self, len: usize, what: &'static str) -> Result<(), Malformed> {
        self.take(len, what).map(|_| ())
    }

    /// Takes an array of `N` bytes.
    ///
    /// # Errors
    /// [`Malformed`] when fewer are left.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let found = self.peek().first_chunk::<N>().ok_or_else(|| Malformed::new(what, self.at))?;
        self.at = self.at.saturating_add(N);
        Ok(*found)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Malformed`] at the end of the payload.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// Two bytes, little-endian.
    ///
    /// # Errors
    /// [`Malformed`] when fewer are left.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        self.array(what).map(u16::from_le_bytes)
    }

    /// Three bytes, little-endian.
    ///
    /// # Errors
    /// [`Malformed`] when fewer are left.
    pub fn u24(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// [`Malformed`] when fewer are left.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`Malformed`] when fewer are left.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A length-encoded integer. 0xFB (NULL) and 0xFF are no integers.
    ///
    /// # Errors
    /// [`Malformed`] when short, or on 0xFB or 0xFF.
    pub fn lenenc_int(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let at = self.at;
        match self.u8(what)? {
            small @ 0..=0xFA => Ok(u64::from(small)),
            0xFC => self.u16(what).map(u64::from),
            0xFD => self.u24(what).map(u64::from),
            0xFE => self.u64(what),
            0xFB | 0xFF => Err(Malformed::new(what, at)),
        }
    }

    /// A length-encoded string.
    ///
    /// # Errors
    /// [`Malformed`] when the declared length exceeds what is left.
    pub fn lenenc_str(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let at = self.at;
        let len = self.lenenc_int(what)?;
        let len = usize::try_from(len).map_err(|_| Malformed::new(what, at))?;
        self.take(len, what)
    }

    /// A string ended by a NUL byte, which is taken too and not returned.
    ///
    /// # Errors
    /// [`Malformed`] when there is no NUL.
    pub fn nul_str(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let len = memchr::memchr(0, self.peek()).ok_or_else(|| Malformed::new(what, self.at))?;
        let text = self.take(len, what)?;
        self.skip(1, what)?;
        Ok(text)
    }

    /// A string ended by a NUL byte or by the end of the payload: several clients leave out
    /// the last NUL, and servers accept it.
    pub fn nul_str_or_rest(&mut self) -> &'a [u8] {
        match self.nul_str("") {
            Ok(text) => text,
            Err(_) => self.rest(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::writer;
    use proptest::prelude::*;

    #[test]
    fn short_payloads_are_refused_with_their_offset() {
        let mut cursor = Cursor::new(&[1, 2, 3]);
        assert_eq!(cursor.u16("a"), Ok(0x0201));
        assert_eq!(cursor.u16("b"), Err(Malformed { what: "b", at: 2 }));
        assert_eq!(cursor.u8("c"), Ok(3));
        assert!(cursor.is_empty());
    }

    #[test]
    fn lengths_near_the_end_of_the_address_space_do_not_wrap() {
        let payload = [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, b'x'];
        assert!(Cursor::new(&payload).lenenc_str("text").is_err());
        let mut cursor = Cursor::new(&payload);
        cursor.skip(3, "skip").unwrap();
        assert!(cursor.take(usize::MAX, "take").is_err());
    }

    #[test]
    fn null_and_error_marks_are_no_lengths() {
        assert!(Cursor::new(&[0xFB]).lenenc_int("n").is_err());
        assert!(Cursor::new(&[0xFF]).lenenc_int("n").is_err());
    }

    #[test]
    fn a_string_without_its_nul_is_taken_to_the_end_where_allowed() {
        assert_eq!(Cursor::new(b"ab\0c").nul_str("s"), Ok(&b"ab"[..]));
        assert!(Cursor::new(b"ab").nul_str("s").is_err());
        assert_eq!(Cursor::new(b"ab").nul_str_or_rest(), b"ab");
    }

    proptest! {
        #[test]
        fn lenenc_integers_come_back(value: u64) {
            let mut out = Vec::new();
            writer::lenenc_int(&mut out, value);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.lenenc_int("n"), Ok(value));
            prop_assert!(cursor.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, skip: usize) {
            let mut cursor = Cursor::new(&bytes);
            let _ = cursor.lenenc_str("a");
            let _ = cursor.nul_str("b");
            let _ = cursor.skip(skip, "c");
            let _ = cursor.u64("d");
            prop_assert!(cursor.at() <= bytes.len());
        }
    }
}
