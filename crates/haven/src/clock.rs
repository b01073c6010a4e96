//! Time: this machine's clocks are read here, and nowhere else in the service.
//!
//! [`ServiceClock`] is what entries get their time from. What it should be is decided by [`haven_cluster::clock`]; this shell
//! feeds it with readings: of this machine's clocks, of the other nodes' (from bulletins), and of the replicated time.
//!
//! Another node's clock is read over the network. A reading says when it was taken by a clock that does not jump, and
//! repeats what its sender heard from this node last, and how long ago. So the time that both messages were under way is
//! known, and half of it bounds the error.
//!
//! Invariants: [`ServiceClock::now`] takes no lock for writing, and grows with every call.

use haven_admin::{ClockReading, ClockView, Echo};
use haven_cluster::clock::{Clock, Course, ERROR_NS_MAX, Standing};
use haven_fs::Time;
use parking_lot::{Mutex, RwLock};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::{info, warn};

const SECOND_NS: i64 = 1_000_000_000;
/// How often the own clock is read.
pub const FEED: Duration = Duration::from_millis(200);
/// A clock further away is complained about.
const COMPLAIN_NS: i64 = SECOND_NS;
/// Between the two readings of one pair this thread may be interrupted: then once more, so often.
const PAIRS: u32 = 4;
const PAIR_NS_MAX: i64 = 100_000;

/// Beyond it (the year 2262) there is no time to count on.
const TIME_NS_MAX: i64 = i64::MAX - (1 << 40);

/// Seconds by which the clock is wrong: other than 0 only in tests of clocks that jump.
static SHIFT_S: AtomicI64 = AtomicI64::new(0);

/// This machine's wall clock. One before 1970 counts as 1970.
pub fn now() -> Time {
    time_of(wall_ns())
}

/// Makes this process's clock wrong by so many seconds.
#[doc(hidden)]
pub fn shift(secs: i64) {
    SHIFT_S.store(secs, Ordering::Relaxed);
}

fn wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ns = i64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX);
    let shift = SHIFT_S.load(Ordering::Relaxed).saturating_mul(SECOND_NS);
    ns.saturating_add(shift).max(0)
}

/// A clock that never jumps, and goes on while the machine sleeps.
fn mono_ns() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec
        .saturating_mul(SECOND_NS)
        .saturating_add(now.tv_nsec)
}

/// Both at one moment, as nearly as that can be had.
fn both() -> (i64, i64) {
    let mut pair = (0, 0);
    for _ in 0..PAIRS {
        let before = mono_ns();
        pair = (before, wall_ns());
        if mono_ns() - before < PAIR_NS_MAX {
            break;
        }
    }
    pair
}

fn time_of(ns: i64) -> Time {
    Time {
        secs: ns.div_euclid(SECOND_NS),
        nanos: u32::try_from(ns.rem_euclid(SECOND_NS)).unwrap_or(0),
    }
}

fn ns_of(time: Time) -> i64 {
    let ns = time.secs.saturating_mul(SECOND_NS);
    ns.saturating_add(i64::from(time.nanos))
}

/// See the module's head comment.
pub struct ServiceClock {
    own: u64,
    state: Mutex<State>,
    course: RwLock<Option<Course>>,
    last: AtomicI64,
}

#[derive(Default)]
struct State {
    clock: Clock,
    /// What each other node said last of its own clock that never jumps, and when that came.
    heard: BTreeMap<u64, (i64, i64)>,
    /// The replicated time that was seen last.
    seen: Option<Time>,
    /// Clocks that were complained about.
    wrong: Vec<u64>,
}

impl ServiceClock {
    /// Of node `own`.
    pub fn new(own: u64) -> Arc<Self> {
        let clock = Arc::new(Self {
            own,
            state: Mutex::default(),
            course: RwLock::new(None),
            last: AtomicI64::new(0),
        });
        clock.feed(None);
        clock
    }

    /// The service's time, for an entry.
    pub fn now(&self) -> Time {
        let mono = mono_ns();
        let course = *self.course.read();
        let time = course.map_or_else(wall_ns, |course| course.at(mono));
        let time = time.clamp(0, TIME_NS_MAX);
        let before = self.last.fetch_max(time, Ordering::Relaxed);
        match before < time {
            true => time_of(time),
            // Another thread was here at the same moment, or it was led back meanwhile.
            false => time_of(self.last.fetch_add(1, Ordering::Relaxed).saturating_add(1)),
        }
    }

    /// Reads this machine's clocks; `replicated` is the newest time that was applied.
    pub fn feed(&self, replicated: Option<Time>) {
        let (mono, wall) = both();
        let mut state = self.state.lock();
        if state.clock.read_own(mono, wall) {
            warn!(
                "this machine's clock was stepped: the service's time does not follow it at once"
            );
        }
        if replicated.is_some() && replicated != state.seen {
            state.seen = replicated;
            // A volume without entries has none.
            if let Some(time) = replicated.filter(|time| time.secs > 0) {
                state.clock.served(mono, ns_of(time));
            }
        }
        self.publish(&state, mono);
    }

    /// This node begins to serve what was applied up to `time`.
    pub fn begin(&self, time: Time) {
        let mut state = self.state.lock();
        let mono = mono_ns();
        if time.secs > 0 {
            state.clock.served(mono, ns_of(time));
        }
        let ahead_s = state.clock.ahead(mono) / SECOND_NS;
        if ahead_s > 0 {
            warn!(
                ahead_s,
                "the service's time is ahead of the clocks: it goes on at real speed and is led back slowly"
            );
        }
        self.publish(&state, mono);
    }

    fn publish(&self, state: &State, mono: i64) {
        *self.course.write() = state.clock.course(mono);
    }

