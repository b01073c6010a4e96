//! XDR (RFC 4506): a bounded [`Reader`], a gather [`Writer`], and [`Encode`] and [`Decode`], which tie types
//! to them and are derived with `#[derive(Xdr)]`.
//!
//! Invariants
//! - Reading never panics and never allocates by a length that was not first checked against both the
//!   caller's limit and the bytes that are really there.
//! - Payloads are not copied: a variable opaque is read as a slice of the received buffer, and a large
//!   one is written as a segment of its own.
//! - What a `Writer` produces is always a multiple of four bytes long.
//!
//! It must not know RPC, NFS, sockets or the clock.

mod error;
mod gather;
mod reader;
mod traits;
mod writer;

pub use error::{XdrError, XdrErrorKind};
pub use gather::Gather;
pub use haven_xdr_derive::Xdr;
pub use reader::Reader;
pub use traits::{Bounded, Decode, Discriminant, Encode, decode_all, encode_all};
pub use writer::Writer;

/// XDR's basic unit: every item takes a multiple of this many bytes (RFC 4506 section 3).
pub const UNIT_BYTES: usize = 4;

/// Payloads and segments shorter than this are copied: that costs less than one more segment.
pub const SHARE_BYTES_MIN: usize = 512;

/// How many fill bytes follow `len` bytes of opaque data.
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() % UNIT_BYTES
}

/// How many bytes a variable opaque or string of `len` bytes takes on the wire.
pub const fn opaque_wire_bytes(len: usize) -> usize {
    UNIT_BYTES + len + padding(len)
}
