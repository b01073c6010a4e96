//! Implementations for plain structs, enums and opaque newtypes. The type itself is written as
//! ordinary Rust; these macros only add [`Encode`](crate::Encode) and [`Decode`](crate::Decode), and do
//! not compile when a field or variant is missing.

/// A struct whose fields are encoded in the order given: `xdr_struct!(Name { first, second });`.
#[macro_export]
macro_rules! xdr_struct {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::Encode for $name {
            fn encode(&self, w: &mut $crate::Writer) {
                let Self { $($field),* } = self;
                $($crate::Encode::encode($field, w);)*
            }
        }

        impl $crate::Decode for $name {
            fn decode(r: &mut $crate::Reader) -> ::core::result::Result<Self, $crate::XdrError> {
                $(let $field = $crate::Decode::decode(r)?;)*
                Ok(Self { $($field),* })
            }
        }
    };
}

/// A `#[repr(u32)]` enum with explicit values, by its RFC name:
/// `xdr_enum!(Name, "name3" { First, Second });`.
#[macro_export]
macro_rules! xdr_enum {
    ($name:ident, $what:literal { $($variant:ident),* $(,)? }) => {
        impl $name {
            /// The variant with this value on the wire.
            pub fn from_wire(value: u32) -> ::core::option::Option<Self> {
                match value {
                    $(v if v == Self::$variant as u32 => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The value on the wire.
            pub const fn to_wire(self) -> u32 {
                match self {
                    $(Self::$variant)|* => self as u32,
                }
            }
        }

        impl $crate::Encode for $name {
            fn encode(&self, w: &mut $crate::Writer) {
                w.put_u32(self.to_wire());
            }
        }

        impl $crate::Decode for $name {
            fn decode(r: &mut $crate::Reader) -> ::core::result::Result<Self, $crate::XdrError> {
                let value = r.u32()?;
                Self::from_wire(value).ok_or_else(|| r.not_in_enum($what, value))
            }
        }
    };
}

/// A newtype over `Bytes` that is a variable-length opaque or string of at most `$max` bytes.
///
/// The limit holds for what is read. What is written is the caller's word (and asserted in debug builds).
#[macro_export]
macro_rules! xdr_opaque {
    ($name:ident, $max:expr) => {
        impl $crate::Encode for $name {
            fn encode(&self, w: &mut $crate::Writer) {
                debug_assert!(self.0.len() <= $max, "longer than its limit");
                w.put_opaque(&self.0);
            }
        }

        impl $crate::Decode for $name {
            fn decode(r: &mut $crate::Reader) -> ::core::result::Result<Self, $crate::XdrError> {
                r.opaque($max).map(Self)
            }
        }
    };
}
