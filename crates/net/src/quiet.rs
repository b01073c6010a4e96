//! Complaints that a peer can provoke: one line a second at most, with the number of those left out.
//!
//! A log that a stranger can fill is a disk that a stranger can fill.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// How often a complaint may be made.
const INTERVAL: Duration = Duration::from_secs(1);

/// Keeps one kind of complaint rare.
#[derive(Debug, Default)]
pub struct Quiet {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    spoke_at: Option<Instant>,
    left_out: u64,
}

impl Quiet {
    /// Whether to complain now; if so, how many complaints were left out since the last one.
    pub fn speak(&self) -> Option<u64> {
        self.speak_at(Instant::now())
    }

    fn speak_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        let soon = state
            .spoke_at
            .is_some_and(|at| now.saturating_duration_since(at) < INTERVAL);
        if soon {
            state.left_out += 1;
            return None;
        }
        state.spoke_at = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_complaint_an_interval_tells_how_many_were_left_out() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        assert_eq!(quiet.speak_at(start), Some(0));
        for ms in [0, 1, 999] {
            assert_eq!(quiet.speak_at(start + Duration::from_millis(ms)), None);
        }
        assert_eq!(quiet.speak_at(start + INTERVAL), Some(3));
        assert_eq!(quiet.speak_at(start + INTERVAL * 2), Some(0));
    }
}
