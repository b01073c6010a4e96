//! Flushes that fail as Linux fails them: what could not be written reads on, counts as clean, and goes with the power.

mod common;

use std::path::Path;

use common::{contents, data_spans, put, scratch};
use haven_disk::{Disk, DiskFile, RealDisk, VolatileDisk, renew};
use proptest::prelude::*;

fn p(path: &str) -> &Path {
    Path::new(path)
}

/// A disk with the file `f` of these bytes, durable.
fn disk_with(dir: &Path, content: &[u8]) -> VolatileDisk {
    let disk = VolatileDisk::open(dir).expect("open");
    put(&disk, "f", content);
    disk.sync_all().expect("flush");
    disk
}

/// A seed with which nothing of a failing flush of one page reaches the disk.
fn seed_that_loses(try_it: impl Fn(u64) -> bool) -> u64 {
    (0..10_000).find(|&seed| try_it(seed)).expect("a seed")
}

/// What the disk has of `f` after `act` on it, a flush that fails by `seed`, `then`, and a power loss.
fn after(
    seed: u64,
    act: &dyn Fn(&dyn DiskFile),
    then: &dyn Fn(&VolatileDisk, &dyn DiskFile),
) -> Vec<u8> {
    let dir = scratch();
    let disk = disk_with(dir.path(), &[1; 600]);
    let file = disk.open(p("f"), false).expect("open");
    act(&*file);
    disk.fail_flush(0, seed);
    assert!(disk.flush_will_fail());
    file.sync().expect_err("the flush fails");
    assert!(!disk.flush_will_fail());
    then(&disk, &*file);
    disk.forget();
    let real = RealDisk::open(dir.path()).expect("open anew");
    contents(&real, "f").expect("the file is there")
}

#[test]
fn bytes_whose_flush_failed_read_on_and_are_lost_unless_written_again() {
    let write = |file: &dyn DiskFile| file.write_at(0, &[2; 600]).expect("write");
    let nothing = |_: &VolatileDisk, _: &dyn DiskFile| {};
    let seed = seed_that_loses(|seed| after(seed, &write, &nothing) == [1; 600]);
    let reopened = |disk: &VolatileDisk, _: &dyn DiskFile| {
        // As by another process: it sees what was written, and its flush says that all is well.
        assert_eq!(contents(disk, "f"), Some(vec![2; 600]));
        let file = disk.open(p("f"), false).expect("open");
        file.sync().expect("flush");
        disk.sync_all().expect("flush everything");
        assert_eq!(contents(disk, "f"), Some(vec![2; 600]));
    };
    assert_eq!(after(seed, &write, &reopened), [1; 600]);
    // Whole pages are written: one byte takes all others with it.
    let one_byte = |_: &VolatileDisk, file: &dyn DiskFile| {
        file.write_at(7, &[9]).expect("write");
        file.sync().expect("flush");
    };
    let mut expected = [2; 600];
    expected[7] = 9;
    assert_eq!(after(seed, &write, &one_byte), expected);
    let renewed = |_: &VolatileDisk, file: &dyn DiskFile| {
        renew::bytes(file, 0, u64::MAX).expect("renew");
        file.sync().expect("flush");
    };
    assert_eq!(after(seed, &write, &renewed), [2; 600]);
    // Single sectors may have reached the disk.
    let torn = |seed| {
        let found = after(seed, &write, &nothing);
        found[..512] != found[512..600] && found[0] != found[599]
    };
    seed_that_loses(torn);
}

#[test]
fn pages_that_count_as_clean_may_be_forgotten() {
    let write = |file: &dyn DiskFile| file.write_at(0, &[2; 600]).expect("write");
    let seed = seed_that_loses(|seed| after(seed, &write, &|_, _| {}) == [1; 600]);
    let evicted = |disk: &VolatileDisk, _: &dyn DiskFile| {
        disk.evict(|| true);
        assert_eq!(contents(disk, "f"), Some(vec![2; 600]));
        disk.evict(|| false);
        assert_eq!(contents(disk, "f"), Some(vec![1; 600]));
    };
    assert_eq!(after(seed, &write, &evicted), [1; 600]);
}

#[test]
fn a_length_whose_flush_failed_is_lost_unless_it_changes_again() {
    let cut = |file: &dyn DiskFile| file.set_len(100).expect("cut");
    let seed = seed_that_loses(|seed| after(seed, &cut, &|_, _| {}) == [1; 600]);
    let again = |_: &VolatileDisk, file: &dyn DiskFile| {
        assert_eq!(file.len().expect("length"), 100);
        file.set_len(100).expect("the same length");
        file.write_at(0, &[3]).expect("write");
        file.sync().expect("flush");
    };
    let mut expected = [1; 600];
    expected[0] = 3;
    assert_eq!(after(seed, &cut, &again), expected);
    let renewed = |_: &VolatileDisk, file: &dyn DiskFile| {
        renew::length(file, 1).expect("renew");
        file.sync().expect("flush");
    };
    assert_eq!(after(seed, &cut, &renewed), [1; 100]);
}

