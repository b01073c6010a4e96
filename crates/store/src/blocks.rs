//! The chunks of files' maps of blocks ([`haven_fs::blocks`]) as rows: how they are kept, and their bytes.
//!
//! Replay safety: rows go back to the checkpoint as one, with the inodes that have the maps' heads, so what is done to
//! maps replays exactly. What the local file system has allocated plays no part.
//!
//! Invariant: equal chunks have equal bytes. Few runs are kept as such, more as bits.
//!
//! It must not know what is written when.

use crate::fatal;
use crate::keys;
use crate::layers::Layers;
use crate::row_key::RowKey;
use haven_fs::blocks::{CHUNK_UNITS, Chunk, Chunks};
use haven_fs::{FsError, FsResult, Ino};
use std::ops::ControlFlow;

const RUNS: u8 = 1;
const BITS: u8 = 2;
/// More runs than these take more bytes than the bits.
const RUNS_MAX: usize = 64;
const BITS_BYTES: usize = CHUNK_UNITS as usize / 8;

/// The chunks of one file.
pub struct FileChunks<'a> {
    pub layers: &'a mut Layers,
    pub ino: Ino,
}

impl FileChunks<'_> {
    /// Removes all of them.
    pub fn clear(&mut self) -> FsResult<()> {
        let mut keys = Vec::new();
        let prefix = keys::by_ino(keys::BLOCKS, self.ino);
        self.layers.scan_prefix(&prefix, &mut |key, _| {
            keys.push(RowKey::from(key));
            Ok(ControlFlow::Continue(()))
        })?;
        keys.iter().for_each(|key| self.layers.remove(key));
        Ok(())
    }
}

impl Chunks for FileChunks<'_> {
    fn get(&self, number: u32) -> FsResult<Option<Chunk>> {
        self.layers.read(&keys::blocks(self.ino, number), decode)
    }

    fn set(&mut self, number: u32, chunk: Option<&Chunk>) {
        let key = keys::blocks(self.ino, number);
        match chunk {
            Some(chunk) => self.layers.put(key, encode(chunk)),
            None => self.layers.remove(key),
        }
    }

    fn from(&self, number: u32) -> FsResult<Vec<(u32, Chunk)>> {
        let end = keys::after_prefix(&keys::by_ino(keys::BLOCKS, self.ino));
        let mut found = Vec::new();
        let from = keys::blocks(self.ino, number);
        self.layers.scan(&from, end.as_deref(), &mut |key, value| {
            let number = keys::chunk_of(key).ok_or_else(broken)?;
            found.push((number, decode(value)?));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }
}

/// The row's value.
pub fn encode(chunk: &Chunk) -> Vec<u8> {
    let runs: Vec<_> = chunk.runs().take(RUNS_MAX + 1).collect();
    if runs.len() > RUNS_MAX {
        let mut out = Vec::with_capacity(1 + BITS_BYTES);
        out.push(BITS);
        for word in chunk.words() {
            out.extend_from_slice(&word.to_be_bytes());
        }
        return out;
    }
    let mut out = Vec::with_capacity(1 + 4 * runs.len());
    out.push(RUNS);
    for (from, to) in runs {
        // Both are at most the number of units, which fits.
        for number in [from, to] {
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
    out
}

/// The chunk in a row's value.
pub fn decode(value: &[u8]) -> FsResult<Chunk> {
    let chunk = parse(value).filter(|chunk| chunk.count() > 0);
    chunk
        .filter(|chunk| encode(chunk) == value)
        .ok_or_else(broken)
}

fn parse(value: &[u8]) -> Option<Chunk> {
    let (&form, rest) = value.split_first()?;
    match form {
        RUNS => {
            let (runs, []) = rest.as_chunks::<4>() else {
                return None;
            };
            let mut chunk = Chunk::default();
            for &[a, b, c, d] in runs {
                let (from, to) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                chunk.set(from.into(), to.into());
            }
            Some(chunk)
        }
        BITS => {
            let (words, []) = rest.as_chunks::<8>() else {
                return None;
            };
            let words: Vec<u64> = words.iter().map(|word| u64::from_be_bytes(*word)).collect();
            Some(Chunk::of_words(words.try_into().ok()?))
        }
        _ => None,
    }
}

fn broken() -> FsError {
    fatal(
        "the metadata is damaged",
        "the blocks of a file cannot be read",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_survive_their_encoding_and_have_one_only() {
        let mut chunk = Chunk::default();
        chunk.set(4095, 4096);
        for n in 0..200 {
            let bytes = encode(&chunk);
            assert!(bytes.len() <= 1 + BITS_BYTES);
            assert_eq!(decode(&bytes), Ok(chunk.clone()));
            for len in 0..bytes.len() {
                assert_ne!(decode(&bytes[..len]), Ok(chunk.clone()));
            }
            chunk.set(n * 20, n * 20 + 7);
        }
        assert!(decode(&[RUNS]).is_err(), "nothing");
        assert!(decode(&[RUNS, 0, 9, 0, 5]).is_err(), "backwards");
        assert!(decode(&[RUNS, 0, 1, 0, 2, 0, 2, 0, 3]).is_err(), "one run");
        assert!(decode(&[RUNS, 0, 1, 16, 1]).is_err(), "past the end");
        let few = [&[BITS][..], &[1; BITS_BYTES]].concat();
        assert!(decode(&few).is_ok());
        let one = [&[BITS, 1][..], &[0; BITS_BYTES - 1]].concat();
        assert!(decode(&one).is_err(), "few runs are kept as such");
        assert!(decode(&[7]).is_err() && decode(&[]).is_err());
    }
}
