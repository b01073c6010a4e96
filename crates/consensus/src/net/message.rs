//! The messages in frames: first byte the kind, then its fields.
//!
//! - `greeting`: what begins a connection; `entries`: appends; `ballots`: votes and transfers
//! - `snapshots`: what is sent of a state; `hints`: what is told besides
//!
//! Everything openraft would assert about a message is checked here, because a peer's mistake must not
//! stop this node.
//!
//! It must not know connections.

mod ballots;
mod entries;
mod greeting;
mod hints;
mod snapshots;

use bytes::BufMut;

use crate::codec;
use crate::codec::DecodeError;
use crate::codec::Reader;
use crate::net::frame::Frame;
use crate::net::frame::WireError;
use crate::options::ENTRY_BYTES_MAX;
use crate::options::HINT_BYTES_MAX;
use crate::store::MESSAGE_BYTES_MAX;
use crate::types::Vote;

pub(crate) use ballots::Ballot;
pub(crate) use ballots::read_ballot;
pub(crate) use ballots::read_taken;
pub(crate) use ballots::read_voted;
pub(crate) use ballots::taken;
pub(crate) use ballots::transfer;
pub(crate) use ballots::vote;
pub(crate) use ballots::voted;
pub(crate) use entries::append;
pub(crate) use entries::appended;
pub(crate) use entries::read_append;
pub(crate) use entries::read_appended;
pub(crate) use greeting::Fault;
pub(crate) use greeting::Hello;
pub(crate) use greeting::Purpose;
pub(crate) use greeting::hello;
pub(crate) use greeting::read_greeting;
pub(crate) use greeting::read_hello;
pub(crate) use greeting::read_reception;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use greeting::read_welcome;
pub(crate) use greeting::unfit;
pub(crate) use greeting::welcome;
pub(crate) use hints::Kept;
pub(crate) use hints::Told;
pub(crate) use hints::hint;
pub(crate) use hints::kept;
pub(crate) use hints::post;
pub(crate) use hints::read_told;
pub(crate) use snapshots::SnapshotPart;
pub(crate) use snapshots::chunk;
pub(crate) use snapshots::installed;
pub(crate) use snapshots::last;
pub(crate) use snapshots::read_installed;
pub(crate) use snapshots::read_snapshot;
pub(crate) use snapshots::read_wanted;
pub(crate) use snapshots::snapshot;
pub(crate) use snapshots::wanted;

/// Version of everything in this module but the beginning of a hello and of its refusal, which are the same in
/// all versions. Another version is refused. Version 1 was that of nodes without TLS, version 2 that of nodes
/// that sent each other whole snapshots only, version 3 that of nodes without posts, whose hello did not say which process
/// speaks, and that cannot read entries which say over which connection a request came, version 4 that of nodes that know no
/// feature level that counts blocks: they would end at the entry that raises it.
pub const PROTOCOL_VERSION: u32 = 5;

/// Entries in one append.
pub(crate) const APPEND_ENTRIES_MAX: u32 = 1024;

/// Indices beyond this are a peer's mistake; arithmetic on those below cannot overflow.
const INDEX_MAX: u64 = u64::MAX / 2;

/// Longest reason in a refusal.
const REASON_MAX: usize = 512;

/// Largest snapshot chunk.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Room for everything in a message but its payload.
const OVERHEAD_MAX: usize = 64 << 10;

/// Body limit until the hello was accepted.
pub(crate) const HELLO_BODY_MAX: usize = 1024;

/// Body limit of appends.
pub(crate) const APPEND_BODY_MAX: usize = max(ENTRY_BYTES_MAX, MESSAGE_BYTES_MAX)
    + APPEND_ENTRIES_MAX as usize * (codec::HEAD_LEN + 4)
    + OVERHEAD_MAX;

/// Body limit of snapshot messages.
pub(crate) const SNAPSHOT_BODY_MAX: usize = CHUNK_BYTES_MAX + OVERHEAD_MAX;

/// Body limit of hints.
pub(crate) const HINT_BODY_MAX: usize = HINT_BYTES_MAX + 1;

/// Body limit of answers, votes and transfers.
pub(crate) const SMALL_BODY_MAX: usize = 4096;

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;
const APPEND: u8 = 4;
const APPENDED: u8 = 5;
const VOTE: u8 = 6;
const PRE_VOTE: u8 = 7;
const VOTED: u8 = 8;
const TRANSFER: u8 = 9;
const TAKEN: u8 = 10;
const SNAPSHOT: u8 = 11;
const CHUNK: u8 = 12;
const LAST: u8 = 13;
const INSTALLED: u8 = 14;
const HINT: u8 = 15;
const UNFIT: u8 = 16;
pub(crate) const AFFAIR: u8 = 17;
pub(crate) const SETTLED: u8 = 18;
pub(crate) const JOIN: u8 = 19;
pub(crate) const JOINED: u8 = 20;
const WANTED: u8 = 21;
const KEPT: u8 = 22;
const POST: u8 = 23;

/// Body limit of what a machine that wants to join says.
pub(crate) const JOIN_BODY_MAX: usize = 16 << 10;

/// Body limit of what it is told: configuration included.
pub(crate) const JOINED_BODY_MAX: usize = 4 << 20;

pub(crate) fn open<'a>(body: &'a [u8], kind: u8) -> Result<Reader<'a>, WireError> {
    let mut r = Reader::new(body);
    match r.u8()? {
        found if found == kind => Ok(r),
        REFUSED => Err(WireError::Refused(reason(&mut r)?)),
        found => Err(WireError::Unexpected(found)),
    }
}

/// A refusal, possible in place of any answer.
pub(crate) fn refused(reason: &str) -> Frame {
    let mut frame = Frame::of_kind(REFUSED);
    put_reason(&mut frame, reason);
    frame
}

fn put_reason(frame: &mut Frame, reason: &str) {
    let mut len = reason.len().min(REASON_MAX);
    while !reason.is_char_boundary(len) {
        len -= 1;
    }
    frame.head.put_slice(&reason.as_bytes()[..len]);
}

fn reason(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    let len = r.remaining().min(REASON_MAX);
    // Shown in logs: keep it to one line.
    let text = String::from_utf8_lossy(r.take(len)?);
    Ok(text
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect())
}

/// A vote that only the elected leader `from` may send.
fn leader_vote(from: u64, r: &mut Reader<'_>) -> Result<Vote, DecodeError> {
    let vote = codec::get_vote(r)?;
    if !vote.committed || vote.leader_id.voted_for != from {
        return Err(DecodeError::Invalid(
            "a leader's message from a node that does not lead",
        ));
    }
    Ok(vote)
}

#[cfg(test)]
mod tests;