#[test]
fn what_was_cut_off_in_vain_comes_back_behind_what_was_flushed_since() {
    let cut = |file: &dyn DiskFile| file.set_len(100).expect("cut");
    let seed = seed_that_loses(|seed| after(seed, &cut, &|_, _| {}) == [1; 600]);
    let dir = scratch();
    let disk = disk_with(dir.path(), &[1; 10_000]);
    let file = disk.open(p("f"), false).expect("open");
    cut(&*file);
    disk.fail_flush(0, seed);
    file.sync().expect_err("the flush fails");
    file.write_at(50, &[4; 10]).expect("write");
    file.sync().expect("flush");
    assert_eq!(file.len().expect("length"), 100);
    disk.forget();
    let real = RealDisk::open(dir.path()).expect("open anew");
    let found = contents(&real, "f").expect("there");
    assert_eq!(&found[50..60], [4; 10]);
    assert_eq!(found[9_000], 1, "the page that was cut off");
}

#[test]
fn names_whose_flush_failed_are_lost_unless_their_directory_changes_again() {
    let lost = |seed: u64, then: &dyn Fn(&VolatileDisk)| {
        let dir = scratch();
        let disk = disk_with(dir.path(), b"old");
        put(&disk, "new", b"new");
        disk.open(p("new"), false)
            .and_then(|file| file.sync())
            .expect("flush");
        disk.rename(p("new"), p("f")).expect("rename");
        put(&disk, "g", b"");
        disk.fail_flush(0, seed);
        disk.sync_dir(p("")).expect_err("the flush fails");
        assert_eq!(contents(&disk, "f").as_deref(), Some(&b"new"[..]));
        then(&disk);
        disk.forget();
        let real = RealDisk::open(dir.path()).expect("open anew");
        (
            contents(&real, "f").expect("there"),
            real.list(p("")).expect("list"),
        )
    };
    let old = (b"old".to_vec(), vec!["f".to_owned()]);
    let new = (b"new".to_vec(), vec!["f".to_owned(), "g".to_owned()]);
    let seed = seed_that_loses(|seed| lost(seed, &|_| {}) == old);
    let flushed = |disk: &VolatileDisk| {
        disk.sync_dir(p("")).expect("flush");
        disk.sync_all().expect("flush everything");
    };
    assert_eq!(lost(seed, &flushed), old);
    let renewed = |disk: &VolatileDisk| renew::names(disk, p("")).expect("renew");
    assert_eq!(lost(seed, &renewed), new);
}

#[test]
fn a_directory_whose_making_failed_is_lost_with_what_is_in_it() {
    for renewed in [false, true] {
        let dir = scratch();
        let disk = VolatileDisk::open(dir.path()).expect("open");
        disk.fail_flush(0, 1);
        disk.create_dir_all(p("a/b")).expect_err("the flush fails");
        assert!(disk.exists(p("a/b")).expect("look"));
        disk.create_dir_all(p("a/b")).expect("it is there");
        put(&disk, "a/b/f", b"x");
        disk.sync_all().expect("flush everything");
        if renewed {
            for dir in ["", "a", "a/b"] {
                renew::names(&disk, p(dir)).expect("renew");
            }
        }
        disk.forget();
        let real = RealDisk::open(dir.path()).expect("open anew");
        assert_eq!(contents(&real, "a/b/f").is_some(), renewed);
    }
}

#[test]
fn a_failing_flush_of_everything_tells_so() {
    let dir = scratch();
    let disk = disk_with(dir.path(), b"old");
    put(&disk, "f", b"new");
    disk.fail_flush(1, 3);
    disk.open(p("f"), false)
        .and_then(|file| file.sync())
        .expect("this one succeeds");
    put(&disk, "g", b"x");
    let why = disk.sync_all().expect_err("the flush fails").to_string();
    assert!(why.contains("input/output error"), "{why}");
    disk.forget();
    let real = RealDisk::open(dir.path()).expect("open anew");
    assert_eq!(contents(&real, "f").as_deref(), Some(&b"new"[..]));
}

#[derive(Debug, Clone)]
enum Op {
    Write(usize, u64, u8, usize),
    SetLen(usize, u64),
    Allocate(usize, u64, u64),
    Sync(usize),
    SyncDir(usize),
    SyncAll,
    Rename(usize, usize),
    Remove(usize),
    /// So many flushes later one fails.
    Fail(u64, u64),
}

const DIRS: [&str; 2] = ["a", "b"];
const FILES: usize = 6;

fn path_of(file: usize) -> String {
    format!("{}/{}", DIRS[file / 3], file % 3)
}

