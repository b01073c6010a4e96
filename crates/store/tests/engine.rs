//! The engine against the conformance suite and the reference model.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::{Twins, open_disk, open_store};
use haven_disk::Disk;
use haven_disk::testing::{DiskOp, FaultyDisk};
use haven_fs::conformance::{self, Engine};
use haven_fs::{
    Change, Cookie, Create, Cred, FILE_SIZE_MAX, Filesystem, FsError, Ino, SetAttr, SystemTable,
    Time,
};
use haven_store::{SYSTEM_VALUE_BYTES_MAX, Store, StoreOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const AT: Change = Change {
    index: 1,
    time: Time { secs: 5, nanos: 0 },
};

/// More than fits a row.
const BIG: [u8; 5000] = [9; 5000];

fn file(store: &mut Store, name: &[u8]) -> Ino {
    let set = SetAttr {
        mode: Some(0o644),
        ..SetAttr::default()
    };
    store
        .create(&AT, &Cred::root(), Ino(1), name, &Create::Guarded(set))
        .unwrap()
        .ino
}

fn write(store: &mut Store, ino: Ino, offset: u64, data: &[u8]) {
    store.write(&AT, &Cred::root(), ino, offset, data).unwrap();
}

fn resize(store: &mut Store, ino: Ino, size: u64) {
    let set = SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    store.setattr(&AT, &Cred::root(), ino, &set, None).unwrap();
}

fn data_path(ino: Ino) -> String {
    format!("store/gen-1/data/{:02x}/{:016x}", ino.0 & 0xff, ino.0)
}

#[test]
fn passes_the_conformance_suite() {
    let roots = std::cell::RefCell::new(Vec::new());
    conformance::run(&|| {
        let root = tempfile::tempdir().unwrap();
        let store = open_store(&open_disk(root.path()));
        roots.borrow_mut().push(root);
        Box::new(store)
    });
}

#[test]
fn equals_the_model() {
    let roots = std::cell::RefCell::new(Vec::new());
    for seed in 1..=3 {
        let make = || -> Box<dyn Engine> {
            let root = tempfile::tempdir().unwrap();
            let store = open_store(&open_disk(root.path()));
            roots.borrow_mut().push(root);
            Box::new(store)
        };
        conformance::random_ops_equal(&make, seed, 1_500);
    }
}

#[test]
fn scans_merge_the_layers() {
    let root = tempfile::tempdir().unwrap();
    let mut twins = Twins::new(open_store(&open_disk(root.path())), 77);
    for _ in 0..6 {
        twins.steps(40);
        let job = twins.store.freeze().unwrap().unwrap();
        assert!(
            twins.store.freeze().unwrap().is_none(),
            "one checkpoint at a time"
        );
        twins.steps(40);
        twins.assert_equal();
        let done = job.run().unwrap();
        twins.assert_equal();
        twins.store.finish_checkpoint(&done).unwrap();
        twins.assert_equal();
    }
}

#[test]
fn a_removed_file_keeps_its_data_until_its_removal_is_durable() {
    let root = tempfile::tempdir().unwrap();
    let disk = open_disk(root.path());
    let mut store = open_store(&disk);
    let ino = file(&mut store, b"a");
    store.write(&AT, &Cred::root(), ino, 0, &BIG).unwrap();
    store.checkpoint().unwrap();
    store.remove(&AT, &Cred::root(), Ino(1), b"a").unwrap();
    let exists = || disk.exists(Path::new(&data_path(ino))).unwrap();

    let job = store.freeze().unwrap().unwrap();
    assert!(exists(), "a crash now brings the inode back");
    let done = job.run().unwrap();
    store.finish_checkpoint(&done).unwrap();
    store.checkpoint().unwrap();
    assert!(
        !exists(),
        "gone after the checkpoint that follows its removal's"
    );
    assert!(
        store.freeze().unwrap().is_none(),
        "and there is nothing left to do"
    );
}

#[test]
fn an_interrupted_removal_is_finished_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let disk = open_disk(root.path());
    let mut store = open_store(&disk);
    let ino = file(&mut store, b"a");
    store.write(&AT, &Cred::root(), ino, 0, &BIG).unwrap();
    store.checkpoint().unwrap();
    store.remove(&AT, &Cred::root(), Ino(1), b"a").unwrap();
    store.checkpoint().unwrap();
    drop(store);
    let mut store = open_store(&disk);
    assert!(disk.exists(Path::new(&data_path(ino))).unwrap());
    store.checkpoint().unwrap();
    assert!(!disk.exists(Path::new(&data_path(ino))).unwrap());
}

