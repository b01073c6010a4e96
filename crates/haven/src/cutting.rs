//! Gives back the space of what was cut off and removed, beside the changes, on a thread of its own.
//!
//! A piece is as large as the local file system manages in a few milliseconds, because changes of the same file wait for
//! it: what a piece costs differs by thousands between file systems (one that discards on the device at once takes
//! milliseconds for each extent).
//!
//! It must not know what is given back.

use crate::engine::Volume;
use haven_store::Cutter;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::warn;

/// Pieces take about so long.
const PIECE: Duration = Duration::from_millis(8);
/// Bytes of the first piece, the smallest and the largest.
const FIRST_BYTES: u64 = 1 << 20;
const LEAST_BYTES: u64 = 64 << 10;
const MOST_BYTES: u64 = 1 << 40;
/// How often it is looked for something to give back when nothing rings: after a snapshot took the state's place.
const IDLE: Duration = Duration::from_secs(1);
/// Pause after the disk refused.
const RETRY: Duration = Duration::from_secs(10);

/// The thread; it ends with this.
pub struct Cutting {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Default)]
struct State {
    over: bool,
    /// What is worked with now.
    cutter: Option<Arc<Cutter>>,
}

impl Cutting {
    /// Starts it.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(volume: Arc<Volume>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("haven-cut".into())
            .spawn(move || run(&volume, &own))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for Cutting {
    fn drop(&mut self) {
        let cutter = {
            let mut state = self.shared.state.lock();
            state.over = true;
            state.cutter.take()
        };
        self.shared.over.notify_all();
        if let Some(cutter) = cutter {
            cutter.stop();
        }
        // At most a piece later. If it panicked, it said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(volume: &Volume, shared: &Shared) {
    let mut pace = Pace::default();
    loop {
        let cutter = Arc::new(volume.read().fs().cutter());
        {
            let mut state = shared.state.lock();
            if state.over {
                return;
            }
            state.cutter = Some(Arc::clone(&cutter));
        }
        if let Err(why) = give_back(&cutter, &mut pace) {
            warn!(%why, "space is not given back yet; it is tried again");
            let mut state = shared.state.lock();
            if !state.over {
                let _ = shared.over.wait_for(&mut state, RETRY);
            }
        } else {
            cutter.wait(IDLE);
        }
    }
}

/// Until there is nothing left.
fn give_back(cutter: &Cutter, pace: &mut Pace) -> haven_fs::FsResult<()> {
    loop {
        let began = Instant::now();
        match cutter.piece(pace.bytes)? {
            Some(_) => pace.took(began.elapsed()),
            None => return Ok(()),
        }
    }
}

/// How large pieces are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    bytes: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { bytes: FIRST_BYTES }
    }
}

impl Pace {
    /// The last piece took so long.
    fn took(&mut self, time: Duration) {
        if time > PIECE {
            let times = time.as_micros() / PIECE.as_micros().max(1);
            let less = self.bytes / u64::try_from(times.max(2)).unwrap_or(u64::MAX);
            self.bytes = less.max(LEAST_BYTES);
        } else if time < PIECE / 2 {
            self.bytes = self.bytes.saturating_mul(2).min(MOST_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_as_large_as_they_may_last() {
        let mut pace = Pace::default();
        pace.took(Duration::from_millis(1));
        assert_eq!(pace.bytes, 2 * FIRST_BYTES);
        pace.took(PIECE);
        assert_eq!(pace.bytes, 2 * FIRST_BYTES, "as it should be");
        pace.took(PIECE * 8);
        assert_eq!(pace.bytes, FIRST_BYTES / 4);
        for _ in 0..10 {
            pace.took(Duration::from_secs(100));
        }
        assert_eq!(pace.bytes, LEAST_BYTES);
        for _ in 0..100 {
            pace.took(Duration::ZERO);
        }
        assert_eq!(pace.bytes, MOST_BYTES);
    }
}
