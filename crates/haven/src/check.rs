//! `haven check`: is what lies in a data directory what a node may have left there?
//!
//! It opens the directory for reading only, lets store, log and machine check their own files, and
//! checks here what only holds between them: that the log goes on where the checkpoint ends.
//!
//! It must not know how any of them keeps its files.

use crate::cluster;
use crate::engine::STORE_DIR;
use crate::serve::LOG_DIR;
use haven_consensus::check::{self as places, Place};
use haven_disk::{Disk, ReadOnlyDisk};
use haven_fs::FsResult;
use haven_log::{CheckedLog, Record};
use haven_nfsd::{CheckedSystem, Surroundings, check_entry, check_system};
use haven_store::Checked;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Most findings, and most notes, that are told; more are counted.
pub const LINES_MAX: usize = 100;

const ADVICE_NONE: &str = "nothing to do";
const ADVICE_DAMAGE: &str = "keep a copy of the data directory; in a cluster of three or more a node sets a damaged log aside by itself and \
     fetches what it lost from the others, else restore a backup";

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Which part of the node: store, log, machine or node.
    pub part: &'static str,
    /// Which kind of problem.
    pub code: &'static str,
    /// Which file or row, and what stands there.
    pub place: String,
    /// What it means.
    pub meaning: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            part,
            code,
            place,
            meaning,
            advice,
        } = self;
        write!(f, "{part}: {code}: {place}: {meaning}; {advice}")
    }
}

/// Lines up to a bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Lines {
    /// The first [`LINES_MAX`].
    pub lines: Vec<Line>,
    /// How many more there are.
    pub more: u64,
}

impl Lines {
    fn push(&mut self, line: Line) {
        if self.lines.len() < LINES_MAX {
            self.lines.push(line);
        } else {
            self.more += 1;
        }
    }

    /// How many there are, those not told included.
    pub fn count(&self) -> u64 {
        self.lines.len() as u64 + self.more
    }

    fn show(&self, f: &mut fmt::Formatter<'_>, what: &str) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{what}: {line}")?;
        }
        match self.more {
            0 => Ok(()),
            more => writeln!(f, "{what}: and {more} more"),
        }
    }
}

/// What was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The store's valid generation.
    pub generation: Option<u64>,
    /// Inodes by kind.
    pub inodes: BTreeMap<&'static str, u64>,
    /// Directory entries.
    pub entries: u64,
    /// Files whose contents are in the rows.
    pub inline_files: u64,
    /// Data files.
    pub data_files: u64,
    /// Their lengths together.
    pub data_bytes: u64,
    /// Exports that were ever made.
    pub exports: u64,
    /// Rows of the table of mounts.
    pub mounts: u64,
    /// Cached replies.
    pub replies: u64,
    /// Where the checkpoint stands: log record and term.
    pub checkpoint: Option<(u64, u64)>,
    /// Segments of the log.
    pub log_segments: u64,
    /// Records of the log that were read.
    pub log_records: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// Records up to here are purged.
    pub log_purged: u64,
    /// The last record.
    pub log_last: u64,
    /// Term of the vote.
    pub vote_term: Option<u64>,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The directory.
    pub data: PathBuf,
    /// Whether there are no findings.
    pub clean: bool,
    /// What is wrong.
    pub findings: Lines,
    /// What a crash or an interrupted step may leave, and the next start settles.
    pub notes: Lines,
    /// What was looked at.
    pub summary: Summary,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sums = &self.summary;
        self.findings.show(f, "finding")?;
        self.notes.show(f, "note")?;
        let (data, findings, notes) = (self.data.display(), &self.findings, &self.notes);
        let (findings, notes) = (findings.count(), notes.count());
        writeln!(f, "{data}: {findings} findings, {notes} notes")?;
        let inodes: Vec<String> = sums
            .inodes
            .iter()
            .map(|(k, n)| format!("{n} {k}"))
            .collect();
        writeln!(
            f,
            "store: {}; {} directory entries; {} files in rows, {} data files of {} bytes",
            inodes.join(", "),
            sums.entries,
            sums.inline_files,
            sums.data_files,
            sums.data_bytes
        )?;
        writeln!(
            f,
            "machine: {} exports, {} mounts, {} cached replies",
            sums.exports, sums.mounts, sums.replies
        )?;
        let checkpoint = sums.checkpoint.map_or("none yet".into(), |(record, term)| {
            format!("record {record} of term {term}")
        });
        writeln!(
            f,
            "log: {} segments with {} records of {} bytes, {} to {}; checkpoint: {checkpoint}; vote: term {}",
            sums.log_segments,
            sums.log_records,
            sums.log_bytes,
            sums.log_purged + 1,
            sums.log_last,
            sums.vote_term.unwrap_or(0)
        )?;
        f.write_str(
            "verified: checksums of metadata and log, every row and record, names, files in rows and data files \
             against inodes, the log against the checkpoint; not verified: contents of data files, which carry \
             no checksum\n",
        )
    }
}

