//! Which addresses cost others something: connections that were ended to make room, and requests that were not taken in.
//!
//! Bounded: of more addresses than [`ADDRESSES_MAX`] those are forgotten that did something longest ago.
//!
//! It must not know why.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 64;

/// See the module's head comment.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    total: u64,
    by_address: BTreeMap<IpAddr, (u64, Instant)>,
}

/// What has happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Incidents {
    /// How often.
    pub total: u64,
    /// The address that most of it was about, how often, and how long ago it was the last time.
    pub most: Option<(IpAddr, u64, Duration)>,
}

impl Ledger {
    /// Something happened that was about `address`.
    pub fn note(&self, address: IpAddr, now: Instant) {
        let mut state = self.state.lock();
        state.total += 1;
        let known = &mut state.by_address;
        if known.len() >= ADDRESSES_MAX && !known.contains_key(&address) {
            let oldest = known.iter().min_by_key(|(_, (_, at))| *at);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                known.remove(&oldest);
            }
        }
        let (count, at) = known.entry(address).or_insert((0, now));
        (*count, *at) = (*count + 1, now);
    }

    /// What has happened.
    pub fn read(&self, now: Instant) -> Incidents {
        let state = self.state.lock();
        let most = state.by_address.iter().max_by_key(|(_, (count, _))| *count);
        Incidents {
            total: state.total,
            most: most.map(|(address, (count, at))| {
                (*address, *count, now.saturating_duration_since(*at))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_address_that_does_most_is_named_and_no_crowd_makes_it_grow() {
        let (ledger, start) = (Ledger::default(), Instant::now());
        let address = |n: u32| IpAddr::from(Ipv4Addr::from_bits(n));
        for n in 0..1_000 {
            let now = start + Duration::from_secs(n.into());
            ledger.note(address(n), now);
            ledger.note(address(7), now);
        }
        let incidents = ledger.read(start + Duration::from_secs(1_000));
        assert_eq!(incidents.total, 2_000);
        let (worst, count, ago) = incidents.most.unwrap();
        assert_eq!((worst, count), (address(7), 1_001));
        assert_eq!(ago, Duration::from_secs(1));
        assert_eq!(ledger.state.lock().by_address.len(), ADDRESSES_MAX);
    }
}
