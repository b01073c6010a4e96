//! What the log's tests share: records, waiting for answers, and a disk whose flushes can be held up
//! or made to fail.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use haven_disk::Disk;
use haven_disk::testing::{DiskOp, FaultyDisk};
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
        spare_segments: 2,
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
    pub disk: Arc<dyn Disk>,
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

    /// What becomes of an operation of the disk.
    fn ask(&self, op: DiskOp) -> io::Result<()> {
        match op {
            DiskOp::Write if self.fail_write.load(Ordering::SeqCst) => {
                return Err(io::Error::other("injected write failure"));
            }
            DiskOp::Sync => {
                self.pass();
                self.syncs.fetch_add(1, Ordering::SeqCst);
                if self.fail_sync.load(Ordering::SeqCst) {
                    return Err(io::Error::other("injected flush failure"));
                }
            }
            _ => {}
        }
        Ok(())
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
        let control: Arc<Control> = Arc::default();
        let asked = Arc::clone(&control);
        let disk = FaultyDisk::new(inner, move |op, _| asked.ask(op));
        TestDisk {
            disk: Arc::new(disk),
            control,
        }
    }
}
