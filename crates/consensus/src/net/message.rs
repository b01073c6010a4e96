//! The messages in frames: first byte the kind, then its fields.
//!
//! An append carries the headers of its entries first and their bodies after, so that the bodies can
//! be sent from where they lie and sliced from what was received.
//!
//! Everything openraft would assert about a message is checked here, because a peer's mistake must not
//! stop this node.
//!
//! It must not know connections.

use bytes::BufMut;
use bytes::Bytes;
use openraft::raft::StreamAppendError;

use crate::Wanted;
use crate::codec;
use crate::codec::DecodeError;
use crate::codec::Reader;
use crate::net::frame::Frame;
use crate::net::frame::WireError;
use crate::options::BASE_BYTES_MAX;
use crate::options::ENTRY_BYTES_MAX;
use crate::options::HINT_BYTES_MAX;
use crate::store::MESSAGE_BYTES_MAX;
use crate::types::AppendRequest;
use crate::types::AppendResult;
use crate::types::LogId;
use crate::types::SnapshotMeta;
use crate::types::TransferRequest;
use crate::types::Vote;
use crate::types::VoteRequest;
use crate::types::VoteResponse;
use crate::types::next_index;

/// First bytes of every connection.
const MAGIC: &[u8; 4] = b"HVNC";

/// Version of everything in this module but the beginning of a hello and of its refusal, which are the same in
/// all versions. Another version is refused. Version 1 was that of nodes without TLS, version 2 that of nodes
/// that sent each other whole snapshots only.
pub const PROTOCOL_VERSION: u32 = 3;

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

/// Body limit of what a machine that wants to join says.
pub(crate) const JOIN_BODY_MAX: usize = 16 << 10;

/// Body limit of what it is told: configuration included.
pub(crate) const JOINED_BODY_MAX: usize = 4 << 20;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Entries,
    Heartbeats,
    Votes,
    Snapshot,
    Hints,
    /// What a member asks of the leader: to change who belongs to the cluster.
    Affairs,
    /// A machine without a certificate wants one.
    Join,
    /// A member wants to talk to another's host.
    Visit,
}

impl Purpose {
    pub(crate) const ALL: [Purpose; 8] = [
        Self::Affairs,
        Self::Join,
        Self::Entries,
        Self::Heartbeats,
        Self::Votes,
        Self::Snapshot,
        Self::Hints,
        Self::Visit,
    ];

    fn from_u8(value: u8) -> Result<Self, DecodeError> {
        let found = Self::ALL
            .into_iter()
            .find(|purpose| *purpose as u8 == value);
        found.ok_or(DecodeError::Unknown {
            what: "connection purpose",
            value,
        })
    }
}

/// The first message on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    /// The cluster's id; empty from a machine that joins.
    pub(crate) cluster: String,
    /// 0 from a machine that joins.
    pub(crate) from: u64,
    /// 0 for whoever is there.
    pub(crate) to: u64,
    pub(crate) purpose: Purpose,
}

/// What may come on a votes connection.
#[derive(Debug)]
pub(crate) enum Ballot {
    Vote(VoteRequest),
    PreVote(VoteRequest),
    Transfer(TransferRequest),
}

/// What may come on a snapshot connection.
#[derive(Debug)]
pub(crate) enum SnapshotPart {
    Begin { vote: Vote, meta: Box<SnapshotMeta> },
    Chunk(Bytes),
    Last,
}

pub(crate) fn open<'a>(body: &'a [u8], kind: u8) -> Result<Reader<'a>, WireError> {
    let mut r = Reader::new(body);
    match r.u8()? {
        found if found == kind => Ok(r),
        REFUSED => Err(WireError::Refused(reason(&mut r)?)),
        found => Err(WireError::Unexpected(found)),
    }
}

pub(crate) fn hello(hello: &Hello) -> Frame {
    let mut frame = Frame::of_kind(HELLO);
    let out = &mut frame.head;
    // The same in all versions:
    out.put_slice(MAGIC);
    out.put_u32_le(hello.version);
    out.put_u64_le(hello.from);
    // Of this version:
    out.put_u64_le(hello.to);
    out.put_u8(hello.purpose as u8);
    codec::put_text(out, &hello.cluster);
    frame
}

