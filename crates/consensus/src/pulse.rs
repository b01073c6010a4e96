//! For how long something has been under way: for whoever judges whether it hangs.
//!
//! Invariant: one thing at a time beats; it stops beating when it ends, however it ends.
//!
//! It must not know what too long is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Clones are the same pulse.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<Mutex<Option<Instant>>>);

/// The thing is under way as long as this lives.
#[derive(Debug)]
pub struct Beat(Pulse);

impl Pulse {
    /// It begins.
    #[must_use]
    pub fn begin(&self) -> Beat {
        *self.0.lock() = Some(Instant::now());
        Beat(self.clone())
    }

    /// For how long it has been under way.
    #[must_use]
    pub fn running(&self) -> Option<Duration> {
        self.0.lock().map(|since| since.elapsed())
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}
