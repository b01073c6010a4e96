use super::*;
use crate::cases::{self, FLOATING, edit};
use crate::types::{ClusterStatus, Conflict, Facts};

fn states(facts: Facts) -> Vec<NodeState> {
    judge(facts).nodes.iter().map(|n| n.state).collect()
}

#[test]
fn whoever_asks_reads_what_is_judged() {
    for facts in [cases::healthy(), cases::no_quorum()] {
        let status = judge(facts);
        let text = serde_json::to_string(&status).unwrap();
        let read: ClusterStatus = serde_json::from_str(&text).unwrap();
        assert_eq!(read, status);
    }
}

#[test]
fn each_case_has_its_verdict_and_its_states() {
    use NodeState::{CatchingUp, Down, Ready, Searching, Serving};
    for (facts, verdict, expect, problems) in [
        (
            cases::healthy(),
            Verdict::Healthy,
            [Serving, Ready, Ready],
            0,
        ),
        (
            cases::standby(),
            Verdict::Healthy,
            [Serving, Ready, Ready],
            0,
        ),
        (
            cases::one_node_down(),
            Verdict::Degraded,
            [Serving, Ready, Down],
            1,
        ),
        (
            cases::no_quorum(),
            Verdict::Down,
            [Down, Searching, Down],
            3,
        ),
        (
            cases::catching_up(),
            Verdict::Degraded,
            [Serving, Ready, CatchingUp],
            1,
        ),
        (
            cases::address_conflict(),
            Verdict::Degraded,
            [Serving, Ready, Ready],
            1,
        ),
    ] {
        assert_eq!(states(facts.clone()), expect);
        let status = judge(facts);
        assert_eq!(status.verdict, verdict, "{status:#?}");
        assert_eq!(status.problems.len(), problems, "{:#?}", status.problems);
    }
}

#[test]
fn a_node_without_room_for_what_it_lacks_says_so_and_not_that_it_catches_up() {
    let mut facts = cases::catching_up();
    edit(&mut facts, 2, |c| {
        c.cannot_catch_up = Some(Problem {
            what: "everything needs about 9 MiB".into(),
            advice: "more space".into(),
        });
    });
    let status = judge(facts);
    assert_eq!(status.verdict, Verdict::Degraded);
    assert_eq!(status.nodes[2].state, NodeState::CatchingUp);
    let [problem] = &status.problems[..] else {
        panic!("{:?}", status.problems);
    };
    assert!(
        problem.what.contains("node c cannot catch up"),
        "{problem:?}"
    );
    assert!(problem.what.contains("needs about 9 MiB"), "{problem:?}");
    assert_eq!(problem.advice, "more space");
}

#[test]
fn a_former_leader_that_does_not_know_of_its_end_is_not_the_leader() {
    let mut facts = cases::healthy();
    edit(&mut facts, 1, |b| {
        *b = crate::NodeReport {
            node: "b".into(),
            leader: Some("b".into()),
            term: 8,
            ..cases::leader()
        };
    });
    edit(&mut facts, 0, |a| a.serving = false);
    let status = judge(facts);
    assert_eq!(status.leader.as_deref(), Some("b"));
    assert_eq!(status.nodes[1].state, NodeState::Serving);
    assert_ne!(status.nodes[0].state, NodeState::Serving);
    assert_eq!(status.addresses[0].on, ["a", "b"]);
    assert_eq!(status.verdict, Verdict::Degraded);
}

#[test]
fn a_node_that_does_not_follow_is_a_problem_and_soon_counts_as_down() {
    let mut facts = cases::healthy();
    edit(&mut facts, 2, |c| c.leader = Some("b".into()));
    let status = judge(facts.clone());
    assert_eq!(status.nodes[2].state, NodeState::Searching);
    assert_eq!(status.verdict, Verdict::Degraded);
    assert!(status.problems[0].what.contains("does not follow"));
    facts.nodes[2].heard_ms_ago = Some(LATE_MS);
    assert_eq!(states(facts)[2], NodeState::Down);
}

