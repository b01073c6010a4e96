//! The judge judged: histories made by hand, right and wrong.

use super::dir::{DirOp, DirSpec};
use super::file::{FileOp, FileSpec};
use super::history::{Count, Track};
use std::collections::BTreeMap;

const FIRST: FileOp = FileOp::Write { cell: 0, number: 1 };
const SECOND: FileOp = FileOp::Write { cell: 0, number: 2 };

fn read(number: u32) -> FileOp {
    FileOp::Read(number.to_be_bytes().to_vec())
}

/// One after another.
fn in_turn<O: super::history::Operation>(track: &Track<O>, operations: &[O]) {
    for operation in operations {
        let call = track.call(operation.clone()).unwrap();
        track.answered(call, operation.clone());
    }
}

fn judge_file(operations: &[FileOp]) -> Result<Count, String> {
    let track = Track::new();
    in_turn(&track, operations);
    track.judge::<FileSpec>()
}

fn judge_dir(operations: &[DirOp]) -> Result<Count, String> {
    let track = Track::new();
    in_turn(&track, operations);
    track.judge::<DirSpec>()
}

fn create(name: u8, mark: u32, done: bool) -> DirOp {
    let done = Some(done);
    DirOp::Create { name, mark, done }
}

fn remove(name: u8, done: bool) -> DirOp {
    let done = Some(done);
    DirOp::Remove { name, done }
}

fn lookup(name: u8, found: Option<u32>) -> DirOp {
    DirOp::Lookup { name, found }
}

#[test]
fn what_happened_in_turn_is_explained() {
    judge_file(&[
        FileOp::Size(0),
        FIRST,
        read(1),
        SECOND,
        read(2),
        FileOp::Truncate { cells: 0 },
        FileOp::Size(0),
    ])
    .unwrap();
    let names = BTreeMap::from([(2, 7)]);
    let done = Some(true);
    judge_dir(&[
        create(1, 7, true),
        create(1, 8, false),
        DirOp::Rename {
            from: 1,
            to: 2,
            done,
        },
        lookup(1, None),
        DirOp::List(names),
        remove(2, true),
        remove(2, false),
    ])
    .unwrap();
}

#[test]
fn a_stale_read_is_found() {
    let why = judge_file(&[FIRST, SECOND, read(1)]).unwrap_err();
    assert!(why.contains("no order explains"), "{why}");
    judge_file(&[FIRST, SECOND, read(2), read(1)]).unwrap_err();
    judge_file(&[FIRST, FileOp::Size(0)]).unwrap_err();
    judge_dir(&[create(1, 7, true), DirOp::List(BTreeMap::new())]).unwrap_err();
}

#[test]
fn a_lost_write_is_found() {
    judge_file(&[FIRST, read(1), FileOp::Read(Vec::new())]).unwrap_err();
    judge_dir(&[create(1, 7, true), lookup(1, None)]).unwrap_err();
    judge_dir(&[create(1, 7, true), create(1, 8, true)]).unwrap_err();
    judge_dir(&[create(1, 7, true), remove(1, true), lookup(1, Some(7))]).unwrap_err();
}

#[test]
fn what_was_done_twice_is_found() {
    // The first write is executed again after the second was answered.
    judge_file(&[FIRST, SECOND, read(2), read(1)]).unwrap_err();
    // The removal is executed again after the name was made anew.
    let twice = [
        create(1, 7, true),
        remove(1, true),
        create(1, 8, true),
        lookup(1, None),
    ];
    judge_dir(&twice).unwrap_err();
    // A retried CREATE that finds its own file.
    judge_dir(&[create(1, 7, false)]).unwrap_err();
}

#[test]
fn operations_at_the_same_time_may_have_either_order_but_one_only() {
    for (answers, right) in [([1, 1], true), ([2, 2], true), ([1, 2], false)] {
        let track = Track::new();
        let (first, second) = (track.call(FIRST).unwrap(), track.call(SECOND).unwrap());
        track.answered(second, SECOND);
        track.answered(first, FIRST);
        in_turn(&track, &answers.map(read));
        assert_eq!(track.judge::<FileSpec>().is_ok(), right, "{answers:?}");
    }
}

#[test]
fn what_was_never_answered_happened_later_or_never_but_once() {
    let maybe = |reads: &[FileOp]| {
        let track = Track::new();
        in_turn(&track, &[FIRST]);
        track.call(SECOND).unwrap();
        track.lost(&SECOND);
        in_turn(&track, reads);
        track.judge::<FileSpec>()
    };
    let count = maybe(&[read(1), read(1)]).unwrap();
    assert_eq!((count.operations, count.unanswered), (4, 1));
    maybe(&[read(1), read(2)]).unwrap();
    maybe(&[read(2), read(1)]).unwrap_err();

    let track = Track::new();
    let ask = DirOp::Remove {
        name: 1,
        done: None,
    };
    in_turn(&track, &[create(1, 7, true)]);
    track.call(ask).unwrap();
    let rest = [lookup(1, None), create(1, 8, true), lookup(1, None)];
    in_turn(&track, &rest[..2]);
    track.judge::<DirSpec>().unwrap();
    in_turn(&track, &rest[2..]);
    track.judge::<DirSpec>().unwrap_err();
}

#[test]
fn a_read_that_was_never_answered_says_nothing() {
    let track = Track::new();
    track.call(FileOp::Size(99)).unwrap();
    in_turn(&track, &[FIRST, read(1)]);
    track.judge::<FileSpec>().unwrap();
}

#[test]
fn a_history_ends_before_the_search_does_not() {
    let track = Track::new();
    let calls = (0..1000).map_while(|_| track.call(read(0))).count();
    assert!(calls < 1000);
    let track = Track::new();
    let mut taken = 0;
    while track.call(FIRST).is_some() {
        track.lost(&FIRST);
        taken += 1;
    }
    assert!(taken < 10, "{taken}");
}
