//! Bytes for log ids, votes, members and entries: the same on disk, in positions and between nodes.
//!
//! All integers are little endian. Every decoder is bounded by its input and by named limits, and
//! refuses left-over bytes where a value must fill its place.
//!
//! It must not know where the bytes come from or go to.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use haven_pki::KeyId;
use haven_pki::SecretHash;
use openraft::EntryPayload;
use openraft::vote::RaftLeaderId;

use crate::roster::Book;
use crate::roster::Entitlement;
use crate::roster::Record;
use crate::roster::TOKENS_MAX;
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

/// Version of positions that tell who the members are, where version 1 had only their ids.
const FORMAT_NAMED: u8 = 2;

/// Members of a cluster, and of each side of a membership change.
const MEMBERS_MAX: u32 = 64;

/// Sides of a membership change (old and new).
const SIDES_MAX: u32 = 2;

const KIND_BLANK: u8 = 0;
const KIND_COMMAND: u8 = 1;
/// Members by their ids: no longer written.
const KIND_IDS: u8 = 2;
const KIND_MEMBERS: u8 = 3;

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
        out.put_u32_le(side.len() as u32);
        for id in side {
            out.put_u64_le(*id);
        }
    }
    out.put_u32_le(members.nodes().count() as u32);
    for (id, record) in members.nodes() {
        out.put_u64_le(*id);
        put_record(out, record);
    }
}

fn get_ids(r: &mut Reader<'_>) -> Result<BTreeSet<u64>, DecodeError> {
    let count = r.count("number of members", MEMBERS_MAX)?;
    (0..count).map(|_| r.u64()).collect()
}

fn get_sides(r: &mut Reader<'_>) -> Result<Vec<BTreeSet<u64>>, DecodeError> {
    let sides = r.count("number of membership sides", SIDES_MAX)?;
    let sides: Vec<BTreeSet<u64>> = (0..sides).map(|_| get_ids(r)).collect::<Result<_, _>>()?;
    if sides.iter().any(BTreeSet::is_empty) {
        return Err(DecodeError::Invalid("a membership side without voters"));
    }
    Ok(sides)
}

fn get_membership(r: &mut Reader<'_>) -> Result<Membership, DecodeError> {
    let sides = get_sides(r)?;
    let count = r.count("number of members", MEMBERS_MAX)?;
    let mut nodes = BTreeMap::new();
    for _ in 0..count {
        nodes.insert(r.u64()?, get_record(r)?);
    }
    membership(sides, nodes)
}

/// Members of whom only the ids were written: voters, then learners.
fn get_membership_ids(r: &mut Reader<'_>) -> Result<Membership, DecodeError> {
    let sides = get_sides(r)?;
    let learners = get_ids(r)?;
    let ids = sides.iter().flatten().chain(&learners);
    let nodes = ids.map(|id| (*id, Record::default())).collect();
    membership(sides, nodes)
}

fn membership(
    sides: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, Record>,
) -> Result<Membership, DecodeError> {
    if sides.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(sides, nodes).map_err(|_| DecodeError::Invalid("a contradictory membership"))
}

/// Text with its length, at most 255 bytes.
pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    let mut len = text.len().min(usize::from(u8::MAX));
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    out.put_u8(len as u8);
    out.put_slice(&text.as_bytes()[..len]);
}

pub(crate) fn get_text(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    let len = usize::from(r.u8()?);
    let text = std::str::from_utf8(r.take(len)?);
    Ok(text
        .map_err(|_| DecodeError::Invalid("text that is none"))?
        .to_owned())
}

pub(crate) fn get_address(r: &mut Reader<'_>) -> Result<SocketAddr, DecodeError> {
    let text = get_text(r)?;
    text.parse()
        .map_err(|_| DecodeError::Invalid("an address that is none"))
}

pub(crate) fn get_hash(r: &mut Reader<'_>) -> Result<[u8; 32], DecodeError> {
    r.array()
}

fn put_record(out: &mut BytesMut, record: &Record) {
    put_text(out, &record.name);
    put_text(
        out,
        &record.address.map_or_else(String::new, |a| a.to_string()),
    );
    out.put_u8(u8::from(record.key.is_some()));
    if let Some(key) = record.key {
        out.put_slice(&key.0);
    }
    out.put_u8(u8::from(record.leaving));
    out.put_u8(u8::from(record.book.is_some()));
    if let Some(book) = &record.book {
        put_book(out, book);
    }
}

