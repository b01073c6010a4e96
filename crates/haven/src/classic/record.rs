//! What clients felt: acknowledged operations and the longest wait.
//!
//! A *window* lies around a fault. The stall is the longest time from the start of any one operation to
//! its answer, among the operations that ended within the window: what a user at that client waited.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// How long clients may stand still before waiting for them is given up: longer than they wait before they doubt a connection,
/// so that what they felt is seen.
const STALL_MAX: Duration = Duration::from_secs(150);
/// Pause between looks at the workers.
const POLL: Duration = Duration::from_millis(5);

/// Shared by all workers of a load.
#[derive(Debug)]
pub struct Recorder {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    acknowledged: u64,
    longest: Duration,
    /// Operations, and the longest wait, since somebody last took them.
    beat: (u64, Duration),
    /// Operations that started after this are fresh.
    fresh_since: Instant,
    /// Fresh operations of each worker.
    fresh: Vec<u32>,
}

impl Recorder {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        let inner = Inner {
            acknowledged: 0,
            longest: Duration::ZERO,
            beat: (0, Duration::ZERO),
            fresh_since: Instant::now(),
            fresh: vec![0; workers],
        };
        Self {
            inner: Mutex::new(inner),
        }
    }

    /// An operation of `worker` that began at `start` has been answered.
    pub fn done(&self, worker: usize, start: Instant) {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        inner.acknowledged += 1;
        inner.longest = inner.longest.max(now - start);
        inner.beat.0 += 1;
        inner.beat.1 = inner.beat.1.max(now - start);
        if start >= inner.fresh_since
            && let Some(fresh) = inner.fresh.get_mut(worker)
        {
            *fresh += 1;
        }
    }

    /// Operations answered since the beginning.
    pub fn acknowledged(&self) -> u64 {
        self.inner.lock().acknowledged
    }

    /// Opens a window: the longest wait starts from nothing.
    pub fn open_window(&self) {
        let mut inner = self.inner.lock();
        inner.longest = Duration::ZERO;
        inner.restart_fresh();
    }

    /// Counts only operations from here on as fresh.
    fn mark(&self) {
        self.inner.lock().restart_fresh();
    }

    /// How many fresh operations the slowest worker has had answered.
    fn fresh(&self) -> u32 {
        self.inner.lock().fresh.iter().copied().min().unwrap_or(0)
    }

    /// Waits until every worker has had so many operations answered that began after this call.
    ///
    /// # Errors
    /// When they stand still for too long, in words.
    pub async fn wait_fresh(&self, operations: u32) -> Result<(), String> {
        self.mark();
        let start = Instant::now();
        while self.fresh() < operations {
            if start.elapsed() > STALL_MAX {
                return Err(format!("the clients have stood still for {STALL_MAX:?}"));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Operations answered, and the longest wait among them, since the last call.
    pub fn take_beat(&self) -> (u64, Duration) {
        std::mem::take(&mut self.inner.lock().beat)
    }

    /// The longest wait in the window.
    pub fn longest(&self) -> Duration {
        self.inner.lock().longest
    }
}

impl Inner {
    fn restart_fresh(&mut self) {
        self.fresh_since = Instant::now();
        self.fresh.fill(0);
    }
}
