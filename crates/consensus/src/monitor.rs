//! Watches openraft and says who leads, and since when a quorum answers: feeds the lease and the
//! leadership channel.
//!
//! Invariants
//! - The lease is renewed only from one snapshot of openraft's metrics, role, term and voters, and from answers of that
//!   very term.
//! - Openraft calls a node that founds a cluster the leader of term 0 for a moment. It is none: it can
//!   commit nothing. Terms of leaders begin at 1.
//! - A new leader does not wait for the next heartbeat to learn that a quorum follows it, nor does one that was the only
//!   voter until now. Neither is out of touch because it never was in touch before.
//! - A leader that no quorum answers does not count as one, although openraft lets it stay leader
//!   until it meets a later term. Its term stays its own until then.
//! - Under load followers answer thousands of times a second. Who leads, and in which term, is looked at with
//!   each change; when a quorum answered, no more often than every [`REST`], by which a lease may be shorter.
//!
//! It must not know entries, logs or sockets.

use std::sync::Arc;
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::ServerState;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::answers::Answers;
use crate::lease::Lease;
use crate::options::Leadership;
use crate::options::Timing;
use crate::start::QUORUM_PAUSE;
use crate::types::Types;

/// How long the answers of a quorum are not looked at after a look: a small part of a heartbeat.
const REST: Duration = Duration::from_millis(10);

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

/// When to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Next {
    /// With the first change of the metrics after so long.
    rest: Duration,
    /// And if there is none.
    at_latest: Duration,
}

/// A leader's term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reign {
    term: u64,
    /// When it last followed from something else than answers that this node leads: it was elected, or it was the only
    /// voter.
    founded: Instant,
}

/// See the module's head.
pub(crate) struct Monitor {
    pub(crate) lease: Arc<Lease>,
    /// Knows when followers answered.
    pub(crate) answers: Arc<Answers>,
    pub(crate) timing: Timing,
    /// This node cannot serve: it never counts as leader, and never has a lease.
    pub(crate) witness: bool,
    pub(crate) metrics: WatchReceiverOf<Types, RaftMetrics<Types>>,
    /// Of these, what does not change with each entry.
    pub(crate) server: WatchReceiverOf<Types, RaftServerMetrics<Types>>,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) public: watch::Sender<Leadership>,
    /// Rung when a lease was revoked.
    pub(crate) revoked: Arc<Notify>,
    /// To be rung when a quorum's answer is wanted now.
    pub(crate) quorum: Arc<Notify>,
}

impl Monitor {
    /// Watches until openraft stops.
    pub(crate) async fn run(mut self) {
        let mut reign = None;
        let mut news = self.answers.news();
        loop {
            let (standing, next) = self.look(&mut reign);
            self.publish(standing);
            if standing.stopped {
                return;
            }
            let rested = async {
                tokio::time::sleep(next.rest).await;
                tokio::select! {
                    changed = self.metrics.changed() => changed,
                    () = news.wait() => Ok(()),
                }
            };
            let stopped = tokio::select! {
                changed = self.server.changed() => changed.is_err(),
                changed = rested => changed.is_err(),
                () = self.revoked.notified() => false,
                () = tokio::time::sleep(next.at_latest) => false,
            };
            if stopped {
                self.lease.clear();
                self.publish(Standing {
                    stopped: true,
                    ..Standing::default()
                });
                return;
            }
        }
    }

    fn publish(&self, standing: Standing) {
        // In this order: whoever is told that this node leads may propose at once.
        set_if_new(&self.standing, standing);
        set_if_new(&self.public, standing.public);
    }

    /// How long ago the newest round was sent that a quorum answered: of the newest voters, and of those before, until it is
    /// known that the newest count.
    fn quorum_age(&self, metrics: &RaftMetrics<Types>) -> Option<Duration> {
        let newest = metrics.membership_config.membership();
        let counts = metrics.committed_membership_config.membership();
        let sets = newest.get_joint_config().iter();
        let sets = sets.chain(counts.get_joint_config());
        let voters = sets.filter(|set| !set.is_empty());
        let term = metrics.current_term;
        let now = Instant::now();
        let sent = self.answers.quorum(metrics.id, term, voters, now);
        sent.map(|sent| sent.elapsed())
    }

