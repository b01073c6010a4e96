//! The service's time: readings of clocks in, time out.
//!
//! Entries carry the leader's time, and replicated time never goes back. So a leader whose clock is a day ahead would take
//! everybody's time a day ahead, and no later leader could go on from there but by nanoseconds. Therefore:
//! - The time that counts is that of most clocks of the cluster: a leader's own while it is within [`SKEW_NS_MAX`] of their
//!   median, else the median. Of an even number, two included, no single one is in the middle: of the two that are, the one
//!   nearer to the service's time counts.
//! - A step of this node's own clock (against one that does not jump) is not believed before it has lasted for
//!   [`SETTLED_NS`]. That is what a node alone has; in a cluster, the others decide sooner.
//! - Where the service's time is ahead, as after a leap that did happen, it goes on at real speed but for
//!   1/[`SLEW`] of it, until it is led back. Where it is behind, it goes forward at once: what counts is trusted.
//!
//! Invariants: what [`Clock::now`] gives grows with every call, and at 1 - 1/[`SLEW`] of the real speed at least.
//!
//! It must not know IO, where readings come from, or who leads. All times are nanoseconds: `mono` of a clock of this
//! machine that never jumps, the others since 1970. A *rate* is how far a clock is ahead of `mono`.

use std::collections::BTreeMap;

const SECOND: i64 = 1_000_000_000;

/// A clock further from the median than this is wrong.
pub const SKEW_NS_MAX: i64 = SECOND;
/// A step of the own clock counts when it has lasted so long.
pub const SETTLED_NS: i64 = 600 * SECOND;
/// Time that is ahead loses one part in so many.
pub const SLEW: i64 = 20;
/// A change of the own clock against `mono` between two readings that is no step: clocks are slewed by at most a thousandth.
const STEP_NS_MIN: i64 = SECOND / 2;
/// A reading of another clock counts for so long.
const FRESH_NS: i64 = 5 * SECOND;
/// A reading that may be wrong by more says nothing.
pub const ERROR_NS_MAX: i64 = SECOND / 2;
/// Most other clocks.
const OTHERS_MAX: usize = 16;

/// How a clock stands, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How far it is ahead of what counts; negative: behind.
    pub ahead_ns: i64,
    /// By how much that may be wrong.
    pub error_ns: i64,
}

#[derive(Debug, Clone, Copy)]
struct Other {
    rate: i64,
    error_ns: i64,
    at: i64,
}

/// The own clock, as far as it is believed.
#[derive(Debug, Clone, Copy)]
struct Own {
    rate: i64,
    /// What it says after a step, and since when.
    stepped: Option<(i64, i64)>,
}

/// See the module's head.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    own: Option<Own>,
    others: BTreeMap<u64, Other>,
    /// The service's time as a rate at `mono`; `None`: nothing is known of it yet.
    service: Option<(i64, i64)>,
    last: i64,
}

impl Clock {
    /// This node's clock says `wall` at `mono`. True if it was stepped.
    pub fn read_own(&mut self, mono: i64, wall: i64) -> bool {
        self.pass(mono);
        let rate = wall.saturating_sub(mono);
        let Some(own) = &mut self.own else {
            self.own = Some(Own {
                rate,
                stepped: None,
            });
            return false;
        };
        let near = |to: i64| rate.saturating_sub(to).saturating_abs() < STEP_NS_MIN;
        if near(own.rate) {
            *own = Own {
                rate,
                stepped: None,
            };
            return false;
        }
        match own.stepped {
            Some((to, since)) if near(to) => {
                own.stepped = Some((rate, since));
                if mono.saturating_sub(since) >= SETTLED_NS {
                    *own = Own {
                        rate,
                        stepped: None,
                    };
                }
                false
            }
            _ => {
                own.stepped = Some((rate, mono));
                true
            }
        }
    }

    /// Clock `id` says `wall` at `mono`, give or take `error_ns`.
    pub fn read_other(&mut self, id: u64, mono: i64, wall: i64, error_ns: i64) {
        let known = self.others.len() < OTHERS_MAX || self.others.contains_key(&id);
        self.pass(mono);
        if known && (0..=ERROR_NS_MAX).contains(&error_ns) {
            let rate = wall.saturating_sub(mono);
            let at = mono;
            self.others.insert(id, Other { rate, error_ns, at });
        }
    }

