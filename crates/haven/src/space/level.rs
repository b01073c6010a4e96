//! How much space there is for changes: the last measurement, less what was let in and may not be part of it.
//!
//! It must not know how space is measured, nor whose it is.

use std::time::Instant;

/// So much above the reserve must be free before growing changes are taken again.
const MARGIN_BYTES: u64 = 16 << 20;

/// See the module's head comment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub free_bytes: u64,
    pub measured_at: Instant,
    /// Let in and not finished.
    pub under_way_bytes: u64,
    /// Finished since the last measurement began.
    pub finished_bytes: u64,
    pub full: bool,
    /// No majority of the nodes has space, and this one leads.
    pub others_full: bool,
}

impl Level {
    /// After the first measurement.
    pub const fn new(free_bytes: u64, measured_at: Instant) -> Self {
        Self {
            free_bytes,
            measured_at,
            under_way_bytes: 0,
            finished_bytes: 0,
            full: false,
            others_full: false,
        }
    }

    /// Whether what needs space is refused.
    pub fn refuses(&self) -> bool {
        self.full || self.others_full
    }

    /// Lets a change of so many bytes in.
    pub fn admit(&mut self, bytes: u64, reserve_bytes: u64) -> bool {
        let taken = self.under_way_bytes.saturating_add(self.finished_bytes);
        let left = self.free_bytes.saturating_sub(taken.saturating_add(bytes));
        if self.refuses() || left < reserve_bytes {
            return false;
        }
        self.under_way_bytes += bytes;
        true
    }

    /// One that was let in is over.
    pub fn finish(&mut self, bytes: u64) {
        self.under_way_bytes -= bytes;
        self.finished_bytes += bytes;
    }

    /// Takes a measurement, which covers so many of the finished bytes; true if there is space again, or none any
    /// more.
    pub fn measured(
        &mut self,
        free_bytes: u64,
        covered: u64,
        at: Instant,
        reserve_bytes: u64,
    ) -> bool {
        self.free_bytes = free_bytes;
        self.measured_at = at;
        self.finished_bytes -= covered;
        let was = self.full;
        let enough = match was {
            true => reserve_bytes.saturating_add(MARGIN_BYTES),
            false => reserve_bytes,
        };
        self.full = free_bytes < enough;
        was != self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn level(free_bytes: u64) -> Level {
        Level::new(free_bytes, Instant::now())
    }

    #[test]
    fn a_burst_between_two_measurements_cannot_run_past_the_reserve() {
        let mut level = level(100 * MIB);
        let now = level.measured_at;
        let admitted = (0..1_000).filter(|_| level.admit(MIB, 40 * MIB)).count();
        assert_eq!(admitted, 60);
        for _ in 0..10 {
            level.finish(MIB);
        }
        assert!(!level.admit(MIB, 40 * MIB), "finished is not given back");
        // A measurement begins; meanwhile ten more are finished, which it may not show.
        let covered = level.finished_bytes;
        for _ in 0..10 {
            level.finish(MIB);
        }
        level.measured(90 * MIB, covered, now, 40 * MIB);
        assert!(!level.admit(MIB, 40 * MIB));
        // What was let in took less than thought.
        let covered = level.finished_bytes;
        level.measured(90 * MIB, covered, now, 40 * MIB);
        assert_eq!((0..100).filter(|_| level.admit(MIB, 40 * MIB)).count(), 10);
    }

    #[test]
    fn space_must_come_back_with_a_margin() {
        let mut level = level(100 * MIB);
        let now = level.measured_at;
        assert!(level.measured(39 * MIB, 0, now, 40 * MIB));
        assert!(!level.admit(0, 40 * MIB));
        assert!(!level.measured(41 * MIB, 0, now, 40 * MIB));
        assert!(!level.admit(0, 40 * MIB));
        assert!(level.measured(40 * MIB + MARGIN_BYTES, 0, now, 40 * MIB));
        assert!(level.admit(MIB, 40 * MIB));
    }
}
