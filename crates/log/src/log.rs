//! [`Log`]: what callers see. It keeps the logical state (which indices exist, the newest records in
//! memory) and queues everything that touches segments for the flusher.
//!
//! Invariants
//! - The tail in memory is contiguous, ends with the last record, and holds every record that is not
//!   durable yet. So whatever is not in the tail is on disk and checked there when read.
//! - The logical state changes when an operation is queued; the segments follow in the same order.
//! - Lock order: slots, then state. No lock is held while the disk works, except the slots' own.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use haven_disk::Disk;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::format::SEGMENT_HEADER_BYTES;
use crate::segment::{Extent, SEGMENT_BYTES_LIMIT, Segment};
use crate::slots::{SLOT_BYTES_MAX, Slot, Slots};
use crate::{LogError, flusher, open};

/// The most bytes of head and body that one record may have.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// The smallest segment size accepted.
const SEGMENT_BYTES_MIN: u64 = 2 * SEGMENT_HEADER_BYTES;
/// Bytes taken from the disk by one read.
const READ_BYTES_MAX: u64 = 4 << 20;
/// What a record costs in memory beside its bytes.
const RECORD_OVERHEAD: usize = 128;

/// A log record. What is in it is opaque here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place: one more than the record's before.
    pub index: u64,
    /// A small first part (copied once on its way to the disk).
    pub head: Bytes,
    /// A part that may be large (never copied before it is written).
    pub body: Bytes,
}

impl Record {
    pub(crate) fn payload_len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    fn memory(&self) -> usize {
        self.payload_len() + RECORD_OVERHEAD
    }
}

/// Sizes of a log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Bytes of a segment file. A longer record gets a segment of its own.
    pub segment_bytes: u64,
    /// Bytes of recent records kept in memory for reading (those not yet durable always are).
    pub tail_cache_bytes: usize,
    /// Bytes waiting for the flush beyond which `append` blocks.
    pub queue_bytes_max: usize,
    /// Records waiting for the flush beyond which `append` blocks.
    pub queue_records_max: usize,
    /// Zeros written ahead of small groups, so that the flushes after find their blocks already
    /// written and have no file system metadata to flush. 0 turns it off.
    pub zero_ahead_bytes: usize,
    /// Files of purged segments kept to become segments again: removing a file and making a new one of that size
    /// holds up the flushes beside it. Bounds what the log holds beyond its records; see [`Log::keep_spares`].
    pub spare_segments: usize,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: 64 << 20,
            tail_cache_bytes: 64 << 20,
            queue_bytes_max: 32 << 20,
            queue_records_max: 16 << 10,
            zero_ahead_bytes: 256 << 10,
            spare_segments: 4,
        }
    }
}

/// Entries of [`LogStats::flush_times`].
pub const FLUSH_BUCKETS: usize = 22;

/// Counters and levels of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Records made durable since open.
    pub appended_records: u64,
    /// Their bytes on disk.
    pub appended_bytes: u64,
    /// Groups flushed since open.
    pub flushes: u64,
    /// Time spent writing and flushing groups.
    pub flush_time: Duration,
    /// The longest group.
    pub flush_time_max: Duration,
    /// How many groups took up to 16 µs, up to 32 µs, and so on, in powers of two; the last has no bound.
    pub flush_times: [u64; FLUSH_BUCKETS],
    /// For how long the group being written now has been under way (for a watchdog).
    pub flush_running: Option<Duration>,
    /// Records queued or being flushed.
    pub queued_records: usize,
    /// Bytes queued or being flushed.
    pub queued_bytes: usize,
    /// Bytes of recent records in memory.
    pub cached_bytes: usize,
    /// Segment files.
    pub segments: usize,
    /// Records read from disk since open.
    pub disk_read_records: u64,
}

/// Answers an append, on the flusher's thread (or the caller's, when it is refused at once). It must
/// not block and not call operations of the log that wait.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// A segmented append-only log. Cheap to clone; the last clone dropped flushes and closes it.
///
/// A failed write or flush ends it: whatever follows answers the same error, nothing is retried,
/// because after a failed flush nobody knows what is on the disk. Open it anew (which reads what is
/// there) after the cause is gone.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    flusher: Option<JoinHandle<()>>,
}

/// What callers and the flusher share.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) options: LogOptions,
    pub(crate) slots: Mutex<Slots>,
    pub(crate) state: Mutex<State>,
    /// There is work, or the end has come.
    pub(crate) work: Condvar,
    /// The queue got shorter, or the log failed.
    pub(crate) room: Condvar,
}

