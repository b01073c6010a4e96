//! How a thread's time goes by: on a processor, waiting for one, or otherwise, which for a thread that does nothing but
//! compute and use files means waiting for storage. As the kernel counts it (`schedstat`).
//!
//! It must not know what the thread does.

use std::time::Duration;

/// What a stretch of time went by with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It computed.
    Computing,
    /// It could have, but got no processor.
    NoProcessor,
    /// It waited for storage.
    Storage,
    /// The kernel does not tell, or it is mixed.
    Unknown,
}

/// How much time went by on a processor and waiting for one, up to a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    computed: Duration,
    waited: Duration,
}

impl Times {
    /// Of a thread of this process, up to now; `None` if the kernel does not tell.
    pub fn of(thread: i32) -> Option<Self> {
        let path = format!("/proc/self/task/{thread}/schedstat");
        Self::parse(&std::fs::read_to_string(path).ok()?)
    }

    /// Nanoseconds on a processor, and waiting for one; then something else.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok().map(Duration::from_nanos);
        Some(Self {
            computed: next()?,
            waited: next()?,
        })
    }

    /// What most of the time `elapsed` from here to `after` went by with.
    pub fn cause(&self, after: &Self, elapsed: Duration) -> Cause {
        let computed = after.computed.saturating_sub(self.computed);
        let waited = after.waited.saturating_sub(self.waited);
        let rest = elapsed.saturating_sub(computed + waited);
        let most = |part: Duration| part > elapsed.mul_f64(0.6);
        if most(computed) {
            Cause::Computing
        } else if most(waited) {
            Cause::NoProcessor
        } else if most(rest) {
            Cause::Storage
        } else {
            Cause::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(computed_ms: u64, waited_ms: u64) -> Times {
        Times {
            computed: Duration::from_millis(computed_ms),
            waited: Duration::from_millis(waited_ms),
        }
    }

    #[test]
    fn most_of_the_time_decides() {
        let cause = |computed: u64, waited: u64| {
            let after = times(1_000 + computed, 500 + waited);
            times(1_000, 500).cause(&after, Duration::from_millis(100))
        };
        assert_eq!(cause(90, 5), Cause::Computing);
        assert_eq!(cause(5, 90), Cause::NoProcessor);
        assert_eq!(cause(5, 5), Cause::Storage);
        assert_eq!(cause(34, 33), Cause::Unknown);
        assert_eq!(cause(200, 0), Cause::Computing, "clocks differ a little");
    }

    #[test]
    fn the_kernel_tells() {
        let told = Times::parse("5000000 2000000 17\n");
        assert_eq!(told, Some(times(5, 2)));
        assert_eq!(Times::parse("5000000"), None);
        assert_eq!(Times::parse("no numbers here"), None);
        assert_eq!(Times::of(0), None);
    }
}