/// The version and the sender in a hello of any version.
pub(crate) fn read_greeting(body: &[u8]) -> Result<(u32, u64), WireError> {
    let (version, from, _) = greeting(body)?;
    Ok((version, from))
}

fn greeting(body: &[u8]) -> Result<(u32, u64, Reader<'_>), WireError> {
    let mut r = open(body, HELLO)?;
    if r.take(MAGIC.len())? != MAGIC {
        return Err(WireError::Peer("not a Haven node"));
    }
    let (version, from) = (r.u32()?, r.u64()?);
    Ok((version, from, r))
}

/// Decodes a hello of a version that [`read_greeting`] found to be ours.
pub(crate) fn read_hello(body: &[u8]) -> Result<Hello, WireError> {
    let (version, from, mut r) = greeting(body)?;
    let to = r.u64()?;
    let purpose = Purpose::from_u8(r.u8()?)?;
    let cluster = codec::get_text(&mut r)?;
    r.end()?;
    Ok(Hello {
        version,
        cluster,
        from,
        to,
        purpose,
    })
}

/// Why a hello is refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Other = 0,
    Version = 1,
    /// The sender is no member any more.
    Removed = 2,
}

/// The refusal of a hello, the same in all versions.
pub(crate) fn unfit(version: u32, fault: Fault, reason: &str) -> Frame {
    let mut frame = Frame::of_kind(UNFIT);
    frame.head.put_u32_le(version);
    frame.head.put_u8(fault as u8);
    put_reason(&mut frame, reason);
    frame
}

/// The answer to a hello: a welcome, or the other's version, what it minds, and its words.
pub(crate) fn read_reception(body: &[u8]) -> Result<Result<(), (u32, Fault, String)>, WireError> {
    if body.first() != Some(&UNFIT) {
        return read_welcome(body).map(Ok);
    }
    let mut r = open(body, UNFIT)?;
    let version = r.u32()?;
    let fault = match r.u8()? {
        1 => Fault::Version,
        2 => Fault::Removed,
        _ => Fault::Other,
    };
    Ok(Err((version, fault, reason(&mut r)?)))
}

pub(crate) fn welcome() -> Frame {
    Frame::of_kind(WELCOME)
}

