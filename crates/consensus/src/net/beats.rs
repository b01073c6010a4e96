//! How heartbeats are answered: as soon as this node has taken them.
//!
//! Openraft answers an append without entries when all is durable that it has taken before. For entries that is what an
//! answer means; but a leader asks with a heartbeat whether its followers follow, and what they promise it by answering is not on
//! any disk ([`crate::lease`], 1). So with the followers' disks standing still, their leader would lose its lease, and could not
//! even answer reads.
//!
//! Invariants
//! - A heartbeat is answered here only when openraft has renewed the promise to this very leader since it came, and the
//!   vote for that leader is durable.
//! - Such an answer says that the follower follows, not what it holds. The leader takes no more from an answer to a
//!   heartbeat: openraft counts entries by the answers to entries.
//!
//! It must not know sockets.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use openraft::Raft;
use openraft::alias::InstantOf;
use openraft::type_config::TypeConfigExt;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::machine::Machine;
use crate::net::frame::WireError;
use crate::store::Store;
use crate::types::AppendRequest;
use crate::types::AppendResult;
use crate::types::Types;
use crate::types::Vote;

/// After so long, and then as often, openraft is asked whether it has taken a heartbeat. It does within a fraction of that,
/// and where the disk is as fast, it has answered.
const LOOK: Duration = Duration::from_millis(2);

/// Takes a heartbeat, and gives the answer. With entries it would be no heartbeat, and is answered as openraft does.
pub(crate) async fn answer<R: Send + 'static>(
    raft: &Raft<Types, Machine<R>>,
    store: &Store,
    request: AppendRequest,
) -> Result<AppendResult, WireError> {
    let (came, vote, upto) = (Types::now(), request.vote, request.prev_log_id);
    let is_heartbeat = request.entries.is_empty();
    let one = stream::once(std::future::ready(request));
    let mut answers = Box::pin(raft.stream_append(one));
    let answer = tokio::select! {
        // What openraft says by itself comes first: that it refuses, above all.
        biased;
        answer = answers.next() => answer,
        () = is_taken(raft, store, vote, came), if is_heartbeat => return Ok(Ok(upto)),
    };
    match answer {
        Some(Ok(answer)) => Ok(answer),
        _ => Err(WireError::Peer("consensus has stopped here")),
    }
}

/// Returns when openraft has renewed its promise to the leader of this vote after that time, and the vote is durable;
/// never, if it does not.
async fn is_taken<R: Send + 'static>(
    raft: &Raft<Types, Machine<R>>,
    store: &Store,
    vote: Vote,
    came: InstantOf<Types>,
) {
    loop {
        sleep(LOOK).await;
        let (told, renewed) = oneshot::channel();
        // Only appends and snapshots of the leader itself renew a committed vote, and each of them renews the promise.
        let asked = raft.external_request(move |state| {
            let renewed = state.vote_last_modified();
            let is_so = *state.vote_ref() == vote && renewed.is_some_and(|at| at >= came);
            // Nobody waits for it once openraft has answered.
            let _ = told.send(is_so);
        });
        let renewed = match asked.await {
            Ok(()) => renewed.await,
            // The usual way says so.
            Err(_) => return std::future::pending().await,
        };
        if renewed == Ok(true) && store.durable_vote() == Some(vote) {
            return;
        }
    }
}
