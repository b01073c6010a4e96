//! Which blocks of a file were written since they were last cut off: what it uses ([`crate::Attr::used`]), and what in it are
//! holes.
//!
//! The map is in two parts. Its head is small and part of the inode: how many units from the file's beginning on are all
//! used, and how many others. The others are bits in chunks, which an engine keeps beside the inode, by number. A file
//! that is written from front to end has no chunk at all.
//!
//! A unit is a block at first. When a file has more chunks than [`CHUNKS_MAX`], its units are doubled until half as many
//! are enough: a unit of which any block is used then counts whole. So what an operation costs is bounded, whatever the file
//! looks like, and a file of less than 16 GiB is counted by blocks however it is written.
//!
//! Before [`Level::COUNTED_BLOCKS`] a file uses all blocks up to its size, and its map is that of a file without holes. Whatever it has
//! then stays in its map: files from before show their size until they are cut, or grow.
//!
//! Invariants
//! - The map is a function of the operations applied, in their order.
//! - Units in chunks are at or past the head's; no chunk is empty.
//! - An operation reads and changes at most two chunks for each 16 MiB that it writes, and two more; one that cuts, or
//!   doubles the units, at most [`CHUNKS_MAX`] and one.
//!
//! It must not know where chunks are kept, nor what files hold.

use crate::rules::BLOCK_BYTES;
use crate::{FsResult, Level};

/// Units of which a chunk has bits.
pub const CHUNK_UNITS: u32 = 4096;
/// Chunks of one file.
pub const CHUNKS_MAX: u16 = 1024;
/// So many are left when the units are doubled: the next doubling is as many writes away.
const CHUNKS_LEFT: usize = CHUNKS_MAX as usize / 2;
/// How often a unit is doubled at most: chunks of the largest file are few enough then.
pub const DOUBLED_MAX: u8 = 12;
/// Chunks that become part of the head in one operation.
const ABSORBED_MAX: usize = 2;
const WORD_BITS: u32 = u64::BITS;
const WORDS: usize = (CHUNK_UNITS / WORD_BITS) as usize;

/// The head of a file's map. The default is that of an empty file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockMap {
    /// Units from the beginning on that are all used.
    pub leading: u32,
    /// Units in chunks.
    pub scattered: u32,
    /// Chunks.
    pub chunks: u16,
    /// How often a unit was doubled.
    pub doubled: u8,
}

/// Bits of [`CHUNK_UNITS`] units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk([u64; WORDS]);

/// Where the chunks of one file are.
pub trait Chunks {
    /// The chunk of this number; `None`: nothing in it is used.
    fn get(&self, number: u32) -> FsResult<Option<Chunk>>;

    /// Sets or (with `None`) removes a chunk.
    fn set(&mut self, number: u32, chunk: Option<&Chunk>);

    /// All chunks from this number on, in order.
    fn from(&self, number: u32) -> FsResult<Vec<(u32, Chunk)>>;
}

impl BlockMap {
    /// Of a file of this size without holes.
    pub fn dense(size: u64) -> Self {
        Self {
            leading: units(size.div_ceil(BLOCK_BYTES)),
            ..Self::default()
        }
    }

    /// Of a new file of this size, of which nothing was written.
    pub fn of_new(level: Level, size: u64) -> Self {
        if level.counts_blocks() {
            Self::default()
        } else {
            Self::dense(size)
        }
    }

    /// The bytes from `start` to `end` of a file that has `size` bytes now were written; how many bytes it uses.
    pub fn wrote(
        &mut self,
        level: Level,
        chunks: &mut dyn Chunks,
        (start, end): (u64, u64),
        size: u64,
    ) -> FsResult<u64> {
        if level.counts_blocks() {
            self.add(chunks, start, end)?;
        } else {
            *self = Self::dense(size);
        }
        Ok(self.used(size))
    }

    /// The file was cut, or grew, to `size` bytes; how many bytes it uses.
    pub fn resized(&mut self, level: Level, chunks: &mut dyn Chunks, size: u64) -> FsResult<u64> {
        if level.counts_blocks() {
            self.cut(chunks, size)?;
        } else {
            *self = Self::dense(size);
        }
        Ok(self.used(size))
    }

    /// Bytes used by a file of this size.
    pub fn used(&self, size: u64) -> u64 {
        let units = u64::from(self.leading) + u64::from(self.scattered);
        let whole = size.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
        // The last unit may go past the end.
        units.saturating_mul(self.unit_bytes()).min(whole)
    }

