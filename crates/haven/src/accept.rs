//! `haven accept-loss`: an operator gives up acknowledged changes that are gone from the only disk that had them, so that
//! the node serves what is left. Without these words it refuses to start.
//!
//! It must not repair anything, nor judge whether there is a backup.

use crate::cluster;
use crate::engine::{Engine, STORE_DIR};
use crate::serve::{LOG_DIR, open_disk};
use haven_consensus::{Replicated, lacking};
use haven_log::{Log, LogOptions};
use std::path::Path;
use std::sync::Arc;

/// Gives up what the log of the node in `data` lacks at its end; what to tell the operator. With `force` also where other
/// nodes may have it.
///
/// # Errors
/// Why not, and what to do, in words. Nothing was given up then.
pub fn run(data: &Path, force: bool) -> Result<String, String> {
    let shown = data.display();
    if !data.join(LOG_DIR).join("SLOTS").exists() {
        return Err(format!(
            "there is no node's log in {shown}; nothing was changed"
        ));
    }
    let voters = cluster::noted_voters(data).unwrap_or(1);
    if voters > 1 && !force {
        return Err(format!(
            "the node in {shown} is one of {voters} that vote: start it, and it fetches what it lacks from the others. Only \
             if none of them has it, or comes back ever, say it again with --force; nothing was changed"
        ));
    }
    let disk = open_disk(data)?;
    let words = |e: haven_log::LogError| e.to_string();
    let early = haven_log::accept_early_end(disk.as_ref(), Path::new(LOG_DIR)).map_err(words)?;
    let log = Log::open(Arc::clone(&disk), Path::new(LOG_DIR), LogOptions::default());
    let log = log.map_err(words)?;
    let store = disk
        .exists(Path::new(STORE_DIR))
        .map_err(|e| e.to_string())?;
    let position = match store {
        true => Engine::open(disk)?.position().map_err(|e| e.to_string())?,
        false => None,
    };
    let known = lacking::give_up(&log, position.as_deref())?;
    let Some((upto, left)) = known.max(early) else {
        return Ok(format!(
            "nothing is missing from {shown}; nothing was changed\n"
        ));
    };
    Ok(format!(
        "Given up: log records {} to {upto} of {shown}. Changes in them had been acknowledged and are lost; programs may \
         find files older than they left them. Start the node, and look at the disk.\n",
        left + 1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_log::Slot;

    /// A log whose slot says that record 8 of term 3 was committed.
    fn make(data: &Path) {
        let disk = open_disk(data).unwrap();
        let log = Log::open(disk, Path::new(LOG_DIR), LogOptions::default()).unwrap();
        let mut slot = vec![1];
        slot.extend(3_u64.to_le_bytes());
        slot.extend(7_u64.to_le_bytes());
        log.save_slot(Slot::Committed, &slot, true).unwrap();
    }

    #[test]
    fn only_a_node_that_is_alone_gives_up_at_the_first_word() {
        let dir = tempfile::tempdir().unwrap();
        let why = run(dir.path(), true).unwrap_err();
        assert!(why.contains("no node's log"), "{why}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        make(dir.path());
        let noted = dir.path().join(haven_pki::DIR);
        std::fs::create_dir(&noted).unwrap();
        std::fs::write(noted.join("voters"), "3\n").unwrap();
        let why = run(dir.path(), false).unwrap_err();
        assert!(why.contains("fetches"), "{why}");
        std::fs::write(noted.join("voters"), "1\n").unwrap();
        let told = run(dir.path(), false).unwrap();
        assert!(told.contains("records 1 to 8"), "{told}");
        let told = run(dir.path(), false).unwrap();
        assert!(told.contains("nothing is missing"), "{told}");
    }

    #[test]
    fn a_running_node_gives_up_nothing() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        let _runs = open_disk(dir.path()).unwrap();
        let why = run(dir.path(), false).unwrap_err();
        assert!(why.contains("already in use"), "{why}");
    }
}
