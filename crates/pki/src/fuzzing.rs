//! Entries for fuzzing: tokens, and what a machine that wants to join and a member say to each other. It must
//! not be part of what ships: it exists with the feature `fuzzing` only.

use std::sync::OnceLock;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::authority::{Fingerprint, NodeKey};
use crate::join::{JoinAnswer, JoinRequest, Shared};
use crate::token::{CHECK_LEN, PREFIX};
use crate::{Identity, Invitation, PublicKey, Token, authority, text};

/// A token's text. Panics if it is taken and has another form.
pub fn token(text: &str) {
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.to_string(), text.trim());
        assert_eq!(Token::hash_of_hex(&token.secret_hex()), Some(token.hash()));
    }
}

/// The text of a token with these bytes and the right check, which is hard to guess.
#[must_use]
pub fn sealed(body: &[u8]) -> String {
    let check = authority::sha256(body);
    let bytes = [body, &check[..CHECK_LEN]].concat();
    format!("{PREFIX}{}", text::base64(&bytes))
}

/// What a machine asks with. Panics if what is taken is another after it was written again.
pub fn request(bytes: &[u8]) {
    let Some(request) = comes_back::<JoinRequest>(bytes) else {
        return;
    };
    let _ = Token::hash_of_hex(&request.secret);
    if let Ok(key) = PublicKey::from_hex(&request.key) {
        assert_eq!(key.to_hex(), request.key.to_ascii_lowercase());
        assert!(PublicKey::from_bytes(key.bytes()).ok().as_ref() == Some(&key));
    }
}

/// What a member answers, as if its authority were the one that the token names. Without a key in it, the
/// authority's is this process's.
pub fn answer(bytes: &[u8]) {
    let Some(JoinAnswer { mut invitation, .. }) = comes_back::<JoinAnswer>(bytes) else {
        return;
    };
    let Ok(key) = NodeKey::from_pem(own_key()) else {
        panic!("a key made here is one");
    };
    if invitation.authority_key.is_empty() {
        own_key().clone_into(&mut invitation.authority_key);
    }
    let named = CertificateDer::from_pem_slice(invitation.authority.as_bytes());
    let named = named.map_or(Fingerprint([0; 32]), |shown| Fingerprint::of(&shown));
    if let Ok(identity) = Identity::accept(&invitation, key, named) {
        assert_eq!(identity.node(), invitation.node);
    }
}

/// A key is made once: making one takes long.
fn own_key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(|| NodeKey::create().map_or_else(|_| String::new(), |key| key.to_pem()))
}

fn comes_back<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&value);
    let again = written.as_deref().ok().and_then(|written| {
        let value: T = serde_json::from_slice(written).ok()?;
        serde_json::to_vec(&value).ok()
    });
    assert_eq!(again, written.ok());
    Some(value)
}

/// What is in a token, without its check.
#[must_use]
pub fn token_body() -> Vec<u8> {
    [
        &[7; 32][..],
        &[9; 20],
        &99u64.to_be_bytes(),
        b"192.0.2.1:7400",
    ]
    .concat()
}

/// A request.
#[must_use]
pub fn sample_request() -> Vec<u8> {
    let point = [&[4][..], &[1; 64]].concat();
    written(&JoinRequest {
        secret: text::hex(&[9; 20]),
        name: "b".into(),
        address: "192.0.2.2:7400".into(),
        key: text::hex(&point),
    })
}

/// An answer, whose certificates are the beginnings of some only.
#[must_use]
pub fn sample_answer() -> Vec<u8> {
    // A sequence (DER) of what should be three parts.
    let pem = "-----BEGIN CERTIFICATE-----\nMAwwAgUAMAIFAAMCAAA=\n-----END CERTIFICATE-----\n";
    written(&JoinAnswer {
        invitation: Invitation {
            cluster: text::hex(&[3; 16]),
            node: 2,
            certificate: pem.into(),
            authority: pem.into(),
            authority_key: String::new(),
        },
        shared: Shared {
            cluster: "files".into(),
            tables: "[service]\n".into(),
            exports: Some("/data *(rw)\n".into()),
        },
    })
}

fn written(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