pub(crate) fn read_welcome(body: &[u8]) -> Result<(), WireError> {
    Ok(open(body, WELCOME)?.end()?)
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

pub(crate) fn append(request: &AppendRequest) -> Frame {
    let mut frame = Frame::of_kind(APPEND);
    let out = &mut frame.head;
    codec::put_vote(out, request.vote);
    codec::put_opt_log_id(out, request.prev_log_id);
    codec::put_opt_log_id(out, request.leader_commit);
    out.put_u32_le(request.entries.len() as u32);
    for entry in &request.entries {
        let (head, body) = codec::split_entry(entry);
        out.put_slice(&head);
        out.put_u32_le(body.len() as u32);
        frame.parts.push(body);
    }
    frame
}

/// Decodes an append of node `from`. Bodies are slices of `body`.
pub(crate) fn read_append(from: u64, body: &Bytes) -> Result<AppendRequest, WireError> {
    let mut r = open(body, APPEND)?;
    let vote = leader_vote(from, &mut r)?;
    let prev_log_id = codec::get_opt_log_id(&mut r)?;
    let leader_commit = codec::get_opt_log_id(&mut r)?;
    let count = r.count("number of entries", APPEND_ENTRIES_MAX)?;
    let mut heads = r.clone_at();
    r.take(count as usize * (codec::HEAD_LEN + 4))?;
    let mut at = body.len() - r.remaining();
    let mut entries = Vec::with_capacity(count as usize);
    let first = next_index(prev_log_id);
    let mut term = prev_log_id.map_or(0, |id| id.leader_id.term);
    for index in first..first.saturating_add(u64::from(count)) {
        let head = heads.take(codec::HEAD_LEN)?;
        let len = heads.u32()? as usize;
        if len > body.len() - at {
            return Err(DecodeError::Short.into());
        }
        let entry = codec::join_entry(index, head, body.slice(at..at + len))?;
        if entry.log_id.leader_id.term < term {
            return Err(DecodeError::Invalid("entries out of order").into());
        }
        term = entry.log_id.leader_id.term;
        at += len;
        entries.push(entry);
    }
    if first > INDEX_MAX {
        return Err(DecodeError::Invalid("an index that cannot be").into());
    }
    if at != body.len() {
        return Err(DecodeError::Excess(body.len() - at).into());
    }
    let newest = term.max(leader_commit.map_or(0, |id| id.leader_id.term));
    if newest > vote.leader_id.term {
        return Err(DecodeError::Invalid("entries of a later term than their leader's").into());
    }
    Ok(AppendRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
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

pub(crate) fn appended(result: &AppendResult) -> Frame {
    let mut frame = Frame::of_kind(APPENDED);
    let out = &mut frame.head;
    match result {
        Ok(matched) => {
            out.put_u8(0);
            codec::put_opt_log_id(out, *matched);
        }
        Err(StreamAppendError::Conflict(id)) => {
            out.put_u8(1);
            codec::put_log_id(out, *id);
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            out.put_u8(2);
            codec::put_vote(out, *vote);
        }
    }
    frame
}

pub(crate) fn read_appended(body: &[u8]) -> Result<AppendResult, WireError> {
    let mut r = open(body, APPENDED)?;
    let result = match r.u8()? {
        0 => Ok(codec::get_opt_log_id(&mut r)?),
        1 => Err(StreamAppendError::Conflict(codec::get_log_id(&mut r)?)),
        2 => Err(StreamAppendError::HigherVote(codec::get_vote(&mut r)?)),
        value => {
            return Err(DecodeError::Unknown {
                what: "append result",
                value,
            }
            .into());
        }
    };
    r.end()?;
    Ok(result)
}

pub(crate) fn vote(request: &VoteRequest, pre: bool) -> Frame {
    let mut frame = Frame::of_kind(if pre { PRE_VOTE } else { VOTE });
    let out = &mut frame.head;
    codec::put_vote(out, request.vote);
    codec::put_opt_log_id(out, request.last_log_id);
    out.put_u8(u8::from(request.leadership_transfer));
    frame
}

pub(crate) fn transfer(request: &TransferRequest) -> Frame {
    let mut frame = Frame::of_kind(TRANSFER);
    let out = &mut frame.head;
    codec::put_vote(out, *request.from_leader());
    out.put_u64_le(*request.to_node_id());
    codec::put_opt_log_id(out, request.last_log_id().copied());
    frame
}

/// Decodes what node `from` asks on a votes connection.
pub(crate) fn read_ballot(from: u64, body: &[u8]) -> Result<Ballot, WireError> {
    let mut r = Reader::new(body);
    let ballot = match r.u8()? {
        VOTE => Ballot::Vote(read_vote(from, &mut r)?),
        PRE_VOTE => Ballot::PreVote(read_vote(from, &mut r)?),
        TRANSFER => {
            let vote = leader_vote(from, &mut r)?;
            let to = r.u64()?;
            Ballot::Transfer(TransferRequest::new(
                vote,
                to,
                codec::get_opt_log_id(&mut r)?,
            ))
        }
        kind => return Err(WireError::Unexpected(kind)),
    };
    r.end()?;
    Ok(ballot)
}

fn read_vote(from: u64, r: &mut Reader<'_>) -> Result<VoteRequest, DecodeError> {
    let vote = codec::get_vote(r)?;
    if vote.committed || vote.leader_id.voted_for != from {
        return Err(DecodeError::Invalid(
            "a candidate's message for another node",
        ));
    }
    let last_log_id = codec::get_opt_log_id(r)?;
    if last_log_id.is_some_and(|id| id.leader_id.term > vote.leader_id.term) {
        return Err(DecodeError::Invalid(
            "a candidate with entries of a later term",
        ));
    }
    let mut request = VoteRequest::new(vote, last_log_id);
    request.leadership_transfer = r.bool()?;
    Ok(request)
}

pub(crate) fn voted(response: &VoteResponse) -> Frame {
    let mut frame = Frame::of_kind(VOTED);
    let out = &mut frame.head;
    codec::put_vote(out, response.vote);
    out.put_u8(u8::from(response.vote_granted));
    codec::put_opt_log_id(out, response.last_log_id);
    frame
}

pub(crate) fn read_voted(body: &[u8]) -> Result<VoteResponse, WireError> {
    let mut r = open(body, VOTED)?;
    let vote = codec::get_vote(&mut r)?;
    let granted = r.bool()?;
    let last: Option<LogId> = codec::get_opt_log_id(&mut r)?;
    r.end()?;
    Ok(VoteResponse::new(vote, last, granted))
}

/// The answer to a transfer that was passed on; one that was not is refused.
pub(crate) fn taken() -> Frame {
    Frame::of_kind(TAKEN)
}

pub(crate) fn read_taken(body: &[u8]) -> Result<(), WireError> {
    Ok(open(body, TAKEN)?.end()?)
}

pub(crate) fn snapshot(vote: Vote, position: &Bytes) -> Frame {
    let mut frame = Frame::of_kind(SNAPSHOT);
    codec::put_vote(&mut frame.head, vote);
    frame.parts.push(position.clone());
    frame
}

pub(crate) fn chunk(bytes: Bytes) -> Result<Frame, WireError> {
    let (len, max) = (bytes.len(), CHUNK_BYTES_MAX);
    if len > max {
        return Err(WireError::TooLong { len, max });
    }
    let mut frame = Frame::of_kind(CHUNK);
    frame.parts.push(bytes);
    Ok(frame)
}

pub(crate) fn last() -> Frame {
    Frame::of_kind(LAST)
}

/// Decodes what node `from` sends of a snapshot.
pub(crate) fn read_snapshot(from: u64, body: &Bytes) -> Result<SnapshotPart, WireError> {
    let mut r = Reader::new(body);
    match r.u8()? {
        SNAPSHOT => {
            let vote = leader_vote(from, &mut r)?;
            let meta = codec::read_position(r.take(r.remaining())?)?;
            let term = meta
                .last_log_id
                .ok_or(DecodeError::Invalid("an empty snapshot"))?
                .leader_id
                .term;
            if term > vote.leader_id.term {
                return Err(DecodeError::Invalid("a snapshot of a later term").into());
            }
            Ok(SnapshotPart::Begin {
                vote,
                meta: Box::new(meta),
            })
        }
        CHUNK => Ok(SnapshotPart::Chunk(body.slice(1..))),
        LAST => {
            r.end()?;
            Ok(SnapshotPart::Last)
        }
        kind => Err(WireError::Unexpected(kind)),
    }
}

pub(crate) fn installed(vote: Vote) -> Frame {
    let mut frame = Frame::of_kind(INSTALLED);
    codec::put_vote(&mut frame.head, vote);
    frame
}

pub(crate) fn read_installed(body: &[u8]) -> Result<Vote, WireError> {
    let mut r = open(body, INSTALLED)?;
    let vote = codec::get_vote(&mut r)?;
    r.end()?;
    Ok(vote)
}

/// The answer to the beginning of a snapshot: what the receiver needs of it.
pub(crate) fn wanted(wanted: &Wanted) -> Frame {
    let mut frame = Frame::of_kind(WANTED);
    match wanted {
        Wanted::Everything => frame.head.put_u8(0),
        Wanted::Since(base) => {
            frame.head.put_u8(1);
            frame.parts.push(base.clone());
        }
        Wanted::Position => frame.head.put_u8(2),
    }
    frame
}

pub(crate) fn read_wanted(body: &[u8]) -> Result<Wanted, WireError> {
    let mut r = open(body, WANTED)?;
    let wanted = match r.u8()? {
        0 => Wanted::Everything,
        1 if r.remaining() <= BASE_BYTES_MAX => {
            return Ok(Wanted::Since(Bytes::copy_from_slice(
                r.take(r.remaining())?,
            )));
        }
        1 => return Err(DecodeError::Invalid("a base that is too long").into()),
        2 => Wanted::Position,
        value => {
            return Err(DecodeError::Unknown {
                what: "part of a snapshot",
                value,
            }
            .into());
        }
    };
    r.end()?;
    Ok(wanted)
}

/// What may come on a connection for hints.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Hint(Bytes),
    Kept(Kept),
}

/// What a node keeps for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The last entry that is durable in its log and known to be committed.
    pub(crate) upto: Option<u64>,
    /// It is a witness.
    pub(crate) witness: bool,
}

pub(crate) fn kept(kept: Kept) -> Frame {
    let mut frame = Frame::of_kind(KEPT);
    frame.head.put_u8(u8::from(kept.witness));
    frame
        .head
        .put_u64_le(kept.upto.map_or(0, |upto| upto.saturating_add(1)));
    frame
}

pub(crate) fn read_told(body: &Bytes) -> Result<Told, WireError> {
    if body.first() != Some(&KEPT) {
        return Ok(Told::Hint(read_hint(body)?));
    }
    let mut r = open(body, KEPT)?;
    let witness = r.bool()?;
    let next = r.u64()?;
    r.end()?;
    let upto = next.checked_sub(1);
    Ok(Told::Kept(Kept { upto, witness }))
}

pub(crate) fn hint(bytes: Bytes) -> Frame {
    let mut frame = Frame::of_kind(HINT);
    frame.parts.push(bytes);
    frame
}

fn read_hint(body: &Bytes) -> Result<Bytes, WireError> {
    open(body, HINT)?;
    // A hint is kept until the next one: do not keep a larger receive buffer alive with it.
    Ok(Bytes::copy_from_slice(&body[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Command;
    use crate::types::Entry;
    use crate::types::LeaderId;
    use crate::types::log_id;
    use openraft::EntryPayload;
    use openraft::vote::RaftLeaderId;

    fn body(frame: Frame) -> Bytes {
        let mut all = frame.head;
        frame.parts.iter().for_each(|part| all.put_slice(part));
        all.freeze()
    }

    fn leader(term: u64, node: u64) -> Vote {
        Vote {
            leader_id: LeaderId::new(term, node),
            committed: true,
        }
    }

    fn request() -> AppendRequest {
        let payload = |text: &'static [u8]| EntryPayload::Normal(Command(Bytes::from_static(text)));
        AppendRequest {
            vote: leader(5, 2),
            prev_log_id: Some(log_id(3, 8)),
            leader_commit: Some(log_id(3, 7)),
            entries: vec![
                Entry {
                    log_id: log_id(4, 9),
                    payload: payload(b"one"),
                },
                Entry {
                    log_id: log_id(5, 10),
                    payload: EntryPayload::Blank,
                },
                Entry {
                    log_id: log_id(5, 11),
                    payload: payload(b"three"),
                },
            ],
        }
    }

    #[test]
    fn appends_come_back_as_slices_of_the_frame() {
        let sent = body(append(&request()));
        let got = read_append(2, &sent).unwrap();
        assert_eq!(format!("{got:?}"), format!("{:?}", request()));
        let EntryPayload::Normal(Command(third)) = &got.entries[2].payload else {
            panic!()
        };
        assert_eq!(&third[..], b"three");
        assert!(sent.as_ptr_range().contains(&third.as_ptr()));
    }

    #[test]
    fn append_of_an_impostor_or_cut_short_is_refused() {
        let sent = body(append(&request()));
        assert!(read_append(3, &sent).is_err());
        for cut in 0..sent.len() {
            assert!(read_append(2, &sent.slice(..cut)).is_err(), "cut at {cut}");
        }
        let mut late = request();
        late.vote = leader(4, 2);
        assert!(
            read_append(2, &body(append(&late))).is_err(),
            "entries of a later term"
        );
        let mut back = request();
        back.entries.swap(0, 2);
        assert!(
            read_append(2, &body(append(&back))).is_err(),
            "terms that fall"
        );
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        for len in 0..400usize {
            let bytes: Bytes = (0..len)
                .map(|i| {
                    seed = seed
                        .wrapping_mul(6364136223846793005)
                        .wrapping_add(1442695040888963407);
                    if i == 0 {
                        (seed >> 60) as u8
                    } else {
                        (seed >> 33) as u8 & 3
                    }
                })
                .collect();
            let _ = read_append(0, &bytes);
            let _ = read_hello(&bytes);
            let _ = read_ballot(0, &bytes);
            let _ = read_snapshot(0, &bytes);
            let _ = read_appended(&bytes);
            let _ = read_voted(&bytes);
            let _ = read_wanted(&bytes);
            let _ = read_told(&bytes);
        }
    }

    #[test]
    fn hellos_come_back_and_foreign_ones_do_not() {
        for purpose in Purpose::ALL {
            let sent = Hello {
                version: PROTOCOL_VERSION,
                cluster: "store-a".into(),
                from: 1,
                to: 2,
                purpose,
            };
            assert_eq!(read_hello(&body(hello(&sent))).unwrap(), sent);
        }
        let sent = Hello {
            version: PROTOCOL_VERSION,
            cluster: "x".into(),
            from: 1,
            to: 2,
            purpose: Purpose::Votes,
        };
        let mut bytes = body(hello(&sent)).to_vec();
        // Of another version only the beginning can be read.
        bytes[5] = 9;
        bytes.truncate(17);
        assert_eq!(read_greeting(&bytes).unwrap(), (9, 1));
        assert!(read_hello(&bytes).is_err());
        bytes[1] = b'X';
        assert!(read_greeting(&bytes).is_err());
        let said = body(unfit(7, Fault::Removed, "go"));
        let heard = read_reception(&said).unwrap();
        assert_eq!(heard, Err((7, Fault::Removed, "go".into())));
        assert_eq!(read_reception(&body(welcome())).unwrap(), Ok(()));
    }

    #[test]
    fn what_is_wanted_and_kept_comes_back() {
        let base = Bytes::from(vec![3; BASE_BYTES_MAX]);
        for sent in [Wanted::Everything, Wanted::Since(base), Wanted::Position] {
            assert_eq!(read_wanted(&body(wanted(&sent))).unwrap(), sent);
        }
        let long = Wanted::Since(Bytes::from(vec![3; BASE_BYTES_MAX + 1]));
        assert!(read_wanted(&body(wanted(&long))).is_err());
        for upto in [None, Some(0), Some(7)] {
            let sent = Kept {
                upto,
                witness: upto.is_some(),
            };
            assert_eq!(read_told(&body(kept(sent))).unwrap(), Told::Kept(sent));
        }
        let sent = Bytes::from_static(b"who is there");
        let told = read_told(&body(hint(sent.clone()))).unwrap();
        assert_eq!(told, Told::Hint(sent));
    }

    #[test]
    fn refusals_replace_any_answer() {
        let bytes = body(refused("starting\nup"));
        let err = read_voted(&bytes).unwrap_err();
        assert_eq!(err.to_string(), "refused by the peer: starting?up");
        assert!(read_welcome(&body(welcome())).is_ok());
    }

    #[test]
    fn answers_come_back() {
        for result in [
            Ok(None),
            Ok(Some(log_id(2, 3))),
            Err(StreamAppendError::Conflict(log_id(2, 3))),
            Err(StreamAppendError::HigherVote(leader(9, 1))),
        ] {
            assert_eq!(read_appended(&body(appended(&result))).unwrap(), result);
        }
        let response = VoteResponse::new(leader(3, 1), Some(log_id(2, 2)), true);
        assert_eq!(read_voted(&body(voted(&response))).unwrap(), response);
        assert_eq!(
            read_installed(&body(installed(leader(3, 1)))).unwrap(),
            leader(3, 1)
        );
    }
}
