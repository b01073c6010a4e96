//! Answers what a node is asked over its control API.
//!
//! Any node answers for the whole cluster: from what it sees itself, and from the other nodes' bulletins. What
//! needs the leader, or another node, is refused with the name of who can do it.
//!
//! Must not know: how questions travel.

use crate::addresses::Addresses;
use crate::bulletin::Bulletins;
use crate::cluster::office::Office;
use crate::driver::Handle;
use crate::engine::{Engine, Outcome};
use crate::history::{History, now_unix_ms};
use crate::metrics::{self, Meter, PeerReading, Reading};
use crate::peers::Clients;
use crate::roll::Roll;
use crate::serve::Ports;
use crate::space::SpaceGuard;
use crate::standby::Standby;
use crate::strangers::Strangers;
use haven_admin::judge::{SILENT_MS, judge};
use haven_admin::{
    Answer, Api, MoveRequest, NodeReport, PeerView, Phase, Question, Refusal, RefusalKind, Role,
    StandbyRequest, StateHash,
};
use haven_consensus::Consensus;
use haven_log::Log;
use haven_net::Gate;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A follower answers its leader several times a second.
const ACKED_MAX: Duration = Duration::from_millis(500);

/// See the module's head comment.
pub struct Desk {
    /// This node's name.
    pub name: String,
    /// Name of the service.
    pub service: String,
    /// Who belongs to the cluster.
    pub roll: Roll,
    /// Lets nodes in and out; `None` for a node that is alone for good.
    pub office: Option<Arc<Office>>,
    /// When the process started.
    pub started_unix_ms: u64,
    /// The state.
    pub engine: Arc<Engine>,
    /// Who leads, and the log.
    pub consensus: Consensus<Outcome>,
    /// The log on disk.
    pub log: Log,
    /// The takeover.
    pub handle: Handle,
    /// Between clients and service.
    pub gate: Arc<Gate>,
    /// Who is connected.
    pub clients: Clients,
    /// Free space.
    pub space: Arc<SpaceGuard>,
    /// Where clients are served.
    pub ports: Ports,
    /// What the others told.
    pub bulletins: Bulletins,
    /// The last failover.
    pub history: Arc<History>,
    /// Whether this node shall not lead.
    pub standby: Arc<Standby>,
    /// The floating addresses.
    pub addresses: Option<Addresses>,
    /// Who else has them.
    pub strangers: Arc<Strangers>,
    /// Requests.
    pub meter: Arc<Meter>,
}

/// Words for the control API.
pub const fn role(role: haven_consensus::Role) -> Role {
    match role {
        haven_consensus::Role::Leader => Role::Leader,
        haven_consensus::Role::Follower => Role::Follower,
        haven_consensus::Role::Candidate => Role::Candidate,
        haven_consensus::Role::Learner => Role::Learner,
        haven_consensus::Role::Stopped => Role::Stopped,
    }
}

const fn phase(phase: haven_cluster::Phase) -> Phase {
    match phase {
        haven_cluster::Phase::Standby => Phase::Idle,
        haven_cluster::Phase::TakingOver => Phase::TakingOver,
        haven_cluster::Phase::Serving => Phase::Serving,
        haven_cluster::Phase::Releasing => Phase::Releasing,
        haven_cluster::Phase::Moving => Phase::Moving,
        haven_cluster::Phase::Exited => Phase::Exited,
    }
}

/// What a leader knows of the others.
pub fn peer_views(
    consensus: &haven_consensus::Status,
    name_of: impl Fn(u64) -> Option<String>,
) -> BTreeMap<String, PeerView> {
    let peers = consensus.peers.iter().filter_map(|(id, peer)| {
        let seen = PeerView {
            matched: peer.matched,
            acked_ms_ago: peer.acked_ms_ago,
        };
        Some((name_of(*id)?, seen))
    });
    peers.collect()
}

/// The same as metrics.
pub fn peer_readings(report: &NodeReport) -> Vec<PeerReading> {
    let seconds = |ms| Duration::from_millis(ms).as_secs_f64();
    let readings = report.peers.iter().map(|(name, peer)| PeerReading {
        name: name.clone(),
        lag_entries: report.last_log.saturating_sub(peer.matched.unwrap_or(0)),
        silent: peer.acked_ms_ago.map_or(f64::INFINITY, seconds),
    });
    readings.collect()
}

fn conflict(why: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::Conflict, why)
}

fn failed(why: String) -> Refusal {
    Refusal::new(RefusalKind::Failed, why)
}

