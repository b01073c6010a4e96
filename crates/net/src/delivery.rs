//! Which replies have arrived: what the peer's TCP has acknowledged of a connection's bytes.
//!
//! The connection's task counts what it pushes and writes, and asks the kernel how much is not acknowledged: with a
//! read that follows such replies, when somebody wants to know, and at the end. Whoever answers requests is told by
//! [`crate::Handler::looked`].
//!
//! Invariants
//! - A reply is told of once, and only when its last byte is acknowledged.
//! - Without replies that somebody wants to know of, nothing is asked.
//!
//! It must not know what replies are to.

use crate::Endpoint;
use std::collections::VecDeque;
use std::time::Instant;
use tokio::sync::Notify;

/// Replies of one connection that are noted and have not arrived: beyond it, nothing is begun on the connection.
pub(crate) const NOTED_MAX: usize = 1_024;
/// The same for all connections together, beyond which each may have a few.
pub(crate) const NOTED_IN_ALL_MAX: usize = 131_072;
/// How many those are.
pub(crate) const NOTED_WHEN_MANY_MAX: usize = 16;

/// A connection, for whoever answers its requests.
#[derive(Debug)]
pub struct Line {
    /// Its number: higher than those of all connections that were accepted before.
    pub number: u64,
    /// Its ends.
    pub ends: Endpoint,
    look: Notify,
    end: Notify,
}

/// What a look at a connection found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// The numbers of noted replies that have arrived since the last look.
    pub arrived: Vec<u64>,
    /// The latest time of which it is known that the peer held the connection then: when something was written that it has
    /// acknowledged. A connection that its peer has closed answers with a reset instead.
    pub held_at: Option<Instant>,
    /// What is to be seen of the peer, if that was asked for.
    pub seen: Option<Seen>,
}

/// What is to be seen of a connection's peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// When bytes came last; rather too early than too late.
    pub heard_at: Instant,
    /// Whether the peer has closed it: its FIN or a reset has come.
    pub is_over: bool,
}

impl Line {
    /// A connection with this number.
    pub fn new(number: u64, ends: Endpoint) -> Self {
        Self {
            number,
            ends,
            look: Notify::new(),
            end: Notify::new(),
        }
    }

    /// Asks the connection to look at itself. What it finds is told soon, unless it ends.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// Ends the connection, with a reset.
    pub fn hang_up(&self) {
        self.end.notify_one();
    }

    pub(crate) async fn asked(&self) {
        self.look.notified().await;
    }

    pub(crate) async fn hung_up(&self) {
        self.end.notified().await;
    }
}

/// What of a connection's replies has arrived.
#[derive(Debug)]
pub(crate) struct Deliveries {
    /// Bytes of all replies so far.
    pushed: u64,
    /// Bytes that the socket has taken, and when it took the last.
    written: u64,
    written_at: Option<Instant>,
    /// Bytes that the peer had acknowledged at the last look, and when that was.
    acked: u64,
    looked_at: Option<Instant>,
    /// Replies that are noted: where they end, and their numbers.
    noted: VecDeque<(u64, u64)>,
}

impl Deliveries {
    pub fn new() -> Self {
        Self {
            pushed: 0,
            written: 0,
            written_at: None,
            acked: 0,
            looked_at: None,
            noted: VecDeque::new(),
        }
    }

    /// How many noted replies have not arrived, as far as is known.
    pub fn noted(&self) -> usize {
        self.noted.len()
    }

    /// So many bytes of a reply were pushed; `number`, if somebody wants to know when it arrives.
    pub fn pushed(&mut self, bytes: usize, number: Option<u64>) {
        self.pushed += bytes as u64;
        if let Some(number) = number {
            self.noted.push_back((self.pushed, number));
        }
    }

    /// The socket took so many bytes.
    pub fn wrote(&mut self, bytes: usize, now: Instant) {
        self.written += bytes as u64;
        self.written_at = Some(now);
    }

    /// Of what the socket took, so many bytes are not acknowledged.
    pub fn look(&mut self, unacknowledged: u64, now: Instant) -> Look {
        let acked = self.written.saturating_sub(unacknowledged).max(self.acked);
        let held_at = if acked == self.written {
            self.written_at
        } else if acked > self.acked {
            self.looked_at
        } else {
            None
        };
        self.acked = acked;
        self.looked_at = Some(now);
        let mut arrived = Vec::new();
        while let Some((_, number)) = self.noted.pop_front_if(|(end, _)| *end <= acked) {
            arrived.push(number);
        }
        Look {
            arrived,
            held_at,
            seen: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ms(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_reply_has_arrived_with_its_last_byte_and_is_told_once() {
        let start = Instant::now();
        let mut all = Deliveries::new();
        all.pushed(100, Some(1));
        all.pushed(50, None);
        all.pushed(10, Some(2));
        assert_eq!(all.look(0, start), Look::default(), "nothing is written");
        all.wrote(110, ms(start, 1));
        assert_eq!(all.look(11, ms(start, 2)).arrived, []);
        assert_eq!(all.look(10, ms(start, 3)).arrived, [1]);
        assert_eq!(all.look(0, ms(start, 4)).arrived, []);
        all.wrote(50, ms(start, 5));
        assert_eq!(all.look(1, ms(start, 6)).arrived, []);
        assert_eq!(all.noted(), 1);
        assert_eq!(all.look(0, ms(start, 7)).arrived, [2]);
        assert_eq!(all.noted(), 0);
        // A kernel that contradicts itself takes nothing back.
        assert_eq!(all.look(160, ms(start, 8)).arrived, []);
        assert_eq!(all.look(0, ms(start, 9)).arrived, []);
    }

    #[test]
    fn what_is_acknowledged_tells_until_when_the_peer_was_there() {
        let start = Instant::now();
        let mut all = Deliveries::new();
        all.pushed(100, None);
        all.wrote(60, ms(start, 1));
        assert_eq!(all.look(60, ms(start, 2)).held_at, None);
        all.wrote(40, ms(start, 3));
        assert_eq!(all.look(90, ms(start, 5)).held_at, Some(ms(start, 2)));
        assert_eq!(all.look(90, ms(start, 6)).held_at, None);
        assert_eq!(all.look(0, ms(start, 7)).held_at, Some(ms(start, 3)));
    }
}
