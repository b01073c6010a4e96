//! Random histories: the same operations on the engine and on the model must give the same results and
//! the same tree.
//!
//! Everything follows from the seed, so a failure is repeated by running the same seed again.

use super::subject::list;
use super::{Engine, Subject};
use crate::model::Model;
use crate::{
    Access, Attr, Cookie, Create, Cred, Device, FILE_SIZE_MAX, FsResult, Ino, Kind, Level, SetAttr,
    SetTime, Time,
};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "a longer name with spaces"];
/// Steps between clean-ups of what operations choose from.
const PRUNE_STEPS: usize = 64;
/// Longest file content that is compared in one piece.
const COMPARE_BYTES: u32 = 1 << 16;
/// Entries listed at once: more than any directory here ever has.
const LIST_MAX: usize = 1_000;

/// Applies `n` random operations to an engine from `make` and to the model and compares every result;
/// from time to time, and in the end, the whole tree with attributes and contents. With an even seed the first half follows
/// the rules of the first level.
///
/// # Panics
/// With seed and step where the engine differs from the model.
pub fn random_ops_equal(make: &dyn Fn() -> Box<dyn Engine>, seed: u64, n: usize) {
    let mut engine = make();
    let mut model = Model::new();
    let mut engine = Subject::new(engine.as_mut());
    let mut model = Subject::new(&mut model);
    let mut random = Random(seed ^ 0x9e37_79b9_7f4a_7c15);
    let mut known = Known {
        dirs: vec![engine.root()],
        others: vec![],
    };
    if seed.is_multiple_of(2) {
        engine.fs.set_level(Level::FIRST);
        model.fs.set_level(Level::FIRST);
    }
    for step in 0..n {
        if step == n / 2 {
            engine.fs.set_level(Level::NEWEST);
            model.fs.set_level(Level::NEWEST);
        }
        let op = Op::random(&mut random, &known);
        let (got, want) = (op.apply(&mut engine), op.apply(&mut model));
        assert_eq!(
            got, want,
            "seed {seed}, step {step}: {op:?} (left: engine, right: model)"
        );
        if let Ok(Outcome::Attr(attr)) = got {
            known.add(&attr);
        }
        if step % PRUNE_STEPS == 0 {
            known.prune(&model);
        }
        if step % 256 == 255 {
            same_tree(&engine, &model, seed, step);
        }
    }
    same_tree(&engine, &model, seed, n);
}

/// The inodes that operations choose from.
struct Known {
    dirs: Vec<Ino>,
    others: Vec<Ino>,
}

impl Known {
    fn add(&mut self, attr: &Attr) {
        let list = if attr.kind == Kind::Directory {
            &mut self.dirs
        } else {
            &mut self.others
        };
        if !list.contains(&attr.ino) {
            list.push(attr.ino);
        }
    }

    /// Forgets inodes that are gone, all but the oldest: stale ones should be met, but not often.
    fn prune(&mut self, model: &Subject<'_>) {
        for list in [&mut self.dirs, &mut self.others] {
            let mut stale = 0;
            list.retain(|&ino| {
                stale += usize::from(model.fs.attr(ino).is_err());
                stale <= 1 || model.fs.attr(ino).is_ok()
            });
        }
    }
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    /// Any inode, rather a young one.
    fn any(&mut self, from: &[Ino]) -> Ino {
        let young = from.len().saturating_sub(6);
        match from.len() {
            0 => Ino(u64::MAX),
            _ if self.one_in(3) => self.pick(from),
            _ => self.pick(&from[young..]),
        }
    }

    /// Nearly always a directory.
    fn dir(&mut self, known: &Known) -> Ino {
        if self.one_in(24) {
            self.any(&known.others)
        } else {
            self.any(&known.dirs)
        }
    }

    /// Mostly no directory.
    fn other(&mut self, known: &Known) -> Ino {
        if self.one_in(4) {
            self.any(&known.dirs)
        } else {
            self.any(&known.others)
        }
    }