#[test]
fn a_node_whose_leader_went_silent_is_asked_nothing_of_it() {
    // The leader's report is old, and its word about others no longer counts.
    let mut facts = cases::healthy();
    facts.asked = "b".into();
    facts.nodes[0].heard_ms_ago = Some(SILENT_MS);
    edit(&mut facts, 1, |b| b.leader = None);
    edit(&mut facts, 2, |c| c.leader = None);
    let status = judge(facts);
    assert_eq!(status.leader, None);
    assert_eq!(status.verdict, Verdict::Down);
    assert!(status.problems[0].what.contains("nobody leads"));
}

#[test]
fn a_floating_address_that_is_nowhere_or_a_full_disk_degrades() {
    let mut facts = cases::healthy();
    edit(&mut facts, 0, |a| {
        a.addresses.clear();
        a.trouble = Some("no interface has 10.0.0.0/24".into());
    });
    let status = judge(facts);
    assert_eq!(status.verdict, Verdict::Degraded);
    assert!(
        status.problems[0]
            .what
            .contains("not up on node a: no interface")
    );
    let mut facts = cases::healthy();
    edit(&mut facts, 2, |c| {
        c.free_mib = 100;
        c.trouble = Some("only 100 MiB are free".into());
    });
    let status = judge(facts);
    assert!(status.problems[0].advice.contains("remove files"));
}

#[test]
fn standby_is_a_problem_only_where_it_leaves_nobody() {
    let mut facts = cases::standby();
    edit(&mut facts, 2, |c| c.standby = true);
    let status = judge(facts.clone());
    assert_eq!(status.verdict, Verdict::Degraded);
    assert!(status.problems[0].advice.contains("haven online"));
    // The leader itself, with nobody else to lead.
    edit(&mut facts, 0, |a| a.standby = true);
    let status = judge(facts);
    assert!(status.problems[0].what.contains("in standby, but leads"));
}

#[test]
fn a_conflict_seen_by_a_node_that_is_silent_now_is_forgotten() {
    let mut facts = cases::healthy();
    edit(&mut facts, 2, |c| {
        c.conflicts = vec![Conflict {
            address: FLOATING,
            mac: "00:00:00:00:00:01".into(),
        }];
    });
    facts.nodes[2].heard_ms_ago = Some(60_000);
    let status = judge(facts);
    assert_eq!(status.addresses[0].conflict, None);
}

#[test]
fn a_conflict_found_by_who_does_not_hold_the_address_counts_only_while_nobody_leads() {
    let found = || {
        vec![Conflict {
            address: FLOATING,
            mac: "00:00:00:00:00:01".into(),
        }]
    };
    let mut facts = cases::healthy();
    edit(&mut facts, 1, |b| b.conflicts = found());
    let status = judge(facts);
    assert_eq!(status.verdict, Verdict::Healthy);
    // The others may be dead, or serve where b does not hear them: b cannot know.
    let mut facts = cases::no_quorum();
    edit(&mut facts, 1, |b| b.conflicts = found());
    let status = judge(facts);
    let told = &status.problems[1];
    assert!(
        told.what
            .contains("perhaps node a or c, which this side does not hear"),
        "{}",
        told.what
    );
    assert!(told.advice.contains("then leave it alone; otherwise find"));
}

#[test]
fn full_disks_of_others_say_whose_and_what_to_do() {
    let mut facts = cases::healthy();
    edit(&mut facts, 0, |a| {
        a.refuses_growth = true;
        a.trouble = Some("no majority of the nodes has space: b, c".into());
    });
    for node in [1, 2] {
        edit(&mut facts, node, |n| {
            n.full = true;
            n.trouble = Some("only 1 MiB is free".into());
        });
    }
    let status = judge(facts);
    assert_eq!(status.verdict, Verdict::Degraded);
    let told: Vec<_> = status.problems.iter().map(|p| &p.advice[..]).collect();
    let own = "remove files, or enlarge the file system";
    assert_eq!(told, [&format!("{own}s of those nodes")[..], own, own]);
}

