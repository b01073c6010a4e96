//! When the service changed its node last, why, and how long clients waited: for people and metrics.
//!
//! Known in full only to the node that took over; the others have its word. Kept in memory: a cluster whose nodes
//! have all been restarted has forgotten.
//!
//! Invariants: nothing here is needed for serving; a request pays one relaxed load.

use crate::clock;
use haven_admin::{Cause, Failover};
use haven_consensus::{Farewell, LeaderSign};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A client that waits comes within this time after the service came up: it was tickled, or its connection was reset. Who
/// asks first after it had nothing to ask before.
const COME_BACK: Duration = Duration::from_millis(500);

/// See the module's head comment.
pub struct History {
    own: String,
    name_of: Box<dyn Fn(u64) -> Option<String> + Send + Sync>,
    state: Mutex<State>,
    /// The service came up, and who is answered may have waited for that.
    waiting: AtomicBool,
    elections: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The term that this node was elected in, and what it knew then.
    elected: Option<Elected>,
    /// When this node last served, if it does not now.
    served_until: Option<Instant>,
    serving: Option<Instant>,
    /// The outage that ended when it began to serve.
    outage: Option<Outage>,
    /// The newest first.
    failovers: Vec<Failover>,
}

#[derive(Clone, Copy)]
struct Outage {
    since: Instant,
    /// This node was silent itself, and kept its connections: it knows since when what came over them waited.
    own: bool,
}

#[derive(Clone, Copy)]
struct Elected {
    term: u64,
    from: Option<u64>,
    own: bool,
    cause: Cause,
    silent_since: Option<Instant>,
}

impl History {
    /// Of a node that has just started.
    pub fn new(own: &str, name_of: impl Fn(u64) -> Option<String> + Send + Sync + 'static) -> Self {
        Self {
            own: own.to_owned(),
            name_of: Box::new(name_of),
            state: Mutex::default(),
            waiting: AtomicBool::new(false),
            elections: AtomicU64::new(0),
        }
    }

    /// This node leads in `term`; `sign` is the last it heard from another leader.
    pub fn elected(&self, term: u64, sign: Option<LeaderSign>) {
        self.elections.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        let own = state
            .served_until
            .filter(|at| sign.is_none_or(|sign| sign.at < *at));
        state.elected = Some(match (own, sign) {
            (Some(at), _) => Elected {
                term,
                from: None,
                own: true,
                cause: Cause::LostMajority,
                silent_since: Some(at),
            },
            (None, Some(sign)) => Elected {
                term,
                from: Some(sign.from),
                own: false,
                cause: match sign.farewell {
                    Farewell::None => Cause::LostContact,
                    Farewell::HungUp => Cause::ProcessEnded,
                    Farewell::HandedOver => Cause::Planned,
                },
                silent_since: Some(sign.at),
            },
            (None, None) => Elected {
                term,
                from: None,
                own: false,
                cause: Cause::Start,
                silent_since: None,
            },
        });
    }

    /// This node goes on in its term, after it had lost contact with the majority for long.
    pub fn resumes(&self, term: u64) {
        let mut state = self.state.lock();
        state.elected = Some(Elected {
            term,
            from: None,
            own: true,
            cause: Cause::LostMajority,
            silent_since: state.served_until,
        });
    }

