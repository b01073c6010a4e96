//! Files with holes: what catching up costs, at both ends, and that holes take no bytes of others with them.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use bytes::Bytes;
use common::{chunks, index_of, open_disk, open_store, position, receive};
use haven_disk::testing::{DiskOp, FaultyDisk};
use haven_disk::{Disk, Space, VolatileDisk};
use haven_fs::{Change, Create, Cred, Filesystem, Ino, SetAttr, Time};
use haven_store::{SnapshotError, Store, StoreOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// More changed ranges of one file than are kept apart between two checkpoints.
const MANY: u64 = 16_500;
const INO: Ino = Ino(2);

fn cred() -> Cred {
    Cred::root()
}

fn at(index: u64) -> Change {
    let time = Time {
        secs: index as i64,
        nanos: 0,
    };
    Change { index, time }
}

/// In memory where the machine has that: sparse files are large, and flushed.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

/// One step of a history of a single file; step 1 makes it.
type Step = dyn Fn(&mut Store, u64);

/// A store that has applied `steps` of a history, with a checkpoint at each of `checkpoints`.
struct Volume {
    disk: Arc<VolatileDisk>,
    store: Store,
    index: u64,
    _root: tempfile::TempDir,
}

impl Volume {
    fn new() -> Self {
        let root = scratch();
        let disk = open_disk(root.path());
        Self {
            store: open_store(&disk),
            disk,
            index: 0,
            _root: root,
        }
    }

    fn go(&mut self, upto: u64, step: &Step) {
        while self.index < upto {
            self.index += 1;
            step(&mut self.store, self.index);
        }
        self.store.set_applied(self.index);
        self.store.set_position(position(self.index)).unwrap();
    }

    fn checkpoint(&mut self, upto: u64, step: &Step) {
        self.go(upto, step);
        self.store.checkpoint().unwrap();
    }

    fn changes(&self, base: u64) -> Vec<Bytes> {
        let mut reader = self.store.snapshot_source().unwrap().unwrap();
        assert!(reader.since(base).unwrap(), "changes since {base}");
        chunks(&mut reader)
    }

    fn take(&mut self, sent: &[Bytes]) {
        let staged = receive(&self.store, sent).unwrap();
        self.store.install(staged).unwrap();
        self.index = index_of(self.store.position().unwrap());
    }

    /// Bytes of disk that the file takes when all that was cut off is given back.
    fn taken(&self) -> u64 {
        while self.store.cutter().piece(MIB).unwrap().is_some() {}
        let generations = self.disk.list(Path::new("store")).unwrap();
        let generation = generations.iter().find(|name| name.starts_with("gen-"));
        self.disk.taken(&data_file(generation.unwrap())).unwrap()
    }
}

fn data_file(generation: &str) -> PathBuf {
    Path::new("store")
        .join(generation)
        .join("data/02/0000000000000002")
}

fn bytes(sent: &[Bytes]) -> u64 {
    sent.iter().map(|chunk| chunk.len() as u64).sum()
}

fn create(store: &mut Store, index: u64) {
    let set = SetAttr {
        mode: Some(0o644),
        ..SetAttr::default()
    };
    let how = Create::Guarded(set);
    let made = store.create(&at(index), &cred(), store.root(), b"image", &how);
    assert_eq!(made.unwrap().ino, INO);
}

fn write(store: &mut Store, index: u64, offset: u64, data: &[u8]) {
    store.write(&at(index), &cred(), INO, offset, data).unwrap();
}

fn resize(store: &mut Store, index: u64, size: u64) {
    let set = SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    store.setattr(&at(index), &cred(), INO, &set, None).unwrap();
}

fn read(store: &Store, offset: u64, len: u32) -> Vec<u8> {
    store.read(&cred(), INO, offset, len).unwrap().data.to_vec()
}

#[test]
fn more_scattered_writes_than_are_kept_apart_cost_what_they_wrote() {
    const APART: u64 = 64 * KIB;
    // The first and the last byte, then one byte here and there in between.
    let step = |store: &mut Store, index: u64| match index {
        1 => create(store, index),
        2 => write(store, index, 0, b"first"),
        3 => write(store, index, MANY * APART, b"last"),
        _ => write(store, index, (index - 4) * APART, b"x"),
    };
    let (mut sender, mut receiver) = (Volume::new(), Volume::new());
    sender.checkpoint(3, &step);
    receiver.checkpoint(3, &step);
    sender.checkpoint(3 + MANY, &step);
    let wrote = sender.taken();
    assert!(wrote <= (MANY + 1) * 4 * KIB, "{wrote}");
    let sent = sender.changes(3);
    assert!(bytes(&sent) < 2 * wrote, "{} for {wrote}", bytes(&sent));
    receiver.take(&sent);
    assert!(
        receiver.taken() <= wrote,
        "{} for {wrote}",
        receiver.taken()
    );
    assert_eq!(receiver.store.state_hash(), sender.store.state_hash());
    // And whoever gets everything.
    let mut other = Volume::new();
    let sent = chunks(&mut sender.store.snapshot_source().unwrap().unwrap());
    assert!(bytes(&sent) < 2 * wrote, "{} for {wrote}", bytes(&sent));
    other.take(&sent);
    assert!(other.taken() <= wrote, "{} for {wrote}", other.taken());
    assert_eq!(other.store.state_hash(), sender.store.state_hash());
}

#[test]
fn a_hole_takes_the_place_of_old_data() {
    // Dense; then cut to nothing and written at three places.
    let step = |store: &mut Store, index: u64| match index {
        1 => create(store, index),
        2..=9 => write(store, index, (index - 2) * MIB, &vec![7; MIB as usize]),
        10 => resize(store, index, 0),
        11 => write(store, index, 5_000, &[8; 100]),
        12 => write(store, index, 4 * MIB + 77, &[9; 9_000]),
        _ => write(store, index, 7 * MIB, &[10; 10]),
    };
    let (mut sender, mut receiver) = (Volume::new(), Volume::new());
    sender.checkpoint(9, &step);
    receiver.checkpoint(9, &step);
    assert!(receiver.taken() >= 8 * MIB);
    sender.checkpoint(13, &step);
    let sent = sender.changes(9);
    assert!(bytes(&sent) < 100 * KIB, "{} bytes", bytes(&sent));
    receiver.take(&sent);
    assert!(receiver.taken() <= 32 * KIB, "{} bytes", receiver.taken());
    assert_eq!(receiver.store.state_hash(), sender.store.state_hash());
    assert_eq!(read(&receiver.store, 4 * MIB, 77), [0; 77]);
    // What came is durable with its checkpoint.
    receiver.disk.forget();
    let again = open_disk(receiver._root.path());
    assert_eq!(open_store(&again).state_hash(), sender.store.state_hash());
}

/// The receiver's disk ends at any operation while changes are installed whose ranges were joined, and whose last one goes
/// to the file's end. Then it gets changes from another leader, which knows its ranges one by one. Whatever the first
/// stream named beside what was changed must still be there.
#[test]
fn changes_that_were_joined_take_nothing_with_them_when_they_are_cut_off() {
    const APART: u64 = 4 * KIB;
    let blocks = 2 * MANY + 112;
    // All blocks, some hundred with each step; then the last ones go, and every other one is written again.
    let filled = 2 + blocks / 128;
    let step = move |store: &mut Store, index: u64| match index {
        1 => create(store, index),
        _ if index <= filled => {
            let first = (index - 2) * 128;
            write(store, index, first * APART, &vec![1; 128 * APART as usize]);
        }
        _ if index == filled + 1 => resize(store, index, (blocks - 5) * APART),
        _ => write(store, index, (index - filled - 2) * 2 * APART, &[2; 100]),
    };
    let end = filled + MANY + 1;
    let (mut first, mut second) = (Volume::new(), Volume::new());
    for sender in [&mut first, &mut second] {
        sender.checkpoint(filled, &step);
    }
    first.checkpoint(end, &step);
    // Its checkpoints are closer to each other.
    for upto in [filled + 5_000, filled + 10_000, filled + 15_000, end] {
        second.checkpoint(upto, &step);
    }
    let (joined, apart) = (first.changes(filled), second.changes(filled));
    let (mut cut_off, hash) = (0, second.store.state_hash());
    for power in [false, true] {
        for operations in [1, 2, 30] {
            let root = scratch();
            let disk = open_disk(root.path());
            let left = Arc::new(AtomicI64::new(i64::MAX));
            let (lost, count) = (Arc::clone(&disk), Arc::clone(&left));
            let watched = FaultyDisk::new(Arc::clone(&disk) as _, move |op, path| {
                let ends = matches!(op, DiskOp::Write | DiskOp::SetLen | DiskOp::Punch);
                if !ends || !path.starts_with("store/gen-1/data") {
                    return Ok(());
                }
                match count.fetch_sub(1, Ordering::SeqCst) {
                    ..=0 => Err(io::Error::other("the machine is off")),
                    1 if power => {
                        lost.forget_keeping(|| true);
                        Err(io::Error::other("the machine is off"))
                    }
                    _ => Ok(()),
                }
            });
            let options = StoreOptions {
                cache_bytes: 4 << 20,
            };
            let store = Store::open(Arc::new(watched), Path::new("store"), options).unwrap();
            let mut receiver = Volume {
                disk: Arc::clone(&disk),
                store,
                index: 0,
                _root: root,
            };
            receiver.checkpoint(filled, &step);
            let staged = receive(&receiver.store, &joined).unwrap();
            left.store(operations, Ordering::SeqCst);
            cut_off += usize::from(receiver.store.install(staged).is_err());
            disk.forget_keeping(|| true);
            let Volume { _root: root, .. } = receiver;
            let disk = open_disk(root.path());
            let mut receiver = Volume {
                store: open_store(&disk),
                disk,
                index: filled,
                _root: root,
            };
            if index_of(receiver.store.position().unwrap()) == filled {
                receiver.take(&apart);
            }
            assert_eq!(
                receiver.store.state_hash(),
                hash,
                "power {power}, {operations} operations"
            );
        }
    }
    assert!(cut_off >= 3, "{cut_off}");
}

/// A volume of three files of 40 MiB of data in 1 GiB, of which one changed after the base (index 4).
fn large() -> Volume {
    let step = |store: &mut Store, index: u64| match index {
        1 => create(store, index),
        2 => write(store, index, 1 << 30, b"end"),
        _ => write(
            store,
            index,
            (index - 3) * 100 * MIB,
            &vec![1; 8 * MIB as usize],
        ),
    };
    let mut volume = Volume::new();
    volume.checkpoint(4, &step);
    volume.checkpoint(9, &step);
    volume
}

#[test]
fn a_stream_that_does_not_fit_is_refused_with_its_first_chunk_and_says_what_is_missing() {
    let sender = large();
    let whole = chunks(&mut sender.store.snapshot_source().unwrap().unwrap());
    // The receiver has the base.
    let step = |store: &mut Store, index: u64| match index {
        1 => create(store, index),
        2 => write(store, index, 1 << 30, b"end"),
        _ => write(
            store,
            index,
            (index - 3) * 100 * MIB,
            &vec![1; 8 * MIB as usize],
        ),
    };
    let (root, free) = (scratch(), Arc::new(AtomicU64::new(u64::MAX)));
    let disk = open_disk(root.path());
    let told = Arc::clone(&free);
    let small =
        FaultyDisk::new(Arc::clone(&disk) as _, |_, _| Ok(())).with_space(move |space| Space {
            free_bytes: told.load(Ordering::SeqCst),
            ..space
        });
    let options = StoreOptions {
        cache_bytes: 4 << 20,
    };
    let store = Store::open(Arc::new(small), Path::new("store"), options).unwrap();
    let mut receiver = Volume {
        disk,
        store,
        index: 0,
        _root: root,
    };
    receiver.checkpoint(4, &step);
    let changed = sender.changes(4);
    for (sent, partial, needs) in [(&whole, false, 56), (&changed, true, 2 * 40)] {
        let refused = |free_mib: u64| {
            free.store(free_mib * MIB, Ordering::SeqCst);
            let mut writer = receiver.store.receive();
            let first = writer.push(&sent[0]);
            match first {
                Ok(()) => None,
                Err(error @ SnapshotError::NoRoom { .. }) => Some(error),
                Err(error) => panic!("{error}"),
            }
        };
        let names = receiver.disk.list(Path::new("store")).unwrap();
        let error = refused(needs).unwrap();
        let SnapshotError::NoRoom {
            need_bytes,
            free_bytes,
            partial: said,
        } = error
        else {
            panic!("{error}");
        };
        assert!(said == partial && free_bytes == needs * MIB);
        assert!(
            (needs * MIB..(needs + 80) * MIB).contains(&need_bytes),
            "{need_bytes}"
        );
        let missing = need_bytes.div_ceil(MIB) - needs;
        let words = error.to_string();
        assert!(
            words.contains(&format!("{missing} MiB are missing")),
            "{words}"
        );
        assert!(words.contains("more space"), "{words}");
        assert!(refused(needs + 80).is_none());
        assert_eq!(receiver.disk.list(Path::new("store")).unwrap(), names);
    }
    // Space that goes while a stream comes.
    free.store(1 << 40, Ordering::SeqCst);
    let mut writer = receiver.store.receive();
    writer.push(&whole[0]).unwrap();
    free.store(10 * MIB, Ordering::SeqCst);
    let mut rest = whole[1..].iter().map(|chunk| writer.push(chunk));
    let refused = rest.find(Result::is_err).unwrap();
    assert!(
        matches!(refused, Err(SnapshotError::NoRoom { .. })),
        "{refused:?}"
    );
    drop(rest);
    drop(writer);
    // Or before what came is put in its place: nothing of the state has changed.
    let before = receiver.store.state_hash();
    free.store(1 << 40, Ordering::SeqCst);
    let mut writer = receiver.store.receive();
    let (last, others) = changed.split_last().unwrap();
    others.iter().for_each(|chunk| writer.push(chunk).unwrap());
    free.store(70 * MIB, Ordering::SeqCst);
    let refused = writer.push(last);
    drop(writer);
    assert!(
        matches!(refused, Err(SnapshotError::NoRoom { .. })),
        "{refused:?}"
    );
    assert_eq!(receiver.store.state_hash(), before);
    free.store(1 << 40, Ordering::SeqCst);
    receiver.take(&changed);
    assert_eq!(receiver.store.state_hash(), sender.store.state_hash());
}
