//! The durable file system engine: metadata in an ordered key space over an embedded key-value
//! store, file data in one plain sparse file per inode, everything through `haven_disk`.
//!
//! The replicated log is the only write-ahead log. A mutation changes memory (rows) and the page cache
//! (file data) and is forgotten by a crash unless a checkpoint followed. A checkpoint flushes file data
//! first and then commits all rows, with the log position they belong to, in one durable step; so the
//! metadata on disk is always exactly one checkpoint, and file data is that old or newer. Applying the
//! log from the checkpoint's position on leads to the same state as before the crash.
//!
//! Invariants
//! - Rows on disk are those of one checkpoint, with its position; never a mixture.
//! - Nothing that a data file holds at or past its inode's size counts once it was opened for writing: what a
//!   crash left there is cut before the file can grow again. What is cut may lie there for a while, and reads as zeros.
//! - The data file of a removed inode stays until a checkpoint without the inode is durable.
//! - After a [`haven_fs::FsError::Fatal`] in a mutation nothing more is applied or checkpointed.
//! - Equal entries applied to equal states give equal [`Store::state_hash`]es, whatever was
//!   checkpointed when.
//!
//! On-disk format: `FORMAT.md` beside this crate's manifest. It must not know NFS, the log or the
//! network.

mod backend;
mod base;
mod blocks;
mod cache;
mod changed_ranges;
mod changes;
mod check;
mod check_blocks;
mod check_files;
mod check_finding;
mod check_metadata;
mod check_rows;
mod check_tree;
mod checkpoint;
mod current;
mod cutter;
mod data;
mod delta;
mod delta_source;
mod engine;
mod extents;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hash;
mod keys;
mod layers;
mod masked;
mod open;
mod receive;
mod record;
mod remains;
mod room;
mod row_key;
mod snapshot;
mod stream;
mod unwritten;

pub use check::{CheckError, Checked, Summary, check};
pub use check_finding::{Finding, Problem};
pub use check_metadata::CheckedRows;
pub use checkpoint::{CheckpointJob, Checkpointed};
pub use cutter::Cutter;
pub use engine::system::{SYSTEM_KEY_BYTES_MAX, SYSTEM_VALUE_BYTES_MAX};
pub use hash::{HashPass, HashStep};
pub use keys::POSITION_BYTES_MAX;
pub use open::{Store, StoreOptions};
pub use receive::{SnapshotWriter, StagedSnapshot};
pub use snapshot::SnapshotReader;
pub use stream::{CHUNK_BYTES_MAX, SnapshotError};

use haven_fs::FsError;
use std::fmt::Display;

/// The engine failed while it did `what`.
fn fatal(what: impl Display, cause: impl Display) -> FsError {
    FsError::Fatal(format!("{what}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Jobs and streams are handed to other threads; the store is shared between queries.
    #[test]
    fn what_crosses_threads_may() {
        fn send<T: Send>() {}
        fn share<T: Send + Sync>() {}
        share::<Store>();
        send::<CheckpointJob>();
        send::<Checkpointed>();
        send::<SnapshotReader>();
        send::<SnapshotWriter>();
        send::<StagedSnapshot>();
    }
}
