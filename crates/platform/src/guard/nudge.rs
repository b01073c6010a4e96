//! Makes clients whose server fell silent look for the new one, from the guard.
//!
//! The next leader tickles the clients it was told of. It may have been told nothing: it had just started,
//! say. A client whose request was acknowledged by this machine before it fell silent would then wait for
//! its keepalive, a minute. The guard knows this machine's connections, so it tickles them too, a little
//! later; what the client answers goes to whoever has the address by then.
//!
//! Invariants: bounded in number, rate ([`tickle::BATCH`]) and time; a connection that is alive again is not
//! harmed, for its peer answers a tickle as it answers any stray acknowledgement. The first round comes late
//! enough to leave the next leader's tickles alone: a client's TCP answers only one in half a second.
//!
//! Must not know: who has the address.

use super::wire::now_ns;
use crate::sockets::Connection;
use crate::tickle::{self, Sender};

/// When the rounds come, counted from the removal of the addresses: slower and slower, until a client's keepalive would
/// have made it look for itself. Nobody may serve for as long.
const ROUNDS_MS: [u64; 8] = [1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 50_000, 75_000];
const NS_PER_MS: u64 = 1_000_000;

/// What is left to be tickled.
pub(super) struct Nudges {
    connections: Vec<Connection>,
    began_ns: u64,
    round: usize,
    /// How many of this round's are done.
    done: usize,
    at_ns: u64,
}

impl Nudges {
    /// For connections that fell silent now.
    pub(super) fn new(mut connections: Vec<Connection>) -> Self {
        connections.truncate(tickle::CONNECTIONS_MAX);
        let began_ns = now_ns();
        Self {
            connections,
            began_ns,
            round: 0,
            done: 0,
            at_ns: began_ns + ROUNDS_MS[0] * NS_PER_MS,
        }
    }

    /// When [`Nudges::step`] is next due; `None`: never again.
    pub(super) fn due_ns(&self) -> Option<u64> {
        let over = self.connections.is_empty() || self.round >= ROUNDS_MS.len();
        (!over).then_some(self.at_ns)
    }

    /// Does what is due now, at most a batch.
    pub(super) fn step(&mut self, sender: &Sender) {
        if self.due_ns().is_none_or(|due_ns| now_ns() < due_ns) {
            return;
        }
        let batch = self.connections.iter().skip(self.done).take(tickle::BATCH);
        for connection in batch {
            // What cannot be sent is skipped.
            sender.send(connection);
            self.done += 1;
        }
        if self.done < self.connections.len() {
            self.at_ns = now_ns() + tickle::BATCH_PAUSE.as_nanos() as u64;
            return;
        }
        (self.round, self.done) = (self.round + 1, 0);
        if let Some(after_ms) = ROUNDS_MS.get(self.round) {
            self.at_ns = self.began_ns + after_ms * NS_PER_MS;
        }
    }
}