#[test]
fn bytes_past_the_size_never_come_back() {
    let root = tempfile::tempdir().unwrap();
    let disk = open_disk(root.path());
    let mut store = open_store(&disk);
    let ino = file(&mut store, b"a");
    store.write(&AT, &Cred::root(), ino, 0, &BIG).unwrap();
    resize(&mut store, ino, 10);
    store.checkpoint().unwrap();
    // Written after the checkpoint, then the process dies: the data file is ahead.
    store.write(&AT, &Cred::root(), ino, 0, &BIG).unwrap();
    drop(store);

    let mut store = open_store(&disk);
    assert_eq!(store.attr(ino).unwrap().size, 10);
    resize(&mut store, ino, 100);
    let read = store.read(&Cred::root(), ino, 0, 1000).unwrap();
    assert_eq!(&read.data[..10], &[9; 10]);
    assert_eq!(&read.data[10..], &[0; 90]);
    drop(store);

    let mut store = open_store(&disk);
    disk.open(Path::new(&data_path(ino)), false)
        .unwrap()
        .write_at(0, &BIG)
        .unwrap();
    store.write(&AT, &Cred::root(), ino, 50, b"x").unwrap();
    let read = store.read(&Cred::root(), ino, 10, 1000).unwrap();
    assert_eq!(
        &read.data[..40],
        &[0; 40],
        "between the old end and the write"
    );
    assert_eq!(&read.data[40..], b"x");
}

/// What the file holds, from its start.
fn all(store: &Store, ino: Ino) -> Vec<u8> {
    let read = store.read(&Cred::root(), ino, 0, 1 << 20).unwrap();
    assert!(read.eof);
    assert_eq!(read.data.len() as u64, store.attr(ino).unwrap().size);
    read.data.to_vec()
}

#[test]
fn a_small_file_has_no_data_file() {
    let root = tempfile::tempdir().unwrap();
    let disk = open_disk(root.path());
    let mut store = open_store(&disk);
    let ino = file(&mut store, b"a");
    let data_file = || disk.exists(Path::new(&data_path(ino))).unwrap();
    let mut expected = vec![0; 4096];
    let mut put = |store: &mut Store, at: usize, data: &[u8]| {
        write(store, ino, at as u64, data);
        expected[at..at + data.len()].copy_from_slice(data);
        let size = store.attr(ino).unwrap().size as usize;
        assert_eq!(all(store, ino), expected[..size], "after a write at {at}");
        let part = store.read(&Cred::root(), ino, 1, 2000).unwrap();
        assert_eq!(part.data, expected[1..size.min(2001)]);
    };
    put(&mut store, 3, b"abc");
    put(&mut store, 4000, b"def");
    store.checkpoint().unwrap();
    put(&mut store, 2, b"xy");
    put(&mut store, 0, &[7; 4096]);
    resize(&mut store, ino, 10);
    resize(&mut store, ino, 4096);
    let mut cut = [0; 4096];
    cut[..10].fill(7);
    assert_eq!(all(&store, ino), cut, "what was cut does not come back");
    store.checkpoint().unwrap();
    assert!(!data_file());
    store.remove(&AT, &Cred::root(), Ino(1), b"a").unwrap();
    store.checkpoint().unwrap();
    assert!(store.freeze().unwrap().is_none(), "no data file to remove");
}

