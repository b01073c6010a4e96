//! When entries leave the log.
//!
//! Openraft's own rule, so many entries behind a checkpoint, is switched off: while a leader's followers are being sent
//! entries a purge has to wait, and openraft does not expect two rules to name different ones meanwhile.
//!
//! Invariants
//! - Only entries within the machine's last checkpoint go: those that are further behind it than the number to keep, and
//!   the oldest if there are more bytes than are to be kept.
//! - A witness keeps every entry that not all nodes with a state have for good, because it may be the only
//!   one that has it; but no more than its bound in bytes. A node that was never heard has nothing.
//!   All members count, whether they vote or catch up.
//! - For their bytes, entries go a file of the log at a time, since nothing is gained before the whole file goes.
//!
//! It must not know what entries mean.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;

use crate::machine::Machine;
use crate::net::hints::Board;
use crate::net::link::Place;
use crate::net::message::Kept;
use crate::store::Store;
use crate::types::Types;

/// How often the log is looked at, and the other nodes are told what this one keeps.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// See the module's head.
pub(crate) struct Purger<R: Send + 'static> {
    pub(crate) raft: Raft<Types, Machine<R>>,
    pub(crate) store: Store,
    pub(crate) place: Arc<Place>,
    pub(crate) board: Arc<Board>,
    pub(crate) keep_entries: u64,
    pub(crate) keep_bytes: u64,
    pub(crate) witness: bool,
}

impl<R: Send + 'static> Purger<R> {
    /// Runs until openraft stops.
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let (committed, checkpoint, purged) = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow_watched();
                let index = |id: &Option<crate::types::LogId>| id.map(|id| id.index);
                (
                    index(&metrics.local_committed),
                    index(&metrics.snapshot),
                    index(&metrics.purged),
                )
            };
            self.board.tell_kept(Kept {
                upto: committed.min(self.store.durable()),
                witness: self.witness,
            });
            let Some(upto) = self.due(checkpoint).filter(|upto| Some(*upto) > purged) else {
                continue;
            };
            if self.raft.trigger().purge_log(upto).await.is_err() {
                return;
            }
        }
    }

    /// The last entry that may go.
    fn due(&self, checkpoint: Option<u64>) -> Option<u64> {
        let beyond = beyond(&self.store.files(), self.keep_bytes);
        if !self.witness {
            let behind = checkpoint.and_then(|at| at.checked_sub(self.keep_entries));
            return beyond.max(behind).min(checkpoint);
        }
        let everywhere = everywhere(&self.place.others(), &self.board.kept());
        if beyond > everywhere && beyond <= checkpoint {
            tracing::warn!(
                "the log has more than {} bytes: this witness drops entries that not every other node \
                 has; such a node can come up to date only from one with a state",
                self.keep_bytes
            );
        }
        beyond.max(everywhere).min(checkpoint)
    }
}

/// The last entry of the files (index of the first entry, bytes) that are too much, oldest first. The
/// newest file stays.
fn beyond(files: &[(u64, u64)], keep_bytes: u64) -> Option<u64> {
    let mut bytes = 0u64;
    let mut stays = None;
    for (first, len) in files.iter().rev() {
        bytes = bytes.saturating_add(*len);
        if stays.is_some() && bytes > keep_bytes {
            break;
        }
        stays = Some(*first);
    }
    stays?.checked_sub(1)
}

/// The last entry that all nodes with a state have for good.
fn everywhere(others: &[u64], kept: &BTreeMap<u64, Kept>) -> Option<u64> {
    let of = |id: &u64| kept.get(id).filter(|kept| !kept.witness);
    let holding = others
        .iter()
        .filter(|id| kept.get(id).is_none_or(|kept| !kept.witness));
    let least = holding.map(|id| of(id).and_then(|kept| kept.upto)).min();
    least.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_files_beyond_the_bound_go() {
        let files = [(0, 100), (50, 100), (90, 100), (130, 20)];
        assert_eq!(beyond(&files, 1_000), None);
        assert_eq!(beyond(&files, 320), None);
        assert_eq!(beyond(&files, 319), Some(49));
        assert_eq!(beyond(&files, 120), Some(89));
        assert_eq!(beyond(&files, 119), Some(129));
        assert_eq!(beyond(&files, 0), Some(129), "the newest stays");
        assert_eq!(beyond(&[], 0), None);
    }

    #[test]
    fn what_a_node_with_a_state_may_lack_stays() {
        let kept = |upto, witness| Kept { upto, witness };
        let mut told = BTreeMap::from([(1, kept(Some(9), false))]);
        assert_eq!(everywhere(&[1, 2], &told), None, "node 2 was never heard");
        told.insert(2, kept(None, false));
        assert_eq!(everywhere(&[1, 2], &told), None);
        told.insert(2, kept(Some(5), false));
        assert_eq!(everywhere(&[1, 2], &told), Some(5));
        told.insert(2, kept(Some(5), true));
        assert_eq!(
            everywhere(&[1, 2], &told),
            Some(9),
            "witnesses need nothing"
        );
    }
}
