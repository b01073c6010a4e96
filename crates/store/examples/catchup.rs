//! What it costs to bring a node up to date that was away while a few of very many files changed: bytes
//! and time, as changes and as a whole snapshot, and how long changes at the sender are held up meanwhile.
//!
//!     cargo run --release -p haven-store --example catchup -- <directory> <files> <changed files>
//!
//! Every tenth file has 8 KiB (a data file), the others 200 bytes (rows). The directory is filled anew.

use bytes::Bytes;
use haven_disk::RealDisk;
use haven_fs::{Change, Create, Cred, Filesystem, Ino, SetAttr, Time};
use haven_store::{SnapshotReader, Store, StoreOptions};
use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CHECKPOINT_ENTRIES: u64 = 50_000;
const FILES_PER_DIR: u64 = 10_000;
const SMALL_BYTES: usize = 200;
const LARGE_BYTES: usize = 8 << 10;
/// Changes applied at the sender for each chunk that is sent.
const BUSY_CHANGES: u64 = 20;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let [dir, files, changed] = args[..] else {
        return Err("catchup <directory> <files> <changed files>".into());
    };
    let (dir, files, changed) = (
        Path::new(dir),
        files.parse::<u64>()?,
        changed.parse::<u64>()?,
    );
    let (sender_dir, receiver_dir) = (dir.join("sender"), dir.join("receiver"));
    for dir in [&sender_dir, &receiver_dir] {
        let _ = std::fs::remove_dir_all(dir);
        std::fs::create_dir_all(dir)?;
    }

    let mut sender = Volume::open(&sender_dir)?;
    sender.fill(files)?;
    let base = sender.index;
    drop(sender);
    let mut copy = Command::new("cp");
    copy.arg("-a")
        .arg(sender_dir.join("store"))
        .arg(&receiver_dir);
    if !copy.status()?.success() {
        return Err("cp failed".into());
    }
    let mut sender = Volume::open(&sender_dir)?;
    sender.index = base;
    // Odd, so that rows and data files are among them as among all.
    let step = (files / changed.max(1)) | 1;
    for n in 0..changed {
        sender.write(n * step % files, 1)?;
    }
    sender.checkpoint()?;
    println!(
        "{files} files, {changed} changed; memory {} MiB at most so far",
        peak_mib()
    );

    let mut receiver = Volume::open(&receiver_dir)?;
    let mut reader = source(&sender.store)?;
    if !reader.since(base)? {
        return Err("the sender does not know what changed".into());
    }
    transfer("changes", &mut sender, &mut receiver, reader)?;
    let mut fresh = Volume::open(&dir.join("fresh"))?;
    let reader = source(&sender.store)?;
    transfer("everything", &mut sender, &mut fresh, reader)?;
    println!("memory {} MiB at most", peak_mib());
    Ok(())
}

fn source(store: &Store) -> Result<SnapshotReader, Failure> {
    Ok(store.snapshot_source()?.ok_or("no checkpoint")?)
}

/// Sends, while the sender goes on changing files; then installs.
fn transfer(
    what: &str,
    sender: &mut Volume,
    receiver: &mut Volume,
    mut reader: SnapshotReader,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let (mut bytes, mut chunks, mut longest, mut busy) = (0, 0u64, Duration::ZERO, Duration::ZERO);
    let mut writer = receiver.store.receive();
    while let Some(chunk) = reader.next_chunk()? {
        bytes += chunk.len();
        chunks += 1;
        writer.push(&chunk)?;
        for n in 0..BUSY_CHANGES {
            let change = Instant::now();
            sender.write(n, 2)?;
            longest = longest.max(change.elapsed());
            busy += change.elapsed();
        }
    }
    let sent = begun.elapsed().saturating_sub(busy);
    let begun = Instant::now();
    receiver.store.install(writer.finish()?)?;
    println!(
        "{what}: {bytes} bytes in {chunks} chunks, sent and received in {:.3} s, installed in {:.3} s; \
         longest change at the sender meanwhile {:.3} ms",
        sent.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        longest.as_secs_f64() * 1000.0,
    );
    Ok(())
}

/// A store, and what was applied to it.
struct Volume {
    store: Store,
    index: u64,
}

impl Volume {
    fn open(dir: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir)?;
        let disk = Arc::new(RealDisk::open(dir)?);
        let options = StoreOptions {
            cache_bytes: 64 << 20,
        };
        let store = Store::open(disk, Path::new("store"), options)?;
        Ok(Self { store, index: 0 })
    }

    fn next(&mut self) -> Change {
        self.index += 1;
        let secs = i64::try_from(self.index).unwrap_or(i64::MAX);
        Change {
            index: self.index,
            time: Time { secs, nanos: 0 },
        }
    }

    fn fill(&mut self, files: u64) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut slowest = Duration::ZERO;
        for dir in 0..files.div_ceil(FILES_PER_DIR) {
            let (at, cred) = (self.next(), Cred::root());
            let name = format!("dir-{dir}").into_bytes();
            self.store
                .mkdir(&at, &cred, Ino(1), &name, &SetAttr::default())?;
        }
        for n in 0..files {
            self.write(n, 0)?;
            if n % CHECKPOINT_ENTRIES == CHECKPOINT_ENTRIES - 1 {
                let begun = Instant::now();
                self.checkpoint()?;
                slowest = slowest.max(begun.elapsed());
            }
        }
        self.checkpoint()?;
        println!(
            "filled in {:.1} s; slowest checkpoint {:.2} s",
            begun.elapsed().as_secs_f64(),
            slowest.as_secs_f64()
        );
        Ok(())
    }

    /// Writes file `n` over, making it if it is missing.
    fn write(&mut self, n: u64, round: u8) -> Result<(), Failure> {
        let (at, cred) = (self.next(), Cred::root());
        let dir = format!("dir-{}", n / FILES_PER_DIR).into_bytes();
        let dir = self.store.lookup(&cred, Ino(1), &dir)?.ino;
        let name = format!("file-{n}").into_bytes();
        let how = Create::Unchecked(SetAttr::default());
        let file = self.store.create(&at, &cred, dir, &name, &how)?.ino;
        let len = if n.is_multiple_of(10) {
            LARGE_BYTES
        } else {
            SMALL_BYTES
        };
        let data = vec![round.wrapping_add(n as u8) | 1; len];
        self.store.write(&at, &cred, file, 0, &data)?;
        self.store.set_applied(self.index);
        let position = Bytes::copy_from_slice(&self.index.to_be_bytes());
        Ok(self.store.set_position(position)?)
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        self.store.checkpoint()?;
        Ok(())
    }
}

/// The most memory this process had.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}
