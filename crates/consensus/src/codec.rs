//! Bytes for log ids, votes, members and entries: the same on disk, in positions and between nodes.
//!
//! All integers are little endian. Every decoder is bounded by its input and by named limits, and
//! refuses left-over bytes where a value must fill its place.
//!
//! It must not know where the bytes come from or go to.

use std::collections::BTreeSet;

use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use openraft::EntryPayload;
use openraft::vote::RaftLeaderId;

use crate::types::Command;
use crate::types::Entry;
use crate::types::LeaderId;
use crate::types::LogId;
use crate::types::Members;
use crate::types::Membership;
use crate::types::Payload;
use crate::types::SnapshotMeta;
use crate::types::Vote;
use crate::types::log_id;

/// Version of entry headers, votes and positions on disk.
const FORMAT: u8 = 1;

/// Members of a cluster, and of each side of a membership change.
const MEMBERS_MAX: u32 = 64;

/// Sides of a membership change (old and new).
const SIDES_MAX: u32 = 2;

const KIND_BLANK: u8 = 0;
const KIND_COMMAND: u8 = 1;
const KIND_MEMBERS: u8 = 2;

/// Bytes that do not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("it ends too early")]
    Short,
    #[error("{0} bytes follow the end")]
    Excess(usize),
    #[error("unknown {what} {value}")]
    Unknown { what: &'static str, value: u8 },
    #[error("{what} {value} is above {max}")]
    TooMany {
        what: &'static str,
        value: u32,
        max: u32,
    },
    #[error("{0}")]
    Invalid(&'static str),
}

/// A bounded cursor over received or stored bytes.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(DecodeError::Short)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Short)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Unknown {
                what: "flag",
                value,
            }),
        }
    }

    pub(crate) fn count(&mut self, what: &'static str, max: u32) -> Result<u32, DecodeError> {
        let value = self.u32()?;
        if value > max {
            return Err(DecodeError::TooMany { what, value, max });
        }
        Ok(value)
    }

    /// A second cursor at the same place.
    pub(crate) fn clone_at(&self) -> Reader<'a> {
        Reader(self.0)
    }

    pub(crate) fn remaining(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(DecodeError::Excess(left)),
        }
    }
}

fn format(r: &mut Reader<'_>) -> Result<(), DecodeError> {
    match r.u8()? {
        FORMAT => Ok(()),
        value => Err(DecodeError::Unknown {
            what: "format version",
            value,
        }),
    }
}

pub(crate) fn put_log_id(out: &mut BytesMut, id: LogId) {
    out.put_u64_le(id.leader_id.term);
    out.put_u64_le(id.index);
}

pub(crate) fn get_log_id(r: &mut Reader<'_>) -> Result<LogId, DecodeError> {
    let term = r.u64()?;
    Ok(log_id(term, r.u64()?))
}

pub(crate) fn put_opt_log_id(out: &mut BytesMut, id: Option<LogId>) {
    out.put_u8(u8::from(id.is_some()));
    if let Some(id) = id {
        put_log_id(out, id);
    }
}

pub(crate) fn get_opt_log_id(r: &mut Reader<'_>) -> Result<Option<LogId>, DecodeError> {
    Ok(if r.bool()? {
        Some(get_log_id(r)?)
    } else {
        None
    })
}

pub(crate) fn put_vote(out: &mut BytesMut, vote: Vote) {
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.put_u8(u8::from(vote.committed));
}

pub(crate) fn get_vote(r: &mut Reader<'_>) -> Result<Vote, DecodeError> {
    let term = r.u64()?;
    let node = r.u64()?;
    Ok(Vote {
        leader_id: LeaderId::new(term, node),
        committed: r.bool()?,
    })
}

fn put_membership(out: &mut BytesMut, members: &Membership) {
    let sides = members.get_joint_config();
    out.put_u32_le(sides.len() as u32);
    for side in sides {
        put_ids(out, side.iter().copied());
    }
    put_ids(out, members.learner_ids());
}

fn put_ids(out: &mut BytesMut, ids: impl Iterator<Item = u64>) {
    let ids: Vec<u64> = ids.collect();
    out.put_u32_le(ids.len() as u32);
    for id in ids {
        out.put_u64_le(id);
    }
}

