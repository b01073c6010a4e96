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
use std::ops::Range;
use std::sync::Arc;

/// While pages are written, so many bytes go to the device at once, and no more than twice as many are under way: the
/// log's flushes wait behind them.
const STEP_BYTES: u64 = 2 << 20;

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
        let mut pace = Pace::default();
        self.unwritten.drain(|offset, data| {
            self.file.write_at(offset, data)?;
            pace.wrote(offset, data.len() as u64, &*self.file)
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

/// Sends to the device what is written from the front of a file to its end, step by step.
#[derive(Default)]
struct Pace {
    /// What is not sent yet: where it lies, with what is in between, and how many bytes it has.
    step: Range<u64>,
    bytes: u64,
    under_way: Option<Range<u64>>,
}

impl Pace {
    fn wrote(&mut self, offset: u64, len: u64, file: &dyn DiskFile) -> io::Result<()> {
        if self.bytes == 0 {
            self.step.start = offset;
        }
        self.step.end = offset + len;
        self.bytes += len;
        if self.bytes < STEP_BYTES {
            return Ok(());
        }
        self.bytes = 0;
        file.start_writeback(self.step.start, self.step.end - self.step.start);
        match self.under_way.replace(self.step.clone()) {
            Some(before) => file.finish_writeback(before.start, before.end - before.start),
            None => Ok(()),
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::unwritten::PAGE_BYTES;
    use haven_disk::testing::{DiskOp, FaultyDisk};
    use haven_disk::{Disk, RealDisk};
    use parking_lot::Mutex;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A backend, and what it did with its file since it was opened. While `fails` it cannot write back.
    struct Scene {
        _dir: tempfile::TempDir,
        backend: SeamBackend,
        did: Arc<Mutex<Vec<DiskOp>>>,
        fails: Arc<AtomicBool>,
    }

    fn scene() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let (did, fails) = (Arc::default(), Arc::<AtomicBool>::default());
        let real = Arc::new(RealDisk::open(dir.path()).unwrap());
        let (notes, failing) = (Arc::<Mutex<Vec<DiskOp>>>::clone(&did), fails.clone());
        let disk = FaultyDisk::new(real, move |op, _| {
            notes.lock().push(op);
            match op == DiskOp::FinishWriteback && failing.load(Ordering::Relaxed) {
                true => Err(io::Error::other("lost")),
                false => Ok(()),
            }
        });
        let backend = SeamBackend::new(disk.open(Path::new("file"), true).unwrap());
        did.lock().clear();
        Scene {
            _dir: dir,
            backend,
            did,
            fails,
        }
    }

    fn page(fill: u8) -> Vec<u8> {
        vec![fill; PAGE_BYTES]
    }

    #[test]
    fn pages_are_in_the_file_when_a_flush_returns_and_each_is_written_once() {
        let Scene { backend, did, .. } = scene();
        for fill in [1, 2] {
            backend.write(PAGE_BYTES as u64, &page(fill)).unwrap();
            backend.write(0, &page(fill)).unwrap();
        }
        assert_eq!(*did.lock(), []);
        backend.sync_data().unwrap();
        assert_eq!(*did.lock(), [DiskOp::Write, DiskOp::Sync]);
        let mut both = [page(0), page(0)].concat();
        backend.read_file(0, &mut both).unwrap();
        assert_eq!(both, [page(2), page(2)].concat());
    }

    #[test]
    fn a_header_comes_after_the_pages_that_were_written_before_it() {
        let Scene { backend, did, .. } = scene();
        backend.write(0, &page(1)).unwrap();
        backend.write(0, &[2; 320]).unwrap();
        assert_eq!(*did.lock(), [DiskOp::Write, DiskOp::Write]);
        backend.write(PAGE_BYTES as u64, &page(3)).unwrap();
        let mut start = [0; 322];
        backend.read(0, &mut start).unwrap();
        assert_eq!((start[319], start[320]), (2, 1));
    }

    #[test]
    fn memory_is_bounded_and_so_is_what_is_under_way() {
        let Scene { backend, did, .. } = scene();
        let step = vec![7; STEP_BYTES as usize];
        let steps = UNWRITTEN_BYTES_MAX / step.len() + 1;
        for number in 0..steps as u64 {
            assert!(backend.unwritten.bytes() <= UNWRITTEN_BYTES_MAX);
            backend.write(number * STEP_BYTES, &step).unwrap();
        }
        // All but the last, when it came; each step waits for the one before.
        let count = |op| did.lock().iter().filter(|did| **did == op).count();
        assert_eq!(count(DiskOp::FinishWriteback), steps - 2);
        assert_eq!(backend.unwritten.bytes(), step.len());
    }

    #[test]
    fn what_could_not_be_written_back_is_said() {
        let Scene { backend, fails, .. } = scene();
        let steps = vec![7; 3 * STEP_BYTES as usize];
        backend.write(0, &steps).unwrap();
        fails.store(true, Ordering::Relaxed);
        assert_eq!(backend.sync_data().unwrap_err().to_string(), "lost");
    }
}