    /// Clients are answered here from now on.
    pub fn serving(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.serving = Some(now);
        let Some(elected) = state.elected.take() else {
            return;
        };
        let from = match elected.own {
            true => Some(self.own.clone()),
            false => elected.from.map(|id| self.name(id)),
        };
        let failover = Failover {
            at_unix_ms: now_unix_ms(),
            term: elected.term,
            from,
            to: self.own.clone(),
            cause: elected.cause,
            silent_ms: elected.silent_since.map(|at| ms(now - at)),
            stall_ms: None,
        };
        Failover::note(&mut state.failovers, failover, |_, _| true);
        // Without a former leader nobody waited.
        state.outage = elected.silent_since.map(|since| Outage {
            since,
            own: elected.own,
        });
        let waiting = state.outage.is_some();
        drop(state);
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// No client is answered here any more.
    pub fn stopped(&self) {
        self.waiting.store(false, Ordering::Relaxed);
        let mut state = self.state.lock();
        if state.serving.take().is_some() {
            state.served_until = Some(Instant::now());
        }
    }

    /// A client was answered; its request had come at `asked`.
    pub fn answered(&self, asked: Instant) {
        if self.waiting.load(Ordering::Relaxed) {
            self.may_have_waited(asked, Instant::now());
        }
    }

    /// The first that was answered counts, and of what was asked on connections that lasted, what waited for longest.
    fn may_have_waited(&self, asked: Instant, now: Instant) {
        let mut state = self.state.lock();
        let (Some(serving), Some(outage)) = (state.serving, state.outage) else {
            return;
        };
        let is_known = outage.own && asked < serving;
        let last = state.failovers.first_mut();
        if asked.saturating_duration_since(serving) <= COME_BACK
            && let Some(last) = last.filter(|last| last.to == self.own)
        {
            let since = match is_known {
                true => asked.max(outage.since),
                false => outage.since,
            };
            let waited = Some(ms(now.saturating_duration_since(since)));
            match is_known {
                true => last.stall_ms = last.stall_ms.max(waited),
                false => last.stall_ms = last.stall_ms.or(waited),
            }
        }
        if !is_known {
            self.waiting.store(false, Ordering::Relaxed);
        }
    }

    /// What another node knows.
    pub fn hear(&self, other: &Failover) {
        let known = &mut self.state.lock().failovers;
        // Of one failover, who took over knows best.
        Failover::note(known, other.clone(), |known, _| known.to != self.own);
    }

    /// The last [`Failover::KEPT`], the newest first.
    pub fn failovers(&self) -> Vec<Failover> {
        self.state.lock().failovers.clone()
    }

    /// How often this node was elected.
    pub fn elections(&self) -> u64 {
        self.elections.load(Ordering::Relaxed)
    }

    fn name(&self, id: u64) -> String {
        let known = (self.name_of)(id);
        known.unwrap_or_else(|| format!("node {id}"))
    }
}

/// The wall clock in milliseconds since 1970.
pub fn now_unix_ms() -> u64 {
    let now = clock::now();
    u64::try_from(now.secs).unwrap_or(0) * 1_000 + u64::from(now.nanos) / 1_000_000
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        History::new("b", |id| match id {
            1 => Some("a".to_owned()),
            2 => Some("b".to_owned()),
            _ => None,
        })
    }

    impl History {
        fn last(&self) -> Option<Failover> {
            self.failovers().first().cloned()
        }
    }

    fn sign(farewell: Farewell, ago: Duration) -> Option<LeaderSign> {
        Some(LeaderSign {
            from: 1,
            at: Instant::now() - ago,
            farewell,
        })
    }

    #[test]
    fn a_takeover_is_told_with_its_cause_and_how_long_it_was_silent() {
        for (farewell, cause) in [
            (Farewell::None, Cause::LostContact),
            (Farewell::HungUp, Cause::ProcessEnded),
            (Farewell::HandedOver, Cause::Planned),
        ] {
            let history = history();
            history.answered(Instant::now());
            history.elected(7, sign(farewell, Duration::from_millis(400)));
            assert_eq!(history.last(), None, "not up yet");
            history.serving();
            let last = history.last().unwrap();
            assert_eq!((last.from.as_deref(), &*last.to), (Some("a"), "b"));
            assert_eq!((last.cause, last.term), (cause, 7));
            assert!(last.silent_ms.unwrap() >= 400 && last.stall_ms.is_none());
            history.answered(Instant::now());
            let stall = history.last().unwrap().stall_ms.unwrap();
            assert!(stall >= last.silent_ms.unwrap());
            history.answered(Instant::now());
            assert_eq!(
                history.last().unwrap().stall_ms,
                Some(stall),
                "the first counts"
            );
        }
    }

    #[test]
    fn the_first_leader_took_over_from_nobody_and_one_that_comes_back_from_itself() {
        let history = history();
        history.elected(1, None);
        history.serving();
        let last = history.last().unwrap();
        assert_eq!((last.cause, last.silent_ms), (Cause::Start, None));
        history.stopped();
        history.elected(2, sign(Farewell::HungUp, Duration::from_secs(9)));
        history.serving();
        let last = history.last().unwrap();
        assert_eq!(last.cause, Cause::LostMajority);
        assert_eq!(last.from.as_deref(), Some("b"));
        assert_eq!(history.elections(), 2);
    }

