//! What is wrong with clients' memory on a node.

use super::problem;
use crate::memory::{Blamed, Memory};
use crate::types::Problem;

/// What happened longer ago is over.
const RECENT_MS: u64 = 60_000;

/// What a node's clients do to each other, if it was lately. What is merely refused holds up nobody, and a stranger shall
/// not be able to make a service look ill.
pub(super) fn problems(node: &str, memory: &Memory, problems: &mut Vec<Problem>) {
    let recent = memory.lost.most.filter(|one| one.ms_ago < RECENT_MS);
    if let Some(Blamed { address, count, .. }) = recent {
        problems.push(problem(
            format!(
                "node {node}: clients wait for memory; connections of {address} were closed {count} times because they held \
                 some and stood still"
            ),
            format!(
                "look at what {address} does (ss -tn on it; haven status --json shows who has how much): take it out of \
                 the exports if it is no client; otherwise raise limits.inflight_mib and limits.answers_mib"
            ),
        ));
    }
}
