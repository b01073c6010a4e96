//! The power goes at every single flush of a checkpoint and of an installation.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::{Twins, assert_clean, diff, index_of, model_at, open_disk, open_store, picture};
use haven_disk::{Disk, DiskFile, Space, VolatileDisk};
use haven_store::{SnapshotReader, Store, StoreOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Loses its power at the flush that brings `left` to zero, before it happens.
struct Doomed {
    disk: Arc<VolatileDisk>,
    left: AtomicI64,
}

impl Doomed {
    fn flush(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.disk.forget();
        }
    }
}

#[derive(Clone)]
struct DoomedDisk(Arc<Doomed>);

struct DoomedFile(Arc<dyn DiskFile>, Arc<Doomed>);

impl Disk for DoomedDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.disk.open(path, create)?;
        Ok(Arc::new(DoomedFile(file, self.0.clone())))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.disk.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.disk.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.disk.remove_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.disk.list(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.disk.exists(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.flush();
        self.0.disk.sync_dir(path)
    }
    fn space(&self) -> io::Result<Space> {
        self.0.disk.space()
    }
}

impl DiskFile for DoomedFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
    fn write_vectored_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.0.write_vectored_at(offset, parts)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.allocate(offset, len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn sync(&self) -> io::Result<()> {
        self.1.flush();
        self.0.sync()
    }
}

/// A store with `steps` operations applied and a checkpoint halfway.
fn prepared(root: &Path, seed: u64, steps: u64) -> (DoomedDisk, Twins) {
    let doomed = Doomed {
        disk: open_disk(root),
        left: AtomicI64::new(0),
    };
    let disk = DoomedDisk(Arc::new(doomed));
    let options = StoreOptions {
        cache_bytes: 4 << 20,
    };
    let store = Store::open(Arc::new(disk.clone()), Path::new("store"), options).unwrap();
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
fn a_checkpoint_is_whole_or_not_there() {
    const SEED: u64 = 5;
    const STEPS: u64 = 60;
    let (mut old, mut new) = (0, 0);
    for flush in 1.. {
        let root = tempfile::tempdir().unwrap();
        let (disk, mut twins) = prepared(root.path(), SEED, STEPS);
        disk.0.left.store(flush, Ordering::Relaxed);
        let survived = twins.store.checkpoint().is_ok();
        disk.0.disk.forget();
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
    let (_disk, sender) = prepared(sender_root.path(), SEED, 100);
    let mut reader: SnapshotReader = sender.store.snapshot_source().unwrap().unwrap();
    let mut sent = Vec::new();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        sent.push(chunk);
    }
    let (mut old, mut new) = (0, 0);
    for flush in 1.. {
        let root = tempfile::tempdir().unwrap();
        let (disk, mut twins) = prepared(root.path(), OTHER_SEED, 40);
        disk.0.left.store(flush, Ordering::Relaxed);
        let installed = (|| {
            let mut writer = twins.store.receive().ok()?;
            for chunk in &sent {
                writer.push(chunk).ok()?;
            }
            let staged = writer.finish().ok()?;
            twins.store.install(staged).ok()
        })();
        disk.0.disk.forget();
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
