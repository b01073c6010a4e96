//! Follows the cluster's membership: tells connections who belongs to the cluster, and this node when it does not.
//!
//! It must not know how membership changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;

use crate::machine::Machine;
use crate::net::hints;
use crate::net::hints::Board;
use crate::net::link::Place;
use crate::roster::Roster;
use crate::types::Members;
use crate::types::Types;

/// What the members are told that this node was removed.
pub(crate) fn removal(id: u64) -> String {
    format!("node {id} was removed from this cluster")
}

/// Runs until openraft stops.
pub(crate) async fn follow<R: Send + 'static>(
    raft: Raft<Types, Machine<R>>,
    place: Arc<Place>,
    board: Arc<Board>,
) {
    let mut metrics = raft.server_metrics();
    let mut hinting = JoinSet::new();
    let mut hinted: BTreeMap<u64, AbortHandle> = BTreeMap::new();
    let mut seen = None;
    loop {
        let (newest, committed) = {
            let now = metrics.borrow_watched();
            let newest: Arc<Members> = now.membership_config.clone();
            let committed = now.committed_membership_config.log_id() == newest.log_id();
            (newest, committed)
        };
        if seen != Some((*newest.log_id(), committed)) {
            seen = Some((*newest.log_id(), committed));
            let roster = Roster::of(newest.membership());
            let knows = committed && roster.book.next_id > place.node_id;
            if knows && !roster.nodes.is_empty() && !roster.nodes.contains_key(&place.node_id) {
                place.removed.send_replace(Some(removal(place.node_id)));
            }
            let ids: Vec<u64> = roster.nodes.keys().copied().collect();
            place.pacer.keep(&ids);
            place.doubles.keep(&ids);
            place
                .answers
                .keep(&roster.nodes.keys().copied().collect::<Vec<_>>());
            place
                .targets
                .lock()
                .retain(|id, _| !roster.nodes.contains_key(id));
            place.roster.send_replace(Arc::new(roster));
            let others = place.others();
            hinted.retain(|id, task| {
                let stays = others.contains(id);
                if !stays {
                    task.abort();
                }
                stays
            });
            for peer in others {
                let tell = || hinting.spawn(hints::tell(place.clone(), board.clone(), peer));
                hinted.entry(peer).or_insert_with(tell);
            }
        }
        tokio::select! {
            Some(_) = hinting.join_next() => {}
            changed = metrics.changed() => if changed.is_err() { return },
        }
    }
}
