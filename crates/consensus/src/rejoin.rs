//! A node that lost its log takes part again, without a voice until it knows what it may have promised.
//!
//! A voter that forgets its vote or an entry it acknowledged can help to elect a leader that lacks what
//! was committed with its help. So such a node comes back like this:
//!
//! 1. `F`, the newest term it may have voted or acknowledged anything in, is known: its vote was kept.
//! 2. Its new log begins with a vote for itself in term `F + 1`, which it never counts nor asks others for,
//!    and with `F` in a slot. So no leader of a term up to `F` gets an answer from it any more, nor does one
//!    count what the node acknowledged and forgot for more than it is: such a leader hears of the later
//!    term and gives up.
//! 3. While `F` is in its slot the node has no voice (`Voice`): it answers no vote, pre-vote or transfer, and
//!    does not stand. Every leader of a term after `F` is therefore elected by nodes that forgot nothing,
//!    and any quorum of those shares a node with every quorum that committed something up to `F`: there are
//!    fewer of them, but the forgetful node is missing from both.
//! 4. Entries it takes from such leaders it really has, so it may acknowledge them.
//! 5. When it has applied an entry of a term after `F`, it holds everything that was committed up to `F`
//!    (every later leader's log begins with that). Once its log is durable up to there, `F` is taken away:
//!    it is a voter like any other.
//!
//! A cluster in which as many nodes forgot as it may lose stays without a leader, rather than lead without
//! what it acknowledged. docs/decisions/0007 has the argument in full.
//!
//! It must not know how a log gets damaged, nor where the old one goes.

use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::codec;
use crate::machine::Machine;
use crate::store::Store;
use crate::store::record_index;
use crate::types::LeaderId;
use crate::types::Types;
use crate::types::Vote;
use haven_log::Log;
use haven_log::Slot;

/// Pause before a log that could not be flushed is asked again.
const RETRY: Duration = Duration::from_millis(100);

/// Prepares a log that was just made for a node that lost its own: it forgot what it may have voted or
/// acknowledged in terms up to `forgot`. The log begins behind `position`, the machine's (`None`: the
/// machine is new, too). Blocks.
///
/// # Errors
/// What the log or the position has against it, in words.
pub fn prepare(
    log: &Log,
    node_id: u64,
    forgot: u64,
    position: Option<&[u8]>,
) -> Result<(), String> {
    if log.last_index().is_some() || log.purged_index() > 0 {
        return Err("the new log is not empty".into());
    }
    let meta = position.map(codec::read_position).transpose();
    let meta = meta.map_err(|e| format!("the machine's position does not decode: {e}"))?;
    let words = |e: haven_log::LogError| e.to_string();
    let save = |slot, value: &[u8]| log.save_slot(slot, value, true).map_err(words);
    save(Slot::Forgotten, &codec::term_slot(forgot))?;
    let vote = Vote {
        leader_id: LeaderId {
            term: forgot.saturating_add(1),
            voted_for: node_id,
        },
        committed: false,
    };
    save(Slot::Vote, &codec::vote_slot(vote))?;
    if let Some(last) = meta.and_then(|meta| meta.last_log_id) {
        save(Slot::Purged, &codec::log_id_slot(last))?;
        log.reset_to(record_index(last.index)).map_err(words)?;
    }
    Ok(())
}

/// Whether this node may take part in elections.
pub(crate) struct Voice {
    /// End of the quarantine after the start: see [`crate::lease`].
    from: Instant,
    /// It does not know what it promised.
    forgetful: watch::Sender<bool>,
}

impl Voice {
    pub(crate) fn new(from: Instant, forgetful: bool) -> Self {
        Self {
            from,
            forgetful: watch::Sender::new(forgetful),
        }
    }

    /// Why it answers no votes and pre-votes, if so.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        let young = Instant::now() < self.from;
        self.refusal_to_lead()
            .or(young.then_some("this node started a moment ago"))
    }

    /// Why it does not lead at its leader's word, if so.
    pub(crate) fn refusal_to_lead(&self) -> Option<&'static str> {
        let forgetful = *self.forgetful.borrow();
        forgetful.then_some("this node lost its log and does not know yet what it promised")
    }

    /// Returns when the node knows everything.
    pub(crate) async fn regained(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.forgetful.subscribe().wait_for(|now| !now).await;
    }
}

/// Gives the node its voice back when it has everything that it may have forgotten.
pub(crate) async fn regain<R: Send + 'static>(
    raft: Raft<Types, Machine<R>>,
    store: Store,
    voice: std::sync::Arc<Voice>,
    forgot: u64,
) {
    tracing::error!(
        forgot,
        "this node lost its log: it takes no part in elections until it has caught up with a leader of a term after \
         {forgot}"
    );
    let mut metrics = raft.metrics();
    loop {
        let applied = metrics.borrow_watched().last_applied;
        if applied.is_some_and(|last| last.leader_id.term > forgot) {
            break;
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
    while let Err(why) = store.remembered().await {
        tracing::error!("cannot note that this node has caught up: {why}");
        tokio::time::sleep(RETRY).await;
    }
    voice.forgetful.send_replace(false);
    tracing::info!(
        "this node has caught up with everything it lost: it takes part in elections again"
    );
}
