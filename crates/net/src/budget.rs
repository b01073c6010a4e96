//! Memory that connections share: who has how much, who waits for some, and who has to give way.
//!
//! Rules
//! - No address gets more than it leaves free: alone it has at most half, two have a third each, and whoever comes next
//!   finds room. An address that has nothing gets what it needs if it is there at all.
//! - Who comes first is served first, but an address that has its share holds up nobody but itself.
//! - What grows in pieces must not wait in a circle: it goes before what begins, and one at a time may grow beyond the
//!   budget. So the sum is at most the budget and the largest of what grows.
//! - When somebody has waited for [`SHORT`], connections whose peers have stood still for as long are ended, those that
//!   have done so for longest first, until there would be room for all that wait.
//!
//! It must not know what the memory is for, nor sockets; time is passed in.

use crate::party::{Farewell, Party};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long one waits before others have to give way, and how long these have stood still by then.
pub(crate) const SHORT: Duration = Duration::from_secs(1);
/// How often at most it is looked who has to give way.
const RELIEF_PAUSE: Duration = Duration::from_millis(100);
/// Up to this part of the budget (one in so many) an address gets more than it needs at once.
const ROOMY: usize = 16;

/// See the module's head comment.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    holders: BTreeMap<u64, Holder>,
    accounts: BTreeMap<IpAddr, Account>,
    /// The addresses that wait, by the place of their first waiter.
    fronts: BTreeMap<Place, IpAddr>,
    next_ticket: u64,
    /// Somebody waits for memory that no address's share stands in the way of: nobody may overtake.
    is_short: bool,
    /// The connection that has grown beyond the budget.
    beyond: Option<u64>,
    relieved_at: Option<Instant>,
}

#[derive(Debug)]
struct Holder {
    party: Arc<Party>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Account {
    bytes: usize,
    waiters: BTreeMap<Place, Waiter>,
}

/// Where a waiter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    rank: Rank,
    ticket: u64,
}

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// What has gone beyond the budget: it has to be done before others may.
    Beyond,
    /// What has some already.
    Grows,
    /// What has none.
    Begins,
}

#[derive(Debug)]
struct Waiter {
    party: Arc<Party>,
    bytes: usize,
    to: oneshot::Sender<Permit>,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    /// The address has its share.
    Share,
    /// All is taken.
    All,
}

/// What a budget looks like at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BudgetUse {
    /// How much there is, in bytes.
    pub bytes_max: usize,
    /// How much of it is taken.
    pub bytes: usize,
    /// Connections that wait for some.
    pub waiting: usize,
    /// The address that has most, and how much.
    pub most: Option<(IpAddr, usize)>,
}

