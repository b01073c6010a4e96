//! How a snapshot gives way to what clients wait for.
//!
//! Its connection has the least priority ([`crate::net::urgency`]), but TCP shares a full network equally all the same. So while
//! entries go to followers beside it, it rests as long as it sends: it has half of its share at most. Alone, it has
//! everything.
//!
//! It must not know sockets or snapshots.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Entries count as traffic if they are this part of what a snapshot sent meanwhile: less would not notice.
const PART: u64 = 8;

/// Longest rest: a snapshot that takes so long for one chunk is slow enough.
const REST_MAX: Duration = Duration::from_secs(1);

/// Bytes of appends that this node has sent.
#[derive(Default)]
pub(crate) struct Traffic(AtomicU64);

impl Traffic {
    pub(crate) fn note(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long to rest after so many bytes of a snapshot took so long to send, while so many bytes of entries were sent.
pub(crate) fn pause(took: Duration, bytes: u64, entries: u64) -> Duration {
    match entries >= bytes / PART {
        true => took.min(REST_MAX),
        false => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_rests_as_long_as_it_sends_while_clients_write_and_not_without_them() {
        let took = Duration::from_millis(40);
        let mib = 1 << 20;
        assert_eq!(pause(took, mib, 0), Duration::ZERO);
        assert_eq!(pause(took, mib, 1_000), Duration::ZERO, "heartbeats");
        assert_eq!(pause(took, mib, mib / 3), took);
        assert_eq!(pause(REST_MAX * 9, mib, mib), REST_MAX);
    }
}
