//! Appends and their answers.
//!
//! An append carries the headers of its entries first and their bodies after, so that the bodies can
//! be sent from where they lie and sliced from what was received.

use bytes::BufMut;
use bytes::Bytes;
use openraft::raft::StreamAppendError;

use super::APPEND;
use super::APPEND_ENTRIES_MAX;
use super::APPENDED;
use super::INDEX_MAX;
use super::leader_vote;
use super::open;
use crate::codec;
use crate::codec::DecodeError;
use crate::net::frame::Frame;
use crate::net::frame::WireError;
use crate::types::AppendRequest;
use crate::types::AppendResult;
use crate::types::next_index;

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
