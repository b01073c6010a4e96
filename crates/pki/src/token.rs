//! Tokens: one line that lets one machine into one cluster.
//!
//! A token names the cluster's authority, so that the machine knows whom it talks to before it says anything; an
//! address to ask at; and a secret, of which the cluster keeps only a hash. Whether it still counts is decided by
//! the cluster. The time in it is for people.
//!
//! It must not know how tokens are used up.

use std::fmt;

use crate::authority::{Fingerprint, random, sha256};
use crate::error::PkiError;
use crate::text;

/// Bytes of a token's secret.
pub const SECRET_LEN: usize = 20;

/// What every token of this form begins with.
pub(crate) const PREFIX: &str = "haven1-";

/// Bytes that tell a token that was cut or mistyped.
pub(crate) const CHECK_LEN: usize = 4;

/// Longest address in a token.
const ADDRESS_MAX: usize = 80;

/// Longest token looked at.
const TEXT_MAX: usize = 400;

/// What the cluster knows of a token's secret: its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// Of a secret.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        Self(sha256(secret))
    }
}

/// See the module's head.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The cluster's authority.
    pub authority: Fingerprint,
    /// Where to ask, as `address:port`.
    pub address: String,
    /// When it ends, in seconds since the epoch by the clock of the node that made it.
    pub expires: u64,
    secret: [u8; SECRET_LEN],
}

impl Token {
    /// Makes one.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn create(authority: Fingerprint, address: String, expires: u64) -> Result<Self, PkiError> {
        Ok(Self {
            authority,
            address,
            expires,
            secret: random()?,
        })
    }

    /// The secret. Only for the cluster that the token names.
    #[must_use]
    pub const fn secret(&self) -> &[u8; SECRET_LEN] {
        &self.secret
    }

    /// The secret as hexadecimal digits.
    #[must_use]
    pub fn secret_hex(&self) -> String {
        text::hex(&self.secret)
    }

    /// The hash of a secret that came as hexadecimal digits.
    #[must_use]
    pub fn hash_of_hex(digits: &str) -> Option<SecretHash> {
        text::from_hex::<SECRET_LEN>(digits).map(|secret| SecretHash::of(&secret))
    }

    /// What the cluster keeps.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.secret)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::new();
        bytes.extend(self.authority.0);
        bytes.extend(self.secret);
        bytes.extend(self.expires.to_be_bytes());
        bytes.extend(self.address.as_bytes());
        let check = sha256(&bytes);
        bytes.extend(&check[..CHECK_LEN]);
        write!(f, "{PREFIX}{}", text::base64(&bytes))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token for {} at {}", self.authority, self.address)
    }
}

impl std::str::FromStr for Token {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let text = text.trim();
        if text.len() > TEXT_MAX {
            return Err(PkiError::Token("it is too long"));
        }
        let body = text
            .strip_prefix(PREFIX)
            .ok_or(PkiError::Token("it does not begin with \"haven1-\""))?;
        let damaged = PkiError::Token("it is damaged");
        let Some(bytes) = text::from_base64(body) else {
            return Err(damaged);
        };
        let Some((bytes, check)) = bytes.split_last_chunk::<CHECK_LEN>() else {
            return Err(damaged);
        };
        if sha256(bytes)[..CHECK_LEN] != check[..] {
            return Err(damaged);
        }
        parse(bytes).ok_or(PkiError::Token("it says nothing sensible"))
    }
}

fn parse(bytes: &[u8]) -> Option<Token> {
    let (authority, rest) = bytes.split_first_chunk::<32>()?;
    let (secret, rest) = rest.split_first_chunk::<SECRET_LEN>()?;
    let (expires, address) = rest.split_first_chunk::<8>()?;
    let address = std::str::from_utf8(address).ok()?;
    // A name may be looked up; what is printed in messages must be harmless.
    let plain = |c: char| c.is_ascii_alphanumeric() || "[]:.-_%".contains(c);
    if address.is_empty() || address.len() > ADDRESS_MAX || !address.chars().all(plain) {
        return None;
    }
    Some(Token {
        authority: Fingerprint(*authority),
        address: address.to_owned(),
        expires: u64::from_be_bytes(*expires),
        secret: *secret,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_damaged_ones_are_refused() {
        let token = Token::create(Fingerprint([7; 32]), "[2001:db8::1]:7400".into(), 99).unwrap();
        let text = token.to_string();
        assert_eq!(text.parse::<Token>().unwrap(), token);
        assert_eq!(format!(" {text}\n").parse::<Token>().unwrap(), token);
        for cut in 0..text.len() {
            assert!(text[..cut].parse::<Token>().is_err(), "cut at {cut}");
        }
        for at in PREFIX.len()..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert!(other.parse::<Token>().is_err(), "changed at {at}");
        }
        assert!(!format!("{token:?}").contains(&text::hex(token.secret())));
    }
}
