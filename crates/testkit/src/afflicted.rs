//! A node whose machine can be made to fail while it runs: its disk forgets what was not flushed, is slow,
//! is full or hangs; its clock jumps.
//!
//! What is wrong with it stands in a file beside its configuration, which the node reads again and again
//! and confirms in another one. So a test knows that an affliction holds before it goes on.
//!
//! Invariant: without afflictions such a node does nothing else than `haven serve`.

use haven::clock;
use haven::demo::lab::Lab;
use haven_config::Config;
use haven_disk::testing::{DiskOp, FaultyDisk};
use haven_disk::{Disk, RealDisk, Space, VolatileDisk};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is wrong, in the node's directory.
const FILE: &str = "affliction.json";
/// What the node has taken.
const TAKEN: &str = "affliction.taken";
/// How often the file is looked at.
const POLL: Duration = Duration::from_millis(2);
/// How long a node may take to see it.
const PATIENCE: Duration = Duration::from_secs(5);
/// No space left on device (errno(3)).
const ENOSPC: i32 = 28;

/// What is wrong with a node's machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Affliction {
    /// The disk forgets what was not flushed when the process dies. Read at the start only.
    pub volatile: bool,
    /// Seconds by which the clock is wrong.
    pub clock_s: i64,
    /// Every flush takes so much longer, in milliseconds.
    pub flush_delay_ms: u64,
    /// The file system says that nothing is free, but takes what is written.
    pub no_space: bool,
    /// Writes find no space.
    pub full: bool,
    /// Hangs until this is over.
    pub hang: Option<Hang>,
}

/// What of a node hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hang {
    /// Flushes of the log.
    Log,
    /// The saving of votes.
    Vote,
    /// Whatever applying entries does on the disk.
    Apply,
    /// Flushes of a checkpoint.
    Checkpoint,
    /// Everything but reading, as when its file system is frozen.
    Disk,
}

impl Hang {
    /// Whether it is this operation, of the thread that asks.
    fn strikes(self, op: DiskOp, path: &Path) -> bool {
        let on = |name| std::thread::current().name() == Some(name);
        let slots = path.ends_with("SLOTS");
        match self {
            Hang::Log => op == DiskOp::Sync && path.starts_with("log") && !slots,
            Hang::Vote => op == DiskOp::Sync && slots,
            Hang::Apply => on("haven-raft-app"),
            Hang::Checkpoint => on("haven-raft-chk") && op.is_flush(),
            Hang::Disk => !matches!(op, DiskOp::Read | DiskOp::List | DiskOp::Exists),
        }
    }
}

/// The present affliction, shared by the disk and the watcher of the file.
#[derive(Default)]
struct Present {
    now: Mutex<Affliction>,
    changed: Condvar,
}

impl Present {
    fn get(&self) -> Affliction {
        self.now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, new: Affliction) {
        clock::shift(new.clock_s);
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = new;
        self.changed.notify_all();
    }

    /// Before an operation of the disk.
    fn strike(&self, op: DiskOp, path: &Path) -> io::Result<()> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self
            .changed
            .wait_while(now, |now| now.hang.is_some_and(|h| h.strikes(op, path)))
            .unwrap_or_else(PoisonError::into_inner);
        let (full, delay) = (now.full, now.flush_delay_ms);
        drop(now);
        if full && matches!(op, DiskOp::Write | DiskOp::Allocate) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        if op.is_flush() && delay > 0 {
            std::thread::sleep(Duration::from_millis(delay));
        }
        Ok(())
    }
}

fn words(e: impl std::fmt::Display) -> String {
    e.to_string()
}

fn read(file: &Path) -> Result<Affliction, String> {
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(words),
        // Nobody said anything: a node whose power is cut at the end.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Affliction {
            volatile: true,
            ..Affliction::default()
        }),
        Err(e) => Err(words(e)),
    }
}

/// Replaces a file whole.
fn put(file: &Path, affliction: &Affliction) -> Result<(), String> {
    let new = file.with_extension("new");
    let bytes = serde_json::to_vec(affliction).map_err(words)?;
    std::fs::write(&new, bytes).map_err(words)?;
    std::fs::rename(&new, file).map_err(words)
}

/// Follows the file for ever.
fn follow(file: &Path, present: &Present) {
    let mut last = None;
    loop {
        match read(file) {
            Ok(now) if last.as_ref() != Some(&now) => {
                present.set(now.clone());
                if let Err(why) = put(&file.with_file_name(TAKEN), &now) {
                    tracing::error!("cannot confirm an affliction: {why}");
                }
                last = Some(now);
            }
            Ok(_) => {}
            Err(why) => tracing::error!("cannot read {}: {why}", file.display()),
        }
        std::thread::sleep(POLL);
    }
}

/// `torture serve`: a node that can be afflicted.
pub fn serve(file: &Path) -> Result<(), String> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let config = Config::load(file).map_err(words)?;
    let affliction = file.with_file_name(FILE);
    let data = &config.node.data;
    let disk: Arc<dyn Disk> = match read(&affliction)?.volatile {
        true => Arc::new(VolatileDisk::open(data).map_err(words)?),
        false => Arc::new(RealDisk::open(data).map_err(words)?),
    };
    let present = Arc::new(Present::default());
    present.set(read(&affliction)?);
    let (own, watched) = (Arc::clone(&present), Arc::clone(&present));
    std::thread::spawn(move || follow(&affliction, &watched));
    let disk = FaultyDisk::new(disk, move |op, path| own.strike(op, path));
    let disk = Arc::new(disk.with_space(move |space| Space {
        free_bytes: match present.get().no_space {
            true => 0,
            false => space.free_bytes,
        },
        ..space
    }));
    let exe = std::env::current_exe().map_err(words)?;
    let end =
        haven::serve::runtime()?.block_on(haven::serve::serve(config, disk, &exe, None, |_| {}));
    if let Err(why) = end {
        eprintln!("torture: {why}");
        // As `haven serve` does: another thread may wait for a disk that hangs.
        std::process::exit(1);
    }
    Ok(())
}

/// Afflicts a node of a laboratory whose nodes are `torture serve`; returns when it holds.
pub async fn afflict(lab: &Lab, node: usize, affliction: &Affliction) -> Result<(), String> {
    let file: PathBuf = lab.nodes[node].dir().join(FILE);
    put(&file, affliction)?;
    let start = Instant::now();
    while lab.runs(node) && read(&file.with_file_name(TAKEN))? != *affliction {
        if start.elapsed() > PATIENCE {
            return Err(format!("node {} is deaf", lab.nodes[node].name));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
