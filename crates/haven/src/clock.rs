//! Time: this machine's clocks are read here, and nowhere else in the service.
//!
//! [`ServiceClock`] is what entries get their time from. What it should be is decided by [`haven_cluster::clock`]; this shell
//! feeds it with readings: of this machine's clocks, of the other nodes' (from bulletins), and of the replicated time.
//!
//! Another node's clock is read over the network. A reading says when it was taken by a clock that does not jump, and
//! repeats what its sender heard from this node last, and how long ago. So the time that both messages were under way is
//! known, and half of it bounds the error.
//!
//! It must not know who leads, or what time is for.

use crate::roll::Roll;
use haven_admin::{ClockReading, ClockView, Echo};
use haven_cluster::clock::{Clock, Course, ERROR_NS_MAX, SKEW_NS_MAX, Standing};
use haven_fs::Time;
use parking_lot::{Mutex, RwLock};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::{info, warn};

const SECOND_NS: i64 = 1_000_000_000;
const MS_NS: i64 = 1_000_000;
/// How often the own clock is read.
const FEED: Duration = Duration::from_millis(200);
/// The members are looked up, and wrong clocks complained about, each so many times.
const LOOK_EACH: u32 = 5;
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
    /// Of node `own`, which is alone as long as nobody says otherwise.
    pub fn new(own: u64) -> Arc<Self> {
        let clock = Arc::new(Self {
            own,
            state: Mutex::default(),
            course: RwLock::new(None),
        });
        clock.feed(None);
        clock
    }

    /// The service's time, for an entry.
    pub fn now(&self) -> Time {
        let course = *self.course.read();
        let time = course.map_or_else(wall_ns, |course| course.at(mono_ns()));
        time_of(time.clamp(0, TIME_NS_MAX))
    }

    /// Lets something come to be known.
    fn learn<T>(&self, learn: impl FnOnce(&mut State, i64) -> T) -> T {
        let mut state = self.state.lock();
        let learned = learn(&mut state, mono_ns());
        *self.course.write() = state.clock.course(mono_ns());
        learned
    }

    /// Reads this machine's clocks; `replicated` is the newest time that was applied.
    pub fn feed(&self, replicated: Option<Time>) {
        let stepped = self.learn(|state, _| {
            let (mono, wall) = both();
            let stepped = state.clock.read_own(mono, wall);
            if replicated.is_some() && replicated != state.seen {
                state.seen = replicated;
                state.serve(mono, replicated);
            }
            stepped
        });
        if let Some(by_ns) = stepped {
            warn!(
                by_ms = by_ns / MS_NS,
                "this machine's clock was stepped; that alone does not move the service's time"
            );
        }
    }

    /// This node begins to lead, behind what was applied up to `time`.
    pub fn begin(&self, time: Time) {
        let ahead = self.learn(|state, mono| {
            state.serve(mono, Some(time));
            state.clock.begin(mono);
            state.clock.ahead(mono)
        });
        if ahead > SKEW_NS_MAX {
            warn!(
                ahead_s = ahead / SECOND_NS,
                "the service's time is ahead of the clocks: it goes on at real speed and is led back slowly"
            );
        }
    }

    /// What this node tells the others of its clock.
    pub fn reading(&self) -> ClockReading {
        let state = self.state.lock();
        let (mono_ns, unix_ns) = both();
        let heard = state.heard.iter().map(|(node, (stamp, at))| Echo {
            node: *node,
            mono_ns: *stamp,
            held_ns: mono_ns - at,
        });
        ClockReading {
            unix_ns,
            mono_ns,
            heard: heard.collect(),
        }
    }

    /// Node `from` has told of its clock.
    pub fn hear(&self, from: u64, reading: &ClockReading) {
        self.learn(|state, mono| {
            state.heard.insert(from, (reading.mono_ns, mono));
            let Some(echo) = reading.heard.iter().find(|echo| echo.node == self.own) else {
                return;
            };
            let since = mono.saturating_sub(echo.mono_ns);
            let travelled = since.saturating_sub(echo.held_ns);
            if (0..=ERROR_NS_MAX * 2).contains(&travelled) {
                let half = travelled / 2;
                let rate = reading.unix_ns.saturating_sub(mono - half);
                state.clock.read_other(from, mono, rate, half);
            }
        });
    }

    /// These are the members, and whether they vote.
    pub fn members(&self, all: &[(u64, bool)]) {
        let others = all.iter().filter(|(id, _)| *id != self.own);
        let others: Vec<(u64, bool)> = others.copied().collect();
        self.learn(|state, mono| {
            state.clock.members(mono, &others);
            state
                .heard
                .retain(|id, _| others.iter().any(|(other, _)| other == id));
        });
    }

    /// How the clocks of the nodes stand, by number, and how far the service's time is ahead of what counts, in ms.
    pub fn standings(&self) -> (BTreeMap<u64, ClockView>, i64) {
        let state = self.state.lock();
        let mono = mono_ns();
        let view = |standing: Standing| ClockView {
            ahead_ms: standing.ahead_ns / MS_NS,
            error_ms: standing.error_ns / MS_NS,
        };
        let all = state.standings(self.own, mono).into_iter();
        let all = all.map(|(id, standing)| (id, view(standing)));
        (all.collect(), state.clock.ahead(mono) / MS_NS)
    }

    /// Says in the log when a clock begins to be wrong, and when it is right again.
    fn complain(&self, name_of: impl Fn(u64) -> String) {
        let mut state = self.state.lock();
        let all = state.standings(self.own, mono_ns());
        let is_far = |standing: &Standing| {
            let far = standing.ahead_ns.saturating_abs();
            far.saturating_sub(standing.error_ns) > SKEW_NS_MAX
        };
        for (id, standing) in &all {
            let known = state.wrong.contains(id);
            match is_far(standing) {
                true if !known => {
                    state.wrong.push(*id);
                    warn!(
                        node = name_of(*id),
                        ahead_ms = standing.ahead_ns / MS_NS,
                        "a node's clock differs from the one that counts: set it (chronyc makestep, timedatectl); \
                         haven status says more"
                    );
                }
                false if known => {
                    state.wrong.retain(|wrong| wrong != id);
                    info!(node = name_of(*id), "a node's clock is right again");
                }
                _ => {}
            }
        }
    }
}

