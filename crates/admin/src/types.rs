//! Questions and answers, as they travel.
//!
//! Answers say what is, never what is hoped. Fields may be added; a reader ignores what it does not know.

use crate::memory::Memory;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// What a node does in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Leads.
    Leader,
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Stands for election.
    Candidate,
    /// Does not vote yet.
    Learner,
    /// Its consensus has stopped.
    Stopped,
}

impl Role {
    /// In one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
        }
    }
}

/// Where the service stands on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing is up here.
    #[default]
    Idle,
    /// Leading, but not everything is up yet.
    TakingOver,
    /// Leading, serving, addresses up.
    Serving,
    /// Leading without a majority that answers: clients wait.
    Suspended,
    /// On the way down.
    Releasing,
    /// A planned move is under way.
    Moving,
    /// The process ends.
    Exited,
}

/// Why the service changed its node, as far as the new one can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The former leader handed it over: `migrate`, `standby`, a stop, or a disk that hung.
    Planned,
    /// The former leader's process ended: its connections were closed.
    ProcessEnded,
    /// The former leader fell silent: cut off, frozen, or its machine lost power.
    LostContact,
    /// The leader lost the majority and found it again; nobody else led.
    LostMajority,
    /// The first leader since this node started.
    Start,
}

impl Cause {
    /// In words, after "because".
    pub const fn words(self) -> &'static str {
        match self {
            Self::Planned => "handed over by plan",
            Self::ProcessEnded => "its process ended",
            Self::LostContact => "contact was lost (cut off, frozen or without power)",
            Self::LostMajority => "it had lost contact with the majority",
            Self::Start => "first leader since the start",
        }
    }
}

/// A time the service came up on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// When it was up, in milliseconds since 1970 by the new leader's clock.
    pub at_unix_ms: u64,
    /// The term of the new leader.
    pub term: u64,
    /// Who led before, if anybody.
    pub from: Option<String>,
    /// Who has led since.
    pub to: String,
    /// Why.
    pub cause: Cause,
    /// From the last sign of the former leader until addresses were up here.
    pub silent_ms: Option<u64>,
    /// From the last sign of the former leader until the first client was answered here.
    pub stall_ms: Option<u64>,
}

impl Failover {
    /// How many are kept and told.
    pub const KEPT: usize = 5;

    /// Puts one among those that are known, the newest first. If one of the same term is known already,
    /// `replaces(known, new)` decides which stays.
    pub fn note(known: &mut Vec<Self>, new: Self, replaces: impl FnOnce(&Self, &Self) -> bool) {
        match known.binary_search_by(|one| new.term.cmp(&one.term)) {
            Ok(same) if replaces(&known[same], &new) => known[same] = new,
            Ok(_) => {}
            Err(place) => known.insert(place, new),
        }
        known.truncate(Self::KEPT);
    }
}

/// Somebody else answers for a floating address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// The hardware address that answers for it, as `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
}

/// What must be the same on all nodes, as one node has it: digests of what its running process uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// By key of the configuration.
    pub keys: BTreeMap<String, String>,
    /// Of each export, by its path; empty if there are too many.
    #[serde(default)]
    pub exports: BTreeMap<String, String>,
}

/// A node's clock, as it tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// Nanoseconds since 1970 by its wall clock.
    pub unix_ns: i64,
    /// At that moment, by a clock of its machine that never jumps. Of meaning to itself alone.
    pub mono_ns: i64,
    /// What it heard from the others last. (No map by number: within a flattened struct serde reads no numbers as keys.)
    #[serde(default)]
    pub heard: Vec<Echo>,
}

/// What another node said of its clock, told back to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Which.
    pub node: u64,
    /// Its [`ClockReading::mono_ns`].
    pub mono_ns: i64,
    /// For how long this node has had it.
    pub held_ns: i64,
}

/// How a clock stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockView {
    /// Milliseconds that it is ahead of the clock that counts; negative: behind.
    pub ahead_ms: i64,
    /// By how many that may be wrong.
    pub error_ms: i64,
}

impl ClockView {
    /// Whether it is further away than this for certain.
    pub fn is_beyond(&self, ms: i64) -> bool {
        let far = self.ahead_ms.saturating_abs();
        far.saturating_sub(self.error_ms) > ms
    }
}

/// A process that shows a member's certificate and is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stray {
    /// Name of the member.
    pub node: String,
    /// Where the connection came from.
    pub from: IpAddr,
    /// Where it says it listens, if the cluster knows the member elsewhere; else it is a second process there.
    pub listens: Option<SocketAddr>,
}

/// A setting that is not the same on all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// It does harm when the service moves; else machines may differ in it.
    pub grave: bool,
    /// Nodes that have the same, the leader's first.
    pub groups: Vec<Vec<String>>,
    /// Of exports: some that differ, as far as the nodes tell.
    #[serde(default)]
    pub exports: Vec<String>,
}

