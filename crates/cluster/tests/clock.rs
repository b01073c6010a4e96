//! The service's time, whatever clocks say.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use haven_cluster::clock::{Clock, SETTLED_NS, SKEW_NS_MAX, SLEW};
use proptest::prelude::*;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
/// What all good clocks say at `mono` 0.
const EPOCH: i64 = 1_795_000_000 * SECOND;
const ERROR: i64 = SECOND / 1_000;

/// A node and its cluster, of which all vote. Whoever is heard is heard once a second.
struct World {
    clock: Clock,
    mono: i64,
    /// How far each clock is wrong: this node's, then the others'.
    wrong: Vec<i64>,
    silent: Vec<bool>,
}

impl World {
    /// Of a node that has just heard the others.
    fn new(wrong: &[i64]) -> Self {
        let mut world = Self::deaf(wrong);
        world.silent.fill(false);
        world.feed();
        world
    }

    /// Of a node that has heard nobody yet.
    fn deaf(wrong: &[i64]) -> Self {
        let mut world = Self {
            clock: Clock::default(),
            mono: 0,
            wrong: wrong.to_vec(),
            silent: vec![true; wrong.len()],
        };
        let others: Vec<(u64, bool)> = (1..wrong.len() as u64).map(|id| (id, true)).collect();
        world.clock.members(0, &others);
        world.feed();
        world
    }

    fn feed(&mut self) {
        let own = EPOCH + self.mono + self.wrong[0];
        self.clock.read_own(self.mono, own);
        for (id, wrong) in self.wrong.iter().enumerate().skip(1) {
            if !self.silent[id] {
                self.clock
                    .read_other(id as u64, self.mono, EPOCH + wrong, ERROR);
            }
        }
    }

    fn pass(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.mono += SECOND;
            self.feed();
        }
    }

    /// The service's time.
    fn time(&self) -> i64 {
        self.clock.course(self.mono).unwrap().at(self.mono)
    }

    /// How far that is ahead of the true one.
    fn ahead(&self) -> i64 {
        self.time() - EPOCH - self.mono
    }

    /// It leads, and the service has got to a time that is so far ahead.
    fn lead(&mut self, ahead: i64) {
        self.clock.served(self.mono, EPOCH + self.mono + ahead);
        self.clock.begin(self.mono);
    }
}

#[test]
fn a_clock_that_is_a_day_ahead_leads_nobody_astray() {
    let mut world = World::new(&[0, 0, 0]);
    world.lead(0);
    world.wrong[0] = DAY;
    world.pass(60);
    assert!(world.ahead().abs() <= SKEW_NS_MAX);
    // It was so when this node started, too, and the volume is new.
    let mut world = World::new(&[DAY, 0, 0]);
    world.clock.begin(world.mono);
    assert_eq!(world.ahead(), 0);
    let (own, others) = world.clock.standings(world.mono);
    assert_eq!(own.unwrap().ahead_ns, DAY);
    assert!(others.values().all(|other| other.ahead_ns == 0));
}

#[test]
fn a_node_that_hears_no_majority_goes_on_from_what_was_served() {
    // It leads before it has heard the others' clocks.
    let mut world = World::deaf(&[DAY, 0, 0]);
    world.lead(0);
    world.pass(3);
    assert!(
        world.ahead().abs() < SECOND / 1_000_000,
        "{}",
        world.ahead()
    );
    assert!(world.clock.standings(world.mono).0.is_none());
    // One says that it is not as early as that, and of two the one nearer to what was served is believed.
    world.wrong[1] = SECOND * 60;
    world.silent[1] = false;
    world.pass(1);
    assert_eq!(world.ahead(), 60 * SECOND);
    // It is cut off for long, and then leads on.
    let mut world = World::new(&[DAY, 0, 0]);
    world.lead(0);
    world.silent = vec![true; 3];
    world.pass(3_600);
    assert_eq!(world.ahead(), 0);
}

#[test]
fn the_right_one_of_five_is_found_while_two_are_silent() {
    for wrong in [[DAY, DAY], [DAY, -DAY], [2 * DAY, DAY], [-DAY, -DAY]] {
        let mut world = World::new(&[wrong[0], wrong[1], 0, 0, 0]);
        world.lead(0);
        world.silent[3..].fill(true);
        world.pass(60);
        assert_eq!(world.ahead(), 0, "{wrong:?}");
    }
}