pub(crate) struct State {
    pub(crate) queue: VecDeque<Work>,
    /// With fewer appends queued, the flusher need not be woken.
    pub(crate) wanted: usize,
    pub(crate) purged: u64,
    /// The index that comes next.
    next: u64,
    tail: VecDeque<Cached>,
    /// Number of the record appended next, never used twice (indices are, after a truncation).
    next_serial: u64,
    /// Records with smaller numbers are durable.
    pub(crate) durable_serial: u64,
    pub(crate) segments: Vec<Segment>,
    /// Rises whenever records are taken from the segments.
    pub(crate) removals: u64,
    pub(crate) failed: Option<LogError>,
    pub(crate) closing: bool,
    pub(crate) flush_started: Option<Instant>,
    pub(crate) stats: LogStats,
}

struct Cached {
    serial: u64,
    record: Record,
}

/// Something for the flusher, in order.
pub(crate) enum Work {
    Append(Append),
    Change(Change, mpsc::SyncSender<Result<(), LogError>>),
}

pub(crate) struct Append {
    pub(crate) records: Vec<Record>,
    pub(crate) end_serial: u64,
    pub(crate) done: Done,
}

impl Append {
    pub(crate) fn memory(&self) -> usize {
        self.records.iter().map(Record::memory).sum()
    }
}

/// A change of the segments other than appending.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    TruncateAfter(u64),
    PurgeTo(u64),
    ResetTo(u64),
    KeepSpares(bool),
}