impl Budget {
    /// `bytes_max` in all.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            state: Mutex::default(),
        })
    }

    /// `most` bytes if there is plenty of room, else `least` if there is room, at once.
    pub fn try_take(
        self: &Arc<Self>,
        party: &Arc<Party>,
        least: usize,
        most: usize,
    ) -> Option<Permit> {
        let mut state = self.state.lock();
        let account = state.accounts.get(&party.address);
        let (held, waits) = account.map_or((0, false), |a| (a.bytes, !a.waiters.is_empty()));
        if waits || state.is_short {
            return None;
        }
        let roomy =
            held + most <= self.bytes_max / ROOMY && state.used + most <= self.bytes_max / 2;
        let bytes = if roomy { most } else { least };
        self.fits(&state, party.address, bytes).ok()?;
        Some(self.hand_out(&mut state, party, bytes))
    }

    /// `bytes`, as soon as there is room; in addition to `grows`, if that is given.
    pub fn wait(
        self: &Arc<Self>,
        party: &Arc<Party>,
        bytes: usize,
        grows: Option<&Permit>,
    ) -> Waiting {
        let (to, granted) = oneshot::channel();
        let mut state = self.state.lock();
        let rank = match grows {
            None => Rank::Begins,
            Some(permit) if permit.is_beyond => Rank::Beyond,
            Some(_) => Rank::Grows,
        };
        let place = Place {
            rank,
            ticket: state.next_ticket,
        };
        state.next_ticket += 1;
        let waiter = Waiter {
            party: Arc::clone(party),
            bytes,
            to,
        };
        state.push(place, waiter);
        self.serve_waiters(state);
        Waiting {
            budget: Arc::clone(self),
            address: party.address,
            place,
            granted,
            since: Instant::now(),
        }
    }

    /// How much is taken, and by whom.
    pub fn look(&self) -> BudgetUse {
        let state = self.state.lock();
        let most = state.accounts.iter().max_by_key(|(_, a)| a.bytes);
        BudgetUse {
            bytes_max: self.bytes_max,
            bytes: state.used,
            waiting: state.accounts.values().map(|a| a.waiters.len()).sum(),
            most: most
                .map(|(address, a)| (*address, a.bytes))
                .filter(|(_, bytes)| *bytes > 0),
        }
    }

    fn fits(&self, state: &State, address: IpAddr, bytes: usize) -> Result<(), Lack> {
        let held = state.accounts.get(&address).map_or(0, |a| a.bytes);
        let left = self.bytes_max.saturating_sub(state.used);
        match left.checked_sub(bytes) {
            None => Err(Lack::All),
            Some(left) if held == 0 || held + bytes <= left => Ok(()),
            Some(_) => Err(Lack::Share),
        }
    }

    fn hand_out(self: &Arc<Self>, state: &mut State, party: &Arc<Party>, bytes: usize) -> Permit {
        state.used += bytes;
        state.accounts.entry(party.address).or_default().bytes += bytes;
        let holder = state.holders.entry(party.number);
        let holder = holder.or_insert_with(|| Holder {
            party: Arc::clone(party),
            bytes: 0,
        });
        holder.bytes += bytes;
        Permit {
            budget: Arc::clone(self),
            party: Arc::clone(party),
            bytes,
            is_beyond: false,
        }
    }

    fn take_back(self: &Arc<Self>, party: &Party, bytes: usize, was_beyond: bool) {
        let mut state = self.state.lock();
        state.used -= bytes;
        if was_beyond {
            state.beyond = None;
        }
        if let Some(holder) = state.holders.get_mut(&party.number) {
            holder.bytes -= bytes;
            if holder.bytes == 0 {
                state.holders.remove(&party.number);
            }
        }
        if let Some(account) = state.accounts.get_mut(&party.address) {
            account.bytes -= bytes;
        }
        state.forget(party.address);
        if !state.fronts.is_empty() {
            self.serve_waiters(state);
        }
    }
}

impl State {
    /// Drops the account of an address that has nothing and wants nothing.
    fn forget(&mut self, address: IpAddr) {
        let unused = |a: &Account| a.bytes == 0 && a.waiters.is_empty();
        if self.accounts.get(&address).is_some_and(unused) {
            self.accounts.remove(&address);
        }
    }

    /// Puts a waiter where it stands.
    fn push(&mut self, place: Place, waiter: Waiter) {
        let address = waiter.party.address;
        let waiters = &mut self.accounts.entry(address).or_default().waiters;
        if let Some((first, _)) = waiters.first_key_value() {
            self.fronts.remove(first);
        }
        waiters.insert(place, waiter);
        self.note_front(address);
    }

    /// Takes a waiter out of the queue.
    fn pull(&mut self, address: IpAddr, place: Place) -> Option<Waiter> {
        let waiter = self.accounts.get_mut(&address)?.waiters.remove(&place)?;
        if self.fronts.remove(&place).is_some() {
            self.note_front(address);
        }
        Some(waiter)
    }

    fn note_front(&mut self, address: IpAddr) {
        if let Some((first, _)) = self.first_waiter(address) {
            self.fronts.insert(first, address);
        }
    }

    fn first_waiter(&self, address: IpAddr) -> Option<(Place, &Waiter)> {
        let waiters = &self.accounts.get(&address)?.waiters;
        waiters
            .first_key_value()
            .map(|(place, first)| (*place, first))
    }
}

