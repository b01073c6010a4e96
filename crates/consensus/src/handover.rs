//! Gives leadership to an heir, and hears whether it took it.
//!
//! Openraft sends the order to lead to all voters and tells nobody what the heir answered, so the transport notes it
//! here ([`Orders`]). An order that was lost or refused is given again, to another heir if there is one: the alternative
//! is an election, for which the others wait until their promises to this leader are over.
//!
//! Invariants
//! - No order is given before the lease of its term is over for good: the caller revokes it, and the transport once
//!   more.
//! - Whoever follows an order of term `T` stands for `T + 1`, which one node at most can win; so orders to several heirs
//!   do no harm.
//!
//! It must not know why leadership moves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::heir::Heirs;
use crate::heir::Wanted;
use crate::monitor::Standing;
use crate::options::TransferError;

/// How long it may take until somebody else leads.
pub(crate) const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);

/// A follower further behind than this is not asked to take over.
pub(crate) const TRANSFER_LAG_MAX: u64 = 10_000;

/// Pause before an order is given again.
const AGAIN: Duration = Duration::from_millis(20);

/// When for so long no heir had a process any more, none is waited for: all nodes were told to end. One that is started
/// again just now is there sooner.
const DESERTED_AFTER: Duration = Duration::from_millis(300);

/// What became of the last order to lead.
#[derive(Default)]
pub(crate) struct Orders(watch::Sender<Option<Order>>);

/// An order to lead after `term`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Order {
    term: u64,
    to: u64,
    answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Taken,
    /// It was refused, or got lost.
    No,
    /// The heir's machine says that no process is there.
    Gone,
}

impl Orders {
    /// An order is on its way to node `to`. It counts as not taken if the result is dropped without
    /// [`Sent::taken`] or [`Sent::gone`].
    pub(crate) fn sent(self: &Arc<Self>, term: u64, to: u64) -> Sent {
        let order = Order {
            term,
            to,
            answer: Answer::No,
        };
        Sent(Arc::clone(self), order)
    }

    /// Waits for an answer that comes from now on, and is no: which.
    fn refusal(&self, term: u64, to: u64) -> impl Future<Output = Answer> + use<> {
        let mut answers = self.0.subscribe();
        async move {
            while answers.changed().await.is_ok() {
                let last = *answers.borrow_and_update();
                if let Some(last) = last.filter(|last| (last.term, last.to) == (term, to))
                    && last.answer != Answer::Taken
                {
                    return last.answer;
                }
            }
            std::future::pending().await
        }
    }
}

/// An order on its way.
pub(crate) struct Sent(Arc<Orders>, Order);

impl Sent {
    /// The heir has it and follows it.
    pub(crate) fn taken(mut self) {
        self.1.answer = Answer::Taken;
    }

    /// The heir's machine refuses the connection: no process is there.
    pub(crate) fn gone(mut self) {
        self.1.answer = Answer::Gone;
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.0.send_replace(Some(self.1));
    }
}

/// What is told about the end of a transfer.
pub(crate) struct Ears<'a> {
    pub(crate) orders: &'a Orders,
    pub(crate) standing: watch::Receiver<Standing>,
}

/// Orders node `first` to lead after `term`, whose lease was revoked, and waits until another node than this one
/// leads: which.
///
/// # Errors
/// `TimedOut`, `Deserted`, `Reelected` and `Stopped`.
pub(crate) async fn hand_over<R: Send + 'static>(
    heirs: &Heirs<R>,
    ears: Ears<'_>,
    term: u64,
    first: u64,
) -> Result<u64, TransferError> {
    let give = |to| async move {
        let given = heirs.raft.trigger().transfer_leader(to).await;
        given.map_err(|_| TransferError::Stopped)
    };
    // Nothing is sent to ask for their presence: a leader that gave the order sends no heartbeats any more.
    let others = |failed: &BTreeSet<u64>| {
        let wanted = Wanted {
            unwilling: failed.clone(),
            lag_max: TRANSFER_LAG_MAX,
            ..Wanted::default()
        };
        let found = heirs.candidate(&wanted, TRANSFER_TIMEOUT);
        found.ok().map(|(_, to)| to)
    };
    let own = heirs.place.node_id;
    persuade(own, ears, term, first, give, others).await
}

/// Gives the order until it is taken; `others` says who else could be asked than those that failed.
async fn persuade<G: Future<Output = Result<(), TransferError>>>(
    own: u64,
    mut ears: Ears<'_>,
    term: u64,
    first: u64,
    mut give: impl FnMut(u64) -> G,
    others: impl Fn(&BTreeSet<u64>) -> Option<u64>,
) -> Result<u64, TransferError> {
    let until = Instant::now() + TRANSFER_TIMEOUT;
    let (mut to, mut failed) = (first, BTreeSet::new());
    let mut absent = Absent::default();
    loop {
        let refusal = ears.orders.refusal(term, to);
        give(to).await?;
        tokio::select! {
            biased;
            leader = another(&mut ears.standing, own, term) => return leader,
            () = tokio::time::sleep_until(until) => return Err(TransferError::TimedOut),
            answer = refusal => absent.note(to, answer, term),
        }
        let all_gone = others(&absent.gone).is_none() && absent.gone.contains(&first);
        if all_gone
            && absent
                .since
                .is_some_and(|since| since.elapsed() >= DESERTED_AFTER)
        {
            return Err(TransferError::Deserted);
        }
        tokio::select! {
            biased;
            leader = another(&mut ears.standing, own, term) => return leader,
            () = tokio::time::sleep(AGAIN) => {}
        }
        failed.insert(to);
        to = others(&failed).unwrap_or_else(|| {
            failed.clear();
            others(&failed).unwrap_or(first)
        });
    }
}

