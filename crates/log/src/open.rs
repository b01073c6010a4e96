//! Opening: from the files of a directory to the segments of a log, or a refusal.
//!
//! What is found is what an earlier process wrote; its flush may have failed. So whatever nothing later proves durable is
//! written once more before it counts (`FORMAT.md`, "What an opening writes anew").
//!
//! Invariant: nothing is removed because of what a file says before that file is durable.

use std::path::Path;

use haven_disk::{Disk, renew};

use crate::format::SegmentHeader;
use crate::segment::{Ending, Segment, file_name, is_spare, path_of, seq_of};
use crate::slots::{Meta, SLOTS_NAME, Slots};
use crate::{LogError, LogOptions};

/// The index of the first record of a log that holds none yet.
const FIRST_INDEX: u64 = 1;
/// The number of the first segment.
const FIRST_SEQ: u64 = 1;

/// What was found (or made).
pub(crate) struct Opened {
    pub(crate) slots: Slots,
    pub(crate) meta: Meta,
    /// At least one.
    pub(crate) segments: Vec<Segment>,
    /// Names of files to make segments of.
    pub(crate) spares: Vec<String>,
}

pub(crate) fn open(disk: &dyn Disk, dir: &Path, options: &LogOptions) -> Result<Opened, LogError> {
    renew::dir(disk, dir).map_err(LogError::io("make the log's directory"))?;
    let (seqs, spares) = segment_files(disk, dir, options.spare_segments)?;
    let mut slots = match Slots::open(disk, dir)? {
        Some(slots) => slots.renewed(disk, dir)?,
        None if seqs.is_empty() => {
            let meta = Meta {
                purged: FIRST_INDEX - 1,
                durable: FIRST_INDEX - 1,
                base_seq: FIRST_SEQ,
                awaits_base: true,
                cutting: false,
            };
            Slots::create(disk, dir, random()?, meta)?
        }
        None => {
            let why = "it is missing, but there are segments";
            return Err(LogError::damaged(SLOTS_NAME, 0, why));
        }
    };
    let meta = slots.meta()?;
    let (old, live): (Vec<u64>, Vec<u64>) = seqs.iter().partition(|&&s| s < meta.base_seq);
    remove(disk, dir, &old)?;
    let segments = if live.is_empty() && meta.awaits_base {
        vec![base(disk, dir, slots.log_id(), meta, options)?]
    } else {
        let mut segments = open_segments(disk, dir, slots.log_id(), meta, &live)?;
        if let Some(last) = segments.last_mut() {
            settle_end(last, &mut slots, options)?;
        }
        segments
    };
    let meta = Meta {
        durable: segments.last().map_or(meta.purged, |s| s.next() - 1),
        awaits_base: false,
        cutting: false,
        ..meta
    };
    if slots.meta()? != meta {
        slots.save_meta(meta)?;
    }
    Ok(Opened {
        slots,
        meta,
        segments,
        spares,
    })
}

/// Gives up the records that had been durable and are missing at the end of the log in `dir`, so that it can be opened:
/// the last one that there had been and the last that is left; `None` when none is missing. Nothing else that is damaged is
/// given up. For an operator who has no other copy.
///
/// # Errors
/// As [`Log::open`](crate::Log::open).
pub fn accept_early_end(disk: &dyn Disk, dir: &Path) -> Result<Option<(u64, u64)>, LogError> {
    let (seqs, _) = segment_files(disk, dir, usize::MAX)?;
    let slots = Slots::open(disk, dir)?;
    let slots = slots.ok_or_else(|| LogError::damaged(SLOTS_NAME, 0, "it is missing"))?;
    let mut slots = slots.renewed(disk, dir)?;
    let meta = slots.meta()?;
    let live: Vec<u64> = seqs.into_iter().filter(|&s| s >= meta.base_seq).collect();
    if live.is_empty() && meta.awaits_base {
        return Ok(None);
    }
    let segments = open_segments(disk, dir, slots.log_id(), meta, &live)?;
    let last = segments.last().map_or(meta.purged, |s| s.next() - 1);
    if last >= meta.durable {
        return Ok(None);
    }
    slots.save_meta(Meta {
        durable: last,
        ..meta
    })?;
    Ok(Some((meta.durable, last)))
}

