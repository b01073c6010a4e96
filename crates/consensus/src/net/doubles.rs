//! Who speaks as a member: one process for each, where the cluster knows it to be.
//!
//! A data directory that was copied, or a virtual machine that was cloned, makes a second process of one node, with its key
//! and with what it has promised. Two such processes can give one node's vote twice, and so make two leaders of one term. So
//! a process says in its hello where it listens and a number that it drew when it started:
//! - One that listens elsewhere than the membership says is refused ([`elsewhere`]). Votes are asked for at that place
//!   only, so it can neither give a vote nor be elected. It need not run beside another to be found.
//! - Processes of one node follow each other. When one that was succeeded speaks again, both run ([`Doubles`]): then it is
//!   refused, and no vote of that node counts here, nor is one given to it, until the older one has been silent for a while.
//!
//! Invariants
//! - A node that was started anew, however often, is never taken for two: its former processes do not come back.
//! - What is remembered is bounded: some processes of each member, one that was refused of each.
//!
//! It must not know sockets or votes.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A process that speaks so long after its successor did is not one whose last words were late: a hello that takes
/// longer is given up (`HELLO_TIMEOUT`).
const LATE: Duration = Duration::from_secs(5);

/// For so long after an older process spoke a node counts as two.
const DOUBLE: Duration = Duration::from_secs(30);

/// For so long it is told that somebody was refused.
const TOLD: Duration = Duration::from_secs(10);

/// Processes remembered of each member.
const PROCESSES_MAX: usize = 8;

/// Somebody who shows a member's certificate and is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stray {
    /// The member.
    pub node: u64,
    /// Where the connection came from.
    pub from: IpAddr,
    /// Where it says it listens, if that is what is wrong; else it is a second process at the right place.
    pub listens: Option<SocketAddr>,
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct Doubles(Mutex<State>);

#[derive(Default)]
struct State {
    nodes: BTreeMap<u64, Processes>,
    strays: BTreeMap<u64, (Instant, Stray)>,
}

/// The processes of a node that were heard.
#[derive(Default)]
struct Processes {
    /// With the time of the first word, the newest last.
    known: VecDeque<(u64, Instant)>,
    /// When one that was succeeded spoke last.
    double: Option<Instant>,
}

impl Processes {
    /// Process `id` speaks. False if it has a successor.
    fn hear(&mut self, id: u64, now: Instant) -> bool {
        let newest = self.known.back().copied();
        match newest {
            Some((newest, _)) if newest == id => return true,
            Some((_, since)) if self.known.iter().any(|(known, _)| *known == id) => {
                if now - since >= LATE {
                    self.double = Some(now);
                }
                return false;
            }
            _ => {}
        }
        if self.known.len() == PROCESSES_MAX {
            self.known.pop_front();
        }
        self.known.push_back((id, now));
        true
    }

    fn is_double(&self, now: Instant) -> bool {
        self.double.is_some_and(|at| now - at < DOUBLE)
    }
}

impl Doubles {
    /// Process `id` of `node` speaks, at `now`. False if it has a successor: it is to be refused.
    pub(crate) fn hear(&self, node: u64, id: u64, now: Instant) -> bool {
        self.0.lock().nodes.entry(node).or_default().hear(id, now)
    }

    /// Whether two processes of a node run.
    pub(crate) fn is_double(&self, node: u64, now: Instant) -> bool {
        let state = self.0.lock();
        state.nodes.get(&node).is_some_and(|n| n.is_double(now))
    }

    /// Somebody was refused. Of a node that speaks at the right place only once it is known to be two.
    pub(crate) fn refused(&self, stray: Stray, now: Instant) {
        self.0.lock().strays.insert(stray.node, (now, stray));
    }

