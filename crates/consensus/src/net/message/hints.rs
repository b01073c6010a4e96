//! What nodes tell each other besides: hints, posts, and what each keeps for good.

use bytes::BufMut;
use bytes::Bytes;

use super::HINT;
use super::KEPT;
use super::POST;
use super::open;
use crate::codec::DecodeError;
use crate::net::frame::Frame;
use crate::net::frame::WireError;
use crate::options::POST_BYTES_MAX;
use crate::options::TOPICS_MAX;

/// What may come on a connection for hints.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Hint(Bytes),
    Kept(Kept),
    /// A topic, and what is said about it.
    Post(u16, Bytes),
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
    match body.first() {
        Some(&KEPT) => {}
        Some(&POST) => return read_post(body),
        _ => return Ok(Told::Hint(read_hint(body)?)),
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

pub(crate) fn post(topic: u16, bytes: Bytes) -> Frame {
    let mut frame = Frame::of_kind(POST);
    frame.head.put_u16_le(topic);
    frame.parts.push(bytes);
    frame
}

fn read_post(body: &Bytes) -> Result<Told, WireError> {
    let mut r = open(body, POST)?;
    let topic = r.take(2)?;
    let topic = u16::from_le_bytes([topic[0], topic[1]]);
    let rest = r.take(r.remaining())?;
    if topic >= TOPICS_MAX || rest.len() > POST_BYTES_MAX {
        return Err(DecodeError::Invalid("a post beyond what is agreed").into());
    }
    Ok(Told::Post(topic, Bytes::copy_from_slice(rest)))
}
