//! The store: rows of its metadata, and snapshot streams from another node.

use crate::Seed;
use crate::disk::MemoryDisk;
use haven_fs::{Change, Cookie, Create, Cred, Filesystem, FsResult, SetAttr, SystemTable, Time};
use haven_store::{SnapshotError, SnapshotReader, Store, StoreOptions, fuzzing};
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Append the end mark that belongs to the chunks.
const WITH_END: u8 = 1;
/// Install what was received.
const INSTALL: u8 = 2;
/// The receiver has the base of the sample's changes.
const BASED: u8 = 4;
/// The log index of that base.
const BASE: u64 = 10;

const ROOT_USER: Cred = Cred {
    uid: 0,
    gid: 0,
    groups: Vec::new(),
};

fn new_store() -> Option<Store> {
    let options = StoreOptions {
        cache_bytes: 1 << 20,
    };
    Store::open(Arc::new(MemoryDisk::default()), Path::new("store"), options).ok()
}

/// A row: the key's length, the key, the value.
pub(crate) fn store_rows(input: &[u8]) {
    if let Some((&key_len, rest)) = input.split_first()
        && let Some((key, value)) = rest.split_at_checked(usize::from(key_len))
    {
        fuzzing::row(key, value);
    }
}

pub(crate) fn store_rows_seeds() -> Vec<Seed> {
    let chunks = sample().unwrap_or_default();
    let rows = chunks.iter().flat_map(|chunk| fuzzing::rows(chunk));
    let rows = rows.chain(fuzzing::local_rows());
    let seeds = rows.enumerate().map(|(i, (key, value))| {
        let bytes = [&[key.len() as u8][..], &key, &value].concat();
        Seed::new(format!("{i:02}-{}", char::from(key[0])), bytes)
    });
    seeds.collect()
}

/// Put the right checksum behind the file.
const SEAL_CURRENT: u8 = 1;

/// The file that names the store's generation: flags, then what stands there.
pub(crate) fn store_current(input: &[u8]) {
    let Some((&flags, bytes)) = input.split_first() else {
        return;
    };
    fuzzing::current(bytes);
    if flags & SEAL_CURRENT != 0
        && let Ok(body) = std::str::from_utf8(bytes)
    {
        fuzzing::current(fuzzing::sealed_current(body).as_bytes());
    }
}

pub(crate) fn store_current_seeds() -> Vec<Seed> {
    let whole = [("being-made", 0), ("generation", 7), ("last", u64::MAX)];
    let mut seeds: Vec<Seed> = whole
        .map(|(name, number)| Seed::new(name, format!("\0{}", fuzzing::current_of(number))))
        .into();
    let sealed = fuzzing::current_of(7);
    let body = sealed.split_inclusive('\n').take(2).collect::<String>();
    seeds.push(Seed::new("sealed", format!("\x01{body}")));
    seeds
}

thread_local! {
    /// The store that receives: making one takes much longer than receiving.
    static RECEIVER: RefCell<Option<Store>> = const { RefCell::new(None) };
    /// The same with a base. It is not used again once it was changed.
    static BASED_RECEIVER: RefCell<Option<Store>> = const { RefCell::new(None) };
}

/// A snapshot stream: flags, then chunks, each with its length (`u16`).
pub(crate) fn snapshot(input: &[u8]) {
    let Some((&flags, rest)) = input.split_first() else {
        return;
    };
    let mut chunks = chunks(rest);
    if flags & WITH_END != 0 {
        chunks.push(fuzzing::end(&chunks));
    }
    if flags & BASED != 0 {
        BASED_RECEIVER.with_borrow_mut(|receiver| {
            let Some(mut store) = receiver.take().or_else(base_store) else {
                panic!("a disk in memory does not fail");
            };
            let refused = receive(&mut store, &chunks, flags & INSTALL != 0);
            let untouched = store.base_index() == Ok(Some(BASE));
            if untouched && matches!(refused, Err(SnapshotError::Bad(_))) {
                *receiver = Some(store);
            }
        });
        return;
    }
    RECEIVER.with_borrow_mut(|receiver| {
        let Some(mut store) = receiver.take().or_else(new_store) else {
            panic!("a disk in memory does not fail");
        };
        // A store that found itself broken is not used again.
        match receive(&mut store, &chunks, flags & INSTALL != 0) {
            Ok(()) | Err(SnapshotError::Bad(_)) => *receiver = Some(store),
            Err(_) => {}
        }
    });
}

fn chunks(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<2>() {
        let (chunk, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(*len).into()));
        chunks.push(chunk.to_vec());
        bytes = rest;
    }
    chunks
}

fn receive(store: &mut Store, chunks: &[Vec<u8>], install: bool) -> Result<(), SnapshotError> {
    let mut writer = store.receive();
    for chunk in chunks {
        writer.push(chunk)?;
    }
    let staged = writer.finish()?;
    if install {
        let position = staged.position();
        store.install(staged)?;
        assert_eq!(store.position()?, Some(position));
        look_around(store)?;
    }
    Ok(())
}

/// Reads what was installed. It may be nonsense, as rows are not checked against each other; that is an
/// error of the store then.
fn look_around(store: &Store) -> FsResult<()> {
    let root = store.root();
    store.statfs()?;
    let mut found = Vec::new();
    store.readdir(&ROOT_USER, root, Cookie(0), true, &mut |entry| {
        found.push((entry.ino, entry.name.to_vec()));
        ControlFlow::Continue(())
    })?;
    for (ino, name) in found {
        store.lookup(&ROOT_USER, root, &name)?;
        let attr = store.attr(ino)?;
        let _ = store.readlink(&ROOT_USER, ino);
        let _ = store.read(&ROOT_USER, ino, attr.size.saturating_sub(9), 100);
    }
    store.state_hash().map(drop)
}

