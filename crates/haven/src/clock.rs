//! The wall clock, read in one place: entries carry its reading, the machine keeps it from running back.

use haven_fs::Time;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds by which the clock is wrong: other than 0 only in tests of clocks that jump.
static SHIFT_S: AtomicI64 = AtomicI64::new(0);

/// Now. A clock before 1970 counts as 1970.
pub fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let secs = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Time {
        secs: secs.saturating_add(SHIFT_S.load(Ordering::Relaxed)).max(0),
        nanos: since.subsec_nanos(),
    }
}

/// Makes this process's clock wrong by so many seconds.
#[doc(hidden)]
pub fn shift(secs: i64) {
    SHIFT_S.store(secs, Ordering::Relaxed);
}
