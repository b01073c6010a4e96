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
use crate::types::LogId;
use crate::types::Types;
use crate::types::Vote;
use haven_log::Log;
use haven_log::Slot;

const FORGETFUL: &str = "this node lost its log and does not know yet what it promised";

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
    gaps: watch::Sender<Gaps>,
}

/// What this node does not have.
struct Gaps {
    /// It does not know what it promised.
    forgetful: bool,
    /// It was committed, and is not in the log: see [`crate::lacking`].
    lacks: Option<LogId>,
}

impl Voice {
    pub(crate) fn new(from: Instant, forgetful: bool, lacks: Option<LogId>) -> Self {
        Self {
            from,
            gaps: watch::Sender::new(Gaps { forgetful, lacks }),
        }
    }

    /// Why it gives no vote or pre-vote to one whose last entry is `last`, if so.
    pub(crate) fn refusal(&self, last: Option<LogId>) -> Option<&'static str> {
        let young = Instant::now() < self.from;
        let gaps = self.gaps.borrow();
        match () {
            () if gaps.forgetful => Some(FORGETFUL),
            () if gaps.lacks > last => {
                Some("this node knows of committed entries that are not in your log")
            }
            () => young.then_some("this node started a moment ago"),
        }
    }

    /// Why it does not lead at its leader's word, if so.
    pub(crate) fn refusal_to_lead(&self) -> Option<&'static str> {
        let gaps = self.gaps.borrow();
        match gaps.forgetful {
            true => Some(FORGETFUL),
            false => gaps
                .lacks
                .map(|_| "this node has not fetched yet what was committed and is not in its log"),
        }
    }

    /// Returns when the node knows everything, and has it.
    pub(crate) async fn regained(&self) {
        let whole = |gaps: &Gaps| !gaps.forgetful && gaps.lacks.is_none();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.gaps.subscribe().wait_for(whole).await;
    }

    fn remembers(&self) {
        self.gaps.send_modify(|gaps| gaps.forgetful = false);
    }

    pub(crate) fn holds_everything(&self) {
        self.gaps.send_modify(|gaps| gaps.lacks = None);
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
    voice.remembers();
    tracing::info!(
        "this node has caught up with everything it lost: it takes part in elections again"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::log_id;

    #[test]
    fn who_lacks_what_was_committed_votes_for_those_who_have_it_and_does_not_lead() {
        let voice = Voice::new(Instant::now(), false, Some(log_id(3, 9)));
        assert!(voice.refusal_to_lead().is_some());
        for last in [None, Some(log_id(2, 50)), Some(log_id(3, 8))] {
            assert!(voice.refusal(last).is_some(), "{last:?}");
        }
        for last in [log_id(3, 9), log_id(4, 2)] {
            assert_eq!(voice.refusal(Some(last)), None, "{last}");
        }
        voice.holds_everything();
        assert_eq!(voice.refusal_to_lead(), None);
        assert_eq!(voice.refusal(None), None);
    }
}
