//! An offline check of a log: every file, every record, without changing anything.
//!
//! It reads with the same code as opening does and judges in the same way, but goes on after a problem,
//! so that all of them are told at once.
//!
//! It must not know what records and slots mean: both are handed to the caller.

use std::fmt;
use std::io;
use std::path::Path;

use bytes::Bytes;
use haven_disk::Disk;

use crate::segment::{Ending, Segment, file_name, is_spare, seq_of};
use crate::slots::{Meta, SLOTS_NAME, Slots};
use crate::{LogError, Record, Slot};

/// Bytes of records read at once (a longer record goes alone).
const READ_BYTES: u64 = 4 << 20;

/// Kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LogProblem {
    /// There are segments, but no slots.
    SlotsMissing,
    /// The slots cannot be read.
    SlotsDamaged,
    /// A segment between others, or the first, is not there.
    SegmentMissing,
    /// A segment is not what was written.
    SegmentDamaged,
    /// A segment that is not the last ends in bytes that are no record.
    TornInside,
    /// The log begins later than its purge point says.
    BeginsLate,
    /// The log ends before records that were durable.
    EndsEarly,
    /// The log was never used.
    NotMade,
    /// The last segment ends in bytes that are no record.
    TornEnd,
    /// A file that an interrupted step left.
    Leftover,
    /// A file that is not the log's.
    StrangeFile,
}

impl LogProblem {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::SlotsMissing,
        Self::SlotsDamaged,
        Self::SegmentMissing,
        Self::SegmentDamaged,
        Self::TornInside,
        Self::BeginsLate,
        Self::EndsEarly,
        Self::NotMade,
        Self::TornEnd,
        Self::Leftover,
        Self::StrangeFile,
    ];

    /// Whether a crash may leave it, and opening settles it.
    pub const fn is_note(self) -> bool {
        matches!(
            self,
            Self::NotMade | Self::TornEnd | Self::Leftover | Self::StrangeFile
        )
    }

    /// Its name for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::SlotsMissing => "slots-missing",
            Self::SlotsDamaged => "slots-damaged",
            Self::SegmentMissing => "segment-missing",
            Self::SegmentDamaged => "segment-damaged",
            Self::TornInside => "torn-inside",
            Self::BeginsLate => "log-begins-late",
            Self::EndsEarly => "log-ends-early",
            Self::NotMade => "log-not-made",
            Self::TornEnd => "torn-end",
            Self::Leftover => "log-leftover",
            Self::StrangeFile => "log-strange-file",
        }
    }

    /// What it means.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::SlotsMissing => {
                "the vote and the log's bounds are gone: the node might vote twice"
            }
            Self::SlotsDamaged => {
                "the vote or the log's bounds cannot be read: the node might vote twice"
            }
            Self::SegmentMissing | Self::BeginsLate => {
                "entries that were not purged are missing: changes may be lost on this node"
            }
            Self::SegmentDamaged => {
                "entries that were durable cannot be read: changes may be lost on this node"
            }
            Self::TornInside => "a full segment ends in a torn write, which only the last one may",
            Self::EndsEarly => {
                "entries that were durable are missing at the end: acknowledged changes may be lost"
            }
            Self::NotMade => "the log was never used",
            Self::TornEnd => {
                "a write was under way when the node stopped; nothing in it was acknowledged, it is cut off at \
                 the next start"
            }
            Self::Leftover => "an interrupted step left this file; it is removed at the next start",
            Self::StrangeFile => "the log does not know this file and leaves it alone",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFinding {
    /// Which kind.
    pub problem: LogProblem,
    /// Which file, where in it, and what stands there.
    pub place: String,
}

/// What was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckedLog {
    /// Records up to here are purged.
    pub purged: u64,
    /// The index of the last record; the purge point when there is none.
    pub last: u64,
    /// Segments that count.
    pub segments: u64,
    /// Records that were read.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether slots could be read at all.
    pub has_slots: bool,
    /// The value of [`Slot::Vote`].
    pub vote: Option<Bytes>,
    /// The value of [`Slot::Committed`].
    pub committed: Option<Bytes>,
    /// The value of [`Slot::Purged`].
    pub purged_slot: Option<Bytes>,
}

/// Checks the log in `dir` and hands every record that counts to `visit`, in order.
///
/// # Errors
/// [`LogError::Version`] for a format that this program does not know, [`LogError::Io`] when the disk
/// refuses. Damage is a finding.
pub fn check(
    disk: &dyn Disk,
    dir: &Path,
    found: &mut dyn FnMut(LogFinding),
    visit: &mut dyn FnMut(Record),
) -> Result<CheckedLog, LogError> {
    let mut check = Check {
        disk,
        dir,
        found,
        visit,
        log: CheckedLog::default(),
    };
    let seqs = check.files()?;
    if let Some((log_id, meta)) = check.slots(seqs.is_empty())? {
        check.log.purged = meta.purged;
        check.log.last = meta.purged;
        check.segments(log_id, meta, &seqs)?;
    }
    Ok(check.log)
}

struct Check<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    found: &'a mut dyn FnMut(LogFinding),
    visit: &'a mut dyn FnMut(Record),
    log: CheckedLog,
}

