//! How heartbeats are answered: as soon as this node has taken them.
//!
//! Openraft answers an append without entries when all is durable that it has taken before. For entries that is what an
//! answer means; but a leader asks with a heartbeat whether its followers follow, and what they promise it by answering is not on
//! any disk ([`crate::lease`], 1). So with a follower's disk standing still, its leader would lose its lease, and could not even
//! answer reads.
//!
//! Invariants
//! - A heartbeat is answered here only when openraft has renewed the promise to this very leader since it came.
//! - In a leader's term the first answer on a connection is openraft's: by then the vote for that leader is durable.
//!
//! It must not know sockets.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use openraft::Raft;
use openraft::alias::InstantOf;
use openraft::type_config::TypeConfigExt;
use tokio::time::sleep;

use crate::machine::Machine;
use crate::net::frame::WireError;
use crate::types::AppendRequest;
use crate::types::AppendResult;
use crate::types::Types;
use crate::types::Vote;

/// How often openraft is asked whether it has taken a heartbeat: it does within a fraction of that.
const LOOK: Duration = Duration::from_millis(2);

/// Answers the heartbeats of one connection, one after the other.
pub(crate) struct Beats<R: Send + 'static> {
    raft: Raft<Types, Machine<R>>,
    /// The vote that is known to be durable here.
    settled: Option<Vote>,
}

impl<R: Send + 'static> Beats<R> {
    pub(crate) fn new(raft: Raft<Types, Machine<R>>) -> Self {
        Self {
            raft,
            settled: None,
        }
    }

    /// Takes one, and answers it.
    pub(crate) async fn answer(
        &mut self,
        request: AppendRequest,
    ) -> Result<AppendResult, WireError> {
        let (came, vote, upto) = (Types::now(), request.vote, request.prev_log_id);
        let early = self.settled == Some(vote) && request.entries.is_empty();
        let one = stream::once(std::future::ready(request));
        let mut answers = Box::pin(self.raft.stream_append(one));
        let answer = tokio::select! {
            biased;
            answer = answers.next() => answer,
            () = is_taken(&self.raft, vote, came), if early => return Ok(Ok(upto)),
        };
        let stopped = WireError::Peer("consensus has stopped here");
        let Some(Ok(answer)) = answer else {
            return Err(stopped);
        };
        if answer.is_ok() {
            self.settled = Some(vote);
        }
        Ok(answer)
    }
}

/// Returns when openraft has renewed its promise to the leader of this vote after that time; never, if it does not.
async fn is_taken<R: Send + 'static>(
    raft: &Raft<Types, Machine<R>>,
    vote: Vote,
    came: InstantOf<Types>,
) {
    loop {
        let taken = raft.with_raft_state(move |state| {
            let renewed = state.vote_last_modified();
            *state.vote_ref() == vote && renewed.is_some_and(|renewed| renewed >= came)
        });
        match taken.await {
            Ok(true) => return,
            Ok(false) => sleep(LOOK).await,
            // The usual way says so.
            Err(_) => return std::future::pending().await,
        }
    }
}
