//! How long the longest step of each operation takes, at what bounds it: the figures of docs/decisions/0012.
//!
//!     cargo run -p haven-store --example longest -- DIRECTORY
//!
//! DIRECTORY must not exist. Prints one line for each operation: the worst of several, in milliseconds.

#![allow(clippy::unwrap_used, reason = "an example that cannot go on ends")]

use haven_disk::RealDisk;
use haven_fs::{Change, Cookie, Create, Cred, Filesystem, Ino, MOVE_DEPTH_MAX, SetAttr, Time};
use haven_store::{Store, StoreOptions};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const ROUNDS: usize = 20;

struct Subject {
    store: Store,
    index: u64,
}

impl Subject {
    fn open(dir: &Path) -> Self {
        let disk = Arc::new(RealDisk::open(dir).unwrap());
        let store = Store::open(disk, Path::new("store"), StoreOptions::default()).unwrap();
        Self {
            store,
            index: 1 << 32,
        }
    }

    fn do_it<T>(&mut self, change: impl FnOnce(&mut Store, &Change, &Cred) -> T) -> T {
        self.index += 1;
        let at = Change {
            index: self.index,
            time: Time::default(),
        };
        let result = change(&mut self.store, &at, &Cred::root());
        self.store.set_applied(self.index);
        let position = self.index.to_be_bytes().to_vec();
        self.store.set_position(position.into()).unwrap();
        result
    }

    fn dir(&mut self, parent: Ino, name: &str) -> Ino {
        let set = SetAttr::default();
        self.do_it(|s, at, cred| s.mkdir(at, cred, parent, name.as_bytes(), &set))
            .unwrap()
            .ino
    }

    fn file(&mut self, parent: Ino, name: &str) -> Ino {
        let how = Create::Guarded(SetAttr::default());
        self.do_it(|s, at, cred| s.create(at, cred, parent, name.as_bytes(), &how))
            .unwrap()
            .ino
    }

    fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) {
        self.do_it(|s, at, cred| s.write(at, cred, ino, offset, data))
            .unwrap();
    }

    fn resize(&mut self, ino: Ino, size: u64) {
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        self.do_it(|s, at, cred| s.setattr(at, cred, ino, &set, None))
            .unwrap();
    }

    /// A file of so many pieces of 4 KiB, one every 64 KiB, on the device.
    fn scattered(&mut self, name: &str, pieces: u64) -> Ino {
        let ino = self.file(self.store.root(), name);
        (0..pieces).for_each(|n| self.write(ino, n * 64 * KIB, &[7; 4096]));
        self.store.checkpoint().unwrap();
        ino
    }
}

fn timed(act: impl FnOnce()) -> Duration {
    let began = Instant::now();
    act();
    began.elapsed()
}

fn say(what: &str, times: impl IntoIterator<Item = Duration>) {
    let worst = times.into_iter().max().unwrap_or_default();
    println!("{:>9.3} ms  {what}", worst.as_secs_f64() * 1000.0);
}

fn main() {
    let dir = std::env::args().nth(1).expect("usage: longest DIRECTORY");
    let dir = Path::new(&dir);
    std::fs::create_dir(dir).unwrap();
    let mut s = Subject::open(dir);
    moves(&mut s, dir);
    writes(&mut s);
    cuts(&mut s);
    maps(&mut s);
    listings(&mut s);
    checkpoints(&mut s);
    drop(s);
    std::fs::remove_dir_all(dir).unwrap();
}

fn moves(s: &mut Subject, dir: &Path) {
    let mut deep = s.store.root();
    for _ in 0..MOVE_DEPTH_MAX - 1 {
        deep = s.dir(deep, "d");
    }
    let (a, b) = (s.dir(deep, "a"), s.dir(deep, "b"));
    let tree = s.dir(a, "t");
    s.dir(tree, "below");
    let there_and_back = |s: &mut Subject| {
        for (from, to) in [(a, b), (b, a)] {
            s.do_it(|s, at, cred| s.rename(at, cred, from, b"t", to, b"t"))
                .unwrap();
        }
    };
    let warm = (0..ROUNDS).map(|_| timed(|| there_and_back(s)) / 2);
    say(
        "RENAME to a directory 2,048 levels down, its rows in memory",
        warm,
    );
    s.store.checkpoint().unwrap();
    let placeholder = dir.join("placeholder");
    std::fs::create_dir(&placeholder).unwrap();
    let old = std::mem::replace(s, Subject::open(&placeholder));
    let index = old.index;
    drop(old);
    *s = Subject::open(dir);
    s.index = index;
    say("the same just after a start", [timed(|| there_and_back(s))]);
}

fn writes(s: &mut Subject) {
    let ino = s.file(s.store.root(), "large");
    let data = vec![7; MIB as usize];
    let times = (0..64).map(|n| timed(|| s.write(ino, n * MIB, &data)));
    say("WRITE of 1 MiB", times.collect::<Vec<_>>());
    let files: Vec<Ino> = (0..ROUNDS)
        .map(|n| s.file(s.store.root(), &format!("small{n}")))
        .collect();
    let times = files.into_iter().map(|ino| {
        s.write(ino, 0, &[7; 4096]);
        timed(|| s.write(ino, 4096, &[7; 1]))
    });
    say(
        "WRITE that moves a file out of its row",
        times.collect::<Vec<_>>(),
    );
}

