//! The power goes at every single flush of a checkpoint and of an installation.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::{Twins, assert_clean, diff, index_of, model_at, open_disk, open_store, picture};
use haven_disk::VolatileDisk;
use haven_disk::testing::{DiskOp, FaultyDisk};
use haven_store::{SnapshotReader, Store, StoreOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A disk that loses its power at the flush that brings `left` to zero, before it happens.
struct Doomed {
    disk: Arc<VolatileDisk>,
    left: Arc<AtomicI64>,
    watched: FaultyDisk,
}

impl Doomed {
    fn new(root: &Path, flushes_all: bool) -> Self {
        let disk = open_disk(root);
        let left = Arc::new(AtomicI64::new(0));
        let (power, count) = (disk.clone(), left.clone());
        let watched = FaultyDisk::new(disk.clone(), move |op, _| {
            if op == DiskOp::SyncAll && !flushes_all {
                return Err(io::ErrorKind::Unsupported.into());
            }
            if op.is_flush() && count.fetch_sub(1, Ordering::Relaxed) == 1 {
                power.forget();
            }
            Ok(())
        });
        Self {
            disk,
            left,
            watched,
        }
    }
}

/// A store with `steps` operations applied and a checkpoint halfway.
fn prepared(root: &Path, seed: u64, steps: u64, flushes_all: bool) -> (Doomed, Twins) {
    let disk = Doomed::new(root, flushes_all);
    let options = StoreOptions {
        cache_bytes: 4 << 20,
    };
    let store = Store::open(Arc::new(disk.watched.clone()), Path::new("store"), options).unwrap();
    let mut twins = Twins::new(store, seed);
    twins.steps(steps / 2);
    twins.store.checkpoint().unwrap();
    twins.steps(steps - steps / 2);
    (disk, twins)
}

/// Opens what the power loss left, and checks that its rows are those of its position.
fn reopened(root: &Path, seed: u64) -> Twins {
    assert_clean(root);
    let store = open_store(&open_disk(root));
    let index = index_of(store.position().unwrap());
    let model = model_at(seed, index);
    let (rows, expected) = (picture(&store, false), picture(&model, false));
    assert!(rows == expected, "at {index}\n{}", diff(&rows, &expected));
    Twins {
        store,
        model,
        seed,
        index,
        succeeded: 0,
    }
}

#[test]
fn a_checkpoint_that_flushes_one_by_one_is_whole_or_not_there() {
    checkpoint_is_whole_or_not_there(false);
}

#[test]
fn a_checkpoint_that_flushes_all_at_once_is_whole_or_not_there() {
    checkpoint_is_whole_or_not_there(true);
}

fn checkpoint_is_whole_or_not_there(flushes_all: bool) {
    const SEED: u64 = 5;
    const STEPS: u64 = 60;
    let (mut old, mut new) = (0, 0);
    for flush in 1.. {
        let root = tempfile::tempdir().unwrap();
        let (disk, mut twins) = prepared(root.path(), SEED, STEPS, flushes_all);
        disk.left.store(flush, Ordering::Relaxed);
        let survived = twins.store.checkpoint().is_ok();
        disk.disk.forget();
        drop(twins);
        let mut twins = reopened(root.path(), SEED);
        match twins.index {
            STEPS => new += 1,
            _ => old += 1,
        }
        assert!(
            !survived || twins.index == STEPS,
            "a checkpoint was promised and is gone"
        );
        twins.steps(STEPS - twins.index);
        twins.assert_equal();
        if survived {
            break;
        }
    }
    assert!(
        old > 5 && new > 0,
        "{old} times the old checkpoint, {new} times the new one"
    );
}

#[test]
fn an_installation_is_whole_or_not_there() {
    const SEED: u64 = 6;
    const OTHER_SEED: u64 = 7;
    let sender_root = tempfile::tempdir().unwrap();
    let (_disk, sender) = prepared(sender_root.path(), SEED, 100, true);
    let mut reader: SnapshotReader = sender.store.snapshot_source().unwrap().unwrap();
    let mut sent = Vec::new();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        sent.push(chunk);
    }
    let (mut old, mut new) = (0, 0);
    for flush in 1.. {
        let root = tempfile::tempdir().unwrap();
        let (disk, mut twins) = prepared(root.path(), OTHER_SEED, 40, false);
        disk.left.store(flush, Ordering::Relaxed);
        let installed = (|| {
            let mut writer = twins.store.receive();
            for chunk in &sent {
                writer.push(chunk).ok()?;
            }
            let staged = writer.finish().ok()?;
            twins.store.install(staged).ok()
        })();
        disk.disk.forget();
        drop(twins);
        let index = index_of(open_store(&open_disk(root.path())).position().unwrap());
        // Histories differ in length, so the position tells which one is there.
        let mut twins = match index {
            50 => reopened(root.path(), SEED),
            20 => reopened(root.path(), OTHER_SEED),
            other => panic!("position {other} belongs to neither"),
        };
        if index == 50 {
            new += 1
        } else {
            old += 1
        }
        // The sender had gone on to 100 when it read its files: contents are equal from there on.
        twins.steps(100 - index);
        twins.assert_equal();
        if installed.is_some() {
            assert_eq!(index, 50, "an installation was promised and is gone");
            break;
        }
    }
    assert!(
        old > 5 && new > 0,
        "{old} times the old state, {new} times the new one"
    );
}
