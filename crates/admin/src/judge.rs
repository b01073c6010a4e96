//! What a cluster's state means.
//!
//! A function of its input: no clock, no IO. Every problem comes with what to do about it; the verdict follows
//! from who serves and whether there are problems.

use crate::types::{
    AddressStatus, ClusterStatus, Difference, Facts, Failover, NodeFacts, NodeReport, NodeState,
    NodeStatus, Phase, Problem, Role, Verdict,
};
use std::net::IpAddr;
use std::time::Duration;

mod clocks;
mod identity;
pub mod settings;

/// A node not heard for so long counts as down. Reports come several times a second.
pub const SILENT: Duration = Duration::from_millis(SILENT_MS);
const SILENT_MS: u64 = 2_000;
/// A node that lives has told how it is within this time.
const LATE_MS: u64 = 600;
/// A report of this age is the newest there is, if its node lives.
const RECENT_MS: u64 = 300;
/// A node that lacks more entries than this is catching up; fewer are merely under way.
pub const LAG_ENTRIES: u64 = 1_000;

/// Judges a cluster.
pub fn judge(facts: Facts) -> ClusterStatus {
    let leader = leader(&facts);
    let nodes: Vec<NodeStatus> = facts
        .nodes
        .iter()
        .map(|node| status_of(node, leader.as_ref()))
        .collect();
    let majority = nodes.len() / 2 + 1;
    let mut problems = identity::problems(&facts);
    service_problems(&facts, &nodes, leader.as_ref(), majority, &mut problems);
    let addresses = addresses(&facts, &nodes, leader.as_ref(), &mut problems);
    for node in nodes.iter().filter(|n| !identity::explains(&facts, n)) {
        node_problems(node, leader.is_some(), &mut problems);
    }
    standby_problems(&nodes, &mut problems);
    let differences = differences(&facts, leader.as_ref());
    let grave = differences.iter().filter(|found| found.grave);
    problems.extend(grave.map(settings::problem));
    problems.extend(clocks::problems(&facts));
    let serving = nodes.iter().any(|n| n.state == NodeState::Serving);
    let verdict = match (serving, problems.is_empty()) {
        (false, _) => Verdict::Down,
        (true, true) => Verdict::Healthy,
        (true, false) => Verdict::Degraded,
    };
    ClusterStatus {
        verdict,
        leader: leader.map(|l| l.node),
        term: fresh(&facts.nodes)
            .map(|(_, r)| r.term)
            .max()
            .unwrap_or_default(),
        majority,
        addresses,
        failovers: failovers(&facts.nodes),
        differences,
        problems,
        nodes,
        cluster: facts.cluster,
        service: facts.service,
        asked: facts.asked,
        now_unix_ms: facts.now_unix_ms,
    }
}

fn differences(facts: &Facts, leader: Option<&NodeReport>) -> Vec<Difference> {
    let nodes: Vec<_> = fresh(&facts.nodes)
        .map(|(node, report)| (node.name.as_str(), report))
        .collect();
    settings::differences(&nodes, leader.map(|leader| leader.node.as_str()))
}

/// What the nodes tell, together.
fn failovers(nodes: &[NodeFacts]) -> Vec<Failover> {
    let mut known = Vec::new();
    let told = nodes.iter().filter_map(|n| n.report.as_ref());
    for failover in told.flat_map(|report| &report.failovers) {
        Failover::note(&mut known, failover.clone(), |known, new| {
            (new.at_unix_ms, new.stall_ms) > (known.at_unix_ms, known.stall_ms)
        });
    }
    known
}

/// Nodes heard lately, with their reports.
fn fresh(nodes: &[NodeFacts]) -> impl Iterator<Item = (&NodeFacts, &NodeReport)> {
    nodes
        .iter()
        .filter(|n| n.heard_ms_ago.is_some_and(|ms| ms < SILENT_MS))
        .filter_map(|n| Some((n, n.report.as_ref()?)))
}

/// The report of the node that leads: of several, a former one does not know of its end yet.
fn leader(facts: &Facts) -> Option<NodeReport> {
    fresh(&facts.nodes)
        .filter(|(_, r)| r.role == Role::Leader && (r.serving || r.leader.is_some()))
        .max_by_key(|(_, r)| (r.term, r.serving))
        .map(|(_, r)| r.clone())
}

