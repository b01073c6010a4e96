//! Random histories of operations, applied alike to the engine and to the reference model.

#![allow(dead_code)] // each test binary uses a part

use bytes::Bytes;
use haven_disk::{ReadOnlyDisk, VolatileDisk};
use haven_fs::model::Model;
use haven_fs::{
    Change, Cookie, Create, Cred, Filesystem, FsError, Ino, Kind, SetAttr, SystemTable, Time,
};
use haven_store::{
    Finding, SnapshotError, SnapshotReader, StagedSnapshot, Store, StoreOptions, check,
};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// A small fixed generator.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn pick(&mut self, from: &[u64]) -> u64 {
        from[self.below(from.len() as u64) as usize]
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

#[derive(Debug, Clone)]
pub enum Op {
    Create(Ino, String, Create),
    Mkdir(Ino, String),
    Symlink(Ino, String),
    Mknod(Ino, String),
    Resize(Ino, u64),
    Chmod(Ino, u32),
    Write(Ino, u64, Vec<u8>),
    Remove(Ino, String),
    Rmdir(Ino, String),
    Rename(Ino, String, Ino, String),
    Link(Ino, Ino, String),
    System(Vec<u8>, Option<Vec<u8>>),
}

/// Inode numbers looked at; histories are too short for more.
const INOS: u64 = 400;
const NAMES: u64 = 12;
const OFFSET_MAX: u64 = 200_000;

/// Chooses operations that fit a state, most of the time.
struct Chooser<'a> {
    rng: &'a mut Rng,
    dirs: Vec<Ino>,
    files: Vec<Ino>,
}

impl<'a> Chooser<'a> {
    fn new(rng: &'a mut Rng, model: &Model) -> Self {
        let (mut dirs, mut files) = (Vec::new(), Vec::new());
        for attr in (1..INOS).filter_map(|ino| model.attr(Ino(ino)).ok()) {
            match attr.kind {
                Kind::Directory => dirs.push(attr.ino),
                Kind::Regular => files.push(attr.ino),
                _ => {}
            }
        }
        Self { rng, dirs, files }
    }

    /// One of `from`, now and then another number.
    fn pick(rng: &mut Rng, from: &[Ino]) -> Ino {
        match from.len() as u64 {
            0 => Ino(rng.below(40)),
            _ if rng.chance(15) => Ino(rng.below(40)),
            len => from[rng.below(len) as usize],
        }
    }

    fn dir(&mut self) -> Ino {
        Self::pick(self.rng, &self.dirs)
    }

    fn file(&mut self) -> Ino {
        Self::pick(self.rng, &self.files)
    }

    fn name(&mut self) -> String {
        format!("n{}", self.rng.below(NAMES))
    }
}

/// A size or offset: on either side of what fits a row, or far beyond.
fn size(rng: &mut Rng) -> u64 {
    let max = rng.pick(&[100, 4_097, 6_000, OFFSET_MAX]);
    rng.below(max)
}

/// The operation of log index `index` in this state: the same for the same seed.
pub fn op(seed: u64, index: u64, model: &Model) -> Op {
    let rng = &mut Rng(seed.wrapping_mul(1_000_003).wrapping_add(index));
    let set = SetAttr {
        mode: Some(0o777),
        size: rng.chance(3).then(|| size(rng)),
        ..SetAttr::default()
    };
    let kind = rng.below(40);
    let size = size(rng);
    let mut choose = Chooser::new(rng, model);
    match kind {
        0..=6 => Op::Create(choose.dir(), choose.name(), Create::Unchecked(set)),
        7 => {
            let verifier = [choose.rng.below(3) as u8; 8];
            Op::Create(choose.dir(), choose.name(), Create::Exclusive(verifier))
        }
        8 | 9 => Op::Mkdir(choose.dir(), choose.name()),
        10 => Op::Symlink(choose.dir(), choose.name()),
        11 => Op::Mknod(choose.dir(), choose.name()),
        12..=17 => Op::Resize(choose.file(), size),
        18 => Op::Chmod(choose.file(), (size % 0o10000) as u32),
        19..=30 => {
            let len_max = choose.rng.pick(&[10, 1_000, 9_000]);
            let len = 1 + choose.rng.below(len_max) as usize;
            Op::Write(choose.file(), size, vec![1 + (index % 255) as u8; len])
        }
        31..=33 => Op::Remove(choose.dir(), choose.name()),
        34 => Op::Rmdir(choose.dir(), choose.name()),
        35 | 36 => Op::Rename(choose.dir(), choose.name(), choose.dir(), choose.name()),
        37 => Op::Link(choose.file(), choose.dir(), choose.name()),
        _ => {
            let value = (!choose.rng.chance(3)).then(|| vec![7; choose.rng.below(300) as usize]);
            Op::System(vec![b'k', choose.rng.below(20) as u8], value)
        }
    }
}

