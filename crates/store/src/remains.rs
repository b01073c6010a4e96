//! What was cut off and still lies in data files: ranges that read as zeros, although the data file holds other bytes there.
//!
//! Giving a large scattered file's space back takes the local file system long (seconds for a million extents, minutes
//! where each one is discarded on the device at once), and changes must not wait for that. So a large cut only puts the
//! range in here; the space is given back piece by piece, beside the changes (`data::cut`).
//!
//! Invariants
//! - Ranges of a file neither overlap nor touch, and are within the data file.
//! - A byte in here is zero for everybody, until it is written (and taken out) again.
//!
//! It must not know how space is given back.

use haven_fs::Ino;
use std::collections::{BTreeMap, BTreeSet};

const NUMBER_BYTES: usize = 8;

/// First byte and end of each range of a file.
type FileRanges = BTreeMap<u64, u64>;

/// A range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub ino: Ino,
    pub start: u64,
    pub end: u64,
}

/// See the module's head comment.
#[derive(Debug, Default)]
pub struct Remains {
    files: BTreeMap<u64, FileRanges>,
    /// Ranges of all files.
    count: usize,
    /// Files whose ranges changed since [`Remains::take_changed`].
    changed: BTreeSet<u64>,
}

impl Remains {
    /// What lies from `start` to `end` was cut off.
    pub fn add(&mut self, ino: Ino, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        let ranges = self.files.entry(ino.0).or_default();
        // Those that overlap or touch begin at or before `end`, the last of them first.
        while let Some((&from, &to)) = ranges.range(..=end).next_back().filter(|r| *r.1 >= start) {
            ranges.remove(&from);
            self.count -= 1;
            (start, end) = (start.min(from), end.max(to));
        }
        ranges.insert(start, end);
        self.count += 1;
        self.changed.insert(ino.0);
    }

    /// What lies from `start` to `end` is no remainder (any more); whether some of it was.
    pub fn remove(&mut self, ino: Ino, start: u64, end: u64) -> bool {
        let Some(ranges) = self.files.get_mut(&ino.0).filter(|_| start < end) else {
            return false;
        };
        let mut found = false;
        while let Some((&from, &to)) = ranges.range(..end).next_back().filter(|r| *r.1 > start) {
            found = true;
            ranges.remove(&from);
            self.count -= 1;
            for (from, to) in [(from, to.min(start)), (from.max(end), to)] {
                if from < to {
                    ranges.insert(from, to);
                    self.count += 1;
                }
            }
            if from <= start {
                break;
            }
        }
        if ranges.is_empty() {
            self.files.remove(&ino.0);
        }
        if found {
            self.changed.insert(ino.0);
        }
        found
    }

    /// The file is gone.
    pub fn forget(&mut self, ino: Ino) {
        self.remove(ino, 0, u64::MAX);
    }

    /// The parts of `start..end` that are remains, in order.
    pub fn within(&self, ino: Ino, start: u64, end: u64) -> Vec<(u64, u64)> {
        let Some(ranges) = self.files.get(&ino.0) else {
            return Vec::new();
        };
        within(ranges, start, end)
    }

    /// Where the range that holds `at` ends, if one does.
    pub fn end_of(&self, ino: Ino, at: u64) -> Option<u64> {
        let ranges = self.files.get(&ino.0)?;
        let (_, &end) = ranges.range(..=at).next_back()?;
        (end > at).then_some(end)
    }

    /// The last range of the first file that is not among `but`.
    pub fn last(&self, but: &[Ino]) -> Option<Place> {
        let mut files = self.files.iter();
        let (&ino, ranges) = files.find(|(ino, _)| !but.contains(&Ino(**ino)))?;
        let (&start, &end) = ranges.last_key_value()?;
        let ino = Ino(ino);
        Some(Place { ino, start, end })
    }

    /// The shortest range of all.
    pub fn shortest(&self) -> Option<Place> {
        self.places().min_by_key(|place| place.end - place.start)
    }

    /// How many ranges there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many bytes the ranges have; holes count.
    pub fn bytes(&self) -> u64 {
        self.places().map(|place| place.end - place.start).sum()
    }

    /// The files with remains.
    pub fn files(&self) -> impl Iterator<Item = Ino> + '_ {
        self.files.keys().map(|&ino| Ino(ino))
    }

    /// Whether a file has some.
    pub fn has(&self, ino: Ino) -> bool {
        self.files.contains_key(&ino.0)
    }

    /// The files whose ranges changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.changed)
    }

    /// A file's ranges as kept in a row; `None` without any.
    pub fn row(&self, ino: Ino) -> Option<Vec<u8>> {
        let ranges = self.files.get(&ino.0)?;
        let numbers = ranges.iter().flat_map(|(&start, &end)| [start, end]);
        Some(numbers.flat_map(u64::to_be_bytes).collect())
    }

    /// Takes the ranges of a file from its row.
    pub fn load(&mut self, ino: Ino, ranges: &[(u64, u64)]) {
        self.files.insert(ino.0, ranges.iter().copied().collect());
        self.count += ranges.len();
    }

    fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.files.iter().flat_map(|(&ino, ranges)| {
            ranges.iter().map(move |(&start, &end)| Place {
                ino: Ino(ino),
                start,
                end,
            })
        })
    }
}

