//! `#[derive(Xdr)]`: the XDR form (RFC 4506) of a type, written from its declaration.
//!
//! Invariants
//! - A field, variant or arm cannot be forgotten: the form is the declaration, in its order.
//! - What has a variable length has a limit. A type without an XDR form of its own (`Bytes`, `Vec`) does
//!   not compile without one.
//! - A declaration that leaves the form open is refused, at its place, with what to write instead.
//!
//! It must not know the types it is used on, and nothing of RPC.

use proc_macro::TokenStream;
use syn::{Data, DeriveInput, parse_macro_input};

mod attributes;
mod enums;
mod fields;
mod structs;
#[cfg(test)]
mod tests;
mod unions;

/// Implements `Encode` and `Decode` of `haven_xdr`.
///
/// # Structs and newtypes
/// The fields, in their order. What has a variable length carries its limit:
/// - `#[xdr(max = N)]` on `Bytes`: an opaque or string of at most `N` bytes; on a `Vec`: a
///   variable-length array of at most `N` elements;
/// - `#[xdr(list, max = N)]` on a `Vec`: a linked list of at most `N` elements.
///
/// ```
/// use bytes::Bytes;
/// use haven_xdr::Xdr;
///
/// #[derive(Xdr)]
/// struct Name(#[xdr(max = 255)] Bytes);
///
/// #[derive(Xdr)]
/// struct Export {
///     dir: Name,
///     #[xdr(list, max = 4096)]
///     groups: Vec<Name>,
/// }
/// ```
///
/// Without its limit a length does not compile:
///
/// ```compile_fail
/// # use bytes::Bytes;
/// # use haven_xdr::Xdr;
/// #[derive(Xdr)]
/// struct Name(Bytes);
/// ```
///
/// # Enums
/// `#[repr(u32)]`, without fields, each variant with the RFC's value. `#[xdr(name = "…")]` is the RFC's
/// name, for errors. Such an enum also gets `from_wire` and `to_wire`.
///
/// ```
/// # use haven_xdr::Xdr;
/// #[derive(Clone, Copy, Xdr)]
/// #[repr(u32)]
/// #[xdr(name = "stable_how")]
/// enum StableHow {
///     Unstable = 0,
///     DataSync = 1,
///     FileSync = 2,
/// }
/// assert!(StableHow::from_wire(3).is_none());
/// ```
///
/// A value that is left to the compiler is refused:
///
/// ```compile_fail
/// # use haven_xdr::Xdr;
/// #[derive(Clone, Copy, Xdr)]
/// #[repr(u32)]
/// enum StableHow {
///     Unstable,
///     DataSync = 1,
/// }
/// ```
///
/// # Discriminated unions
/// Each variant is an arm: `#[xdr(case = V)]` says for which discriminant (a number, or a path to a
/// constant or an enum's variant), its fields are the arm's body. `#[xdr(default)]` marks the arm for all
/// other discriminants; its first field is the discriminant itself: `u32`, or an enum that derives
/// `Xdr`, whose values are then the only ones that are accepted.
///
/// ```
/// # use haven_xdr::Xdr;
/// #[derive(Xdr)]
/// #[xdr(name = "time_how")]
/// enum SetTime {
///     #[xdr(case = 0)]
///     DontChange,
///     #[xdr(case = 1)]
///     ServerTime,
///     #[xdr(case = 2)]
///     ClientTime { seconds: u32, nseconds: u32 },
/// }
///
/// #[derive(Xdr)]
/// enum Fhstatus {
///     #[xdr(case = 0)]
///     Ok([u8; 32]),
///     #[xdr(default)]
///     Fail(u32),
/// }
/// ```
///
/// An arm without a discriminant is refused:
///
/// ```compile_fail
/// # use haven_xdr::Xdr;
/// #[derive(Xdr)]
/// enum Fhstatus {
///     #[xdr(case = 0)]
///     Ok([u8; 32]),
///     Fail(u32),
/// }
/// ```
#[proc_macro_derive(Xdr, attributes(xdr))]
pub fn derive_xdr(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

fn expand(input: &DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
    match &input.data {
        Data::Struct(data) => structs::expand(input, &data.fields),
        Data::Enum(data) if enums::is_plain(data)? => enums::expand(input, data),
        Data::Enum(data) => unions::expand(input, data),
        Data::Union(data) => Err(syn::Error::new_spanned(
            data.union_token,
            "an XDR discriminated union is a Rust `enum` whose arms have `#[xdr(case = …)]`",
        )),
    }
}
