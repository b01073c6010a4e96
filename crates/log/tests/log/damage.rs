//! Files that were altered: what a crash may leave is repaired, anything else is refused.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use haven_disk::{Disk, RealDisk};
use haven_log::{Log, LogError, LogOptions, Record, Slot, accept_early_end};
use tempfile::TempDir;

use crate::common::{DIR, append, open, read_all, record, scratch, small};

/// Where the first record of a segment is, and what a record has beside its payload.
const FIRST_AT: usize = 4096;
const HEADER: usize = 40;
const PAGE: usize = 4096;

/// The log's files as a crash at this moment would leave them.
pub type Files = Vec<(String, Vec<u8>)>;

pub fn copy_of(dir: &Path) -> Files {
    let mut files: Files = std::fs::read_dir(dir.join(DIR))
        .expect("list")
        .map(|entry| {
            let path = entry.expect("entry").path();
            let name = path
                .file_name()
                .expect("name")
                .to_string_lossy()
                .into_owned();
            (name, std::fs::read(path).expect("read"))
        })
        .collect();
    files.sort();
    files
}

/// Opens a log of these files. A check of them before must have come to the same verdict.
fn try_open(files: &Files) -> (TempDir, Result<Log, LogError>) {
    let dir = scratch();
    let path: PathBuf = dir.path().join(DIR);
    std::fs::create_dir(&path).expect("mkdir");
    for (name, bytes) in files {
        write_with_holes(&path.join(name), bytes);
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).expect("open the disk"));
    // No zeros ahead: they would hide what must not be there.
    let options = LogOptions {
        zero_ahead_bytes: 0,
        ..small()
    };
    let checked = crate::check::run(&*disk);
    assert_eq!(
        &copy_of(dir.path()),
        &sorted(files),
        "the check changed something"
    );
    let opened = open(&disk, options);
    match &opened {
        Ok(log) => {
            let (damage, records) = checked.expect("a log that opens can be checked");
            assert_eq!(damage, [], "in a log that opens");
            assert_eq!(records, read_all(log));
        }
        Err(LogError::Version { .. }) => assert!(checked.is_err(), "another version"),
        Err(_) => assert_ne!(
            checked.expect("can be checked").0,
            [],
            "in a log that is refused"
        ),
    }
    (dir, opened)
}

/// Pages of zeros become holes, as space that is reserved and not written.
fn write_with_holes(path: &Path, bytes: &[u8]) {
    let file = std::fs::File::create(path).expect("create");
    file.set_len(bytes.len() as u64).expect("set the length");
    for (page, part) in bytes.chunks(PAGE).enumerate() {
        if part.iter().any(|&b| b != 0) {
            let at = (page * PAGE) as u64;
            file.write_all_at(part, at).expect("write");
        }
    }
}

fn sorted(files: &Files) -> Files {
    let mut files = files.clone();
    files.sort();
    files
}

fn opened(files: &Files) -> Vec<Record> {
    let (_dir, log) = try_open(files);
    read_all(&log.expect("open"))
}

fn damaged(files: &Files, what: &str) -> (String, u64) {
    match try_open(files).1 {
        Err(LogError::Damaged {
            segment, offset, ..
        }) => (segment, offset),
        Err(other) => panic!("{what}: {other}"),
        Ok(log) => panic!("{what}: opened with {:?}", log.last_index()),
    }
}

/// `n` records of `len` bytes (a multiple of 8 with the head), each flushed by itself; the files
/// before the log is closed and after.
pub fn sample(n: u64, len: usize) -> (Vec<Record>, Files, Files) {
    let dir = scratch();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).expect("open the disk"));
    let log = open(&disk, small()).expect("open");
    let records: Vec<Record> = (1..=n)
        .map(|i| Record {
            head: vec![0xAB; 16].into(),
            ..record(i, len, 0)
        })
        .collect();
    for r in &records {
        append(&log, vec![r.clone()]).expect("append");
    }
    let crashed = copy_of(dir.path());
    drop(log);
    (records, crashed, copy_of(dir.path()))
}

pub fn segment(files: &mut Files, position: usize) -> &mut Vec<u8> {
    &mut files[position].1 // segments are named by number and sort before SLOTS
}

#[test]
fn a_torn_last_record_is_cut_at_whichever_byte_it_is_torn() {
    let (records, files, _) = sample(3, 48);
    let stored = HEADER + 16 + 48;
    let begin = FIRST_AT + 2 * stored;
    for at in begin..begin + stored {
        let mut cut = files.clone();
        segment(&mut cut, 0).truncate(at);
        assert_eq!(opened(&cut), records[..2], "file ends at {at}");
        let mut zeroed = files.clone();
        segment(&mut zeroed, 0)[at..].fill(0);
        assert_eq!(opened(&zeroed), records[..2], "zeros from {at}");
        let mut garbage = files.clone();
        segment(&mut garbage, 0)[at] ^= 0x10;
        assert_eq!(opened(&garbage), records[..2], "garbage at {at}");
    }
    assert_eq!(opened(&files), records);
}