    /// Bytes in a unit.
    pub const fn unit_bytes(&self) -> u64 {
        BLOCK_BYTES << self.doubled
    }

    /// The bytes from `start` to `end` were written.
    fn add(&mut self, chunks: &mut dyn Chunks, start: u64, end: u64) -> FsResult<()> {
        if start >= end {
            return Ok(());
        }
        let (from, to) = (
            units(start / self.unit_bytes()),
            units(end.div_ceil(self.unit_bytes())),
        );
        if to <= self.leading {
            return Ok(());
        }
        if from <= self.leading {
            return self.lead(chunks, to);
        }
        for (number, bits) in parts(from, to) {
            let old = chunks.get(number)?;
            let is_new = old.is_none();
            let mut chunk = old.unwrap_or_default();
            let added = chunk.set(bits.0, bits.1);
            if added > 0 {
                chunks.set(number, Some(&chunk));
                self.scattered += added;
                self.chunks += u16::from(is_new);
            }
        }
        if self.chunks > CHUNKS_MAX {
            self.double(chunks)?;
        }
        Ok(())
    }

    /// What is at or past `size` is cut off.
    fn cut(&mut self, chunks: &mut dyn Chunks, size: u64) -> FsResult<()> {
        let kept = units(size.div_ceil(self.unit_bytes()));
        self.leading = self.leading.min(kept);
        if self.chunks > 0 {
            let (last, bits) = (kept / CHUNK_UNITS, kept % CHUNK_UNITS);
            for (number, mut chunk) in chunks.from(last)? {
                let first = if number == last { bits } else { 0 };
                self.take(chunks, number, &mut chunk, (first, CHUNK_UNITS));
            }
        }
        if self.chunks == 0 {
            // Counted by blocks again.
            let blocks = u64::from(self.leading) << self.doubled;
            *self = Self {
                leading: units(blocks.min(size.div_ceil(BLOCK_BYTES))),
                ..Self::default()
            };
        }
        Ok(())
    }

    /// The units up to `to`, which is past those of the head, are all used now.
    fn lead(&mut self, chunks: &mut dyn Chunks, to: u32) -> FsResult<()> {
        let from = std::mem::replace(&mut self.leading, to);
        if self.chunks == 0 {
            return Ok(());
        }
        for (number, bits) in parts(from, to) {
            if let Some(mut chunk) = chunks.get(number)? {
                self.take(chunks, number, &mut chunk, bits);
            }
        }
        // What follows without a gap belongs to the head, too.
        for _ in 0..ABSORBED_MAX {
            let (number, bit) = (self.leading / CHUNK_UNITS, self.leading % CHUNK_UNITS);
            let Some(mut chunk) = chunks.get(number)? else {
                break;
            };
            let end = chunk.run_end(bit);
            self.take(chunks, number, &mut chunk, (bit, end));
            self.leading += end - bit;
            if end < CHUNK_UNITS {
                break;
            }
        }
        Ok(())
    }

    /// Takes bits out of a chunk; it goes with its last one.
    fn take(&mut self, chunks: &mut dyn Chunks, number: u32, chunk: &mut Chunk, bits: (u32, u32)) {
        let taken = chunk.clear(bits.0, bits.1);
        if taken == 0 {
            return;
        }
        self.scattered -= taken;
        let left = chunk.count() > 0;
        self.chunks -= u16::from(!left);
        chunks.set(number, left.then_some(&*chunk));
    }

    /// Makes units larger until few enough chunks are left.
    fn double(&mut self, chunks: &mut dyn Chunks) -> FsResult<()> {
        let old = chunks.from(0)?;
        let left = |times: u8| {
            let mut numbers: Vec<u32> = old.iter().map(|(number, _)| number >> times).collect();
            numbers.dedup();
            numbers.len()
        };
        let mut times = 1;
        while left(times) > CHUNKS_LEFT && self.doubled + times < DOUBLED_MAX {
            times += 1;
        }
        let mut new: Vec<(u32, Chunk)> = Vec::new();
        for (number, chunk) in old {
            chunks.set(number, None);
            let wide = number >> times;
            if new.last().is_none_or(|(last, _)| *last != wide) {
                new.push((wide, Chunk::default()));
            }
            let first = (number - (wide << times)) * CHUNK_UNITS;
            if let Some((_, into)) = new.last_mut() {
                chunk.runs().for_each(|(from, to)| {
                    into.set((first + from) >> times, (first + to).div_ceil(1 << times));
                });
            }
        }
        *self = Self {
            leading: self.leading.div_ceil(1 << times),
            scattered: 0,
            chunks: 0,
            doubled: self.doubled + times,
        };
        for (number, mut chunk) in new {
            // The head's last unit may have grown over these.
            let first = number * CHUNK_UNITS;
            chunk.clear(0, self.leading.saturating_sub(first).min(CHUNK_UNITS));
            let count = chunk.count();
            if count > 0 {
                chunks.set(number, Some(&chunk));
                self.scattered += count;
                self.chunks += 1;
            }
        }
        Ok(())
    }
}

