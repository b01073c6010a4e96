//! The flusher: the one thread that writes segments. It takes everything queued up to the next change,
//! writes it as one group, flushes once, and then answers.
//!
//! Who was answered with one group usually asks again at once, but not all at the same moment: taken as they
//! come, they fall into two groups that alternate, each half as large as it could be. So the flusher waits
//! a moment for as many appends as the last group had. Somebody who is alone never waits.
//!
//! Invariants
//! - Nothing is answered with success before the flush that covers it has returned.
//! - A group is written only after the group before it is durable; so a record that says "up to here
//!   was durable" proves it (`FORMAT.md`, "Torn or damaged").
//! - A segment is durable and closed before the next one gets its name.
//! - The first error ends the log; nothing is tried twice.

use parking_lot::MutexGuard;
use std::mem;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::format::{Batch, PAGE_BYTES, SegmentHeader, stored_len};
use crate::log::{Append, Change, FLUSH_BUCKETS, Shared, State, Work};
use crate::open;
use crate::segment::{Segment, SegmentFile, file_name, path_of, spare_name};
use crate::slots::Meta;
use crate::{LogError, Record};

pub(crate) fn start(shared: Arc<Shared>, spares: Vec<String>) -> Result<JoinHandle<()>, LogError> {
    let tip = match shared.state.lock().segments.last() {
        Some(segment) => Tip::of(segment)?,
        None => return Err(LogError::FlusherDied), // `open` makes at least one
    };
    let flusher = Flusher {
        shared,
        tip,
        spares,
        keeps_spares: true,
        last_group: 0,
    };
    std::thread::Builder::new()
        .name("haven-log".to_owned())
        .spawn(move || flusher.run())
        .map_err(LogError::io("start the flusher thread"))
}

/// Which of [`LogStats::flush_times`](crate::LogStats) a duration belongs to.
fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
    let steps = us.div_ceil(16).max(1);
    let bucket = u64::BITS - (steps - 1).leading_zeros();
    usize::try_from(bucket)
        .unwrap_or(usize::MAX)
        .min(FLUSH_BUCKETS - 1)
}

/// The longest wait for a group to fill: about what a flush takes on a fast disk. On a slow one, groups fill
/// while the one before is flushed.
const GATHER_MAX: Duration = Duration::from_micros(250);

/// A group of so many bytes is not waited for: its writing takes longer than its flush.
const GATHER_BYTES: usize = 256 << 10;

struct Flusher {
    shared: Arc<Shared>,
    tip: Tip,
    /// Names of files that become segments.
    spares: Vec<String>,
    keeps_spares: bool,
    /// Appends in the last group.
    last_group: usize,
}

/// Where the next record goes.
struct Tip {
    file: Arc<SegmentFile>,
    next: u64,
    end: u64,
    /// What the page holds in which the next record begins.
    page: Vec<u8>,
    /// Bytes up to here were written before, at least with zeros.
    written_to: u64,
}

impl Tip {
    fn of(segment: &Segment) -> Result<Tip, LogError> {
        let SegmentFile { file, name, .. } = &*segment.file;
        let mut page = vec![0; (segment.end % PAGE_BYTES) as usize];
        let read = file
            .read_at(segment.end - page.len() as u64, &mut page)
            .map_err(LogError::io(format!("read segment {name}")))?;
        if read < page.len() {
            return Err(LogError::damaged(name, segment.end, "it became shorter"));
        }
        Ok(Tip {
            file: Arc::clone(&segment.file),
            next: segment.next(),
            end: segment.end,
            page,
            written_to: 0,
        })
    }
}

enum Job {
    Group(Vec<Append>),
    Change(Change, std::sync::mpsc::SyncSender<Result<(), LogError>>),
}

/// Ends the log when the thread ends, however it ends, so that nobody waits for it for ever.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&LogError::FlusherDied);
        }
        let (queue, error) = {
            let mut state = self.0.state.lock();
            state.stats.queued_bytes = 0;
            state.stats.queued_records = 0;
            state.flush_started = None;
            (mem::take(&mut state.queue), state.failed.clone())
        };
        let Some(error) = error else { return };
        for work in queue {
            match work {
                // After a panic in a callback no further one is risked: a second panic would abort.
                Work::Append(_) if std::thread::panicking() => {}
                Work::Append(append) => (append.done)(Err(error.clone())),
                Work::Change(_, tell) => drop(tell.send(Err(error.clone()))),
            }
        }
    }
}