/// The leader's view of a follower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// The last entry known to be in its log.
    pub matched: Option<u64>,
    /// Milliseconds since the last message that it answered.
    pub acked_ms_ago: Option<u64>,
}

/// How a node sees itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its name.
    pub node: String,
    /// Version of its program.
    pub version: String,
    /// When its process started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// What it does.
    pub role: Role,
    /// Name of the leader, if one is known.
    pub leader: Option<String>,
    /// The term.
    pub term: u64,
    /// Where the service stands here.
    pub phase: Phase,
    /// Whether clients are answered here.
    pub serving: bool,
    /// It was asked not to lead.
    pub standby: bool,
    /// It votes and keeps the log, but has no files: it never serves.
    #[serde(default)]
    pub witness: bool,
    /// What keeps the service from coming up here or from taking all changes, if anything.
    pub trouble: Option<String>,
    /// MiB of the file system where the data are.
    #[serde(default)]
    pub total_mib: u64,
    /// MiB free where the data are.
    pub free_mib: u64,
    /// MiB that are kept free: below, what needs space is refused.
    pub reserve_mib: u64,
    /// Files that its file system still takes above those that are kept; `None`: as many as there is space for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_files: Option<u64>,
    /// Its disk has no more free than is kept, or not much more since.
    #[serde(default)]
    pub full: bool,
    /// It lacks what is in no log any more, and cannot take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cannot_catch_up: Option<Problem>,
    /// On the leader: what needs space is refused, because its disk is full, or those of so many others that no
    /// majority with space is left.
    #[serde(default)]
    pub refuses_growth: bool,
    /// Last log index present.
    pub last_log: u64,
    /// Last log index known to be committed.
    pub committed: u64,
    /// Last log index applied.
    pub applied: u64,
    /// Records made durable in the log since the start.
    pub log_records: u64,
    /// Flushes of the log since the start.
    pub log_flushes: u64,
    /// Client connections now.
    pub connections: u64,
    /// What clients have of its memory.
    #[serde(default)]
    pub memory: Memory,
    /// The port NFS is served on (of interest when the system chose it).
    pub nfs_port: u16,
    /// The port MOUNT is served on.
    pub mount_port: u16,
    /// Floating addresses that are up here.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Who else answers for these; on a node that has none and knows of none that has: who answers for any.
    #[serde(default)]
    pub conflicts: Vec<Conflict>,
    /// On the leader: the other nodes, by name.
    #[serde(default)]
    pub peers: BTreeMap<String, PeerView>,
    /// The last failovers that this node knows of, at most [`Failover::KEPT`], the newest first.
    #[serde(default)]
    pub failovers: Vec<Failover>,
    /// What must be the same on all nodes; a node of another version may tell none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// Its clock; a node of another version may tell none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockReading>,
    /// How the nodes' clocks stand as it sees them, its own included, by name.
    #[serde(default)]
    pub clocks: BTreeMap<String, ClockView>,
    /// Milliseconds that the service's time, as it would give it, is ahead of the clock that counts.
    #[serde(default)]
    pub time_ahead_ms: i64,
    /// Where it listens for the others, as its configuration says.
    #[serde(default)]
    pub listens: Option<SocketAddr>,
    /// Why the others refuse it, if they take it for another than the node that it says it is.
    #[serde(default)]
    pub stray: Option<String>,
    /// Processes that it refuses for the same reason.
    #[serde(default)]
    pub strays: Vec<Stray>,
}

impl NodeReport {
    /// Whether it could serve, as far as its role and its operator are concerned.
    #[must_use]
    pub const fn may_lead(&self) -> bool {
        !self.standby && !self.witness
    }
}

/// What is known of the cluster before it is judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the service.
    pub service: String,
    /// The node that tells this.
    pub asked: String,
    /// Its clock, in milliseconds since 1970.
    pub now_unix_ms: u64,
    /// The nodes, by rising id.
    pub nodes: Vec<NodeFacts>,
    /// The floating addresses, as configured.
    pub floating: Vec<IpAddr>,
}

/// What is known of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Where it listens for the other nodes.
    pub address: SocketAddr,
    /// Milliseconds since its report came; `None`: never heard.
    pub heard_ms_ago: Option<u64>,
    /// Its last report.
    pub report: Option<NodeReport>,
}

/// How well the service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It serves, and would survive the loss of a node as planned.
    Healthy,
    /// It serves, but something is wrong.
    Degraded,
    /// It does not serve.
    Down,
}

impl Verdict {
    /// Exit status of `haven status`.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Degraded => 1,
            Self::Down => 2,
        }
    }
}

/// What a node is for the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Leads and serves.
    Serving,
    /// Leads, but does not serve yet, or any more.
    Leading,
    /// Follows, up to date: could take over.
    Ready,
    /// Follows, but is behind.
    CatchingUp,
    /// Runs, but sees no leader.
    Searching,
    /// Has not been heard lately, or never.
    Down,
}

