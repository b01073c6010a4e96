//! How much room there is for changes: the last measurement, less what was let in and may not be part of it.
//!
//! Room is bytes, and files that the file system still takes: one whose inodes are used up takes no file, however much is free.
//!
//! It must not know how room is measured, nor whose it is.

use haven_disk::Space;
use std::time::Instant;

/// So much above the reserve must be free before growing changes are taken again.
const MARGIN: Amount = Amount {
    bytes: 16 << 20,
    files: 256,
};

/// Bytes and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Amount {
    pub bytes: u64,
    pub files: u64,
}

impl Amount {
    /// What is free of a file system.
    pub fn free(space: Space) -> Self {
        Self {
            bytes: space.free_bytes,
            files: space.free_files.unwrap_or(u64::MAX),
        }
    }

    /// Together.
    pub const fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
        }
    }

    /// What is left without `other`.
    pub const fn less(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            files: self.files.saturating_sub(other.files),
        }
    }

    const fn covers(self, other: Self) -> bool {
        self.bytes >= other.bytes && self.files >= other.files
    }
}

/// See the module's head comment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub total_bytes: u64,
    pub free: Amount,
    /// Stays free.
    pub reserve: Amount,
    pub measured_at: Instant,
    /// Let in and not finished.
    under_way: Amount,
    /// Finished since the last measurement began.
    pub finished: Amount,
    pub full: bool,
    /// No majority of the nodes has space, and this one leads.
    pub others_full: bool,
}

impl Level {
    /// Before the first measurement.
    pub fn new(reserve: Amount, measured_at: Instant) -> Self {
        Self {
            total_bytes: 0,
            free: Amount::default(),
            reserve,
            measured_at,
            under_way: Amount::default(),
            finished: Amount::default(),
            full: false,
            others_full: false,
        }
    }

    /// Whether what needs space is refused.
    pub fn refuses(&self) -> bool {
        self.full || self.others_full
    }

    /// What is free without what was let in.
    fn left(&self) -> Amount {
        self.free.less(self.under_way.plus(self.finished))
    }

    /// What is free above the reserve.
    pub fn above_reserve(&self) -> Amount {
        match self.full {
            true => Amount::default(),
            false => self.left().less(self.reserve),
        }
    }

    /// Whether it is files that are missing: not one more is above the reserve.
    pub fn lacks_files(&self) -> bool {
        self.left().files <= self.reserve.files
    }

    /// Lets a change in that takes no more than this.
    pub fn admit(&mut self, change: Amount) -> bool {
        if self.refuses() || !self.left().covers(self.reserve.plus(change)) {
            return false;
        }
        self.under_way = self.under_way.plus(change);
        true
    }

    /// One that was let in is over.
    pub fn finish(&mut self, change: Amount) {
        self.under_way = self.under_way.less(change);
        self.finished = self.finished.plus(change);
    }

    /// Takes a measurement, which covers so much of what was finished; true if there is space again, or none any more.
    pub fn measured(&mut self, space: Space, covered: Amount, at: Instant) -> bool {
        self.total_bytes = space.total_bytes;
        self.free = Amount::free(space);
        self.measured_at = at;
        self.finished = self.finished.less(covered);
        let was = self.full;
        let enough = match was {
            true => self.reserve.plus(MARGIN),
            false => self.reserve,
        };
        self.full = !self.free.covers(enough);
        was != self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    const fn mib(count: u64) -> Amount {
        Amount {
            bytes: count * MIB,
            files: 1,
        }
    }

    fn space(free_mib: u64, free_files: Option<u64>) -> Space {
        Space {
            total_bytes: 1000 * MIB,
            free_bytes: free_mib * MIB,
            free_files,
        }
    }

    /// Of which 40 MiB and 100 files are kept in reserve.
    fn level(free_mib: u64, free_files: Option<u64>) -> Level {
        let reserve = Amount {
            bytes: 40 * MIB,
            files: 100,
        };
        let now = Instant::now();
        let mut level = Level::new(reserve, now);
        level.measured(space(free_mib, free_files), Amount::default(), now);
        level
    }

    #[test]
    fn a_burst_between_two_measurements_cannot_run_past_the_reserve() {
        let mut level = level(100, None);
        let now = level.measured_at;
        let admitted = (0..1_000).filter(|_| level.admit(mib(1))).count();
        assert_eq!(admitted, 60);
        assert_eq!(level.above_reserve().bytes, 0);
        for _ in 0..10 {
            level.finish(mib(1));
        }
        assert!(!level.admit(mib(1)), "finished is not given back");
        // A measurement begins; meanwhile ten more are finished, which it may not show.
        let covered = level.finished;
        for _ in 0..10 {
            level.finish(mib(1));
        }
        level.measured(space(90, None), covered, now);
        assert!(!level.admit(mib(1)));
        // What was let in took less than thought.
        let covered = level.finished;
        level.measured(space(90, None), covered, now);
        assert_eq!(level.above_reserve().bytes, 10 * MIB);
        assert_eq!((0..100).filter(|_| level.admit(mib(1))).count(), 10);
    }

    #[test]
    fn files_run_out_as_bytes_do() {
        let mut level = level(100, Some(130));
        let now = level.measured_at;
        assert_eq!(level.above_reserve().files, 30);
        let admitted = (0..1_000).filter(|_| level.admit(mib(0))).count();
        assert_eq!(admitted, 30);
        assert!(level.measured(space(100, Some(99)), Amount::default(), now));
        assert!(level.full && level.above_reserve() == Amount::default());
        assert!(!level.measured(space(100, Some(355)), Amount::default(), now));
        assert!(level.measured(space(100, Some(356)), Amount::default(), now));
        assert!(!level.full);
    }

    #[test]
    fn space_must_come_back_with_a_margin() {
        let mut level = level(100, None);
        let (now, none) = (level.measured_at, Amount::default());
        assert!(level.measured(space(39, None), none, now));
        assert!(!level.admit(none));
        assert!(!level.measured(space(41, None), none, now));
        assert!(!level.admit(none));
        assert!(level.measured(space(40 + 16, None), none, now));
        assert!(level.admit(mib(1)));
    }
}