impl Flusher {
    fn run(mut self) {
        let ending = Ending(Arc::clone(&self.shared));
        while let Some(job) = self.next_job() {
            let result = match job {
                Job::Group(appends) => self.group(appends),
                Job::Change(change, tell) => {
                    let result = self.change(change);
                    if let Err(error) = &result {
                        self.shared.fail(error);
                    }
                    // The caller waits; if it is gone, nobody wants to know.
                    let _ = tell.send(result.clone());
                    result
                }
            };
            if result.is_err() {
                break;
            }
        }
        self.close();
        drop(ending);
    }

    /// After a clean end the log's own slot says how far it reaches, so that a loss of what nothing
    /// follows would show too.
    fn close(&self) {
        if self.shared.state.lock().failed.is_some() {
            return;
        }
        let last = self.tip.next - 1;
        if let Err(error) = self.update_meta(|meta| meta.durable = last) {
            self.shared.fail(&error);
        }
    }

    /// The next thing to do; `None` when the log failed, or is closed and all is done.
    fn next_job(&mut self) -> Option<Job> {
        let mut state = self.shared.state.lock();
        loop {
            if state.failed.is_some() {
                return None;
            }
            if !state.queue.is_empty() {
                break;
            }
            if state.closing {
                return None;
            }
            self.shared.work.wait(&mut state);
        }
        self.gather(&mut state);
        let mut appends = Vec::new();
        while let Some(work) = state.queue.pop_front() {
            match work {
                Work::Append(append) => appends.push(append),
                Work::Change(change, tell) if appends.is_empty() => {
                    return Some(Job::Change(change, tell));
                }
                change @ Work::Change(..) => {
                    state.queue.push_front(change);
                    break;
                }
            }
        }
        state.flush_started = Some(Instant::now());
        self.last_group = appends.len();
        Some(Job::Group(appends))
    }

    /// Waits for a group as large as the last one; not for long, and not before a change.
    fn gather(&self, state: &mut MutexGuard<'_, State>) {
        let until = Instant::now() + GATHER_MAX;
        state.wanted = self.last_group;
        while state.queue.len() < self.last_group
            && state.stats.queued_bytes < GATHER_BYTES
            && !matches!(state.queue.back(), Some(Work::Change(..)))
            && !state.closing
            && state.failed.is_none()
        {
            if self.shared.work.wait_until(state, until).timed_out() {
                break;
            }
        }
        state.wanted = 1;
    }

    /// Writes, flushes and answers a group.
    fn group(&mut self, appends: Vec<Append>) -> Result<(), LogError> {
        let started = Instant::now();
        let records: Vec<&Record> = appends.iter().flat_map(|a| &a.records).collect();
        let result = self.write(&records);
        match &result {
            Ok(bytes) => self.account(&appends, *bytes, started),
            Err(error) => self.shared.fail(error),
        }
        let result = result.map(|_| ());
        for append in appends {
            (append.done)(result.clone());
        }
        result
    }

    fn account(&self, appends: &[Append], bytes: u64, started: Instant) {
        let records: usize = appends.iter().map(|a| a.records.len()).sum();
        let took = started.elapsed();
        let mut state = self.shared.state.lock();
        if let Some(last) = appends.last() {
            state.durable_serial = last.end_serial;
        }
        state.trim_tail(self.shared.options.tail_cache_bytes);
        state.flush_started = None;
        let stats = &mut state.stats;
        stats.appended_records += records as u64;
        stats.appended_bytes += bytes;
        stats.flushes += 1;
        stats.flush_time += took;
        stats.flush_times[bucket(took)] += 1;
        stats.flush_time_max = stats.flush_time_max.max(took);
        stats.queued_records -= records;
        stats.queued_bytes -= appends.iter().map(Append::memory).sum::<usize>();
        self.shared.room.notify_all();
    }

    /// Makes the records durable; returns the bytes they took.
    fn write(&mut self, records: &[&Record]) -> Result<u64, LogError> {
        let segment_bytes = self.shared.options.segment_bytes;
        let mut rest = records;
        let mut bytes = 0;
        while !rest.is_empty() {
            let n = fitting(rest, segment_bytes.saturating_sub(self.tip.end));
            if n == 0 && self.tip.next > self.tip.file.header.first {
                self.roll()?;
                continue;
            }
            // A record that no segment could hold gets one of its own.
            let (now, later) = rest.split_at(n.max(1));
            bytes += self.write_part(now)?;
            rest = later;
        }
        Ok(bytes)
    }

