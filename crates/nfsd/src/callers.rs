//! The leader's memory of which change came over which connection, and what became of its reply: from it follows
//! whether a request that looks like another is that one, asked again. Rules and proof are in
//! docs/decisions/0009-who-asks-again.md, whose numbers the comments give.
//!
//! It belongs to one term and is empty in the next. A connection is known here by its number in that term.
//!
//! Invariants
//! - Two changes with one key are never executed at the same time.
//! - What is told of a connection is told in an order that a replica may believe: that it is gone only with everything
//!   that had arrived, and when nothing that came over it is under way.
//! - Whatever waits ends: what it waits for ends, or a time does.
//!
//! It must not know sockets, the clock, nor what requests mean. Times are nanoseconds of some clock that only rises.

mod host;
mod line;

use crate::over::{ChangeId, ConnectionId, News, RequestKey};
use host::Host;
use line::{Belief, Line, State, Waiting};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

const MS: u64 = 1_000_000;
/// A reply that arrived is told of so much later: a reset may overtake what the client's program has not read (10).
const ARRIVED_AFTER_NS: u64 = 100 * MS;
/// A connection that acknowledges nothing for so long is given up when somebody waits for its fate (8).
const QUIET_NS: u64 = 1_000 * MS;
/// How long after the last bytes the end of a connection may come that its client had closed before (9).
const END_AFTER_NS: u64 = 300 * MS;
/// A request that took so long may have been sent again before its reply came (5).
const SLOW_NS: u64 = 500 * MS;
/// A copy that crossed its reply comes within so much of the reply's acknowledgement (5).
const CROSSED_NS: u64 = 10 * MS;
/// News that no change has told so long after they were due are told alone (11).
const ALONE_AFTER_NS: u64 = 150 * MS;
/// Most news with one change, and of how many arrivals they tell: little beside the change.
const NEWS_BESIDE: Bounds = Bounds {
    news: 8,
    changes: 64,
};
/// The same for news by themselves: a millisecond or two of applying.
const NEWS_ALONE: Bounds = Bounds {
    news: 512,
    changes: 1_024,
};

#[derive(Debug, Clone, Copy)]
struct Bounds {
    news: usize,
    changes: u64,
}

/// See the module's head comment.
#[derive(Debug, Default)]
pub struct Callers {
    term: u64,
    /// Those that are open, and those that have ended and are not told of.
    lines: BTreeMap<u64, Line>,
    /// Changes of which it is not known that the reply arrived: key, connection, number on it.
    by_key: BTreeSet<(RequestKey, u64, u64)>,
    hosts: BTreeMap<IpAddr, Host>,
    /// What is to be told, in order.
    untold: VecDeque<Untold>,
}

#[derive(Debug)]
struct Untold {
    due: u64,
    line: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// The reply to this change has arrived, unless the connection's end says something else.
    Arrived(u64),
    /// Those to these have, whatever comes.
    Final(u64, u64),
    Gone,
}

/// What is to be done with a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Propose it, with these news; then call [`Callers::done`], and [`Callers::told`] or [`Callers::not_told`].
    Go(Vec<News>),
    /// It is not decided yet: look at these connections, hang up that one, and ask [`Callers::decide`] again when anything
    /// happened, or a little later.
    Wait {
        /// To be looked at.
        look: Vec<u64>,
        /// To be hung up.
        hang_up: Option<u64>,
    },
    /// Leave it: its answer comes by another copy, or nobody waits for it.
    Drop,
}

/// What a look at a connection found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Changes whose replies have arrived since the last look.
    pub arrived: Vec<u64>,
    /// The latest time of which it is known that the client held the connection then: when something was written that it
    /// has acknowledged.
    pub held_at: u64,
    /// What was to be seen of the client, if somebody looked for it.
    pub seen: Option<Seen>,
}

/// What is to be seen of a connection's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// When bytes came last.
    pub heard_at: u64,
    /// Whether its end of the connection has come.
    pub is_over: bool,
}

impl Callers {
    /// Of a leader of this term.
    pub fn new(term: u64) -> Self {
        Self {
            term,
            ..Self::default()
        }
    }