/// Heirs that had no process when they were last asked.
#[derive(Default)]
struct Absent {
    gone: BTreeSet<u64>,
    /// Since when nobody else answered.
    since: Option<Instant>,
    /// Those whose refusals the log knows of.
    told: BTreeSet<u64>,
}

impl Absent {
    fn note(&mut self, to: u64, answer: Answer, term: u64) {
        if self.told.insert(to) {
            tracing::warn!(term, "node {to} did not take the leadership");
        }
        if answer == Answer::Gone {
            self.gone.insert(to);
            self.since.get_or_insert_with(Instant::now);
        } else {
            self.gone.remove(&to);
            self.since = None;
        }
    }
}

/// Waits until another node than `own` leads, or that again after `term`.
pub(crate) async fn another(
    standing: &mut watch::Receiver<Standing>,
    own: u64,
    term: u64,
) -> Result<u64, TransferError> {
    let new = |now: &Standing| {
        let new = |leader: &u64| *leader != own || now.public.term > term;
        now.public.leader.filter(new)
    };
    let known = standing.wait_for(|now| now.stopped || new(now).is_some());
    match known.await {
        Ok(now) if !now.stopped => match new(&now) {
            Some(leader) if leader != own => Ok(leader),
            _ => Err(TransferError::Reelected),
        },
        _ => Err(TransferError::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_this_orders_refusal_counts_and_a_lost_order_is_one() {
        let orders = Arc::new(Orders::default());
        orders.sent(7, 2);
        let refused = orders.refusal(7, 2);
        tokio::pin!(refused);
        let mut now = async || {
            tokio::select! {
                biased;
                _ = &mut refused => true,
                () = std::future::ready(()) => false,
            }
        };
        assert!(!now().await, "an answer from before");
        orders.sent(7, 3);
        assert!(!now().await);
        orders.sent(6, 2);
        assert!(!now().await);
        orders.sent(7, 2).taken();
        assert!(!now().await);
        drop(orders.sent(7, 2));
        assert!(now().await);
    }

    /// The orders that are given by node 1, of which each is answered at once, until `leader` leads after the last.
    async fn given(
        answers: &[bool],
        leader: Option<u64>,
    ) -> (Vec<u64>, Result<u64, TransferError>) {
        let answers: Vec<Answer> = answers
            .iter()
            .map(|taken| match taken {
                true => Answer::Taken,
                false => Answer::No,
            })
            .collect();
        answered(&answers, Answer::Taken, leader).await
    }

    /// The same; after `answers`, each is answered with `then`.
    async fn answered(
        answers: &[Answer],
        then: Answer,
        leader: Option<u64>,
    ) -> (Vec<u64>, Result<u64, TransferError>) {
        let orders = Arc::new(Orders::default());
        let (stands, standing) = watch::channel(Standing::default());
        stands.send_modify(|now| {
            now.public.leader = Some(1);
            now.public.term = 7;
        });
        let ears = Ears {
            orders: &orders,
            standing,
        };
        let mut given = Vec::new();
        let give = |to| {
            let answer = answers.get(given.len()).copied().unwrap_or(then);
            given.push(to);
            match (answer, orders.sent(7, to)) {
                (Answer::No, sent) => drop(sent),
                (Answer::Gone, sent) => sent.gone(),
                (Answer::Taken, sent) => sent.taken(),
            }
            if given.len() == answers.len() {
                stands.send_modify(|now| {
                    now.public.leader = leader;
                    now.public.term = 8;
                });
            }
            std::future::ready(Ok(()))
        };
        let others = |failed: &BTreeSet<u64>| (2..4).rev().find(|id| !failed.contains(id));
        let led = persuade(1, ears, 7, 2, give, others).await;
        (given, led)
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_that_is_not_taken_is_given_to_another_and_then_again() {
        assert_eq!(given(&[true], Some(2)).await, (vec![2], Ok(2)));
        let given_twice = given(&[false, true], Some(3)).await;
        assert_eq!(given_twice, (vec![2, 3], Ok(3)));
        let all = given(&[false, false, false, false, true], Some(2)).await;
        assert_eq!(all, (vec![2, 3, 3, 2, 3], Ok(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn heirs_without_a_process_are_not_waited_for_but_one_that_is_there_is() {
        use Answer::{Gone, No};
        let begun = Instant::now();
        let (asked, led) = answered(&[No], Gone, None).await;
        assert_eq!(led, Err(TransferError::Deserted));
        assert!(asked.contains(&2) && asked.contains(&3), "{asked:?}");
        let took = begun.elapsed();
        assert!(
            took >= DESERTED_AFTER && took < 2 * DESERTED_AFTER,
            "{took:?}"
        );
        // Started again meanwhile, or for ever unwilling.
        let (_, led) = answered(&[Gone, Gone, Gone], Answer::Taken, None).await;
        assert_eq!(led, Err(TransferError::TimedOut));
        let mixed = [Gone, No].repeat(1_000);
        let (_, led) = answered(&mixed, No, None).await;
        assert_eq!(led, Err(TransferError::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_elected_again_need_not_wait_for_an_heir() {
        let (asked, led) = given(&[true], Some(1)).await;
        assert_eq!((asked, led), (vec![2], Err(TransferError::Reelected)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_that_was_taken_is_waited_for_no_longer_than_the_limit() {
        let begun = Instant::now();
        let nobody = given(&[false, true], None).await;
        assert_eq!(nobody, (vec![2, 3], Err(TransferError::TimedOut)));
        assert_eq!(begun.elapsed(), TRANSFER_TIMEOUT);
    }
}
