//! What every node, with files or without, knows of itself and of its cluster, and who it lets in and out.
//!
//! Must not know: the state, clients, addresses.

use crate::bulletin::Bulletins;
use crate::clock::ServiceClock;
use crate::cluster::office::Office;
use crate::engine::Outcome;
use crate::history::{History, now_unix_ms};
use crate::metrics::{Buckets, PeerReading, Reading};
use crate::roll::Roll;
use crate::settings;
use haven_admin::judge::{SILENT, judge};
use haven_admin::{Answer, ClusterStatus, NodeReport, PeerView, Refusal, RefusalKind, Role, Stray};
use haven_consensus::Consensus;
use haven_log::Log;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// See the module's head comment.
pub struct Insight {
    /// This node's name.
    pub name: String,
    /// When the process started.
    pub started_unix_ms: u64,
    /// Who belongs to the cluster.
    pub roll: Roll,
    /// Lets nodes in and out; `None` for a node that is alone for good.
    pub office: Option<Arc<Office>>,
    /// Who leads, and the log.
    pub consensus: Consensus<Outcome>,
    /// The log on disk.
    pub log: Log,
    /// What the others told.
    pub bulletins: Bulletins,
    /// The last failover.
    pub history: Arc<History>,
    /// What must be the same on all nodes.
    pub settings: settings::Told,
    /// What time the service has.
    pub clock: Arc<ServiceClock>,
    /// Where it listens for the others.
    pub listens: SocketAddr,
}

const fn role(role: haven_consensus::Role) -> Role {
    match role {
        haven_consensus::Role::Leader => Role::Leader,
        haven_consensus::Role::Follower => Role::Follower,
        haven_consensus::Role::Candidate => Role::Candidate,
        haven_consensus::Role::Learner => Role::Learner,
        haven_consensus::Role::Stopped => Role::Stopped,
    }
}

impl Insight {
    /// How this node sees itself, without what only a node with files has.
    pub fn report(&self) -> NodeReport {
        let (consensus, log) = (self.consensus.status(), self.log.stats());
        let (clocks, time_ahead_ms) = self.clock.standings();
        let named = |(id, view)| Some((self.roll.name_of(id)?, view));
        NodeReport {
            node: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_ms: self.started_unix_ms,
            role: role(consensus.role),
            leader: self.leader(),
            term: consensus.term,
            last_log: consensus.last_log.unwrap_or(0),
            committed: consensus.committed.unwrap_or(0),
            applied: consensus.applied.unwrap_or(0),
            log_records: log.appended_records,
            log_flushes: log.flushes,
            peers: self.peers(&consensus),
            failovers: self.history.failovers(),
            settings: Some(self.settings.now()),
            clock: self.office.as_ref().map(|_| self.clock.reading()),
            clocks: clocks.into_iter().filter_map(named).collect(),
            time_ahead_ms,
            // A node that is alone for good listens for nobody.
            listens: self.office.as_ref().map(|_| self.listens),
            stray: self.consensus.stray(),
            strays: self.strays(),
            ..NodeReport::default()
        }
    }

    /// The same as metrics, with what they say beyond a report.
    pub fn reading(&self, report: &NodeReport) -> Reading {
        let log = self.log.stats();
        let seconds = |ms| Duration::from_millis(ms).as_secs_f64();
        let clocks = report.clocks.iter();
        let seconds_of =
            |ms: i64| Duration::from_millis(ms.unsigned_abs()).as_secs_f64() * ms.signum() as f64;
        let peers = report.peers.iter().map(|(name, peer)| PeerReading {
            name: name.clone(),
            lag_entries: report.last_log.saturating_sub(peer.matched.unwrap_or(0)),
            silent: peer.acked_ms_ago.map_or(f64::INFINITY, seconds),
        });
        Reading {
            version: report.version.clone(),
            flushes: Buckets {
                counts: log.flush_times,
                sum: log.flush_time,
            },
            flush_running: log.flush_running.unwrap_or_default().as_secs_f64(),
            log_written: (log.appended_records, log.appended_bytes),
            log_segments: log.segments as u64,
            indexes: [
                report.last_log,
                report.committed,
                report.applied,
                self.consensus.status().checkpoint.unwrap_or(0),
            ],
            peers: peers.collect(),
            differences: self.differences(report),
            clocks: clocks
                .map(|(name, view)| (name.clone(), seconds_of(view.ahead_ms)))
                .collect(),
            time_ahead: seconds_of(report.time_ahead_ms),
            role: report.role.word(),
            term: report.term,
            elections: self.history.elections(),
            ..Reading::default()
        }
    }

