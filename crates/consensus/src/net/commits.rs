//! How soon a follower learns that entries are committed.
//!
//! Nobody waits for what a follower applies. But if each message of a busy leader told it of a few entries more to
//! apply, it would wake two threads for each: as much work as for taking the message. So messages that bring entries
//! tell of commitments only every [`EVERY`].
//!
//! Invariants
//! - What is told never goes back, and is never ahead of the leader: `leader_commit` is a lower bound (Raft, figure 2),
//!   so an older value is as true as the newest.
//! - Messages without entries, and so heartbeats, tell all. After the last entry one comes, so nothing stays untold.
//!
//! It must not know sockets.

use std::time::Duration;

use tokio::time::Instant;

use crate::types::AppendRequest;
use crate::types::LogId;

/// A new leader has this much more to apply at most before it serves: some milliseconds of work.
const EVERY: Duration = Duration::from_millis(20);

/// What one connection has told.
#[derive(Default)]
pub(crate) struct Commits {
    told: Option<LogId>,
    at: Option<Instant>,
}

impl Commits {
    /// Holds back what need not be told yet.
    pub(crate) fn pass(&mut self, request: &mut AppendRequest, now: Instant) {
        let early = self.at.is_some_and(|at| now - at < EVERY);
        if early && !request.entries.is_empty() {
            request.leader_commit = self.told.min(request.leader_commit);
        } else {
            self.told = request.leader_commit;
            self.at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Entry;
    use crate::types::LeaderId;
    use crate::types::Vote;
    use crate::types::log_id;
    use openraft::EntryPayload;
    use openraft::vote::RaftLeaderId as _;

    fn request(commit: Option<u64>, entries: bool) -> AppendRequest {
        let entry = Entry {
            log_id: log_id(1, 12),
            payload: EntryPayload::Blank,
        };
        AppendRequest {
            vote: Vote {
                leader_id: LeaderId::new(1, 2),
                committed: true,
            },
            prev_log_id: None,
            entries: entries.then_some(entry).into_iter().collect(),
            leader_commit: commit.map(|index| log_id(1, index)),
        }
    }

    #[test]
    fn commitments_are_told_now_and_then_or_without_entries() {
        let mut commits = Commits::default();
        let start = Instant::now();
        let mut told = |ms, commit, entries| {
            let mut request = request(commit, entries);
            commits.pass(&mut request, start + Duration::from_millis(ms));
            request.leader_commit.map(|id| id.index)
        };
        assert_eq!(told(0, Some(3), true), Some(3), "the first one is told");
        assert_eq!(told(1, Some(5), true), Some(3));
        assert_eq!(told(19, Some(6), true), Some(3));
        assert_eq!(told(20, Some(7), true), Some(7));
        assert_eq!(told(21, Some(8), true), Some(7));
        assert_eq!(told(22, Some(9), false), Some(9), "no entries");
        assert_eq!(told(23, Some(10), true), Some(9));
        // A leader that begins anew knows less.
        assert_eq!(told(24, Some(4), true), Some(4));
        assert_eq!(told(25, None, true), None);
        assert_eq!(told(60, Some(11), true), Some(11));
    }
}
