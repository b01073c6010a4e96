//! Messages laid out by hand.

#![allow(dead_code, reason = "each file of tests needs some of it")]

use bytes::Bytes;
use haven_xdr::{Decode, Encode, decode_all, encode_all};
use std::fmt::Debug;

/// A piece of a message.
pub enum Piece {
    Word(u32),
    Hyper(u64),
    /// With its length before and fill bytes behind it.
    Text(&'static str),
    Raw(&'static [u8]),
}

pub fn wire(pieces: &[Piece]) -> Bytes {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Word(word) => bytes.extend(word.to_be_bytes()),
            Piece::Hyper(hyper) => bytes.extend(hyper.to_be_bytes()),
            Piece::Text(text) => {
                bytes.extend((text.len() as u32).to_be_bytes());
                bytes.extend(text.as_bytes());
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            Piece::Raw(raw) => bytes.extend(*raw),
        }
    }
    bytes.into()
}

/// `value` is written as `pieces`, and they are read as it.
pub fn is<T: Encode + Decode + PartialEq + Debug>(value: T, pieces: &[Piece]) {
    let wire = wire(pieces);
    assert_eq!(encode_all(&value).into_bytes(), wire);
    assert_eq!(decode_all::<T>(wire), Ok(value));
}
