//! Entries for fuzzing: everything that decodes what a peer sends or what was stored beside the log.
//!
//! Each function panics if a decoder does, or if something that it took does not come back when it is
//! written again. It must not be part of what ships: it exists with the feature `fuzzing` only.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use bytes::BufMut;
use bytes::Bytes;
use haven_pki::KeyId;
use haven_pki::SecretHash;
use openraft::raft::StreamAppendError;
use openraft::vote::RaftLeaderId;

use crate::Applicant;
use crate::Wanted;
use crate::codec;
use crate::net::affair;
use crate::net::affair::Affair;
use crate::net::frame::Frame;
use crate::net::frame::Inbox;
use crate::net::frame::WireError;
use crate::net::message;
use crate::net::message::Ballot;
use crate::net::message::SnapshotPart;
use crate::net::message::Told;
use crate::roster::Record;
use crate::types::AppendRequest;
use crate::types::Command;
use crate::types::Entry;
use crate::types::LeaderId;
use crate::types::Members;
use crate::types::Membership;
use crate::types::Payload;
use crate::types::TransferRequest;
use crate::types::Vote;
use crate::types::VoteRequest;
use crate::types::VoteResponse;
use crate::types::log_id;

/// Body limit of the frames that are fuzzed: as for a connection whose peer is not known yet.
const BODY_MAX: usize = message::HELLO_BODY_MAX;

/// The bytes of a body.
fn body(frame: Frame) -> Bytes {
    let mut all = frame.head;
    frame.parts.iter().for_each(|part| all.put_slice(part));
    all.freeze()
}

/// What was taken must be taken again when it is written, and mean the same.
fn comes_back<T: Debug>(
    taken: Result<T, WireError>,
    write: impl FnOnce(&T) -> Bytes,
    read: impl FnOnce(&Bytes) -> Result<T, WireError>,
) {
    if let Ok(value) = taken {
        match read(&write(&value)) {
            Ok(again) => assert_eq!(format!("{again:?}"), format!("{value:?}")),
            Err(error) => panic!("{value:?} is written and then refused: {error}"),
        }
    }
}

