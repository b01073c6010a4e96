//! Whether enough of the other nodes have space for what the leader lets in.
//!
//! A function of its input: no clock, no IO.
//!
//! Must not know: this node's own disk, what is done about it.

use haven_admin::NodeReport;
use haven_admin::judge::SILENT;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the other nodes told, and how long ago.
pub(super) type Heard = BTreeMap<u64, (Duration, NodeReport)>;

/// The nodes that have no space, by name, if the leader, which is one of the voters, and all others are no majority
/// of the voters without them. A node that is silent, or has no files, counts as one with space: of the first nothing
/// is known, the second keeps nothing but the log.
pub(super) fn without_space(voters: &BTreeSet<u64>, leader: u64, heard: &Heard) -> Vec<String> {
    let full = heard.iter().filter(|(id, (age, report))| {
        **id != leader
            && voters.contains(id)
            && *age < SILENT
            && !report.witness
            && (report.full || report.free_mib < report.reserve_mib)
    });
    let names: Vec<String> = full.map(|(_, (_, report))| report.node.clone()).collect();
    let (majority, left) = (voters.len() / 2 + 1, voters.len() - names.len());
    match left < majority {
        true => names,
        false => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: u64 = 1;
    const LATELY: Duration = SILENT.saturating_sub(Duration::from_millis(1));

    fn told(id: u64, free_mib: u64, edit: impl FnOnce(&mut NodeReport)) -> (u64, NodeReport) {
        let mut report = NodeReport {
            node: format!("n{id}"),
            free_mib,
            reserve_mib: 256,
            ..NodeReport::default()
        };
        edit(&mut report);
        (id, report)
    }

    fn full(id: u64) -> (u64, NodeReport) {
        told(id, 255, |_| {})
    }

    /// Of voters 1 to `voters`, where node 1 leads.
    fn found(voters: u64, reports: impl IntoIterator<Item = (u64, NodeReport)>) -> Vec<String> {
        let heard = reports.into_iter().map(|(id, r)| (id, (LATELY, r)));
        without_space(&(1..=voters).collect(), LEADER, &heard.collect())
    }

    #[test]
    fn so_many_full_nodes_that_no_majority_is_left() {
        let free = |id| told(id, 256, |_| {});
        assert_eq!(found(3, [full(2), free(3)]), [""; 0]);
        assert_eq!(found(3, [full(2), full(3)]), ["n2", "n3"]);
        assert_eq!(found(2, [full(2)]), ["n2"], "both must work together");
        assert_eq!(found(2, [free(2)]), [""; 0]);
        assert_eq!(found(5, [full(2), full(3)]), [""; 0]);
        assert_eq!(found(5, [full(2), full(3), full(5)]), ["n2", "n3", "n5"]);
        assert_eq!(found(4, [full(2)]), [""; 0]);
        assert_eq!(found(4, [full(2), full(4)]), ["n2", "n4"]);
        assert_eq!(found(1, []), [""; 0]);
        assert_eq!(found(0, []), [""; 0]);
    }

    #[test]
    fn a_node_that_says_it_is_full_is_until_it_has_a_margin_again() {
        let says = |id| told(id, 260, |r| r.full = true);
        assert_eq!(found(3, [says(2), says(3)]), ["n2", "n3"]);
    }

    #[test]
    fn silent_nodes_witnesses_learners_and_the_leader_do_not_count_as_full() {
        let witness = told(3, 0, |r| r.witness = true);
        assert_eq!(found(3, [full(2), witness]), [""; 0]);
        assert_eq!(found(3, [full(2), full(4)]), [""; 0], "4 has no vote");
        assert_eq!(found(3, [full(1), full(2)]), [""; 0], "1 refuses by itself");
        assert_eq!(found(3, [full(2)]), [""; 0], "3 was never heard");
        let voters = BTreeSet::from([1, 2, 3]);
        let of_age = |age| Heard::from([full(2), full(3)].map(|(id, r)| (id, (age, r))));
        assert_eq!(without_space(&voters, LEADER, &of_age(SILENT)), [""; 0]);
        let lately = without_space(&voters, LEADER, &of_age(LATELY));
        assert_eq!(lately, ["n2", "n3"]);
    }
}
