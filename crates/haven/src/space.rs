//! Keeps the disk from filling up: what would take space is refused before it gets into the log, so that there is
//! always room for the log, for checkpoints, and for the removals that make room again.
//!
//! The free space is measured about every second, off the way of requests; and again before the first refusal. What
//! was let in and may not be part of the last measurement is subtracted from it: changes under way, and those that
//! were finished since. A change is written twice, into the log and into the file, and counts twice.
//!
//! Invariants
//! - What is let in never takes more than what is free above the reserve, but for the one log segment that may just
//!   have been begun; the smallest reserve is two.
//! - Nothing is refused for want of the space of files that the log keeps for later use.
//!
//! The leader also minds the disks of the others, as far as their bulletins tell: when so many are full that no
//! majority with space is left, it refuses what it would refuse if its own were. Otherwise the log would end with
//! them, and clients would wait without a word of why. It decides what gets into the log, never what is in it.
//!
//! The same figures are what clients are told (`told`): never more than what is let in.
//!
//! It must not know what a change does.

mod level;
mod others;
mod told;

use crate::bulletin::Bulletins;
use crate::clock::ServiceClock;
use crate::engine::Outcome;
use crate::found;
use haven_consensus::Consensus;
use haven_disk::{Disk, Space};
use haven_log::Log;
use haven_nfsd::{IO_BYTES_MAX, Room};
use level::{Amount, Level};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How often the free space is measured.
const SAMPLE: Duration = Duration::from_secs(1);
/// A measurement not older than this is fresh enough to refuse a change.
const FRESH: Duration = Duration::from_millis(20);
/// Bounds of the reserve when none is configured: a twentieth of the file system within these, in bytes.
const RESERVE_BYTES: (u64, u64) = (256 << 20, 4 << 30);
/// Files that are kept in reserve, where the file system has a number of them: for the log, and for a copy of the state.
const RESERVE_FILES: u64 = 1024;
/// What a change may take beside its own bytes: rows, a cached reply, a block of the file system.
const OVERHEAD_BYTES: u64 = 16 << 10;
/// Of what is free above the reserve clients are not told: the largest WRITE needs it beside its own bytes to be let in.
const UNTOLD_BYTES: u64 = IO_BYTES_MAX as u64 + 2 * OVERHEAD_BYTES;
/// A change is in the log, and what it writes in the store.
const COPIES: u64 = 2;
/// How often what the other nodes tell of their space is weighed: about as often as they tell it.
const WEIGH: Duration = Duration::from_millis(200);
/// While there is no space, a checkpoint is made this often (in measurements), if anything changed.
const RECLAIM_EVERY: u32 = 2;
/// So many checkpoints after a change: the first makes the removal of a file durable, the next one removes its data.
const RECLAIM_ROUNDS: u32 = 2;

/// See the module's head comment.
pub struct SpaceGuard {
    disk: Arc<dyn Disk>,
    level: Mutex<Level>,
    place: Mutex<Place>,
    /// One measurement at a time; it may change what the log keeps.
    measuring: tokio::sync::Mutex<Spares>,
}

/// What this node is among the others.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    follows: bool,
    /// If it leads: those that leave no majority with space.
    without_space: Vec<String>,
    /// What the other nodes with files have.
    rooms: Vec<Room>,
    /// Of the voters.
    majority: usize,
}

/// The right to a change's space while it is under way.
pub struct Admitted {
    guard: Arc<SpaceGuard>,
    change: Amount,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.guard.level.lock().finish(self.change);
    }
}

impl SpaceGuard {
    /// Measures for the first time, where this log is.
    ///
    /// # Errors
    /// What the disk says, in words.
    pub fn new(
        disk: Arc<dyn Disk>,
        reserve_bytes: Option<u64>,
        log: Log,
    ) -> Result<Arc<Self>, String> {
        let at = Instant::now();
        let unknown = |e| format!("cannot tell how much space is free: {e}");
        let first = disk.space().map_err(unknown)?;
        let reserve_bytes = reserve_bytes.unwrap_or_else(|| usual_reserve(first));
        let mut spares = Spares { log, kept: true };
        let (space, trouble) = spares
            .settle(first, reserve_bytes, &*disk)
            .map_err(unknown)?;
        trouble.map_or(Ok(()), Err)?;
        let reserve = Amount {
            bytes: reserve_bytes,
            files: RESERVE_FILES,
        };
        let guard = Self {
            disk,
            level: Mutex::new(Level::new(reserve, at)),
            place: Mutex::default(),
            measuring: tokio::sync::Mutex::new(spares),
        };
        guard.take(space, Amount::default(), at);
        Ok(Arc::new(guard))
    }

