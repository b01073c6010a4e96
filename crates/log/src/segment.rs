//! One segment file: making it, checking it at open, reading records from it.
//!
//! Invariants
//! - A file named `*.seg` has a whole header: it gets that name only after its header is durable.
//! - Reading gives back what was appended or an error, never anything else.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use haven_disk::{Disk, DiskFile, renew};

use crate::format::{
    ALIGN, PAGE_BYTES, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader,
    candidates,
};
use crate::{LogError, RECORD_BYTES_MAX, Record};

const SUFFIX: &str = ".seg";
/// Ends the name of a file that holds nothing and waits to become a segment.
const SPARE_SUFFIX: &str = ".spare";
/// Bytes taken from the disk at once while a segment is checked.
const SCAN_BYTES: usize = 1 << 20;

/// A segment's file, shared by the flusher and readers.
pub(crate) struct SegmentFile {
    pub(crate) name: String,
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// A segment: its file and where its records begin.
pub(crate) struct Segment {
    pub(crate) file: Arc<SegmentFile>,
    /// Offset of each record, in units of [`ALIGN`].
    starts: Vec<u32>,
    /// Where the next record would begin.
    pub(crate) end: u64,
    /// As its records tell, those up to this index were durable when later ones were written.
    proven: u64,
}

/// The most bytes of a segment that `starts` can address.
pub(crate) const SEGMENT_BYTES_LIMIT: u64 = ALIGN * u32::MAX as u64;

impl SegmentFile {
    /// Makes the bytes from `end` on unreadable for ever.
    pub(crate) fn cut(&self, end: u64) -> Result<(), LogError> {
        self.file
            .set_len(end)
            .and_then(|()| self.file.sync())
            .map_err(LogError::io(format!("cut segment {}", self.name)))
    }

    /// As [`SegmentFile::cut`], also if the file ends there already: that may be so in memory only.
    pub(crate) fn cut_anew(&self, end: u64) -> Result<(), LogError> {
        self.file
            .set_len(end)
            .and_then(|()| renew::length(&*self.file, ALIGN))
            .and_then(|()| self.file.sync())
            .map_err(LogError::io(format!("cut segment {}", self.name)))
    }

    /// Reserves the space from `end` up to the size of a segment.
    pub(crate) fn reserve(&self, end: u64, segment_bytes: u64) -> Result<(), LogError> {
        self.file
            .allocate(end, segment_bytes.saturating_sub(end))
            .map_err(LogError::io(format!("reserve space for {}", self.name)))
    }
}

impl Segment {
    fn new(file: SegmentFile) -> Segment {
        Segment {
            file: Arc::new(file),
            starts: Vec::new(),
            end: SEGMENT_HEADER_BYTES,
            proven: 0,
        }
    }

    /// The index of the first record.
    pub(crate) fn first(&self) -> u64 {
        self.file.header.first
    }

    /// The index after the last record.
    pub(crate) fn next(&self) -> u64 {
        self.first() + self.starts.len() as u64
    }

    /// Where the record of this index begins, or would begin.
    pub(crate) fn offset_of(&self, index: u64) -> u64 {
        let position = index.saturating_sub(self.first()) as usize;
        match self.starts.get(position) {
            Some(&start) => u64::from(start) * ALIGN,
            None => self.end,
        }
    }

    /// Takes up a record of `len` stored bytes that was written at the end.
    pub(crate) fn added(&mut self, len: u64) {
        self.starts.push((self.end / ALIGN) as u32);
        self.end += len;
    }

    /// Forgets the records after `index`.
    pub(crate) fn cut_after(&mut self, index: u64) {
        self.end = self.offset_of(index + 1);
        let kept = (index + 1).saturating_sub(self.first()) as usize;
        self.starts.truncate(kept);
    }

    /// What to read for these records, all in this segment.
    pub(crate) fn extent(&self, range: Range<u64>) -> Extent {
        Extent {
            file: Arc::clone(&self.file),
            first: range.start,
            bounds: (range.start..=range.end)
                .map(|i| self.offset_of(i))
                .collect(),
        }
    }

    /// Makes a segment file, durably under its name, with `reserve` bytes reserved; out of the file `spare` if
    /// the header says that it is recycled.
    pub(crate) fn create(
        disk: &dyn Disk,
        dir: &Path,
        header: SegmentHeader,
        spare: Option<&str>,
        reserve: u64,
    ) -> Result<Segment, LogError> {
        let name = file_name(header.seq);
        let new = dir.join(format!("{name}.new"));
        let make = || -> io::Result<Arc<dyn DiskFile>> {
            if let Some(spare) = spare {
                disk.rename(&dir.join(spare), &new)?;
            }
            let file = disk.open(&new, true)?;
            if spare.is_none() {
                file.set_len(0)?;
            }
            file.write_at(0, &header.encode())?;
            file.allocate(0, reserve)?;
            file.sync()?;
            disk.rename(&new, &dir.join(&name))?;
            disk.sync_dir(dir)?;
            Ok(file)
        };
        let file = make().map_err(LogError::io(format!("make segment {name}")))?;
        Ok(Segment::new(SegmentFile { name, header, file }))
    }

