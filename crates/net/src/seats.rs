//! The places that connections take: how many there are, in all and of each address, and who gives way.
//!
//! Invariants
//! - A connection keeps its place until the last of its requests is done, also when it has ended before.
//! - When all places are taken, the connection that has been idle for longest gives way: of the address that wants
//!   another one, or, if it is the server that is full, of the address that has most, if that has more than the one that
//!   wants one. A client that vanished holds nobody up, and a crowd from one address does not push others out.
//! - Those that were told to go and have not gone are few.
//!
//! It must not know sockets.

use crate::party::{Farewell, Party};
use crate::{Endpoint, Limits};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Connections that were told to give way and have not ended yet, at most.
const LEAVING_MAX: usize = 64;

/// See the module's head comment.
#[derive(Debug)]
pub(crate) struct Seats {
    epoch: Instant,
    /// Connections are numbered from 1 on, in the order in which they come.
    next: u64,
    /// Connections that have not ended.
    open: BTreeMap<u64, Endpoint>,
    /// Places that are taken, by address and number.
    taken: BTreeMap<IpAddr, BTreeMap<u64, Arc<Party>>>,
    count: usize,
    /// Places that are given up but not left.
    leaving: usize,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooMany {
    /// All places are taken.
    InAll,
    /// Those of this address are.
    FromOne,
}

/// Who takes a place.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The connection.
    pub party: Arc<Party>,
    /// Where it learns that it is to end.
    pub told: oneshot::Receiver<Farewell>,
    /// Whether another one gives way to it.
    pub pushed: bool,
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            next: 1,
            open: BTreeMap::new(),
            taken: BTreeMap::new(),
            count: 0,
            leaving: 0,
        }
    }
}

impl Seats {
    /// Takes a place.
    pub fn take(&mut self, endpoint: Endpoint, limits: &Limits) -> Result<Taken, TooMany> {
        let address = endpoint.remote.ip().to_canonical();
        let mut pushed = false;
        if self.of(address) >= limits.connections_per_address_max {
            self.push(address).ok_or(TooMany::FromOne)?;
            pushed = true;
        }
        if self.count >= limits.connections_max {
            let fullest = self.taken.iter().max_by_key(|(_, own)| own.len());
            let fullest = fullest.map(|(address, own)| (*address, own.len()));
            let fair = fullest.filter(|(_, count)| *count > self.of(address) + 1);
            let (from, _) = fair.ok_or(TooMany::InAll)?;
            self.push(from).ok_or(TooMany::InAll)?;
            pushed = true;
        }
        let number = self.next;
        self.next += 1;
        let (party, told) = Party::new(number, address, self.epoch);
        let party = Arc::new(party);
        self.open.insert(number, endpoint);
        let own = self.taken.entry(address).or_default();
        own.insert(number, Arc::clone(&party));
        self.count += 1;
        Ok(Taken {
            party,
            told,
            pushed,
        })
    }

    fn of(&self, address: IpAddr) -> usize {
        self.taken.get(&address).map_or(0, BTreeMap::len)
    }

    /// Makes the connection of an address give way that has been idle for longest, if there is one.
    fn push(&mut self, address: IpAddr) -> Option<()> {
        if self.leaving >= LEAVING_MAX {
            return None;
        }
        let own = self.taken.get(&address)?.values();
        let idle = own.filter_map(|party| Some((party.idle_since()?, party)));
        let (_, party) = idle.min_by_key(|(since, _)| *since)?;
        let number = party.number;
        party.tell(Farewell::GaveWay);
        self.vacate(address, number);
        self.leaving += 1;
        Some(())
    }

    fn vacate(&mut self, address: IpAddr, number: u64) -> bool {
        let Some(own) = self.taken.get_mut(&address) else {
            return false;
        };
        let had = own.remove(&number).is_some();
        if own.is_empty() {
            self.taken.remove(&address);
        }
        self.count -= usize::from(had);
        had
    }

    /// The connection has ended.
    pub fn leave(&mut self, party: &Party) {
        self.open.remove(&party.number);
    }

    /// Its place is free.
    pub fn free(&mut self, party: &Party) {
        if !self.vacate(party.address, party.number) {
            self.leaving -= 1;
        }
    }

