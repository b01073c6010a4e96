//! Clocks that are wrong, as the node that tells sees them.

use super::problem;
use crate::types::{ClockView, Facts, Problem};

/// A clock further away than this is wrong. So far off, the service's time does not follow it.
const AHEAD_MS_MAX: i64 = 1_000;

/// What is wrong, and what to do.
pub(super) fn problems(facts: &Facts) -> Vec<Problem> {
    let own = facts.nodes.iter().find(|node| node.name == facts.asked);
    let Some(clocks) = own.and_then(|node| node.report.as_ref()).map(|r| &r.clocks) else {
        return Vec::new();
    };
    let wrong = clocks.iter().filter(|(_, clock)| is_wrong(clock));
    let told = wrong.map(|(name, clock)| {
        let far = clock.ahead_ms.unsigned_abs();
        let far = format!("{}.{} s", far / 1_000, far % 1_000 / 100);
        let way = if clock.ahead_ms > 0 { "ahead of" } else { "behind" };
        match clocks.len() {
            1 => problem(
                format!("the clock of node {name} was stepped: it is {far} {way} the time it had before"),
                "if it is right now, nothing: the service's time follows when that has lasted for ten minutes, or after \
                 a restart; else set it (chronyc makestep, timedatectl)",
            ),
            2 => problem(
                format!("the clocks of two nodes differ, and no third says which is wrong: that of node {name} is {far} {way} the one that the service follows"),
                "set the wrong one (chronyc makestep, timedatectl), and let both follow the same servers; a third node, or a witness, would decide",
            ),
            _ => problem(
                format!("the clock of node {name} is {far} {way} those of most nodes; the service's time does not follow it"),
                format!("set the clock of node {name} (chronyc makestep, timedatectl), and let all nodes follow the same servers"),
            ),
        }
    });
    told.collect()
}

fn is_wrong(clock: &ClockView) -> bool {
    clock
        .ahead_ms
        .saturating_abs()
        .saturating_sub(clock.error_ms)
        > AHEAD_MS_MAX
}