/// What moves a file with `head` in its row to a data file, and what it must hold then.
type Spill = (&'static str, fn(&mut Store, Ino), fn(&mut Vec<u8>));

const SPILLS: [Spill; 5] = [
    (
        "a byte too many",
        |store, ino| write(store, ino, 4096, b"z"),
        |all| {
            all.resize(4096, 0);
            all.push(b'z');
        },
    ),
    (
        "a write across the limit",
        |store, ino| write(store, ino, 2, &[5; 6000]),
        |all| {
            all.resize(2, 0);
            all.resize(6002, 5);
        },
    ),
    (
        "a write far beyond",
        |store, ino| write(store, ino, 900_000, b"z"),
        |all| {
            all.resize(900_000, 0);
            all.push(b'z');
        },
    ),
    (
        "growing",
        |store, ino| resize(store, ino, 4097),
        |all| all.resize(4097, 0),
    ),
    (
        "growing and shrinking",
        |store, ino| {
            resize(store, ino, 100_000);
            resize(store, ino, 6);
        },
        |all| all.resize(6, 0),
    ),
];

/// The data file is ahead by an earlier life of this history; replaying must not see any of it.
#[test]
fn moving_to_a_data_file_is_repeatable() {
    for head in [&b""[..], b"head"] {
        for (what, spill, expect) in SPILLS {
            let root = tempfile::tempdir().unwrap();
            let disk = open_disk(root.path());
            let mut store = open_store(&disk);
            let ino = file(&mut store, b"a");
            if !head.is_empty() {
                store.write(&AT, &Cred::root(), ino, 0, head).unwrap();
            }
            store.checkpoint().unwrap();
            spill(&mut store, ino);
            let mut expected = head.to_vec();
            expect(&mut expected);
            assert!(all(&store, ino) == expected, "{what}, at first");
            let hash = store.state_hash().unwrap();
            // More of the earlier life: it ends ahead of anything that is replayed here.
            store.write(&AT, &Cred::root(), ino, 1, &[8; 9000]).unwrap();
            drop(store);

            let mut store = open_store(&disk);
            assert_eq!(all(&store, ino), head, "the row still counts");
            spill(&mut store, ino);
            assert!(all(&store, ino) == expected, "{what}, again");
            assert_eq!(store.state_hash().unwrap(), hash, "{what}");
            store.checkpoint().unwrap();
            drop(store);
            disk.forget();
            let mut store = open_store(&open_disk(root.path()));
            assert!(all(&store, ino) == expected, "{what}, durably");
            assert_eq!(store.state_hash().unwrap(), hash, "{what}");
            resize(&mut store, ino, 0);
            store.write(&AT, &Cred::root(), ino, 1, b"b").unwrap();
            assert_eq!(all(&store, ino), b"\0b", "and it does not move back");
            assert!(disk_has(&store, root.path(), ino));
        }
    }
}

/// Whether the inode has a data file once everything is flushed.
fn disk_has(store: &Store, root: &Path, ino: Ino) -> bool {
    assert!(store.attr(ino).is_ok());
    root.join(data_path(ino)).exists()
}

#[test]
fn a_file_made_long_has_its_bytes_in_a_data_file() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open_store(&open_disk(root.path()));
    let set = SetAttr {
        size: Some(4097),
        ..SetAttr::default()
    };
    let how = Create::Guarded(set);
    let ino = store
        .create(&AT, &Cred::root(), Ino(1), b"a", &how)
        .unwrap()
        .ino;
    store.write(&AT, &Cred::root(), ino, 1, b"x").unwrap();
    store.checkpoint().unwrap();
    assert!(disk_has(&store, root.path(), ino));
    let mut expected = vec![0; 4097];
    expected[1] = b'x';
    assert_eq!(all(&store, ino), expected);
}

#[test]
fn shrinking_cuts_the_data_file_and_growing_does_not_touch_it() {
    let root = tempfile::tempdir().unwrap();
    let disk = open_disk(root.path());
    let mut store = open_store(&disk);
    let ino = file(&mut store, b"a");
    store.write(&AT, &Cred::root(), ino, 0, &[9; 5000]).unwrap();
    resize(&mut store, ino, 7);
    let len = || {
        disk.open(Path::new(&data_path(ino)), false)
            .unwrap()
            .len()
            .unwrap()
    };
    assert_eq!(len(), 7);
    resize(&mut store, ino, 1 << 40);
    assert_eq!(len(), 7);
    let read = store.read(&Cred::root(), ino, (1 << 40) - 5, 100).unwrap();
    assert_eq!((&read.data[..], read.eof), (&[0; 5][..], true));
    store
        .write(&AT, &Cred::root(), ino, 1 << 20, &[0; 4096])
        .unwrap();
    let hash = store.state_hash().unwrap();
    // As at whoever gets this state: zeros are left out on the way.
    let data = disk.open(Path::new(&data_path(ino)), false).unwrap();
    data.punch(1 << 20, 4096).unwrap();
    assert_eq!(
        hash,
        store.state_hash().unwrap(),
        "written zeros are a hole"
    );
}

#[test]
fn a_checkpoint_needs_the_position_of_what_was_applied() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open_store(&open_disk(root.path()));
    file(&mut store, b"a");
    store.set_position(common::position(1)).unwrap();
    file(&mut store, b"b");
    assert!(matches!(store.freeze(), Err(FsError::Fatal(why)) if why.contains("position")));
    store.set_position(common::position(2)).unwrap();
    assert_eq!(store.checkpoint().unwrap(), Some(common::position(2)));
}

