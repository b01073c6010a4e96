//! This node's living connections, divided into parts of bounded size that are told one by one.
//!
//! A connection stays in its part, so that one that comes or goes changes one part only.
//!
//! Pure.
//!
//! Invariants: no more parts than [`PARTS_MAX`], none with more than [`CONNECTIONS_PER_TABLE_MAX`]. Connections beyond that
//! are not told.

use haven_net::{CONNECTIONS_PER_TABLE_MAX, Endpoint};
use std::collections::{BTreeMap, BTreeSet};

/// So many parts: enough for 131,072 connections.
pub(super) const PARTS_MAX: u16 = 1 << 10;

/// See the module's head comment.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// By its number: the connection, and its place if it has one.
    at: BTreeMap<u64, (Endpoint, Option<usize>)>,
    places: Vec<Option<Endpoint>>,
    free: BTreeSet<usize>,
}

/// What is different now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) joined: Vec<Endpoint>,
    pub(super) left: Vec<Endpoint>,
    /// Parts that have changed.
    pub(super) parts: BTreeSet<u16>,
}

impl Parts {
    /// Takes over who is connected now, by numbers that are never used again.
    pub(super) fn update(&mut self, now: &BTreeMap<u64, Endpoint>) -> Change {
        let mut change = Change::default();
        let gone = self.at.keys().filter(|id| !now.contains_key(id));
        for id in gone.copied().collect::<Vec<_>>() {
            let Some((connection, place)) = self.at.remove(&id) else {
                continue;
            };
            change.left.push(connection);
            if let Some(place) = place {
                self.places[place] = None;
                self.free.insert(place);
                change.parts.insert(part_of(place));
            }
        }
        for (id, connection) in now {
            if self.at.contains_key(id) {
                continue;
            }
            change.joined.push(*connection);
            let place = self.take_place(*connection);
            change.parts.extend(place.map(part_of));
            self.at.insert(*id, (*connection, place));
        }
        change
    }

    fn take_place(&mut self, connection: Endpoint) -> Option<usize> {
        if let Some(place) = self.free.pop_first() {
            self.places[place] = Some(connection);
            return Some(place);
        }
        let room = usize::from(PARTS_MAX) * CONNECTIONS_PER_TABLE_MAX;
        (self.places.len() < room).then(|| {
            self.places.push(Some(connection));
            self.places.len() - 1
        })
    }

    /// A part's connections.
    pub(super) fn part(&self, part: u16) -> Vec<Endpoint> {
        let start = usize::from(part) * CONNECTIONS_PER_TABLE_MAX;
        let places = self.places.iter().skip(start);
        places
            .take(CONNECTIONS_PER_TABLE_MAX)
            .flatten()
            .copied()
            .collect()
    }

    /// All parts that there ever were.
    pub(super) fn all(&self) -> BTreeSet<u16> {
        (0..self.places.len())
            .step_by(CONNECTIONS_PER_TABLE_MAX)
            .map(part_of)
            .collect()
    }
}

fn part_of(place: usize) -> u16 {
    // There are no places beyond the last part.
    u16::try_from(place / CONNECTIONS_PER_TABLE_MAX).unwrap_or(PARTS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(n: u64) -> Endpoint {
        let n = u32::try_from(n).unwrap();
        let [a, b, c, d] = n.to_be_bytes();
        Endpoint {
            local: "192.0.2.100:2049".parse().unwrap(),
            remote: ([10 + a, b, c, d], 700).into(),
        }
    }

    fn connected(ids: impl IntoIterator<Item = u64>) -> BTreeMap<u64, Endpoint> {
        ids.into_iter().map(|id| (id, numbered(id))).collect()
    }

    fn told(parts: &Parts) -> BTreeSet<Endpoint> {
        let all = parts.all().into_iter();
        all.flat_map(|part| parts.part(part)).collect()
    }

    #[test]
    fn one_that_comes_or_goes_changes_one_part() {
        let per_part = CONNECTIONS_PER_TABLE_MAX as u64;
        let mut parts = Parts::default();
        let mut now = connected(0..per_part * 3);
        let change = parts.update(&now);
        assert_eq!(change.joined.len(), now.len());
        assert_eq!(change.parts, BTreeSet::from([0, 1, 2]));
        assert_eq!(parts.update(&now), Change::default());
        now.remove(&(per_part + 5));
        let change = parts.update(&now);
        assert_eq!(change.left, [numbered(per_part + 5)]);
        assert_eq!(change.parts, BTreeSet::from([1]));
        // Its place is the next one's.
        now.insert(9_999, numbered(9_999));
        assert_eq!(parts.update(&now).parts, BTreeSet::from([1]));
        assert_eq!(told(&parts), now.values().copied().collect());
        parts.update(&BTreeMap::new());
        assert!(told(&parts).is_empty() && parts.all().len() == 3);
    }

    #[test]
    fn a_hundred_thousand_are_told_and_those_beyond_the_last_part_are_known_all_the_same() {
        let mut parts = Parts::default();
        let room = u64::from(PARTS_MAX) * CONNECTIONS_PER_TABLE_MAX as u64;
        assert!(room >= 100_000);
        let now = connected(0..room + 10);
        assert_eq!(parts.update(&now).joined.len(), now.len());
        assert_eq!(told(&parts).len() as u64, room);
        assert_eq!(parts.all().len(), usize::from(PARTS_MAX));
        let change = parts.update(&connected(10..room + 10));
        assert_eq!((change.left.len(), change.joined.len()), (10, 0));
        let change = parts.update(&BTreeMap::new());
        assert_eq!(change.left.len() as u64, room);
    }
}