/// Applies an operation; the answer as text, for comparing.
pub fn apply(fs: &mut (impl Filesystem + SystemTable), index: u64, op: &Op) -> String {
    let at = &Change {
        index,
        time: Time {
            secs: 1_000_000 + index as i64,
            nanos: 5,
        },
    };
    let cred = &if index.is_multiple_of(9) {
        Cred {
            uid: 1000,
            gid: 100,
            groups: vec![],
        }
    } else {
        Cred::root()
    };
    let mode = SetAttr {
        mode: Some(0o777),
        ..SetAttr::default()
    };
    match op {
        Op::Create(dir, name, how) => {
            format!("{:?}", fs.create(at, cred, *dir, name.as_bytes(), how))
        }
        Op::Mkdir(dir, name) => format!("{:?}", fs.mkdir(at, cred, *dir, name.as_bytes(), &mode)),
        Op::Symlink(dir, name) => {
            format!(
                "{:?}",
                fs.symlink(at, cred, *dir, name.as_bytes(), b"to/where", &mode)
            )
        }
        Op::Mknod(dir, name) => {
            format!(
                "{:?}",
                fs.mknod(at, cred, *dir, name.as_bytes(), Kind::Fifo, &mode)
            )
        }
        Op::Resize(ino, size) => {
            let set = SetAttr {
                size: Some(*size),
                ..SetAttr::default()
            };
            format!("{:?}", fs.setattr(at, cred, *ino, &set, None))
        }
        Op::Chmod(ino, mode) => {
            let set = SetAttr {
                mode: Some(*mode),
                ..SetAttr::default()
            };
            format!("{:?}", fs.setattr(at, cred, *ino, &set, None))
        }
        Op::Write(ino, offset, data) => format!("{:?}", fs.write(at, cred, *ino, *offset, data)),
        Op::Remove(dir, name) => format!("{:?}", fs.remove(at, cred, *dir, name.as_bytes())),
        Op::Rmdir(dir, name) => format!("{:?}", fs.rmdir(at, cred, *dir, name.as_bytes())),
        Op::Rename(from, name, to, new) => {
            format!(
                "{:?}",
                fs.rename(at, cred, *from, name.as_bytes(), *to, new.as_bytes())
            )
        }
        Op::Link(ino, dir, name) => {
            format!("{:?}", fs.link(at, cred, *ino, *dir, name.as_bytes()))
        }
        Op::System(key, value) => format!("{:?}", fs.system_put(key, value.as_deref())),
    }
}

/// Everything that can be seen of a file system, as text. Contents of files as runs of equal bytes.
pub fn picture(fs: &(impl Filesystem + SystemTable), contents: bool) -> String {
    let root = Cred::root();
    let mut out = String::new();
    for number in 1..INOS {
        let ino = Ino(number);
        let attr = match fs.attr(ino) {
            Ok(attr) => attr,
            Err(FsError::Stale) => continue,
            Err(error) => panic!("attributes of {ino:?}: {error}"),
        };
        out += &format!("{attr:?}\n");
        match attr.kind {
            Kind::Regular if contents => out += &runs(fs, ino, attr.size),
            Kind::Symlink => out += &format!("{:?}\n", fs.readlink(&root, ino).unwrap()),
            Kind::Directory => {
                let end = fs.readdir(&root, ino, Cookie(0), true, &mut |entry| {
                    out += &format!("{entry:?}\n");
                    ControlFlow::Continue(())
                });
                assert_eq!(end, Ok(true));
            }
            _ => {}
        }
    }
    fs.system_scan(b"", &mut |key, value| {
        out += &format!("{key:?}={value:?}\n");
        ControlFlow::Continue(())
    })
    .unwrap();
    out
}

fn runs(fs: &impl Filesystem, ino: Ino, size: u64) -> String {
    let read = fs.read(&Cred::root(), ino, 0, size as u32 + 10).unwrap();
    assert_eq!(read.data.len() as u64, size);
    assert!(read.eof);
    let mut out = String::new();
    for run in read.data.chunk_by(|a, b| a == b) {
        out += &format!("{}x{} ", run[0], run.len());
    }
    out + "\n"
}

/// A store and what it should be.
pub struct Twins {
    pub store: Store,
    pub model: Model,
    pub seed: u64,
    pub index: u64,
    /// Operations that were no error.
    pub succeeded: u64,
}

impl Twins {
    pub fn new(store: Store, seed: u64) -> Self {
        Self {
            store,
            model: Model::new(),
            seed,
            index: 0,
            succeeded: 0,
        }
    }

    /// A store at some position of its history, and the model there.
    pub fn resumed(store: Store, seed: u64) -> Self {
        let index = index_of(store.position().unwrap());
        Self {
            model: model_at(seed, index),
            index,
            ..Self::new(store, seed)
        }
    }

