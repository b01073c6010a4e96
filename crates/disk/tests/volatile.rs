//! The volatile disk: reads like the real one, and a power loss leaves exactly what was flushed.

mod common;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use common::{contents, data_spans, put, scratch};
use haven_disk::{Disk, RealDisk, VolatileDisk};
use proptest::prelude::*;

fn p(path: &str) -> &Path {
    Path::new(path)
}

/// Makes a file with this content and flushes it and its directory.
fn put_durably(disk: &dyn Disk, path: &str, content: &[u8]) {
    put(disk, path, content);
    let path = p(path);
    disk.open(path, false).expect("open").sync().expect("flush");
    disk.sync_dir(path.parent().expect("a parent"))
        .expect("flush the directory");
}

#[test]
fn contents_are_lost_without_a_flush_and_names_without_one_of_the_directory() {
    let dir = scratch();
    let disk = VolatileDisk::open(dir.path()).expect("open");
    put_durably(&disk, "kept", b"old");
    put(&disk, "kept", b"newer");
    put(&disk, "no-name", b"x");
    disk.open(p("no-name"), false)
        .expect("open")
        .sync()
        .expect("flush");
    put(&disk, "no-content", b"x");
    assert_eq!(contents(&disk, "kept").as_deref(), Some(&b"newer"[..]));
    disk.forget();

    let disk = VolatileDisk::open(dir.path()).expect("open anew");
    assert_eq!(disk.list(p("")).expect("list"), ["kept"]);
    assert_eq!(contents(&disk, "kept").as_deref(), Some(&b"old"[..]));
    put(&disk, "no-content", b"x");
    disk.sync_dir(p("")).expect("flush the directory");
    disk.forget();
    let disk = RealDisk::open(dir.path()).expect("open anew");
    assert_eq!(contents(&disk, "no-content").as_deref(), Some(&b""[..]));
}

#[test]
fn a_cut_and_regrown_file_shows_zeros_and_only_a_flush_makes_it_so() {
    let dir = scratch();
    let disk = VolatileDisk::open(dir.path()).expect("open");
    put_durably(&disk, "f", &[7; 10_000]);
    let file = disk.open(p("f"), false).expect("open");
    file.set_len(5000).expect("cut");
    file.allocate(5000, 3000).expect("allocate");
    let mut expected = vec![7; 5000];
    expected.resize(8000, 0);
    assert_eq!(contents(&disk, "f"), Some(expected.clone()));
    drop(file);
    assert_eq!(contents(&disk, "f"), Some(expected.clone()));
    disk.open(p("f"), false)
        .expect("open")
        .sync()
        .expect("flush");
    disk.forget();
    let disk = RealDisk::open(dir.path()).expect("open anew");
    assert_eq!(contents(&disk, "f"), Some(expected));
}

#[test]
fn after_the_power_loss_every_handle_fails_and_the_root_is_free() {
    let dir = scratch();
    let disk = VolatileDisk::open(dir.path()).expect("open");
    let file = disk.open(p("f"), true).expect("create");
    VolatileDisk::open(dir.path()).err().expect("held");
    disk.forget();
    let second = RealDisk::open(dir.path()).expect("free");
    assert!(file.write_at(0, b"x").is_err());
    assert!(file.read_at(0, &mut [0]).is_err());
    assert!(file.sync().is_err());
    assert!(file.len().is_err());
    assert!(disk.open(p("f"), true).is_err());
    assert!(disk.sync_dir(p("")).is_err());
    drop((file, disk));
    RealDisk::open(dir.path()).expect_err("what was dropped did not free the new holder's lock");
    drop(second);
}

#[test]
fn a_replacement_shows_the_old_file_until_its_directory_is_flushed() {
    let dir = scratch();
    let disk = VolatileDisk::open(dir.path()).expect("open");
    put_durably(&disk, "f", b"old");
    put(&disk, "f.new", b"new");
    disk.open(p("f.new"), false)
        .expect("open")
        .sync()
        .expect("flush");
    disk.rename(p("f.new"), p("f")).expect("rename");
    assert_eq!(contents(&disk, "f").as_deref(), Some(&b"new"[..]));
    disk.forget();
    let disk = VolatileDisk::open(dir.path()).expect("open anew");
    assert_eq!(contents(&disk, "f").as_deref(), Some(&b"old"[..]));
    put(&disk, "f.new", b"new");
    disk.open(p("f.new"), false)
        .expect("open")
        .sync()
        .expect("flush");
    disk.rename(p("f.new"), p("f")).expect("rename");
    disk.sync_dir(p("")).expect("flush the directory");
    disk.forget();
    let disk = RealDisk::open(dir.path()).expect("open anew");
    assert_eq!(contents(&disk, "f").as_deref(), Some(&b"new"[..]));
    assert_eq!(disk.list(p("")).expect("list"), ["f"]);
}

