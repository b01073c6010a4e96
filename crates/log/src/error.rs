//! What can go wrong with a log. Errors are cloned: one failed flush answers many appends.

use std::io;
use std::sync::Arc;

/// Why a log operation failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The disk refused. When it was a write or a flush, the log takes nothing more (see
    /// [`crate::Log`]): every later operation answers this same error.
    #[error("log: cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// What is on disk is not what was written. Nothing is skipped or repaired here. Never start a node
    /// under its old number on an empty directory instead: it would vote without knowing what it promised.
    #[error("log: {segment} is damaged at byte {offset}: {why}; the log is refused as it is")]
    Damaged {
        /// The file.
        segment: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// Written by a version of the format that this program does not know.
    #[error(
        "log: {file} has format version {found}, this program knows version {known}; use the program \
         version that wrote it, or a newer one"
    )]
    Version {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Records must follow one another.
    #[error("log: record {found} was appended where record {expected} comes next")]
    NotConsecutive {
        /// The index that comes next.
        expected: u64,
        /// The index that came.
        found: u64,
    },
    /// An index outside of what the log holds.
    #[error("log: cannot {what} {index}: the log holds records after {purged} up to {last}")]
    OutOfRange {
        /// What was tried.
        what: &'static str,
        /// The index given.
        index: u64,
        /// The purge point.
        purged: u64,
        /// The last record.
        last: u64,
    },
    /// A record or a slot's contents beyond the limit.
    #[error("log: {what} has {len} bytes, the limit is {max}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The flusher thread ended by a panic (in a completion callback).
    #[error("log: the flusher thread died; the log takes nothing more until it is opened anew")]
    FlusherDied,
}

impl LogError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> LogError {
        |source| LogError::Io {
            what: what.into(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn damaged(segment: &str, offset: u64, why: impl Into<String>) -> LogError {
        LogError::Damaged {
            segment: segment.to_owned(),
            offset,
            why: why.into(),
        }
    }
}