impl Log {
    /// Opens the log in `dir`, making it when there is none.
    ///
    /// A write that was under way when the log stopped is cut off; nothing that was acknowledged is
    /// among it.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when something that was durable is missing or altered,
    /// [`LogError::Version`] for another format, [`LogError::Io`] for the disk.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: LogOptions) -> Result<Log, LogError> {
        let options = LogOptions {
            segment_bytes: options
                .segment_bytes
                .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_LIMIT / 2),
            ..options
        };
        let opened = open::open(&*disk, dir, &options)?;
        let next = opened.segments.last().map_or(1, Segment::next);
        let shared = Arc::new(Shared {
            disk,
            dir: dir.to_owned(),
            options,
            slots: Mutex::new(opened.slots),
            state: Mutex::new(State {
                queue: VecDeque::new(),
                wanted: 1,
                purged: opened.meta.purged,
                next,
                tail: VecDeque::new(),
                next_serial: 0,
                durable_serial: 0,
                segments: opened.segments,
                removals: 0,
                failed: None,
                closing: false,
                flush_started: None,
                stats: LogStats::default(),
            }),
            work: Condvar::new(),
            room: Condvar::new(),
        });
        let flusher = flusher::start(Arc::clone(&shared), opened.spares)?;
        Ok(Log {
            handle: Arc::new(Handle {
                shared,
                flusher: Some(flusher),
            }),
        })
    }

    /// Why the log has ended, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<LogError> {
        self.shared().state.lock().failed.clone()
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// The first record there is.
    #[must_use]
    pub fn first_index(&self) -> Option<u64> {
        let state = self.shared().state.lock();
        (state.next > state.purged + 1).then_some(state.purged + 1)
    }

    /// The last record there is, durable or not.
    #[must_use]
    pub fn last_index(&self) -> Option<u64> {
        let state = self.shared().state.lock();
        (state.next > state.purged + 1).then_some(state.next - 1)
    }

    /// The last index purged (or reset to), 0 for none. Records begin after it.
    #[must_use]
    pub fn purged_index(&self) -> u64 {
        self.shared().state.lock().purged
    }

    /// Queues consecutive records, the first following the last one; `done` hears when they are
    /// durable. They can be read at once. Blocks while the queue is full.
    ///
    /// All `done`s are called in the order of the appends; only a refused append answers at once.
    pub fn append(&self, records: Vec<Record>, done: Done) {
        if let Err((error, done)) = self.try_append(records, done) {
            done(Err(error));
        }
    }

    fn try_append(&self, records: Vec<Record>, done: Done) -> Result<(), (LogError, Done)> {
        let shared = self.shared();
        let mut work = Append {
            records,
            end_serial: 0,
            done,
        };
        let bytes = work.memory();
        let mut state = shared.state.lock();
        while state.failed.is_none() && !state.has_room(bytes, work.records.len(), &shared.options)
        {
            shared.room.wait(&mut state);
        }
        if let Err(error) = state.admit(&work.records) {
            return Err((error, work.done));
        }
        for record in &work.records {
            let serial = state.next_serial;
            state.next_serial += 1;
            state.next = record.index + 1;
            state.stats.cached_bytes += record.memory();
            let record = record.clone();
            state.tail.push_back(Cached { serial, record });
        }
        work.end_serial = state.next_serial;
        state.stats.queued_bytes += bytes;
        state.stats.queued_records += work.records.len();
        state.queue.push_back(Work::Append(work));
        if state.queue.len() >= state.wanted {
            shared.work.notify_one();
        }
        Ok(())
    }

    /// The records of `range` that the log holds, in order, up to about `bytes_max` bytes, but at
    /// least one when there is one. Those below the purge point are left out.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when a record on disk is not what was written; trouble of the disk.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Record>, LogError> {
        let shared = self.shared();
        let mut found: Vec<Record> = Vec::new();
        let mut budget = bytes_max;
        loop {
            let state = shared.state.lock();
            let from = found
                .last()
                .map_or(range.start.max(state.purged + 1), |r| r.index + 1);
            let to = range.end.min(state.next);
            if from >= to || (budget == 0 && !found.is_empty()) {
                return Ok(found);
            }
            if from >= state.tail_start() {
                state.read_tail(from..to, budget, &mut found);
                return Ok(found);
            }
            let removals = state.removals;
            let to = to.min(state.tail_start());
            let Some(extent) = state.plan_read(from..to, budget, found.is_empty()) else {
                return Ok(found); // the next record is beyond the budget
            };
            drop(state);
            match extent.read() {
                Ok(records) => {
                    let bytes: usize = records.iter().map(Record::payload_len).sum();
                    budget = budget.saturating_sub(bytes);
                    found.extend(records);
                    shared.state.lock().stats.disk_read_records += extent.next() - from;
                }
                // Truncated, and perhaps written anew, meanwhile: look again.
                Err(_) if shared.state.lock().removals != removals => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes all records after `index`. Durable on return; what was appended before is written
    /// before, what is appended after follows `index`.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] below the purge point; the error that ended the log.
    pub fn truncate_after(&self, index: u64) -> Result<(), LogError> {
        let mut state = self.shared().state.lock();
        state.check_failed()?;
        if index < state.purged {
            return Err(state.out_of_range("truncate after", index));
        }
        if index >= state.next - 1 {
            return Ok(());
        }
        state.drop_tail_after(index);
        state.next = index + 1;
        self.change(state, Change::TruncateAfter(index))
    }

    /// Forgets the records up to `index`, durably; whole segments of such records are removed.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] beyond the last record; the error that ended the log.
    pub fn purge_to(&self, index: u64) -> Result<(), LogError> {
        let mut state = self.shared().state.lock();
        state.check_failed()?;
        if index <= state.purged {
            return Ok(());
        }
        if index >= state.next {
            return Err(state.out_of_range("purge to", index));
        }
        state.purged = index;
        state.drop_tail_to(index);
        self.change(state, Change::PurgeTo(index))
    }

    /// Removes everything, durably; the next record is `index + 1`.
    ///
    /// # Errors
    /// The error that ended the log.
    pub fn reset_to(&self, index: u64) -> Result<(), LogError> {
        let mut state = self.shared().state.lock();
        state.check_failed()?;
        if index == u64::MAX {
            return Err(state.out_of_range("reset to", index));
        }
        state.tail.clear();
        state.stats.cached_bytes = 0;
        state.purged = index;
        state.next = index + 1;
        self.change(state, Change::ResetTo(index))
    }

    /// Whether files of purged segments are kept to be used again, as they are from the opening on. Without, their space
    /// is given back before this returns, and so is that of segments purged later. Such files hold nothing that counts.
    ///
    /// # Errors
    /// The error that ended the log.
    pub fn keep_spares(&self, keep: bool) -> Result<(), LogError> {
        let state = self.shared().state.lock();
        state.check_failed()?;
        self.change(state, Change::KeepSpares(keep))
    }

    /// The most bytes that [`Log::keep_spares`] may give back.
    #[must_use]
    pub fn spare_bytes_max(&self) -> u64 {
        let options = &self.shared().options;
        options
            .segment_bytes
            .saturating_mul(options.spare_segments as u64)
    }

    /// Keeps a small value beside the log. With `durable` it is so on return; without, a power loss
    /// may bring the value back that was durable before. An empty value reads as none.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] beyond [`SLOT_BYTES_MAX`]; the error that ended the log.
    pub fn save_slot(&self, slot: Slot, bytes: &[u8], durable: bool) -> Result<(), LogError> {
        if bytes.len() > SLOT_BYTES_MAX {
            return Err(LogError::TooLarge {
                what: "the value of a slot",
                len: bytes.len(),
                max: SLOT_BYTES_MAX,
            });
        }
        let shared = self.shared();
        let mut slots = shared.slots.lock();
        shared.state.lock().check_failed()?;
        slots
            .save(slot, bytes, durable)
            .inspect_err(|e| shared.fail(e))
    }

    /// The value last saved.
    ///
    /// # Errors
    /// None today; reading may need the disk one day.
    pub fn read_slot(&self, slot: Slot) -> Result<Option<Bytes>, LogError> {
        Ok(self.shared().slots.lock().read(slot).map(Bytes::from))
    }

    /// The segment files, oldest first: the index of the first record and the bytes in use.
    #[must_use]
    pub fn files(&self) -> Vec<(u64, u64)> {
        let state = self.shared().state.lock();
        let files = state.segments.iter();
        files.map(|file| (file.first(), file.end)).collect()
    }

    /// Counters and levels.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let state = self.shared().state.lock();
        LogStats {
            segments: state.segments.len(),
            flush_running: state.flush_started.map(|t| t.elapsed()),
            ..state.stats
        }
    }

    /// Queues a change and waits for it.
    fn change(&self, mut state: MutexGuard<'_, State>, change: Change) -> Result<(), LogError> {
        let (tell, hear) = mpsc::sync_channel(1);
        state.queue.push_back(Work::Change(change, tell));
        self.shared().work.notify_one();
        drop(state);
        hear.recv().unwrap_or(Err(LogError::FlusherDied))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.work.notify_one();
        if let Some(flusher) = self.flusher.take() {
            // A completion callback may hold the last clone; the thread cannot wait for itself.
            if flusher.thread().id() != std::thread::current().id() {
                let _ = flusher.join(); // a panic in it was reported as `FlusherDied`
            }
        }
    }
}