    /// The term.
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// The name of a change.
    pub const fn id(&self, line: u64, seq: u64) -> ChangeId {
        ChangeId {
            connection: self.connection(line),
            seq,
        }
    }

    const fn connection(&self, number: u64) -> ConnectionId {
        ConnectionId {
            term: self.term,
            number,
        }
    }

    /// A connection was accepted. Its number must be above all before.
    pub fn opened(&mut self, line: u64, client: IpAddr, now: u64) {
        self.hosts.entry(client).or_default().opened(line, now);
        self.lines.insert(line, Line::new(client, now));
    }

    /// A change came over a connection: its number on it, and what to do. `None`: it is to be dropped.
    pub fn ask(&mut self, line: u64, key: RequestKey, now: u64) -> Option<(u64, Decision)> {
        let own = self.lines.get_mut(&line).filter(|own| !own.has_ended)?;
        let mut same = self.by_key.range((key, line, 0)..=(key, line, u64::MAX));
        if same.next().is_some() || own.has_crossed(&key, now) {
            return None;
        }
        let seq = own.begin(key, now);
        self.by_key.insert((key, line, seq));
        Some((seq, self.decide(line, seq, now)))
    }

    /// What to do with a change that waits.
    pub fn decide(&mut self, line: u64, seq: u64, now: u64) -> Decision {
        let Some(asked) = self.waiting(line, seq) else {
            return Decision::Drop;
        };
        let Found {
            mut waits,
            mut look,
            mut hang_up,
            proof,
            gone,
        } = self.others(line, asked, now);
        let Some(own) = self.lines.get_mut(&line) else {
            return Decision::Drop;
        };
        if proof >= own.held_at {
            match own.believe(seq, proof, now) {
                Belief::Yes => self.prove(line, proof + 1),
                Belief::No => {
                    self.forget(line, seq);
                    return Decision::Drop;
                }
                Belief::NotYet => {
                    look.push(line);
                    waits = true;
                }
                Belief::Never => {
                    look.push(line);
                    waits = true;
                    hang_up = Some(line);
                }
            }
        }
        if waits {
            return Decision::Wait { look, hang_up };
        }
        if let Some(own) = self.lines.get_mut(&line) {
            own.execute(seq);
        }
        let mut news = Vec::new();
        for gone in gone {
            self.tell_gone(gone, &mut news);
        }
        self.take(now, NEWS_BESIDE, &mut news);
        self.send_off(&news);
        Decision::Go(news)
    }

    /// What a change is, if it is not decided.
    fn waiting(&self, line: u64, seq: u64) -> Option<Waiting> {
        let own = self.lines.get(&line).filter(|own| !own.has_ended)?;
        let asked = own.waiting.get(&seq)?;
        matches!(asked.state, State::Held).then_some(*asked)
    }

    /// What stands between a change over `line` and its execution: other changes with its key.
    fn others(&self, line: u64, asked: Waiting, now: u64) -> Found {
        let mut found = Found::default();
        let Some(own) = self.lines.get(&line) else {
            return found;
        };
        let key = asked.key;
        let same = self.by_key.range((key, 0, 0)..=(key, u64::MAX, u64::MAX));
        for &(_, number, seq) in same {
            let Some(other) = self.lines.get(&number).filter(|_| number != line) else {
                continue;
            };
            let Some(answered) = other.waiting.get(&seq) else {
                continue;
            };
            match answered.state {
                // It is weighed against this one when it is decided.
                State::Held => {}
                State::Executing => found.waits = true,
                State::Answered { .. } if other.has_ended && other.executing > 0 => {
                    found.waits = true;
                }
                State::Answered { .. } if other.has_ended => {
                    found.gone.push(number);
                    if number > line {
                        found.proof = found.proof.max(other.opened);
                    }
                }
                // Rule 9.
                State::Answered { .. } if number > line => {
                    found.proof = found.proof.max(other.opened);
                }
                // Rules 7 and 8.
                State::Answered { .. } if other.held_at > own.opened => {}
                State::Answered { at } => {
                    found.waits = true;
                    found.look.push(number);
                    let quiet_since = at.max(asked.since).max(other.held_at);
                    if now.saturating_sub(quiet_since) >= QUIET_NS {
                        found.hang_up = Some(number);
                    }
                }
            }
        }
        if let Some(host) = self.hosts.get(&own.client) {
            let proof = host.proof_wanted(line, &key, own.held_at);
            found.proof = found.proof.max(proof);
        }
        found
    }

