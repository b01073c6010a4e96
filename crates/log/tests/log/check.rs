//! The offline check: every kind of finding is provoked and recognised; opening agrees (see `damage`).

use std::collections::BTreeSet;
use std::path::Path;

use haven_disk::{Disk, ReadOnlyDisk, RealDisk};
use haven_log::{LogError, LogFinding, LogProblem, Record, check};

use crate::common::{DIR, append, open, record, scratch, small};
use crate::damage::{Files, sample, segment};

/// What is found that opening does not settle, and the records.
pub fn run(disk: &dyn Disk) -> Result<(Vec<LogFinding>, Vec<Record>), LogError> {
    let (mut damage, mut records) = (Vec::new(), Vec::new());
    let mut found = |finding: LogFinding| {
        if !finding.problem.is_note() {
            damage.push(finding);
        }
    };
    check(disk, Path::new(DIR), &mut found, &mut |r| records.push(r))?;
    Ok((damage, records))
}

fn problems(files: &Files) -> BTreeSet<LogProblem> {
    let dir = scratch();
    drop(RealDisk::open(dir.path()).expect("open the disk"));
    std::fs::create_dir(dir.path().join(DIR)).expect("mkdir");
    for (name, bytes) in files {
        std::fs::write(dir.path().join(DIR).join(name), bytes).expect("write");
    }
    let disk = ReadOnlyDisk::open(dir.path()).expect("open the disk");
    let mut found = BTreeSet::new();
    let mut tell = |finding: LogFinding| {
        assert!(finding.place.starts_with("log/"), "{finding:?}");
        found.insert(finding.problem);
    };
    check(&disk, Path::new(DIR), &mut tell, &mut |_| {}).expect("can be checked");
    found
}

/// What is done to a log of several segments, and what must be found.
#[test]
fn every_damage_is_recognised() {
    let (_, crashed, closed) = sample(40, 1488);
    let segments = closed.len() - 1;
    type Change<'a> = &'a dyn Fn(&mut Files);
    let cases: &[(&str, &Files, Change<'_>, &[LogProblem])] = &[
        ("nothing", &crashed, &|_| {}, &[]),
        ("nothing, after a clean end", &closed, &|_| {}, &[]),
        ("no file", &closed, &|f| f.clear(), &[LogProblem::NotMade]),
        (
            "no slots",
            &closed,
            &|f| drop(f.pop()),
            &[LogProblem::SlotsMissing],
        ),
        (
            "broken slots",
            &closed,
            &|f| f[segments].1[4] ^= 1,
            &[LogProblem::SlotsDamaged],
        ),
        (
            "an unreadable slot",
            &closed,
            &|f| f[segments].1[4096 * 3..4096 * 5].fill(7),
            &[LogProblem::SlotsDamaged],
        ),
        (
            "the first segment is gone",
            &closed,
            &|f| drop(f.remove(0)),
            &[LogProblem::SegmentMissing],
        ),
        (
            "all segments are gone",
            &closed,
            &|f| drop(f.drain(..segments)),
            &[LogProblem::SegmentMissing],
        ),
        (
            "the last segment is gone",
            &closed,
            &|f| drop(f.remove(segments - 1)),
            &[LogProblem::EndsEarly],
        ),
        (
            "a bit in the middle",
            &closed,
            &|f| segment(f, 1)[5000] ^= 1,
            &[LogProblem::SegmentDamaged],
        ),
        (
            "garbage behind a full segment",
            &closed,
            &|f| segment(f, 1).extend([9; 100]),
            &[LogProblem::TornInside],
        ),
        (
            "garbage at the end",
            &closed,
            &|f| segment(f, segments - 1).extend([9; 100]),
            &[LogProblem::TornEnd],
        ),
        (
            "strange files and leftovers",
            &closed,
            &|f| {
                f.push(("notes".into(), vec![]));
                f.push(("SLOTS.new".into(), vec![]));
                f.push(("0000000000000000.seg".into(), vec![]));
            },
            &[LogProblem::Leftover, LogProblem::StrangeFile],
        ),
    ];
    // The test below provokes it.
    let mut provoked = BTreeSet::from([LogProblem::BeginsLate]);
    for (name, files, change, expected) in cases {
        let mut files = (*files).clone();
        change(&mut files);
        let expected: BTreeSet<_> = expected.iter().copied().collect();
        assert_eq!(problems(&files), expected, "{name}");
        provoked.extend(expected);
    }
    let all: BTreeSet<_> = LogProblem::ALL.iter().copied().collect();
    assert_eq!(provoked, all, "kinds that no case provokes");
}

/// The slots of before a purge with the segments of after it.
#[test]
fn a_log_that_begins_too_late_is_recognised() {
    let dir = scratch();
    let disk: std::sync::Arc<dyn Disk> =
        std::sync::Arc::new(RealDisk::open(dir.path()).expect("open the disk"));
    let log = open(&disk, small()).expect("open");
    append(&log, (1..=5).map(|i| record(i, 48, 0)).collect()).expect("append");
    log.reset_to(90).expect("reset");
    append(&log, vec![record(91, 48, 0)]).expect("append");
    drop(log);
    let segment = dir.path().join(DIR).join("0000000000000002.seg");
    let mut bytes = std::fs::read(&segment).expect("read");
    // The header says that the segment begins with record 93.
    bytes[32..40].copy_from_slice(&93u64.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..48]).to_le_bytes();
    bytes[48..52].copy_from_slice(&crc);
    bytes[4096..].fill(0);
    std::fs::write(&segment, bytes).expect("write");
    let (damage, _) = run(&*disk).expect("can be checked");
    let problems: Vec<_> = damage.iter().map(|f| f.problem).collect();
    assert_eq!(problems, [LogProblem::BeginsLate]);
}

#[test]
fn codes_tell_kinds_apart() {
    let codes: BTreeSet<_> = LogProblem::ALL.iter().map(|p| p.code()).collect();
    let meanings: BTreeSet<_> = LogProblem::ALL.iter().map(|p| p.meaning()).collect();
    assert_eq!(codes.len(), LogProblem::ALL.len());
    assert!(meanings.len() >= LogProblem::ALL.len() - 1);
}
