//! Keeps the disk from filling up: what would take space is refused before it gets into the log, so that there is
//! always room for the log, for checkpoints, and for the removals that make room again.
//!
//! The free space is measured about every second, off the way of requests. Between two measurements, what was let
//! in is subtracted; also what was let in before the last one, because it may not have reached the disk by then.
//!
//! Invariant: what is let in between two measurements never exceeds what is free above the reserve.
//!
//! It must not know what a change does.

use crate::engine::Outcome;
use haven_consensus::Consensus;
use haven_disk::{Disk, Space};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// How often the free space is measured.
const SAMPLE: Duration = Duration::from_secs(1);
/// Bounds of the reserve when none is configured: a twentieth of the file system within these, in bytes.
const RESERVE_BYTES: (u64, u64) = (256 << 20, 4 << 30);
/// So much above the reserve must be free before growing changes are taken again.
const MARGIN_BYTES: u64 = 16 << 20;
/// What a change may take beside its own bytes: rows, a cached reply, a block of the file system.
const OVERHEAD_BYTES: u64 = 16 << 10;
/// While there is no space, a checkpoint is made this often (in measurements), if anything changed: removed files
/// give their space back with it.
const RECLAIM_EVERY: u32 = 3;

/// See the module's head comment.
pub struct SpaceGuard {
    disk: Arc<dyn Disk>,
    reserve_bytes: u64,
    level: Mutex<Level>,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    free_bytes: u64,
    /// Let in since the last measurement, and in the interval before it.
    admitted_bytes: [u64; 2],
    full: bool,
}

impl Level {
    fn admit(&mut self, bytes: u64, reserve_bytes: u64) -> bool {
        let [now, before] = self.admitted_bytes;
        let taken = now.saturating_add(before).saturating_add(bytes);
        if self.full || self.free_bytes.saturating_sub(taken) < reserve_bytes {
            return false;
        }
        self.admitted_bytes[0] += bytes;
        true
    }

    /// Takes a measurement; true if it changes whether there is space.
    fn measured(&mut self, free_bytes: u64, reserve_bytes: u64) -> bool {
        self.free_bytes = free_bytes;
        self.admitted_bytes = [0, self.admitted_bytes[0]];
        let was = self.full;
        let enough = if was {
            reserve_bytes.saturating_add(MARGIN_BYTES)
        } else {
            reserve_bytes
        };
        self.full = free_bytes < enough;
        was != self.full
    }
}

impl SpaceGuard {
    /// Measures for the first time.
    ///
    /// # Errors
    /// What the disk says, in words.
    pub fn new(disk: Arc<dyn Disk>, reserve_bytes: Option<u64>) -> Result<Arc<Self>, String> {
        let space = disk
            .space()
            .map_err(|e| format!("cannot tell how much space is free: {e}"))?;
        let guard = Self {
            disk,
            reserve_bytes: reserve_bytes.unwrap_or_else(|| usual_reserve(space)),
            level: Mutex::new(Level {
                free_bytes: 0,
                admitted_bytes: [0; 2],
                full: false,
            }),
        };
        guard.take(space);
        Ok(Arc::new(guard))
    }

    /// Whether a change of so many bytes may be let in; if so, they count as taken. One that is refused may still
    /// turn out to need no space.
    pub fn admit(&self, bytes: usize) -> bool {
        let bytes = (bytes as u64).saturating_add(OVERHEAD_BYTES);
        self.level.lock().admit(bytes, self.reserve_bytes)
    }

    /// What is missing, in words; `None`: there is space.
    pub fn trouble(&self) -> Option<String> {
        let level = *self.level.lock();
        level.full.then(|| {
            format!(
                "only {} MiB are free where the data are, {} MiB are kept in reserve: what needs space is refused; \
                 remove files or enlarge the file system",
                level.free_bytes >> 20,
                self.reserve_bytes >> 20
            )
        })
    }

    /// Free and reserved bytes, for the status.
    pub fn bytes(&self) -> (u64, u64) {
        (self.level.lock().free_bytes, self.reserve_bytes)
    }

    fn take(&self, space: Space) {
        if !self
            .level
            .lock()
            .measured(space.free_bytes, self.reserve_bytes)
        {
            return;
        }
        match self.trouble() {
            Some(trouble) => warn!("{trouble}"),
            None => info!(
                free_mib = space.free_bytes >> 20,
                "there is space again: all changes are taken"
            ),
        }
    }

    /// Measures for ever, and has space given back while there is none.
    pub async fn watch(self: Arc<Self>, consensus: Consensus<Outcome>) {
        let (mut rounds, mut reclaimed) = (0_u32, 0);
        loop {
            tokio::time::sleep(SAMPLE).await;
            let disk = Arc::clone(&self.disk);
            match tokio::task::spawn_blocking(move || disk.space()).await {
                Ok(Ok(space)) => self.take(space),
                Ok(Err(why)) => warn!(%why, "cannot tell how much space is free"),
                Err(_) => return,
            }
            rounds = rounds.wrapping_add(1);
            let applied = consensus.applied_index();
            if self.trouble().is_some()
                && rounds.is_multiple_of(RECLAIM_EVERY)
                && applied != reclaimed
            {
                reclaimed = applied;
                if let Err(why) = consensus.trigger_checkpoint().await {
                    warn!(%why, "cannot make a checkpoint");
                }
            }
        }
    }
}

fn usual_reserve(space: Space) -> u64 {
    (space.total_bytes / 20).clamp(RESERVE_BYTES.0, RESERVE_BYTES.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn level(free_bytes: u64) -> Level {
        Level {
            free_bytes,
            admitted_bytes: [0; 2],
            full: false,
        }
    }

    #[test]
    fn a_burst_between_two_measurements_cannot_run_past_the_reserve() {
        let mut level = level(100 * MIB);
        let admitted = (0..1_000).filter(|_| level.admit(MIB, 40 * MIB)).count();
        assert_eq!(admitted, 60);
        // It may not have reached the disk when the next measurement is made.
        assert!(!level.measured(100 * MIB, 40 * MIB));
        assert!(!level.admit(MIB, 40 * MIB));
        assert!(!level.measured(100 * MIB, 40 * MIB));
        assert!(level.admit(MIB, 40 * MIB), "by now it has");
    }

    #[test]
    fn space_must_come_back_with_a_margin() {
        let mut level = level(100 * MIB);
        assert!(level.measured(39 * MIB, 40 * MIB));
        assert!(!level.admit(0, 40 * MIB));
        assert!(!level.measured(41 * MIB, 40 * MIB));
        assert!(!level.admit(0, 40 * MIB));
        assert!(level.measured(40 * MIB + MARGIN_BYTES, 40 * MIB));
        assert!(level.admit(MIB, 40 * MIB));
    }

    #[test]
    fn the_usual_reserve_follows_the_size_within_bounds() {
        let of = |gib: u64| {
            usual_reserve(Space {
                total_bytes: gib << 30,
                free_bytes: 0,
            }) >> 20
        };
        assert_eq!((of(1), of(20), of(1000)), (256, 1024, 4096));
    }
}