/// A stream of frames, received in pieces of `step` bytes. Whole bodies are read as messages of `from`.
pub fn frames(from: u64, step: usize, stream: &[u8]) {
    let mut inbox = Inbox::new(BODY_MAX);
    for piece in stream.chunks(step.max(1)) {
        inbox.room().put_slice(piece);
        loop {
            match inbox.whole_frame() {
                Ok(Some(found)) => {
                    assert!(!found.is_empty() && found.len() <= BODY_MAX);
                    message(from, &found);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// One body, as any message that node `from` could send.
pub fn message(from: u64, found: &Bytes) {
    comes_back(
        message::read_hello(found),
        |hello| body(message::hello(hello)),
        |b| message::read_hello(b),
    );
    comes_back(
        affair::read_affair(found),
        |affair| body(affair::affair(affair)),
        |b| affair::read_affair(b),
    );
    comes_back(
        message::read_append(from, found),
        |request| body(message::append(request)),
        |b| message::read_append(from, b),
    );
    comes_back(
        message::read_appended(found),
        |result| body(message::appended(result)),
        |b| message::read_appended(b),
    );
    comes_back(
        message::read_ballot(from, found),
        |ballot| {
            body(match ballot {
                Ballot::Vote(request) => message::vote(request, false),
                Ballot::PreVote(request) => message::vote(request, true),
                Ballot::Transfer(request) => message::transfer(request),
            })
        },
        |b| message::read_ballot(from, b),
    );
    comes_back(
        message::read_voted(found),
        |response| body(message::voted(response)),
        |b| message::read_voted(b),
    );
    comes_back(
        message::read_snapshot(from, found),
        |part| {
            match part {
                SnapshotPart::Begin { vote, meta } => Ok(message::snapshot(
                    *vote,
                    &codec::position(meta.last_log_id, &meta.last_membership),
                )),
                SnapshotPart::Chunk(bytes) => message::chunk(bytes.clone()),
                SnapshotPart::Last => Ok(message::last()),
            }
            .map_or_else(|_| Bytes::new(), body)
        },
        |b| message::read_snapshot(from, b),
    );
    comes_back(
        message::read_installed(found),
        |vote| body(message::installed(*vote)),
        |b| message::read_installed(b),
    );
    comes_back(
        message::read_told(found),
        |told| {
            body(match told {
                Told::Hint(hint) => message::hint(hint.clone()),
                Told::Kept(kept) => message::kept(*kept),
                Told::Post(topic, bytes) => message::post(*topic, bytes.clone()),
            })
        },
        message::read_told,
    );
    comes_back(
        message::read_wanted(found),
        |wanted| body(message::wanted(wanted)),
        |b| message::read_wanted(b),
    );
    let _ = message::read_welcome(found);
    let _ = message::read_taken(found);
}

/// Bytes that stood in a slot of the log or beside the machine's state.
pub fn stored(bytes: &[u8]) {
    if let Ok(vote) = codec::read_vote_slot(bytes) {
        assert_eq!(codec::vote_slot(vote), bytes);
    }
    if let Ok(id) = codec::read_log_id_slot(bytes) {
        assert_eq!(codec::log_id_slot(id), bytes);
    }
    if let Ok(meta) = codec::read_position(bytes) {
        let again = codec::position(meta.last_log_id, &meta.last_membership);
        let meta = format!("{meta:?}");
        match codec::read_position(&again) {
            Ok(again) => assert_eq!(format!("{again:?}"), meta),
            Err(error) => panic!("{meta} is written and then refused: {error}"),
        }
    }
}

/// A frame with a right checksum around `body`.
pub fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + body.len());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    out.extend_from_slice(body);
    out
}

/// Bodies of all kinds, by name, as node 2 sends them.
pub fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let entry = |index, payload| Entry {
        log_id: log_id(5, index),
        payload,
    };
    let mut request = VoteRequest::new(vote(false), Some(log_id(4, 7)));
    request.leadership_transfer = true;
    let append = AppendRequest {
        vote: vote(true),
        prev_log_id: Some(log_id(3, 8)),
        leader_commit: Some(log_id(3, 7)),
        entries: vec![
            entry(9, Payload::Blank),
            entry(10, Payload::Normal(Command(Bytes::from_static(b"write")))),
            entry(11, Payload::Membership(members())),
        ],
    };
    let position = position_blob();
    let hello = message::Hello {
        version: message::PROTOCOL_VERSION,
        cluster: "store-a".into(),
        from: 2,
        to: 1,
        purpose: message::Purpose::Votes,
        listens: Some(([192, 0, 2, 2], 7400).into()),
        process: 77,
    };
    let visit = message::Hello {
        purpose: message::Purpose::Visit,
        ..hello.clone()
    };
    let transfer = TransferRequest::new(vote(true), 1, Some(log_id(5, 11)));
    let response = VoteResponse::new(vote(false), None, true);
    let conflict = Err(StreamAppendError::Conflict(log_id(2, 3)));
    let kept = message::Kept {
        upto: Some(11),
        witness: true,
    };
    let since = Wanted::Since(Bytes::from_static(b"a checkpoint"));
    let hash = SecretHash([9; 32]);
    let admit = Affair::Admit {
        secret: hash,
        applicant: Applicant {
            name: "b".into(),
            address: SocketAddr::from((Ipv6Addr::LOCALHOST, 7400)),
            key: KeyId([7; 32]),
        },
        now: 7,
    };
    let (expires, now) = (8, 7);
    let token = Affair::Token { hash, expires, now };
    let frames = [
        ("affair-admit", affair::affair(&admit)),
        ("affair-remove", affair::affair(&Affair::Remove { id: 3 })),
        ("affair-token", affair::affair(&token)),
        ("hello", message::hello(&hello)),
        ("visit", message::hello(&visit)),
        ("welcome", message::welcome()),
        ("refused", message::refused("starting up")),
        ("append", message::append(&append)),
        ("appended", message::appended(&Ok(Some(log_id(5, 11))))),
        ("conflict", message::appended(&conflict)),
        ("vote", message::vote(&request, false)),
        ("pre-vote", message::vote(&request, true)),
        ("voted", message::voted(&response)),
        ("transfer", message::transfer(&transfer)),
        ("taken", message::taken()),
        ("snapshot", message::snapshot(vote(true), &position)),
        ("last", message::last()),
        ("installed", message::installed(vote(true))),
        ("hint", message::hint(Bytes::from_static(b"hint"))),
        ("kept", message::kept(kept)),
        ("post", message::post(7, Bytes::from_static(b"post"))),
        ("wanted-all", message::wanted(&Wanted::Everything)),
        ("wanted-since", message::wanted(&since)),
        ("wanted-position", message::wanted(&Wanted::Position)),
    ];
    let named = frames.map(|(name, frame)| (name, body(frame).to_vec()));
    named.into()
}

/// What `stored` takes, by name.
pub fn stored_values() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("vote", codec::vote_slot(vote(true))),
        ("log-id", codec::log_id_slot(log_id(5, 11))),
        ("position", position_blob().to_vec()),
    ]
}

/// A vote of or for node 2.
fn vote(committed: bool) -> Vote {
    Vote {
        leader_id: LeaderId::new(5, 2),
        committed,
    }
}

fn members() -> Membership {
    let voters = BTreeSet::from([1, 2, 3]);
    let nodes = [1, 2, 3, 9].map(|id| (id, Record::default()));
    let nodes = BTreeMap::from(nodes);
    Membership::new(vec![voters], nodes).unwrap_or_default()
}

fn position_blob() -> Bytes {
    let members = Members::new(Some(log_id(1, 1)), members());
    codec::position(Some(log_id(3, 12)), &members)
}
