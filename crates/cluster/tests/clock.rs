//! The service's time, whatever clocks say.

use haven_cluster::clock::{Clock, SETTLED_NS, SKEW_NS_MAX, SLEW};
use proptest::prelude::*;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
/// What all good clocks say at `mono` 0.
const EPOCH: i64 = 1_795_000_000 * SECOND;

/// A node's clock discipline, fed once a second.
struct World {
    clock: Clock,
    mono: i64,
    /// How far each clock is wrong: this node's, then the others'.
    wrong: Vec<i64>,
}

impl World {
    fn new(wrong: &[i64]) -> Self {
        let mut world = Self {
            clock: Clock::default(),
            mono: 0,
            wrong: wrong.to_vec(),
        };
        world.feed();
        world
    }

    fn feed(&mut self) {
        let says = |wrong: i64, mono: i64| EPOCH + mono + wrong;
        self.clock
            .read_own(self.mono, says(self.wrong[0], self.mono));
        for (id, wrong) in self.wrong.iter().enumerate().skip(1) {
            self.clock.read_other(
                id as u64,
                self.mono,
                says(*wrong, self.mono),
                SECOND / 1_000,
            );
        }
    }

    fn pass(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.mono += SECOND;
            self.feed();
        }
    }

    /// How far the service's time is ahead of the true one.
    fn ahead(&mut self) -> i64 {
        self.clock.now(self.mono) - EPOCH - self.mono
    }
}

#[test]
fn a_clock_that_is_a_day_ahead_leads_nobody_astray() {
    let mut world = World::new(&[0, 0, 0]);
    assert_eq!(world.ahead(), 0);
    world.wrong[0] = DAY;
    world.pass(60);
    assert!(world.ahead().abs() <= SKEW_NS_MAX);
    // It was so when this node started, too.
    let mut world = World::new(&[DAY, 0, 0]);
    assert_eq!(world.ahead(), 0);
    let (own, others) = world.clock.standings(world.mono);
    assert_eq!(own.unwrap().ahead_ns, DAY);
    assert!(others.values().all(|other| other.ahead_ns == 0));
}

#[test]
fn a_step_of_a_node_alone_counts_when_it_has_lasted() {
    for step in [DAY, -DAY] {
        let mut world = World::new(&[0]);
        assert_eq!(world.ahead(), 0);
        world.wrong[0] = step;
        world.pass(60);
        assert_eq!(world.ahead(), 0);
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
fn of_two_clocks_the_one_that_the_service_has_followed_counts() {
    let mut world = World::new(&[0, 0]);
    assert_eq!(world.ahead(), 0);
    world.wrong[1] = DAY;
    world.pass(60);
    assert_eq!(world.ahead(), 0);
    // A leader that begins with a wrong clock knows from the entries what time it is.
    let mut world = World::new(&[DAY, 0]);
    world.clock.served(world.mono, EPOCH + world.mono);
    assert!(world.ahead().abs() <= SKEW_NS_MAX, "{}", world.ahead());
}

#[test]
fn after_a_leap_time_goes_on_at_real_speed_and_is_led_back() {
    let mut world = World::new(&[0, 0, 0]);
    world.clock.served(world.mono, EPOCH + DAY);
    assert_eq!(world.ahead(), DAY);
    let before = world.clock.now(world.mono);
    world.pass(100);
    let passed = world.clock.now(world.mono) - before;
    let want = 100 * SECOND - 100 * SECOND / SLEW;
    // Two calls at one moment are a nanosecond apart.
    assert!((want - passed).abs() < 1_000, "{passed}");
    assert!(world.clock.ahead(world.mono) < DAY);
    world.clock = Clock::default();
    world.feed();
    world
        .clock
        .served(world.mono, EPOCH + world.mono + 3 * SECOND);
    world.pass(3 * SLEW);
    assert!(world.ahead().abs() < SECOND / 1_000);
}

#[test]
fn a_reading_that_is_old_or_vague_says_nothing() {
    let mut world = World::new(&[0, 0, 0]);
    world.wrong = vec![2 * SECOND];
    world.clock = Clock::default();
    world.clock.read_own(0, EPOCH + 2 * SECOND);
    for id in [1, 2] {
        world.clock.read_other(id, 0, EPOCH, SECOND);
        world.clock.read_other(id, -DAY, EPOCH - DAY, 0);
    }
    assert_eq!(world.ahead(), 2 * SECOND);
}

#[derive(Debug, Clone)]
enum Step {
    Wrong(usize, i64),
    Pass(i64),
    Served(i64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let wrong = prop_oneof![-DAY..DAY, -SECOND..SECOND, Just(0i64)];
    prop_oneof![
        2 => (0usize..5, wrong.clone()).prop_map(|(clock, wrong)| Step::Wrong(clock, wrong)),
        4 => (1i64..30).prop_map(Step::Pass),
        1 => wrong.prop_map(Step::Served),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Time grows, and never stands still: whatever clocks do, it passes at 1 - 1/SLEW of the real speed at least.
    #[test]
    fn time_never_stands_still(count in 1usize..6, steps in prop::collection::vec(any_step(), 0..60)) {
        let mut world = World::new(&vec![0; count]);
        let mut before = (world.mono, world.clock.now(world.mono));
        for step in steps {
            match step {
                Step::Wrong(clock, wrong) => world.wrong[clock % count] = wrong,
                Step::Pass(seconds) => world.pass(seconds),
                Step::Served(wrong) => world.clock.served(world.mono, EPOCH + world.mono + wrong),
            }
            let now = (world.mono, world.clock.now(world.mono));
            prop_assert!(now.1 > before.1, "time grows");
            let (real, passed) = (now.0 - before.0, now.1 - before.1);
            prop_assert!(passed >= real - real / SLEW - 1_000, "{passed} in {real}");
            before = now;
        }
    }

    /// While most clocks are right, the service's time is, whatever the rest say.
    #[test]
    fn a_minority_of_wrong_clocks_changes_nothing(
        count in prop::sample::select(vec![3usize, 5]),
        steps in prop::collection::vec((0usize..2, -DAY..DAY, 1i64..30), 0..40),
    ) {
        let mut world = World::new(&vec![0; count]);
        for (clock, wrong, seconds) in steps {
            world.wrong[clock % (count / 2)] = wrong;
            world.pass(seconds);
            let ahead = world.ahead();
            prop_assert!(ahead.abs() <= SKEW_NS_MAX + 1_000, "{ahead}");
        }
    }
}
