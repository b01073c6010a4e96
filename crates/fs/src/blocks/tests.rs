use super::*;
use crate::FILE_SIZE_MAX;
use std::collections::{BTreeMap, BTreeSet};

const MIB: u64 = 1 << 20;

/// A file: its map, and the blocks that it should be of.
#[derive(Default)]
struct File {
    map: BlockMap,
    chunks: BTreeMap<u32, Chunk>,
    size: u64,
    blocks: BTreeSet<u64>,
}

impl File {
    fn write(&mut self, start: u64, len: u64) {
        let end = start + len;
        self.map.add(&mut self.chunks, start, end).unwrap();
        self.blocks
            .extend(start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES));
        self.size = self.size.max(end);
        self.check();
    }

    fn resize(&mut self, size: u64) {
        if size < self.size {
            self.map.cut(&mut self.chunks, size).unwrap();
            self.blocks.split_off(&size.div_ceil(BLOCK_BYTES));
        }
        self.size = size;
        self.check();
    }

    fn used(&self) -> u64 {
        self.map.used(self.size)
    }

    fn check(&self) {
        let map = &self.map;
        assert_eq!(usize::from(map.chunks), self.chunks.len());
        let scattered: u32 = self.chunks.values().map(Chunk::count).sum();
        assert_eq!(map.scattered, scattered);
        assert!(map.chunks <= CHUNKS_MAX && map.doubled <= DOUBLED_MAX);
        for (number, chunk) in &self.chunks {
            let (first, _) = chunk.runs().next().expect("no chunk is empty");
            assert!(number * CHUNK_UNITS + first >= map.leading);
        }
        let exact = self.blocks.len() as u64 * BLOCK_BYTES;
        match map.doubled {
            0 => assert_eq!(self.used(), exact, "{map:?}"),
            times => {
                assert!(self.used() >= exact.min(self.size), "{map:?}");
                assert!(self.used() <= exact << times, "{map:?}");
            }
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

#[test]
fn any_writes_and_cuts_are_counted_block_by_block() {
    for seed in 0..60 {
        let (mut random, mut file) = (Random(seed), File::default());
        // Within a chunk, or over many.
        let far = [200_000, 40 * MIB, 400 * MIB][seed as usize % 3];
        for _ in 0..150 {
            match random.below(8) {
                0 => file.resize(random.below(far)),
                1 => file.write(file.size, 1 + random.below(300_000)),
                2 => file.write(0, 1 + random.below(300_000)),
                _ => file.write(random.below(far), 1 + random.below(100_000)),
            }
        }
        file.resize(0);
        assert_eq!((file.map, file.used()), (BlockMap::default(), 0));
    }
}

#[test]
fn a_file_written_from_front_to_end_has_no_chunks() {
    let mut file = File::default();
    for n in 0..200 {
        file.write(n * 100_000, 100_000);
        assert_eq!(file.map, BlockMap::dense(file.size));
    }
    file.write(12_345, 6_789_000);
    assert!(file.chunks.is_empty());
}

#[test]
fn what_is_filled_up_becomes_part_of_the_head() {
    let mut file = File::default();
    // From the end to the beginning.
    for n in (0..16).rev() {
        file.write(n * MIB, MIB);
    }
    assert_eq!(file.map, BlockMap::dense(16 * MIB));
    // Through a hole in the middle of a chunk, over a whole one, into a third.
    let mut file = File::default();
    file.write(0, 5 * MIB);
    file.write(6 * MIB, 60 * MIB);
    file.write(5 * MIB, MIB);
    assert_eq!(file.used(), 66 * MIB);
    assert!(file.map.leading >= 32 * MIB as u32 / 4096, "{:?}", file.map);
}

#[test]
fn a_hole_uses_nothing_however_large() {
    let mut file = File::default();
    file.resize(FILE_SIZE_MAX);
    assert_eq!(file.used(), 0);
    file.write(FILE_SIZE_MAX - 1, 1);
    file.write(0, 1);
    assert_eq!(file.used(), 2 * BLOCK_BYTES);
    file.resize(FILE_SIZE_MAX - BLOCK_BYTES);
    assert_eq!(file.used(), BLOCK_BYTES);
}

#[test]
fn more_chunks_than_are_kept_make_units_larger_and_cutting_makes_them_small_again() {
    let mut file = File::default();
    let chunk = u64::from(CHUNK_UNITS) * BLOCK_BYTES;
    file.write(0, 10_000);
    for n in 1..=u64::from(CHUNKS_MAX) {
        file.write(n * chunk, 1);
    }
    assert_eq!((file.map.chunks, file.map.doubled), (CHUNKS_MAX, 0));
    file.write((u64::from(CHUNKS_MAX) + 1) * chunk, 1);
    assert!(file.map.chunks <= CHUNKS_MAX / 2 + 1 && file.map.doubled > 0);
    // As far apart as a file goes.
    for n in 0..4 * u64::from(CHUNKS_MAX) {
        file.write(n * (FILE_SIZE_MAX / 4 / u64::from(CHUNKS_MAX)), 1);
    }
    assert!(file.map.chunks <= CHUNKS_MAX);
    file.resize(5_000);
    assert_eq!((file.map, file.used()), (BlockMap::dense(5_000), 8_192));
}

#[test]
fn bits_come_back_as_runs_and_words() {
    let mut chunk = Chunk::default();
    assert_eq!(chunk.runs().count(), 0);
    for (from, to) in [(0, 1), (63, 65), (100, 300), (4000, CHUNK_UNITS)] {
        assert_eq!(chunk.set(from, to), to - from);
        assert_eq!(chunk.set(from, to), 0);
    }
    let runs: Vec<_> = chunk.runs().collect();
    assert_eq!(runs, [(0, 1), (63, 65), (100, 300), (4000, CHUNK_UNITS)]);
    assert_eq!(chunk.count(), 1 + 2 + 200 + 96);
    let set = (0..=CHUNK_UNITS).filter(|bit| chunk.has(*bit));
    assert!(set.eq(runs.iter().flat_map(|(from, to)| *from..*to)));
    assert_eq!(Chunk::of_words(*chunk.words()), chunk);
    assert_eq!(chunk.clear(64, 200), 101);
    assert_eq!(chunk.run_end(200), 300);
}
