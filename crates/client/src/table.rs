//! The requests in flight: what has been asked, what has been sent over the present connection, who waits.
//!
//! Invariants
//! - A request is in the table from `insert` until it is answered or forgotten, whatever connections do.
//! - `queue` holds exactly the requests of the table that were not sent over the present connection.
//!
//! It knows no sockets.

use bytes::Bytes;
use haven_rpc::Outcome;
use haven_xdr::Gather;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Most segments handed out for one write.
const BATCH_SEGMENTS_MAX: usize = 64;

/// The requests in flight, shared by callers and connection.
pub(crate) struct Table {
    state: Mutex<State>,
    queued: Notify,
}

struct State {
    next_xid: u32,
    next_order: u64,
    entries: HashMap<u32, Entry>,
    queue: VecDeque<u32>,
    retransmissions: u64,
}

struct Entry {
    /// Rises from request to request: retransmissions keep the order of the first transmissions.
    order: u64,
    /// The call with its record mark.
    message: Gather,
    /// When it was sent over the present connection.
    sent_at: Option<Instant>,
    /// Whether it was sent over any connection.
    sent_before: bool,
    waiter: oneshot::Sender<Outcome>,
}

impl Table {
    pub(crate) fn new(first_xid: u32) -> Self {
        let state = State {
            next_xid: first_xid,
            next_order: 0,
            entries: HashMap::new(),
            queue: VecDeque::new(),
            retransmissions: 0,
        };
        Self {
            state: Mutex::new(state),
            queued: Notify::new(),
        }
    }

    /// A transaction id that no request in flight has.
    pub(crate) fn new_xid(&self) -> u32 {
        let mut state = self.state.lock();
        loop {
            let xid = state.next_xid;
            state.next_xid = xid.wrapping_add(1);
            if !state.entries.contains_key(&xid) {
                return xid;
            }
        }
    }

    /// Takes a request in and queues it.
    pub(crate) fn insert(&self, xid: u32, message: Gather) -> oneshot::Receiver<Outcome> {
        let (waiter, answer) = oneshot::channel();
        let mut state = self.state.lock();
        let order = state.next_order;
        state.next_order += 1;
        let entry = Entry {
            order,
            message,
            sent_at: None,
            sent_before: false,
            waiter,
        };
        let previous = state.entries.insert(xid, entry);
        assert!(
            previous.is_none(),
            "transaction id {xid:#x} is in flight already"
        );
        state.queue.push_back(xid);
        drop(state);
        self.queued.notify_one();
        answer
    }

    /// Takes a request out, answered or not.
    pub(crate) fn forget(&self, xid: u32) {
        let mut state = self.state.lock();
        if state
            .entries
            .remove(&xid)
            .is_some_and(|entry| entry.sent_at.is_none())
        {
            state.queue.retain(|queued| *queued != xid);
        }
    }

    /// Hands an answer to whoever waits. False: nobody does (it is the answer to a retransmission
    /// whose original was answered too, or the caller gave up).
    pub(crate) fn complete(&self, xid: u32, outcome: Outcome) -> bool {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.remove(&xid) else {
            return false;
        };
        // Answered before this connection sent it: only a confused server does that.
        if entry.sent_at.is_none() {
            state.queue.retain(|queued| *queued != xid);
        }
        drop(state);
        entry.waiter.send(outcome).is_ok()
    }

    /// A new connection begins: everything unanswered is to be sent, in the order it came.
    pub(crate) fn requeue_all(&self) {
        let mut state = self.state.lock();
        let mut all: Vec<_> = state
            .entries
            .iter()
            .map(|(xid, e)| (e.order, *xid))
            .collect();
        all.sort_unstable();
        state.queue = all.into_iter().map(|(_, xid)| xid).collect();
        for entry in state.entries.values_mut() {
            entry.sent_at = None;
        }
    }

    /// Segments of the next requests to send; waits until there are some.
    pub(crate) async fn next_batch(&self) -> Vec<Bytes> {
        loop {
            let batch = self.state.lock().take_batch();
            if !batch.is_empty() {
                return batch;
            }
            self.queued.notified().await;
        }
    }

    /// When the longest outstanding request was sent over the present connection.
    pub(crate) fn oldest_sent(&self) -> Option<Instant> {
        self.state
            .lock()
            .entries
            .values()
            .filter_map(|entry| entry.sent_at)
            .min()
    }

    /// How many requests were sent again so far.
    pub(crate) fn retransmissions(&self) -> u64 {
        self.state.lock().retransmissions
    }
}

impl State {
    fn take_batch(&mut self) -> Vec<Bytes> {
        let now = Instant::now();
        let mut batch = Vec::new();
        while batch.len() < BATCH_SEGMENTS_MAX
            && let Some(xid) = self.queue.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&xid) else {
                continue;
            };
            batch.extend_from_slice(entry.message.segments());
            entry.sent_at = Some(now);
            self.retransmissions += u64::from(entry.sent_before);
            entry.sent_before = true;
        }
        batch
    }
}