    /// Writes records at the end of the last segment and flushes it.
    fn write_part(&mut self, records: &[&Record]) -> Result<u64, LogError> {
        let (file, begin) = (Arc::clone(&self.tip.file), self.tip.end);
        // The part before was flushed before this one is written, so all that came before is durable.
        let durable = self.tip.next - 1;
        let mut end = begin;
        let mut batch = Batch::new();
        batch.again(&self.tip.page);
        for record in records {
            batch.push(record, durable, file.header.nonce, end);
            end += stored_len(record.payload_len());
        }
        let page = batch.last((end % PAGE_BYTES) as usize);
        batch.zeros(self.zeros_after(begin, end));
        file.file
            .write_past_cache_at(begin - begin % PAGE_BYTES, &batch.parts())
            .and_then(|()| file.file.sync())
            .map_err(LogError::io(format!("append to segment {}", file.name)))?;
        self.tip.end = end;
        self.tip.page = page;
        self.tip.next += records.len() as u64;
        if let Some(segment) = self.shared.state.lock().segments.last_mut() {
            for record in records {
                segment.added(stored_len(record.payload_len()));
            }
        }
        Ok(end - begin)
    }

    /// How many zeros to write behind a group: to the end of the page; and enough for many small groups to
    /// come, but not behind a large one, for which they would only be more to write, nor where an older
    /// segment was.
    fn zeros_after(&mut self, begin: u64, end: u64) -> usize {
        let ahead = self.shared.options.zero_ahead_bytes as u64;
        let mut upto = end.next_multiple_of(PAGE_BYTES);
        let large = end - begin > ahead / 4;
        if end > self.tip.written_to && !large && !self.tip.file.header.recycled {
            let most = self.shared.options.segment_bytes;
            upto = upto.max((upto + ahead).min(most - most % PAGE_BYTES));
        }
        self.tip.written_to = self.tip.written_to.max(upto);
        (upto - end) as usize
    }

    /// Closes the last segment and begins the next.
    fn roll(&mut self) -> Result<(), LogError> {
        let spare = self.spares.pop();
        let header = SegmentHeader {
            seq: self.tip.file.header.seq + 1,
            first: self.tip.next,
            nonce: open::random()?,
            recycled: spare.is_some(),
            ..self.tip.file.header
        };
        self.tip.file.cut(self.tip.end)?;
        let shared = &self.shared;
        let reserve = shared.options.segment_bytes;
        let spare = spare.as_deref();
        let next = Segment::create(&*shared.disk, &shared.dir, header, spare, reserve)?;
        self.tip = Tip::of(&next)?;
        shared.state.lock().segments.push(next);
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), LogError> {
        match change {
            Change::TruncateAfter(index) => self.truncate_after(index),
            Change::PurgeTo(index) => self.purge_to(index),
            Change::ResetTo(index) => self.reset_to(index),
            Change::KeepSpares(keep) => self.keep_spares(keep),
        }
    }

    /// From the end towards the front, every step durable before the next: whatever a crash leaves is
    /// a log without a gap, and what was removed cannot come back behind what is appended next.
    fn truncate_after(&mut self, index: u64) -> Result<(), LogError> {
        self.update_meta(|meta| {
            meta.durable = meta.durable.min(index);
            meta.cutting = true;
        })?;
        while let Some(seq) = self.pop_segment_after(index) {
            open::remove(&*self.shared.disk, &self.shared.dir, &[seq])?;
        }
        {
            let mut state = self.shared.state.lock();
            state.removals += 1;
            if let Some(segment) = state.segments.last_mut() {
                segment.cut_after(index);
                self.tip = Tip::of(segment)?;
            }
        }
        let tip = &self.tip;
        tip.file.cut(tip.end)?;
        // If this gets lost, an opening does it once more.
        let mut slots = self.shared.slots.lock();
        let meta = slots.meta()?;
        slots.save_meta_lazily(Meta {
            cutting: false,
            ..meta
        })?;
        drop(slots);
        tip.file.reserve(tip.end, self.shared.options.segment_bytes)
    }