    /// What this node tells the others of its clock.
    pub fn reading(&self) -> ClockReading {
        let (mono_ns, unix_ns) = both();
        let state = self.state.lock();
        let heard = state.heard.iter().map(|(id, (stamp, at))| {
            let echo = Echo {
                mono_ns: *stamp,
                held_ns: mono_ns - at,
            };
            (*id, echo)
        });
        ClockReading {
            unix_ns,
            mono_ns,
            heard: heard.collect(),
        }
    }

    /// Node `from` has told of its clock.
    pub fn hear(&self, from: u64, reading: &ClockReading) {
        let mono = mono_ns();
        let mut state = self.state.lock();
        state.heard.insert(from, (reading.mono_ns, mono));
        let Some(echo) = reading.heard.get(&self.own) else {
            return;
        };
        let sent = mono.saturating_sub(echo.mono_ns);
        let travelled = sent.saturating_sub(echo.held_ns);
        if (0..=ERROR_NS_MAX * 2).contains(&travelled) {
            let half = travelled / 2;
            let taken = mono.saturating_sub(half);
            state.clock.read_other(from, taken, reading.unix_ns, half);
            self.publish(&state, mono);
        }
    }

    /// Forgets who is no member.
    pub fn keep(&self, ids: &[u64]) {
        let mut state = self.state.lock();
        state.clock.keep(ids);
        state.heard.retain(|id, _| ids.contains(id));
    }

    /// How the clocks of the nodes stand, by number, and how far the service's time is ahead of what counts, in ms.
    pub fn standings(&self) -> (BTreeMap<u64, ClockView>, i64) {
        let state = self.state.lock();
        let mono = mono_ns();
        let (own, mut all) = state.clock.standings(mono);
        all.extend(own.map(|own| (self.own, own)));
        let view = |standing: Standing| ClockView {
            ahead_ms: standing.ahead_ns / 1_000_000,
            error_ms: standing.error_ns / 1_000_000,
        };
        let views = all.into_iter().map(|(id, standing)| (id, view(standing)));
        (views.collect(), state.clock.ahead(mono) / 1_000_000)
    }

    /// Says in the log when a clock begins to be wrong, and when it is right again.
    pub fn complain(&self, name_of: impl Fn(u64) -> String) {
        let mut state = self.state.lock();
        let (own, mut all) = state.clock.standings(mono_ns());
        all.extend(own.map(|own| (self.own, own)));
        let far = |standing: &Standing| {
            standing.ahead_ns.saturating_abs() - standing.error_ns > COMPLAIN_NS
        };
        let wrong = all.iter().filter(|(_, standing)| far(standing));
        let wrong: Vec<(u64, i64)> = wrong.map(|(id, s)| (*id, s.ahead_ns / SECOND_NS)).collect();
        for (id, ahead_s) in wrong.iter().filter(|(id, _)| !state.wrong.contains(id)) {
            warn!(
                ahead_s,
                "the clock of node {} is wrong: the service's time does not follow it",
                name_of(*id)
            );
        }
        for id in &state.wrong {
            if all.contains_key(id) && !wrong.iter().any(|(now, _)| now == id) {
                info!("the clock of node {} is right again", name_of(*id));
            }
        }
        state.wrong = wrong.into_iter().map(|(id, _)| id).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What two nodes of one machine tell each other.
    fn exchange(one: &ServiceClock, other: &ServiceClock) {
        for _ in 0..2 {
            other.hear(one.own, &one.reading());
            one.hear(other.own, &other.reading());
        }
    }

    #[test]
    fn time_grows_with_every_call() {
        let clock = ServiceClock::new(1);
        let mut before = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now > before);
            before = now;
        }
    }

    #[test]
    fn clocks_are_read_over_the_network_within_half_the_way_there_and_back() {
        let (one, other) = (ServiceClock::new(1), ServiceClock::new(2));
        exchange(&one, &other);
        let (views, ahead_ms) = one.standings();
        assert_eq!(views.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert!(
            views[&2].ahead_ms.abs() <= views[&2].error_ms + 1,
            "{views:?}"
        );
        assert_eq!(ahead_ms, 0);
        one.keep(&[1]);
        assert_eq!(one.standings().0.len(), 1);
    }

    #[test]
    fn a_reading_that_answers_nothing_or_too_late_says_nothing() {
        let (one, other) = (ServiceClock::new(1), ServiceClock::new(2));
        one.hear(2, &other.reading());
        assert_eq!(one.standings().0.len(), 1);
        other.hear(1, &one.reading());
        let mut late = other.reading();
        for echo in late.heard.values_mut() {
            echo.held_ns -= 2 * SECOND_NS;
        }
        one.hear(2, &late);
        assert_eq!(one.standings().0.len(), 1);
        for odd in [i64::MIN, i64::MAX] {
            for echo in late.heard.values_mut() {
                *echo = Echo {
                    mono_ns: odd,
                    held_ns: odd,
                };
            }
            one.hear(
                2,
                &ClockReading {
                    unix_ns: odd,
                    mono_ns: odd,
                    ..late.clone()
                },
            );
            one.now();
        }
    }

    #[test]
    fn after_a_leap_time_goes_on_and_not_by_nanoseconds() {
        let clock = ServiceClock::new(1);
        let day = Time {
            secs: now().secs + 86_400,
            nanos: 0,
        };
        clock.begin(day);
        let (first, began) = (clock.now(), mono_ns());
        assert!(first >= day);
        while mono_ns() - began < 2_000_000 {}
        let passed = ns_of(clock.now()) - ns_of(first);
        assert!(passed >= 1_800_000, "{passed} ns");
        assert!(clock.standings().1 > 86_000_000);
    }
}
