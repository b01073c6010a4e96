//! The Internet checksum (RFC 1071), for packets that the kernel does not fill in.
//!
//! Must not know: what the packets are for.

/// The sum of 16 bit words, not yet folded. The inputs here have even, small lengths.
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum()
}

/// The sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1): both addresses, the protocol, and the
/// length of what follows.
pub(crate) fn pseudo(from: &[u8], to: &[u8], protocol: u8, bytes: usize) -> u32 {
    sum(from) + sum(to) + u32::from(protocol) + bytes as u32
}

/// The sum as 16 bits; its complement is the checksum.
pub(crate) fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
