//! Many files through the store, as the server uses it: entries are applied in batches under a write lock,
//! checkpoints run beside them on another thread. Prints rates, memory, sizes, the longest times the lock
//! was held, how long opening takes after the process was killed, and what queries cost.
//!
//!     cargo run --release -p haven-store --example million -- make  <directory> <MiB of cache> <files> <bytes each>
//!     cargo run --release -p haven-store --example million -- query <directory> <MiB of cache> <queries>
//!
//! `make` ends by killing itself, so `query` measures an opening after a kill.

use bytes::Bytes;
use haven_disk::RealDisk;
use haven_fs::{Access, Attr, Change, Create, Cred, Filesystem, Ino, SetAttr, Time};
use haven_store::{Store, StoreOptions};
use parking_lot::RwLock;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const DIRS: u64 = 100;
const BATCH: u64 = 64;
const CHECKPOINT_ENTRIES: u64 = 50_000;
const REPORT_FILES: u64 = 100_000;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["make", dir, cache, files, bytes] => make(
            open(Path::new(dir), cache)?,
            Path::new(dir),
            files.parse()?,
            bytes.parse()?,
        ),
        ["query", dir, cache, queries] => {
            let start = Instant::now();
            let store = open(Path::new(dir), cache)?;
            println!("opened in {:.1} ms", start.elapsed().as_secs_f64() * 1000.0);
            query(&store, queries.parse()?)
        }
        _ => Err("make <directory> <MiB of cache> <files> <bytes each>, \
                  or query <directory> <MiB of cache> <queries>"
            .into()),
    }
}

fn open(dir: &Path, cache_mib: &str) -> Result<Store, Failure> {
    let options = StoreOptions {
        cache_bytes: cache_mib.parse::<usize>()? << 20,
    };
    let disk = Arc::new(RealDisk::open(dir)?);
    Ok(Store::open(disk, Path::new("store"), options)?)
}

fn change(index: u64) -> Change {
    let secs = i64::try_from(index).unwrap_or(i64::MAX);
    Change {
        index,
        time: Time { secs, nanos: 0 },
    }
}

fn with_mode(mode: u32) -> SetAttr {
    SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    }
}

/// The longest times that the lock was held, in nanoseconds.
#[derive(Default)]
struct Longest {
    batch: AtomicU64,
    freeze: AtomicU64,
    finish: AtomicU64,
}

fn note(longest: &AtomicU64, since: Instant) {
    let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
    longest.fetch_max(nanos, Ordering::Relaxed);
}

fn ms(longest: &AtomicU64) -> f64 {
    Duration::from_nanos(longest.swap(0, Ordering::Relaxed)).as_secs_f64() * 1000.0
}

/// Begins a checkpoint, unless one is under way.
fn checkpoint(
    store: &Arc<RwLock<Store>>,
    longest: &Arc<Longest>,
) -> Result<Option<JoinHandle<Result<(), Failure>>>, Failure> {
    let start = Instant::now();
    let job = store.write().freeze()?;
    note(&longest.freeze, start);
    let (store, longest) = (Arc::clone(store), Arc::clone(longest));
    Ok(job.map(|job| {
        std::thread::spawn(move || {
            let done = job.run()?;
            let mut guard = store.write();
            let start = Instant::now();
            guard.finish_checkpoint(&done)?;
            note(&longest.finish, start);
            drop(guard);
            Ok(())
        })
    }))
}

