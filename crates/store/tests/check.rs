//! Every kind of damage is recognised for what it is, and what a crash may leave is not taken for damage.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::{Twins, findings, open_disk, open_store};
use haven_disk::{Disk, ReadOnlyDisk, RealDisk};
use haven_fs::{Change, Create, Cred, Filesystem, Ino, Kind, SetAttr, SystemTable, Time};
use haven_store::{CheckError, Problem, Store, StoreOptions, Summary, check};
use redb::{Database, ReadableDatabase, TableDefinition};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");

/// dir 2 in the root, dir 3 in it, file 4 (names "file", "other"), link 5, pipe 6, removed file 7, file 8
/// ("small") of 300 bytes in a row.
fn sample(root: &Path) {
    let mut store = open_store(&open_disk(root));
    let cred = &Cred::root();
    let set = SetAttr::default();
    let mut index = 0;
    let mut at = || {
        index += 1;
        Change {
            index,
            time: Time { secs: 9, nanos: 0 },
        }
    };
    let top = Ino(1);
    let dir = store.mkdir(&at(), cred, top, b"dir", &set).unwrap().ino;
    store.mkdir(&at(), cred, dir, b"sub", &set).unwrap();
    let how = Create::Guarded(set.clone());
    let file = store.create(&at(), cred, dir, b"file", &how).unwrap().ino;
    store.link(&at(), cred, file, top, b"other").unwrap();
    store.write(&at(), cred, file, 0, &[7; 9000]).unwrap();
    store
        .symlink(&at(), cred, dir, b"link", b"target", &set)
        .unwrap();
    store
        .mknod(&at(), cred, dir, b"pipe", Kind::Fifo, &set)
        .unwrap();
    let gone = store.create(&at(), cred, dir, b"gone", &how).unwrap().ino;
    store.write(&at(), cred, gone, 0, &[8; 9000]).unwrap();
    store.remove(&at(), cred, dir, b"gone").unwrap();
    let small = store.create(&at(), cred, dir, b"small", &how).unwrap().ino;
    store.write(&at(), cred, small, 0, &[9; 300]).unwrap();
    store.system_put(b"key", Some(b"value")).unwrap();
    store
        .set_position(bytes::Bytes::from_static(b"position"))
        .unwrap();
    store.checkpoint().unwrap();
    let made = (dir, file, gone, small);
    assert_eq!(made, (Ino(2), Ino(4), Ino(7), Ino(8)));
}

fn metadata(root: &Path) -> PathBuf {
    root.join("store/gen-1/meta.redb")
}

fn data_file(root: &Path, ino: u64) -> PathBuf {
    root.join(format!("store/gen-1/data/{:02x}/{ino:016x}", ino & 0xff))
}

/// A key: table, then numbers.
fn key(table: u8, numbers: &[u64]) -> Vec<u8> {
    let mut key = vec![table];
    key.extend(numbers.iter().flat_map(|n| n.to_be_bytes()));
    key
}

/// The first chunk of a file's blocks.
fn chunk(ino: u64) -> Vec<u8> {
    [&key(b'u', &[ino])[..], &[0; 4]].concat()
}

/// File 4 of three blocks counts its first `leading` ones, and `scattered` others in one chunk.
fn count_blocks(root: &Path, leading: u32, scattered: u32) {
    let mut inode = get(root, &key(b'i', &[4]));
    inode.pop();
    inode.push(2);
    inode.extend([leading, scattered].iter().flat_map(|n| n.to_be_bytes()));
    inode.extend([0, u8::from(scattered > 0), 0]);
    put(root, &key(b'i', &[4]), Some(&inode));
}

fn named(dir: u64, name: &str) -> Vec<u8> {
    [&key(b'n', &[dir])[..], name.as_bytes()].concat()
}

/// Sets or removes a row behind the store's back.
fn put(root: &Path, key: &[u8], value: Option<&[u8]>) {
    let db = Database::create(metadata(root)).unwrap();
    let txn = db.begin_write().unwrap();
    {
        let mut table = txn.open_table(ROWS).unwrap();
        match value {
            Some(value) => drop(table.insert(key, value).unwrap()),
            None => assert!(table.remove(key).unwrap().is_some(), "{key:?} was there"),
        }
    }
    txn.commit().unwrap();
}

fn get(root: &Path, key: &[u8]) -> Vec<u8> {
    let db = Database::create(metadata(root)).unwrap();
    let table = db.begin_read().unwrap().open_table(ROWS).unwrap();
    let value = table.get(key).unwrap().unwrap();
    value.value().to_vec()
}