fn status_of(node: &NodeFacts, leader: Option<&NodeReport>) -> NodeStatus {
    let report = fresh(std::slice::from_ref(node)).next().map(|(_, r)| r);
    let lag_entries = leader.and_then(|leader| {
        let here = match (leader.peers.get(&node.name), &report) {
            _ if leader.node == node.name => return None,
            (Some(peer), _) => peer.matched?,
            (None, Some(report)) => report.last_log,
            (None, None) => return None,
        };
        Some(leader.last_log.saturating_sub(here))
    });
    let state = match report {
        None => NodeState::Down,
        Some(report) => match leader {
            Some(l) if l.node == node.name && report.serving => NodeState::Serving,
            Some(l) if l.node == node.name => NodeState::Leading,
            _ if report.role == Role::Stopped => NodeState::Down,
            Some(l) if report.leader.as_ref() != Some(&l.node) => {
                // Perhaps the former leader, which has died a moment ago.
                match node.heard_ms_ago {
                    Some(ms) if ms < LATE_MS => NodeState::Searching,
                    _ => NodeState::Down,
                }
            }
            None => NodeState::Searching,
            Some(l) => {
                let unapplied = l.last_log.saturating_sub(report.applied);
                let behind = lag_entries.unwrap_or(u64::MAX).max(unapplied);
                if behind > LAG_ENTRIES {
                    NodeState::CatchingUp
                } else {
                    NodeState::Ready
                }
            }
        },
    };
    NodeStatus {
        facts: node.clone(),
        state,
        lag_entries,
    }
}

fn problem(what: impl Into<String>, advice: impl Into<String>) -> Problem {
    Problem {
        what: what.into(),
        advice: advice.into(),
    }
}

/// Why nobody serves.
fn service_problems(
    facts: &Facts,
    nodes: &[NodeStatus],
    leader: Option<&NodeReport>,
    majority: usize,
    problems: &mut Vec<Problem>,
) {
    if let Some(leader) = leader {
        let wait = match leader.phase {
            Phase::TakingOver => "it takes over at the moment",
            Phase::Suspended => "it waits for the answers of a majority, and clients wait with it",
            Phase::Moving | Phase::Releasing => "it hands the service over at the moment",
            _ => "it does not know that it may answer",
        };
        if !leader.serving {
            problems.push(problem(
                format!("node {} leads but does not serve: {wait}", leader.node),
                "if that stays so for seconds, look at its log (journalctl -u haven)",
            ));
        }
        return;
    }
    if identity::is_refused(facts) {
        return;
    }
    let up = nodes.iter().filter(|n| n.state != NodeState::Down).count();
    if up < majority {
        problems.push(problem(
            format!(
                "no majority: node {} sees {up} of {} nodes, and {majority} must work together; this side serves nothing \
                 (nothing is lost)",
                facts.asked,
                nodes.len()
            ),
            format!(
                "start the missing nodes, or repair the network between the nodes ({})",
                down_names(nodes)
            ),
        ));
        return;
    }
    let willing = |n: &&NodeStatus| {
        n.state != NodeState::Down && n.facts.report.as_ref().is_some_and(NodeReport::may_lead)
    };
    if nodes.iter().find(willing).is_none() {
        problems.push(problem(
            "nobody leads: every node that runs is in standby or a witness",
            "start a node that is down, or haven online NODE on one in standby",
        ));
        return;
    }
    problems.push(problem(
        "nobody leads; an election takes less than a second",
        "if that stays so, look at the nodes' logs: they may not hear each other",
    ));
}

fn down_names(nodes: &[NodeStatus]) -> String {
    let down = nodes.iter().filter(|n| n.state == NodeState::Down);
    let names: Vec<&str> = down.map(|n| n.facts.name.as_str()).collect();
    names.join(", ")
}

fn addresses(
    facts: &Facts,
    nodes: &[NodeStatus],
    leader: Option<&NodeReport>,
    problems: &mut Vec<Problem>,
) -> Vec<AddressStatus> {
    let term = leader.map_or(0, |l| l.term);
    // What a former leader said before the election says nothing about now.
    let holders = |address| {
        fresh(&facts.nodes)
            .filter(move |(n, r)| r.term >= term || n.heard_ms_ago.is_some_and(|ms| ms < RECENT_MS))
            .filter(move |(_, r)| r.addresses.contains(&address))
            .map(|(n, _)| n.name.clone())
    };
    let mut all = Vec::new();
    for address in facts.floating.iter().copied() {
        let on: Vec<String> = holders(address).collect();
        // While somebody leads, a node that does not hold the address may have found the leader itself.
        let conflict = fresh(&facts.nodes)
            .filter(|(_, r)| leader.is_none() || r.addresses.contains(&address))
            .flat_map(|(_, r)| &r.conflicts)
            .find(|c| c.address == address)
            .map(|c| c.mac.clone());
        if let Some(mac) = &conflict {
            problems.push(conflict_problem(address, mac, nodes, leader.is_some()));
        }
        if let (true, Some(leader)) = (on.is_empty(), leader)
            && leader.serving
        {
            let why = leader
                .trouble
                .clone()
                .unwrap_or_else(|| "its log says why".into());
            problems.push(problem(
                format!(
                    "the floating address {address} is not up on node {}: {why}",
                    leader.node
                ),
                "check service.interface and that the node may change addresses (CAP_NET_ADMIN)",
            ));
        }
        if on.len() > 1 {
            problems.push(problem(
                format!("{address} is on several nodes at once: {}", on.join(", ")),
                "during a move that is over in a moment; if it stays, stop the node that does not lead",
            ));
        }
        all.push(AddressStatus {
            address,
            on,
            conflict,
        });
    }
    all
}

