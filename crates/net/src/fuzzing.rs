//! Entries for fuzzing: records cut out of what clients send, lists of connections. It must not be part of what ships: it exists with
//! the feature `fuzzing` only.

use crate::Limits;
use crate::input::{EMPTY_FRAGMENTS_MAX, Input, Next};
use crate::list;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Most fragments of a record that carry nothing and are not its last.
pub const RECORD_EMPTY_FRAGMENTS_MAX: usize = EMPTY_FRAGMENTS_MAX;

/// The records in a stream that arrives in pieces of `step` bytes, in order, and whether it was refused after
/// them. Panics when a record is taken in beyond the memory budget, or without being accounted for.
pub fn records(limits: &Limits, step: usize, stream: &[u8]) -> (Vec<Bytes>, bool) {
    let budget = Arc::new(Semaphore::new(limits.inflight_bytes_max));
    let mut input = Input::new(Arc::clone(&budget));
    let mut records = Vec::new();
    let mut pieces = stream.chunks(step.max(1));
    loop {
        match input.next(limits) {
            Ok(Next::Record((record, memory))) => {
                assert_eq!(memory.num_permits(), record.len().max(1));
                records.push(record);
            }
            Ok(Next::Bytes) => match pieces.next() {
                Some(piece) => input.buffer.extend_from_slice(piece),
                None => return (records, false),
            },
            // One connection at a time holds at most one record here.
            Ok(Next::Memory(bytes)) => {
                let record_max = limits.record_bytes_max;
                assert!(
                    record_max > limits.inflight_bytes_max,
                    "{bytes} bytes missing"
                );
                return (records, true);
            }
            Err(_) => return (records, true),
        }
    }
}

/// Gives what may be a list of connections the length and the checksum that fit it.
pub fn put_list_right(bytes: &mut [u8]) {
    list::put_right(bytes);
}
