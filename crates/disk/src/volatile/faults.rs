//! Which flush of a [`super::VolatileDisk`] fails, and what of it reaches the disk all the same.
//!
//! It must not know files or names.

use std::io;
use std::path::Path;

/// The flush that is to fail.
#[derive(Default)]
pub(super) struct Faults {
    planned: Option<Planned>,
}

struct Planned {
    /// Flushes that succeed before it.
    after: u64,
    seed: u64,
}

impl Faults {
    pub(super) fn plan(&mut self, after: u64, seed: u64) {
        self.planned = Some(Planned { after, seed });
    }

    pub(super) fn is_planned(&self) -> bool {
        self.planned.is_some()
    }

    /// Counts a flush; if it is the one, it fails by these chances.
    pub(super) fn next(&mut self) -> Option<Chances> {
        let planned = self.planned.as_mut()?;
        if planned.after > 0 {
            planned.after -= 1;
            return None;
        }
        let seed = planned.seed;
        self.planned = None;
        Some(Chances(seed))
    }
}

/// Answers that follow from a seed (splitmix64).
pub(super) struct Chances(u64);

impl Chances {
    pub(super) fn next(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)).is_multiple_of(2)
    }
}

/// What Linux answers.
pub(super) fn error(path: &Path) -> io::Error {
    io::Error::other(format!("flush {}: input/output error", path.display()))
}