fn make(mut store: Store, dir: &Path, files: u64, bytes: usize) -> Result<(), Failure> {
    let dirs: Vec<Ino> = (0..DIRS)
        .map(|number| {
            let name = format!("dir-{number}");
            let at = change(number + 1);
            store.mkdir(
                &at,
                &Cred::root(),
                Ino(1),
                name.as_bytes(),
                &with_mode(0o755),
            )
        })
        .map(|made| made.map(|attr: Attr| attr.ino))
        .collect::<Result<_, _>>()?;
    store.set_position(Bytes::from_static(b"start"))?;
    let store = Arc::new(RwLock::new(store));
    let longest = Arc::new(Longest::default());
    let data = vec![7; bytes];
    let mut since = Instant::now();
    let mut running: Option<JoinHandle<Result<(), Failure>>> = None;
    let mut entries = 0;
    println!(
        "   files  files/s  CPU us  RSS MiB  pending MiB  checkpoints  batch ms  freeze ms  finish ms"
    );
    let (mut checkpoints, mut cpu_before) = (0, cpu_us());
    for first in (0..files).step_by(BATCH as usize) {
        let mut guard = store.write();
        let start = Instant::now();
        for number in first..files.min(first + BATCH) {
            let at = change(DIRS + 1 + 2 * number);
            let parent = dirs[(number % DIRS) as usize];
            let how = Create::Guarded(with_mode(0o644));
            let name = file_name(number);
            let attr = guard.create(&at, &Cred::root(), parent, name.as_bytes(), &how)?;
            if bytes > 0 {
                let at = change(DIRS + 2 + 2 * number);
                guard.write(&at, &Cred::root(), attr.ino, 0, &data)?;
                entries += 1;
            }
            entries += 1;
        }
        guard.set_position(Bytes::copy_from_slice(&first.to_be_bytes()))?;
        note(&longest.batch, start);
        drop(guard);
        let idle = running.as_ref().is_none_or(JoinHandle::is_finished);
        if entries >= CHECKPOINT_ENTRIES && idle {
            entries = 0;
            checkpoints += 1;
            if let Some(last) = running.take() {
                last.join().map_err(|_| "a checkpoint panicked")??;
            }
            running = checkpoint(&store, &longest)?;
        }
        let reached = first + BATCH;
        if reached / REPORT_FILES > first / REPORT_FILES {
            let cpu = (cpu_us() - cpu_before) / REPORT_FILES as f64;
            let rate = REPORT_FILES as f64 / since.elapsed().as_secs_f64();
            println!(
                "{reached:8}  {rate:7.0}  {cpu:6.2}  {:7}  {:11}  {checkpoints:11}  {:8.2}  {:9.3}  {:9.3}",
                resident_mib(),
                store.read().pending_bytes() >> 20,
                ms(&longest.batch),
                ms(&longest.freeze),
                ms(&longest.finish),
            );
            (since, checkpoints, cpu_before) = (Instant::now(), 0, cpu_us());
        }
    }
    if let Some(last) = running {
        last.join().map_err(|_| "a checkpoint panicked")??;
    }
    if let Some(last) = checkpoint(&store, &longest)? {
        last.join().map_err(|_| "a checkpoint panicked")??;
    }
    let metadata = std::fs::metadata(dir.join("store/gen-1/meta.redb"))?;
    println!("metadata file: {} MiB", metadata.len() >> 20);
    // No destructor runs, as when the process is killed.
    std::process::abort()
}

fn file_name(number: u64) -> String {
    format!("file-{number:07}")
}

fn query(store: &Store, queries: u64) -> Result<(), Failure> {
    let statfs = store.statfs()?;
    let files = statfs.total_files - statfs.free_files - DIRS - 1;
    println!("{files} files, {} MiB resident", resident_mib());
    let cred = Cred {
        uid: 1000,
        gid: 1000,
        groups: vec![],
    };
    let wanted = Access {
        read: true,
        lookup: true,
        ..Access::default()
    };
    for (kind, among) in [("all", files), ("10,000", files.min(10_000))] {
        println!("among {kind} files:");
        for round in ["first", "warm"] {
            let mut random = 1;
            let mut pick = || {
                random = next(random);
                random % among
            };
            // Files are numbered in order after the directories.
            let ino = |number| Ino(2 + DIRS + number);
            let lookup = timed(queries, || {
                let number = pick();
                let name = file_name(number);
                let parent = Ino(2 + number % DIRS);
                store.lookup(&cred, parent, name.as_bytes()).map(drop)
            })?;
            let attr = timed(queries, || store.attr(ino(pick())).map(drop))?;
            let access = timed(queries, || {
                store.access(&cred, ino(pick()), wanted).map(drop)
            })?;
            let read = timed(queries, || {
                store.read(&cred, ino(pick()), 0, 1 << 16).map(drop)
            })?;
            println!(
                "{round}: lookup {lookup:.0} ns, attr {attr:.0} ns, access {access:.0} ns, read {read:.0} ns"
            );
        }
    }
    println!("{} MiB resident", resident_mib());
    Ok(())
}

/// Nanoseconds (of this thread's computing) for each of `count` calls.
fn timed<E: Error + Send + Sync + 'static>(
    count: u64,
    mut call: impl FnMut() -> Result<(), E>,
) -> Result<f64, Failure> {
    let start = cpu_us();
    for _ in 0..count {
        call()?;
    }
    Ok((cpu_us() - start) * 1e3 / count as f64)
}

/// SplitMix64.
fn next(state: u64) -> u64 {
    let mut x = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// What this thread has computed, in microseconds: the machine may be busy with other things.
fn cpu_us() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}
