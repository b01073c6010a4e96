//! Clocks that are wrong, as the node that tells sees them.

use super::problem;
use crate::types::{Facts, Problem};

/// A clock further away than this is wrong: of three or more, the service's time does not follow it.
const AHEAD_MS_MAX: i64 = 1_000;

/// What is wrong, and what to do.
pub(super) fn problems(facts: &Facts) -> Vec<Problem> {
    let own = facts.nodes.iter().find(|node| node.name == facts.asked);
    let Some(clocks) = own.and_then(|node| node.report.as_ref()).map(|r| &r.clocks) else {
        return Vec::new();
    };
    let wrong = clocks
        .iter()
        .filter(|(_, clock)| clock.is_beyond(AHEAD_MS_MAX));
    let told = wrong.map(|(name, clock)| {
        let far = clock.ahead_ms.unsigned_abs();
        let way = match clock.ahead_ms > 0 {
            true => "ahead of",
            false => "behind",
        };
        let far = format!("{}.{} s {way}", far / 1_000, far % 1_000 / 100);
        one(name, &far, clocks.len())
    });
    told.collect()
}

/// A clock is so far from the one that counts, of so many that are known.
fn one(name: &str, far: &str, known: usize) -> Problem {
    match known {
        1 => problem(
            format!("the clock of node {name} was stepped: it is {far} the time it had before"),
            "if it is right now, nothing: the service's time follows when that has lasted for ten minutes, or after \
             a restart; else set it (chronyc makestep, timedatectl)",
        ),
        2 => problem(
            format!(
                "the clocks of two nodes differ, and no third says which is wrong: that of node {name} is {far} the \
                 one that the service follows"
            ),
            "set the wrong one (chronyc makestep, timedatectl), and let both follow the same servers; a third node, \
             or a witness, would decide",
        ),
        _ => problem(
            format!(
                "the clock of node {name} is {far} those of most nodes; the service's time does not follow it"
            ),
            format!(
                "set the clock of node {name} (chronyc makestep, timedatectl), and let all nodes follow the same \
                 servers"
            ),
        ),
    }
}
