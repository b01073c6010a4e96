//! Streams of changes: a receiver that stopped somewhere gets only what it lacks, whatever happens on the way.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use bytes::Bytes;
use common::{
    Twins, assert_clean, chunks, every_damage_is_refused, index_of, model_at, open_disk,
    open_store, position, receive,
};
use haven_disk::VolatileDisk;
use haven_disk::testing::FaultyDisk;
use haven_fs::{Change, Create, Cred, Filesystem, Ino, SetAttr, Time};
use haven_store::{SnapshotError, Store, StoreOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// What `sender` sends to a node with this base; it must know what changed since.
fn changes(sender: &Store, base: u64) -> Vec<Bytes> {
    let mut reader = sender.snapshot_source().unwrap().unwrap();
    assert!(reader.since(base).unwrap(), "changes since {base}");
    chunks(&mut reader)
}

/// The history `seed` up to `upto`, with a checkpoint each `every` steps.
fn history(root: &Path, seed: u64, upto: u64, every: u64) -> Twins {
    let mut twins = Twins::new(open_store(&open_disk(root)), seed);
    while twins.index < upto {
        twins.steps(every.min(upto - twins.index));
        twins.store.checkpoint().unwrap();
    }
    twins
}

/// The twins of a store at its position.
fn resumed(store: Store, seed: u64) -> Twins {
    Twins::resumed(store, seed)
}

/// Goes on to the sender's position and compares everything.
fn follow(mut receiver: Twins, sender: &Twins) {
    receiver.steps(sender.index - receiver.index);
    receiver.assert_equal();
    assert_eq!(receiver.store.state_hash(), sender.store.state_hash());
    receiver.store.checkpoint().unwrap();
}

#[test]
fn a_receiver_of_changes_that_replays_equals_the_sender() {
    for seed in 61..69 {
        for (base, ahead, restarts) in [
            (40, 0, false),
            (40, 25, false),
            (40, 25, true),
            (90, 9, true),
        ] {
            let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let mut receiver = history(other_root.path(), seed, base, base);
            // It went on after its checkpoint, and perhaps crashed.
            receiver.steps(ahead);
            if restarts {
                receiver = resumed(reopen(receiver, other_root.path()), seed);
                assert_eq!(receiver.index, base);
            }
            assert_eq!(receiver.store.base_index().unwrap(), Some(base));

            let mut sender = history(root.path(), seed, 150, 17);
            let mut reader = sender.store.snapshot_source().unwrap().unwrap();
            assert!(reader.since(base).unwrap());
            let mut sent = Vec::new();
            // The sender goes on working, and checkpoints, while it sends.
            while let Some(chunk) = reader.next_chunk().unwrap() {
                sent.push(chunk);
                sender.steps(3);
                sender.store.checkpoint().unwrap();
            }
            let staged = receive(&receiver.store, &sent).unwrap();
            assert!(staged.is_partial());
            receiver.store.install(staged).unwrap();
            assert_eq!(index_of(receiver.store.durable_position().unwrap()), 150);
            assert_eq!(receiver.store.base_index().unwrap(), Some(150));

            // What was installed survives a crash at once, and can be sent on as changes.
            let store = reopen(receiver, other_root.path());
            assert_clean_while_open(&store, other_root.path());
            let receiver = resumed(store, seed);
            assert_eq!(receiver.index, 150);
            follow(receiver, &sender);
            assert_clean(other_root.path());
        }
    }
}

fn assert_clean_while_open(store: &Store, _root: &Path) {
    assert!(store.position().unwrap().is_some());
}

/// The store after a crash of its process: what was written to files is there, checkpoint or not.
fn reopen(twins: Twins, root: &Path) -> Store {
    drop(twins);
    open_store(&open_disk(root))
}

#[test]
fn changes_can_be_sent_on_by_whoever_received_changes() {
    const SEED: u64 = 71;
    let roots: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut third = history(roots[2].path(), SEED, 30, 30);
    let mut second = history(roots[1].path(), SEED, 60, 20);
    let first = history(roots[0].path(), SEED, 140, 20);
    let staged = receive(&second.store, &changes(&first.store, 60)).unwrap();
    second.store.install(staged).unwrap();
    // Its own records go back to 20, and the one it made of what it received goes on from 60.
    let sent = changes(&second.store, 30);
    let staged = receive(&third.store, &sent).unwrap();
    third.store.install(staged).unwrap();
    third.index = 140;
    third.model = model_at(SEED, 140);
    follow(third, &first);
}

#[test]
fn whoever_got_a_whole_snapshot_is_a_base() {
    const SEED: u64 = 72;
    let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut sender = history(root.path(), SEED, 60, 20);
    let mut receiver = open_store(&open_disk(other_root.path()));
    assert_eq!(
        receiver.base_index().unwrap(),
        None,
        "nothing was applied yet"
    );
    let sent = chunks(&mut sender.store.snapshot_source().unwrap().unwrap());
    let staged = receive(&receiver, &sent).unwrap();
    assert!(!staged.is_partial());
    receiver.install(staged).unwrap();
    assert_eq!(receiver.base_index().unwrap(), Some(60));
    sender.steps(50);
    sender.store.checkpoint().unwrap();
    let staged = receive(&receiver, &changes(&sender.store, 60)).unwrap();
    receiver.install(staged).unwrap();
    follow(resumed(receiver, SEED), &sender);
}

#[test]
fn an_unknown_base_gets_everything() {
    const SEED: u64 = 73;
    let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sender = history(root.path(), SEED, 100, 20);
    for base in [0, 10, 19, 100, 101, u64::MAX] {
        let mut reader = sender.store.snapshot_source().unwrap().unwrap();
        assert!(!reader.since(base).unwrap(), "base {base}");
    }
    // Its history begins with its first checkpoint.
    let mut reader = sender.store.snapshot_source().unwrap().unwrap();
    assert!(reader.since(20).unwrap());
    // Changes since a state that the receiver has not reached are of no use to it.
    let receiver = history(other_root.path(), SEED, 10, 10);
    let result = receive(&receiver.store, &chunks(&mut reader)).map(drop);
    assert!(matches!(result, Err(SnapshotError::Bad(_))), "{result:?}");
    follow(receiver, &sender);
}

#[test]
fn changes_for_another_history_are_doubted() {
    let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sender = history(root.path(), 74, 120, 20);
    let receiver = history(other_root.path(), 75, 40, 20);
    let hash = receiver.store.state_hash().unwrap();
    let result = receive(&receiver.store, &changes(&sender.store, 40)).map(drop);
    let Err(SnapshotError::Bad(why)) = result else {
        panic!("{result:?}");
    };
    assert!(why.contains("do not fit"), "{why}");
    assert_eq!(
        receiver.store.base_index().unwrap(),
        None,
        "next time everything"
    );
    assert_eq!(receiver.store.state_hash().unwrap(), hash);
    // Which puts it right.
    let mut receiver = receiver;
    let sent = chunks(&mut sender.store.snapshot_source().unwrap().unwrap());
    let staged = receive(&receiver.store, &sent).unwrap();
    receiver.store.install(staged).unwrap();
    assert_eq!(receiver.store.base_index().unwrap(), Some(120));
}

#[test]
fn every_damaged_stream_of_changes_is_refused() {
    const SEED: u64 = 76;
    let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sender = history(root.path(), SEED, 130, 30);
    let disk = open_disk(other_root.path());
    let mut receiver = Twins::new(open_store(&disk), SEED);
    receiver.steps(30);
    receiver.store.checkpoint().unwrap();
    let sent = changes(&sender.store, 30);
    assert!(sent.len() > 5, "rows and several files");
    let hash = receiver.store.state_hash().unwrap();
    every_damage_is_refused(&receiver.store, &sent);
    assert_eq!(receiver.store.state_hash().unwrap(), hash);
    let names = haven_disk::Disk::list(disk.as_ref(), Path::new("store")).unwrap();
    assert_eq!(
        names,
        ["CURRENT", "gen-1"],
        "nothing stays of refused streams"
    );
}

/// A disk that ends at an operation: nothing works from there on. With `power`, what was not flushed is lost.
fn dying(root: &Path, left: &Arc<AtomicI64>, power: bool) -> (Arc<VolatileDisk>, FaultyDisk) {
    let (disk, left) = (open_disk(root), Arc::clone(left));
    let lost = Arc::clone(&disk);
    let watched = FaultyDisk::new(Arc::clone(&disk) as _, move |_, _| {
        let left = left.fetch_sub(1, Ordering::SeqCst);
        if left == 1 && power {
            lost.forget();
        }
        match left <= 1 {
            true => Err(io::Error::other("the machine is off")),
            false => Ok(()),
        }
    });
    (disk, watched)
}

/// Installs changes on a disk that ends at each operation in turn. Afterwards the node meets another leader,
/// whose checkpoint is an older one: it gets changes from there, or goes on by itself.
fn killed_anywhere(power: bool) {
    const SEED: u64 = 77;
    const BASE: u64 = 40;
    let root = tempfile::tempdir().unwrap();
    let older_root = tempfile::tempdir().unwrap();
    let sender = history(root.path(), SEED, 140, 20);
    let older = history(older_root.path(), SEED, 100, 20);
    let sent = changes(&sender.store, BASE);
    let (mut old, mut new, mut done) = (0, 0, false);
    let mut at = 1;
    while !done {
        let receiver_root = tempfile::tempdir().unwrap();
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let (disk, watched) = dying(receiver_root.path(), &left, power);
        let options = StoreOptions {
            cache_bytes: 4 << 20,
        };
        let store = Store::open(Arc::new(watched), Path::new("store"), options).unwrap();
        let mut receiver = Twins::new(store, SEED);
        receiver.steps(BASE);
        receiver.store.checkpoint().unwrap();
        receiver.steps(12);
        let staged = receive(&receiver.store, &sent).unwrap();
        left.store(at, Ordering::SeqCst);
        done = receiver.store.install(staged).is_ok();
        if power {
            disk.forget();
        }
        drop((receiver, disk));
        assert_clean(receiver_root.path());
        let store = open_store(&open_disk(receiver_root.path()));
        let mut receiver = match index_of(store.position().unwrap()) {
            140 => {
                new += 1;
                resumed(store, SEED)
            }
            BASE => {
                old += 1;
                resumed(store, SEED)
            }
            other => panic!("position {other} is neither"),
        };
        assert!(!done || receiver.index == 140, "an installation is gone");
        if receiver.index == BASE {
            // Some files are ahead. It applies a little of its own log, and meets the other leader.
            receiver.steps(at as u64 % 9);
            receiver.store.checkpoint().unwrap();
            let base = receiver.store.base_index().unwrap().unwrap();
            let staged = receive(&receiver.store, &changes(&older.store, base)).unwrap();
            receiver.store.install(staged).unwrap();
            receiver = resumed(receiver.store, SEED);
            assert_eq!(receiver.index, 100);
        }
        follow(receiver, &sender);
        assert_clean(receiver_root.path());
        at += 1 + at / 12;
    }
    assert!(
        old > 8 && new > 0,
        "{old} times the old state, {new} times the new one"
    );
}

#[test]
fn an_installation_of_changes_that_is_killed_anywhere_does_no_harm() {
    killed_anywhere(false);
}

#[test]
fn an_installation_of_changes_that_loses_power_anywhere_does_no_harm() {
    killed_anywhere(true);
}

fn at(index: u64) -> Change {
    let time = Time::default();
    Change { index, time }
}

fn name(n: u64) -> Vec<u8> {
    format!("file-{n}").into_bytes()
}

/// A file of `len` bytes.
fn put(store: &mut Store, index: u64, n: u64, len: usize) -> Ino {
    let cred = Cred::root();
    let how = Create::Unchecked(SetAttr::default());
    let file = store
        .create(&at(index), &cred, Ino(1), &name(n), &how)
        .unwrap();
    store
        .write(&at(index), &cred, file.ino, 0, &vec![n as u8 | 1; len])
        .unwrap();
    file.ino
}

fn applied(store: &mut Store, index: u64) {
    store.set_applied(index);
    store.set_position(position(index)).unwrap();
}

fn bytes(sent: &[Bytes]) -> usize {
    sent.iter().map(Bytes::len).sum()
}

#[test]
fn twenty_of_five_thousand_files_cost_what_twenty_cost() {
    let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut sender = open_store(&open_disk(root.path()));
    let mut receiver = open_store(&open_disk(other_root.path()));
    for store in [&mut sender, &mut receiver] {
        for n in 0..5_000 {
            put(store, n + 1, n, 700);
        }
        // One of them is large.
        put(store, 5_000, 7, 8 << 20);
        applied(store, 5_000);
        store.checkpoint().unwrap();
    }
    for n in 0..19 {
        put(&mut sender, 5_001 + n, n * 250, 2_000);
    }
    let cred = Cred::root();
    let big = sender.lookup(&cred, Ino(1), &name(7)).unwrap().ino;
    sender
        .write(&at(5_020), &cred, big, 5 << 20, &[9; 3_000])
        .unwrap();
    sender
        .remove(&at(5_021), &cred, Ino(1), &name(4_999))
        .unwrap();
    applied(&mut sender, 5_021);
    sender.checkpoint().unwrap();

    let all = bytes(&chunks(&mut sender.snapshot_source().unwrap().unwrap()));
    let sent = changes(&sender, 5_000);
    let changed = 19 * 2_000 + 3_000;
    assert!(
        bytes(&sent) < 2 * changed,
        "{} bytes sent for {changed}",
        bytes(&sent)
    );
    assert!(all > 10 << 20, "{all}");
    let staged = receive(&receiver, &sent).unwrap();
    receiver.install(staged).unwrap();
    assert_eq!(receiver.state_hash(), sender.state_hash());
}

#[test]
fn history_is_bounded_and_says_where_it_begins() {
    let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut sender = open_store(&open_disk(root.path()));
    // More checkpoints than records are kept.
    for index in 1..=1_030 {
        put(&mut sender, index, index, 10);
        applied(&mut sender, index);
        sender.checkpoint().unwrap();
    }
    for (base, known) in [(1, false), (5, false), (6, true), (1_029, true)] {
        let mut reader = sender.snapshot_source().unwrap().unwrap();
        assert_eq!(reader.since(base), Ok(known), "base {base}");
    }
    let mut receiver = open_store(&open_disk(other_root.path()));
    for index in 1..=6 {
        put(&mut receiver, index, index, 10);
    }
    applied(&mut receiver, 6);
    receiver.checkpoint().unwrap();
    let staged = receive(&receiver, &changes(&sender, 6)).unwrap();
    receiver.install(staged).unwrap();
    assert_eq!(receiver.state_hash(), sender.state_hash());
}

#[test]
fn a_change_without_its_index_ends_the_history() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open_store(&open_disk(root.path()));
    for index in [1, 2] {
        put(&mut store, index, index, 10);
        applied(&mut store, index);
        store.checkpoint().unwrap();
    }
    let since = |store: &Store, base| store.snapshot_source().unwrap().unwrap().since(base);
    assert_eq!(since(&store, 1), Ok(true));
    put(&mut store, 3, 3, 10);
    store.set_position(position(3)).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(since(&store, 1), Ok(false));
    put(&mut store, 4, 4, 10);
    applied(&mut store, 4);
    store.checkpoint().unwrap();
    assert_eq!((since(&store, 2), since(&store, 3)), (Ok(false), Ok(true)));
}
