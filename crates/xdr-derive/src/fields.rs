//! The fields of a struct or of a union's arm, named or not: taking them apart, writing them, reading them.

use crate::attributes::{Length, length};
use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Field, Fields};

/// Names for the values of `fields`, which clash with nothing.
pub(crate) fn bindings(fields: &Fields) -> Vec<Ident> {
    (0..fields.len())
        .map(|i| format_ident!("field_{i}"))
        .collect()
}

/// The fields in braces, as a pattern and as a value alike: `{ first: field_0, 1: field_1 }`.
pub(crate) fn braced(fields: &Fields, bindings: &[Ident]) -> TokenStream {
    let members = fields.members();
    quote!({ #(#members: #bindings),* })
}

/// Statement that writes `value`, a reference to the field.
pub(crate) fn put(field: &Field, value: &Ident) -> syn::Result<TokenStream> {
    let at = field.ty.span();
    Ok(match length(&field.attrs)? {
        Length::OfType => quote_spanned!(at=> ::haven_xdr::Encode::encode(#value, writer);),
        Length::Counted(max) => {
            quote_spanned!(at=> ::haven_xdr::Bounded::encode_bounded(#value, #max, writer);)
        }
        Length::Listed(max) => quote_spanned! {at=>
            ::core::debug_assert!(#value.len() <= #max, "longer than its limit");
            writer.put_list(#value);
        },
    })
}

/// Expression that reads the field.
pub(crate) fn get(field: &Field) -> syn::Result<TokenStream> {
    let at = field.ty.span();
    Ok(match length(&field.attrs)? {
        Length::OfType => quote_spanned!(at=> ::haven_xdr::Decode::decode(reader)?),
        Length::Counted(max) => {
            quote_spanned!(at=> ::haven_xdr::Bounded::decode_bounded(#max, reader)?)
        }
        Length::Listed(max) => quote_spanned!(at=> reader.list_of(#max)?),
    })
}

/// Statements that write all of `fields`.
pub(crate) fn put_all<'a>(
    fields: impl IntoIterator<Item = &'a Field>,
    values: &[Ident],
) -> syn::Result<TokenStream> {
    let each = fields.into_iter().zip(values);
    each.map(|(field, value)| put(field, value)).collect()
}

/// Statements that read all of `fields`, in their order, into variables.
pub(crate) fn get_all<'a>(
    fields: impl IntoIterator<Item = &'a Field>,
    values: &[Ident],
) -> syn::Result<TokenStream> {
    let each = fields.into_iter().zip(values);
    each.map(|(field, value)| {
        let get = get(field)?;
        Ok(quote!(let #value = #get;))
    })
    .collect()
}