    /// Opens a segment and checks every record up to the first that is not one. What is found at its end need not be
    /// durable: see [`Segment::renew_end`].
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        log_id: u64,
        seq: u64,
        first_expected: Option<u64>,
    ) -> Result<(Segment, Ending), LogError> {
        let name = file_name(seq);
        let file = disk
            .open(&dir.join(&name), false)
            .map_err(LogError::io(format!("open segment {name}")))?;
        let mut window = Window::new(&*file).map_err(LogError::io(format!("read {name}")))?;
        let read = |e| LogError::io(format!("read segment {name}"))(e);
        let bytes = window
            .get(0, SEGMENT_HEADER_BYTES as usize)
            .map_err(read)?
            .unwrap_or_default();
        let header = SegmentHeader::decode(&name, bytes)?;
        if header.log_id != log_id || header.seq != seq {
            let why = "it belongs to another log or has another segment's name";
            return Err(LogError::damaged(&name, 0, why));
        }
        if let Some(expected) = first_expected.filter(|&e| e != header.first) {
            let why = format!(
                "it begins with record {}, expected {expected}: records are missing",
                header.first
            );
            return Err(LogError::damaged(&name, 0, why));
        }
        let mut segment = Segment::new(SegmentFile {
            name,
            header,
            file: Arc::clone(&file),
        });
        let ending = segment.scan(&mut window)?;
        Ok((segment, ending))
    }

    /// Writes the records that nothing proves durable once more and flushes them; then looks at them again, because
    /// until then what was read may have been forgotten. Records up to `durable` are known to be.
    pub(crate) fn renew_end(&mut self, durable: u64) -> Result<Ending, LogError> {
        let file = Arc::clone(&self.file.file);
        let failed = |what: &str| LogError::io(format!("{what} segment {}", self.file.name));
        let proven = self.proven.max(durable);
        let start = self.offset_of(proven + 1);
        if start < self.end {
            let end = self.end.next_multiple_of(PAGE_BYTES);
            renew::bytes(&*file, start - start % PAGE_BYTES, end)
                .and_then(|()| file.sync())
                .map_err(failed("write the end of"))?;
        }
        let mut window = Window::new(&*file).map_err(failed("read"))?;
        self.cut_after(proven.max(self.first() - 1));
        self.scan(&mut window)
    }

    /// Takes up records until the first that is not one.
    fn scan(&mut self, window: &mut Window<'_>) -> Result<Ending, LogError> {
        loop {
            if self.end >= SEGMENT_BYTES_LIMIT {
                return Err(LogError::damaged(
                    &self.file.name,
                    self.end,
                    "the file is too long",
                ));
            }
            match self.record_at_end(window)? {
                Ok((len, durable)) => {
                    self.added(len);
                    self.proven = self.proven.max(durable);
                }
                Err(why) => return self.judge_end(window, why),
            }
        }
    }

    /// The stored length of the valid record at the end, and what was durable when it was written; or why there is
    /// none.
    fn record_at_end(
        &self,
        window: &mut Window<'_>,
    ) -> Result<Result<(u64, u64), &'static str>, LogError> {
        let read = |e| LogError::io(format!("read segment {}", self.file.name))(e);
        let Some(bytes) = window.get(self.end, RECORD_HEADER_BYTES).map_err(read)? else {
            return Ok(Err("the file ends"));
        };
        let Some(header) = RecordHeader::decode(bytes, self.file.header.nonce, self.end) else {
            return Ok(Err("no valid record header"));
        };
        if header.index != self.next() {
            let why = format!(
                "record {} stands where {} belongs",
                header.index,
                self.next()
            );
            return Err(LogError::damaged(&self.file.name, self.end, why));
        }
        if header.payload_len() > RECORD_BYTES_MAX {
            return Err(LogError::damaged(
                &self.file.name,
                self.end,
                "the record is too long",
            ));
        }
        let stored = header.stored_len();
        match window.get(self.end, stored as usize).map_err(read)? {
            Some(bytes) if header.payload_valid(bytes) => Ok(Ok((stored, header.durable))),
            Some(_) => Ok(Err("the record's checksum is wrong")),
            None => Ok(Err("the file ends inside the record")),
        }
    }

    /// What follows the last good record: nothing, a torn write, or (an error) records that prove
    /// that a record now unreadable had been durable.
    fn judge_end(&self, window: &mut Window<'_>, why: &'static str) -> Result<Ending, LogError> {
        let missing = self.next();
        let mut at = self.end;
        let mut ending = Ending::Clean;
        while let Some(data) = self.next_data(at)? {
            // Space that is reserved only is not read. Back by a header: it may begin with zeros.
            let before = data.saturating_sub(RECORD_HEADER_BYTES as u64);
            at = at.max(before - before % ALIGN);
            if at >= window.len {
                break;
            }
            let n = (window.len - at).min(SCAN_BYTES as u64) as usize;
            let bytes = window
                .get(at, n)
                .map_err(LogError::io(format!("read segment {}", self.file.name)))?
                .unwrap_or_default();
            // Of a recycled file's older contents nothing bears this segment's nonce.
            let headers = || candidates(bytes, self.file.header.nonce);
            let torn = match self.file.header.recycled {
                true => headers().next().is_some(),
                false => bytes.iter().any(|&b| b != 0),
            };
            if torn {
                ending = Ending::Torn(why);
                for candidate in headers() {
                    let offset = at + candidate as u64;
                    let found =
                        RecordHeader::decode(&bytes[candidate..], self.file.header.nonce, offset);
                    if let Some(later) = found.filter(|h| h.index > missing && h.durable >= missing)
                    {
                        let why = format!(
                            "{why}, but record {} at byte {offset} was written after record \
                             {missing} had been flushed",
                            later.index
                        );
                        return Err(LogError::damaged(&self.file.name, self.end, why));
                    }
                }
            }
            // A header may lie across the border of two steps: step back by less than one.
            let step = if n == SCAN_BYTES {
                n - RECORD_HEADER_BYTES
            } else {
                n
            };
            at += step as u64;
        }
        Ok(ending)
    }

    /// Where at or after `offset` there may be anything but zeros.
    fn next_data(&self, offset: u64) -> Result<Option<u64>, LogError> {
        let SegmentFile { name, file, .. } = &*self.file;
        file.next_data(offset)
            .map_err(LogError::io(format!("look for records in segment {name}")))
    }
}