    /// The keys that this node tells, and whether the nodes differ in them.
    fn differences(&self, report: &NodeReport) -> Vec<(String, bool)> {
        let judged = self.judged(report.clone());
        let own = report.settings.iter().flat_map(|own| own.keys.keys());
        let differs = |key: &String| judged.differences.iter().any(|found| found.key == *key);
        own.map(|key| (key.clone(), differs(key))).collect()
    }

    /// The number of a member, by its name.
    ///
    /// # Errors
    /// It is none; in words, with the names of those that are.
    pub fn id_of(&self, name: &str) -> Result<u64, Refusal> {
        let nodes = self.roll.entries();
        let known = nodes.iter().find(|node| node.name == name);
        known.map(|node| node.id).ok_or_else(|| {
            let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
            let why = format!(
                "there is no node {name}; the nodes are {}",
                names.join(", ")
            );
            Refusal::new(RefusalKind::NotFound, why)
        })
    }

    /// Whether another node's last bulletin is too old to believe that it runs.
    pub fn is_silent(&self, id: u64) -> bool {
        let heard = self.bulletins.heard();
        heard.get(&id).is_none_or(|(age, _)| *age >= SILENT)
    }

    /// What only the leader can do, this node cannot.
    pub fn say_to_leader(&self) -> Refusal {
        match self.leader() {
            Some(leader) => {
                Refusal::elsewhere(&leader, format!("node {leader} leads: say it there"))
            }
            None => Refusal::new(
                RefusalKind::Conflict,
                "no node leads at the moment; haven status says why",
            ),
        }
    }

    /// The cluster, judged; `own` is this node's report. Of another node's view that one is asked.
    ///
    /// # Errors
    /// The view of another node, or of none, was asked for.
    pub fn status(&self, own: NodeReport, of: Option<&str>) -> Result<Answer, Refusal> {
        if let Some(other) = of.filter(|node| *node != self.name) {
            self.id_of(other)?;
            let why = format!("this is node {}; say it on node {other}", self.name);
            return Err(Refusal::elsewhere(other, why));
        }
        Answer::json(&self.judged(own))
    }

    /// The cluster, judged; `own` is this node's report.
    pub fn judged(&self, own: NodeReport) -> ClusterStatus {
        judge(self.bulletins.facts(own, now_unix_ms()))
    }

    /// Processes that this node refuses, of members that have names.
    fn strays(&self) -> Vec<Stray> {
        let strays = self.consensus.strays().into_iter();
        let named = strays.filter_map(|stray| {
            Some(Stray {
                node: self.roll.name_of(stray.node)?,
                from: stray.from,
                listens: stray.listens,
            })
        });
        named.collect()
    }

    /// The leader, if this node is in touch with it, or leads and is in touch with a majority. What openraft says
    /// of a leader outlives its quorum.
    pub fn leader(&self) -> Option<String> {
        let leadership = *self.consensus.leadership().borrow();
        let leader = leadership.leader?;
        let own = self.roll.name_of(leader)?;
        if own == self.name {
            return leadership.is_leader.then_some(own);
        }
        // One that was elected just now may have said nothing yet.
        let sign = self.consensus.leader_sign()?;
        let silent = sign.at.elapsed() >= SILENT;
        (sign.from != leader || !silent).then_some(own)
    }

    /// What a leader knows of the others.
    fn peers(&self, consensus: &haven_consensus::Status) -> BTreeMap<String, PeerView> {
        let members = self.roll.entries().into_iter();
        let seen = members.filter_map(|member| {
            let peer = consensus.peers.get(&member.id)?;
            let view = PeerView {
                matched: peer.matched,
                acked_ms_ago: peer.acked_ms_ago,
            };
            Some((member.name, view))
        });
        seen.collect()
    }
}
