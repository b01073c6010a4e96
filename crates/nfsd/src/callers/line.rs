//! What the leader remembers of one connection.

use super::{ARRIVED_AFTER_NS, CROSSED_NS, END_AFTER_NS, QUIET_NS, SLOW_NS, Seen};
use crate::over::RequestKey;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

#[derive(Debug)]
pub(super) struct Line {
    pub(super) client: IpAddr,
    pub(super) opened: u64,
    /// The latest time of which it is known that the client held it then.
    pub(super) held_at: u64,
    /// When somebody looked last at what is to be seen of the client, and what it was.
    pub(super) seen: Option<(u64, Seen)>,
    pub(super) has_ended: bool,
    /// It has ended, and nothing that came over it is under way.
    pub(super) is_concluded: bool,
    last_seq: u64,
    /// How many of `waiting` are executed now.
    pub(super) executing: usize,
    /// Changes whose reply has not arrived, as far as is known.
    pub(super) waiting: BTreeMap<u64, Waiting>,
    /// Those whose reply has, and that nobody has told of.
    pub(super) arrived: BTreeMap<u64, Arrived>,
    /// Of these, what the last look found of slow ones.
    pub(super) crossed: Vec<(RequestKey, u64)>,
    /// When it has ended: those that had arrived.
    pub(super) finals: BTreeSet<(u64, u64)>,
    /// News of arrivals that are in entries under way.
    pub(super) on_the_way: BTreeSet<(u64, u64)>,
}

/// A change whose reply has not arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) key: RequestKey,
    pub(super) since: u64,
    pub(super) state: State,
    /// When bytes came, after the time for which a proof is wanted.
    heard_at: u64,
}

/// Whether a change over a connection may be no old copy.
pub(super) enum Belief {
    Yes,
    No,
    /// That cannot be told yet.
    NotYet,
    /// That can never be told: nothing comes over it.
    Never,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    /// It is not decided what it is.
    Held,
    /// Its entry may get into the log.
    Executing,
    /// What comes of it has come.
    Answered {
        /// When.
        at: u64,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived {
    key: RequestKey,
    at: u64,
}

/// What becomes of changes when their connection ends.
pub(super) struct End {
    /// They were never executed.
    pub(super) held: Vec<(RequestKey, u64)>,
    /// Their replies arrived, but may not have been read.
    pub(super) unread: Vec<(RequestKey, u64)>,
}

impl Line {
    pub(super) fn new(client: IpAddr, now: u64) -> Self {
        Self {
            client,
            opened: now,
            held_at: now,
            seen: None,
            has_ended: false,
            is_concluded: false,
            last_seq: 0,
            executing: 0,
            waiting: BTreeMap::new(),
            arrived: BTreeMap::new(),
            crossed: Vec::new(),
            finals: BTreeSet::new(),
            on_the_way: BTreeSet::new(),
        }
    }

    /// Takes a change; gives its number.
    pub(super) fn begin(&mut self, key: RequestKey, now: u64) -> u64 {
        self.last_seq += 1;
        let asked = Waiting {
            key,
            since: now,
            state: State::Held,
            heard_at: 0,
        };
        self.waiting.insert(self.last_seq, asked);
        self.last_seq
    }

    pub(super) fn is_held(&self, seq: u64) -> bool {
        let asked = self.waiting.get(&seq);
        asked.is_some_and(|asked| matches!(asked.state, State::Held))
    }

    pub(super) fn execute(&mut self, seq: u64) {
        if let Some(asked) = self.waiting.get_mut(&seq) {
            asked.state = State::Executing;
            self.executing += 1;
        }
    }

    /// Whether the client held the connection after `proof` (9): bytes came after that, and the end did not follow them.
    pub(super) fn believe(&mut self, seq: u64, proof: u64, now: u64) -> Belief {
        let (Some((at, seen)), Some(asked)) = (self.seen, self.waiting.get_mut(&seq)) else {
            return Belief::NotYet;
        };
        if seen.is_over {
            return Belief::No;
        }
        if asked.heard_at <= proof {
            asked.heard_at = seen.heard_at;
        }
        if asked.heard_at > proof {
            return match at.saturating_sub(asked.heard_at) >= END_AFTER_NS {
                true => Belief::Yes,
                false => Belief::NotYet,
            };
        }
        match now.saturating_sub(asked.since.max(proof)) >= QUIET_NS {
            true => Belief::Never,
            false => Belief::NotYet,
        }
    }

    pub(super) fn answered(&mut self, seq: u64, now: u64) {
        if let Some(asked) = self.waiting.get_mut(&seq)
            && matches!(asked.state, State::Executing)
        {
            asked.state = State::Answered { at: now };
            self.executing -= 1;
        }
    }

    /// The reply to a change has arrived; gives its key, if that was awaited.
    pub(super) fn arrived(&mut self, seq: u64, now: u64) -> Option<RequestKey> {
        let asked = *self.waiting.get(&seq)?;
        let State::Answered { at } = asked.state else {
            return None;
        };
        self.waiting.remove(&seq);
        let key = asked.key;
        if at.saturating_sub(asked.since) >= SLOW_NS {
            self.crossed.push((key, now));
        }
        self.arrived.insert(seq, Arrived { key, at: now });
        Some(key)
    }

    /// Whether a change is a copy that crossed the reply to the first one.
    pub(super) fn has_crossed(&self, key: &RequestKey, now: u64) -> bool {
        let crossed = |(of, at): &(RequestKey, u64)| of == key && now - at <= CROSSED_NS;
        self.crossed.iter().any(crossed)
    }

    /// Somebody should look whether something has arrived.
    pub(super) fn owes(&self) -> bool {
        !self.has_ended && !self.waiting.is_empty()
    }

    /// The connection ends: what arrived until `read_before` was read, the rest may be asked for again.
    pub(super) fn end(&mut self, read_before: u64) -> End {
        self.has_ended = true;
        let mut end = End {
            held: Vec::new(),
            unread: Vec::new(),
        };
        self.waiting.retain(|&seq, asked| {
            let is_held = matches!(asked.state, State::Held);
            if is_held {
                end.held.push((asked.key, seq));
            }
            !is_held
        });
        for (seq, Arrived { key, at }) in std::mem::take(&mut self.arrived) {
            if at <= read_before {
                let first = match self.finals.last() {
                    Some(&(first, last)) if last + 1 == seq => {
                        self.finals.remove(&(first, last));
                        first
                    }
                    _ => seq,
                };
                self.finals.insert((first, seq));
                continue;
            }
            end.unread.push((key, seq));
            let asked = Waiting {
                key,
                since: at,
                state: State::Answered { at },
                heard_at: 0,
            };
            self.waiting.insert(seq, asked);
        }
        end
    }
}

const _: () = assert!(CROSSED_NS < ARRIVED_AFTER_NS);