    fn name(&mut self) -> &'static str {
        match self.below(40) {
            0 => ".",
            1 => "..",
            _ => self.pick(&NAMES),
        }
    }

    fn cred(&mut self) -> Cred {
        match self.below(6) {
            0..=2 => Cred::root(),
            3 => Cred {
                uid: 10,
                gid: 100,
                groups: vec![],
            },
            4 => Cred {
                uid: 11,
                gid: 101,
                groups: vec![100, 102],
            },
            _ => Cred {
                uid: 12,
                gid: 102,
                groups: vec![],
            },
        }
    }

    fn option<T>(&mut self, one_in: u64, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.one_in(one_in) {
            Some(value(self))
        } else {
            None
        }
    }

    fn mode(&mut self) -> u32 {
        let rwx = [
            0o777, 0o755, 0o700, 0o770, 0o644, 0o1777, 0o2775, 0o6755, 0o4711, 0o2644, 0,
        ];
        self.pick(&rwx)
    }

    fn set_time(&mut self) -> SetTime {
        if self.one_in(2) {
            return SetTime::Server;
        }
        let nanos = if self.one_in(10) {
            1_000_000_000
        } else {
            self.below(1_000_000_000) as u32
        };
        SetTime::Client(Time {
            secs: self.below(1 << 33) as i64,
            nanos,
        })
    }

    fn size(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX - self.below(3),
            2 => FILE_SIZE_MAX - 5_000 + self.below(10_000),
            3 => 4096 * self.below(4),
            _ => self.below(20_000),
        }
    }

    fn set_attr(&mut self) -> SetAttr {
        SetAttr {
            mode: self.option(2, Self::mode),
            uid: self.option(6, |r| r.pick(&[0, 10, 11, 12])),
            gid: self.option(6, |r| r.pick(&[0, 100, 101, 102])),
            size: self.option(4, Self::size),
            atime: self.option(6, Self::set_time),
            mtime: self.option(6, Self::set_time),
        }
    }

    fn data(&mut self) -> Vec<u8> {
        let len = if self.one_in(4) {
            self.below(9_000)
        } else {
            self.below(40)
        };
        let byte = self.next() as u8;
        (0..len).map(|i| byte.wrapping_add(i as u8)).collect()
    }
}

