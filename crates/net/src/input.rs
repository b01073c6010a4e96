//! What a connection has received: cuts records (RFC 5531 section 11) out of the bytes.
//!
//! Invariants
//! - Only a whole record leaves the buffer; until then marks are looked at and not consumed.
//! - No room is made for bytes that are not accounted for in the server's memory budget.
//!
//! It must not know sockets.

use crate::Limits;
use bytes::{Bytes, BytesMut};
use haven_rpc::record::{FragmentHeader, HEADER_BYTES};
use std::io;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes asked from the socket at a time while nothing larger is known to come.
const READ_BYTES: usize = 16 << 10;
/// Most fragments in a record: clients send one; a peer that sends many is stalling.
pub(crate) const FRAGMENTS_MAX: usize = 64;

/// A record, and the memory it is accounted for.
pub(crate) type Accounted = (Bytes, OwnedSemaphorePermit);

/// What comes next.
pub(crate) enum Next {
    /// A whole record.
    Record(Accounted),
    /// More bytes are needed; there is room for them in [`Input::buffer`].
    Bytes,
    /// So many bytes of the memory budget are needed first: see [`Input::grant`].
    Memory(u32),
}

/// See the module's head comment.
pub(crate) struct Input {
    /// Where received bytes are appended.
    pub buffer: BytesMut,
    budget: Arc<Semaphore>,
    /// What the record that is arriving has of the budget.
    held: Option<OwnedSemaphorePermit>,
    held_bytes: usize,
}

impl Input {
    /// Nothing received yet.
    pub fn new(budget: Arc<Semaphore>) -> Self {
        Self {
            buffer: BytesMut::new(),
            budget,
            held: None,
            held_bytes: 0,
        }
    }

    /// Whether a record has begun and is not complete. (Call it when [`Input::next`] wants bytes.)
    pub fn is_amid_record(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Adds to what the arriving record has of the budget.
    pub fn grant(&mut self, permit: OwnedSemaphorePermit) {
        self.held_bytes += permit.num_permits();
        match &mut self.held {
            None => self.held = Some(permit),
            Some(held) => held.merge(permit),
        }
    }

    /// The next record, or what it takes.
    ///
    /// # Errors
    /// A record beyond the limits.
    pub fn next(&mut self, limits: &Limits) -> io::Result<Next> {
        let (mut at, mut total) = (0, 0);
        let mut parts = Parts::default();
        loop {
            let Some(mark) = self.buffer.get(at..).and_then(|rest| rest.first_chunk()) else {
                return Ok(self.want(at + HEADER_BYTES));
            };
            let header = FragmentHeader::parse(*mark);
            let length = header.len as usize;
            total += length;
            if total > limits.record_bytes_max || parts.count == FRAGMENTS_MAX {
                let most = limits.record_bytes_max;
                let why =
                    format!("a record of more than {most} bytes or {FRAGMENTS_MAX} fragments");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            // Before the bytes are read: what is not accounted for is not taken in.
            if let Some(missing) = self.missing(total) {
                return Ok(Next::Memory(missing));
            }
            at += HEADER_BYTES;
            if self.buffer.len() < at + length {
                return Ok(self.want(at + length));
            }
            parts.add(at, length);
            at += length;
            if header.last {
                return self.take(at, total, &parts).map(Next::Record);
            }
        }
    }

    /// Takes what a record of `total` bytes still needs of the budget; says how much if it is not there.
    fn missing(&mut self, total: usize) -> Option<u32> {
        // An empty record counts too, so that every record has a permit.
        let missing = total.max(1).saturating_sub(self.held_bytes);
        if missing == 0 {
            return None;
        }
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        match Arc::clone(&self.budget).try_acquire_many_owned(missing) {
            Ok(permit) => {
                self.grant(permit);
                None
            }
            Err(_) => Some(missing),
        }
    }

    fn want(&mut self, bytes: usize) -> Next {
        let missing = bytes.saturating_sub(self.buffer.len());
        self.buffer.reserve(missing.max(READ_BYTES));
        Next::Bytes
    }

    /// Takes the record's `bytes`, marks included, out of the buffer.
    fn take(&mut self, bytes: usize, total: usize, parts: &Parts) -> io::Result<Accounted> {
        let memory = self.held.take().ok_or(io::ErrorKind::InvalidData)?;
        self.held_bytes = 0;
        let whole = self.buffer.split_to(bytes).freeze();
        let record = if parts.count == 1 {
            whole.slice(HEADER_BYTES..)
        } else {
            let mut joined = BytesMut::with_capacity(total);
            for (start, length) in parts.iter() {
                joined.extend_from_slice(&whole[start..start + length]);
            }
            joined.freeze()
        };
        Ok((record, memory))
    }
}

/// Where fragments lie. Nearly always one, which costs no allocation.
#[derive(Default)]
struct Parts {
    first: (usize, usize),
    more: Vec<(usize, usize)>,
    count: usize,
}

impl Parts {
    fn add(&mut self, start: usize, length: usize) {
        if self.count == 0 {
            self.first = (start, length);
        } else {
            self.more.push((start, length));
        }
        self.count += 1;
    }

    fn iter(&self) -> impl Iterator<Item = (usize, usize)> {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }
}
