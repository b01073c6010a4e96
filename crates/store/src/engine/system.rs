//! The system table: rows of the layers above, committed together with the file system.

use crate::keys;
use crate::open::Store;
use bytes::Bytes;
use haven_fs::{FsError, FsResult, SystemTable};
use std::ops::ControlFlow;

/// Longest key of the system table in bytes.
pub const SYSTEM_KEY_BYTES_MAX: usize = 4096;
/// Longest value of the system table in bytes: a row must fit a chunk of a snapshot.
pub const SYSTEM_VALUE_BYTES_MAX: usize = crate::CHUNK_BYTES_MAX - (16 << 10);

impl SystemTable for Store {
    fn system_get(&self, key: &[u8]) -> FsResult<Option<Bytes>> {
        self.layers.get(&keys::system(key))
    }

    /// [`FsError::TooLarge`] past [`SYSTEM_KEY_BYTES_MAX`] or [`SYSTEM_VALUE_BYTES_MAX`].
    fn system_put(&mut self, key: &[u8], value: Option<&[u8]>) -> FsResult<()> {
        self.mutate(|store| {
            let value_bytes = value.map_or(0, <[u8]>::len);
            if key.len() > SYSTEM_KEY_BYTES_MAX || value_bytes > SYSTEM_VALUE_BYTES_MAX {
                return Err(FsError::TooLarge);
            }
            match value {
                Some(value) => store
                    .layers
                    .put(keys::system(key), Bytes::copy_from_slice(value)),
                None => store.layers.remove(keys::system(key)),
            }
            Ok(())
        })
    }

    fn system_scan(
        &self,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> FsResult<()> {
        self.layers
            .scan_prefix(&keys::system(prefix), &mut |key, value| {
                Ok(visit(&key[1..], value))
            })
            .map(drop)
    }
}
