//! What a witness does with leadership: it gets rid of it.
//!
//! A witness is elected when it has entries that the only other living nodes lack. As leader it sends
//! them, as any leader does; as soon as one of those has all of them and answers, leadership goes there.
//!
//! It must not know entries.

use std::sync::Arc;

use openraft::Raft;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use crate::heir::ANSWER_AGE_MAX;
use crate::heir::Heirs;
use crate::heir::Wanted;
use crate::machine::Machine;
use crate::net::hints::Board;
use crate::net::link::Place;
use crate::options::Timing;
use crate::options::TransferError;
use crate::types::Types;

/// Hands leadership over whenever this node has it. Runs until openraft stops.
pub(crate) async fn hand_over<R: Send + 'static>(
    raft: Raft<Types, Machine<R>>,
    place: Arc<Place>,
    board: Arc<Board>,
    timing: Timing,
) {
    let mut metrics = raft.metrics();
    let heirs = Heirs {
        raft: raft.clone(),
        place,
        board,
        lease: timing.lease,
    };
    // Anybody who lacks nothing: to be served counts more than who shall not lead.
    let wanted = Wanted {
        before: ANSWER_AGE_MAX,
        ..Wanted::default()
    };
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
        let to = match heirs.find(&wanted).await {
            Ok((_, to)) => to,
            Err(TransferError::Stopped) => return,
            Err(_) => {
                tokio::select! {
                    changed = metrics.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(timing.heartbeat) => {}
                }
                continue;
            }
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
