//! Bulletins: what nodes tell each other several times a second, so that any of them knows how all are.
//!
//! A bulletin is a node's report. Soft state:
//! the newest wins, a lost one costs nothing but freshness. Nothing here decides anything about the service.
//! Their form is [`haven_admin::Bulletin`].
//!
//! Invariants: what a peer sends is bounded and may be garbage; a report counts for the node on whose connection
//! it came, whatever name it has.

use crate::clock::ServiceClock;
use crate::engine::Outcome;
use crate::history::History;
use crate::roll::Roll;
use bytes::Bytes;
use haven_admin::{Bulletin, Facts, NodeFacts, NodeReport};
use haven_config::Config;
use haven_consensus::{Consensus, HINT_BYTES_MAX};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tracing::{debug, warn};

/// Changes within this time are told together.
const GATHER: Duration = Duration::from_millis(20);
/// How often a bulletin goes out without a change.
const REPEAT: Duration = Duration::from_millis(200);

/// What this node knows of the others. Clones share it.
#[derive(Clone)]
pub struct Bulletins {
    inner: Arc<Inner>,
}

struct Inner {
    own: u64,
    base: Facts,
    roll: Roll,
    heard: Mutex<BTreeMap<u64, Heard>>,
    history: Arc<History>,
    clock: Arc<ServiceClock>,
    news: Notify,
}

struct Heard {
    number: u64,
    at: Instant,
    report: NodeReport,
}

impl Bulletins {
    /// Of a node that has heard nothing yet.
    pub fn new(
        config: &Config,
        roll: Roll,
        history: Arc<History>,
        clock: Arc<ServiceClock>,
    ) -> Self {
        let base = Facts {
            cluster: config.cluster.name.clone(),
            service: config.service.name.clone(),
            asked: config.node.name.clone(),
            now_unix_ms: 0,
            nodes: Vec::new(),
            floating: config.service.addresses.iter().map(|a| a.address).collect(),
        };
        Self {
            inner: Arc::new(Inner {
                own: config.node.id,
                base,
                roll,
                heard: Mutex::default(),
                history,
                clock,
                news: Notify::new(),
            }),
        }
    }

    /// The cluster, as far as this node knows, with its own report.
    pub fn facts(&self, own: NodeReport, now_unix_ms: u64) -> Facts {
        let mut facts = self.inner.base.clone();
        facts.now_unix_ms = now_unix_ms;
        let mut heard = self.heard();
        let nodes = self.inner.roll.entries().into_iter().map(|entry| {
            let (heard_ms_ago, report) = match heard.remove(&entry.id) {
                _ if entry.id == self.inner.own => (Some(0), Some(own.clone())),
                Some((age, report)) => {
                    let ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                    (Some(ms), Some(report))
                }
                None => (None, None),
            };
            NodeFacts {
                name: entry.name,
                address: entry.address,
                heard_ms_ago,
                report,
            }
        });
        facts.nodes = nodes.collect();
        facts
    }

    /// The other nodes' last reports, by id, and how old they are.
    pub fn heard(&self) -> BTreeMap<u64, (Duration, NodeReport)> {
        let heard = self.inner.heard.lock();
        let told = |(id, h): (&u64, &Heard)| (*id, (h.at.elapsed(), h.report.clone()));
        heard.iter().map(told).collect()
    }

    /// Something of this node's report has changed that others should know soon.
    pub fn news(&self) {
        self.inner.news.notify_one();
    }

    /// Tells the other nodes for ever; at once when this has `changed`.
    pub async fn tell(
        self,
        consensus: Consensus<Outcome>,
        mut changed: watch::Receiver<u64>,
        report: impl Fn() -> NodeReport + Send + 'static,
    ) {
        let mut leadership = consensus.leadership();
        let mut number = 0;
        loop {
            tokio::select! {
                end = changed.changed() => if end.is_err() { return },
                end = leadership.changed() => if end.is_err() { return },
                () = self.inner.news.notified() => {}
                () = tokio::time::sleep(REPEAT) => {}
            }
            tokio::time::sleep(GATHER).await;
            changed.mark_unchanged();
            number += 1;
            match Bulletin::encode(number, report(), HINT_BYTES_MAX) {
                Some(hint) => {
                    if let Err(why) = consensus.broadcast_hint(hint) {
                        warn!(%why, "cannot tell the other nodes how this one is");
                    }
                }
                None => warn!("this node's report is too long for the other nodes"),
            }
        }
    }

    /// Hears the other nodes for ever.
    pub async fn hear(self, consensus: Consensus<Outcome>) {
        let mut hints = consensus.hints();
        loop {
            // Not held while decoding: the sender waits meanwhile.
            let all: Vec<(u64, Bytes)> = hints
                .borrow_and_update()
                .iter()
                .map(|(from, hint)| (*from, hint.clone()))
                .collect();
            for (from, hint) in all {
                self.take(from, hint);
            }
            if hints.changed().await.is_err() {
                return;
            }
        }
    }

    fn take(&self, from: u64, hint: Bytes) {
        let known = self.inner.heard.lock().get(&from).map(|h| h.number);
        if known.is_some() && known == Bulletin::number_of(&hint) {
            return;
        }
        let Some(Bulletin { number, report }) = Bulletin::decode(hint, HINT_BYTES_MAX) else {
            debug!(from, "a bulletin that cannot be read");
            return;
        };
        if let Some(reading) = &report.clock {
            self.inner.clock.hear(from, reading);
        }
        for failover in &report.failovers {
            self.inner.history.hear(failover);
        }
        let at = Instant::now();
        let heard = Heard { number, at, report };
        let members = self.inner.roll.entries();
        let mut all = self.inner.heard.lock();
        all.insert(from, heard);
        // The members bound their number; numbers of removed nodes are never given out again.
        all.retain(|id, _| *id == from || members.iter().any(|member| member.id == *id));
    }
}
