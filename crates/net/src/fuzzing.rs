//! Entries for fuzzing: records cut out of what clients send, lists of connections. It must not be part of what ships: it exists with
//! the feature `fuzzing` only.

use crate::Limits;
use crate::budget::Budget;
use crate::input::{EMPTY_FRAGMENTS_MAX, HEAD_BYTES_MAX, Input, Next};
use crate::list;
use crate::party::Party;
use bytes::{BufMut, Bytes};
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::time::Instant;

/// Most fragments of a record that carry nothing and are not its last.
pub const RECORD_EMPTY_FRAGMENTS_MAX: usize = EMPTY_FRAGMENTS_MAX;
/// What is kept of a record that is not taken in.
pub const RECORD_HEAD_BYTES_MAX: usize = HEAD_BYTES_MAX;

/// How a stream is received.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// It comes in pieces of so many bytes.
    pub step: usize,
    /// Records that a slab of so many bytes does not hold are large.
    pub slab_bytes: usize,
    /// Large records are taken in; else their heads are given.
    pub admits: bool,
    /// Requests are not done before memory is short.
    pub keeps: bool,
}

/// The records in a stream, in order, and whether it was refused after them. Panics when more memory is used than is
/// accounted for, when more is taken of the budget than what has been sent allows, when any of it is not given back, or
/// when a stream does not get on though its former requests are done.
pub fn records(limits: &Limits, manner: Manner, stream: &[u8]) -> (Vec<Bytes>, bool) {
    let budget = Budget::new(limits.inflight_bytes_max);
    let (party, _told) = Party::new(1, Ipv4Addr::LOCALHOST.into(), Instant::now());
    let party = Arc::new(party);
    let (own, memory) = (Arc::clone(&party), Arc::clone(&budget));
    let mut input = Input::with_slabs(manner.slab_bytes, own, memory, limits);
    let (mut records, mut kept) = (Vec::new(), Vec::new());
    let mut rest = stream;
    let refused = loop {
        match input.next() {
            Ok(Next::Record(record)) => {
                records.push(record);
                if manner.keeps {
                    kept.push(input.lease());
                }
            }
            Ok(Next::Refused(head)) => records.push(head),
            Ok(Next::Large) => input.admit(manner.admits),
            Ok(Next::Bytes) => {
                input.check_memory();
                if rest.is_empty() {
                    break false;
                }
                let mut room = input.room();
                let most = room.remaining_mut().min(manner.step.max(1));
                let (piece, left) = rest.split_at(most.min(rest.len()));
                assert!(!piece.is_empty(), "no room to read into");
                room.put_slice(piece);
                rest = left;
            }
            Ok(Next::Memory(bytes)) => {
                let mut waiting = budget.wait(&party, bytes, input.permit());
                let granted = waiting.try_granted().or_else(|| {
                    kept.clear();
                    waiting.try_granted()
                });
                input.grant(granted.expect("nobody else has any"));
            }
            Err(_) => break true,
        }
    };
    drop((input, kept));
    assert_eq!(budget.look().bytes, 0);
    (records, refused)
}

/// Gives what may be a list of connections the length and the checksum that fit it.
pub fn put_list_right(bytes: &mut [u8]) {
    list::put_right(bytes);
}