/// One node of a judged cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// What is known of it.
    #[serde(flatten)]
    pub facts: NodeFacts,
    /// What that means.
    pub state: NodeState,
    /// Entries of the leader that it does not have yet.
    pub lag_entries: Option<u64>,
}

/// Where a floating address is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressStatus {
    /// The address.
    pub address: IpAddr,
    /// Nodes that have it; more than one, or none, is wrong while the service serves.
    pub on: Vec<String>,
    /// Hardware address of a stranger that answers for it.
    pub conflict: Option<String>,
}

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

/// A judged cluster: what `haven status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// How well the service is.
    pub verdict: Verdict,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the service.
    pub service: String,
    /// The node that tells this.
    pub asked: String,
    /// Its clock, in milliseconds since 1970.
    pub now_unix_ms: u64,
    /// Who leads.
    pub leader: Option<String>,
    /// The newest term known.
    pub term: u64,
    /// Nodes that must run.
    pub majority: usize,
    /// The nodes, by rising id.
    pub nodes: Vec<NodeStatus>,
    /// The floating addresses.
    pub addresses: Vec<AddressStatus>,
    /// The last failovers that any node knows of, at most [`Failover::KEPT`], the newest first.
    pub failovers: Vec<Failover>,
    /// Settings that are not the same on all nodes that are heard.
    #[serde(default)]
    pub differences: Vec<Difference>,
    /// What is wrong, the gravest first.
    pub problems: Vec<Problem>,
}

/// A state hash and the log index it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHash {
    /// The state is that after the change at this log index.
    pub applied: u64,
    /// BLAKE3 of the state, in hexadecimal.
    pub hash: String,
}

/// `POST /v1/move`: move the service by plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// Name of the service; missing: the only one.
    #[serde(default)]
    pub service: Option<String>,
    /// Name of the node that shall lead; missing: the most up-to-date one.
    #[serde(default)]
    pub to: Option<String>,
    /// Even to a node whose settings differ. (Left out where it is not asked for: a node of a version that does not
    /// know it refuses it.)
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// `POST /v1/token`: let one machine in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// How long the token counts.
    pub hours: u64,
}

/// `POST /v1/nodes/remove`: end a node's membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// Its name or number.
    pub node: String,
}

/// A member as `haven node list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where it listens for its peers.
    pub address: String,
    /// `leader`, `voter`, `catching up` or `leaving`.
    pub state: String,
    /// The beginning of its key's fingerprint (SHA-256).
    pub key: String,
}

/// `POST /v1/standby`: may a node lead?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandbyRequest {
    /// Name of the node.
    pub node: String,
    /// It shall not lead.
    pub standby: bool,
    /// Even if no other node could.
    #[serde(default)]
    pub force: bool,
}

/// What is asked of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// `GET /v1/status`, or `GET /v1/status?node=NAME`: the cluster, as far as this node, or that one, knows; a
    /// [`ClusterStatus`].
    Status {
        /// Whose view; missing: that of the node that is asked.
        node: Option<String>,
    },
    /// `GET /v1/node`: this node; a [`NodeReport`].
    Node,
    /// `GET /v1/state-hash`: a [`StateHash`] (reads the whole state: slow on large volumes).
    StateHash,
    /// `GET /metrics`: text.
    Metrics,
    /// `POST /v1/move`; answers nothing.
    Move(MoveRequest),
    /// `POST /v1/standby`; answers nothing.
    Standby(StandbyRequest),
    /// `POST /v1/token`: a token with which one machine may join; text.
    Token(TokenRequest),
    /// `GET /v1/nodes`: who belongs to the cluster; a list of [`NodeRow`].
    Nodes,
    /// `POST /v1/nodes/remove`; answers nothing, when it is done.
    RemoveNode(RemoveRequest),
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// What kind.
    pub kind: RefusalKind,
    /// In words: what is wrong and what to do.
    pub error: String,
    /// The node that could do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<String>,
}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The question makes no sense.
    Bad,
    /// There is nothing of that name.
    NotFound,
    /// Not over this listener.
    Forbidden,
    /// Another node must be asked.
    Elsewhere,
    /// It would do harm, or cannot be done in this state.
    Conflict,
    /// It failed, or takes too long.
    Failed,
}

impl Refusal {
    /// A refusal of some kind, in words.
    pub fn new(kind: RefusalKind, error: impl Into<String>) -> Self {
        Self {
            kind,
            error: error.into(),
            ask: None,
        }
    }

    /// It was tried, and failed.
    pub fn failed(error: impl Into<String>) -> Self {
        Self::new(RefusalKind::Failed, error)
    }

    /// Another node must be asked.
    pub fn elsewhere(node: &str, error: impl Into<String>) -> Self {
        Self {
            kind: RefusalKind::Elsewhere,
            error: error.into(),
            ask: Some(node.to_owned()),
        }
    }
}