#[test]
fn an_unlinked_file_lives_on_for_its_handles() {
    let dir = scratch();
    let disk = VolatileDisk::open(dir.path()).expect("open");
    put_durably(&disk, "f", b"abc");
    let file = disk.open(p("f"), false).expect("open");
    disk.remove_file(p("f")).expect("remove");
    disk.sync_dir(p("")).expect("flush");
    put(&disk, "f", b"other");
    file.write_at(3, b"d").expect("write");
    file.sync().expect("flush");
    let mut bytes = [0; 4];
    assert_eq!(file.read_at(0, &mut bytes).expect("read"), 4);
    assert_eq!(&bytes, b"abcd");
    assert_eq!(contents(&disk, "f").as_deref(), Some(&b"other"[..]));
}

#[test]
fn directories_move_and_go_with_the_flush_of_their_parent() {
    let dir = scratch();
    let disk = VolatileDisk::open(dir.path()).expect("open");
    disk.create_dir_all(p("new/sub")).expect("mkdir");
    disk.create_dir_all(p("cur")).expect("mkdir");
    put_durably(&disk, "cur/f", b"old");
    put_durably(&disk, "new/sub/g", b"new");
    // A whole state replaced by another, with one file of the old one saved into the new one.
    let replace = |disk: &VolatileDisk| {
        disk.rename(p("cur/f"), p("new/saved")).expect("rename");
        disk.remove_dir_all(p("cur")).expect("remove");
        disk.rename(p("new"), p("cur")).expect("rename");
        assert_eq!(disk.list(p("cur")).expect("list"), ["saved", "sub"]);
        assert!(!disk.exists(p("new")).expect("exists"));
    };
    replace(&disk);
    disk.forget();

    let disk = VolatileDisk::open(dir.path()).expect("open anew");
    assert_eq!(disk.list(p("")).expect("list"), ["cur", "new"]);
    assert_eq!(contents(&disk, "cur/f").as_deref(), Some(&b"old"[..]));
    assert_eq!(contents(&disk, "new/sub/g").as_deref(), Some(&b"new"[..]));
    replace(&disk);
    disk.sync_dir(p("")).expect("flush");
    disk.sync_dir(p("cur")).expect("flush");
    disk.forget();
    let disk = RealDisk::open(dir.path()).expect("open anew");
    assert_eq!(disk.list(p("")).expect("list"), ["cur"]);
    assert_eq!(contents(&disk, "cur/saved").as_deref(), Some(&b"old"[..]));
    assert_eq!(contents(&disk, "cur/sub/g").as_deref(), Some(&b"new"[..]));
}

#[test]
fn a_directory_made_in_place_of_a_removed_one_starts_empty() {
    let dir = scratch();
    let disk = VolatileDisk::open(dir.path()).expect("open");
    disk.create_dir_all(p("d")).expect("mkdir");
    put_durably(&disk, "d/f", b"x");
    disk.remove_dir_all(p("d")).expect("remove");
    disk.create_dir_all(p("d")).expect("mkdir");
    assert_eq!(disk.list(p("d")).expect("list"), [""; 0]);
    disk.forget();
    let disk = RealDisk::open(dir.path()).expect("open anew");
    assert_eq!(disk.list(p("d")).expect("list"), [""; 0]);
}

#[test]
fn a_power_loss_may_keep_any_sectors_of_what_was_not_flushed() {
    let dir = scratch();
    let disk = VolatileDisk::open(dir.path()).expect("open");
    put_durably(&disk, "f", &[1; 4096]);
    let file = disk.open(p("f"), false).expect("open");
    file.write_at(0, &[2; 4096]).expect("write");
    let mut turn = 0;
    disk.forget_keeping(|| {
        turn += 1;
        turn % 2 == 0
    });
    let disk = RealDisk::open(dir.path()).expect("open anew");
    let expected: Vec<u8> = (0..8).flat_map(|i| [1 + i % 2; 512]).collect();
    assert_eq!(contents(&disk, "f"), Some(expected));
}

