//! Who asks for what over which connection, for the service: the leader's memory of it (`haven_nfsd::Callers`), fed by
//! the connections, and what waits for its decisions.
//!
//! Invariants
//! - A change over a connection of another term is never proposed.
//! - Whoever got a turn gives it back, and with it the news that it had to tell, whatever becomes of it.
//!
//! It must not know the rules by which changes are told from each other.

use crate::clock::ServiceClock;
use crate::engine::Outcome;
use haven_consensus::Consensus;
use haven_fs::Time;
use haven_net::{Line, Look, Seen};
use haven_nfsd::{ChangeId, ConnectionId, Decision, Entry, News, RequestKey};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

/// How often connections that owe an acknowledgement are looked at, and whether there is something to tell.
const TICK: Duration = Duration::from_millis(100);
/// How often a change that waits has others looked at, and is decided again though nothing happened.
const AGAIN: Duration = Duration::from_millis(10);

/// See the module's head comment.
pub struct Callers {
    memory: Mutex<Memory>,
    /// Rung when something happened that a change may wait for, if one waits.
    happened: Notify,
    waiting: AtomicUsize,
    began: Instant,
}

struct Memory {
    callers: haven_nfsd::Callers,
    /// Connections of its term.
    lines: BTreeMap<u64, Arc<Line>>,
}

/// What becomes of a change that has come.
pub enum Came {
    /// It has a turn: now or later.
    Turn(Turn, Decision),
    /// Nothing: its answer comes by another copy of it.
    Dropped,
    /// Its connection is of another term: it must end.
    Stale,
}

/// A change's right to be proposed, once it is decided.
pub struct Turn {
    callers: Arc<Callers>,
    term: u64,
    line: u64,
    seq: u64,
    news: Vec<News>,
}

impl Callers {
    /// Of a node that leads no term yet.
    pub fn new() -> Arc<Self> {
        let memory = Memory {
            callers: haven_nfsd::Callers::default(),
            lines: BTreeMap::new(),
        };
        Arc::new(Self {
            memory: Mutex::new(memory),
            happened: Notify::new(),
            waiting: AtomicUsize::new(0),
            began: Instant::now(),
        })
    }

    /// A connection was accepted while this node led in `term`.
    pub fn opened(&self, term: u64, line: &Arc<Line>) {
        let mut memory = self.memory.lock();
        let now = self.now();
        if memory.callers.term() != term {
            *memory = Memory {
                callers: haven_nfsd::Callers::new(term),
                lines: BTreeMap::new(),
            };
        }
        let client = line.ends.remote.ip().to_canonical();
        memory.lines.insert(line.number, Arc::clone(line));
        memory.callers.opened(line.number, client, now);
    }

    /// Somebody looked at a connection.
    pub fn looked(&self, line: &Line, found: Look) {
        let mut memory = self.memory.lock();
        if !memory.has(line) {
            return;
        }
        let now = self.now();
        let seen = |seen: Seen| haven_nfsd::Seen {
            heard_at: self.at(seen.heard_at),
            is_over: seen.is_over,
        };
        let look = haven_nfsd::Look {
            arrived: found.arrived,
            held_at: found.held_at.map_or(0, |at| self.at(at)),
            seen: found.seen.map(seen),
        };
        memory.callers.looked(line.number, &look, now);
        drop(memory);
        self.ring();
    }

    /// A connection has ended.
    pub fn ended(&self, line: &Line, by_client: bool) {
        let mut memory = self.memory.lock();
        if !memory.has(line) {
            return;
        }
        memory.lines.remove(&line.number);
        let now = self.now();
        memory.callers.ended(line.number, by_client, now);
        drop(memory);
        self.ring();
    }

    /// A change has come over a connection in `term`.
    pub fn ask(self: &Arc<Self>, term: u64, line: &Line, key: RequestKey) -> Came {
        let mut memory = self.memory.lock();
        if memory.callers.term() != term {
            return Came::Stale;
        }
        let now = self.now();
        match memory.callers.ask(line.number, key, now) {
            None => Came::Dropped,
            Some((seq, decision)) => {
                let turn = Turn {
                    callers: Arc::clone(self),
                    term,
                    line: line.number,
                    seq,
                    news: Vec::new(),
                };
                Came::Turn(turn, decision)
            }
        }
    }

