//! A file that is nearly all hole, as the client that made it believes it to be.
//!
//! What it can reveal, beside bytes that are lost: holes that hold something, and holes that became data, in a node that
//! caught up or came back, too.

use super::{Tally, words};
use bytes::Bytes;
use haven::demo::random::Random;
use haven_client::Client;
use haven_proto::nfs3::Fh3;
use std::collections::BTreeMap;

/// Bytes of a block that is written.
pub const BLOCK_BYTES: u64 = 4 << 10;
/// From one block to the next.
const STRIDE_BYTES: u64 = 64 << 10;
/// So many places for blocks: 1 GiB.
const PLACES: u64 = 16 << 10;
/// Most blocks of a file; past it, it is cut.
const BLOCKS_MAX: usize = 100;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Sparse {
    /// Its length in bytes.
    size: u64,
    /// Where something was written, by place, and what it was made of.
    blocks: BTreeMap<u64, u64>,
}

/// What a client does to it.
#[derive(Debug, Clone)]
pub enum Change {
    /// WRITE of a block.
    Put {
        /// Where.
        place: u64,
        /// What it is made of.
        seed: u64,
    },
    /// SETATTR of the size, so that it ends in the hole before this place.
    Cut {
        /// Where.
        place: u64,
    },
}

impl Change {
    /// What to write, and where.
    pub fn block(place: u64, seed: u64) -> (u64, Bytes) {
        let bytes = (0..BLOCK_BYTES).map(|n| (seed.rotate_left(n as u32 % 61) ^ n) as u8);
        (place * STRIDE_BYTES, bytes.collect())
    }

    /// The size that a cut leaves.
    pub fn size(place: u64) -> u64 {
        place * STRIDE_BYTES
    }
}

impl Sparse {
    /// What to do next.
    pub fn choose(&self, random: &mut Random) -> Change {
        let place = random.next() % PLACES;
        match random.next() % 32 {
            0 => Change::Cut { place },
            _ if self.blocks.len() >= BLOCKS_MAX => Change::Cut { place: place / 2 },
            _ => Change::Put {
                place,
                seed: random.next(),
            },
        }
    }

    /// It was done.
    pub fn done(&mut self, change: &Change) {
        match change {
            Change::Put { place, seed } => {
                self.blocks.insert(*place, *seed);
                self.size = self.size.max(place * STRIDE_BYTES + BLOCK_BYTES);
            }
            Change::Cut { place } => {
                self.blocks.retain(|at, _| at < place);
                self.size = Change::size(*place);
            }
        }
    }

    /// Holds the file against it: every block, and what follows each.
    pub async fn verify(
        &self,
        client: &Client,
        file: &Fh3,
        path: &str,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let attr = client.getattr(file).await.map_err(words)?;
        if attr.size != self.size {
            let (is, was) = (attr.size, self.size);
            tally.lost(format!("{path} has {is} bytes, acknowledged were {was}"));
        }
        for (place, seed) in &self.blocks {
            let (at, block) = Change::block(*place, *seed);
            let count = 2 * BLOCK_BYTES as u32;
            let found = client.read(file, at, count).await.map_err(words)?.data;
            let (is, hole) = found.split_at(found.len().min(block.len()));
            if is != &block[..] {
                tally.lost(format!("{path} differs in its block at {at}"));
            } else if hole.iter().any(|byte| *byte != 0) {
                tally.half(format!("{path} holds something in the hole after {at}"));
            }
        }
        Ok(())
    }
}