    /// Renews or clears the lease, and says how things stand and when to look again.
    fn look(&self, reign: &mut Option<Reign>) -> (Standing, Next) {
        // Before the metrics and before any age is taken: see `Lease::renew`.
        let now_ns = self.lease.now_ns();
        let metrics = self.metrics.borrow_watched();
        let term = metrics.current_term;
        let stopped = metrics.running_state.is_err();
        let mut public = Leadership {
            leader: metrics.current_leader.filter(|_| term > 0),
            term,
            is_leader: false,
            holds_term: false,
        };
        if metrics.state != ServerState::Leader || term == 0 || stopped {
            *reign = None;
            self.lease.clear();
            let standing = Standing {
                public,
                leading: false,
                stopped,
            };
            let next = Next {
                rest: REST,
                at_latest: Duration::from_secs(3600),
            };
            return (standing, next);
        }
        let single = self.lease.set_single(alone_at(&metrics));
        let age = self.quorum_age(&metrics);
        if !self.witness {
            self.lease.renew(term, now_ns, age);
        }
        let founded = match *reign {
            Some(reign) if reign.term == term && !single => reign.founded,
            _ => Instant::now(),
        };
        *reign = Some(Reign { term, founded });
        let since = founded.elapsed();
        let silent = age.unwrap_or(since).min(since);
        let limit = self.timing.quorum_loss();
        let leading = single || silent < limit;
        public.holds_term = !self.witness && !self.lease.is_revoked(term);
        public.is_leader = leading && public.holds_term;
        let unanswered = age.is_none_or(|age| age > since);
        let fresh = unanswered && !single && since < self.timing.lease;
        let next = if fresh {
            self.quorum.notify_one();
            Next {
                rest: Duration::ZERO,
                at_latest: QUORUM_PAUSE,
            }
        } else {
            Next {
                rest: REST,
                at_latest: limit.saturating_sub(silent).max(REST),
            }
        };
        let standing = Standing {
            public,
            leading,
            stopped,
        };
        (standing, next)
    }
}

/// The index of the newest members that make this node, which leads, a quorum of its own. Members of whom it is not known
/// yet whether they count do so only if it was one among those before, too.
fn alone_at(metrics: &RaftMetrics<Types>) -> Option<u64> {
    let newest = &metrics.membership_config;
    let counts = &metrics.committed_membership_config;
    let alone = [newest, counts]
        .iter()
        .all(|members| members.voter_ids().eq([metrics.id]));
    let at = newest.log_id().map_or(0, |id| id.index);
    alone.then_some(at)
}

