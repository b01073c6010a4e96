//! Answers what a node is asked over its control API.
//!
//! Any node answers for the whole cluster: from what it sees itself, and from the other nodes' bulletins. What
//! needs the leader, or another node, is refused with the name of who can do it: see [`crate::relay`].
//!
//! Must not know: how questions travel, from whom they are.

use crate::addresses::Addresses;
use crate::clients::Clients;
use crate::cluster::office::Office;
use crate::driver::Handle;
use crate::engine::Engine;
use crate::insight::Insight;
use crate::metrics::{self, Meter, Reading};
use crate::relay::Informed;
use crate::serve::Ports;
use crate::settings;
use crate::space::SpaceGuard;
use crate::standby::Standby;
use crate::strangers::Strangers;
use haven_admin::judge::SILENT;
use haven_admin::memory::{Blamed, Holding, Incidents, Memory, MemoryUse};
use haven_admin::{
    Answer, Api, MoveRequest, NodeReport, Phase, Question, Refusal, RefusalKind, StandbyRequest,
    StateHash,
};
use haven_net::{BudgetUse, Gate, Pressure};
use std::sync::Arc;
use std::time::Duration;

/// A follower answers its leader several times a second.
const ACKED_MAX: Duration = Duration::from_millis(500);

/// See the module's head comment.
pub struct Desk {
    /// What it knows of itself and the cluster.
    pub insight: Insight,
    /// Name of the service.
    pub service: String,
    /// The state.
    pub engine: Arc<Engine>,
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
    /// Whether this node shall not lead.
    pub standby: Arc<Standby>,
    /// The floating addresses.
    pub addresses: Option<Addresses>,
    /// Who else has them.
    pub strangers: Arc<Strangers>,
    /// Requests.
    pub meter: Arc<Meter>,
    /// What clients have of the memory.
    pub pressure: Box<dyn Fn() -> Pressure + Send + Sync>,
}

const fn phase(phase: haven_cluster::Phase) -> Phase {
    match phase {
        haven_cluster::Phase::Standby => Phase::Idle,
        haven_cluster::Phase::TakingOver => Phase::TakingOver,
        haven_cluster::Phase::Serving => Phase::Serving,
        haven_cluster::Phase::Suspended => Phase::Suspended,
        haven_cluster::Phase::Releasing => Phase::Releasing,
        haven_cluster::Phase::Moving => Phase::Moving,
        haven_cluster::Phase::Exited => Phase::Exited,
    }
}

fn memory_of(pressure: &Pressure) -> Memory {
    let used = |of: &BudgetUse| MemoryUse {
        bytes_max: of.bytes_max as u64,
        bytes: of.bytes as u64,
        waiting: of.waiting as u64,
        most: of.most.map(|(address, bytes)| Holding {
            address,
            bytes: bytes as u64,
        }),
    };
    let incidents = |of: &haven_net::Incidents| Incidents {
        total: of.total,
        most: of.most.map(|(address, count, ago)| Blamed {
            address,
            count,
            ms_ago: u64::try_from(ago.as_millis()).unwrap_or(u64::MAX),
        }),
    };
    Memory {
        requests: used(&pressure.requests),
        answers: used(&pressure.answers),
        lost: incidents(&pressure.lost),
        refused: incidents(&pressure.refused),
        misbehaved: incidents(&pressure.misbehaved),
    }
}

fn conflict(why: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::Conflict, why)
}

impl Desk {
    fn is_alone(&self) -> bool {
        self.insight.roll.entries().len() == 1
    }

    fn office(&self) -> Result<&Office, Refusal> {
        self.insight.office.as_deref().ok_or_else(|| {
            conflict(
                "this node is alone, and its configuration names no cluster: make one of it with `haven init`",
            )
        })
    }

    /// How this node sees itself.
    pub fn report(&self) -> NodeReport {
        let view = self.handle.view();
        let (free, reserve) = self.space.bytes();
        let (total, free_files) = self.space.total_bytes_and_files();
        let addresses = self.addresses.as_ref().map(Addresses::held);
        NodeReport {
            phase: phase(view.phase),
            serving: self.gate.is_open() && self.insight.consensus.lease_valid(),
            standby: self.standby.is_wished(),
            trouble: view.trouble.or_else(|| self.space.trouble()),
            total_mib: total >> 20,
            free_files,
            free_mib: free >> 20,
            reserve_mib: reserve >> 20,
            full: self.space.is_full(),
            cannot_catch_up: self.engine.shortage(),
            refuses_growth: self.insight.consensus.leadership().borrow().is_leader
                && self.space.refuses(),
            connections: self.clients.count() as u64,
            memory: memory_of(&(self.pressure)()),
            nfs_port: self.ports.nfs,
            mount_port: self.ports.mount,
            addresses: addresses.unwrap_or_default(),
            conflicts: self.strangers.found(),
            ..self.insight.report()
        }
    }

