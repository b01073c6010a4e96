//! The state hash: one number for everything replicas must agree on.
//!
//! It covers all rows but this replica's own bookkeeping, in key order (small files are rows), and the
//! contents of every data file. Contents go in as those blocks that are not all zeros, so that a hole, a
//! data file that is shorter than its inode and written zeros are the same, and holes are never read.
//!
//! It is made in slices, between which the store may be changed; a hash of a state that is gone is given up.
//!
//! It must not know what rows mean, except which inodes have contents.

use crate::keys;
use crate::open::{Generation, Store};
use crate::record::{Inode, Place};
use blake3::Hasher;
use haven_fs::{FsResult, Ino};
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

const DOMAIN: &[u8] = b"haven-store state hash 2";
const BLOCK_BYTES: usize = 64 << 10;
/// About what is hashed in one slice.
const SLICE_BYTES: usize = 16 * BLOCK_BYTES;
const SLICE_ROWS: usize = 4096;
const CONTENTS_END: u64 = u64::MAX;

/// A hash that is being made, slice by slice. It needs the store for each slice only.
pub struct HashPass {
    hasher: Hasher,
    /// The state that it is made of.
    generation: Weak<Generation>,
    changes: u64,
    applied: u64,
    /// The first key that is not hashed yet.
    next: Vec<u8>,
    /// A file within which it is: how far, and its size.
    file: Option<(Ino, u64, u64)>,
}

/// What came of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashStep {
    /// There is more.
    More,
    /// The state has changed since the beginning: nothing can come of it any more.
    Changed,
    /// The hash, and the log index up to which everything was applied (0: not known).
    Done([u8; 32], u64),
}

impl Store {
    /// The hash of everything applied so far. Reads all metadata and all file data.
    ///
    /// After a crash or an installed snapshot file data may be ahead of the rows. Hashes can be compared
    /// again once everything was applied that had been applied before the crash, or on the sender.
    pub fn state_hash(&self) -> FsResult<[u8; 32]> {
        let mut pass = self.begin_hash();
        loop {
            // Nothing changes it meanwhile: it is borrowed.
            if let HashStep::Done(hash, _) = self.hash_slice(&mut pass)? {
                return Ok(hash);
            }
        }
    }

    /// Begins a hash of the present state.
    pub fn begin_hash(&self) -> HashPass {
        let mut hasher = Hasher::new();
        hasher.update(DOMAIN);
        HashPass {
            hasher,
            generation: Arc::downgrade(&self.generation),
            changes: self.changes,
            applied: self.applied,
            next: Vec::new(),
            file: None,
        }
    }

    /// Hashes a slice: at most about 1 MiB of rows and file data, and 4,096 rows.
    pub fn hash_slice(&self, pass: &mut HashPass) -> FsResult<HashStep> {
        let same = pass.generation.as_ptr() == Arc::as_ptr(&self.generation);
        if !same || pass.changes != self.changes {
            return Ok(HashStep::Changed);
        }
        if pass.file.is_some() {
            self.hash_contents(pass)?;
            return Ok(HashStep::More);
        }
        let (mut rows, mut bytes) = (0, 0);
        let from = pass.next.clone();
        let all = self
            .layers
            .scan(&from, Some(&[keys::LOCAL]), &mut |key, value| {
                for part in [key, value] {
                    pass.hasher.update(&(part.len() as u64).to_be_bytes());
                    pass.hasher.update(part);
                }
                rows += 1;
                bytes += key.len() + value.len();
                if let (Some(&keys::INODE), Some(ino)) = (key.first(), keys::ino_of(key)) {
                    let inode = Inode::decode(ino, value)?;
                    if inode.place == Place::File {
                        pass.file = Some((ino, 0, inode.attr.size));
                    }
                }
                if pass.file.is_none() && rows < SLICE_ROWS && bytes < SLICE_BYTES {
                    return Ok(ControlFlow::Continue(()));
                }
                pass.next = [key, &[0]].concat();
                Ok(ControlFlow::Break(()))
            })?;
        Ok(match all {
            true => HashStep::Done(*pass.hasher.finalize().as_bytes(), pass.applied),
            false => HashStep::More,
        })
    }

    /// Hashes the next piece of the file within which the pass is.
    fn hash_contents(&self, pass: &mut HashPass) -> FsResult<()> {
        let Some((ino, offset, size)) = pass.file.take() else {
            return Ok(());
        };
        let data = &self.generation.data;
        let Some(found) = data.next_data(ino, offset)?.filter(|&at| at < size) else {
            pass.hasher.update(&CONTENTS_END.to_be_bytes());
            return Ok(());
        };
        let offset = found - found % BLOCK_BYTES as u64;
        let left = usize::try_from(size - offset).unwrap_or(usize::MAX);
        let mut bytes = data.read(ino, offset, left.min(SLICE_BYTES))?;
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        let first = offset / BLOCK_BYTES as u64;
        for (block, index) in bytes.chunks(BLOCK_BYTES).zip(first..) {
            if !is_zero(block) {
                pass.hasher.update(&index.to_be_bytes());
                pass.hasher.update(block);
            }
        }
        pass.file = Some((ino, offset + bytes.len() as u64, size));
        Ok(())
    }
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|&byte| byte == 0)
}
