//! When a follower stands for election because its leader fell silent.
//!
//! Openraft's own timer waits for the lease plus a random time, and draws that time anew only when the
//! node stands: the node that never wins keeps its long one. This one is shorter and needs no chance:
//! the followers take turns, one heartbeat apart, lowest id first. Openraft's timer stays behind it.
//!
//! Invariants
//! - It only asks openraft for a pre-vote round, which openraft refuses while this node's promise to its
//!   leader holds, and which a quorum must answer whose promises have lapsed, too.
//! - It asks once for each silence, and only if the silent node is the leader that this node follows: one
//!   that was succeeded meanwhile, perhaps by this node, has reason to be silent.
//! - A node that was stopped itself gives the leader time for another heartbeat first.
//!
//! It must not know logs or messages.

use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use openraft::RaftMetrics;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::candidacy::Candidacy;
use crate::machine::Machine;
use crate::options::Farewell;
use crate::options::LeaderSign;
use crate::options::Timing;
use crate::types::Types;

/// A timer that fires later than this was held up: the process was stopped, or starved.
const LATE: Duration = Duration::from_millis(20);

/// A leader that asked another node to lead may send appends for so long until it learns that it was heard.
const HANDOVER: Duration = Duration::from_secs(1);

/// The last append, heartbeats included, that came from another node, and how that node took its leave.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Signs>);

#[derive(Default)]
struct Signs {
    any: Option<Sign>,
    /// From a node that holds files. A witness leads in passing and serves nobody.
    server: Option<Sign>,
}

#[derive(Clone, Copy)]
struct Sign {
    from: u64,
    term: u64,
    at: Instant,
    hung_up: bool,
    handed_over: Option<Instant>,
}

impl Heard {
    pub(crate) fn note(&self, from: u64, term: u64, is_witness: bool) {
        let mut signs = self.0.lock();
        let handed_over = signs
            .any
            .filter(|before| (before.from, before.term) == (from, term))
            .and_then(|before| before.handed_over);
        signs.any = Some(Sign {
            from,
            term,
            at: Instant::now(),
            hung_up: false,
            handed_over,
        });
        if !is_witness {
            signs.server = signs.any;
        }
    }

    /// The connection on which `from` sent its appends has ended. That also happens after it handed over.
    pub(crate) fn hung_up(&self, from: u64) {
        self.0.lock().of(from).for_each(|sign| sign.hung_up = true);
    }

    /// `from` asks another node to lead.
    pub(crate) fn handed_over(&self, from: u64) {
        let now = Instant::now();
        let mut signs = self.0.lock();
        signs.of(from).for_each(|sign| sign.handed_over = Some(now));
    }

    pub(crate) fn sign(&self) -> Option<LeaderSign> {
        self.0.lock().any.map(LeaderSign::from)
    }

    /// The last from a node that holds files.
    pub(crate) fn server_sign(&self) -> Option<LeaderSign> {
        self.0.lock().server.map(LeaderSign::from)
    }

    /// Who sent it, and when.
    pub(crate) fn last(&self) -> Option<(u64, Instant)> {
        self.0.lock().any.map(|sign| (sign.from, sign.at))
    }
}

impl Signs {
    /// Those that came from a node.
    fn of(&mut self, from: u64) -> impl Iterator<Item = &mut Sign> {
        let all = [&mut self.any, &mut self.server];
        all.into_iter()
            .flatten()
            .filter(move |sign| sign.from == from)
    }
}

impl From<Sign> for LeaderSign {
    fn from(sign: Sign) -> Self {
        let handed_over = sign.handed_over.is_some_and(|at| sign.at < at + HANDOVER);
        Self {
            from: sign.from,
            at: sign.at.into_std(),
            farewell: match (handed_over, sign.hung_up) {
                (true, _) => Farewell::HandedOver,
                (false, true) => Farewell::HungUp,
                (false, false) => Farewell::None,
            },
        }
    }
}