impl State {
    /// The service had got to this time.
    fn serve(&mut self, mono: i64, time: Option<Time>) {
        // A volume without entries has none.
        if let Some(time) = time.filter(|time| time.secs > 0) {
            self.clock.served(mono, ns_of(time));
        }
    }

    fn standings(&self, own: u64, mono: i64) -> BTreeMap<u64, Standing> {
        let (of_own, mut all) = self.clock.standings(mono);
        all.extend(of_own.map(|standing| (own, standing)));
        all
    }
}

/// Keeps a node's clock, for ever; `seen` is the replicated time, if that can be told at once.
pub async fn keep(clock: Arc<ServiceClock>, roll: Roll, seen: impl Fn() -> Option<Time> + Send) {
    for turn in 0u32.. {
        clock.feed(seen());
        if turn.is_multiple_of(LOOK_EACH) {
            clock.members(&roll.voters());
            clock.complain(|id| roll.name_of(id).unwrap_or_else(|| id.to_string()));
        }
        tokio::time::sleep(FEED).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haven_cluster::clock::SLEW;

    fn two() -> (Arc<ServiceClock>, Arc<ServiceClock>) {
        let nodes = (ServiceClock::new(1), ServiceClock::new(2));
        for node in [&nodes.0, &nodes.1] {
            node.members(&[(1, true), (2, true)]);
        }
        nodes
    }

    /// What two nodes of one machine tell each other.
    fn exchange(one: &ServiceClock, other: &ServiceClock) {
        for _ in 0..2 {
            other.hear(one.own, &one.reading());
            one.hear(other.own, &other.reading());
        }
    }

    #[test]
    fn clocks_are_read_over_the_network_within_half_the_way_there_and_back() {
        let (one, other) = two();
        exchange(&one, &other);
        let (views, ahead_ms) = one.standings();
        assert_eq!(views.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert!(
            views[&2].ahead_ms.abs() <= views[&2].error_ms + 1,
            "{views:?}"
        );
        assert_eq!(ahead_ms, 0);
        one.members(&[(1, true)]);
        assert_eq!(one.standings().0.len(), 1);
    }

    #[test]
    fn a_reading_that_answers_nothing_or_too_late_says_nothing() {
        let (one, other) = two();
        one.hear(2, &other.reading());
        assert!(one.standings().0.is_empty(), "of two clocks, one is none");
        other.hear(1, &one.reading());
        let mut late = other.reading();
        for echo in &mut late.heard {
            echo.held_ns -= 2 * SECOND_NS;
        }
        one.hear(2, &late);
        assert!(one.standings().0.is_empty());
        for odd in [i64::MIN, i64::MAX] {
            for echo in &mut late.heard {
                (echo.mono_ns, echo.held_ns) = (odd, odd);
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
        assert!(clock.now() >= day);
        let ahead_ms = clock.standings().1;
        assert!(ahead_ms > 86_000_000, "{ahead_ms}");
        let (first, began) = (clock.now(), mono_ns());
        while mono_ns() - began < 2 * MS_NS {}
        // However long this thread was kept waiting.
        let passed = ns_of(clock.now()) - ns_of(first);
        assert!(passed >= 2 * MS_NS - 2 * MS_NS / SLEW - 1, "{passed} ns");
        // Whoever applies what another leads with knows it, too.
        let other = ServiceClock::new(2);
        other.feed(Some(day));
        assert!(other.now() >= day);
    }
}