    /// Lets a change of so many bytes in, until what is given is dropped. One that is refused (`None`) may still turn
    /// out to need no space.
    pub async fn admit(self: &Arc<Self>, bytes: usize) -> Option<Admitted> {
        let bytes = (bytes as u64)
            .saturating_mul(COPIES)
            .saturating_add(OVERHEAD_BYTES);
        let change = Amount { bytes, files: 1 };
        for last in [false, true] {
            let (admitted, refuses) = {
                let mut level = self.level.lock();
                (level.admit(change), level.refuses())
            };
            if admitted {
                let guard = Arc::clone(self);
                return Some(Admitted { guard, change });
            }
            if refuses {
                return None;
            }
            if last {
                break;
            }
            self.measure(FRESH).await;
        }
        let full_already = std::mem::replace(&mut self.level.lock().full, true);
        if !full_already {
            self.tell();
        }
        None
    }

    /// What is missing, in words; `None`: there is space.
    pub fn trouble(&self) -> Option<String> {
        let level = *self.level.lock();
        let place = self.place.lock();
        if level.full {
            let consequence = match place.follows {
                true => "when the disk is full this node ends, and the others go on without it",
                false => "what needs space is refused",
            };
            let (free, reserve) = (level.free, level.reserve);
            return Some(match level.lacks_files() {
                true => format!(
                    "the file system where the data are takes only {} files more, {} are kept in reserve: {consequence}; \
                     remove files, or use a file system with more inodes",
                    free.files, reserve.files
                ),
                false => format!(
                    "only {} MiB are free where the data are, {} MiB are kept in reserve: {consequence}; \
                     remove files or enlarge the file system",
                    free.bytes >> 20,
                    reserve.bytes >> 20
                ),
            });
        }
        let names = place.without_space.join(", ");
        (!names.is_empty()).then(|| {
            format!(
                "no majority of the nodes has space: {names} have no more free than they keep in reserve; what needs \
                 space is refused; remove files or enlarge their file systems"
            )
        })
    }

    /// Whether this node's own disk has no more free than is kept.
    pub fn is_full(&self) -> bool {
        self.level.lock().full
    }

    /// Whether clients are refused what needs space, if this node leads.
    pub fn refuses(&self) -> bool {
        self.level.lock().refuses()
    }

    /// Free and reserved bytes, for the status.
    pub fn bytes(&self) -> (u64, u64) {
        let level = self.level.lock();
        (level.free.bytes, level.reserve.bytes)
    }

    /// Bytes of the file system, and the files that it takes above the reserve, if it has a number of them.
    pub fn total_bytes_and_files(&self) -> (u64, Option<u64>) {
        let level = self.level.lock();
        let bounded = level.free.files < u64::MAX;
        let files = level.free.less(level.reserve).files;
        (level.total_bytes, bounded.then_some(files))
    }

    /// What clients are told.
    pub fn room(&self) -> Room {
        let level = *self.level.lock();
        let mut above = level.above_reserve();
        if level.refuses() {
            above = Amount::default();
        }
        let own = Room {
            total_bytes: level.total_bytes,
            free_bytes: level.free.bytes,
            available_bytes: above.bytes.saturating_sub(UNTOLD_BYTES),
            free_files: above.files,
        };
        let place = self.place.lock();
        told::least(own, &place.rooms, place.majority)
    }

