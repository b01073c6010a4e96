//! What is written into files and expected when they are read: pseudo-random bytes that repeat with a period
//! prime to every block size, so that a block at the wrong place is noticed.

use std::ops::Range;

/// After how many bytes the pattern repeats: the largest prime below 2^20.
const PERIOD: usize = 1_048_573;

/// The pattern.
#[derive(Debug)]
pub(super) struct Pattern(Box<[u8]>);

impl Pattern {
    /// For blocks of at most `block_max` bytes.
    pub(super) fn new(seed: u64, block_max: usize) -> Self {
        let mut random = Random::new(seed);
        let mut bytes = Vec::with_capacity(PERIOD + block_max);
        while bytes.len() < PERIOD {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        bytes.truncate(PERIOD);
        for i in 0..block_max {
            bytes.push(bytes[i]);
        }
        Self(bytes.into())
    }

    /// Where the data of a block lie that file number `file` has at `offset`.
    pub(super) fn block(file: usize, offset: u64, len: usize) -> Range<usize> {
        let salt = (file as u64).wrapping_mul(7919);
        let start = (offset.wrapping_add(salt) % PERIOD as u64) as usize;
        start..start + len
    }

    pub(super) fn slice(&self, range: Range<usize>) -> &[u8] {
        &self.0[range]
    }
}

/// A small generator of pseudo-random numbers (xorshift64*): cheap, and the same run for the same seed.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}