/// Kinds of findings between the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Problem {
    PositionDamaged,
    SlotDamaged,
    VoteMissing,
    VoteBehind,
    PurgeBehind,
    CommittedBeyond,
    CommittedAhead,
    EntriesMissing,
    EntryDamaged,
    TermFalls,
    OtherHistory,
    TableUnreadable,
    LogBehind,
}

impl Problem {
    const fn is_note(self) -> bool {
        matches!(self, Self::LogBehind | Self::CommittedAhead)
    }

    /// Name and meaning.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::PositionDamaged => (
                "position-damaged",
                "nobody knows up to which entry the checkpoint goes: replaying would lose or repeat changes",
            ),
            Self::SlotDamaged => (
                "slot-damaged",
                "a value beside the log cannot be read: the node does not start",
            ),
            Self::VoteMissing => (
                "vote-missing",
                "there are entries, but no vote: the node might vote twice in one term",
            ),
            Self::VoteBehind => (
                "vote-behind",
                "the vote is older than the entries: the node might vote twice in one term",
            ),
            Self::PurgeBehind => (
                "purge-point-behind",
                "entries are gone that the purge point does not cover: the node does not start",
            ),
            Self::CommittedBeyond => (
                "committed-beyond-end",
                "entries that were known to be committed are missing: acknowledged changes may be lost",
            ),
            Self::CommittedAhead => (
                "committed-ahead",
                "others have entries that this node had heard of and not written when it ended; it fetches them, and helps \
                 nobody to lead who lacks them",
            ),
            Self::EntriesMissing => (
                "entries-missing",
                "the log begins after the entry that follows the checkpoint: changes in between are lost",
            ),
            Self::EntryDamaged => (
                "entry-damaged",
                "an entry cannot be executed: the node stops at it",
            ),
            Self::TermFalls => (
                "term-falls",
                "an entry is of an earlier term than the one before it",
            ),
            Self::OtherHistory => (
                "other-history",
                "the checkpoint and the log were not written by the same history",
            ),
            Self::TableUnreadable => (
                "system-table-unreadable",
                "identity, exports and cached replies cannot be read",
            ),
            Self::LogBehind => (
                "log-behind",
                "the log ends before the checkpoint, as after a snapshot was received; it goes on behind it",
            ),
        }
    }
}

/// Checks the data directory of a node that does not run.
///
/// # Errors
/// Why nothing can be said: a node runs on it, it is none of Haven's, its format is unknown, or the disk
/// refuses; in words.
pub fn run(data: &Path) -> Result<Report, String> {
    let disk = ReadOnlyDisk::open(data).map_err(|e| e.to_string())?;
    let part = |dir: &str| disk.exists(Path::new(dir)).map_err(|e| e.to_string());
    if !part(STORE_DIR)? && !part(LOG_DIR)? {
        return Err(format!(
            "{} holds neither {STORE_DIR} nor {LOG_DIR}: give the data directory of a node",
            data.display()
        ));
    }
    let mut check = Check {
        voters: cluster::noted_voters(data).unwrap_or(1),
        ..Check::default()
    };
    let store = check.store(&disk)?;
    check.machine(&store);
    let log = check.log(&disk)?;
    check.between(&log);
    Ok(Report {
        data: data.to_owned(),
        clean: check.findings.count() == 0,
        findings: check.findings,
        notes: check.notes,
        summary: check.summary,
    })
}

