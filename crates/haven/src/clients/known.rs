//! Who is connected to the service's addresses, here or at another node, or was until lately: whom to make reconnect.
//!
//! A client whose connection ended without its hearing of it waits for its keepalive, a minute. So whoever was connected is
//! remembered until it has been seen again, or until the service has been there for longer than a keepalive takes.
//! Time in which nobody serves does not count.
//!
//! Pure: time is passed in, in milliseconds of a clock that never jumps.
//!
//! Invariants: at most [`KNOWN_MAX`] are remembered beside those that are told as living; the longest gone are forgotten
//! first. What is told in an older term than the newest is no living connection of the service.

use super::rounds::{Rounds, SERVING_MS, SILENT_MS};
use haven_net::Endpoint;
use std::collections::{BTreeMap, BTreeSet};

/// So many connections that are over are remembered.
pub(super) const KNOWN_MAX: usize = 1 << 17;
/// A connection that was over for so long while the service was there concerns nobody any more.
const CONCERN_MS: u64 = 90_000;

/// What another node says of its connections.
#[derive(Debug, Default)]
struct Table {
    term: u64,
    parts: BTreeMap<u16, Vec<Endpoint>>,
}

/// See the module's head comment.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Living connections of this node, and how often each (an old one may be on its way out).
    here: BTreeMap<Endpoint, usize>,
    tables: BTreeMap<u64, Table>,
    /// Connections that are over, and when they were: by `served_ms`.
    past: BTreeMap<Endpoint, u64>,
    /// How long the service has been there, here or elsewhere.
    served_ms: u64,
    newest_term: u64,
    serving: bool,
    rounds: Rounds,
    /// Rises with every change of who is known.
    changes: u64,
}

impl Known {
    /// Those that an earlier process knew.
    pub(super) fn recall(&mut self, connections: impl IntoIterator<Item = Endpoint>) {
        for connection in connections {
            self.past.insert(connection, self.served_ms);
        }
        self.trim();
    }

    /// A connection to this node lives: its client has been seen.
    pub(super) fn joined(&mut self, connection: Endpoint) {
        *self.here.entry(connection).or_default() += 1;
        self.past.remove(&connection);
        self.rounds.strike(&connection);
        self.changes += 1;
    }

