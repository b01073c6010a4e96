//! One connection as the rest of the server sees it: whose it is, whether it is used, whether its peer keeps us waiting,
//! and a way to tell it to end.
//!
//! Written by the connection's own task, read by whoever looks for room; what requests pay for takes no lock.
//!
//! It must not know sockets.

use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Why a connection is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// It stood still while others waited for the memory that it held.
    StoodStill,
    /// It was idle, and its place was needed.
    GaveWay,
}

/// See the module's head comment.
#[derive(Debug)]
pub(crate) struct Party {
    /// The connection's number.
    pub number: u64,
    /// Whose it is, in the one form of the address.
    pub address: IpAddr,
    /// What the times below count from.
    epoch: Instant,
    /// Since when the peer owes us bytes, or has to take ours, and has not done so; 0: it does not.
    still_since: AtomicU64,
    /// Since when nothing is under way; 0: something is.
    idle_since: AtomicU64,
    requests: AtomicU64,
    tasks: AtomicUsize,
    is_told: AtomicBool,
    farewell: Mutex<Option<oneshot::Sender<Farewell>>>,
}

impl Party {
    /// A connection that has just come, and how it learns that it is to end.
    pub fn new(
        number: u64,
        address: IpAddr,
        epoch: Instant,
    ) -> (Self, oneshot::Receiver<Farewell>) {
        let (farewell, told) = oneshot::channel();
        let party = Self {
            number,
            address: address.to_canonical(),
            epoch,
            still_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            tasks: AtomicUsize::new(0),
            is_told: AtomicBool::new(false),
            farewell: Mutex::new(Some(farewell)),
        };
        party.rests(Instant::now());
        (party, told)
    }

    /// Never 0.
    fn stamp(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(passed).map_or(u64::MAX, |nanos| nanos.saturating_add(1))
    }

    /// Another request has come.
    pub fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// So many requests are tasks now.
    pub fn set_tasks(&self, tasks: usize) {
        self.tasks.store(tasks, Ordering::Relaxed);
    }

    /// Nothing is under way.
    pub fn rests(&self, now: Instant) {
        self.idle_since.store(self.stamp(now), Ordering::Relaxed);
    }

    /// Something is under way.
    pub fn works(&self) {
        self.idle_since.store(0, Ordering::Relaxed);
    }

    /// Since when nothing is under way: a number that is smaller the longer ago.
    pub fn idle_since(&self) -> Option<u64> {
        let since = self.idle_since.load(Ordering::Relaxed);
        (since != 0 && !self.is_told()).then_some(since)
    }

    /// The peer has kept us waiting since then.
    pub fn stands_still(&self, since: Instant) {
        self.still_since.store(self.stamp(since), Ordering::Relaxed);
    }

    /// The peer does not keep us waiting.
    pub fn moves(&self) {
        self.still_since.store(0, Ordering::Relaxed);
    }

    /// For how long the peer has kept us waiting.
    pub fn still_for(&self, now: Instant) -> Option<Duration> {
        let since = self.still_since.load(Ordering::Relaxed);
        let passed = self.stamp(now).saturating_sub(since);
        (since != 0 && !self.is_told()).then_some(Duration::from_nanos(passed))
    }

    /// Tells the connection to end. Of several reasons the first counts.
    pub fn tell(&self, why: Farewell) {
        self.is_told.store(true, Ordering::Relaxed);
        if let Some(farewell) = self.farewell.lock().take() {
            // It may be ending anyway.
            let _ = farewell.send(why);
        }
    }

    fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }

    /// Returns after one to two times `limit` without a request: looked at now and then, so that no request pays
    /// for a timer.
    pub async fn unused(&self, limit: Option<Duration>) {
        let Some(limit) = limit else {
            return std::future::pending().await;
        };
        let mut seen = 0;
        loop {
            tokio::time::sleep(limit).await;
            let requests = self.requests.load(Ordering::Relaxed);
            if requests == seen && self.tasks.load(Ordering::Relaxed) == 0 {
                return;
            }
            seen = requests;
        }
    }
}
