//! What the log's tests share: records, waiting for answers, and a disk whose flushes can be held up
//! or made to fail.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use haven_disk::{Disk, DiskFile, Space};
use haven_log::{Log, LogError, LogOptions, Record};
use parking_lot::{Condvar, Mutex};
use tempfile::TempDir;

pub const DIR: &str = "log";

/// A fresh directory, in memory where the machine has that: the tests flush a lot.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("a temporary directory")
}

/// Small segments, so that a test sees several.
pub fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 16 << 10,
        tail_cache_bytes: 4 << 10,
        zero_ahead_bytes: 1 << 10,
        ..LogOptions::default()
    }
}

pub fn open(disk: &Arc<dyn Disk>, options: LogOptions) -> Result<Log, LogError> {
    Log::open(Arc::clone(disk), Path::new(DIR), options)
}

/// A record whose bytes follow from its index, a length and a salt.
pub fn record(index: u64, len: usize, salt: u8) -> Record {
    let byte = |i: usize| (i as u8).wrapping_mul(31) ^ (index as u8) ^ salt;
    Record {
        index,
        head: Bytes::from(format!("head {index} {salt}")),
        body: (0..len).map(byte).collect::<Vec<u8>>().into(),
    }
}

/// Appends and gives back where the answer will come.
pub fn send(log: &Log, records: Vec<Record>) -> mpsc::Receiver<Result<(), LogError>> {
    let (tell, hear) = mpsc::channel();
    log.append(records, Box::new(move |result| drop(tell.send(result))));
    hear
}

/// Appends and waits until it is durable.
pub fn append(log: &Log, records: Vec<Record>) -> Result<(), LogError> {
    send(log, records).recv().expect("an answer")
}

pub fn read_all(log: &Log) -> Vec<Record> {
    log.read(0..u64::MAX, usize::MAX).expect("read")
}

/// A disk under the test's control.
pub struct TestDisk {
    inner: Arc<dyn Disk>,
    pub control: Arc<Control>,
}

#[derive(Default)]
pub struct Control {
    closed: Mutex<bool>,
    opened: Condvar,
    /// Flushes that began to wait at the closed gate.
    waiting: Mutex<usize>,
    arrived: Condvar,
    pub fail_sync: AtomicBool,
    pub fail_write: AtomicBool,
    pub syncs: AtomicUsize,
}

impl Control {
    /// From now on flushes wait.
    pub fn close_gate(&self) {
        *self.waiting.lock() = 0;
        *self.closed.lock() = true;
    }

    pub fn open_gate(&self) {
        *self.closed.lock() = false;
        self.opened.notify_all();
    }

    /// Waits until a flush waits at the gate.
    pub fn wait_for_arrival(&self) {
        let mut waiting = self.waiting.lock();
        while *waiting == 0 {
            self.arrived.wait(&mut waiting);
        }
    }

    fn pass(&self) {
        let mut closed = self.closed.lock();
        if *closed {
            *self.waiting.lock() += 1;
            self.arrived.notify_all();
        }
        while *closed {
            self.opened.wait(&mut closed);
        }
    }
}

impl TestDisk {
    pub fn new(inner: Arc<dyn Disk>) -> TestDisk {
        TestDisk {
            inner,
            control: Arc::default(),
        }
    }
}

impl Disk for TestDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(TestFile {
            inner: self.inner.open(path, create)?,
            control: Arc::clone(&self.control),
        }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }
    fn space(&self) -> io::Result<Space> {
        self.inner.space()
    }
}

struct TestFile {
    inner: Arc<dyn DiskFile>,
    control: Arc<Control>,
}

impl DiskFile for TestFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_vectored_at(offset, &[data])
    }
    fn write_vectored_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        if self.control.fail_write.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected write failure"));
        }
        self.inner.write_vectored_at(offset, parts)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.allocate(offset, len)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn sync(&self) -> io::Result<()> {
        self.control.pass();
        self.control.syncs.fetch_add(1, Ordering::SeqCst);
        if self.control.fail_sync.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected flush failure"));
        }
        self.inner.sync()
    }
}
