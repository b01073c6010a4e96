//! Bytes as text: hexadecimal, and base64url without padding (RFC 4648 section 5).
//!
//! It must not know what the bytes mean.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        // The parser of integers would take a sign.
        if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(out)
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let mut bits = 0u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(group.get(at).copied().unwrap_or(0));
        }
        for at in 0..=group.len() {
            let six = (bits >> (18 - 6 * at)) & 63;
            out.push(char::from(ALPHABET[six as usize]));
        }
    }
    out
}

/// As in PEM (RFC 4648 section 4).
pub(crate) fn base64_standard(bytes: &[u8]) -> String {
    let digits = base64(bytes);
    let padding = digits.len().next_multiple_of(4) - digits.len();
    digits.replace('-', "+").replace('_', "/") + &"=".repeat(padding)
}

/// `None` if it is not what [`base64`] writes.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for at in 0..4 {
            let six = match group.get(at) {
                Some(digit) => ALPHABET.iter().position(|known| known == digit)?,
                None => 0,
            };
            bits = bits << 6 | u32::try_from(six).ok()?;
        }
        let count = group.len().checked_sub(1).filter(|count| *count > 0)?;
        out.extend(&bits.to_be_bytes()[1..=count]);
    }
    (base64(&out) == text).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_nothing_else_is_taken() {
        for len in 0..40u8 {
            let bytes: Vec<u8> = (0..len).map(|n| n.wrapping_mul(37)).collect();
            assert_eq!(from_base64(&base64(&bytes)).as_deref(), Some(&bytes[..]));
        }
        assert_eq!(base64(b"\xfb\xff\xfe\x00"), "-__-AA");
        for bad in ["A", "AAAAA", "A=", "AB", "A A", "\u{e4}"] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
        assert_eq!(base64_standard(b"\xfb\xff\xfe\x00"), "+//+AA==");
        assert_eq!(hex(&[0, 0xa5]), "00a5");
        assert_eq!(from_hex::<2>("00A5"), Some([0, 0xa5]));
        for bad in ["00a", "00a5a5", "+0a5", "00g5"] {
            assert_eq!(from_hex::<2>(bad), None, "{bad}");
        }
    }
}
