//! The leader's lease: may this node answer a read right now?
//!
//! # Why no two nodes answer at once
//!
//! Let `L` be the lease promised by voters (`Timing::lease`, openraft's `election_timeout_max`) and
//! `W = L - margin` the window a leader allows itself (`Timing::lease_window`).
//!
//! 1. A voter that takes a heartbeat or append of the leader of term `T` refuses every vote and
//!    pre-vote for `L` after it took the message, by its own monotonic clock, and does not stand
//!    itself before that either: openraft begins no pre-vote round while the promise holds, and a
//!    message of the leader ends a round under way. A message is answered only after that promise was
//!    renewed: openraft does so before anything else, also when it finds that it lacks entries; and whoever answers
//!    a heartbeat before openraft does ([`crate::net::beats`]) asks it first. Only an answer that tells of a later vote is no
//!    promise.
//! 2. The leader dates its lease from the *sending* of the newest messages of its term that a quorum answered, whatever they
//!    carried and however late the answers come ([`crate::answers`]). The
//!    sending comes before the taking, so every voter of that quorum keeps its promise until at
//!    least `sent + L`. While members change, a quorum of the newest and one of those that count are needed.
//! 3. A new leader needs a quorum of votes, which shares a voter with the quorum of 2. If that voter
//!    is the old leader itself: it gives no vote while its lease holds; and were it to give one, the lease would be revoked
//!    before (below). So nobody is elected before `sent + L`, and the old leader stopped answering at
//!    `sent + W`. The margin pays for clocks that run at different speeds: a tenth, where
//!    NTP-disciplined clocks differ by less than a thousandth.
//!
//! What would break 1 and how it is kept:
//! - *A restarted voter has forgotten its promise.* Unless its log and vote were empty (then it never
//!   answered any leader), it answers no vote or pre-vote and does not stand of itself for `L` after
//!   its start (the quarantine). It does stand when the leader that it follows hands over to it: its vote, which
//!   it did not forget, is that leader's, so it promised nothing to a later one; that leader was elected when the
//!   leases of all earlier ones were over; and its own is revoked (below).
//!   A node whose disk was wiped must not come back under its old id
//!   (whoever starts it refuses); one that lost its log but not its vote has no voice until it has caught up (see
//!   [`crate::rejoin`]).
//! - *A planned transfer* lets voters break their promise by the leader's own order. The order for
//!   term `T` leaves this node only after the lease of term `T` was revoked for ever
//!   ([`Lease::revoke`], called again by the transport itself with the term that the message
//!   carries). Votes that carry the transfer mark are for term `T + 1`, which one node at most can win
//!   (one leader per term), so a late one cannot depose the leader of `T + 1` or later.
//! - *A leader that hears of a later term* becomes a voter without promises at once. Before a vote of
//!   a later term is saved, the leases of all earlier terms are revoked; and nothing about a vote
//!   leaves a node before it is saved. So its vote cannot help a successor while it still answers.
//! - *A leader that restarts* does not resume its leadership (`enable_leader_restore` is off).
//!
//! # Clocks and pauses
//!
//! The window ends at a time of CLOCK_BOOTTIME, which no step of the wall clock changes, and which goes on while the
//! machine sleeps. A stopped process (SIGSTOP, swapping) and a machine that slept find the window over when they wake,
//! because the check reads the clock anew every time. The *age* of a round comes from CLOCK_MONOTONIC, which stands
//! still while the machine sleeps; so a renewal compares the two and voids every round sent before a sleep it notices.
//! A voter that sleeps keeps its promise longer, never shorter. What no guest can notice is a hypervisor that stops the
//! virtual machine and all of its clocks: there the lease may seem to hold for up to `W` after the machine goes on.
//! Configure such hosts to let guest time jump.
//!
//! A single voter is its own quorum: while it leads, nobody else can. That ends before members of whom it is not
//! the only voter leave its log ([`Lease::note_plural`]).
//!
//! # When members change
//!
//! Votes are given and taken one at a time (`steward`), so a quorum of the members before shares a node with every
//! quorum of the members after, which is what 3 needs. Several changes within one window do no harm either: each
//! is committed by taking appends, on a quorum of the new members, sent after the round that the lease is dated
//! from, and taking them renewed the promises.
//!
//! This module must not know openraft, sockets or what is being read.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::ClockId;
use rustix::time::clock_gettime;