/// Where the random operations act: two directories, three names in each.
const DIRS: [&str; 2] = ["a", "b"];
const NAMES: [&str; 3] = ["x", "y", "z"];

#[derive(Debug, Clone)]
enum Op {
    Write(usize, u64, u8, usize),
    WriteParts(usize, u64, Vec<usize>),
    SetLen(usize, u64),
    Allocate(usize, u64, u64),
    Punch(usize, u64, u64),
    Sync(usize),
    SyncDir(usize),
    Rename(usize, usize),
    Remove(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let file = 0..DIRS.len() * NAMES.len();
    let at = 0..14_000u64;
    prop_oneof![
        4 => (file.clone(), at.clone(), any::<u8>(), 0..9000usize)
            .prop_map(|(f, o, b, n)| Op::Write(f, o, b, n)),
        1 => (file.clone(), at.clone(), prop::collection::vec(0..3000usize, 0..5))
            .prop_map(|(f, o, parts)| Op::WriteParts(f, o, parts)),
        2 => (file.clone(), at.clone()).prop_map(|(f, n)| Op::SetLen(f, n)),
        1 => (file.clone(), at.clone(), 0..6000u64).prop_map(|(f, o, n)| Op::Allocate(f, o, n)),
        2 => (file.clone(), at, 0..12_000u64).prop_map(|(f, o, n)| Op::Punch(f, o, n)),
        3 => file.clone().prop_map(Op::Sync),
        3 => (0..DIRS.len()).prop_map(Op::SyncDir),
        2 => (file.clone(), file.clone()).prop_map(|(f, t)| Op::Rename(f, t)),
        1 => file.prop_map(Op::Remove),
    ]
}

fn path_of(file: usize) -> String {
    format!("{}/{}", DIRS[file / NAMES.len()], NAMES[file % NAMES.len()])
}

/// What a power loss must leave: which file has which durable name, and its flushed bytes.
#[derive(Default)]
struct Model {
    next: usize,
    current: BTreeMap<usize, usize>,
    durable: BTreeMap<usize, usize>,
    flushed: BTreeMap<usize, Vec<u8>>,
}

impl Model {
    fn made(&mut self, file: usize) {
        if !self.current.contains_key(&file) {
            self.current.insert(file, self.next);
            self.flushed.insert(self.next, Vec::new());
            self.next += 1;
        }
    }

    fn sync_dir(&mut self, dir: usize) {
        let in_dir = |f: &usize| f / NAMES.len() == dir;
        let now: Vec<(usize, usize)> = self
            .current
            .iter()
            .filter(|(f, _)| in_dir(f))
            .map(|(&f, &i)| (f, i))
            .collect();
        self.durable
            .retain(|f, id| !in_dir(f) && !now.iter().any(|(_, i)| i == id));
        self.durable.extend(now);
    }

