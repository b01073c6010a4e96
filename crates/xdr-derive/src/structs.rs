//! Structs, newtypes among them: the fields, in their order.

use crate::{attributes, fields};
use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{DeriveInput, Fields, Generics, parse_quote};

pub(crate) fn expand(input: &DeriveInput, all: &Fields) -> syn::Result<TokenStream> {
    attributes::refuse_all(&input.attrs)?;
    let bindings = fields::bindings(all);
    let braced = fields::braced(all, &bindings);
    let put = fields::put_all(all, &bindings)?;
    let get = fields::get_all(all, &bindings)?;
    Ok(implement(
        input,
        &quote! {
            let Self #braced = self;
            #put
        },
        &quote! {
            #get
            ::core::result::Result::Ok(Self #braced)
        },
    ))
}

/// Both traits, for these bodies of their methods.
pub(crate) fn implement(
    input: &DeriveInput,
    encode: &impl ToTokens,
    decode: &impl ToTokens,
) -> TokenStream {
    let name = &input.ident;
    let encodes = bounded(&input.generics, &quote!(::haven_xdr::Encode));
    let decodes = bounded(&input.generics, &quote!(::haven_xdr::Decode));
    let (for_encode, types, where_encode) = encodes.split_for_impl();
    let (for_decode, _, where_decode) = decodes.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #for_encode ::haven_xdr::Encode for #name #types #where_encode {
            fn encode(&self, writer: &mut ::haven_xdr::Writer) {
                #encode
            }
        }

        #[automatically_derived]
        impl #for_decode ::haven_xdr::Decode for #name #types #where_decode {
            fn decode(
                reader: &mut ::haven_xdr::Reader,
            ) -> ::core::result::Result<Self, ::haven_xdr::XdrError> {
                #decode
            }
        }
    }
}

/// The generics, with `bound` on every type parameter.
fn bounded(generics: &Generics, bound: &TokenStream) -> Generics {
    let mut generics = generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(#bound));
    }
    generics
}
