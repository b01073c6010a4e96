//! Clusters in every state that must print well, for tests.

use crate::types::*;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// 2026-11-22 20:14:03 UTC.
pub const NOW: u64 = 1_795_378_443_000;
pub const FLOATING: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));

/// A follower of a, up to date.
pub fn follower(name: &str) -> NodeReport {
    NodeReport {
        node: name.into(),
        version: "0.1.0".into(),
        started_unix_ms: NOW - 90_000_000,
        leader: Some("a".into()),
        term: 7,
        free_mib: 81_920,
        reserve_mib: 4_096,
        last_log: 184_220,
        committed: 184_220,
        applied: 184_220,
        nfs_port: 2049,
        mount_port: 20048,
        clock: Some(ClockReading {
            unix_ns: 1_795_378_443_000_000_000,
            mono_ns: 90_000_000_000_000,
            heard: vec![Echo {
                node: 2,
                mono_ns: 7,
                held_ns: 9,
            }],
        }),
        ..NodeReport::default()
    }
}

/// The leader a.
pub fn leader() -> NodeReport {
    let peer = PeerView {
        matched: Some(184_218),
        acked_ms_ago: Some(12),
    };
    NodeReport {
        role: Role::Leader,
        phase: Phase::Serving,
        serving: true,
        connections: 12,
        last_log: 184_221,
        addresses: vec![FLOATING],
        peers: [("b".into(), peer), ("c".into(), peer)].into(),
        failovers: vec![Failover {
            at_unix_ms: NOW - 3 * 3_600_000,
            term: 7,
            from: Some("c".into()),
            to: "a".into(),
            cause: Cause::ProcessEnded,
            silent_ms: Some(381),
            stall_ms: Some(387),
        }],
        ..follower("a")
    }
}

fn node(id: u8, report: NodeReport) -> NodeFacts {
    NodeFacts {
        name: report.node.clone(),
        address: SocketAddr::from(([10, 0, 0, id], 7400)),
        heard_ms_ago: Some(if report.node == "a" { 0 } else { 130 }),
        report: Some(report),
    }
}

/// Three nodes, all well.
pub fn healthy() -> Facts {
    Facts {
        cluster: "files".into(),
        service: "nfs".into(),
        asked: "a".into(),
        now_unix_ms: NOW,
        nodes: vec![
            node(1, leader()),
            node(2, follower("b")),
            node(3, follower("c")),
        ],
        floating: vec![FLOATING],
    }
}

pub fn edit(facts: &mut Facts, index: usize, change: impl FnOnce(&mut NodeReport)) {
    change(facts.nodes[index].report.as_mut().unwrap());
}

pub fn one_node_down() -> Facts {
    let mut facts = healthy();
    facts.nodes[2].heard_ms_ago = Some(47_300);
    edit(&mut facts, 0, |a| {
        a.peers.insert(
            "c".into(),
            PeerView {
                matched: Some(184_100),
                acked_ms_ago: Some(47_350),
            },
        );
    });
    facts
}

/// Seen from b, the only one that is left.
pub fn no_quorum() -> Facts {
    let mut facts = one_node_down();
    facts.asked = "b".into();
    facts.nodes[0].heard_ms_ago = Some(12_400);
    facts.nodes[1].heard_ms_ago = Some(0);
    let known = facts.nodes[0].report.as_ref().unwrap().failovers.clone();
    edit(&mut facts, 1, |b| {
        b.leader = None;
        b.role = Role::Candidate;
        b.failovers = known;
    });
    facts
}

pub fn catching_up() -> Facts {
    let mut facts = healthy();
    edit(&mut facts, 0, |a| {
        a.peers.insert(
            "c".into(),
            PeerView {
                matched: Some(141_000),
                acked_ms_ago: Some(30),
            },
        );
    });
    edit(&mut facts, 2, |c| {
        c.last_log = 141_000;
        c.applied = 139_000;
    });
    facts
}

pub fn address_conflict() -> Facts {
    let mut facts = healthy();
    edit(&mut facts, 0, |a| {
        a.conflicts = vec![Conflict {
            address: FLOATING,
            mac: "52:54:00:ab:cd:ef".into(),
        }];
    });
    facts
}

pub fn standby() -> Facts {
    let mut facts = healthy();
    edit(&mut facts, 1, |b| b.standby = true);
    facts
}

/// Leadership went through b, which is in standby, when c died. Only b knows of that so far.
pub fn moved_twice() -> Facts {
    let mut facts = standby();
    let first = facts.nodes[0].report.as_ref().unwrap().failovers[0].clone();
    let through = Failover {
        at_unix_ms: NOW - 95_000,
        term: 9,
        from: Some("c".into()),
        to: "b".into(),
        ..first.clone()
    };
    let last = Failover {
        at_unix_ms: NOW - 94_000,
        term: 10,
        from: Some("b".into()),
        to: "a".into(),
        cause: Cause::Planned,
        silent_ms: Some(17),
        stall_ms: Some(19),
    };
    edit(&mut facts, 0, |a| a.failovers = vec![last, first]);
    edit(&mut facts, 1, |b| b.failovers = vec![through]);
    facts
}

/// Node b does not export what the others do, and its machine allows fewer connections.
pub fn settings_differ() -> Facts {
    let mut facts = healthy();
    for node in 0..3 {
        let own = match node {
            1 => ("66f1", "5d20"),
            _ => ("0b7e", "9c31"),
        };
        let mut exports = std::collections::BTreeMap::from([("/data".into(), "11aa".into())]);
        if node != 1 {
            exports.insert("/more".into(), "22bb".into());
        }
        edit(&mut facts, node, |n| {
            n.settings = Some(Settings {
                keys: [
                    ("export".into(), own.0.into()),
                    ("limits".into(), own.1.into()),
                ]
                .into(),
                exports,
            });
        });
    }
    facts
}

/// Seen from b, whose `cluster.address` was changed by hand.
pub fn address_changed() -> Facts {
    let mut facts = healthy();
    facts.asked = "b".into();
    for node in [0, 2] {
        facts.nodes[node].heard_ms_ago = None;
        facts.nodes[node].report = None;
    }
    facts.nodes[1].heard_ms_ago = Some(0);
    edit(&mut facts, 1, |b| {
        b.leader = None;
        b.listens = Some(SocketAddr::from(([10, 0, 0, 22], 7400)));
        b.stray = Some("node 2 is a member at 10.0.0.2:7400, but listens elsewhere".into());
    });
    facts
}

/// Seen from a: node c does not run, but a copy of its data does, on another machine.
pub fn copied() -> Facts {
    let mut facts = one_node_down();
    let at = SocketAddr::from(([10, 0, 0, 33], 7400));
    for node in [0, 1] {
        edit(&mut facts, node, |n| {
            n.strays = vec![Stray {
                node: "c".into(),
                from: at.ip(),
                listens: Some(at),
            }];
        });
    }
    facts
}

/// Node c's clock is a day ahead, and it has led while nobody minded: the service's time is ahead, too.
pub fn clock_ahead() -> Facts {
    let mut facts = healthy();
    let clock = |ahead_ms| ClockView {
        ahead_ms,
        error_ms: 1,
    };
    edit(&mut facts, 0, |a| {
        a.clocks = [("a", 0), ("b", 3), ("c", 86_400_120)]
            .map(|(name, ahead_ms)| (name.to_owned(), clock(ahead_ms)))
            .into();
        a.time_ahead_ms = 86_390_000;
    });
    facts
}
