//! Opens log and store; and where the log is damaged, or the store lacks what the log begins behind, sets the
//! log aside and makes one with which this node joins its cluster again.
//!
//! Order, each step durable before the next:
//! 1. the new log is made whole under another name; it knows what the node may have promised (see
//!    `haven_consensus::rejoin`);
//! 2. the old log is moved into a directory of its own, for people to look at;
//! 3. the new one gets its place.
//!
//! Interrupted after 1, everything begins anew with the damaged log; after 2, the next start does 3. At no moment
//! does the node have a log that knows nothing of its vote. A log that is gone altogether cannot be replaced: such a
//! node is refused.
//!
//! It must not decide when a node may vote.

use crate::cluster;
use crate::engine::{Engine, STORE_DIR};
use crate::serve::LOG_DIR;
use haven_config::Config;
use haven_consensus::check::{read_position, read_record, read_vote_slot};
use haven_consensus::{Replicated, rejoin};
use haven_disk::Disk;
use haven_log::{Log, LogError, LogOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::{error, info};

/// Where the new log is made.
const NEW_DIR: &str = "log.new";
/// Damaged logs are kept in directories of this name and a number.
const ASIDE: &str = "damaged";
/// Damaged logs that are kept: whoever has so many has another problem.
const ASIDE_MAX: u32 = 100;
/// Why a log lies there, beside it.
const WHY_FILE: &str = "WHY";
/// With fewer nodes nobody can be elected while one of them has no voice.
const VOTERS_MIN: usize = 3;
/// Where the vote is: a log without it was never made, or is gone.
const SLOTS_FILE: &str = "log/SLOTS";
/// The root of the data directory.
const ROOT: &str = "";

/// Opens the log and the state of a node.
///
/// # Errors
/// What cannot be opened, why, and what to do, in words.
pub fn open(disk: &Arc<dyn Disk>, config: &Config) -> Result<(Log, Arc<Engine>), String> {
    let data = config.node.data.display();
    let in_log = |why: String| format!("the log in {data}: {why}");
    finish(disk.as_ref())
        .map_err(|e| in_log(format!("finishing what an earlier start began: {e}")))?;
    let engine = Engine::open(Arc::clone(disk)).map_err(|e| format!("the store in {data}: {e}"))?;
    let position = engine.position().map_err(|e| e.to_string())?;
    let used = cluster::has_started(config) || position.is_some();
    refuse_without_log(disk.as_ref(), config, used)?;
    let log = find(disk).map_err(in_log)?;
    let log = settle(disk, config, log, position.as_deref()).map_err(in_log)?;
    Ok((log, engine))
}

/// Makes sure that a node of a cluster that may have promised something does not come back without its log: it
/// would vote again where it has voted already.
pub(crate) fn refuse_without_log(
    disk: &dyn Disk,
    config: &Config,
    used: bool,
) -> Result<(), String> {
    let made = disk.exists(Path::new(SLOTS_FILE));
    let made = made.map_err(|e| format!("{SLOTS_FILE}: {e}"))?;
    match config.cluster.shared && used && !made {
        true => Err(format!(
            "the log of this node is gone from {}. It must not come back under its number: remove it with `haven node \
             remove` on another node, move the directory and the configuration away, and let the machine join with a \
             new token",
            config.node.data.display()
        )),
        false => Ok(()),
    }
}

/// The log, or what is damaged about it.
fn find(disk: &Arc<dyn Disk>) -> Result<Result<Log, String>, String> {
    match open_log(disk, LOG_DIR) {
        Ok(log) => Ok(Ok(log)),
        Err(why @ LogError::Damaged { .. }) => Ok(Err(why.to_string())),
        Err(why) => Err(why.to_string()),
    }
}

/// The log with which a store goes on that stands at `position`.
fn settle(
    disk: &Arc<dyn Disk>,
    config: &Config,
    log: Result<Log, String>,
    position: Option<&[u8]>,
) -> Result<Log, String> {
    let why = match log {
        Ok(log) => match behind(&log, position)? {
            None => return Ok(log),
            Some(why) => why,
        },
        Err(why) => why,
    };
    replace(disk, config, position, &why).map_err(|advice| format!("{why}; {advice}"))
}

fn open_log(disk: &Arc<dyn Disk>, dir: &str) -> Result<Log, LogError> {
    Log::open(Arc::clone(disk), Path::new(dir), LogOptions::default())
}

/// Whether the store lacks entries that are no longer in the log.
fn behind(log: &Log, position: Option<&[u8]>) -> Result<Option<String>, String> {
    let stands_at = position.map(read_position).transpose()?.flatten();
    let stands_at = stands_at.map_or(0, |place| place.record);
    let begins_behind = log.purged_index();
    Ok((stands_at < begins_behind).then(|| {
        format!(
            "it begins behind record {begins_behind}, but the store stands at {stands_at}: was it emptied or restored?"
        )
    }))
}

/// Does what an interrupted start left undone.
fn finish(disk: &dyn Disk) -> io::Result<()> {
    let (new, log) = (Path::new(NEW_DIR), Path::new(LOG_DIR));
    if !disk.exists(new)? {
        return Ok(());
    }
    if disk.exists(log)? {
        // The old log is still the log.
        disk.remove_dir_all(new)?;
    } else {
        disk.rename(new, log)?;
    }
    disk.sync_dir(Path::new(ROOT))
}

/// Puts a new log in the place of the damaged one. An error is advice.
fn replace(
    disk: &Arc<dyn Disk>,
    config: &Config,
    position: Option<&[u8]>,
    why: &str,
) -> Result<Log, String> {
    // It decides about waiting for others, never about a vote: so it need not be today's.
    let voters = cluster::noted_voters(&config.node.data).unwrap_or(config.cluster.nodes.len());
    if voters < VOTERS_MIN {
        return Err(format!(
            "with {voters} of {VOTERS_MIN} nodes there are not enough others to fetch from safely: keep a copy of the \
             data directory, and restore a backup"
        ));
    }
    let forgot = newest_term(disk.as_ref(), position)?;
    let make = |e: LogError| format!("a new log cannot be made: {e}");
    let new = open_log(disk, NEW_DIR).map_err(make)?;
    rejoin::prepare(&new, config.own().id, forgot, position)?;
    drop(new);
    let aside =
        set_aside(disk.as_ref(), why).map_err(|e| format!("it cannot be set aside: {e}"))?;
    finish(disk.as_ref()).map_err(|e| format!("the new log cannot take its place: {e}"))?;
    let path = config.node.data.join(aside);
    error!(
        why,
        forgot,
        "the log was damaged and is set aside in {}; this node fetches what it lost from the others. LOOK AT THE DISK",
        path.display()
    );
    info!(store = STORE_DIR, "the files are kept");
    open_log(disk, LOG_DIR).map_err(make)
}

/// The newest term in which this node may have voted or acknowledged anything.
fn newest_term(disk: &dyn Disk, position: Option<&[u8]>) -> Result<u64, String> {
    const GONE: &str = "its vote cannot be read, so this node must never come back under its number: remove it with \
                        `haven node remove` on another node, move its data and its configuration away, and let the \
                        machine join with a new token: it gets another id";
    // A vote comes before everything else of its term. The rest is looked at in case an older copy of it is read.
    let mut newest = 0;
    let mut see = |term: u64| newest = newest.max(term);
    let found = haven_log::check(disk, Path::new(LOG_DIR), &mut |_| {}, &mut |record| {
        if let Ok(read) = read_record(record.index, &record.head, record.body) {
            see(read.place.term);
        }
    });
    let found = found.map_err(|e| e.to_string())?;
    if !found.has_slots {
        return Err(GONE.into());
    }
    if let Some(vote) = &found.vote {
        see(read_vote_slot(vote).map_err(|why| format!("{GONE} ({why})"))?);
    }
    if let Some(place) = position.map(read_position).transpose()?.flatten() {
        see(place.term);
    }
    Ok(newest)
}

/// Moves the log away, durably; gives where to.
fn set_aside(disk: &dyn Disk, why: &str) -> io::Result<PathBuf> {
    for number in 1..=ASIDE_MAX {
        let dir = PathBuf::from(format!("{ASIDE}-{number}"));
        if disk.exists(&dir)? {
            continue;
        }
        disk.create_dir_all(&dir)?;
        let note = disk.open(&dir.join(WHY_FILE), true)?;
        note.write_at(0, format!("{why}\n").as_bytes())?;
        note.sync()?;
        disk.sync_dir(&dir)?;
        disk.rename(Path::new(LOG_DIR), &dir.join(LOG_DIR))?;
        disk.sync_dir(&dir)?;
        disk.sync_dir(Path::new(ROOT))?;
        return Ok(dir);
    }
    let full = format!("{ASIDE_MAX} damaged logs are kept already: look at the disk, remove them");
    Err(io::Error::other(full))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quick;
    use bytes::Bytes;
    use haven_disk::testing::{DiskOp, FaultyDisk};
    use haven_disk::{RealDisk, VolatileDisk};
    use haven_log::{Record, Slot};
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// The vote of term 7 for node 1, as consensus writes it.
    fn vote() -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend(7_u64.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        bytes.push(1);
        bytes
    }

    fn config(dir: &Path, voters: u64) -> Config {
        let wishes = quick::Wishes {
            data: dir,
            export: "/data",
            nfs_port: 0,
            mount_port: 0,
            listen: Ipv4Addr::LOCALHOST.into(),
        };
        let mut config = quick::config(&wishes).unwrap();
        let own = config.own().clone();
        for id in 2..=voters {
            let name = format!("n{id}");
            config.cluster.nodes.push(haven_config::Peer {
                id,
                name,
                ..own.clone()
            });
        }
        config
    }

    /// A log with a vote, whose middle is damaged.
    fn damaged(dir: &Path) {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir).unwrap());
        let log = open_log(&disk, LOG_DIR).unwrap();
        log.save_slot(Slot::Vote, &vote(), true).unwrap();
        for index in 1..=3 {
            let (tell, told) = std::sync::mpsc::channel();
            let record = Record {
                index,
                head: Bytes::from_static(b"head"),
                body: Bytes::from_static(b"body"),
            };
            let done = Box::new(move |result| drop(tell.send(result)));
            log.append(vec![record], done);
            told.recv().unwrap().unwrap();
        }
        drop(log);
        drop(disk);
        let segment = std::fs::read_dir(dir.join(LOG_DIR))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|e| e == "seg"))
            .unwrap();
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[4096 + 42] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
    }

    /// As `open` with a new store.
    fn open_on(disk: &Arc<dyn Disk>, dir: &Path, voters: u64) -> Result<Log, String> {
        finish(disk.as_ref()).map_err(|e| e.to_string())?;
        settle(disk, &config(dir, voters), find(disk)?, None)
    }

    fn open_real(dir: &Path, voters: u64) -> Result<Log, String> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir).unwrap());
        open_on(&disk, dir, voters)
    }

    /// The log knows its vote and what it may have forgotten.
    fn assert_remembers(log: &Log) {
        let mut forgot = vec![1];
        forgot.extend(7_u64.to_le_bytes());
        let found = log.read_slot(Slot::Forgotten).unwrap();
        assert_eq!(found.as_deref(), Some(&forgot[..]));
        let vote = log.read_slot(Slot::Vote).unwrap().unwrap();
        assert_eq!(read_vote_slot(&vote), Ok(8));
    }

    #[test]
    fn a_damaged_log_is_kept_aside_and_the_new_one_knows_the_vote() {
        let dir = tempfile::tempdir().unwrap();
        damaged(dir.path());
        assert_remembers(&open_real(dir.path(), 3).unwrap());
        let why = std::fs::read_to_string(dir.path().join("damaged-1/WHY")).unwrap();
        assert!(why.contains("is damaged at byte"), "{why}");
        assert!(dir.path().join("damaged-1/log/SLOTS").exists());
        // And it stays so.
        assert_remembers(&open_real(dir.path(), 3).unwrap());
        assert!(!dir.path().join("damaged-2").exists());
    }

    #[test]
    fn without_enough_others_or_without_a_vote_a_damaged_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        damaged(dir.path());
        for voters in [1, 2] {
            let why = open_real(dir.path(), voters).map(drop).unwrap_err();
            assert!(why.contains("restore a backup"), "{why}");
        }
        // What was noted counts more than with whom the cluster was made.
        let noted = dir.path().join(haven_pki::DIR);
        std::fs::create_dir(&noted).unwrap();
        std::fs::write(noted.join("voters"), "2\n").unwrap();
        assert!(open_real(dir.path(), 3).is_err());
        std::fs::write(noted.join("voters"), "3\n").unwrap();
        std::fs::write(dir.path().join("log/SLOTS"), [0; 4096]).unwrap();
        let why = open_real(dir.path(), 1).map(drop).unwrap_err();
        assert!(why.contains("another id"), "{why}");
        assert!(dir.path().join(LOG_DIR).exists());
        assert!(!dir.path().join("damaged-1").exists());
    }

    #[test]
    fn a_node_of_a_cluster_that_has_started_is_refused_without_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).unwrap());
        let mut config = config(dir.path(), 3);
        config.cluster.shared = true;
        std::fs::create_dir(dir.path().join(haven_pki::DIR)).unwrap();
        drop(open(&disk, &config).unwrap());
        // It did not get as far as to promise anything.
        std::fs::remove_dir_all(dir.path().join(LOG_DIR)).unwrap();
        drop(open(&disk, &config).unwrap());
        let mut identities = haven_pki::Identity::found(1, |_| Ok(Vec::new())).unwrap();
        cluster::note_started(dir.path(), &identities.remove(0)).unwrap();
        drop(open(&disk, &config).unwrap());
        std::fs::remove_dir_all(dir.path().join(LOG_DIR)).unwrap();
        let why = open(&disk, &config).map(drop).unwrap_err();
        assert!(why.contains("haven node remove"), "{why}");
        // An empty directory is no log, either; and nothing was made meanwhile.
        assert!(!dir.path().join(LOG_DIR).exists());
        std::fs::create_dir(dir.path().join(LOG_DIR)).unwrap();
        assert!(open(&disk, &config).is_err());
        config.cluster.shared = false;
        assert!(open(&disk, &config).is_ok(), "alone, it promises nobody");
    }

    #[test]
    fn a_flush_that_fails_at_any_step_leaves_a_log_that_knows_the_vote() {
        let mut failed = 0;
        for flush in 0.. {
            let dir = tempfile::tempdir().unwrap();
            damaged(dir.path());
            let volatile = Arc::new(VolatileDisk::open(dir.path()).unwrap());
            let disk: Arc<dyn Disk> = Arc::clone(&volatile) as _;
            volatile.fail_flush(flush, flush);
            drop(open_on(&disk, dir.path(), 3));
            if volatile.flush_will_fail() {
                break; // there are no more flushes
            }
            failed += 1;
            // What another process makes of it, and what is left of that after a power loss.
            assert_remembers(&open_on(&disk, dir.path(), 3).unwrap());
            volatile.forget();
            drop((disk, volatile));
            assert_remembers(&open_real(dir.path(), 3).unwrap());
        }
        assert!(failed > 10, "{failed}");
    }

    #[test]
    fn a_power_loss_at_any_step_leaves_a_log_that_knows_the_vote() {
        let mut steps = 0;
        for crash_at in 0.. {
            let dir = tempfile::tempdir().unwrap();
            damaged(dir.path());
            let count = Arc::new(AtomicU32::new(0));
            let seen = Arc::clone(&count);
            let volatile = Arc::new(VolatileDisk::open(dir.path()).unwrap());
            let power = Arc::clone(&volatile);
            let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(volatile, move |op, _| {
                // Between two of these, nothing that is not flushed counts.
                let step = op.is_flush() || matches!(op, DiskOp::Rename | DiskOp::RemoveDirAll);
                if step && seen.fetch_add(1, Ordering::SeqCst) == crash_at {
                    power.forget();
                }
                Ok(())
            }));
            let whole = open_on(&disk, dir.path(), 3).is_ok();
            drop(disk);
            // What a start after the power loss makes of it.
            assert_remembers(&open_real(dir.path(), 3).unwrap());
            steps = crash_at;
            if whole {
                break;
            }
        }
        assert!(steps > 10, "{steps}");
    }
}