    /// One is over. Whether its client knows is not known.
    pub(super) fn left(&mut self, connection: Endpoint) {
        let Some(count) = self.here.get_mut(&connection) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.here.remove(&connection);
            self.past.insert(connection, self.served_ms);
            self.trim();
        }
        self.changes += 1;
    }

    /// What `node` says of its connections in `term`: this part of them.
    pub(super) fn told(
        &mut self,
        node: u64,
        term: u64,
        part: u16,
        connections: Vec<Endpoint>,
        now_ms: u64,
    ) {
        self.changes += 1;
        if term < self.newest_term {
            // A former leader that is back. They are over for the service, but its clients may not know.
            self.lose(connections, now_ms);
            return;
        }
        self.reach(term, now_ms);
        let table = self.tables.entry(node).or_default();
        let mut gone = Vec::new();
        if table.term != term {
            table.term = term;
            gone.extend(std::mem::take(&mut table.parts).into_values().flatten());
        }
        gone.extend(table.parts.remove(&part).unwrap_or_default());
        let living: BTreeSet<Endpoint> = connections.iter().copied().collect();
        if !connections.is_empty() {
            table.parts.insert(part, connections);
        }
        self.lose(gone.into_iter().filter(|c| !living.contains(c)), now_ms);
        for connection in &living {
            // It has been seen, there.
            self.past.remove(connection);
            self.rounds.strike(connection);
        }
    }

    /// `node` has no connections in this part any more.
    pub(super) fn emptied(&mut self, node: u64, part: u16, now_ms: u64) {
        let table = self.tables.get_mut(&node);
        if let Some(gone) = table.and_then(|table| table.parts.remove(&part)) {
            self.changes += 1;
            self.lose(gone, now_ms);
        }
    }

    /// Nodes other than these are no members any more.
    pub(super) fn keep_members(&mut self, members: &[u64], now_ms: u64) {
        let gone = |id: &u64| !members.contains(id);
        let gone: Vec<u64> = self.tables.keys().copied().filter(gone).collect();
        for id in gone {
            self.drop_table(id, now_ms);
        }
    }

    /// This node has the addresses, in `term`: all are to be tickled. Gives how many.
    pub(super) fn serve(&mut self, term: u64, now_ms: u64) -> usize {
        self.reach(term, now_ms);
        // As the leader of this term, nobody else has living connections.
        let others: Vec<u64> = self.tables.keys().copied().collect();
        for id in others {
            self.drop_table(id, now_ms);
        }
        self.serving = true;
        // Connections that live on here are among them: a tickle does them no harm, and what it makes the client say
        // makes our TCP send again what it had sent in vain.
        let all: Vec<Endpoint> = self.past.keys().chain(self.here.keys()).copied().collect();
        self.rounds.begin(SERVING_MS, all, now_ms);
        self.rounds.len()
    }

    /// This node is silent from now on, and has no address. It goes on telling those clients that it may be alone to know,
    /// in vain or not, until somebody else serves them.
    pub(super) fn silence(&mut self, now_ms: u64) {
        let mut all: BTreeSet<Endpoint> = self.here.keys().copied().collect();
        all.extend(self.rounds.connections());
        self.serving = false;
        self.rounds.begin(SILENT_MS, all, now_ms);
    }

    /// Whom to tickle now; at most so many, the others with the next call.
    pub(super) fn due(&mut self, now_ms: u64, max: usize) -> Vec<Endpoint> {
        let (due, over) = self.rounds.due(now_ms, max);
        for connection in over.iter().filter(|_| self.serving) {
            self.past.remove(connection);
            self.changes += 1;
        }
        due
    }

    /// When to ask for that.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.rounds.next_ms()
    }

    /// The service has been there for so long again.
    pub(super) fn pass(&mut self, ms: u64) {
        self.served_ms += ms;
        let before = self.past.len();
        let served_ms = self.served_ms;
        self.past
            .retain(|_, since_ms| served_ms - *since_ms < CONCERN_MS);
        self.changes += u64::from(self.past.len() != before);
    }

    /// All that are known: first those that live, then those that are over, the last ones first.
    pub(super) fn everybody(&self) -> Vec<Endpoint> {
        let told = self
            .tables
            .values()
            .flat_map(|t| t.parts.values().flatten());
        let living: BTreeSet<Endpoint> = self.here.keys().chain(told).copied().collect();
        let over = self.past.iter().filter(|(c, _)| !living.contains(c));
        let mut over: Vec<(u64, Endpoint)> = over.map(|(c, since_ms)| (*since_ms, *c)).collect();
        over.sort_unstable_by(|a, b| b.cmp(a));
        let over = over.into_iter().map(|(_, connection)| connection);
        living.iter().copied().chain(over).collect()
    }

    /// Another number whenever [`Known::everybody`] may have changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// A term has a leader that serves: what was told in earlier ones is over.
    fn reach(&mut self, term: u64, now_ms: u64) {
        if term <= self.newest_term {
            return;
        }
        self.newest_term = term;
        let older: Vec<u64> = self
            .tables
            .iter()
            .filter(|(_, t)| t.term < term)
            .map(|(id, _)| *id)
            .collect();
        for id in older {
            self.drop_table(id, now_ms);
        }
    }

    fn drop_table(&mut self, node: u64, now_ms: u64) {
        if let Some(table) = self.tables.remove(&node) {
            self.changes += 1;
            self.lose(table.parts.into_values().flatten(), now_ms);
        }
    }

    /// These are over elsewhere.
    fn lose(&mut self, connections: impl IntoIterator<Item = Endpoint>, now_ms: u64) {
        for connection in connections {
            if self.here.contains_key(&connection) {
                continue;
            }
            self.past.insert(connection, self.served_ms);
            if self.serving {
                self.rounds.add(connection, now_ms);
            }
        }
        self.trim();
    }

    fn trim(&mut self) {
        let Some(excess) = self.past.len().checked_sub(KNOWN_MAX).filter(|n| *n > 0) else {
            return;
        };
        let mut oldest: Vec<(u64, Endpoint)> =
            self.past.iter().map(|(c, since)| (*since, *c)).collect();
        oldest.select_nth_unstable(excess - 1);
        for (_, connection) in &oldest[..excess] {
            self.past.remove(connection);
            self.rounds.strike(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(port: u16) -> Endpoint {
        Endpoint {
            local: "192.0.2.100:2049".parse().unwrap(),
            remote: ([192, 0, 2, 7], port).into(),
        }
    }

    fn numbered(n: u32) -> Endpoint {
        let [_, a, b, c] = n.to_be_bytes();
        Endpoint {
            local: "192.0.2.100:2049".parse().unwrap(),
            remote: ([10, a, b, c], 700).into(),
        }
    }

    fn ports(connections: &[Endpoint]) -> Vec<u16> {
        let mut ports: Vec<u16> = connections.iter().map(|c| c.remote.port()).collect();
        ports.sort_unstable();
        ports
    }

    /// Whom it tickles at once when it serves.
    fn first(known: &mut Known, term: u64, now_ms: u64) -> Vec<u16> {
        known.serve(term, now_ms);
        ports(&known.due(now_ms, 99))
    }

    #[test]
    fn the_next_leader_tickles_whom_the_last_one_told_of() {
        let mut known = Known::default();
        known.told(1, 5, 0, vec![client(1), client(2)], 0);
        known.told(1, 5, 3, vec![client(3)], 0);
        // One has gone by itself, but perhaps it was the leader's end that it did not hear of.
        known.told(1, 5, 0, vec![client(1)], 10);
        assert_eq!(first(&mut known, 6, 1_000), [1, 2, 3]);
        known.joined(client(1));
        assert_eq!(ports(&known.due(1_100, 99)), [2, 3], "one has been seen");
    }

    #[test]
    fn a_leader_tickles_those_that_it_had_itself_before() {
        let mut known = Known::default();
        known.serve(5, 0);
        known.joined(client(1));
        known.joined(client(2));
        assert_eq!(known.next_due_ms(), None);
        known.silence(1_000);
        known.left(client(1));
        assert_eq!(first(&mut known, 5, 1_300), [1, 2], "the gone and the kept");
        known.left(client(2));
        known.joined(client(2));
        assert_eq!(ports(&known.due(1_400, 99)), [1]);
    }

    #[test]
    fn a_connection_that_its_client_opened_anew_is_one_and_lives() {
        let mut known = Known::default();
        known.serve(5, 0);
        known.joined(client(1));
        known.joined(client(1));
        known.left(client(1));
        known.told(2, 4, 0, vec![client(1)], 0);
        assert_eq!(known.next_due_ms(), None);
        assert_eq!(known.everybody(), [client(1)]);
    }

    #[test]
    fn whom_a_former_leader_knew_alone_is_tickled_as_soon_as_it_says_so() {
        let mut known = Known::default();
        known.serve(6, 0);
        assert_eq!(known.next_due_ms(), None);
        // It was cut off with clients that connected at the last moment.
        known.told(1, 5, 0, vec![client(8)], 2_000);
        assert_eq!(known.next_due_ms(), Some(2_000));
        assert_eq!(ports(&known.due(2_000, 99)), [8]);
        assert_eq!(ports(&known.due(2_100, 99)), [8]);
    }

    #[test]
    fn a_table_of_an_older_term_does_not_replace_a_newer_one() {
        let mut known = Known::default();
        known.told(1, 5, 0, vec![client(1)], 0);
        known.told(2, 6, 0, vec![client(2)], 0);
        known.told(1, 5, 0, vec![client(3)], 0);
        // All of them may wait for somebody.
        assert_eq!(first(&mut known, 7, 0), [1, 2, 3]);
    }

    #[test]
    fn a_node_that_fell_silent_tells_its_clients_until_they_are_seen_elsewhere() {
        let mut known = Known::default();
        known.serve(5, 0);
        known.joined(client(1));
        known.joined(client(2));
        known.silence(1_000);
        known.left(client(1));
        known.left(client(2));
        assert_eq!(
            known.next_due_ms(),
            Some(2_200),
            "not before the next leader"
        );
        assert_eq!(ports(&known.due(2_200, 99)), [1, 2]);
        known.told(3, 6, 0, vec![client(1)], 2_300);
        assert_eq!(ports(&known.due(3_400, 99)), [2]);
    }

    #[test]
    fn nobody_is_forgotten_while_nobody_serves_and_all_are_when_someone_did_for_long() {
        let mut known = Known::default();
        known.recall([client(1)]);
        known.told(1, 5, 0, vec![client(2)], 0);
        known.told(2, 6, 0, vec![client(3)], 0);
        assert_eq!(ports(&known.everybody()), [1, 2, 3]);
        known.pass(CONCERN_MS - 1);
        assert_eq!(ports(&known.everybody()), [1, 2, 3]);
        known.pass(1);
        assert_eq!(ports(&known.everybody()), [3]);
        // Who was tickled to the end is forgotten as well.
        known.recall([client(4)]);
        known.serve(7, 0);
        while let Some(due_ms) = known.next_due_ms() {
            assert!(!known.due(due_ms, 99).is_empty());
        }
        assert!(known.everybody().is_empty());
    }

    #[test]
    fn what_a_node_has_no_more_is_not_forgotten_at_once() {
        let mut known = Known::default();
        known.told(1, 5, 0, vec![client(1)], 0);
        known.told(1, 5, 1, vec![client(2)], 0);
        known.emptied(1, 0, 10);
        known.emptied(1, 7, 10);
        known.emptied(9, 0, 10);
        assert_eq!(ports(&known.everybody()), [1, 2]);
        assert_eq!(first(&mut known, 6, 20), [1, 2]);
    }

    #[test]
    fn removed_members_are_forgotten_with_time() {
        let mut known = Known::default();
        known.told(1, 5, 0, vec![client(1)], 0);
        known.told(2, 5, 0, vec![client(2)], 0);
        known.keep_members(&[2, 3], 0);
        known.pass(CONCERN_MS);
        assert_eq!(ports(&known.everybody()), [2]);
    }

    #[test]
    fn a_hundred_thousand_are_remembered_and_the_longest_gone_are_forgotten_first() {
        let mut known = Known::default();
        known.recall([client(1)]);
        known.pass(10);
        let many = 0..u32::try_from(KNOWN_MAX).unwrap();
        known.recall(many.map(numbered));
        assert_eq!(known.everybody().len(), KNOWN_MAX);
        assert!(!known.everybody().contains(&client(1)));
        assert_eq!(known.serve(1, 0), KNOWN_MAX);
    }

    #[test]
    fn every_change_of_who_is_known_is_noted() {
        let mut known = Known::default();
        let mut seen = (known.everybody(), known.changes());
        let mut step = |known: &Known| {
            let now = (known.everybody(), known.changes());
            assert!(now.0 == seen.0 || now.1 != seen.1);
            seen = now;
        };
        known.joined(client(1));
        step(&known);
        known.left(client(1));
        step(&known);
        known.told(2, 1, 0, vec![client(2)], 0);
        step(&known);
        known.told(2, 1, 1, vec![client(4)], 0);
        step(&known);
        known.emptied(2, 1, 0);
        step(&known);
        known.keep_members(&[], 0);
        step(&known);
        known.serve(2, 0);
        step(&known);
        known.due(1_000_000, 99);
        step(&known);
        known.recall([client(3)]);
        known.pass(CONCERN_MS);
        step(&known);
    }
}