#[test]
fn settings_that_differ_degrade_before_a_move_does_harm() {
    let status = judge(cases::settings_differ());
    assert_eq!(status.verdict, Verdict::Degraded);
    let keys: Vec<_> = status
        .differences
        .iter()
        .map(|d| (&d.key[..], d.grave))
        .collect();
    assert_eq!(keys, [("export", true), ("limits", false)]);
    assert_eq!(status.problems.len(), 1, "{:#?}", status.problems);
    let told = &status.problems[0];
    assert_eq!(
        told.what,
        "node b exports something else than node a, c: /more"
    );
    assert!(
        told.advice.contains("systemctl reload haven"),
        "{}",
        told.advice
    );
    // A witness serves nothing, and who is silent cannot take over.
    let mut facts = cases::settings_differ();
    facts.nodes[1].heard_ms_ago = Some(SILENT_MS);
    assert_eq!(judge(facts).differences, []);
}

#[test]
fn a_changed_address_is_not_the_networks_fault() {
    let status = judge(cases::address_changed());
    assert_eq!(status.verdict, Verdict::Down);
    assert_eq!(status.problems.len(), 1, "{:#?}", status.problems);
    let told = &status.problems[0];
    assert!(
        told.what
            .contains("knows node b at 10.0.0.2:7400, but it listens at 10.0.0.22:7400"),
        "{}",
        told.what
    );
    assert!(
        told.advice.contains("set it back to 10.0.0.2:7400"),
        "{}",
        told.advice
    );
}

#[test]
fn a_copy_is_told_once_in_place_of_the_node_it_copies() {
    let status = judge(cases::copied());
    assert_eq!(status.verdict, Verdict::Degraded);
    assert_eq!(status.problems.len(), 1, "{:#?}", status.problems);
    assert!(status.problems[0].what.contains("a process at 10.0.0.33"));
    // The original runs beside it, or both are at one address.
    let mut facts = cases::healthy();
    edit(&mut facts, 0, |a| {
        a.strays = vec![crate::Stray {
            node: "c".into(),
            from: "10.0.0.3".parse().unwrap(),
            listens: None,
        }];
    });
    let status = judge(facts);
    assert_eq!(status.verdict, Verdict::Degraded);
    assert!(
        status.problems[0]
            .what
            .contains("two processes run as node c")
    );
}

#[test]
fn a_client_that_holds_up_others_is_named_for_a_while() {
    use crate::memory::{Blamed, Incidents};
    let told = |ms_ago, lost: bool| {
        let mut facts = cases::healthy();
        let blamed = Incidents {
            total: 7,
            most: Some(Blamed {
                address: "192.0.2.9".parse().unwrap(),
                count: 5,
                ms_ago,
            }),
        };
        edit(&mut facts, 0, |a| match lost {
            true => a.memory.lost = blamed,
            false => a.memory.refused = blamed,
        });
        judge(facts)
    };
    let status = told(59_000, true);
    assert_eq!(status.verdict, Verdict::Degraded);
    let problem = &status.problems[0];
    for words in ["node a", "192.0.2.9", "5 "] {
        assert!(problem.what.contains(words), "{}", problem.what);
    }
    assert!(problem.advice.contains("192.0.2.9"), "{}", problem.advice);
    assert_eq!(told(61_000, true).verdict, Verdict::Healthy, "it is over");
    assert_eq!(told(0, false).verdict, Verdict::Healthy, "nobody suffers");
}

#[test]
fn a_wrong_clock_is_named_as_far_as_can_be_told() {
    let status = judge(cases::clock_ahead());
    assert_eq!(status.verdict, Verdict::Degraded);
    assert_eq!(status.problems.len(), 1, "{:#?}", status.problems);
    let told = &status.problems[0].what;
    assert!(
        told.starts_with("the clock of node c is 86400.1 s ahead of those of most nodes"),
        "{told}"
    );
    for (clocks, want) in [(2, "no third says which is wrong"), (1, "was stepped")] {
        let mut facts = cases::clock_ahead();
        edit(&mut facts, 0, |a| {
            while a.clocks.len() > clocks {
                a.clocks.pop_first();
            }
        });
        let status = judge(facts);
        assert!(
            status.problems[0].what.contains(want),
            "{:#?}",
            status.problems
        );
    }
    // What may be an error of measuring is none of the clock's.
    let mut facts = cases::clock_ahead();
    edit(&mut facts, 0, |a| {
        a.clocks.insert(
            "c".into(),
            crate::ClockView {
                ahead_ms: -1_400,
                error_ms: 450,
            },
        );
    });
    assert_eq!(judge(facts).verdict, Verdict::Healthy);
}