    /// Nanoseconds since shortly before the beginning: 0 is no time.
    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).map_or(u64::MAX, |ns| ns.saturating_add(1))
    }

    fn ring(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.happened.notify_waiters();
        }
    }

    /// What is done about connections now and then, for ever: they are looked at, and what nobody tells is told.
    pub async fn mind(self: Arc<Self>, consensus: Consensus<Outcome>, clock: Arc<ServiceClock>) {
        loop {
            sleep(TICK).await;
            let (term, news) = {
                let mut memory = self.memory.lock();
                for number in memory.callers.watched() {
                    memory.look_at(number);
                }
                let now = self.now();
                (memory.callers.term(), memory.callers.news(now))
            };
            if !news.is_empty() {
                self.tell(&consensus, term, clock.now(), news).await;
            }
        }
    }

    async fn tell(&self, consensus: &Consensus<Outcome>, term: u64, time: Time, news: Vec<News>) {
        let entry = Entry::News {
            time,
            news: news.clone(),
        };
        let told = match entry.encode() {
            Ok(entry) => consensus
                .propose_in(term, entry)
                .await
                .map(drop)
                .map_err(|e| e.to_string()),
            Err(why) => Err(why.to_string()),
        };
        if let Err(why) = &told {
            debug!(%why, "news of connections wait");
        }
        self.settle(term, &news, told.is_ok());
    }

    /// What became of news.
    fn settle(&self, term: u64, news: &[News], are_told: bool) {
        let mut memory = self.memory.lock();
        if memory.callers.term() != term {
            return;
        }
        match are_told {
            true => memory.callers.told(news),
            false => memory.callers.not_told(news),
        }
    }
}

impl Memory {
    fn has(&self, line: &Line) -> bool {
        self.lines.contains_key(&line.number)
    }

    fn look_at(&self, number: u64) {
        if let Some(line) = self.lines.get(&number) {
            line.look();
        }
    }
}

impl Turn {
    /// Waits until it is decided what the change is; gives its name and the news to tell. `None`: it is to be dropped.
    pub async fn decided(&mut self, decision: Decision) -> Option<(ChangeId, Vec<News>)> {
        let decision = match decision {
            Decision::Wait { .. } => self.waited(decision).await,
            decided => decided,
        };
        let Decision::Go(news) = decision else {
            return None;
        };
        self.news.clone_from(&news);
        let (term, number) = (self.term, self.line);
        let id = ChangeId {
            connection: ConnectionId { term, number },
            seq: self.seq,
        };
        Some((id, news))
    }

    /// The decision that there is in the end.
    async fn waited(&self, mut decision: Decision) -> Decision {
        let _waits = Waits::new(&self.callers);
        let mut looked_at: Option<Instant> = None;
        while let Decision::Wait { look, hang_up } = decision {
            if looked_at.is_none_or(|at| at.elapsed() >= AGAIN) {
                looked_at = Some(Instant::now());
                self.look(&look, hang_up);
            }
            // From before it is decided again, so that nothing is missed but for a moment.
            let happened = self.callers.happened.notified();
            decision = self.decide();
            if matches!(decision, Decision::Wait { .. }) {
                // Whether it was rung or not, it is decided again.
                let _ = timeout(AGAIN, happened).await;
                decision = self.decide();
            }
        }
        decision
    }

    /// Its number on its connection.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    fn decide(&self) -> Decision {
        let mut memory = self.callers.memory.lock();
        if memory.callers.term() != self.term {
            return Decision::Drop;
        }
        let now = self.callers.now();
        memory.callers.decide(self.line, self.seq, now)
    }

    fn look(&self, look: &[u64], hang_up: Option<u64>) {
        let memory = self.callers.memory.lock();
        if memory.callers.term() != self.term {
            return;
        }
        look.iter().for_each(|number| memory.look_at(*number));
        if let Some(line) = hang_up.and_then(|number| memory.lines.get(&number)) {
            info!(
                peer = %line.ends.remote,
                "hung up on a client that acknowledges nothing, while its address asks the same again"
            );
            line.hang_up();
        }
    }

    /// Its entry was applied.
    pub fn applied(&mut self) {
        let news = std::mem::take(&mut self.news);
        self.callers.settle(self.term, &news, true);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.news.is_empty() {
            self.callers.settle(self.term, &self.news, false);
        }
        let mut memory = self.callers.memory.lock();
        if memory.callers.term() == self.term {
            let now = self.callers.now();
            memory.callers.done(self.line, self.seq, now);
        }
        drop(memory);
        self.callers.ring();
    }
}

/// Counts those that wait.
struct Waits(Arc<Callers>);

impl Waits {
    fn new(callers: &Arc<Callers>) -> Self {
        callers.waiting.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(callers))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
