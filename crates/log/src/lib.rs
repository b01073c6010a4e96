//! A segmented append-only log with checksums and group flush: the durability point of a service.
//!
//! [`Log::append`] queues records; one thread writes everything queued with one gathering write and
//! one flush and then answers. Reading gives back what was written or an error. `FORMAT.md` beside
//! this crate describes the files and why a crash at any moment leaves a log that is either whole or
//! refused.
//!
//! Invariants
//! - A record whose append was answered with success survives any crash.
//! - What is found after a crash is a prefix of what was appended (and not truncated), beginning
//!   after the purge point. Nothing is invented, nothing is skipped.
//! - After a failed write or flush nothing more is acknowledged.
//! - Every queue and every length is bounded: [`LogOptions`], [`RECORD_BYTES_MAX`],
//!   [`SLOT_BYTES_MAX`].
//!
//! It must not know what records mean, nor anything of consensus.

mod check;
mod error;
mod flusher;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod log;
mod open;
mod segment;
mod slots;

pub use check::{CheckedLog, LogFinding, LogProblem, check};
pub use error::LogError;
pub use log::{Done, FLUSH_BUCKETS, Log, LogOptions, LogStats, RECORD_BYTES_MAX, Record};
pub use open::accept_early_end;
pub use slots::{SLOT_BYTES_MAX, Slot};