fn within(ranges: &FileRanges, start: u64, end: u64) -> Vec<(u64, u64)> {
    let first = ranges.range(..=start).next_back().map_or(start, |r| *r.0);
    ranges
        .range(first..end.max(first))
        .map(|(&from, &to)| (from.max(start), to.min(end)))
        .filter(|(from, to)| from < to)
        .collect()
}

/// The ranges in a row; `None` if it is not one that [`Remains::row`] made.
pub fn decode(row: &[u8]) -> Option<Vec<(u64, u64)>> {
    let (numbers, []) = row.as_chunks::<NUMBER_BYTES>() else {
        return None;
    };
    let (pairs, []) = numbers.as_chunks::<2>() else {
        return None;
    };
    let pairs = pairs.iter().map(|pair| pair.map(u64::from_be_bytes));
    let ranges: Vec<_> = pairs.map(|[start, end]| (start, end)).collect();
    let sound = ranges.iter().all(|(start, end)| start < end);
    let apart = ranges.windows(2).all(|two| two[0].1 < two[1].0);
    (sound && apart && !ranges.is_empty()).then_some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: Ino = Ino(7);
    const BYTES: u64 = 64;

    /// What is in there, byte by byte.
    fn bytes(remains: &Remains) -> Vec<bool> {
        let mut all = vec![false; BYTES as usize];
        for (start, end) in remains.within(INO, 0, BYTES) {
            all[start as usize..end as usize].fill(true);
        }
        all
    }

    #[test]
    fn ranges_come_and_go_as_bytes_do() {
        let (mut remains, mut expected) = (Remains::default(), vec![false; BYTES as usize]);
        remains.add(Ino(8), 1, 5);
        let mut number = 1_u64;
        for step in 0..20_000 {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695);
            let (a, b) = ((number >> 33) % BYTES, (number >> 43) % BYTES);
            let (start, end) = (a.min(b), a.max(b));
            let part = &mut expected[start as usize..end as usize];
            if step % 3 == 0 {
                remains.add(INO, start, end);
                part.fill(true);
            } else {
                let any = part.contains(&true);
                assert_eq!(remains.remove(INO, start, end), any, "{start}..{end}");
                part.fill(false);
            }
            assert_eq!(bytes(&remains), expected, "after {start}..{end}");
            let ranges = remains.within(INO, 0, BYTES);
            assert!(
                ranges.windows(2).all(|two| two[0].1 < two[1].0),
                "{ranges:?}"
            );
            assert_eq!(remains.count(), 1 + ranges.len());
            let sum: u64 = ranges.iter().map(|(start, end)| end - start).sum();
            assert_eq!(remains.bytes(), 4 + sum);
            assert_eq!(
                remains.end_of(INO, a),
                ranges.iter().find(|r| r.0 <= a && a < r.1).map(|r| r.1)
            );
            let row = remains.row(INO);
            assert_eq!(row.as_deref().and_then(decode).unwrap_or_default(), ranges);
        }
        remains.forget(INO);
        remains.forget(Ino(8));
        assert_eq!((remains.count(), remains.last(&[])), (0, None));
        assert_eq!(remains.take_changed(), BTreeSet::from([7, 8]));
        assert!(remains.take_changed().is_empty());
    }

    #[test]
    fn a_part_of_a_range_is_a_part() {
        let mut remains = Remains::default();
        remains.load(INO, &[(10, 20), (30, 40)]);
        assert_eq!(remains.within(INO, 12, 15), [(12, 15)]);
        assert_eq!(remains.within(INO, 15, 35), [(15, 20), (30, 35)]);
        assert_eq!(remains.within(INO, 20, 30), []);
        assert_eq!(remains.within(INO, 50, 20), []);
        assert_eq!(remains.last(&[INO]), None);
        let shortest = remains.shortest().map(|place| place.start);
        assert_eq!(shortest, Some(10));
        assert_eq!(remains.last(&[]).map(|place| place.start), Some(30));
    }

    #[test]
    fn rows_of_another_shape_are_refused() {
        let row = |numbers: &[u64]| {
            let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
            decode(&bytes)
        };
        assert_eq!(row(&[1, 2, 3, 4]), Some(vec![(1, 2), (3, 4)]));
        for bad in [
            &[][..],
            &[1],
            &[2, 2],
            &[2, 1],
            &[1, 2, 2, 3],
            &[5, 6, 1, 2],
            &[1, 9, 2, 3],
        ] {
            assert_eq!(row(bad), None, "{bad:?}");
        }
        assert_eq!(decode(&[0; 17]), None);
    }
}
