//! Watches openraft and says who leads, and since when a quorum answers: feeds the lease and the
//! leadership channel.
//!
//! Invariants
//! - The lease is renewed only from one snapshot of openraft's metrics: role, term and quorum time
//!   belong together.
//! - A leader that no quorum answers does not count as one, although openraft lets it stay leader
//!   until it meets a later term.
//!
//! It must not know entries, logs or sockets.

use std::sync::Arc;
use std::time::Duration;

use openraft::Instant as _;
use openraft::RaftMetrics;
use openraft::ServerState;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::lease::Lease;
use crate::options::Leadership;
use crate::options::Timing;
use crate::types::Types;

/// What this node's own operations need to know of its leadership.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What others are told.
    pub(crate) public: Leadership,
    /// Leads and is in touch with a quorum, even if it is handing over.
    pub(crate) leading: bool,
    /// Openraft has stopped.
    pub(crate) stopped: bool,
}

/// See the module's head.
pub(crate) struct Monitor {
    pub(crate) lease: Arc<Lease>,
    pub(crate) timing: Timing,
    pub(crate) single: bool,
    pub(crate) metrics: WatchReceiverOf<Types, RaftMetrics<Types>>,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) public: watch::Sender<Leadership>,
    /// Rung when a lease was revoked.
    pub(crate) revoked: Arc<Notify>,
}

impl Monitor {
    /// Watches until openraft stops.
    pub(crate) async fn run(mut self) {
        let mut leads_since = None;
        loop {
            let (standing, look_again_in) = self.look(&mut leads_since);
            self.publish(standing);
            if standing.stopped {
                return;
            }
            tokio::select! {
                changed = self.metrics.changed() => {
                    if changed.is_err() {
                        self.lease.clear();
                        self.publish(Standing { stopped: true, ..Standing::default() });
                        return;
                    }
                }
                () = self.revoked.notified() => {}
                () = tokio::time::sleep(look_again_in) => {}
            }
        }
    }

    fn publish(&self, standing: Standing) {
        // In this order: whoever is told that this node leads may propose at once.
        set_if_new(&self.standing, standing);
        set_if_new(&self.public, standing.public);
    }

    /// Renews or clears the lease, and says how things stand and when to look again.
    fn look(&self, leads_since: &mut Option<(u64, Instant)>) -> (Standing, Duration) {
        // Before the metrics and before any age is taken: see `Lease::renew`.
        let now_ns = self.lease.now_ns();
        let metrics = self.metrics.borrow_watched();
        let term = metrics.current_term;
        let stopped = metrics.running_state.is_err();
        let mut public = Leadership {
            leader: metrics.current_leader,
            term,
            is_leader: false,
        };
        if metrics.state != ServerState::Leader || stopped {
            *leads_since = None;
            self.lease.clear();
            let rest = Duration::from_secs(3600);
            return (
                Standing {
                    public,
                    leading: false,
                    stopped,
                },
                rest,
            );
        }
        let age = metrics.last_quorum_acked.map(|sent| sent.elapsed());
        self.lease.renew(term, now_ns, age);
        let since = match *leads_since {
            Some((led, since)) if led == term => since,
            _ => Instant::now(),
        };
        *leads_since = Some((term, since));
        // A new leader was in touch with a quorum when it was elected.
        let silent = age.unwrap_or(since.elapsed()).min(since.elapsed());
        let limit = self.timing.quorum_loss();
        let leading = self.single || silent < limit;
        public.is_leader = leading && !self.lease.is_revoked(term);
        let wait = limit.saturating_sub(silent).max(Duration::from_millis(10));
        (
            Standing {
                public,
                leading,
                stopped,
            },
            wait,
        )
    }
}

fn set_if_new<T: PartialEq + Copy>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|old| {
        let new = *old != value;
        *old = value;
        new
    });
}
