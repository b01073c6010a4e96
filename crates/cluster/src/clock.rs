//! The service's time: readings of clocks in, time out.
//!
//! Entries carry the leader's time, and replicated time never goes back. So a leader whose clock is a day ahead would take
//! everybody's time a day ahead, and no later leader could go on from there but by nanoseconds. Therefore:
//! - The clock that *counts* is the median of the voters' clocks, so that no minority moves it. A silent voter's clock may be
//!   anywhere; of the clocks that can be the median then, the one nearest to the service's time counts. (Of two
//!   clocks that is the one that the service has followed.) This node's own clock counts while it is within
//!   [`SKEW_NS_MAX`] of it.
//! - While so many are silent that the median can be anywhere, none counts: the service's time goes on at real speed.
//! - A node alone has but its own clock. A step of that (against one that does not jump) is not believed before it has
//!   lasted for [`SETTLED_NS`].
//! - Where the service's time is ahead, as after a leap that did happen, it goes on at real speed but for
//!   1/[`SLEW`] of it, until it is led back. Where it is behind, it goes forward at once: what counts is trusted.
//!
//! Invariant: once it has begun, the service's time passes at 1 - 1/[`SLEW`] of the real speed at least, whatever clocks say.
//! (That times grow from entry to entry is the machine's business.)
//!
//! It must not know IO, where readings come from, or who leads. All times are nanoseconds: `mono` of a clock of this
//! machine that never jumps, the others since 1970. A *rate* is how far a clock is ahead of `mono`.

use std::collections::BTreeMap;

const SECOND: i64 = 1_000_000_000;

/// A clock further from the median than this is wrong.
pub const SKEW_NS_MAX: i64 = SECOND;
/// A step of the clock of a node alone counts when it has lasted so long.
pub const SETTLED_NS: i64 = 600 * SECOND;
/// Time that is ahead loses one part in so many.
pub const SLEW: i64 = 20;
/// A change of the own clock against `mono` between two readings that is no step: clocks are slewed by at most a thousandth.
const STEP_NS_MIN: i64 = SECOND / 2;
/// Two clocks drift apart by less than one part in so many.
const DRIFT: i64 = 1_000;
/// A clock that was heard counts for so long.
const FRESH_NS: i64 = 5 * SECOND;
/// A reading that may be wrong by more says nothing.
pub const ERROR_NS_MAX: i64 = SECOND / 2;

/// How a clock stands, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How far it is ahead of what counts; negative: behind.
    pub ahead_ns: i64,
    /// By how much that may be wrong.
    pub error_ns: i64,
}

/// Another member.
#[derive(Debug, Clone, Copy)]
struct Other {
    votes: bool,
    reading: Option<Reading>,
}

/// What is known of its clock.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// The best of late.
    rate: i64,
    error_ns: i64,
    at: i64,
    /// When it was heard last.
    heard: i64,
}

impl Reading {
    /// By how much it may be wrong by now.
    fn error_at(self, mono: i64) -> i64 {
        let age = mono.saturating_sub(self.at).max(0);
        self.error_ns.saturating_add(age / DRIFT)
    }
}

/// The own clock.
#[derive(Debug, Clone, Copy)]
struct Own {
    /// What it says.
    rate: i64,
    /// What it said before a step that is not believed yet, and since when that is.
    before: Option<(i64, i64)>,
}

impl Own {
    /// What is believed of it if there is no other.
    fn believed(self) -> i64 {
        self.before.map_or(self.rate, |(rate, _)| rate)
    }
}

/// See the module's head.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    own: Option<Own>,
    others: BTreeMap<u64, Other>,
    /// The service's time as a rate at `mono`; `None`: nothing is known of it yet.
    service: Option<(i64, i64)>,
}

impl Clock {
    /// These are the other members, and whether they vote.
    pub fn members(&mut self, mono: i64, others: &[(u64, bool)]) {
        self.change(mono, |clock| {
            let of = |id| clock.others.get(id).and_then(|other| other.reading);
            let others = others.iter().map(|(id, votes)| {
                let (votes, reading) = (*votes, of(id));
                (*id, Other { votes, reading })
            });
            clock.others = others.collect();
        });
    }

    /// This node's clock says `wall` at `mono`. If it was stepped: by how much.
    pub fn read_own(&mut self, mono: i64, wall: i64) -> Option<i64> {
        let rate = wall.saturating_sub(mono);
        let last = self.own;
        let near = |to: i64| rate.saturating_sub(to).saturating_abs() < STEP_NS_MIN;
        let stepped = last.filter(|last| !near(last.rate));
        let before = last.and_then(|last| match last.before {
            Some((before, _)) if near(before) => None,
            Some((before, _)) if stepped.is_some() => Some((before, mono)),
            Some((_, since)) if mono.saturating_sub(since) >= SETTLED_NS => None,
            None if stepped.is_some() => Some((last.rate, mono)),
            before => before,
        });
        self.change(mono, |clock| clock.own = Some(Own { rate, before }));
        stepped.map(|last| rate.saturating_sub(last.rate))
    }

