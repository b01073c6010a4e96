//! Puts redb on the storage seam: its file is a [`DiskFile`] like all others, so that a simulated power
//! loss takes from it what it would take from a real disk.
//!
//! Invariants
//! - When a flush returns, everything written before it is in the file, and durable.
//! - At most [`UNWRITTEN_BYTES_MAX`] are in memory instead.
//!
//! It must not know what redb stores.

use crate::unwritten::Unwritten;
use haven_disk::DiskFile;
use redb::StorageBackend;
use std::fmt;
use std::io;
use std::sync::Arc;

/// While pages are written, they go to the device whenever it is this many bytes. Otherwise the flush has it all to
/// write at once, and the log's flushes wait behind that.
const PACE_BYTES: usize = 4 << 20;

/// So much is kept at most until redb flushes: what a checkpoint of the default size changes, and some more.
const UNWRITTEN_BYTES_MAX: usize = 192 << 20;

/// A file of the seam as redb wants it.
pub struct SeamBackend {
    file: Arc<dyn DiskFile>,
    unwritten: Unwritten,
}

impl SeamBackend {
    /// Wraps an open file.
    pub fn new(file: Arc<dyn DiskFile>) -> Self {
        Self {
            file,
            unwritten: Unwritten::default(),
        }
    }

    /// Brings into the file what is not there yet.
    fn write_out(&self) -> io::Result<()> {
        let mut unsent = 0;
        self.unwritten.drain(|offset, data| {
            self.file.write_at(offset, data)?;
            unsent += data.len();
            if unsent >= PACE_BYTES {
                unsent = 0;
                self.file.start_writeback(0, 0);
            }
            Ok(())
        })
    }

    fn read_file(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let read = self.file.read_at(offset, out)?;
        if read == out.len() {
            return Ok(());
        }
        let why = format!("metadata file ends {read} bytes after offset {offset}");
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))
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
        let from_file = |offset, out: &mut [u8]| self.read_file(offset, out);
        self.unwritten.read(offset, out, from_file)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.unwritten.cut(len);
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.write_out()?;
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.unwritten.bytes() >= UNWRITTEN_BYTES_MAX {
            self.write_out()?;
        }
        if self.unwritten.put(offset, data) {
            return Ok(());
        }
        // Its header. Pages that it touches must not be written over it later.
        self.write_out()?;
        self.file.write_at(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.write_out()
    }
}
