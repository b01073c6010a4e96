//! Durations in buckets of powers of two, from 16 microseconds to 17 seconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets with an upper bound; one more has none.
pub const BOUNDS: usize = 21;
/// Upper bound of the first bucket, in microseconds; each further one is twice as wide.
const FIRST_US: u64 = 16;

/// Counts that many threads add to.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS + 1],
    sum_ns: AtomicU64,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Buckets {
    /// How many fell into each bucket, not cumulated.
    pub counts: [u64; BOUNDS + 1],
    /// All durations together.
    pub sum: Duration,
}

/// Which bucket a duration belongs to.
pub fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
    let steps = us.div_ceil(FIRST_US).max(1);
    // The smallest power of two not below it.
    let bucket = u64::BITS - (steps - 1).leading_zeros();
    usize::try_from(bucket).unwrap_or(BOUNDS).min(BOUNDS)
}

/// The upper bound of a bucket in seconds; the last one has none.
pub fn bound_seconds(bucket: usize) -> f64 {
    if bucket >= BOUNDS {
        return f64::INFINITY;
    }
    // Exact: powers of two of a small integer.
    #[allow(clippy::cast_precision_loss, reason = "at most 2^25")]
    let us = (FIRST_US << bucket) as f64;
    us / 1e6
}

impl Histogram {
    /// Counts one.
    pub fn add(&self, took: Duration) {
        self.counts[bucket(took)].fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn read(&self) -> Buckets {
        let mut counts = [0; BOUNDS + 1];
        for (count, counter) in counts.iter_mut().zip(&self.counts) {
            *count = counter.load(Ordering::Relaxed);
        }
        Buckets {
            counts,
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)),
        }
    }
}

impl Buckets {
    /// How many in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// As Prometheus counts: bucket by bucket with its bound.
    pub fn pairs(&self) -> Vec<(f64, u64)> {
        let counts = self.counts.iter().enumerate();
        counts.map(|(i, n)| (bound_seconds(i), *n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        for (us, expect) in [(0, 0), (1, 0), (16, 0), (17, 1), (32, 1), (33, 2), (64, 2)] {
            assert_eq!(bucket(Duration::from_micros(us)), expect, "{us} us");
        }
        for i in 0..BOUNDS {
            let bound = Duration::from_micros(FIRST_US << i);
            assert_eq!(bucket(bound), i);
            assert_eq!(bucket(bound + Duration::from_nanos(1)), i + 1);
            assert!((bound_seconds(i) - bound.as_secs_f64()).abs() < 1e-12);
        }
        assert_eq!(bucket(Duration::MAX), BOUNDS);
    }

    #[test]
    fn what_is_added_is_read() {
        let histogram = Histogram::default();
        for ms in [1, 2, 3] {
            histogram.add(Duration::from_millis(ms));
        }
        let read = histogram.read();
        assert_eq!((read.count(), read.sum), (3, Duration::from_millis(6)));
        assert_eq!(read.pairs().len(), BOUNDS + 1);
    }
}
