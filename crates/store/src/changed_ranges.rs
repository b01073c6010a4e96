//! Which ranges of which data files changed since the last checkpoint, within bounded memory.
//!
//! Where there are more than are kept apart, those nearest to each other are joined: what lies between them is then sent
//! along with them, as it is. That is never more than the file holds, since holes are told as holes.
//!
//! Invariants
//! - What was marked is within a range.
//! - Ranges of a file neither overlap nor touch, and are at most [`RANGES_PER_FILE_MAX`]; those of all files are at most
//!   [`RANGES_MAX`], or one for each file.
//!
//! It must not know what files hold, nor who is told.

use haven_fs::Ino;
use std::collections::BTreeMap;

/// Ranges of one file that are kept apart.
const RANGES_PER_FILE_MAX: usize = 16 << 10;
/// Ranges of all files that are kept apart: about 6 MiB.
const RANGES_MAX: usize = 128 << 10;

/// First byte and end of each range of a file; [`u64::MAX`]: to its end, wherever that is.
type FileRanges = BTreeMap<u64, u64>;

/// See the module's head comment.
pub struct ChangedRanges {
    files: BTreeMap<u64, FileRanges>,
    /// Of all files.
    count: usize,
    /// Less than [`RANGES_PER_FILE_MAX`] while there are many files with many ranges.
    per_file_max: usize,
}

impl Default for ChangedRanges {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            count: 0,
            per_file_max: RANGES_PER_FILE_MAX,
        }
    }
}

impl ChangedRanges {
    /// The bytes of `ino` from `start` to `end` changed.
    pub fn mark(&mut self, ino: Ino, mut start: u64, mut end: u64) {
        let ranges = self.files.entry(ino.0).or_default();
        let before = ranges.len();
        // Those that overlap or touch begin at or before `end`, the last of them first.
        while let Some((&from, &to)) = ranges.range(..=end).next_back().filter(|r| *r.1 >= start) {
            ranges.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        ranges.insert(start, end);
        if ranges.len() > self.per_file_max {
            join_nearest(ranges, self.per_file_max.div_ceil(2));
        }
        self.count = self.count - before + ranges.len();
        while self.count > RANGES_MAX && self.per_file_max > 1 {
            self.shorten();
        }
    }

    /// Nothing of `ino` matters any more.
    pub fn forget(&mut self, ino: Ino) {
        let ranges = self.files.remove(&ino.0);
        self.count -= ranges.map_or(0, |ranges| ranges.len());
    }

    /// The ranges in order: inode, first byte, end.
    pub fn iter(&self) -> impl Iterator<Item = (Ino, u64, u64)> + '_ {
        self.files.iter().flat_map(|(&ino, ranges)| {
            ranges
                .iter()
                .map(move |(&start, &end)| (Ino(ino), start, end))
        })
    }

    /// Keeps half as many of each file apart as before.
    fn shorten(&mut self) {
        self.per_file_max /= 2;
        for ranges in self.files.values_mut() {
            if ranges.len() > self.per_file_max {
                join_nearest(ranges, self.per_file_max);
            }
        }
        self.count = self.files.values().map(BTreeMap::len).sum();
    }
}

