//! Processes that are not the node that they say they are: a copied data directory, a cloned machine, an address that was
//! changed by hand. What they cause (a node that is not heard, one that hears nobody) is not the network's fault.

use super::{fresh, problem};
use crate::types::{Facts, NodeFacts, NodeStatus, Problem, Stray};

/// What is wrong, and what to do.
pub(super) fn problems(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    let own = facts.nodes.iter().find(|node| node.name == facts.asked);
    if let Some((node, why)) = own.and_then(refusal) {
        problems.push(match moved(node) {
            Some(listens) => elsewhere(node, &format!("it listens at {listens}")),
            None => problem(
                format!("the other nodes refuse node {}", node.name),
                why.to_owned(),
            ),
        });
    }
    let mut told: Vec<&Stray> = Vec::new();
    for stray in fresh(&facts.nodes).flat_map(|(_, report)| &report.strays) {
        let known = told
            .iter()
            .any(|one| (&one.node, one.listens) == (&stray.node, stray.listens));
        let Some(node) = facts.nodes.iter().find(|node| node.name == stray.node) else {
            continue;
        };
        if !known {
            told.push(stray);
            problems.push(stray_problem(node, stray));
        }
    }
    problems
}

/// Whether the node that tells is itself refused by the others.
pub(super) fn is_refused(facts: &Facts) -> bool {
    let mut own = facts.nodes.iter().filter(|node| node.name == facts.asked);
    own.any(|node| refusal(node).is_some())
}

/// Whether what is said by [`problems`] says why a node is not heard or does not follow.
pub(super) fn explains(facts: &Facts, node: &NodeStatus) -> bool {
    if is_refused(facts) {
        return true;
    }
    let moved = |stray: &Stray| stray.node == node.facts.name && stray.listens.is_some();
    let heard = node
        .facts
        .heard_ms_ago
        .is_some_and(|ms| ms < super::SILENT_MS);
    !heard && fresh(&facts.nodes).any(|(_, report)| report.strays.iter().any(moved))
}

fn refusal(node: &NodeFacts) -> Option<(&NodeFacts, &str)> {
    Some((node, node.report.as_ref()?.stray.as_deref()?))
}

/// Where a node listens, if the cluster knows it elsewhere.
fn moved(node: &NodeFacts) -> Option<std::net::SocketAddr> {
    let listens = node.report.as_ref()?.listens?;
    (listens != node.address).then_some(listens)
}

fn stray_problem(node: &NodeFacts, stray: &Stray) -> Problem {
    let (name, from) = (&node.name, stray.from);
    match stray.listens {
        Some(listens) => {
            let who = format!("a process at {from} says it is that node and listens at {listens}");
            elsewhere(node, &who)
        }
        None => problem(
            format!(
                "two processes run as node {name}, one of them at {from}: its vote does not count"
            ),
            format!(
                "its machine was cloned, or its data directory copied: stop one of the two. A new machine joins with \
                 haven join; it does not take node {name}'s data along"
            ),
        ),
    }
}

fn elsewhere(node: &NodeFacts, who: &str) -> Problem {
    let (name, address) = (&node.name, node.address);
    problem(
        format!("the cluster knows node {name} at {address}, but {who}: the others refuse it"),
        format!(
            "if cluster.address was changed in its configuration: set it back to {address} and restart it; for another \
             address, haven node remove {name} and let it join again. If its data directory was copied: stop the copy"
        ),
    )
}
