//! When each follower last answered: what a leader's lease is dated from.
//!
//! Every answer counts, to entries as to heartbeats, also one that comes so late that openraft does not wait for it any more.
//! (Openraft gives a heartbeat up after the time between two of them. Where a full network takes longer than that, none
//! would count.) It is dated from the sending of what it answers, never later: a follower's promise begins when it takes
//! a message, and it takes nothing before it was sent.
//!
//! Invariants
//! - What is dated is dated before a byte of it leaves.
//! - Only what says that the follower took the message in its term counts: see [`crate::lease`], 1.
//!
//! It must not know sockets, nor what is decided from this.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// See the module's head.
#[derive(Default)]
pub(crate) struct Answers {
    /// By follower: the term, and when the newest message of it was sent that was answered.
    newest: watch::Sender<BTreeMap<u64, (u64, Instant)>>,
}

/// Sees each answer that brings something new.
pub(crate) struct News(watch::Receiver<BTreeMap<u64, (u64, Instant)>>);

impl News {
    /// Returns when something was answered since the last time.
    pub(crate) async fn wait(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody is left who could answer.
            std::future::pending::<()>().await;
        }
    }
}

impl Answers {
    /// `peer` answered what was sent at that time in `term`.
    pub(crate) fn note(&self, peer: u64, term: u64, sent: Instant) {
        self.newest.send_if_modified(|newest| {
            let known = newest.insert(peer, (term, sent));
            if known > Some((term, sent)) {
                newest.extend(known.map(|known| (peer, known)));
                return false;
            }
            true
        });
    }

    /// What comes from now on.
    pub(crate) fn news(&self) -> News {
        News(self.newest.subscribe())
    }

    /// How long ago the newest message was sent to `peer` in `term` that it has answered.
    pub(crate) fn ago(&self, peer: u64, term: u64) -> Option<Duration> {
        self.sent(peer, term).map(|sent| sent.elapsed())
    }

    fn sent(&self, peer: u64, term: u64) -> Option<Instant> {
        let newest = self.newest.borrow();
        newest
            .get(&peer)
            .filter(|(of, _)| *of == term)
            .map(|(_, sent)| *sent)
    }

    /// The time such that a quorum of each of these sets of voters answered something of `term` sent then or later. `own`
    /// needs no answer: it is in touch with itself `now`.
    pub(crate) fn quorum<'a>(
        &self,
        own: u64,
        term: u64,
        voters: impl IntoIterator<Item = &'a BTreeSet<u64>>,
        now: Instant,
    ) -> Option<Instant> {
        let sent = |id: u64| match id == own {
            true => Some(now),
            false => self.sent(id, term),
        };
        let of = |voters: &BTreeSet<u64>| {
            let mut times: Vec<Instant> = voters.iter().filter_map(|id| sent(*id)).collect();
            times.sort_unstable_by(|a, b| b.cmp(a));
            times.get(voters.len() / 2).copied()
        };
        let mut all = voters.into_iter().map(of);
        // Of several sets each has to agree.
        let first = all.next()??;
        all.try_fold(first, |oldest, time| Some(oldest.min(time?)))
    }

    /// Forgets all but these.
    pub(crate) fn keep(&self, peers: &[u64]) {
        self.newest.send_if_modified(|newest| {
            newest.retain(|id, _| peers.contains(id));
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(quorum(&[&[]]), None);
    }

    #[tokio::test]
    async fn the_newest_counts_in_whatever_order_they_come() {
        let answers = Answers::default();
        let mut news = answers.news();
        let mut is_news = || {
            let seen = std::pin::pin!(news.wait());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            seen.poll(&mut context).is_ready()
        };
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        answers.note(2, 7, at(200));
        assert_eq!((answers.sent(2, 7), is_news()), (Some(at(200)), true));
        answers.note(2, 7, at(100));
        assert_eq!((answers.sent(2, 7), is_news()), (Some(at(200)), false));
        answers.note(2, 8, at(50));
        assert_eq!(
            (answers.sent(2, 7), answers.sent(2, 8), is_news()),
            (None, Some(at(50)), true)
        );
        answers.note(2, 7, at(300));
        assert_eq!(answers.sent(2, 8), Some(at(50)), "that term is over");
        answers.keep(&[3]);
        assert_eq!((answers.ago(2, 8), is_news()), (None, false));
    }
}