#[derive(Default)]
struct Check {
    findings: Lines,
    notes: Lines,
    summary: Summary,
    /// How many nodes voted when this one looked last.
    voters: usize,
    /// Whether the store could say where its checkpoint stands.
    knows_position: bool,
    position: Option<Place>,
    last: Option<Place>,
}

impl Check {
    fn push(&mut self, is_note: bool, line: Line) {
        let lines = if is_note {
            &mut self.notes
        } else {
            &mut self.findings
        };
        lines.push(line);
    }

    fn say(&mut self, problem: Problem, place: String) {
        let (code, meaning) = problem.words();
        let line = Line {
            part: "node",
            code,
            place,
            meaning,
            advice: advice(problem.is_note()),
        };
        self.push(problem.is_note(), line);
    }

    fn store(&mut self, disk: &dyn Disk) -> Result<Checked, String> {
        let mut found = |finding: haven_store::Finding| {
            let line = Line {
                part: "store",
                code: finding.problem.code(),
                place: finding.place,
                meaning: finding.problem.meaning(),
                advice: finding.problem.advice(),
            };
            self.push(finding.problem.is_note(), line);
        };
        let store = haven_store::check(disk, Path::new(STORE_DIR), &mut found)
            .map_err(|e| e.to_string())?;
        let sums = &mut self.summary;
        sums.generation = store.summary.generation;
        sums.inodes = store.summary.inodes.clone();
        sums.entries = store.summary.entries;
        sums.inline_files = store.summary.inline_files;
        sums.data_files = store.summary.data_files;
        sums.data_bytes = store.summary.data_bytes;
        // A store that was never made stands before the first entry.
        let not_made = store.summary.generation.is_none() && self.findings.count() == 0;
        self.knows_position = store.rows().is_some() || not_made;
        if let Some(blob) = store.position() {
            match places::read_position(blob) {
                Ok(position) => self.position = position,
                Err(why) => {
                    self.knows_position = false;
                    self.say(Problem::PositionDamaged, format!("row zposition: {why}"));
                }
            }
        }
        self.summary.checkpoint = self.position.map(|p| (p.record, p.term));
        Ok(store)
    }

    fn machine(&mut self, store: &Checked) {
        let Some(rows) = store.rows() else {
            return;
        };
        let is_directory = |ino| -> FsResult<Option<bool>> { store.is_directory(ino) };
        let around = Surroundings {
            is_directory: &is_directory,
            applied: self.position.map(Place::applied_index),
        };
        let mut found = |finding: haven_nfsd::SystemFinding| {
            let is_note = finding.problem.is_note();
            let line = Line {
                part: "machine",
                code: finding.problem.code(),
                place: finding.place,
                meaning: finding.problem.meaning(),
                advice: advice(is_note),
            };
            self.push(is_note, line);
        };
        match check_system(rows, &around, &mut found) {
            Ok(CheckedSystem {
                exports,
                mounts,
                replies,
                ..
            }) => {
                self.summary.mounts = mounts;
                self.summary.exports = exports;
                self.summary.replies = replies;
            }
            Err(why) => self.say(Problem::TableUnreadable, format!("rows s: {why}")),
        }
    }

    fn log(&mut self, disk: &dyn Disk) -> Result<CheckedLog, String> {
        // Both report while the log is read; damage of its files first.
        let mut files = Vec::new();
        let mut found = |finding: haven_log::LogFinding| {
            let is_note = finding.problem.is_note();
            let line = Line {
                part: "log",
                code: finding.problem.code(),
                place: finding.place,
                meaning: finding.problem.meaning(),
                advice: advice(is_note),
            };
            files.push((is_note, line));
        };
        let mut record = |record: Record| self.record(record);
        let log = haven_log::check(disk, Path::new(LOG_DIR), &mut found, &mut record)
            .map_err(|e| e.to_string())?;
        for (is_note, line) in files {
            self.push(is_note, line);
        }
        let sums = &mut self.summary;
        sums.log_segments = log.segments;
        sums.log_records = log.records;
        sums.log_bytes = log.bytes;
        sums.log_purged = log.purged;
        sums.log_last = log.last;
        Ok(log)
    }

