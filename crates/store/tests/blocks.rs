//! What files use: the same after a crash and its replay, at whoever gets the state, and in a store of the format before.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use bytes::Bytes;
use common::{assert_clean, chunks, findings, open_disk, open_store, position, receive};
use haven_fs::model::Model;
use haven_fs::{Attr, Change, Create, Cred, Filesystem, Ino, Level, SetAttr, Time};
use haven_store::{Problem, Store};
use std::path::Path;

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

/// A history of one file, whose volume counts blocks from step `counted` on.
#[derive(Clone, Copy)]
struct History {
    counted: u64,
}

impl History {
    fn step(self, fs: &mut impl Filesystem, index: u64) -> Attr {
        fs.set_level(if index < self.counted {
            Level::BOUNDED_MOVES
        } else {
            Level::COUNTED_BLOCKS
        });
        step(fs, index)
    }

    fn go(self, store: &mut Store, model: &mut Model, from: u64, upto: u64) {
        for index in from + 1..=upto {
            let want = self.step(model, index);
            assert_eq!(self.step(store, index), want, "step {index}");
        }
        store.set_applied(upto);
        store.set_position(position(upto)).unwrap();
    }

    fn model_at(self, upto: u64) -> Model {
        let mut model = Model::new();
        for index in 1..=upto {
            self.step(&mut model, index);
        }
        model
    }
}

/// Step `index` of a history in which a file's map takes every form: dense, with holes, with more chunks than are
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

fn changes(store: &Store, base: u64) -> Vec<Bytes> {
    let mut reader = store.snapshot_source().unwrap().unwrap();
    assert!(reader.since(base).unwrap());
    chunks(&mut reader)
}

/// Loses its power again and again, with some of what was not flushed, and replays: the state after the last step.
fn after_losses(root: &Path, history: History) -> Store {
    let (mut durable, mut keep) = (0, 0_u32);
    for (checkpoint, lost) in [
        (30, 75),
        (81, 83),
        (700, 1_105),
        (1_106, 1_310),
        (1_315, 1_330),
    ] {
        let disk = open_disk(root);
        let mut store = open_store(&disk);
        let mut model = history.model_at(durable);
        if durable > 0 {
            assert_eq!(store.attr(INO), model.attr(INO), "at {durable}");
        }
        history.go(&mut store, &mut model, durable, checkpoint);
        store.checkpoint().unwrap();
        history.go(&mut store, &mut model, checkpoint, lost);
        disk.forget_keeping(|| {
            keep = keep.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            keep >> 31 == 1
        });
        drop(store);
        assert_clean(root);
        durable = checkpoint;
    }
    let mut store = open_store(&open_disk(root));
    history.go(&mut store, &mut history.model_at(durable), durable, LAST);
    store
}

fn survives_and_travels(history: History) {
    let (root, whole_root, delta_root) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    // One store that lives through it all.
    let mut straight = open_store(&open_disk(whole_root.path()));
    history.go(&mut straight, &mut Model::new(), 0, LAST);
    let hash = straight.state_hash();
    let mut store = after_losses(root.path(), history);
    assert_eq!(store.state_hash(), hash);
    store.checkpoint().unwrap();
    // Whoever gets everything, and whoever gets what changed since the map was at its largest.
    let mut behind = open_store(&open_disk(delta_root.path()));
    history.go(&mut behind, &mut Model::new(), 0, 1_315);
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
    for (store, root) in [
        (behind, &delta_root),
        (straight, &whole_root),
        (store, &root),
    ] {
        drop(store);
        assert_clean(root.path());
        assert!(!is_uncounted(root.path()));
    }
}

/// Whether there is data that no map counts.
fn is_uncounted(root: &Path) -> bool {
    let mut found = findings(root).into_iter();
    found.any(|finding| finding.problem == Problem::DataUncounted)
}

#[test]
fn what_a_file_uses_survives_power_losses_and_travels() {
    survives_and_travels(History { counted: 0 });
}

#[test]
fn files_from_before_blocks_were_counted_use_the_same_everywhere() {
    survives_and_travels(History { counted: 60 });
    survives_and_travels(History { counted: 1_200 });
}

