//! Which follower gets new entries at once.
//!
//! An entry is committed when a majority has it, so a leader needs only some of its followers at once. If each small
//! group of entries went to all of them at the same moment, all would work on every group. Instead those that come
//! first get what is new as soon as they are free, and the others every [`PAUSE`] all that came up meanwhile: in one
//! message and one flush instead of many.
//!
//! First come voters with a state before witnesses (which could not serve when the leader dies), those that answer soon
//! before those that do not, and lower ids before higher ones (they also stand first).
//!
//! Invariants
//! - A follower waits only while as many others as make a majority with the leader come before it, are connected, were
//!   sent all that it was sent, and owe no answer for longer than [`PAUSE`]. So a follower that hangs, is gone or has
//!   to catch up holds nothing up for longer than that, and one that was overtaken waits for nobody.
//! - It decides when an append is sent, never what is in it.
//!
//! It must not know sockets, messages or the log.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::net::hints::Board;

/// How long a follower is left alone that is not needed for a majority. A few times what a fast disk needs to flush, and
/// a small part of a heartbeat.
pub(crate) const PAUSE: Duration = Duration::from_millis(4);

/// A follower that takes longer than this to answer, in the mean, comes after those that do not.
const PROMPT: Duration = Duration::from_millis(2);

/// The mean is that of about so many answers.
const ANSWERS: u32 = 8;

/// See the module's head. One for all followers of a node.
pub(crate) struct Turns {
    board: Arc<Board>,
    courses: Mutex<BTreeMap<u64, Course>>,
}

/// A follower that was sent entries on the connection that it has.
#[derive(Clone, Copy)]
struct Course {
    /// The last entry.
    sent: u64,
    /// Since when it owes an answer.
    owes: Option<Instant>,
    /// How long it takes to answer, in the mean.
    takes: Duration,
}

impl Turns {
    pub(crate) fn new(board: Arc<Board>) -> Self {
        Self {
            board,
            courses: Mutex::default(),
        }
    }

    /// `peer` is sent entries up to `last`.
    pub(crate) fn sent(&self, peer: u64, last: u64, now: Instant) {
        let mut courses = self.courses.lock();
        let course = courses.entry(peer).or_insert(Course {
            sent: last,
            owes: None,
            takes: Duration::ZERO,
        });
        course.sent = last;
        course.owes.get_or_insert(now);
    }

    /// `peer` answered, and owes more answers or does not.
    pub(crate) fn answered(&self, peer: u64, owes_more: bool, now: Instant) {
        if let Some(course) = self.courses.lock().get_mut(&peer)
            && let Some(since) = course.owes
        {
            course.takes = (course.takes * (ANSWERS - 1) + (now - since)) / ANSWERS;
            course.owes = owes_more.then_some(now);
        }
    }

    /// There is no connection to `peer`, or it is a new one.
    pub(crate) fn lost(&self, peer: u64) {
        self.courses.lock().remove(&peer);
    }

    /// Whether `peer` is not needed for a majority of `voters` now.
    pub(crate) fn may_wait(&self, peer: u64, voters: &BTreeSet<u64>, now: Instant) -> bool {
        let needed = voters.len() / 2;
        let courses = self.courses.lock();
        let Some(own) = courses.get(&peer).filter(|_| needed > 0) else {
            return false;
        };
        let rank = |id: u64, course: &Course| {
            let witness = self.board.is_witness(id);
            (!voters.contains(&id), witness, course.takes > PROMPT, id)
        };
        let comes_first = |(id, course): &(&u64, &Course)| {
            let prompt = course.owes.is_none_or(|since| now < since + PAUSE);
            voters.contains(id)
                && prompt
                && course.sent >= own.sent
                && rank(**id, course) < rank(peer, own)
        };
        courses.iter().filter(comes_first).count() >= needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::message::Kept;

    const SOON: Duration = Duration::from_micros(900);

    fn voters(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    /// Two followers of node 1 that were sent everything up to entry 10 and have answered.
    fn even() -> (Turns, Instant) {
        let (turns, now) = (Turns::new(Arc::new(Board::new())), Instant::now());
        for peer in [2, 3] {
            turns.sent(peer, 10, now);
            turns.answered(peer, false, now + SOON);
        }
        (turns, now + SOON)
    }

    /// Those of nodes 2 and 3 that may wait.
    fn waiting(turns: &Turns, now: Instant) -> Vec<u64> {
        let voters = voters(&[1, 2, 3]);
        let mut all = vec![2, 3];
        all.retain(|peer| turns.may_wait(*peer, &voters, now));
        all
    }

    #[test]
    fn one_of_two_followers_is_enough() {
        let (turns, now) = even();
        assert_eq!(waiting(&turns, now), [3]);
        turns.sent(2, 11, now);
        assert_eq!(waiting(&turns, now), [3], "it takes the next with it");
    }

    #[test]
    fn nobody_waits_for_one_that_hangs_or_is_gone() {
        let (turns, now) = even();
        turns.sent(2, 11, now);
        assert_eq!(waiting(&turns, now + PAUSE - SOON), [3]);
        assert!(waiting(&turns, now + PAUSE).is_empty());
        turns.answered(2, false, now + PAUSE);
        assert_eq!(waiting(&turns, now + PAUSE), [3]);
        turns.lost(2);
        assert!(waiting(&turns, now).is_empty());
    }

    #[test]
    fn nobody_waits_for_one_that_catches_up() {
        let (turns, now) = even();
        turns.sent(3, 500, now);
        turns.answered(3, false, now + SOON);
        // Its snapshot takes long, and meanwhile it owes nothing.
        assert!(waiting(&turns, now + SOON).is_empty());
        turns.sent(2, 500, now + SOON);
        assert_eq!(waiting(&turns, now + SOON), [3]);
    }

    #[test]
    fn slow_ones_and_witnesses_come_last() {
        let (turns, mut now) = even();
        for index in 11..40 {
            turns.sent(2, index, now);
            turns.sent(3, index, now);
            now += SOON;
            turns.answered(3, false, now);
            now += PROMPT;
            turns.answered(2, false, now);
        }
        assert_eq!(waiting(&turns, now), [2]);
        let witness = Kept {
            upto: None,
            witness: true,
        };
        turns.board.put_kept(3, witness);
        assert_eq!(waiting(&turns, now), [3], "rather slow than without files");
    }

    #[test]
    fn of_five_voters_two_followers_are_needed() {
        let (turns, now) = even();
        let five = voters(&[1, 2, 3, 4, 5]);
        turns.sent(4, 10, now);
        assert!(!turns.may_wait(3, &five, now));
        assert!(turns.may_wait(4, &five, now));
        assert!(!turns.may_wait(5, &five, now), "it was sent nothing yet");
        // A learner that has caught up waits for the voters.
        turns.sent(6, 10, now);
        assert!(turns.may_wait(6, &five, now));
        assert!(!turns.may_wait(6, &voters(&[1]), now));
    }
}
