//! What clients are told of the service's space (df): what a write gets, and the same whichever node leads, as far as that goes.
//!
//! A function of its input: no clock, no IO.
//!
//! - A file is on every node, so the service has what a majority of the nodes with files has: beyond that the leader
//!   refuses what needs space (see `others`).
//! - And never more than the leader itself has. So the figures are the same on all nodes but those that have less than a
//!   majority.
//! - A node that is silent is not counted: the others go on without it.
//!
//! Must not know: how space is measured, what is done about it.

use super::others::Heard;
use haven_admin::NodeReport;
use haven_admin::judge::SILENT;
use haven_fs::rules::files_within;
use haven_nfsd::Room;
use std::collections::BTreeSet;

/// What the nodes with files have that are voters, not silent, and not `own`.
pub(super) fn rooms(voters: &BTreeSet<u64>, own: u64, heard: &Heard) -> Vec<Room> {
    let counted = heard.iter().filter(|(id, (age, report))| {
        // An older program does not tell how large its file system is.
        let tells = report.total_mib > 0 && !report.witness;
        **id != own && voters.contains(id) && *age < SILENT && tells
    });
    counted.map(|(_, (_, report))| room(report)).collect()
}

fn room(report: &NodeReport) -> Room {
    let above = report.free_mib.saturating_sub(report.reserve_mib);
    let available_bytes = if report.full { 0 } else { above << 20 };
    let fit = files_within(available_bytes);
    Room {
        total_bytes: report.total_mib << 20,
        free_bytes: report.free_mib << 20,
        available_bytes,
        free_files: report.free_files.map_or(fit, |files| files.min(fit)),
    }
}

/// What `majority` of the nodes have at least, or all if there are fewer, and this one has.
pub(super) fn least(own: Room, others: &[Room], majority: usize) -> Room {
    let of = |figure: fn(&Room) -> u64| {
        let mut all: Vec<u64> = others.iter().chain([&own]).map(figure).collect();
        all.sort_unstable();
        let place = all.len().saturating_sub(majority.max(1));
        all.get(place).map_or(0, |&least| least.min(figure(&own)))
    };
    // The least of each need not be one node's.
    let total_bytes = of(|room| room.total_bytes);
    let free_bytes = of(|room| room.free_bytes).min(total_bytes);
    let available_bytes = of(|room| room.available_bytes).min(free_bytes);
    Room {
        total_bytes,
        free_bytes,
        available_bytes,
        free_files: of(|room| room.free_files).min(files_within(available_bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const GIB: u64 = 1 << 30;

    fn of(total: u64, available: u64) -> Room {
        Room {
            total_bytes: total * GIB,
            free_bytes: (available + 1) * GIB,
            available_bytes: available * GIB,
            free_files: 1_000 * available,
        }
    }

    /// What each of these nodes tells when it leads.
    fn told(nodes: &[Room], majority: usize) -> Vec<Room> {
        let without = |at: usize| {
            let (before, after) = nodes.split_at(at);
            [before, &after[1..]].concat()
        };
        (0..nodes.len())
            .map(|at| least(nodes[at], &without(at), majority))
            .collect()
    }

    #[test]
    fn nodes_whose_disks_differ_tell_the_same() {
        let (large, middle, small) = (of(100, 50), of(90, 30), of(20, 10));
        assert_eq!(told(&[large], 1), [large]);
        assert_eq!(told(&[large, small], 2), [small, small]);
        assert_eq!(told(&[large, middle, middle], 2), [middle; 3]);
        // Two of three have more than the third: the service goes on without it, unless it leads.
        assert_eq!(told(&[large, middle, small], 2), [middle, middle, small]);
        // The third is silent.
        assert_eq!(told(&[large, small], 2), [small, small]);
        let five = [large, large, small, middle, small];
        let expected = [middle, middle, small, middle, small];
        assert_eq!(told(&five, 3), expected);
    }

    #[test]
    fn figures_of_different_nodes_fit_each_other() {
        let (wide, deep) = (of(100, 5), of(40, 30));
        let both = least(wide, &[deep], 2);
        assert_eq!(both.total_bytes, 40 * GIB);
        assert_eq!((both.free_bytes, both.available_bytes), (6 * GIB, 5 * GIB));
        let full = Room {
            free_files: u64::MAX,
            available_bytes: 0,
            ..wide
        };
        assert_eq!(least(full, &[], 1).free_files, 0);
    }

    #[test]
    fn silent_nodes_witnesses_and_strangers_are_not_counted() {
        let report = NodeReport {
            total_mib: 1000,
            free_mib: 300,
            reserve_mib: 100,
            ..NodeReport::default()
        };
        let room = |edit: fn(&mut NodeReport), age| {
            let mut report = report.clone();
            edit(&mut report);
            let heard = Heard::from([(2, (age, report))]);
            let found = rooms(&BTreeSet::from([1, 2]), 1, &heard);
            assert!(rooms(&BTreeSet::from([1]), 1, &heard).is_empty());
            assert!(rooms(&BTreeSet::from([1, 2]), 2, &heard).is_empty());
            found.first().copied()
        };
        let told = room(|_| {}, Duration::ZERO).unwrap();
        assert_eq!(told.total_bytes >> 20, 1000);
        assert_eq!(
            (told.free_bytes >> 20, told.available_bytes >> 20),
            (300, 200)
        );
        assert_eq!(told.free_files, files_within(200 << 20));
        let few = room(|r| r.free_files = Some(7), Duration::ZERO);
        assert_eq!(few.unwrap().free_files, 7);
        let full = room(|r| r.full = true, Duration::ZERO).unwrap();
        assert_eq!((full.available_bytes, full.free_files), (0, 0));
        assert_eq!(room(|r| r.witness = true, Duration::ZERO), None);
        assert_eq!(room(|r| r.total_mib = 0, Duration::ZERO), None);
        assert_eq!(room(|_| {}, SILENT), None);
    }
}
