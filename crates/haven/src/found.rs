//! Foundations: what the log must contain before the first client is served.
//!
//! A new volume gets its identity (id and handle key) from the first leader, through the log, so that
//! every node has the same, and its feature level; exported directories are made when missing, and with them the exports' numbers.
//! All of it is idempotent. An export that cannot be made (a file is in its place) keeps nobody from the others.

use crate::clock::ServiceClock;
use crate::engine::{Engine, Outcome};
use crate::exports::Exports;
use bytes::Bytes;
use haven_consensus::Consensus;
use haven_fs::Level;
use haven_nfsd::Entry;
use tracing::{info, warn};

/// Makes sure that identity and exports exist, and that the newest rules hold. Called by a leader behind its barrier.
///
/// # Errors
/// Why not (leadership lost, no randomness), in words.
pub async fn foundations(
    consensus: &Consensus<Outcome>,
    engine: &Engine,
    exports: &Exports,
    clock: &ServiceClock,
) -> Result<(), String> {
    if engine.read(|machine| machine.identity().is_none()) {
        let mut volume_id = [0; 16];
        let mut handle_key = [0; 16];
        for bytes in [&mut volume_id, &mut handle_key] {
            getrandom::fill(bytes).map_err(|e| format!("no randomness for a new volume: {e}"))?;
        }
        propose(
            consensus,
            &Entry::Genesis {
                volume_id,
                handle_key,
                time: clock.now(),
            },
        )
        .await?;
    }
    // Before the first client's change. (Once there are binaries that know different levels, it rises when all members
    // know the next one.)
    if engine.read(|machine| machine.level()) < Level::NEWEST {
        let (level, time) = (Level::NEWEST, clock.now());
        propose(consensus, &Entry::Level { level, time }).await?;
        info!(level = level.0, "feature level raised");
    }
    make_exports(consensus, engine, exports, clock).await
}

/// Makes the exports that are missing and binds the rules to their numbers.
///
/// # Errors
/// Leadership lost, in words.
pub async fn make_exports(
    consensus: &Consensus<Outcome>,
    engine: &Engine,
    exports: &Exports,
    clock: &ServiceClock,
) -> Result<(), String> {
    for export in exports.configured().iter() {
        let path = export.path.as_bytes();
        if engine.read(|machine| machine.has_export(path)) {
            continue;
        }
        let entry = Entry::Export {
            path: Bytes::copy_from_slice(path),
            uid: export.uid,
            gid: export.gid,
            mode: export.mode,
            time: clock.now(),
        };
        match propose(consensus, &entry).await? {
            Outcome::Refused(why) => warn!(%why, "an export is not served"),
            _ => info!(path = export.path, "export made"),
        }
    }
    exports.bind(engine.read(|machine| machine.export_ids()));
    Ok(())
}

/// Puts an entry into the log that changes nothing.
///
/// # Errors
/// Why not (leadership lost), in words.
pub async fn nothing(consensus: &Consensus<Outcome>, clock: &ServiceClock) -> Result<(), String> {
    propose(consensus, &Entry::Noop { time: clock.now() })
        .await
        .map(drop)
}

async fn propose(consensus: &Consensus<Outcome>, entry: &Entry) -> Result<Outcome, String> {
    let entry = entry.encode().map_err(|e| e.to_string())?;
    consensus.propose(entry).await.map_err(|e| e.to_string())
}
