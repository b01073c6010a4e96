//! [`Consensus`]: this node's part in the cluster, for the rest of the program.
//!
//! Invariants
//! - Whatever openraft does runs on a runtime of its own; callers may use any runtime, or none.
//! - Proposals in flight are bounded. Each ends when its outcome is known, or when this node loses
//!   leadership or its quorum.
//!
//! It must not know what entries mean.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::Raft;
use openraft::RaftMetrics;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::errors::ForwardReason;
use openraft::errors::RaftError;
use openraft::raft::ClientWriteResponse;
use openraft::raft::responder::ProgressResponder;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Replicated;
use crate::candidacy::Candidacy;
use crate::handover;
use crate::handover::Ears;
use crate::handover::Orders;
use crate::handover::TRANSFER_LAG_MAX;
use crate::heir;
use crate::heir::ANSWER_AGE_MAX;
use crate::heir::Heirs;
use crate::heir::Wanted;
use crate::lease::Lease;
use crate::machine::Machine;
use crate::monitor::Standing;
use crate::net::hints::Board;
use crate::net::link::Place;
use crate::net::posts::Post;
use crate::options::BadPost;
use crate::options::ConsensusOptions;
use crate::options::HINT_BYTES_MAX;
use crate::options::HintTooLarge;
use crate::options::LeaderSign;
use crate::options::Leadership;
use crate::options::PeerStatus;
use crate::options::ProposeError;
use crate::options::Role;
use crate::options::SnapshotsSent;
use crate::options::StartError;
use crate::options::Status;
use crate::options::Timing;
use crate::options::TransferError;
use crate::pulse::Pulse;
use crate::stand::Heard;
use crate::start;
use crate::steward;
use crate::steward::Steward;
use crate::types::Command;
use crate::types::Types;
use crate::types::log_id;
use haven_log::Log;

/// How long a proposal waits for a leadership that is just beginning.
const SETTLE_MAX: Duration = Duration::from_millis(100);

/// How often it looks meanwhile.
const SETTLE_STEP: Duration = Duration::from_millis(1);

/// Proposal bytes are counted in steps of this.
pub(crate) const ROOM_UNIT: usize = 1024;

/// How long a shutdown waits for running disk and machine calls.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// This node's part in the cluster. Clones are the same node; it stops with [`Consensus::shutdown`] or
/// with its last clone.
pub struct Consensus<R: Send + 'static> {
    pub(crate) inner: Arc<Inner<R>>,
}

impl<R: Send + 'static> Clone for Consensus<R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

pub(crate) struct Inner<R: Send + 'static> {
    pub(crate) raft: Raft<Types, Machine<R>>,
    pub(crate) place: Arc<Place>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) timing: Timing,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) public: watch::Receiver<Leadership>,
    pub(crate) revoked: Arc<Notify>,
    /// Rung when a quorum's answer is wanted now.
    pub(crate) quorum: Arc<Notify>,
    pub(crate) vote_pulse: Pulse,
    pub(crate) board: Arc<Board>,
    pub(crate) sent: Arc<Mutex<SnapshotsSent>>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) candidacy: Arc<Candidacy>,
    pub(crate) steward: Arc<Steward<R>>,
    pub(crate) orders: Arc<Orders>,
    pub(crate) slots: Semaphore,
    /// Bytes of proposals, in units of [`ROOM_UNIT`].
    pub(crate) room: Semaphore,
    pub(crate) handle: Handle,
    pub(crate) runtime: Mutex<Option<Runtime>>,
    /// Listener, hints, monitor and the like.
    pub(crate) tasks: Mutex<JoinSet<()>>,
    /// Ends when nothing uses the log and the machine any more.
    pub(crate) released: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl<R: Send + 'static> Drop for Inner<R> {
    fn drop(&mut self) {
        self.lease.clear();
        if let Some(runtime) = self.runtime.lock().take() {
            // The usual drop waits, which is not allowed on a thread of another runtime.
            runtime.shutdown_background();
        }
    }
}

