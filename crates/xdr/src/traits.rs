//! Types that have an XDR form.

use crate::{Gather, Reader, SHARE_BYTES_MIN, Writer, XdrError};
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

/// A type of variable length, whose limit depends on where it stands: `#[xdr(max = N)]`.
///
/// The limit holds for what is read. What is written is the caller's word (and asserted in debug builds).
pub trait Bounded: Sized {
    /// Appends the value, which must not be longer than `max`.
    fn encode_bounded(&self, max: usize, w: &mut Writer);

    /// Reads a value that is at most `max` long.
    fn decode_bounded(max: usize, r: &mut Reader) -> Result<Self, XdrError>;
}

/// A discriminant of which a union's default arm keeps the value.
pub trait Discriminant: Sized {
    /// The RFC's name of the enum.
    const NAME: &'static str;

    /// The discriminant with this value on the wire.
    fn from_discriminant(value: u32) -> Option<Self>;

    /// The value on the wire.
    fn to_discriminant(&self) -> u32;
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

/// Fixed-length array (RFC 4506 section 4.12).
impl<T: Encode, const N: usize> Encode for [T; N] {
    fn encode(&self, w: &mut Writer) {
        self.iter().for_each(|item| item.encode(w));
    }
}

impl<T: Decode + Copy + Default, const N: usize> Decode for [T; N] {
    fn decode(r: &mut Reader) -> Result<Self, XdrError> {
        let mut items = [T::default(); N];
        for item in &mut items {
            *item = T::decode(r)?;
        }
        Ok(items)
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

/// Variable-length opaque or string, read as a slice of the buffer; a long one is written without a copy.
impl Bounded for Bytes {
    fn encode_bounded(&self, max: usize, w: &mut Writer) {
        debug_assert!(self.len() <= max, "longer than its limit of {max}");
        if self.len() < SHARE_BYTES_MIN {
            w.put_opaque(self);
        } else {
            w.put_opaque_shared(self.clone());
        }
    }

    fn decode_bounded(max: usize, r: &mut Reader) -> Result<Self, XdrError> {
        r.opaque(max)
    }
}

/// Variable-length array.
impl<T: Encode + Decode> Bounded for Vec<T> {
    fn encode_bounded(&self, max: usize, w: &mut Writer) {
        debug_assert!(self.len() <= max, "longer than its limit of {max}");
        w.put_array(self);
    }

    fn decode_bounded(max: usize, r: &mut Reader) -> Result<Self, XdrError> {
        r.array_of(max)
    }
}

/// For unions whose default arm takes any value.
impl Discriminant for u32 {
    const NAME: &'static str = "unsigned int";

    fn from_discriminant(value: u32) -> Option<Self> {
        Some(value)
    }

    fn to_discriminant(&self) -> u32 {
        *self
    }
}