    /// Whether another node has the floating addresses or is about to, as far as this one knows.
    pub fn member_holds(&self) -> bool {
        let heard = self.insight.bulletins.heard();
        let mut fresh = heard.values().filter(|(age, _)| *age < SILENT);
        self.insight.leader().is_some() || fresh.any(|(_, r)| !r.addresses.is_empty())
    }

    /// The hash of a state that did not change while it was read.
    async fn state_hash(&self) -> Result<StateHash, Refusal> {
        let engine = Arc::clone(&self.engine);
        let hash = tokio::task::spawn_blocking(move || engine.state_hash());
        let hash = hash.await.map_err(|e| Refusal::failed(e.to_string()))?;
        let (hash, applied) = hash.map_err(Refusal::failed)?;
        Ok(StateHash { applied, hash })
    }

    async fn move_service(&self, request: MoveRequest) -> Result<String, Refusal> {
        if let Some(service) = request.service.filter(|service| *service != self.service) {
            let why = format!("there is no service {service}; it is {}", self.service);
            return Err(Refusal::new(RefusalKind::NotFound, why));
        }
        let target = request
            .to
            .as_deref()
            .map(|to| self.insight.id_of(to))
            .transpose()?;
        if self.is_alone() {
            return Err(conflict("this node is alone: there is nowhere to move to"));
        }
        if !self.insight.consensus.leadership().borrow().is_leader {
            return Err(self.insight.say_to_leader());
        }
        if let (Some(id), Some(to)) = (target, &request.to) {
            self.check_target(id, to)?;
        }
        let fails = |why: &dyn std::fmt::Display| format!("the service does not move: {why}");
        // Before anybody is made to wait.
        let target = self
            .choose_heir(target, request.force)
            .await
            .map_err(|why| conflict(fails(&why)))?;
        let moved = self.handle.move_service(Some(target)).await;
        let leader = moved.map_err(|why| {
            let why = fails(&why);
            Refusal::failed(format!("{why}. Who serves now, haven status tells"))
        })?;
        let name = self.insight.roll.name_of(leader);
        let name = name.unwrap_or_else(|| leader.to_string());
        match request.to {
            Some(to) if to != name => Err(Refusal::failed(format!(
                "the service moved to node {name}, not to node {to}: the cluster elected that one. Say it again"
            ))),
            _ => Ok(name),
        }
    }

    /// Who shall lead next, if no node is named: the most up-to-date one whose settings are the leader's.
    ///
    /// # Errors
    /// Nobody can, or only one with other settings, unless that is wanted.
    async fn choose_heir(&self, to: Option<u64>, force: bool) -> Result<u64, String> {
        let consensus = &self.insight.consensus;
        let best = consensus.heir(to).await.map_err(|why| why.to_string())?;
        let status = self.insight.judged(self.report());
        let object = |id: u64| {
            let name = self.insight.roll.name_of(id)?;
            Some((
                settings::objection(&status, &self.insight.name, &name)?,
                name,
            ))
        };
        let Some((why, name)) = object(best).filter(|_| !force) else {
            return Ok(best);
        };
        let others = self.insight.roll.entries().into_iter().map(|node| node.id);
        let alike = others.filter(|id| to.is_none() && *id != best && object(*id).is_none());
        for other in alike {
            if consensus.heir(Some(other)).await.is_ok() {
                return Ok(other);
            }
        }
        Err(format!(
            "the settings of node {name} are not those of this node ({why}); clients' handles would go stale, or others \
             be let in. Make them the same (haven config check shows what a node would serve), or say --force"
        ))
    }

    /// Whether a node could lead, as far as this one, the leader, can tell.
    fn check_target(&self, id: u64, to: &str) -> Result<(), Refusal> {
        if to == self.insight.name {
            return Err(conflict(format!("node {to} leads already")));
        }
        match self.insight.bulletins.heard().get(&id) {
            Some((_, report)) if report.witness => Err(conflict(format!(
                "node {to} is a witness: it has no files and serves nobody"
            ))),
            Some((_, report)) if report.standby => Err(conflict(format!(
                "node {to} is in standby; haven online {to} first"
            ))),
            Some((age, _)) if self.is_here(id, *age) => Ok(()),
            _ => Err(conflict(format!(
                "node {to} is not heard: start it, or repair the network, then wait until it has caught up"
            ))),
        }
    }