    /// Forgets clocks that are not among these.
    pub fn keep(&mut self, ids: &[u64]) {
        self.others.retain(|id, _| ids.contains(id));
    }

    /// The service had got to `time` at `mono`, as replicated: it is not before that.
    pub fn served(&mut self, mono: i64, time: i64) {
        self.pass(mono);
        let reached = time.saturating_sub(mono);
        let rate = self.service.map_or(reached, |(_, rate)| rate.max(reached));
        self.service = Some((mono, rate));
    }

    /// The service's time, later than any given before.
    pub fn now(&mut self, mono: i64) -> i64 {
        self.pass(mono);
        let rate = self.rate(mono).unwrap_or(0);
        self.service = Some((mono, rate));
        let time = mono.saturating_add(rate);
        self.last = time.max(self.last.saturating_add(1));
        self.last
    }

    /// Time passes until `mono`, by what was known until then: what comes to be known now changes nothing of before.
    fn pass(&mut self, mono: i64) {
        if let Some((since, _)) = self.service
            && mono > since
            && let Some(rate) = self.rate(mono)
        {
            self.service = Some((mono, rate));
        }
    }

    /// How far the service's time is ahead of the clock that counts.
    pub fn ahead(&self, mono: i64) -> i64 {
        match (self.rate(mono), self.reference(mono)) {
            (Some(rate), Some(reference)) => rate.saturating_sub(reference),
            _ => 0,
        }
    }

    /// How the own clock and the others that were heard stand, as they say themselves.
    pub fn standings(&self, mono: i64) -> (Option<Standing>, BTreeMap<u64, Standing>) {
        let Some(reference) = self.reference(mono) else {
            return (None, BTreeMap::new());
        };
        let standing = |rate: i64, error_ns| Standing {
            ahead_ns: rate.saturating_sub(reference),
            error_ns,
        };
        let own = self.own.map(|own| {
            let says = own.stepped.map_or(own.rate, |(rate, _)| rate);
            standing(says, 0)
        });
        let others = self.fresh(mono);
        let others = others.map(|(id, other)| (*id, standing(other.rate, other.error_ns)));
        (own, others.collect())
    }

    fn fresh(&self, mono: i64) -> impl Iterator<Item = (&u64, &Other)> {
        let fresh = move |other: &Other| mono.saturating_sub(other.at) < FRESH_NS;
        self.others.iter().filter(move |(_, other)| fresh(other))
    }

    /// The rate of the clock that counts.
    fn reference(&self, mono: i64) -> Option<i64> {
        let own = self.own?.rate;
        let mut all: Vec<i64> = self.fresh(mono).map(|(_, other)| other.rate).collect();
        all.push(own);
        all.sort_unstable();
        let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
        let far = |rate: i64| rate.saturating_sub(own).saturating_abs();
        let near_to = self.service.map_or(own, |(_, rate)| rate);
        let distance = |rate: i64| rate.saturating_sub(near_to).saturating_abs();
        let median = match distance(low) <= distance(high) {
            true => low,
            false => high,
        };
        Some(if far(median) <= SKEW_NS_MAX {
            own
        } else {
            median
        })
    }

    /// The service's rate at `mono`.
    fn rate(&self, mono: i64) -> Option<i64> {
        self.course(mono).map(|course| course.rate(mono))
    }

    /// How the service's time goes on from `mono` until something new is known; `None`: no clock was read yet.
    pub fn course(&self, mono: i64) -> Option<Course> {
        let reference = self.reference(mono);
        let (since, rate) = match (self.service, reference) {
            (Some((since, rate)), _) => (since, rate),
            (None, Some(rate)) => (mono, rate),
            (None, None) => return None,
        };
        Some(Course {
            since,
            rate,
            reference: reference.unwrap_or(rate),
        })
    }
}

/// How time goes on while nothing new is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    since: i64,
    rate: i64,
    reference: i64,
}

impl Course {
    /// The service's time at `mono`.
    pub fn at(&self, mono: i64) -> i64 {
        mono.saturating_add(self.rate(mono))
    }

    fn rate(&self, mono: i64) -> i64 {
        let passed = mono.saturating_sub(self.since).max(0);
        let slewed = self.rate.saturating_sub(passed / SLEW);
        slewed.max(self.reference)
    }
}