impl Check<'_> {
    fn say(&mut self, problem: LogProblem, file: &str, what: impl fmt::Display) {
        let place = format!("{}: {what}", self.dir.join(file).display());
        (self.found)(LogFinding { problem, place });
    }

    /// The numbers of the segments in the directory, ascending.
    fn files(&mut self) -> Result<Vec<u64>, LogError> {
        let names = match self.disk.list(self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names.map_err(LogError::io("list the log's directory"))?,
        };
        let mut seqs = Vec::new();
        for name in names {
            if let Some(seq) = seq_of(&name) {
                seqs.push(seq);
            } else if name.ends_with(".new") {
                self.say(LogProblem::Leftover, &name, "a half-made file");
            } else if name != SLOTS_NAME && !is_spare(&name) {
                self.say(LogProblem::StrangeFile, &name, "a file of somebody else");
            }
        }
        seqs.sort_unstable();
        Ok(seqs)
    }

    /// The log's id and its own slot, if the slots can be read.
    fn slots(&mut self, no_segments: bool) -> Result<Option<(u64, Meta)>, LogError> {
        let slots = match self.damage_is_told(LogProblem::SlotsDamaged, |check| {
            Slots::open(check.disk, check.dir)
        })? {
            Some(Some(slots)) => slots,
            Some(None) if no_segments => {
                self.say(LogProblem::NotMade, SLOTS_NAME, "missing, and no segments");
                return Ok(None);
            }
            Some(None) => {
                self.say(LogProblem::SlotsMissing, SLOTS_NAME, "missing");
                return Ok(None);
            }
            None => return Ok(None),
        };
        self.log.has_slots = true;
        let value = |slot| slots.read(slot).map(Bytes::from);
        self.log.vote = value(Slot::Vote);
        self.log.committed = value(Slot::Committed);
        self.log.purged_slot = value(Slot::Purged);
        let meta = self.damage_is_told(LogProblem::SlotsDamaged, |_| slots.meta())?;
        Ok(meta.map(|meta| (slots.log_id(), meta)))
    }

    /// Turns damage into a finding.
    fn damage_is_told<T>(
        &mut self,
        problem: LogProblem,
        read: impl FnOnce(&Self) -> Result<T, LogError>,
    ) -> Result<Option<T>, LogError> {
        match read(self) {
            Err(LogError::Damaged {
                segment,
                offset,
                why,
            }) => {
                self.say(problem, &segment, format_args!("byte {offset}: {why}"));
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    fn segments(&mut self, log_id: u64, meta: Meta, seqs: &[u64]) -> Result<(), LogError> {
        let (old, live): (Vec<u64>, Vec<u64>) = seqs.iter().partition(|&&s| s < meta.base_seq);
        for seq in old {
            self.say(LogProblem::Leftover, &file_name(seq), "a purged segment");
        }
        if live.is_empty() && meta.awaits_base {
            return Ok(());
        }
        let last_seq = live.last().copied().unwrap_or(meta.base_seq);
        let mut next = meta.base_seq;
        let mut expected = None;
        for &seq in &live {
            if seq != next {
                let text = format_args!("missing before {}", file_name(seq));
                self.say(LogProblem::SegmentMissing, &file_name(next), text);
            }
            next = seq + 1;
            expected = self.segment(log_id, meta, seq, expected, seq == last_seq)?;
        }
        if live.is_empty() {
            self.say(LogProblem::SegmentMissing, &file_name(next), "missing");
        } else if expected.is_some_and(|next| next <= meta.durable) {
            let last = self.log.last;
            let text = format_args!(
                "the last record is {last}, those up to {} had been durable",
                meta.durable
            );
            self.say(LogProblem::EndsEarly, &file_name(last_seq), text);
        }
        Ok(())
    }

    /// Checks one segment; the index after its last record, if it could be read.
    fn segment(
        &mut self,
        log_id: u64,
        meta: Meta,
        seq: u64,
        expected: Option<u64>,
        is_last: bool,
    ) -> Result<Option<u64>, LogError> {
        let opened = self.damage_is_told(LogProblem::SegmentDamaged, |check| {
            Segment::open(check.disk, check.dir, log_id, seq, expected)
        })?;
        let Some((segment, ending)) = opened else {
            return Ok(None);
        };
        self.log.segments += 1;
        if seq == meta.base_seq && segment.first() > meta.purged + 1 {
            let (first, purged) = (segment.first(), meta.purged);
            let text = format_args!("begins with record {first}, purged are those up to {purged}");
            self.say(LogProblem::BeginsLate, &file_name(seq), text);
        }
        if let Ending::Torn(why) = ending {
            let problem = if is_last {
                LogProblem::TornEnd
            } else {
                LogProblem::TornInside
            };
            let text = format!("byte {}: {why}", segment.end);
            self.say(problem, &file_name(seq), text);
        }
        self.records(&segment, meta.purged)?;
        Ok(Some(segment.next()))
    }

    fn records(&mut self, segment: &Segment, purged: u64) -> Result<(), LogError> {
        let mut from = segment.first().max(purged + 1);
        while from < segment.next() {
            let begin = segment.offset_of(from);
            let mut to = from + 1;
            while to < segment.next() && segment.offset_of(to + 1) - begin <= READ_BYTES {
                to += 1;
            }
            let extent = segment.extent(from..to);
            let read = self.damage_is_told(LogProblem::SegmentDamaged, |_| extent.read())?;
            for record in read.unwrap_or_default() {
                self.log.records += 1;
                self.log.bytes += record.payload_len() as u64;
                self.log.last = record.index;
                (self.visit)(record);
            }
            from = to;
        }
        Ok(())
    }
}