/// Sleeps of the machine shorter than this are no sleeps (it only absorbs clock granularity): the margin pays for them.
const SLEEP_MIN_NS: u64 = 1_000_000;

/// How often an undecided sleep check (the thread was interrupted between two clock readings) is
/// repeated before it counts as a sleep.
const SLEEP_CHECKS_MAX: u32 = 4;

/// `until` of a leader that is the only voter.
const FOR_EVER: u64 = u64::MAX;

/// The clocks a lease is measured by.
pub(crate) trait Clocks: Send + Sync {
    /// CLOCK_MONOTONIC in nanoseconds.
    fn monotonic_ns(&self) -> u64;
    /// CLOCK_BOOTTIME in nanoseconds: monotonic plus the time the machine slept.
    fn boottime_ns(&self) -> u64;
}

/// The kernel's clocks.
pub(crate) struct KernelClocks;

impl Clocks for KernelClocks {
    fn monotonic_ns(&self) -> u64 {
        read(ClockId::Monotonic)
    }

    fn boottime_ns(&self) -> u64 {
        read(ClockId::Boottime)
    }
}

fn read(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    let secs = u64::try_from(t.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
    secs.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// The lease of this node. See the module's head.
pub(crate) struct Lease<C = KernelClocks> {
    clocks: C,
    window_ns: u64,
    /// End of the window by CLOCK_BOOTTIME; 0: none, [`FOR_EVER`]: single voter that leads.
    until: AtomicU64,
    /// How long the machine had slept at the last look (boottime minus monotonic).
    slept: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Terms up to this one never have a lease again.
    revoked_term: u64,
    /// This node is its own quorum.
    single: bool,
    /// The index of the newest members among whom it is not.
    plural_at: Option<u64>,
    /// Rounds sent before this time (CLOCK_BOOTTIME) do not count: the machine slept since. A round sent before
    /// the sleep seems to be younger by the sleep, but still older than this.
    void_before_ns: u64,
}

impl<C: Clocks> Lease<C> {
    pub(crate) fn new(clocks: C, window: Duration, single: bool) -> Self {
        let lease = Self {
            window_ns: u64::try_from(window.as_nanos()).unwrap_or(0),
            until: AtomicU64::new(0),
            slept: AtomicU64::new(0),
            state: Mutex::new(State {
                single,
                ..State::default()
            }),
            clocks,
        };
        let monotonic = lease.clocks.monotonic_ns();
        let boottime = lease.clocks.boottime_ns();
        lease
            .slept
            .store(boottime.saturating_sub(monotonic), Ordering::Relaxed);
        lease
    }

    /// Whether this node may answer now. Every answer asks: an atomic load and a clock reading.
    pub(crate) fn valid(&self) -> bool {
        match self.until.load(Ordering::SeqCst) {
            0 => false,
            FOR_EVER => true,
            until => self.clocks.boottime_ns() < until,
        }
    }

    /// This node leads `term`, and the newest round a quorum answered was sent `age` before now.
    ///
    /// `age` must be measured after `now_ns` was read, so that a thread interrupted in between dates
    /// the round too early rather than too late.
    pub(crate) fn renew(&self, term: u64, now_ns: u64, age: Option<Duration>) {
        self.look_for_sleep();
        let state = self.state.lock();
        let until = if term <= state.revoked_term {
            0
        } else if state.single {
            FOR_EVER
        } else {
            self.window_end(&state, now_ns, age)
        };
        self.until.store(until, Ordering::SeqCst);
    }

    fn window_end(&self, state: &State, now_ns: u64, age: Option<Duration>) -> u64 {
        let Some(age) = age else { return 0 };
        let age_ns = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        let sent_ns = now_ns.saturating_sub(age_ns);
        if sent_ns == 0 || sent_ns < state.void_before_ns {
            return 0;
        }
        sent_ns.saturating_add(self.window_ns).min(FOR_EVER - 1)
    }

    /// Members among whom this node is not its own quorum are written to the log at `index`. From the return on
    /// they may spread, so what this node allowed itself as the only voter ends before.
    pub(crate) fn note_plural(&self, index: u64) {
        let mut state = self.state.lock();
        state.plural_at = state.plural_at.max(Some(index));
        if std::mem::take(&mut state.single) {
            self.until.store(0, Ordering::SeqCst);
        }
    }

    /// Says since which members this node is its own quorum, if it is. Gives whether it counts as that: not if
    /// newer members are in the log.
    pub(crate) fn set_single(&self, alone_at: Option<u64>) -> bool {
        let mut state = self.state.lock();
        state.single = alone_at.is_some() && alone_at >= state.plural_at;
        state.single
    }

    /// This node does not lead.
    pub(crate) fn clear(&self) {
        let _state = self.state.lock();
        self.until.store(0, Ordering::SeqCst);
    }

    /// Ends the lease of `term` and of all before it for good. When this returns, `valid` is false
    /// until a later term is renewed.
    pub(crate) fn revoke(&self, term: u64) {
        let mut state = self.state.lock();
        state.revoked_term = state.revoked_term.max(term);
        self.until.store(0, Ordering::SeqCst);
    }

    /// Whether the lease of `term` was revoked.
    pub(crate) fn is_revoked(&self, term: u64) -> bool {
        term <= self.state.lock().revoked_term
    }

    /// The time that windows are measured by, to be read before an age is taken.
    pub(crate) fn now_ns(&self) -> u64 {
        self.clocks.boottime_ns()
    }

    /// Voids all earlier rounds if the machine slept since the last look.
    fn look_for_sleep(&self) {
        let limit = self
            .slept
            .load(Ordering::Relaxed)
            .saturating_add(SLEEP_MIN_NS);
        for _ in 0..SLEEP_CHECKS_MAX {
            let before = self.clocks.monotonic_ns();
            let boot = self.clocks.boottime_ns();
            // The true difference lies between `boot - after` and `boot - before`.
            if boot.saturating_sub(before) <= limit {
                return;
            }
            if boot.saturating_sub(self.clocks.monotonic_ns()) > limit {
                break;
            }
        }
        self.void_all();
    }

    fn void_all(&self) {
        let mut state = self.state.lock();
        let slept = self
            .clocks
            .boottime_ns()
            .saturating_sub(self.clocks.monotonic_ns());
        state.void_before_ns = self.clocks.boottime_ns();
        // Interrupted readings make `slept` too large, which could hide the next sleep; so take the
        // smaller of two readings around the boottime.
        let slept = slept.min(
            self.clocks
                .boottime_ns()
                .saturating_sub(self.clocks.monotonic_ns()),
        );
        self.slept.store(slept, Ordering::Relaxed);
        self.until.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Hands {
        monotonic: Arc<AtomicU64>,
        slept: Arc<AtomicU64>,
    }

    impl Hands {
        fn pass(&self, ms: u64) {
            self.monotonic.fetch_add(ms * 1_000_000, Ordering::SeqCst);
        }
        fn sleep(&self, ms: u64) {
            self.slept.fetch_add(ms * 1_000_000, Ordering::SeqCst);
        }
    }

    impl Clocks for Hands {
        fn monotonic_ns(&self) -> u64 {
            self.monotonic.load(Ordering::SeqCst)
        }
        fn boottime_ns(&self) -> u64 {
            self.monotonic_ns() + self.slept.load(Ordering::SeqCst)
        }
    }

    fn lease(single: bool) -> (Lease<Hands>, Hands) {
        let hands = Hands::default();
        hands.pass(10_000);
        (
            Lease::new(hands.clone(), Duration::from_millis(270), single),
            hands,
        )
    }

    fn ms(n: u64) -> Option<Duration> {
        Some(Duration::from_millis(n))
    }

    #[test]
    fn window_counts_from_the_sending() {
        let (lease, hands) = lease(false);
        assert!(!lease.valid());
        lease.renew(3, lease.now_ns(), ms(100));
        assert!(lease.valid());
        hands.pass(169);
        assert!(lease.valid());
        hands.pass(1);
        assert!(!lease.valid());
        lease.renew(3, lease.now_ns(), None);
        assert!(!lease.valid());
    }

    #[test]
    fn revoked_term_stays_revoked_and_a_later_one_counts() {
        let (lease, _hands) = lease(false);
        lease.renew(3, lease.now_ns(), ms(0));
        lease.revoke(3);
        assert!(!lease.valid());
        lease.renew(3, lease.now_ns(), ms(0));
        assert!(
            !lease.valid(),
            "an acknowledgement after the revocation must not revive the lease"
        );
        assert!(lease.is_revoked(3) && !lease.is_revoked(4));
        lease.renew(4, lease.now_ns(), ms(0));
        assert!(lease.valid());
    }

    #[test]
    fn sleep_of_the_machine_voids_earlier_rounds() {
        let (lease, hands) = lease(false);
        lease.renew(3, lease.now_ns(), ms(10));
        hands.sleep(5_000);
        assert!(!lease.valid());
        // The answer to a round sent before the sleep arrives after it.
        lease.renew(3, lease.now_ns(), ms(10));
        assert!(!lease.valid());
        hands.pass(20);
        lease.renew(3, lease.now_ns(), ms(5));
        assert!(lease.valid());
    }

    #[test]
    fn sleep_noticed_by_a_renewal_counts_too() {
        let (lease, hands) = lease(false);
        hands.sleep(5_000);
        lease.renew(3, lease.now_ns(), ms(10));
        assert!(!lease.valid());
        // Nor does it count later: its age stays what it was before the sleep, and more.
        hands.pass(1);
        lease.renew(3, lease.now_ns(), ms(11));
        assert!(!lease.valid());
    }

    #[test]
    fn sleep_within_the_window_uses_it_up() {
        let (lease, hands) = lease(false);
        lease.renew(3, lease.now_ns(), ms(100));
        hands.sleep(169);
        assert!(lease.valid());
        hands.sleep(1);
        assert!(!lease.valid());
    }

    #[test]
    fn sleep_between_the_look_at_the_clock_and_the_age_voids_the_round() {
        let (lease, hands) = lease(false);
        let now = lease.now_ns();
        hands.sleep(200);
        lease.renew(3, now, ms(10));
        assert!(!lease.valid());
    }

    #[test]
    fn single_voter_holds_while_it_leads() {
        let (lease, hands) = lease(true);
        lease.renew(1, lease.now_ns(), None);
        hands.pass(1_000_000);
        assert!(lease.valid());
        lease.clear();
        assert!(!lease.valid());
    }

    #[test]
    fn single_voter_that_gets_company_needs_answers_at_once() {
        let (lease, _hands) = lease(true);
        assert!(lease.set_single(Some(1)));
        lease.renew(1, lease.now_ns(), None);
        assert!(lease.valid());
        lease.note_plural(7);
        assert!(!lease.valid());
        // What openraft tells is older.
        assert!(!lease.set_single(Some(1)));
        lease.renew(1, lease.now_ns(), None);
        assert!(!lease.valid());
        lease.renew(1, lease.now_ns(), ms(1));
        assert!(lease.valid());
        // All others went again.
        assert!(!lease.set_single(None));
        assert!(lease.set_single(Some(9)));
    }

    #[test]
    fn kernel_clocks_agree_when_nothing_sleeps() {
        let lease = Lease::new(KernelClocks, Duration::from_secs(3600), false);
        lease.renew(1, lease.now_ns(), ms(0));
        assert!(lease.valid());
    }
}
