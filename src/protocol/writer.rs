//! Appends the field forms of the protocol to a buffer, and frames what was appended.

use super::packet;

/// Appends a length-encoded integer.
pub fn lenenc_int(out: &mut Vec<u8>, value: u64) {
    let [a, b, c, ..] = value.to_le_bytes();
    match value {
        0..=0xFA => out.push(a),
        0xFB..=0xFFFF => out.extend_from_slice(&[0xFC, a, b]),
        0x1_0000..=0xFF_FFFF => out.extend_from_slice(&[0xFD, a, b, c]),
        _ => {
            out.push(0xFE);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// Appends a length-encoded string.
pub fn lenenc_str(out: &mut Vec<u8>, text: &[u8]) {
    // usize is at most 64 bits on every target that exists; saturation can not happen.
    lenenc_int(out, u64::try_from(text.len()).unwrap_or(u64::MAX));
    out.extend_from_slice(text);
}

/// Appends a string and the NUL byte that ends it. A NUL inside the text would end it early,
/// so the text is cut there.
pub fn nul_str(out: &mut Vec<u8>, text: &[u8]) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    out.extend_from_slice(text.get(..end).unwrap_or_default());
    out.push(0);
}

/// Appends one packet: `fill` appends the payload, the header is filled in afterwards.
/// Returns the sequence number that follows.
pub fn packet(out: &mut Vec<u8>, seq: u8, fill: impl FnOnce(&mut Vec<u8>)) -> u8 {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, seq]);
    let body = out.len();
    fill(out);
    let len = out.len().saturating_sub(body);
    if len >= packet::MAX_PAYLOAD {
        let payload = out.split_off(body);
        out.truncate(start);
        return packet::write(out, seq, &payload);
    }
    let [a, b, c, ..] = len.to_le_bytes();
    if let Some(header) = out.get_mut(start..body) {
        header.copy_from_slice(&[a, b, c, seq]);
    }
    seq.wrapping_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lenenc_forms_change_at_their_limits() {
        for (value, want) in [
            (0, vec![0]),
            (0xFA, vec![0xFA]),
            (0xFB, vec![0xFC, 0xFB, 0]),
            (0xFFFF, vec![0xFC, 0xFF, 0xFF]),
            (0x1_0000, vec![0xFD, 0, 0, 1]),
            (0x100_0000, vec![0xFE, 0, 0, 0, 1, 0, 0, 0, 0]),
        ] {
            let mut out = Vec::new();
            lenenc_int(&mut out, value);
            assert_eq!(out, want, "{value:#x}");
        }
    }

    #[test]
    fn the_header_is_filled_in_afterwards() {
        let mut out = vec![9];
        let next = packet(&mut out, 255, |out| out.extend_from_slice(b"abc"));
        assert_eq!(out, [9, 3, 0, 0, 255, b'a', b'b', b'c']);
        assert_eq!(next, 0);
    }

    #[test]
    fn a_large_payload_is_split_like_any_other() {
        let payload = vec![7; packet::MAX_PAYLOAD];
        let mut filled = Vec::new();
        let next = packet(&mut filled, 3, |out| out.extend_from_slice(&payload));
        let mut written = Vec::new();
        assert_eq!(next, packet::write(&mut written, 3, &payload));
        assert!(filled == written);
    }

    #[test]
    fn a_nul_inside_ends_the_string() {
        let mut out = Vec::new();
        nul_str(&mut out, b"root\0admin");
        assert_eq!(out, b"root\0");
    }
}
