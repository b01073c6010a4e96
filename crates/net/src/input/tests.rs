//! What is taken of the budget, and for how long.

use super::*;
use crate::budget::Waiting;
use std::net::Ipv4Addr;
use tokio::time::Instant;

const RECORD: usize = 1 << 20;
const SMALL_BYTES_MAX: usize = SLAB_BYTES - HEADER_BYTES;
/// A quarter of it is plenty for nobody.
const BUDGET: usize = 4 << 20;

struct Rig {
    input: Input,
    budget: Arc<Budget>,
    party: Arc<Party>,
    waiting: Option<Waiting>,
}

fn rig(budget: usize) -> Rig {
    let budget = Budget::new(budget);
    let (party, _told) = Party::new(1, Ipv4Addr::LOCALHOST.into(), Instant::now());
    let party = Arc::new(party);
    let limits = Limits {
        record_bytes_max: RECORD,
        ..Limits::default()
    };
    Rig {
        input: Input::new(Arc::clone(&party), Arc::clone(&budget), &limits),
        budget,
        party,
        waiting: None,
    }
}

fn mark(last: bool, bytes: usize) -> [u8; HEADER_BYTES] {
    let len = bytes as u32;
    FragmentHeader { last, len }.encode()
}

fn framed(bytes: usize) -> Vec<u8> {
    [&mark(true, bytes)[..], &vec![7; bytes]].concat()
}

impl Rig {
    /// What comes next that is not bytes, after all of `bytes`, or nothing.
    fn receive(&mut self, mut bytes: &[u8]) -> Option<Next> {
        loop {
            match self.input.next().unwrap() {
                Next::Large => self.input.admit(true),
                Next::Bytes if bytes.is_empty() => return None,
                Next::Bytes => {
                    self.input.check_memory();
                    let mut room = self.input.room();
                    let (piece, rest) = bytes.split_at(room.remaining_mut().min(bytes.len()));
                    assert!(!piece.is_empty());
                    room.put_slice(piece);
                    bytes = rest;
                }
                other => {
                    assert!(bytes.is_empty() || matches!(other, Next::Memory(_)));
                    return Some(other);
                }
            }
        }
    }

    fn used(&self) -> usize {
        self.budget.look().bytes
    }
}

#[test]
fn a_record_counts_as_it_comes_and_until_it_is_done() {
    let mut rig = rig(BUDGET);
    let record = framed(RECORD);
    assert!(rig.receive(&record[..10_000]).is_none());
    assert_eq!(rig.used(), 0, "it is in the slab still");
    let mut sent = 10_000;
    for (more, most) in [
        (10_000, 4 * SLAB_BYTES),
        (80_000, 8 * SLAB_BYTES * 2),
        (900_000, RECORD),
    ] {
        assert!(rig.receive(&record[sent..sent + more]).is_none());
        sent += more;
        assert!(rig.used() <= most.max(4 * sent), "{} of {sent}", rig.used());
    }
    let whole = rig.receive(&record[sent..]);
    let Some(Next::Record(whole)) = whole else {
        panic!("{whole:?}");
    };
    assert_eq!(whole.len(), RECORD);
    let lease = rig.input.lease();
    assert!(rig.receive(&[]).is_none());
    assert_eq!(rig.used(), RECORD);
    drop((whole, lease));
    assert_eq!(rig.used(), 0);
}

#[test]
fn requests_that_keep_the_slab_make_further_ones_count() {
    let mut rig = rig(BUDGET);
    let mut kept = Vec::new();
    for n in 0..40 {
        let Some(Next::Record(record)) = rig.receive(&framed(1_000)) else {
            panic!("{n}");
        };
        assert_eq!(record.len(), 1_000);
        kept.push((record, rig.input.lease()));
    }
    let slabs = rig.used() / SLAB_BYTES;
    assert!((2..=3).contains(&slabs), "{slabs}");
    kept.clear();
    assert!(rig.receive(&[]).is_none());
    assert_eq!(rig.used(), 0, "back in its own");
}

#[test]
fn a_small_record_needs_nothing_of_the_budget_once_the_former_ones_are_done() {
    let mut rig = rig(BUDGET);
    let all = rig.budget.try_take(&rig.party, BUDGET, BUDGET);
    let Some(Next::Record(first)) = rig.receive(&framed(9_000)) else {
        panic!();
    };
    let lease = rig.input.lease();
    let next = framed(SMALL_BYTES_MAX);
    assert!(matches!(rig.receive(&next), Some(Next::Memory(SLAB_BYTES))));
    drop((first, lease));
    let rest = &next[SLAB_BYTES - 9_004..];
    let Some(Next::Record(second)) = rig.receive(rest) else {
        panic!();
    };
    assert_eq!(second.len(), SMALL_BYTES_MAX);
    drop(all);
}

#[test]
fn what_is_granted_is_used_for_what_it_was_asked_for() {
    let mut rig = rig(BUDGET);
    let all = rig.budget.try_take(&rig.party, BUDGET, BUDGET);
    let record = framed(RECORD);
    let mut sent = SLAB_BYTES;
    let mut all = Some(all);
    let mut told = rig.receive(&record[..sent]);
    loop {
        match told {
            Some(Next::Memory(bytes)) => {
                let mut waiting = rig.budget.wait(&rig.party, bytes, rig.input.permit());
                all = None;
                let granted = waiting.try_granted();
                rig.input.grant(granted.expect("there is room now"));
                rig.waiting = Some(waiting);
                told = rig.receive(&[]);
            }
            Some(Next::Record(record)) => {
                assert!(record.len() == RECORD && record.iter().all(|b| *b == 7));
                break;
            }
            None => {
                let next = record.len().min(sent + 9_999);
                told = rig.receive(&record[sent..next]);
                sent = next;
            }
            other => panic!("{other:?}"),
        }
    }
    drop(all);
}

#[test]
fn of_a_record_that_is_not_taken_in_the_head_is_kept_and_what_follows_is_found() {
    for fragment in [1_000, 5_000, RECORD] {
        let mut rig = rig(BUDGET);
        let body: Vec<u8> = (0..RECORD).map(|n| n as u8).collect();
        let mut stream = Vec::new();
        let count = RECORD.div_ceil(fragment);
        for (n, part) in body.chunks(fragment).enumerate() {
            stream.extend_from_slice(&mark(n + 1 == count, part.len()));
            stream.extend_from_slice(part);
        }
        stream.extend_from_slice(&framed(5));
        let (mut heads, mut records, mut rest) = (Vec::new(), Vec::new(), &stream[..]);
        loop {
            match rig.input.next().unwrap() {
                Next::Large => rig.input.admit(false),
                Next::Refused(head) => heads.push(head),
                Next::Record(record) => records.push(record),
                Next::Bytes if rest.is_empty() => break,
                Next::Bytes => {
                    let mut room = rig.input.room();
                    let (piece, left) = rest.split_at(room.remaining_mut().min(rest.len()));
                    room.put_slice(piece);
                    rest = left;
                }
                Next::Memory(bytes) => panic!("{bytes}"),
            }
        }
        assert_eq!(heads, [&body[..HEAD_BYTES_MAX]]);
        assert_eq!(records, [&[7; 5][..]]);
        assert_eq!(rig.used(), 0);
    }
}