fn get_record(r: &mut Reader<'_>) -> Result<Record, DecodeError> {
    let name = get_text(r)?;
    let address = match r.clone_at().u8()? {
        0 => {
            r.u8()?;
            None
        }
        _ => Some(get_address(r)?),
    };
    let key = match r.bool()? {
        true => Some(KeyId(r.array()?)),
        false => None,
    };
    let leaving = r.bool()?;
    let book = match r.bool()? {
        true => Some(get_book(r)?),
        false => None,
    };
    Ok(Record {
        name,
        address,
        key,
        leaving,
        book,
    })
}

fn put_book(out: &mut BytesMut, book: &Book) {
    out.put_u64_le(book.next_id);
    out.put_u32_le(book.tokens.len() as u32);
    for (hash, token) in &book.tokens {
        out.put_slice(&hash.0);
        out.put_u64_le(token.expires);
        out.put_u8(u8::from(token.used.is_some()));
        if let Some((id, key)) = token.used {
            out.put_u64_le(id);
            out.put_slice(&key.0);
        }
    }
}

fn get_book(r: &mut Reader<'_>) -> Result<Book, DecodeError> {
    let next_id = r.u64()?;
    let count = r.count("number of tokens", TOKENS_MAX as u32)?;
    let mut tokens = BTreeMap::new();
    for _ in 0..count {
        let hash = SecretHash(r.array()?);
        let expires = r.u64()?;
        let used = match r.bool()? {
            true => Some((r.u64()?, KeyId(r.array()?))),
            false => None,
        };
        tokens.insert(hash, Entitlement { expires, used });
    }
    Ok(Book { next_id, tokens })
}

fn put_members(out: &mut BytesMut, members: &Members) {
    put_opt_log_id(out, *members.log_id());
    put_membership(out, members.membership());
}

fn get_members(r: &mut Reader<'_>, named: bool) -> Result<Members, DecodeError> {
    let id = get_opt_log_id(r)?;
    let membership = match named {
        true => get_membership(r)?,
        false => get_membership_ids(r)?,
    };
    Ok(Members::new(id, membership))
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
    let mut out = BytesMut::with_capacity(512);
    out.put_u8(FORMAT_NAMED);
    put_opt_log_id(&mut out, applied);
    put_members(&mut out, members);
    out.freeze()
}

pub(crate) fn read_position(bytes: &[u8]) -> Result<SnapshotMeta, DecodeError> {
    let mut r = Reader::new(bytes);
    let named = match r.u8()? {
        FORMAT => false,
        FORMAT_NAMED => true,
        value => {
            return Err(DecodeError::Unknown {
                what: "format version",
                value,
            });
        }
    };
    let last_log_id = get_opt_log_id(&mut r)?;
    let last_membership = get_members(&mut r, named)?;
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
        KIND_MEMBERS | KIND_IDS => {
            let mut r = Reader::new(&body);
            let members = match kind {
                KIND_MEMBERS => get_membership(&mut r)?,
                _ => get_membership_ids(&mut r)?,
            };
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
        let used = Some((2, KeyId([5; 32])));
        let token = |n: u8, used| (SecretHash([n; 32]), Entitlement { expires: 77, used });
        let first = Record {
            name: "a".into(),
            address: Some("[2001:db8::1]:7400".parse().unwrap()),
            key: Some(KeyId([3; 32])),
            leaving: true,
            book: Some(Book {
                next_id: 12,
                tokens: [token(1, None), token(2, used)].into(),
            }),
        };
        let others = [2, 3, 9].map(|id| (id, Record::default()));
        let nodes = BTreeMap::from([(1, first)]).into_iter().chain(others);
        Membership::new(vec![voters], nodes.collect::<BTreeMap<_, _>>()).unwrap()
    }

    #[test]
    fn members_written_by_their_ids_are_still_read() {
        // One side of the voters 1 and 2, and learner 9.
        let mut ids = BytesMut::new();
        for n in [1, 2] {
            ids.put_u32_le(n);
        }
        for id in [1, 2] {
            ids.put_u64_le(id);
        }
        ids.put_u32_le(1);
        ids.put_u64_le(9);
        let mut head = [0; HEAD_LEN];
        (head[0], head[1]) = (FORMAT, KIND_IDS);
        let entry = join_entry(4, &head, ids.clone().freeze()).unwrap();
        let EntryPayload::Membership(found) = entry.payload else {
            panic!("{entry:?}");
        };
        assert!(found.voter_ids().eq([1, 2]) && found.learner_ids().eq([9]));
        let mut blob = BytesMut::new();
        blob.put_u8(FORMAT);
        put_opt_log_id(&mut blob, Some(log_id(3, 12)));
        put_opt_log_id(&mut blob, Some(log_id(0, 0)));
        blob.put_slice(&ids);
        let meta = read_position(&blob).unwrap();
        assert_eq!(meta.last_membership.membership(), &found);
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
