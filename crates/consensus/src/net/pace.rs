//! How often a peer that does not answer is tried again, and what is said about it.
//!
//! Whoever connects to a peer asks [`Pacer::turn`] first. The first attempt goes at once; each further
//! one for the same purpose waits, twice as long as the one before, until something was *answered*. A
//! peer that refuses connections, closes them, or refuses the hello costs the same as one that is not
//! there.
//!
//! Invariants
//! - Between two attempts for a purpose without an answer in between lies its pause, whoever asks and
//!   however many ask at once.
//! - When a peer that was lost answers for any purpose, attempts for the others go at once.
//! - A peer is reported lost at most once per [`LOST_AFTER`], and back once for each such report.
//!
//! It must not know sockets or messages.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::net::frame::WireError;
use crate::net::message::Purpose;

/// Pause before the second attempt.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// Longest pause for entries, snapshots and hints.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Longest pause for heartbeats and votes: they discover that a peer is back.
const PAUSE_URGENT_MAX: Duration = Duration::from_millis(50);

/// A peer is lost if an attempt fails and it said nothing at all for this long.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// Attempts without an answer after which a peer that does answer other purposes is reported.
const ATTEMPTS_ODD: u32 = 10;

/// How often such a peer is reported.
const ODD_AGAIN: Duration = Duration::from_secs(30);

/// Remembers attempts and answers for each peer.
#[derive(Default)]
pub(crate) struct Pacer {
    /// As many as there are members: see [`Pacer::keep`].
    peers: Mutex<BTreeMap<u64, Arc<Peer>>>,
}

#[derive(Default)]
struct Peer {
    state: Mutex<State>,
    /// Counts how often the peer came back.
    returns: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    purposes: [Attempts; Purpose::ALL.len()],
    heard: Option<Instant>,
    lost: bool,
    odd_reported: Option<Instant>,
    /// Why the two refuse each other, as it was reported.
    unfit: Option<String>,
}

#[derive(Default, Clone, Copy)]
struct Attempts {
    /// Since the last answer.
    count: u32,
    /// The next one may begin.
    next: Option<Instant>,
}

impl Attempts {
    /// Takes the next turn: when it begins.
    fn take(&mut self, now: Instant, purpose: Purpose) -> Instant {
        let at = self.next.map_or(now, |next| next.max(now));
        self.next = Some(at + pause(self.count, purpose));
        self.count = self.count.saturating_add(1);
        at
    }
}

/// The pause after `before` further attempts without an answer.
fn pause(before: u32, purpose: Purpose) -> Duration {
    let longest = match purpose {
        Purpose::Heartbeats | Purpose::Votes => PAUSE_URGENT_MAX,
        _ => PAUSE_MAX,
    };
    let doubled = PAUSE_MIN.saturating_mul(1 << before.min(8));
    doubled.min(longest)
}

impl Pacer {
    fn peer(&self, id: u64) -> Arc<Peer> {
        Arc::clone(self.peers.lock().entry(id).or_default())
    }

    /// Forgets all peers but these.
    pub(crate) fn keep(&self, ids: &[u64]) {
        self.peers.lock().retain(|id, _| ids.contains(id));
    }

    /// Returns when an attempt to reach `peer` may begin.
    pub(crate) async fn turn(&self, peer: u64, purpose: Purpose) {
        let peer = self.peer(peer);
        let mut returns = peer.returns.subscribe();
        let now = Instant::now();
        let at = peer.state.lock().purposes[purpose as usize].take(now, purpose);
        if at > now {
            tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                // The sender lives in `peer`.
                _ = returns.changed() => {}
            }
        }
    }

    /// Returns when `peer` was lost and is back.
    pub(crate) async fn until_back(&self, peer: u64) {
        let peer = self.peer(peer);
        // The sender lives in `peer`: waiting cannot fail.
        let _ = peer.returns.subscribe().changed().await;
    }

    /// `peer` answered a request.
    pub(crate) fn answered(&self, peer: u64, purpose: Purpose) {
        self.hear(peer, Some(purpose));
    }

    /// `peer` is there: it accepted a connection as ours. What it does with requests is not known yet.
    pub(crate) fn welcomed(&self, peer: u64) {
        self.hear(peer, None);
    }

    fn hear(&self, id: u64, purpose: Option<Purpose>) {
        let peer = self.peer(id);
        let mut state = peer.state.lock();
        state.unfit = None;
        state.heard = Some(Instant::now());
        if let Some(purpose) = purpose {
            state.purposes[purpose as usize] = Attempts::default();
        }
        if std::mem::take(&mut state.lost) {
            state.purposes = Default::default();
            drop(state);
            peer.returns.send_modify(|returns| *returns += 1);
            tracing::info!(peer = id, "node {id} answers again");
        }
    }

    /// An attempt failed.
    pub(crate) fn failed(&self, id: u64, purpose: Purpose, why: &WireError) {
        let peer = self.peer(id);
        let mut state = peer.state.lock();
        if let WireError::Unfit(reason) = why {
            state.lost = true;
            if state.unfit.as_ref() != Some(reason) {
                tracing::warn!(peer = id, "no connection to node {id}: {reason}");
                state.unfit = Some(reason.clone());
            }
            return;
        }
        let now = Instant::now();
        let silent = state.heard.is_none_or(|heard| now - heard >= LOST_AFTER);
        if silent {
            if !std::mem::replace(&mut state.lost, true) {
                tracing::warn!(peer = id, "cannot reach node {id}: {why}");
            }
            return;
        }
        let odd = state.purposes[purpose as usize].count >= ATTEMPTS_ODD;
        if odd && state.odd_reported.is_none_or(|at| now - at >= ODD_AGAIN) {
            state.odd_reported = Some(now);
            tracing::warn!(peer = id, "node {id} is there, but for {purpose:?}: {why}");
        }
    }
}

