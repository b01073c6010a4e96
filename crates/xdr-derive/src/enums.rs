//! Enums without fields: a value each.

use crate::attributes::{Arm, arm, type_name};
use crate::structs::implement;
use proc_macro2::TokenStream;
use quote::quote;
use syn::{DataEnum, DeriveInput, Fields, Path};

/// Whether this is an enum rather than a union: no variant has fields, none is for a case.
pub(crate) fn is_plain(data: &DataEnum) -> syn::Result<bool> {
    for variant in &data.variants {
        let armed = !matches!(arm(&variant.attrs)?, Arm::Unsaid);
        if armed || !matches!(variant.fields, Fields::Unit) {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(crate) fn expand(input: &DeriveInput, data: &DataEnum) -> syn::Result<TokenStream> {
    check(input, data)?;
    let what = type_name(input)?;
    let (name, vis) = (&input.ident, &input.vis);
    let variants: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    let both = implement(
        input,
        &quote!(writer.put_u32(self.to_wire());),
        &quote! {
            let value = reader.u32()?;
            Self::from_wire(value).ok_or_else(|| reader.not_in_enum(#what, value))
        },
    );
    Ok(quote! {
        #[automatically_derived]
        impl #name {
            /// The variant with this value on the wire.
            #vis const fn from_wire(value: u32) -> ::core::option::Option<Self> {
                match value {
                    #(_ if value == Self::#variants as u32 => ::core::option::Option::Some(Self::#variants),)*
                    _ => ::core::option::Option::None,
                }
            }

            /// The value on the wire.
            #vis const fn to_wire(self) -> u32 {
                self as u32
            }
        }

        #[automatically_derived]
        impl ::haven_xdr::Discriminant for #name {
            const NAME: &'static str = #what;

            fn from_discriminant(value: u32) -> ::core::option::Option<Self> {
                Self::from_wire(value)
            }

            fn to_discriminant(&self) -> u32 {
                self.to_wire()
            }
        }

        #both
    })
}

fn check(input: &DeriveInput, data: &DataEnum) -> syn::Result<()> {
    let reprs = input
        .attrs
        .iter()
        .filter(|attr| attr.path().is_ident("repr"));
    let is_u32 = |attr: &syn::Attribute| attr.parse_args::<Path>().is_ok_and(|p| p.is_ident("u32"));
    if !reprs.into_iter().any(is_u32) {
        let why = "an XDR enum has 32 bits: write `#[repr(u32)]`";
        return Err(syn::Error::new_spanned(&input.ident, why));
    }
    if data.variants.is_empty() {
        return Err(syn::Error::new_spanned(
            &input.ident,
            "an XDR enum has values",
        ));
    }
    match data
        .variants
        .iter()
        .find(|variant| variant.discriminant.is_none())
    {
        None => Ok(()),
        Some(variant) => Err(syn::Error::new_spanned(
            variant,
            "write the RFC's value: `Name = 1` (or `#[xdr(case = 1)]` if this is a union's arm)",
        )),
    }
}
