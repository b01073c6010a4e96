//! Which directories are known to lie inside which exports.
//!
//! `..` of a directory is shown only where that is inside the export that it was reached through, and to know that takes a
//! climb to the export's own directory: thousands of steps in a deep tree, for one small request. What a climb has found
//! is remembered, for all directories on its way, until a directory moves: then each climbs once, however often it is asked for.
//!
//! Invariants
//! - What is known follows from the present state alone: it is no state of its own, and replicas may know different parts.
//! - It is bounded: [`KNOWN_MAX`].
//!
//! It must not know how to climb.

use crate::handle::ExportId;
use haven_fs::Ino;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// About so many are known at a time: 64 bytes each.
const KNOWN_MAX: usize = 65_536;

/// Where a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    Inside,
    Outside,
    /// So deep down that nobody climbs up from it; all below it is, too.
    TooDeep,
}

type Known = BTreeMap<(ExportId, Ino), Whereabouts>;

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Inside(Mutex<Known>);

impl Inside {
    /// Where the directory is; `None`: not known.
    pub(crate) fn of(&self, export: ExportId, dir: Ino) -> Option<Whereabouts> {
        self.known().get(&(export, dir)).copied()
    }

    /// All of these are there.
    pub(crate) fn note(&self, export: ExportId, dirs: &[Ino], at: Whereabouts) {
        let mut known = self.known();
        if known.len() + dirs.len() > KNOWN_MAX {
            known.clear();
        }
        known.extend(dirs.iter().map(|dir| ((export, *dir), at)));
    }

    /// A directory may have moved.
    pub(crate) fn forget(&self) {
        self.known().clear();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Whoever panicked left a map: what is in it is right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_bounded_and_forgotten_at_once() {
        let inside = Inside::default();
        let (one, other) = (ExportId(1), ExportId(2));
        inside.note(one, &[Ino(5), Ino(6)], Whereabouts::Inside);
        inside.note(other, &[Ino(5)], Whereabouts::Outside);
        assert_eq!(inside.of(one, Ino(6)), Some(Whereabouts::Inside));
        assert_eq!(inside.of(other, Ino(5)), Some(Whereabouts::Outside));
        assert_eq!(inside.of(other, Ino(6)), None);
        inside.forget();
        assert_eq!(inside.of(one, Ino(6)), None);
        for n in 0..KNOWN_MAX as u64 {
            let dirs = [Ino(2 * n), Ino(2 * n + 1)];
            inside.note(one, &dirs, Whereabouts::TooDeep);
            assert!(inside.known().len() <= KNOWN_MAX);
        }
    }
}