impl Budget {
    /// Gives waiters what there is, in their order.
    fn serve_waiters(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let mut served = Vec::new();
        let mut seen = None;
        state.is_short = false;
        loop {
            let from = seen.map_or(Bound::Unbounded, Bound::Excluded);
            let next = state.fronts.range((from, Bound::Unbounded)).next();
            let Some((place, address)) = next.map(|(place, address)| (*place, *address)) else {
                break;
            };
            seen = Some(place);
            let Some((_, first)) = state.first_waiter(address) else {
                continue;
            };
            let fits = self.fits(&state, address, first.bytes);
            let may_exceed = match place.rank {
                Rank::Beyond => true,
                Rank::Grows => state.beyond.is_none(),
                Rank::Begins => false,
            };
            match fits {
                Err(Lack::Share) if !may_exceed => continue,
                Err(Lack::All) if !may_exceed => {
                    state.is_short = true;
                    break;
                }
                _ => {}
            }
            if let Some(waiter) = state.pull(address, place) {
                let mut permit = self.hand_out(&mut state, &waiter.party, waiter.bytes);
                if fits.is_err() {
                    permit.is_beyond = place.rank != Rank::Beyond;
                    state.beyond = Some(waiter.party.number);
                }
                served.push((waiter.to, permit));
            }
        }
        // A permit whose waiter has just gone comes back, which takes the lock again.
        drop(state);
        for (to, permit) in served {
            let _ = to.send(permit);
        }
    }

    /// Ends connections that stand still, so that a waiter of `address` gets room, and those who wait beside it.
    fn relieve(&self, address: IpAddr, now: Instant) {
        let mut state = self.state.lock();
        let lately = |at| now.saturating_duration_since(at) < RELIEF_PAUSE;
        if state.relieved_at.is_some_and(lately) {
            return;
        }
        let Some((_, first)) = state.first_waiter(address) else {
            return;
        };
        let own_only = self.fits(&state, address, first.bytes) == Err(Lack::Share);
        let waiters = state.accounts.values().flat_map(|a| a.waiters.values());
        let wanted: usize = waiters
            .filter(|waiter| !own_only || waiter.party.address == address)
            .map(|waiter| waiter.bytes)
            .sum();
        state.relieved_at = Some(now);
        let in_the_way = |party: &Party| {
            !own_only || party.address == address || state.beyond == Some(party.number)
        };
        let mut still: Vec<_> = state
            .holders
            .values()
            .filter(|holder| in_the_way(&holder.party))
            .filter_map(|holder| Some((holder.party.still_for(now)?, holder)))
            .filter(|(still, _)| *still >= SHORT)
            .collect();
        still.sort_by_key(|(still, _)| std::cmp::Reverse(*still));
        let mut freed = 0;
        for (_, holder) in still {
            if freed >= wanted {
                break;
            }
            freed += holder.bytes;
            holder.party.tell(Farewell::StoodStill);
        }
    }
}

/// Memory that a connection has of a budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    party: Arc<Party>,
    bytes: usize,
    is_beyond: bool,
}

impl Permit {
    /// How much.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds another one, of the same connection and the same budget.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.party, &other.party));
        self.bytes += std::mem::take(&mut other.bytes);
        self.is_beyond |= std::mem::take(&mut other.is_beyond);
    }

    /// Gives some of it back.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.take_back(&self.party, bytes, false);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 || self.is_beyond {
            self.budget
                .take_back(&self.party, self.bytes, self.is_beyond);
        }
    }
}

/// A place in the queue; given up when dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    budget: Arc<Budget>,
    address: IpAddr,
    place: Place,
    granted: oneshot::Receiver<Permit>,
    since: Instant,
}

impl Waiting {
    /// Returns with the memory. Can be dropped and called again.
    pub async fn granted(&mut self) -> Option<Permit> {
        (&mut self.granted).await.ok()
    }

    /// The memory, if it has come.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn try_granted(&mut self) -> Option<Permit> {
        self.granted.try_recv().ok()
    }

    /// When to call [`Waiting::insist`].
    pub fn insists_at(&self) -> Instant {
        self.since + SHORT
    }

    /// Has waited long: others have to give way. To be called again after as long.
    pub fn insist(&mut self, now: Instant) {
        self.budget.relieve(self.address, now);
        self.since = now;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.budget.state.lock();
        if state.pull(self.address, self.place).is_some() {
            state.forget(self.address);
            // Whoever stood behind may fit.
            self.budget.serve_waiters(state);
        }
    }
}

#[cfg(test)]
mod tests;
