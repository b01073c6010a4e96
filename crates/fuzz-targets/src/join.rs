//! Joining a cluster: tokens, requests and answers. The first byte of an input chooses.

use crate::Seed;
use haven_pki::fuzzing;

const TOKEN: u8 = 0;
const SEALED: u8 = 1;
const REQUEST: u8 = 2;
const ANSWER: u8 = 3;

/// What a person types, what a machine asks with, and what a member answers.
pub(crate) fn join(input: &[u8]) {
    match input.split_first() {
        Some((&TOKEN, text)) => {
            if let Ok(text) = std::str::from_utf8(text) {
                fuzzing::token(text);
            }
        }
        Some((&SEALED, body)) => fuzzing::token(&fuzzing::sealed(body)),
        Some((&REQUEST, bytes)) => fuzzing::request(bytes),
        Some((&ANSWER, bytes)) => fuzzing::answer(bytes),
        _ => {}
    }
}

pub(crate) fn join_seeds() -> Vec<Seed> {
    let body = fuzzing::token_body();
    let token = fuzzing::sealed(&body).into_bytes();
    let inputs = [
        ("token", TOKEN, token),
        ("token-body", SEALED, body),
        ("request", REQUEST, fuzzing::sample_request()),
        ("answer", ANSWER, fuzzing::sample_answer()),
    ];
    inputs
        .map(|(name, tag, bytes)| Seed::new(name, [&[tag], &bytes[..]].concat()))
        .into()
}