    /// Measures, unless somebody else has done so within `fresh`; again if the log had files to give up.
    async fn measure(&self, fresh: Duration) {
        let mut spares = self.measuring.lock().await;
        let (covered, measured_at) = {
            let level = self.level.lock();
            (level.finished, level.measured_at)
        };
        let at = Instant::now();
        if at.saturating_duration_since(measured_at) < fresh {
            return;
        }
        let reserve_bytes = self.bytes().1;
        let (disk, mut own) = (Arc::clone(&self.disk), spares.clone());
        let look = move || {
            let (space, trouble) = own.settle(disk.space()?, reserve_bytes, &*disk)?;
            Ok::<_, io::Error>((space, own, trouble))
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok((space, now, trouble))) => {
                *spares = now;
                if let Some(why) = trouble {
                    warn!(%why, "cannot have the space of old log files given back");
                }
                self.take(space, covered, at);
            }
            Ok(Err(why)) => warn!(%why, "cannot tell how much space is free"),
            // The process ends.
            Err(_) => {}
        }
    }

    fn take(&self, space: Space, covered: Amount, at: Instant) {
        let changed = self.level.lock().measured(space, covered, at);
        if changed {
            self.tell();
        }
    }

    fn tell(&self) {
        match self.trouble() {
            Some(trouble) => warn!("{trouble}"),
            None => {
                let free_mib = self.bytes().0 >> 20;
                info!(free_mib, "there is space again: all changes are taken");
            }
        }
    }

    /// Weighs for ever what the other nodes tell; `own` is this node's id.
    pub async fn mind_others(
        self: Arc<Self>,
        own: u64,
        consensus: Consensus<Outcome>,
        bulletins: Bulletins,
    ) {
        loop {
            let leads = consensus.leadership().borrow().is_leader;
            let members = consensus.members().into_iter();
            let voters = members.filter(|m| m.voter).map(|m| m.id).collect();
            let heard = bulletins.heard();
            let without_space = match leads {
                true => others::without_space(&voters, own, &heard),
                false => Vec::new(),
            };
            // On followers, too: one that leads now knows it already.
            self.settle(Place {
                follows: !leads,
                without_space,
                rooms: told::rooms(&voters, own, &heard),
                majority: voters.len() / 2 + 1,
            });
            tokio::time::sleep(WEIGH).await;
        }
    }

    fn settle(&self, place: Place) {
        let others_full = !place.without_space.is_empty();
        *self.place.lock() = place;
        let before = std::mem::replace(&mut self.level.lock().others_full, others_full);
        if before != others_full {
            self.tell();
        }
    }

    /// Measures for ever, and has space given back while there is none.
    pub async fn watch(self: Arc<Self>, consensus: Consensus<Outcome>, clock: Arc<ServiceClock>) {
        let mut reclaim = Reclaim::default();
        for round in 0_u64.. {
            tokio::time::sleep(SAMPLE).await;
            self.measure(Duration::ZERO).await;
            if self.trouble().is_some()
                && round.is_multiple_of(RECLAIM_EVERY.into())
                && let Err(why) = reclaim.round(&consensus, &clock).await
            {
                warn!(%why, "cannot have the space of removed files given back");
            }
        }
    }
}

/// Gets the space of removed files back, by checkpoints.
#[derive(Debug, Default)]
struct Reclaim {
    /// Applied when the last round ended.
    applied: u64,
    /// Rounds to come.
    left: u32,
}

impl Reclaim {
    async fn round(
        &mut self,
        consensus: &Consensus<Outcome>,
        clock: &ServiceClock,
    ) -> Result<(), String> {
        if consensus.applied_index() != self.applied {
            self.left = RECLAIM_ROUNDS;
        }
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        // Without a change there is no checkpoint, and clients may change nothing while there is no space.
        if consensus.leadership().borrow().is_leader {
            found::nothing(consensus, clock).await?;
        }
        self.applied = consensus.applied_index();
        let made = consensus.trigger_checkpoint().await;
        made.map_err(|e| e.to_string())
    }
}

/// Has the log keep files of old segments for later use, or not.
#[derive(Clone)]
struct Spares {
    log: Log,
    kept: bool,
}

impl Spares {
    /// Decides by a measurement; gives the one that counts, a new one if space was given back, and what the log says
    /// against it. Waits for the log.
    fn settle(
        &mut self,
        space: Space,
        reserve_bytes: u64,
        disk: &dyn Disk,
    ) -> io::Result<(Space, Option<String>)> {
        let above_reserve = space.free_bytes.saturating_sub(reserve_bytes);
        let keep = keeps_spares(self.kept, above_reserve, self.log.spare_bytes_max());
        if keep == self.kept {
            return Ok((space, None));
        }
        if let Err(why) = self.log.keep_spares(keep) {
            return Ok((space, Some(why.to_string())));
        }
        self.kept = keep;
        let now = if keep { space } else { disk.space()? };
        Ok((now, None))
    }
}

