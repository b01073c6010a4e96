//! The files of the log: opening and reading whatever stands in them.
//!
//! An input: flags (1: put right checksums on the slots, 2: on the segment); the number of edits and the
//! edits (page, offset as `u16`, value) to a good file of slots; a segment's header; records.

use crate::Seed;
use crate::disk::MemoryDisk;
use bytes::Bytes;
use haven_log::{Log, LogOptions, Record, Slot, fuzzing};
use std::path::Path;
use std::sync::{Arc, OnceLock};

const SEAL_SLOTS: u8 = 1;
const SEAL_SEGMENT: u8 = 2;

const DIR: &str = "log";
const SLOTS: &str = "log/SLOTS";
const SEGMENT: &str = "log/0000000000000001.seg";
const LOG_ID: u64 = 7;
const PAGE_BYTES: usize = 4096;
const EDIT_BYTES: usize = 4;
/// What a segment's header takes of its page, with its checksum.
const HEADER_BYTES: usize = 52;
const NONCE: std::ops::Range<usize> = 40..48;

const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 16 << 10,
    tail_cache_bytes: 1 << 10,
    queue_bytes_max: 1 << 20,
    queue_records_max: 64,
    zero_ahead_bytes: 0,
    spare_segments: 0,
};

/// The files of a log with three records.
struct Files {
    slots: Vec<u8>,
    segment: Vec<u8>,
}

fn open(disk: &Arc<MemoryDisk>) -> Option<Log> {
    Log::open(Arc::clone(disk) as _, Path::new(DIR), OPTIONS).ok()
}

/// Made once. Ids are random in a new log and fixed here, so that inputs mean the same everywhere.
fn good_files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = Arc::new(MemoryDisk::default());
        if let Some(log) = open(&disk) {
            let record = |index, body: &'static [u8]| Record {
                index,
                head: Bytes::from_static(b"head"),
                body: Bytes::from_static(body),
            };
            let records = vec![
                record(1, b""),
                record(2, b"body"),
                record(3, b"a longer body"),
            ];
            log.append(records, Box::new(|_| ()));
            let saved = log.save_slot(Slot::Vote, b"vote", true);
            assert!(saved.is_ok(), "{saved:?}");
            // Dropping the log flushes it.
        }
        let (mut slots, mut segment) = (disk.contents(SLOTS), disk.contents(SEGMENT));
        fuzzing::seal_slots(LOG_ID, &mut slots);
        segment[NONCE].copy_from_slice(&[5; 8]);
        fuzzing::seal_segment(LOG_ID, &mut segment);
        let end = segment.iter().rposition(|&byte| byte != 0).unwrap_or(0);
        segment.truncate((end + 1).next_multiple_of(8));
        Files { slots, segment }
    })
}

/// The files that an input describes.
fn files(input: &[u8]) -> Option<Files> {
    let (&[flags, edits], rest) = input.split_first_chunk::<2>()?;
    let (edits, rest) = rest.split_at_checked(usize::from(edits) * EDIT_BYTES)?;
    let (header, records) = rest.split_at_checked(HEADER_BYTES)?;
    let mut slots = good_files().slots.clone();
    for edit in edits.chunks_exact(EDIT_BYTES) {
        let at =
            usize::from(edit[0]) * PAGE_BYTES + usize::from(u16::from_le_bytes([edit[1], edit[2]]));
        if let Some(byte) = slots.get_mut(at) {
            *byte = edit[3];
        }
    }
    let mut segment = header.to_vec();
    segment.resize(PAGE_BYTES, 0);
    segment.extend_from_slice(records);
    if flags & SEAL_SLOTS != 0 {
        fuzzing::seal_slots(LOG_ID, &mut slots);
    }
    if flags & SEAL_SEGMENT != 0 {
        fuzzing::seal_segment(LOG_ID, &mut segment);
    }
    Some(Files { slots, segment })
}

/// A log that opens reads as a whole, and opens again with the same records.
pub(crate) fn log_files(input: &[u8]) {
    let Some(files) = files(input) else {
        return;
    };
    let disk = Arc::new(MemoryDisk::default());
    disk.put(SLOTS, &files.slots);
    disk.put(SEGMENT, &files.segment);
    let Some(first) = open(&disk).map(|log| records(&log)) else {
        return;
    };
    let again = open(&disk).map(|log| records(&log));
    assert_eq!(again, Some(first), "opening changed the log");
}

fn records(log: &Log) -> Vec<Record> {
    let (Some(first), Some(last)) = (log.first_index(), log.last_index()) else {
        return Vec::new();
    };
    let mut records = Vec::new();
    let mut next = first;
    while next <= last {
        let read = match log.read(next..last + 1, 1 << 20) {
            Ok(read) => read,
            Err(error) => panic!("record {next} of {first} to {last} was there at open: {error}"),
        };
        assert_eq!(read.first().map(|record| record.index), Some(next));
        next += read.len() as u64;
        records.extend(read);
    }
    records
}

pub(crate) fn log_files_seeds() -> Vec<Seed> {
    let segment = &good_files().segment;
    let (header, records) = (&segment[..HEADER_BYTES], &segment[PAGE_BYTES..]);
    let input = |flags, edits: &[[u8; EDIT_BYTES]], records: &[u8]| {
        let edited = edits.concat();
        [&[flags, edits.len() as u8][..], &edited, header, records].concat()
    };
    // Nothing is known to be durable: a log that ends earlier is taken too.
    let forgetful = [[1, 48, 0, 0], [2, 48, 0, 0]];
    let both = SEAL_SLOTS | SEAL_SEGMENT;
    vec![
        Seed::new("as-written", input(0, &[], records)),
        Seed::new("sealed", input(both, &[], records)),
        Seed::new("empty", input(both, &forgetful, &[])),
        Seed::new(
            "torn",
            input(both, &forgetful, &records[..records.len() - 9]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_get_through_the_checksums() {
        for (seed, expected) in log_files_seeds().iter().zip([3, 3, 0, 2]) {
            let files = files(&seed.bytes).unwrap();
            let disk = Arc::new(MemoryDisk::default());
            disk.put(SLOTS, &files.slots);
            disk.put(SEGMENT, &files.segment);
            let log = Log::open(Arc::clone(&disk) as _, Path::new(DIR), OPTIONS);
            let log = log.unwrap_or_else(|error| panic!("{}: {error}", seed.name));
            assert_eq!(records(&log).len(), expected, "{}", seed.name);
        }
    }
}