    /// Whether a node whose last bulletin is so old is alive, as far as this one can tell. A leader knows it sooner.
    fn is_here(&self, id: u64, age: Duration) -> bool {
        let status = self.insight.consensus.status();
        let acked = match (status.role, status.peers.get(&id)) {
            (haven_consensus::Role::Leader, Some(peer)) => peer
                .acked_ms_ago
                .is_some_and(|ms| u128::from(ms) < ACKED_MAX.as_millis()),
            _ => true,
        };
        acked && age < SILENT
    }

    async fn set_standby(&self, request: StandbyRequest) -> Result<(), Refusal> {
        self.insight.id_of(&request.node)?;
        if request.node != self.insight.name {
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
            .map_err(Refusal::failed)?;
        self.insight.bulletins.news();
        Ok(())
    }

    fn check_standby(&self, force: bool) -> Result<(), Refusal> {
        if self.is_alone() {
            return Err(conflict(
                "this node is alone: without it nobody serves. To stop it: systemctl stop haven",
            ));
        }
        let heard = self.insight.bulletins.heard().into_iter();
        let willing =
            heard.filter(|(id, (age, report))| report.may_lead() && self.is_here(*id, *age));
        let willing: Vec<u64> = willing.map(|(id, _)| id).collect();
        let serves = self.insight.consensus.leadership().borrow().is_leader;
        let avoided = self.insight.consensus.avoided();
        let alike = willing.iter().any(|id| !avoided.contains(id));
        if force || (!willing.is_empty() && (alike || !serves)) {
            return Ok(());
        }
        if !willing.is_empty() {
            return Err(conflict(
                "the settings of every other node that could lead differ from this one's: haven status says in what. Make \
                 them the same, or say --force",
            ));
        }
        Err(conflict(format!(
            "node {} is the only one left that could lead: the others are down or in standby. Start one, or haven \
             online NODE; or --force (it goes on leading until another node can)",
            self.insight.name
        )))
    }

    fn metrics(&self) -> String {
        let report = self.report();
        let (checkpoints, checkpoint_bytes) = self.engine.checkpoints();
        // While a batch is applied these are left as they were a moment ago, or 0.
        let seen = self.engine.try_read(|machine| {
            (
                machine.cached_replies() as u64,
                machine.fs().pending_bytes() as u64,
            )
        });
        let (cached_replies, pending_bytes) = seen.unwrap_or_default();
        let last = report.failovers.first();
        let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
        metrics::expose(Reading {
            durations: self.meter.durations(),
            errors: self.meter.errors(),
            bytes: self.meter.bytes(),
            replays: self.meter.replays(),
            connections: report.connections,
            memory: report.memory,
            failover: (
                last.map_or(0.0, |f| seconds(f.at_unix_ms)),
                last.and_then(|f| f.silent_ms).map_or(0.0, seconds),
                last.and_then(|f| f.stall_ms).map_or(0.0, seconds),
            ),
            checkpoints,
            checkpoint_bytes,
            pending_bytes,
            space: self.space.bytes(),
            cached_replies,
            gate_open: self.gate.is_open(),
            serving: report.serving,
            standby: report.standby,
            addresses: match report.addresses.len() as u64 {
                // What a node that holds none of them found is no conflict yet.
                0 => (0, 0),
                held => (held, report.conflicts.len() as u64),
            },
            ..self.insight.reading(&report)
        })
    }
}

impl Informed for Desk {
    fn insight(&self) -> &Insight {
        &self.insight
    }
}

impl Api for Desk {
    async fn answer(&self, question: Question) -> Result<Answer, Refusal> {
        match question {
            Question::Status { node } => self.insight.status(self.report(), node.as_deref()),
            Question::Node => Answer::json(&self.report()),
            Question::StateHash => Answer::json(&self.state_hash().await?),
            Question::Metrics => Ok(Answer::Metrics(self.metrics())),
            Question::Move(request) => Answer::json(&self.move_service(request).await?),
            Question::Token(request) => {
                Answer::json(&self.office()?.new_token(request.hours).await?)
            }
            Question::Nodes => Answer::json(&self.office()?.nodes()),
            Question::RemoveNode(request) => {
                Answer::json(&self.office()?.remove_node(&request.node).await?)
            }
            Question::Standby(request) => {
                self.set_standby(request).await?;
                Answer::json(&())
            }
        }
    }
}
