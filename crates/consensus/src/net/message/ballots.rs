//! Votes, pre-votes and transfers of leadership.

use bytes::BufMut;

use super::PRE_VOTE;
use super::TAKEN;
use super::TRANSFER;
use super::VOTE;
use super::VOTED;
use super::leader_vote;
use super::open;
use crate::codec;
use crate::codec::DecodeError;
use crate::codec::Reader;
use crate::net::frame::Frame;
use crate::net::frame::WireError;
use crate::types::LogId;
use crate::types::TransferRequest;
use crate::types::VoteRequest;
use crate::types::VoteResponse;

/// What may come on a votes connection.
#[derive(Debug)]
pub(crate) enum Ballot {
    Vote(VoteRequest),
    PreVote(VoteRequest),
    Transfer(TransferRequest),
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
