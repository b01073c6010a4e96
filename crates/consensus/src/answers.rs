//! When each follower last answered: what a leader's lease is dated from.
//!
//! Every answer counts, to entries as to heartbeats, also one that comes so late that openraft does not wait for it any more.
//! (Openraft gives a heartbeat up after the time between two of them. Where a full network takes longer than that, none
//! would count.) It is dated from the sending of what it answers.
//!
//! Invariants
//! - What is dated is noted before a byte of it leaves.
//! - Only what says that the follower took the message in its term counts: see [`crate::lease`], 1.
//!
//! It must not know sockets, nor what is decided from this.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// See the module's head.
#[derive(Default)]
pub(crate) struct Answers {
    /// By follower: the term, and when the newest message of it was sent that was answered.
    newest: Mutex<BTreeMap<u64, (u64, Instant)>>,
    /// Rung at each one.
    pub(crate) news: Notify,
}

impl Answers {
    /// `peer` answered what was sent at that time in `term`.
    pub(crate) fn note(&self, peer: u64, term: u64, sent: Instant) {
        let mut newest = self.newest.lock();
        let known = newest.entry(peer).or_insert((term, sent));
        *known = (*known).max((term, sent));
        drop(newest);
        self.news.notify_one();
    }

    /// When the newest message was sent to `peer` in `term` that it has answered.
    pub(crate) fn sent(&self, peer: u64, term: u64) -> Option<Instant> {
        let newest = self.newest.lock();
        newest
            .get(&peer)
            .filter(|(of, _)| *of == term)
            .map(|(_, sent)| *sent)
    }

    /// The time such that a quorum of each of these sets of voters answered something of `term` sent then or later. `own`
    /// needs no answer: it is in touch with itself `now`.
    pub(crate) fn quorum(
        &self,
        own: u64,
        term: u64,
        voters: &[BTreeSet<u64>],
        now: Instant,
    ) -> Option<Instant> {
        let sent = |id: u64| {
            if id == own {
                Some(now)
            } else {
                self.sent(id, term)
            }
        };
        let of = |voters: &BTreeSet<u64>| {
            let mut times: Vec<Instant> = voters.iter().filter_map(|id| sent(*id)).collect();
            times.sort_unstable_by(|a, b| b.cmp(a));
            times.get(voters.len() / 2).copied()
        };
        let mut all = voters.iter().map(of);
        // Of several sets each has to agree.
        let first = all.next()??;
        all.try_fold(first, |oldest, time| Some(oldest.min(time?)))
    }

    /// Forgets all but these.
    pub(crate) fn keep(&self, peers: &[u64]) {
        self.newest.lock().retain(|id, _| peers.contains(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    #[test]
    fn a_quorum_is_as_late_as_its_latest_member() {
        let answers = Answers::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let now = at(1_000);
        let quorum = |voters: &[&[u64]]| {
            let voters: Vec<_> = voters.iter().map(|ids| set(ids)).collect();
            answers.quorum(1, 7, &voters, now)
        };
        assert_eq!(quorum(&[&[1]]), Some(now));
        assert_eq!(quorum(&[&[1, 2, 3]]), None);
        answers.note(2, 7, at(100));
        answers.note(3, 6, at(900));
        assert_eq!(
            quorum(&[&[1, 2, 3]]),
            Some(at(100)),
            "one of an older term does not count"
        );
        answers.note(3, 7, at(300));
        assert_eq!(quorum(&[&[1, 2, 3]]), Some(at(300)));
        assert_eq!(quorum(&[&[1, 2]]), Some(at(100)));
        assert_eq!(
            quorum(&[&[2, 3]]),
            Some(at(100)),
            "one that has no vote itself"
        );
        assert_eq!(quorum(&[&[1, 2, 3, 4]]), Some(at(100)), "three of four");
        assert_eq!(quorum(&[&[1, 2, 3, 4, 5]]), Some(at(100)));
        assert_eq!(quorum(&[&[1, 2, 3], &[1, 2]]), Some(at(100)), "both of two");
        assert_eq!(quorum(&[&[1, 2, 3], &[1, 9]]), None);
        assert_eq!(quorum(&[]), None);
    }

    #[test]
    fn the_newest_counts_in_whatever_order_they_come() {
        let answers = Answers::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for ms in [200, 100] {
            answers.note(2, 7, at(ms));
            assert_eq!(answers.sent(2, 7), Some(at(200)));
        }
        answers.note(2, 8, at(50));
        assert_eq!(
            (answers.sent(2, 7), answers.sent(2, 8)),
            (None, Some(at(50)))
        );
        answers.note(2, 7, at(300));
        assert_eq!(answers.sent(2, 8), Some(at(50)), "that term is over");
        answers.keep(&[3]);
        assert_eq!(answers.sent(2, 8), None);
    }
}
