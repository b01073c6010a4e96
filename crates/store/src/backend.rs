//! Puts redb on the storage seam: its file is a [`DiskFile`] like all others, so that a simulated power
//! loss takes from it what it would take from a real disk.
//!
//! It must not know what redb stores.

use haven_disk::DiskFile;
use redb::StorageBackend;
use std::fmt;
use std::io;
use std::sync::Arc;

/// A file of the seam as redb wants it.
pub struct SeamBackend(Arc<dyn DiskFile>);

impl SeamBackend {
    /// Wraps an open file.
    pub fn new(file: Arc<dyn DiskFile>) -> Self {
        Self(file)
    }
}

impl fmt::Debug for SeamBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeamBackend")
    }
}

impl StorageBackend for SeamBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let read = self.0.read_at(offset, out)?;
        if read == out.len() {
            return Ok(());
        }
        let why = format!("metadata file ends {read} bytes after offset {offset}");
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}
