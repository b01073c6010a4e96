//! What begins a connection: a hello that says who speaks to whom, and why; a welcome, or why not.
//!
//! The beginning of a hello and of its refusal is the same in all versions.

use std::net::SocketAddr;

use bytes::BufMut;

use super::HELLO;
use super::UNFIT;
use super::WELCOME;
use super::open;
use super::put_reason;
use super::reason;
use crate::codec;
use crate::codec::DecodeError;
use crate::codec::Reader;
use crate::net::frame::Frame;
use crate::net::frame::WireError;

/// First bytes of every connection.
const MAGIC: &[u8; 4] = b"HVNC";

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
    /// Where the sender listens for its peers; `None` from a machine that joins.
    pub(crate) listens: Option<SocketAddr>,
    /// The number that the sender's process drew when it started: tells it from others of the same node.
    pub(crate) process: u64,
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
    let listens = hello.listens.map_or_else(String::new, |at| at.to_string());
    codec::put_text(out, &listens);
    out.put_u64_le(hello.process);
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
    let listens = codec::get_text(&mut r)?;
    let process = r.u64()?;
    r.end()?;
    let listens = match listens.is_empty() {
        true => None,
        false => Some(
            listens
                .parse()
                .map_err(|_| DecodeError::Invalid("a place that is no address"))?,
        ),
    };
    Ok(Hello {
        version,
        cluster,
        from,
        to,
        purpose,
        listens,
        process,
    })
}

/// Why a hello is refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Other = 0,
    Version = 1,
    /// The sender is no member any more.
    Removed = 2,
    /// Another process is that node, or the cluster knows it elsewhere.
    Stray = 3,
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
        3 => Fault::Stray,
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
