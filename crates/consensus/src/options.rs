//! What a node is started with, and what it tells about itself.
//!
//! It must not know how any of it is used.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use haven_pki::Issued;
use haven_pki::KeyId;
use haven_pki::Tls;

/// Longest cluster name, in bytes.
pub const CLUSTER_NAME_MAX: usize = 255;

/// Largest entry that can be proposed, in bytes.
pub const ENTRY_BYTES_MAX: usize = 16 << 20;

/// Largest hint, in bytes.
pub const HINT_BYTES_MAX: usize = 64 << 10;

/// So many topics there are for posts.
pub const TOPICS_MAX: u16 = 1 << 10;

/// Largest post, in bytes.
pub const POST_BYTES_MAX: usize = 8 << 10;

/// Longest description of a checkpoint that a stream of changes may begin at, in bytes.
pub const BASE_BYTES_MAX: usize = 1024;

/// Proposals (and barriers) in flight per node; further ones wait.
pub const PROPOSALS_MAX: usize = 4096;

/// Bytes of proposals in flight per node; further ones wait.
pub const PROPOSAL_BYTES_MAX: usize = 24 << 20;

/// How a node takes part in its cluster.
#[derive(Debug, Clone)]
pub struct ConsensusOptions {
    /// This node's id.
    pub node_id: u64,
    /// Name of the cluster.
    pub cluster: String,
    /// The nodes that make the cluster together, and where they listen: its voters until they change. Empty for
    /// one that joined. What was agreed on later is in the log.
    pub peers: BTreeMap<u64, SocketAddr>,
    /// Where this node listens for its peers.
    pub listen: SocketAddr,
    /// This node's part in a cluster; `None`: it is alone for good, and talks to nobody.
    pub security: Option<Security>,
    /// Heartbeats, leases and elections.
    pub timing: Timing,
    /// When the machine makes a checkpoint and the log is cut.
    pub checkpoints: CheckpointPolicy,
    /// This node votes and keeps the log, but its machine holds nothing. It never counts as leader
    /// ([`Leadership::is_leader`]); when it is elected it hands over to a node that does hold something, as
    /// soon as one has all entries. It keeps what not all of those have, within
    /// [`CheckpointPolicy::keep_bytes`].
    pub witness: bool,
}

/// What makes a node a member of a cluster.
#[derive(Debug, Clone)]
pub struct Security {
    /// This node's ends of connections. Nodes of other clusters are refused.
    pub tls: Tls,
    /// How this node is called.
    pub name: String,
    /// Names and keys of those in [`ConsensusOptions::peers`].
    pub founders: BTreeMap<u64, (String, KeyId)>,
    /// Tokens that count from the cluster's beginning.
    pub tokens: Vec<Issued>,
    /// The protocol version this node speaks: [`crate::PROTOCOL_VERSION`], but in tests.
    pub version: u32,
}

/// Heartbeats, leases and elections. Must be the same on all nodes of a cluster.
///
/// A follower stands for election when it heard nothing for `lease` and one `heartbeat`, or two if
/// another follower's turn comes first; if that fails, again after `lease` plus a random time in
/// `election_min..lease`. With the defaults the first follower stands 360 ms after the last heartbeat, and
/// is elected a few milliseconds later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Time between heartbeats; also how long a leader waits for the answer to one.
    pub heartbeat: Duration,
    /// Least random delay of a repeated election after the lease lapsed; also the time for the answer to a
    /// vote, disk included.
    pub election_min: Duration,
    /// How long a follower that heard its leader refuses to elect another; also the upper bound of
    /// the random delay.
    pub lease: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(60),
            election_min: Duration::from_millis(150),
            lease: Duration::from_millis(300),
        }
    }
}

impl Timing {
    /// How long after the sending of an acknowledged heartbeat a leader trusts its lease: the promise
    /// of the voters less a tenth for clocks of different speed.
    #[must_use]
    pub fn lease_window(&self) -> Duration {
        self.lease - self.lease / 10
    }

    /// A leader that a quorum has not answered for this long no longer counts as leader.
    #[must_use]
    pub fn quorum_loss(&self) -> Duration {
        self.lease * 2
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.heartbeat.as_millis() < 5 {
            return Err(format!("heartbeat {:?} is below 5 ms", self.heartbeat));
        }
        if self.election_min < self.heartbeat * 2 {
            return Err(format!(
                "election_min {:?} is below two heartbeats of {:?}",
                self.election_min, self.heartbeat
            ));
        }
        if self.lease < self.election_min + self.heartbeat {
            return Err(format!(
                "lease {:?} is below election_min {:?} plus a heartbeat",
                self.lease, self.election_min
            ));
        }
        Ok(())
    }
}

/// When the machine makes a checkpoint and the log is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointPolicy {
    /// Entries applied since the last checkpoint.
    pub entries: u64,
    /// Entry bytes applied since the last checkpoint.
    pub bytes: u64,
    /// Entries kept behind a checkpoint for followers that lag; further behind, they get a snapshot.
    pub keep_entries: u64,
    /// Bytes of log kept, as far as checkpoints allow: older entries go, whole files of the log at a time.
    pub keep_bytes: u64,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            entries: 50_000,
            bytes: 128 << 20,
            keep_entries: 5_000,
            keep_bytes: 256 << 20,
        }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options contradict themselves.
    #[error("bad consensus options: {0}")]
    Options(String),
    /// The listening address cannot be used.
    #[error("cannot listen for other nodes on {addr}: {error}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The system has no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// Log or machine cannot be read, or do not fit together.
    #[error("cannot recover the replicated state: {0}")]
    Recover(String),
    /// This node is the only voter, and records that it had committed are gone.
    #[error(
        "the log ends with record {last}, but records up to {committed} had been committed: changes that were \
         acknowledged are gone from this disk, and no other node has them. LOOK AT THE DISK, and restore a backup of the \
         whole data directory. To go on without these changes, say `haven accept-loss` on this machine and start again"
    )]
    Lost {
        /// The last record that is known to have been committed.
        committed: u64,
        /// The last record that log or machine hold.
        last: u64,
    },
    /// The log belongs to a cluster, but the node was started as one that is alone.
    #[error(
        "the data belong to a cluster of the nodes {stored:?}, but this node was started alone (as {configured:?}); \
         start it with the configuration that `haven init` or `haven join` wrote"
    )]
    Members {
        /// Voters in the log or machine.
        stored: Vec<u64>,
        /// Voters in the options.
        configured: Vec<u64>,
    },
}

