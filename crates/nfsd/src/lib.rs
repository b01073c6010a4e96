//! What the protocols mean: the deterministic state machine of one service behind NFSv3 and MOUNT.
//!
//! A call comes in through [`prepare`], which decodes and sorts it: what changes nothing becomes a
//! [`Request`] for [`Machine::query`], what changes something becomes a log entry for
//! [`Machine::apply`], and what needs no state is answered at once.
//!
//! Invariants
//! - `apply` depends on the state, the entry and its log index only: replicas that apply the same
//!   entries are equal, replies included.
//! - A mutating request is executed once, however often and wherever it is retried.
//! - Nothing a client sends can panic, and nothing that cannot be decoded gets into the log.
//! - A failure of the engine ([`Fatal`]) stops the replica and is never told to a client.
//!
//! It must not know sockets, the clock, randomness, or how the log is replicated.

mod callers;
mod check;
mod classify;
mod cost;
mod entry;
mod export;
mod exports;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handle;
mod identity;
mod inside;
mod level;
mod machine;
mod mount_path;
mod mountd;
mod mounts;
mod nlm;
mod over;
mod portmap;
mod reply_cache;
pub mod rows;
mod squash;
mod v3;

pub use callers::{Callers, Decision, Look, Seen};
pub use check::{
    CheckedSystem, Surroundings, SystemFinding, SystemProblem, check_entry, check_system,
};
pub use classify::{Mutation, Prepared, Request, Service, prepare};
pub use cost::{ANSWER_BYTES_MAX, PLAIN_ANSWER_BYTES, answer_bytes_max};
pub use entry::{
    ARGS_BYTES_MAX, Entry, EntryError, GROUPS_MAX, MntRules, MountEntry, MountOp, Nfs3Entry,
    PATH_BYTES_MAX, request_checksum,
};
pub use exports::{Client, ClientNames, Export, Exports, Hosts, Options, Origin, Transport, Who};
pub use handle::{
    ExportId, HANDLE_BYTES, HandleCodec, HandleError, HandleKey, Target, VolumeId, claimed_export,
};
pub use identity::Identity;
pub use machine::{Machine, Outcome};
pub use mounts::{MOUNTS_MAX, MOUNTS_PER_CLIENT_MAX};
pub use over::{Asked, ChangeId, ConnectionId, NEWS_MAX, News, RequestKey, caller_checksum};
pub use portmap::Binding;
pub use reply_cache::{KEPT_NS, REPLIES_MAX, REPLY_BYTES_MAX};
pub use squash::Squash;
pub use v3::{IO_BYTES_MAX, Room};

use haven_fs::FsError;

/// The replica must stop: its state can no longer be trusted to equal the others'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("replica must stop: {0}")]
pub struct Fatal(pub String);

impl Fatal {
    /// For calls that cannot fail but by the engine's fault.
    fn from_fs(what: &str, error: &FsError) -> Self {
        Self(format!("{what}: {error}"))
    }
}