impl Shared {
    /// Ends the log. The first error stays.
    pub(crate) fn fail(&self, error: &LogError) {
        let mut state = self.state.lock();
        if state.failed.is_none() {
            tracing::error!(%error, "the log takes nothing more");
            state.failed = Some(error.clone());
        }
        self.work.notify_all();
        self.room.notify_all();
    }
}

impl State {
    pub(crate) fn check_failed(&self) -> Result<(), LogError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Whether this much may be queued. Anything may when the queue is empty.
    fn has_room(&self, bytes: usize, records: usize, options: &LogOptions) -> bool {
        let queued = (self.stats.queued_bytes, self.stats.queued_records);
        self.queue.is_empty() && queued == (0, 0)
            || queued.0 + bytes <= options.queue_bytes_max
                && queued.1 + records <= options.queue_records_max
    }

    fn admit(&self, records: &[Record]) -> Result<(), LogError> {
        self.check_failed()?;
        for (record, expected) in records.iter().zip(self.next..) {
            if record.index != expected || expected == u64::MAX {
                return Err(LogError::NotConsecutive {
                    expected,
                    found: record.index,
                });
            }
            if record.payload_len() > RECORD_BYTES_MAX {
                return Err(LogError::TooLarge {
                    what: "a record",
                    len: record.payload_len(),
                    max: RECORD_BYTES_MAX,
                });
            }
        }
        Ok(())
    }

    fn out_of_range(&self, what: &'static str, index: u64) -> LogError {
        LogError::OutOfRange {
            what,
            index,
            purged: self.purged,
            last: self.next - 1,
        }
    }

    fn tail_start(&self) -> u64 {
        self.tail.front().map_or(self.next, |c| c.record.index)
    }

    fn read_tail(&self, range: Range<u64>, mut budget: usize, found: &mut Vec<Record>) {
        let skip = (range.start - self.tail_start()) as usize;
        for cached in self.tail.iter().skip(skip) {
            let len = cached.record.payload_len();
            if cached.record.index >= range.end || (len > budget && !found.is_empty()) {
                return;
            }
            budget = budget.saturating_sub(len);
            found.push(cached.record.clone());
        }
    }

    /// Which records of one segment to read next; `None` when not even one is within the budget and
    /// none `must` come.
    fn plan_read(&self, range: Range<u64>, budget: usize, must: bool) -> Option<Extent> {
        let after = self.segments.partition_point(|s| s.first() <= range.start);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let begin = segment.offset_of(range.start);
        let limit = begin + (budget as u64).min(READ_BYTES_MAX);
        let mut to = range.start + 1;
        if segment.offset_of(to) > limit && !must {
            return None;
        }
        while to < range.end.min(segment.next()) && segment.offset_of(to + 1) <= limit {
            to += 1;
        }
        Some(segment.extent(range.start..to))
    }

    fn drop_tail_after(&mut self, index: u64) {
        while let Some(cached) = self.tail.pop_back_if(|c| c.record.index > index) {
            self.stats.cached_bytes -= cached.record.memory();
        }
    }

    fn drop_tail_to(&mut self, index: u64) {
        while let Some(cached) = self.tail.pop_front_if(|c| c.record.index <= index) {
            self.stats.cached_bytes -= cached.record.memory();
        }
    }

    /// Lets durable records go from memory, oldest first, down to the bound.
    pub(crate) fn trim_tail(&mut self, bytes_max: usize) {
        while self.stats.cached_bytes > bytes_max {
            let durable = self.durable_serial;
            let Some(cached) = self.tail.pop_front_if(|c| c.serial < durable) else {
                return;
            };
            self.stats.cached_bytes -= cached.record.memory();
        }
    }
}