#[test]
fn who_does_not_vote_is_shown_and_counts_for_nothing() {
    let mut clock = Clock::default();
    clock.read_own(0, EPOCH);
    clock.members(0, &[(1, true), (2, false), (3, false)]);
    for (id, wrong) in [(1, 0), (2, DAY), (3, DAY), (9, DAY)] {
        clock.read_other(id, 0, EPOCH + wrong, 0);
    }
    assert_eq!(clock.course(0).unwrap().at(0), EPOCH);
    let (_, others) = clock.standings(0);
    let ahead = others.iter().map(|(id, other)| (*id, other.ahead_ns));
    assert_eq!(ahead.collect::<Vec<_>>(), [(1, 0), (2, DAY), (3, DAY)]);
    clock.members(0, &[(1, true)]);
    assert_eq!(clock.standings(0).1.len(), 1);
}

#[test]
fn a_step_of_a_node_alone_counts_when_it_has_lasted() {
    for step in [DAY, -DAY] {
        let mut world = World::new(&[0]);
        world.lead(0);
        world.wrong[0] = step;
        world.pass(60);
        assert_eq!(world.ahead(), 0);
        let (own, _) = world.clock.standings(world.mono);
        assert_eq!(own.unwrap().ahead_ns, step, "it is shown");
        world.wrong[0] = 0;
        world.pass(1);
        assert_eq!(world.ahead(), 0, "it was set back");
        world.wrong[0] = step;
        world.pass(SETTLED_NS / SECOND + 2);
        match step > 0 {
            true => assert_eq!(world.ahead(), step),
            // Time does not go back: it goes more slowly.
            false => assert!((-SECOND..0).contains(&world.ahead())),
        }
    }
}

#[test]
fn steps_are_told_and_slewing_is_none() {
    let mut clock = Clock::default();
    assert_eq!(clock.read_own(0, EPOCH), None);
    let mut wall = EPOCH;
    for second in 1..1_000 {
        // A thousandth too fast.
        wall += SECOND + SECOND / 1_000;
        assert_eq!(clock.read_own(second * SECOND, wall), None);
    }
    assert_eq!(clock.read_own(999 * SECOND, wall - DAY), Some(-DAY));
    assert_eq!(clock.read_own(999 * SECOND, wall - DAY), None);
    assert_eq!(clock.read_own(999 * SECOND, wall), Some(DAY));
}

#[test]
fn of_two_clocks_the_one_that_the_service_has_followed_counts() {
    let mut world = World::new(&[0, 0]);
    world.lead(0);
    for wrong in [[0, DAY], [DAY, 0], [-DAY, 0], [0, -DAY]] {
        world.wrong = wrong.to_vec();
        world.pass(60);
        assert_eq!(world.ahead(), 0, "{wrong:?}");
        world.wrong = vec![0; 2];
        world.pass(1);
    }
    // Both were set: then that is so.
    world.wrong = vec![60 * SECOND; 2];
    world.pass(1);
    assert_eq!(world.ahead(), 60 * SECOND);
    // A leader that begins with a wrong clock knows from the entries what time it is.
    let mut world = World::new(&[DAY, 0]);
    world.lead(-3_600 * SECOND);
    assert_eq!(world.ahead(), 0);
}

#[test]
fn after_a_leap_time_goes_on_at_real_speed_and_is_led_back() {
    let mut world = World::new(&[0, 0, 0]);
    world.lead(DAY);
    assert_eq!(world.ahead(), DAY);
    let before = world.time();
    world.pass(100);
    assert_eq!(world.time() - before, 100 * SECOND - 100 * SECOND / SLEW);
    assert!(world.clock.ahead(world.mono) < DAY);
    let mut world = World::new(&[0, 0, 0]);
    world.lead(3 * SECOND);
    world.pass(3 * SLEW);
    assert_eq!(world.ahead(), 0);
}

#[test]
fn a_follower_knows_how_time_went_on_since_the_last_entry() {
    // The leader of a service that is a day ahead has had nothing to do for an hour, and dies.
    let mut world = World::new(&[0, 0, 0]);
    world.clock.served(world.mono, EPOCH + DAY);
    world.pass(3_600);
    world.clock.served(world.mono, EPOCH + DAY);
    world.clock.begin(world.mono);
    let want = DAY - 3_600 * SECOND / SLEW;
    assert_eq!(world.ahead(), want);
}