    /// Who was refused lately.
    pub(crate) fn strays(&self, now: Instant) -> Vec<Stray> {
        let state = self.0.lock();
        let told = |(at, stray): &(Instant, Stray)| {
            let limit = match stray.listens {
                Some(_) => TOLD,
                None => DOUBLE,
            };
            (now - *at < limit).then_some(*stray)
        };
        state.strays.values().filter_map(told).collect()
    }

    /// Forgets all but these nodes.
    pub(crate) fn keep(&self, ids: &[u64]) {
        let mut state = self.0.lock();
        state.nodes.retain(|id, _| ids.contains(id));
        state.strays.retain(|id, _| ids.contains(id));
    }
}

/// Why a process of `node` that listens at `listens` is refused, in words for both sides, if the cluster knows another
/// place of it.
pub(crate) fn elsewhere(
    node: u64,
    known: Option<SocketAddr>,
    listens: Option<SocketAddr>,
) -> Option<String> {
    let known = known.filter(|known| Some(*known) != listens)?;
    let listens = listens.map_or("nowhere".to_owned(), |at| at.to_string());
    Some(format!(
        "node {node} is a member at {known}, but this process of it listens at {listens}. Was its data directory copied? \
         Then stop the copy. Was cluster.address changed? Then set it back; for another address, remove the node and let \
         it join again"
    ))
}

/// Why a process with a successor is refused.
pub(crate) fn succeeded(node: u64) -> String {
    format!(
        "another process runs as node {node}, and was started later: was its machine or its data directory copied? Stop \
         one of the two; until then the vote of node {node} does not count"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_node_that_starts_again_and_again_is_never_two() {
        let doubles = Doubles::default();
        let mut now = Instant::now();
        for process in 0..100 {
            for _ in 0..3 {
                assert!(doubles.hear(2, process, now));
                now += SECOND * 7;
                assert!(!doubles.is_double(2, now));
            }
        }
        assert_eq!(doubles.0.lock().nodes[&2].known.len(), PROCESSES_MAX);
    }

    #[test]
    fn a_former_process_that_speaks_again_is_a_second_one() {
        let doubles = Doubles::default();
        let start = Instant::now();
        assert!(doubles.hear(2, 70, start));
        assert!(doubles.hear(2, 71, start + SECOND));
        // Words that were on their way when it ended.
        assert!(!doubles.hear(2, 70, start + SECOND * 2));
        assert!(!doubles.is_double(2, start + SECOND * 2));
        let back = start + SECOND * 60;
        assert!(!doubles.hear(2, 70, back));
        assert!(doubles.is_double(2, back) && !doubles.is_double(3, back));
        // The newer one may speak, but neither has a vote.
        assert!(doubles.hear(2, 71, back + SECOND));
        assert!(doubles.is_double(2, back + DOUBLE - SECOND));
        assert!(!doubles.is_double(2, back + DOUBLE));
        doubles.keep(&[1, 3]);
        assert!(!doubles.is_double(2, back));
    }

    #[test]
    fn who_was_refused_is_told_for_a_while() {
        let doubles = Doubles::default();
        let start = Instant::now();
        let stray = Stray {
            node: 2,
            from: IpAddr::from([192, 0, 2, 9]),
            listens: Some(SocketAddr::from(([192, 0, 2, 9], 7400))),
        };
        doubles.refused(stray, start);
        assert_eq!(doubles.strays(start + TOLD - SECOND), [stray]);
        assert_eq!(doubles.strays(start + TOLD), []);
    }

    #[test]
    fn only_another_place_than_the_known_one_is_wrong() {
        let at = |last| Some(SocketAddr::from(([192, 0, 2, last], 7400)));
        assert_eq!(elsewhere(2, at(1), at(1)), None);
        assert_eq!(elsewhere(2, None, at(1)), None);
        let why = elsewhere(2, at(1), at(3)).unwrap();
        assert!(why.contains("192.0.2.1:7400") && why.contains("192.0.2.3:7400"));
        assert!(elsewhere(2, at(1), None).is_some());
    }
}
