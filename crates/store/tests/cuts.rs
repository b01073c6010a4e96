//! Cuts of large files: done at once for everybody, given back to the device later and piece by piece.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::{Rng, Twins, assert_clean, findings, open_disk, open_store, position};
use haven_disk::testing::{DiskOp, FaultyDisk};
use haven_disk::{Disk, RealDisk, VolatileDisk, renew};
use haven_fs::{Change, Create, Cred, Filesystem, Ino, SetAttr, Time};
use haven_store::{Problem, Store, StoreOptions};
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;

fn at(index: u64) -> Change {
    let time = Time {
        secs: index as i64,
        nanos: 0,
    };
    Change { index, time }
}

/// A store with changes that have positions.
struct Subject {
    store: Store,
    index: u64,
}

impl Subject {
    fn new(disk: Arc<dyn Disk>) -> Self {
        let store = Store::open(disk, Path::new("store"), StoreOptions::default()).unwrap();
        Self {
            index: common::index_of(store.position().unwrap()),
            store,
        }
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Store, &Change) -> T) -> T {
        self.index += 1;
        let result = change(&mut self.store, &at(self.index));
        self.store.set_applied(self.index);
        self.store.set_position(position(self.index)).unwrap();
        result
    }

    fn file(&mut self, name: &str) -> Ino {
        let how = Create::Guarded(SetAttr::default());
        self.change(|store, at| {
            let (cred, root) = (Cred::root(), store.root());
            store.create(at, &cred, root, name.as_bytes(), &how)
        })
        .unwrap()
        .ino
    }

    fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) {
        self.change(|store, at| store.write(at, &Cred::root(), ino, offset, data))
            .unwrap();
    }

    /// Fills a file with bytes that are not zero.
    fn fill(&mut self, ino: Ino, bytes: u64) {
        for offset in (0..bytes).step_by(MIB as usize) {
            let len = MIB.min(bytes - offset) as usize;
            self.write(ino, offset, &vec![7; len]);
        }
    }

    fn resize(&mut self, ino: Ino, size: u64) {
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        self.change(|store, at| store.setattr(at, &Cred::root(), ino, &set, None))
            .unwrap();
    }

    fn remove(&mut self, name: &str) {
        self.change(|store, at| {
            let root = store.root();
            store.remove(at, &Cred::root(), root, name.as_bytes())
        })
        .unwrap();
    }

    fn read(&self, ino: Ino, offset: u64, len: u32) -> Vec<u8> {
        let read = self.store.read(&Cred::root(), ino, offset, len).unwrap();
        read.data.to_vec()
    }

    /// Whether the file's bytes are these runs: how long, and of what.
    fn assert_runs(&self, ino: Ino, runs: &[(u64, u8)]) {
        let expected: Vec<u8> = runs
            .iter()
            .flat_map(|(len, byte)| std::iter::repeat_n(*byte, *len as usize))
            .collect();
        let read = self.read(ino, 0, u32::MAX);
        let differs = read.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!((read.len(), differs), (expected.len(), None));
    }

    /// Gives everything back in pieces of this size; how many there were.
    fn give_back(&self, most: u64) -> usize {
        let cutter = self.store.cutter();
        std::iter::from_fn(|| cutter.piece(most).unwrap()).count()
    }
}

fn data_path(ino: Ino) -> PathBuf {
    PathBuf::from(format!(
        "store/gen-1/data/{:02x}/{:016x}",
        ino.0 & 0xff,
        ino.0
    ))
}

