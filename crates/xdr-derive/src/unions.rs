//! Discriminated unions (RFC 4506 section 4.15): a discriminant, then the arm that it chooses.

use crate::attributes::{Arm, arm, type_name};
use crate::fields;
use crate::structs::implement;
use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use std::collections::BTreeSet;
use syn::{DataEnum, DeriveInput, Expr, ExprLit, Field, Lit, Variant};

/// The arms of a union.
struct Arms<'a> {
    /// Arms for one discriminant: its constant's name and value.
    cases: Vec<(Ident, Expr, &'a Variant)>,
    /// The arm for all others, with the field that holds the discriminant.
    default: Option<(&'a Variant, &'a Field)>,
}

pub(crate) fn expand(input: &DeriveInput, data: &DataEnum) -> syn::Result<TokenStream> {
    let what = type_name(input)?;
    let arms = arms(data)?;
    let constants: TokenStream = arms.cases.iter().map(constant).collect();
    let put: TokenStream = arms.put()?;
    let get: TokenStream = arms.get(&what)?;
    Ok(implement(
        input,
        &quote! {
            #constants
            match self { #put }
        },
        &quote! {
            #constants
            match reader.u32()? { #get }
        },
    ))
}

fn arms(data: &DataEnum) -> syn::Result<Arms<'_>> {
    let (mut cases, mut default) = (Vec::new(), None);
    let mut numbers = BTreeSet::new();
    for variant in &data.variants {
        if let Some((equals, _)) = &variant.discriminant {
            let why = "a union's arm has no value of its own: write `#[xdr(case = …)]`";
            return Err(syn::Error::new_spanned(equals, why));
        }
        match arm(&variant.attrs)? {
            Arm::Unsaid => {
                let why = "for which discriminant? `#[xdr(case = …)]` or `#[xdr(default)]`";
                return Err(syn::Error::new_spanned(variant, why));
            }
            Arm::Case(value) => {
                if number(&value)?.is_some_and(|number| !numbers.insert(number)) {
                    return Err(syn::Error::new_spanned(value, "another arm has this case"));
                }
                let name = format_ident!("CASE_{}", cases.len());
                cases.push((name, value, variant));
            }
            Arm::Default(at) if default.is_some() => {
                return Err(syn::Error::new(at, "another arm is the default"));
            }
            Arm::Default(at) => default = Some((variant, discriminant_field(variant, at)?)),
        }
    }
    Ok(Arms { cases, default })
}

/// The number that a case is, if it is written as one.
fn number(value: &Expr) -> syn::Result<Option<u32>> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Int(int), ..
        }) => int.base10_parse().map(Some),
        Expr::Path(_) => Ok(None),
        other => Err(syn::Error::new_spanned(
            other,
            "a case is a number from 0 to 2^32 - 1 or the path of a constant or variant",
        )),
    }
}

fn discriminant_field(variant: &Variant, at: Span) -> syn::Result<&Field> {
    variant.fields.iter().next().ok_or_else(|| {
        let why = "the default arm's first field holds the discriminant: `u32`, or an enum";
        syn::Error::new(at, why)
    })
}

fn constant((name, value, _): &(Ident, Expr, &Variant)) -> TokenStream {
    match value {
        Expr::Lit(_) => quote!(const #name: u32 = #value;),
        path => quote!(const #name: u32 = #path as u32;),
    }
}

impl Arms<'_> {
    /// The arms of `match self`.
    fn put(&self) -> syn::Result<TokenStream> {
        let mut out = TokenStream::new();
        for (case, _, variant) in &self.cases {
            let bindings = fields::bindings(&variant.fields);
            let pattern = pattern(variant, &bindings);
            let put = fields::put_all(&variant.fields, &bindings)?;
            quote!(#pattern => { writer.put_u32(#case); #put }).to_tokens(&mut out);
        }
        if let Some((variant, _)) = self.default {
            let cases = self.cases.iter().map(|(case, ..)| case);
            let bindings = fields::bindings(&variant.fields);
            let pattern = pattern(variant, &bindings);
            let put = fields::put_all(variant.fields.iter().skip(1), &bindings[1..])?;
            quote! {
                #pattern => {
                    let discriminant = ::haven_xdr::Discriminant::to_discriminant(field_0);
                    ::core::debug_assert!(
                        ![#(#cases),*].contains(&discriminant),
                        "the default arm holds another arm's discriminant"
                    );
                    writer.put_u32(discriminant);
                    #put
                }
            }
            .to_tokens(&mut out);
        }
        Ok(out)
    }

    /// The arms of a match on the discriminant.
    fn get(&self, what: &str) -> syn::Result<TokenStream> {
        let mut out = TokenStream::new();
        for (case, _, variant) in &self.cases {
            let bindings = fields::bindings(&variant.fields);
            let value = pattern(variant, &bindings);
            let get = fields::get_all(&variant.fields, &bindings)?;
            quote!(#case => { #get ::core::result::Result::Ok(#value) }).to_tokens(&mut out);
        }
        let Some((variant, discriminant)) = self.default else {
            quote!(other => ::core::result::Result::Err(reader.not_in_enum(#what, other)),)
                .to_tokens(&mut out);
            return Ok(out);
        };
        let kind = &discriminant.ty;
        let bindings = fields::bindings(&variant.fields);
        let value = pattern(variant, &bindings);
        let get = fields::get_all(variant.fields.iter().skip(1), &bindings[1..])?;
        quote! {
            other => {
                let field_0 = <#kind as ::haven_xdr::Discriminant>::from_discriminant(other)
                    .ok_or_else(|| {
                        let what = <#kind as ::haven_xdr::Discriminant>::NAME;
                        reader.not_in_enum(what, other)
                    })?;
                #get
                ::core::result::Result::Ok(#value)
            }
        }
        .to_tokens(&mut out);
        Ok(out)
    }
}

/// The variant, with its fields in these variables.
fn pattern(variant: &Variant, bindings: &[Ident]) -> TokenStream {
    let name = &variant.ident;
    let braced = fields::braced(&variant.fields, bindings);
    quote!(Self::#name #braced)
}
