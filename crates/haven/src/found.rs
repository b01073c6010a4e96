//! Foundations: what the log must contain before the first client is served.
//!
//! A new volume gets its identity (id and handle key) from the first leader, through the log, so that
//! every node has the same; exported directories are made when missing. All of it is idempotent.

use crate::clock;
use crate::engine::{Engine, Outcome};
use bytes::Bytes;
use haven_config::Export;
use haven_consensus::Consensus;
use haven_nfsd::Entry;

/// Makes sure that identity and exports exist. Called by a leader behind its barrier.
///
/// # Errors
/// Why not (leadership lost, no randomness), in words.
pub async fn foundations(
    consensus: &Consensus<Outcome>,
    engine: &Engine,
    exports: &[Export],
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
                time: clock::now(),
            },
        )
        .await?;
    }
    for export in exports {
        let path = export.path.as_bytes();
        let entry = Entry::Export {
            path: Bytes::copy_from_slice(path),
            uid: export.uid,
            gid: export.gid,
            mode: export.mode,
            time: clock::now(),
        };
        propose(consensus, &entry).await?;
    }
    Ok(())
}

/// Puts an entry into the log that changes nothing.
///
/// # Errors
/// Why not (leadership lost), in words.
pub async fn nothing(consensus: &Consensus<Outcome>) -> Result<(), String> {
    propose(consensus, &Entry::Noop { time: clock::now() }).await
}

async fn propose(consensus: &Consensus<Outcome>, entry: &Entry) -> Result<(), String> {
    let entry = entry.encode().map_err(|e| e.to_string())?;
    match consensus.propose(entry).await.map_err(|e| e.to_string())? {
        Outcome::Refused(why) => Err(why),
        _ => Ok(()),
    }
}