/// A disk that counts cuts and holes made.
fn counting(root: &Path) -> (Arc<dyn Disk>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let disk = FaultyDisk::new(Arc::new(RealDisk::open(root).unwrap()), move |op, path| {
        let is_data = path.starts_with("store/gen-1/data") && !path.ends_with(renew::PROBE);
        if is_data && matches!(op, DiskOp::SetLen | DiskOp::Punch | DiskOp::RemoveFile) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    (Arc::new(disk), count)
}

#[test]
fn no_change_gives_much_space_back_and_what_was_cut_off_reads_as_zeros() {
    let root = tempfile::tempdir().unwrap();
    let (disk, cuts) = counting(root.path());
    let mut s = Subject::new(Arc::clone(&disk));
    let [cut, gone, rewritten] = ["cut", "gone", "rewritten"].map(|name| s.file(name));
    for ino in [cut, gone, rewritten] {
        s.fill(ino, 8 * MIB);
    }
    s.resize(cut, 3 * MIB + 5);
    s.resize(cut, 8 * MIB);
    s.remove("gone");
    s.resize(rewritten, 0);
    s.write(rewritten, 5 * MIB, b"end");
    s.write(cut, 6 * MIB + 1, &[9; 70_000]);
    assert_eq!(
        cuts.load(Ordering::Relaxed),
        0,
        "no change touched the device"
    );
    let seen = |s: &Subject| {
        let after = 2 * MIB - 1 - 70_000;
        s.assert_runs(
            cut,
            &[(3 * MIB + 5, 7), (3 * MIB - 4, 0), (70_000, 9), (after, 0)],
        );
        s.assert_runs(rewritten, &[(5 * MIB, 0), (1, b'e'), (1, b'n'), (1, b'd')]);
        s.store.state_hash().unwrap()
    };
    let hash = seen(&s);
    let (files, bytes) = s.store.cutter().left();
    assert_eq!((files, bytes), (2, 13 * MIB - 5 - 70_000 - 3));
    assert!(s.give_back(MIB) >= 13);
    assert_eq!(s.store.cutter().left(), (0, 0));
    assert_eq!(seen(&s), hash);
    let taken = |ino| disk.taken(&data_path(ino)).unwrap();
    assert!(taken(cut) < 4 * MIB && taken(rewritten) < 64 * KIB);
    assert!(taken(gone) >= 8 * MIB, "no checkpoint was made yet");

    // Small ones are not worth the trouble.
    let before = cuts.load(Ordering::Relaxed);
    s.resize(cut, 6 * MIB + 10_000);
    assert_eq!(cuts.load(Ordering::Relaxed), before + 1);
    assert_eq!(s.store.cutter().left(), (0, 0));
}

#[test]
fn a_large_removed_file_is_cut_down_before_it_is_unlinked() {
    let root = tempfile::tempdir().unwrap();
    let (disk, cuts) = counting(root.path());
    let mut s = Subject::new(Arc::clone(&disk));
    let (large, small) = (s.file("large"), s.file("small"));
    s.fill(large, 8 * MIB);
    s.fill(small, 64 * KIB);
    s.store.checkpoint().unwrap();
    s.remove("large");
    s.remove("small");
    s.store.checkpoint().unwrap();
    assert_eq!(s.give_back(MIB), 0, "a crash may still bring it back");
    s.store.checkpoint().unwrap();
    let there = |ino| disk.exists(&data_path(ino)).unwrap();
    assert!(there(large) && !there(small));
    assert_eq!(cuts.load(Ordering::Relaxed), 1, "the small one");
    assert_eq!(s.store.cutter().left(), (1, 0));
    // A restart in the middle.
    assert_eq!(s.store.cutter().piece(2 * MIB), Ok(Some(2 * MIB)));
    drop(s);
    let mut s = Subject::new(Arc::clone(&disk));
    s.store.checkpoint().unwrap();
    assert!(there(large) && s.give_back(2 * MIB) >= 2);
    assert!(disk.taken(&data_path(large)).unwrap() <= MIB);
    s.change(|_, _| ());
    s.store.checkpoint().unwrap();
    assert!(!there(large));
    s.change(|_, _| ());
    s.store.checkpoint().unwrap();
    drop((s, disk));
    assert_eq!(findings(root.path()), []);
}

/// A file of 2 MiB cut to nothing, of which a checkpoint knows, on a disk that forgets.
fn cut_and_known(root: &Path) -> (Arc<VolatileDisk>, Subject, Ino) {
    let disk = open_disk(root);
    let mut s = Subject::new(disk.clone());
    let ino = s.file("f");
    s.fill(ino, 2 * MIB);
    s.store.checkpoint().unwrap();
    s.resize(ino, 0);
    s.store.checkpoint().unwrap();
    (disk, s, ino)
}

#[test]
fn what_remains_is_known_after_a_loss_of_power() {
    let root = tempfile::tempdir().unwrap();
    let (disk, s, ino) = cut_and_known(root.path());
    drop(s);
    disk.forget_keeping(|| true);
    assert_clean(root.path());
    let notes = findings(root.path());
    assert!(notes.iter().any(|note| note.problem == Problem::DataLonger));
    let mut s = Subject::new(open_disk(root.path()));
    assert_eq!(s.store.cutter().left(), (1, 2 * MIB));
    s.resize(ino, 2 * MIB);
    s.assert_runs(ino, &[(2 * MIB, 0)]);
    s.write(ino, MIB, b"x");
    s.store.checkpoint().unwrap();
    drop(s);
    let s = Subject::new(open_disk(root.path()));
    let after = [(MIB, 0), (1, b'x'), (MIB - 1, 0)];
    s.assert_runs(ino, &after);
    s.give_back(300 * KIB);
    s.assert_runs(ino, &after);
}

#[test]
fn a_checkpoint_that_forgets_remains_has_given_them_back() {
    let root = tempfile::tempdir().unwrap();
    let (disk, mut s, ino) = cut_and_known(root.path());
    // In the middle of the file, so that it is a hole.
    s.resize(ino, 2 * MIB);
    s.write(ino, 2 * MIB - 1, b"x");
    s.store.checkpoint().unwrap();
    assert!(s.give_back(MIB) >= 2);
    s.change(|_, _| ());
    s.store.checkpoint().unwrap();
    drop(s);
    disk.forget_keeping(|| false);
    let s = Subject::new(open_disk(root.path()));
    assert_eq!(s.store.cutter().left(), (0, 0));
    s.assert_runs(ino, &[(2 * MIB - 1, 0), (1, b'x')]);
}

#[test]
fn what_is_given_back_while_a_checkpoint_is_under_way_is_zeros_after_any_loss_of_power() {
    for keep in [true, false] {
        for when in 0..3 {
            let root = tempfile::tempdir().unwrap();
            let (disk, mut s, ino) = cut_and_known(root.path());
            s.resize(ino, 2 * MIB);
            s.write(ino, MIB, &[5; 10]);
            let give_back = |s: &Subject, now: i32| {
                if now == when {
                    s.give_back(200 * KIB);
                }
            };
            give_back(&s, 0);
            let job = s.store.freeze().unwrap().unwrap();
            give_back(&s, 1);
            let done = job.run().unwrap();
            give_back(&s, 2);
            s.store.finish_checkpoint(&done).unwrap();
            drop((s, done));
            disk.forget_keeping(|| keep);
            let s = Subject::new(open_disk(root.path()));
            s.assert_runs(ino, &[(MIB, 0), (10, 5), (MIB - 10, 0)]);
        }
    }
}

#[test]
fn whatever_the_device_refuses_stays_hidden_and_is_tried_again() {
    let root = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = Arc::clone(&broken);
    let real = Arc::new(RealDisk::open(root.path()).unwrap());
    let disk = FaultyDisk::new(real, move |op, _| {
        let refuses = breaks.load(Ordering::Relaxed);
        match op {
            DiskOp::SetLen | DiskOp::Punch if refuses => Err(io::Error::other("worn out")),
            _ => Ok(()),
        }
    });
    let mut s = Subject::new(Arc::new(disk));
    let ino = s.file("f");
    s.fill(ino, MIB);
    s.resize(ino, 0);
    s.resize(ino, MIB);
    broken.store(true, Ordering::Relaxed);
    let why = s.store.cutter().piece(MIB).unwrap_err().to_string();
    assert!(
        why.contains("give back") && why.contains("worn out"),
        "{why}"
    );
    s.assert_runs(ino, &[(MIB, 0)]);
    s.write(ino, 7, b"x");
    broken.store(false, Ordering::Relaxed);
    s.give_back(MIB);
    s.assert_runs(ino, &[(7, 0), (1, b'x'), (MIB - 8, 0)]);
}

#[test]
fn pieces_are_given_back_beside_changes() {
    for seed in 300..304 {
        let root = tempfile::tempdir().unwrap();
        let mut twins = Twins::new(open_store(&open_disk(root.path())), seed);
        let over = AtomicBool::new(false);
        let cutter = twins.store.cutter();
        let pieces = std::thread::scope(|scope| {
            let pump = scope.spawn(|| {
                let (mut rng, mut pieces) = (Rng(seed), 0);
                while !over.load(Ordering::Relaxed) {
                    match cutter.piece(1 + rng.below(30_000)).unwrap() {
                        Some(_) => pieces += 1,
                        None => std::thread::yield_now(),
                    }
                }
                pieces
            });
            for _ in 0..40 {
                twins.steps(20);
                twins.store.checkpoint().unwrap();
            }
            over.store(true, Ordering::Relaxed);
            pump.join().unwrap()
        });
        twins.assert_equal();
        assert!(pieces > 10, "seed {seed}: {pieces} pieces");
    }
}

#[test]
fn ranges_that_remain_are_bounded() {
    const STEP: u64 = 200 * KIB;
    let root = tempfile::tempdir().unwrap();
    let (disk, cuts) = counting(root.path());
    let mut s = Subject::new(disk);
    let ino = s.file("f");
    let (count, last) = (17_000, 17_000 * STEP);
    s.write(ino, last, b"far");
    s.resize(ino, 0);
    for n in 0..count {
        s.write(ino, n * STEP + 9, b"x");
    }
    let given_back = cuts.load(Ordering::Relaxed) as u64;
    assert!((600..650).contains(&given_back), "{given_back}");
    for n in [0, 1, 9_000, count - 1] {
        let around = s.read(ino, n * STEP, 20);
        assert_eq!(around.iter().position(|&byte| byte != 0), Some(9));
    }
    s.store.checkpoint().unwrap();
    assert!(s.give_back(u64::MAX) > 16_000);
}

/// Long enough for something that does not wait.
const MOMENT: Duration = Duration::from_millis(100);

#[test]
fn a_piece_and_a_write_of_one_file_wait_for_each_other() {
    for first in [DiskOp::Write, DiskOp::SetLen] {
        let root = tempfile::tempdir().unwrap();
        let (tell, told) = mpsc::channel();
        let (go_on, go) = mpsc::channel::<()>();
        let go = Mutex::new(go);
        let held = Arc::new(AtomicBool::new(false));
        let holds = Arc::clone(&held);
        let real = Arc::new(RealDisk::open(root.path()).unwrap());
        // Tells of both, and holds the one that comes first until told.
        let disk = FaultyDisk::new(real, move |op, path| {
            if path.starts_with("store/gen-1/data") && matches!(op, DiskOp::Write | DiskOp::SetLen)
            {
                let _ = tell.send(op);
                if op == first && holds.swap(false, Ordering::Relaxed) {
                    go.lock().recv().unwrap();
                }
            }
            Ok(())
        });
        let mut s = Subject::new(Arc::new(disk));
        let ino = s.file("f");
        s.fill(ino, MIB);
        s.resize(ino, 0);
        let cutter = s.store.cutter();
        let _before: Vec<_> = told.try_iter().collect();
        held.store(true, Ordering::Relaxed);
        // The write goes past the end: where the cut would take it off again.
        let write = || s.write(ino, 2 * MIB, b"new");
        let piece = || {
            cutter.piece(MIB).unwrap();
        };
        std::thread::scope(|scope| {
            let begun = || assert_eq!(told.recv(), Ok(first));
            let not_yet = || {
                let other = told.recv_timeout(MOMENT);
                go_on.send(()).unwrap();
                assert!(other.is_err(), "it did not wait");
            };
            if first == DiskOp::Write {
                scope.spawn(write);
                begun();
                scope.spawn(piece);
                not_yet();
            } else {
                scope.spawn(piece);
                begun();
                scope.spawn(write);
                not_yet();
            }
        });
        s.assert_runs(ino, &[(2 * MIB, 0), (1, b'n'), (1, b'e'), (1, b'w')]);
        s.give_back(MIB);
        s.assert_runs(ino, &[(2 * MIB, 0), (1, b'n'), (1, b'e'), (1, b'w')]);
    }
}
