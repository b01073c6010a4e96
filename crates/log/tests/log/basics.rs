//! Appending, reading, truncating, purging, resetting, slots, on a disk that behaves.

use std::path::Path;
use std::sync::Arc;

use haven_disk::{Disk, RealDisk};
use haven_log::{LogError, RECORD_BYTES_MAX, Record, SLOT_BYTES_MAX, Slot};

use crate::common::{DIR, TestDisk, append, open, read_all, record, scratch, send, small};

fn real(dir: &tempfile::TempDir) -> Arc<dyn Disk> {
    Arc::new(RealDisk::open(dir.path()).expect("open the disk"))
}

#[test]
fn what_was_appended_is_read_back_also_after_reopening() {
    let dir = scratch();
    let disk = real(&dir);
    let log = open(&disk, small()).expect("open");
    assert_eq!((log.first_index(), log.last_index()), (None, None));
    // Empty, unaligned, and longer than a segment.
    let lens = [0, 1, 7, 8, 1023, 1024, 5000, 40_000, 3, 15_000, 12_288, 9];
    let records: Vec<Record> = lens
        .iter()
        .zip(1..)
        .map(|(&len, index)| record(index, len, 0))
        .collect();
    append(&log, records[..3].to_vec()).expect("append");
    append(&log, records[3..].to_vec()).expect("append");
    assert_eq!(read_all(&log), records);
    assert!(log.stats().disk_read_records > 0, "the tail cache is small");
    assert!(log.stats().cached_bytes <= small().tail_cache_bytes);
    drop(log);
    let log = open(&disk, small()).expect("reopen");
    assert_eq!((log.first_index(), log.last_index()), (Some(1), Some(12)));
    assert_eq!(read_all(&log), records);
    assert_eq!(log.read(5..8, usize::MAX).expect("read"), records[4..7]);
    assert!(log.stats().segments > 3);
}

#[test]
fn a_read_stops_at_its_bound_but_gives_at_least_one_record() {
    let dir = scratch();
    let log = open(&real(&dir), small()).expect("open");
    let records: Vec<Record> = (1..=20).map(|i| record(i, 1000, 0)).collect();
    append(&log, records.clone()).expect("append");
    for from in [1, 10, 19] {
        for (bound, most) in [(0, 1), (1, 1), (1000, 1), (2500, 2), (5000, 4)] {
            let found = log.read(from..21, bound).expect("read");
            let n = found.len();
            assert!(n >= 1 && n <= most, "{n} records from {from} below {bound}");
            assert_eq!(found, records[from as usize - 1..from as usize - 1 + n]);
        }
    }
    assert_eq!(log.read(21..30, 10).expect("read"), []);
    assert_eq!(log.read(3..3, 10).expect("read"), []);
}