impl<R: Send + 'static> Consensus<R> {
    /// Starts this node on its log and machine. All nodes of a new cluster must be started with the
    /// same voters; the cluster forms by itself when a majority runs.
    ///
    /// # Errors
    /// See [`StartError`]; nothing keeps running then.
    pub async fn start(
        options: ConsensusOptions,
        log: Log,
        machine: Arc<dyn Replicated<Reply = R>>,
    ) -> Result<Self, StartError> {
        let inner = start::start(options, log, machine).await?;
        let this = Self {
            inner: Arc::new(inner),
        };
        if this.inner.place.tls.is_some() {
            let caring = steward::care(Arc::downgrade(&this.inner));
            this.inner.tasks.lock().spawn_on(caring, &this.inner.handle);
        }
        Ok(this)
    }

    /// Proposes an entry and waits until it is applied here; gives the machine's reply.
    ///
    /// # Errors
    /// `NotLeader` and `TooLarge` mean that the entry takes no effect; after `Unavailable` and
    /// `Stopped` it may or may not.
    pub async fn propose(&self, entry: Bytes) -> Result<R, ProposeError> {
        self.propose_within(None, entry).await
    }

    /// As [`Consensus::propose`], but the entry is taken only while this node leads in `term`: for
    /// proposals that are tried again, of which none may turn up in a later term of this node's, when
    /// another leader has dealt with the matter long ago.
    ///
    /// # Errors
    /// As for [`Consensus::propose`]; `NotLeader` also when the term is over.
    pub async fn propose_in(&self, term: u64, entry: Bytes) -> Result<R, ProposeError> {
        self.propose_within(Some(term), entry).await
    }

    async fn propose_within(&self, term: Option<u64>, entry: Bytes) -> Result<R, ProposeError> {
        if entry.len() > crate::ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge(entry.len()));
        }
        let response = self.write(term, Some(entry)).await?;
        response.data.take::<R>().ok_or(ProposeError::Unavailable)
    }

    /// Waits until this node, as leader, has committed an entry of its own term and has applied
    /// everything up to it; gives that entry's index.
    ///
    /// # Errors
    /// As for [`Consensus::propose`]; a barrier that failed changed nothing that matters.
    pub async fn barrier(&self) -> Result<u64, ProposeError> {
        Ok(self.write(None, None).await?.log_id.index)
    }

    async fn write(
        &self,
        term: Option<u64>,
        entry: Option<Bytes>,
    ) -> Result<ClientWriteResponse<Types>, ProposeError> {
        let units = (entry.as_ref().map_or(0, Bytes::len) / ROOM_UNIT + 1) as u32;
        let _slot = self
            .inner
            .slots
            .acquire()
            .await
            .map_err(|_| ProposeError::Stopped)?;
        let _room = self
            .inner
            .room
            .acquire_many(units)
            .await
            .map_err(|_| ProposeError::Stopped)?;
        let mut standing = self.inner.standing.clone();
        let mut settling = None;
        loop {
            let at = *standing.borrow_and_update();
            if at.stopped {
                return Err(ProposeError::Stopped);
            }
            let mut metrics = self.inner.raft.metrics();
            let elected = metrics.borrow_watched().state == ServerState::Leader;
            if !at.leading {
                let refused = at.public.leader.filter(|id| *id != self.id());
                if elected && self.settles(&mut standing, &mut settling).await {
                    continue;
                }
                return Err(ProposeError::NotLeader(refused));
            }
            if term.is_some_and(|term| term != at.public.term) {
                return Err(ProposeError::NotLeader(None));
            }
            let written = tokio::select! {
                biased;
                written = self.write_once(at.public.term, entry.clone()) => written,
                lost = standing.wait_for(|now| !now.leading || now.public.term != at.public.term) => {
                    return Err(match lost {
                        Ok(now) if !now.stopped => ProposeError::Unavailable,
                        _ => ProposeError::Stopped,
                    });
                }
            };
            match written {
                Ok(Some(done)) => return Ok(done),
                // Openraft says who leads before it takes its part. Such an entry was not taken.
                Err(ProposeError::NotLeader(to)) if to.is_none_or(|to| to == self.id()) => {
                    if self.settles(&mut standing, &mut settling).await {
                        continue;
                    }
                    return Err(ProposeError::NotLeader(None));
                }
                Err(error) => return Err(error),
                Ok(None) => {}
            }
            // The lease lapsed for a moment, or is not there yet, so the entry was not taken: openraft's
            // next news may be the answer of a quorum.
            self.inner.quorum.notify_one();
            tokio::select! {
                _ = metrics.changed() => {}
                _ = standing.changed() => {}
            }
        }
    }

    /// Waits for what openraft and the monitor say of this node to agree: for news, or a moment. False
    /// when [`SETTLE_MAX`] has passed since the first call with this `since`.
    async fn settles(
        &self,
        standing: &mut watch::Receiver<Standing>,
        since: &mut Option<Instant>,
    ) -> bool {
        let since = *since.get_or_insert_with(Instant::now);
        if since.elapsed() >= SETTLE_MAX {
            return false;
        }
        tokio::select! {
            _ = standing.changed() => {}
            () = tokio::time::sleep(SETTLE_STEP) => {}
        }
        true
    }

    /// One attempt; `None` if it was not taken because the lease had lapsed.
    async fn write_once(
        &self,
        term: u64,
        entry: Option<Bytes>,
    ) -> Result<Option<ClientWriteResponse<Types>>, ProposeError> {
        let raft = &self.inner.raft;
        let written = match entry {
            Some(entry) => {
                // Openraft checks the term when it takes the entry out of its queue: one that waited
                // there into another term is refused.
                let (responder, answered) = ProgressResponder::complete_only();
                raft.write(Command(entry))
                    .responder(responder)
                    .with_leader(log_id(term, 0).leader_id)
                    .await
                    .map_err(|_| ProposeError::Stopped)?;
                answered.await.map_err(|_| ProposeError::Stopped)?
            }
            None => match raft.write_blank().await {
                Ok(response) => Ok(response),
                Err(RaftError::APIError(error)) => Err(error),
                Err(RaftError::Fatal(_)) => return Err(ProposeError::Stopped),
            },
        };
        match written {
            Ok(response) => Ok(Some(response)),
            Err(ClientWriteError::ForwardToLeader(to)) => match to.reason {
                ForwardReason::LeaseExpired => Ok(None),
                _ => Err(ProposeError::NotLeader(to.leader_id)),
            },
            Err(_) => Err(ProposeError::Unavailable),
        }
    }

    fn id(&self) -> u64 {
        self.inner.place.node_id
    }

    /// Whether this node may answer a read right now. Cheap; ask before sending each answer, after
    /// the state was read. False from the moment a transfer begins.
    #[must_use]
    pub fn lease_valid(&self) -> bool {
        self.inner.lease.valid()
    }

    /// Who leads, and every change of it.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.public.clone()
    }

    /// The last sign of life from a leader other than this node; `None`: none since the start.
    #[must_use]
    pub fn leader_sign(&self) -> Option<LeaderSign> {
        self.inner.heard.sign()
    }

    /// The same, of leaders that could serve: a witness leads only until it has handed over.
    #[must_use]
    pub fn server_sign(&self) -> Option<LeaderSign> {
        self.inner.heard.server_sign()
    }

    /// Nodes that shall not lead; replaces those named before. This node, if among them, no longer stands when
    /// its leader falls silent, except to bring entries in that others lack. Transfers without a target avoid
    /// them. Kept in memory only.
    pub fn set_unwilling(&self, nodes: BTreeSet<u64>) {
        self.inner.candidacy.set_unwilling(&self.inner.raft, nodes);
    }

    /// Nodes that should lead only if nobody else can: transfers without a target prefer others. Replaces those named
    /// before. Kept in memory only.
    pub fn set_avoided(&self, nodes: BTreeSet<u64>) {
        self.inner.candidacy.set_avoided(nodes);
    }

    /// Those named by [`Consensus::set_avoided`].
    #[must_use]
    pub fn avoided(&self) -> BTreeSet<u64> {
        self.inner.candidacy.avoided()
    }

    /// Hands leadership to `to`, or to the most up-to-date follower ([`Consensus::heir`]). From then on this node
    /// answers nothing more in its term ([`Consensus::lease_valid`] is false before the successor can
    /// be elected); entries proposed before are kept. Returns when somebody else leads: who that is, not always `to`. A
    /// process that ends before that may take its vote along that the successor needs, or the message that it shall
    /// lead.
    ///
    /// # Errors
    /// See [`TransferError`]. After `TimedOut` this node still does not serve in this term; the
    /// followers elect a leader when their timers end.
    pub async fn transfer(&self, to: Option<u64>) -> Result<u64, TransferError> {
        let this = self.clone();
        let moving = self
            .inner
            .handle
            .spawn(async move { this.transfer_here(to).await });
        moving.await.map_err(|_| TransferError::Stopped)?
    }

    async fn transfer_here(&self, to: Option<u64>) -> Result<u64, TransferError> {
        let inner = &self.inner;
        let (term, to) = self.ready_successor(to).await?;
        tracing::info!(term, "handing leadership over to node {to}");
        inner.lease.revoke(term);
        inner.revoked.notify_one();
        let ears = Ears {
            orders: &inner.orders,
            standing: inner.standing.clone(),
        };
        // Its promise to itself ends with the order, and its timer could be the first.
        inner.candidacy.set_resigned(&inner.raft, true);
        let led = handover::hand_over(&self.heirs(), ears, term, to).await;
        inner.candidacy.set_resigned(&inner.raft, false);
        led
    }

    /// A successor that lacks nothing, if there is one soon: another refuses to lead when it does not get the rest
    /// within the time of an election, and then one follows.
    async fn ready_successor(&self, to: Option<u64>) -> Result<(u64, u64), TransferError> {
        let candidacy = &self.inner.candidacy;
        let (unwilling, avoided) = (candidacy.unwilling(), candidacy.avoided());
        // Whoever was asked for its heir just before need not be asked again.
        let wanted = |lag_max, unwilling: &BTreeSet<u64>| Wanted {
            to,
            unwilling: unwilling.clone(),
            lag_max,
            before: ANSWER_AGE_MAX,
        };
        let mut wishes = vec![wanted(0, &unwilling), wanted(TRANSFER_LAG_MAX, &unwilling)];
        if to.is_none() && !avoided.is_empty() {
            wishes.insert(0, wanted(0, &(&unwilling | &avoided)));
        }
        let heirs = self.heirs();
        let mut found = Err(TransferError::NoneReady);
        for wish in wishes {
            found = heirs.find(&wish).await;
            if found != Err(TransferError::NoneReady) {
                break;
            }
        }
        found
    }

    /// Who would lead after [`Consensus::transfer`] now: a follower that is nearly up to date, and answers when it is
    /// asked for that.
    ///
    /// # Errors
    /// Those that `transfer` gives before it does anything.
    pub async fn heir(&self, to: Option<u64>) -> Result<u64, TransferError> {
        let this = self.clone();
        let asking = self
            .inner
            .handle
            .spawn(async move { this.successor(to).await });
        let found = asking.await.map_err(|_| TransferError::Stopped)?;
        found.map(|(_, heir)| heir)
    }

    /// This leader's term, and who could follow it: one that answers something sent from now on.
    async fn successor(&self, to: Option<u64>) -> Result<(u64, u64), TransferError> {
        let wanted = Wanted {
            to,
            unwilling: self.inner.candidacy.unwilling(),
            lag_max: TRANSFER_LAG_MAX,
            before: Duration::ZERO,
        };
        self.heirs().find(&wanted).await
    }

    fn heirs(&self) -> Heirs<R> {
        let inner = &self.inner;
        Heirs {
            raft: inner.raft.clone(),
            place: inner.place.clone(),
            board: inner.board.clone(),
            lease: inner.timing.lease,
        }
    }

    /// For a node that ends and hands over by itself, as a witness does: returns when it knows that another node
    /// leads. Limit the waiting.
    pub async fn relieved(&self) {
        let mut standing = self.inner.standing.clone();
        // An error means that the node has stopped.
        let _ = handover::another(&mut standing, self.id(), u64::MAX).await;
    }

    /// The last entry applied to the machine; 0 if there is none (entry 0 is not the machine's).
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.inner
            .raft
            .metrics()
            .borrow_watched()
            .last_applied
            .map_or(0, |id| id.index)
    }

    /// Asks for a checkpoint now; the log is cut behind it as far as the policy allows.
    pub async fn trigger_checkpoint(&self) -> Result<(), ProposeError> {
        self.inner
            .raft
            .trigger()
            .snapshot()
            .await
            .map_err(|_| ProposeError::Stopped)
    }

    /// Waits until the newest members are known, and not so many of them vote; gives how many do.
    pub async fn voters_other_than(&self, known: usize) -> Option<usize> {
        let mut roster = self.inner.place.roster.subscribe();
        let news = |count: usize| count != 0 && count != known;
        let roster = roster.wait_for(|now| news(now.voters.len())).await;
        roster.ok().map(|now| now.voters.len())
    }

    /// The saving of votes, for whoever judges whether it hangs.
    #[must_use]
    pub fn vote_pulse(&self) -> Pulse {
        self.inner.vote_pulse.clone()
    }

    /// How this node sees itself and its peers.
    #[must_use]
    pub fn status(&self) -> Status {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        Status {
            node_id: self.id(),
            term: metrics.current_term,
            role: role(&metrics),
            leader: metrics.current_leader,
            lease_valid: self.lease_valid(),
            last_log: metrics.last_log_index,
            committed: metrics.local_committed.map(|id| id.index),
            applied: metrics.last_applied.map(|id| id.index),
            checkpoint: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
            peers: self.peers(&metrics),
        }
    }

    fn peers(&self, metrics: &RaftMetrics<Types>) -> BTreeMap<u64, PeerStatus> {
        if metrics.replication.is_none() {
            return BTreeMap::new();
        }
        let mut peers: BTreeMap<u64, PeerStatus> = self
            .inner
            .place
            .others()
            .into_iter()
            .map(|id| (id, PeerStatus::default()))
            .collect();
        for (id, peer) in &mut peers {
            peer.witness = self.inner.board.is_witness(*id);
            peer.matched = heir::matched(metrics, *id);
            let ago = self.inner.place.answers.ago(*id, metrics.current_term);
            peer.acked_ms_ago = ago.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
        }
        peers
    }

    /// Snapshots that this node has sent since it started.
    #[must_use]
    pub fn snapshots_sent(&self) -> SnapshotsSent {
        *self.inner.sent.lock()
    }

    /// Tells all peers; the newest hint replaces earlier ones. Best effort.
    ///
    /// # Errors
    /// If the hint has more than [`HINT_BYTES_MAX`] bytes.
    pub fn broadcast_hint(&self, hint: Bytes) -> Result<(), HintTooLarge> {
        if hint.len() > HINT_BYTES_MAX {
            return Err(HintTooLarge(hint.len()));
        }
        self.inner.board.broadcast(hint);
        Ok(())
    }

    /// The newest hint from each peer, and every change of them.
    #[must_use]
    pub fn hints(&self) -> watch::Receiver<BTreeMap<u64, Bytes>> {
        self.inner.board.received()
    }

    /// Tells all peers a part of something larger, those that come later included. The newest post about a `topic`
    /// replaces earlier ones. Best effort.
    ///
    /// # Errors
    /// If the post has more than [`crate::POST_BYTES_MAX`] bytes, or there is no such topic ([`crate::TOPICS_MAX`]).
    pub fn post(&self, topic: u16, bytes: Bytes) -> Result<(), BadPost> {
        self.inner.board.posts.post(topic, bytes)
    }

    /// Waits for posts of peers and takes them: of each topic the newest, if it came since the last call. For one
    /// caller.
    pub async fn posts(&self) -> Vec<Post> {
        self.inner.board.posts.take().await
    }

    /// Drops all traffic with these peers from now on, as if the cables were cut (an empty set heals
    /// it). For tests of partitions.
    #[doc(hidden)]
    pub fn sever(&self, peers: impl IntoIterator<Item = u64>) {
        let peers: BTreeSet<u64> = peers.into_iter().collect();
        self.inner.place.severed.send_replace(peers);
    }

    /// Stops this node. When it returns, its address is free and nothing here uses the log or the
    /// machine any more.
    pub async fn shutdown(&self) {
        let this = self.clone();
        // An error means that the runtime is gone already.
        let _ = self
            .inner
            .handle
            .spawn(async move { this.shutdown_here().await })
            .await;
        if let Some(runtime) = self.inner.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }

    async fn shutdown_here(&self) {
        let inner = &self.inner;
        if let Err(error) = inner.raft.shutdown().await {
            tracing::error!("consensus ended badly: {error}");
        }
        inner.lease.clear();
        inner.slots.close();
        inner.room.close();
        let mut tasks = std::mem::take(&mut *inner.tasks.lock());
        tasks.shutdown().await;
        let mut released = inner.released.lock().await;
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, released.recv())
            .await
            .is_err()
        {
            tracing::error!("log or machine still busy {SHUTDOWN_TIMEOUT:?} after the shutdown");
        }
    }
}

fn role(metrics: &RaftMetrics<Types>) -> Role {
    match metrics.state {
        _ if metrics.running_state.is_err() => Role::Stopped,
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    }
}
