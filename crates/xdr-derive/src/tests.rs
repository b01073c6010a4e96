//! What is refused, and in which words.

use crate::expand;
use syn::{DeriveInput, parse_quote};

/// The error for this declaration.
fn refusal(input: &DeriveInput) -> String {
    match expand(input) {
        Err(error) => error.to_string(),
        Ok(code) => panic!("expands to {code}"),
    }
}

#[test]
fn every_value_is_written() {
    let unsaid = parse_quote! {
        #[repr(u32)]
        enum Colour { Red, Blue = 2 }
    };
    assert!(refusal(&unsaid).contains("write the RFC's value"));
    let narrow = parse_quote! {
        enum Colour { Red = 1 }
    };
    assert!(refusal(&narrow).contains("#[repr(u32)]"));
    let other = parse_quote! {
        #[repr(u8)]
        enum Colour { Red = 1 }
    };
    assert!(refusal(&other).contains("#[repr(u32)]"));
    let none = parse_quote! {
        #[repr(u32)]
        enum Colour {}
    };
    assert!(refusal(&none).contains("has values"));
}

#[test]
fn every_arm_says_what_it_is_for() {
    let unsaid = parse_quote! {
        enum Result { #[xdr(case = 0)] Ok(u32), Fail }
    };
    assert!(refusal(&unsaid).contains("for which discriminant?"));
    let twice = parse_quote! {
        enum Result { #[xdr(case = 1)] Ok(u32), #[xdr(case = 0x1)] Fail }
    };
    assert!(refusal(&twice).contains("another arm has this case"));
    let defaults = parse_quote! {
        enum Result { #[xdr(default)] Ok(u32), #[xdr(default)] Fail(u32) }
    };
    assert!(refusal(&defaults).contains("another arm is the default"));
    let both = parse_quote! {
        enum Result { #[xdr(case = 1, default)] Ok(u32) }
    };
    assert!(refusal(&both).contains("said twice"));
    let value = parse_quote! {
        enum Result { #[xdr(case = 1)] Ok = 1 }
    };
    assert!(refusal(&value).contains("no value of its own"));
    let text = parse_quote! {
        enum Result { #[xdr(case = "one")] Ok }
    };
    assert!(refusal(&text).contains("a case is a number"));
    let negative = parse_quote! {
        enum Result { #[xdr(case = -1)] Ok }
    };
    assert!(refusal(&negative).contains("a case is a number"));
    let large = parse_quote! {
        enum Result { #[xdr(case = 4294967296)] Ok }
    };
    assert!(refusal(&large).contains("too large"));
    let bare = parse_quote! {
        enum Result { #[xdr(default)] Fail }
    };
    assert!(refusal(&bare).contains("first field holds the discriminant"));
}

#[test]
fn unknown_and_misplaced_words_are_refused() {
    let field = parse_quote! {
        struct Name(#[xdr(limit = 5)] Bytes);
    };
    assert!(refusal(&field).contains("a field takes"));
    let list = parse_quote! {
        struct Names { #[xdr(list)] all: Vec<Name> }
    };
    assert!(refusal(&list).contains("a list needs its limit"));
    let twice = parse_quote! {
        struct Name(#[xdr(max = 5, max = 6)] Bytes);
    };
    assert!(refusal(&twice).contains("said twice"));
    let outside = parse_quote! {
        #[xdr(max = 5)]
        struct Name(Bytes);
    };
    assert!(refusal(&outside).contains("limits stand on its fields"));
    let variant = parse_quote! {
        enum Result { #[xdr(value = 5)] Ok }
    };
    assert!(refusal(&variant).contains("a variant takes"));
    let kind = parse_quote! {
        #[repr(u32)]
        #[xdr(max = 5)]
        enum Colour { Red = 1 }
    };
    assert!(refusal(&kind).contains("a type takes"));
    let union = parse_quote! {
        union Result { ok: u32 }
    };
    assert!(refusal(&union).contains("is a Rust `enum`"));
}