#[test]
fn records_must_be_consecutive_and_of_bounded_length() {
    let dir = scratch();
    let log = open(&real(&dir), small()).expect("open");
    let refused = |records, expected, found| {
        let error = append(&log, records).expect_err("refused");
        let LogError::NotConsecutive {
            expected: e,
            found: f,
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((e, f), (expected, found));
    };
    refused(vec![record(2, 1, 0)], 1, 2);
    append(&log, vec![record(1, 1, 0)]).expect("append");
    refused(vec![record(1, 1, 0)], 2, 1);
    refused(vec![record(2, 1, 0), record(4, 1, 0)], 3, 4);
    let long = Record {
        body: vec![0; RECORD_BYTES_MAX + 1].into(),
        ..record(2, 0, 0)
    };
    let error = append(&log, vec![long]).expect_err("too long");
    assert!(matches!(error, LogError::TooLarge { .. }), "{error}");
    append(&log, vec![record(2, 1, 0)]).expect("a refusal does not end the log");
}

#[test]
fn many_appends_share_a_flush_and_are_answered_in_order() {
    let dir = scratch();
    let test = TestDisk::new(real(&dir));
    let control = Arc::clone(&test.control);
    let disk: Arc<dyn Disk> = test.disk;
    let log = open(&disk, small()).expect("open");
    control.close_gate();
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let queue = |index: u64| {
        let order = Arc::clone(&order);
        let done = move |result: Result<(), LogError>| {
            order.lock().push((index, result.is_ok()));
        };
        log.append(vec![record(index, 10, 0)], Box::new(done));
    };
    queue(1);
    control.wait_for_arrival(); // the flusher now flushes the first alone
    (2..=101).for_each(queue);
    assert_eq!(
        order.lock().len(),
        0,
        "nothing is answered before its flush"
    );
    assert_eq!(log.read(50..51, 0).expect("read"), [record(50, 10, 0)]);
    assert!(log.stats().flush_running.is_some());
    control.open_gate();
    append(&log, vec![]).expect("an empty append follows all others");
    let expected: Vec<(u64, bool)> = (1..=101).map(|i| (i, true)).collect();
    assert_eq!(*order.lock(), expected);
    let stats = log.stats();
    assert!(
        stats.flushes <= 3,
        "{} flushes for 101 appends",
        stats.flushes
    );
    assert_eq!((stats.appended_records, stats.queued_records), (101, 0));
}

#[test]
fn a_full_queue_blocks_the_caller() {
    let dir = scratch();
    let test = TestDisk::new(real(&dir));
    let control = Arc::clone(&test.control);
    let disk: Arc<dyn Disk> = test.disk;
    let options = haven_log::LogOptions {
        queue_records_max: 4,
        ..small()
    };
    let log = open(&disk, options).expect("open");
    control.close_gate();
    let appender = std::thread::spawn({
        let log = log.clone();
        move || {
            (1..=50)
                .map(|i| send(&log, vec![record(i, 1, 0)]))
                .collect::<Vec<_>>()
        }
    });
    while log.stats().queued_records < 4 {
        std::thread::yield_now();
    }
    for _ in 0..2000 {
        std::thread::yield_now();
        assert_eq!(log.stats().queued_records, 4);
    }
    assert!(!appender.is_finished());
    control.open_gate();
    for answer in appender.join().expect("appender") {
        answer.recv().expect("an answer").expect("durable");
    }
    assert_eq!(log.last_index(), Some(50));
}

#[test]
fn a_truncated_log_goes_on_with_other_records() {
    for keep in [0, 1, 5, 17, 18, 19, 39, 40] {
        let dir = scratch();
        let disk = real(&dir);
        let log = open(&disk, small()).expect("open");
        append(&log, (1..=40).map(|i| record(i, 1500, 1)).collect()).expect("append");
        log.truncate_after(keep).expect("truncate");
        let mut expected: Vec<Record> = (1..=keep).map(|i| record(i, 1500, 1)).collect();
        assert_eq!(read_all(&log), expected, "after {keep}");
        assert_eq!(log.last_index(), expected.last().map(|r| r.index));
        let more: Vec<Record> = (keep + 1..=keep + 5).map(|i| record(i, 700, 2)).collect();
        append(&log, more.clone()).expect("append");
        expected.extend(more);
        assert_eq!(read_all(&log), expected);
        drop(log);
        let log = open(&disk, small()).expect("reopen");
        assert_eq!(read_all(&log), expected);
        append(&log, vec![record(keep + 6, 1, 3)]).expect("append");
    }
}

#[test]
fn a_truncation_comes_after_the_appends_queued_before_it() {
    let dir = scratch();
    let test = TestDisk::new(real(&dir));
    let control = Arc::clone(&test.control);
    let disk: Arc<dyn Disk> = test.disk;
    let log = open(&disk, small()).expect("open");
    control.close_gate();
    let first = send(&log, vec![record(1, 1, 0), record(2, 1, 0)]);
    control.wait_for_arrival();
    let second = send(&log, vec![record(3, 1, 0)]);
    let truncation = std::thread::spawn({
        let log = log.clone();
        move || log.truncate_after(1)
    });
    while log.last_index() != Some(1) {
        std::thread::yield_now();
    }
    let third = send(&log, vec![record(2, 1, 9)]);
    assert_eq!(read_all(&log), [record(1, 1, 0), record(2, 1, 9)]);
    control.open_gate();
    for answer in [first, second, third] {
        answer.recv().expect("an answer").expect("durable");
    }
    truncation.join().expect("thread").expect("truncated");
    drop(log);
    let log = open(&disk, small()).expect("reopen");
    assert_eq!(read_all(&log), [record(1, 1, 0), record(2, 1, 9)]);
}

#[test]
fn a_purge_removes_whole_segments_and_is_remembered() {
    let dir = scratch();
    let disk = real(&dir);
    let log = open(&disk, small()).expect("open");
    append(&log, (1..=40).map(|i| record(i, 1500, 0)).collect()).expect("append");
    let before = log.stats().segments;
    log.purge_to(25).expect("purge");
    assert!(log.stats().segments < before);
    let expected: Vec<Record> = (26..=40).map(|i| record(i, 1500, 0)).collect();
    for log in [log, open(&disk, small()).expect("reopen")] {
        assert_eq!((log.purged_index(), log.first_index()), (25, Some(26)));
        assert_eq!(read_all(&log), expected);
        log.purge_to(3).expect("nothing to do");
        let error = log.truncate_after(24).expect_err("below the purge point");
        assert!(matches!(error, LogError::OutOfRange { .. }), "{error}");
        let error = log.purge_to(41).expect_err("beyond the end");
        assert!(matches!(error, LogError::OutOfRange { .. }), "{error}");
        assert_eq!(files_ending(&*disk, ".seg"), log.stats().segments);
        assert_eq!(files_ending(&*disk, ".spare"), 2);
        assert_eq!(files_ending(&*disk, ".new"), 0);
    }
    let log = open(&disk, small()).expect("reopen");
    log.purge_to(40).expect("purge all");
    assert_eq!((log.first_index(), log.last_index()), (None, None));
    drop(log);
    let log = open(&disk, small()).expect("reopen");
    append(&log, vec![record(41, 1, 0)]).expect("append");
    assert_eq!(read_all(&log), [record(41, 1, 0)]);
}

fn files_ending(disk: &dyn Disk, suffix: &str) -> usize {
    let names = disk.list(Path::new(DIR)).expect("list");
    names.iter().filter(|name| name.ends_with(suffix)).count()
}

#[test]
fn purged_files_are_used_again_and_show_nothing_of_what_they_held() {
    let dir = scratch();
    let disk = real(&dir);
    let files = || {
        let names = disk.list(Path::new(DIR)).expect("list");
        names.into_iter().filter(|name| name != "SLOTS").count()
    };
    // Records of one size: what an older segment left stands exactly where the next record would.
    let (mut index, mut most) = (0, 0);
    for round in 0..12 {
        let log = open(&disk, small()).expect("open");
        for _ in 0..7 {
            append(&log, vec![record(index + 1, 2000, round)]).expect("append");
            index += 1;
        }
        let first = log.first_index().unwrap_or(1);
        let records = read_all(&log);
        assert_eq!(records.len() as u64, index + 1 - first);
        assert!(records.iter().zip(first..).all(|(r, i)| r.index == i));
        drop(log);
        let log = open(&disk, small()).expect("reopen");
        assert_eq!(log.last_index(), Some(index), "round {round}");
        assert_eq!(read_all(&log), records);
        if round % 2 == 1 {
            log.purge_to(index - 2).expect("purge");
        }
        most = most.max(files());
        drop(log);
        let mut findings = Vec::new();
        haven_log::check(
            &*disk,
            Path::new(DIR),
            &mut |f| findings.push(f),
            &mut |_| {},
        )
        .expect("check");
        assert_eq!(findings, [], "round {round}");
    }
    assert!(most <= 5, "{most} files: the spare ones were not used");
}

#[test]
fn the_space_of_purged_files_is_given_back_when_it_is_asked_for() {
    let dir = scratch();
    let disk = real(&dir);
    let spares = || files_ending(&*disk, ".spare");
    let log = open(&disk, small()).expect("open");
    assert!(log.spare_bytes_max() >= 2 * small().segment_bytes);
    let mut index = 0;
    let mut purge_some = || {
        for _ in 0..20 {
            index += 1;
            append(&log, vec![record(index, 2000, 0)]).expect("append");
        }
        log.purge_to(index).expect("purge");
        spares()
    };
    assert_eq!(purge_some(), 2);
    log.keep_spares(false).expect("give back");
    assert_eq!(spares(), 0);
    assert_eq!(purge_some(), 0, "what is purged later goes, too");
    log.keep_spares(true).expect("keep");
    assert_eq!(purge_some(), 2);
    log.keep_spares(false).expect("give back again");
    drop(log);
    let log = open(&disk, small()).expect("reopen");
    assert_eq!(log.purged_index(), 60);
    append(&log, vec![record(61, 2000, 0)]).expect("append");
}

#[test]
fn a_reset_empties_the_log_and_moves_it_either_way() {
    let dir = scratch();
    let disk = real(&dir);
    for (to, salt) in [(1000, 1), (10, 2), (0, 3)] {
        let log = open(&disk, small()).expect("open");
        log.reset_to(to).expect("reset");
        assert_eq!((log.purged_index(), log.last_index()), (to, None));
        let records: Vec<Record> = (to + 1..to + 20).map(|i| record(i, 2000, salt)).collect();
        append(&log, records.clone()).expect("append");
        drop(log);
        let log = open(&disk, small()).expect("reopen");
        assert_eq!(log.purged_index(), to);
        assert_eq!(read_all(&log), records);
    }
}

#[test]
fn slots_keep_the_value_saved_last() {
    let dir = scratch();
    let disk = real(&dir);
    let log = open(&disk, small()).expect("open");
    for slot in [Slot::Vote, Slot::Committed, Slot::Purged, Slot::Forgotten] {
        assert_eq!(log.read_slot(slot).expect("read"), None);
    }
    for n in 0..5u8 {
        log.save_slot(Slot::Vote, &[n; 10], true).expect("save");
        log.save_slot(Slot::Committed, &[n; 20], n % 2 == 0)
            .expect("save");
    }
    log.save_slot(Slot::Purged, &[1; SLOT_BYTES_MAX], true)
        .expect("save");
    let error = log.save_slot(Slot::Purged, &[1; SLOT_BYTES_MAX + 1], true);
    assert!(matches!(error, Err(LogError::TooLarge { .. })));
    for log in [log, open(&disk, small()).expect("reopen")] {
        let value = |slot| log.read_slot(slot).expect("read").map(|v| v.to_vec());
        assert_eq!(value(Slot::Vote), Some(vec![4; 10]));
        assert_eq!(value(Slot::Committed), Some(vec![4; 20]));
        assert_eq!(value(Slot::Purged), Some(vec![1; SLOT_BYTES_MAX]));
        assert_eq!(value(Slot::Forgotten), None);
    }
}