impl Desk {
    fn id_of(&self, name: &str) -> Result<u64, Refusal> {
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

    fn is_alone(&self) -> bool {
        self.roll.entries().len() == 1
    }

    fn office(&self) -> Result<&Office, Refusal> {
        self.office.as_deref().ok_or_else(|| {
            conflict(
                "this node is alone, and its configuration names no cluster: make one of it with `haven init`",
            )
        })
    }

    /// How this node sees itself.
    pub fn report(&self) -> NodeReport {
        let (consensus, view, log) = (
            self.consensus.status(),
            self.handle.view(),
            self.log.stats(),
        );
        let (free, reserve) = self.space.bytes();
        let peers = peer_views(&consensus, |id| self.roll.name_of(id));
        NodeReport {
            node: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_ms: self.started_unix_ms,
            role: role(consensus.role),
            // What openraft says of a leader outlives its quorum.
            leader: self.leader_now(),
            term: consensus.term,
            phase: phase(view.phase),
            serving: self.gate.is_open() && self.consensus.lease_valid(),
            standby: self.standby.is_wished(),
            witness: false,
            trouble: view.trouble.or_else(|| self.space.trouble()),
            free_mib: free >> 20,
            reserve_mib: reserve >> 20,
            last_log: consensus.last_log.unwrap_or(0),
            committed: consensus.committed.unwrap_or(0),
            applied: consensus.applied.unwrap_or(0),
            log_records: log.appended_records,
            log_flushes: log.flushes,
            connections: self.clients.count() as u64,
            nfs_port: self.ports.nfs,
            mount_port: self.ports.mount,
            addresses: self
                .addresses
                .as_ref()
                .map(Addresses::held)
                .unwrap_or_default(),
            conflicts: self.strangers.found(),
            peers,
            last_failover: self.history.last(),
        }
    }

    /// The leader, if this node is in touch with it, or leads and is in touch with a majority.
    fn leader_now(&self) -> Option<String> {
        let leadership = *self.consensus.leadership().borrow();
        let leader = leadership.leader?;
        let own = self.roll.name_of(leader)?;
        if own == self.name {
            return leadership.is_leader.then_some(own);
        }
        // One that was elected just now may have said nothing yet.
        let sign = self.consensus.leader_sign()?;
        let silent = sign.at.elapsed() >= Duration::from_millis(SILENT_MS);
        (sign.from != leader || !silent).then_some(own)
    }

    /// The hash of a state that did not change while it was read.
    async fn state_hash(&self) -> Result<StateHash, Refusal> {
        loop {
            let applied = self.consensus.applied_index();
            let engine = Arc::clone(&self.engine);
            let hash = tokio::task::spawn_blocking(move || engine.state_hash());
            let hash = hash.await.map_err(|e| failed(e.to_string()))?;
            let hash = hash.map_err(failed)?;
            if self.consensus.applied_index() == applied {
                return Ok(StateHash { applied, hash });
            }
        }
    }

    async fn move_service(&self, request: MoveRequest) -> Result<(), Refusal> {
        if let Some(service) = request.service.filter(|service| *service != self.service) {
            let why = format!("there is no service {service}; it is {}", self.service);
            return Err(Refusal::new(RefusalKind::NotFound, why));
        }
        let target = request.to.as_deref().map(|to| self.id_of(to)).transpose()?;
        if self.is_alone() {
            return Err(conflict("this node is alone: there is nowhere to move to"));
        }
        if !self.consensus.leadership().borrow().is_leader {
            return Err(match self.leader_now() {
                Some(leader) => {
                    let why = format!("node {leader} leads: say it there");
                    Refusal::elsewhere(&leader, why)
                }
                None => conflict("no node leads at the moment; haven status says why"),
            });
        }
        if let (Some(id), Some(to)) = (target, &request.to) {
            self.check_target(id, to)?;
        }
        self.handle.request_move(target).await;
        Ok(())
    }

    /// Whether a node could lead, as far as this one, the leader, can tell.
    fn check_target(&self, id: u64, to: &str) -> Result<(), Refusal> {
        if to == self.name {
            return Err(conflict(format!("node {to} leads already")));
        }
        match self.bulletins.heard().get(&id) {
            Some((_, report)) if report.witness => Err(conflict(format!(
                "node {to} is a witness: it has no files and serves nobody"
            ))),
            Some((_, report)) if report.standby => Err(conflict(format!(
                "node {to} is in standby; haven online {to} first, on that node"
            ))),
            Some((age, _)) if self.is_here(id, *age) => Ok(()),
            _ => Err(conflict(format!(
                "node {to} is not heard: start it, or repair the network, then wait until it has caught up"
            ))),
        }
    }

    /// Whether a node whose last bulletin is so old is alive, as far as this one can tell. A leader knows it sooner.
    fn is_here(&self, id: u64, age: Duration) -> bool {
        let status = self.consensus.status();
        let acked = match (status.role, status.peers.get(&id)) {
            (haven_consensus::Role::Leader, Some(peer)) => peer
                .acked_ms_ago
                .is_some_and(|ms| u128::from(ms) < ACKED_MAX.as_millis()),
            _ => true,
        };
        acked && age < Duration::from_millis(SILENT_MS)
    }

    async fn set_standby(&self, request: StandbyRequest) -> Result<(), Refusal> {
        self.id_of(&request.node)?;
        if request.node != self.name {
            let why = format!(
                "a node keeps this wish itself: say it on node {}",
                request.node
            );
            return Err(Refusal::elsewhere(&request.node, why));
        }
        if request.standby {
            self.check_standby(request.force)?;
        }
        let wish = Arc::clone(&self.standby);
        let changed = tokio::task::spawn_blocking(move || wish.wish(request.standby));
        let changed = changed.await.map_err(|e| e.to_string());
        changed
            .and_then(|changed| changed)
            .map_err(|why| Refusal::new(RefusalKind::Failed, why))?;
        self.bulletins.news();
        Ok(())
    }

    fn check_standby(&self, force: bool) -> Result<(), Refusal> {
        if self.is_alone() {
            return Err(conflict(
                "this node is alone: without it nobody serves. To stop it: systemctl stop haven",
            ));
        }
        let mut heard = self.bulletins.heard().into_iter();
        let willing = heard.any(|(id, (age, report))| report.may_lead() && self.is_here(id, age));
        if willing || force {
            return Ok(());
        }
        Err(conflict(format!(
            "node {} is the only one left that could lead: the others are down or in standby. Start one, or haven \
             online NODE there; or --force (it goes on leading until another node can)",
            self.name
        )))
    }

    fn metrics(&self) -> String {
        let (report, consensus, log) = (self.report(), self.consensus.status(), self.log.stats());
        let (free, reserve) = self.space.bytes();
        let (checkpoints, checkpoint_bytes) = self.engine.checkpoints();
        // While a batch is applied these are left as they were a moment ago, or 0.
        let seen = self.engine.try_read(|machine| {
            (
                machine.cached_replies() as u64,
                machine.fs().pending_bytes() as u64,
            )
        });
        let (cached_replies, pending_bytes) = seen.unwrap_or_default();
        let last = report.last_failover.as_ref();
        let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
        metrics::expose(Reading {
            version: report.version.clone(),
            durations: self.meter.durations(),
            errors: self.meter.errors(),
            bytes: self.meter.bytes(),
            connections: report.connections,
            flushes: metrics::Buckets {
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
                consensus.checkpoint.unwrap_or(0),
            ],
            peers: peer_readings(&report),
            role: report.role.word(),
            term: report.term,
            elections: self.history.elections(),
            failover: (
                last.map_or(0.0, |f| seconds(f.at_unix_ms)),
                last.and_then(|f| f.silent_ms).map_or(0.0, seconds),
                last.and_then(|f| f.stall_ms).map_or(0.0, seconds),
            ),
            checkpoints,
            checkpoint_bytes,
            pending_bytes,
            space: (free, reserve),
            cached_replies,
            gate_open: self.gate.is_open(),
            serving: report.serving,
            standby: report.standby,
            addresses: (report.addresses.len() as u64, report.conflicts.len() as u64),
        })
    }
}

impl Api for Desk {
    async fn answer(&self, question: Question) -> Result<Answer, Refusal> {
        match question {
            Question::Status => {
                let facts = self.bulletins.facts(self.report(), now_unix_ms());
                Answer::json(&judge(facts))
            }
            Question::Node => Answer::json(&self.report()),
            Question::StateHash => Answer::json(&self.state_hash().await?),
            Question::Metrics => Ok(Answer::Metrics(self.metrics())),
            Question::Move(request) => {
                self.move_service(request).await?;
                Answer::json(&())
            }
            Question::Token(request) => {
                let token = self.office()?.new_token(request.hours).await;
                Answer::json(&token.map_err(failed)?)
            }
            Question::Nodes => Answer::json(&self.office()?.nodes()),
            Question::RemoveNode(request) => {
                let removed = self.office()?.remove_node(&request.node).await;
                Answer::json(&removed.map_err(failed)?)
            }
            Question::Standby(request) => {
                self.set_standby(request).await?;
                Answer::json(&())
            }
        }
    }
}
