//! Puts redb on the storage seam: its file is a [`DiskFile`] like all others, so that a simulated power
//! loss takes from it what it would take from a real disk.
//!
//! It must not know what redb stores.

use haven_disk::DiskFile;
use redb::StorageBackend;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// While a commit is written, what was written goes to the device whenever it is this many bytes. Otherwise the
/// commit's flush has it all to write at once, and the log's flushes wait behind that.
const PACE_BYTES: usize = 4 << 20;

/// A file of the seam as redb wants it.
pub struct SeamBackend {
    file: Arc<dyn DiskFile>,
    /// Bytes written since the last of them were sent to the device.
    unsent: AtomicUsize,
}

impl SeamBackend {
    /// Wraps an open file.
    pub fn new(file: Arc<dyn DiskFile>) -> Self {
        Self {
            file,
            unsent: AtomicUsize::new(0),
        }
    }
}

impl fmt::Debug for SeamBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeamBackend")
    }
}

impl StorageBackend for SeamBackend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let read = self.file.read_at(offset, out)?;
        if read == out.len() {
            return Ok(());
        }
        let why = format!("metadata file ends {read} bytes after offset {offset}");
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)?;
        let unsent = self.unsent.fetch_add(data.len(), Ordering::Relaxed) + data.len();
        if unsent >= PACE_BYTES {
            self.unsent.store(0, Ordering::Relaxed);
            self.file.start_writeback(0, 0);
        }
        Ok(())
    }
}