#[test]
fn the_system_table_is_bounded() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open_store(&open_disk(root.path()));
    let long = vec![1; SYSTEM_VALUE_BYTES_MAX];
    store.system_put(b"k", Some(&long)).unwrap();
    let too_long = vec![1; SYSTEM_VALUE_BYTES_MAX + 1];
    assert_eq!(
        store.system_put(b"k", Some(&too_long)),
        Err(FsError::TooLarge)
    );
    assert_eq!(store.system_get(b"k").unwrap().unwrap(), long);
}

#[test]
fn a_file_may_be_as_long_as_the_limit_and_no_longer() {
    let root = tempfile::tempdir().unwrap();
    let disk = open_disk(root.path());
    let mut store = open_store(&disk);
    let ino = file(&mut store, b"a");
    let last = FILE_SIZE_MAX - 1;
    store.write(&AT, &Cred::root(), ino, last, b"x").unwrap();
    let before = store.attr(ino).unwrap();
    for (offset, data) in [
        (last, &b"xy"[..]),
        (FILE_SIZE_MAX, b"y"),
        (u64::MAX, b"y"),
        (u64::MAX - 1, b"yyyy"),
    ] {
        let refused = store.write(&AT, &Cred::root(), ino, offset, data);
        assert_eq!(refused, Err(FsError::TooLarge), "at {offset}");
    }
    assert_eq!(store.attr(ino).unwrap(), before);
    store.checkpoint().unwrap();
    drop(store);
    disk.forget();
    let store = open_store(&open_disk(root.path()));
    let read = store.read(&Cred::root(), ino, last - 1, 10).unwrap();
    assert_eq!((&read.data[..], read.eof), (&b"\0x"[..], true));
}

#[test]
fn cookies_are_never_given_twice() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open_store(&open_disk(root.path()));
    let cookies = |store: &Store| {
        let mut seen = Vec::new();
        store
            .readdir(&Cred::root(), Ino(1), Cookie(2), false, &mut |entry| {
                seen.push(entry.cookie.0);
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        seen
    };
    file(&mut store, b"a");
    store.remove(&AT, &Cred::root(), Ino(1), b"a").unwrap();
    store.checkpoint().unwrap();
    file(&mut store, b"a");
    assert_eq!(cookies(&store), [4]);
}

#[test]
fn a_failed_checkpoint_is_fatal_and_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let fail = Arc::new(AtomicBool::new(false));
    let failing = fail.clone();
    let disk = Arc::new(FaultyDisk::new(
        open_disk(root.path()),
        move |op, _| match op.is_flush() && failing.load(Ordering::Relaxed) {
            true => Err(io::Error::other("flush failed")),
            false => Ok(()),
        },
    ));
    let options = StoreOptions::default();
    let mut store = Store::open(disk.clone(), Path::new("store"), options).unwrap();
    let ino = file(&mut store, b"kept");
    store.set_position(common::position(1)).unwrap();
    store.checkpoint().unwrap();
    store.write(&AT, &Cred::root(), ino, 0, b"data").unwrap();
    store.set_position(common::position(2)).unwrap();

    fail.store(true, Ordering::Relaxed);
    assert!(matches!(store.checkpoint(), Err(FsError::Fatal(_))));
    assert_eq!(store.attr(ino).unwrap().size, 4, "still read");
    assert_eq!(
        &store.read(&Cred::root(), ino, 0, 9).unwrap().data[..],
        b"data"
    );
    assert_eq!(store.durable_position().unwrap(), Some(common::position(1)));
    fail.store(false, Ordering::Relaxed);
    let again = store.checkpoint();
    assert!(matches!(again, Err(FsError::Fatal(why)) if why.contains("last checkpoint failed")));
}

#[test]
fn a_file_system_with_smaller_files_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let disk = open_disk(root.path());
    let small = FaultyDisk::new(disk.clone(), |op, path| {
        match op == DiskOp::SetLen && path.ends_with("probe") {
            true => Err(io::ErrorKind::FileTooLarge.into()),
            false => Ok(()),
        }
    });
    let opened = Store::open(Arc::new(small), Path::new("store"), StoreOptions::default());
    let Err(FsError::Fatal(why)) = opened else {
        panic!("it was opened");
    };
    assert!(why.contains("takes no files of 17592186040320"), "{why}");
    let names = || disk.list(Path::new("store")).unwrap();
    assert_eq!(names(), Vec::<String>::new(), "nothing was made");
    drop(open_store(&disk));
    assert_eq!(names(), ["CURRENT", "gen-1"]);
}
