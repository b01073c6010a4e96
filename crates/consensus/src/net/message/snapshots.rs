//! Snapshots: where one stands, what the receiver wants of it, its bytes in chunks.

use bytes::BufMut;
use bytes::Bytes;

use super::CHUNK;
use super::CHUNK_BYTES_MAX;
use super::INSTALLED;
use super::LAST;
use super::SNAPSHOT;
use super::WANTED;
use super::leader_vote;
use super::open;
use crate::Wanted;
use crate::codec;
use crate::codec::DecodeError;
use crate::codec::Reader;
use crate::net::frame::Frame;
use crate::net::frame::WireError;
use crate::options::BASE_BYTES_MAX;
use crate::types::SnapshotMeta;
use crate::types::Vote;

/// What may come on a snapshot connection.
#[derive(Debug)]
pub(crate) enum SnapshotPart {
    Begin { vote: Vote, meta: Box<SnapshotMeta> },
    Chunk(Bytes),
    Last,
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