/// Joins ranges with the smallest gaps between them until `most` are left. Of gaps that are alike some are kept, evenly:
/// ranges that are all as far apart become pairs, not one.
fn join_nearest(ranges: &mut FileRanges, most: usize) {
    let old = std::mem::take(ranges);
    let ends = old.values();
    let mut gaps: Vec<u64> = old.keys().skip(1).zip(ends).map(|(s, e)| s - e).collect();
    let kept = most.saturating_sub(1).min(gaps.len());
    if kept == gaps.len() {
        *ranges = old;
        return;
    }
    // Gaps above this one are kept, and of those like it as many as are left.
    let mut limit = u64::MAX;
    if kept > 0 {
        let place = gaps.len() - kept;
        limit = *gaps.select_nth_unstable(place).1;
    }
    let above = gaps.iter().filter(|&&gap| gap > limit).count();
    let like = gaps.iter().filter(|&&gap| gap == limit).count();
    let (keep_like, mut turn) = (kept - above, 0);
    let mut last: Option<(u64, u64)> = None;
    for (start, end) in old {
        let Some((from, to)) = last else {
            last = Some((start, end));
            continue;
        };
        let gap = start - to;
        let mut keeps = gap > limit;
        if gap == limit {
            turn += keep_like;
            keeps = turn >= like;
            turn -= if keeps { like } else { 0 };
        }
        if keeps {
            ranges.insert(from, to);
            last = Some((start, end));
        } else {
            last = Some((from, end));
        }
    }
    ranges.extend(last);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(changed: &ChangedRanges, ino: u64) -> Vec<(u64, u64)> {
        let all = changed.iter().filter(|range| range.0 == Ino(ino));
        all.map(|(_, start, end)| (start, end)).collect()
    }

    #[test]
    fn ranges_that_overlap_or_touch_are_one() {
        let mut changed = ChangedRanges::default();
        for (start, end) in [(10, 20), (40, 50), (20, 30), (35, 41), (100, u64::MAX)] {
            changed.mark(Ino(3), start, end);
        }
        changed.mark(Ino(2), 5, 6);
        let all: Vec<_> = changed.iter().collect();
        let of_three = [(10, 30), (35, 50), (100, u64::MAX)];
        assert_eq!(all[0], (Ino(2), 5, 6));
        assert_eq!(of(&changed, 3), of_three);
        assert_eq!(changed.count, 4);
        changed.forget(Ino(3));
        changed.forget(Ino(7));
        assert_eq!((all.len(), changed.count), (4, 1));
    }

    #[test]
    fn the_nearest_are_joined_and_alike_ones_by_pairs() {
        let mut ranges = FileRanges::from([(0, 1), (10, 11), (12, 13), (100, 101), (103, 104)]);
        join_nearest(&mut ranges, 9);
        assert_eq!(ranges.len(), 5, "few enough");
        join_nearest(&mut ranges, 3);
        assert_eq!(ranges, FileRanges::from([(0, 1), (10, 13), (100, 104)]));
        join_nearest(&mut ranges, 1);
        assert_eq!(ranges, FileRanges::from([(0, 104)]));
        let mut ranges: FileRanges = (0..1000).map(|n| (n * 10, n * 10 + 1)).collect();
        join_nearest(&mut ranges, 500);
        assert_eq!(ranges.len(), 500);
        assert!(
            ranges.iter().all(|(start, end)| end - start <= 21),
            "{ranges:?}"
        );
    }

    #[test]
    fn one_file_with_more_than_are_kept_apart_stays_near_what_changed() {
        const APART: u64 = 1 << 16;
        let mut changed = ChangedRanges::default();
        changed.mark(Ino(2), 1 << 40, u64::MAX);
        let count = 3 * RANGES_PER_FILE_MAX as u64;
        for n in 0..count {
            // In an order that jumps.
            let at = n * 40_501 % count * APART;
            changed.mark(Ino(2), at, at + 1);
            assert!(changed.count <= RANGES_PER_FILE_MAX);
        }
        let ranges = of(&changed, 2);
        let inside = |at: u64| ranges.iter().any(|r| (r.0..r.1).contains(&at));
        assert!((0..count).step_by(97).all(|n| inside(n * APART)));
        assert!(!inside((1 << 40) - 1) && inside(u64::MAX - 1));
        let longest = ranges[..ranges.len() - 1].iter().map(|r| r.1 - r.0).max();
        assert!(longest <= Some(64 * APART), "{longest:?}");
    }

    #[test]
    fn many_files_with_many_ranges_are_bounded_together() {
        let mut changed = ChangedRanges::default();
        for n in 0..64 * 4096_u64 {
            changed.mark(Ino(n % 64), n * 100, n * 100 + 1);
            assert!(changed.count <= RANGES_MAX);
        }
        assert_eq!(changed.iter().count(), changed.count);
        assert!((0..64).all(|ino| of(&changed, ino).len() > 500));
        // As many files as ranges: each has one.
        for ino in 0..2 * RANGES_MAX as u64 {
            changed.mark(Ino(ino), 7, 8);
        }
        assert_eq!(changed.count, 2 * RANGES_MAX);
        assert!(of(&changed, 5).len() <= 2, "{:?}", of(&changed, 5));
    }
}