fn cuts(s: &mut Subject) {
    let ino = s.scattered("cut", 2_000);
    say(
        "SETATTR of a size that cuts off 2,000 extents",
        [timed(|| s.resize(ino, 0))],
    );
    let cutter = s.store.cutter();
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    loop {
        let piece = Instant::now();
        if cutter.piece(64 * KIB).unwrap().is_none() {
            break;
        }
        longest = longest.max(piece.elapsed());
    }
    say(
        "giving them back, on a thread of its own",
        [began.elapsed()],
    );
    say("the longest piece of 64 KiB of that", [longest]);
    let ino = s.file(s.store.root(), "near");
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        (0..16).for_each(|n| s.write(ino, n * 8 * KIB, &[7; 4096]));
        s.store.checkpoint().unwrap();
        times.push(timed(|| s.resize(ino, 64 * KIB)));
    }
    say("SETATTR of a size that cuts off 64 KiB at once", times);
    s.scattered("gone", 2_000);
    let root = s.store.root();
    let remove = |s: &mut Subject| {
        s.do_it(|s, at, cred| s.remove(at, cred, root, b"gone"))
            .unwrap();
    };
    say("REMOVE of a file of 2,000 extents", [timed(|| remove(s))]);
}

/// Files whose maps of blocks have as many chunks as are kept, one for each 16 MiB.
fn maps(s: &mut Subject) {
    let chunk = 16 * MIB;
    // Chunks of more runs than 64 are at their largest.
    let mapped = |s: &mut Subject, name: &str, runs: u64| {
        let ino = s.file(s.store.root(), name);
        let spread = (1..=1024).flat_map(|n| (0..runs).map(move |at| n * chunk + at * 64 * KIB));
        spread.for_each(|at| s.write(ino, at, &[7]));
        s.store.checkpoint().unwrap();
        ino
    };
    let ino = mapped(s, "mapped", 70);
    let times = (0..64).map(|n| timed(|| s.write(ino, (1 + n) * chunk + 100 * KIB, &[7])));
    say(
        "WRITE into a map of 1,024 chunks",
        times.collect::<Vec<_>>(),
    );
    let beyond = timed(|| s.write(ino, 2_000 * chunk, &[7]));
    say("WRITE that makes its units larger", [beyond]);
    let ino = mapped(s, "mapped-cut", 70);
    say(
        "SETATTR of a size that cuts off 1,024 chunks",
        [timed(|| s.resize(ino, 0))],
    );
    let root = s.store.root();
    for runs in [1, 70] {
        mapped(s, "mapped-gone", runs);
        let remove = |s: &mut Subject| {
            s.do_it(|s, at, cred| s.remove(at, cred, root, b"mapped-gone"))
                .unwrap();
        };
        let times = [timed(|| remove(s))];
        say(
            &format!("REMOVE of a file of 1,024 chunks of {runs} blocks"),
            times,
        );
    }
    let ino = s.file(root, "again");
    for round in 0..200 {
        (1..=500).for_each(|n| s.write(ino, (round * 500 + n) * chunk, &[7]));
        s.resize(ino, 0);
    }
    s.write(ino, chunk, &[7]);
    say(
        "SETATTR of a size after 100,000 chunks were cut off since the checkpoint",
        [timed(|| s.resize(ino, 0))],
    );
}

fn listings(s: &mut Subject) {
    let dir = s.dir(s.store.root(), "many");
    let count = 40_000;
    let name = |n: u32| format!("{n:x}");
    (0..count).for_each(|n| {
        s.file(dir, &name(n));
    });
    let list = |s: &Subject, attributes, most: usize| {
        let mut seen = 0;
        let mut visit = |_: haven_fs::DirEntry<'_>| {
            seen += 1;
            match seen < most {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        };
        let listed = s
            .store
            .readdir(&Cred::root(), dir, Cookie(0), attributes, &mut visit);
        listed.unwrap();
    };
    // As many as fit 1 MiB with the shortest names.
    say(
        "READDIR of 1 MiB (query)",
        (0..3).map(|_| timed(|| list(s, false, 32_000))),
    );
    say(
        "READDIRPLUS of 1 MiB (query)",
        (0..3).map(|_| timed(|| list(s, true, 5_400))),
    );
    s.store.checkpoint().unwrap();
    for n in 0..count {
        let name = name(n);
        s.do_it(|s, at, cred| s.remove(at, cred, dir, name.as_bytes()))
            .unwrap();
    }
    let times = (0..3).map(|_| timed(|| list(s, false, 10)));
    say(
        "READDIR of a directory from which 40,000 names were removed since the checkpoint (query)",
        times,
    );
}

fn checkpoints(s: &mut Subject) {
    let dir = s.dir(s.store.root(), "rows");
    (0..50_000).for_each(|n| {
        s.file(dir, &format!("f{n}"));
    });
    let mut job = None;
    let begin = timed(|| job = s.store.freeze().unwrap());
    say("the beginning of a checkpoint of 200,000 rows", [begin]);
    let done = job.unwrap().run().unwrap();
    let end = timed(|| drop(s.store.finish_checkpoint(&done).unwrap()));
    say("its end", [end]);
}