#[derive(Debug)]
enum Op {
    Create(Cred, Ino, &'static str, Create),
    Mkdir(Cred, Ino, &'static str, SetAttr),
    Symlink(Cred, Ino, &'static str, Vec<u8>, SetAttr),
    Mknod(Cred, Ino, &'static str, Kind, SetAttr),
    Setattr(Cred, Ino, SetAttr, Option<Time>),
    Write(Cred, Ino, u64, Vec<u8>),
    Remove(Cred, Ino, &'static str),
    Rmdir(Cred, Ino, &'static str),
    Rename(Cred, Ino, &'static str, Ino, &'static str),
    Link(Cred, Ino, Ino, &'static str),
    Lookup(Cred, Ino, &'static str),
    Access(Cred, Ino),
    Readlink(Cred, Ino),
    Read(Cred, Ino, u64, u32),
    Readdir(Cred, Ino, u64, usize),
    System(Vec<u8>, Option<Vec<u8>>),
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Attr(Attr),
    Done,
    Access(Access),
    Data(Vec<u8>, bool),
    List(Vec<(Vec<u8>, Ino, Cookie)>, bool),
}

impl Op {
    fn random(r: &mut Random, known: &Known) -> Self {
        let (cred, dir, other, name) = (r.cred(), r.dir(known), r.other(known), r.name());
        match r.below(32) {
            0..=4 => Self::Create(cred, dir, name, random_create(r)),
            5..=8 => Self::Mkdir(cred, dir, name, r.set_attr()),
            9 => Self::Symlink(cred, dir, name, random_target(r), r.set_attr()),
            10 => Self::Mknod(cred, dir, name, random_kind(r), r.set_attr()),
            11..=13 => {
                let guard = r.option(8, |r| Time {
                    secs: r.below(2_000) as i64,
                    nanos: 7,
                });
                Self::Setattr(cred, other, r.set_attr(), guard)
            }
            14..=17 => Self::Write(cred, other, r.size(), r.data()),
            18..=19 => Self::Remove(cred, dir, name),
            20..=21 => Self::Rmdir(cred, dir, name),
            22..=24 => Self::Rename(cred, dir, name, r.dir(known), r.name()),
            25 => Self::Link(cred, other, dir, name),
            26 => Self::Lookup(cred, dir, name),
            27 => Self::Access(cred, other),
            28 => Self::Readlink(cred, other),
            29 => Self::Read(cred, other, r.size(), r.below(10_000) as u32),
            30 => Self::Readdir(cred, dir, r.below(12), r.below(6) as usize),
            _ => Self::System(vec![b'k', r.below(8) as u8], r.option(2, Random::data)),
        }
    }

    fn apply(&self, s: &mut Subject<'_>) -> FsResult<Outcome> {
        let at = s.advance();
        let attr = match self {
            Self::Create(cred, dir, name, how) => {
                s.fs.create(&at, cred, *dir, name.as_bytes(), how)
            }
            Self::Mkdir(cred, dir, name, set) => s.fs.mkdir(&at, cred, *dir, name.as_bytes(), set),
            Self::Symlink(cred, dir, name, to, set) => {
                s.fs.symlink(&at, cred, *dir, name.as_bytes(), to, set)
            }
            Self::Mknod(cred, dir, name, kind, set) => {
                s.fs.mknod(&at, cred, *dir, name.as_bytes(), *kind, set)
            }
            Self::Setattr(cred, ino, set, guard) => s.fs.setattr(&at, cred, *ino, set, *guard),
            Self::Write(cred, ino, offset, data) => s.fs.write(&at, cred, *ino, *offset, data),
            Self::Link(cred, ino, dir, name) => s.fs.link(&at, cred, *ino, *dir, name.as_bytes()),
            Self::Lookup(cred, dir, name) => s.lookup(cred, *dir, name),
            other => return other.apply_other(s),
        };
        attr.map(Outcome::Attr)
    }

    /// The operations that do not return attributes.
    fn apply_other(&self, s: &mut Subject<'_>) -> FsResult<Outcome> {
        let at = s.now();
        match self {
            Self::Remove(cred, dir, name) => s.fs.remove(&at, cred, *dir, name.as_bytes())?,
            Self::Rmdir(cred, dir, name) => s.fs.rmdir(&at, cred, *dir, name.as_bytes())?,
            Self::Rename(cred, from, name, to, new) => {
                s.fs.rename(&at, cred, *from, name.as_bytes(), *to, new.as_bytes())?;
            }
            Self::Access(cred, ino) => {
                return s.fs.access(cred, *ino, all_access()).map(Outcome::Access);
            }
            Self::Readlink(cred, ino) => {
                return s
                    .fs
                    .readlink(cred, *ino)
                    .map(|to| Outcome::Data(to.to_vec(), true));
            }
            Self::Read(cred, ino, offset, len) => {
                let read = s.read(cred, *ino, *offset, *len)?;
                return Ok(Outcome::Data(read.data.to_vec(), read.eof));
            }
            Self::Readdir(cred, dir, after, max) => {
                let (entries, end) = s.list(cred, *dir, Cookie(*after), *max)?;
                return Ok(Outcome::List(entries, end));
            }
            Self::System(key, value) => s.fs.system_put(key, value.as_deref())?,
            _ => unreachable!("handled by apply"),
        }
        Ok(Outcome::Done)
    }
}

fn random_create(r: &mut Random) -> Create {
    match r.below(4) {
        0 => Create::Guarded(r.set_attr()),
        1 => Create::Exclusive([r.below(3) as u8; 8]),
        _ => Create::Unchecked(r.set_attr()),
    }
}

fn random_target(r: &mut Random) -> Vec<u8> {
    match r.below(8) {
        0 => Vec::new(),
        1 => vec![b'x'; 4090 + r.below(12) as usize],
        2 => b"nul\0inside".to_vec(),
        _ => b"../a/b".to_vec(),
    }
}

fn random_kind(r: &mut Random) -> Kind {
    let device = Device {
        major: r.below(300) as u32,
        minor: r.below(300) as u32,
    };
    r.pick(&[
        Kind::Fifo,
        Kind::Socket,
        Kind::BlockDevice(device),
        Kind::CharDevice(device),
        Kind::Regular,
        Kind::Directory,
        Kind::Symlink,
    ])
}

fn all_access() -> Access {
    Access {
        read: true,
        lookup: true,
        modify: true,
        extend: true,
        delete: true,
        execute: true,
    }
}

/// Compares everything reachable from the root, and the system tables.
fn same_tree(engine: &Subject<'_>, model: &Subject<'_>, seed: u64, step: usize) {
    let root = Cred::root();
    let mut todo = vec![engine.root()];
    while let Some(ino) = todo.pop() {
        let (got, want) = (engine.attr(ino), model.attr(ino));
        assert_eq!(got, want, "seed {seed}, step {step}: attributes of {ino:?}");
        match want.kind {
            Kind::Directory => {
                let got = list(&*engine.fs, &root, ino, Cookie(0), LIST_MAX);
                let want = list(&*model.fs, &root, ino, Cookie(0), LIST_MAX);
                assert_eq!(got, want, "seed {seed}, step {step}: entries of {ino:?}");
                let entries = want.map(|(entries, _)| entries).unwrap_or_default();
                let below = entries
                    .iter()
                    .filter(|(name, ..)| name != b"." && name != b"..");
                todo.extend(below.map(|&(_, ino, _)| ino));
            }
            Kind::Regular => same_data(engine, model, &want, seed, step),
            Kind::Symlink => {
                let (got, want) = (
                    engine.fs.readlink(&root, ino),
                    model.fs.readlink(&root, ino),
                );
                assert_eq!(got, want, "seed {seed}, step {step}: target of {ino:?}");
            }
            _ => {}
        }
    }
    let (got, want) = (system(&*engine.fs), system(&*model.fs));
    assert_eq!(got, want, "seed {seed}, step {step}: system table");
}

/// Compares the head and the tail of a file: those of a sparse giant hold all its data here.
fn same_data(engine: &Subject<'_>, model: &Subject<'_>, attr: &Attr, seed: u64, step: usize) {
    let tail = attr.size.saturating_sub(u64::from(COMPARE_BYTES));
    for offset in [0, FILE_SIZE_MAX - 60_000, tail] {
        let got = engine.read(&Cred::root(), attr.ino, offset, COMPARE_BYTES);
        let want = model.read(&Cred::root(), attr.ino, offset, COMPARE_BYTES);
        assert!(
            got == want,
            "seed {seed}, step {step}: data of {:?} at {offset}",
            attr.ino
        );
    }
}

fn system(fs: &dyn Engine) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs = Vec::new();
    let scanned = fs.system_scan(b"k", &mut |key, value| {
        pairs.push((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(scanned, Ok(()), "the system table can be read");
    pairs
}