#[test]
fn a_reading_that_is_old_or_vague_says_nothing() {
    let mut world = World::deaf(&[2 * SECOND, 0, 0]);
    for id in [1, 2] {
        world.clock.read_other(id, -DAY, EPOCH, 0);
        world.clock.read_other(id, 0, EPOCH, SECOND);
        world.clock.read_other(id, 0, EPOCH, -1);
    }
    assert_eq!(world.ahead(), 2 * SECOND, "nothing is known but the own");
    for odd in [i64::MIN, i64::MAX] {
        world.clock.read_other(1, 0, odd, 0);
        world.clock.served(0, odd);
        world.clock.read_own(0, odd);
        world.clock.begin(0);
        assert!(world.clock.course(i64::MAX).is_some());
    }
}

#[test]
fn a_good_reading_holds_against_vague_ones_until_the_clock_is_set() {
    let mut clock = Clock::default();
    clock.members(0, &[(1, true), (2, true)]);
    clock.read_own(0, EPOCH);
    let ahead = |clock: &Clock, mono| clock.standings(mono).1[&1];
    for second in 0..100 {
        let mono = second * SECOND;
        clock.read_other(2, mono, EPOCH, 0);
        let (wrong, error) = match second % 10 {
            0 => (0, ERROR),
            _ => (200 * ERROR, 300 * ERROR),
        };
        clock.read_other(1, mono, EPOCH + wrong, error);
        let seen = ahead(&clock, mono);
        assert_eq!(seen.ahead_ns, 0);
        assert!((ERROR..20 * ERROR).contains(&seen.error_ns), "{seen:?}");
    }
    let mono = 100 * SECOND;
    clock.read_other(2, mono, EPOCH, 0);
    clock.read_other(1, mono, EPOCH + SECOND, 300 * ERROR);
    assert_eq!(ahead(&clock, mono).ahead_ns, SECOND);
}

#[derive(Debug, Clone)]
enum Step {
    Wrong(usize, i64),
    Silent(usize, bool),
    Pass(i64),
    Served(i64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let wrong = prop_oneof![-DAY..DAY, -SECOND..SECOND, Just(0i64)];
    prop_oneof![
        2 => (0usize..5, wrong.clone()).prop_map(|(clock, wrong)| Step::Wrong(clock, wrong)),
        1 => (0usize..5, any::<bool>()).prop_map(|(clock, silent)| Step::Silent(clock, silent)),
        4 => (1i64..30).prop_map(Step::Pass),
        1 => wrong.prop_map(Step::Served),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever clocks do, time passes at 1 - 1/SLEW of the real speed at least.
    #[test]
    fn time_never_stands_still(count in 1usize..6, steps in prop::collection::vec(any_step(), 0..60)) {
        let mut world = World::new(&vec![0; count]);
        world.clock.begin(world.mono);
        let mut before = (world.mono, world.time());
        for step in steps {
            // What was told to be the time from here on, which nobody has looked at since.
            let told = world.clock.course(world.mono).unwrap();
            match step {
                Step::Wrong(clock, wrong) => world.wrong[clock % count] = wrong,
                Step::Silent(clock, silent) => world.silent[clock % count] = silent,
                Step::Pass(seconds) => world.pass(seconds),
                Step::Served(wrong) => world.clock.served(world.mono, EPOCH + world.mono + wrong),
            }
            let now = (world.mono, world.time());
            let (real, passed) = (now.0 - before.0, now.1 - before.1);
            prop_assert!(passed >= real - real / SLEW - 60, "{passed} in {real}");
            prop_assert!(told.at(before.0 + SECOND / 5) - before.1 >= SECOND / 5 - SECOND / 5 / SLEW);
            before = now;
        }
    }

    /// While most clocks are right, the service's time is, whatever the rest say, and whoever is not heard.
    #[test]
    fn a_minority_of_wrong_clocks_changes_nothing(
        count in prop::sample::select(vec![3usize, 5]),
        steps in prop::collection::vec((0usize..2, -DAY..DAY, 0usize..5, any::<bool>(), 1i64..30), 0..40),
    ) {
        let mut world = World::new(&vec![0; count]);
        world.lead(0);
        for (clock, wrong, other, silent, seconds) in steps {
            world.wrong[clock % (count / 2)] = wrong;
            world.silent[other % count] = silent;
            world.pass(seconds);
            let ahead = world.ahead();
            prop_assert!(ahead.abs() <= SKEW_NS_MAX, "{ahead}");
        }
    }
}