fn get_ids(r: &mut Reader<'_>) -> Result<BTreeSet<u64>, DecodeError> {
    let count = r.count("number of members", MEMBERS_MAX)?;
    (0..count).map(|_| r.u64()).collect()
}

fn get_membership(r: &mut Reader<'_>) -> Result<Membership, DecodeError> {
    let sides = r.count("number of membership sides", SIDES_MAX)?;
    let sides: Vec<BTreeSet<u64>> = (0..sides).map(|_| get_ids(r)).collect::<Result<_, _>>()?;
    let learners = get_ids(r)?;
    if sides.iter().any(BTreeSet::is_empty) {
        return Err(DecodeError::Invalid("a membership side without voters"));
    }
    let nodes: BTreeSet<u64> = sides.iter().flatten().chain(&learners).copied().collect();
    if sides.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(sides, nodes).map_err(|_| DecodeError::Invalid("a contradictory membership"))
}

fn put_members(out: &mut BytesMut, members: &Members) {
    put_opt_log_id(out, *members.log_id());
    put_membership(out, members.membership());
}

fn get_members(r: &mut Reader<'_>) -> Result<Members, DecodeError> {
    let id = get_opt_log_id(r)?;
    Ok(Members::new(id, get_membership(r)?))
}

/// A value of a log slot: the vote.
pub(crate) fn vote_slot(vote: Vote) -> Vec<u8> {
    let mut out = BytesMut::with_capacity(18);
    out.put_u8(FORMAT);
    put_vote(&mut out, vote);
    out.to_vec()
}

pub(crate) fn read_vote_slot(bytes: &[u8]) -> Result<Vote, DecodeError> {
    let mut r = Reader::new(bytes);
    format(&mut r)?;
    let vote = get_vote(&mut r)?;
    r.end()?;
    Ok(vote)
}

/// A value of a log slot: a term.
pub(crate) fn term_slot(term: u64) -> Vec<u8> {
    let mut out = BytesMut::with_capacity(9);
    out.put_u8(FORMAT);
    out.put_u64_le(term);
    out.to_vec()
}

pub(crate) fn read_term_slot(bytes: &[u8]) -> Result<u64, DecodeError> {
    let mut r = Reader::new(bytes);
    format(&mut r)?;
    let term = r.u64()?;
    r.end()?;
    Ok(term)
}

/// A value of a log slot: a log id (purge point, committed).
pub(crate) fn log_id_slot(id: LogId) -> Vec<u8> {
    let mut out = BytesMut::with_capacity(17);
    out.put_u8(FORMAT);
    put_log_id(&mut out, id);
    out.to_vec()
}

pub(crate) fn read_log_id_slot(bytes: &[u8]) -> Result<LogId, DecodeError> {
    let mut r = Reader::new(bytes);
    format(&mut r)?;
    let id = get_log_id(&mut r)?;
    r.end()?;
    Ok(id)
}

/// The position blob a machine keeps: last applied entry and the members as of it.
pub(crate) fn position(applied: Option<LogId>, members: &Members) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    out.put_u8(FORMAT);
    put_opt_log_id(&mut out, applied);
    put_members(&mut out, members);
    out.freeze()
}

pub(crate) fn read_position(bytes: &[u8]) -> Result<SnapshotMeta, DecodeError> {
    let mut r = Reader::new(bytes);
    format(&mut r)?;
    let last_log_id = get_opt_log_id(&mut r)?;
    let last_membership = get_members(&mut r)?;
    r.end()?;
    Ok(SnapshotMeta {
        last_log_id,
        last_membership,
    })
}

/// Length of an entry's header: format, kind, term.
pub(crate) const HEAD_LEN: usize = 10;

/// An entry as header and body. The body of a command is its payload, not copied.
pub(crate) fn split_entry(entry: &Entry) -> ([u8; HEAD_LEN], Bytes) {
    let (kind, body) = match &entry.payload {
        EntryPayload::Blank => (KIND_BLANK, Bytes::new()),
        EntryPayload::Normal(command) => (KIND_COMMAND, command.0.clone()),
        EntryPayload::Membership(members) => {
            let mut out = BytesMut::with_capacity(64);
            put_membership(&mut out, members);
            (KIND_MEMBERS, out.freeze())
        }
    };
    let mut head = [0; HEAD_LEN];
    head[0] = FORMAT;
    head[1] = kind;
    head[2..].copy_from_slice(&entry.log_id.leader_id.term.to_le_bytes());
    (head, body)
}