/// Why a proposal (or barrier) has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead; the entry was not taken. The leader, if known.
    #[error("this node does not lead (leader: {0:?})")]
    NotLeader(Option<u64>),
    /// Leadership or the quorum was lost meanwhile. The entry may or may not take effect.
    #[error(
        "leadership was lost before the entry was known to be committed; its outcome is unknown"
    )]
    Unavailable,
    /// The entry is larger than [`ENTRY_BYTES_MAX`].
    #[error("the entry has {0} bytes, more than {ENTRY_BYTES_MAX}")]
    TooLarge(usize),
    /// The node has stopped. Entries taken before may take effect later.
    #[error("consensus has stopped on this node")]
    Stopped,
}

/// Why leadership was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This node does not lead.
    #[error("this node does not lead (leader: {0:?})")]
    NotLeader(Option<u64>),
    /// The named node is not another voter.
    #[error("node {0} is not another voter of this cluster")]
    NoSuchNode(u64),
    /// The named node is a witness.
    #[error("node {0} is a witness: it votes, but holds no files and cannot serve")]
    Witness(u64),
    /// No other node votes.
    #[error("this node is the only one that votes: there is nobody to hand over to")]
    Alone,
    /// No follower (or not the named one) answers and holds nearly all entries.
    #[error(
        "no other node, or not the one named, is both reachable and nearly up to date: wait until haven status shows \
         that, then say it again"
    )]
    NoneReady,
    /// Nobody took over in time. This node no longer serves in its term; an election follows.
    #[error("no other node took over in time; an election follows")]
    TimedOut,
    /// Whoever could take over has no process any more: all nodes were told to end. This node no longer serves in its term.
    #[error(
        "no other node's process is there to take over: an election follows when a majority runs again"
    )]
    Deserted,
    /// Nobody took over, and then this node was elected again. It may serve in the new term.
    #[error("no other node took over, and this one was elected again")]
    Reelected,
    /// The node has stopped.
    #[error("consensus has stopped on this node")]
    Stopped,
}

/// A hint that was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the hint has {0} bytes, more than {HINT_BYTES_MAX}")]
pub struct HintTooLarge(pub usize);

/// A post that was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a post of {bytes} bytes about topic {topic}; at most {POST_BYTES_MAX}, topics below {TOPICS_MAX}"
)]
pub struct BadPost {
    /// Its topic.
    pub topic: u16,
    /// Its size.
    pub bytes: usize,
}

/// Snapshots that this node has sent to others since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SnapshotsSent {
    /// Whole ones.
    pub whole: u64,
    /// Only what had changed.
    pub partial: u64,
    /// Begun but not finished.
    pub failed: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes of the last one that was finished.
    pub last_bytes: u64,
}

/// Who leads, as this node knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader, if one is known.
    pub leader: Option<u64>,
    /// The newest term this node has seen.
    pub term: u64,
    /// Whether this node leads, is in touch with a quorum and is not handing over. Before it serves it
    /// must still pass a barrier, and each answer needs a valid lease.
    pub is_leader: bool,
    /// Whether `term` is this node's: it was elected in it, knows of no later one and is not handing over. While it is not
    /// in touch with a quorum, this stays: it leads on in this term as soon as a quorum answers.
    pub holds_term: bool,
}

/// The last sign of life that this node had from a leader other than itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderSign {
    /// The leader.
    pub from: u64,
    /// When it came.
    pub at: std::time::Instant,
    /// How the leader took its leave, as far as it was seen.
    pub farewell: Farewell,
}

/// How a leader took its leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Farewell {
    /// It fell silent, or did not go at all.
    #[default]
    None,
    /// Its connections were closed.
    HungUp,
    /// It handed leadership over.
    HandedOver,
}

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Not a voter (yet): the cluster was not initialised or its log has not arrived.
    Learner,
    /// Follows a leader, or waits for one.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Has stopped.
    Stopped,
}

/// A node's view of itself and of its peers. Indices are those of entries; `None`: none yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub node_id: u64,
    /// The newest term this node has seen.
    pub term: u64,
    /// What it is doing.
    pub role: Role,
    /// The leader, if one is known.
    pub leader: Option<u64>,
    /// Whether this node may answer reads now.
    pub lease_valid: bool,
    /// Its last log entry.
    pub last_log: Option<u64>,
    /// The last entry known to be committed.
    pub committed: Option<u64>,
    /// The last entry applied to the machine.
    pub applied: Option<u64>,
    /// The last entry in a checkpoint.
    pub checkpoint: Option<u64>,
    /// The last entry cut from the log.
    pub purged: Option<u64>,
    /// On the leader: the other members.
    pub peers: BTreeMap<u64, PeerStatus>,
}

/// The leader's view of another member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// The last entry known to be in its log.
    pub matched: Option<u64>,
    /// Milliseconds since the sending of the last message it answered.
    pub acked_ms_ago: Option<u64>,
    /// It is a witness, as it has said itself.
    pub witness: bool,
}