/// Makes the segment that a new or emptied log begins with.
pub(crate) fn base(
    disk: &dyn Disk,
    dir: &Path,
    log_id: u64,
    meta: Meta,
    options: &LogOptions,
) -> Result<Segment, LogError> {
    let header = SegmentHeader {
        log_id,
        seq: meta.base_seq,
        first: meta.purged + 1,
        nonce: random()?,
        recycled: false,
    };
    Segment::create(disk, dir, header, None, options.segment_bytes)
}

/// Removes segment files, ascending, durably.
pub(crate) fn remove(disk: &dyn Disk, dir: &Path, seqs: &[u64]) -> Result<(), LogError> {
    if seqs.is_empty() {
        return Ok(());
    }
    for &seq in seqs {
        disk.remove_file(&path_of(dir, seq))
            .map_err(LogError::io(format!("remove segment {}", file_name(seq))))?;
    }
    disk.sync_dir(dir)
        .map_err(LogError::io("flush the log's directory"))
}

/// A number that no other file has.
pub(crate) fn random() -> Result<u64, LogError> {
    getrandom::u64()
        .map_err(|e| LogError::io("get a random number")(std::io::Error::other(e.to_string())))
}

/// The segment numbers in the directory, ascending, and the spare files; leftovers of unfinished creations and spares
/// beyond `spares_max` are removed.
fn segment_files(
    disk: &dyn Disk,
    dir: &Path,
    spares_max: usize,
) -> Result<(Vec<u64>, Vec<String>), LogError> {
    let names = disk
        .list(dir)
        .map_err(LogError::io("list the log's directory"))?;
    let (mut seqs, mut spares) = (Vec::new(), Vec::new());
    for name in names {
        if let Some(seq) = seq_of(&name) {
            seqs.push(seq);
        } else if is_spare(&name) && spares.len() < spares_max {
            spares.push(name);
        } else if is_spare(&name) || name.ends_with(".new") {
            disk.remove_file(&dir.join(&name))
                .map_err(LogError::io(format!("remove the leftover {name}")))?;
        } else if name != SLOTS_NAME {
            tracing::warn!(name, "a file in the log's directory is not the log's");
        }
    }
    seqs.sort_unstable();
    Ok((seqs, spares))
}

/// The segments. What one lost at its end shows at the next one; the last one is judged by [`settle_end`].
fn open_segments(
    disk: &dyn Disk,
    dir: &Path,
    log_id: u64,
    meta: Meta,
    seqs: &[u64],
) -> Result<Vec<Segment>, LogError> {
    let mut segments: Vec<Segment> = Vec::with_capacity(seqs.len());
    let count = seqs.len().max(1) as u64;
    for (seq, position) in (meta.base_seq..).zip(0..count) {
        if seqs.get(position as usize) != Some(&seq) {
            return Err(LogError::damaged(&file_name(seq), 0, "the file is missing"));
        }
        let expected = segments.last().map(Segment::next);
        let (segment, _) = Segment::open(disk, dir, log_id, seq, expected)?;
        if position == 0 && segment.first() > meta.purged + 1 {
            let why = format!(
                "it begins with record {}, but only records up to {} were purged",
                segment.first(),
                meta.purged
            );
            return Err(LogError::damaged(&segment.file.name, 0, why));
        }
        segments.push(segment);
    }
    Ok(segments)
}

/// Makes sure that the end which was found is durable, and that nothing is behind it.
fn settle_end(last: &mut Segment, slots: &mut Slots, options: &LogOptions) -> Result<(), LogError> {
    let meta = slots.meta()?;
    let ending = last.renew_end(meta.durable)?;
    if last.next() <= meta.durable {
        let why = format!(
            "the records end with {}, but those up to {} had been durable",
            last.next() - 1,
            meta.durable
        );
        return Err(LogError::damaged(&last.file.name, last.end, why));
    }
    if let Ending::Torn(why) = ending {
        tracing::warn!(
            segment = last.file.name,
            offset = last.end,
            why,
            last_index = last.next() - 1,
            "the end of the log was being written when it stopped; the unfinished part is cut off"
        );
        if !meta.cutting {
            let cutting = true;
            slots.save_meta(Meta { cutting, ..meta })?;
        }
        last.file.cut_anew(last.end)?;
    } else if meta.cutting {
        last.file.cut_anew(last.end)?;
    }
    last.file.reserve(last.end, options.segment_bytes)
}