    #[test]
    fn a_term_that_goes_on_after_a_silence_is_no_election() {
        let history = history();
        history.elected(3, None);
        history.serving();
        history.stopped();
        history.resumes(3);
        history.serving();
        let last = history.last().unwrap();
        assert_eq!(
            (last.cause, last.from.as_deref()),
            (Cause::LostMajority, Some("b"))
        );
        assert!(last.silent_ms.is_some());
        assert_eq!(history.elections(), 1);
    }

    #[test]
    fn a_client_that_asks_late_did_not_wait_and_one_that_asked_in_time_did() {
        let asked_after = |after: Duration, answered_after: Duration| {
            let history = history();
            history.elected(7, sign(Farewell::None, Duration::from_millis(400)));
            history.serving();
            let up = history.state.lock().serving.unwrap();
            history.may_have_waited(up + after, up + after + answered_after);
            // What comes later changes nothing.
            history.answered(up + Duration::from_secs(9));
            history.last().unwrap().stall_ms
        };
        let second = Duration::from_secs(1);
        assert_eq!(asked_after(second, Duration::ZERO), None);
        assert_eq!(asked_after(COME_BACK * 2, 3 * second), None);
        let waited = asked_after(Duration::ZERO, 3 * second).unwrap();
        assert!(waited >= 3_400, "{waited}");
        let waited = asked_after(COME_BACK, Duration::ZERO).unwrap();
        assert!(waited >= 900, "{waited}");
    }

    #[test]
    fn on_a_connection_that_lasted_waiting_begins_with_the_request() {
        let resumed = |asked_before_the_end: &[u64], came_back: bool| {
            let history = history();
            history.elected(3, None);
            history.serving();
            history.stopped();
            let long_ago = Instant::now() - Duration::from_secs(5);
            history.state.lock().served_until = Some(long_ago);
            history.resumes(3);
            history.serving();
            let up = history.state.lock().serving.unwrap();
            for ms in asked_before_the_end {
                history.may_have_waited(up - Duration::from_millis(*ms), up);
            }
            if came_back {
                history.may_have_waited(up, up);
            }
            history.last().unwrap().stall_ms
        };
        assert_eq!(resumed(&[100], false), Some(100));
        assert_eq!(resumed(&[100, 700, 30], false), Some(700));
        assert_eq!(resumed(&[], false), None);
        // It asked before the outage: what it waited of that counts.
        let waited = resumed(&[60_000], false).unwrap();
        assert!((5_000..6_000).contains(&waited), "{waited}");
        // Since when one waited that came anew is not known; the first word stays.
        assert!(resumed(&[], true).unwrap() >= 5_000);
        assert_eq!(resumed(&[100], true), Some(100));
    }

    #[test]
    fn news_count_and_old_stories_do_not() {
        let history = history();
        history.elected(7, None);
        history.serving();
        let own = history.last().unwrap();
        let other = |term| Failover {
            term,
            to: "a".into(),
            ..own.clone()
        };
        history.hear(&other(7));
        assert_eq!(history.last().unwrap().to, "b");
        history.hear(&other(8));
        assert_eq!(history.last().unwrap().to, "a");
        history.hear(&Failover {
            stall_ms: Some(3),
            ..other(8)
        });
        assert_eq!(history.last().unwrap().stall_ms, Some(3));
    }

    #[test]
    fn earlier_ones_are_kept_in_their_order_and_not_without_end() {
        let history = history();
        let told = |term| Failover {
            at_unix_ms: term,
            term,
            from: None,
            to: "a".into(),
            cause: Cause::Start,
            silent_ms: None,
            stall_ms: None,
        };
        let terms = || -> Vec<u64> { history.failovers().iter().map(|f| f.term).collect() };
        for term in [5, 9, 7, 5] {
            history.hear(&told(term));
        }
        assert_eq!(terms(), [9, 7, 5]);
        for term in [1, 2, 3, 11] {
            history.hear(&told(term));
        }
        assert_eq!(terms(), [11, 9, 7, 5, 3]);
    }
}
