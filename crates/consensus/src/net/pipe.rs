//! A connection that carries appends: what is under way on it, and when which request was sent.
//!
//! Large appends are pipelined: up to [`PIPELINE_MAX`] requests are under way, answers come in order. While a
//! few small ones are, no further one goes: the follower flushes them anyway before it looks at the next, and what
//! comes together meanwhile costs both ends one message instead of many (as RFC 896 does for TCP). Nor does one while an
//! answer is owed for long: then the network has a queue, which would only grow, and heartbeats would wait in it.
//!
//! Invariants
//! - A request is dated before a byte of it leaves, and its answer is noted under that date as soon as it is there, also
//!   while another request is being sent ([`crate::answers`]).
//!
//! It must not know what openraft makes of answers.

use std::collections::VecDeque;
use std::time::Duration;

use openraft::raft::StreamAppendError;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::answers::Answers;
use crate::net::frame::WireError;
use crate::net::link::Link;
use crate::net::message;
use crate::net::message::Purpose;
use crate::types::AppendRequest;
use crate::types::AppendResult;

/// Appends under way on a connection for entries.
const PIPELINE_MAX: usize = 16;

/// Less than this under way to a follower is waited for before more is sent: above, messages take longer on their way
/// than the follower takes to answer.
const SMALL_BYTES: usize = 64 << 10;

/// A connection on which an answer is owed for longer than this gets no further entries: what is in the network then waits
/// in a queue, and everything else waits behind it. Several times what a disk takes to flush.
const QUEUED_MAX: Duration = Duration::from_millis(30);

/// Heartbeats without an answer on a connection, repeated ones included. After that many a new connection is tried: on
/// the old one the kernel may wait long before it sends again.
const HEARTBEATS_MAX: usize = 16;

/// A follower that answers no append for this long is taken for dead.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// An append connection and the answers still to come on it.
pub(crate) struct Pipe {
    pub(crate) link: Link,
    /// Answers that the current stream waits for.
    pub(crate) open: usize,
    /// Answers before those, which nobody waits for any more.
    pub(crate) stale: usize,
    /// The requests without an answer.
    sent: Requests,
    /// Answers that came while a request was sent: [`PIPELINE_MAX`] at most.
    early: VecDeque<AppendResult>,
}

/// Requests that are under way: their bytes and terms, and when they were sent, which is before a byte of them left.
#[derive(Default)]
struct Requests(VecDeque<(usize, u64, Instant)>);

impl Requests {
    fn push(&mut self, bytes: usize, term: u64, at: Instant) {
        self.0.push_back((bytes, term, at));
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|(bytes, ..)| bytes).sum()
    }

    fn oldest(&self) -> Option<Instant> {
        self.0.front().map(|(.., at)| *at)
    }

    /// Notes the answer of `peer` to the first of them, and says what it means.
    fn take(
        &mut self,
        peer: u64,
        answer: &[u8],
        answers: &Answers,
    ) -> Result<AppendResult, WireError> {
        let sent = self.0.pop_front();
        let (_, term, at) = sent.ok_or(WireError::Peer("it answers what was not asked"))?;
        let answer = message::read_appended(answer)?;
        // One that knows of a later vote did not take it. One that lacks entries did.
        if !matches!(answer, Err(StreamAppendError::HigherVote(_))) {
            answers.note(peer, term, at);
        }
        Ok(answer)
    }
}

