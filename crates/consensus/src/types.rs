//! The concrete types openraft is instantiated with.
//!
//! Invariants
//! - At most one leader per term (the `leader_id_std` mode). The lease argument in [`crate::lease`]
//!   needs it: with several leaders per term a delayed transfer vote could depose a leader that
//!   nobody told to stop.
//! - Openraft's types stay inside this crate.
//!
//! It must not know what an entry means.

use std::any::Any;
use std::fmt;

use bytes::Bytes;
use openraft::alias;
use parking_lot::Mutex;

use crate::roster::Record;

openraft::declare_raft_types!(
    /// Openraft's parameters for Haven.
    pub(crate) Types:
        D = Command,
        R = Outcome,
        NodeId = u64,
        Node = Record,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(crate) type LogId = alias::LogIdOf<Types>;
pub(crate) type Vote = alias::VoteOf<Types>;
pub(crate) type LeaderId = alias::LeaderIdOf<Types>;
pub(crate) type Entry = alias::EntryOf<Types>;
pub(crate) type Payload = alias::PayloadOf<Types>;
pub(crate) type Members = alias::StoredMembershipOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, Record>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<Types>;
pub(crate) type AppendRequest = openraft::raft::AppendEntriesRequest<Types>;
pub(crate) type AppendResult = openraft::raft::StreamAppendResult<Types>;
pub(crate) type VoteRequest = openraft::raft::VoteRequest<Types>;
pub(crate) type VoteResponse = openraft::raft::VoteResponse<Types>;
pub(crate) type TransferRequest = openraft::raft::TransferLeaderRequest<Types>;

/// An entry's payload as openraft carries it.
#[derive(Clone)]
pub(crate) struct Command(pub(crate) Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying answered. Openraft's parameters cannot be generic over the machine's reply, so it
/// travels as `Any` and gets its type back in `propose`.
pub(crate) struct Outcome(Mutex<Option<Box<dyn Any + Send>>>);

impl Outcome {
    pub(crate) fn new<R: Send + 'static>(reply: R) -> Self {
        Self(Mutex::new(Some(Box::new(reply))))
    }

    /// For entries that the machine does not see.
    pub(crate) fn none() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn take<R: 'static>(self) -> Option<R> {
        let any = self.0.into_inner()?;
        any.downcast::<R>().ok().map(|reply| *reply)
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outcome")
    }
}

/// The first index that can follow `id`.
pub(crate) fn next_index(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index.saturating_add(1))
}

/// A log id of the given term.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    use openraft::vote::RaftLeaderId;
    LogId {
        leader_id: LeaderId { term, voted_for: 0 }.to_committed(),
        index,
    }
}