/// A store with one of everything, and a checkpoint that can be a base.
fn base_store() -> Option<Store> {
    let mut store = new_store()?;
    fill(&mut store).ok()?;
    store.set_applied(BASE);
    store.set_position(b"position".as_slice().into()).ok()?;
    store.checkpoint().ok()?;
    Some(store)
}

/// The chunks of a snapshot of a store with one of everything.
fn sample() -> Option<Vec<Vec<u8>>> {
    chunks_of(base_store()?.snapshot_source().ok()??)
}

/// The chunks of what changes when some of it is changed and removed.
fn sample_changes() -> Option<Vec<Vec<u8>>> {
    let mut store = base_store()?;
    change(&mut store).ok()?;
    store.set_applied(BASE + 6);
    store.set_position(b"later".as_slice().into()).ok()?;
    store.checkpoint().ok()?;
    let mut reader = store.snapshot_source().ok()??;
    reader.since(BASE).ok()?.then(|| chunks_of(reader))?
}

fn change(store: &mut Store) -> FsResult<()> {
    let at = |index| Change {
        index,
        time: Time {
            secs: index as i64,
            nanos: 0,
        },
    };
    let root = store.root();
    let file = store.lookup(&ROOT_USER, root, b"hard")?;
    store.write(&at(BASE + 1), &ROOT_USER, file.ino, 0, &[7; 5_000])?;
    let size = SetAttr {
        size: Some(4_500),
        ..SetAttr::default()
    };
    store.setattr(&at(BASE + 2), &ROOT_USER, file.ino, &size, None)?;
    let sparse = store.lookup(&ROOT_USER, root, b"sparse")?;
    let size = SetAttr {
        size: Some(3),
        ..SetAttr::default()
    };
    store.setattr(&at(BASE + 3), &ROOT_USER, sparse.ino, &size, None)?;
    store.write(&at(BASE + 4), &ROOT_USER, sparse.ino, 1 << 30, b"far")?;
    store.write(&at(BASE + 5), &ROOT_USER, sparse.ino, 70_000, b"near")?;
    store.remove(&at(BASE + 6), &ROOT_USER, root, b"link")
}

fn chunks_of(mut reader: SnapshotReader) -> Option<Vec<Vec<u8>>> {
    let mut chunks = Vec::new();
    while let Some(chunk) = reader.next_chunk().ok()? {
        chunks.push(chunk.to_vec());
    }
    Some(chunks)
}

fn fill(store: &mut Store) -> FsResult<()> {
    let root = store.root();
    let mut index = 0;
    let mut next = || {
        index += 1;
        let time = Time {
            secs: index as i64,
            nanos: 0,
        };
        Change { index, time }
    };
    let attr = SetAttr::default();
    let dir = store.mkdir(&next(), &ROOT_USER, root, b"dir", &attr)?;
    let how = Create::Exclusive(*b"verifier");
    let file = store.create(&next(), &ROOT_USER, dir.ino, b"file", &how)?;
    store.write(&next(), &ROOT_USER, file.ino, 0, b"some data")?;
    store.symlink(&next(), &ROOT_USER, root, b"link", b"dir/file", &attr)?;
    store.link(&next(), &ROOT_USER, file.ino, root, b"hard")?;
    let how = Create::Unchecked(SetAttr::default());
    let sparse = store.create(&next(), &ROOT_USER, root, b"sparse", &how)?;
    store.write(&next(), &ROOT_USER, sparse.ino, 0, b"begin")?;
    store.write(&next(), &ROOT_USER, sparse.ino, 1 << 21, b"end")?;
    store.system_put(b"key", Some(b"value"))
}

pub(crate) fn snapshot_seeds() -> Vec<Seed> {
    let (Some(whole), Some(changes)) = (sample(), sample_changes()) else {
        return Vec::new();
    };
    let input = |flags, chunks: &[Vec<u8>]| {
        let mut bytes = vec![flags];
        for chunk in chunks {
            bytes.extend_from_slice(&(chunk.len() as u16).to_le_bytes());
            bytes.extend_from_slice(chunk);
        }
        bytes
    };
    let endless = &whole[..whole.len() - 1];
    vec![
        Seed::new("received", input(0, &whole)),
        Seed::new("installed", input(INSTALL, &whole)),
        Seed::new("any-installed", input(WITH_END | INSTALL, endless)),
        Seed::new("without-end", input(0, endless)),
        Seed::new("changes", input(BASED | INSTALL, &changes)),
        Seed::new(
            "any-changes",
            input(BASED | WITH_END | INSTALL, &changes[..changes.len() - 1]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_taken_as_snapshots() {
        let mut store = new_store().unwrap();
        for seed in snapshot_seeds() {
            let (&flags, rest) = seed.bytes.split_first().unwrap();
            let mut chunks = chunks(rest);
            if flags & WITH_END != 0 {
                chunks.push(fuzzing::end(&chunks));
            }
            let install = flags & INSTALL != 0;
            let received = match flags & BASED {
                0 => receive(&mut store, &chunks, install),
                _ => receive(&mut base_store().unwrap(), &chunks, install),
            };
            assert_eq!(
                received.is_ok(),
                seed.name != "without-end",
                "{}: {received:?}",
                seed.name
            );
        }
        let names = ["dir", "link", "hard", "sparse"].map(str::as_bytes);
        for name in names {
            store.lookup(&ROOT_USER, store.root(), name).unwrap();
        }
    }
}
