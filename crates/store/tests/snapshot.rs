//! Snapshots between stores, damage on the way, and what is on disk.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::{
    Twins, chunks, every_damage_is_refused, index_of, open_disk, open_store, position, receive,
    refused,
};
use haven_disk::{Disk, VolatileDisk};
use haven_fs::{Create, Cred, Filesystem, FsError, Ino, SetAttr};
use haven_store::{CHUNK_BYTES_MAX, SnapshotError, Store, StoreOptions};
use std::path::Path;
use std::sync::Arc;

fn names(disk: &Arc<VolatileDisk>) -> Vec<String> {
    disk.list(Path::new("store")).unwrap()
}

/// A sender with some history behind its last checkpoint, and the chunks of that checkpoint.
fn sender(root: &Path, seed: u64) -> (Twins, Vec<bytes::Bytes>) {
    let mut twins = Twins::new(open_store(&open_disk(root)), seed);
    twins.steps(150);
    twins.store.checkpoint().unwrap();
    let mut reader = twins.store.snapshot_source().unwrap().unwrap();
    assert_eq!(index_of(Some(reader.position())), 150);
    let mut sent = Vec::new();
    // The sender goes on working, and checkpoints, while it sends.
    while let Some(chunk) = reader.next_chunk().unwrap() {
        assert!(chunk.len() <= CHUNK_BYTES_MAX);
        sent.push(chunk);
        twins.steps(10);
        twins.store.checkpoint().unwrap();
    }
    (twins, sent)
}

#[test]
fn a_receiver_that_replays_equals_the_sender() {
    for seed in [11, 12, 13] {
        let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (sender, sent) = sender(root.path(), seed);
        assert!(sent.len() > 5, "rows and several files");

        let disk = open_disk(other_root.path());
        let mut receiver = Twins::new(open_store(&disk), seed + 100);
        receiver.steps(60);
        let staged = receive(&receiver.store, &sent).unwrap();
        assert_eq!(index_of(Some(staged.position())), 150);
        receiver.store.install(staged).unwrap();
        assert_eq!(index_of(receiver.store.durable_position().unwrap()), 150);
        assert_eq!(names(&disk), ["CURRENT", "gen-2"]);

        // What was installed survives a power loss at once.
        drop(receiver);
        disk.forget();
        let disk = open_disk(other_root.path());
        let store = open_store(&disk);
        assert_eq!(index_of(store.position().unwrap()), 150);
        let model = common::model_at(seed, 150);
        let mut receiver = Twins {
            store,
            model,
            seed,
            index: 150,
            succeeded: 0,
        };
        receiver.steps(sender.index - 150);
        receiver.assert_equal();
        assert_eq!(receiver.store.state_hash(), sender.store.state_hash());
    }
}

#[test]
fn every_damaged_stream_is_refused() {
    let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_sender, sent) = sender(root.path(), 21);
    let disk = open_disk(other_root.path());
    let store = open_store(&disk);
    let hash = store.state_hash().unwrap();
    every_damage_is_refused(&store, &sent);
    for at in 0..sent.len() {
        let mut swapped = sent.clone();
        swapped.swap(at, (at + 1) % sent.len());
        refused(&store, &swapped, &format!("chunk {at} too late"));
    }
    refused(&store, &[], "nothing");
    refused(&store, &[bytes::Bytes::new()], "an empty chunk");
    let long = vec![1; CHUNK_BYTES_MAX + 1].into();
    refused(&store, &[long], "a chunk too long");

    assert_eq!(store.state_hash().unwrap(), hash);
    assert_eq!(
        names(&disk),
        ["CURRENT", "gen-1"],
        "nothing stays of refused snapshots"
    );
}

#[test]
fn a_checkpoint_under_way_does_not_survive_an_install() {
    let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_sender, sent) = sender(root.path(), 31);
    for run_before_install in [true, false] {
        let mut twins = Twins::new(open_store(&open_disk(other_root.path())), 32);
        twins.steps(60);
        let job = twins.store.freeze().unwrap().unwrap();
        let staged = receive(&twins.store, &sent).unwrap();
        let done = if run_before_install {
            let done = job.run().unwrap();
            twins.store.install(staged).unwrap();
            done
        } else {
            twins.store.install(staged).unwrap();
            job.run().unwrap()
        };
        let durable = twins.store.finish_checkpoint(&done).unwrap();
        assert_eq!(index_of(durable), 150);
        assert_eq!(twins.store.freeze().map(|job| job.is_none()), Ok(true));
        drop(twins);
        std::fs::remove_dir_all(other_root.path().join("store")).unwrap();
    }
}

