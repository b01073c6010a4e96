//! The state hash, made in slices.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::{Twins, open_disk, open_store, position};
use haven_fs::{Change, Create, Cred, Filesystem, Ino, SetAttr, Time};
use haven_store::HashStep;

#[test]
fn a_hash_in_slices_is_that_of_the_whole_whatever_is_checkpointed_between() {
    let root = tempfile::tempdir().unwrap();
    let mut twins = Twins::new(open_store(&open_disk(root.path())), 41);
    twins.steps(200);
    let at = Change {
        index: 201,
        time: Time::default(),
    };
    let (store, cred) = (&mut twins.store, Cred::root());
    let how = Create::Guarded(SetAttr::default());
    let large = store
        .create(&at, &cred, Ino(1), b"large", &how)
        .unwrap()
        .ino;
    for piece in 0..5 {
        store
            .write(&at, &cred, large, piece << 20, &[7; 1 << 20])
            .unwrap();
    }
    store.set_applied(201);
    store.set_position(position(201)).unwrap();
    let whole = store.state_hash().unwrap();
    let (mut pass, mut slices) = (store.begin_hash(), 0);
    let hash = loop {
        match store.hash_slice(&mut pass).unwrap() {
            HashStep::Done(hash, applied) => {
                assert_eq!(applied, 201);
                break hash;
            }
            step => assert_eq!(step, HashStep::More),
        }
        slices += 1;
        store.checkpoint().unwrap();
        store.set_position(position(201)).unwrap();
        store.cutter().piece(1 << 20).unwrap();
    };
    assert_eq!(hash, whole);
    assert!(slices > 6, "{slices}");

    // Any change in the middle ends it, and only that.
    let mut pass = store.begin_hash();
    assert_eq!(store.hash_slice(&mut pass), Ok(HashStep::More));
    store.write(&at, &cred, large, 9, b"x").unwrap();
    assert_eq!(store.hash_slice(&mut pass), Ok(HashStep::Changed));
    assert_ne!(store.state_hash().unwrap(), whole);
}
