//! The gate between clients and the service: open while this node serves.
//!
//! Leadership decides, the gate obeys: it counts the requests inside, holds new ones back while a
//! planned move drains, and lets nothing out once closed. Closing does not end the connections (a reset
//! before the address has moved would send the client to a node that refuses it); hanging up does.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Open,
    Draining,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Rises at every closing, so that a pass from before it is worthless.
    era: u64,
    inside: usize,
}

/// See the module's head comment.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    hang_ups: watch::Sender<u64>,
}

impl Default for Gate {
    fn default() -> Self {
        let state = State {
            phase: Phase::Closed,
            era: 0,
            inside: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            hang_ups: watch::Sender::new(0),
        }
    }
}

impl Gate {
    /// Lets requests in.
    pub fn open(&self) {
        self.set(|s| s.phase = Phase::Open);
    }

    /// Holds new requests back; those inside go on.
    pub fn drain(&self) {
        self.set(|s| {
            if s.phase == Phase::Open {
                s.phase = Phase::Draining;
            }
        });
    }

    /// From now on nothing is answered.
    pub fn close(&self) {
        self.set(|s| {
            s.phase = Phase::Closed;
            s.era += 1;
        });
    }

    /// Ends every connection with a reset.
    pub fn hang_up(&self) {
        self.hang_ups.send_modify(|n| *n += 1);
    }

    /// Whether requests are let in.
    pub fn is_open(&self) -> bool {
        self.state.lock().phase == Phase::Open
    }

    /// Waits until nothing is inside (or the gate is no longer draining).
    pub async fn drained(&self) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            {
                let state = self.state.lock();
                if state.inside == 0 || state.phase != Phase::Draining {
                    return;
                }
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Lets one request in: waits while draining; `None` when closed.
    pub async fn enter(self: &Arc<Self>) -> Option<Pass> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            {
                let mut state = self.state.lock();
                match state.phase {
                    Phase::Closed => return None,
                    Phase::Open => {
                        state.inside += 1;
                        return Some(Pass {
                            gate: Arc::clone(self),
                            era: state.era,
                        });
                    }
                    Phase::Draining => {}
                }
            }
            changed.changed().await.ok()?;
        }
    }

    /// A receiver that changes at every hang-up.
    pub(crate) fn hang_ups(&self) -> watch::Receiver<u64> {
        self.hang_ups.subscribe()
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.send_replace(());
    }
}

/// The right of one request to be inside; given back when dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
    era: u64,
}

impl Pass {
    /// Whether the gate has not closed since this request came in.
    pub fn is_valid(&self) -> bool {
        let state = self.gate.state.lock();
        state.phase != Phase::Closed && state.era == self.era
    }
}

impl Pass {
    /// Returns when the gate has closed since this request came in.
    pub async fn spoiled(&self) {
        let mut changed = self.gate.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if !self.is_valid() || changed.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let last = {
            let mut state = self.gate.state.lock();
            debug_assert!(state.inside > 0);
            state.inside -= 1;
            state.inside == 0 && state.phase == Phase::Draining
        };
        if last {
            self.gate.changed.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll<F: Future>(f: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        f.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn closed_lets_nothing_in_and_spoils_passes() {
        let gate = Arc::new(Gate::default());
        assert!(matches!(poll(pin!(gate.enter())), Poll::Ready(None)));
        gate.open();
        let Poll::Ready(Some(pass)) = poll(pin!(gate.enter())) else {
            panic!("open")
        };
        assert!(pass.is_valid());
        let mut spoiled = pin!(pass.spoiled());
        assert!(poll(spoiled.as_mut()).is_pending());
        gate.close();
        assert!(poll(spoiled.as_mut()).is_ready());
        assert!(!pass.is_valid());
        gate.open();
        assert!(
            !pass.is_valid(),
            "a pass from before a closing stays worthless"
        );
    }

    #[test]
    fn draining_waits_for_those_inside_and_holds_back_others() {
        let gate = Arc::new(Gate::default());
        gate.open();
        let Poll::Ready(Some(pass)) = poll(pin!(gate.enter())) else {
            panic!("open")
        };
        gate.drain();
        let mut drained = pin!(gate.drained());
        let mut late = pin!(gate.enter());
        assert!(poll(drained.as_mut()).is_pending());
        assert!(poll(late.as_mut()).is_pending());
        assert!(pass.is_valid(), "a draining gate still lets replies out");
        drop(pass);
        assert!(poll(drained.as_mut()).is_ready());
        gate.open();
        assert!(matches!(poll(late.as_mut()), Poll::Ready(Some(_))));
    }
}