    /// Takes the last segment off the list if it holds nothing up to `index + 1`.
    fn pop_segment_after(&self, index: u64) -> Option<u64> {
        let mut state = self.shared.state.lock();
        state.removals += 1;
        let count = state.segments.len();
        let segment = state
            .segments
            .pop_if(|s| count > 1 && s.first() > index + 1)?;
        Some(segment.file.header.seq)
    }

    /// The purge point first: it says which segments still count.
    fn purge_to(&mut self, index: u64) -> Result<(), LogError> {
        let gone: Vec<u64> = {
            let state = self.shared.state.lock();
            let ends = state.segments.iter().zip(state.segments.iter().skip(1));
            ends.take_while(|(_, next)| next.first() <= index + 1)
                .map(|(segment, _)| segment.file.header.seq)
                .collect()
        };
        let last = self.tip.next - 1;
        self.update_meta(|meta| {
            meta.purged = index;
            meta.durable = last;
            meta.base_seq += gone.len() as u64;
        })?;
        {
            let mut state = self.shared.state.lock();
            state.segments.drain(..gone.len());
            state.removals += 1;
        }
        let kept = gone.len().min(self.spare_room());
        let (kept, gone) = gone.split_at(kept);
        self.set_aside(kept)?;
        open::remove(&*self.shared.disk, &self.shared.dir, gone)
    }

    fn spare_room(&self) -> usize {
        let most = self.shared.options.spare_segments;
        match self.keeps_spares {
            true => most.saturating_sub(self.spares.len()),
            false => 0,
        }
    }

    fn keep_spares(&mut self, keep: bool) -> Result<(), LogError> {
        self.keeps_spares = keep;
        if keep {
            return Ok(());
        }
        for spare in mem::take(&mut self.spares) {
            let removed = self.shared.disk.remove_file(&self.shared.dir.join(&spare));
            removed.map_err(LogError::io(format!("remove {spare}")))?;
        }
        Ok(())
    }

    /// Keeps purged segments' files to be used again. The names need not be durable: under its old name
    /// such a file does not count any more, either. Readers that still hold it find no record there once it
    /// is written anew, and look again.
    fn set_aside(&mut self, seqs: &[u64]) -> Result<(), LogError> {
        for &seq in seqs {
            let (from, spare) = (path_of(&self.shared.dir, seq), spare_name(seq));
            self.shared
                .disk
                .rename(&from, &self.shared.dir.join(&spare))
                .map_err(LogError::io(format!("set {} aside", file_name(seq))))?;
            self.spares.push(spare);
        }
        Ok(())
    }

    /// The meta value first: from then on no old segment counts.
    fn reset_to(&mut self, index: u64) -> Result<(), LogError> {
        let base_seq = self.tip.file.header.seq + 1;
        let meta = self.update_meta(|meta| {
            *meta = Meta {
                purged: index,
                durable: index,
                base_seq,
                awaits_base: true,
                cutting: false,
            };
        })?;
        let shared = &self.shared;
        let log_id = self.tip.file.header.log_id;
        let base = open::base(&*shared.disk, &shared.dir, log_id, meta, &shared.options)?;
        self.update_meta(|meta| meta.awaits_base = false)?;
        self.tip = Tip::of(&base)?;
        let old = {
            let mut state = self.shared.state.lock();
            state.removals += 1;
            mem::replace(&mut state.segments, vec![base])
        };
        let old: Vec<u64> = old.iter().map(|s| s.file.header.seq).collect();
        open::remove(&*self.shared.disk, &self.shared.dir, &old)
    }

    /// Changes what the log keeps about itself, durably; nothing is written when nothing changes.
    fn update_meta(&self, change: impl FnOnce(&mut Meta)) -> Result<Meta, LogError> {
        let mut slots = self.shared.slots.lock();
        let was = slots.meta()?;
        let mut meta = was;
        change(&mut meta);
        if meta != was {
            slots.save_meta(meta)?;
        }
        Ok(meta)
    }
}

/// How many of the records fit into `room` bytes.
fn fitting(records: &[&Record], mut room: u64) -> usize {
    let fits = |record: &&&Record| {
        let len = stored_len(record.payload_len());
        let fits = len <= room;
        room = room.saturating_sub(len);
        fits
    };
    records.iter().take_while(fits).count()
}