    /// A change that was to go is over: its reply is on its way, or nobody knows what became of it.
    pub fn done(&mut self, line: u64, seq: u64, now: u64) {
        let Some(own) = self.lines.get_mut(&line) else {
            return;
        };
        if own.is_held(seq) {
            self.forget(line, seq);
        } else {
            own.answered(seq, now);
            self.conclude(line, now);
        }
    }

    /// Somebody looked at a connection.
    pub fn looked(&mut self, line: u64, look: &Look, now: u64) {
        let Some(own) = self.lines.get_mut(&line).filter(|own| !own.has_ended) else {
            return;
        };
        own.crossed.clear();
        let (client, opened) = (own.client, own.opened);
        for &seq in &look.arrived {
            let Some(key) = own.arrived(seq, now) else {
                continue;
            };
            self.by_key.remove(&(key, line, seq));
            self.untold.push_back(Untold {
                due: now.saturating_add(ARRIVED_AFTER_NS),
                line,
                what: What::Arrived(seq),
            });
            if let Some(host) = self.hosts.get_mut(&client) {
                host.remember(line, opened, key);
            }
        }
        if let Some(seen) = look.seen {
            own.seen = Some((now, seen));
        }
        self.prove(line, look.held_at);
    }

    /// The client held a connection at `held_at`.
    fn prove(&mut self, line: u64, held_at: u64) {
        let Some(own) = self.lines.get_mut(&line) else {
            return;
        };
        own.held_at = own.held_at.max(held_at);
        if let Some(host) = self.hosts.get_mut(&own.client) {
            host.proven(line, own.held_at);
        }
    }

    /// A connection has ended; `by_client`: its client has closed or reset it.
    pub fn ended(&mut self, line: u64, by_client: bool, now: u64) {
        let Some(own) = self.lines.get_mut(&line).filter(|own| !own.has_ended) else {
            return;
        };
        if let Some(host) = self.hosts.get_mut(&own.client) {
            host.ended(line);
            if host.is_empty() {
                self.hosts.remove(&own.client);
            }
        }
        let read_before = match by_client {
            true => u64::MAX,
            false => now.saturating_sub(ARRIVED_AFTER_NS),
        };
        let end = own.end(read_before);
        for (key, seq) in end.held {
            self.by_key.remove(&(key, line, seq));
        }
        for (key, seq) in end.unread {
            self.by_key.insert((key, line, seq));
        }
        if own.waiting.is_empty() {
            for (first, last) in std::mem::take(&mut own.finals) {
                let what = What::Final(first, last);
                self.untold.push_back(Untold {
                    due: now,
                    line,
                    what,
                });
            }
            self.lines.remove(&line);
        } else {
            self.conclude(line, now);
        }
    }

    /// A connection that has ended is gone when nothing that came over it is under way.
    fn conclude(&mut self, line: u64, now: u64) {
        let Some(own) = self.lines.get_mut(&line) else {
            return;
        };
        if own.has_ended && own.executing == 0 && !own.is_concluded {
            own.is_concluded = true;
            let what = What::Gone;
            self.untold.push_back(Untold {
                due: now,
                line,
                what,
            });
        }
    }

    fn forget(&mut self, line: u64, seq: u64) {
        if let Some(own) = self.lines.get_mut(&line)
            && let Some(asked) = own.waiting.remove(&seq)
        {
            self.by_key.remove(&(asked.key, line, seq));
        }
    }

    /// Connections at which somebody should look now and then, because they owe an acknowledgement.
    pub fn watched(&self) -> Vec<u64> {
        let owing = self.lines.iter().filter(|(_, line)| line.owes());
        owing.map(|(number, _)| *number).collect()
    }