/// A number of units: the largest file has fewer blocks than fit.
fn units(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The units from `from` to `to`, by chunk: its number, and which of its bits.
fn parts(from: u32, to: u32) -> impl Iterator<Item = (u32, (u32, u32))> {
    let last = to.saturating_sub(1) / CHUNK_UNITS;
    (from / CHUNK_UNITS..=last).map(move |number| {
        let first = number * CHUNK_UNITS;
        let bits = (from.saturating_sub(first), (to - first).min(CHUNK_UNITS));
        (number, bits)
    })
}

impl Default for Chunk {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl Chunk {
    /// Sets bits; how many of them were not.
    pub fn set(&mut self, from: u32, to: u32) -> u32 {
        let mut added = 0;
        self.each(from, to, |word, mask| {
            added += (mask & !*word).count_ones();
            *word |= mask;
        });
        added
    }

    /// Clears bits; how many of them were set.
    fn clear(&mut self, from: u32, to: u32) -> u32 {
        let mut taken = 0;
        self.each(from, to, |word, mask| {
            taken += (mask & *word).count_ones();
            *word &= !mask;
        });
        taken
    }

    fn each(&mut self, from: u32, to: u32, mut act: impl FnMut(&mut u64, u64)) {
        let mut at = from;
        while at < to.min(CHUNK_UNITS) {
            let bit = at % WORD_BITS;
            let count = (WORD_BITS - bit).min(to - at);
            let mask = (u64::MAX >> (WORD_BITS - count)) << bit;
            act(&mut self.0[(at / WORD_BITS) as usize], mask);
            at += count;
        }
    }

    /// Whether a bit is set.
    pub fn has(&self, bit: u32) -> bool {
        let word = self.0.get((bit / WORD_BITS) as usize);
        word.is_some_and(|word| word >> (bit % WORD_BITS) & 1 == 1)
    }

    /// How many bits are set.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The first bit at or after `from` that is not set.
    fn run_end(&self, from: u32) -> u32 {
        self.next(from, |word| !word)
    }

    /// The first bit at or after `from` that is set in what `look` makes of a word.
    fn next(&self, from: u32, look: impl Fn(u64) -> u64) -> u32 {
        let mut at = from;
        while at < CHUNK_UNITS {
            let rest = look(self.0[(at / WORD_BITS) as usize]) >> (at % WORD_BITS);
            if rest != 0 {
                return at + rest.trailing_zeros();
            }
            at = (at / WORD_BITS + 1) * WORD_BITS;
        }
        CHUNK_UNITS
    }

    /// First bit and end of each run of bits that are set, in order.
    pub fn runs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let from = self.next(at, |word| word);
            at = self.run_end(from);
            (from < CHUNK_UNITS).then_some((from, at))
        })
    }

    /// The bits as words, the lowest bit first.
    pub const fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    /// A chunk of these bits.
    pub const fn of_words(words: [u64; WORDS]) -> Self {
        Self(words)
    }
}

/// Chunks in memory.
impl Chunks for std::collections::BTreeMap<u32, Chunk> {
    fn get(&self, number: u32) -> FsResult<Option<Chunk>> {
        Ok(Self::get(self, &number).cloned())
    }

    fn set(&mut self, number: u32, chunk: Option<&Chunk>) {
        match chunk {
            Some(chunk) => self.insert(number, chunk.clone()),
            None => self.remove(&number),
        };
    }

    fn from(&self, number: u32) -> FsResult<Vec<(u32, Chunk)>> {
        let chunks = self.range(number..);
        Ok(chunks
            .map(|(number, chunk)| (*number, chunk.clone()))
            .collect())
    }
}

#[cfg(test)]
mod tests;
