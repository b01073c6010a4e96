//! When whom to tickle: at once, and again, slower and slower, until its keepalive would have made it look for itself.
//!
//! Pure: time is passed in, in milliseconds of a clock that never jumps.
//!
//! Invariant: as many as there are connections to be tickled, each at most once in a round.

use haven_net::Endpoint;
use std::collections::BTreeMap;

/// From the node that has the addresses: when the rounds come, counted from their coming up. A client's TCP answers
/// such segments only once in half a second, so the early ones are for those that were lost.
pub(super) const SERVING_MS: &[u64] = &[
    0, 100, 300, 600, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 45_000, 60_000, 75_000,
];
/// From a node that fell silent, for those of its clients that whoever serves next may not know of: what a client
/// answers goes to whoever has the address by then. Late enough to leave that node's first tickles alone.
pub(super) const SILENT_MS: &[u64] = &[1_200, 2_400, 4_800, 9_600, 20_000, 40_000, 70_000];

/// Where one connection stands.
#[derive(Debug, Clone, Copy)]
struct Turn {
    began_ms: u64,
    round: usize,
}

/// The connections to be tickled.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    plan: &'static [u64],
    turns: BTreeMap<Endpoint, Turn>,
    /// No turn comes before.
    next_ms: Option<u64>,
}

impl Rounds {
    /// Begins anew with these.
    pub(super) fn begin(
        &mut self,
        plan: &'static [u64],
        connections: impl IntoIterator<Item = Endpoint>,
        now_ms: u64,
    ) {
        (self.plan, self.next_ms) = (plan, None);
        self.turns.clear();
        for connection in connections {
            self.add(connection, now_ms);
        }
    }

    /// One more, which begins now, unless it is among them.
    pub(super) fn add(&mut self, connection: Endpoint, now_ms: u64) {
        let Some(first_ms) = self.plan.first() else {
            return;
        };
        let turn = Turn {
            began_ms: now_ms,
            round: 0,
        };
        self.turns.entry(connection).or_insert(turn);
        let due_ms = now_ms + first_ms;
        self.next_ms = Some(self.next_ms.map_or(due_ms, |next_ms| next_ms.min(due_ms)));
    }

    /// This one has been seen.
    pub(super) fn strike(&mut self, connection: &Endpoint) {
        self.turns.remove(connection);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }

    /// Those that are under way.
    pub(super) fn connections(&self) -> impl Iterator<Item = Endpoint> {
        self.turns.keys().copied()
    }

    /// When to ask for [`Rounds::due`] next; `None`: not before something changes.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.next_ms.filter(|_| !self.turns.is_empty())
    }

    /// Whom to tickle now, at most so many; the others with the next call. And those whose last round it is.
    pub(super) fn due(&mut self, now_ms: u64, max: usize) -> (Vec<Endpoint>, Vec<Endpoint>) {
        let (mut due, mut over) = (Vec::new(), Vec::new());
        let mut next_ms = None;
        for (connection, turn) in &mut self.turns {
            let Some(offset_ms) = self.plan.get(turn.round) else {
                continue;
            };
            let mut due_ms = turn.began_ms + offset_ms;
            if due_ms <= now_ms && due.len() < max {
                due.push(*connection);
                // Those that were missed come together with this one.
                let passed_ms = now_ms - turn.began_ms;
                turn.round = self.plan.partition_point(|offset| *offset <= passed_ms);
                match self.plan.get(turn.round) {
                    Some(offset_ms) => due_ms = turn.began_ms + offset_ms,
                    None => {
                        over.push(*connection);
                        continue;
                    }
                }
            }
            next_ms = Some(next_ms.map_or(due_ms, |next: u64| next.min(due_ms)));
        }
        for connection in &over {
            self.turns.remove(connection);
        }
        self.next_ms = next_ms;
        (due, over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint {
            local: "192.0.2.100:2049".parse().unwrap(),
            remote: ([192, 0, 2, 7], port).into(),
        }
    }

    #[test]
    fn each_is_tickled_in_each_round_and_no_more_when_its_keepalive_is_over() {
        for plan in [SERVING_MS, SILENT_MS] {
            let mut rounds = Rounds::default();
            rounds.begin(plan, [endpoint(1)], 1_000);
            let mut times = Vec::new();
            while let Some(next_ms) = rounds.next_ms() {
                if next_ms > 0 {
                    assert!(rounds.due(next_ms - 1, 9).0.is_empty());
                }
                let (due, over) = rounds.due(next_ms, 9);
                assert_eq!(due, [endpoint(1)]);
                times.push(next_ms - 1_000);
                assert_eq!(over.is_empty(), rounds.len() > 0);
            }
            assert_eq!(times, plan);
            // A Linux client's keepalive: 60 s, and what it takes to notice.
            assert!(plan.last() >= Some(&70_000));
        }
    }

    #[test]
    fn late_ones_begin_by_themselves_and_those_seen_are_left_alone() {
        let mut rounds = Rounds::default();
        rounds.add(endpoint(9), 0);
        assert_eq!(rounds.next_ms(), None, "nobody is tickled before it begins");
        rounds.begin(SERVING_MS, [endpoint(1), endpoint(2)], 0);
        assert_eq!(rounds.due(0, 9).0.len(), 2);
        rounds.strike(&endpoint(1));
        rounds.add(endpoint(3), 50);
        rounds.add(endpoint(2), 50);
        assert_eq!(rounds.due(50, 9).0, [endpoint(3)]);
        assert_eq!(rounds.due(100, 9).0, [endpoint(2)]);
        assert_eq!(rounds.due(150, 9).0, [endpoint(3)]);
    }

    #[test]
    fn a_round_may_take_several_calls_and_missed_ones_are_not_made_up() {
        let mut rounds = Rounds::default();
        rounds.begin(SERVING_MS, (0..25).map(endpoint), 0);
        let mut all = Vec::new();
        while rounds.next_ms() <= Some(5) {
            all.extend(rounds.due(5, 10).0);
        }
        assert_eq!(all, (0..25).map(endpoint).collect::<Vec<_>>());
        assert_eq!(rounds.due(5_000, 99).0.len(), 25);
        assert_eq!(rounds.next_ms(), Some(8_000));
    }
}
