//! The handle of whoever gives back, beside the changes, the space of what was cut off and removed.
//!
//! It must not know how pieces are chosen.

use crate::open::{Generation, Store};
use haven_fs::FsResult;
use std::sync::Arc;
use std::time::Duration;

/// Gives back space of a store's present state; once a snapshot took its place, there is nothing left to do for it. It
/// needs no access to the store.
pub struct Cutter(Arc<Generation>);

impl Store {
    /// A handle for giving back space.
    pub fn cutter(&self) -> Cutter {
        Cutter(Arc::clone(&self.generation))
    }
}

impl Cutter {
    /// Gives back a piece of at most `most` bytes of a file (holes count). How many it was; `None`: there is nothing to
    /// give back. Takes as long as the file system does, and changes of the same file wait for it.
    ///
    /// # Errors
    /// The disk's. Nothing is lost; the piece can be tried again.
    pub fn piece(&self, most: u64) -> FsResult<Option<u64>> {
        match self.0.is_retired() {
            true => Ok(None),
            false => self.0.data.cut_piece(most),
        }
    }

    /// Waits until there is something to give back, at most so long.
    pub fn wait(&self, at_most: Duration) {
        self.0.data.wait_for_cuts(at_most);
    }

    /// Ends a wait, and all later ones at once; no piece is given back any more.
    pub fn stop(&self) {
        self.0.data.stop_cuts();
    }

    /// Files that wait to be given back in part or, removed, as a whole; and the bytes of those parts (holes count).
    pub fn left(&self) -> (usize, u64) {
        self.0.data.cuts_left()
    }
}