#[test]
fn what_was_cut_stays_away_when_the_log_goes_on() {
    let dir = scratch();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).expect("open the disk"));
    let log = open(&disk, small()).expect("open");
    let head = vec![0xAB; 16];
    let make = |i, salt| Record {
        head: head.clone().into(),
        ..record(i, 48, salt)
    };
    append(&log, vec![make(1, 0)]).expect("append");
    append(&log, vec![make(2, 0), make(3, 0)]).expect("append");
    // Of the last group, as an unfinished one, the first record is torn and the second whole.
    let mut files = copy_of(dir.path());
    segment(&mut files, 0)[FIRST_AT + HEADER + 16 + 48] ^= 1;
    let (dir, log) = try_open(&files);
    let log = log.expect("open");
    assert_eq!(read_all(&log), [make(1, 0)]);
    // It fits exactly before the record that was whole.
    append(&log, vec![make(2, 1)]).expect("append");
    assert_eq!(opened(&copy_of(dir.path())), [make(1, 0), make(2, 1)]);
}

#[test]
fn a_changed_bit_in_the_middle_is_refused_and_named() {
    let (_, files, _) = sample(4, 48);
    let stored = HEADER + 16 + 48;
    for at in FIRST_AT..FIRST_AT + 3 * stored {
        let mut flipped = files.clone();
        segment(&mut flipped, 0)[at] ^= 1;
        let (name, offset) = damaged(&flipped, &format!("bit at {at}"));
        assert_eq!(name, flipped[0].0);
        let record_at = at - (at - FIRST_AT) % stored;
        assert_eq!(offset, record_at as u64);
    }
}

/// Pages that never reached the disk, before others that did.
#[test]
fn records_behind_a_hole_prove_what_is_missing() {
    let (_, files, _) = sample(150, 48);
    let stored = HEADER + 16 + 48;
    for pages in [1..2, 1..3, 2..3] {
        let mut holed = files.clone();
        segment(&mut holed, 0)[pages.start * PAGE..pages.end * PAGE].fill(0);
        let first_gone = (pages.start * PAGE - FIRST_AT) / stored;
        let (name, offset) = damaged(&holed, &format!("a hole at {pages:?}"));
        let first_gone = (FIRST_AT + first_gone * stored) as u64;
        assert_eq!((name, offset), (files[0].0.clone(), first_gone));
    }
}

#[test]
fn a_changed_bit_in_the_last_record_is_refused_after_a_clean_end() {
    let (_, _, mut files) = sample(4, 48);
    let stored = HEADER + 16 + 48;
    segment(&mut files, 0)[FIRST_AT + 3 * stored + HEADER] ^= 1;
    damaged(&files, "the last record");
}

#[test]
fn an_operator_may_give_up_what_is_missing_at_the_end_and_nothing_else() {
    let accept = |dir: &TempDir| {
        let disk = RealDisk::open(dir.path()).expect("open the disk");
        accept_early_end(&disk, Path::new(DIR))
    };
    let (records, _, mut files) = sample(4, 48);
    let (dir, opened) = try_open(&files);
    drop(opened.expect("whole"));
    assert_eq!(accept(&dir).expect("whole"), None);
    let stored = HEADER + 16 + 48;
    segment(&mut files, 0)[FIRST_AT + 3 * stored + HEADER] ^= 1;
    let (dir, opened) = try_open(&files);
    assert!(opened.is_err(), "the end is missing");
    assert_eq!(accept(&dir).expect("given up"), Some((4, 3)));
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).expect("open the disk"));
    let log = open(&disk, small()).expect("opens with what is left");
    assert_eq!(read_all(&log), records[..3]);
    // Not what is damaged in the middle.
    segment(&mut files, 0)[FIRST_AT + stored + HEADER] ^= 1;
    let (dir, opened) = try_open(&files);
    assert!(opened.is_err(), "damaged");
    accept(&dir).expect_err("damaged");
}