/// Senders whose faults are remembered.
const FAULTS_MAX: usize = 64;

/// Lets one report of a fault through for each sender, until the fault changes.
#[derive(Default)]
pub(crate) struct Faults(Mutex<BTreeMap<IpAddr, String>>);

impl Faults {
    /// Whether this one is new.
    pub(crate) fn is_news(&self, from: IpAddr, fault: &str) -> bool {
        let mut known = self.0.lock();
        if known.get(&from).is_some_and(|before| before == fault) {
            return false;
        }
        if known.len() >= FAULTS_MAX {
            known.clear();
        }
        known.insert(from, fault.to_owned());
        true
    }

    /// All is well now.
    pub(crate) fn forget(&self, from: IpAddr) {
        self.0.lock().remove(&from);
    }
}

/// Lets one report through per [`Quiet::EACH`], and counts the others.
#[derive(Default)]
pub(crate) struct Quiet {
    state: Mutex<(Option<Instant>, u64)>,
}

impl Quiet {
    const EACH: Duration = Duration::from_secs(1);

    /// How many reports were left out since the last one, if this one may go out.
    pub(crate) fn pass(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.0.is_some_and(|last| now - last < Self::EACH) {
            state.1 += 1;
            return None;
        }
        *state = (Some(now), state.1);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(purpose: Purpose, count: usize) -> Vec<u128> {
        let mut attempts = Attempts::default();
        // All ask at the same moment.
        let now = Instant::now();
        let turns: Vec<_> = (0..count).map(|_| attempts.take(now, purpose)).collect();
        assert_eq!(turns[0], now, "the first attempt goes at once");
        turns
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_millis())
            .collect()
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        assert_eq!(gaps(Purpose::Entries, 7), [20, 40, 80, 160, 200, 200]);
        assert_eq!(gaps(Purpose::Votes, 5), [20, 40, 50, 50]);
        assert_eq!(gaps(Purpose::Heartbeats, 4), [20, 40, 50]);
        assert_eq!(gaps(Purpose::Hints, 300).last(), Some(&200));
    }

    fn next(pacer: &Pacer, purpose: Purpose) -> Option<Instant> {
        pacer.peer(2).state.lock().purposes[purpose as usize].next
    }

    #[tokio::test]
    async fn an_answer_ends_the_pauses_of_its_purpose_only() {
        let pacer = Pacer::default();
        pacer.welcomed(2);
        for purpose in [Purpose::Entries, Purpose::Votes] {
            pacer.turn(2, purpose).await;
        }
        pacer.failed(2, Purpose::Entries, &WireError::Closed);
        pacer.welcomed(2);
        assert!(
            next(&pacer, Purpose::Entries).is_some(),
            "a welcome is no answer"
        );
        pacer.answered(2, Purpose::Votes);
        assert!(next(&pacer, Purpose::Votes).is_none());
        assert!(next(&pacer, Purpose::Entries).is_some());
    }

    #[tokio::test]
    async fn a_lost_peer_that_is_back_is_tried_at_once() {
        let pacer = Pacer::default();
        pacer.turn(2, Purpose::Entries).await;
        pacer.failed(2, Purpose::Entries, &WireError::Closed);
        assert!(pacer.peer(2).state.lock().lost);
        // Far away, so that only the return can end the wait in time.
        let far = Instant::now() + Duration::from_secs(3600);
        pacer.peer(2).state.lock().purposes[Purpose::Entries as usize].next = Some(far);
        let waiting = pacer.turn(2, Purpose::Entries);
        tokio::pin!(waiting);
        let early = tokio::select! {
            biased;
            () = &mut waiting => true,
            () = std::future::ready(()) => false,
        };
        assert!(!early);
        pacer.answered(2, Purpose::Heartbeats);
        waiting.await;
        assert!(!pacer.peer(2).state.lock().lost);
        assert!(next(&pacer, Purpose::Entries).is_none());
    }

    #[tokio::test]
    async fn two_that_refuse_each_other_say_so_once_for_each_reason() {
        let pacer = Pacer::default();
        let unfit = |pacer: &Pacer| pacer.peer(2).state.lock().unfit.clone();
        for why in ["version", "version", "cluster"] {
            pacer.failed(2, Purpose::Votes, &WireError::Unfit(why.into()));
            assert_eq!(unfit(&pacer).as_deref(), Some(why));
        }
        pacer.welcomed(2);
        assert_eq!(unfit(&pacer), None, "the next time is news again");
        let faults = Faults::default();
        let ip = |n: u8| IpAddr::from([192, 0, 2, n]);
        assert!(faults.is_news(ip(1), "version") && !faults.is_news(ip(1), "version"));
        assert!(faults.is_news(ip(2), "version") && faults.is_news(ip(1), "cluster"));
        faults.forget(ip(1));
        assert!(faults.is_news(ip(1), "cluster"));
    }

    #[test]
    fn reports_are_counted_while_they_are_left_out() {
        let quiet = Quiet::default();
        assert_eq!(quiet.pass(), Some(0));
        assert_eq!((quiet.pass(), quiet.pass()), (None, None));
        quiet.state.lock().0 = Instant::now().checked_sub(Quiet::EACH);
        assert_eq!(quiet.pass(), Some(2));
    }
}