impl Pipe {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            link,
            open: 0,
            stale: 0,
            sent: Requests::default(),
            early: VecDeque::new(),
        }
    }

    /// The next answer.
    pub(crate) async fn answer(
        &mut self,
        peer: u64,
        answers: &Answers,
    ) -> Result<AppendResult, WireError> {
        if let Some(early) = self.early.pop_front() {
            return Ok(early);
        }
        let waiting = timeout(ANSWER_TIMEOUT, self.link.reader.next()).await;
        let answer = waiting.map_err(|_| WireError::Timeout("an answer"))??;
        self.sent.take(peer, &answer, answers)
    }

    /// Sends a request, and gives its bytes. Answers to earlier ones are noted as they come: on a full network this
    /// takes its time.
    pub(crate) async fn send(
        &mut self,
        request: &AppendRequest,
        peer: u64,
        answers: &Answers,
    ) -> Result<usize, WireError> {
        let frame = message::append(request);
        let bytes = frame.len();
        self.open += 1;
        let owed = self.sent.0.len();
        self.sent
            .push(bytes, request.vote.leader_id.term, Instant::now());
        let mut sending = std::pin::pin!(self.link.writer.send(frame));
        let mut came = 0;
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => return sent.map(|()| bytes),
                answer = self.link.reader.next(), if came < owed => {
                    let answer = self.sent.take(peer, &answer?, answers)?;
                    // What the peer says after a refusal is nothing.
                    came = if answer.is_err() { owed } else { came + 1 };
                    self.early.push_back(answer);
                }
            }
        }
    }

    /// Ready for another stream of requests, if it still serves.
    pub(crate) fn renewed(self, purpose: Purpose) -> Option<Self> {
        let limit = match purpose {
            Purpose::Heartbeats => HEARTBEATS_MAX,
            _ => PIPELINE_MAX,
        };
        let usable = !self.link.writer.is_torn() && self.under_way() < limit;
        usable.then(|| Self {
            open: 0,
            stale: self.under_way(),
            ..self
        })
    }

    pub(crate) fn under_way(&self) -> usize {
        self.open + self.stale
    }

    pub(crate) fn has_room(&self, purpose: Purpose) -> bool {
        let owes = self.sent.oldest().map_or(Duration::ZERO, |at| at.elapsed());
        has_room(purpose, self.under_way(), self.sent.bytes(), owes)
    }
}

/// Whether another request may go while so many are under way, with so many bytes together, the first of them for so long.
fn has_room(purpose: Purpose, under_way: usize, bytes: usize, owes: Duration) -> bool {
    match purpose {
        Purpose::Heartbeats => under_way < HEARTBEATS_MAX,
        _ if under_way == 0 => true,
        _ => bytes >= SMALL_BYTES && under_way < PIPELINE_MAX && owes < QUEUED_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LeaderId;
    use crate::types::Vote;
    use crate::types::log_id;

    #[test]
    fn small_requests_wait_for_each_other_and_large_ones_and_heartbeats_do_not() {
        let soon = Duration::from_millis(1);
        let entries = |under_way, bytes| has_room(Purpose::Entries, under_way, bytes, soon);
        assert!(entries(0, 0));
        assert!(!entries(1, 300) && !entries(1, SMALL_BYTES - 1) && !entries(3, 3 * 300));
        assert!(entries(1, SMALL_BYTES) && entries(PIPELINE_MAX - 1, 1 << 20));
        assert!(!entries(PIPELINE_MAX, 1 << 30));
        let beats = |under_way| {
            has_room(
                Purpose::Heartbeats,
                under_way,
                under_way * 60,
                QUEUED_MAX * 10,
            )
        };
        assert!(beats(0) && beats(HEARTBEATS_MAX - 1) && !beats(HEARTBEATS_MAX));
    }

    #[test]
    fn nothing_is_added_to_a_queue_in_the_network() {
        let entries = |under_way, owes| has_room(Purpose::Entries, under_way, 1 << 20, owes);
        assert!(entries(1, QUEUED_MAX - Duration::from_millis(1)));
        assert!(!entries(1, QUEUED_MAX));
        assert!(entries(0, Duration::ZERO));
    }

    #[test]
    fn an_answer_counts_from_the_sending_of_its_own_request_unless_it_tells_of_a_later_vote() {
        let answers = Answers::default();
        let start = Instant::now();
        let mut requests = Requests::default();
        for ms in [1, 2, 3, 4] {
            requests.push(100, 7, start + Duration::from_millis(ms));
        }
        let mut answered = |answer: AppendResult| {
            let mut body = Vec::new();
            let frame = message::appended(&answer);
            body.extend_from_slice(&frame.head);
            frame
                .parts
                .iter()
                .for_each(|part| body.extend_from_slice(part));
            let taken = requests.take(2, &body, &answers);
            assert_eq!(taken.unwrap(), answer);
            let sent = answers.quorum(1, 7, [&[1, 2].into()], start + Duration::from_secs(1));
            sent.map(|sent| (sent - start).as_millis())
        };
        let vote = Vote {
            leader_id: LeaderId {
                term: 9,
                voted_for: 3,
            },
            committed: true,
        };
        assert_eq!(answered(Err(StreamAppendError::HigherVote(vote))), None);
        assert_eq!(answered(Ok(None)), Some(2));
        let place = log_id(7, 5);
        assert_eq!(answered(Err(StreamAppendError::Conflict(place))), Some(3));
        assert_eq!(answered(Ok(Some(place))), Some(4));
        let more = message::appended(&Ok(None));
        let unasked = requests.take(2, &more.head, &answers);
        assert!(matches!(unasked, Err(WireError::Peer(_))), "{unasked:?}");
    }
}
