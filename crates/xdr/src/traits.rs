//! Types that have an XDR form.

use crate::{Gather, Reader, Writer, XdrError};
use bytes::Bytes;

/// A type that can be written as XDR. Writing cannot fail.
pub trait Encode {
    /// Appends the value.
    fn encode(&self, w: &mut Writer);
}

/// A type that can be read from XDR.
pub trait Decode: Sized {
    /// Reads one value; on an error the reader's position is unspecified.
    fn decode(r: &mut Reader) -> Result<Self, XdrError>;
}

/// The XDR form of one value.
pub fn encode_all<T: Encode + ?Sized>(value: &T) -> Gather {
    let mut w = Writer::new();
    value.encode(&mut w);
    w.finish()
}

/// Reads one value that must fill `bytes` exactly.
pub fn decode_all<T: Decode>(bytes: Bytes) -> Result<T, XdrError> {
    let mut r = Reader::new(bytes);
    let value = T::decode(&mut r)?;
    r.finish()?;
    Ok(value)
}

macro_rules! primitive {
    ($($type:ty: $get:ident, $put:ident;)*) => {$(
        impl Encode for $type {
            fn encode(&self, w: &mut Writer) {
                w.$put(*self);
            }
        }

        impl Decode for $type {
            fn decode(r: &mut Reader) -> Result<Self, XdrError> {
                r.$get()
            }
        }
    )*};
}

primitive! {
    u32: u32, put_u32;
    i32: i32, put_i32;
    u64: u64, put_u64;
    i64: i64, put_i64;
    bool: bool, put_bool;
}

/// `void`.
impl Encode for () {
    fn encode(&self, _: &mut Writer) {}
}

impl Decode for () {
    fn decode(_: &mut Reader) -> Result<Self, XdrError> {
        Ok(())
    }
}

/// Fixed-length opaque.
impl<const N: usize> Encode for [u8; N] {
    fn encode(&self, w: &mut Writer) {
        w.put_opaque_fixed(self);
    }
}

impl<const N: usize> Decode for [u8; N] {
    fn decode(r: &mut Reader) -> Result<Self, XdrError> {
        r.opaque_fixed()
    }
}

/// Optional data (RFC 4506 section 4.19), and unions over a bool whose `FALSE` arm is void.
impl<T: Encode> Encode for Option<T> {
    fn encode(&self, w: &mut Writer) {
        w.put_bool(self.is_some());
        if let Some(value) = self {
            value.encode(w);
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(r: &mut Reader) -> Result<Self, XdrError> {
        Ok(if r.bool()? { Some(T::decode(r)?) } else { None })
    }
}
