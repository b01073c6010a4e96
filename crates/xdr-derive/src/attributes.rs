//! What `#[xdr(…)]` may say on a type, a variant and a field.

use proc_macro2::Span;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Expr, LitStr};

/// Calls `each` for every item in the `#[xdr(…)]` of `attrs`.
fn items(
    attrs: &[Attribute],
    mut each: impl FnMut(ParseNestedMeta<'_>) -> syn::Result<()>,
) -> syn::Result<()> {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("xdr")) {
        attr.parse_nested_meta(&mut each)?;
    }
    Ok(())
}

/// Puts `value` into an empty `place`.
fn once<T>(place: &mut Option<T>, value: T, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(meta.error("said twice")),
    }
}

/// On a type: its name in the RFC, or else in Rust.
pub(crate) fn type_name(input: &syn::DeriveInput) -> syn::Result<String> {
    let mut name: Option<LitStr> = None;
    items(&input.attrs, |meta| {
        if !meta.path.is_ident("name") {
            return Err(meta.error("a type takes `#[xdr(name = \"the RFC's name\")]` only"));
        }
        let value = meta.value()?.parse()?;
        once(&mut name, value, &meta)
    })?;
    Ok(name.map_or_else(|| input.ident.to_string(), |name| name.value()))
}

/// On a struct: nothing.
pub(crate) fn refuse_all(attrs: &[Attribute]) -> syn::Result<()> {
    items(attrs, |meta| {
        Err(meta.error("a struct takes no `#[xdr(…)]`: limits stand on its fields"))
    })
}

/// On a variant: which discriminants it is for.
pub(crate) enum Arm {
    /// Nothing is said.
    Unsaid,
    /// `#[xdr(case = …)]`.
    Case(Expr),
    /// `#[xdr(default)]`, and where.
    Default(Span),
}

pub(crate) fn arm(attrs: &[Attribute]) -> syn::Result<Arm> {
    let mut found: Option<Arm> = None;
    items(attrs, |meta| {
        if meta.path.is_ident("case") {
            let value = meta.value()?.parse()?;
            once(&mut found, Arm::Case(value), &meta)
        } else if meta.path.is_ident("default") {
            once(&mut found, Arm::Default(meta.path.span()), &meta)
        } else {
            Err(meta.error("a variant takes `#[xdr(case = …)]` or `#[xdr(default)]`"))
        }
    })?;
    Ok(found.unwrap_or(Arm::Unsaid))
}

/// On a field: how long it may get.
pub(crate) enum Length {
    /// The type says it.
    OfType,
    /// `#[xdr(max = …)]`: an opaque, string or array.
    Counted(Expr),
    /// `#[xdr(list, max = …)]`: a linked list.
    Listed(Expr),
}

pub(crate) fn length(attrs: &[Attribute]) -> syn::Result<Length> {
    let (mut max, mut list): (Option<Expr>, Option<Span>) = (None, None);
    items(attrs, |meta| {
        if meta.path.is_ident("max") {
            let value = meta.value()?.parse()?;
            once(&mut max, value, &meta)
        } else if meta.path.is_ident("list") {
            once(&mut list, meta.path.span(), &meta)
        } else {
            Err(meta.error("a field takes `#[xdr(max = N)]` or `#[xdr(list, max = N)]`"))
        }
    })?;
    match (max, list) {
        (None, None) => Ok(Length::OfType),
        (Some(max), None) => Ok(Length::Counted(max)),
        (Some(max), Some(_)) => Ok(Length::Listed(max)),
        (None, Some(at)) => Err(syn::Error::new(
            at,
            "a list needs its limit: `#[xdr(list, max = N)]`",
        )),
    }
}