/// Records of one segment to be read: where each begins, and the last ends.
pub(crate) struct Extent {
    file: Arc<SegmentFile>,
    first: u64,
    bounds: Vec<u64>,
}

impl Extent {
    /// The index after the last record of the extent.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.bounds.len() as u64 - 1
    }

    /// Reads and checks the records.
    pub(crate) fn read(&self) -> Result<Vec<Record>, LogError> {
        let (Some(&begin), Some(&end)) = (self.bounds.first(), self.bounds.last()) else {
            return Ok(Vec::new());
        };
        let SegmentFile { name, header, file } = &*self.file;
        let mut buf = vec![0; (end - begin) as usize];
        let n = file
            .read_at(begin, &mut buf)
            .map_err(LogError::io(format!("read segment {name}")))?;
        buf.truncate(n);
        let buf = Bytes::from(buf);
        let mut records = Vec::with_capacity(self.bounds.len() - 1);
        for (index, bound) in (self.first..).zip(self.bounds.windows(2)) {
            let stored = (bound[0] - begin) as usize..(bound[1] - begin) as usize;
            let record = (stored.end <= buf.len())
                .then(|| buf.slice(stored))
                .and_then(|stored| {
                    RecordHeader::decode(&stored, header.nonce, bound[0])
                        .filter(|h| h.index == index)?
                        .record(&stored)
                });
            records.push(record.ok_or_else(|| {
                let why = format!("record {index} is not what was written");
                LogError::damaged(name, bound[0], why)
            })?);
        }
        Ok(records)
    }
}

/// What stands after the last good record of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nothing but zeros, or what an older segment left in the file.
    Clean,
    /// Bytes that are no record; why they are none.
    Torn(&'static str),
}

pub(crate) fn file_name(seq: u64) -> String {
    format!("{seq:016x}{SUFFIX}")
}

/// The number of a segment file, `None` when the name is no segment's.
pub(crate) fn seq_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let seq = u64::from_str_radix(digits, 16).ok()?;
    (file_name(seq) == name).then_some(seq)
}

/// The name under which a purged segment's file waits to be used again.
pub(crate) fn spare_name(seq: u64) -> String {
    format!("{seq:016x}{SPARE_SUFFIX}")
}

pub(crate) fn is_spare(name: &str) -> bool {
    let digits = name.strip_suffix(SPARE_SUFFIX);
    digits.is_some_and(|d| u64::from_str_radix(d, 16).is_ok_and(|seq| spare_name(seq) == name))
}

pub(crate) fn path_of(dir: &Path, seq: u64) -> PathBuf {
    dir.join(file_name(seq))
}

/// A part of a file in memory that moves forward.
struct Window<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    start: u64,
    buf: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn DiskFile) -> io::Result<Window<'a>> {
        Ok(Window {
            file,
            len: file.len()?,
            start: 0,
            buf: Vec::new(),
        })
    }

    /// These bytes of the file, `None` when it ends before.
    fn get(&mut self, offset: u64, n: usize) -> io::Result<Option<&[u8]>> {
        let end = offset.saturating_add(n as u64);
        if end > self.len {
            return Ok(None);
        }
        if offset < self.start || end > self.start + self.buf.len() as u64 {
            let wanted = (self.len - offset).min(SCAN_BYTES.max(n) as u64) as usize;
            self.buf.resize(wanted, 0);
            self.start = offset;
            let got = self.file.read_at(offset, &mut self.buf)?;
            if got < n {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buf.truncate(got);
        }
        let from = (offset - self.start) as usize;
        Ok(Some(&self.buf[from..from + n]))
    }
}