/// The entry at `index` from its header and body.
pub(crate) fn join_entry(index: u64, head: &[u8], body: Bytes) -> Result<Entry, DecodeError> {
    let mut r = Reader::new(head);
    format(&mut r)?;
    let kind = r.u8()?;
    let term = r.u64()?;
    r.end()?;
    Ok(Entry {
        log_id: log_id(term, index),
        payload: payload(kind, body)?,
    })
}

fn payload(kind: u8, body: Bytes) -> Result<Payload, DecodeError> {
    match kind {
        KIND_BLANK if body.is_empty() => Ok(EntryPayload::Blank),
        KIND_BLANK => Err(DecodeError::Excess(body.len())),
        KIND_COMMAND => Ok(EntryPayload::Normal(Command(body))),
        KIND_MEMBERS => {
            let mut r = Reader::new(&body);
            let members = get_membership(&mut r)?;
            r.end()?;
            Ok(EntryPayload::Membership(members))
        }
        value => Err(DecodeError::Unknown {
            what: "entry kind",
            value,
        }),
    }
}

/// The term in an entry's header.
pub(crate) fn head_term(head: &[u8]) -> Result<u64, DecodeError> {
    let mut r = Reader::new(head);
    format(&mut r)?;
    r.u8()?;
    let term = r.u64()?;
    r.end()?;
    Ok(term)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Membership {
        let voters = BTreeSet::from([1, 2, 3]);
        let nodes = BTreeSet::from([1, 2, 3, 9]);
        Membership::new(vec![voters], nodes).unwrap()
    }

    #[test]
    fn entries_come_back() {
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Command(Bytes::from_static(b"write"))),
            EntryPayload::Membership(members()),
        ];
        for payload in payloads {
            let shown = format!("{payload:?}");
            let entry = Entry {
                log_id: log_id(7, 42),
                payload,
            };
            let (head, body) = split_entry(&entry);
            let back = join_entry(42, &head, body.clone()).unwrap();
            assert_eq!(back.log_id, entry.log_id);
            assert_eq!(format!("{:?}", back.payload), shown);
            assert_eq!(split_entry(&back).1, body);
            assert_eq!(head_term(&head), Ok(7));
        }
    }

    #[test]
    fn command_payload_is_not_copied() {
        let bytes = Bytes::from(vec![7u8; 100]);
        let at = bytes.as_ptr();
        let entry = Entry {
            log_id: log_id(1, 1),
            payload: EntryPayload::Normal(Command(bytes)),
        };
        assert_eq!(split_entry(&entry).1.as_ptr(), at);
    }

    #[test]
    fn positions_come_back_and_damage_is_refused() {
        let stored = Members::new(Some(log_id(0, 0)), members());
        let blob = position(Some(log_id(3, 12)), &stored);
        let meta = read_position(&blob).unwrap();
        assert_eq!(meta.last_log_id, Some(log_id(3, 12)));
        assert_eq!(meta.last_membership, stored);
        for cut in 0..blob.len() {
            assert!(read_position(&blob[..cut]).is_err(), "cut at {cut}");
        }
        let mut long = blob.to_vec();
        long.push(0);
        assert_eq!(read_position(&long), Err(DecodeError::Excess(1)));
    }

    #[test]
    fn huge_counts_are_refused_before_memory_is_taken() {
        let mut out = BytesMut::new();
        out.put_u32_le(1);
        out.put_u32_le(u32::MAX);
        let err = get_membership(&mut Reader::new(&out)).unwrap_err();
        assert!(matches!(err, DecodeError::TooMany { .. }), "{err}");
    }

    #[test]
    fn votes_and_ids_come_back_from_slots() {
        let vote = Vote {
            leader_id: LeaderId::new(9, 2),
            committed: true,
        };
        assert_eq!(read_vote_slot(&vote_slot(vote)), Ok(vote));
        assert_eq!(
            read_log_id_slot(&log_id_slot(log_id(9, 8))),
            Ok(log_id(9, 8))
        );
        assert!(read_vote_slot(&[2; 18]).is_err());
    }
}