    /// At `mono` it is known of member `id`'s clock how far it is ahead of `mono`, give or take `error_ns`.
    pub fn read_other(&mut self, id: u64, mono: i64, rate: i64, error_ns: i64) {
        if !(0..=ERROR_NS_MAX).contains(&error_ns) {
            return;
        }
        let new = Reading {
            rate,
            error_ns,
            at: mono,
            heard: mono,
        };
        // A vague reading is no better than a good one before, unless it shows that the clock was set.
        let takes = |old: Reading| {
            let old_error_ns = old.error_at(mono);
            let apart = rate.saturating_sub(old.rate).saturating_abs();
            error_ns <= old_error_ns || apart > error_ns.saturating_add(old_error_ns)
        };
        self.change(mono, |clock| {
            if let Some(other) = clock.others.get_mut(&id) {
                let kept = other.fresh(mono).filter(|old| !takes(*old));
                let kept = kept.map(|old| Reading { heard: mono, ..old });
                other.reading = Some(kept.unwrap_or(new));
            }
        });
    }

    /// The service had got to `time` at `mono`, as replicated: it is not before that.
    pub fn served(&mut self, mono: i64, time: i64) {
        self.change(mono, |clock| {
            let reached = time.saturating_sub(mono);
            let rate = clock.service.map_or(reached, |(_, rate)| rate.max(reached));
            clock.service = Some((mono, rate));
        });
    }

    /// This node begins to lead: from now on the service has a time, though nothing was ever served.
    pub fn begin(&mut self, mono: i64) {
        self.pass(mono);
        self.service = self.rate(mono).map(|rate| (mono, rate));
    }

    /// What was known holds until `mono`, what comes to be known now from then on.
    fn change(&mut self, mono: i64, change: impl FnOnce(&mut Self)) {
        self.pass(mono);
        change(self);
        self.pass(mono);
    }

    fn pass(&mut self, mono: i64) {
        if self.service.is_some_and(|(since, _)| mono >= since) {
            self.service = self.rate(mono).map(|rate| (mono, rate));
        }
    }

    /// How far the service's time is ahead of the clock that counts.
    pub fn ahead(&self, mono: i64) -> i64 {
        match (self.rate(mono), self.reference(mono)) {
            (Some(rate), Some(reference)) => rate.saturating_sub(reference),
            _ => 0,
        }
    }

    /// How the own clock and the others that were heard stand; nothing while it is not known which counts.
    pub fn standings(&self, mono: i64) -> (Option<Standing>, BTreeMap<u64, Standing>) {
        let Some(reference) = self.reference(mono) else {
            return (None, BTreeMap::new());
        };
        let standing = |rate: i64, error_ns| Standing {
            ahead_ns: rate.saturating_sub(reference),
            error_ns,
        };
        let own = self.own.map(|own| standing(own.rate, 0));
        let others = self.others.iter().filter_map(|(id, other)| {
            let reading = other.fresh(mono)?;
            Some((*id, standing(reading.rate, reading.error_at(mono))))
        });
        (own, others.collect())
    }

    /// The rate of the clock that counts.
    fn reference(&self, mono: i64) -> Option<i64> {
        let own = self.own?;
        let voters: Vec<&Other> = self.others.values().filter(|other| other.votes).collect();
        if voters.is_empty() {
            return Some(own.believed());
        }
        let fresh = voters.iter().filter_map(|other| other.fresh(mono));
        let mut rates: Vec<i64> = fresh.map(|reading| reading.rate).collect();
        rates.push(own.rate);
        rates.sort_unstable();
        let all = voters.len() + 1;
        let silent = all - rates.len();
        // Were the silent ones all at one end or all at the other, the median would be the first or the last of these.
        let first = ((all - 1) / 2).checked_sub(silent)?;
        let near_to = self.service.map_or(own.rate, |(_, rate)| rate);
        let distance = |from: i64, to: i64| from.saturating_sub(to).saturating_abs();
        let medians = rates.get(first..=all / 2)?.iter();
        let median = *medians.min_by_key(|rate| distance(**rate, near_to))?;
        Some(match distance(median, own.rate) <= SKEW_NS_MAX {
            true => own.rate,
            false => median,
        })
    }

    /// The service's rate at `mono`.
    fn rate(&self, mono: i64) -> Option<i64> {
        self.course(mono).map(|course| course.rate(mono))
    }

    /// How the service's time goes on from `mono` until something new is known; `None`: no clock was read yet.
    pub fn course(&self, mono: i64) -> Option<Course> {
        let reference = self.reference(mono);
        let (since, rate) = match self.service {
            Some(known) => known,
            None => (mono, reference.or(self.own.map(|own| own.rate))?),
        };
        Some(Course {
            since,
            rate,
            reference: reference.unwrap_or(rate),
        })
    }
}

impl Other {
    fn fresh(&self, mono: i64) -> Option<Reading> {
        self.reading
            .filter(|reading| mono.saturating_sub(reading.heard) < FRESH_NS)
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