#[test]
fn a_reader_of_a_replaced_state_stops() {
    let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_sender, sent) = sender(root.path(), 41);
    let mut twins = Twins::new(open_store(&open_disk(other_root.path())), 42);
    twins.steps(60);
    assert!(
        twins.store.snapshot_source().unwrap().is_none(),
        "no checkpoint has a position"
    );
    twins.store.checkpoint().unwrap();
    let mut reader = twins.store.snapshot_source().unwrap().unwrap();
    reader.next_chunk().unwrap();
    let staged = receive(&twins.store, &sent).unwrap();
    twins.store.install(staged).unwrap();
    assert_eq!(reader.next_chunk(), Err(SnapshotError::Replaced));
    let again = chunks(&mut twins.store.snapshot_source().unwrap().unwrap());
    assert_eq!(
        again.get(1),
        sent.get(1),
        "what was installed can be sent on"
    );
}

#[test]
fn a_snapshot_that_is_not_installed_leaves_nothing() {
    let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_sender, sent) = sender(root.path(), 51);
    let disk = open_disk(other_root.path());
    let store = open_store(&disk);
    let staged = receive(&store, &sent).unwrap();
    assert_eq!(names(&disk), ["CURRENT", "gen-1", "gen-2"]);
    // The power goes before anything is installed.
    disk.forget();
    drop((staged, store));
    let disk = open_disk(other_root.path());
    let store = open_store(&disk);
    assert_eq!(store.position().unwrap(), None);
    assert_eq!(names(&disk), ["CURRENT", "gen-1"]);
}

#[test]
fn big_files_travel_without_their_holes() {
    let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut store = open_store(&open_disk(root.path()));
    let at = haven_fs::Change {
        index: 1,
        time: haven_fs::Time::default(),
    };
    let cred = Cred::root();
    let how = Create::Guarded(SetAttr::default());
    let ino = store.create(&at, &cred, Ino(1), b"big", &how).unwrap().ino;
    store
        .write(&at, &cred, ino, 0, &vec![3; 1_500_000])
        .unwrap();
    store.write(&at, &cred, ino, 20_000_000, b"end").unwrap();
    store.set_position(position(1)).unwrap();
    store.checkpoint().unwrap();
    let sent = chunks(&mut store.snapshot_source().unwrap().unwrap());
    let bytes: usize = sent.iter().map(|chunk| chunk.len()).sum();
    assert!(bytes < 3_000_000, "{bytes} bytes for 1.5 MB of data");
    let mut other = open_store(&open_disk(other_root.path()));
    let staged = receive(&other, &sent).unwrap();
    other.install(staged).unwrap();
    assert_eq!(other.state_hash(), store.state_hash());
    assert_eq!(
        &other.read(&cred, ino, 19_999_999, 9).unwrap().data[..],
        b"\0end"
    );
}

fn open_error(disk: &Arc<VolatileDisk>) -> String {
    match Store::open(disk.clone(), Path::new("store"), StoreOptions::default()) {
        Err(FsError::Fatal(why)) => why,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the store opened"),
    }
}

#[test]
fn an_unknown_format_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let disk = open_disk(root.path());
    drop(open_store(&disk));
    let current = disk.open(Path::new("store/CURRENT"), false).unwrap();
    current.write_at(0, b"haven-store format 9\n").unwrap();
    let why = open_error(&disk);
    assert!(
        why.contains("format 9") && why.contains("knows format 5"),
        "{why}"
    );
}

#[test]
fn a_lost_current_file_never_costs_the_data() {
    let root = tempfile::tempdir().unwrap();
    let disk = open_disk(root.path());
    drop(open_store(&disk));
    disk.remove_file(Path::new("store/CURRENT")).unwrap();
    let why = open_error(&disk);
    assert!(why.contains("no CURRENT file"), "{why}");
    assert_eq!(names(&disk), ["gen-1"]);
}

#[test]
fn a_missing_metadata_file_is_not_made_anew() {
    let root = tempfile::tempdir().unwrap();
    let disk = open_disk(root.path());
    drop(open_store(&disk));
    disk.remove_file(Path::new("store/gen-1/meta.redb"))
        .unwrap();
    let why = open_error(&disk);
    assert!(why.contains("meta.redb is missing"), "{why}");
}
