//! Replication of one service's log over the cluster's nodes.
//!
//! The only crate that names openraft. It stores openraft's log in `haven-log`, carries its messages
//! between nodes, moves snapshots, tells who leads and whether the leader's lease holds, and takes
//! proposals. What entries mean is the [`Replicated`] machine's business.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

mod answers;
mod candidacy;
pub mod check;
mod codec;
mod consensus;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handover;
mod heir;
pub mod lacking;
mod lease;
mod machine;
mod members;
mod monitor;
mod net;
mod options;
mod pulse;
mod purge;
pub mod rejoin;
mod roster;
mod stand;
mod start;
mod steward;
#[cfg(test)]
mod storage_tests;
mod store;
mod tail;
mod threads;
mod types;
mod witness;
mod worker;

pub use consensus::Consensus;
pub use net::doubles::Stray;
pub use net::link::ask_to_join;
pub use net::message::PROTOCOL_VERSION;
pub use net::posts::Post;
pub use net::visit::Unreached;
pub use net::visit::VISITS_MAX;
pub use net::visit::Visit;
pub use options::*;
pub use pulse::{Beat, Pulse};
pub use roster::Applicant;
pub use roster::NAME_MAX;
pub use steward::Member;
pub use steward::MembershipError;

/// The deterministic machine that entries are applied to, with its durable state.
///
/// `position` blobs are opaque to the machine: it stores the newest one with the state it belongs to,
/// in the same atomic step, and gives it back.
pub trait Replicated: Send + Sync + 'static {
    /// What applying an entry answers (the leader hands it to the proposer; others drop it).
    type Reply: Send + 'static;

    /// The position blob saved by the last `apply` (or install), `None` for a fresh state.
    fn position(&self) -> Result<Option<Bytes>, MachineError>;

    /// Applies entries in order, one reply for each, and remembers `position` with the result. Called
    /// from one thread. An error means that this replica cannot go on.
    fn apply(
        &self,
        entries: &[(u64, Bytes)],
        position: Bytes,
    ) -> Result<Vec<Self::Reply>, MachineError>;

    /// As `apply`, but only as many of the entries (at least the first, if there is one) as take a moment: others that want
    /// to look at the state get their turn, and those who wait for the replies get them. One reply for each that was
    /// applied; `position` gives the position after so many of them. It is called again with the rest.
    fn apply_turn(
        &self,
        entries: &[(u64, Bytes)],
        position: &dyn Fn(usize) -> Bytes,
    ) -> Result<Vec<Self::Reply>, MachineError> {
        self.apply(entries, position(entries.len()))
    }

    /// Makes all that was applied durable, so that the log up to it may go. Returns the position that
    /// is durable now (`None`: nothing applied yet). Must not hold up `apply` for long.
    fn checkpoint(&self) -> Result<Option<Bytes>, MachineError>;

    /// Opens the last durable checkpoint for sending to another node. `None`: there is none yet.
    ///
    /// File data in it may be newer than its position (never older): the receiver gets there by
    /// applying the log from the position on, as after a crash.
    fn snapshot(&self) -> Result<Option<Box<dyn SnapshotSource>>, MachineError>;

    /// What of another node's checkpoint this machine needs.
    fn wanted(&self) -> Result<Wanted, MachineError> {
        Ok(Wanted::Everything)
    }

    /// Starts receiving a snapshot of `position` from another node, beside the current state.
    fn receive(&self, position: Bytes) -> Result<Box<dyn SnapshotSink>, MachineError>;
}

/// What a machine needs of another node's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Everything,
    /// What changed since the checkpoint that this blob describes (at most [`BASE_BYTES_MAX`]), if the
    /// sender knows it, otherwise all of it. The blob is opaque to everybody but the machines.
    Since(Bytes),
    /// Nothing but its position: the machine keeps no state.
    Position,
}

/// A checkpoint being sent, chunk by chunk.
pub trait SnapshotSource: Send {
    /// Sends only what a machine lacks that has the checkpoint `base` describes. False: everything will
    /// be sent. Asked before the first chunk.
    fn since(&mut self, _base: Bytes) -> Result<bool, MachineError> {
        Ok(false)
    }

    /// The checkpoint's position.
    fn position(&self) -> Bytes;
    /// The next chunk (at most 1 MiB), `None` at the end.
    fn next_chunk(&mut self) -> Result<Option<Bytes>, MachineError>;
}

/// A checkpoint being received. Dropping it without `install` discards what came.
pub trait SnapshotSink: Send {
    /// Takes the next chunk.
    fn push(&mut self, chunk: Bytes) -> Result<(), MachineError>;
    /// Replaces the machine's state, durably and atomically, by what was received, which must be whole.
    fn install(self: Box<Self>) -> Result<(), MachineError>;
}

/// Decides about machines that want to join. What they say and are told is its business alone.
pub trait Gatekeeper: Send + Sync + 'static {
    /// Answers one, or says why not, in words for its operator. The machine holds no certificate yet, but knows
    /// that it talks to a member; what it sends may be anything.
    fn admit(
        &self,
        request: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send + '_>>;
}

/// Receives other members. What they say and are told is its business alone.
pub trait Host: Send + Sync + 'static {
    /// Serves one visit of member `from`, proven by its certificate, until it is over. What is said may be anything,
    /// or nothing for ever; the future is dropped when `from` is no member any more.
    fn receive(&self, from: u64, visit: Visit) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The machine cannot go on (its disk failed, its format is broken): this replica stops.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct MachineError(pub String);
