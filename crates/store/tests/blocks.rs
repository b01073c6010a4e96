//! What files use: the same after a crash and its replay, at whoever gets the state, and in a store of the format before.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use bytes::Bytes;
use common::{assert_clean, chunks, open_disk, open_store, position, receive};
use haven_fs::model::Model;
use haven_fs::{Attr, Change, Create, Cred, Filesystem, Ino, SetAttr, Time};
use haven_store::Store;

const INO: Ino = Ino(2);
/// What a chunk of a file's map covers at first.
const CHUNK: u64 = 16 << 20;
/// Of which so many are kept.
const CHUNKS: u64 = 1024;

fn at(index: u64) -> Change {
    let time = Time {
        secs: index as i64,
        nanos: 0,
    };
    Change { index, time }
}

fn resize(fs: &mut impl Filesystem, index: u64, size: u64) -> Attr {
    let set = SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    fs.setattr(&at(index), &Cred::root(), INO, &set, None)
        .unwrap()
}

fn write(fs: &mut impl Filesystem, index: u64, offset: u64, len: usize) -> Attr {
    let data = vec![index as u8 | 1; len];
    fs.write(&at(index), &Cred::root(), INO, offset, &data)
        .unwrap()
}

/// Step `index` of a history of one file, in which its map takes every form: dense, with holes, with more chunks than are
/// kept, cut in the middle, and cut to nothing.
fn step(fs: &mut impl Filesystem, index: u64) -> Attr {
    match index {
        1 => {
            let how = Create::Guarded(SetAttr::default());
            fs.create(&at(1), &Cred::root(), Ino(1), b"file", &how)
                .unwrap()
        }
        2..=20 => write(fs, index, (index - 2) * 5_000, 5_000),
        21..=80 => write(fs, index, index * 37 % 60 * 70_000, 9_000),
        81 => resize(fs, index, 2_000_000),
        82 => resize(fs, index, 1 << 40),
        83..=1_300 => write(fs, index, (index - 82) * CHUNK + index % 3 * 4_096, 5_000),
        1_301 => resize(fs, index, 500 * CHUNK),
        1_302..=1_320 => write(fs, index, (index - 1_302) * 100_000, 100_000),
        1_321 => resize(fs, index, 3),
        _ => write(fs, index, (index - 1_320) * 50_000, 10),
    }
}

const LAST: u64 = 1_340;

fn go(store: &mut Store, model: &mut Model, from: u64, upto: u64) {
    for index in from + 1..=upto {
        assert_eq!(step(store, index), step(model, index), "step {index}");
    }
    store.set_applied(upto);
    store.set_position(position(upto)).unwrap();
}

fn model_at(upto: u64) -> Model {
    let mut model = Model::new();
    for index in 1..=upto {
        step(&mut model, index);
    }
    model
}

fn changes(store: &Store, base: u64) -> Vec<Bytes> {
    let mut reader = store.snapshot_source().unwrap().unwrap();
    assert!(reader.since(base).unwrap());
    chunks(&mut reader)
}

#[test]
fn what_a_file_uses_survives_power_losses_and_travels() {
    let (root, whole_root, delta_root) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    // One store that lives through it all.
    let mut straight = open_store(&open_disk(whole_root.path()));
    go(&mut straight, &mut Model::new(), 0, LAST);
    let hash = straight.state_hash();
    // One that loses its power again and again, with some of what was not flushed, and replays.
    let (mut durable, mut keep) = (0, 0_u32);
    for (checkpoint, lost) in [
        (30, 75),
        (81, 83),
        (700, 1_105),
        (1_106, 1_310),
        (1_315, 1_330),
    ] {
        let disk = open_disk(root.path());
        let mut store = open_store(&disk);
        let mut model = model_at(durable);
        if durable > 0 {
            assert_eq!(store.attr(INO), model.attr(INO), "at {durable}");
        }
        go(&mut store, &mut model, durable, checkpoint);
        store.checkpoint().unwrap();
        go(&mut store, &mut model, checkpoint, lost);
        disk.forget_keeping(|| {
            keep = keep.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            keep >> 31 == 1
        });
        drop(store);
        assert_clean(root.path());
        durable = checkpoint;
    }
    let mut store = open_store(&open_disk(root.path()));
    go(&mut store, &mut model_at(durable), durable, LAST);
    assert_eq!(store.state_hash(), hash);
    store.checkpoint().unwrap();
    // Whoever gets everything, and whoever gets what changed since the map was at its largest.
    let mut behind = open_store(&open_disk(delta_root.path()));
    go(&mut behind, &mut Model::new(), 0, 1_315);
    behind.checkpoint().unwrap();
    let staged = receive(&behind, &changes(&store, 1_315)).unwrap();
    behind.install(staged).unwrap();
    let staged = receive(
        &straight,
        &chunks(&mut store.snapshot_source().unwrap().unwrap()),
    );
    straight.install(staged.unwrap()).unwrap();
    for other in [&behind, &straight] {
        assert_eq!(other.attr(INO), store.attr(INO));
        assert_eq!(other.state_hash(), hash);
    }
    drop(behind);
    assert_clean(delta_root.path());
}

#[test]
fn a_removed_file_leaves_nothing_of_its_map() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open_store(&open_disk(root.path()));
    step(&mut store, 1);
    for n in 1..=CHUNKS {
        write(&mut store, 1 + n, n * 2 * CHUNK, 1);
    }
    store.set_position(position(1)).unwrap();
    store.checkpoint().unwrap();
    let index = 2 + CHUNKS;
    store
        .remove(&at(index), &Cred::root(), Ino(1), b"file")
        .unwrap();
    store.set_position(position(index)).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    // A chunk without its file would be damage.
    assert_clean(root.path());
}

#[test]
fn a_store_of_the_format_before_is_taken_over_and_named_anew() {
    let root = tempfile::tempdir().unwrap();
    let current = root.path().join("store/CURRENT");
    let mut store = open_store(&open_disk(root.path()));
    step(&mut store, 1);
    let attr = write(&mut store, 2, 0, 100_000);
    store.set_position(position(2)).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    // A file without holes is the same in both formats; there, every file counts as one.
    let body = "haven-store format 3\ngeneration 1\n";
    let checksum = blake3::hash(body.as_bytes()).to_hex();
    std::fs::write(&current, format!("{body}checksum {}\n", &checksum[..16])).unwrap();
    assert_clean(root.path());
    let mut store = open_store(&open_disk(root.path()));
    let named = std::fs::read_to_string(&current).unwrap();
    assert!(named.starts_with("haven-store format 4\n"), "{named}");
    assert_eq!(store.attr(INO).unwrap(), attr);
    assert_eq!(attr.used, 25 * 4_096);
    assert_eq!(resize(&mut store, 3, 1 << 30).used, 25 * 4_096);
    assert_eq!(write(&mut store, 4, 1 << 29, 1).used, 26 * 4_096);
}
