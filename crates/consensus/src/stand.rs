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

use crate::machine::Machine;
use crate::options::Timing;
use crate::types::Types;

/// A timer that fires later than this was held up: the process was stopped, or starved.
const LATE: Duration = Duration::from_millis(20);

/// The last append, heartbeats included, that came from another node.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Option<(u64, Instant)>>);

impl Heard {
    pub(crate) fn note(&self, from: u64) {
        *self.0.lock() = Some((from, Instant::now()));
    }

    /// When that was.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.0.lock().map(|(_, at)| at)
    }
}

/// How long a leader must be silent before this node stands.
fn patience(timing: &Timing, voters: &[u64], this: u64, leader: u64) -> Duration {
    let before = voters.iter().filter(|id| **id < this && **id != leader);
    let turn = u32::try_from(before.count()).unwrap_or(u32::MAX);
    timing.lease + timing.heartbeat.saturating_mul(turn.saturating_add(1))
}

/// Whether this node follows `leader`, as far as it knows.
fn follows(metrics: &RaftMetrics<Types>, leader: u64) -> bool {
    metrics.state == ServerState::Follower && metrics.current_leader == Some(leader)
}

/// Lets this node stand when it is its turn, from `from` on. Runs until openraft stops.
pub(crate) async fn stand<R: Send + 'static>(
    raft: Raft<Types, Machine<R>>,
    heard: Arc<Heard>,
    timing: Timing,
    this: u64,
    from: Instant,
) {
    tokio::time::sleep_until(from).await;
    let mut stood = None;
    loop {
        let last = *heard.0.lock();
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
        if !follows(&raft.metrics().borrow_watched(), leader) {
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
    fn followers_take_turns_before_openraft_does() {
        let timing = Timing::default();
        let turn = |this, leader| patience(&timing, &[1, 2, 3], this, leader);
        for (first, second, leader) in [(1, 2, 3), (1, 3, 2), (2, 3, 1)] {
            assert_eq!(turn(first, leader), timing.lease + timing.heartbeat);
            assert_eq!(turn(second, leader) - turn(first, leader), timing.heartbeat);
            assert!(turn(second, leader) < timing.lease + timing.election_min);
        }
    }
}