    fn record(&mut self, record: Record) {
        let index = record.index;
        let read = places::read_record(index, &record.head, record.body);
        let read = match read {
            Ok(read) => read,
            Err(why) => {
                self.say(Problem::EntryDamaged, format!("log record {index}: {why}"));
                return;
            }
        };
        if let Some(Err(why)) = read.entry.as_ref().map(check_entry) {
            self.say(Problem::EntryDamaged, format!("log record {index}: {why}"));
        }
        let place = read.place;
        if let Some(before) = self.last.filter(|last| place.term < last.term) {
            let text = format!(
                "log record {index}: term {} after {}",
                place.term, before.term
            );
            self.say(Problem::TermFalls, text);
        }
        let at_position = self.position.filter(|position| position.record == index);
        if let Some(position) = at_position.filter(|position| position.term != place.term) {
            let text = format!(
                "log record {index}: term {}, the checkpoint says {}",
                place.term, position.term
            );
            self.say(Problem::OtherHistory, text);
        }
        self.last = Some(place);
    }

    /// What only holds between store, log and slots.
    fn between(&mut self, log: &CheckedLog) {
        if !log.has_slots {
            if self.position.is_some() {
                self.say(
                    Problem::VoteMissing,
                    format!("{LOG_DIR}/SLOTS: missing or unreadable"),
                );
            }
            return;
        }
        let purged = self.place_slot("purge point", log.purged_slot.as_deref());
        let committed = self.place_slot("committed position", log.committed.as_deref());
        self.vote(log);
        let purged_record = purged.map_or(0, |place| place.record);
        if purged_record < log.purged {
            let text = format!(
                "{LOG_DIR}/SLOTS: {purged_record}, the log begins after {}",
                log.purged
            );
            self.say(Problem::PurgeBehind, text);
        }
        let position = self.position.map_or(0, |place| place.record);
        let begin = purged_record.max(log.purged);
        if self.knows_position && begin > position {
            let text =
                format!("the checkpoint ends with record {position}, the log begins after {begin}");
            self.say(Problem::EntriesMissing, text);
        }
        let end = log.last.max(begin);
        if end < position {
            let text = format!("the log ends with record {end}, the checkpoint with {position}");
            self.say(Problem::LogBehind, text);
        }
        if let Some(committed) = committed.filter(|c| c.record > end.max(position)) {
            let text = format!(
                "{LOG_DIR}/SLOTS: {} committed, the log ends with {end}",
                committed.record
            );
            // One that is not the only voter may have heard of more than it had written.
            let problem = match self.voters > 1 {
                true => Problem::CommittedAhead,
                false => Problem::CommittedBeyond,
            };
            self.say(problem, text);
        }
    }

    fn vote(&mut self, log: &CheckedLog) {
        let newest = self.last.or(self.position);
        match log.vote.as_deref().map(places::read_vote_slot) {
            Some(Ok(term)) => {
                self.summary.vote_term = Some(term);
                if let Some(newest) = newest.filter(|newest| newest.term > term) {
                    let text = format!(
                        "{LOG_DIR}/SLOTS: term {term}, entries of term {}",
                        newest.term
                    );
                    self.say(Problem::VoteBehind, text);
                }
            }
            Some(Err(why)) => {
                self.say(
                    Problem::SlotDamaged,
                    format!("{LOG_DIR}/SLOTS, vote: {why}"),
                );
            }
            // The members of a new cluster are written before anybody votes: term 0.
            None if newest.is_some_and(|newest| newest.term > 0) => {
                self.say(Problem::VoteMissing, format!("{LOG_DIR}/SLOTS"));
            }
            None => {}
        }
    }

    fn place_slot(&mut self, what: &str, bytes: Option<&[u8]>) -> Option<Place> {
        match bytes.map(places::read_place_slot)? {
            Ok(place) => Some(place),
            Err(why) => {
                self.say(
                    Problem::SlotDamaged,
                    format!("{LOG_DIR}/SLOTS, {what}: {why}"),
                );
                None
            }
        }
    }
}

const fn advice(is_note: bool) -> &'static str {
    if is_note { ADVICE_NONE } else { ADVICE_DAMAGE }
}