/// A machine answers for a floating address that must not, or that this side does not know to be one of ours.
fn conflict_problem(address: IpAddr, mac: &str, nodes: &[NodeStatus], leads: bool) -> Problem {
    let down = nodes.iter().filter(|n| n.state == NodeState::Down);
    let silent: Vec<&str> = down.map(|n| n.facts.name.as_str()).collect();
    let names = silent.join(" or ");
    let find =
        format!("find that machine (ip neigh; the switch's table) and take {address} off it");
    let maybe = |joined: &str| match silent.as_slice() {
        [] => String::new(),
        _ => format!("{joined}perhaps node {names}"),
    };
    if leads {
        return problem(
            format!(
                "another machine answers for {address}: {mac}{}; some clients may talk to it",
                maybe(", ")
            ),
            find,
        );
    }
    if silent.is_empty() {
        return problem(
            format!("{mac} answers for {address}, and is no node that serves"),
            find,
        );
    }
    problem(
        format!(
            "{mac} answers for {address}: {}, which this side does not hear, or another machine",
            maybe("")
        ),
        format!(
            "see there whether it serves (haven status): then leave it alone; otherwise {find}"
        ),
    )
}

fn node_problems(node: &NodeStatus, leads: bool, problems: &mut Vec<Problem>) {
    let (name, address) = (&node.facts.name, node.facts.address);
    let report = node.facts.report.as_ref();
    match node.state {
        NodeState::Down => {
            let since = match node.facts.heard_ms_ago {
                Some(ms) => format!("has not been heard for {}", crate::screen::age(ms)),
                None => "has not been heard since this node started".to_owned(),
            };
            problems.push(problem(
                format!("node {name} {since}"),
                format!(
                    "is its machine up? start haven there (systemctl start haven); can the others reach {address}?"
                ),
            ));
            return;
        }
        // Said below.
        NodeState::CatchingUp if report.is_some_and(|r| r.cannot_catch_up.is_some()) => {}
        NodeState::CatchingUp => problems.push(problem(
            format!(
                "node {name} is catching up: {}",
                match node.lag_entries {
                    Some(lag) if lag > LAG_ENTRIES => format!("{lag} entries are missing"),
                    Some(_) => "entries wait to be applied".into(),
                    None => "the leader does not know yet what it has".into(),
                }
            ),
            "nothing, it does so by itself; until then it cannot take over",
        )),
        NodeState::Searching if leads => problems.push(problem(
            format!("node {name} does not follow the leader"),
            format!(
                "after a move that is over in a moment; if it stays, repair the network between the leader and {address}"
            ),
        )),
        _ => {}
    }
    let Some(report) = report else { return };
    if let Some(Problem { what, advice }) = &report.cannot_catch_up {
        let what = format!("node {name} cannot catch up, and could not take over: {what}");
        problems.push(problem(what, advice.as_str()));
    }
    memory::problems(name, &report.memory, problems);
    if let Some(trouble) = &report.trouble {
        let short = report.full || report.free_mib < report.reserve_mib;
        let advice = if report.refuses_growth && !report.full {
            "remove files, or enlarge the file systems of those nodes"
        } else if short {
            "remove files, or enlarge the file system"
        } else {
            "look at the node's log (journalctl -u haven)"
        };
        problems.push(problem(format!("node {name}: {trouble}"), advice));
    }
}

/// A cluster of which nobody could take over.
fn standby_problems(nodes: &[NodeStatus], problems: &mut Vec<Problem>) {
    let serving = nodes.iter().find(|n| n.state == NodeState::Serving);
    let Some(serving) = serving.filter(|_| nodes.len() > 1) else {
        return;
    };
    let standby = |n: &NodeStatus| n.facts.report.as_ref().is_some_and(|r| r.standby);
    if standby(serving) {
        problems.push(problem(
            format!(
                "node {} is in standby, but leads: no other node can",
                serving.facts.name
            ),
            "start another node, or haven online another one: the service then moves there",
        ));
    }
    let may_lead = |n: &NodeStatus| n.facts.report.as_ref().is_some_and(NodeReport::may_lead);
    let heirs = nodes
        .iter()
        .filter(|n| n.state == NodeState::Ready && may_lead(n));
    let waiting = nodes
        .iter()
        .any(|n| n.state == NodeState::Ready && standby(n));
    if heirs.count() == 0 && waiting {
        problems.push(problem(
            "no other node may take over: those that are ready are in standby",
            "haven online NODE, when the work on it is done",
        ));
    }
}

mod memory;
#[cfg(test)]
mod tests;
