//! The state hash: one number for everything replicas must agree on.
//!
//! It covers all rows but this replica's own bookkeeping, in key order (small files are rows), and the
//! contents of every data file. Contents go in as those blocks that are not all zeros, so that a hole, a
//! data file that is shorter than its inode and written zeros are the same, and holes are never read.
//!
//! It must not know what rows mean, except which inodes have contents.

use crate::keys;
use crate::open::Store;
use crate::record::{Inode, Place};
use blake3::Hasher;
use haven_fs::{FsResult, Ino};
use std::ops::ControlFlow;

const DOMAIN: &[u8] = b"haven-store state hash 2";
const BLOCK_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 16 * BLOCK_BYTES;
const CONTENTS_END: u64 = u64::MAX;

impl Store {
    /// The hash of everything applied so far. Reads all metadata and all file data.
    ///
    /// After a crash or an installed snapshot file data may be ahead of the rows. Hashes can be compared
    /// again once everything was applied that had been applied before the crash, or on the sender.
    pub fn state_hash(&self) -> FsResult<[u8; 32]> {
        let mut hasher = Hasher::new();
        hasher.update(DOMAIN);
        self.layers
            .scan(&[], Some(&[keys::LOCAL]), &mut |key, value| {
                for part in [key, value] {
                    hasher.update(&(part.len() as u64).to_be_bytes());
                    hasher.update(part);
                }
                if let (Some(&keys::INODE), Some(ino)) = (key.first(), keys::ino_of(key)) {
                    let inode = Inode::decode(ino, value)?;
                    if inode.place == Place::File {
                        self.hash_contents(&mut hasher, ino, inode.attr.size)?;
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
        Ok(*hasher.finalize().as_bytes())
    }

    fn hash_contents(&self, hasher: &mut Hasher, ino: Ino, size: u64) -> FsResult<()> {
        let data = &self.generation.data;
        let mut offset = 0;
        while let Some(found) = data.next_data(ino, offset)?.filter(|&at| at < size) {
            offset = found - found % BLOCK_BYTES as u64;
            let left = usize::try_from(size - offset).unwrap_or(usize::MAX);
            let mut bytes = data.read(ino, offset, left.min(READ_BYTES))?;
            bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
            let first = offset / BLOCK_BYTES as u64;
            for (block, index) in bytes.chunks(BLOCK_BYTES).zip(first..) {
                if !is_zero(block) {
                    hasher.update(&index.to_be_bytes());
                    hasher.update(block);
                }
            }
            offset += bytes.len() as u64;
        }
        hasher.update(&CONTENTS_END.to_be_bytes());
        Ok(())
    }
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|&byte| byte == 0)
}