    fn apply(&mut self, op: &Op, disk: &dyn Disk) {
        match *op {
            Op::Write(f, ..)
            | Op::WriteParts(f, ..)
            | Op::SetLen(f, _)
            | Op::Allocate(f, ..)
            | Op::Punch(f, ..) => self.made(f),
            Op::Sync(f) => {
                if let Some(&id) = self.current.get(&f) {
                    let bytes = contents(disk, &path_of(f)).expect("there");
                    self.flushed.insert(id, bytes);
                }
            }
            Op::SyncDir(dir) => self.sync_dir(dir),
            Op::Rename(from, to) => {
                if let Some(id) = self.current.remove(&from) {
                    self.current.insert(to, id);
                }
            }
            Op::Remove(f) => {
                self.current.remove(&f);
            }
        }
    }
}

fn act(disk: &dyn Disk, op: &Op) -> Result<(), ErrorKind> {
    let create = |f: usize| disk.open(p(&path_of(f)), true).expect("create");
    let result = match op {
        Op::Write(f, at, byte, n) => create(*f).write_at(*at, &vec![*byte; *n]),
        Op::WriteParts(f, at, lens) => {
            let parts: Vec<Vec<u8>> = lens.iter().map(|&n| vec![n as u8; n]).collect();
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            create(*f).write_vectored_at(*at, &slices)
        }
        Op::SetLen(f, len) => create(*f).set_len(*len),
        Op::Allocate(f, at, len) => create(*f).allocate(*at, *len),
        Op::Punch(f, at, len) => create(*f).punch(*at, *len),
        Op::Sync(f) => disk.open(p(&path_of(*f)), false).and_then(|f| f.sync()),
        Op::SyncDir(dir) => disk.sync_dir(p(DIRS[*dir])),
        Op::Rename(from, to) => disk.rename(p(&path_of(*from)), p(&path_of(*to))),
        Op::Remove(f) => disk.remove_file(p(&path_of(*f))),
    };
    result.map_err(|e| e.kind())
}

fn everything(disk: &dyn Disk) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for dir in DIRS {
        for name in disk.list(p(dir)).expect("list") {
            let path = format!("{dir}/{name}");
            let bytes = contents(disk, &path).expect("listed");
            let mut at = 0;
            for span in data_spans(disk, &path) {
                assert!(
                    bytes[at..span.start].iter().all(|&b| b == 0),
                    "a hole in {path}"
                );
                at = span.end;
            }
            assert!(bytes[at..].iter().all(|&b| b == 0), "the end of {path}");
            all.insert(path, bytes);
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_read_the_same_and_a_power_loss_leaves_the_flushed_state(
        rounds in prop::collection::vec(prop::collection::vec(op(), 1..40), 1..4)
    ) {
        let (real_dir, volatile_dir) = (scratch(), scratch());
        let mut expected: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for ops in rounds {
            let volatile = VolatileDisk::open(volatile_dir.path()).expect("open");
            let real = RealDisk::open(real_dir.path()).expect("open");
            let mut model = Model::default();
            // Both begin with what the round before left.
            for dir in DIRS {
                volatile.create_dir_all(p(dir)).expect("mkdir");
                if real.exists(p(dir)).expect("exists") {
                    real.remove_dir_all(p(dir)).expect("clear");
                }
                real.create_dir_all(p(dir)).expect("mkdir");
            }
            for (path, bytes) in &expected {
                put(&real, path, bytes);
            }
            for f in 0..DIRS.len() * NAMES.len() {
                if let Some(bytes) = expected.get(&path_of(f)) {
                    model.made(f);
                    let id = model.current[&f];
                    model.durable.insert(f, id);
                    model.flushed.insert(id, bytes.clone());
                }
            }
            prop_assert_eq!(everything(&volatile), everything(&real));
            for op in &ops {
                prop_assert_eq!(act(&volatile, op), act(&real, op), "{:?}", op);
                model.apply(op, &volatile);
            }
            prop_assert_eq!(everything(&volatile), everything(&real));
            volatile.forget();
            drop((volatile, real));
            expected = model
                .durable
                .iter()
                .map(|(&f, id)| (path_of(f), model.flushed[id].clone()))
                .collect();
            let after = RealDisk::open(volatile_dir.path()).expect("open");
            prop_assert_eq!(everything(&after), expected.clone());
        }
    }
}

#[test]
fn one_flush_of_everything_keeps_everything() {
    let dir = scratch();
    let disk = VolatileDisk::open(dir.path()).expect("open");
    let path = Path::new;
    disk.create_dir_all(path("a")).expect("directory");
    for name in ["a/old", "a/gone", "top"] {
        put(&disk, name, b"before");
    }
    disk.sync_all().expect("flush all");
    let gone = disk.open(path("a/gone"), false).expect("open");
    gone.write_at(0, b"nobody's").expect("write");
    put(&disk, "a/new", b"new");
    disk.open(path("top"), false)
        .and_then(|file| file.write_at(2, b"ter"))
        .expect("write");
    disk.rename(path("a/old"), path("moved")).expect("rename");
    disk.remove_file(path("a/gone")).expect("remove");
    disk.sync_all().expect("flush all");
    put(&disk, "a/late", b"late");
    disk.forget();
    drop(gone);

    let disk = VolatileDisk::open(dir.path()).expect("open again");
    assert_eq!(disk.list(path("")).expect("list"), ["a", "moved", "top"]);
    assert_eq!(disk.list(path("a")).expect("list"), ["new"]);
    assert_eq!(contents(&disk, "a/new").as_deref(), Some(&b"new"[..]));
    assert_eq!(contents(&disk, "moved").as_deref(), Some(&b"before"[..]));
    assert_eq!(contents(&disk, "top").as_deref(), Some(&b"betere"[..]));
}

/// Both disks, by name, and where the real files are.
fn both() -> Vec<(&'static str, tempfile::TempDir, Box<dyn Disk>)> {
    let (a, b) = (scratch(), scratch());
    let real = RealDisk::open(a.path()).expect("open");
    let volatile = VolatileDisk::open(b.path()).expect("open");
    vec![
        ("real", a, Box::new(real)),
        ("volatile", b, Box::new(volatile)),
    ]
}

#[test]
fn what_is_punched_is_a_hole_in_a_file_of_the_same_length() {
    const KIB: usize = 1 << 10;
    for flushed in [false, true] {
        for (name, _dir, disk) in both() {
            put(disk.as_ref(), "f", &[7; 256 * KIB]);
            let file = disk.open(p("f"), false).expect("open");
            let sync = || file.sync().expect("flush");
            sync();
            // Ragged at both ends; past the end; behind it; nothing.
            file.punch(10_000, 100_000).expect("punch");
            file.punch(200 * KIB as u64, u64::MAX - (1 << 20))
                .expect("punch");
            file.punch(1 << 30, 5).expect("punch");
            file.punch(0, 0).expect("punch");
            let mut expected = vec![7; 256 * KIB];
            expected[10_000..110_000].fill(0);
            expected[200 * KIB..].fill(0);
            if flushed {
                sync();
            }
            assert!(
                contents(disk.as_ref(), "f") == Some(expected.clone()),
                "{name}"
            );
            let spans = data_spans(disk.as_ref(), "f");
            assert_eq!(spans, [0..12_288, 106_496..200 * KIB], "{name}");
            let taken = disk.taken(p("f")).expect("taken");
            assert!((1..200 * KIB as u64).contains(&taken), "{name}: {taken}");
            // What is written into a hole shows, and a hole in a hole changes nothing.
            file.punch(20_000, 50_000).expect("punch");
            file.write_at(30_000, b"back").expect("write");
            expected[30_000..30_004].copy_from_slice(b"back");
            if flushed {
                sync();
            }
            assert!(contents(disk.as_ref(), "f") == Some(expected), "{name}");
            assert_eq!(data_spans(disk.as_ref(), "f")[1], 28_672..32_768, "{name}");
        }
    }
}

#[test]
fn a_power_loss_brings_back_what_was_punched_and_not_flushed() {
    let dir = scratch();
    let disk = VolatileDisk::open(dir.path()).expect("open");
    put_durably(&disk, "f", &[7; 20_000]);
    let punch = |disk: &VolatileDisk, at| {
        let file = disk.open(p("f"), false).expect("open");
        file.punch(at, 8192).expect("punch");
        file
    };
    drop(punch(&disk, 4096));
    disk.forget();
    let disk = VolatileDisk::open(dir.path()).expect("open anew");
    assert_eq!(contents(&disk, "f"), Some(vec![7; 20_000]));
    punch(&disk, 0).sync().expect("flush");
    drop(punch(&disk, 8192));
    // Or leaves it gone.
    disk.forget_keeping(|| true);
    let disk = RealDisk::open(dir.path()).expect("open anew");
    let mut expected = vec![7; 20_000];
    expected[..16_384].fill(0);
    assert_eq!(contents(&disk, "f"), Some(expected));
}

#[test]
fn a_file_that_is_missing_takes_nothing() {
    for (_, _dir, disk) in both() {
        assert_eq!(disk.taken(p("none")).expect("taken"), 0);
    }
}

#[test]
fn data_is_found_past_holes() {
    const MIB: u64 = 1 << 20;
    let dir = scratch();
    let volatile = VolatileDisk::open(dir.path()).expect("open");
    let file = volatile.open(Path::new("f"), true).expect("file");
    let found = |offset| file.next_data(offset).expect("next data");
    assert_eq!(found(0), None);
    file.write_at(3 * MIB, b"x").expect("write");
    file.set_len(9 * MIB).expect("grow");
    assert!((2 * MIB..=3 * MIB).contains(&found(5).expect("unflushed data")));
    file.sync().expect("flush");
    file.write_at(6 * MIB, b"y").expect("write");
    assert!((2 * MIB..=3 * MIB).contains(&found(5).expect("flushed data")));
    assert_eq!(found(3 * MIB), Some(3 * MIB));
    assert!((5 * MIB..=6 * MIB).contains(&found(4 * MIB).expect("unflushed data")));
    assert_eq!(found(8 * MIB), None);
    file.set_len(2 * MIB).expect("cut");
    assert_eq!(found(0), None, "what was cut is no data");
    assert_eq!(found(9 * MIB), None);
}
