//! Who leads next: a voter with a state that has the entries, and answers just then.
//!
//! Invariant: nobody is taken who did not answer something that was sent after the question, or at most
//! [`Wanted::before`] before it. A node that died a moment ago looks like any other until it is asked.
//!
//! It must not know why leadership moves, or how.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use openraft::RaftMetrics;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;
use tokio::time::sleep_until;

use crate::answers::Answers;
use crate::machine::Machine;
use crate::net::hints::Board;
use crate::net::link::Place;
use crate::options::TransferError;
use crate::types::Types;

/// An answer to something that was sent so short a time ago shows well enough that a node is there.
pub(crate) const ANSWER_AGE_MAX: Duration = Duration::from_millis(20);

/// What is asked of an heir.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// This node and no other.
    pub(crate) to: Option<u64>,
    /// If none is named: none of these.
    pub(crate) unwilling: BTreeSet<u64>,
    /// How many entries it may lack.
    pub(crate) lag_max: u64,
    /// An answer to something that was sent so long before the question counts, too: at most [`ANSWER_AGE_MAX`].
    pub(crate) before: Duration,
}

/// Finds them.
pub(crate) struct Heirs<R: Send + 'static> {
    pub(crate) raft: Raft<Types, Machine<R>>,
    pub(crate) place: Arc<Place>,
    pub(crate) board: Arc<Board>,
    /// Whoever did not answer for so long is not asked, and the question ends then.
    pub(crate) lease: Duration,
}

impl<R: Send + 'static> Heirs<R> {
    /// This leader's term, and who shall follow it: of those that are as wanted, the one that has most.
    ///
    /// # Errors
    /// All of [`TransferError`] but `TimedOut`.
    pub(crate) async fn find(&self, wanted: &Wanted) -> Result<(u64, u64), TransferError> {
        let asked = Instant::now();
        self.candidate(wanted, self.lease)?;
        let (mut metrics, mut news) = (self.raft.metrics(), self.place.answers.news());
        let asking = self.raft.trigger().heartbeat().await;
        asking.map_err(|_| TransferError::Stopped)?;
        loop {
            match self.candidate(wanted, asked.elapsed() + wanted.before) {
                Err(TransferError::NoneReady) => {}
                found => return found,
            }
            tokio::select! {
                changed = metrics.changed() => changed.map_err(|_| TransferError::Stopped)?,
                () = news.wait() => {}
                () = sleep_until(asked + self.lease) => return Err(TransferError::NoneReady),
            }
        }
    }

    /// The same, of those that answered something that was not sent longer ago than that.
    pub(crate) fn candidate(
        &self,
        wanted: &Wanted,
        ago: Duration,
    ) -> Result<(u64, u64), TransferError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters = self.place.roster.borrow().voters.clone();
        let answers = &self.place.answers;
        candidate(&metrics, &voters, (&self.board, answers), wanted, ago)
    }
}

fn candidate(
    metrics: &RaftMetrics<Types>,
    voters: &BTreeSet<u64>,
    (board, answers): (&Board, &Answers),
    wanted: &Wanted,
    ago: Duration,
) -> Result<(u64, u64), TransferError> {
    if metrics.running_state.is_err() {
        return Err(TransferError::Stopped);
    }
    if metrics.state != ServerState::Leader {
        return Err(TransferError::NotLeader(metrics.current_leader));
    }
    let is_other = |id: &u64| *id != metrics.id && voters.contains(id);
    if wanted.to.is_none() && !voters.iter().any(is_other) {
        return Err(TransferError::Alone);
    }
    if let Some(to) = wanted.to.filter(|to| !is_other(to)) {
        return Err(TransferError::NoSuchNode(to));
    }
    if let Some(to) = wanted.to.filter(|to| board.is_witness(*to)) {
        return Err(TransferError::Witness(to));
    }
    let last = metrics.last_log_index.unwrap_or(0);
    let eligible = |id: &&u64| {
        let willing = !wanted.unwilling.contains(id);
        let wished = wanted.to.map_or(willing, |to| to == **id);
        wished && is_other(id) && !board.is_witness(**id)
    };
    let ready = voters.iter().filter(eligible).filter_map(|id| {
        let matched = matched(metrics, *id)?;
        let near = matched + wanted.lag_max >= last;
        (answers.ago(*id, metrics.current_term)? <= ago && near).then_some((matched, *id))
    });
    let (_, best) = ready.max().ok_or(TransferError::NoneReady)?;
    Ok((metrics.current_term, best))
}

