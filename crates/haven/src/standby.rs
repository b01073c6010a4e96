//! Standby: a node that was asked not to lead. It votes and replicates as any other; when it leads, it hands over
//! as soon as another node can take over.
//!
//! The wish is kept durably in the node's data directory, as an empty file; other nodes learn it from the node's
//! bulletins. The service counts more than the wish: where nobody else can lead, a node in standby goes on.
//!
//! Must not know: how the wish is asked for, or how leadership moves.

use crate::bulletin::Bulletins;
use crate::driver::Handle;
use crate::engine::Outcome;
use haven_cluster::Phase;
use haven_consensus::Consensus;
use haven_disk::{Disk, renew};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tracing::{info, warn};

/// The file that says so, in the data directory.
const FILE: &str = "standby";
/// How often wishes are looked at.
const POLL: Duration = Duration::from_millis(200);
/// A node whose last bulletin is older is not asked to lead.
const FRESH: Duration = Duration::from_secs(2);
/// A follower that lacks more entries is not asked to lead.
const LAG_ENTRIES_MAX: u64 = 1_000;
/// Pause before a node that shall hand over tries again.
const RETRY: Duration = Duration::from_secs(2);

/// This node's wish.
pub struct Standby {
    disk: Arc<dyn Disk>,
    wished: AtomicBool,
    /// One change at a time.
    changing: Mutex<()>,
}

impl Standby {
    /// Reads what was wished before. A change of it whose flush failed may be in memory only, so it is made durable.
    ///
    /// # Errors
    /// The disk's, in words.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self, String> {
        renew::names(disk.as_ref(), Path::new(""))
            .map_err(|e| format!("cannot write to the data directory: {e}"))?;
        let wished = disk
            .exists(Path::new(FILE))
            .map_err(|e| format!("cannot tell whether this node is in standby: {e}"))?;
        if wished {
            info!("this node is in standby: it does not lead (haven online ends that)");
        }
        Ok(Self {
            disk,
            wished: AtomicBool::new(wished),
            changing: Mutex::default(),
        })
    }

    /// Whether this node shall not lead.
    pub fn is_wished(&self) -> bool {
        self.wished.load(Ordering::SeqCst)
    }

    /// Changes the wish, durably. Waits for the disk.
    ///
    /// # Errors
    /// The disk's, in words; the old wish holds then.
    pub fn wish(&self, standby: bool) -> Result<(), String> {
        let _one = self.changing.lock();
        if self.is_wished() == standby {
            return Ok(());
        }
        let file = Path::new(FILE);
        let written = match standby {
            true => self.disk.open(file, true).and_then(|file| file.sync()),
            false => self.disk.remove_file(file),
        };
        written
            .and_then(|()| self.disk.sync_dir(Path::new("")))
            .map_err(|e| format!("cannot keep the wish on disk: {e}"))?;
        self.wished.store(standby, Ordering::SeqCst);
        info!(standby, "standby changed");
        Ok(())
    }
}

/// Tells consensus who shall not lead, and hands over where this node leads against its wish. Runs for ever.
pub async fn follow(
    standby: Arc<Standby>,
    bulletins: Bulletins,
    consensus: Consensus<Outcome>,
    handle: Handle,
    own: u64,
) {
    let mut told = BTreeSet::new();
    loop {
        let mut unwilling: BTreeSet<u64> = bulletins
            .heard()
            .into_iter()
            .filter(|(_, (_, report))| report.standby)
            .map(|(id, _)| id)
            .collect();
        if standby.is_wished() {
            unwilling.insert(own);
        }
        if unwilling != told {
            consensus.set_unwilling(unwilling.clone());
            told = unwilling;
        }
        let serves = handle.view().phase == Phase::Serving;
        if standby.is_wished()
            && serves
            && let Some(heir) = heir(&bulletins, &consensus)
        {
            warn!(heir, "in standby: handing the service over");
            handle.request_move(Some(heir)).await;
            tokio::time::sleep(RETRY).await;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The node that is furthest, of those that are willing, alive and nearly up to date.
fn heir(bulletins: &Bulletins, consensus: &Consensus<Outcome>) -> Option<u64> {
    let status = consensus.status();
    let last = status.last_log.unwrap_or(0);
    let (heard, avoided) = (bulletins.heard(), consensus.avoided());
    let willing = |id: &u64| {
        let told = heard.get(id);
        told.is_some_and(|(age, report)| *age < FRESH && !report.standby)
    };
    let fresh_ms = u64::try_from(FRESH.as_millis()).unwrap_or(u64::MAX);
    status
        .peers
        .iter()
        .filter(|(id, peer)| willing(id) && peer.acked_ms_ago.is_some_and(|ms| ms < fresh_ms))
        .filter_map(|(id, peer)| Some((!avoided.contains(id), peer.matched?, *id)))
        .filter(|(_, matched, _)| matched + LAG_ENTRIES_MAX >= last)
        .max()
        .map(|(_, _, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_disk::{RealDisk, VolatileDisk};

    #[test]
    fn a_wish_whose_flush_failed_is_durable_once_a_start_has_found_it() {
        for (wish, seed) in [true, false]
            .into_iter()
            .flat_map(|w| (0..20).map(move |s| (w, s)))
        {
            let dir = tempfile::tempdir().unwrap();
            let disk = Arc::new(VolatileDisk::open(dir.path()).unwrap());
            let standby = Standby::open(disk.clone()).unwrap();
            standby.wish(!wish).unwrap();
            // The last flush is that of the name.
            disk.fail_flush(u64::from(wish), seed);
            standby.wish(wish).unwrap_err();
            let found = Standby::open(disk.clone()).unwrap().is_wished();
            assert_eq!(found, wish, "it is in memory");
            disk.forget();
            let disk = Arc::new(VolatileDisk::open(dir.path()).unwrap());
            assert_eq!(
                Standby::open(disk).unwrap().is_wished(),
                found,
                "seed {seed}"
            );
        }
    }

    #[test]
    fn the_wish_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Standby::open(Arc::new(RealDisk::open(dir.path()).unwrap())).unwrap();
        for wish in [true, true, false, false] {
            let standby = open();
            standby.wish(wish).unwrap();
            assert_eq!(standby.is_wished(), wish);
            drop(standby);
            assert_eq!(open().is_wished(), wish);
        }
    }
}