#[test]
fn a_missing_or_shortened_segment_is_refused() {
    let (records, crashed, closed) = sample(40, 1488);
    assert_eq!(opened(&crashed), records);
    let segments = crashed.len() - 1;
    assert!(segments >= 4, "{segments}");
    for gone in 0..segments - 1 {
        let mut files = crashed.clone();
        let (name, _) = files.remove(gone);
        assert_eq!(damaged(&files, "missing").0, name);

        let mut files = crashed.clone();
        let len = segment(&mut files, gone).len();
        segment(&mut files, gone).truncate(len - 8);
        damaged(&files, "shortened");
    }
    let mut files = closed.clone();
    files.remove(segments - 1);
    damaged(&files, "the last one missing after a clean end");
    let only_slots = vec![closed[segments].clone()];
    damaged(&only_slots, "all missing");
    damaged(&closed[..segments].to_vec(), "the slots missing");
}

#[test]
fn a_segment_of_another_log_or_place_is_refused() {
    let (_, files, _) = sample(40, 1488);
    let (_, other, _) = sample(40, 1488);
    let mut mixed = files.clone();
    mixed[1].1 = other[1].1.clone();
    damaged(&mixed, "another log's");
    let mut swapped = files.clone();
    swapped[1].1 = files[2].1.clone();
    damaged(&swapped, "another place");
}

#[test]
fn a_damaged_header_is_refused() {
    let (_, files, _) = sample(2, 48);
    for at in (0..8).chain(12..52) {
        let mut flipped = files.clone();
        segment(&mut flipped, 0)[at] ^= 4;
        assert_eq!(damaged(&flipped, &format!("byte {at}")).1, 0);
    }
}

#[test]
fn another_format_version_is_refused_by_number() {
    let (_, files, _) = sample(2, 48);
    for position in 0..2 {
        let mut newer = files.clone();
        newer[position].1[8] = 2;
        let error = try_open(&newer).1.err().expect("refused");
        let LogError::Version { file, found, known } = &error else {
            panic!("{error}");
        };
        assert_eq!((file, *found, *known), (&newer[position].0, 2, 1));
        assert!(error.to_string().contains("version 2"), "{error}");
    }
}

#[test]
fn old_bytes_of_the_same_place_are_not_records() {
    // As after a lost truncation of the file system: an older segment file's bytes show up behind
    // the end of a new file, in the place where they once were.
    let (_, old, _) = sample(4, 48);
    let (records, mut files, _) = sample(2, 48);
    let from = FIRST_AT + 2 * (HEADER + 16 + 48);
    let stale = old[0].1[from..].to_vec();
    segment(&mut files, 0).truncate(from);
    segment(&mut files, 0).extend(stale);
    assert_eq!(opened(&files), records);
}

#[test]
fn a_leftover_of_an_unfinished_creation_is_removed() {
    let (records, mut files, _) = sample(2, 48);
    files.push(("0000000000000002.seg.new".into(), b"garbage".to_vec()));
    files.push(("SLOTS.new".into(), vec![]));
    let (dir, log) = try_open(&files);
    assert_eq!(read_all(&log.expect("open")), records);
    assert_eq!(copy_of(dir.path()).len(), 2);
}

#[test]
fn a_torn_slot_gives_the_value_before_and_two_torn_copies_are_refused() {
    let dir = scratch();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).expect("open the disk"));
    let log = open(&disk, small()).expect("open");
    for value in [b"one", b"two", b"six"] {
        log.save_slot(Slot::Vote, value, true).expect("save");
    }
    let files = copy_of(dir.path());
    let slots = files.len() - 1;
    let value = |files: &Files| {
        let log = try_open(files).1.expect("open");
        log.read_slot(Slot::Vote).expect("read")
    };
    assert_eq!(value(&files).as_deref(), Some(&b"six"[..]));
    let copy_at = |copy: usize| (1 + 2 + copy) * PAGE; // after the header and the log's own slot
    let find = |text: &[u8]| {
        let holds = |&copy: &usize| files[slots].1[copy_at(copy) + 32..].starts_with(text);
        copy_at((0..2).find(holds).expect("one of the copies"))
    };
    let (newest, older) = (find(b"six"), find(b"two"));
    for at in 0..35 {
        let mut torn = files.clone();
        torn[slots].1[newest + at] ^= 1;
        assert_eq!(value(&torn).as_deref(), Some(&b"two"[..]), "byte {at}");
        torn[slots].1[older + at] ^= 1;
        assert_eq!(damaged(&torn, "both copies").0, "SLOTS");
    }
    let mut torn = files.clone();
    torn[slots].1[newest] ^= 1;
    let (_dir, log) = try_open(&torn);
    let log = log.expect("open");
    log.save_slot(Slot::Vote, b"ten", true).expect("save");
    assert_eq!(
        log.read_slot(Slot::Vote).expect("read").as_deref(),
        Some(&b"ten"[..])
    );
}
