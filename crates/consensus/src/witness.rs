//! What a witness does with leadership: it gets rid of it.
//!
//! A witness is elected when it has entries that the only other living nodes lack. As leader it sends
//! them, as any leader does; as soon as one of those has all of them, leadership goes there.
//!
//! It must not know entries.

use std::sync::Arc;

use openraft::Instant as _;
use openraft::Raft;
use openraft::RaftMetrics;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use crate::machine::Machine;
use crate::net::hints::Board;
use crate::net::link::Place;
use crate::options::Timing;
use crate::types::Types;

/// Hands leadership over whenever this node has it. Runs until openraft stops.
pub(crate) async fn hand_over<R: Send + 'static>(
    raft: Raft<Types, Machine<R>>,
    place: Arc<Place>,
    board: Arc<Board>,
    timing: Timing,
) {
    let mut metrics = raft.metrics();
    let mut since: Option<Instant> = None;
    loop {
        let leads = {
            let now = metrics.borrow_watched();
            now.state == ServerState::Leader && now.current_term > 0
        };
        if !leads {
            since = None;
            if metrics.changed().await.is_err() {
                return;
            }
            continue;
        }
        if since.is_none() {
            since = Some(Instant::now());
            tracing::info!("this witness leads until another node has all entries");
        }
        let to = heir(&metrics.borrow_watched(), &place, &board, &timing);
        let Some(to) = to else {
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(timing.heartbeat) => {}
            }
            continue;
        };
        let took_ms = since.map(|since| since.elapsed().as_millis());
        tracing::info!(took_ms, "handing leadership over to node {to}");
        if raft.trigger().transfer_leader(to).await.is_err() {
            return;
        }
        // Whatever comes of it takes an election.
        tokio::time::sleep(timing.lease).await;
    }
}

/// A node that is there, has all entries and something to serve.
fn heir(
    metrics: &RaftMetrics<Types>,
    place: &Place,
    board: &Board,
    timing: &Timing,
) -> Option<u64> {
    let matched = metrics.replication.as_ref()?;
    let acked = metrics.heartbeat.as_ref()?;
    let voters = place.roster.borrow().voters.clone();
    voters
        .into_iter()
        .filter(|id| *id != place.node_id)
        .find(|id| {
            let index = matched.get(id).copied().flatten().map(|id| id.index);
            let at = acked.get(id).copied().flatten();
            index.is_some()
                && index == metrics.last_log_index
                && at.is_some_and(|at| at.elapsed() < timing.lease)
                && !board.is_witness(*id)
        })
}