/// The last entry that a leader knows a follower to have.
pub(crate) fn matched(metrics: &RaftMetrics<Types>, id: u64) -> Option<u64> {
    let followers = metrics.replication.as_ref()?;
    Some(followers.get(&id).copied().flatten()?.index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::message::Kept;
    use crate::types::log_id;

    const AGO: Duration = Duration::from_secs(5);

    /// Node 1 leads in term 7 and has 100 entries; of each follower, what it has, and when it answered.
    fn leader(followers: &[(u64, u64, Duration)]) -> (RaftMetrics<Types>, Answers) {
        let mut metrics = RaftMetrics::new_initial(1);
        metrics.state = ServerState::Leader;
        metrics.current_term = 7;
        metrics.last_log_index = Some(100);
        let has = |(id, index, _): &(u64, u64, Duration)| (*id, Some(log_id(7, *index)));
        metrics.replication = Some(followers.iter().map(has).collect());
        let answers = Answers::default();
        for (id, _, ago) in followers {
            answers.note(*id, 7, Instant::now() - *ago);
        }
        (metrics, answers)
    }

    fn find(
        (metrics, answers): &(RaftMetrics<Types>, Answers),
        wanted: &Wanted,
    ) -> Result<(u64, u64), TransferError> {
        let board = Board::new();
        let witness = Kept {
            upto: None,
            witness: true,
        };
        board.put_kept(4, witness);
        let voters = BTreeSet::from([1, 2, 3, 4]);
        candidate(metrics, &voters, (&board, answers), wanted, AGO)
    }

    fn named(to: u64) -> Wanted {
        Wanted {
            to: Some(to),
            ..Wanted::default()
        }
    }

    #[test]
    fn only_who_answered_lately_and_has_everything_is_taken() {
        let (soon, late) = (Duration::ZERO, AGO * 2);
        let both = leader(&[(2, 100, soon), (3, 100, late), (4, 100, soon)]);
        assert_eq!(find(&both, &Wanted::default()), Ok((7, 2)));
        assert_eq!(find(&both, &named(3)), Err(TransferError::NoneReady));
        let none = leader(&[(2, 99, soon), (3, 100, late), (4, 100, soon)]);
        let found = find(&none, &Wanted::default());
        assert_eq!(found, Err(TransferError::NoneReady));
        // Where somebody may lack a little, the one that lacks least is taken.
        let behind = leader(&[(2, 99, soon), (3, 98, soon), (4, 100, soon)]);
        let near = |lag_max| Wanted {
            lag_max,
            ..Wanted::default()
        };
        assert_eq!(find(&behind, &near(1)), Ok((7, 2)));
        assert_eq!(find(&behind, &near(2)), Ok((7, 2)));
        assert_eq!(find(&behind, &near(0)), Err(TransferError::NoneReady));
    }

    #[test]
    fn who_shall_not_lead_is_taken_by_name_only_and_a_witness_never() {
        let soon = Duration::ZERO;
        let all = leader(&[(2, 100, soon), (3, 100, soon), (4, 100, soon)]);
        let unwilling = |to| Wanted {
            to,
            unwilling: BTreeSet::from([3]),
            ..Wanted::default()
        };
        assert_eq!(find(&all, &unwilling(None)), Ok((7, 2)));
        assert_eq!(find(&all, &unwilling(Some(3))), Ok((7, 3)));
        assert_eq!(find(&all, &named(4)), Err(TransferError::Witness(4)));
        for nobody in [1, 5] {
            let found = find(&all, &named(nobody));
            assert_eq!(found, Err(TransferError::NoSuchNode(nobody)));
        }
        let mut follows = all;
        let alone = candidate(
            &follows.0,
            &BTreeSet::from([1]),
            (&Board::new(), &follows.1),
            &Wanted::default(),
            AGO,
        );
        assert_eq!(alone, Err(TransferError::Alone));
        follows.0.state = ServerState::Follower;
        let found = find(&follows, &named(2));
        assert_eq!(found, Err(TransferError::NotLeader(None)));
    }
}