/// Changes bytes of a value at an offset (from the end when negative).
fn patch(root: &Path, key: &[u8], at: isize, bytes: &[u8]) {
    let mut value = get(root, key);
    let at = if at < 0 {
        value.len().strict_add_signed(at)
    } else {
        at as usize
    };
    value[at..at + bytes.len()].copy_from_slice(bytes);
    put(root, key, Some(&value));
}

/// Offsets in an inode's value.
const NLINK: isize = 9;
const SIZE: isize = 29;
const PARENT: isize = -24;
const ENTRIES: isize = -16;
const NEXT_COOKIE: isize = -8;
const PLACE: isize = -1;

fn number(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

fn problems(root: &Path) -> BTreeSet<Problem> {
    findings(root).into_iter().map(|f| f.problem).collect()
}

type Damage = fn(&Path);

/// What is done, and all that must then be found beside the buried file of the sample.
const CASES: &[(&str, Damage, &[Problem])] = &[
    ("nothing", |_| {}, &[]),
    (
        "CURRENT is missing",
        |r| fs::remove_file(r.join("store/CURRENT")).unwrap(),
        &[Problem::CurrentMissing],
    ),
    (
        "CURRENT has another checksum",
        |r| {
            let text = fs::read_to_string(r.join("store/CURRENT")).unwrap();
            let text = text.replace("generation 1", "generation 2");
            fs::write(r.join("store/CURRENT"), text).unwrap();
        },
        &[Problem::CurrentDamaged],
    ),
    (
        "the metadata is missing",
        |r| fs::remove_file(metadata(r)).unwrap(),
        &[Problem::MetadataMissing],
    ),
    (
        "the metadata is empty",
        |r| fs::write(metadata(r), b"").unwrap(),
        &[Problem::MetadataDamaged],
    ),
    (
        "the metadata is something else",
        |r| fs::write(metadata(r), vec![9; 100_000]).unwrap(),
        &[Problem::MetadataDamaged],
    ),
    (
        "a row of an unknown table",
        |r| put(r, b"quest", Some(b"x")),
        &[Problem::RowUnknown],
    ),
    (
        "an empty key",
        |r| put(r, b"", Some(b"x")),
        &[Problem::RowUnknown],
    ),
    (
        "an unknown row of this replica",
        |r| put(r, b"zero", Some(b"x")),
        &[Problem::RowUnknown],
    ),
    (
        "a key that is too long",
        |r| put(r, &key(b'i', &[4, 4]), Some(b"x")),
        &[Problem::RowDamaged],
    ),
    (
        "an inode that does not decode",
        |r| patch(r, &key(b'i', &[6]), 0, &[99]),
        &[
            Problem::RowDamaged,
            Problem::EntryDangling,
            Problem::InodeCount,
        ],
    ),
    (
        "an entry that does not decode",
        |r| put(r, &named(2, "pipe"), Some(b"short")),
        &[Problem::RowDamaged, Problem::EntryUnmatched],
    ),
    (
        "counters that do not decode",
        |r| put(r, b"mcounters", Some(b"short")),
        &[Problem::RowDamaged, Problem::CountersMissing],
    ),
    (
        "no counters",
        |r| put(r, b"mcounters", None),
        &[Problem::CountersMissing],
    ),
    (
        "a wrong number of inodes",
        |r| patch(r, b"mcounters", 8, &number(99)),
        &[Problem::InodeCount],
    ),
    (
        "the next inode exists",
        |r| patch(r, b"mcounters", 0, &number(6)),
        &[Problem::NextInode],
    ),
    (
        "no root",
        |r| put(r, &key(b'i', &[1]), None),
        &[
            Problem::RootMissing,
            Problem::EntryOutside,
            Problem::InodeCount,
            Problem::Orphan,
            Problem::LinkCount,
        ],
    ),
    (
        "a name without a cookie",
        |r| {
            put(
                r,
                &named(2, "ghost"),
                Some(&[number(4), number(50)].concat()),
            )
        },
        &[Problem::EntryUnmatched],
    ),
    (
        "a cookie without a name",
        |r| put(r, &named(2, "pipe"), None),
        &[Problem::EntryUnmatched],
    ),
    (
        "name and cookie disagree",
        |r| patch(r, &named(2, "pipe"), 0, &number(4)),
        &[Problem::EntryUnmatched],
    ),
    (
        "an entry without an inode",
        |r| put(r, &key(b'i', &[6]), None),
        &[Problem::EntryDangling, Problem::InodeCount],
    ),
    (
        "an entry in a file",
        |r| add_entry(r, 4, 3, 6, "in"),
        &[Problem::EntryOutside],
    ),
    (
        "a cookie at the next one",
        |r| patch(r, &key(b'i', &[2]), NEXT_COOKIE, &number(6)),
        &[Problem::CookieBeyondNext],
    ),
    (
        "a wrong link count",
        |r| patch(r, &key(b'i', &[4]), NLINK, &3u32.to_be_bytes()),
        &[Problem::LinkCount],
    ),
    (
        "a directory's wrong link count",
        |r| patch(r, &key(b'i', &[2]), NLINK, &2u32.to_be_bytes()),
        &[Problem::DirectoryLinks],
    ),
    (
        "a directory with two names",
        |r| add_entry(r, 2, 7, 3, "again"),
        &[
            Problem::DirectoryTwice,
            Problem::EntryCount,
            Problem::DirectoryLinks,
        ],
    ),
    (
        "a wrong parent",
        |r| patch(r, &key(b'i', &[3]), PARENT, &number(1)),
        &[Problem::ParentWrong],
    ),
    (
        "the root has a parent",
        |r| patch(r, &key(b'i', &[1]), PARENT, &number(2)),
        &[Problem::ParentWrong],
    ),
    (
        "an inode without a name",
        |r| {
            let inode = get(r, &key(b'i', &[6]));
            put(r, &key(b'i', &[7]), Some(&inode));
            put(r, &[b"zgraveyard/", &number(7)[..]].concat(), None);
            patch(r, b"mcounters", 8, &number(8));
        },
        &[Problem::Orphan, Problem::DataOfOther],
    ),
    (
        "directories in each other",
        // 2 leaves the root for 3, which lies in 2.
        |r| {
            put(r, &named(1, "dir"), None);
            put(r, &key(b'c', &[1, 3]), None);
            add_entry(r, 3, 3, 2, "up");
            patch(r, &key(b'i', &[2]), PARENT, &number(3));
            patch(r, &key(b'i', &[3]), NLINK, &3u32.to_be_bytes());
            patch(r, &key(b'i', &[3]), ENTRIES, &number(1));
            patch(r, &key(b'i', &[3]), NEXT_COOKIE, &number(4));
            patch(r, &key(b'i', &[1]), NLINK, &2u32.to_be_bytes());
            patch(r, &key(b'i', &[1]), ENTRIES, &number(1));
        },
        &[Problem::Unreachable],
    ),
    (
        "a wrong number of entries",
        |r| patch(r, &key(b'i', &[2]), ENTRIES, &number(60)),
        &[Problem::EntryCount],
    ),
    (
        "a wrong size of a directory",
        |r| patch(r, &key(b'i', &[2]), SIZE, &number(8192)),
        &[Problem::DirectorySize],
    ),
    (
        "a link without a target",
        |r| put(r, &key(b'l', &[5]), None),
        &[Problem::TargetMissing],
    ),
    (
        "a target of a file",
        |r| put(r, &key(b'l', &[4]), Some(b"there")),
        &[Problem::TargetStray],
    ),
    (
        "a target that is none",
        |r| put(r, &key(b'l', &[5]), Some(b"targe\0")),
        &[Problem::RowDamaged],
    ),
    (
        "a target of another length",
        |r| put(r, &key(b'l', &[5]), Some(b"elsewhere")),
        &[Problem::TargetSize],
    ),
    (
        "contents of a file that has a data file",
        |r| put(r, &key(b'b', &[4]), Some(b"x")),
        &[Problem::ContentsStray],
    ),
    (
        "contents of a link",
        |r| put(r, &key(b'b', &[5]), Some(b"x")),
        &[Problem::ContentsStray],
    ),
    (
        "contents of nobody",
        |r| put(r, &key(b'b', &[7]), Some(b"x")),
        &[Problem::ContentsStray],
    ),
    (
        "contents past the size",
        |r| put(r, &key(b'b', &[8]), Some(&[9; 301])),
        &[Problem::ContentsLonger],
    ),
    (
        "contents of no bytes",
        |r| put(r, &key(b'b', &[8]), Some(b"")),
        &[Problem::RowDamaged],
    ),
    (
        "contents that are longer than rows are",
        |r| {
            patch(r, &key(b'i', &[8]), SIZE, &number(4096));
            put(r, &key(b'b', &[8]), Some(&[9; 4097]));
        },
        &[Problem::RowDamaged, Problem::ContentsLonger],
    ),
    (
        "a key of contents that is too long",
        |r| put(r, &key(b'b', &[8, 8]), Some(b"x")),
        &[Problem::RowDamaged],
    ),
    (
        "blocks of a file whose inode counts none",
        |r| put(r, &chunk(4), Some(&[1, 0, 9, 0, 10])),
        &[Problem::BlocksWrong],
    ),
    (
        "blocks of a file in a row",
        |r| put(r, &chunk(8), Some(&[1, 0, 0, 0, 1])),
        &[Problem::BlocksStray],
    ),
    (
        "blocks of nobody",
        |r| put(r, &chunk(7), Some(&[1, 0, 0, 0, 1])),
        &[Problem::BlocksStray],
    ),
    (
        "contents of a file of which nothing was written",
        |r| patch(r, &key(b'i', &[8]), -1, &[3]),
        &[Problem::BlocksWrong],
    ),
    (
        "a file that was written more than its inode counts",
        |r| count_blocks(r, 1, 0),
        &[Problem::DataUncounted],
    ),
    (
        "an inode that counts blocks which are in no chunk",
        |r| count_blocks(r, 1, 1),
        &[Problem::BlocksWrong, Problem::DataUncounted],
    ),
    (
        "blocks past the end of a file",
        |r| {
            count_blocks(r, 1, 2);
            put(r, &chunk(4), Some(&[1, 0, 2, 0, 4]));
        },
        &[Problem::BlocksWrong, Problem::DataUncounted],
    ),
    (
        "blocks that are none",
        |r| put(r, &chunk(4), Some(&[1])),
        &[Problem::RowDamaged],
    ),
    (
        "a file in a row that does not fit one",
        |r| patch(r, &key(b'i', &[8]), SIZE, &number(4097)),
        &[
            Problem::RowDamaged,
            Problem::ContentsStray,
            Problem::EntryDangling,
            Problem::InodeCount,
        ],
    ),
    (
        "a file that is nowhere",
        |r| patch(r, &key(b'i', &[8]), PLACE, &[2]),
        &[
            Problem::RowDamaged,
            Problem::ContentsStray,
            Problem::EntryDangling,
            Problem::InodeCount,
        ],
    ),
    (
        "a file that has a data file and a row",
        |r| patch(r, &key(b'i', &[8]), PLACE, &[1]),
        &[Problem::ContentsStray],
    ),
    (
        "a file that is longer than files may be",
        |r| patch(r, &key(b'i', &[4]), SIZE, &number((16 << 40) - 4095)),
        &[Problem::FileTooLong],
    ),
    (
        "contents that end before the size",
        |r| put(r, &key(b'b', &[8]), Some(b"x")),
        &[],
    ),
    (
        "no contents where nothing need be written",
        |r| put(r, &key(b'b', &[8]), None),
        &[],
    ),
    (
        "a system row that is too long",
        |r| put(r, b"sbig", Some(&vec![0; 1 << 20])),
        &[Problem::SystemRow],
    ),
    (
        "a system key that is too long",
        |r| put(r, &[b's'; 5000], Some(b"x")),
        &[Problem::RowDamaged],
    ),
    (
        "no position",
        |r| put(r, b"zposition", None),
        &[Problem::PositionMissing],
    ),
    (
        "a position that is too long",
        |r| put(r, b"zposition", Some(&vec![0; 70_000])),
        &[Problem::PositionTooLong],
    ),
    (
        "the grave of an inode that lives",
        |r| put(r, &[b"zgraveyard/", &number(4)[..]].concat(), Some(b"")),
        &[Problem::GraveOfLiving],
    ),
    (
        "a grave with a value",
        |r| put(r, &[b"zgraveyard/", &number(7)[..]].concat(), Some(b"x")),
        &[Problem::RowDamaged],
    ),
    (
        "remains of a cut that overlap",
        |r| {
            let ranges = [1, 9, 5, 7].map(number).concat();
            put(r, &[b"zremains/", &number(7)[..]].concat(), Some(&ranges));
        },
        &[Problem::RowDamaged],
    ),
    (
        "a data file of nobody",
        |r| put(r, &[b"zgraveyard/", &number(7)[..]].concat(), None),
        &[Problem::DataStray],
    ),
    (
        "a data file of a pipe",
        |r| write(&data_file(r, 6), b"x"),
        &[Problem::DataOfOther],
    ),
    (
        "something else among the data files",
        |r| write(&r.join("store/gen-1/data/04/notes"), b"x"),
        &[Problem::DataName],
    ),
    (
        "a data file in another's directory",
        |r| {
            write(
                &r.join("store/gen-1/data/05").join(format!("{:016x}", 4)),
                b"x",
            )
        },
        &[Problem::DataName],
    ),
    (
        "a file in place of a directory of data files",
        |r| write(&r.join("store/gen-1/data/99"), b"x"),
        &[Problem::DataName],
    ),
    // What a crash may leave.
    (
        "a data file younger than the checkpoint",
        |r| write(&data_file(r, 9), b"x"),
        &[Problem::DataYounger],
    ),
    (
        "a data file of a file in a row",
        |r| write(&data_file(r, 8), &[9; 10_000]),
        &[Problem::DataUnneeded],
    ),
    (
        "a data file longer than its size",
        |r| write(&data_file(r, 4), &[7; 10_000]),
        &[Problem::DataLonger],
    ),
    (
        "a data file shorter than its size",
        |r| write(&data_file(r, 4), &[7; 10]),
        &[],
    ),
    (
        "another generation",
        |r| write(&r.join("store/gen-2/meta.redb"), b"half"),
        &[Problem::LeftoverGeneration],
    ),
    (
        "a half-written CURRENT",
        |r| write(&r.join("store/CURRENT.new"), b"half"),
        &[Problem::LeftoverFile],
    ),
    (
        "a probe of the file system",
        |r| write(&r.join("store/probe"), b""),
        &[Problem::LeftoverFile],
    ),
    (
        "probes beside data files",
        |r| {
            write(&r.join("store/gen-1/data/probe"), b"");
            write(&r.join("store/gen-1/data/01/probe"), b"");
        },
        &[Problem::LeftoverFile],
    ),
    (
        "somebody's file",
        |r| write(&r.join("store/notes"), b"x"),
        &[Problem::StrangeFile],
    ),
];

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn add_entry(root: &Path, dir: u64, cookie: u64, ino: u64, name: &str) {
    // A fresh cookie, so that only what the case is about is wrong.
    let by_name = [number(ino), number(cookie)].concat();
    put(root, &named(dir, name), Some(&by_name));
    let by_cookie = [&number(ino)[..], name.as_bytes()].concat();
    put(root, &key(b'c', &[dir, cookie]), Some(&by_cookie));
}

/// Every byte of the directory, to show that a check changes none.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

#[test]
fn every_damage_is_recognised_and_nothing_is_changed() {
    let mut provoked =
        BTreeSet::from([Problem::DataBuried, Problem::NotMade, Problem::NoCheckpoint]);
    for (name, damage, expected) in CASES {
        let root = tempfile::tempdir().unwrap();
        sample(root.path());
        damage(root.path());
        let before = contents(root.path());
        let mut found = problems(root.path());
        found.remove(&Problem::DataBuried);
        let expected: BTreeSet<Problem> = expected.iter().copied().collect();
        assert_eq!(found, expected, "{name}: {:?}", findings(root.path()));
        assert!(
            contents(root.path()) == before,
            "{name}: the check changed something"
        );
        provoked.extend(expected);
    }
    let all: BTreeSet<Problem> = Problem::ALL.iter().copied().collect();
    assert_eq!(provoked, all, "kinds that no case provokes");
}

#[test]
fn a_whole_store_is_summed_up() {
    let root = tempfile::tempdir().unwrap();
    sample(root.path());
    let disk = ReadOnlyDisk::open(root.path()).unwrap();
    let mut notes = Vec::new();
    let checked = check(&disk, Path::new("store"), &mut |f| notes.push(f.problem)).unwrap();
    assert_eq!(notes, [Problem::DataBuried]);
    let inodes = [
        ("directories", 3),
        ("regular files", 2),
        ("special files", 1),
        ("symbolic links", 1),
    ];
    let summary = Summary {
        generation: Some(1),
        inodes: inodes.into(),
        entries: 7,
        inline_files: 1,
        system_rows: 1,
        data_files: 2,
        data_bytes: 9_000,
    };
    assert_eq!(checked.summary, summary);
    assert_eq!(checked.position().unwrap(), "position");
    assert_eq!(
        checked.rows().unwrap().system_get(b"key").unwrap().unwrap(),
        "value"
    );
    assert_eq!(checked.is_directory(Ino(2)), Ok(Some(true)));
    assert_eq!(checked.is_directory(Ino(4)), Ok(Some(false)));
    assert_eq!(checked.is_directory(Ino(7)), Ok(None));
}

#[test]
fn a_store_without_a_checkpoint_or_never_made_is_no_damage() {
    let root = tempfile::tempdir().unwrap();
    drop(open_store(&open_disk(root.path())));
    assert_eq!(problems(root.path()), [Problem::NoCheckpoint].into());
    fs::remove_dir_all(root.path().join("store/gen-1")).unwrap();
    fs::remove_file(root.path().join("store/CURRENT")).unwrap();
    assert_eq!(problems(root.path()), [Problem::NotMade].into());
}

#[test]
fn another_format_cannot_be_checked() {
    let root = tempfile::tempdir().unwrap();
    drop(open_disk(root.path()));
    let refused = |root: &Path| {
        let disk = ReadOnlyDisk::open(root).unwrap();
        let error = check(&disk, Path::new("store"), &mut |_| {});
        error.err().unwrap()
    };
    assert_eq!(problems(root.path()), [Problem::NotMade].into());
    let text = "haven-store format 99\nanything else\n";
    write(&root.path().join("store/CURRENT"), text.as_bytes());
    assert!(matches!(refused(root.path()), CheckError::Format(99)));
}

/// Flipped bytes anywhere in the database never panic; those in use are found.
#[test]
fn flipped_bytes_of_the_database_are_found() {
    let root = tempfile::tempdir().unwrap();
    sample(root.path());
    let whole = fs::read(metadata(root.path())).unwrap();
    let mut found = 0;
    let step = whole.len() / 60;
    for at in (0..whole.len()).step_by(step) {
        let mut bytes = whole.clone();
        // A few in a row: many single bytes of a page are unused.
        for byte in &mut bytes[at..(at + 64).min(whole.len())] {
            *byte ^= 0xff;
        }
        fs::write(metadata(root.path()), &bytes).unwrap();
        found += u32::from(findings(root.path()).iter().any(|f| !f.problem.is_note()));
    }
    for len in [0, 1, 500, 4096, whole.len() / 2] {
        fs::write(metadata(root.path()), &whole[..len]).unwrap();
        assert!(
            problems(root.path()).contains(&Problem::MetadataDamaged),
            "cut to {len}"
        );
    }
    assert!(found >= 3, "{found} of 60 found");
    let row = whole.windows(6).rposition(|w| w == b"target").unwrap();
    let mut bytes = whole;
    bytes[row] ^= 1;
    fs::write(metadata(root.path()), &bytes).unwrap();
    assert!(problems(root.path()).contains(&Problem::MetadataDamaged));
}

/// Random histories with power losses at random moments, each leaving an arbitrary part of what was
/// not flushed.
#[test]
fn what_random_histories_and_power_losses_leave_is_clean() {
    let mut rng = common::Rng(3);
    let mut notes = BTreeSet::new();
    for seed in 0..6 {
        let root = tempfile::tempdir().unwrap();
        for _ in 0..8 {
            // A killed process leaves what it wrote, a power loss any part of what was not flushed.
            let power = rng.chance(2).then(|| open_disk(root.path()));
            let disk: Arc<dyn Disk> = match &power {
                Some(disk) => disk.clone(),
                None => Arc::new(RealDisk::open(root.path()).unwrap()),
            };
            let options = StoreOptions {
                cache_bytes: 4 << 20,
            };
            let store = Store::open(disk, Path::new("store"), options).unwrap();
            let mut twins = Twins::resumed(store, seed);
            for _ in 0..rng.below(3) {
                twins.steps(rng.below(60));
                twins.store.checkpoint().unwrap();
            }
            twins.steps(rng.below(60));
            if let Some(disk) = power {
                disk.forget_keeping(|| rng.chance(2));
            }
            drop(twins);
            let found = findings(root.path());
            let damage: Vec<_> = found.iter().filter(|f| !f.problem.is_note()).collect();
            assert!(damage.is_empty(), "seed {seed}: {damage:?}");
            notes.extend(found.iter().map(|f| f.problem));
        }
    }
    for note in [
        Problem::DataYounger,
        Problem::DataUnneeded,
        Problem::DataLonger,
        Problem::DataBuried,
    ] {
        assert!(notes.contains(&note), "{note:?} never happened");
    }
}