    /// Connections that have not ended, by number.
    pub fn open(&self) -> impl Iterator<Item = (u64, Endpoint)> {
        self.open.iter().map(|(number, ends)| (*number, *ends))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn from(remote: &str) -> Endpoint {
        Endpoint {
            local: "192.0.2.1:2049".parse().unwrap(),
            remote: remote.parse().unwrap(),
        }
    }

    fn limits(connections_max: usize, connections_per_address_max: usize) -> Limits {
        Limits {
            connections_max,
            connections_per_address_max,
            ..Limits::default()
        }
    }

    /// Takes a place and keeps it busy.
    fn busy(seats: &mut Seats, remote: &str, limits: &Limits) -> Result<Taken, TooMany> {
        let taken = seats.take(from(remote), limits)?;
        taken.party.works();
        Ok(taken)
    }

    fn end(seats: &mut Seats, taken: &Taken) {
        seats.leave(&taken.party);
        seats.free(&taken.party);
    }

    #[test]
    fn one_address_cannot_take_all_connections() {
        let limits = limits(5, 2);
        let mut seats = Seats::default();
        let first = busy(&mut seats, "192.0.2.7:1", &limits).unwrap();
        let mut others = vec![busy(&mut seats, "[::ffff:192.0.2.7]:2", &limits).unwrap()];
        let third = busy(&mut seats, "192.0.2.7:3", &limits);
        assert_eq!(third.unwrap_err(), TooMany::FromOne);
        others.push(busy(&mut seats, "192.0.2.8:1", &limits).unwrap());
        end(&mut seats, &first);
        others.push(busy(&mut seats, "192.0.2.7:3", &limits).unwrap());
        for taken in &others {
            end(&mut seats, taken);
        }
        assert!(seats.open.is_empty() && seats.taken.is_empty());
        assert_eq!((seats.count, seats.leaving), (0, 0));
        for n in 1..=5 {
            busy(&mut seats, &format!("192.0.2.{n}:1"), &limits).unwrap();
        }
        let sixth = busy(&mut seats, "192.0.2.9:1", &limits);
        assert_eq!(sixth.unwrap_err(), TooMany::InAll);
    }

    #[test]
    fn of_an_address_that_has_all_its_places_the_oldest_idle_connection_gives_way() {
        let limits = limits(10, 3);
        let mut seats = Seats::default();
        let start = seats.epoch;
        let mut own: Vec<_> = (1..=3)
            .map(|port| {
                seats
                    .take(from(&format!("192.0.2.7:{port}")), &limits)
                    .unwrap()
            })
            .collect();
        for (place, secs) in [(0, 3), (1, 1), (2, 2)] {
            own[place].party.rests(start + Duration::from_secs(secs));
        }
        // The second one has rested for longest, then the third; the first one works again.
        own[0].party.works();
        for place in [1, 2] {
            let taken = busy(&mut seats, "192.0.2.7:9", &limits).unwrap();
            assert!(taken.pushed);
            assert_eq!(own[place].told.try_recv(), Ok(Farewell::GaveWay));
        }
        assert!(own[0].told.try_recv().is_err(), "it is not idle");
        let none = busy(&mut seats, "192.0.2.7:9", &limits);
        assert_eq!(none.unwrap_err(), TooMany::FromOne);
        assert_eq!((seats.count, seats.leaving), (3, 2));
        end(&mut seats, &own[1]);
        end(&mut seats, &own[2]);
        assert_eq!((seats.count, seats.leaving), (3, 0));
    }

    #[test]
    fn a_full_server_takes_a_place_from_whoever_has_most_of_them() {
        let limits = limits(4, 3);
        let mut seats = Seats::default();
        let mut crowd: Vec<_> = (1..=3)
            .map(|port| {
                seats
                    .take(from(&format!("192.0.2.7:{port}")), &limits)
                    .unwrap()
            })
            .collect();
        let mut one = seats.take(from("192.0.2.8:1"), &limits).unwrap();
        let another = seats.take(from("192.0.2.8:2"), &limits);
        let why = "it would have as many as the other then has";
        assert!(another.is_ok(), "{why}");
        assert_eq!(crowd[0].told.try_recv(), Ok(Farewell::GaveWay));
        let third = seats.take(from("192.0.2.8:3"), &limits);
        assert_eq!(third.unwrap_err(), TooMany::InAll, "and not more");
        assert!(one.told.try_recv().is_err());
    }

    #[test]
    fn few_are_on_their_way_out_at_a_time() {
        let limits = limits(1_000, 1);
        let mut seats = Seats::default();
        let mut all = vec![seats.take(from("192.0.2.7:1"), &limits).unwrap()];
        for _ in 0..LEAVING_MAX {
            all.push(seats.take(from("192.0.2.7:1"), &limits).unwrap());
        }
        let more = seats.take(from("192.0.2.7:1"), &limits);
        assert_eq!(more.unwrap_err(), TooMany::FromOne);
        end(&mut seats, &all[0]);
        assert!(seats.take(from("192.0.2.7:1"), &limits).is_ok());
    }
}