#[test]
fn a_large_cut_is_not_used_any_more_though_it_is_given_back_later() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open_store(&open_disk(root.path()));
    step(&mut store, 1);
    let mib = 1 << 20;
    for n in 0..4 {
        write(&mut store, 2 + n, 2 * n * mib, mib as usize);
    }
    assert_eq!(store.attr(INO).unwrap().used, 4 * mib);
    assert_eq!(resize(&mut store, 6, mib / 2).used, mib / 2);
    assert_eq!(resize(&mut store, 7, 8 * mib).used, mib / 2);
    assert_eq!(write(&mut store, 8, 3 * mib, 4_097).used, mib / 2 + 8_192);
    let cutter = store.cutter();
    assert!(cutter.left().1 > 0, "there is something to give back");
    store.set_position(position(8)).unwrap();
    store.checkpoint().unwrap();
    drop((store, cutter));
    // What is there but does not count is not taken for data.
    assert_clean(root.path());
    assert!(!is_uncounted(root.path()));
    let store = open_store(&open_disk(root.path()));
    while store.cutter().piece(mib).unwrap().is_some() {}
    assert_eq!(store.attr(INO).unwrap().used, mib / 2 + 8_192);
    drop(store);
    assert_clean(root.path());
    assert!(!is_uncounted(root.path()));
}

#[test]
fn a_check_notes_what_was_written_after_the_last_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let open = || open_store(&open_disk(root.path()));
    // The power goes, and all that was written is there.
    let write_and_lose = |index, offset| {
        let disk = open_disk(root.path());
        write(&mut open_store(&disk), index, offset, 1);
        disk.forget_keeping(|| true);
    };
    let checkpoint = |mut store: Store, index| {
        store.set_position(position(index)).unwrap();
        store.checkpoint().unwrap();
    };
    let mut store = open();
    step(&mut store, 1);
    resize(&mut store, 2, 1 << 30);
    write(&mut store, 3, 0, 10_000);
    let middle = 100 * CHUNK / 3;
    write(&mut store, 4, middle, 10_000);
    checkpoint(store, 4);
    assert!(!is_uncounted(root.path()));
    for (index, offset) in [(5, 12_288), (6, 5 * CHUNK), (7, middle + 20_000)] {
        write_and_lose(index, offset);
        assert!(is_uncounted(root.path()), "{offset}");
        let mut store = open();
        write(&mut store, index, offset, 1);
        checkpoint(store, index);
        assert!(!is_uncounted(root.path()), "{offset}");
    }
    // Past the end nothing counts.
    write_and_lose(8, 2 << 30);
    assert!(!is_uncounted(root.path()));
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
fn a_store_of_a_format_before_is_taken_over_and_goes_on_as_it_was_until_blocks_are_counted() {
    for format in 3..=4 {
        let root = tempfile::tempdir().unwrap();
        let current = root.path().join("store/CURRENT");
        let mut store = open_store(&open_disk(root.path()));
        // As the program of that format did: holes count.
        store.set_level(Level::BOUNDED_MOVES);
        step(&mut store, 1);
        let attr = write(&mut store, 2, 1 << 20, 100_000);
        assert_eq!(attr.used, attr.size.next_multiple_of(4_096));
        store.set_position(position(2)).unwrap();
        store.checkpoint().unwrap();
        drop(store);
        let body = format!("haven-store format {format}\ngeneration 1\n");
        let checksum = blake3::hash(body.as_bytes()).to_hex();
        std::fs::write(&current, format!("{body}checksum {}\n", &checksum[..16])).unwrap();
        assert_clean(root.path());

        let mut store = open_store(&open_disk(root.path()));
        let named = std::fs::read_to_string(&current).unwrap();
        assert!(named.starts_with("haven-store format 5\n"), "{named}");
        assert_eq!(store.attr(INO).unwrap(), attr);
        store.set_level(Level::BOUNDED_MOVES);
        let grown = write(&mut store, 3, 2 << 20, 1);
        assert_eq!(grown.used, (2 << 20) + 4_096);
        store.set_level(Level::COUNTED_BLOCKS);
        assert_eq!(store.attr(INO).unwrap(), grown);
        assert_eq!(resize(&mut store, 4, 1 << 30).used, grown.used);
        assert_eq!(write(&mut store, 5, 1 << 29, 1).used, grown.used + 4_096);
        assert_eq!(resize(&mut store, 6, 8_000).used, 8_192);
    }
}