/// Whether the log may keep up to `most` bytes of old files: not from the moment on when they are more than what clients
/// may still take, until there is twice as much, so that keeping them does not end it again.
fn keeps_spares(kept: bool, above_reserve: u64, most: u64) -> bool {
    let enough = if kept { most } else { most.saturating_mul(2) };
    above_reserve >= enough
}

fn usual_reserve(space: Space) -> u64 {
    (space.total_bytes / 20).clamp(RESERVE_BYTES.0, RESERVE_BYTES.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const MIB: u64 = 1 << 20;

    /// A guard of what is free at this path.
    fn guard(dir: &Path, reserve_bytes: u64) -> Arc<SpaceGuard> {
        let disk: Arc<dyn Disk> = Arc::new(haven_disk::RealDisk::open(dir).unwrap());
        SpaceGuard::new(Arc::clone(&disk), Some(reserve_bytes), log(&disk)).unwrap()
    }

    fn log(disk: &Arc<dyn Disk>) -> Log {
        let options = haven_log::LogOptions {
            segment_bytes: MIB,
            spare_segments: 2,
            ..haven_log::LogOptions::default()
        };
        Log::open(Arc::clone(disk), Path::new("log"), options).unwrap()
    }

    #[tokio::test]
    async fn a_change_takes_its_bytes_in_the_log_and_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let guard = guard(dir.path(), 0);
        guard.level.lock().free.bytes = 100 * MIB;
        let mut admitted = Vec::new();
        for _ in 0..40 {
            admitted.push(guard.admit(MIB as usize).await.unwrap());
        }
        let left = guard.level.lock().above_reserve().bytes;
        assert_eq!(left, 100 * MIB - 40 * (2 * MIB + OVERHEAD_BYTES));
    }

    #[tokio::test]
    async fn clients_are_told_of_no_more_than_a_write_gets() {
        let dir = tempfile::tempdir().unwrap();
        let guard = guard(dir.path(), 0);
        guard.level.lock().reserve.bytes = 40 * MIB;
        let mut admitted = Vec::new();
        for free in [
            0,
            39 * MIB,
            41 * MIB,
            41 * MIB + UNTOLD_BYTES,
            43 * MIB,
            60 * MIB,
        ] {
            guard.level.lock().free.bytes = free;
            let told = guard.room();
            assert!(told.available_bytes <= told.free_bytes && told.free_bytes == free);
            // As large as it may be, once it is in its entry.
            let largest = told.available_bytes.min(MIB) as usize;
            let entry = largest + 2_000;
            let gets = guard.level.lock().admit(Amount {
                bytes: entry as u64 * COPIES + OVERHEAD_BYTES,
                files: 1,
            });
            assert!(gets || largest == 0, "{free}");
            admitted.push(told.available_bytes);
        }
        assert_eq!(admitted[..3], [0; 3]);
        assert!(admitted[5] > 15 * MIB, "{admitted:?}");
        guard.level.lock().full = true;
        let told = guard.room();
        assert_eq!((told.available_bytes, told.free_files), (0, 0));
        assert_eq!(
            told.free_bytes,
            60 * MIB,
            "what is kept is free all the same"
        );
    }

    #[test]
    fn what_others_have_counts_before_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let guard = guard(dir.path(), 1);
        let own = guard.room();
        let small = Room {
            total_bytes: 500 * MIB,
            free_bytes: 100 * MIB,
            available_bytes: 50 * MIB,
            free_files: 70,
        };
        let place = |rooms: &[Room]| Place {
            rooms: rooms.to_vec(),
            majority: 2,
            ..Place::default()
        };
        guard.settle(place(&[small]));
        assert_eq!(guard.room(), small);
        guard.settle(place(&[small, own]));
        assert_eq!(guard.room(), own, "the third is no majority's");
        // So many full ones that what needs space is refused.
        guard.settle(Place {
            without_space: vec!["b".into()],
            ..place(&[own, own])
        });
        assert_eq!(guard.room().available_bytes, 0);
    }

    /// Until the log has files to spare.
    fn purge_some(log: &Log) {
        let at = log.last_index().unwrap_or(log.purged_index());
        for index in at + 1..=at + 4 {
            let (tell, hear) = std::sync::mpsc::channel();
            let record = haven_log::Record {
                index,
                head: bytes::Bytes::new(),
                body: vec![0; MIB as usize / 2].into(),
            };
            log.append(vec![record], Box::new(move |done| tell.send(done).unwrap()));
            hear.recv().unwrap().unwrap();
        }
        log.purge_to(at + 4).unwrap();
    }

    #[tokio::test]
    async fn the_logs_old_files_go_before_anything_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(haven_disk::RealDisk::open(dir.path()).unwrap());
        let spares = || {
            let names = disk.list(Path::new("log")).unwrap();
            names.iter().filter(|n| n.ends_with(".spare")).count()
        };
        let log = log(&disk);
        purge_some(&log);
        assert_eq!(spares(), 2);
        let free = disk.space().unwrap().free_bytes;
        let guard = SpaceGuard::new(Arc::clone(&disk), Some(free / 2), log.clone()).unwrap();
        assert_eq!(spares(), 2, "there is enough");
        let full = guard;
        full.level.lock().reserve.bytes = u64::MAX;
        full.measure(Duration::ZERO).await;
        assert_eq!(spares(), 0);
        assert!(full.is_full());
        full.level.lock().reserve.bytes = free / 2;
        full.measure(Duration::ZERO).await;
        purge_some(&log);
        assert_eq!(spares(), 2, "there is enough again");
        SpaceGuard::new(Arc::clone(&disk), Some(u64::MAX), log).unwrap();
        assert_eq!(spares(), 0, "a start on a full disk");
    }

    #[test]
    fn the_log_keeps_old_files_only_where_there_is_space_for_them() {
        assert!(keeps_spares(true, 100, 100));
        assert!(!keeps_spares(true, 99, 100));
        assert!(!keeps_spares(false, 199, 100));
        assert!(keeps_spares(false, 200, 100));
        assert!(keeps_spares(true, 0, 0), "a log that keeps none");
    }

    #[test]
    fn the_usual_reserve_follows_the_size_within_bounds() {
        let of = |gib: u64| {
            usual_reserve(Space {
                total_bytes: gib << 30,
                free_bytes: 0,
                free_files: None,
            }) >> 20
        };
        assert_eq!((of(1), of(20), of(1000)), (256, 1024, 4096));
    }

    #[tokio::test]
    async fn full_nodes_elsewhere_refuse_as_the_own_disk_does_until_one_has_space() {
        let dir = tempfile::tempdir().unwrap();
        let guard = guard(dir.path(), 1);
        let leads = |names: &[&str]| Place {
            without_space: names.iter().map(ToString::to_string).collect(),
            ..Place::default()
        };
        guard.settle(leads(&[]));
        assert!(guard.admit(1).await.is_some() && guard.trouble().is_none());
        guard.settle(leads(&["b", "c"]));
        assert!(guard.admit(1).await.is_none() && guard.refuses());
        assert!(!guard.is_full(), "its own disk is not");
        let trouble = guard.trouble().unwrap();
        assert!(trouble.contains("b, c have no more free"), "{trouble}");
        guard.settle(leads(&[]));
        assert!(guard.admit(1).await.is_some() && !guard.refuses());
        // A deposed leader.
        guard.settle(leads(&["b", "c"]));
        guard.settle(Place {
            follows: true,
            ..Place::default()
        });
        assert!(guard.admit(1).await.is_some() && guard.trouble().is_none());
    }

    #[test]
    fn a_full_node_says_what_that_means_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let guard = guard(dir.path(), u64::MAX);
        assert!(guard.is_full());
        assert!(guard.trouble().unwrap().contains("is refused"));
        guard.settle(Place {
            follows: true,
            ..Place::default()
        });
        assert!(guard.trouble().unwrap().contains("this node ends"));
    }
}