fn set_if_new<T: PartialEq + Copy>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|old| {
        let new = *old != value;
        *old = value;
        new
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::KernelClocks;
    use crate::types::Members;
    use crate::types::Membership;
    use crate::types::log_id;
    use openraft::type_config::TypeConfigExt;

    fn monitor(state: ServerState, term: u64) -> Monitor {
        let mut metrics = RaftMetrics::new_initial(1);
        metrics.state = state;
        metrics.current_term = term;
        metrics.current_leader = Some(1);
        watching(metrics)
    }

    /// Of a leader that knows these newest members, which may not count yet, and those before.
    fn leader_of(newest: (u64, &[u64]), counts: (u64, &[u64])) -> Monitor {
        let members = |(at, ids): (u64, &[u64])| {
            let voters = ids.iter().copied().collect();
            let members = Membership::new_with_defaults(vec![voters], []);
            Arc::new(Members::new(Some(log_id(1, at)), members))
        };
        let mut metrics = RaftMetrics::new_initial(1);
        metrics.state = ServerState::Leader;
        metrics.current_term = 1;
        metrics.current_leader = Some(1);
        metrics.membership_config = members(newest);
        metrics.committed_membership_config = members(counts);
        watching(metrics)
    }

    fn watching(metrics: RaftMetrics<Types>) -> Monitor {
        let (_, server) = Types::watch_channel(RaftServerMetrics {
            id: metrics.id,
            vote: metrics.vote,
            state: metrics.state,
            current_leader: metrics.current_leader,
            membership_config: metrics.membership_config.clone(),
            committed_membership_config: metrics.committed_membership_config.clone(),
        });
        let (_, metrics) = Types::watch_channel(metrics);
        let timing = Timing::default();
        Monitor {
            answers: Arc::default(),
            lease: Arc::new(Lease::new(KernelClocks, timing.lease_window(), false)),
            timing,
            witness: false,
            metrics,
            server,
            standing: watch::Sender::default(),
            public: watch::Sender::default(),
            revoked: Arc::default(),
            quorum: Arc::default(),
        }
    }

    async fn asked_quorum(monitor: &Monitor) -> bool {
        tokio::select! {
            biased;
            () = monitor.quorum.notified() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn founder_of_a_cluster_does_not_lead_in_term_0() {
        let monitor = monitor(ServerState::Leader, 0);
        let (standing, _) = monitor.look(&mut None);
        assert!(!standing.leading && !standing.public.is_leader);
        assert_eq!(standing.public.leader, None);
        assert!(!asked_quorum(&monitor).await);
    }

    #[tokio::test]
    async fn new_leader_asks_for_its_quorum_until_it_answered() {
        let monitor = monitor(ServerState::Leader, 1);
        let mut reign = None;
        for _ in 0..2 {
            let (standing, again) = monitor.look(&mut reign);
            assert!(standing.leading && standing.public.is_leader);
            assert_eq!(
                (again.rest, again.at_latest),
                (Duration::ZERO, QUORUM_PAUSE)
            );
            assert!(asked_quorum(&monitor).await);
        }
        // Nobody answers: the usual heartbeats have to do.
        let founded = Instant::now() - monitor.timing.lease;
        reign = Some(Reign { term: 1, founded });
        let (_, again) = monitor.look(&mut reign);
        assert_eq!(again.rest, REST);
        assert!(!asked_quorum(&monitor).await);
    }

    #[tokio::test]
    async fn a_lease_is_dated_from_the_sending_of_what_a_quorum_answered() {
        let monitor = leader_of((9, &[1, 2, 3]), (5, &[1, 2]));
        let window = monitor.timing.lease_window();
        let answered = |peer, term, ago| monitor.answers.note(peer, term, Instant::now() - ago);
        let valid = || {
            monitor.look(&mut None);
            monitor.lease.valid()
        };
        answered(3, 1, Duration::ZERO);
        answered(2, 0, Duration::ZERO);
        assert!(!valid(), "no quorum of those before, in this term");
        answered(2, 1, window);
        assert!(!valid(), "sent too long ago, however late it is answered");
        answered(2, 1, window / 2);
        assert!(valid());
        monitor.lease.revoke(1);
        answered(2, 1, Duration::ZERO);
        assert!(!valid());
    }

    #[tokio::test]
    async fn the_only_voter_keeps_its_lease_while_members_change_who_have_no_vote() {
        let monitor = leader_of((8, &[1]), (5, &[1]));
        let (standing, _) = monitor.look(&mut None);
        assert!(standing.public.is_leader && monitor.lease.valid());
        // But not if others had one until now.
        let monitor = leader_of((8, &[1]), (5, &[1, 2]));
        monitor.look(&mut None);
        assert!(!monitor.lease.valid());
    }

    #[tokio::test]
    async fn one_that_was_the_only_voter_leads_on_and_asks_its_new_quorum() {
        let mut reign = None;
        let alone = leader_of((5, &[1]), (5, &[1]));
        alone.look(&mut reign);
        // It has led for long, and nobody ever answered anything.
        let long = alone.timing.quorum_loss() * 2;
        reign = reign.map(|reign| Reign {
            founded: reign.founded - long,
            ..reign
        });
        alone.look(&mut reign);
        let monitor = leader_of((9, &[1, 2]), (5, &[1]));
        let (standing, next) = monitor.look(&mut reign);
        assert!(standing.leading && standing.public.is_leader);
        assert!(!monitor.lease.valid());
        assert_eq!((next.rest, next.at_latest), (Duration::ZERO, QUORUM_PAUSE));
        assert!(asked_quorum(&monitor).await);
        // That they do not answer counts from now on.
        reign = reign.map(|reign| Reign {
            founded: reign.founded - long,
            ..reign
        });
        let (standing, _) = monitor.look(&mut reign);
        assert!(!standing.leading && !standing.public.is_leader);
        assert!(standing.public.holds_term);
        monitor.lease.revoke(1);
        let (standing, _) = monitor.look(&mut reign);
        assert!(!standing.public.holds_term);
    }
}