/// How long a leader must be silent before this node stands. A witness, which could only hand over again,
/// leaves the others their turns.
fn patience(
    timing: &Timing,
    voters: &[u64],
    (this, witness): (u64, bool),
    leader: u64,
) -> Duration {
    let before = match witness {
        true => voters.len().saturating_sub(1),
        false => voters
            .iter()
            .filter(|id| **id < this && **id != leader)
            .count(),
    };
    let turn = u32::try_from(before).unwrap_or(u32::MAX);
    timing.lease + timing.heartbeat.saturating_mul(turn.saturating_add(1))
}

/// Whether this node follows `leader`, as far as it knows.
fn follows(metrics: &RaftMetrics<Types>, leader: u64) -> bool {
    metrics.state == ServerState::Follower && metrics.current_leader == Some(leader)
}

/// Lets this node (its id, whether it is a witness) stand when it is its turn, from `from` on. Runs until openraft stops.
pub(crate) async fn stand<R: Send + 'static>(
    raft: Raft<Types, Machine<R>>,
    heard: Arc<Heard>,
    candidacy: Arc<Candidacy>,
    timing: Timing,
    this: (u64, bool),
    from: Instant,
) {
    tokio::time::sleep_until(from).await;
    let mut stood = None;
    loop {
        let last = heard.last();
        let Some((leader, at)) = last.filter(|_| last != stood) else {
            tokio::time::sleep(timing.heartbeat).await;
            continue;
        };
        let voters = {
            let metrics = raft.metrics();
            let now = metrics.borrow_watched();
            now.membership_config.voter_ids().collect::<Vec<_>>()
        };
        let due = at + patience(&timing, &voters, this, leader);
        if Instant::now() < due {
            tokio::time::sleep_until(due).await;
            if due.elapsed() > LATE {
                tokio::time::sleep(timing.heartbeat).await;
            }
            continue;
        }
        stood = last;
        if !candidacy.may_stand() || !follows(&raft.metrics().borrow_watched(), leader) {
            continue;
        }
        tracing::debug!("node {leader} is silent, standing for election");
        if raft.trigger().elect(true).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_silence_of_the_present_leader_counts() {
        let mut metrics = RaftMetrics::new_initial(3);
        metrics.state = ServerState::Follower;
        // It voted, and nobody has won yet.
        metrics.current_leader = None;
        assert!(!follows(&metrics, 1));
        metrics.current_leader = Some(2);
        assert!(!follows(&metrics, 1));
        metrics.current_leader = Some(1);
        assert!(follows(&metrics, 1));
        metrics.state = ServerState::Candidate;
        assert!(!follows(&metrics, 1));
    }

    #[test]
    fn a_witness_in_between_hides_neither_who_served_nor_how_it_ended() {
        let heard = Heard::default();
        heard.note(1, 5, false);
        heard.hung_up(1);
        heard.note(3, 6, true);
        heard.handed_over(3);
        let of = |sign: Option<LeaderSign>| sign.map(|sign| (sign.from, sign.farewell));
        assert_eq!(of(heard.sign()), Some((3, Farewell::HandedOver)));
        assert_eq!(of(heard.server_sign()), Some((1, Farewell::HungUp)));
        assert_eq!(heard.last().map(|(from, _)| from), Some(3));
        heard.note(2, 7, false);
        assert_eq!(of(heard.server_sign()), Some((2, Farewell::None)));
    }

    #[test]
    fn followers_take_turns_before_openraft_does() {
        let timing = Timing::default();
        let turn = |this, leader| patience(&timing, &[1, 2, 3], (this, false), leader);
        for (first, second, leader) in [(1, 2, 3), (1, 3, 2), (2, 3, 1)] {
            assert_eq!(turn(first, leader), timing.lease + timing.heartbeat);
            assert_eq!(turn(second, leader) - turn(first, leader), timing.heartbeat);
            assert!(turn(second, leader) < timing.lease + timing.election_min);
            let witness = patience(&timing, &[1, 2, 3], (first, true), leader);
            assert_eq!(witness - turn(second, leader), timing.heartbeat);
        }
    }
}