fn op() -> impl Strategy<Value = Op> {
    let file = 0..FILES;
    let at = 0..14_000u64;
    prop_oneof![
        4 => (file.clone(), at.clone(), any::<u8>(), 0..9000usize)
            .prop_map(|(f, o, b, n)| Op::Write(f, o, b, n)),
        2 => (file.clone(), at.clone()).prop_map(|(f, n)| Op::SetLen(f, n)),
        1 => (file.clone(), at, 0..6000u64).prop_map(|(f, o, n)| Op::Allocate(f, o, n)),
        3 => file.clone().prop_map(Op::Sync),
        2 => (0..DIRS.len()).prop_map(Op::SyncDir),
        1 => Just(Op::SyncAll),
        2 => (file.clone(), file.clone()).prop_map(|(f, t)| Op::Rename(f, t)),
        1 => file.prop_map(Op::Remove),
        3 => (0..4u64, any::<u64>()).prop_map(|(after, seed)| Op::Fail(after, seed)),
    ]
}

/// Whether it did anything does not matter, but for both disks it must be the same, unless a flush was to fail.
fn act(disk: &dyn Disk, op: &Op) {
    let create = |f: usize| disk.open(p(&path_of(f)), true).expect("create");
    match op {
        Op::Write(f, at, byte, n) => create(*f).write_at(*at, &vec![*byte; *n]).expect("write"),
        Op::SetLen(f, len) => create(*f).set_len(*len).expect("set the length"),
        Op::Allocate(f, at, len) => create(*f).allocate(*at, *len).expect("reserve"),
        Op::Sync(f) => drop(disk.open(p(&path_of(*f)), false).and_then(|f| f.sync())),
        Op::SyncDir(dir) => drop(disk.sync_dir(p(DIRS[*dir]))),
        Op::SyncAll => drop(disk.sync_all()),
        Op::Rename(from, to) => drop(disk.rename(p(&path_of(*from)), p(&path_of(*to)))),
        Op::Remove(f) => drop(disk.remove_file(p(&path_of(*f)))),
        Op::Fail(..) => {}
    }
}

fn everything(disk: &dyn Disk) -> Vec<Option<Vec<u8>>> {
    (0..FILES).map(|f| contents(disk, &path_of(f))).collect()
}

/// What a process does that relies on all of it.
fn renew_everything(disk: &dyn Disk) {
    for dir in DIRS {
        renew::names(disk, p(dir)).expect("renew names");
        for name in disk.list(p(dir)).expect("list") {
            let file = disk.open(&p(dir).join(name), false).expect("open");
            renew::bytes(&*file, 0, u64::MAX).expect("renew bytes");
            renew::length(&*file, 1).expect("renew the length");
            file.sync().expect("flush");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_failed_all_reads_on_and_is_durable_once_it_is_written_again(
        ops in prop::collection::vec(op(), 1..60),
        evict in any::<bool>(),
    ) {
        let (real_dir, volatile_dir) = (scratch(), scratch());
        let volatile = VolatileDisk::open(volatile_dir.path()).expect("open");
        let real = RealDisk::open(real_dir.path()).expect("open");
        for dir in DIRS {
            volatile.create_dir_all(p(dir)).expect("mkdir");
            real.create_dir_all(p(dir)).expect("mkdir");
        }
        for op in &ops {
            if let Op::Fail(after, seed) = op {
                volatile.fail_flush(*after, *seed);
            }
            act(&volatile, op);
            act(&real, op);
            prop_assert_eq!(everything(&volatile), everything(&real), "{:?}", op);
        }
        if evict {
            let mut turn = 0;
            volatile.evict(|| { turn += 1; turn % 2 == 0 });
        }
        while volatile.flush_will_fail() {
            let _ = volatile.sync_all();
        }
        let before = everything(&volatile);
        renew_everything(&volatile);
        prop_assert_eq!(&everything(&volatile), &before);
        volatile.forget();
        let after = RealDisk::open(volatile_dir.path()).expect("open");
        prop_assert_eq!(everything(&after), before);
    }
}

#[test]
fn a_hole_whose_flush_failed_reads_on_and_fills_again_with_the_power_unless_it_is_made_again() {
    let punch = |file: &dyn DiskFile| file.punch(0, 600).expect("punch");
    let reopened = |disk: &VolatileDisk, _: &dyn DiskFile| {
        assert_eq!(data_spans(disk, "f"), []);
        disk.sync_all().expect("flush everything");
        assert_eq!(contents(disk, "f"), Some(vec![0; 600]));
    };
    let seed = seed_that_loses(|seed| after(seed, &punch, &|_, _| {}) == [1; 600]);
    assert_eq!(after(seed, &punch, &reopened), [1; 600]);
    let again = |_: &VolatileDisk, file: &dyn DiskFile| {
        file.punch(0, 600).expect("punch");
        file.sync().expect("flush");
    };
    assert_eq!(after(seed, &punch, &again), [0; 600]);
}
