//! Record marking (RFC 5531 section 11): how messages are cut out of a byte stream.
//!
//! Each message is one or more fragments; each fragment has a header of four bytes. It knows no
//! limits but the format's own: how much to accept is the transport's decision.

use haven_xdr::Gather;

/// Size of a fragment header.
pub const HEADER_BYTES: usize = 4;
/// Longest fragment the format can express.
pub const FRAGMENT_BYTES_MAX: usize = 0x7fff_ffff;

const LAST: u32 = 0x8000_0000;

/// What precedes a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Whether the fragment is its message's last.
    pub last: bool,
    /// Length of the fragment that follows, at most [`FRAGMENT_BYTES_MAX`].
    pub len: u32,
}

impl FragmentHeader {
    /// Reads a header. All values are valid.
    pub const fn parse(bytes: [u8; HEADER_BYTES]) -> Self {
        let word = u32::from_be_bytes(bytes);
        Self {
            last: word & LAST != 0,
            len: word & !LAST,
        }
    }

    /// The header's bytes.
    pub const fn encode(self) -> [u8; HEADER_BYTES] {
        let last = if self.last { LAST } else { 0 };
        (last | (self.len & !LAST)).to_be_bytes()
    }
}

/// Puts the record mark before `message`, as a single fragment.
///
/// # Panics
/// If the message is longer than [`FRAGMENT_BYTES_MAX`], which no bounded message comes near.
pub fn frame(mut message: Gather) -> Gather {
    let len = message.len();
    assert!(
        len <= FRAGMENT_BYTES_MAX,
        "a fragment has at most 31 bits of length, this is {len}"
    );
    let header = FragmentHeader {
        last: true,
        len: len as u32,
    };
    message.prefix(&header.encode());
    message
}
