//! A row's key in memory: short ones, which are nearly all, without an allocation of their own. Looking
//! into a tree of changed rows compares dozens of keys, and one that lies elsewhere costs a cache miss.
//!
//! Invariant: keys compare, equal and hash as their bytes do.
//!
//! It must not know what keys mean.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// Longest key kept in place: an entry of a directory with a name of 21 bytes.
const IN_PLACE_BYTES: usize = 30;

/// See the module's head comment.
#[derive(Clone)]
pub struct RowKey(Repr);

#[derive(Clone)]
enum Repr {
    InPlace {
        len: u8,
        bytes: [u8; IN_PLACE_BYTES],
    },
    Elsewhere(Box<[u8]>),
}

impl RowKey {
    /// The key that is `head` and then `tail`.
    pub fn of_two(head: &[u8], tail: &[u8]) -> Self {
        let len = head.len() + tail.len();
        match u8::try_from(len) {
            Ok(short) if len <= IN_PLACE_BYTES => {
                let mut bytes = [0; IN_PLACE_BYTES];
                bytes[..head.len()].copy_from_slice(head);
                bytes[head.len()..len].copy_from_slice(tail);
                Self(Repr::InPlace { len: short, bytes })
            }
            _ => Self(Repr::Elsewhere([head, tail].concat().into())),
        }
    }
}

impl From<&[u8]> for RowKey {
    fn from(bytes: &[u8]) -> Self {
        Self::of_two(bytes, &[])
    }
}

impl Deref for RowKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::InPlace { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Elsewhere(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for RowKey {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for RowKey {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self[..].cmp(&other[..])
    }
}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RowKey {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for RowKey {}

impl Hash for RowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self[..].fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_lengths_are_their_bytes() {
        let bytes: Vec<u8> = (0..80).collect();
        for len in 0..80 {
            let key = RowKey::from(&bytes[..len]);
            assert_eq!(&key[..], &bytes[..len]);
            assert_eq!(RowKey::of_two(&bytes[..len / 3], &bytes[len / 3..len]), key);
            assert!(key < RowKey::from(&bytes[..len + 1]), "a prefix is before");
            assert!(key < RowKey::from(&[200][..]));
        }
        assert_eq!(size_of::<RowKey>(), 32);
    }
}
