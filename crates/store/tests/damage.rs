//! A damaged metadata file: an error in words or good answers, but never a panic.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::{Rng, Twins, open_disk, open_store};
use haven_disk::Disk;
use haven_fs::{Cookie, Cred, Filesystem, FsError, FsResult, Ino};
use haven_store::{Store, StoreOptions};
use std::ops::ControlFlow;
use std::path::Path;

const METADATA: &str = "store/gen-1/meta.redb";

/// Opens the store, reads whatever it has, changes something and makes a checkpoint.
fn use_all(disk: &std::sync::Arc<haven_disk::VolatileDisk>) -> FsResult<()> {
    let options = StoreOptions {
        cache_bytes: 4 << 20,
    };
    let mut store = Store::open(disk.clone(), Path::new("store"), options)?;
    for number in 1..300 {
        match store.attr(Ino(number)) {
            Ok(_) | Err(FsError::Stale) => {}
            Err(error) => return Err(error),
        }
        let listed = store.readdir(&Cred::root(), Ino(number), Cookie(0), true, &mut |_| {
            ControlFlow::Continue(())
        });
        if let Err(error @ FsError::Fatal(_)) = listed {
            return Err(error);
        }
    }
    store.state_hash()?;
    store.set_position(common::position(1_000))?;
    store.checkpoint().map(drop)
}

#[test]
fn damage_never_panics() {
    let root = tempfile::tempdir().unwrap();
    let disk = open_disk(root.path());
    let mut twins = Twins::new(open_store(&disk), 3);
    for _ in 0..4 {
        twins.steps(100);
        twins.store.checkpoint().unwrap();
    }
    drop(twins);
    let file = disk.open(Path::new(METADATA), false).unwrap();
    let mut good = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut good).unwrap();
    let used = good.iter().rposition(|&byte| byte != 0).unwrap() as u64;

    let (mut refused, mut opened) = (0, 0);
    for seed in 0..150 {
        let mut rng = Rng(seed);
        let at = match seed % 3 {
            0 => rng.below(512),
            _ => rng.below(used),
        };
        let bytes = 1 << rng.below(13);
        let bad: Vec<u8> = (0..bytes).map(|_| rng.next() as u8).collect();
        file.set_len(0).unwrap();
        file.write_at(0, &good).unwrap();
        file.write_at(at, &bad).unwrap();
        match use_all(&disk) {
            Ok(()) => opened += 1,
            Err(FsError::Fatal(why)) => {
                assert!(
                    why.contains("metadata") || why.contains("database"),
                    "{why}"
                );
                refused += 1;
            }
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    assert!(
        refused > 30 && opened > 5,
        "{refused} refused, {opened} opened"
    );

    for len in [0, 1, 4096, good.len() / 2, good.len() - 1] {
        file.set_len(0).unwrap();
        file.write_at(0, &good[..len]).unwrap();
        let used = use_all(&disk);
        assert!(
            matches!(used, Err(FsError::Fatal(_))),
            "cut to {len}: {used:?}"
        );
    }
}