    /// News that no change has told in time, for an entry of their own; empty if there are none.
    pub fn news(&mut self, now: u64) -> Vec<News> {
        let mut news = Vec::new();
        let first = self.untold.front();
        if first.is_none_or(|first| first.due.saturating_add(ALONE_AFTER_NS) > now) {
            return news;
        }
        self.take(now, NEWS_ALONE, &mut news);
        self.send_off(&news);
        news
    }

    fn take(&mut self, now: u64, bounds: Bounds, news: &mut Vec<News>) {
        let mut changes = 0;
        while news.len() < bounds.news && changes < bounds.changes {
            let Some(next) = self.untold.pop_front_if(|next| next.due <= now) else {
                return;
            };
            let connection = self.connection(next.line);
            let (first, last) = match next.what {
                What::Gone => {
                    self.tell_gone(next.line, news);
                    continue;
                }
                What::Final(first, last) => (first, last),
                What::Arrived(seq) => {
                    let own = self.lines.get_mut(&next.line);
                    // Otherwise the connection's end has said what became of it.
                    if own.is_none_or(|own| own.arrived.remove(&seq).is_none()) {
                        continue;
                    }
                    (seq, seq)
                }
            };
            changes += last - first + 1;
            tell_arrived(news, connection, first, last);
        }
    }

    /// That a connection is gone, with all that had arrived over it and may not have been heard of.
    fn tell_gone(&self, line: u64, news: &mut Vec<News>) {
        let Some(own) = self.lines.get(&line) else {
            return;
        };
        let connection = self.connection(line);
        if news.contains(&News::Gone { connection }) {
            return;
        }
        for &(first, last) in own.finals.union(&own.on_the_way) {
            news.push(News::Arrived {
                connection,
                first,
                last,
            });
        }
        news.push(News::Gone { connection });
    }

    /// Until they are told, or known not to be, news are on their way.
    fn send_off(&mut self, news: &[News]) {
        for one in news {
            if let News::Arrived {
                connection,
                first,
                last,
            } = *one
                && let Some(own) = self.lines.get_mut(&connection.number)
            {
                own.on_the_way.insert((first, last));
            }
        }
    }

    /// The entry with these news was applied.
    pub fn told(&mut self, news: &[News]) {
        for one in news {
            let number = one.connection().number;
            match *one {
                News::Arrived { first, last, .. } => {
                    if let Some(own) = self.lines.get_mut(&number) {
                        own.on_the_way.remove(&(first, last));
                    }
                }
                News::Gone { .. } => self.strike(number),
            }
        }
    }

    /// Nobody knows whether the entry with these news will be applied.
    pub fn not_told(&mut self, news: &[News]) {
        // In the end they stand in the order in which they were.
        for one in news.iter().rev() {
            let line = one.connection().number;
            let what = match *one {
                News::Arrived { first, last, .. } => {
                    if let Some(own) = self.lines.get_mut(&line) {
                        own.on_the_way.remove(&(first, last));
                    }
                    What::Final(first, last)
                }
                News::Gone { .. } => What::Gone,
            };
            self.untold.push_front(Untold { due: 0, line, what });
        }
    }

    /// Everybody knows that a connection is gone.
    fn strike(&mut self, line: u64) {
        let Some(own) = self.lines.remove(&line) else {
            return;
        };
        for (seq, asked) in own.waiting {
            self.by_key.remove(&(asked.key, line, seq));
            if let Some(host) = self.hosts.get_mut(&own.client) {
                host.remember(line, own.opened, asked.key);
            }
        }
    }
}

fn tell_arrived(news: &mut Vec<News>, connection: ConnectionId, first: u64, last: u64) {
    if let Some(News::Arrived {
        connection: of,
        last: before,
        ..
    }) = news.last_mut()
        && *of == connection
        && *before + 1 == first
    {
        *before = last;
        return;
    }
    news.push(News::Arrived {
        connection,
        first,
        last,
    });
}

/// What stands between a change and its execution.
#[derive(Debug, Default)]
struct Found {
    /// Something that will end by itself.
    waits: bool,
    look: Vec<u64>,
    hang_up: Option<u64>,
    /// Connections that are gone and lack the reply.
    gone: Vec<u64>,
    /// When the connection must have been held by its client for the change to be believed.
    proof: u64,
}

#[cfg(test)]
mod tests;
