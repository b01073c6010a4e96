//! The gate between clients and the service: open while this node serves.
//!
//! Leadership decides, the gate obeys: it counts the requests inside, holds new ones back while a
//! planned move drains, holds everything while it is suspended, and lets nothing out once closed. What is inside
//! outlives a suspension, but not a closing. Neither ends the connections (a reset before the address has moved would
//! send the client to a node that refuses it); hanging up does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Open,
    Draining,
    Suspended,
}

/// Phase and era in one word, so that a request learns both at once. The era rises at every closing: a
/// pass from before it is worthless.
#[derive(Debug, Clone, Copy)]
struct State(u64);

impl State {
    const PHASE_BITS: u32 = 2;

    const fn new(phase: Phase, era: u64) -> Self {
        Self(era << Self::PHASE_BITS | phase as u64)
    }

    const fn phase(self) -> Phase {
        match self.0 & ((1 << Self::PHASE_BITS) - 1) {
            1 => Phase::Open,
            2 => Phase::Draining,
            3 => Phase::Suspended,
            _ => Phase::Closed,
        }
    }

    const fn era(self) -> u64 {
        self.0 >> Self::PHASE_BITS
    }
}

/// See the module's head comment.
///
/// Why no request slips through while it drains: one counts itself in *before* it looks at the phase, and
/// the phase changes before the count is looked at. All of it is sequentially consistent, so either the
/// request sees the new phase or who drains sees the request.
#[derive(Debug)]
pub struct Gate {
    /// A [`State`].
    state: AtomicU64,
    inside: AtomicUsize,
    changed: watch::Sender<()>,
    hang_ups: watch::Sender<u64>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            state: AtomicU64::new(State::new(Phase::Closed, 0).0),
            inside: AtomicUsize::new(0),
            changed: watch::Sender::new(()),
            hang_ups: watch::Sender::new(0),
        }
    }
}

/// What the gate says to a request.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Come in.
    Pass(Pass),
    /// Wait: [`Gate::enter`].
    Later,
    /// Nothing is answered here.
    Never,
}

impl Gate {
    /// Lets requests in, and answers out.
    pub fn open(&self) {
        self.set(|s| State::new(Phase::Open, s.era()));
    }

    /// Holds new requests back; those inside go on.
    pub fn drain(&self) {
        self.set(|s| match s.phase() {
            Phase::Open => State::new(Phase::Draining, s.era()),
            Phase::Closed | Phase::Draining | Phase::Suspended => s,
        });
    }

    /// Holds new requests and all answers back until it is opened or closed; those inside stay, and so do connections.
    pub fn suspend(&self) {
        self.set(|s| match s.phase() {
            Phase::Open | Phase::Draining => State::new(Phase::Suspended, s.era()),
            Phase::Closed | Phase::Suspended => s,
        });
    }

    /// From now on nothing is answered.
    pub fn close(&self) {
        self.set(|s| State::new(Phase::Closed, s.era() + 1));
    }

    /// Ends every connection with a reset.
    pub fn hang_up(&self) {
        self.hang_ups.send_modify(|n| *n += 1);
    }

    /// Whether requests are let in.
    pub fn is_open(&self) -> bool {
        self.state().phase() == Phase::Open
    }

    /// Whether nothing is answered, and what is inside is given up.
    pub fn is_closed(&self) -> bool {
        self.state().phase() == Phase::Closed
    }

    /// Whether answers may leave.
    pub(crate) fn lets_out(&self) -> bool {
        matches!(self.state().phase(), Phase::Open | Phase::Draining)
    }

    /// Whether everything is held.
    pub fn is_suspended(&self) -> bool {
        self.state().phase() == Phase::Suspended
    }

    /// Waits while it is suspended: whatever is tried meanwhile is tried in vain.
    pub async fn resumed(&self) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if !self.is_suspended() || changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until nothing is inside (or the gate is no longer draining).
    pub async fn drained(&self) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let draining = self.state().phase() == Phase::Draining;
            if !draining || self.inside.load(Ordering::SeqCst) == 0 {
                return;
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Lets one request in, if it can come in at once.
    pub(crate) fn try_enter(self: &Arc<Self>) -> Entry {
        self.inside.fetch_add(1, Ordering::SeqCst);
        let state = self.state();
        match state.phase() {
            Phase::Open => Entry::Pass(Pass {
                gate: Arc::clone(self),
                era: state.era(),
            }),
            Phase::Draining | Phase::Suspended => {
                self.leave();
                Entry::Later
            }
            Phase::Closed => {
                self.leave();
                Entry::Never
            }
        }
    }

    /// Lets one request in: waits while draining or suspended; `None` when closed.
    pub async fn enter(self: &Arc<Self>) -> Option<Pass> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            match self.try_enter() {
                Entry::Pass(pass) => return Some(pass),
                Entry::Never => return None,
                Entry::Later => changed.changed().await.ok()?,
            }
        }
    }

    /// A receiver that changes at every hang-up.
    pub(crate) fn hang_ups(&self) -> watch::Receiver<u64> {
        self.hang_ups.subscribe()
    }

    fn state(&self) -> State {
        State(self.state.load(Ordering::SeqCst))
    }

    fn set(&self, change: impl Fn(State) -> State) {
        // It cannot fail: the change is never refused.
        let _ = self
            .state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |s| {
                Some(change(State(s)).0)
            });
        self.changed.send_replace(());
    }

    fn leave(&self) {
        let before = self.inside.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0);
        if before == 1 && self.state().phase() == Phase::Draining {
            self.changed.send_replace(());
        }
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
        let state = self.gate.state();
        state.phase() != Phase::Closed && state.era() == self.era
    }

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
        self.gate.leave();
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

    #[test]
    fn suspended_holds_everything_and_loses_nothing() {
        let gate = Arc::new(Gate::default());
        gate.suspend();
        assert!(gate.is_closed(), "what is closed has nothing to keep");
        gate.open();
        let Poll::Ready(Some(pass)) = poll(pin!(gate.enter())) else {
            panic!("open")
        };
        gate.drain();
        let mut drained = pin!(gate.drained());
        assert!(poll(drained.as_mut()).is_pending());
        gate.suspend();
        assert!(poll(drained.as_mut()).is_ready(), "nobody drains any more");
        gate.drain();
        assert!(!gate.is_open() && !gate.lets_out() && !gate.is_closed());
        let mut late = pin!(gate.enter());
        let mut spoiled = pin!(pass.spoiled());
        let mut resumed = pin!(gate.resumed());
        assert!(poll(late.as_mut()).is_pending());
        assert!(poll(spoiled.as_mut()).is_pending() && pass.is_valid());
        assert!(poll(resumed.as_mut()).is_pending());
        gate.open();
        assert!(gate.lets_out() && pass.is_valid());
        assert!(poll(resumed.as_mut()).is_ready());
        assert!(poll(spoiled.as_mut()).is_pending());
        let Poll::Ready(Some(second)) = poll(late.as_mut()) else {
            panic!("open again")
        };
        gate.suspend();
        let mut third = pin!(gate.enter());
        assert!(poll(third.as_mut()).is_pending());
        gate.close();
        assert!(poll(spoiled.as_mut()).is_ready());
        assert!(!pass.is_valid() && !second.is_valid());
        assert!(matches!(poll(third.as_mut()), Poll::Ready(None)));
    }
}