    /// Applies the next operation to both.
    pub fn step(&mut self) {
        self.try_step().unwrap();
    }

    /// As [`Twins::step`]; if the disk failed, what the store said. The model is one operation ahead of it then.
    pub fn try_step(&mut self) -> Result<(), String> {
        self.index += 1;
        let op = op(self.seed, self.index, &self.model);
        let expected = apply(&mut self.model, self.index, &op);
        self.succeeded += u64::from(expected.starts_with("Ok"));
        let answer = apply(&mut self.store, self.index, &op);
        if answer.contains("Fatal") {
            return Err(answer);
        }
        assert_eq!(
            answer, expected,
            "seed {} index {} {op:?}",
            self.seed, self.index
        );
        self.store.set_applied(self.index);
        self.store.set_position(position(self.index)).unwrap();
        Ok(())
    }

    pub fn steps(&mut self, count: u64) {
        for _ in 0..count {
            self.step();
        }
    }

    pub fn assert_equal(&self) {
        let (store, model) = (picture(&self.store, true), picture(&self.model, true));
        assert!(
            store == model,
            "seed {} index {}\n{}",
            self.seed,
            self.index,
            diff(&store, &model)
        );
    }
}

/// The first lines in which two pictures differ.
pub fn diff(a: &str, b: &str) -> String {
    let both = a.lines().zip(b.lines()).find(|(a, b)| a != b);
    both.map_or("one is longer".into(), |(a, b)| {
        format!("store: {a}\nmodel: {b}")
    })
}

pub fn position(index: u64) -> Bytes {
    Bytes::copy_from_slice(&index.to_be_bytes())
}

pub fn index_of(position: Option<Bytes>) -> u64 {
    position.map_or(0, |blob| {
        u64::from_be_bytes(blob.as_ref().try_into().unwrap())
    })
}

/// The model after the first `index` operations.
pub fn model_at(seed: u64, index: u64) -> Model {
    let mut model = Model::new();
    for at in 1..=index {
        let op = op(seed, at, &model);
        apply(&mut model, at, &op);
    }
    model
}

/// What a check of the store on a disk that nobody holds finds.
pub fn findings(root: &Path) -> Vec<Finding> {
    let disk = ReadOnlyDisk::open(root).unwrap();
    let mut found = Vec::new();
    check(&disk, Path::new("store"), &mut |finding| {
        found.push(finding)
    })
    .unwrap();
    found
}

/// Asserts that there is nothing but what a crash may leave.
pub fn assert_clean(root: &Path) {
    let mut found = findings(root);
    found.retain(|finding| !finding.problem.is_note());
    assert!(found.is_empty(), "{found:?}");
}

pub fn open_disk(root: &Path) -> Arc<VolatileDisk> {
    Arc::new(VolatileDisk::open(root).unwrap())
}

pub fn open_store(disk: &Arc<VolatileDisk>) -> Store {
    let options = StoreOptions {
        cache_bytes: 4 << 20,
    };
    Store::open(disk.clone(), Path::new("store"), options).unwrap()
}

/// All chunks of a stream.
pub fn chunks(reader: &mut SnapshotReader) -> Vec<Bytes> {
    std::iter::from_fn(|| reader.next_chunk().unwrap()).collect()
}

pub fn receive(store: &Store, chunks: &[Bytes]) -> Result<StagedSnapshot, SnapshotError> {
    let mut writer = store.receive();
    for chunk in chunks {
        writer.push(chunk)?;
    }
    writer.finish()
}

/// Such a stream is refused.
pub fn refused(store: &Store, chunks: &[Bytes], what: &str) {
    let result = receive(store, chunks).map(drop);
    assert!(
        matches!(result, Err(SnapshotError::Bad(_))),
        "{what}: {result:?}"
    );
}

/// Whatever chunk is missing, doubled, changed in a byte or cut: the stream is refused.
pub fn every_damage_is_refused(store: &Store, sent: &[Bytes]) {
    for at in 0..sent.len() {
        let mut less = sent.to_vec();
        less.remove(at);
        refused(store, &less, &format!("chunk {at} missing"));
        let mut twice = sent.to_vec();
        twice.insert(at, sent[at].clone());
        refused(store, &twice, &format!("chunk {at} twice"));
        let len = sent[at].len();
        for byte in [0, 1, 5, 9, 13, 21, 28, len / 2, len - 1] {
            let byte = byte.min(len - 1);
            let mut flipped = sent.to_vec();
            let mut chunk = sent[at].to_vec();
            chunk[byte] ^= 0x41;
            flipped[at] = chunk.into();
            refused(
                store,
                &flipped,
                &format!("byte {byte} of chunk {at} flipped"),
            );
        }
        let mut short = sent.to_vec();
        short[at] = sent[at].slice(..len - 1);
        refused(store, &short, &format!("chunk {at} cut"));
    }
}
